use rustls::pki_types::CertificateDer;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

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
    /// The version of X.509.
    pub version: u32,
    /// The length of an RSA key.
    pub rsa_bits: Option<usize>,
    /// The kind of the key, if browsers do not accept it in the certificate of a server.
    pub unusual_key: Option<&'static str>,
    /// The hash of its signature, if that is broken.
    pub broken_hash: Option<&'static str>,
    /// Whether it is the certificate of a CA.
    pub is_ca: bool,
    /// Whether its extended key usage excludes servers.
    pub excludes_servers: bool,
    /// The critical extensions that browsers do not know.
    pub unknown_critical: Vec<String>,
}

impl Certificate {
    /// Reads a certificate; `None` if it is malformed.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
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
        let usage = read.extended_key_usage().ok().flatten();
        Some(Self {
            subject: read.subject().to_string(),
            issuer: read.issuer().to_string(),
            names,
            not_before: time(read.validity().not_before.timestamp()),
            not_after: time(read.validity().not_after.timestamp()),
            issuer_is_published,
            version: read.version().0 + 1,
            rsa_bits: rsa_bits(&read),
            unusual_key: unusual_key(&read),
            broken_hash: broken_hash(&read),
            is_ca: read.is_ca(),
            excludes_servers: usage
                .is_some_and(|usage| !usage.value.server_auth && !usage.value.any),
            unknown_critical: unknown_critical(&read),
        })
    }

    /// Whether the certificate is valid at this time.
    pub fn valid_at(&self, time: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&time)
    }

    /// Whether it names itself as its issuer.
    pub fn is_self_signed(&self) -> bool {
        self.subject == self.issuer
    }

    /// Why browsers reject it, whichever place it has in a chain. `which` is its name in the sentences.
    pub fn flaws(&self, which: &str) -> Vec<String> {
        let mut flaws = Vec::new();
        if self.version != 3 {
            flaws.push(format!("{which} is X.509 version {}, and browsers need 3", self.version));
        }
        if let Some(bits) = self.rsa_bits.filter(|bits| *bits < MIN_RSA_BITS) {
            flaws.push(format!(
                "the RSA key of {which} has {bits} bits, and browsers need {MIN_RSA_BITS}"
            ));
        }
        // The signature of a root is not verified.
        if let Some(hash) = self.broken_hash.filter(|_| !self.is_self_signed()) {
            flaws.push(format!("{which} is signed with {hash}, which browsers reject"));
        }
        flaws
    }

    /// Why browsers reject it as the certificate of a server.
    pub fn leaf_flaws(&self) -> Vec<String> {
        let mut flaws = self.flaws("the certificate");
        if self.is_ca {
            flaws.push("the certificate is that of a CA, not of a server".to_owned());
        }
        if self.excludes_servers {
            flaws.push(
                "the certificate is not for servers: its extended key usage lacks serverAuth"
                    .to_owned(),
            );
        }
        if !self.unknown_critical.is_empty() {
            let ids = self.unknown_critical.join(", ");
            flaws.push(format!(
                "the certificate has a critical extension that browsers do not know: {ids}"
            ));
        }
        flaws
    }
}

/// The shortest RSA key that all browsers accept.
pub const MIN_RSA_BITS: usize = 2048;

/// The length of an RSA key.
pub(super) fn rsa_bits(read: &X509Certificate<'_>) -> Option<usize> {
    match read.public_key().parsed().ok()? {
        PublicKey::RSA(key) => Some(key.key_size()),
        _ => None,
    }
}

/// No browser offers these signatures: a server with such a key has no usable certificate.
fn unusual_key(read: &X509Certificate<'_>) -> Option<&'static str> {
    let key = &read.public_key().algorithm;
    let curve = key.parameters.as_ref().and_then(|it| it.as_oid().ok());
    if key.algorithm.to_id_string() == "1.3.101.112" {
        Some("Ed25519")
    } else if curve.is_some_and(|curve| curve.to_id_string() == "1.3.132.0.35") {
        Some("P-521")
    } else {
        None
    }
}

fn broken_hash(read: &X509Certificate<'_>) -> Option<&'static str> {
    // sha1WithRSAEncryption, ecdsa-with-SHA1, dsa-with-sha1; md5WithRSAEncryption.
    match read.signature_algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.2.840.10040.4.3" => Some("SHA-1"),
        "1.2.840.113549.1.1.4" => Some("MD5"),
        _ => None,
    }
}

/// Known: key usage, names, basic constraints, name constraints, CRLs, policies and extended key usage.
fn unknown_critical(read: &X509Certificate<'_>) -> Vec<String> {
    const KNOWN: [&str; 10] = [
        "2.5.29.15",
        "2.5.29.17",
        "2.5.29.19",
        "2.5.29.30",
        "2.5.29.31",
        "2.5.29.32",
        "2.5.29.33",
        "2.5.29.36",
        "2.5.29.37",
        "2.5.29.54",
    ];
    let critical = read.extensions().iter().filter(|extension| extension.critical);
    critical
        .map(|extension| extension.oid.to_id_string())
        .filter(|id| !KNOWN.contains(&id.as_str()))
        .collect()
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|v4| Ipv4Addr::from(v4).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|v6| Ipv6Addr::from(v6).to_string()),
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
