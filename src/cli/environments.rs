//! The options of commands that read Nango environments and probe their providers, and the preflight plans
//! that they configure.

use super::connect::{ConnectOptions, duration};
use super::secret::secret;
use super::{eprint_line, hmac, progress};
use crate::check;
use crate::config::{self, Environment, Problem, Problems, Project, Settings};
use crate::explain;
use crate::outbound::{Outbound, Server};
use crate::preflight::differential::ProbePolicy;
use crate::preflight::{self, Decision, Mode, Nango, Plan, Start};
use crate::redirect::{BadTarget, Target};
use clap::builder::NonEmptyStringValueParser;
use jiff::Timestamp;
use jiff::tz::Offset;
use secrecy::{ExposeSecret as _, SecretString};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The environments, how to read them, and how to probe their providers.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct EnvironmentOptions {
    /// How to obtain authorization URLs: `connect` starts flows, `offline` builds them from provider
    /// templates and credentials, `auto` does both if the API key has the permissions
    #[arg(long, value_enum, default_value = "auto")]
    mode: ModeArg,

    /// File with the API key [default: the variable `NANGO_SECRET_KEY`]
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,

    /// Start flows with the public key of the environment instead of a connect session, signed if
    /// there is an HMAC key [default: the variable `NANGO_PUBLIC_KEY`, else a connect session]
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    public_key: Option<String>,

    /// Connection id for flows that start with a public key
    #[arg(long, value_name = "ID", default_value = "callback-edge-preflight", value_parser = NonEmptyStringValueParser::new())]
    connection_id: String,

    /// File with the HMAC key [default: the variable `NANGO_HMAC_KEY`]
    #[arg(long, value_name = "FILE")]
    hmac_key_file: Option<PathBuf>,

    /// File with the Nango environments of the project, their keys and acknowledgements
    /// [default: `./nango.toml` if it exists]
    #[arg(long, value_name = "FILE")]
    pub(super) project: Option<PathBuf>,

    /// Check this environment of the project file; repeatable, comma-separated
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub(super) environment: Vec<String>,

    /// Check every environment of the project file
    #[arg(long, conflicts_with = "environment")]
    pub(super) all_environments: bool,

    /// Probe only this integration; repeatable, comma-separated
    #[arg(long, value_name = "KEY", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub(super) only: Vec<String>,

    /// Accept this integration as confirmed manually; repeatable, keys comma-separated
    #[arg(long, value_name = "[ENV/]KEY[=REASON]", value_parser = NonEmptyStringValueParser::new())]
    ack: Vec<String>,

    /// Let a failed integration pass as a warning; repeatable, keys comma-separated
    #[arg(long, value_name = "[ENV/]KEY=REASON", value_parser = with_reason)]
    accept_risk: Vec<String>,

    /// Start flows of integrations that register a client at the provider with each start (generic
    /// MCP)
    #[arg(long)]
    register_clients: bool,

    /// Don't contact Nango's callback when checking the callback
    #[arg(long)]
    no_follow: bool,

    /// Pause between two requests to the same host
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pause: Duration,

    /// Maximum number of requests to providers; an app needs 5 to 13
    #[arg(long, value_name = "COUNT", default_value_t = 5000)]
    cap: usize,

    /// User-Agent of requests to providers; add a contact URL of your own
    #[arg(long, value_name = "TEXT", default_value = preflight::USER_AGENT, value_parser = user_agent)]
    user_agent: String,

    #[command(flatten)]
    pub(super) connect: ConnectOptions,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ModeArg {
    Auto,
    Connect,
    Offline,
}

/// The API key of an environment, named as in Nango's examples.
const KEY: &str = "NANGO_SECRET_KEY";

/// Not a secret, but configured together with the other two.
const PUBLIC_KEY: &str = "NANGO_PUBLIC_KEY";

/// An environment that was selected; without a name, that of the key.
#[derive(Clone, Copy)]
pub(super) struct Selected<'p> {
    pub(super) name: Option<&'p str>,
    pub(super) environment: Option<&'p Environment>,
    /// Whether it is the only one, so that variables and `--key-file` belong to it.
    pub(super) is_only: bool,
}

/// Reads the settings and the project file; both have defaults.
pub(super) fn load(
    options: &EnvironmentOptions,
    file: Option<&Path>,
) -> Result<(Settings, Project), Problems> {
    let settings = config::load(file, std::env::vars_os())?.settings;
    let project = config::load_project(options.project.as_deref())?.unwrap_or_default();
    Ok((settings, project))
}

