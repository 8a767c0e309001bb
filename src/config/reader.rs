use super::leaf::{Bad, Leaf, Raw, is_off, kind};
use super::path::{ancestors, is_index, key_of, readable};
use super::place::Place;
use super::problem::Problem;
use super::source::{Document, Variable};
use figment::value::Value;
use figment::{Figment, Source};
use std::collections::BTreeMap;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A setting as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `limits.header_bytes`, `route[0].path`
    pub key: String,
    /// As written; `None` when nothing sets it.
    pub value: Option<String>,
    /// Who set it.
    pub source: Place,
}

/// Reads the merged layers leaf by leaf. A bad leaf is noted and the reading goes on, so that one
/// run tells everything. What was never asked for is unknown: the code that reads is the one list
/// of keys.
pub(super) struct Reader<'d> {
    merged: Value,
    layers: Figment,
    pub(super) document: Option<&'d Document>,
    pub(super) asked: Vec<Asked>,
    pub(super) shown: Vec<Shown>,
    pub(super) problems: Vec<Problem>,
}

#[derive(Debug)]
pub(super) struct Asked {
    /// As in a path, a place in a list and a name of the user's as `*`.
    pub(super) pattern: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Leaf,
    Section,
    /// A table whose keys are names of the user's.
    Named,
    Tables,
}

/// One table of the settings.
pub(super) struct Section<'r, 'd> {
    reader: &'r mut Reader<'d>,
    path: String,
}

impl<'d> Reader<'d> {
    /// Merges: what comes later wins, key by key. Only the file's places are looked up.
    pub(super) fn new(
        defaults: &Document,
        document: Option<&'d Document>,
        variables: &[Variable],
    ) -> Result<Self, Problem> {
        let merged = |layers: &Figment| {
            let broken = |error| Problem::error("cannot merge the settings").caused_by(&error);
            layers.find_value("").map_err(broken)
        };
        let mut layers = Figment::from(defaults);
        if let Some(document) = document {
            layers = layers.merge(document);
        }
        for variable in variables {
            // One that crosses a table or a value would wipe it out; `unknown` tells of it.
            if fits(&merged(&layers)?, &variable.path) {
                layers = layers.merge(variable);
            }
        }
        Ok(Self {
            merged: merged(&layers)?,
            layers,
            document,
            asked: Vec::new(),
            shown: Vec::new(),
            problems: Vec::new(),
        })
    }

    /// The table that holds all others.
    pub(super) fn root(&mut self) -> Section<'_, 'd> {
        Section { reader: self, path: String::new() }
    }

    /// What was asked for and does not stand in the file.
    #[cfg(test)]
    pub(super) fn keys_not_in_the_file(&self) -> Vec<&str> {
        let written = self.document.map(Document::keys).unwrap_or_default();
        let written: Vec<_> = written.iter().map(|(path, _)| self.pattern(path)).collect();
        let leaves = self.asked.iter().filter(|asked| asked.kind == Kind::Leaf);
        let leaves = leaves.map(|asked| asked.pattern.as_str());
        leaves.filter(|leaf| !written.iter().any(|path| path == leaf)).collect()
    }

    fn ask(&mut self, path: &str, kind: Kind) -> Option<At<Value>> {
        if self.kind(path).is_none() {
            let pattern = self.pattern(path);
            self.asked.push(Asked { pattern, kind });
        }
        let value = find(&self.merged, path)?.clone();
        let place = self.place(&value, path);
        Some(At { value, place })
    }

    /// Where the value was written: figment knows the layer, the document knows the spot.
    fn place(&self, value: &Value, path: &str) -> Place {
        match self.layers.get_metadata(value.tag()).and_then(|layer| layer.source.as_ref()) {
            Some(Source::Custom(name)) => Place::Variable(name.clone()),
            Some(_) => self.document.map(|it| it.place_of(path)).unwrap_or_default(),
            None => Place::Default,
        }
    }

    fn note(&mut self, bad: Bad, mut place: Place) {
        if bad.secret {
            place.hide();
        }
        self.problems.push(with_hint(Problem::error(bad.what).at(&place), bad.hint));
    }

    pub(super) fn kind(&self, path: &str) -> Option<Kind> {
        let wanted = self.pattern(path);
        self.asked.iter().find(|asked| asked.pattern == wanted).map(|asked| asked.kind)
    }

    /// The path with `*` for what may be any: there are as many names and places as the user likes,
    /// and what is asked of each is the same.
    pub(super) fn pattern(&self, path: &str) -> String {
        path.split('.').fold(String::new(), |above, step| {
            let step = if is_index(step) || self.is_named(&above) { "*" } else { step };
            if above.is_empty() { step.into() } else { format!("{above}.{step}") }
        })
    }

