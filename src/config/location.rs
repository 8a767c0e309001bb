//! Where a value is written, and the excerpt to show.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where a value is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Location {
    /// Nowhere: it is built in, or there is no single location.
    #[default]
    Default,
    /// In the file.
    File(Box<Position>),
    /// In the environment variable of this name.
    Variable(String),
}

impl Location {
    /// Omits the line, which contains a secret.
    pub(super) fn hide(&mut self) {
        if let Self::File(position) = self {
            position.quote = None;
        }
    }

    /// Omits what follows the position in its line, for example the value of an unknown key: it may be a
    /// secret.
    pub(super) fn hide_rest(&mut self) {
        if let Self::File(position) = self
            && let Some(quote) = &mut position.quote
        {
            let end = quote.before + quote.width;
            if quote.text.chars().skip(end).any(|it| it == '=') {
                quote.text = quote.text.chars().take(end).chain([' ', '…']).collect();
            }
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

/// A range of characters in a line of a file; line and column count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The file, as given by the user.
    pub file: PathBuf,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// How many characters.
    pub width: usize,
    /// The excerpt of the line; `None` if the line contains a secret.
    pub quote: Option<Quote>,
}

/// An excerpt of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The text.
    pub text: String,
    /// How many of its characters precede the position.
    pub before: usize,
    /// How many the position covers.
    pub width: usize,
}

impl Position {
    /// The same position, with the excerpt from another text that has the same lines.
    pub(super) fn quoting(self, text: &str, lines: &Lines) -> Self {
        let line = lines.line(text, self.line).lines().next().unwrap_or_default();
        let at = line.char_indices().nth(self.column.saturating_sub(1));
        let (before, rest) = line.split_at(at.map_or(line.len(), |(at, _)| at));
        Self { quote: Some(Quote::of(before, rest, self.width)), ..self }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// Where each line of a text starts, so that a lookup does not scan the text.
#[derive(Debug)]
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        let following = text.match_indices('\n').map(|(newline, _)| newline + 1);
        Self(std::iter::once(0).chain(following).collect())
    }

    /// The line with this number, with its end.
    fn line<'t>(&self, text: &'t str, number: usize) -> &'t str {
        let start = number.checked_sub(1).and_then(|line| self.0.get(line)).copied();
        let end = self.0.get(number).copied().unwrap_or(text.len());
        text.get(start.unwrap_or_default()..end).unwrap_or_default()
    }

    /// The position of a span of bytes, cut at the end of its first line.
    pub(super) fn position(&self, file: &Path, text: &str, span: Range<usize>) -> Position {
        let line = self.0.partition_point(|start| *start <= span.start);
        let start = line.checked_sub(1).and_then(|line| self.0.get(line)).copied();
        let start = start.unwrap_or_default();
        let source = self.line(text, line).lines().next().unwrap_or_default();
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
    /// The longest excerpt on either side of the start of the position, in characters.
    const SIDE: usize = 100;

    fn of(before: &str, rest: &str, width: usize) -> Self {
        // Control characters could drive the terminal.
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
