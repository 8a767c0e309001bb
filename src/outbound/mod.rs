//! The one way out: a dialer, a TLS client, and an HTTP client, each step under a deadline and
//! each read under a limit.
//!
//! It differs from a browser's where a prober must: the caller chooses the socket address, no
//! redirect is followed, the peer's certificates are told also when they are not valid (the
//! handshake goes on, and [`Peer`] says what is wrong), and header values are the bytes received.

mod fault;
mod http;
mod resolve;
mod server;
#[cfg(target_os = "linux")]
mod system;
mod tls;

pub use self::fault::{Fault, Reason, Step};
pub use self::http::{Answer, Connection, Protocol, Request};
pub use self::resolve::{BadOverride, Origin, Override, Resolved, Resolver};
pub use self::server::{Endpoint, Server};
pub use self::tls::{BadRoots, Certificate, Distrust, Offer, Peer, Roots, any_certificate};

use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// What may be used up before a step is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For each of: resolve, connect, handshake, response head, response body.
    pub step: Duration,
    /// Response head, in bytes.
    pub head_bytes: usize,
    /// Response body, in bytes; what goes beyond is not read.
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { step: Duration::from_secs(10), head_bytes: 64 << 10, body_bytes: 64 << 10 }
    }
}

/// A server that takes no connection at its first addresses takes none.
const MOST_ADDRESSES: usize = 3;

/// The client. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbound {
    resolver: Resolver,
    roots: Roots,
    limits: Limits,
}

impl Outbound {
    /// A client that finds addresses, trusts and stops as it is told.
    pub fn new(resolver: Resolver, roots: Roots, limits: Limits) -> Self {
        Self { resolver, roots, limits }
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The addresses that the caller gave for a host, if any.
    pub fn overridden(&self, host: &str, port: u16) -> Option<Resolved> {
        self.resolver.overridden(host, port)
    }

    /// The addresses of a host.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Resolved, Fault> {
        within(Step::Resolve, self.limits.step, self.resolver.resolve(host, port)).await
    }

    /// The same client, which reads bodies up to so many bytes.
    #[must_use]
    pub fn reading(mut self, body_bytes: usize) -> Self {
        self.limits.body_bytes = body_bytes;
        self
    }

    /// Asks a server by its name, as clients in general do: at the first of its addresses that
    /// takes a connection, and only when its certificate is valid. What was sent is sent once.
    pub async fn ask(&self, to: &Server, offer: Offer, request: &Request) -> Result<Answer, Fault> {
        let resolved = self.resolve(&to.host, to.port).await?;
        let mut failed = Fault::new(Step::Resolve, Reason::NoAddress, "it has no address");
        for address in resolved.addresses.into_iter().take(MOST_ADDRESSES) {
            match self.connect(&to.clone().at(address), offer).await {
                Ok(connection) if connection.peer().is_some_and(|peer| !peer.trusted()) => {
                    let why = "its certificate is not trusted";
                    return Err(Fault::new(Step::Handshake, Reason::Untrusted, why));
                }
                Ok(mut connection) => return connection.send(request).await,
                Err(fault) => failed = fault,
            }
        }
        Err(failed)
    }

    /// Dials the endpoint, and handshakes when it speaks TLS.
    pub async fn connect(&self, to: &Endpoint, offer: Offer) -> Result<Connection, Fault> {
        let dial = async {
            TcpStream::connect(to.address).await.map_err(|error| Fault::io(Step::Connect, &error))
        };
        let stream = within(Step::Connect, self.limits.step, dial).await?;
        // Small requests should not wait for company; a socket that refuses is as good.
        let _ = stream.set_nodelay(true);
        if to.server.tls {
            let handshake = tls::handshake(stream, &to.server.host, offer, &self.roots);
            let (stream, peer) = within(Step::Handshake, self.limits.step, handshake).await?;
            let protocol = peer.protocol;
            Connection::open(stream, protocol, &to.server, Some(peer), self.limits).await
        } else {
            let protocol = if offer == Offer::Http2 { Protocol::Http2 } else { Protocol::Http1 };
            Connection::open(stream, protocol, &to.server, None, self.limits).await
        }
    }
}

/// Runs one step under its deadline.
async fn within<T>(
    step: Step,
    limit: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let began = Instant::now();
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Fault::new(
            step,
            Reason::Timeout,
            format!("nothing within {} ms", began.elapsed().as_millis()),
        )),
    }
}
