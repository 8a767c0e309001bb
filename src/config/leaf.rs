//! What the values of single keys look like, each as one function from what was written to a type.

use crate::config::settings::{ConnectTo, LogFormat, Origin};
use crate::redirect::{FormPost, Host, Path, Target};
use figment::value::Value;
use http::HeaderValue;
use ipnet::IpNet;
use jiff::{Span, SpanRelativeTo};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// What was written, and whether it can only be text because a variable holds it.
#[derive(Clone, Copy)]
pub(super) struct Raw<'v> {
    pub(super) value: &'v Value,
    pub(super) variable: bool,
}

/// Why it is no value of this key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) what: String,
    pub(super) hint: Option<String>,
    /// The value must not be repeated.
    pub(super) secret: bool,
}

pub(super) type Leaf<T> = Result<T, Bad>;

impl Bad {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None, secret: false }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn kind(expected: &str, found: &Value) -> Self {
        Self::new(format!("expected {expected}, found {}", kind(found)))
    }

    fn userinfo() -> Self {
        let bad = Self::new("the URL has a user name or password in it")
            .hint("remove everything between `://` and `@`");
        Self { secret: true, ..bad }
    }
}

/// What a person calls it.
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

/// A leaf that is written as text.
pub(super) fn text<T>(parse: impl Fn(&str) -> Leaf<T>) -> impl Fn(Raw<'_>) -> Leaf<T> {
    move |raw| match raw.value.as_str() {
        Some("") => Err(Bad::new("the value is empty").hint(if raw.variable {
            "unset the variable, or give it a value"
        } else {
            "remove the key, or give it a value"
        })),
        Some(text) => parse(text),
        None => Err(Bad::kind("text", raw.value).hint("put the value in quotes")),
    }
}

/// As [`text`], or `off`.
pub(super) fn or_off<T>(parse: impl Fn(&str) -> Leaf<T>) -> impl Fn(Raw<'_>) -> Leaf<Option<T>> {
    text(move |text| if is_off(text) { Ok(None) } else { parse(text).map(Some) })
}

/// The two words for "not at all".
pub(super) fn is_off(text: &str) -> bool {
    matches!(text, "off" | "none")
}

pub(super) fn flag(raw: Raw<'_>) -> Leaf<bool> {
    match raw.value {
        Value::Bool(_, flag) => Ok(*flag),
        Value::String(_, text) if raw.variable => {
            text.parse().map_err(|_| Bad::new(format!("`{text}` is neither `true` nor `false`")))
        }
        Value::String(_, text) if matches!(&**text, "true" | "false") => {
            Err(Bad::kind("true or false", raw.value).hint("remove the quotes"))
        }
        other => Err(Bad::kind("true or false", other)),
    }
}

/// A whole number within a range.
pub(super) fn count(range: RangeInclusive<usize>) -> impl Fn(Raw<'_>) -> Leaf<usize> {
    move |raw| {
        let number = match raw.value {
            Value::String(_, text) if raw.variable => text
                .parse::<i128>()
                .map_err(|_| Bad::new(format!("`{text}` is not a whole number")))?,
            Value::String(_, text) if text.parse::<i128>().is_ok() => {
                return Err(Bad::kind("a whole number", raw.value).hint("remove the quotes"));
            }
            other => other.to_i128().ok_or_else(|| Bad::kind("a whole number", other))?,
        };
        let (least, most) = (*range.start(), *range.end());
        usize::try_from(number).ok().filter(|number| range.contains(number)).ok_or_else(|| {
            Bad::new(format!("`{number}` is out of range"))
                .hint(format!("give a number from {least} to {most}"))
        })
    }
}

