use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// Reads all of a regular file of at most `limit` bytes. Devices and pipes are refused: they may have
/// no end, or block forever.
pub fn read_file(path: &Path, limit: usize) -> Result<Vec<u8>, Unreadable> {
    // Checked first: opening a pipe waits for its writer.
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(Unreadable::Directory);
    }
    if !kind.is_file() {
        return Err(Unreadable::NotRegular);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit { Err(Unreadable::TooLong(limit)) } else { Ok(bytes) }
}

/// Why a file could not be read.
#[derive(Debug)]
pub enum Unreadable {
    /// It is a directory.
    Directory,
    /// It is a device, a pipe or a socket.
    NotRegular,
    /// It is longer than this many bytes.
    TooLong(usize),
    /// The error of the operating system.
    System(io::Error),
}

impl Unreadable {
    /// Whether the file does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::System(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Whether it concerns this process, and not the file: it has too many open files at the moment.
    pub fn is_transient(&self) -> bool {
        // open(2): ENFILE and EMFILE.
        matches!(self, Self::System(error) if matches!(error.raw_os_error(), Some(23 | 24)))
    }

    /// How to fix it. `example` is the name of such a file.
    pub fn hint(&self, path: &Path, example: &str) -> String {
        match self {
            Self::Directory => {
                let file = path.join(example);
                format!("use a file in it, for example `{}`", file.display())
            }
            Self::NotRegular => "write the content to a regular file, and use that file".into(),
            Self::TooLong(_) => "use another file, or a part of it".into(),
            Self::System(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => missing(path),
                io::ErrorKind::PermissionDenied => {
                    "let the user that runs callback-edge read the file, and enter its directories"
                        .into()
                }
                _ => "check the file system of the file".into(),
            },
        }
    }
}

/// The directory that a relative path starts at, or the part of an absolute path that does not exist.
fn missing(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.starts_with('~') || text.contains('$') {
        return "`~` and variables are not expanded: write an absolute path".into();
    }
    if path.is_relative() {
        let here = std::env::current_dir().unwrap_or_default();
        return format!(
            "relative paths start at the working directory, which is `{}`; write an absolute path",
            here.display()
        );
    }
    let absent = path.ancestors().take_while(|part| !part.exists()).last();
    match absent.filter(|absent| *absent != path) {
        Some(absent) => format!("`{}` does not exist", absent.display()),
        None => "its directory exists: check the name of the file".into(),
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("it is a directory"),
            Self::NotRegular => {
                f.write_str("it is a device, a pipe or a socket, not a regular file")
            }
            Self::TooLong(limit) => {
                write!(f, "it is larger than {}", super::leaf::format_size(*limit))
            }
            Self::System(error) => error.fmt(f),
        }
    }
}

impl Error for Unreadable {}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::IsADirectory => Self::Directory,
            _ => Self::System(error),
        }
    }
}
