//! Usage errors of `preflight` and `hmac`, and the sources of their keys.

use crate::fakes::{Act, Authority, Behaviour, CertificateSpec, Reply, behaviour, plain, tls};
use crate::support::command;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const CALLBACK: &str = "https://auth.example.com/oauth/callback";

fn run(
    dir: &Path,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let mut command = command(dir);
    command.args(arguments).envs(variables.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn usage_errors_are_reported_without_the_key() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("empty"), " \n").unwrap();
    fs::write(dir.path().join("two-lines"), "canary-1\ncanary-2\n").unwrap();
    fs::write(dir.path().join("bytes"), b"canary-\xff").unwrap();
    let preflight = ["preflight", "--callback", CALLBACK];
    let key = ("NANGO_SECRET_KEY", "canary-key");
    for (more, variables, expected) in [
        (&[][..], &[][..], "there is no API key"),
        (&[], &[("NANGO_SECRET_KEY", "")], "there is no API key"),
        (&[], &[("NANGO_SECRET_KEY", "canary-é")], "not ASCII"),
        (&["--key-file", "empty"], &[key], "it is empty"),
        (&["--key-file", "two-lines"], &[], "more than one line"),
        (&["--key-file", "bytes"], &[], "it is not UTF-8"),
        (&["--key-file", "missing"], &[], "No such file"),
        (&["--key-file", "."], &[], "it is a directory"),
        (&["--hmac-key-file", "bytes"], &[key], "it is not UTF-8"),
        (&["--previous", CALLBACK], &[key], "there is nothing to switch"),
        (
            &["--previous", "https://AUTH.example.com:443/oauth/./callback"],
            &[key],
            "there is nothing to switch",
        ),
        (&["--every", "0s"], &[key], "is not a duration"),
        (&["--every", "1s"], &[key], "is too short"),
        (&["--metrics", "127.0.0.1:0"], &[key], "--every"),
        (&["--json", "--junit"], &[key], "cannot be used with"),
        (&["--only", ""], &[key], "--only"),
        (&["--user-agent", "a\nb"], &[key], "is not a valid header value"),
        (&["--mode", "online"], &[key], "[possible values: auto, connect, offline]"),
        (&["--ca", "missing"], &[key], "cannot use certificate file"),
    ] {
        let (exit, stdout, stderr) = run(dir.path(), &[&preflight[..], more].concat(), variables);
        assert_eq!((exit, stdout.as_str()), (Some(64), ""), "{more:?}: {stderr}");
        assert!(stderr.contains(expected), "{more:?}: {stderr}");
        assert!(!stderr.contains("canary"), "{stderr}");
    }
    for callback in ["", "auth.example.com/oauth/callback", "https://auth.example.com/cb#x"] {
        let (exit, _, stderr) = run(dir.path(), &["preflight", "--callback", callback], &[key]);
        assert_eq!(exit, Some(64), "{callback}: {stderr}");
    }
    let (exit, _, stderr) = run(dir.path(), &["preflight"], &[key]);
    assert_eq!(exit, Some(64), "{stderr}");
    assert!(stderr.contains("--callback <URL>"), "{stderr}");
}

