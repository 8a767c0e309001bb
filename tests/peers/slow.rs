//! slowhttptest in its modes: a normal client is served meanwhile, and each slow connection is closed
//! by the deadline of its stage.

use crate::peer::run;
use crate::support::{Bystander, Edge, until};

const SLOW: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_time_out_and_other_clients_are_served() {
    assert_time_out("-H", "first_request").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_forms_time_out_and_other_clients_are_served() {
    assert_time_out("-B", "body").await;
}

/// The rest of the response fits into the kernel's buffers, so the connection is only idle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_time_out_and_other_clients_are_served() {
    assert_time_out("-X", "idle").await;
}

async fn assert_time_out(mode: &'static str, stage: &str) {
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
    let output = attack.await.unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("YES"), "{stdout}");
    let series = format!("deadlines_total{{stage=\"{stage}\"}}");
    #[expect(clippy::cast_precision_loss, reason = "the number is small")]
    let most = SLOW as f64 * 0.9;
    until("all are closed", async || edge.metrics().await.get(&series) >= most).await;
    bystander.finish().await;
    edge.finish();
}
