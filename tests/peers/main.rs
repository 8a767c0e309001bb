//! Tests of the server with other programs: proxies, providers, browsers, and load generators.
//! `tests/peers/setup` installs them; a missing program fails its test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

// Tests start in alphabetical order: the longest is first.
mod a_soak_test;
mod acme;
mod ari;
mod certificates;
mod check;
mod clock;
mod conformance;
mod deploy;
#[path = "../edge/fakes.rs"]
#[expect(dead_code, reason = "the suites share the fakes; each uses a part of them")]
mod fakes;
mod foreign;
mod game_day;
mod instructions;
mod login;
mod machine;
mod page;
mod pebble;
mod peer;
mod preflight;
mod proxies;
mod qs;
mod recipes;
mod slow;
#[path = "../edge/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the suites share a harness; each uses a part of it")]
mod support;
mod switch;
mod tunnels;
mod world;
