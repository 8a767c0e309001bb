//! Parsers of single values, one function each, from the written value to a type. Those of network
//! values are in `address`.

use super::settings::{Challenge, ClientAddress, LogFormat};
use super::similar::nearest;
use crate::redirect::FormPost;
use figment::value::Value;
use http::HeaderValue;
use jiff::{Span, SpanRelativeTo};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// A written value, and whether it comes from a variable, which can only contain text.
#[derive(Clone, Copy)]
pub(super) struct RawValue<'v> {
    pub(super) value: &'v Value,
    pub(super) variable: bool,
}

/// Why a value is invalid for its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    pub(super) what: String,
    pub(super) hint: Option<String>,
    /// The value must not be printed.
    pub(super) secret: bool,
}

pub(super) type ParseResult<T> = Result<T, Invalid>;

impl Invalid {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None, secret: false }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn kind(expected: &str, found: &Value) -> Self {
        let bad = Self::new(format!("expected {expected}, found {}", kind(found)));
        match found {
            Value::Array(..) => bad.hint("give one value, without brackets"),
            Value::Dict(..) => bad.hint("give one value"),
            _ if expected == "text" => bad.hint("put the value in quotes"),
            _ => bad.hint(format!("give {expected}")),
        }
    }

    /// `true` or `false` for a value that can be off.
    pub(super) fn switch(flag: bool) -> Self {
        let hint = if flag { "give a value in quotes, or `\"off\"`" } else { "write `\"off\"`" };
        Self::new(format!("expected text, found {flag}")).hint(hint)
    }

    pub(super) fn userinfo() -> Self {
        let bad = Self::new("the URL contains a user name or password")
            .hint("remove everything between `://` and `@`");
        Self { secret: true, ..bad }
    }
}

/// The type of a value, as users call it.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(..) | Value::Char(..) => "text",
        Value::Bool(..) => "true or false",
        Value::Num(_, number) if number.to_f64().is_some() => "a fraction",
        Value::Num(..) => "a number",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
        Value::Empty(..) => "a date",
    }
}

/// A value that is written as text.
pub(super) fn text<T>(
    parse: impl Fn(&str) -> ParseResult<T>,
) -> impl Fn(RawValue<'_>) -> ParseResult<T> {
    move |raw| match raw.value.as_str() {
        Some("") => Err(Invalid::new("the value is empty").hint(if raw.variable {
            "unset the variable, or give it a value"
        } else {
            "remove the key, or give it a value"
        })),
        // The shell removes quotes; programs that read files of variables keep them.
        Some(text) if raw.variable && is_quoted(text) => {
            Err(Invalid::new("the value is in quotes, which are part of it")
                .hint("write it without quotes"))
        }
        Some(text) => parse(text),
        None => Err(match (raw.value, raw.value.to_i128()) {
            // More than quotes may be missing: a unit, an address.
            (_, Some(number)) => match parse(&number.to_string()).err() {
                Some(Invalid { what, hint: Some(hint), secret }) => {
                    Invalid { what, hint: Some(format!("{hint}, in quotes")), secret }
                }
                _ => Invalid::kind("text", raw.value).hint("put the value in quotes"),
            },
            (Value::Bool(_, flag), _) if parse("off").is_ok() => Invalid::switch(*flag),
            _ => Invalid::kind("text", raw.value),
        }),
    }
}

fn is_quoted(text: &str) -> bool {
    text.len() > 1
        && ['"', '\''].iter().any(|quote| text.starts_with(*quote) && text.ends_with(*quote))
}

/// The text in one line, without control characters.
pub(super) fn shown(text: &str) -> String {
    text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}

/// As [`text`], or `off`.
pub(super) fn or_off<T>(
    parse: impl Fn(&str) -> ParseResult<T>,
) -> impl Fn(RawValue<'_>) -> ParseResult<Option<T>> {
    text(move |text| if is_off(text) { Ok(None) } else { parse(text).map(Some) })
}

/// Whether the text turns a setting off.
pub(super) fn is_off(text: &str) -> bool {
    matches!(text, "off" | "none")
}

pub(super) fn flag(raw: RawValue<'_>) -> ParseResult<bool> {
    match raw.value {
        Value::Bool(_, flag) => Ok(*flag),
        Value::String(_, text) => match text.parse() {
            Ok(flag) if raw.variable => Ok(flag),
            Ok(_) => Err(Invalid::kind("true or false", raw.value).hint("remove the quotes")),
            Err(_) => {
                Err(Invalid::new(format!("`{text}` is not true or false")).hint(if raw.variable {
                    "write `true` or `false`"
                } else {
                    "write `true` or `false` without quotes"
                }))
            }
        },
        other => Err(Invalid::kind("true or false", other).hint("write `true` or `false`")),
    }
}

