//! Servers without the Environments API: a person saves the callback, and this confirms it.

use super::machine::{Action, End, Event, Flow, Goal, Machine, Phase};
use super::read::Environment;
use super::report::{EnvironmentReport, State};
use super::survey::verify;
use super::{Context, Operator};
use crate::preflight::{FlowObservation, is_same_url};
use crate::report::{Verdict, printable};
use std::time::Instant;
use tokio::time::sleep;

/// What to save by hand, for each environment that does not have the callback yet.
pub fn instructions(environments: &[Environment], base: &str) -> Vec<String> {
    let to_save = environments.iter().filter(|it| it.goal == Goal::Switch);
    to_save
        .map(|it| {
            format!(
                "{}: at {base}, open the environment settings, and paste as callback URL: {}",
                it.name,
                printable(&it.after)
            )
        })
        .collect()
}

/// Waits until flows of every environment send the new callback, then runs the preflight of each.
pub async fn watch(
    context: &Context,
    environments: &mut [Environment],
    operator: &impl Operator,
) -> (Vec<EnvironmentReport>, Vec<End>) {
    let began = Instant::now();
    let (mut reports, mut ends) = (Vec::new(), Vec::new());
    for environment in environments {
        let mut machine = Machine::begin(Goal::Verify, Phase::Saved);
        let (mut reason, mut verification) = (None, None);
        let end = loop {
            let event = match machine.action() {
                Action::ObserveNew => {
                    operator.note(&format!("{}: waiting for the new callback", environment.name));
                    let (flow, why) = observe(context, environment, began).await;
                    if flow != Flow::New {
                        break (End::NotSaved, Some(why));
                    }
                    environment.value = Some(environment.after.clone());
                    environment.evidence.push(why);
                    Event::Observed(flow)
                }
                Action::Verify => {
                    let report = verify(context, environment).await;
                    let verdict = report.verdict();
                    if verdict != Verdict::Pass {
                        reason =
                            Some(format!("the preflight after the save: {}", report.sentence()));
                    }
                    verification = Some(report);
                    Event::Verified(verdict.into())
                }
                Action::Stop(end) => break (end, None),
                // There is nothing to read: only flows show the callback.
                _ => Event::Read(super::Value::After),
            };
            machine.next(event);
        };
        let (end, why) = end;
        reports.push(EnvironmentReport {
            reason: why.or(reason),
            verification,
            ..environment.report(if end == End::NotSaved {
                State::NotSeen
            } else {
                State::Ended(end)
            })
        });
        ends.push(end);
    }
    (reports, ends)
}

/// Starts flows until one has the new callback, or the wait is over.
async fn observe(
    context: &Context,
    environment: &mut Environment,
    began: Instant,
) -> (Flow, String) {
    let (before, after) = (environment.before.clone(), environment.after.clone());
    loop {
        let why = match environment.flows.observe(&[&after, &before]).await {
            FlowObservation::Sent { integration, callback } => {
                let integration = printable(&integration);
                if is_same_url(&callback, &after) {
                    return (
                        Flow::New,
                        format!("a flow of `{integration}` sends the new callback"),
                    );
                }
                format!("a flow of `{integration}` still sends {}", printable(&callback))
            }
            FlowObservation::None(why) => {
                format!("no flow shows the callback: {}", printable(&why))
            }
        };
        if began.elapsed() >= context.wait || !environment.starts_flows {
            return (Flow::Old, why);
        }
        sleep(context.pause()).await;
    }
}
