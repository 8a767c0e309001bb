use super::gauges::GaugeSet;
use super::label::{
    AcmeFailure, AcmeStep, ConnectionError, ConnectionState, Deadline, HandshakeFailure,
    InternalRequest, Label, Limit, ListenerKind, Refusal, ReloadResult, Status,
};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use rustix::process::{Resource, getrlimit};
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One counter for each value of a label enum, by index instead of by hash.
#[derive(Debug)]
pub struct ByLabel<L> {
    counters: Vec<Counter>,
    label: PhantomData<L>,
}

impl<L: Label> ByLabel<L> {
    /// Increments the counter of a label.
    pub fn count(&self, label: L) {
        if let Some(counter) = self.counters.get(label.index()) {
            counter.inc();
        }
    }
}

/// A metric that is exported from the start, at zero.
pub(super) trait Registered {
    fn new(registry: &mut Registry, name: &str, help: &str) -> Self;
}

impl<M: Metric + Clone + Default> Registered for M {
    fn new(registry: &mut Registry, name: &str, help: &str) -> Self {
        let metric = Self::default();
        registry.register(name, help, metric.clone());
        metric
    }
}

impl<L: Label> Registered for ByLabel<L> {
    fn new(registry: &mut Registry, name: &str, help: &str) -> Self {
        let family = Family::<One, Counter>::new(registry, name, help);
        let counters = L::ALL.iter().map(|&label| family.get_or_create_owned(&one(label)));
        Self { counters: counters.collect(), label: PhantomData }
    }
}

type One = [(&'static str, &'static str); 1];

fn one<L: Label>(label: L) -> One {
    [(L::NAME, label.value())]
}

/// Declares [`Metrics`]: each with its name, and its help, which is also its documentation.
macro_rules! metrics {
    ($($visible:vis $field:ident: $type:ty = $name:literal, $help:literal;)+) => {
        /// All metrics. Names have the prefix `callback_edge_`.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            resident: Gauge,
            open_files: Gauge,
            max_files: Gauge,
            handshakes: Histogram,
            $(#[doc = $help] $visible $field: $type,)+
        }

        impl Metrics {
            /// All metrics at zero.
            pub fn new() -> Self {
                let mut registry = Registry::default();
                let (resident, open_files, max_files) = process(&mut registry);
                let own = registry.sub_registry_with_prefix("callback_edge");
                let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
                own.register("build", "Version of the program", version);
                let metrics = Self {
                    handshakes: handshakes(own),
                    $($field: Registered::new(own, $name, $help),)+
                    resident,
                    open_files,
                    max_files,
                    registry,
                };
                metrics.reloaded_at.set(unix_seconds(SystemTime::now()));
                metrics.settings_current.set(1);
                metrics
            }
        }
    };
}

