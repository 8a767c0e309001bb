//! What Nango says, what the providers say, and the checks that come of it.

use super::authorization::Flow;
use super::candidate::{Candidate, NoUrl, candidates};
use super::differential::{Differential, Finding, Untestable};
use super::environment::{Environment, contents, shown};
use super::integration::{Examined, Found};
use super::nango::{Integration, Nango, Reach, Refused};
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
) -> Result<Survey, Refused> {
    let integrations = nango.integrations().await?;
    named(plan, &integrations)?;
    let mut candidates = candidates(plan, nango, &integrations).await?;
    let ways = urls::find(plan, nango, &mut candidates).await?;
    let environment = Environment::of(plan, &candidates);
    for candidate in &mut candidates {
        if let Some(current) = environment.overridden(candidate) {
            let note = format!("Nango sends {} here, unlike elsewhere", shown(current));
            candidate.notes.push(note);
        }
    }
    let outbound = for_providers(plan, nango, outbound).await;
    let found = ask(plan, outbound, &environment, &candidates).await;
    let judged = candidates.iter().zip(found).map(|(candidate, (found, took))| {
        let examined = Examined {
            key: candidate.key(),
            template: &candidate.integration.provider,
            callback: &plan.check.callback,
            switched: environment.switched,
            acknowledged: plan.acknowledged.iter().any(|key| key == candidate.key()),
            overridden: environment.overridden(candidate).is_some(),
            notes: &candidate.notes,
        };
        examined.judge(found).took(took)
    });
    let judged: Vec<_> = judged.collect();
    let switch = facts(plan, &environment, &ways, &candidates, &judged).plan();
    let mut checks = vec![
        Check::new("nango.key", "Nango accepts the API key").subject(nango.base()),
        contents(plan, nango, &integrations, &candidates),
        environment.check(plan, ways.no_flows.as_deref()),
        ways.check(plan),
    ];
    checks.extend(judged);
    Ok(Survey { checks, switch })
}

/// A key that no integration has is a slip of the keyboard, and would silently leave one out.
fn named(plan: &Plan, integrations: &[Integration]) -> Result<(), Refused> {
    let known = |key: &str| integrations.iter().any(|it| it.unique_key == key);
    let only = plan.only.iter().map(|key| ("--only names", key.as_str()));
    let acknowledged = plan.acknowledged.iter().map(|key| ("--ack names", key.as_str()));
    match only.chain(acknowledged).find(|(_, key)| !known(key)) {
        None => Ok(()),
        Some((who, key)) => {
            let keys: Vec<_> = integrations.iter().map(|it| it.unique_key.as_str()).collect();
            Err(Refused {
                why: format!("{who} `{key}`, and this environment has no such integration"),
                hint: match keys.as_slice() {
                    [] => "it has none at all: see whether the key is of another one".into(),
                    keys => format!("it has {}", keys.join(", ")),
                },
                reach: Reach::All,
            })
        }
    }
}

/// The client for providers, whose URLs come from Nango: a Nango elsewhere must not be able to send
/// requests to this machine and the networks it is in.
async fn for_providers(plan: &Plan, nango: &Nango, outbound: &Outbound) -> Outbound {
    let mut ranges = nango.private_ranges().await;
    if ranges.contains(&Range::Loopback) {
        ranges.push(Range::Private);
    }
    outbound.clone().public_only(plan.private_networks.clone(), ranges)
}

/// Asks all providers, side by side as far as they are different hosts.
async fn ask(
    plan: &Plan,
    outbound: Outbound,
    environment: &Environment,
    candidates: &[Candidate],
) -> Vec<(Found, Duration)> {
    let differential = Arc::new(Differential::new(outbound, &plan.manners));
    let mut tasks = JoinSet::new();
    let mut found: Vec<Option<(Found, Duration)>> = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let known = known(plan, environment, candidate);
        found.push(known.map(|known| (known, Duration::ZERO)));
        if let (Some(None), Ok(url)) = (found.last(), &candidate.url) {
            let inquiry = candidate.inquiry(plan, environment.previous(plan), url);
            let differential = Arc::clone(&differential);
            tasks.spawn(async move {
                let began = Instant::now();
                let finding = differential.test(&inquiry).await;
                (index, finding, began.elapsed())
            });
        }
    }
    let of = tasks.len();
    let mut done = 0;
    while let Some(joined) = tasks.join_next().await {
        let Ok((index, finding, took)) = joined else { continue };
        done += 1;
        if let (Some(progress), Some(candidate)) = (plan.progress, candidates.get(index)) {
            progress(done, of, &printable(candidate.key()));
        }
        if let Some(place) = found.get_mut(index) {
            *place = Some((Found::Asked(finding), took));
        }
    }
    let lost = || {
        let lost = NoUrl::new("the question was lost on the way", "run it again");
        (Found::NoUrl(lost), Duration::ZERO)
    };
    found.into_iter().map(|found| found.unwrap_or_else(lost)).collect()
}

/// What is known without asking a provider.
fn known(plan: &Plan, environment: &Environment, candidate: &Candidate) -> Option<Found> {
    let untestable =
        |why: Untestable| Found::Asked(Finding { state: Err(why), evidence: why.words().into() });
    match (candidate.flow, &candidate.url) {
        (Flow::None, _) => Some(Found::NoCallback(candidate.auth_mode().to_owned())),
        (Flow::App, _) => {
            Some(Found::SetupUrl(plan.check.callback.replace("oauth/callback", "app-auth/connect")))
        }
        (Flow::OAuth1, _) => Some(untestable(Untestable::OAuth1)),
        (Flow::Unknown, _) => {
            let why = match candidate.auth_mode() {
                "" => "Nango names no template, or one without a mode".to_owned(),
                mode => format!("its mode `{mode}` is not known, and may have a callback"),
            };
            let hint = "connect one account by hand, or use a newer version of this program";
            Some(Found::NoUrl(NoUrl::new(why, hint)))
        }
        (Flow::OAuth2, Err(no_url)) => Some(Found::NoUrl(no_url.clone())),
        (Flow::OAuth2, Ok(url)) if plan.dry_run => {
            let inquiry = candidate.inquiry(plan, environment.previous(plan), url);
            Some(Differential::preview(&inquiry).map_or_else(untestable, Found::NotAsked))
        }
        (Flow::OAuth2, Ok(_)) => None,
    }
}

/// What the switch plan is made from; `judged` is of the candidates, in their order.
fn facts<'a>(
    plan: &'a Plan,
    environment: &'a Environment,
    ways: &urls::Ways,
    candidates: &'a [Candidate],
    judged: &'a [Check],
) -> Facts<'a> {
    let all = candidates.iter().zip(judged);
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
        started: ways.started,
        in_session: matches!(plan.start, Start::Session),
        overridden: overridden.map(Candidate::key).collect(),
    }
}
