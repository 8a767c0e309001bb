use super::{Check, Report, Status};
use anstyle::{AnsiColor, Style};
use std::fmt::{self, Write as _};

/// The report for people. It contains escape sequences for colour: print it through `anstream`,
/// which strips them where necessary. Details and hints are wrapped at `columns`.
pub fn text(report: &Report, columns: Option<usize>) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write(report, columns, &mut text);
    text
}

/// Longer summaries do not move the column of the ids to the right.
const MAX_ALIGNED_SUMMARY: usize = 56;

fn write(report: &Report, columns: Option<usize>, out: &mut String) -> fmt::Result {
    writeln!(out, "{} → {}", report.callback, report.target)?;
    let wrap = columns.map_or(usize::MAX, |columns| columns.saturating_sub(INDENT.len()));
    let width = report
        .checks
        .iter()
        .map(|check| check.summary.chars().count())
        .filter(|width| *width <= MAX_ALIGNED_SUMMARY)
        .max()
        .unwrap_or_default();
    let id_width = report.checks.iter().map(|check| check.id.len()).max().unwrap_or_default();
    let mut category = "";
    for run in report.checks.chunk_by(|one, next| one.blocked_by == next.blocked_by) {
        if let [check, .., _] = run
            && run.len() >= MIN_COLLAPSED
            && let Some(blocker) = check.blocked_by
        {
            let dim = Style::new().dimmed();
            writeln!(
                out,
                "\n{dim}– {} further checks not run: {blocker} failed{dim:#}",
                run.len()
            )?;
            continue;
        }
        write_run(run, &mut category, Widths { summary: width, id: id_width, wrap }, out)?;
    }
    if let Some(switch) = &report.switch {
        for (title, lines) in switch.sections() {
            write_title(title, out)?;
            for (number, line) in lines.iter().enumerate() {
                let mark = format!("{:>2}. ", number + 1);
                write_lines(&mark, line, wrap, out)?;
            }
        }
    }
    writeln!(out, "\n{}", report.sentence())
}

/// The indent of details and hints.
const INDENT: &str = "    ";

#[derive(Clone, Copy)]
struct Widths {
    summary: usize,
    id: usize,
    /// The width of details and hints, without the indent.
    wrap: usize,
}

/// At least this many consecutive checks blocked by one failure are reported in one line.
const MIN_COLLAPSED: usize = 3;

fn write_run<'r>(
    run: &'r [Check],
    category: &mut &'r str,
    widths: Widths,
    out: &mut String,
) -> fmt::Result {
    for check in run {
        if check.category() != *category {
            *category = check.category();
            write_title(category, out)?;
        }
        write_check(check, widths, out)?;
    }
    Ok(())
}

fn write_title(title: &str, out: &mut String) -> fmt::Result {
    let bold = Style::new().bold();
    writeln!(out, "\n{bold}{title}{bold:#}\n{}", "─".repeat(title.chars().count()))
}

fn write_check(check: &Check, widths: Widths, out: &mut String) -> fmt::Result {
    let Widths { summary: width, id: id_width, wrap } = widths;
    let colour = colour(check.status);
    let dim = Style::new().dimmed();
    let (mark, summary, id) = (check.status.mark(), &check.summary, &check.id);
    let why = if check.is_skipped() { check.detail.as_deref() } else { None };
    write!(out, "{colour}{mark}{colour:#} {summary:width$}  {dim}{id}{dim:#}")?;
    match why {
        Some(why) => return writeln!(out, "{:1$}  {why}", "", id_width.saturating_sub(id.len())),
        None => writeln!(out)?,
    }
    for line in check.detail.iter().flat_map(|detail| detail.lines()) {
        write_lines(INDENT, line, wrap, out)?;
    }
    if let Some(hint) = check.hint_line() {
        write_lines(INDENT, &hint, wrap, out)?;
    }
    Ok(())
}

/// Wraps a line at spaces. A word that is too long is not split, so that a double click selects it.
fn write_lines(indent: &str, line: &str, wrap: usize, out: &mut String) -> fmt::Result {
    out.write_str(indent)?;
    let mut used = 0;
    for word in line.split(' ') {
        let width = word.chars().count();
        if used == 0 {
            used = width;
        } else if used + 1 + width > wrap {
            write!(out, "\n{:1$}", "", indent.chars().count())?;
            used = width;
        } else {
            out.write_char(' ')?;
            used += 1 + width;
        }
        out.write_str(word)?;
    }
    writeln!(out)
}

fn colour(status: Status) -> Style {
    let colour = match status {
        Status::Pass => AnsiColor::Green,
        Status::Warn | Status::Unknown => AnsiColor::Yellow,
        Status::Fail => AnsiColor::Red,
        Status::Skip => return Style::new().dimmed(),
    };
    colour.on_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn details_and_hints_keep_their_indent_and_the_width() {
        let check = Check::new("redirect.cache", "answers are not stored")
            .fail("no")
            .detail("the answer carries no field\nhttps://auth.example.com/oauth/callback is long")
            .hint("send `no-store`");
        let report = Report {
            broken: None,
            callback: "https://a.example/cb".into(),
            target: "https://b.example/cb".into(),
            started_at: jiff::Timestamp::UNIX_EPOCH,
            duration: Duration::ZERO,
            checks: vec![check],
            switch: None,
        };
        let indented = |columns| {
            let text = anstream::adapter::strip_str(&text(&report, columns)).to_string();
            let lines = text.lines().filter_map(|line| line.strip_prefix(INDENT));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            indented(Some(24)),
            [
                "the answer carries",
                "no field",
                "https://auth.example.com/oauth/callback",
                "is long",
                "hint: send",
                "`no-store`",
                "(callback-edge",
                "explain",
                "redirect.cache)",
            ]
        );
        assert_eq!(indented(None).len(), 3);
        assert_eq!(indented(Some(1000)), indented(None));
        assert!(indented(Some(0)).concat().contains("`no-store`"));
    }
}
