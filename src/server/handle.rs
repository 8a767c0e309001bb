//! What a connection shares with its protocol, its service and the slot table.

use super::state::{Action, Event, Lifecycle, Stage};
use crate::config::Limits;
use crate::observe::{ConnectionState, Deadline};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The state of one connection, with the clock. All events come from the connection's own task,
/// so that only the slot table contends for the lock.
#[derive(Debug)]
pub(super) struct Handle {
    lifecycle: Mutex<Lifecycle>,
    evicted: AtomicBool,
    /// Set before `wake` notifies, so that the driver need not poll it to know that it has not.
    signalled: AtomicBool,
    wake: Notify,
}

/// What the driver needs to know after it has polled the protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) requests: u32,
    pub(super) takes_turns: bool,
    pub(super) deadline: Instant,
}

impl Handle {
    /// A connection that is accepted now.
    pub(super) fn new() -> Self {
        Self {
            lifecycle: Mutex::new(Lifecycle::new(Instant::now())),
            evicted: AtomicBool::new(false),
            signalled: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Reports an event that happens now.
    pub(super) fn on(&self, event: Event) -> Action {
        self.on_at(event, Instant::now())
    }

    /// Reports an event that happened at this time.
    pub(super) fn on_at(&self, event: Event, at: Instant) -> Action {
        self.lock().on(event, at)
    }

    /// Does what is due. Also returns the deadline that expired, if one did.
    pub(super) fn on_timer(&self, limits: &Limits) -> (Action, Option<Deadline>) {
        self.lock().on_timer(Instant::now(), limits)
    }

    /// When something is due next.
    pub(super) fn deadline(&self, limits: &Limits) -> Instant {
        self.lock().deadline(limits)
    }

    /// What the connection has used, and when something is due next.
    pub(super) fn usage(&self, limits: &Limits) -> Usage {
        let lifecycle = self.lock();
        Usage {
            requests: lifecycle.requests(),
            takes_turns: lifecycle.takes_turns(),
            deadline: lifecycle.deadline(limits),
        }
    }

    /// Reports that a response was handed over. Returns whether it has to announce that it is the
    /// last.
    pub(super) fn responded(&self, ends: bool, at: Instant) -> bool {
        self.lock().responded(ends, at)
    }

    /// How long ago the connection was accepted.
    pub(super) fn age(&self) -> Duration {
        self.lock().age(Instant::now())
    }

    /// Whether a request is arriving or has no complete response.
    pub(super) fn is_busy(&self) -> bool {
        self.lock().is_busy()
    }

    /// What `/metrics` shows.
    pub(super) fn state(&self) -> ConnectionState {
        self.lock().state()
    }

    /// The stage, and since when it has made no progress in it.
    pub(super) fn progress(&self) -> (Stage, Instant) {
        self.lock().progress()
    }

    /// Ends the connection, since another one needs its slot.
    pub(super) fn evict(&self) {
        self.evicted.store(true, Relaxed);
        self.wake();
    }

    /// Ends the connection even if its client does not take what the protocol still writes. A handshake fails by
    /// itself, and is counted.
    pub(super) fn close_at_once(&self) {
        if self.progress().0 >= Stage::AwaitingRequest {
            self.evict();
        }
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Relaxed)
    }

    /// Makes the connection check its deadlines, which may have changed.
    pub(super) fn wake(&self) {
        self.signalled.store(true, Relaxed);
        self.wake.notify_one();
    }

    /// Whether [`Handle::woken`] may resolve.
    pub(super) fn is_signalled(&self) -> bool {
        self.signalled.load(Relaxed)
    }

    /// Resolves when the connection was evicted or its deadlines may have changed.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
        self.signalled.store(false, Relaxed);
    }

    /// Resolves when the connection was evicted.
    pub(super) async fn evicted(&self) {
        while !self.is_evicted() {
            self.woken().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lifecycle> {
        // A transition cannot panic half-way.
        self.lifecycle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
