//! The OAuth callback of your Nango integrations, on your own domain.
//!
//! A module is a directory named for its subject. Modules form layers: a module imports only modules of
//! lower layers. `tests/edge/architecture.rs` reads the imports and enforces this table:
//!
//! | Layer | Module | Contents | May import |
//! |---|---|---|---|
//! | 6 | [`cli`] | one file per subcommand; prints, chooses exit codes | all below |
//! | 5 | [`switch`] | changes the callback in Nango's settings: state machine, journal, way back | preflight, check, outbound, report, config, explain |
//! | 4 | [`server`] | listeners, connections, the HTTP service, lifecycle, reload | config, redirect, tls, check, outbound, report, observe |
//! | 4 | [`preflight`] | Nango's REST, authorization URLs, the differential test, the switch plan | check, outbound, report, config, redirect |
//! | 3 | [`check`] | the prober: takes a plan, returns a report | outbound, report, redirect |
//! | 3 | [`tls`] | certificates: from files or ACME, stored, selected by SNI | outbound, config, observe |
//! | 2 | [`config`] | settings: sources, types, every error with its location | redirect, outbound |
//! | 1 | [`recipes`] | the redirects for other platforms, compiled in | – |
//! | 1 | [`outbound`] | the outbound client: resolver, dialer, proxies, TLS, HTTP | – |
//! | 1 | [`redirect`] | **the core, pure**: takes a request head, returns a decision with a ready `Location` | – |
//! | 1 | [`report`] | checks and verdicts; text, JSON and HTML from the same report | explain |
//! | 1 | [`observe`] | logging, panics without payloads, every metric | – |
//! | 0 | [`explain`] | the reference sections of `docs/`, by id; for terminals and HTML | – |
//!
//! Data flow:
//!
//! - Request: `server::listen` → `server::connection` → `server::driver`, which enforces the deadlines →
//!   `server::service` → [`redirect`] → response.
//! - Settings: [`config`] → `server::process` → one immutable snapshot. A reload builds a new snapshot,
//!   or changes nothing when it fails.
//! - Check: [`cli`] or `server::self_check` → [`check::run`] → [`report::Report`].
//! - Preflight: [`cli`] → [`preflight::run`], which runs the check and adds the results from Nango and the
//!   providers.
//! - Switch: [`cli`] → [`switch`], which runs the preflight before each change and after it.
//!
//! Within a module no two files import each other, directly or indirectly.

pub mod check;
pub mod cli;
pub mod config;
pub mod explain;
pub mod observe;
pub mod outbound;
pub mod preflight;
pub mod recipes;
pub mod redirect;
pub mod report;
pub mod server;
pub mod switch;
pub mod tls;
