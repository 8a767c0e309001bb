//! The soak test: two minutes of every kind of client at a fixed rate, while certificates rotate
//! and the configuration is reloaded.

use crate::support::{Authority, Edge, Http1, Http2, Reply, connect, connect_tls};
use rustix::process::Signal;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::interval;
use tokio_rustls::client::TlsStream;

/// Requests per second.
const RATE: usize = 100;
const SECONDS: usize = 120;
/// The origin of the redirect targets.
const NANGO: &str = "https://api.nango.dev";
/// The second at which memory is stable.
const SETTLED: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_minutes_of_mixed_load_lose_no_request() {
    let (edge, authority) = Edge::over_tls("");
    let clients = Arc::new(Clients::new(authority, &edge));
    let mut requests = JoinSet::new();
    let mut memory = Vec::new();
    let (mut rotations, mut reloads) = (0, 0);
    // Late ticks are caught up: the average rate is exact.
    let mut tick = interval(Duration::from_secs(1) / u32::try_from(RATE).unwrap());
    for number in 0..RATE * SECONDS {
        tick.tick().await;
        requests.spawn(Arc::clone(&clients).request(number));
        while let Some(request) = requests.try_join_next() {
            request.unwrap();
        }
        let (second, within) = (number / RATE, number % RATE);
        // Not at the same time: a reload during a rotation is correctly rejected.
        if second % 5 == 0 && within == RATE / 4 {
            clients.authority.write(edge.dir(), "edge", &["localhost"]);
            rotations += 1;
        }
        if second % 7 == 0 && within == RATE / 2 {
            edge.signal(Signal::HUP);
            reloads += 1;
        }
        if within == 0 {
            memory.push(resident_kib(&edge));
        }
    }
    while let Some(request) = requests.join_next().await {
        request.unwrap();
    }

    let settled = median(&memory[SETTLED - 5..SETTLED + 5]);
    let end = median(&memory[SECONDS - 10..]);
    assert!(end <= settled + settled / 10, "memory grows: {memory:?} KiB");

    let log = edge.finish();
    let count = |event: &str| log.matches(&format!("\"event\":\"{event}\"")).count();
    assert_eq!(count("request"), RATE * SECONDS);
    assert_eq!(count("reloaded"), reloads);
    assert_eq!(count("reload_failed") + count("panic"), 0);
    // A reload may load a new certificate before the next poll of the files.
    assert!(
        count("certificate_loaded") > rotations / 2,
        "{} of {rotations}",
        count("certificate_loaded")
    );
    println!("resident set: {settled} KiB after {SETTLED} s, {end} KiB at the end");
}

/// The clients, and their persistent connections.
struct Clients {
    authority: Authority,
    http: SocketAddr,
    https: SocketAddr,
    persistent_plain: Mutex<Option<Http1<TcpStream>>>,
    persistent_tls: Mutex<Option<Http1<TlsStream<TcpStream>>>>,
    persistent_h2: Mutex<Option<Http2>>,
}

impl Clients {
    fn new(authority: Authority, edge: &Edge) -> Self {
        Self {
            authority,
            http: edge.http[0],
            https: edge.https[0],
            persistent_plain: Mutex::default(),
            persistent_tls: Mutex::default(),
            persistent_h2: Mutex::default(),
        }
    }

    /// Sends one request and verifies its response. The kinds of clients alternate.
    async fn request(self: Arc<Self>, number: usize) {
        let query = format!("code=4%2F{number}&state=9b2d+{number}");
        let target = format!("/oauth/callback?{query}");
        let form = number % 8 == 3;
        let (reply, to) = match number % 8 {
            0 => (connect(self.http).await.get(&target).await, "https://localhost"),
            1 => (
                get_persistent(&self.persistent_plain, connect(self.http), &target).await,
                "https://localhost",
            ),
            2 => (self.tls().await.get(&target).await, NANGO),
            3 => (self.tls().await.post("/oauth/callback", &query).await, NANGO),
            4 | 5 => (get_persistent(&self.persistent_tls, self.tls(), &target).await, NANGO),
            6 => (self.h2().await.get(&target).await.ok(), NANGO),
            _ => (self.on_persistent_h2(&target).await, NANGO),
        };
        let reply = reply.unwrap_or_else(|| panic!("request {number} has no response"));
        assert_eq!(reply.status, if form { 303 } else { 308 });
        assert_eq!(reply.location(), format!("{to}{target}"));
    }

    async fn tls(&self) -> Http1<TlsStream<TcpStream>> {
        let stream = connect_tls(&self.authority, self.https, "localhost", &["http/1.1"]);
        Http1::new(stream.await.unwrap())
    }

    async fn h2(&self) -> Http2 {
        Http2::connect(&self.authority, self.https, "localhost").await
    }

    async fn on_persistent_h2(&self, target: &str) -> Option<Reply> {
        let mut slot = self.persistent_h2.lock().await;
        let mut client = match slot.take() {
            Some(client) => client,
            None => self.h2().await,
        };
        let reply = client.get(target).await.ok();
        *slot = Some(client);
        reply
    }
}

/// Sends a request on a persistent connection; the next one is new if the response closes it.
async fn get_persistent<S: AsyncRead + AsyncWrite + Unpin>(
    slot: &Mutex<Option<Http1<S>>>,
    new: impl Future<Output = Http1<S>>,
    target: &str,
) -> Option<Reply> {
    let mut slot = slot.lock().await;
    let mut client = match slot.take() {
        Some(client) => client,
        None => new.await,
    };
    let reply = client.get(target).await?;
    if reply.text("connection") != "close" {
        *slot = Some(client);
    }
    Some(reply)
}

/// `VmRSS` (`proc_pid_status(5)`).
fn resident_kib(edge: &Edge) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", edge.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn median(samples: &[usize]) -> usize {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}
