//! Syntax errors of TOML, in the words of users, and how to continue after one.

use super::location::{Lines, Location};
use super::problem::Problem;
use std::path::Path;
use toml_edit::TomlError;

/// Stands for a value with a syntax error. No setting is a date.
const GAP: &str = "0001-01-01";

const DUPLICATE: &str = "the key is set twice";

/// What the parser's messages mean, and how to fix it.
const MESSAGES: [(&str, &str, &str); 12] = [
    ("string values must be quoted", "text is not in quotes", "write `key = \"value\"`"),
    ("duplicate key", DUPLICATE, "remove one of them"),
    ("key with no value", "a key without `=` and a value", "write `key = \"value\"`"),
    ("missing assignment", "a key without `=` and a value", "write `key = \"value\"`"),
    ("invalid unquoted key", "the key has a character that is not allowed", "write `key = \"value\"`, with a key of letters, digits, `_` and `-`"),
    ("missing value", "a key without a value", "write `key = \"value\"`, or remove the line"),
    ("unclosed table", "`]` is missing", "write `[section]`"),
    ("unclosed array table", "`]]` is missing", "write `[[section]]`"),
    ("unclosed array", "`]` is missing at the end of a list", "write `[\"one\", \"two\"]`"),
    ("unclosed inline table", "`}` is missing at the end of a table", "write `{ key = \"value\" }`"),
    ("missing comma", "a comma is missing", "separate the values with commas"),
    ("invalid basic string", "the text has no end, or a character that is not allowed", "end it with `\"` on the same line, and write `\\\\` for a backslash"),
];

pub(super) fn problem(file: Option<&Path>, text: &str, lines: &Lines, error: &TomlError) -> Problem {
    let message = error.message().replace('\n', ", ");
    let known = MESSAGES.iter().find(|(prefix, ..)| message.starts_with(prefix));
    let problem = match known {
        Some((_, what, hint)) => Problem::error(format!("not valid TOML: {what}")).hint(*hint),
        None => Problem::error(format!("not valid TOML: {message}"))
            .hint("write `key = \"value\"`, one on each line, below a `[section]`"),
    };
    match (file, error.span()) {
        (Some(file), Some(span)) => {
            problem.at(&Location::File(Box::new(lines.position(file, text, span))))
        }
        _ => problem,
    }
}

/// The text with a gap instead of the value in this line, or without the line if its key is a
/// duplicate. `None` if more than the line is affected.
pub(super) fn without_line(text: &str, line: usize, problem: &Problem) -> Option<String> {
    let mut lines: Vec<&str> = text.split('\n').collect();
    let bad = lines.get_mut(line.checked_sub(1)?)?;
    let end = bad.find(['=', ':'])?;
    let (key, value) = bad.split_at(end);
    let is_key = |it: char| it.is_ascii_alphanumeric() || "_-. \t".contains(it);
    let value = value.get(1..)?.trim_start();
    if key.trim().is_empty()
        || !key.chars().all(is_key)
        || value.starts_with(['[', '{'])
        || value.contains("\"\"\"")
        || value.contains("'''")
    {
        return None;
    }
    let repaired = if problem.what().ends_with(DUPLICATE) {
        String::new()
    } else {
        format!("{} = {GAP}", key.trim())
    };
    *bad = &repaired;
    Some(lines.join("\n"))
}
