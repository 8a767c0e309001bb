//! Certificates by themselves, from a real ACME server.

use crate::pebble::{Options, Pebble, Windows, ask, handshake, mode, reserve};
use crate::support::{Edge, connect, until};
use callback_edge::outbound::any_certificate;
use rustix::process::Signal;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
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

#[tokio::test]
async fn acme_first_certificate_by_a_handshake_and_the_edge_says_how_it_stands() {
    let pebble = Pebble::start(Options { delay: 2, ..Options::default() }).await;
    let edge = Edge::start(&pebble.settings(&[NAME], ""));
    let started = edge.stderr();
    assert!(started.contains(&format!("certificate {NAME}  none yet")), "{started}");
    assert_eq!(admin(&edge, "/readyz").await, (503, "no certificate\n".into()));
    redirects(&pebble, NAME).await;
    assert_eq!(admin(&edge, "/readyz").await, (200, "ready\n".into()));
    assert_eq!(pebble.orders(), 1);

    // The certificate is shown a moment before that is told.
    until("it is told", async || {
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
    let checks = report[0]["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["id"] == "tls.acme").unwrap();
    assert_eq!((&check["status"], &check["subject"]), (&"pass".into(), &NAME.into()), "{check}");
    assert!(check["summary"].as_str().unwrap().contains("renewed at 20"), "{check}");

    let state = edge.dir().join("acme");
    assert_eq!(mode(&state), 0o700);
    for file in std::fs::read_dir(&state).unwrap().flatten() {
        assert_eq!(mode(&file.path()), 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn acme_first_certificate_by_a_request() {
    let pebble = Pebble::start(Options::default()).await;
    let edge = Edge::start(&pebble.settings(&[NAME], "challenge = 'http-01'"));
    redirects(&pebble, NAME).await;
    assert_eq!(pebble.orders(), 1);
    let unknown = connect(edge.http[0]).await.get("/.well-known/acme-challenge/x").await.unwrap();
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn acme_several_names_and_an_address_have_a_certificate_each() {
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
async fn acme_external_accounts_are_bound_and_nothing_secret_is_logged() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let pebble = Pebble::start(Options { eab: Some(("kid-1", KEY)), ..Options::default() }).await;
    let file = pebble.dir.path().join("eab");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let more = format!("eab_key_id = 'kid-1'\neab_hmac_key_file = '{}'", file.display());
    let settings = pebble.settings(&[NAME], &more) + "\n[log]\nlevel = 'trace'";
    let edge = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    let state = edge.dir().join("acme");
    let mut secrets = vec![KEY.to_owned()];
    for file in std::fs::read_dir(&state).unwrap().flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap();
        if file.file_name().to_str().unwrap().starts_with("account") {
            let account: serde_json::Value = serde_json::from_str(&text).unwrap();
            secrets.push(account["key_pkcs8"].as_str().unwrap().to_owned());
        } else if file.path().extension().is_some_and(|it| it == "pem") {
            secrets.push(text.lines().nth(1).unwrap().to_owned());
        }
    }
    assert_eq!(secrets.len(), 3);
    let (_, log) = edge.stop();
    assert!(log.contains("acme_certificate"));
    for secret in secrets {
        assert!(!log.contains(&secret), "{log}");
        assert!(!log.contains(&secret[4..40]), "{log}");
    }
}

#[tokio::test]
async fn acme_refused_nonces_and_slow_validations_are_borne() {
    for (refused_nonces, delay) in [(5, 5), (20, 1)] {
        let pebble = Pebble::start(Options { refused_nonces, delay, ..Options::default() }).await;
        let _edge = Edge::start(&pebble.settings(&[NAME], ""));
        redirects(&pebble, NAME).await;
        assert_eq!(pebble.orders(), 1, "{refused_nonces} % of the nonces refused");
    }
}

#[tokio::test]
async fn acme_a_directory_that_is_down_is_waited_for_and_the_next_is_asked() {
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

    let dead = format!("https://{}/dir", reserve());
    let list = format!("directory = ['{dead}', '{}']", pebble.directory("127.0.0.1"));
    let mut edge = Edge::start(&pebble.settings(&["b.example.com"], &list));
    redirects(&pebble, "b.example.com").await;
    edge.wait_for("\"reason\":\"directory_down\"");
    assert_eq!(pebble.orders(), 2);
}

#[tokio::test]
async fn acme_short_certificates_are_renewed_though_the_directory_was_down() {
    let mut pebble = Pebble::start(Options { lifetime: Some(30), ..Options::default() }).await;
    let (_dir, state) = lasting();
    let mut edge = Edge::start(&pebble.settings(&[NAME], &state));
    redirects(&pebble, NAME).await;
    let client = pebble.client().await;
    let first = shown(&client, &pebble, NAME).await.unwrap();
    pebble.down();
    // Pebble forgets everything and comes back as another authority: account and root are new.
    let log = edge.wait_for("\"reason\":\"directory_down\"");
    assert!(log.contains("the one before it is used to its end"), "{log}");
    assert_eq!(shown(&client, &pebble, NAME).await, Some(first));
    pebble.up().await;
    redirects(&pebble, NAME).await;
    assert_eq!(pebble.orders(), 2);
}

#[tokio::test]
async fn acme_a_renewal_under_load_fails_no_handshake() {
    let pebble = Pebble::start(Options { delay: 1, ..Options::default() }).await;
    let edge = Edge::start(&pebble.settings(&[NAME], ""));
    redirects(&pebble, NAME).await;
    let client = pebble.client().await;
    let first = shown(&client, &pebble, NAME).await.unwrap();
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
    // The same Pebble under another name is another directory, so that its certificate is due.
    let directory = format!("directory = '{}'", pebble.directory("localhost"));
    edge.rewrite(&pebble.settings(&[NAME], &directory));
    edge.signal(Signal::HUP);
    in_time("another certificate", async || shown(&client, &pebble, NAME).await.unwrap() != first)
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

#[tokio::test]
async fn acme_a_name_that_leads_elsewhere_costs_no_order() {
    let pebble = Pebble::start(Options::default()).await;
    for challenge in ["tls-alpn-01", "http-01"] {
        // Pebble itself stands for the other server.
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
        assert!(log.contains("look for an old DNS entry"), "{log}");
        let (_, log) = edge.stop();
        assert!(!log.contains("\"step\":\"order\""), "{log}");

        let nowhere = reserve();
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
async fn acme_a_blocked_challenge_is_told_and_its_back_off_survives_a_restart() {
    let pebble = Pebble::start(Options::default()).await;
    // Seen from Pebble, the name leads to where nobody listens; from here it is right.
    pebble.point(NAME, "127.0.0.9").await;
    let (_dir, state) = lasting();
    let settings = pebble.settings(&[NAME], &state);
    let mut edge = Edge::start(&settings);
    // Pebble says so in words; others have a type for it.
    let log = edge.wait_for("\"reason\":\"wrong_answer\"");
    assert!(log.contains("Failed to connect to 127.0.0.9"), "{log}");
    assert_eq!(pebble.orders(), 1);
    for _ in 0..3 {
        edge.stop();
        edge = Edge::start(&settings);
        // It looks at what it knows before it says how it stands.
        until("the next order is told", async || {
            admin(&edge, "/metrics").await.1.contains("acme_next_seconds{domain=")
        })
        .await;
        assert_eq!(pebble.orders(), 1, "a restart does not shorten the wait");
    }
    pebble.point(NAME, "127.0.0.1").await;
    redirects(&pebble, NAME).await;
    assert_eq!(pebble.orders(), 2);
}

#[tokio::test]
async fn acme_a_restart_orders_nothing_and_damaged_files_are_set_aside() {
    let pebble = Pebble::start(Options::default()).await;
    let (dir, state) = lasting();
    let settings = pebble.settings(&[NAME], &state);
    let edge = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    edge.stop();
    let client = pebble.client().await;
    let edge = Edge::start(&settings);
    assert!(edge.stderr().contains("valid to "), "{}", edge.stderr());
    assert!(shown(&client, &pebble, NAME).await.is_some(), "at once");
    edge.stop();
    assert_eq!(pebble.orders(), 1);

    let folder = dir.path().join("acme");
    let file = |name: &str| folder.join(name);
    // Its journal is lost: the certificate is good all the same.
    std::fs::write(file("auth.example.com.json"), "{\"pending\":").unwrap();
    let mut edge = Edge::start(&settings);
    edge.wait_for("acme_state_damaged");
    assert!(shown(&client, &pebble, NAME).await.is_some());
    edge.stop();
    assert_eq!(pebble.orders(), 1);

    // The certificate is cut short, the account is rubbish.
    let pem = std::fs::read(file("auth.example.com.pem")).unwrap();
    std::fs::write(file("auth.example.com.pem"), &pem[..pem.len() / 3]).unwrap();
    let account = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_str().unwrap().contains("account"))
        .unwrap();
    std::fs::write(account, "\0\0\0").unwrap();
    let edge = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    assert!(file("auth.example.com.pem.damaged").exists());
    edge.stop();
    assert_eq!(pebble.orders(), 2);
}

#[tokio::test]
async fn acme_a_folder_that_cannot_be_written_costs_no_order_and_loses_none() {
    let pebble = Pebble::start(Options::default()).await;
    let (dir, state) = lasting();
    let settings = pebble.settings(&[NAME], &state);
    let folder = dir.path().join("acme");
    // A file where the folder should be.
    std::fs::write(&folder, "").unwrap();
    let mut edge = Edge::start(&settings);
    edge.wait_for("\"reason\":\"state_dir\"");
    assert_eq!((admin(&edge, "/readyz").await.0, pebble.orders()), (503, 0));
    edge.stop();
    std::fs::remove_file(&folder).unwrap();

    // Nothing can be remembered: a folder where the journal is to be written stands for a disk
    // that is full, since root writes wherever it likes.
    let block = |name: &str| std::fs::create_dir_all(folder.join(name).join("in the way")).unwrap();
    let free = |name: &str| std::fs::remove_dir_all(folder.join(name)).unwrap();
    block(".auth.example.com.json.new");
    let mut edge = Edge::start(&settings);
    edge.wait_for("\"reason\":\"state_dir\"");
    assert_eq!(pebble.orders(), 0);
    free(".auth.example.com.json.new");

    // The certificate itself cannot be written: it is used, and a restart gets the same again.
    block(".auth.example.com.pem.new");
    redirects(&pebble, NAME).await;
    let client = pebble.client().await;
    let first = shown(&client, &pebble, NAME).await;
    edge.stop();
    assert!(!folder.join("auth.example.com.pem").exists());
    free(".auth.example.com.pem.new");
    let edge = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    assert_eq!(shown(&client, &pebble, NAME).await, first);
    until("the certificate is kept", async || folder.join("auth.example.com.pem").exists()).await;
    assert_eq!(pebble.orders(), 1);
    drop(edge);
}

/// Starts the edge where only it sees what is mounted over its state folder.
fn mounted(settings: &str, dir: TempDir, mount: &str) -> Edge {
    let inner = format!("{mount} && exec \"$0\" \"$@\"");
    let script = format!("exec unshare --mount /bin/sh -c '{inner}' \"$0\" \"$@\"");
    Edge::start_from_shell(dir, settings, &script, |_| {})
}

#[tokio::test]
async fn acme_a_full_disk_costs_no_order_and_is_tried_again() {
    let pebble = Pebble::start(Options::default()).await;
    let settings = pebble.settings(&[NAME], "state_dir = '{dir}/acme'");
    let fill = "mkdir acme && mount -t tmpfs -o size=64k tmpfs acme; \
                head -c 100000 /dev/zero > acme/filler 2> acme.log; true";
    let mut edge = mounted(&settings, TempDir::new().unwrap(), fill);
    edge.wait_for("No space left on device");
    assert_eq!((admin(&edge, "/readyz").await.0, pebble.orders()), (503, 0));
    // As the edge sees it, there is room again.
    let folder = format!("/proc/{}/root{}/acme", edge.id(), edge.dir().display());
    std::fs::remove_file(format!("{folder}/filler")).unwrap();
    redirects(&pebble, NAME).await;
    assert_eq!(pebble.orders(), 1);
}

#[tokio::test]
async fn acme_a_disk_that_became_read_only_serves_what_is_there() {
    let pebble = Pebble::start(Options::default()).await;
    let dir = TempDir::new().unwrap();
    let path = dir.path().to_owned();
    let settings = pebble.settings(&[NAME], "state_dir = '{dir}/acme'");
    let first = Edge::start_in(dir, &settings, |_| {});
    redirects(&pebble, NAME).await;
    until("it is kept", async || path.join("acme/auth.example.com.pem").exists()).await;
    let kept = TempDir::new().unwrap();
    std::fs::create_dir(kept.path().join("acme")).unwrap();
    for file in std::fs::read_dir(path.join("acme")).unwrap().flatten() {
        std::fs::copy(file.path(), kept.path().join("acme").join(file.file_name())).unwrap();
    }
    first.stop();

    let read_only = "mount --bind acme acme && mount -o remount,ro,bind acme";
    let mut edge = mounted(&settings, kept, read_only);
    edge.wait_for("Read-only file system");
    let client = pebble.client().await;
    assert!(shown(&client, &pebble, NAME).await.is_some());
    assert_eq!((admin(&edge, "/readyz").await.0, pebble.orders()), (200, 1));
}

#[tokio::test]
async fn acme_killed_at_ten_points_it_recovers_and_orders_no_more_than_it_was_killed() {
    let pebble = Pebble::start(Options { delay: 1, ..Options::default() }).await;
    let (dir, state) = lasting();
    let settings = pebble.settings(&[NAME], &state);
    // An order takes about a second here, and goes on from where it was killed.
    let points: Vec<u64> = (0..10).map(|_| random() % 300).collect();
    println!("killed after these milliseconds: {points:?}");
    for point in points {
        let edge = Edge::start(&settings);
        tokio::time::sleep(Duration::from_millis(point)).await;
        edge.signal(Signal::KILL);
        edge.wait();
        let left = std::fs::read_dir(dir.path().join("acme")).map_or(0, Iterator::count);
        assert!(left < 10, "{left} files");
    }
    let orders = pebble.orders();
    let _edge = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    println!("{} orders over ten kills, {orders} of them before the last start", pebble.orders());
    // What an hour allows, whatever happens.
    assert!(pebble.orders() <= 4, "{} orders", pebble.orders());
}

#[tokio::test]
async fn acme_a_second_edge_uses_what_the_first_obtains_and_takes_over() {
    let pebble = Pebble::start(Options::default()).await;
    let (dir, state) = lasting();
    let settings = pebble.settings(&[NAME], &state);
    let first = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    let own = settings
        .replace(&format!("http = '{}'", pebble.edge_http), "http = '127.0.0.1:0'")
        .replace(&format!("https = '{}'", pebble.edge_https), "https = '127.0.0.1:0'");
    let mut second = Edge::start(&own);
    let client = pebble.client().await;
    handshake(&client, second.https[0], NAME).await.unwrap();
    second.wait_for("acme_state_held");
    first.stop();
    // The owner alone writes.
    let journal = dir.path().join("acme/auth.example.com.json");
    std::fs::remove_file(&journal).unwrap();
    until("the second takes over", async || journal.exists()).await;
    assert_eq!(pebble.orders(), 1);
}

/// With a thread for the directory, while this one waits for words.
#[tokio::test(flavor = "multi_thread")]
async fn acme_a_window_that_moves_is_followed_and_names_what_it_replaces() {
    for retry_after in [true, false] {
        let pebble = Pebble::start(Options::default()).await;
        let windows = Windows::before(&pebble, retry_after).await;
        windows.tell(1000, 2000);
        let (_dir, state) = lasting();
        let more = format!("{state}\ndirectory = 'https://{}/dir'", windows.address);
        let settings = pebble.settings(&[NAME], &more);
        let mut edge = Edge::start(&settings);
        redirects(&pebble, NAME).await;
        edge.wait_for("acme_renewal_window");
        let client = pebble.client().await;
        let first = shown(&client, &pebble, NAME).await;
        edge.stop();
        // The authority changes its mind: at once.
        windows.tell(-2, -1);
        let edge = Edge::start(&settings);
        in_time("another certificate", async || shown(&client, &pebble, NAME).await != first).await;
        assert_eq!(pebble.orders(), 2);
        let replaced = windows.replaced();
        assert_eq!(replaced.len(), 1, "{replaced:?}");
        assert_eq!(replaced[0].split('.').count(), 2, "{replaced:?}");
        // It says the same of the new one. That is not believed for ever: the next is ordered
        // when an eighth of the lifetime is over, which is months here.
        in_time("the pause", async || {
            let now = jiff::Timestamp::now().as_second();
            windows.asked() >= 3 && next(&edge).await > now + 100 * 24 * 3600
        })
        .await;
        assert_eq!(pebble.orders(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acme_a_limit_is_respected_for_as_long_as_it_says_and_over_restarts() {
    let pebble = Pebble::start(Options::default()).await;
    let limited = Windows::before(&pebble, true).await;
    limited.refuse(5000);
    let (_dir, state) = lasting();
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
        assert!(log.contains("\"reason\":\"rate_limited\"") || limited.refused() == 1, "{log}");
    }
    assert_eq!((limited.refused(), pebble.orders()), (1, 0));
    // Another directory is not meant.
    let list = format!(
        "{state}\ndirectory = ['https://{}/dir', '{}']",
        limited.address,
        pebble.directory("127.0.0.1")
    );
    let _edge = Edge::start(&pebble.settings(&[NAME], &list));
    redirects(&pebble, NAME).await;
    assert_eq!((limited.refused(), pebble.orders()), (1, 1));
}

#[tokio::test]
async fn acme_a_profile_that_is_not_offered_costs_no_order() {
    let pebble = Pebble::start(Options::default()).await;
    let mut edge = Edge::start(&pebble.settings(&[NAME], "profile = 'shortlived'"));
    let log = edge.wait_for("\"reason\":\"profile\"");
    assert!(log.contains("it has no profile `shortlived`; it offers none"), "{log}");
    assert_eq!(pebble.orders(), 0);
}

#[tokio::test]
async fn acme_a_clock_that_jumps_does_not_order_without_end() {
    let pebble = Pebble::start(Options::default()).await;
    let (_dir, state) = lasting();
    let settings = pebble.settings(&[NAME], &state);
    let edge = Edge::start(&settings);
    redirects(&pebble, NAME).await;
    edge.stop();
    for (offset, orders) in [
        // Far beyond the end of every certificate: a new one is had, and a second, which may be
        // for a reason; then the pauses begin.
        ("+3650d", 3),
        // Back: what was written in the future holds nothing up, and nothing is due.
        ("+0", 3),
        ("-3650d", 3),
    ] {
        let edge = Edge::start_in(TempDir::new().unwrap(), &settings, |command| {
            command
                .env("LD_PRELOAD", libfaketime())
                .env("FAKETIME", offset)
                .env("DONT_FAKE_MONOTONIC", "1");
        });
        in_time("the next order is told", async || next(&edge).await > 0).await;
        in_time("the orders", async || pebble.orders() == orders).await;
        // Enough for several more, if there were any.
        let until = Instant::now() + Duration::from_secs(3);
        in_time("nothing more", async || {
            assert_eq!(pebble.orders(), orders, "{offset}: {}", edge.stderr());
            Instant::now() > until
        })
        .await;
    }
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

pub(crate) fn libfaketime() -> std::path::PathBuf {
    let found = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| std::path::Path::new(path).exists());
    found.expect("no `libfaketime.so.1`; `tests/peers/setup` installs it (faketime)").into()
}

/// When the next order is made, as the metrics say.
async fn next(edge: &Edge) -> i64 {
    let (_, metrics) = admin(edge, "/metrics").await;
    let next = metrics.lines().find_map(|line| line.strip_prefix(NEXT));
    next.map_or(0, |next| next.parse().unwrap())
}

#[tokio::test]
async fn acme_challenges_are_answered_to_directories_only() {
    let pebble = Pebble::start(Options { delay: 3, ..Options::default() }).await;
    let mut edge = Edge::start(&pebble.settings(&[NAME], ""));
    // As a directory does, which looks at the challenge and not at who vouches.
    let with = |alpn: &[&str]| Arc::new(any_certificate(alpn).unwrap());
    edge.wait_for("\"step\":\"challenge\"");
    // The answer, and then the end, whatever is asked.
    let stream = handshake(&with(&["acme-tls/1"]), pebble.edge_https, NAME).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"acme-tls/1"[..]));
    assert_eq!(ask(stream, NAME, "/oauth/callback").await, "");
    // While one is pending, a handshake for another name gets nothing, and one that offers HTTP
    // as well gets no challenge.
    for (alpn, name) in [(&["acme-tls/1"][..], "other.example.com"), (&["acme-tls/1", "h2"], NAME)]
    {
        let refused = handshake(&with(alpn), pebble.edge_https, name).await;
        assert!(refused.is_err(), "{alpn:?} {name}");
    }
    redirects(&pebble, NAME).await;
    // Without a challenge, the protocol is unknown.
    until("the end of the challenge", async || {
        handshake(&with(&["acme-tls/1"]), pebble.edge_https, NAME).await.is_err()
    })
    .await;
}
