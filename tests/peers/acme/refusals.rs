//! Failed orders, and what they cost.

use super::{NAME, admin, next, persistent, redirects};
use crate::ari::AriProxy;
use crate::pebble::{Options, Pebble};
use crate::support::{Edge, free, until};

#[tokio::test]
async fn an_acme_server_that_is_down_is_retried_and_the_next_one_is_tried() {
    let mut pebble = Pebble::start(Options::default()).await;
    pebble.down();
    let mut edge = Edge::start(&pebble.settings(&[NAME], ""));
    let log = edge.wait_for("\"reason\":\"directory_down\"");
    assert!(log.contains("acme_failed"), "{log}");
    assert_eq!(admin(&edge, "/readyz").await.0, 503);
    pebble.up().await;
    redirects(&pebble, NAME).await;
    assert_eq!(pebble.orders(), 1);
    drop(edge);

    let dead = format!("https://{}/dir", free());
    let list = format!("directory = ['{dead}', '{}']", pebble.directory("127.0.0.1"));
    let mut edge = Edge::start(&pebble.settings(&["b.example.com"], &list));
    redirects(&pebble, "b.example.com").await;
    edge.wait_for("\"reason\":\"directory_down\"");
    assert_eq!(pebble.orders(), 2);
}

#[tokio::test]
async fn a_domain_that_leads_elsewhere_costs_no_order() {
    let pebble = Pebble::start(Options::default()).await;
    for challenge in ["tls-alpn-01", "http-01"] {
        // Pebble itself is the other server.
        let elsewhere = pebble.directory("127.0.0.1");
        let elsewhere = elsewhere.trim_start_matches("https://").trim_end_matches("/dir");
        let (https, http) = (pebble.edge_https, pebble.edge_http);
        let more = format!("challenge = '{challenge}'");
        let settings = pebble
            .settings(&[NAME], &more)
            .replace(&format!(":443:{https}"), &format!(":443:{elsewhere}"))
            .replace(&format!(":80:{http}"), &format!(":80:{elsewhere}"));
        let mut edge = Edge::start(&settings);
        let log = edge.wait_for("\"reason\":\"wrong_answer\"");
        assert!(log.contains("look for an outdated A or AAAA record"), "{log}");
        let (_, log) = edge.stop();
        assert!(!log.contains("\"step\":\"order\""), "{log}");

        let nowhere = free();
        let settings = pebble
            .settings(&[NAME], &more)
            .replace(&format!(":443:{https}"), &format!(":443:{nowhere}"))
            .replace(&format!(":80:{http}"), &format!(":80:{nowhere}"));
        let mut edge = Edge::start(&settings);
        let log = edge.wait_for("\"reason\":\"unreachable\"");
        assert!(log.contains("self_check.connect_to"), "{log}");
    }
    let mut edge = Edge::start(
        &pebble
            .settings(&["no-such-name.invalid"], "")
            .replace("no-such-name.invalid:", "other.invalid:"),
    );
    edge.wait_for("\"reason\":\"dns\"");
    assert_eq!(pebble.orders(), 0);
}

#[tokio::test]
async fn a_failed_validation_is_reported_and_its_backoff_survives_a_restart() {
    let pebble = Pebble::start(Options::default()).await;
    // Pebble resolves the name to an address without a listener; this machine resolves it correctly.
    pebble.point(NAME, "127.0.0.9").await;
    let (_dir, state) = persistent();
    let settings = pebble.settings(&[NAME], &state);
    let mut edge = Edge::start(&settings);
    // Pebble reports it in `detail`; other servers have a problem type for it.
    let log = edge.wait_for("\"reason\":\"wrong_answer\"");
    assert!(log.contains("Failed to connect to 127.0.0.9"), "{log}");
    assert_eq!(pebble.orders(), 1);
    for _ in 0..3 {
        edge.stop();
        edge = Edge::start(&settings);
        // The journal is read before the metric exists.
        until("the time of the next order", async || {
            admin(&edge, "/metrics").await.1.contains("acme_next_seconds{domain=")
        })
        .await;
        assert_eq!(pebble.orders(), 1, "a restart does not shorten the wait");
    }
    pebble.point(NAME, "127.0.0.1").await;
    redirects(&pebble, NAME).await;
    assert_eq!(pebble.orders(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_of_a_rate_limit_is_respected_and_survives_restarts() {
    let pebble = Pebble::start(Options::default()).await;
    let limited = AriProxy::start(&pebble, true).await;
    limited.reject_orders(5000);
    let (_dir, state) = persistent();
    let more = format!("{state}\ndirectory = 'https://{}/dir'", limited.address);
    let settings = pebble.settings(&[NAME], &more);
    for _ in 0..3 {
        let edge = Edge::start(&settings);
        until("the wait", async || {
            let wait = next(&edge).await - jiff::Timestamp::now().as_second();
            (4900..=5000).contains(&wait)
        })
        .await;
        let (_, log) = edge.stop();
        assert!(
            log.contains("\"reason\":\"rate_limited\"") || limited.rejected_orders() == 1,
            "{log}"
        );
    }
    assert_eq!((limited.rejected_orders(), pebble.orders()), (1, 0));
    // It does not apply to another ACME server.
    let list = format!(
        "{state}\ndirectory = ['https://{}/dir', '{}']",
        limited.address,
        pebble.directory("127.0.0.1")
    );
    let _edge = Edge::start(&pebble.settings(&[NAME], &list));
    redirects(&pebble, NAME).await;
    assert_eq!((limited.rejected_orders(), pebble.orders()), (1, 1));
}

#[tokio::test]
async fn a_profile_that_is_not_offered_costs_no_order() {
    let pebble = Pebble::start(Options::default()).await;
    let mut edge = Edge::start(&pebble.settings(&[NAME], "profile = 'shortlived'"));
    let log = edge.wait_for("\"reason\":\"profile\"");
    assert!(
        log.contains("the ACME server does not offer the profile `shortlived`; it offers none"),
        "{log}"
    );
    assert_eq!(pebble.orders(), 0);
}
