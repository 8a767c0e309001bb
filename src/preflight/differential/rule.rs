//! The rule: maps the replies so far to the next probe or to a state. Pure; the branches with the
//! most certain evidence come first.

use super::shape::{Reply, Shape};
use std::collections::BTreeSet;

/// Which redirect URI to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// The one that is in use and known to be registered.
    Old,
    /// A control: the path of the new one on another host.
    UnregisteredHost,
    /// The one to test.
    New,
    /// A control: another path on the host of the new one.
    UnregisteredPath,
}

/// The current callback comes first: without its reply, the others mean nothing.
const FIRST_ORDER: [Probe; 4] =
    [Probe::Old, Probe::UnregisteredHost, Probe::New, Probe::UnregisteredPath];

/// Another order than in the first round, to detect replies that depend on their position in the
/// sequence: two servers in rotation, or a limit on requests.
const SECOND_ORDER: [Probe; 4] =
    [Probe::UnregisteredHost, Probe::New, Probe::UnregisteredPath, Probe::Old];

/// The replies so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    first: Round,
    /// The confirmation, when one is needed.
    second: Round,
}

#[derive(Clone, Debug, Default)]
struct Round {
    old: Option<Shape>,
    host: Option<Shape>,
    new: Option<Shape>,
    path: Option<Shape>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Send this probe.
    Send(Probe),
    /// The state and its evidence.
    Final(State, String),
}

/// The state of a callback at a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The provider has the new callback registered.
    Registered,
    /// The provider rejects the new callback.
    NotRegistered,
    /// The provider accepts any path on the new host: it compares only a part.
    PrefixMatch,
    /// The provider accepts unregistered callbacks: it does not compare.
    Unenforced,
    /// The provider replies identically to registered and unregistered callbacks before login.
    Undecidable,
    /// The provider rejects the app, whatever the callback.
    ClientRejected,
    /// The replies allow no conclusion.
    Inconclusive,
}

impl Rounds {
    /// Records the reply to a probe.
    pub(super) fn record(&mut self, probe: Probe, shape: Shape) {
        let slot = match self.first.slot(probe) {
            slot @ None => slot,
            Some(_) => self.second.slot(probe),
        };
        *slot = Some(shape);
    }
}

impl Round {
    fn slot(&mut self, probe: Probe) -> &mut Option<Shape> {
        match probe {
            Probe::Old => &mut self.old,
            Probe::UnregisteredHost => &mut self.host,
            Probe::New => &mut self.new,
            Probe::UnregisteredPath => &mut self.path,
        }
    }

    fn shape(&self, probe: Probe) -> Option<&Shape> {
        match probe {
            Probe::Old => self.old.as_ref(),
            Probe::UnregisteredHost => self.host.as_ref(),
            Probe::New => self.new.as_ref(),
            Probe::UnregisteredPath => self.path.as_ref(),
        }
    }

    /// The reply to a probe; otherwise send the probe, or no conclusion is possible.
    fn reply(&self, probe: Probe) -> Result<&Reply, Decision> {
        match self.shape(probe) {
            None => Err(Decision::Send(probe)),
            Some(Shape::Reply(reply)) => Ok(reply),
            Some(Shape::Unusable(reason)) => {
                Err(inconclusive(format!("for {}, {}", probe.name(), reason.text())))
            }
        }
    }

    fn all(&self, order: [Probe; 4]) -> Result<Replies<'_>, Decision> {
        for probe in order {
            self.reply(probe)?;
        }
        Ok(Replies {
            old: self.reply(Probe::Old)?,
            host: self.reply(Probe::UnregisteredHost)?,
            new: self.reply(Probe::New)?,
            path: self.reply(Probe::UnregisteredPath)?,
        })
    }
}

impl Probe {
    const fn name(self) -> &'static str {
        match self {
            Self::Old => "the current callback",
            Self::UnregisteredHost => "an unregistered host",
            Self::New => "the new callback",
            Self::UnregisteredPath => "an unregistered path",
        }
    }
}

/// The four replies of a round.
#[derive(Clone, Copy)]
struct Replies<'a> {
    old: &'a Reply,
    host: &'a Reply,
    new: &'a Reply,
    path: &'a Reply,
}

