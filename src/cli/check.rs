//! `callback-edge check [URL]…`: does a callback redirect as Nango needs? No credentials.

use super::{Exit, port_of_no_one, printed, talk};
use crate::check::{self, IDS, Plan, Selection};
use crate::config::{self, Problem, Problems, RootCa, Settings};
use crate::outbound::{Limits, Outbound, Override, Resolver, Roots};
use crate::redirect::{self, BadTarget, Target};
use crate::report::{self, Report, Verdict};
use crate::server;
use jiff::SignedDuration;
use std::fmt;
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use terminal_size::terminal_size_of;
use url::Url;

/// Does this callback URL redirect as Nango needs?
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 passed, 1 failed, 2 something is unconfirmed, 3 could not run, 64 usage

Example:
  callback-edge check https://auth.example.com/oauth/callback")]
pub(super) struct Args {
    /// Callbacks to check [default: those of the settings]
    #[arg(value_name = "URL", value_parser = callback)]
    urls: Vec<String>,

    /// Where the callbacks should lead [default: as the settings say; for a URL, its like below
    /// `nango.url`]. Settings count beside a URL when `-c` or a variable `CALLBACK_EDGE_…` is
    /// set, not when a file just lies here
    #[arg(long, value_name = "URL", value_parser = Target::parse)]
    target: Option<Target>,

    /// Print the report as JSON; an array of reports unless one URL is given
    #[arg(long)]
    json: bool,

    /// Dial this address for a host and port, before `self_check.connect_to`; may be repeated
    #[arg(long, value_name = "HOST:PORT:ADDRESS", value_parser = Override::resolve)]
    resolve: Vec<Override>,

    /// Dial this address and port for a host and port; may be repeated
    #[arg(long, value_name = "HOST:PORT:ADDRESS:PORT")]
    connect_to: Vec<Override>,

    /// Trust the certificates in this PEM file too, beside `self_check.root_ca`
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

/// How many times the longest step the whole check of one URL may take.
const STEPS: u32 = 12;

/// The shortest and the longest pause between two tries of `--wait`.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(15)];

/// Where Nango is when no settings say so.
const NANGO: &str = "https://api.nango.dev";

/// Exit: 0 passed, 1 failed, 2 something is unconfirmed, 3 could not run, 64 usage.
pub(super) fn run(args: &Args, file: Option<&Path>) -> Exit {
    let settings = match settings(args, file) {
        Ok(settings) => settings,
        Err(problems) => {
            talk(&problems.coloured());
            return Exit::Usage;
        }
    };
    let roots = match roots(args, settings.as_ref()) {
        Ok(roots) => roots,
        Err(error) => return usage(error, "name a PEM file with the authority's certificate"),
    };
    let plans = match &settings {
        Some(settings) if args.urls.is_empty() => {
            match plans_of_settings(settings, args.target.as_ref()) {
                Ok(plans) => plans,
                Err(problem) => {
                    talk(&problem.coloured());
                    return Exit::Usage;
                }
            }
        }
        settings => {
            let nango = settings.as_ref().map_or(NANGO, |settings| &settings.nango_url);
            match plans_of_urls(args, nango) {
                Ok(plans) => plans,
                Err(error) => return usage(error, "name the target with --target"),
            }
        }
    };
    let plans: Vec<_> = plans.into_iter().map(|plan| tuned(plan, args)).collect();
    let limits = Limits { step: args.timeout, ..Limits::default() };
    let outbound = Outbound::new(Resolver::new(overrides(args, settings.as_ref())), roots, limits);
    let reports = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(until_passed(&plans, &outbound, args.wait)),
        Err(error) => {
            talk(&format!("error: {error}"));
            return Exit::CouldNotRun;
        }
    };
    let exit = match Verdict::of(&reports) {
        Verdict::Pass => Exit::Done,
        Verdict::Fail => Exit::Failed,
        Verdict::Unconfirmed => Exit::Unconfirmed,
        Verdict::Error => Exit::CouldNotRun,
    };
    printed(show(&reports, args), exit)
}

