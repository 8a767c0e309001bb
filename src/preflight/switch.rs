//! The steps of the switch in order, cautions, and what a preflight leaves in Nango.

use super::differential::{Callbacks, Provider};
use super::kind::Kind;
use crate::report::{Check, Status, SwitchPlan};

/// A caution that is the same for every environment.
pub const FLOWS_IN_PROGRESS: &str =
    "flows in progress keep the callback that they started with: the old one must continue to work";

/// The input of the plan.
#[expect(clippy::struct_excessive_bools, reason = "each is a separate fact")]
pub(super) struct Facts<'a> {
    pub(super) callback: &'a str,
    /// The callback to restore.
    pub(super) previous: &'a str,
    pub(super) switched: bool,
    pub(super) partial: bool,
    /// Each integration with a callback.
    pub(super) integrations: Vec<Row<'a>>,
    /// Whether the environment has MCP integrations, or may have some that this run did not read.
    pub(super) may_have_mcp: bool,
    /// Whether apps of Nango were recognized.
    pub(super) reads_credentials: bool,
    /// The number of started flows, of those that failed, and of clients that they registered at
    /// providers.
    pub(super) started: usize,
    pub(super) failed: usize,
    pub(super) registered: usize,
    /// Whether the flows used a connect session.
    pub(super) in_session: bool,
    /// The integrations with another redirect URI than the environment.
    pub(super) overridden: Vec<&'a str>,
}

/// An integration with a callback.
pub(super) struct Row<'a> {
    pub(super) key: &'a str,
    pub(super) template: &'a str,
    pub(super) kind: Kind,
    pub(super) customer_apps: bool,
    pub(super) check: &'a Check,
}

impl Row<'_> {
    fn has_one_callback(&self) -> bool {
        Provider::of(self.template).callbacks == Callbacks::One
    }

    fn is(&self, state: &str) -> bool {
        self.check.state == Some(state)
    }
}

fn needs_replacement(row: &Row<'_>) -> bool {
    row.has_one_callback() && !row.is("registered")
}

fn needs_recreation(row: &Row<'_>) -> bool {
    row.kind == Kind::Recreate && !row.is("registered")
}

