//! The text report of `check`, its command line, its interruption and its repetition.

use crate::check::{Stage, callback_edge, with};
use crate::fakes::{
    Act, Authority, CertificateSpec, HOST, Received, Reply, behaviour, correct, nango, plain, tls,
};
use crate::support::golden::updates;
use crate::support::{Lines, Metrics, golden, on_a_terminal};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// Encodes the query twice, as some servers do.
fn rebuilt(_: &Received, correct: Reply) -> Act {
    let location = correct.location().replace('%', "%25");
    Act::Reply(correct.status(302).to(location))
}

/// The output of a check on a terminal with this many columns.
async fn shown(stage: &Stage, columns: u16, variable: (&str, &str)) -> String {
    let target = format!("http://{}/oauth/callback", stage.nango);
    let mut check = with(&["check", &stage.callback(), "--target", &target]);
    check.env(variable.0, variable.1).stderr(Stdio::null());
    tokio::task::spawn_blocking(move || on_a_terminal(check, columns)).await.unwrap().1
}

fn plain_text(output: &str) -> String {
    anstream::adapter::strip_str(output).to_string()
}

#[tokio::test]
async fn a_report_fits_its_terminal_and_breaks_neither_words_nor_code() {
    let stage = Stage::new(rebuilt).await;
    let coloured = shown(&stage, 80, ("NO_COLOR", "")).await;
    assert!(coloured.contains("\u{1b}[31m×\u{1b}[0m"), "{coloured:?}");
    let text = plain_text(&coloured);
    // The ports differ in length from run to run, and with them the lines that contain them.
    let neutral = stage.neutral(&text).replacen(" →\nhttp://NANGO", " → http://NANGO", 1);
    golden("failing-80-columns.txt", &neutral).unwrap_or_else(|it| panic!("{it}"));

    let narrow = plain_text(&shown(&stage, 40, ("NO_COLOR", "")).await);
    for (text, columns) in [(&text, 80), (&narrow, 40)] {
        for line in text.lines().filter(|line| line.chars().count() > columns) {
            let words = line.trim().trim_start_matches("hint: ").trim_start_matches("× ");
            let is_one = !words.contains(' ') || words.starts_with('`') || line.starts_with("more");
            assert!(is_one, "{columns}: {line:?} in\n{text}");
        }
        for line in text.lines() {
            assert!(line.matches('`').count() % 2 == 0, "{columns}: {line:?} in\n{text}");
        }
    }
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(flat(&narrow), flat(&text));
}

#[tokio::test]
async fn a_report_has_colour_only_on_a_terminal_that_wants_it() {
    let stage = Stage::new(rebuilt).await;
    assert!(!shown(&stage, 80, ("NO_COLOR", "1")).await.contains('\u{1b}'));
    assert!(!stage.check(&["--no-follow"]).await.stdout.contains('\u{1b}'));
}

#[tokio::test]
async fn quiet_prints_one_line_and_keeps_the_exit_code() {
    let stage = Stage::new(|_, correct| Act::Reply(correct)).await;
    let run = stage.check(&["-q"]).await;
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.starts_with("√ the callback works: "), "{}", run.stdout);
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
    let other = format!("{}/nothing", stage.callback());
    let run = stage.check(&["--quiet", &other]).await;
    assert_eq!((run.code, run.stdout.as_str()), (1, "× 2 callbacks: 1 failed, 1 passed\n"));
    for excluded in ["--json", "--junit", "-v"] {
        assert_eq!(stage.check(&["-q", excluded]).await.code, 64, "{excluded}");
    }
}

