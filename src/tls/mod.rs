//! Certificates: read from files or obtained by ACME, stored, and selected by SNI.

pub mod acme;
mod files;
mod inspect;
mod pem;
mod store;

pub use files::{Certificate, CertificateError, load};
pub use inspect::{load_settings, load_settings_to_serve};
pub use store::{Acceptor, CertificateChanges, Certificates, Origin, Store};
