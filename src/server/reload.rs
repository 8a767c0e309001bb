//! Changing the settings and the certificates of a process that serves: the new ones are built
//! whole, then swapped in; whatever fails keeps the old.

use super::announce;
use super::lifecycle::{Source, prepare, raise_file_limit, warn_about_validity};
use super::listen::Listeners;
use super::state::{Shared, Snapshot};
use crate::config::{Problem, Problems};
use crate::observe::{Log, Metrics, ReloadResult};
use crate::tls::{Certificates, Store};
use std::io::Write as _;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// What a reload changes, and where from.
pub(super) struct House {
    pub(super) shared: Arc<Shared>,
    pub(super) listeners: Listeners,
    pub(super) acceptor: TlsAcceptor,
    pub(super) source: Source,
    pub(super) log: Arc<Log>,
    /// Whether problems are told as `config check` tells them; else each is an event.
    pub(super) people_read: bool,
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
                    let _ = writeln!(anstream::stderr(), "{}", problems.coloured());
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
        let settings = (self.source)()?;
        let (certificates, bound) = prepare(&settings, &self.listeners)?;
        // From here on nothing can fail but the runtime itself.
        let shared = &self.shared;
        use_certificates(&shared.store, &shared.metrics, certificates);
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
            tracing::warn!(event = "restart_needed", setting = "log.format");
        }
        announce::changes(&old.bound, &new.bound);
        self.listeners.apply(&listen, bound, shared, &self.acceptor).map_err(|error| {
            Problem::error("cannot accept on a new listener").caused_by(&error).into()
        })
    }
}

/// Puts certificates in use.
pub(super) fn use_certificates(store: &Store, metrics: &Metrics, certificates: Certificates) {
    warn_about_validity(&certificates);
    metrics.certificates(certificates.all().map(|(files, certificate, current)| {
        (files.certificate.display().to_string(), certificate.not_after, current)
    }));
    store.replace(certificates);
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
    use_certificates(&shared.store, &shared.metrics, refreshed.certificates);
    for certificate in refreshed.taken {
        tracing::info!(event = "certificate_loaded", certificate = %certificate.display());
    }
}
