//! `config check` and `config show`, run as users run them.

use crate::support::{golden, golden_dir};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Every invalid configuration in `golden/config/*.toml` is rejected with exactly the text of the
/// `.txt` file of the same name.
///
/// Lines `# env: NAME=value` at the top of a file set variables. For a new case write only the
/// `.toml` file; `UPDATE_GOLDEN=1` writes the text.
#[test]
fn every_error_is_reported_with_its_location_and_a_hint() {
    let inputs = golden_inputs();
    assert!(inputs.len() > 40, "only {} inputs", inputs.len());
    let mut differ = Vec::new();
    for input in inputs {
        let text = fs::read_to_string(&input).unwrap();
        let output = check(&text, &variables(&text));
        let printed = stderr(&output);
        assert_eq!(output.status.code(), Some(64), "{}: {printed}", input.display());
        assert!(output.stdout.is_empty(), "{}", input.display());
        assert!(!printed.contains("canary"), "{printed}");
        let name = input.file_stem().unwrap().to_str().unwrap();
        differ.extend(golden(&format!("config/{name}.txt"), &printed).err());
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn a_configured_file_must_exist() {
    let dir = tempfile::tempdir().unwrap();
    let output = edge(dir.path(), &["-c", "missing.toml", "config", "check"], &[]);
    assert_eq!(output.status.code(), Some(64));
    let here = dir.path().canonicalize().unwrap();
    let relative = format!(
        "relative paths start at the working directory, which is `{}`; write an absolute path\n",
        here.display()
    );
    assert_eq!(
        stderr(&output),
        format!(
            "error: cannot read `missing.toml`\n  caused by: No such file or directory (os error 2)\n\
             hint: `-c` sets this path; {relative}"
        )
    );
    let variable = [("CALLBACK_EDGE_CONFIG".to_owned(), "other.toml".to_owned())];
    let output = edge(dir.path(), &["config", "check"], &variable);
    assert_eq!(output.status.code(), Some(64));
    let hint = format!("hint: `CALLBACK_EDGE_CONFIG` sets this path; {relative}");
    assert!(stderr(&output).ends_with(&hint), "{}", stderr(&output));
}

/// Anything but a regular file of UTF-8 text within the size limit is rejected without blocking and
/// without reading all of it.
#[test]
fn only_text_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("directory")).unwrap();
    fs::write(dir.path().join("long.toml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    fs::write(dir.path().join("latin1.toml"), b"# one\n\n# M\xc3\xbcller, M\xfcller\n").unwrap();
    let mkfifo = Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap();
    assert!(mkfifo.success());
    let special = "it is a device, a pipe or a socket, not a regular file\n\
                   hint: `-c` sets this path; write the content to a regular file, and use that file\n";
    let printed = |file: &str| {
        let output = edge(dir.path(), &["-c", file, "config", "check"], &[]);
        assert_eq!(output.status.code(), Some(64), "{file}");
        stderr(&output)
    };
    for (file, why) in [
        ("/dev/zero", special),
        ("pipe", special),
        (
            "directory",
            "it is a directory\n\
             hint: `-c` sets this path; use a file in it, for example `directory/config.toml`\n",
        ),
        (
            "long.toml",
            "it is larger than 1MiB\nhint: `-c` sets this path; use another file, or a part of it\n",
        ),
    ] {
        assert_eq!(printed(file), format!("error: cannot read `{file}`\n  caused by: {why}"));
    }
    assert_eq!(
        printed("latin1.toml"),
        "error: not UTF-8: the byte 0xfc\n --> latin1.toml:3:12\n  |\n\
         3 | # Müller, M\u{fffd}ller\n  |            ^\n\n\
         hint: save the file as UTF-8\n"
    );
}

#[test]
fn a_long_line_is_quoted_only_around_the_error() {
    let text = format!("page = [{}]\n", "{ path = '/a', boddy = 'x' }, ".repeat(2000));
    let output = check(&text, &[]);
    let printed = stderr(&output);
    assert!(printed.lines().all(|line| line.chars().count() < 300), "{printed}");
    assert!(printed.ends_with("\n\nand 3950 more\n"), "{printed}");
}

/// With a linear search for each item, ten times the items would cost a hundred times the processor
/// time. It is that of the program, because the time on the clock depends on what else runs.
#[test]
fn the_cost_of_routes_integrations_and_errors_grows_with_their_number() {
    let route = |it: usize| format!("[[route]]\nhost = 'h{it}.test'\npath = '/cb'\n");
    let integration = |it: usize| format!("[preflight.integration.i{it}]\nuser_scope = 's'\n");
    let unknown = |it: usize| format!("unknown{it} = 1\n");
    let lines: [(&dyn Fn(usize) -> String, _); 3] =
        [(&route, 0), (&integration, 0), (&unknown, 64)];
    for (line, code) in lines {
        let seconds = |count: usize| {
            let (output, seconds) = timed_check(&(0..count).map(line).collect::<String>());
            assert_eq!(output.status.code(), Some(code), "{}", line(0));
            assert!(code == 0 || stderr(&output).ends_with(&format!("and {} more\n", count - 50)));
            seconds
        };
        let (few, many) = (seconds(2_000), seconds(20_000));
        assert!(many < 30.0 * few, "{}: {few} s, {many} s", line(0));
    }
}

/// `config check` of this text, and the processor time of the program in seconds.
fn timed_check(text: &str) -> (Output, f64) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), text).unwrap();
    let script = r#""$0" config check; code=$?; times; exit "$code""#;
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_callback-edge")])
        .current_dir(dir.path())
        .env_clear()
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    // The second line has the user and the system time of the children: `1m2.5s 0m0.1s`.
    let times = printed.lines().nth(1).unwrap().split_whitespace();
    let seconds = times.map(|time| {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    });
    let seconds = seconds.sum();
    (output, seconds)
}

