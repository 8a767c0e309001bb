//! Recognises the requests of the self-check, so that they do not count as requests of clients.
//!
//! Each has a token in a header field: the time, a nonce, and an HMAC over both with a secret of this
//! process, or with `self_check.probe_key_file`, which replicas share. A token is recognised once, within
//! [`VALIDITY`]. A request whose token is missing, forged, expired or used already is one of a client.
//! Recognition changes only how a request is counted and logged, never its response.

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use aws_lc_rs::rand;
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The header field of the token.
pub(super) static FIELD: HeaderName = HeaderName::from_static("x-callback-edge-probe");

/// How far the time in a token may differ from this machine's: a probe takes seconds, and the clocks of
/// replicas differ.
const VALIDITY: Duration = Duration::from_mins(1);

/// A token is valid before its time, too.
const REMEMBER: Duration = VALIDITY.saturating_mul(2);

/// The most tokens that are remembered; only holders of the key can add one. No further request is
/// recognised until some have expired.
const MAX_REMEMBERED: usize = 16 * 1024;

/// So that no HMAC that is made with a shared key for another purpose is a token.
const PURPOSE: &[u8] = b"callback-edge probe\0";

const TIME_BYTES: usize = 8;
const CONTENT_BYTES: usize = TIME_BYTES + 16;
const TOKEN_BYTES: usize = CONTENT_BYTES + 32;

/// Time and nonce.
type Content = [u8; CONTENT_BYTES];

/// Issues tokens and recognises them.
#[derive(Debug)]
pub(super) struct Probes {
    /// `None` when the system has no random bytes: then no request is marked or recognised.
    process_key: Option<Key>,
    seen: Mutex<HashMap<Content, Instant>>,
}

impl Probes {
    pub(super) fn new() -> Self {
        let process_key = Key::generate(HMAC_SHA256, &rand::SystemRandom::new()).ok();
        Self { process_key, seen: Mutex::default() }
    }

    /// A new token, by the shared key if there is one.
    pub(super) fn issue(&self, shared_key: Option<&Key>) -> Option<HeaderValue> {
        self.issue_at(shared_key, unix_seconds()?)
    }

    fn issue_at(&self, shared_key: Option<&Key>, time: u64) -> Option<HeaderValue> {
        let key = shared_key.or(self.process_key.as_ref())?;
        let mut nonce = [0; CONTENT_BYTES - TIME_BYTES];
        rand::fill(&mut nonce).ok()?;
        let content = [&time.to_be_bytes()[..], &nonce].concat();
        let tag = hmac::sign(key, &[PURPOSE, &content].concat());
        let token = BASE64URL_NOPAD.encode(&[&content, tag.as_ref()].concat());
        let mut value = HeaderValue::try_from(token).ok()?;
        // HTTP/2 then does not index it, and no debug output shows it.
        value.set_sensitive(true);
        Some(value)
    }

    /// Whether the request has a token that was not recognised before.
    pub(super) fn recognise(&self, shared_key: Option<&Key>, headers: &HeaderMap) -> bool {
        let Some(token) = headers.get(&FIELD) else { return false };
        unix_seconds()
            .is_some_and(|now| self.recognise_at(shared_key, token.as_bytes(), now, Instant::now()))
    }

    fn recognise_at(&self, shared_key: Option<&Key>, token: &[u8], now: u64, at: Instant) -> bool {
        let Some(key) = shared_key.or(self.process_key.as_ref()) else { return false };
        let Some((content, time)) = verify(key, token) else { return false };
        if now.abs_diff(time) > VALIDITY.as_secs() {
            return false;
        }
        // Nothing under the lock can leave the map inconsistent.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, seen_at| at.saturating_duration_since(*seen_at) <= REMEMBER);
        seen.len() < MAX_REMEMBERED && seen.insert(content, at).is_none()
    }
}

/// Content and time of a token that was issued with this key.
fn verify(key: &Key, token: &[u8]) -> Option<(Content, u64)> {
    // Before it is decoded: a client may send a long one.
    if token.len() != BASE64URL_NOPAD.encode_len(TOKEN_BYTES) {
        return None;
    }
    let token = BASE64URL_NOPAD.decode(token).ok()?;
    let (content, tag) = token.split_first_chunk::<CONTENT_BYTES>()?;
    // In constant time.
    hmac::verify(key, &[PURPOSE, content].concat(), tag).ok()?;
    let (time, _) = content.split_first_chunk::<TIME_BYTES>()?;
    Some((*content, u64::from_be_bytes(*time)))
}

