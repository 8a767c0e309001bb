//! What a normal client notices while others attack. `benches/README.md` describes how to run this
//! and what the figures mean.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a benchmark prints its results and fails by panicking"
)]

#[path = "../tests/edge/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "it uses a part of the harness of the suites")]
mod support;

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process_group, setrlimit};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::heads::{HeldHeads, STREAMS, indexed, peak, resident};
use support::{Edge, Http1, certified, settings};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Seconds of each attack, and requests of the normal client per second.
const SECONDS: u32 = 6;
const RATE: u32 = 150;
/// Idle connections; each is an open file of the server, and one of the attacker.
const IDLE: usize = 20_000;
const NORMAL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const GET: &str = "GET /oauth/callback?code=1&state=2 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Name; settings in addition to the defaults; program and arguments.
const ATTACKS: &[(&str, &str, &[&str])] = &[
    ("slow heads", MANY, &["slowhttptest", "-H", "-c", "4000", "-r", "2000", "-i", "1"]),
    ("slow forms", MANY, &["slowhttptest", "-B", "-c", "4000", "-r", "2000", "-i", "1"]),
    ("slow reading", MANY, &["slowhttptest", "-X", "-c", "4000", "-r", "2000", "-k", "5"]),
    ("idle connections", MANY, &["idle"]),
    ("connections opened and closed", MANY, &["churn"]),
    ("heads of 70,000 bytes", MANY, &["heads"]),
    ("queries of 64 KiB", MANY, &["queries"]),
    ("continuous requests, one address", SHORT, &["flood", "1"]),
    ("continuous requests, 100 addresses", SHORT, &["flood", "100"]),
    ("slow forms in all 2,000 slots, 9 addresses", FULL, &["forms", "9"]),
    ("slow forms in all 2,000 slots, 100 addresses", FULL, &["forms", "100"]),
    ("slow heads in all 2,000 slots, 9 addresses", FULL, &["partial heads", "9"]),
    ("the same, opened again after 100 ms", FULL, &["cycling heads", "9"]),
    ("slow forms in all 2,000 slots, one IPv6 /48", FULL_BEHIND_A_PROXY, &["proxied forms", "100"]),
];

/// Short time-outs, so that the attackers reach them.
const SHORT: &str = "limits.request_timeout = '3s'\nlimits.idle_timeout = '3s'\n";

/// As if each connection came from another network.
const MANY: &str = "limits.request_timeout = '3s'\nlimits.idle_timeout = '3s'\n\
    limits.connections = 25000\nlimits.connections_per_address = 25000\n";

/// So few slots that the attackers occupy all of them; the time-outs are the defaults.
const FULL: &str = "limits.connections = 2000\n";
const FULL_BEHIND_A_PROXY: &str =
    "limits.connections = 2000\nlisten.proxy_protocol = '127.0.0.0/8'\n";

/// Connections that the attackers of [`FULL`] try to keep open.
const SLOW: usize = 2200;

