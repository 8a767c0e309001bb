//! `callback-edge preflight --callback URL`: is it safe to save this callback in Nango's settings?

use super::connect::{ConnectOptions, duration};
use super::format::{Format, JunitFile, Verbosity};
use super::hmac;
use super::secret::secret;
use super::watch::{WatchOptions, until_stopped};
use super::{Exit, block_on, cannot_run, eprint_line, exit_after_print, progress, usage};
use crate::check;
use crate::config::{self, Environment, Problem, Project, Settings};
use crate::explain;
use crate::observe::{PreflightMetrics, PreflightRun};
use crate::outbound::{Outbound, Server};
use crate::preflight::differential::ProbePolicy;
use crate::preflight::{self, Decision, Mode, Nango, Plan, Start};
use crate::redirect::Target;
use crate::report::{Report, Status, Verdict};
use clap::builder::NonEmptyStringValueParser;
use jiff::Timestamp;
use jiff::tz::Offset;
use secrecy::{ExposeSecret as _, SecretString};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// Check whether a callback is safe to save in Nango's settings
///
/// Checks the callback as `check` does, lists the integrations of a Nango environment, and probes each
/// provider to determine whether the callback is registered there. It does not log in and changes
/// nothing there. In Nango it leaves started flows, which expire; `--mode offline` leaves nothing.
/// What it cannot determine is reported as unconfirmed.
#[expect(clippy::struct_excessive_bools, reason = "each is a separate flag")]
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The API key of the Nango environment comes from the variable NANGO_SECRET_KEY or from a file.
Exit codes: 0 safe, 1 do not switch, 2 unconfirmed, 3 could not run, 64 usage error

Example:
  callback-edge preflight --callback https://auth.example.com/oauth/callback")]
pub(super) struct Args {
    /// Callback to save in Nango's settings, or saved there already
    #[arg(long, value_name = "URL", value_parser = Target::parse)]
    callback: Target,

    /// Callback that Nango uses before the switch [default: Nango's own callback, the same path at
    /// `nango.url`]
    #[arg(long, value_name = "URL", value_parser = Target::parse)]
    previous: Option<Target>,

    /// How to obtain authorization URLs: `connect` starts flows, `offline` builds them from provider
    /// templates and credentials, `auto` does both if the API key has the permissions
    #[arg(long, value_enum, default_value = "auto")]
    mode: ModeArg,

    /// File with the API key [default: the variable `NANGO_SECRET_KEY`]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

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
    project: Option<PathBuf>,

    /// Check this environment of the project file; repeatable, comma-separated
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    environment: Vec<String>,

    /// Check every environment of the project file
    #[arg(long, conflicts_with = "environment")]
    all_environments: bool,

    /// Probe only this integration; repeatable, comma-separated
    #[arg(long, value_name = "KEY", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    only: Vec<String>,

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

    /// Print the planned requests; don't start flows, don't contact providers
    #[arg(long)]
    dry_run: bool,

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

    /// Print the report as JSON
    #[arg(long, conflicts_with_all = ["junit", "markdown"])]
    json: bool,

    /// Print the report as JUnit XML, for CI systems
    #[arg(long, conflicts_with = "markdown")]
    junit: bool,

    /// Print the report as Markdown, for a ticket
    #[arg(long, conflicts_with_all = ["verbose", "quiet"])]
    markdown: bool,

    #[command(flatten)]
    junit_file: JunitFile,

    #[command(flatten)]
    verbosity: Verbosity,

    #[command(flatten)]
    watch: WatchOptions,

