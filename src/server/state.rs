//! The lifecycle of a connection as one explicit state. No I/O, no clock and no atomics: it takes events
//! with their time, and returns what to do.
//!
//! ```text
//!   accept ──► ProxyHeader ──► Handshake ──► AwaitingRequest      (the first two only where needed)
//!                                                  │ bytes
//!                                                  ▼
//!         ┌─────────────────────────────────► ReadingHead ◄─────────────┬────────────────┐
//!         │ more is in the buffer                  │ request            │ bytes          │ bytes
//!         │                                        ▼                    │                │
//!         └─────────────────────────────────── Responding ──────────► Idle ──────► Hibernating
//!                                                  │        response         250 ms
//!                                                  │ last response
//!                                                  ▼
//!   idle_timeout, end of a drain ──────────────► Closing ──► Lingering ──► Closed
//! ```
//!
//! Reading a form body and running a self-check are part of `Responding`; each has a deadline of its
//! own. Draining is not a state: for [`DRAIN_WINDOW`] requests are accepted as before, and the next
//! response announces that it is the last. Then a connection that waits for a request closes, and one
//! that is busy has the grace period to finish. Any other deadline, and an eviction, leads to `Closed`
//! at once.
//!
//! HTTP/2 has no `ReadingHead`, since bytes of a stream do not show a head there, and does not hibernate.
//!
//! Invariants, checked by property tests:
//!
//! - No request is accepted after the last response, in `Lingering` or in `Closed`.
//! - Every state has a deadline, and deadlines end every connection even without events.
//! - `Idle` and `Hibernating` mean that no byte of a further request has been read.
//! - A connection hibernates only from `Idle`, with nothing buffered.

use crate::config::Limits;
use crate::observe::{ConnectionState, Deadline};
use std::time::{Duration, Instant};

/// How long a connection keeps its buffers for a request that may follow.
pub(super) const HIBERNATE_AFTER: Duration = Duration::from_millis(250);

/// How long a connection that drains accepts requests: what its client sent before it could know gets a
/// response, which announces that it is the last.
const DRAIN_WINDOW: Duration = Duration::from_secs(2);

/// How long the client may take to close its side after this side is closed (RFC 9112 §9.6).
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// A head or a form that is still arriving after this long must arrive at [`MINIMUM_RATE`] or
/// faster, or it ends before `limits.request_timeout` does.
pub(super) const SLOW_START: Duration = Duration::from_secs(5);

/// Bytes per second of a head or a form, on average. What an attacker must spend to hold a
/// connection; far below any mobile network.
const MINIMUM_RATE: u32 = 500;

/// What the forms of one connection may hold while their bodies are awaited: queries and announced
/// bodies, in bytes. HTTP/1 has one form at a time, which may be larger. A form of a provider is 1 to
/// 4 KiB.
const PENDING_FORM_BYTES: usize = 96 * 1024;

/// After so many requests, a connection ends like an old one. No browser sends so many, and proxies open
/// another connection.
const REQUESTS: u32 = 10_000;

/// How often a connection may send a request without [taking turns](super::turns), and how many requests
/// it may send at once. Browsers have one or two for a callback.
const FREE_INTERVAL: Duration = Duration::from_millis(20);
const FREE_AT_ONCE: u32 = 8;

/// Self-checks that one connection may await at the same time.
const PENDING_SELF_CHECKS: u32 = 2;

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Waits for the PROXY header.
    ProxyHeader,
    /// Waits for the TLS handshake.
    Handshake,
    /// Waits for the first byte of its first request.
    AwaitingRequest,
    /// A part of a request head has arrived (HTTP/1).
    ReadingHead,
    /// At least one request has no complete response.
    Responding,
    /// Waits for a further request.
    Idle,
    /// The same, without buffers (HTTP/1).
    Hibernating,
    /// The last response is being written, or the protocol closes.
    Closing,
    /// This side is closed; what still arrives is discarded.
    Lingering,
    /// It is over.
    Closed,
}

