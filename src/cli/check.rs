//! `callback-edge check [URL]…` checks whether a callback redirects as Nango needs, without credentials.

use super::connect::{ConnectOptions, duration};
use super::explain::similar;
use super::format::{Format, JunitFile, Verbosity};
use super::watch::{WatchOptions, stop_signal, until_stopped};
use super::{
    Exit, block_on, cannot_run, ephemeral_port_error, eprint_line, exit_after_print, print_line,
    progress, usage,
};
use crate::check::{self, IDS, Plan, Selection};
use crate::config::{self, Problem, Problems, Settings};
use crate::observe::{CheckMetrics, CheckRun};
use crate::outbound::Outbound;
use crate::redirect::{BadTarget, Target};
use crate::report::{Detail, Report, Status, Verdict};
use crate::server;
use jiff::Timestamp;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use url::{Host, Url};

/// Check whether a callback redirects as Nango needs
#[expect(clippy::struct_excessive_bools, reason = "each is a separate flag")]
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With a URL argument, ./config.toml is ignored unless -c or a CALLBACK_EDGE_… variable is set.
Ctrl-C prints the partial report.
Exit codes: 0 passed, 1 failed, 2 unconfirmed, 3 could not run, 64 usage error, 130 interrupted

Example:
  callback-edge check https://auth.example.com/oauth/callback")]
pub(super) struct Args {
    /// Callbacks to check [default: the configured callbacks]
    #[arg(value_name = "URL")]
    urls: Vec<String>,

    /// Target that the callbacks should redirect to [default: the target of the route; for a URL
    /// argument, the same path at `nango.url`]
    #[arg(long, value_name = "URL", value_parser = target)]
    target: Option<Target>,

    /// Print the report as JSON; an array of reports unless one URL is given
    #[arg(long, conflicts_with = "quiet")]
    json: bool,

    /// Print the report as JUnit XML, for CI systems
    #[arg(long, conflicts_with_all = ["json", "quiet"])]
    junit: bool,

    /// Print the report as Markdown, for a ticket
    #[arg(long, conflicts_with_all = ["json", "junit", "verbose", "quiet"])]
    markdown: bool,

    #[command(flatten)]
    junit_file: JunitFile,

    #[command(flatten)]
    verbosity: Verbosity,

    /// Fail when a query does not arrive byte for byte
    #[arg(long)]
    strict: bool,

    #[command(flatten)]
    connect: ConnectOptions,

    /// Run only checks with this id prefix; repeatable, comma-separated
    #[arg(long, value_name = "PREFIX", value_parser = prefix, value_delimiter = ',')]
    only: Vec<String>,

    /// Skip checks with this id prefix; repeatable, comma-separated
    #[arg(long, value_name = "PREFIX", value_parser = prefix, value_delimiter = ',')]
    skip: Vec<String>,

    /// Repeat until everything passes, at most for this time: DNS and CDN changes take minutes
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "every")]
    wait: Option<Duration>,

    #[command(flatten)]
    watch: WatchOptions,

    /// Don't contact Nango
    #[arg(long)]
    no_follow: bool,
}

/// The minimum and the maximum pause between two attempts of `--wait`.
const WAIT_PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(15)];

/// Checks a URL.
const EXAMPLE: &str = "callback-edge check https://auth.example.com/oauth/callback";

/// Nango's URL without settings.
const NANGO_URL: &str = "https://api.nango.dev";

/// Exit: 0 passed, 1 failed, 2 something is unconfirmed, 3 could not run, 64 usage, 130 interrupted.
pub(super) fn run(args: &Args, file: Option<&Path>) -> Exit {
    if let Some(problem) = args.urls.iter().find_map(|url| correctable(url)) {
        return usage(&problem);
    }
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
    let interrupt = CancellationToken::new();
    let plans: Vec<_> =
        plans.into_iter().map(|plan| with_options(plan, args, &interrupt)).collect();
    let format = format(args);
    let exit = block_on(async {
        if let Some(every) = args.watch.every {
            return watch(&plans, &outbound, every, args, format).await;
        }
        let stop = interrupt.clone();
        tokio::spawn(async move {
            stop_signal().await;
            stop.cancel();
        });
        let reports = until_passed(&plans, &outbound, args.wait, &interrupt).await;
        let verdict = Verdict::of(&reports).into();
        let exit = if interrupt.is_cancelled() { Exit::Interrupted } else { verdict };
        exit_after_print(args.junit_file.print(format, &reports), exit)
    });
    exit.unwrap_or_else(|error| cannot_run(&error))
}

