//! How the cost of the server grows with its load and configuration.

use crate::load::{self, Hello, QUERY_BYTES, client, client_for};
use crate::server::{Identity, Kind, ONE_CPU, Role, Server, Under};
use crate::{Work, median, settled};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

/// The name of the last certificate.
const NAME: &str = "last.example";

pub(crate) async fn run(rounds: usize, identity: &Identity) -> Value {
    let mut figures = Map::new();
    figures.insert("query_bytes".to_owned(), queries(rounds, identity).await);
    figures.insert("routes".to_owned(), routes(rounds, identity).await);
    figures.insert("certificates".to_owned(), certificates(rounds, identity).await);
    figures.insert("scrapes".to_owned(), scrapes(rounds, identity).await);
    figures.insert("cpus".to_owned(), cpus(rounds, identity).await);
    figures.insert("connections".to_owned(), connections(identity).await);
    figures.into()
}

async fn start(role: Role, identity: &Identity, more: &str) -> (Server, Duration) {
    Server::start_under(ONE_CPU, Kind::Edge, role, identity, more).await
}

/// µs of CPU per request: the median of the rounds.
async fn cost<F: Future<Output = ()>>(
    server: &Server,
    rounds: usize,
    requests: usize,
    load: impl Fn(usize) -> F,
) -> f64 {
    load(requests / 10).await;
    let mut costs = Vec::new();
    for _ in 0..rounds {
        let before = server.cpu();
        load(requests).await;
        let spent = server.cpu().saturating_sub(before);
        costs.push(spent.as_secs_f64() * 1e6 / requests as f64);
    }
    median(&costs)
}

async fn keep_alive(server: &Server, rounds: usize, query_bytes: usize) -> f64 {
    let load = |requests| load::keep_alive(server.address(), requests, query_bytes);
    cost(server, rounds, 8000, load).await
}

async fn queries(rounds: usize, identity: &Identity) -> Value {
    println!("\nBytes of the query        µs per request, keep-alive");
    let (server, _) = start(Role::Plain, identity, "").await;
    let mut figures = Map::new();
    for bytes in [100, 600, 2048, 8192, 31 * 1024] {
        let cost = keep_alive(&server, rounds, bytes).await;
        println!("{bytes:>18}{cost:>20.1}");
        figures.insert(bytes.to_string(), cost.into());
    }
    figures.into()
}

async fn routes(rounds: usize, identity: &Identity) -> Value {
    println!(
        "\nRoutes        µs per request, keep-alive        ms to the first redirect        MB"
    );
    let mut figures = Map::new();
    for count in [1, 100, 10_000] {
        let mut more = String::new();
        for number in 1..count {
            write!(more, "[[route]]\npath = \"/callback/{number}\"\n").unwrap();
        }
        more += "[[route]]\npath = \"/oauth/callback\"\n";
        let (server, took) = start(Role::Plain, identity, &more).await;
        let cost = keep_alive(&server, rounds, QUERY_BYTES).await;
        let memory = server.memory();
        row(&mut figures, count, cost, took, memory);
    }
    figures.into()
}

async fn certificates(rounds: usize, identity: &Identity) -> Value {
    println!(
        "\nCertificates  µs per one-shot with the last        ms to the first redirect        MB"
    );
    let mut figures = Map::new();
    let client = client_for(NAME, Hello::X25519, "http/1.1");
    for count in [1, 100, 1000] {
        let mut more = String::new();
        for number in 1..=count {
            let name = if number == count { NAME.to_owned() } else { format!("{number}.example") };
            let made = rcgen::generate_simple_self_signed([name]).unwrap();
            let (certificate, key) = (identity.path("of-many.pem"), identity.path("of-many.key"));
            let (certificate, key) = (format!("{certificate}.{number}"), format!("{key}.{number}"));
            std::fs::write(&certificate, made.cert.pem()).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            writeln!(more, "[[tls.pair]]\ncertificate = {certificate:?}\nprivate_key = {key:?}")
                .unwrap();
        }
        let (server, took) = start(Role::Tls, identity, &more).await;
        let load = async |requests| {
            load::one_shots(server.address(), &client, requests).await;
        };
        let cost = cost(&server, rounds, 1000, load).await;
        row(&mut figures, count, cost, took, server.memory());
    }
    figures.into()
}

