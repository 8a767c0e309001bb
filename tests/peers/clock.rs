//! A clock that jumps while the server runs.

use crate::peer::libfaketime;
use crate::support::{Edge, Http1, Reply, certified, connect_tls, settings, until};
use std::fs;
use std::time::{Duration, Instant};

const IDLE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_clock_that_jumps_changes_no_timeout_and_stops_no_redirect() {
    let (authority, dir) = certified(&["localhost"]);
    let clock = dir.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    let settings = settings::tls("limits.idle_timeout = '500ms'");
    let edge = Edge::start_in(dir, &settings, |command| {
        command
            .env("LD_PRELOAD", libfaketime())
            .env("FAKETIME_TIMESTAMP_FILE", &clock)
            .env("FAKETIME_NO_CACHE", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
    });
    for offset in ["+0", "+9000d", "-9000d", "+1d"] {
        let stream = connect_tls(&authority, edge.https[0], "localhost", &[]).await.unwrap();
        let mut client = Http1::new(stream);
        let before = client.get("/oauth/callback?code=1").await.unwrap();
        fs::write(&clock, offset).unwrap();
        let after = client.get("/oauth/callback?code=1").await.unwrap();
        assert_eq!((before.status, after.status), (308, 308), "{offset}");
        // When the clock is set back, hyper keeps `Date` until the clock is later again.
        if offset == "+9000d" {
            let year = |reply: &Reply| reply.text("date").split(' ').nth(3).map(str::to_owned);
            assert_ne!(year(&before), year(&after), "the clock did not jump");
        }
        let idle = Instant::now();
        assert!(client.is_closed().await);
        let took = idle.elapsed();
        assert!(took > IDLE / 2 && took < IDLE * 4, "{offset}: idle for {took:?}");
    }
    until("the connection is closed", async || edge.metrics().await.connections() < 1.0).await;
    edge.finish();
}
