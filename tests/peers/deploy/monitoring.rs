//! The Prometheus alerts and the Grafana dashboard.

use super::{deploy_path, run, text, yaml};
use crate::peer::program;
use crate::support::{Edge, connect};
use callback_edge::explain;
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
    let tests = yaml("prometheus/alerts_test.yml")[0]["tests"].take();
    let tests: Vec<&Value> = tests.as_array().unwrap().iter().collect();
    let fires = |rule: &Value| {
        let cases = tests.iter().filter_map(|test| test["alert_rule_test"].as_array()).flatten();
        cases.filter(|case| case["alertname"] == *rule).any(|case| !case["exp_alerts"].is_null())
    };
    // A test of silence is about all rules.
    let silent = tests.iter().filter_map(|test| test["promql_expr_test"].as_array()).flatten();
    assert!(silent.filter(|case| case["exp_samples"] == serde_json::json!([])).count() > 3);
    for rule in alerts() {
        let name = rule["alert"].as_str().unwrap();
        assert!(fires(&rule["alert"]), "no test in which {name} fires");
        assert!(matches!(rule["labels"]["severity"].as_str().unwrap(), "page" | "ticket"));
        let notes = &rule["annotations"];
        assert!(notes["summary"].is_string() && notes["description"].is_string(), "{name}");
        assert_eq!(notes["runbook"], format!("callback-edge explain alert.{name}"));
        let section = explain::find(&format!("alert.{name}")).unwrap();
        assert_eq!(notes["docs"], section.link());
    }
}

#[test]
fn prometheus_accepts_the_configuration_of_the_compose_profile() {
    let config = deploy_path("prometheus/prometheus.yml");
    run(Command::new(program("promtool")).args(["check", "config"]).arg(config));
    let config = &yaml("prometheus/prometheus.yml")[0];
    let scrape = &config["scrape_configs"][0];
    assert_eq!(scrape["job_name"], "callback-edge");
    let target = scrape["static_configs"][0]["targets"][0].as_str().unwrap();
    let (host, port) = target.split_once(':').unwrap();
    let services = &yaml("docker/compose.yaml")[0]["services"];
    let admin = &services[host]["environment"]["CALLBACK_EDGE_LISTEN__ADMIN"];
    assert_eq!(*admin, format!("0.0.0.0:{port}"));
    let profile = &services["prometheus"];
    assert_eq!(profile["profiles"], serde_json::json!(["monitoring"]));
    let volume = profile["volumes"][0].as_str().unwrap();
    let (from, _) = volume.split_once(':').unwrap();
    assert!(deploy_path("docker").join(from).join("alerts.yml").exists());
    // Neither the admin listener nor Prometheus is public.
    for port in
        services.as_object().unwrap().values().flat_map(|it| it["ports"].as_array().unwrap())
    {
        let port = port.as_str().unwrap();
        assert!(
            ["80:8080", "443:8443"].contains(&port) || port.starts_with("127.0.0.1:"),
            "{port}"
        );
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
    // The first self-check registers some of the metrics.
    connect(edge.admin[0]).await.get("/self-check").await.unwrap();
    let text = edge.metrics().await.0;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
}
