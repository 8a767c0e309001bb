//! Clients that hold what they take: each is cut off in time and counted under its own name, and
//! whoever behaves is answered meanwhile.

use crate::support::frames::{self, frame};
use crate::support::{
    Authority, Bystander, Edge, Http1, MACHINE, Metrics, connect_tls, handshake, soon, until,
};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

const HANDSHAKE: Duration = Duration::from_millis(400);
const REQUEST: Duration = Duration::from_millis(300);
const IDLE: Duration = Duration::from_millis(500);
const AGE: Duration = Duration::from_secs(4);

/// How much later than its deadline a connection may end, in a flood too.
const LATE: Duration = Duration::from_secs(1);

/// How often those send who send a little at a time.
const DRIP: Duration = Duration::from_millis(40);

const PATH: &str = "/oauth/callback?code=canary-code&state=canary-state";

/// An edge under attack.
struct Arena {
    name: &'static str,
    edge: Edge,
    authority: Authority,
    bystander: Bystander,
    /// Nothing else uses the machine up meanwhile.
    _machine: Box<dyn Send>,
}

impl Arena {
    async fn new(name: &'static str) -> Self {
        Self::with(name, "", b"").await
    }

    async fn with(name: &'static str, settings: &str, first: &'static [u8]) -> Self {
        // A flood uses the machine up by itself.
        let machine: Box<dyn Send> = if name.contains("flood") {
            Box::new(MACHINE.write().await)
        } else {
            Box::new(MACHINE.read().await)
        };
        let (edge, authority) = Edge::over_tls(&format!(
            "
            limits.handshake_timeout = '400ms'
            limits.request_timeout = '300ms'
            limits.idle_timeout = '500ms'
            limits.connection_age = '4s'
            log.level = 'trace'
            {settings}
            "
        ));
        let bystander = Bystander::start(edge.http[0], first);
        Self { name, edge, authority, bystander, _machine: machine }
    }

    fn https(&self) -> SocketAddr {
        self.edge.https[0]
    }

    async fn tls(&self, alpn: &str) -> TlsStream<TcpStream> {
        connect_tls(&self.authority, self.https(), "localhost", &[alpn]).await.unwrap()
    }

    /// An HTTP/2 client that has sent this.
    async fn h2(&self, bytes: &[u8]) -> TlsStream<TcpStream> {
        let mut stream = self.tls("h2").await;
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    /// Checks the time, the count, that the bystander was served, and that nothing leaked.
    async fn ended(self, took: Duration, deadline: Duration, series: &str) {
        eprintln!("{}: closed after {took:?}, deadline {deadline:?}", self.name);
        let early = Duration::from_millis(30);
        assert!(took + early >= deadline, "{}: after {took:?} already", self.name);
        self.ended_by(took, deadline, series).await;
    }

    /// As [`Arena::ended`]; it may be earlier.
    async fn ended_by(self, took: Duration, deadline: Duration, series: &str) {
        eprintln!("{}: closed after {took:?}, at most {deadline:?}", self.name);
        assert!(took <= deadline + LATE, "{}: only after {took:?}", self.name);
        // The client may see the end before it is counted.
        until(series, async || self.edge.metrics().await.get(series) >= 1.0).await;
        let metrics = self.edge.metrics().await;
        self.bystander.finish().await;
        let (status, log) = self.edge.stop();
        assert_eq!(status.code(), Some(0), "{log}");
        no_canary(&log, &metrics);
    }
}

fn no_canary(log: &str, metrics: &Metrics) {
    assert!(!log.contains("canary"), "{log}");
    assert!(!metrics.0.contains("canary"), "{}", metrics.0);
}

fn deadline(stage: &str) -> String {
    format!("deadlines_total{{stage=\"{stage}\"}}")
}

fn error(reason: &str) -> String {
    format!("connection_errors_total{{reason=\"{reason}\"}}")
}

/// Reads to the end, whatever comes.
async fn closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut waste = vec![0; 16 * 1024];
    while !matches!(soon(stream.read(&mut waste)).await, Ok(0) | Err(_)) {}
}

