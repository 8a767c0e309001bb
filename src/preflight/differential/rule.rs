//! The rule: shapes in, and out comes what to ask next, or a state. Pure, and in the order in
//! which a mistake would hurt.

use super::shape::{Shape, Spoken};
use std::collections::BTreeSet;

/// Which redirect URI to ask with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// The one that is in use and known to be good.
    Old,
    /// Another host, and the new one's path: a control.
    Host,
    /// The one that is to be found out about.
    New,
    /// Another path on the new host: a control.
    Path,
}

/// Each control differs from the new callback in one thing. When the good one is not answered, the
/// others would tell nothing.
const ORDER: [Question; 4] = [Question::Old, Question::Host, Question::New, Question::Path];

/// Another order than before: what an answer owes to its turn, as those of two servers that take
/// turns do and those from where a limit on requests begins, shows.
const ORDER_AGAIN: [Question; 4] = [Question::Host, Question::New, Question::Path, Question::Old];

/// The answers so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    first: Round,
    /// The same once more, if need be.
    again: Round,
}

#[derive(Clone, Debug, Default)]
struct Round {
    old: Option<Shape>,
    host: Option<Shape>,
    new: Option<Shape>,
    path: Option<Shape>,
}

/// What the rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// Ask this next.
    Ask(Question),
    /// This, and why.
    Is(State, String),
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

impl Probes {
    /// Takes the answer to the question that was to be asked.
    pub(super) fn take(&mut self, question: Question, shape: Shape) {
        let place = match self.first.place(question) {
            place @ None => place,
            Some(_) => self.again.place(question),
        };
        *place = Some(shape);
    }
}

impl Round {
    fn place(&mut self, question: Question) -> &mut Option<Shape> {
        match question {
            Question::Old => &mut self.old,
            Question::Host => &mut self.host,
            Question::New => &mut self.new,
            Question::Path => &mut self.path,
        }
    }

    fn shape(&self, question: Question) -> Option<&Shape> {
        match question {
            Question::Old => self.old.as_ref(),
            Question::Host => self.host.as_ref(),
            Question::New => self.new.as_ref(),
            Question::Path => self.path.as_ref(),
        }
    }

    /// An answer; else that it is to be asked for, or that there was none.
    fn spoken(&self, question: Question) -> Result<&Spoken, Ruling> {
        match self.shape(question) {
            None => Err(Ruling::Ask(question)),
            Some(Shape::Answer(spoken)) => Ok(spoken),
            Some(Shape::Silent(silence)) => {
                let (name, words) = (question.name(), silence.words());
                Err(inconclusive(format!("asked with {name}, the provider {words}")))
            }
        }
    }

    fn all(&self, order: [Question; 4]) -> Result<Four<'_>, Ruling> {
        for question in order {
            self.spoken(question)?;
        }
        Ok(Four {
            old: self.spoken(Question::Old)?,
            host: self.spoken(Question::Host)?,
            new: self.spoken(Question::New)?,
            path: self.spoken(Question::Path)?,
        })
    }
}

impl Question {
    const fn name(self) -> &'static str {
        match self {
            Self::Old => "the current callback",
            Self::Host => "a bogus host",
            Self::New => "the new callback",
            Self::Path => "a bogus path",
        }
    }
}

/// All four answers.
#[derive(Clone, Copy)]
struct Four<'a> {
    old: &'a Spoken,
    host: &'a Spoken,
    new: &'a Spoken,
    path: &'a Spoken,
}

/// What the rule says of the answers so far.
pub(super) fn judge(probes: &Probes) -> Ruling {
    match probes.first.all(ORDER) {
        Ok(first) => match again(probes) {
            Ok(again) => decide(first, again),
            Err(ruling) => ruling,
        },
        Err(ruling) => ruling,
    }
}

/// The second round, once it has begun. It ends where an answer is not what it was.
fn again(probes: &Probes) -> Result<Option<Four<'_>>, Ruling> {
    let [begins, ..] = ORDER_AGAIN;
    if probes.again.shape(begins).is_none() {
        return Ok(None);
    }
    for question in ORDER_AGAIN {
        let (first, again) = (probes.first.spoken(question)?, probes.again.spoken(question)?);
        if !is_steady(first, again) {
            let name = question.name();
            return Err(inconclusive(format!("asked with {name} once more, it answers otherwise")));
        }
    }
    probes.again.all(ORDER_AGAIN).map(Some)
}

