//! `callback-edge completions SHELL`: what a shell needs to complete the command line.

use super::{Cli, Exit, exit_after_print};
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::{self, Write};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 printed, 64 usage

Example:
  callback-edge completions bash >/etc/bash_completion.d/callback-edge")]
pub(super) struct Args {
    /// The shell that is to complete
    shell: Shell,
}

/// Exit: 0 printed.
pub(super) fn run(args: &Args) -> Exit {
    // A buffer, since the generator panics where a write fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "callback-edge", &mut script);
    // The one for bash (clap_complete 4.6) calls a command below a name with a hyphen differently
    // in two places, and so completes nothing there.
    let script =
        String::from_utf8_lossy(&script).replace("callback__subcmd__edge", "callback__edge");
    exit_after_print(io::stdout().write_all(script.as_bytes()), Exit::Done)
}
