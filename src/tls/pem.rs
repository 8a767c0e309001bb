//! Why the content of a file is not a usable PEM certificate or private key, and how to fix it. Nothing
//! of the content is repeated: it may be a key.

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What is wrong with a file, and how to fix it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) reason: String,
    pub(super) hint: String,
}

impl Unfit {
    pub(super) fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: hint.into() }
    }
}

/// The certificates in the file, the leaf first.
pub(super) fn chain(
    path: &Path,
    content: &[u8],
    key: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    let pem = without_mark(content);
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| malformed(content, &error))?;
    let Some(leaf) = chain.first() else { return Err(not_a_certificate(path, pem, key)) };
    if X509Certificate::from_der(leaf).is_err() {
        return Err(Unfit::new(
            "its first `CERTIFICATE` block is not an X.509 certificate",
            "copy the file again from where the CA or its client stored it",
        ));
    }
    Ok(chain)
}

/// The private key in the file.
pub(super) fn key(
    path: &Path,
    content: &[u8],
    certificate: &[u8],
) -> Result<PrivateKeyDer<'static>, Unfit> {
    let pem = without_mark(content);
    if has(pem, "Proc-Type: 4,ENCRYPTED") {
        return Err(encrypted(path));
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        PemError::NoItemsFound => not_a_key(path, pem, certificate),
        error => malformed(content, &error),
    })
}

/// Editors on Windows write a byte order mark before the first line.
fn without_mark(content: &[u8]) -> &[u8] {
    content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content)
}

fn malformed(content: &[u8], error: &PemError) -> Unfit {
    if has(content, "\\n") {
        return Unfit::new(
            "its line ends are written as `\\n`",
            "write real line ends into the file, for example with `printf '%b'`",
        );
    }
    // The text of the library repeats the file.
    let reason = match error {
        PemError::MissingSectionEnd { .. } => "a `BEGIN` line has no matching `END` line",
        PemError::IllegalSectionStart { .. } => "a `BEGIN` line does not end with `-----`",
        PemError::Base64Decode(_) => "the text between `BEGIN` and `END` is not base64",
        _ => "it is not valid PEM",
    };
    Unfit::new(reason, "the file is truncated or damaged: copy it again")
}

fn not_a_certificate(path: &Path, content: &[u8], key: &[u8]) -> Unfit {
    if let Some(unfit) = not_pem(path, content, "the certificate and its intermediates") {
        return unfit;
    }
    let path = path.display();
    if X509Certificate::from_der(content).is_ok() {
        let hint = format!("convert it: `openssl x509 -inform der -in {path} -out {path}.pem`");
        return Unfit::new("it is DER, not PEM", hint);
    }
    let begins = |label| begins(content, label);
    if begins("CERTIFICATE REQUEST") || begins("NEW CERTIFICATE REQUEST") {
        Unfit::new(
            "it is a certificate signing request",
            "use the certificate that the CA issued for it",
        )
    } else if has(content, "PRIVATE KEY-----") {
        let hint = if begins_in(key, "CERTIFICATE") {
            "`certificate` and `private_key` are swapped: swap the two paths"
        } else {
            "set `certificate` to the file that has a `BEGIN CERTIFICATE` line"
        };
        Unfit::new("it is a private key", hint)
    } else if begins("PKCS7") || begins("CMS") {
        let hint = format!("convert it: `openssl pkcs7 -print_certs -in {path} -out {path}.pem`");
        Unfit::new("it is PKCS #7", hint)
    } else if begins("TRUSTED CERTIFICATE") {
        let hint = format!("convert it: `openssl x509 -in {path} -out {path}.pem`");
        Unfit::new("it is a `TRUSTED CERTIFICATE` of OpenSSL", hint)
    } else if begins("PUBLIC KEY") {
        Unfit::new("it is a public key", "use the certificate that the CA issued for the key")
    } else {
        no_block(content, "CERTIFICATE")
    }
}

