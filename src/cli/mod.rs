//! The subcommands: one file each. Only they print and choose the exit code.

mod check;
mod completions;
mod config;
mod connect;
mod environments;
mod exit;
mod explain;
mod format;
mod health;
mod hmac;
mod man;
mod preflight;
mod progress;
mod recipe;
mod secret;
mod serve;
mod switch;
mod watch;

use crate::config::Problem;
use clap::{Parser, Subcommand};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

pub use exit::Exit;

/// Serve or check the OAuth callback of Nango integrations on your own domain
#[derive(Debug, Parser)]
#[command(
    name = "callback-edge",
    version,
    after_help = "\
Example:
  callback-edge -c config.toml serve
  callback-edge check https://auth.example.com/oauth/callback"
)]
pub struct Cli {
    /// Configuration file [default: `$CALLBACK_EDGE_CONFIG`, else ./config.toml, else
    /// /etc/callback-edge/config.toml, else none]
    // `crate::config` reads the variable, as it does the other sources.
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Check(Box<check::Args>),
    Preflight(Box<preflight::Args>),
    Switch(Box<switch::Args>),
    Recipe(recipe::Args),
    Explain(explain::Args),
    Hmac(hmac::Args),
    Health(health::Health),
    Config(config::Config),
    Completions(completions::Args),
    Man(man::Args),
}

/// Parses the command line, runs the command, and returns the exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let result = error.print();
            // Help and version were requested; everything else is a usage error.
            let is_usage = error.use_stderr();
            return if is_usage { Exit::Usage } else { exit_after_print(result, Exit::Done) }
                .into();
        }
    };
    let file = cli.config.as_deref();
    match cli.command {
        None => serve::run(&serve::Serve::default(), file),
        Some(Command::Serve(serve)) => serve::run(&serve, file),
        Some(Command::Check(args)) => check::run(&args, file),
        Some(Command::Preflight(args)) => preflight::run(&args, file),
        Some(Command::Switch(args)) => switch::run(&args, file),
        Some(Command::Recipe(args)) => recipe::run(&args),
        Some(Command::Explain(args)) => explain::run(&args),
        Some(Command::Hmac(args)) => hmac::run(&args),
        Some(Command::Health(health)) => health::run(&health, file),
        Some(Command::Config(config)) => config::run(&config, file),
        Some(Command::Completions(args)) => completions::run(&args),
        Some(Command::Man(args)) => man::run(&args),
    }
    .into()
}

/// Prints one or more lines; returns `exit` unless that fails.
fn print_line(mut stream: impl Write, text: &str, exit: Exit) -> Exit {
    exit_after_print(writeln!(stream, "{text}").and_then(|()| stream.flush()), exit)
}

/// The exit code after printing. A reader that closes the pipe (`| head`) is not a failure.
fn exit_after_print(result: io::Result<()>, exit: Exit) -> Exit {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprint_line(&format!("error: cannot write: {error}"));
            Exit::CouldNotRun
        }
        _ => exit,
    }
}

/// Prints to stderr. A closed stderr is not a failure.
fn eprint_line(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Runs a future to completion on this thread; no command needs more.
fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

/// Reports that a command cannot start.
fn cannot_run(error: &io::Error) -> Exit {
    eprint_line(&Problem::error("cannot start").caused_by(error).coloured());
    Exit::CouldNotRun
}

/// Reports a usage error.
fn usage(problem: &Problem) -> Exit {
    eprint_line(&problem.coloured());
    Exit::Usage
}

/// The error for a listener on port 0: only the running edge knows its port.
fn ephemeral_port_error(key: &str) -> Problem {
    Problem::error(format!(
        "cannot connect: `listen.{key}` has port 0, which is a different port at each start"
    ))
    .hint(format!("set a fixed port in `listen.{key}`"))
}
