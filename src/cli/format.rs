//! The output formats of reports.

use crate::report::{self, Detail, Report};
use std::io::{self, Write as _};
use std::path::PathBuf;
use terminal_size::terminal_size_of;

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// For people, in colour on a terminal.
    Text(Detail),
    /// One JSON object.
    Json,
    /// A JSON array of reports.
    JsonList,
    /// JUnit XML for CI systems.
    Junit,
    /// For a ticket.
    Markdown,
}

impl Format {
    /// Prints on stdout.
    pub(super) fn print(self, reports: &[Report]) -> io::Result<()> {
        let text = match self {
            Self::Text(detail) => return text(reports, detail),
            Self::Json => report::json(reports)? + "\n",
            Self::JsonList => report::json_list(reports)? + "\n",
            Self::Junit => report::junit(reports),
            Self::Markdown => reports.iter().map(report::markdown).collect(),
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }
}

fn text(reports: &[Report], detail: Detail) -> io::Result<()> {
    // `None` unless stdout is a terminal.
    let columns = terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(report::text(reports, columns, detail).as_bytes())?;
    stdout.flush()
}

/// A file for a CI system, which would otherwise need a second run next to what is printed.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct JunitFile {
    /// Write the report as JUnit XML to this file too
    #[arg(long = "junit-file", value_name = "FILE", conflicts_with_all = ["junit", "every"])]
    path: Option<PathBuf>,
}

impl JunitFile {
    /// Writes the file, if there is one, and prints.
    pub(super) fn print(&self, format: Format, reports: &[Report]) -> io::Result<()> {
        if let Some(path) = &self.path {
            std::fs::write(path, report::junit(reports))
                .map_err(|error| io::Error::other(format!("`{}`: {error}", path.display())))?;
        }
        format.print(reports)
    }
}

/// How much of a text report is printed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Verbosity {
    /// Print every check, also those that passed
    #[arg(short, long)]
    verbose: bool,

    /// Print only the verdict
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

impl Verbosity {
    pub(super) fn detail(self) -> Detail {
        match (self.verbose, self.quiet) {
            (_, true) => Detail::Verdict,
            (true, _) => Detail::All,
            _ => Detail::Findings,
        }
    }
}
