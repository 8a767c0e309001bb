use super::{Exit, print_line, eprint_line};
use crate::config::{Loaded, Location, Problem, Problems, EffectiveSetting, load};
use crate::tls::Certificates;
use clap::{Args, Subcommand};
use std::path::Path;
use std::time::SystemTime;

/// Check the settings without running anything, or show them with their sources
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  callback-edge -c config.toml config check")]
pub(super) struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Tell every mistake in the settings, and where it is
    #[command(after_help = "\
Exit codes: 0 valid, 64 not

Example:
  callback-edge -c config.toml config check")]
    Check,
    /// Print every setting with its value and its source
    #[command(after_help = "\
Exit codes: 0 shown, 64 wrong settings

Example:
  CALLBACK_EDGE_LISTEN__HTTP=0.0.0.0:80 callback-edge config show")]
    Show,
}

/// [`Exit::Done`], or [`Exit::Usage`] when the settings have problems.
pub(super) fn run(config: &Config, file: Option<&Path>) -> Exit {
    let loaded = load(file, std::env::vars_os());
    let loaded = match config.what {
        What::Check => loaded.and_then(Loaded::for_serving),
        What::Show => loaded,
    };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprint_line(&problems.coloured());
            return Exit::Usage;
        }
    };
    if !loaded.warnings.0.is_empty() {
        eprint_line(&loaded.warnings.coloured());
    }
    match config.what {
        What::Check => {
            let pairs = loaded.settings.tls.as_ref().map_or(&[][..], |tls| &tls.pairs);
            match Certificates::load(pairs) {
                Err(errors) => {
                    let problems = Problems(errors.iter().map(Problem::from).collect());
                    eprint_line(&problems.coloured());
                    return Exit::Usage;
                }
                Ok(certificates) => warn_about_validity(&certificates),
            }
            eprint_line(&verdict(&loaded));
            Exit::Done
        }
        What::Show => print_line(anstream::stdout(), &table(&loaded), Exit::Done),
    }
}

fn warn_about_validity(certificates: &Certificates) {
    for (origin, _, problem) in certificates.invalid(SystemTime::now()) {
        let warning = Problem::warning(format!("the certificate `{origin}` {problem}"))
            .hint("put a valid certificate in its location; a running edge picks it up");
        eprint_line(&warning.coloured());
    }
}

fn verdict(loaded: &Loaded) -> String {
    let source = match &loaded.file {
        Some(file) => format!("`{}`", file.display()),
        None => "no file, built-in defaults".into(),
    };
    let from_variable = |shown: &&EffectiveSetting| matches!(shown.source, Location::Variable(_));
    let variables = match loaded.shown.iter().filter(from_variable).count() {
        0 => String::new(),
        1 => " and 1 variable".into(),
        several => format!(" and {several} variables"),
    };
    format!("the settings are valid ({source}{variables})")
}

/// Three columns; what nothing sets stands as `-`.
fn table(loaded: &Loaded) -> String {
    // A long value moves its own source only.
    const WIDEST: usize = 48;
    let value = |shown: &'_ EffectiveSetting| shown.value.clone().unwrap_or_else(|| "-".into());
    let widest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or_default();
    let keys = widest(&mut loaded.shown.iter().map(|shown| shown.key.len()));
    let values = widest(&mut loaded.shown.iter().map(|shown| value(shown).chars().count()));
    let values = values.min(WIDEST);
    let rows = loaded
        .shown
        .iter()
        .map(|shown| format!("{:keys$}  {:values$}  {}", shown.key, value(shown), shown.source));
    rows.collect::<Vec<_>>().join("\n")
}
