use super::connect;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinHandle;

/// A well-behaved client that sends requests during an attack, each on a new connection.
pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u32>,
}

impl Bystander {
    /// `first` is sent before each request, for example a PROXY header.
    pub(crate) fn start(address: SocketAddr, first: &'static [u8]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move {
                let mut responses = 0;
                let mut pace = tokio::time::interval(Duration::from_millis(20));
                while !stop.load(Relaxed) {
                    pace.tick().await;
                    let mut client = connect(address).await;
                    client.send(first).await;
                    let reply = client.get("/oauth/callback?code=canary-code").await;
                    assert_eq!(reply.map(|reply| reply.status), Some(308));
                    responses += 1;
                }
                responses
            }
        });
        Self { stop, task }
    }

    /// Panics unless every request got a response.
    pub(crate) async fn finish(self) -> u32 {
        self.stop.store(true, Relaxed);
        let responses = self.task.await.unwrap();
        assert!(responses > 0);
        responses
    }
}