#[test]
fn files_are_found_in_the_documented_order() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.toml", "named.toml", "variable.toml"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let variable = [("CALLBACK_EDGE_CONFIG".to_owned(), "variable.toml".to_owned())];
    let table: [(&[&str], &[_], &str); 3] = [
        (&["config", "check"], &[], "config.toml"),
        (&["config", "check"], &variable, "variable.toml"),
        (&["-c", "named.toml", "config", "check"], &variable, "named.toml"),
    ];
    for (arguments, variables, file) in table {
        let output = edge(dir.path(), arguments, variables);
        assert_eq!(stderr(&output), format!("the configuration is valid (`{file}`)\n"));
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn warnings_do_not_fail_the_check() {
    let output = check("[tls]\nhsts = \"1y\"\n", &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stderr(&output).starts_with("warning: `tls.hsts` has no effect"),
        "{}",
        stderr(&output)
    );
    let output = check("listen.admin_hosts = \"edge.example.com\"\n", &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stderr(&output).starts_with("warning: `listen.admin_hosts` has no effect"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_asterisk_within_a_path_is_a_warning() {
    let output = check("[[route]]\npath = \"/a/*/b\"\n", &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stderr(&output)
            .starts_with("warning: `/a/*/b` contains `*`, but paths are matched exactly\n"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_unused_certificate_is_a_warning() {
    let output = check("[tls]\ncertificate = \"a.pem\"\nprivate_key = \"a.key\"\n", &[]);
    assert!(
        stderr(&output)
            .starts_with("warning: the certificate is not used: `listen.https` is off\n"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn show_prints_normalized_values() {
    let dir = tempfile::tempdir().unwrap();
    let text = "public_url = \"HTTPS://Auth.example.com:443/\"\nlisten.admin = []\n";
    fs::write(dir.path().join("config.toml"), text).unwrap();
    let variable = [("CALLBACK_EDGE_LISTEN__HTTPS".to_owned(), "[]".to_owned())];
    let output = edge(dir.path(), &["config", "show"], &variable);
    let printed = String::from_utf8(output.stdout).unwrap();
    for (key, value) in [
        ("public_url", "https://auth.example.com"),
        ("listen.admin", "off"),
        ("listen.https", "off"),
    ] {
        let line = printed.lines().find(|line| line.starts_with(key)).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some(value), "{line}");
    }
}

#[test]
fn show_prints_each_setting_with_its_source() {
    let dir = tempfile::tempdir().unwrap();
    let text = "public_url = \"https://auth.example.com\"\n[limits]\nconnections = 500\n";
    fs::write(dir.path().join("config.toml"), text).unwrap();
    let variable = [("CALLBACK_EDGE_LISTEN__HTTP".to_owned(), "127.0.0.1:80, [::1]:80".to_owned())];
    let output = edge(dir.path(), &["config", "show"], &variable);
    assert_eq!(stderr(&output), "");
    assert_eq!(output.status.code(), Some(0));
    let printed = String::from_utf8(output.stdout).unwrap();
    golden("config/show.txt", &printed).unwrap_or_else(|it| panic!("{it}"));
}

/// The query of a target may contain a secret; only the parameter names are printed.
#[test]
fn show_hides_the_query_values_of_targets() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[[route]]\npath = '/cb'\ntarget = 'https://t.example/cb?key=canary-key&flag'\n";
    fs::write(dir.path().join("config.toml"), text).unwrap();
    let output = edge(dir.path(), &["config", "show"], &[]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("https://t.example/cb?key=…&flag  "), "{printed}");
    assert!(!printed.contains("canary"), "{printed}");
}

/// The sample file contains the defaults.
#[test]
fn the_sample_file_changes_no_setting() {
    let sample = fs::read_to_string(root().join("config.toml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let show = || {
        let output = edge(dir.path(), &["config", "show"], &[]);
        assert_eq!(stderr(&output), "");
        let printed = String::from_utf8(output.stdout).unwrap();
        let columns = |line: &str| {
            let columns: Vec<_> = line.split("  ").filter(|column| !column.is_empty()).collect();
            columns[..2].iter().map(|column| column.trim().to_owned()).collect::<Vec<_>>()
        };
        printed.lines().map(columns).collect::<Vec<_>>()
    };
    let without = show();
    fs::write(dir.path().join("config.toml"), sample).unwrap();
    let with = show();
    assert_eq!(with.len(), without.len());
    let differ: Vec<_> =
        with.iter().zip(&without).filter(|(with, without)| with != without).collect();
    assert!(differ.is_empty(), "config.toml, and defaults.toml in src/config: {differ:?}");
}

fn golden_inputs() -> Vec<PathBuf> {
    let entries =
        fs::read_dir(golden_dir().join("config")).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|it| it == "toml")).collect();
    inputs.sort();
    inputs
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn variables(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map_while(|line| line.strip_prefix("# env: "));
    lines.map(|line| line.split_once('=').unwrap()).map(|(k, v)| (k.into(), v.into())).collect()
}

fn check(text: &str, variables: &[(String, String)]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), text).unwrap();
    fs::write(dir.path().join("empty.txt"), "\n").unwrap();
    fs::write(dir.path().join("words.txt"), "hunter2 hunter3\n").unwrap();
    fs::write(dir.path().join("large.txt"), vec![b'a'; (64 << 10) + 1]).unwrap();
    let mut output = edge(dir.path(), &["config", "check"], variables);
    let here = dir.path().canonicalize().unwrap();
    output.stderr = stderr(&output).replace(here.to_str().unwrap(), "/work").into_bytes();
    output
}

fn edge(dir: &Path, arguments: &[&str], variables: &[(String, String)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callback-edge"));
    command.args(arguments).current_dir(dir).env_clear();
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
