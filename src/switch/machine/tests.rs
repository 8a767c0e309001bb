//! Every interleaving of crashes, lost responses, stale reads, other persons, flows and verdicts, against
//! a model of Nango.

use super::*;

/// A model of Nango, and what the run did to it.
#[expect(clippy::struct_excessive_bools, reason = "each is a separate fact")]
#[derive(Clone, Debug)]
struct Nango {
    value: Value,
    /// What a cache may still return.
    stale: Option<Value>,
    /// Whether another person can still save another callback.
    others: bool,
    /// The last value that the run read, since its last request.
    last_read: Option<Value>,
    /// Whether this run saved or restored anything, as far as Nango is concerned.
    is_touched: bool,
    /// Whether something failed that leads to a restore.
    has_failed: bool,
    /// Whether a restore had an error.
    restore_failed: bool,
    was_stale: bool,
    flow: Option<Flow>,
    verdict: Option<Verification>,
}

impl Nango {
    fn new() -> Self {
        Self {
            value: Value::Before,
            stale: None,
            others: true,
            last_read: None,
            is_touched: false,
            has_failed: false,
            restore_failed: false,
            was_stale: false,
            flow: None,
            verdict: None,
        }
    }

    fn set(&mut self, value: Value) {
        self.stale = Some(self.value);
        self.value = value;
        self.is_touched = true;
    }
}

#[derive(Default)]
struct Count {
    ends: Vec<(End, usize)>,
    crashes: usize,
}

/// The goal of the next run of the same command, as `read` chooses it; `None` when it is a new switch,
/// with the value of another person as the previous one.
fn goal_again(nango: &Nango, phase: Phase) -> Option<(Goal, Phase)> {
    match nango.value {
        Value::After if phase.is_interrupted() => Some((Goal::Switch, phase)),
        Value::After => Some((Goal::Verify, phase)),
        Value::Before => Some((Goal::Switch, Phase::Planned)),
        Value::Altered | Value::Other | Value::Unreadable => None,
    }
}

/// All that can happen to an action: the state of Nango after it, and the result.
fn outcomes(action: Action, before: &Nango) -> Vec<(Nango, Event)> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Nango), event: Event| {
        let mut nango = before.clone();
        change(&mut nango);
        all.push((nango, event));
    };
    match action {
        Action::Read | Action::AwaitNew { .. } | Action::AwaitOld { .. } => {
            let value = before.value;
            add(&|it| it.last_read = Some(value), Event::Read(value));
            add(&|_| {}, Event::Read(Value::Unreadable));
            if let Some(stale) = before.stale.filter(|_| action != Action::Read) {
                let change = |it: &mut Nango| {
                    it.last_read = Some(stale);
                    it.was_stale = true;
                };
                add(&change, Event::Read(stale));
            }
            if before.others {
                let change = |it: &mut Nango| {
                    (it.value, it.stale, it.others) = (Value::Other, None, false);
                    it.last_read = Some(Value::Other);
                };
                add(&change, Event::Read(Value::Other));
            }
            if action == (Action::AwaitNew { acknowledged: true }) && value == Value::After {
                let change = |it: &mut Nango| {
                    (it.value, it.last_read) = (Value::Altered, Some(Value::Altered));
                };
                add(&change, Event::Read(Value::Altered));
            }
        }
        Action::Save | Action::Restore => {
            let value = if action == Action::Save { Value::After } else { Value::Before };
            let applied = |it: &mut Nango| {
                it.set(value);
                it.last_read = None;
            };
            let failed = |it: &mut Nango| it.restore_failed |= action == Action::Restore;
            add(&applied, Event::Replied(Reply::Acknowledged));
            add(&failed, Event::Replied(Reply::Refused));
            add(&failed, Event::Replied(Reply::NotSent));
            add(
                &|it| {
                    applied(it);
                    failed(it);
                },
                Event::Replied(Reply::Lost),
            );
            add(
                &|it| {
                    it.last_read = None;
                    failed(it);
                },
                Event::Replied(Reply::Lost),
            );
        }
        Action::ObserveNew | Action::ObserveOld => {
            // A flow can have an older callback than the settings, never a newer one.
            let is_possible = |flow: &Flow| match flow {
                Flow::New => before.value != Value::Before || action == Action::ObserveOld,
                Flow::Old => before.value != Value::After || action == Action::ObserveNew,
                Flow::Other | Flow::None => true,
            };
            let flows = [Flow::New, Flow::Old, Flow::Other, Flow::None];
            for flow in flows.into_iter().filter(is_possible) {
                add(&|it| it.flow = Some(flow), Event::Observed(flow));
            }
        }
        Action::Verify => {
            for verdict in [Verification::Pass, Verification::Fail, Verification::Unknown] {
                add(&|it| it.verdict = Some(verdict), Event::Verified(verdict));
            }
        }
        Action::Stop(_) => {}
    }
    all
}

