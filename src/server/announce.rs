//! What `serve` prints or logs when it has started, and the errors and warnings of its settings.

use super::origin::{Addresses, callback_url, public_origin};
use super::snapshot::Snapshot;
use crate::config::{Location, Problem, Problems, Settings};
use crate::observe::{Format, Log};
use crate::tls::acme::AcmeStatus;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

/// For a person: each callback with its target, the certificates, the self-check and every address.
pub(super) fn text(snapshot: &Snapshot, acme_status: &AcmeStatus, file: Option<&Path>) -> String {
    let (settings, bound) = (&snapshot.settings, &snapshot.bound);
    let mut text = format!("callback-edge {}\n\n", env!("CARGO_PKG_VERSION"));
    for (url, target) in callbacks(settings, bound) {
        let _ = writeln!(text, "  callback     {url}\n            →  {target}");
    }
    for (domain, status) in acme_status.certificates() {
        let _ = writeln!(text, "  certificate  {domain}  {}", status.summary());
    }
    let _ = writeln!(text, "  self-check   {}", self_check_url(settings, bound));
    for (kind, address) in addresses(bound) {
        let _ = writeln!(text, "  listening    {kind:<5}  {address}");
    }
    let source = file.map_or("built-in defaults".to_owned(), |file| file.display().to_string());
    let _ = writeln!(text, "  config       {source}\n");
    text
}

/// For a person: whether the server is ready, or what it waits for.
pub(super) fn readiness(not_ready: Option<&str>) -> String {
    match not_ready {
        None => "ready; press Ctrl-C to stop\n".to_owned(),
        Some(why) => format!("not ready: {why}; press Ctrl-C to stop\n"),
    }
}

/// For programs: the same as log events.
pub(super) fn events(settings: &Settings, bound: &Addresses, acme_status: &AcmeStatus) {
    for (domain, status) in acme_status.certificates() {
        tracing::info!(event = "certificate", domain = &*domain, standing = status.summary());
    }
    for (url, target) in callbacks(settings, bound) {
        tracing::info!(event = "callback", url, target);
    }
    for (kind, address) in addresses(bound) {
        tracing::info!(event = "listening", listener = kind, %address);
    }
}

/// Reports errors and warnings of the settings: in a text log as `config check` prints them, otherwise as
/// one event each.
pub fn report(log: &Log, problems: &Problems) {
    if problems.0.is_empty() {
        return;
    }
    if log.format() == Format::Text {
        return log.print(&(problems.coloured() + "\n"));
    }
    let (reported, more) = problems.reported();
    reported.iter().for_each(event);
    if more > 0 {
        event(&Problem::error(format!("and {more} more")));
    }
}

fn event(problem: &Problem) {
    let (file, variable) = match problem.location() {
        Location::File(position) => (Some(&**position), None),
        Location::Variable(name) => (None, Some(&**name)),
        Location::Default => (None, None),
    };
    let (line, column) = (file.map(|position| position.line), file.map(|position| position.column));
    let file = file.map(|position| position.file.display().to_string());
    let (file, cause) = (file.as_deref(), problem.cause());
    let (cause, note, hint) = (cause.as_deref(), problem.note(), problem.advice());
    let problem_is = problem.what();
    if problem.is_warning() {
        tracing::warn!(
            event = "config_warning",
            problem = problem_is,
            file,
            line,
            column,
            variable,
            note,
            cause,
            hint
        );
    } else {
        tracing::error!(
            event = "config_error",
            problem = problem_is,
            file,
            line,
            column,
            variable,
            note,
            cause,
            hint
        );
    }
}

/// The URL of the self-check.
fn self_check_url(settings: &Settings, bound: &Addresses) -> String {
    match bound.admin.first() {
        Some(admin) => format!("http://{admin}/self-check"),
        None => format!("{}/self-check", public_origin(settings, bound)),
    }
}

/// Logs which listeners a reload opens and closes.
pub(super) fn listener_changes(old: &Addresses, new: &Addresses) {
    let contains = |all: &Addresses, one| addresses(all).any(|other| other == one);
    for (kind, address) in addresses(new).filter(|&one| !contains(old, one)) {
        tracing::info!(event = "listening", listener = kind, %address);
    }
    for (kind, address) in addresses(old).filter(|&one| !contains(new, one)) {
        tracing::info!(event = "closing", listener = kind, %address);
    }
}

fn callbacks(settings: &Settings, bound: &Addresses) -> impl Iterator<Item = (String, String)> {
    let routes = settings.routes.items().iter();
    routes.map(|route| (callback_url(route, settings, bound), route.target.redacted()))
}

pub(super) fn addresses(bound: &Addresses) -> impl Iterator<Item = (&'static str, SocketAddr)> {
    [("http", &bound.http), ("https", &bound.https), ("admin", &bound.admin)]
        .into_iter()
        .flat_map(|(kind, addresses)| addresses.iter().map(move |address| (kind, *address)))
}
