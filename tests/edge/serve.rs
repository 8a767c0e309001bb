//! Starting and ending: what it says, and what it says when it cannot.

use crate::support::{Authority, Edge, connect, connect_tls};
use rustix::process::Signal;

#[tokio::test]
async fn it_greets_with_callbacks_targets_and_real_ports() {
    let edge = Edge::start("listen.http = ['127.0.0.1:0', '[::1]:0']");
    let [v4, v6] = edge.http[..] else { panic!("two addresses") };
    assert!(v4.port() != 0 && v6.port() != 0);
    let said = edge.stderr();
    for line in [
        format!("callback    http://{v4}/oauth/callback"),
        "→  https://api.nango.dev/oauth/callback".to_owned(),
        format!("callback    http://{v4}/app-auth/connect"),
        "→  https://api.nango.dev/app-auth/connect".to_owned(),
    ] {
        assert!(said.contains(&line), "no {line:?} in:\n{said}");
    }
    for address in [v4, v6] {
        assert_eq!(connect(address).await.get("/oauth/callback").await.unwrap().status, 308);
    }
    let (status, _) = edge.stop();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn both_signals_end_it_cleanly() {
    for signal in [Signal::TERM, Signal::INT] {
        let edge = Edge::start("listen.http = '127.0.0.1:0'");
        edge.signal(signal);
        let (status, log) = edge.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("drained"), "{log}");
    }
}

#[tokio::test]
async fn an_expired_certificate_starts_and_says_so_loudly() {
    let authority = Authority::new();
    let dir = tempfile::TempDir::new().unwrap();
    authority.write_with(dir.path(), "edge", &["localhost"], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let mut edge = Edge::start_in(
        dir,
        "
        listen.http = 'off'
        listen.https = '127.0.0.1:0'
        tls.certificate = '{dir}/edge.pem'
        tls.private_key = '{dir}/edge.key'
        ",
        |_| {},
    );
    let log = edge.wait_for("certificate_invalid");
    assert!(log.contains("has expired"), "{log}");
    let refused = connect_tls(&authority, edge.https[0], "localhost", &[]).await;
    assert!(refused.unwrap_err().to_string().contains("expired"));
}

#[tokio::test]
async fn requests_are_logged_by_route_status_and_outcome() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'");
    let mut client = connect(edge.http[0]).await;
    client.get("/oauth/callback?code=1&state=2").await.unwrap();
    client.get("/oauth/callback?error=access_denied").await.unwrap();
    client.get("/oauth/callback").await.unwrap();
    client.get("/else?code=1").await.unwrap();
    let (_, log) = edge.stop();
    let requests: Vec<serde_json::Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &serde_json::Value| line["event"] == "request")
        .collect();
    let told: Vec<String> = requests
        .iter()
        .map(|line| format!("{} {} {}", line["route"], line["outcome"], line["status"]))
        .collect();
    assert_eq!(
        told,
        [
            "\"/oauth/callback\" \"code\" 308",
            "\"/oauth/callback\" \"error\" 308",
            "\"/oauth/callback\" \"other\" 308",
            "null null 404",
        ]
    );
    assert!(requests[0]["duration_us"].is_u64(), "{}", requests[0]);
    assert_eq!(requests[0]["client"], "127.0.0.1");
}
