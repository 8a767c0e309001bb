//! Protocol conformance, tested by other programs: HTTP/2 frames, HTTP semantics, TLS.

use crate::peer::run;
use crate::support::{Authority, Edge, handshake};
use rustls::NamedGroup;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tokio::net::TcpStream;

fn edge() -> (Edge, Authority) {
    Edge::over_tls("tls.hsts = '1y'")
}

/// `frames.py` contains the table: about eighty cases, by section of RFC 9113.
#[test]
fn http2_frames_are_handled_as_rfc_9113_requires() {
    let (edge, _) = edge();
    let port = edge.https[0].port().to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/frames.py");
    let output = run("judges-python", edge.dir(), &[script, &port]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", stdout.lines().last().unwrap());
}

#[test]
fn redbot_reports_no_bad_note_on_the_redirect() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'");
    for target in ["/oauth/callback?code=1&state=2", "/oauth/callback"] {
        let url = format!("http://{}{target}", edge.http[0]);
        let output = run("redbot", edge.dir(), &["-o", "har", &url]);
        let har: Value = serde_json::from_slice(&output.stdout).unwrap();
        let entry = &har["log"]["entries"][0];
        assert_eq!(entry["response"]["status"], 308, "{har:#}");
        let notes = entry["_red_messages"].as_array().unwrap();
        let levels: BTreeSet<_> =
            notes.iter().map(|note| note["level"].as_str().unwrap()).collect();
        assert!(
            levels.contains("GOOD") && levels.is_subset(&["GOOD", "INFO"].into()),
            "{notes:#?}"
        );
    }
}

#[test]
fn sslyze_finds_tls_1_2_and_1_3_with_forward_secrecy_and_no_vulnerability() {
    let (edge, _) = edge();
    let server = format!("localhost:{}", edge.https[0].port());
    let scans = "--sslv2 --sslv3 --tlsv1 --tlsv1_1 --tlsv1_2 --tlsv1_3 --heartbleed --openssl_ccs \
                 --robot --compression --early_data --fallback --ems --reneg";
    let arguments: Vec<_> = ["--json_out=-", &server].into_iter().chain(scans.split(' ')).collect();
    let output = run("sslyze", edge.dir(), &arguments);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = &report["server_scan_results"][0]["scan_result"];
    let result = |name: &str| {
        assert_eq!(found[name]["status"], "COMPLETED", "{name}");
        &found[name]["result"]
    };
    let suites = |name: &str| -> Vec<&str> {
        let accepted = result(name)["accepted_cipher_suites"].as_array().unwrap().iter();
        accepted.map(|it| it["cipher_suite"]["name"].as_str().unwrap()).collect()
    };
    for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        assert_eq!(suites(&format!("{old}_cipher_suites")), [""; 0], "{old}");
    }
    let tls_1_2 = suites("tls_1_2_cipher_suites");
    assert_eq!(tls_1_2.len(), 3);
    for suite in tls_1_2 {
        assert!(suite.starts_with("TLS_ECDHE_"), "{suite}");
        assert!(suite.contains("GCM") || suite.contains("POLY1305"), "{suite}");
    }
    assert_eq!(suites("tls_1_3_cipher_suites").len(), 3);
    for (name, field, wanted) in [
        ("heartbleed", "is_vulnerable_to_heartbleed", Value::Bool(false)),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", Value::Bool(false)),
        ("robot", "robot_result", "NOT_VULNERABLE_RSA_NOT_SUPPORTED".into()),
        ("tls_compression", "supports_compression", Value::Bool(false)),
        ("tls_1_3_early_data", "supports_early_data", Value::Bool(false)),
        ("tls_fallback_scsv", "supports_fallback_scsv", Value::Bool(true)),
        ("tls_extended_master_secret", "supports_ems_extension", Value::Bool(true)),
        ("session_renegotiation", "supports_secure_renegotiation", Value::Bool(true)),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", Value::Bool(false)),
    ] {
        assert_eq!(result(name)[field], wanted, "{name}");
    }
}

/// Findings about the machine that testssl.sh runs on; and that the client selects among six cipher
/// suites of the same strength, according to what is fast on its processor.
const IGNORED: [&str; 3] = ["engine_problem", "DNS_CAArecord", "cipher_order"];

#[test]
fn testssl_reports_nothing_below_ok() {
    let (edge, _) = edge();
    let url = format!("https://localhost:{}/oauth/callback", edge.https[0].port());
    let flags = ["--quiet", "--warnings", "off", "--color", "0", "--ip", "127.0.0.1"];
    let file = ["--openssl-timeout", "10", "--jsonfile", "testssl.json", &url];
    let output = run("testssl", edge.dir(), &[&flags[..], &file[..]].concat());
    let stdout = String::from_utf8_lossy(&output.stdout);
    let findings = findings(&edge.dir().join("testssl.json")).unwrap_or_else(|| panic!("{stdout}"));
    let finding_of = |id: &str| {
        let of = |it: &&Value| it["id"] == id;
        findings.iter().find(of).unwrap_or_else(|| panic!("no finding {id}"))["finding"].clone()
    };
    for (id, finding) in [
        ("SSLv3", "not offered"),
        ("TLS1", "not offered"),
        ("TLS1_1", "not offered"),
        ("TLS1_2", "offered"),
        ("cipherlist_AVERAGE", "not offered"),
    ] {
        assert_eq!(finding_of(id), finding, "{id}");
    }
    let below: Vec<_> = findings
        .iter()
        .filter(|it| !["OK", "INFO"].contains(&it["severity"].as_str().unwrap()))
        .filter(|it| {
            let id = it["id"].as_str().unwrap();
            // The certificate is one of the test.
            !id.starts_with("cert_") && !IGNORED.contains(&id)
        })
        .collect();
    assert!(below.is_empty(), "{below:#?}");
}

fn findings(file: &Path) -> Option<Vec<Value>> {
    serde_json::from_str(&fs::read_to_string(file).ok()?).ok()
}

/// X25519MLKEM768 (a draft of the TLS working group), which browsers offer; clients without it are
/// served too.
#[tokio::test]
async fn hybrid_key_exchange_is_offered() {
    let (edge, authority) = edge();
    for (groups, agreed) in [
        (vec![kx_group::X25519MLKEM768, kx_group::X25519], NamedGroup::X25519MLKEM768),
        (vec![kx_group::X25519MLKEM768], NamedGroup::X25519MLKEM768),
        (vec![kx_group::X25519], NamedGroup::X25519),
    ] {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = groups;
        let stream = TcpStream::connect(edge.https[0]).await.unwrap();
        let client = authority.client_of(provider, &[]);
        let stream = handshake(client, stream, "localhost").await.unwrap();
        let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
        assert_eq!(group.name(), agreed);
    }
}
