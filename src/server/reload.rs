//! Changing the settings and the certificates of a process that serves: the new ones are built
//! whole, then swapped in; whatever fails keeps the old.

use super::announce;
use super::lifecycle::{Source, prepare, raise_file_limit, warn_about_validity};
use super::listen::Listeners;
use super::state::{Shared, Snapshot};
use crate::config::{Loaded, Problem, Problems, Settings};
use crate::observe::{Log, Metrics, ReloadResult};
use crate::outbound::Override;
use crate::tls::acme::{self, Board, Running};
use crate::tls::{Acceptor, Certificates, Store};
use std::sync::Arc;

/// What a reload changes, and where from.
pub(super) struct House {
    pub(super) shared: Arc<Shared>,
    pub(super) listeners: Listeners,
    pub(super) acceptor: Acceptor,
    pub(super) source: Source,
    pub(super) log: Arc<Log>,
    /// Whether problems are told as `config check` tells them; else each is an event.
    pub(super) people_read: bool,
    pub(super) acme: Option<Running>,
}

impl House {
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
                    self.log.say(&(problems.coloured() + "\n"));
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
        if !warnings.0.is_empty() {
            self.log.say(&(warnings.coloured() + "\n"));
        }
        let (certificates, bound) = prepare(&settings, &self.listeners)?;
        let shared = &self.shared;
        start_acme(&settings, &mut self.acme, &shared.board, &shared.store, &shared.metrics)?;
        // From here on nothing can fail but the runtime itself.
        use_certificates(&shared.store, &shared.metrics, &certificates);
        shared
            .slots
            .set_limits(settings.limits.connections, settings.limits.connections_per_address);
        self.log.set_level(settings.log.level);
        let addresses = self.listeners.addresses(&settings.listen, &bound);
        let listen = settings.listen.clone();
        raise_file_limit(settings.limits.connections);
        let new = Arc::new(Snapshot::new(settings, addresses, &shared.metrics));
        let old = shared.snapshot.swap(Arc::clone(&new));
        shared.slots.look_again();
        if old.settings.log.format != new.settings.log.format {
            tracing::warn!(
                event = "restart_needed",
                setting = "log.format",
                hint = "restart to use it"
            );
        }
        announce::changes(&old.bound, &new.bound);
        self.listeners.apply(&listen, bound, shared, &self.acceptor).map_err(|error| {
            Problem::error("cannot accept on a new listener").caused_by(&error).into()
        })
    }
}

/// Puts certificates in use.
pub(super) fn use_certificates(store: &Store, metrics: &Metrics, certificates: &Certificates) {
    warn_about_validity(certificates);
    store.replace(certificates);
    store.tell(metrics);
}

/// Lets ACME run as the settings want it, if they do. What runs already with the same settings
/// goes on, and so does what runs when this fails.
pub(super) fn start_acme(
    settings: &Settings,
    running: &mut Option<Running>,
    board: &Arc<Board>,
    store: &Arc<Store>,
    metrics: &Arc<Metrics>,
) -> Result<(), Problem> {
    let Some(acme) = settings.tls.as_ref().and_then(|tls| tls.acme.as_ref()) else {
        if running.take().is_some() {
            acme::end(board, store, metrics);
        }
        return Ok(());
    };
    let connect_to = settings.self_check.connect_to.iter();
    let overrides: Vec<_> = connect_to
        .map(|entry| Override {
            host: entry.host.to_string(),
            port: entry.port,
            address: entry.address,
        })
        .collect();
    if !running.as_ref().is_some_and(|running| running.is(acme, &overrides)) {
        *running = Some(acme::start(acme, &overrides, board, store, metrics)?);
    }
    Ok(())
}

/// Takes certificates that changed on disk; one that cannot be used keeps the one before it.
pub(super) fn look_at_certificates(shared: &Shared) {
    let Some(refreshed) = shared.store.current().refreshed() else { return };
    for problem in refreshed.kept {
        tracing::error!(
            event = "certificate_kept",
            certificate = %problem.files.certificate.display(),
            cause = problem.cause,
            hint = "the certificate before it stays in use; mend the files, no restart is needed",
        );
    }
    use_certificates(&shared.store, &shared.metrics, &refreshed.certificates);
    for certificate in refreshed.taken {
        tracing::info!(event = "certificate_loaded", certificate = %certificate.display());
    }
}
