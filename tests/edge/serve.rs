//! Start and shutdown, and the reports of failed starts.

use crate::support::{
    Authority, Edge, Http2, Lines, PATIENCE, command, connect, connect_tls, expired, requests,
    settings, terminal, until,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;
use tempfile::TempDir;

#[tokio::test]
async fn the_greeting_has_callbacks_targets_and_bound_ports() {
    let edge = Edge::start("log.format = 'text'\nlisten.http = ['127.0.0.1:0', '[::1]:0']");
    let [v4, v6] = edge.http[..] else { panic!("two addresses") };
    assert!(v4.port() != 0 && v6.port() != 0);
    let output_text = edge.stderr();
    for line in [
        format!("callback     http://{v4}/oauth/callback"),
        "→  https://api.nango.dev/oauth/callback".to_owned(),
        format!("callback     http://{v4}/app-auth/connect"),
        "→  https://api.nango.dev/app-auth/connect".to_owned(),
    ] {
        assert!(output_text.contains(&line), "no {line:?} in:\n{output_text}");
    }
    for address in [v4, v6] {
        assert_eq!(connect(address).await.get("/oauth/callback").await.unwrap().status, 308);
    }
    edge.finish();
}

#[tokio::test]
async fn the_log_has_the_route_and_the_reason_why_a_request_is_not_redirected() {
    let mut edge = Edge::start(
        "listen.http = '127.0.0.1:0'\nlimits.query_bytes = 64\nlimits.form_bytes = 64\n\
         limits.header_fields = 20\nlimits.request_timeout = '1s'\n\
         [[route]]\nhost = 'auth.example.com'\npath = '/cb'",
    );
    let over_limit = format!("/cb?{}", "a".repeat(65));
    let fields = (0..30).map(|number| format!("X-{number}: 1\r\n")).collect::<Vec<_>>().concat();
    let form = |length: usize, body: &str| {
        let kind = "Content-Type: application/x-www-form-urlencoded";
        format!("{kind}\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let route = json!("auth.example.com/cb");
    #[rustfmt::skip]
    let table = [
        ("GET", "/cb", "auth.example.com", "\r\n", Value::Null, &route),
        ("GET", "/canary", "auth.example.com", "\r\n", json!("unknown_path"), &Value::Null),
        ("GET", "/cb", "canary.example", "\r\n", json!("unknown_host"), &Value::Null),
        ("PUT", "/cb", "auth.example.com", "\r\n", json!("method"), &route),
        ("GET", "/cb", "auth.example.com", "Sec-Purpose: prefetch\r\n\r\n", json!("prefetch"), &route),
        ("GET", &over_limit, "auth.example.com", "\r\n", json!("query_too_long"), &route),
        ("GET", "/cb", "a b", "\r\n", json!("malformed"), &Value::Null),
        ("OPTIONS", "/cb", "auth.example.com", "\r\n", Value::Null, &route),
        ("POST", "/cb", "auth.example.com", &form(65, &"a".repeat(65)), json!("form_too_large"), &route),
        ("POST", "/cb", "auth.example.com", &form(8, "canary #"), json!("form_malformed"), &route),
        ("POST", "/cb", "auth.example.com", &form(8, "canary"), json!("form_timeout"), &route),
        ("POST", "/cb", "auth.example.com", &form(6, "canary"), Value::Null, &route),
    ];
    for (method, target, host, rest, ..) in &table {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{rest}");
        let mut client = connect(edge.http[0]).await;
        client.send(request.as_bytes()).await;
        assert!(client.reply().await.is_some(), "{request}");
    }
    let mut client = connect(edge.http[0]).await;
    let reply = client.request("GET", "/cb", &fields, b"").await.unwrap();
    assert_eq!(reply.status, 431);
    // The library rejects these two; they are logged when the connection has ended, after a second at most.
    drop(client);
    edge.wait_for("\"header_bytes\"");
    let mut client = connect(edge.http[0]).await;
    client.send(b"GET /cb HTTP/1.1\r\nHost: auth.example.com\r\ncanary\x00: 1\r\n\r\n").await;
    assert_eq!(client.reply().await.unwrap().status, 400);
    drop(client);
    let (_, log) = edge.stop();
    let requests = requests(&log);
    let logged: Vec<_> =
        requests.iter().map(|line| (line["reason"].clone(), line["route"].clone())).collect();
    let expected = table.map(|(.., reason, route)| (reason, route.clone()));
    let rejected = ["header_bytes", "malformed"].map(|reason| (json!(reason), Value::Null));
    let expected: Vec<_> = expected.into_iter().chain(rejected).collect();
    assert_eq!(logged, expected, "{log}");
    assert!(!log.contains("canary"), "{log}");
}

/// Pools and probes keep connections open.
#[tokio::test]
async fn a_rejected_head_is_logged_and_counted_although_its_client_does_not_close() {
    let mut edge = Edge::start(&settings::plain(""));
    let mut client = connect(edge.http[0]).await;
    client.send(b"GET /cb HTTP/1.1\r\nHost: auth.example.com\r\ncanary\x00: 1\r\n\r\n").await;
    assert_eq!(client.reply().await.unwrap().status, 400);
    edge.wait_for("\"malformed\"");
    let metrics = edge.metrics().await;
    assert!(metrics.get("requests_total{status=\"400\"}") > 0.5);
    drop(client);
    assert!(!edge.finish().contains("canary"));
}

/// HTTP/2 counts the fields after they were read.
#[tokio::test]
async fn too_many_header_fields_have_a_reason_in_the_log() {
    let (edge, authority) = Edge::over_tls("limits.header_fields = 20");
    let mut client = Http2::connect(&authority, edge.https[0], "localhost").await;
    let mut request = http::Request::get("https://localhost/oauth/callback?code=canary");
    for number in 0..30 {
        request = request.header(format!("x-{number}"), "1");
    }
    assert_eq!(client.request(request.body(()).unwrap(), b"").await.unwrap().status, 431);
    let (_, log) = edge.stop();
    assert_eq!(requests(&log)[0]["reason"], "header_fields", "{log}");
}

#[tokio::test]
async fn both_signals_shut_down_gracefully() {
    for signal in [Signal::TERM, Signal::INT] {
        let edge = Edge::start("listen.http = '127.0.0.1:0'");
        edge.signal(signal);
        let (status, log) = edge.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("drained"), "{log}");
    }
}

#[tokio::test]
async fn an_idle_client_does_not_delay_the_shutdown() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'\nshutdown.grace = '1h'");
    let mut idle = connect(edge.http[0]).await;
    idle.get("/oauth/callback").await.unwrap();
    edge.finish();
}

#[tokio::test]
async fn an_expired_certificate_is_served_and_logged() {
    let authority = Authority::new();
    let dir = TempDir::new().unwrap();
    authority.write_with(dir.path(), "edge", &["localhost"], expired);
    let mut edge = Edge::start_in(dir, &settings::tls(""), |_| {});
    let log = edge.wait_for("certificate_invalid");
    assert!(log.contains("has expired"), "{log}");
    // A reload does not repeat it.
    edge.signal(Signal::HUP);
    let log = edge.wait_for("\"reloaded\"");
    assert_eq!(log.matches("has expired").count(), 1, "{log}");
    let refused = connect_tls(&authority, edge.https[0], "localhost", &[]).await;
    assert!(refused.unwrap_err().to_string().contains("expired"));
    // Replaced by another one that has expired, and then by a valid one.
    let loaded = |log: &str| {
        let lines = log.lines().filter(|line| line.contains("certificate_loaded"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    authority.write_with(edge.dir(), "edge", &["localhost"], expired);
    until("it is read", async || loaded(&edge.stderr()).len() == 1).await;
    authority.write(edge.dir(), "edge", &["localhost"]);
    until("it is read", async || loaded(&edge.stderr()).len() == 2).await;
    let loaded = loaded(&edge.stderr());
    assert!(!loaded[0].contains("failed_for_s"), "{loaded:?}");
    assert!(loaded[1].contains("\"failed_for_s\":"), "{loaded:?}");
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
    let outcomes: Vec<String> = requests
        .iter()
        .map(|line| format!("{} {} {}", line["route"], line["outcome"], line["status"]))
        .collect();
    assert_eq!(
        outcomes,
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

/// The text log when a command cannot start; `{dir}` is replaced by the directory.
fn refusal(dir: &Path, arguments: &[&str], settings: &str, code: i32) -> String {
    let settings = settings.replace("{dir}", &dir.display().to_string());
    fs::write(dir.join("config.toml"), settings).unwrap();
    let mut command = command(dir);
    command.args(arguments).env("CALLBACK_EDGE_LOG__FORMAT", "text");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap().replace(&dir.display().to_string(), "{dir}")
}

#[test]
fn unusable_certificates_are_reported_with_the_reason() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), "a", &["a.example.com"]);
    authority.write(dir.path(), "b", &["b.example.com"]);
    let path = |name: &str| dir.path().join(name);
    fs::write(path("text.pem"), "hello").unwrap();
    fs::write(path("junk.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    fs::write(path("torn.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    let missing = "  caused by: No such file or directory (os error 2)\n\n\
                   hint: its directory exists: check the name of the file\n";
    let because = |why: &str| format!("  caused by: {why}\n\nhint: ");
    #[rustfmt::skip]
    let table = [
        ("missing.pem", "a.key", "read the certificate", missing.to_owned()),
        ("a.pem", "missing.key", "read the private key", missing.to_owned()),
        ("a.pem", "b.key", "use the private key", because("it does not match the certificate")),
        ("a.key", "a.key", "use the certificate", because("it is a private key")),
        ("text.pem", "a.key", "use the certificate", because("it has no `BEGIN CERTIFICATE` line")),
        ("junk.pem", "a.key", "use the certificate", because("its first `CERTIFICATE` block is not an X.509 certificate")),
        ("torn.pem", "a.key", "use the certificate", because("a `BEGIN` line has no matching `END` line")),
        ("a.pem", "a.pem", "use the private key", because("it is a certificate")),
    ];
    for (certificate, key, what, expected) in table {
        let settings = format!(
            "listen.http = '127.0.0.1:0'\nlisten.https = '127.0.0.1:0'\n\
             tls.certificate = '{{dir}}/{certificate}'\ntls.private_key = '{{dir}}/{key}'"
        );
        let (line, column, file) = match what {
            "read the certificate" | "use the certificate" => (3, 19, certificate),
            _ => (4, 19, key),
        };
        let head = format!(
            "error: cannot {what} file `{{dir}}/{file}`\n --> config.toml:{line}:{column}\n"
        );
        for arguments in [&["serve"][..], &["config", "check"]] {
            let printed = refusal(dir.path(), arguments, &settings, 64);
            assert!(printed.starts_with(&head), "{head}{printed}");
            assert!(printed.contains(&expected), "{expected}{printed}");
        }
    }
}

/// The errors of the configuration come first, and are those of `config check`.
#[test]
fn everything_that_prevents_the_start_is_reported_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let dir = TempDir::new().unwrap();
    let listeners = format!("listen.http = ['{address}', '192.0.2.1:8080']\n");
    let errors = "listen.https = '127.0.0.1:0'\nlog.level = 'loud'\n\
                  tls.certificate = 'missing.pem'\ntls.private_key = 'missing.key'";
    let settings = format!("{listeners}{errors}");
    let printed = refusal(dir.path(), &[], &settings, 64);
    assert_eq!(printed, refusal(dir.path(), &["config", "check"], &settings, 64));
    let lines: Vec<_> = printed.lines().filter(|line| line.starts_with(" -->")).collect();
    assert_eq!(
        lines,
        [3, 4, 5].map(|line| match line {
            3 => " --> config.toml:3:13".to_owned(),
            line => format!(" --> config.toml:{line}:19"),
        })
    );
    let output_text =
        refusal(dir.path(), &[], &listeners, 1).replace(&address.to_string(), "{taken}");
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let owner = format!("`{}` (process {})", name.trim_end(), std::process::id());
    let output_text = output_text.replace(&owner, "`{name}` (process {pid})");
    assert_eq!(
        output_text,
        "error: cannot listen on `{taken}` (`listen.http`)
  caused by: Address already in use (os error 98)
hint: `{name}` (process {pid}) listens there: stop it, or choose another port

error: cannot listen on `192.0.2.1:8080` (`listen.http`)
  caused by: Cannot assign requested address (os error 99)
hint: no interface of this machine has the address: use `0.0.0.0` or `[::]` to listen on all
"
    );
}

/// The settings are valid, so this is not a usage error.
#[test]
fn an_address_in_use_is_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = format!("listen.http = '{}'", taken.local_addr().unwrap());
    let dir = TempDir::new().unwrap();
    let output_text = refusal(dir.path(), &["serve"], &settings, 1);
    assert!(output_text.starts_with("error: cannot listen on `127.0.0.1:"), "{output_text}");
}

/// A socket that is bound and does not listen: no process is found.
#[test]
fn an_unknown_owner_of_a_port_is_not_guessed() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let dir = TempDir::new().unwrap();
    let output_text = refusal(dir.path(), &["serve"], &format!("listen.http = '{address}'"), 1);
    assert!(output_text.contains("hint: another process listens there"), "{output_text}");
}

/// Another server, by its own name.
#[tokio::test]
async fn the_server_that_has_the_port_is_named() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'");
    let dir = TempDir::new().unwrap();
    let settings = format!("listen.http = '0.0.0.0:{}'", edge.http[0].port());
    let output_text = refusal(dir.path(), &["serve"], &settings, 1);
    let owner = format!("`callback-edge` (process {}) listens there", edge.id());
    assert!(output_text.contains(&owner), "{output_text}");
}

/// Settings for one that reloads.
const TERMINAL: &str =
    "listen.http = '127.0.0.1:0'\nlisten.admin = '127.0.0.1:0'\nshutdown.grace = '5s'";

/// Makes the server a session's first process, on a terminal that the session controls. SIGHUP may be ignored
/// where the tests run, and a child inherits that.
const IN_A_SESSION: &str = "exec env --default-signal=HUP setsid --ctty";

/// Starts it on a terminal. The shell script ends with `"$0" "$@"`.
fn in_a_terminal(script: &str) -> (Edge, fs::File) {
    let (controller, user) = terminal(100);
    let edge = Edge::start_from_shell(TempDir::new().unwrap(), TERMINAL, script, |command| {
        command.stdin(user);
    });
    (edge, controller)
}

/// As with `docker run -t`, the server is the first process of its session.
#[tokio::test]
async fn sighup_reloads_while_the_terminal_is_open_and_ends_the_server_when_it_is_closed() {
    let (mut edge, controller) = in_a_terminal(&format!("{IN_A_SESSION} \"$0\" \"$@\""));
    edge.signal(Signal::HUP);
    edge.wait_for("\"reloaded\"");
    assert_eq!(connect(edge.http[0]).await.get("/oauth/callback").await.unwrap().status, 308);
    drop(controller);
    let (status, log) = edge.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("\"event\":\"draining\",\"signal\":\"SIGHUP\""), "{log}");
    assert!(log.contains("\"result\":\"drained\""), "{log}");
}

