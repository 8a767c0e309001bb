//! Responses. They have no other header fields than those set here and in `service`, except `Date`,
//! which hyper adds (RFC 9110 §6.6.1), and `Connection`, where a connection ends or an HTTP/1.0 client
//! requests `keep-alive`.

use super::handle::Handle;
use super::state::Event;
use crate::redirect::Redirect;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const ZERO: HeaderValue = HeaderValue::from_static("0");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The most fields of a request whose memory is kept. Browsers send fewer; a client that sends more, and does
/// not take its responses, would make the server keep it for each.
const MOST_KEPT: usize = 32;

pub(super) type Response = http::Response<ResponseBody>;

/// `memory` is the fields of the request: they are removed, and where they were is used again.
pub(super) fn redirect(redirect: Redirect<'_>, memory: HeaderMap) -> Response {
    redirect_to(redirect.status, redirect.location, memory)
}

/// The same to another URL.
pub(super) fn redirect_to(
    status: StatusCode,
    mut location: HeaderValue,
    memory: HeaderMap,
) -> Response {
    // HTTP/2: a literal that no proxy stores in a compression table (RFC 7541 §7.1.3), because it
    // contains a code. Output for debugging does not show it either.
    location.set_sensitive(true);
    let mut response = empty(status, memory);
    response.headers_mut().insert(LOCATION, location);
    response
}

fn empty(status: StatusCode, memory: HeaderMap) -> Response {
    let mut headers = if memory.len() > MOST_KEPT { HeaderMap::new() } else { memory };
    headers.clear();
    headers.insert(CACHE_CONTROL, NO_STORE);
    if status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_LENGTH, ZERO);
    }
    assemble(status, headers, Bytes::new())
}

pub(super) fn allow(status: StatusCode, allow: &'static str) -> Response {
    let mut response = if status == StatusCode::NO_CONTENT {
        empty(status, HeaderMap::new())
    } else {
        text(status, "method not allowed")
    };
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// A line for a person. It contains nothing of the request.
pub(super) fn text(status: StatusCode, line: &str) -> Response {
    typed(status, TEXT, Bytes::from(format!("{line}\n")))
}

pub(super) fn typed(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response {
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    assemble(status, headers, body)
}

/// Responds to GET and HEAD, and refuses other methods.
pub(super) fn get_or_head(head: &Parts, response: impl FnOnce() -> Response) -> Response {
    match head.method {
        Method::GET | Method::HEAD => response(),
        _ => allow(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"),
    }
}

fn assemble(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response {
    let mut response = http::Response::new(ResponseBody { body: Full::new(body), guard: None });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A complete body. Its request is in flight until the body is handed over.
#[derive(Debug)]
pub(super) struct ResponseBody {
    body: Full<Bytes>,
    guard: Option<BodyGuard>,
}

impl ResponseBody {
    /// Removes the content.
    pub(super) fn clear(&mut self) {
        self.body = Full::default();
    }

    pub(super) fn set_guard(&mut self, guard: BodyGuard) {
        self.guard = Some(guard);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Body for ResponseBody {
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

/// Counts a response body that the client has to take; dropping it reports that it was handed over.
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    /// The fields of a redirect for a request with so many names of fields, and so many values of each.
    fn redirected(names: usize, values: usize) -> HeaderMap {
        let mut memory = HeaderMap::new();
        for number in 0..names * values {
            let name = HeaderName::try_from(format!("x-{}", number % names)).unwrap();
            memory.append(name, HeaderValue::from_static("secret"));
        }
        let location = HeaderValue::from_static("https://h/p?code=1");
        let response = redirect_to(StatusCode::PERMANENT_REDIRECT, location, memory);
        response.into_parts().0.headers
    }

    #[test]
    fn a_redirect_has_no_field_of_its_request() {
        for (names, values) in [(0, 1), (1, 1), (20, 1), (10, 2), (200, 1)] {
            let expected = [CACHE_CONTROL, CONTENT_LENGTH, LOCATION];
            assert!(redirected(names, values).keys().eq(&expected), "{names} {values}");
        }
    }

    #[test]
    fn the_memory_of_many_fields_is_not_kept() {
        assert!(redirected(20, 1).capacity() >= 20);
        assert!(redirected(200, 1).capacity() < 20);
        assert!(redirected(20, 2).capacity() < 20);
    }
}
