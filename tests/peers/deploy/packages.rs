//! The packages of npm and `PyPI`, and the Homebrew formula: built from the static program and placeholders
//! for other platforms, and installed from a registry of the test or from files.

use super::image::static_program;
use super::{PROJECT, REFUSED, deploy_path, documents, run};
use crate::peer::{Peer, program, search_path};
use crate::support::process::Lines;
use crate::support::{Edge, files_below};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use tempfile::TempDir;

const TARGETS: [&str; 4] = [
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "x86_64-apple-darwin",
    "aarch64-apple-darwin",
];

/// The files of a release, made once.
static RELEASE: LazyLock<PathBuf> = LazyLock::new(|| {
    // Not a temporary directory: nothing would remove that at exit.
    let out = Path::new(PROJECT).join("target/packages");
    if out.exists() {
        fs::remove_dir_all(&out).unwrap();
    }
    for target in TARGETS {
        let contents = TempDir::new().unwrap();
        let file = contents.path().join("callback-edge");
        fs::create_dir_all(&out).unwrap();
        if target == format!("{}-unknown-linux-gnu", std::env::consts::ARCH) {
            run(Command::new("strip").arg("-o").arg(&file).arg(static_program()));
        } else {
            fs::write(&file, format!("a placeholder for {target}\n")).unwrap();
        }
        let archive = out.join(format!("callback-edge-{target}.tar.gz"));
        let mut tar = Command::new("tar");
        run(tar.arg("-czf").arg(archive).arg("-C").arg(contents.path()).arg("callback-edge"));
    }
    let mut build = Command::new("/usr/bin/python3");
    run(build.arg("-B").arg(deploy_path("packages/build")).arg(&out));
    let mut pack = foreign(&out, "npm");
    pack.args(["pack", "--silent"]);
    for directory in fs::read_dir(out.join("npm")).unwrap() {
        pack.arg(directory.unwrap().path());
    }
    run(&mut pack);
    out
});

/// A callback that works, and one that does not.
fn callbacks() -> (Edge, [String; 2]) {
    let edge = Edge::start(&format!("listen.http = '127.0.0.1:0'\nnango.url = '{REFUSED}'"));
    let urls = ["", "/nothing"].map(|path| format!("http://{}{path}/oauth/callback", edge.http[0]));
    (edge, urls)
}

#[test]
fn npx_and_uvx_run_the_program_from_an_empty_directory() {
    let (registry, origin) = registry();
    let (_edge, urls) = callbacks();
    let dir = TempDir::new().unwrap();
    for (name, arguments) in [("npx", &["--yes"][..]), ("uvx", &["--no-python-downloads"])] {
        for (url, code) in urls.iter().zip([0, 1]) {
            let mut command = foreign(dir.path(), name);
            command.env("npm_config_registry", &origin);
            command.env("UV_DEFAULT_INDEX", format!("{origin}/simple"));
            command.env("CALLBACK_EDGE_NANGO__URL", REFUSED);
            command.args(arguments).args(["callback-edge", "check", "--no-follow", url]);
            assert_checked(&command.output().unwrap(), code);
        }
    }
    drop(registry);
}

#[test]
fn npm_and_pip_install_the_files_without_a_registry() {
    let (_edge, urls) = callbacks();
    let dir = TempDir::new().unwrap();
    let mut npm = foreign(dir.path(), "npm");
    npm.args(["install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund"]);
    // The package of the program first: it is that of this machine.
    npm.arg(file("callback-edge-linux", ".tgz")).arg(file("callback-edge-0", ".tgz"));
    run(&mut npm);
    let venv = dir.path().join("venv");
    run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&venv));
    let mut pip = Command::new(venv.join("bin/pip"));
    run(pip
        .args(["install", "--quiet", "--disable-pip-version-check", "--no-index", "--find-links"])
        .arg(&*RELEASE)
        .arg("callback-edge"));
    for installed in ["node_modules/.bin/callback-edge", "venv/bin/callback-edge"] {
        for (url, code) in urls.iter().zip([0, 1]) {
            let program = dir.path().join(installed);
            let mut command = foreign(dir.path(), program.to_str().unwrap());
            command.env("CALLBACK_EDGE_NANGO__URL", REFUSED);
            assert_checked(&command.args(["check", "--no-follow", url]).output().unwrap(), code);
        }
    }
}

