//! The Prometheus alerts and the Grafana dashboard.

use super::{deploy_path, run, text, yaml};
use crate::peer::program;
use crate::support::Edge;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use tempfile::TempDir;

#[test]
fn prometheus_accepts_the_alerts_and_they_fire_when_they_should() {
    let promtool = program("promtool");
    run(Command::new(&promtool).args(["check", "rules"]).arg(deploy_path("prometheus/alerts.yml")));
    run(Command::new(&promtool)
        .args(["test", "rules"])
        .arg(deploy_path("prometheus/alerts_test.yml")));
    let tested = text("prometheus/alerts_test.yml");
    for rule in alerts().iter().map(|rule| rule["alert"].as_str().unwrap()) {
        // One test in which it does not fire, one in which it does.
        assert_eq!(tested.matches(&format!("alertname: {rule}")).count(), 2, "{rule}");
    }
}

#[tokio::test]
async fn alerts_and_dashboard_query_only_metrics_that_exist() {
    let exported = exported().await;
    let promtool = program("promtool");
    let dashboard: Value = serde_json::from_str(&text("grafana/dashboard.json")).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter();
    let targets = targets.flat_map(|panel| panel["targets"].as_array().unwrap());
    let shown = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    let alerted = alerts().into_iter().map(|rule| rule["expr"].as_str().unwrap().to_owned());
    let dir = TempDir::new().unwrap();
    let mut queries = 0;
    for query in shown.chain(alerted) {
        // Grafana replaces these variables.
        let query = query.replace("$__rate_interval", "5m").replace("$instance", ".*");
        let words = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let names =
            words.filter(|word| word.contains("callback_edge") || word.starts_with("process_"));
        let mut count = 0;
        for name in names {
            assert!(exported.contains(name), "the server does not export `{name}`: {query}");
            count += 1;
        }
        assert!(count > 0, "{query}");
        let rule = serde_json::json!({ "groups": [{
            "name": "queries", "rules": [{ "record": "query", "expr": query }],
        }] });
        let file = dir.path().join("query.yml");
        fs::write(&file, rule.to_string()).unwrap();
        run(Command::new(&promtool).args(["check", "rules"]).arg(file));
        queries += 1;
    }
    assert!(queries > 15);
}

fn alerts() -> Vec<Value> {
    yaml("prometheus/alerts.yml")[0]["groups"][0]["rules"].as_array().unwrap().clone()
}

/// The names of all metrics that a server with a certificate exports.
async fn exported() -> BTreeSet<String> {
    let (edge, _) = Edge::over_tls("");
    let text = edge.metrics().await.0;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
}
