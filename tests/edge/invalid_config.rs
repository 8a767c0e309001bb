//! Typical errors in `config.toml` and in variables, each with exactly what `config check` prints, and
//! mutations of valid files.

use crate::support::golden;
use callback_edge::config::{Location, load};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// What is wrong, the variables, and the file.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("a pattern as path", &[], "[[route]]\npath = \"/oauth/callback/*\"\n"),
    ("a parameter in the path", &[], "[[route]]\npath = \"/oauth/{provider}\"\n\n[[route]]\npath = \"/oauth/:provider\"\n"),
    ("a query in the path", &[], "[[route]]\npath = \"/oauth/callback?env=prod\"\n\n[[route]]\npath = \"/cb#top\"\n"),
    ("no slash at the start of the path", &[], "[[route]]\npath = \"oauth/callback\"\n"),
    ("a space at the end of the path", &[], "[[route]]\npath = \"/oauth/callback \"\n"),
    ("a URL as path", &[], "[[route]]\npath = \"https://auth.example.com/oauth/callback\"\n"),
    ("a URL as host", &[], "[[route]]\nhost = \"https://auth.example.com\"\npath = \"/cb\"\n\n[[route]]\nhost = \"auth.example.com/cb\"\npath = \"/cb\"\n"),
    ("Nango's callback as its URL", &[], "[nango]\nurl = \"https://api.nango.dev/oauth/callback\"\n"),
    ("a slash at the end of Nango's URL, and an error", &[], "[nango]\nurl = \"https://nango.example.com/\"\n\n[log]\nlevel = \"INFO\"\n"),
    ("Nango's dashboard, and an error", &[], "nango.url = \"https://app.nango.dev\"\nlog.format = \"JSON\"\n"),
    ("a callback that is too long", &[], "public_url = \"https://auth.example.com\"\n[[route]]\npath = \"/11111111111111111111111111111111111111111111111111/11111111111111111111111111111111111111111111111111/11111111111111111111111111111111111111111111111111/11111111111111111111111111111111111111111111111111/1111111111111111111111111111\"\n"),
    ("a path in the public URL", &[], "public_url = \"https://auth.example.com/oauth/callback\"\n"),
    ("no scheme in the public URL", &[], "public_url = \"auth.example.com\"\n"),
    ("plain http in public, and an error", &[], "public_url = \"http://auth.example.com\"\nlog.requests = \"yes\"\n"),
    ("a public URL without a route, and an error", &[], "public_url = \"https://login.example.com\"\n[[route]]\nhost = \"auth.example.com\"\npath = \"/cb\"\n[log]\nlevel = 3\n"),
    ("a port alone", &[], "[listen]\nhttp = 8080\nhttps = \":443\"\nadmin = \"*:9090\"\n"),
    ("a URL to listen on", &[], "[listen]\nhttp = \"http://0.0.0.0:8080/\"\nadmin = \"::1:9090\"\n"),
    ("a port that is too large", &[], "[listen]\nhttp = \"0.0.0.0:80800\"\nadmin = \" 127.0.0.1:9090\"\n"),
    ("true and false for addresses", &[], "[listen]\nhttps = false\nadmin = true\n"),
    ("one port for two listeners", &[], "[listen]\nhttp = \"0.0.0.0:8080\"\nadmin = \"127.0.0.1:8080\"\n"),
    ("a certificate without a key", &[], "[listen]\nhttps = \"0.0.0.0:443\"\n[tls]\ncertificate = \"/etc/letsencrypt/live/auth.example.com/fullchain.pem\"\n"),
    ("names of other servers", &[], "[tls]\ncert = \"a.pem\"\nkey = \"a.key\"\n"),
    ("a section of another name", &[], "[server]\nport = 80\n\n[listener]\nhttp = \"0.0.0.0:80\"\n\n[routes]\npath = \"/cb\"\n"),
    ("one route instead of a list", &[], "[route]\npath = \"/oauth/callback\"\n"),
    ("a key in the wrong section", &[], "[nango]\npublic_url = \"https://auth.example.com\"\nhttp = \"0.0.0.0:80\"\n"),
    ("a key twice", &[], "[limits]\nconnections = 5\n# more\nconnections = 10\nidle_timeout = 30\n"),
    ("a section twice", &[], "[log]\nlevel = \"info\"\n\n[log]\nformat = \"json\"\n"),
    ("no quotes, twice, and another error", &[], "public_url = https://auth.example.com\n[log]\nlevel = info\nformat = \"yaml\"\n"),
    ("YAML", &[], "listen:\n  http: 0.0.0.0:8080\n"),
    ("colons instead of equals signs", &[], "[listen]\nhttp: \"0.0.0.0:8080\"\n"),
    ("a quote that does not end", &[], "public_url = \"https://auth.example.com\n[log]\nlevel = \"loud\"\n"),
    ("curly quotes", &[], "public_url = “https://auth.example.com”\n"),
    ("a bracket that does not end", &[], "[listen\nhttp = \"0.0.0.0:80\"\n"),
    ("a list that does not end", &[], "[listen]\nhttp = [\"0.0.0.0:80\"\nadmin = \"127.0.0.1:9090\"\n"),
    ("durations without unit, or with another", &[], "[limits]\nrequest_timeout = 30\nidle_timeout = \"30\"\nhandshake_timeout = \"10 sec.\"\nconnection_age = \"0s\"\n"),
    ("sizes without unit, or with another", &[], "[limits]\nheader_bytes = \"64K\"\nquery_bytes = 0\nform_bytes = \"2GB\"\nheader_fields = 5\n"),
    ("numbers of the wrong kind", &[], "[limits]\nconnections = 1.5\nconnections_per_address = \"256\"\nheader_fields = -1\n"),
    ("switches of the wrong kind", &[], "[log]\nrequests = \"true\"\n\n[self_check]\nfollow = 1\nevery = false\n"),
    ("a target in cleartext, without path, or with a fragment", &[], "[[route]]\npath = \"/a\"\ntarget = \"http://nango.internal/oauth/callback\"\n[[route]]\npath = \"/b\"\ntarget = \"https://api.nango.dev\"\n[[route]]\npath = \"/c\"\ntarget = \"https://api.nango.dev/oauth/callback#x\"\n"),
    ("files that do not exist", &[], "[self_check]\ntoken_file = \"token\"\n\n[[page]]\npath = \"/a.txt\"\nfile = \"/no/such/a.txt\"\n"),
    ("ACME without the rest", &[], "[tls.acme]\ndomains = \"*.example.com\"\n"),
    ("an invalid URL, and what depends on it", &[], "public_url = \"https//auth.example.com\"\n[listen]\nhttps = \"0.0.0.0:https\"\n[tls.acme]\nagree_to_terms = true\n"),
    ("the content of a key instead of its path", &[], "[tls]\ncertificate = \"a.pem\"\nprivate_key = \"-----BEGIN PRIVATE KEY-----MC4CAQAw-----END PRIVATE KEY-----\"\n"),
    ("a key in the file", &[], "[tls]\nprivate_key = \"-----BEGIN PRIVATE KEY-----\nCANARYMC4CAQAw\nCANARYlast==\n-----END PRIVATE KEY-----\"\n"),
    ("secrets without quotes, and of settings that do not exist", &[], "[nango]\nurl = PLANTED-77aa-4bbb\nsecret_key = \"CANARY-77aa-4bbb\"\n"),
    ("paths of the shell", &[], "[self_check]\ntoken_file = \"~/token\"\nroot_ca = \"$HOME/ca.pem\"\n"),
    ("settings of one level", &[], "nango_url = \"https://api.nango.dev\"\nlog_level = \"debug\"\nlisten_http = \"0.0.0.0:80\"\n"),
    ("commas, leading zeros, capitals, backslashes", &[], "public_url = \"https://auth.example.com\",\n[limits]\nconnections = 010\n[log]\nrequests = True\n[tls]\ncertificate = \"C:\\certs\\a.pem\"\nprivate_key = 'a.key\"\n"),
    ("the port of https for http, and the callback of Nango's parent", &[], "nango.url = \"https://nango.example.com/oauth\"\n[listen]\nhttp = [\"0.0.0.0:443\", \"0.0.0.0:443\"]\n"),
    ("an empty value", &[], "public_url = \"\"\n[tls]\ncertificate = \"\"\nprivate_key = \"a.key\"\n"),
    ("one underscore", &[("CALLBACK_EDGE_LISTEN_HTTP", "0.0.0.0:80"), ("CALLBACK_EDGE_NANGO_URL", "https://api.nango.dev")], ""),
    ("lower case", &[("callback_edge_listen__http", "0.0.0.0:80"), ("CALLBACKEDGE_LOG__LEVEL", "info")], ""),
    ("a variable for another program", &[("CALLBACK_EDGE_PORT", "8080"), ("CALLBACK_EDGE_SERVICE_HOST", "10.0.0.1"), ("CALLBACK_EDGE_DATABASE", "x")], ""),
    ("quotes in a variable", &[("CALLBACK_EDGE_LISTEN__HTTP", "\"0.0.0.0:80\""), ("CALLBACK_EDGE_NANGO__URL", "'https://api.nango.dev'")], ""),
    ("values of variables, and the file", &[("CALLBACK_EDGE_LIMITS__CONNECTIONS", "lots"), ("CALLBACK_EDGE_LOG__REQUESTS", "on")], "[log]\nlevel = \"warning\"\n"),
    ("a variable and a syntax error", &[("CALLBACK_EDGE_LOG__FORMAT", "xml")], "[listen\n"),
];

