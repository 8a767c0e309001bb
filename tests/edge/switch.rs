//! `switch`: it saves the callback only when that is safe, restores it when it is not, and always ends in
//! a known state.

mod again;
mod back;
mod confirmation;
mod interrupted;
mod journal;
mod keys;
mod kinds;
mod mishaps;
mod old_servers;
mod random;
mod requests;
mod several;
mod unsafe_callbacks;

use crate::fakes::{Act, Behaviour, Reply, behaviour, correct, plain};
use crate::nango::{
    Environment, Fault, Kind, Nango, Registry, Rule, Shared, provider, registry, serve,
};
use crate::support::{PATIENCE, command, files_below};
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use tempfile::TempDir;

const ACCOUNT_KEY: &str = "canary-account-key";

/// A Nango with environments that have one integration each, a provider, and a callback.
struct World {
    nango: Shared,
    origin: String,
    registry: Registry,
    /// Whether the callback is broken.
    is_broken: Arc<Mutex<bool>>,
    /// Path and query of each request to the provider.
    probes: Arc<Mutex<Vec<String>>>,
    /// The new callback.
    new: String,
    /// Nango's own callback, which all environments have.
    old: String,
    /// Another one.
    third: OnceLock<String>,
    dir: TempDir,
}

/// The output of the program, and what Nango had before it.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    before: BTreeMap<String, String>,
}

impl Run {
    fn text(&self) -> String {
        format!("{:?}\n{}{}", self.code, self.stdout, self.stderr)
    }

    fn report(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|it| panic!("{it}: {}", self.text()))
    }

    /// The entry of an environment in the report.
    fn environment(&self, name: &str) -> Value {
        let report = self.report();
        let all = report["environments"].as_array().unwrap();
        let found = all.iter().find(|it| it["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {report:#}")).clone()
    }

    fn result(&self, name: &str) -> String {
        self.environment(name)["result"].as_str().unwrap_or("null").to_owned()
    }

    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.text());
        self
    }
}

impl World {
    /// With the environment `prod`.
    async fn one() -> Self {
        Self::new(&["prod"]).await
    }

    /// With `prod`, which is in production, and two others. The order in Nango is another one than that
    /// of the switch.
    async fn three() -> Self {
        Self::new(&["prod", "dev", "staging"]).await
    }

    async fn new(names: &[&str]) -> Self {
        let (nango, probes, is_broken) =
            (Shared::default(), Arc::default(), Arc::new(Mutex::new(false)));
        let origin = format!("http://{}", plain(serve(&nango)).await);
        let broken = Arc::clone(&is_broken);
        let new = plain(callback(origin.clone(), broken)).await;
        let new = format!("http://{new}/oauth/callback");
        let old = format!("{origin}/oauth/callback");
        let registry = registry(&[]);
        let provider = plain(provider(&registry, &probes)).await;
        let world = Self {
            nango,
            origin,
            registry,
            is_broken,
            probes,
            new,
            old,
            third: OnceLock::new(),
            dir: TempDir::new().unwrap(),
        };
        let mut project = "account_key_file = 'account.key'\n".to_owned();
        private(&world.path("account.key"), ACCOUNT_KEY);
        let mut nango = world.nango();
        nango.environments.clear();
        nango.account_keys.insert(ACCOUNT_KEY.into(), None);
        let template = json!({
            "auth_mode": "OAUTH2",
            "authorization_url": format!("http://{provider}/auth"),
        });
        nango.templates.insert("crm".into(), template);
        for (name, number) in names.iter().zip(1..) {
            let uuid = format!("0b6c1a52-6d1e-4c86-9d5f-2f0c3f2f7a{number:02}");
            let mut environment = Environment::new(name, &uuid);
            environment.is_production = *name == "prod";
            environment.callback.clone_from(&world.old);
            environment.keys.insert(format!("canary-{name}-key"), None);
            environment.integrations.push(integration("crm", "crm", &format!("{name}-app")));
            nango.environments.push(environment);
            world.register(&format!("{name}-app"), &[&world.old, &world.new]);
            let file = format!("{name}.key");
            private(&world.path(&file), &format!("canary-{name}-key"));
            let _ = writeln!(project, "[environment.{name}]\nkey_file = '{file}'");
        }
        drop(nango);
        private(&world.path("nango.toml"), &project);
        world
    }

