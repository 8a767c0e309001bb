//! The state machine of one environment. Pure: [`Machine::action`] is what to do next, and
//! [`Machine::next`] takes the result. The driver writes [`Machine::phase`] to the journal before each
//! action, so that a run that was killed begins again with the phase of the last action.
//!
//! It saves a callback only after it read the previous one, restores the previous one when a
//! confirmation fails, and never overwrites a value that is neither of the two.

use crate::report::Verdict;
use serde::{Deserialize, Serialize};

/// How far the switch of an environment is. Names in the journal are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing was sent.
    Planned,
    /// The request that saves the new callback may have been sent.
    Saving,
    /// Nango has the new callback; it is not confirmed yet.
    Saved,
    /// A started flow and a preflight confirmed the new callback.
    Confirmed,
    /// Nango has the new callback, and something about it is unknown.
    Unconfirmed,
    /// The request that restores the previous callback may have been sent.
    Restoring,
    /// Nango has the previous callback again.
    Restored,
}

impl Phase {
    /// Whether a run ended in the middle of a change.
    pub const fn is_interrupted(self) -> bool {
        matches!(self, Self::Saving | Self::Saved | Self::Restoring)
    }

    /// Whether Nango should have the new callback; `None` when it may have either.
    pub const fn expects_new(self) -> Option<bool> {
        match self {
            Self::Planned | Self::Restored => Some(false),
            Self::Saved | Self::Confirmed | Self::Unconfirmed => Some(true),
            Self::Saving | Self::Restoring => None,
        }
    }
}

/// What a run shall reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The new callback, confirmed.
    Switch,
    /// The new callback was there before this run: only verify it.
    Verify,
    /// The previous callback.
    Back,
    /// The previous callback, because the new one failed.
    Undo,
}

/// The callback that was read, compared with the two of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// The previous one.
    Before,
    /// The new one.
    After,
    /// The new one in another form: Nango changed what was sent.
    Altered,
    /// Another one: a person or another program saved it.
    Other,
    /// It could not be read.
    Unreadable,
}

/// The outcome of a request that saves a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nango acknowledged it.
    Acknowledged,
    /// Nango refused it.
    Refused,
    /// It was not sent: there was no connection.
    NotSent,
    /// It may or may not have arrived.
    Lost,
}

/// The callback in a started flow, when it was the expected one or at the end of the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The new one.
    New,
    /// The previous one.
    Old,
    /// Another one, or the new one in a flow of another environment.
    Other,
    /// No flow can be started.
    None,
}

/// The verdict of the preflight after the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Everything is confirmed.
    Pass,
    /// Something fails.
    Fail,
    /// Something is unknown, or the preflight could not run.
    Unknown,
}

impl From<Verdict> for Verification {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Fail => Self::Fail,
            Verdict::Unconfirmed | Verdict::Error => Self::Unknown,
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the callback once.
    Read,
    /// Save the new callback.
    Save,
    /// Read until the new callback is there, or the wait is over.
    AwaitNew {
        /// Whether Nango acknowledged that it saved it.
        acknowledged: bool,
    },
    /// Start flows until one has the new callback, or the wait is over.
    ObserveNew,
    /// Run the preflight.
    Verify,
    /// Save the previous callback.
    Restore,
    /// Read until the previous callback is there, or the wait is over.
    AwaitOld {
        /// Whether Nango acknowledged that it saved it.
        acknowledged: bool,
    },
    /// Start flows until one has the previous callback, or the wait is over.
    ObserveOld,
    /// Nothing.
    Stop(End),
}

/// The result of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Of [`Action::Read`], [`Action::AwaitNew`] and [`Action::AwaitOld`].
    Read(Value),
    /// Of [`Action::Save`] and [`Action::Restore`].
    Replied(Reply),
    /// Of [`Action::ObserveNew`] and [`Action::ObserveOld`].
    Observed(Flow),
    /// Of [`Action::Verify`].
    Verified(Verification),
}

/// How the run of an environment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The new callback is saved and confirmed.
    Switched,
    /// The new callback is saved; something about it is unknown.
    SwitchedUnconfirmed,
    /// The new callback was there before this run, and fails. Not restored: this run did not save it.
    Broken,
    /// The previous callback is there again, because the new one failed.
    Restored,
    /// The previous callback is there again, as requested.
    Back,
    /// As `Back`, but no flow shows it.
    BackUnconfirmed,
    /// The new callback failed, and the previous one could not be restored.
    NotRestored,
    /// Nango refused the new callback. Nothing changed.
    Refused,
    /// The callback could not be read. Nothing changed.
    Unreadable,
    /// There was no response to the request that saves it, and the previous callback is there.
    NotSaved,
    /// There was no response to the request that saves it, and nothing shows the callback.
    Unknown,
    /// Another person saved another callback before this run did. It is not overwritten.
    ChangedByOthers,
    /// Another person saved another callback after this run did. It is not overwritten.
    #[serde(rename = "changed_by_others")]
    Overwritten,
    /// The person who runs it did not confirm a step. Nothing changed.
    Declined,
}

