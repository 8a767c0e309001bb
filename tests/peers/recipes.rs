//! Every recipe as a user gets it: the built binary writes its files, the platform starts with exactly
//! these files, and `callback-edge check` passes. The common wrong form of each is reported.

mod apps;
mod clouds;
mod kubernetes;
mod servers;

use crate::login::sign_in;
use crate::peer::Peer;
use crate::support::command;
use crate::world::World;
use callback_edge::recipes::{self, Verified};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

/// A recipe that runs here.
pub(crate) struct Case {
    pub(crate) place: &'static str,
    /// Starts the platform with the files of the recipe in this directory; it listens on `plain`.
    pub(crate) start: fn(&Path) -> Peer,
    /// The ids of its warnings. That about plain http is not among them.
    pub(crate) warns: &'static [&'static str],
    /// Common wrong forms: a file, a text in it, what replaces it, and the ids that report it. A
    /// warning has a `!` before its id.
    pub(crate) wrong:
        &'static [(&'static str, &'static str, &'static str, &'static [&'static str])],
}

/// The cases of every file.
fn cases() -> impl Iterator<Item = &'static Case> {
    servers::CASES.iter().chain(apps::cases()).chain(clouds::CASES).chain(kubernetes::CASES)
}

/// Prints the table of the platforms.
#[test]
fn every_recipe_is_verified_as_it_states() {
    let run: BTreeSet<&str> = cases().map(|case| case.place).collect();
    let schema: BTreeSet<&str> = kubernetes::VALIDATED.iter().copied().collect();
    for recipe in recipes::all() {
        let recipes::Keeps { query, status, no_store, form } = recipe.keeps;
        println!(
            "{:18} {:8} query: {query}, status: {status}, no-store: {no_store}, form: {form}  {}",
            recipe.id,
            recipe.verified.to_string(),
            recipe.limitations.join(" ")
        );
        let runs = run.contains(recipe.id);
        assert_eq!(
            runs,
            matches!(recipe.verified, Verified::Run | Verified::Harness),
            "{}",
            recipe.id
        );
        let is_validated = recipe.verified != Verified::Schema || schema.contains(recipe.id);
        assert!(is_validated, "{}", recipe.id);
    }
}

/// Runs the correct form and the wrong forms of the cases.
pub(crate) fn verify(cases: &[Case]) {
    let mut differ = Vec::new();
    for Case { place, start, warns, wrong } in cases {
        let dir = TempDir::new().unwrap();
        write(
            place,
            "http://localhost/oauth/callback",
            "https://api.nango.dev/oauth/callback",
            &dir,
        );
        let peer = start(dir.path());
        let recipe = recipes::find(place).unwrap();
        assert_kept(recipe, peer.address("plain"));
        // What a recipe states to keep every byte of must pass with `--strict`.
        let strict = recipe.keeps.query == recipes::Query::Bytes;
        let found = check(peer.address("plain"), strict);
        let expected: Vec<String> = warns.iter().map(|id| format!("!{id}")).collect();
        if found != (0, expected.clone()) {
            differ.push(format!("{place}: {found:?} instead of {expected:?}"));
        }
        drop(peer);
        for (file, from, to, ids) in *wrong {
            let file = dir.path().join(file);
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.contains(from), "{place}: no {from:?} in\n{text}");
            fs::write(&file, text.replace(from, to)).unwrap();
            let peer = start(dir.path());
            let (code, mut found) = check(peer.address("plain"), false);
            found.retain(|id| !warns.iter().any(|warning| id.strip_prefix('!') == Some(warning)));
            let fails = ids.iter().any(|id| !id.starts_with('!'));
            if found != *ids || (code == 1) != fails {
                differ.push(format!(
                    "{place} with {to:?}: exit {code}, {found:?} instead of {ids:?}"
                ));
            }
            drop(peer);
            fs::write(&file, text).unwrap();
        }
    }
    assert!(differ.is_empty(), "\n{}", differ.join("\n"));
}

