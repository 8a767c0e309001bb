//! The servers: each is a process on CPU 0 with its own directory; dropping it kills it.

use crate::load;
use crate::port::{Port, free, listening};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The measured binary of the server.
pub(crate) static EDGE: OnceLock<PathBuf> = OnceLock::new();
const BUILT: &str = env!("CARGO_BIN_EXE_callback-edge");
/// Everything is ready by then, or never.
const TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Baseline,
    /// The smallest program on the libraries of the server.
    Libraries,
    Edge,
    Nginx,
    Haproxy,
    Caddy,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Baseline, Self::Libraries, Self::Edge, Self::Nginx, Self::Haproxy, Self::Caddy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Libraries => "libraries",
            Self::Edge => "edge",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
        }
    }

    /// Its version, and the size of its binary.
    pub(crate) fn version(self) -> (String, u64) {
        let (program, flag) = match self {
            Self::Baseline | Self::Libraries => return ("part of the benchmark".to_owned(), 0),
            Self::Edge => (edge(), "--version"),
            Self::Nginx | Self::Haproxy => (program(self.name()), "-v"),
            Self::Caddy => (program(self.name()), "version"),
        };
        let output = Command::new(&program).arg(flag).output().unwrap();
        let output = [output.stdout, output.stderr].concat();
        let version =
            String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned();
        (version, fs::metadata(program).unwrap().len())
    }
}

fn edge() -> PathBuf {
    EDGE.get().cloned().unwrap_or_else(|| BUILT.into())
}

/// The measured listener.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Tls,
    /// The server redirects callbacks on plain HTTP only if it has no TLS listener.
    Plain,
    /// Plain, with a log of all requests.
    Logged,
}

/// The wrapper of its process.
#[derive(Clone, Copy)]
pub(crate) enum Under<'a> {
    /// Only these CPUs, as taskset(1) reads them.
    Cpus(&'a str),
    /// callgrind, which writes its counts to this file at exit.
    Callgrind(&'a Path),
}

/// What every server has, unless the number of CPUs is measured.
pub(crate) const ONE_CPU: Under<'static> = Under::Cpus("0");

impl Under<'_> {
    fn command(self) -> Command {
        // The process ends with the benchmark, even if that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        match self {
            Self::Cpus(cpus) => command.args(["taskset", "-c", cpus]),
            Self::Callgrind(file) => command
                .arg(program("valgrind"))
                .args(["-q", "--tool=callgrind"])
                .arg(format!("--callgrind-out-file={}", file.display())),
        };
        command
    }
}

/// Certificate and key, in the formats of all servers.
pub(crate) struct Identity {
    dir: TempDir,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        // P-256, the default of rcgen and of CAs.
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        fs::write(dir.path().join("both.pem"), format!("{certificate}{key}")).unwrap();
        fs::write(dir.path().join("certificate.pem"), certificate).unwrap();
        fs::write(dir.path().join("key.pem"), key).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

pub(crate) struct Server {
    pub(crate) kind: Kind,
    role: Role,
    child: Child,
    spawned: Instant,
    dir: TempDir,
    /// The ports of a peer, which cannot report them itself.
    reserved: BTreeMap<&'static str, Port>,
    /// Its addresses, by name of the listener.
    addresses: BTreeMap<String, SocketAddr>,
}

impl Server {
    /// Starts it and waits until it redirects.
    pub(crate) async fn start(kind: Kind, role: Role, identity: &Identity) -> Self {
        Self::start_under(ONE_CPU, kind, role, identity, "").await.0
    }

    /// Starts it with additional settings; also returns the time from exec to the first redirect.
    pub(crate) async fn start_under(
        under: Under<'_>,
        kind: Kind,
        role: Role,
        identity: &Identity,
        more: &str,
    ) -> (Self, Duration) {
        let mut server = Self::spawn(under, kind, role, identity, more);
        server.wait_until_listening();
        let took = server.wait_for_redirect().await;
        (server, took)
    }