/// How the runs of all environments end, as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All are switched and confirmed; or all are back.
    Done,
    /// Nothing is changed: unsafe, or restored.
    Unchanged,
    /// All are switched, and something is unconfirmed.
    Unconfirmed,
    /// It could not run, and nothing is changed.
    CouldNotRun,
    /// Stopped part way.
    Partial,
}

impl End {
    /// Whether the next environment may begin.
    pub const fn may_continue(self) -> bool {
        matches!(
            self,
            Self::Switched | Self::SwitchedUnconfirmed | Self::Back | Self::BackUnconfirmed
        )
    }

    /// Whether the environment may have another value than before the run.
    const fn leaves_a_change(self) -> bool {
        match self {
            Self::Switched
            | Self::SwitchedUnconfirmed
            | Self::Broken
            | Self::Back
            | Self::BackUnconfirmed
            | Self::NotRestored
            | Self::Unknown
            | Self::Overwritten => true,
            Self::Restored
            | Self::Refused
            | Self::Unreadable
            | Self::NotSaved
            | Self::ChangedByOthers
            | Self::Declined => false,
        }
    }
}

/// The outcome of the environments that a run began, in their order.
pub fn outcome(ends: &[End]) -> Outcome {
    let Some(failed) = ends.iter().find(|end| !end.may_continue()) else {
        let is_unknown = |end: &End| matches!(end, End::SwitchedUnconfirmed | End::BackUnconfirmed);
        return if ends.iter().any(is_unknown) { Outcome::Unconfirmed } else { Outcome::Done };
    };
    if ends.iter().any(|end| end.leaves_a_change()) {
        return Outcome::Partial;
    }
    match failed {
        End::Refused | End::Unreadable | End::NotSaved => Outcome::CouldNotRun,
        _ => Outcome::Unchanged,
    }
}

/// The state of one environment.
#[expect(clippy::struct_excessive_bools, reason = "each is a separate fact")]
#[derive(Clone, Debug)]
pub struct Machine {
    goal: Goal,
    phase: Phase,
    action: Action,
    /// Requests to save or restore whose response was lost.
    lost: u8,
    /// Whether the last one was acknowledged.
    acknowledged: bool,
    /// Whether this run may have saved the new callback.
    has_saved: bool,
    /// Whether the saved callback could be read.
    was_read: bool,
    /// Whether a flow showed the new callback.
    was_seen: bool,
}

/// How often a request without a response is sent: once more after the previous callback was read.
const MAX_SENT: u8 = 2;

impl Machine {
    /// Begins with the phase in the journal.
    pub const fn begin(goal: Goal, phase: Phase) -> Self {
        Self {
            goal,
            phase,
            action: Action::Read,
            lost: 0,
            acknowledged: false,
            has_saved: false,
            was_read: true,
            was_seen: false,
        }
    }

    /// What to do next.
    pub const fn action(&self) -> Action {
        self.action
    }

    /// What the run shall reach: after a failure, to undo it.
    pub const fn goal(&self) -> Goal {
        self.goal
    }

    /// What the journal must contain before the action.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes the result of the action.
    pub fn next(&mut self, event: Event) {
        self.action = match (self.action, event) {
            (Action::Read, Event::Read(value)) => self.compare(value),
            (Action::Save, Event::Replied(reply)) => self.saved(reply),
            (Action::AwaitNew { acknowledged }, Event::Read(value)) => {
                self.read_back(value, acknowledged)
            }
            (Action::ObserveNew, Event::Observed(flow)) => self.observed(flow),
            (Action::Verify, Event::Verified(verification)) => self.verified(verification),
            (Action::Restore, Event::Replied(reply)) => self.restored(reply),
            (Action::AwaitOld { acknowledged }, Event::Read(value)) => {
                self.read_restored(value, acknowledged)
            }
            (Action::ObserveOld, Event::Observed(flow)) => Action::Stop(match flow {
                Flow::Old => End::Back,
                Flow::New | Flow::Other | Flow::None => End::BackUnconfirmed,
            }),
            // The driver has no other result for an action.
            (action, _) => action,
        };
    }

