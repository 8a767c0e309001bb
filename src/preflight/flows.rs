//! Which callback Nango sends in flows of an environment.

use super::authorization::redirect_uri;
use super::candidate::{Candidate, candidates};
use super::kind::Kind;
use super::nango::{FlowCredential, Nango, NangoError};
use super::{Mode, Plan, Start};
use secrecy::SecretString;
use std::time::{Duration, Instant};

/// Starts flows of one environment to read the callback in them.
pub struct Flows {
    nango: Nango,
    start: Start,
    /// The integrations whose flows can be started.
    candidates: Vec<Candidate>,
    /// Why there are none.
    none: Option<String>,
    session: Option<(SecretString, Instant)>,
    /// The id of the environment, if a flow or an integration contains it.
    environment: Option<String>,
}

/// The callback in started flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowObservation {
    /// An integration sends this callback.
    Sent {
        /// Its unique key.
        integration: String,
        /// The callback.
        callback: String,
    },
    /// No flow could be started, for this reason.
    None(String),
}

/// A connect session expires after 30 minutes.
const SESSION_AGE: Duration = Duration::from_mins(25);

/// How many integrations are tried: each start counts towards the limit that users share.
const MAX_STARTS: usize = 5;

/// How many integrations are read to find the id of the environment.
const MAX_READ: usize = 20;

impl Flows {
    /// Reads the integrations of the environment and their templates.
    pub async fn read(plan: &Plan, nango: &Nango) -> Result<Self, NangoError> {
        let integrations = nango.integrations().await?;
        // Every integration of the environment sends the same callback.
        let every = Plan { only: Vec::new(), ..plan.clone() };
        let all = candidates(&every, nango, &integrations).await?;
        let may_start = |it: &Candidate| {
            let registers = it.kind == Kind::FollowsSetting { registers: true };
            it.kind.is_started() && !it.is_invalid() && (plan.register_clients || !registers)
        };
        let keys: Vec<_> = by_provider(&all).into_iter().map(Candidate::key).collect();
        let mut environment = None;
        for key in keys.into_iter().take(MAX_READ) {
            match nango.environment_of(key).await {
                Ok(Some(found)) => {
                    environment = Some(found);
                    break;
                }
                // The key may lack the permission.
                Err(error) if error.is_final() => break,
                Ok(None) | Err(_) => {}
            }
        }
        let candidates: Vec<_> = all.into_iter().filter(may_start).collect();
        let none = match plan.mode {
            Mode::Offline => Some("--mode offline starts no flow"),
            _ if candidates.is_empty() => Some("the environment has no OAuth integration"),
            _ => None,
        };
        Ok(Self {
            nango: nango.clone(),
            start: plan.start.clone(),
            candidates,
            none: none.map(str::to_owned),
            session: None,
            environment,
        })
    }

    /// The id of the environment that the key opens, if Nango shows it.
    pub fn environment(&self) -> Option<&str> {
        self.environment.as_deref()
    }

    /// Starts flows until one sends an expected callback; returns the last one otherwise. From then on
    /// only that integration is used: `authorization_params` of others may override the callback.
    pub async fn observe(&mut self, expected: &[&str]) -> FlowObservation {
        if let Some(why) = &self.none {
            return FlowObservation::None(why.clone());
        }
        let credential = match self.credential().await {
            Ok(credential) => credential,
            Err(error) => return FlowObservation::None(error.why),
        };
        let mut result = FlowObservation::None("no flow starts".into());
        let mut found = None;
        for (at, candidate) in self.candidates.iter().take(MAX_STARTS).enumerate() {
            let started =
                self.nango.start_flow(candidate.key(), &candidate.settings, &credential).await;
            let url = match started {
                Ok(url) => url,
                Err(error) => {
                    if error.is_final() {
                        return FlowObservation::None(error.why);
                    }
                    if matches!(result, FlowObservation::None(_)) {
                        result =
                            FlowObservation::None(format!("{}: {}", candidate.key(), error.why));
                    }
                    continue;
                }
            };
            if self.environment.is_none() {
                self.environment = self.nango.environment_in(&url);
            }
            let Some(callback) = redirect_uri(&url, expected) else { continue };
            let is_expected = expected.iter().any(|it| super::is_same_url(it, &callback));
            result = FlowObservation::Sent {
                integration: candidate.key().to_owned(),
                callback: callback.into_owned(),
            };
            if is_expected {
                found = Some(at);
                break;
            }
        }
        if let Some(at) = found {
            self.candidates.swap(0, at);
            self.candidates.truncate(1);
        }
        result
    }

    async fn credential(&mut self) -> Result<FlowCredential, NangoError> {
        match &self.start {
            Start::PublicKey { key, connection, hmac_key } => Ok(FlowCredential::PublicKey {
                key: key.clone(),
                connection: connection.clone(),
                hmac_key: hmac_key.clone(),
            }),
            Start::Session => {
                if let Some((token, at)) = &self.session
                    && at.elapsed() < SESSION_AGE
                {
                    return Ok(FlowCredential::Session(token.clone()));
                }
                let flows = self.candidates.iter().map(|it| (it.key(), &it.settings));
                let token = self.nango.session(flows).await?;
                self.session = Some((token.clone(), Instant::now()));
                Ok(FlowCredential::Session(token))
            }
        }
    }
}

/// One integration of each provider: its other integrations have a webhook URL too, or none.
fn by_provider(all: &[Candidate]) -> Vec<&Candidate> {
    let mut found: Vec<&Candidate> = Vec::new();
    for candidate in all {
        let provider = &candidate.integration.provider;
        if !found.iter().any(|it| it.integration.provider == *provider) {
            found.push(candidate);
        }
    }
    found
}
