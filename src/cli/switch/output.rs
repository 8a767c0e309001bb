//! What `switch` prints: the preflights and the plan, then the report.

use super::{Failure, Run};
use crate::cli::format::Format;
use crate::cli::{Exit, eprint_line, exit_after_print};
use crate::report::{Detail, Report};
use crate::switch::{self, Command, Environment, State, Stop, StopKind, SwitchReport};
use std::io::{self, Write as _};
use terminal_size::terminal_size_of;

impl Run<'_> {
    pub(super) fn report(
        &self,
        command: Command,
        summary: &str,
        environments: &[Environment],
        state: State,
    ) -> SwitchReport {
        SwitchReport {
            schema: 1,
            command,
            exit: 0,
            summary: summary.to_owned(),
            callback: self.args.callback.as_ref().map(|it| it.as_str().to_owned()),
            journal: self.args.journal.display().to_string(),
            error: None,
            hint: None,
            environments: environments.iter().map(|it| it.report(state)).collect(),
            plan: Vec::new(),
            remaining: Vec::new(),
            back: None,
        }
    }

    /// Prints the preflights and the plan: what the person confirms.
    pub(super) fn show(
        &self,
        environments: &[Environment],
        plan: &[String],
    ) -> Result<(), Failure> {
        if self.args.json {
            if Self::may_ask() && !self.args.yes && !self.args.plan {
                eprint_line(&switch::list("plan", plan, None));
            }
            return Ok(());
        }
        let is_planned = !plan.is_empty();
        let reports = environments.iter().filter_map(|it| it.preflight.clone());
        let reports: Vec<_> = reports.map(|report| as_part(report, is_planned)).collect();
        let printed = Format::Text(self.args.verbosity.detail()).print(&reports).and_then(|()| {
            if self.args.verbosity.detail() == Detail::Verdict {
                return Ok(());
            }
            print(&switch::list("plan", plan, columns()))
        });
        if exit_after_print(printed, Exit::Done) == Exit::Done {
            Ok(())
        } else {
            Err(Stop {
                kind: StopKind::CouldNotRun,
                why: "cannot print the plan".into(),
                hint: "check stdout".into(),
            }
            .into())
        }
    }

    pub(super) fn print(&self, exit: Exit, mut report: SwitchReport) -> Exit {
        report.exit = exit.code();
        let printed = if self.args.json {
            report.json().map_err(io::Error::from).and_then(|text| print(&(text + "\n")))
        } else {
            print(&report.text(columns()))
        };
        exit_after_print(printed, exit)
    }
}

/// `None` unless stdout is a terminal.
fn columns() -> Option<usize> {
    terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0))
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// The report of a preflight as a part of this report, whose plan has the steps. The target of the
/// callback would read like the callback after the switch.
fn as_part(mut report: Report, is_planned: bool) -> Report {
    report.target.clone_from(&report.callback);
    if let Some(switch) = &mut report.switch {
        switch.rollback.clear();
        switch.steps.clear();
        if is_planned {
            switch.cautions.clear();
        }
    }
    report
}
