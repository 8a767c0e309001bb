//! Turns of the connections that send many requests, so that the others do not wait for them.
//!
//! The tasks of a worker run one after the other, and a connection with many requests always has work:
//! with 200 of them, any other client would wait for 200 tasks at each of its steps. So such connections
//! wait in line, and only as many as there are workers run at a time. After each [`REQUESTS_PER_PASS`]
//! requests of theirs, all other tasks run, and what has just arrived at the sockets is read.
//!
//! Which connections those are, is part of their state (`state::Lifecycle`): a browser is none of them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many requests the connections in line may send to a worker before other tasks run: half a
/// millisecond of work. A hundredth of that is the cost of letting them run.
const REQUESTS_PER_PASS: u32 = 64;

/// What it costs to close a connection, in requests: most of it in the kernel.
const CLOSING: u32 = 2;

/// The line.
#[derive(Debug)]
pub(super) struct Turns {
    /// First in, first out. One permit for each worker.
    line: Arc<Semaphore>,
    workers: usize,
    /// Requests since other tasks ran.
    requests: AtomicU32,
}

/// A turn; it ends when it is dropped. Where none waits, it needs no permit.
pub(super) type Turn = Option<OwnedSemaphorePermit>;

/// The place of a connection in the line, while it waits there.
#[derive(Default)]
pub(super) struct Place(Option<Waiting>);

type Waiting = Pin<Box<dyn Future<Output = Turn> + Send>>;

impl Turns {
    /// The line for a runtime with so many workers.
    pub(super) fn new(workers: usize) -> Self {
        Self { line: Arc::new(Semaphore::new(workers)), workers, requests: AtomicU32::new(0) }
    }

    /// Waits for a turn.
    pub(super) fn poll_begin(&self, place: &mut Place, cx: &mut Context<'_>) -> Poll<Turn> {
        let mut waiting = if let Some(waiting) = place.0.take() {
            waiting
        } else {
            // The lock of the semaphore is only for those that have to wait.
            if self.line.available_permits() == self.workers {
                return Poll::Ready(None);
            }
            let line = Arc::clone(&self.line);
            Box::pin(async move { line.acquire_owned().await.ok() })
        };
        match waiting.as_mut().poll(cx) {
            Poll::Ready(turn) => Poll::Ready(turn),
            Poll::Pending => {
                place.0 = Some(waiting);
                Poll::Pending
            }
        }
    }

    /// Waits for a turn to close a connection, and counts that as served.
    pub(super) fn poll_closing(&self, place: &mut Place, cx: &mut Context<'_>) -> Poll<()> {
        let turn = ready!(self.poll_begin(place, cx));
        self.end(turn, CLOSING);
        Poll::Ready(())
    }

    /// The turn of a worker, until it is dropped.
    #[cfg(test)]
    pub(super) fn hold(&self) -> Turn {
        Arc::clone(&self.line).try_acquire_owned().ok()
    }

