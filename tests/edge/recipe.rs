//! `callback-edge recipe` prints and writes recipes, and its documentation matches them.

use crate::support::{command, golden, matches_file};
use callback_edge::cli::Cli;
use callback_edge::recipes::{self, Keeps, Query, Recipe, Verified};
use clap::Parser;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CALLBACK: &str = "https://auth.example.com/oauth/callback";

#[test]
fn without_a_place_every_place_is_listed_in_groups() {
    let text = stdout(&[]);
    golden("recipe/list.txt", &text).unwrap();
    for recipe in recipes::all() {
        assert!(text.contains(&format!("\n  {} ", recipe.id)), "{} is not in\n{text}", recipe.id);
    }
    let list: Value = serde_json::from_str(&stdout(&["--json"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), recipes::all().len());
}

#[test]
fn a_recipe_is_printed_ready_to_paste_with_the_command_that_verifies_it() {
    golden("recipe/nginx.txt", &stdout(&["nginx", "--callback", CALLBACK])).unwrap();
    golden("recipe/alb.txt", &stdout(&["alb"])).unwrap();
    let target = "https://nango.example.com/oauth/callback";
    for recipe in recipes::all().iter().filter(|recipe| recipe.instead.is_empty()) {
        let text = stdout(&[recipe.id, "--callback", CALLBACK, "--target", target]);
        let check = format!("callback-edge check {CALLBACK} --target {target}");
        assert!(text.contains(&format!("Check it:\n   {check}\n")), "{text}");
        let limitation = text.split("Check it:").nth(1).unwrap();
        assert_eq!(limitation.contains("\n\n- "), !recipe.limitations.is_empty(), "{text}");
        for url in [target, "https://nango.example.com/app-auth/connect"] {
            let parts = url.replace("https://nango.example.com", "");
            assert!(text.contains(url) || text.contains(&parts), "{text}");
        }
        Cli::try_parse_from(check.split(' ')).unwrap();
        assert!(!text.contains('\u{1b}'));
    }
}

#[test]
fn json_contains_what_the_text_contains() {
    for recipe in recipes::all() {
        let arguments = [recipe.id, "--callback", "https://a.example/nango", "--json"];
        let json: Value = serde_json::from_str(&stdout(&arguments)).unwrap();
        assert_eq!(json["place"], recipe.id);
        assert_eq!(json["target"], "https://api.nango.dev/oauth/callback");
        let has_files = !json["files"].as_array().unwrap().is_empty();
        assert_eq!(has_files, recipe.instead.is_empty());
        assert_eq!(json["check"].is_string(), has_files);
    }
}

#[test]
fn files_are_written_and_never_overwritten() {
    for recipe in recipes::all().iter().filter(|recipe| recipe.instead.is_empty()) {
        let dir = TempDir::new().unwrap();
        let arguments = [recipe.id, "--callback", CALLBACK, "--out", "new", "--json"];
        let json: Value =
            serde_json::from_slice(&recipe_in(dir.path(), &arguments).stdout).unwrap();
        let files = json["files"].as_array().unwrap();
        for file in files {
            let written = dir.path().join(file["written"].as_str().unwrap());
            assert_eq!(fs::read_to_string(&written).unwrap(), file["text"].as_str().unwrap());
        }
        let last = dir.path().join(files[files.len() - 1]["written"].as_str().unwrap());
        fs::remove_file(dir.path().join(files[0]["written"].as_str().unwrap())).unwrap();
        fs::write(&last, "own").unwrap();
        let Output { status, stdout, stderr } = recipe_in(dir.path(), &arguments);
        assert_eq!(status.code(), Some(3));
        let error = String::from_utf8(stderr).unwrap();
        assert!(stdout.is_empty() && error.contains("exists; no file was written"), "{error}");
        assert_eq!(fs::read_to_string(&last).unwrap(), "own");
        let remaining =
            files.len() == 1 || !dir.path().join(files[0]["written"].as_str().unwrap()).exists();
        assert!(remaining, "{}", recipe.id);
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), "own").unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
    for out in ["file", "link"] {
        let arguments = ["nginx", "--callback", CALLBACK, "--out", out];
        let Output { status, stdout, stderr } = recipe_in(dir.path(), &arguments);
        assert_eq!(status.code(), Some(3));
        let text = String::from_utf8(stderr).unwrap();
        let error = format!("error: cannot write `{out}/snippets/nango-callback.conf`\n");
        assert!(stdout.is_empty() && text.starts_with(&error), "{text}");
        assert!(text.contains("hint: pass a directory that you can write to"), "{text}");
    }
    assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "own");
}

