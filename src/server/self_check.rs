//! The self-check: probes the server's own callbacks through their public URLs.
//!
//! One run at a time, however many requests wait for it; its outcome is cached. A run belongs to the
//! settings in use when it starts: a run for newer settings replaces it, and its requests get the newer
//! outcome. The run in the background is a small plan; a person gets the whole check, which replaces a
//! small one. The start of a drain ends the run, since the grace period is for callbacks. Nothing in a
//! request determines what is contacted: the plans come from the settings.

use super::origin;
use super::probes::{self, Probes};
use super::snapshot::{Snapshot, route_name};
use super::verdicts::{Change, Verdicts};
use crate::check::{self, Coverage, Mark, Plan};
use crate::observe::{Metrics, millis};
use crate::outbound::{Limits, Outbound, Resolver};
use crate::report::{Check, Report, Status, Verdict};
use crate::tls::acme::AcmeStatus;
use arc_swap::ArcSwap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// How long each step of a probe may take.
const STEP: Duration = Duration::from_secs(5);
/// How long the check of one callback may take.
const TOTAL: Duration = Duration::from_secs(30);

/// Runs the check, and caches the last outcome.
#[derive(Debug)]
pub(super) struct SelfCheck {
    state: Mutex<State>,
    acme_status: Arc<AcmeStatus>,
    metrics: Arc<Metrics>,
    probes: Arc<Probes>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Arc<Outcome>>,
    verdicts: Verdicts,
    run: Option<Run>,
    /// Set when the process drains.
    stopped: bool,
}

/// A run in progress, or one that ended. It is aborted when it is dropped.
#[derive(Debug)]
struct Run {
    snapshot: Arc<Snapshot>,
    coverage: Coverage,
    outcome: watch::Receiver<Option<Arc<Outcome>>>,
    _task: AbortOnDropHandle<()>,
}

/// What a run found.
#[derive(Debug)]
pub(super) struct Outcome {
    /// One for each route, in their order.
    pub(super) reports: Vec<Report>,
    ended: Instant,
    /// The settings it was about.
    snapshot: Arc<Snapshot>,
    coverage: Coverage,
}

/// Why there is no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoOutcome {
    /// The process drains.
    Draining,
    /// The run panicked.
    Panicked,
}

impl SelfCheck {
    pub(super) fn new(
        acme_status: Arc<AcmeStatus>,
        metrics: Arc<Metrics>,
        probes: Arc<Probes>,
    ) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), acme_status, metrics, probes })
    }

    /// The outcome for the current settings, of a run of at least this coverage: the last one while it is
    /// fresh, else that of the run in progress or of a new one.
    pub(super) async fn outcome(
        self: &Arc<Self>,
        current: &ArcSwap<Snapshot>,
        coverage: Coverage,
    ) -> Result<Arc<Outcome>, NoOutcome> {
        let mut awaited = None;
        loop {
            let mut outcome = {
                let mut state = self.lock();
                if state.stopped {
                    return Err(NoOutcome::Draining);
                }
                // Loaded under the lock, so that no older settings replace a run for newer ones.
                let snapshot = current.load_full();
                let last = state.last.as_ref().filter(|last| {
                    Arc::ptr_eq(&last.snapshot, &snapshot)
                        && last.coverage >= coverage
                        && last.ended.elapsed() < snapshot.settings.self_check.cache
                });
                if let Some(last) = last {
                    return Ok(Arc::clone(last));
                }
                match &state.run {
                    Some(run) if run.is_awaited(awaited.as_ref()) => {
                        return Err(NoOutcome::Panicked);
                    }
                    Some(run) if run.is_in_progress(&snapshot, coverage) => run.outcome.clone(),
                    _ => state.run.insert(self.start(snapshot, coverage)).outcome.clone(),
                }
            };
            // The sender is dropped before it has sent when the run was replaced, or panicked.
            if let Ok(Some(outcome)) = outcome.wait_for(Option::is_some).await.as_deref() {
                return Ok(Arc::clone(outcome));
            }
            awaited = Some(outcome);
        }
    }

    /// Ends the run in progress and starts no other: the process drains.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.run = None;
    }

    /// Starts a run in a task of its own: it continues when the client that requested it disconnects.
    fn start(self: &Arc<Self>, snapshot: Arc<Snapshot>, coverage: Coverage) -> Run {
        let (sender, outcome) = watch::channel(None);
        let run = Arc::clone(self).run(Arc::clone(&snapshot), coverage, sender);
        Run { snapshot, coverage, outcome, _task: AbortOnDropHandle::new(tokio::spawn(run)) }
    }

    async fn run(
        self: Arc<Self>,
        snapshot: Arc<Snapshot>,
        coverage: Coverage,
        sender: watch::Sender<Option<Arc<Outcome>>>,
    ) {
        let mut reports = self.probe(&snapshot, coverage).await;
        add_certificate_checks(&self.acme_status, &mut reports);
        self.record(&snapshot, &reports, coverage);
        let outcome = Arc::new(Outcome { reports, ended: Instant::now(), snapshot, coverage });
        self.lock().last = Some(Arc::clone(&outcome));
        let _ = sender.send(Some(outcome));
    }

    /// Updates the metrics, and logs what has changed.
    fn record(&self, snapshot: &Snapshot, reports: &[Report], coverage: Coverage) {
        let routes = snapshot.settings.routes.items();
        let results = routes.iter().zip(reports).flat_map(|(route, report)| {
            let ran = report.checks.iter().filter(|check| check.status != Status::Skip);
            ran.map(move |check| {
                (route_name(route).into_owned(), &*check.id, check.status == Status::Fail)
            })
        });
        let verdicts = routes.iter().zip(reports);
        let verdicts = verdicts
            .map(|(route, report)| (route_name(route).into_owned(), report.verdict_label()));
        self.metrics.record_self_check(verdicts, results);
        let mut state = self.lock();
        for report in reports {
            log(report, state.verdicts.update(report, coverage, Instant::now()));
        }
        state.verdicts.retain(reports);
    }

    /// Checks every callback.
    async fn probe(&self, snapshot: &Snapshot, coverage: Coverage) -> Vec<Report> {
        let settings = &snapshot.settings.self_check;
        let resolver = Resolver::new(settings.connect_to.clone());
        let limits = Limits { step: STEP, ..Limits::default() };
        let outbound = Outbound::new(resolver, settings.roots.clone(), limits);
        let (probes, key) = (Arc::clone(&self.probes), snapshot.probe_key.clone());
        let next = Arc::new(move || probes.issue(key.as_ref()));
        let mark = Mark { field: probes::FIELD.clone(), next };
        let mut reports = Vec::new();
        for mut plan in plans(snapshot, coverage) {
            plan.mark = Some(mark.clone());
            // On the heap: the future is too large for a worker's stack.
            reports.push(Box::pin(check::run(&plan, &outbound)).await);
        }
        reports
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can leave the state inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    /// Whether it is for these settings, of at least this coverage, and may still have an outcome.
    fn is_in_progress(&self, snapshot: &Arc<Snapshot>, coverage: Coverage) -> bool {
        Arc::ptr_eq(&self.snapshot, snapshot)
            && self.coverage >= coverage
            && self.outcome.has_changed().is_ok()
    }

    /// Whether it is the one that this receiver waited for.
    fn is_awaited(&self, receiver: Option<&watch::Receiver<Option<Arc<Outcome>>>>) -> bool {
        receiver.is_some_and(|receiver| receiver.same_channel(&self.outcome))
    }
}

