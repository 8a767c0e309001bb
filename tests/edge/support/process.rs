use super::port::listening;
use super::{Authority, Metrics, PATIENCE, certified, settings};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;
use tempfile::TempDir;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_callback-edge");

/// Its output when it has started, as text and as JSON.
const STARTED: [&str; 4] = [
    "\nready; press Ctrl-C to stop\n",
    "\nnot ready: ",
    "\"event\":\"ready\"",
    "\"event\":\"not_ready\"",
];

/// A running server with its own directory. Dropping it kills the process.
pub(crate) struct Edge {
    child: Child,
    stderr: Arc<Lines>,
    /// Kept open.
    _unread: Option<PipeReader>,
    dir: Arc<TempDir>,
    pub(crate) http: Vec<SocketAddr>,
    pub(crate) https: Vec<SocketAddr>,
    pub(crate) admin: Vec<SocketAddr>,
}

/// The output of a process, collected by a thread.
#[derive(Default)]
pub(crate) struct Lines {
    text: Mutex<String>,
    grown: Condvar,
}

impl Lines {
    /// Collects until the pipe ends.
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Arc<Self> {
        let lines = Arc::new(Self::default());
        std::thread::spawn({
            let lines = Arc::clone(&lines);
            move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let mut text = lines.text.lock().unwrap();
                    text.push_str(&line);
                    text.push('\n');
                    lines.grown.notify_all();
                }
            }
        });
        lines
    }

    /// Everything so far.
    pub(crate) fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// Waits until it contains one of these texts; returns everything so far.
    pub(crate) fn wait_for(&self, child: &mut Child, any: &[&str]) -> String {
        let started = Instant::now();
        let mut text = self.text.lock().unwrap();
        while !any.iter().any(|needle| text.contains(needle)) {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && started.elapsed() < PATIENCE, "no {any:?} in:\n{text}");
            text = self.grown.wait_timeout(text, PATIENCE / 100).unwrap().0;
        }
        text.clone()
    }
}

impl Edge {
    /// Starts it in a new directory with these settings, in which `{dir}` is replaced by the path.
    /// Returns once it has started.
    pub(crate) fn start(settings: &str) -> Self {
        Self::start_in(TempDir::new().unwrap(), settings, |_| {})
    }

    /// Starts it with the http and admin listeners and these settings.
    pub(crate) fn plain(own: &str) -> Self {
        Self::start(&settings::plain(own))
    }

    /// Starts it as `localhost` with the http, https and admin listeners and these settings; also
    /// returns the CA of its certificate.
    pub(crate) fn over_tls(own: &str) -> (Self, Authority) {
        let (authority, dir) = certified(&["localhost"]);
        (Self::start_in(dir, &settings::tls(own), |_| {}), authority)
    }

    pub(crate) fn start_in(
        dir: impl Into<Arc<TempDir>>,
        settings: &str,
        adjust: impl FnOnce(&mut Command),
    ) -> Self {
        let dir = dir.into();
        write_settings(dir.path(), settings);
        let mut command = command(dir.path());
        command.args(["-c", "config.toml", "serve"]).stdin(Stdio::null());
        adjust(&mut command);
        Self::run(dir, command)
    }

    /// Starts it from a shell script that ends with `exec "$0" "$@"`.
    pub(crate) fn start_from_shell(
        dir: impl Into<Arc<TempDir>>,
        settings: &str,
        script: &str,
        adjust: impl FnOnce(&mut Command),
    ) -> Self {
        let dir = dir.into();
        write_settings(dir.path(), settings);
        let mut command = Command::new("/bin/sh");
        command.current_dir(dir.path()).env_clear().stdin(Stdio::null());
        command.args(["-c", script, PROGRAM, "-c", "config.toml", "serve"]);
        adjust(&mut command);
        Self::run(dir, command)
    }

    /// As [`Edge::start`], but its output is not read once it has started.
    pub(crate) fn start_unread(settings: &str) -> Self {
        let dir = TempDir::new().unwrap();
        write_settings(dir.path(), settings);
        let mut command = command(dir.path());
        // One pipe for both, as with `2>&1 |`.
        let (mut unread, pipe) = std::io::pipe().unwrap();
        command.args(["-c", "config.toml", "serve"]).stdin(Stdio::null());
        command.stdout(pipe.try_clone().unwrap()).stderr(pipe);
        let child = command.spawn().unwrap();
        // Byte by byte, so that the output after it stays in the pipe.
        let mut text = Vec::new();
        let mut byte = [0];
        while !STARTED.iter().any(|started| text.ends_with(started.as_bytes())) {
            unread.read_exact(&mut byte).unwrap();
            text.extend(byte);
        }
        let mut edge = Self::of(child, Arc::default(), Some(unread), Arc::new(dir));
        edge.note_addresses(&String::from_utf8(text).unwrap());
        edge
    }

    fn run(dir: Arc<TempDir>, mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        // The command may own sockets for the child.
        drop(command);
        let stderr = Lines::of(child.stderr.take().unwrap());
        let mut edge = Self::of(child, stderr, None, dir);
        let text = edge.stderr.wait_for(&mut edge.child, &STARTED);
        edge.note_addresses(&text);
        edge
    }

    fn of(child: Child, stderr: Arc<Lines>, unread: Option<PipeReader>, dir: Arc<TempDir>) -> Self {
        Self { child, stderr, _unread: unread, dir, http: vec![], https: vec![], admin: vec![] }
    }

    fn note_addresses(&mut self, text: &str) {
        for (kind, address) in text.lines().filter_map(listening) {
            match kind.as_str() {
                "http" => self.http.push(address),
                "https" => self.https.push(address),
                _ => self.admin.push(address),
            }
        }
    }

    /// A scrape of its admin listener.
    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::read(self.admin[0]).await
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Replaces the settings file; `{dir}` is replaced by the path of the directory.
    pub(crate) fn rewrite(&self, settings: &str) {
        write_settings(self.dir.path(), settings);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Everything on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until stderr contains this text; returns everything so far.
    pub(crate) fn wait_for(&mut self, needle: &str) -> String {
        self.stderr.wait_for(&mut self.child, &[needle])
    }

    /// Waits for the process to end; returns its status and everything on stderr.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // The reader thread ends with the pipe; it has read everything then.
                while Arc::strong_count(&self.stderr) > 1 {
                    std::thread::yield_now();
                }
                return (status, self.stderr());
            }
            assert!(started.elapsed() < PATIENCE * 2, "it does not end:\n{}", self.stderr());
            std::thread::sleep(PATIENCE / 1000);
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn stop(self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Shuts it down, which must be graceful; returns everything on stderr.
    pub(crate) fn finish(self) -> String {
        let (status, log) = self.stop();
        assert!(status.code() == Some(0) && !log.contains("panic"), "{status}:\n{log}");
        log
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with an empty environment.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.current_dir(dir).env_clear();
    command
}

fn write_settings(dir: &Path, settings: &str) -> PathBuf {
    let path = dir.join("config.toml");
    std::fs::write(&path, settings.replace("{dir}", &dir.display().to_string())).unwrap();
    path
}
