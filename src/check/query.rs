//! Compares the query that a redirect received with the one that it sent. Without I/O.
//!
//! Both are compared as browsers send them. A query with other bytes that Nango reads identically
//! is a difference too, but one that keeps every value.

use super::qs::read_by_nango;
use std::fmt::Write as _;

/// How the query that arrived differs from the one that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// Nothing arrived.
    Dropped,
    /// An unexpanded placeholder arrived.
    Template(&'static str),
    /// The query of another request arrived.
    Stale,
    /// It is truncated to this number of bytes.
    Cut(usize),
    /// The same bytes, encoded differently.
    Reencoded {
        /// The bytes around the first difference, as sent.
        sent: String,
        /// As they arrived.
        got: String,
        /// Whether percent signs were encoded again.
        twice: bool,
        /// Whether Nango reads the same values.
        equal: bool,
    },
    /// Parameters were moved, or lost or added where Nango ignores them, with a description. Nango
    /// reads the same values.
    Rearranged(String),
    /// Parameters were lost, added, merged or moved, with a description.
    Parameters(String),
    /// The value of this parameter changed.
    Value(String),
    /// The value of this parameter ends before this character of it, and nothing follows.
    Ends(String, char),
    /// A fragment was appended, which Nango does not receive.
    Fragment,
    /// There was no query, and a bare `?` was appended.
    Dangling,
}

impl Difference {
    /// The check that reports it.
    pub(super) fn id(&self) -> &'static str {
        match self {
            Self::Dropped | Self::Value(_) | Self::Ends(..) | Self::Fragment => "redirect.query",
            Self::Template(_) => "redirect.template",
            Self::Stale => "redirect.cache",
            Self::Cut(_) => "redirect.size",
            Self::Reencoded { .. } => "redirect.encoding",
            Self::Rearranged(_) | Self::Parameters(_) => "redirect.parameters",
            Self::Dangling => "redirect.empty",
        }
    }

    /// Whether Nango reads the same values in spite of it.
    pub(super) fn keeps_values(&self) -> bool {
        match self {
            Self::Reencoded { equal, .. } => *equal,
            Self::Rearranged(_) | Self::Fragment | Self::Dangling => true,
            Self::Dropped
            | Self::Template(_)
            | Self::Stale
            | Self::Cut(_)
            | Self::Parameters(_)
            | Self::Value(_)
            | Self::Ends(..) => false,
        }
    }

    /// A description for the report.
    pub(super) fn description(&self) -> String {
        match self {
            Self::Dropped => "no parameter arrives".to_owned(),
            Self::Template(marker) => format!("`{marker}` arrives unexpanded"),
            Self::Stale => "the parameters of another request arrive".to_owned(),
            Self::Cut(length) => format!("the query is cut after {length} bytes"),
            Self::Reencoded { sent, got, twice: false, .. } => {
                format!("`{sent}` arrives as `{got}`")
            }
            Self::Reencoded { sent, got, twice: true, .. } => {
                format!("encoded twice: `{sent}` arrives as `{got}`")
            }
            Self::Rearranged(description) | Self::Parameters(description) => description.clone(),
            Self::Value(name) if name.is_empty() => {
                "the value of a parameter without a name changes".to_owned()
            }
            Self::Value(name) => format!("the value of `{name}` changes"),
            Self::Ends(name, character) => {
                format!("the value of `{name}` is cut before its `{character}`")
            }
            Self::Fragment => "a fragment (`#`) is appended".to_owned(),
            Self::Dangling => "a bare `?` is appended".to_owned(),
        }
    }
}

