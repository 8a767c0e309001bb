//! The life of the process: start, reload, rotate, drain, end.

use super::listen::{Bound, Key, Listeners};
use super::self_check::SelfCheck;
use super::service::whole;
use super::slots::Slots;
use super::state::{LinesDropped, Shared, Snapshot};
use super::{announce, reload};
use crate::config::{Loaded, Problem, Problems, Settings};
use crate::observe::{Log, Metrics};
use crate::tls::acme::{self, Board};
use crate::tls::{Acceptor, Certificates, Store};
use arc_swap::ArcSwap;
use rustix::process::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// How often certificate files are looked at. Kubernetes swaps a symlink and sends no signal.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(2);

/// Files that the process needs beside its public connections: those of the admin listener, and
/// its own.
const OTHER_FILES: u64 = 128;

/// Reads the settings again, for a reload.
pub type Source = Box<dyn Fn() -> Result<Loaded, Problems> + Send>;

/// What it takes to start.
pub struct Startup {
    /// The settings.
    pub settings: Settings,
    /// The file they came from.
    pub file: Option<PathBuf>,
    /// Where to read them again.
    pub source: Source,
    /// The log.
    pub log: Log,
    /// Sockets that a service manager handed over.
    pub inherited: Vec<TcpListener>,
    /// Whether a person may read stderr: then the greeting and the problems of a reload are text.
    /// Else everything on stderr is an event.
    pub greet: bool,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request was answered.
    Drained,
    /// A second signal or the end of the grace period cut connections off.
    Forced,
}

/// Serves until a signal ends it.
pub async fn serve(startup: Startup) -> Result<Ended, Problems> {
    let Startup { settings, file, source, log, inherited, greet } = startup;
    let log = Arc::new(log);
    let metrics = Arc::new(Metrics::new());
    raise_file_limit(settings.limits.connections);

    let store = Arc::new(Store::default());
    let board = Arc::new(Board::default());
    let acceptor = Acceptor::new(Arc::clone(&store), Arc::clone(&board.challenges))
        .map_err(|error| cannot_start(&error))?;
    let mut listeners = Listeners::new(inherited);
    let (certificates, bound) = prepare(&settings, &listeners)?;
    let addresses = listeners.addresses(&settings.listen, &bound);
    // Before the first answer, so that no signal is missed after it.
    let mut signals = Signals::new().map_err(|error| cannot_start(&error))?;

    reload::use_certificates(&store, &metrics, &certificates);
    let mut acme = None;
    reload::start_acme(&settings, &mut acme, &board, &store, &metrics)?;
    let limits = &settings.limits;
    let slots =
        Slots::new(limits.connections, limits.connections_per_address, Arc::clone(&metrics));
    let lines_dropped = {
        let log = Arc::clone(&log);
        Box::new(LinesDropped(Box::new(move || log.dropped_lines())))
    };
    let shared = Arc::new(Shared {
        snapshot: ArcSwap::from_pointee(Snapshot::new(settings, addresses, &metrics)),
        metrics,
        slots,
        store,
        board,
        self_check: SelfCheck::default(),
        lines_dropped,
        leaving: AtomicBool::new(false),
        kill: CancellationToken::new(),
    });
    let snapshot = shared.snapshot.load_full();
    listeners
        .apply(&snapshot.settings.listen, bound, &shared, &acceptor)
        .map_err(|error| cannot_start(&error))?;

    if greet {
        log.say(&announce::text(&snapshot, &shared.board, file.as_deref()));
    } else {
        announce::events(&snapshot.settings, &snapshot.bound, &shared.board);
    }
    for address in listeners.unclaimed() {
        tracing::warn!(
            event = "socket_unclaimed",
            %address,
            hint = "the service manager hands this socket over: name its address in `[listen]`, or take it out of the unit",
        );
    }
    notify(&[NotifyState::Ready]);

    let mut house = reload::House {
        shared: Arc::clone(&shared),
        listeners,
        acceptor,
        source,
        log,
        people_read: greet,
        acme,
    };
    let life = async {
        let signal = run(&mut house, &mut signals).await;
        leave(&mut house, &mut signals, signal).await
    };
    // In the same task, so that a life that hangs starves the watchdog.
    tokio::select! {
        ended = life => Ok(ended),
        never = feed_watchdog() => match never {},
    }
}

