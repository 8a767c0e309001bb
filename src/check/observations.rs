//! The results of the requests, not yet evaluated.

use super::landing::{Landing, location_shown};
use super::location::Callback;
use super::prober::{AddressProbe, Outcome, Received};
use crate::outbound::{Fault, Origin, Protocol, Resolved, Response};
use http::StatusCode;
use std::net::IpAddr;
use std::time::Duration;

/// All results. `None` and empty lists stand for requests that were not sent.
#[derive(Debug)]
pub(super) struct Observations {
    pub(super) callback: Callback,
    pub(super) canary: String,
    pub(super) resolved: Result<Resolved, Fault>,
    /// One for each address, in the resolver's order.
    pub(super) addresses: Vec<AddressProbe>,
    /// The index of the address that received all further requests.
    pub(super) primary: Option<usize>,
    /// Why the first request fails although the callback works.
    pub(super) obstacle: Option<Obstacle>,
    /// The first probe without the obstacle.
    pub(super) passed: Option<Outcome>,
    /// Where the first response leads, when not to the target.
    pub(super) chain: Option<RedirectChain>,
    /// The response to a path beside the callback's that does not exist: error pages show which
    /// program writes them.
    pub(super) not_found: Option<Response>,
    pub(super) empty: Vec<Outcome>,
    pub(super) spellings: Vec<Outcome>,
    pub(super) providers: Vec<Outcome>,
    pub(super) sizes: Vec<Outcome>,
    /// Over the HTTP version that the primary address did not negotiate.
    /// A short query first, then those that often break.
    pub(super) other_protocol: Option<(Protocol, Vec<Outcome>)>,
    /// Each with the name of the program.
    pub(super) programs: Vec<(&'static str, Outcome)>,
    pub(super) form: Option<Outcome>,
    pub(super) plain_http: Option<PlainHttp>,
    /// The callback for GitHub Apps that Nango derives from this one.
    pub(super) sibling: Option<(Callback, Vec<Outcome>)>,
    pub(super) nango: Option<Result<Nango, Fault>>,
    pub(super) echo: Option<Echo>,
    /// For the callback, and for the callback for GitHub Apps.
    pub(super) end_to_end: Vec<EndToEnd>,
}

/// What the first request lacks. All other requests have it, so that everything else is checked.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// The cookie that the response sets: a cookie wall.
    Cookie(Box<Received>),
    /// The other HTTP version; this one fails.
    Protocol(Protocol),
}

/// A chain of redirects whose first response does not lead to the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RedirectChain {
    /// It returns to a URL of the chain.
    Loop(Vec<String>),
    /// It reaches the target after these URLs.
    Indirect(Vec<String>),
    /// It has more redirects than are followed; all URLs differ.
    TooLong(Vec<String>),
    /// It ends somewhere else.
    Other,
}

/// The same callback over plain http.
#[derive(Debug)]
pub(super) enum PlainHttp {
    /// Not probed, with the reason.
    NotProbed(&'static str),
    Probed(Box<Outcome>),
}

/// The response of the target.
#[derive(Debug)]
pub(super) struct Nango {
    pub(super) response: Response,
    /// Whether its certificate is valid; true without TLS.
    pub(super) trusted: bool,
}

/// One flow from the callback to Nango's page.
#[derive(Debug)]
pub(super) struct Echo {
    pub(super) nonce: String,
    /// The response of the callback.
    pub(super) outcome: Outcome,
    /// The response of Nango.
    pub(super) page: Option<Result<Response, Fault>>,
}

/// A callback without a state, which Nango redirects to the `Referer`.
#[derive(Debug)]
pub(super) struct EndToEnd {
    /// A URL that contains a nonce, in its host and in its path.
    pub(super) nonce: String,
    /// The `Referer` that a browser sends to Nango; `None` when the callback hides it.
    pub(super) referer: Option<String>,
    /// The response of the callback.
    pub(super) status: Result<StatusCode, Fault>,
    pub(super) landing: Option<Landing>,
    /// The response of Nango.
    pub(super) nango: Option<Result<Nango, Fault>>,
    pub(super) duration: Duration,
}

impl Observations {
    /// The address that received all further requests.
    pub(super) fn primary(&self) -> Option<&AddressProbe> {
        self.primary.and_then(|primary| self.addresses.get(primary))
    }

    /// The proxy through which all requests go.
    pub(super) fn proxy(&self) -> Option<&str> {
        match self.resolved.as_ref().ok().map(|resolved| &resolved.origin) {
            Some(Origin::Proxy(proxy)) => Some(proxy),
            _ => None,
        }
    }

    /// The first probe's outcome.
    pub(super) fn first(&self) -> Option<&Outcome> {
        self.passed.as_ref().or_else(|| self.primary().and_then(|probed| probed.first.as_ref()))
    }

    /// All outcomes that should reach the target, by address.
    pub(super) fn by_address(&self) -> Vec<(IpAddr, Vec<&Outcome>)> {
        let primary = self.primary().map(|probed| probed.address);
        let mut all = Vec::new();
        for probed in &self.addresses {
            let mut outcomes: Vec<_> = probed.first.iter().chain(&probed.hard).collect();
            if Some(probed.address) == primary {
                let corpus = self.corpus().skip(1).chain(&self.sizes);
                let programs = self.programs.iter().map(|(_, outcome)| outcome);
                outcomes.extend(corpus.chain(&self.empty).chain(programs).chain(&self.form));
                outcomes.extend(self.other_protocol.iter().flat_map(|(_, outcomes)| outcomes));
            }
            all.push((probed.address.ip(), outcomes));
        }
        all
    }

    /// The probes with queries as providers send them.
    pub(super) fn corpus(&self) -> impl Iterator<Item = &Outcome> {
        self.first().into_iter().chain(&self.providers).chain(&self.spellings)
    }

    /// The `Location` of the first response, without values.
    pub(super) fn first_location(&self) -> String {
        match self.first().map(|first| &first.result) {
            Some(Ok(got)) => location_shown(&got.response.headers),
            _ => "nowhere".to_owned(),
        }
    }
}
