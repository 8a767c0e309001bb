use super::json::Json;
use anstream::AutoStream;
use std::fmt;
use std::io::{BufWriter, IsTerminal, Write as _};
use std::time::Duration;
use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt as layer, reload};

/// The most lines that are queued for a slow reader; further ones are dropped.
const MAX_QUEUED_LINES: usize = 16_384;

/// The size of the write buffer.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// How long the process waits at its exit until the queued lines are written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// Text on a terminal, else JSON.
    pub fn detect() -> Self {
        if std::io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// The log of the process. A dedicated thread writes the lines to stderr: a slow reader causes dropped
/// lines, never a blocked redirect. Dropping the log flushes it.
pub struct Log {
    format: Format,
    filter: reload::Handle<Targets, Registry>,
    writer: NonBlocking,
    dropped: ErrorCounter,
    flush: Option<WorkerGuard>,
}

impl Log {
    /// Starts logging for the process.
    pub fn start(format: Format, level: Level) -> Result<Self, LogError> {
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(MAX_QUEUED_LINES)
            .thread_name("log")
            // Flushed whenever the queue is empty: a system call for each line would cost more than the line.
            .finish(BufWriter::with_capacity(WRITE_BUFFER_BYTES, std::io::stderr()));
        let dropped = writer.error_counter();
        let queue = writer.clone();
        let (filter, handle) = reload::Layer::new(own_events(level));
        let lines = layer::layer().with_writer(writer).with_target(false);
        let lines = match format {
            Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
            Format::Json => lines.event_format(Json).boxed(),
        };
        tracing_subscriber::registry()
            .with(lines.with_filter(filter))
            .try_init()
            .map_err(LogError)?;
        Ok(Self { format, filter: handle, writer: queue, dropped, flush: Some(guard) })
    }

    /// The format of its lines.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Prints a text for people, in order with the log lines. Without colours where stderr does not
    /// support them.
    pub fn print(&self, text: &str) {
        let mut stripped = AutoStream::new(Vec::new(), AutoStream::choice(&std::io::stderr()));
        // Writes to a `Vec` and to the queue do not fail.
        let _ = stripped.write_all(text.as_bytes());
        let _ = self.writer.clone().write_all(&stripped.into_inner());
    }

    /// Sets the level.
    pub fn set_level(&self, level: Level) {
        // It fails only when the subscriber does not exist any more.
        let _ = self.filter.reload(own_events(level));
    }

    /// How many lines were dropped because of a slow reader.
    pub fn dropped_lines(&self) -> usize {
        self.dropped.dropped_lines()
    }
}

impl Drop for Log {
    /// Flushes the queue, with a time limit. In a thread of its own, because the guard prints to stdout
    /// when it gives up, and stdout may be the full pipe.
    fn drop(&mut self) {
        let (done, flushed) = std::sync::mpsc::channel();
        let flush = self.flush.take();
        let thread = std::thread::Builder::new().name("flush".into());
        let started = thread.spawn(move || {
            drop(flush);
            let _ = done.send(());
        });
        if started.is_ok() {
            let _ = flushed.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

/// Only events of this crate. Libraries log header values and frames at `trace`, which contain
/// codes.
fn own_events(level: Level) -> Targets {
    Targets::new().with_target("callback_edge", LevelFilter::from_level(level))
}

/// Logging was already started.
#[derive(Debug)]
pub struct LogError(TryInitError);

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot start logging: {}", self.0)
    }
}

impl std::error::Error for LogError {}

/// Milliseconds for a log line: 128-bit numbers become strings in JSON.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Microseconds for a log line.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Logs a panic as one line with its location. The payload is omitted, because it may quote a request.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            event = "panic",
            place,
            hint = "only its task ended, the process continues; report this as a bug, with `place`",
        );
    }));
}
