//! Reports with checks and a verdict, rendered as text, JSON, HTML, JUnit and Markdown.
//!
//! A [`Check`] has a stable id, with a section in [`crate::explain`]. The code that creates a check
//! puts no query value, code, state or token into its texts; [`printable`] removes what could
//! control a terminal.

mod html;
mod json;
mod junit;
mod markdown;
mod switch;
mod text;

pub use html::{html, html_policy};
pub use json::{json, json_list};
pub use junit::junit;
pub use markdown::markdown;
pub use switch::SwitchPlan;
pub use text::{Detail, text};

use crate::explain::{self, Explanation};
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::time::Duration;

/// The results for one callback.
#[derive(Clone, Debug)]
pub struct Report {
    /// Why the check could not run, if so.
    pub broken: Option<String>,
    /// The name of the Nango environment, if it has one in the project file.
    pub environment: Option<String>,
    /// The callback, without query values.
    pub callback: String,
    /// Where the callback should redirect to, without query values.
    pub target: String,
    /// When the check started.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// The checks, in the order of the text report.
    pub checks: Vec<Check>,
    /// Which part of the checks ran.
    pub extent: Extent,
    /// How to switch to this callback; only a preflight has it.
    pub switch: Option<SwitchPlan>,
}

impl Report {
    /// The overall result.
    pub fn verdict(&self) -> Verdict {
        if self.broken.is_some() {
            Verdict::Error
        } else if self.count(Status::Fail) > 0 {
            Verdict::Fail
        } else if self.checks.iter().any(Check::is_unconfirmed)
            || self.extent == Extent::Interrupted
            || self.checks.iter().all(Check::is_skipped)
        {
            Verdict::Unconfirmed
        } else {
            Verdict::Pass
        }
    }