    fn spawn(under: Under<'_>, kind: Kind, role: Role, identity: &Identity, more: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let reserved: BTreeMap<_, _> = match kind {
            Kind::Baseline | Kind::Libraries | Kind::Edge => BTreeMap::new(),
            _ => ["http", "https", "admin"].map(|name| (name, free())).into(),
        };
        let logged = role == Role::Logged;
        let access_log = dir.path().join("access.log").display().to_string();
        let (name, text, log) = match kind {
            Kind::Baseline | Kind::Libraries => ("none", "", String::new()),
            Kind::Edge => ("edge.toml", include_str!("edge.toml"), logged.to_string()),
            Kind::Nginx => (
                "nginx.conf",
                include_str!("nginx.conf"),
                if logged { format!("{access_log} combined") } else { "off".to_owned() },
            ),
            Kind::Haproxy => (
                "haproxy.cfg",
                include_str!("haproxy.cfg"),
                if logged { "log stdout format raw local0\n  option httplog" } else { "" }
                    .to_owned(),
            ),
            Kind::Caddy => (
                "Caddyfile",
                include_str!("Caddyfile"),
                if logged {
                    format!("log {{\n\t\toutput file {access_log}\n\t}}")
                } else {
                    String::new()
                },
            ),
        };
        let listen = match role {
            Role::Tls => "http = \"off\"\nhttps = \"127.0.0.1:0\"",
            Role::Plain | Role::Logged => "http = \"127.0.0.1:0\"",
        };
        let mut text = text.replace("{listen}", listen).replace("{log}", &log);
        text += more;
        if kind == Kind::Edge && role == Role::Tls && !more.contains("[[tls.pair]]") {
            text += "\n[tls]\ncertificate = \"{certificate}\"\nprivate_key = \"{key}\"\n";
        }
        for (name, port) in &reserved {
            text = text.replace(&format!("{{port:{name}}}"), &port.port().to_string());
        }
        text = text
            .replace("{dir}", &dir.path().display().to_string())
            .replace("{certificate}", &identity.path("certificate.pem"))
            .replace("{key}", &identity.path("key.pem"))
            .replace("{pem}", &identity.path("both.pem"));
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();

        let mut command = under.command();
        command.current_dir(dir.path()).env_clear().env("HOME", dir.path());
        match kind {
            Kind::Baseline | Kind::Libraries => {
                command.arg(std::env::current_exe().unwrap()).arg(kind.name());
                command.args([identity.path("certificate.pem"), identity.path("key.pem")]);
            }
            Kind::Edge => {
                command.arg(edge()).arg("-c").arg(&file).arg("serve");
            }
            Kind::Nginx => {
                command.arg(program("nginx")).arg("-p").arg(dir.path());
                command.args(["-e", "stderr", "-c"]).arg(&file);
            }
            Kind::Haproxy => {
                command.arg(program("haproxy")).args(["-W", "-f"]).arg(&file);
            }
            Kind::Caddy => {
                // One thread, like the one worker of the others.
                command.env("GOMAXPROCS", "1").arg(program("caddy"));
                command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
            }
        }
        // A file, so that the process never waits for a reader.
        let output = File::create(dir.path().join("output")).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let spawned = Instant::now();
        let child = command.spawn().unwrap();
        let addresses = reserved.iter().map(|(name, port)| ((*name).to_owned(), **port)).collect();
        Self { kind, role, child, spawned, dir, reserved, addresses }
    }

