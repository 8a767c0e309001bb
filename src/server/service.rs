//! From a request to its answer.

use super::activity::Activity;
use super::answer::{self, Answer, InFlight};
use super::endpoints::{SELF_CHECK, is_challenge, is_self_check};
use super::shared::Shared;
use super::snapshot::{Snapshot, name};
use super::{client, endpoints, origin};
use crate::observe::{Deadline, Label, Limit, ListenerKind, Status, micros};
use crate::redirect::{self, Decision, Form, Outcome};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio_util::sync::CancellationToken;

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
                    let answer = endpoints::self_check(&edge.shared, &snapshot, &head).await;
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
            ListenerKind::Admin => Handling::Answer(endpoints::admin(&self.shared, head)),
            ListenerKind::Http if is_challenge(snapshot, head) => {
                Handling::Answer(endpoints::challenge(&self.shared, head))
            }
            ListenerKind::Http if snapshot.http_leads_to_https() => Handling::Answer(
                endpoints::health(&self.shared, snapshot, head)
                    .unwrap_or_else(|| self.to_https(snapshot, head)),
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
                    answer::text(StatusCode::SERVICE_UNAVAILABLE, "not before the user is here")
                }
                Decision::QueryTooLong => self.query_too_long(),
                Decision::Malformed => answer::text(StatusCode::BAD_REQUEST, "bad request"),
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

    /// Where no route answers: a page, an endpoint, or nothing.
    fn elsewhere(&self, snapshot: &Snapshot, head: &Parts, nothing: StatusCode) -> Answer {
        let host = redirect::requested_host(head.version, &head.uri, &head.headers);
        let host = host.ok().flatten();
        if let Some((_, page)) = snapshot.settings.pages.find(host.as_deref(), head.uri.path()) {
            return answer::reading(head, || {
                answer::typed(StatusCode::OK, page.content_type.clone(), page.body.clone())
            });
        }
        if head.uri.path() == SELF_CHECK && !snapshot.has_admin() {
            return answer::allow(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD");
        }
        endpoints::health(&self.shared, snapshot, head).unwrap_or_else(|| {
            answer::text(
                nothing,
                if nothing == StatusCode::NOT_FOUND { "not found" } else { "not a host of ours" },
            )
        })
    }

    /// Sends a plain request to the same path on the https origin, query byte for byte.
    fn to_https(&self, snapshot: &Snapshot, head: &Parts) -> Answer {
        let Ok(host) = redirect::requested_host(head.version, &head.uri, &head.headers) else {
            return answer::text(StatusCode::BAD_REQUEST, "bad request");
        };
        if head.uri.query().map_or(0, str::len) > snapshot.settings.limits.query_bytes {
            return self.query_too_long();
        }
        let Some(origin) = origin::https_for(host.as_deref(), &snapshot.settings, &snapshot.bound)
        else {
            return answer::text(StatusCode::MISDIRECTED_REQUEST, "not a host of ours");
        };
        let rest = head.uri.path_and_query().map_or("/", |rest| rest.as_str());
        match HeaderValue::from_maybe_shared(Bytes::from(format!("{origin}{rest}"))) {
            Ok(location) if rest.starts_with('/') => {
                answer::located(StatusCode::PERMANENT_REDIRECT, location)
            }
            _ => answer::text(StatusCode::BAD_REQUEST, "bad request"),
        }
    }

    fn query_too_long(&self) -> Answer {
        self.shared.metrics.limits.count(Limit::QueryBytes);
        answer::text(StatusCode::URI_TOO_LONG, "the query is too long")
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
            return (answer::text(StatusCode::BAD_REQUEST, "bad request"), None);
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
            Ok(Err(_)) => (answer::text(StatusCode::BAD_REQUEST, "bad request"), None),
            Err(_) => {
                self.shared.metrics.deadlines.count(Deadline::Body);
                (answer::text(StatusCode::REQUEST_TIMEOUT, "the form did not arrive"), None)
            }
        }
    }

    fn form_too_large(&self) -> Answer {
        self.shared.metrics.limits.count(Limit::FormBytes);
        answer::text(StatusCode::PAYLOAD_TOO_LARGE, "the form is too large")
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
                client = %client::address(self.peer, &snapshot.settings.listen, &head.headers),
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
        Err(_) => (answer::text(StatusCode::BAD_REQUEST, "not a form"), None),
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
