//! The soak test: two minutes of what a busy day brings. Every kind of client comes at a fixed rate,
//! while certificates rotate and settings are reloaded.

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

/// Visits a second; each is one request.
const RATE: usize = 100;
const SECONDS: usize = 120;
/// Where the edge leads to.
const NANGO: &str = "https://api.nango.dev";
/// The second at which memory has settled.
const SETTLED: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_minutes_of_mixed_load_lose_nothing() {
    let (edge, authority) = Edge::over_tls("");
    let visitors = Arc::new(Visitors::of(authority, &edge));
    let mut visits = JoinSet::new();
    let mut memory = Vec::new();
    let (mut rotations, mut reloads) = (0, 0);
    // A late tick is made up for: the rate holds over the whole.
    let mut tick = interval(Duration::from_secs(1) / u32::try_from(RATE).unwrap());
    for number in 0..RATE * SECONDS {
        tick.tick().await;
        visits.spawn(Arc::clone(&visitors).visit(number));
        while let Some(visit) = visits.try_join_next() {
            visit.unwrap();
        }
        let (second, within) = (number / RATE, number % RATE);
        // Apart from each other: a reload in the midst of a rotation is refused, and rightly so.
        if second % 5 == 0 && within == RATE / 4 {
            visitors.authority.write(edge.dir(), "edge", &["localhost"]);
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
    while let Some(visit) = visits.join_next().await {
        visit.unwrap();
    }

    let settled = median(&memory[SETTLED - 5..SETTLED + 5]);
    let end = median(&memory[SECONDS - 10..]);
    assert!(end <= settled + settled / 10, "it grows: {memory:?} KiB");

    let log = edge.finish();
    let said = |event: &str| log.matches(&format!("\"event\":\"{event}\"")).count();
    assert_eq!(said("request"), RATE * SECONDS);
    assert_eq!(said("reloaded"), reloads);
    assert_eq!(said("reload_failed") + said("panic"), 0);
    // A reload takes a new certificate too, before the next look at the files finds it.
    assert!(
        said("certificate_loaded") > rotations / 2,
        "{} of {rotations}",
        said("certificate_loaded")
    );
    println!("resident: {settled} KiB after {SETTLED} s, {end} KiB at the end");
}

/// Everybody who calls, and the connections that they keep.
struct Visitors {
    authority: Authority,
    http: SocketAddr,
    https: SocketAddr,
    kept_plain: Mutex<Option<Http1<TcpStream>>>,
    kept_tls: Mutex<Option<Http1<TlsStream<TcpStream>>>>,
    kept_h2: Mutex<Option<Http2>>,
}

impl Visitors {
    fn of(authority: Authority, edge: &Edge) -> Self {
        Self {
            authority,
            http: edge.http[0],
            https: edge.https[0],
            kept_plain: Mutex::default(),
            kept_tls: Mutex::default(),
            kept_h2: Mutex::default(),
        }
    }

    /// One visit, whose answer must be right. The kinds take turns.
    async fn visit(self: Arc<Self>, number: usize) {
        let query = format!("code=4%2F{number}&state=9b2d+{number}");
        let target = format!("/oauth/callback?{query}");
        let form = number % 8 == 3;
        let (reply, to) = match number % 8 {
            0 => (connect(self.http).await.get(&target).await, "https://localhost"),
            1 => (kept(&self.kept_plain, connect(self.http), &target).await, "https://localhost"),
            2 => (self.tls().await.get(&target).await, NANGO),
            3 => (self.tls().await.post("/oauth/callback", &query).await, NANGO),
            4 | 5 => (kept(&self.kept_tls, self.tls(), &target).await, NANGO),
            6 => (self.h2().await.get(&target).await.ok(), NANGO),
            _ => (self.on_kept_h2(&target).await, NANGO),
        };
        let reply = reply.unwrap_or_else(|| panic!("visit {number} is lost"));
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

    async fn on_kept_h2(&self, target: &str) -> Option<Reply> {
        let mut slot = self.kept_h2.lock().await;
        let mut client = match slot.take() {
            Some(client) => client,
            None => self.h2().await,
        };
        let reply = client.get(target).await.ok();
        *slot = Some(client);
        reply
    }
}

/// A request on a connection that is kept, until an answer says that it ends.
async fn kept<S: AsyncRead + AsyncWrite + Unpin>(
    slot: &Mutex<Option<Http1<S>>>,
    fresh: impl Future<Output = Http1<S>>,
    target: &str,
) -> Option<Reply> {
    let mut slot = slot.lock().await;
    let mut client = match slot.take() {
        Some(client) => client,
        None => fresh.await,
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
