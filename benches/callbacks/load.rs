//! The load generator: raw requests, so that it costs less than any server. It verifies only that each
//! response is the redirect.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, HandshakeKind, SignatureScheme};
use std::io::{Error, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The target of every server.
pub(crate) const TARGET: &str = "https://api.nango.dev/oauth/callback";
const PATH: &str = "/oauth/callback";
pub(crate) const QUERY_BYTES: usize = 600;
/// The other header fields of a browser.
const FIELDS: [(&str, &str); 7] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "cross-site"),
];
/// Nothing takes so long unless it is broken.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A query of this length; its first eight digits may be replaced.
pub(crate) fn query(bytes: usize) -> String {
    let mut query = "code=00000000-4%2F0AVMBsJj&scope=email+profile%20openid&state=".to_owned();
    query.extend("Wm9vbS4uLg_-".chars().cycle().take(bytes - query.len()));
    query
}

/// A request of HTTP/1.1, and the expected `Location`.
struct Request {
    bytes: Vec<u8>,
    location: String,
}

impl Request {
    fn new(query_bytes: usize) -> Self {
        let query = query(query_bytes);
        let mut request = format!("GET {PATH}?{query} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in FIELDS {
            request.extend([name, ": ", value, "\r\n"]);
        }
        Self { bytes: (request + "\r\n").into_bytes(), location: format!("{TARGET}?{query}") }
    }
}

/// The request of every client.
static REQUEST: LazyLock<Request> = LazyLock::new(|| Request::new(QUERY_BYTES));

/// The handshake of a client.
#[derive(Clone, Copy)]
pub(crate) enum Hello {
    X25519,
    /// Both key shares in the first flight, like browsers.
    MlKem,
    /// X25519, and resumption if the server sends tickets.
    Resuming,
}

/// A client over TLS 1.3.
#[derive(Clone)]
pub(crate) struct Client {
    tls: TlsConnector,
    name: ServerName<'static>,
    /// Its source address: each has a limited number of ports.
    from: Ipv4Addr,
}

impl Client {
    /// The same client from another address of this machine.
    pub(crate) fn from(self, from: Ipv4Addr) -> Self {
        Self { from, ..self }
    }
}

/// A client with this protocol in ALPN and the server name `localhost`.
pub(crate) fn client(hello: Hello, alpn: &str) -> Client {
    client_for("localhost", hello, alpn)
}

/// A client with this server name.
pub(crate) fn client_for(name: &str, hello: Hello, alpn: &str) -> Client {
    let kx_groups: Vec<&dyn SupportedKxGroup> = match hello {
        Hello::X25519 | Hello::Resuming => vec![kx_group::X25519],
        Hello::MlKem => vec![kx_group::X25519MLKEM768, kx_group::X25519],
    };
    // In the order of browsers. rustls prefers AES-256, whose SHA-384 costs a server a seventh more.
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    let provider = Arc::new(CryptoProvider { cipher_suites, kx_groups, ..default_provider() });
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NoCertificateVerification(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    if !matches!(hello, Hello::Resuming) {
        config.resumption = Resumption::disabled();
    }
    Client {
        tls: Arc::new(config).into(),
        name: name.to_owned().try_into().unwrap(),
        from: Ipv4Addr::LOCALHOST,
    }
}

/// Accepts every certificate and signature, unlike `outbound::config_without_verification`: the load
/// generator is not measured, and should use little CPU.
#[derive(Debug)]
struct NoCertificateVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoCertificateVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Runs the job `total` times, `lanes` at once; returns all results.
async fn spread<T, F>(
    total: usize,
    lanes: usize,
    job: impl Fn() -> F + Clone + Send + 'static,
) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send,
{
    let mut set = JoinSet::new();
    for lane in 0..lanes {
        let job = job.clone();
        let share = total / lanes + usize::from(lane < total % lanes);
        set.spawn(async move {
            let mut results = Vec::with_capacity(share);
            for _ in 0..share {
                results.push(job().await);
            }
            results
        });
    }
    set.join_all().await.into_iter().flatten().collect()
}

async fn connect(address: SocketAddr, client: &Client) -> Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    if client.from != Ipv4Addr::LOCALHOST {
        socket.set_reuseaddr(true)?;
        socket.bind((client.from, 0).into())?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    client.tls.connect(client.name.clone(), stream).await
}

/// Sends one request on a new stream; returns the length of the response, head and body.
async fn request(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    expected: &Request,
) -> Result<usize> {
    stream.write_all(&expected.bytes).await?;
    let mut response = Vec::with_capacity(4096);
    loop {
        if stream.read_buf(&mut response).await? == 0 {
            return Err(Error::other("a response ended early"));
        }
        let Some(end) = response.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&response[..end]).into_owned();
        let field = |wanted: &str| {
            head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case(wanted).then(|| value.to_owned())
            })
        };
        let location = field("location").unwrap_or_default();
        if !head.starts_with("HTTP/1.1 308") || location != expected.location {
            return Err(Error::other(format!("not the redirect: {head}")));
        }
        let body = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let whole = end + 4 + body;
        if response.len() >= whole {
            return Ok(whole);
        }
    }
}