#[tokio::test]
async fn one_run_writes_a_report_for_people_and_one_for_a_ci_system() {
    let stage = Stage::new(|_, correct| Act::Reply(correct)).await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("check.xml");
    let name = file.to_str().unwrap();
    let other = format!("{}/nothing", stage.callback());
    let run = stage.check(&["--markdown", "--junit-file", name, &other]).await;
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stdout.starts_with("## the callback works: "), "{}", run.stdout);
    assert!(run.stdout.contains("\n## the callback is not ready: "), "{}", run.stdout);
    let xml = fs::read_to_string(&file).unwrap();
    assert_eq!(xml.matches("<testsuite ").count(), 2, "{xml}");
    assert!(xml.contains("<failure "), "{xml}");

    let run = stage.check(&["--junit-file", "/nowhere/check.xml"]).await;
    assert_eq!((run.code, run.stdout.as_str()), (3, ""));
    assert!(run.stderr.contains("cannot write: `/nowhere/check.xml`: "), "{}", run.stderr);
}

#[tokio::test]
async fn several_urls_give_a_report_each_and_one_summary() {
    let stage = Stage::new(|_, correct| Act::Reply(correct)).await;
    let other = format!("{}/nothing", stage.callback());
    let run = stage.check(&[&other]).await;
    assert_eq!(run.stdout.matches(" → http").count(), 2, "{}", run.stdout);
    assert_eq!(run.stdout.matches("\n√ the callback works: ").count(), 1, "{}", run.stdout);
    assert_eq!(run.stdout.matches("\n× the callback is not ready: ").count(), 1, "{}", run.stdout);
    assert!(run.stdout.ends_with("\n\n× 2 callbacks: 1 failed, 1 passed\n"), "{}", run.stdout);
}

#[tokio::test]
async fn a_part_of_the_checks_does_not_confirm_the_callback() {
    let stage = Stage::new(|_, correct| Act::Reply(correct)).await;
    let run = stage.check(&["-q", "--only", "redirect.status"]).await;
    assert_eq!(run.stdout, "√ the selected checks pass: 1 of 1 check passed\n");
}

#[tokio::test]
async fn arguments_that_are_almost_urls_are_corrected_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("edge.toml"), "").unwrap();
    let correct = "callback-edge check https://auth.example.com/oauth/callback";
    for (given, error, hint) in [
        (
            "auth.example.com/oauth/callback",
            "`auth.example.com/oauth/callback` has no scheme",
            correct,
        ),
        (
            "auth.example.com/oauth/callback?code=s3cret#s3cret",
            "`auth.example.com/oauth/callback` has no scheme",
            correct,
        ),
        (
            " \"https://auth.example.com/oauth/callback\"\n",
            "`https://auth.example.com/oauth/callback` is in quotes",
            correct,
        ),
        (
            "localhost:8080/oauth/callback",
            "`localhost:8080/oauth/callback` has no scheme",
            "callback-edge check http://localhost:8080/oauth/callback",
        ),
        (
            "[::1]:8080/cb",
            "`[::1]:8080/cb` has no scheme",
            "callback-edge check http://[::1]:8080/cb",
        ),
        (
            "user:s3cret@auth.example.com/cb",
            "the URL has no scheme, but credentials",
            "remove everything up to the `@`, and start with https://",
        ),
        ("edge.toml", "`edge.toml` is a file, not a URL", "callback-edge -c edge.toml check"),
        (" \n", "the URL is empty", correct),
    ] {
        let mut check = with(&["check", given]);
        let output = check.current_dir(dir.path()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0), "{given}: {stderr}");
        assert_eq!(stderr, format!("error: {error}\nhint: {hint}\n"), "{given}");
    }
    // These have no obvious correction: the report describes them, without secrets.
    for given in [
        "https://auth.example.com/oauth callback",
        "https://auth .example.com/oauth/callback",
        "auth",
        "/oauth/callback",
        "mailto:someone",
        "auth.example.com/cb;x",
    ] {
        let connect_to = ["--resolve", "auth.example.com:443:127.0.0.1"];
        let all = [&["check", "--only", "url", given][..], &connect_to].concat();
        let run = callback_edge(&all).await;
        assert_eq!((run.code, run.stderr.as_str()), (1, ""), "{given}: {}", run.stdout);
        assert!(run.stdout.contains("hint: ") && !run.stdout.contains("s3cret"), "{}", run.stdout);
    }
}