/// The query as a browser sends it: with the special-query percent-encode set of the WHATWG URL
/// Standard encoded. These are the C0 controls, the space, `"`, `#`, `<`, `>`, `'` and all bytes
/// that are not ASCII. Servers may write them in either form.
pub(super) fn as_browsers_send(query: &str) -> String {
    let mut encoded = String::with_capacity(query.len());
    for byte in query.bytes() {
        match byte {
            b'!' | b'$'..=b'&' | b'('..=b';' | b'=' | b'?'..=b'~' => encoded.push(byte.into()),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// Compares the query sent with the one that arrived, both as browsers send them; `None` when they
/// are the same bytes. A fragment counts as part of the query that arrived.
/// `prefix` starts every state of this run, `state` is the one of this query.
pub(super) fn difference(
    sent: &str,
    got: Option<&str>,
    prefix: &str,
    state: &str,
) -> Option<Difference> {
    let got = got.unwrap_or_default();
    if got == sent {
        return None;
    }
    if got.is_empty() {
        return Some(Difference::Dropped);
    }
    if let Some(marker) = template(sent, got) {
        return Some(Difference::Template(marker));
    }
    if !got.contains(state) && got.contains(prefix) && sent.contains(state) {
        return Some(Difference::Stale);
    }
    // Short queries are not compared this way: they may lack a parameter only.
    if sent.len() > 1024 && sent.starts_with(got) {
        return Some(Difference::Cut(got.len()));
    }
    // Every byte is the prober's own, so it can be shown.
    let is_reencoded = is_reencoded(sent, got);
    if let Some((query, _)) = got.split_once('#')
        && !is_reencoded
    {
        // The fragment is the server's own, or it starts with an encoded `#` that was decoded.
        let rest = difference(sent, Some(query), prefix, state);
        return rest.filter(|rest| !rest.keeps_values()).or(Some(Difference::Fragment));
    }
    let equal = !got.contains('#') && read_by_nango(sent) == read_by_nango(got);
    let (before, after) = (pairs(sent), pairs(got));
    if is_reencoded || before == after {
        return Some(reencoded(sent, got, equal));
    }
    if !equal {
        // An empty parameter, which Nango ignores, must not hide how the others changed.
        let (sent, got) = (without_empty(sent), without_empty(got));
        if self::is_reencoded(&sent, &got) {
            return Some(reencoded(&sent, &got, equal));
        }
    }
    if !equal && let Some(ends) = ends(sent, got) {
        return Some(ends);
    }
    let moved = moved(&before, &after, equal);
    Some(match moved {
        Some(description) if equal => Difference::Rearranged(description),
        None if equal => Difference::Rearranged("only what Nango ignores is different".to_owned()),
        Some(description) => Difference::Parameters(description),
        None => Difference::Value(
            before
                .iter()
                .zip(&after)
                .find(|(before, after)| before != after)
                .map_or_else(String::new, |(pair, _)| pair.shown(&before)),
        ),
    })
}

/// A query that was cut at a delimiter of its own, as `split("?")` does. The rest is lost.
fn ends(sent: &str, got: &str) -> Option<Difference> {
    let rest = sent.strip_prefix(got)?;
    let character = rest.chars().next().filter(|it| matches!(it, '?' | ';' | '='))?;
    let (name, value) = got.rsplit('&').next()?.split_once('=')?;
    (!value.is_empty()).then(|| Difference::Ends(name.to_owned(), character))
}

/// Whether the difference is only in the encoding of the query as a whole.
fn is_reencoded(sent: &str, got: &str) -> bool {
    let arrived = decoded(got.as_bytes(), false);
    arrived == decoded(sent.as_bytes(), false)
        || arrived == sent.as_bytes()
        || got.replace("&amp;", "&") == sent
}

fn without_empty(query: &str) -> String {
    query.split('&').filter(|parameter| !parameter.is_empty()).collect::<Vec<_>>().join("&")
}

/// A placeholder of a server's configuration that is in `got`, but not in `sent`.
pub(super) fn template(sent: &str, got: &str) -> Option<&'static str> {
    // Longer ones first, so that the complete placeholder is reported.
    const MARKERS: [&str; 24] = [
        "$is_args$args",
        "$request_uri",
        "$query_string",
        "$args",
        "$arg_",
        "${",
        "$1",
        "$2",
        "$host",
        "$uri",
        "{http.request",
        "{query}",
        "{uri}",
        "{path}",
        "{host}",
        "{args}",
        "#{query}",
        "#{path}",
        "%{QUERY_STRING}",
        "%{REQUEST_URI}",
        "%[query]",
        "{{",
        "%7Buri%7D",
        "%7Bquery%7D",
    ];
    MARKERS.into_iter().find(|marker| got.contains(marker) && !sent.contains(marker))
}

/// A parameter, decoded. A name without `=` is not the same as one with an empty value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    name: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Pair {
    /// The name. Without a `=`, it may be a value of unknown origin.
    fn shown(&self, sent: &[Self]) -> String {
        if self.value.is_none() && !sent.contains(self) {
            "…".to_owned()
        } else {
            String::from_utf8_lossy(&self.name).chars().take(MAX_CHARACTERS).collect()
        }
    }
}

fn pairs(query: &str) -> Vec<Pair> {
    query
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((name, value)) => Pair {
                name: decoded(name.as_bytes(), true),
                value: Some(decoded(value.as_bytes(), true)),
            },
            None => Pair { name: decoded(parameter.as_bytes(), true), value: None },
        })
        .collect()
}

