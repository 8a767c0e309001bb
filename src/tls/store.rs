use super::acme::{ACME_TLS, Challenges};
use super::files::{Certificate, CertificateError, PemPair};
use crate::config::CertificateFiles;
use crate::observe::Metrics;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_rustls::TlsAcceptor;

/// The certificates of the process. Readers never wait; writers replace all of them.
#[derive(Debug, Default)]
pub struct Store(ArcSwap<Certificates>);

impl Store {
    /// The certificates in use.
    pub fn current(&self) -> Arc<Certificates> {
        self.0.load_full()
    }

    /// Replaces the certificates that were read from files, for all further handshakes.
    pub fn replace(&self, certificates: &Certificates) {
        self.0.rcu(|current| {
            let Certificates { pairs, rejected, .. } = certificates.clone();
            Certificates::index(pairs, rejected, current.acme.clone())
        });
    }

    /// Sets the certificate of ACME for a name. Returns whether it has changed.
    pub(super) fn set_acme(&self, name: &str, certificate: &Certificate) -> bool {
        let before = self.0.rcu(|current| {
            let mut acme = current.acme.clone();
            acme.insert(name.into(), certificate.clone());
            Certificates::index(current.pairs.clone(), current.rejected.clone(), acme)
        });
        before.acme.get(name).is_none_or(|before| before.hash != certificate.hash)
    }

    /// Removes the certificates of ACME for all other names.
    pub(super) fn retain_acme(&self, names: &[Box<str>]) {
        self.0.rcu(|current| {
            let mut acme = current.acme.clone();
            acme.retain(|name, _| names.contains(name));
            Certificates::index(current.pairs.clone(), current.rejected.clone(), acme)
        });
    }

    /// Sets the metrics of the certificates in use.
    pub fn update_metrics(&self, metrics: &Metrics) {
        let current = self.current();
        metrics.set_certificates(
            current.all().map(|(name, it, on_disk)| {
                (name.to_string(), it.not_before..=it.not_after, on_disk)
            }),
        );
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().select(hello.server_name()).cloned()
    }
}

/// Certificates with an index by name.
#[derive(Clone, Default)]
pub struct Certificates {
    pairs: Vec<(CertificateFiles, Certificate)>,
    /// Positions of the pairs whose files cannot be used, with the hash of that content.
    rejected: HashMap<usize, u64>,
    /// The certificates of ACME, by name.
    acme: BTreeMap<Box<str>, Certificate>,
    by_name: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// `*.example.com` under `example.com` (RFC 6125 §6.4.3: only the left-most label).
    by_parent: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// For clients without SNI: those that connect to an address.
    without_sni: Option<Arc<CertifiedKey>>,
    /// For clients with an unknown server name.
    fallback: Option<Arc<CertifiedKey>>,
}

/// The origin of a certificate.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'c> {
    /// Files.
    Files(&'c CertificateFiles),
    /// ACME, for this name.
    Acme(&'c str),
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(files) => write!(f, "{}", files.certificate.display()),
            Self::Acme(name) => f.write_str(name),
        }
    }
}

/// How long files that cannot be used must stay the same before they are rejected.
const SETTLING_TIME: Duration = Duration::from_millis(500);

/// The certificates whose files have changed.
#[derive(Debug)]
pub struct CertificateChanges {
    /// The certificates to use from now on.
    pub certificates: Certificates,
    /// The files of the new certificates.
    pub replaced: Vec<PathBuf>,
    /// The new files that cannot be used; their previous certificate stays in use.
    pub rejected: Vec<CertificateError>,
}

impl Certificates {
    /// Reads all certificates, or returns all errors.
    pub fn load(files: &[CertificateFiles]) -> Result<Self, Vec<CertificateError>> {
        let mut pairs = Vec::with_capacity(files.len());
        let mut errors = Vec::new();
        for files in files {
            match super::load(files) {
                Ok(certificate) => pairs.push((files.clone(), certificate)),
                Err(found) => errors.extend(found),
            }
        }
        if errors.is_empty() {
            Ok(Self::index(pairs, HashMap::new(), BTreeMap::new()))
        } else {
            Err(errors)
        }
    }

