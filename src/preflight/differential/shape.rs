//! Normalizes replies, so that two replies to the same probe are equal.
//!
//! Removes what varies between replies: nonces, request ids, timestamps, and the redirect URIs and
//! states that were sent, in all encodings in which a reply may contain them.

use crate::check::is_bot_wall;
use crate::outbound::{Fault, Response};
use data_encoding::{BASE64, BASE64URL_NOPAD};
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

/// Why a result allows no conclusion about the redirect URI (none of these is in RFC 6749 §4.1.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// No response.
    Fault(String),
    /// 429 (RFC 6585 §4).
    TooMany,
    /// 403.
    Forbidden,
    /// 5xx, or 408 (RFC 9110 §15.5.9).
    Broken(StatusCode),
    /// A captcha or a challenge.
    BotWall,
}

/// A reply in comparable form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// The target of a redirect.
    pub(super) location: Option<Location>,
    /// Whether that is exactly the redirect URI that was sent.
    pub(super) redirects_back: bool,
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
    /// Whether it reports an error.
    is_error: bool,
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
    /// All redirect URIs of the test. What is removed from a reply must not depend on which of them
    /// was sent: otherwise identical replies to two of them would differ.
    pub(super) all: [&'a str; 4],
    pub(super) state: &'a str,
    /// The authorization URL, to resolve a relative `Location`.
    pub(super) url: &'a str,
}

impl Shape {
    /// `markers` are phrases of this provider, in addition to `MISMATCH`.
    pub(super) fn of(
        result: &Result<Response, Fault>,
        sent: Sent<'_>,
        markers: &[&str],
        mismatch_status: Option<StatusCode>,
    ) -> Self {
        let response = match result {
            Ok(response) => response,
            Err(fault) => return Self::Unusable(Unusable::Fault(fault.to_string())),
        };
        let status = response.status;
        let known = mismatch_status == Some(status);
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Self::Unusable(Unusable::TooMany);
        }
        let redirect_target = redirect_target(response, sent.url);
        if is_captcha(response, redirect_target.as_ref()) {
            return Self::Unusable(Unusable::BotWall);
        }
        if status == StatusCode::FORBIDDEN && !known {
            return Self::Unusable(Unusable::Forbidden);
        }
        let broken = status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT;
        if broken && !known {
            return Self::Unusable(Unusable::Broken(status));
        }
        let redirects_back =
            redirect_target.as_ref().is_some_and(|url| is_same_endpoint(url, sent.redirect_uri));
        let readable = response.whole && !response.headers.contains_key(CONTENT_ENCODING);
        let text = without_sent_values(&String::from_utf8_lossy(&response.body), sent);
        let location = redirect_target.as_ref().map(|url| Location::of(url, sent));
        let said = match &redirect_target {
            Some(url) => without_sent_values(&decoded_query(url), sent) + "\n" + &text,
            None => text.clone(),
        };
        Self::Reply(Reply {
            status,
            location,
            redirects_back,
            words: readable.then(|| words(&text)),
            error_words: if readable { error_words(&text) } else { BTreeSet::new() },
            explicit: ExplicitErrors::of(&said, markers),
        })
    }
}

impl Unusable {
    /// As a clause.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Fault(fault) => format!("there is no response: {fault}"),
            Self::TooMany => "the provider responds 429, too many requests".into(),
            Self::Forbidden => "the provider responds 403, as often to programs".into(),
            Self::Broken(status) => format!("the provider responds {}", status.as_u16()),
            Self::BotWall => "the provider shows a captcha or a bot challenge".into(),
        }
    }
}

impl Reply {
    /// Whether status and redirect target are equal. The pages may differ.
    pub(super) fn has_same_destination(&self, other: &Self) -> bool {
        self.status == other.status
            && self.redirects_back == other.redirects_back
            && (self.redirects_back || self.location == other.location)
    }

    /// Whether it rejects the request for any reason: by status, by a redirect to an error page, or
    /// in words. A rejected callback never counts as accepted.
    pub(super) fn rejects(&self) -> bool {
        self.explicit.mismatch
            || self.explicit.bad_client
            || self.status.is_client_error()
            || self.location.as_ref().is_some_and(|location| location.is_error)
    }

