//! The lifecycle of the process: serve, reload, renew certificates, drain, exit. Signals drive it.

use super::process::{Process, StartError, Startup, cannot_start};
use super::shared::Shared;
use super::terminal::ControllingTerminal;
use crate::check::Coverage;
use crate::observe::millis;
use crate::report::Verdict;
use crate::tls::CertificateChanges;
use sd_notify::NotifyState;
use std::convert::Infallible;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

/// How often certificate files are polled. Kubernetes swaps a symlink and sends no signal.
const CERTIFICATE_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How often to check whether the server is ready, while it is not.
const READINESS_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The longest time from readiness to the first self-check. Load balancers need some of it to notice.
const FIRST_SELF_CHECK: Duration = Duration::from_secs(10);

/// The longest interval after a self-check that failed, so that a repair shows soon.
const AFTER_FAILURE: Duration = Duration::from_mins(1);

/// How the shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownResult {
    /// Every request got its response.
    Drained,
    /// A second signal or the end of the grace period closed connections that were in use.
    Forced,
}

/// Serves until a signal ends it.
pub async fn serve(startup: Startup) -> Result<ShutdownResult, StartError> {
    // Before the first response, so that no signal is missed after it.
    let mut signals = Signals::new().map_err(|error| cannot_start(&error))?;
    let mut process = Process::start(startup)?;
    // Also without a certificate: it responds to challenges, and the start of a machine must not wait for
    // a CA. The status shows what is missing.
    let status = process.changed_status().unwrap_or_default();
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
    let lifecycle = async {
        let signal = run(&mut process, &mut signals).await;
        shut_down(&mut process, &mut signals, signal).await
    };
    // In the same task, so that the watchdog expires when the lifecycle hangs.
    tokio::select! {
        ended = lifecycle => Ok(ended),
        never = feed_watchdog() => match never {},
    }
}

/// Serves, reloads and renews certificates until a signal requests the shutdown; returns its name.
async fn run(process: &mut Process, signals: &mut Signals) -> &'static str {
    let mut files = CertificatePoll::new();
    let mut check = PeriodicSelfCheck::default();
    loop {
        process.check_validity();
        let is_ready = process.report_readiness();
        if let Some(status) = process.changed_status() {
            notify(&[NotifyState::Status(status)]);
        }
        if is_ready {
            check.start_timer(&process.shared);
        }
        tokio::select! {
            command = signals.next() => match command {
                Command::ShutDown(signal) => return signal,
                Command::Reload => {
                    // sd_notify(3): RELOADING=1 comes with the time at which it began.
                    let began = NotifyState::monotonic_usec_now().ok();
                    notify(&[Some(NotifyState::Reloading), began].into_iter().flatten().collect::<Vec<_>>());
                    process.reload();
                    files.discard();
                    check.next = None;
                    notify(&[NotifyState::Ready]);
                }
            },
            () = tokio::time::sleep(READINESS_POLL_INTERVAL), if !is_ready => {}
            // The loop starts with the check.
            () = tokio::time::sleep(process.until_validity_changes()) => {}
            () = check.due(), if is_ready => check.run(&process.shared),
            changes = files.changed(&process.shared) => process.apply_certificate_changes(changes),
        }
    }
}

/// Polls the certificate files on a thread that may block: a network file system may be slow, and
/// signals must be handled meanwhile.
struct CertificatePoll {
    interval: Interval,
    reading: Option<JoinHandle<Option<CertificateChanges>>>,
}

impl CertificatePoll {
    fn new() -> Self {
        let mut interval = interval(CERTIFICATE_POLL_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { interval, reading: None }
    }

    /// Waits until the files differ from the certificates in use. Cancel safe.
    async fn changed(&mut self, shared: &Shared) -> CertificateChanges {
        loop {
            let reading = match &mut self.reading {
                Some(reading) => reading,
                none => {
                    self.interval.tick().await;
                    let current = shared.store.current();
                    none.insert(spawn_blocking(move || current.reread()))
                }
            };
            let read = reading.await;
            self.reading = None;
            // A panic was logged already.
            if let Ok(Some(changes)) = read {
                return changes;
            }
        }
    }

    /// Drops the result of a read in progress: it was compared with certificates that are no longer
    /// in use.
    fn discard(&mut self) {
        self.reading = None;
    }
}

/// The self-checks that run every `self_check.every`, from the time at which the server is ready.
#[derive(Default)]
struct PeriodicSelfCheck {
    /// When the next one is due, and for which interval that was determined.
    next: Option<(Instant, Duration)>,
    running: Option<JoinHandle<bool>>,
}

impl PeriodicSelfCheck {
    /// Starts the timer, unless it runs for the interval in the settings.
    fn start_timer(&mut self, shared: &Shared) {
        let every = shared.snapshot.load().self_check_every;
        if self.next.map(|(_, every)| every) == every {
            return;
        }
        // Not at once: after a reload or a start, load balancers and other replicas change, too.
        self.next = every.map(|every| {
            (Instant::now() + every.min(FIRST_SELF_CHECK).mul_f64(jitter(0.5..=1.0)), every)
        });
    }

