//! The running server and its reload: everything new is built completely, then swapped in. Where that
//! fails, the old stays in use.

use super::announce;
use super::listen::{Bound, Key, Listeners};
use super::probes::Probes;
use super::self_check::SelfCheck;
use super::shared::Shared;
use super::slots::{Slots, closing_limit};
use super::snapshot::Snapshot;
use super::turns::Turns;
use crate::config::{Limits, Loaded, Problem, Problems, Settings};
use crate::observe::{Format, Log, Metrics, ReloadResult};
use crate::tls::acme::{self, AcmeStatus, Running};
use crate::tls::{Acceptor, CertificateChanges, Certificates, Store};
use arc_swap::ArcSwap;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

/// Files of the process itself, and of connections to the admin listener.
const OWN_FILES: u64 = 192;

/// Reads the settings again, for a reload.
pub type Source = Box<dyn Fn() -> Result<Loaded, Problems> + Send>;

/// What the server needs to start.
pub struct Startup {
    /// The settings.
    pub settings: Settings,
    /// The file that they were read from.
    pub file: Option<PathBuf>,
    /// Reads them again.
    pub source: Source,
    /// The log.
    pub log: Arc<Log>,
    /// Sockets that a service manager passed.
    pub inherited: Vec<TcpListener>,
}

/// Why the server does not start.
#[derive(Debug)]
pub enum StartError {
    /// The settings, or the certificates in them, cannot be used.
    Settings(Problems),
    /// An address cannot be bound, or the system refuses something else.
    System(Problems),
}

impl From<StartError> for Problems {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Settings(problems) | StartError::System(problems) => problems,
        }
    }
}

