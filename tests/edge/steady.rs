//! Under steady load, reloads, renewed certificates and restarts fail no request.

use crate::manager::PASS_SOCKET;
use crate::support::{Authority, Edge, MACHINE, certified, settings, until};
use rustix::process::Signal;
use rustls::pki_types::ServerName;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const REQUEST: &[u8] = b"GET /oauth/callback?code=canary-code HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Clients that send requests all the time; everything except a redirect is a failure.
struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<Count>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Count {
    requests: AtomicU64,
    connections: AtomicU64,
    h2_requests: AtomicU64,
    failures: std::sync::Mutex<Vec<String>>,
}

impl Count {
    fn fail(&self, what: &str, error: &dyn std::fmt::Debug) {
        self.failures.lock().unwrap().push(format!("{what}: {error:?}"));
    }
}

impl Load {
    fn start(address: SocketAddr, authority: &Authority) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(Count::default());
        let mut tasks = JoinSet::new();
        let h1 = TlsConnector::from(authority.client(&["http/1.1"]));
        let h2 = TlsConnector::from(authority.client(&["h2"]));
        for kind in 0..6 {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            let (h1, h2) = (h1.clone(), h2.clone());
            tasks.spawn(async move {
                let mut pace = tokio::time::interval(Duration::from_millis(4));
                pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                while !stop.load(Relaxed) {
                    pace.tick().await;
                    match kind {
                        0 | 1 => once(address, &h1, &count).await,
                        2 | 3 => persistent(address, &h1, &count, &stop).await,
                        _ => persistent_h2(address, &h2, &count, &stop).await,
                    }
                }
            });
        }
        Self { stop, count, tasks }
    }

    async fn requests(&self, more: u64) {
        let wanted = self.count.requests.load(Relaxed) + more;
        until("requests continue", async || self.count.requests.load(Relaxed) >= wanted).await;
    }

    async fn finish(self, what: &str) {
        self.stop.store(true, Relaxed);
        self.tasks.join_all().await;
        let failures = self.count.failures.lock().unwrap();
        eprintln!(
            "{what}: {} requests ({} over HTTP/2) on {} connections, {} failed",
            self.count.requests.load(Relaxed),
            self.count.h2_requests.load(Relaxed),
            self.count.connections.load(Relaxed),
            failures.len(),
        );
        assert!(failures.is_empty(), "{what}: {failures:#?}");
    }
}

async fn open(
    address: SocketAddr,
    connector: &TlsConnector,
    count: &Count,
) -> Option<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    let stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(error) => {
            count.fail("connect", &error);
            return None;
        }
    };
    stream.set_nodelay(true).unwrap();
    match connector.connect(name, stream).await {
        Ok(stream) => {
            count.connections.fetch_add(1, Relaxed);
            Some(stream)
        }
        Err(error) => {
            count.fail("handshake", &error);
            None
        }
    }
}

/// Sends a request; returns whether the connection stays open.
async fn request(stream: &mut BufReader<TlsStream<TcpStream>>) -> std::io::Result<bool> {
    stream.get_mut().write_all(REQUEST).await?;
    stream.get_mut().flush().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    if !head.starts_with("http/1.1 308 ") {
        return Err(std::io::Error::other(head));
    }
    Ok(!head.contains("connection: close"))
}

async fn once(address: SocketAddr, connector: &TlsConnector, count: &Count) {
    let Some(stream) = open(address, connector, count).await else { return };
    let mut stream = BufReader::new(stream);
    match request(&mut stream).await {
        Ok(_) => drop(count.requests.fetch_add(1, Relaxed)),
        Err(error) => count.fail("request on a new connection", &error),
    }
}

async fn persistent(
    address: SocketAddr,
    connector: &TlsConnector,
    count: &Count,
    stop: &AtomicBool,
) {
    let Some(stream) = open(address, connector, count).await else { return };
    let mut stream = BufReader::new(stream);
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    while !stop.load(Relaxed) {
        match request(&mut stream).await {
            Ok(stays) => {
                count.requests.fetch_add(1, Relaxed);
                if !stays {
                    // It was announced; the connection closes without an error.
                    let mut rest = Vec::new();
                    if let Err(error) = stream.read_to_end(&mut rest).await {
                        count.fail("end of a persistent connection", &error);
                    }
                    return;
                }
            }
            Err(error) => return count.fail("request on a persistent connection", &error),
        }
        pace.tick().await;
    }
}