fn times(count: usize) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// Describes which parameters were lost, added, merged or moved; `None` when only values differ.
/// `equal` means that Nango reads the same values.
fn moved(before: &[Pair], after: &[Pair], equal: bool) -> Option<String> {
    let names = |pairs: &[Pair]| pairs.iter().map(|pair| pair.name.clone()).collect::<Vec<_>>();
    let count = |pairs: &[Pair], name: &[u8]| pairs.iter().filter(|pair| pair.name == name).count();
    let mut changes = Vec::new();
    let mut seen: Vec<&[u8]> = Vec::new();
    for pair in before.iter().chain(after) {
        if seen.contains(&pair.name.as_slice()) {
            continue;
        }
        seen.push(&pair.name);
        let (sent, got) = (count(before, &pair.name), count(after, &pair.name));
        let (parameter, note) = if pair.name.is_empty() {
            ("a parameter without a name".to_owned(), " (`&&` or `=value`)")
        } else {
            (format!("`{}`", pair.shown(before)), "")
        };
        let change = match (sent, got) {
            (sent, got) if sent == got => continue,
            (0, _) => "is added".to_owned(),
            (1, 0) => "is lost".to_owned(),
            (sent, got) => format!("is sent {} and arrives {}", times(sent), times(got)),
        };
        changes.push(format!("{parameter} {change}{note}"));
    }
    if changes.is_empty() {
        let mut sorted = (before.to_vec(), after.to_vec());
        sorted.0.sort();
        sorted.1.sort();
        let is_permutation = sorted.0 == sorted.1;
        if is_permutation && !equal {
            // The order of different names is lost in Nango.
            let of = |pairs: &[Pair], name: &[u8]| -> Vec<_> {
                pairs.iter().filter(|pair| pair.name == name).cloned().collect()
            };
            let moved = before.iter().find(|pair| of(before, &pair.name) != of(after, &pair.name));
            changes.push(match moved {
                Some(pair) => {
                    format!("the values of `{}` arrive in another order", pair.shown(before))
                }
                None => "the parameters arrive in another order".to_owned(),
            });
        } else if is_permutation || names(before) != names(after) {
            changes.push("the parameters arrive in another order".to_owned());
        }
    }
    if changes.is_empty() {
        for (sent, got) in before.iter().zip(after) {
            let name = sent.shown(before);
            let (bare, empty) = match name.as_str() {
                "" => ("`&&`".to_owned(), "`&=&`".to_owned()),
                name => (format!("`{name}`"), format!("`{name}=`")),
            };
            match (&sent.value, &got.value) {
                (None, Some(value)) if value.is_empty() => {
                    changes.push(format!("{bare} arrives as {empty}"));
                }
                (Some(value), None) if value.is_empty() => {
                    changes.push(format!("{empty} arrives as {bare}"));
                }
                _ => {}
            }
        }
    }
    changes.truncate(MAX_CHANGES);
    (!changes.is_empty()).then(|| changes.join(", "))
}

const MAX_CHANGES: usize = 6;
const MAX_CHARACTERS: usize = 40;

/// The maximum of bytes of a parameter to show before and after a difference.
const MAX_BEFORE: usize = 40;
const MAX_AFTER: usize = 6;

/// Both contain the same parameters, all of them the prober's own, so the parameter with the first
/// difference can be shown.
fn reencoded(sent: &str, got: &str, equal: bool) -> Difference {
    if got.replace("&amp;", "&") == sent {
        let (sent, got) = ("&".to_owned(), "&amp;".to_owned());
        return Difference::Reencoded { sent, got, twice: false, equal };
    }
    let same = sent.bytes().zip(got.bytes()).take_while(|(sent, got)| sent == got).count();
    let common = sent.as_bytes().get(..same).unwrap_or_default();
    // From the start of the escape.
    let escape = common.iter().rev().take(2).position(|byte| *byte == b'%');
    let same = escape.map_or(same, |back| same - back - 1);
    let around = |text: &str| -> String {
        let (before, after) = text.split_at(boundary(text, same));
        let before = before.rsplit('&').next().unwrap_or_default();
        // A `&` may be the difference itself.
        let end = after.match_indices('&').map(|(at, _)| at).find(|at| *at > 0);
        let after = after.get(..end.unwrap_or(after.len())).unwrap_or_default();
        let before = match before.split_once('=') {
            Some((name, value)) if before.len() > MAX_BEFORE => {
                let cut = value.ceil_char_boundary(value.len().saturating_sub(MAX_BEFORE / 2));
                format!("{name}=…{}", value.get(cut..).unwrap_or_default())
            }
            _ => before.to_owned(),
        };
        match after.get(..boundary(after, MAX_AFTER)) {
            Some(start) if start.len() < after.len() => format!("{before}{start}…"),
            _ => format!("{before}{after}"),
        }
    };
    // The percent sign of an escape was escaped again.
    let twice = decoded(got.as_bytes(), false) == sent.as_bytes()
        && decoded(sent.as_bytes(), false) != sent.as_bytes();
    Difference::Reencoded { sent: around(sent), got: around(got), twice, equal }
}

/// The last boundary of characters up to this byte.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

/// Percent-decoded once (RFC 3986 §2.1); invalid escapes stay.
fn decoded(text: &[u8], plus: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, tail @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = tail;
                }
                _ => out.push(b'%'),
            },
            (b'+', _) if plus => out.push(b' '),
            _ => out.push(byte),
        }
    }
    out
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests;
