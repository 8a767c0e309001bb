//! Slow and abusive clients: each is disconnected in time and counted by its reason, and other clients
//! are served meanwhile.

mod connections;
mod fairness;
mod http1;
mod http2;
mod slots;

use crate::support::{
    Authority, Bystander, Edge, MACHINE, Metrics, connect_tls, until, with_timeout,
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

/// How long a client may take to close after the server has.
const LINGER: Duration = Duration::from_secs(1);

/// How often slow clients send a few bytes.
const DRIP: Duration = Duration::from_millis(40);

const PATH: &str = "/oauth/callback?code=canary-code&state=canary-state";

/// A server under attack.
struct Attack {
    name: &'static str,
    edge: Edge,
    authority: Authority,
    bystander: Bystander,
    /// Keeps tests that load the machine from running at the same time.
    _machine: Box<dyn Send>,
}

impl Attack {
    async fn new(name: &'static str) -> Self {
        Self::with(name, "", b"").await
    }

    async fn with(name: &'static str, settings: &str, first: &'static [u8]) -> Self {
        // A flood loads the machine.
        let machine: Box<dyn Send> = if name.contains("flood") {
            Box::new(MACHINE.write().await)
        } else {
            Box::new(MACHINE.read().await)
        };
        let is_set = settings.contains("connection_age");
        let age = if is_set { "" } else { "limits.connection_age = '4s'" };
        let (edge, authority) = Edge::over_tls(&format!(
            "
            limits.handshake_timeout = '400ms'
            limits.request_timeout = '300ms'
            limits.idle_timeout = '500ms'
            {age}
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

    /// An HTTP/2 client that has sent these bytes.
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

    /// The same as [`Attack::ended`], but the connection may end earlier.
    async fn ended_by(self, took: Duration, deadline: Duration, series: &str) {
        eprintln!("{}: closed after {took:?}, at most {deadline:?}", self.name);
        assert!(took <= deadline + LATE, "{}: only after {took:?}", self.name);
        // The client may see the end before it is counted.
        until(series, async || self.edge.metrics().await.get(series) >= 1.0).await;
        let metrics = self.edge.metrics().await;
        self.bystander.finish().await;
        let log = self.edge.finish();
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

/// Reads and discards until the end.
async fn closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut waste = vec![0; 16 * 1024];
    while !matches!(with_timeout(stream.read(&mut waste)).await, Ok(0) | Err(_)) {}
}

/// Sends the same bytes repeatedly, with pauses, until the peer has closed.
async fn drip(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) {
    repeat(stream, bytes, Some(DRIP)).await;
}

/// Sends the same bytes as fast as possible, and reads the responses.
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
    with_timeout(async {
        tokio::select! {
            () = closed(&mut reader) => {}
            () = write => {}
        }
    })
    .await;
}

/// Sends requests without reading responses. Returns how long the connection lasted after it accepted no
/// more bytes.
async fn never_reads(
    mut stream: impl AsyncWrite + Unpin,
    requests: &[u8],
    pause: bool,
) -> Duration {
    let mut stuck = Instant::now();
    let mut at = 0;
    with_timeout(async {
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
                // It accepts no more for now.
                Err(_) => {}
            }
        }
    })
    .await
}

/// A connection whose responses soon fill the kernel's buffers.
async fn small_window(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    socket.connect(address).await.unwrap()
}
