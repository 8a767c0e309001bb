//! Transcripts, tables, links and pictures in the documents match the program.

use crate::support::{Edge, assert_shows, command, connect, files_below};
use callback_edge::observe::{CheckMetrics, CheckRun, PreflightMetrics, PreflightRun};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const README: &str = "README.md";
const REFERENCE: &str = "docs/reference.md";
const PREFLIGHT: &str = "docs/preflight.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// A section of a page, up to the next heading of the same level.
fn section(name: &str, title: &str) -> String {
    let page = page(name);
    let (_, section) = page.split_once(&format!("\n## {title}\n")).unwrap();
    section.split("\n## ").next().unwrap().to_owned()
}

#[test]
fn the_readme_is_short() {
    assert!(page(README).lines().count() <= 150);
}

#[tokio::test]
async fn the_transcripts_of_the_readme_are_correct() {
    let on_a_terminal = Edge::start("log.format = 'text'\nlisten.http = '127.0.0.1:0'");
    let on_a_terminal_address = on_a_terminal.http[0].to_string();
    let mut edge = Edge::start("listen.http = '127.0.0.1:0'");
    let address = edge.http[0].to_string();
    let greeting = on_a_terminal.finish().replace("config.toml", "built-in defaults");
    let greeting = greeting.split_inclusive("to stop\n").next().unwrap();
    let greeting = greeting.replace(&on_a_terminal_address, "127.0.0.1:8080");
    assert_shows(README, "callback-edge", &greeting);

    let target = "/oauth/callback?code=4%2F0Ab%20c&scope=a+b&scope=&flag";
    let reply = connect(edge.http[0]).await.get(target).await.unwrap();
    let headers: Vec<String> = reply
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
        .collect();
    assert_eq!(reply.status, 308);
    let response = format!("HTTP/1.1 308 Permanent Redirect\n{}\n", headers.join("\n"));
    assert_shows(README, &format!("curl -i 'http://127.0.0.1:8080{target}'"), &response);

    let fields = |line: &str| -> BTreeSet<String> {
        serde_json::from_str::<BTreeMap<String, Value>>(line).unwrap().into_keys().collect()
    };
    let logs = section(REFERENCE, "Logs");
    let (_, line) = logs.split_once("```json\n").unwrap();
    let log = edge.wait_for("\"outcome\":\"code\"");
    let logged = log.lines().find(|line| line.contains("\"event\":\"request\"")).unwrap();
    assert_eq!(fields(line.lines().next().unwrap()), fields(logged));

    let url = format!("http://{address}/oauth/callback");
    let check = command(edge.dir()).args(["check", "--no-follow", &url]).output().unwrap();
    assert_eq!(check.status.code(), Some(0));
}

