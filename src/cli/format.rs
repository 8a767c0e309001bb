//! The output formats of reports.

use crate::report::{self, Report};
use std::io::{self, Write as _};
use terminal_size::terminal_size_of;

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// For people, in colour on a terminal.
    Text,
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
            Self::Text => return text(reports),
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

fn text(reports: &[Report]) -> io::Result<()> {
    // `None` unless stdout is a terminal.
    let columns = terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
    let mut stdout = anstream::stdout().lock();
    for (number, report) in reports.iter().enumerate() {
        let gap = if number == 0 { "" } else { "\n" };
        write!(stdout, "{gap}{}", report::text(report, columns))?;
    }
    stdout.flush()
}