#[tokio::test]
async fn plain_http_on_a_public_host_fails_with_the_reason() {
    let args = ["--only", "url", "--resolve", "auth.example.com:80:127.0.0.1"];
    let url = "http://auth.example.com/oauth/callback";
    let run = callback_edge(&[&["check", url][..], &args].concat()).await;
    assert_eq!(run.code, 1, "{}", run.stdout);
    assert!(run.stdout.contains("\n× uses plain http  url.https\n"), "{}", run.stdout);
    assert!(run.stdout.contains("hint: serve the callback over https"), "{}", run.stdout);
}

#[tokio::test]
async fn other_usage_errors_suggest_what_was_meant() {
    let url = "https://auth.example.com/oauth/callback";
    for (args, text) in [
        (
            &["check", url, "--target", "api.nango.dev/oauth/callback"][..],
            "did you mean `https://api.nango.dev/oauth/callback`?",
        ),
        (&["check", url, "--only", "redirects"], "did you mean `redirect`?"),
        (&["check", url, "--skip", "redirect.qurey"], "did you mean `redirect.query`?"),
        (&["check", url, "--only", "zzz"], "ids start with url., dns., tls., redirect. or nango."),
        (&["check", url, "--every", "1s"], "is too short: at least 10 s"),
        (&["check", url, "--metrics", "127.0.0.1:0"], "--every"),
        (&["check", url, "--every", "1m", "--wait", "1m"], "cannot be used with"),
    ] {
        let run = callback_edge(args).await;
        assert_eq!((run.code, run.stdout.as_str()), (64, ""), "{args:?}");
        assert!(run.stderr.contains(text), "{args:?}: {}", run.stderr);
    }
}

/// `/etc/callback-edge/config.toml` does not exist on a machine that runs tests.
#[test]
fn without_a_url_and_a_configuration_file_check_explains_its_usage() {
    let dir = tempfile::tempdir().unwrap();
    let output = with(&["check"]).current_dir(dir.path()).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "error: there is no URL and no configuration file\n\
         hint: callback-edge check https://auth.example.com/oauth/callback or callback-edge -c FILE check\n"
    );
}

/// Starts a check whose server stops responding after this many requests, and waits until it does.
async fn hanging(responses: usize, args: &[&str]) -> (Child, Stage) {
    let (sender, mut hangs) = tokio::sync::mpsc::unbounded_channel();
    let count = AtomicUsize::new(0);
    let stage = Stage::new(move |_, correct| {
        if count.fetch_add(1, Ordering::SeqCst) < responses {
            return Act::Reply(correct);
        }
        let _ = sender.send(());
        Act::Hang(Vec::new())
    })
    .await;
    let target = format!("http://{}/oauth/callback", stage.nango);
    let mut command = with(&["check", &stage.callback(), "--target", &target]);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    hangs.recv().await.unwrap();
    (child, stage)
}

