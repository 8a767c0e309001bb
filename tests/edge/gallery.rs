//! Broken callbacks: each is reported under the expected ids, with a hint, and no other check fails.
//! A new check needs a case here, made with the helpers of [`World`].

mod evidence;
mod hostile;
mod queries;
mod responses;
mod servers;
mod small;

use crate::fakes::{
    Act, Authority, CertificateSpec, HOST, Received, Reply, behaviour, correct, nango, plain, tls,
};
use callback_edge::check::{self, Plan, Selection};
use callback_edge::outbound::{Limits, Outbound, Override, Resolver, Roots};
use callback_edge::redirect::Target;
use callback_edge::report::{self, Detail, Report, Status};
use rustls::ServerConfig;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_callbacks_are_reported_under_the_expected_ids() {
    let world = World::new().await;
    let mut cases = Vec::new();
    cases.extend(queries::queries(&world).await);
    cases.extend(responses::redirects(&world).await);
    cases.extend(responses::headers(&world).await);
    cases.extend(responses::clients(&world).await);
    cases.extend(servers::urls(&world).await);
    cases.extend(servers::certificates(&world).await);
    cases.extend(servers::addresses(&world).await);
    cases.extend(servers::nangos(&world).await);
    cases.extend(servers::proofs(&world).await);
    cases.extend(hostile::hostile(&world).await);
    cases.extend(evidence::visitors(&world).await);
    cases.extend(evidence::parts(&world).await);
    cases.extend(evidence::repeats(&world).await);
    cases.extend(evidence::bodies(&world).await);
    let shown: BTreeSet<_> = cases.iter().flat_map(Case::ids).collect();
    for id in check::IDS {
        assert!(shown.contains(id), "no broken callback for {id}: add one to tests/edge/gallery/");
    }
    let all = cases.len();
    assert!(all >= 40, "{all}");
    let wrong = unexpected(&world, cases).await;
    println!("{} of {all} broken callbacks are reported as expected", all - wrong.len());
    assert!(wrong.is_empty(), "{} of {all} are not:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn correct_callbacks_pass() {
    let world = World::new().await;
    let mut both = world.case("both protocols", &[], |_, correct| Act::Reply(correct)).await;
    let insecure = plain(behaviour(|heard| {
        let location = format!("https://{HOST}{}?{}", heard.path, heard.query.as_deref().unwrap());
        Act::Reply(Reply::new(308).with("location", location))
    }))
    .await;
    both.overrides.push(to(HOST, 80, insecure));
    let mut own = world
        .case("a target with a query", &[], |heard, correct| {
            if !matches!(heard.method.as_str(), "GET" | "POST") {
                return Act::Reply(correct);
            }
            let location = correct.location();
            let (base, query) = location.split_once('?').unwrap_or((&location, ""));
            let joiner = if query.is_empty() { "" } else { "&" };
            Act::Reply(correct.to(format!("{base}?tenant=1{joiner}{query}")))
        })
        .await;
    own.target = Target::parse(&format!("{}/oauth/callback?tenant=1", world.origin)).unwrap();
    let mut http1 = world.case("HTTP/1.1 only", &[], |_, correct| Act::Reply(correct)).await;
    http1.overrides = vec![to(
        HOST,
        443,
        tls(
            world.config(&["http/1.1"]),
            behaviour(world.changed(|_, correct| Act::Reply(correct))),
        )
        .await,
    )];
    let mut old = world.case("no ALPN", &[], |_, correct| Act::Reply(correct)).await;
    old.overrides = vec![to(
        HOST,
        443,
        tls(world.config(&[]), behaviour(world.changed(|_, correct| Act::Reply(correct)))).await,
    )];
    let mut cases = vec![both, own, http1, old];
    cases.extend(responses::harmless(&world).await);
    cases.extend(queries::equivalent(&world).await);
    let wrong = unexpected(&world, cases).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What each case needs: a CA, and a Nango to redirect to.
struct World {
    authority: Authority,
    nango: SocketAddr,
    origin: String,
}

/// One callback and its expected report.
struct Case {
    name: &'static str,
    url: String,
    overrides: Vec<Override>,
    target: Target,
    /// Ids: `!` before one that warns, `?` before one that is unknown, `+` before one that passes. After
    /// a `=`, text that its summary, detail or hint must contain.
    expected: &'static [&'static str],
    timeout: Duration,
    /// The time limit of the check.
    total: Duration,
    selection: Selection,
    /// Whether every byte of a query must arrive.
    strict: bool,
}

impl Case {
    fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    /// The expected ids.
    fn ids(&self) -> impl Iterator<Item = &'static str> {
        let id = |expected: &&'static str| expected.split('=').next().unwrap_or_default();
        self.expected.iter().map(id).map(|id| id.trim_start_matches(['!', '?', '+']))
    }
}

const BOTH: &[&str] = &["h2", "http/1.1"];

impl World {
    async fn new() -> Self {
        let nango = plain(behaviour(nango)).await;
        Self { authority: Authority::new("the root"), nango, origin: format!("http://{nango}") }
    }

    fn config(&self, protocols: &[&str]) -> ServerConfig {
        self.authority.issue(CertificateSpec::default()).config(protocols)
    }

