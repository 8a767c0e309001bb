//! The redirect for what serves the callback already: web servers, frameworks and clouds.
//!
//! A recipe is a directory of `deploy/recipes`, compiled in: `recipe.toml` describes it, every other file is
//! a template. `list.rs` has one line for each.
//!
//! | In `recipe.toml` | Meaning |
//! |---|---|
//! | `title`, `group` | the name of the platform, and the heading above it; a group is one block of `list.rs` |
//! | `directory` | where the paths of its files start, in words or as a path |
//! | `keeps.query` | `bytes`, `values` (the encoding may change), or `nothing` (no correct redirect exists) |
//! | `keeps.status`, `.no_store`, `.form` | the status, whether `Cache-Control: no-store` is sent, the status of a form post |
//! | `verified` | `run`, `harness` (documented events), `schema` or `not run` |
//! | `steps` | what to do after the files are written, in order: one sentence or command each |
//! | `limitations` | what the platform cannot do: one sentence each |
//! | `instead` | only if no correct redirect exists: the recipes to use |
//! | `[[file]]` | `path` in the project, `template`, and `note`: what it is, in one sentence |
//!
//! In templates, paths, notes and steps, placeholders have the values of the user:
//!
//! | Placeholder | Example |
//! |---|---|
//! | `@CALLBACK@`, `@HOST@` | `https://auth.example.com/oauth/callback`, `auth.example.com` |
//! | `@PATH@`, `@PATH_REGEX@` | `/oauth/callback`; the second escapes each `.` |
//! | `@PATHS@` | the paths of all routes, separated by spaces |
//! | `@TARGET@` | `https://api.nango.dev/oauth/callback` |
//! | `@TARGET_SCHEME@`, `@TARGET_AUTHORITY@`, `@TARGET_HOST@` | `https`, `api.nango.dev` with a port if there is one, without it |
//! | `@TARGET_PORT@`, `@TARGET_PATH@` | `443`, `/oauth/callback` |
//! | `@NAME@` | `callback` or `connect` |
//!
//! Lines between a line with `@EACH@` and a line with `@END@` are repeated for each route (the callback, and that
//! of GitHub Apps if there is one); `@,@` in them is a comma, except in the last repetition. A file whose path
//! contains `@PATH@` or `@NAME@` is written once for each route. Elsewhere the values are those of the callback.
//! Values contain only letters, digits and `-._~/:`, so templates quote them and escape nothing ([`Values`]).

mod list;
mod values;

use list::{DIRECTORIES, Directory};
use std::fmt;
use std::sync::LazyLock;
use toml_edit::{Document, Item, TableLike};

pub use values::{Route, Unsafe, Values};

static ALL: LazyLock<Vec<Recipe>> =
    // A test parses every one.
    LazyLock::new(|| DIRECTORIES.iter().filter_map(|it| parse(it).ok()).collect());

/// How one platform redirects the callback to Nango.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The platform.
    pub id: &'static str,
    /// The name of the platform.
    pub title: String,
    /// The heading above it in a list.
    pub group: String,
    /// The directory that its files belong in.
    pub directory: String,
    /// What the redirect preserves.
    pub keeps: Keeps,
    /// How the tests verify it.
    pub verified: Verified,
    /// What to do after its files are written, in order.
    pub steps: Vec<String>,
    /// What the platform cannot do, one sentence each.
    pub limitations: Vec<String>,
    /// For a platform without a correct redirect: the recipes to use instead.
    pub instead: Vec<String>,
    files: Vec<Template>,
}

/// What a redirect preserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeps {
    /// The query.
    pub query: Query,
    /// The status of the redirect.
    pub status: u16,
    /// Whether the response has `Cache-Control: no-store`.
    pub no_store: bool,
    /// The status of the response to a form post.
    pub form: u16,
}

/// What is left of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// Every byte.
    Bytes,
    /// Every value as Nango reads it; the encoding may change.
    Values,
    /// Nothing that is reliable.
    Nothing,
}

/// How the tests of this project verify a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// The platform runs with the files, and the check passes.
    Run,
    /// The code runs with the documented events of the platform, and the check passes.
    Harness,
    /// The files match the published schema of the platform.
    Schema,
    /// Not at all.
    NotRun,
}

