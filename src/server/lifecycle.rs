//! The life of the process, from signal to signal: serve, reload, rotate, drain, end.

use super::process::{Process, StartError, Startup, cannot_start};
use super::shared::Shared;
use crate::observe::millis;
use crate::tls::Refreshed;
use sd_notify::NotifyState;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

/// How often certificate files are looked at. Kubernetes swaps a symlink and sends no signal.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(2);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request was answered.
    Drained,
    /// A second signal or the end of the grace period cut connections off.
    Forced,
}

/// Serves until a signal ends it.
pub async fn serve(startup: Startup) -> Result<Ended, StartError> {
    // Before the first answer, so that no signal is missed after it.
    let mut signals = Signals::new().map_err(|error| cannot_start(&error))?;
    let mut process = Process::start(startup)?;
    notify(&[NotifyState::Ready]);
    let life = async {
        let signal = run(&mut process, &mut signals).await;
        leave(&mut process, &mut signals, signal).await
    };
    // In the same task, so that a life that hangs starves the watchdog.
    tokio::select! {
        ended = life => Ok(ended),
        never = feed_watchdog() => match never {},
    }
}

/// Serves, reloads and rotates until it is asked to end; tells by which signal.
async fn run(process: &mut Process, signals: &mut Signals) -> &'static str {
    let mut files = CertificatePoll::new();
    let mut check = CheckRound::begin();
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::ToEnd(signal) => return signal,
                Asked::ToReload => {
                    // sd_notify(3): RELOADING=1 comes with the time at which it began.
                    let began = NotifyState::monotonic_usec_now().ok();
                    notify(&[Some(NotifyState::Reloading), began].into_iter().flatten().collect::<Vec<_>>());
                    process.reload();
                    files.discard();
                    notify(&[NotifyState::Ready]);
                }
            },
            () = check.due(&process.shared) => check.start(&process.shared),
            refreshed = files.changed(&process.shared) => process.take_certificates(refreshed),
        }
    }
}

/// Polls the certificate files on a thread that may block: a network file system may take long, and
/// meanwhile signals are answered.
struct CertificatePoll {
    interval: Interval,
    reading: Option<JoinHandle<Option<Refreshed>>>,
}

impl CertificatePoll {
    fn new() -> Self {
        let mut interval = interval(CERTIFICATE_LOOK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { interval, reading: None }
    }

    /// Waits until files differ from what is in use. Cancel safe.
    async fn changed(&mut self, shared: &Shared) -> Refreshed {
        loop {
            let reading = match &mut self.reading {
                Some(reading) => reading,
                none => {
                    self.interval.tick().await;
                    let current = shared.store.current();
                    none.insert(spawn_blocking(move || current.refreshed()))
                }
            };
            let read = reading.await;
            self.reading = None;
            // A panic is in the log already.
            if let Ok(Some(refreshed)) = read {
                return refreshed;
            }
        }
    }

    /// Forgets what is being read: it was compared with certificates that are in use no more.
    fn discard(&mut self) {
        self.reading = None;
    }
}

/// The self-checks that run by themselves.
struct CheckRound {
    last: Instant,
}

impl CheckRound {
    fn begin() -> Self {
        Self { last: Instant::now() }
    }

    /// Waits for the next one; for ever when there is none.
    async fn due(&self, shared: &Shared) {
        match shared.snapshot.load().settings.self_check.every {
            Some(every) => tokio::time::sleep_until((self.last + every).into()).await,
            None => std::future::pending().await,
        }
    }

    fn start(&mut self, shared: &Arc<Shared>) {
        self.last = Instant::now();
        let shared = Arc::clone(shared);
        tokio::spawn(async move { shared.self_check.outcome(&shared.snapshot).await });
    }
}

/// Readiness fails, the delay passes, listeners close, connections finish, the rest is dropped.
async fn leave(process: &mut Process, signals: &mut Signals, signal: &'static str) -> Ended {
    let shared = Arc::clone(&process.shared);
    let shutdown = shared.snapshot.load().settings.shutdown.clone();
    shared.leaving.store(true, Relaxed);
    // Its requests would wait longer than `grace` allows.
    shared.self_check.stop();
    notify(&[NotifyState::Stopping]);
    tracing::info!(
        event = "draining",
        signal,
        delay_ms = millis(shutdown.delay),
        grace_ms = millis(shutdown.grace),
    );
    let drain = async {
        tokio::time::sleep(shutdown.delay).await;
        timeout(shutdown.grace, process.listeners.drain()).await.is_ok()
    };
    let (drained, why) = tokio::select! {
        drained = drain => (drained, "grace"),
        signal = signals.end() => (false, signal),
    };
    if drained {
        tracing::info!(event = "stopped", result = "drained");
        return Ended::Drained;
    }
    let open = shared.slots.by_state().iter().sum::<usize>();
    tracing::warn!(event = "stopped", result = "forced", by = why, connections = open);
    shared.kill.cancel();
    Ended::Forced
}

/// The signals that the process answers.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::ToEnd("SIGTERM"),
            _ = self.interrupt.recv() => Asked::ToEnd("SIGINT"),
            _ = self.hangup.recv() => Asked::ToReload,
        }
    }

    /// The next signal that asks for the end.
    async fn end(&mut self) -> &'static str {
        loop {
            if let Asked::ToEnd(signal) = self.next().await {
                return signal;
            }
        }
    }
}

/// What a signal asks for.
enum Asked {
    ToEnd(&'static str),
    ToReload,
}

/// Tells the service manager that the process is alive, also while it ends.
async fn feed_watchdog() -> Infallible {
    let Some(allowed) = sd_notify::watchdog_enabled().filter(|allowed| !allowed.is_zero()) else {
        return std::future::pending().await;
    };
    // Twice in the time that the manager allows, as sd_watchdog_enabled(3) asks.
    let mut alive = interval(allowed / 2);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        alive.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

/// Tells the service manager; without one it is nothing.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(
            event = "notify_failed",
            cause = %error,
            hint = "the service manager does not hear of this process: see whether `$NOTIFY_SOCKET` can be reached",
        );
    }
}
