use super::{Exit, block_on, ephemeral_port_error, eprint_line};
use crate::config::{Listen, Problem, Problems, listen_for_health, load};
use crate::outbound::config_without_verification;
use rustls::pki_types::ServerName;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// For connection and response; container runtimes allow more.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum number of bytes to read of a response; its status line comes first.
const RESPONSE_BYTES: u64 = 4096;

/// Check whether the running server is alive or ready, for example as a container health check
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Uses the same configuration as `serve`, and connects to the first address of `listen.admin`, else of
`listen.http`, else of `listen.https`. Other settings may be invalid, as after a reload that failed.
Exit codes: 0 healthy, 1 unhealthy, 3 no response, 64 configuration error

Example:
  callback-edge -c config.toml health --ready")]
pub(super) struct Health {
    /// Check readiness (`/readyz`) instead of liveness (`/healthz`)
    #[arg(long)]
    ready: bool,
}

/// Exit: 0 healthy, 1 unhealthy, 3 no response, 64 the address is not known.
pub(super) fn run(health: &Health, file: Option<&Path>) -> Exit {
    let listen = match load(file, std::env::vars_os()) {
        Ok(loaded) => loaded.settings.listen,
        Err(problems) => {
            let Some(listen) = listen_for_health(file, std::env::vars_os()) else {
                return fail(Exit::Usage, &problems);
            };
            // After a reload that failed, the server runs with the previous configuration.
            let warning = Problem::warning("the configuration is invalid; only `[listen]` is used");
            let warning = warning.hint("run `callback-edge config check` to print the errors");
            eprint_line(&Problems::from(warning).coloured());
            listen
        }
    };
    let probe = match Probe::new(&listen, health.ready) {
        Ok(probe) => probe,
        Err(problem) => return fail(Exit::Usage, &problem.into()),
    };
    match probe.send() {
        Ok(200) => {
            let _ = writeln!(anstream::stdout(), "{probe}: 200");
            Exit::Done
        }
        Ok(status) => {
            let problem = Problem::error(format!("`{probe}` returned status {status}"));
            fail(Exit::Failed, &problem.into())
        }
        Err(error) => {
            let problem = Problem::error(format!("no response from `{probe}`"))
                .caused_by(&error)
                .hint("check whether the server runs, and with the same configuration");
            fail(Exit::CouldNotRun, &problem.into())
        }
    }
}

fn fail(exit: Exit, problems: &Problems) -> Exit {
    eprint_line(&problems.coloured());
    exit
}

/// A request to one listener.
struct Probe {
    address: SocketAddr,
    tls: bool,
    /// Whether the listener requires a PROXY header from this machine.
    proxy_header: bool,
    path: &'static str,
}

impl Probe {
    fn new(listen: &Listen, ready: bool) -> Result<Self, Problem> {
        // Valid settings have at least one listener.
        let (key, address) =
            listen.for_health().ok_or_else(|| Problem::error("there is no listener"))?;
        if address.port() == 0 {
            return Err(ephemeral_port_error(key));
        }
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Ok(Self {
            address: SocketAddr::new(ip, address.port()),
            tls: key == "https",
            // A connection to an address of this machine comes from that address.
            proxy_header: key != "admin" && listen.proxy_protocol.contain(ip),
            path: if ready { "/readyz" } else { "/healthz" },
        })
    }

    /// The status of the response.
    fn send(&self) -> io::Result<u16> {
        block_on(async {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "timed out");
            tokio::time::timeout(TIMEOUT, self.connect_and_send()).await.map_err(late)?
        })?
    }

    async fn connect_and_send(&self) -> io::Result<u16> {
        let mut stream = TcpStream::connect(self.address).await?;
        if self.proxy_header {
            // PROXY protocol, section 2.1: a connection of the proxy itself.
            stream.write_all(b"PROXY UNKNOWN\r\n").await?;
        }
        if self.tls {
            // The certificate is not verified: it is for the public host, which `check` verifies, and
            // a server with an expired certificate is alive.
            let config = config_without_verification(&["http/1.1"]).map_err(io::Error::other)?;
            let connector = TlsConnector::from(Arc::new(config));
            let name = ServerName::IpAddress(self.address.ip().into());
            self.send_on(connector.connect(name, stream).await?).await
        } else {
            self.send_on(stream).await
        }
    }

    async fn send_on(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<u16> {
        let path = self.path;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut response = Vec::new();
        // An error after the status line does not matter.
        let _ = stream.take(RESPONSE_BYTES).read_to_end(&mut response).await;
        status(&response).ok_or_else(|| io::Error::other("the response is not HTTP/1.1"))
    }
}

impl std::fmt::Display for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.address, self.path)
    }
}

/// The status code of an HTTP/1 response (RFC 9112 §4).
fn status(response: &[u8]) -> Option<u16> {
    let rest = response.strip_prefix(b"HTTP/1.1 ")?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}