#[test]
fn every_error_has_a_location_and_a_hint() {
    let mut printed = String::new();
    for (name, variables, text) in CASES {
        let (output, code) = check(text.as_bytes(), variables);
        assert_eq!(code, 64, "{name}: {output}");
        for problem in output.split("\n\n").filter(|part| part.contains("error: ")) {
            let is_located = problem.contains(" --> config.toml:")
                || problem.contains("`CALLBACK")
                || problem.contains("`callback");
            assert!(is_located, "{name}: {output}");
        }
        let problems = output.matches("error: ").count() + output.matches("warning: ").count();
        assert_eq!(output.matches("\nhint: ").count(), problems, "{name}: {output}");
        assert!(!output.contains("MC4CAQAw") && !output.contains("CANARY"), "{name}: {output}");
        // Logs have the hints, but no lines of the file.
        let mut hints = output.lines().filter(|line| line.starts_with("hint: "));
        assert!(hints.all(|hint| !hint.contains("PLANTED")), "{name}: {output}");
        writeln!(printed, "======== {name}").unwrap();
        for (variable, value) in *variables {
            writeln!(printed, "{variable}={value}").unwrap();
        }
        writeln!(printed, "{text}--------\n{output}").unwrap();
    }
    golden("config/invalid.txt", &printed).unwrap_or_else(|it| panic!("{it}"));
}

