//! The servers: each a process on CPU 0, in a folder of its own, that dies when it is dropped.

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

/// The build of the edge that is measured.
pub(crate) static EDGE: OnceLock<PathBuf> = OnceLock::new();
const BUILT: &str = env!("CARGO_BIN_EXE_callback-edge");
/// Everything is ready by then, or never.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Floor,
    Edge,
    Nginx,
    Haproxy,
    Caddy,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Floor, Self::Edge, Self::Nginx, Self::Haproxy, Self::Caddy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Edge => "edge",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
        }
    }

    /// What it says of its version, and what its program weighs.
    pub(crate) fn version(self) -> (String, u64) {
        let (program, flag) = match self {
            Self::Floor => return ("part of the benchmark".to_owned(), 0),
            Self::Edge => (edge(), "--version"),
            Self::Nginx | Self::Haproxy => (program(self.name()), "-v"),
            Self::Caddy => (program(self.name()), "version"),
        };
        let said = Command::new(&program).arg(flag).output().unwrap();
        let said = [said.stdout, said.stderr].concat();
        let said = String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned();
        (said, fs::metadata(program).unwrap().len())
    }
}

fn edge() -> PathBuf {
    EDGE.get().cloned().unwrap_or_else(|| BUILT.into())
}

/// What is asked of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Tls,
    /// The edge redirects on plain HTTP only where it has no TLS listener.
    Plain,
    /// Plain, and every request has its line in a log.
    Logged,
}

/// What its process runs under.
#[derive(Clone, Copy)]
pub(crate) enum Under<'a> {
    /// CPU 0.
    Taskset,
    /// callgrind, which writes what it counted to this file at the end.
    Callgrind(&'a Path),
}

impl Under<'_> {
    fn command(self) -> Command {
        // It ends with the benchmark, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        match self {
            Self::Taskset => command.args(["taskset", "-c", "0"]),
            Self::Callgrind(file) => command
                .arg(program("valgrind"))
                .args(["-q", "--tool=callgrind"])
                .arg(format!("--callgrind-out-file={}", file.display())),
        };
        command
    }
}

/// Certificate and key, as everybody wants them.
pub(crate) struct Identity {
    dir: TempDir,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        // P-256, as rcgen makes them by default and as authorities give them out.
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
    /// Of a peer, which cannot report the port that it bound.
    held: BTreeMap<&'static str, Port>,
    /// Where it listens, by the name of the listener.
    addresses: BTreeMap<String, SocketAddr>,
}

impl Server {
    /// Starts it and waits until it redirects.
    pub(crate) async fn start(kind: Kind, role: Role, identity: &Identity) -> Self {
        Self::start_under(Under::Taskset, kind, role, identity, "").await.0
    }

    /// With more settings at the end of its own; tells also how long it took from exec to the
    /// first redirect.
    pub(crate) async fn start_under(
        under: Under<'_>,
        kind: Kind,
        role: Role,
        identity: &Identity,
        more: &str,
    ) -> (Self, Duration) {
        let mut server = Self::spawn(under, kind, role, identity, more);
        server.listens();
        let took = server.redirects().await;
        (server, took)
    }

    fn spawn(under: Under<'_>, kind: Kind, role: Role, identity: &Identity, more: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let held: BTreeMap<_, _> = match kind {
            Kind::Floor | Kind::Edge => BTreeMap::new(),
            _ => ["http", "https", "admin"].map(|name| (name, free())).into(),
        };
        let logged = role == Role::Logged;
        let access_log = dir.path().join("access.log").display().to_string();
        let (name, text, log) = match kind {
            Kind::Floor => ("none", "", String::new()),
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
        for (name, port) in &held {
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
            Kind::Floor => {
                command.arg(std::env::current_exe().unwrap()).arg("floor");
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
                // One thread that runs code, as one worker is all the others have.
                command.env("GOMAXPROCS", "1").arg(program("caddy"));
                command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
            }
        }
        // Files, so that nobody has to read along.
        let said = File::create(dir.path().join("said")).unwrap();
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        let spawned = Instant::now();
        let child = command.spawn().unwrap();
        let addresses = held.iter().map(|(name, port)| ((*name).to_owned(), **port)).collect();
        Self { kind, role, child, spawned, dir, held, addresses }
    }

