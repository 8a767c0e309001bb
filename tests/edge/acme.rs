//! ACME without a working ACME server; `tests/peers/acme/` tests it with one.

use crate::fakes::{self, Act, CertificateSpec, Reply, behaviour, tls};
use crate::support::{Authority, Edge, certified, connect, connect_tls, until};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::Signal;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use tempfile::TempDir;

const NONBLOCK: i32 = OFlags::NONBLOCK.bits().cast_signed();

const SETTINGS: &str = "
    public_url = 'https://auth.example.com'
    [listen]
    http = '127.0.0.1:0'
    https = '127.0.0.1:0'
    admin = '127.0.0.1:0'
    [tls.acme]
    directory = 'https://127.0.0.1:1/directory'
    state_dir = '{dir}/acme'
    agree_to_terms = true
";

#[tokio::test]
async fn without_a_certificate_the_server_listens_and_reports_why_it_is_not_ready() {
    let mut edge = Edge::start(SETTINGS);
    edge.wait_for("\"domain\":\"auth.example.com\",\"standing\":\"none yet");
    let ready = connect(edge.admin[0]).await.get("/readyz").await.unwrap();
    assert_eq!((ready.status, &*ready.body), (503, &b"no certificate\n"[..]));
    let refused = connect_tls(&Authority::new(), edge.https[0], "auth.example.com", &[]).await;
    assert!(refused.is_err());
    let log = edge.wait_for("acme_failed");
    assert!(log.contains("\"reason\":\"directory_down\""), "{log}");
    assert!(
        log.contains(
            "the request to the ACME server `127.0.0.1` failed: connect: connection refused"
        ),
        "{log}"
    );
}

#[tokio::test]
async fn ready_is_reported_once_and_not_before_there_is_a_certificate() {
    let (_, dir) = certified(&["auth.example.com"]);
    let mut edge = Edge::start_in(dir, SETTINGS, |_| {});
    let log = edge.wait_for("acme_failed");
    assert!(log.contains("\"event\":\"not_ready\",\"reason\":\"no certificate\""), "{log}");
    assert!(!log.contains("\"event\":\"ready\""), "{log}");
    let failed = log.lines().find(|line| line.contains("acme_failed")).unwrap();
    let failed: serde_json::Value = serde_json::from_str(failed).unwrap();
    let retry_at: jiff::Timestamp = failed["retry_at"].as_str().unwrap().parse().unwrap();
    assert!(retry_at > failed["timestamp"].as_str().unwrap().parse().unwrap(), "{failed}");
    // Nothing is probed before the server is ready.
    let metrics = edge.metrics().await;
    assert_eq!(metrics.get("self_check_interval_seconds") as i32, 300);
    let files = "[tls]\ncertificate = '{dir}/edge.pem'\nprivate_key = '{dir}/edge.key'\n[tls.acme]";
    edge.rewrite(&SETTINGS.replace("[tls.acme]", files));
    edge.signal(Signal::HUP);
    edge.wait_for("\"event\":\"ready\"");
    assert_eq!(connect(edge.admin[0]).await.get("/readyz").await.unwrap().status, 200);
    edge.signal(Signal::HUP);
    until("reloaded", async || edge.stderr().matches("\"reloaded\"").count() == 2).await;
    let log = edge.finish();
    for event in ["ready", "not_ready"] {
        assert_eq!(log.matches(&format!("\"event\":\"{event}\"")).count(), 1, "{log}");
    }
    // For a person.
    let text = format!("log.format = 'text'\n{SETTINGS}");
    let edge = Edge::start(&text);
    let log = edge.stderr();
    assert!(log.contains("\nnot ready: no certificate; press Ctrl-C to stop\n"), "{log}");
    assert!(!log.contains("\nready"), "{log}");
}

#[tokio::test]
async fn certificate_files_are_served_together_with_acme() {
    let (authority, dir) = certified(&["files.example.com"]);
    let files = "[tls]\ncertificate = '{dir}/edge.pem'\nprivate_key = '{dir}/edge.key'\n[tls.acme]";
    let edge = Edge::start_in(dir, &SETTINGS.replace("[tls.acme]", files), |_| {});
    let ready = connect(edge.admin[0]).await.get("/readyz").await.unwrap();
    assert_eq!(ready.status, 200);
    connect_tls(&authority, edge.https[0], "files.example.com", &[]).await.unwrap();
}

/// The journal is a pipe without a writer: reads block, as on a network file system without its server.
/// The server has one worker thread.
#[tokio::test]
async fn a_state_file_that_blocks_does_not_delay_requests() {
    let dir = TempDir::new().unwrap();
    let journal = dir.path().join("acme/auth.example.com.json");
    std::fs::create_dir(dir.path().join("acme")).unwrap();
    mknodat(CWD, &journal, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let edge = Edge::start_in(dir, SETTINGS, |command| {
        command.env("TOKIO_WORKER_THREADS", "1");
    });
    let write = || OpenOptions::new().write(true).custom_flags(NONBLOCK).open(&journal);
    let mut writer = None;
    until("the journal is opened", async || {
        writer = writer.take().or(write().ok());
        writer.is_some()
    })
    .await;
    let reply = connect(edge.admin[0]).await.get("/healthz").await.expect("no response");
    assert_eq!(reply.status, 200);
    let log = edge.finish();
    assert!(log.contains("drained"), "{log}");
}

/// An ACME server whose directory works, but that returns no nonce (RFC 8555 §7.2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acme_server_without_nonces_is_reported_as_down() {
    for status in [200, 204, 503] {
        let authority = fakes::Authority::new("the root");
        let spec =
            CertificateSpec { names: vec!["127.0.0.1".to_owned()], ..CertificateSpec::default() };
        let server = behaviour(move |heard| {
            let origin = format!("https://{}", heard.header("host").unwrap());
            let resource = |name: &str| format!("\"{name}\":\"{origin}/{name}\"");
            let resources = ["newNonce", "newAccount", "newOrder", "revokeCert"].map(resource);
            let directory = format!("{{{}}}", resources.join(","));
            Act::Reply(match &*heard.path {
                "/directory" => Reply::new(200).body(&directory),
                _ => Reply::new(status),
            })
        });
        let at = tls(authority.issue(spec).config(&["http/1.1"]), server).await;
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
        let directory = format!("directory = 'https://{at}/directory'\nroot_ca = '{{dir}}/ca.pem'");
        let settings = SETTINGS.replace("directory = 'https://127.0.0.1:1/directory'", &directory);
        let mut edge = Edge::start_in(dir, &settings, |_| {});
        let log = edge.wait_for("acme_failed");
        assert!(log.contains("\"reason\":\"directory_down\""), "{log}");
        assert!(log.contains("ACME server `127.0.0.1` failed: the response has no nonce"), "{log}");
    }
}
