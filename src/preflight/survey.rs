//! Collects the data of Nango, probes the providers, and creates the checks.

use super::authorization::Flow;
use super::candidate::{Candidate, NoUrl, candidates};
use super::differential::{Differential, Finding, Untestable};
use super::environment::{Environment, contents, shown};
use super::integration::{IntegrationContext, IntegrationResult};
use super::nango::{ErrorScope, Integration, Nango, NangoError};
use super::switch::Facts;
use super::{Plan, Start, urls};
use crate::outbound::{Outbound, Range};
use crate::report::{Check, SwitchPlan, printable};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

pub(super) struct Survey {
    pub(super) checks: Vec<Check>,
    pub(super) switch: SwitchPlan,
}

pub(super) async fn run(
    plan: &Plan,
    nango: &Nango,
    outbound: &Outbound,
) -> Result<Survey, NangoError> {
    let integrations = nango.integrations().await?;
    validate_keys(plan, &integrations)?;
    let mut candidates = candidates(plan, nango, &integrations).await?;
    let discovery = urls::find(plan, nango, &mut candidates).await?;
    let environment = Environment::of(plan, &candidates);
    for candidate in &mut candidates {
        if let Some(current) = environment.overridden(candidate) {
            let note = format!("flows of this integration send {}", shown(current));
            candidate.notes.push(note);
        }
    }
    let outbound = for_providers(plan, nango, outbound).await;
    let results = probe(plan, outbound, &environment, &candidates).await;
    let checked = candidates.iter().zip(results).map(|(candidate, (result, duration))| {
        let context = IntegrationContext {
            key: candidate.key(),
            template: &candidate.integration.provider,
            callback: &plan.check.callback,
            switched: environment.switched,
            acknowledged: plan.acknowledged.iter().any(|key| key == candidate.key()),
            overridden: environment.overridden(candidate).is_some(),
            notes: &candidate.notes,
        };
        context.judge(result).duration(duration)
    });
    let checked: Vec<_> = checked.collect();
    let switch = facts(plan, &environment, &discovery, &candidates, &checked).plan();
    let mut checks = vec![
        Check::new("nango.key", "Nango accepts the API key").subject(nango.base()),
        contents(plan, nango, &integrations, &candidates),
        environment.check(plan, discovery.no_flows.as_deref()),
        discovery.check(plan),
    ];
    checks.extend(checked);
    Ok(Survey { checks, switch })
}

/// A key that no integration has is a typing error, which would silently skip one.
fn validate_keys(plan: &Plan, integrations: &[Integration]) -> Result<(), NangoError> {
    let known = |key: &str| integrations.iter().any(|it| it.unique_key == key);
    let only = plan.only.iter().map(|key| ("--only", key.as_str()));
    let acknowledged = plan.acknowledged.iter().map(|key| ("--ack", key.as_str()));
    match only.chain(acknowledged).find(|(_, key)| !known(key)) {
        None => Ok(()),
        Some((option, key)) => {
            let keys: Vec<_> = integrations.iter().map(|it| it.unique_key.as_str()).collect();
            Err(NangoError {
                why: format!("{option}: this environment has no integration `{key}`"),
                hint: match keys.as_slice() {
                    [] => "it has none: check that the key belongs to the right environment".into(),
                    keys => format!("it has {}", keys.join(", ")),
                },
                scope: ErrorScope::All,
            })
        }
    }
}

/// The client for providers, whose URLs come from Nango: a remote Nango must not be able to send
/// requests to this machine and its networks.
async fn for_providers(plan: &Plan, nango: &Nango, outbound: &Outbound) -> Outbound {
    let mut ranges = nango.private_ranges().await;
    if ranges.contains(&Range::Loopback) {
        ranges.push(Range::Private);
    }
    outbound.clone().public_only(plan.private_networks.clone(), ranges)
}