    fn nango(&self) -> MutexGuard<'_, Nango> {
        self.nango.lock().unwrap()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn journal(&self) -> PathBuf {
        self.path("callback-edge-switch.json")
    }

    /// Replaces the callbacks that a client has registered.
    fn register(&self, client: &str, callbacks: &[&str]) {
        let callbacks = callbacks.iter().map(|it| (*it).to_owned()).collect();
        self.registry.lock().unwrap().callbacks.insert(client.into(), callbacks);
    }

    fn rule(&self, rule: Rule) {
        self.nango().rules.push(rule);
    }

    /// Does this when the callback of an environment is saved, just before.
    fn when_saved(&self, environment: &str, action: impl FnOnce(&mut Nango) + Send + 'static) {
        self.rule(Rule::at(Kind::Patch, Fault::Do(Box::new(action))).of(environment));
    }

    /// The provider removes the new callback of an environment as soon as Nango saves it.
    fn rejects_after_save(&self, environment: &str) {
        let (registry, new) = (Arc::clone(&self.registry), self.new.clone());
        let client = format!("{environment}-app");
        self.when_saved(environment, move |_| {
            registry.lock().unwrap().callbacks.get_mut(&client).unwrap().remove(&new);
        });
    }

    /// The callback that Nango has.
    fn saved(&self, environment: &str) -> String {
        self.nango().environment(environment).callback.clone()
    }

    /// Every environment has this callback.
    #[track_caller]
    fn all_have(&self, callback: &str) {
        let saved = self.nango().saved();
        assert!(saved.values().all(|it| it == callback), "{saved:?}, not {callback}");
    }

    #[track_caller]
    fn no_patch(&self) {
        let patches = self.nango().patches.clone();
        assert!(patches.is_empty(), "{patches:?}");
    }

