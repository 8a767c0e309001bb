use crate::report::Verdict;
use std::process::ExitCode;

/// The exit code. Each command documents the ones it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, safe, or drained cleanly.
    Done,
    /// A check failed; `serve` was forced to end or crashed.
    Failed,
    /// Nothing failed, but something is unconfirmed.
    Unconfirmed,
    /// It could not run: for example, the network is down or a key was rejected.
    CouldNotRun,
    /// Interrupted by a signal, after a partial report: 128 + SIGINT, as shells report it.
    Interrupted,
    /// The command line or the configuration is wrong (`EX_USAGE` of sysexits).
    Usage,
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Done,
            Verdict::Fail => Self::Failed,
            Verdict::Unconfirmed => Self::Unconfirmed,
            Verdict::Error => Self::CouldNotRun,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Unconfirmed => 2,
            Exit::CouldNotRun => 3,
            Exit::Usage => 64,
            Exit::Interrupted => 130,
        })
    }
}
