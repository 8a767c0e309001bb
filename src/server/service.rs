//! From a request to its response.

use super::context::Context as Connection;
use super::endpoints::{SELF_CHECK, SelfCheckRequest, is_challenge, is_self_check};
use super::handle::Handle;
use super::response::{self, BodyGuard, Response};
use super::snapshot::{Snapshot, route_name};
use super::state::{Action, Event, Pending, arrival_timeout};
use super::{client, endpoints, origin};
use crate::config::Limits;
use crate::observe::{Deadline, InternalRequest, Label, Limit, ListenerKind, Status, micros};
use crate::redirect::{self, Decision, Form, Outcome};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use std::convert::Infallible;
use std::mem;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::time::timeout_at;

/// Responds to the requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct CallbackService {
    connection: Arc<Connection>,
}

/// What is stored of a request until its response is ready: nothing that the client can make large.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    started: Instant,
    method: &'static str,
    version: Version,
    /// The client's address as the log shows it.
    client: IpAddr,
    /// HTTP/1: the connection ends after this response.
    ends: bool,
    purpose: Purpose,
}

/// Who sends a request, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Client,
    /// The self-check of this process, or of a replica.
    Probe,
    /// A health check, with its path.
    Health(&'static str),
    /// A scrape, a request for the self-check, or anything else on the admin listener.
    Admin(Option<&'static str>),
}

/// For the metrics and the log: the position of the route, and the outcome of a redirect by parameter
/// names.
#[derive(Clone, Copy, Debug, Default)]
struct Matched {
    position: Option<usize>,
    outcome: Option<Outcome>,
}

/// Why a request is not redirected, for the log.
#[derive(Clone, Copy)]
struct Rejection(&'static str);

/// How to respond to a request, decided by its head.
enum Handling {
    Response(Response, Matched),
    Form(Form),
    SelfCheck(SelfCheckRequest),
}

impl Service<Request<Incoming>> for CallbackService {
    type Response = Response;
    type Error = Infallible;
    type Future = Responding;

    fn call(&self, request: Request<Incoming>) -> Responding {
        let connection = &*self.connection;
        let started = Instant::now();
        if connection.handle.on_at(Event::Request, started) == Action::Refuse {
            return Responding::Never;
        }
        let snapshot = connection.snapshot();
        let (mut head, body) = request.into_parts();
        let exchange = connection.exchange(&snapshot, &head, &body, started);
        let (response, matched) = match connection.decide(&snapshot, &mut head) {
            Handling::Response(response, matched) => (response, matched),
            Handling::Form(form) => {
                let query = form.query().map_or(0, str::len);
                let announced = body.size_hint().upper().unwrap_or(u64::MAX);
                let limit = snapshot.settings.limits.form_bytes;
                let bytes = query + usize::try_from(announced).unwrap_or(limit).min(limit);
                let position = Some(form.position);
                let Some(pending) = self.pending(Pending::Form { bytes }) else {
                    return connection.refuse_pending(&snapshot, &exchange, position);
                };
                let snapshot = Arc::clone(&snapshot);
                return Responding::Later(Box::pin(async move {
                    let connection = Arc::clone(&pending.connection);
                    let (response, matched) = connection.convert(&snapshot, form, body).await;
                    pending.finish(&snapshot, &exchange, response, matched)
                }));
            }
            Handling::SelfCheck(request) => {
                let Some(pending) = self.pending(Pending::SelfCheck) else {
                    return connection.refuse_pending(&snapshot, &exchange, None);
                };
                let snapshot = Arc::clone(&snapshot);
                return Responding::Later(Box::pin(async move {
                    let response = request.respond(&pending.connection.shared).await;
                    pending.finish(&snapshot, &exchange, response, Matched::default())
                }));
            }
        };
        // It is there at once; no time has passed.
        let response = connection.finish(&snapshot, &exchange, response, matched, started);
        Responding::Now(Some(response))
    }
}

impl CallbackService {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }

    pub(super) fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.connection.handle)
    }

    /// The limits of a head: bytes and fields.
    pub(super) fn head_limits(&self) -> (usize, usize) {
        let limits = &self.connection.snapshot().settings.limits;
        (limits.header_bytes, limits.header_fields)
    }

    /// A response that takes time, unless the connection awaits too many already.
    fn pending(&self, kind: Pending) -> Option<PendingResponse> {
        if self.connection.handle.on(Event::Pending(kind)) == Action::Refuse {
            self.connection.shared.metrics.limits.count(Limit::PendingRequests);
            return None;
        }
        Some(PendingResponse { connection: Arc::clone(&self.connection), kind, finished: false })
    }
}