impl Outcome {
    pub(super) fn verdict(&self) -> Verdict {
        Verdict::of(&self.reports)
    }
}

/// Logs a result that changed, and the others at `debug`.
fn log(report: &Report, change: Change) {
    let (callback, verdict) = (&*report.callback, report.verdict_label());
    let duration_ms = millis(report.duration);
    match change {
        Change::None => {
            tracing::debug!(event = "self_check", callback, verdict, duration_ms);
        }
        Change::Verdict => {
            let cause = report.broken.as_deref().or_else(|| {
                let unknown = report.checks.iter().find(|check| check.is_unconfirmed());
                unknown.map(|check| &*check.summary)
            });
            tracing::info!(event = "self_check", callback, verdict, cause, duration_ms);
        }
        Change::Failed(ids) => {
            let failed = ids.join(" ");
            let first = report.checks.iter().find(|check| check.status == Status::Fail);
            let explained = first.map_or(&*failed, |check| &*check.id);
            tracing::warn!(
                event = "self_check",
                callback,
                verdict,
                failed,
                cause = first.map(|check| &*check.summary),
                duration_ms,
                hint = format!(
                    "run `callback-edge explain {explained}`; `/self-check` has the details"
                ),
            );
        }
        Change::Recovered(failed_for) => tracing::info!(
            event = "self_check",
            callback,
            verdict,
            failed_for_s = failed_for.as_secs(),
            duration_ms,
        ),
    }
}

/// Adds a check for each certificate that ACME obtains to the report about its host, else to the first
/// report.
fn add_certificate_checks(acme_status: &AcmeStatus, reports: &mut [Report]) {
    for (domain, status) in acme_status.certificates() {
        let check = Check::new("tls.acme", "ACME obtains and renews the certificate");
        let mut check = match (&status.last_failure, status.is_valid()) {
            (None, true) => check.pass(status.summary()),
            (Some(_), true) => check.warn(status.summary()),
            (_, false) => check.fail(status.summary()),
        };
        if let Some((cause, hint)) = &status.last_failure {
            check = check.detail(cause).hint(hint);
        }
        check.subject = domain.to_string();
        let own = format!("https://{domain}");
        let about = |report: &Report| {
            let rest = report.callback.strip_prefix(&own);
            rest.is_some_and(|rest| rest.starts_with(['/', ':']))
        };
        let position = reports.iter().position(about).unwrap_or(0);
        if let Some(report) = reports.get_mut(position) {
            report.checks.push(check);
        }
    }
}

/// A plan for every route, at its callback URL.
fn plans(snapshot: &Snapshot, coverage: Coverage) -> impl Iterator<Item = Plan> {
    snapshot.settings.routes.items().iter().map(move |route| {
        let callback = origin::callback_url(route, &snapshot.settings, &snapshot.bound);
        let mut plan = Plan::new(callback, route.target.clone());
        plan.follow = snapshot.settings.self_check.follow;
        plan.coverage = coverage;
        // The server promises every byte.
        plan.strict = true;
        plan.total = TOTAL;
        plan
    })
}
