//! What serves, and how it changes: everything new is built whole, then swapped in; whatever fails
//! keeps the old.

use super::announce;
use super::listen::{Bound, Key, Listeners};
use super::self_check::SelfCheck;
use super::shared::Shared;
use super::slots::Slots;
use super::snapshot::Snapshot;
use crate::config::{Loaded, Problem, Problems, Settings};
use crate::observe::{Log, Metrics, ReloadResult};
use crate::tls::acme::{self, Board, Running};
use crate::tls::{Acceptor, Certificates, Store};
use arc_swap::ArcSwap;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;

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

/// The process at work.
pub(super) struct Process {
    pub(super) shared: Arc<Shared>,
    pub(super) listeners: Listeners,
    acceptor: Acceptor,
    source: Source,
    /// Whether problems are told as `config check` tells them; else each is an event.
    people_read: bool,
    acme: Option<Running>,
}

impl Process {
    /// Reads the certificates, listens, and says so.
    pub(super) fn start(startup: Startup) -> Result<Self, Problems> {
        let Startup { settings, file, source, log, inherited, greet } = startup;
        raise_file_limit(settings.limits.connections);
        let metrics = Arc::new(Metrics::new());
        let store = Arc::new(Store::default());
        let board = Arc::new(Board::default());
        let acceptor = Acceptor::new(Arc::clone(&store), Arc::clone(&board.challenges))
            .map_err(|error| cannot_start(&error))?;
        let mut listeners = Listeners::new(inherited);
        let (certificates, bound) = prepare(&settings, &listeners)?;
        let addresses = listeners.addresses(&settings.listen, &bound);
        let limits = &settings.limits;
        let slots =
            Slots::new(limits.connections, limits.connections_per_address, Arc::clone(&metrics));
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::new(settings, addresses, &metrics)),
            self_check: SelfCheck::new(Arc::clone(&board), Arc::clone(&metrics)),
            log: Arc::new(log),
            metrics,
            slots,
            store,
            board,
            leaving: AtomicBool::new(false),
            kill: CancellationToken::new(),
        });
        use_certificates(&shared, &certificates);
        let snapshot = shared.snapshot.load_full();
        let acme = follow_acme(&shared, &snapshot.settings, None);
        listeners
            .apply(&snapshot.settings.listen, bound, &shared, &acceptor)
            .map_err(|error| cannot_start(&error))?;
        if greet {
            shared.log.say(&announce::text(&snapshot, &shared.board, file.as_deref()));
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
        Ok(Self { shared, listeners, acceptor, source, people_read: greet, acme })
    }

    /// Reads the settings again and puts them in force, or says why it keeps the old ones.
    pub(super) fn reload(&mut self) {
        match self.try_reload() {
            Ok(()) => {
                self.shared.metrics.reloaded(ReloadResult::Success);
                tracing::info!(event = "reloaded");
            }
            Err(problems) => {
                self.shared.metrics.reloaded(ReloadResult::Failure);
                if self.people_read {
                    self.shared.log.say(&(problems.coloured() + "\n"));
                } else {
                    for problem in &problems.0 {
                        tracing::error!(event = "setting_refused", %problem);
                    }
                }
                tracing::error!(
                    event = "reload_failed",
                    hint = "the old settings stay in force; `callback-edge config check` shows the problems",
                );
            }
        }
    }

    fn try_reload(&mut self) -> Result<(), Problems> {
        let Loaded { settings, warnings, .. } = (self.source)()?;
        let shared = &self.shared;
        if !warnings.0.is_empty() {
            shared.log.say(&(warnings.coloured() + "\n"));
        }
        let (certificates, bound) = prepare(&settings, &self.listeners)?;
        // From here on nothing can fail but the runtime itself.
        self.acme = follow_acme(shared, &settings, self.acme.take());
        use_certificates(shared, &certificates);
        let limits = &settings.limits;
        shared.slots.set_limits(limits.connections, limits.connections_per_address);
        raise_file_limit(limits.connections);
        shared.log.set_level(settings.log.level);
        let addresses = self.listeners.addresses(&settings.listen, &bound);
        let new = Arc::new(Snapshot::new(settings, addresses, &shared.metrics));
        let old = shared.snapshot.swap(Arc::clone(&new));
        shared.slots.wake_all();
        if old.settings.log.format != new.settings.log.format {
            tracing::warn!(
                event = "restart_needed",
                setting = "log.format",
                hint = "restart to use it"
            );
        }
        announce::changes(&old.bound, &new.bound);
        let listen = &new.settings.listen;
        self.listeners.apply(listen, bound, shared, &self.acceptor).map_err(|error| {
            Problem::error("cannot accept on a new listener").caused_by(&error).into()
        })
    }

    /// Takes certificates that changed on disk; one that cannot be used keeps the one before it.
    pub(super) fn look_at_certificates(&self) {
        let Some(refreshed) = self.shared.store.current().refreshed() else { return };
        // Before it is told: whoever reads of it finds it so.
        use_certificates(&self.shared, &refreshed.certificates);
        for problem in refreshed.kept {
            tracing::error!(
                event = "certificate_kept",
                certificate = %problem.files.certificate.display(),
                cause = problem.cause,
                hint = "the certificate before it stays in use; mend the files, no restart is needed",
            );
        }
        for certificate in refreshed.taken {
            tracing::info!(event = "certificate_loaded", certificate = %certificate.display());
        }
    }
}

