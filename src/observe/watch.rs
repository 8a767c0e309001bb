use super::gauges::GaugeSet;
use super::metrics::{Registered, unix_seconds};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::time::SystemTime;

/// What a preflight that runs again and again tells: one sample for each integration, so that a
/// provider that forgets the callback can raise an alert by name.
#[derive(Debug)]
pub struct WatchMetrics {
    registry: Registry,
    runs: Family<[(&'static str, &'static str); 1], Counter>,
    safe: Gauge,
    switched: Gauge,
    ended_at: Gauge,
    failed: Gauge,
    integrations: GaugeSet<2>,
}

/// What one run found.
#[derive(Clone, Copy, Debug)]
pub struct PreflightRun {
    /// The verdict in a word.
    pub verdict: &'static str,
    /// Whether that word means that it is safe.
    pub safe: bool,
    /// Whether Nango sends the callback already.
    pub switched: bool,
    /// How many checks failed.
    pub failed: usize,
}

impl WatchMetrics {
    /// Every metric at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("callback_edge_preflight");
        let own = &mut registry;
        Self {
            runs: Registered::new(own, "runs", "Preflights that ended, by verdict"),
            safe: Registered::new(
                own,
                "safe",
                "1 when the last preflight found it safe, 0 when not",
            ),
            switched: Registered::new(
                own,
                "switched",
                "1 when Nango sends the callback, 0 while it sends another",
            ),
            ended_at: Registered::new(
                own,
                "ended_seconds",
                "When the last preflight ended, Unix time; 0 for never",
            ),
            failed: Registered::new(
                own,
                "checks_failed",
                "Checks that failed in the last preflight",
            ),
            integrations: Registered::new(
                own,
                "integration",
                "1 for each integration with the state that the last preflight found it in",
            ),
            registry,
        }
    }

    /// Records a run, with key and state of each integration in place of those before.
    pub fn record<'s>(
        &self,
        run: PreflightRun,
        integrations: impl IntoIterator<Item = (&'s str, &'s str)>,
    ) {
        self.runs.get_or_create_owned(&[("verdict", run.verdict)]).inc();
        self.safe.set(i64::from(run.safe));
        self.switched.set(i64::from(run.switched));
        self.failed.set(i64::try_from(run.failed).unwrap_or(i64::MAX));
        self.ended_at.set(unix_seconds(SystemTime::now()));
        self.integrations.replace(integrations.into_iter().map(|(key, state)| {
            ([("integration", key.to_owned()), ("state", state.to_owned())], 1)
        }));
    }

    /// Everything in the `OpenMetrics` text format.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for WatchMetrics {
    fn default() -> Self {
        Self::new()
    }
}
