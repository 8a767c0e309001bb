use super::{Exit, block_on, ephemeral_port_error, eprint_line};
use crate::config::{Listen, Problem, Problems, load};
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

/// From the connection to the answer; container runtimes allow more.
const PATIENCE: Duration = Duration::from_secs(3);

/// The longest answer that is looked at; the status stands at its begin.
const ANSWER_BYTES: u64 = 4096;

/// Ask the running edge whether it is alive or ready, as for health checks of containers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Takes the same settings as `serve`, and asks the first address of `listen.admin`, else of
`listen.http`, else of `listen.https`.
Exit codes: 0 yes, 1 no, 3 nobody answers, 64 wrong settings

Example:
  callback-edge -c config.toml health --ready")]
pub(super) struct Health {
    /// Ask for readiness (`/readyz`) in place of life (`/healthz`)
    #[arg(long)]
    ready: bool,
}

/// Exit: 0 yes, 1 no, 3 nobody answers, 64 wrong settings.
pub(super) fn run(health: &Health, file: Option<&Path>) -> Exit {
    let settings = match load(file, std::env::vars_os()) {
        Ok(loaded) => loaded.settings,
        Err(problems) => return fail(Exit::Usage, &problems),
    };
    let question = match Question::new(&settings.listen, health.ready) {
        Ok(question) => question,
        Err(problem) => return fail(Exit::Usage, &problem.into()),
    };
    match question.ask() {
        Ok(200) => {
            let _ = writeln!(anstream::stdout(), "{question}: 200");
            Exit::Done
        }
        Ok(status) => {
            let problem = Problem::error(format!("`{question}` answers {status}"));
            fail(Exit::Failed, &problem.into())
        }
        Err(error) => {
            let problem = Problem::error(format!("nobody answers at `{question}`"))
                .caused_by(&error)
                .hint("see whether the edge runs, and with the same settings");
            fail(Exit::CouldNotRun, &problem.into())
        }
    }
}

fn fail(exit: Exit, problems: &Problems) -> Exit {
    eprint_line(&problems.coloured());
    exit
}

/// Whom to ask, and what.
struct Question {
    address: SocketAddr,
    tls: bool,
    /// Whether the listener wants a PROXY header from this machine.
    proxy_header: bool,
    path: &'static str,
}

impl Question {
    fn new(listen: &Listen, ready: bool) -> Result<Self, Problem> {
        let [admin, http, https] =
            [("admin", &listen.admin), ("http", &listen.http), ("https", &listen.https)]
                .map(|(key, addresses)| addresses.first().map(|address| (key, *address)));
        // The settings have seen to it that there is one.
        let (key, address) =
            admin.or(http).or(https).ok_or_else(|| Problem::error("nothing is listened on"))?;
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
            // Who asks an address of its own machine asks from that address.
            proxy_header: key != "admin" && listen.proxy_protocol.contain(ip),
            path: if ready { "/readyz" } else { "/healthz" },
        })
    }

    /// The status of the answer.
    fn ask(&self) -> io::Result<u16> {
        block_on(async {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it takes too long");
            tokio::time::timeout(PATIENCE, self.connect_and_ask()).await.map_err(late)?
        })?
    }

    async fn connect_and_ask(&self) -> io::Result<u16> {
        let mut stream = TcpStream::connect(self.address).await?;
        if self.proxy_header {
            // PROXY protocol, section 2.1: the connection is the proxy's own.
            stream.write_all(b"PROXY UNKNOWN\r\n").await?;
        }
        if self.tls {
            // The certificate is for browsers, and for their name of the edge: whether it is valid
            // for them is asked through the public URL (`check`), and an edge whose certificate has
            // expired is alive all the same.
            let config = config_without_verification(&["http/1.1"]).map_err(io::Error::other)?;
            let connector = TlsConnector::from(Arc::new(config));
            let name = ServerName::IpAddress(self.address.ip().into());
            self.ask_on(connector.connect(name, stream).await?).await
        } else {
            self.ask_on(stream).await
        }
    }

    async fn ask_on(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<u16> {
        let path = self.path;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        // An error behind the status line changes nothing.
        let _ = stream.take(ANSWER_BYTES).read_to_end(&mut answer).await;
        status(&answer).ok_or_else(|| io::Error::other("what answers there is no HTTP server"))
    }
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.address, self.path)
    }
}

/// The status code of an HTTP/1 answer (RFC 9112 §4).
fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.1 ")?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}
