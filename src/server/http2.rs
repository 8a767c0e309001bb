//! An HTTP/2 connection that answers what came together with one write.
//!
//! hyper would spawn a task for each stream, and every one that ends makes a write of its own. Here
//! streams wait until the connection has taken all that arrived, and are then run where they are:
//! mostly an answer is there at once.

use super::guard::Watched;
use super::service::Edge;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::TokioIo;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite};

// For answers without bodies: a fraction of hyper's defaults serves any browser.
const STREAMS: u32 = 64;
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;
const SEND_BUFFER: usize = 32 * 1024;

/// An HTTP/2 connection and its streams.
pub(super) struct Http2<S: AsyncRead + AsyncWrite + Unpin> {
    connection: Pin<Box<Connection<S>>>,
    begun: Begun,
}

type Connection<S> = http2::Connection<TokioIo<Watched<S>>, Edge, Begun>;

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Http2<S> {
    pub(super) fn new(stream: S, edge: Edge) -> Self {
        let header_bytes = edge.shared.snapshot.load().settings.limits.header_bytes;
        let io = TokioIo::new(Watched::http2(stream, Arc::clone(&edge.activity)));
        let begun = Begun::default();
        let connection = http2::Builder::new(begun.clone())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
            .serve_connection(io, edge);
        Self { connection: Box::pin(connection), begun }
    }

    pub(super) fn graceful_shutdown(&mut self) {
        self.connection.as_mut().graceful_shutdown();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Future for Http2<S> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        loop {
            if let Poll::Ready(ended) = self.connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            let begun = self.begun.take();
            if begun.is_empty() {
                return Poll::Pending;
            }
            for mut stream in begun {
                // One that takes time gets a task, which asks again and is woken then.
                if stream.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                    tokio::spawn(stream);
                }
            }
        }
    }
}

/// Streams that have begun since the connection was last looked after.
#[derive(Clone, Default)]
struct Begun(Arc<Mutex<Vec<Stream>>>);

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Begun {
    fn take(&self) -> Vec<Stream> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begun {
    fn execute(&self, stream: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(stream));
    }
}
