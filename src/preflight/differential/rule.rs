//! The rule: maps the replies so far to the next probe or to a state. Pure.
//!
//! `shape` assigns each reply to a [`Class`] by its own content. [`decide`] is a table over the
//! classes of the first four replies; words are compared only where no class decides. A state that
//! lets someone switch, or prevents it, needs the whole [`SCHEDULE`] without a change.

use super::shape::{Bounce, Class, Refusal, Reply, Shape};
use http::StatusCode;
use std::collections::BTreeSet;

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// The callback in use.
    Old,
    /// A control: the path of the new one on another host.
    UnregisteredHost,
    /// The callback to test.
    New,
    /// A control: another path on the host of the new one.
    UnregisteredPath,
    /// A control: a path of the new host that exists, and is no OAuth callback.
    LivePath,
    /// A control: another path on the host of the old one.
    OldHostPath,
    /// The old one, with a client id that no app has.
    RandomClient,
}

/// The first four decide; the others confirm. No reply that depends on its position in a cycle of up
/// to ten (servers in rotation, a limiter) can separate the probes as a state requires, and the new
/// callback meets each of two, three and five servers in rotation.
pub(super) const SCHEDULE: [Probe; 12] = {
    use Probe::{LivePath, New, Old, UnregisteredHost, UnregisteredPath};
    [
        Old,
        UnregisteredHost,
        New,
        UnregisteredPath, //
        Old,
        UnregisteredHost,
        New,
        LivePath,
        New,
        New,
        New,
        Old,
    ]
};

/// What is known about the app before the first reply.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// The request has a client id, which can be replaced.
    pub(super) has_client_id: bool,
    /// The provider is documented to register domains instead of URLs.
    pub(super) registers_domains: bool,
}

/// The replies so far, in the order of the probes.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    facts: Facts,
    replies: Vec<(Probe, Shape)>,
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
    /// The provider registers domains, and has the host of the new callback registered.
    DomainRegistered,
    /// The provider rejects the new callback.
    NotRegistered,
    /// The provider accepts any path on the new host: it compares only a part.
    PrefixMatch {
        /// It redirects an authorization to another path; otherwise the replies are only identical.
        proved: bool,
    },
    /// The provider redirects an authorization to unregistered callbacks: it does not compare.
    Unenforced,
    /// The provider replies identically to registered and unregistered callbacks before login.
    Undecidable,
    /// The provider rejects all callbacks, the one in use too.
    RefusedAll,
    /// The provider rejects the app, whatever the callback.
    ClientRejected,
    /// The replies allow no conclusion.
    Inconclusive,
}

impl State {
    /// Whether someone acts on it without a confirmation by hand.
    const fn needs_confirmation(self) -> bool {
        match self {
            Self::Registered | Self::DomainRegistered | Self::NotRegistered | Self::Unenforced => {
                true
            }
            Self::PrefixMatch { proved } => proved,
            Self::Undecidable | Self::RefusedAll | Self::ClientRejected | Self::Inconclusive => {
                false
            }
        }
    }
}

impl Probe {
    const fn name(self) -> &'static str {
        match self {
            Self::Old => "the current callback",
            Self::UnregisteredHost => "an unregistered host",
            Self::New => "the new callback",
            Self::UnregisteredPath | Self::LivePath => "an unregistered path",
            Self::OldHostPath => "an unregistered path on the current host",
            Self::RandomClient => "a random client id",
        }
    }

    /// The probe whose first reply this one must repeat.
    const fn role(self) -> Self {
        match self {
            Self::LivePath => Self::UnregisteredPath,
            probe => probe,
        }
    }

    const fn is_scheduled(self) -> bool {
        !matches!(self, Self::OldHostPath | Self::RandomClient)
    }
}

impl Rounds {
    pub(super) fn new(facts: Facts) -> Self {
        Self { facts, replies: Vec::new() }
    }

    /// Records the reply to a probe.
    pub(super) fn record(&mut self, probe: Probe, shape: Shape) {
        self.replies.push((probe, shape));
    }

