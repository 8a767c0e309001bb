//! Collects the data of Nango, probes the providers, and creates the checks.

use super::candidate::{Candidate, NoUrl, candidates};
use super::differential::{Differential, Finding, Untestable};
use super::environment::{Environment, contents, shown};
use super::integration::{IntegrationContext, IntegrationResult};
use super::kind::Kind;
use super::nango::{ErrorScope, Integration, Nango, NangoError};
use super::switch::{Facts, Row};
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
        if candidate.customer_apps {
            candidate.notes.push(
                "its connections may use apps of your customers: only they can register the callback \
                 there"
                    .into(),
            );
        }
    }
    if environment.switched && !plan.dry_run {
        read_documents(plan, nango, &mut candidates).await?;
    }
    let outbound = for_providers(plan, nango, outbound).await;
    let results = probe(plan, outbound, &environment, &candidates).await;
    let checked = candidates.iter().zip(results).map(|(candidate, (result, duration))| {
        let context = IntegrationContext {
            key: candidate.key(),
            display_name: &candidate.integration.display_name,
            template: &candidate.integration.provider,
            callback: &plan.check.callback,
            switched: environment.switched,
            decisions: plan
                .decisions
                .iter()
                .filter(|it| it.integration == candidate.key())
                .collect(),
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
    let decided =
        plan.decisions.iter().filter_map(|it| Some((it.option?, it.integration.as_str())));
    match only.chain(decided).find(|(_, key)| !known(key)) {
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
                is_explained: true,
            })
        }
    }
}

/// Reads Nango's client metadata documents: they list the callback for integrations that follow the
/// setting.
async fn read_documents(
    plan: &Plan,
    nango: &Nango,
    candidates: &mut [Candidate],
) -> Result<(), NangoError> {
    let follows = |it: &&mut Candidate| matches!(it.kind, Kind::FollowsSetting { .. });
    // The URL of a document contains the id of the environment, and is the client id of some flows.
    let mut urls = candidates.iter().filter_map(|it| it.url.as_ref().ok());
    let mut environment = urls.find_map(|url| nango.environment_in(url));
    for candidate in candidates.iter_mut().filter(follows) {
        if environment.is_none() {
            environment = match nango.environment_of(candidate.key()).await {
                Err(error) if error.scope == ErrorScope::All => return Err(error),
                found => found.ok().flatten(),
            };
        }
        let Some(environment) = &environment else { continue };
        match nango.published_callbacks(environment, candidate.key()).await {
            Ok(callbacks) => {
                candidate.published = Some(callbacks.contains(&plan.check.callback));
            }
            Err(error) if error.scope == ErrorScope::All => return Err(error),
            Err(error) => candidate.notes.push(format!("its document: {}", error.why)),
        }
    }
    Ok(())
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
            let is_recreated = candidates.get(index).is_some_and(|it| it.kind == Kind::Recreate);
            let result = if is_recreated {
                IntegrationResult::Recreate(Some(finding))
            } else {
                IntegrationResult::Probed(finding)
            };
            *slot = Some((result, duration));
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
    Some(match (candidate.kind, &candidate.url) {
        (Kind::None, _) => IntegrationResult::NoCallback(match candidate.auth_mode() {
            mode @ ("OAUTH2" | "CUSTOM" | "APP" | "INSTALL_PLUGIN") => {
                format!("{mode} with an installation that the provider starts")
            }
            mode => mode.to_owned(),
        }),
        _ if candidate.shared_app => IntegrationResult::SharedApp,
        (Kind::NotSent, _) => IntegrationResult::NotSent,
        (Kind::SetupUrl, _) => IntegrationResult::SetupUrl(
            plan.check.callback.replace("oauth/callback", "app-auth/connect"),
        ),
        (Kind::AppSettings, _) => {
            IntegrationResult::AppSettings { is_plugin: candidate.auth_mode() == "INSTALL_PLUGIN" }
        }
        (Kind::FollowsSetting { registers }, _) => {
            IntegrationResult::FollowsSetting { registers, published: candidate.published }
        }
        (Kind::OAuth1, _) => untestable(Untestable::OAuth1),
        (Kind::Unknown, _) => {
            let why = match candidate.auth_mode() {
                "" => "Nango returns no template, or one without a mode".to_owned(),
                mode => format!("the mode `{mode}`, or how it registers clients, is unknown"),
            };
            let hint = "connect one account by hand, or update callback-edge";
            IntegrationResult::NoUrl(NoUrl::new(why, hint))
        }
        (Kind::Recreate, Err(_)) => IntegrationResult::Recreate(None),
        (Kind::Recreate, Ok(_)) if plan.dry_run => IntegrationResult::Recreate(None),
        (Kind::OAuth2, Err(no_url)) => IntegrationResult::NoUrl(no_url.clone()),
        (Kind::OAuth2, Ok(url)) if plan.dry_run => {
            let probe_request = candidate.probe_request(plan, environment.previous(plan), url);
            Differential::preview(&probe_request)
                .map_or_else(untestable, IntegrationResult::NotProbed)
        }
        (Kind::OAuth2 | Kind::Recreate, Ok(_)) => return None,
    })
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
    let with_callback = all.filter(|(candidate, _)| candidate.kind.has_callback());
    let overridden = candidates.iter().filter(|it| environment.overridden(it).is_some());
    Facts {
        callback: &plan.check.callback,
        previous: environment.previous(plan),
        switched: environment.switched,
        partial: !plan.only.is_empty(),
        integrations: with_callback
            .map(|(candidate, check)| Row {
                key: candidate.key(),
                template: &candidate.integration.provider,
                kind: candidate.kind,
                customer_apps: candidate.customer_apps,
                check,
            })
            .collect(),
        may_have_mcp: !plan.only.is_empty()
            || candidates.iter().any(|it| {
                let mode = it.auth_mode();
                mode.is_empty() || mode.starts_with("MCP_")
            }),
        reads_credentials: candidates.iter().all(|it| !it.kind.uses_an_app())
            || discovery.read_credentials,
        started: discovery.started,
        failed: discovery.failed,
        registered: discovery.registered,
        in_session: matches!(plan.start, Start::Session),
        overridden: overridden.map(Candidate::key).collect(),
    }
}
