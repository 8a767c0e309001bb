//! The check of an integration: summary, detail and hint for each result.

use super::Decision;
use super::candidate::NoUrl;
use super::differential::{Callbacks, Finding, Provider, State, Untestable};
use crate::report::{Check, Status, printable};

/// The result for an integration.
pub(super) enum IntegrationResult {
    /// No browser returns to a callback; the reason.
    NoCallback(String),
    /// No authorization URL.
    NoUrl(NoUrl),
    /// It redirects to the Setup URL of the app, which cannot be tested from outside.
    SetupUrl(String),
    /// Only the settings of an app or a plugin contain the callback.
    AppSettings {
        /// Whether it is a plugin, instead of a GitHub App.
        is_plugin: bool,
    },
    /// Nango registers or publishes the callback itself; whether its document lists the new one.
    FollowsSetting {
        /// Whether each start of a flow registers a client.
        registers: bool,
        /// `None` when Nango's document was not read.
        published: Option<bool>,
    },
    /// The client that Nango registered keeps its callback; what a probe found, if there was one.
    Recreate(Option<Finding>),
    /// The app belongs to Nango.
    SharedApp,
    /// The request would contain credentials of a user.
    NotSent,
    /// A dry run: the endpoint that would be probed.
    NotProbed(String),
    /// The finding of the differential test.
    Probed(Finding),
}

/// What the check of an integration depends on, besides its result.
pub(super) struct IntegrationContext<'a> {
    pub(super) key: &'a str,
    /// Its name in Nango; may be empty.
    pub(super) display_name: &'a str,
    pub(super) template: &'a str,
    /// The new callback.
    pub(super) callback: &'a str,
    /// Whether Nango already sends it.
    pub(super) switched: bool,
    /// What a person decided about it.
    pub(super) decisions: Vec<&'a Decision>,
    /// Whether its flows have another callback than the environment.
    pub(super) overridden: bool,
    /// Notes for the report.
    pub(super) notes: &'a [String],
}

