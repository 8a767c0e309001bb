//! The authorization request that users are sent to (RFC 6749 §4.1.1), with another redirect URI.

use crate::check::fresh_nonce;
use crate::outbound::Server;
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

    /// The whole request less what differs between two flows of an app. Requests with the same
    /// identity have the same result. Two tenants may share a client id.
    pub(super) fn identity(&self) -> Identity {
        let state = self.state.as_deref();
        let mut parameters: Vec<_> = self
            .parameters
            .iter()
            .filter(|it| !PER_FLOW.contains(&it.plain_name().as_str()))
            .map(|it| {
                let it = it.replaced(&self.current, "");
                state.map_or_else(|| it.clone(), |state| it.replaced(state, "")).raw
            })
            .collect();
        parameters.sort();
        Identity { server: self.server.clone(), path: self.path.clone(), parameters }
    }

    /// Whether it has a client id that can be replaced.
    pub(super) fn has_client_id(&self) -> bool {
        self.parameters.iter().any(Parameter::is_replaceable_client)
    }

    /// With a client id that no app has, and that looks like a real one.
    pub(super) fn with_random_client(&self) -> Self {
        let mut request = self.clone();
        for parameter in request.parameters.iter_mut().filter(|it| it.is_replaceable_client()) {
            let old = parameter.value.clone();
            *parameter = parameter.replaced(&old, &random_client(&old));
        }
        request
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
    parameters: Vec<String>,
}

/// Differ between two flows of an app: RFC 6749 §4.1.1, OpenID Connect Core §3.1.2.1, RFC 7636 §4.3.
const PER_FLOW: [&str; 4] = ["state", "nonce", "codechallenge", "codechallengemethod"];

/// Letters and digits replaced at random, so that a check of the format passes. Not after a dot: that
/// is the domain of the provider.
fn random_client(client: &str) -> String {
    let nonce = fresh_nonce();
    let mut random = nonce.bytes().filter(u8::is_ascii_hexdigit).cycle();
    let mut replaced = String::new();
    let mut is_domain = false;
    for character in client.chars() {
        is_domain |= character == '.' && !replaced.is_empty();
        let byte = random.next().unwrap_or_default() % 6;
        replaced.push(match character {
            _ if is_domain => character,
            '0'..='9' => char::from(b'2' + byte),
            // Hexadecimal digits remain hexadecimal.
            'a'..='z' => char::from(b'a' + byte),
            'A'..='Z' => char::from(b'A' + byte),
            other => other,
        });
    }
    replaced
}

impl Parameter {
    fn plain_name(&self) -> String {
        self.name.to_ascii_lowercase().replace(['_', '-'], "")
    }

    /// A client id that is a URL is fetched by the provider.
    fn is_replaceable_client(&self) -> bool {
        let name = self.plain_name();
        let is_client =
            matches!(name.as_str(), "clientid" | "clientkey" | "appid" | "appkey" | "consumerkey");
        let can_differ = self.value.bytes().filter(u8::is_ascii_alphanumeric).count() > 1;
        is_client && can_differ && !self.value.contains("://")
    }

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
    fn requests_that_differ_only_by_flow_have_the_same_identity() {
        let identity = |query: &str, current: &str| {
            let url = format!("https://p.example/auth?{query}&redirect_uri={}", encoded(current));
            AuthorizationRequest::parse(&url, current).unwrap().identity()
        };
        let of = |query: &str| identity(query, OLD);
        let flow = "client_id=a&scope=x&state=1&nonce=2&code_challenge=3&copy=1";
        assert!(of(flow) == of("scope=x&code_challenge=9&nonce=8&client_id=a&state=7&copy=7"));
        assert!(of(flow) == identity(flow, NEW));
        assert!(of("client_id=a") != of("client_id=b"));
        // Tenants that share a client id.
        assert!(of("client_id=a&realm=one") != of("client_id=a&realm=two"));
        assert!(of("client_id=a&scope=x") != of("client_id=a&scope=y"));
        assert!(of("key=a&state=1") == of("key=a&state=2"));
        assert!(of("key=a&state=1") != of("key=b&state=1"));
    }

    #[test]
    fn a_random_client_id_looks_like_the_real_one() {
        let url = |client: &str| {
            format!("https://p.example/auth?x=1&client_id={client}&redirect_uri={}", encoded(OLD))
        };
        for (client, after) in [
            ("1234-abc.apps.p.example", ".apps.p.example"),
            ("3f2b8c1e-1111-4111-8111-aaaaaaaaaaaa", ""),
            ("AKey%2FWith%2BSigns", ""),
        ] {
            let request = AuthorizationRequest::parse(&url(client), OLD).unwrap();
            assert!(request.has_client_id());
            let random = request.with_random_client().parameters.remove(1).value;
            let real = request.parameters[1].value.clone();
            assert!(random != real && random.len() == real.len() && random.ends_with(after));
            let kinds = |text: &str| {
                let kind = |it: char| {
                    (it.is_ascii_digit(), it.is_ascii_lowercase(), it.is_ascii_uppercase())
                };
                text.chars().map(kind).collect::<Vec<_>>()
            };
            assert_eq!(kinds(&random), kinds(&real), "{random}");
        }
        // It would be fetched.
        for none in ["", "1", "https%3A%2F%2Fapi.nango.dev%2Fclient"] {
            assert!(
                !AuthorizationRequest::parse(&url(none), OLD).unwrap().has_client_id(),
                "{none}"
            );
        }
    }
}
