//! Visitors are served while forms that arrive slowly take all slots.

use super::PATH;
use crate::support::{Edge, Http1, MACHINE, until};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

const CONNECTIONS: usize = 2000;
const VISITORS: u8 = 100;

/// What a visitor may wait on a machine that is busy with the attack and other tests.
const WAIT: Duration = Duration::from_secs(3);

/// How often an attacker sends some bytes of a form: 8 a second reset the deadline of a silent client.
const DRIP: Duration = Duration::from_secs(1);

async fn connect_from(source: IpAddr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(address).await
}

/// Holds a slot with a slow form for as long as possible, then takes the next.
async fn hold(source: IpAddr, address: SocketAddr, first: String) {
    let head = "POST /oauth/callback HTTP/1.1\r\nHost: localhost\r\ncontent-length: 30000\r\n\
                content-type: application/x-www-form-urlencoded\r\n\r\n";
    loop {
        if let Ok(mut stream) = connect_from(source, address).await {
            let mut sent = stream.write_all(format!("{first}{head}").as_bytes()).await;
            while sent.is_ok() {
                tokio::time::sleep(DRIP).await;
                sent = stream.write_all(b"code=123").await;
            }
        }
        tokio::task::yield_now().await;
    }
}

/// The time until a visitor has its redirect.
async fn visit(source: IpAddr, address: SocketAddr, first: String) -> Option<Duration> {
    let started = Instant::now();
    let visit = async {
        let mut client = Http1::new(connect_from(source, address).await.ok()?);
        client.send(first.as_bytes()).await;
        client.get(PATH).await.filter(|reply| reply.status == 308)
    };
    tokio::time::timeout(WAIT, visit).await.ok()??;
    Some(started.elapsed())
}

/// Fills all slots by the attackers, then connects visitors one after the other.
async fn visitors_are_served(
    settings: &str,
    attackers: impl Iterator<Item = (IpAddr, String)>,
    visitor: impl Fn(u8) -> (IpAddr, String),
) {
    let _machine = MACHINE.write().await;
    let edge = Edge::plain(&format!(
        "limits.connections = {CONNECTIONS}\nlog.requests = false\n{settings}"
    ));
    let address = edge.http[0];
    let mut attack = JoinSet::new();
    for (source, first) in attackers {
        attack.spawn(hold(source, address, first));
    }
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let most = CONNECTIONS as f64 * 0.95;
    let active = "connections{state=\"active\"}";
    until("all slots are taken", async || edge.metrics().await.get(active) > most).await;
    let mut lost = Vec::new();
    let mut longest = Duration::ZERO;
    for number in 0..VISITORS {
        let (source, first) = visitor(number);
        match visit(source, address, first).await {
            Some(took) => longest = longest.max(took),
            None => lost.push(number),
        }
    }
    eprintln!("{} visitors lost, the longest wait {longest:?}", lost.len());
    assert!(lost.is_empty(), "these visitors were lost: {lost:?}");
    assert!(edge.metrics().await.get("connections_evicted_total") >= f64::from(VISITORS));
    attack.abort_all();
}

fn local(network: u8, host: usize) -> IpAddr {
    IpAddr::from([127, 0, network, u8::try_from(host + 1).unwrap()])
}

#[tokio::test]
async fn slow_forms_from_nine_addresses_block_no_visitor() {
    let attackers = (0..CONNECTIONS + 200).map(|number| (local(1, number % 9), String::new()));
    visitors_are_served("", attackers, |_| (local(0, 0), String::new())).await;
}

/// In one /24 with the visitors.
#[tokio::test]
async fn slow_forms_from_a_hundred_addresses_block_no_visitor() {
    let attackers =
        (0..CONNECTIONS + 200).map(|number| (local(0, 1 + number % 100), String::new()));
    visitors_are_served("", attackers, |_| (local(0, 0), String::new())).await;
}

#[tokio::test]
async fn slow_forms_from_an_ipv6_site_block_no_visitor() {
    let header = |address: String| format!("PROXY TCP6 {address} 2001:db8:ffff::1 1111 443\r\n");
    // Each connection has a /64 of its own.
    let attackers = (0..CONNECTIONS + 200)
        .map(|number| (local(0, 0), header(format!("2001:db8:1:{number:x}::1"))));
    let visitor =
        |number| (local(0, 0), header(format!("2001:db8:{:x}::1", 2 + u16::from(number))));
    visitors_are_served("listen.proxy_protocol = '127.0.0.0/8'", attackers, visitor).await;
}