/// The shell is the first process of the session, and the server runs in the foreground.
#[tokio::test]
async fn the_server_ends_with_the_terminal_of_its_shell() {
    let script = format!("{IN_A_SESSION} /bin/sh -c '\"$0\" \"$@\"; true' \"$0\" \"$@\"");
    let (edge, controller) = in_a_terminal(&script);
    drop(controller);
    // The shell is killed, and is not waited for.
    until("it ends", async || edge.stderr().contains("\"result\":\"drained\"")).await;
    let log = edge.stderr();
    assert!(log.contains("\"event\":\"draining\",\"signal\":\"SIGHUP\""), "{log}");
}

/// nohup(1) ignores SIGHUP, so that the program survives its terminal.
#[tokio::test]
async fn with_nohup_the_server_outlives_its_terminal() {
    let script = "trap '' HUP; exec setsid --ctty \"$0\" \"$@\"";
    let (mut edge, controller) = in_a_terminal(script);
    drop(controller);
    edge.wait_for("\"reloaded\"");
    assert_eq!(connect(edge.http[0]).await.get("/oauth/callback").await.unwrap().status, 308);
    let log = edge.finish();
    assert!(log.contains("\"signal\":\"SIGTERM\""), "{log}");
}

/// As a service, which never had a terminal.
#[tokio::test]
async fn without_a_terminal_sighup_reloads() {
    let script = "exec setsid \"$0\" \"$@\" < /dev/null";
    let mut edge = Edge::start_from_shell(TempDir::new().unwrap(), TERMINAL, script, |_| {});
    for number in 1..=2 {
        edge.signal(Signal::HUP);
        let reloads = "reloads_total{result=\"success\"}";
        until("reloaded", async || edge.metrics().await.get(reloads) as i32 == number).await;
    }
    let log = edge.wait_for("\"reloaded\"");
    assert!(!log.contains("draining"), "{log}");
}

