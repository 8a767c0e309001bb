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

/// A machine with a systemd of its own: the Debian that is here, seen through an overlay in memory,
/// so that nothing of it changes. Its network is its own too, and so its ports are nobody else's.
/// It dies when it is dropped, and when a test fails, its journal is shown.
pub(crate) struct Machine {
    nspawn: Child,
    /// Its process 1, by the number that it has here.
    init: u32,
    said: Arc<Lines>,
    _dir: TempDir,
}

/// What boots it; `$1` is an empty folder.
const BOOT: &str = r#"
    ip link set lo up
    # What systemd-nspawn leaves behind, it leaves here.
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs "$1"
    mkdir "$1/upper" "$1/work" "$1/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
    cd "$1/root"
    # A machine that was never booted, and starts nothing that this one starts.
    : >etc/machine-id
    rm -rf etc/systemd/system/*.wants var/log/journal usr/sbin/policy-rc.d
    exec systemd-nspawn --quiet --directory=. --register=no --keep-unit \
      --resolv-conf=off --timezone=off --boot -- systemd.unit=multi-user.target 2>&1
"#;

/// What was done, without what was asked.
const JOURNAL: &str = r#"journalctl --no-pager | grep -v '"event":"request"' | tail -n 100"#;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Machine {
    pub(crate) fn boot() -> Self {
        program("systemd-nspawn");
        let dir = TempDir::new().unwrap();
        let mut command = Command::new(program("unshare"));
        command.args(["--net", "--mount", "sh", "-euc", BOOT, "sh"]).arg(dir.path());
        command.env_clear().env("PATH", PATH);
        // Both kinds of cgroups may be mounted here; it has the newer.
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut nspawn = command.spawn().unwrap();
        let said = Lines::of(nspawn.stdout.take().unwrap());
        let mut machine = Self { nspawn, init: 0, said, _dir: dir };
        let started = Instant::now();
        while !machine.is_up() {
            let ended = machine.nspawn.try_wait().unwrap();
            let said = machine.said.text();
            assert!(ended.is_none() && started.elapsed() < PATIENCE * 3, "no boot:\n{said}");
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

    /// A file or folder of the machine.
    fn place(&self, path: &str) -> PathBuf {
        assert!(path.starts_with('/'), "{path}");
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) {
        let place = self.place(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, content).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn copy(&self, from: &Path, to: &str, mode: u32) {
        self.write(to, fs::read(from).unwrap(), mode);
    }

    /// Runs a line of shell as root, which must succeed; tells what it said.
    pub(crate) fn run(&self, line: &str) -> String {
        let (done, said) = self.try_run(line);
        assert!(done, "{line}:\n{said}");
        said
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

    /// Does something in its network, by a thread of its own.
    pub(crate) fn in_its_network<T: Send + 'static>(
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
            // systemd-nspawn ends when it does, but not the other way round.
            let _ = kill_process(init, Signal::KILL);
        } else {
            let _ = self.nspawn.kill();
        }
        let _ = self.nspawn.wait();
    }
}