/// Connections of the attack on memory.
const HELD: usize = 256;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["attack", address, ref what @ ..] => {
            raise_file_limit();
            runtime().block_on(attack(address.parse().unwrap(), what));
        }
        ["pinned", ref only @ ..] => runtime().block_on(run(only)),
        // The server has CPU 0, all others CPU 1, where the attackers have a lower priority.
        _ => {
            let mut command = Command::new("taskset");
            command.args(["-c", "1"]).arg(std::env::current_exe().unwrap()).arg("pinned");
            command.args(words.iter().filter(|word| **word != "--bench"));
            panic!("cannot run taskset on two CPUs: {}", command.exec());
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs the attacks whose name contains one of these words, or all.
async fn run(only: &[&str]) {
    raise_file_limit();
    let is_selected = |name: &str| only.is_empty() || only.iter().any(|word| name.contains(word));
    println!("{} idle connections\n", idle());
    let mut rows = Vec::new();
    for (name, limits, program) in ATTACKS.iter().filter(|(name, ..)| is_selected(name)) {
        let settings = settings::plain(&format!("log.requests = false\n{limits}"));
        let edge = start(TempDir::new().unwrap(), &settings);
        let proxied = limits.contains("proxy_protocol");
        let baseline = requests(edge.http[0], proxied).await;
        let attack = Attacker::start(edge.http[0], program);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let open = if limits.contains("2000") { full(&edge).await } else { 0.0 };
        let meanwhile = requests(edge.http[0], proxied).await;
        attack.stop();
        let closed = closed(&edge).await;
        println!(
            "{name}: {open} slots occupied; p99 {} before, {} meanwhile; {} of {} lost",
            micros(baseline.at(0.99)),
            micros(meanwhile.at(0.99)),
            meanwhile.lost,
            meanwhile.lost + meanwhile.took.len(),
        );
        rows.push((name, baseline, meanwhile, closed));
        edge.finish();
    }
    if !rows.is_empty() {
        print(rows);
    }
    let memory = "incomplete HTTP/2 requests";
    if is_selected(memory) {
        println!("\n{memory}, {HELD} connections");
        for heads in [
            HeldHeads::form("64 forms with 1,850 fields of one byte", &indexed(1850)),
            HeldHeads::form("64 forms with 90 fields of one byte", &indexed(90)),
        ] {
            memory_held(&heads).await;
        }
    }
}

type Row = (&'static &'static str, Results, Results, String);

fn print(rows: Vec<Row>) {
    // The median of all rows, because other activity of the machine affects some of them.
    let mut without: Vec<_> = rows.iter().map(|(_, baseline, ..)| baseline.at(0.99)).collect();
    without.sort_unstable();
    let without = without[without.len() / 2];
    println!("\nwithout attack: p99 {}, the median of {}\n", micros(without), rows.len());
    println!("| Attack | p50 | p99 | relative | longest | lost | closed by the server |");
    println!("|---|---|---|---|---|---|---|");
    for (name, baseline, meanwhile, closed) in rows {
        let p99 = meanwhile.at(0.99);
        println!(
            "| {name} | {} | {} | {:.1} | {} | {} | {closed} |",
            micros(meanwhile.at(0.5)),
            micros(p99),
            p99.as_secs_f64() / without.as_secs_f64(),
            micros(meanwhile.at(1.0)),
            baseline.lost + meanwhile.lost,
        );
    }
}

/// Starts the server on CPU 0.
fn start(dir: TempDir, settings: &str) -> Edge {
    let script = r#"exec taskset -c 0 "$0" "$@""#;
    Edge::start_from_shell(dir, settings, script, |command| {
        command.env("PATH", "/usr/bin:/bin");
    })
}

/// Waits until nearly all of 2,000 slots are occupied, or 20 s; returns how many are.
async fn full(edge: &Edge) -> f64 {
    let started = Instant::now();
    loop {
        let open = edge.metrics().await.connections();
        if open >= 1950.0 || started.elapsed() > Duration::from_secs(20) {
            return open;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The memory of the process while many connections have incomplete requests, and afterwards.
async fn memory_held(heads: &HeldHeads) {
    let (authority, dir) = certified(&["localhost"]);
    let settings = "log.requests = false\nlimits.connections_per_address = 25000\n\
        limits.request_timeout = '5m'";
    let edge = start(dir, &settings::tls(settings));
    requests(edge.http[0], false).await;
    let before = resident(edge.id());
    let mut open = Vec::new();
    for _ in 0..HELD {
        open.push(heads.connection(&authority, edge.https[0]).await);
    }
    let (most, now) = (peak(edge.id()), resident(edge.id()));
    let meanwhile = requests(edge.http[0], false).await;
    drop(open);
    let closed = Instant::now();
    while resident(edge.id()) > before + (8 << 20) && closed.elapsed() < Duration::from_mins(1) {
        requests(edge.http[0], false).await;
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let sent = heads.block.len() * STREAMS as usize * HELD;
    println!(
        "{}: {:.1} MiB sent; {:.1} MiB before, {:.1} meanwhile, {:.1} at most, {:.1} KiB per \
         connection; {:.1} MiB {} s after they closed; p99 of requests {}, {} lost",
        heads.name,
        mib(sent as u64),
        mib(before),
        mib(now),
        mib(most),
        mib(most.saturating_sub(before)) * 1024.0 / HELD as f64,
        mib(resident(edge.id())),
        closed.elapsed().as_secs(),
        micros(meanwhile.at(0.99)),
        meanwhile.lost,
    );
    edge.finish();
}

/// In microseconds; zero if nothing was measured.
fn micros(duration: Duration) -> String {
    if duration.is_zero() { "–".to_owned() } else { format!("{} µs", duration.as_micros()) }
}

/// The reasons for which the server closed connections.
async fn closed(edge: &Edge) -> String {
    let metrics = edge.metrics().await;
    let lines = metrics.0.lines().filter_map(|line| {
        let (series, value) = line.strip_prefix("callback_edge_")?.rsplit_once(' ')?;
        let (name, label) = series.split_once("_total")?;
        let counters = ["deadlines", "limits", "connections_evicted", "connection_errors"];
        let label = label.split('"').nth(1).unwrap_or("evicted");
        let count: f64 = value.parse().ok()?;
        (counters.contains(&name) && count > 0.0).then(|| format!("{label} {count}"))
    });
    lines.collect::<Vec<_>>().join(", ")
}

struct Results {
    /// Sorted.
    took: Vec<Duration>,
    lost: usize,
}

impl Results {
    fn at(&self, share: f64) -> Duration {
        let last = self.took.len().saturating_sub(1);
        // If all are lost, there is no duration.
        self.took.get(((last as f64) * share) as usize).copied().unwrap_or_default()
    }
}

/// Requests at a fixed rate, each on a new connection, whether earlier ones have finished or not.
async fn requests(address: SocketAddr, proxied: bool) -> Results {
    let mut requests = JoinSet::new();
    let mut tick = interval(Duration::from_secs(1) / RATE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..RATE * SECONDS {
        tick.tick().await;
        requests.spawn(async move {
            let began = Instant::now();
            let request = async {
                let mut client = Http1::new(connect(NORMAL, address).await?);
                if proxied {
                    client.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 1111 443\r\n").await;
                }
                client.get("/oauth/callback?code=1&state=2").await
            };
            let reply = timeout(Duration::from_secs(10), request).await.ok().flatten();
            reply.filter(|reply| reply.status == 308).map(|_| began.elapsed())
        });
    }
    let all = requests.join_all().await;
    let mut took: Vec<_> = all.iter().copied().flatten().collect();
    took.sort_unstable();
    Results { lost: all.len() - took.len(), took }
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).ok()?;
    socket.connect(to).await.ok()
}

struct Attacker(Child);

impl Attacker {
    fn start(address: SocketAddr, what: &[&str]) -> Self {
        // slowhttptest exits when all of its connections are closed; it is restarted then.
        let mut command = Command::new("sh");
        command.args(["-c", r#"while :; do nice -n 19 "$@"; done"#, "sh"]);
        if what[0] == "slowhttptest" {
            let url = format!("http://{address}/oauth/callback?{}", "x".repeat(8000));
            command.args(what).args(["-l", "60", "-u", &url]);
        } else {
            command.arg(std::env::current_exe().unwrap());
            command.args(["attack", &address.to_string()]).args(what);
        }
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().expect("the programs that tests/peers/setup installs"))
    }

    fn stop(mut self) {
        kill_process_group(Pid::from_child(&self.0), Signal::KILL).unwrap();
        self.0.wait().unwrap();
    }
}

/// Runs an attack until it is killed.
async fn attack(address: SocketAddr, what: &[&str]) {
    let local = Ipv4Addr::LOCALHOST;
    let big = match what {
        ["heads"] => format!("{}x: {}\r\n\r\n", GET.trim_end(), "a".repeat(70_000)),
        _ => GET.replace("code=1", &"q".repeat(64 << 10)),
    };
    match what {
        ["idle"] => {
            let mut open = Vec::new();
            loop {
                // Opens connections again that the server has closed.
                while open.len() < idle() {
                    let from = Ipv4Addr::new(127, 0, 1, (open.len() % 200) as u8 + 1);
                    open.extend(connect(from, address).await);
                }
                open.drain(..1000);
            }
        }
        ["churn"] => loop {
            drop(connect(local, address).await);
        },
        ["heads" | "queries"] => loop {
            let Some(mut stream) = connect(local, address).await else { continue };
            let _ = stream.write_all(big.as_bytes()).await;
            let _ = timeout(Duration::from_secs(1), stream.read(&mut [0; 512])).await;
        },
        ["flood", addresses] => {
            let addresses: usize = addresses.parse().unwrap();
            let mut clients = JoinSet::new();
            for number in 0..200 {
                let from = Ipv4Addr::new(127, 0, 1, (number % addresses) as u8 + 1);
                clients.spawn(flood(from, address));
            }
            clients.join_all().await;
        }
        [kind, addresses] => {
            let addresses: usize = addresses.parse().unwrap();
            let mut clients = JoinSet::new();
            for number in 0..SLOW {
                clients.spawn(slow((*kind).to_owned(), number % addresses, address));
            }
            clients.join_all().await;
        }
        _ => panic!("no such attack: {what:?}"),
    }
}

/// Occupies a slot with a request that arrives byte by byte, and connects again when it is closed.
async fn slow(kind: String, number: usize, address: SocketAddr) {
    // Each from another /16, or from another /64 of one /48.
    let from = Ipv4Addr::new(127, 10 + number as u8, 0, 1);
    let header = format!("PROXY TCP6 2001:db8:7:{number:x}::1 2001:db8::1 1111 443\r\n");
    let form = "POST /oauth/callback HTTP/1.1\r\nHost: h\r\n\
        content-type: application/x-www-form-urlencoded\r\ncontent-length: 30000\r\n\r\n";
    let begin = match kind.as_str() {
        "forms" => form.to_owned(),
        "proxied forms" => header + form,
        "partial heads" | "cycling heads" => "GET /oauth/callback?code=".to_owned(),
        _ => panic!("no such attack: {kind}"),
    };
    let (pause, bytes) = match kind.as_str() {
        "cycling heads" => (Duration::from_millis(100), 0),
        _ => (Duration::from_secs(1), usize::MAX),
    };
    loop {
        let Some(mut stream) = connect(from, address).await else { continue };
        if stream.write_all(begin.as_bytes()).await.is_err() {
            continue;
        }
        let mut waste = [0; 512];
        let mut sent = 0;
        // The connection is closed, or there is a response.
        while timeout(pause, stream.read(&mut waste)).await.is_err() {
            if sent == bytes || stream.write_all(b"a").await.is_err() {
                break;
            }
            sent += 1;
        }
    }
}

/// Sends a hundred requests at once, repeatedly.
async fn flood(from: Ipv4Addr, address: SocketAddr) {
    let batch = GET.repeat(100);
    let mut waste = vec![0; 64 << 10];
    loop {
        let Some(mut stream) = connect(from, address).await else { continue };
        while stream.write_all(batch.as_bytes()).await.is_ok() {
            if !matches!(stream.read(&mut waste).await, Ok(1..)) {
                break;
            }
        }
    }
}

/// Raises the limit of open files.
fn raise_file_limit() {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
}

/// The number of idle connections that leaves the server files for others, and for those that it has
/// not closed yet.
fn idle() -> usize {
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    IDLE.min(usize::try_from(files).unwrap_or(usize::MAX) - 1500)
}
