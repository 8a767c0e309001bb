use crate::peer::program;
use crate::support::PATIENCE;
use crate::support::process::Lines;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A container that boots systemd. Its root is this Debian below an overlay in memory, so nothing
/// here changes; its own network namespace prevents port conflicts. Dropping it kills it; when a
/// test fails, its journal is printed.
pub(crate) struct Machine {
    nspawn: Child,
    /// The PID of its init process, on this machine.
    init: u32,
    output: Arc<Lines>,
    _dir: TempDir,
}

/// The script that boots it; `$1` is an empty directory.
const BOOT: &str = r#"
    ip link set lo up
    # systemd-nspawn leaves files here.
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs "$1"
    mkdir "$1/upper" "$1/work" "$1/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
    cd "$1/root"
    # A machine that was never booted and starts none of the services of this one.
    : >etc/machine-id
    rm -rf etc/systemd/system/*.wants var/log/journal usr/sbin/policy-rc.d
    exec systemd-nspawn --quiet --directory=. --register=no --keep-unit \
      --resolv-conf=off --timezone=off --boot -- systemd.unit=multi-user.target 2>&1
"#;

/// The journal without the log lines of requests.
const JOURNAL: &str = r#"journalctl --no-pager | grep -v '"event":"request"' | tail -n 100"#;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Machine {
    pub(crate) fn boot() -> Self {
        program("systemd-nspawn");
        let dir = TempDir::new().unwrap();
        let mut command = Command::new(program("unshare"));
        command.args(["--net", "--mount", "sh", "-euc", BOOT, "sh"]).arg(dir.path());
        command.env_clear().env("PATH", PATH);
        // Both versions of cgroups may be mounted here; it gets version 2.
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut nspawn = command.spawn().unwrap();
        let output = Lines::of(nspawn.stdout.take().unwrap());
        let mut machine = Self { nspawn, init: 0, output, _dir: dir };
        let started = Instant::now();
        while !machine.is_up() {
            let ended = machine.nspawn.try_wait().unwrap();
            let output = machine.output.text();
            assert!(
                ended.is_none() && started.elapsed() < PATIENCE * 3,
                "systemd did not boot:\n{output}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        machine
    }

    fn is_up(&mut self) -> bool {
        let id = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let Some(init) = children.ok().and_then(|list| list.trim().parse().ok()) else {
            return false;
        };
        self.init = init;
        let Output { stdout, .. } = self.command("systemctl is-system-running").output().unwrap();
        ["running\n", "degraded\n"].iter().any(|state| stdout == state.as_bytes())
    }

    /// The path here of a file or directory of the machine.
    fn path(&self, path: &str) -> PathBuf {
        assert!(path.starts_with('/'), "{path}");
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn copy(&self, from: &Path, to: &str, mode: u32) {
        self.write(to, fs::read(from).unwrap(), mode);
    }

    /// Runs a shell command as root, which must succeed; returns its output.
    pub(crate) fn run(&self, line: &str) -> String {
        let (succeeded, output) = self.try_run(line);
        assert!(succeeded, "{line}:\n{output}");
        output
    }

    pub(crate) fn try_run(&self, line: &str) -> (bool, String) {
        let Output { status, stdout, stderr } = self.command(line).output().unwrap();
        (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(program("nsenter"));
        command.arg(format!("--target={}", self.init)).args(["--all", "sh", "-euc", line]);
        command.env_clear().env("PATH", PATH).stdin(Stdio::null());
        command
    }

    /// Runs a task in its network namespace, on a new thread.
    pub(crate) fn run_in_network<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let network = File::open(format!("/proc/{}/ns/net", self.init)).unwrap();
        std::thread::spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work())
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(init) = i32::try_from(self.init).ok().and_then(Pid::from_raw) {
            if std::thread::panicking() {
                println!("{}", self.try_run(JOURNAL).1);
            }
            // Ending init ends systemd-nspawn, but not vice versa.
            let _ = kill_process(init, Signal::KILL);
        } else {
            let _ = self.nspawn.kill();
        }
        let _ = self.nspawn.wait();
    }
}
