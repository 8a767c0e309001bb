//! Questions beyond the callback itself: where redirects lead that do not lead to the target, the
//! callback by plain http, the one for GitHub Apps, and Nango.

use super::corpus::{Probe, Run};
use super::landing::{Landing, carried, is_redirect};
use super::observations::{Echo, Insecure, Nango, Observations, Trail};
use super::place::{Callback, Parts};
use super::plan::Plan;
use super::prober::{Client, Lane, Prober, headers};
use crate::outbound::{Answer, Fault, Offer, Origin, Reason, Request, Server, Step};
use crate::redirect::Target;
use bytes::Bytes;
use http::Method;
use http::header::LOCATION;
use std::collections::HashSet;
use std::net::SocketAddr;

/// More redirects than this are not followed.
const MOST_HOPS: usize = 6;

/// The callback that Nango derives for GitHub Apps, and where it should lead.
pub(super) fn sibling(callback: &Callback, target: &Target) -> Option<(Callback, Target)> {
    const OAUTH: &str = "oauth/callback";
    const GITHUB: &str = "app-auth/connect";
    let path = callback.path.strip_suffix(OAUTH)?;
    let (base, query) = match target.as_str().split_once('?') {
        Some((base, query)) => (base, Some(query)),
        None => (target.as_str(), None),
    };
    let mut text = format!("{}{GITHUB}", base.strip_suffix(OAUTH)?);
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    Some((callback.at(format!("{path}{GITHUB}")), Target::parse(&text).ok()?))
}

/// Follows redirects that do not lead to the target at once, on hosts akin to the callback's
/// alone: where a server sends a program is not where the program should go.
pub(super) async fn follow(prober: &Prober, plan: &Plan, seen: &Observations) -> Trail {
    let Some(Ok(mut got)) = seen.first().map(|first| first.result.clone()) else {
        return Trail::Lost;
    };
    let mut place = seen.callback.clone();
    let mut stations = vec![place.shown()];
    // A place that is asked again with another query may lead elsewhere then.
    let mut asked =
        HashSet::from([(place.shown(), seen.first().and_then(|it| it.probe.query.clone()))]);
    for _ in 0..MOST_HOPS {
        let Some((next, query)) = next(&place, &got.answer) else { return Trail::Lost };
        if !next.server.is_kin_of(&seen.callback.server) {
            return Trail::Lost;
        }
        let shown = next.shown();
        stations.push(shown.clone());
        if !asked.insert((shown, query.clone())) {
            return Trail::Loop(stations);
        }
        place = next;
        let server = &place.server;
        let resolved = prober.outbound.resolve(&server.host, server.port);
        let Ok(resolved) = prober.timed(resolved).await else { return Trail::Lost };
        let Some(address) = resolved.addresses.first() else { return Trail::Lost };
        let mut lane = Lane::new(prober, server.clone().at(*address), Offer::Both);
        let probe = Probe { query, ..Probe::plain(&prober.run) };
        match lane.probe(&place, &plan.target, probe, Client::Browser).await.result {
            Err(_) => return Trail::Lost,
            Ok(then) => got = then,
        }
        match &got.landing {
            Landing::Exact | Landing::Altered(_) => return Trail::Detour(stations),
            Landing::Elsewhere(_) => {}
            Landing::Stays(_) => return Trail::Lost,
        }
    }
    let places: HashSet<_> = stations.iter().collect();
    if places.len() < stations.len() { Trail::Loop(stations) } else { Trail::Endless(stations) }
}

/// Where a `Location` leads from here (RFC 9110 §10.2.2).
fn next(place: &Callback, answer: &Answer) -> Option<(Callback, Option<String>)> {
    if !is_redirect(answer.status) {
        return None;
    }
    let location = String::from_utf8_lossy(answer.headers.get(LOCATION)?.as_bytes()).into_owned();
    let parts = Parts::of(&location);
    let server = match (parts.scheme, parts.authority) {
        (Some(_), _) => parts.server()?,
        (None, Some(authority)) => {
            Parts::of(&format!("{}://{authority}", place.server.scheme())).server()?
        }
        (None, None) => place.server.clone(),
    };
    let path = match parts.path {
        "" => "/".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        relative => {
            let (folder, _) = place.path.rsplit_once('/').unwrap_or_default();
            format!("{folder}/{relative}")
        }
    };
    Some((Callback { server, path }, parts.query.map(str::to_owned)))
}