/// Follows every path. `crashes` is how often the process may still be killed.
fn explore(
    goal: Goal,
    machine: &Machine,
    before: &Nango,
    crashes: u8,
    depth: u8,
    count: &mut Count,
) {
    assert!(depth < 60, "no end: {machine:?}");
    let mut nango = before.clone();
    let (action, phase) = (machine.action(), machine.phase());
    journal_is_true(phase, &nango);
    match action {
        Action::Stop(end) => {
            check_end(goal, end, phase, &nango);
            match count.ends.iter_mut().find(|(known, _)| *known == end) {
                Some((_, number)) => *number += 1,
                None => count.ends.push((end, 1)),
            }
            return;
        }
        Action::Save => {
            assert_eq!(phase, Phase::Saving, "a save that is not in the journal");
            assert_eq!(nango.last_read, Some(Value::Before), "a save over {:?}", nango.last_read);
        }
        Action::Restore => {
            assert_eq!(phase, Phase::Restoring, "a restore that is not in the journal");
            assert!(
                matches!(nango.last_read, Some(Value::Before | Value::After | Value::Altered)),
                "a restore over {:?}",
                nango.last_read
            );
        }
        _ => {}
    }
    // Killed after the journal was written, and before the request.
    if crashes > 0 {
        again(phase, &nango, crashes - 1, depth, count);
    }
    nango.flow = nango.flow.filter(|_| !matches!(action, Action::ObserveNew | Action::ObserveOld));
    for (mut after, event) in outcomes(action, &nango) {
        // Killed after the request, and before its result was written.
        if crashes > 0 && matches!(action, Action::Save | Action::Restore) {
            again(phase, &after, crashes - 1, depth, count);
        }
        let is_failure = matches!(
            (action, event),
            (Action::ObserveNew, Event::Observed(Flow::Old | Flow::Other))
                | (Action::Verify, Event::Verified(Verification::Fail))
                | (_, Event::Read(Value::Altered))
                | (Action::AwaitNew { acknowledged: true }, Event::Read(Value::Before))
        );
        after.has_failed |= is_failure;
        let mut next = machine.clone();
        next.next(event);
        explore(goal, &next, &after, crashes, depth + 1, count);
    }
}

/// The next run after a kill: the same command, or `--back`.
fn again(phase: Phase, nango: &Nango, crashes: u8, depth: u8, count: &mut Count) {
    count.crashes += 1;
    let fresh = Nango {
        is_touched: false,
        has_failed: false,
        restore_failed: false,
        last_read: None,
        flow: None,
        verdict: None,
        ..nango.clone()
    };
    if let Some((goal, phase)) = goal_again(nango, phase) {
        explore(goal, &Machine::begin(goal, phase), &fresh, crashes, depth + 1, count);
    }
    if phase != Phase::Planned {
        let machine = Machine::begin(Goal::Back, phase);
        explore(Goal::Back, &machine, &fresh, crashes, depth + 1, count);
    }
}

/// What the journal contains is true, unless another person saved another callback, or a cache was stale.
#[track_caller]
fn journal_is_true(phase: Phase, nango: &Nango) {
    if nango.value == Value::Other || nango.was_stale {
        return;
    }
    let is_new = matches!(nango.value, Value::After | Value::Altered);
    match phase.expects_new() {
        Some(expected) => assert_eq!(is_new, expected, "{phase:?}: {nango:?}"),
        None => assert!(phase.is_interrupted()),
    }
}

