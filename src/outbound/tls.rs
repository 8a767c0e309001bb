use super::certificate::{Certificate, MIN_RSA_BITS, rsa_bits};
use super::resolve::bare;
use super::roots::Roots;
use super::{Fault, Protocol, Reason, Step};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ProtocolVersion, RootCertStore, SignatureScheme,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The HTTP versions that the client offers (ALPN, RFC 7301); without TLS, the one that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Like browsers: both, HTTP/2 preferred. HTTP/1.1 without TLS.
    Both,
    /// Only HTTP/1.1.
    Http1,
    /// Only HTTP/2.
    Http2,
    /// The handshake of an ACME challenge (RFC 8737), without a request.
    AcmeTls,
}

/// The peer of a TLS connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The TLS version, for example `TLS 1.3`.
    pub version: &'static str,
    /// The HTTP version that was negotiated.
    pub protocol: Protocol,
    /// The certificates that it sent, the leaf first. Malformed ones are omitted.
    pub certificates: Vec<Certificate>,
    /// Which roots the chain leads to, verified for a time when the leaf is valid.
    pub chain: Result<Anchor, Distrust>,
    /// Whether the leaf is for this host.
    pub name: Result<(), Distrust>,
    /// The subjects of the roots that the user gave.
    pub given: Vec<String>,
    /// Whether it asks for a client certificate. The client has none.
    pub asks_for_certificate: bool,
}

impl Peer {
    /// The leaf certificate.
    pub fn leaf(&self) -> Option<&Certificate> {
        self.certificates.first()
    }

    /// Whether a browser would continue without a warning.
    pub fn trusted(&self) -> bool {
        self.chain.is_ok()
            && self.name.is_ok()
            && self.leaf().is_some_and(|leaf| leaf.valid_at(SystemTime::now()))
    }
}

/// The roots that a chain leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The public ones, or those that the user gave.
    Stated,
    /// Only those in the store of this machine.
    Machine,
}

/// Why a certificate or chain is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// No certificate was sent.
    Missing,
    /// A certificate is not DER, or its extensions are invalid.
    Unreadable,
    /// The chain does not end at a trusted root.
    UnknownIssuer,
    /// The leaf is for other names.
    WrongName,
    /// A certificate above the leaf has expired.
    Expired,
    /// A certificate above the leaf is not valid yet.
    NotYetValid,
    /// A certificate is not signed with the key of the issuer that it names.
    BadSignature,
    /// A certificate is signed with an algorithm, or by a key of a kind, that is not accepted.
    Algorithm,
    /// The RSA key of the leaf is too short.
    ShortKey,
    /// A CA must not issue for this name.
    NameConstraint,
    /// There are more CAs below a CA than it may have.
    PathLength,
    /// An issuer is not a CA.
    NotCa,
    /// The leaf is the certificate of a CA.
    CaAsLeaf,
    /// A certificate is not for servers.
    Purpose,
    /// The leaf or an issuer is not X.509 version 3.
    Version,
    /// A critical extension is unknown.
    CriticalExtension,
    /// The chain is too long or too complex.
    TooComplex,
}

impl fmt::Display for Distrust {
    /// One sentence. The texts of the library are for its authors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there is no certificate",
            Self::Unreadable => "a certificate in the chain is malformed",
            Self::UnknownIssuer => "the chain does not lead from the certificate to its last issuer",
            Self::WrongName => "the certificate is for other names",
            Self::Expired => "a certificate above the leaf has expired",
            Self::NotYetValid => "a certificate above the leaf is not valid yet",
            Self::BadSignature => {
                "a certificate is not signed with the key of the issuer that it names"
            }
            Self::Algorithm => {
                "a signature in the chain uses an algorithm or a kind of key that browsers do not accept"
            }
            Self::ShortKey => "a key in the chain is too short",
            Self::NameConstraint => {
                "a CA in the chain must not issue for this name (name constraints)"
            }
            Self::PathLength => {
                "a CA in the chain has more CAs below it than it may have (path length)"
            }
            Self::NotCa => "an issuer in the chain is not a CA",
            Self::CaAsLeaf => "the certificate is that of a CA, not of a server",
            Self::Purpose => "a certificate in the chain is not for servers",
            Self::Version => "a certificate in the chain is not X.509 version 3",
            Self::CriticalExtension => {
                "a certificate in the chain has a critical extension that is not known"
            }
            Self::TooComplex => "the chain is too long",
        })
    }
}

