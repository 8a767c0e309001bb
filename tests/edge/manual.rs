//! Completions, manual pages, help texts and the README's table contain every command.

use crate::support::command;
use callback_edge::cli::Cli;
use clap::Parser;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Calls the completion function as bash does: with the words so far and the index of the current one.
#[test]
fn bash_completes_every_command() {
    let dir = TempDir::new().unwrap();
    let script = stdout_of(dir.path(), &["completions", "bash"]);
    fs::write(dir.path().join("script"), script).unwrap();
    let complete = "
        set -e
        source ./script
        COMP_WORDS=(callback-edge \"$@\" '')
        COMP_CWORD=$(($# + 1))
        registered=$(complete -p callback-edge)
        [[ $registered =~ -F\\ ([^ ]+) ]]
        \"${BASH_REMATCH[1]}\" callback-edge '' \"${COMP_WORDS[COMP_CWORD - 1]}\"
        printf '%s\\n' \"${COMPREPLY[@]}\"
    ";
    for path in [&[][..], &["config"]] {
        let mut bash = Command::new("bash");
        bash.current_dir(dir.path()).args(["-c", complete, "bash"]).args(path);
        let output = bash.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let offered = String::from_utf8(output.stdout).unwrap();
        let offered: BTreeSet<String> = offered.lines().map(ToOwned::to_owned).collect();
        let missing: Vec<_> =
            commands(path).into_iter().filter(|it| !offered.contains(it)).collect();
        assert!(missing.is_empty(), "{path:?}: {missing:?} not in {offered:?}");
    }
}

#[test]
fn every_offered_shell_gets_a_script() {
    let dir = TempDir::new().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(stdout_of(dir.path(), &["completions", shell]).contains("preflight"), "{shell}");
    }
}

#[test]
fn manual_pages_that_cannot_be_written_are_an_error_with_the_directory() {
    let dir = TempDir::new().unwrap();
    let output = command(dir.path()).args(["man", "--into", "no/such/directory"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("to `no/such/directory`") && stderr.contains("hint: "), "{stderr}");
}

#[test]
fn the_manual_has_a_page_for_every_command_and_the_first_lists_them() {
    let dir = TempDir::new().unwrap();
    stdout_of(dir.path(), &["man", "--into", "."]);
    let page = |name: &str| fs::read_to_string(dir.path().join(format!("{name}.1"))).unwrap();
    let first = page("callback-edge");
    assert_eq!(first, stdout_of(dir.path(), &["man"]));
    for name in commands(&[]) {
        assert!(first.contains(&format!(r"callback\-edge\-{name}(1)")), "{name}:\n{first}");
        assert!(page(&format!("callback-edge-{name}")).contains("Example:"), "{name}");
    }
    for name in commands(&["config"]) {
        page(&format!("callback-edge-config-{name}"));
    }
}

/// The shell handles the variables before a command and the pipe after it.
#[test]
fn every_help_ends_with_examples_that_parse() {
    let mut paths: Vec<Vec<String>> = vec![vec![], vec!["config".into()]];
    paths.extend(commands(&[]).into_iter().map(|name| vec![name]));
    paths.extend(commands(&["config"]).into_iter().map(|name| vec!["config".into(), name]));
    for path in paths {
        let words: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = stdout_of(Path::new("/"), &words);
        let (_, examples) = help.split_once("\nExample:\n").unwrap_or_else(|| panic!("{help}"));
        assert!(examples.lines().count() > 0, "{help}");
        for example in examples.lines() {
            let command = example.strip_prefix("  ").unwrap_or_else(|| panic!("{help}"));
            let command = command.split(['|', '>']).next().unwrap();
            let is_variable = |word: &&str| word.contains('=');
            let words = command.split_whitespace().skip_while(is_variable);
            let named: Vec<&str> = words.clone().skip(1).collect();
            assert!(path.iter().all(|name| named.contains(&name.as_str())), "{path:?}: {example}");
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{example}: {error}"));
        }
    }
}

#[test]
fn the_readme_lists_every_command() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Commands\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    for name in commands(&[]) {
        let row = |line: &str| {
            let shown = line.strip_prefix("| `callback-edge ").unwrap_or_default();
            shown.trim_start_matches('[').starts_with(&name)
        };
        assert!(section.lines().any(row), "the README has no `{name}`");
    }
}

/// The subcommands of a command, as `--help` lists them.
fn commands(path: &[&str]) -> Vec<String> {
    let help = stdout_of(Path::new("/"), &[path, &["--help"]].concat());
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let list = list.split("\n\n").next().unwrap();
    // Long descriptions continue in the next line, with more indentation.
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !["", "help"].contains(name));
    let names: Vec<_> = names.map(ToOwned::to_owned).collect();
    assert!(!names.is_empty(), "{help}");
    names
}

fn stdout_of(dir: &Path, arguments: &[&str]) -> String {
    let output = command(dir).args(arguments).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
