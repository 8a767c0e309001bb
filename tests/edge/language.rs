//! Texts are plain technical English: words of an earlier, private vocabulary do not come back.
//! `CONTRIBUTING.md` has the glossary of the words to use instead.

use crate::support::files_below;
use std::fs;
use std::path::{Path, PathBuf};

/// Words and phrases, in lower case. In code, `_` separates words.
const BANNED: &[&str] = &[
    "a word of",
    "alike",
    "anew",
    "are had",
    "be had",
    "burnt",
    "errand",
    "errands",
    "farewell",
    "floor",
    "floors",
    "folder",
    "folders",
    "goes on",
    "gone on",
    "greedy",
    "house",
    "is had",
    "loudly",
    "look at",
    "looked at",
    "looks at",
    "mend",
    "mended",
    "mending",
    "mends",
    "mistake",
    "mistakes",
    "nobody",
    "of ours",
    "parted",
    "room",
    "rooms",
    "says",
    "somebody",
    "stand in",
    "stands behind",
    "stands in",
    "strangers",
    "tell",
    "telling",
    "tells",
    "thereof",
    "told",
    "way out",
    "whereby",
    "wherefore",
    "whoever",
    "whomever",
    "whose like",
];

/// Removed before the search, each with a reason.
const EXCEPTIONS: &[(&str, &str)] = &[("dns.alike", "a check id, which is stable")];

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn documents_use_plain_technical_english() {
    let single = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "config.toml"];
    let single = single.iter().map(|name| Path::new(ROOT).join(name));
    let below = ["docs", "deploy", ".github"];
    let below = below.iter().flat_map(|name| files_below(&Path::new(ROOT).join(name)));
    let found: Vec<String> = single
        .chain(below)
        .filter_map(|file| Some((fs::read_to_string(&file).ok()?, file)))
        .flat_map(|(text, file)| banned(&file, &without_the_glossary(&text)))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn code_and_its_names_use_plain_technical_english() {
    let directories = ["src", "tests", "benches", "fuzz"];
    let found: Vec<String> = directories
        .iter()
        .flat_map(|name| sources_below(&Path::new(ROOT).join(name)))
        .filter(|file| !file.ends_with("tests/edge/language.rs"))
        .flat_map(|file| banned(&file, &fs::read_to_string(&file).unwrap().replace('_', " ")))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn banned_words_are_found_in_any_case_and_across_spaces() {
    let found = banned(Path::new("f"), "as told\ntold_it mends_ dns.alike\nMend, it goes  on");
    assert_eq!(found, ["f:1: `told`", "f:3: `goes on`", "f:3: `mend`"]);
}

/// Source files, without installed packages, builds, and recorded texts.
fn sources_below(dir: &Path) -> Vec<PathBuf> {
    let skipped = ["node_modules", "target", "golden", "seeds"];
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let entries = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        !name.starts_with('.') && !skipped.contains(&name.as_str())
    });
    let files = entries
        .map(|entry| entry.path())
        .flat_map(|path| if path.is_dir() { sources_below(&path) } else { vec![path] });
    let is_source = |path: &PathBuf| match path.extension() {
        Some(extension) => ["rs", "mjs", "py", "md"].iter().any(|it| extension == *it),
        None => path.ends_with("setup") || path.ends_with("run"),
    };
    files.filter(is_source).collect()
}

/// Where a text contains a banned word: file, line and word.
fn banned(file: &Path, text: &str) -> Vec<String> {
    let name = file.strip_prefix(ROOT).unwrap_or(file).display();
    let lines = text.lines().zip(1..);
    lines
        .flat_map(|(line, number)| {
            let mut line = line.to_lowercase();
            for (exception, _) in EXCEPTIONS {
                line = line.replace(exception, " ");
            }
            let words = line.split(|it: char| !it.is_alphanumeric() && it != '_');
            let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
            let line = format!(" {} ", words.join(" "));
            let is_in = move |word: &&&str| line.contains(&format!(" {word} "));
            let found =
                BANNED.iter().filter(is_in).map(|word| format!("{name}:{number}: `{word}`"));
            found.collect::<Vec<_>>()
        })
        .collect()
}

/// The glossary contains the old words.
fn without_the_glossary(text: &str) -> String {
    let mut in_glossary = false;
    let line = |line: &str| {
        in_glossary = line == "## Glossary" || in_glossary && !line.starts_with("## ");
        if in_glossary { "\n".to_owned() } else { format!("{line}\n") }
    };
    text.lines().map(line).collect()
}
