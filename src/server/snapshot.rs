use super::origin::Addresses;
use crate::config::Settings;
use crate::observe::Metrics;
use crate::redirect::{Outcome, Route};
use http::HeaderValue;
use prometheus_client::metrics::counter::Counter;

/// The settings in use and what is derived from them once, so that no request derives it again.
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
                let name = route_name(route);
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
    pub(super) fn count_redirect(&self, position: usize, outcome: Outcome) {
        if let Some(counter) =
            self.redirects.get(position).and_then(|counters| counters.get(outcome as usize))
        {
            counter.inc();
        }
    }

    /// Whether requests are logged.
    pub(super) fn logs_requests(&self) -> bool {
        self.settings.log.requests && tracing::enabled!(tracing::Level::INFO)
    }

    /// Whether the plain listeners only redirect to https.
    pub(super) fn redirects_http_to_https(&self) -> bool {
        !self.settings.listen.https.is_empty()
    }

    /// Whether health and metrics have a listener of their own.
    pub(super) fn has_admin(&self) -> bool {
        !self.settings.listen.admin.is_empty()
    }
}

/// The name of a route in logs and metrics.
pub(super) fn route_name(route: &Route) -> String {
    match &route.host {
        Some(host) => format!("{host}{}", route.path),
        None => route.path.to_string(),
    }
}
