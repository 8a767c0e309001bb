//! The socket of a client, with its slot. What was read behind a PROXY header is read again. Its end takes a turn: when
//! thousands of clients close their connections together, the others do not wait until all of these are closed here,
//! too.

use super::handle::Handle;
use super::slots::Slot;
use super::turns::{Place, Turns};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reports its end to the reader only when the connection has a turn.
pub(super) struct ClientStream<S> {
    // Closed before the slot is free.
    stream: S,
    /// None on the admin listener.
    slot: Option<Slot>,
    handle: Arc<Handle>,
    turns: Arc<Turns>,
    /// What was read too early, and is read next.
    unread: Vec<u8>,
    end: End,
}

enum End {
    /// The client may send more.
    NotSeen,
    /// The place in line, if it has to wait there.
    Seen(Option<Place>),
    Reported,
}

impl<S> ClientStream<S> {
    pub(super) fn new(
        stream: S,
        slot: Option<Slot>,
        handle: Arc<Handle>,
        turns: Arc<Turns>,
    ) -> Self {
        Self { stream, slot, handle, turns, unread: Vec::new(), end: End::NotSeen }
    }

    pub(super) fn slot(&mut self) -> Option<&mut Slot> {
        self.slot.as_mut()
    }

    /// Lets these bytes, the last that were read, be read next.
    pub(super) fn unread(&mut self, bytes: Vec<u8>) {
        self.unread = bytes;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.unread.is_empty() {
            let rest = this.unread.split_off(this.unread.len().min(buffer.remaining()));
            buffer.put_slice(&this.unread);
            this.unread = rest;
            return Poll::Ready(Ok(()));
        }
        if let End::NotSeen = this.end {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            if buffer.filled().len() > before || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let slot = this.slot.as_mut().filter(|_| !this.handle.is_busy());
            let may_wait = slot.is_none_or(Slot::closes);
            this.end = End::Seen(may_wait.then(Place::default));
        }
        if let End::Seen(place) = &mut this.end {
            if let Some(place) = place {
                ready!(this.turns.poll_closing(place, cx));
            }
            this.end = End::Reported;
            if !this.handle.is_busy() {
                this.handle.close_at_once();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.end {
            // It is sent when the socket is closed, which follows.
            End::Reported => Poll::Ready(Ok(())),
            _ => Pin::new(&mut this.stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::slots::Slots;
    use super::super::state::Event;
    use super::*;
    use crate::observe::Metrics;
    use std::future::poll_fn;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    struct Accepted {
        client: TcpStream,
        stream: ClientStream<TcpStream>,
        slots: Arc<Slots>,
        turns: Arc<Turns>,
        handle: Arc<Handle>,
    }

    /// A connection that has the only slot, after these events.
    async fn accepted(events: &[Event]) -> Accepted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let slots = Slots::new(1, 1, Arc::new(Metrics::new()));
        let handle = Arc::new(Handle::new());
        for event in events {
            handle.on(*event);
        }
        let slot = slots.take(Ipv4Addr::LOCALHOST.into(), &handle);
        let turns = Arc::new(Turns::new(1));
        let stream = ClientStream::new(
            accepted.unwrap().0,
            Some(slot),
            Arc::clone(&handle),
            Arc::clone(&turns),
        );
        Accepted { client: client.unwrap(), stream, slots, turns, handle }
    }

    const READY: Event = Event::Ready { multiplexed: false };

    #[tokio::test]
    async fn the_end_of_a_waiting_connection_is_read_in_its_turn_and_its_slot_is_free_before() {
        let mut it = accepted(&[READY]).await;
        it.client.write_all(b"some").await.unwrap();
        it.client.shutdown().await.unwrap();
        let others = it.turns.hold();
        let mut read = [0; 8];
        assert_eq!(it.stream.read(&mut read).await.unwrap(), 4);
        let slots = Arc::clone(&it.slots);
        tokio::select! {
            biased;
            _ = it.stream.read(&mut read) => panic!("it has no turn"),
            () = slots.available() => {}
        }
        assert!(!it.handle.is_evicted());
        drop(others);
        assert_eq!(it.stream.read(&mut read).await.unwrap(), 0);
        assert!(it.handle.is_evicted());
        assert_eq!(it.stream.read(&mut read).await.unwrap(), 0);
        it.stream.shutdown().await.unwrap();
        drop(it.stream);
        assert_eq!(it.client.read(&mut read).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn where_too_many_wait_the_end_is_read_at_once() {
        let mut it = accepted(&[READY]).await;
        let others = it.turns.hold();
        let mut closing = Vec::new();
        loop {
            let handle = Arc::new(Handle::new());
            closing.push(it.slots.take(Ipv4Addr::LOCALHOST.into(), &handle));
            if !closing.last_mut().unwrap().closes() {
                break;
            }
        }
        drop(it.client);
        assert_eq!(it.stream.read(&mut [0]).await.unwrap(), 0);
        drop(others);
    }

    #[tokio::test]
    async fn a_busy_connection_keeps_its_slot_when_the_client_closes_its_side() {
        let mut it = accepted(&[READY, Event::Request]).await;
        it.client.shutdown().await.unwrap();
        assert_eq!(it.stream.read(&mut [0]).await.unwrap(), 0);
        let full = poll_fn(|cx| Poll::Ready(Box::pin(it.slots.available()).as_mut().poll(cx)));
        assert!(full.await.is_pending());
        assert!(!it.handle.is_evicted());
    }

    /// It is counted as a failed handshake, not as an eviction.
    #[tokio::test]
    async fn a_handshake_that_ends_is_not_evicted() {
        let mut it = accepted(&[]).await;
        drop(it.client);
        assert_eq!(it.stream.read(&mut [0]).await.unwrap(), 0);
        assert!(!it.handle.is_evicted());
    }

    #[tokio::test]
    async fn a_read_into_no_space_is_not_the_end() {
        let mut it = accepted(&[READY]).await;
        it.client.write_all(b"some").await.unwrap();
        assert_eq!(it.stream.read(&mut []).await.unwrap(), 0);
        assert_eq!(it.stream.read(&mut [0; 8]).await.unwrap(), 4);
    }
}
