//! The subcommand `check`: its output, its exit codes, and that queries are sent unchanged.

use crate::fakes::{
    Act, Authority, CertificateSpec, HOST, Received, Reply, behaviour, correct, nango, plain, tls,
};
use crate::support::{Edge, command, free, golden};
use callback_edge::check::IDS;
use callback_edge::outbound::{
    Limits, Offer, Outbound, Reason, Request, Resolver, Roots, Server, Step,
};
use http::{HeaderMap, Method};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

#[tokio::test]
async fn a_correct_callback_passes() {
    let stage = Stage::new(|_, correct| Act::Reply(correct)).await;
    let run = stage.check(&[]).await;
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
    golden("passing.txt", &stage.neutral(&run.stdout)).unwrap_or_else(|it| panic!("{it}"));
    let run = stage.check(&["-v"]).await;
    golden("passing-verbose.txt", &stage.neutral(&run.stdout)).unwrap_or_else(|it| panic!("{it}"));
}

#[tokio::test]
async fn a_broken_callback_fails_with_hints() {
    let stage = Stage::new(|_, correct| {
        let location = correct.location().replace("%2B", "+");
        Act::Reply(Reply::new(302).with("location", location).with("set-cookie", "id=s3cret"))
    })
    .await;
    let run = stage.check(&["--only", "redirect,nango"]).await;
    assert_eq!((run.code, run.stderr.as_str()), (1, ""), "{}", run.stdout);
    golden("failing.txt", &stage.neutral(&run.stdout)).unwrap_or_else(|it| panic!("{it}"));
}

#[tokio::test]
async fn a_recognized_server_gets_hints_of_its_own() {
    let stage = Stage::new(|heard, correct| {
        if correct.status == 404 {
            let page = format!("<pre>Cannot GET {}</pre>", heard.path);
            return Act::Reply(Reply::page(404, &page).with("x-powered-by", "Express"));
        }
        let location = correct.location().replace("%2F", "/");
        Act::Reply(
            Reply::new(301)
                .with("location", location)
                .with("x-powered-by", "Express")
                .with("set-cookie", "s3cret=s3cret"),
        )
    })
    .await;
    let run = stage.check(&["--only", "redirect.status,redirect.encoding,redirect.cache"]).await;
    let hints: Vec<_> = run.stdout.lines().filter(|line| line.contains("hint: ")).collect();
    let [first, second, third] = hints[..] else { panic!("{}", run.stdout) };
    assert!(first.contains("hint: the server is Express (`X-Powered-By: Express`): "), "{first}");
    assert!(first.ends_with("; run `callback-edge recipe express`"), "{first}");
    // What was said is not repeated.
    assert_eq!(second.trim(), "hint: the change for `redirect.cache` fixes this too");
    assert!(third.contains("hint: in Express: append the raw query"), "{third}");
    assert!(!run.stdout.contains("s3cret"), "{}", run.stdout);
}

#[tokio::test]
async fn an_unknown_server_gets_the_general_hints() {
    let stage = Stage::new(|_, correct| {
        let location = correct.location().replace("%2F", "/");
        Act::Reply(correct.to(location).with("server", "acme/1"))
    })
    .await;
    let run = stage.check(&["--only", "redirect.encoding"]).await;
    assert!(run.stdout.contains("hint: "), "{}", run.stdout);
    assert!(!run.stdout.contains("the server is"), "{}", run.stdout);
    assert!(!run.stdout.contains("callback-edge recipe"), "{}", run.stdout);
}

#[tokio::test]
async fn lost_queries_do_not_pass_as_converted_forms() {
    let stage = Stage::new(|_, correct| {
        let location = correct.location().split('?').next().unwrap().to_owned();
        Act::Reply(Reply::new(302).with("location", location))
    })
    .await;
    let run = stage.check(&["-v", "--only", "redirect.form"]).await;
    let form = run.stdout.lines().find(|line| line.ends_with(" redirect.form")).unwrap();
    assert!(form.starts_with("– not run: redirect.query failed "), "{}", run.stdout);
}

