//! What `switch` does from its journal: `--back`, `--status`, and the report when it is interrupted.

use super::{Failure, Run};
use crate::cli::Exit;
use crate::cli::environments::{Selected, decisions};
use crate::config::Problem;
use crate::switch::{
    self, Command, Entry, Journal, JournalFile, Phase, State, SwitchReport, Tolerance,
};

impl Run<'_> {
    pub(super) async fn back(&self) -> Result<Exit, Failure> {
        self.account()?;
        let file = JournalFile::lock(&self.args.journal)?;
        let Some(journal) = self.journal(&file)? else { return Err(self.no_journal().into()) };
        let mut entries = self.wanted(&journal)?;
        entries.retain(|it| it.phase != Phase::Planned);
        if entries.is_empty() {
            let summary = "there is nothing to go back: no environment was switched";
            let report = self.report(Command::Back, summary, &[], State::NotBegun);
            return Ok(self.print(Exit::Done, report));
        }
        let is_only = entries.len() == 1;
        let mut chosen = Vec::new();
        for entry in entries {
            let mut known = self.project.environments.iter();
            let found = known.find(|(name, _)| is_named(entry, name)).map(|(_, it)| it);
            let one = Selected { name: Some(&entry.name), environment: found, is_only };
            let decided = decisions(&self.args.options, self.project, &[one], &entry.before)?.pop();
            let callbacks = [entry.before.as_str(), entry.after.as_str()];
            let prepared = self.prepare(one, decided.unwrap_or_default(), callbacks)?;
            chosen.push(switch::Selected { uuid: Some(entry.uuid.clone()), ..prepared });
        }
        let mut environments = switch::read(&self.context, chosen, None, Some(&journal)).await?;
        switch::survey(&self.context, &mut environments).await;
        Self::clear();
        let tolerance = Tolerance { swaps: Self::may_ask() && !self.args.yes, others: true };
        if let Err(stop) = switch::safety(&environments, tolerance) {
            self.show(&environments, &[])?;
            return self.not_safe(environments, stop, &file, Some(journal)).await;
        }
        let plan = switch::plan(&environments, "");
        self.show(&environments, &plan)?;
        let count = environments.iter().filter(|it| it.may_change()).count();
        if count > 0 {
            self.confirm("restore the previous callback in", count).await?;
        }
        self.execute(Command::Back, environments, plan, &file, Some(journal)).await
    }

    /// The entries that were selected; without a selection, all.
    fn wanted<'j>(&self, journal: &'j Journal) -> Result<Vec<&'j Entry>, Problem> {
        let (all, names) = (&journal.environments, &self.args.options.environment);
        if let Some(name) = names.iter().find(|name| !all.iter().any(|it| is_named(it, name))) {
            let known: Vec<_> = all.iter().map(|it| format!("`{}`", it.name)).collect();
            return Err(Problem::error(format!("the journal has no environment `{name}`"))
                .hint(format!("it has {}", known.join(", "))));
        }
        let is_wanted =
            |it: &&Entry| names.is_empty() || names.iter().any(|name| is_named(it, name));
        Ok(all.iter().filter(is_wanted).collect())
    }

    fn no_journal(&self) -> Problem {
        Problem::error(format!("there is no journal `{}`", self.args.journal.display()))
            .hint(
                "run this in the directory of the switch, or pass its journal with --journal; without one, pass \
                 the previous callback with --callback",
            )
    }

    pub(super) async fn status(&self) -> Result<Exit, Failure> {
        let account = self.account()?;
        let file = JournalFile::unlocked(&self.args.journal);
        let Some(journal) = self.journal(&file)? else { return Err(self.no_journal().into()) };
        let entries = self.wanted(&journal)?;
        let environments = switch::status(&self.context, account, &entries).await;
        let is_expected = environments.iter().all(|it| it.result == State::AsExpected);
        let (exit, summary) = if is_expected {
            (Exit::Done, "every callback is as the journal expects")
        } else if environments.iter().any(|it| it.result == State::NotRead) {
            (Exit::CouldNotRun, "a callback could not be read")
        } else {
            (
                Exit::Unconfirmed,
                "a callback is not as the journal expects, or a switch was interrupted",
            )
        };
        let is_back = |it: &switch::EnvironmentReport| {
            it.phase == Some(Phase::Restored) && it.value.as_deref() == Some(&it.before)
        };
        let may_go_back = !environments.iter().all(is_back);
        let report = self.report(Command::Status, summary, &[], State::NotBegun);
        let back = may_go_back.then(|| self.context.invocation.back());
        Ok(self.print(exit, SwitchReport { environments, back, ..report }))
    }

    /// Ctrl-C: nothing is restored; the journal shows what a later run can do.
    pub(super) fn interrupted(&self) -> Exit {
        Self::clear();
        let journal = JournalFile::unlocked(&self.args.journal).read().ok().flatten();
        let entries = journal.map(|it| it.environments).unwrap_or_default();
        let is_changed = entries.iter().any(|it| it.phase.expects_new() != Some(false));
        let report = self.report(self.command(), "interrupted", &[], State::NotBegun);
        let environments = entries.iter().map(switch::offline).collect();
        let back = is_changed.then(|| self.context.invocation.back());
        self.print(Exit::Interrupted, SwitchReport { environments, back, ..report })
    }
}

/// The journal contains names without control characters.
fn is_named(entry: &Entry, name: &str) -> bool {
    entry.name == crate::report::printable(name)
}
