//! Asks everything there is to ask, in an order in which each answer tells what to ask next.
//! What the answers mean is for the files named like the categories.

use super::corpus::Probe;
use super::errands::{ask_echo, ask_insecure, ask_nango, follow, sibling};
use super::landing::{Elsewhere, Landing, location_shown};
use super::place::Callback;
use super::plan::Plan;
use super::prober::{Client, Door, Lane, Prober, Seen, knock};
use crate::outbound::{Answer, Fault, Offer, Outbound, Protocol, Resolved};
use crate::redirect::Target;
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
    if wants(&need_corpus()) {
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
    let least = || Probe::plain(&prober.run);
    if wants(&["redirect.clients"]) {
        seen.plain_client = Some(lane.probe(&callback, target, least(), Client::Plain).await);
    }
    if wants(&["redirect.form"]) {
        seen.form = Some(lane.probe(&callback, target, least(), Client::Form).await);
    }
    if wants(&["redirect.protocols"]) && callback.site.https {
        let spoken = seen.first().and_then(|first| first.result.as_ref().ok());
        let (other, offer) = match spoken.map(|got| got.answer.protocol) {
            Some(Protocol::Http2) => (Protocol::Http1, Offer::Http1),
            _ => (Protocol::Http2, Offer::Http2),
        };
        let mut lane = Lane::new(prober, lane.to.clone(), offer);
        let answer = lane.probe(&callback, target, least(), Client::Browser).await;
        seen.other_protocol = Some((other, answer));
    }
    if wants(&["redirect.http"]) && callback.site.https {
        seen.insecure = Some(ask_insecure(prober, &callback, target, lane.to.address, seen).await);
    }
    if wants(&["redirect.github"])
        && let Some((sibling, target)) = sibling(&callback, target)
    {
        let answer = lane.probe(&sibling, &target, least(), Client::Browser).await;
        seen.sibling = Some((sibling, answer));
    }
    if plan.follow && wants(&["nango.echo"]) && is_oauth(target) && landing.is_exact() {
        plan.tell("following one callback to Nango");
        seen.echo = Some(ask_echo(prober, lane, &callback, target).await);
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

/// Whether the target is the callback whose error page is known.
pub(super) fn is_oauth(target: &Target) -> bool {
    target.path().ends_with("oauth/callback")
}

/// What the first answer's `Location` says, without its values.
pub(super) fn first_location(seen: &Observations) -> String {
    match seen.first().map(|first| &first.result) {
        Some(Ok(got)) => location_shown(&got.answer.headers),
        _ => "nowhere".to_owned(),
    }
}