#[tokio::test]
async fn a_single_selected_check_gets_every_response() {
    let stage = Stage::new(|heard, correct| {
        let later = heard.query.as_ref().is_some_and(|query| query.contains("iss="));
        Act::Reply(if later { correct.with("set-cookie", "id=s3cret") } else { correct })
    })
    .await;
    let run = stage.check(&["--only", "redirect.cookie"]).await;
    assert!(run.stdout.contains("! sets a cookie"), "{}", run.stdout);
}

#[tokio::test]
async fn json_has_the_documented_fields() {
    let stage = Stage::new(|_, correct| Act::Reply(correct)).await;
    let run = stage.check(&["--json"]).await;
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let keys = |value: &Value| {
        value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>()
    };
    let set = |names: &str| names.split(' ').map(str::to_owned).collect();
    assert_eq!(
        keys(&report),
        set("callback checks duration_ms extent schema started_at target verdict")
    );
    assert_eq!((&report["schema"], &report["verdict"]), (&1.into(), &"pass".into()));
    assert_eq!(report["extent"], "complete");
    assert_eq!(report["callback"], stage.callback());
    assert!(report["started_at"].as_str().unwrap().ends_with('Z'));
    let checks = report["checks"].as_array().unwrap();
    let ids: Vec<_> = checks.iter().map(|check| check["id"].as_str().unwrap()).collect();
    assert_eq!(ids, IDS);
    for check in checks {
        assert_eq!(keys(check), set("detail docs duration_ms hint id status subject summary"));
        let id = check["id"].as_str().unwrap();
        assert_eq!(check["docs"], format!("docs/checks.md#{}", id.replace('.', "")));
    }
}

#[tokio::test]
async fn several_urls_give_an_array_and_the_worst_exit_code() {
    let stage = Stage::new(|_, correct| Act::Reply(correct)).await;
    let other = format!("{}/nothing", stage.callback());
    let run = stage.check(&["--json", &other]).await;
    let reports: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    let verdicts: Vec<_> = reports.iter().map(|report| report["verdict"].clone()).collect();
    assert_eq!(verdicts, ["pass", "fail"]);
    assert_eq!(run.code, 1);
}

#[tokio::test]
async fn the_callback_of_a_provider_comes_from_its_origin() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&heard);
    let stage = Stage::new(move |request, correct| {
        keep.lock().unwrap().push(request.clone());
        Act::Reply(correct)
    })
    .await;
    stage.check(&["--no-follow"]).await;
    let heard = heard.lock().unwrap();
    let with = |part: &str| {
        let has = |it: &&Received| it.query.as_ref().is_some_and(|query| query.contains(part));
        heard.iter().find(has).unwrap()
    };
    for (query, referer) in [
        ("iss=https%3A%2F%2Faccounts.google.com", Some("https://accounts.google.com/")),
        ("error_subcode=cancel", Some("https://login.microsoftonline.com/")),
        ("code=invented-code", None),
        ("scope=a&scope=b", None),
    ] {
        let request = with(query);
        assert_eq!(request.header("referer"), referer, "{query}");
        assert_eq!(request.header("sec-fetch-site"), Some("cross-site"), "{query}");
        assert_eq!(request.header("sec-fetch-mode"), Some("navigate"), "{query}");
        assert_eq!(request.header("sec-fetch-dest"), Some("document"), "{query}");
        assert_eq!(request.header("sec-fetch-user"), None, "{query}");
    }
    let agents: Vec<_> = heard.iter().map(|it| it.header("user-agent").unwrap_or("none")).collect();
    for agent in ["none", "curl", "python-requests", "Go-http-client", "axios"] {
        assert_eq!(agents.iter().filter(|it| it.starts_with(agent)).count(), 1, "{agent}");
    }
}

