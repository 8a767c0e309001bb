//! The self-check endpoint: its report, its access control, and that requests cannot choose what it contacts.

use crate::fakes::{Act, Received, behaviour, correct, nango, plain};
use crate::support::{
    Edge, Metrics, Reply, certified, check, connect, requests, settings, until, with_timeout,
};
use rustix::process::Signal;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
    // Nango cannot be reached from here: that is no failure of the callback.
    let verdict = "self_check_verdict{route=\"/oauth/callback\",verdict=\"unknown\"}";
    until("a self-check ran", async || edge.metrics().await.find(verdict) == Some(1.0)).await;
    let query = "self_check_failed{route=\"/oauth/callback\",check=\"redirect.query\"}";
    let metrics = edge.metrics().await;
    assert_eq!(metrics.find(query), Some(0.0));
    assert!(metrics.get("self_check_seconds") > 1e9);
    assert_eq!(metrics.get("self_check_interval_seconds") as i32, 1);
}

/// The interval that is exported with these settings.
async fn interval(own: &str) -> i32 {
    let edge = Edge::plain(own);
    edge.metrics().await.get("self_check_interval_seconds") as i32
}

#[tokio::test]
async fn by_default_it_runs_every_5_minutes_unless_every_callback_is_on_loopback() {
    let routes = |hosts: &[&str]| -> String {
        let route = |host| format!("[[route]]\nhost = '{host}'\npath = '/cb'\n");
        hosts.iter().map(route).collect()
    };
    for (own, seconds) in [
        ("", 0),
        ("listen.http = '0.0.0.0:0'", 0),
        ("public_url = 'http://app.localhost:8080'", 0),
        ("public_url = 'http://127.1.2.3'", 0),
        ("public_url = 'https://auth.example.invalid'", 300),
        ("public_url = 'https://auth.example.invalid'\nself_check.every = 'off'", 0),
        ("self_check.every = '7m'", 420),
        (&routes(&["localhost", "a.localhost"]), 0),
        (&routes(&["localhost", "auth.example.invalid"]), 300),
    ] {
        assert_eq!(interval(own).await, seconds, "{own}");
    }
    let edge = Edge::plain("");
    edge.rewrite(&settings::plain("public_url = 'https://auth.example.invalid'"));
    edge.signal(Signal::HUP);
    until("a reload changes it", async || {
        edge.metrics().await.get("self_check_interval_seconds") as i32 == 300
    })
    .await;
}

/// The sum of all series of a metric.
fn sum(metrics: &Metrics, name: &str) -> i32 {
    let prefix = format!("callback_edge_{name}{{");
    let values = metrics.0.lines().filter(|line| line.starts_with(&prefix));
    values.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as i32).sum()
}

/// Redirects by outcome.
fn redirects(metrics: &Metrics, outcome: &str) -> i32 {
    let route = "route=\"/oauth/callback\"";
    metrics.get(&format!("redirects_total{{{route},outcome=\"{outcome}\"}}")) as i32
}

