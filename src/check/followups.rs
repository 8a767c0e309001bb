//! Requests beyond the callback itself: redirects that do not lead to the target are followed; the
//! callback over plain http, the Setup URL of GitHub Apps and Nango are probed.

use super::corpus::{Probe, Run};
use super::landing::{Landing, carried, is_redirect};
use super::location::{Callback, Parts, resolve};
use super::observations::{Echo, EndToEnd, Nango, Observations, PlainHttp, RedirectChain};
use super::plan::Plan;
use super::prober::{Client, Prober, Session, headers};
use crate::outbound::{Fault, Offer, Origin, Reason, Request, Response, Server, Step};
use crate::redirect::Target;
use bytes::Bytes;
use http::header::{HeaderValue, LOCATION, REFERER, REFERRER_POLICY};
use http::{Method, StatusCode};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;
use url::Position;

/// The maximum of redirects to follow.
const MAX_HOPS: usize = 6;

/// The Setup URL that Nango derives for GitHub Apps, and its target.
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

/// Follows redirects that do not lead to the target directly, but only on hosts related to the
/// callback's: a server must not choose which hosts this program contacts.
pub(super) async fn follow(
    prober: &Prober,
    plan: &Plan,
    observations: &Observations,
) -> RedirectChain {
    let Some(Ok(mut got)) = observations.first().map(|first| first.result.clone()) else {
        return RedirectChain::Other;
    };
    let mut current = observations.callback.clone();
    let mut urls = vec![current.shown()];
    // The same URL with another query may lead elsewhere.
    let mut visited = HashSet::from([(
        current.shown(),
        observations.first().and_then(|it| it.probe.query.clone()),
    )]);
    for _ in 0..MAX_HOPS {
        let Some((next, query)) = next(&current, &got.response) else {
            return RedirectChain::Other;
        };
        if !next.server.is_related_to(&observations.callback.server) {
            return RedirectChain::Other;
        }
        let shown = next.shown();
        urls.push(shown.clone());
        if !visited.insert((shown, query.clone())) {
            return RedirectChain::Loop(urls);
        }
        current = next;
        let server = &current.server;
        let resolved = prober.outbound.resolve(server);
        let Ok(resolved) = prober.timed(resolved).await else { return RedirectChain::Other };
        let Some(address) = resolved.addresses.first() else { return RedirectChain::Other };
        let is_here = server.host == observations.callback.server.host;
        let prober = if is_here { prober.clone() } else { prober.without_mark() };
        let mut session = Session::new(&prober, server.clone().at(*address), Offer::Both);
        let probe = Probe { query, ..Probe::plain(&prober.run) };
        match session.probe(&current, &plan.target, probe, Client::Browser).await.result {
            Err(_) => return RedirectChain::Other,
            Ok(then) => got = then,
        }
        match &got.landing {
            Landing::Exact | Landing::Altered(_) => return RedirectChain::Indirect(urls),
            Landing::Elsewhere(_) => {}
            Landing::Stays(_) => return RedirectChain::Other,
        }
    }
    let distinct: HashSet<_> = urls.iter().collect();
    if distinct.len() < urls.len() {
        RedirectChain::Loop(urls)
    } else {
        RedirectChain::TooLong(urls)
    }
}

/// Where a `Location` leads from here (RFC 9110 §10.2.2).
fn next(current: &Callback, response: &Response) -> Option<(Callback, Option<String>)> {
    if !is_redirect(response.status) {
        return None;
    }
    let location = String::from_utf8_lossy(response.headers.get(LOCATION)?.as_bytes()).into_owned();
    let parts = Parts::of(&location);
    let server = match (parts.scheme, parts.authority) {
        (Some(_), _) => parts.server()?,
        (None, Some(authority)) => {
            Parts::of(&format!("{}://{authority}", current.server.scheme())).server()?
        }
        (None, None) => current.server.clone(),
    };
    let path = match parts.path {
        "" => "/".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        relative => {
            let (directory, _) = current.path.rsplit_once('/').unwrap_or_default();
            format!("{directory}/{relative}")
        }
    };
    Some((Callback { server, path }, parts.query.map(str::to_owned)))
}

