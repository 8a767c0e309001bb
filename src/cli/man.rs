//! `callback-edge man`: the manual, made of the same words as `--help`.

use super::{Cli, Exit, printed};
use clap::CommandFactory;
use clap_mangen::Man;
use std::io;
use std::path::PathBuf;

/// Print the manual page, or write those of all commands
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  callback-edge man | man -l -
  callback-edge man --into /usr/local/share/man/man1")]
pub(super) struct Args {
    /// Write `callback-edge.1` and one page for each command into this folder
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
}

/// Exit: 0 written, 3 not.
pub(super) fn run(args: &Args) -> Exit {
    let edge = Cli::command().disable_help_subcommand(true);
    let result = match &args.into {
        Some(folder) => clap_mangen::generate_to(edge, folder),
        None => Man::new(edge).render(&mut io::stdout()),
    };
    printed(result, Exit::Done)
}
