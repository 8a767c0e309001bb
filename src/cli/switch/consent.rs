//! Asks a person on the terminal.

use super::{Failure, Run};
use crate::cli::{eprint_line, progress};
use crate::config::Problem;
use crate::switch::{Operator, Stop, StopKind};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

impl Run<'_> {
    /// Whether a person can answer.
    pub(super) fn may_ask() -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks before a change of so many environments, unless `--yes` answers.
    pub(super) async fn confirm(&self, action: &str, count: usize) -> Result<(), Failure> {
        if self.args.yes {
            return Ok(());
        }
        if !Self::may_ask() {
            return Err(Problem::error("the change is not confirmed, and nothing is changed")
                .hint("read the plan, and pass --yes")
                .into());
        }
        let noun = if count == 1 { "environment" } else { "environments" };
        if Operator::confirm(self, &format!("{action} {count} {noun}?")).await {
            return Ok(());
        }
        let (why, hint) =
            ("not confirmed, and nothing is changed".into(), "type yes to confirm".into());
        Err(Stop { kind: StopKind::Unsafe, why, hint }.into())
    }

    pub(super) fn clear() {
        if io::stderr().is_terminal() {
            progress::clear();
        }
    }
}

impl Operator for Run<'_> {
    fn note(&self, text: &str) {
        Self::clear();
        eprint_line(text);
    }

    async fn confirm(&self, question: &str) -> bool {
        let mut stderr = anstream::stderr();
        // A terminal that is gone gives no answer.
        let _ = write!(stderr, "{question} Type yes: ");
        let _ = stderr.flush();
        // Its own thread: a runtime waits for its threads when it ends, and Ctrl-C must end it.
        let (answer, received) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = io::stdin().lock().read_line(&mut line);
            let _ = answer.send(read.is_ok() && line.trim().eq_ignore_ascii_case("yes"));
        });
        received.await.unwrap_or(false)
    }
}