    /// Waits until this process listens on its ports.
    fn wait_until_listening(&mut self) {
        loop {
            let listens = if self.reserved.is_empty() {
                let output = self.output();
                self.addresses.extend(output.lines().filter_map(listening));
                self.addresses.contains_key(self.listener())
            } else {
                // A refused connection costs the server nothing, and polling is fast.
                TcpStream::connect(self.address()).is_ok()
                    && self.reserved[self.listener()].is_listened_on_by(self.child.id())
            };
            if listens {
                return;
            }
            let name = self.kind.name();
            assert!(self.child.try_wait().unwrap().is_none(), "{name} exited: {}", self.output());
            assert!(self.spawned.elapsed() < TIMEOUT, "{name} does not listen: {}", self.output());
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits for the first redirect; returns the time since its start.
    async fn wait_for_redirect(&self) -> Duration {
        if self.role == Role::Tls {
            let client = load::client(load::Hello::X25519, "http/1.1");
            load::one_shot(self.address(), &client).await.unwrap();
        } else {
            load::keep_alive(self.address(), 1, load::QUERY_BYTES).await;
        }
        self.spawned.elapsed()
    }

    /// Its output so far.
    fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("output")).unwrap_or_default()
    }

    /// The name of the measured listener.
    fn listener(&self) -> &'static str {
        if self.role == Role::Tls { "https" } else { "http" }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[self.listener()]
    }

    /// Reloads its configuration.
    pub(crate) async fn reload(&self) {
        let signal = match self.kind {
            Kind::Baseline | Kind::Libraries => return,
            Kind::Edge | Kind::Nginx => Signal::HUP,
            Kind::Haproxy => Signal::USR2,
            Kind::Caddy => return self.reload_caddy().await,
        };
        kill_process(self.pid(), signal).unwrap();
    }

    /// Reads the metrics of the server once.
    pub(crate) async fn scrape(&self) {
        let mut stream = self.admin().await;
        let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        assert!(response.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&response));
    }

    async fn admin(&self) -> tokio::net::TcpStream {
        tokio::net::TcpStream::connect(self.addresses["admin"]).await.unwrap()
    }

    /// Over its admin listener: a second process would use the CPU of the load generator.
    async fn reload_caddy(&self) {
        let text = fs::read_to_string(self.dir.path().join("Caddyfile")).unwrap();
        let host = self.addresses["admin"];
        let mut stream = self.admin().await;
        let request = format!(
            "POST /load HTTP/1.1\r\nhost: {host}\r\ncontent-type: text/caddyfile\r\n\
             cache-control: must-revalidate\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response).await;
        assert!(response.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&response));
    }

    /// Sends SIGTERM and waits for its exit.
    pub(crate) fn stop(mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    /// Its processes: the parent and its children.
    fn processes(&self) -> Vec<PathBuf> {
        let parent = self.child.id().to_string();
        let proc = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        proc.filter(|path| {
            path.file_name().is_some_and(|name| name == parent.as_str())
                || stat(path).is_some_and(|words| words[1] == parent)
        })
        .collect()
    }

    /// CPU time of its processes so far, user and system.
    pub(crate) fn cpu(&self) -> Duration {
        self.processes().iter().map(|process| cpu(process)).sum()
    }

    /// Memory of its processes in bytes; shared pages count once.
    pub(crate) fn memory(&self) -> u64 {
        let of = |process: PathBuf| {
            let text = fs::read_to_string(process.join("smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            kilobytes.unwrap_or(0) * 1024
        };
        self.processes().into_iter().map(of).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A killed parent does not stop its workers; these two stop quickly on SIGTERM.
        if matches!(self.kind, Kind::Nginx | Kind::Haproxy) {
            let _ = kill_process(self.pid(), Signal::TERM);
            let signalled = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && signalled.elapsed() < TIMEOUT / 2 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time of this process so far.
pub(crate) fn own_cpu() -> Duration {
    cpu(Path::new("/proc/self"))
}

/// The scheduler's count per thread, in nanoseconds; `stat` rounds to 10 ms.
fn cpu(process: &Path) -> Duration {
    let threads = fs::read_dir(process.join("task")).unwrap().map(|entry| entry.unwrap().path());
    let nanoseconds = threads.map(|thread| {
        let text = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or_default()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// The fields of `/proc/PID/stat` after the name: state, parent, …
fn stat(process: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(process.join("stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

/// The path of a peer. Servers are in `/usr/sbin`, which is not always in `PATH`.
fn program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/bin";
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is missing: run tests/peers/setup to install it"))
}
