//! The suite that needs nothing but Rust: the built binary, real sockets, real TLS.
