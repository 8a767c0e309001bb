//! The authorization request that users are sent to (RFC 6749 §4.1.1), with another redirect URI.

use crate::outbound::Server;
use std::collections::BTreeSet;
use std::fmt;
use url::{Url, form_urlencoded};

/// An authorization request whose redirect URI can be replaced.
///
/// The redirect parameter is found by its value, because its name differs (`redirect_url`,
/// `redirectUri`). Everything except it and the `state` stays unchanged, byte for byte.
#[derive(Clone)]
pub(super) struct AuthorizationRequest {
    /// Of the provider.
    pub(super) server: Server,
    /// The raw path.
    path: String,
    parameters: Vec<Parameter>,
    /// The `state` of the flow at Nango, which must not be sent to providers.
    state: Option<String>,
    current: String,
}

/// One `name=value`, raw and decoded.
#[derive(Clone)]
struct Parameter {
    raw: String,
    name: String,
    value: String,
}

/// Why a callback cannot be tested over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untestable {
    /// OAuth 1 (RFC 5849 §2.1): the callback is in the signed request for a token.
    OAuth1,
    /// The request is in the fragment, which browsers do not send.
    Fragment,
    /// The current callback is not a parameter of it.
    NoRedirectParameter,
    /// It is not an absolute `http` or `https` URL.
    NotAUrl,
    /// It would be sent unencrypted.
    PlainHttp,
}

impl Untestable {
    /// For the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OAuth1 => "OAuth 1 has the callback in a signed request, not in a URL",
            Self::Fragment => {
                "the authorization parameters are in the fragment (after `#`), which browsers do not \
                 send to the server"
            }
            Self::NoRedirectParameter => {
                "the current callback is not a parameter of the authorization URL; \
                 `authorization_params` may override it"
            }
            Self::NotAUrl => "the authorization URL is not an absolute https URL",
            Self::PlainHttp => "the authorization URL is plain http",
        }
    }
}

impl AuthorizationRequest {
    /// Parses a URL. `current` is the redirect URI in it.
    pub(super) fn parse(url: &str, current: &str) -> Result<Self, Untestable> {
        // An error of the `url` crate contains nothing useful.
        let parsed = Url::parse(url).map_err(|_| Untestable::NotAUrl)?;
        let tls = match parsed.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(Untestable::NotAUrl),
        };
        let host = parsed.host().ok_or(Untestable::NotAUrl)?;
        let port = parsed.port_or_known_default().ok_or(Untestable::NotAUrl)?;
        let server = Server { tls, host: host.to_string(), port };
        if !tls && !server.is_loopback() {
            return Err(Untestable::PlainHttp);
        }
        let (before, fragment) = match url.split_once('#') {
            Some((before, fragment)) => (before, Some(fragment)),
            None => (url, None),
        };
        let query = before.split_once('?').map_or("", |(_, query)| query);
        let parameters: Vec<_> = query.split('&').map(Parameter::parse).collect();
        if !parameters.iter().any(|parameter| parameter.contains(current)) {
            let has = |name| parameters.iter().any(|parameter| parameter.name == name);
            let in_fragment = fragment.is_some_and(|fragment| {
                fragment.split(['?', '&']).any(|part| Parameter::parse(part).contains(current))
            });
            return Err(match (in_fragment, has("oauth_token")) {
                (true, _) => Untestable::Fragment,
                (_, true) => Untestable::OAuth1,
                _ => Untestable::NoRedirectParameter,
            });
        }
        let state = parameters
            .iter()
            .find(|parameter| parameter.name.eq_ignore_ascii_case("state"))
            .map(|parameter| parameter.value.clone())
            .filter(|state| !state.is_empty());
        Ok(Self {
            server,
            path: parsed.path().to_owned(),
            parameters,
            state,
            current: current.to_owned(),
        })
    }

    /// Path and query of the request with this redirect URI and state, and optionally `prompt=none`
    /// (OpenID Connect Core §3.1.2.1).
    pub(super) fn with(&self, redirect_uri: &str, state: &str, prompt_none: bool) -> String {
        let mut query: Vec<_> = self
            .parameters
            .iter()
            .filter(|parameter| !(prompt_none && parameter.name == "prompt"))
            .map(|parameter| {
                let mut parameter = parameter.replaced(&self.current, redirect_uri);
                if let Some(old) = &self.state {
                    parameter = parameter.replaced(old, state);
                }
                parameter.raw
            })
            .collect();
        if prompt_none {
            query.push("prompt=none".to_owned());
        }
        format!("{}?{}", self.path, query.join("&"))
    }

    /// Endpoint and app. Requests with the same identity have the same result.
    pub(super) fn identity(&self) -> Identity {
        // All of them: a template may also identify itself.
        let is_client = |parameter: &&Parameter| {
            let name = parameter.name.to_ascii_lowercase().replace(['_', '-'], "");
            matches!(name.as_str(), "clientid" | "clientkey" | "appid" | "appkey" | "consumerkey")
        };
        let raw = |parameter: &Parameter| parameter.raw.clone();
        let mut parameters: BTreeSet<_> =
            self.parameters.iter().filter(is_client).map(raw).collect();
        if parameters.is_empty() {
            let is_stable = |it: &&Parameter| Some(&it.value) != self.state.as_ref();
            parameters = self.parameters.iter().filter(is_stable).map(raw).collect();
        }
        Identity { server: self.server.clone(), path: self.path.clone(), parameters }
    }

    /// The endpoint, without any value.
    pub(super) fn shown(&self) -> String {
        format!("{}{}", self.server, self.path)
    }
}