    /// Waits until one is due; for ever when none is configured. Cancel safe.
    async fn due(&mut self) {
        loop {
            if let Some(running) = &mut self.running {
                let failed = running.await.unwrap_or_default();
                self.running = None;
                if let (Some((next, every)), true) = (&mut self.next, failed) {
                    let soon = Instant::now() + (*every).min(AFTER_FAILURE);
                    *next = soon.min(*next);
                }
            }
            match self.next {
                Some((next, _)) => return tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Starts one, and determines when the next is due. Replicas do not run them at the same time.
    fn run(&mut self, shared: &Arc<Shared>) {
        if let Some((next, every)) = &mut self.next {
            *next = Instant::now() + every.mul_f64(jitter(0.9..=1.1));
        }
        let shared = Arc::clone(shared);
        self.running = Some(tokio::spawn(async move {
            let outcome = shared.self_check.outcome(&shared.snapshot, Coverage::Small).await;
            outcome.is_ok_and(|outcome| outcome.verdict() == Verdict::Fail)
        }));
    }
}

/// A random factor in this range; the end of the range when the system has no random bytes.
fn jitter(range: RangeInclusive<f64>) -> f64 {
    let mut byte = [u8::MAX];
    let _ = aws_lc_rs::rand::fill(&mut byte);
    let [byte] = byte;
    range.start() + (range.end() - range.start()) * f64::from(byte) / 255.0
}

/// Shuts down: readiness fails, the delay passes, listeners close, connections finish, and those that
/// did not are dropped.
async fn shut_down(
    process: &mut Process,
    signals: &mut Signals,
    signal: &'static str,
) -> ShutdownResult {
    let shared = Arc::clone(&process.shared);
    let shutdown = shared.snapshot.load().settings.shutdown.clone();
    shared.draining.store(true, Relaxed);
    // Its requests would wait longer than `grace` allows.
    shared.self_check.stop();
    notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
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
    let (drained, forced_by) = tokio::select! {
        drained = drain => (drained, "grace"),
        signal = signals.end() => (false, signal),
    };
    if drained {
        tracing::info!(event = "stopped", result = "drained");
        return ShutdownResult::Drained;
    }
    let open = shared.slots.by_state().iter().sum::<usize>();
    tracing::warn!(event = "stopped", result = "forced", by = forced_by, connections = open);
    // The runtime drops them when it shuts down.
    ShutdownResult::Forced
}

/// The signals that the process handles.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    terminal: ControllingTerminal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminal = ControllingTerminal::at_start();
        Ok(Self {
            terminal,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Command {
        tokio::select! {
            _ = self.terminate.recv() => Command::ShutDown("SIGTERM"),
            _ = self.interrupt.recv() => Command::ShutDown("SIGINT"),
            _ = self.hangup.recv() => self.hung_up(),
        }
    }

    /// A closed terminal ends the program, as it ends others.
    fn hung_up(&self) -> Command {
        if self.terminal.is_closed() { Command::ShutDown("SIGHUP") } else { Command::Reload }
    }

    /// The next signal that requests the shutdown. The end of a terminal is reported by several.
    async fn end(&mut self) -> &'static str {
        loop {
            match self.next().await {
                Command::ShutDown("SIGHUP") | Command::Reload => {}
                Command::ShutDown(signal) => return signal,
            }
        }
    }
}

/// What a signal requests.
enum Command {
    /// With the name of the signal.
    ShutDown(&'static str),
    Reload,
}

/// Notifies the service manager that the process is alive, also during the shutdown.
async fn feed_watchdog() -> Infallible {
    let Some(allowed) = sd_notify::watchdog_enabled().filter(|allowed| !allowed.is_zero()) else {
        return std::future::pending().await;
    };
    // Twice in the time that the manager allows, as sd_watchdog_enabled(3) recommends.
    let mut alive = interval(allowed / 2);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        alive.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

/// Notifies the service manager, if there is one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(
            event = "notify_failed",
            cause = %error,
            hint = "the service manager does not learn the state of this process: check that `$NOTIFY_SOCKET` is reachable",
        );
    }
}