#[tokio::test]
async fn no_follow_sends_nothing_to_nango() {
    let visits = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&visits);
    let stage = Stage::with_nango(
        |_, correct| Act::Reply(correct),
        move |heard| {
            count.fetch_add(1, Ordering::SeqCst);
            nango(heard)
        },
    )
    .await;
    let run = stage.check(&["--no-follow"]).await;
    assert_eq!((run.code, visits.load(Ordering::SeqCst)), (0, 0));
    assert!(run.stdout.contains("not run: following to Nango is off"), "{}", run.stdout);
    stage.check(&[]).await;
    // `nango.callback`, `nango.echo`, and `nango.end_to_end` for both callbacks.
    assert_eq!(visits.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn an_unreachable_nango_is_unconfirmed() {
    let stage = Stage::with_nango(|_, correct| Act::Reply(correct), |_| Act::Raw(Vec::new())).await;
    let run = stage.check(&["--only", "nango."]).await;
    assert_eq!(run.code, 2, "{}", run.stdout);
    assert!(run.stdout.contains("2 of 2 checks unconfirmed"), "{}", run.stdout);
}

#[tokio::test]
async fn wait_repeats_without_nango_until_the_callback_works() {
    let (runs, visits) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&visits);
    let stage = Stage::with_nango(
        move |heard, correct| {
            let plain = heard.query.as_ref().is_some_and(|query| query.contains("invented-code"));
            // Every run repeats its first request twice.
            let early = plain && runs.fetch_add(1, Ordering::SeqCst) < 6;
            Act::Reply(if early { Reply::new(503) } else { correct })
        },
        move |heard| {
            count.fetch_add(1, Ordering::SeqCst);
            nango(heard)
        },
    )
    .await;
    let run = stage.check(&["--wait", "20s", "--only", "redirect.status,nango"]).await;
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(
        run.stdout.ends_with("√ the selected checks pass: 4 of 4 checks passed\n"),
        "{}",
        run.stdout
    );
    // The attempt that finds the callback working sends only the proof that costs Nango nothing.
    assert_eq!(visits.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn wait_stops_at_its_limit_and_reports_the_failures() {
    let stage = Stage::new(|_, _| Act::Reply(Reply::new(503))).await;
    let run = stage.check(&["--wait", "300ms", "--no-follow"]).await;
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("responds with 503 instead of a redirect"), "{}", run.stdout);
}

#[tokio::test]
async fn usage_errors_exit_64_and_contain_the_expected_value() {
    let stage = Stage::new(|_, correct| Act::Reply(correct)).await;
    for (args, text) in [
        (&["--only", "redirects"][..], "no check id has this prefix"),
        (&["--timeout", "0s"], "is not a duration"),
        (&["--timeout=-1s"], "is not a duration"),
        (&["--wait", "soon"], "is not a duration"),
        (&["--resolve", "a:b"], "contains no host, port and address"),
        (&["--connect-to", "a:1:b:2"], "contains no host, port and address"),
        (&["--ca", "/nonexistent.pem"], "cannot use certificate file `/nonexistent.pem`"),
        (&["--ca", "Cargo.toml"], "contains no readable PEM certificate"),
        (&["--target", "nango"], "is neither an http nor an https URL"),
        (&[""], "is empty"),
        (&[" \n"], "is empty"),
    ] {
        let run = stage.check(args).await;
        assert_eq!((run.code, run.stdout.as_str()), (64, ""), "{args:?}");
        assert!(run.stderr.contains(text), "{args:?}: {}", run.stderr);
    }
}

#[tokio::test]
async fn checks_blocked_by_one_failure_are_reported_in_one_line_for_each_category() {
    let run = callback_edge(&["check", &format!("http://{}/oauth/callback", free())]).await;
    assert_eq!(run.code, 1);
    let blocked = |line: &&str| line.contains(" not run: dns.reach failed");
    let lines: Vec<_> = run.stdout.lines().filter(blocked).collect();
    let categories: Vec<_> =
        lines.iter().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(categories, ["dns", "tls", "redirect", "nango"], "{}", run.stdout);
}

#[tokio::test]
async fn without_a_url_the_configured_callbacks_are_checked() {
    let edge = Edge::start("listen.http = '127.0.0.1:0'");
    // The port is known now, so it can be configured.
    let settings = format!("listen.http = '{}'\n[[route]]\npath = '/oauth/callback'", edge.http[0]);
    edge.rewrite(&settings);
    let file = edge.dir().join("config.toml");
    let args = ["-c", file.to_str().unwrap(), "check", "--no-follow", "--json"];
    let run = callback_edge(&args).await;
    let [report]: [Value; 1] = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["callback"], format!("http://{}/oauth/callback", edge.http[0]));
    assert_eq!((run.code, &report["verdict"]), (0, &"pass".into()), "{}", run.stdout);

    edge.rewrite("lisen = 1");
    let run = callback_edge(&args).await;
    assert_eq!((run.code, run.stdout.as_str()), (64, ""));
    assert!(run.stderr.contains("unknown key `lisen`"), "{}", run.stderr);
}