/// Bytes: a whole number, or a number with a unit.
pub(super) fn size(range: RangeInclusive<usize>) -> impl Fn(Raw<'_>) -> Leaf<usize> {
    move |raw| {
        let bytes = match raw.value {
            Value::String(_, text) => bytes(text).ok_or_else(|| {
                Bad::new(format!("`{text}` is not a size")).hint(
                    "give bytes, or a number with `kB`, `KiB`, `MB` or `MiB`, for example `32KiB`",
                )
            })?,
            other => other.to_i128().ok_or_else(|| Bad::kind("a size such as `32KiB`", other))?,
        };
        usize::try_from(bytes).ok().filter(|bytes| range.contains(bytes)).ok_or_else(|| {
            let (least, most) = (in_units(*range.start()), in_units(*range.end()));
            Bad::new(format!("{bytes} bytes is out of range"))
                .hint(format!("give a size from {least} to {most}"))
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

fn in_units(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        bytes => format!("{bytes} bytes"),
    }
}

/// A time with its unit, within a range.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Leaf<Duration> {
    move |text| {
        let duration = span(text)?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        let (least, most) = (friendly(*range.start()), friendly(*range.end()));
        let range = format!("give a time from {least} to {most}");
        Err(Bad::new(format!("`{text}` is out of range")).hint(range))
    }
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
pub(super) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn span(text: &str) -> Leaf<Duration> {
    const EXAMPLES: &str = "give a number with a unit, for example `500ms`, `10s`, `5m` or `1y`";
    let bad = || Bad::new(format!("`{text}` is not a duration")).hint(EXAMPLES);
    let span: Span = text.parse().map_err(|_| bad())?;
    if span.get_months() != 0 {
        // `1mo` is mostly a slip for `1m`.
        return Err(bad().hint("months differ in length; give days, for example `30d`"));
    }
    // A year counts 365 days, as in every `max-age` that is said to be a year.
    let days = i64::from(span.get_days())
        + 7 * i64::from(span.get_weeks())
        + 365 * i64::from(span.get_years());
    let rest = span.years(0).weeks(0).days(0);
    let rest = rest.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| bad())?;
    let whole = jiff::SignedDuration::from_hours(24 * days).checked_add(rest).ok_or_else(bad)?;
    Duration::try_from(whole).map_err(|_| bad())
}

fn friendly(duration: Duration) -> String {
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
pub(super) fn max_age(text: &str) -> Leaf<Duration> {
    let age = duration(Duration::ZERO..=10 * YEAR)(text)?;
    if age.subsec_nanos() == 0 {
        return Ok(age);
    }
    Err(Bad::new(format!("`{text}` is not a whole number of seconds")))
}

pub(super) fn socket(text: &str) -> Leaf<SocketAddr> {
    text.parse().map_err(|_| {
        let bad = Bad::new(format!("`{text}` is not a socket address"));
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
            return bad.hint(format!("include a port, for example `{}`", SocketAddr::new(address, 443)));
        }
        match text.rsplit_once(':') {
            Some(("", port)) if is_port(port) => {
                bad.hint(format!("name an address: `0.0.0.0:{port}` for all, `127.0.0.1:{port}` for this machine only"))
            }
            Some(("localhost", port)) if is_port(port) => {
                bad.hint(format!("use `127.0.0.1:{port}` or `[::1]:{port}`"))
            }
            Some((name, port)) if is_port(port) && Host::parse(name).is_ok() => {
                bad.hint(format!("use an IP address, for example `0.0.0.0:{port}`; names are not looked up"))
            }
            _ if is_port(text) => bad.hint(format!("include an address, for example `0.0.0.0:{text}`")),
            _ => bad.hint("give an IP address and a port, for example `0.0.0.0:443` or `[::]:443`"),
        }
    })
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

/// A network, or a single address.
pub(super) fn network(text: &str) -> Leaf<IpNet> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet = text.parse().map_err(|_| {
        Bad::new(format!("`{text}` is not a network"))
            .hint("give an address and a prefix length, for example `10.0.0.0/8`")
    })?;
    if network == network.trunc() {
        return Ok(network);
    }
    Err(Bad::new(format!("`{text}` has bits set behind its prefix")).hint(format!(
        "write `{}`, or `{}` for the one address",
        network.trunc(),
        network.addr()
    )))
}

/// A network that no stranger can own.
pub(super) fn private_network(text: &str) -> Leaf<IpNet> {
    const PRIVATE: [&str; 9] = [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        // Shared address space of carriers and overlay networks (RFC 6598).
        "100.64.0.0/10",
        "169.254.0.0/16",
        "127.0.0.0/8",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    ];
    let given = network(text)?;
    let private = PRIVATE.iter().flat_map(|private| private.parse::<IpNet>());
    if private.into_iter().any(|private| private.contains(&given)) {
        return Ok(given);
    }
    Err(Bad::new(format!("`{text}` is not a private network")).hint(
        "plain http is for private networks only, such as `10.0.0.0/8`, `172.16.0.0/12`, \
         `192.168.0.0/16`, `100.64.0.0/10` or `fc00::/7`; reach anything else over https",
    ))
}

/// A host without port; international names become their `xn--` form.
pub(super) fn host(text: &str) -> Leaf<Host> {
    let bad = || Bad::new(format!("`{text}` is not a host name or IP address"));
    if let Ok(url) = Url::parse(text)
        && let Some(host) = url.host_str().filter(|host| !host.is_empty())
    {
        return Err(bad().hint(format!("give the host alone: `{host}`")));
    }
    if text.contains('*') {
        return Err(
            bad().hint("wildcards are not supported; leave `host` out to answer on any host")
        );
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(bad().hint(format!("put an IPv6 address in brackets: `[{text}]`")));
    }
    if let Some((name, port)) = text.rsplit_once(':')
        && is_port(port)
        && Host::parse(name).is_ok()
    {
        return Err(bad().hint(format!("give the host without a port: `{name}`")));
    }
    let normal = url::Host::parse(text).map_err(|_| bad())?;
    Host::parse(&normal.to_string()).map_err(|_| bad())
}

pub(super) fn path(text: &str) -> Leaf<Path> {
    Path::parse(text).map_err(|error| {
        let bad = Bad::new(format!("`{text}` {error}"));
        match Url::parse(text) {
            Ok(url) if url.has_host() => bad.hint(format!("give the path alone: `{}`", url.path())),
            _ => bad.hint("give the path as in a request line, for example `/oauth/callback`"),
        }
    })
}

pub(super) fn target(text: &str) -> Leaf<Target> {
    if has_userinfo(text) {
        return Err(Bad::userinfo());
    }
    Target::parse(text).map_err(|error| {
        let bad = Bad::new(format!("`{text}` {error}"));
        match (error, Url::parse(text)) {
            (crate::redirect::BadTarget::Fragment, _) => bad.hint("remove `#` and what follows"),
            (crate::redirect::BadTarget::NoPath, Ok(url)) => bad.hint(format!("write `{url}`")),
            (crate::redirect::BadTarget::NotAscii, Ok(url)) => {
                bad.hint(format!("write it as it is sent: `{url}`"))
            }
            _ => bad.hint("give a whole URL, for example `https://api.nango.dev/oauth/callback`"),
        }
    })
}

/// Scheme, host and port.
pub(super) fn origin(text: &str) -> Leaf<Origin> {
    if has_userinfo(text) {
        return Err(Bad::userinfo());
    }
    let (bad, url) = web_url(text, "https://auth.example.com")?;
    let host = url.host_str().and_then(|host| Host::parse(host).ok());
    let Some(host) = host else { return Err(bad.hint("the host is not a valid name")) };
    let origin = Origin { https: url.scheme() == "https", host, port: url.port() };
    if url.path() != "/" || text.contains(['?', '#']) {
        return Err(Bad::new(format!("`{text}` has more than a scheme, a host and a port"))
            .hint(format!("write `{origin}`; the paths are those of the routes")));
    }
    Ok(origin)
}

/// An `http` or `https` URL that paths can be added to; without the slash at its end.
pub(super) fn base(text: &str) -> Leaf<Target> {
    if has_userinfo(text) {
        return Err(Bad::userinfo());
    }
    let (bad, _) = web_url(text, "https://api.nango.dev")?;
    if text.contains(['?', '#']) {
        return Err(Bad::new(format!("`{text}` has a query or a fragment"))
            .hint("paths are added to this URL; remove `?` or `#` and what follows"));
    }
    let base = text.trim_end_matches('/');
    Target::parse(&format!("{base}/")).map_err(|error| bad.hint(format!("it {error}")))
}

fn web_url(text: &str, example: &str) -> Leaf<(Bad, Url)> {
    let bad = || Bad::new(format!("`{text}` is not an http or https URL"));
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && text.contains("://") => {
            Ok((bad(), url))
        }
        _ if Host::parse(text).is_ok() => Err(bad().hint(format!("write `https://{text}`"))),
        _ => Err(bad().hint(format!("give a scheme and a host, for example `{example}`"))),
    }
}

/// Judged on the text: what a parser refuses may hold a password all the same.
fn has_userinfo(text: &str) -> bool {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

pub(super) fn form_post(text: &str) -> Leaf<FormPost> {
    one_of(text, &[("convert", FormPost::Convert), ("reject", FormPost::Reject)])
}

pub(super) fn log_format(text: &str) -> Leaf<LogFormat> {
    one_of(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

pub(super) fn log_level(text: &str) -> Leaf<tracing::Level> {
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

fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Leaf<T> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        Bad::new(format!("`{text}` is not one of {}", words.join(", ")))
    })
}

pub(super) fn file(text: &str) -> Leaf<PathBuf> {
    Ok(text.into())
}

pub(super) fn header(text: &str) -> Leaf<HeaderValue> {
    text.parse()
        .map_err(|_| Bad::new(format!("`{}` cannot stand in a header", text.escape_debug())))
}

/// `HOST:PORT:ADDRESS:PORT`
pub(super) fn connect_to(text: &str) -> Leaf<ConnectTo> {
    let parts = || {
        let host_end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':')? };
        let (name, rest) = text.split_at_checked(host_end)?;
        let (port, address) = rest.strip_prefix(':')?.split_once(':')?;
        Some(ConnectTo {
            host: host(name).ok()?,
            port: port.parse().ok()?,
            address: address.parse().ok()?,
        })
    };
    parts().ok_or_else(|| {
        Bad::new(format!("`{text}` is not of the form `HOST:PORT:ADDRESS:PORT`"))
            .hint("for example `auth.example.com:443:127.0.0.1:8443`; the address is an IP address")
    })
}
