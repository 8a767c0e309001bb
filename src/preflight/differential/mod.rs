//! The differential test: is a callback registered with a provider?
//!
//! The provider's authorization endpoint is asked the same question with four redirect URIs: one
//! that is known good, the new one, and two bogus ones. RFC 6749 §4.1.2.1 forbids to redirect to
//! one that is not registered, so that the answers must differ somewhere; whether they do before
//! the login is up to the provider. `request` exchanges the URI, `shape` makes answers comparable,
//! `rule` judges, `pace` keeps the manners, `provider` is what is known beforehand.
//!
//! Nothing is followed, no cookie is kept, nobody signs in, and the `state` that is sent was never
//! issued by Nango.

mod pace;
mod provider;
mod request;
mod rule;
mod shape;

pub use provider::{Callbacks, Provider};
pub use request::Untestable;
pub use rule::State;

use crate::check::{fresh_nonce, fresh_state};
use crate::outbound::{Answer, Fault, Offer, Outbound, Reason, Request, Step};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use pace::{Pace, Refusal};
use request::{AuthorizationRequest, Identity};
use rule::{Probes, Question, Ruling, judge};
use shape::{Asked, Shape};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use url::{Position, Url};

/// One integration's authorization request, and what is to be found out about it.
#[derive(Clone)]
pub struct Inquiry {
    /// Nango's name of the template, for example `google-mail`.
    pub template: String,
    /// The authorization URL as users are sent to it. It holds a live `state`: a secret.
    pub url: String,
    /// The redirect URI that stands in it.
    pub current: String,
    /// A redirect URI that is known to be good.
    pub old: String,
    /// The one to find out about.
    pub new: String,
    /// Whether to ask with `prompt=none`; `None`: as is known of the provider.
    pub prompt_none: Option<bool>,
}

/// How to ask.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Between two questions to one host.
    pub pause: Duration,
    /// Questions in all.
    pub cap: usize,
    /// Who asks (RFC 9110 §10.1.5).
    pub user_agent: String,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In a word; or why it cannot be found out.
    pub state: Result<State, Untestable>,
    /// What was seen: names and statuses, never a value.
    pub evidence: String,
}

/// The test, with the memory of what was asked already.
pub struct Differential {
    outbound: Outbound,
    pace: Pace,
    user_agent: HeaderValue,
    known: Mutex<HashMap<Identity, Arc<OnceCell<Finding>>>>,
}

impl Differential {
    /// A test that has asked nothing yet.
    pub fn new(outbound: Outbound, manners: &Manners) -> Self {
        let user_agent = HeaderValue::from_str(&manners.user_agent)
            .unwrap_or_else(|_| HeaderValue::from_static("callback-edge"));
        let pace = Pace::new(manners.pause, manners.cap);
        Self { outbound, pace, user_agent, known: Mutex::default() }
    }