/// The selected environments; one without a name when there is no project.
pub(super) fn selected<'p>(
    options: &EnvironmentOptions,
    project: &'p Project,
) -> Result<Vec<Selected<'p>>, Problem> {
    let all = &project.environments;
    let hint = || match all.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().as_slice() {
        [] => {
            "add `[environment.NAME]` to `nango.toml`, or pass another file with --project".into()
        }
        names => format!("it has {}", names.join(", ")),
    };
    let named = |name: &str| {
        let found = all.get_key_value(name).map(|(name, environment)| (&**name, environment));
        found.ok_or_else(|| {
            Problem::error(format!("the project file has no environment `{name}`")).hint(hint())
        })
    };
    let found = if options.all_environments {
        all.iter().map(|(name, environment)| (&**name, environment)).collect()
    } else {
        options.environment.iter().map(|name| named(name)).collect::<Result<Vec<_>, _>>()?
    };
    let is_only = found.len() == 1;
    match found.as_slice() {
        [] if options.all_environments => {
            Err(Problem::error("the project file has no environment").hint(hint()))
        }
        [] => Ok(vec![Selected { name: None, environment: None, is_only: true }]),
        [_, _, ..] if options.key_file.is_some() => {
            Err(Problem::error("--key-file serves one environment")
                .hint("select one environment, or omit the option"))
        }
        found => Ok(found
            .iter()
            .map(|(name, environment)| Selected {
                name: Some(name),
                environment: Some(environment),
                is_only,
            })
            .collect()),
    }
}

/// The decisions about each selected environment, from `[ENV/]KEY[,KEY…][=REASON]` and from the
/// project file.
pub(super) fn decisions(
    options: &EnvironmentOptions,
    project: &Project,
    selected: &[Selected<'_>],
    callback: &str,
) -> Result<Vec<Vec<Decision>>, Problem> {
    let mut all: Vec<Vec<Decision>> = vec![Vec::new(); selected.len()];
    let confirmed = options.ack.iter().map(|text| ("--ack", text));
    let accepted = options.accept_risk.iter().map(|text| ("--accept-risk", text));
    for (option, text) in confirmed.chain(accepted) {
        let (keys, reason) = match text.split_once('=') {
            Some((keys, reason)) => (keys, Some(reason.trim()).filter(|it| !it.is_empty())),
            None => (text.as_str(), None),
        };
        for text in keys.split(',').map(str::trim).filter(|key| !key.is_empty()) {
            // A key may contain a slash.
            let prefixed = text.split_once('/').and_then(|(name, key)| {
                let at = selected.iter().position(|it| it.name == Some(name))?;
                Some((at, key))
            });
            let (at, key) = match prefixed {
                Some(found) => found,
                None if selected.len() == 1 => (0, text),
                None => {
                    return Err(Problem::error(format!("{option}: no environment for `{text}`"))
                        .hint("write ENVIRONMENT/KEY, with a selected environment"));
                }
            };
            if let Some(decisions) = all.get_mut(at) {
                decisions.push(Decision {
                    integration: key.to_owned(),
                    accepts_risk: option == "--accept-risk",
                    reason: reason.map(str::to_owned),
                    option: Some(option),
                    ..Decision::default()
                });
            }
        }
    }
    let today = Offset::UTC.to_datetime(Timestamp::now()).date();
    for one in &project.acknowledged {
        if explain::find(&format!("state.{}", one.state)).is_none() {
            return Err(Problem::error(format!("there is no state `{}`", one.state))
                .at(&one.location)
                .hint(
                    "use the state that the report shows in its JSON, for example `undecidable`",
                ));
        }
        let environments = selected.iter().zip(&mut all);
        let own = environments.filter(|(it, _)| it.name == Some(one.environment.as_str()));
        for (_, decisions) in own.filter(|_| one.callback == callback) {
            if one.expires < today {
                let what = format!(
                    "the acknowledgement of `{}` expired on {}",
                    one.integration, one.expires
                );
                eprint_line(&Problem::warning(what).at(&one.location).coloured());
                continue;
            }
            decisions.push(Decision {
                integration: one.integration.clone(),
                accepts_risk: false,
                state: Some(one.state.clone()),
                reason: Some(one.reason.clone()),
                by: one.by.clone(),
                option: None,
            });
        }
    }
    Ok(all)
}

/// The base URL of Nango. Keys are not sent over plain http, except on this machine.
pub(super) fn nango_base(settings: &Settings, may_be_plain: bool) -> Result<Target, Problem> {
    let base = Target::parse(&format!("{}/", settings.nango_url)).map_err(bad_nango)?;
    let is_here =
        Server { tls: false, host: base.host().to_owned(), port: base.port() }.is_loopback();
    if base.scheme() == "http" && !may_be_plain && !is_here {
        return Err(Problem::error(
            "`nango.url` is plain http, which would send the key unencrypted",
        )
        .hint("use https, or run this on the machine of Nango"));
    }
    Ok(base)
}

/// Nango's own callback: the default of an environment without a custom one.
pub(super) fn default_callback(settings: &Settings, callback: &str) -> Result<Target, Problem> {
    config::target_at_nango(&settings.nango_url, callback).map_err(bad_nango)
}

fn bad_nango(error: BadTarget) -> Problem {
    Problem::error(format!("`nango.url` {error}"))
}

/// What a preflight of an environment needs.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    pub(super) nango: Nango,
    pub(super) outbound: Outbound,
}