/// Repeats the check until SIGTERM or SIGINT. As text, a run is one line for each callback, for a log.
async fn watch(
    plans: &[Plan],
    outbound: &Outbound,
    every: Duration,
    args: &Args,
    format: Format,
) -> Exit {
    let (metrics, exported) = CheckMetrics::new();
    if let Err(problem) = args.watch.serve(exported).await {
        return usage(&problem);
    }
    let run = async || {
        let began = Instant::now();
        (once(plans, outbound).await, began.elapsed())
    };
    until_stopped(every, run, |(reports, duration): (Vec<Report>, Duration)| {
        let runs: Vec<_> = reports.iter().map(check_run).collect();
        metrics.record(&runs, duration);
        let exit = Verdict::of(&reports).into();
        if format != Format::Text(Detail::Findings) {
            return exit_after_print(format.print(&reports), exit);
        }
        let lines: Vec<_> = reports.iter().map(log_line).collect();
        print_line(io::stdout(), &lines.join("\n"), exit)
    })
    .await
}

fn check_run(report: &Report) -> CheckRun<'_> {
    let failed = report.checks.iter().filter(|check| check.status == Status::Fail);
    CheckRun {
        callback: &report.callback,
        verdict: report.verdict_label(),
        failed: failed.map(|check| &*check.id).collect(),
    }
}

/// The time, the callback, the verdict, and the ids of the findings.
fn log_line(report: &Report) -> String {
    let ids: Vec<_> = report.findings().iter().map(|check| &*check.id).collect();
    let ids = if ids.is_empty() { String::new() } else { format!(" ({})", ids.join(", ")) };
    let now = Timestamp::now();
    format!("{now:.0} {}: {}{ids}", report.callback, report.sentence())
}