    /// Whether a pattern is that of a table whose keys are names of the user's.
    pub(super) fn is_named(&self, pattern: &str) -> bool {
        self.asked.iter().any(|asked| asked.kind == Kind::Named && asked.pattern == pattern)
    }
}

impl<'d> Section<'_, 'd> {
    /// A value, if any layer has one.
    pub(super) fn value<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(Raw<'_>) -> Leaf<T>,
    ) -> Option<At<T>> {
        let path = self.inside(key);
        let found = self.reader.ask(&path, Kind::Leaf);
        self.reader.shown.push(Shown {
            key: readable(&path),
            value: found.as_ref().map(|found| written(&found.value)),
            source: found.as_ref().map_or(Place::Default, |found| found.place.clone()),
        });
        let At { value, place } = found?;
        let variable = matches!(place, Place::Variable(_));
        if variable && value.as_dict().is_some() {
            return None; // A variable for a key below this one; `note_unknown` tells of it.
        }
        match parse(Raw { value: &value, variable }) {
            Ok(value) => Some(At { value, place }),
            Err(bad) => {
                self.reader.note(bad, place);
                None
            }
        }
    }

    /// A value in a list's table that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        example: &str,
        parse: impl FnOnce(Raw<'_>) -> Leaf<T>,
    ) -> Option<At<T>> {
        if self.is_set(key) {
            return self.value(key, parse);
        }
        let place = self.place();
        let hint = format!("add it, for example `{key} = \"{example}\"`");
        self.note(Problem::error(format!("`{key}` is missing")).at(&place).hint(hint));
        self.value(key, parse)
    }

    /// One value or a list of them. A variable separates them by commas, or holds a TOML list.
    pub(super) fn list<T>(&mut self, key: &str, parse: impl Fn(&str) -> Leaf<T>) -> Vec<At<T>> {
        let path = self.inside(key);
        let Some(At { value, place }) = self.value(key, |raw| Ok(raw.value.clone())) else {
            return Vec::new();
        };
        if let (Some(""), Place::Variable(_)) = (value.as_str().map(str::trim), &place) {
            let bad = Bad::new("the value is empty");
            let hint = "unset the variable, or give it a value; `off` turns it off";
            self.reader.note(bad.hint(hint), place);
            return Vec::new();
        }
        let texts = match (&value, &place) {
            (Value::String(_, text), Place::Variable(_)) => separated(text),
            (Value::Array(_, values), _) => values.clone(),
            _ => vec![value.clone()],
        };
        if matches!(texts.as_slice(), [one] if one.as_str().is_some_and(is_off)) {
            return Vec::new();
        }
        let parse = super::leaf::text(parse);
        let mut list = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let place = match (&value, &place) {
                (Value::Array(..), Place::File(_)) => {
                    self.reader.place(&value, &format!("{path}.{index}"))
                }
                _ => place.clone(),
            };
            let variable = matches!(place, Place::Variable(_));
            match parse(Raw { value: text, variable }) {
                Ok(value) => list.push(At { value, place }),
                Err(bad) => self.reader.note(bad, place),
            }
        }
        list
    }

    /// A table within.
    pub(super) fn section(&mut self, key: &str) -> Section<'_, 'd> {
        self.table(key, Kind::Section)
    }

    /// A table within whose keys are names of the user's, and those keys. They come from the file
    /// alone: the name of a variable keeps neither case nor dots nor dashes.
    pub(super) fn named(&mut self, key: &str) -> (Section<'_, 'd>, Vec<String>) {
        let table = self.table(key, Kind::Named);
        let names = table.reader.document.map(|document| document.names(&table.path));
        (table, names.unwrap_or_default())
    }

    fn table(&mut self, key: &str, kind_of_table: Kind) -> Section<'_, 'd> {
        let path = self.inside(key);
        // One that a variable stands in the place of is told of by `note_unknown`.
        if let Some(At { value, place }) = self.reader.ask(&path, kind_of_table)
            && value.as_dict().is_none()
            && !matches!(place, Place::Variable(_))
        {
            let bad = Bad::new(format!("`{}` is a table, found {}", key_of(key), kind(&value)));
            let hint = format!("write `[{}]`, and its keys below", readable(&path));
            self.reader.note(bad.hint(hint), place);
        }
        Section { reader: self.reader, path }
    }

    /// A table of texts whose keys are names of the user's.
    pub(super) fn texts(&mut self, key: &str) -> BTreeMap<String, At<String>> {
        let (mut table, names) = self.named(key);
        let texts = names
            .into_iter()
            .filter_map(|name| Some((key_of(&name), table.value(&name, super::leaf::verbatim)?)));
        texts.collect()
    }

    /// Each table of a list, `[[key]]`.
    pub(super) fn tables<T>(
        &mut self,
        key: &str,
        mut each: impl FnMut(&mut Section<'_, 'd>) -> Option<T>,
    ) -> Vec<T> {
        let path = self.inside(key);
        let Some(At { value, place }) = self.reader.ask(&path, Kind::Tables) else {
            return Vec::new();
        };
        let tables = value.as_array().filter(|list| list.iter().all(|it| it.as_dict().is_some()));
        let Some(tables) = tables else {
            if !matches!(place, Place::Variable(_)) {
                let what = format!("`{path}` is a list of tables, found {}", kind(&value));
                self.reader.note(Bad::new(what).hint(format!("write `[[{path}]]`")), place);
            }
            return Vec::new();
        };
        (0..tables.len())
            .filter_map(|index| {
                let path = format!("{path}.{index}");
                self.reader.ask(&path, Kind::Section);
                each(&mut Section { reader: self.reader, path })
            })
            .collect()
    }

    /// Shows a value in its normal form in place of what was written.
    pub(super) fn show(&mut self, key: &str, value: impl Into<String>) {
        let key = readable(&self.inside(key));
        // From the end: it was read a moment ago, and there may be thousands before it.
        if let Some(shown) = self.reader.shown.iter_mut().rev().find(|shown| shown.key == key) {
            shown.value = Some(value.into());
        }
    }

    /// Notes what stands for a key that nothing sets, because another setting decides it.
    pub(super) fn derived(&mut self, key: &str, value: impl Into<String>) {
        let key = readable(&self.inside(key));
        let shown = self.reader.shown.iter_mut().rev().find(|shown| shown.key == key);
        if let Some(shown) = shown.filter(|shown| shown.value.is_none()) {
            shown.value = Some(value.into());
        }
    }

    /// Whether any layer has a value.
    pub(super) fn is_set(&self, key: &str) -> bool {
        find(&self.reader.merged, &self.inside(key)).is_some()
    }

    /// Where the table stands.
    pub(super) fn place(&self) -> Place {
        find(&self.reader.merged, &self.path)
            .map(|value| self.reader.place(value, &self.path))
            .unwrap_or_default()
    }

    /// Where the value of a key stands.
    pub(super) fn place_of(&self, key: &str) -> Place {
        let path = self.inside(key);
        find(&self.reader.merged, &path)
            .map(|value| self.reader.place(value, &path))
            .unwrap_or_default()
    }

    /// Whether a list has nothing in it.
    pub(super) fn is_empty(&self, key: &str) -> bool {
        let list = find(&self.reader.merged, &self.inside(key));
        list.and_then(Value::as_array).is_some_and(<[_]>::is_empty)
    }

    pub(super) fn note(&mut self, problem: Problem) {
        self.reader.problems.push(problem);
    }

    /// How many there are by now.
    pub(super) fn problems(&self) -> usize {
        self.reader.problems.len()
    }

    fn inside(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }
}

