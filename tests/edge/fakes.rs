//! Configurable test servers: correct and broken callbacks, and a Nango.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The host of the callbacks.
pub(crate) const HOST: &str = "auth.example.test";

/// A request as the server received it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) http2: bool,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The reaction of a server.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Reply(Reply),
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// The first bytes, then the second ones endlessly.
    Endless(Vec<u8>, Vec<u8>),
    /// The first bytes, then nothing; the connection stays open.
    Hang(Vec<u8>),
    /// One byte at a time.
    Drip(Vec<u8>),
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    pub(crate) fn page(status: u16, body: &str) -> Self {
        Self::new(status).with("content-type", "text/html").body(body)
    }

    pub(crate) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Empty when there is none.
    pub(crate) fn location(&self) -> String {
        let location = self.headers.iter().find(|(name, _)| name == "location");
        location.map(|(_, to)| String::from_utf8(to.clone()).unwrap()).unwrap_or_default()
    }

    /// Replaces the `Location`.
    pub(crate) fn to(self, location: impl AsRef<[u8]>) -> Self {
        self.without("location").with("location", location)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.1 {} X\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        let end = format!("content-length: {}\r\n\r\n{}", self.body.len(), self.body);
        bytes.extend_from_slice(end.as_bytes());
        bytes
    }
}

/// Maps a request to the reaction.
pub(crate) type Behaviour = Arc<dyn Fn(&Received) -> Act + Send + Sync>;

pub(crate) fn behaviour(act: impl Fn(&Received) -> Act + Send + Sync + 'static) -> Behaviour {
    Arc::new(act)
}

/// The response of a correct callback that redirects to this origin.
pub(crate) fn correct(origin: &str, heard: &Received) -> Reply {
    if !matches!(heard.path.as_str(), "/oauth/callback" | "/app-auth/connect") {
        return Reply::new(404);
    }
    let mut location = format!("{origin}{}", heard.path);
    let (status, query) = match heard.method.as_str() {
        "GET" => (308, heard.query.clone()),
        "POST" => (303, Some(heard.body.clone())),
        _ => return Reply::new(405),
    };
    if let Some(query) = query {
        let _ = write!(location, "?{query}");
    }
    Reply::new(status).with("location", location).with("cache-control", "no-store")
}

/// Nango's two callbacks: their error pages, the redirect of a callback without a state to the
/// `Referer`, and nothing else.
pub(crate) fn nango(heard: &Received) -> Act {
    if !matches!(heard.path.as_str(), "/oauth/callback" | "/app-auth/connect") {
        return Act::Reply(Reply::page(404, "Cannot GET"));
    }
    if heard.method != "GET" {
        return Act::Reply(Reply::page(415, "invalid_content_type"));
    }
    let query = heard.query.clone().unwrap_or_default();
    let parameter = |name: &str| {
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or("")
    };
    if parameter("state").is_empty()
        && !parameter("installation_id").is_empty()
        && !parameter("setup_action").is_empty()
    {
        let to = heard.header("referer").unwrap_or("https://github.com");
        return Act::Reply(Reply::page(302, "Found. Redirecting").with("location", to));
    }
    if heard.path == "/app-auth/connect" {
        let status = if parameter("state").is_empty() { 400 } else { 404 };
        return Act::Reply(Reply::page(status, "Bad Request"));
    }
    let said = match parameter("state") {
        "" => "No state found in callback".to_owned(),
        state if state.len() != 36 => "invalid_oauth_state".to_owned(),
        state => format!("No session found for state: &quot;{state}&quot;"),
    };
    let error = parameter("error_description");
    Act::Reply(Reply::page(
        400,
        &format!(
            "<!-- Nango OAuth flow callback --><html><title>Authorization callback</title>\
             {said} {{&quot;error_description&quot;:&quot;{error}&quot;}}</html>"
        ),
    ))
}

/// Serves plain HTTP on a port of the system's choice; ends with the runtime.
pub(crate) async fn plain(behaviour: Behaviour) -> SocketAddr {
    plain_at("127.0.0.1:0".parse().unwrap(), behaviour).await
}

pub(crate) async fn plain_at(address: SocketAddr, behaviour: Behaviour) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(talk(stream, Arc::clone(&behaviour)));
        }
    });
    address
}

/// Serves HTTP over TLS.
pub(crate) async fn tls(config: ServerConfig, behaviour: Behaviour) -> SocketAddr {
    tls_at("127.0.0.1:0".parse().unwrap(), config, behaviour).await
}

pub(crate) async fn tls_at(
    address: SocketAddr,
    config: ServerConfig,
    behaviour: Behaviour,
) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, behaviour) = (acceptor.clone(), Arc::clone(&behaviour));
            tokio::spawn(async move {
                // Clients may close the connection.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    talk_http2(stream, behaviour).await;
                } else {
                    talk(stream, behaviour).await;
                }
            });
        }
    });
    address
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, behaviour: Behaviour) {
    let mut buffer = Vec::new();
    while let Some(heard) = hear(&mut stream, &mut buffer).await {
        if act(&mut stream, behaviour(&heard)).await.is_none() {
            return;
        }
    }
}

