//! Rate limits: one probe at a time to each host, a pause between two, a maximum number in all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep_until};

/// Grants permits for probes, per host.
#[derive(Debug)]
pub(super) struct RateLimiter {
    pause: Duration,
    left: AtomicUsize,
    hosts: Mutex<HashMap<String, Arc<AsyncMutex<Host>>>>,
}

#[derive(Debug, Default)]
struct Host {
    /// The end of the last probe.
    last: Option<Instant>,
    /// Whether it responded 429.
    closed: bool,
}

/// Permits one probe now. The pause starts when it is dropped, so that it also follows a cancelled
/// probe.
#[derive(Debug)]
pub(super) struct Permit {
    host: OwnedMutexGuard<Host>,
}

/// Why a probe is not permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The host responded 429 before.
    Closed,
    /// The maximum number of probes is reached.
    Cap,
}

impl RateLimiter {
    pub(super) fn new(pause: Duration, cap: usize) -> Self {
        Self { pause, left: AtomicUsize::new(cap), hosts: Mutex::default() }
    }

    /// Waits for a permit. All ports of a host share one.
    pub(super) async fn acquire(&self, host: &str) -> Result<Permit, Refusal> {
        let host = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(hosts.entry(host.to_owned()).or_default())
        };
        let host = host.lock_owned().await;
        if host.closed {
            return Err(Refusal::Closed);
        }
        // Do not wait for a refusal.
        if self.left.load(Ordering::Relaxed) == 0 {
            return Err(Refusal::Cap);
        }
        if let Some(last) = host.last {
            sleep_until(last + self.pause).await;
        }
        // Counted after the wait: a probe that is cancelled before was not sent.
        let one_less = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err() {
            return Err(Refusal::Cap);
        }
        Ok(Permit { host })
    }
}

impl Permit {
    /// Refuses all further probes of the host, including those that wait.
    pub(super) fn close(&mut self) {
        self.host.closed = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.host.last = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{advance, timeout};

    const PAUSE: Duration = Duration::from_secs(1);

    /// The time until a permit.
    async fn wait(rate_limiter: &RateLimiter, host: &str) -> Result<Duration, Refusal> {
        let began = Instant::now();
        rate_limiter.acquire(host).await.map(|_| began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_follows_the_end_of_each_probe_of_a_host() {
        let rate_limiter = RateLimiter::new(PAUSE, 10);
        let permit = rate_limiter.acquire("a").await.unwrap();
        // A slow reply is not a pause.
        advance(PAUSE * 3).await;
        drop(permit);
        assert_eq!(wait(&rate_limiter, "b").await, Ok(Duration::ZERO));
        assert_eq!(wait(&rate_limiter, "a").await, Ok(PAUSE));
        advance(PAUSE * 2).await;
        assert_eq!(wait(&rate_limiter, "a").await, Ok(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn each_host_gets_one_probe_at_a_time() {
        let rate_limiter = RateLimiter::new(PAUSE, 10);
        let permit = rate_limiter.acquire("a").await.unwrap();
        assert!(timeout(PAUSE * 60, rate_limiter.acquire("a")).await.is_err());
        drop(permit);
        assert!(rate_limiter.acquire("a").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn probes_that_wait_for_a_closed_host_are_refused() {
        let rate_limiter = RateLimiter::new(Duration::ZERO, 10);
        let mut permit = rate_limiter.acquire("a").await.unwrap();
        let closes = async move {
            tokio::task::yield_now().await;
            permit.close();
        };
        let (waited, again, ()) =
            tokio::join!(rate_limiter.acquire("a"), rate_limiter.acquire("a"), closes);
        assert_eq!(waited.unwrap_err(), Refusal::Closed);
        assert_eq!(again.unwrap_err(), Refusal::Closed);
        assert!(rate_limiter.acquire("b").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn probes_over_the_maximum_are_refused_at_once() {
        let rate_limiter = RateLimiter::new(PAUSE, 2);
        let (first, second, third) =
            tokio::join!(wait(&rate_limiter, "a"), wait(&rate_limiter, "a"), async {
                // While the second waits, the third takes the last one.
                tokio::task::yield_now().await;
                wait(&rate_limiter, "b").await
            });
        assert_eq!((first, third), (Ok(Duration::ZERO), Ok(Duration::ZERO)));
        assert_eq!(second, Err(Refusal::Cap));
        let began = Instant::now();
        assert_eq!(wait(&rate_limiter, "a").await, Err(Refusal::Cap));
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(wait(&RateLimiter::new(PAUSE, 0), "a").await, Err(Refusal::Cap));
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_probes_do_not_count_but_are_followed_by_a_pause() {
        let rate_limiter = RateLimiter::new(PAUSE, 2);
        drop(rate_limiter.acquire("a").await);
        // Cancelled while it waits: neither the host nor the maximum is affected.
        assert!(timeout(PAUSE / 2, rate_limiter.acquire("a")).await.is_err());
        assert_eq!(wait(&rate_limiter, "a").await, Ok(PAUSE / 2));
        // Cancelled while it is sent.
        let rate_limiter = RateLimiter::new(PAUSE, 2);
        let probe = async {
            let _permit = rate_limiter.acquire("a").await;
            std::future::pending::<()>().await;
        };
        assert!(timeout(PAUSE, probe).await.is_err());
        assert_eq!(wait(&rate_limiter, "a").await, Ok(PAUSE));
    }
}