/// Sends the same again and again, with pauses, until the peer has closed.
async fn drip(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) {
    repeat(stream, bytes, Some(DRIP)).await;
}

/// Sends the same as fast as it goes, and takes what comes.
async fn flood(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) {
    repeat(stream, bytes, None).await;
}

async fn repeat(stream: impl AsyncRead + AsyncWrite, bytes: &[u8], pause: Option<Duration>) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        let mut pace = pause.map(tokio::time::interval);
        loop {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            if writer.write_all(bytes).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    };
    soon(async {
        tokio::select! {
            () = closed(&mut reader) => {}
            () = write => {}
        }
    })
    .await;
}

#[tokio::test]
async fn a_proxy_header_that_never_comes() {
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.8 1111 443\r\n";
    let settings = "listen.proxy_protocol = '127.0.0.0/8'";
    let arena = Arena::with("no PROXY header", settings, header).await;
    let mut stream = TcpStream::connect(arena.edge.http[0]).await.unwrap();
    let started = Instant::now();
    stream.write_all(b"PROXY TCP4 192").await.unwrap();
    closed(&mut stream).await;
    arena.ended(started.elapsed(), HANDSHAKE, &deadline("proxy_header")).await;
}

#[tokio::test]
async fn a_tls_handshake_that_stalls() {
    let arena = Arena::new("silent in the handshake").await;
    let mut stream = TcpStream::connect(arena.https()).await.unwrap();
    let started = Instant::now();
    closed(&mut stream).await;
    arena.ended(started.elapsed(), HANDSHAKE, &deadline("handshake")).await;
}

#[tokio::test]
async fn a_tls_handshake_byte_by_byte() {
    let arena = Arena::new("slow handshake").await;
    let mut stream = TcpStream::connect(arena.https()).await.unwrap();
    let started = Instant::now();
    // A record of a handshake message of 512 bytes, and its bytes.
    stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await.unwrap();
    drip(stream, &[7]).await;
    arena.ended(started.elapsed(), HANDSHAKE, &deadline("handshake")).await;
}

#[tokio::test]
async fn a_tls_connection_without_a_request() {
    let arena = Arena::new("no request").await;
    let mut stream = arena.tls("http/1.1").await;
    let started = Instant::now();
    closed(&mut stream).await;
    arena.ended(started.elapsed(), REQUEST, &deadline("first_request")).await;
}

#[tokio::test]
async fn a_first_request_byte_by_byte() {
    let arena = Arena::new("slow first head").await;
    let mut stream = TcpStream::connect(arena.edge.http[0]).await.unwrap();
    let started = Instant::now();
    let head = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\nCookie: canary-cookie");
    stream.write_all(head.as_bytes()).await.unwrap();
    drip(stream, b"x").await;
    arena.ended(started.elapsed(), REQUEST, &deadline("first_request")).await;
}

#[tokio::test]
async fn a_later_request_byte_by_byte() {
    let arena = Arena::new("slow later head").await;
    let mut client = Http1::new(arena.tls("http/1.1").await);
    assert_eq!(client.get(PATH).await.unwrap().status, 308);
    let mut stream = client.into_inner();
    let started = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\nCookie: canary-cookie").await.unwrap();
    drip(stream, b"x").await;
    arena.ended(started.elapsed(), REQUEST, &deadline("request")).await;
}

#[tokio::test]
async fn a_connection_without_a_further_request() {
    let arena = Arena::new("idle").await;
    let mut client = Http1::new(arena.tls("http/1.1").await);
    assert_eq!(client.get(PATH).await.unwrap().status, 308);
    let started = Instant::now();
    closed(&mut client.into_inner()).await;
    arena.ended(started.elapsed(), IDLE, &deadline("idle")).await;
}

