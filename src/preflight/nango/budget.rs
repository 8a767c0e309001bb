//! Considerate use of Nango's rate limits. Both buckets belong to the whole account; end users who start
//! flows share the public one, so that an empty bucket would make their sign-ins fail.

use crate::outbound::Response;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep_until};

/// Which limit a request counts towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bucket {
    /// Requests with an API key.
    Api,
    /// Starts of flows and other public routes.
    Public,
}

/// When the next request may be sent, for each bucket.
#[derive(Debug, Default)]
pub(super) struct Budget {
    next: Mutex<[Option<Instant>; 2]>,
}

/// The longest window of a limit.
const MAX_WAIT: Duration = Duration::from_secs(70);

/// The wait without a header that contains one: a complete window.
const WINDOW: Duration = Duration::from_mins(1);

/// Nango rounds times down to seconds.
const ROUNDING: Duration = Duration::from_secs(1);

impl Budget {
    /// Waits until a request leaves at least half of the budget to others.
    pub(super) async fn wait(&self, bucket: Bucket) {
        let next = {
            let all = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(bucket as usize).copied().flatten()
        };
        if let Some(next) = next {
            sleep_until(next).await;
        }
    }

    /// Reads the limits in a response.
    pub(super) fn record(&self, bucket: Bucket, response: &Response) {
        let wait = Self::wait_after(response, SystemTime::now());
        let mut all = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = all.get_mut(bucket as usize) {
            *slot = wait.map(|wait| Instant::now() + wait);
        }
    }

    /// Whether the wait of a 429 is short enough.
    pub(super) fn is_soon(response: &Response) -> bool {
        response.retry_after().is_none_or(|seconds| seconds < MAX_WAIT.as_secs())
    }

    /// How long to wait after a response; `None` when more than half of the budget is left.
    fn wait_after(response: &Response, now: SystemTime) -> Option<Duration> {
        let number = |name: &str| {
            let value = response.headers.get(name)?.to_str().ok()?;
            value.trim().parse::<u64>().ok()
        };
        if response.status == http::StatusCode::TOO_MANY_REQUESTS {
            let wait = response.retry_after().map_or(WINDOW, Duration::from_secs);
            return Some((wait + ROUNDING).min(MAX_WAIT));
        }
        let (remaining, limit) = (number("x-ratelimit-remaining")?, number("x-ratelimit-limit")?);
        if remaining > limit / 2 {
            return None;
        }
        // Seconds since 1970 by Nango's clock, rounded down: just past when the window ends within a
        // second. A clock that differs more must not stop the preflight.
        let reset = number("x-ratelimit-reset").and_then(|reset| {
            let reset = UNIX_EPOCH.checked_add(Duration::from_secs(reset))?;
            match reset.duration_since(now) {
                Ok(wait) => Some(wait),
                Err(past) => (past.duration() <= ROUNDING * 2).then_some(Duration::ZERO),
            }
        });
        Some((reset.unwrap_or(WINDOW) + ROUNDING).min(MAX_WAIT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::Protocol;
    use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

    fn response(status: u16, headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| {
            (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
        });
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect::<HeaderMap>(),
            body: bytes::Bytes::new(),
            whole: true,
            protocol: Protocol::Http1,
            head_time: Duration::ZERO,
        }
    }

    #[test]
    fn half_of_the_budget_is_left_to_others() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let wait = |status, headers: &[(&str, &str)]| {
            Budget::wait_after(&response(status, headers), now).map(|wait| wait.as_secs())
        };
        let left = |remaining, reset| {
            wait(
                200,
                &[
                    ("x-ratelimit-limit", "200"),
                    ("x-ratelimit-remaining", remaining),
                    ("x-ratelimit-reset", reset),
                ],
            )
        };
        assert_eq!(left("101", "1030"), None);
        assert_eq!(left("100", "1030"), Some(31));
        for ends_now in ["1000", "999", "998"] {
            assert_eq!(left("0", ends_now), Some(1), "{ends_now}");
        }
        // A clock that differs: not longer than a window.
        assert_eq!(left("0", "900"), Some(61));
        assert_eq!(left("0", "99999999"), Some(70));
        assert_eq!(left("x", "1030"), None);
        assert_eq!(wait(200, &[]), None);
        assert_eq!(
            wait(200, &[("x-ratelimit-limit", "2"), ("x-ratelimit-remaining", "0")]),
            Some(61)
        );
        // `Retry-After` is rounded down: 0 in the last second.
        assert_eq!(wait(429, &[("retry-after", "0")]), Some(1));
        assert_eq!(wait(429, &[("retry-after", "12")]), Some(13));
        assert_eq!(wait(429, &[]), Some(61));
    }
}
