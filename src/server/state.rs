use super::origin::Addresses;
use super::self_check::SelfCheck;
use super::slots::Slots;
use crate::config::Settings;
use crate::observe::Metrics;
use crate::redirect::{Outcome, Route};
use crate::tls::Store;
use crate::tls::acme::Board;
use arc_swap::ArcSwap;
use http::HeaderValue;
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio_util::sync::CancellationToken;

/// What every connection shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) snapshot: ArcSwap<Snapshot>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) slots: Arc<Slots>,
    pub(super) store: Arc<Store>,
    pub(super) board: Arc<Board>,
    pub(super) self_check: SelfCheck,
    /// Lines that the log has dropped.
    pub(super) lines_dropped: Box<LinesDropped>,
    /// Set when the process is asked to end; readiness fails from then on.
    pub(super) leaving: AtomicBool,
    /// Cancelled when connections are dropped, finished or not.
    pub(super) kill: CancellationToken,
}

pub(super) struct LinesDropped(pub(super) Box<dyn Fn() -> usize + Send + Sync>);

impl std::fmt::Debug for LinesDropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinesDropped")
    }
}

impl Shared {
    /// Why the edge is not ready; `None` when it is.
    pub(super) fn not_ready(&self) -> Option<&'static str> {
        if self.leaving.load(Relaxed) {
            Some("draining")
        } else if self.snapshot.load().settings.tls.is_some() && self.store.current().is_empty() {
            // An expired certificate does not count as none: the clock that is wrong may be ours.
            Some("no certificate")
        } else {
            None
        }
    }
}

/// The settings in force and what follows from them, so that no request works it out again.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) settings: Settings,
    pub(super) bound: Addresses,
    pub(super) hsts: Option<HeaderValue>,
    /// By position of the route, then of the outcome in [`Outcome::ALL`].
    redirects: Vec<[Counter; 3]>,
}

impl Snapshot {
    pub(super) fn new(settings: Settings, bound: Addresses, metrics: &Metrics) -> Self {
        let redirects = settings
            .routes
            .items()
            .iter()
            .map(|route| {
                let name = name(route);
                Outcome::ALL.map(|outcome| metrics.redirects(&name, outcome.name()))
            })
            .collect();
        let hsts = settings
            .tls
            .as_ref()
            .and_then(|tls| tls.hsts)
            .and_then(|age| HeaderValue::from_str(&format!("max-age={}", age.as_secs())).ok());
        Self { settings, bound, hsts, redirects }
    }

    /// Counts a redirect.
    pub(super) fn redirected(&self, position: usize, outcome: Outcome) {
        if let Some(counter) =
            self.redirects.get(position).and_then(|counters| counters.get(outcome as usize))
        {
            counter.inc();
        }
    }

    /// Whether the plain listeners only send browsers on to https.
    pub(super) fn http_leads_to_https(&self) -> bool {
        !self.settings.listen.https.is_empty()
    }

    /// Whether health and metrics have a listener of their own.
    pub(super) fn has_admin(&self) -> bool {
        !self.settings.listen.admin.is_empty()
    }
}

/// A route in logs and metrics.
pub(super) fn name(route: &Route) -> String {
    match &route.host {
        Some(host) => format!("{host}{}", route.path),
        None => route.path.to_string(),
    }
}
