//! The controlling terminal of the process. The kernel sends SIGHUP when it is closed, and people and
//! service managers send the same signal for a reload.

use rustix::io::Errno;
use std::fs::File;

/// Whether SIGHUP can mean that the terminal is gone.
#[derive(Debug)]
pub(super) struct ControllingTerminal {
    /// There was one at start, and the process was not started with `nohup`.
    can_close: bool,
}

impl ControllingTerminal {
    /// Before the handler of SIGHUP is installed.
    pub(super) fn at_start() -> Self {
        Self { can_close: is_present() && !is_sighup_ignored() }
    }

    /// Whether there was a terminal, and it is closed. The kernel detaches it from all processes of the
    /// session before it sends SIGHUP.
    pub(super) fn is_closed(&self) -> bool {
        self.can_close && is_absent()
    }
}

/// Where it cannot be determined, it counts as neither present nor absent.
fn is_present() -> bool {
    File::open("/dev/tty").is_ok()
}

/// tty(4): ENXIO without a controlling terminal. EIO when it has hung up.
fn is_absent() -> bool {
    File::open("/dev/tty").is_err_and(|error| {
        [Errno::NXIO, Errno::IO]
            .iter()
            .any(|absent| error.raw_os_error() == Some(absent.raw_os_error()))
    })
}

/// Whether the parent ignores SIGHUP, as nohup(1) does; a handler replaces that (`proc_pid_status(5)`).
fn is_sighup_ignored() -> bool {
    const SIGHUP: u64 = 1;
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        ignored.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
    })
}
