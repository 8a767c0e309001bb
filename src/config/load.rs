use super::agree::settle;
use super::problem::{Problem, Problems};
use super::read::read;
use super::reader::{Reader, Shown};
use super::settings::Settings;
use super::source::{Document, FILE_VARIABLE, Variable};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where a file is looked for when none is named.
const FILES: [&str; 2] = ["config.toml", "/etc/callback-edge/config.toml"];

const DEFAULTS: &str = include_str!("defaults.toml");

/// Settings, and where they came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Each key with its value and who set it.
    pub shown: Vec<Shown>,
    /// What is odd but stops nothing.
    pub warnings: Problems,
}

/// Loads: defaults, then the file, then the environment; all problems at once.
///
/// The file is `explicit`, else what `CALLBACK_EDGE_CONFIG` names, else the first that exists of
/// `./config.toml` and `/etc/callback-edge/config.toml`. One that is named must exist.
pub fn load(
    explicit: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Problems> {
    let environment: Vec<_> = environment.into_iter().collect();
    let named = environment.iter().find(|(name, _)| name == FILE_VARIABLE);
    let named = named.map(|(_, file)| Path::new(file)).filter(|file| !file.as_os_str().is_empty());
    let file = match (explicit, named) {
        (Some(file), _) => Some(read_file(file, "-c")?),
        (None, Some(file)) => Some(read_file(file, FILE_VARIABLE)?),
        (None, None) => find_file()?,
    };
    let document = match &file {
        Some((file, text)) => Some(Document::parse(Some(file), text.clone())?),
        None => None,
    };
    let (variables, mut problems) = Variable::all(environment);
    let defaults = Document::parse(None, DEFAULTS.to_owned())?;
    let mut reader = Reader::new(&defaults, document.as_ref(), &variables)?;

    let read = read(&mut reader.root());
    reader.note_unknown(&variables);
    problems.append(&mut reader.problems);
    let settings = settle(read, &mut problems);

    problems.sort_by_key(Problem::order);
    let (warnings, problems): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(Problem::is_warning);
    match settings {
        Some(settings) if problems.is_empty() => Ok(Loaded {
            settings,
            file: file.map(|(file, _)| file),
            shown: reader.shown,
            warnings: Problems(warnings),
        }),
        _ => Err(Problems(problems)),
    }
}

fn read_file(file: &Path, named_by: &str) -> Result<(PathBuf, String), Problem> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok((file.to_owned(), text)),
        Err(error) => {
            let problem = Problem::error(format!("cannot read `{}`", file.display()));
            Err(problem.caused_by(&error).hint(format!("`{named_by}` names this file")))
        }
    }
}

fn find_file() -> Result<Option<(PathBuf, String)>, Problem> {
    for file in FILES.map(Path::new) {
        match std::fs::read_to_string(file) {
            Ok(text) => return Ok(Some((file.to_owned(), text))),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let problem = Problem::error(format!("cannot read `{}`", file.display()));
                return Err(problem
                    .caused_by(&error)
                    .hint("make it readable, or name another file with `-c`"));
            }
        }
    }
    Ok(None)
}
