//! Reports: no text becomes markup. The tags of a page are those of the same report with every letter
//! replaced by `x`.

#![no_main]

use callback_edge::report::{self, Check, Detail, Extent, Report, SwitchPlan};
use callback_edge_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

const IDS: [&str; 6] =
    ["url.https", "dns.resolves", "tls.name", "tls.expiry", "redirect.query", "integration.k"];

/// Builds reports from an input, each of their texts passed through `map`.
fn build(data: &[u8], map: fn(String) -> String) -> Vec<Report> {
    let mut input = Input(data);
    let mut reports = Vec::new();
    for _ in 0..=input.byte() % 2 {
        let flags = input.byte();
        let mut text = || map(input.text());
        let (callback, target) = (text(), text());
        let broken = (flags & 1 > 0).then(&mut text);
        let switch = (flags & 2 > 0).then(|| SwitchPlan {
            steps: vec![text()],
            cautions: vec![text()],
            ..SwitchPlan::default()
        });
        let mut checks = Vec::new();
        for _ in 0..flags >> 5 {
            let (kind, id) = (input.byte(), input.one(&IDS));
            let mut text = || map(input.text());
            let check = Check::new(id, text());
            let check = match kind % 5 {
                0 => check.pass(text()),
                1 => check.warn(text()),
                2 => check.fail(text()),
                3 => check.unknown(text()),
                _ => check.skip(text()),
            };
            let check = if kind & 16 > 0 { check.detail(text()) } else { check };
            let check = if kind & 32 > 0 { check.hint(text()) } else { check };
            checks.push(if kind & 64 > 0 { check.subject(text()) } else { check });
        }
        reports.push(Report {
            broken,
            callback,
            target,
            started_at: jiff::Timestamp::UNIX_EPOCH,
            duration: Duration::ZERO,
            checks,
            extent: Extent::Complete,
            switch,
        });
    }
    reports
}

/// Everything between `<` and `>`, except for the values of JUnit's attributes, which are texts.
fn tags(markup: &str) -> Vec<String> {
    markup
        .split('<')
        .skip(1)
        .map(|rest| {
            let tag = rest.split_once('>').expect("a tag without an end").0;
            // Values are the odd parts between quotes.
            tag.split('"').step_by(2).collect::<Vec<_>>().join("\"")
        })
        .collect()
}

fn plain(text: String) -> String {
    text.chars()
        .map(|it| if it == '\n' { "\n".into() } else { "x".repeat(it.len_utf8()) })
        .collect()
}

fuzz_target!(|data: &[u8]| {
    let reports = build(data, |text| text);
    let reference = build(data, plain);
    assert_eq!(tags(&report::html(&reports)), tags(&report::html(&reference)));
    assert_eq!(tags(&report::junit(&reports)), tags(&report::junit(&reference)));
    let json = report::json_list(&reports).expect("JSON");
    serde_json::from_str::<serde_json::Value>(&json).expect("JSON");
    std::hint::black_box(report::text(&reports, Some(40), Detail::All));
    std::hint::black_box(report::text(&reports, None, Detail::Findings));
    for report in &reports {
        std::hint::black_box(report::markdown(report));
    }
});
