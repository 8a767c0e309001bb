//! What is shown to whoever comes to see whether the names lead here.

use arc_swap::ArcSwap;
use bytes::Bytes;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The protocol of a validating handshake (RFC 8737 §6.2).
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// The answers to challenges that are pending. Readers never wait; mostly there is nothing.
#[derive(Debug, Default)]
pub struct Challenges(ArcSwap<Answers>);

#[derive(Clone, Default)]
struct Answers {
    /// By the server name of the handshake.
    handshakes: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By the last segment of the path.
    requests: HashMap<Box<str>, Bytes>,
}

impl Challenges {
    /// Whether a validating handshake may come.
    pub fn expect_handshakes(&self) -> bool {
        !self.0.load().handshakes.is_empty()
    }

    /// The certificate that answers the challenge for a server name.
    pub(in crate::tls) fn certificate(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        self.0.load().handshakes.get(name?).cloned()
    }

    /// The body that answers the challenge of a token.
    pub fn body(&self, token: &str) -> Option<Bytes> {
        self.0.load().requests.get(token).cloned()
    }

    /// Answers handshakes for a name, until the guard is dropped.
    pub(super) fn answer_handshakes(self: &Arc<Self>, name: &str, with: CertifiedKey) -> Guard {
        let (name, with) = (Box::from(name), Arc::new(with));
        self.change(|answers| {
            answers.handshakes.insert(Box::clone(&name), Arc::clone(&with));
        });
        Guard { challenges: Arc::clone(self), handshake: true, key: name }
    }

    /// Answers requests for a token, until the guard is dropped.
    pub(super) fn answer_requests(self: &Arc<Self>, token: &str, with: &str) -> Guard {
        let (token, with) = (Box::from(token), Bytes::copy_from_slice(with.as_bytes()));
        self.change(|answers| {
            answers.requests.insert(Box::clone(&token), with.clone());
        });
        Guard { challenges: Arc::clone(self), handshake: false, key: token }
    }

    fn change(&self, change: impl Fn(&mut Answers)) {
        self.0.rcu(|answers| {
            let mut answers = Answers::clone(answers);
            change(&mut answers);
            answers
        });
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.handshakes.keys()).finish()
    }
}

/// An answer that is given as long as this lives.
#[derive(Debug)]
pub(super) struct Guard {
    challenges: Arc<Challenges>,
    handshake: bool,
    key: Box<str>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.challenges.change(|answers| {
            if self.handshake {
                answers.handshakes.remove(&self.key);
            } else {
                answers.requests.remove(&self.key);
            }
        });
    }
}

/// The certificate of RFC 8737 §3: for the name, with the digest of the key authorization.
pub(super) fn certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    signed(&params)
}

/// A certificate that proves to ourselves that a handshake came here: its subject is the secret.
pub(super) fn trial(name: &str, secret: &str) -> Result<CertifiedKey, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, secret);
    signed(&params)
}

fn signed(params: &CertificateParams) -> Result<CertifiedKey, rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = aws_lc_rs::sign::any_supported_type(&key);
    let key = key.map_err(|_| rcgen::Error::RemoteKeyError)?;
    // Not `from_der`, which proves that the two match: it refuses the critical extension.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// The server name by which a validating handshake asks for an identifier: an address is asked
/// for in its reverse form, since no address may stand there (RFC 8738 §6).
pub(super) fn server_name(name: &str) -> String {
    match address(name) {
        Some(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Some(IpAddr::V6(address)) => {
            let digits = format!("{:032x}", u128::from(address));
            let reverse: Vec<_> = digits.chars().rev().map(String::from).collect();
            format!("{}.ip6.arpa", reverse.join("."))
        }
        None => name.to_owned(),
    }
}

/// The address that a host is, with or without the brackets of a URL.
pub(super) fn address(name: &str) -> Option<IpAddr> {
    name.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lives_as_long_as_its_guard() {
        let challenges = Arc::new(Challenges::default());
        assert!(!challenges.expect_handshakes());
        let key = certificate("a.example", &[7; 32]).unwrap();
        let guard = challenges.answer_handshakes("a.example", key);
        let other = challenges.answer_requests("token", "token.thumb");
        assert!(challenges.expect_handshakes());
        assert!(challenges.certificate(Some("a.example")).is_some());
        assert!(challenges.certificate(Some("b.example")).is_none());
        assert!(challenges.certificate(None).is_none());
        drop(guard);
        assert!(!challenges.expect_handshakes());
        assert_eq!(challenges.body("token").unwrap(), "token.thumb");
        drop(other);
        assert_eq!(challenges.body("token"), None);
    }

    #[test]
    fn addresses_are_asked_for_in_reverse() {
        assert_eq!(server_name("auth.example.com"), "auth.example.com");
        assert_eq!(server_name("192.0.2.7"), "7.2.0.192.in-addr.arpa");
        assert_eq!(
            server_name("[2001:db8::1]"),
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }
}
