use super::handle::Handle;
use super::shared::Shared;
use super::snapshot::Snapshot;
use crate::observe::ListenerKind;
use arc_swap::Guard;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio_util::sync::CancellationToken;

/// What stays the same for a connection as long as it is open.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) handle: Arc<Handle>,
    pub(super) kind: ListenerKind,
    /// The address that it comes from: the peer's, or the one in its PROXY header.
    pub(super) client: IpAddr,
    pub(super) drain: DrainSignal,
}

impl Context {
    /// The settings in use.
    pub(super) fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.shared.snapshot.load()
    }
}

/// Notifies all connections of a listener that it closes.
#[derive(Clone, Debug, Default)]
pub(super) struct DrainSignal {
    token: CancellationToken,
    /// The token has a lock, which all connections would share for each request.
    started: Arc<AtomicBool>,
}

impl DrainSignal {
    pub(super) fn start(&self) {
        self.started.store(true, Relaxed);
        self.token.cancel();
    }

    /// Whether [`DrainSignal::started`] may resolve.
    pub(super) fn is_started(&self) -> bool {
        self.started.load(Relaxed)
    }

    /// Resolves when the drain has started.
    pub(super) async fn started(&self) {
        self.token.cancelled().await;
    }
}