    /// The first reply to a probe.
    fn reply(&self, probe: Probe) -> Option<&Reply> {
        let (_, shape) = self.replies.iter().find(|(sent, _)| *sent == probe)?;
        match shape {
            Shape::Reply(reply) => Some(reply),
            Shape::Unusable(_) => None,
        }
    }

    /// The next probe of the schedule.
    fn next(&self) -> Option<Probe> {
        let sent = self.replies.iter().filter(|(probe, _)| probe.is_scheduled()).count();
        SCHEDULE.get(sent).copied()
    }

    fn first_four(&self) -> Option<Replies<'_>> {
        Some(Replies {
            old: self.reply(Probe::Old)?,
            host: self.reply(Probe::UnregisteredHost)?,
            new: self.reply(Probe::New)?,
            path: self.reply(Probe::UnregisteredPath)?,
        })
    }

    /// Why no conclusion is possible, whatever the other replies are.
    fn obstacle(&self) -> Option<String> {
        self.replies.iter().find_map(|(probe, shape)| match shape {
            Shape::Unusable(reason) => Some(format!("for {}, {}", probe.name(), reason.text())),
            Shape::Reply(reply) => {
                let first = self.reply(probe.role())?;
                let changed = !is_stable(first, reply);
                changed.then(|| format!("two requests with {} got different replies", probe.name()))
            }
        })
    }
}

/// The first replies to the four probes.
#[derive(Clone, Copy)]
struct Replies<'a> {
    old: &'a Reply,
    host: &'a Reply,
    new: &'a Reply,
    path: &'a Reply,
}

