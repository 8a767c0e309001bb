//! An HTTP/1 connection that owns no buffers while it waits.
//!
//! hyper holds 16 KiB for as long as a connection lives, and most of its life it waits. One that
//! has waited for a while is taken apart, and put together again when something comes.

use super::guard::Watched;
use super::service::Edge;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};

/// An HTTP/1 connection, at work or at rest: one of the two is there.
pub(super) struct Http1<S: AsyncRead + AsyncWrite + Unpin> {
    working: Option<Pin<Box<Working<S>>>>,
    resting: Option<Box<(Watched<S>, Edge)>>,
}

type Working<S> = http1::Connection<TokioIo<Watched<S>>, Edge>;

impl<S: AsyncRead + AsyncWrite + Unpin> Http1<S> {
    pub(super) fn new(stream: S, edge: Edge) -> Self {
        let watched = Watched::http1(stream, Arc::clone(&edge.activity));
        Self { working: Some(working(watched, edge)), resting: None }
    }

    /// Gives its buffers back until something comes. For when no request is arriving or being
    /// answered, and the client has taken all answers; what it has sent beyond them is kept.
    pub(super) fn rest(&mut self) {
        if let Some(connection) = self.working.take() {
            let parts = Pin::into_inner(connection).into_parts();
            let mut watched = parts.io.into_inner();
            watched.put_back(&parts.read_buf);
            self.resting = Some(Box::new((watched, parts.service)));
        }
    }

    pub(super) fn is_resting(&self) -> bool {
        self.resting.is_some()
    }

    /// hyper's connection; one that rested is put together again.
    pub(super) fn woken(&mut self) -> Option<Pin<&mut Working<S>>> {
        if let Some(rested) = self.resting.take() {
            let (watched, edge) = *rested;
            self.working = Some(working(watched, edge));
        }
        self.working.as_mut().map(Pin::as_mut)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Http1<S> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        if let Some(rested) = &mut self.resting {
            ready!(rested.0.poll_stir(cx));
        }
        self.woken().map_or(Poll::Ready(Ok(())), |connection| connection.poll(cx))
    }
}

fn working<S: AsyncRead + AsyncWrite + Unpin>(
    watched: Watched<S>,
    edge: Edge,
) -> Pin<Box<Working<S>>> {
    let header_bytes = edge.shared.snapshot.load().settings.limits.header_bytes;
    let connection = http1::Builder::new()
        // Deadlines are kept by `Keeper`, for every stage; hyper's would be a second timer.
        .header_read_timeout(None)
        .half_close(true)
        .max_buf_size(header_bytes.max(8192))
        .max_header_size(header_bytes)
        .serve_connection(TokioIo::new(watched), edge);
    Box::pin(connection)
}
