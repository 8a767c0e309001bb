//! The stream of a connection, between the socket or TLS and the protocol.

use super::handle::Handle;
use super::scan::{FrameScanner, HeadScanner};
use super::state::{Action, Event, Stage};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many bytes are read and discarded at most when a connection closes while bytes still arrive.
const DISCARD_LIMIT: usize = 256 * 1024;

/// What is read at a time while a connection hibernates.
const RESUME_READ: usize = 2048;

/// A stream that reports to the state of its connection what arrives, whether the client takes what is
/// written, and when this side closes. It closes so that the last response arrives.
#[derive(Debug)]
pub(super) struct ConnectionIo<S> {
    stream: S,
    handle: Arc<Handle>,
    scanner: Scanner,
    /// What was read to end the hibernation, or why that failed.
    resumed_with: Option<io::Result<Vec<u8>>>,
    stalled: bool,
    shutdown: Shutdown,
}

#[derive(Debug)]
enum Scanner {
    Http1(HeadScanner),
    Http2(FrameScanner),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shutdown {
    Open,
    Started,
    Lingering { discarded: usize },
    Complete,
}

/// What bytes are that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrived {
    /// The protocol reads them: requests or parts of them, or the end.
    Request,
    /// Empty lines between requests.
    Nothing,
    /// They follow the last request.
    TooLate,
}

impl<S> ConnectionIo<S> {
    pub(super) fn http1(stream: S, handle: Arc<Handle>) -> Self {
        Self::new(stream, handle, Scanner::Http1(HeadScanner::default()))
    }

    pub(super) fn http2(stream: S, handle: Arc<Handle>) -> Self {
        Self::new(stream, handle, Scanner::Http2(FrameScanner::default()))
    }

    fn new(stream: S, handle: Arc<Handle>, scanner: Scanner) -> Self {
        let shutdown = Shutdown::Open;
        Self { stream, handle, scanner, resumed_with: None, stalled: false, shutdown }
    }

    /// Reports bytes that were read.
    fn arrived(&mut self, bytes: &mut [u8]) -> io::Result<Arrived> {
        match &mut self.scanner {
            Scanner::Http1(scanner) if scanner.is_blank(bytes) => Ok(Arrived::Nothing),
            Scanner::Http1(scanner) => {
                let (heads, partial) = scanner.scan(bytes);
                Ok(match self.handle.on(Event::Read { heads, partial }) {
                    Action::Discard => Arrived::TooLate,
                    _ => Arrived::Request,
                })
            }
            Scanner::Http2(scanner) => {
                if scanner.scan(bytes) {
                    Ok(Arrived::Request)
                } else {
                    Err(io::ErrorKind::QuotaExceeded.into())
                }
            }
        }
    }

    /// Reports whether the client takes what is written. TLS buffers bytes, so that only a
    /// flush means that the client has taken them all.
    fn written<T>(&mut self, result: Poll<io::Result<T>>, flushed: bool) -> Poll<io::Result<T>> {
        if result.is_pending() && !self.stalled {
            self.stalled = true;
            self.handle.on(Event::WriteStalled);
        } else if result.is_ready() && flushed && self.stalled {
            self.stalled = false;
            self.handle.on(Event::WriteFlushed);
        }
        result
    }
}

