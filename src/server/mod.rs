//! The edge at work: listeners, connections, the HTTP service, and the life of the process.
//!
//! On the public listeners it answers the routes and the pages; on the admin listener, or on the
//! public ones when there is none:
//!
//! | Endpoint | Answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process can answer |
//! | `GET /readyz` | 200 ready, 503 starting, draining, or without a certificate |
//! | `GET /self-check` | the check of every route through its public URL; JSON, or a page for a browser |
//! | `GET /metrics` | `OpenMetrics` text; admin listener only |
//!
//! `/.well-known/acme-challenge/` is answered on the plain listeners while ACME is on.

mod announce;
mod answer;
mod client;
mod connection;
mod driver;
mod endpoints;
mod handle;
mod http1;
mod http2;
mod io;
mod lifecycle;
mod listen;
mod origin;
mod process;
mod proxy;
mod scan;
mod self_check;
mod service;
mod shared;
mod slots;
mod snapshot;
mod state;

pub use lifecycle::{Ended, serve};
pub use origin::callbacks;
pub use process::{Source, Startup};
pub use proxy::parse_header as parse_proxy_header;
