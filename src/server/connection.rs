//! One connection from accept to close: PROXY header, TLS handshake, HTTP version by ALPN, and
//! every deadline on the way.

use super::activity::Activity;
use super::guard::Watched;
use super::proxy;
use super::service::Edge;
use super::slots::Slot;
use super::state::Shared;
use crate::observe::{Deadline, HandshakeFailure, Limit, ListenerKind, Refusal, Status};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How long a connection that was told to close may take to do so.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long a connection without a request is kept when its listener closes: what its client sent
/// before it could know is answered, and told that it was the last.
const LAST_CALL: Duration = Duration::from_secs(2);

/// Deadlines are looked at no less often than this, however long they are.
const LONGEST_LOOK: Duration = Duration::from_mins(1);

// HTTP/2 for answers without bodies: a fraction of hyper's defaults serves any browser.
const H2_STREAMS: u32 = 64;
const H2_STREAM_WINDOW: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW: u32 = 128 * 1024;
const H2_SEND_BUFFER: usize = 32 * 1024;

/// A connection that was just accepted.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) kind: ListenerKind,
    /// None on the admin listener, which has a limit of its own.
    pub(super) slot: Option<Slot>,
    pub(super) tls: Option<TlsAcceptor>,
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
    let Accepted { mut stream, peer, kind, slot, tls, drain, shared } = accepted;
    let metrics = Arc::clone(&shared.metrics);
    metrics.accepted.count(kind);
    let (handshake_timeout, needs_header) = {
        let settings = &shared.snapshot.load().settings;
        let needs_header =
            kind != ListenerKind::Admin && settings.listen.proxy_protocol.contain(peer.ip());
        (settings.limits.handshake_timeout, needs_header)
    };

    let peer = if needs_header {
        match timeout(handshake_timeout, proxy::read_header(&mut stream)).await {
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
    if let Some(slot) = &slot
        && slot.belongs_to(peer).is_err()
    {
        tracing::debug!(event = "refused", reason = "address", client = %peer);
        return;
    }

    let edge =
        Edge { shared: Arc::clone(&shared), activity: Arc::clone(activity), kind, peer, drain };
    let Some(tls) = tls else {
        activity.became_ready();
        return http1(stream, edge).await;
    };
    let left = handshake_timeout.saturating_sub(activity.age());
    let handshake = tokio::select! {
        handshake = timeout(left, tls.accept(stream)) => handshake,
        () = activity.evict.notified() => return,
    };
    match handshake {
        Ok(Ok(stream)) => {
            metrics.handshake(activity.age());
            activity.became_ready();
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                http2(stream, edge).await;
            } else {
                http1(stream, edge).await;
            }
        }
        Ok(Err(error)) => handshake_failed(&shared, peer, &error),
        Err(_) => metrics.deadlines.count(Deadline::Handshake),
    }
}

async fn http1(stream: impl AsyncRead + AsyncWrite + Unpin, edge: Edge) {
    let header_bytes = edge.shared.snapshot.load().settings.limits.header_bytes;
    let io = TokioIo::new(Watched::http1(stream, Arc::clone(&edge.activity)));
    let keeper = Keeper::of(&edge);
    let connection = http1::Builder::new()
        // Deadlines are kept here, for every stage; hyper's would be a second timer.
        .header_read_timeout(None)
        .half_close(true)
        .max_buf_size(header_bytes.max(8192))
        .max_header_size(header_bytes)
        .serve_connection(io, edge);
    keeper.keep(connection).await;
}

async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, edge: Edge) {
    let header_bytes = edge.shared.snapshot.load().settings.limits.header_bytes;
    let io = TokioIo::new(Watched::http2(stream, Arc::clone(&edge.activity)));
    let keeper = Keeper::of(&edge);
    let connection = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(H2_STREAMS)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buf_size(H2_SEND_BUFFER)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .serve_connection(io, edge);
    keeper.keep(connection).await;
}

/// A hyper connection, whichever version.
trait Connection: Future<Output = hyper::Result<()>> {
    /// Whether telling it to close loses nothing: HTTP/2 says which requests it still answers
    /// (RFC 9113 §6.8), HTTP/1 has no way to.
    const CLOSES_SAFELY: bool;
    fn close(self: Pin<&mut Self>);
}

