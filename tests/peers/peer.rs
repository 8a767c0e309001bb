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

/// The directory of this file, where `setup` installs programs.
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers");

/// Another program, with its own directory. Dropping it kills it; when a test fails, its output is
/// printed.
///
/// In configurations `{dir}` is that directory and `{port:NAME}` a port of the peer, which
/// [`Peer::address`] returns.
pub(crate) struct Peer {
    name: String,
    child: Child,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    received: usize,
    ports: BTreeMap<String, Port>,
    _dir: TempDir,
}

impl Peer {
    /// Starts nginx. The configuration starts with `http {` or `stream {`.
    pub(crate) fn nginx(configuration: &str) -> Self {
        // The default directories for temporary files belong to the nginx of the machine.
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {{dir}}/{what};"))
            .join(" ");
        let http = format!("http {{ access_log off; {temporary}");
        let configuration = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\nevents {{}}\n{}",
            configuration.replace("http {", &http)
        );
        Self::serve("nginx", "nginx.conf", &configuration, |command, file| {
            // One process, so that none remains after a kill.
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

    /// Starts a TLS server of OpenSSL with these arguments, which responds 200 to every request. Its port
    /// is `tls`.
    pub(crate) fn openssl(arguments: &str) -> Self {
        let arguments = format!("s_server -accept 127.0.0.1:{{port:tls}} -www -quiet {arguments}");
        Self::serve("openssl", "arguments", &arguments, |command, file| {
            command.args(fs::read_to_string(file).unwrap().split_whitespace());
        })
    }

    /// Starts tinyproxy.
    pub(crate) fn tinyproxy(configuration: &str) -> Self {
        let configuration = format!("Port {{port:proxy}}\nListen 127.0.0.1\n{configuration}");
        Self::serve("tinyproxy", "tinyproxy.conf", &configuration, |command, file| {
            command.args(["-d", "-c"]).arg(file);
        })
    }

    /// Starts a Node program of this directory. It communicates in lines of JSON ([`Peer::receive`],
    /// [`Peer::send`]), reports its own port, and exits at the end of its input.
    pub(crate) fn node(script: &str, arguments: &[&str]) -> Self {
        Self::node_in(TempDir::new().unwrap(), script, arguments)
    }

    fn node_in(dir: TempDir, script: &str, arguments: &[&str]) -> Self {
        let directory = Path::new(DIRECTORY);
        assert!(directory.join("node_modules").exists(), "{}", missing("node_modules"));
        let mut command = command("node", dir.path());
        command.arg(directory.join(script)).args(arguments);
        Self::spawn(script, command, dir, BTreeMap::new())
    }

    /// Starts a Node program of this directory that drives its own Chromium, and waits until that has
    /// started.
    pub(crate) fn browser(script: &str, arguments: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let own = [program("chromium"), dir.path().join("profile")];
        let own = own.map(|path| path.display().to_string());
        let all = [&[own[0].as_str(), &own[1]], arguments].concat();
        let mut browser = Self::node_in(dir, script, &all);
        browser.receive();
        browser
    }

    /// Starts a program that communicates like those for Node.
    pub(crate) fn program(path: &str, arguments: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let mut command = command(path, dir.path());
        command.args(arguments);
        Self::spawn(path, command, dir, BTreeMap::new())
    }

    /// Starts a server of `oauth/` with the packages that `setup` installs for it: in Python with
    /// those of the environment `packages`, otherwise in Node. It communicates like those for Node.
    pub(crate) fn oauth(packages: &str, script: &str, arguments: &[&str]) -> Self {
        let (dir, tools) = (TempDir::new().unwrap(), tools());
        let sources = Path::new(DIRECTORY).join("oauth");
        let mut command = if Path::new(script).extension().is_some_and(|it| it == "py") {
            let python = tools.join("oauth").join(packages).join("bin/python");
            assert!(python.exists(), "{}", missing(packages));
            let mut command = command(python.to_str().unwrap(), dir.path());
            command.arg("-B").arg(sources.join(script));
            command
        } else {
            // Node looks for packages in the directory of a script and above.
            let packages = tools.join(packages).join("node_modules");
            assert!(packages.exists(), "{}", missing("oauth-node"));
            std::os::unix::fs::symlink(packages, dir.path().join("node_modules")).unwrap();
            for name in ["registrations.mjs", script] {
                fs::copy(sources.join(name), dir.path().join(name)).unwrap();
            }
            let mut command = command("node", dir.path());
            command.arg(dir.path().join(script));
            command
        };
        command.args(arguments);
        Self::spawn(script, command, dir, BTreeMap::new())
    }

    /// Starts a program from its source, in its own directory, where it finds the packages of npm. It
    /// listens on the port in `$PORT`, which [`Peer::address`] returns as `plain`.
    pub(crate) fn application(
        name: &str,
        file: &str,
        source: &str,
        arguments: impl Fn(&mut Command, &Path),
    ) -> Self {
        let (dir, port) = (TempDir::new().unwrap(), free());
        let packages = Path::new(DIRECTORY).join("node_modules");
        std::os::unix::fs::symlink(packages, dir.path().join("node_modules")).unwrap();
        let file = dir.path().join(file);
        fs::write(&file, source).unwrap();
        let mut command = command(name, dir.path());
        command.env("PORT", port.port().to_string());
        arguments(&mut command, &file);
        let ports = BTreeMap::from([("plain".to_owned(), port)]);
        let mut peer = Self::spawn(name, command, dir, ports);
        peer.wait_until_listening();
        peer
    }

    /// Starts a server from its configuration and waits until it listens on every port.
    pub(crate) fn serve(
        name: &str,
        file: &str,
        configuration: &str,
        arguments: impl Fn(&mut Command, &Path),
    ) -> Self {
        // None of these servers can bind port 0 and report its port.
        let dir = TempDir::new().unwrap();
        let names = configuration.split("{port:").skip(1);
        let ports: BTreeMap<String, Port> =
            names.map(|text| (text.split_once('}').unwrap().0.to_owned(), free())).collect();
        let mut text = configuration.replace("{dir}", &dir.path().display().to_string());
        for (of, port) in &ports {
            text = text.replace(&format!("{{port:{of}}}"), &port.port().to_string());
        }
        let file = dir.path().join(file);
        // HAProxy rejects a last line without a newline.
        fs::write(&file, text + "\n").unwrap();
        let mut command = command(name, dir.path());
        arguments(&mut command, &file);
        let mut peer = Self::spawn(name, command, dir, ports);
        peer.wait_until_listening();
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
        Self { name: name.to_owned(), child, stdout, stderr, received: 0, ports, _dir: dir }
    }

    /// Waits until this process listens on its ports.
    fn wait_until_listening(&mut self) {
        let started = Instant::now();
        while !self.ports.values().all(|port| port.is_listened_on_by(self.child.id())) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended: {ended:?}\n{}", self.name, self.stderr.text());
            // A program may be compiled first.
            assert!(started.elapsed() < PATIENCE * 3, "{} does not listen", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The address of the port with this name in its configuration.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        *self.ports[name]
    }

    /// Its complete output.
    pub(crate) fn log(&self) -> String {
        self.stdout.text() + &self.stderr.text()
    }

    /// Sends a line.
    pub(crate) fn send(&mut self, message: &Value) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    /// The next line of JSON that it prints; libraries may print other lines.
    pub(crate) fn receive(&mut self) -> Value {
        let started = Instant::now();
        loop {
            let text = self.stdout.text();
            if let Some((line, _)) = text[self.received..].split_once('\n') {
                self.received += line.len() + 1;
                match serde_json::from_str(line) {
                    Ok(message) => return message,
                    Err(_) => continue,
                }
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} exited", self.name);
            assert!(started.elapsed() < PATIENCE * 2, "{} prints nothing", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A Node program has none of these ports; it exits at the end of its input, with its browser.
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
            eprintln!("--- output of {}:\n{}", self.name, self.log());
        }
    }
}

/// The path of a script of this directory.
pub(crate) fn script(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

/// The path of an installed program.
pub(crate) fn program(name: &str) -> PathBuf {
    std::env::split_paths(&search_path())
        .map(|directory| directory.join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{}", missing(name)))
}

/// The library that gives a program another clock.
pub(crate) fn libfaketime() -> PathBuf {
    let found = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists());
    found.unwrap_or_else(|| panic!("{}", missing("libfaketime.so.1"))).into()
}

/// Runs a program and waits for it.
pub(crate) fn run(name: &str, dir: &Path, arguments: &[&str]) -> Output {
    match command(name, dir).args(arguments).stdin(Stdio::null()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => panic!("{}", missing(name)),
        ran => ran.unwrap(),
    }
}

/// The directory of the programs of `setup`, for what the tests build once and keep.
pub(crate) fn tools() -> PathBuf {
    Path::new(DIRECTORY).join(".tools")
}

fn missing(what: &str) -> String {
    format!("{what} is missing: run tests/peers/setup to install it")
}

/// A program with its own environment.
fn command(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(name);
    command.current_dir(dir).env_clear().env("HOME", dir).env("PATH", search_path());
    command
}

/// The programs of `setup` come first. Servers are in `/usr/sbin`, which is not always in `PATH`.
pub(crate) fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{DIRECTORY}/.tools/bin:{path}:/usr/sbin:/usr/bin")
}