impl Facts<'_> {
    pub(super) fn plan(&self) -> SwitchPlan {
        SwitchPlan {
            switched: self.switched,
            partial: self.partial,
            steps: if self.switched { self.steps_after() } else { self.steps_before() },
            rollback: self.rollback(),
            cautions: self.cautions(),
            left_behind: self.left_behind(),
            to_replace: self.listed(needs_replacement),
            to_recreate: self.listed(needs_recreation),
            may_have_mcp: self.may_have_mcp,
        }
    }

    fn steps_before(&self) -> Vec<String> {
        let (callback, previous) = (self.callback, self.previous);
        let mut steps = Vec::new();
        let mut add = |keys: &str, text: String| {
            if !keys.is_empty() {
                steps.push(text);
            }
        };
        let shared = self.keys(|row| row.is("shared_app"));
        add(
            &shared,
            format!("register your own app, and save it in the integration in Nango: {shared}"),
        );
        let missing = self.keys(|row| row.check.status == Status::Fail && !row.is("shared_app"));
        add(
            &missing,
            format!(
                "add {callback} to the redirect URIs at the providers of {missing}, and keep the \
                 current one"
            ),
        );
        let later = |row: &Row<'_>| row.is("one_callback") || row.is("recreate");
        let unclear = self.keys(|row| row.check.is_unconfirmed() && !later(row));
        add(&unclear, format!("confirm by hand, then pass --ack: {unclear}"));
        let later = self.keys(|row| row.check.is_unconfirmed() && later(row));
        add(&later, format!("pass --ack to confirm that you will do the later steps for: {later}"));
        steps.push("repeat this preflight until it is safe to switch".into());
        let mut add = |keys: &str, text: String| {
            if !keys.is_empty() {
                steps.push(text);
            }
        };
        let one = self.keys(needs_replacement);
        add(
            &one,
            format!(
                "replace the callback of {one} with {callback}, immediately before the next step: \
                 flows fail in between"
            ),
        );
        steps.push(format!(
            "save {callback} as callback URL in the settings of this environment in Nango"
        ));
        let recreate = self.keys(needs_recreation);
        if !recreate.is_empty() {
            steps.push(format!(
                "delete and create these integrations in Nango, so that it registers clients with the \
                 new callback; their users connect again: {recreate}"
            ));
        }
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
                .to_owned(),
            format!(
                "remove {previous} at the providers after some days, when no flow uses it any more"
            ),
        ]);
        steps
    }

    fn rollback(&self) -> Vec<String> {
        let previous = self.previous;
        let mut steps = Vec::new();
        let one = self.keys(|row| Provider::of(row.template).callbacks == Callbacks::One);
        if !one.is_empty() {
            steps.push(format!("replace the callback of {one} with {previous}"));
        }
        steps
            .push(format!("save {previous} in Nango, the whole URL: Nango rejects an empty value"));
        steps
    }

    fn steps_after(&self) -> Vec<String> {
        let mut steps = Vec::new();
        let missing = self.keys(|row| row.check.status == Status::Fail);
        if !missing.is_empty() {
            steps.push(format!(
                "immediately add {} at the providers of {missing}, or save {} in Nango again",
                self.callback, self.previous
            ));
        }
        let recreate = self.keys(|row| row.is("recreate"));
        if !recreate.is_empty() {
            steps.push(format!(
                "delete and create these integrations in Nango, then pass --ack: {recreate}"
            ));
        }
        let unclear = self.keys(|row| row.check.is_unconfirmed() && !row.is("recreate"));
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
            self.keys(|row| row.template.starts_with("revolut")),
            "tokens of existing connections are refreshed with the host of the callback as issuer; \
             the switch can break them: test one first",
        );
        add(
            self.keys(|row| row.kind == Kind::SetupUrl),
            "change the Setup URL of the app too, to the new callback with `app-auth/connect` instead \
             of `oauth/callback`",
        );
        add(
            self.keys(|row| row.kind == Kind::FollowsSetting { registers: true }),
            "flows in progress during the switch fail: Nango reads their callback again",
        );
        add(
            self.keys(|row| Provider::of(row.template).callbacks == Callbacks::One),
            "the provider keeps one callback per app: old and new never work at the same time",
        );
        add(
            self.keys(|row| row.customer_apps),
            "connections may use apps of your customers, in which only they can register the callback: \
             ask them before the switch",
        );
        add(
            self.keys(|row| Provider::of(row.template).callbacks == Callbacks::Domain),
            "the provider registers a domain, not a URL",
        );
        add(
            names(self.overridden.iter().copied()),
            "flows send another callback than the environment; `authorization_params` may override \
             it, before and after the switch",
        );
        if !self.switched {
            cautions.push(FLOWS_IN_PROGRESS.into());
            if !self.reads_credentials {
                cautions.push(
                    "integrations with an app of Nango fail after the switch: your callback cannot be \
                     registered there. A key that may read credentials detects them"
                        .into(),
                );
            }
        }
        cautions
    }

    fn left_behind(&self) -> Vec<String> {
        let mut left = Vec::new();
        let (started, failed) = (self.started, self.failed);
        let flows = if started == 1 { "flow" } else { "flows" };
        if started > 0 && self.in_session {
            // Nango groups the flows of a session.
            let mark = if failed > 0 { "failed" } else { "cancelled" };
            left.push(format!(
                "one connect session, which expires after 30 minutes, and its row, which Nango removes \
                 after 31 days; {started} started {flows}, whose rows Nango removes after two days; one \
                 log entry, marked as {mark}"
            ));
        } else if started > 0 {
            left.push(format!(
                "{started} started {flows}, whose rows Nango removes after two days; a log entry for \
                 each"
            ));
        }
        if self.registered > 0 {
            let clients = if self.registered == 1 { "client" } else { "clients" };
            left.push(format!(
                "{} {clients} that Nango registered at providers (RFC 7591), because of \
                 --register-clients",
                self.registered
            ));
        }
        left
    }

    fn listed(&self, wanted: impl Fn(&Row<'_>) -> bool) -> Vec<String> {
        let rows = self.integrations.iter().filter(|row| wanted(row));
        rows.map(|row| crate::report::printable(row.key)).collect()
    }

    fn keys(&self, wanted: impl Fn(&Row<'_>) -> bool) -> String {
        names(self.integrations.iter().filter(|row| wanted(row)).map(|row| row.key))
    }
}

fn names<'k>(keys: impl Iterator<Item = &'k str>) -> String {
    let keys: Vec<_> = keys.map(|key| format!("`{}`", crate::report::printable(key))).collect();
    keys.join(", ")
}
