//! The differential test: is a callback registered with a provider?
//!
//! Sends the same request to the provider's authorization endpoint with several redirect URIs: the
//! one in use, the new one, and unregistered ones as `controls`. RFC 6749 §4.1.2.1 forbids redirects
//! to unregistered URIs, so the replies must differ somewhere; whether they do before login depends
//! on the provider. `request` replaces the URI, `body` decompresses replies, `shape` classifies them
//! by their `text` and `phrases`, `rule` decides, `rate_limiter` limits the requests, `provider` lists what is
//! known in advance.
//!
//! Follows no redirect, stores no cookie, signs in nowhere, and sends a `state` that Nango never
//! issued.

mod body;
mod controls;
mod phrases;
mod provider;
mod rate_limiter;
mod request;
mod rule;
mod shape;
mod text;

pub use provider::{Callbacks, Provider};
pub use request::Untestable;
pub use rule::State;

use crate::check::fresh_state;
use crate::outbound::{Fault, Offer, Outbound, Reason, Request, Response, Step};
use body::{MAX_BODY, decompressed};
use bytes::Bytes;
use controls::Controls;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use rate_limiter::{RateLimiter, Refusal};
use request::{AuthorizationRequest, Identity};
use rule::{Decision, Facts, Probe, Rounds, judge};
use shape::{Sent, Shape};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use text::Spellings;
use tokio::sync::OnceCell;

/// The authorization request of an integration, and the redirect URIs to test.
#[derive(Clone)]
pub struct ProbeRequest {
    /// Nango's name of the template, for example `google-mail`.
    pub template: String,
    /// The authorization URL that users are sent to. It contains a live `state`: a secret.
    pub url: String,
    /// The redirect URI in it.
    pub current: String,
    /// A redirect URI that is known to be registered.
    pub old: String,
    /// The redirect URI to test.
    pub new: String,
    /// Whether to send `prompt=none`; `None`: the default of the provider.
    pub prompt_none: Option<bool>,
}

/// Limits and identification of the probes.
#[derive(Clone, Debug)]
pub struct ProbePolicy {
    /// Between two probes of a host.
    pub pause: Duration,
    /// Maximum number of probes.
    pub cap: usize,
    /// `User-Agent` (RFC 9110 §10.1.5).
    pub user_agent: String,
}

/// The result of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The state, or why it cannot be tested.
    pub state: Result<State, Untestable>,
    /// Names and statuses of the replies, never a value.
    pub evidence: String,
}

/// Tests with the same request, and the same use of it, have the same finding.
#[derive(PartialEq, Eq, Hash)]
struct Question {
    identity: Identity,
    old: String,
    new: String,
    prompt_none: bool,
    callbacks: Callbacks,
}

/// The test, with a cache of its findings.
pub struct Differential {
    outbound: Outbound,
    rate_limiter: RateLimiter,
    user_agent: HeaderValue,
    known: Mutex<HashMap<Question, Arc<OnceCell<Finding>>>>,
}

impl Differential {
    /// A test with an empty cache.
    pub fn new(outbound: Outbound, policy: &ProbePolicy) -> Self {
        let user_agent = HeaderValue::from_str(&policy.user_agent)
            .unwrap_or_else(|_| HeaderValue::from_static("callback-edge"));
        let rate_limiter = RateLimiter::new(policy.pause, policy.cap);
        let outbound = outbound.with_body_limit(MAX_BODY);
        Self { outbound, rate_limiter, user_agent, known: Mutex::default() }
    }

