//! ACME where there is no directory; with one, it is shown in `tests/peers/acme/`.

use crate::stand_in::{self, Act, Reply, Wish, behaviour, tls};
use crate::support::{Authority, Edge, certified, connect, connect_tls, until};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
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
async fn without_a_certificate_it_listens_and_says_why_it_is_not_ready() {
    let mut edge = Edge::start(SETTINGS);
    edge.wait_for("\"domain\":\"auth.example.com\",\"standing\":\"none yet");
    let ready = connect(edge.admin[0]).await.get("/readyz").await.unwrap();
    assert_eq!((ready.status, &*ready.body), (503, &b"no certificate\n"[..]));
    let refused = connect_tls(&Authority::new(), edge.https[0], "auth.example.com", &[]).await;
    assert!(refused.is_err());
    let log = edge.wait_for("acme_failed");
    assert!(log.contains("\"reason\":\"directory_down\""), "{log}");
    assert!(log.contains("cannot ask `127.0.0.1`: connect: connection refused"), "{log}");
}

#[tokio::test]
async fn beside_it_files_serve() {
    let (authority, dir) = certified(&["files.example.com"]);
    let files = "[tls]\ncertificate = '{dir}/edge.pem'\nprivate_key = '{dir}/edge.key'\n[tls.acme]";
    let edge = Edge::start_in(dir, &SETTINGS.replace("[tls.acme]", files), |_| {});
    let ready = connect(edge.admin[0]).await.get("/readyz").await.unwrap();
    assert_eq!(ready.status, 200);
    connect_tls(&authority, edge.https[0], "files.example.com", &[]).await.unwrap();
}

/// The journal is a pipe that nobody writes to, as on a network file system whose server is gone; one
/// thread serves.
#[tokio::test]
async fn state_that_cannot_be_read_at_the_moment_holds_up_no_request() {
    let dir = TempDir::new().unwrap();
    let journal = dir.path().join("acme/auth.example.com.json");
    std::fs::create_dir(dir.path().join("acme")).unwrap();
    mknodat(CWD, &journal, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let edge = Edge::start_in(dir, SETTINGS, |command| {
        command.env("TOKIO_WORKER_THREADS", "1");
    });
    let write = || OpenOptions::new().write(true).custom_flags(NONBLOCK).open(&journal);
    let mut held = None;
    until("it is read", async || {
        held = held.take().or(write().ok());
        held.is_some()
    })
    .await;
    let reply = connect(edge.admin[0]).await.get("/healthz").await.expect("no answer");
    assert_eq!(reply.status, 200);
    let log = edge.finish();
    assert!(log.contains("drained"), "{log}");
}

/// An ACME server that has a directory, and gives no nonce (RFC 8555 §7.2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_gives_no_nonce_is_reported_as_down() {
    for status in [200, 204, 503] {
        let authority = stand_in::Authority::new("the root");
        let wish = Wish { names: vec!["127.0.0.1".to_owned()], ..Wish::default() };
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
        let at = tls(authority.issue(wish).config(&["http/1.1"]), server).await;
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
        let directory = format!("directory = 'https://{at}/directory'\nroot_ca = '{{dir}}/ca.pem'");
        let settings = SETTINGS.replace("directory = 'https://127.0.0.1:1/directory'", &directory);
        let mut edge = Edge::start_in(dir, &settings, |_| {});
        let log = edge.wait_for("acme_failed");
        assert!(log.contains("\"reason\":\"directory_down\""), "{log}");
        assert!(log.contains("cannot ask `127.0.0.1`: it gives no nonce"), "{log}");
    }
}