impl fmt::Debug for AuthorizationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AuthorizationRequest").field(&self.shown()).finish()
    }
}

/// See [`AuthorizationRequest::identity`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    server: Server,
    path: String,
    parameters: BTreeSet<String>,
}

impl Parameter {
    fn parse(raw: &str) -> Self {
        let (name, value) = form_urlencoded::parse(raw.as_bytes()).next().unwrap_or_default();
        Self { raw: raw.to_owned(), name: name.into_owned(), value: value.into_owned() }
    }

    /// Whether the value is this one, or is a URL that contains it: some providers redirect the
    /// request through another page.
    fn contains(&self, value: &str) -> bool {
        self.value == value || self.value.contains(&encoded(value))
    }

    fn replaced(&self, old: &str, new: &str) -> Self {
        if !self.contains(old) {
            return self.clone();
        }
        let value = if self.value == old {
            new.to_owned()
        } else {
            self.value.replace(&encoded(old), &encoded(new))
        };
        // The name stays as it was encoded.
        let name = self.raw.split('=').next().unwrap_or_default();
        Self { raw: format!("{name}={}", encoded(&value)), name: self.name.clone(), value }
    }
}

fn encoded(value: &str) -> String {
    form_urlencoded::byte_serialize(value.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "https://api.nango.dev/oauth/callback";
    const NEW: &str = "https://auth.example.com/oauth/callback?x=1&y=ä b";

    fn with(url: &str) -> Result<String, Untestable> {
        AuthorizationRequest::parse(url, OLD).map(|request| request.with(NEW, "fresh", false))
    }

    #[test]
    fn only_the_redirect_uri_and_the_state_change() {
        let new = "https%3A%2F%2Fauth.example.com%2Foauth%2Fcallback%3Fx%3D1%26y%3D%C3%A4+b";
        for (url, path) in [
            // Encoded like the URL class of browsers, and differently.
            (
                "https://p.example/auth?a=%20+%2b&redirect_uri=https%3A%2F%2Fapi.nango.dev%2Foauth%2Fcallback&state=live&b",
                format!("/auth?a=%20+%2b&redirect_uri={new}&state=fresh&b"),
            ),
            (
                "https://p.example/auth?redirectUri=https://api.nango.dev/oauth/callback",
                format!("/auth?redirectUri={new}"),
            ),
            // A state that another parameter contains too.
            (
                "https://p.example/?STATE=live&copy=live&redirect_url=https%3a%2f%2fapi.nango.dev%2foauth%2fcallback",
                format!("/?STATE=fresh&copy=fresh&redirect_url={new}"),
            ),
            // A longer URI with the same prefix is a different one.
            (
                "https://p.example/?redirect_uri=https://api.nango.dev/oauth/callback&n=https://api.nango.dev/oauth/callback/2",
                format!("/?redirect_uri={new}&n=https://api.nango.dev/oauth/callback/2"),
            ),
        ] {
            assert_eq!(with(url), Ok(path), "{url}");
        }
    }

    #[test]
    fn a_request_nested_in_another_parameter_is_found() {
        let inner = format!("/authorize?redirect_uri={}&state=live", encoded(OLD));
        let url = format!("https://p.example/login?next={}&state=live", encoded(&inner));
        let expected = format!("/authorize?redirect_uri={}&state=fresh", encoded(NEW));
        assert_eq!(with(&url), Ok(format!("/login?next={}&state=fresh", encoded(&expected))));
    }

    #[test]
    fn untestable_urls_report_the_reason() {
        let cb = encoded(OLD);
        for (url, why) in [
            (format!("https://p.example/#/auth?redirect_uri={cb}"), Untestable::Fragment),
            (format!("https://p.example/?a=1#redirect_uri={cb}"), Untestable::Fragment),
            ("https://p.example/auth?oauth_token=t".into(), Untestable::OAuth1),
            ("https://p.example/auth?client_id=t".into(), Untestable::NoRedirectParameter),
            (format!("http://p.example/auth?redirect_uri={cb}"), Untestable::PlainHttp),
            (format!("/auth?redirect_uri={cb}"), Untestable::NotAUrl),
            (format!("ftp://p.example/auth?redirect_uri={cb}"), Untestable::NotAUrl),
        ] {
            assert_eq!(with(&url), Err(why), "{url}");
        }
        assert!(with(&format!("http://p1.localhost:8/auth?redirect_uri={cb}")).is_ok());
    }

    #[test]
    fn debug_output_contains_no_value() {
        let url = format!("https://p.example/auth?state=canary&redirect_uri={}", encoded(OLD));
        let request = AuthorizationRequest::parse(&url, OLD).unwrap();
        assert_eq!(format!("{request:?}"), "AuthorizationRequest(\"https://p.example/auth\")");
    }

    #[test]
    fn requests_of_the_same_app_have_the_same_identity() {
        let identity = |query: &str| {
            let url = format!("https://p.example/auth?{query}&redirect_uri={}", encoded(OLD));
            AuthorizationRequest::parse(&url, OLD).unwrap().identity()
        };
        assert!(identity("client_id=a&state=1&scope=x") == identity("scope=y&client_id=a&state=2"));
        assert!(identity("client_id=a") != identity("client_id=b"));
        assert!(identity("app_id=1&client_id=a") != identity("app_id=1&client_id=b"));
        assert!(identity("key=a&state=1") == identity("key=a&state=2"));
        assert!(identity("key=a&state=1") != identity("key=b&state=1"));
    }
}
