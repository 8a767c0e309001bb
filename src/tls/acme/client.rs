//! ACME's requests, by the one way out.

use crate::outbound::{Answer, Endpoint, Fault, Offer, Outbound, Request as Outgoing};
use bytes::Bytes;
use http::header::{HeaderMap, RETRY_AFTER};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

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
        let found = self.outbound.resolve(host, port).await.map_err(|fault| offline(&fault))?;
        let mut last: Option<Fault> = None;
        for address in found.addresses {
            let to = Endpoint { tls: true, host: host.to_owned(), port, address };
            let mut connection = match self.outbound.connect(&to, Offer::Http1).await {
                Ok(connection) => connection,
                Err(fault) => {
                    last = Some(fault);
                    continue;
                }
            };
            // The way out lets every certificate pass; this one has to be right.
            if !connection.peer().is_some_and(crate::outbound::Peer::trusted) {
                return Err(offline(
                    &"its certificate is not trusted; a private authority is named by `root_ca`",
                ));
            }
            let request = Outgoing {
                method,
                path_and_query: uri.path_and_query().map_or("/", |it| it.as_str()).to_owned(),
                headers,
                body,
            };
            let answer = connection.send(&request).await.map_err(|fault| offline(&fault))?;
            if answer.status.is_client_error() || answer.status.is_server_error() {
                self.retry_after.store(seconds(&answer.headers).unwrap_or(0), Relaxed);
            }
            return Ok(answer);
        }
        Err(match last {
            Some(fault) => offline(&fault),
            None => offline(&"it has no address"),
        })
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
            let answer = client
                .ask(&head.uri, head.method, head.headers, body)
                .await
                .map_err(|offline| Error::Other(Box::new(offline)))?;
            let mut response = Response::new(Full::new(answer.body));
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            Ok(BytesResponse::from(response))
        })
    }
}

/// `Retry-After` in seconds (RFC 9110 §10.2.3): a number, or a date.
pub(super) fn seconds(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(u64::try_from(date.as_second()).ok()?.saturating_sub(now))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            seconds(&headers)
        };
        assert_eq!(read("120"), Some(120));
        assert_eq!(read("Fri, 31 Dec 1999 23:59:59 GMT"), Some(0));
        assert!(read("Fri, 31 Dec 2100 23:59:59 GMT").unwrap() > 1_000_000_000);
        assert_eq!(read("soon"), None);
        assert_eq!(seconds(&HeaderMap::new()), None);
    }
}
