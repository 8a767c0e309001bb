//! What is not HTTP gets an error or a close, and the next client its answer.

use crate::support::{Edge, connect};

#[tokio::test]
async fn malformed_requests_are_refused_and_the_next_client_is_served() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'");
    let many = "x: 1\r\n".repeat(10_000);
    let wide = format!("x: {}\r\n", "1".repeat(70_000));
    let get = "GET /oauth/callback?code=1 HTTP/1.1\r\nHost: h\r\n";
    let post = "POST /oauth/callback HTTP/1.1\r\nHost: h\r\ncontent-type: application/x-www-form-urlencoded\r\n";
    #[rustfmt::skip]
    let table: Vec<(&str, Vec<u8>)> = [
        ("no version", "GET /oauth/callback\r\n\r\n".into()),
        ("not HTTP", "HELO mail.example\r\n\r\n".into()),
        ("TLS hello", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n".into()),
        ("unknown version", "GET /oauth/callback HTTP/9.9\r\nHost: h\r\n\r\n".into()),
        ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        ("absolute form", "GET http://h/oauth/callback?code=1 HTTP/1.1\r\nHost: h\r\n\r\n".into()),
        ("absolute form, other host", "GET http://evil/oauth/callback HTTP/1.1\r\nHost: h\r\n\r\n".into()),
        ("authority form", "CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n".into()),
        ("two slashes", "GET //oauth/callback?code=1 HTTP/1.1\r\nHost: h\r\n\r\n".into()),
        ("no slash", "GET oauth/callback HTTP/1.1\r\nHost: h\r\n\r\n".into()),
        ("fragment", "GET /oauth/callback?code=1#x HTTP/1.1\r\nHost: h\r\n\r\n".into()),
        ("space in the query", "GET /oauth/callback?code=1 2 HTTP/1.1\r\nHost: h\r\n\r\n".into()),
        ("NUL in the target", "GET /oauth/callback?\0 HTTP/1.1\r\nHost: h\r\n\r\n".into()),
        ("NUL in a field", format!("{get}x: a\0b\r\n\r\n")),
        ("no Host", "GET /oauth/callback HTTP/1.1\r\n\r\n".into()),
        ("two Hosts", format!("{get}Host: h\r\n\r\n")),
        ("broken Host", "GET /oauth/callback HTTP/1.1\r\nHost: a b\r\n\r\n".into()),
        ("field without colon", format!("{get}nonsense\r\n\r\n")),
        ("space before colon", format!("{get}x : 1\r\n\r\n")),
        ("obs-fold", format!("{get}x: 1\r\n 2\r\n\r\n")),
        ("10,000 fields", format!("{get}{many}\r\n")),
        ("a field of 70,000 bytes", format!("{get}{wide}\r\n")),
        ("two Content-Lengths", format!("{post}Content-Length: 6\r\nContent-Length: 7\r\n\r\ncode=12")),
        ("negative Content-Length", format!("{post}Content-Length: -1\r\n\r\n")),
        ("chunked not last", format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n")),
        ("bad chunk size", format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\ncode=1\r\n0\r\n\r\n")),
    ]
    .into_iter()
    .map(|(name, text)| (name, text.into_bytes()))
    .collect();
    for (name, bytes) in table {
        let mut client = connect(edge.http[0]).await;
        client.send(&bytes).await;
        if let Some(reply) = client.reply().await {
            assert!((400..500).contains(&reply.status), "{name}: {}", reply.status);
            // Nothing that was smuggled in behind it gets an answer of its own.
            if reply.text("connection") == "close" || name.contains("Content-Length") {
                assert!(client.is_closed().await, "{name}: still open");
            }
        }
        let mut next = connect(edge.http[0]).await;
        let reply = next.get("/oauth/callback?code=1").await;
        assert_eq!(reply.map(|reply| reply.status), Some(308), "after: {name}");
    }
    let (status, _) = edge.stop();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_refused_body_does_not_become_the_next_request() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'");
    let mut client = connect(edge.http[0]).await;
    let hidden = "a=1\nGET /oauth/callback?code=1#x HTTP/1.1\r\nHost: h\r\n\r\n";
    let fields = format!("content-type: text/plain\r\ncontent-length: {}\r\n", hidden.len());
    let reply =
        client.request("POST", "/oauth/callback", &fields, hidden.as_bytes()).await.unwrap();
    assert_eq!((reply.status, reply.text("connection").as_str()), (405, "close"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn nothing_is_served_behind_a_request_with_two_framings() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'");
    for framings in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let mut client = connect(edge.http[0]).await;
        let fields = format!("content-type: application/x-www-form-urlencoded\r\n{framings}");
        let body = "0\r\n\r\nGET /oauth/callback?smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
        client.request("POST", "/oauth/callback", &fields, body.as_bytes()).await.unwrap();
        assert!(client.is_closed().await, "{framings}");
    }
}

#[tokio::test]
async fn http_1_0_without_host_is_served() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'");
    let mut client = connect(edge.http[0]).await;
    client.send(b"GET /oauth/callback?code=1 HTTP/1.0\r\n\r\n").await;
    let reply = client.reply().await.unwrap();
    assert_eq!(reply.location(), "https://api.nango.dev/oauth/callback?code=1");
    assert!(client.is_closed().await);
}
