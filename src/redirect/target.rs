use bytes::Bytes;
use http::header::InvalidHeaderValue;
use http::{HeaderValue, Uri};
use std::fmt;

/// Where a route sends the browser: an absolute `http` or `https` URL, kept byte for byte as it
/// was configured. It may carry a query of its own; a fragment or userinfo cannot occur
/// (RFC 6749 §3.1.2, RFC 9110 §4.2.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    text: Box<str>,
    uri: Uri,
    joiner: Joiner,
}

/// What stands between the target and the query that is carried over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joiner {
    /// The target has no query: `?`, also when the query received is empty.
    Question,
    /// The target has a query of its own: `&`.
    Ampersand,
    /// The target ends in `?` or `&` already.
    Nothing,
}

impl Target {
    /// Reads an absolute URL.
    pub fn parse(text: &str) -> Result<Self, BadTarget> {
        if text.contains('#') {
            return Err(BadTarget::Fragment);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadTarget::NotAscii);
        }
        let uri: Uri = text.parse().map_err(|_| BadTarget::NotAUrl)?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            _ => return Err(BadTarget::Scheme),
        }
        let authority = uri.authority().ok_or(BadTarget::NotAUrl)?;
        if authority.as_str().contains('@') {
            return Err(BadTarget::Userinfo);
        }
        if authority.host().is_empty() {
            return Err(BadTarget::NotAUrl);
        }
        // `Uri` reports "/" for a missing path; the text tells, and "https://host?x" would move
        // the query into what some clients read as the host.
        let after_authority = text.split_once("://").and_then(|(_, rest)| {
            rest.strip_prefix(authority.as_str()).map(|path| path.starts_with('/'))
        });
        if after_authority != Some(true) {
            return Err(BadTarget::NoPath);
        }
        let joiner = match text.split_once('?') {
            None => Joiner::Question,
            Some((_, own)) if own.is_empty() || own.ends_with('&') => Joiner::Nothing,
            Some(_) => Joiner::Ampersand,
        };
        Ok(Self { text: text.into(), uri, joiner })
    }

    /// The URL as it was configured.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL for logs and reports: the names in its query, but not their values.
    pub fn shown(&self) -> String {
        let Some((base, query)) = self.text.split_once('?') else { return self.text.to_string() };
        let names = query.split('&').map(|parameter| match parameter.split_once('=') {
            Some((name, _)) => format!("{name}=…"),
            None => parameter.to_owned(),
        });
        format!("{base}?{}", names.collect::<Vec<_>>().join("&"))
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &str {
        self.uri.scheme_str().unwrap_or_default()
    }

    /// The host as configured; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// The port, or the scheme's default.
    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.scheme() == "http" { 80 } else { 443 })
    }

    /// The raw path.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The query that the target carries itself.
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// The `Location` that carries `query` over, byte for byte (RFC 9110 §10.2.2).
    ///
    /// `None` means that the request had no `?` at all; an empty query keeps its bare `?`.
    /// Fails only when the query holds a byte that no header value may hold.
    pub fn location(&self, query: Option<&str>) -> Result<HeaderValue, InvalidHeaderValue> {
        self.join(query.map(str::as_bytes), None)
    }

    /// As [`Target::location`], with a second run of parameters joined behind the first.
    pub(super) fn join(
        &self,
        query: Option<&[u8]>,
        form: Option<&[u8]>,
    ) -> Result<HeaderValue, InvalidHeaderValue> {
        // An empty run adds a joiner only where it is a bare `?` to be kept.
        let form = form.filter(|form| !form.is_empty());
        let query = query.filter(|query| !query.is_empty() || form.is_none());
        let mut joiner = self.joiner;
        let mut location = Vec::with_capacity(
            self.text.len() + 2 + query.map_or(0, <[u8]>::len) + form.map_or(0, <[u8]>::len),
        );
        location.extend_from_slice(self.text.as_bytes());
        for run in [query, form].into_iter().flatten() {
            match joiner {
                Joiner::Question => location.push(b'?'),
                Joiner::Ampersand if run.is_empty() => {}
                Joiner::Ampersand => location.push(b'&'),
                Joiner::Nothing => {}
            }
            location.extend_from_slice(run);
            joiner = Joiner::Ampersand;
        }
        HeaderValue::from_maybe_shared(Bytes::from(location))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.text)
    }
}

