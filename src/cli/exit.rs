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
    /// `switch` stopped part way.
    Partial,
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

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Unconfirmed => 2,
            Self::CouldNotRun => 3,
            Self::Partial => 4,
            Self::Usage => 64,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
