//! Certificates by themselves: ACME (RFC 8555) with renewal information (RFC 9773).
//!
//! [`start`] reads what the state folder holds and hands it to the store, so that a restart
//! serves at once and orders nothing. Behind it, one task takes the folder's lock, and then one
//! [`keeper`] for each name orders when it is time:
//!
//! [`schedule`] and [`journal`] say when, as functions of the time and of what is remembered ·
//! [`trial`] looks first whether the name leads here · [`order`] walks from the order to the
//! certificate · [`renewal_info`] asks when to renew · [`challenge`] holds the answers that listeners
//! give meanwhile · [`board`] is what others see · [`failure`] tells failures apart · [`state`]
//! writes · [`client`] speaks · [`account`] is ours there · [`problem`] and [`retry`] read its refusals ·
//! [`context`] is shared.
//!
//! Files are read and written where that may block, and never on a thread that serves.
//!
//! Nothing in here stops: whatever fails is told, and is tried again later.

mod account;
mod board;
mod challenge;
mod client;
mod clock;
mod context;
mod failure;
mod journal;
mod keeper;
mod order;
mod problem;
mod renewal_info;
mod retry;
mod schedule;
mod state;
mod trial;

pub use board::{Board, Standing};
pub use challenge::{ACME_TLS, Challenges};
pub use trial::PATH as CHALLENGE_PATH;

use super::Store;
use crate::config::Acme;
use crate::observe::{Label, Metrics};
use crate::outbound::{Limits, Outbound, Override, Resolver, Roots};
use context::Context;
use keeper::Keeper;
use state::Folder;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long each step of a request may take. Directories sign and look things up meanwhile.
const STEP: Duration = Duration::from_secs(30);
/// How long each step of the own test may take.
const TRIAL_STEP: Duration = Duration::from_secs(5);

/// How long to wait before all begins anew after a part of it has panicked.
const AFTER_A_PANIC: Duration = Duration::from_mins(1);

/// How often a folder that another process owns is looked at: for its end, and for what it has
/// renewed.
const NOT_OURS: Duration = Duration::from_secs(2);

/// ACME at work; ends when it is dropped. An order that is under way then is gone on with by
/// whoever comes next.
#[derive(Debug)]
pub struct Running {
    settings: Acme,
    overrides: Vec<Override>,
    cancel: CancellationToken,
}

impl Running {
    /// Whether these settings would start the same.
    pub fn is(&self, settings: &Acme, overrides: &[Override]) -> bool {
        self.settings == *settings && self.overrides == overrides
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Puts the certificates of before in use, and begins to see to them. The `overrides` say where
/// this machine finds itself, for the own test.
pub fn start(
    settings: &Acme,
    overrides: &[Override],
    board: &Arc<Board>,
    store: &Arc<Store>,
    metrics: &Arc<Metrics>,
) -> Running {
    let outbound = |overrides, roots, step| {
        Outbound::new(Resolver::new(overrides), roots, Limits { step, ..Limits::default() })
    };
    let context = Arc::new(Context {
        folder: Folder::new(&settings.state_dir),
        outbound: outbound(Vec::new(), settings.roots.clone(), STEP),
        probe: outbound(overrides.to_vec(), Roots::public(), TRIAL_STEP),
        settings: settings.clone(),
        board: Arc::clone(board),
        store: Arc::clone(store),
        metrics: Arc::clone(metrics),
        accounts: tokio::sync::Mutex::default(),
    });
    store.keep_only(&context.names());
    metrics.acme_domains(&context.names());
    {
        let mut standings = board.lock();
        standings.retain(|name, _| context.names().iter().any(|known| **known == **name));
    }
    context.follow();
    let cancel = CancellationToken::new();
    let ended = cancel.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = see_to_all(context) => {}
            () = ended.cancelled() => {}
        }
    });
    Running { settings: settings.clone(), overrides: overrides.to_vec(), cancel }
}

/// Ends ACME: no certificate of its own is shown any more.
pub fn end(board: &Board, store: &Store, metrics: &Metrics) {
    store.keep_only(&[]);
    store.tell(metrics);
    metrics.acme_domains(&[]);
    board.lock().clear();
}

async fn see_to_all(context: Arc<Context>) {
    take(&context).await;
    loop {
        let mut keepers = JoinSet::new();
        for name in context.names() {
            let context = Arc::clone(&context);
            keepers.spawn(async move {
                let folder = context.folder.clone();
                let read = folder.blocking(move |_| Ok(Keeper::new(&name, &context)));
                if let Ok(keeper) = read.await {
                    // On the heap: it is too large to be moved about on a worker's stack.
                    Box::pin(keeper.run()).await;
                }
            });
        }
        // A keeper ends only by a panic, which the log has told. All begin anew, from what is
        // written, and not at once.
        keepers.join_next().await;
        keepers.shutdown().await;
        tokio::time::sleep(AFTER_A_PANIC).await;
    }
}

/// Waits until the folder is ours. Meanwhile its owner's certificates are used: while an old
/// process drains, its successor shows the same ones.
async fn take(context: &Arc<Context>) {
    let (mut held, mut failures) = (0, 0);
    loop {
        let pause = match context.folder.blocking(Folder::lock).await {
            Ok(true) => return,
            Ok(false) => {
                held += 1;
                // The first time may be our own predecessor's last moment, after a reload.
                if held == 2 {
                    tracing::warn!(
                        event = "acme_state_held",
                        state_dir = %context.folder.path().display(),
                        hint = "another process orders certificates with this folder, and this \
                                one uses them; it takes over when the other ends",
                    );
                }
                NOT_OURS
            }
            Err(error) => {
                failures += 1;
                let failure = failure::Failure::state(&error);
                context.metrics.acme_failures.count(failure.reason);
                tracing::error!(
                    event = "acme_failed",
                    state_dir = %context.folder.path().display(),
                    reason = failure.reason.value(),
                    cause = failure.cause,
                    hint = failure.hint("", context.settings.challenge),
                );
                Duration::from_secs(schedule::back_off(failures, false, 0.0))
            }
        };
        tokio::time::sleep(pause).await;
        let following = Arc::clone(context);
        let followed = context.folder.blocking(move |_| {
            following.follow();
            Ok(())
        });
        // A panic is in the log already.
        let _ = followed.await;
    }
}
