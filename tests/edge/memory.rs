//! The address space is limited, and HTTP/2 clients make the server hold as much as they can.

use crate::support::frames::{self, frame};
use crate::support::heads::{HeldHeads, indexed, resident};
use crate::support::{Edge, MACHINE, certified, connect, connect_tls, settings};
use tokio::io::AsyncWriteExt;

/// In KiB, for `ulimit -v`: the program's code, its stacks, and what the limits allow.
const ADDRESS_SPACE: u32 = 400_000;
const CONNECTIONS: usize = 256;
const MIB: u64 = 1024 * 1024;

/// With 15 such connections it once aborted.
#[tokio::test]
async fn http2_heads_of_256_connections_stay_within_a_limited_address_space() {
    let _machine = MACHINE.write().await;
    let (authority, dir) = certified(&["localhost"]);
    let settings = settings::tls("limits.request_timeout = '60s'\nlog.requests = false");
    let script = r#"ulimit -v "$ADDRESS_SPACE"; exec "$0" "$@""#;
    let edge = Edge::start_from_shell(dir, &settings, script, |command| {
        command.env("ADDRESS_SPACE", ADDRESS_SPACE.to_string());
    });
    let address = edge.https[0];
    let before = resident(edge.id());
    // An eighth of them has complete heads whose forms never arrive, the others one head that never ends.
    let forms = HeldHeads::form("1,850 indexed fields", &indexed(1850));
    let unfinished = frame(
        frames::HEADERS,
        0,
        1,
        &[frames::post("/oauth/callback?code=1"), indexed(1850)].concat(),
    );
    let mut open = Vec::new();
    for number in 0..CONNECTIONS {
        open.push(if number % 8 == 0 {
            forms.connection(&authority, address).await
        } else {
            let mut stream = connect_tls(&authority, address, "localhost", &["h2"]).await.unwrap();
            let bytes = [frames::opening(&[]), unfinished.clone()].concat();
            stream.write_all(&bytes).await.unwrap();
            stream.flush().await.unwrap();
            stream
        });
    }
    let grown = resident(edge.id()).saturating_sub(before) / MIB;
    eprintln!("{CONNECTIONS} connections over HTTP/2: {grown} MiB");
    assert!(grown < 100, "{grown} MiB");
    let mut client = connect(edge.http[0]).await;
    assert_eq!(client.get("/oauth/callback?a").await.unwrap().status, 308);
    drop(open);
    edge.finish();
}
