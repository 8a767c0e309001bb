//! The order of steps, the traps, and what a run leaves behind.

use super::differential::{Callbacks, Provider};
use crate::report::{Check, Status, SwitchPlan};

/// What the plan is made from.
pub(super) struct Facts<'a> {
    pub(super) callback: &'a str,
    /// What to save in Nango to go back.
    pub(super) previous: &'a str,
    pub(super) switched: bool,
    pub(super) partial: bool,
    /// Key and template of each integration with a callback, and what was found.
    pub(super) integrations: Vec<(&'a str, &'a str, &'a Check)>,
    /// How many flows were started, and whether in a session.
    pub(super) started: usize,
    pub(super) in_session: bool,
    /// Those whose redirect URI is another than the environment's.
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
                "add {callback} beside the callback in use at the providers of {missing}"
            ));
        }
        let unclear = self.keys(|_, check| {
            check.status == Status::Unknown && check.state != Some("one_callback")
        });
        if !unclear.is_empty() {
            steps.push(format!("confirm by hand, then with --ack: {unclear}"));
        }
        steps.push("run this again, until it is safe".into());
        let one = self.keys(|template, check| {
            Provider::of(template).callbacks == Callbacks::One && check.state != Some("registered")
        });
        if !one.is_empty() {
            steps.push(format!(
                "exchange the one callback of {one} for {callback}, right before the next step: \
                 flows fail in between"
            ));
        }
        steps.extend([
            format!("in Nango, in this environment's settings, save {callback} as callback URL"),
            "wait five minutes: the client metadata document for MCP servers is cached for 300 s"
                .into(),
            "run this again: it sees that Nango sends the new callback, and asks every provider \
             again; then connect one account by hand"
                .into(),
            format!(
                "to go back, save {previous}: the whole URL, since an empty value is refused"
            ),
            "remove the old callback at the providers when no flow can be under way with it, after \
             some days"
                .into(),
        ]);
        steps
    }

    fn steps_after(&self) -> Vec<String> {
        let mut steps = Vec::new();
        let missing = self.keys(|_, check| check.status == Status::Fail);
        if !missing.is_empty() {
            steps.push(format!(
                "at once: add {} at the providers of {missing}, or save {} in Nango again",
                self.callback, self.previous
            ));
        }
        let unclear = self.keys(|_, check| check.status == Status::Unknown);
        if !unclear.is_empty() {
            steps.push(format!("connect one account each by hand, then --ack: {unclear}"));
        }
        if steps.is_empty() {
            steps.push(format!(
                "keep {} working and registered for some days, for flows under way and for going \
                 back",
                self.previous
            ));
        }
        steps
    }

    fn cautions(&self) -> Vec<String> {
        let mut cautions = Vec::new();
        let mut mind = |keys: String, text: &str| {
            if !keys.is_empty() {
                cautions.push(format!("{keys}: {text}"));
            }
        };
        mind(
            self.keys(|template, _| template.starts_with("revolut")),
            "tokens of existing connections are refreshed with the callback's host as issuer; \
             switching can break them, so try one first",
        );
        mind(
            self.keys(|template, _| template.starts_with("github-app")),
            "change the app's Setup URL too, to the new callback with `app-auth/connect` in place \
             of `oauth/callback`",
        );
        mind(
            self.keys(|template, _| template.contains("mcp")),
            "flows that are under way while switching break: their callback is read anew",
        );
        mind(
            self.keys(|template, _| Provider::of(template).callbacks == Callbacks::One),
            "an app there has one callback: old and new are never both right",
        );
        mind(
            self.keys(|template, _| Provider::of(template).callbacks == Callbacks::Domain),
            "an app there names a domain, not a URL",
        );
        mind(
            names(self.overridden.iter().copied()),
            "the callback that is sent is not the environment's; `authorization_params` may \
             override it, and do so after the switch",
        );
        if !self.switched {
            cautions.push(
                "flows that have begun keep the callback that they began with: the old one must go \
                 on working"
                    .into(),
            );
            cautions.push(
                "integrations on developer apps of Nango's own do not know your callback, and fail \
                 after the switch"
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
            "one connect session, which ends in 30 minutes, and "
        } else {
            ""
        };
        vec![format!(
            "{session}{} started flows: each is a row that Nango removes after two days, and an \
             entry in its logs, marked as cancelled",
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
