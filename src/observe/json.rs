//! Log lines as JSON objects.
//!
//! They are those of `tracing-subscriber`, whose formatter takes 20,000 instructions for the line of a
//! request: nearly as many as the request. This one writes into one string, and text that needs no escapes at
//! once.

use jiff::Timestamp;
use std::fmt::{self, Debug, Display, Write as _};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The line of a request is shorter.
const USUAL_BYTES: usize = 384;

/// Formats an event as one object: `timestamp`, `level`, and its fields.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line(String::with_capacity(USUAL_BYTES));
        line.0.push_str("{\"timestamp\":\"");
        line.show(format_args!("{:.6}", Timestamp::now()));
        line.0.push_str("\",\"level\":\"");
        line.0.push_str(event.metadata().level().as_str());
        line.0.push('"');
        event.record(&mut line);
        line.0.push_str("}\n");
        writer.write_str(&line.0)
    }
}

/// A line that is not complete yet.
struct Line(String);

impl Line {
    fn key(&mut self, field: &Field) {
        self.0.push_str(",\"");
        self.0.push_str(field.name());
        self.0.push_str("\":");
    }

    /// Appends a value as it is. A value that cannot be shown is cut off there.
    fn show(&mut self, value: impl Display) {
        let _ = write!(self.0, "{value}");
    }

    fn string(&mut self, text: &str) {
        if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
            self.0.push('"');
            self.0.push_str(text);
            self.0.push('"');
        } else {
            self.show(serde_json::Value::from(text));
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.key(field);
        self.string(value);
    }

    /// Also what is recorded by its `Display`.
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.key(field);
        let start = self.0.len();
        self.show(format_args!("{value:?}"));
        let text = self.0.split_off(start);
        self.string(&text);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.key(field);
        self.show(value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.key(field);
        self.show(value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.key(field);
        self.show(value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.key(field);
        // As JSON requires: what is no number is `null`.
        self.show(serde_json::Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{Layer, Registry, fmt as layer};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Buffer {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// The lines of these events, without the time, by this formatter and by that of the library.
    fn both(events: impl Fn()) -> [Vec<String>; 2] {
        [false, true].map(|library| {
            let buffer = Buffer::default();
            let lines = layer::layer::<Registry>().with_writer(buffer.clone()).with_target(false);
            let lines = if library {
                let json = lines.json().flatten_event(true);
                json.with_current_span(false).with_span_list(false).boxed()
            } else {
                lines.event_format(Json).boxed()
            };
            tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), &events);
            let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
            let time = "{\"timestamp\":\"2026-11-26T22:45:02.301017Z\"".len();
            let lines = text.lines().map(|line| {
                assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
                assert!(line.starts_with("{\"timestamp\":\"20"), "{line}");
                line[time..].to_owned()
            });
            lines.collect()
        })
    }

    #[test]
    fn what_json_escapes_is_escaped() {
        for text in ["\"", "\\", "\n", "\u{1f}", "a\"b"] {
            let [own, library] = both(|| tracing::info!(text, shown = %text));
            assert_eq!(own, library);
        }
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_library(
            text in ".{0,20}|[\\PC\"\\\\\n\t\u{7f}]{0,20}",
            number: u64,
            signed: i64,
            float: f64,
            flag: bool,
        ) {
            let [own, library] = both(|| {
                let cause = io::Error::other(text.clone());
                tracing::info!(
                    event = "request",
                    text,
                    shown = %text,
                    debug = ?Some(&text),
                    missing = None::<&str>,
                    present = Some(text.as_str()),
                    number,
                    signed,
                    flag,
                    wide = u128::from(number),
                    cause = &cause as &dyn std::error::Error,
                );
                tracing::warn!(float, "a message with {flag}");
                tracing::error!(event = "request");
            });
            prop_assert_eq!(own.len(), 3);
            prop_assert_eq!(own, library);
        }
    }
}
