//! The settings that most tests start from: a test states what is particular to it, and what it
//! states takes the place of what stands here.

/// The plain listener alone, and an admin listener.
const PLAIN: &[&str] = &["listen.http = '127.0.0.1:0'", "listen.admin = '127.0.0.1:0'"];

/// Every listener, as `localhost`, with the certificate that [`super::certified`] writes.
const TLS: &[&str] = &[
    "public_url = 'https://localhost'",
    "listen.http = '127.0.0.1:0'",
    "listen.https = '127.0.0.1:0'",
    "listen.admin = '127.0.0.1:0'",
    "tls.certificate = '{dir}/edge.pem'",
    "tls.private_key = '{dir}/edge.key'",
];

/// Settings for an edge without TLS.
pub(crate) fn plain(own: &str) -> String {
    beside(PLAIN, own)
}

/// Settings for an edge with TLS.
pub(crate) fn tls(own: &str) -> String {
    beside(TLS, own)
}

/// A test's own settings, behind those of the others whose keys it does not name.
fn beside(others: &[&str], own: &str) -> String {
    let is_named = |other: &&&str| {
        let (key, _) = other.split_once('=').unwrap();
        own.lines().any(|line| line.trim_start().starts_with(key))
    };
    let others = others.iter().filter(|other| !is_named(other));
    others.copied().chain([own]).collect::<Vec<_>>().join("\n")
}
