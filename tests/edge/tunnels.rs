//! Checks through a proxy, and servers that fail in the TLS handshake.

use crate::fakes::{Act, Authority, CertificateSpec, Chain, HOST, behaviour, correct, plain, tls};
use crate::support::{command, free};
use callback_edge::outbound::{
    Limits, Offer, Outbound, Proxies, Reason, Request, Resolver, Roots, Server, Step,
};
use http::{HeaderMap, Method};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// A proxy that knows one server under every name, and records the heads of its requests.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Connects to the server, except for port 80.
    async fn to(server: SocketAddr) -> Self {
        Self::start(move |head| {
            if head.contains(":80 ") { Err("HTTP/1.1 403 Forbidden\r\n\r\n") } else { Ok(server) }
        })
        .await
    }

    async fn start(
        decide: impl Fn(&str) -> Result<SocketAddr, &'static str> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (log, decide) = (Arc::clone(&heads), Arc::new(decide));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (log, decide) = (Arc::clone(&log), Arc::clone(&decide));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.ok()?);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let decision = decide(&head);
                    log.lock().unwrap().push(head);
                    match decision {
                        Err(response) => stream.write_all(response.as_bytes()).await.ok()?,
                        Ok(server) => {
                            let mut to = TcpStream::connect(server).await.ok()?;
                            stream.write_all(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n").await.ok()?;
                            copy_bidirectional(&mut stream, &mut to).await.ok()?;
                        }
                    }
                    Some(())
                });
            }
        });
        Self { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// A correct callback, its CA and a directory with `ca.pem`.
async fn callback() -> (SocketAddr, TempDir) {
    let authority = Authority::new("ours");
    let config = authority.issue(CertificateSpec::default()).config(&["h2", "http/1.1"]);
    let act = behaviour(|heard| Act::Reply(correct("https://api.nango.dev", heard)));
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    (tls(config, act).await, dir)
}

struct Run {
    code: i32,
    output: String,
    json: Value,
}

impl Run {
    fn part(&self, id: &str, field: &str) -> &str {
        let checks = self.json["checks"].as_array().unwrap_or_else(|| panic!("{}", self.output));
        checks.iter().find(|check| check["id"] == id).unwrap()[field].as_str().unwrap_or("")
    }
}

/// Checks `https://HOST/oauth/callback`.
async fn check(dir: &TempDir, environment: &[(&str, &str)], arguments: &[&str]) -> Run {
    let mut command = command(dir.path());
    command.args(["check", "--json", "--no-follow"]).arg(format!("https://{HOST}/oauth/callback"));
    command.args(arguments).envs(environment.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let json = serde_json::from_str(&stdout).unwrap_or_default();
    let output_text = stdout + &String::from_utf8(output.stderr).unwrap();
    Run { code: output.status.code().unwrap(), output: output_text, json }
}

#[tokio::test]
async fn a_check_runs_through_the_proxy_of_the_environment() {
    let (server, dir) = callback().await;
    let proxy = Proxy::to(server).await;
    let url = format!("http://user:s3cret@{}", proxy.address);
    let run = check(&dir, &[("ALL_PROXY", &url)], &["--ca", "ca.pem"]).await;
    assert_eq!(run.code, 0, "{}", run.output);
    let why = format!("not run: requests go through the proxy {}", proxy.address);
    for id in ["dns.resolves", "dns.public", "dns.reach", "dns.alike"] {
        assert_eq!((run.part(id, "status"), run.part(id, "detail")), ("skip", &*why));
    }
    assert_eq!(run.part("redirect.http", "status"), "skip", "{}", run.output);
    assert_eq!(run.part("redirect.query", "status"), "pass");
    let subject = format!("https://{HOST}/oauth/callback via the proxy {}", proxy.address);
    assert_eq!(run.part("redirect.query", "subject"), subject);
    let head = &proxy.heads()[0];
    assert!(head.starts_with(&format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n")));
    assert!(head.contains("\r\nProxy-Authorization: Basic dXNlcjpzM2NyZXQ=\r\n"), "{head}");
    assert!(!run.output.contains("s3cret") && !run.output.contains("czNjcmV0"), "{}", run.output);
}

#[tokio::test]
async fn plain_http_goes_through_its_own_proxy() {
    let act = behaviour(|heard| Act::Reply(correct("https://api.nango.dev", heard)));
    let server = plain(act).await;
    let dir = TempDir::new().unwrap();
    let proxy = Proxy::start(move |_| Ok(server)).await;
    let url = format!("http://{}", proxy.address);
    let mut command = command(dir.path());
    command.args(["check", "--json", "--no-follow", "--only", "redirect"]);
    command.arg(format!("http://{HOST}/oauth/callback"));
    // `HTTP_PROXY` has no effect, as with curl.
    command.env("http_proxy", &url).env("HTTP_PROXY", "http://127.0.0.1:1");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(proxy.heads()[0].starts_with(&format!("CONNECT {HOST}:80 HTTP/1.1\r\n")));
}

#[tokio::test]
async fn a_fault_of_the_proxy_is_not_a_fault_of_the_callback() {
    let dir = TempDir::new().unwrap();
    let refusals: [(&str, &str); 6] = [
        ("HTTP/1.1 407 X\r\n\r\n", "requires a user name and a password (407)"),
        ("HTTP/1.1 403 X\r\n\r\n", "does not allow connections to auth.example.test:443 (403)"),
        ("HTTP/1.1 502 X\r\n\r\n", "cannot connect to auth.example.test:443 (502)"),
        ("HTTP/1.0 503 X\r\n\r\n", "cannot connect to auth.example.test:443 (503)"),
        ("SSH-2.0-proxy\r\n\r\n", "does not respond to CONNECT with HTTP"),
        ("", "is unusable: response: the connection was closed"),
    ];
    let assert = |run: &Run, text: &str| {
        assert_eq!(run.code, 3, "{}", run.output);
        assert_eq!(run.json["verdict"], "error", "{}", run.output);
        assert_eq!(run.part("dns.reach", "status"), "unknown", "{}", run.output);
        assert!(run.part("dns.reach", "detail").contains(text), "{text}: {}", run.output);
        let failed = |check: &Value| check["status"] == "fail";
        assert!(!run.json["checks"].as_array().unwrap().iter().any(failed), "{}", run.output);
    };
    for (response, text) in refusals {
        let proxy = Proxy::start(move |_| Err(response)).await;
        let url = format!("http://{}", proxy.address);
        assert(&check(&dir, &[("https_proxy", &url)], &[]).await, text);
    }
    let proxy = Proxy::start(|_| Err("HTTP/1.1 407 X\r\n\r\n")).await;
    let url = format!("http://u:wrong@{}", proxy.address);
    let run = check(&dir, &[("https_proxy", &url)], &[]).await;
    assert(&run, "rejects its user name or password (407)");
    let dead = free();
    let url = format!("http://{}", *dead);
    let run = check(&dir, &[("https_proxy", &url)], &[]).await;
    assert(&run, "is unusable: connect: connection refused");
}

#[tokio::test]
async fn overrides_and_no_proxy_bypass_the_proxy() {
    let (server, dir) = callback().await;
    let proxy = Proxy::start(|_| Err("HTTP/1.1 502 X\r\n\r\n")).await;
    let url = format!("http://{}", proxy.address);
    let to = format!("{HOST}:443:{server}");
    let run = check(&dir, &[("HTTPS_PROXY", &url)], &["--ca", "ca.pem", "--connect-to", &to]).await;
    assert_eq!(run.code, 0, "{}", run.output);
    for no in ["*", "example.test", ".example.test", "auth.example.test:443"] {
        let environment = [("HTTPS_PROXY", &*url), ("NO_PROXY", no)];
        let run = check(&dir, &environment, &["--only", "dns", "--timeout", "2s"]).await;
        // The host does not exist, which only a direct lookup finds out.
        assert!(!run.output.contains("proxy"), "{no}: {}", run.output);
    }
    assert_eq!(proxy.heads(), Vec::<String>::new());
}

#[tokio::test]
async fn an_unsupported_proxy_is_a_usage_error_without_its_password() {
    let dir = TempDir::new().unwrap();
    for scheme in ["https", "socks5", "socks5h", "ftp"] {
        let url = format!("{scheme}://user:s3cret@proxy.test:1080");
        let run = check(&dir, &[("HTTPS_PROXY", &url)], &[]).await;
        let expected = format!(
            "error: unsupported proxy scheme `{scheme}` in `HTTPS_PROXY`\n\
             hint: set the URL of an http proxy, for example http://proxy.example.com:3128\n"
        );
        assert_eq!((run.code, run.output), (64, expected));
    }
}

#[tokio::test]
async fn a_proxy_that_inspects_tls_proves_nothing_about_the_callback() {
    let (server, dir) = callback().await;
    let proxy = Proxy::to(server).await;
    let url = format!("http://{}", proxy.address);
    let store = dir.path().join("ca.pem").display().to_string();
    let environment = [("HTTPS_PROXY", &*url), ("SSL_CERT_FILE", &store)];
    let run = check(&dir, &environment, &["--skip", "redirect.http"]).await;
    assert_eq!(run.code, 2, "{}", run.output);
    assert_eq!(run.part("tls.chain", "status"), "unknown");
    let inspects = format!("probably the proxy {} inspects TLS", proxy.address);
    assert!(run.part("tls.chain", "detail").contains(&inspects), "{}", run.output);
}

#[tokio::test]
async fn a_proxy_does_not_widen_the_allowed_addresses() {
    let proxy = Proxy::start(|_| Err("HTTP/1.1 502 X\r\n\r\n")).await;
    let url = format!("http://{}", proxy.address);
    let proxies = Proxies::from_env(|name| (name == "HTTPS_PROXY").then(|| url.clone())).unwrap();
    let outbound = Outbound::new(Resolver::default(), Roots::public(), Limits::default())
        .with_proxies(proxies)
        .public_only(Vec::new(), Vec::new());
    let send = async |host: &str| {
        let to = Server { tls: true, host: host.to_owned(), port: 443 };
        let request = Request {
            method: Method::GET,
            path_and_query: "/".to_owned(),
            headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
        };
        outbound.send(&to, Offer::Both, &request).await.unwrap_err()
    };
    for private in ["10.0.0.1", "169.254.169.254", "[fd00::1]"] {
        assert_eq!(send(private).await.reason, Reason::NotAllowed, "{private}");
    }
    assert!(proxy.heads().is_empty());
    assert_eq!(send("provider.example.test").await.step, Step::Proxy);
}

/// Presents this certificate, even if it is not one.
#[derive(Debug)]
struct FixedCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for FixedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A TLS server with this certificate, and the key of another one.
fn with_another_key(certificates: Vec<CertificateDer<'static>>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rcgen::KeyPair::generate().unwrap().serialize_der().try_into().unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(FixedCertificate(Arc::new(CertifiedKey::new(
            certificates,
            key,
        )))))
}

