use super::leaf::{Bad, Leaf, Raw, is_off};
use super::path::{KeyPath, Pattern, Segment, ancestors, child, element, readable};
use super::place::Place;
use super::problem::Problem;
use super::source::{Document, Node, Variable};
use super::value::Value;
use std::collections::BTreeMap;
use std::ops::Range;

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

/// Reads leaf by leaf, each from the topmost layer that has it: environment, file, defaults. A bad
/// leaf is noted and the reading goes on, so that one run tells everything. What was never asked for
/// is unknown: the code that reads is the one list of keys.
pub(super) struct Reader<'d> {
    variables: Vec<&'d Variable>,
    pub(super) document: Option<&'d Document>,
    defaults: &'d Document,
    pub(super) asked: Vec<Asked>,
    pub(super) shown: Vec<Shown>,
    pub(super) problems: Vec<Problem>,
}

/// What the topmost layer has at a path.
enum Found<'d> {
    Variable(&'d Variable),
    /// A variable for a key below: there is a table.
    Below(&'d Variable),
    Written(&'d Document, (Option<Range<usize>>, Node<'d>)),
}

impl Found<'_> {
    fn value(&self) -> Value {
        match self {
            Self::Variable(variable) => Value::Text(variable.value.clone()),
            Self::Below(_) => Value::Table,
            Self::Written(_, (_, node)) => node.value(),
        }
    }

    fn place(self) -> Place {
        match self {
            Self::Variable(variable) | Self::Below(variable) => {
                Place::Variable(variable.name.clone())
            }
            Self::Written(document, found) => document.place_of(found),
        }
    }
}

#[derive(Debug)]
pub(super) struct Asked {
    pub(super) pattern: Pattern,
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
    path: KeyPath,
}

impl<'d> Reader<'d> {
    pub(super) fn new(
        defaults: &'d Document,
        document: Option<&'d Document>,
        variables: &'d [Variable],
    ) -> Self {
        let mut reader = Self {
            variables: Vec::new(),
            document,
            defaults,
            asked: Vec::new(),
            shown: Vec::new(),
            problems: Vec::new(),
        };
        for variable in variables {
            // One that crosses a table or a value would hide it; `unknown` tells of it.
            let is_table = |path: &[Segment]| reader.find(path).map(|it| it.value().is_table());
            let above_are_tables = ancestors(&variable.path).all(|it| is_table(it) != Some(false));
            if above_are_tables && is_table(&variable.path) != Some(true) {
                reader.variables.push(variable);
            }
        }
        reader
    }

    /// The table that holds all others.
    pub(super) fn root(&mut self) -> Section<'_, 'd> {
        Section { reader: self, path: KeyPath::new() }
    }

    /// What was asked for and does not stand in the file.
    #[cfg(test)]
    pub(super) fn keys_not_in_the_file(&self) -> Vec<&Pattern> {
        let written = self.document.map(Document::keys).unwrap_or_default();
        let leaves = self.asked.iter().filter(|asked| asked.kind == Kind::Leaf);
        let leaves = leaves.map(|asked| &asked.pattern);
        leaves.filter(|leaf| !written.iter().any(|(path, _)| leaf.matches(path))).collect()
    }

