//! Faults of the machine and the network: the server keeps serving, and reports them.

use crate::manager::PASS_SOCKET;
use crate::support::{Edge, Http1, connect, settings, until, with_timeout};
use rustix::process::Signal;
use std::fs::OpenOptions;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpStream;

const REQUEST: &str = "GET /oauth/callback?code=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";

async fn redirects(client: &mut Http1<TcpStream>) -> bool {
    client.get("/oauth/callback?code=1").await.is_some_and(|reply| reply.status == 308)
}

/// Each request logs a line, so that the pipe and then the queue fill up; a reload logs more.
#[tokio::test]
async fn an_unread_log_loses_lines_and_blocks_nothing() {
    let settings = settings::plain("");
    let edge = Edge::start_unread(&settings);
    let dropped = "log_lines_dropped_total";
    let batch = REQUEST.repeat(100);
    until("lines are dropped", async || {
        // Another one each time: a connection has a limit of requests.
        let mut client = connect(edge.http[0]).await;
        for _ in 0..20 {
            client.send(batch.as_bytes()).await;
            for _ in 0..100 {
                assert_eq!(client.reply().await.unwrap().status, 308);
            }
        }
        edge.metrics().await.get(dropped) > 0.0
    })
    .await;
    edge.rewrite("redirct = ''\n");
    edge.signal(Signal::HUP);
    let failed = "reloads_total{result=\"failure\"}";
    until("it is refused", async || edge.metrics().await.get(failed) >= 1.0).await;
    edge.rewrite(&settings);
    edge.signal(Signal::HUP);
    let done = "reloads_total{result=\"success\"}";
    until("it is reloaded", async || edge.metrics().await.get(done) >= 1.0).await;
    assert!(redirects(&mut connect(edge.http[0]).await).await);
    edge.finish();
}

#[tokio::test]
async fn a_log_on_a_full_disk_blocks_nothing() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), format!("listen.http = '{address}'")).unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut edge = Command::new("/bin/sh")
        .args(["-c", PASS_SOCKET, crate::support::process::PROGRAM, "serve"])
        .current_dir(dir.path())
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stderr(full)
        .spawn()
        .unwrap();
    for _ in 0..100 {
        assert!(redirects(&mut connect(address).await).await);
    }
    let pid = rustix::process::Pid::from_child(&edge);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(edge.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn after_sigstop_and_sigcont_deadlines_apply_and_waiting_clients_are_served() {
    let edge = Edge::plain(
        "
        limits.request_timeout = '500ms'
        limits.idle_timeout = '500ms'
        ",
    );
    let address = edge.http[0];
    let mut kept = connect(address).await;
    assert!(redirects(&mut kept).await);
    let mut slow = connect(address).await;
    slow.send(&REQUEST.as_bytes()[..30]).await;
    // Half of the waiting clients are connected already, and their deadlines run.
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(connect(address).await);
    }
    until("they are connected", async || edge.metrics().await.connections() >= 12.0).await;
    edge.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", edge.id());
    until("it is stopped", async || std::fs::read_to_string(&stat).unwrap().contains(") T ")).await;
    for _ in 0..10 {
        waiting.push(connect(address).await);
    }
    // The kernel accepts what they send meanwhile.
    for client in &mut waiting {
        client.send(REQUEST.as_bytes()).await;
    }
    let stopped = Instant::now();
    until("some time has passed", async || stopped.elapsed() > Duration::from_secs(2)).await;
    edge.signal(Signal::CONT);
    for mut client in waiting {
        assert_eq!(client.reply().await.expect("no response").status, 308);
    }
    let continued = Instant::now();
    assert!(kept.is_closed().await && slow.is_closed().await, "a deadline did not apply");
    assert!(continued.elapsed() < Duration::from_secs(2), "{:?}", continued.elapsed());
    assert!(redirects(&mut connect(address).await).await);
    edge.finish();
}

/// Nango's port is closed, and the host of the callback does not resolve.
#[tokio::test]
async fn without_nango_and_dns_it_redirects_and_the_self_check_fails_in_time() {
    let edge = Edge::plain(
        "
        public_url = 'https://nowhere.invalid'
        nango.url = 'https://127.0.0.1:1'
        self_check.every = '1s'
        self_check.follow = true
        ",
    );
    let mut client = connect(edge.http[0]).await;
    let reply = client.get("/oauth/callback?code=1").await.unwrap();
    assert_eq!(reply.location(), "https://127.0.0.1:1/oauth/callback?code=1");
    let mut admin = connect(edge.admin[0]).await;
    assert_eq!(admin.get("/readyz").await.unwrap().status, 200);
    let check = with_timeout(admin.get("/self-check")).await.unwrap();
    let text = String::from_utf8(check.body).unwrap();
    assert!(check.status == 503 && text.contains("dns.resolves"), "{} {text}", check.status);
    assert!(redirects(&mut client).await);
    edge.finish();
}

/// Incomplete heads, from as many clients as are allowed at once.
const HEADS: usize = 500;

#[tokio::test]
async fn incomplete_heads_stay_within_the_memory_of_the_limits() {
    let settings = settings::plain(&format!(
        "
        limits.connections = {HEADS}
        limits.connections_per_address = {HEADS}
        limits.request_timeout = '60s'
        "
    ));
    // Memory for what the limits allow, and not for much more: a larger allocation aborts the process.
    let script = r#"ulimit -v "$ADDRESS_SPACE"; exec "$0" "$@""#;
    let edge = Edge::start_from_shell(TempDir::new().unwrap(), &settings, script, |command| {
        command.env("ADDRESS_SPACE", ADDRESS_SPACE_KIB.to_string());
    });
    let head = format!("GET /oauth/callback HTTP/1.1\r\nHost: h\r\nx: {}", "a".repeat(60_000));
    let mut clients = Vec::new();
    for _ in 0..HEADS - 2 {
        let mut client = connect(edge.http[0]).await;
        client.send(head.as_bytes()).await;
        clients.push(client);
    }
    until("all are connected", async || edge.metrics().await.connections() >= 490.0).await;
    let resident = edge.metrics().await.get("process_resident_memory_bytes") / 1024.0 / 1024.0;
    eprintln!("{HEADS} heads of 60 KB: {resident:.0} MiB");
    assert!(resident < 160.0, "{resident} MiB");
    assert!(redirects(&mut connect(edge.http[0]).await).await);
    drop(clients);
    edge.finish();
}

/// Address space; the stacks of threads are much of it.
const ADDRESS_SPACE_KIB: u64 = 400_000;

/// They send no request, and each is closed.
#[tokio::test]
async fn short_connections_leak_no_files() {
    let edge = Edge::plain("");
    let files = async || edge.metrics().await.get("process_open_fds");
    let before = files().await;
    for round in 0..2_000 {
        let stream = TcpStream::connect(edge.http[0]).await.unwrap();
        if round % 2 == 0 {
            stream.set_zero_linger().unwrap();
        }
    }
    until("all are closed", async || files().await <= before).await;
    assert!(redirects(&mut connect(edge.http[0]).await).await);
    edge.finish();
}