/// The settings. A callback of somebody else's has nothing to do with a file that happens to lie
/// here: where a URL is given, there are settings only when somebody sets something.
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

/// The callbacks of the settings.
fn plans_of_settings(settings: &Settings, target: Option<&Target>) -> Result<Vec<Plan>, Problem> {
    server::callbacks(settings)
        .map(|(callback, route)| {
            let port = Url::parse(&callback).ok().and_then(|url| url.port());
            if port == Some(0) && settings.public_url.is_none() {
                let key = if settings.listen.https.is_empty() { "http" } else { "https" };
                return Err(port_of_no_one(key));
            }
            Ok(Plan::new(callback, target.unwrap_or(&route.target).clone()))
        })
        .collect()
}

/// The callbacks on the command line. Without a target, each leads to its like at Nango.
fn plans_of_urls(args: &Args, nango: &str) -> Result<Vec<Plan>, BadTarget> {
    let at_nango = |url: &str| {
        let path = Url::parse(url)
            .ok()
            .and_then(|url| redirect::Path::parse(url.path().trim_end_matches('/')).ok());
        let path = path.as_ref().map_or("/oauth/callback", config::path_at_nango);
        Target::parse(&format!("{nango}{path}"))
    };
    let target = |url: &str| args.target.clone().map_or_else(|| at_nango(url), Ok);
    args.urls.iter().map(|url| Ok(Plan::new(url, target(url)?))).collect()
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

fn show(reports: &[Report], args: &Args) -> io::Result<()> {
    if args.json {
        // The command line alone says which of the two it is, so that whoever reads it knows.
        let list = args.urls.len() != 1;
        let text = if list { report::json_list(reports) } else { report::json(reports) }?;
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")?;
        return stdout.flush();
    }
    // Nothing, unless it is a terminal.
    let columns = terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
    let mut stdout = anstream::stdout().lock();
    for (number, report) in reports.iter().enumerate() {
        let gap = if number == 0 { "" } else { "\n" };
        write!(stdout, "{gap}{}", report::text(report, columns))?;
    }
    stdout.flush()
}

/// Where to connect. What the command line says of a host and port holds in place of what the
/// settings say of it.
fn overrides(args: &Args, settings: Option<&Settings>) -> Vec<Override> {
    let mut overrides: Vec<_> = args.resolve.iter().chain(&args.connect_to).cloned().collect();
    let from_settings: Vec<_> = settings
        .into_iter()
        .flat_map(|settings| server::overrides(&settings.self_check))
        .filter(|entry| {
            !overrides.iter().any(|known| known.port == entry.port && known.host == entry.host)
        })
        .collect();
    overrides.extend(from_settings);
    overrides
}

/// The public authorities, those of the settings, and those of the command line.
fn roots(args: &Args, settings: Option<&Settings>) -> Result<Roots, String> {
    let roots = settings.map_or_else(|| Ok(Roots::public()), roots_of_settings)?;
    match &args.ca {
        Some(ca) => {
            let pem = std::fs::read(ca).map_err(|error| cannot_use(ca, &error))?;
            and_pem(&roots, ca, &pem)
        }
        None => Ok(roots),
    }
}

fn roots_of_settings(settings: &Settings) -> Result<Roots, String> {
    match &settings.self_check.root_ca {
        Some(RootCa { path, pem }) => and_pem(&Roots::public(), path, pem),
        None => Ok(Roots::public()),
    }
}

fn and_pem(roots: &Roots, file: &Path, pem: &[u8]) -> Result<Roots, String> {
    roots.and_pem(pem).map_err(|error| cannot_use(file, &error))
}

fn cannot_use(file: &Path, why: &dyn fmt::Display) -> String {
    format!("cannot use certificate file `{}`: {why}", file.display())
}

/// Any text but none: what is wrong with a URL is for the report to say.
fn callback(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("is no URL") } else { Ok(text.to_owned()) }
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
    talk(&format!("error: {error}\n\nhint: {hint}"));
    Exit::Usage
}
