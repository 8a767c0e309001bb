//! Who is believed about the client's address, and who is not.

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
async fn a_proxy_header_from_a_trusted_network_names_the_client() {
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
async fn a_trusted_network_without_a_header_is_refused_and_counted() {
    let (edge, _) = Edge::over_tls("listen.proxy_protocol = '127.0.0.0/8'");
    for address in [edge.http[0], edge.https[0]] {
        let mut client = connect(address).await;
        assert!(client.get("/oauth/callback?code=canary-code").await.is_none());
    }
    let metrics = edge.metrics().await;
    let refused = metrics.get("connections_refused_total{reason=\"proxy_header\"}");
    assert_eq!(refused as i64, 2);
    // The admin listener is for the machine's own network: no header there.
    assert_eq!(connect(edge.admin[0]).await.get("/healthz").await.unwrap().status, 200);
    assert!(!edge.stop().1.contains("canary"));
}

#[tokio::test]
async fn a_header_from_an_untrusted_network_is_no_header() {
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
        // The alert is on its way before the failure is counted.
        let failed = "tls_handshake_failures_total{reason=\"not_tls\"}";
        until("it is counted", async || edge.metrics().await.get(failed) >= 1.0).await;
        assert!(!edge.stop().1.contains("192.0.2.7"));
    }
}

#[tokio::test]
async fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
    let ask = async |edge: &Edge, fields: &str| {
        let mut client = connect(edge.http[0]).await;
        let reply = client.request("GET", "/oauth/callback", fields, b"").await;
        assert_eq!(reply.unwrap().status, 308);
    };
    let fields = [
        "X-Forwarded-For: 198.51.100.1, 203.0.113.9\r\n",
        "Forwarded: for=198.51.100.1, for=\"[2001:db8::9]:1\"\r\n",
        "X-Forwarded-For: 198.51.100.1, 127.0.0.9\r\n",
    ];
    let trusting = Edge::over_tls("listen.trusted_proxies = '127.0.0.0/8'").0;
    let not = Edge::over_tls("").0;
    for fields in fields {
        ask(&trusting, fields).await;
        ask(&not, fields).await;
    }
    assert_eq!(clients(&trusting.stop().1), ["203.0.113.9", "2001:db8::9", "198.51.100.1"]);
    assert_eq!(clients(&not.stop().1), ["127.0.0.1"; 3]);
}
