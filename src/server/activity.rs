use crate::config::Limits;
use crate::observe::{ConnectionState, Deadline};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What one connection is doing, written by whoever does it and read by whoever enforces
/// deadlines. Times are milliseconds since the connection was accepted; 0 means "not".
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    /// When the connection became ready for requests; 0 during the handshake.
    ready: AtomicU64,
    /// The last time that a request began or was answered.
    progress: AtomicU64,
    /// Since when bytes of a request that is not whole yet have been arriving.
    arriving: AtomicU64,
    /// Since when the client has not been taking what is written.
    blocked: AtomicU64,
    /// Requests being answered.
    in_flight: AtomicU32,
    /// Those among them that have deadlines of their own.
    self_timed: AtomicU32,
    /// Requests that have arrived.
    requests: AtomicU32,
    /// Everything is answered; what remains is to close.
    closing: AtomicBool,
    /// Somebody else needs the place.
    evicted: AtomicBool,
    /// Wakes the connection when `evicted` was set.
    pub(super) evict: Notify,
}

/// When a connection has to act, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: Instant,
    pub(super) stage: Deadline,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            opened: Instant::now(),
            ready: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            arriving: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            self_timed: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            closing: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            evict: Notify::new(),
        }
    }

    fn now(&self) -> u64 {
        // Never 0, which means "not".
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// The handshake is over.
    pub(super) fn became_ready(&self) {
        let now = self.now();
        self.progress.store(now, Relaxed);
        self.ready.store(now, Relaxed);
    }

    /// Bytes came in, and no request was being answered.
    pub(super) fn bytes_arrived(&self) {
        if self.in_flight.load(Relaxed) == 0 && self.arriving.load(Relaxed) == 0 {
            self.arriving.store(self.now(), Relaxed);
        }
    }

    /// A request has arrived and was answered at once.
    pub(super) fn answered(&self) {
        self.requests.fetch_add(1, Relaxed);
        self.arriving.store(0, Relaxed);
        self.progress.store(self.now(), Relaxed);
    }

    /// A request has arrived whose answer takes time.
    pub(super) fn began(&self, self_timed: bool) {
        self.in_flight.fetch_add(1, Relaxed);
        self.self_timed.fetch_add(u32::from(self_timed), Relaxed);
        self.answered();
    }

    /// That answer is complete, or nobody waits for it any more.
    pub(super) fn ended(&self, self_timed: bool) {
        self.progress.store(self.now(), Relaxed);
        self.self_timed.fetch_sub(u32::from(self_timed), Relaxed);
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// The client does not take what is written.
    pub(super) fn write_blocked(&self) {
        if self.blocked.load(Relaxed) == 0 {
            self.blocked.store(self.now(), Relaxed);
        }
    }

    /// The client took something.
    pub(super) fn write_went_on(&self) {
        if self.blocked.load(Relaxed) != 0 {
            self.blocked.store(0, Relaxed);
        }
    }

    /// All is written, and the connection closes.
    pub(super) fn closes(&self) {
        self.closing.store(true, Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Whether nothing has been asked on this connection yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.requests.load(Relaxed) == 0
    }

    /// Asks the connection to make room.
    pub(super) fn make_room(&self) {
        self.evicted.store(true, Relaxed);
        self.evict.notify_one();
    }

    /// Since when nothing has been going on; `None` while something is, or when it is leaving.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let busy = self.in_flight.load(Relaxed) > 0
            || self.evicted.load(Relaxed)
            || (self.arriving.load(Relaxed) > 0 && !self.is_fresh());
        (!busy).then(|| self.at(self.progress.load(Relaxed)))
    }

    pub(super) fn state(&self) -> ConnectionState {
        if self.ready.load(Relaxed) == 0 {
            ConnectionState::Handshake
        } else if self.in_flight.load(Relaxed) > 0 || self.arriving.load(Relaxed) > 0 {
            ConnectionState::Active
        } else {
            ConnectionState::Idle
        }
    }

    /// The next deadline, as things stand.
    pub(super) fn due(&self, limits: &Limits) -> Due {
        let age = Due { at: self.opened + limits.connection_age, stage: Deadline::Age };
        let blocked = self.blocked.load(Relaxed);
        let arriving = self.arriving.load(Relaxed);
        let in_flight = self.in_flight.load(Relaxed);
        let (since, timeout, stage) = if blocked > 0 {
            (blocked, limits.request_timeout, Deadline::Response)
        } else if in_flight > self.self_timed.load(Relaxed) {
            (self.progress.load(Relaxed), limits.request_timeout, Deadline::Response)
        } else if in_flight > 0 {
            return age;
        } else if self.is_fresh() {
            (self.ready.load(Relaxed), limits.request_timeout, Deadline::FirstRequest)
        } else if arriving > 0 {
            (arriving, limits.request_timeout, Deadline::Request)
        } else {
            (self.progress.load(Relaxed), limits.idle_timeout, Deadline::Idle)
        };
        let due = Due { at: self.at(since) + timeout, stage };
        if due.at <= age.at { due } else { age }
    }

    fn at(&self, milliseconds: u64) -> Instant {
        self.opened + Duration::from_millis(milliseconds)
    }
}
