//! Unknown keys and variables, and suggestions for them.

use super::location::Location;
use super::path::{Pattern, Segment, ancestors, child, keys, readable};
use super::problem::Problem;
use super::reader::{Kind, Reader};
use super::similar::{is_same_name, nearest};
use super::source::{Document, Variable};

impl Reader<'_> {
    /// Reports every key of the file and every variable that was never looked up.
    pub(super) fn note_unknown(&mut self, variables: &[Variable]) {
        let mut unknown = Vec::new();
        for (path, mut location) in self.layers.document.map(Document::keys).unwrap_or_default() {
            let Some((Segment::Key(key), parent)) = path.split_last() else { continue };
            // Not below a key that is unknown itself or is not a table: one error is enough.
            let below_table = parent.is_empty() || self.kind(parent) == Some(Kind::Section);
            if below_table && self.kind(&path).is_none() {
                location.hide_rest();
                let problem = Problem::error(format!("unknown key `{key}`")).at(&location);
                let problem = problem.with_note(self.expected(parent));
                let other = || "remove it, or write one of the expected keys".to_owned();
                unknown.push(problem.hint(self.advice(parent, key).unwrap_or_else(other)));
            }
        }
        for variable in variables {
            let problem = Problem::error("no setting has this name");
            let path = variable.path.as_slice();
            let of_kind = |wanted| {
                // The topmost, since a table with user-chosen keys can contain another.
                let mut downwards = ancestors(path).chain([path]);
                downwards.find(|path| self.kind(path) == Some(wanted))
            };
            let (named, list) = (of_kind(Kind::Named), of_kind(Kind::Tables));
            let problem = match (self.kind(path), named, list, of_kind(Kind::Leaf)) {
                (_, Some(table), ..) => {
                    Problem::error("a table with keys of your choice cannot be set by a variable")
                        .hint(format!("write `[{}.KEY]` in the file", readable(table)))
                }
                (_, _, Some(list), _) => {
                    Problem::error("a list of tables cannot be set by a variable")
                        .hint(format!("write `[[{}]]` in the file", readable(list)))
                }
                (Some(Kind::Leaf), ..) => continue,
                (Some(_), ..) => {
                    let hint = self.example(path).map_or_else(
                        || format!("write `[{}]` in the file", readable(path)),
                        |example| format!("set its keys, for example `{example}`"),
                    );
                    Problem::error(format!("`{}` is a table", readable(path))).hint(hint)
                }
                (None, _, _, Some(leaf)) => {
                    let variable = Variable::name_for(&keys(leaf));
                    let leaf = readable(leaf);
                    problem.hint(format!("`{leaf}` has no keys below it; use `{variable}`"))
                }
                (None, ..) => problem.hint(self.advice_for_variable(path)),
            };
            unknown.push(problem.at(&Location::Variable(variable.name.clone())));
        }
        self.problems.append(&mut unknown);
    }

    fn siblings(&self, parent: &[Segment]) -> impl Iterator<Item = &str> {
        self.known.iter().filter_map(move |known| {
            let (table, key) = known.pattern.split()?;
            table.matches(parent).then_some(key)
        })
    }

    fn expected(&self, parent: &[Segment]) -> String {
        let keys: Vec<_> = self.siblings(parent).map(|key| format!("`{key}`")).collect();
        format!("expected one of {}", keys.join(", "))
    }

    /// The suggestion for an unknown key.
    fn advice(&self, parent: &[Segment], key: &str) -> Option<String> {
        let mut elsewhere = self.known.iter().filter_map(|known| known.pattern.split());
        if let Some((Pattern(table), _)) = elsewhere.find(|(_, name)| *name == key) {
            let names: Vec<_> = table.iter().flatten().map(String::as_str).collect();
            let name = names.join(".");
            return Some(match table.last() {
                // Below a table's header every key belongs to that table.
                None => {
                    format!("`{key}` belongs at the top of the file, before the first `[table]`")
                }
                Some(Some(_)) => format!("`{key}` belongs in `[{name}]`"),
                Some(None) if self.is_named(&names) => {
                    format!("`{key}` belongs in `[{name}.KEY]`")
                }
                Some(None) => format!("`{key}` belongs in `[[{name}]]`"),
            });
        }
        // `log_level` for `level` in `[log]`.
        let leaves = self.known.iter().filter(|known| known.kind == Kind::Leaf);
        let mut leaves = leaves.filter_map(|known| known.pattern.keys());
        let joined = key
            .contains(['_', '-', '.'])
            .then(|| leaves.find(|keys| keys.len() > 1 && is_same_name(&keys.concat(), key)));
        let joined = joined.flatten();
        if let Some((leaf, section)) = joined.as_ref().and_then(|keys| keys.split_last()) {
            return Some(format!("did you mean `{leaf}` in `[{}]`?", section.join(".")));
        }
        let near = nearest(key, self.siblings(parent), |key| (*key).to_owned());
        // `key` for `private_key`, unless there are several.
        let part = format!("_{key}");
        let mut longer = self.siblings(parent).filter(|it| it.ends_with(&part));
        let near = near.or_else(|| longer.next().filter(|_| longer.next().is_none()))?;
        let name = readable(&child(parent, near));
        Some(match self.kind(&child(parent, near)) {
            Some(Kind::Tables) => format!("did you mean `[[{name}]]`?"),
            Some(Kind::Section | Kind::Named) => format!("did you mean `[{name}]`?"),
            _ => format!("did you mean `{near}`?"),
        })
    }

    fn is_named(&self, keys: &[&str]) -> bool {
        let named = self.known.iter().filter(|known| known.kind == Kind::Named);
        named.filter_map(|known| known.pattern.keys()).any(|other| other == keys)
    }

    fn advice_for_variable(&self, path: &[Segment]) -> String {
        if is_of_kubernetes(&readable(path)) {
            return "unset it; if Kubernetes sets it, for a Service with the name `callback-edge`, set `enableServiceLinks: false` in the pod".into();
        }
        let leaves = self.known.iter().filter(|known| known.kind == Kind::Leaf);
        let leaves = leaves.filter_map(|known| known.pattern.keys());
        // `LISTEN_HTTP` is near `LISTEN__HTTP`.
        match nearest(&readable(path), leaves, |keys| keys.concat()) {
            Some(near) => format!("did you mean `{}`?", Variable::name_for(&near)),
            None => "unset it; `callback-edge config show` prints all settings, and two underscores separate section and key".into(),
        }
    }

    /// A variable for the first key of the table that a variable can set.
    fn example(&self, section: &[Segment]) -> Option<String> {
        let leaves = self.known.iter().filter(|known| known.kind == Kind::Leaf);
        let mut leaves = leaves
            .filter(|known| known.pattern.split().is_some_and(|(table, _)| table.matches(section)));
        leaves.next()?.pattern.keys().map(|keys| Variable::name_for(&keys))
    }
}

/// <https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables>
fn is_of_kubernetes(name: &str) -> bool {
    let port = name.strip_prefix("service_").unwrap_or(name);
    name == "service_host" || port == "port" || port.starts_with("port_")
}
