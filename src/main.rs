//! The binary: parses the command line, runs the command, returns its exit code.

use std::process::ExitCode;

/// After a peak of connections glibc's allocator keeps their memory; this one returns it to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    callback_edge::cli::run()
}
