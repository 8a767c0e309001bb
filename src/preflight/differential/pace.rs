//! Manners: one question at a time to each host, a pause between two, a cap in all.

use std::collections::{HashMap, HashSet};
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
    hosts: Mutex<HashMap<String, Arc<Turn<Option<Instant>>>>>,
    /// Hosts that asked to be left alone.
    closed: Mutex<HashSet<String>>,
}

/// The right to ask one question now.
pub(super) struct Permit {
    last: OwnedMutexGuard<Option<Instant>>,
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
        Self {
            pause,
            left: AtomicUsize::new(cap),
            hosts: Mutex::default(),
            closed: Mutex::default(),
        }
    }

    /// Waits for the host's turn. All ports of a host are one.
    pub(super) async fn turn(&self, host: &str) -> Result<Permit, Refusal> {
        let turn = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(hosts.entry(host.to_owned()).or_default())
        };
        let last = turn.lock_owned().await;
        if self.closed.lock().unwrap_or_else(PoisonError::into_inner).contains(host) {
            return Err(Refusal::Closed);
        }
        let one_less = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err() {
            return Err(Refusal::Cap);
        }
        if let Some(last) = *last {
            sleep_until(last + self.pause).await;
        }
        Ok(Permit { last })
    }

    /// Asks the host no more.
    pub(super) fn close(&self, host: &str) {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned());
    }
}

impl Permit {
    /// The question has been asked; the pause begins.
    pub(super) fn asked(mut self) {
        *self.last = Some(Instant::now());
    }
}