async fn scrapes(rounds: usize, identity: &Identity) -> Value {
    println!("\nScrapes of the metrics per second         µs per request, keep-alive");
    let (server, _) = start(Role::Plain, identity, "").await;
    let mut figures = Map::new();
    for rate in [0, 1, 10] {
        let scraping = async {
            loop {
                if rate == 0 {
                    std::future::pending::<()>().await;
                }
                server.scrape().await;
                tokio::time::sleep(Duration::from_secs(1) / rate).await;
            }
        };
        let cost = tokio::select! {
            cost = keep_alive(&server, rounds * 5, QUERY_BYTES) => cost,
            () = scraping => 0.0,
        };
        println!("{rate:>34}{cost:>20.1}");
        figures.insert(rate.to_string(), cost.into());
    }
    figures.into()
}

/// What a second CPU costs each request: locks and cache lines that both write, and tasks that move between them.
/// The second one is also that of the load generator. What the libraries need for two is theirs.
async fn cpus(rounds: usize, identity: &Identity) -> Value {
    println!("\nµs per request, on one CPU and on two      edge                        libraries");
    let mut figures = Map::new();
    for work in [Work::OneShot, Work::H2, Work::KeepAlive, Work::KeepAliveLogged] {
        let mut row = Map::new();
        print!("{:<34}", work.name());
        for kind in [Kind::Edge, Kind::Libraries] {
            if !work.is_supported_by(kind) {
                continue;
            }
            let role = work.role();
            let one = Server::start_under(ONE_CPU, kind, role, identity, "").await.0;
            let two = Server::start_under(Under::Cpus("0,1"), kind, role, identity, "").await.0;
            let (mut alone, mut together, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            // In turns, so that other activity of the machine affects both.
            for _ in 0..rounds {
                let (first, second) = (cost_of(work, &one).await, cost_of(work, &two).await);
                alone.push(first);
                together.push(second);
                ratios.push(second / first);
            }
            let (alone, together, ratio) = (median(&alone), median(&together), median(&ratios));
            print!("{alone:>10.1}{together:>8.1}{ratio:>7.2}");
            row.insert(
                kind.name().to_owned(),
                json!({"one": alone, "two": together, "ratio": ratio}),
            );
        }
        println!();
        figures.insert(work.name().to_owned(), row.into());
    }
    figures.into()
}

async fn cost_of(work: Work, server: &Server) -> f64 {
    let load = async |requests| {
        work.load(server, requests).await;
    };
    cost(server, 1, work.requests(), load).await
}

async fn connections(identity: &Identity) -> Value {
    // Each connection is a file descriptor in both processes; children inherit the limit.
    let files = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files }).unwrap();
    let most = files.map_or(20_000, |files| files.saturating_sub(500).min(20_000));
    println!("\nIdle TLS connections        bytes each        µs per further one-shot");
    let mut figures = Map::new();
    let (server, _) = start(Role::Tls, identity, "").await;
    let at_rest = settled(&server).await;
    let client = client(Hello::X25519, "http/1.1");
    let mut open = Vec::new();
    for count in [100, 1000, 10_000, usize::try_from(most).unwrap()] {
        while open.len() < count {
            // A new source address for each 5,000, so that a free port is found at once.
            let from = Ipv4Addr::new(127, 0, 1, u8::try_from(open.len() / 5000).unwrap() + 1);
            let more = (count - open.len()).min(5000 - open.len() % 5000);
            let idle_client = client.clone().from(from);
            open.extend(load::idle(server.address(), &idle_client, false, more).await);
        }
        let each = settled(&server).await.saturating_sub(at_rest) / count as u64;
        let load = async |requests| {
            load::one_shots(server.address(), &client, requests).await;
        };
        let cost = cost(&server, 3, 1000, load).await;
        println!("{count:>20}{each:>18}{cost:>25.1}");
        figures.insert(count.to_string(), json!({"bytes": each, "us_per_one_shot": cost}));
    }
    figures.into()
}

fn row(figures: &mut Map<String, Value>, count: usize, cost: f64, took: Duration, memory: u64) {
    let (took, memory) = (took.as_secs_f64() * 1e3, memory as f64 / 1e6);
    println!("{count:>6}{cost:>25.1}{took:>30.0}{memory:>20.1}");
    figures.insert(count.to_string(), json!({"us": cost, "first_ms": took, "mb": memory}));
}
