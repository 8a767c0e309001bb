//! The check of an integration: summary, detail and hint for each result.

use super::candidate::NoUrl;
use super::differential::{Callbacks, Finding, Provider, State, Untestable};
use crate::report::{Check, Status, printable};

/// The result for an integration.
pub(super) enum IntegrationResult {
    /// This mode has no callback.
    NoCallback(String),
    /// No authorization URL.
    NoUrl(NoUrl),
    /// It redirects to the Setup URL of the app, which cannot be tested from outside.
    SetupUrl(String),
    /// A dry run: the endpoint that would be probed.
    NotProbed(String),
    /// The finding of the differential test.
    Probed(Finding),
}

/// What the check of an integration depends on, besides its result.
pub(super) struct IntegrationContext<'a> {
    pub(super) key: &'a str,
    pub(super) template: &'a str,
    /// The new callback.
    pub(super) callback: &'a str,
    /// Whether Nango already sends it.
    pub(super) switched: bool,
    /// Whether it was confirmed with `--ack`.
    pub(super) acknowledged: bool,
    /// Whether its flows have another callback than the environment.
    pub(super) overridden: bool,
    /// Notes for the report.
    pub(super) notes: &'a [String],
}

impl IntegrationContext<'_> {
    pub(super) fn judge(&self, found: IntegrationResult) -> Check {
        self.with_notes(self.overridden(self.acknowledged(self.found(found))))
    }

    fn found(&self, found: IntegrationResult) -> Check {
        let provider = Provider::of(self.template);
        let id = format!("integration.{}", printable(self.key));
        let check = Check::new(id, "the callback is registered").subject(self.key);
        match found {
            IntegrationResult::NoCallback(mode) => {
                check.state("no_callback").skip(format!("{mode} has no callback"))
            }
            IntegrationResult::NoUrl(NoUrl { why, hint }) => check
                .state("no_url")
                .unknown("could not obtain an authorization URL")
                .detail(why)
                .hint(hint),
            IntegrationResult::SetupUrl(url) => check
                .state("untestable")
                .unknown("only the settings of the app contain the Setup URL")
                .detail(format!("the Setup URL must be {url}; it cannot be tested from outside"))
                .hint(by_hand(&provider, self.key)),
            IntegrationResult::NotProbed(endpoint) => check
                .state("not_asked")
                .unknown("not tested: this is a dry run")
                .detail(format!("would send up to 13 requests to {endpoint}")),
            IntegrationResult::Probed(Finding { state: Err(why), evidence }) => check
                .state("untestable")
                .unknown("cannot be tested over HTTP")
                .detail(evidence)
                .hint(match why {
                    Untestable::NoRedirectParameter => "check whether `authorization_params` in \
                         Nango or in the template set another callback"
                        .to_owned(),
                    _ => by_hand(&provider, self.key),
                }),
            IntegrationResult::Probed(Finding { state: Ok(state), evidence }) => {
                self.probed(check, &provider, state, &evidence)
            }
        }
    }

    /// Passes an unknown result that was confirmed by hand, never a failed one.
    fn acknowledged(&self, judged: Check) -> Check {
        if !self.acknowledged || judged.status != Status::Unknown {
            return judged;
        }
        let detail = judged.detail.clone().unwrap_or_default();
        let summary = format!("confirmed by hand; {}", judged.summary);
        Check { hint: None, ..judged.state("acknowledged").pass(summary).detail(detail) }
    }

    /// Warns when the callback is registered, but this integration sends another one.
    fn overridden(&self, judged: Check) -> Check {
        if !self.overridden || judged.status != Status::Pass {
            return judged;
        }
        let summary = format!("{}, but flows send another one", judged.summary);
        judged.warn(summary).hint("check whether `authorization_params` set a callback")
    }

    fn with_notes(&self, judged: Check) -> Check {
        if self.notes.is_empty() || judged.is_skipped() {
            return judged;
        }
        let detail = judged.detail.iter().chain(self.notes).cloned().collect::<Vec<_>>();
        judged.detail(detail.join("\n"))
    }

    fn probed(&self, check: Check, provider: &Provider, state: State, evidence: &str) -> Check {
        let callback = self.callback;
        let key = printable(self.key);
        let name = if provider.is_known() { provider.name } else { &key };
        let check = match state {
            State::Registered => {
                check.state("registered").pass(format!("{name} has the callback registered"))
            }
            State::DomainRegistered => check.state("domain_registered").pass(format!(
                "{name} registers domains, and has the one of the callback registered"
            )),
            State::PrefixMatch { proved: true } => check
                .state("prefix_match")
                .warn(format!("{name} accepts any path on the host of the callback"))
                .hint(
                    "the callback works; register the whole URL, so that no other page of the host \
                     can receive codes (RFC 9700 §4.1)",
                ),
            State::PrefixMatch { proved: false } => check
                .state("prefix_match")
                .unknown(format!("before login, {name} compares only a part of the callback"))
                .hint(by_hand(provider, self.key)),
            State::Unenforced => check
                .state("unenforced")
                .warn(format!("{name} accepts unregistered callbacks"))
                .hint(format!(
                    "the callback works; register {callback} anyway, in case the provider starts to \
                     compare: {}",
                    provider.console
                )),
            State::NotRegistered if provider.callbacks == Callbacks::One && !self.switched => check
                .state("one_callback")
                .unknown(format!("{name} has one callback per app, and it is another one"))
                .hint(format!(
                    "replace it at the moment of the switch, in {}; then confirm with --ack {}",
                    provider.console, self.key
                )),
            State::NotRegistered => check
                .state("not_registered")
                .fail(format!("{name} rejects the callback"))
                .hint(format!(
                    "add {callback} in {}; if this is a Nango-managed app, use your own app",
                    provider.console
                )),
            State::Undecidable => check
                .state("undecidable")
                .unknown(format!("{name} does not compare the callback before login"))
                .hint(by_hand(provider, self.key)),
            State::RefusedAll => check
                .state("refused_all")
                .unknown(format!("{name} rejects all callbacks, the one in use too"))
                .hint(format!(
                    "check that the client id in Nango belongs to the app, and that the app has the \
                     callbacks registered, in {}",
                    provider.console
                )),
            State::ClientRejected => check
                .state("client_rejected")
                .unknown(format!("{name} rejects the app, whatever the callback"))
                .hint("check that the app is enabled, and that its client id in Nango is correct"),
            State::Inconclusive => check
                .state("inconclusive")
                .unknown(format!("the replies of {name} allow no conclusion"))
                .hint(format!("try again later; {}", by_hand(provider, self.key))),
        };
        check.detail(evidence)
    }
}