impl<S: AsyncRead + Unpin> ConnectionIo<S> {
    /// Resolves when there is something to read, or with `false` at the end.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while self.resumed_with.is_none() {
            let mut bytes = [0; RESUME_READ];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            let bytes = buffer.filled_mut();
            let arrived = read.and_then(|()| {
                if bytes.is_empty() { Ok(Arrived::Request) } else { self.arrived(bytes) }
            });
            self.resumed_with = match arrived {
                Ok(Arrived::Request) => Some(Ok(bytes.to_vec())),
                Ok(Arrived::Nothing) => None,
                Ok(Arrived::TooLate) => Some(Ok(Vec::new())),
                Err(error) => Some(Err(error)),
            };
        }
        Poll::Ready(!matches!(&self.resumed_with, Some(Ok(bytes)) if bytes.is_empty()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ConnectionIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(resumed_with) = this.resumed_with.take() {
            let mut bytes = resumed_with?;
            let rest = bytes.split_off(buffer.remaining().min(bytes.len()));
            buffer.put_slice(&bytes);
            if !rest.is_empty() {
                this.resumed_with = Some(Ok(rest));
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        loop {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            let bytes = buffer.filled_mut().get_mut(before..).unwrap_or_default();
            let arrived = if bytes.is_empty() { Ok(Arrived::Request) } else { this.arrived(bytes) };
            if let Ok(Arrived::Request) = arrived {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
            arrived?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ConnectionIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.written(result, false)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.written(result, false)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_flush(cx);
        this.written(result, true)
    }

    /// Closes the sending side, then reads on until the client has closed too. Closing a socket with
    /// unread bytes resets it, and the reset overtakes the response (RFC 9112 §9.6). The state of the
    /// connection bounds the time.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.shutdown == Shutdown::Open {
            this.shutdown = Shutdown::Started;
            this.handle.on(Event::ShutdownStarted);
        }
        if this.shutdown == Shutdown::Started {
            let result = Pin::new(&mut this.stream).poll_shutdown(cx);
            ready!(this.written(result, true))?;
            this.shutdown = Shutdown::Lingering { discarded: 0 };
            this.handle.on(Event::ShutdownSent);
        }
        let mut waste = [0; 4096];
        while let Shutdown::Lingering { discarded } = this.shutdown {
            let mut buffer = ReadBuf::new(&mut waste);
            let ended = match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(read) => read.is_err() || buffer.filled().is_empty(),
                // Nothing more is waited for.
                Poll::Pending if this.handle.progress().0 == Stage::Closed => true,
                Poll::Pending => return Poll::Pending,
            };
            let discarded = discarded + buffer.filled().len();
            let ended = ended || discarded >= DISCARD_LIMIT;
            this.shutdown =
                if ended { Shutdown::Complete } else { Shutdown::Lingering { discarded } };
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use std::future::poll_fn;
    use std::io::IoSlice;
    use std::time::{Duration, Instant};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// The two sides of a connection.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    /// The client's side, and the server's side after `events`.
    async fn http1(events: &[Event]) -> (TcpStream, ConnectionIo<TcpStream>) {
        let (client, stream) = connected().await;
        let handle = Arc::new(Handle::new());
        for event in events {
            handle.on(*event);
        }
        (client, ConnectionIo::http1(stream, handle))
    }

    fn stage(io: &ConnectionIo<TcpStream>) -> Stage {
        io.handle.progress().0
    }

    const READY: Event = Event::Ready { multiplexed: false };

    #[tokio::test]
    async fn what_ends_a_hibernation_is_read_first_and_whole() {
        let (mut client, mut io) = http1(&[READY]).await;
        let early = tokio::time::timeout(Duration::ZERO, poll_fn(|cx| io.poll_readable(cx))).await;
        assert!(early.is_err());
        assert_eq!(stage(&io), Stage::AwaitingRequest);
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        assert!(poll_fn(|cx| io.poll_readable(cx)).await);
        assert_eq!(stage(&io), Stage::ReadingHead);
        client.write_all(b"Host: h\r\n\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut read = Vec::new();
        let mut byte = [0; 1];
        while io.read(&mut byte).await.unwrap() > 0 {
            read.extend(byte);
        }
        assert_eq!(read, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }

    #[tokio::test]
    async fn empty_lines_before_a_request_are_not_its_start() {
        const WAIT: Duration = Duration::from_millis(20);
        for hibernating in [false, true] {
            let idle = [READY, Event::Request, Event::Responded { last: false }];
            let (mut client, mut io) = http1(&idle).await;
            for _ in 0..3 {
                client.write_all(b"\r\n\n").await.unwrap();
                let early = if hibernating {
                    tokio::time::timeout(WAIT, poll_fn(|cx| io.poll_readable(cx))).await.is_ok()
                } else {
                    tokio::time::timeout(WAIT, io.read(&mut [0; 64])).await.is_ok()
                };
                assert!(!early);
                assert_eq!(stage(&io), Stage::Idle);
            }
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            client.shutdown().await.unwrap();
            let mut read = Vec::new();
            io.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, b"GET / HTTP/1.1\r\n\r\n");
            assert_eq!(stage(&io), Stage::ReadingHead);
        }
    }

    #[tokio::test]
    async fn the_end_of_a_connection_is_no_request() {
        let (client, mut io) = http1(&[READY]).await;
        drop(client);
        assert!(!poll_fn(|cx| io.poll_readable(cx)).await);
        assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(stage(&io), Stage::AwaitingRequest);
    }

    #[tokio::test]
    async fn nothing_that_arrives_after_the_last_response_is_read() {
        for hibernating in [false, true] {
            let last = Event::Responded { last: true };
            let (mut client, mut io) = http1(&[READY, Event::Request, last]).await;
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            client.shutdown().await.unwrap();
            if hibernating {
                poll_fn(|cx| io.poll_readable(cx)).await;
            }
            let mut read = Vec::new();
            io.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, b"");
        }
    }

    #[tokio::test]
    async fn a_flood_of_frames_is_an_error() {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let empty_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        for (frames, expected) in [(500, None), (2000, Some(io::ErrorKind::QuotaExceeded))] {
            let (mut client, stream) = connected().await;
            let mut io = ConnectionIo::http2(stream, Arc::new(Handle::new()));
            let bytes = [PREFACE, &empty_settings.repeat(frames)].concat();
            client.write_all(&bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let mut chunk = [0; 1000];
            let mut read = Vec::new();
            let ended = loop {
                match io.read(&mut chunk).await {
                    Ok(0) => break None,
                    Ok(count) => read.extend_from_slice(&chunk[..count]),
                    Err(error) => break Some(error.kind()),
                }
            };
            assert_eq!(ended, expected);
            assert!(ended.is_some() || read == bytes);
        }
    }

    /// Whether the state of the connection has a deadline for a write.
    fn is_stalled(io: &ConnectionIo<TcpStream>) -> bool {
        let long = Duration::from_hours(1);
        let limits = Limits {
            connections: 10,
            connections_per_address: 10,
            handshake_timeout: long,
            request_timeout: Duration::from_secs(15),
            idle_timeout: long,
            proxy_idle_timeout: long,
            connection_age: long,
            header_bytes: 65_536,
            header_fields: 100,
            query_bytes: 32_768,
            form_bytes: 32_768,
        };
        io.handle.deadline(&limits) < Instant::now() + long / 2
    }

    #[tokio::test]
    async fn a_write_that_stalled_is_over_with_the_flush() {
        let (mut client, mut io) = http1(&[]).await;
        io.write_all(b"x").await.unwrap();
        for _ in 0..2 {
            io.flush().await.unwrap();
            assert!(!is_stalled(&io));
        }
        let block = [0; 4096];
        while poll_fn(|cx| Poll::Ready(Pin::new(&mut io).poll_write(cx, &block).is_ready())).await {
        }
        assert!(is_stalled(&io));
        let reads = async {
            let mut waste = vec![0; 4096];
            while client.read(&mut waste).await.unwrap() > 0 {}
        };
        tokio::select! {
            written = io.write(&block) => assert!(written.unwrap() > 0),
            () = reads => {}
        }
        assert!(is_stalled(&io));
        io.flush().await.unwrap();
        assert!(!is_stalled(&io));
    }

    #[tokio::test]
    async fn vectored_writes_reach_the_client() {
        let (mut client, mut io) = http1(&[]).await;
        assert!(io.is_write_vectored());
        let slices = [IoSlice::new(b"ab"), IoSlice::new(b"cd")];
        assert_eq!(io.write_vectored(&slices).await.unwrap(), 4);
        drop(io);
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"abcd");
    }

    /// A socket that is closed with unread bytes resets the connection.
    #[tokio::test]
    async fn the_last_response_arrives_although_the_client_still_sends() {
        let (mut client, mut io) = http1(&[READY]).await;
        io.write_all(b"response").await.unwrap();
        let sends = async {
            client.write_all(&vec![0; 200 * 1024]).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let (closed, ()) = tokio::join!(io.shutdown(), sends);
        closed.unwrap();
        assert_eq!(stage(&io), Stage::Lingering);
        assert_eq!(io.stream.read(&mut [0; 1]).await.unwrap(), 0, "unread bytes");
        drop(io);
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"response");
    }

    /// It is over, but unread bytes would reset it.
    #[tokio::test]
    async fn a_connection_that_is_evicted_reads_what_has_arrived_and_waits_for_nothing() {
        let (mut client, mut io) = http1(&[READY, Event::Evict]).await;
        client.write_all(&[b'x'; 10_000]).await.unwrap();
        io.stream.readable().await.unwrap();
        io.shutdown().await.unwrap();
        let unread = io.stream.try_read(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(unread, Err(io::ErrorKind::WouldBlock));
    }

    #[tokio::test]
    async fn a_client_that_sends_for_ever_does_not_hold_the_connection() {
        let (mut client, mut io) = http1(&[READY]).await;
        let sends = async {
            loop {
                client.write_all(&[0; 4096]).await.unwrap();
            }
        };
        tokio::select! {
            closed = io.shutdown() => closed.unwrap(),
            () = sends => {}
        }
    }
}
