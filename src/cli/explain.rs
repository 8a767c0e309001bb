//! `callback-edge explain [ID]`: the reference section of an id, without network access.

use super::{Exit, exit_after_print, usage};
use crate::config::Problem;
use crate::explain::{self, Explanation};
use anstyle::{AnsiColor, Style};
use std::io::{self, Write as _};
use terminal_size::terminal_size_of;

/// Describe a check, a provider state, an ACME failure reason, an alert or a log event
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 printed, 64 unknown id

Example:
  callback-edge explain redirect.query
  callback-edge explain CallbackEdgeSelfCheckFailed")]
pub(super) struct Args {
    /// An id from a report, log or alert: a check id, or a name with the prefix `state.`, `acme.`,
    /// `alert.` or `event.`, which may be omitted if the name is unique [default: list all ids]
    id: Option<String>,
}

/// The maximum line length, on any terminal.
const WIDEST: usize = 100;

/// Exit: 0 printed, 64 unknown id.
pub(super) fn run(args: &Args) -> Exit {
    let columns = columns();
    let text = match args.id.as_deref() {
        None => list(columns),
        Some(id) => match explain::find(id) {
            Some(explanation) => section(explanation, columns),
            None => return usage(&unknown(id)),
        },
    };
    let mut stdout = anstream::stdout().lock();
    exit_after_print(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()), Exit::Done)
}

/// The columns of a text on the standard output.
pub(super) fn columns() -> usize {
    let columns = terminal_size_of(io::stdout()).map_or(WIDEST, |(width, _)| width.0.into());
    columns.min(WIDEST)
}

fn section(explanation: &Explanation, columns: usize) -> String {
    let dim = Style::new().dimmed();
    format!("{}\n{dim}{}{dim:#}\n", explanation.terminal(columns), explanation.link())
}

/// Every id with its title, in groups.
fn list(columns: usize) -> String {
    let (bold, colour) = (Style::new().bold(), AnsiColor::Cyan.on_default());
    let mut lines = Vec::new();
    for group in explain::all().chunk_by(|one, next| one.group == next.group) {
        let width = group.iter().map(|explanation| explanation.id.len()).max().unwrap_or_default();
        let heading = group.first().map_or("", |explanation| explanation.group);
        lines.push(format!("{bold}{heading}{bold:#}"));
        for Explanation { id, title, .. } in group {
            let first = format!("  {colour}{id}{colour:#}{:1$}  ", "", width - id.len());
            let title = title.replace('\n', " ").replace('`', "");
            lines.push(explain::wrap(&first, title.trim_end_matches('.'), columns));
        }
        lines.push(String::new());
    }
    lines.join("\n")
}

fn unknown(id: &str) -> Problem {
    let suggested: Vec<_> = similar(id, explain::all().iter().map(|explanation| explanation.id))
        .iter()
        .map(|id| format!("`{id}`"))
        .collect();
    Problem::error(format!("unknown id `{id}`")).hint(match suggested.as_slice() {
        [] => "`callback-edge explain` lists all ids".to_owned(),
        suggested => format!("did you mean {}?", suggested.join(" or ")),
    })
}

/// The ids that are most similar, with or without their prefix; at most three.
pub(super) fn similar<'i>(given: &str, ids: impl Iterator<Item = &'i str>) -> Vec<&'i str> {
    const SIMILAR: f64 = 0.85;
    let given = given.to_lowercase();
    let similarity = |id: &str| {
        let id = id.to_lowercase();
        let name = id.split_once('.').map_or(&*id, |(_, name)| name);
        let names = [&id, name, name.strip_prefix("callbackedge").unwrap_or(name)];
        names.map(|name| strsim::jaro_winkler(name, &given)).into_iter().fold(0.0, f64::max)
    };
    let scored = ids.map(|id| (similarity(id), id));
    let mut scored: Vec<_> = scored.filter(|(score, _)| *score >= SIMILAR).collect();
    scored.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let best = scored.first().map_or(0.0, |(score, _)| *score);
    scored.into_iter().filter(|(score, _)| best - score < 0.05).map(|(_, id)| id).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_and_shortened_ids_are_suggested() {
        let similar =
            |given| similar(given, explain::all().iter().map(|explanation| explanation.id));
        assert_eq!(similar("redirect.qurey"), ["redirect.query"]);
        assert!(similar("not_registered").contains(&"state.not_registered"));
        assert!(similar("acme_failed").contains(&"event.acme_failed"));
        assert!(
            similar("callbackedgeselfcheckfail").contains(&"alert.CallbackEdgeSelfCheckFailed")
        );
        assert_eq!(similar("zzzz"), [""; 0]);
    }
}