/// The result of the table.
enum Verdict {
    State(State, &'static str),
    /// The reply to this probe is needed too.
    Needs(Probe),
    /// No conclusion, unless words that vary explain the difference between replies.
    Open,
}

/// Applies the rule to the replies so far.
pub(super) fn judge(rounds: &Rounds) -> Decision {
    if let Some(reason) = rounds.obstacle() {
        return Decision::Final(State::Inconclusive, reason);
    }
    let next = rounds.next();
    let (replies, next) = match (rounds.first_four(), next) {
        (Some(replies), next) => (replies, next.map(Decision::Send)),
        (None, Some(probe)) => return Decision::Send(probe),
        // Unreachable: the schedule contains the four.
        (None, None) => return Decision::Final(State::Inconclusive, String::new()),
    };
    let comparison = Comparison { volatile: rounds.volatile_words() };
    let evidence = |reason: &str| format!("{reason}: {}", rounds.summary(replies));
    match (decide(rounds, replies, &comparison), next) {
        (Verdict::Needs(probe), _) => Decision::Send(probe),
        (Verdict::State(state, _), Some(next)) if state.needs_confirmation() => next,
        (Verdict::State(state, reason), _) => Decision::Final(state, evidence(reason)),
        (Verdict::Open, Some(next)) if comparison.words_differ(replies) => next,
        (Verdict::Open, _) => {
            Decision::Final(State::Inconclusive, evidence("the replies match no rule"))
        }
    }
}

/// The table. Each row requires evidence of its own: a refusal is never the absence of a login, and
/// an acceptance never the absence of an error.
fn decide(rounds: &Rounds, replies: Replies<'_>, comparison: &Comparison) -> Verdict {
    let Replies { old, host, new, path } = replies;
    // RFC 6749 §4.1.2.1 forbids redirects to unregistered URIs. An error may be redirected before the
    // URI is compared; an authorization is not.
    let is_error =
        |reply: &Reply| matches!(reply.class, Class::Bounce(Bounce::Mismatch | Bounce::Other));
    if is_error(path) {
        return inconclusive("the provider redirects an error to an unregistered callback");
    }
    if matches!(old.class, Class::Bounce(_)) && host.is_refused() && host.location == old.location {
        return inconclusive("the provider redirects all to the current callback");
    }
    if new.class == Class::Bounce(Bounce::Mismatch) {
        return inconclusive("the provider redirects to the new callback and rejects it");
    }
    let success = |reply: &Reply| reply.class == Class::Bounce(Bounce::Success);
    match [new, path, host].map(success) {
        [true, true, true] => {
            let reason = "the provider redirects an authorization to an unregistered host";
            return Verdict::State(State::Unenforced, reason);
        }
        [true, true, false] if host.is_refused() => return partial(rounds, true),
        _ => {}
    }
    if [host, new, path].into_iter().all(|reply| comparison.similar(reply, old)) {
        return identical(rounds, old);
    }
    // The unregistered ones are refused for the same reason.
    if host.is_refused() && comparison.same_refusal(host, path) {
        let old_is_refused = comparison.same_refusal(old, host);
        return match new.class {
            Class::Bounce(_) => registered("it redirects to the new callback only"),
            Class::Login if old.is_served() || old_is_refused => {
                registered("it leads the new callback to a login, and refuses unregistered ones")
            }
            Class::Other if comparison.equal(new, old) => registered(
                "it serves the new callback like the current one, and refuses unregistered ones",
            ),
            // Without a login, only a refusal in words shows that it is not refused.
            Class::Other
                if new.is_served() && [old, host, path].iter().all(|it| it.explicit.mismatch) =>
            {
                registered("it refuses all callbacks but the new one, in words")
            }
            // Some servers ask for a login with a bare 401.
            Class::Refused(Refusal::Status)
                if new.status == StatusCode::UNAUTHORIZED
                    && comparison.equal(new, old)
                    && host.explicit.mismatch =>
            {
                registered("it demands a login for the new callback, like for the current one")
            }
            Class::Refused(how)
                if how != Refusal::ErrorWords
                    && old.is_served()
                    && comparison.same_refusal(new, host) =>
            {
                let reason = "it serves the current callback, and refuses the new one like unregistered ones";
                Verdict::State(State::NotRegistered, reason)
            }
            Class::ClientRefused if old.is_served() && comparison.same_refusal(new, host) => {
                let reason = "it serves the current callback, and refuses the new one like unregistered ones";
                Verdict::State(State::NotRegistered, reason)
            }
            _ => Verdict::Open,
        };
    }
    // A firewall may refuse unusual hosts too: only words prove that the host is compared.
    if new.is_served() && comparison.similar(path, new) && host.explicit.mismatch {
        return partial(rounds, false);
    }
    // No class decides: the replies themselves do.
    let differs = |control: &Reply| {
        control.class == Class::Other
            && (!control.has_same_destination(new) || control.has_more_error_words_than(new))
    };
    let same = new.class == Class::Login && new.is_like(old) || comparison.equal(new, old);
    if same && new.is_served() && differs(host) && comparison.equal(host, path) {
        return registered(
            "it treats the new callback like the current one, and unlike unregistered ones",
        );
    }
    Verdict::Open
}

const fn registered(reason: &'static str) -> Verdict {
    Verdict::State(State::Registered, reason)
}

const fn inconclusive(reason: &'static str) -> Verdict {
    Verdict::State(State::Inconclusive, reason)
}

/// Another path on the new host is accepted, another host is refused.
fn partial(rounds: &Rounds, proved: bool) -> Verdict {
    if rounds.facts.registers_domains {
        let reason =
            "it accepts any path on the host of the new callback, and refuses another host";
        return Verdict::State(State::DomainRegistered, reason);
    }
    if proved {
        let reason = "it redirects an authorization to an unregistered path";
        return Verdict::State(State::PrefixMatch { proved }, reason);
    }
    match (rounds.reply(Probe::OldHostPath), rounds.reply(Probe::Old)) {
        (None, _) => Verdict::Needs(Probe::OldHostPath),
        (Some(path), Some(old)) if path.is_like(old) && old.is_served() => Verdict::State(
            State::PrefixMatch { proved },
            "it compares only the host before login, at the current host too",
        ),
        _ => Verdict::State(
            State::PrefixMatch { proved },
            "it serves another path on the host like the new callback",
        ),
    }
}

/// All four get the same reply. A random client id shows what is compared.
fn identical(rounds: &Rounds, old: &Reply) -> Verdict {
    if old.class == Class::Refused(Refusal::Unavailable) {
        return inconclusive("the provider responds 403 or 5xx whatever the callback");
    }
    let is_refused = old.is_refused() && old.is_certain();
    if !rounds.facts.has_client_id {
        return if is_refused {
            Verdict::State(State::RefusedAll, "it refuses all callbacks, the current one too")
        } else {
            inconclusive("all replies are identical, and there is no client id to replace")
        };
    }
    let Some(random) = rounds.reply(Probe::RandomClient) else {
        return Verdict::Needs(Probe::RandomClient);
    };
    let (state, reason) = match (is_refused, random.is_like(old)) {
        (true, _) if old.class == Class::ClientRefused && random.is_refused() => {
            (State::ClientRejected, "it refuses the app like one that does not exist")
        }
        (true, true) => (
            State::RefusedAll,
            "it refuses all callbacks, the current one too, and a random client id likewise",
        ),
        (true, false) => {
            (State::RefusedAll, "it knows the app, and refuses all callbacks, the current one too")
        }
        (false, true) => (
            State::Undecidable,
            "it compares nothing before login: a random client id gets the same reply",
        ),
        (false, false) => {
            (State::Undecidable, "it compares the app before login, and not the callback")
        }
    };
    Verdict::State(state, reason)
}

/// Whether the same probe got the same reply twice, except for words that vary randomly. Words
/// about errors must not vary.
fn is_stable(first: &Reply, second: &Reply) -> bool {
    first.is_like(second)
        && first.words.is_some() == second.words.is_some()
        && first.error_words == second.error_words
}

/// Equality of replies, ignoring words that vary.
struct Comparison {
    volatile: BTreeSet<String>,
}

impl Comparison {
    fn equal(&self, one: &Reply, other: &Reply) -> bool {
        if !one.is_like(other) {
            return false;
        }
        // A redirect is identified by its location; its page is only a fallback.
        if one.location.is_some() {
            return true;
        }
        match (&one.words, &other.words) {
            (Some(words), Some(others)) => {
                words.symmetric_difference(others).all(|word| self.volatile.contains(word))
            }
            // Incomplete pages cannot be compared.
            _ => false,
        }
    }

