//! `callback-edge switch`: saves a callback in Nango's settings, and goes back when it fails.

mod consent;
mod journaled;
mod output;

use super::connect::duration;
use super::environments::{
    EnvironmentOptions, Prepared, Selected, decisions, default_callback, load, nango_base, prepare,
    selected,
};
use super::format::Verbosity;
use super::secret::secret;
use super::watch::stop_signal;
use super::{Exit, block_on, cannot_run, eprint_line, usage};
use crate::config::{Problem, Project, Settings};
use crate::preflight::Account;
use crate::redirect::Target;
use crate::report::Verdict;
use crate::switch::{
    self, Command, Context, End, Entry, Environment, Goal, Invocation, Journal, JournalFile,
    Operator, Outcome, Phase, State, Stop, StopKind, SwitchReport, Tolerance, outcome,
};
use secrecy::{ExposeSecret as _, SecretString};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Save a callback in Nango's settings, only when it is safe; restore it if it fails
///
/// Reads the environments, runs `preflight` for all of them, shows the plan, and asks. Then it saves the
/// callback in one environment after the other, production last. Each time it reads the callback back, sees
/// it in a started flow, and runs the preflight again; if something fails, it restores the previous
/// callback. Only the callback is saved. A journal contains the previous callbacks, so that `--back` can
/// go back after a crash.
#[expect(clippy::struct_excessive_bools, reason = "each is a separate flag")]
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The API key of the account comes from the variable NANGO_ACCOUNT_KEY or from a file, with the scopes
account:environments:list, account:environments:read and account:environments:update. The API key of each
environment comes from the project file, or for one environment from NANGO_SECRET_KEY.
Exit codes: 0 switched and confirmed, 1 nothing switched: unsafe, or restored, 2 switched, something is
unconfirmed, 3 could not run, nothing changed, 4 stopped part way, 64 usage error, 130 interrupted

Example:
  callback-edge switch --callback https://auth.example.com/oauth/callback --plan
  callback-edge switch --back")]
pub(super) struct Args {
    /// Callback to save in Nango's settings
    #[arg(long, value_name = "URL", value_parser = Target::parse, required_unless_present_any = ["back", "status"])]
    callback: Option<Target>,

    /// Show the plan and change nothing
    #[arg(long, conflicts_with_all = ["back", "status", "yes"])]
    plan: bool,

    /// Go back to the callbacks in the journal, production first
    #[arg(long, conflicts_with_all = ["callback", "status"])]
    back: bool,

    /// Compare the callbacks in Nango with the journal, and change nothing
    #[arg(long, conflicts_with_all = ["callback", "yes"])]
    status: bool,

    /// Don't ask for confirmation
    #[arg(short, long)]
    yes: bool,

    /// How long to wait until a change is visible; without Nango's Environments API, until a person saves
    /// the callback [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,

    /// File with the API key of the account [default: `account_key_file` in the project file, else the
    /// variable `NANGO_ACCOUNT_KEY`]
    #[arg(long, value_name = "FILE")]
    account_key_file: Option<PathBuf>,

    /// File with the previous callbacks
    #[arg(long, value_name = "FILE", default_value = "./callback-edge-switch.json")]
    journal: PathBuf,

    /// Print the report as JSON
    #[arg(long, conflicts_with = "quiet")]
    json: bool,

    #[command(flatten)]
    verbosity: Verbosity,

    #[command(flatten)]
    options: EnvironmentOptions,
}

/// The API key of an account.
const ACCOUNT_KEY: &str = "NANGO_ACCOUNT_KEY";

const WAIT: Duration = Duration::from_mins(10);

/// Exit: see the help text.
pub(super) fn run(args: &Args, file: Option<&Path>) -> Exit {
    let (settings, project) = match load(&args.options, file) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprint_line(&problems.coloured());
            return Exit::Usage;
        }
    };
    let run = match Run::new(args, &settings, &project) {
        Ok(run) => run,
        Err(problem) => return usage(&problem),
    };
    let exit = block_on(async {
        tokio::select! {
            finished = Box::pin(run.run()) => finished,
            () = stop_signal() => Ok(run.interrupted()),
        }
    });
    match exit {
        Ok(Ok(exit)) => exit,
        Ok(Err(failure)) => run.failed(failure),
        Err(error) => cannot_run(&error),
    }
}

/// Why there is no report.
enum Failure {
    Problem(Box<Problem>),
    Stop(Stop),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<switch::JournalError> for Failure {
    fn from(error: switch::JournalError) -> Self {
        let (why, hint) = (error.to_string(), error.hint().to_owned());
        let kind = match error {
            switch::JournalError::Invalid(_) => StopKind::Usage,
            _ => StopKind::CouldNotRun,
        };
        Self::Stop(Stop { kind, why, hint })
    }
}

struct Run<'a> {
    args: &'a Args,
    settings: &'a Settings,
    project: &'a Project,
    base: Target,
    context: Context,
}