/// Why a text is not a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTarget {
    /// It does not parse as an absolute URL.
    NotAUrl,
    /// The scheme is neither `http` nor `https`.
    Scheme,
    /// It holds a fragment, which would swallow the parameters.
    Fragment,
    /// It holds a user name or password.
    Userinfo,
    /// Nothing stands between the host and the query.
    NoPath,
    /// It holds a space, a control or a byte outside ASCII.
    NotAscii,
}

impl fmt::Display for BadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAUrl => "is not an absolute URL",
            Self::Scheme => "is neither an http nor an https URL",
            Self::Fragment => "has a fragment, and the parameters would end up behind it",
            Self::Userinfo => "has a user name or password in it",
            Self::NoPath => "has no path",
            Self::NotAscii => "has a space, a control or a non-ASCII character in it",
        })
    }
}

impl std::error::Error for BadTarget {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_is_target_joiner_and_the_bytes_received() {
        #[rustfmt::skip]
        let table = [
            ("https://t/cb", None, "https://t/cb"),
            ("https://t/cb", Some(""), "https://t/cb?"),
            ("https://t/cb", Some("a=%2F&a='&&b"), "https://t/cb?a=%2F&a='&&b"),
            ("https://t/cb", Some("?"), "https://t/cb??"),
            ("https://t/cb?own=1", None, "https://t/cb?own=1"),
            ("https://t/cb?own=1", Some(""), "https://t/cb?own=1"),
            ("https://t/cb?own=1", Some("a=1"), "https://t/cb?own=1&a=1"),
            ("https://t/cb?own=1&", Some("a=1"), "https://t/cb?own=1&a=1"),
            ("https://t/cb?", None, "https://t/cb?"),
            ("https://t/cb?", Some("a"), "https://t/cb?a"),
        ];
        for (target, query, location) in table {
            let target = Target::parse(target).unwrap();
            assert_eq!(target.location(query).unwrap(), location, "{target} {query:?}");
        }
    }

    #[test]
    fn a_form_joins_behind_the_query() {
        #[rustfmt::skip]
        let table: [(&str, Option<&str>, &str, &str); 6] = [
            ("https://t/cb", None, "code=1", "https://t/cb?code=1"),
            ("https://t/cb", Some(""), "code=1", "https://t/cb?code=1"),
            ("https://t/cb", Some("a=1"), "code=1", "https://t/cb?a=1&code=1"),
            ("https://t/cb", Some("a=1"), "", "https://t/cb?a=1"),
            ("https://t/cb?own=1", None, "code=1", "https://t/cb?own=1&code=1"),
            ("https://t/cb?own=1", Some("a=1"), "code=1", "https://t/cb?own=1&a=1&code=1"),
        ];
        for (target, query, form, location) in table {
            let target = Target::parse(target).unwrap();
            let joined = target.join(query.map(str::as_bytes), Some(form.as_bytes())).unwrap();
            assert_eq!(joined, location, "{target} {query:?} {form}");
        }
    }

    #[test]
    fn values_of_a_target_are_not_shown() {
        for (target, shown) in [
            ("https://t/cb", "https://t/cb"),
            ("https://t/cb?key=secret&flag&b=", "https://t/cb?key=…&flag&b=…"),
        ] {
            assert_eq!(Target::parse(target).unwrap().shown(), shown);
        }
    }

    #[test]
    fn what_is_no_target_is_refused_by_name() {
        let table = [
            ("", BadTarget::NotAUrl),
            ("/oauth/callback", BadTarget::Scheme),
            ("ftp://t/cb", BadTarget::Scheme),
            ("https://t/cb#x", BadTarget::Fragment),
            ("https://u:p@t/cb", BadTarget::Userinfo),
            ("https://t", BadTarget::NoPath),
            ("https://t?x", BadTarget::NoPath),
            ("https://t/c b", BadTarget::NotAscii),
            ("https://t/cb\n", BadTarget::NotAscii),
            ("https://tést/cb", BadTarget::NotAscii),
        ];
        for (text, why) in table {
            assert_eq!(Target::parse(text), Err(why), "{text:?}");
        }
    }
}