impl From<webpki::Error> for Distrust {
    fn from(error: webpki::Error) -> Self {
        use webpki::Error as Bad;
        match error {
            Bad::UnknownIssuer => Self::UnknownIssuer,
            Bad::CertNotValidForName(_) => Self::WrongName,
            Bad::CertExpired { .. } => Self::Expired,
            Bad::CertNotValidYet { .. } => Self::NotYetValid,
            Bad::InvalidSignatureForPublicKey => Self::BadSignature,
            Bad::UnsupportedSignatureAlgorithmContext(_)
            | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::Algorithm,
            Bad::NameConstraintViolation => Self::NameConstraint,
            Bad::PathLenConstraintViolated => Self::PathLength,
            Bad::EndEntityUsedAsCa => Self::NotCa,
            Bad::CaUsedAsEndEntity => Self::CaAsLeaf,
            Bad::RequiredEkuNotFoundContext(_) | Bad::EmptyEkuExtension => Self::Purpose,
            Bad::UnsupportedCertVersion => Self::Version,
            Bad::UnsupportedCriticalExtension => Self::CriticalExtension,
            Bad::MaximumPathDepthExceeded
            | Bad::MaximumPathBuildCallsExceeded
            | Bad::MaximumSignatureChecksExceeded
            | Bad::MaximumNameConstraintComparisonsExceeded => Self::TooComplex,
            _ => Self::Unreadable,
        }
    }
}

/// Performs the handshake, accepts every certificate, and returns the peer.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    offer: Offer,
    roots: &Roots,
) -> Result<(TlsStream<S>, Peer), Fault> {
    let name = ServerName::try_from(bare(host).to_owned()).map_err(|_| {
        Fault::new(Step::Handshake, Reason::Tls, "the host is not a valid TLS server name")
    })?;
    let config = config_without_verification(match offer {
        Offer::Both => &["h2", "http/1.1"],
        Offer::Http1 => &["http/1.1"],
        Offer::Http2 => &["h2"],
        Offer::AcmeTls => &["acme-tls/1"],
    });
    let mut config =
        config.map_err(|error| Fault::new(Step::Handshake, Reason::Other, error.to_string()))?;
    let asked = Arc::new(NoClientCertificate::default());
    config.client_auth_cert_resolver = Arc::<NoClientCertificate>::clone(&asked);
    let provider = Arc::clone(config.crypto_provider());
    let stream = TlsConnector::from(Arc::new(config)).connect(name.clone(), stream).await.map_err(
        |error| {
            if asked.0.load(Relaxed) {
                Fault::client_certificate(Step::Handshake)
            } else {
                Fault::io(Step::Handshake, &error)
            }
        },
    )?;
    let session = stream.get_ref().1;
    // A server without ALPN uses HTTP/1.1.
    let protocol =
        if session.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
    if offer == Offer::Http2 && protocol != Protocol::Http2 {
        return Err(Fault::new(
            Step::Handshake,
            Reason::NoProtocol,
            "the server does not support HTTP/2",
        ));
    }
    let ders = session.peer_certificates().unwrap_or_default();
    let (chain, named) = verify(ders, &name, roots, &provider);
    let peer = Peer {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        },
        protocol,
        certificates: ders.iter().filter_map(Certificate::read).collect(),
        chain,
        name: named,
        given: roots.given().to_vec(),
        asks_for_certificate: asked.0.load(Relaxed),
    };
    Ok((stream, peer))
}

/// Verifies chain and name separately, so that one error does not hide the other.
fn verify(
    ders: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    roots: &Roots,
    provider: &CryptoProvider,
) -> (Result<Anchor, Distrust>, Result<(), Distrust>) {
    let Some((leaf_der, above)) = ders.split_first() else {
        return (Err(Distrust::Missing), Err(Distrust::Missing));
    };
    let leaf = match EndEntityCert::try_from(leaf_der) {
        Ok(leaf) => leaf,
        Err(error) => {
            let why = Distrust::from(error);
            return (Err(why), Err(why));
        }
    };
    let named = leaf.verify_is_valid_for_subject_name(name).map_err(Distrust::from);
    if has_short_key(leaf_der) {
        return (Err(Distrust::ShortKey), named);
    }
    let at = when_valid(leaf_der);
    let leads_to = |store: &RootCertStore| leads_to(&leaf, &store.roots, above, at, provider);
    // The store of the machine never hides a reason.
    let chain = leads_to(roots.stated())
        .map(|()| Anchor::Stated)
        .or_else(|why| leads_to(roots.machine()).map(|()| Anchor::Machine).map_err(|_| why));
    (chain, named)
}