/// The program may be ready before Node returns from starting it: here Node returns only after the signal.
#[test]
fn the_launcher_of_npm_forwards_every_signal_and_ends_as_the_program_does() {
    let (dir, launcher) = launcher();
    let preload = dir.path().join("spawn.js");
    let wait = "const processes = require('child_process');
        const { spawn } = processes;
        processes.spawn = (...parameters) => {
            const child = spawn(...parameters);
            require('fs').readSync(0, Buffer.alloc(1));
            return child;
        };";
    fs::write(&preload, wait).unwrap();
    let mut server = foreign(launcher.parent().unwrap(), "node");
    server.arg("--require").arg(&preload).arg(&launcher).arg("serve");
    server.env("CALLBACK_EDGE_LISTEN__HTTP", "127.0.0.1:0");
    let server = server.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server = server.spawn().unwrap();
    let log = Lines::of(server.stderr.take().unwrap());
    log.wait_for(&mut server, &["\"ready\""]);
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    drop(server.stdin.take());
    assert_eq!(server.wait().unwrap().code(), Some(0), "{}", log.text());
    assert!(log.text().contains("\"stopped\""), "{}", log.text());
}

#[test]
fn the_launcher_of_npm_reports_a_platform_without_a_program() {
    let (dir, launcher) = launcher();
    let run_launcher = |arguments: &[&str]| {
        let mut node = foreign(dir.path(), "node");
        let output = node.args(arguments).arg(&launcher).arg("--version").output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let preload = dir.path().join("platform.js");
    fs::write(&preload, "Object.defineProperty(process, 'platform', { value: 'sunos' });").unwrap();
    let error = run_launcher(&["--require", preload.to_str().unwrap()]);
    assert!(error.starts_with("error: there is no program for `sunos-"), "{error}");
    assert!(error.contains("\nhint: it exists for linux-x64, linux-arm64, darwin-x64"), "{error}");

    fs::remove_dir_all(dir.path().join("node_modules/@callback-edge")).unwrap();
    let error = run_launcher(&[]);
    assert!(error.contains("the package `@callback-edge/linux-"), "{error}");
    assert!(error.contains("\nhint: install again without `--omit=optional`"), "{error}");
}

/// Without running them: there is no machine of these platforms.
#[test]
fn packages_of_every_platform_contain_their_program() {
    let version = env!("CARGO_PKG_VERSION");
    let npm = RELEASE.join("npm");
    let main: Value = read(&npm.join("main/package.json"));
    let optional = main["optionalDependencies"].as_object().unwrap();
    assert_eq!(optional.len(), TARGETS.len());
    assert!(main["scripts"].is_null(), "no script runs at installation");
    for (name, required) in optional {
        assert_eq!(required, version, "{name}");
        let platform = name.rsplit('/').next().unwrap();
        let manifest: Value = read(&npm.join(platform).join("package.json"));
        assert_eq!(&manifest["name"], name);
        let (os, cpu) = platform.split_once('-').unwrap();
        assert_eq!((&manifest["os"][0], &manifest["cpu"][0]), (&os.into(), &cpu.into()));
        let mut pack = foreign(&RELEASE, "npm");
        pack.args(["pack", "--dry-run", "--json"]).arg(npm.join(platform));
        let packed: Value = serde_json::from_slice(&pack.output().unwrap().stdout).unwrap();
        let files = packed[0]["files"].as_array().unwrap().clone();
        let files: Vec<_> = files.iter().map(|file| file["path"].as_str().unwrap()).collect();
        assert_eq!(files, ["LICENSE", "callback-edge", "package.json"], "{platform}");
    }
    let wheels = files_below(&RELEASE);
    let wheels = wheels.iter().filter(|file| file.extension().is_some_and(|kind| kind == "whl"));
    let check = "import sys, zipfile; print(zipfile.ZipFile(sys.argv[1]).testzip())";
    let mut count = 0;
    for wheel in wheels {
        let mut python = Command::new("/usr/bin/python3");
        assert_eq!(run(python.args(["-c", check]).arg(wheel)), "None\n");
        count += 1;
    }
    assert_eq!(count, TARGETS.len());
}

#[test]
fn the_formula_has_the_checksum_of_every_archive() {
    let formula = RELEASE.join("callback-edge.rb");
    run(Command::new(program("ruby")).args(["-c", "-W"]).arg(&formula));
    let formula = fs::read_to_string(formula).unwrap();
    for target in TARGETS {
        let name = format!("callback-edge-{target}.tar.gz");
        let sum = run(Command::new("sha256sum").arg(RELEASE.join(&name)));
        let sum = sum.split(' ').next().unwrap();
        let (_, after) =
            formula.split_once(&format!("/v{}/{name}\"\n", env!("CARGO_PKG_VERSION"))).unwrap();
        assert_eq!(after.lines().next().unwrap().trim(), format!("sha256 \"{sum}\""), "{target}");
    }
}

/// The steps of `action.yml`, as a runner executes them, in an empty directory: they have only the files of the
/// Action and the registry.
#[test]
fn the_action_checks_a_callback_of_a_foreign_repository() {
    let (registry, origin) = registry();
    let (edge, [good, bad]) = callbacks();
    let inside = |inputs: &[(&str, &str)]| run_action(&origin, inputs);

    let done = inside(&[("callback", &good)]);
    assert_eq!((done.code, &*done.result), (0, "exit-code=0\n"), "{}", done.output);
    assert!(done.summary.starts_with("## the callback works: "), "{}", done.summary);
    assert!(done.reports.contains_key("check.xml") && !done.reports.contains_key("preflight.xml"));

    let done =
        inside(&[("callback", &bad), ("strict", "true"), ("fail-when-unconfirmed", "false")]);
    assert_eq!((done.code, &*done.result), (1, "exit-code=1\n"), "{}", done.output);
    assert!(done.summary.starts_with("## the callback is not ready: "), "{}", done.summary);
    assert!(done.reports["check.xml"].contains("<failure "), "{}", done.reports["check.xml"]);

    // Nango refuses connections.
    let key = ("nango-secret-key", "canary-key");
    let more = [("callback", &*good), key, ("integrations", "slack, github")];
    let done = inside(&more);
    assert_eq!((done.code, &*done.result), (3, "exit-code=3\n"), "{}", done.output);
    assert!(
        done.reports["preflight.xml"].contains("nango.key"),
        "{}",
        done.reports["preflight.xml"]
    );
    let all = format!("{done:?}");
    assert!(!all.contains("canary"), "{all}");

    // An input is one argument, and no input is an option.
    let project = "no such/nango.toml --help";
    let done = inside(&[("callback", &good), key, ("project", project)]);
    assert_eq!(done.code, 64, "{}", done.output);
    assert!(done.output.contains(&format!("`{project}`")), "{}", done.output);
    let done = inside(&[("callback", "--help")]);
    assert_eq!((done.code, done.summary.contains("url.syntax")), (1, true), "{}", done.output);

    let done = inside(&[("callback", &good), ("version", "9.9.9")]);
    assert!(done.code != 0 && done.output.contains("9.9.9"), "{}", done.output);
    drop((registry, edge));
}

/// What a run of the Action leaves.
#[derive(Debug)]
struct Done {
    code: i32,
    output: String,
    /// Its outputs.
    result: String,
    summary: String,
    reports: BTreeMap<String, String>,
}

/// Runs the steps of the Action in an empty repository; npm uses the registry at `origin`.
fn run_action(origin: &str, given: &[(&str, &str)]) -> Done {
    let action = fs::read_to_string(Path::new(PROJECT).join("action.yml")).unwrap();
    let action = &documents(&action)[0];
    let dir = TempDir::new().unwrap();
    let paths = ["repository", "action/deploy", "runner"].map(|name| dir.path().join(name));
    let [repository, deploy, temporary] = &paths;
    for path in &paths {
        fs::create_dir_all(path).unwrap();
    }
    // The runner downloads the repository of the Action, which uses only this file.
    fs::create_dir(deploy.join("ci")).unwrap();
    fs::copy(deploy_path("ci/preflight"), deploy.join("ci/preflight")).unwrap();

    let mut values = BTreeMap::from([
        ("runner.temp".to_owned(), temporary.display().to_string()),
        ("github.action_path".to_owned(), dir.path().join("action").display().to_string()),
    ]);
    for (name, input) in action["inputs"].as_object().unwrap() {
        let given = given.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
        let value = given.or(input["default"].as_str()).unwrap_or_else(|| panic!("no {name}"));
        values.insert(format!("inputs.{name}"), value.to_owned());
    }
    let (output, summary) = (dir.path().join("output"), dir.path().join("summary"));
    let (mut code, mut text) = (0, String::new());
    for step in action["runs"]["steps"].as_array().unwrap() {
        let mut bash = foreign(repository, "bash");
        bash.args([
            "--noprofile",
            "--norc",
            "-eo",
            "pipefail",
            "-c",
            step["run"].as_str().unwrap(),
        ]);
        bash.env("GITHUB_OUTPUT", &output).env("GITHUB_STEP_SUMMARY", &summary);
        bash.env("npm_config_registry", origin).env("HOME", temporary);
        bash.env("CALLBACK_EDGE_NANGO__URL", REFUSED).env("CHECK_OPTIONS", "--no-follow");
        bash.env("PREFLIGHT_OPTIONS", "--no-follow --timeout 10s");
        for (name, value) in step["env"].as_object().unwrap() {
            let mut value = value.as_str().unwrap().to_owned();
            for (expression, evaluated) in &values {
                value = value.replace(&format!("${{{{ {expression} }}}}"), evaluated);
            }
            assert!(!value.contains("${{"), "the test does not support {value}");
            bash.env(name, value);
        }
        let done = bash.output().unwrap();
        text += &String::from_utf8_lossy(&[done.stdout, done.stderr].concat());
        code = done.status.code().unwrap();
        if code != 0 {
            break;
        }
    }
    let content = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let reports = fs::read_dir(repository.join("callback-edge-reports")).into_iter().flatten();
    let reports = reports
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), content(&entry.path())));
    let reports = reports.collect();
    Done { code, output: text, result: content(&output), summary: content(&summary), reports }
}

