//! The text of replies, without what varies between them: nonces, request ids, times, and the redirect URIs
//! and states that were sent, in all encodings in which a reply may contain them.

use super::phrases::{CLEAR_ERROR_WORDS, ERROR_WORDS};
use data_encoding::BASE64;
use std::collections::BTreeSet;
use url::{Url, form_urlencoded};

/// A shorter value is more likely a word than base64.
pub(super) const MIN_BASE64: usize = 16;

/// The spellings in which a reply may contain the redirect URIs of a test and their parts.
#[derive(Debug)]
pub(super) struct Spellings(Vec<String>);

impl Spellings {
    pub(super) fn of(uris: &[&str]) -> Self {
        let mut all = Vec::new();
        for uri in uris {
            all.extend(spellings(uri));
            all.extend(spellings_of_parts(uri));
        }
        // The longest first, so that no remainder of a longer one stays.
        all.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        all.dedup();
        Self(all)
    }

    /// The text without the redirect URIs and this state, in any encoding.
    pub(super) fn removed_from(&self, text: &str, state: &str) -> String {
        let mut text = text.to_owned();
        let mut remove = |what: &str| {
            // Most spellings occur in no page.
            if (4..=text.len()).contains(&what.len())
                && memchr::memmem::find(text.as_bytes(), what.as_bytes()).is_some()
            {
                text = text.replace(what, " ");
            }
        };
        for spelling in self.0.iter().chain(&spellings(state)) {
            remove(spelling);
        }
        text
    }
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
pub(super) fn words(text: &str) -> BTreeSet<String> {
    text.split(|character: char| {
        character.is_whitespace() || "<>\"'=,;:(){}[]|&?#\\".contains(character)
    })
    .filter(|run| !is_random(run))
    .flat_map(|run| run.split(|character: char| !character.is_alphabetic()))
    .filter(|word| word.chars().count() > 1)
    .map(str::to_lowercase)
    .collect()
}

/// The words about redirects and errors in visible text. Attributes of many forms and captchas
/// contain such words.
pub(super) fn error_words(visible: &str) -> BTreeSet<String> {
    words(visible)
        .into_iter()
        .filter(|word| ERROR_WORDS.iter().chain(CLEAR_ERROR_WORDS).any(|it| word.contains(it)))
        .collect()
}

/// The text of a page without tags, scripts and styles, and its tags in lower case. In one pass: a
/// page may consist of tags.
pub(super) fn visible_text(text: &str) -> (String, String) {
    // Changes the case of ASCII only, so that positions are equal in both.
    let lower = text.to_ascii_lowercase();
    let after = |from: usize, end: &str| {
        let found = lower.get(from..).and_then(|rest| rest.find(end));
        found.map_or(lower.len(), |found| from + found + end.len())
    };
    let (mut visible, mut tags) = (String::new(), String::new());
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
        let end = after(at, ">");
        tags.push_str(lower.get(at..end).unwrap_or_default());
        at = end;
    }
    visible.push_str(text.get(at..).unwrap_or_default());
    (visible, tags)
}

/// Whether a run of characters is a nonce, an id or a time rather than text: digits between
/// letters, or letters of both cases without order.
pub(super) fn is_random(run: &str) -> bool {
    // Languages without spaces have long runs.
    if run.len() < MIN_NONCE_LENGTH || !run.is_ascii() {
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
pub(super) fn is_token(segment: &str) -> bool {
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
                (0..pages).for_each(|_| assert!(error_words(&visible_text(&page).0).is_empty()));
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
        assert_eq!(error_words(&visible_text(page).0).into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(
            error_words(&visible_text("mismatch<invalid").0).into_iter().collect::<Vec<_>>(),
            ["mismatch"]
        );
    }
}