#[track_caller]
fn check_end(goal: Goal, end: End, phase: Phase, nango: &Nango) {
    let is_other = nango.value == Value::Other;
    let has = |value| nango.value == value || is_other || nango.was_stale;
    match end {
        End::Switched => {
            assert!(has(Value::After), "{nango:?}");
            assert_eq!((nango.flow, nango.verdict), (Some(Flow::New), Some(Verification::Pass)));
            assert_eq!(phase, Phase::Confirmed);
        }
        End::SwitchedUnconfirmed => {
            assert!(!nango.has_failed, "{nango:?}");
            assert_eq!(phase, Phase::Unconfirmed);
        }
        End::Broken => {
            assert_eq!(goal, Goal::Verify);
            assert!(nango.has_failed && !nango.is_touched, "{nango:?}");
        }
        End::Restored => {
            assert!(nango.has_failed || goal == Goal::Undo, "{nango:?}");
            assert!(has(Value::Before), "{nango:?}");
            assert_eq!(phase, Phase::Restored);
        }
        End::Back | End::BackUnconfirmed => {
            assert_eq!(goal, Goal::Back);
            assert!(has(Value::Before), "{nango:?}");
            assert_eq!(phase, Phase::Restored);
        }
        End::NotRestored => {
            assert!(nango.has_failed || matches!(goal, Goal::Back | Goal::Undo), "{nango:?}");
        }
        End::Refused => {
            assert!(!nango.is_touched, "{nango:?}");
            assert_eq!(phase, Phase::Planned);
        }
        End::Unreadable => assert!(!nango.is_touched, "{nango:?}"),
        End::NotSaved => {
            assert!(has(Value::Before), "{nango:?}");
            assert_eq!(phase, Phase::Saving);
        }
        End::ChangedByOthers => {
            let is_foreign = matches!(goal, Goal::Switch | Goal::Verify) && !nango.is_touched;
            assert!(is_other || is_foreign, "{nango:?}");
        }
        End::Unknown => assert_eq!(phase, Phase::Saving),
        End::Overwritten => assert!(is_other, "{nango:?}"),
        End::Declined => panic!("the machine asks no person"),
    }
    // A failure is restored, unless that is impossible, or another person was faster.
    if nango.has_failed && goal == Goal::Switch {
        assert!(
            matches!(
                end,
                End::Restored | End::NotRestored | End::ChangedByOthers | End::Overwritten
            ),
            "{end:?}: {nango:?}"
        );
        assert!(!end.may_continue());
    }
    if nango.has_failed && goal == Goal::Switch && !nango.restore_failed && end == End::NotRestored
    {
        // Then it could not be read.
        assert!(
            nango.was_stale || nango.last_read.is_none() || nango.last_read != Some(Value::Other)
        );
    }
}

#[test]
fn every_interleaving_ends_in_a_known_state() {
    let mut count = Count::default();
    let machine = Machine::begin(Goal::Switch, Phase::Planned);
    explore(Goal::Switch, &machine, &Nango::new(), 1, 0, &mut count);
    for end in [
        End::Switched,
        End::SwitchedUnconfirmed,
        End::Broken,
        End::Restored,
        End::Back,
        End::BackUnconfirmed,
        End::NotRestored,
        End::Refused,
        End::Unreadable,
        End::NotSaved,
        End::Unknown,
        End::ChangedByOthers,
        End::Overwritten,
    ] {
        // `Broken` needs a run of its own, below.
        let is_reached = count.ends.iter().any(|(known, _)| *known == end);
        assert!(is_reached || end == End::Broken, "{end:?} is never reached: {:?}", count.ends);
    }
    assert!(count.crashes > 100, "{}", count.crashes);
}

