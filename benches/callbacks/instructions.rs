//! The number of instructions of a callback. Unlike times it is the same on a busy machine, so it
//! distinguishes a regression from noise.

use crate::Work;
use crate::server::{Identity, Kind, Server, Under};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// Requests of the shorter of two runs. The difference between both runs counts, so start and shutdown
/// do not.
const FEW: usize = 64;

/// The maximum of a one-shot, relative to the baseline.
const OVER_BASELINE: f64 = 1.04;

/// The recorded instructions, and how many more requests the longer run has. An increase by more than
/// [`GROWTH`] fails; record a decrease here.
const RECORDED: [(Work, f64, usize); 4] = [
    (Work::OneShot, 1_075_000.0, 160),
    (Work::KeepAlive, 23_050.0, 3200),
    (Work::H2, 68_810.0, 3200),
    (Work::H2Concurrent, 60_000.0, 3200),
];
const GROWTH: f64 = 1.03;

/// How often an increase is counted before it is one.
const ATTEMPTS: usize = 3;

/// Counts and prints; panics if the server exceeds a limit.
pub(crate) async fn run(identity: &Identity) -> Value {
    println!(
        "\nInstructions per request           edge    recorded    baseline  edge/baseline   libraries  edge/libraries"
    );
    let mut figures = Map::new();
    let mut grown = Vec::new();
    for (work, recorded, more) in RECORDED {
        let mut edge = count(Kind::Edge, work, more, identity).await;
        // On a busy machine a run takes longer, and timers fire more often: load only adds.
        for _ in 1..ATTEMPTS {
            if edge > recorded * GROWTH {
                edge = edge.min(count(Kind::Edge, work, more, identity).await);
            }
        }
        let lower = async |kind| {
            if work.is_supported_by(kind) {
                Some(count(kind, work, more, identity).await)
            } else {
                None
            }
        };
        let baseline = lower(Kind::Baseline).await;
        let libraries = lower(Kind::Libraries).await;
        let ratio = baseline.map(|baseline| edge / baseline);
        let over_libraries = libraries.map(|libraries| edge / libraries);
        let shown = |figure: Option<f64>, digits| {
            figure.map_or("–".to_owned(), |figure| format!("{figure:.digits$}"))
        };
        let name = work.name();
        let (baseline, relative) = (shown(baseline, 0), shown(ratio, 3));
        let (libraries, more) = (shown(libraries, 0), shown(over_libraries, 3));
        println!(
            "{name:<31}{edge:>9.0}{recorded:>12.0}{baseline:>12}{relative:>15}{libraries:>12}{more:>16}"
        );
        figures.insert(
            name.to_owned(),
            json!({"edge": edge, "baseline_ratio": ratio, "libraries_ratio": over_libraries}),
        );
        if edge > recorded * GROWTH {
            grown.push(format!("{name} takes {edge:.0}, the recorded number is {recorded:.0}"));
        }
        if work == Work::OneShot && ratio.is_some_and(|ratio| ratio > OVER_BASELINE) {
            grown.push(format!(
                "{name} takes {relative} of the baseline, the limit is {OVER_BASELINE}"
            ));
        }
    }
    assert!(grown.is_empty(), "{}", grown.join("; "));
    figures.into()
}

/// Instructions per request.
async fn count(kind: Kind, work: Work, more: usize, identity: &Identity) -> f64 {
    let few = total(kind, work, FEW, identity).await;
    let many = total(kind, work, FEW + more, identity).await;
    many.saturating_sub(few) as f64 / more as f64
}

/// All instructions of a process.
async fn total(kind: Kind, work: Work, requests: usize, identity: &Identity) -> u64 {
    let name = format!("{}-{work:?}-{requests}.callgrind", kind.name());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let under = Under::Callgrind(&file);
    let (server, _) = Server::start_under(under, kind, work.role(), identity, "").await;
    work.load(&server, requests).await;
    server.stop();
    let counted = fs::read_to_string(&file).unwrap();
    let total = counted.lines().find_map(|line| line.strip_prefix("summary: "));
    total.unwrap().trim().parse().unwrap()
}
