//! URLs as texts: split into parts, never rebuilt, and shown without the values in their queries.
//! A `Location` is resolved as browsers do it.

use crate::outbound::Server;
use std::fmt::Write as _;
use url::Url;

/// The parts of a URI reference, as they are in the text (RFC 3986 appendix B).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts<'t> {
    pub(super) scheme: Option<&'t str>,
    pub(super) authority: Option<&'t str>,
    pub(super) path: &'t str,
    pub(super) query: Option<&'t str>,
    pub(super) fragment: Option<&'t str>,
}

impl<'t> Parts<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        let (rest, fragment) = cut(text, '#');
        let (rest, query) = cut(rest, '?');
        let (scheme, rest) = match rest.split_once(':') {
            Some((scheme, after)) if !scheme.is_empty() && !scheme.contains('/') => {
                (Some(scheme), after)
            }
            _ => (None, rest),
        };
        let (authority, path) = match rest.strip_prefix("//") {
            None => (None, rest),
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
                (Some(authority), path)
            }
        };
        Self { scheme, authority, path, query, fragment }
    }

    /// The server, if it is an absolute http or https URL.
    pub(super) fn server(&self) -> Option<Server> {
        let tls = self.scheme?.eq_ignore_ascii_case("https");
        if !self.is_http() {
            return None;
        }
        let authority = self.authority?;
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (authority, ""),
        };
        let port = match port {
            "" => Server::default_port(tls),
            port => port.parse().ok()?,
        };
        (!host.is_empty()).then(|| Server { tls, host: host.to_ascii_lowercase(), port })
    }

    /// Whether the scheme is http or https.
    pub(super) fn is_http(&self) -> bool {
        self.scheme.is_some_and(|scheme| {
            scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")
        })
    }

    /// The user name and password.
    pub(super) fn userinfo(&self) -> Option<&'t str> {
        self.authority?.rsplit_once('@').map(|(userinfo, _)| userinfo)
    }

    /// The explicit port.
    pub(super) fn written_port(&self) -> Option<&'t str> {
        let (_, port) = self.authority?.rsplit_once(':')?;
        (!port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(port)
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// The callback under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Callback {
    pub(super) server: Server,
    pub(super) path: String,
}

impl Callback {
    /// Scheme, host and path; there are no other parts.
    pub(super) fn shown(&self) -> String {
        format!("{}{}", self.server, self.path)
    }

    /// The callback with another path.
    pub(super) fn at(&self, path: String) -> Self {
        Self { server: self.server.clone(), path }
    }
}

/// The URL to which a browser goes from the callback (RFC 9110 §10.2.2, WHATWG URL Standard); `None`
/// when it cannot parse the `Location`.
pub(super) fn resolve(callback: &Callback, location: &[u8]) -> Option<Url> {
    let mut text = String::with_capacity(location.len());
    for byte in location {
        if byte.is_ascii() {
            text.push(char::from(*byte));
        } else {
            // Chromium escapes other bytes before it parses the URL, whatever their encoding.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    Url::parse(&callback.shown()).ok()?.join(&text).ok()
}

/// The URL without possible secrets: user name and password, query values and the fragment.
pub(super) fn shown(url: &str) -> String {
    let parts = Parts::of(url);
    let mut shown = String::new();
    if let Some(scheme) = parts.scheme {
        shown.push_str(scheme);
        shown.push(':');
    }
    if let Some(authority) = parts.authority {
        shown.push_str("//");
        if parts.userinfo().is_some() {
            shown.push_str("…@");
        }
        shown.push_str(authority.rsplit_once('@').map_or(authority, |(_, host)| host));
    }
    shown.push_str(&short(parts.path));
    if let Some(query) = parts.query {
        shown.push('?');
        shown.push_str(&names_shown(query));
    }
    if parts.fragment.is_some() {
        shown.push_str("#…");
    }
    shown
}

/// The names in a query, each with `=…` where a value was.
fn names_shown(query: &str) -> String {
    let names: Vec<_> = query
        .split('&')
        .take(MAX_NAMES)
        .map(|parameter| match parameter.split_once('=') {
            Some((name, "")) => format!("{}=", short(name)),
            Some((name, _)) => format!("{}=…", short(name)),
            None if parameter.is_empty() => String::new(),
            // It may be a name or a value.
            None => "…".to_owned(),
        })
        .collect();
    names.join("&")
}

/// The text, truncated to fit a line.
pub(super) fn short(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_CHARACTERS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

const MAX_NAMES: usize = 20;
const MAX_CHARACTERS: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_without_changing_its_text() {
        let parts = Parts::of("HTTPS://u:p@Auth.Example.com:443/a/b?c=d?e#f");
        assert_eq!(parts.scheme, Some("HTTPS"));
        assert_eq!(parts.userinfo(), Some("u:p"));
        assert_eq!(parts.written_port(), Some("443"));
        assert_eq!((parts.path, parts.query, parts.fragment), ("/a/b", Some("c=d?e"), Some("f")));
        assert_eq!(parts.server().unwrap().to_string(), "https://auth.example.com");
        assert_eq!(Parts::of("http://[::1]:80/").server().unwrap().to_string(), "http://[::1]");
        assert_eq!(Parts::of("/cb?u=https://x").server(), None);
        assert_eq!(Parts::of("//host/cb").server(), None);
        assert_eq!(Parts::of("https:///cb").server(), None);
        assert_eq!(Parts::of("https://h:99999/cb").server(), None);
    }

    #[test]
    fn no_value_is_shown() {
        let table = [
            ("https://h/cb?code=s3cret&state=s3cret&flag", "https://h/cb?code=…&state=…&…"),
            ("https://u:s3cret@h/cb#s3cret", "https://…@h/cb#…"),
            ("s3cret:x", "s3cret:x"),
            ("/cb?a=&b&", "/cb?a=&…&"),
        ];
        for (url, expected) in table {
            assert_eq!(shown(url), expected);
        }
        assert!(!shown(&format!("https://h/?{}", "s".repeat(99))).contains("sss"));
    }
}