    /// Whether its page shows an error.
    pub(super) fn shows_error(&self) -> bool {
        self.words.is_none() && self.location.is_none()
            || self
                .error_words
                .iter()
                .any(|word| CLEAR_ERROR_WORDS.iter().any(|fault| word.contains(fault)))
    }

    /// Whether it certainly is an error response, so that an error phrase in it applies. A
    /// single-page app may be served with 401 or 404, and contain all its messages.
    pub(super) fn is_error_response(&self) -> bool {
        self.location.is_some()
            || self.status == StatusCode::BAD_REQUEST
            || self.status == StatusCode::FORBIDDEN
            || self.status.is_server_error()
    }

    /// Whether it contains an explicit error or error words that the other reply does not.
    pub(super) fn has_more_error_words_than(&self, other: &Self) -> bool {
        self.explicit.mismatch && !other.explicit.mismatch
            || other.words.is_some()
                && self.error_words.difference(&other.error_words).next().is_some()
    }

    /// For the report: names and statuses only.
    pub(super) fn summary(&self) -> String {
        let status = self.status.as_u16();
        match (&self.location, self.redirects_back) {
            (_, true) => format!("{status} back to it"),
            (Some(location), _) => format!("{status} to {}{}", location.origin, location.path),
            (None, _) if self.explicit.mismatch => format!("{status}, “not registered”"),
            (None, _) => status.to_string(),
        }
    }
}