    /// Reads the files again. `None`: nothing has changed. When files cannot be used, the previous
    /// certificate stays in use, and the error is returned once for each content that stays.
    pub fn reread(&self) -> Option<CertificateChanges> {
        self.reread_after(|| std::thread::sleep(SETTLING_TIME))
    }

    /// `settle` runs before files are rejected, which are then read once more.
    fn reread_after(&self, settle: impl Fn()) -> Option<CertificateChanges> {
        let mut pairs = self.pairs.clone();
        let mut known = self.rejected.clone();
        let mut rejected = Vec::new();
        let mut replaced = Vec::new();
        let mut changed = false;
        for (position, (files, certificate)) in pairs.iter_mut().enumerate() {
            // Unreadable files count as one content, so that they are reported once.
            let read = PemPair::read(files);
            if read.is_transient() {
                continue;
            }
            let hash = read.hash();
            if hash == certificate.hash {
                // The content of the certificate in use is back.
                if known.remove(&position).is_some() {
                    changed = true;
                    replaced.push(files.certificate.clone());
                }
                continue;
            }
            if known.get(&position) == Some(&hash) {
                continue;
            }
            match read.parse(files) {
                Ok(new) => {
                    known.remove(&position);
                    *certificate = new;
                    replaced.push(files.certificate.clone());
                }
                Err(errors) => {
                    // The program that replaces the two files may be between them.
                    settle();
                    if PemPair::read(files).hash() != hash {
                        continue;
                    }
                    known.insert(position, hash);
                    rejected.extend(errors);
                }
            }
            changed = true;
        }
        changed.then(|| CertificateChanges {
            certificates: Self::index(pairs, known, self.acme.clone()),
            replaced,
            rejected,
        })
    }

    /// Every certificate with its origin, and whether it is the current content of its files.
    pub fn all(&self) -> impl Iterator<Item = (Origin<'_>, &Certificate, bool)> {
        let pairs = self.pairs.iter().enumerate().map(|(position, (files, certificate))| {
            (Origin::Files(files), certificate, !self.rejected.contains_key(&position))
        });
        pairs.chain(self.acme.iter().map(|(name, it)| (Origin::Acme(name), it, true)))
    }

    /// The certificates that are not valid at this time, and why.
    pub fn invalid(
        &self,
        now: SystemTime,
    ) -> impl Iterator<Item = (Origin<'_>, &Certificate, &'static str)> {
        self.all().filter_map(move |(origin, certificate, _)| {
            Some((origin, certificate, certificate.invalid_at(now)?))
        })
    }

    /// When the next certificate begins or ceases to be valid, Unix time in seconds.
    pub fn next_validity_change(&self, now: i64) -> Option<i64> {
        let times = self.all().flat_map(|(_, it, _)| [it.not_before, it.not_after + 1]);
        times.filter(|time| *time > now).min()
    }

    /// Whether there is no certificate.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.acme.is_empty()
    }

    /// The certificate for a name: an exact match, a wildcard, else the first.
    fn select(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let Some(name) = name else { return self.without_sni.as_ref() };
        // rustls provides the name in lower case.
        self.by_name
            .get(name)
            .or_else(|| self.by_parent.get(name.split_once('.').map(|(_, parent)| parent)?))
            .or(self.fallback.as_ref())
    }

    fn index(
        pairs: Vec<(CertificateFiles, Certificate)>,
        rejected: HashMap<usize, u64>,
        acme: BTreeMap<Box<str>, Certificate>,
    ) -> Self {
        let mut by_name: HashMap<Box<str>, Arc<CertifiedKey>> = HashMap::new();
        let mut by_parent: HashMap<Box<str>, Arc<CertifiedKey>> = HashMap::new();
        for certificate in pairs.iter().map(|(_, certificate)| certificate).chain(acme.values()) {
            for name in &certificate.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut by_parent, parent),
                    None => (&mut by_name, name.as_str()),
                };
                // The first certificate for a name wins, like the first pair for unknown names.
                map.entry(name.into()).or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
        let first = pairs.first().map(|(_, certificate)| certificate).or(acme.values().next());
        let fallback = first.map(|certificate| Arc::clone(&certificate.key));
        let is_address = |name: &str| name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let address = acme.iter().find(|(name, _)| is_address(name));
        let without_sni = address.map(|(_, it)| Arc::clone(&it.key)).or_else(|| fallback.clone());
        Self { pairs, rejected, acme, by_name, by_parent, without_sni, fallback }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all().map(|(origin, ..)| origin)).finish()
    }
}

