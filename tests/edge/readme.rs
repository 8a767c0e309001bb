//! What the README shows is what the program does.

use crate::support::{Edge, command, connect, files_below};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn readme() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// The transcript of a command: what stands behind `$ <command>` in a `console` block.
fn transcript(readme: &str, command: &str) -> String {
    let start = format!("```console\n$ {command}\n");
    let (_, rest) = readme.split_once(&start).unwrap_or_else(|| panic!("no {start:?}"));
    rest.split_once("```").unwrap().0.to_owned()
}

/// Compares line by line; a line `…` stands for any lines, and `…` in a line for any text.
fn assert_shows(transcript: &str, output: &str) {
    let mut lines = output.lines();
    let mut skipping = false;
    for shown in transcript.lines() {
        if shown == "…" {
            skipping = true;
            continue;
        }
        let matches = |line: &str| match shown.split_once('…') {
            Some((start, end)) => line.starts_with(start) && line.ends_with(end),
            None => line == shown,
        };
        let found = if skipping { lines.find(|line| matches(line)) } else { lines.next() };
        assert!(
            found.is_some_and(matches),
            "the README shows {shown:?}, and the program says {}; mend the README by hand. \
             All of it:\n{output}",
            found.map_or("no line like it".to_owned(), |line| format!("{line:?}"))
        );
        skipping = false;
    }
    assert_eq!(lines.next(), None, "the README leaves out the end of:\n{output}");
}

#[tokio::test]
async fn the_first_screen_is_what_happens() {
    let readme = readme();
    let on_a_terminal = Edge::start("log.format = 'text'\nlisten.http = '127.0.0.1:0'");
    let on_a_terminal_address = on_a_terminal.http[0].to_string();
    let mut edge = Edge::start("listen.http = '127.0.0.1:0'");
    let address = edge.http[0].to_string();
    let as_shown = |text: &str| text.replace(&address, "127.0.0.1:8080");

    let greeting = on_a_terminal.finish().replace("config.toml", "built-in defaults");
    let greeting = greeting.split_inclusive("stops it\n").next().unwrap();
    let greeting = greeting.replace(&on_a_terminal_address, "127.0.0.1:8080");
    assert_shows(&transcript(&readme, "callback-edge"), &greeting);

    let target = "/oauth/callback?code=4%2F0Ab%20c&scope=a+b&scope=&flag";
    let reply = connect(edge.http[0]).await.get(target).await.unwrap();
    let headers: Vec<String> = reply
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
        .collect();
    assert_eq!(reply.status, 308);
    let answer = format!("HTTP/1.1 308 Permanent Redirect\n{}\n", headers.join("\n"));
    assert_shows(
        &transcript(&readme, &format!("curl -i 'http://127.0.0.1:8080{target}'")),
        &answer,
    );

    let fields = |line: &str| -> BTreeSet<String> {
        serde_json::from_str::<BTreeMap<String, Value>>(line).unwrap().into_keys().collect()
    };
    let (_, line) = readme.split_once("```json\n").unwrap();
    let log = edge.wait_for("\"outcome\":\"code\"");
    let logged = log.lines().find(|line| line.contains("\"event\":\"request\"")).unwrap();
    assert_eq!(fields(line.lines().next().unwrap()), fields(logged));

    let url = format!("http://{address}/oauth/callback");
    let check = command(edge.dir()).args(["check", "--no-follow", &url]).output().unwrap();
    assert_eq!(check.status.code(), Some(0));
    let shown = "callback-edge check --no-follow http://127.0.0.1:8080/oauth/callback";
    assert_shows(&transcript(&readme, shown), &as_shown(&String::from_utf8(check.stdout).unwrap()));
}

#[test]
fn the_mistakes_are_told_as_shown() {
    let dir = TempDir::new().unwrap();
    let settings =
        "redirct = \"https://api.nango.dev/oauth/callback\"\n[listen]\nhttp = \"0.0.0.0\"\n";
    fs::write(dir.path().join("config.toml"), settings).unwrap();
    let output = command(dir.path()).args(["config", "check"]).output().unwrap();
    assert_shows(
        &transcript(&readme(), "callback-edge config check"),
        &String::from_utf8(output.stderr).unwrap(),
    );
}

#[test]
fn the_digest_is_the_one_that_is_shown() {
    let dir = TempDir::new().unwrap();
    let mut hmac = command(dir.path());
    let output = hmac.args(["hmac", "github", "user-1"]).env("NANGO_HMAC_KEY", "secret").output();
    assert_shows(
        &transcript(&readme(), "NANGO_HMAC_KEY=secret callback-edge hmac github user-1"),
        &String::from_utf8(output.unwrap().stdout).unwrap(),
    );
}

