//! Many connections at once, and too few file descriptors.

use crate::support::{
    Edge, Http1, MACHINE, Metrics, certified, connect, settings, until, with_timeout,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

const MIB: f64 = 1024.0 * 1024.0;

/// What 5,000 connections may add to the memory of the process, however often they are opened, and
/// which part may remain when they are closed: a page is returned only when all allocations in it are
/// freed.
const CROWD: usize = 5_000;
const CROWD_MAY_COST: f64 = 160.0 * MIB;
const MAY_REMAIN: f64 = 0.85;

/// Opens connections that send nothing.
async fn silent(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut tasks = JoinSet::new();
    for part in 0..50 {
        let share = count / 50 + usize::from(part < count % 50);
        tasks.spawn(async move {
            let mut open = Vec::with_capacity(share);
            for _ in 0..share {
                open.push(with_timeout(TcpStream::connect(address)).await.unwrap());
            }
            open
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn is_open(client: &mut Http1<TcpStream>) -> bool {
    let reply = client.get("/oauth/callback?a").await;
    reply.is_some_and(|reply| reply.status == 308)
}

#[tokio::test]
async fn five_thousand_silent_connections_cost_little_and_block_no_client() {
    let _machine = MACHINE.write().await;
    let mut files = getrlimit(Resource::Nofile);
    let needed = CROWD as u64 + 500;
    assert!(
        files.maximum.is_none_or(|most| most >= needed),
        "this test needs {needed} open files, and the hard limit is {:?}: raise it (ulimit -Hn)",
        files.maximum,
    );
    if files.current.is_some_and(|current| current < needed) {
        files.current = Some(needed);
        setrlimit(Resource::Nofile, files).unwrap();
    }
    let edge = Edge::plain(
        "
        limits.connections = 6000
        limits.connections_per_address = 6000
        limits.request_timeout = '60s'
        log.requests = false
        ",
    );
    connect(edge.http[0]).await.get("/oauth/callback").await.unwrap();
    let before = edge.metrics().await.get("process_resident_memory_bytes");

    #[expect(clippy::cast_precision_loss, reason = "five thousand fit")]
    let wanted = CROWD as f64;
    let mut full = Vec::new();
    for _ in 0..3 {
        let crowd = silent(edge.http[0], CROWD).await;
        until("all are connected", async || edge.metrics().await.connections() >= wanted).await;
        let sent = Instant::now();
        assert!(is_open(&mut connect(edge.http[0]).await).await);
        assert!(sent.elapsed() < Duration::from_secs(1), "{:?}", sent.elapsed());
        full.push(edge.metrics().await.get("process_resident_memory_bytes"));
        drop(crowd);
        until("all are closed", async || edge.metrics().await.connections() < 1.0).await;
        until("their files are closed", async || {
            edge.metrics().await.get("process_open_fds") < 50.0
        })
        .await;
    }
    let most = full.iter().copied().fold(before, f64::max) - before;
    assert!(most < CROWD_MAY_COST, "{:.1} MiB", most / MIB);
    let mut after = most;
    until("memory is given back", async || {
        // Freed memory is returned gradually, while requests are served.
        for _ in 0..20 {
            assert!(is_open(&mut connect(edge.http[0]).await).await);
        }
        after = edge.metrics().await.get("process_resident_memory_bytes") - before;
        after < most * MAY_REMAIN
    })
    .await;
    eprintln!(
        "RSS: {:.1} MiB; {CROWD} connections cost {:.1} MiB more, of which {:.1} MiB remain",
        before / MIB,
        most / MIB,
        after / MIB,
    );
    assert!(is_open(&mut connect(edge.http[0]).await).await);
}

/// What a connection that waits for its next request may cost. While it is active, it has two buffers
/// of 8 KiB more.
const WAITING_MAY_COST: f64 = 10.0 * 1024.0;

#[tokio::test]
async fn a_waiting_connection_has_no_buffers_and_resumes() {
    const COUNT: usize = 400;
    let _machine = MACHINE.write().await;
    let edge = Edge::plain("limits.connections_per_address = 1000\nlog.requests = false");
    connect(edge.http[0]).await.get("/oauth/callback").await.unwrap();
    let before = edge.metrics().await.get("process_resident_memory_bytes");
    let query = "a".repeat(6000);
    let mut clients = Vec::new();
    for _ in 0..COUNT {
        let mut client = connect(edge.http[0]).await;
        assert!(client.get(&format!("/oauth/callback?{query}")).await.is_some());
        clients.push(client);
    }
    let mut each = 0.0;
    until("they have freed their buffers", async || {
        // Freed memory is returned gradually, while requests are served.
        for _ in 0..20 {
            assert!(is_open(&mut connect(edge.http[0]).await).await);
        }
        let now = edge.metrics().await.get("process_resident_memory_bytes");
        #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
        let count = COUNT as f64;
        each = (now - before) / count;
        each < WAITING_MAY_COST
    })
    .await;
    eprintln!("a waiting connection costs {each:.0} bytes");
    clients[0].send(b"GET /oauth/callback?a#b HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(clients[0].reply().await.unwrap().status, 400);
    for (number, client) in clients.iter_mut().enumerate().skip(1) {
        // In two parts: the first resumes the connection, and must not be lost.
        client.send(format!("GET /oauth/callback?{number}").as_bytes()).await;
        client.send(b"&b= HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let reply = client.reply().await.unwrap();
        let location = format!("https://api.nango.dev/oauth/callback?{number}&b=");
        assert_eq!((reply.status, reply.text("location")), (308, location));
    }
    // A hibernating connection closes like any other.
    edge.finish();
    for client in &mut clients {
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn at_the_limit_the_longest_idle_connection_is_evicted() {
    let edge = Edge::plain("limits.connections = 4");
    let address = edge.http[0];
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = connect(address).await;
        assert!(is_open(&mut client).await);
        clients.push(client);
    }
    // No connection is idle long enough to be evicted: the new one waits, and is served then.
    let mut new = connect(address).await;
    assert!(is_open(&mut new).await);
    assert!(clients[0].is_closed().await, "the oldest is still there");
    let metrics = edge.metrics().await;
    assert!(metrics.get("connections_evicted_total") >= 1.0);
    assert!(metrics.get("limits_total{limit=\"connections\"}") >= 1.0);
    assert_eq!(metrics.get("connections_refused_total{reason=\"address\"}") as i64, 0);
    // The newest keep their slots.
    assert!(is_open(&mut clients[3]).await);
    assert!(is_open(&mut new).await);
}

#[tokio::test]
async fn silent_connections_are_evicted_and_busy_ones_are_not() {
    let edge = Edge::plain("limits.connections = 4\nlimits.request_timeout = '60s'");
    let address = edge.http[0];
    let mut busy = connect(address).await;
    busy.send(
        b"POST /oauth/callback HTTP/1.1\r\nHost: localhost\r\n\
          content-type: application/x-www-form-urlencoded\r\ncontent-length: 6\r\n\r\ncod",
    )
    .await;
    until("it is connected", async || {
        edge.metrics().await.get("connections{state=\"active\"}") > 0.0
    })
    .await;
    let silent = silent(address, 8).await;
    let mut new = connect(address).await;
    assert!(is_open(&mut new).await, "silent connections block other clients");
    busy.send(b"e=1").await;
    assert_eq!(busy.reply().await.unwrap().status, 303);
    drop(silent);
}

#[tokio::test]
async fn two_listeners_can_share_a_single_slot() {
    let edge = Edge::plain(
        "
        listen.http = ['127.0.0.1:0', '[::1]:0']
        limits.connections = 1
        ",
    );
    for _ in 0..3 {
        for address in &edge.http {
            assert!(is_open(&mut connect(*address).await).await, "{address}");
        }
    }
}

#[tokio::test]
async fn each_address_has_a_connection_limit() {
    let edge = Edge::plain(
        "
        listen.http = ['127.0.0.1:0', '[::1]:0']
        limits.connections_per_address = 2
        limits.request_timeout = '60s'
        ",
    );
    let [v4, v6] = edge.http[..] else { panic!("two addresses") };
    let refused = "connections_refused_total{reason=\"address\"}";
    let (mut first, mut second) = (connect(v4).await, connect(v4).await);
    assert!(is_open(&mut first).await);
    // The server compares times in milliseconds.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(is_open(&mut second).await);
    // Both were busy a moment ago: the third is refused.
    assert!(connect(v4).await.is_closed().await);
    let metrics = edge.metrics().await;
    assert_eq!(metrics.get(refused) as i64, 1);
    assert_eq!(metrics.get("limits_total{limit=\"connections_per_address\"}") as i64, 1);
    // Another address is not affected.
    assert!(is_open(&mut connect(v6).await).await);
    // Once one is idle, it is evicted for a new one.
    let mut new = None;
    until("a slot is free", async || {
        let mut client = connect(v4).await;
        let open = is_open(&mut client).await;
        new = Some(client);
        open
    })
    .await;
    assert!(first.is_closed().await, "the older one is still there");
    assert!(is_open(&mut second).await);
    assert!(edge.metrics().await.get("connections_evicted_total") >= 1.0);
}

#[tokio::test]
async fn the_limit_per_address_does_not_apply_to_trusted_proxies() {
    let edge = Edge::plain(
        "
        listen.trusted_proxies = '127.0.0.0/8'
        limits.connections_per_address = 1
        ",
    );
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(connect(edge.http[0]).await);
    }
    for client in &mut clients {
        assert!(is_open(client).await);
    }
}

/// User and system time of a process so far (proc(5)), in seconds.
pub(crate) fn cpu_seconds(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

#[tokio::test]
async fn out_of_files_the_server_neither_spins_nor_stops() {
    let _machine = MACHINE.read().await;
    let (_, dir) = certified(&["localhost"]);
    let settings = settings::tls("limits.request_timeout = '60s'\nlog.requests = false");
    let script = r#"ulimit -n 40; exec "$0" "$@""#;
    let mut edge = Edge::start_from_shell(dir, &settings, script, |_| {});
    edge.wait_for("file_limit");
    let address = edge.http[0];
    let mut admin = connect(edge.admin[0]).await;
    assert_eq!(admin.get("/healthz").await.unwrap().status, 200);
    let crowd = silent(address, 100).await;
    let log = edge.wait_for("out_of_files");
    assert!(log.contains("raise the limit of open files"), "{log}");
    let before = cpu_seconds(edge.id());
    let started = Instant::now();
    until("some time has passed", async || started.elapsed() > Duration::from_secs(3)).await;
    let used = cpu_seconds(edge.id()) - before;
    eprintln!("out of files for 3 s: {used} s of CPU");
    assert!(used < 0.3, "{used} s of CPU in 3 s");
    // An open connection is still served.
    let reply = admin.get("/metrics").await.unwrap();
    let metrics = Metrics(String::from_utf8(reply.body).unwrap());
    assert!(metrics.get("limits_total{limit=\"open_files\"}") >= 1.0);
    let log = edge.stderr();
    assert!(!log.contains("certificate_kept"), "the certificate is not the cause:\n{log}");
    drop(crowd);
    let mut client = connect(address).await;
    let reply = client.get("/oauth/callback?a").await.expect("no longer served");
    assert_eq!(reply.status, 308);
    edge.finish();
}

/// The limit of files is one of connections too: idle ones are evicted before the files are used up.
#[tokio::test]
async fn fewer_files_than_connections_are_no_reason_to_wait() {
    const FILES: usize = 400;
    let _machine = MACHINE.write().await;
    let (_, dir) = certified(&["localhost"]);
    let settings = settings::tls(
        "limits.request_timeout = '60s'\nlimits.connections_per_address = 10000\nlog.requests = false",
    );
    let script = format!(r#"ulimit -n {FILES}; exec "$0" "$@""#);
    let mut edge = Edge::start_from_shell(dir, &settings, &script, |_| {});
    edge.wait_for("file_limit");
    let address = edge.http[0];
    // Opened again all the time, as they are closed.
    let crowd = tokio::spawn(async move {
        let mut open = silent(address, FILES).await;
        loop {
            open.drain(..50);
            open.extend(silent(address, 50).await);
        }
    });
    let evicted = "connections_evicted_total";
    until("connections are evicted", async || edge.metrics().await.get(evicted) > 100.0).await;
    let mut took = Vec::new();
    for _ in 0..100 {
        let sent = Instant::now();
        // From another network than the crowd, which evicts its own.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.9.1:0".parse().unwrap()).unwrap();
        let mut client = Http1::new(with_timeout(socket.connect(address)).await.unwrap());
        assert!(is_open(&mut client).await);
        took.push(sent.elapsed());
    }
    took.sort_unstable();
    let (median, longest) = (took[50], took[99]);
    eprintln!("100 requests took {median:?} in the median, and at most {longest:?}");
    let metrics = edge.metrics().await;
    assert_eq!(metrics.get("limits_total{limit=\"open_files\"}") as i64, 0);
    #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
    let most = FILES as f64;
    assert!(metrics.get("process_open_fds") < most);
    crowd.abort();
    let log = edge.finish();
    assert!(!log.contains("out_of_files"), "{log}");
}

#[tokio::test]
async fn no_connection_is_evicted_while_no_other_waits_for_its_slot() {
    const SLOTS: usize = 10;
    let edge = Edge::plain(&format!("limits.connections = {SLOTS}"));
    let mut clients = Vec::new();
    for _ in 0..SLOTS {
        let mut client = connect(edge.http[0]).await;
        client
            .send(
                b"POST /oauth/callback HTTP/1.1\r\nHost: localhost\r\n\
                  content-type: application/x-www-form-urlencoded\r\ncontent-length: 6\r\n\r\n",
            )
            .await;
        clients.push(client);
    }
    let active = "connections{state=\"active\"}";
    #[expect(clippy::cast_precision_loss, reason = "ten")]
    let all = SLOTS as f64;
    until("all forms are pending", async || edge.metrics().await.get(active) >= all).await;
    for client in &mut clients {
        client.send(b"code=1").await;
        assert_eq!(client.reply().await.unwrap().status, 303);
    }
    assert!(edge.metrics().await.get("connections_evicted_total") < 1.0);
}
