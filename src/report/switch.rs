use super::Verdict;
use serde::Serialize;

/// How to switch Nango to a new callback, and how to revert.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SwitchPlan {
    /// Whether Nango already sends the callback.
    pub switched: bool,
    /// Whether some integrations were excluded.
    pub partial: bool,
    /// The steps, in this order.
    pub steps: Vec<String>,
    /// How to go back, in this order.
    pub rollback: Vec<String>,
    /// Side effects of the switch.
    pub cautions: Vec<String>,
    /// What the run itself created at Nango and did not delete.
    pub left_behind: Vec<String>,
    /// The integrations whose provider keeps one callback per app, which is another one today.
    #[serde(skip)]
    pub to_replace: Vec<String>,
    /// The integrations to create again in Nango after the switch.
    #[serde(skip)]
    pub to_recreate: Vec<String>,
    /// Whether the environment has MCP integrations, or may have some that this run did not read.
    #[serde(skip)]
    pub may_have_mcp: bool,
}

impl SwitchPlan {
    /// The verdict for the switch.
    pub fn verdict_text(&self, verdict: Verdict) -> &'static str {
        match (verdict, self.switched) {
            (Verdict::Pass, false) if self.partial => "safe to switch the selected integrations",
            (Verdict::Pass, true) if self.partial => {
                "switched and confirmed for the selected integrations"
            }
            (Verdict::Pass, false) => "safe to switch",
            (Verdict::Pass, true) => "switched and confirmed",
            (Verdict::Fail, false) => "fix these before switching",
            (Verdict::Fail, true) => "switched, but broken",
            (Verdict::Unconfirmed, false) => "not confirmed safe",
            (Verdict::Unconfirmed, true) => "switched, but not fully confirmed",
            (Verdict::Error, _) => "could not run",
        }
    }

    /// The non-empty sections, each with its title.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let steps =
            if self.switched { "remaining steps" } else { "steps to switch, in this order" };
        [
            (steps, self.steps.as_slice()),
            ("to go back", &self.rollback),
            ("effects of the switch", &self.cautions),
            ("left at Nango by this run", &self.left_behind),
        ]
        .into_iter()
        .filter(|(_, lines)| !lines.is_empty())
    }
}
