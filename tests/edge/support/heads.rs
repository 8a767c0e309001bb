//! HTTP/2 clients with unfinished requests, so that the server keeps what it has read of them.

use super::frames::{self, frame};
use super::{Authority, connect_tls, with_timeout};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Streams per connection: the maximum that the server allows.
pub(crate) const STREAMS: u32 = 64;

/// The value of a field of `/proc/PID/status`, in bytes.
fn memory(process: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The resident set of the process now.
pub(crate) fn resident(process: u32) -> u64 {
    memory(process, "VmRSS")
}

/// The peak of its resident set.
pub(crate) fn peak(process: u32) -> u64 {
    memory(process, "VmHWM")
}

/// Indexed fields (RFC 7541 §6.1), each of one byte: the 21st of the static table, `age`, which has
/// the shortest name.
pub(crate) fn indexed(fields: usize) -> Vec<u8> {
    vec![0x95; fields]
}

/// A request on this stream, in as many frames as its header block needs.
pub(crate) fn request(stream: u32, end: u8, block: &[u8]) -> Vec<u8> {
    let chunks: Vec<_> = block.chunks(16 * 1024).collect();
    let last = chunks.len() - 1;
    let frames = chunks.iter().enumerate().map(|(position, chunk)| {
        let kind = if position == 0 { frames::HEADERS } else { frames::CONTINUATION };
        let end_headers = if position == last { frames::END_HEADERS } else { 0 };
        frame(kind, end_headers | if position == 0 { end } else { 0 }, stream, chunk)
    });
    frames.flatten().collect()
}

/// Reads frames until the acknowledgement of a PING: everything sent before the PING has been read
/// then. Also returns when the peer closes.
pub(crate) async fn acknowledged(stream: &mut (impl AsyncRead + Unpin)) {
    let read = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await?;
            if (head[3], head[4] & frames::ACK) == (frames::PING, frames::ACK) {
                return Ok::<_, std::io::Error>(());
            }
        }
    };
    let _ = with_timeout(read).await;
}

/// Requests of one kind: each stream of a connection sends `block`, with `end` among its flags, and
/// then `body`.
pub(crate) struct HeldHeads {
    pub(crate) name: &'static str,
    pub(crate) block: Vec<u8>,
    pub(crate) end: u8,
    pub(crate) body: Vec<u8>,
}

impl HeldHeads {
    /// A form with a body that never arrives.
    pub(crate) fn form(name: &'static str, fields: &[u8]) -> Self {
        let block = [&frames::post("/oauth/callback?code=1"), fields].concat();
        Self { name, block, end: 0, body: Vec::new() }
    }

    /// Opens a connection, and returns once the server has read all of it.
    pub(crate) async fn connection(
        &self,
        authority: &Authority,
        address: SocketAddr,
    ) -> TlsStream<TcpStream> {
        let stream = connect_tls(authority, address, "localhost", &["h2"]).await.unwrap();
        let mut bytes = frames::opening(&[]);
        for id in (1..2 * STREAMS).step_by(2) {
            bytes.extend(request(id, self.end, &self.block));
            if !self.body.is_empty() {
                bytes.extend(frame(frames::DATA, 0, id, &self.body));
            }
        }
        bytes.extend(frame(frames::PING, 0, 0, b"the end."));
        // The server may close before all of it is written.
        let (mut reader, mut writer) = tokio::io::split(stream);
        let write = async {
            let _ = writer.write_all(&bytes).await;
            let _ = writer.flush().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = acknowledged(&mut reader) => {}
            () = write => {}
        }
        reader.unsplit(writer)
    }
}