/// One client: connects, sends one request, and closes. Returns whether the session was resumed.
pub(crate) async fn one_shot(address: SocketAddr, client: &Client) -> Result<bool> {
    let task = async {
        let mut stream = connect(address, client).await?;
        request(&mut stream, &REQUEST).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok::<_, Error>((stream, resumed))
    };
    let (mut stream, resumed) = timeout(TIMEOUT, task).await.map_err(Error::other)??;
    // Closing the connection in the server is part of its cost.
    let _ = stream.shutdown().await;
    let _ = timeout(TIMEOUT, stream.read_to_end(&mut Vec::new())).await;
    Ok(resumed)
}

/// Sends this number of one-shots; returns how many resumed a session.
pub(crate) async fn one_shots(address: SocketAddr, client: &Client, total: usize) -> usize {
    let client = client.clone();
    let tasks = spread(total, 8, move || {
        let client = client.clone();
        async move { one_shot(address, &client).await }
    });
    tasks.await.into_iter().filter(|resumed| *resumed.as_ref().unwrap()).count()
}

/// Sends this number of requests over a few persistent plain connections.
pub(crate) async fn keep_alive(address: SocketAddr, total: usize, query_bytes: usize) {
    const LANES: usize = 16;
    let lane = move || async move {
        let expected = Request::new(query_bytes);
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        // All responses have the same length.
        let length = request(&mut stream, &expected).await.unwrap();
        let mut response = vec![0; length];
        for _ in 1..total / LANES {
            stream.write_all(&expected.bytes).await.unwrap();
            stream.read_exact(&mut response).await.unwrap();
            assert!(response.starts_with(b"HTTP/1.1 308"), "another response");
        }
    };
    timeout(TIMEOUT * 3, spread(LANES, LANES, lane)).await.unwrap();
}

/// Sends this number of requests over a few HTTP/2 connections, `at_once` at a time on each.
pub(crate) async fn h2(
    address: SocketAddr,
    client: &Client,
    total: usize,
    lanes: usize,
    at_once: usize,
) {
    let client = client.clone();
    let lane = move || {
        let client = client.clone();
        async move {
            let mut h2 = H2::open(address, &client).await.unwrap();
            h2.request(total / lanes, at_once).await.unwrap();
        }
    };
    timeout(TIMEOUT * 3, spread(lanes, lanes, lane)).await.unwrap();
}

/// An idle connection.
pub(crate) enum Idle {
    H1 { _stream: TlsStream<TcpStream> },
    H2 { _h2: H2 },
}

/// Opens this number of connections and sends one request on each.
pub(crate) async fn idle(
    address: SocketAddr,
    client: &Client,
    h2: bool,
    total: usize,
) -> Vec<Idle> {
    let client = client.clone();
    let open = spread(total, 32, move || {
        let client = client.clone();
        async move {
            if h2 {
                let mut h2 = H2::open(address, &client).await.unwrap();
                h2.request(1, 1).await.unwrap();
                Idle::H2 { _h2: h2 }
            } else {
                let mut stream = connect(address, &client).await.unwrap();
                request(&mut stream, &REQUEST).await.unwrap();
                Idle::H1 { _stream: stream }
            }
        }
    });
    timeout(TIMEOUT * 3, open).await.unwrap()
}

/// The results of an open loop: clients start at a fixed rate, whether earlier ones have finished or not.
#[derive(Default)]
pub(crate) struct Latencies {
    pub(crate) durations: Vec<Duration>,
    /// How late they started: the noise of the load generator, which the durations do not contain.
    pub(crate) lateness: Vec<Duration>,
    pub(crate) failed: usize,
}

