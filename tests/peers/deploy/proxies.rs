//! Proxies in front of the server.

use super::{substitute, text};
use crate::peer::Peer;
use crate::proxies::{assert_log_names_the_client, assert_queries_unchanged, connect_as_client};
use crate::support::{Authority, Edge, Http1, certified, handshake, requests, until};
use std::fs;
use std::net::SocketAddr;

/// Headers that proxies which terminate TLS add to a response.
const PROXY_HEADERS: &[&str] = &["server", "alt-svc"];

#[tokio::test]
async fn behind_nginx_that_terminates_tls() {
    let edge = edge_behind_http();
    let (authority, nginx) = nginx_in_front_of(&edge);
    assert_unchanged_over_tls(&authority, nginx.address("tls"), &edge).await;
}

/// nginx with the shipped configuration.
fn nginx_in_front_of(edge: &Edge) -> (Authority, Peer) {
    let (authority, certificates) = certified(&["localhost"]);
    let at = edge.http[0].to_string();
    let common = certificates.path().join("callback-edge.proxy");
    fs::write(&common, text("proxies/callback-edge.proxy")).unwrap();
    let path = |name: &str| certificates.path().join(name).display().to_string();
    let server = substitute(
        &text("proxies/nginx.conf"),
        &[
            ("listen 443 ", "listen 127.0.0.1:{port:tls} "),
            ("/etc/nginx/auth.example.com.pem", &path("edge.pem")),
            ("/etc/nginx/auth.example.com.key", &path("edge.key")),
            ("/etc/nginx/callback-edge.proxy", &path("callback-edge.proxy")),
            ("127.0.0.1:8080", &at),
            ("server_name auth.example.com", "server_name localhost"),
        ],
    );
    (authority, Peer::nginx(&format!("http {{\n{server}}}")))
}

#[tokio::test]
async fn behind_nginx_that_forwards_tcp() {
    let (authority, plain, tls) = edges_behind_a_proxy_header();
    let nginx = Peer::nginx(&substitute(
        &text("proxies/nginx-stream.conf"),
        &[
            ("listen 80;", "listen 127.0.0.1:{port:plain};"),
            ("listen 443;", "listen 127.0.0.1:{port:tls};"),
            ("127.0.0.1:8080", &plain.http[0].to_string()),
            ("127.0.0.1:8443", &tls.https[0].to_string()),
        ],
    ));
    assert_unchanged_over_tls(&authority, nginx.address("tls"), &tls).await;
    assert_unchanged(nginx.address("plain"), &plain).await;
}

#[tokio::test]
async fn behind_haproxy_that_forwards_tcp() {
    let (authority, plain, tls) = edges_behind_a_proxy_header();
    let health = format!(" port {} ", tls.admin[0].port());
    let haproxy = Peer::haproxy(&substitute(
        &text("proxies/haproxy.cfg"),
        &[
            ("bind :80", "bind 127.0.0.1:{port:plain}"),
            ("bind :443", "bind 127.0.0.1:{port:tls}"),
            ("127.0.0.1:8080", &plain.http[0].to_string()),
            ("127.0.0.1:8443", &tls.https[0].to_string()),
            (" port 9464 ", &health),
        ],
    ));
    assert_unchanged_over_tls(&authority, haproxy.address("tls"), &tls).await;
    assert_unchanged(haproxy.address("plain"), &plain).await;
    // HAProxy requests the readiness and receives it.
    let successful = r#"internal_requests_total{kind="health"}"#;
    until("a health check", async || tls.metrics().await.get(successful) > 0.0).await;
    assert!(!haproxy.log().contains("DOWN"), "{}", haproxy.log());
}

#[tokio::test]
async fn behind_caddy_that_terminates_tls() {
    let edge = edge_behind_http();
    let (authority, caddy) = caddy_in_front_of(&edge);
    assert_unchanged_over_tls(&authority, caddy.address("tls"), &edge).await;
    // Caddy forwards only the callbacks.
    let stream = connect_as_client(caddy.address("tls")).await;
    let stream = handshake(authority.client(&[]), stream, "localhost").await.unwrap();
    let reply = Http1::allowing(stream, PROXY_HEADERS).get("/elsewhere").await.unwrap();
    assert_eq!(reply.status, 404);
}

/// Caddy with the shipped configuration.
fn caddy_in_front_of(edge: &Edge) -> (Authority, Peer) {
    let (authority, certificates) = certified(&["localhost"]);
    let site = format!(
        "https://localhost:{{port:tls}} {{\n\tbind 127.0.0.1\n\ttls {0}/edge.pem {0}/edge.key\n",
        certificates.path().display()
    );
    let at = edge.http[0].to_string();
    let caddy = Peer::caddy(&substitute(
        &text("proxies/Caddyfile"),
        &[("auth.example.com {\n", &site), ("127.0.0.1:8080", &at)],
    ));
    (authority, caddy)
}

/// A server configured to read the header that these proxies do not write gets no forged value.
#[tokio::test]
async fn proxies_that_terminate_tls_remove_the_header_that_they_do_not_write() {
    for start in [nginx_in_front_of, caddy_in_front_of] {
        let edge = edge_with(&[("\"x-forwarded-for\"", "\"forwarded\"")]);
        let (authority, front) = start(&edge);
        let stream = connect_as_client(front.address("tls")).await;
        let stream = handshake(authority.client(&[]), stream, "localhost").await.unwrap();
        let mut client = Http1::allowing(stream, PROXY_HEADERS);
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

/// A server with the shipped configuration, except for these replacements.
fn edge_with(replaced: &[(&str, &str)]) -> Edge {
    let ports = [("127.0.0.1:8080", "127.0.0.1:0"), ("127.0.0.1:9464", "127.0.0.1:0")];
    Edge::start(&substitute(&text("proxies/edge-http.toml"), &[&ports, replaced].concat()))
}

/// The configuration with both listeners, and only with the plain one: if both are on, the plain one
/// redirects to the other.
fn edges_behind_a_proxy_header() -> (Authority, Edge, Edge) {
    let settings = substitute(
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
    let plain = Edge::start(&substitute(plain, &[("https = \"127.0.0.1:0\"", "https = \"off\"")]));
    (authority, plain, tls)
}

async fn assert_unchanged_over_tls(authority: &Authority, front: SocketAddr, edge: &Edge) {
    let stream = connect_as_client(front).await;
    let stream = handshake(authority.client(&[]), stream, "localhost").await.unwrap();
    let requests = assert_queries_unchanged(&mut Http1::allowing(stream, PROXY_HEADERS)).await;
    assert_log_names_the_client(edge, requests).await;
}

async fn assert_unchanged(front: SocketAddr, edge: &Edge) {
    let stream = connect_as_client(front).await;
    let requests = assert_queries_unchanged(&mut Http1::allowing(stream, PROXY_HEADERS)).await;
    assert_log_names_the_client(edge, requests).await;
}
