//! Settings: defaults, file and environment become one immutable, typed [`Settings`].

mod settings;

pub use settings::*;