/// A whole number within a range.
pub(super) fn count(range: RangeInclusive<usize>) -> impl Fn(RawValue<'_>) -> ParseResult<usize> {
    move |raw| {
        let hint = format!("give a number from {} to {}", range.start(), range.end());
        let number = match raw.value {
            Value::String(_, text) => match text.parse::<i128>() {
                Ok(number) if raw.variable => number,
                Ok(_) => {
                    let quoted = Invalid::kind("a whole number", raw.value);
                    return Err(quoted.hint("remove the quotes"));
                }
                Err(_) => {
                    return Err(Invalid::new(format!("`{text}` is not a whole number")).hint(hint));
                }
            },
            other => other
                .to_i128()
                .ok_or_else(|| Invalid::kind("a whole number", other).hint(&*hint))?,
        };
        usize::try_from(number)
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| Invalid::new(format!("`{number}` is out of range")).hint(hint))
    }
}

/// A size in bytes: a whole number, or a number with a unit.
pub(super) fn size(range: RangeInclusive<usize>) -> impl Fn(RawValue<'_>) -> ParseResult<usize> {
    move |raw| {
        let bytes = match raw.value {
            Value::String(_, text) => bytes(text).ok_or_else(|| {
                Invalid::new(format!("`{text}` is not a size")).hint(
                    "give bytes, or a number with `kB`, `KiB`, `MB` or `MiB`, for example `32KiB`",
                )
            })?,
            other => {
                other.to_i128().ok_or_else(|| Invalid::kind("a size such as `32KiB`", other))?
            }
        };
        usize::try_from(bytes).ok().filter(|bytes| range.contains(bytes)).ok_or_else(|| {
            let (min, max) = (format_size(*range.start()), format_size(*range.end()));
            Invalid::new(format!("{bytes} bytes is out of range"))
                .hint(format!("give a size from {min} to {max}"))
        })
    }
}

fn bytes(text: &str) -> Option<i128> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "kib" => 1 << 10,
        "mb" => 1_000_000,
        "mib" => 1 << 20,
        _ => return None,
    };
    number.parse::<i128>().ok()?.checked_mul(unit)
}

pub(super) fn format_size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        bytes => format!("{bytes}B"),
    }
}

/// A duration with its unit, within a range.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> ParseResult<Duration> {
    move |text| {
        if let Some(duration) = span(text)?.filter(|duration| range.contains(duration)) {
            return Ok(duration);
        }
        let (min, max) = (format_duration(*range.start()), format_duration(*range.end()));
        let range = format!("give a duration from {min} to {max}");
        Err(Invalid::new(format!("`{text}` is out of range")).hint(range))
    }
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_hours(1);
pub(super) const DAY: Duration = Duration::from_hours(24);
pub(super) const YEAR: Duration = Duration::from_hours(365 * 24);

/// `None`: a duration that is negative or too long to represent.
fn span(text: &str) -> ParseResult<Option<Duration>> {
    const EXAMPLES: &str = "give a number with a unit, for example `500ms`, `10s`, `5m` or `1y`";
    let bad = || Invalid::new(format!("`{text}` is not a duration")).hint(EXAMPLES);
    let Ok(span) = text.parse::<Span>() else {
        // With small numbers it parses if the original was only too large.
        return if with_small_numbers(text).parse::<Span>().is_ok() {
            Ok(None)
        } else {
            Err(bad())
        };
    };
    if span.get_months() != 0 {
        // `1mo` is usually a typo of `1m`.
        return Err(bad().hint("months differ in length; give days, for example `30d`"));
    }
    // A year has 365 days, as in the `max-age` that is common for a year.
    let days = i64::from(span.get_days())
        + 7 * i64::from(span.get_weeks())
        + 365 * i64::from(span.get_years());
    let rest = span.years(0).weeks(0).days(0);
    let rest = rest.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| bad())?;
    let whole = jiff::SignedDuration::from_hours(24 * days).checked_add(rest);
    Ok(whole.and_then(|whole| Duration::try_from(whole).ok()))
}

/// The text with each number replaced by `1`.
fn with_small_numbers(text: &str) -> String {
    let mut result = String::new();
    for character in text.chars() {
        match character {
            '0'..='9' if result.ends_with('1') => {}
            '0'..='9' => result.push('1'),
            other => result.push(other),
        }
    }
    result
}

fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.is_zero() => "0s".into(),
        0 => format!("{}ms", duration.as_millis()),
        _ if seconds.is_multiple_of(YEAR.as_secs()) => format!("{}y", seconds / YEAR.as_secs()),
        _ if seconds.is_multiple_of(DAY.as_secs()) => format!("{}d", seconds / DAY.as_secs()),
        _ if seconds.is_multiple_of(HOUR.as_secs()) => format!("{}h", seconds / HOUR.as_secs()),
        _ => format!("{seconds}s"),
    }
}

