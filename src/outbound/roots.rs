use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The trusted root certificates.
#[derive(Clone, Debug)]
pub struct Roots(Arc<Stores>);

#[derive(Clone, Debug)]
struct Stores {
    /// The public ones and those that the user gives.
    stated: RootCertStore,
    /// The subjects of those that the user gives.
    given: Vec<String>,
    /// Those of this machine.
    machine: RootCertStore,
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.0.stated.roots == other.0.stated.roots && self.0.machine.roots == other.0.machine.roots
    }
}

impl Eq for Roots {}

impl Roots {
    /// The root certificates of Mozilla, compiled in.
    pub fn public() -> Self {
        Self(Arc::new(Stores {
            stated: RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
            given: Vec::new(),
            machine: RootCertStore::empty(),
        }))
    }

    /// These, and those in a PEM file.
    pub fn and_pem(&self, pem: &[u8]) -> Result<Self, BadRoots> {
        let mut stores = Stores::clone(&self.0);
        let before = stores.stated.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| BadRoots)?;
            if let Ok((_, read)) = X509Certificate::from_der(&certificate) {
                stores.given.push(read.subject().to_string());
            }
            stores.stated.add(certificate).map_err(|_| BadRoots)?;
        }
        if stores.stated.len() == before { Err(BadRoots) } else { Ok(Self(Arc::new(stores))) }
    }

    /// These, and those that this machine trusts: `SSL_CERT_FILE`, `SSL_CERT_DIR`, or the store of
    /// the system. A certificate that cannot be read is skipped, as by other programs.
    #[must_use]
    pub fn and_machine(&self) -> Self {
        let mut stores = Stores::clone(&self.0);
        let found = rustls_native_certs::load_native_certs();
        stores.machine.add_parsable_certificates(found.certs);
        Self(Arc::new(stores))
    }

    /// The public ones and those that the user gives.
    pub(super) fn stated(&self) -> &RootCertStore {
        &self.0.stated
    }

    /// The subjects of those that the user gives.
    pub(super) fn given(&self) -> &[String] {
        &self.0.given
    }

    /// Those of this machine.
    pub(super) fn machine(&self) -> &RootCertStore {
        &self.0.machine
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