#[derive(Clone, Debug)]
struct Template {
    path: String,
    note: String,
    text: &'static str,
}

/// A file of a recipe, with the values of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Relative to the directory of the recipe.
    pub path: String,
    /// Where it belongs, in one sentence.
    pub note: String,
    /// The content.
    pub text: String,
}

/// Every recipe, in groups.
pub fn all() -> &'static [Recipe] {
    &ALL
}

/// The recipe of a platform.
pub fn find(id: &str) -> Option<&'static Recipe> {
    ALL.iter().find(|recipe| recipe.id == id)
}

impl Recipe {
    /// Its files. A file whose path contains `@PATH@` or `@NAME@` exists once for each route.
    pub fn files(&self, values: &Values) -> Vec<File> {
        let mut files = Vec::new();
        for Template { path, note, text } in &self.files {
            let note = values.fill(note);
            if path.contains("@PATH@") || path.contains("@NAME@") {
                for route in values.routes() {
                    let [path, text] = [path, *text].map(|it| values.with_route(it, route));
                    files.push(File { path, note: note.clone(), text });
                }
            } else {
                files.push(File { path: path.clone(), note, text: values.fill(text) });
            }
        }
        files
    }

    /// Its steps, with the values of a user.
    pub fn steps(&self, values: &Values) -> Vec<String> {
        self.steps.iter().map(|step| values.fill(step)).collect()
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Values => "values",
            Self::Nothing => "nothing",
        })
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run => "run",
            Self::Harness => "harness",
            Self::Schema => "schema",
            Self::NotRun => "not run",
        })
    }
}

/// Reads a `recipe.toml`; the error names what is missing or wrong in it.
fn parse(directory: &Directory) -> Result<Recipe, String> {
    let about = Document::parse(directory.about).map_err(|error| error.to_string())?;
    let about = about.as_table();
    known(
        about,
        &[
            "title",
            "group",
            "directory",
            "keeps",
            "verified",
            "steps",
            "limitations",
            "instead",
            "file",
        ],
    )?;
    let keeps = about.get("keeps").and_then(Item::as_table_like).ok_or("no `keeps`")?;
    known(keeps, &["query", "status", "no_store", "form"])?;
    let files = about.get("file").and_then(Item::as_array_of_tables);
    let files = files.into_iter().flatten().map(|file| {
        known(file, &["path", "template", "note"])?;
        let name = text(file, "template")?;
        let template = directory.templates.iter().find(|(template, _)| *template == name);
        let (_, template) = template.ok_or(format!("no file `{name}`"))?;
        Ok(Template { path: text(file, "path")?, note: text(file, "note")?, text: template })
    });
    Ok(Recipe {
        id: directory.id,
        title: text(about, "title")?,
        group: text(about, "group")?,
        directory: text(about, "directory")?,
        keeps: Keeps {
            query: match &*text(keeps, "query")? {
                "bytes" => Query::Bytes,
                "values" => Query::Values,
                "nothing" => Query::Nothing,
                other => return Err(format!("unknown query `{other}`")),
            },
            status: status(keeps, "status")?,
            no_store: keeps.get("no_store").and_then(Item::as_bool).ok_or("no `no_store`")?,
            form: status(keeps, "form")?,
        },
        verified: match &*text(about, "verified")? {
            "run" => Verified::Run,
            "harness" => Verified::Harness,
            "schema" => Verified::Schema,
            "not run" => Verified::NotRun,
            other => return Err(format!("unknown verification `{other}`")),
        },
        steps: texts(about, "steps")?,
        limitations: texts(about, "limitations")?,
        instead: texts(about, "instead")?,
        files: files.collect::<Result<_, String>>()?,
    })
}

fn known(table: &dyn TableLike, keys: &[&str]) -> Result<(), String> {
    match table.iter().find(|(key, _)| !keys.contains(key)) {
        Some((key, _)) => Err(format!("unknown key `{key}`")),
        None => Ok(()),
    }
}

fn text(table: &dyn TableLike, key: &str) -> Result<String, String> {
    let text = table.get(key).and_then(Item::as_str);
    text.map(ToOwned::to_owned).ok_or_else(|| format!("no text `{key}`"))
}