/// The settings. With a URL, a configuration file applies only when it is set explicitly: a
/// `config.toml` in this directory need not belong to that callback.
fn settings(args: &Args, file: Option<&Path>) -> Result<Option<Settings>, Problems> {
    let is_set = std::env::vars_os().any(|(name, value)| {
        name.as_encoded_bytes().starts_with(b"CALLBACK_EDGE_") && !value.is_empty()
    });
    if args.urls.is_empty() || file.is_some() || is_set {
        let loaded = config::load(file, std::env::vars_os())?;
        if args.urls.is_empty() && loaded.file.is_none() && !is_set {
            return Err(Problem::error("there is no URL and no configuration file")
                .hint(format!("{EXAMPLE} or callback-edge -c FILE check"))
                .into());
        }
        Ok(Some(loaded.settings))
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

fn with_options(mut plan: Plan, args: &Args, interrupt: &CancellationToken) -> Plan {
    plan.interrupt = interrupt.clone();
    plan.strict = args.strict;
    plan.selection = Selection { only: args.only.clone(), skip: args.skip.clone() };
    plan.follow &= !args.no_follow;
    plan.end_to_end &= !args.no_follow;
    plan.total = args.connect.total();
    if io::stderr().is_terminal() {
        plan.progress = Some(progress::line);
    }
    plan
}

async fn until_passed(
    plans: &[Plan],
    outbound: &Outbound,
    wait: Option<Duration>,
    interrupt: &CancellationToken,
) -> Vec<Report> {
    let began = Instant::now();
    let left = || wait.and_then(|wait| wait.checked_sub(began.elapsed()));
    // Each request costs Nango a lookup and an error report, so none is sent while the callback
    // itself still fails.
    let quiet: Vec<_> = plans.iter().map(|plan| Plan { follow: false, ..plan.clone() }).collect();
    loop {
        if left().is_none() {
            return once(plans, outbound).await;
        }
        let mut reports = once(&quiet, outbound).await;
        let fails = matches!(Verdict::of(&reports), Verdict::Fail | Verdict::Error);
        if !fails && !interrupt.is_cancelled() {
            reports = once(plans, outbound).await;
            if Verdict::of(&reports) == Verdict::Pass {
                return reports;
            }
        }
        let [shortest, longest] = WAIT_PAUSES;
        let pause = (left().unwrap_or_default() / 10).clamp(shortest, longest);
        // After an interrupt, the result is that of the last run.
        if interrupt.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return reports;
        }
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
    match (args.json, args.junit, args.markdown) {
        // The form depends only on the command line, so that a program can rely on it.
        (true, _, _) if args.urls.len() == 1 => Format::Json,
        (true, _, _) => Format::JsonList,
        (_, true, _) => Format::Junit,
        (_, _, true) => Format::Markdown,
        _ => Format::Text(args.verbosity.detail()),
    }
}

/// The error for an argument that becomes a URL by an obvious correction, with the corrected command.
/// For everything else the report describes what is wrong. A query and credentials are not repeated:
/// they can be secrets.
fn correctable(given: &str) -> Option<Problem> {
    let is_quote = |character: char| "\"'`<>“”‘’".contains(character);
    let trimmed = given.trim();
    if trimmed.is_empty() {
        return Some(Problem::error("the URL is empty").hint(EXAMPLE));
    }
    if Path::new(given).is_file() {
        return Some(
            Problem::error(format!("`{given}` is a file, not a URL"))
                .hint(format!("callback-edge -c {given} check")),
        );
    }
    let bare = trimmed.trim_matches(is_quote).split(['?', '#']).next().unwrap_or_default();
    let wrong = match (trimmed.contains(is_quote), bare.contains("://")) {
        (_, false) => "has no scheme",
        (true, true) => "is in quotes",
        (false, true) => return None,
    };
    if bare.contains('@') && !bare.contains("://") {
        let hint = "remove everything up to the `@`, and start with https://";
        return Some(Problem::error("the URL has no scheme, but credentials").hint(hint));
    }
    // Other characters would need quotes in a shell.
    if !bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/[]%".contains(&byte)) {
        return None;
    }
    let with = |scheme: &str| Url::parse(&format!("{scheme}://{bare}")).ok();
    let url = if bare.contains("://") { Url::parse(bare).ok()? } else { with("https")? };
    let is_loopback = match url.host()? {
        Host::Domain("localhost") => true,
        Host::Domain(name) if !name.contains('.') => return None,
        Host::Domain(_) => false,
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    let url = match (bare.contains("://"), is_loopback) {
        (true, _) => bare.to_owned(),
        (false, true) => format!("http://{bare}"),
        (false, false) => format!("https://{bare}"),
    };
    Some(Problem::error(format!("`{bare}` {wrong}")).hint(format!("callback-edge check {url}")))
}

/// A target; an error suggests the scheme that is missing.
fn target(text: &str) -> Result<Target, String> {
    Target::parse(text).map_err(|error| {
        let full = format!("https://{text}");
        let has_host = |target: Target| target.host().contains('.');
        if !text.contains("://") && Target::parse(&full).is_ok_and(has_host) {
            format!("{error}; did you mean `{full}`?")
        } else {
            error.to_string()
        }
    })
}

/// A prefix of a check id; an error suggests similar ids and categories.
fn prefix(text: &str) -> Result<String, String> {
    if IDS.iter().any(|id| id.starts_with(text)) && !text.is_empty() {
        return Ok(text.to_owned());
    }
    let categories = IDS.iter().filter_map(|id| id.split('.').next());
    let mut suggested = similar(text, categories.chain(IDS.iter().copied()));
    suggested.dedup();
    let suggested: Vec<_> = suggested.iter().map(|id| format!("`{id}`")).collect();
    Err(match suggested.as_slice() {
        [] => "no check id has this prefix; ids start with url., dns., tls., redirect. or nango."
            .to_owned(),
        suggested => {
            format!("no check id has this prefix; did you mean {}?", suggested.join(" or "))
        }
    })
}
