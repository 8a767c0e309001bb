//! What was seen, before anybody judges it.

use super::landing::location_shown;
use super::place::Callback;
use super::prober::{Door, Seen};
use crate::outbound::{Answer, Fault, Protocol, Resolved};

/// Everything that was seen. What is `None` or empty was not asked.
#[derive(Debug)]
pub(super) struct Observations {
    pub(super) callback: Callback,
    pub(super) canary: String,
    pub(super) resolved: Result<Resolved, Fault>,
    /// One for each address, in the resolver's order.
    pub(super) doors: Vec<Door>,
    /// The door through which all else was asked.
    pub(super) front: Option<usize>,
    /// Where the first answer leads, when not to the target.
    pub(super) trail: Option<Trail>,
    pub(super) empty: Vec<Seen>,
    pub(super) spellings: Vec<Seen>,
    pub(super) providers: Vec<Seen>,
    pub(super) sizes: Vec<Seen>,
    /// Over the HTTP version that the front door did not choose.
    pub(super) other_protocol: Option<(Protocol, Seen)>,
    pub(super) plain_client: Option<Seen>,
    pub(super) form: Option<Seen>,
    pub(super) insecure: Option<Insecure>,
    /// The callback for GitHub Apps that Nango derives from this one.
    pub(super) sibling: Option<(Callback, Seen)>,
    pub(super) nango: Option<Result<Nango, Fault>>,
    pub(super) echo: Option<Echo>,
}

/// Where redirects lead that do not lead to the target at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trail {
    /// Back to where they began.
    Loop(Vec<String>),
    /// To the target, by these stations.
    Detour(Vec<String>),
    /// By these stations, all different, and further than is followed.
    Endless(Vec<String>),
    /// Elsewhere.
    Lost,
}

/// The same callback by plain http.
#[derive(Debug)]
pub(super) enum Insecure {
    /// It was not asked.
    NotAsked(&'static str),
    Asked(Box<Seen>),
}

/// What answers at the target.
#[derive(Debug)]
pub(super) struct Nango {
    pub(super) answer: Answer,
    /// Whether its certificate is valid; true without TLS.
    pub(super) trusted: bool,
}

/// One flow from the callback to Nango's page.
#[derive(Debug)]
pub(super) struct Echo {
    pub(super) nonce: String,
    /// What the callback said.
    pub(super) seen: Seen,
    /// What Nango said then.
    pub(super) page: Option<Result<Answer, Fault>>,
}

impl Observations {
    /// The door through which all else was asked.
    pub(super) fn front(&self) -> Option<&Door> {
        self.front.and_then(|front| self.doors.get(front))
    }

    /// The first probe's outcome.
    pub(super) fn first(&self) -> Option<&Seen> {
        self.front().and_then(|door| door.seen.as_ref())
    }

    /// The probes that any callback could have been.
    pub(super) fn corpus(&self) -> impl Iterator<Item = &Seen> {
        self.first().into_iter().chain(&self.providers).chain(&self.spellings)
    }

    /// What the first answer's `Location` says, without its values.
    pub(super) fn first_location(&self) -> String {
        match self.first().map(|first| &first.result) {
            Some(Ok(got)) => location_shown(&got.answer.headers),
            _ => "nowhere".to_owned(),
        }
    }
}
