//! The outbound client: a resolver, a TLS client and an HTTP client. Each step has a time limit and
//! each read a size limit.
//!
//! It differs from a browser where a prober must: the caller chooses the socket address, no redirect
//! is followed, header values are the bytes received, and
//! [`Outbound::connect_without_verification`] accepts certificates that are not valid, so that
//! [`Peer`] can report what is wrong with them. [`Outbound::send`] refuses them.
//!
//! Only the command line sets proxies ([`Outbound::with_proxies`]) and trusts the store of this machine
//! ([`Roots::and_machine`]): the self-check of a server proves what the public gets.

mod certificate;
mod fault;
mod hello;
mod http;
mod metered;
mod proxy;
mod range;
mod resolve;
mod roots;
mod server;
#[cfg(target_os = "linux")]
mod system;
mod tls;

pub use self::certificate::{Certificate, MIN_RSA_BITS};
pub use self::fault::{Fault, Reason, Step};
pub use self::http::{Connection, Protocol, Request, Response};
pub use self::proxy::{BadProxy, Proxies};
pub use self::range::Range;
pub use self::resolve::{BadOverride, Origin, Override, Resolved, Resolver};
pub use self::roots::{BadRoots, Roots};
pub use self::server::{Endpoint, Server};
pub use self::tls::{
    Anchor, Distrust, Offer, Peer, config_without_verification, is_for_host, verify_bundle,
};

use self::hello::{Answer, Suites};
use self::metered::{Allowance, Metered};
use self::proxy::Proxy;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// The limits of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For each of: resolve, connect, handshake, response head, response body.
    pub step: Duration,
    /// Response head, in bytes.
    pub head_bytes: usize,
    /// Response body, in bytes; more is not read.
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { step: Duration::from_secs(10), head_bytes: 64 << 10, body_bytes: 64 << 10 }
    }
}

/// How many addresses of a server are tried.
const MAX_ADDRESSES: usize = 3;

/// The bytes that a peer may send in a handshake: twice the largest message that rustls accepts.
const HANDSHAKE_BYTES: usize = 128 << 10;

/// The outbound client. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbound {
    resolver: Resolver,
    roots: Roots,
    limits: Limits,
    proxies: Proxies,
    /// The addresses that are not public and that it may connect to; `None` for all.
    allowed: Option<Arc<Allowed>>,
}

#[derive(Debug)]
struct Allowed {
    networks: Vec<IpNet>,
    ranges: Vec<Range>,
}

impl Outbound {
    /// A client with this resolver, these trusted roots and limits.
    pub fn new(resolver: Resolver, roots: Roots, limits: Limits) -> Self {
        Self { resolver, roots, limits, proxies: Proxies::default(), allowed: None }
    }

