//! Responses to the validation requests of an ACME server.

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

/// The ALPN protocol of a validation handshake (RFC 8737 §6.2).
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// The responses to pending challenges. Readers never wait; usually it is empty.
#[derive(Debug, Default)]
pub struct Challenges(ArcSwap<Responses>);

#[derive(Clone, Default)]
struct Responses {
    /// By the server name of the handshake.
    certificates: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By the last segment of the path.
    bodies: HashMap<Box<str>, Bytes>,
}

impl Challenges {
    /// Whether a validation handshake is expected.
    pub fn expect_handshakes(&self) -> bool {
        !self.0.load().certificates.is_empty()
    }

    /// The challenge certificate for a server name.
    pub(in crate::tls) fn certificate(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        self.0.load().certificates.get(name?).cloned()
    }

    /// The response body for a challenge token.
    pub fn body(&self, token: &str) -> Option<Bytes> {
        self.0.load().bodies.get(token).cloned()
    }

    /// Serves a challenge certificate for a server name until the guard is dropped.
    pub(super) fn serve_certificate(
        self: &Arc<Self>,
        name: &str,
        certificate: CertifiedKey,
    ) -> Guard {
        let (name, certificate) = (Box::from(name), Arc::new(certificate));
        self.change(|responses| {
            responses.certificates.insert(Box::clone(&name), Arc::clone(&certificate));
        });
        Guard { challenges: Arc::clone(self), is_certificate: true, key: name }
    }

    /// Serves a response body for a token until the guard is dropped.
    pub(super) fn serve_body(self: &Arc<Self>, token: &str, body: &str) -> Guard {
        let (token, body) = (Box::from(token), Bytes::copy_from_slice(body.as_bytes()));
        self.change(|responses| {
            responses.bodies.insert(Box::clone(&token), body.clone());
        });
        Guard { challenges: Arc::clone(self), is_certificate: false, key: token }
    }

    fn change(&self, change: impl Fn(&mut Responses)) {
        self.0.rcu(|responses| {
            let mut responses = Responses::clone(responses);
            change(&mut responses);
            responses
        });
    }
}

impl fmt::Debug for Responses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.certificates.keys()).finish()
    }
}

/// Removes a response when it is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    challenges: Arc<Challenges>,
    is_certificate: bool,
    key: Box<str>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.challenges.change(|responses| {
            if self.is_certificate {
                responses.certificates.remove(&self.key);
            } else {
                responses.bodies.remove(&self.key);
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

/// The certificate of a trial. Its subject is a secret, which proves that this process presented it.
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
    // Not `from_der`, which verifies that certificate and key match: it rejects the critical extension.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// The server name in a validation handshake for an identifier. SNI cannot contain an address, so
/// an address is in its reverse-DNS form (RFC 8738 §6).
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

/// The address in a host, with or without the brackets of a URL.
pub(super) fn address(name: &str) -> Option<IpAddr> {
    name.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_served_until_its_guard_is_dropped() {
        let challenges = Arc::new(Challenges::default());
        assert!(!challenges.expect_handshakes());
        let key = certificate("a.example", &[7; 32]).unwrap();
        let guard = challenges.serve_certificate("a.example", key);
        let other = challenges.serve_body("token", "token.thumb");
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
    fn server_names_of_addresses_are_in_reverse_dns_form() {
        assert_eq!(server_name("auth.example.com"), "auth.example.com");
        assert_eq!(server_name("192.0.2.7"), "7.2.0.192.in-addr.arpa");
        assert_eq!(
            server_name("[2001:db8::1]"),
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }
}
