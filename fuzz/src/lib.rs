//! Shared by the targets: splitting an input into parts.

use bytes::Bytes;
use callback_edge::outbound::{Fault, Protocol, Reason, Response, Step};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::time::Duration;

/// An input, read from its start.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte; 0 at the end.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// One of these values.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    /// The bytes before the next NUL, or all.
    pub fn piece(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let (piece, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        piece
    }

    /// [`Input::piece`] as text; invalid UTF-8 is replaced.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.piece()).into_owned()
    }

    /// A response of a server, or a connection error. `fill` replaces placeholders.
    pub fn response(&mut self, fill: impl Fn(&str) -> String) -> Result<Response, Fault> {
        const STATUSES: &[u16] =
            &[200, 302, 400, 401, 403, 404, 408, 429, 500, 503, 301, 303, 307, 308, 204, 599];
        let kind = self.byte();
        if kind == 0xff {
            let text = "connection refused";
            return Err(Fault::new(Step::Connect, Reason::Refused, text));
        }
        let status = STATUSES[usize::from(kind) % STATUSES.len()];
        let mut headers = HeaderMap::new();
        let location = fill(&self.text());
        if let Ok(value) = HeaderValue::from_bytes(location.as_bytes())
            && !value.is_empty()
        {
            headers.insert(LOCATION, value);
        }
        let body = fill(&self.text());
        match kind / 16 {
            1 => drop(headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"))),
            2 => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("7"))),
            3 => drop(headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"))),
            _ => {}
        }
        Ok(Response {
            status: StatusCode::from_u16(status).expect("a status"),
            headers,
            body: Bytes::from(body.into_bytes()),
            whole: kind / 16 != 4,
            protocol: Protocol::Http2,
            head_time: Duration::ZERO,
        })
    }
}