/// A program in a foreign directory, without the settings of this machine and this project.
fn foreign(dir: &Path, name: &str) -> Command {
    let mut command = Command::new(name);
    command.current_dir(dir).env_clear().env("PATH", search_path()).env("HOME", dir);
    command.env("npm_config_update_notifier", "false").stdin(Stdio::null());
    command
}

fn assert_checked(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let verdict =
        if code == 0 { "√ the callback works: " } else { "× the callback is not ready: " };
    assert!(String::from_utf8_lossy(&output.stdout).contains(verdict), "{output:?}");
}

fn registry() -> (Peer, String) {
    let mut registry = Peer::node("registry.mjs", &[RELEASE.to_str().unwrap()]);
    let origin = format!("http://127.0.0.1:{}", registry.receive()["port"]);
    (registry, origin)
}

/// The file of the release with this start and end.
fn file(start: &str, end: &str) -> PathBuf {
    let wanted = if start.ends_with("linux") {
        let cpu = if cfg!(target_arch = "x86_64") { "x64" } else { "arm64" };
        format!("{start}-{cpu}-")
    } else {
        start.to_owned()
    };
    let entries = fs::read_dir(&*RELEASE).unwrap().map(|entry| entry.unwrap().path());
    let mut found = entries.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(&wanted) && name.ends_with(end)
    });
    found.next().unwrap()
}

/// The installed packages, and the launcher in them.
fn launcher() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let mut npm = foreign(dir.path(), "npm");
    npm.args(["install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund"]);
    run(npm.arg(file("callback-edge-linux", ".tgz")).arg(file("callback-edge-0", ".tgz")));
    let launcher = dir.path().join("node_modules/callback-edge/callback-edge.js");
    (dir, launcher)
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}
