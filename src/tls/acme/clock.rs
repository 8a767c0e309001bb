//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// The current time, in Unix seconds.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A time in RFC 3339 notation.
pub(super) fn timestamp(seconds: u64) -> jiff::Timestamp {
    let seconds = i64::try_from(seconds).unwrap_or_default();
    jiff::Timestamp::from_second(seconds).unwrap_or_default()
}
