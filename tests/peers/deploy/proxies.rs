//! Proxies before the edge.

use super::{swap, text};
use crate::peer::Peer;
use crate::proxies::{connect_from_afar, every_request_is_the_clients, queries_stay_exact};
use crate::support::{Authority, Edge, Http1, certified, handshake, requests, until};
use std::fs;
use std::net::SocketAddr;

/// What proxies that end TLS add to an answer.
const OF_FRONTS: &[&str] = &["server", "alt-svc"];

#[tokio::test]
async fn behind_nginx_that_ends_tls() {
    let edge = edge_behind_http();
    let (authority, nginx) = nginx_before(&edge);
    stays_exact_with_tls(&authority, nginx.address("tls"), &edge).await;
}

/// Its configuration as it is shipped.
fn nginx_before(edge: &Edge) -> (Authority, Peer) {
    let (authority, certificates) = certified(&["localhost"]);
    let at = edge.http[0].to_string();
    let common = certificates.path().join("callback-edge.proxy");
    fs::write(&common, text("proxies/callback-edge.proxy")).unwrap();
    let place = |name: &str| certificates.path().join(name).display().to_string();
    let server = swap(
        &text("proxies/nginx.conf"),
        &[
            ("listen 443 ", "listen 127.0.0.1:{port:tls} "),
            ("/etc/nginx/auth.example.com.pem", &place("edge.pem")),
            ("/etc/nginx/auth.example.com.key", &place("edge.key")),
            ("/etc/nginx/callback-edge.proxy", &place("callback-edge.proxy")),
            ("127.0.0.1:8080", &at),
            ("server_name auth.example.com", "server_name localhost"),
        ],
    );
    (authority, Peer::nginx(&format!("http {{\n{server}}}")))
}

#[tokio::test]
async fn behind_nginx_that_passes_tcp_on() {
    let (authority, plain, tls) = edges_behind_a_proxy_header();
    let nginx = Peer::nginx(&swap(
        &text("proxies/nginx-stream.conf"),
        &[
            ("listen 80;", "listen 127.0.0.1:{port:plain};"),
            ("listen 443;", "listen 127.0.0.1:{port:tls};"),
            ("127.0.0.1:8080", &plain.http[0].to_string()),
            ("127.0.0.1:8443", &tls.https[0].to_string()),
        ],
    ));
    stays_exact_with_tls(&authority, nginx.address("tls"), &tls).await;
    stays_exact(nginx.address("plain"), &plain).await;
}

#[tokio::test]
async fn behind_haproxy_that_passes_tcp_on() {
    let (authority, plain, tls) = edges_behind_a_proxy_header();
    let health = format!(" port {} ", tls.admin[0].port());
    let haproxy = Peer::haproxy(&swap(
        &text("proxies/haproxy.cfg"),
        &[
            ("bind :80", "bind 127.0.0.1:{port:plain}"),
            ("bind :443", "bind 127.0.0.1:{port:tls}"),
            ("127.0.0.1:8080", &plain.http[0].to_string()),
            ("127.0.0.1:8443", &tls.https[0].to_string()),
            (" port 9464 ", &health),
        ],
    ));
    stays_exact_with_tls(&authority, haproxy.address("tls"), &tls).await;
    stays_exact(haproxy.address("plain"), &plain).await;
    // It looks at the readiness, and finds it.
    let looked = r#"requests_total{status="200"}"#;
    until("a health check", async || tls.metrics().await.get(looked) > 0.0).await;
    assert!(!haproxy.log().contains("DOWN"), "{}", haproxy.log());
}

#[tokio::test]
async fn behind_caddy_that_ends_tls() {
    let edge = edge_behind_http();
    let (authority, caddy) = caddy_before(&edge);
    stays_exact_with_tls(&authority, caddy.address("tls"), &edge).await;
    // Only the callbacks lead to the edge.
    let stream = connect_from_afar(caddy.address("tls")).await;
    let stream = handshake(authority.client(&[]), stream, "localhost").await.unwrap();
    let reply = Http1::allowing(stream, OF_FRONTS).get("/elsewhere").await.unwrap();
    assert_eq!(reply.status, 404);
}

