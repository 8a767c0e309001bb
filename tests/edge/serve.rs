//! Starting and ending: what it says, and what it says when it cannot.

use crate::support::{Authority, Edge, command, connect, connect_tls, expired, requests, settings};
use rustix::process::Signal;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use tempfile::TempDir;

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
    edge.finish();
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
async fn an_idle_client_does_not_hold_the_end_up() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'\nshutdown.grace = '1h'");
    let mut idle = connect(edge.http[0]).await;
    idle.get("/oauth/callback").await.unwrap();
    edge.finish();
}

#[tokio::test]
async fn an_expired_certificate_starts_and_says_so_loudly() {
    let authority = Authority::new();
    let dir = TempDir::new().unwrap();
    authority.write_with(dir.path(), "edge", &["localhost"], expired);
    let mut edge = Edge::start_in(dir, &settings::tls(""), |_| {});
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
    let requests = requests(&log);
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

/// What `serve` says when it cannot start; `{dir}` and `{port}` stand for what differs.
fn refusal(dir: &Path, verb: &[&str], settings: &str) -> String {
    let settings = settings.replace("{dir}", &dir.display().to_string());
    fs::write(dir.join("config.toml"), settings).unwrap();
    let output = command(dir).args(verb).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap().replace(&dir.display().to_string(), "{dir}")
}

#[test]
fn certificates_that_cannot_be_used_are_told_with_the_reason() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), "a", &["a.example.com"]);
    authority.write(dir.path(), "b", &["b.example.com"]);
    let path = |name: &str| dir.path().join(name);
    fs::write(path("text.pem"), "hello").unwrap();
    fs::write(path("junk.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    fs::write(path("torn.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    let head = "error: cannot use certificate `{dir}/";
    #[rustfmt::skip]
    let table = [
        ("missing.pem", "a.key", "missing.pem`\n  caused by: No such file or directory (os error 2)\n"),
        ("a.pem", "missing.key", "a.pem`\n  caused by: cannot read the private key `{dir}/missing.key`: No such file or directory (os error 2)\n"),
        ("a.pem", "b.key", "a.pem`\n  caused by: the private key `{dir}/b.key` does not match it\n"),
        ("a.key", "a.key", "a.key`\n  caused by: it holds no `BEGIN CERTIFICATE` block; is it PEM, and not the key?\n"),
        ("text.pem", "a.key", "text.pem`\n  caused by: it holds no `BEGIN CERTIFICATE` block; is it PEM, and not the key?\n"),
        ("junk.pem", "a.key", "junk.pem`\n  caused by: its first block is not an X.509 certificate\n"),
        ("torn.pem", "a.key", "torn.pem`\n  caused by: it is not valid PEM: a `BEGIN` line has no `END` line; was it cut short?\n"),
        ("a.pem", "a.pem", "a.pem`\n  caused by: the private key `{dir}/a.pem` holds no `BEGIN PRIVATE KEY` block; an encrypted key must be decrypted first\n"),
    ];
    for (certificate, key, expected) in table {
        let settings = format!(
            "listen.http = '127.0.0.1:0'\nlisten.https = '127.0.0.1:0'\n\
             tls.certificate = '{{dir}}/{certificate}'\ntls.private_key = '{{dir}}/{key}'"
        );
        for verb in [&["serve"][..], &["config", "check"]] {
            assert_eq!(refusal(dir.path(), verb, &settings), format!("{head}{expected}"));
        }
    }
}

#[test]
fn everything_that_keeps_it_from_starting_is_told_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let dir = TempDir::new().unwrap();
    let settings = format!(
        "listen.http = ['{address}', '192.0.2.1:8080']\nlisten.https = '127.0.0.1:0'\n\
         tls.certificate = '{{dir}}/missing.pem'\ntls.private_key = '{{dir}}/missing.key'"
    );
    let said = refusal(dir.path(), &[], &settings).replace(&address.to_string(), "{taken}");
    assert_eq!(
        said,
        "error: cannot use certificate `{dir}/missing.pem`
  caused by: No such file or directory (os error 2)

error: cannot listen on `{taken}` (`listen.http`)
  caused by: Address already in use (os error 98)
hint: another program listens there, perhaps another edge: stop it, or choose another port

error: cannot listen on `192.0.2.1:8080` (`listen.http`)
  caused by: Cannot assign requested address (os error 99)
hint: no interface of this machine has the address: `0.0.0.0` or `[::]` listens on all
"
    );
}

#[tokio::test]
async fn with_json_every_line_is_an_event() {
    let settings = "log.format = 'json'\nlisten.http = '127.0.0.1:0'\n\
         [[route]]\npath = '/cb'\ntarget = 'https://t.example/cb?key=canary-key'\n";
    let mut edge = Edge::start(settings);
    connect(edge.http[0]).await.get("/cb").await.unwrap();
    edge.rewrite(&format!("{settings}[lisen]\n"));
    edge.signal(Signal::HUP);
    edge.wait_for("reload_failed");
    let (_, log) = edge.stop();
    let mut events = Vec::new();
    for line in log.lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        events.push(event["event"].as_str().unwrap().to_owned());
    }
    assert_eq!(
        events,
        [
            "callback",
            "listening",
            "ready",
            "request",
            "setting_refused",
            "reload_failed",
            "draining",
            "stopped"
        ]
    );
    assert!(log.contains("https://t.example/cb?key=…") && !log.contains("canary-key"), "{log}");
}
