//! `explain` has a section for every id, and no other.

use crate::support::{command, files_below, on_a_terminal};
use callback_edge::observe::{AcmeFailure, Label};
use callback_edge::{check, explain, preflight};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn every_id_has_a_section_and_every_section_an_id() {
    let sections: BTreeSet<String> =
        explain::all().iter().map(|explanation| explanation.id.to_owned()).collect();
    let ids = ids();
    let missing: Vec<_> = ids.difference(&sections).collect();
    assert!(missing.is_empty(), "the documents have no {missing:?}");
    let unused: Vec<_> = sections.difference(&ids).collect();
    assert!(unused.is_empty(), "sections of ids that do not exist: {unused:?}");
}

/// Every id that reports, logs, metrics and alerts contain.
fn ids() -> BTreeSet<String> {
    let preflight =
        preflight::IDS.map(|id| if id == "integration" { "integration.KEY" } else { id });
    // The server adds `tls.acme` to its self-check.
    let checks = check::IDS.iter().copied().chain(["tls.acme"]).chain(preflight);
    let alerts = fs::read_to_string(Path::new(ROOT).join("deploy/prometheus/alerts.yml")).unwrap();
    let alerts = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let reasons = AcmeFailure::ALL.iter().map(|reason| format!("acme.{}", reason.value()));
    let ids: BTreeSet<String> = checks
        .map(ToOwned::to_owned)
        .chain(alerts.map(|name| format!("alert.{name}")))
        .chain(reasons)
        .chain(literals("src", "event = \"").map(|name| format!("event.{name}")))
        .chain(literals("src/preflight", ".state(\"").map(|name| format!("state.{name}")))
        .collect();
    for prefix in ["alert.", "acme.", "event.request", "state.registered", "redirect.query"] {
        assert!(ids.iter().any(|id| id.starts_with(prefix)), "no {prefix} was read");
    }
    ids
}

/// The string literals in a directory of the source that follow `start`, which ends in a quote.
fn literals(directory: &str, start: &str) -> impl Iterator<Item = String> {
    files_below(&Path::new(ROOT).join(directory)).into_iter().flat_map(move |file| {
        let text = fs::read_to_string(file).unwrap();
        let rests = text.split(start).skip(1);
        rests.map(|rest| rest.split('"').next().unwrap().to_owned()).collect::<Vec<_>>()
    })
}

#[test]
fn a_section_is_printed_without_colour_and_wrapped() {
    let Output { status, stdout, stderr } = explain(&["redirect.cache"]);
    assert!(status.success() && stderr.is_empty());
    let text = String::from_utf8(stdout).unwrap();
    assert!(text.starts_with("redirect.cache\n──────────────\n\nThe response cannot"), "{text}");
    assert!(text.contains("\n\nFix: Send `Cache-Control: no-store`"), "{text}");
    assert!(text.ends_with("\ndocs/checks.md#redirectcache\n"), "{text}");
    assert!(!text.contains('\u{1b}') && text.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn a_terminal_gets_colour_and_its_own_width() {
    let on_a_terminal = |no_colour: &str| {
        let mut explain = command(Path::new(ROOT));
        explain.args(["explain", "redirect.cache"]).env("NO_COLOR", no_colour);
        on_a_terminal(explain, 60).1
    };
    let coloured = on_a_terminal("");
    assert!(coloured.contains("\u{1b}[1mFix:\u{1b}[0m"), "{coloured:?}");
    let plain = on_a_terminal("1");
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    assert!(plain.lines().all(|line| line.chars().count() <= 60), "{plain}");
}

#[test]
fn without_an_id_every_id_is_listed_in_groups() {
    let text = String::from_utf8(explain(&[]).stdout).unwrap();
    for group in ["The redirect\n", "\nProvider states\n", "\nAlerts\n", "\nLog events\n"] {
        assert!(text.contains(group), "{group:?} is not in\n{text}");
    }
    for explanation in explain::all() {
        let line = format!("\n  {} ", explanation.id);
        assert!(text.contains(&line), "{} is not in\n{text}", explanation.id);
    }
}

#[test]
fn an_unknown_id_gets_suggestions() {
    for (id, hint) in [
        ("redirect.qurey", "hint: did you mean `redirect.query`"),
        ("not_registerd", "hint: did you mean `state.not_registered`"),
        ("SelfCheckFaild", "hint: did you mean `alert.CallbackEdgeSelfCheckFailed`"),
        ("x", "hint: `callback-edge explain` lists all ids"),
    ] {
        let Output { status, stdout, stderr } = explain(&[id]);
        assert_eq!(status.code(), Some(64));
        assert!(stdout.is_empty());
        let text = String::from_utf8(stderr).unwrap();
        assert!(text.starts_with(&format!("error: unknown id `{id}`\n")), "{text}");
        assert!(text.contains(hint), "{text}");
    }
}

/// An alert and a log line contain the name without the prefix.
#[test]
fn a_name_that_only_one_id_has_needs_no_prefix() {
    for (name, id) in [
        ("CallbackEdgeSelfCheckFailed", "alert.CallbackEdgeSelfCheckFailed"),
        ("selfcheckfailed", "alert.CallbackEdgeSelfCheckFailed"),
        ("acme_failed", "event.acme_failed"),
        ("not_registered", "state.not_registered"),
    ] {
        let Output { status, stdout, .. } = explain(&[name]);
        assert!(status.success(), "{name}");
        assert_eq!(String::from_utf8(stdout).unwrap().lines().next(), Some(id));
    }
    // `url.query` and `redirect.query`.
    assert_eq!(explain(&["query"]).status.code(), Some(64));
}

/// A person who is on call needs a command to run, and the remedy.
#[test]
fn every_alert_has_a_severity_a_command_and_a_remedy() {
    let alerts = explain::all().iter().filter(|it| it.id.starts_with("alert."));
    let mut seen = 0;
    for alert in alerts {
        let text = String::from_utf8(explain(&[alert.id]).stdout).unwrap();
        let severity = alert.title.split(": ").next().unwrap();
        assert!(["Page", "Ticket"].contains(&severity), "{text}");
        for part in ["\n\nRun: `", "\n\nFix: "] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        seen += 1;
    }
    assert!(seen > 5, "nothing was checked");
}

fn explain(ids: &[&str]) -> Output {
    command(Path::new(ROOT)).arg("explain").args(ids).output().unwrap()
}
