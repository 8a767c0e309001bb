//! What went wrong, told apart as an operator has to.

use super::client::Offline;
use super::problem::Kind;
use crate::config::Challenge;
use crate::observe::AcmeFailure as Reason;
use instant_acme::{Error, Problem};
use std::fmt;

/// An order, or a step before it, that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    /// In words. Holds what a directory said, never what it was sent.
    pub(super) cause: String,
    /// Whether it may have cost one of the attempts that an authority grants.
    pub(super) costly: bool,
    /// How many seconds the directory wants to be left alone.
    pub(super) retry_after: Option<u64>,
    /// Whether the directory no longer knows what was asked about.
    pub(super) forgotten: bool,
}

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Finding or making the account.
    Account,
    /// Asking for an order or for what became of it.
    Order,
    /// The directory looks whether the name leads here, and issues.
    Validation,
}

/// The longest quote of a directory's words.
const LONGEST: usize = 400;

impl Failure {
    pub(super) fn new(reason: Reason, cause: impl fmt::Display) -> Self {
        // The words of strangers: no line breaks, no control sequences, no end.
        let cause = cause.to_string();
        let cause = cause.chars().filter(|it| !it.is_control()).take(LONGEST).collect();
        Self { reason, cause, costly: false, retry_after: None, forgotten: false }
    }

    /// The state folder failed.
    pub(super) fn state(error: &std::io::Error) -> Self {
        Self::new(Reason::State, error)
    }

    pub(super) fn costly(self) -> Self {
        Self { costly: true, ..self }
    }

    /// What a directory's error means.
    pub(super) fn of(error: &Error, stage: Stage, retry_after: Option<u64>) -> Self {
        let failure = match error {
            Error::Api(problem) => Self::problem(problem, stage),
            // What is no JSON comes from something before the directory, or from one that is ill.
            Error::Json(_) => Self::new(Reason::Directory, "the answer is not ACME's"),
            Error::Timeout(_) => Self::new(Reason::Directory, "the order is not decided in time"),
            Error::Unsupported(what) => {
                Self::new(Reason::Refused, format_args!("it does not offer {what}")).costly()
            }
            Error::Other(inner) if inner.is::<Offline>() => Self::new(Reason::Directory, inner),
            other => Self::new(Reason::Other, other),
        };
        Self { retry_after, ..failure }
    }

    /// RFC 8555 §6.7.
    pub(super) fn problem(problem: &Problem, stage: Stage) -> Self {
        let kind = Kind::of(problem);
        let reason = match kind {
            Kind::RateLimited => Reason::RateLimited,
            Kind::Dns => Reason::Dns,
            Kind::Connection => Reason::Unreachable,
            Kind::Caa => Reason::Caa,
            Kind::BadNonce => Reason::BadNonce,
            Kind::ServerInternal => Reason::Directory,
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
            _ if problem.status.is_some_and(|status| status >= 500) => Reason::Directory,
            _ => Reason::Other,
        };
        let said = problem.detail.as_deref().unwrap_or("no reason was given");
        let urn = problem.r#type.as_deref().unwrap_or_default();
        let word = urn.rsplit(':').next().unwrap_or_default();
        let failure = Self::new(reason, format_args!("{said} ({word})"));
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
        let forgotten = stage == Stage::Order
            && (matches!(kind, Kind::Malformed | Kind::Unauthorized | Kind::AccountDoesNotExist)
                || problem.status == Some(404));
        Self { costly, forgotten, ..failure }
    }

    /// Whether another directory may do what this one did not. A name that does not lead here
    /// fails with all of them, and costs an attempt with each.
    pub(super) fn concerns_the_directory(&self) -> bool {
        matches!(
            self.reason,
            Reason::RateLimited
                | Reason::Directory
                | Reason::BadNonce
                | Reason::Account
                | Reason::Caa
                | Reason::Profile
                | Reason::Refused
        )
    }

