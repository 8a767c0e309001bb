//! Log lines and metrics. No function here accepts a query, a header or a body, so that none can leak.

mod gauges;
mod json;
mod label;
mod log;
mod metrics;
mod watch;

pub use label::{
    AcmeFailure, AcmeStep, ConnectionError, ConnectionState, Deadline, HandshakeFailure,
    InternalRequest, Label, Limit, ListenerKind, Refusal, ReloadResult, Status,
};
pub use log::{Format, Log, LogError, log_panics, micros, millis};
pub use metrics::{ByLabel, Metrics, Sampled};
pub use watch::{CheckMetrics, CheckRun, Exported, PreflightMetrics, PreflightRun};
