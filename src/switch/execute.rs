//! Switches the environments, one after the other: does what the machine decides.

use super::journal::{Entry, Journal, JournalError, JournalFile, now};
use super::machine::{Action, End, Event, Flow, Goal, Machine, Phase, Reply, Value, Verification};
use super::plan::{in_backticks, remaining};
use super::read::Environment;
use super::report::{EnvironmentReport, State};
use super::survey::verify;
use super::{Context, Operator};
use crate::preflight::{Account, FlowObservation, Saved, is_same_url};
use crate::report::{Report, Verdict, printable};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long to wait for a request whose response was lost to become visible.
const LOST_WAIT: Duration = Duration::from_secs(20);

/// How often a callback is read before a restore gives up.
const READS_BEFORE_RESTORE: u32 = 5;

/// What a run of the environments reached.
pub struct Execution {
    /// The result of each environment, in their order.
    pub environments: Vec<EnvironmentReport>,
    /// How those that began ended.
    pub ends: Vec<End>,
    /// What remains to be done.
    pub remaining: Vec<String>,
}

/// Switches the environments, or takes them back, in this order, and stops at the first that fails.
pub async fn execute(
    context: &Context,
    account: &Account,
    environments: &mut [Environment],
    file: &JournalFile,
    mut journal: Journal,
    operator: &impl Operator,
    confirms_swaps: bool,
) -> Result<Execution, JournalError> {
    for environment in environments.iter().filter(|it| it.phase.is_some()) {
        journal.set(entry(environment, journal.entry(&environment.uuid)));
    }
    file.write(&journal)?;
    let mut ends: Vec<End> = Vec::new();
    let mut results = Vec::new();
    for at in 0..environments.len() {
        let may_begin = ends.last().is_none_or(|end| end.may_continue());
        let Some((environment, others)) = split(environments, at) else { break };
        if !may_begin {
            results.push((State::NotBegun, None, None));
            continue;
        }
        let mut run = Run {
            context,
            account,
            environment,
            others,
            file,
            journal: &mut journal,
            operator,
            reason: None,
            verification: None,
        };
        let end =
            if run.may_begin(confirms_swaps).await { run.drive().await } else { End::Declined };
        let (reason, verification) = (run.reason, run.verification);
        let was_switched = environment.goal == Goal::Verify && end == End::Switched;
        let state = if was_switched { State::AlreadySwitched } else { State::Ended(end) };
        results.push((state, reason, verification));
        ends.push(end);
    }
    let switched: Vec<_> = environments
        .iter()
        .zip(&results)
        .filter(|(_, (state, ..))| {
            matches!(
                state,
                State::AlreadySwitched
                    | State::Ended(End::Switched | End::SwitchedUnconfirmed | End::Broken)
            )
        })
        .map(|(environment, (_, _, verification))| (environment, verification.as_ref()))
        .collect();
    let remaining = remaining(&switched);
    let reports = environments.iter().zip(results).map(|(environment, (state, reason, after))| {
        EnvironmentReport {
            phase: journal.entry(&environment.uuid).map(|it| it.phase),
            reason,
            verification: after,
            ..environment.report(state)
        }
    });
    Ok(Execution { environments: reports.collect(), ends, remaining })
}

/// One environment, and the ones after it, which have their previous callback still.
fn split(
    environments: &mut [Environment],
    at: usize,
) -> Option<(&mut Environment, &mut [Environment])> {
    environments.get_mut(at..)?.split_first_mut()
}

fn entry(environment: &Environment, known: Option<&Entry>) -> Entry {
    let now = now();
    let phase = environment.phase.unwrap_or(Phase::Planned);
    let same = known.filter(|it| {
        it.before == environment.before && it.after == environment.after && it.phase == phase
    });
    Entry {
        name: environment.name.clone(),
        uuid: environment.uuid.clone(),
        is_production: environment.is_production,
        before: environment.before.clone(),
        after: environment.after.clone(),
        phase,
        started_at: same.map_or_else(|| now.clone(), |it| it.started_at.clone()),
        changed_at: same.map_or_else(|| now.clone(), |it| it.changed_at.clone()),
    }
}