#[tokio::test]
async fn a_form_byte_by_byte() {
    let arena = Arena::new("slow form").await;
    let mut client = Http1::new(arena.tls("http/1.1").await);
    let started = Instant::now();
    let fields = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 900\r\n";
    let reply = client.request("POST", PATH, fields, b"code=canary-code").await.unwrap();
    assert_eq!((reply.status, reply.text("connection").as_str()), (408, "close"));
    // It goes on although it was told; this side is not closed by it either.
    drip(client.into_inner(), b"x").await;
    arena.ended(started.elapsed(), REQUEST, &deadline("body")).await;
}

#[tokio::test]
async fn a_client_that_never_closes_is_left() {
    let arena = Arena::new("never closes").await;
    let address = arena.edge.http[0];
    let mut client = crate::support::connect(address).await;
    let fields = "Connection: close\r\n";
    let reply = client.request("GET", PATH, fields, b"").await.unwrap();
    assert_eq!(reply.status, 308);
    // The edge has closed its side. Once it lets go of the other, bytes are answered by a reset.
    let started = Instant::now();
    let mut stream = client.into_inner();
    let mut pace = tokio::time::interval(DRIP);
    soon(async {
        while stream.write_all(b"x").await.is_ok() {
            pace.tick().await;
        }
    })
    .await;
    let took = started.elapsed();
    assert!(took < IDLE + LATE, "{took:?}");
    arena.ended_by(took, Duration::from_millis(200), "requests_total{status=\"308\"}").await;
}

/// Asks on and on, and takes no answer. Tells how long after it could write no more it ended.
async fn never_reads(
    mut stream: impl AsyncWrite + Unpin,
    requests: &[u8],
    pause: bool,
) -> Duration {
    let mut stuck = Instant::now();
    let mut at = 0;
    soon(async {
        loop {
            let write = async {
                let count = stream.write(&requests[at..]).await?;
                stream.flush().await?;
                Ok::<_, std::io::Error>(count)
            };
            match tokio::time::timeout(Duration::from_millis(20), write).await {
                Ok(Ok(count)) => {
                    at = (at + count) % requests.len();
                    if !pause {
                        stuck = Instant::now();
                    }
                }
                Ok(Err(_)) => return stuck.elapsed(),
                // It takes no more, for now.
                Err(_) => {}
            }
        }
    })
    .await
}

/// A connection whose answers soon fill what the kernel holds for the client.
async fn small_window(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    socket.connect(address).await.unwrap()
}

