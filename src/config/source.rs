//! Where settings come from: a TOML file and the environment.

use super::path::{KeyPath, Segment, child, element};
use super::place::{Lines, Place};
use super::problem::Problem;
use super::value::Value;
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;
use toml_edit::{Item, TableLike};

/// What every variable of the edge starts with.
pub(super) const PREFIX: &str = "CALLBACK_EDGE_";

/// Names the file; a variable, but not a setting.
pub(super) const FILE_VARIABLE: &str = "CALLBACK_EDGE_CONFIG";

/// A TOML file: values, and the place of each of them.
///
/// Parsed once, by the parser that knows positions, so that values and places cannot disagree.
#[derive(Debug)]
pub(super) struct Document {
    file: Option<PathBuf>,
    toml: toml_edit::Document<String>,
    lines: Lines,
}

impl Document {
    /// Parses; `file` is `None` for what is built in.
    pub(super) fn parse(file: Option<&Path>, text: &str) -> Result<Self, Problem> {
        let lines = Lines::of(text);
        match toml_edit::Document::parse(text.to_owned()) {
            Ok(toml) => Ok(Self { file: file.map(Path::to_owned), toml, lines }),
            Err(error) => {
                let message = error.message().replace('\n', ", ");
                let problem = Problem::error(format!("not valid TOML: {message}"));
                Err(match (file, error.span()) {
                    (Some(file), Some(span)) => {
                        problem.at(&Place::File(Box::new(lines.spot(file, text, span))))
                    }
                    _ => problem,
                })
            }
        }
    }

    /// What it holds, from the top.
    pub(super) fn root(&self) -> Node<'_> {
        Node::Item(self.toml.as_item())
    }

    /// The place of a value; of its name when it is a table or a list of tables.
    pub(super) fn place_of(&self, (name, node): (Option<Range<usize>>, Node<'_>)) -> Place {
        let is_value = !node.is_table() && !matches!(node, Node::Item(Item::ArrayOfTables(_)));
        self.at(if is_value { node.span() } else { name.or_else(|| node.span()) })
    }

    /// Every key with its path and the place of its name, a table before what is in it.
    pub(super) fn keys(&self) -> Vec<(KeyPath, Place)> {
        let mut keys = Vec::new();
        let mut open = vec![(KeyPath::new(), self.root())];
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

    fn at(&self, span: Option<Range<usize>>) -> Place {
        match (&self.file, span) {
            (Some(file), Some(span)) => {
                Place::File(Box::new(self.lines.spot(file, self.toml.raw(), span)))
            }
            _ => Place::Default,
        }
    }
}

/// An environment variable. Its value is text, whatever it looks like.
#[derive(Debug)]
pub(super) struct Variable {
    /// `CALLBACK_EDGE_LISTEN__HTTPS`
    pub(super) name: String,
    /// `listen.https`
    pub(super) path: KeyPath,
    pub(super) value: String,
}

impl Variable {
    /// Those with the prefix, by name. Names and values must be text.
    pub(super) fn all(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> (Vec<Self>, Vec<Problem>) {
        let (mut variables, mut problems) = (Vec::new(), Vec::new());
        for (name, value) in environment {
            let name = name.to_string_lossy().into_owned();
            let Some(path) = name.strip_prefix(PREFIX) else { continue };
            if name == FILE_VARIABLE {
                continue;
            }
            let keys = path.to_lowercase();
            let path = keys.split("__").map(|key| Segment::Key(key.to_owned())).collect();
            match value.into_string() {
                Ok(value) => variables.push(Self { name, path, value }),
                Err(_) => problems
                    .push(Problem::error("the value is not UTF-8").at(&Place::Variable(name))),
            }
        }
        variables.sort_by(|one, other| one.name.cmp(&other.name));
        (variables, problems)
    }

    /// How the variable that sets the key at the end of these is spelt.
    pub(super) fn spelt(keys: &[&str]) -> String {
        format!("{PREFIX}{}", keys.join("__").to_uppercase())
    }
}

/// A table, a list or a value, whichever way it was written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node<'d> {
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

    pub(super) fn is_table(self) -> bool {
        self.table().is_some()
    }

    /// The keys of a table.
    pub(super) fn keys(self) -> Vec<String> {
        let table = self.table().into_iter();
        table.flat_map(TableLike::iter).map(|(key, _)| key.to_owned()).collect()
    }

    fn span(self) -> Option<Range<usize>> {
        match self {
            Self::Item(item) => item.span(),
            Self::Table(table) => table.span(),
            Self::Value(value) => value.span(),
        }
    }

    /// One step down, and the place of the key if the step was one.
    pub(super) fn child(self, segment: &Segment) -> Option<(Option<Range<usize>>, Self)> {
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

    pub(super) fn value(self) -> Value {
        match self {
            Self::Item(Item::ArrayOfTables(tables)) => {
                Value::List(tables.iter().map(|_| Value::Table).collect())
            }
            Self::Item(Item::Value(value)) | Self::Value(value) => value_of(value),
            Self::Item(_) | Self::Table(_) => Value::Table,
        }
    }
}

fn value_of(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => Value::Text(text.value().clone()),
        toml_edit::Value::Integer(number) => Value::Integer(*number.value()),
        toml_edit::Value::Float(_) => Value::Fraction,
        toml_edit::Value::Boolean(flag) => Value::Flag(*flag.value()),
        toml_edit::Value::Datetime(_) => Value::Date,
        toml_edit::Value::Array(array) => Value::List(array.iter().map(value_of).collect()),
        toml_edit::Value::InlineTable(_) => Value::Table,
    }
}

/// The problem of a file that is not UTF-8, with the place of the first byte that is not.
pub(super) fn not_text(file: &Path, error: &FromUtf8Error) -> Problem {
    let start = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes());
    let spot = Lines::of(&text).spot(file, &text, start..start + '\u{fffd}'.len_utf8());
    let byte = error.as_bytes().get(start).copied().unwrap_or_default();
    Problem::error(format!("not UTF-8: the byte {byte:#04x}"))
        .at(&Place::File(Box::new(spot)))
        .hint("save the file in the encoding UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place of what is at a path: of the value at each index or key in turn.
    fn place(text: &str, path: &[&str]) -> String {
        let document = Document::parse(Some(Path::new("f")), text).unwrap();
        let found = path.iter().try_fold((None, document.root()), |(_, node), step| {
            let index = step.parse().map(Segment::Index);
            node.child(&index.unwrap_or_else(|_| Segment::Key((*step).to_owned())))
        });
        match found.map(|found| document.place_of(found)) {
            Some(Place::File(spot)) => format!("{}:{}+{}", spot.line, spot.column, spot.width),
            _ => "nowhere".to_owned(),
        }
    }

    #[test]
    fn every_value_has_a_place_however_it_is_written() {
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
            assert_eq!(place(text, path), expected, "{path:?}");
        }
    }

    #[test]
    fn variables_are_spelt_as_paths() {
        let pairs =
            [("CALLBACK_EDGE_LISTEN__HTTP", "x"), ("CALLBACK_EDGE_CONFIG", "f"), ("HOME", "/")];
        let (variables, problems) =
            Variable::all(pairs.map(|(name, value)| (name.into(), value.into())));
        let [variable] = &variables[..] else { panic!("{variables:?}") };
        assert_eq!(variable.path, child(&child(&[], "listen"), "http"));
        assert_eq!(Variable::spelt(&["listen", "http"]), "CALLBACK_EDGE_LISTEN__HTTP");
        assert!(problems.is_empty());
    }
}