/// One request; `None` at the end of the connection.
async fn hear(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<Received> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut line = lines.next()?.split(' ');
    let (method, target) = (line.next()?.to_owned(), line.next()?);
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (target.to_owned(), None),
    };
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut request = Received { method, path, query, headers, body: String::new(), http2: false };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    request.body = String::from_utf8(buffer.drain(..length).collect()).unwrap();
    Some(request)
}

/// Performs the reaction; `None` closes the connection.
async fn act(stream: &mut (impl AsyncWrite + Unpin), act: Act) -> Option<()> {
    match act {
        Act::Reply(reply) => return stream.write_all(&reply.bytes()).await.ok(),
        Act::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Act::Endless(first, again) => {
            let _ = stream.write_all(&first).await;
            while stream.write_all(&again).await.is_ok() {}
        }
        Act::Hang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            std::future::pending::<()>().await;
        }
        Act::Drip(bytes) => {
            let mut clock = tokio::time::interval(Duration::from_millis(20));
            for byte in bytes {
                clock.tick().await;
                stream.write_all(&[byte]).await.ok()?;
                stream.flush().await.ok()?;
            }
        }
    }
    None
}

async fn talk_http2<S>(stream: S, behaviour: Behaviour)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let behaviour = Arc::clone(&behaviour);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let request = Received {
                method: parts.method.to_string(),
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().map(str::to_owned),
                headers: parts
                    .headers
                    .iter()
                    .map(|(name, value)| {
                        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                    })
                    .collect(),
                body: String::from_utf8(body.to_vec()).unwrap(),
                http2: true,
            };
            // An error resets the stream, the HTTP/2 counterpart of a closed connection.
            let Act::Reply(reply) = behaviour(&request) else { return Err("reset") };
            let mut response = http::Response::builder().status(reply.status);
            for (name, value) in &reply.headers {
                response = response.header(name, value.as_slice());
            }
            Ok(response.body(Full::new(Bytes::from(reply.body))).unwrap())
        }
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A test CA.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = authority_params(name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Issues a certificate.
    pub(crate) fn issue(&self, spec: CertificateSpec) -> Chain {
        let mut params = CertificateParams::new(spec.names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "the leaf");
        let now = SystemTime::now();
        params.not_before = (now - spec.age).into();
        params.not_after = match spec.left {
            Ok(left) => (now + left).into(),
            Err(ago) => (now - ago).into(),
        };
        if spec.from_tomorrow {
            params.not_before = (now + Duration::from_hours(24)).into();
        }
        if spec.issuer_is_published {
            // AuthorityInfoAccess with caIssuers, http://ca.test (RFC 5280 §4.2.2.1).
            let mut der = vec![0x30, 0x1d, 0x30, 0x1b, 0x06, 0x08];
            der.extend_from_slice(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02, 0x86, 0x0f]);
            der.extend_from_slice(b"http://ca.test/");
            let oid = &[1, 3, 6, 1, 5, 5, 7, 1, 1];
            params.custom_extensions.push(CustomExtension::from_oid_content(oid, der));
        }
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Chain::new(vec![leaf.der().clone()], &key)
    }

    /// Issues a certificate below an intermediate CA whose certificate is not sent.
    pub(crate) fn issue_below_intermediate(&self, spec: CertificateSpec) -> Chain {
        let key = KeyPair::generate().unwrap();
        let params = authority_params("the intermediate");
        params.signed_by(&key, &self.issuer).unwrap();
        Self { pem: String::new(), issuer: Issuer::new(params, key) }.issue(spec)
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// The properties of a certificate to issue.
pub(crate) struct CertificateSpec {
    pub(crate) names: Vec<String>,
    pub(crate) age: Duration,
    /// The remaining validity, or the time since it expired.
    pub(crate) left: Result<Duration, Duration>,
    pub(crate) from_tomorrow: bool,
    pub(crate) issuer_is_published: bool,
}

impl Default for CertificateSpec {
    fn default() -> Self {
        let days = |days: u64| Duration::from_hours(24 * days);
        Self {
            names: vec![HOST.to_owned(), format!("www.{HOST}")],
            age: days(30),
            left: Ok(days(60)),
            from_tomorrow: false,
            issuer_is_published: false,
        }
    }
}

/// A certificate chain and the key of its leaf.
pub(crate) struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Chain {
    fn new(certificates: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        Self { certificates, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
    }

    pub(crate) fn self_signed() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
        params.not_after = (SystemTime::now() + Duration::from_hours(24 * 90)).into();
        let certificate = params.self_signed(&key).unwrap();
        Self::new(vec![certificate.der().clone()], &key)
    }

    /// The certificates.
    pub(crate) fn certificates(self) -> Vec<CertificateDer<'static>> {
        self.certificates
    }

    /// The TLS configuration of a server with these protocols.
    pub(crate) fn config(self, protocols: &[&str]) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.certificates, self.key)
            .unwrap();
        config.alpn_protocols =
            protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }
}
