//! From a request to its answer.

use super::activity::Activity;
use super::answer::{self, Answer, InFlight};
use super::shared::Shared;
use super::snapshot::{Snapshot, name};
use super::{client, origin};
use crate::observe::{Deadline, Label, Limit, ListenerKind, Sampled, Status, micros};
use crate::redirect::{self, Decision, Form, Outcome};
use crate::report;
use crate::tls::acme::CHALLENGE_PATH;
use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY,
    STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use secrecy::ExposeSecret as _;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio_util::sync::CancellationToken;

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

const SELF_CHECK: &str = "/self-check";
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Answers the requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    pub(super) shared: Arc<Shared>,
    pub(super) activity: Arc<Activity>,
    pub(super) kind: ListenerKind,
    pub(super) peer: IpAddr,
    /// Cancelled when the connection takes no further requests.
    pub(super) drain: CancellationToken,
}

impl Service<Request<Incoming>> for Edge {
    type Response = Answer;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let started = Instant::now();
        self.activity.arrived();
        let snapshot = self.shared.snapshot.load();
        let (head, body) = request.into_parts();
        let (answer, redirected) = match self.decide(&snapshot, &head) {
            Handling::Answer(answer) => (answer, None),
            Handling::Redirect(answer, position, outcome) => (answer, Some((position, outcome))),
            Handling::SelfCheck => {
                let in_flight = InFlight::self_timed(&self.activity);
                let edge = self.clone();
                let snapshot = Arc::clone(&snapshot);
                return Answering::Later(Box::pin(async move {
                    let answer = edge.self_check(&snapshot, &head).await;
                    drop(in_flight);
                    edge.finish(&snapshot, &head, answer, None, !has_body(&head), started)
                }));
            }
            Handling::Form => {
                let in_flight = InFlight::self_timed(&self.activity);
                let edge = self.clone();
                let snapshot = Arc::clone(&snapshot);
                return Answering::Later(Box::pin(async move {
                    let (answer, redirected) = edge.convert(&snapshot, &head, body).await;
                    drop(in_flight);
                    edge.finish(&snapshot, &head, answer, redirected, true, started)
                }));
            }
        };
        let unread = !body.is_end_stream() || has_body(&head);
        Answering::Now(Some(self.finish(&snapshot, &head, answer, redirected, !unread, started)))
    }
}

/// What a request's head leads to. The position is the route's.
enum Handling {
    Answer(Answer),
    Redirect(Answer, usize, Outcome),
    Form,
    SelfCheck,
}

impl Edge {
    fn decide(&self, snapshot: &Snapshot, head: &Parts) -> Handling {
        match self.kind {
            ListenerKind::Admin if is_self_check(head) => Handling::SelfCheck,
            ListenerKind::Admin => Handling::Answer(self.admin(head)),
            ListenerKind::Http if is_challenge(snapshot, head) => {
                Handling::Answer(self.challenge(head))
            }
            ListenerKind::Http if snapshot.http_leads_to_https() => Handling::Answer(
                self.health(snapshot, head).unwrap_or_else(|| self.to_https(snapshot, head)),
            ),
            ListenerKind::Http | ListenerKind::Https => self.public(snapshot, head),
        }
    }

    fn public(&self, snapshot: &Snapshot, head: &Parts) -> Handling {
        let settings = &snapshot.settings;
        Handling::Answer(
            match redirect::decide(&settings.routes, settings.limits.query_bytes, head) {
                Decision::Redirect(redirect) => {
                    let outcome = Outcome::of(head.uri.query().unwrap_or_default());
                    let position = redirect.position;
                    return Handling::Redirect(answer::redirect(redirect), position, outcome);
                }
                Decision::ReadForm(_) => return Handling::Form,
                Decision::MethodNotAllowed(allow) => {
                    answer::allow(StatusCode::METHOD_NOT_ALLOWED, allow)
                }
                Decision::Options(allow) => answer::allow(StatusCode::NO_CONTENT, allow),
                Decision::Prefetch => {
                    answer::text(StatusCode::SERVICE_UNAVAILABLE, "not before the user is here\n")
                }
                Decision::QueryTooLong => self.query_too_long(),
                Decision::Malformed => answer::text(StatusCode::BAD_REQUEST, "bad request\n"),
                Decision::UnknownPath | Decision::UnknownHost
                    if is_self_check(head) && !snapshot.has_admin() =>
                {
                    return Handling::SelfCheck;
                }
                Decision::UnknownPath => self.elsewhere(snapshot, head, StatusCode::NOT_FOUND),
                Decision::UnknownHost => {
                    self.elsewhere(snapshot, head, StatusCode::MISDIRECTED_REQUEST)
                }
            },
        )
    }

