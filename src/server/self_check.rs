//! The self-check: the prober against the edge's own callbacks, from outside.
//!
//! One run at a time, whoever asks; its answer is given again for a while. Nothing in a request
//! says what is contacted: the plans come from the settings.

use super::origin;
use super::snapshot::{Snapshot, name};
use crate::check::{self, Plan};
use crate::observe::{Metrics, millis};
use crate::outbound::{Limits, Outbound, Resolver};
use crate::report::{Check, Report, Status, Verdict};
use crate::tls::acme::Board;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long each step of a probe may take.
const STEP: Duration = Duration::from_secs(5);
/// How long the check of one callback may take.
const TOTAL: Duration = Duration::from_secs(30);

/// Runs the check, and keeps the last outcome.
#[derive(Debug)]
pub(super) struct SelfCheck {
    state: Mutex<State>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Arc<Outcome>>,
    running: Option<watch::Receiver<Option<Arc<Outcome>>>>,
}

/// What a run found.
#[derive(Debug)]
pub(super) struct Outcome {
    /// One for each route, in their order.
    pub(super) reports: Vec<Report>,
    ended: Instant,
    /// The settings it was about.
    snapshot: Arc<Snapshot>,
}

impl SelfCheck {
    pub(super) fn new(board: Arc<Board>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), board, metrics })
    }

    /// The last outcome while it is fresh, else that of a run: the one under way or a new one.
    /// `None` when the run came to no end.
    pub(super) async fn outcome(self: &Arc<Self>, snapshot: Arc<Snapshot>) -> Option<Arc<Outcome>> {
        let mut running = {
            let mut state = self.lock();
            let fresh = state.last.as_ref().filter(|outcome| {
                Arc::ptr_eq(&outcome.snapshot, &snapshot)
                    && outcome.ended.elapsed() < snapshot.settings.self_check.cache
            });
            if let Some(fresh) = fresh {
                return Some(Arc::clone(fresh));
            }
            // A run whose sender is gone has panicked, and is no longer under way.
            let running = state.running.as_ref().filter(|running| running.has_changed().is_ok());
            if let Some(running) = running {
                running.clone()
            } else {
                let (sender, receiver) = watch::channel(None);
                state.running = Some(receiver.clone());
                // A task of its own: it goes on when the client that asked has gone.
                tokio::spawn(Arc::clone(self).run(snapshot, sender));
                receiver
            }
        };
        running.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone())
    }

    async fn run(
        self: Arc<Self>,
        snapshot: Arc<Snapshot>,
        sender: watch::Sender<Option<Arc<Outcome>>>,
    ) {
        let mut reports = probe(&snapshot).await;
        tell_of_certificates(&self.board, &mut reports);
        self.record(&snapshot, &reports);
        let outcome = Arc::new(Outcome { reports, ended: Instant::now(), snapshot });
        {
            let mut state = self.lock();
            state.last = Some(Arc::clone(&outcome));
            state.running = None;
        }
        let _ = sender.send(Some(outcome));
    }

    /// Tells the metrics and the log.
    fn record(&self, snapshot: &Snapshot, reports: &[Report]) {
        let routes = snapshot.settings.routes.items();
        let results = routes.iter().zip(reports).flat_map(|(route, report)| {
            let ran = report.checks.iter().filter(|check| check.status != Status::Skip);
            ran.map(move |check| (name(route), &*check.id, check.status == Status::Fail))
        });
        self.metrics.self_checked(Verdict::of(reports) == Verdict::Pass, results);
        for report in reports {
            let failed: Vec<&str> = report
                .checks
                .iter()
                .filter(|check| check.status == Status::Fail)
                .map(|check| &*check.id)
                .collect();
            let verdict = report.verdict();
            let took = millis(report.duration);
            if matches!(verdict, Verdict::Fail | Verdict::Error) {
                tracing::warn!(
                    event = "self_check",
                    callback = report.callback,
                    verdict = verdict.name(),
                    failed = failed.join(" "),
                    cause = report.broken,
                    duration_ms = took,
                    hint = "GET /self-check tells the reasons",
                );
            } else {
                tracing::info!(
                    event = "self_check",
                    callback = report.callback,
                    verdict = verdict.name(),
                    duration_ms = took
                );
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can leave it half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcome {
    pub(super) fn verdict(&self) -> Verdict {
        Verdict::of(&self.reports)
    }
}

async fn probe(snapshot: &Snapshot) -> Vec<Report> {
    let settings = &snapshot.settings.self_check;
    let resolver = Resolver::new(settings.connect_to.clone());
    let limits = Limits { step: STEP, ..Limits::default() };
    let outbound = Outbound::new(resolver, settings.roots.clone(), limits);
    let mut reports = Vec::new();
    for plan in plans(snapshot) {
        // On the heap: it is too large to be handed from hand to hand on a worker's stack.
        reports.push(Box::pin(check::run(&plan, &outbound)).await);
    }
    reports
}

/// How it stands with the certificates that the edge obtains by itself, in the report about their
/// host, else in the first.
fn tell_of_certificates(board: &Board, reports: &mut [Report]) {
    for (domain, standing) in board.standings() {
        let check = Check::new("tls.acme", "the certificate is obtained and renewed by ACME");
        let mut check = match (&standing.trouble, standing.is_valid()) {
            (None, true) => check.pass(standing.summary()),
            (Some(_), true) => check.warn(standing.summary()),
            (_, false) => check.fail(standing.summary()),
        };
        if let Some((cause, hint)) = &standing.trouble {
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

/// What is checked: every route at its callback URL.
fn plans(snapshot: &Snapshot) -> impl Iterator<Item = Plan> {
    snapshot.settings.routes.items().iter().map(|route| {
        let callback = origin::callback_url(route, &snapshot.settings, &snapshot.bound);
        let mut plan = Plan::new(callback, route.target.clone());
        plan.follow = snapshot.settings.self_check.follow;
        plan.total = TOTAL;
        plan
    })
}
