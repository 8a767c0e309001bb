//! The test harness: the built binary as a process, certificates, and low-level clients.

mod bystander;
pub(crate) mod certs;
pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod golden;
pub(crate) mod heads;
mod metrics;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod settings;
mod terminal;

pub(crate) use bystander::Bystander;
pub(crate) use certs::{Authority, certified, expired};
pub(crate) use client::{Http1, Http2, Reply, connect, connect_tls, handshake};
pub(crate) use golden::{assert_shows, golden, golden_dir, matches_file};
pub(crate) use metrics::Metrics;
pub(crate) use port::free;
pub(crate) use process::{Edge, Lines, command};
pub(crate) use terminal::{on_a_terminal, picture, terminal};

use serde_json::Value;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The time-out of each step, generous enough for a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits, at most [`PATIENCE`].
pub(crate) async fn with_timeout<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("timed out")
}

/// Polls until the condition holds, at most [`PATIENCE`].
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = std::time::Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The requests in a log, without those to the admin listener.
pub(crate) fn requests(log: &str) -> Vec<Value> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["event"] == "request" && line["listener"] != "admin")
        .collect()
}

/// The check with this id in a report.
pub(crate) fn check<'r>(report: &'r Value, id: &str) -> &'r Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no {id}: {report:#}"))
}

/// Every file below a directory, sorted.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
        .collect();
    files.sort();
    files
}

/// Tests that saturate the machine must not run at the same time as tests that measure times: the
/// former take the lock for writing, the latter for reading.
pub(crate) static MACHINE: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());
