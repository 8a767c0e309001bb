//! Settings: no text makes the reader panic, and every problem says where it is.

#![no_main]

use callback_edge::config::{self, Location};
use libfuzzer_sys::fuzz_target;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = ["/dev/shm", "/tmp"].map(PathBuf::from).into_iter().find(|dir| dir.is_dir());
    dir.expect("a folder").join(format!("callback-edge-fuzz-{}.toml", std::process::id()))
});

/// What is missing stands nowhere; the sentence says it instead.
fn says_what_is_not_there(told: &str) -> bool {
    ["there is no route", "names none", "nothing says"].iter().any(|words| told.contains(words))
}

fuzz_target!(|data: &[u8]| {
    // Behind a NUL, which TOML cannot hold, stands a variable.
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
            assert!(!problems.0.is_empty());
            let text = String::from_utf8_lossy(text);
            let lines = text.split('\n').count();
            for problem in &problems.0 {
                let told = problem.to_string();
                assert!(told.starts_with("error: ") && told == told.trim_end(), "{told:?}");
                std::hint::black_box(problem.coloured());
                match problem.location() {
                    Location::File(position) => {
                        assert!((1..=lines).contains(&position.line), "{told}");
                        let line = text.split('\n').nth(position.line - 1).unwrap_or_default();
                        assert!(position.column >= 1, "{told}");
                        assert!(position.column <= line.chars().count() + 1, "{told}");
                    }
                    Location::Variable(name) => assert!(set.contains(name), "{told}"),
                    Location::Default => assert!(says_what_is_not_there(&told), "{told}"),
                }
            }
        }
    }
});
