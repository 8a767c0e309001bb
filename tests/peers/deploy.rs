//! Each file of `deploy/` works as documented: it is run, or validated by a program for its format.
//! Only names and ports that need a real machine are replaced.

mod builder;
mod ci;
mod debian;
mod image;
mod kubernetes;
mod monitoring;
mod names;
mod packages;
mod platforms;
mod proxies;
mod service;
mod steps;
mod systemd;

pub(crate) use kubernetes::validate;

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

/// An address where nothing listens.
const REFUSED: &str = "http://127.0.0.1:1";

#[test]
fn the_readme_lists_every_file_and_contributing_lists_every_test() {
    let readme = text("README.md");
    for file in files_below(&deploy_path("")) {
        let name = file.strip_prefix(deploy_path("")).unwrap().to_str().unwrap();
        let dir = name.split_once('/').map_or("README.md", |(dir, _)| dir);
        let file = name.rsplit('/').next().unwrap();
        // The files of a kustomization are listed as one; those of a recipe, in docs/your-own-redirect.md.
        let named = match dir {
            "kubernetes" => "kubernetes/",
            "recipes" => "(recipes)",
            _ => file,
        };
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

fn deploy_path(file: &str) -> PathBuf {
    Path::new(PROJECT).join("deploy").join(file)
}

fn text(file: &str) -> String {
    fs::read_to_string(deploy_path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Replaces texts that must exist.
fn substitute(text: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "no {old:?} in:\n{text}");
        text.replace(old, new)
    })
}

/// Every document of a YAML file, without tags such as `!Ref`.
fn yaml(file: &str) -> Vec<Value> {
    documents(&text(file))
}

pub(crate) fn documents(text: &str) -> Vec<Value> {
    let script = "
import json, sys, yaml
class Loader(yaml.SafeLoader): pass
Loader.add_multi_constructor('!', lambda loader, tag, node: node.value)
print(json.dumps([each for each in yaml.load_all(sys.argv[1], Loader) if each]))
";
    let mut python = Command::new(program("deploy-python"));
    serde_json::from_str(&run(python.args(["-c", script, text]))).unwrap()
}

/// Asserts that a probe of this path succeeds.
async fn assert_healthy(address: SocketAddr, path: &str) {
    assert_eq!(connect(address).await.get(path).await.unwrap().status, 200, "{path}");
}

/// Runs a program that must succeed; returns its output.
fn run(command: &mut Command) -> String {
    let name = command.get_program().to_owned();
    let name = OsStr::to_string_lossy(&name).into_owned();
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
    let output = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(status.success(), "{name} exited with {status}:\n{output}");
    output
}