/// The running server.
pub(super) struct Process {
    pub(super) shared: Arc<Shared>,
    pub(super) listeners: Listeners,
    acceptor: Acceptor,
    /// The file of the configuration.
    file: Option<PathBuf>,
    source: Source,
    acme: Option<Running>,
    /// What was logged last; `None` before the first time.
    is_ready: Option<bool>,
    /// When the first of the last reloads, which all failed, did.
    reload_failed_at: Option<Instant>,
    /// The certificates that were logged as unusable or not valid, and since when.
    unusable: HashMap<String, Instant>,
    /// The certificates that were logged as not valid: the end of their validity, and the cause.
    invalid: HashMap<String, (i64, &'static str)>,
    /// The last status that the service manager received.
    status: String,
}

impl Process {
    /// Reads the certificates, listens, and reports it.
    pub(super) fn start(startup: Startup) -> Result<Self, StartError> {
        let Startup { settings, file, source, log, inherited } = startup;
        let connections = connections(&settings.limits);
        let metrics = Arc::new(Metrics::new());
        let store = Arc::new(Store::default());
        let acme_status = Arc::new(AcmeStatus::default());
        let acceptor = Acceptor::new(Arc::clone(&store), Arc::clone(&acme_status.challenges))
            .map_err(|error| cannot_start(&error))?;
        let mut listeners = Listeners::new(inherited);
        let (certificates, bound) = prepare(&settings, &listeners)?;
        let addresses = listeners.addresses(&settings.listen, &bound);
        let per_address = settings.limits.connections_per_address;
        let slots = Slots::new(connections, per_address, Arc::clone(&metrics));
        let probes = Arc::new(Probes::new());
        let self_check =
            SelfCheck::new(Arc::clone(&acme_status), Arc::clone(&metrics), Arc::clone(&probes));
        let workers = tokio::runtime::Handle::current().metrics().num_workers();
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::new(settings, addresses, &metrics)),
            self_check,
            probes,
            log,
            metrics,
            slots,
            turns: Turns::new(workers),
            endings: Arc::new(Turns::new(workers)),
            store,
            acme_status,
            draining: AtomicBool::new(false),
        });
        use_certificates(&shared, &certificates);
        let snapshot = shared.snapshot.load_full();
        shared.metrics.set_limits(connections, snapshot.self_check_every);
        let acme = apply_acme(&shared, &snapshot.settings, None);
        listeners
            .apply(&snapshot.settings.listen, bound, &shared, &acceptor)
            .map_err(|error| cannot_start(&error))?;
        if shared.log.format() == Format::Text {
            shared.log.print(&announce::text(&snapshot, &shared.acme_status, file.as_deref()));
        } else {
            announce::events(&snapshot.settings, &snapshot.bound, &shared.acme_status);
        }
        for address in listeners.unclaimed() {
            tracing::warn!(
                event = "socket_unclaimed",
                %address,
                hint = "the service manager passes this socket: add its address to `[listen]`, or remove it from the unit",
            );
        }
        let mut process = Self {
            shared,
            listeners,
            acceptor,
            file,
            source,
            acme,
            is_ready: None,
            reload_failed_at: None,
            unusable: HashMap::new(),
            invalid: HashMap::new(),
            status: String::new(),
        };
        process.check_validity();
        Ok(process)
    }

    /// Reads the settings again and applies them, or reports why it keeps the old ones.
    pub(super) fn reload(&mut self) {
        match self.try_reload() {
            Ok(()) => {
                self.shared.metrics.record_reload(ReloadResult::Success);
                let failed_for = self.reload_failed_at.take().map(|since| since.elapsed());
                tracing::info!(
                    event = "reloaded",
                    failed_for_s = failed_for.map(|it| it.as_secs())
                );
            }
            Err(problems) => {
                self.shared.metrics.record_reload(ReloadResult::Failure);
                self.reload_failed_at.get_or_insert_with(Instant::now);
                announce::report(&self.shared.log, &problems);
                let file = self.file.as_ref();
                let option = file.map(|file| format!(" -c {}", file.display()));
                tracing::error!(
                    event = "reload_failed",
                    hint = format!(
                        "the previous configuration stays in use; run `callback-edge{} config check` \
                         to print the errors",
                        option.unwrap_or_default()
                    ),
                );
            }
        }
    }

    fn try_reload(&mut self) -> Result<(), Problems> {
        let Loaded { settings, warnings, .. } = (self.source)()?;
        self.check_validity();
        let shared = Arc::clone(&self.shared);
        let shared = &shared;
        announce::report(&shared.log, &warnings);
        let (certificates, bound) = prepare(&settings, &self.listeners)?;
        // From here on only the runtime itself can fail.
        self.acme = apply_acme(shared, &settings, self.acme.take());
        use_certificates(shared, &certificates);
        let invalid = self.log_invalid();
        for (certificate, since) in replace_unusable(&mut self.unusable, invalid) {
            log_loaded(&certificate, Some(since));
        }
        let limits = &settings.limits;
        let connections = connections(limits);
        shared.slots.set_limits(connections, limits.connections_per_address);
        shared.log.set_level(settings.log.level);
        let addresses = self.listeners.addresses(&settings.listen, &bound);
        let new = Arc::new(Snapshot::new(settings, addresses, &shared.metrics));
        shared.metrics.set_limits(connections, new.self_check_every);
        let old = shared.snapshot.swap(Arc::clone(&new));
        shared.slots.wake_all();
        if old.settings.log.format != new.settings.log.format {
            tracing::warn!(
                event = "restart_needed",
                setting = "log.format",
                hint = "restart to apply it"
            );
        }
        announce::listener_changes(&old.bound, &new.bound);
        let listen = &new.settings.listen;
        self.listeners.apply(listen, bound, shared, &self.acceptor).map_err(|error| {
            Problem::error("cannot accept on a new listener").caused_by(&error).into()
        })
    }

    /// Uses certificates that changed on disk. Where one is not usable, the previous one stays in use.
    pub(super) fn apply_certificate_changes(&mut self, changes: CertificateChanges) {
        self.check_validity();
        // Before the log events: their readers find the certificates in use.
        use_certificates(&self.shared, &changes.certificates);
        let invalid = self.log_invalid();
        for problem in changes.rejected {
            let name = problem.files.certificate.display().to_string();
            self.unusable.entry(name).or_insert_with(Instant::now);
            tracing::error!(
                event = "certificate_kept",
                certificate = %problem.files.certificate.display(),
                cause = problem.cause(),
                hint = "still serving the previous certificate: fix the files; they are read again without a restart",
            );
        }
        for certificate in changes.replaced {
            let name = certificate.display().to_string();
            let since = if invalid.contains(&name) { None } else { self.unusable.remove(&name) };
            log_loaded(&name, since);
        }
        for name in invalid {
            self.unusable.entry(name).or_insert_with(Instant::now);
        }
    }

    /// Logs the certificates that have begun or ceased to be valid: time has passed, the clock was set, or
    /// ACME has replaced them.
    pub(super) fn check_validity(&mut self) {
        let before = std::mem::take(&mut self.invalid);
        let invalid = self.log_invalid_except(&before);
        for name in before.into_keys().filter(|name| !invalid.contains(name)) {
            let current = self.shared.store.current();
            let found = current.all().find(|(origin, ..)| origin.to_string() == name);
            // It was kept, since its files cannot be used: that is not repaired.
            if found.as_ref().is_some_and(|(.., is_current)| !is_current) {
                continue;
            }
            let since = self.unusable.remove(&name);
            // It may be one of ACME that the settings name no longer.
            if found.is_some() {
                let failed_for = since.map(|since| since.elapsed());
                tracing::info!(
                    event = "certificate_valid",
                    certificate = name,
                    failed_for_s = failed_for.map(|it| it.as_secs()),
                );
            }
        }
        for name in invalid {
            self.unusable.entry(name).or_insert_with(Instant::now);
        }
    }

    /// How long until [`check_validity`](Self::check_validity) may find a change. At most a minute, since
    /// the clock may be set.
    pub(super) fn until_validity_changes(&self) -> Duration {
        const LONGEST: Duration = Duration::from_mins(1);
        let now = jiff::Timestamp::now().as_second();
        let next = self.shared.store.current().next_validity_change(now);
        let seconds = next.and_then(|next| u64::try_from(next - now).ok());
        seconds.map_or(LONGEST, Duration::from_secs).min(LONGEST)
    }

    /// Logs an error for each certificate that browsers refuse, once; returns their names.
    fn log_invalid(&mut self) -> HashSet<String> {
        let before = std::mem::take(&mut self.invalid);
        self.log_invalid_except(&before)
    }

    fn log_invalid_except(
        &mut self,
        logged: &HashMap<String, (i64, &'static str)>,
    ) -> HashSet<String> {
        for (origin, certificate, cause) in self.shared.store.current().invalid(SystemTime::now()) {
            let (name, why) = (origin.to_string(), (certificate.not_after, cause));
            if logged.get(&name) != Some(&why) {
                tracing::error!(
                    event = "certificate_invalid",
                    certificate = name,
                    not_after = %jiff::Timestamp::from_second(certificate.not_after).unwrap_or_default(),
                    cause,
                    hint = "replace it with a valid certificate; it is loaded without a restart",
                );
            }
            self.invalid.insert(name, why);
        }
        self.invalid.keys().cloned().collect()
    }

    /// What the service manager shows, when it has changed.
    pub(super) fn changed_status(&mut self) -> Option<&str> {
        let mut status = match self.shared.not_ready() {
            None => "ready".to_owned(),
            Some(reason) => format!("not ready: {reason}"),
        };
        if status.ends_with("no certificate") {
            for (domain, certificate) in self.shared.acme_status.certificates() {
                let _ = write!(status, "; {domain}: {}", certificate.summary());
            }
        }
        if self.reload_failed_at.is_some() {
            status.push_str("; the reload failed, the previous configuration is in use");
        }
        (self.status != status).then(|| {
            self.status = status;
            &*self.status
        })
    }

    /// Logs when `/readyz` changes. Returns whether it responds 200.
    pub(super) fn report_readiness(&mut self) -> bool {
        let shared = &self.shared;
        let reason = shared.not_ready();
        let is_ready = reason.is_none();
        if self.is_ready.replace(is_ready) == Some(is_ready) {
            return is_ready;
        }
        if shared.log.format() == Format::Text {
            shared.log.print(&announce::readiness(reason));
        } else if let Some(reason) = reason {
            tracing::info!(event = "not_ready", reason);
        } else {
            tracing::info!(event = "ready", version = env!("CARGO_PKG_VERSION"));
        }
        is_ready
    }
}

