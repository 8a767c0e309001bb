//! Integration with service managers: notifications, watchdog, socket activation, kill and restart.

use crate::support::{Edge, connect, settings, until};
use rustix::process::Signal;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A script that passes stdin as the only activated socket.
pub(crate) const PASS_SOCKET: &str =
    r#"LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec "$0" "$@" 3<&0 0</dev/null"#;

const READY: &str = "READY=1\nSTATUS=ready\n";
const STOPPING: &str = "STOPPING=1\nSTATUS=draining\n";

/// The notification socket of a service manager.
struct Manager {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        Self { socket, dir }
    }

    fn start(&self, own: &str, variables: &[(&str, &str)]) -> Edge {
        let script = if variables.iter().any(|(name, _)| *name == "WATCHDOG_USEC") {
            r#"WATCHDOG_PID=$$; export WATCHDOG_PID; exec "$0" "$@""#
        } else {
            r#"exec "$0" "$@""#
        };
        let settings = settings::plain(own);
        Edge::start_from_shell(TempDir::new().unwrap(), &settings, script, |command| {
            command.env("NOTIFY_SOCKET", self.dir.path().join("notify"));
            command.envs(variables.iter().copied());
        })
    }

    /// The next message.
    fn message(&self) -> String {
        let mut message = [0; 512];
        let length = self.socket.recv(&mut message).expect("no message");
        String::from_utf8(message[..length].to_vec()).unwrap()
    }
}

#[tokio::test]
async fn start_reload_and_stop_are_notified() {
    let manager = Manager::new();
    let edge = manager.start("", &[]);
    assert_eq!(manager.message(), READY);
    edge.signal(Signal::HUP);
    let message = manager.message();
    let began = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&message);
    assert!(began.trim_end().parse::<u64>().unwrap() > 0, "{message}");
    assert_eq!(manager.message(), "READY=1\n");
    // With invalid settings it stays ready.
    edge.rewrite("nonsense = 1");
    edge.signal(Signal::HUP);
    assert!(manager.message().starts_with("RELOADING=1\n"));
    assert_eq!(manager.message(), "READY=1\n");
    let kept = "STATUS=ready; the reload failed, the previous configuration is in use\n";
    assert_eq!(manager.message(), kept);
    edge.rewrite(&settings::plain(""));
    edge.signal(Signal::HUP);
    assert!(manager.message().starts_with("RELOADING=1\n"));
    assert_eq!(manager.message(), "READY=1\n");
    assert_eq!(manager.message(), "STATUS=ready\n");
    edge.signal(Signal::TERM);
    assert_eq!(manager.message(), STOPPING);
    assert_eq!(edge.wait().0.code(), Some(0));
}

/// The start of a machine does not wait for a CA, but the status does not hide it.
#[tokio::test]
async fn without_a_certificate_the_status_is_not_ready() {
    let manager = Manager::new();
    let edge = manager.start(
        "
        listen.https = '127.0.0.1:0'
        public_url = 'https://auth.example.com'
        [tls.acme]
        agree_to_terms = true
        directory = 'https://127.0.0.1:1/directory'
        state_dir = '{dir}/acme'
        ",
        &[],
    );
    let first = manager.message();
    let waiting = "STATUS=not ready: no certificate";
    assert!(first.starts_with(&format!("READY=1\n{waiting}")), "{first}");
    let failed = "; auth.example.com: none yet, next order at ";
    let mut status = first;
    while !status.starts_with(&format!("{waiting}{failed}")) {
        status = manager.message();
        assert!(status.starts_with(waiting), "{status}");
    }
    edge.finish();
}

#[tokio::test]
async fn the_watchdog_is_notified_until_the_end() {
    let manager = Manager::new();
    let edge = manager.start("shutdown.delay = '600ms'", &[("WATCHDOG_USEC", "200000")]);
    assert_eq!(manager.message(), READY);
    let started = Instant::now();
    for _ in 0..4 {
        assert_eq!(manager.message(), "WATCHDOG=1\n");
    }
    assert!(started.elapsed() >= Duration::from_millis(250), "{:?}", started.elapsed());
    edge.signal(Signal::TERM);
    while manager.message() != STOPPING {}
    // The watchdog is active while the service stops.
    for _ in 0..3 {
        assert_eq!(manager.message(), "WATCHDOG=1\n");
    }
    assert_eq!(edge.wait().0.code(), Some(0));
}

#[tokio::test]
async fn a_watchdog_interval_of_zero_is_ignored() {
    let manager = Manager::new();
    let edge = manager.start("", &[("WATCHDOG_USEC", "0")]);
    assert_eq!(manager.message(), READY);
    assert_eq!(connect(edge.http[0]).await.get("/oauth/callback").await.unwrap().status, 308);
    edge.finish();
}

#[tokio::test]
async fn after_a_kill_the_same_port_serves_again_at_once() {
    let mut edge = Edge::start("listen.http = '127.0.0.1:0'");
    let address = edge.http[0];
    let settings = format!("listen.http = '{address}'");
    for _ in 0..3 {
        // Open connections leave the port in TIME_WAIT, where bind fails without SO_REUSEADDR.
        let mut client = connect(address).await;
        assert_eq!(client.get("/oauth/callback").await.unwrap().status, 308);
        edge.signal(Signal::KILL);
        let (status, _) = edge.wait();
        assert_eq!(status.code(), None);
        edge = Edge::start(&settings);
        assert_eq!(edge.http, [address]);
        assert_eq!(connect(address).await.get("/oauth/callback").await.unwrap().status, 308);
    }
}

#[tokio::test]
async fn an_activated_socket_is_never_lost() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let passed = OwnedFd::from(socket.try_clone().unwrap());
    let one = settings::plain("");
    let mut edge = Edge::start_from_shell(TempDir::new().unwrap(), &one, PASS_SOCKET, |command| {
        command.stdin(Stdio::from(passed));
    });
    edge.wait_for("socket_unclaimed");
    // It is configured now, but the certificate is missing.
    let wanted = settings::plain(&format!("listen.http = ['127.0.0.1:0', '{address}']"));
    let missing = "tls.certificate = 'missing.pem'\ntls.private_key = 'missing.key'";
    edge.rewrite(&format!("{wanted}\n{missing}"));
    edge.signal(Signal::HUP);
    edge.wait_for("reload_failed");
    edge.rewrite(&wanted);
    edge.signal(Signal::HUP);
    edge.wait_for("reloaded");
    let mut client = connect(address).await;
    assert_eq!(client.get("/oauth/callback").await.unwrap().status, 308);
    until("current", async || edge.metrics().await.get("settings_current") > 0.0).await;
    // It is removed, and configured again.
    let done = "reloads_total{result=\"success\"}";
    for (settings, count) in [(&one, 2.0), (&wanted, 3.0)] {
        edge.rewrite(settings);
        edge.signal(Signal::HUP);
        until("it is reloaded", async || edge.metrics().await.get(done) >= count).await;
    }
    let mut client = connect(address).await;
    assert_eq!(client.get("/oauth/callback").await.unwrap().status, 308);
    drop(socket);
}
