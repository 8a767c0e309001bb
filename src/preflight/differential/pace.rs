//! Manners: one question at a time to each host, a pause between two, a cap in all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};
use tokio::time::{Instant, sleep_until};

/// Whose turn it is, host by host.
#[derive(Debug)]
pub(super) struct Pace {
    pause: Duration,
    left: AtomicUsize,
    hosts: Mutex<HashMap<String, Arc<Turn<Host>>>>,
}

#[derive(Debug, Default)]
struct Host {
    /// When the last question to it had ended.
    last: Option<Instant>,
    /// Whether it asked to be left alone.
    closed: bool,
}

/// The right to ask one question now. The pause begins when it is dropped, so that it does also
/// behind a question that was given up half way.
#[derive(Debug)]
pub(super) struct Permit {
    host: OwnedMutexGuard<Host>,
}

/// Why nothing may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The host answered 429 before.
    Closed,
    /// The cap is reached.
    Cap,
}

impl Pace {
    pub(super) fn new(pause: Duration, cap: usize) -> Self {
        Self { pause, left: AtomicUsize::new(cap), hosts: Mutex::default() }
    }

    /// Waits for the host's turn. All ports of a host are one.
    pub(super) async fn turn(&self, host: &str) -> Result<Permit, Refusal> {
        let turn = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(hosts.entry(host.to_owned()).or_default())
        };
        let host = turn.lock_owned().await;
        if host.closed {
            return Err(Refusal::Closed);
        }
        // Nobody waits for what will be refused.
        if self.left.load(Ordering::Relaxed) == 0 {
            return Err(Refusal::Cap);
        }
        if let Some(last) = host.last {
            sleep_until(last + self.pause).await;
        }
        // Counted behind the wait: a question that is given up before was not asked.
        let one_less = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err() {
            return Err(Refusal::Cap);
        }
        Ok(Permit { host })
    }
}

impl Permit {
    /// Asks the host no more: also not those who wait for their turn already.
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

    /// How long until the host may be asked.
    async fn wait(pace: &Pace, host: &str) -> Result<Duration, Refusal> {
        let began = Instant::now();
        pace.turn(host).await.map(|_| began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_lies_between_the_end_of_a_question_and_the_next_to_its_host() {
        let pace = Pace::new(PAUSE, 10);
        let permit = pace.turn("a").await.unwrap();
        // A slow answer is no pause.
        advance(PAUSE * 3).await;
        drop(permit);
        assert_eq!(wait(&pace, "b").await, Ok(Duration::ZERO));
        assert_eq!(wait(&pace, "a").await, Ok(PAUSE));
        advance(PAUSE * 2).await;
        assert_eq!(wait(&pace, "a").await, Ok(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn one_question_at_a_time_goes_to_a_host() {
        let pace = Pace::new(PAUSE, 10);
        let permit = pace.turn("a").await.unwrap();
        assert!(timeout(PAUSE * 60, pace.turn("a")).await.is_err());
        drop(permit);
        assert!(pace.turn("a").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_host_that_closes_asks_it_no_more() {
        let pace = Pace::new(Duration::ZERO, 10);
        let mut permit = pace.turn("a").await.unwrap();
        let closes = async move {
            tokio::task::yield_now().await;
            permit.close();
        };
        let (waited, again, ()) = tokio::join!(pace.turn("a"), pace.turn("a"), closes);
        assert_eq!(waited.unwrap_err(), Refusal::Closed);
        assert_eq!(again.unwrap_err(), Refusal::Closed);
        assert!(pace.turn("b").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn behind_the_cap_nothing_is_asked_and_nobody_waits() {
        let pace = Pace::new(PAUSE, 2);
        let (first, second, third) = tokio::join!(wait(&pace, "a"), wait(&pace, "a"), async {
            // While the second waits, the third takes the last one.
            tokio::task::yield_now().await;
            wait(&pace, "b").await
        });
        assert_eq!((first, third), (Ok(Duration::ZERO), Ok(Duration::ZERO)));
        assert_eq!(second, Err(Refusal::Cap));
        let began = Instant::now();
        assert_eq!(wait(&pace, "a").await, Err(Refusal::Cap));
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(wait(&Pace::new(PAUSE, 0), "a").await, Err(Refusal::Cap));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_costs_nothing_and_the_pause_holds_all_the_same() {
        let pace = Pace::new(PAUSE, 2);
        drop(pace.turn("a").await);
        // Given up while it waits: neither the host nor the cap notices.
        assert!(timeout(PAUSE / 2, pace.turn("a")).await.is_err());
        assert_eq!(wait(&pace, "a").await, Ok(PAUSE / 2));
        // Given up while it is asked.
        let pace = Pace::new(PAUSE, 2);
        let asked = async {
            let _permit = pace.turn("a").await;
            std::future::pending::<()>().await;
        };
        assert!(timeout(PAUSE, asked).await.is_err());
        assert_eq!(wait(&pace, "a").await, Ok(PAUSE));
    }
}
