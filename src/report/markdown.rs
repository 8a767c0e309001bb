use super::{Check, Report, SwitchPlan};
use std::fmt::{self, Write as _};

/// The report as Markdown for a ticket: first what to fix, then each integration, then how to
/// switch.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write(report, &mut text);
    text
}

fn write(report: &Report, out: &mut String) -> fmt::Result {
    writeln!(out, "## {}\n", escaped(&report.sentence()))?;
    writeln!(
        out,
        "Callback {}, target {}; {:.0}.",
        code(&report.callback),
        code(&report.target),
        report.started_at
    )?;
    let is_integration = |check: &&Check| check.category() == "integration";
    let integrations: Vec<_> = report.checks.iter().filter(is_integration).collect();
    let to_fix: Vec<_> =
        report.findings().into_iter().filter(|check| !is_integration(check)).collect();
    if !to_fix.is_empty() {
        writeln!(out, "\n### To fix or confirm\n")?;
        to_fix.into_iter().try_for_each(|check| write_item(check, out))?;
    }
    if !integrations.is_empty() {
        writeln!(
            out,
            "\n### Integrations\n\n| | Integration | Found | What to do |\n|---|---|---|---|"
        )?;
        integrations.into_iter().try_for_each(|check| write_row(check, out))?;
    }
    let others = report.categories().into_iter().filter(|(name, ..)| *name != "integration");
    for (number, (name, _, line)) in others.enumerate() {
        let title = if number == 0 { "\n### Other checks\n\n" } else { "" };
        writeln!(out, "{title}- {}: {}", code(name), escaped(&line))?;
    }
    for (title, lines) in report.switch.iter().flat_map(SwitchPlan::sections) {
        writeln!(out, "\n### {}\n", capital(title))?;
        for (number, line) in lines.iter().enumerate() {
            writeln!(out, "{}. {}", number + 1, escaped(line))?;
        }
    }
    Ok(())
}

fn write_item(check: &Check, out: &mut String) -> fmt::Result {
    let (mark, id) = (check.status.mark(), code(&check.id));
    writeln!(out, "- {mark} **{id}** {}", escaped(&check.summary))?;
    for more in [&check.detail, &check.hint].into_iter().flatten() {
        writeln!(out, "  {}", escaped(more))?;
    }
    Ok(())
}

fn write_row(check: &Check, out: &mut String) -> fmt::Result {
    let key = check.id.split_once('.').map_or("", |(_, key)| key);
    let found = match &check.detail {
        Some(detail) => format!("{}. {detail}", check.summary),
        None => check.summary.clone(),
    };
    let (mark, key) = (check.status.mark(), code(key));
    let hint = check.hint.as_deref().unwrap_or_default();
    writeln!(out, "| {mark} | {key} | {} | {} |", escaped(&found), escaped(hint))
}

/// The text, escaped for Markdown, HTML and ticket systems: no markup, no link, no user mention.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => safe.push(' '),
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '@' => safe.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '>' | '!' => {
                safe.extend(['\\', character]);
            }
            other => safe.push(other),
        }
    }
    safe
}

/// The text as a code span. Text that would end the span or a table cell is escaped instead.
fn code(text: &str) -> String {
    if text.is_empty() || text.contains(['`', '|', '\n']) {
        escaped(text)
    } else {
        format!("`{text}`")
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Extent;
    use jiff::Timestamp;
    use std::time::Duration;

    #[test]
    fn keys_and_replies_are_escaped() {
        let evil = "a|b`<img src=x>[x](y) @everyone\n# h";
        let report = Report {
            broken: None,
            callback: "https://a.example/cb".into(),
            target: "https://b.example/cb".into(),
            started_at: Timestamp::UNIX_EPOCH,
            duration: Duration::ZERO,
            checks: vec![
                Check::new(format!("integration.{evil}"), "").fail(evil).hint(evil),
                Check::new("redirect.cache", "").warn("may be stored"),
            ],
            extent: Extent::Complete,
            switch: Some(SwitchPlan { steps: vec![evil.into()], ..SwitchPlan::default() }),
        };
        let text = markdown(&report);
        assert!(
            text.starts_with("## fix these before switching: 1 of 2 checks failed, 1 warning\n"),
            "{text}"
        );
        assert!(!text.contains("<img") && !text.contains("@everyone"), "{text}");
        let row = text.lines().find(|line| line.starts_with("| ×")).unwrap();
        assert_eq!(row.replace("\\|", "").matches('|').count(), 5, "{row}");
    }
}