/// Keeps those that are not valid, and returns the others.
fn replace_unusable(
    unusable: &mut HashMap<String, Instant>,
    invalid: HashSet<String>,
) -> HashMap<String, Instant> {
    let mut usable = std::mem::take(unusable);
    for name in invalid {
        let since = usable.remove(&name).unwrap_or_else(Instant::now);
        unusable.insert(name, since);
    }
    usable
}

/// A certificate is in use that was unusable since this time.
fn log_loaded(certificate: &str, unusable_since: Option<Instant>) {
    let failed_for = unusable_since.map(|since| since.elapsed());
    tracing::info!(
        event = "certificate_loaded",
        certificate,
        failed_for_s = failed_for.map(|it| it.as_secs()),
    );
}

/// Reads the certificates and binds the addresses in the settings; returns all errors.
fn prepare(
    settings: &Settings,
    listeners: &Listeners,
) -> Result<(Certificates, HashMap<Key, Bound>), StartError> {
    let pairs = settings.tls.as_ref().map_or(&[][..], |tls| &tls.pairs);
    match (Certificates::load(pairs), listeners.bind(&settings.listen)) {
        (Ok(certificates), Ok(bound)) => Ok((certificates, bound)),
        (certificates, bound) => {
            let unusable = certificates.err().unwrap_or_default();
            let unbound = bound.err().unwrap_or_default();
            let why = if unusable.is_empty() { StartError::System } else { StartError::Settings };
            let unusable = unusable.iter().map(Problem::from);
            Err(why(Problems(unusable.chain(unbound.iter().map(Problem::from)).collect())))
        }
    }
}

