//! Where a target leads: to this machine, to a private network, or back to this edge (a loop).

use super::read::{ParsedRoute, ParsedSettings};
use crate::redirect::Target;
use ipnet::IpNet;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use url::{Host, Url};

/// Whether plain http is allowed for this target: it is this machine, or an IP address in one of the
/// networks.
///
/// The URL is parsed as browsers do: for them `http://2130706433/` is 127.0.0.1.
pub(super) fn is_plain_allowed(target: &Target, networks: &[IpNet]) -> bool {
    let Ok(url) = Url::parse(target.as_str()) else { return false };
    match url.host() {
        Some(Host::Domain(name)) => is_localhost(name),
        Some(Host::Ipv4(address)) => is_allowed(address.into(), networks),
        Some(Host::Ipv6(address)) => is_allowed(address.into(), networks),
        None => false,
    }
}

/// The routes by host and path, so that comparing thousands of targets with thousands of routes is
/// fast.
pub(super) struct Callbacks<'r> {
    at: HashMap<(Option<&'r str>, &'r str), &'r ParsedRoute>,
    hosts: HashSet<&'r str>,
    read: &'r ParsedSettings,
}

impl<'r> Callbacks<'r> {
    pub(super) fn of(read: &'r ParsedSettings) -> Self {
        let (mut at, mut hosts) = (HashMap::new(), HashSet::new());
        for route in &read.routes {
            let host = route.host().map(crate::redirect::Host::as_str);
            at.entry((host, route.path.value.as_str())).or_insert(route);
            hosts.extend(host);
        }
        Self { at, hosts, read }
    }

    /// The route of this edge that the target leads to, if any: the browser would loop.
    pub(super) fn hit(&self, target: &Target) -> Option<&'r ParsedRoute> {
        let url = Url::parse(target.as_str()).ok()?;
        let host = url.host_str()?;
        let host = host.strip_suffix('.').unwrap_or(host);
        let keys = [url.path(), target.path()].map(|path| [(Some(host), path), (None, path)]);
        let routes = keys.as_flattened().iter().filter_map(|key| self.at.get(key));
        routes.copied().next().filter(|_| is_served_here(&url, host, self))
    }
}

/// Whether this edge serves the host and port of the URL.
fn is_served_here(url: &Url, host: &str, callbacks: &Callbacks<'_>) -> bool {
    let Some(port) = url.port_or_known_default() else { return false };
    let read = callbacks.read;
    if let Some(public) = read.public_url.as_ref().filter(|it| it.value.host.as_str() == host) {
        // Port 80 of an https origin redirects to it.
        return port == public.value.port() || (public.value.https && port == 80);
    }
    let listeners = || read.listen.http.iter().chain(&read.listen.https).map(|at| at.value);
    if callbacks.hosts.contains(host) {
        return matches!(port, 80 | 443) || listeners().any(|listener| listener.port() == port);
    }
    listeners().filter(|listener| listener.port() == port).any(|listener| {
        let listens_here = listener.ip().is_loopback() || listener.ip().is_unspecified();
        match url.host() {
            Some(Host::Domain(name)) => is_localhost(name) && listens_here,
            Some(Host::Ipv4(address)) => reaches(address.into(), listener.ip()),
            Some(Host::Ipv6(address)) => reaches(address.into(), listener.ip()),
            None => false,
        }
    })
}

fn reaches(address: IpAddr, listener: IpAddr) -> bool {
    address == listener || (listener.is_unspecified() && address.is_loopback())
}

fn is_allowed(address: IpAddr, networks: &[IpNet]) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || networks.iter().any(|network| network.contains(&address))
}

/// RFC 6761 §6.3: browsers resolve these names to this machine.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}
