//! `health`, as container runtimes run it.

use crate::support::{Authority, Edge, command, connect, expired, free, settings, until};
use rustix::process::Signal;
use std::net::TcpListener;
use std::process::Output;
use tempfile::TempDir;

/// Runs it with these settings.
fn health(settings: &str, arguments: &[&str]) -> Output {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), settings).unwrap();
    command(dir.path()).arg("health").args(arguments).output().unwrap()
}

fn result(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn healthy(address: &str) -> (Option<i32>, String, String) {
    (Some(0), format!("{address}: 200\n"), String::new())
}

/// Settings with an expired certificate of an unknown CA.
fn with_tls(dir: &TempDir, listen: &str) -> String {
    let names = &["auth.example.com"];
    let (certificate, key) = Authority::new().write_with(dir.path(), "edge", names, expired);
    format!(
        "{listen}\ntls.certificate = '{}'\ntls.private_key = '{}'\n",
        certificate.display(),
        key.display()
    )
}

/// The user that runs the health check may not be allowed to read keys and tokens.
#[tokio::test]
async fn files_that_only_serve_needs_may_be_missing() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'");
    let probed = format!(
        "
        public_url = 'https://auth.example.com'
        listen.http = '{}'
        listen.https = '127.0.0.1:1'
        self_check.token_file = 'gone'
        [tls.acme]
        agree_to_terms = true
        root_ca = 'gone'
        eab_key_id = 'key-1'
        eab_hmac_key_file = 'gone'
        ",
        edge.http[0]
    );
    assert_eq!(result(&health(&probed, &[])), healthy(&format!("http://{}/healthz", edge.http[0])));
}

/// A container runtime would otherwise kill a server that works.
#[tokio::test]
async fn after_a_failed_reload_the_server_is_still_healthy() {
    let mut edge = Edge::start(&settings::plain(""));
    let (http, admin) = (edge.http[0], edge.admin[0]);
    let listen = format!("listen.http = '{http}'\nlisten.admin = '{admin}'\n");
    edge.rewrite(&format!("{listen}nonsense = 1"));
    edge.signal(Signal::HUP);
    edge.wait_for("reload_failed");
    for invalid in [
        "nonsense = 1",
        "limits.connections = 'many'",
        // A syntax error, as of an editor that crashed.
        "public_url = 'https://auth",
        "tls.certificate = 'gone'",
        "listen.https = '127.0.0.1:none'",
        "listen.client_address = 'x-real-ip'",
    ] {
        let (code, out, error) = result(&health(&format!("{listen}{invalid}"), &[]));
        assert_eq!((code, out), (Some(0), format!("http://{admin}/healthz: 200\n")), "{invalid}");
        assert_eq!(
            error,
            "warning: the configuration is invalid; only `[listen]` is used\n\
             hint: run `callback-edge config check` to print the errors\n",
            "{invalid}"
        );
    }
    let gone = free();
    let (code, _, error) = result(&health(&format!("listen.http = '{gone}'\nnonsense = 1"), &[]));
    assert_eq!(code, Some(3), "{error}");
    // The variables name the address, whatever is in the file.
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), "[[[").unwrap();
    let mut named = command(dir.path());
    named.arg("health").env("CALLBACK_EDGE_LISTEN__ADMIN", admin.to_string());
    assert_eq!(result(&named.output().unwrap()).0, Some(0));
}

#[test]
fn an_invalid_configuration_without_a_certain_address_is_a_usage_error() {
    for invalid in [
        "[[[",
        "listen.http = '127.0.0.1:none'",
        "listen.http = '127.0.0.1:1'\nlisten.admin = '127.0.0.1:none'",
        "listen.http = '127.0.0.1:1'\nlisten.admin = 127.0.0.1:90",
        // The default address is not certain, where the file cannot be read completely.
        "public_url = 'https://auth",
        "listen.http = 'off'\nlisten.https = 'off'",
    ] {
        let (code, _, error) = result(&health(invalid, &[]));
        assert_eq!(code, Some(64), "{invalid}: {error}");
        assert!(error.starts_with("error: "), "{invalid}: {error}");
    }
}

#[tokio::test]
async fn it_probes_the_admin_listener_else_http_else_https() {
    let dir = TempDir::new().unwrap();
    let all = "
        listen.http = '127.0.0.1:0'
        listen.https = '127.0.0.1:0'
        listen.admin = '127.0.0.1:0'
        public_url = 'https://auth.example.com'";
    let edge = Edge::start(&with_tls(&dir, all));
    let (http, https, admin) = (edge.http[0], edge.https[0], edge.admin[0]);
    let probed = format!("listen.http = '{http}'\nlisten.admin = '0.0.0.0:{}'", admin.port());
    let url = format!("http://127.0.0.1:{}", admin.port());
    assert_eq!(result(&health(&probed, &[])), healthy(&format!("{url}/healthz")));
    assert_eq!(result(&health(&probed, &["--ready"])), healthy(&format!("{url}/readyz")));
    // With an admin listener, the others do not serve health.
    let (code, out, error) = result(&health(&format!("listen.http = '{http}'"), &[]));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(error, format!("error: `http://{http}/healthz` returned status 308\n"));
    drop((edge, https));

    let edge = Edge::start(&with_tls(&dir, "listen.http = 'off'\nlisten.https = '[::1]:0'"));
    let address = edge.https[0];
    let probed = format!("listen.http = 'off'\nlisten.https = '[::]:{}'", address.port());
    let probed = with_tls(&dir, &probed);
    assert_eq!(
        result(&health(&probed, &["--ready"])),
        healthy(&format!("https://{address}/readyz"))
    );
}

