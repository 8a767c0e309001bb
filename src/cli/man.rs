//! `callback-edge man`: the manual, made of the same words as `--help`.

use super::{Cli, Exit, exit_after_print, eprint_line};
use crate::config::Problem;
use clap::CommandFactory;
use clap_mangen::Man;
use std::io;
use std::path::PathBuf;

/// Print the manual page, or write those of all commands
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 written, 3 not written, 64 usage

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
    let Some(folder) = &args.into else {
        return exit_after_print(Man::new(edge).render(&mut io::stdout()), Exit::Done);
    };
    match clap_mangen::generate_to(edge, folder) {
        Ok(()) => Exit::Done,
        Err(error) => {
            let what = format!("cannot write the pages into `{}`", folder.display());
            let problem = Problem::error(what).caused_by(&error);
            eprint_line(&problem.hint("name a folder that exists and that you may write to").coloured());
            Exit::CouldNotRun
        }
    }
}
