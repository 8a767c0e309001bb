//! From which proxies the client's address is accepted.

use crate::support::{Edge, Http1, connect, handshake, requests, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.8 1111 443\r\n";

fn v2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24".to_vec();
    let address: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
    header.extend_from_slice(&address.octets());
    header.extend_from_slice(&address.octets());
    header.extend_from_slice(&[4, 87, 1, 187]);
    header
}

/// The clients of the requests in the log, in order.
fn clients(log: &str) -> Vec<String> {
    requests(log).iter().map(|line| line["client"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_proxy_header_from_a_trusted_network_determines_the_client() {
    let (edge, authority) = Edge::over_tls("listen.proxy_protocol = '127.0.0.0/8'");
    for header in [V1.to_vec(), v2(), b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut client = connect(edge.http[0]).await;
        client.send(&header).await;
        assert_eq!(client.get("/oauth/callback").await.unwrap().status, 308);
        let mut stream = TcpStream::connect(edge.https[0]).await.unwrap();
        stream.write_all(&header).await.unwrap();
        let stream = handshake(authority.client(&[]), stream, "localhost").await.unwrap();
        let mut client = Http1::new(stream);
        assert_eq!(client.get("/oauth/callback").await.unwrap().status, 308);
    }
    let (_, log) = edge.stop();
    let (v4, v6, own) = ("192.0.2.7", "2001:db8::7", "127.0.0.1");
    assert_eq!(clients(&log), [v4, v4, v6, v6, own, own]);
}

#[tokio::test]
async fn a_trusted_network_without_a_proxy_header_is_refused_and_counted() {
    let (edge, _) = Edge::over_tls("listen.proxy_protocol = '127.0.0.0/8'");
    for address in [edge.http[0], edge.https[0]] {
        let mut client = connect(address).await;
        assert!(client.get("/oauth/callback?code=canary-code").await.is_none());
    }
    let metrics = edge.metrics().await;
    let refused = metrics.get("connections_refused_total{reason=\"proxy_header\"}");
    assert_eq!(refused as i64, 2);
    // The admin listener is for the machine's own network: it expects no header.
    assert_eq!(connect(edge.admin[0]).await.get("/healthz").await.unwrap().status, 200);
    assert!(!edge.stop().1.contains("canary"));
}

#[tokio::test]
async fn a_proxy_header_from_an_untrusted_network_is_refused() {
    for trusting in ["", "listen.proxy_protocol = '192.0.2.0/24'"] {
        let (edge, _) = Edge::over_tls(trusting);
        let mut client = connect(edge.http[0]).await;
        client.send(V1).await;
        let reply = client.get("/oauth/callback").await.unwrap();
        assert_eq!(reply.status, 400);
        let mut stream = TcpStream::connect(edge.https[0]).await.unwrap();
        stream.write_all(V1).await.unwrap();
        let mut alert = Vec::new();
        let _ = stream.read_to_end(&mut alert).await;
        assert!(alert.first().is_none_or(|&kind| kind == 21), "{alert:?}");
        // The alert is sent before the failure is counted.
        let failed = "tls_handshake_failures_total{reason=\"not_tls\"}";
        until("it is counted", async || edge.metrics().await.get(failed) >= 1.0).await;
        assert!(!edge.stop().1.contains("192.0.2.7"));
    }
}

/// Requests a callback with these header fields, which must redirect byte for byte.
async fn redirects_with(edge: &Edge, fields: &[u8]) {
    let mut client = connect(edge.http[0]).await;
    let query = "code=4%2f0A&state=%7b&&bare";
    let mut request = format!("GET /oauth/callback?{query} HTTP/1.1\r\nHost: localhost\r\n");
    request.push_str("Connection: close\r\n");
    client.send(&[request.as_bytes(), fields, b"\r\n"].concat()).await;
    let reply = client.reply().await.expect("a response");
    assert_eq!(reply.status, 308, "{}", fields.escape_ascii());
    assert_eq!(reply.location(), format!("https://api.nango.dev/oauth/callback?{query}"));
}

#[tokio::test]
async fn forwarded_addresses_are_accepted_only_from_trusted_proxies() {
    let fields: [&[u8]; 2] = [
        b"X-Forwarded-For: 198.51.100.1, 203.0.113.9\r\n",
        b"X-Forwarded-For: 198.51.100.1, 127.0.0.9\r\n",
    ];
    let trusting = Edge::plain("listen.trusted_proxies = '127.0.0.0/8'");
    let not = Edge::plain("");
    for fields in fields {
        redirects_with(&trusting, fields).await;
        redirects_with(&not, fields).await;
    }
    assert_eq!(clients(&trusting.stop().1), ["203.0.113.9", "198.51.100.1"]);
    assert_eq!(clients(&not.stop().1), ["127.0.0.1"; 2]);
}

/// The proxy writes one of the two fields, and the client any bytes before it and in the other.
#[tokio::test]
async fn only_the_configured_field_determines_the_client() {
    let forged: [&[u8]; 7] = [
        b"198.51.100.1",
        b"for=198.51.100.1",
        b"\xff\x80",
        b"for=\"\xe9\"",
        b"for=\"198.51.100.1, for=198.51.100.2",
        b"for=\"a, 198.51.100.1\\\", for=198.51.100.2\"",
        b",,\"\\\", ;=,",
    ];
    for (setting, field, written, other) in [
        ("x-forwarded-for", "X-Forwarded-For", "203.0.113.9", "Forwarded"),
        ("forwarded", "Forwarded", "for=203.0.113.9", "X-Forwarded-For"),
    ] {
        let settings =
            format!("listen.trusted_proxies = '127.0.0.0/8'\nlisten.client_address = '{setting}'");
        let edge = Edge::plain(&settings);
        for forged in forged {
            let line =
                |field: &str, value: &[u8]| [field.as_bytes(), b": ", value, b"\r\n"].concat();
            let appended = [forged, b", ", written.as_bytes()].concat();
            let others = line(other, forged);
            redirects_with(&edge, &[line(field, &appended), others.clone()].concat()).await;
            let own_line = [line(field, forged), line(field, written.as_bytes())].concat();
            redirects_with(&edge, &[others, own_line].concat()).await;
        }
        assert_eq!(clients(&edge.stop().1), ["203.0.113.9"; 14], "{setting}");
    }
}

#[tokio::test]
async fn without_a_configured_field_the_client_is_the_peer() {
    let edge =
        Edge::plain("listen.trusted_proxies = '127.0.0.0/8'\nlisten.client_address = 'none'");
    redirects_with(&edge, b"X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n").await;
    assert_eq!(clients(&edge.stop().1), ["127.0.0.1"]);
}