/// Reads the certificates and binds the addresses that the settings name; all that fails is told.
fn prepare(
    settings: &Settings,
    listeners: &Listeners,
) -> Result<(Certificates, HashMap<Key, Bound>), Problems> {
    let pairs = settings.tls.as_ref().map_or(&[][..], |tls| &tls.pairs);
    match (Certificates::load(pairs), listeners.bind(&settings.listen)) {
        (Ok(certificates), Ok(bound)) => Ok((certificates, bound)),
        (certificates, bound) => {
            let unusable = certificates.err().unwrap_or_default();
            let unbound = bound.err().unwrap_or_default();
            let unusable = unusable.iter().map(Problem::from);
            Err(Problems(unusable.chain(unbound.iter().map(Problem::from)).collect()))
        }
    }
}

/// Puts certificates in use, and says loudly which of them browsers refuse.
fn use_certificates(shared: &Shared, certificates: &Certificates) {
    for (origin, certificate, cause) in certificates.invalid(SystemTime::now()) {
        tracing::error!(
            event = "certificate_invalid",
            certificate = %origin,
            not_after = %jiff::Timestamp::from_second(certificate.not_after).unwrap_or_default(),
            cause,
            hint = "put a valid certificate in its place; it is picked up without a restart",
        );
    }
    shared.store.replace(certificates);
    shared.store.tell(&shared.metrics);
}

/// Lets ACME run as the settings want it, if they do. What runs already with the same settings
/// goes on.
fn follow_acme(shared: &Shared, settings: &Settings, running: Option<Running>) -> Option<Running> {
    let Shared { board, store, metrics, .. } = shared;
    let Some(acme) = settings.tls.as_ref().and_then(|tls| tls.acme.as_ref()) else {
        if running.is_some() {
            drop(running);
            acme::end(board, store, metrics);
        }
        return None;
    };
    let overrides = &settings.self_check.connect_to;
    let same = running.filter(|running| running.is(acme, overrides));
    same.or_else(|| Some(acme::start(acme, overrides, board, store, metrics)))
}

/// Every connection is a file. The soft limit is a default for programs that use `select`; this
/// one does not.
fn raise_file_limit(connections: usize) {
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

pub(super) fn cannot_start(error: &dyn std::error::Error) -> Problems {
    Problem::error("cannot start").caused_by(error).into()
}
