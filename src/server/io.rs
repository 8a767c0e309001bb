//! The stream of a connection, between the socket or TLS and the protocol.

use super::handle::Handle;
use super::scan::{FrameScanner, HeadScanner};
use super::state::{Action, Event};
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

    /// Reports bytes that were read. Returns whether the protocol may have them.
    fn arrived(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        match &mut self.scanner {
            Scanner::Http1(scanner) => {
                let (heads, partial) = scanner.scan(bytes);
                Ok(self.handle.on(Event::Read { heads, partial }) != Action::Discard)
            }
            Scanner::Http2(scanner) => {
                if scanner.scan(bytes) {
                    Ok(true)
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
    /// Resolves when there is something to read, including the end.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.resumed_with.is_none() {
            let mut bytes = [0; RESUME_READ];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            let bytes = buffer.filled_mut();
            let read = read.and_then(|()| {
                let wanted = bytes.is_empty() || self.arrived(bytes)?;
                Ok(if wanted { bytes.to_vec() } else { Vec::new() })
            });
            self.resumed_with = Some(read);
        }
        Poll::Ready(())
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
            if bytes.is_empty() || this.arrived(bytes)? {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
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
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer));
            let discarded = discarded + buffer.filled().len();
            let ended = read.is_err() || buffer.filled().is_empty() || discarded >= DISCARD_LIMIT;
            this.shutdown =
                if ended { Shutdown::Complete } else { Shutdown::Lingering { discarded } };
        }
        Poll::Ready(Ok(()))
    }
}
