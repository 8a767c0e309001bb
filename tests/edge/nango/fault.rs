//! Faults at chosen requests.

use super::Nango;
use crate::fakes::Reply;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `GET /environments`
    List,
    /// `GET /environments/{uuid}`
    Read,
    /// `PATCH /environments/{uuid}`
    Patch,
    /// `GET /integrations`
    Integrations,
    /// `GET /integrations/{key}`
    Integration,
    /// `POST /connect/sessions`
    Session,
    /// `GET /oauth/connect/{key}`
    Start,
    Other,
}

pub(crate) enum Fault {
    /// Sends this reply instead of handling the request.
    Reply(Reply),
    /// Closes the connection instead of handling the request.
    LostBefore,
    /// Handles the request, then closes the connection without a response.
    LostAfter,
    /// Handles the request, then sends this reply.
    ReplyAfter(Reply),
    /// Sends nothing, and keeps the connection open.
    HangBefore,
    /// Handles the request, then sends nothing.
    HangAfter,
    /// Does this, then handles the request.
    Do(Box<dyn FnOnce(&mut Nango) + Send>),
}

/// A fault at one or more requests of a kind.
pub(crate) struct Rule {
    kind: Kind,
    environment: Option<String>,
    skip: usize,
    faults: Vec<Fault>,
}

impl Rule {
    /// At the first request of this kind.
    pub(crate) fn at(kind: Kind, fault: Fault) -> Self {
        Self { kind, environment: None, skip: 0, faults: vec![fault] }
    }

    /// At so many requests of this kind.
    pub(crate) fn repeated(kind: Kind, times: usize, fault: impl Fn() -> Fault) -> Self {
        Self { kind, environment: None, skip: 0, faults: (0..times).map(|_| fault()).collect() }
    }

    /// At the first request of this kind after the first PATCH.
    pub(crate) fn after_patch(kind: Kind, fault: Fault) -> Self {
        Self::at(
            Kind::Patch,
            Fault::Do(Box::new(move |nango| nango.rules.push(Self::at(kind, fault)))),
        )
    }

    /// Only requests of this environment count.
    pub(crate) fn of(self, environment: &str) -> Self {
        Self { environment: Some(environment.into()), ..self }
    }

    /// After so many requests of this kind.
    pub(crate) fn after(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    pub(super) fn take(&mut self, kind: Kind, environment: &str) -> Option<Fault> {
        let is_of = self.environment.as_ref().is_none_or(|it| it == environment);
        if self.kind != kind || !is_of {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.faults.pop()
    }
}
