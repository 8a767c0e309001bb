//! The service on a booted machine, and clients that send requests continuously.

use crate::machine::Machine;
use crate::support::{Authority, Http1, PATIENCE, Reply, connect_tls};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Writes a new certificate where an ACME client writes it, readable only by root.
pub(super) fn renew(machine: &Machine, authority: &Authority) {
    let dir = TempDir::new().unwrap();
    let (certificate, key) = authority.write(dir.path(), "edge", &["auth.example.com"]);
    machine.copy(&certificate, "/etc/callback-edge/fullchain.pem", 0o600);
    machine.copy(&key, "/etc/callback-edge/privkey.pem", 0o600);
}

pub(super) const MAIN_PROCESS: &str =
    "systemctl show --property MainPID --value callback-edge.service";

const HTTPS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 443);

/// Clients that send requests continuously: two on persistent connections, two on new ones.
pub(super) struct Load {
    clients: Vec<JoinHandle<()>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    responses: AtomicUsize,
}

impl Load {
    pub(super) fn start(machine: &Machine, authority: &Arc<Authority>) -> Self {
        let counts = Arc::<Counts>::default();
        let clients = [true, true, false, false].map(|persistent| {
            let (authority, counts) = (Arc::clone(authority), Arc::clone(&counts));
            machine.run_in_network(async move || counts.send_requests(&authority, persistent).await)
        });
        Self { clients: clients.into(), counts }
    }

    /// Waits for 200 more responses.
    pub(super) fn wait_for_requests(&self) {
        let responses = || self.counts.responses.load(Relaxed);
        let (started, before) = (Instant::now(), responses());
        while responses() < before + 200 {
            assert!(started.elapsed() < PATIENCE, "no more responses");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Panics unless every request had a response.
    pub(super) fn finish(self) {
        self.wait_for_requests();
        self.counts.stop.store(true, Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
    }
}

impl Counts {
    async fn send_requests(&self, authority: &Authority, persistent: bool) {
        while !self.stop.load(Relaxed) {
            let tls = connect_tls(authority, HTTPS, "auth.example.com", &[]).await.unwrap();
            let mut client = Http1::new(tls);
            loop {
                let reply = callback(&mut client).await;
                self.responses.fetch_add(1, Relaxed);
                let last = reply.text("connection") == "close";
                if last || !persistent || self.stop.load(Relaxed) {
                    break;
                }
            }
        }
    }
}

async fn callback<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Http1<S>) -> Reply {
    let host = "Host: auth.example.com\r\n";
    let reply = client.request("GET", "/oauth/callback?code=1&state=2", host, b"").await;
    let reply = reply.expect("a callback was lost");
    assert_eq!(reply.status, 308);
    reply
}

/// The served certificate, and the `Location` of a callback.
pub(super) fn served(machine: &Machine, authority: &Arc<Authority>) -> (Vec<u8>, String) {
    let authority = Arc::clone(authority);
    let task = machine.run_in_network(async move || {
        let stream = connect_tls(&authority, HTTPS, "auth.example.com", &[]).await.unwrap();
        let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        (certificate, callback(&mut Http1::new(stream)).await.location())
    });
    task.join().unwrap()
}

/// Whether connections are refused.
pub(super) fn is_refused(machine: &Machine) -> bool {
    let refused = async || TcpStream::connect(HTTPS).await.is_err();
    machine.run_in_network(refused).join().unwrap()
}