impl Environment {
    /// Its report, without what a run adds.
    pub fn report(&self, result: State) -> EnvironmentReport {
        EnvironmentReport {
            name: self.name.clone(),
            uuid: self.uuid.clone(),
            is_production: self.is_production,
            before: printable(&self.before),
            after: printable(&self.after),
            value: self.value.as_deref().map(printable),
            phase: self.phase,
            result,
            reason: None,
            evidence: self.evidence.clone(),
            preflight: self.preflight.clone(),
            verification: None,
        }
    }

    /// The integrations whose provider keeps one callback, which the person replaces.
    fn to_replace(&self) -> Vec<String> {
        let switch = self.preflight.as_ref().and_then(|it| it.switch.as_ref());
        switch.map(|it| it.to_replace.clone()).unwrap_or_default()
    }
}

/// The run of one environment.
struct Run<'r, O> {
    context: &'r Context,
    account: &'r Account,
    environment: &'r mut Environment,
    others: &'r mut [Environment],
    file: &'r JournalFile,
    journal: &'r mut Journal,
    operator: &'r O,
    reason: Option<String>,
    verification: Option<Report>,
}

impl<O: Operator> Run<'_, O> {
    /// Asks the person to replace the callback at providers that keep one.
    async fn may_begin(&self, confirms_swaps: bool) -> bool {
        let keys = self.environment.to_replace();
        let is_save = matches!(self.environment.goal, Goal::Switch | Goal::Back);
        if keys.is_empty() || !is_save || !confirms_swaps {
            return true;
        }
        let keys = in_backticks(&keys);
        let to = match self.environment.goal {
            Goal::Back => &self.environment.before,
            _ => &self.environment.after,
        };
        self.operator
            .confirm(&format!(
                "{}: replace the callback of {} with {} at the provider now. Is it replaced?",
                self.environment.name,
                keys,
                printable(to)
            ))
            .await
    }

    async fn drive(&mut self) -> End {
        let phase = self.environment.phase.unwrap_or(Phase::Saved);
        let mut machine = Machine::begin(self.environment.goal, phase);
        loop {
            let action = machine.action();
            if let Err(error) = self.record(machine.phase())
                && matches!(action, Action::Save)
            {
                // Without it, a run that is killed could not go back.
                self.reason = Some(error.to_string());
                self.set_phase(phase);
                return End::Refused;
            }
            let event = match action {
                Action::Read => Event::Read(self.read_before(machine.goal()).await),
                Action::Save => {
                    self.announce_save();
                    Event::Replied(self.save(&self.environment.after.clone()).await)
                }
                Action::AwaitNew { acknowledged } => {
                    Event::Read(self.await_value(Value::After, acknowledged).await)
                }
                Action::ObserveNew => Event::Observed(self.await_flow(true).await),
                Action::Verify => Event::Verified(self.verify().await),
                Action::Restore => {
                    self.announce_restore(machine.goal());
                    Event::Replied(self.save(&self.environment.before.clone()).await)
                }
                Action::AwaitOld { acknowledged } => {
                    Event::Read(self.await_value(Value::Before, acknowledged).await)
                }
                Action::ObserveOld => Event::Observed(self.await_flow(false).await),
                Action::Stop(end) => return end,
            };
            machine.next(event);
        }
    }

    /// Writes the phase to the journal, if it changed.
    fn record(&mut self, phase: Phase) -> Result<(), JournalError> {
        if self.environment.phase.is_none_or(|known| known == phase) {
            return Ok(());
        }
        self.set_phase(phase);
        let written = self.file.write(self.journal);
        if let Err(error) = &written {
            self.operator.note(&format!("{}: {error}", self.environment.name));
        }
        written
    }

    fn set_phase(&mut self, phase: Phase) {
        self.environment.phase = Some(phase);
        let uuid = &self.environment.uuid;
        if let Some(entry) = self.journal.environments.iter_mut().find(|it| it.uuid == *uuid) {
            entry.phase = phase;
            entry.changed_at = now();
        }
    }

    fn announce_save(&self) {
        let Environment { name, before, after, .. } = &*self.environment;
        self.operator.note(&format!(
            "{name}: the previous callback is {}\n{name}: to go back: {}\n{name}: saving {}",
            printable(before),
            self.context.invocation.back(),
            printable(after)
        ));
    }

    fn announce_restore(&self, goal: Goal) {
        let Environment { name, before, .. } = &*self.environment;
        let why = self.reason.as_deref().filter(|_| goal == Goal::Undo);
        let why = why.map(|why| format!("{name}: {why}\n")).unwrap_or_default();
        self.operator
            .note(&format!("{why}{name}: saving the previous callback {}", printable(before)));
    }

    async fn save(&mut self, callback: &str) -> Reply {
        match self.account.save_callback(&self.environment.uuid, callback).await {
            Saved::Acknowledged => Reply::Acknowledged,
            Saved::Refused(error) => {
                self.add_reason(&error.to_string());
                Reply::Refused
            }
            Saved::NotSent(error) => {
                self.add_reason(&error.to_string());
                Reply::NotSent
            }
            Saved::Lost(why) => {
                self.operator.note(&format!(
                    "{}: no response to the save: {}; reading the callback",
                    self.environment.name,
                    printable(&why)
                ));
                Reply::Lost
            }
        }
    }

    /// Adds to the reason: the first one is the cause.
    fn add_reason(&mut self, why: &str) {
        let why = printable(why);
        self.reason = Some(match self.reason.take() {
            Some(known) if known != why => format!("{known}; then {why}"),
            _ => why,
        });
    }

    async fn read(&mut self) -> Value {
        let value = match self.account.callback(&self.environment.uuid).await {
            Ok(value) => value.unwrap_or_else(|| self.environment.default.clone()),
            Err(error) => {
                self.environment.value = None;
                self.operator.note(&format!(
                    "{}: {}",
                    self.environment.name,
                    printable(&error.why)
                ));
                return Value::Unreadable;
            }
        };
        let compared = compare(&value, &self.environment.before, &self.environment.after);
        self.environment.value = Some(value);
        compared
    }

    /// Reads it before a change. Before a restore, a failure of the network must not leave the
    /// callback that failed.
    async fn read_before(&mut self, goal: Goal) -> Value {
        let attempts = if goal == Goal::Undo { READS_BEFORE_RESTORE } else { 1 };
        let mut value = self.read().await;
        for _ in 1..attempts {
            if value != Value::Unreadable {
                break;
            }
            sleep(self.context.pause()).await;
            value = self.read().await;
        }
        match value {
            Value::Unreadable => self.add_reason("the callback could not be read"),
            Value::Other | Value::After | Value::Before | Value::Altered => {
                self.note_unexpected(goal, value);
            }
        }
        value
    }

    fn note_unexpected(&mut self, goal: Goal, value: Value) {
        let was_planned = self.environment.phase.is_none_or(|phase| !phase.is_interrupted());
        let is_changed = match goal {
            Goal::Switch => value != Value::Before && was_planned,
            Goal::Verify => value != Value::After,
            Goal::Back | Goal::Undo => false,
        };
        if value == Value::Other || is_changed {
            let now = self.environment.value.clone().unwrap_or_default();
            self.add_reason(&format!("Nango has {now}, which this run did not save"));
        }
    }

    /// Reads until the value is there, another one is, or the wait is over.
    async fn await_value(&mut self, wanted: Value, acknowledged: bool) -> Value {
        let wait = self.context.wait;
        let wait = if acknowledged { wait } else { wait.min(LOST_WAIT) };
        let began = Instant::now();
        let transient = match wanted {
            Value::After => Value::Before,
            _ => Value::After,
        };
        loop {
            let value = self.read().await;
            let may_change = value == transient
                || value == Value::Unreadable
                || (wanted == Value::Before && value == Value::Altered);
            if !may_change {
                self.note_read(wanted, value);
                return value;
            }
            if began.elapsed() >= wait {
                self.note_read(wanted, value);
                return value;
            }
            sleep(self.context.pause()).await;
        }
    }

    fn note_read(&mut self, wanted: Value, value: Value) {
        let shown = printable(self.environment.value.as_deref().unwrap_or_default());
        let name = if wanted == Value::After { "new" } else { "previous" };
        if value == wanted {
            self.environment.evidence.push(format!("Nango returns the {name} callback"));
            return;
        }
        self.add_reason(&match value {
            Value::Unreadable => "the callback could not be read after the save".to_owned(),
            Value::Altered => format!("Nango saved {shown}, which differs from what was sent"),
            Value::Other => format!("Nango has {shown}, which this run did not save"),
            Value::Before | Value::After => {
                format!("Nango still returns {shown} after the save")
            }
        });
    }

    /// Starts flows until one has the wanted callback, another one, or the wait is over.
    async fn await_flow(&mut self, is_new: bool) -> Flow {
        let (before, after) = (self.environment.before.clone(), self.environment.after.clone());
        let began = Instant::now();
        let mut is_first = true;
        loop {
            let seen = self.environment.flows.observe(&[&after, &before]).await;
            let is_over = began.elapsed() >= self.context.wait;
            match seen {
                FlowObservation::Sent { integration, callback } => {
                    let integration = printable(&integration);
                    let flow = match compare(&callback, &before, &after) {
                        Value::After => Flow::New,
                        Value::Before => Flow::Old,
                        Value::Altered | Value::Other | Value::Unreadable => Flow::Other,
                    };
                    if (flow == Flow::New) == is_new && flow != Flow::Other {
                        let name = if is_new { "new" } else { "previous" };
                        self.environment
                            .evidence
                            .push(format!("a flow of `{integration}` sends the {name} callback"));
                        return flow;
                    }
                    if flow == Flow::Other {
                        self.add_reason(&format!(
                            "a flow of `{integration}` sends {callback}: the API key may open another \
                             environment"
                        ));
                        return flow;
                    }
                    if is_first
                        && is_new
                        && let Some(other) = self.seen_elsewhere().await
                    {
                        self.add_reason(&format!(
                            "flows that start with the key of `{other}` send the new callback: the keys \
                             are swapped"
                        ));
                        return Flow::Other;
                    }
                    if is_over {
                        self.add_reason(&format!(
                            "a flow of `{integration}` still sends {callback}"
                        ));
                        return flow;
                    }
                }
                FlowObservation::None(why) => {
                    // It started before: try again.
                    if !self.environment.starts_flows || is_over {
                        self.add_reason(&format!("no flow shows the callback: {why}"));
                        return Flow::None;
                    }
                }
            }
            is_first = false;
            sleep(self.context.pause()).await;
        }
    }

    /// The environment that begins later and whose flows have the new callback already, although no
    /// run saved it there.
    async fn seen_elsewhere(&mut self) -> Option<String> {
        let after = self.environment.after.clone();
        let is_untouched =
            |it: &&mut Environment| it.phase == Some(Phase::Planned) && it.starts_flows;
        for other in self.others.iter_mut().filter(is_untouched) {
            if let FlowObservation::Sent { callback, .. } =
                other.flows.observe(&[&after, &other.before]).await
                && is_same_url(&callback, &after)
            {
                return Some(other.name.clone());
            }
        }
        None
    }

    async fn verify(&mut self) -> Verification {
        let mut report = verify(self.context, self.environment).await;
        if report.verdict() == Verdict::Fail {
            // One request that was lost must not restore what works.
            report = verify(self.context, self.environment).await;
        }
        let verdict = report.verdict();
        if verdict != Verdict::Pass {
            self.add_reason(&format!("the preflight after the save: {}", report.sentence()));
        }
        self.verification = Some(report);
        verdict.into()
    }
}

/// Compares a callback with the previous and the new one.
fn compare(value: &str, before: &str, after: &str) -> Value {
    let simple = |url: &str| url.trim_end_matches('/').to_ascii_lowercase();
    if is_same_url(value, before) {
        Value::Before
    } else if is_same_url(value, after) {
        Value::After
    } else if simple(value) == simple(after) {
        Value::Altered
    } else {
        Value::Other
    }
}
