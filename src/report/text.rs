use super::{Check, Report, Status};
use anstyle::{AnsiColor, Style};
use std::fmt::{self, Write as _};

/// The report for people. It holds escape sequences for colour: print it through `anstream`, which
/// strips them where they are not wanted.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write(report, &mut text);
    text
}

/// Summaries longer than this do not push the ids of the others to the right.
const WIDEST: usize = 56;

fn write(report: &Report, out: &mut String) -> fmt::Result {
    writeln!(out, "{} → {}", report.callback, report.target)?;
    let width = report
        .checks
        .iter()
        .map(|check| check.summary.chars().count())
        .filter(|width| *width <= WIDEST)
        .max()
        .unwrap_or_default();
    let id_width = report.checks.iter().map(|check| check.id.len()).max().unwrap_or_default();
    let mut category = "";
    for run in report.checks.chunk_by(|one, next| one.blocked_by == next.blocked_by) {
        if let [check, .., _] = run
            && run.len() >= FOLDED
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
        write_run(run, &mut category, width, id_width, out)?;
    }
    writeln!(out, "\n{}", verdict(report))
}

/// So many checks in a row that one failure barred are told in one line.
const FOLDED: usize = 3;

fn write_run<'r>(
    run: &'r [Check],
    category: &mut &'r str,
    width: usize,
    id_width: usize,
    out: &mut String,
) -> fmt::Result {
    for check in run {
        if check.category() != *category {
            *category = check.category();
            let bold = Style::new().bold();
            writeln!(out, "\n{bold}{category}{bold:#}\n{}", "─".repeat(category.len()))?;
        }
        write_check(check, width, id_width, out)?;
    }
    Ok(())
}

fn write_check(check: &Check, width: usize, id_width: usize, out: &mut String) -> fmt::Result {
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
        writeln!(out, "    {line}")?;
    }
    if let Some(hint) = &check.hint {
        writeln!(out, "    hint: {hint} — {}", check.docs())?;
    }
    Ok(())
}

fn verdict(report: &Report) -> String {
    if let Some(broken) = &report.broken {
        return format!("could not run: {broken}");
    }
    let counts = [
        (Status::Fail, "failed"),
        (Status::Unknown, "unconfirmed"),
        (Status::Warn, "to mend"),
        (Status::Pass, "passed"),
        (Status::Skip, "not run"),
    ];
    let counts: Vec<_> = counts
        .into_iter()
        .map(|(status, word)| (report.count(status), word))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    if counts.is_empty() { "nothing was checked".to_owned() } else { counts.join(", ") }
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
