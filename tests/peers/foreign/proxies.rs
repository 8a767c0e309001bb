//! Callbacks in the configuration of web servers and proxies, and applications behind them.

use super::{Case, Group, servers};
use crate::peer::{Peer, script};
use crate::support::{certified, free};
use std::fs;

pub(super) const GROUPS: [fn() -> Group; 1] = [lighttpd];

#[rustfmt::skip]
fn lighttpd() -> Group {
    Group { _peers: Vec::new(), cases: Vec::new() }
}
