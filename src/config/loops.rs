//! Where a target leads: to this machine, to a private network, or back to the edge.

use super::read::{Read, RouteRead};
use crate::redirect::Target;
use ipnet::IpNet;
use std::net::IpAddr;
use url::{Host, Url};

/// Whether plain http may go there: to this machine, or to an IP address in one of the networks.
///
/// Judged as a browser reads the URL, to which `http://2130706433/` is 127.0.0.1.
pub(super) fn is_plain_allowed(target: &Target, networks: &[IpNet]) -> bool {
    let Ok(url) = Url::parse(target.as_str()) else { return false };
    match url.host() {
        Some(Host::Domain(name)) => is_localhost(name),
        Some(Host::Ipv4(address)) => is_allowed(address.into(), networks),
        Some(Host::Ipv6(address)) => is_allowed(address.into(), networks),
        None => false,
    }
}

/// The route of this edge that the target hits, if any: the browser would come back for ever.
pub(super) fn hit<'r>(target: &Target, read: &'r Read) -> Option<&'r RouteRead> {
    let url = Url::parse(target.as_str()).ok()?;
    read.routes.iter().find(|route| {
        (url.path() == route.path.value.as_str() || target.path() == route.path.value.as_str())
            && leads_here(&url, route, read)
    })
}

fn leads_here(url: &Url, route: &RouteRead, read: &Read) -> bool {
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return false;
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if route.host.as_ref().is_some_and(|named| named.as_str() != host) {
        return false;
    }
    if let Some(public) = read.public_url.as_ref().filter(|it| it.value.host.as_str() == host) {
        // Port 80 of an https origin leads to it.
        return port == public.value.port() || (public.value.https && port == 80);
    }
    let listeners = || read.listen.http.iter().chain(&read.listen.https).map(|at| at.value);
    let named = read.routes.iter().filter_map(|route| route.host.as_ref());
    if named.into_iter().any(|named| named.as_str() == host) {
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

/// RFC 6761 §6.3: browsers take these names for this machine.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}
