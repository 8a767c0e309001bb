//! `callback-edge recipe [PLACE]`: the redirect for what serves the callback already.

use super::explain::columns;
use super::{Exit, eprint_line, exit_after_print, usage};
use crate::config::{self, Problem};
use crate::explain::wrap;
use crate::recipes::{self, File, Keeps, Query, Recipe, Unsafe, Values, Verified};
use anstyle::{AnsiColor, Style};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Print the redirect for a web server, a framework or a cloud
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 printed or written, 3 could not write, 64 unknown place or usage error

Example:
  callback-edge recipe
  callback-edge recipe nginx --callback https://auth.example.com/oauth/callback
  callback-edge recipe express --callback https://auth.example.com/oauth/callback --out .")]
pub(super) struct Args {
    /// What serves the callback, for example `nginx` or `nextjs` [default: list all]
    place: Option<String>,

    /// Callback URL on your own domain [default: an example]
    #[arg(long, value_name = "URL")]
    callback: Option<String>,

    /// Target that the callback redirects to [default: the same path at `https://api.nango.dev`]
    #[arg(long, value_name = "URL")]
    target: Option<String>,

    /// Write the files below this directory; existing files are never overwritten
    #[arg(long, value_name = "DIR", requires_all = ["place", "callback"])]
    out: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The callback of the examples.
const EXAMPLE: &str = "https://auth.example.com/oauth/callback";

/// Nango's URL without settings.
const NANGO_URL: &str = "https://api.nango.dev";

/// Exit: 0 printed or written, 3 could not write, 64 unknown place or unusable value.
pub(super) fn run(args: &Args) -> Exit {
    let Some(place) = args.place.as_deref() else { return print(&list(args.json)) };
    let Some(recipe) = recipes::find(place) else { return usage(&unknown(place)) };
    let callback = args.callback.as_deref().unwrap_or(EXAMPLE);
    let target = match &args.target {
        Some(target) => target.clone(),
        None => config::target_at_nango(NANGO_URL, callback)
            .map_or_else(|_| format!("{NANGO_URL}/oauth/callback"), |it| it.as_str().to_owned()),
    };
    let values = match Values::new(callback, &target) {
        Ok(values) => values,
        Err(refused) => return usage(&problem(&refused)),
    };
    let printed = Printed {
        recipe,
        files: recipe.files(&values),
        steps: recipe.steps(&values),
        is_example: args.callback.is_none() && recipe.instead.is_empty(),
        check: match &args.target {
            Some(target) => format!("callback-edge check {callback} --target {target}"),
            None => format!("callback-edge check {callback}"),
        },
        out: args.out.as_deref(),
    };
    if let Some(directory) = &args.out
        && let Err(problem) = write(directory, &printed.files)
    {
        eprint_line(&problem.coloured());
        return Exit::CouldNotRun;
    }
    print(&if args.json { printed.json(callback, &target) } else { printed.text() })
}

fn print(text: &str) -> Exit {
    let mut stdout = anstream::stdout().lock();
    exit_after_print(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()), Exit::Done)
}

/// A recipe with the values of the command line.
struct Printed<'a> {
    recipe: &'a Recipe,
    files: Vec<File>,
    steps: Vec<String>,
    /// Whether the callback is that of the examples.
    is_example: bool,
    /// The command that verifies it.
    check: String,
    /// Where the files were written.
    out: Option<&'a Path>,
}

impl Printed<'_> {
    fn text(&self) -> String {
        let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
        let Recipe { title, directory, keeps, verified, limitations, instead, .. } = self.recipe;
        let columns = columns();
        let mut text = format!("{bold}{title}{bold:#}\n{}\n", summary(*keeps, *verified));
        if self.is_example {
            let _ = writeln!(text, "The values are examples: pass `--callback URL`.");
        }
        let mut number = 0;
        let mut step = |text: &mut String, what: &str| {
            number += 1;
            let number = format!("{bold}{number}.{bold:#} ");
            let _ = writeln!(text, "\n{}", wrap(&number, what, columns));
        };
        for File { path, note, text: content } in &self.files {
            if let Some(out) = self.out {
                step(&mut text, &format!("Written: {}. {note}", out.join(path).display()));
            } else {
                step(&mut text, &format!("{path}, in {directory}. {note}"));
                let rule = "─".repeat(60);
                let _ = write!(text, "{dim}{rule}{dim:#}\n{content}{dim}{rule}{dim:#}\n");
            }
        }
        for what in &self.steps {
            step(&mut text, what);
        }
        if instead.is_empty() {
            step(&mut text, "Check it:");
            let _ = writeln!(text, "   {bold}{}{bold:#}", self.check);
        }
        for (number, limitation) in limitations.iter().enumerate() {
            let gap = if number == 0 { "\n" } else { "" };
            let _ = writeln!(text, "{gap}{}", wrap("- ", limitation, columns));
        }
        if !instead.is_empty() {
            let others: Vec<_> =
                instead.iter().map(|other| format!("callback-edge recipe {other}")).collect();
            let _ = writeln!(text, "\nUse instead: {bold}{}{bold:#}", others.join(" or "));
        }
        text
    }

    fn json(&self, callback: &str, target: &str) -> String {
        let files = self.files.iter().map(|File { path, note, text }| {
            let written = self.out.map(|out| out.join(path));
            json!({ "path": path, "note": note, "text": text, "written": written })
        });
        let check = self.recipe.instead.is_empty().then_some(&self.check);
        let mut json = about(self.recipe);
        json.extend([
            ("callback".to_owned(), callback.into()),
            ("target".to_owned(), target.into()),
            ("files".to_owned(), files.collect()),
            ("steps".to_owned(), json!(self.steps)),
            ("check".to_owned(), json!(check)),
        ]);
        format!("{:#}\n", Value::from(json))
    }
}

