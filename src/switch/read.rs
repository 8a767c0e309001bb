//! Reads the environments, and proves which key opens which.

use super::journal::{Entry, Journal};
use super::machine::{Goal, Phase};
use super::{Context, Stop};
use crate::preflight::{
    Account, FlowObservation, Flows, Nango, NangoEnvironment, NoEnvironments, Plan, is_same_url,
};
use crate::report::{Report, printable};
use std::time::Instant;
use tokio::time::sleep;

/// An environment that was selected, with the plan of its preflight.
pub struct Selected {
    /// Its name in Nango; `None` for that of the key.
    pub name: Option<String>,
    /// Its id in the journal, to go back: its name may be another one now.
    pub uuid: Option<String>,
    /// The preflight. Its previous callback is replaced by the one that is read.
    pub plan: Plan,
    /// Nango with the API key of the environment.
    pub nango: Nango,
}

/// An environment that was read.
pub struct Environment {
    /// Its name in Nango.
    pub name: String,
    /// Its id; empty for a server without the Environments API.
    pub uuid: String,
    /// Whether Nango treats it as production.
    pub is_production: bool,
    /// The callback to restore.
    pub before: String,
    /// The callback to save.
    pub after: String,
    /// The callback that was read last.
    pub value: Option<String>,
    /// The callback that it sends when its settings contain none.
    pub(super) default: String,
    /// What a run shall reach.
    pub goal: Goal,
    /// The phase in the journal.
    pub phase: Option<Phase>,
    /// Whether a started flow showed the callback that was read.
    pub starts_flows: bool,
    /// Whether something proves that the key opens this environment.
    pub is_proven: bool,
    /// What was seen, in this order.
    pub evidence: Vec<String>,
    /// The report of the preflight before the switch.
    pub preflight: Option<Report>,
    pub(super) plan: Plan,
    pub(super) nango: Nango,
    pub(super) flows: Flows,
}

/// A callback longer than this breaks every start of a flow: Nango stores it in 255 characters.
const MAX_CALLBACK: usize = 255;

/// Reads the selected environments, in the order in which they are switched to this callback:
/// production last. Without a callback they go back to that in the journal, production first.
pub async fn read(
    context: &Context,
    selected: Vec<Selected>,
    callback: Option<&str>,
    journal: Option<&Journal>,
) -> Result<Vec<Environment>, Stop> {
    if callback.is_some_and(|it| it.chars().count() > MAX_CALLBACK) {
        return Err(Stop::usage(
            format!("the callback has more than {MAX_CALLBACK} characters"),
            "use a shorter one: Nango cannot start flows with it",
        ));
    }
    let list = match &context.account {
        Some(account) => match account.environments().await {
            Ok(list) => Some((account, list)),
            Err(NoEnvironments::NoApi) => None,
            Err(NoEnvironments::Failed(error)) => return Err(error.into()),
        },
        None => None,
    };
    let mut environments = Vec::new();
    for one in selected {
        environments.push(match &list {
            Some((account, list)) => {
                read_one(context, account, list, one, callback, journal).await?
            }
            None => match callback {
                Some(callback) => read_without_api(context, one, callback).await?,
                None => {
                    return Err(Stop::could_not_run(
                        "this Nango has no Environments API",
                        "save the previous callback by hand, in the settings of the environment",
                    ));
                }
            },
        });
    }
    environments.sort_by_key(|it| it.is_production == callback.is_some());
    Ok(environments)
}

