use crate::redirect::Target;
use http::{HeaderName, HeaderValue};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What to check, and how far to go.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The callback as it is, or will be, registered with the providers.
    pub callback: String,
    /// Where it should redirect to.
    pub target: Target,
    /// Which checks are reported.
    pub selection: Selection,
    /// Whether to send requests to Nango that it looks up and reports as errors: to its callback, and
    /// one flow from end to end.
    pub follow: bool,
    /// Whether to prove the path to Nango with a request that costs Nango no lookup.
    pub end_to_end: bool,
    /// How many requests to send.
    pub coverage: Coverage,
    /// Whether a query must arrive byte for byte. Otherwise a query that Nango reads identically is
    /// only a warning.
    pub strict: bool,
    /// The time limit of the whole check.
    pub total: Duration,
    /// Ends the check: the report contains what is known then.
    pub interrupt: CancellationToken,
    /// Called with each step, to show progress.
    pub progress: Option<fn(&str)>,
    /// Marks the requests to the callback, so that its server recognises them.
    pub mark: Option<Mark>,
}

/// A header field with another value in each request. Only the host of the callback gets it.
#[derive(Clone)]
pub struct Mark {
    /// The name.
    pub field: HeaderName,
    /// Returns the next value; `None` for a request without the field.
    pub next: Arc<dyn Fn() -> Option<HeaderValue> + Send + Sync>,
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mark").field(&self.field).finish()
    }
}

impl Plan {
    /// A plan that checks everything.
    pub fn new(callback: impl Into<String>, target: Target) -> Self {
        Self {
            callback: callback.into(),
            target,
            selection: Selection::default(),
            follow: true,
            end_to_end: true,
            coverage: Coverage::Full,
            strict: false,
            total: Duration::from_mins(2),
            interrupt: CancellationToken::new(),
            progress: None,
            mark: None,
        }
    }

    /// Whether the target is a callback that redirects to the `Referer`.
    pub(super) fn is_for_nango(&self) -> bool {
        self.is_for_oauth() || self.target.path().ends_with("app-auth/connect")
    }

    /// Whether the target is the callback whose error page is known.
    pub(super) fn is_for_oauth(&self) -> bool {
        self.target.path().ends_with("oauth/callback")
    }

    pub(super) fn report_progress(&self, doing: &str) {
        if let Some(progress) = self.progress {
            progress(doing);
        }
    }
}

/// How many requests a check sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Coverage {
    /// About a dozen: enough to notice that a callback which worked no longer works. For checks that
    /// repeat in the background.
    Small,
    /// All.
    Full,
}

/// The selected checks, by prefixes of their ids; by default all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these; empty for all.
    pub only: Vec<String>,
    /// Except these.
    pub skip: Vec<String>,
}

impl Selection {
    /// Whether a check is selected.
    pub fn wants(&self, id: &str) -> bool {
        let named = |prefixes: &[String]| prefixes.iter().any(|prefix| id.starts_with(prefix));
        (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
    }

    /// Whether one of the checks is selected.
    pub(super) fn wants_any(&self, ids: &[&str]) -> bool {
        ids.iter().any(|id| self.wants(id))
    }
}
