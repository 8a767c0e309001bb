//! Responses. Whatever is not stated here is in no response, except `Date`, which hyper adds
//! (RFC 9110 §6.6.1), and `Connection` where a connection ends or HTTP/1.0 asks that it does not.

use super::handle::Handle;
use super::state::Event;
use crate::redirect::Redirect;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const ZERO: HeaderValue = HeaderValue::from_static("0");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

pub(super) type Answer = Response<Content>;

pub(super) fn redirect(redirect: Redirect<'_>) -> Answer {
    located(redirect.status, redirect.location)
}

pub(super) fn located(status: StatusCode, location: HeaderValue) -> Answer {
    let mut answer = empty(status);
    answer.headers_mut().insert(LOCATION, location);
    answer
}

pub(super) fn empty(status: StatusCode) -> Answer {
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(CACHE_CONTROL, NO_STORE);
    if status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_LENGTH, ZERO);
    }
    assemble(status, headers, Bytes::new())
}

pub(super) fn allow(status: StatusCode, allow: &'static str) -> Answer {
    let mut answer = if status == StatusCode::NO_CONTENT {
        empty(status)
    } else {
        text(status, "method not allowed")
    };
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

/// A line for a person, the same for everybody: nothing of the request is in it.
pub(super) fn text(status: StatusCode, line: &str) -> Answer {
    typed(status, TEXT, Bytes::from(format!("{line}\n")))
}

pub(super) fn typed(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Answer {
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    assemble(status, headers, body)
}

/// Answers GET and HEAD, and refuses the rest.
pub(super) fn reading(head: &Parts, answer: impl FnOnce() -> Answer) -> Answer {
    match head.method {
        Method::GET | Method::HEAD => answer(),
        _ => allow(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"),
    }
}

fn assemble(status: StatusCode, headers: HeaderMap, body: Bytes) -> Answer {
    let mut answer = Response::new(Content { body: Full::new(body), held: None });
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

/// A complete body, whose request is in flight until it was handed over.
#[derive(Debug)]
pub(super) struct Content {
    body: Full<Bytes>,
    held: Option<BodyGuard>,
}

impl Content {
    pub(super) fn hold(&mut self, guard: BodyGuard) {
        self.held = Some(guard);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body that the client has to take; dropping it says that it was handed over.
#[derive(Debug)]
pub(super) struct BodyGuard(Arc<Handle>);

impl BodyGuard {
    pub(super) fn new(handle: &Arc<Handle>) -> Self {
        handle.on(Event::BodyStarted);
        Self(Arc::clone(handle))
    }
}

impl Drop for BodyGuard {
    fn drop(&mut self) {
        self.0.on(Event::BodyTaken);
    }
}
