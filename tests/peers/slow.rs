//! slowhttptest in its modes: a polite client is served meanwhile, and each slow one is closed by
//! the deadline of its stage.

use crate::peer::run;
use crate::support::{Bystander, Edge, until};

const SLOW: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_are_closed_and_others_served() {
    are_closed("-H", "first_request").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_forms_are_closed_and_others_served() {
    are_closed("-B", "body").await;
}

/// What it does not take at once fits into the kernel's buffers, so that it is only idle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_are_closed_and_others_served() {
    are_closed("-X", "idle").await;
}

async fn are_closed(mode: &'static str, stage: &str) {
    let edge = Edge::plain(
        "
        limits.connections_per_address = 1000
        limits.request_timeout = '1s'
        limits.idle_timeout = '1s'
        log.requests = false
        ",
    );
    let bystander = Bystander::start(edge.http[0], b"");
    let url = format!("http://{}/oauth/callback?{}", edge.http[0], "x".repeat(2000));
    let dir = edge.dir().to_owned();
    let count = SLOW.to_string();
    let attack = tokio::task::spawn_blocking(move || {
        run(
            "slowhttptest",
            &dir,
            &[mode, "-c", &count, "-r", &count, "-i", "10", "-l", "6", "-u", &url],
        )
    });
    let said = attack.await.unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.contains("YES"), "{said}");
    let series = format!("deadlines_total{{stage=\"{stage}\"}}");
    #[expect(clippy::cast_precision_loss, reason = "two hundred fit")]
    let most = SLOW as f64 * 0.9;
    until("all are closed", async || edge.metrics().await.get(&series) >= most).await;
    bystander.finish().await;
    edge.finish();
}
