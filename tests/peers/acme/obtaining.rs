//! The first certificate.

use super::{NAME, admin, next, redirects};
use crate::pebble::{Options, Pebble, handshake, request};
use crate::support::{Edge, check, connect, until};
use callback_edge::outbound::config_without_verification;
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

#[tokio::test]
async fn the_first_certificate_by_tls_alpn_01_and_its_state_is_reported() {
    let pebble = Pebble::start(Options { delay: 2, ..Options::default() }).await;
    let edge = Edge::start(&pebble.settings(&[NAME], ""));
    let started = edge.stderr();
    assert!(
        started.contains(&format!("\"domain\":\"{NAME}\",\"standing\":\"none yet")),
        "{started}"
    );
    assert_eq!(admin(&edge, "/readyz").await, (503, "no certificate\n".into()));
    redirects(&pebble, NAME).await;
    assert_eq!(admin(&edge, "/readyz").await, (200, "ready\n".into()));
    assert_eq!(pebble.orders(), 1);

    // The certificate is served shortly before the metrics are updated.
    until("the metrics are updated", async || {
        admin(&edge, "/metrics").await.1.contains("acme_steps_total{step=\"certificate\"} 1")
            && next(&edge).await > jiff::Timestamp::now().as_second()
    })
    .await;
    let (_, metrics) = admin(&edge, "/metrics").await;
    for line in [
        "callback_edge_acme_steps_total{step=\"order\"} 1",
        "callback_edge_acme_steps_total{step=\"certificate\"} 1",
        "callback_edge_acme_failures_total{reason=\"wrong_answer\"} 0",
        "callback_edge_acme_next_seconds{domain=\"auth.example.com\"} ",
        "callback_edge_certificate_not_after_seconds{name=\"auth.example.com\"} ",
    ] {
        assert!(metrics.contains(line), "no {line:?} in:\n{metrics}");
    }
    let (_, report) = admin(&edge, "/self-check").await;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let check = check(&report[0], "tls.acme");
    assert_eq!((&check["status"], &check["subject"]), (&"pass".into(), &NAME.into()), "{check}");
    assert!(check["summary"].as_str().unwrap().contains("renewal at 20"), "{check}");

    let state = edge.dir().join("acme");
    assert_eq!(mode(&state), 0o700);
    for file in std::fs::read_dir(&state).unwrap().flatten() {
        assert_eq!(mode(&file.path()), 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn the_first_certificate_by_http_01() {
    let pebble = Pebble::start(Options::default()).await;
    let edge = Edge::start(&pebble.settings(&[NAME], "challenge = 'http-01'"));
    redirects(&pebble, NAME).await;
    assert_eq!(pebble.orders(), 1);
    let unknown = connect(edge.http[0]).await.get("/.well-known/acme-challenge/x").await.unwrap();
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn several_names_and_an_address_have_a_certificate_each() {
    for challenge in ["tls-alpn-01", "http-01"] {
        let pebble = Pebble::start(Options::default()).await;
        let names = [NAME, "b.example.com", "c.example.net", "127.0.0.1"];
        let more = format!("challenge = '{challenge}'");
        let _edge = Edge::start(&pebble.settings(&names, &more));
        for name in names {
            redirects(&pebble, name).await;
        }
        assert_eq!(pebble.orders(), names.len(), "{challenge}");
    }
}

#[tokio::test]
async fn external_accounts_are_bound_and_nothing_secret_is_logged() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let pebble = Pebble::start(Options { eab: Some(("kid-1", KEY)), ..Options::default() }).await;
    let file = pebble.dir.path().join("eab");
    let wrong = KEY.replace("zWN", "AAA");
    std::fs::write(&file, &wrong).unwrap();
    let more = format!("eab_key_id = 'kid-1'\neab_hmac_key_file = '{}'", file.display());
    let settings = pebble.settings(&[NAME], &more) + "\n[log]\nlevel = 'trace'";
    let mut edge = Edge::start(&settings);
    let log = edge.wait_for("acme_failed");
    assert!(log.contains("\"reason\":\"account\""), "{log}");
    // A changed key file is a changed configuration.
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    edge.signal(Signal::HUP);
    redirects(&pebble, NAME).await;
    let state = edge.dir().join("acme");
    let mut secrets = vec![KEY.to_owned(), wrong];
    for file in std::fs::read_dir(&state).unwrap().flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap();
        if file.file_name().to_str().unwrap().starts_with("account") {
            let account: serde_json::Value = serde_json::from_str(&text).unwrap();
            secrets.push(account["key_pkcs8"].as_str().unwrap().to_owned());
        } else if file.path().extension().is_some_and(|it| it == "pem") {
            secrets.push(text.lines().nth(1).unwrap().to_owned());
        }
    }
    assert_eq!(secrets.len(), 4);
    let (_, log) = edge.stop();
    assert!(log.contains("acme_certificate"));
    for secret in secrets {
        assert!(!log.contains(&secret), "{log}");
        assert!(!log.contains(&secret[4..40]), "{log}");
    }
}

#[tokio::test]
async fn rejected_nonces_and_slow_validations_are_tolerated() {
    for (rejected_nonces, delay) in [(5, 5), (20, 1)] {
        let pebble = Pebble::start(Options { rejected_nonces, delay, ..Options::default() }).await;
        let _edge = Edge::start(&pebble.settings(&[NAME], ""));
        redirects(&pebble, NAME).await;
        assert_eq!(pebble.orders(), 1, "{rejected_nonces} % of the nonces rejected");
    }
}

#[tokio::test]
async fn challenges_are_served_only_to_validation_clients() {
    let pebble = Pebble::start(Options { delay: 3, ..Options::default() }).await;
    let mut edge = Edge::start(&pebble.settings(&[NAME], ""));
    // Like an ACME server, which verifies the challenge and not the issuer.
    let with = |alpn: &[&str]| Arc::new(config_without_verification(alpn).unwrap());
    edge.wait_for("\"step\":\"challenge\"");
    // After the handshake the connection is closed, without a response to any request.
    let stream = handshake(&with(&["acme-tls/1"]), pebble.edge_https, NAME).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"acme-tls/1"[..]));
    assert_eq!(request(stream, NAME, "/oauth/callback").await, "");
    // While a challenge is pending, a handshake for another name fails, and a client that also offers
    // HTTP gets no challenge certificate.
    for (alpn, name) in [(&["acme-tls/1"][..], "other.example.com"), (&["acme-tls/1", "h2"], NAME)]
    {
        let refused = handshake(&with(alpn), pebble.edge_https, name).await;
        assert!(refused.is_err(), "{alpn:?} {name}");
    }
    redirects(&pebble, NAME).await;
    // Without a pending challenge, the protocol is not supported.
    until("the end of the challenge", async || {
        handshake(&with(&["acme-tls/1"]), pebble.edge_https, NAME).await.is_err()
    })
    .await;
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
