use super::file::read_file;
use super::layers::Layers;
use super::leaf::{self, Invalid, ParseResult, text};
use super::load::{FILE_BYTES, file_text, in_order, unreadable};
use super::location::Location;
use super::problem::{Problem, Problems};
use super::read::integration;
use super::reader::{Located, Reader, Section};
use super::settings::IntegrationSettings;
use super::source::Document;
use crate::redirect::Target;
use jiff::civil::Date;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The Nango environments of a project, for operators. The server never reads it.
#[derive(Clone, Debug, Default)]
pub struct Project {
    /// The file with the API key of the account.
    pub account_key_file: Option<KeyFile>,
    /// By the name of the environment.
    pub environments: BTreeMap<Box<str>, Environment>,
    /// What persons confirmed.
    pub acknowledged: Vec<Acknowledgement>,
}

/// A Nango environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The file with its API key.
    pub key_file: Option<KeyFile>,
    /// By the unique key of the integration in Nango.
    pub integrations: BTreeMap<Box<str>, IntegrationSettings>,
}

/// A file with a key, and where its path is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// Relative paths are relative to the project file.
    pub path: PathBuf,
    /// In the project file.
    pub location: Location,
}

/// A confirmation by a person, for one state of one integration with one callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The name of the environment.
    pub environment: String,
    /// The unique key of the integration.
    pub integration: String,
    /// The callback that was confirmed.
    pub callback: String,
    /// The provider state that was confirmed, for example `undecidable`.
    pub state: String,
    /// Why.
    pub reason: String,
    /// Who confirmed it.
    pub by: Option<String>,
    /// The last day on which it applies.
    pub expires: Date,
    /// In the project file.
    pub location: Location,
}

/// The default file, if it exists.
const FILE: &str = "nango.toml";

/// Reads the project file: `explicit`, which must exist, else `./nango.toml` if it exists. Returns all
/// problems at once.
pub fn load_project(explicit: Option<&Path>) -> Result<Option<Project>, Problems> {
    let file = explicit.unwrap_or(Path::new(FILE));
    let bytes = match read_file(file, FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(why) if explicit.is_none() && why.is_missing() => return Ok(None),
        Err(why) => {
            return Err(unreadable(file, &why, "`--project` sets another path; ").into());
        }
    };
    let (document, mut problems) = Document::recover(file, &file_text(file, bytes)?);
    let Some(document) = document else { return Err(in_order(problems)) };
    let defaults = Document::parse(None, "")?;
    let layers = Layers::new(&defaults, Some(&document), &[])?;
    let mut reader = Reader::new(&layers);
    let project = read(&mut reader.root(), file.parent().unwrap_or(Path::new("")));
    reader.note_unknown(&[]);
    problems.append(&mut reader.problems);
    if problems.is_empty() { Ok(Some(project)) } else { Err(in_order(problems)) }
}

fn read(root: &mut Section<'_, '_>, dir: &Path) -> Project {
    let account_key_file = key_file(root, "account_key_file", dir);
    let (mut all, names) = root.named("environment");
    let mut environments = BTreeMap::new();
    for name in &names {
        if name.is_empty() || name.contains(['/', '=', ',']) {
            let location = all.location_of(name);
            let what = format!("an environment cannot have the name `{name}`");
            all.note(Problem::error(what).at(&location).hint("use its name in Nango"));
        }
        let mut table = all.section(name);
        let key_file = key_file(&mut table, "key_file", dir);
        let (mut integrations, keys) = table.named("integration");
        let integrations = keys
            .iter()
            .map(|key| (key.as_str().into(), integration(&mut integrations.section(key))));
        let integrations = integrations.collect();
        environments.insert(name.as_str().into(), Environment { key_file, integrations });
    }
    let acknowledged = root.tables("acknowledged", acknowledgement);
    for one in &acknowledged {
        if !environments.contains_key(one.environment.as_str()) {
            let what = format!("no environment `{}` is in this file", one.environment);
            let known: Vec<_> = environments.keys().map(|name| format!("`{name}`")).collect();
            root.note(Problem::error(what).at(&one.location).hint(match known.as_slice() {
                [] => format!("add `[environment.{}]`", one.environment),
                known => format!("it has {}", known.join(", ")),
            }));
        }
    }
    Project { account_key_file, environments, acknowledged }
}

fn acknowledgement(table: &mut Section<'_, '_>) -> Option<Acknowledgement> {
    let location = table.location();
    let mut required = |key, example| table.required(key, example, text(not_empty));
    let environment = required("environment", "production");
    let integration = required("integration", "slack");
    let callback = required("callback", "https://auth.example.com/oauth/callback");
    let state = required("state", "undecidable");
    let reason = required("reason", "compared with the settings of the app");
    let expires = table.required("expires", "2027-01-31", text(date));
    let by = table.value("by", text(not_empty));
    if let Some(Located { value, location }) = &callback
        && let Err(why) = Target::parse(value)
    {
        table.note(Problem::error(format!("the callback {why}")).at(location));
    }
    Some(Acknowledgement {
        environment: environment?.value,
        integration: integration?.value,
        callback: callback?.value,
        state: state?.value,
        reason: reason?.value,
        by: by.map(|by| by.value),
        expires: expires?.value,
        location,
    })
}

