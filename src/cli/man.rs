//! `callback-edge man`: the manual pages, generated from the same texts as `--help`.

use super::{Cli, Exit, eprint_line, exit_after_print};
use crate::config::Problem;
use clap::CommandFactory;
use clap_mangen::Man;
use std::io;
use std::path::PathBuf;

/// Print the manual page, or write the manual pages of all commands
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 written, 3 could not write, 64 usage error

Example:
  callback-edge man | man -l -
  callback-edge man --into /usr/local/share/man/man1")]
pub(super) struct Args {
    /// Write `callback-edge.1` and one page for each command to this directory
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

/// Exit: 0 written, 3 could not write.
pub(super) fn run(args: &Args) -> Exit {
    let edge = Cli::command().disable_help_subcommand(true);
    let Some(directory) = &args.into else {
        return exit_after_print(Man::new(edge).render(&mut io::stdout()), Exit::Done);
    };
    match clap_mangen::generate_to(edge, directory) {
        Ok(()) => Exit::Done,
        Err(error) => {
            let what = format!("cannot write the pages to `{}`", directory.display());
            let problem = Problem::error(what).caused_by(&error);
            eprint_line(&problem.hint("use an existing, writable directory").coloured());
            Exit::CouldNotRun
        }
    }
}