/// What is true of a recipe without values.
fn about(recipe: &Recipe) -> Map<String, Value> {
    let Recipe { id, title, group, directory, keeps, verified, limitations, instead, .. } = recipe;
    let Keeps { query, status, no_store, form } = keeps;
    let keeps = json!({
        "query": query.to_string(), "status": status, "no_store": no_store, "form": form,
    });
    let fields = [
        ("place", json!(id)),
        ("title", json!(title)),
        ("group", json!(group)),
        ("directory", json!(directory)),
        ("keeps", keeps),
        ("verified", json!(verified.to_string())),
        ("limitations", json!(limitations)),
        ("instead", json!(instead)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn summary(keeps: Keeps, verified: Verified) -> String {
    let query = match keeps.query {
        Query::Bytes => "every byte of the query",
        Query::Values => "every value of the query, in another encoding",
        Query::Nothing => return "Cannot redirect a callback as Nango needs.".to_owned(),
    };
    match verified {
        Verified::Run => format!("Keeps {query}: tested with the platform."),
        Verified::Harness => {
            format!("Keeps {query}: its code is tested, outside of the platform.")
        }
        Verified::Schema => {
            format!("Should keep {query}: tested only against the schema of the platform.")
        }
        Verified::NotRun => format!("Should keep {query}: not tested."),
    }
}

/// Every recipe, in groups.
fn list(json: bool) -> String {
    if json {
        let all: Vec<_> = recipes::all().iter().map(about).collect();
        return format!("{:#}\n", Value::from(all));
    }
    let (bold, colour) = (Style::new().bold(), AnsiColor::Cyan.on_default());
    let width = recipes::all().iter().map(|recipe| recipe.id.len()).max().unwrap_or_default();
    let mut text = String::new();
    for group in recipes::all().chunk_by(|one, next| one.group == next.group) {
        let heading = group.first().map_or("", |recipe| &recipe.group);
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{gap}{bold}{heading}{bold:#}");
        for Recipe { id, title, keeps, .. } in group {
            let note = match keeps.query {
                Query::Bytes => "",
                Query::Values => " (the encoding of the query may change)",
                Query::Nothing => " (not possible)",
            };
            let _ = writeln!(text, "  {colour}{id:width$}{colour:#}  {title}{note}");
        }
    }
    text + "\ncallback-edge recipe PLACE --callback URL prints one.\n"
}

/// Writes all files, or none if one of them exists.
fn write(directory: &Path, files: &[File]) -> Result<(), Problem> {
    let paths: Vec<_> = files.iter().map(|file| directory.join(&file.path)).collect();
    if let Some(existing) = paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        let what = format!("`{}` exists; no file was written", existing.display());
        return Err(Problem::error(what).hint("move it, or use another directory with --out"));
    }
    for (path, file) in paths.iter().zip(files) {
        create(path, &file.text).map_err(|error| {
            Problem::error(format!("cannot write `{}`", path.display()))
                .caused_by(&error)
                .hint("pass a directory that you can write to with --out")
        })?;
    }
    Ok(())
}

fn create(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::File::create_new(path)?.write_all(text.as_bytes())
}

fn problem(refused: &Unsafe) -> Problem {
    Problem::error(refused.to_string()).hint(refused.hint())
}

fn unknown(place: &str) -> Problem {
    let suggested: Vec<_> = similar(place).iter().map(|id| format!("`{id}`")).collect();
    Problem::error(format!("unknown place `{place}`")).hint(match suggested.as_slice() {
        [] => "`callback-edge recipe` lists all places".to_owned(),
        suggested => format!("did you mean {}?", suggested.join(" or ")),
    })
}

/// The platforms whose id or title is similar; at most three.
fn similar(given: &str) -> Vec<&'static str> {
    const SIMILAR: f64 = 0.85;
    let letters = |text: &str| -> String {
        text.chars().filter(|it| it.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    let given = letters(given);
    let similarity = |recipe: &Recipe| {
        let names = [letters(recipe.id), letters(&recipe.title)];
        let contains = given.len() >= 3 && names.iter().any(|name| name.contains(&given));
        let similarity = names.iter().map(|name| strsim::jaro_winkler(name, &given));
        if contains { 1.0 } else { similarity.fold(0.0, f64::max) }
    };
    let scored = recipes::all().iter().map(|recipe| (similarity(recipe), recipe.id));
    let mut scored: Vec<_> = scored.filter(|(score, _)| *score >= SIMILAR).collect();
    scored.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    scored.into_iter().map(|(_, id)| id).take(3).collect()
}
