//! Keys that nobody asked for, and what may have been meant by them.

use super::path::{ancestors, key_of, split};
use super::place::Place;
use super::problem::Problem;
use super::reader::{Kind, Reader, with_hint};
use super::source::{Document, Variable};

impl Reader<'_> {
    /// Notes every key of the file and every variable that nothing asked for.
    pub(super) fn note_unknown(&mut self, variables: &[Variable]) {
        let mut unknown = Vec::new();
        for (path, place) in self.document.map(Document::keys).unwrap_or_default() {
            let (parent, key) = split(&path);
            // Below what is itself unknown, or no table to the reader, nothing more is told.
            let below_table = parent.is_empty() || self.kind(parent) == Some(Kind::Section);
            if below_table && self.kind(&path).is_none() {
                let problem = Problem::error(format!("unknown key `{}`", key_of(key))).at(&place);
                let problem = problem.beside(self.expected(parent));
                unknown.push(with_hint(problem, self.advice(&path)));
            }
        }
        for variable in variables {
            let problem = Problem::error("no setting has this name");
            let path = variable.path.as_str();
            let of_kind = |wanted| {
                let upwards = std::iter::once(path).chain(ancestors(path));
                // The topmost, since texts by name stand in tables by name.
                upwards.filter(|path| self.kind(path) == Some(wanted)).last()
            };
            let (named, list) = (of_kind(Kind::Named), of_kind(Kind::Tables));
            let problem = match (self.kind(path), named, list, of_kind(Kind::Leaf)) {
                (_, Some(table), ..) => {
                    Problem::error("a table whose keys you name cannot be set by a variable")
                        .hint(format!("write `[{table}.KEY]` in the file"))
                }
                (_, _, Some(list), _) => {
                    Problem::error("a list of tables cannot be set by a variable")
                        .hint(format!("write `[[{list}]]` in the file"))
                }
                (Some(Kind::Leaf), ..) => continue,
                (Some(_), ..) => {
                    let hint = self.example(path).map_or_else(
                        || format!("write `[{path}]` in the file"),
                        |example| format!("set its keys, for example `{example}`"),
                    );
                    Problem::error(format!("`{path}` is a table")).hint(hint)
                }
                (None, _, _, Some(leaf)) => problem.hint(format!(
                    "`{leaf}` has no keys below it; use `{}`",
                    Variable::spelt(leaf)
                )),
                (None, ..) => with_hint(problem, self.advice_for_variable(path)),
            };
            unknown.push(problem.at(&Place::Variable(variable.name.clone())));
        }
        self.problems.append(&mut unknown);
    }

    fn siblings(&self, parent: &str) -> impl Iterator<Item = &str> {
        let parent = self.pattern(parent);
        self.asked.iter().filter_map(move |asked| {
            let (of, key) = split(&asked.pattern);
            (of == parent && key != "*").then_some(key)
        })
    }

    fn expected(&self, parent: &str) -> String {
        let keys: Vec<_> = self.siblings(parent).map(|key| format!("`{key}`")).collect();
        format!("expected one of {}", keys.join(", "))
    }

    /// What may have been meant by an unknown key.
    fn advice(&self, path: &str) -> Option<String> {
        let (parent, key) = split(path);
        let elsewhere = self.asked.iter().map(|asked| split(&asked.pattern));
        if let Some((table, _)) = elsewhere.into_iter().find(|(_, name)| *name == key) {
            return Some(match table.strip_suffix(".*") {
                // Below a table's header every key belongs to that table.
                _ if table.is_empty() => {
                    format!("`{key}` belongs at the top of the file, before the first `[table]`")
                }
                Some(named) if self.is_named(named) => {
                    format!("`{key}` belongs in `[{named}.KEY]`")
                }
                Some(list) => format!("`{key}` belongs in `[[{list}]]`"),
                None => format!("`{key}` belongs in `[{table}]`"),
            });
        }
        nearest(key, self.siblings(parent)).map(|near| format!("did you mean `{near}`?"))
    }

    fn advice_for_variable(&self, path: &str) -> Option<String> {
        let leaves = self.asked.iter().filter(|asked| asked.kind == Kind::Leaf);
        let leaves = leaves.map(|asked| asked.pattern.as_str()).filter(|it| !it.contains('*'));
        // `LISTEN_HTTP` is near `LISTEN__HTTP`.
        let near = nearest(path, leaves)?;
        Some(format!("did you mean `{}`?", Variable::spelt(near)))
    }

    /// A variable for a key of the table, if it has one that takes any.
    fn example(&self, section: &str) -> Option<String> {
        let mut leaves = self.asked.iter().filter(|asked| asked.kind == Kind::Leaf);
        let leaf = leaves.find(|asked| split(&asked.pattern).0 == section)?;
        Some(Variable::spelt(&leaf.pattern))
    }
}

fn nearest<'k>(word: &str, keys: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let normal = |text: &str| text.to_lowercase().replace(['-', '_', '.'], "");
    let word = normal(word);
    keys.map(|key| (strsim::jaro_winkler(&normal(key), &word), key))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, key)| key)
}
