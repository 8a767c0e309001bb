//! ACME where there is no directory; with one, it is shown in `tests/peers/acme/`.

use crate::support::{Authority, Edge, certified, command, connect, connect_tls};
use std::fs;
use tempfile::TempDir;

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
    assert!(edge.stderr().contains("certificate auth.example.com  none yet"), "{}", edge.stderr());
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

#[test]
fn files_that_cannot_be_used_are_told_before_it_starts() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("text"), "not base64!").unwrap();
    for (more, told) in [
        (
            "root_ca = 'missing.pem'",
            "error: cannot use `tls.acme.root_ca` `missing.pem`\n  \
             caused by: No such file or directory (os error 2)\n",
        ),
        (
            "root_ca = 'text'",
            "error: cannot use `tls.acme.root_ca` `text`\n  \
             caused by: holds no readable PEM certificate\n",
        ),
        (
            "eab_key_id = 'key-1'\neab_hmac_key_file = 'text'",
            "error: cannot use `tls.acme.eab_hmac_key_file` `text`\n  \
             caused by: it is not base64url\n",
        ),
    ] {
        let settings = SETTINGS.replace("{dir}", &dir.path().display().to_string());
        fs::write(dir.path().join("config.toml"), format!("{settings}\n{more}")).unwrap();
        for verb in [&["serve"][..], &["config", "check"]] {
            let output = command(dir.path()).args(verb).output().unwrap();
            assert_eq!(output.status.code(), Some(64));
            assert_eq!(String::from_utf8(output.stderr).unwrap(), told);
        }
    }
}
