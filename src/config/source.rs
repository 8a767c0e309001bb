//! Where settings come from: a TOML file and the environment, as layers for figment.

use super::location::{Lines, Location};
use super::path::{KeyPath, Segment, child, element};
use super::problem::Problem;
use super::syntax;
use figment::value::{Dict, Empty, Map, Value};
use figment::{Metadata, Profile, Provider, Source};
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;
use toml_edit::{Item, TableLike};

/// The prefix of every environment variable.
pub(super) const PREFIX: &str = "CALLBACK_EDGE_";

/// Contains the path of the file; it is not a setting.
pub(super) const FILE_VARIABLE: &str = "CALLBACK_EDGE_CONFIG";

/// A TOML file: a layer of values, and the location of each of them.
///
/// Parsed once, by a parser that records positions, so that values and locations cannot disagree.
#[derive(Debug)]
pub(super) struct Document {
    file: Option<PathBuf>,
    toml: toml_edit::Document<String>,
    lines: Lines,
    /// The text before values with syntax errors were replaced. It has the same lines.
    gaps: Option<(String, Lines)>,
}

/// Each costs another parse.
const SYNTAX_ERRORS: usize = 50;

impl Document {
    /// Parses; `file` is `None` for the built-in defaults.
    pub(super) fn parse(file: Option<&Path>, text: &str) -> Result<Self, Problem> {
        let lines = Lines::of(text);
        match toml_edit::Document::parse(text.to_owned()) {
            Ok(toml) => Ok(Self { file: file.map(Path::to_owned), toml, lines, gaps: None }),
            Err(error) => Err(syntax::problem(file, text, &lines, &error)),
        }
    }

    /// Parses, and continues after an error in a line, so that one run reports all of them. `None` if
    /// it cannot continue.
    pub(super) fn recover(file: &Path, original: &str) -> (Option<Self>, Vec<Problem>) {
        let mut text = original.to_owned();
        let mut problems: Vec<Problem> = Vec::new();
        let mut last = 0;
        while problems.len() < SYNTAX_ERRORS {
            let problem = match Self::parse(Some(file), &text) {
                Ok(document) => {
                    let gaps =
                        (!problems.is_empty()).then(|| (original.to_owned(), Lines::of(original)));
                    return (Some(Self { gaps, ..document }), problems);
                }
                Err(problem) => problem,
            };
            let Location::File(position) = problem.location() else { break };
            // The parser goes from top to bottom; an error in a line that was repaired is a consequence.
            if position.line <= last {
                break;
            }
            last = position.line;
            let repaired = syntax::without_line(&text, last, &problem);
            problems.push(problem);
            match repaired {
                Some(repaired) => text = repaired,
                None => break,
            }
        }
        (None, problems)
    }

    /// Whether there are values with syntax errors. They are dates here, which no setting is.
    pub(super) fn has_gaps(&self) -> bool {
        self.gaps.is_some()
    }

    /// The location of the value at a path; for a table or a list of tables, that of its name.
    pub(super) fn location_of(&self, path: &[Segment]) -> Option<Location> {
        let (name, node) = self.node(path)?;
        let is_value =
            node.table().is_none() && !matches!(node, Node::Item(Item::ArrayOfTables(_)));
        Some(self.at(if is_value { node.span() } else { name.or_else(|| node.span()) }))
    }

    /// Whether there is a table at a path; `None` if there is nothing.
    pub(super) fn is_table(&self, path: &[Segment]) -> Option<bool> {
        self.node(path).map(|(_, node)| node.table().is_some())
    }

    /// The keys of the table at a path.
    pub(super) fn names(&self, path: &[Segment]) -> Vec<String> {
        let table = self.node(path).and_then(|(_, node)| node.table()).into_iter();
        table.flat_map(TableLike::iter).map(|(key, _)| key.to_owned()).collect()
    }

    /// The value at a path.
    pub(super) fn value(&self, path: &[Segment]) -> Option<Value> {
        self.node(path).map(|(_, node)| node.value())
    }

    /// What is at a path, and the location of its key if it has one.
    fn node(&self, path: &[Segment]) -> Option<(Option<Range<usize>>, Node<'_>)> {
        let root = (None, Node::Item(self.toml.as_item()));
        path.iter().try_fold(root, |(_, node), segment| node.child(segment))
    }

