use super::{Exit, eprint_line, print_line};
use crate::config::{EffectiveSetting, Loaded, Location, load};
use crate::tls::load_settings;
use clap::{Args, Subcommand};
use std::path::Path;

/// Check the configuration, or show each setting with its source
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  callback-edge -c config.toml config check")]
pub(super) struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Report all errors in the configuration, with their positions
    #[command(after_help = "\
Exit codes: 0 valid, 64 configuration error

Example:
  callback-edge -c config.toml config check")]
    Check,
    /// Print every setting with its value and its source
    #[command(after_help = "\
Exit codes: 0 printed, 64 configuration error

Example:
  CALLBACK_EDGE_LISTEN__HTTP=0.0.0.0:80 callback-edge config show")]
    Show,
}

/// [`Exit::Done`], or [`Exit::Usage`] when the configuration has errors.
pub(super) fn run(config: &Config, file: Option<&Path>) -> Exit {
    let loaded = match config.what {
        What::Check => load_settings(file, std::env::vars_os()),
        What::Show => load(file, std::env::vars_os()),
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
            eprint_line(&verdict(&loaded));
            Exit::Done
        }
        What::Show => print_line(anstream::stdout(), &table(&loaded), Exit::Done),
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
    format!("the configuration is valid ({source}{variables})")
}

/// Three columns; a key without a value is `not set`.
fn table(loaded: &Loaded) -> String {
    // A longer value shifts only the source in its own row.
    const WIDEST: usize = 48;
    let value =
        |shown: &'_ EffectiveSetting| shown.value.clone().unwrap_or_else(|| "not set".into());
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
