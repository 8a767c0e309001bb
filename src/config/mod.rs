//! Settings: defaults, file and environment become one immutable, typed [`Settings`].
//!
//! [`load`] calls: `source` (values and their locations) → `layers` (figment merges) → `reader` (parses
//! each value separately) → `read` (the only list of keys) → `validate` (rules that span several
//! settings). Each step collects its [`Problem`]s and continues, so that one run reports all of them.

mod address;
mod file;
mod layers;
mod leaf;
mod load;
mod location;
mod loops;
mod path;
mod problem;
mod project;
mod read;
mod reader;
mod settings;
mod similar;
mod source;
mod syntax;
mod unknown;
mod validate;

pub use file::{Unreadable, read_file};
pub use load::{
    InspectCertificates, Loaded, listen_for_health, load, load_for_serving, log_format,
};
pub use location::{Location, Position, Quote};
pub use problem::{Problem, Problems};
pub use project::{Acknowledgement, Environment, KeyFile, Project, load_project};
pub use reader::EffectiveSetting;
pub use settings::*;

use crate::redirect::{BadTarget, Path, Target};
use url::Url;

/// The default target of a callback at `nango`, for example `https://api.nango.dev`.
pub fn target_at_nango(nango: &str, callback: &str) -> Result<Target, BadTarget> {
    let path = Url::parse(callback).ok();
    let path = path.and_then(|url| Path::parse(url.path().trim_end_matches('/')).ok());
    let path = path.as_ref().map_or("/oauth/callback", read::path_at_nango);
    Target::parse(&format!("{nango}{path}"))
}