/// A response that takes time. Dropping it ends it, also when the client cancels its request.
struct PendingResponse {
    connection: Arc<Connection>,
    kind: Pending,
    finished: bool,
}

impl PendingResponse {
    fn finish(
        mut self,
        snapshot: &Snapshot,
        exchange: &Exchange,
        response: Response,
        matched: Matched,
    ) -> Response {
        self.finished = true;
        let now = Instant::now();
        self.connection.handle.on_at(Event::Completed(self.kind), now);
        self.connection.finish(snapshot, exchange, response, matched, now)
    }
}

impl Drop for PendingResponse {
    fn drop(&mut self) {
        if !self.finished {
            self.connection.handle.on(Event::Completed(self.kind));
            self.connection.handle.on(Event::Responded { last: false });
        }
    }
}

impl Connection {
    fn exchange(
        &self,
        snapshot: &Snapshot,
        head: &Parts,
        body: &Incoming,
        started: Instant,
    ) -> Exchange {
        // What is left of a body must not be taken for the next request, and a body that was read may
        // have had a second framing: hyper drops a `Content-Length` next to `Transfer-Encoding`
        // (RFC 9112 §6.3). See also `scan::HeadScanner`.
        let ends = head.version < Version::HTTP_2
            && (!body.is_end_stream() || has_body(head) || requests_close(head));
        let client = if snapshot.logs_requests() {
            client::address(self.client, &snapshot.settings.listen, &head.headers)
        } else {
            self.client
        };
        let (method, version) = (method(&head.method), head.version);
        let purpose = self.purpose(snapshot, head);
        Exchange { started, method, version, client, ends, purpose }
    }

    fn purpose(&self, snapshot: &Snapshot, head: &Parts) -> Purpose {
        let is_admin = self.kind == ListenerKind::Admin;
        if is_admin || !snapshot.has_admin() {
            match head.uri.path() {
                "/healthz" => return Purpose::Health("/healthz"),
                "/readyz" => return Purpose::Health("/readyz"),
                SELF_CHECK => return Purpose::Admin(Some(SELF_CHECK)),
                "/metrics" if is_admin => return Purpose::Admin(Some("/metrics")),
                _ if is_admin => return Purpose::Admin(None),
                _ => {}
            }
        }
        if self.shared.probes.recognise(snapshot.probe_key.as_ref(), &head.headers) {
            Purpose::Probe
        } else {
            Purpose::Client
        }
    }

    fn refuse_pending(
        &self,
        snapshot: &Snapshot,
        exchange: &Exchange,
        position: Option<usize>,
    ) -> Responding {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let response = response::text(status, "too many requests at the same time");
        let response = rejected("too_many_pending", response);
        let matched = Matched { position, outcome: None };
        Responding::Now(Some(self.finish(snapshot, exchange, response, matched, exchange.started)))
    }

    /// A redirect takes the memory of the fields.
    fn decide(&self, snapshot: &Snapshot, head: &mut Parts) -> Handling {
        // HTTP/1 counts the fields while it parses them, HTTP/2 only their bytes.
        if head.headers.len() > snapshot.settings.limits.header_fields {
            self.shared.metrics.limits.count(Limit::HeaderBytes);
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            let response = response::text(status, "too many header fields");
            return respond_with(rejected("header_fields", response));
        }
        match self.kind {
            ListenerKind::Admin if is_self_check(head) => self_check(snapshot, head),
            ListenerKind::Admin => respond_with(endpoints::admin(&self.shared, head)),
            ListenerKind::Http if is_challenge(snapshot, head) => {
                respond_with(endpoints::challenge(&self.shared, head))
            }
            ListenerKind::Http if snapshot.redirects_http_to_https() => respond_with(
                endpoints::health(&self.shared, snapshot, head)
                    .unwrap_or_else(|| self.to_https(snapshot, head)),
            ),
            ListenerKind::Http | ListenerKind::Https => self.public(snapshot, head),
        }
    }

