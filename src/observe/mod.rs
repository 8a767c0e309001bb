//! What is seen from outside: log lines and metrics. Nothing here ever takes a query, a header
//! or a body; what cannot be handed in cannot leak.

mod gauges;
mod label;
mod log;
mod metrics;
mod watch;

pub use label::{
    AcmeFailure, AcmeStep, ConnectionError, ConnectionState, Deadline, HandshakeFailure, Label,
    Limit, ListenerKind, Refusal, ReloadResult, Status,
};
pub use log::{Format, Log, LogError, micros, millis, own_panics};
pub use metrics::{ByLabel, Metrics, Sampled};
pub use watch::{WatchMetrics, Watched};
