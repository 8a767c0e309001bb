//! The life of a connection behind its handshake: deadlines, rest, and its end.

use super::activity::{Activity, FAREWELL};
use super::http1::Http1;
use super::http2::Http2;
use super::service::Edge;
use super::shared::Shared;
use crate::observe::{ConnectionError, Deadline, Label, Limit, Status};
use std::error::Error as _;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a connection without a request is kept when its listener closes or it is old: what
/// its client sent before it could know is answered, and told that it was the last.
pub(super) const LAST_CALL: Duration = Duration::from_secs(2);

/// How long a connection keeps its buffers for a request that may follow.
const RESTLESS: Duration = Duration::from_millis(250);

/// How long a deadline waits for what may have arrived before it.
const A_MOMENT: Duration = Duration::from_millis(5);

/// Deadlines are looked at no less often than this, however long they are.
const LONGEST_LOOK: Duration = Duration::from_mins(1);

/// Keeps a connection to its deadlines, and ends it when it has to make room or its listener
/// closes.
pub(super) struct Keeper {
    activity: Arc<Activity>,
    shared: Arc<Shared>,
    peer: IpAddr,
    drain: CancellationToken,
}

/// How far a connection is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// It takes requests until then, and says with each answer that it is the last. After that
    /// answers have as long as `grace`.
    LastCall {
        until: Instant,
        grace: Duration,
    },
    /// It was told to close.
    Closing {
        since: Instant,
        until: Instant,
    },
}

impl Keeper {
    pub(super) fn of(edge: &Edge) -> Self {
        Self {
            activity: Arc::clone(&edge.activity),
            shared: Arc::clone(&edge.shared),
            peer: edge.peer,
            drain: edge.drain.clone(),
        }
    }

    pub(super) async fn keep<C: Connection>(self, mut connection: C) {
        let mut phase = Phase::Open;
        let mut sleep = pin!(tokio::time::sleep_until(self.look_at(&phase, &connection).into()));
        loop {
            tokio::select! {
                // The connection last: a flood that never lets it rest would use up the task's
                // budget each time, and the deadlines would never be looked at.
                biased;
                () = sleep.as_mut() => {
                    // What arrived while the process was stopped or the machine was busy was in
                    // time, and counts first. Timers may be told before sockets are; a second
                    // one is not.
                    if let Ok(ended) = timeout(A_MOMENT, &mut connection).await {
                        return self.ended(ended);
                    }
                }
                () = self.activity.wake.notified() => {}
                () = self.drain.cancelled(), if phase == Phase::Open => {
                    phase = self.last_call(&mut connection, self.grace());
                }
                ended = &mut connection => return self.ended(ended),
            }
            phase = match self.step(phase, &mut connection) {
                Some(phase) => phase,
                None => return,
            };
            sleep.as_mut().reset(self.look_at(&phase, &connection).into());
        }
    }

    /// Does what is due; `None` when the connection has to be dropped.
    fn step<C: Connection>(&self, phase: Phase, connection: &mut C) -> Option<Phase> {
        let now = Instant::now();
        let phase = match phase {
            Phase::Open | Phase::LastCall { .. } if self.activity.is_evicted() => {
                connection.close();
                Phase::Closing { since: now, until: now + FAREWELL }
            }
            Phase::LastCall { until, grace } if until <= now => {
                connection.close();
                Phase::Closing { since: now, until: now + grace }
            }
            Phase::Closing { until, .. } if until <= now => return None,
            // Nothing is being answered, and still it does not leave.
            Phase::Closing { since, .. }
                if !self.activity.is_busy()
                    && since.max(self.activity.last_progress()) + FAREWELL <= now =>
            {
                return None;
            }
            phase => phase,
        };
        let limits = &self.shared.snapshot.load().settings.limits;
        let due = match self.activity.due(limits) {
            Some(due) if due.at <= now => due,
            _ => {
                if self.rest_at(&phase, connection).is_some_and(|at| at <= now) {
                    connection.rest();
                }
                return Some(phase);
            }
        };
        match (due.stage?, &phase) {
            (Deadline::Idle, Phase::Open | Phase::LastCall { .. }) => {
                self.count(Deadline::Idle);
                connection.close();
                // Nobody waits for anything; half the time is enough to take leave.
                Some(Phase::Closing { since: now, until: now + FAREWELL / 2 })
            }
            (Deadline::Age, Phase::Open) => {
                self.count(Deadline::Age);
                Some(self.last_call(connection, limits.request_timeout))
            }
            // It is leaving already.
            (Deadline::Idle | Deadline::Age, _) => Some(phase),
            (stage, _) => {
                self.count(stage);
                None
            }
        }
    }

