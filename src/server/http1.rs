//! An HTTP/1 connection that owns no buffers while it waits.
//!
//! hyper allocates 16 KiB for the lifetime of a connection, which mostly waits. A connection that
//! hibernates has no state of hyper, and gets one when bytes arrive. A new one starts so.

use super::driver::Protocol;
use super::io::ConnectionIo;
use super::service::CallbackService;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};

/// The fields that hyper parses without an allocation.
const FIELDS_ON_THE_STACK: usize = 100;

/// An HTTP/1 connection.
pub(super) enum Http1<S: AsyncRead + AsyncWrite + Unpin> {
    Active(Pin<Box<Connection<S>>>),
    Hibernating(Box<(ConnectionIo<S>, CallbackService)>),
    /// Was hibernating, and closes without buffers.
    Closing(Box<ConnectionIo<S>>),
    /// Is being changed into another.
    Vacant,
}

type Connection<S> = http1::Connection<TokioIo<ConnectionIo<S>>, CallbackService>;

impl<S: AsyncRead + AsyncWrite + Unpin> Http1<S> {
    pub(super) fn new(stream: S, service: CallbackService) -> Self {
        // Many connections that browsers open are never used.
        let io = ConnectionIo::http1(stream, service.handle());
        Self::Hibernating(Box::new((io, service)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Protocol for Http1<S> {
    /// HTTP/1 announces it with the next response.
    fn announce_last(&mut self) {}

    fn shutdown(&mut self) {
        match std::mem::replace(self, Self::Vacant) {
            Self::Active(mut connection) => {
                connection.as_mut().graceful_shutdown();
                *self = Self::Active(connection);
            }
            Self::Hibernating(hibernating) => *self = Self::Closing(Box::new(hibernating.0)),
            other => *self = other,
        }
    }

    fn hibernate(&mut self) {
        match std::mem::replace(self, Self::Vacant) {
            Self::Active(connection) => {
                let parts = Pin::into_inner(connection).into_parts();
                let io = parts.io.into_inner();
                // Nothing is buffered where nothing of a request was read (see `state`). If it were,
                // it could not be read again, and the connection ends.
                *self = if parts.read_buf.is_empty() {
                    Self::Hibernating(Box::new((io, parts.service)))
                } else {
                    Self::Closing(Box::new(io))
                };
            }
            other => *self = other,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Http1<S> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        if let Self::Hibernating(hibernating) = &mut *self {
            let arrived = ready!(hibernating.0.poll_readable(cx));
            if let Self::Hibernating(hibernating) = std::mem::replace(&mut *self, Self::Vacant) {
                let (io, service) = *hibernating;
                *self = if arrived {
                    Self::Active(connect(io, service))
                } else {
                    Self::Closing(Box::new(io))
                };
            }
        }
        match &mut *self {
            Self::Active(connection) => connection.as_mut().poll(cx),
            Self::Closing(io) => Pin::new(io).poll_shutdown(cx).map(|_| Ok(())),
            Self::Hibernating(_) | Self::Vacant => Poll::Ready(Ok(())),
        }
    }
}

fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    io: ConnectionIo<S>,
    service: CallbackService,
) -> Pin<Box<Connection<S>>> {
    let (header_bytes, header_fields) = service.head_limits();
    let mut builder = http1::Builder::new();
    builder
        // The driver enforces the deadline of every stage; hyper's would be a second timer.
        .header_read_timeout(None)
        .half_close(true)
        .max_buf_size(header_bytes.max(8192))
        .max_header_size(header_bytes);
    if header_fields != FIELDS_ON_THE_STACK {
        builder.max_headers(header_fields);
    }
    Box::pin(builder.serve_connection(TokioIo::new(io), service))
}
