//! The rule: four shapes in, a state out. Pure, and in the order in which a mistake would hurt.

use super::shape::{Shape, Spoken};
use std::collections::BTreeSet;

/// The answers to one question with different redirect URIs.
#[derive(Clone, Debug)]
pub(super) struct Probes {
    /// The redirect URI that is in use and known to be good.
    pub(super) old: Shape,
    /// The one that is to be found out about.
    pub(super) new: Shape,
    /// Another path on the new host: a control.
    pub(super) path: Shape,
    /// Another host: a control.
    pub(super) host: Shape,
    /// `new` and `host` asked once more.
    pub(super) again: Option<(Shape, Shape)>,
}

/// What the rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// This, and why.
    Is(State, String),
    /// It looks like something that one repeat of `new` and `host` has to confirm.
    AskAgain,
}

/// What was found out about one callback at one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The provider knows the new callback.
    Registered,
    /// It does not.
    NotRegistered,
    /// It accepts another path on the new host too: it compares only a part.
    PrefixMatch,
    /// It accepts a redirect URI that nobody registered: it does not validate.
    Unenforced,
    /// It answers the good and the bogus one alike: it looks at it after the login.
    Undecidable,
    /// It does not accept the app at all, whatever the callback.
    ClientRejected,
    /// Its answers say nothing.
    Inconclusive,
}

/// What the rule says of four answers, in the order of RFC 6749's certainty: an answer that is
/// about something else, a bounce, the controls, and only then likeness.
pub(super) fn judge(probes: &Probes) -> Ruling {
    let Probes { old, new, path, host, again } = probes;
    // In the order in which they are asked: the first that is not answered is the reason.
    for (name, shape) in [
        ("the current callback", old),
        ("a bogus host", host),
        ("the new callback", new),
        ("a bogus path", path),
    ] {
        if let Shape::Silent(silence) = shape {
            return inconclusive(format!("asked with {name}, the provider {}", silence.words()));
        }
    }
    let (Some(old), Some(new), Some(path), Some(host)) =
        (old.spoken(), new.spoken(), path.spoken(), host.spoken())
    else {
        return inconclusive("not every question was answered".into());
    };
    let told = told(old, new, path, host);
    // RFC 6749 §4.1.2.1: never to a URI that it does not know.
    if host.bounced {
        return Ruling::Is(State::Unenforced, format!("it redirects to a bogus host: {told}"));
    }
    if new.bounced {
        return if path.bounced {
            Ruling::Is(State::PrefixMatch, told)
        } else {
            Ruling::Is(State::Registered, told)
        };
    }
    if path.bounced {
        return inconclusive(format!("it redirects to a bogus path only: {told}"));
    }
    if [old, new, path, host].iter().all(|shape| shape.says.bad_client) {
        return Ruling::Is(State::ClientRejected, told);
    }
    let alike = Alike { volatile: Volatile::of(new, host, again.as_ref()) };
    if alike.yes(old, host) {
        return old_is_no_reference(probes, [old, new, path, host], &alike, told);
    }
    if alike.yes(new, host) {
        // A page that differs from itself makes `old` look different from all.
        return if new.says.mismatch && !old.says.mismatch {
            Ruling::Is(State::NotRegistered, told)
        } else if old.leads_as(host) && !Alike::is_told(host, old) {
            inconclusive(format!("the answers differ in ways that say nothing: {told}"))
        } else {
            confirmed(probes, &alike, State::NotRegistered, told)
        };
    }
    if new.says.mismatch && !old.says.mismatch {
        return Ruling::Is(State::NotRegistered, told);
    }
    if alike.yes(new, old) && !new.says.mismatch && !new.says.bad_client {
        return if alike.yes(path, new) {
            Ruling::Is(State::PrefixMatch, told)
        } else if [path, host].iter().all(|bogus| differs_robustly(bogus, new)) {
            confirmed(probes, &alike, State::Registered, told)
        } else {
            inconclusive(format!("the answers differ in ways that say nothing: {told}"))
        };
    }
    if again.is_none() && old.leads_as(new) {
        // The pages differ. A repeat shows which of their words change by themselves.
        return Ruling::AskAgain;
    }
    inconclusive(format!("the answers fit no rule: {told}"))
}

