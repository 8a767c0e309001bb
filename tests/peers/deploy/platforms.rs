//! Platforms and balancers that end TLS: an edge with their variables, asked what they ask.

use super::proxies::edge_behind_http;
use super::{PROJECT, answers, place, text, yaml};
use crate::support::{Edge, connect};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

#[tokio::test]
async fn what_fly_starts_answers_as_it_asks() {
    let fly: toml_edit::DocumentMut = text("proxies/fly.toml").parse().unwrap();
    let variables = fly["env"].as_table().unwrap().iter();
    let variables =
        variables.map(|(key, value)| (key.to_owned(), value.as_str().unwrap().to_owned()));
    let port = |what: &toml_edit::Item| what.as_integer().unwrap().to_string();
    let edge = platform(
        variables.collect(),
        &port(&fly["http_service"]["internal_port"]),
        Some(&port(&fly["checks"]["ready"]["port"])),
    );
    for path in [&fly["checks"]["ready"]["path"], &fly["metrics"]["path"]] {
        answers(edge.admin[0], path.as_str().unwrap()).await;
    }
    let dockerfile = fly["build"]["dockerfile"].as_str().unwrap();
    assert!(place("proxies").join(dockerfile).exists());
}

#[tokio::test]
async fn what_cloud_run_starts_answers_as_it_asks() {
    let service = &yaml("proxies/cloud-run.yaml")[0];
    let container = &service["spec"]["template"]["spec"]["containers"][0];
    let port = container["ports"][0]["containerPort"].to_string();
    let edge = platform(variables(&container["env"], "name"), &port, None);
    for probe in ["startupProbe", "livenessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"].to_string(), port);
        answers(edge.http[0], container[probe]["httpGet"]["path"].as_str().unwrap()).await;
    }
}

#[tokio::test]
async fn what_render_starts_answers_as_it_asks() {
    let service = &yaml("proxies/render.yaml")[0]["services"][0];
    let mut variables = variables(&service["envVars"], "key");
    let port = variables.remove("PORT").unwrap();
    let edge = platform(variables, &port, None);
    answers(edge.http[0], service["healthCheckPath"].as_str().unwrap()).await;
    assert!(Path::new(PROJECT).join(service["dockerfilePath"].as_str().unwrap()).exists());
}

#[tokio::test]
async fn balancers_ask_what_the_edge_answers() {
    let aws = &yaml("proxies/aws.yaml")[0]["Resources"];
    let edge = edge_behind_http();
    for (targets, settings, port) in [
        ("NetworkTargets", "edge-proxy-protocol.toml", "https = \"127.0.0.1:8443\""),
        ("ApplicationTargets", "edge-http.toml", "http = \"127.0.0.1:8080\""),
    ] {
        let of = &aws[targets]["Properties"];
        assert!(port.ends_with(&format!(":{}\"", of["Port"])), "{targets}");
        let settings = text(&format!("proxies/{settings}"));
        assert!(settings.contains(port), "{targets}");
        let health = of["HealthCheckPort"].as_str().unwrap();
        assert!(settings.contains(&format!("admin = \"127.0.0.1:{health}\"")), "{targets}");
        answers(edge.admin[0], of["HealthCheckPath"].as_str().unwrap()).await;
    }
    let traefik = &yaml("proxies/traefik.yaml")[0]["http"];
    let balancer = &traefik["services"]["callback-edge"]["loadBalancer"];
    assert_eq!(balancer["servers"][0]["url"], "http://127.0.0.1:8080");
    // On the public listener only without an admin one.
    let alone = Edge::start("listen.http = '127.0.0.1:0'");
    answers(alone.http[0], balancer["healthCheck"]["path"].as_str().unwrap()).await;
}

#[tokio::test]
async fn rules_by_path_name_the_paths_that_redirect() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'");
    let cloudflare: Value = serde_json::from_str(&text("proxies/cloudflare.json")).unwrap();
    let expressions = cloudflare["rules"].as_array().unwrap().iter();
    let expressions = expressions.map(|rule| rule["expression"].as_str().unwrap().to_owned());
    let traefik = &yaml("proxies/traefik.yaml")[0]["http"]["routers"]["callback-edge"]["rule"];
    for expression in expressions.chain([traefik.as_str().unwrap().to_owned()]) {
        let paths: Vec<&str> =
            expression.split(['"', '`']).filter(|word| word.starts_with('/')).collect();
        assert_eq!(paths.len(), 2, "{expression}");
        for path in paths {
            assert_eq!(connect(edge.http[0]).await.get(path).await.unwrap().status, 308, "{path}");
        }
    }
}

/// An edge with the variables of a platform; all of its listeners on loopback, on any port.
fn platform(variables: BTreeMap<String, String>, port: &str, admin: Option<&str>) -> Edge {
    let on = |key: &str, port: &str| {
        let address = &variables[&format!("CALLBACK_EDGE_LISTEN__{key}")];
        assert_eq!(*address, format!("0.0.0.0:{port}"));
        address.clone()
    };
    let listeners: Vec<String> = [Some(on("HTTP", port)), admin.map(|port| on("ADMIN", port))]
        .into_iter()
        .flatten()
        .collect();
    let variables = variables.into_iter().map(|(key, value)| {
        (key, if listeners.contains(&value) { "127.0.0.1:0".to_owned() } else { value })
    });
    Edge::start_in(TempDir::new().unwrap(), "", |command| {
        command.envs(variables);
    })
}

fn variables(list: &Value, name: &str) -> BTreeMap<String, String> {
    let word = |entry: &Value, of: &str| entry[of].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(|each| (word(each, name), word(each, "value"))).collect()
}
