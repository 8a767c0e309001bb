//! Normalizes replies, so that two replies to the same probe are equal, and classifies them. `text` removes
//! what varies between replies.

use super::phrases::{
    BAD_CLIENT, CHALLENGES, CLEAR_ERROR_WORDS, ERROR_VALUES, LOGIN_FORMS, LOGIN_HOSTS, LOGIN_PATHS,
    MISMATCH, REDIRECT_URI, REFUSED_CHALLENGES, WALLS, canonical,
};
use super::text::{MIN_BASE64, Spellings, error_words, is_random, is_token, visible_text, words};
use crate::outbound::{Fault, Response};
use data_encoding::BASE64URL_NOPAD;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, LOCATION};
use std::collections::BTreeSet;
use url::{Url, form_urlencoded};

/// The normalized result of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// No reply, or one that cannot be compared.
    Unusable(Unusable),
    /// A reply.
    Reply(Reply),
}

/// Why a result allows no conclusion about the redirect URI, even if only some probes get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// No response.
    Fault(String),
    /// 429 (RFC 6585 §4).
    TooMany,
    /// 408 (RFC 9110 §15.5.9).
    Timeout,
    /// A captcha or a challenge.
    BotWall,
}

/// What a reply is, by its own content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A redirect to exactly the redirect URI that was sent.
    Bounce(Bounce),
    /// A login page, or a redirect to one.
    Login,
    /// The request is refused.
    Refused(Refusal),
    /// The client is refused.
    ClientRefused,
    /// Anything else.
    Other,
}

/// What a redirect to the redirect URI contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounce {
    /// An authorization response (RFC 6749 §4.1.2, §4.2.2) by the names of its parameters.
    Success,
    /// The error that the redirect URI is not registered.
    Mismatch,
    /// Another error, or nothing that is known.
    Other,
}

/// How a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// In words about the redirect URI.
    Words,
    /// 4xx.
    Status,
    /// 403 or 5xx: an outage, unless only unregistered redirect URIs get it.
    Unavailable,
    /// A redirect to an error page.
    ErrorPage,
    /// In words about the redirect URI that are not visible: they may be in every page of an app.
    Hidden,
    /// A redirect with a parameter like `view=error`, which may be in every reply.
    ErrorValue,
    /// A page with a word about an error.
    ErrorWords,
}

/// A reply in comparable form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) class: Class,
    pub(super) status: StatusCode,
    /// The target of a redirect.
    pub(super) location: Option<Location>,
    /// The distinct words of the page; `None` when the page could not be read completely.
    pub(super) words: Option<BTreeSet<String>>,
    /// The visible words about redirects or errors.
    pub(super) error_words: BTreeSet<String>,
    /// Known codes and phrases in it.
    pub(super) explicit: ExplicitErrors,
}

/// Scheme, host, port and path of a `Location`, and the parameter names of its query; no value
/// except the short `error` codes of RFC 6749 §4.1.2.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    origin: String,
    path: String,
    names: BTreeSet<String>,
    errors: BTreeSet<String>,
    kind: LocationKind,
}

/// Where a redirect leads, by its path and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LocationKind {
    /// To an error page.
    Error,
    /// A parameter has a value like `error`.
    ErrorValue,
    Login,
    Other,
}

/// Errors that a reply names explicitly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ExplicitErrors {
    /// The redirect URI is not registered.
    pub(super) mismatch: bool,
    /// The client is unknown or disabled.
    pub(super) bad_client: bool,
}

/// The sent values that a reply may contain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent<'a> {
    pub(super) redirect_uri: &'a str,
    /// Of all redirect URIs of the test. What is removed from a reply must not depend on which of
    /// them was sent: otherwise identical replies to two of them would differ.
    pub(super) spellings: &'a Spellings,
    pub(super) state: &'a str,
    /// The authorization URL, to resolve a relative `Location`.
    pub(super) url: &'a str,
}

impl Sent<'_> {
    /// The text without the redirect URIs and the state that were sent, in any encoding.
    fn removed_from(self, text: &str) -> String {
        self.spellings.removed_from(text, self.state)
    }
}

