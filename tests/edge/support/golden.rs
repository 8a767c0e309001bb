//! Comparison of texts with files: those in `tests/edge/golden/`, and pictures.

use std::fs;
use std::path::{Path, PathBuf};

/// The directory of the golden files.
pub(crate) fn golden_dir() -> PathBuf {
    Path::new(PROJECT).join(GOLDEN)
}

/// [`matches_file`], in that directory.
pub(crate) fn golden(name: &str, text: &str) -> Result<(), String> {
    matches_file(&format!("{GOLDEN}/{name}"), text)
}

/// Returns the first difference of the text from the file, with instructions. With `UPDATE_GOLDEN=1`
/// it writes the file instead; review it before you commit it.
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
         If this is intended, run the test with `UPDATE_GOLDEN=1`, and review what it writes.\n\
         The complete text:\n{text}"
    ))
}

/// Compares the transcript of a command, which follows `$ <command>` in a `console` block, with its
/// output. `…` in a line of the transcript matches any text. `UPDATE_GOLDEN=1` writes the output
/// into the page instead.
pub(crate) fn assert_shows(name: &str, command: &str, output: &str) {
    let file = Path::new(PROJECT).join(name);
    let page = fs::read_to_string(&file).unwrap();
    let start = format!("```console\n$ {command}\n");
    let (before, rest) = page.split_once(&start).unwrap_or_else(|| panic!("{name}: no {start:?}"));
    let (shown, after) = rest.split_once("```").unwrap();
    let matches = |shown: &str, line: &str| match shown.split_once('…') {
        Some((start, end)) => line.starts_with(start) && line.ends_with(end),
        None => line == shown,
    };
    let mut shown_lines = shown.lines();
    let updated = output.lines().flat_map(|line| {
        let shown = shown_lines.next().filter(|shown| matches(shown, line));
        [shown.unwrap_or(line), "\n"]
    });
    let updated: String = updated.collect();
    if updated == shown {
        return;
    }
    assert!(
        updates(),
        "{name} shows:\n{shown}\nand the program prints:\n{updated}\n\
         If this is intended, run the test with `UPDATE_GOLDEN=1` and read what it writes."
    );
    fs::write(file, [before, &start, &updated, "```", after].concat()).unwrap();
}

/// Whether tests write the files instead of comparing them.
pub(crate) fn updates() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");
const GOLDEN: &str = "tests/edge/golden";