/// The current callback is answered as a bogus one: either nothing shows before the login, or it
/// is not registered itself. Only what a provider says outright tells these apart.
fn old_is_no_reference(
    probes: &Probes,
    [old, new, path, host]: [&Spoken; 4],
    alike: &Alike,
    told: String,
) -> Ruling {
    let rejected = |shape: &Spoken| shape.says.mismatch;
    if !(rejected(old) && rejected(host)) {
        return if alike.yes(new, old) {
            Ruling::Is(State::Undecidable, told)
        } else {
            inconclusive(format!("the current callback is answered as a bogus one: {told}"))
        };
    }
    // A page may hold every message there is, for its scripts to choose from.
    let outright = old.status.is_client_error() || old.location.is_some();
    if rejected(new) && !outright {
        return Ruling::Is(State::Undecidable, told);
    }
    if rejected(new) {
        return Ruling::Is(
            State::NotRegistered,
            format!("neither is the current callback: {told}"),
        );
    }
    let accepted = !new.says.bad_client && (new.status.is_success() || new.status.is_redirection());
    if accepted && rejected(path) && !new.leads_as(host) {
        let told = format!("the current callback is not registered: {told}");
        return confirmed(probes, alike, State::Registered, told);
    }
    inconclusive(format!("the current callback is answered as a bogus one: {told}"))
}

/// A state that stands on likeness must be seen twice.
fn confirmed(probes: &Probes, alike: &Alike, state: State, told: String) -> Ruling {
    let Some((new_again, host_again)) = &probes.again else { return Ruling::AskAgain };
    let same = |first: &Shape, second: &Shape| match (first.spoken(), second.spoken()) {
        (Some(first), Some(second)) => alike.yes(first, second) && first.says == second.says,
        _ => false,
    };
    if same(&probes.new, new_again) && same(&probes.host, host_again) {
        Ruling::Is(state, told)
    } else {
        inconclusive(format!("asked once more, it answers otherwise: {told}"))
    }
}

fn inconclusive(why: String) -> Ruling {
    Ruling::Is(State::Inconclusive, why)
}

/// Whether a bogus redirect URI was answered otherwise in a way that chance does not bring: it
/// leads elsewhere, or it says so in words.
fn differs_robustly(bogus: &Spoken, new: &Spoken) -> bool {
    !bogus.leads_as(new) || Alike::is_told(bogus, new)
}

/// Which answers count as the same.
struct Alike {
    volatile: Volatile,
}

impl Alike {
    fn yes(&self, one: &Spoken, other: &Spoken) -> bool {
        if !one.leads_as(other) || one.says != other.says {
            return false;
        }
        // Where a redirect leads is the answer; its page is made for people who see no redirect.
        if one.location.is_some() {
            return true;
        }
        match (&one.words, &other.words) {
            (Some(one), Some(other)) => {
                one.symmetric_difference(other).all(|word| self.volatile.0.contains(word))
            }
            // Of pages that were not read whole nothing is known.
            _ => false,
        }
    }

    /// Whether the page of the first says outright, or in a word on redirects that the other has
    /// not, that something is wrong.
    fn is_told(bogus: &Spoken, good: &Spoken) -> bool {
        if bogus.says.mismatch && !good.says.mismatch {
            return true;
        }
        let (Some(bogus), Some(good)) = (&bogus.words, &good.words) else { return false };
        bogus.difference(good).any(|word| is_telling(word))
    }
}

fn is_telling(word: &str) -> bool {
    TELLING.iter().any(|telling| word.contains(telling))
}

/// Words with which pages in any place of the web say that a redirect URI is wrong.
const TELLING: &[&str] = &[
    "redirect",
    "callback",
    "mismatch",
    "unregistered",
    "registered",
    "invalid",
    "error",
    "whitelist",
];

/// Words that came and went between two answers to the same question. A telling word is never one
/// of them: an answer that takes back what it said is no answer.
struct Volatile(BTreeSet<String>);

impl Volatile {
    fn of(new: &Spoken, host: &Spoken, again: Option<&(Shape, Shape)>) -> Self {
        let mut volatile = BTreeSet::new();
        if let Some((new_again, host_again)) = again {
            for (first, second) in [(new, new_again), (host, host_again)] {
                if let (Some(first), Some(second)) =
                    (&first.words, second.spoken().and_then(|second| second.words.as_ref()))
                {
                    let words = first.symmetric_difference(second);
                    volatile.extend(words.filter(|word| !is_telling(word)).cloned());
                }
            }
        }
        Self(volatile)
    }
}

fn told(old: &Spoken, new: &Spoken, path: &Spoken, host: &Spoken) -> String {
    let all = [old, new, path, host].map(Spoken::words_for_people);
    let [old, new, path, host] = all;
    format!("current {old}; new {new}; bogus path {path}; bogus host {host}")
}
