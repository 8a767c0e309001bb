//! The service on a machine that was booted for it, and clients that never stop asking.

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

/// A new certificate at the place where whoever obtains them puts them; root's alone.
pub(super) fn renew(machine: &Machine, authority: &Authority) {
    let dir = TempDir::new().unwrap();
    let (certificate, key) = authority.write(dir.path(), "edge", &["auth.example.com"]);
    machine.copy(&certificate, "/etc/callback-edge/fullchain.pem", 0o600);
    machine.copy(&key, "/etc/callback-edge/privkey.pem", 0o600);
}

pub(super) const MAIN_PROCESS: &str =
    "systemctl show --property MainPID --value callback-edge.service";

const OF_THE_UNITS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 443);

/// Clients that ask over and over, two on connections that they keep, two on new ones.
pub(super) struct Load {
    clients: Vec<JoinHandle<()>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    answered: AtomicUsize,
}

impl Load {
    pub(super) fn start(machine: &Machine, authority: &Arc<Authority>) -> Self {
        let counts = Arc::<Counts>::default();
        let clients = [true, true, false, false].map(|keeps| {
            let (authority, counts) = (Arc::clone(authority), Arc::clone(&counts));
            machine.in_its_network(async move || counts.keep_asking(&authority, keeps).await)
        });
        Self { clients: clients.into(), counts }
    }

    /// Waits until some more were answered.
    pub(super) fn goes_on(&self) {
        let answered = || self.counts.answered.load(Relaxed);
        let (waits, before) = (Instant::now(), answered());
        while answered() < before + 200 {
            assert!(waits.elapsed() < PATIENCE, "nobody is answered any more");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Panics unless every request was answered.
    pub(super) fn finish(self) {
        self.goes_on();
        self.counts.stop.store(true, Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
    }
}

impl Counts {
    async fn keep_asking(&self, authority: &Authority, keeps: bool) {
        while !self.stop.load(Relaxed) {
            let tls = connect_tls(authority, OF_THE_UNITS, "auth.example.com", &[]).await.unwrap();
            let mut client = Http1::new(tls);
            loop {
                let reply = callback(&mut client).await;
                self.answered.fetch_add(1, Relaxed);
                let last = reply.text("connection") == "close";
                if last || !keeps || self.stop.load(Relaxed) {
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

/// The certificate that is served, and where a callback leads.
pub(super) fn look(machine: &Machine, authority: &Arc<Authority>) -> (Vec<u8>, String) {
    let authority = Arc::clone(authority);
    let look = machine.in_its_network(async move || {
        let stream = connect_tls(&authority, OF_THE_UNITS, "auth.example.com", &[]).await.unwrap();
        let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        (certificate, callback(&mut Http1::new(stream)).await.location())
    });
    look.join().unwrap()
}

/// Whether nobody listens any more.
pub(super) fn is_refused(machine: &Machine) -> bool {
    let refused = async || TcpStream::connect(OF_THE_UNITS).await.is_err();
    machine.in_its_network(refused).join().unwrap()
}
