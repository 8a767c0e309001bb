//! Failed orders, by the reason that an operator has to distinguish.

use super::client::RequestError;
use super::problem::{Kind, NAMESPACE};
use crate::config::Challenge;
use crate::observe::{AcmeFailure as Reason, Label as _};
use instant_acme::{Error, Problem};
use std::fmt;

/// An order, or a step before it, that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    /// The error text. It may quote the ACME server's response, never a request.
    pub(super) cause: String,
    /// Whether it may count as a failed validation at the CA.
    pub(super) costly: bool,
    /// `Retry-After` of the ACME server, in seconds.
    pub(super) retry_after: Option<u64>,
    /// Whether the ACME server does not know the resource.
    pub(super) is_unknown: bool,
}

/// The stage of an order at which it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Reading or creating the account.
    Account,
    /// Creating or reading the order.
    Order,
    /// Validation and issuance.
    Validation,
}

/// The longest cause, in characters.
const MAX_CAUSE: usize = 400;

impl Failure {
    pub(super) fn new(reason: Reason, cause: impl fmt::Display) -> Self {
        // The text may come from the ACME server: without line breaks and control sequences, and short.
        let cause = cause.to_string();
        let cause = cause.chars().filter(|it| !it.is_control()).take(MAX_CAUSE).collect();
        Self { reason, cause, costly: false, retry_after: None, is_unknown: false }
    }

    /// The state directory failed.
    pub(super) fn state(error: &std::io::Error) -> Self {
        Self::new(Reason::State, error)
    }

    pub(super) fn costly(self) -> Self {
        Self { costly: true, ..self }
    }

    /// Classifies an error of the ACME library.
    pub(super) fn of(error: &Error, stage: Stage, retry_after: Option<u64>) -> Self {
        let failure = match error {
            Error::Api(problem) => Self::problem(problem, stage),
            // From a proxy in front of the ACME server, or from a faulty ACME server.
            Error::Json(_) => Self::new(
                Reason::ServerDown,
                "the response of the ACME server is not valid ACME JSON",
            ),
            Error::Timeout(_) => {
                Self::new(Reason::ServerDown, "the ACME server did not complete the order in time")
            }
            Error::Unsupported(what) => {
                Self::new(Reason::Refused, format_args!("the ACME server does not offer {what}"))
                    .costly()
            }
            Error::Other(inner) if inner.is::<RequestError>() => {
                Self::new(Reason::ServerDown, inner)
            }
            other => Self::new(Reason::Other, other),
        };
        Self { retry_after, ..failure }
    }

    /// Classifies a problem document (RFC 8555 §6.7).
    pub(super) fn problem(problem: &Problem, stage: Stage) -> Self {
        let kind = Kind::of(problem);
        let reason = match kind {
            Kind::RateLimited => Reason::RateLimited,
            Kind::Dns => Reason::Dns,
            Kind::Connection => Reason::Unreachable,
            Kind::Caa => Reason::Caa,
            Kind::BadNonce => Reason::BadNonce,
            Kind::ServerInternal => Reason::ServerDown,
            Kind::InvalidProfile => Reason::Profile,
            Kind::Unauthorized | Kind::IncorrectResponse | Kind::Tls
                if stage == Stage::Validation =>
            {
                Reason::WrongAnswer
            }
            Kind::AccountDoesNotExist
            | Kind::ExternalAccountRequired
            | Kind::UserActionRequired
            | Kind::UnsupportedContact
            | Kind::InvalidContact
            | Kind::BadSignatureAlgorithm
            | Kind::BadPublicKey
            | Kind::Unauthorized => Reason::Account,
            Kind::RejectedIdentifier
            | Kind::UnsupportedIdentifier
            | Kind::BadCsr
            | Kind::Malformed => {
                if stage == Stage::Account {
                    Reason::Account
                } else {
                    Reason::Refused
                }
            }
            _ if problem.status.is_some_and(|status| status == 429) => Reason::RateLimited,
            _ if problem.status.is_some_and(|status| status >= 500) => Reason::ServerDown,
            _ => Reason::Other,
        };
        let detail = problem.detail.as_deref().unwrap_or("no detail");
        let urn = problem.r#type.as_deref().unwrap_or("about:blank");
        let name = urn.strip_prefix(NAMESPACE).unwrap_or(urn);
        let text = format_args!("the ACME server reports `{name}`: {detail}");
        let failure = Self::new(reason, text);
        let costly = stage == Stage::Validation
            && matches!(
                reason,
                Reason::Dns
                    | Reason::Unreachable
                    | Reason::WrongAnswer
                    | Reason::Caa
                    | Reason::Other
            );
        let costly = costly || matches!(reason, Reason::Refused);
        let is_unknown = stage == Stage::Order
            && (matches!(kind, Kind::Malformed | Kind::Unauthorized | Kind::AccountDoesNotExist)
                || problem.status == Some(404));
        Self { costly, is_unknown, ..failure }
    }

    /// Whether another ACME server may succeed. A domain that leads elsewhere fails with all of them,
    /// and counts as a failed validation at each.
    pub(super) fn is_server_specific(&self) -> bool {
        matches!(
            self.reason,
            Reason::RateLimited
                | Reason::ServerDown
                | Reason::BadNonce
                | Reason::Account
                | Reason::Caa
                | Reason::Profile
                | Reason::Refused
        )
    }

