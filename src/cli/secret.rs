//! Secrets come from the environment or from a file, never from an argument: arguments are visible
//! in the process list and in the history of the shell.

use crate::config::{Problem, read_file};
use secrecy::SecretString;
use std::env::{self, VarError};
use std::path::Path;

/// More than any key has.
const MAX_BYTES: usize = 8 << 10;

/// The secret in the file, otherwise in the variable; `None` when there is neither. Leading and
/// trailing white space, for example the newline of an editor, is not part of it.
pub(super) fn secret(file: Option<&Path>, variable: &str) -> Result<Option<SecretString>, Problem> {
    match file {
        Some(file) => from_file(file).map(Some),
        None => from_variable(variable),
    }
}

fn from_file(file: &Path) -> Result<SecretString, Problem> {
    let cannot = || Problem::error(format!("cannot use the key in `{}`", file.display()));
    let bytes = read_file(file, MAX_BYTES)
        .map_err(|why| cannot().caused_by(&why).hint(why.hint(file, "key")))?;
    // The error of the conversion may quote the bytes.
    let text = std::str::from_utf8(&bytes).map_err(|_| cannot().because("it is not UTF-8"))?;
    usable(text).map_err(|why| cannot().because(why))
}

fn from_variable(name: &str) -> Result<Option<SecretString>, Problem> {
    let cannot = |why| Problem::error(format!("cannot use the key in `{name}`")).because(why);
    match env::var(name) {
        Err(VarError::NotPresent) => Ok(None),
        // Variables that are passed to containers are often empty.
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => usable(&text).map(Some).map_err(cannot),
        Err(VarError::NotUnicode(_)) => Err(cannot("it is not UTF-8")),
    }
}

fn usable(text: &str) -> Result<SecretString, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        Err("it is empty")
    } else if text.contains(char::is_control) {
        Err("it has more than one line or contains control characters")
    } else {
        Ok(text.into())
    }
}