/// Starts clients at this rate.
pub(crate) async fn open_loop(
    address: SocketAddr,
    client: &Client,
    rate: u32,
    total: u32,
    seen: &mut Latencies,
) {
    let begin = Instant::now() + Duration::from_millis(5);
    let mut clients = JoinSet::new();
    for number in 0..total {
        let due = begin + Duration::from_secs(1) / rate * number;
        sleep_until(due).await;
        let client = client.clone();
        clients.spawn(async move {
            let started = Instant::now();
            let lateness = started - due;
            let task = async {
                let mut stream = connect(address, &client).await?;
                request(&mut stream, &REQUEST).await?;
                let took = started.elapsed();
                stream.shutdown().await?;
                Ok::<_, Error>(took)
            };
            (lateness, timeout(TIMEOUT, task).await)
        });
    }
    for (lateness, result) in clients.join_all().await {
        seen.lateness.push(lateness);
        match result {
            Ok(Ok(took)) => seen.durations.push(took),
            _ => seen.failed += 1,
        }
    }
}

/// An HTTP/2 connection with prepared frames (RFC 9113).
pub(crate) struct H2 {
    stream: TlsStream<TcpStream>,
    /// The header block; each request differs, so that no server responds from a cache.
    block: Vec<u8>,
    digits: usize,
    next_id: u32,
    read: Vec<u8>,
    send: Vec<u8>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

impl H2 {
    async fn open(address: SocketAddr, client: &Client) -> Result<Self> {
        let stream = connect(address, client).await?;
        let mut block = Vec::new();
        let path = format!("{PATH}?{}", query(QUERY_BYTES));
        let pseudo = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", path.as_str()),
        ];
        for (name, value) in pseudo.into_iter().chain(FIELDS) {
            // A literal without indexing and Huffman coding (RFC 7541 §6.2.2).
            block.push(0);
            literal(&mut block, name);
            literal(&mut block, value);
        }
        let digits = block.windows(8).position(|window| window == b"00000000").unwrap();
        let mut send = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // No pushes, and a window for all bodies.
        frame(&mut send, SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0]);
        frame(&mut send, WINDOW_UPDATE, 0, 0, &0x3fff_ffff_u32.to_be_bytes());
        Ok(Self { stream, block, digits, next_id: 1, read: Vec::new(), send })
    }

    /// Sends this number of requests, `at_once` at a time.
    async fn request(&mut self, total: usize, at_once: usize) -> Result<()> {
        let (mut sent, mut received) = (0, 0);
        while received < total {
            while sent < total && sent - received < at_once {
                let id = self.next_id;
                self.next_id += 2;
                sent += 1;
                self.block[self.digits..self.digits + 8]
                    .copy_from_slice(format!("{id:08}").as_bytes());
                frame(&mut self.send, HEADERS, END_STREAM | END_HEADERS, id, &self.block);
            }
            if !self.send.is_empty() {
                self.stream.write_all(&self.send).await?;
                self.send.clear();
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(Error::other("an HTTP/2 connection ended"));
            }
            received += self.read_frames()?;
        }
        Ok(())
    }

    /// Reads all complete frames; returns how many responses ended.
    fn read_frames(&mut self) -> Result<usize> {
        let (mut ended, mut at) = (0, 0);
        while let Some(head) = self.read.get(at..at + 9) {
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (kind, flags) = (head[3], head[4]);
            let Some(payload) = self.read.get(at + 9..at + 9 + length) else { break };
            match kind {
                // A shorter head is not the redirect: it cannot contain the query.
                HEADERS if length < QUERY_BYTES / 2 => {
                    return Err(Error::other("another response"));
                }
                HEADERS | DATA => ended += usize::from(flags & END_STREAM != 0),
                SETTINGS if flags & ACK == 0 => frame(&mut self.send, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frame(&mut self.send, PING, ACK, 0, payload),
                RST_STREAM | GOAWAY => return Err(Error::other("HTTP/2 was refused")),
                _ => {}
            }
            at += 9 + length;
        }
        self.read.drain(..at);
        Ok(ended)
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// A string literal (RFC 7541 §5.2), its length in seven bits and what follows (§5.1).
fn literal(out: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        out.push(u8::try_from(length).unwrap());
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push(u8::try_from(length % 128).unwrap() | 128);
            length /= 128;
        }
        out.push(u8::try_from(length).unwrap());
    }
    out.extend(text.as_bytes());
}