/// Its configuration as it is shipped.
fn caddy_before(edge: &Edge) -> (Authority, Peer) {
    let (authority, certificates) = certified(&["localhost"]);
    let site = format!(
        "https://localhost:{{port:tls}} {{\n\tbind 127.0.0.1\n\ttls {0}/edge.pem {0}/edge.key\n",
        certificates.path().display()
    );
    let at = edge.http[0].to_string();
    let caddy = Peer::caddy(&swap(
        &text("proxies/Caddyfile"),
        &[("auth.example.com {\n", &site), ("127.0.0.1:8080", &at)],
    ));
    (authority, caddy)
}

/// An edge that reads the field that these proxies do not write finds none of the client's there.
#[tokio::test]
async fn proxies_that_end_tls_remove_the_field_that_the_edge_does_not_read() {
    for before in [nginx_before, caddy_before] {
        let edge = edge_with(&[("\"x-forwarded-for\"", "\"forwarded\"")]);
        let (authority, front) = before(&edge);
        let stream = connect_from_afar(front.address("tls")).await;
        let stream = handshake(authority.client(&[]), stream, "localhost").await.unwrap();
        let mut client = Http1::allowing(stream, OF_FRONTS);
        let forged = "Forwarded: for=203.0.113.9\r\n";
        let reply = client.request("GET", "/oauth/callback", forged, b"").await.unwrap();
        assert_eq!(reply.status, 308);
        until("a log line", async || !requests(&edge.stderr()).is_empty()).await;
        assert_eq!(requests(&edge.stderr())[0]["client"], "127.0.0.1");
    }
}

pub(super) fn edge_behind_http() -> Edge {
    edge_with(&[])
}

/// The settings as they are shipped, but for these.
fn edge_with(own: &[(&str, &str)]) -> Edge {
    let ports = [("127.0.0.1:8080", "127.0.0.1:0"), ("127.0.0.1:9464", "127.0.0.1:0")];
    Edge::start(&swap(&text("proxies/edge-http.toml"), &[&ports, own].concat()))
}

/// The settings with both listeners, and with the plain one alone: where both are on, the plain
/// one leads to the other.
fn edges_behind_a_proxy_header() -> (Authority, Edge, Edge) {
    let settings = swap(
        &text("proxies/edge-proxy-protocol.toml"),
        &[
            ("auth.example.com", "localhost"),
            ("127.0.0.1:8080", "127.0.0.1:0"),
            ("127.0.0.1:8443", "127.0.0.1:0"),
            ("127.0.0.1:9464", "127.0.0.1:0"),
            ("/etc/callback-edge/fullchain.pem", "{dir}/edge.pem"),
            ("/etc/callback-edge/privkey.pem", "{dir}/edge.key"),
        ],
    );
    let (authority, dir) = certified(&["localhost"]);
    let tls = Edge::start_in(dir, &settings, |_| {});
    let (plain, _) = settings.split_once("[tls]").unwrap();
    let plain = Edge::start(&swap(plain, &[("https = \"127.0.0.1:0\"", "https = \"off\"")]));
    (authority, plain, tls)
}

async fn stays_exact_with_tls(authority: &Authority, front: SocketAddr, edge: &Edge) {
    let stream = connect_from_afar(front).await;
    let stream = handshake(authority.client(&[]), stream, "localhost").await.unwrap();
    let requests = queries_stay_exact(&mut Http1::allowing(stream, OF_FRONTS)).await;
    every_request_is_the_clients(edge, requests).await;
}

async fn stays_exact(front: SocketAddr, edge: &Edge) {
    let stream = connect_from_afar(front).await;
    let requests = queries_stay_exact(&mut Http1::allowing(stream, OF_FRONTS)).await;
    every_request_is_the_clients(edge, requests).await;
}
