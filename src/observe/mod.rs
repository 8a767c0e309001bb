//! What is seen from outside: log lines and metrics. Nothing here ever takes a query, a header
//! or a body; what cannot be handed in cannot leak.

mod log;
mod metrics;
mod watch;

pub use log::{Format, Log, LogError, micros, millis, own_panics};
pub use metrics::{
    AcmeFailure, AcmeStep, ByLabel, ConnectionError, ConnectionState, Deadline, HandshakeFailure,
    Label, Limit, ListenerKind, Metrics, Refusal, ReloadResult, Sampled, Status,
};
pub use watch::{WatchMetrics, Watched};
