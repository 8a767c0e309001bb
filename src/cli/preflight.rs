//! `callback-edge preflight --callback URL`: is it safe to save this callback in Nango's settings?

use super::environments::{
    EnvironmentOptions, Prepared, decisions, default_callback, load, nango_base, prepare, selected,
};
use super::format::{Format, JunitFile, Verbosity};
use super::watch::{WatchOptions, until_stopped};
use super::{Exit, block_on, cannot_run, eprint_line, exit_after_print, progress, usage};
use crate::config::{Problem, Project, Settings};
use crate::observe::{PreflightMetrics, PreflightRun};
use crate::preflight::{self, is_same_url};
use crate::redirect::Target;
use crate::report::{Report, Status, Verdict};
use std::path::Path;

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

    /// Print the planned requests; don't start flows, don't contact providers
    #[arg(long)]
    dry_run: bool,

    /// Print the report as JSON
    #[arg(long, conflicts_with_all = ["junit", "markdown", "quiet"])]
    json: bool,

    /// Print the report as JUnit XML, for CI systems
    #[arg(long, conflicts_with_all = ["markdown", "quiet"])]
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
    options: EnvironmentOptions,
}

/// Exit: 0 safe, 1 do not switch, 2 unconfirmed, 3 could not run, 64 usage error.
pub(super) fn run(args: &Args, file: Option<&Path>) -> Exit {
    let (settings, project) = match load(&args.options, file) {
        Ok(loaded) => loaded,
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
        for Run { environment, prepared: Prepared { plan, nango, outbound } } in &runs {
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
    prepared: Prepared,
}

fn prepare_all(args: &Args, settings: &Settings, project: &Project) -> Result<Vec<Run>, Problem> {
    let selected = selected(&args.options, project)?;
    if selected.len() > 1 && args.watch.every.is_some() {
        return Err(Problem::error("--every serves one environment")
            .hint("select one environment, or omit the option"));
    }
    let callback = args.callback.as_str();
    let default = default_callback(settings, callback)?;
    let previous = args.previous.as_ref().unwrap_or(&default).as_str();
    let decisions = decisions(&args.options, project, &selected, callback)?;
    let prepared = selected.iter().zip(decisions).map(|(selected, decisions)| {
        let base = nango_base(settings, selected.environment.is_none())?;
        let mut prepared =
            prepare(&args.options, settings, *selected, decisions, [callback, previous], &base)?;
        if is_same_url(callback, previous) {
            return Err(Problem::error(format!(
                "`{}` is already the current callback: there is nothing to switch",
                args.callback.redacted()
            ))
            .hint(
                "pass the new callback with --callback, and the current one with --previous if it is \
                 not Nango's default",
            ));
        }
        prepared.plan.dry_run = args.dry_run;
        Ok(Run { environment: selected.name.map(str::to_owned), prepared })
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

fn format(args: &Args) -> Format {
    match (args.json, args.junit, args.markdown) {
        (true, _, _) => Format::Json,
        (_, true, _) => Format::Junit,
        (_, _, true) => Format::Markdown,
        _ => Format::Text(args.verbosity.detail()),
    }
}