    fn public(&self, snapshot: &Snapshot, head: &mut Parts) -> Handling {
        let settings = &snapshot.settings;
        let response = match redirect::decide(&settings.routes, settings.limits.query_bytes, head) {
            Decision::Redirect(redirect) => {
                let outcome = Outcome::of(head.uri.query().unwrap_or_default());
                let matched = Matched::redirected(redirect.position, outcome);
                let memory = mem::take(&mut head.headers);
                return Handling::Response(response::redirect(redirect, memory), matched);
            }
            Decision::ReadForm(form) => return Handling::Form(form),
            Decision::MethodNotAllowed(allow) => {
                rejected("method", response::allow(StatusCode::METHOD_NOT_ALLOWED, allow))
            }
            Decision::Options(allow) => response::allow(StatusCode::NO_CONTENT, allow),
            Decision::Prefetch => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                rejected("prefetch", response::text(status, "prefetch refused"))
            }
            Decision::QueryTooLong => self.query_too_long(),
            Decision::Malformed => malformed(),
            Decision::UnknownPath | Decision::UnknownHost
                if is_self_check(head) && !snapshot.has_admin() =>
            {
                return self_check(snapshot, head);
            }
            Decision::UnknownPath => self.without_route(snapshot, head, StatusCode::NOT_FOUND),
            Decision::UnknownHost => {
                self.without_route(snapshot, head, StatusCode::MISDIRECTED_REQUEST)
            }
        };
        // Rare, and only for the log.
        let position = snapshot.logs_requests().then(|| position_of(snapshot, head)).flatten();
        Handling::Response(response, Matched { position, outcome: None })
    }

    /// Where no route matches: a page, an endpoint, or this status.
    fn without_route(&self, snapshot: &Snapshot, head: &Parts, otherwise: StatusCode) -> Response {
        let host = redirect::requested_host(head.version, &head.uri, &head.headers);
        let host = host.ok().flatten();
        if let Some((_, page)) = snapshot.settings.pages.find(host.as_deref(), head.uri.path()) {
            return response::get_or_head(head, || {
                response::typed(StatusCode::OK, page.content_type.clone(), page.body.clone())
            });
        }
        if head.uri.path() == SELF_CHECK && !snapshot.has_admin() {
            return response::allow(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD");
        }
        endpoints::health(&self.shared, snapshot, head).unwrap_or_else(|| {
            if otherwise == StatusCode::NOT_FOUND {
                rejected("unknown_path", response::text(otherwise, "not found"))
            } else {
                unknown_host()
            }
        })
    }

    /// Redirects a plain request to the same path on the https origin, with its query byte for byte.
    fn to_https(&self, snapshot: &Snapshot, head: &Parts) -> Response {
        let Ok(host) = redirect::requested_host(head.version, &head.uri, &head.headers) else {
            return malformed();
        };
        if head.uri.query().map_or(0, str::len) > snapshot.settings.limits.query_bytes {
            return self.query_too_long();
        }
        let Some(origin) = origin::https_for(host.as_deref(), &snapshot.settings, &snapshot.bound)
        else {
            return unknown_host();
        };
        let rest = head.uri.path_and_query().map_or("/", |rest| rest.as_str());
        match HeaderValue::from_maybe_shared(Bytes::from(format!("{origin}{rest}"))) {
            Ok(location) if rest.starts_with('/') => {
                response::redirect_to(StatusCode::PERMANENT_REDIRECT, location, HeaderMap::new())
            }
            _ => malformed(),
        }
    }

    fn query_too_long(&self) -> Response {
        self.shared.metrics.limits.count(Limit::QueryBytes);
        let response = response::text(StatusCode::URI_TOO_LONG, "the query is too long");
        rejected("query_too_long", response)
    }

    /// Reads a form and turns it into a redirect.
    async fn convert(
        &self,
        snapshot: &Snapshot,
        form: Form,
        body: Incoming,
    ) -> (Response, Matched) {
        match self.read_form(&snapshot.settings.limits, body).await {
            Ok(body) => redirect_form(snapshot, form, &body),
            Err(response) => (response, Matched { position: Some(form.position), outcome: None }),
        }
    }

    async fn read_form(&self, limits: &Limits, mut body: Incoming) -> Result<Vec<u8>, Response> {
        let limit = limits.form_bytes;
        if body.size_hint().lower() > limit as u64 {
            return Err(self.form_too_large());
        }
        let started = Instant::now();
        let mut form = Vec::new();
        loop {
            let deadline = started + arrival_timeout(form.len(), limits);
            match timeout_at(deadline.into(), body.frame()).await {
                Ok(None) => return Ok(form),
                Ok(Some(Ok(frame))) => {
                    let data = frame.into_data().unwrap_or_default();
                    if data.len() > limit - form.len() {
                        return Err(self.form_too_large());
                    }
                    form.extend_from_slice(&data);
                }
                Ok(Some(Err(_))) => {
                    let response = response::text(StatusCode::BAD_REQUEST, "bad request");
                    return Err(rejected("form_incomplete", response));
                }
                Err(_) => {
                    self.shared.metrics.deadlines.count(Deadline::Body);
                    let status = StatusCode::REQUEST_TIMEOUT;
                    let response = response::text(status, "timed out waiting for the form");
                    return Err(rejected("form_timeout", response));
                }
            }
        }
    }

    fn form_too_large(&self) -> Response {
        self.shared.metrics.limits.count(Limit::FormBytes);
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        rejected("form_too_large", response::text(status, "the form is too large"))
    }

    /// Completes a response that is ready at this time: HSTS, the end of the connection, its count and
    /// its log line.
    fn finish(
        &self,
        snapshot: &Snapshot,
        exchange: &Exchange,
        mut response: Response,
        matched: Matched,
        at: Instant,
    ) -> Response {
        if let (ListenerKind::Https, Some(hsts)) = (self.kind, &snapshot.hsts) {
            response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        // RFC 9110 §9.3.2. hyper leaves the content away over HTTP/1 only.
        if exchange.method == "HEAD" && exchange.version == Version::HTTP_2 {
            response.body_mut().clear();
        }
        if !response.body().is_empty() {
            response.body_mut().set_guard(BodyGuard::new(&self.handle));
        }
        if self.handle.responded(exchange.ends, at) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.count(snapshot, exchange.purpose, response.status(), matched);
        let logged = match exchange.purpose {
            Purpose::Client => snapshot.logs_requests(),
            _ => snapshot.logs_internal_requests(),
        };
        if logged {
            self.log(snapshot, exchange, &response, matched);
        }
        response
    }

    fn count(&self, snapshot: &Snapshot, purpose: Purpose, status: StatusCode, matched: Matched) {
        let metrics = &self.shared.metrics;
        metrics.internal_requests.count(match purpose {
            Purpose::Client => {
                metrics.requests.count(Status::from(status));
                if let Matched { position: Some(position), outcome: Some(outcome) } = matched {
                    snapshot.count_redirect(position, outcome);
                }
                return;
            }
            Purpose::Probe => {
                if let Matched { position: Some(position), outcome: Some(_) } = matched {
                    snapshot.count_probe(position);
                }
                InternalRequest::Probe
            }
            Purpose::Health(_) => InternalRequest::Health,
            Purpose::Admin(_) => InternalRequest::Admin,
        });
    }

    fn log(&self, snapshot: &Snapshot, exchange: &Exchange, response: &Response, matched: Matched) {
        let route = matched.position.and_then(|it| snapshot.settings.routes.items().get(it));
        let route = route.map(route_name);
        let (outcome, path) = match exchange.purpose {
            Purpose::Client => (matched.outcome.map(Outcome::name), None),
            Purpose::Probe => (Some("probe"), None),
            Purpose::Health(path) => (None, Some(path)),
            Purpose::Admin(path) => (None, path),
        };
        // The level is part of a call site.
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    event = "request",
                    listener = self.kind.value(),
                    client = %exchange.client,
                    method = exchange.method,
                    protocol = protocol(exchange.version),
                    route = route.as_deref(),
                    path,
                    outcome,
                    reason = response.extensions().get().map(|Rejection(reason)| reason),
                    status = response.status().as_u16(),
                    duration_us = micros(exchange.started.elapsed()),
                )
            };
        }
        if exchange.purpose == Purpose::Client {
            log!(info);
        } else {
            log!(debug);
        }
    }
}