/// Probes all providers; different hosts concurrently.
async fn probe(
    plan: &Plan,
    outbound: Outbound,
    environment: &Environment,
    candidates: &[Candidate],
) -> Vec<(IntegrationResult, Duration)> {
    let differential = Arc::new(Differential::new(outbound, &plan.policy));
    let mut tasks = JoinSet::new();
    let mut results: Vec<Option<(IntegrationResult, Duration)>> = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let without_probe = without_probe(plan, environment, candidate);
        results.push(without_probe.map(|result| (result, Duration::ZERO)));
        if let (Some(None), Ok(url)) = (results.last(), &candidate.url) {
            let probe_request = candidate.probe_request(plan, environment.previous(plan), url);
            let differential = Arc::clone(&differential);
            tasks.spawn(async move {
                let began = Instant::now();
                let finding = differential.test(&probe_request).await;
                (index, finding, began.elapsed())
            });
        }
    }
    let total = tasks.len();
    let mut done = 0;
    while let Some(joined) = tasks.join_next().await {
        let Ok((index, finding, duration)) = joined else { continue };
        done += 1;
        if let (Some(progress), Some(candidate)) = (plan.progress, candidates.get(index)) {
            progress(done, total, &printable(candidate.key()));
        }
        if let Some(slot) = results.get_mut(index) {
            *slot = Some((IntegrationResult::Probed(finding), duration));
        }
    }
    let unfinished = || {
        let lost = NoUrl::new("internal error: a test did not finish", "run the preflight again");
        (IntegrationResult::NoUrl(lost), Duration::ZERO)
    };
    results.into_iter().map(|result| result.unwrap_or_else(unfinished)).collect()
}

/// The result when it needs no probe.
fn without_probe(
    plan: &Plan,
    environment: &Environment,
    candidate: &Candidate,
) -> Option<IntegrationResult> {
    let untestable = |why: Untestable| {
        IntegrationResult::Probed(Finding { state: Err(why), evidence: why.as_str().into() })
    };
    match (candidate.flow, &candidate.url) {
        (Flow::None, _) => Some(IntegrationResult::NoCallback(candidate.auth_mode().to_owned())),
        (Flow::App, _) => Some(IntegrationResult::SetupUrl(
            plan.check.callback.replace("oauth/callback", "app-auth/connect"),
        )),
        (Flow::OAuth1, _) => Some(untestable(Untestable::OAuth1)),
        (Flow::Unknown, _) => {
            let why = match candidate.auth_mode() {
                "" => "Nango returns no template, or one without a mode".to_owned(),
                mode => format!("the mode `{mode}` is unknown, and may have a callback"),
            };
            let hint = "connect one account by hand, or update callback-edge";
            Some(IntegrationResult::NoUrl(NoUrl::new(why, hint)))
        }
        (Flow::OAuth2, Err(no_url)) => Some(IntegrationResult::NoUrl(no_url.clone())),
        (Flow::OAuth2, Ok(url)) if plan.dry_run => {
            let probe_request = candidate.probe_request(plan, environment.previous(plan), url);
            Some(
                Differential::preview(&probe_request)
                    .map_or_else(untestable, IntegrationResult::NotProbed),
            )
        }
        (Flow::OAuth2, Ok(_)) => None,
    }
}

/// The input of the switch plan; `checked` are the checks of the candidates, in their order.
fn facts<'a>(
    plan: &'a Plan,
    environment: &'a Environment,
    discovery: &urls::Discovery,
    candidates: &'a [Candidate],
    checked: &'a [Check],
) -> Facts<'a> {
    let all = candidates.iter().zip(checked);
    let with_callback = all.filter(|(candidate, _)| candidate.flow.has_callback());
    let overridden = candidates.iter().filter(|it| environment.overridden(it).is_some());
    Facts {
        callback: &plan.check.callback,
        previous: environment.previous(plan),
        switched: environment.switched,
        partial: !plan.only.is_empty(),
        integrations: with_callback
            .map(|(candidate, check)| {
                (candidate.key(), candidate.integration.provider.as_str(), check)
            })
            .collect(),
        may_have_mcp: !plan.only.is_empty()
            || candidates.iter().any(|it| {
                let mode = it.auth_mode();
                mode.is_empty() || mode.starts_with("MCP_")
            }),
        started: discovery.started,
        in_session: matches!(plan.start, Start::Session),
        overridden: overridden.map(Candidate::key).collect(),
    }
}
