//! Requests that arrive slowly, and responses that the client does not read.

use super::{Attack, PATH, REQUEST, deadline, drip, never_reads, small_window};
use crate::support::{Http1, handshake};
use std::time::Instant;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn a_slow_first_request_times_out() {
    let attack = Attack::new("slow first head").await;
    let mut stream = TcpStream::connect(attack.edge.http[0]).await.unwrap();
    let started = Instant::now();
    let head = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\nCookie: canary-cookie");
    stream.write_all(head.as_bytes()).await.unwrap();
    drip(stream, b"x").await;
    attack.ended(started.elapsed(), REQUEST, &deadline("first_request")).await;
}

#[tokio::test]
async fn a_slow_later_request_times_out() {
    let attack = Attack::new("slow later head").await;
    let mut client = Http1::new(attack.tls("http/1.1").await);
    assert_eq!(client.get(PATH).await.unwrap().status, 308);
    let mut stream = client.into_inner();
    let started = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\nCookie: canary-cookie").await.unwrap();
    drip(stream, b"x").await;
    attack.ended(started.elapsed(), REQUEST, &deadline("request")).await;
}

#[tokio::test]
async fn a_slow_form_times_out() {
    let attack = Attack::new("slow form").await;
    let mut client = Http1::new(attack.tls("http/1.1").await);
    let started = Instant::now();
    let fields = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 900\r\n";
    let reply = client.request("POST", PATH, fields, b"code=canary-code").await.unwrap();
    assert_eq!((reply.status, reply.text("connection").as_str()), (408, "close"));
    // The client continues in spite of the response; the server closes the connection anyway.
    drip(client.into_inner(), b"x").await;
    attack.ended(started.elapsed(), REQUEST, &deadline("body")).await;
}

fn long_requests() -> Vec<u8> {
    let query = "canary-code".repeat(1000);
    format!("GET /oauth/callback?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// On a busy machine it takes seconds to fill the buffers of both sides.
const OLD: &str = "limits.connection_age = '1h'";

#[tokio::test]
async fn a_pipeline_with_unread_responses_times_out() {
    let attack = Attack::with("pipelines, never reads", OLD, b"").await;
    let stream = small_window(attack.edge.http[0]).await;
    let took = never_reads(stream, &long_requests(), false).await;
    attack.ended_by(took, REQUEST, &deadline("response")).await;
}

#[tokio::test]
async fn a_tls_pipeline_with_unread_responses_times_out() {
    let attack = Attack::with("pipelines over TLS, never reads", OLD, b"").await;
    let stream = small_window(attack.https()).await;
    let client = attack.authority.client(&["http/1.1"]);
    let stream = handshake(client, stream, "localhost").await.unwrap();
    let took = never_reads(stream, &long_requests(), false).await;
    attack.ended_by(took, REQUEST, &deadline("response")).await;
}