#[test]
fn what_was_switched_before_is_verified_and_never_changed() {
    for phase in [Phase::Saved, Phase::Confirmed, Phase::Unconfirmed] {
        let mut count = Count::default();
        let nango = Nango { value: Value::After, ..Nango::new() };
        let machine = Machine::begin(Goal::Verify, phase);
        explore(Goal::Verify, &machine, &nango, 0, 0, &mut count);
        assert!(count.ends.iter().any(|(end, _)| *end == End::Broken), "{:?}", count.ends);
        let restores = count.ends.iter().any(|(end, _)| *end == End::Restored);
        assert!(!restores, "{:?}", count.ends);
    }
}

#[test]
fn what_an_interrupted_run_saved_and_fails_is_restored() {
    for phase in [Phase::Saving, Phase::Saved, Phase::Restoring] {
        let mut count = Count::default();
        let nango = Nango { value: Value::After, was_stale: true, ..Nango::new() };
        explore(Goal::Undo, &Machine::begin(Goal::Undo, phase), &nango, 1, 0, &mut count);
        assert!(count.ends.iter().any(|(end, _)| *end == End::Restored), "{:?}", count.ends);
    }
}

#[test]
fn a_killed_run_continues_where_it_ended() {
    for phase in [Phase::Saving, Phase::Saved, Phase::Restoring] {
        let mut machine = Machine::begin(Goal::Switch, phase);
        machine.next(Event::Read(Value::After));
        assert_eq!((machine.action(), machine.phase()), (Action::ObserveNew, Phase::Saved));
        // A request of the killed run may still arrive: the previous callback is saved once more.
        let mut machine = Machine::begin(Goal::Back, phase);
        machine.next(Event::Read(Value::Before));
        assert_eq!((machine.action(), machine.phase()), (Action::Restore, Phase::Restoring));
    }
}

/// The shortest path, so that a change of the order is noticed.
#[test]
fn a_switch_reads_saves_reads_back_observes_and_verifies() {
    let mut machine = Machine::begin(Goal::Switch, Phase::Planned);
    let mut actions = Vec::new();
    for event in [
        Event::Read(Value::Before),
        Event::Replied(Reply::Acknowledged),
        Event::Read(Value::After),
        Event::Observed(Flow::New),
        Event::Verified(Verification::Pass),
    ] {
        actions.push((machine.action(), machine.phase()));
        machine.next(event);
    }
    assert_eq!(
        actions,
        [
            (Action::Read, Phase::Planned),
            (Action::Save, Phase::Saving),
            (Action::AwaitNew { acknowledged: true }, Phase::Saving),
            (Action::ObserveNew, Phase::Saved),
            (Action::Verify, Phase::Saved),
        ]
    );
    assert_eq!(
        (machine.action(), machine.phase()),
        (Action::Stop(End::Switched), Phase::Confirmed)
    );
}

#[test]
fn the_outcome_shows_what_is_changed() {
    use End::{
        Back, BackUnconfirmed, Broken, ChangedByOthers, Declined, NotRestored, NotSaved, Refused,
        Restored, Switched, SwitchedUnconfirmed, Unreadable,
    };
    for (ends, expected) in [
        (&[][..], Outcome::Done),
        (&[Switched, Switched], Outcome::Done),
        (&[Back], Outcome::Done),
        (&[Switched, SwitchedUnconfirmed], Outcome::Unconfirmed),
        (&[Back, BackUnconfirmed], Outcome::Unconfirmed),
        (&[Restored], Outcome::Unchanged),
        (&[ChangedByOthers], Outcome::Unchanged),
        (&[Declined], Outcome::Unchanged),
        (&[Refused], Outcome::CouldNotRun),
        (&[Unreadable], Outcome::CouldNotRun),
        (&[NotSaved], Outcome::CouldNotRun),
        (&[Switched, Restored], Outcome::Partial),
        (&[Switched, Refused], Outcome::Partial),
        (&[SwitchedUnconfirmed, NotSaved], Outcome::Partial),
        (&[Switched, Declined], Outcome::Partial),
        (&[NotRestored], Outcome::Partial),
        (&[Broken], Outcome::Partial),
        (&[End::Unknown], Outcome::Partial),
        (&[End::Overwritten], Outcome::Partial),
        (&[Back, Unreadable], Outcome::Partial),
    ] {
        assert_eq!(outcome(ends), expected, "{ends:?}");
    }
}