    /// The verdict as the label of a metric and in logs: `pass`, `warn`, `fail` or `unknown`.
    pub fn verdict_label(&self) -> &'static str {
        match self.verdict() {
            Verdict::Pass if self.count(Status::Warn) > 0 => "warn",
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Unconfirmed | Verdict::Error => "unknown",
        }
    }

    /// The verdict in one line: what it means, and the counts.
    pub fn sentence(&self) -> String {
        if let Some(broken) = &self.broken {
            return format!("could not run: {broken}");
        }
        let meaning = match (&self.switch, self.extent, self.verdict()) {
            (Some(switch), _, verdict) => switch.verdict_text(verdict),
            (None, Extent::Interrupted, _) => "interrupted",
            (None, Extent::Selected, Verdict::Pass) => "the selected checks pass",
            (None, Extent::Complete, Verdict::Pass) => "the callback works",
            (None, _, Verdict::Fail) => "the callback is not ready",
            (None, _, _) => "the callback is not confirmed",
        };
        format!("{meaning}: {}", self.counts())
    }

    /// For example "1 of 40 checks failed, 2 warnings, 7 not run".
    fn counts(&self) -> String {
        let ran = self.checks.len() - self.count(Status::Skip);
        let checks = if ran == 1 { "check" } else { "checks" };
        let warning = if self.count(Status::Warn) == 1 { "warning" } else { "warnings" };
        let failed = self.count(Status::Fail);
        let unknown = self.checks.iter().filter(|check| check.is_unconfirmed()).count();
        let passed = if failed + unknown > 0 { 0 } else { self.count(Status::Pass) };
        let mut counts: Vec<String> = [
            (failed, "failed"),
            (unknown, "unconfirmed"),
            // Not interesting when something failed.
            (passed, "passed"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .enumerate()
        .map(|(number, (count, word))| match number {
            0 => format!("{count} of {ran} {checks} {word}"),
            _ => format!("{count} {word}"),
        })
        .collect();
        let others = [(self.count(Status::Warn), warning), (self.count(Status::Skip), "not run")];
        let others = others.into_iter().filter(|(count, _)| *count > 0);
        counts.extend(others.map(|(count, word)| format!("{count} {word}")));
        if counts.is_empty() { "no check ran".to_owned() } else { counts.join(", ") }
    }

    /// What to fix or confirm: failures, then unconfirmed checks, then warnings.
    pub fn findings(&self) -> Vec<&Check> {
        let with = |status| self.checks.iter().filter(move |check| check.status == status);
        [Status::Fail, Status::Unknown, Status::Warn].into_iter().flat_map(with).collect()
    }

    /// The integrations of a preflight, by what to do about them.
    fn groups(&self) -> Vec<(&'static str, Vec<&Check>)> {
        let group = |check: &Check| match check.status {
            Status::Fail => "register at the provider",
            Status::Unknown if check.blocks => "confirm by hand",
            Status::Warn => "review",
            _ => "nothing to do",
        };
        let integrations = || self.checks.iter().filter(|check| check.is_integration());
        ["register at the provider", "confirm by hand", "review", "nothing to do"]
            .into_iter()
            .map(|title| {
                (title, integrations().filter(|it| group(it) == title).collect::<Vec<_>>())
            })
            .filter(|(_, checks)| !checks.is_empty())
            .collect()
    }

    /// Each category with checks that passed or were not run: its name, whether a check passed, and
    /// the counts.
    fn categories(&self) -> Vec<(&str, bool, String)> {
        let mut names: Vec<&str> = Vec::new();
        for check in self.checks.iter().filter(|check| !check.is_integration()) {
            if !names.contains(&check.category()) {
                names.push(check.category());
            }
        }
        let line = |name| {
            let own = || self.checks.iter().filter(move |check| check.category() == name);
            let passed = own().filter(|check| check.status == Status::Pass).count();
            let mut parts = Vec::new();
            if passed > 0 {
                parts.push(format!("{passed} passed"));
            }
            let mut reasons: Vec<(&str, usize)> = Vec::new();
            for check in own().filter(|check| check.is_skipped()) {
                let reason = check.detail.as_deref().unwrap_or("not run");
                match reasons.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, count)) => *count += 1,
                    None => reasons.push((reason, 1)),
                }
            }
            parts.extend(reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")));
            (name, passed > 0, parts.join("; "))
        };
        names.into_iter().map(line).filter(|(.., line)| !line.is_empty()).collect()
    }

    /// How many checks have this status.
    pub fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|check| check.status == status).count()
    }
}

/// The verdict of one report, or how many callbacks have which verdict.
pub fn summary(reports: &[Report]) -> String {
    if let [report] = reports {
        return report.sentence();
    }
    let counts: Vec<_> = [
        (Verdict::Fail, "failed"),
        (Verdict::Error, "could not run"),
        (Verdict::Unconfirmed, "unconfirmed"),
        (Verdict::Pass, "passed"),
    ]
    .into_iter()
    .map(|(verdict, word)| {
        (reports.iter().filter(|report| report.verdict() == verdict).count(), word)
    })
    .filter(|(count, _)| *count > 0)
    .map(|(count, word)| format!("{count} {word}"))
    .collect();
    let is_environment = reports.iter().all(|report| report.environment.is_some());
    let what = if is_environment { "environments" } else { "callbacks" };
    format!("{} {what}: {}", reports.len(), counts.join(", "))
}

/// Which part of the checks ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Extent {
    /// All that apply.
    #[default]
    Complete,
    /// Those that were selected.
    Selected,
    /// Those that ended before an interrupt.
    Interrupted,
}

/// The overall result of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing failed, and nothing is unconfirmed.
    Pass,
    /// A check failed.
    Fail,
    /// Nothing failed, but something could not be determined.
    Unconfirmed,
    /// It could not run.
    Error,
}

impl Verdict {
    /// The worst verdict of several reports: a failure, then an error, then unconfirmed.
    pub fn of(reports: &[Report]) -> Self {
        let verdicts: Vec<_> = reports.iter().map(Report::verdict).collect();
        [Self::Fail, Self::Error, Self::Unconfirmed]
            .into_iter()
            .find(|worst| verdicts.contains(worst))
            .unwrap_or(Self::Pass)
    }

