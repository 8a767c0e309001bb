//! `callback-edge check [URL]…` checks whether a callback redirects as Nango needs, without credentials.

use super::connect::{ConnectOptions, duration};
use super::format::Format;
use super::{
    Exit, block_on, cannot_run, ephemeral_port_error, eprint_line, exit_after_print, progress,
    usage,
};
use crate::check::{self, IDS, Plan, Selection};
use crate::config::{self, Problem, Problems, Settings};
use crate::outbound::Outbound;
use crate::redirect::{BadTarget, Target};
use crate::report::{Report, Verdict};
use crate::server;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};
use url::Url;

/// Check whether a callback redirects as Nango needs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With a URL argument, ./config.toml is ignored unless -c or a CALLBACK_EDGE_… variable is set.
Exit codes: 0 passed, 1 failed, 2 unconfirmed, 3 could not run, 64 usage error

Example:
  callback-edge check https://auth.example.com/oauth/callback")]
pub(super) struct Args {
    /// Callbacks to check [default: the configured callbacks]
    #[arg(value_name = "URL", value_parser = callback)]
    urls: Vec<String>,

    /// Target that the callbacks should redirect to [default: the target of the route; for a URL
    /// argument, the same path at `nango.url`]
    #[arg(long, value_name = "URL", value_parser = Target::parse)]
    target: Option<Target>,

    /// Print the report as JSON; an array of reports unless one URL is given
    #[arg(long)]
    json: bool,

    /// Print the report as JUnit XML, for CI systems
    #[arg(long, conflicts_with = "json")]
    junit: bool,

    #[command(flatten)]
    connect: ConnectOptions,

    /// Run only checks with this id prefix; repeatable, comma-separated
    #[arg(long, value_name = "PREFIX", value_parser = prefix, value_delimiter = ',')]
    only: Vec<String>,

    /// Skip checks with this id prefix; repeatable, comma-separated
    #[arg(long, value_name = "PREFIX", value_parser = prefix, value_delimiter = ',')]
    skip: Vec<String>,

    /// Repeat until everything passes, at most for this time: DNS and CDN changes take minutes
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,

    /// Don't contact Nango
    #[arg(long)]
    no_follow: bool,
}

/// The minimum and the maximum pause between two attempts of `--wait`.
const WAIT_PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(15)];

/// Nango's URL without settings.
const NANGO_URL: &str = "https://api.nango.dev";

/// Exit: 0 passed, 1 failed, 2 something is unconfirmed, 3 could not run, 64 usage.
pub(super) fn run(args: &Args, file: Option<&Path>) -> Exit {
    let settings = match settings(args, file) {
        Ok(settings) => settings,
        Err(problems) => {
            eprint_line(&problems.coloured());
            return Exit::Usage;
        }
    };
    let outbound = match args.connect.outbound(settings.as_ref()) {
        Ok(outbound) => outbound,
        Err(problem) => return usage(&problem),
    };
    let plans = match &settings {
        Some(settings) if args.urls.is_empty() => {
            match plans_of_settings(settings, args.target.as_ref()) {
                Ok(plans) => plans,
                Err(problem) => return usage(&problem),
            }
        }
        settings => {
            let nango = settings.as_ref().map_or(NANGO_URL, |settings| &settings.nango_url);
            match plans_of_urls(args, nango) {
                Ok(plans) => plans,
                Err(error) => {
                    return usage(
                        &Problem::error(error.to_string()).hint("name the target with --target"),
                    );
                }
            }
        }
    };
    let plans: Vec<_> = plans.into_iter().map(|plan| with_options(plan, args)).collect();
    match block_on(until_passed(&plans, &outbound, args.wait)) {
        Ok(reports) => exit_after_print(format(args).print(&reports), Verdict::of(&reports).into()),
        Err(error) => cannot_run(&error),
    }
}