    #[command(flatten)]
    connect: ConnectOptions,
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

/// Exit: 0 safe, 1 do not switch, 2 unconfirmed, 3 could not run, 64 usage error.
pub(super) fn run(args: &Args, file: Option<&Path>) -> Exit {
    let settings = match config::load(file, std::env::vars_os()) {
        Ok(loaded) => loaded.settings,
        Err(problems) => {
            eprint_line(&problems.coloured());
            return Exit::Usage;
        }
    };
    let project = match config::load_project(args.project.as_deref()) {
        Ok(project) => project.unwrap_or_default(),
        Err(problems) => {
            eprint_line(&problems.coloured());
            return Exit::Usage;
        }
    };
    let runs = match prepare_all(args, &settings, &project) {
        Ok(runs) => runs,
        Err(problem) => return usage(&problem),
    };
    let format = format(args);
    let once = async || {
        let mut reports = Vec::new();
        for Run { environment, plan, nango, outbound } in &runs {
            let report = preflight::run(plan, nango, outbound).await;
            if plan.progress.is_some() {
                progress::clear();
            }
            reports.push(Report { environment: environment.clone(), ..report });
        }
        reports
    };
    let print = |reports: &[Report]| {
        exit_after_print(args.junit_file.print(format, reports), Verdict::of(reports).into())
    };
    let exit = block_on(async {
        let Some(every) = args.watch.every else { return print(&once().await) };
        let (metrics, exported) = PreflightMetrics::new();
        if let Err(problem) = args.watch.serve(exported).await {
            return usage(&problem);
        }
        until_stopped(every, once, |reports: Vec<Report>| {
            for report in &reports {
                record(&metrics, report);
            }
            print(&reports)
        })
        .await
    });
    exit.unwrap_or_else(|error| cannot_run(&error))
}

/// The preflight of one environment.
struct Run {
    environment: Option<String>,
    plan: Plan,
    nango: Nango,
    outbound: Outbound,
}

/// An environment that was selected; without a name, that of the key.
#[derive(Clone, Copy)]
struct Selected<'p> {
    name: Option<&'p str>,
    environment: Option<&'p Environment>,
    /// Whether it is the only one, so that variables and `--key-file` belong to it.
    is_only: bool,
}

