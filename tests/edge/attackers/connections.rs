//! Before the first request, and between requests.

use super::{AGE, Attack, DRIP, HANDSHAKE, IDLE, LATE, PATH, REQUEST, closed, deadline, drip};
use crate::support::{Http1, connect, with_timeout};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn a_missing_proxy_header_times_out() {
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.8 1111 443\r\n";
    let settings = "listen.proxy_protocol = '127.0.0.0/8'";
    let attack = Attack::with("no PROXY header", settings, header).await;
    let mut stream = TcpStream::connect(attack.edge.http[0]).await.unwrap();
    let started = Instant::now();
    stream.write_all(b"PROXY TCP4 192").await.unwrap();
    closed(&mut stream).await;
    attack.ended(started.elapsed(), HANDSHAKE, &deadline("proxy_header")).await;
}

#[tokio::test]
async fn a_stalled_tls_handshake_times_out() {
    let attack = Attack::new("silent in the handshake").await;
    let mut stream = TcpStream::connect(attack.https()).await.unwrap();
    let started = Instant::now();
    closed(&mut stream).await;
    attack.ended(started.elapsed(), HANDSHAKE, &deadline("handshake")).await;
}

#[tokio::test]
async fn a_slow_tls_handshake_times_out() {
    let attack = Attack::new("slow handshake").await;
    let mut stream = TcpStream::connect(attack.https()).await.unwrap();
    let started = Instant::now();
    // A record of a handshake message of 512 bytes, and its bytes.
    stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await.unwrap();
    drip(stream, &[7]).await;
    attack.ended(started.elapsed(), HANDSHAKE, &deadline("handshake")).await;
}

#[tokio::test]
async fn a_tls_connection_without_a_request_times_out() {
    let attack = Attack::new("no request").await;
    let mut stream = attack.tls("http/1.1").await;
    let started = Instant::now();
    closed(&mut stream).await;
    attack.ended(started.elapsed(), REQUEST, &deadline("first_request")).await;
}

#[tokio::test]
async fn an_idle_connection_times_out() {
    let attack = Attack::new("idle").await;
    let mut client = Http1::new(attack.tls("http/1.1").await);
    assert_eq!(client.get(PATH).await.unwrap().status, 308);
    let started = Instant::now();
    closed(&mut client.into_inner()).await;
    attack.ended(started.elapsed(), IDLE, &deadline("idle")).await;
}

#[tokio::test]
async fn a_client_that_never_closes_is_dropped() {
    let attack = Attack::new("never closes").await;
    let address = attack.edge.http[0];
    let mut client = connect(address).await;
    let fields = "Connection: close\r\n";
    let reply = client.request("GET", PATH, fields, b"").await.unwrap();
    assert_eq!(reply.status, 308);
    // The server has closed its side. Once it drops the connection, bytes get a reset.
    let started = Instant::now();
    let mut stream = client.into_inner();
    let mut pace = tokio::time::interval(DRIP);
    with_timeout(async {
        while stream.write_all(b"x").await.is_ok() {
            pace.tick().await;
        }
    })
    .await;
    let took = started.elapsed();
    assert!(took < IDLE + LATE, "{took:?}");
    attack.ended_by(took, Duration::from_millis(200), "requests_total{status=\"308\"}").await;
}

/// A client that sends valid requests for ever: the connection ends by its age, between two requests,
/// and announces it.
#[tokio::test]
async fn an_old_connection_announces_its_end() {
    let attack = Attack::new("old").await;
    let started = Instant::now();
    let mut client = Http1::new(attack.tls("http/1.1").await);
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    loop {
        let reply = client.get(PATH).await.expect("it ends without announcement");
        assert_eq!(reply.status, 308);
        if reply.text("connection") == "close" {
            break;
        }
        assert!(started.elapsed() < AGE + LATE, "it never ends");
        pace.tick().await;
    }
    assert!(client.is_closed().await);
    attack.ended(started.elapsed(), AGE, &deadline("age")).await;
}

#[tokio::test]
async fn half_closed_clients_get_their_response() {
    let attack = Attack::new("half-closed").await;
    let address = attack.edge.http[0];
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let started = Instant::now();
    let mut client = Http1::new(stream);
    assert_eq!(client.reply().await.unwrap().status, 308);
    assert!(client.is_closed().await);
    let took = started.elapsed();
    attack.ended_by(took, Duration::ZERO, "requests_total{status=\"308\"}").await;
}
