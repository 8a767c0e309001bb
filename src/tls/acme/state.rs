//! The folder that keeps account, certificates and journals.
//!
//! Every file is 0600, and is written whole under another name, flushed, and then renamed: after
//! a crash there is the old one or the new one. A certificate stands in one file with its key, so
//! that there is no moment at which the two do not match.
//!
//! Every method blocks; [`Folder::blocking`] runs them where that does no harm.

use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

/// The folder. Its lock is held as long as one of its clones lives, and with it whatever may still
/// write: file work goes on when the task that waits for it is cancelled.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    lock: Arc<OnceLock<File>>,
    /// One piece of work at a time, in their order: one whose task was cancelled may still be at it.
    turn: Arc<Mutex<()>>,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), lock: Arc::default(), turn: Arc::default() }
    }

    /// Runs file work on a thread that may block: a disk may take seconds to flush, a network file
    /// system for ever.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let folder = self.clone();
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let done = spawn_blocking(move || {
            let _turn = turn;
            work(&folder)
        });
        done.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Takes the folder; makes it when there is none. `false`: another process has it.
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

    /// What a file holds; `None` when there is none.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.file(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces a file, or leaves it as it was.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.file(&format!(".{name}.new"));
        let written = (|| {
            // One that a crash left behind may have another mode.
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
        // The name is on disk only when the folder is.
        File::open(&self.path)?.sync_all()
    }

    /// Puts a file that cannot be used out of the way, for a person to look at.
    pub(super) fn set_aside(&self, name: &str, cause: &str) {
        let aside = format!("{name}.damaged");
        let renamed = std::fs::rename(self.file(name), self.file(&aside));
        tracing::error!(
            event = "acme_state_damaged",
            file = %self.file(name).display(),
            cause,
            kept_as = renamed.is_ok().then_some(aside),
            hint = "the file is not used; what it held is obtained anew",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_for_the_owner_alone_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(&dir.path().join("a/b"));
        assert!(folder.lock().unwrap());
        std::fs::write(folder.file(".x.new"), "left behind").unwrap();
        folder.write("x", b"one").unwrap();
        folder.write("x", b"two").unwrap();
        assert_eq!(folder.read("x").unwrap().unwrap(), b"two");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder.file("x")), mode(folder.path())), (0o600, 0o700));
        assert!(!folder.file(".x.new").exists());
        assert_eq!(folder.read("y").unwrap(), None);
    }

    #[test]
    fn a_second_owner_has_to_wait() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (Folder::new(dir.path()), Folder::new(dir.path()));
        assert!(first.lock().unwrap());
        assert!(!second.lock().unwrap());
        drop(first);
        assert!(second.lock().unwrap());
    }

    #[tokio::test]
    async fn file_work_that_no_one_waits_for_any_more_keeps_the_lock_until_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (Folder::new(dir.path()), Folder::new(dir.path()));
        assert!(first.lock().unwrap());
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (end, may_end) = std::sync::mpsc::channel::<()>();
        let waiting = tokio::spawn(async move {
            let work = first.blocking(move |_| {
                begun.send(()).unwrap();
                let _ = may_end.recv();
                Ok(())
            });
            work.await.unwrap();
        });
        has_begun.await.unwrap();
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert!(!second.lock().unwrap());
        drop(end);
        while !second.lock().unwrap() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn what_cannot_be_written_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        folder.write("x", b"old").unwrap();
        // A name that is too long stands for a disk that is full: root ignores modes.
        assert!(folder.write(&"n".repeat(300), b"new").is_err());
        std::fs::create_dir(folder.file("y")).unwrap();
        assert!(folder.write("y", b"new").is_err());
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(folder.read("x").unwrap().unwrap(), b"old");
    }
}
