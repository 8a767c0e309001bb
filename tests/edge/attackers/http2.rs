//! HTTP/2: frames that never end, arrive slowly, or are too many, and windows that never open.

use super::{
    Attack, DRIP, IDLE, LINGER, PATH, REQUEST, closed, deadline, drip, error, flood, never_reads,
    repeat, small_window,
};
use crate::support::frames::{self, frame};
use crate::support::{handshake, with_timeout};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// The flags of a complete request.
const WHOLE: u8 = frames::END_HEADERS | frames::END_STREAM;

/// The preface and settings of a client, and the header block of its first request.
fn opening_and(flags: u8, block: &[u8]) -> Vec<u8> {
    [frames::opening(&[]), frame(frames::HEADERS, flags, 1, block)].concat()
}

#[tokio::test]
async fn a_missing_preface_times_out() {
    let attack = Attack::new("h2, no preface").await;
    let mut stream = attack.tls("h2").await;
    let started = Instant::now();
    closed(&mut stream).await;
    attack.ended(started.elapsed(), REQUEST, &deadline("first_request")).await;
}

#[tokio::test]
async fn pings_do_not_keep_an_idle_connection_open() {
    let attack = Attack::new("h2, idle, PINGs").await;
    let stream = attack.tls("h2").await;
    let (mut sender, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(format!("https://localhost{PATH}")).body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    assert_eq!(with_timeout(response).await.unwrap().status(), 308);
    let started = Instant::now();
    let mut pace = tokio::time::interval(DRIP);
    with_timeout(async {
        while pings.ping(h2::Ping::opaque()).await.is_ok() {
            pace.tick().await;
        }
    })
    .await;
    let _ = with_timeout(connection).await;
    attack.ended(started.elapsed(), IDLE, &deadline("idle")).await;
}

#[tokio::test]
async fn a_closed_window_times_out() {
    let attack = Attack::new("h2, window 0").await;
    // SETTINGS_INITIAL_WINDOW_SIZE 0, then a request whose response has a body.
    let mut bytes = frames::opening(&[(4, 0)]);
    bytes.extend(frame(frames::HEADERS, WHOLE, 1, &frames::get("/canary-code")));
    let mut stream = attack.h2(&bytes).await;
    let started = Instant::now();
    closed(&mut stream).await;
    attack.ended(started.elapsed(), REQUEST, &deadline("response")).await;
}

#[tokio::test]
async fn a_closed_window_with_further_requests_times_out() {
    let attack = Attack::new("h2, window 0, further requests").await;
    let mut stream = attack.h2(&frames::opening(&[(4, 0)])).await;
    let started = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let write = async {
        for id in (1..).step_by(2) {
            let request = frame(frames::HEADERS, WHOLE, id, &frames::get("/canary-code"));
            if writer.write_all(&request).await.is_err() || writer.flush().await.is_err() {
                return;
            }
            pace.tick().await;
        }
    };
    with_timeout(async {
        tokio::select! { () = closed(&mut reader) => {}, () = write => {} }
    })
    .await;
    attack.ended(started.elapsed(), REQUEST, &deadline("response")).await;
}

#[tokio::test]
async fn a_continuation_flood_closes_the_connection() {
    let attack = Attack::new("CONTINUATION flood").await;
    let stream = attack.h2(&opening_and(0, &frames::get(PATH))).await;
    let started = Instant::now();
    // x: canary, without indexing.
    let field = b"\x00\x01x\x06canary".repeat(16);
    flood(stream, &frame(frames::CONTINUATION, 0, 1, &field)).await;
    attack.ended_by(started.elapsed(), REQUEST, &error("flood")).await;
}

#[tokio::test]
async fn slow_header_blocks_time_out() {
    let attack = Attack::new("slow CONTINUATION").await;
    let stream = attack.h2(&opening_and(0, &frames::get(PATH))).await;
    let started = Instant::now();
    // Fewer than a flood.
    let field = frame(frames::CONTINUATION, 0, 1, b"\x00\x01x\x01y");
    repeat(stream, &field, Some(REQUEST / 3)).await;
    attack.ended(started.elapsed(), REQUEST, &deadline("first_request")).await;
}

#[tokio::test]
async fn a_rapid_reset_flood_closes_the_connection() {
    let attack = Attack::new("rapid reset").await;
    let stream = attack.h2(&frames::opening(&[])).await;
    let mut bytes = Vec::new();
    for id in (1..40_000).step_by(2) {
        bytes.extend(frame(frames::HEADERS, WHOLE, id, &frames::get(PATH)));
        bytes.extend(frame(frames::RST_STREAM, 0, id, &8u32.to_be_bytes()));
    }
    let started = Instant::now();
    flood(stream, &bytes).await;
    attack.ended_by(started.elapsed(), REQUEST, &error("flood")).await;
}

#[tokio::test]
async fn a_ping_flood_closes_the_connection() {
    let attack = Attack::new("PING flood").await;
    let stream = attack.h2(&frames::opening(&[])).await;
    let started = Instant::now();
    flood(stream, &frame(frames::PING, 0, 0, b"8 bytes.").repeat(1000)).await;
    attack.ended_by(started.elapsed(), REQUEST, &error("flood")).await;
}

#[tokio::test]
async fn a_settings_flood_closes_the_connection() {
    let attack = Attack::new("SETTINGS flood").await;
    let stream = attack.h2(&frames::opening(&[])).await;
    let started = Instant::now();
    flood(stream, &frame(frames::SETTINGS, 0, 0, &[]).repeat(1000)).await;
    attack.ended_by(started.elapsed(), REQUEST, &error("flood")).await;
}

#[tokio::test]
async fn a_ping_flood_after_a_request_closes_the_connection() {
    let attack = Attack::new("PING flood, later").await;
    let stream = attack.h2(&opening_and(WHOLE, &frames::get(PATH))).await;
    let started = Instant::now();
    flood(stream, &frame(frames::PING, 0, 0, b"8 bytes.").repeat(1000)).await;
    attack.ended_by(started.elapsed(), IDLE, &error("flood")).await;
}

#[tokio::test]
async fn a_ping_flood_with_unread_responses_closes_the_connection() {
    let attack = Attack::new("PINGs, never reads").await;
    let stream = small_window(attack.https()).await;
    let client = attack.authority.client(&["h2"]);
    let mut stream = handshake(client, stream, "localhost").await.unwrap();
    stream.write_all(&frames::opening(&[])).await.unwrap();
    let started = Instant::now();
    let pings = frame(frames::PING, 0, 0, b"8 bytes.").repeat(1000);
    never_reads(stream, &pings, true).await;
    let took = started.elapsed();
    attack.ended_by(took, REQUEST, &error("flood")).await;
}

#[tokio::test]
async fn an_empty_data_flood_closes_the_connection() {
    let attack = Attack::new("empty DATA").await;
    let stream = attack.h2(&opening_and(frames::END_HEADERS, &frames::post(PATH))).await;
    let started = Instant::now();
    flood(stream, &frame(frames::DATA, 0, 1, &[]).repeat(100)).await;
    attack.ended_by(started.elapsed(), REQUEST, &error("flood")).await;
}

#[tokio::test]
async fn slow_forms_time_out() {
    let attack = Attack::new("h2, slow form").await;
    let stream = attack.h2(&opening_and(frames::END_HEADERS, &frames::post(PATH))).await;
    let started = Instant::now();
    drip(stream, &frame(frames::DATA, 0, 1, b"c")).await;
    // 408 for the form, then no request, then GOAWAY without a reaction to it.
    attack.ended_by(started.elapsed(), REQUEST + IDLE + LINGER, &deadline("body")).await;
}
