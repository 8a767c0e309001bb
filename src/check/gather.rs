//! Asks everything there is to ask, in an order in which each answer tells what to ask next.
//! What the answers mean is for the files named like the categories.

use super::corpus::Probe;
use super::landing::{Elsewhere, Landing, carried, is_redirect, location_shown};
use super::place::{Callback, Parts, Site};
use super::plan::Plan;
use super::prober::{Client, Door, Lane, Prober, Seen, headers, knock};
use crate::outbound::{
    Answer, Endpoint, Fault, Offer, Origin, Outbound, Protocol, Request, Resolved,
};
use crate::redirect::Target;
use bytes::Bytes;
use http::Method;
use http::header::LOCATION;
use std::net::SocketAddr;
use tokio::task::JoinSet;

/// Everything that was seen. What is `None` or empty was not asked.
#[derive(Debug)]
pub(super) struct Observations {
    pub(super) callback: Callback,
    pub(super) canary: String,
    pub(super) resolved: Result<Resolved, Fault>,
    /// One for each address, in the resolver's order.
    pub(super) doors: Vec<Door>,
    /// The door through which all else was asked.
    pub(super) front: Option<usize>,
    /// Where the first answer leads, when not to the target.
    pub(super) trail: Option<Trail>,
    pub(super) empty: Vec<Seen>,
    pub(super) spellings: Vec<Seen>,
    pub(super) providers: Vec<Seen>,
    pub(super) sizes: Vec<Seen>,
    /// Over the HTTP version that the front door did not choose.
    pub(super) other_protocol: Option<(Protocol, Seen)>,
    pub(super) plain_client: Option<Seen>,
    pub(super) form: Option<Seen>,
    pub(super) insecure: Option<Insecure>,
    /// The callback for GitHub Apps that Nango derives from this one.
    pub(super) sibling: Option<(Callback, Seen)>,
    pub(super) nango: Option<Result<Nango, Fault>>,
    pub(super) echo: Option<Echo>,
}

/// Where redirects lead that do not lead to the target at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trail {
    /// Back to where they began.
    Loop(Vec<String>),
    /// To the target, by these stations.
    Detour(Vec<String>),
    /// Elsewhere.
    Lost,
}

/// The same callback by plain http.
#[derive(Debug)]
pub(super) enum Insecure {
    /// It was not asked.
    NotAsked(&'static str),
    Asked(Box<Seen>),
}

/// What answers at the target.
#[derive(Debug)]
pub(super) struct Nango {
    pub(super) answer: Answer,
    /// Whether its certificate is valid; true without TLS.
    pub(super) trusted: bool,
}

/// One flow from the callback to Nango's page.
#[derive(Debug)]
pub(super) struct Echo {
    pub(super) nonce: String,
    /// What the callback said.
    pub(super) seen: Seen,
    /// What Nango said then.
    pub(super) page: Option<Result<Answer, Fault>>,
}

impl Observations {
    /// The door through which all else was asked.
    pub(super) fn front(&self) -> Option<&Door> {
        self.front.and_then(|front| self.doors.get(front))
    }

    /// The first probe's outcome.
    pub(super) fn first(&self) -> Option<&Seen> {
        self.front().and_then(|door| door.seen.as_ref())
    }

