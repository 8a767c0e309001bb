//! Every test and every fuzz target in SECURITY.md exists.

use crate::support::files_below;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Every `module::name` in backticks, and `module::part::name`.
fn named(page: &str) -> BTreeSet<(String, String)> {
    let is_name = |text: &str| {
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        !text.is_empty() && text.bytes().all(is_part)
    };
    page.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|quoted| quoted.rsplit_once("::"))
        .filter(|(module, name)| module.split("::").all(is_name) && is_name(name))
        .map(|(module, name)| (module.to_owned(), name.to_owned()))
        .collect()
}

/// Whether a file of this module or of a submodule has this function.
fn exists(files: &[PathBuf], module: &str, name: &str) -> bool {
    let is_of = |file: &Path| {
        let file = file.strip_prefix(ROOT).unwrap().with_extension("");
        let mut parts = file.iter();
        module.split("::").all(|name| parts.any(|part| part == name))
    };
    let function = format!("fn {name}(");
    files.iter().any(|file| is_of(file) && fs::read_to_string(file).unwrap().contains(&function))
}

#[test]
fn every_test_in_security_md_exists() {
    let root = Path::new(ROOT);
    let page = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    // `tests/peers/setup` installs third-party programs there.
    let is_foreign =
        |file: &Path| file.iter().any(|part| part == "node_modules" || part == ".tools");
    let files: Vec<PathBuf> = ["src", "tests/edge", "tests/peers"]
        .iter()
        .flat_map(|directory| files_below(&root.join(directory)))
        .filter(|file| file.extension().is_some_and(|it| it == "rs") && !is_foreign(file))
        .collect();
    let named = named(&page);
    assert!(named.len() > 40, "no test names were found");
    for (module, name) in &named {
        let found = match module.as_str() {
            "fuzz" => root.join(format!("fuzz/fuzz_targets/{name}.rs")).exists(),
            _ => exists(&files, module, name),
        };
        assert!(found, "`{module}::{name}` in SECURITY.md does not exist");
    }
    // Each target is built, run in CI and documented.
    let (manifest, run) = (root.join("fuzz/Cargo.toml"), root.join("fuzz/run"));
    let (manifest, run) = (fs::read_to_string(manifest).unwrap(), fs::read_to_string(run).unwrap());
    for file in files_below(&root.join("fuzz/fuzz_targets")) {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not built");
        assert!(run.contains(&name), "{name} is not run");
        assert!(root.join("fuzz/seeds").join(&name).is_dir(), "{name} has no seeds");
        assert!(named.contains(&("fuzz".to_owned(), name.clone())), "{name} is not documented");
    }
}