/// Now, or the nearest time at which the leaf is valid: the dates report an expired leaf, and the chain
/// is verified as if it were valid.
fn when_valid(leaf: &CertificateDer<'_>) -> UnixTime {
    let now = SystemTime::now();
    let at = match Certificate::read(leaf) {
        Some(read) if now > read.not_after => read.not_after,
        Some(read) if now < read.not_before => read.not_before,
        _ => now,
    };
    UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn leads_to(
    leaf: &EndEntityCert<'_>,
    anchors: &[TrustAnchor<'_>],
    above: &[CertificateDer<'_>],
    at: UnixTime,
    provider: &CryptoProvider,
) -> Result<(), Distrust> {
    let algorithms = provider.signature_verification_algorithms.all;
    let verified =
        leaf.verify_for_usage(algorithms, anchors, above, at, KeyUsage::server_auth(), None, None);
    verified.map(|_| ()).map_err(Distrust::from)
}

/// Verifies the certificates that a server is to send: each must be signed by the next, up to the last,
/// which is trusted here. Neither names nor the dates of the leaf are verified.
pub fn verify_bundle(ders: &[CertificateDer<'_>]) -> Result<(), Distrust> {
    let (leaf_der, above) = ders.split_first().ok_or(Distrust::Missing)?;
    let leaf = EndEntityCert::try_from(leaf_der).map_err(Distrust::from)?;
    let Some((last, between)) = above.split_last() else { return Ok(()) };
    let anchor = webpki::anchor_from_trusted_cert(last).map_err(Distrust::from)?;
    leads_to(&leaf, &[anchor], between, when_valid(leaf_der), &aws_lc_rs::default_provider())
}

/// Whether the certificate is for this host, as a URL has it.
pub fn is_for_host(leaf: &CertificateDer<'_>, host: &str) -> bool {
    let name = ServerName::try_from(bare(host));
    let leaf = EndEntityCert::try_from(leaf);
    leaf.is_ok_and(|leaf| {
        name.is_ok_and(|name| leaf.verify_is_valid_for_subject_name(&name).is_ok())
    })
}

/// Whether rustls cannot use the key, so that a handshake proves nothing.
fn has_short_key(der: &CertificateDer<'_>) -> bool {
    let read = X509Certificate::from_der(der);
    read.ok().and_then(|(_, read)| rsa_bits(&read)).is_some_and(|bits| bits < MIN_RSA_BITS)
}

/// Records that the server asks for a certificate, and has none.
#[derive(Debug, Default)]
struct NoClientCertificate(AtomicBool);

impl ResolvesClientCert for NoClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// A TLS client that accepts every certificate, and offers these protocols (ALPN): for callers that
/// report what is wrong with a certificate, or do not depend on it. It still verifies that the peer
/// has the private key of the certificate, unless that is too short or unreadable, and never resumes
/// a session.
pub fn config_without_verification(protocols: &[&str]) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NoCertificateVerification(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(config)
}

#[derive(Debug)]
struct NoCertificateVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoCertificateVerification {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
            .or_else(|error| self.verify_with_key(message, cert, dss, error))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
            .or_else(|error| self.verify_with_key(message, cert, dss, error))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl NoCertificateVerification {
    /// rustls reads the whole certificate before it finds the key. It rejects some that only the report
    /// should reject: with an unknown critical extension, such as that of RFC 8737, or of version 1.
    fn verify_with_key(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
        error: Error,
    ) -> Result<HandshakeSignatureValid, Error> {
        // These are never trusted.
        let is_readable = EndEntityCert::try_from(cert).is_ok();
        if has_short_key(cert) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let Ok((_, read)) = X509Certificate::from_der(cert) else {
            return if is_readable { Err(error) } else { Ok(HandshakeSignatureValid::assertion()) };
        };
        let key = &read.public_key().subject_public_key.data;
        let algorithms = self.0.signature_verification_algorithms.mapping.iter();
        let is_valid = algorithms
            .filter(|(scheme, _)| *scheme == dss.scheme)
            .flat_map(|(_, algorithms)| *algorithms)
            .any(|algorithm| algorithm.verify_signature(key, message, dss.signature()).is_ok());
        if is_valid { Ok(HandshakeSignatureValid::assertion()) } else { Err(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, CustomExtension, KeyPair};
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::{ServerConfig, version};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;

    /// Presents this certificate, even with another key.
    #[derive(Debug)]
    struct FixedCertificate(Arc<CertifiedKey>);

    impl ResolvesServerCert for FixedCertificate {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    #[tokio::test]
    async fn every_certificate_is_accepted_but_not_without_its_private_key() {
        let [own, others] = [(); 2].map(|()| KeyPair::generate().unwrap());
        let names = vec!["a.example".to_owned()];
        let plain = CertificateParams::new(names).unwrap();
        let mut critical = plain.clone();
        critical.custom_extensions = vec![CustomExtension::new_acme_identifier(&[0; 32])];
        for (version, params) in
            [(&version::TLS12, &plain), (&version::TLS13, &plain), (&version::TLS13, &critical)]
        {
            for (key, passes) in [(&own, true), (&others, false)] {
                let certificate = params.self_signed(&own).unwrap();
                let provider = Arc::new(aws_lc_rs::default_provider());
                let key = key.serialize_der().try_into().unwrap();
                let key = provider.key_provider.load_private_key(key).unwrap();
                let presented = CertifiedKey::new(vec![certificate.der().clone()], key);
                let server = ServerConfig::builder_with_provider(provider)
                    .with_protocol_versions(&[version])
                    .unwrap()
                    .with_no_client_auth()
                    .with_cert_resolver(Arc::new(FixedCertificate(Arc::new(presented))));
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let (accepted, _) = listener.accept().await.unwrap();
                tokio::spawn(TlsAcceptor::from(Arc::new(server)).accept(accepted).into_future());
                let client =
                    TlsConnector::from(Arc::new(config_without_verification(&[]).unwrap()));
                // The name differs, and the issuer is unknown.
                let name = ServerName::try_from("b.example").unwrap();
                let result = client.connect(name, stream).await;
                assert_eq!(result.is_ok(), passes, "{version:?}: {:?}", result.err());
            }
        }
    }

    /// Each reason has one sentence of its own, without the text of the library.
    #[test]
    fn every_error_of_the_library_has_a_sentence() {
        use webpki::Error as Bad;
        let time = UnixTime::since_unix_epoch(std::time::Duration::ZERO);
        let table = [
            (
                Bad::CertExpired { time, not_after: time },
                "a certificate above the leaf has expired",
            ),
            (
                Bad::CertNotValidYet { time, not_before: time },
                "a certificate above the leaf is not valid yet",
            ),
            (Bad::CaUsedAsEndEntity, "the certificate is that of a CA, not of a server"),
            (Bad::EndEntityUsedAsCa, "an issuer in the chain is not a CA"),
            (Bad::EmptyEkuExtension, "a certificate in the chain is not for servers"),
            (Bad::UnknownIssuer, "the chain does not lead from the certificate to its last issuer"),
            (
                Bad::InvalidSignatureForPublicKey,
                "a certificate is not signed with the key of the issuer that it names",
            ),
            (
                Bad::NameConstraintViolation,
                "a CA in the chain must not issue for this name (name constraints)",
            ),
            (
                Bad::PathLenConstraintViolated,
                "a CA in the chain has more CAs below it than it may have (path length)",
            ),
            (Bad::UnsupportedCertVersion, "a certificate in the chain is not X.509 version 3"),
            (
                Bad::UnsupportedCriticalExtension,
                "a certificate in the chain has a critical extension that is not known",
            ),
            (Bad::MaximumPathDepthExceeded, "the chain is too long"),
            (Bad::MaximumPathBuildCallsExceeded, "the chain is too long"),
            (Bad::MaximumSignatureChecksExceeded, "the chain is too long"),
            (Bad::MaximumNameConstraintComparisonsExceeded, "the chain is too long"),
        ];
        for (error, sentence) in table {
            assert_eq!(Distrust::from(error.clone()).to_string(), sentence, "{error:?}");
        }
        let malformed = [
            Bad::BadDer,
            Bad::BadDerTime,
            Bad::ExtensionValueInvalid,
            Bad::InvalidCertValidity,
            Bad::InvalidNetworkMaskConstraint,
            Bad::InvalidSerialNumber,
            Bad::MalformedDnsIdentifier,
            Bad::MalformedExtensions,
            Bad::MalformedNameConstraint,
            Bad::SignatureAlgorithmMismatch,
            Bad::UnsupportedNameType,
        ];
        for error in malformed {
            let sentence = Distrust::from(error.clone()).to_string();
            assert_eq!(sentence, "a certificate in the chain is malformed", "{error:?}");
        }
    }
}