/// The selected environments; one without a name when there is no project.
fn selected<'p>(args: &Args, project: &'p Project) -> Result<Vec<Selected<'p>>, Problem> {
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
    let found = if args.all_environments {
        all.iter().map(|(name, environment)| (&**name, environment)).collect()
    } else {
        args.environment.iter().map(|name| named(name)).collect::<Result<Vec<_>, _>>()?
    };
    let is_only = found.len() == 1;
    match found.as_slice() {
        [] if args.all_environments => {
            Err(Problem::error("the project file has no environment").hint(hint()))
        }
        [] => Ok(vec![Selected { name: None, environment: None, is_only: true }]),
        [_, _, ..] if args.watch.every.is_some() || args.key_file.is_some() => {
            Err(Problem::error("--every and --key-file serve one environment")
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

fn prepare_all(args: &Args, settings: &Settings, project: &Project) -> Result<Vec<Run>, Problem> {
    let selected = selected(args, project)?;
    let decisions = decisions(args, project, &selected)?;
    let prepared = selected.iter().zip(decisions).map(|(selected, decisions)| {
        let (plan, nango, outbound) = prepare(args, settings, *selected, decisions)?;
        Ok(Run { environment: selected.name.map(str::to_owned), plan, nango, outbound })
    });
    prepared.collect()
}

fn record(metrics: &PreflightMetrics, report: &Report) {
    let verdict = report.verdict();
    let run = PreflightRun {
        verdict: verdict.name(),
        safe: verdict == Verdict::Pass,
        switched: report.switch.as_ref().is_some_and(|switch| switch.switched),
        failed: report.count(Status::Fail),
    };
    let integrations = report
        .checks
        .iter()
        .filter_map(|check| Some((check.id.strip_prefix("integration.")?, check.state?)));
    metrics.record(run, integrations);
}

fn prepare(
    args: &Args,
    settings: &Settings,
    selected: Selected<'_>,
    decisions: Vec<Decision>,
) -> Result<(Plan, Nango, Outbound), Problem> {
    let key = api_key(args, selected)?;
    let start = start(args)?;
    let bad_nango = |error| Problem::error(format!("`nango.url` {error}"));
    // Nango's own callback: the default of an environment without a custom one.
    let target =
        config::target_at_nango(&settings.nango_url, args.callback.as_str()).map_err(bad_nango)?;
    let base = Target::parse(&format!("{}/", settings.nango_url)).map_err(bad_nango)?;
    let is_here =
        Server { tls: false, host: base.host().to_owned(), port: base.port() }.is_loopback();
    if base.scheme() == "http" && selected.environment.is_some() && !is_here {
        return Err(Problem::error(
            "`nango.url` is plain http, which would send the key unencrypted",
        )
        .hint("use https, or run the preflight on the machine of Nango"));
    }
    let mut integrations = settings.preflight.integrations.clone();
    let own = selected.environment.map(|it| it.integrations.clone()).unwrap_or_default();
    integrations.extend(own);
    let previous = args.previous.as_ref().unwrap_or(&target).as_str().to_owned();
    let callback = args.callback.as_str();
    // Like browsers: the default port and the case of the host do not matter.
    let normal = |url: &str| Url::parse(url).ok();
    if normal(callback) == normal(&previous) {
        return Err(Problem::error(format!(
            "`{}` is already the current callback: there is nothing to switch",
            args.callback.redacted()
        ))
        .hint(
            "pass the new callback with --callback, and the current one with --previous if it is \
             not Nango's default",
        ));
    }
    let outbound = args.connect.outbound(Some(settings))?;
    let mut check = check::Plan::new(callback, target);
    check.follow = !args.no_follow;
    check.end_to_end = !args.no_follow;
    check.total = args.connect.total();
    let is_terminal = io::stderr().is_terminal();
    if is_terminal {
        check.progress = Some(progress::line);
    }
    let plan = Plan {
        check,
        previous,
        mode: match args.mode {
            ModeArg::Auto => Mode::Auto,
            ModeArg::Connect => Mode::Connect,
            ModeArg::Offline => Mode::Offline,
        },
        start,
        integrations,
        only: args.only.clone(),
        decisions,
        register_clients: args.register_clients,
        dry_run: args.dry_run,
        policy: ProbePolicy {
            pause: args.pause,
            cap: args.cap,
            user_agent: args.user_agent.clone(),
        },
        private_networks: settings.preflight.private_networks.0.clone(),
        progress: is_terminal.then_some(progress::bar),
    };
    Ok((plan, Nango::new(outbound.clone(), &base, key), outbound))
}

/// The decisions about each selected environment, from `[ENV/]KEY[,KEY…][=REASON]` and from the
/// project file.
fn decisions(
    args: &Args,
    project: &Project,
    selected: &[Selected<'_>],
) -> Result<Vec<Vec<Decision>>, Problem> {
    let mut all: Vec<Vec<Decision>> = vec![Vec::new(); selected.len()];
    let confirmed = args.ack.iter().map(|text| ("--ack", text));
    let accepted = args.accept_risk.iter().map(|text| ("--accept-risk", text));
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
        for (_, decisions) in own.filter(|_| one.callback == args.callback.as_str()) {
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

fn api_key(args: &Args, selected: Selected<'_>) -> Result<SecretString, Problem> {
    let own = selected.environment.and_then(|it| it.key_file.as_ref());
    let file = args.key_file.as_deref().or(own.map(|file| file.path.as_path()));
    let key = if file.is_some() || selected.is_only { secret(file, KEY)? } else { None };
    let key = key.ok_or_else(|| match selected.name {
        Some(name) if !selected.is_only => {
            Problem::error(format!("there is no API key for the environment `{name}`"))
                .hint(format!("set `key_file` in `[environment.{name}]` of the project file"))
        }
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
fn start(args: &Args) -> Result<Start, Problem> {
    let hmac_key = secret(args.hmac_key_file.as_deref(), hmac::KEY)?;
    let public_key = match &args.public_key {
        Some(key) => Some(key.clone()),
        None => secret(None, PUBLIC_KEY)?.map(|key| key.expose_secret().to_owned()),
    };
    match public_key {
        Some(key) => Ok(Start::PublicKey { key, connection: args.connection_id.clone(), hmac_key }),
        None if args.hmac_key_file.is_some() => {
            Err(Problem::error("--hmac-key-file needs --public-key")
                .hint("add --public-key, or remove the file: connect sessions need no signature"))
        }
        None => Ok(Start::Session),
    }
}

fn format(args: &Args) -> Format {
    match (args.json, args.junit, args.markdown) {
        (true, _, _) => Format::Json,
        (_, true, _) => Format::Junit,
        (_, _, true) => Format::Markdown,
        _ => Format::Text(args.verbosity.detail()),
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
