//! The end: nobody who has asked goes without an answer, and nobody who has not holds it up.

use crate::support::{
    Authority, Edge, Http1, Http2, Metrics, connect, connect_tls, handshake, with_timeout, until,
};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The begin of a form; `e=1` is missing.
const BEGUN: &[u8] = b"POST /oauth/callback HTTP/1.1\r\nHost: localhost\r\n\
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
async fn readiness_fails_first_and_requests_are_still_answered() {
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
    // Balancers that have not noticed yet get what they always got.
    let reply = kept.get("/oauth/callback?a").await.unwrap();
    assert_eq!((reply.status, reply.text("connection").as_str()), (308, ""));
    let mut new = tls(&edge, &authority).await;
    assert_eq!(new.get("/oauth/callback?a").await.unwrap().status, 308);
    assert!(started.elapsed() < Duration::from_millis(700), "too slow to tell");
    until("the listener closes", async || is_refused(&edge).await).await;
    assert!(started.elapsed() >= Duration::from_millis(700));
    let (status, log) = edge.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test]
async fn what_was_asked_is_answered_and_told_that_it_is_the_last() {
    let (edge, authority) = Edge::over_tls("");
    let address = edge.https[0];
    // Kept alive after a request; connected with TLS and silent; connected and not even that.
    let mut kept = tls(&edge, &authority).await;
    assert_eq!(kept.get("/oauth/callback?a").await.unwrap().text("connection"), "");
    let mut silent = tls(&edge, &authority).await;
    let plain = with_timeout(TcpStream::connect(address)).await.unwrap();
    let mut h2 = Http2::connect(&authority, address, "localhost").await;
    assert_eq!(h2.get("/oauth/callback?a").await.unwrap().status, 308);
    let mut form = tls(&edge, &authority).await;
    form.send(BEGUN).await;
    until("all are there", async || edge.metrics().await.connections() >= 5.0).await;

    edge.signal(Signal::TERM);
    until("the listener closes", async || is_refused(&edge).await).await;
    for client in [&mut kept, &mut silent] {
        let reply = client.get("/oauth/callback?code=1").await.expect("not answered");
        assert_eq!((reply.status, reply.text("connection").as_str()), (308, "close"));
        assert!(client.is_closed().await);
    }
    let late = handshake(authority.client(&[]), plain, "localhost").await.unwrap();
    let mut late = Http1::new(late);
    let reply = late.get("/oauth/callback?code=1").await.expect("not answered");
    assert_eq!((reply.status, reply.text("connection").as_str()), (308, "close"));
    // HTTP/2 was told by GOAWAY: the client itself knows better than to ask again.
    until("GOAWAY", async || h2.get("/oauth/callback?a").await.is_err()).await;
    let error = h2.get("/oauth/callback?a").await.unwrap_err();
    assert!(!error.is_io() || error.is_go_away(), "{error:?}");
    form.send(b"e=1").await;
    let reply = form.reply().await.expect("the form got no answer");
    assert_eq!((reply.status, reply.text("connection").as_str()), (303, "close"));
    let (status, log) = edge.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("drained"), "{log}");
}

/// Nobody whose client is gone or hostile turns a clean end into a forced one.
#[tokio::test]
async fn who_asks_nothing_does_not_hold_it_up() {
    let (edge, authority) =
        Edge::over_tls("limits.request_timeout = '3s'\nlimits.idle_timeout = '60s'");
    let address = edge.https[0];
    let silent = TcpStream::connect(address).await.unwrap();
    let mut slow = tls(&edge, &authority).await;
    slow.send(b"GET / HTTP/1.1\r\nHost: loc").await;
    // An HTTP/2 client that is asleep: it never answers GOAWAY or PING.
    let mut asleep = connect_tls(&authority, address, "localhost", &["h2"]).await.unwrap();
    let mut bytes = crate::support::frames::opening(&[]);
    let block = crate::support::frames::get("/oauth/callback");
    bytes.extend(crate::support::frames::frame(1, 5, 1, &block));
    asleep.write_all(&bytes).await.unwrap();
    asleep.flush().await.unwrap();
    until("all are there", async || edge.metrics().await.connections() >= 3.0).await;
    until("asked", async || edge.metrics().await.get("requests_total{status=\"308\"}") > 0.0).await;
    let started = Instant::now();
    let (status, log) = edge.stop();
    let took = started.elapsed();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(took < Duration::from_secs(6), "{took:?}\n{log}");
    drop((silent, slow, asleep));
}

#[tokio::test]
async fn a_second_signal_forces_it() {
    for delay in ["0s", "60s"] {
        let (mut edge, authority) = Edge::over_tls(&format!("shutdown.delay = '{delay}'"));
        let mut form = tls(&edge, &authority).await;
        form.send(BEGUN).await;
        until("it is there", async || edge.metrics().await.connections() >= 1.0).await;
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
async fn the_end_of_the_grace_forces_it() {
    let (edge, authority) = Edge::over_tls("shutdown.grace = '500ms'");
    let mut form = tls(&edge, &authority).await;
    form.send(BEGUN).await;
    until("it is there", async || edge.metrics().await.connections() >= 1.0).await;
    let (status, log) = edge.stop();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("forced") && log.contains("grace"), "{log}");
}
