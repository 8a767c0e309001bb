//! One connection from accept to close: PROXY header, TLS handshake, HTTP version by ALPN, and
//! every deadline on the way.

use super::activity::{Activity, FAREWELL};
use super::guard::Taken;
use super::http1::Http1;
use super::http2::Http2;
use super::proxy;
use super::service::Edge;
use super::shared::Shared;
use super::slots::Slot;
use crate::observe::{
    ConnectionError, Deadline, HandshakeFailure, Label, Limit, ListenerKind, Refusal, Status,
};
use crate::tls::Acceptor;
use crate::tls::acme::ACME_TLS;
use std::error::Error as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a connection without a request is kept when its listener closes or it is old: what
/// its client sent before it could know is answered, and told that it was the last.
const LAST_CALL: Duration = Duration::from_secs(2);

/// How long a connection keeps its buffers for a request that may follow.
const RESTLESS: Duration = Duration::from_millis(250);

/// How long a deadline waits for what may have arrived before it.
const A_MOMENT: Duration = Duration::from_millis(5);

/// Deadlines are looked at no less often than this, however long they are.
const LONGEST_LOOK: Duration = Duration::from_mins(1);

/// A connection that was just accepted.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) kind: ListenerKind,
    /// None on the admin listener, which has a limit of its own.
    pub(super) slot: Option<Slot>,
    pub(super) tls: Option<Acceptor>,
    /// Cancelled when the listener closes.
    pub(super) drain: CancellationToken,
    pub(super) shared: Arc<Shared>,
}

/// Serves it to its end.
pub(super) async fn serve(mut accepted: Accepted) {
    let activity = Arc::new(Activity::new());
    if let Some(slot) = &mut accepted.slot {
        slot.enter(&activity);
    }
    let shared = Arc::clone(&accepted.shared);
    tokio::select! {
        () = connect(accepted, &activity) => {}
        () = shared.kill.cancelled() => {}
    }
}

async fn connect(accepted: Accepted, activity: &Arc<Activity>) {
    let Accepted { stream, peer, kind, slot, tls, drain, shared } = accepted;
    let metrics = Arc::clone(&shared.metrics);
    metrics.accepted.count(kind);
    let (handshake_timeout, needs_header) = {
        let settings = &shared.snapshot.load().settings;
        let needs_header =
            kind != ListenerKind::Admin && settings.listen.proxy_protocol.contain(peer.ip());
        (settings.limits.handshake_timeout, needs_header)
    };

    let mut stream = Taken::new(stream, Arc::clone(activity));
    let peer = if needs_header {
        let header = tokio::select! {
            header = timeout(handshake_timeout, proxy::read_header(&mut stream)) => header,
            () = activity.evicted() => return,
            () = last_call(&drain) => return,
        };
        match header {
            Ok(Ok(client)) => client.unwrap_or(peer).ip(),
            Ok(Err(_)) => {
                metrics.refused.count(Refusal::ProxyHeader);
                tracing::debug!(event = "refused", reason = "proxy_header", peer = %peer.ip());
                return;
            }
            Err(_) => return metrics.deadlines.count(Deadline::ProxyHeader),
        }
    } else {
        peer.ip()
    };
    // A proxy brings many clients under one address; its own limits are the ones that count.
    let proxied = shared.snapshot.load().settings.listen.trusted_proxies.contain(peer);
    if let Some(slot) = &slot
        && !proxied
        && slot.belongs_to(peer).is_err()
    {
        tracing::debug!(event = "refused", reason = "address", client = %peer);
        return;
    }

    let edge = Edge {
        shared: Arc::clone(&shared),
        activity: Arc::clone(activity),
        kind,
        peer,
        drain: drain.clone(),
    };
    let Some(tls) = tls else {
        activity.became_ready();
        let keeper = Keeper::of(&edge);
        return keeper.keep(Http1::new(stream, edge)).await;
    };
    let left = handshake_timeout.saturating_sub(activity.age());
    // In boxes, the handshake, its stream and what follows: a task is as large as its largest
    // moment, and keeps room for all that was ever moved through it. Most of its life it waits.
    let accepting = tls.current().accept(stream);
    let mut handshake = Box::pin(timeout(left, async { accepting.await.map(Box::new) }));
    let shaken = tokio::select! {
        shaken = handshake.as_mut() => shaken,
        () = activity.evicted() => return,
        () = last_call(&drain) => return,
    };
    drop(handshake);
    match shaken {
        // A directory has seen what it came for (RFC 8737 §3).
        Ok(Ok(mut stream)) if stream.get_ref().1.alpn_protocol() == Some(ACME_TLS) => {
            let _ = timeout(FAREWELL, stream.shutdown()).await;
        }
        Ok(Ok(stream)) => {
            metrics.handshake(activity.age());
            activity.became_ready();
            let keeper = Keeper::of(&edge);
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                keeper.keep(Http2::new(stream, edge)).await;
            } else {
                keeper.keep(Http1::new(stream, edge)).await;
            }
        }
        Ok(Err(error)) => handshake_failed(&shared, peer, &error),
        Err(_) => metrics.deadlines.count(Deadline::Handshake),
    }
}

/// Resolves when a connection that has not asked for anything is no longer waited for.
async fn last_call(drain: &CancellationToken) {
    drain.cancelled().await;
    tokio::time::sleep(LAST_CALL).await;
}

/// A connection, whichever version.
trait Connection: Future<Output = hyper::Result<()>> + Unpin {
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

/// Keeps a connection to its deadlines, and ends it when it has to make room or its listener
/// closes.
struct Keeper {
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
    fn of(edge: &Edge) -> Self {
        Self {
            activity: Arc::clone(&edge.activity),
            shared: Arc::clone(&edge.shared),
            peer: edge.peer,
            drain: edge.drain.clone(),
        }
    }

    async fn keep<C: Connection>(self, mut connection: C) {
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

fn handshake_failed(shared: &Shared, client: IpAddr, error: &io::Error) {
    let reason = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        None => HandshakeFailure::Closed,
        Some(rustls::Error::InvalidMessage(_)) => HandshakeFailure::NotTls,
        Some(rustls::Error::PeerIncompatible(_)) => HandshakeFailure::NothingInCommon,
        Some(rustls::Error::NoApplicationProtocol) => HandshakeFailure::NoProtocol,
        Some(rustls::Error::AlertReceived(_)) => HandshakeFailure::Alert,
        Some(_) if shared.store.current().is_empty() => HandshakeFailure::NoCertificate,
        Some(_) => HandshakeFailure::Other,
    };
    shared.metrics.handshake_failures.count(reason);
    tracing::debug!(event = "handshake_failed", reason = reason.value(), %client);
}
