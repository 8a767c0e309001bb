//! The self-check endpoint: its report, its access control, and that requests cannot choose what it contacts.

use crate::fakes::{Act, Received, behaviour, correct, nango, plain};
use crate::support::{Edge, Reply, certified, check, connect, settings, until, with_timeout};
use rustix::process::Signal;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

/// Without requests to Nango: these tests need no network.
const OFFLINE: &str = "
    listen.http = '127.0.0.1:0'
    self_check.follow = false
    [[route]]
    path = '/oauth/callback'
";

async fn get(edge: &Edge, target: &str, fields: &str) -> Reply {
    let address = edge.admin.first().unwrap_or_else(|| &edge.http[0]);
    connect(*address).await.request("GET", target, fields, b"").await.unwrap()
}

fn report(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

#[tokio::test]
async fn a_correct_server_passes_its_self_check() {
    let (_, dir) = certified(&["auth.example.com"]);
    let settings = settings::tls(
        "
        public_url = 'https://auth.example.com'
        self_check.root_ca = '{dir}/ca.pem'
        ",
    );
    let mut edge = Edge::start_in(dir, &settings, |_| {});
    let (http, https) = (edge.http[0], edge.https[0]);
    // The public name does not resolve to this machine, so `connect_to` sets the address.
    edge.rewrite(&format!(
        "{settings}\nself_check.connect_to = ['auth.example.com:443:{https}', 'auth.example.com:80:{http}']"
    ));
    edge.signal(Signal::HUP);
    edge.wait_for("\"reloaded\"");
    let reply = get(&edge, "/self-check", "").await;
    let reports = report(&reply);
    for report in reports.as_array().unwrap() {
        let checks = report["checks"].as_array().unwrap();
        let failed: Vec<_> = checks.iter().filter(|check| check["status"] == "fail").collect();
        assert!(failed.is_empty(), "{failed:#?}");
        for id in ["tls.chain", "tls.name", "redirect.query", "redirect.protocols", "redirect.http"]
        {
            assert_eq!(check(report, id)["status"], "pass", "{report:#}");
        }
    }
    assert_eq!(reply.status, 200);
    assert_eq!(connect(http).await.get("/self-check").await.unwrap().status, 308);
}

#[tokio::test]
async fn a_failed_self_check_responds_503_with_the_reason() {
    let edge = Edge::start(&format!("public_url = 'https://127.0.0.1:1'{OFFLINE}"));
    let reply = get(&edge, "/self-check", "").await;
    assert_eq!((reply.status, reply.text("content-type").as_str()), (503, "application/json"));
    let report = report(&reply);
    assert_eq!((&report["schema"], &report["verdict"]), (&1.into(), &"fail".into()));
    let reach = check(&report, "dns.reach");
    assert_eq!(reach["status"], "fail");
    assert!(reach["hint"].is_string());
}

#[tokio::test]
async fn a_browser_gets_a_self_contained_page() {
    let nango = plain(behaviour(nango)).await;
    let edge = Edge::start(&format!("nango.url = 'http://{nango}'{OFFLINE}"));
    let accept = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    let reply = get(&edge, "/self-check", accept).await;
    assert_eq!(
        (reply.status, reply.text("content-type").as_str()),
        (200, "text/html; charset=utf-8")
    );
    let policy = reply.text("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    let page = String::from_utf8(reply.body).unwrap();
    assert!(page.contains("The callback works"), "{page}");
    assert!(page.contains(&format!("<code>http://{}/oauth/callback</code>", edge.http[0])));
    assert!(!page.contains("<script") && !page.contains("src="), "{page}");
}

#[tokio::test]
async fn a_hundred_concurrent_requests_share_one_run() {
    let edge = Edge::start(OFFLINE);
    let address = edge.http[0];
    let requests = (0..100).map(|_| async move { connect(address).await.get("/self-check").await });
    let mut tasks = tokio::task::JoinSet::new();
    requests.for_each(|request| drop(tasks.spawn(request)));
    let replies = tasks.join_all().await;
    assert!(replies.iter().all(|reply| reply.as_ref().unwrap().status == 200));
    assert!(
        replies
            .windows(2)
            .all(|pair| pair[0].as_ref().unwrap().body == pair[1].as_ref().unwrap().body)
    );
    let (_, log) = edge.stop();
    assert_eq!(log.matches("\"event\":\"self_check\"").count(), 1, "{log}");
}

#[tokio::test]
async fn requests_do_not_choose_what_is_contacted() {
    let edge = Edge::start(&format!("self_check.cache = '0s'{OFFLINE}"));
    let callback = format!("http://{}/oauth/callback", edge.http[0]);
    let fields =
        "Host: evil.example\r\nForwarded: host=evil.example\r\nX-Forwarded-Host: evil.example\r\n";
    for target in ["/self-check?url=http://evil.example/&callback=evil&target=evil", "/self-check?"]
    {
        let reply = get(&edge, target, fields).await;
        let text = String::from_utf8(reply.body.clone()).unwrap();
        assert!(!text.contains("evil"), "{text}");
        assert_eq!(report(&reply)["callback"], callback.as_str());
    }
}

#[tokio::test]
async fn a_configured_token_is_required() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("token"), "canary-token-31\n").unwrap();
    let mut edge =
        Edge::start_in(dir, &format!("self_check.token_file = '{{dir}}/token'{OFFLINE}"), |_| {});
    for (fields, status) in [
        ("", 401),
        ("Authorization: Bearer wrong\r\n", 401),
        ("Authorization: Bearer \r\n", 401),
        ("Authorization: Basic canary-token-31\r\n", 401),
        ("Authorization: bearer canary-token-31\r\n", 200),
    ] {
        let reply = get(&edge, "/self-check", fields).await;
        assert_eq!(reply.status, status, "{fields:?}");
        assert_eq!(reply.text("www-authenticate"), if status == 401 { "Bearer" } else { "" });
    }
    // An unusable token keeps the previous one; a new one takes effect at a reload.
    let status = async |edge: &Edge, token: &str| {
        get(edge, "/self-check", &format!("Authorization: Bearer {token}\r\n")).await.status
    };
    std::fs::write(edge.dir().join("token"), "\n").unwrap();
    edge.signal(Signal::HUP);
    edge.wait_for("is empty");
    assert_eq!((status(&edge, "canary-token-31").await, status(&edge, "").await), (200, 401));
    std::fs::write(edge.dir().join("token"), "canary-token-32").unwrap();
    assert_eq!(status(&edge, "canary-token-31").await, 200);
    edge.signal(Signal::HUP);
    edge.wait_for("\"reloaded\"");
    assert_eq!(
        (status(&edge, "canary-token-31").await, status(&edge, "canary-token-32").await),
        (401, 200)
    );
    let (_, log) = edge.stop();
    assert!(!log.contains("canary-token"), "{log}");
}

