//! The authorization request as users are sent to it (RFC 6749 §4.1.1), and the same request with
//! another redirect URI.

use crate::outbound::Server;
use std::collections::BTreeSet;
use std::fmt;
use url::{Url, form_urlencoded};

/// An authorization request whose redirect URI can be exchanged.
///
/// The redirect parameter is found by its value, since its name differs (`redirect_url`,
/// `redirectUri`); everything but it and the `state` stays as it is, byte for byte.
#[derive(Clone)]
pub(super) struct AuthorizationRequest {
    /// Of the provider.
    pub(super) server: Server,
    /// The raw path.
    path: String,
    parameters: Vec<Parameter>,
    /// The `state` of the flow at Nango, which no provider may hear of.
    state: Option<String>,
    current: String,
}

/// One `name=value`, as it was written and as it is meant.
#[derive(Clone)]
struct Parameter {
    raw: String,
    name: String,
    value: String,
}

/// Why a provider cannot be asked over HTTP whether it knows a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untestable {
    /// OAuth 1 (RFC 5849 §2.1): the callback stands in the signed request for a token.
    OAuth1,
    /// The question stands behind `#`, which browsers do not send.
    Fragment,
    /// The current callback is no parameter of it.
    NoRedirectParameter,
    /// It is no absolute `http` or `https` URL.
    NotAUrl,
    /// It would go over the network unencrypted.
    PlainHttp,
}

impl Untestable {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::OAuth1 => "OAuth 1 names its callback in a signed request, not in a URL",
            Self::Fragment => "the question stands behind a # and never leaves the browser",
            Self::NoRedirectParameter => {
                "the current callback is no parameter of the authorization URL; \
                 `authorization_params` may override it"
            }
            Self::NotAUrl => "the authorization URL is no absolute https URL",
            Self::PlainHttp => "the authorization URL is plain http",
        }
    }
}

impl AuthorizationRequest {
    /// Takes a URL apart. `current` is the redirect URI that stands in it.
    pub(super) fn parse(url: &str, current: &str) -> Result<Self, Untestable> {
        // An error of the `url` crate would quote nothing, but says nothing of use either.
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
        if !parameters.iter().any(|parameter| parameter.holds(current)) {
            let has = |name| parameters.iter().any(|parameter| parameter.name == name);
            let behind = fragment.is_some_and(|fragment| {
                fragment.split(['?', '&']).any(|part| Parameter::parse(part).holds(current))
            });
            return Err(match (behind, has("oauth_token")) {
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

    /// Path and query of the request with this redirect URI and this state, and `prompt=none`
    /// (OpenID Connect Core §3.1.2.1) when it is asked for.
    pub(super) fn with(&self, redirect_uri: &str, state: &str, prompt_none: bool) -> String {
        let mut query: Vec<_> = self
            .parameters
            .iter()
            .filter(|parameter| !(prompt_none && parameter.name == "prompt"))
            .map(|parameter| {
                let mut parameter = parameter.exchanged(&self.current, redirect_uri);
                if let Some(old) = &self.state {
                    parameter = parameter.exchanged(old, state);
                }
                parameter.raw
            })
            .collect();
        if prompt_none {
            query.push("prompt=none".to_owned());
        }
        format!("{}?{}", self.path, query.join("&"))
    }

    /// What makes two requests the same question: where it is asked, and by which app.
    pub(super) fn identity(&self) -> Identity {
        // All of them: a template may name itself beside the app.
        let is_client = |parameter: &&Parameter| {
            let name = parameter.name.to_ascii_lowercase().replace(['_', '-'], "");
            matches!(name.as_str(), "clientid" | "clientkey" | "appid" | "appkey" | "consumerkey")
        };
        let raw = |parameter: &Parameter| parameter.raw.clone();
        let mut parameters: BTreeSet<_> =
            self.parameters.iter().filter(is_client).map(raw).collect();
        if parameters.is_empty() {
            let lasting = |it: &&Parameter| Some(&it.value) != self.state.as_ref();
            parameters = self.parameters.iter().filter(lasting).map(raw).collect();
        }
        Identity { server: self.server.clone(), path: self.path.clone(), parameters }
    }

    /// Where the question goes, without any value.
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

    /// Whether the value is this one, or is a URL that carries it along: some providers lead the
    /// request through a page of their own.
    fn holds(&self, value: &str) -> bool {
        self.value == value || self.value.contains(&encoded(value))
    }

    fn exchanged(&self, old: &str, new: &str) -> Self {
        if !self.holds(old) {
            return self.clone();
        }
        let value = if self.value == old {
            new.to_owned()
        } else {
            self.value.replace(&encoded(old), &encoded(new))
        };
        // The name keeps the spelling that it came in.
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
            // As the URL class of browsers writes it, and as others do.
            (
                "https://p.example/auth?a=%20+%2b&redirect_uri=https%3A%2F%2Fapi.nango.dev%2Foauth%2Fcallback&state=live&b",
                format!("/auth?a=%20+%2b&redirect_uri={new}&state=fresh&b"),
            ),
            (
                "https://p.example/auth?redirectUri=https://api.nango.dev/oauth/callback",
                format!("/auth?redirectUri={new}"),
            ),
            // A state that stands in another parameter too.
            (
                "https://p.example/?STATE=live&copy=live&redirect_url=https%3a%2f%2fapi.nango.dev%2foauth%2fcallback",
                format!("/?STATE=fresh&copy=fresh&redirect_url={new}"),
            ),
            // Not the same because it begins alike.
            (
                "https://p.example/?redirect_uri=https://api.nango.dev/oauth/callback&n=https://api.nango.dev/oauth/callback/2",
                format!("/?redirect_uri={new}&n=https://api.nango.dev/oauth/callback/2"),
            ),
        ] {
            assert_eq!(with(url), Ok(path), "{url}");
        }
    }

    #[test]
    fn a_request_behind_a_page_of_the_provider_is_found() {
        let inner = format!("/authorize?redirect_uri={}&state=live", encoded(OLD));
        let url = format!("https://p.example/login?next={}&state=live", encoded(&inner));
        let expected = format!("/authorize?redirect_uri={}&state=fresh", encoded(NEW));
        assert_eq!(with(&url), Ok(format!("/login?next={}&state=fresh", encoded(&expected))));
    }

    #[test]
    fn what_cannot_be_tested_says_why() {
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
    fn a_debug_output_tells_no_value() {
        let url = format!("https://p.example/auth?state=canary&redirect_uri={}", encoded(OLD));
        let request = AuthorizationRequest::parse(&url, OLD).unwrap();
        assert_eq!(format!("{request:?}"), "AuthorizationRequest(\"https://p.example/auth\")");
    }

    #[test]
    fn the_same_app_is_the_same_question() {
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
