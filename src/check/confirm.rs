//! Repeats failed probes, with controls between them, before a check names a cause.

use super::corpus::Probe;
use super::evidence::{Answer, Evidence};
use super::location::Callback;
use super::origins::origin;
use super::prober::{Cause, Client, Outcome, Received, Session, answer};
use crate::outbound::{Fault, Reason};
use crate::redirect::Target;
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::Instant;

/// The maximum of failed probes that are repeated, for example all that one firewall rule blocks.
const MAX_REPEATED: usize = 12;
/// The maximum of blocked probes to find the cause of.
const MAX_NARROWED: usize = 4;
/// The maximum of parameters to send alone.
const MAX_PARAMETERS: usize = 12;
/// How long the repeats of one list of probes may take.
const MAX_TIME: Duration = Duration::from_secs(30);
/// The longest control. A longer query is blocked because of its length.
const MAX_CONTROL: usize = 1000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Control,
    Repeat,
}
use Turn::{Control, Repeat};

/// Two repeats in a row: when several servers respond in turn, a control and a repeat in strict
/// alternation would always meet the same servers.
const ROUND: &[Turn] = &[Control, Repeat, Repeat, Control];
/// After other requests failed now and then.
const LONG_ROUND: &[Turn] = &[Repeat, Control, Repeat, Repeat, Control, Repeat];
/// For a rate limit, after waiting, and when failures are known to be intermittent.
const SHORT_ROUND: &[Turn] = &[Repeat, Control, Repeat];
/// Where every request counts, whatever its query.
const REPEATS: &[Turn] = &[Repeat, Repeat];

/// Where the repeats are sent.
pub(super) struct Confirmation<'c> {
    pub(super) session: &'c mut Session,
    pub(super) callback: &'c Callback,
    pub(super) target: &'c Target,
    pub(super) client: Client,
    /// Whether to send controls, as a browser.
    pub(super) controls: bool,
}

impl Confirmation<'_> {
    /// Repeats the failed ones, and finds what the server rejects in those that are blocked.
    pub(super) async fn confirm(mut self, outcomes: &mut [Outcome]) {
        let until = self.session.prober.deadline.min(Instant::now() + MAX_TIME);
        let is_unsteady = |it: &Outcome| {
            it.evidence() == Evidence::Intermittent || it.controls.contains(&Answer::Failed)
        };
        let (mut left, mut unsteady) = (MAX_REPEATED, false);
        for outcome in outcomes.iter_mut() {
            let turns = match outcome.evidence() {
                Evidence::Unrepeated if !self.controls => REPEATS,
                Evidence::Unrepeated if left > 0 => {
                    left -= 1;
                    ROUND
                }
                Evidence::Unrepeated if unsteady => SHORT_ROUND,
                // Without waiting, more requests only prolong the limit.
                Evidence::Limited if self.session.prober.wait(&outcome.result).await => SHORT_ROUND,
                _ => continue,
            };
            if Instant::now() >= until || !self.take_turns(outcome, turns).await {
                break;
            }
            unsteady |= is_unsteady(outcome);
        }
        if outcomes.iter().any(is_unsteady) {
            for outcome in outcomes.iter_mut().filter(|it| it.evidence() == Evidence::Blocked) {
                if Instant::now() >= until || !self.take_turns(outcome, LONG_ROUND).await {
                    break;
                }
            }
        }
        if self.controls && self.client == Client::Browser {
            let blocked = outcomes.iter_mut().filter(|it| it.evidence() == Evidence::Blocked);
            for outcome in blocked.take(MAX_NARROWED) {
                if Instant::now() < until {
                    outcome.cause = self.narrow(&outcome.probe).await;
                }
            }
        }
    }

    /// Until an attempt reaches the target; `false` when the server does not respond at all.
    async fn take_turns(&mut self, outcome: &mut Outcome, turns: &[Turn]) -> bool {
        let is_timeout = |result: &Result<Received, Fault>| {
            result.as_ref().is_err_and(|fault| fault.reason == Reason::Timeout)
        };
        for turn in turns {
            if *turn == Control && self.controls {
                let control = self.control(outcome.probe.query.as_deref());
                let result = self.send(control, Client::Browser).await;
                outcome.controlled(&result);
                if is_timeout(&result) {
                    return false;
                }
            } else if *turn == Repeat {
                let result = self.send(outcome.probe.clone(), self.client).await;
                // A time-out takes long: one repeat is enough.
                let stop = is_timeout(&result) || answer(&result) == Answer::Reached;
                outcome.repeated(result);
                if stop {
                    break;
                }
            }
        }
        true
    }

    async fn send(&mut self, probe: Probe, client: Client) -> Result<Received, Fault> {
        self.session.probe(self.callback, self.target, probe, client).await.result
    }

    /// A query without anything special, of the same length if that is not special itself.
    fn control(&self, query: Option<&str>) -> Probe {
        let mut control = Probe { name: "control", ..Probe::plain(&self.session.prober.run) };
        let length =
            query.map(str::len).filter(|length| *length <= MAX_CONTROL).unwrap_or_default();
        if let Some(text) = &mut control.query {
            for number in 0_u32.. {
                if text.len() >= length {
                    break;
                }
                let _ = write!(text, "-{:x}", number.wrapping_mul(0x9E37_79B1));
            }
        }
        control
    }

    /// Sends the query without `Referer`, then each parameter alone, and then the query with what it
    /// lacks.
    async fn narrow(&mut self, probe: &Probe) -> Option<Cause> {
        let query = probe.query.as_deref().filter(|query| query.len() <= MAX_CONTROL)?;
        if let Some(origin) = origin(probe.name) {
            let direct = Probe { name: "without referrer", ..probe.clone() };
            let result = self.send(direct, Client::Browser).await;
            if answer(&result) == Answer::Reached {
                return Some(Cause::Referer(origin));
            }
        }
        let parameters = query.split('&').filter(|it| !it.is_empty() && !it.contains(&probe.state));
        for parameter in parameters.take(MAX_PARAMETERS) {
            let name = parameter.split('=').next().unwrap_or_default();
            // A program may require a code; then every parameter without one fails.
            let code = if name == "code" { "" } else { "&code=invented-code" };
            let query = Some(format!("state={}{code}&{parameter}", probe.state));
            let alone = Probe { name: "one parameter", query, ..probe.clone() };
            let result = self.send(alone, Client::Browser).await;
            if matches!(answer(&result), Answer::Failed | Answer::Limited) {
                return Some(Cause::Parameter(name.to_owned()));
            }
        }
        for (name, value) in [("code", "invented-code"), ("state", &*probe.state)] {
            let added = format!("{name}={value}");
            if query.split('&').any(|it| it.split('=').next() == Some(name)) {
                continue;
            }
            let query = Some(format!("{query}&{added}"));
            let complete = Probe { name: "one more parameter", query, ..probe.clone() };
            let result = self.send(complete, Client::Browser).await;
            if answer(&result) == Answer::Reached {
                return Some(Cause::Missing(name));
            }
        }
        None
    }
}
