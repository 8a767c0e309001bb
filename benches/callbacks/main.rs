//! The cost of a callback, compared with nginx, HAProxy, Caddy and the baseline. `benches/README.md`
//! describes how to run this and what the figures mean.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints its results and fails by panicking"
)]

mod baseline;
mod growth;
mod instructions;
mod libraries;
mod load;
#[path = "../../tests/edge/support/port.rs"]
mod port;
mod server;

use load::{Hello, Latencies, QUERY_BYTES, client};
use serde_json::{Map, Value, json};
use server::{Identity, Kind, ONE_CPU, Role, Server};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The allocator of the server, so that the baseline differs only by what it omits.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 5;
/// Clients per second: about a quarter of what nginx handles on one core.
const RATE: u32 = 400;
const LATENCY_ROUNDS: usize = 3;
/// Seconds at that rate in each round.
const SECONDS: u32 = 2;

/// The parts that can be measured; the first four are the default.
const PARTS: [&str; 6] = ["cpu", "latency", "memory", "cold", "growth", "instructions"];

/// The command line.
struct Options {
    parts: Vec<&'static str>,
    rounds: usize,
    /// Only the rows of `cpu` with this in their name.
    only: String,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["baseline", certificate, key] => baseline::run(certificate, key),
        ["libraries", certificate, key] => libraries::run(certificate, key),
        ["pinned", ref words @ ..] => {
            let options = Options::read(words);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(run(&options));
        }
        // The load has CPU 1, the servers CPU 0.
        _ => {
            let mut command = Command::new("taskset");
            command.args(["-c", "1"]).arg(std::env::current_exe().unwrap()).arg("pinned");
            panic!("cannot run taskset on two CPUs: {}", command.args(arguments).exec());
        }
    }
}

impl Options {
    fn read(words: &[&str]) -> Self {
        let mut options = Self { parts: Vec::new(), rounds: ROUNDS, only: String::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match *word {
                // Added by cargo.
                "--bench" => {}
                "--rounds" => options.rounds = value().parse::<usize>().unwrap().max(1),
                "--only" => (*value()).clone_into(&mut options.only),
                "--edge" => server::EDGE.set(value().into()).unwrap(),
                part => match PARTS.into_iter().find(|known| *known == part) {
                    Some(part) => options.parts.push(part),
                    None => panic!(
                        "{part} is not one of {PARTS:?}, --rounds N, --only ROWS, --edge PROGRAM"
                    ),
                },
            }
        }
        if options.parts.is_empty() {
            options.parts = PARTS[..4].to_vec();
        }
        options
    }
}

async fn run(options: &Options) {
    let started = Instant::now();
    let identity = Identity::new();
    let mut figures = Map::new();
    figures.insert("machine".to_owned(), machine());
    figures.insert("rounds".to_owned(), options.rounds.into());
    for part in &options.parts {
        let result = match *part {
            "cpu" => cpu(options, &identity).await,
            "latency" => latency(options.rounds, &identity).await,
            "memory" => memory(&identity).await,
            "cold" => cold_start(options.rounds, &identity).await,
            "growth" => growth::run(options.rounds, &identity).await,
            _ => instructions::run(&identity).await,
        };
        figures.insert((*part).to_owned(), result);
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench.json");
    std::fs::write(&path, format!("{:#}\n", Value::from(figures))).unwrap();
    println!("\n{} s; results in {}", started.elapsed().as_secs(), path.display());
}

fn machine() -> Value {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let models = cpus.lines().filter_map(|line| line.strip_prefix("model name"));
    let models: Vec<_> = models.map(|model| model.trim_start_matches([' ', '\t', ':'])).collect();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    println!("{} × {}, Linux {}", models.len(), models.first().unwrap_or(&"?"), kernel.trim());
    let mut servers = Map::new();
    for kind in Kind::ALL {
        let (version, bytes) = kind.version();
        println!("{:<8} {version}, {:.1} MB", kind.name(), bytes as f64 / 1e6);
        servers.insert(kind.name().to_owned(), json!({"version": version, "binary_bytes": bytes}));
    }
    json!({"cpus": models.len(), "model": models.first(), "kernel": kernel.trim(), "servers": servers})
}

/// One row of the table of CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    OneShot,
    OneShotMlKem,
    Resumption,
    H2,
    H2Concurrent,
    KeepAlive,
    KeepAliveLogged,
}

