//! Clients that send requests as fast as they get responses do not make others wait. The wait is counted in
//! requests that the server serves meanwhile, which are the same on any machine.

use super::PATH;
use crate::support::{
    Authority, Edge, MACHINE, Metrics, certified, connect, connect_tls, settings, with_timeout,
};
use futures_util::future::join_all;
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const CONNECTIONS: usize = 150;

/// What may be served while another client connects, sends a request, and gets the response: without turns it
/// would be 16 for each connection and step.
const MAY_BE_SERVED: f64 = 1000.0;

const SETTINGS: &str = "log.requests = false\nlimits.connections_per_address = 1000";

/// A server with one CPU, and so one worker.
fn start(dir: TempDir, settings: &str) -> Edge {
    let script = r#"exec taskset -c 0 "$0" "$@""#;
    Edge::start_from_shell(dir, settings, script, |command| {
        command.env("PATH", "/usr/bin:/bin");
    })
}

fn served(metrics: &Metrics) -> f64 {
    let lines = metrics.0.lines().filter(|line| line.starts_with("callback_edge_requests_total{"));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// The median of what was served between two requests, each on a new connection.
async fn served_meanwhile(edge: &Edge) -> f64 {
    let mut last = served(&edge.metrics().await);
    let mut counts = Vec::new();
    for _ in 0..60 {
        let now = served(&edge.metrics().await);
        counts.push(now - last);
        last = now;
    }
    counts.sort_unstable_by(f64::total_cmp);
    eprintln!("requests meanwhile: {counts:.0?}");
    counts[counts.len() / 2]
}

/// A hundred requests at once, and again as soon as any response arrives.
async fn pipelines(address: SocketAddr) {
    let batch = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(100);
    let mut waste = vec![0; 64 << 10];
    loop {
        let mut stream = TcpStream::connect(address).await.unwrap();
        while stream.write_all(batch.as_bytes()).await.is_ok() {
            if !matches!(stream.read(&mut waste).await, Ok(1..)) {
                break;
            }
        }
    }
}

/// Sixteen requests at once, and again when all have a response.
async fn streams(authority: Arc<Authority>, address: SocketAddr) {
    loop {
        let stream = connect_tls(&authority, address, "localhost", &["h2"]).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        while let Ok(mut sender) = sender.clone().ready().await {
            let requests = (0..16).map_while(|_| {
                let request = http::Request::get(format!("https://localhost{PATH}")).body(());
                sender.send_request(request.unwrap(), true).ok()
            });
            join_all(requests.map(|(response, _)| response)).await;
        }
        drop(sender);
        let _ = connection.await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_pipelined_requests_does_not_make_others_wait() {
    let _machine = MACHINE.write().await;
    let edge = start(TempDir::new().unwrap(), &settings::plain(SETTINGS));
    let mut flood = JoinSet::new();
    for _ in 0..CONNECTIONS {
        flood.spawn(pipelines(edge.http[0]));
    }
    let meanwhile = served_meanwhile(&edge).await;
    assert!(meanwhile > 0.0, "there is no flood");
    assert!(meanwhile < MAY_BE_SERVED, "{meanwhile} requests");
    flood.abort_all();
    edge.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_streams_does_not_make_others_wait() {
    let _machine = MACHINE.write().await;
    let (authority, dir) = certified(&["localhost"]);
    let authority = Arc::new(authority);
    let edge = start(dir, &settings::tls(SETTINGS));
    let mut flood = JoinSet::new();
    for _ in 0..CONNECTIONS {
        flood.spawn(streams(Arc::clone(&authority), edge.https[0]));
    }
    let meanwhile = served_meanwhile(&edge).await;
    assert!(meanwhile > 0.0, "there is no flood");
    assert!(meanwhile < MAY_BE_SERVED, "{meanwhile} requests");
    flood.abort_all();
    edge.finish();
}

/// A connection serves so many requests at most; the last response has `Connection: close`.
const REQUESTS: usize = 10_000;

#[tokio::test]
async fn a_connection_ends_after_ten_thousand_requests() {
    let _machine = MACHINE.read().await;
    let edge = Edge::plain("log.requests = false\nlimits.request_timeout = '60s'");
    let mut stream = connect(edge.http[0]).await.into_inner();
    let batch = format!("HEAD {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(100);
    let (mut reader, mut writer) = stream.split();
    let write = async { while writer.write_all(batch.as_bytes()).await.is_ok() {} };
    let read = async {
        let mut responses = Vec::new();
        let _ = reader.read_to_end(&mut responses).await;
        String::from_utf8(responses).unwrap()
    };
    let (responses, ()) = with_timeout(async { tokio::join!(read, write) }).await;
    let count = responses.matches("HTTP/1.1 308").count();
    // What was read with the last request gets responses too: at most a buffer of `limits.header_bytes`.
    let read_together = 64 * 1024 * 100 / batch.len();
    assert!((REQUESTS..=REQUESTS + read_together).contains(&count), "{count} responses");
    let (_, last) = responses.trim_end().rsplit_once("\r\n\r\n").unwrap();
    assert!(last.contains("connection: close"), "{last}");
    assert_eq!(responses.matches("connection: close").count(), 1);
    edge.finish();
}