fn long_requests() -> Vec<u8> {
    let query = "canary-code".repeat(1000);
    format!("GET /oauth/callback?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn a_pipeline_whose_answers_nobody_reads() {
    let arena = Arena::new("pipelines, never reads").await;
    let stream = small_window(arena.edge.http[0]).await;
    let took = never_reads(stream, &long_requests(), false).await;
    arena.ended_by(took, REQUEST, &deadline("response")).await;
}

#[tokio::test]
async fn a_tls_pipeline_whose_answers_nobody_reads() {
    let arena = Arena::new("pipelines over TLS, never reads").await;
    let stream = small_window(arena.https()).await;
    let client = arena.authority.client(&["http/1.1"]);
    let stream = handshake(client, stream, "localhost").await.unwrap();
    let took = never_reads(stream, &long_requests(), false).await;
    arena.ended_by(took, REQUEST, &deadline("response")).await;
}

#[tokio::test]
async fn http2_without_a_preface() {
    let arena = Arena::new("h2, no preface").await;
    let mut stream = arena.tls("h2").await;
    let started = Instant::now();
    closed(&mut stream).await;
    arena.ended(started.elapsed(), REQUEST, &deadline("first_request")).await;
}

#[tokio::test]
async fn http2_idle_with_pings() {
    let arena = Arena::new("h2, idle, PINGs").await;
    let stream = arena.tls("h2").await;
    let (mut sender, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(format!("https://localhost{PATH}")).body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    assert_eq!(soon(response).await.unwrap().status(), 308);
    let started = Instant::now();
    let mut pace = tokio::time::interval(DRIP);
    soon(async {
        while pings.ping(h2::Ping::opaque()).await.is_ok() {
            pace.tick().await;
        }
    })
    .await;
    let _ = soon(connection).await;
    arena.ended(started.elapsed(), IDLE, &deadline("idle")).await;
}

#[tokio::test]
async fn http2_with_a_window_that_never_opens() {
    let arena = Arena::new("h2, window 0").await;
    // SETTINGS_INITIAL_WINDOW_SIZE 0, then something whose answer has a body.
    let mut bytes = frames::opening(&[(4, 0)]);
    let flags = frames::END_HEADERS | frames::END_STREAM;
    bytes.extend(frame(frames::HEADERS, flags, 1, &frames::get("/canary-code")));
    let mut stream = arena.h2(&bytes).await;
    let started = Instant::now();
    closed(&mut stream).await;
    arena.ended(started.elapsed(), REQUEST, &deadline("response")).await;
}

#[tokio::test]
async fn http2_with_a_window_that_never_opens_and_ever_more_requests() {
    let arena = Arena::new("h2, window 0, asks on").await;
    let mut stream = arena.h2(&frames::opening(&[(4, 0)])).await;
    let started = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let flags = frames::END_HEADERS | frames::END_STREAM;
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let ask = async {
        for id in (1..).step_by(2) {
            let request = frame(frames::HEADERS, flags, id, &frames::get("/canary-code"));
            if writer.write_all(&request).await.is_err() || writer.flush().await.is_err() {
                return;
            }
            pace.tick().await;
        }
    };
    soon(async {
        tokio::select! { () = closed(&mut reader) => {}, () = ask => {} }
    })
    .await;
    arena.ended(started.elapsed(), REQUEST, &deadline("response")).await;
}

#[tokio::test]
async fn http2_whose_headers_never_end() {
    let arena = Arena::new("CONTINUATION flood").await;
    let mut bytes = frames::opening(&[]);
    bytes.extend(frame(frames::HEADERS, 0, 1, &frames::get(PATH)));
    let stream = arena.h2(&bytes).await;
    let started = Instant::now();
    // x: canary, without indexing.
    let field = b"\x00\x01x\x06canary".repeat(16);
    flood(stream, &frame(frames::CONTINUATION, 0, 1, &field)).await;
    arena.ended_by(started.elapsed(), REQUEST, &error("flood")).await;
}

#[tokio::test]
async fn http2_whose_headers_come_slowly() {
    let arena = Arena::new("slow CONTINUATION").await;
    let mut bytes = frames::opening(&[]);
    bytes.extend(frame(frames::HEADERS, 0, 1, &frames::get(PATH)));
    let stream = arena.h2(&bytes).await;
    let started = Instant::now();
    // Fewer than make a flood.
    let field = frame(frames::CONTINUATION, 0, 1, b"\x00\x01x\x01y");
    repeat(stream, &field, Some(REQUEST / 3)).await;
    arena.ended(started.elapsed(), REQUEST, &deadline("first_request")).await;
}

#[tokio::test]
async fn http2_requests_taken_back_at_once() {
    let arena = Arena::new("rapid reset").await;
    let stream = arena.h2(&frames::opening(&[])).await;
    let mut bytes = Vec::new();
    for id in (1..40_000).step_by(2) {
        let flags = frames::END_HEADERS | frames::END_STREAM;
        bytes.extend(frame(frames::HEADERS, flags, id, &frames::get(PATH)));
        bytes.extend(frame(frames::RST_STREAM, 0, id, &8u32.to_be_bytes()));
    }
    let started = Instant::now();
    flood(stream, &bytes).await;
    arena.ended_by(started.elapsed(), REQUEST, &error("flood")).await;
}

#[tokio::test]
async fn http2_pings_without_end() {
    let arena = Arena::new("PING flood").await;
    let stream = arena.h2(&frames::opening(&[])).await;
    let started = Instant::now();
    flood(stream, &frame(frames::PING, 0, 0, b"8 bytes.").repeat(1000)).await;
    arena.ended(started.elapsed(), REQUEST, &deadline("first_request")).await;
}

#[tokio::test]
async fn http2_settings_without_end() {
    let arena = Arena::new("SETTINGS flood").await;
    let stream = arena.h2(&frames::opening(&[])).await;
    let started = Instant::now();
    flood(stream, &frame(frames::SETTINGS, 0, 0, &[]).repeat(1000)).await;
    arena.ended(started.elapsed(), REQUEST, &deadline("first_request")).await;
}

#[tokio::test]
async fn http2_pings_without_end_after_a_request() {
    let arena = Arena::new("PING flood, later").await;
    let mut bytes = frames::opening(&[]);
    let flags = frames::END_HEADERS | frames::END_STREAM;
    bytes.extend(frame(frames::HEADERS, flags, 1, &frames::get(PATH)));
    let stream = arena.h2(&bytes).await;
    let started = Instant::now();
    flood(stream, &frame(frames::PING, 0, 0, b"8 bytes.").repeat(1000)).await;
    arena.ended(started.elapsed(), IDLE, &deadline("idle")).await;
}

#[tokio::test]
async fn http2_pings_whose_answers_nobody_reads() {
    let arena = Arena::new("PINGs, never reads").await;
    let stream = small_window(arena.https()).await;
    let client = arena.authority.client(&["h2"]);
    let mut stream = handshake(client, stream, "localhost").await.unwrap();
    stream.write_all(&frames::opening(&[])).await.unwrap();
    let started = Instant::now();
    let pings = frame(frames::PING, 0, 0, b"8 bytes.").repeat(1000);
    never_reads(stream, &pings, true).await;
    let took = started.elapsed();
    arena.ended_by(took, REQUEST, &deadline("first_request")).await;
}

#[tokio::test]
async fn http2_data_frames_without_data() {
    let arena = Arena::new("empty DATA").await;
    let mut bytes = frames::opening(&[]);
    bytes.extend(frame(frames::HEADERS, frames::END_HEADERS, 1, &frames::post(PATH)));
    let stream = arena.h2(&bytes).await;
    let started = Instant::now();
    flood(stream, &frame(frames::DATA, 0, 1, &[]).repeat(100)).await;
    arena.ended_by(started.elapsed(), REQUEST, &error("flood")).await;
}

#[tokio::test]
async fn http2_forms_that_come_slowly() {
    let arena = Arena::new("h2, slow form").await;
    let mut bytes = frames::opening(&[]);
    bytes.extend(frame(frames::HEADERS, frames::END_HEADERS, 1, &frames::post(PATH)));
    let stream = arena.h2(&bytes).await;
    let started = Instant::now();
    drip(stream, &frame(frames::DATA, 0, 1, b"c")).await;
    // 408 for the form, then nothing that counts.
    arena.ended_by(started.elapsed(), REQUEST + IDLE, &deadline("body")).await;
}

/// Busy for ever, and never wrong: its age ends it, between two requests and announced.
#[tokio::test]
async fn an_old_connection_is_told_before_it_ends() {
    let arena = Arena::new("old").await;
    let started = Instant::now();
    let mut client = Http1::new(arena.tls("http/1.1").await);
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    loop {
        let reply = client.get(PATH).await.expect("it ends without a word");
        assert_eq!(reply.status, 308);
        if reply.text("connection") == "close" {
            break;
        }
        assert!(started.elapsed() < AGE + LATE, "it never ends");
        pace.tick().await;
    }
    assert!(client.is_closed().await);
    arena.ended(started.elapsed(), AGE, &deadline("age")).await;
}

#[tokio::test]
async fn half_closed_clients_are_answered_and_leave() {
    let arena = Arena::new("half-closed").await;
    let address = arena.edge.http[0];
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let started = Instant::now();
    let mut client = Http1::new(stream);
    assert_eq!(client.reply().await.unwrap().status, 308);
    assert!(client.is_closed().await);
    let took = started.elapsed();
    arena.ended_by(took, Duration::ZERO, "requests_total{status=\"308\"}").await;
}
