use bytes::Bytes;
use http::header::InvalidHeaderValue;
use http::{HeaderValue, Uri};
use std::fmt;

/// The URL that a route redirects to: an absolute `http` or `https` URL, byte for byte as
/// configured. It may have a query of its own; a fragment or userinfo cannot occur
/// (RFC 6749 §3.1.2, RFC 9110 §4.2.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    text: Box<str>,
    uri: Uri,
    separator: Separator,
}

/// What separates the target from the query that is forwarded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Separator {
    /// The target has no query: `?`, also when the query received is empty.
    Question,
    /// The target has a query of its own: `&`.
    Ampersand,
    /// The target ends in `?` or `&` already.
    Nothing,
}

impl Target {
    /// Parses an absolute URL.
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
        // `Uri` reports "/" for a missing path, so the text is searched: some clients would read the
        // query of "https://host?x" as a part of the host.
        let after_authority = text.split_once("://").and_then(|(_, rest)| {
            rest.strip_prefix(authority.as_str()).map(|path| path.starts_with('/'))
        });
        if after_authority != Some(true) {
            return Err(BadTarget::NoPath);
        }
        let separator = match text.split_once('?') {
            None => Separator::Question,
            Some((_, own)) if own.is_empty() || own.ends_with('&') => Separator::Nothing,
            Some(_) => Separator::Ampersand,
        };
        Ok(Self { text: text.into(), uri, separator })
    }

    /// The URL as configured.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL for logs and reports: the parameter names in its query, without their values.
    pub fn redacted(&self) -> String {
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

    /// The target's own query.
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// The `Location` that forwards `query`, byte for byte (RFC 9110 §10.2.2).
    ///
    /// `None` means that the request had no `?` at all; an empty query keeps its bare `?`.
    /// Fails only when the query has a byte that is not allowed in header values.
    pub fn location(&self, query: Option<&str>) -> Result<HeaderValue, InvalidHeaderValue> {
        self.join(query.map(str::as_bytes), None)
    }

    /// The same as [`Target::location`], with a form appended to the query.
    pub(super) fn join(
        &self,
        query: Option<&[u8]>,
        form: Option<&[u8]>,
    ) -> Result<HeaderValue, InvalidHeaderValue> {
        // An empty query or form adds a separator only for a bare `?` that must be forwarded.
        let form = form.filter(|form| !form.is_empty());
        let query = query.filter(|query| !query.is_empty() || form.is_none());
        let mut separator = self.separator;
        let mut location = Vec::with_capacity(
            self.text.len() + 2 + query.map_or(0, <[u8]>::len) + form.map_or(0, <[u8]>::len),
        );
        location.extend_from_slice(self.text.as_bytes());
        for part in [query, form].into_iter().flatten() {
            match separator {
                Separator::Question => location.push(b'?'),
                Separator::Ampersand if part.is_empty() => {}
                Separator::Ampersand => location.push(b'&'),
                Separator::Nothing => {}
            }
            location.extend_from_slice(part);
            separator = Separator::Ampersand;
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
    /// It has a fragment; the parameters would become part of it.
    Fragment,
    /// It has a user name or password.
    Userinfo,
    /// It has no path.
    NoPath,
    /// It has a space, a control character or a byte outside ASCII.
    NotAscii,
}

impl fmt::Display for BadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAUrl => "is not an absolute URL",
            Self::Scheme => "is neither an http nor an https URL",
            Self::Fragment => "has a fragment; the parameters would become part of it",
            Self::Userinfo => "has a user name or password",
            Self::NoPath => "has no path",
            Self::NotAscii => "has a space, a control character or a non-ASCII character",
        })
    }
}

impl std::error::Error for BadTarget {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_is_the_target_a_separator_and_the_bytes_received() {
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
    fn a_form_is_appended_to_the_query() {
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
    fn query_values_of_a_target_are_redacted() {
        for (target, redacted) in [
            ("https://t/cb", "https://t/cb"),
            ("https://t/cb?key=secret&flag&b=", "https://t/cb?key=…&flag&b=…"),
        ] {
            assert_eq!(Target::parse(target).unwrap().redacted(), redacted);
        }
    }

    #[test]
    fn an_invalid_target_is_refused_with_its_reason() {
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
