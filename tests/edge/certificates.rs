//! Certificate files that change while the server runs.

use crate::support::{Authority, Edge, connect_tls, settings, until};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::Signal;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// The files are in a directory of their own.
const LIVE: &str = "
    tls.certificate = '{dir}/live/edge.pem'
    tls.private_key = '{dir}/live/edge.key'
";

/// A server with a certificate in `live/` for this name.
fn edge(authority: &Authority, name: &str) -> Edge {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("live")).unwrap();
    authority.write(&dir.path().join("live"), "edge", &[name]);
    Edge::start_in(dir, &settings::tls(LIVE), |_| {})
}

async fn serves(edge: &Edge, authority: &Authority, name: &str) -> bool {
    connect_tls(authority, edge.https[0], name, &[]).await.is_ok()
}

async fn metric(edge: &Edge, name: &str) -> f64 {
    let path = edge.dir().join("live/edge.pem");
    edge.metrics().await.get(&format!("{name}{{name=\"{}\"}}", path.display()))
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

#[tokio::test]
async fn changed_files_are_used_without_a_signal() {
    let authority = Authority::new();
    let edge = edge(&authority, "one.example");
    assert!(serves(&edge, &authority, "one.example").await);
    let before = metric(&edge, "certificate_not_after_seconds").await;
    assert!(before > 1e9);
    authority.write_with(&edge.dir().join("live"), "edge", &["two.example"], |params| {
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
    });
    until("the new certificate", async || serves(&edge, &authority, "two.example").await).await;
    assert!(!serves(&edge, &authority, "one.example").await);
    // 2031-02-03T00:00:00Z.
    assert_eq!(metric(&edge, "certificate_not_after_seconds").await as i64, 1_927_843_200);
    assert_eq!(metric(&edge, "certificate_current").await as i64, 1);
    assert!(!edge.stop().1.contains("certificate_kept"));
}

/// Its validity begins and ends while the server runs.
#[tokio::test]
async fn a_change_of_validity_is_logged_once() {
    let authority = Authority::new();
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("live")).unwrap();
    let at = |seconds: u64| {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(since_1970.as_secs() + seconds)
    };
    authority.write_with(&dir.path().join("live"), "edge", &["one.example"], |params| {
        (params.not_before, params.not_after) = (at(5), at(8));
    });
    let mut edge = Edge::start_in(dir, &settings::tls(LIVE), |_| {});
    assert!(edge.wait_for("certificate_invalid").contains("is not valid yet"));
    let log = edge.wait_for("certificate_valid");
    assert!(log.contains("\"failed_for_s\":"), "{log}");
    edge.wait_for("has expired");
    // As before: the clock of this machine may be wrong.
    let ready = crate::support::connect(edge.admin[0]).await.get("/readyz").await.unwrap();
    assert_eq!(ready.status, 200);
    authority.write(&edge.dir().join("live"), "edge", &["one.example"]);
    let log = edge.wait_for("certificate_loaded");
    assert!(log.lines().last().unwrap().contains("\"failed_for_s\":"), "{log}");
    let (_, log) = edge.stop();
    let count = |event: &str| log.matches(&format!("\"event\":\"{event}\"")).count();
    let counts = ["certificate_invalid", "certificate_valid", "certificate_loaded"].map(count);
    assert_eq!(counts, [2, 1, 1], "{log}");
}

/// Kubernetes: files are links to `..data/…`, and `..data` is a link that is replaced by a rename.
#[tokio::test]
async fn a_replaced_symlink_is_followed() {
    use std::os::unix::fs::symlink;
    let authority = Authority::new();
    let dir = TempDir::new().unwrap();
    let live = dir.path().join("live");
    for (version, name) in [("..1", "one.example"), ("..2", "two.example")] {
        std::fs::create_dir_all(live.join(version)).unwrap();
        authority.write(&live.join(version), "edge", &[name]);
    }
    symlink("..1", live.join("..data")).unwrap();
    for file in ["edge.pem", "edge.key"] {
        symlink(format!("..data/{file}"), live.join(file)).unwrap();
    }
    let edge = Edge::start_in(dir, &settings::tls(LIVE), |_| {});
    assert!(serves(&edge, &authority, "one.example").await);
    symlink("..2", live.join("..new")).unwrap();
    std::fs::rename(live.join("..new"), live.join("..data")).unwrap();
    std::fs::remove_dir_all(live.join("..1")).unwrap();
    until("the new certificate", async || serves(&edge, &authority, "two.example").await).await;
}