/// Probes the callback over plain http, at the same address.
pub(super) async fn probe_plain_http(
    prober: &Prober,
    callback: &Callback,
    target: &Target,
    primary: SocketAddr,
    observations: &Observations,
) -> PlainHttp {
    let host = &callback.server.host;
    let overridden = prober.outbound.overridden(host, 80);
    let origin = observations.resolved.as_ref().ok().map(|resolved| &resolved.origin);
    let server = Server { tls: false, host: host.clone(), port: 80 };
    let address = match overridden.and_then(|resolved| resolved.addresses.first().copied()) {
        Some(address) => address,
        None if origin == Some(&Origin::Override) => {
            return PlainHttp::NotProbed("no address was given for port 80");
        }
        None if callback.server.port != 443 => {
            return PlainHttp::NotProbed("the callback is not on the default port");
        }
        // The proxies for http and https differ.
        None if matches!(origin, Some(Origin::Proxy(_))) => {
            match prober.timed(prober.outbound.resolve(&server)).await.map(|it| it.addresses) {
                Ok(addresses) if !addresses.is_empty() => {
                    addresses.first().copied().unwrap_or(primary)
                }
                _ => return PlainHttp::NotProbed("the address of port 80 is not known"),
            }
        }
        None => SocketAddr::new(primary.ip(), 80),
    };
    let plain_http = Callback { server, path: callback.path.clone() };
    let mut session = Session::new(prober, plain_http.server.clone().at(address), Offer::Http1);
    let probe = Probe::plain(&prober.run);
    // It should redirect to the https callback.
    let https = Target::parse(&callback.shown()).unwrap_or_else(|_| target.clone());
    let mut response = session.probe(&plain_http, &https, probe, Client::Browser).await;
    if let Ok(got) = &mut response.result
        && !got.landing.is_exact()
    {
        let direct =
            Landing::of(&got.response, &response.probe, &plain_http, target, &prober.run.prefix);
        if direct.is_exact() {
            got.landing = direct;
        }
    }
    match &response.result {
        Err(fault) if fault.step == Step::Proxy => {
            PlainHttp::NotProbed("the proxy does not connect to port 80")
        }
        _ => PlainHttp::Probed(Box::new(response)),
    }
}

/// Requests a path beside the callback's, which the same program probably serves.
pub(super) async fn probe_not_found(
    session: &mut Session,
    callback: &Callback,
) -> Option<Response> {
    let (directory, _) = callback.path.rsplit_once('/')?;
    session.send_retrying(&visit(format!("{directory}/{}", Run::nonce()))).await.ok()
}

/// Sends Nango's callback a request with a known response: an invalid state.
pub(super) async fn probe_nango(prober: &Prober, target: &Target) -> Result<Nango, Fault> {
    let joiner = if target.query().is_some() { '&' } else { '?' };
    let path = target.as_str().get(path_at(target)..).unwrap_or("/");
    let request = visit(format!("{path}{joiner}state=callback-edge-check"));
    visit_nango(prober, target, request).await
}

/// Sends one callback and follows it to Nango.
pub(super) async fn probe_echo(
    prober: &Prober,
    session: &mut Session,
    callback: &Callback,
    target: &Target,
) -> Echo {
    let nonce = Run::nonce();
    let probe = Probe::echo(&nonce, &prober.run);
    let outcome = session.probe(callback, target, probe, Client::Browser).await;
    // When it leads to Nango, Nango's page shows which query arrived.
    let location = outcome.result.as_ref().ok().and_then(|got| {
        let sent = outcome.probe.query.as_deref().unwrap_or_default();
        path_at_target(&got.response, sent, callback, target)
    });
    let page = match location {
        None => None,
        Some(path_and_query) => Some(match nango_session(prober, target).await {
            Err(fault) => Err(fault),
            Ok(mut session) => session.send_retrying(&visit(path_and_query)).await,
        }),
    };
    Echo { nonce, outcome, page }
}

/// Sends a callback without a state, and follows it to Nango as a browser does. Nango redirects it to
/// the `Referer`, before any lookup, log or error report. That redirect is not followed.
pub(super) async fn probe_end_to_end(
    prober: &Prober,
    session: &mut Session,
    callback: &Callback,
    target: &Target,
) -> EndToEnd {
    let began = Instant::now();
    let nonce = Run::nonce();
    // The scheme of the target, so that no policy takes the second request for a downgrade. The host
    // is reserved (RFC 2606 §2), and has the nonce too: policies may cut the path.
    let referer = format!("{}://{nonce}.callback-edge.invalid/{nonce}", target.scheme());
    let query = "installation_id=0&setup_action=install";
    let probe = Probe {
        name: "GitHub App, no state",
        what: "no `state`",
        query: Some(query.to_owned()),
        ..Probe::plain(&prober.run)
    };
    let request = visit_from(format!("{}?{query}", callback.path), &referer);
    let mut sent = EndToEnd {
        nonce,
        referer: Some(referer.clone()),
        status: Ok(StatusCode::OK),
        landing: None,
        nango: None,
        duration: Duration::ZERO,
    };
    match session.send_retrying(&request).await {
        Err(fault) => sent.status = Err(fault),
        Ok(response) => {
            sent.status = Ok(response.status);
            sent.landing =
                Some(Landing::of(&response, &probe, callback, target, &prober.run.prefix));
            sent.referer = after_redirect(&referer, &response);
            if let Some(next) = path_at_target(&response, query, callback, target)
                && let Some(referer) = &sent.referer
            {
                let request = visit_from(next, referer);
                sent.nango = Some(visit_nango(prober, target, request).await);
            }
        }
    }
    sent.duration = began.elapsed();
    sent
}