    /// Every key with its path and the location of its name; a table precedes its keys.
    pub(super) fn keys(&self) -> Vec<(KeyPath, Location)> {
        let mut keys = Vec::new();
        let mut open = vec![(KeyPath::new(), Node::Item(self.toml.as_item()))];
        while let Some((path, node)) = open.pop() {
            if let Some(table) = node.table() {
                for (key, item) in table.iter() {
                    let span = table.get_key_value(key).and_then(|(key, _)| key.span());
                    let path = child(&path, key);
                    keys.push((path.clone(), self.at(span)));
                    open.push((path, Node::Item(item)));
                }
            } else {
                for index in 0.. {
                    let Some((_, node)) = node.child(&Segment::Index(index)) else { break };
                    open.push((element(&path, index), node));
                }
            }
        }
        keys
    }

    fn at(&self, span: Option<Range<usize>>) -> Location {
        match (&self.file, span) {
            (Some(file), Some(span)) => {
                let position = self.lines.position(file, self.toml.raw(), span);
                Location::File(Box::new(match &self.gaps {
                    Some((original, lines)) => position.quoting(original, lines),
                    None => position,
                }))
            }
            _ => Location::Default,
        }
    }
}

impl Provider for Document {
    fn metadata(&self) -> Metadata {
        match &self.file {
            Some(file) => Metadata::from("file", Source::File(file.clone())),
            None => Metadata::named("default"),
        }
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, dict(self.toml.as_table()))]))
    }
}

/// An environment variable: a layer with one value. The value stays text; figment's own provider
/// would guess its type, and lose the spelling of the variable.
#[derive(Debug)]
pub(super) struct Variable {
    /// `CALLBACK_EDGE_LISTEN__HTTPS`
    pub(super) name: String,
    /// `listen.https`
    pub(super) path: KeyPath,
    value: String,
}

impl Variable {
    /// The variables with the prefix, sorted by name. Names and values must be UTF-8.
    pub(super) fn all(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> (Vec<Self>, Vec<Problem>) {
        let (mut variables, mut problems) = (Vec::new(), Vec::new());
        for (name, value) in environment {
            let name = name.to_string_lossy().into_owned();
            let Some(path) = name.strip_prefix(PREFIX) else {
                problems.extend(misspelt(name));
                continue;
            };
            if name == FILE_VARIABLE {
                continue;
            }
            let keys = path.to_lowercase();
            let path = keys.split("__").map(|key| Segment::Key(key.to_owned())).collect();
            match value.into_string() {
                Ok(value) => variables.push(Self { name, path, value }),
                Err(_) => problems.push(
                    Problem::error("the value is not UTF-8")
                        .at(&Location::Variable(name))
                        .hint("set it to UTF-8 text"),
                ),
            }
        }
        variables.sort_by(|one, other| one.name.cmp(&other.name));
        (variables, problems)
    }

    /// The name of the variable for the key at the end of this path.
    pub(super) fn name_for(keys: &[&str]) -> String {
        format!("{PREFIX}{}", keys.join("__").to_uppercase())
    }
}

/// A variable that has no effect, because its prefix is written differently.
fn misspelt(name: String) -> Option<Problem> {
    let plain = |text: &str| text.to_uppercase().replace(['-', '.'], "_");
    let meant = plain(&name);
    let bare = meant.strip_prefix("CALLBACKEDGE_").map(|rest| format!("{PREFIX}{rest}"));
    let meant = bare.unwrap_or(meant);
    meant.starts_with(PREFIX).then(|| {
        Problem::error("a variable with this name has no effect")
            .hint(format!("did you mean `{meant}`?"))
            .at(&Location::Variable(name))
    })
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::from("environment", Source::Custom(self.name.clone()))
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let value =
            self.path.iter().rev().fold(Value::from(self.value.clone()), |value, segment| {
                match segment {
                    Segment::Key(key) => Dict::from([(key.clone(), value)]).into(),
                    Segment::Index(_) => value, // No variable sets an element.
                }
            });
        Ok(Map::from([(Profile::Default, value.into_dict().unwrap_or_default())]))
    }
}