    /// Waits until this process listens on its ports.
    fn listens(&mut self) {
        loop {
            let listens = if self.held.is_empty() {
                let said = self.said();
                self.addresses.extend(said.lines().filter_map(listening));
                self.addresses.contains_key(self.listener())
            } else {
                // A refused connection costs the server nothing and is the fastest sign.
                TcpStream::connect(self.address()).is_ok()
                    && self.held[self.listener()].is_listened_on_by(self.child.id())
            };
            if listens {
                return;
            }
            let name = self.kind.name();
            assert!(self.child.try_wait().unwrap().is_none(), "{name} ended: {}", self.said());
            assert!(self.spawned.elapsed() < PATIENCE, "{name} never listens: {}", self.said());
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits for the first redirect; returns how long after its start that was.
    async fn redirects(&self) -> Duration {
        if self.role == Role::Tls {
            let client = load::client(load::Hello::X25519, "http/1.1");
            load::one_shot(self.address(), &client).await.unwrap();
        } else {
            load::keep_alive(self.address(), 1, load::QUERY_BYTES).await;
        }
        self.spawned.elapsed()
    }

    /// Everything that it printed so far.
    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("said")).unwrap_or_default()
    }

    /// The name of the listener that is measured.
    fn listener(&self) -> &'static str {
        if self.role == Role::Tls { "https" } else { "http" }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[self.listener()]
    }

    /// Makes it read its settings again while it serves.
    pub(crate) async fn reload(&self) {
        let signal = match self.kind {
            Kind::Floor => return,
            Kind::Edge | Kind::Nginx => Signal::HUP,
            Kind::Haproxy => Signal::USR2,
            Kind::Caddy => return self.reload_caddy().await,
        };
        kill_process(self.pid(), signal).unwrap();
    }

    /// Reads the edge's metrics once.
    pub(crate) async fn scrape(&self) {
        let mut stream = self.admin().await;
        let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }

    async fn admin(&self) -> tokio::net::TcpStream {
        tokio::net::TcpStream::connect(self.addresses["admin"]).await.unwrap()
    }

    /// Over its admin listener: a second process would take the CPU of the load.
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
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn end(mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    /// Its processes: a parent and what it started.
    fn processes(&self) -> Vec<PathBuf> {
        let parent = self.child.id().to_string();
        let proc = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        proc.filter(|path| {
            path.file_name().is_some_and(|name| name == parent.as_str())
                || stat(path).is_some_and(|words| words[1] == parent)
        })
        .collect()
    }

    /// CPU that its processes have used so far, user and system.
    pub(crate) fn cpu(&self) -> Duration {
        self.processes().iter().map(|process| cpu(process)).sum()
    }

    /// Bytes of memory that its processes hold; what they share counts once.
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
        // A parent that is killed leaves its workers behind; these two end at once when asked to.
        if matches!(self.kind, Kind::Nginx | Kind::Haproxy) {
            let _ = kill_process(self.pid(), Signal::TERM);
            let asked = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < PATIENCE / 2 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU that this process has used so far.
pub(crate) fn own_cpu() -> Duration {
    cpu(Path::new("/proc/self"))
}

/// The scheduler's own count of each thread, to the nanosecond; `stat` rounds to 10 ms.
fn cpu(process: &Path) -> Duration {
    let threads = fs::read_dir(process.join("task")).unwrap().map(|entry| entry.unwrap().path());
    let nanoseconds = threads.map(|thread| {
        let text = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or_default()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// The fields of `/proc/PID/stat` behind the name: state, parent, …
fn stat(process: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(process.join("stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

/// The path of a peer. Servers live in `/usr/sbin`, which is not on everybody's path.
fn program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/bin";
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is missing: run tests/peers/setup, which installs it"))
}
