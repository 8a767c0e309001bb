//! The verbs: one file each. They print, and they choose the exit code; nothing else does.

mod check;
mod config;
mod exit;
mod health;
mod serve;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

pub use exit::Exit;

/// The OAuth callback of your Nango integrations, on your own domain.
#[derive(Debug, Parser)]
#[command(
    name = "callback-edge",
    version,
    disable_help_subcommand = true,
    after_help = "Example:\n  callback-edge -c config.toml serve"
)]
pub struct Cli {
    /// Settings file [default: ./config.toml, else /etc/callback-edge/config.toml, else defaults]
    // The environment variable is read by `config`, so that it is one source among the others.
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Serve(serve::Serve),
    Check(Box<check::Args>),
    Health(health::Health),
    Config(config::Config),
}

/// Parses the command line, does what it says, and tells the exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are what was asked for; all else is a usage error.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            return match error.print() {
                Ok(()) => exit.into(),
                Err(_) => Exit::CouldNotRun.into(),
            };
        }
    };
    let file = cli.config.as_deref();
    match cli.verb {
        None => serve::run(&serve::Serve::default(), file),
        Some(Verb::Serve(serve)) => serve::run(&serve, file),
        Some(Verb::Check(args)) => check::run(&args, file),
        Some(Verb::Health(health)) => health::run(&health, file),
        Some(Verb::Config(config)) => config::run(&config, file),
    }
    .into()
}