impl Shape {
    pub(super) fn of(result: &Result<Response, Fault>, sent: Sent<'_>) -> Self {
        let response = match result {
            Ok(response) => response,
            Err(fault) => return Self::Unusable(Unusable::Fault(fault.to_string())),
        };
        match response.status {
            StatusCode::TOO_MANY_REQUESTS => return Self::Unusable(Unusable::TooMany),
            StatusCode::REQUEST_TIMEOUT => return Self::Unusable(Unusable::Timeout),
            _ => {}
        }
        let target = redirect_target(response, sent.url);
        let readable = response.whole && !response.headers.contains_key(CONTENT_ENCODING);
        let text = sent.removed_from(&String::from_utf8_lossy(&response.body));
        let page = Page::of(&text);
        let is_wall = match &target {
            Some(url) => is_wall_path(url),
            None => page.is_wall(response, &text),
        };
        if is_wall {
            return Self::Unusable(Unusable::BotWall);
        }
        let location = target.as_ref().map(|url| Location::of(url, sent));
        let (class, explicit) = match (&target, &location) {
            (Some(url), Some(location)) => {
                let query = sent.removed_from(&decoded_query(url));
                let explicit = ExplicitErrors::of(&canonical(&(query + "\n" + &page.visible)));
                let class = if is_same_endpoint(url, sent.redirect_uri) {
                    Class::Bounce(Bounce::of(location, explicit))
                } else {
                    location.class(explicit)
                };
                (class, explicit)
            }
            _ => page.classify(response.status, &text),
        };
        Self::Reply(Reply {
            class,
            status: response.status,
            location,
            words: readable.then(|| words(&text)),
            error_words: if readable { page.error_words } else { BTreeSet::new() },
            explicit,
        })
    }
}

impl Unusable {
    /// As a clause.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Fault(fault) => format!("there is no response: {fault}"),
            Self::TooMany => "the provider responds 429, too many requests".into(),
            Self::Timeout => "the provider responds 408".into(),
            Self::BotWall => "the provider shows a captcha or a bot challenge".into(),
        }
    }
}

impl Bounce {
    fn of(location: &Location, explicit: ExplicitErrors) -> Self {
        let has = |names: &[&str]| names.iter().any(|name| location.names.contains(*name));
        if explicit.mismatch {
            Self::Mismatch
        } else if has(RESPONSE_PARAMETERS) && !has(ERROR_PARAMETERS) {
            Self::Success
        } else {
            Self::Other
        }
    }
}

/// Of RFC 6749 §4.1.2 and §4.2.2, OpenID Connect Core §3.2.2.5, and JARM §4.1; `auth_code` of
/// providers.
const RESPONSE_PARAMETERS: &[&str] = &["code", "access_token", "id_token", "response", "auth_code"];

impl Reply {
    /// Whether status and redirect target are equal. The pages may differ.
    pub(super) fn has_same_destination(&self, other: &Self) -> bool {
        let bounces = matches!(self.class, Class::Bounce(_));
        self.status == other.status
            && bounces == matches!(other.class, Class::Bounce(_))
            && (bounces || self.location == other.location)
    }

    /// Whether both are the same in everything except the words of a page.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.class == other.class
            && self.explicit == other.explicit
            && self.has_same_destination(other)
    }

    /// Whether it refuses the request.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.class, Class::Refused(_) | Class::ClientRefused)
    }

    /// Whether it is a refusal even when all probes get it.
    pub(super) fn is_certain(&self) -> bool {
        !matches!(self.class, Class::Refused(Refusal::Hidden | Refusal::ErrorValue))
    }

    /// Whether it accepts the request so far.
    pub(super) fn is_served(&self) -> bool {
        match self.class {
            Class::Bounce(bounce) => bounce != Bounce::Mismatch,
            Class::Login => true,
            // The remainder of an incomplete page may contain an error.
            Class::Other => self.words.is_some() || self.location.is_some(),
            Class::Refused(_) | Class::ClientRefused => false,
        }
    }

    /// Whether its page shows error words that the other does not.
    pub(super) fn has_more_error_words_than(&self, other: &Self) -> bool {
        self.words.is_some() && self.error_words.difference(&other.error_words).next().is_some()
    }

    /// For the report: names and statuses only.
    pub(super) fn summary(&self) -> String {
        let status = self.status.as_u16();
        match (&self.location, self.class) {
            (_, Class::Bounce(_)) => format!("{status} back to it"),
            (Some(location), _) => format!("{status} to {}{}", location.origin, location.path),
            (None, Class::Login) => format!("{status}, a login"),
            (None, _) if self.explicit.mismatch => format!("{status}, “not registered”"),
            (None, Class::ClientRefused) => format!("{status}, “unknown app”"),
            (None, Class::Refused(Refusal::ErrorWords)) => format!("{status}, an error"),
            (None, _) => status.to_string(),
        }
    }
}

