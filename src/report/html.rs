use super::{Check, Report, Status, Verdict};
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64;
use maud::{DOCTYPE, Markup, PreEscaped, html as markup};
use std::sync::LazyLock;

/// The report for a browser, without scripts and external resources.
/// Serve it with [`html_policy`].
pub fn html(reports: &[Report]) -> String {
    let verdict = Verdict::of(reports);
    let mark = verdict.status().mark();
    let (headline, sentence) = headline(verdict, reports);
    let page = markup! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { (headline) " – callback-edge self-check" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    header class=(status_class(verdict.status())) {
                        p class="product" { "callback-edge self-check" }
                        h1 { span class="mark" aria-hidden="true" { (mark) } (headline) }
                        p { (sentence) }
                    }
                    (urls_to_register(reports))
                    @for report in reports { (section(report)) }
                }
                footer { p { "callback-edge " (env!("CARGO_PKG_VERSION")) } }
            }
        }
    };
    page.into_string()
}

/// The `Content-Security-Policy` under which the page works: its own style sheet and nothing else.
pub fn html_policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let hash = BASE64.encode(digest(&SHA256, STYLE.as_bytes()).as_ref());
        format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        )
    });
    &POLICY
}

fn headline(verdict: Verdict, reports: &[Report]) -> (&'static str, String) {
    let count = |status| reports.iter().map(|report| report.count(status)).sum::<usize>();
    let checks = |count| if count == 1 { "1 check".to_owned() } else { format!("{count} checks") };
    let warnings =
        |count| if count == 1 { "1 warning".to_owned() } else { format!("{count} warnings") };
    match verdict {
        Verdict::Pass if count(Status::Warn) > 0 => {
            ("The callback works", format!("Nothing failed; {}.", warnings(count(Status::Warn))))
        }
        Verdict::Pass => ("The callback works", "Nothing failed.".to_owned()),
        Verdict::Fail => (
            "The callback is broken",
            format!(
                "{} failed. Logins through this callback fail or will fail.",
                checks(count(Status::Fail))
            ),
        ),
        Verdict::Unconfirmed => (
            "The callback is unconfirmed",
            format!(
                "Nothing failed, but {} could not be completed.",
                checks(count(Status::Unknown).max(1))
            ),
        ),
        Verdict::Error => {
            ("The check could not run", "The state of the callback is unknown.".to_owned())
        }
    }
}

/// The URLs to copy. One click selects a whole URL.
fn urls_to_register(reports: &[Report]) -> Markup {
    let is_app = |report: &Report| {
        report.target.split('?').next().unwrap_or_default().ends_with("/app-auth/connect")
    };
    markup! {
        section aria-labelledby="paste" {
            h2 id="paste" { "URLs to register" }
            dl class="paste" {
                @for report in reports {
                    dt {
                        @if is_app(report) {
                            "Setup URL of GitHub Apps"
                        } @else {
                            "Callback URL: at every API provider, then in Nango's environment settings"
                        }
                    }
                    dd { code { (report.callback) } }
                }
            }
        }
    }
}