/// Files that are not text, and an error in a variable: both are reported.
#[test]
fn a_file_that_is_not_text_does_not_hide_errors_in_variables() {
    let variables = [("CALLBACK_EDGE_LOG__LEVEL", "loud")];
    let utf16: Vec<u8> =
        "\u{feff}log.level = 'info'".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (content, what, hint) in [
        (utf16, "UTF-16", "save the file as UTF-8"),
        (b"\x7fELF\0\0".to_vec(), "not a text file", "use a TOML file in UTF-8"),
    ] {
        let (output, code) = check(&content, &variables);
        assert_eq!(code, 64);
        assert!(
            output.contains(&format!("error: `config.toml` is {what}\nhint: {hint}\n")),
            "{output}"
        );
        assert!(
            output.contains("error: `CALLBACK_EDGE_LOG__LEVEL`: `loud` is not one of"),
            "{output}"
        );
    }
    let (output, code) = check(b"\xef\xbb\xbflog.level = 'info'\r\n", &[]);
    assert_eq!((output.as_str(), code), ("the configuration is valid (`config.toml`)\n", 0));
}

fn check(text: &[u8], variables: &[(&str, &str)]) -> (String, i32) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config.toml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_callback-edge"));
    command.args(["config", "check"]).current_dir(dir.path()).env_clear();
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    let dir = dir.path().canonicalize().unwrap();
    (printed.replace(&dir.display().to_string(), "/work"), output.status.code().unwrap())
}