#[tokio::test]
async fn settings_set_the_address_and_the_ca_of_the_callback() {
    let authority = Authority::new("ours");
    let config = authority.issue(CertificateSpec::default()).config(&["h2", "http/1.1"]);
    let server =
        tls(config, behaviour(|heard| Act::Reply(correct("https://api.nango.dev", heard)))).await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca = file("ca.pem", &authority.pem);
    let settings = |connect_to: &str| {
        format!(
            "[[route]]\nhost = '{HOST}'\npath = '/oauth/callback'\n\
             [self_check]\nconnect_to = '{HOST}:443:{connect_to}'\n"
        )
    };
    let good = format!("{}root_ca = '{ca}'", settings(&server.to_string()));
    let check = async |settings: String, args: &[&str]| {
        let file = file("config.toml", &settings);
        let mut all = vec!["-c", &file, "check", "--no-follow", "--skip", "redirect.http"];
        all.extend(args);
        callback_edge(&all).await
    };
    let run = check(good.clone(), &[]).await;
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
    let run = check(good, &[&format!("https://{HOST}/oauth/callback")]).await;
    assert_eq!(run.code, 0, "{}", run.stdout);

    // The command line overrides `connect_to` and adds to `root_ca`.
    let connect_to = format!("{HOST}:443:{server}");
    let run = check(settings("127.0.0.1:1"), &["--connect-to", &connect_to, "--ca", &ca]).await;
    assert_eq!(run.code, 0, "{}", run.stdout);
    let run = check(settings(&server.to_string()), &["--only", "tls.chain"]).await;
    assert_eq!(run.code, 1, "{}", run.stdout);
    let no_ca = format!("{}root_ca = '/nonexistent.pem'", settings("127.0.0.1:1"));
    let run = check(no_ca, &[]).await;
    assert_eq!((run.code, run.stdout.as_str()), (64, ""));
    assert!(run.stderr.contains("/nonexistent.pem"), "{}", run.stderr);
}

#[tokio::test]
async fn explicit_settings_apply_to_a_url_and_a_local_file_does_not() {
    let stage = Stage::new(|_, correct| Act::Reply(correct)).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("named.toml");
    let origin = format!("http://{}", stage.nango);
    std::fs::write(&file, format!("[nango]\nurl = '{origin}'")).unwrap();
    let url = stage.callback();
    let target_with = async |variables: &[(&str, &str)]| {
        let mut command = command(dir.path());
        command.args(["check", "--only", "url", "--json", &url]).envs(variables.iter().copied());
        let run = ran(command).await;
        let report: Value = serde_json::from_str(&run.stdout).unwrap_or_default();
        (run.code, report["target"].as_str().unwrap_or_default().to_owned())
    };
    let own = (0, format!("{origin}/oauth/callback"));
    assert_eq!(target_with(&[]).await.1, "https://api.nango.dev/oauth/callback");
    assert_eq!(target_with(&[("CALLBACK_EDGE_NANGO__URL", &origin)]).await, own);
    assert_eq!(target_with(&[("CALLBACK_EDGE_CONFIG", file.to_str().unwrap())]).await, own);
    assert_eq!(
        target_with(&[("CALLBACK_EDGE_CONFIG", "")]).await.1,
        "https://api.nango.dev/oauth/callback"
    );
    assert_eq!(target_with(&[("CALLBACK_EDGE_NANGO__URI", &origin)]).await.0, 64);
    // A local file is not read.
    std::fs::write(dir.path().join("config.toml"), "nonsense").unwrap();
    assert_eq!(target_with(&[]).await.1, "https://api.nango.dev/oauth/callback");
    assert_eq!(target_with(&[("CALLBACK_EDGE_CONFIG", file.to_str().unwrap())]).await, own);
}