/// Something that happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A PROXY header is expected.
    ProxyHeaderExpected,
    /// The PROXY header is complete.
    ProxyHeaderRead,
    /// The TLS handshake is complete, or there is none. HTTP/2 is `multiplexed`.
    Ready { multiplexed: bool },
    /// HTTP/1: bytes arrived. `heads` request heads became complete with them, and `partial` bytes
    /// of a further one are there.
    Read { heads: u32, partial: usize },
    /// The client may be a proxy, which keeps connections for others.
    FromProxy,
    /// A request head was parsed.
    Request,
    /// Its response needs work that has a deadline of its own.
    Pending(Pending),
    /// That work is done.
    Completed(Pending),
    /// The response has a body to be taken.
    BodyStarted,
    /// The body was taken, or is not awaited any more.
    BodyTaken,
    /// The response was handed over. HTTP/1: `last` when it announces that the connection ends.
    Responded { last: bool },
    /// The client does not take what is written.
    WriteStalled,
    /// The client has taken everything.
    WriteFlushed,
    /// The protocol closes this side.
    ShutdownStarted,
    /// This side is closed.
    ShutdownSent,
    /// The listener closes; responses have this long.
    Drain { grace: Duration },
    /// Another connection needs the slot.
    Evict,
}

/// Work on a response that has a deadline of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    /// The body of a form is awaited; query and announced body have so many bytes.
    Form { bytes: usize },
    /// The result of a self-check is awaited.
    SelfCheck,
}

/// What the driver has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing.
    Continue,
    /// Give the buffers back.
    Hibernate,
    /// Announce that no further request is accepted, where the protocol can (HTTP/2: GOAWAY).
    AnnounceLast,
    /// Close the protocol in order.
    Shutdown,
    /// Drop the connection.
    Drop,
    /// Discard the bytes that were read: no request may follow.
    Discard,
    /// Refuse the request: the connection awaits too many already.
    Refuse,
}

/// The state of one connection.
#[derive(Clone, Debug)]
pub(super) struct Lifecycle {
    opened: Instant,
    stage: Stage,
    /// Since when it is in this stage. In `Responding`: the last progress.
    since: Instant,
    /// HTTP/2.
    multiplexed: bool,
    /// Whether `limits.proxy_idle_timeout` applies.
    from_proxy: bool,
    /// Requests so far.
    requests: u32,
    /// Requests since `counted_since`, at most [`FREE_AT_ONCE`].
    counted: u32,
    counted_since: Instant,
    /// Whether the last [`FREE_AT_ONCE`] requests that were counted came faster than one in each
    /// [`FREE_INTERVAL`].
    takes_turns: bool,
    /// Requests without a complete response.
    in_flight: u32,
    forms: u32,
    form_bytes: usize,
    self_checks: u32,
    /// HTTP/1: what was read and not parsed yet.
    unparsed: Unparsed,
    /// Since when the client has not been taking what is written.
    stalled: Option<Instant>,
    /// Set when the listener closes or the connection is old.
    drain: Option<Drain>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Unparsed {
    heads: u32,
    partial: usize,
}

#[derive(Clone, Copy, Debug)]
struct Drain {
    /// A waiting connection closes then.
    window_ends: Instant,
    /// A busy one is dropped then.
    ends: Instant,
    /// In place of [`LINGER_TIMEOUT`], so that it fits into the grace period.
    linger: Duration,
}

/// Why the driver has to act at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Expired(Deadline),
    Hibernate,
    /// It has sent as many requests as it may.
    Requests,
    DrainWindow,
    CloseTimeout,
}

