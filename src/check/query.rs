//! Compares the query that a redirect received with the one that it sent. Without I/O.

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
    /// The same parameters, encoded differently.
    Reencoded {
        /// The bytes around the first difference, as sent.
        sent: String,
        /// As they arrived.
        got: String,
        /// Whether percent signs were encoded again.
        twice: bool,
    },
    /// Parameters were lost, added, merged or moved, with a description.
    Parameters(String),
    /// The value of this parameter changed.
    Value(String),
    /// A fragment was appended.
    Fragment,
    /// There was no query, and a bare `?` was appended.
    Dangling,
}

impl Difference {
    /// The check that reports it.
    pub(super) fn id(&self) -> &'static str {
        match self {
            Self::Dropped | Self::Value(_) | Self::Fragment => "redirect.query",
            Self::Template(_) => "redirect.template",
            Self::Stale => "redirect.cache",
            Self::Cut(_) => "redirect.size",
            Self::Reencoded { .. } => "redirect.encoding",
            Self::Parameters(_) => "redirect.parameters",
            Self::Dangling => "redirect.empty",
        }
    }

    /// A description for the report.
    pub(super) fn description(&self) -> String {
        match self {
            Self::Dropped => "no parameter arrives".to_owned(),
            Self::Template(marker) => format!("`{marker}` arrives unexpanded"),
            Self::Stale => "the parameters of another request arrive".to_owned(),
            Self::Cut(length) => format!("the query is cut after {length} bytes"),
            Self::Reencoded { sent, got, twice: false } => format!("`{sent}` arrives as `{got}`"),
            Self::Reencoded { sent, got, twice: true } => {
                format!("encoded twice: `{sent}` arrives as `{got}`")
            }
            Self::Parameters(description) => description.clone(),
            Self::Value(name) if name.is_empty() => {
                "the value of a parameter without a name changes".to_owned()
            }
            Self::Value(name) => format!("the value of `{name}` changes"),
            Self::Fragment => "a fragment (`#`) is appended".to_owned(),
            Self::Dangling => "a bare `?` is appended".to_owned(),
        }
    }
}