fn section(report: &Report) -> Markup {
    let detail =
        |id: &str| report.checks.iter().find(|check| check.id == id && !check.is_skipped());
    markup! {
        section {
            h2 { code { (report.callback) } }
            dl class="facts" {
                div { dt { "Redirects to" } dd { code { (report.target) } } }
                @if let Some(check) = detail("dns.resolves") {
                    div { dt { "Addresses" } dd { (check.detail.as_deref().unwrap_or(&check.summary)) } }
                }
                @if let Some(shown) = detail("tls.expiry").and_then(|check| check.detail.as_deref()) {
                    div {
                        dt { "Certificate" }
                        dd { (shown.strip_prefix("certificate ").unwrap_or(shown)) }
                    }
                }
                div {
                    dt { "Checked" }
                    dd {
                        time { (report.started_at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()) }
                        " in " (report.duration.as_millis()) " ms"
                    }
                }
            }
            @if let Some(broken) = &report.broken { p class="broken" { (broken) } }
            @let problems = report.findings();
            @if !problems.is_empty() {
                h3 { "To fix or confirm" }
                ul class="checks" { @for check in problems { (row(check)) } }
            }
            @if !report.checks.is_empty() {
                details {
                    summary { (counts(report)) }
                    @for category in categories(report) {
                        h3 { (category) }
                        ul class="checks" {
                            @for check in report.checks.iter().filter(|check| {
                                check.category() == category && !check.status.needs_attention()
                            }) {
                                (row(check))
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The counts of the checks that need no attention.
fn counts(report: &Report) -> String {
    let (passed, skipped) = (report.count(Status::Pass), report.count(Status::Skip));
    if skipped == 0 {
        format!("{passed} passed")
    } else {
        format!("{passed} passed, {skipped} not run")
    }
}

fn categories(report: &Report) -> Vec<&str> {
    let quiet = report.checks.iter().filter(|check| !check.status.needs_attention());
    let mut categories: Vec<&str> = quiet.map(Check::category).collect();
    categories.dedup();
    categories
}

fn row(check: &Check) -> Markup {
    markup! {
        li class=(status_class(check.status)) {
            span class="mark" aria-hidden="true" { (check.status.mark()) }
            div {
                p class="summary" {
                    span class="status" { (status_word(check.status)) ": " }
                    (check.summary) " " code class="id" { (check.id) }
                }
                @for line in check.detail.iter().flat_map(|detail| detail.lines()) {
                    p class="detail" { (line) }
                }
                @if let Some(hint) = &check.hint {
                    p class="hint" { b { "What to do: " } (hint) }
                }
                @if let Some(explanation) = check.explanation() && check.status.needs_attention() {
                    details class="explanation" {
                        summary { "Explanation of " code { (explanation.id) } }
                        // From the documents, not from a report.
                        (PreEscaped(explanation.html()))
                    }
                }
            }
        }
    }
}

const fn status_class(status: Status) -> &'static str {
    match status {
        Status::Pass => "pass",
        Status::Warn | Status::Unknown => "warn",
        Status::Fail => "fail",
        Status::Skip => "skip",
    }
}

const fn status_word(status: Status) -> &'static str {
    match status {
        Status::Pass => "passed",
        Status::Warn => "warning",
        Status::Unknown => "unconfirmed",
        Status::Fail => "failed",
        Status::Skip => "not run",
    }
}

const STYLE: &str = include_str!("page.css");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Extent;
    use std::time::Duration;

    #[test]
    fn text_of_a_report_is_escaped() {
        let evil = "<script>alert(1)</script>\"'&";
        let report = Report {
            broken: Some(evil.to_owned()),
            callback: evil.to_owned(),
            target: evil.to_owned(),
            started_at: jiff::Timestamp::UNIX_EPOCH,
            duration: Duration::ZERO,
            checks: vec![Check::new("url.https", evil).fail(evil).detail(evil).hint(evil)],
            extent: Extent::Complete,
            switch: None,
        };
        let page = html(&[report]);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;"), "{page}");
    }

    #[test]
    fn only_checks_that_need_attention_are_explained_on_the_page() {
        let page = |check| {
            html(&[Report {
                broken: None,
                callback: "https://a.example/cb".to_owned(),
                target: "https://b.example/cb".to_owned(),
                started_at: jiff::Timestamp::UNIX_EPOCH,
                duration: Duration::ZERO,
                checks: vec![check],
                extent: Extent::Complete,
                switch: None,
            }])
        };
        let failed = page(Check::new("redirect.cache", "").fail("no"));
        assert!(failed.contains("<details class=\"explanation\">"), "{failed}");
        assert!(
            failed.contains("<strong>Why:</strong> A 308 or 301 needs <code>Cache-Control"),
            "{failed}"
        );
        assert!(!page(Check::new("redirect.cache", "")).contains("class=\"explanation\""));
    }

    #[test]
    fn the_policy_allows_the_style_sheet_of_the_page() {
        assert!(html(&[]).contains(&format!("<style>{STYLE}</style>")));
        let hash = BASE64.encode(digest(&SHA256, STYLE.as_bytes()).as_ref());
        assert!(html_policy().contains(&hash));
    }
}