/// How to confirm by hand.
fn by_hand(provider: &Provider, key: &str) -> String {
    let before = provider.unknown.map_or_else(|| "check ".into(), |why| format!("{why} in "));
    format!("{before}{}; then confirm with --ack {key}", provider.console)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(
        template: &str,
        switched: bool,
        acknowledged: bool,
        found: IntegrationResult,
    ) -> Check {
        let notes = ["a note".to_owned()];
        IntegrationContext {
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

    fn probed(state: State) -> IntegrationResult {
        IntegrationResult::Probed(Finding { state: Ok(state), evidence: "evidence".into() })
    }

    #[test]
    fn only_unknown_states_can_be_confirmed_by_hand() {
        for (state, status, acknowledged) in [
            (State::Registered, Status::Pass, Status::Pass),
            (State::DomainRegistered, Status::Pass, Status::Pass),
            (State::PrefixMatch { proved: true }, Status::Warn, Status::Warn),
            (State::PrefixMatch { proved: false }, Status::Unknown, Status::Pass),
            (State::RefusedAll, Status::Unknown, Status::Pass),
            (State::Unenforced, Status::Warn, Status::Warn),
            (State::NotRegistered, Status::Fail, Status::Fail),
            (State::Undecidable, Status::Unknown, Status::Pass),
            (State::ClientRejected, Status::Unknown, Status::Pass),
            (State::Inconclusive, Status::Unknown, Status::Pass),
        ] {
            assert_eq!(judge("any", false, false, probed(state)).status, status, "{state:?}");
            let by_hand = judge("any", false, true, probed(state));
            assert_eq!(by_hand.status, acknowledged, "{state:?}");
            let is_shown = by_hand.state == Some("acknowledged");
            assert_eq!(is_shown, status == Status::Unknown, "{state:?}");
            assert_eq!(by_hand.detail.as_deref(), Some("evidence\na note"));
        }
    }

    /// Users of Nango choose the keys, which may contain anything.
    #[test]
    fn keys_cannot_contain_terminal_escapes_in_a_report() {
        let context = IntegrationContext {
            key: "a\u{1b}[2Jb",
            template: "any",
            callback: "https://auth.example.com/oauth/callback",
            switched: false,
            acknowledged: false,
            overridden: false,
            notes: &[],
        };
        let check = context.judge(probed(State::Undecidable));
        assert_eq!(check.id, r"integration.a\u{1b}[2Jb");
        assert!(!format!("{check:?}").contains('\u{1b}'));
    }

    #[test]
    fn an_app_with_one_callback_fails_only_after_the_switch() {
        let before = judge("reddit", false, false, probed(State::NotRegistered));
        assert_eq!((before.state, before.status), (Some("one_callback"), Status::Unknown));
        let after = judge("reddit", true, false, probed(State::NotRegistered));
        assert_eq!((after.state, after.status), (Some("not_registered"), Status::Fail));
    }
}