#[test]
fn an_unknown_place_gets_suggestions() {
    for (place, hint) in [
        ("ngnix", "hint: did you mean `nginx`"),
        ("express.js", "hint: did you mean `express`"),
        ("aws", "`lambda`"),
        ("kubernetes", "`gateway-api`"),
        ("x", "hint: `callback-edge recipe` lists all places"),
    ] {
        let Output { status, stdout, stderr } = recipe_in(Path::new(ROOT), &[place]);
        assert_eq!(status.code(), Some(64));
        let text = String::from_utf8(stderr).unwrap();
        assert!(stdout.is_empty() && text.contains(hint), "{place}: {text}");
        assert!(text.starts_with(&format!("error: unknown place `{place}`\n")), "{text}");
    }
}

#[test]
fn a_value_that_a_language_could_interpret_is_refused_for_every_place() {
    let hostile = ["'", "\"", "$", "\\", "{", "%", "\n", "`", "#", ";", "?a=b", "*", "(", "<", " "];
    for special in hostile {
        for option in ["--callback", "--target"] {
            let value = format!("https://auth.example.com/oauth{special}/callback");
            let Output { status, stdout, stderr } =
                recipe_in(Path::new(ROOT), &["nginx", option, &value]);
            assert_eq!(status.code(), Some(64), "{value}");
            let text = String::from_utf8(stderr).unwrap();
            assert!(stdout.is_empty() && text.contains("hint: a recipe accepts"), "{text}");
        }
    }
}

/// The table and the limitations come from the files of the recipes.
#[test]
fn the_documentation_lists_what_each_recipe_keeps() {
    let name = "docs/your-own-redirect.md";
    let page = fs::read_to_string(Path::new(ROOT).join(name)).unwrap();
    let page = with_section(&page, "Platforms", &platforms());
    matches_file(name, &with_section(&page, "Limitations", &limitations())).unwrap();
}

fn platforms() -> String {
    let mut text = "\
**Query**: whether every byte arrives, or every value as Nango reads it, where the encoding may change; *not proved*\n\
is what the platform documents. **Form**: the status of a form post. **Verified**: *run* with the platform in the\n\
tests of this project; in a *harness* that passes the documented events to the code, or the snippet to nginx; against\n\
the *schema*; or *not run*.\n\n\
| Platform | `recipe` | Query | Status | `no-store` | Form | Verified |\n|---|---|---|---|---|---|---|\n"
        .to_owned();
    for Recipe { id, title, keeps, verified, instead, .. } in recipes::all() {
        let Keeps { query, status, no_store, form } = keeps;
        let row = if *query == Query::Nothing {
            let others: Vec<_> = instead.iter().map(|other| format!("`{other}`")).collect();
            format!("not possible: use {} | – | – | – | –", others.join(" or "))
        } else {
            // Documentation is no proof.
            let is_proved = matches!(verified, Verified::Run | Verified::Harness);
            let query = format!("{query}{}", if is_proved { "" } else { " (not proved)" });
            let no_store = if *no_store { "yes" } else { "no" };
            format!("{query} | {status} | {no_store} | {form} | {verified}")
        };
        let _ = writeln!(text, "| {title} | `{id}` | {row} |");
    }
    text
}

fn limitations() -> String {
    let mut text = String::new();
    for recipe in recipes::all().iter().filter(|recipe| !recipe.limitations.is_empty()) {
        let _ = writeln!(text, "- **{}**: {}", recipe.title, recipe.limitations.join(" "));
    }
    text
}

/// The page with another text below a heading.
fn with_section(page: &str, heading: &str, text: &str) -> String {
    let heading = format!("\n## {heading}\n");
    let (before, rest) = page.split_once(&heading).unwrap();
    let after = rest.find("\n## ").map_or("", |at| &rest[at..]);
    format!("{before}{heading}\n{text}{after}")
}

fn stdout(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = recipe_in(Path::new(ROOT), arguments);
    assert!(status.success() && stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn recipe_in(dir: &Path, arguments: &[&str]) -> Output {
    command(dir).arg("recipe").args(arguments).output().unwrap()
}