fn unix_seconds() -> Option<u64> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000;

    fn shared(secret: &[u8]) -> Key {
        Key::new(HMAC_SHA256, secret)
    }

    fn token(probes: &Probes, key: Option<&Key>, time: u64) -> Vec<u8> {
        probes.issue_at(key, time).unwrap().as_bytes().to_vec()
    }

    #[test]
    fn a_token_is_recognised_once() {
        let (probes, at) = (Probes::new(), Instant::now());
        let first = token(&probes, None, NOW);
        assert!(probes.recognise_at(None, &first, NOW, at));
        assert!(!probes.recognise_at(None, &first, NOW, at));
        // As long as its time is valid.
        assert!(!probes.recognise_at(None, &first, NOW + 60, at + 2 * VALIDITY));
        assert!(probes.recognise_at(None, &token(&probes, None, NOW), NOW, at));
    }

    #[test]
    fn a_token_is_recognised_within_a_minute_of_its_time() {
        let (probes, at) = (Probes::new(), Instant::now());
        for (time, recognised) in [
            (NOW - 61, false),
            (NOW - 60, true),
            (NOW + 60, true),
            (NOW + 61, false),
            (0, false),
            (u64::MAX, false),
        ] {
            let token = token(&probes, None, time);
            assert_eq!(probes.recognise_at(None, &token, NOW, at), recognised, "{time}");
        }
    }

    #[test]
    fn no_other_key_and_no_changed_byte_is_recognised() {
        let (probes, other, at) = (Probes::new(), Probes::new(), Instant::now());
        let (one, two) = (shared(&[1; 32]), shared(&[2; 32]));
        let good = token(&probes, Some(&one), NOW);
        for key in [None, Some(&two)] {
            assert!(!probes.recognise_at(key, &good, NOW, at));
        }
        assert!(!probes.recognise_at(None, &token(&other, None, NOW), NOW, at));
        for position in 0..good.len() {
            let mut forged = good.clone();
            forged[position] = if forged[position] == b'A' { b'B' } else { b'A' };
            assert!(!probes.recognise_at(Some(&one), &forged, NOW, at), "{position}");
        }
        for bad in
            [&b""[..], b"AAAA", &[b'A'; 75], &[b'!'; 75], &good[..74], &[&good[..], b"A"].concat()]
        {
            assert!(!probes.recognise_at(Some(&one), bad, NOW, at));
        }
        // An HMAC without the purpose.
        let content = [&NOW.to_be_bytes()[..], &[7; 16]].concat();
        let tag = hmac::sign(&one, &content);
        let foreign = BASE64URL_NOPAD.encode(&[&content, tag.as_ref()].concat());
        assert!(!probes.recognise_at(Some(&one), foreign.as_bytes(), NOW, at));
        assert!(probes.recognise_at(Some(&one), &good, NOW, at));
        assert!(probes.seen.lock().unwrap().len() == 1, "only what is recognised is remembered");
        // A replica with the same key recognises it, too.
        assert!(other.recognise_at(Some(&one), &good, NOW, at));
    }

    #[test]
    fn remembered_tokens_are_limited_and_expire() {
        let (probes, at) = (Probes::new(), Instant::now());
        let mut all = probes.seen.lock().unwrap();
        for number in 0..MAX_REMEMBERED as u64 {
            let mut content = [0; CONTENT_BYTES];
            content[..8].copy_from_slice(&number.to_be_bytes());
            all.insert(content, at);
        }
        drop(all);
        let next = token(&probes, None, NOW);
        assert!(!probes.recognise_at(None, &next, NOW, at + REMEMBER));
        let later = at + REMEMBER + Duration::from_secs(1);
        assert!(probes.recognise_at(None, &next, NOW, later));
        assert_eq!(probes.seen.lock().unwrap().len(), 1);
    }

    #[test]
    fn no_output_for_debugging_shows_a_token() {
        let token = Probes::new().issue(None).unwrap();
        assert_eq!(format!("{token:?}"), "Sensitive");
    }
}