impl<I, B> Connection for http1::Connection<I, Edge>
where
    Self: Future<Output = hyper::Result<()>>,
    Edge: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    <Edge as hyper::service::HttpService<hyper::body::Incoming>>::Error:
        Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    const CLOSES_SAFELY: bool = false;
    fn close(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I> Connection for http2::Connection<I, Edge, TokioExecutor>
where
    Self: Future<Output = hyper::Result<()>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    const CLOSES_SAFELY: bool = true;
    fn close(self: Pin<&mut Self>) {
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

impl Keeper {
    fn of(edge: &Edge) -> Self {
        Self {
            activity: Arc::clone(&edge.activity),
            shared: Arc::clone(&edge.shared),
            peer: edge.peer,
            drain: edge.drain.clone(),
        }
    }

    async fn keep<C: Connection>(self, connection: C) {
        let mut connection = pin!(connection);
        let mut sleep = pin!(tokio::time::sleep_until(self.look_at().into()));
        let mut last_call: Option<Instant> = None;
        let mut drop_at: Option<Instant> = None;
        let mut closing = false;
        loop {
            tokio::select! {
                biased;
                progress = poll_fn(|cx| match connection.as_mut().poll(cx) {
                    Poll::Ready(ended) => Poll::Ready(Some(ended)),
                    Poll::Pending if self.activity.is_closing() && !closing => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }) => match progress {
                    Some(Ok(())) => return,
                    Some(Err(error)) => return self.ended(&error),
                    None => {
                        closing = true;
                        let farewell = Instant::now() + FAREWELL;
                        drop_at = Some(drop_at.map_or(farewell, |at| at.min(farewell)));
                    }
                },
                () = self.drain.cancelled(), if last_call.is_none() && drop_at.is_none() => {
                    last_call = Some(Instant::now() + LAST_CALL);
                    if C::CLOSES_SAFELY {
                        connection.as_mut().close();
                    }
                }
                () = self.activity.evict.notified(), if drop_at.is_none() => {
                    drop_at = Some(Instant::now() + FAREWELL);
                    connection.as_mut().close();
                }
                () = sleep.as_mut() => {}
            }
            let now = Instant::now();
            if drop_at.is_some_and(|at| at <= now) {
                return;
            }
            if last_call.is_some_and(|at| at <= now) {
                // From here on only what is being answered keeps it open, until the grace ends.
                last_call = None;
                drop_at =
                    drop_at.or(Some(now + self.shared.snapshot.load().settings.shutdown.grace));
                connection.as_mut().close();
            }
            if drop_at.is_none() {
                let due = self.activity.due(&self.shared.snapshot.load().settings.limits);
                if due.at <= now {
                    self.shared.metrics.deadlines.count(due.stage);
                    tracing::debug!(event = "deadline", stage = ?due.stage, client = %self.peer);
                    match due.stage {
                        Deadline::Idle => drop_at = Some(now + FAREWELL),
                        Deadline::Age => {
                            let limits = &self.shared.snapshot.load().settings.limits;
                            drop_at = Some(now + limits.request_timeout);
                        }
                        _ => return,
                    }
                    connection.as_mut().close();
                }
            }
            let next = drop_at.or(last_call).unwrap_or_else(|| self.look_at());
            sleep.as_mut().reset(next.into());
        }
    }

    /// When to look at the deadlines next: not after any that can come up meanwhile.
    fn look_at(&self) -> Instant {
        let snapshot = self.shared.snapshot.load();
        let limits = &snapshot.settings.limits;
        let shortest = limits.request_timeout.min(limits.idle_timeout).min(LONGEST_LOOK);
        self.activity.due(limits).at.min(Instant::now() + shortest)
    }

    /// Counts what hyper answered by itself.
    fn ended(&self, error: &hyper::Error) {
        let metrics = &self.shared.metrics;
        if error.is_parse_too_large() {
            metrics.limits.count(Limit::HeaderBytes);
            metrics.requests.count(Status::HeaderFieldsTooLarge);
        } else if error.is_parse() {
            metrics.requests.count(Status::BadRequest);
        }
        tracing::debug!(event = "connection_error", reason = reason(error), client = %self.peer);
    }
}

/// A closed set of words: hyper's own text may quote the request.
fn reason(error: &hyper::Error) -> &'static str {
    if error.is_parse_too_large() {
        "head_too_large"
    } else if error.is_parse() {
        "malformed"
    } else if error.is_incomplete_message() {
        "incomplete"
    } else if error.is_timeout() {
        "timeout"
    } else {
        "protocol_or_io"
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
    tracing::debug!(event = "handshake_failed", ?reason, %client);
}