#[tokio::test]
async fn the_default_target_has_the_path_of_the_url() {
    for (path, expected) in [
        ("/oauth/callback", "/oauth/callback"),
        ("/app-auth/connect", "/app-auth/connect"),
        ("/app-auth/connect/?code=a", "/app-auth/connect"),
        ("", "/oauth/callback"),
    ] {
        let url = format!("https://{HOST}{path}");
        let run = callback_edge(&[
            "check",
            "--only",
            "url",
            "--resolve",
            &format!("{HOST}:443:127.0.0.1"),
            "--json",
            &url,
        ])
        .await;
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(report["target"], format!("https://api.nango.dev{expected}"), "{path}");
    }
}

#[tokio::test]
async fn settings_with_port_0_are_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    let check = async |settings: &str| {
        std::fs::write(dir.path().join("config.toml"), settings).unwrap();
        let mut command = command(dir.path());
        command.args(["check", "--only", "url"]);
        ran(command).await
    };
    let run = check("listen.http = '127.0.0.1:0'").await;
    assert_eq!((run.code, run.stdout.as_str()), (64, ""));
    assert_eq!(
        run.stderr,
        "error: cannot connect: `listen.http` has port 0, which is a different port at each start\n\
         hint: set a fixed port in `listen.http`\n"
    );
    let run = check("listen.http = '127.0.0.1:0'\npublic_url = 'http://127.0.0.1:1'").await;
    assert_ne!(run.code, 64, "{}", run.stderr);
}

#[tokio::test]
async fn json_of_configured_callbacks_is_always_an_array() {
    let dir = tempfile::tempdir().unwrap();
    let settings = "public_url = 'http://127.0.0.1:1'\n[[route]]\npath = '/oauth/callback'";
    std::fs::write(dir.path().join("config.toml"), settings).unwrap();
    let mut command = command(dir.path());
    command.args(["check", "--only", "url", "--json"]);
    let run = ran(command).await;
    let reports: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(reports.len(), 1);
}

#[tokio::test]
async fn a_closed_pipe_keeps_the_exit_code() {
    let stage = Stage::new(|_, _| Act::Reply(Reply::new(503))).await;
    let url = stage.callback();
    for (args, code) in [
        (&["check", "--no-follow", &url][..], 1),
        (&["check", "--no-follow", "--json", &url], 1),
        (&["--help"], 0),
        (&["help", "check"], 0),
        (&["--version"], 0),
        (&["config", "show"], 0),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let run = ran_into(args, writer.into()).await;
        assert_eq!((run.code, run.stderr.as_str()), (code, ""), "{args:?}");
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let run = ran_into(args, full.into()).await;
        assert_eq!(run.code, 3, "{args:?}");
        assert!(run.stderr.starts_with("error: cannot write: "), "{args:?}: {}", run.stderr);
    }
}

#[tokio::test]
async fn a_usage_error_exits_64_when_stderr_is_not_writable() {
    for args in [&["nonsense"][..], &["check", "--ca", "/nonexistent.pem", "https://a.test"]] {
        let mut command = with(args);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        command.stdout(Stdio::piped()).stderr(full);
        assert_eq!(run_prepared(command).await.code, 64, "{args:?}");
    }
}

#[tokio::test]
async fn a_machine_without_a_route_could_not_run() {
    // No route leads to the broadcast address by TCP (RFC 1122 §4.2.3.10).
    let connect_to = format!("{HOST}:443:255.255.255.255:443");
    let url = format!("https://{HOST}/oauth/callback");
    let run = callback_edge(&["check", "--no-follow", "--connect-to", &connect_to, &url]).await;
    assert_eq!((run.code, run.stderr.as_str()), (3, ""), "{}", run.stdout);
    assert!(
        run.stdout.ends_with("could not run: this machine has no route to the callback\n"),
        "{}",
        run.stdout
    );
}

#[tokio::test]
async fn help_is_a_subcommand() {
    for args in [&["help"][..], &["help", "check"], &["config", "help"]] {
        let run = callback_edge(args).await;
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{args:?}");
        assert!(run.stdout.contains("Usage: "), "{args:?}");
    }
}

#[tokio::test]
async fn help_ends_with_an_example() {
    let run = callback_edge(&["check", "--help"]).await;
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let last = run.stdout.lines().last().unwrap().trim();
    assert_eq!(last, "callback-edge check https://auth.example.com/oauth/callback");
}

