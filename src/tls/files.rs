use crate::config::{CertificateFiles, Problem};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{Error as PemError, PemObject};
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

/// Reads a certificate and its key, and verifies that they match.
pub fn load(files: &CertificateFiles) -> Result<Certificate, CertificateError> {
    PemPair::read(files)?.parse(files)
}

/// The content of the two files.
pub(super) struct PemPair {
    certificate: Vec<u8>,
    private_key: Vec<u8>,
}

impl PemPair {
    pub(super) fn read(files: &CertificateFiles) -> Result<Self, CertificateError> {
        // open(2): ENFILE and EMFILE concern this process, not the file.
        let is_transient = |error: &std::io::Error| matches!(error.raw_os_error(), Some(23 | 24));
        let read = |path: &Path, of_key| {
            std::fs::read(path).map_err(|error| CertificateError {
                files: files.clone(),
                of_key,
                is_unreadable: true,
                reason: error.to_string().into(),
                is_transient: is_transient(&error),
            })
        };
        Ok(Self {
            certificate: read(&files.certificate, false)?,
            private_key: read(&files.private_key, true)?,
        })
    }

    /// One file contains both.
    pub(super) fn of_one(pem: Vec<u8>) -> Self {
        Self { certificate: pem.clone(), private_key: pem }
    }

    /// Hash of the content. Not collision-resistant: those who can write the files control the server
    /// anyway.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.certificate);
        hasher.write_u8(0);
        hasher.write(&self.private_key);
        hasher.finish()
    }

    pub(super) fn parse(&self, files: &CertificateFiles) -> Result<Certificate, CertificateError> {
        let unusable = |of_key, reason: String| CertificateError {
            files: files.clone(),
            of_key,
            is_unreadable: false,
            reason: reason.into(),
            is_transient: false,
        };
        let fail = |reason| unusable(false, reason);
        let fail_key = |reason| unusable(true, reason);
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| fail(format!("it is not valid PEM: {}", describe(&error))))?;
        let leaf = chain.first().ok_or_else(|| {
            fail("it contains no `BEGIN CERTIFICATE` block; is it PEM, and not the key?".into())
        })?;
        let (_, leaf) = X509Certificate::from_der(leaf)
            .map_err(|_| fail("its first block is not an X.509 certificate".into()))?;
        let key = PrivateKeyDer::from_pem_slice(&self.private_key).map_err(|error| {
            fail_key(match error {
                PemError::NoItemsFound => "it contains no `BEGIN PRIVATE KEY` block; \
                     an encrypted key must be decrypted first"
                    .into(),
                error => format!("it is not valid PEM: {}", describe(&error)),
            })
        })?;
        let names = leaf
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|extension| &extension.value.general_names)
            .into_iter()
            .flatten()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            })
            .collect();
        let validity = leaf.validity();
        let (not_before, not_after) =
            (validity.not_before.timestamp(), validity.not_after.timestamp());
        let key = CertifiedKey::from_der(chain.clone(), key, &aws_lc_rs::default_provider())
            .map_err(|error| {
                fail_key(match error {
                    rustls::Error::InconsistentKeys(_) => {
                        "it does not match the certificate".into()
                    }
                    error => error.to_string(),
                })
            })?;
        let hash = self.hash();
        Ok(Certificate { key: Arc::new(key), names, not_before, not_after, hash })
    }
}

/// Describes a PEM error. The library's text quotes the file, which may contain a key.
fn describe(error: &PemError) -> &'static str {
    match error {
        PemError::MissingSectionEnd { .. } => {
            "a `BEGIN` line has no `END` line; is the file truncated?"
        }
        PemError::IllegalSectionStart { .. } => "a `BEGIN` line is malformed",
        PemError::Base64Decode(_) => "the text between `BEGIN` and `END` is not base64",
        _ => "it cannot be read",
    }
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
    /// Whether the files may be valid: the process has too many open files at the moment.
    pub(super) is_transient: bool,
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
        let problem = Self::error(error.what()).because(&error.reason).at(if error.of_key {
            &files.private_key_location
        } else {
            &files.certificate_location
        });
        if error.is_unreadable {
            problem.hint("relative paths are relative to the working directory")
        } else {
            problem
        }
    }
}
