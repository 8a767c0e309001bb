//! The PROXY protocol header in front of a connection, version 1 or 2.

use super::client_stream::ClientStream;
use proxy_header::{ParseConfig, ProxyHeader};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The twelve bytes that start a version 2 header (PROXY protocol, section 2.2).
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version, family and length of a version 2 header.
const V2_FIXED: usize = 16;
/// What starts a version 1 header (section 2.1).
const V1_SIGNATURE: &[u8] = b"PROXY ";
/// The longest version 1 header, line end included (section 2.1).
const V1_LONGEST: usize = 107;
/// The longest version 2 header that is accepted; real ones with TLVs stay far below.
const V2_LONGEST: usize = 4096;

/// Reads a PROXY header; the byte after it is read next. Returns the client's address; `None` when the proxy
/// connects for itself (`LOCAL`, `UNKNOWN`).
pub(super) async fn read_header<S: AsyncRead + Unpin>(
    stream: &mut ClientStream<S>,
) -> io::Result<Option<SocketAddr>> {
    let mut bytes = Vec::with_capacity(V1_LONGEST);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((length, client)) = parse_header(&bytes)? {
            stream.unread(bytes.split_off(length));
            return Ok(client);
        }
    }
}

/// The PROXY header that starts these bytes: its length, and the client's address, if the proxy does
/// not connect for itself. `None` when a part of it is missing.
pub fn parse_header(bytes: &[u8]) -> io::Result<Option<(usize, Option<SocketAddr>)>> {
    let Some(length) = header_length(bytes)? else { return Ok(None) };
    let header = bytes.get(..length).unwrap_or_default();
    let (parsed, _) = ProxyHeader::parse(header, ParseConfig::default())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Some((length, parsed.proxied_address().map(|address| address.source))))
}

/// The length of the header that starts these bytes; `None` when a part of it is missing.
fn header_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let invalid = Err(io::ErrorKind::InvalidData.into());
    let starts_with = |signature: &[u8]| bytes.iter().zip(signature).all(|(a, b)| a == b);
    if starts_with(V2_SIGNATURE) {
        let Some(&[high, low]) = bytes.get(V2_FIXED - 2..V2_FIXED) else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > V2_LONGEST {
            return invalid;
        }
        return Ok((bytes.len() >= V2_FIXED + length).then_some(V2_FIXED + length));
    }
    if starts_with(V1_SIGNATURE) {
        let line = bytes.get(..V1_LONGEST).unwrap_or(bytes);
        return match memchr::memmem::find(line, b"\r\n") {
            Some(end) => Ok(Some(end + 2)),
            None if bytes.len() >= V1_LONGEST => invalid,
            None => Ok(None),
        };
    }
    invalid
}

#[cfg(test)]
mod tests {
    use super::super::handle::Handle;
    use super::super::turns::Turns;
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};
    use tokio::io::ReadBuf;

    /// A stream whose reads end where the pieces do.
    struct Pieces(VecDeque<Vec<u8>>);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(mut piece) = self.0.pop_front() {
                let rest = piece.split_off(piece.len().min(buffer.remaining()));
                buffer.put_slice(&piece);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    /// The client in a header that arrives in pieces of this length, and what is read after it.
    fn read(bytes: &[u8], piece: usize) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let pieces = bytes.chunks(piece).map(<[u8]>::to_vec).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let handle = Arc::new(Handle::new());
            let turns = Arc::new(Turns::new(1));
            let mut stream = ClientStream::new(Pieces(pieces), None, handle, turns);
            let client = read_header(&mut stream).await;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            (client, rest)
        })
    }

    fn v2(kind: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[kind, family][..], &length, rest].concat()
    }

    proptest! {
        #[test]
        fn both_versions_are_parsed_and_the_bytes_after_them_remain(
            after in prop::collection::vec(any::<u8>(), 0..300),
            piece in 1_usize..200,
        ) {
            let client = Some("192.0.2.1:1234".parse().unwrap());
            let address = [192, 0, 2, 1, 192, 0, 2, 2, 4, 210, 1, 187];
            for (header, expected) in [
                (b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n".to_vec(), client),
                (v2(0x21, 0x11, &address), client),
                (v2(0x20, 0x00, &[]), None),
                (b"PROXY UNKNOWN\r\n".to_vec(), None),
            ] {
                let (client, rest) = read(&[header, after.clone()].concat(), piece);
                prop_assert_eq!(client.unwrap(), expected);
                prop_assert_eq!(&rest, &after);
            }
        }
    }

    #[test]
    fn an_invalid_header_is_refused() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let huge = [V2_SIGNATURE.as_slice(), &[0x21, 0x11, 0xff, 0xff]].concat();
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PROXY TCP4 a b c d\r\n",
            b"PROXY",
            b"",
            b"\r\n\r\n\0\r\nQUIX\n",
            &long,
            &huge,
        ] {
            for piece in [1, 5, 500] {
                assert!(read(bytes, piece).0.is_err(), "{bytes:?}");
            }
        }
    }
}
