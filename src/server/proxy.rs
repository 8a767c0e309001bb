use proxy_header::{ParseConfig, ProxyHeader};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The twelve bytes that start a version 2 header (PROXY protocol, section 2.2).
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest version 1 header, line end included (section 2.1).
const V1_LONGEST: usize = 107;
/// The longest version 2 header that is taken; real ones with TLVs stay far below.
const V2_LONGEST: usize = 4096;

/// Reads a PROXY protocol header, version 1 or 2, and not a byte more. Tells the client's
/// address; `None` when the proxy speaks for itself (`LOCAL`, `UNKNOWN`).
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; V2_SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == V2_SIGNATURE {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        header.extend_from_slice(&rest);
        let [_, _, high, low] = rest;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > V2_LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let start = header.len();
        header.resize(start + length, 0);
        if let Some(rest) = header.get_mut(start..) {
            stream.read_exact(rest).await?;
        }
    } else if header.starts_with(b"PROXY ") {
        // Byte by byte: what follows the line end belongs to the client.
        while !header.ends_with(b"\r\n") {
            if header.len() >= V1_LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let (parsed, _) = ProxyHeader::parse(&header, ParseConfig::default())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(parsed.proxied_address().map(|address| address.source))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, usize) {
        let mut rest = bytes;
        let result = read_header(&mut rest).await;
        (result, rest.len())
    }

    #[tokio::test]
    async fn both_versions_are_read_and_not_a_byte_more() {
        let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\nGET";
        let (address, rest) = read(v1).await;
        assert_eq!(address.unwrap(), Some("192.0.2.1:1234".parse().unwrap()));
        assert_eq!(rest, 3);

        let mut v2 = V2_SIGNATURE.to_vec();
        v2.extend_from_slice(&[0x21, 0x11, 0, 12, 192, 0, 2, 1, 192, 0, 2, 2, 4, 210, 1, 187]);
        v2.extend_from_slice(b"GET");
        let (address, rest) = read(&v2).await;
        assert_eq!(address.unwrap(), Some("192.0.2.1:1234".parse().unwrap()));
        assert_eq!(rest, 3);

        let mut local = V2_SIGNATURE.to_vec();
        local.extend_from_slice(&[0x20, 0x00, 0, 0]);
        assert_eq!(read(&local).await.0.unwrap(), None);
        assert_eq!(read(b"PROXY UNKNOWN\r\n").await.0.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let mut huge = V2_SIGNATURE.to_vec();
        huge.extend_from_slice(&[0x21, 0x11, 0xff, 0xff]);
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PROXY TCP4 a b c d\r\n", b"", &long, &huge]
        {
            assert!(read(bytes).await.0.is_err(), "{bytes:?}");
        }
    }
}
