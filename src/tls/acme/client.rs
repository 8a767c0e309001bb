//! ACME's requests, by the one way out.

use crate::outbound::{Answer, Offer, Outbound, Reason, Request as Outgoing, Server};
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

/// Speaks to one directory. A connection for each request: an order is a dozen of them, and there
/// are few orders in a year.
#[derive(Clone, Debug)]
pub(super) struct Client {
    outbound: Outbound,
    /// Seconds of the last refusal's `Retry-After`, which the library drops; 0 for none.
    retry_after: Arc<AtomicU64>,
}

impl Client {
    pub(super) fn new(outbound: Outbound) -> Self {
        Self { outbound, retry_after: Arc::default() }
    }

    /// How long the last refusal asked to wait, told once.
    pub(super) fn retry_after(&self) -> Option<u64> {
        Some(self.retry_after.swap(0, Relaxed)).filter(|seconds| *seconds > 0)
    }

    /// A GET without signature.
    pub(super) async fn get(&self, url: &str) -> Result<Answer, Offline> {
        let uri = url.parse().map_err(|_| Offline::new(url, "it is no URL"))?;
        self.ask(&uri, Method::GET, HeaderMap::new(), Bytes::new()).await
    }

    async fn ask(
        &self,
        uri: &Uri,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Offline> {
        let host = uri.host().unwrap_or_default();
        let offline = |why: &dyn fmt::Display| Offline::new(host, why);
        if uri.scheme_str() != Some("https") {
            return Err(offline(&"the directory names a URL that is not https"));
        }
        let port = uri.port_u16().unwrap_or(443);
        let request = Outgoing {
            method,
            path_and_query: uri.path_and_query().map_or("/", |it| it.as_str()).to_owned(),
            headers,
            body,
        };
        let server = Server { tls: true, host: host.to_owned(), port };
        let asked = self.outbound.ask(&server, Offer::Http1, &request).await;
        let answer = asked.map_err(|fault| match fault.reason {
            Reason::Untrusted => offline(
                &"its certificate is not trusted; a private authority is named by `root_ca`",
            ),
            _ => offline(&fault),
        })?;
        if answer.status.is_client_error() || answer.status.is_server_error() {
            self.retry_after.store(answer.retry_after().unwrap_or(0), Relaxed);
        }
        Ok(answer)
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
            let answer = client
                .ask(&head.uri, method.clone(), head.headers, body)
                .await
                .map_err(|offline| Error::Other(Box::new(offline)))?;
            // The library asks for nonces alone by HEAD (RFC 8555 §7.2), and has an error without a
            // type for those that do not come.
            let no_nonce = method == Method::HEAD
                && (answer.status != StatusCode::OK || !answer.headers.contains_key(REPLAY_NONCE));
            if no_nonce {
                let host = head.uri.host().unwrap_or_default();
                return Err(Error::Other(Box::new(Offline::new(host, "it gives no nonce"))));
            }
            let mut response = Response::new(Full::new(answer.body));
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            Ok(BytesResponse::from(response))
        })
    }
}

/// A directory cannot be asked.
#[derive(Clone, Debug)]
pub(super) struct Offline(String);

impl Offline {
    fn new(host: &str, why: impl fmt::Display) -> Self {
        Self(format!("cannot ask `{host}`: {why}"))
    }
}

impl fmt::Display for Offline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Offline {}
