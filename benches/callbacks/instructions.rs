//! How many instructions a callback takes. Unlike times they are the same on a busy machine, so they
//! tell a regression from noise.

use crate::Work;
use crate::server::{Identity, Kind, Server, Under};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// Requests of the shorter of two runs. The longer one's surplus is what counts, so that start and
/// end do not.
const FEW: usize = 64;

/// The most that a one-shot may take, as a multiple of the floor's.
const OVER_FLOOR: f64 = 1.04;

/// What each took when this was last looked at, and how many more requests the longer run has.
/// Growth by more than [`GROWTH`] fails; whoever makes it less puts the new figure here.
const RECORDED: [(Work, f64, usize); 4] = [
    (Work::OneShot, 1_075_000.0, 160),
    (Work::KeepAlive, 22_950.0, 3200),
    (Work::H2, 69_100.0, 3200),
    (Work::H2Crowd, 60_000.0, 3200),
];
const GROWTH: f64 = 1.03;

/// Counts, prints, and panics where the edge takes more than it may.
pub(crate) async fn run(identity: &Identity) -> Value {
    println!("\nInstructions for each request      edge    recorded       floor    edge/floor");
    let mut told = Map::new();
    let mut grown = Vec::new();
    for (work, recorded, more) in RECORDED {
        let edge = count(Kind::Edge, work, more, identity).await;
        let floor = if work.is_done_by(Kind::Floor) {
            Some(count(Kind::Floor, work, more, identity).await)
        } else {
            None
        };
        let ratio = floor.map(|floor| edge / floor);
        let shown = |figure: Option<f64>, digits| {
            figure.map_or("–".to_owned(), |figure| format!("{figure:.digits$}"))
        };
        let name = work.name();
        let (floor, beside) = (shown(floor, 0), shown(ratio, 3));
        println!("{name:<31}{edge:>9.0}{recorded:>12.0}{floor:>12}{beside:>14}");
        told.insert(name.to_owned(), json!({"edge": edge, "floor_ratio": ratio}));
        if edge > recorded * GROWTH {
            grown.push(format!("{name} takes {edge:.0}, recorded are {recorded:.0}"));
        }
        if work == Work::OneShot && ratio.is_some_and(|ratio| ratio > OVER_FLOOR) {
            grown.push(format!("{name} takes {beside} of the floor, {OVER_FLOOR} is allowed"));
        }
    }
    assert!(grown.is_empty(), "{}", grown.join("; "));
    told.into()
}

/// Instructions for each request.
async fn count(kind: Kind, work: Work, more: usize, identity: &Identity) -> f64 {
    let few = total(kind, work, FEW, identity).await;
    let many = total(kind, work, FEW + more, identity).await;
    many.saturating_sub(few) as f64 / more as f64
}

/// Instructions of a process from its first to its last.
async fn total(kind: Kind, work: Work, requests: usize, identity: &Identity) -> u64 {
    let name = format!("{}-{work:?}-{requests}.callgrind", kind.name());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let under = Under::Callgrind(&file);
    let (server, _) = Server::start_under(under, kind, work.role(), identity, "").await;
    work.load(&server, requests).await;
    server.end();
    let counted = fs::read_to_string(&file).unwrap();
    let total = counted.lines().find_map(|line| line.strip_prefix("summary: "));
    total.unwrap().trim().parse().unwrap()
}