/// Every line is JSON with the name of its event.
fn events(log: &str) -> Vec<Value> {
    let event = |line: &str| -> Value {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}\n{log}"));
        assert!(event["event"].is_string(), "{line}");
        event
    };
    log.lines().map(event).collect()
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

/// Settings that are valid but cause a warning.
const WITH_WARNING: &str = "listen.http = '127.0.0.1:0'\ntls.hsts = '1y'\n\
     [[route]]\npath = '/cb'\ntarget = 'https://t.example/cb?key=canary-key'\n";

#[tokio::test]
async fn without_a_terminal_every_line_is_an_event() {
    let mut edge = Edge::start(WITH_WARNING);
    connect(edge.http[0]).await.get("/cb").await.unwrap();
    edge.rewrite(&format!("{WITH_WARNING}[lisen]\n"));
    edge.signal(Signal::HUP);
    edge.wait_for("reload_failed");
    edge.rewrite(WITH_WARNING);
    edge.signal(Signal::HUP);
    edge.wait_for("\"reloaded\"");
    let (_, log) = edge.stop();
    let events = events(&log);
    assert_eq!(
        names(&events),
        [
            "config_warning",
            "callback",
            "listening",
            "ready",
            "request",
            "config_warning",
            "config_error",
            "reload_failed",
            "config_warning",
            "reloaded",
            "draining",
            "stopped"
        ]
    );
    assert!(log.contains("https://t.example/cb?key=…") && !log.contains("canary-key"), "{log}");
    let warning = &events[0];
    assert_eq!((&warning["level"], &warning["line"]), (&json!("WARN"), &json!(2)), "{warning}");
    let error = &events[6];
    assert_eq!(error["level"], "ERROR");
    assert_eq!(error["problem"], "unknown key `lisen`");
    assert_eq!((&error["file"], &error["line"]), (&json!("config.toml"), &json!(6)));
    assert_eq!((&error["column"], &error["hint"]), (&json!(2), &json!("did you mean `[listen]`?")));
    assert!(error["note"].as_str().unwrap().starts_with("expected one of `"), "{error}");
}