    /// The status of a check with the same meaning.
    const fn status(self) -> Status {
        match self {
            Self::Pass => Status::Pass,
            Self::Fail | Self::Error => Status::Fail,
            Self::Unconfirmed => Status::Unknown,
        }
    }

    /// The value in JSON and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unconfirmed => "unconfirmed",
            Self::Error => "error",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The outcome of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It works.
    Pass,
    /// It works, but should be fixed.
    Warn,
    /// It does not work.
    Fail,
    /// It could not be determined.
    Unknown,
    /// Not run; the detail contains the reason.
    Skip,
}

impl Status {
    /// The mark before the summary.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Pass => "√",
            Self::Warn => "!",
            Self::Fail => "×",
            Self::Unknown => "?",
            Self::Skip => "–",
        }
    }

    /// Whether a person has to fix or confirm something.
    pub const fn needs_attention(self) -> bool {
        matches!(self, Self::Fail | Self::Unknown | Self::Warn)
    }
}

/// One check and its result.
#[derive(Clone, Debug)]
pub struct Check {
    /// `category.name`; stable.
    pub id: Cow<'static, str>,
    /// The result.
    pub status: Status,
    /// What was checked, for example the URL and the address.
    pub subject: String,
    /// The result in one line; the title of the check when it was not run.
    pub summary: String,
    /// More lines about the result.
    pub detail: Option<String>,
    /// How to fix it.
    pub hint: Option<String>,
    /// How long it took.
    pub duration: Duration,
    /// The check that blocked this one.
    pub blocked_by: Option<&'static str>,
    /// A machine-readable state that is more precise than the status.
    pub state: Option<&'static str>,
    /// Whether the verdict depends on it. An unknown result that cannot cause harm does not block.
    pub blocks: bool,
}

impl Check {
    /// A check that passes unless changed. The title is the summary of a pass.
    pub fn new(id: impl Into<Cow<'static, str>>, title: impl AsRef<str>) -> Self {
        Self {
            id: id.into(),
            status: Status::Pass,
            subject: String::new(),
            summary: printable(title.as_ref()),
            detail: None,
            hint: None,
            duration: Duration::ZERO,
            blocked_by: None,
            state: None,
            blocks: true,
        }
    }

    /// Passes, with a more precise summary.
    #[must_use]
    pub fn pass(self, summary: impl AsRef<str>) -> Self {
        self.with(Status::Pass, summary.as_ref())
    }

    /// Works, but should be fixed.
    #[must_use]
    pub fn warn(self, summary: impl AsRef<str>) -> Self {
        self.with(Status::Warn, summary.as_ref())
    }

    /// Does not work.
    #[must_use]
    pub fn fail(self, summary: impl AsRef<str>) -> Self {
        self.with(Status::Fail, summary.as_ref())
    }

    /// Could not be determined.
    #[must_use]
    pub fn unknown(self, summary: impl AsRef<str>) -> Self {
        self.with(Status::Unknown, summary.as_ref())
    }

    /// Not run: it does not apply, or is not selected.
    #[must_use]
    pub fn skip(mut self, why: impl AsRef<str>) -> Self {
        self.status = Status::Skip;
        self.detail(why)
    }

    /// Not run because another check did not pass.
    #[must_use]
    pub fn blocked(mut self, by: &'static str) -> Self {
        self.blocked_by = Some(by);
        self.skip(format!("not run: {by} failed"))
    }

    /// Sets the detail.
    #[must_use]
    pub fn detail(mut self, detail: impl AsRef<str>) -> Self {
        self.detail = Some(printable(detail.as_ref()));
        self
    }