    /// Whether this environment has, or may have, a callback that has to be restored.
    const fn compare(&mut self, value: Value) -> Action {
        match (self.goal, value) {
            (Goal::Switch, Value::Before) => {
                self.phase = Phase::Saving;
                Action::Save
            }
            // A run that was killed saved it.
            (Goal::Switch, Value::After) if self.phase.is_interrupted() => {
                self.phase = Phase::Saved;
                Action::ObserveNew
            }
            (Goal::Switch, Value::Altered) if self.phase.is_interrupted() => self.fail(),
            // Another run, or a person, was faster.
            (Goal::Undo, Value::Other) if self.has_saved => Action::Stop(End::Overwritten),
            (_, Value::Other)
            | (Goal::Switch, Value::After | Value::Altered)
            | (Goal::Verify, Value::Before | Value::Altered) => Action::Stop(End::ChangedByOthers),
            (Goal::Verify, Value::After) => Action::ObserveNew,
            (Goal::Back, Value::Before) if !self.phase.is_interrupted() => {
                self.phase = Phase::Restored;
                Action::ObserveOld
            }
            (Goal::Back | Goal::Undo, Value::Before | Value::After | Value::Altered) => {
                self.phase = Phase::Restoring;
                Action::Restore
            }
            (Goal::Switch | Goal::Verify | Goal::Back, Value::Unreadable) => {
                Action::Stop(End::Unreadable)
            }
            (Goal::Undo, Value::Unreadable) => Action::Stop(End::NotRestored),
        }
    }

    const fn saved(&mut self, reply: Reply) -> Action {
        match reply {
            Reply::Acknowledged => {
                (self.acknowledged, self.has_saved) = (true, true);
                Action::AwaitNew { acknowledged: true }
            }
            Reply::Lost => {
                self.lost += 1;
                (self.acknowledged, self.has_saved) = (false, true);
                Action::AwaitNew { acknowledged: false }
            }
            // An earlier request may still arrive.
            Reply::Refused | Reply::NotSent if self.lost > 0 => Action::Stop(End::NotSaved),
            Reply::Refused | Reply::NotSent => {
                self.phase = Phase::Planned;
                Action::Stop(End::Refused)
            }
        }
    }

    const fn read_back(&mut self, value: Value, acknowledged: bool) -> Action {
        match value {
            Value::After => {
                self.phase = Phase::Saved;
                Action::ObserveNew
            }
            Value::Unreadable => {
                // A flow may show it.
                self.was_read = false;
                Action::ObserveNew
            }
            Value::Before if acknowledged => self.fail(),
            Value::Before if self.lost < MAX_SENT => Action::Save,
            Value::Before => Action::Stop(End::NotSaved),
            Value::Altered => self.fail(),
            Value::Other => Action::Stop(End::Overwritten),
        }
    }

    const fn observed(&mut self, flow: Flow) -> Action {
        match flow {
            Flow::New => {
                self.was_seen = true;
                Action::Verify
            }
            // Nothing shows whether it was saved.
            Flow::None if !self.was_read && !self.acknowledged => Action::Stop(End::Unknown),
            Flow::None => Action::Verify,
            Flow::Old | Flow::Other => self.fail(),
        }
    }

    const fn verified(&mut self, verification: Verification) -> Action {
        match verification {
            Verification::Fail => self.fail(),
            Verification::Pass if self.was_seen && self.was_read => {
                self.phase = Phase::Confirmed;
                Action::Stop(End::Switched)
            }
            // Verified before, and nothing contradicts it.
            Verification::Pass | Verification::Unknown => {
                self.phase = Phase::Unconfirmed;
                Action::Stop(End::SwitchedUnconfirmed)
            }
        }
    }

    /// The confirmation failed: restores what this run, or the one that was killed, saved.
    const fn fail(&mut self) -> Action {
        if matches!(self.goal, Goal::Verify) {
            return Action::Stop(End::Broken);
        }
        self.goal = Goal::Undo;
        self.lost = 0;
        Action::Read
    }

    const fn restored(&mut self, reply: Reply) -> Action {
        match reply {
            Reply::Acknowledged => Action::AwaitOld { acknowledged: true },
            // A short failure of the network must not leave the callback that failed.
            Reply::Lost | Reply::NotSent => {
                self.lost += 1;
                Action::AwaitOld { acknowledged: false }
            }
            Reply::Refused => Action::Stop(End::NotRestored),
        }
    }

    const fn read_restored(&mut self, value: Value, acknowledged: bool) -> Action {
        match value {
            Value::Before => {
                self.phase = Phase::Restored;
                match self.goal {
                    Goal::Back => Action::ObserveOld,
                    Goal::Switch | Goal::Verify | Goal::Undo => Action::Stop(End::Restored),
                }
            }
            Value::After | Value::Altered if !acknowledged && self.lost < MAX_SENT => {
                Action::Restore
            }
            Value::After | Value::Altered | Value::Unreadable => Action::Stop(End::NotRestored),
            Value::Other => Action::Stop(End::Overwritten),
        }
    }
}

#[cfg(test)]
mod tests;
