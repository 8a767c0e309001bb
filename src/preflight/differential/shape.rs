//! An answer, brought into a form in which two answers to the same question are equal.
//!
//! What changes from answer to answer by itself is left out: nonces, request ids, timestamps, and
//! the redirect URIs and states that are sent, in all the spellings in which they may come back.

use crate::check::is_bot_wall;
use crate::outbound::{Answer, Fault};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::StatusCode;
use http::header::{CONTENT_ENCODING, LOCATION};
use std::collections::BTreeSet;
use url::{Url, form_urlencoded};

/// What one probe brought, without what changes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing that could be compared, and why.
    Silent(Silence),
    /// An answer.
    Answer(Spoken),
}

/// Why an answer says nothing about the redirect URI (RFC 6749 §4.1.2.1 knows none of them).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// No answer came.
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

/// An answer in comparable form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spoken {
    pub(super) status: StatusCode,
    /// Where it leads, if anywhere.
    pub(super) location: Option<Place>,
    /// Whether that is exactly the redirect URI that was tested.
    pub(super) bounced: bool,
    /// The words of the page, each once; `None` when the page could not be read whole.
    pub(super) words: Option<BTreeSet<String>>,
    /// Those that people can read and that have to do with redirects or errors.
    pub(super) telling: BTreeSet<String>,
    /// What it says in a language of its own about the redirect URI or the client.
    pub(super) says: Says,
}

/// Scheme, host, port and path of a `Location`, and what its query names; no value but the short
/// codes that RFC 6749 §4.1.2.1 calls `error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    origin: String,
    path: String,
    names: BTreeSet<String>,
    errors: BTreeSet<String>,
    /// Whether it leads away from a fault.
    refuses: bool,
}

/// What an answer says outright.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Says {
    /// That the redirect URI is not registered.
    pub(super) mismatch: bool,
    /// That the client itself is unknown or disabled.
    pub(super) bad_client: bool,
}

/// What was asked, as far as it may come back in the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) redirect_uri: &'a str,
    /// Every redirect URI that is asked with. What is left out of an answer must not depend on
    /// which of them it was: else one answer to two of them looks like two.
    pub(super) all: [&'a str; 4],
    pub(super) state: &'a str,
    /// The authorization URL, to resolve a relative `Location`.
    pub(super) url: &'a str,
}

impl Shape {
    /// `markers` is what this provider is known to say, beside what any may.
    pub(super) fn of(
        result: &Result<Answer, Fault>,
        asked: Asked<'_>,
        markers: &[&str],
        mismatch_status: Option<StatusCode>,
    ) -> Self {
        let answer = match result {
            Ok(answer) => answer,
            Err(fault) => return Self::Silent(Silence::Fault(fault.to_string())),
        };
        let status = answer.status;
        let known = mismatch_status == Some(status);
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Self::Silent(Silence::TooMany);
        }
        let leads_to = leads_to(answer, asked.url);
        if is_wall(answer, leads_to.as_ref()) {
            return Self::Silent(Silence::BotWall);
        }
        if status == StatusCode::FORBIDDEN && !known {
            return Self::Silent(Silence::Forbidden);
        }
        let broken = status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT;
        if broken && !known {
            return Self::Silent(Silence::Broken(status));
        }
        let bounced = leads_to.as_ref().is_some_and(|url| is_bounce(url, asked.redirect_uri));
        let readable = answer.whole && !answer.headers.contains_key(CONTENT_ENCODING);
        let text = plain(&String::from_utf8_lossy(&answer.body), asked);
        let location = leads_to.as_ref().map(|url| Place::of(url, asked));
        let said = match &leads_to {
            Some(url) => plain(&decoded_query(url), asked) + "\n" + &text,
            None => text.clone(),
        };
        Self::Answer(Spoken {
            status,
            location,
            bounced,
            words: readable.then(|| words(&text)),
            telling: if readable { telling(&text) } else { BTreeSet::new() },
            says: Says::of(&said, markers),
        })
    }
}

impl Silence {
    /// In words that follow "the provider".
    pub(super) fn words(&self) -> String {
        match self {
            Self::Fault(fault) => format!("could not be asked: {fault}"),
            Self::TooMany => "answers 429, too many requests".into(),
            Self::Forbidden => "answers 403 to programs".into(),
            Self::Broken(status) => format!("answers {}", status.as_u16()),
            Self::BotWall => "shows a captcha or a bot wall".into(),
        }
    }
}

