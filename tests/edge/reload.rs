//! SIGHUP: valid settings apply at once and completely; invalid settings change nothing.

use crate::support::{Edge, command, connect, free, settings, until};
use rustix::process::Signal;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

fn leading_to(target: &str, more: &str) -> String {
    settings::plain(&format!(
        "
        {more}
        [[route]]
        path = '/oauth/callback'
        target = 'https://{target}/cb'
        "
    ))
}

/// Reloads, and waits until it is done.
async fn reload(edge: &Edge, settings: &str, result: &str) {
    let series = format!("reloads_total{{result=\"{result}\"}}");
    let before = edge.metrics().await.get(&series);
    edge.rewrite(settings);
    edge.signal(Signal::HUP);
    until("it is reloaded", async || edge.metrics().await.get(&series) > before).await;
}

#[tokio::test]
async fn a_reload_applies_to_open_connections() {
    let mut edge =
        Edge::start(&leading_to("one.example", "log.level = 'warn'\nlog.format = 'text'"));
    let mut client = connect(edge.http[0]).await;
    let reply = client.get("/oauth/callback?a").await.unwrap();
    assert_eq!(reply.location(), "https://one.example/cb?a");
    assert_eq!(client.get("/proof.txt").await.unwrap().status, 404);
    let long = format!("/oauth/callback?{}", "x".repeat(2000));
    assert_eq!(client.get(&long).await.unwrap().status, 308);
    assert!(!edge.stderr().contains("\"request\""));

    let more = "limits.query_bytes = 1000\nlog.level = 'info'\nlog.format = 'text'\n\
                [[page]]\npath = '/proof.txt'\nbody = 'mine'\n";
    reload(&edge, &leading_to("two.example", more), "success").await;
    let reply = client.get("/oauth/callback?a").await.unwrap();
    assert_eq!(reply.location(), "https://two.example/cb?a");
    assert_eq!(client.get("/proof.txt").await.unwrap().body, b"mine");
    assert_eq!(client.get(&long).await.unwrap().status, 414);
    edge.wait_for("\"request\"");

    let metrics = edge.metrics().await;
    assert!(metrics.get("settings_current") > 0.0);
    assert!(metrics.get("settings_loaded_seconds") > 1e9);
    edge.finish();
}

#[tokio::test]
async fn lowered_limits_apply_to_open_connections() {
    let edge = Edge::start(&leading_to("one.example", ""));
    let mut silent = connect(edge.http[0]).await;
    let mut busy = connect(edge.http[0]).await;
    assert_eq!(busy.get("/oauth/callback?a").await.unwrap().status, 308);
    let more = "limits.request_timeout = '300ms'\nlimits.idle_timeout = '300ms'\n";
    reload(&edge, &leading_to("one.example", more), "success").await;
    let reloaded = Instant::now();
    assert!(busy.is_closed().await);
    assert!(silent.is_closed().await);
    assert!(reloaded.elapsed() < Duration::from_secs(2), "{:?}", reloaded.elapsed());
}

#[tokio::test]
async fn added_listeners_are_opened_and_removed_ones_drained() {
    let mut edge = Edge::start(&leading_to("one.example", ""));
    let first = edge.http[0];
    let second = free();
    let both = leading_to("one.example", &format!("listen.http = ['127.0.0.1:0', '{second}']"));
    reload(&edge, &both, "success").await;
    edge.wait_for(&format!("\"address\":\"{second}\""));
    let mut client = connect(*second).await;
    assert_eq!(client.get("/oauth/callback?a").await.unwrap().text("connection"), "");
    let mut silent = connect(*second).await;
    // The metrics show that the connection is accepted.
    until("accepted", async || edge.metrics().await.connections() >= 2.0).await;

    reload(&edge, &leading_to("one.example", ""), "success").await;
    until("closed", async || TcpStream::connect(*second).await.is_err()).await;
    for client in [&mut client, &mut silent] {
        let reply = client.get("/oauth/callback?a").await.expect("dropped");
        assert_eq!((reply.status, reply.text("connection").as_str()), (308, "close"));
    }
    let mut other = connect(first).await;
    assert_eq!(other.get("/oauth/callback?a").await.unwrap().text("connection"), "");
    // Again: nothing remains of the first time.
    reload(&edge, &both, "success").await;
    assert_eq!(connect(*second).await.get("/oauth/callback").await.unwrap().status, 308);
}

