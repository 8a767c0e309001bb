//! Reports, metrics and the picture of a preflight, and what they never contain.

use super::{API_KEY, CLIENT_SECRET, HMAC_KEY, every_kind, integration, template, with_providers};
use crate::support::{matches_file, on_a_terminal, picture};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

#[test]
fn no_output_contains_a_secret() {
    let (mut world, _providers) = every_kind();
    world.save(&json!({ "public_key": "a-public-key", "hmac_key": HMAC_KEY }));
    let mut text = String::new();
    for format in ["--json", "--junit", "--markdown", ""] {
        for more in [&["--public-key", "a-public-key"][..], &[], &["--dry-run"]] {
            let mut arguments = more.to_vec();
            arguments.extend([format].iter().filter(|it| !it.is_empty()));
            let variables = [("NANGO_SECRET_KEY", API_KEY), ("NANGO_HMAC_KEY", HMAC_KEY)];
            let output = world.preflight_with(&arguments, &variables);
            text += &String::from_utf8(output.stdout).unwrap();
            text += &String::from_utf8(output.stderr).unwrap();
        }
    }
    assert!(
        text.contains("not_registered") && text.contains("<testsuite") && text.contains("| √ |")
    );
    for secret in [API_KEY, HMAC_KEY, CLIENT_SECRET, "canary", "nango_connect_session", "state="] {
        assert!(!text.contains(secret), "{secret} is in the output");
    }
    // No ids of sessions or flows either. Tokens are long runs of hex digits, states are UUIDs.
    let is_hex = |run: &str| run.bytes().all(|byte| byte.is_ascii_hexdigit());
    let runs = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '-');
    let ids: Vec<_> = runs
        .filter(|run| {
            let parts: Vec<_> = run.split('-').collect();
            parts.iter().any(|part| part.len() >= 32 && is_hex(part))
                || parts.windows(5).any(|parts| {
                    let fit = parts.iter().zip([8, 4, 4, 4, 12]);
                    fit.into_iter().all(|(part, length)| part.len() == length && is_hex(part))
                })
        })
        .collect();
    assert!(ids.is_empty(), "{ids:?}");

    // No option accepts a key as its value.
    for option in ["--key", "--secret-key", "--api-key", "--hmac-key"] {
        let output = world.preflight(&[option, API_KEY]);
        assert_eq!(output.status.code(), Some(64), "{option}");
    }
}

#[test]
fn a_repeated_preflight_reports_drift_as_metrics() {
    let (mut world, _providers) = every_kind();
    let arguments = ["--only", "both", "--every", "10s", "--metrics", "127.0.0.1:0", "--json"];
    let mut command = world.command(&arguments, &[("NANGO_SECRET_KEY", API_KEY)]);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(watch.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let address =
        line.trim().strip_prefix("metrics on http://").unwrap_or_else(|| panic!("{line}"));
    let address = address.strip_suffix("/metrics").unwrap().to_owned();
    let mut stdout = BufReader::new(watch.stdout.take().unwrap());
    let mut next = || {
        let mut text = String::new();
        while !text.ends_with("\n}\n") {
            assert!(stdout.read_line(&mut text).unwrap() > 0, "{text}");
        }
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let scrape = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(next()["verdict"], "pass");
    next();
    let text = scrape();
    for sample in [
        "callback_edge_preflight_safe 1",
        "callback_edge_preflight_switched 0",
        "callback_edge_preflight_integration{integration=\"both\",state=\"registered\"} 1",
    ] {
        assert!(text.contains(sample), "no {sample} in {text}");
    }
    let callback = world.callback.clone();
    world.save(&json!({ "callback": callback }));
    while next()["switch"]["switched"] != true {}
    assert!(scrape().contains("callback_edge_preflight_switched 1"));
    let pid = rustix::process::Pid::from_child(&watch);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    drop(stdout);
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn the_picture_of_a_preflight_is_current() {
    let (mut world, [(_kinds, first), _authlib]) = with_providers();
    let apps = [("hubspot", "both"), ("slack", "only-old"), ("discord", "after-login")];
    let integrations: Vec<_> = apps
        .iter()
        .map(|(key, client)| {
            let mut integration = integration(key, key);
            integration["client_id"] = json!(client);
            integration
        })
        .collect();
    let templates: BTreeMap<_, _> =
        apps.iter().map(|(key, _)| (key, template(&format!("{first}/auth")))).collect();
    let old = world.old();
    world.save(&json!({
        "callback": old,
        "keys": { API_KEY: "all" },
        "templates": templates,
        "integrations": integrations,
    }));
    let preflight = world.command(&[], &[("NANGO_SECRET_KEY", API_KEY)]);
    let (status, output) = on_a_terminal(preflight, 100);
    assert_eq!(status.code(), Some(1), "{output}");
    let output = output
        .replace(&world.callback, "https://auth.example.com/oauth/callback")
        .replace(&world.nango_origin, "https://api.nango.dev")
        .replace(&first, "https://provider.example");
    let typed = "callback-edge preflight --callback https://auth.example.com/oauth/callback";
    matches_file(".github/pictures/preflight.svg", &picture(typed, &output))
        .unwrap_or_else(|it| panic!("{it}"));
}