/// What `serve` writes to a pipe when it cannot start.
fn refused(settings: &str, variables: &[(&str, &str)]) -> (i32, Vec<Value>) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config.toml"), settings).unwrap();
    let mut command = command(dir.path());
    let output = command.arg("serve").envs(variables.iter().copied()).output().unwrap();
    assert!(output.stdout.is_empty());
    let log = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), events(&log))
}

#[test]
fn without_a_terminal_every_error_of_the_start_is_an_event() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = WITH_WARNING.replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string());
    let variable = [("CALLBACK_EDGE_LIMITS__CONNECTIONS", "many")];
    for (settings, variables, code, expected) in [
        ("a =", &[][..], 64, &["config_error"][..]),
        ("[lisen]\n[[rout]]", &[], 64, &["config_error", "config_error"]),
        ("", &variable, 64, &["config_error"]),
        (
            "listen.http = 'off'\nlisten.https = '127.0.0.1:0'\ntls.certificate = 'a'\ntls.private_key = 'b'",
            &[],
            64,
            &["config_error", "config_error"],
        ),
        (&taken, &[], 1, &["config_warning", "config_error"]),
    ] {
        let (status, events) = refused(settings, variables);
        assert_eq!((status, names(&events)), (code, expected.to_vec()), "{settings}: {events:?}");
        let error = events.last().unwrap();
        assert!(error["problem"].is_string() && error["level"] == "ERROR", "{error}");
    }
    let (_, events) = refused("", &variable);
    assert_eq!(events[0]["variable"], "CALLBACK_EDGE_LIMITS__CONNECTIONS");
    let (_, events) = refused(&taken, &[]);
    assert_eq!(events[1]["cause"], "Address already in use (os error 98)");
}

