//! ACME (RFC 8555) with renewal information (RFC 9773).
//!
//! [`start`] reads the state directory into the certificate store, so that a restart serves
//! immediately and orders nothing. Then one task locks the directory, and runs one [`renewer`] for each
//! domain, which orders a certificate when one is due:
//!
//! - [`schedule`] and [`journal`] determine when, from the time and the stored state;
//! - [`trial`] tests before an order whether the domain leads to this process;
//! - [`order`] creates or resumes an order and obtains the certificate;
//! - [`challenge`] has the responses that the listeners serve meanwhile;
//! - [`renewal_info`] requests the renewal window;
//! - [`account`] reads or creates the account, [`client`] sends requests, [`retry`] repeats them after
//!   `badNonce`, [`problem`] has the problem types, [`failure`] classifies failures;
//! - [`state`] reads and writes the state directory, [`status`] is the state that other modules read,
//!   [`context`] is shared by the renewers.
//!
//! File operations run on blocking threads, never on a thread that serves.
//!
//! No failure is final: each is logged and retried.

mod account;
mod challenge;
mod client;
mod clock;
mod context;
mod failure;
mod journal;
mod order;
mod problem;
mod renewal_info;
mod renewer;
mod retry;
mod schedule;
mod state;
mod status;
mod trial;

pub use challenge::{ACME_TLS, Challenges};
pub use status::{AcmeStatus, CertificateStatus};
pub use trial::PATH as CHALLENGE_PATH;

use super::Store;
use crate::config::Acme;
use crate::observe::{Label, Metrics};
use crate::outbound::{Limits, Outbound, Override, Resolver, Roots};
use context::Context;
use renewer::Renewer;
use state::StateDir;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The time limit of each step of a request; ACME servers are slow.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit of each step of a trial.
const TRIAL_STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// The wait before all renewers restart after one has panicked.
const PANIC_BACKOFF: Duration = Duration::from_mins(1);

/// How often a state directory that another process owns is polled, for its lock and for renewed
/// certificates.
const LOCK_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The running ACME tasks; dropping it stops them. The next start resumes a pending order.
#[derive(Debug)]
pub struct Running {
    settings: Acme,
    overrides: Vec<Override>,
    cancel: CancellationToken,
}

impl Running {
    /// Whether it was started with these settings.
    pub fn is(&self, settings: &Acme, overrides: &[Override]) -> bool {
        self.settings == *settings && self.overrides == overrides
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Puts the stored certificates in use, and starts their renewal. The trials connect to the
/// `overrides`.
pub fn start(
    settings: &Acme,
    overrides: &[Override],
    acme_status: &Arc<AcmeStatus>,
    store: &Arc<Store>,
    metrics: &Arc<Metrics>,
) -> Running {
    let outbound = |overrides, roots, step| {
        Outbound::new(Resolver::new(overrides), roots, Limits { step, ..Limits::default() })
    };
    let context = Arc::new(Context {
        state_dir: StateDir::new(&settings.state_dir),
        outbound: outbound(Vec::new(), settings.roots.clone(), STEP_TIMEOUT),
        probe: outbound(overrides.to_vec(), Roots::public(), TRIAL_STEP_TIMEOUT),
        settings: settings.clone(),
        acme_status: Arc::clone(acme_status),
        store: Arc::clone(store),
        metrics: Arc::clone(metrics),
        account_lock: tokio::sync::Mutex::default(),
    });
    store.retain_acme(&context.names());
    metrics.retain_acme_domains(&context.names());
    {
        let mut certificates = acme_status.lock();
        certificates.retain(|name, _| context.names().iter().any(|known| **known == **name));
    }
    context.load_certificates();
    let cancel = CancellationToken::new();
    let ended = cancel.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = run_renewers(context) => {}
            () = ended.cancelled() => {}
        }
    });
    Running { settings: settings.clone(), overrides: overrides.to_vec(), cancel }
}

/// Stops serving the certificates of ACME.
pub fn clear(acme_status: &AcmeStatus, store: &Store, metrics: &Metrics) {
    store.retain_acme(&[]);
    store.update_metrics(metrics);
    metrics.retain_acme_domains(&[]);
    acme_status.lock().clear();
}

async fn run_renewers(context: Arc<Context>) {
    acquire_lock(&context).await;
    loop {
        let mut renewers = JoinSet::new();
        for name in context.names() {
            let context = Arc::clone(&context);
            renewers.spawn(async move {
                let state_dir = context.state_dir.clone();
                let read = state_dir.blocking(move |_| Ok(Renewer::new(&name, &context)));
                if let Ok(renewer) = read.await {
                    // On the heap: the future is too large to be moved on a worker's stack.
                    Box::pin(renewer.run()).await;
                }
            });
        }
        // A renewer ends only by a panic, which is in the log. All restart from the stored state,
        // after a wait.
        renewers.join_next().await;
        renewers.shutdown().await;
        tokio::time::sleep(PANIC_BACKOFF).await;
    }
}

/// Waits for the lock of the state directory. Meanwhile the certificates of its owner are used: while
/// an old process drains, the new one serves the same certificates.
async fn acquire_lock(context: &Arc<Context>) {
    let (mut locked, mut failures) = (0, 0);
    loop {
        let pause = match context.state_dir.blocking(StateDir::lock).await {
            Ok(true) => return,
            Ok(false) => {
                locked += 1;
                // Immediately after a reload, the stopped tasks of this process may still have the lock.
                if locked == 2 {
                    tracing::warn!(
                        event = "acme_state_held",
                        state_dir = %context.state_dir.path().display(),
                        hint = "another process orders certificates in this directory; this process \
                                serves them, and takes over when the other one exits",
                    );
                }
                LOCK_POLL_INTERVAL
            }
            Err(error) => {
                failures += 1;
                let failure = failure::Failure::state(&error);
                context.metrics.acme_failures.count(failure.reason);
                let pause = schedule::backoff(failures, false, 0.0);
                tracing::error!(
                    event = "acme_failed",
                    state_dir = %context.state_dir.path().display(),
                    reason = failure.reason.value(),
                    cause = failure.cause,
                    hint = failure.log_hint("", context.settings.challenge),
                    retry_at = %clock::timestamp(clock::now() + pause),
                );
                Duration::from_secs(pause)
            }
        };
        tokio::time::sleep(pause).await;
        let shared = Arc::clone(context);
        let loaded = context.state_dir.blocking(move |_| {
            shared.load_certificates();
            Ok(())
        });
        // A panic is already in the log.
        let _ = loaded.await;
    }
}