impl Work {
    const ALL: [Self; 7] = [
        Self::OneShot,
        Self::OneShotMlKem,
        Self::Resumption,
        Self::H2,
        Self::H2Concurrent,
        Self::KeepAlive,
        Self::KeepAliveLogged,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::OneShot => "one-shot TLS, X25519",
            Self::OneShotMlKem => "one-shot TLS, X25519MLKEM768",
            Self::Resumption => "one-shot TLS, with a ticket if given",
            Self::H2 => "HTTP/2 over TLS, one at a time",
            Self::H2Concurrent => "HTTP/2 over TLS, sixteen at once",
            Self::KeepAlive => "HTTP/1.1 keep-alive, plain",
            Self::KeepAliveLogged => "the same with a log of requests",
        }
    }

    fn role(self) -> Role {
        match self {
            Self::KeepAlive => Role::Plain,
            Self::KeepAliveLogged => Role::Logged,
            _ => Role::Tls,
        }
    }

    /// How many measurements a round has of each server. Other activity of the machine often lasts less
    /// than a second: it affects all servers that are measured in short turns. A connection with many
    /// requests is measured once, so that its handshake does not count.
    fn slices(self) -> usize {
        match self {
            Self::OneShot | Self::OneShotMlKem | Self::Resumption => 5,
            Self::H2 | Self::H2Concurrent | Self::KeepAlive | Self::KeepAliveLogged => 1,
        }
    }

    /// The requests of a round.
    fn requests(self) -> usize {
        match self {
            Self::OneShot | Self::OneShotMlKem => 1500,
            Self::Resumption => 1000,
            Self::H2 | Self::H2Concurrent | Self::KeepAlive | Self::KeepAliveLogged => 12_000,
        }
    }

    /// The baseline has neither HTTP/2 nor a log, and the libraries have no log.
    fn is_supported_by(self, kind: Kind) -> bool {
        match self {
            Self::H2 | Self::H2Concurrent => kind != Kind::Baseline,
            Self::KeepAliveLogged => !matches!(kind, Kind::Baseline | Kind::Libraries),
            _ => true,
        }
    }

    /// Generates the load; returns how many sessions were resumed.
    async fn load(self, server: &Server, requests: usize) -> usize {
        let address = server.address();
        let hello = match self {
            Self::OneShotMlKem => Hello::MlKem,
            Self::Resumption => Hello::Resuming,
            _ => Hello::X25519,
        };
        match self {
            Self::KeepAlive | Self::KeepAliveLogged => {
                load::keep_alive(address, requests, QUERY_BYTES).await;
            }
            Self::H2 => load::h2(address, &client(hello, "h2"), requests, 16, 1).await,
            Self::H2Concurrent => load::h2(address, &client(hello, "h2"), requests, 4, 16).await,
            _ => return load::one_shots(address, &client(hello, "http/1.1"), requests).await,
        }
        0
    }
}