    /// The correct response, changed.
    fn changed(
        &self,
        change: impl Fn(&Received, Reply) -> Act + Send + Sync + 'static,
    ) -> impl Fn(&Received) -> Act + Send + Sync + 'static {
        let origin = self.origin.clone();
        move |heard| change(heard, correct(&origin, heard))
    }

    /// A callback over TLS with changed responses.
    async fn case(
        &self,
        name: &'static str,
        expected: &'static [&'static str],
        change: impl Fn(&Received, Reply) -> Act + Send + Sync + 'static,
    ) -> Case {
        let server = tls(self.config(BOTH), behaviour(self.changed(change))).await;
        self.at(name, expected, server)
    }

    /// Like [`World::case`], but changes only the `Location`.
    async fn located(
        &self,
        name: &'static str,
        expected: &'static [&'static str],
        change: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Case {
        self.case(name, expected, move |_, correct| {
            if !matches!(correct.status, 303 | 308) {
                return Act::Reply(correct);
            }
            let location = change(&correct.location());
            Act::Reply(correct.to(location))
        })
        .await
    }

    /// Like [`World::located`], but changes only its query.
    async fn queried(
        &self,
        name: &'static str,
        expected: &'static [&'static str],
        change: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Case {
        self.located(name, expected, move |location| match location.split_once('?') {
            Some((base, query)) if !query.is_empty() => format!("{base}?{}", change(query)),
            _ => location.to_owned(),
        })
        .await
    }

    /// Like [`World::queried`], but changes the list of parameters.
    async fn rebuilt(
        &self,
        name: &'static str,
        expected: &'static [&'static str],
        change: impl Fn(Vec<&str>) -> Vec<String> + Send + Sync + 'static,
    ) -> Case {
        self.queried(name, expected, move |query| change(query.split('&').collect()).join("&"))
            .await
    }

    fn at(
        &self,
        name: &'static str,
        expected: &'static [&'static str],
        server: SocketAddr,
    ) -> Case {
        Case {
            name,
            url: format!("https://{HOST}/oauth/callback"),
            overrides: vec![to(HOST, 443, server)],
            target: Target::parse(&format!("{}/oauth/callback", self.origin)).unwrap(),
            expected,
            timeout: Duration::from_secs(10),
            total: Duration::from_mins(2),
            selection: Selection::default(),
            strict: false,
        }
    }
}

fn to(host: &str, port: u16, address: SocketAddr) -> Override {
    Override { host: host.to_owned(), port, address }
}

/// Checks all cases and returns those that are not reported as expected.
async fn unexpected(world: &World, cases: Vec<Case>) -> Vec<String> {
    let mut running = JoinSet::new();
    // A few at a time, so that a slow machine does not cause time-outs.
    let turns = Arc::new(Semaphore::new(6));
    for case in cases {
        let roots = Roots::public().and_pem(world.authority.pem.as_bytes()).unwrap();
        let limits = Limits { step: case.timeout, ..Limits::default() };
        let outbound = Outbound::new(Resolver::new(case.overrides.clone()), roots, limits);
        let turns = Arc::clone(&turns);
        running.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            let mut plan = Plan::new(&case.url, case.target.clone());
            plan.total = case.total.min(case.timeout * 12);
            plan.selection = case.selection.clone();
            plan.strict = case.strict;
            let began = Instant::now();
            let report = check::run(&plan, &outbound).await;
            compare(&case, &report, began.elapsed())
        });
    }
    running.join_all().await.into_iter().flatten().collect()
}

fn compare(case: &Case, report: &Report, took: Duration) -> Option<String> {
    let mut found = BTreeSet::new();
    let mut wrong = Vec::new();
    for check in &report.checks {
        let mark = match check.status {
            Status::Fail => "",
            Status::Warn => "!",
            Status::Unknown => "?",
            Status::Pass => "+",
            Status::Skip => continue,
        };
        let id = format!("{mark}{}", check.id);
        let text = [Some(&*check.summary), check.detail.as_deref(), check.hint.as_deref()];
        let text = text.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let words = case.expected.iter().filter_map(|expected| expected.split_once('='));
        for (_, words) in words.filter(|(expected, _)| *expected == id) {
            if !text.contains(words) {
                wrong.push(format!("{id} does not contain {words:?}: {text}"));
            }
        }
        if check.status == Status::Pass {
            continue;
        }
        found.insert(id);
        if check.hint.is_none() {
            wrong.push(format!("{} has no hint", check.id));
        }
    }
    let expected: BTreeSet<_> = case
        .expected
        .iter()
        .map(|id| id.split('=').next().unwrap().to_owned())
        .filter(|id| !id.starts_with('+'))
        .collect();
    let json = report::json(std::slice::from_ref(report)).unwrap();
    if json.contains("s3cret") {
        wrong.push("a secret is in the report".to_owned());
    }
    if took > case.timeout * 13 {
        wrong.push(format!("took {took:?}"));
    }
    if found != expected {
        wrong.push(format!(
            "expected {expected:?}, found {found:?}\n{}",
            report::text(std::slice::from_ref(report), None, Detail::Findings)
        ));
    }
    (!wrong.is_empty()).then(|| format!("{}: {}", case.name, wrong.join("; ")))
}
