use super::pem::{self, Unfit};
use crate::config::{CertificateFiles, Problem, Unreadable};
use crate::outbound::{Distrust, verify_bundle};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A certificate that is ready to be served.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Chain and key, verified to match.
    pub key: Arc<CertifiedKey>,
    /// The DNS names of the leaf (RFC 5280 §4.2.1.6), lower case; wildcards start with `*.`.
    pub names: Vec<String>,
    /// Start of the validity, Unix time in seconds.
    pub not_before: i64,
    /// End of the validity, Unix time in seconds.
    pub not_after: i64,
    /// Hash of the content of the files.
    pub(super) hash: u64,
}

impl Certificate {
    /// Why the certificate is not valid at this time; `None` when it is.
    pub fn invalid_at(&self, now: SystemTime) -> Option<&'static str> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        if now > self.not_after {
            Some("has expired: browsers refuse it")
        } else if now < self.not_before {
            Some("is not valid yet: browsers refuse it")
        } else {
            None
        }
    }
}

/// Reads a certificate and its key, and verifies that they match; returns the errors of both files.
pub fn load(files: &CertificateFiles) -> Result<Certificate, Vec<CertificateError>> {
    PemPair::read(files).parse(files)
}

/// The content of the two files.
pub(super) struct PemPair {
    certificate: Result<Vec<u8>, Box<CertificateError>>,
    private_key: Result<Vec<u8>, Box<CertificateError>>,
}

impl PemPair {
    pub(super) fn read(files: &CertificateFiles) -> Self {
        let read = |path: &Path, of_key| {
            std::fs::read(path).map_err(|error| {
                let why = Unreadable::from(error);
                Box::new(CertificateError {
                    files: files.clone(),
                    of_key,
                    is_unreadable: true,
                    reason: why.to_string().into(),
                    hint: why
                        .hint(path, if of_key { "privkey.pem" } else { "fullchain.pem" })
                        .into(),
                    is_transient: why.is_transient(),
                })
            })
        };
        Self {
            certificate: read(&files.certificate, false),
            private_key: read(&files.private_key, true),
        }
    }

    /// One file contains both.
    pub(super) fn of_one(pem: Vec<u8>) -> Self {
        Self { certificate: Ok(pem.clone()), private_key: Ok(pem) }
    }

    /// Whether a file could not be read for a reason that concerns this process.
    pub(super) fn is_transient(&self) -> bool {
        let errors = [&self.certificate, &self.private_key].map(|file| file.as_ref().err());
        errors.into_iter().flatten().any(|error| error.is_transient)
    }

    /// Hash of the content; 0 if a file is unreadable. Not collision-resistant: those who can write the
    /// files control the server anyway.
    pub(super) fn hash(&self) -> u64 {
        let (Ok(certificate), Ok(private_key)) = (&self.certificate, &self.private_key) else {
            return 0;
        };
        let mut hasher = DefaultHasher::new();
        hasher.write(certificate);
        hasher.write_u8(0);
        hasher.write(private_key);
        hasher.finish()
    }

    pub(super) fn parse(
        &self,
        files: &CertificateFiles,
    ) -> Result<Certificate, Vec<CertificateError>> {
        let unfit = |of_key, unfit: Unfit| CertificateError {
            files: files.clone(),
            of_key,
            is_unreadable: false,
            reason: unfit.reason.into(),
            hint: unfit.hint.into(),
            is_transient: false,
        };
        let [certificate, private_key] =
            [&self.certificate, &self.private_key].map(|file| file.as_deref().unwrap_or_default());
        let chain = self.certificate.as_ref().map_err(Clone::clone).and_then(|content| {
            let chain = pem::chain(&files.certificate, content, private_key);
            chain.map_err(|why| Box::new(unfit(false, why)))
        });
        let key = self.private_key.as_ref().map_err(Clone::clone).and_then(|content| {
            let key = pem::key(&files.private_key, content, certificate);
            key.map_err(|why| Box::new(unfit(true, why)))
        });
        let (chain, key) = match (chain, key) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => {
                return Err(chain.err().into_iter().chain(key.err()).map(|error| *error).collect());
            }
        };
        let hash = self.hash();
        pair(&chain, &key, hash).map_err(|(of_key, why)| vec![unfit(of_key, why)])
    }
}

/// Verifies that the key is that of the first certificate. `true`: the error is about the key.
fn pair(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    hash: u64,
) -> Result<Certificate, (bool, Unfit)> {
    let damaged = |why: Distrust| (false, Unfit::new(why.to_string(), REISSUE));
    let leaf_der = chain.first().ok_or_else(|| damaged(Distrust::Missing))?;
    let (_, leaf) =
        X509Certificate::from_der(leaf_der).map_err(|_| damaged(Distrust::Unreadable))?;
    verify_bundle(std::slice::from_ref(leaf_der)).map_err(damaged)?;
    let names = leaf.subject_alternative_name().ok().flatten();
    let names = names.map(|extension| &extension.value.general_names).into_iter().flatten();
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let names = names.collect();
    let validity = leaf.validity();
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let certified = certified(chain.to_vec(), key).map_err(|error| {
        let why = match error {
            rustls::Error::InconsistentKeys(_) => foreign_key(chain.iter().skip(1), key),
            _ => pem::unsupported_key(rsa_bits(leaf_der)),
        };
        (true, why)
    })?;
    Ok(Certificate { key: Arc::new(certified), names, not_before, not_after, hash })
}

const REISSUE: &str = "replace the certificate: obtain one from a public CA";

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, rustls::Error> {
    CertifiedKey::from_der(chain, key.clone_key(), &aws_lc_rs::default_provider())
}

fn rsa_bits(leaf: &CertificateDer<'_>) -> Option<usize> {
    crate::outbound::Certificate::read(leaf)?.rsa_bits
}

/// The key belongs to another certificate: perhaps to one of those above the first.
fn foreign_key<'c>(
    mut above: impl Iterator<Item = &'c CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Unfit {
    if above.any(|other| certified(vec![other.clone()], key).is_ok()) {
        return Unfit::new(
            "it belongs to a certificate that is not the first in the certificate file",
            "put the certificate of the server first, then each intermediate, as in `fullchain.pem`",
        );
    }
    Unfit::new(
        "it does not match the certificate",
        "use the key that this certificate was requested with: `openssl x509 -noout -pubkey` and `openssl pkey -pubout` print the same for a pair",
    )
}

/// A certificate or its private key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateError {
    /// The files.
    pub files: CertificateFiles,
    /// Whether it is about the private key.
    of_key: bool,
    /// Whether the file could not be read.
    is_unreadable: bool,
    reason: Box<str>,
    hint: Box<str>,
    /// Whether the files may be valid: the process has too many open files at the moment.
    is_transient: bool,
}

impl CertificateError {
    /// The cause, for a text that has the path of the certificate already.
    pub fn cause(&self) -> String {
        if self.of_key {
            format!("{}: {}", self.what(), self.reason)
        } else {
            self.reason.to_string()
        }
    }

    fn what(&self) -> String {
        let verb = if self.is_unreadable { "read" } else { "use" };
        let (kind, path) = if self.of_key {
            ("private key", &self.files.private_key)
        } else {
            ("certificate", &self.files.certificate)
        };
        format!("cannot {verb} the {kind} file `{}`", path.display())
    }
}

impl From<&CertificateError> for Problem {
    fn from(error: &CertificateError) -> Self {
        let files = &error.files;
        let location =
            if error.of_key { &files.private_key_location } else { &files.certificate_location };
        Self::error(error.what()).because(&error.reason).at(location).hint(&*error.hint)
    }
}