/// The first errors are reported, the others counted.
#[test]
fn only_fifty_errors_are_reported() {
    let unknown = (0..70).map(|number| format!("unknown{number} = 1")).collect::<Vec<_>>();
    let (_, events) = refused(&unknown.join("\n"), &[]);
    assert_eq!(events.len(), 51);
    assert_eq!(events[50]["problem"], "and 20 more");
}

/// What `serve` writes to a terminal until it has shut down or cannot start.
fn on_stderr(settings: &str) -> (Option<i32>, String) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config.toml"), settings).unwrap();
    let (controller, user) = terminal(100);
    let mut command = command(dir.path());
    let mut child = command.arg("serve").stdin(Stdio::null()).stderr(user).spawn().unwrap();
    drop(command);
    let lines = Lines::of(controller);
    let started = Instant::now();
    let mut signaled = false;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < PATIENCE, "{}", lines.text());
        if !signaled && lines.text().contains("ready") {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            kill_process(pid, Signal::TERM).unwrap();
            signaled = true;
        }
        std::thread::yield_now();
    };
    // The reader thread ends with the terminal.
    while Arc::strong_count(&lines) > 1 {
        std::thread::yield_now();
    }
    (status.code(), lines.text())
}

#[test]
fn on_a_terminal_errors_have_the_configured_format() {
    let json = format!("log.format = 'json'\n{WITH_WARNING}");
    let (code, log) = on_stderr(&json);
    let all = ["config_warning", "callback", "listening", "ready", "draining", "stopped"];
    assert_eq!((code, names(&events(&log))), (Some(0), all.to_vec()));
    // A valid format counts, although other settings are invalid.
    let (code, log) = on_stderr(&format!("{json}[lisen]\n"));
    assert_eq!((code, names(&events(&log))), (Some(64), vec!["config_warning", "config_error"]));
    let (_, log) = on_stderr(WITH_WARNING);
    assert!(log.contains("warning:") && log.contains("ready; press Ctrl-C to stop"), "{log}");
}

#[tokio::test]
async fn configured_text_is_used_without_a_terminal() {
    let edge = Edge::start(&format!("log.format = 'text'\n{WITH_WARNING}"));
    let log = edge.finish();
    assert!(log.starts_with("warning: `tls.hsts` has no effect"), "{log}");
    assert!(log.contains("ready; press Ctrl-C to stop") && !log.contains("{\""), "{log}");
}