    fn find(&self, path: &[Segment]) -> Option<Found<'d>> {
        if let Some(variable) = self.variables.iter().find(|it| it.path == path) {
            return Some(Found::Variable(variable));
        }
        let below = || self.variables.iter().find(|it| it.path.starts_with(path));
        self.written(path).or_else(|| below().map(|variable| Found::Below(variable)))
    }

    /// What the file has at a path, else the defaults. Tables are merged key by key; where the file
    /// has anything else, what the defaults have there does not count.
    fn written(&self, path: &[Segment]) -> Option<Found<'d>> {
        let mut file = self.document.map(|document| (None, document.root()));
        let mut default = Some((None, self.defaults.root()));
        for segment in path {
            if file.as_ref().is_some_and(|(_, node)| !node.is_table()) {
                default = None;
            }
            file = file.and_then(|(_, node)| node.child(segment));
            default = default.and_then(|(_, node)| node.child(segment));
        }
        let in_file = self.document.zip(file).map(|(document, it)| Found::Written(document, it));
        in_file.or_else(|| default.map(|it| Found::Written(self.defaults, it)))
    }

    fn ask(&mut self, path: &[Segment], kind: Kind) -> Option<At<Value>> {
        if self.kind(path).is_none() {
            let pattern = self.pattern(path);
            self.asked.push(Asked { pattern, kind });
        }
        let found = self.find(path)?;
        Some(At { value: found.value(), place: found.place() })
    }

    fn place(&self, path: &[Segment]) -> Place {
        self.find(path).map(Found::place).unwrap_or_default()
    }

    fn note(&mut self, bad: Bad, mut place: Place) {
        if bad.secret {
            place.hide();
        }
        self.problems.push(with_hint(Problem::error(bad.what).at(&place), bad.hint));
    }

    pub(super) fn kind(&self, path: &[Segment]) -> Option<Kind> {
        self.asked.iter().find(|asked| asked.pattern.matches(path)).map(|asked| asked.kind)
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
        parse: impl FnOnce(Raw<'_>) -> Leaf<T>,
    ) -> Option<At<T>> {
        let path = self.inside(key);
        let found = self.reader.ask(&path, Kind::Leaf);
        self.reader.shown.push(Shown {
            key: readable(&path),
            value: found.as_ref().map(|found| found.value.in_one_line()),
            source: found.as_ref().map_or(Place::Default, |found| found.place.clone()),
        });
        let At { value, place } = found?;
        let variable = matches!(place, Place::Variable(_));
        if variable && value.is_table() {
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
        if let (Some(""), Place::Variable(_)) = (value.as_text().map(str::trim), &place) {
            let bad = Bad::new("the value is empty");
            let hint = "unset the variable, or give it a value; `off` turns it off";
            self.reader.note(bad.hint(hint), place);
            return Vec::new();
        }
        let texts = match (&value, &place) {
            (Value::Text(text), Place::Variable(_)) => separated(text),
            (Value::List(values), _) => values.clone(),
            _ => vec![value.clone()],
        };
        if matches!(texts.as_slice(), [one] if one.as_text().is_some_and(is_off)) {
            return Vec::new();
        }
        let parse = super::leaf::text(parse);
        let mut list = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let place = match (&value, &place) {
                (Value::List(_), Place::File(_)) => self.reader.place(&element(&path, index)),
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
        let mut in_file = table.reader.document.map(Document::root);
        for segment in &table.path {
            in_file = in_file.and_then(|node| node.child(segment)).map(|(_, node)| node);
        }
        (table, in_file.map(Node::keys).unwrap_or_default())
    }

    fn table(&mut self, key: &str, kind_of_table: Kind) -> Section<'_, 'd> {
        let path = self.inside(key);
        // One that a variable stands in the place of is told of by `note_unknown`.
        if let Some(At { value, place }) = self.reader.ask(&path, kind_of_table)
            && !value.is_table()
            && !matches!(place, Place::Variable(_))
        {
            let bad = Bad::new(format!("`{key}` is a table, found {}", value.kind()));
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
            .filter_map(|name| Some((name.clone(), table.value(&name, super::leaf::verbatim)?)));
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
        let tables = value.as_list().filter(|list| list.iter().all(Value::is_table));
        let Some(tables) = tables else {
            if !matches!(place, Place::Variable(_)) {
                let list = readable(&path);
                let what = format!("`{list}` is a list of tables, found {}", value.kind());
                self.reader.note(Bad::new(what).hint(format!("write `[[{list}]]`")), place);
            }
            return Vec::new();
        };
        (0..tables.len())
            .filter_map(|index| {
                let path = element(&path, index);
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
        self.reader.find(&self.inside(key)).is_some()
    }

    /// Where the table stands.
    pub(super) fn place(&self) -> Place {
        self.reader.place(&self.path)
    }

    /// Where the value of a key stands.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.reader.place(&self.inside(key))
    }

    /// Whether a list has nothing in it.
    pub(super) fn is_empty(&self, key: &str) -> bool {
        let found = self.reader.find(&self.inside(key)).map(|found| found.value());
        found.is_some_and(|value| value.as_list().is_some_and(<[_]>::is_empty))
    }

    pub(super) fn note(&mut self, problem: Problem) {
        self.reader.problems.push(problem);
    }

    /// How many there are by now.
    pub(super) fn problems(&self) -> usize {
        self.reader.problems.len()
    }

    fn inside(&self, key: &str) -> KeyPath {
        child(&self.path, key)
    }
}

fn separated(text: &str) -> Vec<Value> {
    let list = text.trim();
    if list.starts_with('[') {
        // No list when it is an address in brackets.
        let toml = format!("list = {list}");
        let document = Document::parse(None, &toml).ok();
        let list = document.as_ref().and_then(|it| it.root().child(&Segment::Key("list".into())));
        if let Some(Value::List(values)) = list.map(|(_, node)| node.value()) {
            return values;
        }
    }
    list.split(',')
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .map(|it| Value::Text(it.into()))
        .collect()
}

pub(super) fn with_hint(problem: Problem, hint: Option<String>) -> Problem {
    match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}