fn internal(metrics: &Metrics, kind: &str) -> i32 {
    metrics.get(&format!("internal_requests_total{{kind=\"{kind}\"}}")) as i32
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_own_probes_are_no_requests_of_clients() {
    let nango = plain(behaviour(nango)).await;
    let own = format!(
        "nango.url = 'http://{nango}'\nself_check.every = '1s'\n[[route]]\npath = '/oauth/callback'"
    );
    let edge = Edge::plain(&own);
    until("it ran twice", async || redirects(&edge.metrics().await, "probe") > 15).await;
    // The whole check also sends requests that are rejected.
    assert_eq!(get(&edge, "/self-check", "").await.status, 200);
    let metrics = edge.metrics().await;
    assert_eq!(sum(&metrics, "requests_total"), 0, "{}", metrics.0);
    for outcome in ["code", "error", "other"] {
        assert_eq!(redirects(&metrics, outcome), 0, "{outcome}");
    }
    assert!(internal(&metrics, "probe") > redirects(&metrics, "probe"));
    assert!(redirects(&metrics, "probe") > 50);
    connect(edge.http[0]).await.get("/oauth/callback?code=1").await.unwrap();
    let metrics = edge.metrics().await;
    assert_eq!((sum(&metrics, "requests_total"), redirects(&metrics, "code")), (1, 1));
    let log = edge.finish();
    assert_eq!(log.matches("\"event\":\"request\"").count(), 1, "{log}");
}

/// Records the tokens that a callback receives.
async fn recording(nango: &str) -> (String, Arc<Mutex<Vec<String>>>) {
    let tokens: Arc<Mutex<Vec<String>>> = Arc::default();
    let (heard, origin) = (Arc::clone(&tokens), format!("http://{nango}"));
    let callback = plain(behaviour(move |request| {
        let token = request.header("x-callback-edge-probe").unwrap_or("none").to_owned();
        heard.lock().unwrap().push(token);
        Act::Reply(correct(&origin, request))
    }))
    .await;
    (format!("http://{callback}"), tokens)
}

/// Another token each time, after a self-check has sent some.
async fn received(tokens: &Mutex<Vec<String>>) -> String {
    until("a probe arrived", async || !tokens.lock().unwrap().is_empty()).await;
    tokens.lock().unwrap().pop().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_recognised_once_and_reaches_only_the_callback() {
    let at_nango: Arc<Mutex<Vec<Received>>> = Arc::default();
    let heard = Arc::clone(&at_nango);
    let nango = plain(behaviour(move |request| {
        heard.lock().unwrap().push(request.clone());
        nango(request)
    }))
    .await;
    let (callback, tokens) = recording(&nango.to_string()).await;
    let own = format!(
        "log.level = 'debug'\npublic_url = '{callback}'\nnango.url = 'http://{nango}'\n\
         self_check.every = '1s'\nself_check.follow = true\n[[route]]\npath = '/oauth/callback'"
    );
    let mut edge = Edge::plain(&own);
    let report = get(&edge, "/self-check", "").await;
    let all = std::mem::take(&mut *tokens.lock().unwrap());
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert!(all.len() > 50 && distinct.len() == all.len(), "{} of {}", distinct.len(), all.len());
    assert!(!all.contains(&"none".to_owned()));
    for request in &*at_nango.lock().unwrap() {
        let headers = format!("{:?}", request.headers);
        assert!(!headers.contains("x-callback-edge"), "{headers}");
    }
    assert!(at_nango.lock().unwrap().len() > 2);

    let send = async |token: &str| {
        let before = edge.metrics().await;
        let field = format!("X-Callback-Edge-Probe: {token}\r\n");
        let mut client = connect(edge.http[0]).await;
        let reply = client.request("GET", "/oauth/callback?code=1", &field, b"").await.unwrap();
        assert_eq!(reply.location(), format!("http://{nango}/oauth/callback?code=1"));
        let after = edge.metrics().await;
        let added = |of: fn(&Metrics) -> i32| of(&after) - of(&before);
        let probe = added(|metrics| redirects(metrics, "probe"));
        let client = added(|metrics| redirects(metrics, "code"));
        assert_eq!(added(|metrics| sum(metrics, "requests_total")), client);
        match (probe, client) {
            (1, 0) => true,
            (0, 1) => false,
            counted => panic!("{counted:?}"),
        }
    };
    let good = received(&tokens).await;
    // A forged one first: it must not use up the real one.
    let end = if good.ends_with('A') { "B" } else { "A" };
    let forged = format!("{}{end}", &good[..good.len() - 1]);
    for bad in [&*forged, "", "canary-token", &good[1..], &"A".repeat(75), &"A".repeat(8000)] {
        assert!(!send(bad).await, "{bad}");
    }
    assert!(send(&good).await);
    assert!(!send(&good).await, "a replay");
    assert!(send(&received(&tokens).await).await);

    let another = received(&tokens).await;
    let metrics = edge.metrics().await.0;
    let log = edge.wait_for("\"outcome\":\"probe\"");
    for text in [&log, &metrics, &String::from_utf8(report.body).unwrap()] {
        for token in [&good, &forged, &another, "canary-token"] {
            assert!(!text.contains(&token[..12]), "{token} in {text}");
        }
    }
    let probes = requests(&log).into_iter().filter(|line| line["outcome"] == "probe");
    assert!(probes.into_iter().all(|line| line["level"] == "DEBUG"), "{log}");
}

/// A proxy in front of the server that renames the field of the token.
async fn without_tokens() -> (SocketAddr, Arc<OnceLock<SocketAddr>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server: Arc<OnceLock<SocketAddr>> = Arc::default();
    let to = Arc::clone(&server);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut upstream = TcpStream::connect(to.get().unwrap()).await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut back) = client.split();
                let (mut replies, mut onwards) = upstream.split();
                let forward = async {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(read @ 1..) = from.read(&mut buffer).await {
                        let text = String::from_utf8(buffer[..read].to_vec()).unwrap();
                        let text = text.replace("x-callback-edge-probe", "x-callback-edge-other");
                        onwards.write_all(text.as_bytes()).await.unwrap();
                    }
                };
                let replies = tokio::io::copy(&mut replies, &mut back);
                tokio::select! {
                    () = forward => {}
                    _ = replies => {}
                }
            });
        }
    });
    (address, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_removes_the_tokens_changes_only_how_probes_are_counted() {
    let nango = plain(behaviour(nango)).await;
    let (proxy, server) = without_tokens().await;
    let own = format!("nango.url = 'http://{nango}'\n[[route]]\npath = '/oauth/callback'");
    let direct = Edge::plain(&own);
    let behind = Edge::plain(&format!("public_url = 'http://{proxy}'\n{own}"));
    server.set(behind.http[0]).unwrap();
    let result = async |edge: &Edge| {
        let reply = get(edge, "/self-check", "").await;
        let report = report(&reply);
        let checks = report["checks"].as_array().unwrap().clone();
        let of = |check: &Value| format!("{} {}", check["id"], check["status"]);
        (reply.status, checks.iter().map(of).collect::<Vec<_>>())
    };
    assert_eq!(result(&behind).await, result(&direct).await);
    let (direct, behind) = (direct.metrics().await, behind.metrics().await);
    assert!(redirects(&direct, "probe") > 50 && redirects(&direct, "code") == 0);
    assert!(redirects(&behind, "probe") == 0 && redirects(&behind, "code") > 20, "{}", behind.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_with_one_key_recognise_the_probes_of_each_other() {
    let nango = plain(behaviour(nango)).await;
    let (callback, tokens) = recording(&nango.to_string()).await;
    let start = |key: Option<&str>, more: &str| {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("key"), key.unwrap_or_default()).unwrap();
        let file = key.map_or("", |_| "self_check.probe_key_file = '{dir}/key'");
        let own = settings::plain(&format!(
            "{file}\n{more}\nnango.url = 'http://{nango}'\n[[route]]\npath = '/oauth/callback'"
        ));
        Edge::start_in(dir, &own, |_| {})
    };
    let key = "canary-0123456789abcdef0123456789abcdef";
    let mut sender =
        start(Some(key), &format!("public_url = '{callback}'\nself_check.every = '1s'"));
    let (same, other, alone) = (
        start(Some(&format!("{key}\n")), ""),
        start(Some("another-0123456789abcdef0123456789"), ""),
        start(None, ""),
    );
    let token = received(&tokens).await;
    for (edge, recognised) in [(&alone, 0), (&other, 0), (&same, 1), (&same, 1)] {
        let field = format!("X-Callback-Edge-Probe: {token}\r\n");
        let mut client = connect(edge.http[0]).await;
        client.request("GET", "/oauth/callback?code=1", &field, b"").await.unwrap();
        assert_eq!(redirects(&edge.metrics().await, "probe"), recognised);
    }
    // A reload reads the key again.
    std::fs::write(other.dir().join("key"), key).unwrap();
    other.signal(Signal::HUP);
    until("reloaded", async || edge_reloads(&other).await == 1).await;
    let field = format!("X-Callback-Edge-Probe: {token}\r\n");
    connect(other.http[0]).await.request("GET", "/oauth/callback", &field, b"").await.unwrap();
    assert_eq!(redirects(&other.metrics().await, "probe"), 1);
    assert!(!sender.wait_for("self_check").contains("canary"));
}

async fn edge_reloads(edge: &Edge) -> i32 {
    edge.metrics().await.get("reloads_total{result=\"success\"}") as i32
}

/// The self-check events of a log.
fn results(log: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["event"] == "self_check").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_and_its_end_are_logged_once() {
    let nango = plain(behaviour(nango)).await;
    let is_broken = Arc::new(AtomicBool::new(false));
    let (broken, origin) = (Arc::clone(&is_broken), format!("http://{nango}"));
    let callback = plain(behaviour(move |request| {
        let mut request = request.clone();
        if broken.load(Relaxed) {
            // A rule that drops the query.
            request.query = None;
        }
        Act::Reply(correct(&origin, &request))
    }))
    .await;
    let own = format!(
        "log.level = 'debug'\npublic_url = 'http://{callback}'\nnango.url = 'http://{nango}'\n\
         self_check.every = '1s'\nself_check.cache = '0s'\n[[route]]\npath = '/oauth/callback'"
    );
    let edge = Edge::plain(&own);
    let level = |log: &str, level: &str| {
        results(log).into_iter().filter(|line| line["level"] == level).collect::<Vec<_>>()
    };
    let unchanged = async |more: usize| {
        let before = level(&edge.stderr(), "DEBUG").len();
        until("further runs", async || level(&edge.stderr(), "DEBUG").len() >= before + more).await;
    };
    unchanged(2).await;
    assert_eq!(level(&edge.stderr(), "INFO").len(), 1, "{}", edge.stderr());
    is_broken.store(true, Relaxed);
    until("it fails", async || !level(&edge.stderr(), "WARN").is_empty()).await;
    unchanged(2).await;
    let failed = edge.metrics().await;
    let verdict = |verdict: &str| {
        failed
            .find(&format!("self_check_verdict{{route=\"/oauth/callback\",verdict=\"{verdict}\"}}"))
    };
    assert_eq!((verdict("fail"), verdict("pass"), verdict("warn")), (Some(1.0), None, None));
    is_broken.store(false, Relaxed);
    until("it recovers", async || level(&edge.stderr(), "INFO").len() == 2).await;
    unchanged(1).await;
    let log = edge.finish();
    let (warnings, infos) = (level(&log, "WARN"), level(&log, "INFO"));
    assert_eq!((warnings.len(), infos.len()), (1, 2), "{log}");
    let warning = &warnings[0];
    let first = warning["failed"].as_str().unwrap().split(' ').next().unwrap();
    assert!(first.starts_with("redirect."), "{warning}");
    let query = format!("self_check_failed{{route=\"/oauth/callback\",check=\"{first}\"}}");
    assert_eq!(failed.find(&query), Some(1.0), "{}", failed.0);
    let hint = warning["hint"].as_str().unwrap();
    assert!(hint.contains("`callback-edge explain redirect."), "{warning}");
    assert!(warning["cause"].is_string() && warning["verdict"] == "fail", "{warning}");
    assert_eq!(infos[0]["failed_for_s"], Value::Null);
    assert!(infos[1]["failed_for_s"].as_u64().unwrap() >= 1, "{}", infos[1]);
}

/// As in a pod without IPv6: connect(2) to the address in the AAAA record returns ENETUNREACH, as it does
/// to a multicast address on every machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_without_a_route_is_unknown_and_not_a_failure() {
    let nango = plain(behaviour(nango)).await;
    let origin = format!("http://{nango}");
    let callback = plain(behaviour(move |request| Act::Reply(correct(&origin, request)))).await;
    let own = format!(
        "public_url = 'http://edge.localhost'\nnango.url = 'http://{nango}'\nself_check.every = '1s'\n\
         self_check.connect_to = ['edge.localhost:80:[ff0e::1]:80', 'edge.localhost:80:{callback}']\n\
         [[route]]\npath = '/oauth/callback'"
    );
    let mut edge = Edge::plain(&own);
    let log = edge.wait_for("\"event\":\"self_check\"");
    let metrics = edge.metrics().await;
    let verdict = |verdict: &str| {
        metrics
            .find(&format!("self_check_verdict{{route=\"/oauth/callback\",verdict=\"{verdict}\"}}"))
    };
    let reach = get(&edge, "/self-check", "").await;
    let reach = check(&report(&reach), "dns.reach").clone();
    assert_eq!(reach["status"], "unknown", "{reach:#}");
    assert!(reach["detail"].as_str().unwrap().contains("[ff0e::1]:80: no route"), "{reach:#}");
    assert_eq!((verdict("unknown"), verdict("fail")), (Some(1.0), None), "{log}\n{}", metrics.0);
    assert!(
        !metrics.0.lines().any(|line| line.contains("self_check_failed{") && line.ends_with(" 1"))
    );
}

#[tokio::test]
async fn a_probe_key_must_be_long_and_readable() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("key"), "canary-key-too-short\n").unwrap();
    for (file, expected) in [("key", "has fewer than 32 bytes"), ("gone", "No such file")] {
        let settings = format!("self_check.probe_key_file = '{file}'{OFFLINE}");
        std::fs::write(dir.path().join("config.toml"), settings).unwrap();
        let output = crate::support::command(dir.path()).arg("serve").output().unwrap();
        assert_eq!(output.status.code(), Some(64));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(expected) && !stderr.contains("canary"), "{stderr}");
    }
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
