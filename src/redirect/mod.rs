//! The core: a request head in, a decision with a ready `Location` out. Pure, no I/O.
//!
//! The query is copied, never parsed: a `Location` is a prefix fixed at start-up, a separator, and
//! the bytes that were received. Nothing in a request selects the target.
//!
//! | Request | Decision |
//! |---|---|
//! | GET or HEAD on a route | 308, [`Decision::Redirect`] |
//! | POST of a form on a route that converts | [`Decision::ReadForm`], then 303 by [`Form::redirect`] |
//! | other methods on a route | 405, OPTIONS 204, both with `Allow` |
//! | a prefetch of a route | 503, so that it uses up no code |
//! | query over the limit | 414 |
//! | unknown path, unknown host | 404, 421 |
//! | no single valid `Host`, or a target that is not in origin form | 400 |

mod decide;
mod host;
mod outcome;
mod route;
mod target;

pub use decide::{BadForm, Decision, Form, Redirect, decide};
pub use host::{BadHost, Host, requested_host};
pub use outcome::Outcome;
pub use route::{BadPath, Duplicate, FormPost, Mounted, Path, Route, RouteTable};
pub use target::{BadTarget, Target};