#[tokio::test]
async fn it_works_with_hosts_of_routes_and_with_proxy_headers() {
    let settings = |address: &str| {
        format!(
            "
            listen.http = '{address}'
            listen.proxy_protocol = '127.0.0.0/8'
            [[route]]
            host = 'auth.example.com'
            path = '/oauth/callback'
            "
        )
    };
    let edge = Edge::start(&settings("127.0.0.1:0"));
    let address = edge.http[0];
    let probed = settings(&address.to_string());
    assert_eq!(result(&health(&probed, &[])), healthy(&format!("http://{address}/healthz")));
}

#[tokio::test]
async fn a_draining_edge_is_alive_and_not_ready() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'\nshutdown.delay = '60s'");
    let probed = format!("listen.http = '{}'", edge.http[0]);
    edge.signal(Signal::TERM);
    let mut client = connect(edge.http[0]).await;
    until("draining", async || client.get("/readyz").await.unwrap().status == 503).await;
    assert_eq!(result(&health(&probed, &[])).0, Some(0));
    let (code, out, error) = result(&health(&probed, &["--ready"]));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.ends_with("/readyz` returned status 503\n"), "{error}");
}

#[test]
fn no_response_is_reported_with_the_reason() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = free();
    let (code, out, error) = result(&health(&format!("listen.http = '{gone}'"), &[]));
    assert_eq!((code, out.as_str()), (Some(3), ""));
    assert_eq!(
        error,
        format!(
            "error: no response from `http://{gone}/healthz`\n  \
             caused by: Connection refused (os error 111)\n\
             hint: check whether the server runs, and with the same configuration\n"
        )
    );
    let started = std::time::Instant::now();
    let probed = format!("listen.http = '{}'", silent.local_addr().unwrap());
    let (code, _, error) = result(&health(&probed, &[]));
    assert_eq!(code, Some(3));
    assert!(error.contains("timed out"), "{error}");
    assert!(started.elapsed().as_secs() < 10);
}

#[test]
fn settings_without_a_fixed_port_are_a_usage_error() {
    let (code, out, error) = result(&health("listen.http = '127.0.0.1:0'", &[]));
    assert_eq!((code, out.as_str()), (Some(64), ""));
    assert_eq!(
        error,
        "error: cannot connect: `listen.http` has port 0, which is a different port at each start\n\
         hint: set a fixed port in `listen.http`\n"
    );
    let (code, help, _) = result(&health("", &["--help"]));
    assert_eq!(code, Some(0));
    assert!(help.contains("Example:\n  callback-edge -c config.toml health --ready"), "{help}");
}

/// DNS rebinding: a page can let its name resolve to a private address, so that it is of the same
/// origin as the admin listener and could read its responses. Only the name in `Host` shows this.
#[tokio::test]
async fn the_admin_listener_rejects_names_that_can_be_registered() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("token"), "token-1").unwrap();
    let settings = settings::plain(
        "
        self_check.token_file = '{dir}/token'
        public_url = 'https://edge.example.org'
        [[route]]
        host = 'auth.example.com'
        path = '/oauth/callback'
        ",
    );
    let edge = Edge::start_in(dir, &settings, |_| {});
    // The self-check is not run, as the token is missing.
    let statuses = async |host: &str| {
        let mut statuses = Vec::new();
        for target in ["/metrics", "/self-check", "/healthz", "/readyz"] {
            let mut client = connect(edge.admin[0]).await;
            let reply = client.request("GET", target, &format!("Host: {host}\r\n"), b"").await;
            statuses.push(reply.unwrap().status);
        }
        statuses
    };
    for host in [
        "evil.example",
        "127.0.0.1.evil.example:9090",
        "localhost.evil.example",
        "svc.evil.example",
        "a.localhost.com",
        "auth.example.com.evil.example",
        "callback-edge.app",
    ] {
        assert_eq!(statuses(host).await, [421, 421, 200, 200], "{host}");
    }
    for host in [
        "127.0.0.1",
        "10.1.2.3:9090",
        "[::1]:9090",
        "[::ffff:127.0.0.1]",
        "localhost:9090",
        "LOCALHOST.",
        "callback-edge:9090",
        "callback-edge.auth.svc:9090",
        "callback-edge.auth.svc.cluster.local:9090",
        "node.internal",
        "app.localhost",
        "edge.home.arpa",
        "Auth.Example.com:9090",
        "edge.example.org",
    ] {
        assert_eq!(statuses(host).await, [200, 401, 200, 200], "{host}");
    }
    let mut client = connect(edge.admin[0]).await;
    client.send(b"GET /metrics HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.reply().await.unwrap().status, 200);
    let mut client = connect(edge.admin[0]).await;
    let fields = "Host: localhost\r\nHost: localhost\r\n";
    assert_eq!(client.request("GET", "/metrics", fields, b"").await.unwrap().status, 421);
}

