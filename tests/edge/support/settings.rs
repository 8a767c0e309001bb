//! The settings that most tests start from; a test adds its own, which override these.

/// The http and admin listeners.
const PLAIN: &[&str] = &["listen.http = '127.0.0.1:0'", "listen.admin = '127.0.0.1:0'"];

/// All listeners, as `localhost`, with the certificate of [`super::certified`].
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
    merged(PLAIN, own)
}

/// Settings for an edge with TLS.
pub(crate) fn tls(own: &str) -> String {
    merged(TLS, own)
}

/// A test's own settings, after the base settings with other keys.
fn merged(base: &[&str], own: &str) -> String {
    let is_overridden = |line: &&&str| {
        let (key, _) = line.split_once('=').unwrap();
        own.lines().any(|line| line.trim_start().starts_with(key))
    };
    let base = base.iter().filter(|line| !is_overridden(line));
    base.copied().chain([own]).collect::<Vec<_>>().join("\n")
}