impl Location {
    fn of(url: &Url, sent: Sent<'_>) -> Self {
        let mut names = BTreeSet::new();
        let mut errors = BTreeSet::new();
        let (mut is_error, mut has_error_value, mut continues) = (false, false, false);
        for (name, value) in parameters(url) {
            has_error_value |= ERROR_VALUES.contains(&value.as_str());
            // A login returns to the authorization request.
            continues |= value.contains("client_id") && value.contains("response_type");
            if ERROR_PARAMETERS.contains(&name.as_str()) {
                is_error |= !LOGIN_REQUIRED_CODES.contains(&value.as_str());
                if value.len() <= MAX_CODE_LENGTH
                    && value.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                {
                    errors.insert(value);
                }
            }
            if !is_random(&name) {
                names.insert(name);
            }
        }
        let origin = sent.removed_from(&url.origin().ascii_serialization());
        let path = sent
            .removed_from(url.path())
            .split('/')
            .map(|segment| if is_token(segment) { "…" } else { segment })
            .collect::<Vec<_>>()
            .join("/");
        // The fragment may be the route of a single-page app.
        let route = url.fragment().and_then(|fragment| fragment.split(['?', '&']).next());
        let route = format!("{path}/{}", route.unwrap_or_default()).to_ascii_lowercase();
        let has = |marks: &[&str]| {
            route.split('/').any(|segment| marks.iter().any(|mark| segment.contains(mark)))
        };
        let host = url.host_str().unwrap_or_default();
        let label = host.split('.').next().unwrap_or_default();
        let kind = if is_error || has(&["error"]) {
            LocationKind::Error
        } else if has_error_value {
            LocationKind::ErrorValue
        } else if has(LOGIN_PATHS) || LOGIN_HOSTS.contains(&label) || continues {
            LocationKind::Login
        } else {
            LocationKind::Other
        };
        Self { origin, path, names, errors, kind }
    }

    fn class(&self, explicit: ExplicitErrors) -> Class {
        match self.kind {
            _ if explicit.mismatch => Class::Refused(Refusal::Words),
            _ if explicit.bad_client => Class::ClientRefused,
            LocationKind::Error => Class::Refused(Refusal::ErrorPage),
            LocationKind::ErrorValue => Class::Refused(Refusal::ErrorValue),
            LocationKind::Login => Class::Login,
            LocationKind::Other => Class::Other,
        }
    }
}

/// What a page shows.
struct Page {
    /// The text without tags, scripts and styles.
    visible: String,
    /// In canonical form.
    canonical: String,
    error_words: BTreeSet<String>,
    has_login_form: bool,
}

impl Page {
    fn of(text: &str) -> Self {
        let (visible, tags) = visible_text(text);
        let tags: String = tags.chars().filter(|it| !matches!(it, '"' | '\'')).collect();
        Self {
            canonical: canonical(&visible),
            error_words: error_words(&visible),
            has_login_form: LOGIN_FORMS.iter().any(|mark| tags.contains(mark)),
            visible,
        }
    }

    /// Class and errors of a response without a redirect.
    fn classify(&self, status: StatusCode, text: &str) -> (Class, ExplicitErrors) {
        let mut explicit = ExplicitErrors::of(&self.canonical);
        let is_error = status.is_client_error() || status.is_server_error();
        // Some servers send their login page with 401.
        let may_be_login = !is_error || status == StatusCode::UNAUTHORIZED;
        if self.has_login_form && may_be_login && !explicit.mismatch {
            return (Class::Login, ExplicitErrors::default());
        }
        if is_error {
            explicit.mismatch |= self.canonical.contains(REDIRECT_URI);
            let unavailable = status == StatusCode::FORBIDDEN || status.is_server_error();
            let class = match explicit {
                ExplicitErrors { mismatch: true, .. } => Class::Refused(Refusal::Words),
                ExplicitErrors { bad_client: true, .. } => Class::ClientRefused,
                _ if unavailable => Class::Refused(Refusal::Unavailable),
                _ => Class::Refused(Refusal::Status),
            };
            return (class, explicit);
        }
        if explicit.mismatch {
            return (Class::Refused(Refusal::Words), explicit);
        }
        if explicit.bad_client {
            return (Class::ClientRefused, explicit);
        }
        if ExplicitErrors::of(&canonical(text)).mismatch {
            explicit.mismatch = true;
            return (Class::Refused(Refusal::Hidden), explicit);
        }
        let is_clear = |word: &String| CLEAR_ERROR_WORDS.iter().any(|it| word.contains(it));
        if self.error_words.iter().any(is_clear) {
            return (Class::Refused(Refusal::ErrorWords), explicit);
        }
        (Class::Other, explicit)
    }

