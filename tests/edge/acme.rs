//! ACME where there is no directory; with one, it is shown in `tests/peers/acme/`.

use crate::support::{Authority, Edge, certified, connect, connect_tls};

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
