//! Is it safe to save a callback in Nango's settings?
//!
//! Checks the callback ([`crate::check`]), then runs `survey`: `nango` lists the integrations, each
//! becomes a `candidate` of a `kind`; `urls` finds its authorization URL, from a started flow or, with
//! `authorization`, from its template; `environment` derives the current callback; `differential`
//! probes every provider; `integration` creates a check for each result, and `switch` the steps of
//! the switch. To add a provider, add it in `differential/provider.rs`, and its replies in
//! `differential/recorded`.

mod authorization;
mod candidate;
pub mod differential;
mod environment;
mod flows;
mod hmac;
mod integration;
mod kind;
mod nango;
mod survey;
mod switch;
mod urls;

pub use authorization::offline as authorization_url;
pub use flows::{FlowObservation, Flows};
pub use hmac::hmac_digest;
pub use nango::{
    Account, App, ErrorScope, FlowCredential, Integration, Nango, NangoEnvironment, NangoError,
    NoEnvironments, Saved, Template,
};
pub use switch::FLOWS_IN_PROGRESS;

use crate::check;
use crate::config::IntegrationSettings;
use crate::outbound::Outbound;
use crate::report::{Check, Report};
use differential::ProbePolicy;
use ipnet::IpNet;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::time::Instant;
use url::Url;

/// The checks that a preflight adds to those of [`check`]; there is an `integration` check for each.
pub const IDS: [&str; 5] =
    ["nango.key", "nango.environment", "nango.current", "nango.agreement", "integration"];

/// The default `User-Agent` (RFC 9110 §10.1.5), with the address of the repository if there is one.
pub const USER_AGENT: &str = if env!("CARGO_PKG_REPOSITORY").is_empty() {
    concat!("callback-edge/", env!("CARGO_PKG_VERSION"), " (preflight)")
} else {
    concat!(
        "callback-edge/",
        env!("CARGO_PKG_VERSION"),
        " (preflight; +",
        env!("CARGO_PKG_REPOSITORY"),
        ")"
    )
};

/// What to check, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The check of the new callback.
    pub check: check::Plan,
    /// The callback that Nango sends before the switch; the one to restore.
    pub previous: String,
    /// How to obtain authorization URLs.
    pub mode: Mode,
    /// How to start flows.
    pub start: Start,
    /// Settings by integration.
    pub integrations: BTreeMap<Box<str>, IntegrationSettings>,
    /// Only these integrations; empty for all.
    pub only: Vec<String>,
    /// What persons decided about integrations.
    pub decisions: Vec<Decision>,
    /// Whether to start flows that register a client at the provider.
    pub register_clients: bool,
    /// Whether to start no flow and to send nothing to providers.
    pub dry_run: bool,
    /// Limits of the requests to providers.
    pub policy: ProbePolicy,
    /// Networks that are not public, in which providers may be probed.
    pub private_networks: Vec<IpNet>,
    /// Called with the number of completed integrations, their total, and the key of the last one.
    pub progress: Option<fn(usize, usize, &str)>,
}

/// What a person decided about an integration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The unique key of the integration.
    pub integration: String,
    /// Whether a failure is accepted; otherwise an unconfirmed state is confirmed.
    pub accepts_risk: bool,
    /// The state that it applies to; `None` for any.
    pub state: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Who decided.
    pub by: Option<String>,
    /// The option of the command line, if it comes from there: a typing error in it is reported.
    pub option: Option<&'static str>,
}

impl Decision {
    /// For the report, after a word: the reason and the person.
    fn text(&self) -> String {
        let reason = self.reason.as_ref().map(|why| format!(": {why}"));
        let by = self.by.as_ref().map(|by| format!(" ({by})"));
        reason.into_iter().chain(by).collect()
    }
}

/// How to obtain authorization URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// From flows, compared with templates; only from templates when the key may not start flows.
    Auto,
    /// From flows: exactly what users get. Leaves a session and log entries in Nango.
    Connect,
    /// From templates and credentials. Leaves nothing in Nango; the key must read credentials.
    Offline,
}

/// How to start flows.
#[derive(Clone, Debug)]
pub enum Start {
    /// With a connect session.
    Session,
    /// With the public key of the environment, as before connect sessions.
    PublicKey {
        /// The public key.
        key: String,
        /// The id of the connection.
        connection: String,
        /// Signs the start.
        hmac_key: Option<SecretString>,
    },
}

/// Runs the plan. Never fails: the report contains all errors.
pub async fn run(plan: &Plan, nango: &Nango, outbound: &Outbound) -> Report {
    let report = Box::pin(check::run(&plan.check, outbound)).await;
    add_survey(report, plan, nango, outbound).await
}

/// Adds the checks of Nango and the providers to the report of the callback. Never fails.
pub async fn add_survey(
    mut report: Report,
    plan: &Plan,
    nango: &Nango,
    outbound: &Outbound,
) -> Report {
    let began = Instant::now();
    match Box::pin(survey::run(plan, nango, outbound)).await {
        Ok(survey) => {
            report.checks.extend(survey.checks);
            report.switch = Some(survey.switch);
        }
        Err(error) => {
            report.checks.push(
                Check::new("nango.key", "Nango accepts the API key")
                    .fail(&error.why)
                    .hint(&error.hint),
            );
            report.broken = Some(crate::report::printable(&error.why));
        }
    }
    report.duration += began.elapsed();
    report
}

/// Whether both are the same URL for a browser: the default port and the case of the host do not
/// matter.
pub fn is_same_url(one: &str, other: &str) -> bool {
    let parsed = |url: &str| Url::parse(url).ok();
    one == other || parsed(one).is_some_and(|one| parsed(other) == Some(one))
}