async fn read_one(
    context: &Context,
    account: &Account,
    list: &[NangoEnvironment],
    selected: Selected,
    callback: Option<&str>,
    journal: Option<&Journal>,
) -> Result<Environment, Stop> {
    let Selected { name, uuid, mut plan, nango } = selected;
    let named = match &name {
        Some(name) => Some(find(list, name, uuid.as_deref())?),
        None => None,
    };
    let mut known_value = None;
    if let Some(found) = named {
        known_value = Some(account.callback(&found.uuid).await?);
    }
    let mut flows = Flows::read(&plan, &nango).await?;
    let found = match named {
        Some(found) => found,
        None => identify(list, flows.environment())?,
    };
    let value = match known_value {
        Some(value) => value,
        None => account.callback(&found.uuid).await?,
    };
    // An environment without a callback of its own sends that of the server.
    let default = match &value {
        Some(_) => context.default_callback.clone(),
        None => match flows.observe(&[&context.default_callback]).await {
            FlowObservation::Sent { callback, .. } => callback,
            FlowObservation::None(_) => context.default_callback.clone(),
        },
    };
    // In one line: no name can look like a step of the plan.
    let name = printable(&found.name).replace('\n', " ");
    let entry = journal.and_then(|it| it.entry(&found.uuid));
    if let Some(other) = flows.environment().filter(|it| *it != found.uuid) {
        return Err(other_environment(list, &name, other));
    }
    let value = value.unwrap_or_else(|| default.clone());
    let settings = Settings { account, uuid: &found.uuid, default: &default, name: &name, entry };
    let (value, seen) = settings.agree(context, &mut flows, value).await?;
    let starts_flows = seen.is_ok();
    let mut evidence = vec![match seen {
        Ok(integration) => {
            format!("a flow of `{}` sends the callback in the settings", printable(&integration))
        }
        Err(why) => format!("no flow can be started: {}", printable(&why)),
    }];
    let is_proven = match flows.environment() {
        Some(uuid) if uuid == found.uuid => {
            evidence.push("its id is in the URLs of its integrations".into());
            true
        }
        Some(uuid) => return Err(other_environment(list, &name, uuid)),
        None if list.len() == 1 => {
            evidence.push("it is the only environment of the account".into());
            true
        }
        None => false,
    };
    let begin = match callback {
        Some(callback) => Begin::switch(&value, callback, entry, &plan.previous),
        None => Begin::back(entry).ok_or_else(|| {
            let hint = "select an environment that was switched with it";
            Stop::usage(format!("the journal has no environment `{name}`"), hint)
        })?,
    };
    let Begin { goal, before, after, phase } = begin;
    let previous = if goal == Goal::Back { &after } else { &before };
    plan.previous.clone_from(previous);
    Ok(Environment {
        name,
        uuid: found.uuid.clone(),
        is_production: found.is_production,
        before,
        after,
        value: Some(value),
        default,
        goal,
        phase,
        starts_flows,
        is_proven,
        evidence,
        preflight: None,
        plan,
        nango,
        flows,
    })
}

/// The settings of an environment, compared with what its flows send.
struct Settings<'r> {
    account: &'r Account,
    uuid: &'r str,
    default: &'r str,
    name: &'r str,
    entry: Option<&'r Entry>,
}

impl Settings<'_> {
    /// The callback in the settings, and the integration whose flow sends it, or why none starts. A
    /// cache of Nango may be slow after a run that was killed: that is waited for.
    async fn agree(
        &self,
        context: &Context,
        flows: &mut Flows,
        mut value: String,
    ) -> Result<(String, Result<String, String>), Stop> {
        let began = Instant::now();
        loop {
            let sent = match flows.observe(&[&value]).await {
                FlowObservation::None(why) => return Ok((value, Err(why))),
                FlowObservation::Sent { integration, callback } => {
                    if is_same_url(&callback, &value) {
                        return Ok((value, Ok(integration)));
                    }
                    callback
                }
            };
            let is_known = |url: &str| {
                self.entry
                    .is_some_and(|it| is_same_url(url, &it.before) || is_same_url(url, &it.after))
            };
            let may_agree = is_known(&value) && is_known(&sent);
            if !may_agree || began.elapsed() >= context.wait {
                return Err(self.disagreement(&value, &sent, may_agree));
            }
            sleep(context.pause()).await;
            let read = self.account.callback(self.uuid).await?;
            value = read.unwrap_or_else(|| self.default.to_owned());
        }
    }

    fn disagreement(&self, value: &str, sent: &str, may_agree: bool) -> Stop {
        let why = format!(
            "the settings of `{}` have the callback {}, but flows that start with its key send {}",
            self.name,
            printable(value),
            printable(sent)
        );
        if may_agree {
            // Both are of the journal, so nothing shows that the key is wrong.
            return Stop::could_not_run(why, "run it again later, or with a longer --wait");
        }
        Stop::usage(
            why,
            "check that the API key belongs to this environment, and that `authorization_params` set no \
             callback",
        )
    }
}

/// Where the run of an environment begins.
struct Begin {
    goal: Goal,
    before: String,
    after: String,
    phase: Option<Phase>,
}

