//! HTTP/2 and HTTP/1 clients that cost the server much more memory or CPU than they spend: header
//! fields of one byte each, pending requests, and floods of control frames.

use crate::crowds::cpu_seconds;
use crate::support::frames::{self, frame};
use crate::support::heads::{HeldHeads, STREAMS, acknowledged, indexed, peak, request, resident};
use crate::support::{
    Authority, Edge, Http1, Http2, MACHINE, certified, connect, connect_tls, settings, until,
    with_timeout,
};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Connections of an attack, and what all of them, and each, may make the process grow by.
const CONNECTIONS: u64 = 60;
const MAY_GROW: u64 = 64 * MIB;
const EACH_MAY_COST: u64 = 256 * KIB;

/// What may remain when the clients are gone.
const MAY_REMAIN: u64 = 8 * MIB;

/// Attacks, and checks what it costs, and that the memory is returned.
async fn attack(edge: &Edge, authority: &Authority, heads: &HeldHeads) {
    let address = edge.https[0];
    for _ in 0..4 {
        let mut client = Http2::connect(authority, address, "localhost").await;
        assert_eq!(client.get("/oauth/callback?a").await.unwrap().status, 308);
    }
    let before = resident(edge.id());
    let started = Instant::now();
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.push(heads.connection(authority, address).await);
    }
    let attacked = started.elapsed();
    let grown = peak(edge.id()).saturating_sub(before);
    drop(open);
    let mut remains = 0;
    let left = Instant::now();
    until("memory is returned", async || {
        // Freed pages are returned while others are served.
        for _ in 0..20 {
            let mut client = connect(edge.http[0]).await;
            assert!(client.get("/oauth/callback?a").await.is_some());
        }
        remains = resident(edge.id()).saturating_sub(before);
        remains < MAY_REMAIN || left.elapsed() > Duration::from_secs(15)
    })
    .await;
    eprintln!(
        "{}: {CONNECTIONS} connections in {attacked:.1?}: {} KiB more, {} KiB each; {} KiB \
         remain after {:.1?}",
        heads.name,
        grown / KIB,
        grown / CONNECTIONS / KIB,
        remains / KIB,
        left.elapsed(),
    );
    let name = heads.name;
    assert!(grown <= MAY_GROW, "{name}: {} MiB", grown / MIB);
    assert!(grown <= EACH_MAY_COST * CONNECTIONS, "{name}: {} KiB each", grown / CONNECTIONS / KIB);
    assert!(remains < MAY_REMAIN, "{name}: {} MiB remain", remains / MIB);
}

async fn forms(heads: HeldHeads) {
    let _machine = MACHINE.write().await;
    let (edge, authority) = Edge::over_tls("log.requests = false");
    attack(&edge, &authority, &heads).await;
    edge.finish();
}

#[tokio::test]
async fn forms_with_more_indexed_fields_than_allowed_cost_little() {
    // As many as fit into 64 KiB of a header list: each counts 32 bytes and its name.
    forms(HeldHeads::form("1,850 indexed fields", &indexed(1850))).await;
}

#[tokio::test]
async fn forms_with_as_many_indexed_fields_as_allowed_cost_little() {
    forms(HeldHeads::form("90 indexed fields", &indexed(90))).await;
}

#[tokio::test]
async fn forms_with_long_fields_cost_little() {
    let field = frames::literal("x", &"v".repeat(48 << 10));
    forms(HeldHeads::form("a field of 48 KiB", &field)).await;
}

/// The response to a form needs the query: the number of pending forms bounds the memory.
#[tokio::test]
async fn forms_with_long_queries_cost_little() {
    let mut heads = HeldHeads::form("a query of 24 KiB", &[]);
    heads.block = frames::post(&format!("/oauth/callback?{}", "q".repeat(24 << 10)));
    forms(heads).await;
}

#[tokio::test]
async fn nearly_complete_forms_cost_little() {
    let mut heads = HeldHeads::form("partial forms", &[]);
    // Within the window of a connection, 128 KiB.
    heads.body = vec![b'a'; 1900];
    forms(heads).await;
}

