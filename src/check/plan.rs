use crate::redirect::Target;
use std::time::Duration;

/// What is to be checked, and how far to go.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The callback as it is, or will be, registered with the providers.
    pub callback: String,
    /// Where it should lead.
    pub target: Target,
    /// Which checks are reported.
    pub selection: Selection,
    /// Whether Nango is asked too: its callback, and the whole way from end to end.
    pub follow: bool,
    /// When to give up, whatever is left to do.
    pub total: Duration,
    /// Told what is being done, for whoever watches.
    pub progress: Option<fn(&str)>,
}

impl Plan {
    /// A plan that checks everything.
    pub fn new(callback: impl Into<String>, target: Target) -> Self {
        Self {
            callback: callback.into(),
            target,
            selection: Selection::default(),
            follow: true,
            total: Duration::from_mins(2),
            progress: None,
        }
    }

    /// Whether the target is the callback whose error page is known.
    pub(super) fn is_for_oauth(&self) -> bool {
        self.target.path().ends_with("oauth/callback")
    }

    pub(super) fn tell(&self, doing: &str) {
        if let Some(progress) = self.progress {
            progress(doing);
        }
    }
}

/// Which checks are wanted, by prefixes of their ids. By default all are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these; empty for all.
    pub only: Vec<String>,
    /// But not these.
    pub skip: Vec<String>,
}

impl Selection {
    /// Whether a check is wanted.
    pub fn wants(&self, id: &str) -> bool {
        let named = |prefixes: &[String]| prefixes.iter().any(|prefix| id.starts_with(prefix));
        (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
    }

    /// Whether one of the checks is wanted.
    pub(super) fn wants_any(&self, ids: &[&str]) -> bool {
        ids.iter().any(|id| self.wants(id))
    }
}
