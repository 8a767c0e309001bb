//! Sends all requests, in an order in which each response determines the next requests.
//! The files of the categories evaluate the responses.

use super::confirm::Confirmation;
use super::corpus::{Probe, Run};
use super::evidence::{Answer, Evidence};
use super::followups::{
    follow, probe_echo, probe_end_to_end, probe_nango, probe_not_found, probe_plain_http, sibling,
};
use super::landing::{Elsewhere, Landing};
use super::location::Callback;
use super::observations::{Observations, Obstacle, PlainHttp};
use super::plan::{Coverage, Plan};
use super::prober::{AddressProbe, Client, Outcome, Prober, Session, answer, probe_address};
use crate::outbound::{Offer, Outbound, Protocol, Reason, Response};
use crate::redirect::Target;
use http::header::SET_COOKIE;
use std::net::SocketAddr;
use tokio::task::JoinSet;

/// Programs that providers validate callbacks with, and their `User-Agent`.
const PROGRAMS: [(&str, &str); 5] = [
    ("without a User-Agent", ""),
    ("curl", "curl/8.14.1"),
    ("python-requests", "python-requests/2.32.5"),
    ("Go-http-client", "Go-http-client/1.1"),
    ("axios", "axios/1.12.2"),
];

pub(super) async fn collect(plan: &Plan, callback: Callback, outbound: &Outbound) -> Observations {
    let mut prober = Prober::new(outbound, plan);
    plan.report_progress("looking up the host");
    let server = callback.server.clone();
    let resolved = prober.timed(outbound.resolve(&server)).await;
    let mut observations = Observations {
        callback,
        canary: prober.canary.clone(),
        resolved,
        addresses: Vec::new(),
        primary: None,
        obstacle: None,
        passed: None,
        chain: None,
        not_found: None,
        empty: Vec::new(),
        spellings: Vec::new(),
        providers: Vec::new(),
        sizes: Vec::new(),
        other_protocol: None,
        programs: Vec::new(),
        form: None,
        plain_http: None,
        sibling: None,
        nango: None,
        echo: None,
        end_to_end: Vec::new(),
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
            overcome_obstacle(plan, &mut prober, &mut session, &mut observations).await;
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

/// Tries all addresses at once. The primary one is the first whose response leads to the target, else
/// the first that accepts a connection.
async fn probe_addresses(
    prober: &Prober,
    plan: &Plan,
    callback: &Callback,
    addresses: &[SocketAddr],
) -> (Vec<AddressProbe>, Option<(usize, Session)>) {
    let mut tasks = JoinSet::new();
    let several =
        addresses.len() > 1 && plan.coverage == Coverage::Full && plan.selection.wants("dns.alike");
    for (number, address) in addresses.iter().copied().enumerate() {
        let (prober, callback, target) = (prober.clone(), callback.clone(), plan.target.clone());
        tasks.spawn(async move {
            let (mut result, mut session) =
                probe_address(prober, callback.clone(), target.clone(), address).await;
            if let Some(first) = &mut result.first {
                let one = std::slice::from_mut(first);
                confirm(&mut session, &callback, &target, Client::Browser, false, one).await;
                if several && answer(&first.result) == Answer::Reached {
                    result.hard = send_hard(&mut session, &callback, &target).await;
                }
            }
            (number, result, session)
        });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done.ok());
    }
    all.sort_by_key(|(number, ..)| *number);
    let (mut probed_addresses, mut sessions) = (Vec::new(), Vec::new());
    for (_, probed, session) in all {
        probed_addresses.push(probed);
        sessions.push(session);
    }
    let reaches = |probed: &AddressProbe| {
        probed.first.as_ref().is_some_and(|first| answer(&first.result) == Answer::Reached)
    };
    let primary = probed_addresses
        .iter()
        .position(reaches)
        .or_else(|| probed_addresses.iter().position(|probed| probed.failure.is_none()));
    let primary = primary.map(|primary| (primary, sessions.swap_remove(primary)));
    (probed_addresses, primary)
}

async fn confirm(
    session: &mut Session,
    callback: &Callback,
    target: &Target,
    client: Client,
    controls: bool,
    outcomes: &mut [Outcome],
) {
    Confirmation { session, callback, target, client, controls }.confirm(outcomes).await;
}

/// Queries that often break: each part of a request that servers treat differently, once.
fn hard(run: &Run) -> Vec<Probe> {
    const NAMES: [&str; 10] = [
        "Google",
        "Google, slashes bare",
        "Microsoft Entra, declined",
        "duplicates",
        "bare keys",
        "an apostrophe and spaces",
        "all of them",
        "2.1 KiB",
        "4 KiB",
        "6 KiB",
    ];
    let mut all = Probe::providers(run);
    all.extend(Probe::spellings(run));
    all.extend(Probe::sizes(run));
    all.retain(|probe| NAMES.contains(&probe.name));
    debug_assert_eq!(all.len(), NAMES.len(), "every name is that of a probe");
    all
}

async fn send_hard(session: &mut Session, callback: &Callback, target: &Target) -> Vec<Outcome> {
    let probes = hard(&session.prober.run);
    let mut outcomes = session.parallel().send(callback, target, probes).await;
    confirm(session, callback, target, Client::Browser, true, &mut outcomes).await;
    outcomes
}

/// When the first request does not reach the target, finds out whether it does with the cookie that
/// the response sets, or over the other HTTP version; all further requests then do the same.
async fn overcome_obstacle(
    plan: &Plan,
    prober: &mut Prober,
    session: &mut Session,
    observations: &mut Observations,
) {
    let Some(first) = observations.first() else { return };
    if first.evidence() != Evidence::Failing && first.evidence() != Evidence::Unrepeated {
        return;
    }
    let (callback, target) = (&observations.callback, &plan.target);
    let got = first.result.as_ref().ok();
    let mut attempts = Vec::new();
    if let Some(got) = got
        && let Some(cookies) = cookies_of(&got.response)
    {
        let mut with_cookies = prober.clone();
        with_cookies.cookies = Some(cookies);
        attempts.push((Obstacle::Cookie(Box::new(got.clone())), with_cookies, session.offer));
    }
    if callback.server.tls {
        let version = observations.primary().and_then(|it| it.peer.as_ref()).map(|it| it.protocol);
        let (failing, offer) = match version {
            Some(Protocol::Http2) => (Protocol::Http2, Offer::Http1),
            _ => (Protocol::Http1, Offer::Http2),
        };
        attempts.push((Obstacle::Protocol(failing), prober.clone(), offer));
    }
    for (obstacle, changed, offer) in attempts {
        let mut another = Session::new(&changed, session.to.clone(), offer);
        let probe = Probe::plain(&prober.run);
        let outcome = another.probe(callback, target, probe, Client::Browser).await;
        if answer(&outcome.result) == Answer::Reached {
            *prober = changed;
            *session = another;
            observations.obstacle = Some(obstacle);
            observations.passed = Some(outcome);
            return;
        }
    }
}

/// The cookies that a response sets, as the client returns them (RFC 6265 §4.2.1).
fn cookies_of(response: &Response) -> Option<String> {
    let cookies: Vec<_> = response
        .headers
        .get_all(SET_COOKIE)
        .iter()
        .filter_map(|cookie| cookie.to_str().ok()?.split(';').next())
        .collect();
    (!cookies.is_empty()).then(|| cookies.join("; "))
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
    if plan.coverage == Coverage::Full && plan.selection.wants_any(&checks_of_all_queries()) {
        observations.not_found = probe_not_found(session, &observations.callback).await;
    }
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
    send_end_to_end(plan, prober, session, observations).await;
    if needs_nango("nango.echo") && landing.keeps_values() {
        plan.report_progress("following one callback to Nango");
        observations.echo =
            Some(probe_echo(prober, session, &observations.callback, &plan.target).await);
    }
}

/// Proves the path to Nango, in a full check for the callback for GitHub Apps too.
async fn send_end_to_end(
    plan: &Plan,
    prober: &Prober,
    session: &mut Session,
    observations: &mut Observations,
) {
    if !plan.end_to_end || !plan.is_for_nango() || !plan.selection.wants("nango.end_to_end") {
        return;
    }
    plan.report_progress("following a callback without a state to Nango");
    let mut callbacks = vec![(observations.callback.clone(), plan.target.clone())];
    if plan.coverage == Coverage::Full
        && let Some((sibling, outcomes)) = &observations.sibling
        && outcomes.iter().all(|it| it.landing().is_some_and(Landing::keeps_values))
        && let Some((_, target)) = self::sibling(&observations.callback, &plan.target)
    {
        callbacks.push((sibling.clone(), target));
    }
    for (callback, target) in callbacks {
        let proof = probe_end_to_end(prober, session, &callback, &target).await;
        observations.end_to_end.push(proof);
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
    let mut sessions = session.parallel();
    let mut controlled = async |probes: Vec<Probe>| {
        let mut outcomes = sessions.send(callback, target, probes).await;
        let mut again = Session::new(prober, session.to.clone(), session.offer);
        confirm(&mut again, callback, target, Client::Browser, true, &mut outcomes).await;
        outcomes
    };
    if plan.coverage == Coverage::Small {
        plan.report_progress("sending a few queries");
        let mut queries = Probe::small(run);
        let sizes = Probe::sizes(run);
        // The longest callbacks of providers have 6 KiB.
        let longest = |probe: &Probe| probe.query.as_ref().is_some_and(|it| it.len() <= 7 << 10);
        queries.extend(sizes.into_iter().rfind(longest));
        let mut outcomes = controlled(queries).await;
        observations.sizes.extend(outcomes.pop());
        observations.providers = outcomes;
        return;
    }
    if plan.selection.wants_any(&checks_of_all_queries()) {
        plan.report_progress("sending the callbacks of providers");
        observations.providers = controlled(Probe::providers(run)).await;
        plan.report_progress("sending special characters");
        observations.spellings = controlled(Probe::spellings(run)).await;
    }
    let needs_hard = ["redirect.protocols", "redirect.github"];
    if observations.providers.is_empty() && plan.selection.wants_any(&needs_hard) {
        observations.providers = controlled(hard(run)).await;
    }
    if plan.selection.wants("redirect.size") {
        plan.report_progress("sending long queries");
        observations.sizes = controlled(Probe::sizes(run)).await;
    }
}

/// Sends requests of other clients, with other methods, over the other HTTP version, and to related
/// URLs: at once, each kind over its own connection. What failed is repeated afterwards, one request
/// after the other: when several servers respond in turn, requests in between would decide which of
/// them get the repeats.
async fn send_variants(
    plan: &Plan,
    prober: &Prober,
    session: &mut Session,
    observations: &mut Observations,
) {
    let (callback, target) = (observations.callback.clone(), &plan.target);
    let variants = Variants { plan, session, callback: &callback };
    let other = variants.other_protocol(observations);
    let mut other_session = other.map(|(_, offer)| variants.over(offer));
    let sibling = variants.sibling();
    // On the heap, as each of them contains a handshake.
    let (mut empty, mut programs, mut form, mut over_other, plain_http, mut to_sibling) = tokio::join!(
        Box::pin(variants.empty()),
        Box::pin(variants.programs()),
        Box::pin(variants.form()),
        Box::pin(async {
            match &mut other_session {
                Some(session) => first_and_hard(plan, session, &callback, target, hard).await,
                None => Vec::new(),
            }
        }),
        Box::pin(variants.plain_http(prober, observations)),
        Box::pin(async {
            match &sibling {
                Some((sibling, target)) => {
                    let mut session = session.another();
                    first_and_hard(plan, &mut session, sibling, target, hard_and_short).await
                }
                None => Vec::new(),
            }
        }),
    );
    repeat_faults(session, &callback, target, Client::Browser, &mut empty).await;
    for (user_agent, (_, outcome)) in &mut programs {
        let one = std::slice::from_mut(outcome);
        confirm(session, &callback, target, Client::Program(user_agent), true, one).await;
    }
    repeat_faults(session, &callback, target, Client::Form, form.as_mut_slice()).await;
    if let (Some((other, _)), Some(mut session)) = (other, other_session) {
        let is_unsupported = |it: &Outcome| {
            it.result.as_ref().is_err_and(|fault| fault.reason == Reason::NoProtocol)
        };
        if !over_other.iter().all(is_unsupported) {
            let outcomes = &mut over_other;
            confirm_first(plan, &mut session, &callback, target, hard, outcomes).await;
            if let Some((_, queries)) = outcomes.split_first_mut() {
                confirm(&mut session, &callback, target, Client::Browser, true, queries).await;
            }
        }
        observations.other_protocol = Some((other, over_other));
    }
    if let Some((sibling, target)) = sibling {
        let outcomes = &mut to_sibling;
        confirm_first(plan, session, &sibling, &target, hard_and_short, outcomes).await;
        observations.sibling = Some((sibling, to_sibling));
    }
    observations.empty = empty;
    observations.programs = programs.into_iter().map(|(_, outcome)| outcome).collect();
    observations.form = form;
    observations.plain_http = plain_http;
}

/// A short query, and if it reaches the target in a full check, those that often break.
async fn first_and_hard(
    plan: &Plan,
    session: &mut Session,
    callback: &Callback,
    target: &Target,
    hard: fn(&Run) -> Vec<Probe>,
) -> Vec<Outcome> {
    let minimal = Probe::plain(&session.prober.run);
    let first = session.probe(callback, target, minimal, Client::Browser).await;
    let mut outcomes = vec![first];
    send_hard_after_first(plan, session, callback, target, hard, &mut outcomes).await;
    outcomes
}

/// Repeats the short query if it failed, and then sends the others if a repeat passed.
async fn confirm_first(
    plan: &Plan,
    session: &mut Session,
    callback: &Callback,
    target: &Target,
    hard: fn(&Run) -> Vec<Probe>,
    outcomes: &mut Vec<Outcome>,
) {
    let has_failed = outcomes.iter().any(|it| answer(&it.result) != Answer::Reached);
    if let [first] = outcomes.as_mut_slice()
        && has_failed
    {
        let one = std::slice::from_mut(first);
        confirm(session, callback, target, Client::Browser, false, one).await;
        send_hard_after_first(plan, session, callback, target, hard, outcomes).await;
    }
}

async fn send_hard_after_first(
    plan: &Plan,
    session: &Session,
    callback: &Callback,
    target: &Target,
    hard: fn(&Run) -> Vec<Probe>,
    outcomes: &mut Vec<Outcome>,
) {
    if plan.coverage == Coverage::Full
        && outcomes.iter().all(|it| answer(&it.result) == Answer::Reached)
    {
        let queries = hard(&session.prober.run);
        outcomes.extend(session.parallel().send(callback, target, queries).await);
    }
}

/// As [`hard`], without long queries: the limits are those of the callback.
fn hard_and_short(run: &Run) -> Vec<Probe> {
    let mut queries = hard(run);
    queries.retain(|probe| !probe.name.ends_with("KiB"));
    queries
}

/// Where variants of the request are sent.
struct Variants<'v> {
    plan: &'v Plan,
    session: &'v Session,
    callback: &'v Callback,
}

impl Variants<'_> {
    fn wants(&self, id: &str) -> bool {
        self.plan.selection.wants(id)
    }

    async fn empty(&self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        if self.wants("redirect.empty") {
            let (mut session, target) = (self.session.another(), &self.plan.target);
            for probe in Probe::empty(&self.session.prober.run) {
                outcomes.push(session.probe(self.callback, target, probe, Client::Browser).await);
            }
        }
        outcomes
    }

    /// Each with its `User-Agent`.
    async fn programs(&self) -> Vec<(&'static str, (&'static str, Outcome))> {
        let mut outcomes = Vec::new();
        if self.wants("redirect.clients") {
            let (mut session, target) = (self.session.another(), &self.plan.target);
            let count = if self.plan.coverage == Coverage::Full { PROGRAMS.len() } else { 1 };
            for (name, user_agent) in PROGRAMS.into_iter().take(count) {
                let (minimal, client) = (self.minimal(), Client::Program(user_agent));
                let outcome = session.probe(self.callback, target, minimal, client).await;
                outcomes.push((user_agent, (name, outcome)));
            }
        }
        outcomes
    }

    async fn form(&self) -> Option<Outcome> {
        if !self.wants("redirect.form") {
            return None;
        }
        let (mut session, target) = (self.session.another(), &self.plan.target);
        Some(session.probe(self.callback, target, self.minimal(), Client::Form).await)
    }

    /// The HTTP version that the first response does not have, and how to negotiate it.
    fn other_protocol(&self, observations: &Observations) -> Option<(Protocol, Offer)> {
        let is_needed = self.wants("redirect.protocols") && self.callback.server.tls;
        if !is_needed || observations.obstacle.is_some() {
            return None;
        }
        let first = observations.first().and_then(|first| first.result.as_ref().ok());
        Some(match first.map(|got| got.response.protocol) {
            Some(Protocol::Http2) => (Protocol::Http1, Offer::Http1),
            _ => (Protocol::Http2, Offer::Http2),
        })
    }

    fn over(&self, offer: Offer) -> Session {
        Session::new(&self.session.prober, self.session.to.clone(), offer)
    }

    async fn plain_http(&self, prober: &Prober, observations: &Observations) -> Option<PlainHttp> {
        if !self.wants("redirect.http") || !self.callback.server.tls {
            return None;
        }
        let (target, address) = (&self.plan.target, self.session.to.address);
        Some(probe_plain_http(prober, self.callback, target, address, observations).await)
    }

    fn sibling(&self) -> Option<(Callback, Target)> {
        self.wants("redirect.github").then(|| sibling(self.callback, &self.plan.target)).flatten()
    }

    fn minimal(&self) -> Probe {
        Probe::plain(&self.session.prober.run)
    }
}

/// Repeats requests that the server may reject: only failures and rate limits, without controls.
async fn repeat_faults(
    session: &mut Session,
    callback: &Callback,
    target: &Target,
    client: Client,
    outcomes: &mut [Outcome],
) {
    for outcome in outcomes {
        let is_refused = outcome.status().is_some_and(|it| it.is_client_error() || it.is_success());
        if !is_refused || outcome.evidence() == Evidence::Limited {
            let one = std::slice::from_mut(outcome);
            confirm(session, callback, target, client, false, one).await;
        }
    }
}

/// All checks except those that inspect only the first response or have their own requests: a
/// check that inspects every response must get all of them under `--only` too.
pub(super) fn checks_of_all_queries() -> Vec<&'static str> {
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