#[tokio::test]
async fn admin_hosts_adds_exact_names_and_a_reload_changes_them() {
    let with = |hosts: &str| settings::plain(&format!("listen.admin_hosts = {hosts}"));
    let mut edge = Edge::start(&with("['Edge1.Corp.example.', 'callback-edge.auth']"));
    let admin = edge.admin[0];
    let metrics = async |host: &str| {
        let mut client = connect(admin).await;
        client.request("GET", "/metrics", &format!("Host: {host}\r\n"), b"").await.unwrap()
    };
    for host in ["edge1.corp.example:9090", "EDGE1.corp.example.", "callback-edge.auth"] {
        assert_eq!(metrics(host).await.status, 200, "{host}");
    }
    for host in ["corp.example", "a.edge1.corp.example", "edge1.corp.example.evil.example"] {
        let reply = metrics(host).await;
        assert_eq!(reply.status, 421, "{host}");
        assert!(String::from_utf8(reply.body).unwrap().contains("`listen.admin_hosts`"));
    }
    edge.rewrite(&with("'edge2.corp.example'"));
    edge.signal(Signal::HUP);
    edge.wait_for("\"reloaded\"");
    assert_eq!(metrics("edge1.corp.example").await.status, 421);
    assert_eq!(metrics("edge2.corp.example").await.status, 200);
}

#[tokio::test]
async fn health_checks_and_scrapes_are_logged_at_debug_with_their_path_and_no_requests_of_clients()
{
    let nowhere = "nango.url = 'http://127.0.0.1:1'";
    for (level, admin) in [("info", true), ("debug", true), ("info", false), ("debug", false)] {
        let base = format!("log.level = '{level}'\n{nowhere}\nlisten.http = '127.0.0.1:0'\n");
        let base = if admin { settings::plain(&base) } else { base };
        let edge = Edge::start(&base);
        let address = *edge.admin.first().unwrap_or(&edge.http[0]);
        for path in ["/healthz", "/readyz", "/self-check"] {
            connect(address).await.get(path).await.unwrap();
        }
        if admin {
            assert_eq!(connect(address).await.get("/canary").await.unwrap().status, 404);
            let metrics = edge.metrics().await;
            let requests =
                metrics.0.lines().filter(|line| line.contains("callback_edge_requests_total{"));
            let requests: Vec<_> = requests.collect();
            assert!(
                requests.len() > 10 && requests.iter().all(|it| it.ends_with(" 0")),
                "{requests:?}"
            );
            let count =
                |kind: &str| metrics.get(&format!("internal_requests_total{{kind=\"{kind}\"}}"));
            assert_eq!((count("health") as i32, count("admin") as i32), (2, 2));
        }
        let log = edge.finish();
        let lines: Vec<_> =
            log.lines().filter(|line| line.contains("\"event\":\"request\"")).collect();
        assert!(!log.contains("canary"), "{log}");
        if level == "info" {
            assert!(lines.is_empty(), "{lines:?}");
            continue;
        }
        let paths = if admin {
            &["/healthz", "/readyz", "/self-check", "/metrics"][..]
        } else {
            &["/healthz", "/readyz", "/self-check"]
        };
        for path in paths {
            let of_path = format!("\"path\":\"{path}\"");
            let found: Vec<_> = lines.iter().filter(|line| line.contains(&of_path)).collect();
            assert!(found.len() == 1 && found[0].contains("\"level\":\"DEBUG\""), "{path}: {log}");
        }
    }
}

#[tokio::test]
async fn a_malformed_request_to_the_admin_listener_is_not_one_of_a_client() {
    let edge = Edge::start(&settings::plain(""));
    let malformed = b"GET / HTTP/1.1\r\nHost: a\r\ncanary\x00: 1\r\n\r\n";
    for (address, counted) in [(edge.admin[0], 0.0), (edge.http[0], 1.0)] {
        let before = edge.metrics().await.get("connection_errors_total{reason=\"malformed\"}");
        let mut client = connect(address).await;
        client.send(malformed).await;
        assert_eq!(client.reply().await.unwrap().status, 400);
        drop(client);
        let mut metrics = edge.metrics().await;
        until("it is counted", async || {
            metrics = edge.metrics().await;
            metrics.get("connection_errors_total{reason=\"malformed\"}") > before
        })
        .await;
        let requests = metrics.get("requests_total{status=\"400\"}");
        assert!((requests - counted).abs() < 0.5, "{requests} at {address}");
    }
    let log = edge.finish();
    assert_eq!(log.matches("\"event\":\"request\"").count(), 1, "{log}");
}
