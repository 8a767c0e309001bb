use super::{Check, Report, Status};
use maud::{Markup, PreEscaped, html as markup};
use std::time::Duration;

/// The reports as JUnit XML for CI systems: a suite for each callback, a case for each check. An
/// unconfirmed check is an error, because only a pass may be green.
pub fn junit(reports: &[Report]) -> String {
    let document = markup! {
        (PreEscaped("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"))
        testsuites name="callback-edge" { @for report in reports { (suite(report)) } }
        "\n"
    };
    document.into_string()
}

fn suite(report: &Report) -> Markup {
    let errors = report.count(Status::Unknown) + usize::from(report.broken.is_some());
    let tests = report.checks.len() + usize::from(report.broken.is_some());
    markup! {
        "\n"
        testsuite name=(report.callback) timestamp=(format!("{:.0}", report.started_at))
            time=(seconds(report.duration)) tests=(tests) failures=(report.count(Status::Fail))
            errors=(errors) skipped=(report.count(Status::Skip))
        {
            @for check in &report.checks { (case(check)) }
            @if let Some(broken) = &report.broken {
                "\n"
                testcase classname="run" name="run" { error type="could not run" message=(broken) {} }
            }
            "\n"
        }
    }
}

fn case(check: &Check) -> Markup {
    let summary = &check.summary;
    markup! {
        "\n"
        testcase classname=(check.category()) name=(check.id) time=(seconds(check.duration)) {
            @match check.status {
                Status::Pass => {},
                Status::Warn => { system-out { (summary) "\n" (body(check)) } },
                Status::Fail => { failure type="fail" message=(summary) { (body(check)) } },
                Status::Unknown => { error type="unknown" message=(summary) { (body(check)) } },
                Status::Skip => { skipped message=(check.detail.as_deref().unwrap_or(summary)) {} },
            }
        }
    }
}

/// Subject, detail and hint.
fn body(check: &Check) -> String {
    let hint = check.hint_line();
    let lines =
        [(!check.subject.is_empty()).then(|| check.subject.clone()), check.detail.clone(), hint];
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Extent;
    use jiff::Timestamp;

    #[test]
    fn only_a_pass_is_green_and_attributes_are_escaped() {
        let evil = "\"/></testcase><x a='&\u{1}";
        let report = Report {
            broken: Some("no network".into()),
            callback: "https://a.example/cb".into(),
            target: "https://b.example/cb".into(),
            started_at: Timestamp::UNIX_EPOCH,
            duration: Duration::from_millis(1500),
            checks: vec![
                Check::new("redirect.status", "answers 308"),
                Check::new("redirect.query", "").fail(evil).hint(evil),
                Check::new("integration.a", "").unknown(evil),
                Check::new("integration.b", "").skip(evil),
            ],
            extent: Extent::Complete,
            switch: None,
        };
        let xml = junit(&[report]);
        assert!(
            xml.contains(r#"time="1.500" tests="5" failures="1" errors="2" skipped="1""#),
            "{xml}"
        );
        assert_eq!(xml.matches("<testcase ").count(), 5, "{xml}");
        assert_eq!(xml.matches("</testcase>").count(), 5, "{xml}");
        assert!(!xml.contains("<x") && !xml.contains('\u{1}'), "{xml}");
    }
}