impl IntegrationContext<'_> {
    pub(super) fn judge(&self, found: IntegrationResult) -> Check {
        self.decided(self.with_notes(self.overridden(self.found(found))))
    }

    /// The name of the integration in sentences: that in Nango, otherwise that of the provider.
    fn name(&self, provider: &Provider) -> String {
        match self.display_name {
            "" if provider.is_known() => provider.name.to_owned(),
            "" => printable(self.key),
            name => printable(name),
        }
    }

    fn found(&self, found: IntegrationResult) -> Check {
        let provider = Provider::of(self.template);
        let name = self.name(&provider);
        let id = format!("integration.{}", printable(self.key));
        let check = Check::new(id, format!("{name} has the callback registered")).subject(self.key);
        match found {
            // Not the title of a pass.
            IntegrationResult::NoCallback(why) => Check::new(check.id, format!("{name} has no callback"))
                .subject(self.key)
                .state("no_callback")
                .skip(format!("{why} has no callback")),
            IntegrationResult::NoUrl(NoUrl { why, hint }) => check
                .state("no_url")
                .unknown(format!("could not obtain an authorization URL of {name}"))
                .detail(why)
                .hint(hint),
            IntegrationResult::SetupUrl(url) => check
                .state("untestable")
                .unknown(format!("only the settings of the GitHub App of {name} contain its Setup URL"))
                .detail(format!("the Setup URL must be {url}; it cannot be tested from outside"))
                .hint(by_hand(&provider, self.key)),
            IntegrationResult::AppSettings { is_plugin } => self.app_settings(check, &name, is_plugin),
            IntegrationResult::FollowsSetting { registers, published } => {
                self.follows_setting(check, &name, registers, published)
            }
            IntegrationResult::Recreate(finding) => self.recreate(check, &name, finding),
            IntegrationResult::SharedApp => check
                .state("shared_app")
                .fail(format!("{name} uses an app of Nango, which cannot have your callback"))
                .detail("Nango returns its credentials with an empty client id")
                .hint(format!(
                    "register your own app at the provider with {} as callback, and save its client id \
                     and secret in this integration in Nango",
                    self.callback
                )),
            IntegrationResult::NotSent => check
                .state("not_sent")
                .unknown(format!("{name} was not probed: the request would sign a user in"))
                .detail("its authorization request contains credentials of a user, which are not sent")
                .hint(by_hand(&provider, self.key)),
            IntegrationResult::NotProbed(endpoint) => check
                .state("not_asked")
                .unknown(format!("{name} was not tested: this is a dry run"))
                .detail(format!("would send up to 13 requests to {endpoint}")),
            IntegrationResult::Probed(Finding { state: Err(why), evidence }) => check
                .state("untestable")
                .unknown(format!("{name} cannot be tested over HTTP"))
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

    /// The field differs: a GitHub App that authorizes users returns to its Callback URL.
    fn app_settings(&self, check: Check, name: &str, is_plugin: bool) -> Check {
        let (summary, field) = if is_plugin {
            ("the settings of its plugin", "the callback in the settings of the plugin")
        } else {
            (
                "the settings of its GitHub App",
                "the Callback URL (not the Setup URL) of the GitHub App",
            )
        };
        check
            .state("app_settings")
            .unknown(format!("only {summary} contain the callback of {name}"))
            .detail(format!("{field} must be {}", self.callback))
            .hint(format!("set {field} at the provider; then confirm with --ack {}", self.key))
    }

    fn follows_setting(
        &self,
        check: Check,
        name: &str,
        registers: bool,
        published: Option<bool>,
    ) -> Check {
        let check = check.state("follows_setting").detail(if registers {
            "Nango registers a client with its current callback each time a flow starts"
        } else {
            "the provider reads the callback from Nango's client metadata document"
        });
        match (self.switched, published) {
            (true, Some(true)) => {
                check.pass(format!("Nango's client metadata document of {name} lists the callback"))
            }
            (true, Some(false)) => check
                .unknown(format!("Nango's client metadata document of {name} lists another callback"))
                .hint("wait five minutes, because it is cached for 300 s, and run the preflight again"),
            (true, None) => check
                .unknown(format!("{name} follows the setting in Nango; its document was not read"))
                .hint("connect one account by hand")
                .not_blocking(),
            (false, _) => check
                .unknown(format!("{name} follows the setting in Nango: nothing to register"))
                .not_blocking(),
        }
    }

    /// The client may have the new callback nevertheless, for example on the way back.
    fn recreate(&self, check: Check, name: &str, finding: Option<Finding>) -> Check {
        let evidence = match finding {
            Some(Finding { state: Ok(State::Registered), evidence }) => {
                let summary = format!("{name} has the callback registered");
                return check.state("registered").pass(summary).detail(evidence);
            }
            Some(Finding { evidence, .. }) => format!("\n{evidence}"),
            None => String::new(),
        };
        let detail = format!(
            "Nango registered a client with the callback of the day on which the integration was \
             created, and that client cannot be changed{evidence}"
        );
        let check = check.state("recreate").detail(detail);
        if self.switched {
            check
                .unknown(format!("{name} keeps the old callback until the integration is created again"))
                .hint(format!(
                    "delete the integration in Nango and create it again; its users connect again. Then \
                     confirm with --ack {}",
                    self.key
                ))
        } else {
            check
                .unknown(format!("{name} fails after the switch until the integration is created again"))
                .hint(format!(
                    "confirm with --ack {} that you will delete and create the integration in Nango \
                     after the switch",
                    self.key
                ))
        }
    }

    /// Applies the decisions of a person: confirms an unknown result, or accepts the risk of a failed
    /// one. The report keeps the original finding.
    fn decided(&self, judged: Check) -> Check {
        let wanted = match judged.status {
            Status::Unknown if judged.blocks => false,
            Status::Fail => true,
            _ => return judged,
        };
        let mut decisions = self.decisions.iter().filter(|it| it.accepts_risk == wanted).peekable();
        let Some(first) = decisions.peek().copied() else { return judged };
        let matches =
            |it: &&&Decision| it.state.as_deref().is_none_or(|it| Some(it) == judged.state);
        let Some(decision) = decisions.find(matches) else {
            let expected = first.state.as_deref().unwrap_or_default();
            let note = format!("it was acknowledged as `{expected}`, which is not its state now");
            let detail = judged.detail.iter().cloned().chain([note]).collect::<Vec<_>>().join("\n");
            return judged.detail(detail);
        };
        let reason = decision.text();
        if wanted {
            let summary = format!("risk accepted{reason}; {}", judged.summary);
            return judged.warn(summary);
        }
        let summary = format!("confirmed by hand{reason}; {}", judged.summary);
        let detail = judged.detail.clone().unwrap_or_default();
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
        let name = self.name(provider);
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
                    "confirm with --ack {} that you will replace it at the moment of the switch, in {}",
                    self.key, provider.console
                )),
            State::NotRegistered => check
                .state("not_registered")
                .fail(format!("{name} rejects the callback"))
                .hint(format!(
                    "add {callback} in {}, beside the current one; if this is an app of Nango, use your \
                     own",
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

    fn context<'a>(template: &'a str, decisions: Vec<&'a Decision>) -> IntegrationContext<'a> {
        IntegrationContext {
            key: "k",
            display_name: "",
            template,
            callback: "https://auth.example.com/oauth/callback",
            switched: false,
            decisions,
            overridden: false,
            notes: &[],
        }
    }

    fn decision(accepts_risk: bool) -> Decision {
        Decision {
            integration: "k".into(),
            accepts_risk,
            reason: Some("CHG-17".into()),
            ..Decision::default()
        }
    }

    fn judge(
        template: &str,
        switched: bool,
        acknowledged: bool,
        found: IntegrationResult,
    ) -> Check {
        let (notes, decision) = (["a note".to_owned()], decision(false));
        let decisions = if acknowledged { vec![&decision] } else { Vec::new() };
        IntegrationContext { switched, notes: &notes, ..context(template, decisions) }.judge(found)
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
        let key = "a\u{1b}[2Jb";
        let context = IntegrationContext { key, display_name: key, ..context("any", Vec::new()) };
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

    /// And the report shows the finding and the reason.
    #[test]
    fn only_failures_can_be_accepted_as_a_risk() {
        let accepted = decision(true);
        for (state, status) in [
            (State::NotRegistered, Status::Warn),
            (State::Undecidable, Status::Unknown),
            (State::Registered, Status::Pass),
        ] {
            let check = context("any", vec![&accepted]).judge(probed(state));
            assert_eq!(check.status, status, "{state:?}");
        }
        let check = context("any", vec![&accepted]).judge(probed(State::NotRegistered));
        assert_eq!(check.state, Some("not_registered"));
        assert_eq!(check.summary, "risk accepted: CHG-17; k rejects the callback");
    }

    #[test]
    fn a_decision_about_another_state_does_not_apply() {
        let mut decision = decision(false);
        for (state, status) in [("undecidable", Status::Pass), ("no_url", Status::Unknown)] {
            decision.state = Some(state.into());
            let check = context("any", vec![&decision]).judge(probed(State::Undecidable));
            assert_eq!(check.status, status, "{state}");
        }
        let check = context("any", vec![&decision]).judge(probed(State::Undecidable));
        assert!(check.detail.unwrap().contains("acknowledged as `no_url`, which is not"));
    }

    /// State, status, and whether it prevents the switch.
    #[test]
    fn each_kind_has_its_own_verdict_before_and_after_the_switch() {
        use IntegrationResult as It;
        let finding = |state| Finding { state: Ok(state), evidence: "evidence".into() };
        let follows = |published| It::FollowsSetting { registers: false, published };
        let table: Vec<(It, bool, &str, Status, bool)> = vec![
            (It::NoCallback("API_KEY".into()), false, "no_callback", Status::Skip, false),
            (It::SharedApp, false, "shared_app", Status::Fail, true),
            (It::SharedApp, true, "shared_app", Status::Fail, true),
            (It::NotSent, false, "not_sent", Status::Unknown, true),
            (It::AppSettings { is_plugin: true }, false, "app_settings", Status::Unknown, true),
            (It::AppSettings { is_plugin: false }, true, "app_settings", Status::Unknown, true),
            (It::SetupUrl("https://x".into()), false, "untestable", Status::Unknown, true),
            (follows(None), false, "follows_setting", Status::Unknown, false),
            (follows(None), true, "follows_setting", Status::Unknown, false),
            (follows(Some(true)), true, "follows_setting", Status::Pass, false),
            (follows(Some(false)), true, "follows_setting", Status::Unknown, true),
            (It::Recreate(None), false, "recreate", Status::Unknown, true),
            (
                It::Recreate(Some(finding(State::NotRegistered))),
                false,
                "recreate",
                Status::Unknown,
                true,
            ),
            (
                It::Recreate(Some(finding(State::NotRegistered))),
                true,
                "recreate",
                Status::Unknown,
                true,
            ),
            (
                It::Recreate(Some(finding(State::Registered))),
                true,
                "registered",
                Status::Pass,
                false,
            ),
        ];
        for (found, switched, state, status, prevents) in table {
            let check = judge("any", switched, false, found);
            assert_eq!((check.state, check.status), (Some(state), status));
            let is_in_the_way = check.status == Status::Fail || check.is_unconfirmed();
            assert_eq!(is_in_the_way, prevents, "{state}");
        }
    }

    /// Otherwise GitHub returns users to a page that rejects them.
    #[test]
    fn a_github_app_that_authorizes_users_needs_its_callback_url() {
        let check = judge("any", false, false, IntegrationResult::AppSettings { is_plugin: false });
        let text = format!("{check:?}");
        assert!(text.contains("the Callback URL (not the Setup URL)"), "{text}");
        assert!(!text.contains("app-auth/connect"), "{text}");
    }
}
