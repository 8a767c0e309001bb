//! What `deploy/` holds does what it says: each file there is run, or read by a program that knows
//! its kind. Names and ports that only a real machine has are exchanged; nothing else is.

use crate::peer::{Peer, program};
use crate::proxies::{
    OF_PROXIES, connect_from_afar, every_request_is_the_clients, queries_stay_exact,
};
use crate::support::client::handshake;
use crate::support::process::PROGRAM;
use crate::support::{Authority, Edge, Http1, connect};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

// --- systemd --------------------------------------------------------------------------------------

/// The most that `systemd-analyze security` may find, in tenths.
const EXPOSURE: &str = "15";

#[test]
fn systemd_takes_the_units_without_a_word() {
    let dir = units();
    let tool = program("systemd-analyze");
    for unit in ["callback-edge.service", "callback-edge.socket"] {
        let said = run(Command::new(&tool).arg("verify").arg(dir.path().join(unit)));
        assert_eq!(said, "", "{unit}");
    }
}

#[test]
fn systemd_finds_little_exposed() {
    let dir = units();
    let mut analyze = Command::new(program("systemd-analyze"));
    analyze
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={EXPOSURE}"));
    run(analyze.arg(dir.path().join("callback-edge.service")));
}

#[test]
fn settings_and_sockets_of_systemd_name_the_same_addresses() {
    let sockets: BTreeSet<String> = lines_of("systemd/callback-edge.socket", "ListenStream=");
    for file in ["systemd/config.toml", "systemd/keys.toml"] {
        let settings = swap(&text(file), &[]).parse::<toml_edit::DocumentMut>().unwrap();
        let listen = |key: &str| {
            let list = settings["listen"][key].as_array().unwrap().iter();
            list.map(|address| address.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let named: BTreeSet<String> =
            [listen("http"), listen("https")].concat().into_iter().collect();
        assert_eq!(named, sockets, "{file}");
    }
    // The credentials by the names under which the settings look for them.
    let shown = lines_of("systemd/keys.conf", "LoadCredential=");
    for credential in shown {
        let (name, source) = credential.split_once(':').unwrap();
        assert!(text("systemd/keys.toml").contains(&format!("/callback-edge.service/{name}\"")));
        assert!(source.starts_with("/etc/callback-edge/"));
    }
}

#[test]
fn the_service_allows_more_time_than_the_edge_takes() {
    let stop = &lines_of("systemd/callback-edge.service", "TimeoutStopSec=");
    let stop: u64 = stop.first().unwrap().parse().unwrap();
    let dir = TempDir::new().unwrap();
    let shown = run(crate::support::command(dir.path()).args(["config", "show"]));
    assert!(shown.contains("30s"), "the default of `shutdown.grace` is another now:\n{shown}");
    assert!(stop > 30);
}

/// The units in a folder, with the built program in the place of the installed one; the drop-in is
/// part of them.
fn units() -> TempDir {
    let dir = TempDir::new().unwrap();
    let service =
        swap(&text("systemd/callback-edge.service"), &[("/usr/local/bin/callback-edge", PROGRAM)]);
    fs::write(dir.path().join("callback-edge.service"), service).unwrap();
    let socket = text("systemd/callback-edge.socket");
    fs::write(dir.path().join("callback-edge.socket"), socket).unwrap();
    let drop_in = dir.path().join("callback-edge.service.d");
    fs::create_dir(&drop_in).unwrap();
    fs::write(drop_in.join("keys.conf"), text("systemd/keys.conf")).unwrap();
    dir
}

/// What stands behind this begin of a line of a unit.
fn lines_of(file: &str, key: &str) -> BTreeSet<String> {
    text(file).lines().filter_map(|line| line.strip_prefix(key)).map(ToOwned::to_owned).collect()
}

// --- proxies --------------------------------------------------------------------------------------

#[tokio::test]
async fn behind_nginx_that_ends_tls() {
    let edge = edge_behind_http();
    let (authority, certificates) = certificates();
    let at = edge.http[0].to_string();
    let common = certificates.path().join("callback-edge.proxy");
    fs::write(&common, text("proxies/callback-edge.proxy")).unwrap();
    let place = |name: &str| certificates.path().join(name).display().to_string();
    let server = swap(
        &text("proxies/nginx.conf"),
        &[
            ("listen 443 ", "listen 127.0.0.1:{port:tls} "),
            ("/etc/nginx/auth.example.com.pem", &place("edge.pem")),
            ("/etc/nginx/auth.example.com.key", &place("edge.key")),
            ("/etc/nginx/callback-edge.proxy", &place("callback-edge.proxy")),
            ("127.0.0.1:8080", &at),
            ("server_name auth.example.com", "server_name localhost"),
        ],
    );
    let nginx = Peer::nginx(&format!("http {{\n{server}}}"));
    stays_exact_with_tls(&authority, nginx.address("tls"), &edge).await;
}

#[tokio::test]
async fn behind_nginx_that_passes_tcp_on() {
    let (authority, plain, tls) = edges_behind_a_proxy_header();
    let nginx = Peer::nginx(&swap(
        &text("proxies/nginx-stream.conf"),
        &[
            ("listen 80;", "listen 127.0.0.1:{port:plain};"),
            ("listen 443;", "listen 127.0.0.1:{port:tls};"),
            ("127.0.0.1:8080", &plain.http[0].to_string()),
            ("127.0.0.1:8443", &tls.https[0].to_string()),
        ],
    ));
    stays_exact_with_tls(&authority, nginx.address("tls"), &tls).await;
    stays_exact(nginx.address("plain"), &plain).await;
}

#[tokio::test]
async fn behind_haproxy_that_passes_tcp_on() {
    let (authority, plain, tls) = edges_behind_a_proxy_header();
    let health = format!(" port {} ", tls.admin[0].port());
    let haproxy = Peer::haproxy(&swap(
        &text("proxies/haproxy.cfg"),
        &[
            ("bind :80", "bind 127.0.0.1:{port:plain}"),
            ("bind :443", "bind 127.0.0.1:{port:tls}"),
            ("127.0.0.1:8080", &plain.http[0].to_string()),
            ("127.0.0.1:8443", &tls.https[0].to_string()),
            (" port 9464 ", &health),
        ],
    ));
    stays_exact_with_tls(&authority, haproxy.address("tls"), &tls).await;
    stays_exact(haproxy.address("plain"), &plain).await;
    // It looks at the readiness, and finds it.
    let looked = r#"requests_total{status="200"}"#;
    crate::support::until("a health check", async || tls.metrics().await.get(looked) > 0.0).await;
    assert!(!haproxy.log().contains("DOWN"), "{}", haproxy.log());
}

#[tokio::test]
async fn behind_caddy_that_ends_tls() {
    let edge = edge_behind_http();
    let (authority, certificates) = certificates();
    let site = format!(
        "https://localhost:{{port:tls}} {{\n\tbind 127.0.0.1\n\ttls {0}/edge.pem {0}/edge.key\n",
        certificates.path().display()
    );
    let at = edge.http[0].to_string();
    let caddy = Peer::caddy(&swap(
        &text("proxies/Caddyfile"),
        &[("auth.example.com {\n", &site), ("127.0.0.1:8080", &at)],
    ));
    stays_exact_with_tls(&authority, caddy.address("tls"), &edge).await;
    // Only the callbacks lead to the edge.
    let stream = connect_from_afar(caddy.address("tls")).await;
    let stream = handshake(&authority, stream, "localhost", &[]).await.unwrap();
    let reply = Http1::allowing(stream, OF_PROXIES).get("/elsewhere").await.unwrap();
    assert_eq!(reply.status, 404);
}

fn edge_behind_http() -> Edge {
    let ours = [("127.0.0.1:8080", "127.0.0.1:0"), ("127.0.0.1:9464", "127.0.0.1:0")];
    Edge::start(&swap(&text("proxies/edge-http.toml"), &ours))
}

/// The settings with both listeners, and with the plain one alone: where both are on, the plain
/// one leads to the other.
fn edges_behind_a_proxy_header() -> (Authority, Edge, Edge) {
    let settings = swap(
        &text("proxies/edge-proxy-protocol.toml"),
        &[
            ("auth.example.com", "localhost"),
            ("127.0.0.1:8080", "127.0.0.1:0"),
            ("127.0.0.1:8443", "127.0.0.1:0"),
            ("127.0.0.1:9464", "127.0.0.1:0"),
            ("/etc/callback-edge/fullchain.pem", "{dir}/edge.pem"),
            ("/etc/callback-edge/privkey.pem", "{dir}/edge.key"),
        ],
    );
    let (authority, dir) = certificates();
    let tls = Edge::start_in(dir, &settings, |_| {});
    let (plain, _) = settings.split_once("[tls]").unwrap();
    let plain = Edge::start(&swap(plain, &[("https = \"127.0.0.1:0\"", "https = \"off\"")]));
    (authority, plain, tls)
}

fn certificates() -> (Authority, TempDir) {
    let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
    authority.write(dir.path(), "edge", &["localhost"]);
    (authority, dir)
}

async fn stays_exact_with_tls(authority: &Authority, front: SocketAddr, edge: &Edge) {
    let stream = connect_from_afar(front).await;
    let stream = handshake(authority, stream, "localhost", &[]).await.unwrap();
    queries_stay_exact(&mut Http1::allowing(stream, OF_PROXIES), "").await;
    every_request_is_the_clients(edge).await;
}

async fn stays_exact(front: SocketAddr, edge: &Edge) {
    let stream = connect_from_afar(front).await;
    queries_stay_exact(&mut Http1::allowing(stream, OF_PROXIES), "").await;
    every_request_is_the_clients(edge).await;
}

// --- platforms that end TLS -----------------------------------------------------------------------

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

async fn answers(address: SocketAddr, path: &str) {
    assert_eq!(connect(address).await.get(path).await.unwrap().status, 200, "{path}");
}

// --- the container --------------------------------------------------------------------------------

#[test]
fn hadolint_finds_nothing_in_the_dockerfile() {
    let said = run(Command::new(program("hadolint")).arg(place("docker/Dockerfile")));
    assert_eq!(said, "");
    let images = text("docker/Dockerfile");
    for image in images.lines().filter_map(|line| line.strip_prefix("FROM ")) {
        let pinned = image.split_whitespace().next().unwrap();
        assert!(pinned == "scratch" || pinned.contains(':') && !pinned.contains("latest"));
    }
}

/// Runs in network and mounts of its own, so that the ports of the image are nobody else's; what
/// is around the program is what a container engine puts there.
#[test]
fn the_image_runs_with_an_empty_root_as_nobody() {
    let image = Image::of_the_final_stage();
    // Whoever is in a container of this image finds nothing else.
    let files = crate_sources(&image.root);
    let names: Vec<_> = files.iter().map(|file| file.strip_prefix(&image.root).unwrap()).collect();
    assert_eq!(names, ["callback-edge", "etc/hosts", "etc/resolv.conf"].map(Path::new));

    let url = "http://127.0.0.1:8080/oauth/callback";
    let said = image.run(&image.variables, &format!("inside check --no-follow {url}"));
    assert!(said.contains("√ answers 308"), "{said}");
}

#[test]
fn compose_runs_the_image_with_certificates_of_its_own() {
    let image = Image::of_the_final_stage();
    let service = &yaml("docker/compose.yaml")[0]["services"]["callback-edge"];
    let mut variables = image.variables.clone();
    let own = service["environment"].as_object().unwrap().iter();
    variables.extend(own.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())));
    // No network, no certificate: alive, and not ready.
    image.run(&variables, "! inside health --ready");
    let state = "var/lib/callback-edge";
    assert!(image.root.join(state).join("acme").is_dir(), "the state folder was not written");
    assert_eq!(service["volumes"][0], format!("state:/{state}"));
    let ports = ["80:8080", "443:8443"];
    assert_eq!(service["ports"], serde_json::json!(ports));
    for (key, port) in ["HTTP", "HTTPS"].iter().zip(ports) {
        let listens = &variables[&format!("CALLBACK_EDGE_LISTEN__{key}")];
        assert_eq!(listens.split_once(':').unwrap().1, port.split_once(':').unwrap().1);
    }
    assert_eq!(service["read_only"], true);
    assert_eq!(service["cap_drop"][0], "ALL");
}

