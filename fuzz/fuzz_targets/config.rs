//! Settings: no text makes the reader panic, and every problem has a location.

#![no_main]

use callback_edge::config::{self, Location, Problem};
use libfuzzer_sys::fuzz_target;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = ["/dev/shm", "/tmp"].map(PathBuf::from).into_iter().find(|dir| dir.is_dir());
    dir.expect("a directory").join(format!("callback-edge-fuzz-{}.toml", std::process::id()))
});

/// Missing settings, and files that are not text, have no line.
fn has_no_line(printed: &str) -> bool {
    let of_the_file = ["is UTF-16", "is not a text file"];
    ["there is no route", "has none", "no domain"]
        .iter()
        .chain(&of_the_file)
        .any(|text| printed.contains(text))
}

fuzz_target!(|data: &[u8]| {
    // After a NUL, which is not valid in TOML, the input is a variable.
    let (text, variable) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b""[..]),
    };
    std::fs::write(&*FILE, text).expect("a file");
    let variable = String::from_utf8_lossy(variable).replace('\0', "");
    let variable = variable.split_once('=').map(|(name, value)| {
        (OsString::from(format!("CALLBACK_EDGE_{name}")), OsString::from(value))
    });
    let set = variable.iter().map(|(name, _)| name.to_string_lossy().into_owned());
    let set: Vec<String> = set.collect();
    match config::load(Some(&FILE), variable) {
        Ok(loaded) => {
            for shown in &loaded.shown {
                std::hint::black_box(format!("{shown:?}"));
            }
        }
        Err(problems) => {
            // Warnings alone do not reject settings.
            assert!(!problems.0.iter().all(Problem::is_warning), "{problems}");
            let text = String::from_utf8_lossy(text);
            let lines = text.split('\n').count();
            for problem in &problems.0 {
                let printed = problem.to_string();
                let severity = if problem.is_warning() { "warning: " } else { "error: " };
                assert!(
                    printed.starts_with(severity) && printed == printed.trim_end(),
                    "{printed:?}"
                );
                std::hint::black_box(problem.coloured());
                match problem.location() {
                    Location::File(position) => {
                        assert!((1..=lines).contains(&position.line), "{printed}");
                        let line = text.split('\n').nth(position.line - 1).unwrap_or_default();
                        assert!(position.column >= 1, "{printed}");
                        assert!(position.column <= line.chars().count() + 1, "{printed}");
                    }
                    Location::Variable(name) => assert!(set.contains(name), "{printed}"),
                    Location::Default => assert!(has_no_line(&printed), "{printed}"),
                }
            }
        }
    }
});
