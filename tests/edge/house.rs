//! The code is held to the table in `src/lib.rs`: who may know whom.

use crate::support::files_below;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

#[test]
fn rooms_import_only_what_the_table_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = table(&std::fs::read_to_string(root.join("src/lib.rs")).unwrap());
    let mut seen = BTreeSet::new();
    for (room, may_know) in &table {
        for file in files_below(&root.join("src").join(room)) {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(!text.contains("crate::{"), "{}: name each room by itself", file.display());
            for other in table.keys().filter(|other| *other != room) {
                let known = text.contains(&format!("crate::{other}"));
                assert!(
                    !known || may_know.contains(other),
                    "{} knows `{other}`, which `{room}` may not",
                    file.display()
                );
                if known {
                    seen.insert((room.clone(), other.clone()));
                }
            }
        }
    }
    assert!(seen.contains(&("server".into(), "redirect".into())), "the reader reads nothing");
}

#[test]
fn imports_point_down_a_floor() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lib = std::fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let floors = floors(&lib);
    for (room, may_know) in table(&lib) {
        for other in may_know.iter().filter(|other| **other != room) {
            assert!(
                floors[other] < floors[&room],
                "`{room}` may know `{other}`, which is not below"
            );
        }
    }
}

#[test]
fn every_room_stands_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = table(&std::fs::read_to_string(root.join("src/lib.rs")).unwrap());
    let rooms: BTreeSet<String> = std::fs::read_dir(root.join("src"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(table.into_keys().collect::<BTreeSet<_>>(), rooms);
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

/// Room → floor.
fn floors(lib: &str) -> BTreeMap<String, u8> {
    rows(lib).iter().map(|cells| (name(cells[1]), cells[0].parse().unwrap())).collect()
}

/// Room → rooms that it may know.
fn table(lib: &str) -> BTreeMap<String, BTreeSet<String>> {
    let rows = rows(lib);
    let all: BTreeSet<String> = rows.iter().map(|cells| name(cells[1])).collect();
    rows.iter()
        .map(|cells| {
            let knows = match cells[3] {
                "–" => BTreeSet::new(),
                "all below" => all.clone(),
                list => list.split(", ").map(ToOwned::to_owned).collect(),
            };
            (name(cells[1]), knows)
        })
        .collect()
}