    /// Probes the provider; only once for all integrations that use the same app.
    pub async fn test(&self, probe_request: &ProbeRequest) -> Finding {
        let request = match AuthorizationRequest::parse(&probe_request.url, &probe_request.current)
        {
            Ok(request) => request,
            Err(why) => return Finding { state: Err(why), evidence: why.as_str().to_owned() },
        };
        let provider = Provider::of(&probe_request.template);
        let question = Question {
            identity: request.identity(),
            old: probe_request.old.clone(),
            new: probe_request.new.clone(),
            prompt_none: probe_request.prompt_none.unwrap_or(provider.prompt_none),
            callbacks: provider.callbacks,
        };
        let prompt_none = question.prompt_none;
        let known = {
            let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(question).or_default())
        };
        known.get_or_init(|| self.run(&request, probe_request, prompt_none)).await.clone()
    }

    /// Where the probes would go, without any value.
    pub fn preview(probe_request: &ProbeRequest) -> Result<String, Untestable> {
        AuthorizationRequest::parse(&probe_request.url, &probe_request.current)
            .map(|request| request.shown())
    }

    async fn run(
        &self,
        request: &AuthorizationRequest,
        probe_request: &ProbeRequest,
        prompt_none: bool,
    ) -> Finding {
        let mut sequence = ProbeSequence::new(probe_request);
        loop {
            let (redirect_uri, state, random_client) = match sequence.next_action() {
                Action::Finish(finding) => return finding,
                Action::Send { redirect_uri, state, random_client } => {
                    (redirect_uri, state, random_client)
                }
            };
            let path = if random_client {
                request.with_random_client().with(&redirect_uri, &state, prompt_none)
            } else {
                request.with(&redirect_uri, &state, prompt_none)
            };
            sequence.record(&self.send(request, path).await);
        }
    }

    /// Sends one probe when the rate limiter permits it.
    async fn send(&self, request: &AuthorizationRequest, path: String) -> Result<Response, Fault> {
        let mut permit =
            self.rate_limiter.acquire(&request.server.host).await.map_err(|refusal| {
                Fault::new(Step::Connect, Reason::OutOfTime, refusal.as_str())
            })?;
        let mut response = Box::pin(self.exchange(request, path)).await;
        if let Err(fault) = &mut response
            && fault.reason == Reason::NotAllowed
        {
            fault.text.push_str("; `preflight.private_networks` does not allow it");
        }
        if response.as_ref().is_ok_and(|response| response.status == StatusCode::TOO_MANY_REQUESTS)
        {
            permit.close();
        }
        response
    }

    async fn exchange(
        &self,
        request: &AuthorizationRequest,
        path_and_query: String,
    ) -> Result<Response, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/html,*/*;q=0.8"));
        headers.insert(header::ACCEPT_LANGUAGE, HeaderValue::from_static("en"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let probe = Request { method: Method::GET, path_and_query, headers, body: Bytes::new() };
        self.outbound.send(&request.server, Offer::Both, &probe).await.map(decompressed)
    }
}

/// One test without I/O: returns the next probe, records its reply, and returns a finding in the
/// end. No reply makes it panic or send more than 13 probes.
pub struct ProbeSequence {
    /// `None` when a callback is not a URL.
    targets: Option<Targets>,
    /// The authorization URL.
    url: String,
    rounds: Rounds,
    pending: Option<Pending>,
}

/// The redirect URIs of a test.
struct Targets {
    old: String,
    new: String,
    controls: Controls,
    /// Of all of them.
    spellings: Spellings,
}

/// What to do next in a [`ProbeSequence`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the authorization request with this redirect URI and state, and record its reply.
    Send {
        /// The redirect URI.
        redirect_uri: String,
        /// A fresh state.
        state: String,
        /// Whether to replace the client id by one that no app has.
        random_client: bool,
    },
    /// The test is complete.
    Finish(Finding),
}

struct Pending {
    probe: Probe,
    redirect_uri: String,
    state: String,
}

impl ProbeSequence {
    /// A sequence before its first probe.
    pub fn new(probe_request: &ProbeRequest) -> Self {
        let ProbeRequest { template, url, current, old, new, .. } = probe_request;
        let request = AuthorizationRequest::parse(url, current);
        let facts = Facts {
            has_client_id: request.is_ok_and(|request| request.has_client_id()),
            registers_domains: Provider::of(template).callbacks == Callbacks::Domain,
        };
        let targets = Targets::of(old, new);
        Self { targets, url: url.clone(), rounds: Rounds::new(facts), pending: None }
    }

    /// The next probe, or the finding.
    pub fn next_action(&mut self) -> Action {
        let Some(targets) = &self.targets else {
            let why = Untestable::NotAUrl;
            return Action::Finish(Finding {
                state: Err(why),
                evidence: "a callback is not a URL".into(),
            });
        };
        let probe = match judge(&self.rounds) {
            Decision::Final(state, evidence) => {
                return Action::Finish(Finding { state: Ok(state), evidence });
            }
            Decision::Send(probe) => probe,
        };
        let (redirect_uri, state) = (targets.uri(probe).to_owned(), fresh_state());
        let pending = Pending { probe, redirect_uri: redirect_uri.clone(), state: state.clone() };
        self.pending = Some(pending);
        Action::Send { redirect_uri, state, random_client: probe == Probe::RandomClient }
    }

    /// Records the reply to the last probe of [`ProbeSequence::next_action`].
    pub fn record(&mut self, response: &Result<Response, Fault>) {
        let (Some(pending), Some(targets)) = (self.pending.take(), &self.targets) else { return };
        let Pending { probe, redirect_uri, state } = pending;
        let spellings = &targets.spellings;
        let sent = Sent { redirect_uri: &redirect_uri, spellings, state: &state, url: &self.url };
        self.rounds.record(probe, Shape::of(response, sent));
    }
}

impl Targets {
    fn of(old: &str, new: &str) -> Option<Self> {
        let controls = Controls::of(old, new)?;
        let Controls { path, live, host, old_path } = &controls;
        let spellings = Spellings::of(&[old, new, path, live, host, old_path]);
        Some(Self { old: old.into(), new: new.into(), spellings, controls })
    }

    fn uri(&self, probe: Probe) -> &str {
        match probe {
            Probe::Old | Probe::RandomClient => &self.old,
            Probe::New => &self.new,
            Probe::UnregisteredHost => &self.controls.host,
            Probe::UnregisteredPath => &self.controls.path,
            Probe::LivePath => &self.controls.live,
            Probe::OldHostPath => &self.controls.old_path,
        }
    }
}

impl Refusal {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "its host sent 429 before: no more probes",
            Self::Cap => "the maximum number of probes (`--cap`) is reached",
        }
    }
}

#[cfg(test)]
mod recorded;
