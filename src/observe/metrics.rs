use super::gauges::GaugeSet;
use super::label::{
    AcmeFailure, AcmeStep, ConnectionError, ConnectionState, Deadline, HandshakeFailure, Label,
    Limit, ListenerKind, Refusal, ReloadResult, Status,
};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One counter for each value of a closed label, found without hashing.
#[derive(Debug)]
pub struct ByLabel<L> {
    counters: Vec<Counter>,
    label: PhantomData<L>,
}

impl<L: Label> ByLabel<L> {
    /// Counts one.
    pub fn count(&self, label: L) {
        if let Some(counter) = self.counters.get(label.index()) {
            counter.inc();
        }
    }
}

/// A metric that the registry tells of from its beginning, at zero.
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

/// Declares [`Metrics`]: each with its name, and with its help, which is its documentation too.
macro_rules! metrics {
    ($($visible:vis $field:ident: $type:ty = $name:literal, $help:literal;)+) => {
        /// Every metric. Names carry the prefix `callback_edge_`.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            resident: Gauge,
            open_files: Gauge,
            handshakes: Histogram,
            $(#[doc = $help] $visible $field: $type,)+
        }

        impl Metrics {
            /// Every metric at zero.
            pub fn new() -> Self {
                let mut registry = Registry::default();
                let (resident, open_files) = process(&mut registry);
                let own = registry.sub_registry_with_prefix("callback_edge");
                let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
                own.register("build", "Version of the program", version);
                let metrics = Self {
                    handshakes: handshakes(own),
                    $($field: Registered::new(own, $name, $help),)+
                    resident,
                    open_files,
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
        "Callbacks sent on, by route and by what the parameter names say (code, error, other)";
    pub requests: ByLabel<Status> = "requests",
        "Requests answered on any listener, by status";
    pub accepted: ByLabel<ListenerKind> = "connections_accepted",
        "Connections accepted, by listener";
    pub refused: ByLabel<Refusal> = "connections_refused",
        "Connections turned away, by reason";
    pub evicted: Counter = "connections_evicted",
        "Idle connections asked to make room for others";
    connections: Family<One, Gauge> = "connections",
        "Open connections on the public listeners, by what they do";
    pub handshake_failures: ByLabel<HandshakeFailure> = "tls_handshake_failures",
        "TLS handshakes that failed, by reason";
    pub connection_errors: ByLabel<ConnectionError> = "connection_errors",
        "Connections that ended in an error after their handshake, by reason";
    pub deadlines: ByLabel<Deadline> = "deadlines",
        "Deadlines that passed and ended a connection or a form, by stage";
    pub limits: ByLabel<Limit> = "limits",
        "Times that a limit was reached, by limit";
    pub reloads: ByLabel<ReloadResult> = "reloads",
        "Reloads of the settings, by result";
    settings_current: Gauge = "settings_current",
        "1 when the last load of the settings succeeded, 0 when older settings are kept";
    reloaded_at: Gauge = "settings_loaded_seconds",
        "When the settings in force were loaded, Unix time";
    certificate_not_after: GaugeSet<1> = "certificate_not_after_seconds",
        "End of validity of each certificate, Unix time";
    certificate_current: GaugeSet<1> = "certificate_current",
        "1 when the certificate in use is the one on disk, 0 when an older one is kept";
    pub acme_steps: ByLabel<AcmeStep> = "acme_steps",
        "Steps taken to certificates by ACME, by step";
    pub acme_failures: ByLabel<AcmeFailure> = "acme_failures",
        "Certificates that could not be had by ACME, by reason; each is tried again";
    acme_next: GaugeSet<1> = "acme_next_seconds",
        "When the next certificate is ordered for each domain, Unix time";
    self_check_passed: Gauge = "self_check_passed",
        "1 when every callback passed the last self-check";
    self_check_failed: GaugeSet<2> = "self_check_failed",
        "1 when this check of this route failed in the last self-check, 0 when not";
    self_checked_at: Gauge = "self_check_seconds",
        "When the last self-check ended, Unix time; 0 for never";
    ready: Gauge = "ready",
        "1 when /readyz answers 200";
    lines_dropped: Counter = "log_lines_dropped",
        "Log lines dropped because their reader was too slow";
}

/// What is looked up at the moment of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Sampled {
    /// Open public connections in the order of [`ConnectionState::ALL`].
    pub connections: [usize; 3],
    /// Whether `/readyz` answers 200.
    pub ready: bool,
    /// Log lines dropped since the start.
    pub lines_dropped: usize,
}

impl Metrics {
    /// The counter of a route and an outcome; keep it rather than look it up for each request.
    pub fn redirects(&self, route: &str, outcome: &'static str) -> Counter {
        self.redirects
            .get_or_create_owned(&[("route", route.to_owned()), ("outcome", outcome.to_owned())])
    }

    /// Records the time of a handshake that succeeded.
    pub fn handshake(&self, took: Duration) {
        self.handshakes.observe(took.as_secs_f64());
    }

    /// Records a reload.
    pub fn reloaded(&self, result: ReloadResult) {
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

    /// Records the certificates in use, in place of those before: name, end of validity in Unix
    /// time, whether it is the one on disk.
    pub fn certificates(&self, all: impl IntoIterator<Item = (String, i64, bool)>) {
        let (ends, current): (Vec<_>, Vec<_>) = all
            .into_iter()
            .map(|(name, not_after, current)| {
                let labels = [("name", name)];
                ((labels.clone(), not_after), (labels, i64::from(current)))
            })
            .unzip();
        self.certificate_not_after.replace(ends);
        self.certificate_current.replace(current);
    }

    /// Records when a domain's next certificate is ordered, Unix time.
    pub fn acme_next(&self, domain: &str, at: u64) {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        self.acme_next.set([("domain", domain.to_owned())], at);
    }

    /// Removes the domains for which no certificate is ordered any more.
    pub fn acme_domains(&self, domains: &[Box<str>]) {
        self.acme_next.retain(|[(_, known)]| domains.iter().any(|domain| **domain == **known));
    }

    /// Records a self-check, in place of the one before: route, id of the check, whether it failed.
    pub fn self_checked<'r>(
        &self,
        passed: bool,
        results: impl IntoIterator<Item = (String, &'r str, bool)>,
    ) {
        self.self_check_failed.replace(results.into_iter().map(|(route, check, failed)| {
            ([("route", route), ("check", check.to_owned())], i64::from(failed))
        }));
        self.self_check_passed.set(i64::from(passed));
        self.self_checked_at.set(unix_seconds(SystemTime::now()));
    }

    /// Everything in the `OpenMetrics` text format.
    pub fn text(&self, sampled: &Sampled) -> Result<String, fmt::Error> {
        for (&state, &count) in ConnectionState::ALL.iter().zip(&sampled.connections) {
            self.connections.get_or_create_owned(&one(state)).set(signed(count));
        }
        self.ready.set(i64::from(sampled.ready));
        self.lines_dropped.inner().store(sampled.lines_dropped as u64, Ordering::Relaxed);
        self.resident.set(signed(resident_bytes()));
        self.open_files.set(signed(open_files()));
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

/// What the process itself takes: resident memory and open files; and since when it runs.
fn process(registry: &mut Registry) -> (Gauge, Gauge) {
    let started: Gauge =
        Registered::new(registry, "process_start_time_seconds", "Start of the process, Unix time");
    started.set(unix_seconds(SystemTime::now()));
    let resident = "Resident memory of the process";
    (
        Registered::new(registry, "process_resident_memory_bytes", resident),
        Registered::new(registry, "process_open_fds", "Open file descriptors"),
    )
}

fn handshakes(registry: &mut Registry) -> Histogram {
    let handshakes = Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0]);
    let help = "Time from accept to the end of a TLS handshake that succeeded";
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{WatchMetrics, Watched};
    use std::sync::atomic::AtomicBool;

    /// Scrapes while `replace` runs again and again; every scrape must hold all of these.
    fn never_missing(replace: impl Fn() + Sync, text: impl Fn() -> String, series: &[&str]) {
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
    fn a_scrape_sees_a_set_of_series_whole_or_not_at_all() {
        let metrics = Metrics::new();
        let text = || metrics.text(&Sampled::default()).unwrap();
        let certificates = || {
            metrics.certificates([("a".to_owned(), 7, true), ("b".to_owned(), 8, false)]);
        };
        let series = [
            "certificate_not_after_seconds{name=\"a\"} 7",
            "certificate_not_after_seconds{name=\"b\"} 8",
            "certificate_current{name=\"a\"} 1",
            "certificate_current{name=\"b\"} 0",
        ];
        never_missing(certificates, text, &series);
        let self_check = || {
            let results = [("r".to_owned(), "x", true), ("r".to_owned(), "y", false)];
            metrics.self_checked(true, results);
        };
        let series = [
            "self_check_failed{route=\"r\",check=\"x\"} 1",
            "self_check_failed{route=\"r\",check=\"y\"} 0",
        ];
        never_missing(self_check, text, &series);
        let watch = WatchMetrics::new();
        let run = Watched { verdict: "pass", safe: true, switched: false, failed: 0 };
        let series = ["integration{integration=\"i\",state=\"s\"} 1"];
        never_missing(|| watch.ran(run, [("i", "s")]), || watch.text().unwrap(), &series);
    }
}
