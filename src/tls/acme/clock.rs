//! The clock on the wall.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time, in Unix seconds.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A time as people and programs read it.
pub(super) fn moment(seconds: u64) -> jiff::Timestamp {
    let seconds = i64::try_from(seconds).unwrap_or_default();
    jiff::Timestamp::from_second(seconds).unwrap_or_default()
}