metrics! {
    redirects: Family<[(&'static str, String); 2], Counter> = "redirects",
        "Redirected callbacks, by route and outcome: code, error, other, or probe of the self-check";
    pub requests: ByLabel<Status> = "requests",
        "Responses to clients, by status";
    pub internal_requests: ByLabel<InternalRequest> = "internal_requests",
        "Requests that are not those of clients, by kind";
    pub accepted: ByLabel<ListenerKind> = "connections_accepted",
        "Accepted connections, by listener";
    pub refused: ByLabel<Refusal> = "connections_refused",
        "Refused connections, by reason";
    pub evicted: Counter = "connections_evicted",
        "Idle connections closed to make space for new ones";
    connections: Family<One, Gauge> = "connections",
        "Open public connections, by state";
    connections_limit: Gauge = "connections_limit",
        "The limit of open public connections";
    pub handshake_failures: ByLabel<HandshakeFailure> = "tls_handshake_failures",
        "Failed TLS handshakes, by reason";
    pub connection_errors: ByLabel<ConnectionError> = "connection_errors",
        "Connections that ended with an error after the handshake, by reason";
    pub deadlines: ByLabel<Deadline> = "deadlines",
        "Connections that timed out, by stage";
    pub limits: ByLabel<Limit> = "limits",
        "Limits reached, by limit";
    pub reloads: ByLabel<ReloadResult> = "reloads",
        "Reloads of the configuration, by result";
    settings_current: Gauge = "settings_current",
        "0 when the last reload failed and the previous configuration is in use, else 1";
    reloaded_at: Gauge = "settings_loaded_seconds",
        "Load time of the configuration in use, Unix time";
    certificate_not_before: GaugeSet<1> = "certificate_not_before_seconds",
        "Start of the validity of each certificate, Unix time";
    certificate_not_after: GaugeSet<1> = "certificate_not_after_seconds",
        "Expiry of each certificate, Unix time";
    certificate_current: GaugeSet<1> = "certificate_current",
        "0 when the certificate on disk cannot be used and the previous one is in use, else 1";
    pub acme_steps: ByLabel<AcmeStep> = "acme_steps",
        "ACME steps, by step";
    pub acme_failures: ByLabel<AcmeFailure> = "acme_failures",
        "Failed ACME orders, by reason; each is retried";
    acme_next: GaugeSet<1> = "acme_next_seconds",
        "Time of the next ACME order of each domain, Unix time";
    self_check_verdict: GaugeSet<2> = "self_check_verdict",
        "1 for each route with its verdict in the last self-check: pass, warn, fail or unknown";
    self_check_failed: GaugeSet<2> = "self_check_failed",
        "1 for each check that failed in the last self-check, else 0";
    self_checked_at: Gauge = "self_check_seconds",
        "End of the last self-check, Unix time; 0 before the first";
    self_check_interval: Gauge = "self_check_interval_seconds",
        "Interval of the self-check; 0 when it is off";
    ready: Gauge = "ready",
        "1 when /readyz responds 200, else 0";
    lines_dropped: Counter = "log_lines_dropped",
        "Log lines dropped because of a slow reader";
}

/// Values that are read at a scrape.
#[derive(Clone, Debug, Default)]
pub struct Sampled {
    /// Open public connections in the order of [`ConnectionState::ALL`].
    pub connections: [usize; 3],
    /// Whether `/readyz` responds 200.
    pub ready: bool,
    /// Log lines dropped since the start.
    pub lines_dropped: usize,
}

impl Metrics {
    /// The counter of a route and an outcome. Store it, because this lookup is slow.
    pub fn redirects(&self, route: &str, outcome: &'static str) -> Counter {
        self.redirects
            .get_or_create_owned(&[("route", route.to_owned()), ("outcome", outcome.to_owned())])
    }

    /// Records the duration of a successful handshake.
    pub fn record_handshake(&self, took: Duration) {
        self.handshakes.observe(took.as_secs_f64());
    }

    /// Records a reload.
    pub fn record_reload(&self, result: ReloadResult) {
        self.reloads.count(result);
        match result {
            ReloadResult::Success => {
                self.settings_current.set(1);
                self.reloaded_at.set(unix_seconds(SystemTime::now()));
            }
            ReloadResult::Failure => {
                self.settings_current.set(0);
            }
        }
    }

    /// Replaces the certificates in use: name, validity in Unix time, whether it is the one on disk.
    pub fn set_certificates(
        &self,
        all: impl IntoIterator<Item = (String, RangeInclusive<i64>, bool)>,
    ) {
        let all: Vec<_> =
            all.into_iter().map(|(name, it, on)| ([("name", name)], it, on)).collect();
        let each = |value: fn(&RangeInclusive<i64>, bool) -> i64| {
            all.iter().map(move |(labels, it, on)| (labels.clone(), value(it, *on)))
        };
        self.certificate_not_before.replace(each(|validity, _| *validity.start()));
        self.certificate_not_after.replace(each(|validity, _| *validity.end()));
        self.certificate_current.replace(each(|_, current| i64::from(current)));
    }

    /// Sets the time of a domain's next order, Unix time.
    pub fn set_next_order(&self, domain: &str, at: u64) {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        self.acme_next.set([("domain", domain.to_owned())], at);
    }

    /// Removes all other domains.
    pub fn retain_acme_domains(&self, domains: &[Box<str>]) {
        self.acme_next.retain(|[(_, known)]| domains.iter().any(|domain| **domain == **known));
    }

    /// Sets the limits in use: open connections, and the interval of the self-check.
    pub fn set_limits(&self, connections: usize, self_check: Option<Duration>) {
        self.connections_limit.set(signed(connections));
        let seconds = self_check.map_or(0, |every| every.as_secs());
        self.self_check_interval.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Replaces the last self-check: route and verdict; route, check id, whether the check failed.
    pub fn record_self_check<'r>(
        &self,
        verdicts: impl IntoIterator<Item = (String, &'r str)>,
        results: impl IntoIterator<Item = (String, &'r str, bool)>,
    ) {
        self.self_check_failed.replace(results.into_iter().map(|(route, check, failed)| {
            ([("route", route), ("check", check.to_owned())], i64::from(failed))
        }));
        self.self_check_verdict.replace(
            verdicts
                .into_iter()
                .map(|(route, verdict)| ([("route", route), ("verdict", verdict.to_owned())], 1)),
        );
        self.self_checked_at.set(unix_seconds(SystemTime::now()));
    }

    /// All metrics in the `OpenMetrics` text format.
    pub fn text(&self, sampled: &Sampled) -> Result<String, fmt::Error> {
        for (&state, &count) in ConnectionState::ALL.iter().zip(&sampled.connections) {
            self.connections.get_or_create_owned(&one(state)).set(signed(count));
        }
        self.ready.set(i64::from(sampled.ready));
        self.lines_dropped.inner().store(sampled.lines_dropped as u64, Ordering::Relaxed);
        self.resident.set(signed(resident_bytes()));
        self.open_files.set(signed(open_files()));
        self.max_files.set(max_files());
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Registers the metrics of the process: start time, resident memory, open files and their limit.
fn process(registry: &mut Registry) -> (Gauge, Gauge, Gauge) {
    let started: Gauge = Registered::new(
        registry,
        "process_start_time_seconds",
        "Start time of the process, Unix time",
    );
    started.set(unix_seconds(SystemTime::now()));
    let resident = "Resident memory of the process";
    (
        Registered::new(registry, "process_resident_memory_bytes", resident),
        Registered::new(registry, "process_open_fds", "Open file descriptors"),
        Registered::new(registry, "process_max_fds", "Limit of open file descriptors"),
    )
}

fn handshakes(registry: &mut Registry) -> Histogram {
    let handshakes = Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0]);
    let help = "Time from accept to the end of a successful TLS handshake";
    registry.register("tls_handshake_seconds", help, handshakes.clone());
    handshakes
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or_default()
}

/// `VmRSS` of `proc_pid_status(5)`; 0 where there is no `/proc`.
fn resident_bytes() -> usize {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_ascii_whitespace().next()?.parse::<usize>().ok()
        })
        .map_or(0, |kib| kib * 1024)
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// The soft limit; the largest number when there is none.
fn max_files() -> i64 {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{PreflightMetrics, PreflightRun};
    use std::sync::atomic::AtomicBool;

    /// Scrapes while `replace` runs repeatedly; every scrape must contain all of these series.
    fn assert_always_complete(
        replace: impl Fn() + Sync,
        text: impl Fn() -> String,
        series: &[&str],
    ) {
        replace();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    replace();
                }
            });
            let texts: Vec<_> = (0..300).map(|_| text()).collect();
            ended.store(true, Ordering::Relaxed);
            for text in texts {
                for series in series {
                    assert!(text.contains(series), "no {series} in:\n{text}");
                }
            }
        });
    }

    #[test]
    fn a_scrape_never_sees_part_of_a_set_of_series() {
        let metrics = Metrics::new();
        let text = || metrics.text(&Sampled::default()).unwrap();
        let certificates = || {
            metrics
                .set_certificates([("a".to_owned(), 5..=7, true), ("b".to_owned(), 6..=8, false)]);
        };
        let series = [
            "certificate_not_before_seconds{name=\"b\"} 6",
            "certificate_not_after_seconds{name=\"a\"} 7",
            "certificate_not_after_seconds{name=\"b\"} 8",
            "certificate_current{name=\"a\"} 1",
            "certificate_current{name=\"b\"} 0",
        ];
        assert_always_complete(certificates, text, &series);
        let self_check = || {
            let results = [("r".to_owned(), "x", true), ("r".to_owned(), "y", false)];
            metrics.record_self_check([("r".to_owned(), "fail")], results);
        };
        let series = [
            "self_check_verdict{route=\"r\",verdict=\"fail\"} 1",
            "self_check_failed{route=\"r\",check=\"x\"} 1",
            "self_check_failed{route=\"r\",check=\"y\"} 0",
        ];
        assert_always_complete(self_check, text, &series);
        let (watch, exported) = PreflightMetrics::new();
        let run = PreflightRun { verdict: "pass", safe: true, switched: false, failed: 0 };
        let series = ["integration{integration=\"i\",state=\"s\"} 1"];
        assert_always_complete(
            || watch.record(run, [("i", "s")]),
            || exported.text().unwrap(),
            &series,
        );
    }
}