    /// The hint in a log line, with the reference of the reason.
    pub(super) fn log_hint(&self, name: &str, challenge: Challenge) -> String {
        let hint = self.hint(name, challenge);
        format!("{hint} (callback-edge explain acme.{})", self.reason.value())
    }

    /// What an operator can do.
    pub(super) fn hint(&self, name: &str, challenge: Challenge) -> String {
        let port = match challenge {
            Challenge::TlsAlpn01 => 443,
            Challenge::Http01 => 80,
        };
        match self.reason {
            Reason::RateLimited => {
                "wait until the rate limit allows another order, or add a second ACME server to \
                 `directory`"
                    .into()
            }
            Reason::Dns => format!(
                "create A or AAAA records of `{name}` that point to this machine; if the lookup \
                 failed, check this machine's network and resolver"
            ),
            Reason::Unreachable => format!(
                "open port {port} of `{name}` in the firewall, router and load balancer; if only \
                 this machine cannot reach it, set `self_check.connect_to`"
            ),
            Reason::WrongAnswer => format!(
                "port {port} of `{name}` leads to another server: look for an outdated A or AAAA \
                 record, or a proxy in front of this server that terminates TLS or rewrites \
                 requests"
            ),
            Reason::ServerDown => {
                "if the retries fail too, check the status page of the CA and the outbound \
                 connections of this machine"
                    .into()
            }
            Reason::BadNonce => {
                "if it persists, look for a proxy that caches the responses of the ACME server"
                    .into()
            }
            Reason::Account => {
                "check `contact`, `eab_key_id` and `eab_hmac_key_file` in `[tls.acme]`".into()
            }
            Reason::Caa => format!(
                "add this CA to the CAA record of `{name}` or of the parent domain, or choose \
                 another `directory`"
            ),
            Reason::Profile => {
                "choose a profile that the ACME server offers, see `cause`, or remove `profile`"
                    .into()
            }
            Reason::Refused => {
                format!(
                    "the CA does not issue certificates for `{name}`: choose another `directory`"
                )
            }
            Reason::State => {
                "make `tls.acme.state_dir` a directory that this process can write to, with free \
                 disk space; without it no order is made, because its certificate could be lost"
                    .into()
            }
            Reason::Other => {
                "read `cause`; if it persists and is not clear, report it as an issue of \
                 callback-edge"
                    .into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(name: &str) -> Problem {
        let text = format!(r#"{{"type":"urn:ietf:params:acme:error:{name}","detail":"d"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn problem_types_map_to_reasons_and_costs() {
        use Stage::{Account, Order, Validation};
        #[rustfmt::skip]
        let table = [
            ("rateLimited", Order, Reason::RateLimited, false, true),
            ("dns", Validation, Reason::Dns, true, false),
            ("connection", Validation, Reason::Unreachable, true, false),
            ("unauthorized", Validation, Reason::WrongAnswer, true, false),
            ("incorrectResponse", Validation, Reason::WrongAnswer, true, false),
            ("tls", Validation, Reason::WrongAnswer, true, false),
            ("caa", Validation, Reason::Caa, true, true),
            ("caa", Order, Reason::Caa, false, true),
            ("badNonce", Order, Reason::BadNonce, false, true),
            ("serverInternal", Order, Reason::ServerDown, false, true),
            ("unauthorized", Order, Reason::Account, false, true),
            ("accountDoesNotExist", Order, Reason::Account, false, true),
            ("externalAccountRequired", Account, Reason::Account, false, true),
            ("malformed", Account, Reason::Account, false, true),
            ("rejectedIdentifier", Order, Reason::Refused, true, true),
            ("invalidProfile", Order, Reason::Profile, false, true),
            ("unknownType", Validation, Reason::Other, true, false),
        ];
        for (name, stage, reason, costly, is_server_specific) in table {
            let failure = Failure::problem(&problem(name), stage);
            assert_eq!((failure.reason, failure.costly), (reason, costly), "{name}");
            assert_eq!(failure.is_server_specific(), is_server_specific, "{name}");
            assert!(!failure.hint("a.example", Challenge::Http01).is_empty());
        }
    }

    #[test]
    fn an_order_that_the_server_does_not_know_is_recognised() {
        assert!(Failure::problem(&problem("malformed"), Stage::Order).is_unknown);
        assert!(!Failure::problem(&problem("serverInternal"), Stage::Order).is_unknown);
    }

    #[test]
    fn causes_are_limited_in_length_and_have_no_control_characters() {
        let failure = Failure::new(Reason::Other, format!("a\x1b[31m\nb{}", "c".repeat(9999)));
        assert!(failure.cause.starts_with("a[31mbc"));
        assert_eq!(failure.cause.chars().count(), MAX_CAUSE);
    }

    #[test]
    fn a_response_that_is_not_json_counts_as_a_server_failure() {
        let json = serde_json::from_str::<u8>("<html>").unwrap_err();
        let failure = Failure::of(&Error::Json(json), Stage::Order, Some(7));
        assert_eq!((failure.reason, failure.retry_after), (Reason::ServerDown, Some(7)));
    }
}