impl Location {
    fn of(url: &Url, sent: Sent<'_>) -> Self {
        let mut names = BTreeSet::new();
        let mut errors = BTreeSet::new();
        let mut is_error = false;
        for (name, value) in parameters(url) {
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
        let origin = without_sent_values(&url.origin().ascii_serialization(), sent);
        let path = without_sent_values(url.path(), sent)
            .split('/')
            .map(|segment| if is_token(segment) { "…" } else { segment })
            .collect::<Vec<_>>()
            .join("/");
        is_error |= path.to_ascii_lowercase().split('/').any(|segment| segment.contains("error"));
        Self { origin, path, names, errors, is_error }
    }
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
    fn of(text: &str, markers: &[&str]) -> Self {
        // A removed URI leaves two spaces.
        let words: Vec<_> = text.split_whitespace().collect();
        let text = words.join(" ").to_ascii_lowercase();
        let has = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
        Self { mismatch: has(MISMATCH) || has(markers), bad_client: has(BAD_CLIENT) }
    }
}

/// Codes and phrases of providers for an unregistered redirect URI, which no page contains for
/// another reason.
const MISMATCH: &[&str] = &[
    "redirect_uri_mismatch",
    "invalid_redirect_uri",
    "redirect_uri_not_allowed",
    "redirect_uri_not_match",
    "invalid redirect_uri",
    "invalid redirect uri",
    "invalid redirect url",
    "mismatching redirect uri",
    "mismatching_redirect_uri",
    "redirect_uri did not match",
    "redirect_uri does not match",
    "redirect_uri is not registered",
    "redirect_uri is not associated",
    "redirect uri is not registered",
    "redirect uri mismatch",
    "redirect_uri must match",
    "redirect_uri query parameter value is invalid",
    "redirect uri is not supported by client",
    "the redirect uri included is not valid",
    "unregistered redirect",
    "aadsts50011",
];

/// Codes and phrases of providers for an unknown or disabled client (RFC 6749 §5.2).
const BAD_CLIENT: &[&str] = &[
    "invalid_client",
    "unauthorized_client",
    "unknown client",
    "client is invalid",
    "invalid client",
    "client not found",
    "client is disabled",
    "client disabled",
    "application is disabled",
    "application has been disabled",
    "aadsts700016",
];

/// Whether it is a captcha or a bot challenge. A login page may load the script of a captcha too:
/// a page with a login form is none.
fn is_captcha(response: &Response, redirect_target: Option<&Url>) -> bool {
    if let Some(url) = redirect_target {
        let path = url.path().to_ascii_lowercase();
        return ["captcha", "challenge", "/sorry/", "blocked"]
            .iter()
            .any(|mark| path.contains(mark));
    }
    let text = String::from_utf8_lossy(&response.body).to_ascii_lowercase();
    let is_login = response.status.is_success()
        && ["type=\"password\"", "type=\"email\"", "name=\"username\"", "name=\"identifier\""]
            .iter()
            .any(|mark| text.contains(mark));
    is_bot_wall(response) && !is_login
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

/// A shorter value is more likely a word than base64.
const MIN_BASE64: usize = 16;

/// The text without the redirect URIs and the state that were sent, in any encoding.
fn without_sent_values(text: &str, sent: Sent<'_>) -> String {
    let mut text = text.to_owned();
    let mut remove = |what: &str| {
        if what.len() > 3 && text.contains(what) {
            text = text.replace(what, " ");
        }
    };
    let mut spellings = spellings(sent.state);
    for uri in sent.all {
        spellings.extend(self::spellings(uri));
        spellings.extend(spellings_of_parts(uri));
    }
    // The longest first, so that no remainder of a longer one stays.
    spellings.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
    spellings.dedup();
    for spelling in &spellings {
        remove(spelling);
    }
    text
}

fn spellings_of_parts(uri: &str) -> Vec<String> {
    let Ok(url) = Url::parse(uri) else { return Vec::new() };
    let host = url.host_str().unwrap_or_default();
    let mut parts = spellings(&url.origin().ascii_serialization());
    parts.extend(spellings(host));
    // A path of one letter is contained in every text.
    parts.extend(spellings(url.path()).into_iter().filter(|path| path.len() > 3));
    parts
}

/// Plain; percent-encoded once and twice, in both cases; in HTML, JSON and base64.
fn spellings(text: &str) -> Vec<String> {
    let once: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    let twice: String = form_urlencoded::byte_serialize(once.as_bytes()).collect();
    let slashes = text.replace(':', "%3A").replace('/', "%2F");
    let html = text.replace('&', "&amp;");
    let entities = text.replace('/', "&#x2F;").replace(':', "&#x3A;");
    let mut all = vec![
        text.to_owned(),
        once.to_lowercase(),
        twice.to_lowercase(),
        slashes.to_lowercase(),
        once,
        twice,
        slashes,
        html,
        entities,
        text.replace('/', r"\/"),
        text.replace('/', r"\u002F"),
        text.replace('/', r"\u002f"),
        text.replace('/', r"\x2f"),
        text.replace('/', "&#47;"),
    ];
    // In a longer base64 text it starts at one of three offsets; only its inner letters do not
    // depend on the neighbouring bytes.
    for shift in 0..3 {
        let mut bytes = vec![b' '; shift];
        bytes.extend_from_slice(text.as_bytes());
        let encoded = BASE64.encode(&bytes);
        let inner = encoded.trim_end_matches('=');
        let from = if shift == 0 { 0 } else { 4 };
        if let Some(inner) = inner.get(from..inner.len().saturating_sub(2))
            && inner.len() >= MIN_BASE64
        {
            all.push(inner.to_owned());
            all.push(inner.replace('+', "-").replace('/', "_"));
        }
    }
    all
}

/// The distinct words of a page, without those that look random.
fn words(text: &str) -> BTreeSet<String> {
    text.split(|character: char| {
        character.is_whitespace() || "<>\"'=,;:(){}[]|&?#\\".contains(character)
    })
    .filter(|run| !is_random(run))
    .flat_map(|run| run.split(|character: char| !character.is_alphabetic()))
    .filter(|word| word.chars().count() > 1)
    .map(str::to_lowercase)
    .collect()
}

/// The visible words about redirects and errors. Tags and scripts are excluded: attributes of many
/// forms and captchas contain such words.
fn error_words(text: &str) -> BTreeSet<String> {
    words(&visible_text(text))
        .into_iter()
        .filter(|word| ERROR_WORDS.iter().any(|it| word.contains(it)))
        .collect()
}

/// The text of a page without tags, scripts and styles. In one pass: a page may consist of tags.
fn visible_text(text: &str) -> String {
    // Changes the case of ASCII only, so that positions are equal in both.
    let lower = text.to_ascii_lowercase();
    let after = |from: usize, end: &str| {
        let found = lower.get(from..).and_then(|rest| rest.find(end));
        found.map_or(lower.len(), |found| from + found + end.len())
    };
    let mut visible = String::new();
    let mut at = 0;
    while let Some((before, _)) = text.get(at..).and_then(|rest| rest.split_once('<')) {
        visible.push_str(before);
        visible.push(' ');
        at += before.len() + 1;
        let tag = lower.get(at..).unwrap_or_default();
        if tag.starts_with("script") {
            at = after(at, "</script");
        } else if tag.starts_with("style") {
            at = after(at, "</style");
        }
        at = after(at, ">");
    }
    visible.push_str(text.get(at..).unwrap_or_default());
    visible
}

/// Words of pages that reject a redirect URI.
const ERROR_WORDS: &[&str] =
    &["redirect", "callback", "mismatch", "registered", "invalid", "error", "whitelist"];

/// Those that pages without an error do not contain.
const CLEAR_ERROR_WORDS: &[&str] = &["mismatch", "invalid", "error"];

/// Whether a run of characters is a nonce, an id or a time rather than text: digits between
/// letters, or letters of both cases without order.
fn is_random(run: &str) -> bool {
    if run.len() < MIN_NONCE_LENGTH {
        return false;
    }
    let digits = run.bytes().filter(u8::is_ascii_digit).count();
    let turns = run
        .as_bytes()
        .windows(2)
        .filter(|pair| {
            matches!(pair, [a, b] if a.is_ascii_uppercase() && b.is_ascii_lowercase()
            || a.is_ascii_lowercase() && b.is_ascii_uppercase())
        })
        .count();
    digits > 0 && digits * 20 >= run.len() || turns * 3 > run.len() || run.len() > MAX_WORD_LENGTH
}

/// Whether a segment of a path is a token. Names have one case, or are short. A name taken for a
/// token always costs a confirmation by hand, a token taken for a name only sometimes.
fn is_token(segment: &str) -> bool {
    let has = |is: fn(&u8) -> bool| segment.as_bytes().iter().any(is);
    let name = segment.trim_end_matches(|it: char| it.is_ascii_digit());
    let is_version = segment.len() - name.len() <= 2
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || b"-_.".contains(&byte));
    is_random(segment) && !is_version
        || segment.len() >= MIN_TOKEN_LENGTH
            && has(u8::is_ascii_lowercase)
            && has(u8::is_ascii_uppercase)
}

/// 96 bits in base64 (RFC 4648 §5).
const MIN_TOKEN_LENGTH: usize = 16;

/// A shorter run cannot be distinguished from a word or a number.
const MIN_NONCE_LENGTH: usize = 6;

/// No word is longer.
const MAX_WORD_LENGTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_paths_are_distinguished_from_names() {
        for token in [
            "TdzQFGPUoloGRngJqkFF3wj-t6OkSNbOSATzptbFMPA",
            "aBCDefghIJKLmnop",
            "5f0c1b2a9d3e4f60",
            "0b1e9c3a-5d2f-4a77-9f10-cc2d3e4f5a6b",
        ] {
            assert!(is_token(token), "{token}");
        }
        for name in ["interaction", "signin", "authorize-application", "OAuthError", "oauth2", "v3"]
        {
            assert!(!is_token(name), "{name}");
        }
    }

