//! Texts that are compared with a file in `tests/edge/golden/`.

use std::fs;
use std::path::PathBuf;

/// The folder that holds them.
pub(crate) fn golden_dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/edge/golden"))
}

/// Where the text differs from the file, and what to do. With `UPDATE_GOLDEN=1` the file is
/// written anew instead; read it before you keep it.
pub(crate) fn golden(name: &str, text: &str) -> Result<(), String> {
    let file = golden_dir().join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
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
        "tests/edge/golden/{name}:{number} differs\n  file:    {was}\n  program: {is}\n\
         If that is meant, `UPDATE_GOLDEN=1 cargo test --test edge` writes the file anew; read \
         what it wrote.\nAll of it:\n{text}"
    ))
}