/// The callback by plain http, at the same address.
pub(super) async fn ask_insecure(
    prober: &Prober,
    callback: &Callback,
    target: &Target,
    front: SocketAddr,
    seen: &Observations,
) -> Insecure {
    let host = &callback.server.host;
    let overridden = prober.outbound.overridden(host, 80);
    let origin = seen.resolved.as_ref().map(|resolved| resolved.origin);
    let address = match overridden.and_then(|resolved| resolved.addresses.first().copied()) {
        Some(address) => address,
        None if origin == Ok(Origin::Override) => {
            return Insecure::NotAsked("no address was given for port 80");
        }
        None if callback.server.port != 443 => {
            return Insecure::NotAsked("the callback is not on the default port");
        }
        None => SocketAddr::new(front.ip(), 80),
    };
    let server = Server { tls: false, host: host.clone(), port: 80 };
    let insecure = Callback { server, path: callback.path.clone() };
    let mut lane = Lane::new(prober, insecure.server.clone().at(address), Offer::Http1);
    let probe = Probe::plain(&prober.run);
    // Held against the callback itself, which is where it should lead.
    let https = Target::parse(&callback.shown()).unwrap_or_else(|_| target.clone());
    let mut answer = lane.probe(&insecure, &https, probe, Client::Browser).await;
    if let Ok(got) = &mut answer.result
        && !got.landing.is_exact()
    {
        let straight = Landing::of(&got.answer, &answer.probe, target, &prober.run.prefix);
        if straight.is_exact() {
            got.landing = straight;
        }
    }
    Insecure::Asked(Box::new(answer))
}

/// Asks Nango's callback in the one way whose answer is known beforehand.
pub(super) async fn ask_nango(prober: &Prober, target: &Target) -> Result<Nango, Fault> {
    let joiner = if target.query().is_some() { '&' } else { '?' };
    let path = target.as_str().get(path_at(target)..).unwrap_or("/");
    let request = visit(format!("{path}{joiner}state=callback-edge-check"));
    let mut lane = nango_lane(prober, target).await?;
    let trusted = match lane.open().await? {
        Some(peer) => peer.trusted(),
        None => true,
    };
    Ok(Nango { answer: lane.ask(&request).await?, trusted })
}

/// Sends one callback and follows it to Nango.
pub(super) async fn ask_echo(
    prober: &Prober,
    lane: &mut Lane,
    callback: &Callback,
    target: &Target,
) -> Echo {
    let nonce = Run::nonce();
    let probe = Probe::echo(&nonce, &prober.run);
    let seen = lane.probe(callback, target, probe, Client::Browser).await;
    let location = seen.result.as_ref().ok().and_then(|got| {
        let location = got.answer.headers.get(LOCATION)?.as_bytes();
        let sent = seen.probe.query.as_deref().unwrap_or_default();
        // Whatever became of the query: it leads to Nango, and Nango's page will tell.
        carried(location, sent, target).ok()?;
        let text = std::str::from_utf8(location).ok()?;
        let parts = Parts::of(text);
        Some(format!("{}?{}", parts.path, parts.query.unwrap_or_default()))
    });
    let page = match location {
        None => None,
        Some(path_and_query) => Some(match nango_lane(prober, target).await {
            Err(fault) => Err(fault),
            Ok(mut lane) => lane.ask(&visit(path_and_query)).await,
        }),
    };
    Echo { nonce, seen, page }
}

async fn nango_lane(prober: &Prober, target: &Target) -> Result<Lane, Fault> {
    let tls = target.scheme() == "https";
    let server = Server { tls, host: target.host().to_owned(), port: target.port() };
    let resolved = prober.timed(prober.outbound.resolve(&server.host, server.port)).await?;
    let mut fault = None;
    for address in resolved.addresses {
        let mut lane = Lane::new(prober, server.clone().at(address), Offer::Both);
        match lane.open().await {
            Ok(_) => return Ok(lane),
            Err(error) => fault = Some(error),
        }
    }
    Err(fault.unwrap_or_else(|| {
        Fault::new(Step::Resolve, Reason::NoSuchHost, "the name has no address")
    }))
}

/// A browser's request, without the canary: that is for the callback alone.
fn visit(path_and_query: String) -> Request {
    let headers = headers(Client::Browser);
    Request { method: Method::GET, path_and_query, headers, body: Bytes::new() }
}

/// Where the path begins in the target's text.
fn path_at(target: &Target) -> usize {
    let authority = target.as_str().find("://").map_or(0, |at| at + 3);
    let rest = target.as_str().get(authority..).unwrap_or_default();
    authority + rest.find('/').unwrap_or(rest.len())
}
