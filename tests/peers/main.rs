//! The suite that drives the edge with programs of others: proxies in front, a provider, a
//! browser, and load. `tests/peers/setup` installs them; one that is missing fails its test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that cannot go on says so by panicking"
)]

// Tests start in the order of the alphabet: the longest is first.
mod a_busy_day;
mod acme;
mod check;
mod clock;
mod conformance;
mod deploy;
mod instructions;
mod login;
mod machine;
mod page;
mod pebble;
mod peer;
mod preflight;
mod proxies;
mod slow;
#[path = "../edge/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the suites share a harness; each uses its part")]
mod support;
mod windows;
mod world;