#[tokio::test]
async fn invalid_settings_change_nothing_and_are_reported_as_by_config_check() {
    let mut edge = Edge::start(&leading_to("one.example", "log.format = 'text'"));
    let mut client = connect(edge.http[0]).await;
    client.get("/oauth/callback?code=canary-code").await.unwrap();
    let bad = leading_to("two.example", "limits.query_bytes = 1\nlog.levle = 'info'\n");
    reload(&edge, &bad, "failure").await;
    let output = command(edge.dir()).args(["-c", "config.toml", "config", "check"]).output();
    let reported = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(reported.contains("log.levle") || reported.contains("levle"), "{reported}");
    let log = edge.wait_for("reload_failed");
    assert!(log.contains(&reported), "{reported}\nis not in:\n{log}");
    assert!(log.contains("run `callback-edge -c config.toml config check` to print"), "{log}");

    let reply = client.get("/oauth/callback?a").await.unwrap();
    assert_eq!(reply.location(), "https://one.example/cb?a");
    let metrics = edge.metrics().await;
    assert_eq!(metrics.get("settings_current") as i32, 0);
    assert!(metrics.get("ready") > 0.0);

    reload(&edge, &bad, "failure").await;
    reload(&edge, &leading_to("two.example", ""), "success").await;
    let log = edge.wait_for("\"reloaded\"");
    let recovered = log.lines().find(|line| line.contains("\"reloaded\"")).unwrap();
    assert!(recovered.contains("failed_for_s="), "{recovered}");
    reload(&edge, &leading_to("two.example", ""), "success").await;
    assert_eq!(edge.metrics().await.get("settings_current") as i32, 1);
    let reply = client.get("/oauth/callback?a").await.unwrap();
    assert_eq!(reply.location(), "https://two.example/cb?a");
    let log = edge.stop().1;
    assert_eq!(log.matches("failed_for_s").count(), 1, "only once: {log}");
    assert!(!log.contains("canary"));
}

#[tokio::test]
async fn a_port_in_use_changes_nothing() {
    let mut edge = Edge::start(&leading_to("one.example", ""));
    let mut client = connect(edge.http[0]).await;
    client.get("/oauth/callback?a").await.unwrap();
    // Held, so that no other process gets it when the listener is gone.
    let port = free();
    let taken = TcpListener::bind(*port).unwrap();
    let wanted = leading_to("two.example", &format!("listen.http = ['127.0.0.1:0', '{port}']"));
    reload(&edge, &wanted, "failure").await;
    let log = edge.wait_for("reload_failed");
    assert!(log.contains(&format!("cannot listen on `{port}` (`listen.http`)")), "{log}");
    let owner = format!("(process {}) listens there: stop it", std::process::id());
    assert!(log.contains(&owner), "{log}");
    let reply = client.get("/oauth/callback?a").await.unwrap();
    assert_eq!(reply.location(), "https://one.example/cb?a");
    assert_eq!(edge.metrics().await.get("settings_current") as i32, 0);
    drop(taken);
    reload(&edge, &wanted, "success").await;
    let reply = client.get("/oauth/callback?a").await.unwrap();
    assert_eq!(reply.location(), "https://two.example/cb?a");
}

#[tokio::test]
async fn its_own_port_is_not_attributed_to_another_program() {
    let address = free();
    let here = leading_to("one.example", &format!("listen.http = '{address}'"));
    let mut edge = Edge::start(&here);
    let everywhere = here.replace(&address.to_string(), &format!("0.0.0.0:{}", address.port()));
    reload(&edge, &format!("log.format = 'text'\n{everywhere}"), "failure").await;
    let log = edge.wait_for("reload_failed");
    assert!(log.contains("\"hint\":\"this process already listens on the port"), "{log}");
    // Settings that need a restart are logged; the others apply.
    reload(&edge, &format!("log.format = 'text'\n{here}"), "success").await;
    edge.wait_for("restart_needed");
}
