//! The ways to keys: `route.0.path` is the key `path` of the first `[[route]]`.

use toml_edit::Key;

/// Stands for a dot within a key, since dots join the steps of a path: `"a.b".c` is no `a.b.c`.
const DOT: &str = "\u{1f}";

/// Stands for a key without characters, since a step without any is none.
const EMPTY: &str = "\u{1e}";

/// A key as one step of a path.
pub(super) fn step_of(key: &str) -> String {
    if key.is_empty() { EMPTY.into() } else { key.replace('.', DOT) }
}

/// The key that a step stands for.
pub(super) fn key_of(step: &str) -> String {
    if step == EMPTY { String::new() } else { step.replace(DOT, ".") }
}

/// `a.b.c` → `a.b`, `a`
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('.').map(|(end, _)| path.get(..end).unwrap_or_default())
}

/// `a.b.c` → (`a.b`, `c`)
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

pub(super) fn is_index(step: &str) -> bool {
    !step.is_empty() && step.bytes().all(|it| it.is_ascii_digit())
}

/// `route.0.path` → `route[0].path`, and keys in quotes where TOML wants them.
pub(super) fn readable(path: &str) -> String {
    let mut readable = String::new();
    for step in path.split('.') {
        if is_index(step) {
            readable.extend(["[", step, "]"]);
        } else {
            let dot = if readable.is_empty() { "" } else { "." };
            readable.extend([dot, &*Key::new(key_of(step)).display_repr()]);
        }
    }
    readable
}