#[test]
fn the_settings_of_the_quick_start_are_valid_but_for_the_files() {
    let readme = readme();
    let (_, settings) = readme.split_once("```toml\n").unwrap();
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config.toml"), settings.split_once("```").unwrap().0).unwrap();
    let output = command(dir.path()).args(["config", "show"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test]
async fn every_metric_stands_in_the_readme_and_none_besides() {
    let (edge, _) = Edge::over_tls(
        "
        tls.acme.domains = 'auth.example.com'
        tls.acme.directory = 'https://127.0.0.1:1/directory'
        tls.acme.state_dir = '{dir}/acme'
        tls.acme.agree_to_terms = true
        ",
    );
    // Some metrics come with the first self-check.
    connect(edge.admin[0]).await.get("/self-check").await.unwrap();
    let text = edge.metrics().await.0;
    let counters: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let exported: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(|name| {
            let info = name.ends_with("_build").then_some("_info");
            let total = counters.contains(name).then_some("_total");
            format!("{name}{}", info.or(total).unwrap_or_default())
        })
        .collect();
    let readme = readme();
    let (_, section) = readme.split_once("\n## Metrics\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let told: BTreeSet<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(told, exported);
}

#[test]
fn every_check_is_explained_where_its_hint_points() {
    let readme = readme();
    // The edge itself adds one to its self-check.
    let ids = || {
        let preflight = callback_edge::preflight::IDS;
        callback_edge::check::IDS.iter().copied().chain(["tls.acme"]).chain(preflight)
    };
    for id in ids() {
        let anchor = format!("<a id=\"{}\"></a>", id.replace('.', "-"));
        assert!(readme.contains(&anchor), "no {anchor} for {id}");
        assert!(
            readme.contains(&format!("`{id}`")) || readme.contains(&format!("`{id}.KEY`")),
            "{id} is not named"
        );
    }
    let anchors = readme.matches("<a id=\"").count();
    assert_eq!(anchors, ids().count(), "an anchor that no check leads to");
}

#[test]
fn every_event_stands_in_the_readme() {
    let mut told = BTreeSet::new();
    for file in files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(file).unwrap();
        for rest in text.split("event = \"").skip(1) {
            told.insert(rest.split('"').next().unwrap().to_owned());
        }
    }
    assert!(told.contains("request"), "the reader reads nothing");
    let readme = readme();
    let (_, section) = readme.split_once("\n## Logs\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    for event in told {
        assert!(section.contains(&format!("`{event}`")), "`{event}` is not explained");
    }
}

/// What is told loudly has a hint, and what was seen is its `cause`.
#[test]
fn every_event_that_warns_says_what_to_do() {
    // The first two have one where there is one; the third has nothing to do.
    const WITHOUT: [&str; 3] = ["config_error", "config_warning", "stopped"];
    let mut seen = 0;
    for file in files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let loud = ["tracing::warn!(", "tracing::error!("];
        for rest in loud.iter().flat_map(|call| text.split(call).skip(1)) {
            let fields = rest.split(");\n").next().unwrap();
            let event = fields.split("event = \"").nth(1).unwrap().split('"').next().unwrap();
            let says = fields.contains("hint") || WITHOUT.contains(&event);
            assert!(says, "`{event}` in {} has no hint", file.display());
            let bare = fields.replace("cause = %error", "").contains("%error");
            assert!(!bare, "`{event}` in {} has an `error`", file.display());
            seen += 1;
        }
    }
    assert!(seen > 10, "the reader reads nothing");
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut followed = 0;
    for page in [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "benches/README.md",
        "deploy/README.md",
        "tests/peers/README.md",
    ] {
        let text = fs::read_to_string(root.join(page)).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let place = match file {
                "" => root.join(page),
                file => root.join(page).parent().unwrap().join(file),
            };
            assert!(place.exists(), "{page}: `{link}` leads to no file");
            let leads =
                anchor.is_empty() || anchors(&fs::read_to_string(&place).unwrap()).contains(anchor);
            assert!(leads, "{page}: `{link}` leads to no heading");
            followed += 1;
        }
    }
    assert!(followed > 50, "the reader reads nothing");
}

/// What can stand behind a `#`: the headings as GitHub spells them, and the anchors.
fn anchors(page: &str) -> BTreeSet<String> {
    let heading = |line: &str| {
        let title =
            line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))?;
        let kept = title.to_lowercase().replace(' ', "-");
        Some(kept.chars().filter(|it| it.is_alphanumeric() || "-_".contains(*it)).collect())
    };
    let ids = page.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
    page.lines().filter_map(heading).chain(ids.map(ToOwned::to_owned)).collect()
}

#[test]
fn every_picture_is_shown_and_told_in_words() {
    let readme = readme();
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/pictures");
    for file in files_below(&pictures) {
        let name = file.file_name().unwrap().to_str().unwrap();
        // What a picture says, for the test that holds it.
        if file.extension().is_some_and(|kind| kind == "txt") {
            continue;
        }
        let end = format!("](.github/pictures/{name})");
        let (before, _) = readme.split_once(&end).unwrap_or_else(|| panic!("{name} is not shown"));
        let words = before.rsplit("![").next().unwrap();
        assert!(words.len() > 40 && !words.contains('\n'), "{name}: {words:?}");
    }
}