#[test]
fn the_server_does_not_start_without_its_token_file() {
    let dir = TempDir::new().unwrap();
    let settings = format!("self_check.token_file = 'missing'{OFFLINE}");
    std::fs::write(dir.path().join("config.toml"), settings).unwrap();
    let output = crate::support::command(dir.path()).arg("serve").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("cannot read the token file `missing`"), "{stderr}");
}

#[tokio::test]
async fn self_checks_run_periodically_for_the_metrics() {
    let settings = format!("listen.admin = '127.0.0.1:0'\nself_check.every = '1s'{OFFLINE}");
    let edge = Edge::start(&settings);
    until("a self-check ran", async || edge.metrics().await.find("self_check_passed") == Some(1.0))
        .await;
    let query = "self_check_failed{route=\"/oauth/callback\",check=\"redirect.query\"}";
    assert_eq!(edge.metrics().await.find(query), Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_periodic_self_check_sends_few_requests_and_a_requested_one_all() {
    let nango = plain(behaviour(nango)).await;
    let all: Arc<Mutex<Vec<Received>>> = Arc::default();
    let (heard, origin) = (Arc::clone(&all), format!("http://{nango}"));
    let callback = plain(behaviour(move |request| {
        heard.lock().unwrap().push(request.clone());
        Act::Reply(correct(&origin, request))
    }))
    .await;
    let mut edge = Edge::start(&format!(
        "public_url = 'http://{callback}'\nnango.url = 'http://{nango}'\nself_check.every = '1s'{OFFLINE}"
    ));
    edge.wait_for("\"event\":\"self_check\"");
    let sent = |all: &[Received]| {
        // The last request of a run.
        let proof = |it: &&Received| it.query.as_deref().is_some_and(|it| it.contains("on_id=0"));
        (all.len(), all.iter().filter(proof).count())
    };
    let (requests, runs) = sent(&all.lock().unwrap());
    // The next run may have begun.
    assert!(runs > 0 && requests <= 15 * (runs + 1), "{requests} requests, {runs} runs");
    all.lock().unwrap().clear();
    let reply = get(&edge, "/self-check", "").await;
    let (requests, _) = sent(&all.lock().unwrap());
    assert!(requests > 50, "{requests}");
    let report = report(&reply);
    assert_eq!(check(&report, "nango.end_to_end")["status"], "pass", "{report:#}");
    assert_eq!(check(&report, "nango.echo")["status"], "skip", "{report:#}");
}

/// A callback that accepts connections and never responds.
async fn hanging() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// Requests the self-check, and returns when it has connected to the callback.
async fn start(
    edge: &Edge,
    callback: &TcpListener,
) -> (tokio::task::JoinHandle<Option<Reply>>, TcpStream) {
    let mut client = connect(edge.http[0]).await;
    let request = tokio::spawn(async move { client.get("/self-check").await });
    let (connection, _) = with_timeout(callback.accept()).await.unwrap();
    (request, connection)
}

#[tokio::test]
async fn a_reload_discards_a_running_self_check() {
    let (callback, url) = hanging().await;
    let mut edge = Edge::start(&format!("public_url = '{url}'{OFFLINE}"));
    let (before, _connection) = start(&edge, &callback).await;
    edge.rewrite(OFFLINE);
    edge.signal(Signal::HUP);
    edge.wait_for("\"reloaded\"");
    let after = get(&edge, "/self-check", "").await;
    let own = format!("http://{}/oauth/callback", edge.http[0]);
    assert_eq!((after.status, &report(&after)["callback"]), (200, &own.as_str().into()));
    // The discarded run has ended, and its request gets the new result too.
    let before = with_timeout(before).await.unwrap().unwrap();
    assert_eq!(report(&before)["callback"], own.as_str());
    let (_, log) = edge.stop();
    assert_eq!(log.matches("\"event\":\"self_check\"").count(), 1, "{log}");
}

#[tokio::test]
async fn a_self_check_in_progress_does_not_delay_the_drain() {
    let (callback, url) = hanging().await;
    let grace = "shutdown.grace = '20s'\nshutdown.delay = '1s'";
    let edge = Edge::start(&format!("{grace}\npublic_url = '{url}'{OFFLINE}"));
    let (request, _connection) = start(&edge, &callback).await;
    let started = Instant::now();
    edge.signal(Signal::TERM);
    let reply = with_timeout(request).await.unwrap().unwrap();
    assert_eq!((reply.status, &*reply.body), (503, &b"draining\n"[..]));
    let later = get(&edge, "/self-check", "").await;
    assert_eq!((later.status, &*later.body), (503, &b"draining\n"[..]));
    let (status, log) = edge.wait();
    let took = started.elapsed();
    assert!(status.code() == Some(0) && log.contains("\"drained\""), "{status}: {log}");
    assert!(took < Duration::from_secs(5), "{took:?}: {log}");
}
