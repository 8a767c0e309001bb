use super::location::Location;
use anstyle::{AnsiColor, Style};
use std::error::Error;
use std::fmt::{self, Write};

/// An error or a warning that users can act on: what is wrong, where, why, and how to fix it.
///
/// `Display` is plain text; [`Problem::coloured`] is for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    warning: bool,
    what: String,
    location: Location,
    note: Box<str>,
    causes: Vec<String>,
    hint: Option<Box<str>>,
}

impl Problem {
    /// An error. Lower case, no full stop, values in backticks.
    pub fn error(what: impl Into<String>) -> Self {
        Self {
            warning: false,
            what: what.into(),
            location: Location::Default,
            note: Box::default(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// Something suspicious that prevents nothing.
    pub fn warning(what: impl Into<String>) -> Self {
        Self { warning: true, ..Self::error(what) }
    }

    /// Where it is written.
    #[must_use]
    pub fn at(mut self, location: &Location) -> Self {
        self.location = location.clone();
        self
    }

    /// A short note next to the caret.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into().into();
        self
    }

    /// The error that caused it, with the sources of that error.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// The cause as text, which is printed after "caused by:".
    #[must_use]
    pub fn because(mut self, reason: &str) -> Self {
        self.causes.push(reason.to_owned());
        self
    }

    /// How to fix it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into());
        self
    }

    /// What is wrong.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The note next to the caret, if any.
    pub fn note(&self) -> Option<&str> {
        Some(&*self.note).filter(|note| !note.is_empty())
    }

    /// The causes in one line, if any.
    pub fn cause(&self) -> Option<String> {
        (!self.causes.is_empty()).then(|| self.causes.join(": "))
    }

    /// The hint, if any.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Where it is written; [`Location::Default`] if it has no single location.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Whether it is a warning, which prevents nothing.
    pub fn is_warning(&self) -> bool {
        self.warning
    }

    /// As `Display`, with the level and the keywords in colour.
    pub fn coloured(&self) -> String {
        let level = if self.warning { AnsiColor::Yellow } else { AnsiColor::Red };
        self.render(level.on_default().bold(), AnsiColor::Cyan.on_default().bold())
    }

    /// The sort key: position in the file, then variable name, then everything else.
    pub(super) fn order(&self) -> impl Ord + use<> {
        match &self.location {
            Location::File(position) => (0, position.line, position.column, String::new()),
            Location::Variable(name) => (1, 0, 0, name.clone()),
            Location::Default => (2, 0, 0, String::new()),
        }
    }

    fn render(&self, level: Style, accent: Style) -> String {
        let mut out = String::new();
        // Writing to a `String` cannot fail.
        let _ = self.write(&mut out, level, accent);
        out
    }

    fn write(&self, out: &mut String, level: Style, accent: Style) -> fmt::Result {
        let word = if self.warning { "warning" } else { "error" };
        write!(out, "{level}{word}:{level:#} ")?;
        if let Location::Variable(name) = &self.location {
            write!(out, "`{name}`: ")?;
        }
        write!(out, "{}", self.what)?;
        if let Location::File(position) = &self.location {
            let number = position.line.to_string();
            let gutter = " ".repeat(number.len());
            write!(out, "\n --> {position}")?;
            if let Some(quote) = &position.quote {
                // Tabs stay tabs, so that the caret is below the right character.
                let indent: String = quote
                    .text
                    .chars()
                    .take(quote.before)
                    .map(|character| if character == '\t' { '\t' } else { ' ' })
                    .collect();
                let caret = "^".repeat(quote.width);
                write!(out, "\n{gutter} |\n{number} | {}\n{gutter} | {indent}", quote.text)?;
                write!(out, "{level}{caret}{level:#}")?;
                if !self.note.is_empty() {
                    write!(out, " {}", self.note)?;
                }
            }
        }
        for cause in &self.causes {
            write!(out, "\n  caused by: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            let gap = if matches!(self.location, Location::File(_)) { "\n" } else { "" };
            write!(out, "\n{gap}{accent}hint:{accent:#} {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::new(), Style::new()))
    }
}

impl Error for Problem {}

/// All problems of one run, so that users can fix them at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// How many are reported; the others are only counted.
    const REPORTED: usize = 50;

    /// The problems to report, and how many more there are.
    pub fn reported(&self) -> (&[Problem], usize) {
        let (reported, more) = self.0.split_at(self.0.len().min(Self::REPORTED));
        (reported, more.len())
    }

    /// As `Display`, in colour.
    pub fn coloured(&self) -> String {
        self.render_all(Problem::coloured)
    }

    fn render_all(&self, each: impl Fn(&Problem) -> String) -> String {
        let (reported, more) = self.reported();
        let mut rendered: Vec<_> = reported.iter().map(each).collect();
        if more > 0 {
            rendered.push(format!("and {more} more"));
        }
        rendered.join("\n\n")
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render_all(ToString::to_string))
    }
}

impl Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::location::{Position, Quote};
    use std::path::PathBuf;

    #[test]
    fn a_problem_shows_the_line_with_a_caret() {
        let position = Position {
            file: PathBuf::from("/etc/callback-edge/config.toml"),
            line: 14,
            column: 1,
            width: 7,
            quote: Some(Quote {
                text: "redirct = \"https://api.nango.dev/oauth/callback\"".into(),
                before: 0,
                width: 7,
            }),
        };
        let problem = Problem::error("unknown key `redirct`")
            .at(&Location::File(Box::new(position)))
            .with_note("expected one of `listen`, `route`, `tls`")
            .hint("did you mean `route`?");
        let expected = "\
error: unknown key `redirct`
 --> /etc/callback-edge/config.toml:14:1
   |
14 | redirct = \"https://api.nango.dev/oauth/callback\"
   | ^^^^^^^ expected one of `listen`, `route`, `tls`

hint: did you mean `route`?";
        assert_eq!(problem.to_string(), expected);
        assert_eq!(anstream::adapter::strip_str(&problem.coloured()).to_string(), expected);
    }

    #[test]
    fn a_problem_without_a_location_shows_its_causes() {
        let cause = std::io::Error::other("the key does not match it");
        let problem = Problem::error("cannot use certificate `tls.pem`").caused_by(&cause);
        assert_eq!(
            problem.to_string(),
            "error: cannot use certificate `tls.pem`\n  caused by: the key does not match it"
        );
    }
}