/// Prepares the preflight of a callback.
pub(super) fn prepare(
    options: &EnvironmentOptions,
    settings: &Settings,
    selected: Selected<'_>,
    decisions: Vec<Decision>,
    [callback, previous]: [&str; 2],
    base: &Target,
) -> Result<Prepared, Problem> {
    let key = api_key(options, selected)?;
    let start = start(options)?;
    let target = default_callback(settings, callback)?;
    let mut integrations = settings.preflight.integrations.clone();
    let own = selected.environment.map(|it| it.integrations.clone()).unwrap_or_default();
    integrations.extend(own);
    let outbound = options.connect.outbound(Some(settings))?;
    let mut check = check::Plan::new(callback, target);
    check.follow = !options.no_follow;
    check.end_to_end = !options.no_follow;
    check.total = options.connect.total();
    let is_terminal = io::stderr().is_terminal();
    if is_terminal {
        check.progress = Some(progress::line);
    }
    let plan = Plan {
        check,
        previous: previous.to_owned(),
        mode: match options.mode {
            ModeArg::Auto => Mode::Auto,
            ModeArg::Connect => Mode::Connect,
            ModeArg::Offline => Mode::Offline,
        },
        start,
        integrations,
        only: options.only.clone(),
        decisions,
        register_clients: options.register_clients,
        dry_run: false,
        policy: ProbePolicy {
            pause: options.pause,
            cap: options.cap,
            user_agent: options.user_agent.clone(),
        },
        private_networks: settings.preflight.private_networks.0.clone(),
        progress: is_terminal.then_some(progress::bar),
    };
    Ok(Prepared { plan, nango: Nango::new(outbound.clone(), base, key), outbound })
}

fn api_key(options: &EnvironmentOptions, selected: Selected<'_>) -> Result<SecretString, Problem> {
    let own = selected.environment.and_then(|it| it.key_file.as_ref());
    let file = options.key_file.as_deref().or(own.map(|file| file.path.as_path()));
    let key = if file.is_some() || selected.is_only { secret(file, KEY)? } else { None };
    let key = key.ok_or_else(|| match selected.name {
        Some(name) if !selected.is_only => {
            Problem::error(format!("there is no API key for the environment `{name}`"))
                .hint(format!("set `key_file` in `[environment.{name}]` of the project file"))
        }
        None if options.project.is_some() || Path::new("nango.toml").exists() => Problem::error(
            format!("there is no API key: `{KEY}` is not set, and no environment is selected"),
        )
        .hint("select one of the project file with --environment, or all with --all-environments"),
        _ => Problem::error(format!("there is no API key: `{KEY}` is not set")).hint(
            "set it or pass --key-file; Nango shows the key in the settings of the environment",
        ),
    })?;
    if !key.expose_secret().is_ascii() {
        return Err(Problem::error("cannot use the API key")
            .because("it contains characters that are not ASCII")
            .hint("copy it again from the settings of the environment in Nango"));
    }
    Ok(key)
}

/// How to start flows: with a public key if there is one.
fn start(options: &EnvironmentOptions) -> Result<Start, Problem> {
    let hmac_key = secret(options.hmac_key_file.as_deref(), hmac::KEY)?;
    let public_key = match &options.public_key {
        Some(key) => Some(key.clone()),
        None => secret(None, PUBLIC_KEY)?.map(|key| key.expose_secret().to_owned()),
    };
    match public_key {
        Some(key) => {
            Ok(Start::PublicKey { key, connection: options.connection_id.clone(), hmac_key })
        }
        None if options.hmac_key_file.is_some() => {
            Err(Problem::error("--hmac-key-file needs --public-key")
                .hint("add --public-key, or remove the file: connect sessions need no signature"))
        }
        None => Ok(Start::Session),
    }
}

fn with_reason(text: &str) -> Result<String, &'static str> {
    match text.split_once('=') {
        Some((keys, reason)) if !keys.trim().is_empty() && !reason.trim().is_empty() => {
            Ok(text.to_owned())
        }
        _ => Err("needs a reason: KEY=REASON"),
    }
}

fn user_agent(text: &str) -> Result<String, &'static str> {
    let is_plain = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if is_plain && !text.trim().is_empty() {
        Ok(text.to_owned())
    } else {
        Err("is not a valid header value")
    }
}
