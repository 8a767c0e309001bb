//! The journal: what a switch changed, so that a later run can continue or go back. It contains no key.

use super::machine::Phase;
use crate::config::read_file;
use jiff::Timestamp;
use rustix::fs::OFlags;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The environments of a Nango server that were switched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    schema: u32,
    /// The base URL of Nango.
    pub nango: String,
    /// The environments, in the order in which they are switched.
    pub environments: Vec<Entry>,
}

/// One environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in Nango.
    pub name: String,
    /// Its id in Nango.
    pub uuid: String,
    /// Whether Nango treats it as production.
    pub is_production: bool,
    /// The previous callback.
    pub before: String,
    /// The new callback.
    pub after: String,
    /// How far the switch is.
    pub phase: Phase,
    /// When it was planned (RFC 3339).
    pub started_at: String,
    /// When the phase changed (RFC 3339).
    pub changed_at: String,
}

/// The journal file of a run.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    /// Locked until it is dropped. Not the journal itself, which each write replaces.
    lock: Option<File>,
}

/// Why the journal cannot be used.
#[derive(Debug)]
pub enum JournalError {
    /// Another run uses it.
    Locked(PathBuf),
    /// It cannot be read or written.
    Io(PathBuf, String),
    /// It is not a journal.
    Invalid(PathBuf),
    /// Another user may have put it there.
    Foreign(PathBuf),
}

impl JournalError {
    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Locked(_) => "wait until the other run ends, or use another file with --journal",
            Self::Io(..) => "use another file with --journal, in a directory that you can write",
            Self::Invalid(_) => {
                "use another file with --journal; this one is kept, because it may contain the previous \
                 callbacks"
            }
            Self::Foreign(_) => {
                "use another file with --journal, in a directory that others cannot write: the callbacks in the \
                 journal decide where codes are sent"
            }
        }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(path) => write!(f, "another run uses the journal `{}`", path.display()),
            Self::Io(path, why) => write!(f, "cannot use the journal `{}`: {why}", path.display()),
            Self::Invalid(path) => write!(f, "`{}` is not a journal of a switch", path.display()),
            Self::Foreign(path) => {
                write!(f, "the journal `{}` belongs to another user", path.display())
            }
        }
    }
}

impl std::error::Error for JournalError {}

const SCHEMA: u32 = 1;

/// The current time (RFC 3339), to the millisecond.
pub(super) fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// More than a journal of thousands of environments has.
const MAX_BYTES: usize = 4 << 20;

impl Journal {
    /// An empty one.
    pub fn new(nango: &str) -> Self {
        Self { schema: SCHEMA, nango: nango.to_owned(), environments: Vec::new() }
    }

    /// The entry of an environment.
    pub fn entry(&self, uuid: &str) -> Option<&Entry> {
        self.environments.iter().find(|it| it.uuid == uuid)
    }

    /// Adds or replaces the entry of an environment.
    pub fn set(&mut self, entry: Entry) {
        match self.environments.iter_mut().find(|it| it.uuid == entry.uuid) {
            Some(known) => *known = entry,
            None => self.environments.push(entry),
        }
    }
}

