use super::{Exit, cannot_run};
use crate::config::{self, LogFormat, Problem, Problems};
use crate::observe::{Format, Log, log_panics};
use crate::server::{ShutdownResult, StartError, Startup, report, serve};
use crate::tls;
use listenfd::ListenFd;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tracing::Level;

/// How long file operations in progress may take after everything else has ended.
const FILE_TIMEOUT: Duration = Duration::from_secs(1);

/// Run the server (default)
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
Signals: SIGTERM and SIGINT start a graceful shutdown, a second one stops at once; SIGHUP reloads, and
shuts down when the terminal was closed
Exit codes: 0 stopped gracefully, 1 forced, crashed or could not listen, 64 configuration error

Example:
  callback-edge -c config.toml serve")]
pub(super) struct Serve {}

/// Exit: 0 stopped gracefully, 1 forced, crashed or could not listen, 64 configuration error.
pub(super) fn run(_: &Serve, file: Option<&Path>) -> Exit {
    // Reads the environment, which is safe only with a single thread.
    let inherited = inherited_sockets();
    let file: Option<PathBuf> = file.map(Into::into);
    let source = {
        let file = file.clone();
        move || tls::load_settings_to_serve(file.as_deref(), std::env::vars_os())
    };
    let loaded = source();
    let (format, level) = match &loaded {
        Ok(loaded) => (loaded.settings.log.format, loaded.settings.log.level),
        Err(_) => (config::log_format(file.as_deref(), std::env::vars_os()), Level::INFO),
    };
    let format = match format {
        None => Format::detect(),
        Some(LogFormat::Text) => Format::Text,
        Some(LogFormat::Json) => Format::Json,
    };
    // Everything from here on is reported in this format.
    let log = match Log::start(format, level) {
        Ok(log) => Arc::new(log),
        Err(error) => return cannot_run(&io::Error::other(error)),
    };
    log_panics();
    let refuse = |problems: &Problems, exit| {
        report(&log, problems);
        exit
    };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems, Exit::Usage),
    };
    report(&log, &loaded.warnings);
    let startup = Startup {
        settings: loaded.settings,
        file: loaded.file,
        source: Box::new(source),
        log: Arc::clone(&log),
        inherited,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let problem = Problem::error("cannot start").caused_by(&error);
            return refuse(&problem.into(), Exit::Failed);
        }
    };
    let ended = runtime.block_on(serve(startup));
    // A file system that hangs must not keep the process from ending.
    runtime.shutdown_timeout(FILE_TIMEOUT);
    match ended {
        Ok(ShutdownResult::Drained) => Exit::Done,
        Ok(ShutdownResult::Forced) => Exit::Failed,
        Err(StartError::Settings(problems)) => refuse(&problems, Exit::Usage),
        Err(StartError::System(problems)) => refuse(&problems, Exit::Failed),
    }
}

/// Sockets passed by systemd's socket activation (`sd_listen_fds(3)`).
fn inherited_sockets() -> Vec<TcpListener> {
    let mut passed = ListenFd::from_env();
    (0..passed.len())
        .filter_map(|position| passed.take_tcp_listener(position).ok().flatten())
        .collect()
}
