//! What the tasks of all names share.

use super::board::Board;
use super::challenge;
use super::state::Folder;
use crate::config::{Acme, CertificateFiles};
use crate::observe::{AcmeStep as Step, Label, Metrics};
use crate::outbound::Outbound;
use crate::tls::Store;
use crate::tls::files::{Bytes, Certificate};
use std::fmt;
use std::sync::Arc;
use tokio::sync::Mutex;

pub(super) struct Context {
    pub(super) settings: Acme,
    pub(super) folder: Folder,
    /// To the directories.
    pub(super) outbound: Outbound,
    /// To ourselves.
    pub(super) probe: Outbound,
    pub(super) board: Arc<Board>,
    pub(super) store: Arc<Store>,
    pub(super) metrics: Arc<Metrics>,
    /// Held while an account is looked for, so that one is made.
    pub(super) accounts: Mutex<()>,
}

impl Context {
    pub(super) fn names(&self) -> Vec<Box<str>> {
        self.settings.domains.iter().map(|host| host.as_str().into()).collect()
    }

    /// Uses the certificates in the folder, whoever ordered them. Blocks.
    pub(super) fn follow(&self) {
        for name in self.names() {
            // What cannot be read is for the owner to set aside.
            if let Ok(Some(certificate)) = self.read_certificate(&name) {
                let end = u64::try_from(certificate.not_after).unwrap_or_default();
                if self.store.keep(&name, &certificate) {
                    self.store.tell(&self.metrics);
                }
                let mut standings = self.board.lock();
                standings.entry(name).or_default().not_after = Some(end);
            } else {
                self.board.lock().entry(name).or_default();
            }
        }
    }

    /// Reads a name's certificate from the folder. Blocks.
    pub(super) fn read_certificate(&self, name: &str) -> Result<Option<Certificate>, String> {
        match self.folder.read(&certificate_file(name)) {
            Ok(Some(pem)) => self.parse(name, pem).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) fn parse(&self, name: &str, pem: Vec<u8>) -> Result<Certificate, String> {
        let file = self.folder.file(&certificate_file(name));
        let files = CertificateFiles { certificate: file.clone(), private_key: file };
        let certificate = Bytes::of_one(pem).parse(&files).map_err(|error| error.cause)?;
        let named = certificate.names.iter().any(|known| **known == *name);
        if named || challenge::address(name).is_some() {
            Ok(certificate)
        } else {
            Err(format!("it is not for `{name}`"))
        }
    }

    /// Puts a certificate in use.
    pub(super) fn show(&self, name: &str, certificate: &Certificate) {
        self.store.keep(name, certificate);
        self.store.tell(&self.metrics);
    }

    /// A step was taken; towards an account, for no domain.
    pub(super) fn took(&self, step: Step, domain: &str, directory: &str) {
        self.metrics.acme_steps.count(step);
        let domain = Some(domain).filter(|domain| !domain.is_empty());
        tracing::info!(event = "acme_step", step = step.value(), domain, directory);
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Certificate and key in one file, named for the domain.
pub(super) fn certificate_file(name: &str) -> String {
    format!("{}.pem", name.trim_matches(['[', ']']))
}
