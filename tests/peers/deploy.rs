//! What `deploy/` holds does what it says: each file there is run, or read by a program that knows
//! its kind. Names and ports that only a real machine has are exchanged; nothing else is.

mod ci;
mod debian;
mod image;
mod kubernetes;
mod monitoring;
mod names;
mod platforms;
mod proxies;
mod service;
mod steps;
mod systemd;

use crate::peer::program;
use crate::support::{connect, files_below};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

/// Nothing listens there.
const NOBODY: &str = "http://127.0.0.1:1";

#[test]
fn the_readme_lists_every_file_and_contributing_every_test() {
    let readme = text("README.md");
    for file in files_below(&place("")) {
        let name = file.strip_prefix(place("")).unwrap().to_str().unwrap();
        let folder = name.split_once('/').map_or("README.md", |(folder, _)| folder);
        let file = name.rsplit('/').next().unwrap();
        // The files of a kustomization are one thing.
        let named = if folder == "kubernetes" { "kubernetes/" } else { file };
        assert!(readme.contains(named) || name == "README.md", "the README has no {name}");
    }
    let tests = files_below(&Path::new(PROJECT).join("tests/peers/deploy"));
    let tests: String = tests.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let contributing = fs::read_to_string(Path::new(PROJECT).join("CONTRIBUTING.md")).unwrap();
    let (_, section) = contributing.split_once("\n## Tests of deploy\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let listed: BTreeSet<&str> = section.split('`').skip(1).step_by(2).collect();
    for name in listed.iter().filter(|word| word.contains('_') && !word.contains(['.', ':'])) {
        assert!(tests.contains(&format!("fn {name}(")), "there is no test `{name}`");
    }
    let names = tests
        .split("test]\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("fn ").and_then(|(_, rest)| rest.split('(').next()));
    for name in names {
        assert!(listed.contains(name), "CONTRIBUTING.md has no `{name}`");
    }
}

fn place(file: &str) -> PathBuf {
    Path::new(PROJECT).join("deploy").join(file)
}

fn text(file: &str) -> String {
    fs::read_to_string(place(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Exchanges what must be there.
fn swap(text: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "no {old:?} in:\n{text}");
        text.replace(old, new)
    })
}

/// Every document of a file of YAML; tags such as `!Ref` are left out.
fn yaml(file: &str) -> Vec<Value> {
    documents(&text(file))
}

fn documents(text: &str) -> Vec<Value> {
    let script = "
import json, sys, yaml
class Loader(yaml.SafeLoader): pass
Loader.add_multi_constructor('!', lambda loader, tag, node: node.value)
print(json.dumps([each for each in yaml.load_all(sys.argv[1], Loader) if each]))
";
    let mut python = Command::new(program("deploy-python"));
    serde_json::from_str(&run(python.args(["-c", script, text]))).unwrap()
}

/// Whether all is well, as whoever asks sees it.
async fn answers(address: SocketAddr, path: &str) {
    assert_eq!(connect(address).await.get(path).await.unwrap().status, 200, "{path}");
}

/// Runs a program that must succeed; tells all that it said.
fn run(command: &mut Command) -> String {
    let name = command.get_program().to_owned();
    let name = OsStr::to_string_lossy(&name).into_owned();
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(status.success(), "{name} ended with {status}:\n{said}");
    said
}
