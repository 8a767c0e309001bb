use super::files::{Bytes, Certificate, CertificateError};
use crate::config::CertificateFiles;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// The certificates of the process; readers never wait, writers replace the whole.
#[derive(Debug, Default)]
pub struct Store(ArcSwap<Certificates>);

impl Store {
    /// The certificates in use.
    pub fn current(&self) -> Arc<Certificates> {
        self.0.load_full()
    }

    /// Puts others into use, for every handshake from now on.
    pub fn replace(&self, certificates: Certificates) {
        self.0.store(Arc::new(certificates));
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().choose(hello.server_name()).cloned()
    }
}

/// Certificates, found by name in a time that does not depend on how many there are.
#[derive(Clone, Default)]
pub struct Certificates {
    pairs: Vec<(CertificateFiles, Certificate)>,
    /// Positions of what is on disk but cannot be used, with the content that was refused.
    kept: HashMap<usize, u64>,
    by_name: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// `*.example.com` under `example.com` (RFC 6125 §6.4.3: one label, the left-most).
    by_parent: HashMap<Box<str>, Arc<CertifiedKey>>,
}

/// What a further look at the files found.
#[derive(Debug)]
pub struct Refreshed {
    /// What is to be used from now on.
    pub certificates: Certificates,
    /// Those that are new.
    pub taken: Vec<PathBuf>,
    /// Those that cannot be used.
    pub kept: Vec<Kept>,
}

/// A certificate on disk cannot be used, and an older one is kept for it.
pub type Kept = CertificateError;

impl Certificates {
    /// Reads them all; every one that cannot be used is told.
    pub fn load(files: &[CertificateFiles]) -> Result<Self, Vec<CertificateError>> {
        let mut pairs = Vec::with_capacity(files.len());
        let mut errors = Vec::new();
        for files in files {
            match super::load(files) {
                Ok(certificate) => pairs.push((files.clone(), certificate)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(Self::index(pairs, HashMap::new())) } else { Err(errors) }
    }

    /// Looks at the files again. `None`: nothing changed. A file that cannot be used keeps the
    /// certificate before it, and is told once for each content.
    pub fn refreshed(&self) -> Option<Refreshed> {
        let mut pairs = self.pairs.clone();
        let mut kept = self.kept.clone();
        let mut problems = Vec::new();
        let mut taken = Vec::new();
        let mut changed = false;
        for (position, (files, certificate)) in pairs.iter_mut().enumerate() {
            // Unreadable counts as one content, so that it is told once.
            let read = Bytes::read(files);
            if read.as_ref().is_err_and(|error| error.passes) {
                continue;
            }
            let content = read.as_ref().map_or(0, Bytes::content);
            if content == certificate.content {
                changed |= kept.remove(&position).is_some();
                continue;
            }
            if kept.get(&position) == Some(&content) {
                continue;
            }
            changed = true;
            match read.and_then(|bytes| bytes.parse(files)) {
                Ok(new) => {
                    kept.remove(&position);
                    *certificate = new;
                    taken.push(files.certificate.clone());
                }
                Err(problem) => {
                    kept.insert(position, content);
                    problems.push(problem);
                }
            }
        }
        changed.then(|| Refreshed { certificates: Self::index(pairs, kept), taken, kept: problems })
    }

    /// Every certificate with its files, and whether it is the one on disk.
    pub fn all(&self) -> impl Iterator<Item = (&CertificateFiles, &Certificate, bool)> {
        self.pairs.iter().enumerate().map(|(position, (files, certificate))| {
            (files, certificate, !self.kept.contains_key(&position))
        })
    }

    /// Those that browsers refuse at this moment because of their dates, and what is wrong.
    pub fn invalid(
        &self,
        now: SystemTime,
    ) -> impl Iterator<Item = (&CertificateFiles, &Certificate, &'static str)> {
        self.all().filter_map(move |(files, certificate, _)| {
            Some((files, certificate, certificate.invalid_at(now)?))
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The certificate for a name: its own, the wildcard's, else the first.
    fn choose(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        // rustls hands the name over in lower case.
        name.and_then(|name| {
            self.by_name
                .get(name)
                .or_else(|| self.by_parent.get(name.split_once('.').map(|(_, parent)| parent)?))
        })
        .or_else(|| self.pairs.first().map(|(_, certificate)| &certificate.key))
    }

    fn index(pairs: Vec<(CertificateFiles, Certificate)>, kept: HashMap<usize, u64>) -> Self {
        let mut by_name: HashMap<Box<str>, Arc<CertifiedKey>> = HashMap::new();
        let mut by_parent: HashMap<Box<str>, Arc<CertifiedKey>> = HashMap::new();
        for (_, certificate) in &pairs {
            for name in &certificate.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut by_parent, parent),
                    None => (&mut by_name, name.as_str()),
                };
                // The first that names it wins, as the first pair wins when nobody does.
                map.entry(name.into()).or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
        Self { pairs, kept, by_name, by_parent }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pairs.iter().map(|(files, _)| files)).finish()
    }
}

/// TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1.
///
/// No session is kept and no ticket sent: whoever follows a callback does not come back, and two
/// tickets cost every handshake about an eighth more.
pub fn server_config(store: Arc<Store>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}
