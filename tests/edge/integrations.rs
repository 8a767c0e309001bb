//! `preflight` with each kind of integration, with a rate-limited Nango, and in several environments.

use crate::fakes::plain;
use crate::nango::{ENVIRONMENT, Nango, Shared, provider, registry, serve};
use crate::support::{check, command};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// The new callback; no server has this address.
const CALLBACK: &str = "http://127.0.0.1:1/oauth/callback";

const KEY: &str = "canary-api-key";

struct World {
    nango: Shared,
    origin: String,
    /// Path and query of each request to the provider.
    probes: Arc<Mutex<Vec<String>>>,
    dir: TempDir,
}

impl World {
    /// A Nango with these templates, whose `PROVIDER` is the origin of the provider. Each has an
    /// integration with its name.
    async fn new(templates: &[(&str, Value)]) -> Self {
        let probes = Arc::default();
        let nango: Shared = Arc::default();
        let origin = format!("http://{}", plain(serve(&nango)).await);
        let old = format!("{origin}/oauth/callback");
        let clients: [(&str, &[&str]); 3] =
            [("both", &[&old, CALLBACK]), ("old", &[&old]), ("new", &[CALLBACK])];
        let provider = plain(provider(&registry(&clients), &probes)).await;
        let mut shared = nango.lock().unwrap();
        shared.environments[0].callback = old;
        shared.environments[0].keys.insert(KEY.into(), None);
        for (name, template) in templates {
            let text = template.to_string().replace("PROVIDER", &provider.to_string());
            let template: Value = serde_json::from_str(&text).unwrap();
            shared.templates.insert((*name).into(), template);
            shared.environments[0].integrations.push(integration(name, name));
        }
        drop(shared);
        Self { nango, origin, probes, dir: TempDir::new().unwrap() }
    }

    fn nango(&self) -> std::sync::MutexGuard<'_, Nango> {
        self.nango.lock().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(self.dir.path());
        command.args(["preflight", "--callback", CALLBACK, "--no-follow", "--pause=1ms"]);
        command.args(arguments).env("CALLBACK_EDGE_NANGO__URL", &self.origin);
        command
    }

    /// Standard output and error.
    fn run(&self, arguments: &[&str]) -> (String, String) {
        let mut command = self.command(arguments);
        command.env("NANGO_SECRET_KEY", KEY);
        // The servers run on the other threads.
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        let (text, errors) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(!format!("{text}{errors}").contains("canary"), "{text}{errors}");
        (text, errors)
    }

    fn report(&self, arguments: &[&str]) -> Value {
        let (text, errors) = self.run(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"))
    }
}

fn integration(key: &str, template: &str) -> Value {
    json!({
        "unique_key": key,
        "provider": template,
        "display_name": format!("The {key}"),
        "client_id": "both",
        "credentials": { "client_id": "both", "client_secret": "canary-secret", "scopes": "" },
    })
}

fn oauth2(url: &str) -> Value {
    json!({ "auth_mode": "OAUTH2", "authorization_url": format!("http://PROVIDER{url}") })
}

/// Key → state and status, with `!` when the verdict depends on an unknown one.
fn states(report: &Value) -> BTreeMap<String, String> {
    let checks = report["checks"].as_array().unwrap().iter();
    let states = checks.filter_map(|check| {
        let key = check["id"].as_str().unwrap().strip_prefix("integration.")?;
        let (state, status) = (check["state"].as_str().unwrap(), check["status"].as_str().unwrap());
        let blocks = if status == "unknown" && check["blocks"] != false { "!" } else { "" };
        Some((key.to_owned(), format!("{state} {status}{blocks}")))
    });
    states.collect()
}