impl JournalFile {
    /// Opens the file for a run that writes it, and locks it.
    pub fn lock(path: &Path) -> Result<Self, JournalError> {
        if fs::symlink_metadata(path).is_ok_and(|it| it.is_symlink()) {
            // A write would replace the link, and leave the journal that it points to as it was.
            return Err(JournalError::Io(path.to_owned(), "it is a symbolic link".into()));
        }
        let lock = beside(path, ".lock");
        let cannot = |error: &io::Error| JournalError::Io(lock.clone(), error.to_string());
        // In a directory that others can write, the name may be a link to any file, or a pipe.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(flags.bits().cast_signed())
            .open(&lock)
            .map_err(|error| cannot(&error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(JournalError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(cannot(&error)),
        }
    }

    /// Opens the file to read it only.
    pub fn unlocked(path: &Path) -> Self {
        Self { path: path.to_owned(), lock: None }
    }

    /// The path, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it; `None` when it does not exist. A temporary file of a run that was killed is ignored.
    pub fn read(&self) -> Result<Option<Journal>, JournalError> {
        if is_foreign(&self.path).unwrap_or_default() {
            return Err(JournalError::Foreign(self.path.clone()));
        }
        let bytes = match read_file(&self.path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(why) if why.is_missing() => return Ok(None),
            Err(why) => return Err(JournalError::Io(self.path.clone(), why.to_string())),
        };
        match serde_json::from_slice::<Journal>(&bytes) {
            Ok(journal) if journal.schema == SCHEMA => Ok(Some(journal)),
            _ => Err(JournalError::Invalid(self.path.clone())),
        }
    }

    /// Replaces it. When this returns, it survives a crash of the machine.
    pub fn write(&self, journal: &Journal) -> Result<(), JournalError> {
        let cannot = |error: &io::Error| JournalError::Io(self.path.clone(), error.to_string());
        let text = serde_json::to_string_pretty(journal).map_err(|error| cannot(&error.into()))?;
        self.replace(text.as_bytes()).map_err(|error| cannot(&error))
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let temporary = beside(&self.path, ".tmp");
        // A run that was killed may have left one; its mode may be another.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        File::open(directory(&self.path))?.sync_all()
    }
}

impl Drop for JournalFile {
    fn drop(&mut self) {
        // Closing the file is not enough while a child process still has a copy of it.
        if let Some(lock) = &self.lock {
            let _ = lock.unlock();
        }
    }
}

/// Whether a file, or a link to one, is in a directory such as `/tmp`, and another user put it there.
fn is_foreign(path: &Path) -> io::Result<bool> {
    let is_shared = fs::metadata(directory(path))?.mode() & 0o002 != 0;
    Ok(is_shared && fs::symlink_metadata(path)?.uid() != geteuid().as_raw())
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path with this suffix.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn journal(phase: Phase) -> Journal {
        let mut journal = Journal::new("https://nango.example");
        journal.set(Entry {
            name: "prod".into(),
            uuid: "u".into(),
            is_production: true,
            before: "https://nango.example/oauth/callback".into(),
            after: "https://auth.example.com/oauth/callback".into(),
            phase,
            started_at: now(),
            changed_at: now(),
        });
        journal
    }

    #[test]
    fn a_journal_is_read_as_it_was_written_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.json");
        let file = JournalFile::lock(&path).unwrap();
        assert_eq!(file.read().unwrap(), None);
        for phase in [Phase::Planned, Phase::Saving, Phase::Restored] {
            file.write(&journal(phase)).unwrap();
            assert_eq!(file.read().unwrap().unwrap().environments[0].phase, phase);
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#""phase": "restored""#), "{text}");
        assert!(!beside(&path, ".tmp").exists());
    }

    #[test]
    fn a_temporary_file_of_a_killed_run_is_replaced_and_never_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.json");
        let file = JournalFile::lock(&path).unwrap();
        file.write(&journal(Phase::Saving)).unwrap();
        let temporary = beside(&path, ".tmp");
        let whole = fs::read(&path).unwrap();
        for length in [0, 1, whole.len() / 2, whole.len()] {
            fs::write(&temporary, &whole[..length]).unwrap();
            fs::set_permissions(&temporary, fs::Permissions::from_mode(0o644)).unwrap();
            assert_eq!(file.read().unwrap().unwrap(), journal_of(&whole));
            file.write(&journal(Phase::Saved)).unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            file.write(&journal_of(&whole)).unwrap();
        }
        // A link is replaced, not followed.
        let other = dir.path().join("other");
        fs::write(&other, "kept").unwrap();
        symlink(&other, &temporary).unwrap();
        file.write(&journal(Phase::Saved)).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
    }

    fn journal_of(bytes: &[u8]) -> Journal {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn a_file_that_is_no_journal_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.json");
        let file = JournalFile::lock(&path).unwrap();
        file.write(&journal(Phase::Saving)).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        for length in 0..whole.trim_end().len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(file.read(), Err(JournalError::Invalid(_))), "{length}");
            assert_eq!(fs::read_to_string(&path).unwrap().len(), length);
        }
        fs::write(&path, whole.replace("\"schema\": 1", "\"schema\": 2")).unwrap();
        assert!(matches!(file.read(), Err(JournalError::Invalid(_))));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(file.read(), Err(JournalError::Io(..))));
    }

    #[test]
    fn one_run_at_a_time_uses_a_journal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.json");
        let first = JournalFile::lock(&path).unwrap();
        assert!(matches!(JournalFile::lock(&path), Err(JournalError::Locked(_))));
        // `--status` only reads.
        first.write(&journal(Phase::Saving)).unwrap();
        assert!(JournalFile::unlocked(&path).read().unwrap().is_some());
        drop(first);
        assert!(JournalFile::lock(&path).is_ok());
        let missing = dir.path().join("no/directory/j.json");
        assert!(matches!(JournalFile::lock(&missing), Err(JournalError::Io(..))));
    }

    #[test]
    fn a_lock_that_is_a_link_or_a_pipe_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.json");
        let target = dir.path().join("created by the link");
        symlink(&target, beside(&path, ".lock")).unwrap();
        assert!(matches!(JournalFile::lock(&path), Err(JournalError::Io(..))));
        assert!(!target.exists());
        fs::remove_file(beside(&path, ".lock")).unwrap();
        let mut pipe = std::process::Command::new("mkfifo");
        assert!(pipe.arg(beside(&path, ".lock")).status().unwrap().success());
        assert!(matches!(JournalFile::lock(&path), Err(JournalError::Io(..))));
    }

    #[test]
    fn a_journal_of_another_user_in_a_shared_directory_is_refused() {
        if !geteuid().is_root() {
            // Only root can give a file to another user.
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.json");
        let file = JournalFile::lock(&path).unwrap();
        let share =
            |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        share(0o1777);
        assert_eq!(file.read().unwrap(), None);
        file.write(&journal(Phase::Saved)).unwrap();
        assert!(file.read().unwrap().is_some());
        let other = dir.path().join("other");
        symlink(&path, &other).unwrap();
        std::os::unix::fs::lchown(&other, Some(65_534), None).unwrap();
        assert!(matches!(JournalFile::unlocked(&other).read(), Err(JournalError::Foreign(_))));
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        assert!(matches!(file.read(), Err(JournalError::Foreign(_))));
        // As in a container with the directory of a person.
        share(0o755);
        assert!(file.read().unwrap().is_some());
    }
}