/// Whether a variable can be merged without hiding values that are not its own.
fn fits(merged: &Value, path: &str) -> bool {
    ancestors(path).all(|above| find(merged, above).is_none_or(|it| it.as_dict().is_some()))
        && find(merged, path).is_none_or(|it| it.as_dict().is_none())
}

fn find<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').filter(|step| !step.is_empty()).try_fold(value, |value, step| match value {
        Value::Dict(_, dict) => dict.get(step),
        Value::Array(_, array) => array.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

fn separated(text: &str) -> Vec<Value> {
    let list = text.trim();
    if list.starts_with('[') {
        // No list when it is an address in brackets.
        let toml = format!("list = {list}");
        if let Ok(document) = Document::parse(None, &toml)
            && let Ok(Some(values)) =
                Figment::from(&document).find_value("list").map(Value::into_array)
        {
            return values;
        }
    }
    list.split(',').map(str::trim).filter(|it| !it.is_empty()).map(Value::from).collect()
}

/// A value as one line.
fn written(value: &Value) -> String {
    match value {
        Value::String(_, text) => {
            text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
        }
        Value::Bool(_, flag) => flag.to_string(),
        Value::Array(_, values) if values.is_empty() => "off".into(),
        Value::Array(_, values) => values.iter().map(written).collect::<Vec<_>>().join(", "),
        other => other.to_i128().map_or_else(|| kind(other).into(), |number| number.to_string()),
    }
}

pub(super) fn with_hint(problem: Problem, hint: Option<String>) -> Problem {
    match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}