    /// Asks the provider. Two integrations of one app are one question, asked once.
    pub async fn test(&self, inquiry: &Inquiry) -> Finding {
        let request = match AuthorizationRequest::parse(&inquiry.url, &inquiry.current) {
            Ok(request) => request,
            Err(why) => return Finding { state: Err(why), evidence: why.words().to_owned() },
        };
        let known = {
            let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(request.identity()).or_default())
        };
        known.get_or_init(|| self.ask(&request, inquiry)).await.clone()
    }

    /// Where the question would go, without any value.
    pub fn preview(inquiry: &Inquiry) -> Result<String, Untestable> {
        AuthorizationRequest::parse(&inquiry.url, &inquiry.current).map(|request| request.shown())
    }

    async fn ask(&self, request: &AuthorizationRequest, inquiry: &Inquiry) -> Finding {
        let known = Provider::of(&inquiry.template).prompt_none;
        let prompt_none = inquiry.prompt_none.unwrap_or(known);
        let mut examination = Examination::new(inquiry);
        loop {
            let (redirect_uri, state) = match examination.wants() {
                Next::Is(finding) => return finding,
                Next::Ask { redirect_uri, state } => (redirect_uri, state),
            };
            let path = request.with(&redirect_uri, &state, prompt_none);
            examination.take(&self.send(request, path).await);
        }
    }

    /// One question, in its turn.
    async fn send(&self, request: &AuthorizationRequest, path: String) -> Result<Answer, Fault> {
        let mut permit = self
            .pace
            .turn(&request.server.host)
            .await
            .map_err(|refusal| Fault::new(Step::Connect, Reason::OutOfTime, refusal.words()))?;
        let mut answer = Box::pin(self.exchange(request, path)).await;
        if let Err(fault) = &mut answer
            && fault.reason == Reason::NotAllowed
        {
            fault.text.push_str("; `preflight.private_networks` does not allow it");
        }
        if answer.as_ref().is_ok_and(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS) {
            permit.close();
        }
        answer
    }

    async fn exchange(
        &self,
        request: &AuthorizationRequest,
        path_and_query: String,
    ) -> Result<Answer, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/html,*/*;q=0.8"));
        headers.insert(header::ACCEPT_LANGUAGE, HeaderValue::from_static("en"));
        let question = Request { method: Method::GET, path_and_query, headers, body: Bytes::new() };
        self.outbound.ask(&request.server, Offer::Both, &question).await
    }
}

/// One test without its I/O: it says what to ask, takes what is answered, and comes to a finding.
/// Nothing that a provider answers makes it panic, or ask more than eight times.
pub struct Examination<'s> {
    inquiry: &'s Inquiry,
    provider: Provider,
    /// The two controls; `None` where the new callback is no URL.
    bogus: Option<(String, String)>,
    probes: Probes,
    asked: Option<Asking>,
}

/// What an [`Examination`] wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The authorization request with this redirect URI and this state, and its answer.
    Ask {
        /// The redirect URI.
        redirect_uri: String,
        /// A state that nobody has seen.
        state: String,
    },
    /// Nothing more.
    Is(Finding),
}

struct Asking {
    question: Question,
    redirect_uri: String,
    state: String,
}

impl<'s> Examination<'s> {
    /// Nothing is asked yet.
    pub fn new(inquiry: &'s Inquiry) -> Self {
        let provider = Provider::of(&inquiry.template);
        let bogus = bogus(&inquiry.new);
        Self { inquiry, provider, bogus, probes: Probes::default(), asked: None }
    }

    /// What to ask next, or what was found.
    pub fn wants(&mut self) -> Next {
        let Some((path, host)) = &self.bogus else {
            let why = Untestable::NotAUrl;
            return Next::Is(Finding {
                state: Err(why),
                evidence: "the new callback is no URL".into(),
            });
        };
        let question = match judge(&self.probes) {
            Ruling::Is(state, evidence) => return Next::Is(Finding { state: Ok(state), evidence }),
            Ruling::Ask(question) => question,
        };
        let redirect_uri = match question {
            Question::Old => &self.inquiry.old,
            Question::Host => host,
            Question::New => &self.inquiry.new,
            Question::Path => path,
        };
        let (redirect_uri, state) = (redirect_uri.to_owned(), fresh_state());
        let asking = Asking { question, redirect_uri: redirect_uri.clone(), state: state.clone() };
        self.asked = Some(asking);
        Next::Ask { redirect_uri, state }
    }

    /// Takes the answer to what [`Examination::wants`] wanted last.
    pub fn take(&mut self, answer: &Result<Answer, Fault>) {
        let Some(Asking { question, redirect_uri, state }) = self.asked.take() else { return };
        let Inquiry { old, new, url, .. } = self.inquiry;
        let (path, host) = self.bogus.as_ref().map_or(("", ""), |(path, host)| (path, host));
        let all = [old, host, new, path];
        let asked = Asked { redirect_uri: &redirect_uri, all, state: &state, url };
        let Provider { markers, mismatch_status, .. } = self.provider;
        self.probes.take(question, Shape::of(answer, asked, markers, mismatch_status));
    }
}

/// The two controls, each unlike the new callback in one thing: another path on its host, and its
/// path on another host, so that what looks at one of them alone is seen. Not below `.invalid`:
/// Google then answers before it compares.
fn bogus(new: &str) -> Option<(String, String)> {
    let new = Url::parse(new).ok()?;
    let path = new.join(&format!("/{}", fresh_nonce())).ok()?;
    let label: String = fresh_nonce().chars().take(12).collect();
    let host = format!("https://{label}.example.com{}", &new[Position::BeforePath..]);
    Some((path.into(), host))
}

impl Refusal {
    const fn words(self) -> &'static str {
        match self {
            Self::Closed => "its host answered 429 before, and is left alone",
            Self::Cap => "the cap of questions is reached",
        }
    }
}

#[cfg(test)]
mod recorded;
