//! Is it safe to save a callback in Nango's settings?

pub mod differential;
