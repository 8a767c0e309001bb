//! What SECURITY.md promises is tested: every test and target that it names exists.

use crate::house::sources;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Every `module::name` in backticks.
fn named(page: &str) -> BTreeSet<(String, String)> {
    let is_name = |text: &str| {
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        !text.is_empty() && text.bytes().all(is_part)
    };
    page.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|quoted| quoted.split_once("::"))
        .filter(|(module, name)| is_name(module) && is_name(name))
        .map(|(module, name)| (module.to_owned(), name.to_owned()))
        .collect()
}

/// Whether a file of this name, or in a folder of it, holds this function.
fn exists(files: &[std::path::PathBuf], module: &str, name: &str) -> bool {
    let function = format!("fn {name}(");
    let of_module = files.iter().filter(|file| file.file_stem().is_some_and(|it| it == module));
    of_module.into_iter().any(|file| fs::read_to_string(file).unwrap().contains(&function))
}

#[test]
fn every_test_that_the_page_names_exists() {
    let root = Path::new(ROOT);
    let page = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let mut files = sources(&root.join("src"));
    for suite in ["tests/edge", "tests/peers"] {
        let own = fs::read_dir(root.join(suite)).unwrap().map(|entry| entry.unwrap().path());
        files.extend(own.filter(|path| path.extension().is_some_and(|it| it == "rs")));
    }
    let named = named(&page);
    assert!(named.len() > 40, "the reader reads nothing");
    for (module, name) in &named {
        let found = match module.as_str() {
            "fuzz" => root.join(format!("fuzz/fuzz_targets/{name}.rs")).exists(),
            _ => exists(&files, module, name),
        };
        assert!(found, "SECURITY.md names `{module}::{name}`, which does not exist");
    }
    // And each target is built, run in CI and told.
    let (manifest, run) = (root.join("fuzz/Cargo.toml"), root.join("fuzz/run"));
    let (manifest, run) = (fs::read_to_string(manifest).unwrap(), fs::read_to_string(run).unwrap());
    for file in sources(&root.join("fuzz/fuzz_targets")) {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not built");
        assert!(run.contains(&name), "{name} is not run");
        assert!(root.join("fuzz/seeds").join(&name).is_dir(), "{name} has no seeds");
        assert!(named.contains(&("fuzz".to_owned(), name.clone())), "{name} is not told");
    }
}