/// Writes the files of a recipe.
pub(crate) fn write(place: &str, callback: &str, target: &str, dir: &TempDir) {
    let arguments = ["recipe", place, "--callback", callback, "--target", target, "--out", "."];
    let output = command(dir.path()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Checks the callback at this address: exit code and the ids that failed, or warned (`!`).
fn check(address: SocketAddr, strict: bool) -> (i32, Vec<String>) {
    let dir = TempDir::new().unwrap();
    let port = address.port();
    let target = "https://api.nango.dev/oauth/callback";
    let mut command = command(dir.path());
    // Puma keeps a request that is too long open until the time-out.
    command.args(["check", "--json", "--no-follow", "--timeout", "2s", "--target", target]);
    if strict {
        command.arg("--strict");
    }
    command.arg("--resolve").arg(format!("localhost:{port}:{}", address.ip()));
    let output = command.arg(format!("http://localhost:{port}/oauth/callback")).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap().iter();
    let found =
        checks.filter_map(|check| match (check["status"].as_str()?, check["id"].as_str()?) {
            (_, "url.https") => None,
            ("fail", id) => Some(id.to_owned()),
            ("warn", id) => Some(format!("!{id}")),
            _ => None,
        });
    (output.status.code().unwrap(), found.collect())
}

/// What `recipe.toml` states is what a client receives.
fn assert_kept(recipe: &recipes::Recipe, address: SocketAddr) {
    let recipes::Keeps { query, status, no_store, form } = recipe.keeps;
    // Some servers respond with HTTP/1.0.
    let responds = |head: &str, status: &str| {
        head.strip_prefix("HTTP/1.")
            .is_some_and(|rest| rest[1..].starts_with(&format!(" {status}")))
    };
    for path in ["/oauth/callback", "/app-auth/connect"] {
        for method in ["GET", "HEAD"] {
            let head = exchange(address, &format!("{method} {path}?code=a%2fb HTTP/1.1\r\n"), "");
            // Traefik responds with another status to HEAD.
            let expected = match method {
                "GET" => format!("{status} "),
                _ => "30".to_owned(),
            };
            assert!(responds(&head, &expected), "{}: {method} {path}: {head}", recipe.id);
            let mut head = head.to_lowercase();
            if query == recipes::Query::Values {
                head = head.replace("=a/b\r\n", "=a%2fb\r\n");
            }
            let location = format!("location: https://api.nango.dev{path}?code=a%2fb\r\n");
            assert!(head.contains(&location), "{}: {method} {path}: {head}", recipe.id);
            assert_eq!(head.contains("cache-control: no-store"), no_store, "{}", recipe.id);
        }
        let field = "Content-Type: application/x-www-form-urlencoded\r\n";
        let head = exchange(address, &format!("POST {path}?a=1 HTTP/1.1\r\n{field}"), "code=c%2fd");
        assert!(responds(&head, &format!("{form} ")), "{}: {head}", recipe.id);
        if form == 303 {
            let location = format!("https://api.nango.dev{path}?a=1&code=c%2fd\r\n");
            assert!(head.contains(&location), "{}: {head}", recipe.id);
        }
        for (method, kind) in
            [("POST", "application/json"), ("POST", "text/plain"), ("PUT", "text/plain")]
        {
            let start = format!("{method} {path} HTTP/1.1\r\nContent-Type: {kind}\r\n");
            let head = exchange(address, &start, "code=c");
            assert!(responds(&head, "4"), "{}: {method} of {kind}: {head}", recipe.id);
        }
        // A form is the only part of a request that can contain the end of a line.
        let body = "code=c\r\nSet-Cookie: own=1\r\n\r\n";
        let head = exchange(address, &format!("POST {path} HTTP/1.1\r\n{field}"), body);
        assert!(head.starts_with("HTTP/1.") && !head.contains("\nSet-Cookie"), "{head}");
    }
}

/// Sends a request; returns the head of the response.
fn exchange(address: SocketAddr, start: &str, body: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let end =
        format!("Host: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{start}{end}{body}").as_bytes()).unwrap();
    let mut response = Vec::new();
    // A server may reset the connection after its response.
    let _ = stream.read_to_end(&mut response);
    let text = String::from_utf8_lossy(&response);
    text.split_inclusive("\r\n\r\n").next().unwrap_or_default().to_owned()
}

/// A browser signs in at an OpenID provider through a recipe, and the result reaches the opener. `modes`
/// are the response modes with the status of the redirect.
pub(crate) fn browser_signs_in_through(case: &Case, modes: &[(&str, u16)]) {
    let mut world = World::new();
    let dir = TempDir::new().unwrap();
    write(case.place, "http://recipe.localhost/oauth/callback", &world.old(), &dir);
    let peer = (case.start)(dir.path());
    let port = peer.address("plain").port();
    let callback = format!("http://recipe.localhost:{port}/oauth/callback");
    let keeps_bytes = recipes::find(case.place).unwrap().keeps.query == recipes::Query::Bytes;
    sign_in(&mut world, &callback, modes, keeps_bytes);
}