    /// Ends a turn in which so many requests were served.
    pub(super) fn end(&self, turn: Turn, requests: u32) {
        let sum = self.requests.fetch_add(requests, Relaxed).saturating_add(requests);
        if sum >= REQUESTS_PER_PASS {
            self.requests.store(0, Relaxed);
            // If there is none, each worker has a pass already.
            let turn = turn.or_else(|| Arc::clone(&self.line).try_acquire_owned().ok());
            let Some(turn) = turn else { return };
            tokio::spawn(async move {
                // A task that yields is resumed after the runtime has run the others and looked for
                // events, but before those that the events woke: hence twice.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                drop(turn);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::JoinSet;

    /// What hyper serves before it yields.
    const EACH: u32 = 16;

    async fn turn(turns: &Turns) -> Turn {
        let mut place = Place::default();
        poll_fn(|cx| turns.poll_begin(&mut place, cx)).await
    }

    /// Connections that always have requests, each counting the turns that it has had.
    fn flood(turns: &Arc<Turns>, connections: usize) -> (JoinSet<()>, Arc<Vec<AtomicU32>>) {
        let counts: Arc<Vec<AtomicU32>> = Arc::new((0..connections).map(|_| 0.into()).collect());
        let mut flood = JoinSet::new();
        for at in 0..connections {
            let (turns, counts) = (Arc::clone(turns), Arc::clone(&counts));
            flood.spawn(async move {
                loop {
                    let turn = turn(&turns).await;
                    counts[at].fetch_add(1, Relaxed);
                    turns.end(turn, EACH);
                    // As hyper does: the task is woken at once.
                    let mut polled = false;
                    let again = |cx: &mut Context<'_>| {
                        cx.waker().wake_by_ref();
                        if std::mem::replace(&mut polled, true) {
                            Poll::Ready(())
                        } else {
                            Poll::Pending
                        }
                    };
                    poll_fn(again).await;
                }
            });
        }
        (flood, counts)
    }

    fn sum(counts: &[AtomicU32]) -> u32 {
        counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Exchanges bytes with an echo, as a client with a server; returns how many requests of the flood were
    /// served during the longest exchange.
    async fn longest_exchange(counts: Arc<Vec<AtomicU32>>) -> u32 {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let mut byte = [0];
            while server.read_exact(&mut byte).await.is_ok() {
                server.write_all(&byte).await.unwrap();
            }
        });
        // At first, every connection has to take its place.
        while counts.iter().any(|count| count.load(Relaxed) == 0) {
            tokio::task::yield_now().await;
        }
        let mut longest = 0;
        for _ in 0..100 {
            let before = sum(&counts);
            client.write_all(b"x").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
            longest = longest.max((sum(&counts) - before) * EACH);
        }
        longest
    }

    /// In requests, not in time.
    #[tokio::test]
    async fn another_client_waits_for_few_requests_however_many_connections_are_in_line() {
        for connections in [1, 20, 200, 2000] {
            let turns = Arc::new(Turns::new(1));
            let (_flood, counts) = flood(&turns, connections);
            let before = sum(&counts);
            let longest = tokio::spawn(longest_exchange(Arc::clone(&counts))).await.unwrap();
            assert!(sum(&counts) > before + 100, "there is no flood");
            // For the echo, and for the client.
            let may = 2 * (REQUESTS_PER_PASS + EACH);
            assert!(longest <= may, "{connections} connections: {longest} requests");
        }
    }

    #[tokio::test]
    async fn connections_in_line_have_the_same_number_of_turns() {
        let turns = Arc::new(Turns::new(1));
        let (_flood, counts) = flood(&turns, 50);
        while sum(&counts) < 50 * 20 {
            tokio::task::yield_now().await;
        }
        let counts: Vec<u32> = counts.iter().map(|count| count.load(Relaxed)).collect();
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(most - least <= 1, "{counts:?}");
    }

    /// Whether a turn is free, or soon.
    async fn is_free(turns: &Turns) -> bool {
        tokio::time::timeout(Duration::from_secs(5), turn(turns)).await.is_ok()
    }

    #[tokio::test]
    async fn a_connection_that_ends_gives_back_its_turn_and_its_place() {
        let turns = Turns::new(1);
        let first = Arc::clone(&turns.line).try_acquire_owned().unwrap();
        let poll = |place: &mut Place| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            turns.poll_begin(place, &mut cx)
        };
        let (mut second, mut third) = (Place::default(), Place::default());
        assert!(poll(&mut second).is_pending() && poll(&mut third).is_pending());
        drop(second);
        drop(first);
        // It has been given the turn, and ends without having used it.
        drop(third);
        assert!(is_free(&turns).await);
        // A turn that ends with a pass is given back after it.
        let turn = turn(&turns).await;
        turns.end(turn, REQUESTS_PER_PASS);
        assert_eq!(turns.line.available_permits(), 0);
        assert!(is_free(&turns).await);
    }

    #[tokio::test]
    async fn after_so_many_closings_others_run() {
        let turns = Turns::new(1);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut closed = 0;
        while turns.poll_closing(&mut Place::default(), &mut cx).is_ready() {
            closed += 1;
        }
        assert_eq!(closed, REQUESTS_PER_PASS / CLOSING);
        assert!(is_free(&turns).await);
    }
}
