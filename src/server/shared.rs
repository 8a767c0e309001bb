use super::probes::Probes;
use super::self_check::SelfCheck;
use super::slots::Slots;
use super::snapshot::Snapshot;
use super::turns::Turns;
use crate::observe::{Log, Metrics};
use crate::tls::Store;
use crate::tls::acme::AcmeStatus;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What every connection shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) snapshot: ArcSwap<Snapshot>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) slots: Arc<Slots>,
    /// Of connections with many requests, and of those that have expired.
    pub(super) turns: Turns,
    /// Of connections that their clients have closed: they wait for none of the others, because their files are
    /// needed.
    pub(super) endings: Arc<Turns>,
    pub(super) store: Arc<Store>,
    pub(super) acme_status: Arc<AcmeStatus>,
    pub(super) self_check: Arc<SelfCheck>,
    pub(super) probes: Arc<Probes>,
    pub(super) log: Arc<Log>,
    /// Set when the shutdown is requested; readiness fails from then on.
    pub(super) draining: AtomicBool,
}

impl Shared {
    /// Why the server is not ready; `None` when it is.
    pub(super) fn not_ready(&self) -> Option<&'static str> {
        if self.draining.load(Relaxed) {
            Some("draining")
        } else if self.snapshot.load().settings.tls.is_some() && self.store.current().is_empty() {
            // An expired certificate counts as one: it may be the clock of this machine that is wrong.
            Some("no certificate")
        } else {
            None
        }
    }
}