impl Matched {
    const fn redirected(position: usize, outcome: Outcome) -> Self {
        Self { position: Some(position), outcome: Some(outcome) }
    }
}

/// The position of the route that a request matches.
fn position_of(snapshot: &Snapshot, head: &Parts) -> Option<usize> {
    let host = redirect::requested_host(head.version, &head.uri, &head.headers).ok()?;
    Some(snapshot.settings.routes.find(host.as_deref(), head.uri.path())?.0)
}

fn respond_with(response: Response) -> Handling {
    Handling::Response(response, Matched::default())
}

/// The reason is a constant, never text from the request.
fn rejected(reason: &'static str, mut response: Response) -> Response {
    response.extensions_mut().insert(Rejection(reason));
    response
}

fn malformed() -> Response {
    rejected("malformed", response::text(StatusCode::BAD_REQUEST, "bad request"))
}

fn unknown_host() -> Response {
    rejected("unknown_host", response::text(StatusCode::MISDIRECTED_REQUEST, "unknown host"))
}

fn self_check(snapshot: &Snapshot, head: &Parts) -> Handling {
    match SelfCheckRequest::of(snapshot, head) {
        Ok(request) => Handling::SelfCheck(request),
        Err(response) => respond_with(*response),
    }
}

/// Turns a form that was read into a redirect.
fn redirect_form(snapshot: &Snapshot, form: Form, body: &[u8]) -> (Response, Matched) {
    let position = form.position;
    let outcome = match Outcome::of(form.query().unwrap_or_default()) {
        Outcome::Other => Outcome::of(std::str::from_utf8(body).unwrap_or_default()),
        known => known,
    };
    if let Ok(redirect) = form.redirect(&snapshot.settings.routes, body) {
        (response::redirect(redirect, HeaderMap::new()), Matched::redirected(position, outcome))
    } else {
        let response = response::text(StatusCode::BAD_REQUEST, "malformed form");
        let matched = Matched { position: Some(position), outcome: None };
        (rejected("form_malformed", response), matched)
    }
}

/// Whether the head announces a body (RFC 9112 §6).
fn has_body(head: &Parts) -> bool {
    head.headers.contains_key(TRANSFER_ENCODING)
        || head.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// Whether the client ends the connection with this request (RFC 9112 §9.3, §9.6).
fn requests_close(head: &Parts) -> bool {
    match head.version {
        Version::HTTP_11 => connection_has(&head.headers, b"close"),
        _ => !connection_has(&head.headers, b"keep-alive"),
    }
}

fn connection_has(headers: &HeaderMap, option: &[u8]) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| {
        let mut options = value.as_bytes().split(|&byte| byte == b',');
        options.any(|one| one.trim_ascii().eq_ignore_ascii_case(option))
    })
}

/// The method in logs: one of these names, never the client's text.
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

/// The response, mostly ready at once.
pub(super) enum Responding {
    Now(Option<Response>),
    Later(Pin<Box<dyn Future<Output = Response> + Send>>),
    /// The connection has sent its last response.
    Never,
}

impl Future for Responding {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(response) => {
                response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response)))
            }
            Self::Later(response) => response.as_mut().poll(cx).map(Ok),
            Self::Never => Poll::Pending,
        }
    }
}