    /// Whether it is a captcha or a challenge instead of the requested page. Other pages may include
    /// the same scripts.
    fn is_wall(&self, response: &Response, text: &str) -> bool {
        if WALL_FIELDS.iter().any(|name| response.headers.contains_key(*name)) {
            return true;
        }
        if self.has_login_form {
            return false;
        }
        let (visible, text) = (self.visible.to_ascii_lowercase(), text.to_ascii_lowercase());
        let has = |text: &str, marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
        has(&visible, WALLS)
            || has(&text, CHALLENGES)
            || !response.status.is_success() && has(&text, REFUSED_CHALLENGES)
    }
}

/// Fields of challenges by Cloudflare and AWS WAF.
const WALL_FIELDS: [&str; 2] = ["cf-mitigated", "x-amzn-waf-action"];

/// Whether a redirect leads to a captcha. A challenge of a login is none.
fn is_wall_path(url: &Url) -> bool {
    let path = url.path().to_ascii_lowercase();
    let is_login = LOGIN_PATHS.iter().any(|mark| path.contains(mark));
    path.contains("captcha")
        || !is_login
            && path.split('/').any(|segment| matches!(segment, "challenge" | "sorry" | "blocked"))
}

/// Names and values of the query and of the fragment, which may be the route of a single-page app
/// or a response (OAuth 2.0 Multiple Response Types §2.1).
fn parameters(url: &Url) -> Vec<(String, String)> {
    [url.query(), url.fragment()]
        .into_iter()
        .flatten()
        .flat_map(|text| text.split(['?', '&']))
        .flat_map(|pair| form_urlencoded::parse(pair.as_bytes()))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

/// Of RFC 6749 §4.1.2.1, and of providers.
const ERROR_PARAMETERS: &[&str] = &["error", "error_code", "err", "authError"];

/// The user has to sign in (OpenID Connect Core §3.1.2.6): the rest of the request is valid.
const LOGIN_REQUIRED_CODES: &[&str] =
    &["login_required", "interaction_required", "consent_required", "account_selection_required"];

/// No `error` of an OAuth standard is longer.
const MAX_CODE_LENGTH: usize = 40;

impl ExplicitErrors {
    /// In canonical text.
    fn of(text: &str) -> Self {
        let has = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
        Self { mismatch: has(MISMATCH), bad_client: has(BAD_CLIENT) }
    }
}

fn redirect_target(response: &Response, base: &str) -> Option<Url> {
    if !response.status.is_redirection() {
        return None;
    }
    let location = std::str::from_utf8(response.headers.get(LOCATION)?.as_bytes()).ok()?;
    Url::parse(base).ok()?.join(location).ok()
}

/// Whether a `Location` has exactly the scheme, host, port and path that were sent.
fn is_same_endpoint(location: &Url, tested: &str) -> bool {
    Url::parse(tested).is_ok_and(|tested| {
        location.scheme() == tested.scheme()
            && location.host() == tested.host()
            && location.port_or_known_default() == tested.port_or_known_default()
            && location.path() == tested.path()
    })
}

/// The values of a `Location` as text, base64 decoded (Google's `authError`).
fn decoded_query(url: &Url) -> String {
    let mut text = String::new();
    for (_, value) in parameters(url) {
        text.push_str(&value);
        text.push('\n');
        let plain = value.trim_end_matches('=').replace('+', "-").replace('/', "_");
        if plain.len() >= MIN_BASE64
            && let Ok(bytes) = BASE64URL_NOPAD.decode(plain.as_bytes())
        {
            text.push_str(&String::from_utf8_lossy(&bytes));
            text.push('\n');
        }
    }
    text
}