async fn persistent_h2(
    address: SocketAddr,
    connector: &TlsConnector,
    count: &Count,
    stop: &AtomicBool,
) {
    let Some(stream) = open(address, connector, count).await else { return };
    let (sender, connection) = match h2::client::handshake(stream).await {
        Ok(both) => both,
        Err(error) => return count.fail("HTTP/2 handshake", &error),
    };
    let connection = tokio::spawn(connection);
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    while !stop.load(Relaxed) {
        // GOAWAY shows here: it is no longer ready, and nothing was sent.
        let Ok(mut ready) = sender.clone().ready().await else { break };
        let request = http::Request::get("https://localhost/oauth/callback?code=canary-code");
        let response = match ready.send_request(request.body(()).unwrap(), true) {
            Ok((response, _)) => response.await,
            Err(_) => break,
        };
        match response {
            Ok(reply) if reply.status() == 308 => {
                count.requests.fetch_add(1, Relaxed);
                count.h2_requests.fetch_add(1, Relaxed);
            }
            Ok(reply) => count.fail("HTTP/2 status", &reply.status()),
            // RFC 9113 §6.8: streams above the last one in GOAWAY were not processed.
            Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => {
                break;
            }
            Err(error) => {
                count.fail("HTTP/2 request", &error);
                break;
            }
        }
        pace.tick().await;
    }
    drop(sender);
    if let Ok(Err(error)) = connection.await
        && !(error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
    {
        count.fail("end of an HTTP/2 connection", &error);
    }
}

fn redirecting_to(target: usize, address: &str) -> String {
    settings::tls(&format!(
        "
        listen.http = 'off'
        listen.https = '{address}'
        log.level = 'trace'
        log.requests = false
        [[route]]
        path = '/oauth/callback'
        target = 'https://t{target}.example/cb'
        "
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_and_renewals_fail_no_request() {
    let _machine = MACHINE.write().await;
    let (authority, dir) = certified(&["localhost"]);
    let edge = Edge::start_in(dir, &redirecting_to(0, "127.0.0.1:0"), |_| {});
    let load = Load::start(edge.https[0], &authority);
    load.requests(50).await;
    for round in 1..=50_u16 {
        authority.write(edge.dir(), "edge", &["localhost"]);
        edge.rewrite(&redirecting_to(round.into(), "127.0.0.1:0"));
        edge.signal(Signal::HUP);
        let done = "reloads_total{result=\"success\"}";
        until("it is reloaded", async || edge.metrics().await.get(done) >= f64::from(round)).await;
        load.requests(10).await;
    }
    let before = edge.stderr().matches("certificate_loaded").count();
    authority.write(edge.dir(), "edge", &["localhost"]);
    until("found on disk", async || edge.stderr().matches("certificate_loaded").count() > before)
        .await;
    load.requests(50).await;
    let metrics = edge.metrics().await;
    load.finish("50 reloads with other routes and certificates").await;
    assert_eq!(metrics.get("reloads_total{result=\"failure\"}") as i64, 0);
    for stage in ["handshake", "first_request", "request", "response", "idle", "age"] {
        assert_eq!(metrics.get(&format!("deadlines_total{{stage=\"{stage}\"}}")) as i64, 0);
    }
    let log = edge.finish();
    assert!(!log.contains("canary") && !metrics.0.contains("canary"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_with_an_inherited_socket_fail_no_request() {
    let _machine = MACHINE.write().await;
    let (authority, dir) = certified(&["localhost"]);
    let dir = Arc::new(dir);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let start = || {
        let inherited = OwnedFd::from(socket.try_clone().unwrap());
        let settings = redirecting_to(0, &address.to_string());
        Edge::start_from_shell(Arc::clone(&dir), &settings, PASS_SOCKET, |command| {
            command.stdin(Stdio::from(inherited));
        })
    };
    let mut edge = start();
    assert_eq!(edge.https, [address]);
    let load = Load::start(address, &authority);
    load.requests(50).await;
    for round in 0..10 {
        // Like `systemctl restart`: the next process starts when the previous one has ended. And like
        // a rollout: the next one starts first.
        let next = (round % 2 == 0).then(start);
        let log = tokio::task::block_in_place(|| edge.finish());
        assert!(!log.contains("canary"));
        edge = next.unwrap_or_else(start);
        load.requests(30).await;
    }
    load.finish("10 restarts").await;
    drop(socket);
}