    /// Sets the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = Some(printable(hint.as_ref()));
        self
    }

    /// Sets the subject.
    #[must_use]
    pub fn subject(mut self, subject: impl AsRef<str>) -> Self {
        self.subject = printable(subject.as_ref());
        self
    }

    /// Sets the machine-readable state.
    #[must_use]
    pub fn state(mut self, state: &'static str) -> Self {
        self.state = Some(state);
        self
    }

    /// The verdict does not depend on it.
    #[must_use]
    pub fn not_blocking(mut self) -> Self {
        self.blocks = false;
        self
    }

    /// Whether it is unknown and the verdict depends on it.
    pub fn is_unconfirmed(&self) -> bool {
        self.status == Status::Unknown && self.blocks
    }

    /// Sets the duration.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// The id to pass to `callback-edge explain`: that of the provider state, if there is one.
    pub fn explain_id(&self) -> Cow<'_, str> {
        match self.state {
            Some(state) => format!("state.{state}").into(),
            None => Cow::Borrowed(&*self.id),
        }
    }

    /// The hint with the command that explains the check.
    fn hint_line(&self) -> Option<String> {
        let hint = self.hint.as_ref()?;
        Some(format!("hint: {hint} (callback-edge explain {})", self.explain_id()))
    }

    /// The section of the documents that explains the check.
    fn explanation(&self) -> Option<&'static Explanation> {
        explain::find(&self.explain_id())
    }

    /// The file and the anchor of that section.
    pub fn docs(&self) -> String {
        self.explanation().map_or("docs/checks.md".to_owned(), Explanation::link)
    }

    /// The part of the id before the first dot.
    pub fn category(&self) -> &str {
        self.id.split('.').next().unwrap_or_default()
    }

    /// Whether it is the result for an integration of a preflight.
    fn is_integration(&self) -> bool {
        self.category() == "integration"
    }

    /// Whether it was not run.
    pub fn is_skipped(&self) -> bool {
        self.status == Status::Skip
    }

    fn with(mut self, status: Status, summary: &str) -> Self {
        self.status = status;
        self.summary = printable(summary);
        self
    }
}

/// The text with invisible and control characters escaped, truncated to a maximum length.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        if at >= MAX_BYTES {
            safe.push('…');
            break;
        }
        match character {
            // Newlines separate the lines of a detail.
            '\n' | ' ' => safe.push(character),
            hidden if is_invisible(hidden) => safe.extend(hidden.escape_unicode()),
            shown => safe.push(shown),
        }
    }
    safe
}

/// Whether a character has no glyph, or changes the position of others: controls, whitespace,
/// Unicode's `Default_Ignorable_Code_Point` and general category `Cf` (format), and the blank
/// Braille pattern.
pub fn is_invisible(character: char) -> bool {
    character.is_control()
        || character.is_whitespace()
        || matches!(u32::from(character),
            0xAD | 0x34F | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x890 | 0x891 | 0x8E2 | 0x115F
            | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F | 0x202A..=0x202E
            | 0x2060..=0x206F | 0x2800 | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0
            | 0xFFF0..=0xFFFB | 0x110BD | 0x110CD | 0x13430..=0x1343F | 0x1BCA0..=0x1BCA3
            | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF)
}

