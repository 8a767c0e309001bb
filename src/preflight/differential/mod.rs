//! The differential test: is a callback registered with a provider?
//!
//! Sends the same request to the provider's authorization endpoint with four redirect URIs: one
//! that is known to be registered, the new one, and two unregistered ones as controls. RFC 6749 §4.1.2.1
//! forbids redirects to unregistered URIs, so the replies must differ somewhere; whether they do
//! before login depends on the provider. `request` replaces the URI, `shape` normalizes replies,
//! `rule` decides, `rate_limiter` limits the requests, `provider` lists what is known in advance.
//!
//! Follows no redirect, stores no cookie, signs in nowhere, and sends a `state` that Nango never
//! issued.

mod provider;
mod rate_limiter;
mod request;
mod rule;
mod shape;

pub use provider::{Callbacks, Provider};
pub use request::Untestable;
pub use rule::State;

use crate::check::{fresh_nonce, fresh_state};
use crate::outbound::{Fault, Offer, Outbound, Reason, Request, Response, Step};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use rate_limiter::{RateLimiter, Refusal};
use request::{AuthorizationRequest, Identity};
use rule::{Decision, Probe, Rounds, judge};
use shape::{Sent, Shape};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use url::{Position, Url};

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

/// The test, with a cache of its findings.
pub struct Differential {
    outbound: Outbound,
    rate_limiter: RateLimiter,
    user_agent: HeaderValue,
    known: Mutex<HashMap<Identity, Arc<OnceCell<Finding>>>>,
}

impl Differential {
    /// A test with an empty cache.
    pub fn new(outbound: Outbound, policy: &ProbePolicy) -> Self {
        let user_agent = HeaderValue::from_str(&policy.user_agent)
            .unwrap_or_else(|_| HeaderValue::from_static("callback-edge"));
        let rate_limiter = RateLimiter::new(policy.pause, policy.cap);
        Self { outbound, rate_limiter, user_agent, known: Mutex::default() }
    }

    /// Probes the provider; only once for all integrations that use the same app.
    pub async fn test(&self, probe_request: &ProbeRequest) -> Finding {
        let request = match AuthorizationRequest::parse(&probe_request.url, &probe_request.current)
        {
            Ok(request) => request,
            Err(why) => return Finding { state: Err(why), evidence: why.as_str().to_owned() },
        };
        let known = {
            let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(request.identity()).or_default())
        };
        known.get_or_init(|| self.run(&request, probe_request)).await.clone()
    }

    /// Where the probes would go, without any value.
    pub fn preview(probe_request: &ProbeRequest) -> Result<String, Untestable> {
        AuthorizationRequest::parse(&probe_request.url, &probe_request.current)
            .map(|request| request.shown())
    }

    async fn run(&self, request: &AuthorizationRequest, probe_request: &ProbeRequest) -> Finding {
        let known = Provider::of(&probe_request.template).prompt_none;
        let prompt_none = probe_request.prompt_none.unwrap_or(known);
        let mut sequence = ProbeSequence::new(probe_request);
        loop {
            let (redirect_uri, state) = match sequence.next_action() {
                Action::Finish(finding) => return finding,
                Action::Send { redirect_uri, state } => (redirect_uri, state),
            };
            let path = request.with(&redirect_uri, &state, prompt_none);
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
        let probe = Request { method: Method::GET, path_and_query, headers, body: Bytes::new() };
        self.outbound.send(&request.server, Offer::Both, &probe).await
    }
}

/// One test without I/O: returns the next probe, records its reply, and returns a finding in the
/// end. No reply makes it panic or send more than eight probes.
pub struct ProbeSequence<'s> {
    probe_request: &'s ProbeRequest,
    provider: Provider,
    /// The two controls; `None` when the new callback is not a URL.
    unregistered: Option<(String, String)>,
    rounds: Rounds,
    pending: Option<Pending>,
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
    },
    /// The test is complete.
    Finish(Finding),
}

struct Pending {
    probe: Probe,
    redirect_uri: String,
    state: String,
}

impl<'s> ProbeSequence<'s> {
    /// A sequence before its first probe.
    pub fn new(probe_request: &'s ProbeRequest) -> Self {
        let provider = Provider::of(&probe_request.template);
        let unregistered = unregistered(&probe_request.new);
        Self { probe_request, provider, unregistered, rounds: Rounds::default(), pending: None }
    }

    /// The next probe, or the finding.
    pub fn next_action(&mut self) -> Action {
        let Some((path, host)) = &self.unregistered else {
            let why = Untestable::NotAUrl;
            return Action::Finish(Finding {
                state: Err(why),
                evidence: "the new callback is not a URL".into(),
            });
        };
        let probe = match judge(&self.rounds) {
            Decision::Final(state, evidence) => {
                return Action::Finish(Finding { state: Ok(state), evidence });
            }
            Decision::Send(probe) => probe,
        };
        let redirect_uri = match probe {
            Probe::Old => &self.probe_request.old,
            Probe::UnregisteredHost => host,
            Probe::New => &self.probe_request.new,
            Probe::UnregisteredPath => path,
        };
        let (redirect_uri, state) = (redirect_uri.to_owned(), fresh_state());
        let pending = Pending { probe, redirect_uri: redirect_uri.clone(), state: state.clone() };
        self.pending = Some(pending);
        Action::Send { redirect_uri, state }
    }

    /// Records the reply to the last probe of [`ProbeSequence::next_action`].
    pub fn record(&mut self, response: &Result<Response, Fault>) {
        let Some(Pending { probe, redirect_uri, state }) = self.pending.take() else { return };
        let ProbeRequest { old, new, url, .. } = self.probe_request;
        let (path, host) = self.unregistered.as_ref().map_or(("", ""), |(path, host)| (path, host));
        let all = [old, host, new, path];
        let sent = Sent { redirect_uri: &redirect_uri, all, state: &state, url };
        let Provider { markers, mismatch_status, .. } = self.provider;
        self.rounds.record(probe, Shape::of(response, sent, markers, mismatch_status));
    }
}

/// The two controls. Each differs from the new callback in one part: another path on its host, and
/// its path on another host. They detect providers that compare only one part. Not below
/// `.invalid`: Google rejects that before it compares.
fn unregistered(new: &str) -> Option<(String, String)> {
    let new = Url::parse(new).ok()?;
    let path = new.join(&format!("/{}", fresh_nonce())).ok()?;
    let label: String = fresh_nonce().chars().take(12).collect();
    let host = format!("https://{label}.example.com{}", &new[Position::BeforePath..]);
    Some((path.into(), host))
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
