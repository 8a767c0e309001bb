//! A minimal TLS client that sends one `ClientHello` and reads the type of the response: it finds out
//! why a handshake failed, with versions and cipher suites that rustls does not offer.

use super::resolve::bare;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The cipher suites of one `ClientHello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suites {
    /// Ephemeral Diffie-Hellman, with ciphers that rustls does not offer.
    Ephemeral,
    /// Key exchange with the RSA key of the certificate.
    Rsa,
}

impl Suites {
    const fn codes(self) -> &'static [u16] {
        match self {
            // ECDHE with RSA and ECDSA: CBC. DHE with RSA: GCM and CBC. 3DES with both.
            Self::Ephemeral => &[
                0xc013, 0xc014, 0xc009, 0xc00a, 0xc027, 0xc028, 0xc023, 0xc024, 0x009e, 0x009f,
                0x0033, 0x0039, 0x0067, 0x006b, 0xc012, 0xc008,
            ],
            // GCM, CBC, 3DES.
            Self::Rsa => &[0x009c, 0x009d, 0x002f, 0x0035, 0x003c, 0x003d, 0x000a],
        }
    }
}

/// What a server sends after a `ClientHello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A `ServerHello` with this version and cipher suite.
    Hello { version: u16, suite: u16 },
    /// An HTTP response without TLS.
    PlainHttp,
    /// An alert, nothing, or something else.
    Other,
}

/// Sends a `ClientHello` for TLS 1.2 and older. A server responds with the highest version that it
/// supports.
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    host: &str,
    suites: Suites,
) -> Answer {
    if stream.write_all(&client_hello(host, suites)).await.is_err() {
        return Answer::Other;
    }
    // A record, up to the cipher suite of a `ServerHello` with the longest session id.
    let mut received = Vec::new();
    let enough = 5 + 4 + 2 + 32 + 1 + 32 + 2;
    while received.len() < enough && stream.read_buf(&mut received).await.is_ok_and(|read| read > 0)
    {
        if answer(&received) != Answer::Other {
            break;
        }
    }
    answer(&received)
}

/// `ServerHello`: RFC 5246 §7.4.1.3; record: §6.2.1.
fn answer(received: &[u8]) -> Answer {
    let read = || {
        let hello = received.get(5..)?;
        if received.first() != Some(&22) || hello.first() != Some(&2) {
            return None;
        }
        let body = hello.get(4..)?;
        let version = u16::from_be_bytes(*body.first_chunk()?);
        let session = usize::from(*body.get(34)?);
        let suite = u16::from_be_bytes(*body.get(35 + session..)?.first_chunk()?);
        Some(Answer::Hello { version, suite })
    };
    if received.starts_with(b"HTTP/1.") {
        return Answer::PlainHttp;
    }
    read().unwrap_or(Answer::Other)
}

/// RFC 5246 §7.4.1.2.
fn client_hello(host: &str, suites: Suites) -> Vec<u8> {
    let mut extensions = Vec::new();
    // The name of an address is not sent (RFC 6066 §3).
    if bare(host).parse::<std::net::IpAddr>().is_err() {
        let mut name = vec![0];
        name.extend(sized(host.as_bytes()));
        extensions.extend(extension(0, &sized(&name)));
    }
    // Groups: x25519, P-256, P-384. Points: uncompressed.
    extensions.extend(extension(10, &sized(&[0, 29, 0, 23, 0, 24])));
    extensions.extend(extension(11, &[1, 0]));
    // Signatures: RSA and ECDSA with SHA-256, 384, 512, and RSA-PSS.
    let signatures = [4, 1, 5, 1, 6, 1, 4, 3, 5, 3, 6, 3, 8, 4, 8, 5, 8, 6, 2, 1];
    extensions.extend(extension(13, &sized(&signatures)));
    let suites: Vec<u8> = suites.codes().iter().flat_map(|code| code.to_be_bytes()).collect();
    let mut body = vec![3, 3];
    // The random value is not secret, because the handshake ends here.
    body.extend([0x5a; 32]);
    body.push(0);
    body.extend(sized(&suites));
    body.extend([1, 0]);
    body.extend(sized(&extensions));
    let mut hello = vec![1, 0];
    hello.extend(sized(&body));
    let mut record = vec![22, 3, 1];
    record.extend(sized(&hello));
    record
}

fn extension(number: u16, data: &[u8]) -> Vec<u8> {
    let mut all = number.to_be_bytes().to_vec();
    all.extend(sized(data));
    all
}

/// The bytes after their length. Host names are short, so that it fits.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let mut all = length.to_be_bytes().to_vec();
    all.extend_from_slice(bytes);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::server::Acceptor;
    use std::io::Cursor;

    #[test]
    fn rustls_reads_the_client_hello() {
        for (host, name) in [("auth.example", Some("auth.example")), ("[::1]", None)] {
            for suites in [Suites::Ephemeral, Suites::Rsa] {
                let mut acceptor = Acceptor::default();
                acceptor.read_tls(&mut Cursor::new(client_hello(host, suites))).unwrap();
                let accepted = acceptor.accept().map_err(|(error, _)| error).unwrap().unwrap();
                let hello = accepted.client_hello();
                assert_eq!(hello.server_name(), name);
                let codes: Vec<_> =
                    hello.cipher_suites().iter().map(|suite| u16::from(*suite)).collect();
                assert_eq!(codes, suites.codes());
            }
        }
    }

    #[test]
    fn only_a_server_hello_and_plain_http_are_recognised() {
        let mut hello = vec![22, 3, 3, 0, 45, 2, 0, 0, 41, 3, 2];
        hello.extend([7; 32]);
        hello.extend([3, 1, 1, 1, 0, 0x2f, 0]);
        assert_eq!(answer(&hello), Answer::Hello { version: 0x0302, suite: 0x002f });
        for end in 0..hello.len() - 1 {
            assert_eq!(answer(&hello[..end]), Answer::Other, "{end}");
        }
        assert_eq!(answer(b"HTTP/1.1 400 Bad Request\r\n"), Answer::PlainHttp);
        assert_eq!(answer(&[21, 3, 3, 0, 2, 2, 40]), Answer::Other);
    }
}
