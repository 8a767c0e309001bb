use super::origin::{self, Addresses};
use crate::config::{Interval, Settings};
use crate::observe::Metrics;
use crate::redirect::{Outcome, Route};
use aws_lc_rs::hmac::{HMAC_SHA256, Key};
use http::HeaderValue;
use prometheus_client::metrics::counter::Counter;
use secrecy::ExposeSecret as _;
use std::borrow::Cow;
use std::time::Duration;

/// The default of `self_check.every`, unless every callback is on loopback: such a server is one that a
/// developer runs.
const SELF_CHECK_INTERVAL: Duration = Duration::from_mins(5);

/// The settings in use and what is derived from them once, so that no request derives it again.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) settings: Settings,
    pub(super) bound: Addresses,
    pub(super) hsts: Option<HeaderValue>,
    /// The key of the probes that replicas share.
    pub(super) probe_key: Option<Key>,
    /// The interval of the self-check.
    pub(super) self_check_every: Option<Duration>,
    /// By position of the route, then of the outcome in [`Outcome::ALL`], and for probes.
    redirects: Vec<([Counter; 3], Counter)>,
}

impl Snapshot {
    pub(super) fn new(settings: Settings, bound: Addresses, metrics: &Metrics) -> Self {
        let redirects = settings
            .routes
            .items()
            .iter()
            .map(|route| {
                let name = route_name(route);
                let outcomes = Outcome::ALL.map(|it| metrics.redirects(&name, it.name()));
                (outcomes, metrics.redirects(&name, "probe"))
            })
            .collect();
        let hsts = settings
            .tls
            .as_ref()
            .and_then(|tls| tls.hsts)
            .and_then(|age| HeaderValue::from_str(&format!("max-age={}", age.as_secs())).ok());
        let self_check = &settings.self_check;
        let probe_key = self_check.probe_key.as_ref();
        let probe_key = probe_key.map(|key| Key::new(HMAC_SHA256, key.expose_secret()));
        let self_check_every = match self_check.every {
            Interval::Off => None,
            Interval::Every(every) => Some(every),
            Interval::Default => {
                let mut routes = settings.routes.items().iter();
                let is_public = |route| !origin::of(route, &settings, &bound).is_loopback();
                routes.any(is_public).then_some(SELF_CHECK_INTERVAL)
            }
        };
        Self { settings, bound, hsts, probe_key, self_check_every, redirects }
    }

    /// Counts a redirect.
    pub(super) fn count_redirect(&self, position: usize, outcome: Outcome) {
        let counters = self.redirects.get(position);
        if let Some(counter) = counters.and_then(|(outcomes, _)| outcomes.get(outcome as usize)) {
            counter.inc();
        }
    }

    /// Counts a redirect of a probe.
    pub(super) fn count_probe(&self, position: usize) {
        if let Some((_, counter)) = self.redirects.get(position) {
            counter.inc();
        }
    }

    /// Whether requests of clients are logged.
    pub(super) fn logs_requests(&self) -> bool {
        self.settings.log.requests && tracing::enabled!(tracing::Level::INFO)
    }

    /// Whether probes, health checks and scrapes are logged, too.
    pub(super) fn logs_internal_requests(&self) -> bool {
        self.settings.log.requests && tracing::enabled!(tracing::Level::DEBUG)
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
pub(super) fn route_name(route: &Route) -> Cow<'_, str> {
    match &route.host {
        Some(host) => format!("{host}{}", route.path).into(),
        None => route.path.as_str().into(),
    }
}