/// Uses certificates, and shows them in the metrics.
fn use_certificates(shared: &Shared, certificates: &Certificates) {
    shared.store.replace(certificates);
    shared.store.update_metrics(&shared.metrics);
}

/// Starts, keeps or stops ACME as the settings require. A renewal with the same settings continues.
fn apply_acme(shared: &Shared, settings: &Settings, running: Option<Running>) -> Option<Running> {
    let Shared { acme_status, store, metrics, .. } = shared;
    let Some(acme) = settings.tls.as_ref().and_then(|tls| tls.acme.as_ref()) else {
        if running.is_some() {
            drop(running);
            acme::clear(acme_status, store, metrics);
        }
        return None;
    };
    let overrides = &settings.self_check.connect_to;
    let same = running.filter(|running| running.is(acme, overrides));
    same.or_else(|| Some(acme::start(acme, overrides, acme_status, store, metrics)))
}

/// How many connections may be open: as many as in the settings, if so many files may be. Without a file,
/// no connection can be accepted, and no other evicted in time.
fn connections(limits: &Limits) -> usize {
    let wanted = limits.connections;
    let Some(files) = raise_file_limit(wanted) else { return wanted };
    let others = other_files(wanted).min(files / 4);
    let connections = usize::try_from(files - others).unwrap_or(usize::MAX).clamp(1, wanted);
    if connections < wanted {
        tracing::warn!(
            event = "file_limit",
            files,
            connections,
            hint = "raise the limit of open files (LimitNOFILE, ulimit -n) or lower `limits.connections`",
        );
    }
    connections
}

/// Files that the process needs next to so many connections: its own, and those of connections that are still
/// closing.
fn other_files(connections: usize) -> u64 {
    OWN_FILES + u64::try_from(closing_limit(connections)).unwrap_or_default()
}

/// Raises the limit of open files to what so many connections need, since every connection is one. The
/// soft limit is a default for programs that use `select`; this one does not. Returns the limit.
fn raise_file_limit(connections: usize) -> Option<u64> {
    let needed =
        u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(other_files(connections));
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = Some(limit.maximum.map_or(needed, |maximum| maximum.min(needed)));
        // Where that is refused, the limit that is read below is the lower one.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    getrlimit(Resource::Nofile).current
}

pub(super) fn cannot_start(error: &dyn std::error::Error) -> StartError {
    StartError::System(Problem::error("cannot start").caused_by(error).into())
}