    /// Like [`Self::equal`], but refusals may give different reasons.
    fn similar(&self, one: &Reply, other: &Reply) -> bool {
        if one.is_refused() { one.is_like(other) } else { self.equal(one, other) }
    }

    /// Whether both are refused for the same reason.
    fn same_refusal(&self, one: &Reply, other: &Reply) -> bool {
        one.explicit.mismatch && other.explicit.mismatch || self.equal(one, other)
    }

    /// Whether only the words of two pages differ.
    fn words_differ(&self, Replies { old, host, new, path }: Replies<'_>) -> bool {
        [(old, new), (host, path), (new, host)]
            .into_iter()
            .any(|(one, other)| one.is_like(other) && !self.equal(one, other))
    }
}

impl Rounds {
    /// The words that differ between two replies to the same probe.
    fn volatile_words(&self) -> BTreeSet<String> {
        let mut volatile = BTreeSet::new();
        for (probe, shape) in &self.replies {
            if let (Shape::Reply(reply), Some(first)) = (shape, self.reply(*probe))
                && let (Some(words), Some(first)) = (&reply.words, &first.words)
            {
                volatile.extend(words.symmetric_difference(first).cloned());
            }
        }
        volatile
    }

    fn summary(&self, Replies { old, new, path, host }: Replies<'_>) -> String {
        let [old, new, path, host] = [old, new, path, host].map(Reply::summary);
        let mut text =
            format!("current {old}; new {new}; unregistered path {path}; unregistered host {host}");
        for (probe, name) in [
            (Probe::OldHostPath, "path on the current host"),
            (Probe::RandomClient, "random client id"),
        ] {
            if let Some(reply) = self.reply(probe) {
                text = format!("{text}; {name} {}", reply.summary());
            }
        }
        text
    }
}