fn not_a_key(path: &Path, content: &[u8], certificate: &[u8]) -> Unfit {
    if let Some(unfit) = not_pem(path, content, "the private key") {
        return unfit;
    }
    let begins = |label| begins(content, label);
    if PrivateKeyDer::try_from(content).is_ok() {
        let path = path.display();
        let hint = format!("convert it: `openssl pkey -inform der -in {path} -out {path}.pem`");
        Unfit::new("it is DER, not PEM", hint)
    } else if begins("ENCRYPTED PRIVATE KEY") {
        encrypted(path)
    } else if begins("CERTIFICATE") {
        let hint = if has(certificate, "PRIVATE KEY-----") {
            "`certificate` and `private_key` are swapped: swap the two paths"
        } else {
            "set `private_key` to the file that has a `BEGIN PRIVATE KEY` line"
        };
        Unfit::new("it is a certificate", hint)
    } else if begins("OPENSSH PRIVATE KEY") {
        Unfit::new("it is an SSH key", "use the key that the certificate was requested with")
    } else if begins("PUBLIC KEY") || begins("RSA PUBLIC KEY") {
        Unfit::new(
            "it is a public key",
            "use the private key that the certificate was requested with",
        )
    } else if begins("DSA PRIVATE KEY") {
        unsupported_key(None)
    } else {
        no_block(content, "PRIVATE KEY")
    }
}

/// The key has a format or kind that TLS servers do not use.
pub(super) fn unsupported_key(rsa_bits: Option<usize>) -> Unfit {
    let reason = match rsa_bits {
        Some(bits @ ..2048) => format!("an RSA key of {bits} bits is too short"),
        _ => "it is damaged, or its kind of key is not supported".to_owned(),
    };
    Unfit::new(reason, "use an RSA key of 2048 to 8192 bits, or a P-256 or P-384 key")
}

fn encrypted(path: &Path) -> Unfit {
    let path = path.display();
    Unfit::new(
        "it is encrypted",
        format!(
            "decrypt it, and let only the server read the result: `openssl pkey -in {path} -out {path}.pem`"
        ),
    )
}

/// Formats that have nothing to do with PEM.
fn not_pem(path: &Path, content: &[u8], what: &str) -> Option<Unfit> {
    if content.trim_ascii().is_empty() {
        return Some(Unfit::new("it is empty", format!("write {what} into it, in PEM")));
    }
    if content.starts_with(b"\xff\xfe") || content.starts_with(b"\xfe\xff") {
        return Some(Unfit::new("it is UTF-16", "save it as UTF-8 or ASCII"));
    }
    // PFX ::= SEQUENCE { version INTEGER (3), … }, in DER or BER.
    let is_pfx = content.first() == Some(&0x30)
        && content
            .iter()
            .skip(2)
            .take(6)
            .copied()
            .collect::<Vec<_>>()
            .windows(3)
            .any(|it| it == [2, 1, 3]);
    if is_pfx && X509Certificate::from_der(content).is_err() {
        return Some(Unfit::new(
            "it is PKCS #12, not PEM",
            format!(
                "convert it to a file for both `certificate` and `private_key`: \
                 `openssl pkcs12 -nodes -in {path} -out {path}.pem`",
                path = path.display()
            ),
        ));
    }
    if content.starts_with(b"\xfe\xed\xfe\xed") {
        return Some(Unfit::new(
            "it is a Java key store, not PEM",
            "convert it to PKCS #12 with `keytool -importkeystore`, and that to PEM with `openssl pkcs12 -nodes`",
        ));
    }
    None
}

fn no_block(content: &[u8], label: &str) -> Unfit {
    let is_indented = begins_in(content, label);
    let reason = if is_indented {
        format!("its `BEGIN {label}` line is indented")
    } else {
        format!("it has no `BEGIN {label}` line")
    };
    let hint = if is_indented {
        "remove the spaces at the start of each line"
    } else {
        "use a PEM file, as CAs and ACME clients write them"
    };
    Unfit::new(reason, hint)
}

/// Whether a line starts a block with this label.
fn begins(content: &[u8], label: &str) -> bool {
    let line = format!("-----BEGIN {label}-----");
    content.split(|byte| matches!(byte, b'\n' | b'\r')).any(|it| it.starts_with(line.as_bytes()))
}

/// Whether the text has the start of a block with this label, anywhere.
fn begins_in(content: &[u8], label: &str) -> bool {
    has(content, &format!("-----BEGIN {label}-----"))
}

fn has(content: &[u8], text: &str) -> bool {
    memchr::memmem::find(content, text.as_bytes()).is_some()
}
