//! What Nango says, what the providers say, and the checks that come of it.

use super::authorization::{Flow, disagreement, offline, redirect_uri};
use super::differential::{Differential, Finding, Subject};
use super::integration::{self, Found};
use super::nango::{App, Integration, Nango, Pass, Reach, Refused, Template};
use super::switch::Facts;
use super::{Mode, Plan, Start};
use crate::config::IntegrationSettings;
use crate::outbound::Outbound;
use crate::report::{Check, SwitchPlan, printable};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

pub(super) struct Survey {
    pub(super) checks: Vec<Check>,
    pub(super) switch: SwitchPlan,
}

/// One integration on its way.
struct Candidate {
    integration: Integration,
    settings: IntegrationSettings,
    flow: Flow,
    /// The mode, as its template calls it.
    auth_mode: String,
    url: Result<String, (String, String)>,
    /// The redirect URI in the URL.
    current: Option<String>,
    /// Whether Nango itself put it there: a URL from a template has what was taken for granted.
    seen: bool,
    notes: Vec<String>,
}

/// What was learnt about all of them.
#[derive(Default)]
struct Ways {
    started: usize,
    compared: usize,
    disagreeing: Vec<String>,
    /// Why no flow was started though it was wanted.
    no_flows: Option<String>,
}

pub(super) async fn run(
    plan: &Plan,
    nango: &Nango,
    outbound: &Outbound,
) -> Result<Survey, Refused> {
    let integrations = nango.integrations().await?;
    named(plan, &integrations)?;
    let in_all = integrations.len();
    // Settings may serve several environments; who misspells a key misses what it would set.
    let is_there = |key: &str| integrations.iter().any(|it| it.unique_key == key);
    let absent = plan.integrations.keys().map(AsRef::as_ref).filter(|key| !is_there(key));
    let absent = absent.collect::<Vec<&str>>().join(", ");
    let mut candidates = Vec::new();
    let mut templates: HashMap<String, Result<Template, Refused>> = HashMap::new();
    for integration in integrations {
        if !plan.only.is_empty() && !plan.only.contains(&integration.unique_key) {
            continue;
        }
        if !integration.provider.is_empty() && !templates.contains_key(&integration.provider) {
            let template = match nango.template(&integration.provider).await {
                Err(refused) if refused.is_final() => return Err(refused),
                template => template,
            };
            templates.insert(integration.provider.clone(), template);
        }
        let template = templates.get(&integration.provider);
        candidates.push(candidate(plan, nango, integration, template).await?);
    }
    let ways = find_urls(plan, nango, &templates, &mut candidates).await?;
    let environment = Environment::of(plan, &candidates);
    for candidate in &mut candidates {
        if let Some(current) = environment.overridden(candidate) {
            let note = format!("Nango sends {} here, unlike elsewhere", shown(current));
            candidate.notes.push(note);
        }
    }
    let found = ask(plan, outbound, &environment, &candidates).await;

    let mut checks = vec![
        Check::new("nango.key", "Nango accepts the API key").subject(nango.base()),
        count(plan, nango, in_all, &candidates, &absent),
        environment.check(plan, &ways),
        ways.check(plan),
    ];
    let common = checks.len();
    for (candidate, (found, took)) in candidates.iter().zip(found) {
        let subject = integration::Subject {
            key: &candidate.integration.unique_key,
            template: &candidate.integration.provider,
            callback: &plan.check.callback,
            switched: environment.switched,
            acknowledged: plan.acknowledged.contains(&candidate.integration.unique_key),
            overridden: environment.overridden(candidate).is_some(),
            notes: &candidate.notes,
        };
        checks.push(subject.judge(found).took(took));
    }
    let with_callback = candidates
        .iter()
        .zip(checks.iter().skip(common))
        .filter(|(candidate, _)| candidate.flow.has_callback());
    let facts = Facts {
        callback: &plan.check.callback,
        previous: environment.previous(plan),
        switched: environment.switched,
        partial: !plan.only.is_empty(),
        integrations: with_callback
            .map(|(candidate, check)| {
                let Integration { unique_key, provider } = &candidate.integration;
                (unique_key.as_str(), provider.as_str(), check)
            })
            .collect(),
        started: ways.started,
        in_session: matches!(plan.start, Start::Session),
        overridden: candidates
            .iter()
            .filter(|candidate| environment.overridden(candidate).is_some())
            .map(|candidate| candidate.integration.unique_key.as_str())
            .collect(),
    };
    Ok(Survey { switch: facts.plan(), checks })
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

async fn candidate(
    plan: &Plan,
    nango: &Nango,
    integration: Integration,
    template: Option<&Result<Template, Refused>>,
) -> Result<Candidate, Refused> {
    let own = plan.integrations.get(integration.unique_key.as_str());
    let mut settings = own.cloned().unwrap_or_default();
    let mut notes = Vec::new();
    let (flow, auth_mode) = match template {
        Some(Ok(template)) => (Flow::of(template), template.auth_mode().to_owned()),
        Some(Err(refused)) => {
            notes.push(format!("its template could not be read: {}", refused.why));
            (Flow::OAuth2, String::new())
        }
        None => (Flow::Unknown, String::new()),
    };
    if let Some(connection) = &settings.like_connection
        && flow == Flow::OAuth2
    {
        match nango.connection_config(&integration.unique_key, connection).await {
            // What is written in the settings themselves holds.
            Ok(copied) => {
                for (name, value) in copied {
                    settings.params.entry(name).or_insert(value);
                }
            }
            Err(refused) if refused.is_final() => return Err(refused),
            Err(refused) => {
                notes.push(format!("`like_connection` was not copied: {}", refused.why));
            }
        }
    }
    let url = Err((String::new(), String::new()));
    Ok(Candidate { integration, settings, flow, auth_mode, url, current: None, seen: false, notes })
}

/// Finds the authorization URL of each.
async fn find_urls(
    plan: &Plan,
    nango: &Nango,
    templates: &HashMap<String, Result<Template, Refused>>,
    candidates: &mut [Candidate],
) -> Result<Ways, Refused> {
    let mut ways = Ways::default();
    let pass = if plan.mode == Mode::Offline || plan.dry_run {
        None
    } else {
        match pass(plan, nango, candidates).await {
            Ok(pass) => pass,
            Err(refused) if plan.mode == Mode::Connect => return Err(refused),
            Err(refused) => {
                ways.no_flows = Some(refused.why);
                None
            }
        }
    };
    let mut reads_credentials = plan.mode != Mode::Connect;
    let flows = candidates.iter_mut().filter(|candidate| candidate.flow == Flow::OAuth2);
    let flows: Vec<_> = flows.collect();
    let of = flows.len();
    for (number, candidate) in flows.into_iter().enumerate() {
        let key = candidate.integration.unique_key.clone();
        if let Some(progress) = plan.progress {
            progress(number, of, &printable(&format!("Nango: {key}")));
        }
        let connect = match &pass {
            Some(pass) => Some(nango.begin(&key, &candidate.settings, pass).await),
            None => None,
        };
        candidate.seen = matches!(connect, Some(Ok(_)));
        ways.started += usize::from(candidate.seen);
        let template = match templates.get(&candidate.integration.provider) {
            Some(Ok(template)) => Some(template),
            _ => None,
        };
        let mut app = None;
        if reads_credentials {
            app = match nango.app(&key).await {
                Ok(app) => app,
                Err(refused) if plan.mode == Mode::Offline && refused.is_final() => {
                    return Err(refused);
                }
                Err(refused) => {
                    // A key that may not read one may read none.
                    reads_credentials = refused.reach != Reach::Permission;
                    None
                }
            };
        }
        if plan.dry_run && app.is_none() {
            app = Some(App { client_id: "unknown".into(), scopes: None });
        }
        let callback = match &connect {
            Some(Ok(url)) => redirect_uri(url, &[&plan.check.callback, &plan.previous]),
            _ => None,
        };
        let callback = callback.as_deref().unwrap_or(&plan.previous);
        let built = match (template, &app) {
            (Some(template), Some(app)) => {
                Some(offline(template, app, &candidate.settings, callback))
            }
            _ => None,
        };
        candidate.url = choose(plan, nango, candidate, connect, built, &mut ways).await;
        candidate.current = candidate.url.as_ref().ok().and_then(|url| {
            redirect_uri(url, &[&plan.check.callback, &plan.previous]).map(Cow::into_owned)
        });
    }
    Ok(ways)
}

/// What lets flows begin; `None` when there is none to begin.
async fn pass(
    plan: &Plan,
    nango: &Nango,
    candidates: &[Candidate],
) -> Result<Option<Pass>, Refused> {
    let mut flows = candidates.iter().filter(|it| it.flow == Flow::OAuth2).peekable();
    if flows.peek().is_none() {
        return Ok(None);
    }
    match &plan.start {
        Start::Session => {
            let flows = flows.map(|it| (it.integration.unique_key.as_str(), &it.settings));
            nango.session(flows).await.map(|token| Some(Pass::Session(token)))
        }
        Start::PublicKey { key, connection, hmac_key } => Ok(Some(Pass::PublicKey {
            key: key.clone(),
            connection: connection.clone(),
            hmac_key: hmac_key.clone(),
        })),
    }
}

/// The flow's URL is what users get; the template's is second to it, and compared.
async fn choose(
    plan: &Plan,
    nango: &Nango,
    candidate: &mut Candidate,
    connect: Option<Result<String, Refused>>,
    built: Option<Result<String, String>>,
    ways: &mut Ways,
) -> Result<String, (String, String)> {
    let key = &candidate.integration.unique_key;
    match (connect, built) {
        (Some(Ok(url)), built) => {
            if let Some(Ok(built)) = built {
                ways.compared += 1;
                if let Some(difference) = disagreement(&url, &built) {
                    ways.disagreeing.push(key.clone());
                    let note = format!("the flow's URL and the template's disagree: {difference}");
                    candidate.notes.push(note);
                }
            }
            Ok(url)
        }
        (connect, Some(Ok(url))) => {
            if let Some(Err(refused)) = connect {
                candidate.notes.push(format!("asked by its template: {}", refused.why));
            }
            Ok(url)
        }
        (Some(Err(refused)), _) => Err((refused.why, refused.hint)),
        (None, Some(Err(missing))) => {
            let mut hint = format!(
                "set `params` or `like_connection` below `[preflight.integration.{}]`",
                toml_key(key)
            );
            // A connection that exists has what is missing.
            if let Ok(count @ 1..) = nango.connections(key).await {
                hint = format!("{hint}; it has {count} connections to copy from");
            }
            Err((missing, hint))
        }
        (None, None) => Err((
            match &ways.no_flows {
                Some(why) => format!("no flow could be started: {why}"),
                None => "the API key may not read its credentials".into(),
            },
            match plan.mode {
                Mode::Offline => {
                    "give the key `environment:integrations:read_credentials`, or use \
                                  --mode connect"
                        .into()
                }
                _ => "give the key `environment:connect_sessions:write`, or \
                      `environment:integrations:read_credentials`"
                    .into(),
            },
        )),
    }
}

/// A key as TOML writes it.
fn toml_key(key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if key.bytes().all(is_bare) && !key.is_empty() { key.into() } else { format!("{key:?}") }
}

/// The environment's callback, as flows show it.
struct Environment {
    /// `None` when no flow showed it.
    current: Option<String>,
    switched: bool,
}

impl Environment {
    fn of(plan: &Plan, candidates: &[Candidate]) -> Self {
        let mut votes: Vec<(&str, usize)> = Vec::new();
        let seen = candidates.iter().filter(|candidate| candidate.seen);
        for callback in seen.filter_map(|candidate| candidate.current.as_deref()) {
            match votes.iter_mut().find(|(known, _)| *known == callback) {
                Some(vote) => vote.1 += 1,
                None => votes.push((callback, 1)),
            }
        }
        let current = votes.iter().max_by_key(|(_, count)| *count).map(|(it, _)| (*it).to_owned());
        let switched = current.as_deref() == Some(plan.check.callback.as_str());
        Self { current, switched }
    }

    /// The callback that a flow had in place of the environment's, if it had another.
    fn overridden<'c>(&self, candidate: &'c Candidate) -> Option<&'c str> {
        let current = candidate.current.as_deref().filter(|_| candidate.seen)?;
        (Some(current) != self.current.as_deref()).then_some(current)
    }

    /// The callback to go back to.
    fn previous<'a>(&'a self, plan: &'a Plan) -> &'a str {
        match &self.current {
            Some(current) if !self.switched => current,
            _ => &plan.previous,
        }
    }

    fn check(&self, plan: &Plan, ways: &Ways) -> Check {
        let check = Check::new("nango.current", "which callback Nango sends today");
        if let Some(current) = &self.current {
            let check = check.subject(shown(current));
            return if self.switched {
                check.pass("Nango sends this callback already")
            } else {
                check.pass(format!("Nango sends {}", shown(current)))
            };
        }
        let why = match &ways.no_flows {
            Some(why) => format!("no flow was started: {why}"),
            None => "no flow was started".into(),
        };
        check.skip(format!("{why}; {} is taken for it", shown(&plan.previous)))
    }
}