fn kinds() -> Vec<(&'static str, Value)> {
    let with = |mode: &str, more: Value| {
        let mut template = oauth2("/auth");
        template["auth_mode"] = json!(mode);
        for (name, value) in more.as_object().unwrap() {
            template[name] = value.clone();
        }
        template
    };
    vec![
        ("plain", oauth2("/auth")),
        ("shared", oauth2("/auth")),
        ("key", json!({ "auth_mode": "API_KEY" })),
        ("generic", with("MCP_OAUTH2_GENERIC", json!({}))),
        ("cimd", with("MCP_OAUTH2", json!({ "client_registration": "cimd" }))),
        ("dynamic", with("MCP_OAUTH2", json!({ "client_registration": "dynamic" }))),
        ("static", with("MCP_OAUTH2", json!({ "client_registration": "static" }))),
        ("custom", with("CUSTOM", json!({}))),
        ("plugin", with("INSTALL_PLUGIN", json!({}))),
        ("app", with("APP", json!({}))),
        ("outbound", with("OAUTH2", json!({ "installation": "outbound" }))),
        (
            "user",
            with(
                "OAUTH2",
                json!({ "authorization_params": {
            "action": "Login", "username": "${connectionConfig.u}", "password": "canary-password",
        } }),
            ),
        ),
        // Only the started flow, or the complete URL, shows it.
        ("literal", oauth2("/auth?pass-word=canary-password")),
        (
            "fallback",
            with(
                "OAUTH2",
                json!({
                    "authorization_url": "http://${connectionConfig.subdomain}.example/a || http://PROVIDER/auth",
                }),
            ),
        ),
    ]
}

/// Before and after the switch, in all modes.
#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_integration_has_its_own_verdict() {
    let world = World::new(&kinds()).await;
    for it in &mut world.nango().environments[0].integrations {
        if it["unique_key"] == "shared" {
            it["credentials"]["client_id"] = json!("");
        } else if it["unique_key"] == "dynamic" {
            it["client_id"] = json!("old");
        }
    }
    let always = [
        ("plain", "registered pass"),
        ("key", "no_callback skip"),
        ("static", "registered pass"),
        ("custom", "app_settings unknown!"),
        ("plugin", "app_settings unknown!"),
        ("app", "untestable unknown!"),
        ("outbound", "no_callback skip"),
        ("user", "not_sent unknown!"),
        ("literal", "not_sent unknown!"),
        ("fallback", "registered pass"),
    ];
    let (shared, follows) = ("shared_app fail", "follows_setting unknown");
    for (mode, switched, more) in [
        ("auto", false, [shared, follows, follows, "recreate unknown!"]),
        ("connect", false, ["registered pass", follows, follows, "recreate unknown!"]),
        ("offline", false, [shared, follows, follows, "registered pass"]),
        (
            "auto",
            true,
            [shared, "follows_setting pass", "follows_setting pass", "recreate unknown!"],
        ),
    ] {
        if switched {
            world.nango().environments[0].callback = CALLBACK.into();
        }
        let report = world.report(&["--mode", mode]);
        assert_eq!(report["switch"]["switched"], switched, "{report:#}");
        let found = states(&report);
        let keys = ["shared", "generic", "cimd", "dynamic"];
        for (key, state) in always.into_iter().chain(keys.into_iter().zip(more)) {
            let details = check(&report, &format!("integration.{key}"));
            assert_eq!(found[key], state, "{mode} {switched} {key}: {details:#}");
        }
        assert_ne!(check(&report, "nango.agreement")["status"], "warn", "{report:#}");
    }
    let probes = world.probes.lock().unwrap().join("\n");
    assert!(!probes.contains("canary") && !probes.contains("password"), "{probes}");
    let nango = world.nango();
    assert_eq!(nango.registered, 0, "a start registers a client at the provider");
    let starts =
        |key: &str| nango.requests.iter().any(|it| it.ends_with(&format!("connect/{key}")));
    for (key, started) in [("user", false), ("generic", false), ("custom", false), ("cimd", true)] {
        assert_eq!(starts(key), started, "{key}");
    }
}

