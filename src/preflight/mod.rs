//! Is it safe to save a callback in Nango's settings?
//!
//! First the callback itself is checked ([`crate::check`]). Then `survey` walks: `nango` is asked
//! what there is, and each integration becomes a `candidate`; `urls` finds where its users are sent
//! to, by flows that are begun or by `authorization` from templates; `environment` is what those
//! have in common; `differential` asks every provider; `integration` says what was found of each in
//! words, and `switch` what to do in which order. To teach it a provider, add it in
//! `differential/provider.rs`, and its answers to the recorded ones beside it.

mod authorization;
mod candidate;
pub mod differential;
mod environment;
mod hmac;
mod integration;
mod nango;
mod survey;
mod switch;
mod urls;

pub use authorization::offline as authorization_url;
pub use hmac::hmac_digest;
pub use nango::{App, Integration, Nango, Pass, Reach, Refused, Template};

use crate::check;
use crate::config::IntegrationSettings;
use crate::outbound::Outbound;
use crate::report::{Check, Report};
use differential::Manners;
use ipnet::IpNet;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::time::Instant;

/// Every check that a preflight adds to those of [`check`]; `integration` stands for one of each.
pub const IDS: [&str; 5] =
    ["nango.key", "nango.environment", "nango.current", "nango.agreement", "integration"];

/// Who asks, unless told otherwise (RFC 9110 §10.1.5).
pub const USER_AGENT: &str = concat!("callback-edge/", env!("CARGO_PKG_VERSION"), " (preflight)");

/// What is to be found out, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The check of the callback that is to be saved.
    pub check: check::Plan,
    /// The callback that Nango sends until the switch; the one to go back to.
    pub previous: String,
    /// How authorization URLs are had.
    pub mode: Mode,
    /// How flows are started.
    pub start: Start,
    /// What users configure, by integration.
    pub integrations: BTreeMap<Box<str>, IntegrationSettings>,
    /// Only these integrations; empty for all.
    pub only: Vec<String>,
    /// These were confirmed by hand.
    pub acknowledged: Vec<String>,
    /// Whether to start no flow and to ask no provider.
    pub dry_run: bool,
    /// How to ask providers.
    pub manners: Manners,
    /// Networks in which providers may be asked, though they are not public.
    pub private_networks: Vec<IpNet>,
    /// Told how many integrations are done, of how many, and the last one's key.
    pub progress: Option<fn(usize, usize, &str)>,
}

/// How authorization URLs are had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// From flows, and compared with those from templates; from templates alone where the key may
    /// start no flow.
    Auto,
    /// From flows: exactly what users are sent to. Leaves a session and a log entry behind.
    Connect,
    /// From templates and credentials. Leaves nothing behind; the key must read credentials.
    Offline,
}

/// How flows are started.
#[derive(Clone, Debug)]
pub enum Start {
    /// With a connect session.
    Session,
    /// With the environment's public key, as accounts from before connect sessions do.
    PublicKey {
        /// The public key.
        key: String,
        /// The id that the connection would have.
        connection: String,
        /// Signs the start.
        hmac_key: Option<SecretString>,
    },
}

/// Runs the plan. Never fails: what cannot be done is in the report.
pub async fn run(plan: &Plan, nango: &Nango, outbound: &Outbound) -> Report {
    let began = Instant::now();
    let mut report = Box::pin(check::run(&plan.check, outbound)).await;
    match Box::pin(survey::run(plan, nango, outbound)).await {
        Ok(survey) => {
            report.checks.extend(survey.checks);
            report.switch = Some(survey.switch);
        }
        Err(refused) => {
            report.checks.push(
                Check::new("nango.key", "Nango accepts the API key")
                    .fail(&refused.why)
                    .hint(&refused.hint),
            );
            report.broken = Some(crate::report::printable(&refused.why));
        }
    }
    report.duration = began.elapsed();
    report
}
