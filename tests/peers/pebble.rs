//! Pebble, the ACME server for tests, with its mock DNS server.

use crate::support::certs::trusting;
use crate::support::port::Port;
use crate::support::process::Lines;
use crate::support::{self, Authority, free, until, with_timeout};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The configuration of Pebble.
#[derive(Default)]
pub(crate) struct Options {
    /// The percentage of valid nonces that it rejects.
    pub(crate) rejected_nonces: u8,
    /// The maximum delay of a validation in seconds; 0 for none.
    pub(crate) delay: u8,
    /// The lifetime of a certificate in seconds; `None` for years.
    pub(crate) lifetime: Option<u64>,
    /// Key id and key of the external account binding, if it requires one.
    pub(crate) eab: Option<(&'static str, &'static str)>,
}

/// Pebble, its DNS server, and the ports at which it validates.
pub(crate) struct Pebble {
    child: Option<Child>,
    dns: Child,
    /// Its output, for each start.
    output: Vec<Arc<Lines>>,
    /// Where it validates.
    pub(crate) edge_http: SocketAddr,
    pub(crate) edge_https: SocketAddr,
    pub(crate) acme: SocketAddr,
    management: SocketAddr,
    dns_at: SocketAddr,
    dns_management: SocketAddr,
    /// All ports, reserved also while no process listens on them.
    ports: [Port; 6],
    options: Options,
    /// The CA of Pebble's own certificate.
    pub(crate) authority: Authority,
    pub(crate) dir: TempDir,
}

impl Pebble {
    pub(crate) async fn start(options: Options) -> Self {
        let dir = TempDir::new().unwrap();
        let authority = Authority::new();
        authority.write(dir.path(), "pebble", &["localhost", "127.0.0.1"]);
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        let ports: [Port; 6] = std::array::from_fn(|_| free());
        let [dns_at, dns_management, edge_http, edge_https, acme, management] =
            ports.each_ref().map(|port| **port);
        let mut dns = Command::new("pebble-challtestsrv");
        dns.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-dns01", &dns_at.to_string(), "-management", &dns_management.to_string()]);
        let mut pebble = Self {
            child: None,
            dns: spawn(&mut dns, "pebble-challtestsrv"),
            output: Vec::new(),
            edge_http,
            edge_https,
            acme,
            management,
            ports,
            dns_at,
            dns_management,
            options,
            authority,
            dir,
        };
        let dns = pebble.dns.id();
        until("the mock DNS is up", async || {
            // The first two are its own; the first also over UDP.
            pebble.ports[..2].iter().all(|port| port.is_listened_on_by(dns))
        })
        .await;
        pebble.up().await;
        pebble
    }

    /// Starts Pebble, without any state.
    pub(crate) async fn up(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        let mut config = serde_json::json!({
            "listenAddress": self.acme.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": path("pebble.pem"),
            "privateKey": path("pebble.key"),
            "httpPort": self.edge_http.port(),
            "tlsPort": self.edge_https.port(),
            "externalAccountBindingRequired": self.options.eab.is_some(),
        });
        if let Some((id, key)) = self.options.eab {
            config["externalAccountMACKeys"] = serde_json::json!({ id: key });
        }
        if let Some(lifetime) = self.options.lifetime {
            config["certificateValidityPeriod"] = lifetime.into();
        }
        let config = serde_json::json!({ "pebble": config }).to_string();
        std::fs::write(path("pebble.json"), config).unwrap();
        let mut command = Command::new("pebble");
        command
            .arg("-config")
            .arg(path("pebble.json"))
            .args(["-dnsserver", &self.dns_at.to_string()])
            .env("PEBBLE_WFE_NONCEREJECT", self.options.rejected_nonces.to_string())
            // Validate every order.
            .env("PEBBLE_AUTHZREUSE", "0");
        match self.options.delay {
            0 => command.env("PEBBLE_VA_NOSLEEP", "1"),
            delay => command.env("PEBBLE_VA_SLEEPTIME", delay.to_string()),
        };
        let mut child = spawn(&mut command, "pebble");
        self.output.push(Lines::of(child.stdout.take().unwrap()));
        let id = child.id();
        self.child = Some(child);
        // The last two are its own; the two before are those of the server.
        let own = &self.ports[4..];
        until("Pebble is up", async || own.iter().all(|port| port.is_listened_on_by(id))).await;
    }