    /// `switch` with these arguments, with the JSON report.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(self.dir.path());
        command.arg("switch").args(arguments).stdin(Stdio::null());
        command.env("CALLBACK_EDGE_NANGO__URL", &self.origin);
        command
    }

    /// The arguments of a switch of every environment of the project, and more.
    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        with_defaults(&["--callback", &self.new, "--all-environments"], more)
    }

    /// Switches every environment, confirmed with `--yes`.
    async fn switch(&self, more: &[&str]) -> Run {
        self.run(&self.arguments(&[&["--yes"], more].concat())).await
    }

    async fn back(&self, more: &[&str]) -> Run {
        self.run(&with_defaults(&["--back", "--yes"], more)).await
    }

    async fn status(&self) -> Run {
        let before = self.nango().patches.len();
        let run = self.run(&["--status", "--json"]).await;
        assert_eq!(self.nango().patches.len(), before, "--status changes nothing");
        run
    }

    /// Runs the command until it exits. Asserts that no key is in its output or files, that every PATCH
    /// contains the callback alone, and that its report agrees with the settings.
    async fn run(&self, arguments: &[&str]) -> Run {
        let command = self.command(arguments);
        self.complete(command).await
    }

    async fn complete(&self, mut command: Command) -> Run {
        let before = self.nango().saved();
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        // As long as several steps.
        let output = tokio::time::timeout(PATIENCE * 3, output).await.expect("timed out").unwrap();
        self.checked(output, before)
    }

    /// Starts it, waits until a request gets no response, and kills it.
    async fn kill(&self, arguments: &[&str]) -> Run {
        let before = self.nango().saved();
        let mut child = self.start_until_it_hangs(arguments).await;
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        self.nango().rules.clear();
        self.checked(output, before)
    }

    async fn start_until_it_hangs(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let hanging = Arc::clone(&self.nango().hanging);
        if tokio::time::timeout(PATIENCE, hanging.notified()).await.is_err() {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("no request without a response: {output:?} {:?}", self.nango().events);
        }
        child
    }

    #[track_caller]
    fn checked(&self, output: Output, before: BTreeMap<String, String>) -> Run {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        let run = Run { code: output.status.code(), stdout, stderr, before };
        assert!(!run.text().contains("panicked"), "{}", run.text());
        self.no_secrets(&run);
        self.only_the_callback_is_sent(&run);
        self.report_is_true(&run);
        run
    }

    /// In the output, in the journal and all else that it wrote, and at the provider.
    #[track_caller]
    fn no_secrets(&self, run: &Run) {
        assert!(!run.text().contains("canary"), "{}", run.text());
        for file in files_below(self.dir.path()) {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let is_key = file.extension().is_some_and(|it| it == "key");
            assert!(is_key || !text.contains("canary"), "{}: {text}", file.display());
        }
        let probes = self.probes.lock().unwrap().join("\n");
        assert!(!probes.contains("canary"), "{probes}");
    }

    /// Each PATCH has only the callback: the new one, or the first that the environment had.
    #[track_caller]
    fn only_the_callback_is_sent(&self, run: &Run) {
        let mut nango = self.nango();
        for patch in nango.patches.clone() {
            let first = nango.environment(&patch.environment).first();
            let allowed = [Some(&self.new), Some(&first), self.third.get()];
            let allowed = allowed.map(|it| json!({ "callback_url": it }).to_string());
            assert!(allowed.contains(&patch.body), "{patch:?}: {}", run.text());
        }
    }

    /// Its exit code and its report agree with Nango.
    #[track_caller]
    fn report_is_true(&self, run: &Run) {
        let nango = self.nango();
        let (saved, is_slow) =
            (nango.saved(), nango.environments.iter().any(|it| it.cache.reads > 0));
        drop(nango);
        let Ok(report) = serde_json::from_str::<Value>(&run.stdout) else {
            assert!(run.stdout.is_empty() || !run.stdout.starts_with('{'), "{}", run.text());
            return;
        };
        assert_eq!(report["exit"].as_i64(), run.code.map(i64::from), "{}", run.text());
        let all = report["environments"].as_array().unwrap();
        for it in all {
            let name = it["name"].as_str().unwrap();
            if let Some(value) = it["value"].as_str() {
                assert!(is_slow || value == saved[name], "{name} has {}: {report:#}", saved[name]);
            }
        }
        for it in all.iter().filter(|_| report["command"] == "back" && run.code == Some(0)) {
            let now = &saved[it["name"].as_str().unwrap()];
            assert!(it["before"].is_null() || it["before"] == **now, "has {now}: {report:#}");
        }
        if report["command"] == "switch" {
            let names = all.iter().map(|it| it["name"].as_str().unwrap());
            for (name, it) in names.zip(all) {
                let (now, before) = (&saved[name], it["before"].as_str());
                let holds = match run.code {
                    Some(0 | 2) => report["callback"] == **now,
                    // Unsafe, restored, or not run: what it was, or what it was before a killed run.
                    Some(1) => {
                        *now == run.before[name]
                            || Some(now.as_str()) == before
                            || it["result"] == "changed_by_others"
                    }
                    Some(3) => *now == run.before[name],
                    _ => true,
                };
                assert!(holds, "{name} has {now}: {report:#}");
            }
        }
    }
}

/// Arguments with the JSON report and without long pauses.
fn with_defaults<'a>(first: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let has_wait = more.iter().any(|it| it.starts_with("--wait"));
    let wait: &[&str] = if has_wait { &[] } else { &["--wait=2s"] };
    [first, &["--json", "--pause=1ms"], wait, more].concat()
}

/// Runs the cases, four at a time.
async fn concurrently<T>(cases: impl IntoIterator<Item = T>, case: impl AsyncFn(T)) {
    stream::iter(cases).for_each_concurrent(4, |one| case(one)).await;
}

/// A callback that redirects to Nango, correctly unless it is broken.
fn callback(origin: String, is_broken: Arc<Mutex<bool>>) -> Behaviour {
    behaviour(move |heard| {
        let reply = correct(&origin, heard);
        let is_broken = *is_broken.lock().unwrap();
        Act::Reply(if is_broken && reply.status == 308 {
            Reply::new(302).with("location", format!("{origin}{}", heard.path))
        } else {
            reply
        })
    })
}

fn integration(key: &str, template: &str, client: &str) -> Value {
    json!({
        "unique_key": key,
        "provider": template,
        "display_name": format!("The {key}"),
        "client_id": client,
        "credentials": { "client_id": client, "client_secret": "canary-secret", "scopes": "" },
    })
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
