//! The state directory: account, certificates and journals.
//!
//! Every file has mode 0600, and is replaced atomically: written under another name, synced, renamed.
//! After a crash there is the old file or the new one. A certificate is in one file with its key, so
//! that the two always match.
//!
//! Every method blocks; [`StateDir::blocking`] runs them on a blocking thread.

use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

/// The state directory. Its lock is held as long as a clone exists, because blocking file operations
/// continue when the task that awaits them is cancelled.
#[derive(Clone, Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    lock: Arc<OnceLock<File>>,
    /// Runs one operation at a time, in order: one whose task was cancelled may still be running.
    queue: Arc<Mutex<()>>,
}

impl StateDir {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), lock: Arc::default(), queue: Arc::default() }
    }

    /// Runs file operations on a blocking thread: a disk may take seconds to sync, and a network file
    /// system may never respond.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let state_dir = self.clone();
        let turn = Arc::clone(&self.queue).lock_owned().await;
        let result = spawn_blocking(move || {
            let _turn = turn;
            work(&state_dir)
        });
        result.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Locks the directory, and creates it if it does not exist. `false`: another process has the lock.
    pub(super) fn lock(&self) -> io::Result<bool> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.file("lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self.lock.get_or_init(|| file);
                Ok(true)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The content of a file; `None` when it does not exist.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.file(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces a file, or leaves it unchanged.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.file(&format!(".{name}.new"));
        let written = (|| {
            // A file from before a crash may have another mode.
            match std::fs::remove_file(&new) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, self.file(name))
        })();
        if let Err(error) = written {
            let _ = std::fs::remove_file(&new);
            return Err(error);
        }
        // The new name is on disk only after the directory is synced.
        File::open(&self.path)?.sync_all()
    }

    /// Renames a file that cannot be used, so that an operator can inspect it.
    pub(super) fn set_aside(&self, name: &str, cause: &str) {
        let damaged = format!("{name}.damaged");
        let renamed = std::fs::rename(self.file(name), self.file(&damaged));
        tracing::error!(
            event = "acme_state_damaged",
            file = %self.file(name).display(),
            cause,
            kept_as = renamed.is_ok().then_some(damaged),
            hint = "its content is obtained again; find out what damaged it, such as a full disk",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_have_mode_0600_and_are_replaced_atomically() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(&dir.path().join("a/b"));
        assert!(state_dir.lock().unwrap());
        std::fs::write(state_dir.file(".x.new"), "from a crash").unwrap();
        state_dir.write("x", b"one").unwrap();
        state_dir.write("x", b"two").unwrap();
        assert_eq!(state_dir.read("x").unwrap().unwrap(), b"two");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state_dir.file("x")), mode(state_dir.path())), (0o600, 0o700));
        assert!(!state_dir.file(".x.new").exists());
        assert_eq!(state_dir.read("y").unwrap(), None);
    }

    #[test]
    fn a_second_process_gets_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (StateDir::new(dir.path()), StateDir::new(dir.path()));
        assert!(first.lock().unwrap());
        assert!(!second.lock().unwrap());
        drop(first);
        assert!(second.lock().unwrap());
    }

    #[tokio::test]
    async fn file_operations_of_a_cancelled_task_keep_the_lock_until_they_finish() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (StateDir::new(dir.path()), StateDir::new(dir.path()));
        assert!(first.lock().unwrap());
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (finish, may_finish) = std::sync::mpsc::channel::<()>();
        let waiting = tokio::spawn(async move {
            let work = first.blocking(move |_| {
                started.send(()).unwrap();
                let _ = may_finish.recv();
                Ok(())
            });
            work.await.unwrap();
        });
        has_started.await.unwrap();
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert!(!second.lock().unwrap());
        drop(finish);
        while !second.lock().unwrap() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(dir.path());
        state_dir.write("x", b"old").unwrap();
        // A name that is too long simulates a full disk: root ignores file modes.
        assert!(state_dir.write(&"n".repeat(300), b"new").is_err());
        std::fs::create_dir(state_dir.file("y")).unwrap();
        assert!(state_dir.write("y", b"new").is_err());
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(state_dir.read("x").unwrap().unwrap(), b"old");
    }
}
