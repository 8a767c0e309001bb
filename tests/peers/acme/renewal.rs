//! Renewals, in time and not too early.

use super::{NAME, in_time, next, persistent, redirects, served};
use crate::ari::AriProxy;
use crate::pebble::{Options, Pebble, handshake};
use crate::peer::libfaketime;
use crate::support::Edge;
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[tokio::test]
async fn short_lived_certificates_are_renewed_after_an_outage_of_the_acme_server() {
    let mut pebble = Pebble::start(Options { lifetime: Some(30), ..Options::default() }).await;
    let (_dir, state) = persistent();
    let mut edge = Edge::start(&pebble.settings(&[NAME], &state));
    redirects(&pebble, NAME).await;
    let client = pebble.client().await;
    let first = served(&client, &pebble, NAME).await.unwrap();
    pebble.down();
    // Pebble has no persistent state: after a restart, account and root are new.
    let log = edge.wait_for("\"reason\":\"directory_down\"");
    assert!(log.contains("the previous certificate stays in use"), "{log}");
    assert_eq!(served(&client, &pebble, NAME).await, Some(first));
    pebble.up().await;
    redirects(&pebble, NAME).await;
    assert_eq!(pebble.orders(), 2);
}

#[tokio::test]
async fn a_renewal_under_load_fails_no_handshake() {
    let pebble = Pebble::start(Options { delay: 1, ..Options::default() }).await;
    let edge = Edge::start(&pebble.settings(&[NAME], ""));
    redirects(&pebble, NAME).await;
    let client = pebble.client().await;
    let first = served(&client, &pebble, NAME).await.unwrap();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let address = pebble.edge_https;
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (client, stop, done) = (Arc::clone(&client), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    handshake(&client, address, NAME).await.expect("a failed handshake");
                    done.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    // The same Pebble under another name is another ACME server, so that a new certificate is due.
    let directory = format!("directory = '{}'", pebble.directory("localhost"));
    edge.rewrite(&pebble.settings(&[NAME], &directory));
    edge.signal(Signal::HUP);
    in_time("another certificate", async || served(&client, &pebble, NAME).await.unwrap() != first)
        .await;
    stop.store(true, Relaxed);
    for task in load {
        task.await.unwrap();
    }
    let handshakes = done.load(Relaxed);
    println!("{handshakes} handshakes during the renewal, none failed");
    assert!(handshakes > 20, "{handshakes}");
    assert_eq!(pebble.orders(), 2);
}

/// With a second thread for the proxy, because `wait_for` blocks.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_renewal_window_is_followed_and_the_order_names_the_replaced_certificate() {
    for retry_after in [true, false] {
        let pebble = Pebble::start(Options::default()).await;
        let windows = AriProxy::start(&pebble, retry_after).await;
        windows.set_window(1000, 2000);
        let (_dir, state) = persistent();
        let more = format!("{state}\ndirectory = 'https://{}/dir'", windows.address);
        let settings = pebble.settings(&[NAME], &more);
        let mut edge = Edge::start(&settings);
        redirects(&pebble, NAME).await;
        edge.wait_for("acme_renewal_window");
        let client = pebble.client().await;
        let first = served(&client, &pebble, NAME).await;
        edge.stop();
        // The CA changes the window: renew immediately.
        windows.set_window(-2, -1);
        let edge = Edge::start(&settings);
        in_time("another certificate", async || served(&client, &pebble, NAME).await != first)
            .await;
        assert_eq!(pebble.orders(), 2);
        let replaced = windows.replaced_certificates();
        assert_eq!(replaced.len(), 1, "{replaced:?}");
        assert_eq!(replaced[0].split('.').count(), 2, "{replaced:?}");
        // The window of the new certificate is the same. It is limited: the next order is made after an
        // eighth of the lifetime, which is months here.
        in_time("the minimum interval", async || {
            let now = jiff::Timestamp::now().as_second();
            windows.window_requests() >= 3 && next(&edge).await > now + 100 * 24 * 3600
        })
        .await;
        assert_eq!(pebble.orders(), 2);
    }
}

#[tokio::test]
async fn a_clock_that_jumps_does_not_cause_endless_orders() {
    let pebble = Pebble::start(Options::default()).await;
    let (_dir, state) = persistent();
    let settings = pebble.settings(&[NAME], &state);
    let edge = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    edge.stop();
    for (offset, orders) in [
        // After the expiry of every certificate: two orders are made, as the second may have a valid
        // reason; then the intervals grow.
        ("+3650d", 3),
        // Back: times in the future do not block orders, and none is due.
        ("+0", 3),
        ("-3650d", 3),
    ] {
        let edge = Edge::start_in(TempDir::new().unwrap(), &settings, |command| {
            command
                .env("LD_PRELOAD", libfaketime())
                .env("FAKETIME", offset)
                .env("DONT_FAKE_MONOTONIC", "1");
        });
        in_time("the time of the next order", async || next(&edge).await > 0).await;
        in_time("the orders", async || pebble.orders() == orders).await;
        // Long enough for several more orders.
        let until = Instant::now() + Duration::from_secs(3);
        in_time("nothing more", async || {
            assert_eq!(pebble.orders(), orders, "{offset}: {}", edge.stderr());
            Instant::now() > until
        })
        .await;
    }
}
