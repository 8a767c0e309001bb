//! `config check` of certificate files that are unfit: each in one plain sentence, with its location.

use crate::support::Authority;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, NameConstraints, PKCS_ED25519,
    date_time_ymd,
};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The files `edge.pem` and `edge.key`, as texts or bytes.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn of(certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self { certificate: certificate.into(), key: key.into() }
    }

    fn map(self, certificate: impl Fn(String) -> Vec<u8>, key: impl Fn(String) -> Vec<u8>) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self::of(certificate(text(self.certificate)), key(text(self.key)))
    }
}

fn keep(text: String) -> Vec<u8> {
    text.into_bytes()
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["auth.example.com".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "auth.example.com");
    params
}

fn ca(
    name: &str,
    adjust: impl FnOnce(&mut CertificateParams),
) -> CertifiedIssuer<'static, KeyPair> {
    let params = ca_params(name, adjust);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn ca_params(name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    adjust(&mut params);
    params
}

/// A leaf of a CA, which is in the file too.
fn issued(adjust: impl FnOnce(&mut CertificateParams)) -> Files {
    let mut params = params();
    adjust(&mut params);
    let key = KeyPair::generate().unwrap();
    let issuer = ca("Intermediate", |_| {});
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Files::of(certificate.pem() + &issuer.pem(), key.serialize_pem())
}

/// A leaf below an intermediate CA below a root, all in the file.
fn below(
    root: impl FnOnce(&mut CertificateParams),
    intermediate: impl FnOnce(&mut CertificateParams),
) -> Files {
    let root = ca("Root", root);
    let between = ca_params("Intermediate", intermediate);
    let between = CertifiedIssuer::signed_by(between, KeyPair::generate().unwrap(), &root).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = params().signed_by(&key, &between).unwrap();
    Files::of(leaf.pem() + &between.pem() + &root.pem(), key.serialize_pem())
}

fn self_signed(adjust: impl FnOnce(&mut CertificateParams)) -> Files {
    let mut params = params();
    adjust(&mut params);
    let key = KeyPair::generate().unwrap();
    Files::of(params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// What OCSP and AIA extensions of public CAs contain: the URL of the issuer's certificate.
fn published_issuer() -> CustomExtension {
    let url = b"http://ca.example/i.cer";
    let location = [&[0x86, url.len() as u8][..], url].concat();
    let method = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02];
    let entry = [&[0x30, (method.len() + location.len()) as u8][..], &method, &location].concat();
    let content = [&[0x30, entry.len() as u8][..], &entry].concat();
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content)
}

fn block(label: &str) -> String {
    format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
}

/// What `config check` prints for these files, and its exit code.
fn check(files: &Files) -> (String, i32) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("edge.pem"), &files.certificate).unwrap();
    fs::write(dir.path().join("edge.key"), &files.key).unwrap();
    let config = "[[route]]\nhost = \"auth.example.com\"\npath = \"/oauth/callback\"\n\
                  [listen]\nhttps = \"0.0.0.0:443\"\n\
                  [tls]\ncertificate = \"edge.pem\"\nprivate_key = \"edge.key\"\n";
    run(dir.path(), config)
}

fn run(dir: &Path, config: &str) -> (String, i32) {
    fs::write(dir.join("config.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_callback-edge"));
    let output = command.args(["config", "check"]).current_dir(dir).env_clear().output().unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    (printed, output.status.code().unwrap())
}

/// The headline, the location and the cause of each problem, then its hint.
fn sentences(printed: &str) -> String {
    let lines = printed.lines().filter(|line| {
        let quote =
            line.starts_with(' ') && !line.starts_with(" -->") && !line.contains("caused by:");
        let numbered = line.split_once(" | ").is_some_and(|(it, _)| it.parse::<u8>().is_ok());
        !quote && !numbered && !line.is_empty() && !line.starts_with("the configuration is valid")
    });
    lines.map(|line| line.trim_start().to_owned() + "\n").collect()
}

/// A name, the files, and what is expected: the location, the sentence and the hint.
type UnusableFile = (&'static str, Files, Vec<(&'static str, &'static str, &'static str)>);

