//! `callback-edge check` against callbacks on servers and frameworks that its authors do not
//! control. What is true of each is measured on the wire, independently of the program
//! (`foreign/oracle.mjs`); the report must agree.

mod frameworks;
mod proxies;
pub(crate) mod servers;

use crate::peer::Peer;
use crate::support::command;
use crate::support::port::Port;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const NANGO: &str = "https://api.nango.dev";

/// Facts that do not stop a login: the report must not fail.
const HARMLESS: &[&str] = &[
    "bytes",
    "bare `?`",
    "HTTP/2 only",
    "limited",
    "no setup URL",
    "over 6 KiB",
    "programs",
    "referrer",
    "sets a cookie",
    "status 30",
];

/// The reports of all callbacks agree with what is measured: nothing that is broken passes, nothing
/// that works fails, nothing that is correct gets a warning.
#[test]
fn the_report_on_each_foreign_callback_agrees_with_the_wire() {
    let started = Instant::now();
    let groups: Vec<fn() -> Group> = [&frameworks::GROUPS[..], &proxies::GROUPS[..]].concat();
    let queue = Mutex::new(groups.into_iter());
    let judged = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut oracle = Peer::node("foreign/oracle.mjs", &[]);
                // The lock is not held while a group runs.
                while let Some(group) = { queue.lock().unwrap().next() } {
                    let group = group();
                    for case in &group.cases {
                        let judgement = Judgement::of(case, &mut oracle);
                        judged.lock().unwrap().push(judgement);
                    }
                }
            });
        }
    });
    let mut judged = judged.into_inner().unwrap();
    judged.sort_by(|a, b| a.name.cmp(&b.name));
    for judgement in &judged {
        println!("{judgement}");
    }
    let mut figures = BTreeMap::new();
    for judgement in &judged {
        *figures.entry(judgement.verdict.clone()).or_insert(0) += 1;
    }
    let named = judged.iter().filter(|judgement| !judgement.named.is_empty()).count();
    println!("the hints name the recipe of {named} of them");
    println!("{} callbacks in {:.0?}: {figures:?}", judged.len(), started.elapsed());
    let wrong: Vec<_> = judged.iter().filter(|judgement| !judgement.is_right()).collect();
    for judgement in &wrong {
        println!("\n{}\n{}", judgement.name, judgement.problem);
    }
    assert!(wrong.is_empty(), "{} of {} reports are wrong", wrong.len(), judged.len());
}

/// Callbacks that share servers, and what these need as long as they run.
#[derive(Default)]
struct Group {
    cases: Vec<Case>,
    peers: Vec<Peer>,
    ports: Vec<Port>,
    dirs: Vec<TempDir>,
}

/// One callback, what is true of it, and the expected report.
struct Case {
    server: &'static str,
    variant: &'static str,
    /// One for each address.
    addresses: Vec<SocketAddr>,
    path: String,
    /// The directory of the CA, if it is served over TLS.
    ca: Option<PathBuf>,
    protocols: &'static [&'static str],
    /// Another instance for the measurement, if it changes the server.
    twin: Option<SocketAddr>,
    facts: &'static [&'static str],
    /// Ids of failed checks; `!` before one that warns, `?` before one that is unknown, `~` before
    /// what may occur. `|` separates alternatives. `*` is any id.
    expected: &'static [&'static str],
}

/// A variant, the facts, the expected ids.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

impl Case {
    /// Callbacks of one program: the variant is the first segment of the path.
    fn of_program(
        server: &'static str,
        prefix: &str,
        address: SocketAddr,
        rows: &[Row],
    ) -> Vec<Self> {
        let case = |row: &Row| {
            let mut case = Self::new(server, address, row);
            case.path = format!("{prefix}/{}/oauth/callback", row.0);
            case
        };
        rows.iter().map(case).collect()
    }