#[tokio::test]
async fn an_unusable_pair_keeps_the_previous_certificate_and_is_logged_once() {
    let authority = Authority::new();
    let mut edge = edge(&authority, "one.example");
    let live = edge.dir().join("live");
    let (pem, key) = (live.join("edge.pem"), live.join("edge.key"));
    let good = std::fs::read_to_string(&pem).unwrap();
    let other = TempDir::new().unwrap();
    let (_, foreign_key) = authority.write(other.path(), "other", &["one.example"]);
    let good_key = std::fs::read_to_string(&key).unwrap();

    replace(&key, &std::fs::read_to_string(foreign_key).unwrap());
    let log = edge.wait_for("certificate_kept");
    assert!(log.contains("does not match the certificate"), "{log}");
    assert_eq!(metric(&edge, "certificate_current").await as i64, 0);
    assert!(serves(&edge, &authority, "one.example").await);
    let ready = crate::support::connect(edge.admin[0]).await.get("/readyz").await.unwrap();
    assert_eq!(ready.status, 200);
    // Further polls find the same content, and log nothing.
    let logged = Instant::now();
    until("another poll", async || logged.elapsed() > Duration::from_millis(2500)).await;
    assert_eq!(edge.stderr().matches("certificate_kept").count(), 1);
    replace(&key, &good_key);
    until("the files are valid again", async || metric(&edge, "certificate_current").await > 0.0)
        .await;

    replace(&pem, "");
    until("the previous certificate is kept", async || {
        metric(&edge, "certificate_current").await < 1.0
    })
    .await;
    assert!(serves(&edge, &authority, "one.example").await);
    std::fs::remove_file(&pem).unwrap();
    until("it is logged", async || edge.stderr().matches("certificate_kept").count() == 3).await;
    assert!(serves(&edge, &authority, "one.example").await);
    // A reload reports it too, and keeps the certificate.
    edge.signal(Signal::HUP);
    edge.wait_for("reload_failed");
    assert!(serves(&edge, &authority, "one.example").await);
    replace(&pem, &good);
    until("the files are valid again", async || metric(&edge, "certificate_current").await > 0.0)
        .await;
    let log = edge.stop().1;
    assert!(!log.contains("PRIVATE KEY-----"), "{log}");
    // Repaired twice, by the previous content.
    let repaired = log.lines().filter(|line| line.contains("certificate_loaded"));
    let repaired: Vec<_> = repaired.collect();
    assert_eq!(repaired.len(), 2, "{log}");
    assert!(repaired.iter().all(|line| line.contains("\"failed_for_s\":")), "{repaired:?}");
}

/// As on a network file system without its server: reads block forever.
#[tokio::test]
async fn a_file_that_blocks_does_not_delay_signals() {
    let authority = Authority::new();
    let mut edge = edge(&authority, "one.example");
    let pem = edge.dir().join("live/edge.pem");
    std::fs::remove_file(&pem).unwrap();
    mknodat(CWD, &pem, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // A non-blocking open for writing succeeds only when a reader has opened the pipe.
    let write = || {
        OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&pem)
    };
    let mut writer = None;
    until("the file is opened", async || {
        writer = writer.take().or(write().ok());
        writer.is_some()
    })
    .await;
    assert!(serves(&edge, &authority, "one.example").await);
    edge.signal(Signal::TERM);
    edge.wait_for("draining");
    let (status, log) = edge.wait();
    assert!(status.code() == Some(0) && log.contains("drained"), "{status}: {log}");
}
