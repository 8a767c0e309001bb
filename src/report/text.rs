use super::{Check, Report, Status, summary};
use crate::explain::wrap;
use anstyle::{AnsiColor, Style};
use std::fmt::{self, Write as _};

/// How much of the reports is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Only the verdict, in one line.
    Verdict,
    /// What to fix or confirm, and one line for each category of the other checks.
    #[default]
    Findings,
    /// Every check, in the order of the categories.
    All,
}

/// The reports for people, and after several a summary. The text contains escape sequences for
/// colour: print it through `anstream`, which strips them where necessary. Lines are wrapped at
/// `columns`.
pub fn text(reports: &[Report], columns: Option<usize>, detail: Detail) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write(reports, columns.unwrap_or(usize::MAX), detail, &mut text);
    text
}

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// The indent of details and hints.
const INDENT: &str = "    ";

/// Longer summaries do not move the column of the ids to the right, so that a line fits 80 columns.
const MAX_ALIGNED_SUMMARY: usize = 52;

fn write(reports: &[Report], columns: usize, detail: Detail, out: &mut String) -> fmt::Result {
    if detail != Detail::Verdict {
        for report in reports {
            write_report(report, columns, detail, out)?;
            let mark = coloured(report.verdict().status());
            writeln!(out, "\n{}\n", wrap(&mark, &report.sentence(), columns))?;
        }
        if reports.len() == 1 {
            out.pop();
            return Ok(());
        }
    }
    let mark = coloured(super::Verdict::of(reports).status());
    writeln!(out, "{}", wrap(&mark, &summary(reports), columns))
}

fn write_report(report: &Report, columns: usize, detail: Detail, out: &mut String) -> fmt::Result {
    let environment = report.environment.iter().map(|name| format!("environment {name}: "));
    let environment: String = environment.collect();
    let is_target = report.callback == report.target;
    let target = if is_target { String::new() } else { format!(" → {}", report.target) };
    let title = format!("{environment}{}{target}", report.callback);
    writeln!(out, "{}", wrap("", &title, columns))?;
    if detail == Detail::All {
        write_all(report, columns, out)?;
    } else {
        for check in report.findings().into_iter().filter(|check| !check.is_integration()) {
            out.push('\n');
            write_check(check, 0, columns, out)?;
        }
        for (title, checks) in report.groups() {
            write_title(title, out)?;
            for check in checks {
                write_check(check, 0, columns, out)?;
            }
        }
    }
    if let Some(first) = report.findings().first() {
        let command = format!("{DIM}more: callback-edge explain {}{DIM:#}", first.explain_id());
        writeln!(out, "\n{command}")?;
    }
    if detail != Detail::All {
        write_categories(report, columns, out)?;
    }
    for (title, lines) in report.switch.iter().flat_map(super::SwitchPlan::sections) {
        write_title(title, out)?;
        for (number, line) in lines.iter().enumerate() {
            writeln!(out, "{}", wrap(&format!("{:>2}. ", number + 1), line, columns))?;
        }
    }
    Ok(())
}

fn write_all(report: &Report, columns: usize, out: &mut String) -> fmt::Result {
    let widest = |width: fn(&Check) -> usize, limit| {
        report.checks.iter().map(width).filter(|width| *width <= limit).max().unwrap_or_default()
    };
    let summaries = widest(|check| check.summary.chars().count(), MAX_ALIGNED_SUMMARY);
    let ids = widest(|check| check.id.len(), usize::MAX);
    let fits = summaries + ids + "√   ".chars().count() <= columns;
    for category in report.checks.chunk_by(|one, next| one.category() == next.category()) {
        write_title(category.first().map_or("", Check::category), out)?;
        for check in category {
            write_check(check, if fits { summaries } else { 0 }, columns, out)?;
        }
    }
    Ok(())
}

fn write_title(title: &str, out: &mut String) -> fmt::Result {
    writeln!(out, "\n{BOLD}{title}{BOLD:#}\n{}", "─".repeat(title.chars().count()))
}

/// A check with its detail and its hint. The id is right of this many columns of summary.
fn write_check(check: &Check, width: usize, columns: usize, out: &mut String) -> fmt::Result {
    let is_skipped = check.is_skipped();
    let summary = check.detail.as_ref().filter(|_| is_skipped).unwrap_or(&check.summary);
    let line = format!("{summary:width$}  {DIM}{}{DIM:#}", check.id);
    writeln!(out, "{}", wrap(&coloured(check.status), &line, columns))?;
    for line in check.detail.iter().filter(|_| !is_skipped).flat_map(|detail| detail.lines()) {
        writeln!(out, "{}", wrap(INDENT, line, columns))?;
    }
    if let Some(hint) = &check.hint {
        writeln!(out, "{}", wrap(&format!("{INDENT}hint: "), hint, columns))?;
    }
    Ok(())
}

