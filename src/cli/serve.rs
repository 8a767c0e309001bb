use super::Exit;
use crate::config::{self, Loaded, LogFormat, Problem, Problems};
use crate::observe::{Format, Log, own_panics};
use crate::server::{self, Ended, Startup};
use listenfd::ListenFd;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long file work that is in progress may go on after all else has ended.
const FILE_TIMEOUT: Duration = Duration::from_secs(1);

/// Run the edge; so does no command at all
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
Signals: SIGTERM or SIGINT drain and end, a second one forces; SIGHUP reloads
Exit codes: 0 drained, 1 forced or crashed, 64 wrong settings

Example:
  callback-edge -c config.toml serve")]
pub(super) struct Serve {}

/// Exit: 0 drained, 1 forced or crashed, 64 wrong settings.
pub(super) fn run(_: &Serve, file: Option<&Path>) -> Exit {
    // Reads the environment, which is only safe while there is one thread.
    let inherited = inherited_sockets();
    let loaded = match config::load(file, std::env::vars_os()).and_then(Loaded::to_serve) {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems),
    };
    say(&loaded.warnings);
    let log = &loaded.settings.log;
    let format = match log.format {
        None => Format::fitting(),
        Some(LogFormat::Text) => Format::Text,
        Some(LogFormat::Json) => Format::Json,
    };
    let greet = log.format != Some(LogFormat::Json);
    let log = match Log::start(format, log.level) {
        Ok(log) => log,
        Err(error) => return refuse(&Problem::error(error.to_string()).into()),
    };
    own_panics();
    let file: Option<PathBuf> = file.map(Into::into);
    let source =
        move || config::load(file.as_deref(), std::env::vars_os()).and_then(Loaded::to_serve);
    let startup = Startup {
        settings: loaded.settings,
        file: loaded.file,
        source: Box::new(source),
        log,
        inherited,
        greet,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&Problem::error("cannot start").caused_by(&error).into()),
    };
    let ended = runtime.block_on(server::serve(startup));
    // A file system that does not answer must not keep the process from its end.
    runtime.shutdown_timeout(FILE_TIMEOUT);
    match ended {
        Ok(Ended::Drained) => Exit::Done,
        Ok(Ended::Forced) => Exit::Failed,
        Err(problems) => refuse(&problems),
    }
}

fn refuse(problems: &Problems) -> Exit {
    say(problems);
    Exit::Usage
}

fn say(problems: &Problems) {
    if !problems.0.is_empty() {
        let _ = writeln!(anstream::stderr(), "{}", problems.coloured());
    }
}

/// Sockets of systemd's protocol for handing over (`sd_listen_fds(3)`).
fn inherited_sockets() -> Vec<TcpListener> {
    let mut handed = ListenFd::from_env();
    (0..handed.len())
        .filter_map(|position| handed.take_tcp_listener(position).ok().flatten())
        .collect()
}