    /// The probes that any callback could have been.
    pub(super) fn corpus(&self) -> impl Iterator<Item = &Seen> {
        self.first().into_iter().chain(&self.providers).chain(&self.spellings)
    }
}

/// More redirects than this are not followed.
const MOST_HOPS: usize = 6;

pub(super) async fn gather(plan: &Plan, callback: Callback, outbound: &Outbound) -> Observations {
    let prober = Prober::new(outbound, plan.total);
    plan.tell("looking up the host");
    let site = callback.site.clone();
    let resolved = prober.timed(outbound.resolve(&site.host, site.port)).await;
    let mut seen = Observations {
        callback,
        canary: prober.canary.clone(),
        resolved,
        doors: Vec::new(),
        front: None,
        trail: None,
        empty: Vec::new(),
        spellings: Vec::new(),
        providers: Vec::new(),
        sizes: Vec::new(),
        other_protocol: None,
        plain_client: None,
        form: None,
        insecure: None,
        sibling: None,
        nango: None,
        echo: None,
    };
    if let Ok(resolved) = &seen.resolved
        && plan.selection.wants_any(&NEED_CONNECTIONS)
    {
        plan.tell("connecting to each address");
        let (doors, lane) = knock_all(&prober, plan, &seen.callback, &resolved.addresses).await;
        seen.doors = doors;
        if let Some((front, mut lane)) = lane {
            seen.front = Some(front);
            ask_on(plan, &prober, &mut lane, &mut seen).await;
        }
    }
    seen
}

/// Checks that need no more than the URL and its addresses are all others.
const NEED_CONNECTIONS: [&str; 5] = ["dns.reach", "dns.alike", "tls.", "redirect.", "nango."];

/// Tries all addresses at once. The first that lets itself be connected to is the front door.
async fn knock_all(
    prober: &Prober,
    plan: &Plan,
    callback: &Callback,
    addresses: &[SocketAddr],
) -> (Vec<Door>, Option<(usize, Lane)>) {
    let mut knocks = JoinSet::new();
    for (number, address) in addresses.iter().copied().enumerate() {
        let knock = knock(prober.clone(), callback.clone(), plan.target.clone(), address);
        knocks.spawn(async move { (number, knock.await) });
    }
    let mut all = Vec::new();
    while let Some(done) = knocks.join_next().await {
        all.extend(done.ok());
    }
    all.sort_by_key(|(number, _)| *number);
    let mut doors = Vec::new();
    let mut front = None;
    for (_, (door, lane)) in all {
        if front.is_none() && door.closed.is_none() {
            front = Some((doors.len(), lane));
        }
        doors.push(door);
    }
    (doors, front)
}

/// Asks on where the first answer allows it.
async fn ask_on(plan: &Plan, prober: &Prober, lane: &mut Lane, seen: &mut Observations) {
    let (callback, target) = (seen.callback.clone(), &plan.target);
    let wants = |ids: &[&str]| plan.selection.wants_any(ids);
    if plan.follow && wants(&["nango.callback"]) && is_oauth(target) {
        plan.tell("asking Nango");
        seen.nango = Some(ask_nango(prober, target).await);
    }
    let landing = seen.first().and_then(|first| first.landing().cloned());
    let Some(landing) = landing else { return };
    match &landing {
        Landing::Exact | Landing::Altered(_) => {}
        Landing::Elsewhere(Elsewhere::Site | Elsewhere::Path | Elsewhere::Relative) => {
            plan.tell("following the redirects");
            seen.trail = Some(follow(prober, plan, seen).await);
            return;
        }
        Landing::Elsewhere(_) | Landing::Stays(_) => return,
    }
    plan.tell("sending callbacks as providers make them");
    if wants(&CORPUS) {
        let providers = Probe::providers(&prober.run);
        seen.providers = prober.many(lane, &callback, target, providers).await;
        plan.tell("sending spellings that break redirects");
        let spellings = Probe::spellings(&prober.run);
        seen.spellings = prober.many(lane, &callback, target, spellings).await;
    }
    if wants(&["redirect.size"]) {
        plan.tell("sending long queries");
        seen.sizes = prober.many(lane, &callback, target, Probe::sizes(&prober.run)).await;
    }
    plan.tell("asking in other ways");
    if wants(&["redirect.empty"]) {
        for probe in Probe::empty(&prober.run) {
            seen.empty.push(lane.probe(&callback, target, probe, Client::Browser).await);
        }
    }
    let plain = || Probe::plain(&prober.run);
    if wants(&["redirect.clients"]) {
        seen.plain_client = Some(lane.probe(&callback, target, plain(), Client::Plain).await);
    }
    if wants(&["redirect.form"]) {
        seen.form = Some(lane.probe(&callback, target, plain(), Client::Form).await);
    }
    if wants(&["redirect.protocols"]) && callback.site.https {
        let spoken = seen.first().and_then(|first| first.result.as_ref().ok());
        let (other, offer) = match spoken.map(|got| got.answer.protocol) {
            Some(Protocol::Http2) => (Protocol::Http1, Offer::Http1),
            _ => (Protocol::Http2, Offer::Http2),
        };
        let mut lane = Lane::new(prober, lane.to.clone(), offer);
        let answer = lane.probe(&callback, target, plain(), Client::Browser).await;
        seen.other_protocol = Some((other, answer));
    }
    if wants(&["redirect.http"]) && callback.site.https {
        seen.insecure = Some(ask_insecure(prober, &callback, target, lane.to.address, seen).await);
    }
    if wants(&["redirect.github"])
        && let Some((sibling, target)) = sibling(&callback, target)
    {
        let answer = lane.probe(&sibling, &target, plain(), Client::Browser).await;
        seen.sibling = Some((sibling, answer));
    }
    if plan.follow && wants(&["nango.echo"]) && is_oauth(target) && landing.is_exact() {
        plan.tell("following one callback to Nango");
        seen.echo = Some(ask_echo(prober, lane, &callback, target).await);
    }
}

/// Checks that look at all of the corpus.
const CORPUS: [&str; 10] = [
    "redirect.query",
    "redirect.template",
    "redirect.encoding",
    "redirect.parameters",
    "redirect.blocked",
    "redirect.cache",
    "redirect.echo",
    "redirect.coop",
    "redirect.referrer",
    "redirect.cookie",
];

/// Whether the target is the callback whose error page is known.
pub(super) fn is_oauth(target: &Target) -> bool {
    target.path().ends_with("oauth/callback")
}

/// The callback that Nango derives for GitHub Apps, and where it should lead.
fn sibling(callback: &Callback, target: &Target) -> Option<(Callback, Target)> {
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
async fn follow(prober: &Prober, plan: &Plan, seen: &Observations) -> Trail {
    let Some(Ok(mut got)) = seen.first().map(|first| first.result.clone()) else {
        return Trail::Lost;
    };
    let mut place = seen.callback.clone();
    let mut stations = vec![place.shown()];
    for _ in 0..MOST_HOPS {
        let Some((next, query)) = next(&place, &got.answer) else { return Trail::Lost };
        if !next.site.is_kin(&seen.callback.site) {
            return Trail::Lost;
        }
        let shown = next.shown();
        if stations.contains(&shown) {
            stations.push(shown);
            return Trail::Loop(stations);
        }
        stations.push(shown);
        place = next;
        let site = &place.site;
        let Ok(resolved) = prober.timed(prober.outbound.resolve(&site.host, site.port)).await
        else {
            return Trail::Lost;
        };
        let Some(address) = resolved.addresses.first() else { return Trail::Lost };
        let mut lane = Lane::new(prober, Prober::endpoint(&place, *address), Offer::Both);
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
    Trail::Loop(stations)
}

/// Where a `Location` leads from here (RFC 9110 §10.2.2).
fn next(place: &Callback, answer: &Answer) -> Option<(Callback, Option<String>)> {
    if !is_redirect(answer.status) {
        return None;
    }
    let location = String::from_utf8_lossy(answer.headers.get(LOCATION)?.as_bytes()).into_owned();
    let parts = Parts::of(&location);
    let site = match (parts.scheme, parts.authority) {
        (Some(_), _) => parts.site()?,
        (None, Some(authority)) => {
            Parts::of(&format!("{}://{authority}", place.site.scheme())).site()?
        }
        (None, None) => place.site.clone(),
    };
    let path = match parts.path {
        "" => "/".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        relative => {
            let (folder, _) = place.path.rsplit_once('/').unwrap_or_default();
            format!("{folder}/{relative}")
        }
    };
    Some((Callback { site, path }, parts.query.map(str::to_owned)))
}

/// The callback by plain http, at the same address.
async fn ask_insecure(
    prober: &Prober,
    callback: &Callback,
    target: &Target,
    front: SocketAddr,
    seen: &Observations,
) -> Insecure {
    let host = &callback.site.host;
    let overridden = prober.outbound.overridden(host, 80);
    let origin = seen.resolved.as_ref().map(|resolved| resolved.origin);
    let address = match overridden.and_then(|resolved| resolved.addresses.first().copied()) {
        Some(address) => address,
        None if origin == Ok(Origin::Override) => {
            return Insecure::NotAsked("no address was given for port 80");
        }
        None if callback.site.port != 443 => {
            return Insecure::NotAsked("the callback is not on the default port");
        }
        None => SocketAddr::new(front.ip(), 80),
    };
    let site = Site { https: false, host: host.clone(), port: 80 };
    let insecure = Callback { site, path: callback.path.clone() };
    let mut lane = Lane::new(prober, Prober::endpoint(&insecure, address), Offer::Http1);
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
async fn ask_nango(prober: &Prober, target: &Target) -> Result<Nango, Fault> {
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
async fn ask_echo(prober: &Prober, lane: &mut Lane, callback: &Callback, target: &Target) -> Echo {
    let nonce = prober.run.nonce();
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
    let resolved = prober.timed(prober.outbound.resolve(target.host(), target.port())).await?;
    let mut fault = None;
    for address in resolved.addresses {
        let to = Endpoint {
            tls: target.scheme() == "https",
            host: target.host().to_owned(),
            port: target.port(),
            address,
        };
        let mut lane = Lane::new(prober, to, Offer::Both);
        match lane.open().await {
            Ok(_) => return Ok(lane),
            Err(error) => fault = Some(error),
        }
    }
    Err(fault.unwrap_or_else(|| {
        use crate::outbound::{Reason, Step};
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

/// What the first answer's `Location` says, without its values.
pub(super) fn first_location(seen: &Observations) -> String {
    match seen.first().map(|first| &first.result) {
        Some(Ok(got)) => location_shown(&got.answer.headers),
        _ => "nowhere".to_owned(),
    }
}
