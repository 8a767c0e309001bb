//! Graceful shutdown: every request gets its response, and clients without a request do not delay it.

use crate::support::{
    Authority, Edge, Http1, Http2, Metrics, connect, connect_tls, handshake, until, with_timeout,
};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The start of a form; `e=1` is missing.
const PARTIAL_FORM: &[u8] = b"POST /oauth/callback HTTP/1.1\r\nHost: localhost\r\n\
    content-type: application/x-www-form-urlencoded\r\ncontent-length: 6\r\n\r\ncod";

async fn tls(
    edge: &Edge,
    authority: &Authority,
) -> Http1<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + use<>> {
    Http1::new(connect_tls(authority, edge.https[0], "localhost", &[]).await.unwrap())
}

async fn is_refused(edge: &Edge) -> bool {
    TcpStream::connect(edge.https[0]).await.is_err()
}

#[tokio::test]
async fn readiness_fails_first_and_requests_still_get_responses() {
    let (edge, authority) = Edge::over_tls("shutdown.delay = '700ms'");
    let mut kept = tls(&edge, &authority).await;
    let mut admin = connect(edge.admin[0]).await;
    assert_eq!(admin.get("/readyz").await.unwrap().status, 200);
    let started = Instant::now();
    edge.signal(Signal::TERM);
    until("not ready", async || admin.get("/readyz").await.unwrap().status == 503).await;
    assert_eq!(admin.get("/readyz").await.unwrap().body, b"draining\n");
    assert_eq!(admin.get("/healthz").await.unwrap().status, 200);
    assert!(Metrics::read(edge.admin[0]).await.get("ready") < 1.0);
    // Load balancers that have not noticed yet get the usual response.
    let reply = kept.get("/oauth/callback?a").await.unwrap();
    assert_eq!((reply.status, reply.text("connection").as_str()), (308, ""));
    let mut new = tls(&edge, &authority).await;
    assert_eq!(new.get("/oauth/callback?a").await.unwrap().status, 308);
    assert!(started.elapsed() < Duration::from_millis(700), "the test is too slow to show it");
    until("the listener closes", async || is_refused(&edge).await).await;
    assert!(started.elapsed() >= Duration::from_millis(700));
    let (status, log) = edge.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test]
async fn pending_requests_get_a_response_that_announces_the_end() {
    let (edge, authority) = Edge::over_tls("");
    let address = edge.https[0];
    // Kept alive after a request; silent after the TLS handshake; silent before it.
    let mut kept = tls(&edge, &authority).await;
    assert_eq!(kept.get("/oauth/callback?a").await.unwrap().text("connection"), "");
    let mut silent = tls(&edge, &authority).await;
    let plain = with_timeout(TcpStream::connect(address)).await.unwrap();
    let mut h2 = Http2::connect(&authority, address, "localhost").await;
    assert_eq!(h2.get("/oauth/callback?a").await.unwrap().status, 308);
    let mut form = tls(&edge, &authority).await;
    form.send(PARTIAL_FORM).await;
    until("all are connected", async || edge.metrics().await.connections() >= 5.0).await;

    edge.signal(Signal::TERM);
    until("the listener closes", async || is_refused(&edge).await).await;
    for client in [&mut kept, &mut silent] {
        let reply = client.get("/oauth/callback?code=1").await.expect("no response");
        assert_eq!((reply.status, reply.text("connection").as_str()), (308, "close"));
        assert!(client.is_closed().await);
    }
    let late = handshake(authority.client(&[]), plain, "localhost").await.unwrap();
    let mut late = Http1::new(late);
    let reply = late.get("/oauth/callback?code=1").await.expect("no response");
    assert_eq!((reply.status, reply.text("connection").as_str()), (308, "close"));
    // HTTP/2 announces it by GOAWAY: the client itself refuses further requests.
    until("GOAWAY", async || h2.get("/oauth/callback?a").await.is_err()).await;
    let error = h2.get("/oauth/callback?a").await.unwrap_err();
    assert!(!error.is_io() || error.is_go_away(), "{error:?}");
    form.send(b"e=1").await;
    let reply = form.reply().await.expect("the form got no response");
    assert_eq!((reply.status, reply.text("connection").as_str()), (303, "close"));
    let (status, log) = edge.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("drained"), "{log}");
}

/// Clients that are gone or hostile do not turn a clean shutdown into a forced one.
#[tokio::test]
async fn clients_without_complete_requests_do_not_delay_the_shutdown() {
    let (edge, authority) =
        Edge::over_tls("limits.request_timeout = '3s'\nlimits.idle_timeout = '60s'");
    let address = edge.https[0];
    let silent = TcpStream::connect(address).await.unwrap();
    let mut slow = tls(&edge, &authority).await;
    slow.send(b"GET / HTTP/1.1\r\nHost: loc").await;
    // An HTTP/2 client that is asleep: it never reacts to GOAWAY or PING.
    let mut asleep = connect_tls(&authority, address, "localhost", &["h2"]).await.unwrap();
    let mut bytes = crate::support::frames::opening(&[]);
    let block = crate::support::frames::get("/oauth/callback");
    bytes.extend(crate::support::frames::frame(1, 5, 1, &block));
    asleep.write_all(&bytes).await.unwrap();
    asleep.flush().await.unwrap();
    until("all are connected", async || edge.metrics().await.connections() >= 3.0).await;
    until("the response is sent", async || {
        edge.metrics().await.get("requests_total{status=\"308\"}") > 0.0
    })
    .await;
    let started = Instant::now();
    let (status, log) = edge.stop();
    let took = started.elapsed();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(took < Duration::from_secs(6), "{took:?}\n{log}");
    drop((silent, slow, asleep));
}

#[tokio::test]
async fn a_second_signal_forces_the_shutdown() {
    for delay in ["0s", "60s"] {
        let (mut edge, authority) = Edge::over_tls(&format!("shutdown.delay = '{delay}'"));
        let mut form = tls(&edge, &authority).await;
        form.send(PARTIAL_FORM).await;
        until("it is connected", async || edge.metrics().await.connections() >= 1.0).await;
        edge.signal(Signal::TERM);
        edge.wait_for("draining");
        let started = Instant::now();
        edge.signal(Signal::INT);
        let (status, log) = edge.wait();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("forced") && log.contains("SIGINT"), "{log}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn the_end_of_the_grace_period_forces_the_shutdown() {
    let (edge, authority) = Edge::over_tls("shutdown.grace = '500ms'");
    let mut form = tls(&edge, &authority).await;
    form.send(PARTIAL_FORM).await;
    until("it is connected", async || edge.metrics().await.connections() >= 1.0).await;
    let (status, log) = edge.stop();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("forced") && log.contains("grace"), "{log}");
}

#[tokio::test]
async fn idle_connections_fit_into_a_short_grace_period() {
    let edge = Edge::plain("shutdown.grace = '1s'");
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = connect(edge.http[0]).await;
        assert_eq!(client.get("/oauth/callback?a").await.unwrap().status, 308);
        clients.push(client);
    }
    // The clients do not close; the exit code is 0.
    edge.finish();
}