async fn ended(child: Child) -> (Option<i32>, String, String) {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_signal_ends_a_check_with_what_is_known() {
    for (signal, responses) in [(Signal::INT, 0), (Signal::INT, 9), (Signal::TERM, 30)] {
        let (child, _stage) = hanging(responses, &["-v", "--timeout", "10m"]).await;
        kill_process(Pid::from_child(&child), signal).unwrap();
        let (code, stdout, stderr) = ended(child).await;
        assert_eq!((code, stderr.as_str()), (Some(130), ""), "{stdout}");
        let status = |id: &str| {
            let line = stdout.lines().find(|line| line.trim_end().ends_with(&format!(" {id}")));
            line.unwrap_or_else(|| panic!("no {id} in {stdout}")).to_owned()
        };
        for id in
            ["redirect.query", "redirect.encoding", "redirect.cache", "redirect.size", "nango.echo"]
        {
            assert!(status(id).starts_with("– not run: interrupted "), "{id}: {stdout}");
        }
        assert!(status("url.syntax").starts_with("√ "), "{stdout}");
        assert!(status("tls.chain").contains("the callback is plain http"), "{stdout}");
        if responses > 0 {
            assert!(status("redirect.status").starts_with("√ "), "{stdout}");
        }
        let last = stdout.lines().last().unwrap();
        assert!(last.starts_with("? interrupted: ") && !stdout.contains('×'), "{stdout}");
    }
}

#[tokio::test]
async fn an_interrupt_ends_the_wait_and_the_following_urls() {
    let (child, stage) = hanging(0, &["--wait", "10m", "--timeout", "10m", "--json"]).await;
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let (code, stdout, _) = ended(child).await;
    assert_eq!(code, Some(130), "{stdout}");
    assert!(stdout.contains("\"extent\": \"interrupted\""), "{stdout}");
    let other = format!("http://{}/other/oauth/callback", stage.callback);
    let (child, _stage) = hanging(0, &[&other, "--timeout", "10m"]).await;
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let (code, stdout, _) = ended(child).await;
    assert_eq!(code, Some(130), "{stdout}");
    assert_eq!(stdout.matches("\n? interrupted: ").count(), 2, "{stdout}");
    assert!(stdout.ends_with("\n? 2 callbacks: 2 unconfirmed\n"), "{stdout}");
}

/// A check that has proved a failure reports it.
#[tokio::test]
async fn an_interrupted_check_reports_its_failures() {
    let (sender, mut hangs) = tokio::sync::mpsc::unbounded_channel();
    let count = AtomicUsize::new(0);
    let stage = Stage::new(move |heard, correct| {
        if count.fetch_add(1, Ordering::SeqCst) < 40 {
            return rebuilt(heard, correct);
        }
        let _ = sender.send(());
        Act::Hang(Vec::new())
    })
    .await;
    let target = format!("http://{}/oauth/callback", stage.nango);
    let mut command = with(&["check", &stage.callback(), "--target", &target]);
    command.args(["--timeout", "10m"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    hangs.recv().await.unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let (code, stdout, _) = ended(child).await;
    assert_eq!(code, Some(130), "{stdout}");
    assert!(stdout.contains(" redirect.encoding\n"), "{stdout}");
    assert!(stdout.contains("interrupted"), "{stdout}");
}

#[tokio::test]
async fn a_repeated_check_logs_a_line_and_exports_metrics() {
    let works = Arc::new(Mutex::new(true));
    let switch = Arc::clone(&works);
    let stage = Stage::new(move |heard, correct| {
        if *switch.lock().unwrap() { Act::Reply(correct) } else { rebuilt(heard, correct) }
    })
    .await;
    let target = format!("http://{}/oauth/callback", stage.nango);
    let url = stage.callback();
    let mut command = with(&["check", &url, "--target", &target, "--no-follow"]);
    command.args(["--every", "10s", "--metrics", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) =
        (Lines::of(child.stdout.take().unwrap()), Lines::of(child.stderr.take().unwrap()));
    let (mut child, line) = waited(child, &stderr, "/metrics\n").await;
    let address = line.trim().strip_prefix("metrics on http://").unwrap();
    let address: SocketAddr = address.strip_suffix("/metrics").unwrap().parse().unwrap();

    let wanted = format!(" {url}: the callback works: ");
    (child, _) = waited(child, &stdout, &wanted).await;
    let verdict = |verdict| format!("check_verdict{{callback=\"{url}\",verdict=\"{verdict}\"}}");
    let metrics = Metrics::read(address).await;
    assert_eq!(metrics.find(&verdict("warn")), Some(1.0), "{}", metrics.0);
    *works.lock().unwrap() = false;
    let (child, log) = waited(child, &stdout, "the callback is not ready: ").await;
    let failed = log.lines().find(|line| line.contains("not ready")).unwrap();
    assert!(failed.contains("redirect.encoding"), "{log}");
    let metrics = Metrics::read(address).await;
    assert_eq!(metrics.find(&verdict("fail")), Some(1.0), "{}", metrics.0);
    assert_eq!(metrics.find(&verdict("warn")), None, "{}", metrics.0);
    let check = format!("check_failed{{callback=\"{url}\",check=\"redirect.encoding\"}}");
    assert_eq!(metrics.find(&check), Some(1.0), "{}", metrics.0);
    assert_eq!(metrics.find("check_runs_total{verdict=\"fail\"}"), Some(1.0), "{}", metrics.0);

    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(ended(child).await.0, Some(1));
}

/// Waits without blocking the servers of the test.
async fn waited(mut child: Child, lines: &Arc<Lines>, needle: &str) -> (Child, String) {
    let (lines, needle) = (Arc::clone(lines), needle.to_owned());
    let wait = move || {
        let text = lines.wait_for(&mut child, &[&needle]);
        (child, text)
    };
    tokio::task::spawn_blocking(wait).await.unwrap()
}

/// `docs/checks.md` states how many requests a check sends. `UPDATE_GOLDEN=1` writes the numbers.
#[tokio::test]
async fn a_check_sends_the_documented_number_of_requests() {
    let authority = Authority::new("ours");
    let config = |name: &str| {
        let names = vec![name.to_owned()];
        authority
            .issue(CertificateSpec { names, ..CertificateSpec::default() })
            .config(&["h2", "http/1.1"])
    };
    let nango_host = "nango.example.test";
    let (at_callback, at_nango) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let size = |heard: &Received| heard.query.as_ref().map_or(0, String::len) + heard.body.len();
    let counted = Arc::clone(&at_callback);
    let callback = behaviour(move |heard| {
        counted.lock().unwrap().push(size(heard));
        Act::Reply(correct(&format!("https://{nango_host}"), heard))
    });
    let counted = Arc::clone(&at_callback);
    let to_https = behaviour(move |heard| {
        counted.lock().unwrap().push(size(heard));
        let query = heard.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let location = format!("https://{HOST}{}{query}", heard.path);
        Act::Reply(Reply::new(308).with("location", location))
    });
    let counted = Arc::clone(&at_nango);
    let target = behaviour(move |heard| {
        counted.fetch_add(1, Ordering::SeqCst);
        nango(heard)
    });
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, &authority.pem).unwrap();
    let (callback, to_https) = (tls(config(HOST), callback).await, plain(to_https).await);
    let target = tls(config(nango_host), target).await;
    let run = callback_edge(&[
        "check",
        &format!("https://{HOST}/oauth/callback"),
        &format!("--target=https://{nango_host}/oauth/callback"),
        &format!("--ca={}", ca.display()),
        &format!("--connect-to={HOST}:443:{callback}"),
        &format!("--connect-to={HOST}:80:{to_https}"),
        &format!("--connect-to={nango_host}:443:{target}"),
    ])
    .await;
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
    let sizes = at_callback.lock().unwrap().clone();
    let sentence = format!(
        "`callback-edge check URL` sends {} requests with at most {} KiB of parameters to a callback that works and\n\
         has one address, and {} requests to Nango.",
        sizes.len(),
        sizes.iter().max().unwrap().div_ceil(1024),
        at_nango.load(Ordering::SeqCst)
    );
    let file = "docs/checks.md";
    let page = fs::read_to_string(file).unwrap();
    if page.contains(&sentence) {
        return;
    }
    assert!(
        updates(),
        "{file} does not contain:\n{sentence}\nRun the test with `UPDATE_GOLDEN=1`."
    );
    let (before, rest) = page.split_once("`callback-edge check URL` sends ").unwrap();
    let (_, after) = rest.split_once(" to Nango.").unwrap();
    fs::write(file, [before, &sentence, after].concat()).unwrap();
}

#[tokio::test]
async fn the_total_time_limit_ends_a_check() {
    let stage = Stage::new(|_, _| Act::Hang(Vec::new())).await;
    let began = std::time::Instant::now();
    let run = stage.check(&["--timeout", "10m", "--total", "300ms", "--no-follow"]).await;
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(run.code, 2, "{}", run.stdout);
    let help = callback_edge(&["check", "--help"]).await;
    assert!(help.stdout.contains("--total <DURATION>"), "{}", help.stdout);
}
