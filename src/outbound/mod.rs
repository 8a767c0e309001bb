//! The outbound client: a resolver, a TLS client and an HTTP client. Each step has a time limit and
//! each read a size limit.
//!
//! It differs from a browser where a prober must: the caller chooses the socket address, no redirect
//! is followed, header values are the bytes received, and
//! [`Outbound::connect_without_verification`] accepts certificates that are not valid, so that
//! [`Peer`] can report what is wrong with them. [`Outbound::ask`] refuses them.

mod fault;
mod http;
mod metered;
mod range;
mod resolve;
mod server;
#[cfg(target_os = "linux")]
mod system;
mod tls;

pub use self::fault::{Fault, Reason, Step};
pub use self::http::{Answer, Connection, Protocol, Request};
pub use self::range::Range;
pub use self::resolve::{BadOverride, Origin, Override, Resolved, Resolver};
pub use self::server::{Endpoint, Server};
pub use self::tls::{
    BadRoots, Certificate, Distrust, Offer, Peer, Roots, config_without_verification,
};

use self::metered::{Allowance, Metered};
use ipnet::IpNet;
use std::sync::Arc;
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

/// A server that accepts no connection at its first addresses accepts none.
const MAX_ADDRESSES: usize = 3;

/// How much a peer may send in a handshake: as much as rustls takes for a message, twice.
const HANDSHAKE_BYTES: usize = 128 << 10;

/// The client. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbound {
    resolver: Resolver,
    roots: Roots,
    limits: Limits,
    /// Which addresses that are not public it may connect to; `None` for all.
    allowed: Option<Arc<Allowed>>,
}

#[derive(Debug)]
struct Allowed {
    networks: Vec<IpNet>,
    ranges: Vec<Range>,
}

impl Outbound {
    /// A client that finds addresses, trusts and stops as it is told.
    pub fn new(resolver: Resolver, roots: Roots, limits: Limits) -> Self {
        Self { resolver, roots, limits, allowed: None }
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

    /// The same client, which connects to public addresses only, and to those in these networks and
    /// ranges: for URLs that come from others. The caller's own overrides stay allowed.
    #[must_use]
    pub fn public_only(mut self, networks: Vec<IpNet>, ranges: Vec<Range>) -> Self {
        self.allowed = Some(Arc::new(Allowed { networks, ranges }));
        self
    }

    /// Checks the address itself: a name may have had another one a moment ago.
    fn check_allowed(&self, to: &Endpoint) -> Result<(), Fault> {
        let ip = to.address.ip();
        let (Some(allowed), Some(range)) = (&self.allowed, Range::of(ip)) else { return Ok(()) };
        let canonical = ip.to_canonical();
        let overridden = self.overridden(&to.server.host, to.server.port);
        if allowed.ranges.contains(&range)
            || allowed.networks.iter().any(|network| network.contains(&canonical))
            || overridden.is_some_and(|it| it.addresses.contains(&to.address))
        {
            return Ok(());
        }
        Err(Fault::new(Step::Connect, Reason::NotAllowed, format!("its address {ip} is {range}")))
    }

    /// Asks a server by its name, as clients in general do: at the first of its addresses that
    /// takes a connection, and only when its certificate is valid. What was sent is sent once.
    pub async fn ask(&self, to: &Server, offer: Offer, request: &Request) -> Result<Answer, Fault> {
        let resolved = self.resolve(&to.host, to.port).await?;
        let mut failed = Fault::new(Step::Resolve, Reason::NoAddress, "it has no address");
        for address in resolved.addresses.into_iter().take(MAX_ADDRESSES) {
            let to = to.clone().at(address);
            // On the heap: a handshake's state is large.
            match Box::pin(self.connect_without_verification(&to, offer)).await {
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

    /// Connects to the endpoint, with a TLS handshake where its server speaks TLS. Every certificate
    /// is accepted: [`Connection::peer`] says what is wrong with it.
    pub async fn connect_without_verification(
        &self,
        to: &Endpoint,
        offer: Offer,
    ) -> Result<Connection, Fault> {
        self.check_allowed(to)?;
        let dial = async {
            TcpStream::connect(to.address).await.map_err(|error| Fault::io(Step::Connect, &error))
        };
        let stream = within(Step::Connect, self.limits.step, dial).await?;
        // Small requests are sent at once; a socket that cannot do so works too.
        let _ = stream.set_nodelay(true);
        let allowance = Allowance::new(HANDSHAKE_BYTES);
        let stream = Metered::new(stream, allowance.clone());
        let (server, limits) = (&to.server, self.limits);
        if server.tls {
            let handshake = tls::handshake(stream, &server.host, offer, &self.roots);
            let (stream, peer) = within(Step::Handshake, limits.step, handshake).await?;
            let protocol = peer.protocol;
            Connection::open(stream, protocol, server, Some(peer), limits, allowance).await
        } else {
            let protocol = if offer == Offer::Http2 { Protocol::Http2 } else { Protocol::Http1 };
            Connection::open(stream, protocol, server, None, limits, allowance).await
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
    if let Ok(done) = tokio::time::timeout(limit, work).await {
        return done;
    }
    let nothing = if step == Step::Resolve { "no response from a name server" } else { "nothing" };
    let text = format!("{nothing} within {} ms", began.elapsed().as_millis());
    Err(Fault::new(step, Reason::Timeout, text))
}
