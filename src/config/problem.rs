use super::location::Location;
use anstyle::{AnsiColor, Style};
use std::error::Error;
use std::fmt::{self, Write};

/// Something that keeps the edge from doing what was asked, told so that it can be acted on: what,
/// where, why, and what to do instead.
///
/// `Display` is plain text; [`Problem::coloured`] is for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    warning: bool,
    what: String,
    location: Location,
    with_note: Box<str>,
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
            with_note: Box::default(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// Something that is odd but stops nothing.
    pub fn warning(what: impl Into<String>) -> Self {
        Self { warning: true, ..Self::error(what) }
    }

    /// Where it stands written.
    #[must_use]
    pub fn at(mut self, location: &Location) -> Self {
        self.location = location.clone();
        self
    }

    /// A few words with_note the caret.
    #[must_use]
    pub fn with_note(mut self, words: impl Into<String>) -> Self {
        self.with_note = words.into().into();
        self
    }

    /// The error behind it, and those behind that one.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// The reason, in words that follow "caused by:".
    #[must_use]
    pub fn because(mut self, reason: &str) -> Self {
        self.causes.push(reason.to_owned());
        self
    }

    /// What to do instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into());
        self
    }

    /// What is wrong.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The words with_note the caret, if any.
    pub fn note(&self) -> Option<&str> {
        Some(&*self.with_note).filter(|note| !note.is_empty())
    }

    /// The errors behind it, in one line.
    pub fn cause(&self) -> Option<String> {
        (!self.causes.is_empty()).then(|| self.causes.join(": "))
    }

    /// What to do instead, if anything is known.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Where it stands written; [`Location::Default`] when it is about no one location.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Whether it stops nothing.
    pub fn is_warning(&self) -> bool {
        self.warning
    }

    /// As `Display`, with the words that a reader looks for in colour.
    pub fn coloured(&self) -> String {
        let level = if self.warning { AnsiColor::Yellow } else { AnsiColor::Red };
        self.render(level.on_default().bold(), AnsiColor::Cyan.on_default().bold())
    }

    /// Where it comes in a list: by its location in the file, then by its variable, then the rest.
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
                // Tabs stay tabs, so that the caret lands below what it means.
                let indent: String = quote
                    .text
                    .chars()
                    .take(quote.before)
                    .map(|character| if character == '\t' { '\t' } else { ' ' })
                    .collect();
                let caret = "^".repeat(quote.width);
                write!(out, "\n{gutter} |\n{number} | {}\n{gutter} | {indent}", quote.text)?;
                write!(out, "{level}{caret}{level:#}")?;
                if !self.with_note.is_empty() {
                    write!(out, " {}", self.with_note)?;
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

/// All problems of one run, so that nobody has to fix them one start at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// How many are reported; the rest is counted.
    const REPORTED: usize = 50;

    /// The problems to report, and how many more there are.
    pub fn reported(&self) -> (&[Problem], usize) {
        let (reported, more) = self.0.split_at(self.0.len().min(Self::REPORTED));
        (reported, more.len())
    }

    /// As `Display`, in colour.
    pub fn coloured(&self) -> String {
        self.told(Problem::coloured)
    }

    fn told(&self, each: impl Fn(&Problem) -> String) -> String {
        let (reported, more) = self.reported();
        let mut told: Vec<_> = reported.iter().map(each).collect();
        if more > 0 {
            told.push(format!("and {more} more"));
        }
        told.join("\n\n")
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told(ToString::to_string))
    }
}

impl Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::location::{Quote, Position};
    use std::path::PathBuf;

    #[test]
    fn a_problem_shows_the_line_and_points_at_the_word() {
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
    fn a_problem_without_a_place_tells_its_causes() {
        let cause = std::io::Error::other("the key does not match it");
        let problem = Problem::error("cannot use certificate `tls.pem`").caused_by(&cause);
        assert_eq!(
            problem.to_string(),
            "error: cannot use certificate `tls.pem`\n  caused by: the key does not match it"
        );
    }
}
