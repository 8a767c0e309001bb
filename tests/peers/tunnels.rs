//! `check` through tinyproxy.

use crate::peer::Peer;
use crate::support::{Edge, certified, command, free, settings};
use serde_json::Value;

/// Every address of this machine, which is a loopback address to the system, and not to the client.
const HERE: &str = "0.0.0.0";

#[test]
fn tinyproxy_connects_authenticates_and_refuses() {
    let (_, dir) = certified(&[HERE]);
    let edge = Edge::start_in(dir, &settings::tls(""), |_| {});
    let callback = edge.https[0].port();
    let dead = free();
    let proxy = Peer::tinyproxy(&format!(
        "BasicAuth user s3cret\nConnectPort {callback}\nConnectPort {}\n",
        dead.port()
    ));
    let other = free();
    let address = proxy.address("proxy");
    let check = |userinfo: &str, port: u16| {
        let mut command = command(edge.dir());
        command.env("HTTPS_PROXY", format!("http://{userinfo}{address}"));
        command.args(["check", "--json", "--no-follow", "--ca", "ca.pem", "--only", "dns,tls"]);
        command.arg(format!("https://{HERE}:{port}/oauth/callback"));
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        let report: Value = serde_json::from_str(&text).unwrap();
        (output.status.code().unwrap(), report)
    };
    let (code, report) = check("user:s3cret@", callback);
    assert_eq!(code, 0, "{report:#}");
    assert!(report.to_string().contains(&format!("go through the proxy {address}")), "{report:#}");
    for (userinfo, port, text) in [
        ("", callback, "requires a user name and a password (407)"),
        ("user:wrong@", callback, "rejects its user name or password"),
        ("user:s3cret@", other.port(), "does not allow connections to"),
        ("user:s3cret@", dead.port(), "cannot connect to"),
    ] {
        let (code, report) = check(userinfo, port);
        assert_eq!(code, 3, "{report:#}");
        assert!(report.to_string().contains(text), "{text}: {report:#}");
    }
}
