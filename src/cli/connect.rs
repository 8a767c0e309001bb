//! The connection options of `check` and `preflight`, and the outbound client that they configure.

use crate::config::{Problem, Settings};
use crate::outbound::{Limits, Outbound, Override, Proxies, Resolver, Roots};
use jiff::SignedDuration;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ConnectOptions {
    /// Connect to this address for a host and port, without a proxy (`HTTPS_PROXY`, `ALL_PROXY`,
    /// `NO_PROXY`, `http_proxy`); overrides `self_check.connect_to`; repeatable
    #[arg(long, value_name = "HOST:PORT:ADDRESS", value_parser = Override::resolve)]
    resolve: Vec<Override>,

    /// Connect to this address and port for a host and port; repeatable
    #[arg(long, value_name = "HOST:PORT:ADDRESS:PORT")]
    connect_to: Vec<Override>,

    /// Trust the CA certificates in this PEM file too; `self_check.root_ca` and this machine's store
    /// (`SSL_CERT_FILE`, `SSL_CERT_DIR`) apply anyway
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Time-out of each step: resolve, connect, TLS handshake, response
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    /// Time limit of the check of one URL, after which everything else is unconfirmed [default: 12
    /// times --timeout]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    total: Option<Duration>,
}

/// The time limit of the check of one URL, as a multiple of the time-out of a step.
const TOTAL_STEPS: u32 = 12;

impl ConnectOptions {
    /// The time limit of the check of one URL.
    pub(super) fn total(&self) -> Duration {
        self.total.unwrap_or_else(|| self.timeout.saturating_mul(TOTAL_STEPS))
    }

    /// The outbound client; an unusable `--ca` file is a usage error.
    pub(super) fn outbound(&self, settings: Option<&Settings>) -> Result<Outbound, Problem> {
        let roots = self.roots(settings).map_err(|error| {
            Problem::error(error).hint("pass a PEM file with the certificate of the CA")
        })?;
        let proxies = Proxies::from_env(|name| std::env::var(name).ok()).map_err(|error| {
            Problem::error(error.to_string())
                .hint("set the URL of an http proxy, for example http://proxy.example.com:3128")
        })?;
        let limits = Limits { step: self.timeout, ..Limits::default() };
        let resolver = Resolver::new(self.overrides(settings));
        Ok(Outbound::new(resolver, roots.and_machine(), limits).with_proxies(proxies))
    }

    /// The connection overrides. The command line overrides the settings for the same host and port.
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

    /// The public CAs, those of the settings, and those of the command line.
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

/// A positive duration, for example `5m`.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    let wrong = "is not a duration, for example 500ms, 10s or 5m";
    let signed: SignedDuration = text.parse().map_err(|_| wrong)?;
    if signed.is_positive() { Ok(signed.unsigned_abs()) } else { Err(wrong) }
}
