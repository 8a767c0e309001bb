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

/// Lines that wait for a slow reader before further ones are dropped.
const WAITING_LINES: usize = 16_384;

/// Bytes of lines that are written with one call, under load.
const WRITTEN_AT_ONCE: usize = 64 * 1024;

/// How long the end waits for the last lines to be read.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// Text on a terminal, else JSON.
    pub fn fitting() -> Self {
        if std::io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// The running log. Lines go to stderr from a thread of its own: a reader that stops reading
/// costs lines, never a redirect. Dropping it writes out what waits.
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
            .buffered_lines_limit(WAITING_LINES)
            .thread_name("log")
            // Flushed whenever no line waits: a write for each would cost more than the line.
            .finish(BufWriter::with_capacity(WRITTEN_AT_ONCE, std::io::stderr()));
        let dropped = writer.error_counter();
        let text = writer.clone();
        let (filter, handle) = reload::Layer::new(own_events(level));
        let lines = layer::layer().with_writer(writer).with_target(false);
        let lines = match format {
            Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
            Format::Json => lines
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .boxed(),
        };
        tracing_subscriber::registry()
            .with(lines.with_filter(filter))
            .try_init()
            .map_err(LogError)?;
        Ok(Self { format, filter: handle, writer: text, dropped, flush: Some(guard) })
    }

    /// How its lines look.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Says a text for people, in its turn among the lines. Colours are left out where stderr
    /// shows none.
    pub fn say(&self, text: &str) {
        let mut shown = AutoStream::new(Vec::new(), AutoStream::choice(&std::io::stderr()));
        // Neither a `Vec` nor the queue of lines refuses anything.
        let _ = shown.write_all(text.as_bytes());
        let _ = self.writer.clone().write_all(&shown.into_inner());
    }

    /// Changes the level from now on.
    pub fn set_level(&self, level: Level) {
        // The only error is a subscriber that is gone, and then nobody logs.
        let _ = self.filter.reload(own_events(level));
    }

    /// Lines that were dropped because the reader was too slow.
    pub fn dropped_lines(&self) -> usize {
        self.dropped.dropped_lines()
    }
}

impl Drop for Log {
    /// Writes out what waits, for as long as somebody reads. In a thread of its own, since the
    /// guard says on stdout that it gives up, and that may be the pipe that is full.
    fn drop(&mut self) {
        let (done, flushed) = std::sync::mpsc::channel();
        let flush = self.flush.take();
        let thread = std::thread::Builder::new().name("flush".into());
        let started = thread.spawn(move || {
            drop(flush);
            let _ = done.send(());
        });
        if started.is_ok() {
            let _ = flushed.recv_timeout(LAST_LINES);
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

/// Events of this crate only. Libraries log header values and frames at `trace`, and those hold
/// codes.
fn own_events(level: Level) -> Targets {
    Targets::new().with_target("callback_edge", LevelFilter::from_level(level))
}

/// Logging was started already.
#[derive(Debug)]
pub struct LogError(TryInitError);

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot start logging: {}", self.0)
    }
}

impl std::error::Error for LogError {}

/// A time as a number in a log line: 128 bits would become text in JSON.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// As [`millis`], a thousand times as fine.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Makes a panic one log line with its place. The payload is left out: it may quote a request.
pub fn own_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            event = "panic",
            place,
            hint = "its task ended, the process serves on; report the place",
        );
    }));
}
