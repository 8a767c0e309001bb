//! The binary: parse, run, exit code.

use std::process::ExitCode;

/// glibc's allocator keeps what a crowd of connections needed; this one gives it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    callback_edge::cli::run()
}