    /// The expected ids, with those that follow from the facts.
    fn expected(&self) -> Vec<&'static str> {
        let mut expected = self.expected.to_vec();
        let ends_with = |end| self.facts.iter().any(|fact| fact.ends_with(end));
        let values = ends_with("values");
        for (fact, ids) in [
            // One change is reported under several ids when it has several effects.
            ("values", &["~redirect.query", "~redirect.encoding", "~redirect.parameters"][..]),
            (
                "bytes",
                if values {
                    &["~!redirect.encoding"]
                } else {
                    &["!redirect.encoding|!redirect.parameters|!redirect.query"]
                },
            ),
            ("bare `?`", &["~!redirect.empty"]),
            ("over 6 KiB", &["~!redirect.size"]),
        ] {
            if ends_with(fact) {
                expected.extend(ids);
            }
        }
        expected
    }

    fn new(server: &'static str, address: SocketAddr, row: &Row) -> Self {
        let (variant, facts, expected) = *row;
        Self {
            server,
            variant,
            addresses: vec![address],
            path: "/oauth/callback".to_owned(),
            ca: None,
            protocols: &["h1"],
            twin: None,
            facts,
            expected,
        }
    }

    fn over_tls(mut self, dir: &Path, protocols: &'static [&'static str]) -> Self {
        self.ca = Some(dir.join("ca.pem"));
        self.protocols = protocols;
        self
    }

    fn scheme(&self) -> &'static str {
        if self.ca.is_some() { "https" } else { "http" }
    }

    fn port(&self) -> u16 {
        self.addresses[0].port()
    }

    /// The JSON report of the program, and its exit code.
    fn check(&self) -> (Value, i32) {
        let dir = TempDir::new().unwrap();
        let mut command = command(dir.path());
        command.args(["check", "--json", "--no-follow", "--timeout", "5s"]);
        command.args(["--target", &format!("{NANGO}/oauth/callback")]);
        for address in &self.addresses {
            command.arg("--connect-to").arg(format!("localhost:{}:{address}", self.port()));
        }
        if let Some(ca) = &self.ca {
            command.arg("--ca").arg(ca);
        }
        command.arg(format!("{}://localhost:{}{}", self.scheme(), self.port(), self.path));
        let output = command.output().unwrap();
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{}: {error}: {}", self.variant, String::from_utf8_lossy(&output.stderr))
        });
        (report, output.status.code().unwrap())
    }

    /// What the oracle measures.
    fn measure(&self, oracle: &mut Peer) -> Value {
        let addresses = self.twin.map_or_else(|| self.addresses.clone(), |twin| vec![twin]);
        oracle.send(&json!({
            "host": "localhost",
            "ports": addresses.iter().map(SocketAddr::port).collect::<Vec<_>>(),
            "path": self.path,
            "target": format!("{NANGO}/oauth/callback"),
            "tls": self.ca.is_some(),
            "protocols": self.protocols,
        }));
        oracle.receive()
    }
}

/// The content of the report, compared with what is true.
struct Judgement {
    name: String,
    facts: Vec<String>,
    found: BTreeSet<String>,
    verdict: String,
    problem: String,
    took: Duration,
    /// The platforms whose recipe the hints name.
    named: String,
}

impl Judgement {
    fn of(case: &Case, oracle: &mut Peer) -> Self {
        // First, so that a rate limit is not reached before.
        let started = Instant::now();
        let (report, code) = case.check();
        let took = started.elapsed();
        let measured = case.measure(oracle);
        let facts: Vec<String> = serde_json::from_value(measured["facts"].clone()).unwrap();
        let mut found = BTreeSet::new();
        let mut texts = String::new();
        for check in report["checks"].as_array().unwrap() {
            let mark = match check["status"].as_str().unwrap() {
                "fail" => "",
                "warn" => "!",
                "unknown" => "?",
                _ => continue,
            };
            let id = format!("{mark}{}", check["id"].as_str().unwrap());
            // True of every callback on this machine.
            if id == "!url.https" {
                continue;
            }
            let _ = writeln!(
                texts,
                "  {id}: {} | {} | {}",
                check["summary"], check["detail"], check["hint"]
            );
            found.insert(id);
        }
        let own = platforms(case.server);
        let named: BTreeSet<&str> = texts
            .split("callback-edge recipe ")
            .skip(1)
            .filter_map(|rest| rest.split(|c: char| c != '-' && !c.is_ascii_alphanumeric()).next())
            .collect();
        let works = facts.iter().all(|fact| HARMLESS.iter().any(|known| fact.starts_with(known)));
        let (verdict, reason) = verdict(&found, &case.expected(), works);
        let mut problem = String::new();
        let wanted: BTreeSet<_> = case.facts.iter().map(ToString::to_string).collect();
        if wanted != facts.iter().cloned().collect() {
            let _ = writeln!(
                problem,
                "  measured {facts:?}, the table has {:?}: {}",
                case.facts, measured["details"]
            );
        }
        if !reason.is_empty() {
            let _ = write!(problem, "  {verdict}: {reason}; exit code {code}\n{texts}");
        }
        if named.iter().any(|id| !own.contains(id)) {
            let _ = write!(problem, "  named {named:?} instead of {own:?}\n{texts}");
        }
        let named = named.into_iter().collect::<Vec<_>>().join(" ");
        let name = format!("{} {}", case.server, case.variant);
        Self { name, facts, found, verdict: verdict.to_owned(), problem, took, named }
    }

