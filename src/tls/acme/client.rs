//! The HTTP client of ACME, on top of the outbound client.

use crate::outbound::{
    Offer, Outbound, Reason, Request as OutboundRequest, Response as OutboundResponse, Server,
};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// RFC 8555 §6.5.1.
const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");

/// The client of one ACME server. Each request has a connection of its own: an order takes a dozen
/// requests, and there are few orders in a year.
#[derive(Clone, Debug)]
pub(super) struct Client {
    outbound: Outbound,
    /// Seconds of the last error response's `Retry-After`, which the library drops; 0 for none.
    retry_after: Arc<AtomicU64>,
}

impl Client {
    pub(super) fn new(outbound: Outbound) -> Self {
        Self { outbound, retry_after: Arc::default() }
    }

    /// Takes the `Retry-After` of the last error response.
    pub(super) fn take_retry_after(&self) -> Option<u64> {
        Some(self.retry_after.swap(0, Relaxed)).filter(|seconds| *seconds > 0)
    }

    /// Sends a GET without a signature.
    pub(super) async fn get(&self, url: &str) -> Result<OutboundResponse, RequestError> {
        let uri = url.parse().map_err(|_| RequestError::new(url, "invalid URL"))?;
        self.send(&uri, Method::GET, HeaderMap::new(), Bytes::new()).await
    }

    async fn send(
        &self,
        uri: &Uri,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<OutboundResponse, RequestError> {
        let host = uri.host().unwrap_or_default();
        let fail = |why: &dyn fmt::Display| RequestError::new(host, why);
        if uri.scheme_str() != Some("https") {
            return Err(fail(&"the URL is not https"));
        }
        let port = uri.port_u16().unwrap_or(443);
        let request = OutboundRequest {
            method,
            path_and_query: uri.path_and_query().map_or("/", |it| it.as_str()).to_owned(),
            headers,
            body,
        };
        let server = Server { tls: true, host: host.to_owned(), port };
        let sent = self.outbound.send(&server, Offer::Http1, &request).await;
        let response = sent.map_err(|fault| match fault.reason {
            Reason::Untrusted => {
                fail(&"its certificate is not trusted; for a private CA, set `root_ca`")
            }
            _ => fail(&fault),
        })?;
        if response.status.is_client_error() || response.status.is_server_error() {
            self.retry_after.store(response.retry_after().unwrap_or(0), Relaxed);
        }
        Ok(response)
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            // In memory already; its error is `Infallible`.
            let body = body.collect().await.map(http_body_util::Collected::to_bytes);
            let body = body.unwrap_or_default();
            let method = head.method;
            let received = client
                .send(&head.uri, method.clone(), head.headers, body)
                .await
                .map_err(|error| Error::Other(Box::new(error)))?;
            // The library sends HEAD only for nonces (RFC 8555 §7.2), and returns an untyped error
            // when there is none.
            let no_nonce = method == Method::HEAD
                && (received.status != StatusCode::OK
                    || !received.headers.contains_key(REPLAY_NONCE));
            if no_nonce {
                let host = head.uri.host().unwrap_or_default();
                return Err(Error::Other(Box::new(RequestError::new(
                    host,
                    "the response has no nonce",
                ))));
            }
            let mut response = Response::new(Full::new(received.body));
            *response.status_mut() = received.status;
            *response.headers_mut() = received.headers;
            Ok(BytesResponse::from(response))
        })
    }
}

/// A request to an ACME server failed before it had an ACME response.
#[derive(Clone, Debug)]
pub(super) struct RequestError(String);

impl RequestError {
    fn new(host: &str, why: impl fmt::Display) -> Self {
        Self(format!("the request to the ACME server `{host}` failed: {why}"))
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RequestError {}