    /// The same client, with these proxies.
    #[must_use]
    pub fn with_proxies(mut self, proxies: Proxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// How to reach a server. An override names the address, so that no proxy is used.
    fn route(&self, to: &Server) -> Route {
        match self.overridden(&to.host, to.port) {
            Some(_) => Route::Direct,
            None => self.proxies.proxy_for(to).map_or(Route::Direct, Route::Tunnel),
        }
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The addresses that the caller set for a host, if any.
    pub fn overridden(&self, host: &str, port: u16) -> Option<Resolved> {
        self.resolver.overridden(host, port)
    }

    /// The addresses of a server. Through a proxy, that of the proxy: only the proxy resolves the host.
    pub async fn resolve(&self, to: &Server) -> Result<Resolved, Fault> {
        let limit = self.limits.step;
        match self.route(to) {
            Route::Direct => {
                within(Step::Resolve, limit, self.resolver.resolve(&to.host, to.port)).await
            }
            Route::Tunnel(proxy) => {
                let mut addresses = proxy.addresses(&self.resolver, limit).await?;
                addresses.truncate(1);
                Ok(Resolved { addresses, origin: Origin::Proxy(proxy.to_string()) })
            }
        }
    }

    /// The same client with another limit for response bodies, in bytes.
    #[must_use]
    pub fn with_body_limit(mut self, body_bytes: usize) -> Self {
        self.limits.body_bytes = body_bytes;
        self
    }

    /// The same client, limited to public addresses and to these networks and ranges: for URLs from
    /// untrusted sources. Overrides of the caller stay allowed.
    #[must_use]
    pub fn public_only(mut self, networks: Vec<IpNet>, ranges: Vec<Range>) -> Self {
        self.allowed = Some(Arc::new(Allowed { networks, ranges }));
        self
    }

    /// Checks the address of the connection, because a second lookup of the name may differ.
    fn check_allowed(&self, to: &Endpoint, ip: IpAddr) -> Result<(), Fault> {
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

    /// Sends a request to the first address of a server that accepts a connection, and only when its
    /// certificate is valid. The request is sent at most once.
    pub async fn send(
        &self,
        to: &Server,
        offer: Offer,
        request: &Request,
    ) -> Result<Response, Fault> {
        let resolved = self.resolve(to).await?;
        let mut failed = Fault::new(Step::Resolve, Reason::NoAddress, "the name has no address");
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

    /// Connects to the endpoint, with a TLS handshake if the server uses TLS. Every certificate is
    /// accepted: [`Connection::peer`] reports what is wrong with it.
    pub async fn connect_without_verification(
        &self,
        to: &Endpoint,
        offer: Offer,
    ) -> Result<Connection, Fault> {
        // On the heap, like what follows: the state is large, and part of that of every caller.
        let stream = Box::pin(self.dial(to)).await?;
        let allowance = Allowance::new(HANDSHAKE_BYTES);
        let stream = Metered::new(stream, allowance.clone());
        let (server, limits) = (&to.server, self.limits);
        if server.tls {
            let handshake = tls::handshake(stream, &server.host, offer, &self.roots);
            let (stream, peer) =
                match Box::pin(within(Step::Handshake, limits.step, handshake)).await {
                    Ok(open) => open,
                    Err(fault) if offer == Offer::Both => {
                        return Err(Box::pin(self.explain(to, fault)).await);
                    }
                    Err(fault) => return Err(fault),
                };
            let protocol = peer.protocol;
            Box::pin(Connection::open(stream, protocol, server, Some(peer), limits, allowance))
                .await
        } else {
            let protocol = if offer == Offer::Http2 { Protocol::Http2 } else { Protocol::Http1 };
            Connection::open(stream, protocol, server, None, limits, allowance).await
        }
    }

    /// Opens a TCP connection, or a tunnel. The address of an endpoint behind a proxy is not used.
    async fn dial(&self, to: &Endpoint) -> Result<TcpStream, Fault> {
        let stream = match self.route(&to.server) {
            Route::Direct => {
                self.check_allowed(to, to.address.ip())?;
                let connect = async {
                    let connected = TcpStream::connect(to.address).await;
                    connected.map_err(|error| Fault::io(Step::Connect, &error))
                };
                within(Step::Connect, self.limits.step, connect).await?
            }
            Route::Tunnel(proxy) => {
                // Names are checked by the proxy, which resolves them.
                if let Some(ip) = resolve::literal(&to.server.host) {
                    self.check_allowed(to, ip)?;
                }
                proxy.tunnel(&to.server, &self.resolver, self.limits.step).await?
            }
        };
        // Small requests are sent immediately; a failure only delays them.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// Finds out why a handshake failed, as far as a server shows it to a client that offers other
    /// versions and cipher suites.
    async fn explain(&self, to: &Endpoint, fault: Fault) -> Fault {
        if !matches!(fault.reason, Reason::NoTls | Reason::NothingInCommon | Reason::Closed) {
            return fault;
        }
        for suites in [Suites::Ephemeral, Suites::Rsa] {
            let Ok(stream) = self.dial(to).await else { break };
            let ask = hello::ask(stream, &to.server.host, suites);
            let Ok(answer) = tokio::time::timeout(self.limits.step, ask).await else { break };
            let (reason, text) = match (answer, suites) {
                (Answer::Other, _) => continue,
                (Answer::PlainHttp, _) => (Reason::PlainHttp, "an HTTP response without TLS"),
                (Answer::Hello { version: 0x0302, .. }, _) => {
                    (Reason::OldTls, "the newest version that it accepts is TLS 1.1")
                }
                (Answer::Hello { version: 0x0301, .. }, _) => {
                    (Reason::OldTls, "the newest version that it accepts is TLS 1.0")
                }
                (Answer::Hello { version: 0x0300, .. }, _) => {
                    (Reason::OldTls, "the newest version that it accepts is SSL 3.0")
                }
                (Answer::Hello { .. }, Suites::Rsa) => (
                    Reason::RsaKeyExchange,
                    "it accepts cipher suites with RSA key exchange, and none with ECDHE or DHE",
                ),
                (Answer::Hello { suite: 0xc009..=0xc00a | 0xc013..=0xc014, .. }, _) => {
                    (Reason::CbcOnly, "with ECDHE it accepts only cipher suites in CBC mode")
                }
                (Answer::Hello { .. }, Suites::Ephemeral) => {
                    (Reason::OldSuites, "it accepts only cipher suites that browsers do not offer")
                }
            };
            return Fault::new(Step::Handshake, reason, text);
        }
        fault
    }
}

/// How to reach a server.
#[derive(Debug)]
enum Route {
    /// By its address.
    Direct,
    /// Through this proxy.
    Tunnel(Proxy),
}

/// Runs one step under its deadline.
async fn within<T>(
    step: Step,
    limit: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let started = Instant::now();
    if let Ok(done) = tokio::time::timeout(limit, work).await {
        return done;
    }
    let what = match step {
        Step::Resolve => "no response from a name server",
        Step::Connect | Step::Proxy => "no connection",
        Step::Body => "no complete response",
        Step::Handshake | Step::Head => "no response",
    };
    let text = format!("{what} within {} ms", started.elapsed().as_millis());
    Err(Fault::new(step, Reason::Timeout, text))
}