/// CPU of the server per request. The servers are measured in turn, in both directions, so that other
/// activity of the machine affects all of them; ratios are those of neighbouring measurements.
async fn cpu(options: &Options, identity: &Identity) -> Value {
    let rounds = options.rounds;
    let works: Vec<Work> =
        Work::ALL.into_iter().filter(|work| work.name().contains(&options.only)).collect();
    let mut servers = Vec::new();
    for role in [Role::Tls, Role::Plain, Role::Logged] {
        for kind in Kind::ALL {
            if role != Role::Logged || Work::KeepAliveLogged.is_supported_by(kind) {
                servers.push((role, Server::start(kind, role, identity).await));
            }
        }
    }
    let mut costs: BTreeMap<(Work, Kind), Vec<f64>> = BTreeMap::new();
    let mut own: BTreeMap<Work, Vec<f64>> = BTreeMap::new();
    let mut resumed: BTreeMap<Kind, usize> = BTreeMap::new();
    // Round 0 warms up.
    for round in 0..=rounds {
        let turns =
            works.iter().flat_map(|&work| (0..work.slices()).map(move |slice| (work, slice)));
        for (work, slice) in turns {
            let mut measured: Vec<&Server> = servers
                .iter()
                .filter(|(role, server)| *role == work.role() && work.is_supported_by(server.kind))
                .map(|(_, server)| server)
                .collect();
            if (round + slice) % 2 == 1 {
                measured.reverse();
            }
            let requests = work.requests() / work.slices();
            let requests = if round == 0 { requests / 10 } else { requests };
            for server in measured {
                let (before, own_before) = (server.cpu(), server::own_cpu());
                let count = work.load(server, requests).await;
                let own_spent = server::own_cpu().saturating_sub(own_before);
                // The cleanup is part of the cost.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let spent = server.cpu().saturating_sub(before);
                if round == 0 {
                    continue;
                }
                let cost = |spent: Duration| spent.as_secs_f64() * 1e6 / requests as f64;
                costs.entry((work, server.kind)).or_default().push(cost(spent));
                if server.kind == Kind::Edge {
                    own.entry(work).or_default().push(cost(own_spent));
                }
                if work == Work::Resumption {
                    *resumed.entry(server.kind).or_default() += count;
                }
            }
        }
    }

    println!(
        "\nCPU of the server, µs per request: median of {rounds} rounds; last, the load generator"
    );
    heading("");
    let mut figures = Map::new();
    for &work in &works {
        let mut row = Map::new();
        let cells = Kind::ALL.map(|kind| {
            let Some(costs) = costs.get(&(work, kind)) else { return "–".to_owned() };
            row.insert(kind.name().to_owned(), costs.clone().into());
            format!("{:.1}", median(costs))
        });
        let own = median(&own[&work]);
        line(work.name(), &[&cells[..], &[format!("{own:.1}")]].concat());
        row.insert("load".to_owned(), own.into());
        figures.insert(work.name().to_owned(), row.into());
    }
    println!("\nThe server relative to each: median of the ratios of the rounds, and their range");
    heading("");
    let mut ratios = Map::new();
    for &work in &works {
        let edge = &costs[&(work, Kind::Edge)];
        let mut row = Map::new();
        let cells = Kind::ALL.map(|kind| {
            let Some(other) = costs.get(&(work, kind)) else { return "–".to_owned() };
            let mut each: Vec<f64> =
                edge.iter().zip(other).map(|(edge, other)| edge / other).collect();
            each.sort_by(f64::total_cmp);
            row.insert(kind.name().to_owned(), median(&each).into());
            format!("{:.2} ({:.2}–{:.2})", median(&each), each[0], each[each.len() - 1])
        });
        line(work.name(), &cells);
        ratios.insert(work.name().to_owned(), row.into());
    }
    if !works.contains(&Work::Resumption) {
        return json!({"us_per_request": figures, "edge_ratio": ratios});
    }
    let total = rounds * Work::Resumption.requests();
    let share = |kind: Kind| 100.0 * resumed[&kind] as f64 / total as f64;
    line("sessions resumed, %", &Kind::ALL.map(|kind| format!("{:.0}", share(kind))));
    if resumed[&Kind::Edge] == 0 {
        println!("The server sends no tickets: a browser does not return after a callback.");
    }
    let resumed: Map<_, _> =
        resumed.keys().map(|kind| (kind.name().to_owned(), share(*kind).into())).collect();
    json!({"us_per_request": figures, "edge_ratio": ratios, "resumed_percent": resumed})
}

/// Latencies at a fixed rate, without other activity and during reloads.
async fn latency(rounds: usize, identity: &Identity) -> Value {
    let mut servers = Vec::new();
    for kind in Kind::ALL {
        servers.push(Server::start(kind, Role::Tls, identity).await);
    }
    let client = client(Hello::X25519, "http/1.1");
    let mut seen: BTreeMap<(bool, Kind), Latencies> = BTreeMap::new();
    // This part takes the most time.
    for _ in 0..rounds.min(LATENCY_ROUNDS) {
        for reloading in [false, true] {
            for server in &servers {
                if reloading && matches!(server.kind, Kind::Baseline | Kind::Libraries) {
                    continue;
                }
                let seen = seen.entry((reloading, server.kind)).or_default();
                let clients =
                    load::open_loop(server.address(), &client, RATE, RATE * SECONDS, seen);
                if reloading {
                    let reloads = async {
                        for _ in 0..SECONDS {
                            tokio::time::sleep(Duration::from_millis(500)).await;
                            server.reload().await;
                        }
                    };
                    tokio::join!(clients, reloads);
                } else {
                    clients.await;
                }
            }
        }
    }
    println!("\n{RATE} one-shots a second, ms at p50 / p99 / p99.9");
    heading("");
    let mut figures = Map::new();
    for (reloading, name) in [(false, "without reloads"), (true, "with a reload every second")] {
        let mut row = Map::new();
        let mut late = Vec::new();
        let mut failed = Vec::new();
        let cells = Kind::ALL.map(|kind| {
            let Some(seen) = seen.get_mut(&(reloading, kind)) else {
                late.push("–".to_owned());
                failed.push("–".to_owned());
                return "–".to_owned();
            };
            let [took, lateness] = [&mut seen.durations, &mut seen.lateness].map(|times| {
                times.sort_unstable();
                [0.5, 0.99, 0.999].map(|share| quantile(times, share))
            });
            row.insert(
                kind.name().to_owned(),
                json!({"p50_p99_p999_ms": took, "lateness_ms": lateness, "failed": seen.failed}),
            );
            late.push(lateness.map(|time| format!("{time:.1}")).join(" / "));
            failed.push(seen.failed.to_string());
            took.map(|time| format!("{time:.1}")).join(" / ")
        });
        line(name, &cells);
        line("  lateness of the load generator", &late);
        line("  failed requests", &failed);
        figures.insert(name.to_owned(), row.into());
    }
    figures.into()
}