#[tokio::test]
async fn a_secret_in_the_url_is_not_printed() {
    let stage = Stage::new(|_, correct| Act::Reply(correct)).await;
    let pasted = format!("{}?code=s3cret&state=s3cret#s3cret", stage.callback());
    for form in ["--json", "--no-follow"] {
        let run = stage.check(&[form, &pasted]).await;
        assert_eq!(run.code, 1);
        assert!(!run.stdout.contains("s3cret"), "{}", run.stdout);
    }
}

#[tokio::test]
async fn queries_are_sent_byte_for_byte() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&heard);
    let server = plain(behaviour(move |request: &Received| {
        keep.lock().unwrap().push(request.query.clone());
        Act::Reply(Reply::new(204))
    }))
    .await;
    let outbound = Outbound::new(Resolver::default(), Roots::public(), Limits::default());
    let to = Server { tls: false, host: "a.test".into(), port: 80 }.at(server);
    let mut connection = outbound.connect_without_verification(&to, Offer::Both).await.unwrap();
    let request = |query: &str| Request {
        method: Method::GET,
        path_and_query: format!("/cb?{query}"),
        headers: HeaderMap::new(),
        body: bytes::Bytes::new(),
    };
    let queries =
        ["a='", "a={b}|^`", "a=é", "%2f%2F", "", "?", "a&b=&&", "%zz%", "a[]=1", "a=~+%20"];
    for query in queries {
        connection.send(&request(query)).await.unwrap();
        assert!(connection.ready().await);
    }
    assert_eq!(*heard.lock().unwrap(), queries.map(|query| Some(query.to_owned())));
    for refused in ["a b", "a=\u{7f}", "a\r\nb"] {
        let fault = connection.send(&request(refused)).await.unwrap_err();
        assert_eq!((fault.step, fault.reason), (Step::Head, Reason::Unsendable), "{refused:?}");
    }
}

/// A callback and a Nango.
pub(crate) struct Stage {
    pub(crate) callback: std::net::SocketAddr,
    pub(crate) nango: std::net::SocketAddr,
}

impl Stage {
    pub(crate) async fn new(
        change: impl Fn(&Received, Reply) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self::with_nango(change, nango).await
    }

    async fn with_nango(
        change: impl Fn(&Received, Reply) -> Act + Send + Sync + 'static,
        nango: impl Fn(&Received) -> Act + Send + Sync + 'static,
    ) -> Self {
        let nango = plain(behaviour(nango)).await;
        let origin = format!("http://{nango}");
        let callback = plain(behaviour(move |heard| change(heard, correct(&origin, heard)))).await;
        Self { callback, nango }
    }

    pub(crate) fn callback(&self) -> String {
        format!("http://{}/oauth/callback", self.callback)
    }

    pub(crate) async fn check(&self, args: &[&str]) -> Run {
        let (callback, target) = (self.callback(), format!("http://{}/oauth/callback", self.nango));
        let mut all = vec!["check", &callback];
        if !args.contains(&"--target") {
            all.extend(["--target", &target]);
        }
        all.extend(args);
        callback_edge(&all).await
    }

    /// The text with placeholders for what differs from run to run.
    pub(crate) fn neutral(&self, text: &str) -> String {
        text.replace(&self.callback.to_string(), "CALLBACK")
            .replace(&self.nango.to_string(), "NANGO")
    }
}

pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the built binary without the settings of the environment of the tests.
pub(crate) async fn callback_edge(args: &[&str]) -> Run {
    ran(with(args)).await
}

/// Runs it with another stdout.
async fn ran_into(args: &[&str], stdout: Stdio) -> Run {
    let mut command = with(args);
    command.stdout(stdout).stderr(Stdio::piped());
    run_prepared(command).await
}

async fn ran(mut command: Command) -> Run {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    run_prepared(command).await
}

async fn run_prepared(mut command: Command) -> Run {
    command.stdin(Stdio::null());
    let child = command.spawn().unwrap();
    // It may own the other end of a pipe.
    drop(command);
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn with(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callback-edge"));
    command.args(args).env_remove("CALLBACK_EDGE_CONFIG");
    command
}
