use super::handle::Handle;
use super::shared::Shared;
use super::snapshot::Snapshot;
use crate::observe::ListenerKind;
use arc_swap::Guard;
use std::net::IpAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What stays the same for a connection as long as it is open.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) handle: Arc<Handle>,
    pub(super) kind: ListenerKind,
    /// The address that it comes from: the peer's, or the one in its PROXY header.
    pub(super) client: IpAddr,
    /// Cancelled when the listener closes.
    pub(super) drain: CancellationToken,
}

impl Context {
    /// The settings in use.
    pub(super) fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.shared.snapshot.load()
    }
}
