//! The suite that needs nothing but Rust: the built binary, real sockets, real TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says so by panicking"
)]

mod check;
mod config;
mod gallery;
mod house;
mod malformed;
mod privacy;
mod readme;
mod redirect;
mod self_check;
mod serve;
mod stand_in;
mod support;