#[tokio::test]
async fn pending_self_checks_cost_little() {
    let _machine = MACHINE.write().await;
    // A server that accepts and never responds.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let public = silent.local_addr().unwrap().port();
    let (authority, dir) = certified(&["localhost"]);
    let settings = settings::tls(&format!(
        "
        public_url = 'https://localhost:{public}'
        listen.admin = 'off'
        log.requests = false
        "
    ));
    let edge = Edge::start_in(dir, &settings, |_| {});
    // The memory of the one run that all wait for is not a cost of the attack.
    let mut first = Http2::connect(&authority, edge.https[0], "localhost").await;
    let first = tokio::spawn(async move { first.get("/self-check").await });
    // The connection stays open, so that the run lasts.
    let _open = with_timeout(silent.accept()).await.unwrap();
    for (name, fields) in [("self-checks, 1,850 fields", 1850), ("self-checks, 90 fields", 90)] {
        let block = [frames::get("/self-check"), indexed(fields)].concat();
        let heads = HeldHeads { name, block, end: frames::END_STREAM, body: Vec::new() };
        attack(&edge, &authority, &heads).await;
    }
    first.abort();
    edge.finish();
}

#[tokio::test]
async fn pending_http1_heads_cost_little() {
    let _machine = MACHINE.write().await;
    let edge = Edge::plain("log.requests = false");
    connect(edge.http[0]).await.get("/oauth/callback").await.unwrap();
    let before = resident(edge.id());
    let head = format!(
        "POST /oauth/callback HTTP/1.1\r\nHost: localhost\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: 6\r\n{}\r\n",
        format!("a:{}\r\n", "v".repeat(600)).repeat(90)
    );
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = connect(edge.http[0]).await;
        client.send(head.as_bytes()).await;
        open.push(client);
    }
    #[expect(clippy::cast_precision_loss, reason = "sixty")]
    let all = CONNECTIONS as f64;
    let active = "connections{state=\"active\"}";
    until("all are connected", async || edge.metrics().await.get(active) >= all).await;
    let grown = peak(edge.id()).saturating_sub(before);
    eprintln!(
        "HTTP/1, heads of 55 kB that wait for a form: {} KiB each",
        grown / CONNECTIONS / KIB
    );
    assert!(grown <= EACH_MAY_COST * CONNECTIONS, "{} KiB each", grown / CONNECTIONS / KIB);
    edge.finish();
}

#[tokio::test]
async fn more_header_fields_than_the_limit_are_refused() {
    for (own, limit) in [("", 100), ("limits.header_fields = 20", 20)] {
        let (edge, authority) = Edge::over_tls(own);
        let plain = Edge::plain(own);
        for same in [true, false] {
            let name = |number: usize| if same { "x".to_owned() } else { format!("x{number}") };
            for (surplus, status) in [(0, 308), (1, 431), (50, 431)] {
                // HTTP/1 has `Host` in addition; in HTTP/2 that is not a field.
                let fields: Vec<String> =
                    (1..limit + surplus).map(|number| format!("{}: 1\r\n", name(number))).collect();
                let fields = fields.concat();
                let tls = connect_tls(&authority, edge.https[0], "localhost", &[]).await.unwrap();
                let over_tls =
                    Http1::new(tls).request("GET", "/oauth/callback", &fields, b"").await;
                let over_tcp = connect(plain.http[0])
                    .await
                    .request("GET", "/oauth/callback", &fields, b"")
                    .await;
                for reply in [over_tls, over_tcp] {
                    let got = reply.map(|reply| reply.status);
                    assert_eq!(got, Some(status), "HTTP/1, limit {limit} and {surplus}, {same}");
                }
                let mut request = http::Request::get("https://localhost/oauth/callback");
                for number in 0..limit + surplus {
                    request = request.header(name(number), "1");
                }
                let mut client = Http2::connect(&authority, edge.https[0], "localhost").await;
                let reply = client.request(request.body(()).unwrap(), b"").await.unwrap();
                assert_eq!(reply.status, status, "HTTP/2, limit {limit} and {surplus}, {same}");
                // The connection is still served.
                assert_eq!(client.get("/oauth/callback").await.unwrap().status, 308);
            }
        }
        let counted = edge.metrics().await.get("requests_total{status=\"431\"}");
        assert!((counted - 8.0).abs() < 0.5, "{counted} of 8 refusals are counted");
        edge.finish();
        plain.finish();
    }
}

