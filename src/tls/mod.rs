//! Certificates: read from files or obtained by ACME, held, and chosen by SNI.

pub mod acme;
mod files;
mod store;

pub use files::{Certificate, CertificateError, load};
pub use store::{Acceptor, Certificates, Kept, Origin, Refreshed, Store};
