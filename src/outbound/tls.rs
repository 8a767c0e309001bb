use super::{Fault, Protocol, Reason, Step};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ProtocolVersion, RootCertStore,
    SignatureScheme,
};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The trusted root certificates.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.0.roots == other.0.roots
    }
}

impl Eq for Roots {}

impl Roots {
    /// The root certificates of Mozilla, compiled in.
    pub fn public() -> Self {
        Self(Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }))
    }

    /// These, and those in a PEM file.
    pub fn and_pem(&self, pem: &[u8]) -> Result<Self, BadRoots> {
        let mut store = RootCertStore::clone(&self.0);
        let before = store.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| BadRoots)?;
            store.add(certificate).map_err(|_| BadRoots)?;
        }
        if store.len() == before { Err(BadRoots) } else { Ok(Self(Arc::new(store))) }
    }
}

/// A PEM file contains no certificate, or an invalid one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRoots;

impl fmt::Display for BadRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("contains no readable PEM certificate")
    }
}

impl std::error::Error for BadRoots {}

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
    /// Whether the chain ends at a trusted root, verified for a time when the leaf is valid.
    pub chain: Result<(), Distrust>,
    /// Whether the leaf is for this host.
    pub name: Result<(), Distrust>,
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

/// Why a certificate or chain is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// The chain does not end at a trusted root.
    UnknownIssuer,
    /// The leaf is for other names.
    WrongName,
    /// A certificate above the leaf is not valid now.
    Expired,
    /// Any other error, as text.
    Other(String),
}

impl From<Error> for Distrust {
    fn from(error: Error) -> Self {
        use CertificateError as Bad;
        match error {
            Error::InvalidCertificate(Bad::UnknownIssuer) => Self::UnknownIssuer,
            Error::InvalidCertificate(
                Bad::NotValidForName | Bad::NotValidForNameContext { .. },
            ) => Self::WrongName,
            Error::InvalidCertificate(
                Bad::Expired
                | Bad::ExpiredContext { .. }
                | Bad::NotValidYet
                | Bad::NotValidYetContext { .. },
            ) => Self::Expired,
            other => Self::Other(other.to_string()),
        }
    }
}

/// The content of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject.
    pub subject: String,
    /// The issuer.
    pub issuer: String,
    /// The DNS names and addresses (subject alternative names).
    pub names: Vec<String>,
    /// Start of the validity.
    pub not_before: SystemTime,
    /// End of the validity.
    pub not_after: SystemTime,
    /// Whether it contains the URL of the issuer's certificate (RFC 5280 §4.2.2.1), like those of public
    /// CAs.
    pub issuer_is_published: bool,
}

impl Certificate {
    fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, read) = X509Certificate::from_der(der).ok()?;
        let names = read.subject_alternative_name().ok().flatten().map_or_else(Vec::new, |names| {
            names.value.general_names.iter().filter_map(name).collect()
        });
        let issuer_is_published =
            read.extensions().iter().any(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityInfoAccess(access) => access
                    .iter()
                    .any(|entry| entry.access_method.to_id_string() == "1.3.6.1.5.5.7.48.2"),
                _ => false,
            });
        Some(Self {
            subject: read.subject().to_string(),
            issuer: read.issuer().to_string(),
            names,
            not_before: time(read.validity().not_before.timestamp()),
            not_after: time(read.validity().not_after.timestamp()),
            issuer_is_published,
        })
    }

    /// Whether the certificate is valid at this time.
    pub fn valid_at(&self, time: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&time)
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => {
                <[u8; 4]>::try_from(*bytes).ok().map(|v4| std::net::Ipv4Addr::from(v4).to_string())
            }
            _ => {
                <[u8; 16]>::try_from(*bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string())
            }
        },
        _ => None,
    }
}

fn time(seconds: i64) -> SystemTime {
    let magnitude = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        UNIX_EPOCH.checked_sub(magnitude)
    } else {
        UNIX_EPOCH.checked_add(magnitude)
    };
    time.unwrap_or(UNIX_EPOCH)
}

/// Performs the handshake, accepts every certificate, and returns the peer.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    offer: Offer,
    roots: &Roots,
) -> Result<(TlsStream<S>, Peer), Fault> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| {
        Fault::new(Step::Handshake, Reason::Tls, "the host is not a valid TLS server name")
    })?;
    let config = config_without_verification(match offer {
        Offer::Both => &["h2", "http/1.1"],
        Offer::Http1 => &["http/1.1"],
        Offer::Http2 => &["h2"],
        Offer::AcmeTls => &["acme-tls/1"],
    });
    let config =
        config.map_err(|error| Fault::new(Step::Handshake, Reason::Other, error.to_string()))?;
    let provider = Arc::clone(config.crypto_provider());
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name.clone(), stream)
        .await
        .map_err(|error| Fault::io(Step::Handshake, &error))?;
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
    let (chain, named) = verify(ders, &name, &roots.0, &provider);
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
    };
    Ok((stream, peer))
}

/// Verifies chain and name separately, so that one error does not hide the other.
fn verify(
    ders: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    roots: &RootCertStore,
    provider: &CryptoProvider,
) -> (Result<(), Distrust>, Result<(), Distrust>) {
    let nothing = || Distrust::Other("no certificate was sent".to_owned());
    let Some((leaf_der, above)) = ders.split_first() else {
        return (Err(nothing()), Err(nothing()));
    };
    let leaf = match ParsedCertificate::try_from(leaf_der) {
        Ok(leaf) => leaf,
        Err(error) => {
            let why = Distrust::from(error);
            return (Err(why.clone()), Err(why));
        }
    };
    // The dates report an expired leaf; the chain is verified as if the leaf were valid.
    let now = SystemTime::now();
    let at = match Certificate::read(leaf_der) {
        Some(read) if now > read.not_after => read.not_after,
        Some(read) if now < read.not_before => read.not_before,
        _ => now,
    };
    let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap_or_default());
    let algorithms = provider.signature_verification_algorithms.all;
    let chain = verify_server_cert_signed_by_trust_anchor(&leaf, roots, above, at, algorithms);
    (chain.map_err(Distrust::from), verify_server_name(&leaf, name).map_err(Distrust::from))
}

/// A TLS client that accepts every certificate, and offers these protocols (ALPN): for callers that
/// report what is wrong with a certificate, or do not depend on it. It still verifies that the peer
/// has the private key of the certificate, and never resumes a session.
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
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms).or_else(|error| {
            // rustls rejects a certificate with an unknown critical extension, such as that of RFC 8737,
            // before it finds the key.
            let (_, read) = X509Certificate::from_der(cert).map_err(|_| error)?;
            let key = read.public_key().raw.into();
            verify_tls13_signature_with_raw_key(message, &key, dss, algorithms)
        })
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
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
}
