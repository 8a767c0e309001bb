use super::metered::Allowance;
use super::{Fault, Limits, Peer, Reason, Server, Step, within};
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

/// An HTTP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// The usual notation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path and query; sent byte for byte.
    pub path_and_query: String,
    /// Header fields, without `Host` and `Content-Length`.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Bytes,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The header fields, values as received.
    pub headers: HeaderMap,
    /// The body, up to the size limit.
    pub body: Bytes,
    /// Whether the body is complete.
    pub whole: bool,
    /// The HTTP version.
    pub protocol: Protocol,
    /// The time from the first byte sent to the end of the head.
    pub head_time: Duration,
}

impl Response {
    /// The seconds to wait before the next request (`Retry-After`, RFC 9110 §10.2.3).
    pub fn retry_after(&self) -> Option<u64> {
        seconds(&self.headers)
    }
}

/// `Retry-After` is a number or a date.
fn seconds(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(u64::try_from(date.as_second()).ok()?.saturating_sub(now))
}

/// The bytes that a peer may send before they are read: the HTTP/2 window.
const READ_AHEAD: usize = WINDOW as usize;
const WINDOW: u32 = 256 << 10;

/// The header fields of a response over HTTP/1. More than hyper's 100, so that callers can report them.
const MAX_FIELDS: usize = 1000;
/// How long the body of a redirect may take: browsers do not wait for it (RFC 9110 §15.4).
const REDIRECT_BODY: Duration = Duration::from_millis(100);

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    driver: JoinHandle<()>,
    authority: String,
    scheme: &'static str,
    peer: Option<Peer>,
    limits: Limits,
    allowance: Allowance,
    /// Whether a body was not read to its end, so that the connection cannot be reused.
    spent: bool,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub(super) async fn open<S>(
        stream: S,
        protocol: Protocol,
        to: &Server,
        peer: Option<Peer>,
        limits: Limits,
        allowance: Allowance,
    ) -> Result<Self, Fault>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, driver) =
            within(Step::Handshake, limits.step, start(stream, protocol, limits)).await?;
        let (authority, scheme) = (to.authority(), to.scheme());
        Ok(Self { sender, driver, authority, scheme, peer, limits, allowance, spent: false })
    }

    /// The TLS peer; `None` without TLS.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// The HTTP version in use.
    pub fn protocol(&self) -> Protocol {
        match self.sender {
            Sender::Http1(_) => Protocol::Http1,
            Sender::Http2(_) => Protocol::Http2,
        }
    }

    /// Waits until another request can be sent; `false` when the connection is closed.
    pub async fn ready(&mut self) -> bool {
        let limit = self.limits.step;
        let ready = async {
            match &mut self.sender {
                Sender::Http1(sender) => sender.ready().await.is_ok(),
                Sender::Http2(sender) => sender.ready().await.is_ok(),
            }
        };
        !self.spent && tokio::time::timeout(limit, ready).await.unwrap_or(false)
    }

    /// Sends a request and reads the response, within the limits.
    pub async fn send(&mut self, request: &Request) -> Result<Response, Fault> {
        let wire = self.wire(request)?;
        let started = Instant::now();
        let limit = self.limits.step;
        self.allowance.set(2 * self.limits.head_bytes + READ_AHEAD);
        let response = within(Step::Head, limit, async {
            let response = match &mut self.sender {
                Sender::Http1(sender) => sender.send_request(wire).await,
                Sender::Http2(sender) => sender.send_request(wire).await,
            };
            response.map_err(|error| {
                if self.allowance.is_used_up() {
                    let text = "the response head exceeds the size limit";
                    return Fault::new(Step::Head, Reason::TooLarge, text);
                }
                Fault::http(Step::Head, &error)
            })
        })
        .await
        .inspect_err(|_| self.spent = true)?;
        let head_time = started.elapsed();
        let (head, body) = response.into_parts();
        // A chunk of one byte is six bytes long (RFC 9112 §7.1).
        self.allowance.set(8 * self.limits.body_bytes + READ_AHEAD);
        let limit = if head.status.is_redirection() { limit.min(REDIRECT_BODY) } else { limit };
        let (body, whole) = self.read(body, limit).await;
        self.spent = !whole;
        let protocol =
            if head.version == Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 };
        Ok(Response {
            status: head.status,
            headers: head.headers,
            body,
            whole,
            protocol,
            head_time,
        })
    }

    fn wire(&self, request: &Request) -> Result<http::Request<Full<Bytes>>, Fault> {
        let unsendable = |_| {
            Fault::new(
                Step::Head,
                Reason::Unsendable,
                "the URL contains characters that cannot be sent",
            )
        };
        let path = PathAndQuery::try_from(request.path_and_query.as_str())
            .map_err(|error| unsendable(error.into()))?;
        let mut wire = http::Request::new(Full::new(request.body.clone()));
        *wire.method_mut() = request.method.clone();
        *wire.headers_mut() = request.headers.clone();
        let uri = Uri::builder();
        *wire.uri_mut() = match self.protocol() {
            // Origin form and a Host (RFC 9112 §3.2.1); pseudo-header fields (RFC 9113 §8.3.1).
            Protocol::Http1 => uri.path_and_query(path),
            Protocol::Http2 => {
                uri.scheme(self.scheme).authority(self.authority.as_str()).path_and_query(path)
            }
        }
        .build()
        .map_err(unsendable)?;
        if self.protocol() == Protocol::Http1 {
            let host =
                HeaderValue::from_str(&self.authority).map_err(|error| unsendable(error.into()))?;
            wire.headers_mut().insert(header::HOST, host);
        }
        Ok(wire)
    }

    /// Reads the body up to the limits of time and size, and returns whether it is complete. An
    /// incomplete body is no fault, because callers evaluate mainly the head.
    async fn read(&self, mut body: Incoming, limit: Duration) -> (Bytes, bool) {
        let mut read = BytesMut::new();
        let all = async {
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                let Some(data) = frame.data_ref() else { continue };
                let capacity = self.limits.body_bytes.saturating_sub(read.len());
                read.extend_from_slice(data.get(..capacity).unwrap_or(data));
                if data.len() > capacity {
                    return false;
                }
            }
            true
        };
        let whole = tokio::time::timeout(limit, all).await.unwrap_or(false);
        (read.freeze(), whole)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn start<S>(
    stream: S,
    protocol: Protocol,
    limits: Limits,
) -> Result<(Sender, JoinHandle<()>), Fault>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| Fault::http(Step::Handshake, &error);
    let io = TokioIo::new(stream);
    // The pending request reports how a connection ends.
    match protocol {
        Protocol::Http1 => {
            let (sender, connection) = http1::Builder::new()
                // The minimum of hyper.
                .max_buf_size(limits.head_bytes.max(8 << 10))
                .max_headers(MAX_FIELDS)
                .handshake(io)
                .await
                .map_err(failed)?;
            let driver = tokio::spawn(async move {
                let _ = connection.await;
            });
            Ok((Sender::Http1(sender), driver))
        }
        Protocol::Http2 => {
            let most = u32::try_from(limits.head_bytes).unwrap_or(u32::MAX);
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_header_list_size(most)
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .handshake(io)
                .await
                .map_err(failed)?;
            let driver = tokio::spawn(async move {
                let _ = connection.await;
            });
            Ok((Sender::Http2(sender), driver))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::{Offer, Outbound, Resolver, Roots};
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that sends `first`, and then `forever` until the client disconnects.
    async fn flood(first: &'static [u8], forever: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut from, mut to) = listener.accept().await.unwrap().0.into_split();
            let mut start = [0; 16];
            from.read_exact(&mut start).await.unwrap();
            // The client's acknowledgements must not block the flood.
            tokio::spawn(async move { tokio::io::copy(&mut from, &mut tokio::io::sink()).await });
            to.write_all(first).await.unwrap();
            let many = forever.repeat(100);
            while !many.is_empty() && to.write_all(&many).await.is_ok() {}
            std::future::pending::<()>().await;
        });
        address
    }

    async fn request(address: SocketAddr, offer: Offer, step: Duration) -> Result<Response, Fault> {
        let limits = Limits { step, ..Limits::default() };
        let outbound = Outbound::new(Resolver::default(), Roots::public(), limits);
        let to = Server { tls: false, host: "127.0.0.1".into(), port: address.port() };
        let request = Request {
            method: Method::GET,
            path_and_query: "/".into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        outbound.send(&to, offer, &request).await
    }

    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_flood_before_the_response_is_ended_by_its_size_and_not_by_time() {
        // An empty SETTINGS frame; HEADERS with `:status: 103`, PING and SETTINGS frames.
        let settings: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
        for (offer, first, forever) in [
            (Offer::Http1, &b""[..], &b"HTTP/1.1 100 Continue\r\n\r\n"[..]),
            (Offer::Http1, b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"),
            (Offer::Http2, settings, b"\0\0\x05\x01\x04\0\0\0\x01\x08\x03103"),
            (Offer::Http2, settings, b"\0\0\x08\x06\0\0\0\0\0canary-8"),
            (Offer::Http2, settings, settings),
        ] {
            let address = flood(first, forever).await;
            let fault = request(address, offer, LONG).await.unwrap_err();
            let kind = String::from_utf8_lossy(forever);
            assert_eq!(
                (fault.step, fault.reason),
                (Step::Head, Reason::TooLarge),
                "{kind}: {fault}"
            );
        }
    }

    #[tokio::test]
    async fn a_few_interim_responses_are_skipped() {
        let server = flood(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"",
        );
        let response = request(server.await, Offer::Http1, LONG).await.unwrap();
        assert_eq!(
            (response.status, &*response.body, response.whole),
            (StatusCode::OK, &b"ok"[..], true)
        );
    }

    #[tokio::test]
    async fn an_endless_head_is_limited_in_size_and_time() {
        let large = flood(b"HTTP/1.1 200 OK\r\nX: ", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").await;
        let fault = request(large, Offer::Http1, LONG).await.unwrap_err();
        assert_eq!(fault.reason, Reason::TooLarge);
        let silent = flood(b"HTTP/1.1 200 OK\r\nX: ", b"").await;
        let fault = request(silent, Offer::Http1, Duration::from_millis(100)).await.unwrap_err();
        assert_eq!((fault.step, fault.reason), (Step::Head, Reason::Timeout));
    }

    #[tokio::test]
    async fn an_endless_body_is_limited_in_size() {
        for (first, forever) in [
            (&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..], &b"1\r\na\r\n"[..]),
            (b"HTTP/1.1 200 OK\r\n\r\n", b"a"),
        ] {
            let response = request(flood(first, forever).await, Offer::Http1, LONG).await.unwrap();
            assert!(!response.whole);
            assert_eq!(response.body.len(), Limits::default().body_bytes);
        }
    }

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            seconds(&headers)
        };
        assert_eq!(read("120"), Some(120));
        assert_eq!(read("Fri, 31 Dec 1999 23:59:59 GMT"), Some(0));
        assert!(read("Fri, 31 Dec 2100 23:59:59 GMT").unwrap() > 1_000_000_000);
        assert_eq!(read("soon"), None);
        assert_eq!(seconds(&HeaderMap::new()), None);
    }
}
