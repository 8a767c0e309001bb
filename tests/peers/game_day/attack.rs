//! A flood of connections: at the limit of connections, and at the limit of open files.

use super::watch::Watch;
use super::{assert_runbook, last_event};
use crate::support::{Edge, Http1, connect};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;

/// An attacker that holds connections, each after one request.
async fn flood(edge: &Edge, count: usize) -> Vec<Http1<TcpStream>> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut client = connect(edge.http[0]).await;
        client.get("/oauth/callback?code=1").await.unwrap();
        held.push(client);
    }
    held
}

#[tokio::test]
async fn a_flood_opens_a_ticket_while_users_are_served() {
    let settings = |per_address: u32| {
        format!(
            "
            listen.http = '127.0.0.1:0'
            listen.admin = '127.0.0.1:0'
            limits.connections = 50
            limits.connections_per_address = {per_address}
            limits.idle_timeout = '10m'
            "
        )
    };
    let mut edge = Edge::start(&settings(256));
    let watch = Watch::of(edge.admin[0]).await;
    let held = flood(&edge, 60).await;
    let alert = watch.fires("CallbackEdgeSaturated").await;
    assert_eq!(alert["labels"]["severity"], "ticket");
    assert_runbook(&alert, "block their addresses, or lower `limits.connections_per_address`");
    // The event names the client.
    assert_eq!(last_event(&edge.stderr(), "request")["client"], "127.0.0.1");
    let reply = connect(edge.http[0]).await.get("/oauth/callback?code=1").await.unwrap();
    assert_eq!(reply.status, 308);
    // The fix: fewer connections of each address, and the firewall ends the open ones.
    edge.rewrite(&settings(5));
    edge.signal(Signal::HUP);
    edge.wait_for("\"reloaded\"");
    drop(held);
    watch.is_silent().await;
    assert_eq!(watch.fired().await.into_iter().collect::<Vec<_>>(), ["CallbackEdgeSaturated"]);
}

#[tokio::test]
async fn a_server_without_file_descriptors_pages_and_recovers_with_a_lower_limit() {
    let settings = |connections: u32| {
        format!(
            "
            listen.http = '127.0.0.1:0'
            listen.admin = '127.0.0.1:0'
            limits.connections = {connections}
            limits.idle_timeout = '10m'
            "
        )
    };
    let script = r#"ulimit -n 100; exec "$0" "$@""#;
    let mut edge = Edge::start_from_shell(TempDir::new().unwrap(), &settings(1000), script, |_| {});
    assert!(edge.stderr().contains("\"file_limit\""), "{}", edge.stderr());
    let watch = Watch::of(edge.admin[0]).await;
    // It holds a connection for its scrapes then.
    watch.observes("callback_edge_ready == 1").await;
    let address = edge.http[0];
    let held: Vec<TcpStream> = {
        let mut held = Vec::new();
        for _ in 0..150 {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        held
    };
    let alert = watch.fires("CallbackEdgeOutOfFiles").await;
    assert_eq!(alert["labels"]["severity"], "page");
    assert_runbook(&alert, "Lower `limits.connections` below the limit of open files and reload");
    assert_eq!(last_event(&edge.stderr(), "out_of_files")["level"], "ERROR");
    edge.rewrite(&settings(30));
    edge.signal(Signal::HUP);
    edge.wait_for("\"reloaded\"");
    watch.observes("sum(callback_edge_connections) <= 30").await;
    let reply = connect(address).await.get("/oauth/callback?code=1").await.unwrap();
    assert_eq!(reply.status, 308);
    drop(held);
    watch.is_silent().await;
}
