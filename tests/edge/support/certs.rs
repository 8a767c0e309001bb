use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A CA, and a directory with a certificate for these names in `edge.pem` and `edge.key`, and the CA
/// certificate in `ca.pem`.
pub(crate) fn certified(names: &[&str]) -> (Authority, TempDir) {
    let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
    authority.write(dir.path(), "edge", names);
    std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    (authority, dir)
}

/// Makes a certificate expired; for [`Authority::write_with`].
pub(crate) fn expired(params: &mut CertificateParams) {
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
}

/// A certificate authority (CA) for tests.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes `<name>.pem` and `<name>.key` for these DNS names or addresses.
    pub(crate) fn write(&self, dir: &Path, name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        self.write_with(dir, name, names, |_| {})
    }

    pub(crate) fn write_with(
        &self,
        dir: &Path,
        name: &str,
        names: &[&str],
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        // Atomically: the edge may read the files at any time.
        for (path, text) in [(&paths.1, key.serialize_pem()), (&paths.0, certificate.pem())] {
            let new = path.with_extension("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, path).unwrap();
        }
        paths
    }

    /// A client that trusts only this CA.
    pub(crate) fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        self.client_of(rustls::crypto::aws_lc_rs::default_provider(), alpn)
    }

    /// As [`Authority::client`], with this cryptography provider.
    pub(crate) fn client_of(&self, provider: CryptoProvider, alpn: &[&str]) -> Arc<ClientConfig> {
        trusting(CertificateDer::from(self.issuer.der().to_vec()), provider, alpn)
    }
}

/// A client that trusts only this root.
pub(crate) fn trusting(
    root: CertificateDer<'_>,
    provider: CryptoProvider,
    alpn: &[&str],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root.into_owned()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}
