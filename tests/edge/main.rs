//! The suite that requires only Rust: the built binary, real sockets, real TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a test reports a failure by panicking"
)]

mod acme;
mod architecture;
mod attackers;
mod certificate_files;
mod certificates;
mod check;
mod config;
mod crowds;
mod differential;
mod drain;
mod explain;
mod fakes;
mod faults;
mod floods;
mod framing;
mod gallery;
mod health;
mod integrations;
mod invalid_config;
mod language;
mod malformed;
mod manager;
mod manual;
mod memory;
mod nango;
mod pictures;
mod preflight;
mod privacy;
mod proxies;
mod publishing;
mod readme;
mod recipe;
mod redirect;
mod reload;
mod report;
mod security;
mod self_check;
mod serve;
mod steady;
mod support;
mod switch;
mod tunnels;