/// How long a flood may last, and how much CPU it may use.
const FLOOD_ENDS: Duration = Duration::from_secs(5);
const FLOOD_MAY_USE: f64 = 1.0;

/// Sends `first`, then `frames` repeatedly, until the server closes; checks how soon and at what cost
/// that is, and the reason under which it is counted.
async fn flood(name: &str, first: &[u8], frames: &[u8], reason: &str) {
    let _machine = MACHINE.write().await;
    // No other deadline ends it.
    let (edge, authority) = Edge::over_tls(
        "
        limits.request_timeout = '60s'
        limits.idle_timeout = '60s'
        log.requests = false
        ",
    );
    let mut stream = connect_tls(&authority, edge.https[0], "localhost", &["h2"]).await.unwrap();
    stream.write_all(&[&frames::opening(&[]), first].concat()).await.unwrap();
    stream.write_all(&frame(frames::PING, 0, 0, b"8 bytes.")).await.unwrap();
    acknowledged(&mut stream).await;
    let before = cpu_seconds(edge.id());
    let started = Instant::now();
    let bytes = frames.repeat(16 * 1024 / frames.len());
    let mut sent = 0;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        while writer.write_all(&bytes).await.is_ok() && writer.flush().await.is_ok() {
            sent += bytes.len();
        }
    };
    let read = async {
        let mut waste = vec![0; 64 << 10];
        while !matches!(reader.read(&mut waste).await, Ok(0) | Err(_)) {}
    };
    let ended = tokio::time::timeout(FLOOD_ENDS, async {
        tokio::select! { () = write => {}, () = read => {} }
    })
    .await;
    let (took, used) = (started.elapsed(), cpu_seconds(edge.id()) - before);
    let count = sent / frames.len();
    eprintln!("{name}: {took:.1?}, {used:.2} s of CPU, {count} frames");
    assert!(
        ended.is_ok(),
        "{name}: still open after {took:.1?}, {used:.2} s of CPU, {count} frames"
    );
    assert!(used < FLOOD_MAY_USE, "{name}: {used} s of CPU");
    let series = format!("connection_errors_total{{reason=\"{reason}\"}}");
    until(&series, async || edge.metrics().await.get(&series) > 0.5).await;
    edge.finish();
}

fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(frames::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn priority(stream: u32, on: u32) -> Vec<u8> {
    frame(frames::PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[16]].concat())
}

/// A pending form on stream 1.
fn open_stream() -> Vec<u8> {
    request(1, 0, &frames::post("/oauth/callback"))
}

/// A request on stream 1 that gets its response.
fn closed_stream() -> Vec<u8> {
    request(1, frames::END_STREAM, &frames::get("/oauth/callback"))
}

#[tokio::test]
async fn a_settings_flood_closes_the_connection() {
    flood("SETTINGS", &[], &frame(frames::SETTINGS, 0, 0, &[]), "flood").await;
}

#[tokio::test]
async fn a_flood_of_window_settings_closes_the_connection() {
    // SETTINGS_INITIAL_WINDOW_SIZE: every open stream is visited.
    let [small, large] = [1000u32, 60_000].map(|size| {
        frame(frames::SETTINGS, 0, 0, &[&4u16.to_be_bytes()[..], &size.to_be_bytes()].concat())
    });
    let streams: Vec<u8> = (1..2 * STREAMS)
        .step_by(2)
        .flat_map(|id| request(id, 0, &frames::post("/oauth/callback")))
        .collect();
    flood("SETTINGS, windows", &streams, &[small, large].concat(), "flood").await;
}

#[tokio::test]
async fn a_ping_flood_closes_the_connection() {
    flood("PING", &[], &frame(frames::PING, 0, 0, b"8 bytes."), "flood").await;
}

#[tokio::test]
async fn a_flood_of_ping_acknowledgements_closes_the_connection() {
    flood("PING ACK", &[], &frame(frames::PING, frames::ACK, 0, b"8 bytes."), "flood").await;
}

#[tokio::test]
async fn a_priority_flood_on_an_open_stream_closes_the_connection() {
    flood("PRIORITY, open", &open_stream(), &priority(1, 0), "flood").await;
}

