//! The server: listeners, connections, the HTTP service, and the lifecycle of the process.
//!
//! The public listeners serve the routes and the pages. The admin listener, or the public ones when
//! there is none, serve:
//!
//! | Endpoint | Response |
//! |---|---|
//! | `GET /healthz` | 200 while the process can respond |
//! | `GET /readyz` | 200 ready, 503 starting, draining, or without a certificate |
//! | `GET /self-check` | the check of every route through its public URL; JSON, or a page for a browser |
//! | `GET /metrics` | `OpenMetrics` text; admin listener only |
//!
//! The plain listeners serve `/.well-known/acme-challenge/` while ACME is on.

mod announce;
mod client;
mod client_stream;
mod connection;
mod context;
mod driver;
mod endpoints;
mod handle;
mod http1;
mod http2;
mod io;
mod lifecycle;
mod listen;
mod origin;
mod port_owner;
mod probes;
mod process;
mod proxy;
mod response;
mod scan;
mod self_check;
mod service;
mod shared;
mod slots;
mod snapshot;
mod state;
mod terminal;
mod turns;
mod verdicts;

pub use announce::report;
pub use lifecycle::{ShutdownResult, serve};
pub use origin::callbacks;
pub use process::{Source, StartError, Startup};
pub use proxy::parse_header as parse_proxy_header;
