//! Malformed requests get an error or a close, and the next client is served.

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
            // A request smuggled in after it gets no response.
            if reply.text("connection") == "close" || name.contains("Content-Length") {
                assert!(client.is_closed().await, "{name}: still open");
            }
        }
        let mut next = connect(edge.http[0]).await;
        let reply = next.get("/oauth/callback?code=1").await;
        assert_eq!(reply.map(|reply| reply.status), Some(308), "after: {name}");
    }
    edge.finish();
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
async fn nothing_is_served_after_a_request_with_two_framings() {
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

/// Requests that two parsers may frame differently (RFC 9112 §2.2, §5, §6, §7), each with the status of
/// its response. A body that follows has `length` bytes.
#[rustfmt::skip]
pub(crate) fn ambiguous_framings(length: usize) -> Vec<(&'static str, String, u16)> {
    let get = "GET /oauth/callback?q=1 HTTP/1.1\r\nHost: h\r\n";
    let post = "POST /oauth/callback?q=1 HTTP/1.1\r\nHost: h\r\ncontent-type: application/x-www-form-urlencoded\r\n";
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
    let extensions = format!("1;{}\r\na\r\n", "e".repeat(400)).repeat(100);
    vec![
        ("space before the colon", format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), 400),
        ("a vertical tab in a coding", format!("{post}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"), 400),
        ("an unknown coding", format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), 400),
        ("identity", format!("{post}Transfer-Encoding: identity\r\n\r\n"), 400),
        ("a quoted coding", format!("{post}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"), 400),
        ("chunked, then identity", format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"), 400),
        ("chunked twice", format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 303),
        ("gzip, chunked", format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 303),
        ("chunked in HTTP/1.0", format!("{}Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n", post.replace("1.1", "1.0")), 400),
        ("a length with a sign", format!("{post}Content-Length: +5\r\n\r\ncode="), 400),
        ("a list of lengths", format!("{post}Content-Length: 5, 5\r\n\r\ncode="), 400),
        ("a length in hex", format!("{post}Content-Length: 0x5\r\n\r\ncode="), 400),
        ("a length over 64 bits", format!("{post}Content-Length: 18446744073709551621\r\n\r\ncode="), 400),
        ("an empty length", format!("{post}Content-Length: \r\n\r\ncode="), 400),
        ("a bare CR in a field", format!("{get}X: a\rContent-Length: 5\r\n\r\n"), 400),
        ("bare CR line ends", format!("{}\r\r", get.replace("\r\n", "\r")), 400),
        ("a first field that is folded", get.replace("Host", " Fold: x\r\nHost") + "\r\n", 400),
        ("chunk extensions", format!("{chunked}6;a=b;c=\"d\"\r\ncode=1\r\n0\r\n\r\n"), 303),
        ("a bare LF in a chunk extension", format!("{chunked}6;a\nb\r\ncode=1\r\n0\r\n\r\n"), 400),
        ("more extensions than form", format!("{chunked}{extensions}0\r\n\r\n"), 400),
        ("a chunk size over 64 bits", format!("{chunked}10000000000000006\r\ncode=1\r\n0\r\n\r\n"), 400),
        ("a chunk size with 0x", format!("{chunked}0x6\r\ncode=1\r\n0\r\n\r\n"), 400),
        ("a negative chunk size", format!("{chunked}-1\r\ncode=1\r\n0\r\n\r\n"), 400),
        ("a chunk longer than its size", format!("{chunked}6\r\ncode=1XX0\r\n\r\n"), 400),
        ("chunks that end with a bare LF", format!("{}6\ncode=1\n0\n\n", chunked.replace("\r\n", "\n")), 400),
        ("a length in trailers", format!("{chunked}6\r\ncode=1\r\n0\r\nContent-Length: 50\r\n\r\n"), 303),
        ("GET with a body", format!("{get}Content-Length: {length}\r\n\r\n"), 308),
        ("GET with chunks", format!("{get}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n"), 308),
    ]
}

/// A request that two parsers may frame differently ends the connection, so that nothing after it
/// becomes a request of its own.
#[tokio::test]
async fn nothing_is_served_after_an_ambiguous_framing() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'");
    let hidden = "GET /oauth/callback?smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    for (name, bytes, status) in ambiguous_framings(hidden.len()) {
        let mut client = connect(edge.http[0]).await;
        client.send(format!("{bytes}{hidden}").as_bytes()).await;
        let reply = client.reply().await.unwrap_or_else(|| panic!("{name}: no response"));
        assert_eq!(reply.status, status, "{name}");
        assert_eq!(reply.text("connection"), "close", "{name}");
        assert!(client.is_closed().await, "{name}: a request after it is served");
    }
}

/// RFC 9112 §2.2: a line may end with a bare LF, and empty lines may come before a request.
#[tokio::test]
async fn a_bare_lf_ends_a_line_and_other_deviations_are_refused() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'");
    #[rustfmt::skip]
    let table = [
        ("GET /oauth/callback?a HTTP/1.1\nHost: h\n\n", 308),
        ("\r\n\r\nGET /oauth/callback?a HTTP/1.1\r\nHost: h\r\n\r\n", 308),
        (" GET /oauth/callback?a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET\t/oauth/callback?a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET  /oauth/callback?a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /oauth/callback?a http/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /oauth/callback?a HTTP/1.2\r\nHost: h\r\n\r\n", 400),
        ("GET /oauth/callback?a HTTP/1.1\r\nHost: h, evil\r\n\r\n", 400),
        ("GET /oauth/callback?a HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET /oauth/callback?a HTTP/1.1\r\nHost: .\r\n\r\n", 400),
        ("GET /oauth/callback?a HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n", 400),
        ("GET /oauth/callback?a HTTP/1.1\r\nHost: h\r\nX\u{1}: x\r\n\r\n", 400),
    ];
    for (bytes, status) in table {
        let mut client = connect(edge.http[0]).await;
        client.send(bytes.as_bytes()).await;
        assert_eq!(client.reply().await.unwrap().status, status, "{bytes:?}");
    }
}
