//! Platforms and load balancers that terminate TLS: a server with their variables passes their probes.

use super::proxies::edge_behind_http;
use super::{PROJECT, assert_healthy, deploy_path, text, yaml};
use crate::support::{Edge, connect};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

#[tokio::test]
async fn the_server_on_fly_passes_its_probes() {
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
        assert_healthy(edge.admin[0], path.as_str().unwrap()).await;
    }
    let dockerfile = fly["build"]["dockerfile"].as_str().unwrap();
    assert!(deploy_path("proxies").join(dockerfile).exists());
}

#[tokio::test]
async fn the_server_on_cloud_run_passes_its_probes() {
    let service = &yaml("proxies/cloud-run.yaml")[0];
    let container = &service["spec"]["template"]["spec"]["containers"][0];
    let port = container["ports"][0]["containerPort"].to_string();
    let admin = container["startupProbe"]["httpGet"]["port"].to_string();
    let edge = platform(variables(&container["env"], "name"), &port, Some(&admin));
    for probe in ["startupProbe", "livenessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"].to_string(), admin);
        assert_healthy(edge.admin[0], container[probe]["httpGet"]["path"].as_str().unwrap()).await;
    }
    // Only this port is public.
    assert_eq!(container["ports"].as_array().unwrap().len(), 1);
    assert_ne!(port, admin);
}

#[tokio::test]
async fn the_server_on_render_passes_its_probes() {
    let service = &yaml("proxies/render.yaml")[0]["services"][0];
    let mut variables = variables(&service["envVars"], "key");
    let port = variables.remove("PORT").unwrap();
    let edge = platform(variables, &port, Some("9464"));
    let path = service["healthCheckPath"].as_str().unwrap();
    assert_eq!(connect(edge.http[0]).await.get(path).await.unwrap().status, 308);
    assert_healthy(edge.admin[0], "/metrics").await;
    assert!(Path::new(PROJECT).join(service["dockerfilePath"].as_str().unwrap()).exists());
}

#[tokio::test]
async fn load_balancers_probe_existing_endpoints() {
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
        assert_healthy(edge.admin[0], of["HealthCheckPath"].as_str().unwrap()).await;
        // The load balancer reaches both ports; other addresses reach neither.
        let rules = aws["ServerGroup"]["Properties"]["SecurityGroupIngress"].as_array().unwrap();
        for port in [of["Port"].to_string(), health.to_owned()] {
            let mut admitted =
                rules.iter().filter(|rule| rule["FromPort"] == port.parse::<u64>().unwrap());
            assert!(
                admitted.any(|rule| rule["SourceSecurityGroupId"] == "BalancerGroup"),
                "{port}"
            );
        }
        assert!(rules.iter().all(|rule| rule["CidrIp"].is_null()), "{rules:?}");
    }
    let traefik = &yaml("proxies/traefik.yaml")[0]["http"];
    let balancer = &traefik["services"]["callback-edge"]["loadBalancer"];
    assert_eq!(balancer["servers"][0]["url"], "http://127.0.0.1:8080");
    // The public listener has health endpoints only if there is no admin listener.
    let without_admin = Edge::start("listen.http = '127.0.0.1:0'");
    assert_healthy(without_admin.http[0], balancer["healthCheck"]["path"].as_str().unwrap()).await;
}

#[tokio::test]
async fn rules_by_path_match_the_paths_that_redirect() {
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

/// A server with the variables of a platform; its listeners are on loopback, on any port.
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
