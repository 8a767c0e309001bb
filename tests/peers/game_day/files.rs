//! Files: a configuration and a certificate that cannot be used, a full disk; and an hour without any of it.

use super::watch::Watch;
use super::{assert_explained, assert_runbook, explain, last_event};
use crate::fakes::{self, behaviour};
use crate::pebble::{Options, Pebble};
use crate::support::{Edge, Http2, certified, command, free, settings};
use rustix::process::Signal;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

#[tokio::test]
async fn a_failed_reload_and_an_unusable_certificate_open_tickets_until_they_are_fixed() {
    let (authority, dir) = certified(&["localhost"]);
    let good = settings::tls("");
    let mut edge = Edge::start_in(dir, &good, |_| {});
    let watch = Watch::of(edge.admin[0]).await;
    edge.rewrite(&format!("redirct = 'x'\n{good}"));
    edge.signal(Signal::HUP);
    let alert = watch.fires("CallbackEdgeReloadFailed").await;
    assert_eq!(alert["labels"]["severity"], "ticket");
    assert_runbook(&alert, "Run `callback-edge config check`");
    let log = edge.wait_for("reload_failed");
    let event = last_event(&log, "config_error");
    assert_eq!((&event["problem"], &event["line"]), (&"unknown key `redirct`".into(), &1.into()));
    assert_explained(&explain("event.reload_failed"), "Run `callback-edge config check`");
    let check =
        || command(edge.dir()).args(["-c", "config.toml", "config", "check"]).output().unwrap();
    let output = String::from_utf8(check().stderr).unwrap();
    assert!(output.contains("unknown key `redirct`"), "{output}");
    edge.rewrite(&good);
    assert_eq!(check().status.code(), Some(0));
    edge.signal(Signal::HUP);
    watch.is_silent().await;
    assert!(last_event(&edge.stderr(), "reloaded")["failed_for_s"].is_u64());

    // The key of another certificate.
    let key = fs::read(edge.dir().join("edge.key")).unwrap();
    authority.write(edge.dir(), "other", &["localhost"]);
    fs::rename(edge.dir().join("other.key"), edge.dir().join("edge.key")).unwrap();
    let alert = watch.fires("CallbackEdgeCertificateNotReplaced").await;
    assert_runbook(&alert, "Find the log event `certificate_kept`: its `cause` is the error.");
    let event = last_event(&edge.stderr(), "certificate_kept");
    assert!(event["cause"].as_str().unwrap().contains("key"), "{event}");
    fs::write(edge.dir().join("edge.key"), key).unwrap();
    watch.is_silent().await;
    assert!(last_event(&edge.stderr(), "certificate_loaded")["failed_for_s"].is_u64());
}

#[tokio::test]
async fn a_certificate_that_expires_within_hours_pages_until_it_is_replaced() {
    let (authority, dir) = certified(&["localhost"]);
    // The last hours of 90 days.
    let hour = Duration::from_hours(1);
    authority.write_with(dir.path(), "edge", &["localhost"], |params| {
        params.not_before = (SystemTime::now() - hour * 24 * 90).into();
        params.not_after = (SystemTime::now() + hour * 2).into();
    });
    let mut edge = Edge::start_in(dir, &settings::tls(""), |_| {});
    let watch = Watch::of(edge.admin[0]).await;
    let alert = watch.fires("CallbackEdgeCertificateExpired").await;
    assert_eq!(alert["labels"]["severity"], "page");
    let summary = alert["annotations"]["summary"].as_str().unwrap();
    assert!(summary.contains("edge.pem expires in 1h 5"), "{summary}");
    assert_runbook(&alert, "use a certificate of another CA");
    let soon = watch.fires("CallbackEdgeCertificateExpiresSoon").await;
    assert_eq!(soon["labels"]["severity"], "ticket");
    assert_runbook(&soon, "replace them; no restart is needed");
    authority.write_with(edge.dir(), "edge", &["localhost"], |params| {
        params.not_before = (SystemTime::now() - hour).into();
        params.not_after = (SystemTime::now() + hour * 24 * 90).into();
    });
    edge.wait_for("certificate_loaded");
    watch.is_silent().await;
}

