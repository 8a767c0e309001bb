//! Texts are plain technical English: words of an earlier, private vocabulary do not come back.
//! `CONTRIBUTING.md` has the glossary of the words to use instead.

use crate::support::files_below;
use std::fs;
use std::path::Path;

/// Words and phrases, in lower case. `_` is part of a word, so identifiers are not searched.
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

/// Not translated yet. Remove an entry when its files are.
const TO_TRANSLATE: &[&str] = &[
    ".github/pictures",
    "deploy/proxies",
    "src/check",
    "src/cli/check.rs",
    "src/cli/completions.rs",
    "src/cli/config.rs",
    "src/cli/exit.rs",
    "src/cli/format.rs",
    "src/cli/health.rs",
    "src/cli/hmac.rs",
    "src/cli/man.rs",
    "src/cli/mod.rs",
    "src/cli/preflight.rs",
    "src/cli/progress.rs",
    "src/cli/connect.rs",
    "src/cli/secret.rs",
    "src/cli/serve.rs",
    "src/cli/watch.rs",
    "src/config",
    "src/observe",
    "src/outbound",
    "src/preflight",
    "src/report",
    "src/tls",
];

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn documents_use_plain_technical_english() {
    let single = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "config.toml"];
    let single = single.iter().map(|name| Path::new(ROOT).join(name));
    let below = ["docs", "deploy", ".github"];
    let below = below.iter().flat_map(|name| files_below(&Path::new(ROOT).join(name)));
    let found: Vec<String> = single
        .chain(below)
        .filter(|file| is_translated(file))
        .filter_map(|file| Some((fs::read_to_string(&file).ok()?, file)))
        .flat_map(|(text, file)| banned(&file, &without_the_glossary(&text)))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn texts_and_comments_of_the_code_use_plain_technical_english() {
    let found: Vec<String> = files_below(&Path::new(ROOT).join("src"))
        .into_iter()
        .filter(|file| file.extension().is_some_and(|it| it == "rs") && is_translated(file))
        .flat_map(|file| {
            let code = fs::read_to_string(&file).unwrap();
            banned(&file, &literals_and_comments(&code))
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn literals_and_comments_are_separated_from_code() {
    let code =
        "fn tell() { // a \"comment\"\n    say(\"a \\\"text\\\"\", '\"', 'x');\n}\n/// Doc.\n";
    assert_eq!(literals_and_comments(code), " // a \"comment\"\n a \\\"text\\\"\n\n /// Doc.\n");
    let found = banned(Path::new("f"), "as told\ntold_it mends_ dns.alike\nMend, it goes  on");
    assert_eq!(found, ["f:1: `told`", "f:3: `goes on`", "f:3: `mend`"]);
}

fn is_translated(file: &Path) -> bool {
    !TO_TRANSLATE.iter().any(|name| file.starts_with(Path::new(ROOT).join(name)))
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

/// What is quoted or commented in Rust code, up to its tests. Lines keep their numbers.
fn literals_and_comments(code: &str) -> String {
    let code = code.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '\'', '/', '\n']) {
        rest = &rest[at..];
        if rest.starts_with("//") {
            let (comment, after) = rest.split_at(rest.find('\n').unwrap_or(rest.len()));
            kept.push(' ');
            kept.push_str(comment);
            rest = after;
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let mut escaped = false;
            let end = quoted.find(|it| {
                let ends = it == '"' && !escaped;
                escaped = it == '\\' && !escaped;
                ends
            });
            let (text, after) = quoted.split_at(end.unwrap_or(quoted.len()));
            kept.push(' ');
            kept.push_str(text);
            rest = after.strip_prefix('"').unwrap_or(after);
        } else if rest.starts_with("'\"'") {
            rest = &rest[3..];
        } else {
            if rest.starts_with('\n') {
                kept.push('\n');
            }
            rest = &rest[1..];
        }
    }
    kept
}
