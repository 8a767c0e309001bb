//! A Prometheus with the shipped rules.

use crate::peer::Peer;
use crate::support::with_timeout;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const RULES: &str = include_str!("../../../deploy/prometheus/alerts.yml");

/// The longest wait for an alert: `for: 30m` after the longest window.
const PATIENCE: Duration = Duration::from_secs(150);

/// Prometheus, which scrapes one server.
pub(super) struct Watch {
    prometheus: Peer,
    _dir: TempDir,
}

impl Watch {
    /// Scrapes this address; with the rules once the first scrape succeeded, because Prometheus waits 5 s for it.
    pub(super) async fn of(admin: SocketAddr) -> Self {
        let dir = TempDir::new().unwrap();
        let rules = dir.path().join("alerts.yml");
        fs::write(&rules, "").unwrap();
        // JSON is YAML. The first line is for the argument below.
        let configuration = serde_json::json!({
            "global": {
                "scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms",
            },
            "rule_files": [rules],
            "scrape_configs": [{
                "job_name": "callback-edge",
                "static_configs": [{ "targets": [admin], "labels": { "instance": "edge" } }],
            }],
        });
        let configuration = format!("# 127.0.0.1:{{port:web}}\n{configuration}");
        let prometheus =
            Peer::serve("prometheus", "prometheus.yml", &configuration, |command, file| {
                let text = fs::read_to_string(file).unwrap();
                let address = text.lines().next().unwrap().trim_start_matches("# ");
                let data = file.with_file_name("data");
                command.arg(format!("--config.file={}", file.display()));
                command.arg(format!("--storage.tsdb.path={}", data.display()));
                command.arg(format!("--web.listen-address={address}"));
                command.arg("--web.enable-lifecycle");
            });
        let watch = Self { prometheus, _dir: dir };
        watch.observes("up == 1").await;
        fs::write(rules, scaled(RULES)).unwrap();
        watch.request("POST", "/-/reload").await;
        watch
    }

    /// Waits until this alert fires; returns it.
    pub(super) async fn fires(&self, name: &str) -> Value {
        self.until(&format!("{name} fires"), async || {
            self.firing().await.into_iter().find(|alert| alert["labels"]["alertname"] == name)
        })
        .await
    }

    /// Waits until no alert fires.
    pub(super) async fn is_silent(&self) {
        self.until("no alert fires", async || self.firing().await.is_empty().then_some(())).await;
    }

    /// The alerts that have fired since the start.
    pub(super) async fn fired(&self) -> BTreeSet<String> {
        let all = self.query("count_over_time(ALERTS{alertstate=\"firing\"}[1h])").await;
        all.iter()
            .map(|series| series["metric"]["alertname"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits for a number of further scrapes, successful or not.
    pub(super) async fn scrapes(&self, count: u32) {
        let scrapes = async || {
            let counts = self.query("sum(count_over_time(up[1h]))").await;
            counts
                .first()
                .map_or(0.0, |series| series["value"][1].as_str().unwrap().parse().unwrap())
        };
        let end = scrapes().await + f64::from(count);
        self.until("scrapes", async || (scrapes().await >= end).then_some(())).await;
    }

    /// Waits until a query has a result.
    pub(super) async fn observes(&self, query: &str) {
        self.until(query, async || (!self.query(query).await.is_empty()).then_some(())).await;
    }

    async fn until<T>(&self, what: &str, mut result: impl AsyncFnMut() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(result) = result().await {
                return result;
            }
            assert!(started.elapsed() < PATIENCE, "never: {what}; {:#?}", self.firing().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn firing(&self) -> Vec<Value> {
        let mut alerts = self.get("/api/v1/alerts").await["data"]["alerts"].take();
        let alerts = alerts.as_array_mut().unwrap();
        alerts.drain(..).filter(|alert| alert["state"] == "firing").collect()
    }

    async fn query(&self, query: &str) -> Vec<Value> {
        let query: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("query", query)
            .finish();
        let mut reply = self.get(&format!("/api/v1/query?{query}")).await;
        // There is no result while Prometheus starts.
        reply["data"]["result"].take().as_array().cloned().unwrap_or_default()
    }

    async fn get(&self, target: &str) -> Value {
        serde_json::from_str(&self.request("GET", target).await).unwrap_or(Value::Null)
    }

    /// Returns the body.
    async fn request(&self, method: &str, target: &str) -> String {
        let mut stream = TcpStream::connect(self.prometheus.address("web")).await.unwrap();
        let request = format!("{method} {target} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        with_timeout(stream.write_all(request.as_bytes())).await.unwrap();
        let mut reply = String::new();
        with_timeout(stream.read_to_string(&mut reply)).await.unwrap();
        reply.split_once("\r\n\r\n").unwrap().1.to_owned()
    }
}

/// The rules with one second for each minute and one minute for each hour, in `for` and in ranges.
pub(super) fn scaled(rules: &str) -> String {
    let shorter = |duration: &str| -> Option<String> {
        let (number, unit) = duration.split_at_checked(duration.len().checked_sub(1)?)?;
        number.parse::<u32>().ok()?;
        let unit = match unit {
            "m" => "s",
            "h" => "m",
            _ => return None,
        };
        Some(format!("{number}{unit}"))
    };
    let lines = rules.lines().map(|line| {
        if let Some((indent, duration)) = line.split_once("for: ") {
            return format!("{indent}for: {}", shorter(duration).unwrap());
        }
        let parts = line.split_inclusive('[').map(|part| match part.split_once(']') {
            Some((range, rest)) => format!("{}]{rest}", shorter(range).unwrap_or(range.to_owned())),
            None => part.to_owned(),
        });
        parts.collect()
    });
    lines.collect::<Vec<String>>().join("\n")
}

#[test]
fn every_duration_of_the_rules_is_scaled_and_nothing_else() {
    let scaled = scaled(RULES);
    for (before, after) in [("for: 3m", "for: 3s"), ("[6h]", "[6m]"), ("[30m]", "[30s]")] {
        assert!(RULES.contains(before) && scaled.contains(after) && !scaled.contains(before));
    }
    assert_eq!(scaled.lines().count(), RULES.lines().count());
    let same = RULES.lines().zip(scaled.lines()).filter(|(before, after)| before == after).count();
    let durations = RULES
        .lines()
        .filter(|line| line.contains("for: ") || line.contains("m]") || line.contains("h]"));
    assert_eq!(same + durations.count(), RULES.lines().count());
}
