//! The preflight with other programs: apps of every kind at two OAuth servers, and a fake Nango that
//! works with the real SDKs.

mod nango;
mod output;
mod scale;
mod servers;
mod verdicts;

use crate::peer::{Peer, script};
use crate::support::command;
use crate::world::World;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};

/// Canaries: each is used as a secret of its kind, and must never appear in output.
const API_KEY: &str = "canary-api-key-5e1f";

const HMAC_KEY: &str = "canary-hmac-key-77c0";

const CLIENT_SECRET: &str = "canary-client-secret-90ab";

impl World {
    /// The number of requests to Nango, by method and path.
    fn requests(&mut self) -> BTreeMap<String, u64> {
        serde_json::from_value(self.recorded("requests")).unwrap()
    }

    fn preflight(&self, arguments: &[&str]) -> Output {
        self.preflight_with(arguments, &[("NANGO_SECRET_KEY", API_KEY)])
    }

    fn preflight_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        self.command(arguments, variables).output().unwrap()
    }

    fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = command(self.edge.dir());
        command.args(["preflight", "--callback", &self.callback]);
        if !arguments.contains(&"--pause") {
            command.args(["--pause", "1ms"]);
        }
        command.args(arguments);
        self.connect(&mut command);
        command.envs(variables.iter().copied());
        command
    }

    fn report(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let output = self.preflight(&[arguments, &["--json"]].concat());
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (output.status.code(), report)
    }
}

/// Key → state of every integration in a report.
fn states(report: &Value) -> BTreeMap<String, String> {
    let checks = report["checks"].as_array().unwrap();
    let states = checks.iter().filter_map(|check| {
        let key = check["id"].as_str().unwrap().strip_prefix("integration.")?;
        Some((key.to_owned(), check["state"].as_str().unwrap().to_owned()))
    });
    states.collect()
}

pub(crate) fn template(url: &str) -> Value {
    json!({ "auth_mode": "OAUTH2", "authorization_url": url, "token_url": "http://unused.localhost/" })
}

pub(crate) fn integration(key: &str, provider: &str) -> Value {
    json!({
        "unique_key": key,
        "provider": provider,
        "client_id": key,
        "client_secret": CLIENT_SECRET,
        "scopes": "openid",
    })
}

/// A world with an OpenID provider and another OAuth server: each with its origin.
pub(crate) fn with_providers() -> (World, [(Peer, String); 2]) {
    let mut world = World::new();
    let (old, callback) = (world.old(), world.callback.clone());
    let mut kinds = Peer::node("kinds.mjs", &[&old, &callback]);
    let first = format!("http://provider.localhost:{}", kinds.receive()["port"]);
    let mut authlib =
        Peer::program("/usr/bin/python3", &[&script("authlib_server.py"), &old, &callback]);
    let second = format!("http://authlib.localhost:{}", authlib.receive()["port"]);
    world.hosts.extend([first.clone(), second.clone()]);
    (world, [(kinds, first), (authlib, second)])
}

/// Client kind → the right state before the switch, and after it.
const KINDS: [(&str, &str, &str); 13] = [
    ("both", "registered", "registered"),
    ("only-old", "not_registered", "not_registered"),
    ("only-new", "registered", "registered"),
    ("neither", "refused_all", "refused_all"),
    ("after-login", "undecidable", "undecidable"),
    ("unvalidated", "inconclusive", "inconclusive"),
    ("prefix", "prefix_match", "prefix_match"),
    ("disabled", "client_rejected", "client_rejected"),
    ("authlib-both", "registered", "registered"),
    ("authlib-only-old", "not_registered", "not_registered"),
    ("authlib-only-new", "registered", "registered"),
    ("authlib-neither", "refused_all", "refused_all"),
    ("authlib-disabled", "client_rejected", "client_rejected"),
];

/// Like [`with_providers`], with an integration of each of [`KINDS`] in Nango.
fn every_kind() -> (World, [(Peer, String); 2]) {
    let (mut world, providers) = with_providers();
    let [(_, first), (_, second)] = &providers;
    let integrations: Vec<_> = KINDS
        .iter()
        .map(|(key, ..)| {
            integration(key, if key.starts_with("authlib") { "second" } else { "first" })
        })
        .collect();
    let old = world.old();
    world.save(&json!({
        "callback": old,
        "keys": { API_KEY: "all" },
        "templates": {
            "first": template(&format!("{first}/auth")),
            "second": template(&format!("{second}/authorize")),
        },
        "integrations": integrations,
    }));
    let path = world.edge.dir().join("config.toml");
    let settings = fs::read_to_string(&path).unwrap();
    // Only a provider that redirects without login reveals that it does not compare.
    let settings = format!("{settings}\n[preflight.integration.unvalidated]\nprompt_none = true\n");
    fs::write(path, settings).unwrap();
    (world, providers)
}