/// Applies the rule to the replies so far.
pub(super) fn judge(rounds: &Rounds) -> Decision {
    match rounds.first.all(FIRST_ORDER) {
        Ok(first) => match second_round(rounds) {
            Ok(second) => decide(first, second),
            Err(decision) => decision,
        },
        Err(decision) => decision,
    }
}

/// The second round, once it has started. Ends when a reply differs from the first round.
fn second_round(rounds: &Rounds) -> Result<Option<Replies<'_>>, Decision> {
    let [start, ..] = SECOND_ORDER;
    if rounds.second.shape(start).is_none() {
        return Ok(None);
    }
    for probe in SECOND_ORDER {
        let (first, second) = (rounds.first.reply(probe)?, rounds.second.reply(probe)?);
        if !is_stable(first, second) {
            let name = probe.name();
            return Err(inconclusive(format!("two requests with {name} got different replies")));
        }
    }
    rounds.second.all(SECOND_ORDER).map(Some)
}

/// By certainty: redirects to the callback, then explicit errors, then equality of replies.
fn decide(first: Replies<'_>, second: Option<Replies<'_>>) -> Decision {
    let Replies { old, host, new, path } = first;
    let evidence = first.summary();
    // A state that follows from equality must be confirmed by a second round.
    let confirmed = |state, evidence| match second {
        Some(_) => Decision::Final(state, evidence),
        None => start_second_round(),
    };
    if host.redirects_back || new.redirects_back || path.redirects_back {
        return redirects_back(first, evidence);
    }
    let is_rejected = |reply: &Reply| reply.explicit.bad_client && !reply.explicit.mismatch;
    if [old, new, path, host].into_iter().all(is_rejected) {
        return Decision::Final(State::ClientRejected, evidence);
    }
    let comparison = Comparison { volatile: VolatileWords::of(first, second) };
    if comparison.equal(old, host) {
        return old_is_treated_as_unregistered(first, &comparison, evidence, confirmed);
    }
    if new.explicit.mismatch && !old.explicit.mismatch {
        // The remainder of the page for the current callback may contain the same error.
        if old.words.is_none() && old.has_same_destination(new) {
            return inconclusive(format!("a page is too long to read completely: {evidence}"));
        }
        // A rejection is never by chance, but a page may contain all messages of an app.
        return if host.explicit.mismatch && new.is_error_response() {
            Decision::Final(State::NotRegistered, evidence)
        } else {
            confirmed(State::NotRegistered, evidence)
        };
    }
    if comparison.equal(new, host) {
        // When pages vary randomly, `old` differs from all others without a reason.
        return if old.has_same_destination(host) && !host.has_more_error_words_than(old) {
            inconclusive(format!("the replies differ for unknown reasons: {evidence}"))
        } else {
            confirmed(State::NotRegistered, evidence)
        };
    }
    if comparison.equal(new, old) && !new.rejects() {
        let differs = |unregistered: &Reply| {
            !unregistered.has_same_destination(new) || unregistered.has_more_error_words_than(new)
        };
        return if comparison.equal(path, new) {
            // A firewall may reject unusual hosts too.
            if host.explicit.mismatch {
                confirmed(State::PrefixMatch, evidence)
            } else {
                inconclusive(format!(
                    "the reply to an unregistered host gives no reason: {evidence}"
                ))
            }
        } else if differs(path) && differs(host) {
            confirmed(State::Registered, evidence)
        } else {
            inconclusive(format!("the replies differ for unknown reasons: {evidence}"))
        };
    }
    if second.is_none() && old.has_same_destination(new) && !new.rejects() {
        // The pages differ. A second round detects the words that vary randomly.
        return start_second_round();
    }
    inconclusive(format!("the replies match no rule: {evidence}"))
}