#[test]
fn configuration_errors_are_reported_as_shown() {
    let dir = TempDir::new().unwrap();
    let settings =
        "redirct = \"https://api.nango.dev/oauth/callback\"\n[listen]\nhttp = \"0.0.0.0\"\n";
    fs::write(dir.path().join("config.toml"), settings).unwrap();
    let output = command(dir.path()).args(["config", "check"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_shows(REFERENCE, "callback-edge config check", &stderr);
}

#[test]
fn the_signature_is_computed_as_shown() {
    let dir = TempDir::new().unwrap();
    let mut hmac = command(dir.path());
    let output = hmac.args(["hmac", "github", "user-1"]).env("NANGO_HMAC_KEY", "secret").output();
    let stdout = String::from_utf8(output.unwrap().stdout).unwrap();
    assert_shows(PREFLIGHT, "NANGO_HMAC_KEY=secret callback-edge hmac github user-1", &stdout);
}

#[test]
fn the_configuration_in_the_readme_is_valid() {
    let readme = page(README);
    let (_, settings) = readme.split_once("```toml\n").unwrap();
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config.toml"), settings.split_once("```").unwrap().0).unwrap();
    // `config check` would also read the certificate files.
    let output = command(dir.path()).args(["config", "show"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test]
async fn the_table_of_metrics_is_complete() {
    let (edge, _) = Edge::over_tls(
        "
        tls.acme.domains = 'auth.example.com'
        tls.acme.directory = 'https://127.0.0.1:1/directory'
        tls.acme.state_dir = '{dir}/acme'
        tls.acme.agree_to_terms = true
        ",
    );
    // The first self-check registers some of the metrics.
    connect(edge.admin[0]).await.get("/self-check").await.unwrap();
    let text = edge.metrics().await.0;
    assert_eq!(documented(&section(REFERENCE, "Metrics")), exported(&text));
}

#[test]
fn the_tables_of_metrics_of_repeated_commands_are_complete() {
    let (metrics, preflight) = PreflightMetrics::new();
    let run = PreflightRun { verdict: "pass", safe: true, switched: false, failed: 0 };
    metrics.record(run, [("slack", "registered")]);
    let (metrics, check) = CheckMetrics::new();
    let run = CheckRun { callback: "https://a.test", verdict: "fail", failed: vec!["url.https"] };
    metrics.record(&[run], Duration::from_millis(1500));
    for (title, all) in
        [("Metrics of a repeated preflight", preflight), ("Metrics of a repeated check", check)]
    {
        let text = all.text().unwrap();
        assert_eq!(documented(&section(REFERENCE, title)), exported(&text), "{text}");
    }
}

/// The names of the metrics in a table.
fn documented(table: &str) -> BTreeSet<String> {
    table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .map(ToOwned::to_owned)
        .collect()
}

/// The names of the metrics in a scrape.
fn exported(text: &str) -> BTreeSet<String> {
    let counters: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(|name| {
            let info = name.ends_with("_build").then_some("_info");
            let total = counters.contains(name).then_some("_total");
            format!("{name}{}", info.or(total).unwrap_or_default())
        })
        .collect()
}

/// The error text is in the field `cause`.
#[test]
fn every_warning_and_error_in_the_log_has_a_hint() {
    // The first two have a hint where there is one; the third needs no action.
    const WITHOUT: [&str; 3] = ["config_error", "config_warning", "stopped"];
    let mut seen = 0;
    for file in files_below(&root().join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        // The tests of a module log anything.
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let macros = ["tracing::warn!(", "tracing::error!("];
        for rest in macros.iter().flat_map(|call| text.split(call).skip(1)) {
            let fields = rest.split(");\n").next().unwrap();
            let event = fields.split("event = \"").nth(1).unwrap().split('"').next().unwrap();
            let has_hint = fields.contains("hint") || WITHOUT.contains(&event);
            assert!(has_hint, "`{event}` in {} has no hint", file.display());
            let bare = fields.replace("cause = %error", "").contains("%error");
            assert!(!bare, "`{event}` in {} has an `error`", file.display());
            seen += 1;
        }
    }
    assert!(seen > 10, "nothing was checked");
}

/// Every page of the documentation.
fn pages() -> Vec<PathBuf> {
    let others = [
        README,
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "benches/README.md",
        "deploy/README.md",
        "tests/peers/README.md",
    ];
    let others = others.iter().map(|name| root().join(name));
    files_below(&root().join("docs")).into_iter().chain(others).collect()
}

#[test]
fn every_link_between_the_pages_leads_to_a_file_and_a_heading() {
    let mut followed = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            let page = page.display();
            assert!(target.exists(), "{page}: `{link}` leads to no file");
            let leads = anchor.is_empty()
                || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor);
            assert!(leads, "{page}: `{link}` leads to no heading");
            followed += 1;
        }
    }
    assert!(followed > 80, "nothing was checked");
}

/// The anchors of the headings, as GitHub derives them.
fn anchors(page: &str) -> BTreeSet<String> {
    let heading = |line: &str| {
        let title =
            line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))?;
        let updated = title.to_lowercase().replace(' ', "-");
        Some(updated.chars().filter(|it| it.is_alphanumeric() || "-_".contains(*it)).collect())
    };
    page.lines().filter_map(heading).collect()
}

#[test]
fn every_picture_is_shown_and_described() {
    let shown: String = pages().iter().map(|page| fs::read_to_string(page).unwrap()).collect();
    for file in files_below(&root().join(".github/pictures")) {
        let name = file.file_name().unwrap().to_str().unwrap();
        // The text of a picture, for the test of that picture.
        if file.extension().is_some_and(|kind| kind == "txt") {
            continue;
        }
        let end = format!(".github/pictures/{name})");
        let (before, _) = shown.split_once(&end).unwrap_or_else(|| panic!("{name} is not shown"));
        let words = before.rsplit("![").next().unwrap();
        assert!(words.len() > 40 && !words.contains('\n'), "{name}: {words:?}");
    }
}
