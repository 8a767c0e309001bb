//! Layers of settings: defaults, then the file, then the environment. figment merges them and records
//! the layer of each value.

use super::location::Location;
use super::path::{Segment, ancestors};
use super::problem::Problem;
use super::source::{Document, Variable};
use figment::value::Value;
use figment::{Figment, Source};

/// The merged layers.
pub(super) struct Layers<'d> {
    pub(super) document: Option<&'d Document>,
    figment: Figment,
    merged: Value,
}

impl<'d> Layers<'d> {
    /// Merges the layers: key by key, a later layer overrides an earlier one.
    pub(super) fn new(
        defaults: &Document,
        document: Option<&'d Document>,
        variables: &[Variable],
    ) -> Result<Self, Problem> {
        let files: Vec<&Document> = [Some(defaults), document].into_iter().flatten().collect();
        let mut fitting: Vec<&Variable> = Vec::new();
        for variable in variables {
            if fits(&variable.path, &files, &fitting) {
                fitting.push(variable);
            }
        }
        let environment = fitting.into_iter().fold(Figment::new(), Figment::join);
        let figment = files.into_iter().fold(Figment::new(), Figment::merge).merge(environment);
        let merged = figment
            .find_value("")
            .map_err(|error| Problem::error("cannot merge the configuration").caused_by(&error))?;
        Ok(Self { document, figment, merged })
    }

    /// The value at a path, if any layer has one. figment's own lookup splits at dots, which a key can
    /// contain, and does not enter lists.
    pub(super) fn find(&self, path: &[Segment]) -> Option<&Value> {
        path.iter().try_fold(&self.merged, |value, segment| match segment {
            Segment::Key(key) => value.as_dict()?.get(key),
            Segment::Index(index) => value.as_array()?.get(*index),
        })
    }

    /// Whether the value stands for one with a syntax error, which was reported.
    pub(super) fn is_gap(&self, value: &Value) -> bool {
        matches!(value, Value::Empty(..)) && self.document.is_some_and(Document::has_gaps)
    }

    /// Where a value is written: figment provides the layer, the document the position.
    pub(super) fn location_of(&self, path: &[Segment]) -> Location {
        let Some(value) = self.find(path) else { return Location::Default };
        let in_file = || self.document.and_then(|document| document.location_of(path));
        let layer = self.figment.get_metadata(value.tag());
        match layer.and_then(|layer| layer.source.as_ref()) {
            Some(Source::Custom(name)) => {
                // figment assigns a table to the last layer that has a key in it.
                let table = value.as_dict().and_then(|_| in_file());
                table.unwrap_or_else(|| Location::Variable(name.clone()))
            }
            Some(_) => in_file().unwrap_or_default(),
            None => Location::Default,
        }
    }
}

/// Whether a variable can be merged without loss: a value would replace a whole table, and a table a
/// value. `unknown` reports these variables.
fn fits(path: &[Segment], files: &[&Document], others: &[&Variable]) -> bool {
    let is_table = |path| files.iter().rev().find_map(|file| file.is_table(path));
    let conflicts =
        |other: &&Variable| path.starts_with(&other.path) || other.path.starts_with(path);
    ancestors(path).all(|above| is_table(above) != Some(false))
        && is_table(path) != Some(true)
        && !others.iter().any(conflicts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::path::KeyPath;
    use std::path::Path;

    #[test]
    fn each_value_has_the_location_of_the_last_layer_that_sets_it() {
        let defaults = "a = 1\n[t]\nk = 1\nl = 1\nm = 1\n[[r]]\nx = 1";
        let file = "[t]\nl = 2\nm = 2\n'.' = 2\n'' = { '' = 2 }\n[[r]]\ny = 2";
        // `T` and `A__X` would replace a table and a value; `T____K` is not below `T`; of two
        // spellings of one key, the first in sort order wins.
        let variables = ["A__X", "N__O", "R", "T", "T__M", "T____K", "t__m"];
        let variables = variables.map(|name| (format!("CALLBACK_EDGE_{name}").into(), "v".into()));
        let (variables, _) = Variable::all(variables);
        let defaults = Document::parse(None, defaults).unwrap();
        let file = Document::parse(Some(Path::new("f")), file).unwrap();
        let layers = Layers::new(&defaults, Some(&file), &variables).unwrap();
        let table: [(&[&str], Option<&str>); 14] = [
            (&["a"], Some("default")),
            (&["a", "x"], None),
            (&["t"], Some("f:1:2")),
            (&["t", "k"], Some("default")),
            (&["t", "l"], Some("f:2:5")),
            (&["t", "m"], Some("CALLBACK_EDGE_T__M")),
            (&["t", "."], Some("f:4:7")),
            (&["t", "", ""], Some("f:5:13")),
            (&["t", "", "k"], Some("CALLBACK_EDGE_T____K")),
            (&["n"], Some("CALLBACK_EDGE_N__O")),
            (&["n", "o"], Some("CALLBACK_EDGE_N__O")),
            (&["r"], Some("CALLBACK_EDGE_R")),
            (&["r", "y"], None),
            (&["x"], None),
        ];
        for (keys, location) in table {
            let path: KeyPath = keys.iter().map(|key| Segment::Key((*key).to_owned())).collect();
            let found = layers.find(&path).map(|_| layers.location_of(&path).to_string());
            assert_eq!(found.as_deref(), location, "{keys:?}");
        }
    }
}
