//! The URLs under which browsers reach the edge.

use crate::config::{Origin, Settings};
use crate::redirect::{Host, Route};
use std::net::{IpAddr, SocketAddr};

/// Every callback as the settings tell it, with its route. Before a listener is bound, port 0 is
/// still port 0.
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

/// Where a route is reached, as it is pasted into Nango's and the providers' settings.
pub(super) fn callback_url(route: &Route, settings: &Settings, bound: &Addresses) -> String {
    let origin = match &route.host {
        Some(host) => of_host(host, settings),
        None => public(settings, bound),
    };
    format!("{origin}{}", route.path)
}

/// Where the edge itself is reached: `public_url`, else the first host that a route names, else
/// the first listener.
pub(super) fn public(settings: &Settings, bound: &Addresses) -> Origin {
    if let Some(origin) = &settings.public_url {
        return origin.clone();
    }
    if let Some(host) = settings.routes.items().iter().find_map(|route| route.host.as_ref()) {
        return of_host(host, settings);
    }
    let first = bound.https.first().map(|address| (true, address));
    let first = first.or_else(|| bound.http.first().map(|address| (false, address)));
    let (https, address) = first.map_or((false, None), |(https, address)| (https, Some(address)));
    Origin {
        https,
        host: host_of(address.map(SocketAddr::ip)),
        port: address.map(SocketAddr::port),
    }
}

/// The https origin that a plain request for `host` is sent to. `None` when no setting names the
/// host and none says where else to go.
pub(super) fn https_for(
    host: Option<&str>,
    settings: &Settings,
    bound: &Addresses,
) -> Option<Origin> {
    if let Some(host) = host.and_then(|host| Host::parse(host).ok()) {
        if settings.routes.names_host(host.as_str()) || settings.pages.names_host(host.as_str()) {
            return Some(secure(of_host(&host, settings)));
        }
        let listener = bound
            .https
            .iter()
            .find(|address| !address.ip().is_unspecified() && host_of(Some(address.ip())) == host);
        if let (None, Some(address)) = (&settings.public_url, listener) {
            return Some(Origin { https: true, host, port: Some(address.port()) });
        }
    }
    settings.public_url.clone().map(secure)
}

/// The same over https, whatever was said about plain http: what leads there must not lead back.
fn secure(origin: Origin) -> Origin {
    if origin.https { origin } else { Origin { https: true, port: None, ..origin } }
}

/// The origin of a host that a setting names. The port is the one of `public_url`, if any: it is
/// the one place that says how browsers get through to the listener.
fn of_host(host: &Host, settings: &Settings) -> Origin {
    match &settings.public_url {
        Some(origin) => Origin { host: host.clone(), ..origin.clone() },
        None => Origin { https: true, host: host.clone(), port: None },
    }
}

/// A listener's address as a host that a browser on this machine reaches it by.
fn host_of(address: Option<IpAddr>) -> Host {
    let text = match address {
        Some(IpAddr::V4(address)) if !address.is_unspecified() => address.to_string(),
        Some(IpAddr::V6(address)) if !address.is_unspecified() => format!("[{address}]"),
        _ => "localhost".to_owned(),
    };
    Host::parse(&text).unwrap_or_else(|_| Host::localhost())
}

/// The addresses that are really bound; port 0 has become a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) http: Vec<SocketAddr>,
    pub(super) https: Vec<SocketAddr>,
    pub(super) admin: Vec<SocketAddr>,
}
