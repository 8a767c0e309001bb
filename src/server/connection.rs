//! One connection from accept to its HTTP version: PROXY header, limit of its client, TLS handshake,
//! ALPN. Then a [`ConnectionDriver`] owns it.

use super::client_stream::ClientStream;
use super::context::{Context, DrainSignal};
use super::driver::ConnectionDriver;
use super::handle::Handle;
use super::http1::Http1;
use super::http2::Http2;
use super::proxy;
use super::service::CallbackService;
use super::shared::Shared;
use super::slots::Slot;
use super::state::{Event, LINGER_TIMEOUT, drain_window};
use super::turns::Place;
use crate::observe::{Deadline, HandshakeFailure, Label, ListenerKind, Refusal};
use crate::outbound::Range;
use crate::tls::Acceptor;
use crate::tls::acme::ACME_TLS;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

/// A connection that was just accepted.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) kind: ListenerKind,
    /// None on the admin listener, which has a limit of its own.
    pub(super) slot: Option<Slot>,
    pub(super) handle: Arc<Handle>,
    pub(super) tls: Option<Acceptor>,
    pub(super) drain: DrainSignal,
    pub(super) shared: Arc<Shared>,
}

/// Serves a connection to its end.
pub(super) async fn serve(accepted: Accepted) {
    let Accepted { stream, peer, kind, slot, handle, tls, drain, shared } = accepted;
    let turns = Arc::clone(&shared.endings);
    let mut stream = ClientStream::new(stream, slot, Arc::clone(&handle), turns);
    let mut context = Context { shared, handle, kind, client: peer.ip(), drain };
    context.shared.metrics.accepted.count(kind);
    if context.is_behind_a_proxy() {
        match Box::pin(context.proxied_client(&mut stream)).await {
            Some(client) => context.client = client,
            None => return,
        }
    }
    if !context.admit(stream.slot()) {
        return;
    }
    let Some(tls) = tls else {
        let (context, service) = context.serve(false);
        return ConnectionDriver::new(context, Http1::new(stream, service)).run().await;
    };
    let Some(stream) = context.accept_tls(&tls, stream).await else { return };
    let multiplexed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let (context, service) = context.serve(multiplexed);
    if multiplexed {
        ConnectionDriver::new(context, Http2::new(stream, service)).run().await;
    } else {
        ConnectionDriver::new(context, Http1::new(stream, service)).run().await;
    }
}

/// The time for PROXY header and handshake is over.
struct TimedOut;

impl Context {
    /// Whether the connection must begin with a PROXY header.
    fn is_behind_a_proxy(&self) -> bool {
        let listen = &self.snapshot().settings.listen;
        self.kind != ListenerKind::Admin && listen.proxy_protocol.contain(self.client)
    }

    /// The client in the PROXY header, or the proxy when it connects for itself; `None` when the
    /// connection is over.
    async fn proxied_client<S>(&self, stream: &mut ClientStream<S>) -> Option<IpAddr>
    where
        S: AsyncRead + Unpin,
    {
        self.handle.on(Event::ProxyHeaderExpected);
        let metrics = &self.shared.metrics;
        let header = self.in_handshake_time(proxy::read_header(stream));
        match self.unless_over(header).await? {
            Ok(Ok(client)) => {
                self.handle.on(Event::ProxyHeaderRead);
                Some(client.map_or(self.client, |client| client.ip()))
            }
            Ok(Err(_)) => {
                metrics.refused.count(Refusal::ProxyHeader);
                tracing::debug!(event = "refused", reason = "proxy_header", peer = %self.client);
                None
            }
            Err(TimedOut) => {
                metrics.deadlines.count(Deadline::ProxyHeader);
                None
            }
        }
    }

    /// Whether the client's number of connections is within its limit.
    fn admit(&self, slot: Option<&mut Slot>) -> bool {
        // A proxy forwards many clients from one address; it has limits of its own.
        let trusted = self.snapshot().settings.listen.trusted_proxies.contain(self.client);
        let admitted = slot.is_none_or(|slot| slot.admit(self.client, !trusted).is_ok());
        if !admitted {
            tracing::debug!(event = "refused", reason = "address", client = %self.client);
        }
        admitted
    }

    /// The connection after its handshake; `None` when there is nothing more to do.
    async fn accept_tls<S>(&self, tls: &Acceptor, stream: S) -> Option<Box<TlsStream<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let metrics = &self.shared.metrics;
        // The handshake and its stream are boxed, as the header before: a task is as large as its
        // largest state, also while it only waits.
        let accepting = tls.current().accept(stream);
        let accepting = async { accepting.await.map(Box::new) };
        match self.unless_over(Box::pin(self.in_handshake_time(accepting))).await? {
            // The CA needs no more than the handshake (RFC 8737 §3).
            Ok(Ok(mut stream)) if stream.get_ref().1.alpn_protocol() == Some(ACME_TLS) => {
                let _ = timeout(LINGER_TIMEOUT, stream.shutdown()).await;
                None
            }
            Ok(Ok(stream)) => {
                metrics.record_handshake(self.handle.age());
                Some(stream)
            }
            Ok(Err(error)) => {
                handshake_failed(&self.shared, self.client, &error);
                None
            }
            Err(TimedOut) => {
                metrics.deadlines.count(Deadline::Handshake);
                None
            }
        }
    }

    /// From here on requests are accepted.
    fn serve(self, multiplexed: bool) -> (Arc<Self>, CallbackService) {
        if self.may_be_proxy() {
            self.handle.on(Event::FromProxy);
        }
        self.handle.on(Event::Ready { multiplexed });
        let context = Arc::new(self);
        (Arc::clone(&context), CallbackService::new(context))
    }

    /// Whether the client may be a proxy: it is in the settings, or not on the Internet.
    fn may_be_proxy(&self) -> bool {
        Range::of(self.client).is_some()
            || self.snapshot().settings.listen.trusted_proxies.contain(self.client)
    }

    /// How much of the time for PROXY header and handshake is left.
    fn handshake_left(&self) -> Duration {
        let limit = self.snapshot().settings.limits.handshake_timeout;
        limit.saturating_sub(self.handle.age())
    }

    /// A step within the time for PROXY header and handshake. Connections that were opened together exceed it
    /// together; other clients do not wait until all of them are closed.
    async fn in_handshake_time<T>(&self, step: impl Future<Output = T>) -> Result<T, TimedOut> {
        let over = async {
            tokio::time::sleep(self.handshake_left()).await;
            let mut place = Place::default();
            poll_fn(|cx| self.shared.turns.poll_closing(&mut place, cx)).await;
        };
        tokio::select! {
            biased;
            done = step => Ok(done),
            () = over => Err(TimedOut),
        }
    }

    /// A step before the first request, unless the connection was evicted or its listener has been
    /// closed for a while.
    async fn unless_over<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = step => Some(done),
            () = self.handle.evicted() => None,
            () = self.drain_window_ended() => None,
        }
    }

    /// Resolves when a connection that has not sent a request is no longer waited for.
    async fn drain_window_ended(&self) {
        self.drain.started().await;
        let grace = self.snapshot().settings.shutdown.grace;
        tokio::time::sleep(drain_window(grace)).await;
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