impl Spoken {
    /// Whether what is robust is the same: status, and where it leads. A page may differ still.
    pub(super) fn leads_as(&self, other: &Self) -> bool {
        self.status == other.status
            && self.bounced == other.bounced
            && (self.bounced || self.location == other.location)
    }

    /// Whether it turns the request away, whatever the reason: with an error status, to a place for
    /// errors, or in words. What is turned away is never accepted.
    pub(super) fn refuses(&self) -> bool {
        self.says.mismatch
            || self.says.bad_client
            || self.status.is_client_error()
            || self.location.as_ref().is_some_and(|place| place.refuses)
    }

    /// Whether people read of a fault on its page.
    pub(super) fn complains(&self) -> bool {
        self.words.is_none() && self.location.is_none()
            || self.telling.iter().any(|word| FAULTS.iter().any(|fault| word.contains(fault)))
    }

    /// Whether it is about a fault for sure, so that what it says is no message that only stands
    /// by. An app in the browser may come with 401 or 404, and says nothing by that.
    pub(super) fn is_outright(&self) -> bool {
        self.location.is_some()
            || self.status == StatusCode::BAD_REQUEST
            || self.status == StatusCode::FORBIDDEN
            || self.status.is_server_error()
    }

    /// Whether it says outright, or in a word on redirects that the other has not, that something
    /// is wrong.
    pub(super) fn is_told_beside(&self, other: &Self) -> bool {
        self.says.mismatch && !other.says.mismatch
            || other.words.is_some() && self.telling.difference(&other.telling).next().is_some()
    }

    /// Names and statuses only.
    pub(super) fn words_for_people(&self) -> String {
        let status = self.status.as_u16();
        match (&self.location, self.bounced) {
            (_, true) => format!("{status} back to it"),
            (Some(place), _) => format!("{status} to {}{}", place.origin, place.path),
            (None, _) if self.says.mismatch => format!("{status}, “not registered”"),
            (None, _) => status.to_string(),
        }
    }
}

impl Place {
    fn of(url: &Url, asked: Asked<'_>) -> Self {
        let mut names = BTreeSet::new();
        let mut errors = BTreeSet::new();
        let mut refuses = false;
        for (name, value) in pairs(url) {
            if NAMES_OF_ERRORS.contains(&name.as_str()) {
                refuses |= !NEEDS_A_PERSON.contains(&value.as_str());
                if value.len() <= LONGEST_CODE
                    && value.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                {
                    errors.insert(value);
                }
            }
            if !is_random(&name) {
                names.insert(name);
            }
        }
        let origin = plain(&url.origin().ascii_serialization(), asked);
        let path = plain(url.path(), asked)
            .split('/')
            .map(|segment| if is_token(segment) { "…" } else { segment })
            .collect::<Vec<_>>()
            .join("/");
        refuses |= path.to_ascii_lowercase().split('/').any(|segment| segment.contains("error"));
        Self { origin, path, names, errors, refuses }
    }
}

