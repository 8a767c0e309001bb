//! Where a value was written, and what to show of it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where a value was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Location {
    /// Nowhere: it is built in, or there is no one location.
    #[default]
    Default,
    /// In the file.
    File(Box<Position>),
    /// In the environment variable of this name.
    Variable(String),
}

impl Location {
    /// Leaves out the line itself: it holds something that must not be repeated.
    pub(super) fn hide(&mut self) {
        if let Self::File(position) = self {
            position.quote = None;
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(position) => position.fmt(f),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// A few characters in a line of a file; line and column count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// How many characters.
    pub width: usize,
    /// What to show of the line; `None` when it holds something that must not be repeated.
    pub quote: Option<Quote>,
}

/// As much of a line as a reader needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The text.
    pub text: String,
    /// How many of its characters come before the position.
    pub before: usize,
    /// How many belong to the position.
    pub width: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// Where each line of a text starts, so that a position is found without reading all before it.
#[derive(Debug)]
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        let behind = text.match_indices('\n').map(|(newline, _)| newline + 1);
        Self(std::iter::once(0).chain(behind).collect())
    }

    /// The position that a span of bytes covers, as far as the end of its first line.
    pub(super) fn position(&self, file: &Path, text: &str, span: Range<usize>) -> Position {
        let line = self.0.partition_point(|start| *start <= span.start);
        let start = line.checked_sub(1).and_then(|line| self.0.get(line)).copied();
        let start = start.unwrap_or_default();
        let end = self.0.get(line).copied().unwrap_or(text.len());
        let source = text.get(start..end).unwrap_or_default();
        let source = source.lines().next().unwrap_or_default();
        let (before, rest) = source.split_at_checked(span.start - start).unwrap_or((source, ""));
        let covered = rest.get(..span.len()).unwrap_or(rest);
        let width = covered.chars().count().max(1);
        Position {
            file: file.to_owned(),
            line,
            column: before.chars().count() + 1,
            width,
            quote: Some(Quote::of(before, rest, width)),
        }
    }
}

impl Quote {
    /// The longest text that is quoted on either side of where the position begins, in characters.
    const SIDE: usize = 100;

    fn of(before: &str, rest: &str, width: usize) -> Self {
        // What steers a terminal is not text to be shown.
        let shown = |character: char| match character {
            '\t' => '\t',
            it if it.is_control() => char::REPLACEMENT_CHARACTER,
            it => it,
        };
        let mut left: Vec<char> = before.chars().rev().take(Self::SIDE + 1).map(shown).collect();
        let mut right: Vec<char> = rest.chars().take(Self::SIDE + 1).map(shown).collect();
        for side in [&mut left, &mut right] {
            if side.len() > Self::SIDE {
                side.truncate(Self::SIDE - 1);
                side.push('…');
            }
        }
        let width = width.min(right.len()).max(1);
        let before = left.len();
        Self { text: left.into_iter().rev().chain(right).collect(), before, width }
    }
}