/// Memory without connections and with idle connections, one server at a time.
async fn memory(identity: &Identity) -> Value {
    let mut rows: [Vec<u64>; 4] = Default::default();
    let mut figures = Map::new();
    for kind in Kind::ALL {
        let server = Server::start(kind, Role::Tls, identity).await;
        let at_rest = settled(&server).await;
        let h1 = client(Hello::X25519, "http/1.1");
        let mut open = load::idle(server.address(), &h1, false, 2000).await;
        let at_2000 = settled(&server).await.saturating_sub(at_rest) / 2000;
        open.extend(load::idle(server.address(), &h1, false, 8000).await);
        let at_10000 = settled(&server).await.saturating_sub(at_rest) / 10_000;
        drop((server, open));
        let mut h2 = 0;
        if Work::H2.is_supported_by(kind) {
            let server = Server::start(kind, Role::Tls, identity).await;
            let at_rest = settled(&server).await;
            let open = load::idle(server.address(), &client(Hello::X25519, "h2"), true, 2000).await;
            h2 = settled(&server).await.saturating_sub(at_rest) / 2000;
            drop((server, open));
        }
        for (row, figure) in rows.iter_mut().zip([at_rest / 1000, at_2000, at_10000, h2]) {
            row.push(figure);
        }
        figures.insert(
            kind.name().to_owned(),
            json!({"at_rest": at_rest, "h1_2000": at_2000, "h1_10000": at_10000, "h2_2000": h2}),
        );
    }
    println!("\nMemory");
    heading("");
    let names = [
        "without connections, kB",
        "bytes per idle TLS connection: 2,000 HTTP/1.1",
        "10,000 HTTP/1.1",
        "2,000 HTTP/2",
    ];
    for (name, row) in names.into_iter().zip(&rows) {
        let cells: Vec<_> = row
            .iter()
            .map(|figure| if *figure == 0 { "–".to_owned() } else { figure.to_string() })
            .collect();
        line(name, &cells);
    }
    figures.into()
}

/// The memory of a server after its cleanup. Allocators return unused memory at a later call, so some
/// requests are sent first.
async fn settled(server: &Server) -> u64 {
    tokio::time::sleep(Duration::from_secs(2)).await;
    load::one_shots(server.address(), &client(Hello::X25519, "http/1.1"), 8).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.memory()
}

async fn cold_start(rounds: usize, identity: &Identity) -> Value {
    let mut took: BTreeMap<Kind, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for kind in Kind::ALL {
            let (_, time) = Server::start_under(ONE_CPU, kind, Role::Tls, identity, "").await;
            took.entry(kind).or_default().push(milliseconds(time));
        }
    }
    println!("\nCold start: exec to the first redirect over TLS");
    heading("");
    line("ms", &Kind::ALL.map(|kind| format!("{:.0}", median(&took[&kind]))));
    took.into_iter().map(|(kind, times)| (kind.name().to_owned(), Value::from(times))).collect()
}

fn heading(name: &str) {
    line(name, &Kind::ALL.map(|kind| kind.name().to_owned()));
}

fn line(name: &str, cells: &[String]) {
    print!("{name:<47}");
    for cell in cells {
        print!("{cell:>24}");
    }
    println!();
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { sorted[middle - 1].midpoint(sorted[middle]) }
}

/// Of sorted times, in milliseconds.
fn quantile(sorted: &[Duration], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a position between 0 and the length"
    )]
    let position = (sorted.len() as f64 * share) as usize;
    sorted.get(position.min(sorted.len().saturating_sub(1))).map_or(0.0, |time| milliseconds(*time))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
