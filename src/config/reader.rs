use super::layers::Layers;
use super::leaf::{Invalid, ParseResult, RawValue, is_off, kind, shown};
use super::location::Location;
use super::path::{KeyPath, Pattern, Segment, child, element, readable};
use super::problem::Problem;
use super::source::Document;
use figment::value::Value;
use std::collections::BTreeMap;

/// A value and where it is written.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) location: Location,
}

/// A setting as `config show` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveSetting {
    /// `limits.header_bytes`, `route[0].path`
    pub key: String,
    /// As written, normalized or derived; `None` if it is not set.
    pub value: Option<String>,
    /// Where it is set.
    pub source: Location,
}

/// Reads the merged layers key by key. It collects errors and continues, so that one run reports all
/// of them. Keys that it never looks up are unknown: the code that reads is the only list of keys.
pub(super) struct Reader<'d> {
    pub(super) layers: &'d Layers<'d>,
    pub(super) known: Vec<KnownKey>,
    pub(super) shown: Vec<EffectiveSetting>,
    pub(super) problems: Vec<Problem>,
}

#[derive(Debug)]
pub(super) struct KnownKey {
    pub(super) pattern: Pattern,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Leaf,
    Section,
    /// A table with user-chosen keys.
    Named,
    Tables,
}

/// One table of the settings.
pub(super) struct Section<'r, 'd> {
    reader: &'r mut Reader<'d>,
    path: KeyPath,
}

impl<'d> Reader<'d> {
    pub(super) fn new(layers: &'d Layers<'d>) -> Self {
        Self { layers, known: Vec::new(), shown: Vec::new(), problems: Vec::new() }
    }

    /// The root table.
    pub(super) fn root(&mut self) -> Section<'_, 'd> {
        Section { reader: self, path: KeyPath::new() }
    }

    /// The known keys that are not in the file.
    #[cfg(test)]
    pub(super) fn keys_not_in_the_file(&self) -> Vec<&Pattern> {
        let written = self.layers.document.map(Document::keys).unwrap_or_default();
        let leaves = self.known.iter().filter(|known| known.kind == Kind::Leaf);
        let leaves = leaves.map(|known| &known.pattern);
        leaves.filter(|leaf| !written.iter().any(|(path, _)| leaf.matches(path))).collect()
    }

    fn look_up(&mut self, path: &[Segment], kind: Kind) -> Option<Located<&'d Value>> {
        if self.kind(path).is_none() {
            let pattern = self.pattern(path);
            self.known.push(KnownKey { pattern, kind });
        }
        let value = self.layers.find(path).filter(|value| !self.layers.is_gap(value))?;
        Some(Located { value, location: self.layers.location_of(path) })
    }

    fn note(&mut self, bad: Invalid, mut location: Location) {
        if bad.secret {
            location.hide();
        }
        let problem = Problem::error(bad.what).at(&location);
        self.problems.push(match bad.hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        });
    }

    pub(super) fn kind(&self, path: &[Segment]) -> Option<Kind> {
        self.known.iter().find(|known| known.pattern.matches(path)).map(|known| known.kind)
    }

    fn pattern(&self, path: &[Segment]) -> Pattern {
        let step = |(above, segment): (usize, &Segment)| match segment {
            Segment::Key(key) => {
                let above = path.get(..above).unwrap_or_default();
                (self.kind(above) != Some(Kind::Named)).then(|| key.clone())
            }
            Segment::Index(_) => None,
        };
        Pattern(path.iter().enumerate().map(step).collect())
    }
}

