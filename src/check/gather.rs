//! Asks everything there is to ask, in an order in which each answer tells what to ask next.
//! What the answers mean is for the files named like the categories.

use super::corpus::Probe;
use super::errands::{ask_echo, ask_insecure, ask_nango, follow, sibling};
use super::landing::{Elsewhere, Landing};
use super::observations::Observations;
use super::place::Callback;
use super::plan::Plan;
use super::prober::{Client, Door, Lane, Prober, knock};
use crate::outbound::{Offer, Outbound, Protocol};
use std::net::SocketAddr;
use tokio::task::JoinSet;

pub(super) async fn gather(plan: &Plan, callback: Callback, outbound: &Outbound) -> Observations {
    let prober = Prober::new(outbound, plan.total);
    plan.tell("looking up the host");
    let server = callback.server.clone();
    let resolved = prober.timed(outbound.resolve(&server.host, server.port)).await;
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
        && plan.selection.wants_any(&need_connections())
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

/// All checks but those that need no more than the URL and its addresses.
fn need_connections() -> Vec<&'static str> {
    let without =
        |id: &&str| id.starts_with("url.") || matches!(*id, "dns.resolves" | "dns.public");
    super::IDS.iter().copied().filter(|id| !without(id)).collect()
}

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
    let asks_nango = |id| plan.follow && plan.is_for_oauth() && plan.selection.wants(id);
    if asks_nango("nango.callback") {
        plan.tell("asking Nango");
        seen.nango = Some(ask_nango(prober, &plan.target).await);
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
    ask_with_queries(plan, prober, lane, seen).await;
    plan.tell("asking in other ways");
    ask_in_other_ways(plan, prober, lane, seen).await;
    if asks_nango("nango.echo") && landing.is_exact() {
        plan.tell("following one callback to Nango");
        seen.echo = Some(ask_echo(prober, lane, &seen.callback, &plan.target).await);
    }
}

/// The corpus, and long queries.
async fn ask_with_queries(plan: &Plan, prober: &Prober, lane: &Lane, seen: &mut Observations) {
    let (callback, target, run) = (&seen.callback, &plan.target, &prober.run);
    if plan.selection.wants_any(&need_corpus()) {
        plan.tell("sending callbacks as providers make them");
        seen.providers = prober.many(lane, callback, target, Probe::providers(run)).await;
        plan.tell("sending spellings that break redirects");
        seen.spellings = prober.many(lane, callback, target, Probe::spellings(run)).await;
    }
    if plan.selection.wants("redirect.size") {
        plan.tell("sending long queries");
        seen.sizes = prober.many(lane, callback, target, Probe::sizes(run)).await;
    }
}

/// Other clients, methods, versions and places, one request each.
async fn ask_in_other_ways(plan: &Plan, prober: &Prober, lane: &mut Lane, seen: &mut Observations) {
    let (callback, target) = (seen.callback.clone(), &plan.target);
    let least = || Probe::plain(&prober.run);
    let wants = |id| plan.selection.wants(id);
    if wants("redirect.empty") {
        for probe in Probe::empty(&prober.run) {
            seen.empty.push(lane.probe(&callback, target, probe, Client::Browser).await);
        }
    }
    if wants("redirect.clients") {
        seen.plain_client = Some(lane.probe(&callback, target, least(), Client::Plain).await);
    }
    if wants("redirect.form") {
        seen.form = Some(lane.probe(&callback, target, least(), Client::Form).await);
    }
    if wants("redirect.protocols") && callback.server.tls {
        let spoken = seen.first().and_then(|first| first.result.as_ref().ok());
        let (other, offer) = match spoken.map(|got| got.answer.protocol) {
            Some(Protocol::Http2) => (Protocol::Http1, Offer::Http1),
            _ => (Protocol::Http2, Offer::Http2),
        };
        let mut lane = Lane::new(prober, lane.to.clone(), offer);
        let answer = lane.probe(&callback, target, least(), Client::Browser).await;
        seen.other_protocol = Some((other, answer));
    }
    if wants("redirect.http") && callback.server.tls {
        seen.insecure = Some(ask_insecure(prober, &callback, target, lane.to.address, seen).await);
    }
    if wants("redirect.github")
        && let Some((sibling, target)) = sibling(&callback, target)
    {
        let answer = lane.probe(&sibling, &target, least(), Client::Browser).await;
        seen.sibling = Some((sibling, answer));
    }
}

/// All checks but those that look at the first answer alone or have requests of their own: what
/// looks at every answer must see them all under `--only` too.
fn need_corpus() -> Vec<&'static str> {
    const WITHOUT: &[&str] = &[
        "redirect.answer",
        "redirect.page",
        "redirect.proxy",
        "redirect.status",
        "redirect.loop",
        "redirect.hops",
        "redirect.target",
        "redirect.size",
        "redirect.empty",
        "redirect.protocols",
        "redirect.clients",
        "redirect.form",
        "redirect.http",
        "redirect.github",
        "redirect.complete",
    ];
    let redirect = super::IDS.iter().copied().filter(|id| id.starts_with("redirect."));
    redirect.filter(|id| !WITHOUT.contains(id)).collect()
}
