//! ACME with a real ACME server, Pebble.

mod obtaining;
mod refusals;
mod renewal;
mod state;

use crate::pebble::{Pebble, handshake, request};
use crate::support::{Edge, connect};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const NAME: &str = "auth.example.com";

const NEXT: &str = "callback_edge_acme_next_seconds{domain=\"auth.example.com\"} ";

/// Like [`until`], with time for a backoff or the expiry of a short-lived certificate.
async fn in_time(what: &str, mut is_met: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is_met().await {
        assert!(started.elapsed() < Duration::from_mins(1), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a client that trusts only Pebble's CA is redirected.
async fn redirects(pebble: &Pebble, name: &str) {
    let client = pebble.client().await;
    in_time("a certificate", async || handshake(&client, pebble.edge_https, name).await.is_ok())
        .await;
    let stream = handshake(&client, pebble.edge_https, name).await.unwrap();
    let response = request(stream, name, "/oauth/callback?code=1&state=2").await;
    assert!(response.starts_with("HTTP/1.1 308 "), "{response}");
    let location = "location: https://api.nango.dev/oauth/callback?code=1&state=2";
    assert!(response.to_lowercase().contains(location), "{response}");
}

/// The certificate that is served for a name; `None` when the client does not trust it.
async fn served(client: &Arc<ClientConfig>, pebble: &Pebble, name: &str) -> Option<Vec<u8>> {
    let stream = handshake(client, pebble.edge_https, name).await.ok()?;
    let certificates = stream.get_ref().1.peer_certificates()?;
    certificates.first().map(|certificate: &CertificateDer<'_>| certificate.to_vec())
}

async fn admin(edge: &Edge, path: &str) -> (u16, String) {
    let reply = connect(edge.admin[0]).await.get(path).await.unwrap();
    (reply.status, String::from_utf8(reply.body).unwrap())
}

/// A state directory that survives a restart.
fn persistent() -> (TempDir, String) {
    let dir = TempDir::new().unwrap();
    let state = format!("state_dir = '{}'", dir.path().join("acme").display());
    (dir, state)
}

/// The time of the next order, from the metrics.
async fn next(edge: &Edge) -> i64 {
    let (_, metrics) = admin(edge, "/metrics").await;
    let next = metrics.lines().find_map(|line| line.strip_prefix(NEXT));
    next.map_or(0, |next| next.parse().unwrap())
}
