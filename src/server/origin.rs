//! The URLs at which browsers reach the server.

use crate::config::{Origin, Settings};
use crate::redirect::{Host, Route};
use std::net::{IpAddr, SocketAddr};

/// Every callback according to the settings, with its route. Port 0 stays port 0, since no listener is
/// bound.
pub fn callbacks(settings: &Settings) -> impl Iterator<Item = (String, &Route)> {
    let listen = &settings.listen;
    let configured = Addresses {
        http: listen.http.clone(),
        https: listen.https.clone(),
        admin: listen.admin.clone(),
    };
    let routes = settings.routes.items().iter();
    routes.map(move |route| (callback_url(route, settings, &configured), route))
}

/// The callback URL of a route, as it is pasted into Nango's and the providers' settings.
pub(super) fn callback_url(route: &Route, settings: &Settings, bound: &Addresses) -> String {
    format!("{}{}", of(route, settings, bound), route.path)
}

/// The origin of a route's callback URL.
pub(super) fn of(route: &Route, settings: &Settings, bound: &Addresses) -> Origin {
    match &route.host {
        Some(host) => host_origin(host, settings),
        None => public_origin(settings, bound),
    }
}

/// The origin of the server itself: `public_url`, else the first host of a route, else the first
/// listener.
pub(super) fn public_origin(settings: &Settings, bound: &Addresses) -> Origin {
    if let Some(origin) = &settings.public_url {
        return origin.clone();
    }
    if let Some(host) = settings.routes.items().iter().find_map(|route| route.host.as_ref()) {
        return host_origin(host, settings);
    }
    let first = bound.https.first().map(|address| (true, address));
    let first = first.or_else(|| bound.http.first().map(|address| (false, address)));
    let (https, address) = first.map_or((false, None), |(https, address)| (https, Some(address)));
    Origin {
        https,
        host: listener_host(address.map(SocketAddr::ip)),
        port: address.map(SocketAddr::port),
    }
}

/// The https origin to which a plain request for `host` is redirected. `None` when the host is not in
/// the settings and `public_url` is not set.
pub(super) fn https_for(
    host: Option<&str>,
    settings: &Settings,
    bound: &Addresses,
) -> Option<Origin> {
    if let Some(host) = host.and_then(|host| Host::parse(host).ok()) {
        if settings.routes.has_host(host.as_str()) || settings.pages.has_host(host.as_str()) {
            return Some(secure(host_origin(&host, settings)));
        }
        let listener = bound.https.iter().find(|address| {
            !address.ip().is_unspecified() && listener_host(Some(address.ip())) == host
        });
        if let (None, Some(address)) = (&settings.public_url, listener) {
            return Some(Origin { https: true, host, port: Some(address.port()) });
        }
    }
    settings.public_url.clone().map(secure)
}

/// The same over https, even if `public_url` is plain http: a redirect to https must not lead back.
fn secure(origin: Origin) -> Origin {
    if origin.https { origin } else { Origin { https: true, port: None, ..origin } }
}

/// The origin of a host in the settings. The port is that of `public_url`, if any: no other setting
/// determines how browsers reach the listener.
fn host_origin(host: &Host, settings: &Settings) -> Origin {
    match &settings.public_url {
        Some(origin) => Origin { host: host.clone(), ..origin.clone() },
        None => Origin { https: true, host: host.clone(), port: None },
    }
}

/// A listener's address as a host at which a browser on this machine reaches it.
fn listener_host(address: Option<IpAddr>) -> Host {
    let text = match address {
        Some(IpAddr::V4(address)) if !address.is_unspecified() => address.to_string(),
        Some(IpAddr::V6(address)) if !address.is_unspecified() => format!("[{address}]"),
        _ => "localhost".to_owned(),
    };
    Host::parse(&text).unwrap_or_else(|_| Host::localhost())
}

/// The addresses that are bound; port 0 is replaced by the real port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) http: Vec<SocketAddr>,
    pub(super) https: Vec<SocketAddr>,
    pub(super) admin: Vec<SocketAddr>,
}