impl Begin {
    /// `value` is the callback in Nango; `default` is the previous one when nothing shows it.
    fn switch(value: &str, callback: &str, entry: Option<&Entry>, default: &str) -> Self {
        let after = callback.to_owned();
        let is_switched = is_same_url(value, callback);
        let entry = entry.filter(|it| is_same_url(&it.after, callback));
        let (goal, before, phase) = match entry {
            Some(entry) if is_switched => {
                let goal = if entry.phase.is_interrupted() { Goal::Switch } else { Goal::Verify };
                (goal, &*entry.before, Some(entry.phase))
            }
            None if is_switched => (Goal::Verify, default, None),
            _ => (Goal::Switch, value, Some(Phase::Planned)),
        };
        Self { goal, before: before.to_owned(), after, phase }
    }

    fn back(entry: Option<&Entry>) -> Option<Self> {
        let entry = entry?;
        Some(Self {
            goal: Goal::Back,
            before: entry.before.clone(),
            after: entry.after.clone(),
            phase: Some(entry.phase),
        })
    }
}

/// The environment of a server whose settings only a person can change.
async fn read_without_api(
    context: &Context,
    selected: Selected,
    callback: &str,
) -> Result<Environment, Stop> {
    let Selected { name, mut plan, nango, .. } = selected;
    let mut flows = Flows::read(&plan, &nango).await?;
    if context.account.is_none() && !nango.has_no_environments_api().await? {
        return Err(Stop::usage(
            "there is no account API key: `NANGO_ACCOUNT_KEY` is not set",
            "create one in the account settings in Nango, and set it, or pass --account-key-file",
        ));
    }
    let mut evidence = Vec::new();
    let (value, starts_flows) = match flows.observe(&[callback, &plan.previous]).await {
        FlowObservation::Sent { integration, callback } => {
            let shown = printable(&callback);
            evidence.push(format!("a flow of `{}` sends {shown}", printable(&integration)));
            (Some(callback), true)
        }
        FlowObservation::None(why) => {
            evidence.push(format!("no flow can be started: {}", printable(&why)));
            (None, false)
        }
    };
    let is_switched = value.as_deref().is_some_and(|it| is_same_url(it, callback));
    if let Some(value) = value.as_ref().filter(|_| !is_switched) {
        plan.previous.clone_from(value);
    }
    Ok(Environment {
        name: printable(name.as_deref().unwrap_or("the environment of the API key")),
        uuid: String::new(),
        is_production: false,
        before: plan.previous.clone(),
        default: plan.previous.clone(),
        after: callback.to_owned(),
        value,
        goal: if is_switched { Goal::Verify } else { Goal::Switch },
        phase: None,
        starts_flows,
        is_proven: true,
        evidence,
        preflight: None,
        plan,
        nango,
        flows,
    })
}

fn find<'l>(
    list: &'l [NangoEnvironment],
    name: &str,
    uuid: Option<&str>,
) -> Result<&'l NangoEnvironment, Stop> {
    let is_found = |it: &&NangoEnvironment| uuid.map_or(it.name == name, |uuid| it.uuid == uuid);
    list.iter().find(is_found).ok_or_else(|| {
        Stop::usage(
            format!("Nango has no environment `{}`", printable(name)),
            format!("the account has {}", names(list)),
        )
    })
}

/// The environment of a key without a name.
fn identify<'l>(
    list: &'l [NangoEnvironment],
    uuid: Option<&str>,
) -> Result<&'l NangoEnvironment, Stop> {
    let found = match (uuid, list) {
        (Some(uuid), list) => list.iter().find(|it| it.uuid == uuid),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    found.ok_or_else(|| match uuid {
        Some(_) => other_environment(list, "the API key", "another"),
        None => Stop::usage(
            "nothing shows which environment the API key opens",
            format!("name it with --environment; the account has {}", names(list)),
        ),
    })
}

/// The error for a key that opens another environment than that of its name.
fn other_environment(list: &[NangoEnvironment], name: &str, uuid: &str) -> Stop {
    match list.iter().find(|it| it.uuid == uuid) {
        Some(other) => Stop::usage(
            format!("the API key of `{name}` opens the environment `{}`", printable(&other.name)),
            "check whether the keys of the two environments are swapped",
        ),
        None => Stop::usage(
            format!("the API key of `{name}` opens an environment that the account does not have"),
            "use an API key and an account API key of the same account",
        ),
    }
}

fn names(list: &[NangoEnvironment]) -> String {
    let names: Vec<_> = list.iter().map(|it| format!("`{}`", printable(&it.name))).collect();
    if names.is_empty() { "no environment".into() } else { names.join(", ") }
}
