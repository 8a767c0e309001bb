//! Syntax errors of TOML, in the words of users, and how to continue after one.

use super::leaf::shown;
use super::location::{Lines, Location};
use super::problem::Problem;
use std::net::SocketAddr;
use std::path::Path;
use toml_edit::TomlError;

/// Stands for a value with a syntax error. No setting is a date.
const GAP: &str = "0001-01-01";

/// What messages of the parser mean, and how to fix it.
const MESSAGES: [(&str, &str, &str); 10] = [
    (
        "invalid unquoted key",
        "the key has a character that is not allowed",
        "write a key of letters, digits, `_` and `-`",
    ),
    ("unclosed table", "`]` is missing", "write `[section]`"),
    ("unclosed array table", "`]]` is missing", "write `[[section]]`"),
    ("unclosed array", "`]` is missing at the end of a list", "write `[\"one\", \"two\"]`"),
    (
        "unclosed inline table",
        "`}` is missing at the end of a table",
        "write `{ key = \"value\" }`",
    ),
    (
        "missing comma",
        "a comma or the end of a list is missing",
        "separate the values with commas, and end the list with `]`",
    ),
    (
        "invalid multi-line",
        "the text has no end",
        "end it with the three quotes that it starts with",
    ),
    (
        "invalid literal string",
        "the text has no end",
        "end it with `'`, the quote that it starts with",
    ),
    (
        "missing escaped value",
        "a backslash is not part of an escape",
        "write `\\\\` for a backslash, or put the text in single quotes",
    ),
    (
        "invalid basic string",
        "the text has no end, or a character that is not allowed",
        "end it with `\"` on the same line, and write `\\\\` for a backslash",
    ),
];

/// The problem, with a hint for this line.
pub(super) fn problem(
    file: Option<&Path>,
    text: &str,
    lines: &Lines,
    error: &TomlError,
) -> Problem {
    // Its errors would quote lines of the key.
    if text.contains("PRIVATE KEY-----") {
        let problem = Problem::error("not valid TOML: it contains a private key")
            .hint("keep the key in a file of its own, and write the path of that file");
        return match (file, error.span()) {
            (Some(file), Some(span)) => {
                let mut at = Location::File(Box::new(lines.position(file, text, span)));
                at.hide();
                problem.at(&at)
            }
            _ => problem,
        };
    }
    let message = error.message().replace('\n', ", ");
    let position = file.zip(error.span()).map(|(file, span)| lines.position(file, text, span));
    let number = position.as_ref().map_or(0, |position| position.line);
    let (what, hint) = explain(text, number, &message);
    let problem = Problem::error(format!("not valid TOML: {what}")).hint(hint);
    match position {
        Some(position) => problem.at(&Location::File(Box::new(position))),
        None => problem,
    }
}

fn explain(text: &str, number: usize, message: &str) -> (String, String) {
    let at = number.saturating_sub(1);
    let line = text.lines().nth(at).unwrap_or_default().trim();
    let lines = || text.lines().take(at).map(str::trim).enumerate();
    if message.starts_with("duplicate key") {
        if line.starts_with('[') {
            let hint = match lines().find(|(_, other)| *other == line) {
                Some((at, _)) => format!("move its keys below the first one on line {}", at + 1),
                None => "move all its keys to one place".to_owned(),
            };
            return (format!("`{}` is there already", shown(line)), hint);
        }
        let key = line.split(['=', ' ']).next().unwrap_or_default();
        let is_first = |other: &str| other.split(['=', ' ']).next() == Some(key);
        // The nearest before it is in the same table.
        let first = lines().filter(|(_, other)| is_first(other)).last();
        let place =
            first.map_or_else(String::new, |(at, _)| format!(": the first is on line {}", at + 1));
        return (format!("`{key}` is set twice"), format!("remove one of them{place}"));
    }
    if let Some((_, what, hint)) = MESSAGES.iter().find(|(prefix, ..)| message.starts_with(prefix))
    {
        return ((*what).to_owned(), (*hint).to_owned());
    }
    let Some((key, value)) = line.split_once(['=', ':']).filter(|(key, _)| is_key(key)) else {
        let hint = "write `key = \"value\"`, one on each line, below a `[section]`";
        return (message.to_owned(), hint.to_owned());
    };
    let key = key.trim();
    let value = value.split(" #").next().unwrap_or_default().trim();
    let is_quoted = value.starts_with(['"', '\'']);
    let value = value.trim_matches(['"', '\'', '“', '”', '‘', '’', '„']);
    // A log has the hint, but not the line: the value may be a secret.
    let value = if value.is_empty() || is_public(value) { value } else { "value" };
    let is_colon = line.get(key.len()..).is_some_and(|rest| rest.trim_start().starts_with(':'));
    let flag = value.to_ascii_lowercase();
    let number = value.trim_start_matches('0');
    if is_colon && value.is_empty() {
        ("`:` is not `=`".to_owned(), format!("write `[{key}]` for a section"))
    } else if is_colon {
        ("`:` is not `=`".to_owned(), format!("write `{key} = \"{value}\"`"))
    } else if value.is_empty() {
        (format!("`{key}` has no value"), format!("write `{key} = \"value\"`, or remove the line"))
    } else if is_quoted {
        let hint = "write one value on each line, without a comma at its end";
        ("something follows the value".to_owned(), hint.to_owned())
    } else if matches!(flag.as_str(), "true" | "false") {
        (format!("`{value}` is not in lower case"), format!("write `{key} = {flag}`"))
    } else if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        (format!("`{value}` is not a number"), format!("write `{key} = {number}`"))
    } else {
        ("the text is not in quotes".to_owned(), format!("write `{key} = \"{value}\"`"))
    }
}

/// Whether it is an address, the URL of a server, a short word or a short number.
fn is_public(value: &str) -> bool {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || ".:/-[]".contains(it);
    let origin = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
    value.parse::<SocketAddr>().is_ok()
        || origin.is_some_and(|it| it.len() < 60 && it.chars().all(is_plain))
        || value.len() <= 8 && value.chars().all(|it| it.is_ascii_alphanumeric())
}

fn is_key(text: &str) -> bool {
    let is_allowed = |it: char| it.is_ascii_alphanumeric() || "_-. \t".contains(it);
    !text.trim().is_empty() && text.chars().all(is_allowed)
}

/// The text with a gap instead of the value in this line, or without the line if its key is a
/// duplicate. `None` if more than the line may be affected.
pub(super) fn without_line(text: &str, line: usize, problem: &Problem) -> Option<String> {
    let mut lines: Vec<&str> = text.split('\n').collect();
    let bad = lines.get_mut(line.checked_sub(1)?)?;
    let (key, value) = bad.split_once(['=', ':']).filter(|(key, _)| is_key(key))?;
    let value = value.trim();
    if value.is_empty()
        || value.contains(['[', '{'])
        || ["\"\"\"", "'''"].iter().any(|it| value.contains(it))
    {
        return None;
    }
    let repaired = if problem.what().ends_with("is set twice") {
        String::new()
    } else {
        format!("{key}= {GAP}")
    };
    *bad = &repaired;
    Some(lines.join("\n"))
}