impl<'a> Run<'a> {
    fn new(args: &'a Args, settings: &'a Settings, project: &'a Project) -> Result<Self, Problem> {
        if !args.options.only.is_empty() && !args.plan && !args.back {
            return Err(Problem::error(
                "--only leaves integrations unchecked that the switch affects",
            )
            .hint("omit it, or use it with --plan or --back"));
        }
        let base = nango_base(settings, false)?;
        let outbound = args.options.connect.outbound(Some(settings))?;
        let callback =
            args.callback.as_ref().map_or("https://nango.invalid/oauth/callback", Target::as_str);
        let default = default_callback(settings, callback)?;
        let account = account_key(args, project)?;
        let context = Context {
            account: account.map(|key| Account::new(outbound.clone(), &base, key)),
            outbound,
            wait: args.wait.unwrap_or(WAIT),
            default_callback: default.as_str().to_owned(),
            invocation: Invocation::new(
                std::env::args_os().map(|it| it.to_string_lossy().into_owned()),
            ),
        };
        Ok(Self { args, settings, project, base, context })
    }

    async fn run(&self) -> Result<Exit, Failure> {
        if self.args.status {
            self.status().await
        } else if self.args.back {
            self.back().await
        } else {
            self.switch().await
        }
    }

    fn account(&self) -> Result<&Account, Failure> {
        self.context.account.as_ref().ok_or_else(|| {
            Problem::error(format!("there is no account API key: `{ACCOUNT_KEY}` is not set"))
                .hint("create one in the account settings in Nango, and set it, or pass --account-key-file")
                .into()
        })
    }

    /// The journal, if it belongs to this server.
    fn journal(&self, file: &JournalFile) -> Result<Option<Journal>, Failure> {
        let Some(journal) = file.read()? else { return Ok(None) };
        let nango = &self.settings.nango_url;
        if journal.nango.trim_end_matches('/') != nango.trim_end_matches('/') {
            let what = format!(
                "the journal `{}` is of Nango at `{}`",
                file.path().display(),
                crate::report::printable(&journal.nango)
            );
            let hint = "set `nango.url` to it, or use another file with --journal";
            return Err(Problem::error(what).hint(hint).into());
        }
        Ok(Some(journal))
    }

