use super::gauges::GaugeSet;
use super::metrics::{Registered, unix_seconds};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

/// What a repeated command exports at `/metrics`.
#[derive(Debug)]
pub struct Exported(Registry);

impl Exported {
    /// All metrics in the `OpenMetrics` text format.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// The metrics of a repeated preflight: one series for each integration, so that an alert can name the
/// integration whose provider no longer has the callback registered.
#[derive(Debug)]
pub struct PreflightMetrics {
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

impl PreflightMetrics {
    /// All metrics at zero.
    pub fn new() -> (Self, Exported) {
        let mut registry = Registry::with_prefix("callback_edge_preflight");
        let own = &mut registry;
        let metrics = Self {
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
        };
        (metrics, Exported(registry))
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
}

/// The metrics of a repeated check.
#[derive(Debug)]
pub struct CheckMetrics {
    runs: Family<[(&'static str, &'static str); 1], Counter>,
    verdicts: GaugeSet<2>,
    failed: GaugeSet<2>,
    ended_at: Gauge,
    duration: Gauge<f64, AtomicU64>,
}

/// The result of one check of one callback.
#[derive(Clone, Debug)]
pub struct CheckRun<'r> {
    /// The callback.
    pub callback: &'r str,
    /// `pass`, `warn`, `fail` or `unknown`.
    pub verdict: &'static str,
    /// The ids of the failed checks.
    pub failed: Vec<&'r str>,
}

impl CheckMetrics {
    /// All metrics at zero.
    pub fn new() -> (Self, Exported) {
        let mut registry = Registry::with_prefix("callback_edge_check");
        let own = &mut registry;
        let metrics = Self {
            runs: Registered::new(own, "runs", "Finished checks of a callback, by verdict"),
            verdicts: Registered::new(
                own,
                "verdict",
                "1 for each callback with its verdict in the last run: pass, warn, fail or unknown",
            ),
            failed: Registered::new(own, "failed", "1 for each check that failed in the last run"),
            ended_at: Registered::new(
                own,
                "ended_seconds",
                "End of the last run, Unix time; 0 before the first",
            ),
            duration: Registered::new(own, "duration_seconds", "Duration of the last run"),
        };
        (metrics, Exported(registry))
    }

    /// Records a run, and replaces the verdict and the failed checks of each callback.
    pub fn record(&self, callbacks: &[CheckRun<'_>], duration: Duration) {
        for run in callbacks {
            self.runs.get_or_create_owned(&[("verdict", run.verdict)]).inc();
        }
        self.ended_at.set(unix_seconds(SystemTime::now()));
        self.duration.set(duration.as_secs_f64());
        let labels = |run: &CheckRun<'_>, name, value: &str| {
            [("callback", run.callback.to_owned()), (name, value.to_owned())]
        };
        self.verdicts.replace(callbacks.iter().map(|run| (labels(run, "verdict", run.verdict), 1)));
        self.failed.replace(
            callbacks
                .iter()
                .flat_map(|run| run.failed.iter().map(move |id| (labels(run, "check", id), 1))),
        );
    }
}
