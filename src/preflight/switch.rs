//! The steps of the switch in order, cautions, and what a preflight leaves in Nango.

use super::differential::{Callbacks, Provider};
use crate::report::{Check, Status, SwitchPlan};

/// The input of the plan.
#[expect(clippy::struct_excessive_bools, reason = "each is a separate fact")]
pub(super) struct Facts<'a> {
    pub(super) callback: &'a str,
    /// The callback to restore.
    pub(super) previous: &'a str,
    pub(super) switched: bool,
    pub(super) partial: bool,
    /// Key, template and check of each integration with a callback.
    pub(super) integrations: Vec<(&'a str, &'a str, &'a Check)>,
    /// Whether the environment has MCP integrations, or may have some that this run did not read.
    pub(super) may_have_mcp: bool,
    /// The number of started flows, and whether they used a connect session.
    pub(super) started: usize,
    pub(super) in_session: bool,
    /// The integrations with another redirect URI than the environment.
    pub(super) overridden: Vec<&'a str>,
}

impl Facts<'_> {
    pub(super) fn plan(&self) -> SwitchPlan {
        SwitchPlan {
            switched: self.switched,
            partial: self.partial,
            steps: if self.switched { self.steps_after() } else { self.steps_before() },
            cautions: self.cautions(),
            left_behind: self.left_behind(),
        }
    }

    fn steps_before(&self) -> Vec<String> {
        let (callback, previous) = (self.callback, self.previous);
        let mut steps = Vec::new();
        let missing = self.keys(|_, check| check.status == Status::Fail);
        if !missing.is_empty() {
            steps.push(format!(
                "add {callback} to the redirect URIs at the providers of {missing}, and keep the \
                 current one"
            ));
        }
        let unclear = self.keys(|_, check| {
            check.status == Status::Unknown && check.state != Some("one_callback")
        });
        if !unclear.is_empty() {
            steps.push(format!("confirm by hand, then pass --ack: {unclear}"));
        }
        steps.push("repeat this preflight until it is safe to switch".into());
        let one = self.keys(|template, check| {
            Provider::of(template).callbacks == Callbacks::One && check.state != Some("registered")
        });
        if !one.is_empty() {
            steps.push(format!(
                "replace the callback of {one} with {callback}, immediately before the next step: \
                 flows fail in between"
            ));
        }
        steps.push(format!(
            "save {callback} as callback URL in the settings of this environment in Nango"
        ));
        if self.may_have_mcp {
            steps.push(
                "wait five minutes if you have MCP integrations (Nango's client metadata document \
                 is cached for 300 s)"
                    .into(),
            );
        }
        steps.extend([
            "repeat this preflight: it verifies that Nango sends the new callback, and tests every \
             provider again; then connect one account by hand"
                .into(),
            format!(
                "to go back, save {previous}, the whole URL: Nango rejects an empty value"
            ),
            "remove the old callback at the providers after some days, when no flow uses it any more"
                .into(),
        ]);
        steps
    }

    fn steps_after(&self) -> Vec<String> {
        let mut steps = Vec::new();
        let missing = self.keys(|_, check| check.status == Status::Fail);
        if !missing.is_empty() {
            steps.push(format!(
                "immediately add {} at the providers of {missing}, or save {} in Nango again",
                self.callback, self.previous
            ));
        }
        let unclear = self.keys(|_, check| check.status == Status::Unknown);
        if !unclear.is_empty() {
            steps.push(format!("connect one account of each by hand, then pass --ack: {unclear}"));
        }
        if steps.is_empty() {
            steps.push(format!(
                "keep {} working and registered for some days, for flows in progress and to be able \
                 to go back",
                self.previous
            ));
        }
        steps
    }

    fn cautions(&self) -> Vec<String> {
        let mut cautions = Vec::new();
        let mut add = |keys: String, text: &str| {
            if !keys.is_empty() {
                cautions.push(format!("{keys}: {text}"));
            }
        };
        add(
            self.keys(|template, _| template.starts_with("revolut")),
            "tokens of existing connections are refreshed with the host of the callback as issuer; \
             the switch can break them: test one first",
        );
        add(
            self.keys(|template, _| template.starts_with("github-app")),
            "change the Setup URL of the app too, to the new callback with `app-auth/connect` instead \
             of `oauth/callback`",
        );
        add(
            self.keys(|template, _| template.contains("mcp")),
            "flows in progress during the switch fail: Nango reads their callback again",
        );
        add(
            self.keys(|template, _| Provider::of(template).callbacks == Callbacks::One),
            "the provider keeps one callback per app: old and new never work at the same time",
        );
        add(
            self.keys(|template, _| Provider::of(template).callbacks == Callbacks::Domain),
            "the provider registers a domain, not a URL",
        );
        add(
            names(self.overridden.iter().copied()),
            "flows send another callback than the environment; `authorization_params` may override \
             it, before and after the switch",
        );
        if !self.switched {
            cautions.push(
                "flows in progress keep the callback that they started with: the old one must \
                 continue to work"
                    .into(),
            );
            cautions.push(
                "integrations with a Nango-managed app fail after the switch: your callback cannot \
                 be registered there"
                    .into(),
            );
        }
        cautions
    }

    fn left_behind(&self) -> Vec<String> {
        if self.started == 0 {
            return Vec::new();
        }
        let session = if self.in_session {
            "one connect session, which expires after 30 minutes, and "
        } else {
            ""
        };
        let flows = if self.started == 1 { "flow" } else { "flows" };
        vec![format!(
            "{session}{} started {flows}: each is a database row, which Nango removes after two \
             days, and a log entry, marked as cancelled",
            self.started
        )]
    }

    fn keys(&self, wanted: impl Fn(&str, &Check) -> bool) -> String {
        let wanted =
            self.integrations.iter().filter(|(_, template, check)| wanted(template, check));
        names(wanted.map(|(key, _, _)| *key))
    }
}

fn names<'k>(keys: impl Iterator<Item = &'k str>) -> String {
    let keys: Vec<_> = keys.map(|key| format!("`{}`", crate::report::printable(key))).collect();
    keys.join(", ")
}
