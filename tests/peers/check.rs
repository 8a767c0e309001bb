//! `callback-edge check` against other servers: correct configurations pass, common wrong ones are
//! reported under the expected ids.

use crate::peer::Peer;
use crate::support::{Edge, certified, command};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use tempfile::TempDir;

/// Checks the callback at this address: exit code and ids of the failed checks.
fn check(dir: &TempDir, address: SocketAddr, tls: bool) -> (i32, Vec<String>) {
    let scheme = if tls { "https" } else { "http" };
    let port = address.port();
    let mut command = command(dir.path());
    command.args([
        "check",
        "--json",
        "--no-follow",
        "--target",
        "https://api.nango.dev/oauth/callback",
    ]);
    if tls {
        command.args(["--ca", "ca.pem"]);
    }
    command.arg("--resolve").arg(format!("localhost:{port}:{}", address.ip()));
    let output =
        command.arg(format!("{scheme}://localhost:{port}/oauth/callback")).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed = report["checks"].as_array().unwrap().iter();
    let failed = failed.filter(|check| check["status"] == "fail");
    let failed = failed.map(|check| {
        assert!(check["hint"].is_string(), "no hint: {check:#}");
        check["id"].as_str().unwrap().to_owned()
    });
    (output.status.code().unwrap(), failed.collect())
}

/// A directory with a CA and a certificate for `localhost`, also as one file for `HAProxy`.
fn certified_in_one_file() -> TempDir {
    let (_, dir) = certified(&["localhost"]);
    let path = |name: &str| dir.path().join(name);
    let both = ["edge.pem", "edge.key"].map(|name| fs::read_to_string(path(name)).unwrap());
    fs::write(path("both.pem"), both.concat()).unwrap();
    dir
}

#[test]
fn correct_configurations_pass() {
    let dir = certified_in_one_file();
    let certs = dir.path().display().to_string();
    let nginx = Peer::nginx(
        &"
        http {
            large_client_header_buffers 4 32k;
            server {
                listen 127.0.0.1:{port:tls} ssl http2;
                ssl_certificate {certs}/edge.pem;
                ssl_certificate_key {certs}/edge.key;
                add_header Cache-Control no-store always;
                location = /oauth/callback { return 308 https://api.nango.dev/oauth/callback$is_args$args; }
                location = /app-auth/connect { return 308 https://api.nango.dev/app-auth/connect$is_args$args; }
            }
        }
        "
        .replace("{certs}", &certs),
    );
    let haproxy = Peer::haproxy(
        &"
        global
            tune.bufsize 65536
        defaults
            mode http
            timeout client 20s
            timeout connect 20s
            timeout server 20s
        frontend callback
            bind 127.0.0.1:{port:tls} ssl crt {certs}/both.pem alpn h2,http/1.1
            http-after-response set-header Cache-Control no-store
            http-request redirect location \"https://api.nango.dev%[path]?%[query]\" code 308 if { query -m found }
            http-request redirect location \"https://api.nango.dev%[path]\" code 308
        "
        .replace("{certs}", &certs),
    );
    let caddy = Peer::caddy(
        &"
        https://localhost:{port:tls} {
            bind 127.0.0.1
            tls {certs}/edge.pem {certs}/edge.key
            header Cache-Control no-store
            redir https://api.nango.dev{uri} 308
        }
        "
        .replace("{certs}", &certs),
    );
    for (name, peer) in [("nginx", &nginx), ("HAProxy", &haproxy), ("Caddy", &caddy)] {
        assert_eq!(check(&dir, peer.address("tls"), true), (0, vec![]), "{name}");
    }

    let mut node = Peer::node("callback.mjs", &["correct"]);
    assert_eq!(check(&dir, port(&mut node), false), (0, vec![]), "Node");

    let (edge, _) = Edge::over_tls("");
    fs::copy(edge.dir().join("ca.pem"), dir.path().join("ca.pem")).unwrap();
    assert_eq!(check(&dir, edge.https[0], true), (0, vec![]), "callback-edge");
}

#[test]
fn common_configuration_errors_are_reported() {
    let dir = TempDir::new().unwrap();
    let mut differ = Vec::new();
    let mut assert_fails = |name: &str, address: SocketAddr, ids: &[&str]| {
        let (code, failed) = check(&dir, address, false);
        if code != 1 || failed != ids {
            differ.push(format!("{name}: exit {code}, {failed:?} instead of {ids:?}"));
        }
    };

    #[rustfmt::skip]
    let nginx: &[(&str, &[&str])] = &[
        // In the last one, `add_header` in the location replaces that of the server.
        ("return 308 https://api.nango.dev/oauth/callback;", &["redirect.query"]),
        ("return 308 https://api.nango.dev$uri;", &["redirect.query"]),
        ("rewrite ^ https://api.nango.dev/oauth/callback? permanent;", &["redirect.query"]),
        ("return 308 https://api.nango.dev/oauth/callback$request_uri;", &["redirect.target"]),
        ("add_header X-By nginx; return 301 https://api.nango.dev/oauth/callback$is_args$args;", &["redirect.cache"]),
    ];
    for (line, ids) in nginx {
        let peer = Peer::nginx(&format!(
            "http {{
                large_client_header_buffers 4 32k;
                add_header Cache-Control no-store always;
                server {{ listen 127.0.0.1:{{port:plain}}; location = /oauth/callback {{ {line} }} }}
            }}"
        ));
        assert_fails(line, peer.address("plain"), ids);
    }

    let caddy: &[(&str, &[&str])] = &[
        ("redir https://api.nango.dev/oauth/callback 308", &["redirect.query"]),
        ("redir https://api.nango.dev/oauth/callback{uri} 308", &["redirect.target"]),
        (
            "redir https://api.nango.dev/oauth/callback?{http.request.uri.query_string} 308",
            &["redirect.query"],
        ),
    ];
    for (line, ids) in caddy {
        let peer = Peer::caddy(&format!(
            "http://localhost:{{port:plain}} {{\n\tbind 127.0.0.1\n\theader Cache-Control no-store\n\t{line}\n}}"
        ));
        assert_fails(line, peer.address("plain"), ids);
    }

    let haproxy: &[(&str, &[&str])] = &[
        ("location https://api.nango.dev%[path] code 308", &["redirect.query"]),
        ("prefix https://api.nango.dev drop-query code 308", &["redirect.query"]),
    ];
    for (line, ids) in haproxy {
        let peer = Peer::haproxy(&format!(
            "global\n  tune.bufsize 65536\ndefaults\n  mode http\n  timeout client 20s\n  timeout connect 20s\n  timeout server 20s\n\
             frontend callback\n  bind 127.0.0.1:{{port:plain}}\n  http-after-response set-header Cache-Control no-store\n  http-request redirect {line}"
        ));
        assert_fails(line, peer.address("plain"), ids);
    }

    let node: &[(&str, &[&str])] = &[
        ("from_entries", &["redirect.parameters"]),
        ("helmet", &["redirect.coop"]),
        ("echo", &["redirect.echo"]),
    ];
    for (which, ids) in node {
        let mut peer = Peer::node("callback.mjs", &[which]);
        assert_fails(which, port(&mut peer), ids);
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

fn port(node: &mut Peer) -> SocketAddr {
    let port = node.receive()["port"].as_u64().unwrap();
    ([127, 0, 0, 1], u16::try_from(port).unwrap()).into()
}