/// Names and values of the query, and of what stands behind `#`: a page of an app in the browser,
/// or an answer in the fragment (OAuth 2.0 Multiple Response Types §2.1).
fn pairs(url: &Url) -> Vec<(String, String)> {
    [url.query(), url.fragment()]
        .into_iter()
        .flatten()
        .flat_map(|text| text.split(['?', '&']))
        .flat_map(|pair| form_urlencoded::parse(pair.as_bytes()))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

/// As RFC 6749 §4.1.2.1 calls it, and others do.
const NAMES_OF_ERRORS: &[&str] = &["error", "error_code", "err", "authError"];

/// That a person would have to sign in (OpenID Connect Core §3.1.2.6): all else was right.
const NEEDS_A_PERSON: &[&str] =
    &["login_required", "interaction_required", "consent_required", "account_selection_required"];

/// No `error` of an OAuth standard is longer.
const LONGEST_CODE: usize = 40;

impl Says {
    fn of(text: &str, markers: &[&str]) -> Self {
        // Where the URI was taken out of a sentence, two spaces are left.
        let words: Vec<_> = text.split_whitespace().collect();
        let text = words.join(" ").to_ascii_lowercase();
        let has = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
        Self { mismatch: has(MISMATCH) || has(markers), bad_client: has(BAD_CLIENT) }
    }
}

/// What providers call a redirect URI that is not registered: codes, and phrases that no page
/// says otherwise.
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

/// What providers say of a client that they do not know or have disabled (RFC 6749 §5.2).
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

/// Whether a captcha or a challenge stands in the way. A login page may load the script of a
/// captcha too: where a person can enter a name, there is no wall.
fn is_wall(answer: &Answer, leads_to: Option<&Url>) -> bool {
    if let Some(url) = leads_to {
        let path = url.path().to_ascii_lowercase();
        return ["captcha", "challenge", "/sorry/", "blocked"]
            .iter()
            .any(|mark| path.contains(mark));
    }
    let text = String::from_utf8_lossy(&answer.body).to_ascii_lowercase();
    let is_login = answer.status.is_success()
        && ["type=\"password\"", "type=\"email\"", "name=\"username\"", "name=\"identifier\""]
            .iter()
            .any(|mark| text.contains(mark));
    is_bot_wall(answer) && !is_login
}

fn leads_to(answer: &Answer, base: &str) -> Option<Url> {
    if !answer.status.is_redirection() {
        return None;
    }
    let location = std::str::from_utf8(answer.headers.get(LOCATION)?.as_bytes()).ok()?;
    Url::parse(base).ok()?.join(location).ok()
}

/// Whether a `Location` has exactly the scheme, host, port and path that were tested.
fn is_bounce(location: &Url, tested: &str) -> bool {
    Url::parse(tested).is_ok_and(|tested| {
        location.scheme() == tested.scheme()
            && location.host() == tested.host()
            && location.port_or_known_default() == tested.port_or_known_default()
            && location.path() == tested.path()
    })
}

/// The values of a `Location`, also of those in base64 (Google's `authError`), as text.
fn decoded_query(url: &Url) -> String {
    let mut text = String::new();
    for (_, value) in pairs(url) {
        text.push_str(&value);
        text.push('\n');
        let plain = value.trim_end_matches('=').replace('+', "-").replace('/', "_");
        if plain.len() >= LEAST_BASE64
            && let Ok(bytes) = BASE64URL_NOPAD.decode(plain.as_bytes())
        {
            text.push_str(&String::from_utf8_lossy(&bytes));
            text.push('\n');
        }
    }
    text
}

/// A shorter value is rather a word than an encoded text.
const LEAST_BASE64: usize = 16;

/// The text without the redirect URIs and the state that are sent, in any spelling.
fn plain(text: &str, asked: Asked<'_>) -> String {
    let mut text = text.to_owned();
    let mut remove = |what: &str| {
        if what.len() > 3 && text.contains(what) {
            text = text.replace(what, " ");
        }
    };
    let mut spellings = spellings(asked.state);
    for uri in asked.all {
        spellings.extend(self::spellings(uri));
        spellings.extend(spellings_of_parts(uri));
    }
    // The longest first, so that no rest of a longer one stays.
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
    // A path of one letter stands everywhere.
    parts.extend(spellings(url.path()).into_iter().filter(|path| path.len() > 3));
    parts
}

/// As it is; percent-encoded once and twice, in both cases; as in HTML, JSON and base64.
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
    // Within other bytes an encoded text begins at one of three places; what is certain of it
    // lies between its first and last letters.
    for shift in 0..3 {
        let mut bytes = vec![b' '; shift];
        bytes.extend_from_slice(text.as_bytes());
        let encoded = BASE64.encode(&bytes);
        let inner = encoded.trim_end_matches('=');
        let from = if shift == 0 { 0 } else { 4 };
        if let Some(inner) = inner.get(from..inner.len().saturating_sub(2))
            && inner.len() >= LEAST_BASE64
        {
            all.push(inner.to_owned());
            all.push(inner.replace('+', "-").replace('/', "_"));
        }
    }
    all
}

/// The words of a page, each once, without those that look as if they had been drawn by lot.
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

