//! The OAuth callback of your Nango integrations, on your own domain.
//!
//! The crate is a house with floors. A room is a folder named for what it is about; imports point
//! down a floor or stay within the room, never up and never in a circle. `tests/edge/house.rs`
//! reads the imports and holds the code to this table:
//!
//! | Floor | Room | What lives there | May know |
//! |---|---|---|---|
//! | 5 | [`cli`] | one file a verb; prints, chooses exit codes | all below |
//! | 4 | [`server`] | listeners, connections, the HTTP service, lifecycle, reload | config, redirect, tls, check, outbound, report, observe |
//! | 4 | [`preflight`] | Nango's REST, authorization URLs, the differential test, the switch plan | check, outbound, report, config, redirect |
//! | 3 | [`check`] | the prober: a plan in, a report out | outbound, report, redirect |
//! | 3 | [`tls`] | certificates: read or obtained by ACME, held, chosen by SNI | outbound, config, observe |
//! | 2 | [`config`] | settings: sources, types, every problem with its place | redirect, outbound |
//! | 1 | [`outbound`] | the one way out: dialer, TLS client, HTTP client | – |
//! | 1 | [`redirect`] | **the heart, pure**: a request head in, a decision with a ready `Location` out | – |
//! | 1 | [`report`] | checks and verdicts; text, JSON and HTML from the same report | explain |
//! | 1 | [`observe`] | log set-up, panics without payloads, every metric | – |
//! | 0 | [`explain`] | the reference sections of `docs/`, by id; for terminals and HTML | – |
//!
//! A request walks `server::listen` → `server::connection` → `server::keeper`, which holds it to its
//! deadlines → `server::service` → [`redirect`], and comes back as a response. Settings walk [`config`]
//! → `server::process` → one immutable snapshot; a reload is the same walk, and changes nothing where it
//! fails. A check walks [`cli`] or `server::self_check` → [`check::run`] → [`report::Report`]; a preflight
//! walks [`cli`] → [`preflight::run`], which does the same and adds what Nango and the providers say.
//!
//! Within a room no two files know each other, by whichever way: one of them is below.

pub mod check;
pub mod cli;
pub mod config;
pub mod explain;
pub mod observe;
pub mod outbound;
pub mod preflight;
pub mod redirect;
pub mod report;
pub mod server;
pub mod tls;
