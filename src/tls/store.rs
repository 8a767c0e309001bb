use super::acme::{ACME_TLS, Challenges};
use super::files::{Bytes, Certificate, CertificateError};
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
use std::time::SystemTime;
use tokio_rustls::TlsAcceptor;

/// The certificates of the process; readers never wait, writers replace the whole.
#[derive(Debug, Default)]
pub struct Store(ArcSwap<Certificates>);

impl Store {
    /// The certificates in use.
    pub fn current(&self) -> Arc<Certificates> {
        self.0.load_full()
    }

    /// Puts others into use in place of those that were read from files, for every handshake from
    /// now on.
    pub fn replace(&self, certificates: &Certificates) {
        self.0.rcu(|current| {
            let Certificates { pairs, kept, .. } = certificates.clone();
            Certificates::index(pairs, kept, current.own.clone())
        });
    }

    /// Puts a certificate of our own making into use for a name; tells whether it is a new one.
    pub(super) fn keep(&self, name: &str, certificate: &Certificate) -> bool {
        let before = self.0.rcu(|current| {
            let mut own = current.own.clone();
            own.insert(name.into(), certificate.clone());
            Certificates::index(current.pairs.clone(), current.kept.clone(), own)
        });
        before.own.get(name).is_none_or(|before| before.content != certificate.content)
    }

    /// Lets go of those of our own making, but for these names.
    pub(super) fn keep_only(&self, names: &[Box<str>]) {
        self.0.rcu(|current| {
            let mut own = current.own.clone();
            own.retain(|name, _| names.contains(name));
            Certificates::index(current.pairs.clone(), current.kept.clone(), own)
        });
    }

    /// Tells the metrics what is in use.
    pub fn tell(&self, metrics: &Metrics) {
        let current = self.current();
        metrics.certificates(
            current.all().map(|(name, it, on_disk)| (name.to_string(), it.not_after, on_disk)),
        );
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
    /// Those of our own making, by the name they are for.
    own: BTreeMap<Box<str>, Certificate>,
    by_name: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// `*.example.com` under `example.com` (RFC 6125 §6.4.3: one label, the left-most).
    by_parent: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// For clients that name nobody: those that connect to an address.
    nameless: Option<Arc<CertifiedKey>>,
    /// For clients that name somebody else.
    otherwise: Option<Arc<CertifiedKey>>,
}

/// Where a certificate is from.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'c> {
    /// These files.
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
        if errors.is_empty() {
            Ok(Self::index(pairs, HashMap::new(), BTreeMap::new()))
        } else {
            Err(errors)
        }
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
        changed.then(|| Refreshed {
            certificates: Self::index(pairs, kept, self.own.clone()),
            taken,
            kept: problems,
        })
    }

    /// Every certificate with where it is from, and whether files have no other by now.
    pub fn all(&self) -> impl Iterator<Item = (Origin<'_>, &Certificate, bool)> {
        let pairs = self.pairs.iter().enumerate().map(|(position, (files, certificate))| {
            (Origin::Files(files), certificate, !self.kept.contains_key(&position))
        });
        pairs.chain(self.own.iter().map(|(name, it)| (Origin::Acme(name), it, true)))
    }

    /// Those that browsers refuse at this moment because of their dates, and what is wrong.
    pub fn invalid(
        &self,
        now: SystemTime,
    ) -> impl Iterator<Item = (Origin<'_>, &Certificate, &'static str)> {
        self.all().filter_map(move |(origin, certificate, _)| {
            Some((origin, certificate, certificate.invalid_at(now)?))
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.own.is_empty()
    }

    /// The certificate for a name: its own, the wildcard's, else the first.
    fn choose(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let Some(name) = name else { return self.nameless.as_ref() };
        // rustls hands the name over in lower case.
        self.by_name
            .get(name)
            .or_else(|| self.by_parent.get(name.split_once('.').map(|(_, parent)| parent)?))
            .or(self.otherwise.as_ref())
    }

    fn index(
        pairs: Vec<(CertificateFiles, Certificate)>,
        kept: HashMap<usize, u64>,
        own: BTreeMap<Box<str>, Certificate>,
    ) -> Self {
        let mut by_name: HashMap<Box<str>, Arc<CertifiedKey>> = HashMap::new();
        let mut by_parent: HashMap<Box<str>, Arc<CertifiedKey>> = HashMap::new();
        for certificate in pairs.iter().map(|(_, certificate)| certificate).chain(own.values()) {
            for name in &certificate.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut by_parent, parent),
                    None => (&mut by_name, name.as_str()),
                };
                // The first that names it wins, as the first pair wins when nobody does.
                map.entry(name.into()).or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
        let first = pairs.first().map(|(_, certificate)| certificate).or(own.values().next());
        let otherwise = first.map(|certificate| Arc::clone(&certificate.key));
        let is_address = |name: &str| name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let address = own.iter().find(|(name, _)| is_address(name));
        let nameless = address.map(|(_, it)| Arc::clone(&it.key)).or_else(|| otherwise.clone());
        Self { pairs, kept, own, by_name, by_parent, nameless, otherwise }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all().map(|(origin, ..)| origin)).finish()
    }
}

/// Answers handshakes.
#[derive(Clone)]
pub struct Acceptor {
    ordinary: TlsAcceptor,
    /// As long as a directory may come and look.
    challenged: TlsAcceptor,
    challenges: Arc<Challenges>,
}

impl Acceptor {
    /// TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1.
    ///
    /// No session is kept and no ticket sent: whoever follows a callback does not come back, and
    /// two tickets cost every handshake about an eighth more.
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
        let both = Challenged { store: Arc::clone(&store), challenges: Arc::clone(&challenges) };
        Ok(Self {
            ordinary: config(store, &[b"h2", b"http/1.1"])?,
            // Last: whoever speaks HTTP as well gets HTTP.
            challenged: config(Arc::new(both), &[b"h2", b"http/1.1", ACME_TLS])?,
            challenges,
        })
    }

    /// What answers at this moment.
    pub fn current(&self) -> &TlsAcceptor {
        if self.challenges.expect_handshakes() { &self.challenged } else { &self.ordinary }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

/// The certificates in use, and those of pending challenges for clients that ask for nothing but
/// the validating protocol (RFC 8737 §3).
#[derive(Debug)]
struct Challenged {
    store: Arc<Store>,
    challenges: Arc<Challenges>,
}

impl ResolvesServerCert for Challenged {
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