    /// What to do about it.
    pub(super) fn hint(&self, name: &str, challenge: Challenge) -> String {
        let port = match challenge {
            Challenge::TlsAlpn01 => 443,
            Challenge::Http01 => 80,
        };
        match self.reason {
            Reason::RateLimited => {
                "the authority limits orders; nothing to do but wait, and a second `directory` \
                 would step in"
                    .into()
            }
            Reason::Dns => format!(
                "create A or AAAA records of `{name}` that point to this machine; if the lookup \
                 failed, check this machine's network and resolver"
            ),
            Reason::Unreachable => format!(
                "let port {port} of `{name}` through to this process, in firewall, router and \
                 load balancer; if only this machine cannot reach it, set `self_check.connect_to`"
            ),
            Reason::WrongAnswer => format!(
                "somebody else answers on port {port} of `{name}`: look for an old DNS entry, \
                 AAAA too, or a proxy before the edge that ends TLS or rewrites requests"
            ),
            Reason::Directory => {
                "it is asked again by itself; if it stays, look at the authority's status page \
                 and at this machine's way out"
                    .into()
            }
            Reason::BadNonce => {
                "it is tried again by itself; a proxy that caches may stand in the way".into()
            }
            Reason::Account => {
                "look at `contact`, `eab_key_id` and `eab_hmac_key_file` in `[tls.acme]`".into()
            }
            Reason::Caa => format!(
                "the CAA entry of `{name}` or of a domain above it forbids this authority: add it, \
                 or choose another `directory`"
            ),
            Reason::Profile => "choose one of those, or remove `profile`".into(),
            Reason::Refused => {
                format!("the authority does not certify `{name}`: choose another `directory`")
            }
            Reason::State => {
                "make `tls.acme.state_dir` a folder that this process may write to, with room \
                 left: without it no order is made that could be lost"
                    .into()
            }
            Reason::Other => "it is tried again by itself".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(word: &str) -> Problem {
        let text = format!(r#"{{"type":"urn:ietf:params:acme:error:{word}","detail":"d"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn problems_are_told_apart_and_cost_what_they_cost() {
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
            ("serverInternal", Order, Reason::Directory, false, true),
            ("unauthorized", Order, Reason::Account, false, true),
            ("accountDoesNotExist", Order, Reason::Account, false, true),
            ("externalAccountRequired", Account, Reason::Account, false, true),
            ("malformed", Account, Reason::Account, false, true),
            ("rejectedIdentifier", Order, Reason::Refused, true, true),
            ("invalidProfile", Order, Reason::Profile, false, true),
            ("unheardOf", Validation, Reason::Other, true, false),
        ];
        for (word, stage, reason, costly, elsewhere) in table {
            let failure = Failure::problem(&problem(word), stage);
            assert_eq!((failure.reason, failure.costly), (reason, costly), "{word}");
            assert_eq!(failure.concerns_the_directory(), elsewhere, "{word}");
            assert!(!failure.hint("a.example", Challenge::Http01).is_empty());
        }
    }

    #[test]
    fn an_order_that_nobody_knows_is_forgotten() {
        assert!(Failure::problem(&problem("malformed"), Stage::Order).forgotten);
        assert!(!Failure::problem(&problem("serverInternal"), Stage::Order).forgotten);
    }

    #[test]
    fn the_words_of_strangers_drive_no_terminal_and_end() {
        let failure = Failure::new(Reason::Other, format!("a\x1b[31m\nb{}", "c".repeat(9999)));
        assert!(failure.cause.starts_with("a[31mbc"));
        assert_eq!(failure.cause.chars().count(), LONGEST);
    }

    #[test]
    fn what_is_no_acme_is_the_directorys_fault() {
        let json = serde_json::from_str::<u8>("<html>").unwrap_err();
        let failure = Failure::of(&Error::Json(json), Stage::Order, Some(7));
        assert_eq!((failure.reason, failure.retry_after), (Reason::Directory, Some(7)));
    }
}