/// Compares the query sent with the one that arrived; `None` when they are the same bytes.
/// `prefix` starts every state of this run, `state` is the one of this query.
pub(super) fn difference(
    sent: &str,
    got: Option<&[u8]>,
    prefix: &str,
    state: &str,
) -> Option<Difference> {
    let raw = got.unwrap_or_default();
    if raw == sent.as_bytes() {
        return None;
    }
    let got = String::from_utf8_lossy(raw);
    if raw.is_empty() {
        return Some(Difference::Dropped);
    }
    if let Some(marker) = template(sent, &got) {
        return Some(Difference::Template(marker));
    }
    if !got.contains(state) && got.contains(prefix) && sent.contains(state) {
        return Some(Difference::Stale);
    }
    if got.contains('#') {
        return Some(Difference::Fragment);
    }
    // Short queries are not compared this way: they may lack a parameter only.
    if sent.len() > 1024 && sent.starts_with(&*got) {
        return Some(Difference::Cut(got.len()));
    }
    if decoded(raw, false) == sent.as_bytes() || got.replace("&amp;", "&") == sent {
        return Some(reencoded(sent, &got));
    }
    let (before, after) = (pairs(sent), pairs(&got));
    if before == after {
        return Some(reencoded(sent, &got));
    }
    Some(match moved(&before, &after) {
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
fn moved(before: &[Pair], after: &[Pair]) -> Option<String> {
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
    if changes.is_empty() && names(before) != names(after) {
        changes.push("the parameters arrive in another order".to_owned());
    }
    if changes.is_empty() {
        let mut sorted = (before.to_vec(), after.to_vec());
        sorted.0.sort();
        sorted.1.sort();
        if sorted.0 == sorted.1 {
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
fn reencoded(sent: &str, got: &str) -> Difference {
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
    Difference::Reencoded { sent: around(sent), got: around(got), twice }
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

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_classified() {
        let re = |sent: &str, got: &str, twice| {
            Some(Difference::Reencoded { sent: sent.into(), got: got.into(), twice })
        };
        let parameters = |words: &str| Some(Difference::Parameters(words.into()));
        #[rustfmt::skip]
        let table = [
            ("s=P-1&a=1", Some("s=P-1&a=1"), None),
            ("s=P-1&a=1", None, Some(Difference::Dropped)),
            ("s=P-1&a=1", Some(""), Some(Difference::Dropped)),
            ("s=P-1&a=1", Some("$args"), Some(Difference::Template("$args"))),
            ("s=P-1&a=1", Some("s=P-2&a=1"), Some(Difference::Stale)),
            ("s=P-1&a=1", Some("s=P-1&a=1#_=_"), Some(Difference::Fragment)),
            ("s=P-1&a=%2F", Some("s=P-1&a=/"), re("a=%2F", "a=/", false)),
            ("s=P-1&a=%2f&b", Some("s=P-1&a=%2F&b"), re("a=%2f", "a=%2F", false)),
            ("s=P-1&a=x%20y", Some("s=P-1&a=x+y"), re("a=x%20y", "a=x+y", false)),
            ("s=P-1&a='", Some("s=P-1&a=%27"), re("a='", "a=%27", false)),
            ("s=P-1&a=%2F", Some("s=P-1&a=%252F"), re("a=%2F", "a=%252F", true)),
            ("s=P-1&a=100%", Some("s=P-1&a=100%25"), re("a=100%", "a=100%25", false)),
            ("s=P-1&a=é", Some("s=P-1&a=%C3%A9"), re("a=é", "a=%C3%A9", false)),
            ("s=P-1&a=https%3a%2f&b", Some("s=P-1&a=https%3A%2F&b"), re("a=https%3a%2f", "a=https%3A%2F", false)),
            ("s=P-1&name=A%3a+User+x", Some("s=P-1&name=A%3A+User+x"), re("name=A%3a+Us…", "name=A%3A+Us…", false)),
            ("s=P-1&a=a&b", Some("s=P-1&a=a%26b"), re("a=a&b", "a=a%26b", false)),
            ("s=P-1&a=1", Some("s=P-1&amp;a=1"), re("a=1", "amp;a=1", false)),
            ("s=P-1&a=1&a=2", Some("s=P-1&a=2"), parameters("`a` is sent 2 times and arrives once")),
            ("s=P-1&a=1&a=2", Some("s=P-1&a=1,2"), parameters("`a` is sent 2 times and arrives once")),
            ("s=P-1&a=1&a=2", Some("s=P-1&a=2&a=1"), parameters("the parameters arrive in another order")),
            ("s=P-1&a=1", Some("a=1&s=P-1"), parameters("the parameters arrive in another order")),
            ("s=P-1&b", Some("s=P-1"), parameters("`b` is lost")),
            ("s=P-1&b", Some("s=P-1&b="), parameters("`b` arrives as `b=`")),
            ("s=P-1&b=", Some("s=P-1&b"), parameters("`b=` arrives as `b`")),
            ("s=P-1", Some("s=P-1&path=x"), parameters("`path` is added")),
            ("s=P-1&a=1&&b=2", Some("s=P-1&a=1&b=2"), parameters("a parameter without a name is lost (`&&` or `=value`)")),
            ("s=P-1&a=abc", Some("s=P-1&a=***"), Some(Difference::Value("a".into()))),
        ];
        for (sent, got, expected) in table {
            let found = difference(sent, got.map(str::as_bytes), "P-", "P-1");
            assert_eq!(found, expected, "{sent} → {got:?}");
        }
        let long = format!("s=P-1&a={}", "x".repeat(2000));
        let got = &long[..1500];
        let found = difference(&long, Some(got.as_bytes()), "P-", "P-1");
        assert_eq!(found, Some(Difference::Cut(1500)));
    }

    #[test]
    fn foreign_values_are_never_shown() {
        for got in [
            "s=P-1&a=s3cret",
            "s=P-1&a=1&s3cret",
            "s3cret",
            "s=P-1&a=1&token=s3cret",
            "s=P-1&a=1#s3cret",
        ] {
            let found = difference("s=P-1&a=1", Some(got.as_bytes()), "P-", "P-1").unwrap();
            assert!(!found.description().contains("s3cret"), "{}", found.description());
        }
    }
    proptest::proptest! {
        /// Any Location is classified, and the description contains only bytes that were sent.
        #[test]
        fn any_query_is_classified(sent in "[a-c%2Ff=&+é]{0,40}", got in ".{0,60}", cut in 0_usize..40) {
            let _ = difference(&sent, Some(got.as_bytes()), "P-", "P-1");
            let mut changed = sent.clone().into_bytes();
            changed.truncate(cut);
            changed.extend_from_slice(b"&Z9=SECRET&SECRET&=SECRET");
            if let Some(found) = difference(&sent, Some(&changed), "P-", "P-1") {
                proptest::prop_assert!(!found.description().contains("SECRET"), "{}", found.description());
            }
        }
    }
}
