//! Texts that are compared with a file: those in `tests/edge/golden/`, and pictures.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder that holds them.
pub(crate) fn golden_dir() -> PathBuf {
    Path::new(PROJECT).join(GOLDEN)
}

/// [`matches_file`], in that folder.
pub(crate) fn golden(name: &str, text: &str) -> Result<(), String> {
    matches_file(&format!("{GOLDEN}/{name}"), text)
}

/// Where the text differs from the file, and what to do. With `UPDATE_GOLDEN=1` the file is
/// written anew instead; read it before you keep it.
pub(crate) fn matches_file(name: &str, text: &str) -> Result<(), String> {
    let file = Path::new(PROJECT).join(name);
    if updates() {
        fs::write(&file, text).unwrap();
        return Ok(());
    }
    let wanted = fs::read_to_string(&file).unwrap_or_default();
    if wanted == text {
        return Ok(());
    }
    let (mut left, mut right, mut number) = (wanted.lines(), text.lines(), 0);
    let (was, is) = loop {
        number += 1;
        match (left.next(), right.next()) {
            (was, is) if was == is && was.is_some() => {}
            (was, is) => break (was.unwrap_or("(the end)"), is.unwrap_or("(the end)")),
        }
    };
    Err(format!(
        "{name}:{number} differs\n  file:    {was}\n  program: {is}\n\
         If that is meant, the same test with `UPDATE_GOLDEN=1` writes the file anew; read what \
         it wrote.\nAll of it:\n{text}"
    ))
}

/// Whether files are written anew.
pub(crate) fn updates() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");
const GOLDEN: &str = "tests/edge/golden";