impl Ways {
    fn check(&self, plan: &Plan) -> Check {
        let check = Check::new("nango.agreement", "flows and templates lead to the same apps");
        if !self.disagreeing.is_empty() {
            return check
                .warn("flows and templates do not agree")
                .detail(self.disagreeing.join(", "))
                .hint("see whether client id and template were changed in Nango a moment ago");
        }
        match (self.compared, plan.mode) {
            (0, Mode::Auto) => check.skip("the key may not read credentials, or no flow began"),
            (0, _) => check.skip("asked in one way only"),
            (count, _) => check.pass(format!("{count} flows and templates agree")),
        }
    }
}

/// A callback without the values of its query.
fn shown(callback: &str) -> String {
    crate::redirect::Target::parse(callback)
        .map_or_else(|_| "an odd URL".into(), |target| target.shown())
}

/// Which environment this is: Nango names none, so that people tell it by what is in it.
fn count(
    plan: &Plan,
    nango: &Nango,
    in_all: usize,
    candidates: &[Candidate],
    absent: &str,
) -> Check {
    let with = candidates.iter().filter(|candidate| candidate.flow.has_callback());
    let keys: Vec<_> = with.map(|candidate| candidate.integration.unique_key.as_str()).collect();
    let check = Check::new("nango.environment", "the key's environment").subject(nango.base());
    if in_all == 0 {
        return check
            .unknown("the environment has no integrations")
            .hint("see whether the key is of the environment that you mean");
    }
    let left_out = in_all - candidates.len();
    let left_out =
        if plan.only.is_empty() { String::new() } else { format!(", {left_out} left out") };
    let most = keys.iter().take(MOST_NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = keys.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let summary =
        format!("{in_all} integrations, {} of them with a callback{left_out}", keys.len());
    let check = check.detail(format!("{most}{more}"));
    if absent.is_empty() {
        check.pass(summary)
    } else {
        check
            .warn(summary)
            .hint(format!("the settings name {absent}, which this environment does not have"))
    }
}

/// More keys than this are counted rather than listed.
const MOST_NAMED: usize = 12;

/// Asks all providers, side by side as far as they are different hosts.
async fn ask(
    plan: &Plan,
    outbound: &Outbound,
    environment: &Environment,
    candidates: &[Candidate],
) -> Vec<(Found, std::time::Duration)> {
    let differential = Arc::new(Differential::new(outbound.clone(), &plan.manners));
    let mut tasks = JoinSet::new();
    let mut found: Vec<Option<(Found, std::time::Duration)>> = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let known = before(plan, candidate);
        found.push(known.map(|known| (known, std::time::Duration::ZERO)));
        if let (Some(None), Ok(url)) = (found.last(), &candidate.url) {
            let question = Question::of(plan, environment, candidate, url);
            let differential = Arc::clone(&differential);
            tasks.spawn(async move {
                let began = Instant::now();
                let finding = question.ask(&differential).await;
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
            progress(done, of, &printable(&candidate.integration.unique_key));
        }
        if let Some(place) = found.get_mut(index) {
            *place = Some((Found::Asked(finding), took));
        }
    }
    let lost = || {
        let why = "the question was lost on the way".to_owned();
        (Found::NoUrl(why, "run it again".into()), std::time::Duration::ZERO)
    };
    found.into_iter().map(|found| found.unwrap_or_else(lost)).collect()
}

/// What is known without asking a provider.
fn before(plan: &Plan, candidate: &Candidate) -> Option<Found> {
    use super::differential::Untestable;
    match (candidate.flow, &candidate.url) {
        (Flow::None, _) => Some(Found::NoCallback(candidate.auth_mode.clone())),
        (Flow::App, _) => {
            Some(Found::SetupUrl(plan.check.callback.replace("oauth/callback", "app-auth/connect")))
        }
        (Flow::OAuth1, _) => {
            let why = Untestable::OAuth1;
            Some(Found::Asked(Finding { state: Err(why), evidence: why.words().into() }))
        }
        (Flow::Unknown, _) => {
            let why = match candidate.auth_mode.as_str() {
                "" => "Nango names no template, or one without a mode".to_owned(),
                mode => format!("its mode `{mode}` is not known, and may have a callback"),
            };
            let hint = "connect one account by hand, or use a newer version of this program";
            Some(Found::NoUrl(why, hint.into()))
        }
        (Flow::OAuth2, Err((why, hint))) => Some(Found::NoUrl(why.clone(), hint.clone())),
        (Flow::OAuth2, Ok(url)) if plan.dry_run => {
            let current = candidate.current.as_deref().unwrap_or(&plan.previous);
            let subject = Subject {
                template: &candidate.integration.provider,
                url,
                current,
                old: current,
                new: &plan.check.callback,
                prompt_none: candidate.settings.prompt_none,
            };
            Some(match Differential::preview(subject) {
                Ok(place) => Found::NotAsked(place),
                Err(why) => Found::Asked(Finding { state: Err(why), evidence: why.words().into() }),
            })
        }
        (Flow::OAuth2, Ok(_)) => None,
    }
}

/// A question that can be sent off by itself.
struct Question {
    template: String,
    url: String,
    current: String,
    old: String,
    new: String,
    prompt_none: Option<bool>,
}

impl Question {
    fn of(plan: &Plan, environment: &Environment, candidate: &Candidate, url: &str) -> Self {
        let previous = environment.previous(plan);
        let current = candidate.current.as_deref().unwrap_or(previous);
        let new = plan.check.callback.as_str();
        Self {
            template: candidate.integration.provider.clone(),
            url: url.to_owned(),
            current: current.to_owned(),
            // After the switch the new one is in use; what was in use before is known to be good.
            old: if current == new { previous } else { current }.to_owned(),
            new: new.to_owned(),
            prompt_none: candidate.settings.prompt_none,
        }
    }

    async fn ask(&self, differential: &Differential) -> Finding {
        let subject = Subject {
            template: &self.template,
            url: &self.url,
            current: &self.current,
            old: &self.old,
            new: &self.new,
            prompt_none: self.prompt_none,
        };
        differential.test(subject).await
    }
}
