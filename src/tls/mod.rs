//! Certificates: read from files, held, and chosen by SNI.

mod files;
mod store;

pub use files::{Certificate, CertificateError, load};
pub use store::{Certificates, Kept, Refreshed, Store, server_config};