    /// Takes what was sent before the client could know that it is the last.
    fn last_call<C: Connection>(&self, connection: &mut C, grace: Duration) -> Phase {
        self.activity.last_call();
        if C::CLOSES_SAFELY {
            connection.close();
        }
        Phase::LastCall { until: Instant::now() + LAST_CALL, grace }
    }

    fn count(&self, stage: Deadline) {
        self.shared.metrics.deadlines.count(stage);
        tracing::debug!(event = "deadline", stage = stage.value(), client = %self.peer);
    }

    fn grace(&self) -> Duration {
        self.shared.snapshot.load().settings.shutdown.grace
    }

    /// When the connection may rest; `None` while it has something to do, or rests.
    fn rest_at(&self, phase: &Phase, connection: &impl Connection) -> Option<Instant> {
        let waits = *phase == Phase::Open && !connection.is_resting() && self.activity.is_waiting();
        waits.then(|| self.activity.last_progress() + RESTLESS)
    }

    /// When to look again: not after anything that can come up meanwhile.
    fn look_at(&self, phase: &Phase, connection: &impl Connection) -> Instant {
        let now = Instant::now();
        let (due, shortest) = {
            let limits = &self.shared.snapshot.load().settings.limits;
            let shortest = limits.request_timeout.min(limits.idle_timeout).min(LONGEST_LOOK);
            (self.activity.due(limits).map_or(now + shortest, |due| due.at), shortest)
        };
        match *phase {
            // Whether it waits or works just now: it may wait by then.
            Phase::Open if !connection.is_resting() => due.min(now + shortest.min(RESTLESS)),
            Phase::Open => due.min(now + shortest),
            Phase::LastCall { until, .. } => due.min(until).min(now + shortest),
            // A deadline that has passed may not concern it any more.
            Phase::Closing { until, .. } => until.min(now + shortest.min(FAREWELL / 4)),
        }
    }

    /// Counts what hyper answered by itself.
    fn ended(&self, ended: hyper::Result<()>) {
        let Err(error) = ended else { return };
        let metrics = &self.shared.metrics;
        if error.is_parse_too_large() {
            metrics.limits.count(Limit::HeaderBytes);
            metrics.requests.count(Status::HeaderFieldsTooLarge);
        } else if error.is_parse() {
            metrics.requests.count(Status::BadRequest);
        }
        let reason = reason(&error);
        metrics.connection_errors.count(reason);
        tracing::debug!(
            event = "connection_error",
            reason = reason.value(),
            client = %self.peer,
        );
    }
}

/// A connection, whichever version.
pub(super) trait Connection: Future<Output = hyper::Result<()>> + Unpin {
    /// Whether telling it to close loses nothing: HTTP/2 says which requests it still answers
    /// (RFC 9113 §6.8), HTTP/1 has no way to.
    const CLOSES_SAFELY: bool;
    fn close(&mut self);
    /// Gives back what it does not need to wait, where it can.
    fn rest(&mut self) {}
    /// Whether [`Connection::rest`] has nothing to give back.
    fn is_resting(&self) -> bool {
        true
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection for Http1<S> {
    const CLOSES_SAFELY: bool = false;
    fn close(&mut self) {
        if let Some(connection) = self.woken() {
            connection.graceful_shutdown();
        }
    }
    fn rest(&mut self) {
        self.rest();
    }
    fn is_resting(&self) -> bool {
        self.is_resting()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection for Http2<S> {
    const CLOSES_SAFELY: bool = true;
    fn close(&mut self) {
        self.graceful_shutdown();
    }
}

/// A closed set of words: hyper's own text may quote the request.
fn reason(error: &hyper::Error) -> ConnectionError {
    let h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    if error.is_parse_too_large() {
        ConnectionError::HeadTooLarge
    } else if error.is_parse() {
        ConnectionError::Malformed
    } else if error.is_incomplete_message() {
        ConnectionError::Incomplete
    } else if h2.is_some_and(|error| error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)) {
        ConnectionError::Flood
    } else if h2.is_some_and(|error| !error.is_io()) {
        ConnectionError::Protocol
    } else {
        ConnectionError::Io
    }
}