/// The final stage of the Dockerfile as a folder.
struct Image {
    _dir: TempDir,
    root: PathBuf,
    user: String,
    variables: BTreeMap<String, String>,
    health: String,
    command: String,
}

impl Image {
    fn of_the_final_stage() -> Self {
        let dockerfile = text("docker/Dockerfile").replace("\\\n", " ");
        let (first, last) = dockerfile.split_once("FROM scratch").unwrap();
        let dir = TempDir::new().unwrap();
        let root = dir.path().join("root");
        // Others than root come in.
        fs::create_dir(&root).unwrap();
        for folder in [dir.path(), &root] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut image = Self {
            root,
            user: String::new(),
            variables: BTreeMap::new(),
            health: String::new(),
            command: String::new(),
            _dir: dir,
        };
        let binary = static_program(first);
        for line in last.lines() {
            let (instruction, rest) = line.split_once(' ').unwrap_or((line, ""));
            match instruction {
                "COPY" => image.copy(rest, &binary),
                "ENV" => {
                    let pairs = rest.split_whitespace().map(|pair| pair.split_once('=').unwrap());
                    image.variables.extend(pairs.map(|(key, value)| (key.into(), value.into())));
                }
                "USER" => rest.clone_into(&mut image.user),
                "HEALTHCHECK" => image.health = words(rest.split_once("CMD ").unwrap().1),
                "ENTRYPOINT" => image.command = words(rest),
                "CMD" => image.command = format!("{} {}", image.command, words(rest)),
                "" | "#" | "ARG" | "LABEL" | "EXPOSE" => {}
                other => panic!("the test does not know `{other}`"),
            }
        }
        // What engines put into every container.
        fs::create_dir(image.root.join("etc")).unwrap();
        fs::write(image.root.join("etc/resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        fs::write(image.root.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        image
    }

    fn copy(&self, rest: &str, binary: &Path) {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [.., from, to] = words[..] else { panic!("{rest}") };
        let to = self.root.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        if from == "/out/callback-edge" {
            fs::copy(binary, &to).unwrap();
        } else {
            fs::create_dir(&to).unwrap();
        }
        for word in words {
            if let Some(owner) = word.strip_prefix("--chown=") {
                let (user, group) = owner.split_once(':').unwrap();
                chown(&to, user.parse().ok(), group.parse().ok()).unwrap();
            }
            if let Some(mode) = word.strip_prefix("--chmod=") {
                let mode = u32::from_str_radix(mode, 8).unwrap();
                fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    }

    /// Starts it with a root that is read-only but for the volume, waits for its health check,
    /// does something, and ends it; all must go well. Tells what was said.
    fn run(&self, variables: &BTreeMap<String, String>, then: &str) -> String {
        assert!(self.user.split(':').all(|id| id.parse::<u32>().unwrap() > 0), "{}", self.user);
        let script = format!(
            r#"
            ip link set lo up
            mount --bind "$ROOT" "$ROOT"
            mount -o remount,bind,ro "$ROOT"
            mount --bind "$VOLUME" "$ROOT/var/lib/callback-edge"
            contained() {{ chroot --userspec={user} "$ROOT" "$@"; }}
            inside() {{ contained /callback-edge "$@"; }}
            chroot --userspec={user} "$ROOT" {command} &
            edge=$!
            trap 'kill -9 $edge 2>/dev/null || :' EXIT
            for _ in $(seq 100); do
              if contained {health} >/dev/null 2>&1; then break; fi
              kill -0 $edge
              sleep 0.1
            done
            contained {health}
            grep -q "^Uid:.{uid}\b" /proc/$edge/status
            {then}
            kill $edge
            wait $edge
            trap - EXIT
            "#,
            user = self.user,
            uid = self.user.split(':').next().unwrap(),
            command = self.command,
            health = self.health,
        );
        let mut command = Command::new(program("unshare"));
        command.args(["--net", "--mount", "sh", "-euc", &script]).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("ROOT", &self.root);
        // The folder itself stands for a fresh volume: it has the owner of what it covers.
        command.env("VOLUME", self.root.join("var/lib/callback-edge")).envs(variables);
        run(&mut command)
    }
}

/// `["a", "b"]` as `a b`.
fn words(list: &str) -> String {
    serde_json::from_str::<Vec<String>>(list).unwrap().join(" ")
}

/// Builds the program as the first stage does, from what is copied into it and nothing else; not
/// optimised, which would take minutes more and shows nothing else here.
fn static_program(stage: &str) -> PathBuf {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap();
    let target = Path::new(PROJECT).join("target/static");
    let context = target.join("context");
    for line in stage.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let names: Vec<&str> = line.split_whitespace().collect();
        for name in &names[..names.len() - 1] {
            let from = Path::new(PROJECT).join(name);
            let files = if from.is_dir() { crate_sources(&from) } else { vec![from] };
            for file in files {
                copy_if_new(&file, &context.join(file.strip_prefix(PROJECT).unwrap()));
            }
        }
    }
    let (_, build) = stage.split_once("cargo build ").unwrap();
    let build = build.split_once("&&").unwrap().0.replace("--release", "");
    let (_, flags) = stage.split_once("RUSTFLAGS='").unwrap();
    let flags = flags.split_once('\'').unwrap().0;
    let host = run(Command::new("rustc").args(["--print", "host-tuple"]));
    let host = host.trim();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&context).env("RUSTFLAGS", flags).env("CARGO_TARGET_DIR", &target);
    run(cargo.arg("build").args(build.replace("\"$target\"", host).split_whitespace()));
    target.join(host).join("debug/callback-edge")
}

/// Times decide what is built again.
fn copy_if_new(from: &Path, to: &Path) {
    let content = fs::read(from).unwrap();
    if fs::read(to).ok().as_ref() != Some(&content) {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, content).unwrap();
    }
}

// --- what the tests share -------------------------------------------------------------------------

fn place(file: &str) -> PathBuf {
    Path::new(PROJECT).join("deploy").join(file)
}

fn text(file: &str) -> String {
    fs::read_to_string(place(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Exchanges what must be there.
fn swap(text: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "no {old:?} in:\n{text}");
        text.replace(old, new)
    })
}

/// Every document of a file of YAML; tags such as CloudFormation's `!Ref` are left out.
fn yaml(file: &str) -> Vec<Value> {
    documents(&text(file))
}

fn documents(text: &str) -> Vec<Value> {
    let script = "
import json, sys, yaml
class Loader(yaml.SafeLoader): pass
Loader.add_multi_constructor('!', lambda loader, tag, node: node.value)
print(json.dumps([each for each in yaml.load_all(sys.argv[1], Loader) if each]))
";
    let mut python = Command::new(program("deploy-python"));
    serde_json::from_str(&run(python.args(["-c", script, text]))).unwrap()
}

/// Every file below a folder, sorted.
fn crate_sources(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { crate_sources(&path) } else { vec![path] })
        .collect();
    files.sort();
    files
}

/// Runs a program that must succeed; tells all that it said.
fn run(command: &mut Command) -> String {
    let name = command.get_program().to_owned();
    let name = OsStr::to_string_lossy(&name).into_owned();
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(status.success(), "{name} ended with {status}:\n{said}");
    said
}