impl Lifecycle {
    /// A connection that was accepted at this time.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            opened: now,
            stage: Stage::Handshake,
            since: now,
            multiplexed: false,
            from_proxy: false,
            requests: 0,
            counted: 0,
            counted_since: now,
            takes_turns: false,
            in_flight: 0,
            forms: 0,
            form_bytes: 0,
            self_checks: 0,
            unparsed: Unparsed::default(),
            stalled: None,
            drain: None,
        }
    }

    /// Takes an event at the time at which it happened.
    pub(super) fn on(&mut self, event: Event, now: Instant) -> Action {
        match event {
            Event::ProxyHeaderExpected => self.enter(Stage::ProxyHeader, now),
            Event::ProxyHeaderRead => self.enter(Stage::Handshake, now),
            Event::Ready { multiplexed } => {
                self.multiplexed = multiplexed;
                self.enter(Stage::AwaitingRequest, now);
            }
            Event::FromProxy => self.from_proxy = true,
            Event::Read { heads, partial } => return self.read(heads, partial, now),
            Event::Request => return self.request(now),
            Event::Pending(pending) => return self.pending(pending),
            Event::Completed(Pending::Form { bytes }) => {
                self.forms = self.forms.saturating_sub(1);
                self.form_bytes = self.form_bytes.saturating_sub(bytes);
                self.since = now;
            }
            Event::Completed(Pending::SelfCheck) => {
                self.self_checks = self.self_checks.saturating_sub(1);
                self.since = now;
            }
            Event::BodyStarted => self.in_flight += 1,
            Event::BodyTaken => {
                self.since = now;
                self.finish_one(now);
            }
            Event::Responded { last } => {
                self.finish_one(now);
                if last && self.stage < Stage::Closing {
                    self.enter(Stage::Closing, now);
                }
            }
            Event::WriteStalled => self.stalled = self.stalled.or(Some(now)),
            Event::WriteFlushed => self.stalled = None,
            Event::ShutdownStarted => {
                if self.stage < Stage::Closing {
                    self.enter(Stage::Closing, now);
                }
            }
            Event::ShutdownSent => self.enter(Stage::Lingering, now),
            Event::Drain { grace } => return self.start_drain(grace, now),
            Event::Evict => {
                self.enter(Stage::Closed, now);
                return Action::Drop;
            }
        }
        Action::Continue
    }

    /// Does what is due. Also returns the deadline that expired, if one did.
    pub(super) fn on_timer(&mut self, now: Instant, limits: &Limits) -> (Action, Option<Deadline>) {
        let (at, due) = self.next(limits);
        if at > now {
            return (Action::Continue, None);
        }
        match due {
            Due::Hibernate => {
                self.stage = Stage::Hibernating;
                (Action::Hibernate, None)
            }
            Due::Expired(Deadline::Idle) => {
                self.enter(Stage::Closing, now);
                (Action::Shutdown, Some(Deadline::Idle))
            }
            Due::Expired(Deadline::Age) => {
                (self.start_drain(limits.request_timeout, now), Some(Deadline::Age))
            }
            Due::Expired(deadline) => {
                self.enter(Stage::Closed, now);
                (Action::Drop, Some(deadline))
            }
            Due::Requests => (self.start_drain(limits.request_timeout, now), None),
            Due::DrainWindow => {
                self.enter(Stage::Closing, now);
                (Action::Shutdown, None)
            }
            Due::CloseTimeout => {
                self.enter(Stage::Closed, now);
                (Action::Drop, None)
            }
        }
    }

    /// When to call [`Lifecycle::on_timer`] again, if nothing happens before.
    pub(super) fn deadline(&self, limits: &Limits) -> Instant {
        self.next(limits).0
    }

    /// A response was handed over, after which the connection `ends` as far as HTTP/1 is concerned.
    /// Returns whether the response has to announce that it is the last.
    pub(super) fn responded(&mut self, ends: bool, now: Instant) -> bool {
        let last = !self.multiplexed && (ends || self.is_draining());
        self.on(Event::Responded { last }, now);
        last
    }

    /// Whether the next response has to announce that it is the last (HTTP/1).
    fn is_draining(&self) -> bool {
        self.drain.is_some() || self.stage >= Stage::Closing
    }

    /// What `/metrics` shows.
    pub(super) fn state(&self) -> ConnectionState {
        match self.stage {
            Stage::ProxyHeader | Stage::Handshake => ConnectionState::Handshake,
            _ if self.is_busy() => ConnectionState::Active,
            _ => ConnectionState::Idle,
        }
    }

    /// The stage, and since when it has made no progress in it.
    pub(super) fn progress(&self) -> (Stage, Instant) {
        (self.stage, self.since)
    }

    /// How many requests it has sent.
    pub(super) fn requests(&self) -> u32 {
        self.requests
    }

    /// Whether it sends so many requests that it has to take turns with others of this kind.
    pub(super) fn takes_turns(&self) -> bool {
        self.takes_turns
    }

    /// How long ago the connection was accepted.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened)
    }

    fn enter(&mut self, stage: Stage, now: Instant) {
        // No stage follows an earlier one again once the connection closes.
        if stage >= self.stage || self.stage < Stage::Closing {
            self.stage = stage;
            self.since = now;
        }
    }

    fn read(&mut self, heads: u32, partial: usize, now: Instant) -> Action {
        self.unparsed.heads += heads;
        self.unparsed.partial = partial;
        match self.stage {
            Stage::AwaitingRequest | Stage::Idle | Stage::Hibernating => {
                self.enter(Stage::ReadingHead, now);
                Action::Continue
            }
            Stage::Closing | Stage::Lingering | Stage::Closed => Action::Discard,
            _ => Action::Continue,
        }
    }

    fn request(&mut self, now: Instant) -> Action {
        // A client over HTTP/2 may send requests until it has read GOAWAY (RFC 9113 §6.8).
        if self.stage >= Stage::Lingering || (self.stage == Stage::Closing && !self.multiplexed) {
            return Action::Refuse;
        }
        self.requests += 1;
        if self.counted == FREE_AT_ONCE {
            self.takes_turns = now < self.counted_since + FREE_INTERVAL * FREE_AT_ONCE;
            self.counted_since = now;
            self.counted = 0;
        }
        self.counted += 1;
        self.unparsed.heads = self.unparsed.heads.saturating_sub(1);
        // Further requests are no progress of those whose responses are not taken.
        if self.in_flight == 0 {
            self.enter(Stage::Responding, now);
        }
        self.in_flight += 1;
        Action::Continue
    }

    fn pending(&mut self, pending: Pending) -> Action {
        match pending {
            Pending::Form { bytes } => {
                let sum = self.form_bytes.saturating_add(bytes);
                if self.forms > 0 && sum > PENDING_FORM_BYTES {
                    return Action::Refuse;
                }
                self.forms += 1;
                self.form_bytes = sum;
            }
            Pending::SelfCheck => {
                if self.self_checks >= PENDING_SELF_CHECKS {
                    return Action::Refuse;
                }
                self.self_checks += 1;
            }
        }
        Action::Continue
    }

    /// A response was handed over, or its body was taken. The former alone is no progress of the
    /// client.
    fn finish_one(&mut self, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight > 0 {
            return;
        }
        self.since = now;
        if self.stage == Stage::Responding {
            let buffered = self.unparsed.heads > 0 || self.unparsed.partial > 0;
            self.stage = if buffered { Stage::ReadingHead } else { Stage::Idle };
        }
    }

    fn start_drain(&mut self, grace: Duration, now: Instant) -> Action {
        if self.drain.is_some() || self.stage >= Stage::Closing {
            return Action::Continue;
        }
        self.drain = Some(Drain {
            window_ends: now + drain_window(grace),
            ends: now + grace,
            linger: LINGER_TIMEOUT.min(grace / 4),
        });
        Action::AnnounceLast
    }

    /// What is due next in this state, and when.
    fn next(&self, limits: &Limits) -> (Instant, Due) {
        let expired = |since: Instant, after, deadline| (since + after, Due::Expired(deadline));
        let stage = match self.stage {
            Stage::ProxyHeader => {
                Some(expired(self.opened, limits.handshake_timeout, Deadline::ProxyHeader))
            }
            Stage::Handshake => {
                Some(expired(self.opened, limits.handshake_timeout, Deadline::Handshake))
            }
            Stage::AwaitingRequest => {
                Some(expired(self.since, limits.request_timeout, Deadline::FirstRequest))
            }
            // Nothing is read from a client that does not take what is written.
            Stage::ReadingHead if self.stalled.is_some() => None,
            Stage::ReadingHead => Some(expired(
                self.since,
                arrival_timeout(self.unparsed.partial, limits),
                if self.requests == 0 { Deadline::FirstRequest } else { Deadline::Request },
            )),
            // What is pending has a deadline of its own; the age of the connection bounds it.
            Stage::Responding if self.in_flight <= self.forms + self.self_checks => None,
            Stage::Responding => {
                Some(expired(self.since, limits.request_timeout, Deadline::Response))
            }
            Stage::Idle if self.may_hibernate(limits) => {
                Some((self.since + HIBERNATE_AFTER, Due::Hibernate))
            }
            Stage::Idle | Stage::Hibernating => {
                Some(expired(self.since, self.idle_timeout(limits), Deadline::Idle))
            }
            Stage::Closing => return (self.close_timeout(limits), Due::CloseTimeout),
            Stage::Lingering => return (self.since + self.linger(), Due::CloseTimeout),
            Stage::Closed => return (self.since, Due::CloseTimeout),
        };
        let stalled =
            self.stalled.map(|since| expired(since, limits.request_timeout, Deadline::Response));
        let end = match self.drain {
            None if self.requests >= REQUESTS => (self.opened, Due::Requests),
            None => expired(self.opened, limits.connection_age, Deadline::Age),
            Some(drain) if self.is_busy() => (drain.ends, Due::CloseTimeout),
            Some(drain) => (drain.window_ends, Due::DrainWindow),
        };
        let mut first = end;
        for due in [stage, stalled].into_iter().flatten() {
            if due.0 < first.0 {
                first = due;
            }
        }
        first
    }

    /// Whether a request is arriving or has no complete response.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.stage, Stage::ReadingHead | Stage::Responding) || self.in_flight > 0
    }

    fn may_hibernate(&self, limits: &Limits) -> bool {
        !self.multiplexed
            && self.stalled.is_none()
            && self.drain.is_none()
            && HIBERNATE_AFTER < self.idle_timeout(limits)
    }

    fn idle_timeout(&self, limits: &Limits) -> Duration {
        if self.from_proxy { limits.proxy_idle_timeout } else { limits.idle_timeout }
    }

    fn linger(&self) -> Duration {
        self.drain.map_or(LINGER_TIMEOUT, |drain| drain.linger)
    }

    fn close_timeout(&self, limits: &Limits) -> Instant {
        // No response is pending or being written, but the protocol does not close.
        let after = if self.in_flight == 0 && self.stalled.is_none() {
            self.linger()
        } else {
            limits.request_timeout
        };
        self.since + after
    }
}

/// How long a connection without a request is kept when its listener closes and `grace` is left: so
/// short that waiting connections alone never use up a short grace period.
pub(super) fn drain_window(grace: Duration) -> Duration {
    DRAIN_WINDOW.min(grace / 4)
}

/// How long a head or a form may take to arrive, once so many bytes of it are there.
pub(super) fn arrival_timeout(bytes: usize, limits: &Limits) -> Duration {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    limits.request_timeout.min(SLOW_START + Duration::from_secs(1) * bytes / MINIMUM_RATE)
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