fn not_empty(text: &str) -> ParseResult<String> {
    let text = text.trim();
    if text.is_empty() { Err(Invalid::new("it is empty")) } else { Ok(text.to_owned()) }
}

fn date(text: &str) -> ParseResult<Date> {
    text.parse().map_err(|_| {
        Invalid::new(format!("`{text}` is not a date")).hint("write it as \"2027-01-31\"")
    })
}

/// A file with a key: it must be readable for its owner alone.
fn key_file(table: &mut Section<'_, '_>, key: &str, dir: &Path) -> Option<KeyFile> {
    let Located { value, location } = table.value::<PathBuf>(key, leaf::verbatim)?;
    let path = dir.join(value);
    let cannot = || Problem::error(format!("cannot use the key in `{}`", path.display()));
    match std::fs::metadata(&path) {
        Err(error) => table.note(cannot().at(&location).caused_by(&error)),
        Ok(metadata) if is_readable_by_others(&metadata) => {
            let hint = format!("run `chmod 600 {}`, and replace the key in Nango", path.display());
            let problem = cannot().because("other users can read it").at(&location);
            table.note(problem.hint(hint));
        }
        Ok(_) => {}
    }
    Some(KeyFile { path, location })
}

fn is_readable_by_others(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o077 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn loaded(text: &str, mode: u32) -> Result<Project, String> {
        let dir = tempfile::tempdir().unwrap();
        let (file, key) = (dir.path().join("nango.toml"), dir.path().join("key"));
        fs::write(&file, text).unwrap();
        fs::write(&key, "canary-key").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let loaded = load_project(Some(&file)).map_err(|problems| problems.to_string());
        loaded.map(Option::unwrap)
    }

    const COMPLETE: &str = "
account_key_file = 'key'
[environment.prod]
key_file = 'key'
[environment.prod.integration.'zen.desk']
params = { subdomain = 'acme' }
[environment.dev]
[[acknowledged]]
environment = 'prod'
integration = 'slack'
callback = 'https://auth.example.com/oauth/callback'
state = 'undecidable'
reason = 'compared'
by = 'Ada'
expires = '2027-01-31'
";

    #[test]
    fn a_complete_project_is_read() {
        let project = loaded(COMPLETE, 0o600).unwrap();
        assert_eq!(project.environments.len(), 2);
        let prod = &project.environments["prod"];
        assert!(prod.key_file.as_ref().unwrap().path.is_absolute());
        assert_eq!(prod.integrations["zen.desk"].params["subdomain"], "acme");
        let [one] = &project.acknowledged[..] else { panic!("{project:?}") };
        assert_eq!((one.by.as_deref(), one.expires), (Some("Ada"), "2027-01-31".parse().unwrap()));
    }

    #[test]
    fn all_problems_are_reported_with_their_line() {
        for (old, new, expected) in [
            ("state = 'undecidable'\n", "", "nango.toml:8:1"),
            ("state = 'undecidable'\n", "", "`state` is missing"),
            ("'2027-01-31'", "'soon'", "`soon` is not a date"),
            ("environment = 'prod'", "environment = 'prd'", "no environment `prd`"),
            ("reason = 'compared'", "reason = ' '", "it is empty"),
            ("key_file = 'key'\n[", "key_file = 'missing'\n[", "nango.toml:4:12"),
            ("[environment.dev]", "[environment.dev]\nkeyfile = 'x'", "did you mean `key_file`"),
            ("[environment.dev]", "[environment.'a/b']", "cannot have the name `a/b`"),
            ("https://auth.example.com/oauth/callback", "nonsense", "nango.toml:11:12"),
        ] {
            assert!(COMPLETE.contains(old), "{old}");
            let problems = loaded(&COMPLETE.replace(old, new), 0o600).unwrap_err();
            assert!(problems.contains(expected), "{new}: {problems}");
        }
    }

    #[test]
    fn key_files_that_others_can_read_are_refused() {
        for mode in [0o644, 0o640, 0o604, 0o622] {
            let problems = loaded(COMPLETE, mode).unwrap_err();
            assert!(problems.contains("other users can read it"), "{problems}");
            assert!(!problems.contains("canary"), "{problems}");
        }
        assert!(loaded(COMPLETE, 0o400).is_ok());
    }

    #[test]
    fn only_a_named_file_must_exist() {
        let problems = load_project(Some(Path::new("/nowhere/nango.toml"))).unwrap_err();
        assert!(problems.to_string().contains("cannot read `/nowhere/nango.toml`"), "{problems}");
    }
}