/// The words on redirects and errors that people can read: not those in tags, where the attributes
/// of any form and any captcha speak of callbacks and errors, and not those in scripts.
fn telling(text: &str) -> BTreeSet<String> {
    words(&visible(text))
        .into_iter()
        .filter(|word| TELLING.iter().any(|it| word.contains(it)))
        .collect()
}

/// The text of a page without tags, scripts and styles, in one pass: a page may be nothing but tags.
fn visible(text: &str) -> String {
    // ASCII alone changes case, so that positions are the same in both.
    let lower = text.to_ascii_lowercase();
    let after = |from: usize, end: &str| {
        let found = lower.get(from..).and_then(|rest| rest.find(end));
        found.map_or(lower.len(), |found| from + found + end.len())
    };
    let mut seen = String::new();
    let mut at = 0;
    while let Some((before, _)) = text.get(at..).and_then(|rest| rest.split_once('<')) {
        seen.push_str(before);
        seen.push(' ');
        at += before.len() + 1;
        let tag = lower.get(at..).unwrap_or_default();
        if tag.starts_with("script") {
            at = after(at, "</script");
        } else if tag.starts_with("style") {
            at = after(at, "</style");
        }
        at = after(at, ">");
    }
    seen.push_str(text.get(at..).unwrap_or_default());
    seen
}

/// Words with which pages in any place of the web say that a redirect URI is wrong.
const TELLING: &[&str] =
    &["redirect", "callback", "mismatch", "registered", "invalid", "error", "whitelist"];

/// Those that no page says that is about something else.
const FAULTS: &[&str] = &["mismatch", "invalid", "error"];

/// Whether a run of letters is a nonce, an id, a time, rather than something that people read:
/// digits among letters, or letters of both cases without order.
fn is_random(run: &str) -> bool {
    if run.len() < SHORTEST_NONCE {
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
    digits > 0 && digits * 20 >= run.len() || turns * 3 > run.len() || run.len() > LONGEST_WORD
}

/// Whether a segment of a path is a token. Words stand there in one case, or are short; to take a
/// long name for a token costs a confirmation, to take a token for a name costs it by chance.
fn is_token(segment: &str) -> bool {
    let has = |is: fn(&u8) -> bool| segment.as_bytes().iter().any(is);
    let name = segment.trim_end_matches(|it: char| it.is_ascii_digit());
    let is_version = segment.len() - name.len() <= 2
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || b"-_.".contains(&byte));
    is_random(segment) && !is_version
        || segment.len() >= SHORTEST_TOKEN
            && has(u8::is_ascii_lowercase)
            && has(u8::is_ascii_uppercase)
}

/// 96 bits in base64 (RFC 4648 §5).
const SHORTEST_TOKEN: usize = 16;

/// A shorter run cannot be told from a word or a number.
const SHORTEST_NONCE: usize = 6;

/// No word is longer.
const LONGEST_WORD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_a_path_is_no_name() {
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
    fn the_cost_of_a_page_grows_with_its_length_and_not_with_its_tags() {
        const SHORT: usize = 8 << 10;
        const TIMES: usize = 16;
        for tag in ["<>", "<aaaaa\u{e9}>", "<script></script>", "<style", "<"] {
            let cost = |pages: usize, bytes: usize| {
                let page = tag.repeat(bytes / tag.len());
                let before = cpu_time();
                (0..pages).for_each(|_| assert!(telling(&page).is_empty()));
                cpu_time() - before
            };
            let (many, one) = (cost(TIMES, SHORT), cost(1, SHORT * TIMES));
            // As many bytes; with work that grows with their square, it would be 16 times as much.
            // The kernel counts in ticks.
            let most = many * 4 + 20_000_000;
            assert!(one < most, "{tag}: {one} ns for one page, {many} ns for {TIMES}");
        }
    }

    #[test]
    fn words_in_tags_scripts_and_styles_are_not_read() {
        let page = "<P title='invalid'>Error<STYLE>.mismatch{}</style ><script>redirect()</SCRIPT>\
            callback<b>registered</b><script>whitelist";
        let expected = ["callback", "error", "registered"];
        assert_eq!(telling(page).into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(telling("mismatch<invalid").into_iter().collect::<Vec<_>>(), ["mismatch"]);
    }
}
