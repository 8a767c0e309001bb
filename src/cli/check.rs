//! `callback-edge check [URL]…`: does a callback redirect as Nango needs? No credentials.

use super::Exit;
use crate::check::{self, IDS, Plan, Selection};
use crate::config::{self, Settings};
use crate::outbound::{Limits, Outbound, Override, Resolver, Roots};
use crate::redirect::Target;
use crate::report::{self, Report, Verdict};
use crate::server;
use anstream::eprintln;
use jiff::SignedDuration;
use std::fmt;
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Does this callback URL redirect as Nango needs?
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 passed, 1 failed, 2 something is unconfirmed, 3 could not run, 64 usage

Example:
  callback-edge check https://auth.example.com/oauth/callback")]
pub(super) struct Args {
    /// Callbacks to check [default: those of the settings]
    #[arg(value_name = "URL")]
    urls: Vec<String>,

    /// Where the callbacks should lead [default: Nango Cloud]
    #[arg(long, value_name = "URL", value_parser = Target::parse)]
    target: Option<Target>,

    /// Print the report as JSON; an array of reports for several URLs
    #[arg(long)]
    json: bool,

    /// Dial this address for a host and port; may be repeated
    #[arg(long, value_name = "HOST:PORT:ADDRESS", value_parser = Override::resolve)]
    resolve: Vec<Override>,

    /// Dial this address and port for a host and port; may be repeated
    #[arg(long, value_name = "HOST:PORT:ADDRESS:PORT")]
    connect_to: Vec<Override>,

    /// Trust the certificates in this PEM file too
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// How long each step may take: resolve, connect, handshake, answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    /// Run only checks whose id starts so; may be repeated, or parted by commas
    #[arg(long, value_name = "PREFIX", value_parser = prefix, value_delimiter = ',')]
    only: Vec<String>,

    /// Leave out checks whose id starts so; may be repeated, or parted by commas
    #[arg(long, value_name = "PREFIX", value_parser = prefix, value_delimiter = ',')]
    skip: Vec<String>,

    /// Repeat until everything passes, for so long at most: changes take minutes to spread
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,

    /// Ask nothing of Nango
    #[arg(long)]
    no_follow: bool,
}

/// Nango's callbacks, where nothing else is said.
const NANGO: &str = "https://api.nango.dev";

/// How many times the longest step the whole check of one URL may take.
const STEPS: u32 = 12;

/// The shortest and the longest pause between two tries of `--wait`.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(15)];

pub(super) fn run(args: &Args, file: Option<&Path>) -> Exit {
    // A callback of somebody else's has nothing to do with a file that happens to lie here.
    let settings = if args.urls.is_empty() || file.is_some() {
        match config::load(file, std::env::vars_os()) {
            Ok(loaded) => Some(loaded.settings),
            Err(problems) => {
                eprintln!("{}", problems.coloured());
                return Exit::Usage;
            }
        }
    } else {
        None
    };
    let roots = match roots(args.ca.as_deref()) {
        Ok(roots) => roots,
        Err(error) => return usage(error, "name a PEM file with the authority's certificate"),
    };
    let plans = match &settings {
        Some(settings) if args.urls.is_empty() => Ok(plans(settings, args.target.as_ref())),
        settings => {
            let nango = settings.as_ref().map_or(NANGO, |settings| &settings.nango_url);
            let plan = |url: &String| match &args.target {
                Some(target) => Ok(Plan::new(url, target.clone())),
                None => default_target(url, nango).map(|target| Plan::new(url, target)),
            };
            args.urls.iter().map(plan).collect::<Result<Vec<_>, _>>()
        }
    };
    let plans = match plans {
        Ok(plans) => plans.into_iter().map(|plan| tuned(plan, args)).collect::<Vec<_>>(),
        Err(error) => return usage(error, "name the target with --target"),
    };
    let overrides = args.resolve.iter().chain(&args.connect_to).cloned().collect();
    let limits = Limits { step: args.timeout, ..Limits::default() };
    let outbound = Outbound::new(Resolver::new(overrides), roots, limits);
    let reports = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(until_passed(&plans, &outbound, args.wait)),
        Err(error) => {
            eprintln!("error: {error}");
            return Exit::CouldNotRun;
        }
    };
    if show(&reports, args.json).is_err() {
        return Exit::CouldNotRun;
    }
    match Verdict::of(&reports) {
        Verdict::Pass => Exit::Done,
        Verdict::Fail => Exit::Failed,
        Verdict::Unconfirmed => Exit::Unconfirmed,
        Verdict::Error => Exit::CouldNotRun,
    }
}

