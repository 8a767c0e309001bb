//! Decompresses a response body (RFC 9110 §8.4.1.3), within a limit of size.

use crate::outbound::Response;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::header::CONTENT_ENCODING;
use std::io::Read;

/// The size of a body, compressed and not.
pub(super) const MAX_BODY: usize = 1 << 20;

/// The response without `gzip`. A body over the limit is incomplete; one that is invalid stays as it
/// is, and is not readable.
pub(super) fn decompressed(mut response: Response) -> Response {
    let is_gzip = response.headers.get(CONTENT_ENCODING).is_some_and(|coding| {
        let coding = coding.as_bytes();
        coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip")
    });
    if !is_gzip {
        return response;
    }
    let mut body = Vec::new();
    // One byte more, to detect a longer body.
    let limit = MAX_BODY as u64 + 1;
    let read = MultiGzDecoder::new(&*response.body).take(limit).read_to_end(&mut body);
    if read.is_err() && response.whole {
        return response;
    }
    response.whole &= body.len() <= MAX_BODY;
    body.truncate(MAX_BODY);
    response.body = Bytes::from(body);
    response.headers.remove(CONTENT_ENCODING);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::Protocol;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http::{HeaderMap, HeaderValue, StatusCode};
    use std::io::Write;
    use std::time::Duration;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn response(coding: &'static str, body: Vec<u8>) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        Response {
            status: StatusCode::OK,
            headers,
            body: body.into(),
            whole: true,
            protocol: Protocol::Http2,
            head_time: Duration::ZERO,
        }
    }

    #[test]
    fn a_gzip_body_is_read() {
        let read = decompressed(response("GZIP", gzip(b"sign in")));
        assert_eq!((&*read.body, read.whole), (&b"sign in"[..], true));
        assert!(!read.headers.contains_key(CONTENT_ENCODING));
    }

    #[test]
    fn a_bomb_is_read_up_to_the_limit() {
        let bomb = gzip(&vec![b'a'; 64 * MAX_BODY]);
        assert!(bomb.len() < MAX_BODY);
        let read = decompressed(response("gzip", bomb));
        assert_eq!((read.body.len(), read.whole), (MAX_BODY, false));
    }

    #[test]
    fn an_invalid_or_unknown_body_stays_encoded() {
        for (coding, body) in [("gzip", b"sign in".to_vec()), ("br", gzip(b"sign in"))] {
            let read = decompressed(response(coding, body.clone()));
            assert_eq!(read.body, body);
            assert!(read.headers.contains_key(CONTENT_ENCODING));
        }
    }

    #[test]
    fn a_truncated_body_is_incomplete() {
        let mut body = gzip(&b"sign in ".repeat(100));
        body.truncate(body.len() - 12);
        let read = decompressed(Response { whole: false, ..response("gzip", body) });
        assert!(!read.whole && read.body.starts_with(b"sign in"), "{:?}", read.body);
    }
}