/// More than this of one text is not shown.
const MAX_BYTES: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;
    use regex_syntax::hir::{Class, HirKind};
    use std::collections::BTreeSet;

    #[test]
    fn a_result_that_does_not_block_leaves_the_verdict_to_the_others() {
        let mut report = report(&[Status::Pass, Status::Unknown]);
        assert_eq!(report.verdict(), Verdict::Unconfirmed);
        let last = report.checks.pop().unwrap();
        report.checks.push(last.not_blocking());
        assert_eq!(report.verdict(), Verdict::Pass);
        assert!(report.sentence().ends_with("1 of 2 checks passed"), "{}", report.sentence());
        assert_eq!(
            json(std::slice::from_ref(&report)).unwrap().matches("\"blocks\": false").count(),
            1
        );
    }

    fn report(statuses: &[Status]) -> Report {
        let checks = statuses.iter().map(|status| Check {
            status: *status,
            ..Check::new("redirect.status", "answers 308")
        });
        Report {
            broken: None,
            environment: None,
            callback: "https://a.example/cb".into(),
            target: "https://b.example/cb".into(),
            started_at: Timestamp::UNIX_EPOCH,
            duration: Duration::from_millis(812),
            checks: checks.collect(),
            extent: Extent::Complete,
            switch: None,
        }
    }

    #[test]
    fn unknown_is_never_a_pass() {
        use Status::{Fail, Pass, Skip, Unknown, Warn};
        assert_eq!(report(&[Pass, Warn, Skip]).verdict(), Verdict::Pass);
        assert_eq!(report(&[Pass, Unknown]).verdict(), Verdict::Unconfirmed);
        assert_eq!(report(&[Fail, Unknown]).verdict(), Verdict::Fail);
        assert_eq!(report(&[Skip]).verdict(), Verdict::Unconfirmed);
        assert_eq!(report(&[]).verdict(), Verdict::Unconfirmed);
        let interrupted = |statuses| Report { extent: Extent::Interrupted, ..report(statuses) };
        assert_eq!(interrupted(&[Pass]).verdict(), Verdict::Unconfirmed);
        assert_eq!(interrupted(&[Pass, Fail]).verdict(), Verdict::Fail);
        let broken = Report { broken: Some("no network".into()), ..report(&[Pass]) };
        assert_eq!(broken.verdict(), Verdict::Error);
        let pass = || report(&[Pass]);
        assert_eq!(Verdict::of(&[pass(), broken.clone()]), Verdict::Error);
        assert_eq!(Verdict::of(&[report(&[Fail]), broken, pass()]), Verdict::Fail);
        assert_eq!(Verdict::of(&[pass(), pass()]), Verdict::Pass);
    }

    #[test]
    fn json_and_logs_use_the_same_verdict_names() {
        use Verdict::{Error, Fail, Pass, Unconfirmed};
        let words = [Pass, Fail, Unconfirmed, Error].map(Verdict::name);
        assert_eq!(words, ["pass", "fail", "unconfirmed", "error"]);
        let written = serde_json::to_string(&[Pass, Fail, Unconfirmed, Error]).unwrap();
        assert_eq!(written, serde_json::to_string(&words).unwrap());
    }

    #[test]
    fn a_section_explains_each_id() {
        assert_eq!(Check::new("redirect.query", "").docs(), "docs/checks.md#redirectquery");
        let integration = Check::new(format!("integration.{}", "my.key"), "");
        assert_eq!(integration.docs(), "docs/checks.md#integrationkey");
        assert_eq!(integration.category(), "integration");
        let undecidable = integration.state("undecidable");
        assert_eq!(undecidable.docs(), "docs/checks.md#stateundecidable");
        assert_eq!(undecidable.explain_id(), "state.undecidable");
    }

    #[test]
    fn text_from_servers_cannot_control_a_terminal() {
        assert_eq!(printable("a\u{1b}[2J\u{202e}b\u{200b}é"), r"a\u{1b}[2J\u{202e}b\u{200b}é");
        assert!(printable(&"x".repeat(1 << 20)).len() < 3000);
    }

    #[test]
    fn ignorable_and_format_characters_are_escaped_and_no_others() {
        let unicode = r"[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Cc}\p{White_Space}\u{2800}]";
        let class = match regex_syntax::parse(unicode).unwrap().into_kind() {
            HirKind::Class(Class::Unicode(class)) => class,
            other => panic!("{other:?}"),
        };
        let expected: BTreeSet<char> =
            class.iter().flat_map(|range| range.start()..=range.end()).collect();
        let found: BTreeSet<char> = ('\0'..=char::MAX).filter(|it| is_invisible(*it)).collect();
        let differ: Vec<_> = expected.symmetric_difference(&found).collect();
        assert!(differ.is_empty(), "{differ:?}");
        assert_eq!(
            printable("a\u{180f}\u{fff0}\u{1bca0}\u{1d173}b"),
            r"a\u{180f}\u{fff0}\u{1bca0}\u{1d173}b"
        );
    }
}
