//! Hostile and malfunctioning servers.

use super::{Case, World};
use crate::fakes::{Act, behaviour, correct, tls};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const HEAD: &[u8] = b"HTTP/1.1 308 X\r\n";

/// Hostile and malfunctioning servers.
pub(super) async fn hostile(world: &World) -> Vec<Case> {
    let http1 = |act: fn() -> Act| {
        let config = world.config(&["http/1.1"]);
        async move { tls(config, behaviour(move |_| act())).await }
    };
    let expected: &'static [&'static str] = &["redirect.answer"];
    let mut cases = vec![
        world.at(
            "endless header fields",
            expected,
            http1(|| Act::Endless(HEAD.to_vec(), b"x-more: and more\r\n".to_vec())).await,
        ),
        world.at(
            "1 MiB of Location",
            expected,
            http1(|| {
                let location =
                    [b"HTTP/1.1 308 X\r\nlocation: ".to_vec(), vec![b'x'; 1 << 20]].concat();
                Act::Raw([location, b"\r\n\r\n".to_vec()].concat())
            })
            .await,
        ),
        world.at("binary garbage", expected, http1(|| Act::Raw((0..=255).collect())).await),
        world.at("closes without a response", expected, http1(|| Act::Raw(Vec::new())).await),
        world.at(
            "an endless page",
            &["redirect.page"],
            http1(|| Act::Endless(b"HTTP/1.1 200 X\r\n\r\n".to_vec(), vec![b'x'; 4096])).await,
        ),
    ];
    let mut slow = world.at("never responds", expected, http1(|| Act::Hang(Vec::new())).await);
    slow.timeout = Duration::from_secs(2);
    cases.push(slow);
    let mut drip = world.at(
        "drips",
        expected,
        http1(|| Act::Drip([HEAD.to_vec(), vec![b'x'; 100_000]].concat())).await,
    );
    drip.timeout = Duration::from_secs(2);
    cases.push(drip);
    cases.push(too_slow(world).await);
    let origin = world.origin.clone();
    let endless = behaviour(move |heard| {
        let location = correct(&origin, heard);
        if location.status == 404 {
            return Act::Reply(location);
        }
        let head = format!(
            "HTTP/1.1 {} X\r\nlocation: {}\r\ncache-control: no-store\r\n\r\n",
            location.status,
            location.location()
        );
        Act::Endless(head.into_bytes(), vec![b'x'; 4096])
    });
    let endless = tls(world.config(&["http/1.1"]), endless).await;
    cases.push(world.at("correct, but with an endless body", &[], endless));
    let alert = b"\x15\x03\x01\x00\x02\x02\x46";
    for (name, bytes) in [
        ("an old TLS version", alert.to_vec()),
        ("plain HTTP on the TLS port", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("garbage on the TLS port", (0..=255).collect()),
        ("closes on the TLS port", Vec::new()),
    ] {
        cases.push(world.at(name, &["tls.handshake"], sends(bytes).await));
    }
    cases
}

/// A server that responds once and then hangs.
async fn too_slow(world: &World) -> Case {
    let first = AtomicBool::new(true);
    let act = world.changed(move |_, correct| {
        if first.swap(false, Relaxed) { Act::Reply(correct) } else { Act::Hang(Vec::new()) }
    });
    let server = tls(world.config(&["http/1.1"]), behaviour(act)).await;
    let mut slow = world.at("too slow for the time limit", &["?redirect.complete"], server);
    slow.total = Duration::from_secs(3);
    // All other checks are unknown then.
    slow.selection.only = ["redirect.query", "redirect.complete"].map(str::to_owned).to_vec();
    slow
}

/// Sends these bytes to each client, whatever it sends, and closes the connection.
async fn sends(bytes: Vec<u8>) -> SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}
