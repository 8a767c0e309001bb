//! The result of a run, as text and as JSON.

use super::machine::{End, Phase};
use crate::explain::wrap;
use crate::report::{Report, Status};
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use std::fmt::{self, Write as _};

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct SwitchReport {
    /// The schema version. It changes when a member is removed or changes its meaning.
    pub schema: u32,
    /// Which command ran.
    pub command: Command,
    /// The exit code.
    pub exit: u8,
    /// The result in one line.
    pub summary: String,
    /// The callback to save; `None` for `--back` and `--status`.
    pub callback: Option<String>,
    /// The journal file.
    pub journal: String,
    /// Why it stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The environments, in the order in which they are switched.
    pub environments: Vec<EnvironmentReport>,
    /// The plan that was confirmed.
    pub plan: Vec<String>,
    /// What remains to be done.
    pub remaining: Vec<String>,
    /// The command to go back, when something is to go back.
    pub back: Option<String>,
}

/// Which command ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// The switch.
    Switch,
    /// Only its plan.
    Plan,
    /// The way back.
    Back,
    /// Only the state.
    Status,
}

/// The result for an environment.
#[derive(Clone, Debug, Serialize)]
pub struct EnvironmentReport {
    /// Its name in Nango.
    pub name: String,
    /// Its id in Nango; empty for a server without the Environments API.
    pub uuid: String,
    /// Whether Nango treats it as production.
    pub is_production: bool,
    /// The previous callback.
    pub before: String,
    /// The new callback.
    pub after: String,
    /// The callback that was read last.
    pub value: Option<String>,
    /// The phase in the journal.
    pub phase: Option<Phase>,
    /// The result.
    pub result: State,
    /// Why, when it is not the intended one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was seen, in this order.
    pub evidence: Vec<String>,
    /// The preflight before the switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preflight: Option<Report>,
    /// The preflight after the switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<Report>,
}

/// The result for an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The plan was shown.
    Planned,
    /// The preflight does not allow the switch.
    Unsafe,
    /// The run stopped before it.
    NotBegun,
    /// A person should have saved the new callback, and no flow sends it.
    NotSeen,
    /// It has the new callback, saved before this run.
    AlreadySwitched,
    /// Only read: it is as the journal expects.
    AsExpected,
    /// Only read: it is not as the journal expects, or a run was interrupted.
    Unexpected,
    /// Its callback was not read.
    NotRead,
    /// The run ended so.
    #[serde(untagged)]
    Ended(End),
}

impl State {
    fn status(self) -> Status {
        match self {
            Self::AlreadySwitched | Self::AsExpected | Self::Ended(End::Switched | End::Back) => {
                Status::Pass
            }
            Self::Planned | Self::NotBegun => Status::Skip,
            Self::Unexpected
            | Self::NotRead
            | Self::Ended(End::SwitchedUnconfirmed | End::BackUnconfirmed) => Status::Unknown,
            Self::Ended(End::Restored) => Status::Warn,
            Self::Unsafe
            | Self::NotSeen
            | Self::Ended(
                End::Broken
                | End::NotRestored
                | End::Refused
                | End::Unreadable
                | End::NotSaved
                | End::Unknown
                | End::ChangedByOthers
                | End::Overwritten
                | End::Declined,
            ) => Status::Fail,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Unsafe => "not safe to change",
            Self::NotBegun => "not begun",
            Self::NotSeen => "not seen: no flow sends the new callback",
            Self::AlreadySwitched => "was switched before, and confirmed again",
            Self::AsExpected => "as the journal expects",
            Self::Unexpected => "not as the journal expects",
            Self::NotRead => "not read: this is what the journal contains",
            Self::Ended(end) => match end {
                End::Switched => "switched and confirmed",
                End::SwitchedUnconfirmed => "switched, but not fully confirmed",
                End::Broken => "was switched before, and fails now",
                End::Restored => "failed, and the previous callback is restored",
                End::Back => "back at the previous callback",
                End::BackUnconfirmed => "back at the previous callback, but no flow shows it",
                End::NotRestored => "failed, and the previous callback is not restored",
                End::Refused => "not switched: the request was refused",
                End::Unreadable => "not switched: the callback could not be read",
                End::Unknown => "unknown: there was no response, and nothing shows the callback",
                End::NotSaved => "not switched: there was no response",
                End::ChangedByOthers | End::Overwritten => {
                    "stopped: another person saved another callback"
                }
                End::Declined => "not switched: not confirmed",
            },
        }
    }
}

impl SwitchReport {
    /// One JSON object.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// For people. Print it through `anstream`; lines are wrapped at `columns`.
    pub fn text(&self, columns: Option<usize>) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = self.write(columns.unwrap_or(usize::MAX), &mut text);
        text
    }

    fn write(&self, columns: usize, out: &mut String) -> fmt::Result {
        for environment in &self.environments {
            // Without a name, it is "the environment of …".
            let has_name = !environment.name.starts_with("the environment ");
            let prefix = if has_name { "environment " } else { "" };
            title(&format!("{prefix}{}", environment.name), out)?;
            let mark = mark(environment.result.status());
            writeln!(out, "{}", wrap(&mark, environment.result.text(), columns))?;
            for (what, url) in [
                ("previous callback", environment.before.as_str()),
                ("new callback", environment.after.as_str()),
                ("in Nango now", environment.value.as_deref().unwrap_or("unknown")),
            ] {
                let line = format!("{what}: {url}");
                writeln!(out, "{}", wrap(INDENT, &line, columns))?;
            }
            let verification = environment.verification.as_ref();
            let verification =
                verification.map(|report| format!("preflight after it: {}", report.sentence()));
            for line in environment.evidence.iter().chain(&verification) {
                writeln!(out, "{}", wrap(INDENT, line, columns))?;
            }
            if let Some(reason) = &environment.reason {
                writeln!(out, "{}", wrap(&format!("{INDENT}reason: "), reason, columns))?;
            }
        }
        numbered("remaining steps", &self.remaining, columns, out)?;
        if let Some(back) = &self.back {
            writeln!(out, "\nto go back: {back}")?;
        }
        let status = match self.exit {
            0 => Status::Pass,
            2 => Status::Unknown,
            _ => Status::Fail,
        };
        writeln!(out, "\n{}", wrap(&mark(status), &self.summary, columns))?;
        if let Some(hint) = &self.hint {
            writeln!(out, "{}", wrap(&format!("{INDENT}hint: "), hint, columns))?;
        }
        Ok(())
    }
}

/// A numbered list with a title, for people. Print it through `anstream`.
pub fn list(name: &str, lines: &[String], columns: Option<usize>) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = numbered(name, lines, columns.unwrap_or(usize::MAX), &mut text);
    text
}

fn numbered(name: &str, lines: &[String], columns: usize, out: &mut String) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    title(name, out)?;
    for (number, line) in lines.iter().enumerate() {
        writeln!(out, "{}", wrap(&format!("{:>2}. ", number + 1), line, columns))?;
    }
    Ok(())
}

const INDENT: &str = "    ";

fn title(text: &str, out: &mut String) -> fmt::Result {
    const BOLD: Style = Style::new().bold();
    writeln!(out, "\n{BOLD}{text}{BOLD:#}\n{}", "─".repeat(text.chars().count()))
}

fn mark(status: Status) -> String {
    let colour = match status {
        Status::Pass => AnsiColor::Green.on_default(),
        Status::Warn | Status::Unknown => AnsiColor::Yellow.on_default(),
        Status::Fail => AnsiColor::Red.on_default(),
        Status::Skip => Style::new().dimmed(),
    };
    format!("{colour}{}{colour:#} ", status.mark())
}
