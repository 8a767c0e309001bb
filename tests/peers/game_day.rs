//! The game day: a running server is broken in each way that an operator meets. A real Prometheus scrapes it and
//! evaluates the shipped rules; each test asserts which alert fires, what the log contains, what `explain` prints, that
//! its fix works, and that the alert ends.
//!
//! One minute of the rules is one second here, and one hour is one minute ([`watch::scaled`]); Prometheus scrapes and
//! evaluates every half second instead of every 30 s, and the server checks itself every second instead of every 5
//! minutes.

mod attack;
mod callback;
mod files;
mod site;
mod watch;

use crate::support::command;
use serde_json::Value;
use std::path::Path;
use std::process::Output;

/// What `callback-edge explain` prints.
fn explain(id: &str) -> String {
    let Output { status, stdout, .. } =
        command(Path::new("/")).args(["explain", id]).output().unwrap();
    assert_eq!(status.code(), Some(0), "{id}");
    String::from_utf8(stdout).unwrap()
}

/// Asserts that the section of an alert, which its runbook names, contains this fix.
fn assert_runbook(alert: &Value, fix: &str) {
    let runbook = alert["annotations"]["runbook"].as_str().unwrap();
    let text = explain(runbook.strip_prefix("callback-edge explain ").unwrap());
    assert_explained(&text, fix);
}

/// Asserts that a section contains this fix, whatever its line breaks.
fn assert_explained(text: &str, fix: &str) {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(text).contains(fix), "no {fix:?} in:\n{text}");
}

/// The last event with this name in a log.
fn last_event(log: &str, name: &str) -> Value {
    let mut events = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.find(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name} in:\n{log}"))
}
