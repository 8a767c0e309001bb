use crate::support::PATIENCE;
use crate::support::port::{Port, free};
use crate::support::process::Lines;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where this file is, and what `setup` installs beside it.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers");

/// A running program of somebody else's. It has a folder of its own, dies when it is dropped, and
/// when a test fails, what it said is shown.
///
/// In configurations `{dir}` stands for that folder and `{port:NAME}` for a port of the peer's,
/// which [`Peer::address`] tells.
pub(crate) struct Peer {
    name: String,
    child: Child,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    heard: usize,
    ports: BTreeMap<String, Port>,
    _dir: TempDir,
}

impl Peer {
    /// Starts nginx. The configuration begins at `http {` or `stream {`.
    pub(crate) fn nginx(configuration: &str) -> Self {
        // The built-in places for temporary files belong to the machine's nginx.
        let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {{dir}}/{what};"))
            .join(" ");
        let http = format!("http {{ access_log off; {places}");
        let configuration = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\nevents {{}}\n{}",
            configuration.replace("http {", &http)
        );
        Self::serve("nginx", "nginx.conf", &configuration, |command, file| {
            // One process, so that none is left behind.
            let main = "daemon off; master_process off; pid nginx.pid;";
            command.arg("-p").arg(file.parent().unwrap());
            command.args(["-e", "stderr", "-g", main, "-c"]).arg(file);
        })
    }

    /// Starts `HAProxy`.
    pub(crate) fn haproxy(configuration: &str) -> Self {
        Self::serve("haproxy", "haproxy.cfg", configuration, |command, file| {
            command.args(["-db", "-f"]).arg(file);
        })
    }

    /// Starts Caddy. The configuration is a Caddyfile without global options.
    pub(crate) fn caddy(configuration: &str) -> Self {
        let configuration = format!("{{\n\tadmin off\n\tauto_https off\n}}\n{configuration}");
        Self::serve("caddy", "Caddyfile", &configuration, |command, file| {
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
        })
    }

    /// Starts a Node program of this folder. It talks in lines of JSON ([`Peer::hear`],
    /// [`Peer::tell`]), tells its own port, and ends when its input does.
    pub(crate) fn node(script: &str, arguments: &[&str]) -> Self {
        Self::node_in(TempDir::new().unwrap(), script, arguments)
    }

    fn node_in(dir: TempDir, script: &str, arguments: &[&str]) -> Self {
        let folder = Path::new(FOLDER);
        assert!(folder.join("node_modules").exists(), "{}", missing("node_modules"));
        let mut command = command("node", dir.path());
        command.arg(folder.join(script)).args(arguments);
        Self::spawn(script, command, dir, BTreeMap::new())
    }

    /// Starts a Node program of this folder that drives a Chromium of its own, and waits until that
    /// is there.
    pub(crate) fn browser(script: &str, arguments: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let own = [program("chromium"), dir.path().join("profile")];
        let own = own.map(|path| path.display().to_string());
        let all = [&[own[0].as_str(), &own[1]], arguments].concat();
        let mut browser = Self::node_in(dir, script, &all);
        browser.hear();
        browser
    }

    /// Starts a program that talks as those of Node do.
    pub(crate) fn program(path: &str, arguments: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let mut command = command(path, dir.path());
        command.args(arguments);
        Self::spawn(path, command, dir, BTreeMap::new())
    }

    /// Starts a server and waits until it listens on every port.
    fn serve(
        name: &str,
        file: &str,
        configuration: &str,
        arguments: impl Fn(&mut Command, &Path),
    ) -> Self {
        // None of these servers can be told "any port" and then say which it got.
        let dir = TempDir::new().unwrap();
        let names = configuration.split("{port:").skip(1);
        let ports: BTreeMap<String, Port> =
            names.map(|rest| (rest.split_once('}').unwrap().0.to_owned(), free())).collect();
        let mut text = configuration.replace("{dir}", &dir.path().display().to_string());
        for (of, port) in &ports {
            text = text.replace(&format!("{{port:{of}}}"), &port.port().to_string());
        }
        let file = dir.path().join(file);
        // HAProxy refuses a last line without an end.
        fs::write(&file, text + "\n").unwrap();
        let mut command = command(name, dir.path());
        arguments(&mut command, &file);
        let mut peer = Self::spawn(name, command, dir, ports);
        peer.wait_until_it_listens();
        peer
    }

    fn spawn(
        name: &str,
        mut command: Command,
        dir: TempDir,
        ports: BTreeMap<String, Port>,
    ) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => panic!("{}", missing(name)),
            Err(error) => panic!("cannot start {name}: {error}"),
        };
        let stdout = Lines::of(child.stdout.take().unwrap());
        let stderr = Lines::of(child.stderr.take().unwrap());
        Self { name: name.to_owned(), child, stdout, stderr, heard: 0, ports, _dir: dir }
    }

    /// Waits until this process listens on its ports.
    fn wait_until_it_listens(&mut self) {
        let started = Instant::now();
        while !self.ports.values().all(|port| port.is_listened_on_by(self.child.id())) {
            assert!(self.child.try_wait().unwrap().is_none(), "{} ended", self.name);
            assert!(started.elapsed() < PATIENCE, "{} never listens", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where it listens under this name of its configuration.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        *self.ports[name]
    }

    /// Everything that it said.
    pub(crate) fn log(&self) -> String {
        self.stdout.text() + &self.stderr.text()
    }

    /// Sends a line.
    pub(crate) fn tell(&mut self, what: &Value) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    /// The next line of JSON that it says; libraries say other things beside.
    pub(crate) fn hear(&mut self) -> Value {
        let started = Instant::now();
        loop {
            let text = self.stdout.text();
            if let Some((line, _)) = text[self.heard..].split_once('\n') {
                self.heard += line.len() + 1;
                match serde_json::from_str(line) {
                    Ok(said) => return said,
                    Err(_) => continue,
                }
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended", self.name);
            assert!(started.elapsed() < PATIENCE * 2, "{} says nothing", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A Node program has no port of ours; it ends with its input, and so does its browser.
        drop(self.child.stdin.take());
        let started = Instant::now();
        while self.ports.is_empty()
            && matches!(self.child.try_wait(), Ok(None))
            && started.elapsed() < Duration::from_secs(5)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.name, self.log());
        }
    }
}

/// The path of a script of this folder.
pub(crate) fn script(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

/// The path of an installed program.
pub(crate) fn program(name: &str) -> PathBuf {
    std::env::split_paths(&search_path())
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{}", missing(name)))
}

/// What gives a program another clock.
pub(crate) fn libfaketime() -> PathBuf {
    let found = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists());
    found.unwrap_or_else(|| panic!("{}", missing("libfaketime.so.1"))).into()
}

/// Runs a program to its end.
pub(crate) fn run(name: &str, dir: &Path, arguments: &[&str]) -> Output {
    match command(name, dir).args(arguments).stdin(Stdio::null()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => panic!("{}", missing(name)),
        ran => ran.unwrap(),
    }
}

fn missing(what: &str) -> String {
    format!("{what} is missing: run tests/peers/setup, which installs it")
}

/// A program with an environment of its own.
fn command(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(name);
    command.current_dir(dir).env_clear().env("HOME", dir).env("PATH", search_path());
    command
}

/// What `setup` put beside this file comes first. Servers live in `/usr/sbin`, which is not on
/// everybody's path.
pub(crate) fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{FOLDER}/.tools/bin:{path}:/usr/sbin:/usr/bin")
}