    /// CPU time of this thread, in nanoseconds (proc(5), `schedstat`): independent of other load.
    fn cpu_time() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        stat.split_ascii_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn the_cost_of_a_page_is_linear_in_its_length() {
        const SHORT: usize = 8 << 10;
        const TIMES: usize = 16;
        for tag in ["<>", "<aaaaa\u{e9}>", "<script></script>", "<style", "<"] {
            let cost = |pages: usize, bytes: usize| {
                let page = tag.repeat(bytes / tag.len());
                let before = cpu_time();
                (0..pages).for_each(|_| assert!(error_words(&page).is_empty()));
                cpu_time() - before
            };
            let (many, one) = (cost(TIMES, SHORT), cost(1, SHORT * TIMES));
            // The same number of bytes; with quadratic cost, it would be 16 times as much. The
            // kernel counts in ticks.
            let most = many * 4 + 20_000_000;
            assert!(one < most, "{tag}: {one} ns for one page, {many} ns for {TIMES}");
        }
    }

    #[test]
    fn words_in_tags_scripts_and_styles_are_ignored() {
        let page = "<P title='invalid'>Error<STYLE>.mismatch{}</style ><script>redirect()</SCRIPT>\
            callback<b>registered</b><script>whitelist";
        let expected = ["callback", "error", "registered"];
        assert_eq!(error_words(page).into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(error_words("mismatch<invalid").into_iter().collect::<Vec<_>>(), ["mismatch"]);
    }
}
