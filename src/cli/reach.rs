//! What the verbs that ask others have in common: the options that say how, and the client they make.

use crate::config::{Problem, Settings};
use crate::outbound::{Limits, Outbound, Override, Resolver, Roots};
use jiff::SignedDuration;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Reach {
    /// Dial this address for a host and port, before `self_check.connect_to`; may be repeated
    #[arg(long, value_name = "HOST:PORT:ADDRESS", value_parser = Override::resolve)]
    resolve: Vec<Override>,

    /// Dial this address and port for a host and port; may be repeated
    #[arg(long, value_name = "HOST:PORT:ADDRESS:PORT")]
    connect_to: Vec<Override>,

    /// Trust the certificates in this PEM file too, beside `self_check.root_ca`
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// How long each step may take: resolve, connect, handshake, answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,
}

/// How many times the longest step the whole check of one URL may take.
const STEPS: u32 = 12;

impl Reach {
    /// How long the whole check of one URL may take.
    pub(super) fn total(&self) -> Duration {
        self.timeout.saturating_mul(STEPS)
    }

    /// The client; a file of authorities that cannot be used is a usage error.
    pub(super) fn outbound(&self, settings: Option<&Settings>) -> Result<Outbound, Problem> {
        let roots = self.roots(settings).map_err(|error| {
            Problem::error(error).hint("name a PEM file with the authority's certificate")
        })?;
        let limits = Limits { step: self.timeout, ..Limits::default() };
        Ok(Outbound::new(Resolver::new(self.overrides(settings)), roots, limits))
    }

    /// Where to connect. What the command line says of a host and port holds in place of what the
    /// settings say of it.
    fn overrides(&self, settings: Option<&Settings>) -> Vec<Override> {
        let mut overrides: Vec<_> = self.resolve.iter().chain(&self.connect_to).cloned().collect();
        let from_settings: Vec<_> = settings
            .into_iter()
            .flat_map(|settings| settings.self_check.connect_to.iter().cloned())
            .filter(|entry| {
                !overrides.iter().any(|known| known.port == entry.port && known.host == entry.host)
            })
            .collect();
        overrides.extend(from_settings);
        overrides
    }

    /// The public authorities, those of the settings, and those of the command line.
    fn roots(&self, settings: Option<&Settings>) -> Result<Roots, String> {
        let roots = settings.map_or_else(Roots::public, |it| it.self_check.roots.clone());
        let Some(ca) = &self.ca else { return Ok(roots) };
        let cannot_use = |why: &dyn fmt::Display| {
            format!("cannot use certificate file `{}`: {why}", ca.display())
        };
        let pem = std::fs::read(ca).map_err(|error| cannot_use(&error))?;
        roots.and_pem(&pem).map_err(|error| cannot_use(&error))
    }
}

/// A duration as people write it; zero and less are none.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    let wrong = "is not a duration, for example 500ms, 10s or 5m";
    let signed: SignedDuration = text.parse().map_err(|_| wrong)?;
    if signed.is_positive() { Ok(signed.unsigned_abs()) } else { Err(wrong) }
}
