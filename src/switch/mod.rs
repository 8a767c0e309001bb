//! Saves a callback in Nango's settings, environment by environment, and goes back when it fails.
//!
//! `read` finds the environments and proves which key opens which; `survey` runs the preflight of all;
//! `plan` describes what will happen. Until then nothing is changed. `execute` then drives a `machine`
//! for each environment, which decides every step, and writes a `journal` before each change. `report`
//! is the result, for people and for programs.

mod command;
mod execute;
mod journal;
mod machine;
mod manual;
mod plan;
mod read;
mod report;
mod status;
mod survey;

pub use command::Invocation;
pub use execute::{Execution, execute};
pub use journal::{Entry, Journal, JournalError, JournalFile};
pub use machine::{
    Action, End, Event, Flow, Goal, Machine, Outcome, Phase, Reply, Value, Verification, outcome,
};
pub use manual::{instructions, watch};
pub use plan::plan;
pub use read::{Environment, Selected, read};
pub use report::{Command, EnvironmentReport, State, SwitchReport, list};
pub use status::{offline, status};
pub use survey::{Tolerance, safety, survey};

use crate::outbound::Outbound;
use crate::preflight::Account;
use std::time::Duration;

/// What all steps of a run need.
#[derive(Clone, Debug)]
pub struct Context {
    /// The account; `None` for a server without the Environments API.
    pub account: Option<Account>,
    /// For checks and providers.
    pub outbound: Outbound,
    /// How long to wait until a change is visible.
    pub wait: Duration,
    /// Nango's own callback: that of environments without one.
    pub default_callback: String,
    /// The command line, for the command to go back.
    pub invocation: Invocation,
}

impl Context {
    /// The pause between two requests that wait for a change.
    fn pause(&self) -> Duration {
        let [shortest, longest] = PAUSES;
        (self.wait / 20).clamp(shortest, longest)
    }
}

const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(15)];

/// Why a run stops before anything is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What kind of error it is.
    pub kind: StopKind,
    /// What happened.
    pub why: String,
    /// What to do.
    pub hint: String,
}

/// The kind of a [`Stop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopKind {
    /// The command line, the project file or a key is wrong.
    Usage,
    /// It could not run.
    CouldNotRun,
    /// It is not safe.
    Unsafe,
}

impl Stop {
    fn usage(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: StopKind::Usage, why: why.into(), hint: hint.into() }
    }

    fn could_not_run(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: StopKind::CouldNotRun, why: why.into(), hint: hint.into() }
    }
}

impl From<crate::preflight::NangoError> for Stop {
    fn from(error: crate::preflight::NangoError) -> Self {
        Self::could_not_run(error.why, error.hint)
    }
}

/// The person or the log that follows a run.
pub trait Operator {
    /// Shows a line.
    fn note(&self, text: &str);

    /// Asks a question; `true` for yes.
    fn confirm(&self, question: &str) -> impl Future<Output = bool>;
}