/// In the order of RFC 6749's certainty: a bounce, what is said outright, and only then likeness.
fn decide(first: Four<'_>, again: Option<Four<'_>>) -> Ruling {
    let Four { old, host, new, path } = first;
    let told = first.told();
    // A state that stands on likeness must be seen twice.
    let confirmed = |state, told| match again {
        Some(_) => Ruling::Is(state, told),
        None => ask_again(),
    };
    if host.bounced || new.bounced || path.bounced {
        return bounced(first, told);
    }
    let is_rejected = |spoken: &Spoken| spoken.says.bad_client && !spoken.says.mismatch;
    if [old, new, path, host].into_iter().all(is_rejected) {
        return Ruling::Is(State::ClientRejected, told);
    }
    let alike = Alike { volatile: Volatile::of(first, again) };
    if alike.yes(old, host) {
        return old_is_no_reference(first, &alike, told, confirmed);
    }
    if new.says.mismatch && !old.says.mismatch {
        // What the rest of the old one's page says is not known.
        if old.words.is_none() && old.leads_as(new) {
            return inconclusive(format!("a page was not read to its end: {told}"));
        }
        // Nobody answers so by chance; a page may hold every message there is, though.
        return if host.says.mismatch && new.is_outright() {
            Ruling::Is(State::NotRegistered, told)
        } else {
            confirmed(State::NotRegistered, told)
        };
    }
    if alike.yes(new, host) {
        // A page that differs from itself makes `old` look different from all.
        return if old.leads_as(host) && !host.is_told_beside(old) {
            inconclusive(format!("the answers differ in ways that say nothing: {told}"))
        } else {
            confirmed(State::NotRegistered, told)
        };
    }
    if alike.yes(new, old) && !new.refuses() {
        let differs = |bogus: &Spoken| !bogus.leads_as(new) || bogus.is_told_beside(new);
        return if alike.yes(path, new) {
            // A wall against odd hosts answers otherwise too.
            if host.says.mismatch {
                confirmed(State::PrefixMatch, told)
            } else {
                inconclusive(format!("what is wrong with a bogus host is not said: {told}"))
            }
        } else if differs(path) && differs(host) {
            confirmed(State::Registered, told)
        } else {
            inconclusive(format!("the answers differ in ways that say nothing: {told}"))
        };
    }
    if again.is_none() && old.leads_as(new) && !new.refuses() {
        // The pages differ. A repeat shows which of their words change by themselves.
        return ask_again();
    }
    inconclusive(format!("the answers fit no rule: {told}"))
}

/// RFC 6749 §4.1.2.1: never to a URI that it does not know.
fn bounced(Four { host, new, path, .. }: Four<'_>, told: String) -> Ruling {
    if host.bounced {
        // It may have found another fault before it came to the redirect URI.
        return if host.refuses() {
            inconclusive(format!("it redirects an error to a bogus host: {told}"))
        } else {
            Ruling::Is(State::Unenforced, format!("it redirects to a bogus host: {told}"))
        };
    }
    match (new.bounced, path.bounced) {
        (true, _) if new.says.mismatch => {
            inconclusive(format!("it redirects to the new callback, and denies it: {told}"))
        }
        (true, true) if path.refuses() => {
            inconclusive(format!("it redirects an error to a bogus path: {told}"))
        }
        (true, true) => Ruling::Is(State::PrefixMatch, told),
        (true, false) => Ruling::Is(State::Registered, told),
        (false, _) => inconclusive(format!("it redirects to a bogus path only: {told}")),
    }
}

/// The current callback is answered as a bogus one: either nothing shows before the login, or it
/// is not registered itself. Only what a provider says outright tells these apart.
fn old_is_no_reference(
    Four { old, host, new, path }: Four<'_>,
    alike: &Alike,
    told: String,
    confirmed: impl Fn(State, String) -> Ruling,
) -> Ruling {
    if !(old.says.mismatch && host.says.mismatch) {
        return if alike.yes(new, old) {
            Ruling::Is(State::Undecidable, told)
        } else {
            inconclusive(format!("the current callback is answered as a bogus one: {told}"))
        };
    }
    if new.says.mismatch {
        return if old.is_outright() && new.is_outright() {
            let told = format!("neither is the current callback: {told}");
            Ruling::Is(State::NotRegistered, told)
        } else {
            Ruling::Is(State::Undecidable, told)
        };
    }
    if path.says.mismatch && !new.refuses() && !new.complains() {
        let told = format!("the current callback is not registered: {told}");
        return confirmed(State::Registered, told);
    }
    inconclusive(format!("the current callback is answered as a bogus one: {told}"))
}

const fn ask_again() -> Ruling {
    let [first, ..] = ORDER_AGAIN;
    Ruling::Ask(first)
}

fn inconclusive(why: String) -> Ruling {
    Ruling::Is(State::Inconclusive, why)
}

/// Whether the same question was answered the same, but for words that change by themselves. A
/// telling word never does: an answer that takes back what it said is no answer.
fn is_steady(first: &Spoken, again: &Spoken) -> bool {
    first.leads_as(again)
        && first.says == again.says
        && first.words.is_some() == again.words.is_some()
        && first.telling == again.telling
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
            (Some(words), Some(others)) => {
                one.telling == other.telling
                    && words.symmetric_difference(others).all(|word| self.volatile.0.contains(word))
            }
            // Of pages that were not read whole nothing is known.
            _ => false,
        }
    }
}

/// Words that came and went between two answers to the same question.
struct Volatile(BTreeSet<String>);

impl Volatile {
    fn of(first: Four<'_>, again: Option<Four<'_>>) -> Self {
        let mut volatile = BTreeSet::new();
        for (first, again) in again.iter().flat_map(|again| {
            [
                (first.old, again.old),
                (first.host, again.host),
                (first.new, again.new),
                (first.path, again.path),
            ]
        }) {
            if let (Some(first), Some(again)) = (&first.words, &again.words) {
                volatile.extend(first.symmetric_difference(again).cloned());
            }
        }
        Self(volatile)
    }
}

impl Four<'_> {
    fn told(&self) -> String {
        let all = [self.old, self.new, self.path, self.host].map(Spoken::words_for_people);
        let [old, new, path, host] = all;
        format!("current {old}; new {new}; bogus path {path}; bogus host {host}")
    }
}