/// A name, the files, and what is expected: the location, the headline, the cause and the hint.
type DoubtfulFile =
    (&'static str, Files, Vec<(&'static str, &'static str, &'static str, &'static str)>);

const CERTIFICATE: &str = "--> config.toml:7:15\n";
const KEY: &str = "--> config.toml:8:15\n";

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_unusable_file_is_an_error_in_one_sentence() {
    let good = || issued(|_| {});
    let other_key = || KeyPair::generate().unwrap().serialize_pem().into_bytes();
    let empty = |_| b" \n".to_vec();
    let text = |text: &'static str| move |_: String| text.as_bytes().to_vec();
    let labelled = |label: &'static str| move |_: String| block(label).into_bytes();
    let utf16 = |text: String| {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        [0xff, 0xfe].into_iter().chain(units).collect::<Vec<u8>>()
    };
    let der = |text: String| {
        let pem: String =
            text.lines().skip(1).take_while(|line| !line.starts_with("---")).collect();
        data_encoding::BASE64.decode(pem.as_bytes()).unwrap()
    };
    let escaped = |text: String| text.replace('\n', "\\n").into_bytes();
    let indented = |text: String| text.replace("-----BEGIN", "  -----BEGIN").into_bytes();
    let cut = |text: String| text.as_bytes()[..text.len() / 3].to_vec();
    let swapped = good();
    let swapped = Files::of(swapped.key, swapped.certificate);
    let backwards = || {
        let root = ca("Root", |_| {});
        let key = KeyPair::generate().unwrap();
        let leaf = params().signed_by(&key, &root).unwrap();
        Files::of(root.pem() + &leaf.pem(), key.serialize_pem())
    };
    let foreign = || Files { key: other_key(), ..good() };
    #[rustfmt::skip]
    let table: Vec<UnusableFile> = vec![
        ("swapped", swapped, vec![
            (CERTIFICATE, "it is a private key", "`certificate` and `private_key` are swapped: swap the two paths"),
            (KEY, "it is a certificate", "`certificate` and `private_key` are swapped: swap the two paths"),
        ]),
        ("another key", foreign(), vec![
            (KEY, "it does not match the certificate", "use the key that this certificate was requested with: `openssl x509 -noout -pubkey` and `openssl pkey -pubout` print the same for a pair"),
        ]),
        ("the CA first", backwards(), vec![
            (KEY, "it belongs to a certificate that is not the first in the certificate file", "put the certificate of the server first, then each intermediate, as in `fullchain.pem`"),
        ]),
        ("empty files", good().map(empty, empty), vec![
            (CERTIFICATE, "it is empty", "write the certificate and its intermediates into it, in PEM"),
            (KEY, "it is empty", "write the private key into it, in PEM"),
        ]),
        ("DER", good().map(der, der), vec![
            (CERTIFICATE, "it is DER, not PEM", "convert it: `openssl x509 -inform der -in edge.pem -out edge.pem.pem`"),
            (KEY, "it is DER, not PEM", "convert it: `openssl pkey -inform der -in edge.key -out edge.key.pem`"),
        ]),
        ("UTF-16", good().map(utf16, utf16), vec![
            (CERTIFICATE, "it is UTF-16", "save it as UTF-8 or ASCII"),
            (KEY, "it is UTF-16", "save it as UTF-8 or ASCII"),
        ]),
        ("other text", good().map(text("hello"), text("hello")), vec![
            (CERTIFICATE, "it has no `BEGIN CERTIFICATE` line", "use a PEM file, as CAs and ACME clients write them"),
            (KEY, "it has no `BEGIN PRIVATE KEY` line", "use a PEM file, as CAs and ACME clients write them"),
        ]),
        ("cut off", good().map(cut, cut), vec![
            (CERTIFICATE, "a `BEGIN` line has no matching `END` line", "the file is truncated or damaged: copy it again"),
            (KEY, "a `BEGIN` line has no matching `END` line", "the file is truncated or damaged: copy it again"),
        ]),
        ("line ends as `\\n`", good().map(escaped, escaped), vec![
            (CERTIFICATE, "its line ends are written as `\\n`", "write real line ends into the file, for example with `printf '%b'`"),
            (KEY, "its line ends are written as `\\n`", "write real line ends into the file, for example with `printf '%b'`"),
        ]),
        ("indented", good().map(indented, keep), vec![
            (CERTIFICATE, "its `BEGIN CERTIFICATE` line is indented", "remove the spaces at the start of each line"),
        ]),
        ("damaged", good().map(labelled("CERTIFICATE"), labelled("PRIVATE KEY")), vec![
            (CERTIFICATE, "its first `CERTIFICATE` block is not an X.509 certificate", "copy the file again from where the CA or its client stored it"),
        ]),
        ("a damaged key", good().map(keep, labelled("PRIVATE KEY")), vec![
            (KEY, "it is damaged, or its kind of key is not supported", "use an RSA key of 2048 to 8192 bits, or a P-256 or P-384 key"),
        ]),
        ("a request", good().map(labelled("CERTIFICATE REQUEST"), labelled("ENCRYPTED PRIVATE KEY")), vec![
            (CERTIFICATE, "it is a certificate signing request", "use the certificate that the CA issued for it"),
            (KEY, "it is encrypted", "decrypt it, and let only the server read the result: `openssl pkey -in edge.key -out edge.key.pem`"),
        ]),
        ("PKCS #7", good().map(labelled("PKCS7"), labelled("OPENSSH PRIVATE KEY")), vec![
            (CERTIFICATE, "it is PKCS #7", "convert it: `openssl pkcs7 -print_certs -in edge.pem -out edge.pem.pem`"),
            (KEY, "it is an SSH key", "use the key that the certificate was requested with"),
        ]),
        ("public keys", good().map(labelled("PUBLIC KEY"), labelled("PUBLIC KEY")), vec![
            (CERTIFICATE, "it is a public key", "use the certificate that the CA issued for the key"),
            (KEY, "it is a public key", "use the private key that the certificate was requested with"),
        ]),
        ("trusted", good().map(labelled("TRUSTED CERTIFICATE"), text("Proc-Type: 4,ENCRYPTED")), vec![
            (CERTIFICATE, "it is a `TRUSTED CERTIFICATE` of OpenSSL", "convert it: `openssl x509 -in edge.pem -out edge.pem.pem`"),
            (KEY, "it is encrypted", "decrypt it, and let only the server read the result: `openssl pkey -in edge.key -out edge.key.pem`"),
        ]),
    ];
    let mut differ = Vec::new();
    for (name, files, expected) in table {
        let (printed, code) = check(&files);
        let expected = expected.into_iter().map(|(location, why, hint)| {
            let file = if location == KEY {
                "private key file `edge.key`"
            } else {
                "certificate file `edge.pem`"
            };
            format!("error: cannot use the {file}\n{location}caused by: {why}\nhint: {hint}\n")
        });
        let expected: String = expected.collect();
        if (sentences(&printed), code) != (expected, 64) {
            differ.push(format!("{name}:\n{printed}"));
        }
        assert!(!printed.contains("AAAA") && !printed.contains("MII"), "{printed}");
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

const FULL_CHAIN: &str =
    "use the file with the leaf first, then each intermediate certificate (`fullchain.pem`)";
const PUBLIC_CA: &str = "obtain a certificate from a public CA, for example with `[tls.acme]`; a private CA must be known to all clients";
const RENEW: &str = "replace it with a valid certificate; a running server loads it automatically";

/// The server can send them, so they are warnings.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_certificate_that_clients_may_reject_is_a_warning_in_one_sentence() {
    let reject = "clients may reject the certificate `edge.pem`";
    let chain = "clients may reject the chain in `edge.pem`";
    let year = |year| date_time_ymd(year, 1, 1);
    let leaf_only = |files: Files| {
        files.map(
            |text| {
                format!("{}-----END CERTIFICATE-----\n", text.split("-----END").next().unwrap())
                    .into_bytes()
            },
            keep,
        )
    };
    let with_stranger = |files: Files| {
        let stranger = ca("Stranger", |_| {}).pem();
        leaf_only(files).map(|text| (text + &stranger).into_bytes(), keep)
    };
    let shuffled = || {
        let files = below(|_| {}, |_| {});
        files.map(
            |text| {
                let blocks: Vec<_> = text.split_inclusive("-----END CERTIFICATE-----\n").collect();
                [blocks[0], blocks[2], blocks[1]].concat().into_bytes()
            },
            keep,
        )
    };
    let impostor = || {
        let key = KeyPair::generate().unwrap();
        let leaf = params().signed_by(&key, &ca("Intermediate", |_| {})).unwrap();
        Files::of(leaf.pem() + &ca("Intermediate", |_| {}).pem(), key.serialize_pem())
    };
    let not_a_ca = below(|_| {}, |params| params.is_ca = IsCa::NoCa);
    let expired = below(|_| {}, |params| params.not_after = year(2025));
    let early = below(|_| {}, |params| params.not_before = year(2099));
    let narrow = {
        let root = ca("Root", |_| {});
        let no_cas =
            |it: &mut CertificateParams| it.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let new_key = || KeyPair::generate().unwrap();
        let upper =
            CertifiedIssuer::signed_by(ca_params("Upper", no_cas), new_key(), &root).unwrap();
        let lower =
            CertifiedIssuer::signed_by(ca_params("Lower", |_| {}), new_key(), &upper).unwrap();
        let key = new_key();
        let leaf = params().signed_by(&key, &lower).unwrap();
        Files::of([leaf.pem(), lower.pem(), upper.pem(), root.pem()].concat(), key.serialize_pem())
    };
    let constrained = below(
        |_| {},
        |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName("example.org".into())],
                excluded_subtrees: Vec::new(),
            });
        },
    );
    let purpose = below(
        |_| {},
        |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        },
    );
    let ed25519 = {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let issuer = ca("Intermediate", |_| {});
        let leaf = params().signed_by(&key, &issuer).unwrap();
        Files::of(leaf.pem() + &issuer.pem(), key.serialize_pem())
    };
    let missing = "an intermediate certificate is missing in `edge.pem`";
    let no_issuer = "it has no certificate of the issuer, CN=Intermediate";
    let no_certificate = "no certificate is for `auth.example.com`";
    let add =
        "add the host to the names of a certificate, or add the certificate as `[[tls.pair]]`";
    let host = "--> config.toml:2:8\n";
    #[rustfmt::skip]
    let table: Vec<DoubtfulFile> = vec![
        ("good", issued(|_| {}), vec![]),
        ("good, with a root", below(|_| {}, |_| {}), vec![]),
        ("of a private root", leaf_only(issued(|_| {})), vec![]),
        ("Windows line ends", issued(|_| {}).map(|it| it.replace('\n', "\r\n").into_bytes(), |it| it.replace('\n', "\r\n").into_bytes()), vec![]),
        ("a byte order mark", issued(|_| {}).map(|it| format!("\u{feff}{it}").into_bytes(), |it| format!("\u{feff}{it}").into_bytes()), vec![]),
        ("self-signed", self_signed(|_| {}), vec![(CERTIFICATE, reject, "the certificate is self-signed", PUBLIC_CA)]),
        // As by `openssl req -x509` without options.
        ("a default self-signed one", self_signed(|it| { it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained); it.subject_alt_names.clear(); }), vec![
            (host, no_certificate, "it has no subject alternative name, and browsers ignore the common name", add),
            (CERTIFICATE, reject, "the certificate is self-signed; the certificate is that of a CA, not of a server; the certificate has no subject alternative name", PUBLIC_CA),
        ]),
        ("expired", issued(|it| { it.not_before = year(2020); it.not_after = year(2021); }), vec![
            (CERTIFICATE, "the certificate `edge.pem` has expired: browsers refuse it", "", RENEW),
        ]),
        ("not valid yet", issued(|it| { it.not_before = year(2098); it.not_after = year(2099); }), vec![
            (CERTIFICATE, "the certificate `edge.pem` is not valid yet: browsers refuse it", "", RENEW),
        ]),
        ("for another host", issued(|it| it.subject_alt_names = CertificateParams::new(vec!["a.example".to_owned(), "192.0.2.1".to_owned()]).unwrap().subject_alt_names), vec![
            (host, no_certificate, "it has `a.example`, `192.0.2.1`", add),
        ]),
        ("a wildcard", issued(|it| it.subject_alt_names = CertificateParams::new(vec!["*.example.com".to_owned()]).unwrap().subject_alt_names), vec![]),
        ("for clients", issued(|it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]), vec![
            (CERTIFICATE, reject, "the certificate is not for servers: its extended key usage lacks serverAuth", PUBLIC_CA),
        ]),
        ("of a CA", issued(|it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), vec![
            (CERTIFICATE, reject, "the certificate is that of a CA, not of a server", PUBLIC_CA),
        ]),
        ("Ed25519", ed25519, vec![
            (CERTIFICATE, reject, "browsers do not accept Ed25519 keys in certificates", PUBLIC_CA),
        ]),
        ("without its intermediate", leaf_only(issued(|it| it.custom_extensions.push(published_issuer()))), vec![(CERTIFICATE, missing, no_issuer, FULL_CHAIN)]),
        ("with another intermediate", with_stranger(issued(|_| {})), vec![(CERTIFICATE, missing, no_issuer, FULL_CHAIN)]),
        ("out of order", shuffled(), vec![
            (CERTIFICATE, "the certificates in `edge.pem` are not in order", "each must be issued by the next", FULL_CHAIN),
        ]),
        ("another key of the issuer", impostor(), vec![(CERTIFICATE, chain, "a certificate is not signed with the key of the issuer that it names", FULL_CHAIN)]),
        ("an issuer that is no CA", not_a_ca, vec![(CERTIFICATE, chain, "an issuer in the chain is not a CA", FULL_CHAIN)]),
        ("an expired issuer", expired, vec![(CERTIFICATE, chain, "a certificate above the leaf has expired", FULL_CHAIN)]),
        ("an early issuer", early, vec![(CERTIFICATE, chain, "a certificate above the leaf is not valid yet", FULL_CHAIN)]),
        ("path length", narrow, vec![(CERTIFICATE, chain, "a CA in the chain has more CAs below it than it may have (path length)", FULL_CHAIN)]),
        ("name constraints", constrained, vec![(CERTIFICATE, chain, "a CA in the chain must not issue for this name (name constraints)", FULL_CHAIN)]),
        ("purpose", purpose, vec![(CERTIFICATE, chain, "a certificate in the chain is not for servers", FULL_CHAIN)]),
    ];
    let mut differ = Vec::new();
    for (name, files, expected) in table {
        let (printed, code) = check(&files);
        let expected = expected.into_iter().map(|(location, what, why, hint)| {
            let why = if why.is_empty() { String::new() } else { format!("caused by: {why}\n") };
            format!("warning: {what}\n{location}{why}hint: {hint}\n")
        });
        let expected: String = expected.collect();
        if (sentences(&printed), code) != (expected, 0) {
            differ.push(format!("{name}:\n{printed}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// The errors of the file, of variables and of certificates: one run, in one list.
#[test]
fn errors_of_certificates_are_listed_with_all_others() {
    let dir = TempDir::new().unwrap();
    let (pem, key) = Authority::new().write(dir.path(), "edge", &["auth.example.com"]);
    fs::write(&pem, "").unwrap();
    let config = format!(
        "public_url = \"https://auth.example.com/oauth\"\n[listen]\nhttps = \"0.0.0.0\"\n[tls]\n\
         certificate = \"{}\"\nprivate_key = \"{}x\"\nhtst = \"1y\"\n",
        pem.display(),
        key.display()
    );
    let (printed, code) = run(dir.path(), &config);
    let locations: Vec<_> = printed.lines().filter(|line| line.starts_with(" -->")).collect();
    assert_eq!(code, 64, "{printed}");
    let expected = ["1:14", "3:9", "5:15", "6:15", "7:1"];
    assert_eq!(locations, expected.map(|at| format!(" --> config.toml:{at}")), "{printed}");
}
