//! Enforces the table in `src/lib.rs`: which module may import which.

use crate::support::files_below;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

#[test]
fn modules_import_only_what_the_table_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = table(&std::fs::read_to_string(root.join("src/lib.rs")).unwrap());
    let mut seen = BTreeSet::new();
    for (module, may_import) in &table {
        for file in files_below(&root.join("src").join(module)) {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(
                !text.contains("crate::{"),
                "{}: import each module in a line of its own",
                file.display()
            );
            for other in table.keys().filter(|other| *other != module) {
                let imported = text.contains(&format!("crate::{other}"));
                assert!(
                    !imported || may_import.contains(other),
                    "{} imports `{other}`, which `{module}` may not import",
                    file.display()
                );
                if imported {
                    seen.insert((module.clone(), other.clone()));
                }
            }
        }
    }
    assert!(seen.contains(&("server".into(), "redirect".into())), "no imports were found");
}

#[test]
fn modules_import_only_from_lower_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lib = std::fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let layers = layers(&lib);
    for (module, may_import) in table(&lib) {
        for other in may_import.iter().filter(|other| **other != module) {
            assert!(
                layers[other] < layers[&module],
                "`{module}` may import `{other}`, which is not in a lower layer"
            );
        }
    }
}

#[test]
fn every_module_is_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = table(&std::fs::read_to_string(root.join("src/lib.rs")).unwrap());
    let modules: BTreeSet<String> = std::fs::read_dir(root.join("src"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(table.into_keys().collect::<BTreeSet<_>>(), modules);
}

#[test]
fn no_two_files_import_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files: BTreeMap<Vec<String>, String> = files_below(&root)
        .into_iter()
        .map(|file| (module(&root, &file), std::fs::read_to_string(&file).unwrap()))
        .collect();
    // A `mod.rs` declares the files of its directory, which may import from it.
    let imported: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> = files
        .iter()
        .filter(|(module, _)| !files.keys().any(|other| is_inside(other, module)))
        .map(|(module, text)| (module, imports(module, text, &files)))
        .collect();
    assert!(imported.values().flatten().count() > 100, "no imports were found");
    for begin in imported.keys() {
        let mut seen = BTreeSet::new();
        let mut open: Vec<_> = imported[begin].iter().collect();
        while let Some(next) = open.pop() {
            assert!(next != begin, "{begin:?} imports itself indirectly: {:?}", imported[begin]);
            if seen.insert(next) {
                open.extend(imported.get(next).into_iter().flatten());
            }
        }
    }
}

/// `check/mod.rs` → `check`, `check/url.rs` → `check`, `url`.
fn module(root: &Path, file: &Path) -> Vec<String> {
    let steps = file.strip_prefix(root).unwrap().with_extension("");
    let steps = steps.iter().map(|step| step.to_str().unwrap().to_owned());
    steps.filter(|step| step != "mod").collect()
}

fn is_inside(module: &[String], other: &[String]) -> bool {
    module.len() > other.len() && module.starts_with(other)
}

/// The files that a file imports, by `super` or `crate`, outside its tests.
fn imports<'f>(
    module: &[String],
    text: &str,
    files: &'f BTreeMap<Vec<String>, String>,
) -> BTreeSet<&'f Vec<String>> {
    let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let code = code.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    let parent = &module[..module.len() - 1];
    let mut imported = BTreeSet::new();
    for (root, word) in [(parent, "super::"), (&[], "crate::")] {
        for (at, _) in code.match_indices(word) {
            let rest = &code[at + word.len()..];
            // The last of several `super` counts.
            if rest.starts_with("super::") {
                continue;
            }
            let above = code[..at].len() - code[..at].trim_end_matches("super::").len();
            let root = &root[..root.len() - above / word.len()];
            let heads = match rest.strip_prefix('{') {
                None => vec![rest],
                Some(list) => list[..list.find("};").unwrap()].split(',').map(str::trim).collect(),
            };
            for head in heads {
                let steps = head.split("::").map(|step| {
                    let end = step.find(|it: char| !it.is_alphanumeric() && it != '_');
                    step[..end.unwrap_or(step.len())].to_owned()
                });
                let path: Vec<_> = root.iter().cloned().chain(steps).collect();
                let longest =
                    (1..=path.len()).rev().find_map(|end| files.get_key_value(&path[..end]));
                imported.extend(longest.map(|(file, _)| file).filter(|file| **file != *module));
            }
        }
    }
    imported
}

fn rows(lib: &str) -> Vec<Vec<&str>> {
    lib.lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .map(|row| row.split('|').map(str::trim).collect())
        .filter(|cells: &Vec<&str>| cells[0].parse::<u8>().is_ok())
        .collect()
}

fn name(cell: &str) -> String {
    cell.trim_matches(['[', ']', '`']).to_owned()
}

/// Module → layer.
fn layers(lib: &str) -> BTreeMap<String, u8> {
    rows(lib).iter().map(|cells| (name(cells[1]), cells[0].parse().unwrap())).collect()
}

/// Module → modules that it may import.
fn table(lib: &str) -> BTreeMap<String, BTreeSet<String>> {
    let rows = rows(lib);
    let all: BTreeSet<String> = rows.iter().map(|cells| name(cells[1])).collect();
    rows.iter()
        .map(|cells| {
            let imports = match cells[3] {
                "–" => BTreeSet::new(),
                "all below" => all.clone(),
                list => list.split(", ").map(ToOwned::to_owned).collect(),
            };
            (name(cells[1]), imports)
        })
        .collect()
}