/// A table, a list or a value, in any TOML notation.
#[derive(Clone, Copy, Debug)]
enum Node<'d> {
    Item(&'d Item),
    Table(&'d toml_edit::Table),
    Value(&'d toml_edit::Value),
}

impl<'d> Node<'d> {
    fn table(self) -> Option<&'d dyn TableLike> {
        match self {
            Self::Item(item) => item.as_table_like(),
            Self::Table(table) => Some(table),
            Self::Value(value) => value.as_inline_table().map(|table| table as &dyn TableLike),
        }
    }

    fn span(self) -> Option<Range<usize>> {
        match self {
            Self::Item(item) => item.span(),
            Self::Table(table) => table.span(),
            Self::Value(value) => value.span(),
        }
    }

    /// The child, and the span of its key if the segment is a key.
    fn child(self, segment: &Segment) -> Option<(Option<Range<usize>>, Self)> {
        match (segment, self) {
            (Segment::Key(key), _) => {
                let (key, item) = self.table()?.get_key_value(key)?;
                Some((key.span(), Self::Item(item)))
            }
            (Segment::Index(index), Self::Item(Item::ArrayOfTables(tables))) => {
                Some((None, Self::Table(tables.get(*index)?)))
            }
            (Segment::Index(index), Self::Item(Item::Value(list)) | Self::Value(list)) => {
                Some((None, Self::Value(list.as_array()?.get(*index)?)))
            }
            (Segment::Index(_), _) => None,
        }
    }

    fn value(self) -> Value {
        match self {
            Self::Item(Item::ArrayOfTables(tables)) => {
                tables.iter().map(|table| dict(table)).collect::<Vec<_>>().into()
            }
            Self::Item(Item::Value(value)) | Self::Value(value) => value_of(value),
            Self::Item(_) | Self::Table(_) => self.table().map(dict).unwrap_or_default().into(),
        }
    }
}

fn dict(table: &dyn TableLike) -> Dict {
    table.iter().map(|(key, item)| (key.to_owned(), Node::Item(item).value())).collect()
}

fn value_of(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => text.value().clone().into(),
        toml_edit::Value::Integer(number) => (*number.value()).into(),
        toml_edit::Value::Float(number) => (*number.value()).into(),
        toml_edit::Value::Boolean(flag) => (*flag.value()).into(),
        // No setting is a date, so the reader rejects it.
        toml_edit::Value::Datetime(_) => Empty::Unit.into(),
        toml_edit::Value::Array(array) => array.iter().map(value_of).collect::<Vec<_>>().into(),
        toml_edit::Value::InlineTable(table) => dict(table).into(),
    }
}

/// The problem of a file that is not UTF-8, with the location of the first invalid byte.
pub(super) fn not_text(file: &Path, error: &FromUtf8Error) -> Problem {
    let start = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes());
    let position = Lines::of(&text).position(file, &text, start..start + '\u{fffd}'.len_utf8());
    let byte = error.as_bytes().get(start).copied().unwrap_or_default();
    Problem::error(format!("not UTF-8: the byte {byte:#04x}"))
        .at(&Location::File(Box::new(position)))
        .hint("save the file as UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The position and width of the value at a path of keys and indices.
    fn location(text: &str, path: &[&str]) -> String {
        let document = Document::parse(Some(Path::new("f")), text).unwrap();
        let segment = |step: &&str| match step.parse() {
            Ok(index) => Segment::Index(index),
            Err(_) => Segment::Key((*step).to_owned()),
        };
        match document.location_of(&path.iter().map(segment).collect::<KeyPath>()) {
            Some(Location::File(position)) => {
                format!("{}:{}+{}", position.line, position.column, position.width)
            }
            _ => "nowhere".to_owned(),
        }
    }

    #[test]
    fn every_value_has_a_location_in_every_notation() {
        let text = "a = 1\n[b]\nc = [ \"é\", \"d\" ]\r\ne.f = true\n[[g]]\nh = 2\n[[g]]\nh = 3\n[i]\nj = [{ k = 4 }]\n[k]\n'l.m' = 5\n'' = 6";
        #[rustfmt::skip]
        let table: [(&[&str], &str); 15] = [
            (&["a"], "1:5+1"), (&["b"], "2:2+1"), (&["b", "c"], "3:5+12"),
            (&["b", "c", "1"], "3:12+3"), (&["b", "e", "f"], "4:7+4"), (&["g"], "5:3+1"),
            (&["g", "0"], "5:1+5"), (&["g", "1", "h"], "8:5+1"), (&["i", "j", "0", "k"], "10:12+1"),
            (&["k", "l.m"], "12:9+1"), (&["k", "l", "m"], "nowhere"), (&["k", ""], "13:6+1"),
            (&["g", "2"], "nowhere"), (&["x"], "nowhere"), (&["a", "x"], "nowhere"),
        ];
        for (path, expected) in table {
            assert_eq!(location(text, path), expected, "{path:?}");
        }
    }

    #[test]
    fn variable_names_are_paths() {
        let pairs =
            [("CALLBACK_EDGE_LISTEN__HTTP", "x"), ("CALLBACK_EDGE_CONFIG", "f"), ("HOME", "/")];
        let (variables, problems) =
            Variable::all(pairs.map(|(name, value)| (name.into(), value.into())));
        let [variable] = &variables[..] else { panic!("{variables:?}") };
        assert_eq!(variable.path, child(&child(&[], "listen"), "http"));
        assert_eq!(Variable::name_for(&["listen", "http"]), "CALLBACK_EDGE_LISTEN__HTTP");
        assert!(problems.is_empty());
    }
}
