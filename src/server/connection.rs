//! One connection from accept to its HTTP version: PROXY header, limit of its client, TLS handshake,
//! ALPN. Then a [`Keeper`] sees to it.

use super::activity::{Activity, FAREWELL};
use super::guard::Taken;
use super::http1::Http1;
use super::http2::Http2;
use super::keeper::{Keeper, LAST_CALL};
use super::proxy;
use super::service::Edge;
use super::shared::Shared;
use super::slots::Slot;
use crate::observe::{Deadline, HandshakeFailure, Label, ListenerKind, Refusal};
use crate::tls::Acceptor;
use crate::tls::acme::ACME_TLS;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

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
        () = connect(accepted, activity) => {}
        () = shared.kill.cancelled() => {}
    }
}

async fn connect(accepted: Accepted, activity: Arc<Activity>) {
    let Accepted { stream, peer, kind, slot, tls, drain, shared } = accepted;
    let mut edge = Edge { shared, activity, kind, peer: peer.ip(), drain };
    edge.shared.metrics.accepted.count(kind);
    let mut stream = Taken::new(stream, Arc::clone(&edge.activity));
    if edge.is_behind_a_proxy() {
        match Box::pin(edge.client_of_header(&mut stream)).await {
            Some(client) => edge.peer = client,
            None => return,
        }
    }
    if !edge.may_stay(slot.as_ref()) {
        return;
    }
    let Some(tls) = tls else {
        edge.activity.became_ready();
        return Keeper::of(&edge).keep(Http1::new(stream, edge)).await;
    };
    let Some(stream) = edge.shake_hands(&tls, stream).await else { return };
    edge.activity.became_ready();
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        Keeper::of(&edge).keep(Http2::new(stream, edge)).await;
    } else {
        Keeper::of(&edge).keep(Http1::new(stream, edge)).await;
    }
}

impl Edge {
    /// Whether the connection must begin with a PROXY header.
    fn is_behind_a_proxy(&self) -> bool {
        let listen = &self.shared.snapshot.load().settings.listen;
        self.kind != ListenerKind::Admin && listen.proxy_protocol.contain(self.peer)
    }

    /// The client that a PROXY header names, or the proxy when it speaks for itself; `None` when
    /// the connection is over.
    async fn client_of_header(&self, stream: &mut Taken<TcpStream>) -> Option<IpAddr> {
        let metrics = &self.shared.metrics;
        let header = timeout(self.handshake_left(), proxy::read_header(stream));
        match self.unless_over(header).await? {
            Ok(Ok(client)) => Some(client.map_or(self.peer, |client| client.ip())),
            Ok(Err(_)) => {
                metrics.refused.count(Refusal::ProxyHeader);
                tracing::debug!(event = "refused", reason = "proxy_header", peer = %self.peer);
                None
            }
            Err(_) => {
                metrics.deadlines.count(Deadline::ProxyHeader);
                None
            }
        }
    }

    /// Whether the client has no more connections than it may.
    fn may_stay(&self, slot: Option<&Slot>) -> bool {
        // A proxy brings many clients under one address; its own limits are the ones that count.
        let listen = &self.shared.snapshot.load().settings.listen;
        let stays = listen.trusted_proxies.contain(self.peer)
            || slot.is_none_or(|slot| slot.belongs_to(self.peer).is_ok());
        if !stays {
            tracing::debug!(event = "refused", reason = "address", client = %self.peer);
        }
        stays
    }

    /// The connection behind its handshake; `None` when there is nothing more to do.
    async fn shake_hands<S>(&self, tls: &Acceptor, stream: S) -> Option<Box<TlsStream<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let metrics = &self.shared.metrics;
        // In boxes, the handshake and its stream, as the header before: a task is as large as its
        // largest moment, and keeps room for all that was ever moved through it. Most of its life
        // it waits.
        let accepting = tls.current().accept(stream);
        let shaken = async { accepting.await.map(Box::new) };
        match self.unless_over(Box::pin(timeout(self.handshake_left(), shaken))).await? {
            // A directory has seen what it came for (RFC 8737 §3).
            Ok(Ok(mut stream)) if stream.get_ref().1.alpn_protocol() == Some(ACME_TLS) => {
                let _ = timeout(FAREWELL, stream.shutdown()).await;
                None
            }
            Ok(Ok(stream)) => {
                metrics.handshake(self.activity.age());
                Some(stream)
            }
            Ok(Err(error)) => {
                handshake_failed(&self.shared, self.peer, &error);
                None
            }
            Err(_) => {
                metrics.deadlines.count(Deadline::Handshake);
                None
            }
        }
    }

    /// What is left of the time for PROXY header and handshake.
    fn handshake_left(&self) -> Duration {
        let limit = self.shared.snapshot.load().settings.limits.handshake_timeout;
        limit.saturating_sub(self.activity.age())
    }

    /// A step before the first request, unless the connection has to make room or is no longer
    /// waited for.
    async fn unless_over<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = step => Some(done),
            () = self.activity.evicted() => None,
            () = last_call(&self.drain) => None,
        }
    }
}

/// Resolves when a connection that has not asked for anything is no longer waited for.
async fn last_call(drain: &CancellationToken) {
    drain.cancelled().await;
    tokio::time::sleep(LAST_CALL).await;
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
