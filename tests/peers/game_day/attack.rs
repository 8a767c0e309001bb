//! Clients at the limits: of connections, of open files, of the size of a request.

use super::watch::Watch;
use super::{assert_runbook, last_event};
use crate::support::{Edge, Http1, connect};
use rustix::process::Signal;
use std::collections::VecDeque;
use std::process::Command;
use std::time::Duration;
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
    let mut edge = Edge::start(&settings(1000));
    let watch = Watch::of(edge.admin[0]).await;
    // It holds a connection for its scrapes then.
    watch.observes("callback_edge_ready == 1").await;
    // The limits of connections follow the limit of files at the start; here it falls later.
    let lowered = Command::new("prlimit")
        .args(["--nofile=100:100", "--pid", &edge.id().to_string()])
        .status();
    assert!(lowered.unwrap().success());
    let address = edge.http[0];
    // It opens connections faster than they end, and the server closes others for them.
    let attacker = tokio::spawn(async move {
        let mut held = VecDeque::new();
        let mut next = tokio::time::interval(Duration::from_millis(5));
        loop {
            next.tick().await;
            held.extend(TcpStream::connect(address).await);
            if held.len() > 150 {
                held.pop_front();
            }
        }
    });
    let alert = watch.fires("CallbackEdgeOutOfFiles").await;
    assert_eq!(alert["labels"]["severity"], "page");
    assert_runbook(&alert, "Lower `limits.connections` below the limit of open files and reload");
    assert_eq!(last_event(&edge.stderr(), "out_of_files")["level"], "ERROR");
    edge.rewrite(&settings(30));
    edge.signal(Signal::HUP);
    edge.wait_for("\"reloaded\"");
    watch.observes("sum(callback_edge_connections) <= 30").await;
    watch.observes("increase(callback_edge_limits_total{limit='open_files'}[3s]) == 0").await;
    let reply = connect(address).await.get("/oauth/callback?code=1").await.unwrap();
    assert_eq!(reply.status, 308);
    attacker.abort();
    watch.is_silent().await;
}

#[tokio::test]
async fn codes_over_the_limit_open_a_ticket_until_it_is_raised() {
    let settings = |bytes: &str| {
        format!(
            "
            listen.http = '127.0.0.1:0'
            listen.admin = '127.0.0.1:0'
            limits.query_bytes = '{bytes}'
            "
        )
    };
    let mut edge = Edge::start(&settings("1KiB"));
    let watch = Watch::of(edge.admin[0]).await;
    let address = edge.http[0];
    // One user in four has a long code.
    let users = tokio::spawn(async move {
        let target = |length: usize| format!("/oauth/callback?code={}", "c".repeat(length));
        loop {
            for length in [30, 30, 30, 2000] {
                connect(address).await.get(target(length)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    let alert = watch.fires("CallbackEdgeRequestsRejected").await;
    assert_eq!(alert["labels"]["severity"], "ticket");
    assert_runbook(&alert, "Find the status in `callback_edge_requests_total`");
    watch.observes("callback_edge_requests_total{status=\"414\"} > 0").await;
    edge.wait_for("\"reason\":\"query_too_long\"");
    edge.rewrite(&settings("32KiB"));
    edge.signal(Signal::HUP);
    edge.wait_for("\"reloaded\"");
    watch.is_silent().await;
    users.abort();
}