/// The callbacks of the settings.
fn plans(settings: &Settings, target: Option<&Target>) -> Vec<Plan> {
    server::callbacks(settings)
        .map(|(callback, route)| Plan::new(callback, target.unwrap_or(&route.target).clone()))
        .collect()
}

/// Nango's callback of the same kind as this one.
fn default_target(callback: &str, nango: &str) -> Result<Target, crate::redirect::BadTarget> {
    let path = callback.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let kind =
        if path.ends_with("app-auth/connect") { "app-auth/connect" } else { "oauth/callback" };
    Target::parse(&format!("{nango}/{kind}"))
}

fn tuned(mut plan: Plan, args: &Args) -> Plan {
    plan.selection = Selection { only: args.only.clone(), skip: args.skip.clone() };
    plan.follow &= !args.no_follow;
    plan.total = args.timeout.saturating_mul(STEPS);
    if io::stderr().is_terminal() {
        plan.progress = Some(progress);
    }
    plan
}

/// One line that is written over and over.
fn progress(doing: &str) {
    let mut stderr = anstream::stderr();
    // Nobody is lost when it cannot be written.
    let _ = write!(stderr, "\r\x1b[2K{doing}…");
    let _ = stderr.flush();
}

async fn until_passed(plans: &[Plan], outbound: &Outbound, wait: Option<Duration>) -> Vec<Report> {
    let began = Instant::now();
    let left = || wait.and_then(|wait| wait.checked_sub(began.elapsed()));
    // Each question costs Nango a lookup and an error report, so that it is asked nothing while
    // the callback itself still fails.
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
        let [shortest, longest] = PAUSES;
        tokio::time::sleep((left().unwrap_or_default() / 10).clamp(shortest, longest)).await;
    }
}

async fn once(plans: &[Plan], outbound: &Outbound) -> Vec<Report> {
    let mut reports = Vec::with_capacity(plans.len());
    for plan in plans {
        reports.push(check::run(plan, outbound).await);
        if plan.progress.is_some() {
            let _ = write!(anstream::stderr(), "\r\x1b[2K");
        }
    }
    reports
}

fn show(reports: &[Report], json: bool) -> io::Result<()> {
    if json {
        let text = report::json(reports)?;
        let mut stdout = io::stdout().lock();
        return writeln!(stdout, "{text}");
    }
    let mut stdout = anstream::stdout().lock();
    for (number, report) in reports.iter().enumerate() {
        let gap = if number == 0 { "" } else { "\n" };
        write!(stdout, "{gap}{}", report::text(report))?;
    }
    stdout.flush()
}

fn roots(ca: Option<&Path>) -> Result<Roots, String> {
    let public = Roots::public();
    let Some(ca) = ca else { return Ok(public) };
    let cannot =
        |why: &dyn fmt::Display| format!("cannot use certificate file `{}`: {why}", ca.display());
    let pem = std::fs::read(ca).map_err(|error| cannot(&error))?;
    public.and_pem(&pem).map_err(|error| cannot(&error))
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = "is not a duration, for example 500ms, 10s or 5m";
    let signed: SignedDuration = text.parse().map_err(|_| wrong)?;
    let duration = signed.unsigned_abs();
    if signed.is_positive() { Ok(duration) } else { Err(wrong.to_owned()) }
}

fn prefix(text: &str) -> Result<String, String> {
    if IDS.iter().any(|id| id.starts_with(text)) && !text.is_empty() {
        Ok(text.to_owned())
    } else {
        Err("no id of a check starts so; they start with url., dns., tls., redirect. or nango."
            .to_owned())
    }
}

fn usage(error: impl fmt::Display, hint: &str) -> Exit {
    eprintln!("error: {error}\n\nhint: {hint}");
    Exit::Usage
}