/// Checks `tls.*` of a server at this address.
async fn check_tls(server: SocketAddr) -> Run {
    let dir = TempDir::new().unwrap();
    let to = format!("{HOST}:443:{server}");
    check(&dir, &[], &["--only", "tls", "--connect-to", &to]).await
}

#[tokio::test]
async fn a_server_without_tls_is_reported_as_such() {
    let run =
        check_tls(plain(behaviour(|_| Act::Reply(crate::fakes::Reply::new(400)))).await).await;
    // This server reads TLS as a request head, and waits for its end.
    assert_eq!(run.part("tls.handshake", "status"), "fail", "{}", run.output);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut hello = [0; 5];
            let _ = stream.read_exact(&mut hello).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            // A reset could overtake the response.
            let _ = stream.shutdown().await;
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    });
    let run = check_tls(address).await;
    assert_eq!(
        (run.code, run.part("tls.handshake", "summary")),
        (1, "responds with plain HTTP instead of TLS"),
        "{}",
        run.output
    );
}

#[tokio::test]
async fn a_server_that_closes_during_the_handshake_is_reported_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let _ = listener.accept().await;
        }
    });
    let run = check_tls(address).await;
    let summary = "the connection is closed during the TLS handshake";
    assert_eq!((run.code, run.part("tls.handshake", "summary")), (1, summary), "{}", run.output);
}

#[tokio::test]
async fn an_unreadable_certificate_and_a_foreign_key_are_reported_as_such() {
    let act = || behaviour(|_| Act::Reply(crate::fakes::Reply::new(404)));
    let garbage = CertificateDer::from(vec![0x30, 3, 1, 2, 3]);
    let run = check_tls(tls(with_another_key(vec![garbage]), act()).await).await;
    assert_eq!(
        (run.code, run.part("tls.chain", "summary")),
        (1, "presents no readable certificate"),
        "{}",
        run.output
    );
    let certificates = Chain::self_signed().certificates();
    let run = check_tls(tls(with_another_key(certificates), act()).await).await;
    assert_eq!(run.part("tls.handshake", "status"), "fail", "{}", run.output);
    let text = "the private key does not belong to the certificate";
    assert_eq!(run.part("tls.handshake", "detail"), text);
}
