use super::connect;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinHandle;

/// A well-behaved client that keeps asking, each time on a new connection, while others attack.
pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u32>,
}

impl Bystander {
    /// `first` is what a proxy would send before the request.
    pub(crate) fn start(address: SocketAddr, first: &'static [u8]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move {
                let mut answered = 0;
                let mut pace = tokio::time::interval(Duration::from_millis(20));
                while !stop.load(Relaxed) {
                    pace.tick().await;
                    let mut client = connect(address).await;
                    client.send(first).await;
                    let reply = client.get("/oauth/callback?code=canary-code").await;
                    assert_eq!(reply.map(|reply| reply.status), Some(308));
                    answered += 1;
                }
                answered
            }
        });
        Self { stop, task }
    }

    /// Panics unless every request was answered.
    pub(crate) async fn finish(self) -> u32 {
        self.stop.store(true, Relaxed);
        let answered = self.task.await.unwrap();
        assert!(answered > 0);
        answered
    }
}
