//! `callback-edge completions SHELL`: a script that completes the command line in a shell.

use super::{Cli, Exit, exit_after_print};
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::{self, Write};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 printed, 64 usage error

Example:
  callback-edge completions bash >/etc/bash_completion.d/callback-edge")]
pub(super) struct Args {
    /// Shell to generate the script for
    shell: Shell,
}

/// Exit: 0 printed.
pub(super) fn run(args: &Args) -> Exit {
    // A buffer, since the generator panics when a write fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "callback-edge", &mut script);
    // In the bash script of clap_complete 4.6, two spellings of a command with a hyphen differ, so
    // its subcommands are not completed.
    let script =
        String::from_utf8_lossy(&script).replace("callback__subcmd__edge", "callback__edge");
    exit_after_print(io::stdout().write_all(script.as_bytes()), Exit::Done)
}
