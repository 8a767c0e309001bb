use super::Verdict;
use serde::Serialize;

/// How to switch Nango to a new callback, and how to go back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SwitchPlan {
    /// Whether Nango sends the callback already.
    pub switched: bool,
    /// Whether some integrations were left out.
    pub partial: bool,
    /// What to do, in this order.
    pub steps: Vec<String>,
    /// What goes wrong at switching for those who do not know of it.
    pub cautions: Vec<String>,
    /// What the run itself has left behind at Nango.
    pub left_behind: Vec<String>,
}

impl SwitchPlan {
    /// The verdict, in the words of who wants to switch.
    pub fn word(&self, verdict: Verdict) -> &'static str {
        match (verdict, self.switched) {
            (Verdict::Pass, false) if self.partial => "safe as far as asked",
            (Verdict::Pass, true) if self.partial => "switched and confirmed as far as asked",
            (Verdict::Pass, false) => "safe to switch",
            (Verdict::Pass, true) => "switched and confirmed",
            (Verdict::Fail, false) => "do not switch",
            (Verdict::Fail, true) => "switched, and broken",
            (Verdict::Unconfirmed, false) => "not confirmed to be safe",
            (Verdict::Unconfirmed, true) => "switched, not all confirmed",
            (Verdict::Error, _) => "could not run",
        }
    }

    /// The parts that have something to say, each with its title.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let steps = if self.switched { "what is left to do" } else { "to switch, in this order" };
        [
            (steps, self.steps.as_slice()),
            ("mind when switching", &self.cautions),
            ("left behind by this run", &self.left_behind),
        ]
        .into_iter()
        .filter(|(_, lines)| !lines.is_empty())
    }
}