#[tokio::test]
async fn a_priority_flood_on_a_closed_stream_closes_the_connection() {
    flood("PRIORITY, closed", &closed_stream(), &priority(1, 0), "flood").await;
}

#[tokio::test]
async fn a_priority_flood_on_idle_streams_closes_the_connection() {
    let frames: Vec<u8> = (101..301).step_by(2).flat_map(|id| priority(id, 0)).collect();
    flood("PRIORITY, idle", &[], &frames, "flood").await;
}

#[tokio::test]
async fn a_window_update_flood_on_the_connection_closes_it() {
    flood("WINDOW_UPDATE, connection", &[], &window_update(0, 1), "flood").await;
}

#[tokio::test]
async fn a_window_update_flood_on_an_open_stream_closes_the_connection() {
    flood("WINDOW_UPDATE, open", &open_stream(), &window_update(1, 1), "flood").await;
}

#[tokio::test]
async fn a_window_update_flood_on_a_closed_stream_closes_the_connection() {
    flood("WINDOW_UPDATE, closed", &closed_stream(), &window_update(1, 1), "flood").await;
}

/// RFC 9113 §5.1: a connection error.
#[tokio::test]
async fn a_window_update_on_an_idle_stream_closes_the_connection() {
    flood("WINDOW_UPDATE, idle", &[], &window_update(101, 1), "protocol").await;
}

/// RFC 9113 §5.5: frames of unknown types are ignored, but their number is limited.
#[tokio::test]
async fn a_flood_of_unknown_frames_closes_the_connection() {
    flood("unknown type", &[], &frame(0x42, 0, 0, b""), "flood").await;
}

#[tokio::test]
async fn a_priority_update_flood_closes_the_connection() {
    // RFC 9218 §7.1, as browsers send them.
    let update = frame(0x10, 0, 0, &[&1u32.to_be_bytes()[..], b"u=1"].concat());
    flood("PRIORITY_UPDATE", &[], &update, "flood").await;
}

/// A client that sends the usual control frames with each request does not count as a flood.
#[tokio::test]
async fn control_frames_with_requests_are_not_a_flood() {
    let (edge, authority) = Edge::over_tls("log.requests = false");
    let mut stream = connect_tls(&authority, edge.https[0], "localhost", &["h2"]).await.unwrap();
    // As Firefox did until 2023: a tree of priorities, and a large window.
    let mut bytes = frames::opening(&[(3, 100), (4, 131_072)]);
    bytes.extend(window_update(0, 12_517_377));
    bytes.extend([3, 5, 7, 9, 11].into_iter().flat_map(|id| priority(id, 0)));
    bytes.extend(frame(frames::SETTINGS, frames::ACK, 0, &[]));
    stream.write_all(&bytes).await.unwrap();
    for number in 0..500 {
        let id = 13 + 2 * number;
        let mut bytes = request(id, frames::END_STREAM, &frames::get("/oauth/callback?code=1"));
        bytes.extend([priority(id, 0), window_update(0, 100), window_update(id, 100)].concat());
        bytes.extend(frame(frames::PING, 0, 0, b"8 bytes."));
        stream.write_all(&bytes).await.unwrap();
        // A client must not open more streams than the server allows, so it waits for the response too.
        let (mut acknowledged, mut responded) = (false, false);
        while !acknowledged || !responded {
            let mut head = [0; 9];
            with_timeout(stream.read_exact(&mut head)).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            with_timeout(stream.read_exact(&mut payload)).await.unwrap();
            acknowledged |= (head[3], head[4] & frames::ACK) == (frames::PING, frames::ACK);
            responded |= head[3] == frames::HEADERS && head[5..] == id.to_be_bytes();
        }
    }
    let responses = edge.metrics().await.get("requests_total{status=\"308\"}");
    assert!((responses - 500.0).abs() < 0.5, "{responses} of 500 responses");
    // It is still served.
    let whole = request(2001, frames::END_STREAM, &frames::get("/oauth/callback?code=1"));
    stream.write_all(&whole).await.unwrap();
    let mut head = [0; 9];
    with_timeout(stream.read_exact(&mut head)).await.expect("it was closed");
    assert_ne!(head[3], frames::GOAWAY);
    edge.finish();
}
