//! Sends all requests, in an order in which each response determines the next requests.
//! The files of the categories evaluate the responses.

use super::corpus::Probe;
use super::followups::{follow, probe_echo, probe_nango, probe_plain_http, sibling};
use super::landing::{Elsewhere, Landing};
use super::location::Callback;
use super::observations::Observations;
use super::plan::Plan;
use super::prober::{AddressProbe, Client, Prober, Session, probe_address};
use crate::outbound::{Offer, Outbound, Protocol};
use std::net::SocketAddr;
use tokio::task::JoinSet;

pub(super) async fn collect(plan: &Plan, callback: Callback, outbound: &Outbound) -> Observations {
    let prober = Prober::new(outbound, plan.total);
    plan.report_progress("looking up the host");
    let server = callback.server.clone();
    let resolved = prober.timed(outbound.resolve(&server.host, server.port)).await;
    let mut observations = Observations {
        callback,
        canary: prober.canary.clone(),
        resolved,
        addresses: Vec::new(),
        primary: None,
        chain: None,
        empty: Vec::new(),
        spellings: Vec::new(),
        providers: Vec::new(),
        sizes: Vec::new(),
        other_protocol: None,
        plain_client: None,
        form: None,
        plain_http: None,
        sibling: None,
        nango: None,
        echo: None,
    };
    if let Ok(resolved) = &observations.resolved
        && plan.selection.wants_any(&checks_with_connections())
    {
        plan.report_progress("connecting to each address");
        let (addresses, session) =
            probe_addresses(&prober, plan, &observations.callback, &resolved.addresses).await;
        observations.addresses = addresses;
        if let Some((primary, mut session)) = session {
            observations.primary = Some(primary);
            continue_probing(plan, &prober, &mut session, &mut observations).await;
        }
    }
    observations
}

/// All checks except those that need only the URL and its addresses.
fn checks_with_connections() -> Vec<&'static str> {
    let without =
        |id: &&str| id.starts_with("url.") || matches!(*id, "dns.resolves" | "dns.public");
    super::IDS.iter().copied().filter(|id| !without(id)).collect()
}

/// Tries all addresses at once. The first that accepts a connection is the primary one.
async fn probe_addresses(
    prober: &Prober,
    plan: &Plan,
    callback: &Callback,
    addresses: &[SocketAddr],
) -> (Vec<AddressProbe>, Option<(usize, Session)>) {
    let mut tasks = JoinSet::new();
    for (number, address) in addresses.iter().copied().enumerate() {
        let probe = probe_address(prober.clone(), callback.clone(), plan.target.clone(), address);
        tasks.spawn(async move { (number, probe.await) });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done.ok());
    }
    all.sort_by_key(|(number, _)| *number);
    let mut probed_addresses = Vec::new();
    let mut primary = None;
    for (_, (probed, session)) in all {
        if primary.is_none() && probed.failure.is_none() {
            primary = Some((probed_addresses.len(), session));
        }
        probed_addresses.push(probed);
    }
    (probed_addresses, primary)
}

/// Sends further requests, as far as the first response allows.
async fn continue_probing(
    plan: &Plan,
    prober: &Prober,
    session: &mut Session,
    observations: &mut Observations,
) {
    let needs_nango = |id| plan.follow && plan.is_for_oauth() && plan.selection.wants(id);
    if needs_nango("nango.callback") {
        plan.report_progress("sending a request to Nango");
        observations.nango = Some(probe_nango(prober, &plan.target).await);
    }
    let landing = observations.first().and_then(|first| first.landing().cloned());
    let Some(landing) = landing else { return };
    match &landing {
        Landing::Exact | Landing::Altered(_) => {}
        Landing::Elsewhere(Elsewhere::Site | Elsewhere::Path | Elsewhere::Relative) => {
            plan.report_progress("following the redirects");
            observations.chain = Some(follow(prober, plan, observations).await);
            return;
        }
        Landing::Elsewhere(_) | Landing::Stays(_) => return,
    }
    send_queries(plan, prober, session, observations).await;
    plan.report_progress("sending other kinds of requests");
    send_variants(plan, prober, session, observations).await;
    if needs_nango("nango.echo") && landing.keeps_values() {
        plan.report_progress("following one callback to Nango");
        observations.echo =
            Some(probe_echo(prober, session, &observations.callback, &plan.target).await);
    }
}

/// Sends the callbacks of providers, special characters, and long queries.
async fn send_queries(
    plan: &Plan,
    prober: &Prober,
    session: &Session,
    observations: &mut Observations,
) {
    let (callback, target, run) = (&observations.callback, &plan.target, &prober.run);
    if plan.selection.wants_any(&checks_of_all_queries()) {
        plan.report_progress("sending the callbacks of providers");
        observations.providers =
            prober.many(session, callback, target, Probe::providers(run)).await;
        plan.report_progress("sending special characters");
        observations.spellings =
            prober.many(session, callback, target, Probe::spellings(run)).await;
    }
    if plan.selection.wants("redirect.size") {
        plan.report_progress("sending long queries");
        observations.sizes = prober.many(session, callback, target, Probe::sizes(run)).await;
    }
}

/// Sends one request each for other clients, methods, HTTP versions and URLs.
async fn send_variants(
    plan: &Plan,
    prober: &Prober,
    session: &mut Session,
    observations: &mut Observations,
) {
    let (callback, target) = (observations.callback.clone(), &plan.target);
    let minimal = || Probe::plain(&prober.run);
    let selected = |id| plan.selection.wants(id);
    if selected("redirect.empty") {
        for probe in Probe::empty(&prober.run) {
            observations.empty.push(session.probe(&callback, target, probe, Client::Browser).await);
        }
    }
    if selected("redirect.clients") {
        observations.plain_client =
            Some(session.probe(&callback, target, minimal(), Client::Plain).await);
    }
    if selected("redirect.form") {
        observations.form = Some(session.probe(&callback, target, minimal(), Client::Form).await);
    }
    if selected("redirect.protocols") && callback.server.tls {
        let first = observations.first().and_then(|first| first.result.as_ref().ok());
        let (other, offer) = match first.map(|got| got.response.protocol) {
            Some(Protocol::Http2) => (Protocol::Http1, Offer::Http1),
            _ => (Protocol::Http2, Offer::Http2),
        };
        let mut session = Session::new(prober, session.to.clone(), offer);
        let response = session.probe(&callback, target, minimal(), Client::Browser).await;
        observations.other_protocol = Some((other, response));
    }
    if selected("redirect.http") && callback.server.tls {
        observations.plain_http = Some(
            probe_plain_http(prober, &callback, target, session.to.address, observations).await,
        );
    }
    if selected("redirect.github")
        && let Some((sibling, target)) = sibling(&callback, target)
    {
        let response = session.probe(&sibling, &target, minimal(), Client::Browser).await;
        observations.sibling = Some((sibling, response));
    }
}

/// All checks except those that inspect only the first response or have their own requests: a
/// check that inspects every response must get all of them under `--only` too.
fn checks_of_all_queries() -> Vec<&'static str> {
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
