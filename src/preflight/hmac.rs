use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use data_encoding::HEXLOWER;
use secrecy::{ExposeSecret, SecretString};

/// The digest that Nango expects when a flow is started with a public key: HMAC-SHA256 (RFC 2104)
/// over `integration:connection`, or only over the integration, in lower-case hex.
pub fn hmac_digest(key: &SecretString, integration: &str, connection: Option<&str>) -> String {
    let key = Key::new(HMAC_SHA256, key.expose_secret().as_bytes());
    let message = match connection {
        Some(connection) => format!("{integration}:{connection}"),
        None => integration.to_owned(),
    };
    HEXLOWER.encode(sign(&key, message.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Python's `hmac`; the last from RFC 4231 §4.3.
    #[test]
    fn digests_equal_those_of_other_programs() {
        for (key, integration, connection, digest) in [
            (
                "secret",
                "github",
                Some("user-1"),
                "3605b55773b41a876033068bb1e4e9de4f2d8f8c324e6f35591eb8ce4654c72a",
            ),
            (
                "secret",
                "github",
                None,
                "ab6c4b32639621559c133d7f0401b2f3f029a72b28b3c1ca99cd9df8880de4d0",
            ),
            (
                "secret",
                "github",
                Some(""),
                "02f808d88e83a5e891a188cdd09820be8cf1b942fab9df8c899648d351a072ee",
            ),
            (
                "clé ☃",
                "a:b",
                Some("c:d é"),
                "59a600fd10a397c30a3a028cd506aea6bfbe3820dae5e3a38f060baa7bcc442c",
            ),
            (
                "Jefe",
                "what do ya want for nothing?",
                None,
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
        ] {
            assert_eq!(hmac_digest(&key.into(), integration, connection), digest);
        }
    }
}