#[tokio::test]
async fn a_server_that_was_killed_pages_until_it_is_started() {
    let admin = free();
    let dir = Arc::new(TempDir::new().unwrap());
    let settings = format!("listen.http = '127.0.0.1:0'\nlisten.admin = '{admin}'");
    let edge = Edge::start_in(Arc::clone(&dir), &settings, |_| {});
    let watch = Watch::of(*admin).await;
    drop(edge);
    let alert = watch.fires("CallbackEdgeDown").await;
    assert_eq!(alert["labels"]["severity"], "page");
    assert_runbook(&alert, "Run `callback-edge check URL` first");
    let instance = watch.fires("CallbackEdgeInstanceDown").await;
    assert_eq!(instance["labels"]["instance"], "edge");
    let health = command(dir.path()).args(["-c", "config.toml", "health"]).output().unwrap();
    assert_eq!(health.status.code(), Some(3));
    let _edge = Edge::start_in(dir, &settings, |_| {});
    watch.is_silent().await;
}

/// The state directory is a file system of 64 KiB that is full, as only this process sees it.
const FULL_DISK: &str = r#"
    exec unshare --mount sh -c '
      mkdir acme
      mount -t tmpfs -o size=64k none acme
      cat /dev/zero >acme/filler 2>/dev/null
      exec "$0" "$@"
    ' "$0" "$@"
"#;

#[tokio::test]
async fn a_full_disk_opens_a_ticket_and_the_order_succeeds_when_there_is_space() {
    let pebble = Pebble::start(Options::default()).await;
    let settings = pebble.settings(&["auth.example.com"], "");
    let dir = TempDir::new().unwrap();
    let acme = dir.path().join("acme");
    let settings = settings.replace("'{dir}/acme'", &format!("'{}'", acme.display()));
    let edge = Edge::start_from_shell(dir, &settings, FULL_DISK, |_| {});
    let watch = Watch::of(edge.admin[0]).await;
    // It has no certificate yet, which is a page.
    assert_runbook(&watch.fires("CallbackEdgeDown").await, "`/readyz` on the admin listener");
    let alert = watch.fires("CallbackEdgeCertificateRenewalFailing").await;
    assert_eq!(alert["labels"]["severity"], "ticket");
    assert_runbook(&alert, "`callback-edge explain acme.REASON`");
    watch.observes("callback_edge_acme_failures_total{reason=\"state_dir\"} > 2").await;
    let event = last_event(&edge.stderr(), "acme_failed");
    assert_eq!(event["reason"], "state_dir", "{event}");
    assert_explained(&explain("acme.state_dir"), "Free disk space");
    assert_eq!(pebble.orders(), 0);
    // Only the process sees the file system.
    let filler = format!("/proc/{}/root{}/filler", edge.id(), acme.display());
    fs::remove_file(filler).unwrap();
    watch.observes("callback_edge_acme_steps_total{step=\"certificate\"} > 0").await;
    watch.is_silent().await;
}

/// An hour at a minute of the rules per second: 120 scrapes. The self-check runs every 5 s, as every 5 minutes; there is a
/// reload every 5 and a renewal every 10 minutes instead of months, and a restart every 15 minutes.
#[tokio::test]
async fn no_alert_fires_in_an_hour_with_reloads_renewals_and_restarts() {
    let (authority, dir) = certified(&["localhost"]);
    let dir = Arc::new(dir);
    let nango = fakes::plain(behaviour(fakes::nango)).await;
    let (port, admin) = (free(), free());
    let settings = settings::tls(&format!(
        "
        public_url = 'https://localhost:{}'
        nango.url = 'http://{nango}'
        listen.https = '{port}'
        listen.admin = '{admin}'
        self_check.every = '5s'
        self_check.root_ca = '{{dir}}/ca.pem'
        ",
        port.port()
    ));
    let start = || Edge::start_in(Arc::clone(&dir), &settings, |_| {});
    let mut edge = start();
    let watch = Watch::of(edge.admin[0]).await;
    for five_minutes in 1..=12 {
        watch.scrapes(10).await;
        for _ in 0..10 {
            let mut client = Http2::connect(&authority, *port, "localhost").await;
            let reply = client.get("/oauth/callback?code=1&state=2").await.unwrap();
            assert_eq!(reply.status, 308);
        }
        match five_minutes % 6 {
            3 => {
                edge.finish();
                edge = start();
            }
            2 | 4 => {
                authority.write(dir.path(), "edge", &["localhost"]);
                edge.wait_for("certificate_loaded");
            }
            _ => {
                edge.signal(Signal::HUP);
                edge.wait_for("\"reloaded\"");
            }
        }
    }
    watch.scrapes(10).await;
    watch.observes("callback_edge_self_check_verdict{verdict=\"pass\"} == 1").await;
    assert_eq!(watch.fired().await.len(), 0, "{:?}", watch.fired().await);
}
