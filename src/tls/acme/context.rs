//! What the renewers of all domains share.

use super::challenge;
use super::state::StateDir;
use super::status::AcmeStatus;
use crate::config::{Acme, CertificateFiles, Location};
use crate::observe::{AcmeStep as Step, Label, Metrics};
use crate::outbound::Outbound;
use crate::tls::Store;
use crate::tls::files::{Certificate, CertificateError, PemPair};
use std::fmt;
use std::sync::Arc;
use tokio::sync::Mutex;

pub(super) struct Context {
    pub(super) settings: Acme,
    pub(super) state_dir: StateDir,
    /// For requests to ACME servers.
    pub(super) outbound: Outbound,
    /// For the trial.
    pub(super) probe: Outbound,
    pub(super) acme_status: Arc<AcmeStatus>,
    pub(super) store: Arc<Store>,
    pub(super) metrics: Arc<Metrics>,
    /// Locked while an account is read or created, so that only one is created.
    pub(super) account_lock: Mutex<()>,
}

impl Context {
    pub(super) fn names(&self) -> Vec<Box<str>> {
        self.settings.domains.iter().map(|host| host.as_str().into()).collect()
    }

    /// Puts the certificates in the state directory in use, also those that another process ordered.
    /// Blocks.
    pub(super) fn load_certificates(&self) {
        for name in self.names() {
            // The owner of the directory sets unreadable files aside.
            if let Ok(Some(certificate)) = self.read_certificate(&name) {
                let end = u64::try_from(certificate.not_after).unwrap_or_default();
                if self.store.set_acme(&name, &certificate) {
                    self.store.update_metrics(&self.metrics);
                }
                let mut certificates = self.acme_status.lock();
                certificates.entry(name).or_default().not_after = Some(end);
            } else {
                self.acme_status.lock().entry(name).or_default();
            }
        }
    }

    /// Reads a domain's certificate from the state directory. Blocks.
    pub(super) fn read_certificate(&self, name: &str) -> Result<Option<Certificate>, String> {
        match self.state_dir.read(&certificate_file(name)) {
            Ok(Some(pem)) => self.parse(name, pem).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) fn parse(&self, name: &str, pem: Vec<u8>) -> Result<Certificate, String> {
        let file = self.state_dir.file(&certificate_file(name));
        let files = CertificateFiles {
            certificate: file.clone(),
            private_key: file,
            certificate_location: Location::Default,
            private_key_location: Location::Default,
        };
        let certificate = PemPair::of_one(pem).parse(&files).map_err(|errors| {
            errors.iter().map(CertificateError::cause).collect::<Vec<_>>().join("; ")
        })?;
        let named = certificate.names.iter().any(|known| **known == *name);
        if named || challenge::address(name).is_some() {
            Ok(certificate)
        } else {
            Err(format!("it is not valid for `{name}`"))
        }
    }

    /// Puts a certificate in use.
    pub(super) fn serve(&self, name: &str, certificate: &Certificate) {
        self.store.set_acme(name, certificate);
        self.store.update_metrics(&self.metrics);
    }

    /// Counts and logs a step; `domain` is empty for the account.
    pub(super) fn record_step(&self, step: Step, domain: &str, directory: &str) {
        self.metrics.acme_steps.count(step);
        let domain = Some(domain).filter(|domain| !domain.is_empty());
        tracing::info!(event = "acme_step", step = step.value(), domain, directory);
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("state_dir", &self.state_dir).finish_non_exhaustive()
    }
}

/// Certificate and key in one file, named after the domain.
pub(super) fn certificate_file(name: &str) -> String {
    format!("{}.pem", name.trim_matches(['[', ']']))
}
