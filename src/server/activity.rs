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
    /// The last time that a request was answered, or began when none was being answered.
    progress: AtomicU64,
    /// Since when bytes of a request that is not whole yet have been arriving.
    arriving: AtomicU64,
    /// Since when the client has not been taking what is written.
    blocked: AtomicU64,
    /// Since when this side has been closed, and the client's has not.
    farewell: AtomicU64,
    /// Requests being answered.
    in_flight: AtomicU32,
    /// Those among them that have deadlines of their own.
    self_timed: AtomicU32,
    /// Requests that have arrived.
    requests: AtomicU32,
    /// The next answer is its last.
    last: AtomicBool,
    /// Somebody else needs the place.
    evicted: AtomicBool,
    /// Wakes the connection when what it has to do has changed: see [`Activity::is_evicted`] and
    /// [`Activity::due`].
    pub(super) wake: Notify,
}

/// How long a connection that was told to close may take to do so.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// When a connection has to act, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: Instant,
    /// `None`: everything was said, and the client takes its time to leave.
    pub(super) stage: Option<Deadline>,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            opened: Instant::now(),
            ready: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            arriving: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            farewell: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            self_timed: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            last: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            wake: Notify::new(),
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

    /// A request has arrived.
    pub(super) fn arrived(&self) {
        self.requests.fetch_add(1, Relaxed);
        self.arriving.store(0, Relaxed);
        // Further requests are no progress of those that nobody takes the answers of.
        if self.in_flight.load(Relaxed) == 0 {
            self.progress.store(self.now(), Relaxed);
        }
    }

    /// An answer began that takes time.
    pub(super) fn began(&self, self_timed: bool) {
        if self.in_flight.fetch_add(1, Relaxed) == 0 {
            self.progress.store(self.now(), Relaxed);
        }
        self.self_timed.fetch_add(u32::from(self_timed), Relaxed);
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

    /// This side is closed.
    pub(super) fn said_farewell(&self) {
        self.farewell.store(self.now(), Relaxed);
        self.wake.notify_one();
    }

    /// Whether nothing has been asked on this connection yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.requests.load(Relaxed) == 0
    }

    /// Makes the next answer the last. From here on its age has nothing more to say.
    pub(super) fn last_call(&self) {
        self.last.store(true, Relaxed);
    }

    pub(super) fn is_last(&self) -> bool {
        self.last.load(Relaxed)
    }

    /// Asks the connection to make room.
    pub(super) fn make_room(&self) {
        self.evicted.store(true, Relaxed);
        self.wake.notify_one();
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Relaxed)
    }

    /// Resolves when the connection was asked to make room.
    pub(super) async fn evicted(&self) {
        while !self.is_evicted() {
            self.wake.notified().await;
        }
    }

    /// Since when nothing has been going on; `None` while something is, or when it is leaving.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let busy = self.in_flight.load(Relaxed) > 0
            || self.is_evicted()
            || (self.arriving.load(Relaxed) > 0 && !self.is_fresh());
        (!busy).then(|| self.last_progress())
    }

    pub(super) fn state(&self) -> ConnectionState {
        if self.ready.load(Relaxed) == 0 {
            ConnectionState::Handshake
        } else if self.is_busy() {
            ConnectionState::Active
        } else {
            ConnectionState::Idle
        }
    }

    /// Whether a request is arriving or being answered.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Relaxed) > 0 || self.arriving.load(Relaxed) > 0
    }

    /// Whether there is nothing to do until the client sends something.
    pub(super) fn is_waiting(&self) -> bool {
        !self.is_busy() && self.blocked.load(Relaxed) == 0
    }

    /// When a request or its answer was last worked on.
    pub(super) fn last_progress(&self) -> Instant {
        self.at(self.progress.load(Relaxed))
    }

    /// The next deadline, as things stand; `None` while whoever works on it keeps its own.
    pub(super) fn due(&self, limits: &Limits) -> Option<Due> {
        let farewell = self.farewell.load(Relaxed);
        if farewell > 0 {
            return Some(Due { at: self.at(farewell) + FAREWELL, stage: None });
        }
        let age = (!self.is_last()).then(|| (self.opened + limits.connection_age, Deadline::Age));
        let blocked = self.blocked.load(Relaxed);
        let blocked =
            (blocked > 0).then(|| (self.at(blocked) + limits.request_timeout, Deadline::Response));
        let first =
            [age, blocked, self.stage_due(limits)].into_iter().flatten().min_by_key(|due| due.0);
        first.map(|(at, stage)| Due { at, stage: Some(stage) })
    }

    /// The deadline of what it is doing; `None` while that keeps its own.
    fn stage_due(&self, limits: &Limits) -> Option<(Instant, Deadline)> {
        let in_flight = self.in_flight.load(Relaxed);
        let arriving = self.arriving.load(Relaxed);
        let progress = self.progress.load(Relaxed);
        let (since, timeout, stage) = if in_flight > self.self_timed.load(Relaxed) {
            (progress, limits.request_timeout, Deadline::Response)
        } else if in_flight > 0 {
            return None;
        } else if self.is_fresh() {
            (self.ready.load(Relaxed), limits.request_timeout, Deadline::FirstRequest)
        } else if arriving > 0 {
            (arriving, limits.request_timeout, Deadline::Request)
        } else {
            (progress, limits.idle_timeout, Deadline::Idle)
        };
        Some((self.at(since) + timeout, stage))
    }

    fn at(&self, milliseconds: u64) -> Instant {
        self.opened + Duration::from_millis(milliseconds)
    }
}