/// Serves, reloads and rotates until it is asked to end; tells by which signal.
async fn run(house: &mut reload::House, signals: &mut Signals) -> &'static str {
    let mut look = interval(CERTIFICATE_LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut check = CheckRound::begin();
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::ToEnd(signal) => return signal,
                Asked::ToReload => {
                    // sd_notify(3): RELOADING=1 comes with the time at which it began.
                    let began = NotifyState::monotonic_usec_now().ok();
                    notify(&[Some(NotifyState::Reloading), began].into_iter().flatten().collect::<Vec<_>>());
                    house.reload();
                    notify(&[NotifyState::Ready]);
                }
            },
            () = check.due(&house.shared) => check.start(&house.shared),
            _ = look.tick() => reload::look_at_certificates(&house.shared),
        }
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
        tokio::spawn(async move { shared.self_check.outcome(&shared).await });
    }
}

/// Readiness fails, the delay passes, listeners close, connections finish, the rest is dropped.
async fn leave(house: &mut reload::House, signals: &mut Signals, signal: &'static str) -> Ended {
    let shared = Arc::clone(&house.shared);
    let shutdown = shared.snapshot.load().settings.shutdown.clone();
    shared.leaving.store(true, Relaxed);
    notify(&[NotifyState::Stopping]);
    tracing::info!(
        event = "draining",
        signal,
        delay_ms = whole(shutdown.delay.as_millis()),
        grace_ms = whole(shutdown.grace.as_millis()),
    );
    let drain = async {
        tokio::time::sleep(shutdown.delay).await;
        timeout(shutdown.grace, house.listeners.drain()).await.is_ok()
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

/// Reads the certificates and binds the addresses that the settings name; all that fails is told.
pub(super) fn prepare(
    settings: &Settings,
    listeners: &Listeners,
) -> Result<(Certificates, HashMap<Key, Bound>), Problems> {
    let pairs = settings.tls.as_ref().map_or(&[][..], |tls| &tls.pairs);
    let certificates = Certificates::load(pairs);
    let acme = settings.tls.as_ref().and_then(|tls| tls.acme.as_ref());
    let acme = acme.map_or(Ok(()), acme::check);
    match (certificates, acme, listeners.bind(&settings.listen)) {
        (Ok(certificates), Ok(()), Ok(bound)) => Ok((certificates, bound)),
        (certificates, acme, bound) => {
            let unusable = certificates.err().unwrap_or_default();
            let unbound = bound.err().unwrap_or_default();
            let unusable = unusable.iter().map(Problem::from).chain(acme.err());
            Err(Problems(unusable.chain(unbound.iter().map(Problem::from)).collect()))
        }
    }
}

fn cannot_start(error: &dyn std::error::Error) -> Problems {
    Problem::error("cannot start").caused_by(error).into()
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

/// Every connection is a file. The soft limit is a default for programs that use `select`; this
/// one does not.
pub(super) fn raise_file_limit(connections: usize) {
    let needed = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    limit.current = Some(limit.maximum.map_or(needed, |maximum| maximum.min(needed)));
    let raised = setrlimit(Resource::Nofile, limit).is_ok();
    let current = getrlimit(Resource::Nofile).current;
    if !raised || current.is_some_and(|current| current < needed) {
        tracing::warn!(
            event = "file_limit",
            files = current,
            needed,
            hint = "raise the limit of open files (LimitNOFILE, ulimit -n) or lower `limits.connections`",
        );
    }
}

/// Says loudly which certificates browsers refuse.
pub(super) fn warn_about_validity(certificates: &Certificates) {
    for (origin, certificate, _) in certificates.all() {
        if let Some(cause) = certificate.invalid_at(SystemTime::now()) {
            tracing::error!(
                event = "certificate_invalid",
                certificate = %origin,
                not_after = %jiff::Timestamp::from_second(certificate.not_after).unwrap_or_default(),
                cause,
                hint = "put a valid certificate in its place; it is picked up without a restart",
            );
        }
    }
}