    /// The body that a directory looks for (RFC 8555 §8.3).
    fn challenge(&self, head: &Parts) -> Answer {
        let token = head.uri.path().strip_prefix(CHALLENGE_PATH).unwrap_or_default();
        match self.shared.board.challenges.body(token) {
            Some(body) => reading(head, || answer::typed(StatusCode::OK, OCTETS, body)),
            None => answer::text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    /// Where no route answers: a page, an endpoint, or nothing.
    fn elsewhere(&self, snapshot: &Snapshot, head: &Parts, nothing: StatusCode) -> Answer {
        let host = redirect::requested_host(head.version, &head.uri, &head.headers);
        let host = host.ok().flatten();
        if let Some((_, page)) = snapshot.settings.pages.find(host.as_deref(), head.uri.path()) {
            return reading(head, || {
                answer::typed(StatusCode::OK, page.content_type.clone(), page.body.clone())
            });
        }
        if head.uri.path() == SELF_CHECK && !snapshot.has_admin() {
            return answer::allow(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD");
        }
        self.health(snapshot, head).unwrap_or_else(|| {
            answer::text(
                nothing,
                if nothing == StatusCode::NOT_FOUND {
                    "not found\n"
                } else {
                    "not a host of ours\n"
                },
            )
        })
    }

    /// The health endpoints, unless they moved to the admin listener.
    fn health(&self, snapshot: &Snapshot, head: &Parts) -> Option<Answer> {
        if snapshot.has_admin() { None } else { self.health_at(head) }
    }

    fn health_at(&self, head: &Parts) -> Option<Answer> {
        match head.uri.path() {
            "/healthz" => Some(reading(head, || answer::text(StatusCode::OK, "ok\n"))),
            "/readyz" => Some(reading(head, || match self.shared.not_ready() {
                None => answer::text(StatusCode::OK, "ready\n"),
                Some(why) => answer::text(StatusCode::SERVICE_UNAVAILABLE, why),
            })),
            _ => None,
        }
    }

    fn admin(&self, head: &Parts) -> Answer {
        if let Some(answer) = self.health_at(head) {
            return answer;
        }
        match head.uri.path() {
            "/metrics" => reading(head, || {
                let text = self.shared.metrics.text(&Sampled {
                    connections: self.shared.slots.by_state(),
                    ready: self.shared.not_ready().is_none(),
                    lines_dropped: self.shared.log.dropped_lines(),
                });
                match text {
                    Ok(text) => answer::typed(StatusCode::OK, OPEN_METRICS, Bytes::from(text)),
                    Err(_) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode\n"),
                }
            }),
            SELF_CHECK => answer::allow(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"),
            _ => answer::text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    async fn self_check(&self, snapshot: &Snapshot, head: &Parts) -> Answer {
        if let Some(token) = &snapshot.settings.self_check.token
            && !presents(head, token.expose_secret().as_bytes())
        {
            let mut answer = answer::text(StatusCode::UNAUTHORIZED, "a token is required\n");
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return answer;
        }
        let in_force = self.shared.snapshot.load_full();
        let Some(outcome) = self.shared.self_check.outcome(in_force).await else {
            return answer::text(StatusCode::SERVICE_UNAVAILABLE, "the check came to no end\n");
        };
        let status = match outcome.verdict() {
            report::Verdict::Pass | report::Verdict::Unconfirmed => StatusCode::OK,
            report::Verdict::Fail | report::Verdict::Error => StatusCode::SERVICE_UNAVAILABLE,
        };
        if wants_html(head) {
            let page = report::html(&outcome.reports);
            let mut answer = answer::typed(status, HTML, Bytes::from(page));
            let headers = answer.headers_mut();
            headers
                .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(report::html_policy()));
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            return answer;
        }
        match report::json(&outcome.reports) {
            Ok(json) => answer::typed(status, JSON, Bytes::from(json + "\n")),
            Err(_) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode\n"),
        }
    }

    /// Sends a plain request to the same path on the https origin, query byte for byte.
    fn to_https(&self, snapshot: &Snapshot, head: &Parts) -> Answer {
        let Ok(host) = redirect::requested_host(head.version, &head.uri, &head.headers) else {
            return answer::text(StatusCode::BAD_REQUEST, "bad request\n");
        };
        if head.uri.query().map_or(0, str::len) > snapshot.settings.limits.query_bytes {
            return self.query_too_long();
        }
        let Some(origin) = origin::https_for(host.as_deref(), &snapshot.settings, &snapshot.bound)
        else {
            return answer::text(StatusCode::MISDIRECTED_REQUEST, "not a host of ours\n");
        };
        let rest = head.uri.path_and_query().map_or("/", |rest| rest.as_str());
        match HeaderValue::from_maybe_shared(Bytes::from(format!("{origin}{rest}"))) {
            Ok(location) if rest.starts_with('/') => {
                answer::located(StatusCode::PERMANENT_REDIRECT, location)
            }
            _ => answer::text(StatusCode::BAD_REQUEST, "bad request\n"),
        }
    }

    fn query_too_long(&self) -> Answer {
        self.shared.metrics.limits.count(Limit::QueryBytes);
        answer::text(StatusCode::URI_TOO_LONG, "the query is too long\n")
    }

    /// Reads a form and turns it into a redirect.
    async fn convert(
        &self,
        snapshot: &Snapshot,
        head: &Parts,
        body: Incoming,
    ) -> (Answer, Option<(usize, Outcome)>) {
        let settings = &snapshot.settings;
        let Decision::ReadForm(form) =
            redirect::decide(&settings.routes, settings.limits.query_bytes, head)
        else {
            return (answer::text(StatusCode::BAD_REQUEST, "bad request\n"), None);
        };
        let limit = settings.limits.form_bytes;
        if body.size_hint().lower() > limit as u64 {
            return (self.form_too_large(), None);
        }
        let read = Limited::new(body, limit).collect();
        match tokio::time::timeout(settings.limits.request_timeout, read).await {
            Ok(Ok(form_body)) => redirect_form(form, &form_body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                (self.form_too_large(), None)
            }
            Ok(Err(_)) => (answer::text(StatusCode::BAD_REQUEST, "bad request\n"), None),
            Err(_) => {
                self.shared.metrics.deadlines.count(Deadline::Body);
                (answer::text(StatusCode::REQUEST_TIMEOUT, "the form did not arrive\n"), None)
            }
        }
    }

    fn form_too_large(&self) -> Answer {
        self.shared.metrics.limits.count(Limit::FormBytes);
        answer::text(StatusCode::PAYLOAD_TOO_LARGE, "the form is too large\n")
    }

    /// What every answer gets: HSTS, the end of the connection, its count and its log line.
    fn finish(
        &self,
        snapshot: &Snapshot,
        head: &Parts,
        mut answer: Answer,
        redirected: Option<(usize, Outcome)>,
        body_read: bool,
        started: Instant,
    ) -> Answer {
        if let (ListenerKind::Https, Some(hsts)) = (self.kind, &snapshot.hsts) {
            answer.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        // What is left of a body must not be taken for the next request; see `guard::HeadScan`.
        // A form that was refused counts as left, and so does a chunked one: hyper drops a
        // `Content-Length` beside `Transfer-Encoding`, so a second framing (RFC 9112 §6.3) cannot
        // be ruled out.
        let clean = body_read
            && (redirected.is_some() || !has_body(head))
            && !head.headers.contains_key(TRANSFER_ENCODING);
        let last = self.drain.is_cancelled() || self.activity.is_last();
        if head.version < Version::HTTP_2 && (!clean || last) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if !answer.body().is_empty() {
            answer.body_mut().hold(InFlight::new(&self.activity));
        }
        let status = answer.status();
        self.shared.metrics.requests.count(Status::from(status));
        if let Some((position, outcome)) = redirected {
            snapshot.redirected(position, outcome);
        }
        if snapshot.settings.log.requests && tracing::enabled!(tracing::Level::INFO) {
            let route = redirected
                .and_then(|(position, _)| snapshot.settings.routes.items().get(position))
                .map(name);
            tracing::info!(
                event = "request",
                listener = self.kind.value(),
                client = %client::address(self.peer, &snapshot.settings.listen.trusted_proxies, &head.headers),
                method = method(&head.method),
                protocol = protocol(head.version),
                route = route.as_deref(),
                outcome = redirected.map(|(_, outcome)| outcome.name()),
                status = status.as_u16(),
                duration_us = micros(started.elapsed()),
            );
        }
        answer
    }
}

/// Turns a form that was read into a redirect.
fn redirect_form(form: Form<'_>, body: &[u8]) -> (Answer, Option<(usize, Outcome)>) {
    let outcome = match Outcome::of(form.query().unwrap_or_default()) {
        Outcome::Other => Outcome::of(std::str::from_utf8(body).unwrap_or_default()),
        told => told,
    };
    match form.redirect(body) {
        Ok(redirect) => {
            let position = redirect.position;
            (answer::redirect(redirect), Some((position, outcome)))
        }
        Err(_) => (answer::text(StatusCode::BAD_REQUEST, "not a form\n"), None),
    }
}

/// Whether the answer to an ACME challenge is asked for, of an edge that has some.
fn is_challenge(snapshot: &Snapshot, head: &Parts) -> bool {
    head.uri.path().starts_with(CHALLENGE_PATH)
        && snapshot.settings.tls.as_ref().is_some_and(|tls| tls.acme.is_some())
}

/// Whether the self-check is asked for.
fn is_self_check(head: &Parts) -> bool {
    head.uri.path() == SELF_CHECK && matches!(head.method, Method::GET | Method::HEAD)
}

/// Whether the request carries the bearer token (RFC 6750 §2.1). An empty token opens nothing.
fn presents(head: &Parts, token: &[u8]) -> bool {
    let presented = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let presented = presented.and_then(|value| {
        let (scheme, rest) = value.split_at_checked(b"Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(rest)
    });
    !token.is_empty()
        && presented.is_some_and(|presented| {
            aws_lc_rs::constant_time::verify_slices_are_equal(presented, token).is_ok()
        })
}

/// Whether a browser asks: it names HTML, programs name JSON or anything.
fn wants_html(head: &Parts) -> bool {
    head.headers.get_all(ACCEPT).iter().any(|value| {
        value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("text/html"))
    })
}

/// An endpoint that is only read.
fn reading(head: &Parts, answer: impl FnOnce() -> Answer) -> Answer {
    match head.method {
        Method::GET | Method::HEAD => answer(),
        _ => answer::allow(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"),
    }
}

/// Whether the head announces a body (RFC 9112 §6).
fn has_body(head: &Parts) -> bool {
    head.headers.contains_key(TRANSFER_ENCODING)
        || head.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// The method in logs: a name of ours, never the client's text.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "other",
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        _ => "HTTP/2",
    }
}

/// The answer, mostly there at once.
pub(super) enum Answering {
    Now(Option<Answer>),
    Later(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

impl Future for Answering {
    type Output = Result<Answer, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            // Polled again after it was ready: nobody does.
            Self::Now(answer) => {
                answer.take().map_or(Poll::Pending, |answer| Poll::Ready(Ok(answer)))
            }
            Self::Later(answer) => answer.as_mut().poll(cx).map(Ok),
        }
    }
}
