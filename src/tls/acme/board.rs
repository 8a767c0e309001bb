use super::challenge::Challenges;
use super::clock::{moment, now};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the rest of the server sees of ACME.
#[derive(Debug, Default)]
pub struct Board {
    /// The answers to challenges.
    pub challenges: Arc<Challenges>,
    standings: Mutex<BTreeMap<Box<str>, Standing>>,
}

/// How it stands with one name. Times are Unix seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The end of its certificate; `None` when there is none.
    pub not_after: Option<u64>,
    /// When the next order begins.
    pub next: u64,
    /// What went wrong last, and what to do about it.
    pub trouble: Option<(String, String)>,
}

impl Standing {
    /// In a line: what there is, and what comes next.
    pub fn summary(&self) -> String {
        let next = moment(self.next);
        match self.not_after {
            Some(end) => format!("valid to {}, renewed at {next}", moment(end)),
            None if self.next <= now() => "none yet, being ordered".to_owned(),
            None => format!("none yet, ordered at {next}"),
        }
    }

    /// Whether there is a certificate that has not ended.
    pub fn is_valid(&self) -> bool {
        self.not_after.is_some_and(|end| end >= now())
    }
}

impl Board {
    /// Every name with how it stands.
    pub fn standings(&self) -> BTreeMap<Box<str>, Standing> {
        self.lock().clone()
    }

    pub(super) fn put(&self, name: &str, standing: Standing) {
        self.lock().insert(name.into(), standing);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Standing>> {
        // Nothing under the lock can leave it half-way.
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
