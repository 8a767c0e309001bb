//! What was found of one integration, in words, and what to do about it.

use super::candidate::NoUrl;
use super::differential::{Callbacks, Finding, Provider, State, Untestable};
use crate::report::{Check, Status, printable};

/// What is known of an integration when all was asked.
pub(super) enum Found {
    /// No browser comes back to it.
    NoCallback(String),
    /// No authorization URL could be had.
    NoUrl(NoUrl),
    /// It comes back to an address that its app names itself, which nobody else can see.
    SetupUrl(String),
    /// It would have been asked there.
    NotAsked(String),
    /// The provider was asked, or cannot be.
    Asked(Finding),
}

/// One integration at the end of a preflight.
pub(super) struct Examined<'a> {
    pub(super) key: &'a str,
    pub(super) template: &'a str,
    /// The callback that is to be saved.
    pub(super) callback: &'a str,
    /// Whether Nango sends that already.
    pub(super) switched: bool,
    /// Whether somebody confirmed it by hand.
    pub(super) acknowledged: bool,
    /// Whether its flows have a callback in place of the environment's.
    pub(super) overridden: bool,
    /// What else is worth knowing.
    pub(super) notes: &'a [String],
}

impl Examined<'_> {
    pub(super) fn judge(&self, found: Found) -> Check {
        self.noted(self.overridden(self.acknowledged(self.found(found))))
    }

    fn found(&self, found: Found) -> Check {
        let provider = Provider::of(self.template);
        let id = format!("integration.{}", printable(self.key));
        let check = Check::new(id, "the callback is registered").subject(self.key);
        match found {
            Found::NoCallback(mode) => {
                check.state("no_callback").skip(format!("{mode} has no callback"))
            }
            Found::NoUrl(NoUrl { why, hint }) => check
                .state("no_url")
                .unknown("no authorization URL could be had")
                .detail(why)
                .hint(hint),
            Found::SetupUrl(url) => check
                .state("untestable")
                .unknown("only the app's own settings tell")
                .detail(format!(
                    "its Setup URL must be {url}; {}",
                    provider.unknown.unwrap_or("nobody else can see it")
                ))
                .hint(by_hand(&provider, self.key)),
            Found::NotAsked(place) => {
                check.state("not_asked").unknown("not asked: a dry run").detail(format!(
                    "{} would be asked at {place}, four to eight times",
                    provider.name
                ))
            }
            Found::Asked(Finding { state: Err(why), evidence }) => check
                .state("untestable")
                .unknown("cannot be asked over HTTP")
                .detail(evidence)
                .hint(match why {
                    Untestable::NoRedirectParameter => "see whether `authorization_params`, in \
                         Nango or in its template, set a callback of their own"
                        .to_owned(),
                    _ => by_hand(&provider, self.key),
                }),
            Found::Asked(Finding { state: Ok(state), evidence }) => {
                self.asked(check, &provider, state, &evidence)
            }
        }
    }

    /// What is unknown, confirmed by hand; never what failed.
    fn acknowledged(&self, judged: Check) -> Check {
        if !self.acknowledged || judged.status != Status::Unknown {
            return judged;
        }
        let seen = judged.detail.clone().unwrap_or_default();
        let summary = format!("confirmed by hand; {}", judged.summary);
        Check { hint: None, ..judged.state("acknowledged").pass(summary).detail(seen) }
    }

    /// The provider knows the new callback, which this integration does not send.
    fn overridden(&self, judged: Check) -> Check {
        if !self.overridden || judged.status != Status::Pass {
            return judged;
        }
        let summary = format!("{}, but flows have another", judged.summary);
        judged.warn(summary).hint("see whether `authorization_params` set a callback")
    }

    fn noted(&self, judged: Check) -> Check {
        if self.notes.is_empty() || judged.is_skipped() {
            return judged;
        }
        let detail = judged.detail.iter().chain(self.notes).cloned().collect::<Vec<_>>();
        judged.detail(detail.join("\n"))
    }

    fn asked(&self, check: Check, provider: &Provider, state: State, evidence: &str) -> Check {
        let (name, callback) = (provider.name, self.callback);
        let check = match state {
            State::Registered => {
                check.state("registered").pass(format!("{name} knows the callback"))
            }
            State::PrefixMatch => check
                .state("prefix_match")
                .warn(format!("{name} accepts any path on the callback's host"))
                .hint(match provider.callbacks {
                    Callbacks::Domain => format!("{name} registers domains only; it works"),
                    _ => "it works; register the whole URL, so that no other page of the host can \
                          receive codes (RFC 9700 §4.1)"
                        .to_owned(),
                }),
            State::Unenforced => check
                .state("unenforced")
                .warn(format!("{name} accepts callbacks that nobody registered"))
                .hint(format!(
                    "it works; register {callback} all the same, in case the provider begins to \
                     look: {}",
                    provider.console
                )),
            State::NotRegistered if provider.callbacks == Callbacks::One && !self.switched => check
                .state("one_callback")
                .unknown(format!("{name} keeps one callback for an app, and it is another"))
                .hint(format!(
                    "exchange it at the moment of switching, in {}; then confirm with --ack {}",
                    provider.console, self.key
                )),
            State::NotRegistered => check
                .state("not_registered")
                .fail(format!("{name} does not know the callback"))
                .hint(format!(
                    "add {callback} in {}. An app of Nango's own cannot learn it: use one of yours",
                    provider.console
                )),
            State::Undecidable => check
                .state("undecidable")
                .unknown(format!("{name} does not tell before the login"))
                .hint(by_hand(provider, self.key)),
            State::ClientRejected => check
                .state("client_rejected")
                .unknown(format!("{name} does not accept the app, whatever the callback"))
                .hint("see whether the app is enabled, and its client id in Nango the right one"),
            State::Inconclusive => check
                .state("inconclusive")
                .unknown(format!("the answers of {name} say nothing"))
                .hint(format!("try again later, or: {}", by_hand(provider, self.key))),
        };
        check.detail(evidence)
    }
}