/// A false "do not switch" that nothing can clear.
#[tokio::test(flavor = "multi_thread")]
async fn an_integration_that_follows_the_setting_does_not_prevent_the_switch() {
    let world = World::new(&kinds()).await;
    let (text, _) = world.run(&["--only", "generic,cimd,plain"]);
    assert!(text.contains("The cimd follows the setting in Nango: nothing to register"), "{text}");
    assert!(!text.contains("--ack") && !text.contains("\nconfirm by hand"), "{text}");
    assert!(text.contains("\nnothing to do\n"), "{text}");
    let accepted = ["--mode", "offline", "--only", "shared", "--accept-risk", "shared=CHG-1"];
    world.nango().environments[0].integrations[1]["credentials"]["client_id"] = json!("");
    let report = world.report(&accepted);
    assert_eq!(states(&report)["shared"], "shared_app warn", "{report:#}");
    assert!(report.to_string().contains("risk accepted: CHG-1; The shared uses an app of Nango"));
    let report = world.report(&["--only", "generic,plain", "--register-clients"]);
    assert_eq!(world.nango().registered, 1);
    let left = report["switch"]["left_behind"].to_string();
    assert!(left.contains("1 client that Nango registered at providers"), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_values_that_the_template_names_reach_nango() {
    let mut template = oauth2("/auth?t=${connectionConfig.tenant}");
    template["connection_config"] = json!({ "pin": { "secret": true } });
    let evil = json!({ "auth_mode": "OAUTH2",
        "authorization_url": "https://${connectionConfig.subdomain}.p.example/auth" });
    let world = World::new(&[("it", template), ("evil", evil)]).await;
    world.nango().environments[0].connections.insert(
        "c1".into(),
        json!({
            "tenant": "acme", "jwtToken": "canary-1", "pin": "canary-2", "other": "canary-3",
            "oauth_client_id_override": "canary-4",
        }),
    );
    world.nango().environments[0]
        .connections
        .insert("c2".into(), json!({ "subdomain": "evil.example/?" }));
    let settings = "[preflight.integration.it]\nlike_connection = 'c1'\n\
                    [preflight.integration.evil]\nlike_connection = 'c2'\n";
    fs::write(world.dir.path().join("config.toml"), settings).unwrap();
    let report = world.report(&[]);
    let it = check(&report, "integration.it");
    assert!(it["detail"].as_str().unwrap().contains("apps of your customers"), "{it:#}");
    let sessions = json!(world.nango().sessions).to_string();
    assert!(sessions.contains("acme") && !sessions.contains("canary"), "{sessions}");
    assert!(!sessions.contains("evil.example"), "{sessions}");
    let evil = check(&report, "integration.evil");
    assert_eq!(evil["state"], "no_url", "{evil:#}");
    assert!(evil["detail"].as_str().unwrap().contains("the value of `subdomain`"), "{evil:#}");
    assert!(!report.to_string().contains("evil.example"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reasons_come_from_nango() {
    let it = oauth2("/auth");
    let world = World::new(&[("it", it.clone()), ("other", it)]).await;
    world.nango().environments[0].failing.insert(
        "it".into(),
        "Provider Config &quot;it&quot; is missing client ID, secret and/or scopes.".into(),
    );
    let report = world.report(&["--mode", "connect"]);
    let detail = check(&report, "integration.it")["detail"].to_string();
    assert!(detail.contains("no client id, client secret or scopes"), "{detail}");
    let left = report["switch"]["left_behind"].to_string();
    assert!(left.contains("2 started flows") && left.contains("marked as failed"), "{left}");
    let report = world.report(&["--mode", "connect", "--public-key", "pk"]);
    let check = check(&report, "integration.it");
    assert!(check["detail"].to_string().contains("created after 2025-08-25"), "{check:#}");
    assert!(check["hint"].to_string().contains("omit --public-key"), "{check:#}");

    let list = "environment:integrations:list".to_owned();
    for (keys, account, expected) in [
        (json!({}), false, "it knows no such key (`unknown_account`)"),
        (json!({}), true, "this is an account API key"),
        (json!({ KEY: [] }), false, "lacks the scope `environment:integrations:list`"),
        (json!({ KEY: [list] }), false, "lacks one of the scopes"),
    ] {
        world.nango().environments[0].keys = serde_json::from_value(keys).unwrap();
        world.nango().account_keys = account.then(|| (KEY.to_owned(), None)).into_iter().collect();
        let report = world.report(&["--mode", "connect"]);
        let error = report["error"].as_str().unwrap();
        assert!(error.contains(expected), "{error}");
    }
}

/// 200 requests in a window of 3 s instead of 60 s; a user signs in every 50 ms instead of every
/// second.
#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_integrations_leave_half_of_the_limit_to_users() {
    let world = World::new(&[("it", oauth2("/auth"))]).await;
    {
        let mut nango = world.nango();
        nango.environments[0].integrations =
            (0..300).map(|it| integration(&format!("i{it}"), "it")).collect();
        nango.limit = Some((200, Duration::from_secs(3)));
    }
    let origin = world.origin.clone();
    let address = origin.strip_prefix("http://").unwrap().to_owned();
    let refused = Arc::new(Mutex::new((0, 0)));
    let counted = Arc::clone(&refused);
    let user = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut every = tokio::time::interval(Duration::from_millis(50));
        loop {
            every.tick().await;
            let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
            let request =
                format!("GET /oauth/client-metadata/{ENVIRONMENT}/it HTTP/1.1\r\nHost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            let mut counts = counted.lock().unwrap();
            counts.0 += 1;
            counts.1 += usize::from(&head != b"HTTP/1.1 200");
        }
    });
    let report = world.report(&[]);
    user.abort();
    let (signed_in, refused) = *refused.lock().unwrap();
    println!("{signed_in} sign-ins, {refused} refused, {} ms", report["duration_ms"]);
    assert!(signed_in > 50 && refused == 0, "{refused} of {signed_in} sign-ins were refused");
    assert_eq!(world.nango().refused, 0);
    let states = states(&report);
    assert_eq!(states.len(), 300);
    assert!(states.values().all(|state| state == "registered pass"), "{report:#}");
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

const PROJECT: &str = "
[environment.prod]
key_file = 'prod.key'
[environment.dev]
key_file = 'dev.key'
[[acknowledged]]
environment = 'prod'
integration = 'custom'
callback = 'http://127.0.0.1:1/oauth/callback'
state = 'app_settings'
reason = 'CHG-17'
by = 'Ada'
expires = '9999-12-31'
[[acknowledged]]
environment = 'dev'
integration = 'custom'
callback = 'http://127.0.0.1:1/oauth/callback'
state = 'app_settings'
reason = 'CHG-18'
expires = '2026-01-31'
";

#[tokio::test(flavor = "multi_thread")]
async fn each_environment_of_a_project_has_a_report() {
    let world = World::new(&kinds()).await;
    for (name, key) in [("prod.key", "canary-prod"), ("dev.key", "canary-dev")] {
        private(&world.dir.path().join(name), key);
        world.nango().environments[0].keys.insert(key.into(), None);
    }
    private(&world.dir.path().join("nango.toml"), PROJECT);
    let only = ["--only", "custom,plain"];
    let (text, errors) = world.run(&[&["--all-environments", "--json"], &only[..]].concat());
    assert!(errors.contains("the acknowledgement of `custom` expired on 2026-01-31"), "{errors}");
    assert!(errors.contains("nango.toml:14:1"), "{errors}");
    let reports: Vec<Value> = serde_json::from_str(&text).unwrap();
    let of = |name: &str| reports.iter().find(|it| it["environment"] == name).unwrap();
    assert_eq!(reports.len(), 2);
    assert_eq!(states(of("prod"))["custom"], "acknowledged pass");
    let summary = check(of("prod"), "integration.custom")["summary"].as_str().unwrap();
    assert!(summary.starts_with("confirmed by hand: CHG-17 (Ada); only the settings"), "{summary}");
    assert_eq!(states(of("dev"))["custom"], "app_settings unknown!");

    let acknowledged = ["--environment", "prod,dev", "--ack", "dev/custom=CHG-19"];
    let (text, _) = world.run(&[&acknowledged, &only[..], &["-v"]].concat());
    for line in ["environment prod: http", "confirmed by hand: CHG-19;", "2 environments: 2 failed"]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
    for (arguments, expected) in [
        (&["--environment", "prd"][..], "the project file has no environment `prd`"),
        (&["--all-environments", "--ack", "custom"], "--ack: no environment for `custom`"),
        (&["--all-environments", "--every", "10s"], "serves one environment"),
        (&["--project", "missing.toml"], "cannot read `missing.toml`"),
        (&["--accept-risk", "custom"], "needs a reason"),
    ] {
        let (_, errors) = world.run(arguments);
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
    let path = world.dir.path().join("dev.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let (_, errors) = world.run(&["--all-environments"]);
    assert!(errors.contains("other users can read it") && errors.contains("chmod 600"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_project_is_not_sent_over_plain_http() {
    let world = World::new(&[]).await;
    private(&world.dir.path().join("prod.key"), "canary-prod");
    private(&world.dir.path().join("nango.toml"), "[environment.prod]\nkey_file = 'prod.key'");
    let settings = "allow_plain_targets = '10.0.0.0/8'";
    fs::write(world.dir.path().join("config.toml"), settings).unwrap();
    let mut command = world.command(&["--environment", "prod"]);
    let output = command.env("CALLBACK_EDGE_NANGO__URL", "http://10.1.2.3").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("would send the key unencrypted"), "{errors}");
    assert_eq!(output.status.code(), Some(64));
}