/// Accepts TLS handshakes.
#[derive(Clone)]
pub struct Acceptor {
    regular: TlsAcceptor,
    /// In use while an ACME challenge is pending.
    with_challenges: TlsAcceptor,
    challenges: Arc<Challenges>,
}

impl Acceptor {
    /// TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1.
    ///
    /// Without session resumption: a client that follows a callback does not return, and two tickets make
    /// every handshake about an eighth more expensive.
    pub fn new(store: Arc<Store>, challenges: Arc<Challenges>) -> Result<Self, rustls::Error> {
        let config = |resolver: Arc<dyn ResolvesServerCert>, alpn: &[&[u8]]| {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let mut config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_cert_resolver(resolver);
            config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
            config.send_tls13_tickets = 0;
            config.session_storage = Arc::new(NoServerSessionStorage {});
            Ok::<_, rustls::Error>(TlsAcceptor::from(Arc::new(config)))
        };
        let both =
            ChallengeResolver { store: Arc::clone(&store), challenges: Arc::clone(&challenges) };
        Ok(Self {
            regular: config(store, &[b"h2", b"http/1.1"])?,
            // Last: a client that also offers HTTP gets HTTP.
            with_challenges: config(Arc::new(both), &[b"h2", b"http/1.1", ACME_TLS])?,
            challenges,
        })
    }

    /// The acceptor for the next handshake.
    pub fn current(&self) -> &TlsAcceptor {
        if self.challenges.expect_handshakes() { &self.with_challenges } else { &self.regular }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

/// The certificates in use, and those of pending challenges for clients that offer only `acme-tls/1`
/// (RFC 8737 §3).
#[derive(Debug)]
struct ChallengeResolver {
    store: Arc<Store>,
    challenges: Arc<Challenges>,
}

impl ResolvesServerCert for ChallengeResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello
            .alpn()
            .is_some_and(|mut alpn| alpn.next() == Some(ACME_TLS) && alpn.next().is_none())
        {
            return self.challenges.certificate(hello.server_name());
        }
        self.store.resolve(hello)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Location;
    use std::fs;
    use tempfile::TempDir;

    /// The PEM texts of a new self-signed certificate and its key.
    fn pair() -> [String; 2] {
        let pair = rcgen::generate_simple_self_signed(["one.example".to_owned()]).unwrap();
        [pair.cert.pem(), pair.signing_key.serialize_pem()]
    }

    /// A loaded pair, of which the certificate file was replaced since, by that of the second pair.
    fn half_replaced(dir: &TempDir) -> (Certificates, CertificateFiles, [String; 2]) {
        let [certificate, private_key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
        let files = CertificateFiles {
            certificate,
            private_key,
            certificate_location: Location::Default,
            private_key_location: Location::Default,
        };
        let ([first, first_key], second) = (pair(), pair());
        fs::write(&files.certificate, first).unwrap();
        fs::write(&files.private_key, first_key).unwrap();
        let loaded = Certificates::load(std::slice::from_ref(&files)).unwrap();
        fs::write(&files.certificate, &second[0]).unwrap();
        (loaded, files, second)
    }

    #[test]
    fn files_that_are_replaced_one_after_the_other_are_not_rejected() {
        let dir = TempDir::new().unwrap();
        let (loaded, files, [_, key]) = half_replaced(&dir);
        let changes = loaded.reread_after(|| fs::write(&files.private_key, &key).unwrap());
        assert!(changes.is_none(), "{changes:?}");
        let changes = loaded.reread_after(|| unreachable!("the files are usable")).unwrap();
        assert_eq!((changes.replaced.len(), changes.rejected.len()), (1, 0));
    }

    #[test]
    fn files_that_stay_unusable_are_rejected_once() {
        let dir = TempDir::new().unwrap();
        let (loaded, ..) = half_replaced(&dir);
        let changes = loaded.reread_after(|| {}).unwrap();
        assert_eq!((changes.replaced.len(), changes.rejected.len()), (0, 1));
        assert!(changes.certificates.reread_after(|| {}).is_none());
    }
}