#[test]
fn an_unreachable_nango_exits_with_3_and_the_callback_is_still_checked() {
    let dir = TempDir::new().unwrap();
    let arguments = [
        "preflight",
        "--callback",
        "https://127.0.0.1:1/oauth/callback",
        "--timeout",
        "1s",
        "--json",
    ];
    let variables =
        [("NANGO_SECRET_KEY", "canary-key"), ("CALLBACK_EDGE_NANGO__URL", "http://127.0.0.1:1")];
    let (exit, stdout, stderr) = run(dir.path(), &arguments, &variables);
    assert_eq!((exit, stderr.as_str()), (Some(3), ""), "{stdout}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["verdict"], "error");
    assert!(report["error"].as_str().unwrap().contains("cannot reach Nango"), "{report:#}");
    assert!(report["checks"].as_array().unwrap().len() > 40);
    assert!(!stdout.contains("canary"));
}

/// Path and `Authorization` of each request.
type Requests = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A Nango with one integration at this origin.
fn nango(origin: String, received: Requests) -> Behaviour {
    behaviour(move |request| {
        let credentials = request.header("authorization").map(str::to_owned);
        received.lock().unwrap().push((request.path.clone(), credentials));
        let body = match request.path.as_str() {
            "/integrations" => json!({ "data": [{ "unique_key": "it", "provider": "it" }] }),
            "/providers/it" => json!({ "data": {
                "auth_mode": "OAUTH2",
                "authorization_url": format!("{origin}/auth"),
            } }),
            "/integrations/it" => {
                json!({ "data": { "credentials": { "client_id": "app", "scopes": "" } } })
            }
            "/connect/sessions" => json!({ "data": { "token": "session" } }),
            "/oauth/connect/it" => {
                let callback = "https%3A%2F%2Fnango.example.test%2Foauth%2Fcallback";
                let url = format!("{origin}/auth?client_id=app&redirect_uri={callback}&state=s");
                return Act::Reply(Reply::new(302).with("location", url));
            }
            _ => return Act::Reply(Reply::new(404)),
        };
        let reply = Reply::new(200).with("content-type", "application/json");
        Act::Reply(reply.body(&body.to_string()))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_nango_cannot_direct_requests_to_this_machine() {
    let probes = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&probes);
    let provider = plain(behaviour(move |_| {
        *counted.lock().unwrap() += 1;
        Act::Reply(Reply::page(400, "invalid redirect_uri"))
    }));
    let provider = format!("http://0x7f.1:{}", provider.await.port());
    let host = "nango.example.test";
    let authority = Authority::new("any");
    let names = vec![host.to_owned()];
    let chain = authority.issue(CertificateSpec { names, ..CertificateSpec::default() });
    let received = Requests::default();
    let behaviour = nango(provider, Arc::clone(&received));
    let remote = tls(chain.config(&["http/1.1"]), Arc::clone(&behaviour)).await;
    let local = format!("http://{}", plain(behaviour).await);
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    let connect_to = format!("{host}:443:{remote}");
    let (remote, networks) =
        (format!("https://{host}"), "CALLBACK_EDGE_PREFLIGHT__PRIVATE_NETWORKS");
    for (url, networks, is_probed) in [
        (&remote, (networks, "none"), false),
        (&remote, (networks, "10.0.0.0/8"), false),
        (&remote, (networks, "10.0.0.0/8, 127.0.0.0/8"), true),
        (&local, (networks, "none"), true),
    ] {
        *probes.lock().unwrap() = 0;
        let arguments = [
            ["preflight", "--callback", "https://127.0.0.1:1/oauth/callback"],
            ["--json", "--connect-to", &connect_to],
            ["--pause=1ms", "--no-follow", "--ca=ca.pem"],
        ];
        let variables =
            [("NANGO_SECRET_KEY", "canary-key"), ("CALLBACK_EDGE_NANGO__URL", url), networks];
        let (_, stdout, stderr) = run(dir.path(), arguments.as_flattened(), &variables);
        assert_eq!(*probes.lock().unwrap() > 0, is_probed, "{url}, {networks:?}: {stdout}{stderr}");
        let refused =
            "its address 127.0.0.1 is loopback; `preflight.private_networks` does not allow";
        assert_eq!(stdout.contains(refused), !is_probed, "{url}, {networks:?}: {stdout}");
    }
    // Only the API gets the key: a flow starts like in a browser.
    let received = received.lock().unwrap();
    for path in ["/integrations", "/providers/it", "/connect/sessions", "/oauth/connect/it"] {
        let mut requests = received.iter().filter(|(requested, _)| requested == path).peekable();
        assert!(requests.peek().is_some(), "{path} was not requested");
        let expected = (path != "/oauth/connect/it").then_some("Bearer canary-key");
        assert!(requests.all(|(_, credentials)| credentials.as_deref() == expected), "{path}");
    }
}

#[test]
fn the_hmac_key_comes_from_a_file_or_a_variable() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("key"), "secret\n").unwrap();
    let hmac = |arguments: &[&str], variables: &[(&str, &str)]| {
        run(dir.path(), &[&["hmac"], arguments].concat(), variables)
    };
    let variable = [("NANGO_HMAC_KEY", "secret")];
    let (exit, digest, stderr) = hmac(&["github", "user-1"], &variable);
    assert_eq!((exit, stderr.as_str()), (Some(0), ""));
    assert_eq!(digest, "3605b55773b41a876033068bb1e4e9de4f2d8f8c324e6f35591eb8ce4654c72a\n");
    // The file has priority, and its newline is not part of the key.
    let other = [("NANGO_HMAC_KEY", "another")];
    assert_eq!(hmac(&["github", "user-1", "--key-file", "key"], &other).1, digest);
    let without = hmac(&["github"], &variable).1;
    assert_eq!(without, "ab6c4b32639621559c133d7f0401b2f3f029a72b28b3c1ca99cd9df8880de4d0\n");
    for arguments in [&[][..], &[""], &["github", ""], &["a", "b", "c"], &["github", "--key", "x"]]
    {
        assert_eq!(hmac(arguments, &variable).0, Some(64), "{arguments:?}");
    }
    let (exit, stdout, stderr) = hmac(&["github"], &[]);
    assert_eq!((exit, stdout.as_str()), (Some(64), ""));
    assert!(stderr.contains("`NANGO_HMAC_KEY` is not set"), "{stderr}");
}
