//! An HTTP/2 connection that responds to requests that arrived together with one write.
//!
//! hyper would spawn a task for each stream, and each would cause a write of its own. Here
//! streams wait until the connection has read all that arrived, and run in the connection's task:
//! mostly a response is ready at once.

use super::driver::Protocol;
use super::io::ConnectionIo;
use super::service::CallbackService;
use futures_util::stream::{FuturesUnordered, Stream as _};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::TokioIo;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};

// For responses without bodies: a fraction of hyper's defaults serves any browser.

/// `h2` decodes all heads that have arrived before the first gets its response, and a head may take three
/// times its bytes in memory. A browser has one or two requests for a callback, and a proxy gets its
/// responses at once.
const STREAMS: u32 = 16;
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;
const SEND_BUFFER: usize = 32 * 1024;

/// What a field costs in a header list in addition to its name and value (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// An HTTP/2 connection and its streams.
pub(super) struct Http2<S: AsyncRead + AsyncWrite + Unpin> {
    connection: Pin<Box<Connection<S>>>,
    started: StreamExecutor,
    /// Streams whose responses are not complete yet.
    pending: FuturesUnordered<Stream>,
}

type Connection<S> = http2::Connection<TokioIo<ConnectionIo<S>>, CallbackService, StreamExecutor>;

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Http2<S> {
    pub(super) fn new(stream: S, service: CallbackService) -> Self {
        let (header_bytes, header_fields) = service.head_limits();
        let header_list = header_bytes + header_fields * FIELD_OVERHEAD;
        let io = TokioIo::new(ConnectionIo::http2(stream, service.handle()));
        let started = StreamExecutor::default();
        let connection = http2::Builder::new(started.clone())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(u32::try_from(header_list).unwrap_or(u32::MAX))
            .serve_connection(io, service);
        Self { connection: Box::pin(connection), started, pending: FuturesUnordered::new() }
    }

    /// Runs the streams as far as they go. Returns whether any may have something to write.
    fn run_streams(&mut self, cx: &mut Context<'_>) -> bool {
        let started = self.started.take();
        let mut progress = !started.is_empty();
        for mut stream in started {
            if stream.as_mut().poll(cx).is_pending() {
                self.pending.push(stream);
            }
        }
        while let Poll::Ready(Some(())) = Pin::new(&mut self.pending).poll_next(cx) {
            progress = true;
        }
        progress
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Protocol for Http2<S> {
    /// HTTP/2 announces which requests still get a response (RFC 9113 §6.8).
    fn announce_last(&mut self) {
        self.connection.as_mut().graceful_shutdown();
    }

    fn shutdown(&mut self) {
        self.connection.as_mut().graceful_shutdown();
    }

    /// Its state does not hibernate.
    fn hibernate(&mut self) {}
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Future for Http2<S> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        // The second time to write the responses.
        for _ in 0..2 {
            if let Poll::Ready(ended) = self.connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if !self.run_streams(cx) {
                return Poll::Pending;
            }
        }
        // More has arrived meanwhile: other connections are served first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Collects the streams that have started since the connection was last polled.
#[derive(Clone, Default)]
struct StreamExecutor(Arc<Mutex<Vec<Stream>>>);

impl StreamExecutor {
    fn take(&self) -> Vec<Stream> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(stream));
    }
}
