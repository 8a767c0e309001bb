//! Certificates by themselves, from a real ACME server.

mod obtaining;
mod refusals;
mod renewal;
mod state;

use crate::pebble::{Pebble, ask, handshake};
use crate::support::{Edge, connect};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const NAME: &str = "auth.example.com";

const NEXT: &str = "callback_edge_acme_next_seconds{domain=\"auth.example.com\"} ";

/// As [`until`], for what has to wait for a back-off or the end of a short lifetime.
async fn in_time(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !so().await {
        assert!(started.elapsed() < Duration::from_mins(1), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client that trusts only what Pebble issues is redirected by an edge that had nothing.
async fn redirects(pebble: &Pebble, name: &str) {
    let client = pebble.client().await;
    in_time("a certificate", async || handshake(&client, pebble.edge_https, name).await.is_ok())
        .await;
    let stream = handshake(&client, pebble.edge_https, name).await.unwrap();
    let answer = ask(stream, name, "/oauth/callback?code=1&state=2").await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    let location = "location: https://api.nango.dev/oauth/callback?code=1&state=2";
    assert!(answer.to_lowercase().contains(location), "{answer}");
}

/// The certificate that is shown for a name; `None` when there is none that the client trusts.
async fn shown(client: &Arc<ClientConfig>, pebble: &Pebble, name: &str) -> Option<Vec<u8>> {
    let stream = handshake(client, pebble.edge_https, name).await.ok()?;
    let certificates = stream.get_ref().1.peer_certificates()?;
    certificates.first().map(|certificate: &CertificateDer<'_>| certificate.to_vec())
}

async fn admin(edge: &Edge, path: &str) -> (u16, String) {
    let reply = connect(edge.admin[0]).await.get(path).await.unwrap();
    (reply.status, String::from_utf8(reply.body).unwrap())
}

/// A folder that outlives the edge in it.
fn lasting() -> (TempDir, String) {
    let dir = TempDir::new().unwrap();
    let state = format!("state_dir = '{}'", dir.path().join("acme").display());
    (dir, state)
}

/// When the next order is made, as the metrics say.
async fn next(edge: &Edge) -> i64 {
    let (_, metrics) = admin(edge, "/metrics").await;
    let next = metrics.lines().find_map(|line| line.strip_prefix(NEXT));
    next.map_or(0, |next| next.parse().unwrap())
}
