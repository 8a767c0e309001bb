use super::gauges::GaugeSet;
use super::metrics::{Registered, unix_seconds};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::time::SystemTime;

/// The metrics of a repeated preflight: one series for each integration, so that an alert can name the
/// integration whose provider no longer has the callback registered.
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

/// The result of one preflight.
#[derive(Clone, Copy, Debug)]
pub struct PreflightRun {
    /// The verdict.
    pub verdict: &'static str,
    /// Whether the verdict means that it is safe to switch.
    pub safe: bool,
    /// Whether Nango already sends the callback.
    pub switched: bool,
    /// How many checks failed.
    pub failed: usize,
}

impl WatchMetrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("callback_edge_preflight");
        let own = &mut registry;
        Self {
            runs: Registered::new(own, "runs", "Finished preflights, by verdict"),
            safe: Registered::new(own, "safe", "1 when the last preflight passed, else 0"),
            switched: Registered::new(own, "switched", "1 when Nango sends the callback, else 0"),
            ended_at: Registered::new(
                own,
                "ended_seconds",
                "End of the last preflight, Unix time; 0 before the first",
            ),
            failed: Registered::new(own, "checks_failed", "Failed checks in the last preflight"),
            integrations: Registered::new(
                own,
                "integration",
                "1 for each integration with its state in the last preflight",
            ),
            registry,
        }
    }

    /// Records a preflight, and replaces key and state of each integration.
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

    /// All metrics in the `OpenMetrics` text format.
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