/// Redirects to the callback. RFC 6749 §4.1.2.1 forbids them for unregistered URIs.
fn redirects_back(Replies { host, new, path, .. }: Replies<'_>, evidence: String) -> Decision {
    if host.redirects_back {
        // The provider may check the redirect URI after it found another error.
        return if host.rejects() {
            inconclusive(format!(
                "the provider redirects an error to an unregistered host: {evidence}"
            ))
        } else {
            let evidence = format!("the provider redirects to an unregistered host: {evidence}");
            Decision::Final(State::Unenforced, evidence)
        };
    }
    match (new.redirects_back, path.redirects_back) {
        (true, _) if new.explicit.mismatch => inconclusive(format!(
            "the provider redirects to the new callback and rejects it: {evidence}"
        )),
        (true, true) if path.rejects() => inconclusive(format!(
            "the provider redirects an error to an unregistered path: {evidence}"
        )),
        (true, true) => Decision::Final(State::PrefixMatch, evidence),
        (true, false) => Decision::Final(State::Registered, evidence),
        (false, _) => {
            inconclusive(format!("the provider redirects only to an unregistered path: {evidence}"))
        }
    }
}

/// The current callback gets the same reply as an unregistered one: either replies are identical before
/// login, or it is not registered itself. Only explicit errors distinguish these cases.
fn old_is_treated_as_unregistered(
    Replies { old, host, new, path }: Replies<'_>,
    comparison: &Comparison,
    evidence: String,
    confirmed: impl Fn(State, String) -> Decision,
) -> Decision {
    if !(old.explicit.mismatch && host.explicit.mismatch) {
        return if comparison.equal(new, old) {
            Decision::Final(State::Undecidable, evidence)
        } else {
            inconclusive(format!(
                "the provider treats the current callback like the unregistered ones: {evidence}"
            ))
        };
    }
    if new.explicit.mismatch {
        return if old.is_error_response() && new.is_error_response() {
            let evidence = format!("the current callback is not registered either: {evidence}");
            Decision::Final(State::NotRegistered, evidence)
        } else {
            Decision::Final(State::Undecidable, evidence)
        };
    }
    if path.explicit.mismatch && !new.rejects() && !new.shows_error() {
        let evidence = format!("the current callback is not registered: {evidence}");
        return confirmed(State::Registered, evidence);
    }
    inconclusive(format!(
        "the provider treats the current callback like the unregistered ones: {evidence}"
    ))
}

const fn start_second_round() -> Decision {
    let [first, ..] = SECOND_ORDER;
    Decision::Send(first)
}

fn inconclusive(why: String) -> Decision {
    Decision::Final(State::Inconclusive, why)
}

/// Whether the same probe got the same reply twice, except for words that vary randomly. Words
/// about errors must not vary.
fn is_stable(first: &Reply, second: &Reply) -> bool {
    first.has_same_destination(second)
        && first.explicit == second.explicit
        && first.words.is_some() == second.words.is_some()
        && first.error_words == second.error_words
}

/// Equality of replies, ignoring volatile words.
struct Comparison {
    volatile: VolatileWords,
}

impl Comparison {
    fn equal(&self, one: &Reply, other: &Reply) -> bool {
        if !one.has_same_destination(other) || one.explicit != other.explicit {
            return false;
        }
        // A redirect is identified by its location; its page is only a fallback.
        if one.location.is_some() {
            return true;
        }
        match (&one.words, &other.words) {
            (Some(words), Some(others)) => {
                one.error_words == other.error_words
                    && words.symmetric_difference(others).all(|word| self.volatile.0.contains(word))
            }
            // Incomplete pages cannot be compared.
            _ => false,
        }
    }
}

/// Words that differ between two replies to the same probe.
struct VolatileWords(BTreeSet<String>);

impl VolatileWords {
    fn of(first: Replies<'_>, second: Option<Replies<'_>>) -> Self {
        let mut volatile = BTreeSet::new();
        for (first, second) in second.iter().flat_map(|second| {
            [
                (first.old, second.old),
                (first.host, second.host),
                (first.new, second.new),
                (first.path, second.path),
            ]
        }) {
            if let (Some(first), Some(second)) = (&first.words, &second.words) {
                volatile.extend(first.symmetric_difference(second).cloned());
            }
        }
        Self(volatile)
    }
}

impl Replies<'_> {
    fn summary(&self) -> String {
        let all = [self.old, self.new, self.path, self.host].map(Reply::summary);
        let [old, new, path, host] = all;
        format!("current {old}; new {new}; unregistered path {path}; unregistered host {host}")
    }
}