/// HSTS counts whole seconds (RFC 6797 §6.1.1).
pub(super) fn max_age(text: &str) -> ParseResult<Duration> {
    let age = duration(Duration::ZERO..=10 * YEAR)(text)?;
    if age.subsec_nanos() == 0 {
        return Ok(age);
    }
    Err(Invalid::new(format!("`{text}` is not a whole number of seconds"))
        .hint("give whole seconds, for example `86400s`, or `1y`"))
}

pub(super) fn form_post(text: &str) -> ParseResult<FormPost> {
    one_of(text, &[("convert", FormPost::Convert), ("reject", FormPost::Reject)])
}

pub(super) fn challenge(text: &str) -> ParseResult<Challenge> {
    one_of(text, &[("tls-alpn-01", Challenge::TlsAlpn01), ("http-01", Challenge::Http01)])
}

pub(super) fn client_address(text: &str) -> ParseResult<ClientAddress> {
    one_of(
        text,
        &[
            ("x-forwarded-for", ClientAddress::XForwardedFor),
            ("forwarded", ClientAddress::Forwarded),
            ("none", ClientAddress::None),
        ],
    )
}

/// An e-mail address, with or without `mailto:`; ACME servers accept no other contacts.
pub(super) fn contact(text: &str) -> ParseResult<Box<str>> {
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|it| it.is_ascii_graphic() && !b"@,?<>".contains(&it))
    };
    match address.split_once('@') {
        Some((name, host)) if plain(name) && plain(host) => Ok(format!("mailto:{address}").into()),
        _ => Err(Invalid::new(format!("`{}` is not an e-mail address", shown(text)))
            .hint("give an address, for example `ops@example.com`, or a list of addresses")),
    }
}

pub(super) fn log_format(text: &str) -> ParseResult<LogFormat> {
    one_of(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

pub(super) fn log_level(text: &str) -> ParseResult<tracing::Level> {
    use tracing::Level;
    one_of(
        text,
        &[
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("debug", Level::DEBUG),
            ("trace", Level::TRACE),
        ],
    )
}

fn one_of<T: Copy>(text: &str, values: &[(&str, T)]) -> ParseResult<T> {
    values.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = values.iter().map(|(name, _)| format!("`{name}`")).collect();
        let bad = Invalid::new(format!("`{text}` is not one of {}", names.join(", ")));
        let near = nearest(text, values.iter(), |(name, _)| (*name).to_owned());
        match near {
            Some((name, _)) => bad.hint(format!("did you mean `{name}`?")),
            None => bad.hint("write one of them"),
        }
    })
}

/// The path of a file. Its content, written instead, may be a private key.
pub(super) fn file(raw: RawValue<'_>) -> ParseResult<PathBuf> {
    text(|text| {
        if text.contains("-----BEGIN") || text.contains('\n') {
            let bad = Invalid::new("the value is the content of a file, not its path");
            let bad = bad.hint("write the content to a file, and give the path of the file");
            return Err(Invalid { secret: true, ..bad });
        }
        Ok(text.into())
    })(raw)
}

/// Any text.
pub(super) fn verbatim<T: for<'t> From<&'t str>>(raw: RawValue<'_>) -> ParseResult<T> {
    text(|text| Ok(text.into()))(raw)
}

pub(super) fn header(text: &str) -> ParseResult<HeaderValue> {
    text.parse().map_err(|_| {
        Invalid::new(format!("`{}` is not valid in a header field", shown(text)))
            .hint("write it in one line of ASCII, for example `text/html`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_a_year_has_365_days() {
        #[rustfmt::skip]
        let table = [
            ("10s", 10), ("1m 30s", 90), ("1h30m", 5400), ("1d", 86_400), ("2w", 14 * 86_400),
            ("1y", 365 * 86_400), ("1y 1d", 366 * 86_400), ("PT5M", 300), ("0s", 0),
        ];
        for (text, seconds) in table {
            assert_eq!(span(text), Ok(Some(Duration::from_secs(seconds))), "{text}");
        }
        assert_eq!(span("500ms"), Ok(Some(Duration::from_millis(500))));
        for bad in ["10", "", "s", "1mo", "ten seconds", "1y -2d"] {
            assert!(span(bad).is_err(), "{bad}");
        }
        for far in ["-1s", "1s ago", "9999999y", "99999999999999999999s"] {
            assert_eq!(span(far), Ok(None), "{far}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        #[rustfmt::skip]
        let table = [
            ("0", Some(0)), ("512", Some(512)), ("64KiB", Some(65_536)), ("64 kib", Some(65_536)),
            ("64kB", Some(64_000)), ("1MiB", Some(1 << 20)), ("1MB", Some(1_000_000)),
            ("9B", Some(9)), ("", None), ("KiB", None), ("64k", None), ("1.5MiB", None),
            ("-1", None),
        ];
        for (text, expected) in table {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
