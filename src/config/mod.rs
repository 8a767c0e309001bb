//! Settings: defaults, file and environment become one immutable, typed [`Settings`].
//!
//! [`load`] walks: `source` (values and their places) → `layers` (figment merges) → `reader` (each
//! leaf is read by itself) → `read` (the one list of keys) → `agree` (what only shows when settings
//! are seen together). Each step notes its [`Problem`]s and goes on, so that one run tells them all.

mod address;
mod validate;
mod file;
mod layers;
mod leaf;
mod load;
mod loops;
mod path;
mod location;
mod problem;
mod read;
mod reader;
mod settings;
mod source;
mod unknown;

pub use file::{Unreadable, read_file};
pub use load::{Loaded, load, log_format};
pub use location::{Location, Quote, Position};
pub use problem::{Problem, Problems};
pub use reader::EffectiveSetting;
pub use settings::*;

use crate::redirect::{BadTarget, Path, Target};
use url::Url;

/// Where a callback leads to at Nango, `https://api.nango.dev`, when nothing else is said.
pub fn target_at_nango(nango: &str, callback: &str) -> Result<Target, BadTarget> {
    let path = Url::parse(callback).ok();
    let path = path.and_then(|url| Path::parse(url.path().trim_end_matches('/')).ok());
    let path = path.as_ref().map_or("/oauth/callback", read::path_at_nango);
    Target::parse(&format!("{nango}{path}"))
}