    fn select(&self) -> Result<Vec<Selected<'a>>, Problem> {
        let options = &self.args.options;
        let mut all = match options.environment.as_slice() {
            // The name identifies the environment in Nango; the key is in the variable.
            [name] if self.project.environments.is_empty() => {
                vec![Selected { name: Some(name), environment: None, is_only: true }]
            }
            _ => selected(options, self.project)?,
        };
        let mut seen: Vec<Option<&str>> = Vec::new();
        all.retain(|it| {
            let is_new = !seen.contains(&it.name);
            seen.push(it.name);
            is_new
        });
        let is_only = all.len() == 1;
        Ok(all.into_iter().map(|it| Selected { is_only, ..it }).collect())
    }

    fn prepare(
        &self,
        selected: Selected<'_>,
        decisions: Vec<crate::preflight::Decision>,
        callbacks: [&str; 2],
    ) -> Result<switch::Selected, Problem> {
        let Prepared { plan, nango, .. } =
            prepare(&self.args.options, self.settings, selected, decisions, callbacks, &self.base)?;
        let name = selected.name.map(str::to_owned);
        Ok(switch::Selected { name, uuid: None, plan, nango })
    }

    async fn switch(&self) -> Result<Exit, Failure> {
        let Some(callback) = self.args.callback.as_ref().map(Target::as_str) else {
            return Err(Problem::error("there is no callback").into());
        };
        let file = if self.args.plan {
            JournalFile::unlocked(&self.args.journal)
        } else {
            JournalFile::lock(&self.args.journal)?
        };
        let journal = self.journal(&file)?;
        let chosen = self.select()?;
        let decided = decisions(&self.args.options, self.project, &chosen, callback)?;
        let chosen = chosen.into_iter().zip(decided).map(|(selected, decisions)| {
            self.prepare(selected, decisions, [callback, &self.context.default_callback])
        });
        let chosen = chosen.collect::<Result<Vec<_>, _>>()?;
        if let Some(entry) = journal.as_ref().and_then(|it| unfinished(it, callback)) {
            let what = format!(
                "the switch of `{}` to {} is not finished",
                crate::report::printable(&entry.name),
                crate::report::printable(&entry.after)
            );
            let hint = format!(
                "finish it with the same --callback, or go back: {}",
                self.context.invocation.back()
            );
            return Err(Problem::error(what).hint(hint).into());
        }
        let mut environments =
            switch::read(&self.context, chosen, Some(callback), journal.as_ref()).await?;
        switch::survey(&self.context, &mut environments).await;
        Self::clear();
        let is_manual = environments.iter().any(|it| it.uuid.is_empty());
        let back = if is_manual { String::new() } else { self.context.invocation.back() };
        let tolerance = Tolerance { swaps: Self::may_ask() && !self.args.yes, others: false };
        if let Err(stop) = switch::safety(&environments, tolerance) {
            self.show(&environments, &[])?;
            return self.not_safe(environments, stop, &file, journal).await;
        }
        let mut plan = switch::plan(&environments, &back);
        if is_manual {
            plan.extend(switch::instructions(&environments, self.context_base()));
        }
        self.show(&environments, &plan)?;
        let all_switched = environments.iter().all(|it| it.goal == Goal::Verify);
        if self.args.plan {
            let summary = "planned: nothing is changed";
            let report = self.report(Command::Plan, summary, &environments, State::Planned);
            return Ok(self.print(Exit::Done, SwitchReport { plan, ..report }));
        }
        if is_manual {
            return self.manual(environments, plan).await;
        }
        if !all_switched {
            let count = environments.iter().filter(|it| it.goal != Goal::Verify).count();
            self.confirm("save the callback in", count).await?;
        }
        self.execute(Command::Switch, environments, plan, &file, journal).await
    }

    async fn execute(
        &self,
        command: Command,
        mut environments: Vec<Environment>,
        plan: Vec<String>,
        file: &JournalFile,
        journal: Option<Journal>,
    ) -> Result<Exit, Failure> {
        let journal = journal.unwrap_or_else(|| Journal::new(&self.settings.nango_url));
        let confirms = Self::may_ask() && !self.args.yes;
        let done = switch::execute(
            &self.context,
            self.account()?,
            &mut environments,
            file,
            journal,
            self,
            confirms,
        )
        .await?;
        Self::clear();
        let outcome = outcome(&done.ends);
        let exit = exit_of(outcome);
        let is_again = done.environments.iter().all(|it| it.result == State::AlreadySwitched);
        let summary = match (command, outcome) {
            (Command::Back, Outcome::Done) => "back at the previous callback",
            (Command::Back, Outcome::Unconfirmed) => {
                "back at the previous callback, but not confirmed"
            }
            (_, Outcome::Done) if is_again => "was switched before, and confirmed again",
            (_, Outcome::Done) => "switched and confirmed",
            (_, Outcome::Unconfirmed) => "switched, but something is unconfirmed",
            (_, Outcome::Unchanged) => "nothing is switched",
            (_, Outcome::CouldNotRun) => "could not run, and nothing is changed",
            (_, Outcome::Partial) => "stopped part way: see the callback of each environment",
        };
        let report = self.report(command, summary, &[], State::NotBegun);
        let may_go_back = |it: &switch::EnvironmentReport| {
            it.phase.is_some_and(|phase| phase.expects_new() != Some(false))
        };
        let back =
            done.environments.iter().any(may_go_back).then(|| self.context.invocation.back());
        let (environments, remaining) = (done.environments, done.remaining);
        Ok(self.print(exit, SwitchReport { environments, plan, remaining, back, ..report }))
    }

    /// Reports that it is not safe. Restores what an interrupted run saved and what fails now.
    async fn not_safe(
        &self,
        mut environments: Vec<Environment>,
        stop: Stop,
        file: &JournalFile,
        journal: Option<Journal>,
    ) -> Result<Exit, Failure> {
        let is_broken = |it: &Environment| {
            it.phase.is_some_and(Phase::is_interrupted)
                && it.preflight.as_ref().is_some_and(|it| it.verdict() == Verdict::Fail)
        };
        // The preflight of `--back` is about the previous callback.
        let may_restore = !self.args.plan && !self.args.back;
        if may_restore && environments.iter().any(is_broken) {
            environments.retain(is_broken);
            for environment in &mut environments {
                environment.goal = Goal::Undo;
            }
            let count = environments.len();
            self.confirm("the switch was interrupted and fails; restore", count).await?;
            return self.execute(Command::Switch, environments, Vec::new(), file, journal).await;
        }
        let exit = if stop.kind == StopKind::Unsafe { Exit::Failed } else { Exit::CouldNotRun };
        let command = self.command();
        let summary = format!("nothing is changed: {}", stop.why);
        let mut report = self.report(command, &summary, &environments, State::NotBegun);
        for (shown, environment) in report.environments.iter_mut().zip(&environments) {
            if environment.preflight.as_ref().is_some_and(|it| it.verdict() != Verdict::Pass) {
                shown.result = State::Unsafe;
            }
        }
        let (error, hint) = (Some(stop.why), Some(stop.hint));
        Ok(self.print(exit, SwitchReport { error, hint, ..report }))
    }

    /// A person saves the callback: waits for it, if requested.
    async fn manual(
        &self,
        mut environments: Vec<Environment>,
        plan: Vec<String>,
    ) -> Result<Exit, Failure> {
        let all_switched = environments.iter().all(|it| it.goal == Goal::Verify);
        if self.args.wait.is_none() && !all_switched {
            let why = "this Nango has no Environments API: save the callback by hand";
            let summary = format!("nothing is changed: {why}");
            let report = self.report(Command::Switch, &summary, &environments, State::NotBegun);
            let remaining = switch::instructions(&environments, self.context_base());
            let hint = "save it, and pass --wait 10m to confirm it";
            let (error, hint) = (Some(why.into()), Some(hint.into()));
            let report = SwitchReport { error, hint, plan, remaining, ..report };
            return Ok(self.print(Exit::CouldNotRun, report));
        }
        for line in switch::instructions(&environments, self.context_base()) {
            self.note(&line);
        }
        let (shown, ends) = switch::watch(&self.context, &mut environments, self).await;
        Self::clear();
        let outcome = outcome(&ends);
        let summary = match outcome {
            Outcome::Done => "switched and confirmed",
            Outcome::Unconfirmed => "switched, but something is unconfirmed",
            Outcome::CouldNotRun | Outcome::Unchanged => "the new callback was not seen",
            Outcome::Partial if ends.contains(&End::Broken) => {
                "switched, but it fails: save the previous callback again"
            }
            Outcome::Partial => "the new callback was not seen in every environment",
        };
        let report = self.report(Command::Switch, summary, &[], State::NotBegun);
        Ok(self.print(exit_of(outcome), SwitchReport { environments: shown, plan, ..report }))
    }

    fn failed(&self, failure: Failure) -> Exit {
        Self::clear();
        let stop = match failure {
            Failure::Problem(problem) => return usage(&problem),
            Failure::Stop(stop) => stop,
        };
        let exit = match stop.kind {
            StopKind::Usage => Exit::Usage,
            StopKind::CouldNotRun => Exit::CouldNotRun,
            StopKind::Unsafe => Exit::Failed,
        };
        let problem = Problem::error(crate::report::printable(&stop.why))
            .hint(crate::report::printable(&stop.hint));
        eprint_line(&problem.coloured());
        if !self.args.json || exit == Exit::Usage {
            return exit;
        }
        let command = self.command();
        let summary = format!("could not run: {}", stop.why);
        let report = self.report(command, &summary, &[], State::NotBegun);
        let (error, hint) = (Some(stop.why), Some(stop.hint));
        self.print(exit, SwitchReport { error, hint, ..report })
    }

    fn context_base(&self) -> &str {
        self.settings.nango_url.trim_end_matches('/')
    }

    fn command(&self) -> Command {
        match (self.args.plan, self.args.back, self.args.status) {
            (true, ..) => Command::Plan,
            (_, true, _) => Command::Back,
            (_, _, true) => Command::Status,
            _ => Command::Switch,
        }
    }
}

/// An entry of the journal whose switch to another callback was interrupted.
fn unfinished<'j>(journal: &'j Journal, callback: &str) -> Option<&'j Entry> {
    journal
        .environments
        .iter()
        .find(|it| it.phase.is_interrupted() && !crate::preflight::is_same_url(&it.after, callback))
}

fn exit_of(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Done => Exit::Done,
        Outcome::Unchanged => Exit::Failed,
        Outcome::Unconfirmed => Exit::Unconfirmed,
        Outcome::CouldNotRun => Exit::CouldNotRun,
        Outcome::Partial => Exit::Partial,
    }
}

/// The API key of the account; `None` when there is none, as for servers without the Environments API.
fn account_key(args: &Args, project: &Project) -> Result<Option<SecretString>, Problem> {
    let own = project.account_key_file.as_ref().map(|file| file.path.as_path());
    let file = args.account_key_file.as_deref().or(own);
    let key = secret(file, ACCOUNT_KEY)?;
    if key.as_ref().is_some_and(|key| !key.expose_secret().is_ascii()) {
        return Err(Problem::error("cannot use the account API key")
            .because("it contains characters that are not ASCII")
            .hint("copy it again from the account settings in Nango"));
    }
    Ok(key)
}