/// How a person finds out.
fn by_hand(provider: &Provider, key: &str) -> String {
    let why = provider.unknown.map(|why| format!("{why}. ")).unwrap_or_default();
    format!("{why}Look in {}; then confirm with --ack {key}", provider.console)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(template: &str, switched: bool, acknowledged: bool, found: Found) -> Check {
        let notes = ["a note".to_owned()];
        Examined {
            key: "k",
            template,
            callback: "https://auth.example.com/oauth/callback",
            switched,
            acknowledged,
            overridden: false,
            notes: &notes,
        }
        .judge(found)
    }

    fn asked(state: State) -> Found {
        Found::Asked(Finding { state: Ok(state), evidence: "seen".into() })
    }

    #[test]
    fn only_what_is_unknown_can_be_confirmed_by_hand() {
        for (state, status, acknowledged) in [
            (State::Registered, Status::Pass, Status::Pass),
            (State::PrefixMatch, Status::Warn, Status::Warn),
            (State::Unenforced, Status::Warn, Status::Warn),
            (State::NotRegistered, Status::Fail, Status::Fail),
            (State::Undecidable, Status::Unknown, Status::Pass),
            (State::ClientRejected, Status::Unknown, Status::Pass),
            (State::Inconclusive, Status::Unknown, Status::Pass),
        ] {
            assert_eq!(judge("any", false, false, asked(state)).status, status, "{state:?}");
            let by_hand = judge("any", false, true, asked(state));
            assert_eq!(by_hand.status, acknowledged, "{state:?}");
            let is_shown = by_hand.state == Some("acknowledged");
            assert_eq!(is_shown, status == Status::Unknown, "{state:?}");
            assert_eq!(by_hand.detail.as_deref(), Some("seen\na note"));
        }
    }

    /// Nango's users choose keys; whatever they hold, it does not drive a terminal.
    #[test]
    fn a_key_cannot_drive_a_terminal() {
        let examined = Examined {
            key: "a\u{1b}[2Jb",
            template: "any",
            callback: "https://auth.example.com/oauth/callback",
            switched: false,
            acknowledged: false,
            overridden: false,
            notes: &[],
        };
        let check = examined.judge(asked(State::Undecidable));
        assert_eq!(check.id, r"integration.a\u{1b}[2Jb");
        assert!(!format!("{check:?}").contains('\u{1b}'));
    }

    #[test]
    fn an_app_with_one_callback_is_exchanged_and_then_must_know_it() {
        let before = judge("reddit", false, false, asked(State::NotRegistered));
        assert_eq!((before.state, before.status), (Some("one_callback"), Status::Unknown));
        let after = judge("reddit", true, false, asked(State::NotRegistered));
        assert_eq!((after.state, after.status), (Some("not_registered"), Status::Fail));
    }
}