    pub(crate) fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sets the address of a name in the DNS server of Pebble.
    pub(crate) async fn point(&self, name: &str, address: &str) {
        let record = serde_json::json!({ "host": name, "addresses": [address] }).to_string();
        for path in ["/clear-a", "/add-a"] {
            let mut stream = TcpStream::connect(self.dns_management).await.unwrap();
            let length = record.len();
            let request = format!(
                "POST {path} HTTP/1.0\r\nHost: dns\r\nContent-Length: {length}\r\n\r\n{record}"
            );
            with_timeout(stream.write_all(request.as_bytes())).await.unwrap();
            let mut response = String::new();
            with_timeout(stream.read_to_string(&mut response)).await.unwrap();
            assert!(response.contains(" 200 "), "{response}");
        }
    }

    /// The directory URL, with one of the host names of Pebble.
    pub(crate) fn directory(&self, host: &str) -> String {
        format!("https://{host}:{}/dir", self.acme.port())
    }

    /// The configuration of a server that Pebble can validate; `more` is added to `[tls.acme]`.
    pub(crate) fn settings(&self, domains: &[&str], more: &str) -> String {
        let (http, https) = (self.edge_http, self.edge_https);
        let connect_to: Vec<_> = domains
            .iter()
            .flat_map(|name| [format!("{name}:443:{https}"), format!("{name}:80:{http}")])
            .collect();
        let directory =
            if more.contains("directory") { String::new() } else { self.directory("127.0.0.1") };
        let directory =
            if directory.is_empty() { directory } else { format!("directory = '{directory}'") };
        format!(
            "
            public_url = 'https://{}'
            [listen]
            http = '{http}'
            https = '{https}'
            admin = '127.0.0.1:0'
            [self_check]
            connect_to = {connect_to:?}
            [tls.acme]
            domains = {domains:?}
            contact = 'ops@example.com'
            agree_to_terms = true
            root_ca = '{}'
            {directory}
            {}
            {more}
            ",
            domains[0],
            self.dir.path().join("ca.pem").display(),
            if more.contains("state_dir") { "" } else { "state_dir = '{dir}/acme'" },
        )
    }

    /// Its output over all starts.
    fn log(&self) -> String {
        self.output.iter().map(|lines| lines.text()).collect()
    }

    /// How many orders were created, over all starts.
    pub(crate) fn orders(&self) -> usize {
        self.log().matches("Added order").count()
    }

    /// A client that trusts only the CA of this Pebble.
    pub(crate) async fn client(&self) -> Arc<ClientConfig> {
        let pem = get(&self.authority, self.management, "/roots/0").await;
        let root = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        trusting(root, aws_lc_rs::default_provider(), &[])
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.down();
        let _ = self.dns.kill();
        let _ = self.dns.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

fn spawn(command: &mut Command, program: &str) -> Child {
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    started.unwrap_or_else(|error| {
        panic!("cannot start `{program}`: {error}; `tests/peers/setup` installs it")
    })
}

/// The response body of a server with a certificate of this CA.
async fn get(authority: &Authority, address: SocketAddr, path: &str) -> String {
    let stream = handshake(&authority.client(&[]), address, "localhost").await.unwrap();
    request(stream, "localhost", path).await.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Performs a handshake with the server at this address.
pub(crate) async fn handshake(
    client: &Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = with_timeout(TcpStream::connect(address)).await?;
    support::handshake(Arc::clone(client), stream, name).await
}

/// Sends a request, and reads until the connection is closed.
pub(crate) async fn request(
    mut stream: tokio_rustls::client::TlsStream<TcpStream>,
    host: &str,
    path: &str,
) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    with_timeout(stream.write_all(request.as_bytes())).await.unwrap();
    let mut response = Vec::new();
    let _ = with_timeout(stream.read_to_end(&mut response)).await;
    String::from_utf8_lossy(&response).into_owned()
}