/// A line for each category with checks that passed or were not run.
fn write_categories(report: &Report, columns: usize, out: &mut String) -> fmt::Result {
    let lines = report.categories();
    let width = lines.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or_default();
    for (number, (name, passed, line)) in lines.into_iter().enumerate() {
        let status = if passed { Status::Pass } else { Status::Skip };
        let gap = if number == 0 { "\n" } else { "" };
        let first = format!("{}{name:width$}  ", coloured(status));
        writeln!(out, "{gap}{}", wrap(&first, &line, columns))?;
    }
    Ok(())
}

/// The mark of a status in its colour, with a space.
fn coloured(status: Status) -> String {
    let colour = match status {
        Status::Pass => AnsiColor::Green.on_default(),
        Status::Warn | Status::Unknown => AnsiColor::Yellow.on_default(),
        Status::Fail => AnsiColor::Red.on_default(),
        Status::Skip => DIM,
    };
    format!("{colour}{}{colour:#} ", status.mark())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Extent;
    use std::time::Duration;

    fn report(checks: Vec<Check>) -> Report {
        Report {
            broken: None,
            environment: None,
            callback: "https://a.example/cb".into(),
            target: "https://b.example/cb".into(),
            started_at: jiff::Timestamp::UNIX_EPOCH,
            duration: Duration::ZERO,
            checks,
            extent: Extent::Complete,
            switch: None,
        }
    }

    fn shown(reports: &[Report], columns: Option<usize>, detail: Detail) -> String {
        anstream::adapter::strip_str(&text(reports, columns, detail)).to_string()
    }

    #[test]
    fn lines_keep_their_indent_and_never_break_a_word_or_code() {
        let check = Check::new("redirect.cache", "")
            .fail("no")
            .detail("the answer carries no field\nhttps://auth.example.com/oauth/callback is long")
            .hint("send `Cache-Control: no-store` and an unpaired ` too");
        let indented = |columns| {
            let text = shown(&[report(vec![check.clone()])], columns, Detail::Findings);
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
                "      `Cache-Control: no-store`",
                "      and an",
                "      unpaired ` too",
            ]
        );
        assert_eq!(indented(None).len(), 3);
        assert_eq!(indented(Some(1000)), indented(None));
        assert!(indented(Some(0)).concat().contains("`Cache-Control: no-store`"));
        for columns in 0..120 {
            let text = shown(&[report(vec![check.clone()])], Some(columns), Detail::All);
            assert!(text.lines().all(|line| !line.ends_with(' ')), "{text}");
        }
    }

    /// So that 25 integrations are read in the order of the work.
    #[test]
    fn integrations_are_grouped_by_what_to_do() {
        let check = |key: &str| Check::new(format!("integration.{key}"), format!("{key} has it"));
        let report = report(vec![
            check("passes").detail("evidence"),
            check("asks").unknown("asks").hint("confirm it"),
            check("skips").skip("API_KEY has no callback"),
            check("follows").unknown("follows").not_blocking(),
            check("fails").fail("fails").hint("add it"),
            check("warns").warn("warns"),
            Check::new("url.https", "").warn("a warning"),
        ]);
        let text = shown(&[report], None, Detail::Findings);
        let expected = "
! a warning  url.https

register at the provider
────────────────────────
× fails  integration.fails
    hint: add it

confirm by hand
───────────────
? asks  integration.asks
    hint: confirm it

review
──────
! warns  integration.warns

nothing to do
─────────────
√ passes has it  integration.passes
    evidence
– API_KEY has no callback  integration.skips
? follows  integration.follows
";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn failures_come_first_and_the_verdict_is_last() {
        let plain = "not run: the callback is plain http";
        let reports = [report(vec![
            Check::new("url.https", "").warn("a warning"),
            Check::new("url.port", "a pass"),
            Check::new("tls.chain", "").skip(plain),
            Check::new("tls.name", "").skip(plain),
            Check::new("redirect.query", "").unknown("an unknown"),
            Check::new("redirect.cache", "").fail("a failure"),
            Check::new("redirect.size", "").blocked("redirect.cache"),
        ])];
        assert_eq!(
            shown(&reports, Some(80), Detail::Findings),
            "https://a.example/cb → https://b.example/cb\n\
             \n× a failure  redirect.cache\n\
             \n? an unknown  redirect.query\n\
             \n! a warning  url.https\n\
             \nmore: callback-edge explain redirect.cache\n\
             \n√ url       1 passed\n\
             – tls       2 not run: the callback is plain http\n\
             – redirect  1 not run: redirect.cache failed\n\
             \n× the callback is not ready: 1 of 4 checks failed, 1 unconfirmed, 1 warning, 3 not run\n"
                .replace("3 not run", "3\n  not run")
        );
        let quiet = shown(&reports, None, Detail::Verdict);
        assert_eq!(quiet, format!("× {}\n", summary(&reports)));
        let several = shown(&[reports.clone(), reports].concat(), None, Detail::Findings);
        assert!(several.ends_with("\n\n× 2 callbacks: 2 failed\n"), "{several}");
    }
}