impl<'d> Section<'_, 'd> {
    /// A value, if any layer has one.
    pub(super) fn value<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(RawValue<'_>) -> ParseResult<T>,
    ) -> Option<Located<T>> {
        let path = self.inside(key);
        let found = self.reader.look_up(&path, Kind::Leaf);
        self.reader.shown.push(EffectiveSetting {
            key: readable(&path),
            value: found.as_ref().map(|found| in_one_line(found.value)),
            source: found.as_ref().map_or(Location::Default, |found| found.location.clone()),
        });
        let Located { value, location } = found?;
        let variable = matches!(location, Location::Variable(_));
        if variable && value.as_dict().is_some() {
            return None; // A variable for a key below this one; `note_unknown` reports it.
        }
        match parse(RawValue { value, variable }) {
            Ok(value) => Some(Located { value, location }),
            Err(bad) => {
                self.reader.note(bad, location);
                None
            }
        }
    }

    /// A required value of a table in a list.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        example: &str,
        parse: impl FnOnce(RawValue<'_>) -> ParseResult<T>,
    ) -> Option<Located<T>> {
        if self.is_set(key) {
            return self.value(key, parse);
        }
        let location = self.location();
        let hint = format!("add it, for example `{key} = \"{example}\"`");
        self.note(Problem::error(format!("`{key}` is missing")).at(&location).hint(hint));
        self.value(key, parse)
    }

    /// One value or a list of values. A variable contains a comma-separated or a TOML list.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> ParseResult<T>,
    ) -> Vec<Located<T>> {
        let path = self.inside(key);
        let Some(Located { value, location }) = self.value(key, |raw| Ok(raw.value.clone())) else {
            return Vec::new();
        };
        if let (Some(""), Location::Variable(_)) = (value.as_str().map(str::trim), &location) {
            let bad = Invalid::new("the value is empty");
            let hint = "unset the variable, or give it a value; `off` turns it off";
            self.reader.note(bad.hint(hint), location);
            return Vec::new();
        }
        if let Value::Bool(_, flag) = value {
            self.reader.note(Invalid::switch(flag), location);
            return Vec::new();
        }
        let texts = match (&value, &location) {
            (Value::String(_, text), Location::Variable(_)) => parse_list(text),
            (Value::Array(_, values), _) => values.clone(),
            _ => vec![value.clone()],
        };
        if matches!(texts.as_slice(), [one] if one.as_str().is_some_and(is_off)) {
            return Vec::new();
        }
        let parse = super::leaf::text(parse);
        let mut list = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let location = match (&value, &location) {
                (Value::Array(..), Location::File(_)) => {
                    self.reader.layers.location_of(&element(&path, index))
                }
                _ => location.clone(),
            };
            let variable = matches!(location, Location::Variable(_));
            match parse(RawValue { value: text, variable }) {
                Ok(value) => list.push(Located { value, location }),
                Err(bad) => self.reader.note(bad, location),
            }
        }
        list
    }

    /// A table in this table.
    pub(super) fn section(&mut self, key: &str) -> Section<'_, 'd> {
        self.table(key, Kind::Section)
    }

    /// A table with user-chosen keys, and those keys. They come only from the file: names of variables
    /// preserve neither case nor dots nor dashes.
    pub(super) fn named(&mut self, key: &str) -> (Section<'_, 'd>, Vec<String>) {
        let table = self.table(key, Kind::Named);
        let names = table.reader.layers.document.map(|document| document.names(&table.path));
        (table, names.unwrap_or_default())
    }

    fn table(&mut self, key: &str, kind_of_table: Kind) -> Section<'_, 'd> {
        let path = self.inside(key);
        // `note_unknown` reports a variable for the table itself.
        if let Some(Located { value, location }) = self.reader.look_up(&path, kind_of_table)
            && value.as_dict().is_none()
            && !matches!(location, Location::Variable(_))
        {
            let bad = Invalid::new(format!("`{key}` is a table, found {}", kind(value)));
            let hint = format!("write `[{}]`, and its keys below", readable(&path));
            self.reader.note(bad.hint(hint), location);
        }
        Section { reader: self.reader, path }
    }

    /// A table of texts with user-chosen keys.
    pub(super) fn texts(&mut self, key: &str) -> BTreeMap<String, Located<String>> {
        let (mut table, names) = self.named(key);
        let texts = names
            .into_iter()
            .filter_map(|name| Some((name.clone(), table.value(&name, super::leaf::verbatim)?)));
        texts.collect()
    }

    /// The tables of a list, `[[key]]`.
    pub(super) fn tables<T>(
        &mut self,
        key: &str,
        mut each: impl FnMut(&mut Section<'_, 'd>) -> Option<T>,
    ) -> Vec<T> {
        let path = self.inside(key);
        let Some(Located { value, location }) = self.reader.look_up(&path, Kind::Tables) else {
            return Vec::new();
        };
        let tables = value.as_array().filter(|list| list.iter().all(|it| it.as_dict().is_some()));
        let Some(tables) = tables else {
            if !matches!(location, Location::Variable(_)) {
                let list = readable(&path);
                let what = format!("`{list}` is a list of tables, found {}", kind(value));
                self.reader.note(Invalid::new(what).hint(format!("write `[[{list}]]`")), location);
            }
            return Vec::new();
        };
        (0..tables.len())
            .filter_map(|index| {
                let path = element(&path, index);
                self.reader.look_up(&path, Kind::Section);
                each(&mut Section { reader: self.reader, path })
            })
            .collect()
    }

    /// Shows the normalized value instead of the written one.
    pub(super) fn show(&mut self, key: &str, value: impl Into<String>) {
        let key = readable(&self.inside(key));
        // From the end: it was just read, and there may be thousands before it.
        if let Some(shown) = self.reader.shown.iter_mut().rev().find(|shown| shown.key == key) {
            shown.value = Some(value.into());
        }
    }

    /// Shows the value of a key that is not set, because it is derived or has a default.
    pub(super) fn derived(&mut self, key: &str, value: impl Into<String>) {
        let key = readable(&self.inside(key));
        let shown = self.reader.shown.iter_mut().rev().find(|shown| shown.key == key);
        if let Some(shown) = shown.filter(|shown| shown.value.is_none()) {
            shown.value = Some(value.into());
        }
    }

    /// Whether any layer has a value.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.reader.layers.find(&self.inside(key)).is_some()
    }

    /// Whether the file has syntax errors in values: those values are unknown.
    pub(super) fn has_gaps(&self) -> bool {
        self.reader.layers.document.is_some_and(Document::has_gaps)
    }

    /// Whether the value has a syntax error.
    pub(super) fn is_gap(&self, key: &str) -> bool {
        let value = self.reader.layers.find(&self.inside(key));
        value.is_some_and(|value| self.reader.layers.is_gap(value))
    }

    /// Whether none of the tables in a list has this key.
    pub(super) fn no_element_has(&self, list: &str, key: &str) -> bool {
        let tables = self.reader.layers.find(&self.inside(list)).and_then(Value::as_array);
        let mut tables = tables.into_iter().flatten().filter_map(Value::as_dict);
        !tables.any(|table| table.contains_key(key))
    }

    /// Where the table is.
    pub(super) fn location(&self) -> Location {
        self.reader.layers.location_of(&self.path)
    }

    /// Where the value of a key is.
    pub(super) fn location_of(&self, key: &str) -> Location {
        self.reader.layers.location_of(&self.inside(key))
    }

    /// Whether a list is empty.
    pub(super) fn is_empty(&self, key: &str) -> bool {
        let list = self.reader.layers.find(&self.inside(key)).and_then(Value::as_array);
        list.is_some_and(<[_]>::is_empty)
    }

    pub(super) fn note(&mut self, problem: Problem) {
        self.reader.problems.push(problem);
    }

    /// The number of problems so far.
    pub(super) fn problem_count(&self) -> usize {
        self.reader.problems.len()
    }

    fn inside(&self, key: &str) -> KeyPath {
        child(&self.path, key)
    }
}

fn parse_list(text: &str) -> Vec<Value> {
    let list = text.trim();
    if list.starts_with('[') {
        // An IPv6 address in brackets is not a list.
        let toml = format!("list = {list}");
        if let Ok(document) = Document::parse(None, &toml)
            && let Some(Value::Array(_, values)) = document.value(&child(&[], "list"))
        {
            return values;
        }
    }
    list.split(',').map(str::trim).filter(|it| !it.is_empty()).map(Value::from).collect()
}

/// A value as one line.
fn in_one_line(value: &Value) -> String {
    match value {
        Value::String(_, text) if text.is_empty() => "\"\"".into(),
        Value::String(_, text) => shown(text),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Array(_, values) if values.is_empty() => "off".into(),
        Value::Array(_, values) => values.iter().map(in_one_line).collect::<Vec<_>>().join(", "),
        other => other.to_i128().map_or_else(|| kind(other).into(), |number| number.to_string()),
    }
}