/// The settings. With a URL, a configuration file applies only when it is set explicitly: a
/// `config.toml` in this directory need not belong to that callback.
fn settings(args: &Args, file: Option<&Path>) -> Result<Option<Settings>, Problems> {
    let is_set = std::env::vars_os().any(|(name, value)| {
        name.as_encoded_bytes().starts_with(b"CALLBACK_EDGE_") && !value.is_empty()
    });
    if args.urls.is_empty() || file.is_some() || is_set {
        config::load(file, std::env::vars_os()).map(|loaded| Some(loaded.settings))
    } else {
        Ok(None)
    }
}

/// The configured callbacks.
fn plans_of_settings(settings: &Settings, target: Option<&Target>) -> Result<Vec<Plan>, Problem> {
    server::callbacks(settings)
        .map(|(callback, route)| {
            let port = Url::parse(&callback).ok().and_then(|url| url.port());
            if port == Some(0) && settings.public_url.is_none() {
                let key = if settings.listen.https.is_empty() { "http" } else { "https" };
                return Err(ephemeral_port_error(key));
            }
            Ok(Plan::new(callback, target.unwrap_or(&route.target).clone()))
        })
        .collect()
}

/// The callbacks on the command line. Without a target, each redirects to the same path at Nango.
fn plans_of_urls(args: &Args, nango: &str) -> Result<Vec<Plan>, BadTarget> {
    let target =
        |url: &str| args.target.clone().map_or_else(|| config::target_at_nango(nango, url), Ok);
    args.urls.iter().map(|url| Ok(Plan::new(url, target(url)?))).collect()
}

fn with_options(mut plan: Plan, args: &Args) -> Plan {
    plan.selection = Selection { only: args.only.clone(), skip: args.skip.clone() };
    plan.follow &= !args.no_follow;
    plan.end_to_end &= !args.no_follow;
    plan.total = args.connect.total();
    if io::stderr().is_terminal() {
        plan.progress = Some(progress::line);
    }
    plan
}

async fn until_passed(plans: &[Plan], outbound: &Outbound, wait: Option<Duration>) -> Vec<Report> {
    let began = Instant::now();
    let left = || wait.and_then(|wait| wait.checked_sub(began.elapsed()));
    // Each request costs Nango a lookup and an error report, so none is sent while the callback
    // itself still fails.
    let quiet: Vec<_> = plans.iter().map(|plan| Plan { follow: false, ..plan.clone() }).collect();
    loop {
        let still_fails = left().is_some()
            && matches!(Verdict::of(&once(&quiet, outbound).await), Verdict::Fail | Verdict::Error);
        if !still_fails {
            let reports = once(plans, outbound).await;
            if left().is_none() || Verdict::of(&reports) == Verdict::Pass {
                return reports;
            }
        }
        let [shortest, longest] = WAIT_PAUSES;
        tokio::time::sleep((left().unwrap_or_default() / 10).clamp(shortest, longest)).await;
    }
}

async fn once(plans: &[Plan], outbound: &Outbound) -> Vec<Report> {
    let mut reports = Vec::with_capacity(plans.len());
    for plan in plans {
        reports.push(check::run(plan, outbound).await);
        if plan.progress.is_some() {
            progress::clear();
        }
    }
    reports
}

fn format(args: &Args) -> Format {
    match (args.json, args.junit) {
        // The form depends only on the command line, so that a program can rely on it.
        (true, _) if args.urls.len() == 1 => Format::Json,
        (true, _) => Format::JsonList,
        (_, true) => Format::Junit,
        _ => Format::Text,
    }
}

/// Any non-empty text: the report describes what is wrong with the URL.
fn callback(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() {
        Err("is empty; pass a URL, for example https://auth.example.com/oauth/callback")
    } else {
        Ok(text.to_owned())
    }
}

fn prefix(text: &str) -> Result<String, String> {
    if IDS.iter().any(|id| id.starts_with(text)) && !text.is_empty() {
        Ok(text.to_owned())
    } else {
        Err("no check id has this prefix; ids start with url., dns., tls., redirect. or nango."
            .to_owned())
    }
}
