//! Each way a certificate, a chain or a handshake can be wrong is reported in one sentence. OpenSSL
//! makes the certificates and serves them.

use crate::peer::{Peer, run};
use crate::support::command;
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const HOST: &str = "auth.example.test";
const LEAF: &str = "subjectAltName=DNS:auth.example.test";
const CA: &str = "basicConstraints=critical,CA:true";

/// A directory with keys and certificates.
struct Pki(TempDir);

impl Pki {
    /// With a root.
    fn new() -> Self {
        let pki = Self(TempDir::new().unwrap());
        pki.issue("root", "ec", None, CA, &[]);
        pki
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn openssl(&self, arguments: &[&str]) {
        self.run("openssl", arguments);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = run(program, self.dir(), arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
    }

    /// Issues a certificate to `NAME.pem`, with a key in `NAME.key`. Without extensions it has version 1.
    fn issue(&self, name: &str, key: &str, issuer: Option<&str>, extensions: &str, more: &[&str]) {
        self.request(name, key, &format!("/O=Example/CN=the {name}"));
        self.sign("", name, issuer, extensions, more);
    }

    fn request(&self, name: &str, key: &str, subject: &str) {
        let file = |extension: &str| format!("{name}.{extension}");
        let mut arguments = vec!["req", "-new", "-nodes", "-newkey"];
        let (kind, option) = key.split_once(' ').unwrap_or((key, ""));
        arguments.push(kind);
        match (kind, option) {
            ("ec", "") => arguments.extend(["-pkeyopt", "ec_paramgen_curve:P-256"]),
            (_, "") => {}
            (_, option) => arguments.extend(["-pkeyopt", option]),
        }
        let (key, csr) = (file("key"), file("csr"));
        arguments.extend(["-keyout", &key, "-out", &csr, "-subj", subject]);
        self.openssl(&arguments);
    }

    /// Signs the request at another time, if that is not empty.
    fn sign(&self, time: &str, name: &str, issuer: Option<&str>, extensions: &str, more: &[&str]) {
        let file = |name: &str, extension: &str| format!("{name}.{extension}");
        let (csr, pem, ext) = (file(name, "csr"), file(name, "pem"), file(name, "ext"));
        let mut arguments = vec!["x509", "-req", "-in", &csr, "-out", &pem, "-days", "90"];
        let by = issuer.unwrap_or(name);
        let (certificate, key) = (file(by, "pem"), file(by, "key"));
        match issuer {
            Some(_) => arguments.extend(["-CA", &certificate, "-CAkey", &key, "-CAcreateserial"]),
            None => arguments.extend(["-signkey", &key]),
        }
        if !extensions.is_empty() {
            fs::write(self.dir().join(&ext), extensions.replace("; ", "\n")).unwrap();
            arguments.extend(["-extfile", &ext]);
        }
        arguments.extend(more);
        if time.is_empty() {
            self.openssl(&arguments);
        } else {
            self.run("faketime", &[&[time, "openssl"][..], &arguments[..]].concat());
        }
    }

    /// Serves `NAME.pem` and these certificates after it.
    fn serve(&self, name: &str, above: &[&str], more: &str) -> Peer {
        let path = |file: &str| self.dir().join(file).display().to_string();
        let mut arguments = format!(
            "-cert {} -key {} {more}",
            path(&format!("{name}.pem")),
            path(&format!("{name}.key"))
        );
        if !above.is_empty() {
            let read = |name| fs::read_to_string(path(&format!("{name}.pem"))).unwrap();
            let chain: String = above.iter().map(read).collect();
            fs::write(path("above.pem"), chain).unwrap();
            arguments.push_str(" -cert_chain ");
            arguments.push_str(&path("above.pem"));
        }
        Peer::openssl(&arguments)
    }

    /// The report about a server, by check id.
    fn check(&self, server: &Peer, ca: Option<&str>, host: &str) -> Report {
        let address = server.address("tls");
        let mut command = command(self.dir());
        command.args(["check", "--json", "--no-follow", "--only", "tls"]);
        command.args(["--target", "https://api.nango.dev/oauth/callback"]);
        if let Some(ca) = ca {
            command.arg("--ca").arg(format!("{ca}.pem"));
        }
        command.arg("--resolve").arg(format!("{host}:{}:127.0.0.1", address.port()));
        command.arg(format!("https://{host}:{}/oauth/callback", address.port()));
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        for library in ["webpki", "rustls", "Error", "Context", "OtherError"] {
            assert!(!text.contains(library), "{library}: {text}");
        }
        Report { code: output.status.code().unwrap(), json: serde_json::from_str(&text).unwrap() }
    }
}

struct Report {
    code: i32,
    json: Value,
}

impl Report {
    fn part(&self, id: &str, field: &str) -> &str {
        let checks = self.json["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["id"] == id).unwrap();
        check[field].as_str().unwrap_or("")
    }

    /// Status and summary of a check.
    #[track_caller]
    fn assert(&self, id: &str, status: &str, summary: &str) {
        let shown = || format!("{id}: {:#}", self.json);
        assert_eq!(self.part(id, "status"), status, "{}", shown());
        let all = format!("{}\n{}", self.part(id, "summary"), self.part(id, "detail"));
        assert!(all.contains(summary), "`{summary}` is not in {}", shown());
    }
}

#[test]
fn a_valid_chain_passes_in_any_order_and_with_unrelated_certificates() {
    let pki = Pki::new();
    pki.issue("middle", "rsa:2048", Some("root"), CA, &[]);
    pki.issue("bottom", "ec", Some("middle"), &format!("{CA},pathlen:0"), &["-sha384"]);
    pki.issue("other", "ec", None, CA, &["-sha1"]);
    let usage = "extendedKeyUsage=serverAuth,clientAuth";
    let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"];
    pki.issue("leaf", "rsa:2048", Some("bottom"), &format!("{LEAF}; {usage}"), &[]);
    pki.issue("pss", "rsa:2048", Some("middle"), LEAF, &pss);
    pki.issue("p384", "ec ec_paramgen_curve:P-384", Some("root"), LEAF, &[]);
    pki.issue("wild", "ec", Some("root"), "subjectAltName=DNS:*.example.test", &[]);
    for (leaf, above) in [
        ("leaf", &["bottom", "middle"][..]),
        ("leaf", &["other", "root", "middle", "bottom"]),
        ("pss", &["middle", "root"]),
        ("p384", &[]),
        ("wild", &[]),
    ] {
        let report = pki.check(&pki.serve(leaf, above, ""), Some("root"), HOST);
        report.assert("tls.chain", "pass", "");
        report.assert("tls.name", "pass", "");
        assert_eq!(report.code, 0, "{leaf}: {:#}", report.json);
    }
    let report =
        pki.check(&pki.serve("leaf", &["bottom", "middle"], "-tls1_2"), Some("root"), HOST);
    report.assert("tls.chain", "pass", "");
    report.assert("tls.handshake", "pass", "TLS 1.2");
}

/// What is wrong, the leaf, what is sent after it, and the root that is given.
type Case = (&'static str, &'static str, &'static [&'static str], Option<&'static str>);

#[test]
fn each_flaw_of_a_chain_is_one_sentence() {
    let pki = Pki::new();
    let leaf = |name: &str, key: &str, issuer: &str, extensions: &str, more: &[&str]| {
        pki.issue(name, key, Some(issuer), extensions, more);
    };
    leaf("sha1", "ec", "root", LEAF, &["-sha1"]);
    leaf("short", "rsa:1024", "root", LEAF, &[]);
    leaf("v1", "ec", "root", "", &[]);
    leaf("client", "ec", "root", &format!("{LEAF}; extendedKeyUsage=clientAuth"), &[]);
    leaf("ca", "ec", "root", &format!("{LEAF}; {CA}"), &[]);
    leaf("critical", "ec", "root", &format!("{LEAF}; 1.2.3.4=critical,DER:0500"), &[]);
    leaf("usual", "ec", "root", LEAF, &[]);
    pki.issue("self", "ec", None, LEAF, &[]);
    pki.issue("default", "ec", None, &format!("{LEAF}; {CA}"), &[]);
    pki.issue("foreign", "ec", None, CA, &[]);
    leaf("stranger", "ec", "foreign", LEAF, &[]);
    for (name, key, extensions, more) in [
        ("oldhash", "ec", CA, &["-sha1"][..]),
        ("shortkey", "rsa:1024", CA, &[]),
        ("noca", "ec", "basicConstraints=CA:false", &[]),
        (
            "limited",
            "ec",
            "basicConstraints=critical,CA:true; nameConstraints=critical,permitted;DNS:other.test",
            &[],
        ),
        (
            "mailca",
            "ec",
            "basicConstraints=critical,CA:true; extendedKeyUsage=emailProtection",
            &[],
        ),
        ("nosub", "ec", "basicConstraints=critical,CA:true,pathlen:0", &[]),
        ("middle", "ec", CA, &[]),
        ("koblitz", "ec ec_paramgen_curve:secp256k1", CA, &[]),
    ] {
        leaf(name, key, "root", extensions, more);
        leaf(&format!("below-{name}"), "ec", name, LEAF, &[]);
    }
    leaf("sub", "ec", "nosub", CA, &[]);
    leaf("below-sub", "ec", "sub", LEAF, &[]);
    let aia = format!("{LEAF}; authorityInfoAccess=caIssuers;URI:http://ca.test/ca.der");
    leaf("published", "ec", "middle", &aia, &[]);
    for (name, time) in [("expired", "2020-01-01 00:00:00"), ("future", "2035-01-01 00:00:00")] {
        pki.request(name, "ec", &format!("/O=Example/CN=the {name}"));
        pki.sign(time, name, Some("root"), CA, &[]);
        leaf(&format!("below-{name}"), "ec", name, LEAF, &[]);
    }
    // A root with the same name and another key.
    pki.request("renewed", "ec", "/O=Example/CN=the root");
    pki.sign("", "renewed", None, CA, &[]);

    #[rustfmt::skip]
    let cases: &[Case] = &[
        ("the certificate is signed with SHA-1, which browsers reject", "sha1", &[], Some("root")),
        ("the RSA key of the certificate has 1024 bits, and browsers need 2048", "short", &[], Some("root")),
        ("the certificate is X.509 version 1, and browsers need 3", "v1", &[], Some("root")),
        ("the certificate is not for servers: its extended key usage lacks serverAuth", "client", &[], Some("root")),
        ("the certificate is that of a CA, not of a server", "ca", &[], Some("root")),
        ("a critical extension that browsers do not know: 1.2.3.4", "critical", &[], Some("root")),
        ("the certificate is self-signed", "self", &[], None),
        ("the certificate is self-signed", "self", &[], Some("root")),
        ("the certificate is self-signed", "default", &[], None),
        ("the certificate is that of a CA, not of a server", "default", &[], Some("default")),
        ("the issuer is not trusted", "usual", &[], None),
        ("the issuer is not trusted", "usual", &["root"], None),
        ("the chain is incomplete: an intermediate certificate is missing", "published", &[], None),
        ("the chain is incomplete: an intermediate certificate is missing", "published", &[], Some("root")),
        ("the chain is incomplete: an intermediate certificate is missing", "below-middle", &["root"], Some("root")),
        ("the chain does not lead to the given CA (O=Example, CN=the root): O=Example, CN=the middle is neither sent nor given", "below-middle", &[], Some("root")),
        ("the chain does not lead to the given CA (O=Example, CN=the root): O=Example, CN=the foreign is neither sent nor given", "stranger", &[], Some("root")),
        ("the chain ends at another root than the given CA (O=Example, CN=the root)", "stranger", &["foreign"], Some("root")),
        ("the given CA has the name of the issuer, and another key", "usual", &[], Some("renewed")),
        ("the intermediate certificate O=Example, CN=the oldhash is signed with SHA-1, which browsers reject", "below-oldhash", &["oldhash"], Some("root")),
        ("the RSA key of the intermediate certificate O=Example, CN=the shortkey has 1024 bits", "below-shortkey", &["shortkey"], Some("root")),
        ("the intermediate certificate O=Example, CN=the noca is not that of a CA", "below-noca", &["noca"], Some("root")),
        ("a CA in the chain must not issue for this name (name constraints)", "below-limited", &["limited"], Some("root")),
        ("the mailca must not issue for servers", "below-mailca", &["mailca"], Some("root")),
        ("a CA in the chain has more CAs below it than it may have (path length)", "below-sub", &["sub", "nosub"], Some("root")),
        ("uses an algorithm or a kind of key that browsers do not accept", "below-koblitz", &["koblitz"], Some("root")),
        ("the intermediate certificate O=Example, CN=the expired has expired on 2020-03-31", "below-expired", &["expired"], Some("root")),
        ("the intermediate certificate O=Example, CN=the future is not valid before 2035-01-01", "below-future", &["future"], Some("root")),
    ];
    for (sentence, leaf, above, ca) in cases {
        let server = pki.serve(leaf, above, "-cipher DEFAULT@SECLEVEL=0");
        let report = pki.check(&server, *ca, HOST);
        report.assert("tls.chain", "fail", sentence);
        assert!(report.part("tls.chain", "summary").contains(sentence), "{:#}", report.json);
        assert_eq!(report.code, 1);
        // A given CA is not advised again.
        let hint = report.part("tls.chain", "hint");
        let again = ca.is_some() && hint.contains("pass its root with --ca");
        assert!(!hint.is_empty() && !again, "{leaf}: {hint}");
    }
    // Two faults: the second one is in the details.
    let report = pki.check(&pki.serve("sha1", &[], "-cipher DEFAULT@SECLEVEL=0"), None, HOST);
    report.assert("tls.chain", "fail", "also: the issuer is not trusted");
    let report = pki.check(&pki.serve("default", &[], ""), None, HOST);
    report.assert("tls.chain", "fail", "also: the certificate is that of a CA");
}

#[test]
fn a_name_counts_only_as_a_subject_alternative_name() {
    let pki = Pki::new();
    pki.request("cn", "ec", "/CN=auth.example.test");
    pki.sign("", "cn", Some("root"), "basicConstraints=CA:false", &[]);
    let report = pki.check(&pki.serve("cn", &[], ""), Some("root"), HOST);
    report.assert("tls.chain", "pass", "");
    report.assert(
        "tls.name",
        "fail",
        "no subject alternative name; browsers ignore the common name",
    );
    pki.issue("wild", "ec", Some("root"), "subjectAltName=DNS:*.test", &[]);
    pki.check(&pki.serve("wild", &[], ""), Some("root"), HOST).assert("tls.name", "fail", "*.test");
    pki.issue("ip", "ec", Some("root"), "subjectAltName=IP:127.0.0.1", &[]);
    let server = pki.serve("ip", &[], "");
    pki.check(&server, Some("root"), "127.0.0.1").assert("tls.name", "pass", "");
    pki.check(&server, Some("root"), HOST).assert("tls.name", "fail", "127.0.0.1");
}

#[test]
fn keys_that_no_browser_accepts_are_a_warning() {
    let pki = Pki::new();
    for (key, name) in [("ed25519", "Ed25519"), ("ec ec_paramgen_curve:P-521", "P-521")] {
        pki.issue("leaf", key, Some("root"), LEAF, &[]);
        let report = pki.check(&pki.serve("leaf", &[], ""), Some("root"), HOST);
        report.assert("tls.chain", "warn", &format!("browsers do not accept {name} keys"));
    }
}

#[test]
fn each_failed_handshake_is_one_sentence() {
    let pki = Pki::new();
    pki.issue("leaf", "rsa:2048", Some("root"), LEAF, &[]);
    pki.issue("ec", "ec", Some("root"), LEAF, &[]);
    pki.issue("ed448", "ed448", Some("root"), LEAF, &[]);
    pki.issue("psskey", "rsa-pss rsa_keygen_bits:2048", Some("root"), LEAF, &[]);
    let nothing = "accepts no TLS version, cipher suite or kind of certificate of browsers";
    #[rustfmt::skip]
    let cases = [
        ("unknown", "accepts only RSA key exchange: browsers still connect", "leaf", "-tls1_2 -cipher AES128-SHA:AES256-GCM-SHA384"),
        ("unknown", "accepts only CBC cipher suites: browsers still connect", "leaf", "-tls1_2 -cipher ECDHE-RSA-AES128-SHA"),
        ("fail", "accepts only cipher suites that browsers do not offer", "leaf", "-tls1_2 -cipher ECDHE-RSA-AES128-SHA256"),
        ("fail", "accepts only cipher suites that browsers do not offer", "leaf", "-tls1_2 -cipher DHE-RSA-AES128-GCM-SHA256"),
        ("fail", nothing, "leaf", "-tls1_2 -cipher ECDHE-RSA-CAMELLIA128-SHA256"),
        ("fail", nothing, "ed448", ""),
        ("fail", nothing, "psskey", ""),
        ("fail", "the newest version that it accepts is TLS 1.1", "leaf", "-tls1_1 -cipher DEFAULT@SECLEVEL=0"),
        ("fail", "the newest version that it accepts is TLS 1.0", "ec", "-tls1 -cipher DEFAULT@SECLEVEL=0"),
        ("fail", "requires a client certificate, which browsers of users do not have", "leaf", "-Verify 2 -tls1_2"),
        ("fail", "requires a client certificate, which browsers of users do not have", "leaf", "-Verify 2 -tls1_3"),
        ("fail", "has no certificate for this host", "leaf", "-servername other.test -servername_fatal -cert2 {leaf}.pem -key2 {leaf}.key"),
        // A server that only asks.
        ("pass", "accepts TLS 1.3", "leaf", "-verify 2"),
    ];
    for (status, sentence, leaf, arguments) in cases {
        let own = pki.dir().join(leaf).display().to_string();
        let server = pki.serve(leaf, &[], &arguments.replace("{leaf}", &own));
        let report = pki.check(&server, Some("root"), HOST);
        report.assert("tls.handshake", status, sentence);
        let code = match status {
            "pass" => 0,
            "unknown" => 2,
            _ => 1,
        };
        assert_eq!(report.code, code, "{sentence}: {:#}", report.json);
        assert!(status == "pass" || !report.part("tls.handshake", "hint").is_empty());
    }
}

#[test]
fn nginx_asks_for_a_client_certificate() {
    let pki = Pki::new();
    pki.issue("leaf", "ec", Some("root"), LEAF, &[]);
    for (verify, status, summary) in [
        ("on", "warn", "the server asks for a client certificate"),
        ("optional", "pass", "accepts TLS 1."),
    ] {
        let nginx = Peer::nginx(
            &"
            http {
                server {
                    listen 127.0.0.1:{port:tls} ssl;
                    ssl_certificate {pki}/leaf.pem;
                    ssl_certificate_key {pki}/leaf.key;
                    ssl_client_certificate {pki}/root.pem;
                    ssl_verify_client {verify};
                    location / { return 204; }
                }
            }
            "
            .replace("{pki}", &pki.dir().display().to_string())
            .replace("{verify}", verify),
        );
        pki.check(&nginx, Some("root"), HOST).assert("tls.handshake", status, summary);
    }
}

#[test]
fn nginx_without_a_certificate_for_the_host_and_without_tls() {
    let pki = Pki::new();
    for (listen, summary) in [
        ("ssl; ssl_reject_handshake on", "has no certificate for this host"),
        ("", "responds with plain HTTP instead of TLS"),
    ] {
        let nginx = Peer::nginx(&format!(
            "http {{ server {{ listen 127.0.0.1:{{port:tls}} {listen}; }} }}"
        ));
        pki.check(&nginx, Some("root"), HOST).assert("tls.handshake", "fail", summary);
    }
}

#[test]
fn only_the_store_of_this_machine_proves_nothing_about_users() {
    let pki = Pki::new();
    pki.issue("leaf", "ec", Some("root"), LEAF, &[]);
    let server = pki.serve("leaf", &[], "");
    let port = server.address("tls").port();
    for (variable, value) in [("SSL_CERT_FILE", "root.pem"), ("SSL_CERT_DIR", "store")] {
        fs::create_dir_all(pki.dir().join("store")).unwrap();
        fs::copy(pki.dir().join("root.pem"), pki.dir().join("store/5a5a5a5a.0")).unwrap();
        let mut command = command(pki.dir());
        command.env(variable, pki.dir().join(value));
        command.args(["check", "--json", "--no-follow", "--only", "tls"]);
        command.args(["--target", "https://api.nango.dev/oauth/callback"]);
        command.arg("--resolve").arg(format!("{HOST}:{port}:127.0.0.1"));
        let output = command.arg(format!("https://{HOST}:{port}/oauth/callback")).output().unwrap();
        let json = serde_json::from_slice(&output.stdout).unwrap();
        let report = Report { code: output.status.code().unwrap(), json };
        let sentence = "only the certificate store of this machine trusts the issuer";
        report.assert("tls.chain", "unknown", sentence);
        report.assert(
            "tls.chain",
            "unknown",
            "issued by O=Example, CN=the root: a private CA, or a program that inspects TLS",
        );
        assert_eq!(report.code, 2);
    }
}