    fn is_right(&self) -> bool {
        self.problem.is_empty()
    }
}

/// The ids of the platforms that the hints may name: the program that writes the redirect, or what is
/// before it.
fn platforms(server: &str) -> &'static [&'static str] {
    match server {
        "Next.js" | "Next.js pages" => &["nextjs"],
        "Express" => &["express"],
        "nginx, Express" => &["nginx", "express"],
        "HAProxy, Express" => &["haproxy", "express"],
        "Koa" => &["koa"],
        "Hono" => &["hono"],
        "Fastify" => &["fastify"],
        "aiohttp" => &["aiohttp"],
        "Flask" => &["flask"],
        "Django" => &["django"],
        "FastAPI" => &["fastapi"],
        "Go" => &["go"],
        "PHP" => &["php"],
        "Rack" => &["rack"],
        "lighttpd" => &["lighttpd"],
        "Apache" => &["apache"],
        "Caddy" => &["caddy"],
        "HAProxy" => &["haproxy"],
        "nginx" | "nginx, 2 addresses" => &["nginx"],
        // Nothing in its responses is characteristic.
        _ => &[],
    }
}

/// The verdict on a report, and what is wrong with it.
fn verdict(found: &BTreeSet<String>, expected: &[&str], works: bool) -> (&'static str, String) {
    let matches = |id: &str, entry: &str| {
        let mut alternatives = entry.trim_start_matches('~').split('|');
        alternatives.any(|pattern| pattern == id || pattern == "?*" && id.starts_with('?'))
    };
    let fails = |id: &str| !id.starts_with(['!', '?']);
    let mut missing = expected.to_vec();
    missing.retain(|entry| !entry.starts_with('~') && !found.iter().any(|id| matches(id, entry)));
    let mut surplus: Vec<&str> = found.iter().map(String::as_str).collect();
    surplus.retain(|id| !expected.iter().any(|entry| matches(id, entry)));
    if !works {
        // A broken callback may have further warnings.
        surplus.retain(|id| fails(id));
    }
    let reason = match (&missing[..], &surplus[..]) {
        ([], []) => String::new(),
        _ => format!("missing {missing:?}, not expected {surplus:?}"),
    };
    let any_fails = found.iter().any(|id| fails(id));
    let verdict = match (works, missing.is_empty(), surplus.is_empty()) {
        (true, _, _) if any_fails => "false alarm",
        (true, _, false) => "needless warning",
        (true, false, true) => "not said",
        (true, true, true) => "rightly passed",
        (false, true, true) => "right id",
        (false, _, _) if !any_fails => "missed",
        (false, _, _) => "wrong id",
    };
    (verdict, reason)
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts =
            if self.facts.is_empty() { "correct".to_owned() } else { self.facts.join(", ") };
        let found: Vec<_> = self.found.iter().map(String::as_str).collect();
        let took = self.took.as_secs_f32();
        write!(
            f,
            "{:28} {:17} {took:4.1} s  {facts:36} {:8} {}",
            self.name,
            self.verdict,
            self.named,
            found.join(" ")
        )
    }
}
