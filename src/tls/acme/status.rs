use super::challenge::Challenges;
use super::clock::{now, timestamp};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The state of ACME that the other modules read.
#[derive(Debug, Default)]
pub struct AcmeStatus {
    /// The responses to challenges.
    pub challenges: Arc<Challenges>,
    certificates: Mutex<BTreeMap<Box<str>, CertificateStatus>>,
}

/// The state of the certificate of one domain. Times are Unix seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateStatus {
    /// When the certificate expires; `None` without a certificate.
    pub not_after: Option<u64>,
    /// When the next order is made.
    pub next: u64,
    /// Cause and hint of the last failure.
    pub last_failure: Option<(String, String)>,
}

impl CertificateStatus {
    /// One line: the validity, and when the next order is made.
    pub fn summary(&self) -> String {
        let next = timestamp(self.next);
        match self.not_after {
            Some(end) => format!("valid until {}, renewal at {next}", timestamp(end)),
            None if self.next <= now() => "none yet, order in progress".to_owned(),
            None => format!("none yet, next order at {next}"),
        }
    }

    /// Whether there is a certificate that has not expired.
    pub fn is_valid(&self) -> bool {
        self.not_after.is_some_and(|end| end >= now())
    }
}

impl AcmeStatus {
    /// The state of each domain.
    pub fn certificates(&self) -> BTreeMap<Box<str>, CertificateStatus> {
        self.lock().clone()
    }

    pub(super) fn set(&self, name: &str, status: CertificateStatus) {
        self.lock().insert(name.into(), status);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, CertificateStatus>> {
        // No code under the lock can leave the map in an inconsistent state.
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