/// A list of texts, empty by default.
fn texts(table: &dyn TableLike, key: &str) -> Result<Vec<String>, String> {
    let Some(list) = table.get(key) else { return Ok(Vec::new()) };
    let list = list.as_array().ok_or_else(|| format!("`{key}` is no list"))?;
    let texts = list.iter().map(|it| it.as_str().map(ToOwned::to_owned));
    texts.collect::<Option<_>>().ok_or_else(|| format!("`{key}` has an item that is no text"))
}

fn status(table: &dyn TableLike, key: &str) -> Result<u16, String> {
    let status = table.get(key).and_then(Item::as_integer).and_then(|it| u16::try_from(it).ok());
    status.ok_or_else(|| format!("no status `{key}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::Path;

    fn values(callback: &str) -> Values {
        Values::new(callback, "https://api.nango.dev/oauth/callback").unwrap()
    }

    #[test]
    fn every_recipe_is_valid() {
        for directory in DIRECTORIES {
            parse(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.id));
        }
        assert_eq!(all().len(), DIRECTORIES.len());
    }

    #[test]
    fn every_directory_and_every_file_is_listed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/recipes");
        let names = |directory: &Path| -> BTreeSet<String> {
            let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
        };
        let listed: BTreeMap<_, BTreeSet<String>> = DIRECTORIES
            .iter()
            .map(|it| {
                let files = it.templates.iter().map(|(name, _)| (*name).to_owned());
                (it.id.to_owned(), files.chain(["recipe.toml".to_owned()]).collect())
            })
            .collect();
        let present: BTreeMap<_, _> =
            names(&root).into_iter().map(|id| (id.clone(), names(&root.join(id)))).collect();
        assert_eq!(listed, present);
        for directory in DIRECTORIES {
            for (name, _) in directory.templates {
                let used = format!("template = \"{name}\"");
                assert!(directory.about.contains(&used), "{}: {name} is unused", directory.id);
            }
        }
    }

    #[test]
    fn recipes_of_a_group_are_listed_together() {
        let mut groups: Vec<_> = all().iter().map(|recipe| &recipe.group).collect();
        groups.dedup();
        assert_eq!(groups.iter().collect::<BTreeSet<_>>().len(), groups.len(), "{groups:?}");
    }

    /// A placeholder with a spelling error would remain.
    #[test]
    fn every_placeholder_is_replaced_and_every_route_is_contained() {
        for callback in ["https://own.example/v1.0/oauth/callback", "https://own.example/nango"] {
            let values = values(callback);
            for recipe in all() {
                let files = recipe.files(&values);
                let all: Vec<_> = files
                    .iter()
                    .flat_map(|file| [&file.path, &file.note, &file.text])
                    .cloned()
                    .chain(recipe.steps(&values))
                    .collect();
                let all = all.join("\n");
                let is_name = |it: char| it.is_ascii_uppercase() || "_,".contains(it);
                for word in all.split('@') {
                    let is_placeholder = !word.is_empty() && word.chars().all(is_name);
                    assert!(!is_placeholder, "{}: `@{word}@` remains", recipe.id);
                }
                assert_eq!(files.is_empty(), !recipe.instead.is_empty(), "{}", recipe.id);
                for route in values.routes().iter().filter(|_| !files.is_empty()) {
                    let path = route.path.replace('.', r"\.");
                    let is_in = all.contains(&route.path) || all.contains(&path);
                    assert!(is_in, "{}: {} is missing", recipe.id, route.path);
                }
                let connect = all.contains("app-auth/connect");
                assert!(!connect || values.routes().len() == 2, "{}", recipe.id);
            }
        }
    }

    #[test]
    fn what_a_recipe_recommends_instead_exists() {
        for recipe in all() {
            assert_eq!(
                recipe.instead.is_empty(),
                recipe.keeps.query != Query::Nothing,
                "{}",
                recipe.id
            );
            for id in &recipe.instead {
                assert!(find(id).is_some_and(|other| other.instead.is_empty()), "{id}");
            }
        }
    }

    #[test]
    fn sentences_end_with_a_full_stop() {
        for recipe in all() {
            let notes = recipe.files.iter().map(|file| &file.note);
            for sentence in notes.chain(&recipe.limitations).chain(&recipe.steps) {
                let ends = sentence.ends_with(['.', '`']);
                assert!(ends && !sentence.contains('\n'), "{}: {sentence:?}", recipe.id);
            }
        }
    }
}