/// A line, or what follows its `=`, is deleted, duplicated or replaced.
#[derive(Clone, Debug)]
enum Mutation {
    Delete(usize),
    Duplicate(usize),
    Swap(usize, usize),
    Value(usize, String),
    Line(usize, String),
    Cut(usize),
}

impl Mutation {
    fn apply(&self, text: &str) -> String {
        let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        let count = lines.len().max(1);
        if lines.is_empty() {
            return text.to_owned();
        }
        match self {
            Self::Delete(at) => {
                lines.remove(at % count);
            }
            Self::Duplicate(at) => {
                let line = lines[at % count].clone();
                lines.insert(at % count, line);
            }
            Self::Swap(one, other) => lines.swap(one % count, other % count),
            Self::Value(at, value) => {
                let line = &mut lines[at % count];
                if let Some((key, _)) = line.clone().split_once('=') {
                    *line = format!("{key}= {value}");
                }
            }
            Self::Line(at, line) => lines[at % count].clone_from(line),
            Self::Cut(at) => {
                let text = lines.join("\n");
                let at = at % (text.len() + 1);
                let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                return text[..at].to_owned();
            }
        }
        lines.join("\n")
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let value = prop_oneof![
        "[ -~]{0,12}",
        "\"[ -~&&[^\"\\\\]]{0,20}\"",
        Just("\"\"".to_owned()),
        Just("[]".to_owned()),
        Just("[[\"off\"], 1]".to_owned()),
        Just("{ a = 1 }".to_owned()),
        Just("true".to_owned()),
        Just("-1".to_owned()),
        Just("1e400".to_owned()),
        Just("1979-05-27".to_owned()),
        Just("\"\"\"".to_owned()),
        Just("\"https://a.example/oauth/callback\"".to_owned()),
        "\\PC{0,8}",
    ];
    let line =
        prop_oneof!["[ -~]{0,20}", "\\[{1,2}[a-z_.]{0,12}\\]{0,2}", "[a-z_.]{1,10} = \\PC{0,10}"];
    let at = 0..200_usize;
    prop_oneof![
        at.clone().prop_map(Mutation::Delete),
        at.clone().prop_map(Mutation::Duplicate),
        (at.clone(), at.clone()).prop_map(|(one, other)| Mutation::Swap(one, other)),
        (at.clone(), value).prop_map(|(at, value)| Mutation::Value(at, value)),
        (at.clone(), line).prop_map(|(at, line)| Mutation::Line(at, line)),
        (0..8000_usize).prop_map(Mutation::Cut),
    ]
}

/// A file with a value for most keys; the sample file without its comments.
fn valid() -> String {
    let sample = include_str!("../../config.toml");
    let lines = sample.lines().filter_map(|line| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|it: char| it.is_lowercase() || it == '[') => Some(key),
        Some(_) => None,
        None => Some(line),
    });
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn each_message_about_a_mutated_file_has_a_location_and_a_hint(
        mutations in prop::collection::vec(mutation(), 1..4)
    ) {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("config.toml");
        let text = mutations.iter().fold(valid(), |text, mutation| mutation.apply(&text));
        fs::write(&file, &text).unwrap();
        if let Err(problems) = load(Some(Path::new(&file)), []) {
            prop_assert!(!problems.0.is_empty());
            for problem in problems.0 {
                let is_located = matches!(problem.location(), Location::File(_));
                prop_assert!(is_located && problem.advice().is_some(), "{problem}\n{text}");
            }
        }
    }
}
