use super::activity::Activity;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read and thrown away at most when a connection closes with bytes still coming in.
const DISCARD: usize = 256 * 1024;

/// A socket: notes for [`Activity`] whether the client takes what is written. Below TLS, which
/// takes bytes into a buffer of its own when the socket does not.
#[derive(Debug)]
pub(super) struct Taken<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Taken<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_pending() {
            self.activity.write_blocked();
        } else {
            self.activity.write_went_on();
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Taken<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Taken<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.note(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Says nothing: a socket has no buffer of ours.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// A connection's bytes on their way to hyper: notes for [`Activity`] when they come, and closes
/// so that the last answer arrives.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    /// `None` for HTTP/2.
    head: Option<HeadScan>,
    /// What was read ahead and comes before all else.
    ahead: Option<io::Result<Vec<u8>>>,
    ended: bool,
    discarded: usize,
    closed: bool,
}

impl<S> Watched<S> {
    pub(super) fn http1(stream: S, activity: Arc<Activity>) -> Self {
        Self { head: Some(HeadScan::default()), ..Self::http2(stream, activity) }
    }

    pub(super) fn http2(stream: S, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            activity,
            head: None,
            ahead: None,
            ended: false,
            discarded: 0,
            closed: false,
        }
    }

    /// Takes back what was read and not used.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.ahead = Some(Ok(bytes.to_vec()));
        }
    }

    fn notice(&mut self, bytes: &mut [u8]) {
        if bytes.is_empty() {
            self.ended = true;
        } else if let Some(head) = &mut self.head {
            // HTTP/2 has PINGs, so bytes alone say nothing there.
            self.activity.bytes_arrived();
            head.scan(bytes);
        }
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Resolves when there is something to read, be it the end.
    pub(super) fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.is_none() {
            let mut bytes = [0; 2048];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            self.ahead = Some(read.map(|()| {
                self.notice(buffer.filled_mut());
                buffer.filled().to_vec()
            }));
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(ahead) = this.ahead.take() {
            let mut ahead = ahead?;
            let rest = ahead.split_off(buffer.remaining().min(ahead.len()));
            buffer.put_slice(&ahead);
            this.put_back(&rest);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        this.notice(buffer.filled_mut().get_mut(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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

    /// Closes the sending side, then reads on until the client has closed too. Closing a socket
    /// with unread bytes resets it, and the reset overtakes the answer (RFC 9112 §9.6). Whoever
    /// polls this bounds the time.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.closed = true;
            this.activity.said_farewell();
        }
        let mut waste = [0; 4096];
        while !this.ended && this.discarded < DISCARD {
            let mut buffer = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => this.discarded += buffer.filled().len(),
                _ => this.ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Finds a `#` in an HTTP/1 request line and makes it a byte that hyper refuses.
///
/// hyper cuts a request target at `#`, so the query would arrive shortened. A request target has
/// no fragment (RFC 9112 §3.2); it is refused instead. Everything in a request line up to the
/// line's end is looked at. Bodies are looked at as well, as if they were request lines: a form
/// that holds `#` is refused anyway, and the connection ends after any other body (see
/// `Edge::finish`), so no request line hides behind one.
#[derive(Debug)]
struct HeadScan {
    within: Within,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    RequestLine,
    FieldLine,
    /// At the begin of a line behind the request line; an empty one ends the head.
    LineBegin,
}

impl Default for HeadScan {
    fn default() -> Self {
        Self { within: Within::RequestLine }
    }
}

impl HeadScan {
    fn scan(&mut self, bytes: &mut [u8]) {
        // The common case: whole heads without any `#`.
        let hash = memchr::memchr(b'#', bytes).is_some();
        if !hash && self.within == Within::RequestLine && bytes.ends_with(b"\r\n\r\n") {
            return;
        }
        for byte in bytes {
            self.within = match (self.within, *byte) {
                (Within::RequestLine, b'#') => {
                    *byte = 0x7f;
                    Within::RequestLine
                }
                (Within::LineBegin, b'\n') => Within::RequestLine,
                (_, b'\n') | (Within::LineBegin, b'\r') => Within::LineBegin,
                (Within::LineBegin, _) => Within::FieldLine,
                (within, _) => within,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(chunks: &[&str]) -> String {
        let mut scan = HeadScan::default();
        chunks
            .iter()
            .flat_map(|chunk| {
                let mut bytes = chunk.as_bytes().to_vec();
                scan.scan(&mut bytes);
                bytes
            })
            .map(char::from)
            .collect()
    }

    #[test]
    fn only_a_hash_in_a_request_line_is_made_refusable() {
        #[rustfmt::skip]
        let table = [
            (&["GET /cb?a#b HTTP/1.1\r\nHost: h\r\n\r\n"][..], "GET /cb?a\x7fb HTTP/1.1\r\nHost: h\r\n\r\n"),
            (&["GET /cb?a HTTP/1.1\r\nCookie: a#b\r\n\r\n"], "GET /cb?a HTTP/1.1\r\nCookie: a#b\r\n\r\n"),
            (&["GET /cb?a", "#b HTTP/1.1\r\n\r\n"], "GET /cb?a\x7fb HTTP/1.1\r\n\r\n"),
            (&["GET / HTTP/1.1\r\nX: #\r\n\r", "\nGET /#"], "GET / HTTP/1.1\r\nX: #\r\n\r\nGET /\x7f"),
            (&["GET / HTTP/1.1\r\n\r\nGET /#"], "GET / HTTP/1.1\r\n\r\nGET /\x7f"),
            (&["GET / HTTP/1.1\r\n\r\n", "GET /#"], "GET / HTTP/1.1\r\n\r\nGET /\x7f"),
            (&["GET / HTTP/1.1\nX: #\n\nGET /#"], "GET / HTTP/1.1\nX: #\n\nGET /\x7f"),
            (&["POST / HTTP/1.1\r\n\r\na=1", "GET /#"], "POST / HTTP/1.1\r\n\r\na=1GET /\x7f"),
        ];
        for (chunks, expected) in table {
            assert_eq!(scanned(chunks), expected);
        }
    }
}