/// The `Referer` of the request that follows a redirect to another origin (Referrer Policy §4.1, §8.3),
/// when the page before has the policy `unsafe-url`. The redirect's own policy replaces that one.
fn after_redirect(referer: &str, response: &Response) -> Option<String> {
    let policies = response.headers.get_all(REFERRER_POLICY).iter();
    let policies = policies.filter_map(|value| value.to_str().ok()).flat_map(|it| it.split(','));
    let mut kept = Some(referer);
    // The last known policy applies.
    for policy in policies {
        kept = match policy.trim().to_ascii_lowercase().as_str() {
            "no-referrer" | "same-origin" => None,
            "origin"
            | "strict-origin"
            | "origin-when-cross-origin"
            | "strict-origin-when-cross-origin" => {
                referer.rfind('/').and_then(|slash| referer.get(..=slash))
            }
            "unsafe-url" | "no-referrer-when-downgrade" => Some(referer),
            _ => kept,
        };
    }
    kept.map(str::to_owned)
}

/// The path and the query of the `Location`, if it leads to the target.
fn path_at_target(
    response: &Response,
    sent: &str,
    callback: &Callback,
    target: &Target,
) -> Option<String> {
    let location = response.headers.get(LOCATION).filter(|_| is_redirect(response.status))?;
    carried(location.as_bytes(), sent, callback, target).ok()?;
    let url = resolve(callback, location.as_bytes())?;
    Some(url[Position::BeforePath..Position::AfterQuery].to_owned())
}

async fn visit_nango(prober: &Prober, target: &Target, request: Request) -> Result<Nango, Fault> {
    let mut session = nango_session(prober, target).await?;
    let trusted = match session.open().await? {
        Some(peer) => peer.trusted(),
        None => true,
    };
    Ok(Nango { response: session.send_retrying(&request).await?, trusted })
}

async fn nango_session(prober: &Prober, target: &Target) -> Result<Session, Fault> {
    let tls = target.scheme() == "https";
    let server = Server { tls, host: target.host().to_owned(), port: target.port() };
    let resolved = prober.timed(prober.outbound.resolve(&server)).await?;
    let prober = &prober.without_mark();
    let mut fault = None;
    for address in resolved.addresses {
        let mut session = Session::new(prober, server.clone().at(address), Offer::Both);
        match session.open().await {
            Ok(_) => return Ok(session),
            Err(error) => fault = Some(error),
        }
    }
    Err(fault.unwrap_or_else(|| {
        Fault::new(Step::Resolve, Reason::NoSuchHost, "the name has no address")
    }))
}

/// A browser's request without the canary, which only the callback gets.
fn visit(path_and_query: String) -> Request {
    let headers = headers(Client::Browser);
    Request { method: Method::GET, path_and_query, headers, body: Bytes::new() }
}

/// Like [`visit`], from a page.
fn visit_from(path_and_query: String, referer: &str) -> Request {
    let mut request = visit(path_and_query);
    if let Ok(referer) = HeaderValue::from_str(referer) {
        request.headers.insert(REFERER, referer);
    }
    request
}

/// Where the path starts in the text of the target.
fn path_at(target: &Target) -> usize {
    let authority = target.as_str().find("://").map_or(0, |at| at + 3);
    let rest = target.as_str().get(authority..).unwrap_or_default();
    authority + rest.find('/').unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::Protocol;

    #[test]
    fn a_policy_on_the_redirect_hides_or_cuts_the_referer() {
        let full = "https://n1.callback-edge.invalid/n1";
        let origin = "https://n1.callback-edge.invalid/";
        for (policies, expected) in [
            (&[][..], Some(full)),
            (&["unsafe-url"], Some(full)),
            (&["no-referrer-when-downgrade"], Some(full)),
            (&["no-referrer"], None),
            (&["Same-Origin"], None),
            (&["strict-origin-when-cross-origin"], Some(origin)),
            (&["origin"], Some(origin)),
            // The last known one applies.
            (&["no-referrer, strict-origin"], Some(origin)),
            (&["no-referrer", "unsafe-url"], Some(full)),
            (&["no-referrer, future-policy"], None),
            (&[""], Some(full)),
        ] {
            let mut headers = http::HeaderMap::new();
            for policy in policies {
                headers.append(REFERRER_POLICY, HeaderValue::from_static(policy));
            }
            let response = Response {
                status: StatusCode::PERMANENT_REDIRECT,
                headers,
                body: Bytes::new(),
                whole: true,
                protocol: Protocol::Http1,
                head_time: Duration::ZERO,
            };
            assert_eq!(after_redirect(full, &response).as_deref(), expected, "{policies:?}");
        }
    }
}
