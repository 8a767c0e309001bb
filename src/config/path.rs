//! Paths to keys: `route[0].path` is the key `path` of the first `[[route]]`.

use toml_edit::Key;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

/// From the root of the settings to a value.
pub(super) type KeyPath = Vec<Segment>;

/// The path of a key in the table at `path`.
pub(super) fn child(path: &[Segment], key: &str) -> KeyPath {
    [path, &[Segment::Key(key.to_owned())]].concat()
}

/// The path of an element of the list at `path`.
pub(super) fn element(path: &[Segment], index: usize) -> KeyPath {
    [path, &[Segment::Index(index)]].concat()
}

/// `a.b.c` → `a`, `a.b`
pub(super) fn ancestors(path: &[Segment]) -> impl DoubleEndedIterator<Item = &[Segment]> {
    (1..path.len()).filter_map(|length| path.get(..length))
}

/// The keys of a path, without the list indices.
pub(super) fn keys(path: &[Segment]) -> Vec<&str> {
    let keys = path.iter().filter_map(|segment| match segment {
        Segment::Key(key) => Some(key.as_str()),
        Segment::Index(_) => None,
    });
    keys.collect()
}

/// The path as text, with keys in quotes where TOML requires them.
pub(super) fn readable(path: &[Segment]) -> String {
    let mut readable = String::new();
    for segment in path {
        match segment {
            Segment::Key(key) => {
                let dot = if readable.is_empty() { "" } else { "." };
                readable.extend([dot, &*Key::new(key).display_repr()]);
            }
            Segment::Index(index) => readable.extend(["[", &index.to_string(), "]"]),
        }
    }
    readable
}

/// A path with wildcards (`None`) for list indices and for keys that users choose: all of them are
/// read in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(pub(super) Vec<Option<String>>);

impl Pattern {
    pub(super) fn matches(&self, path: &[Segment]) -> bool {
        let is = |(key, segment): (&Option<String>, &Segment)| match (key, segment) {
            (None, _) => true,
            (Some(key), Segment::Key(other)) => key == other,
            (Some(_), Segment::Index(_)) => false,
        };
        self.0.len() == path.len() && self.0.iter().zip(path).all(is)
    }

    /// The table and the key in it, unless users choose the key.
    pub(super) fn split(&self) -> Option<(Self, &str)> {
        let (key, table) = self.0.split_last()?;
        Some((Self(table.to_vec()), key.as_deref()?))
    }

    /// The keys, unless one is a wildcard.
    pub(super) fn keys(&self) -> Option<Vec<&str>> {
        self.0.iter().map(Option::as_deref).collect()
    }
}
