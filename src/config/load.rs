use super::file::{Unreadable, read_file};
use super::layers::Layers;
use super::location::Location;
use super::problem::{Problem, Problems};
use super::read::{listen_for_health as read_listen_for_health, log as read_log, read};
use super::reader::{EffectiveSetting, Reader};
use super::settings::{CertificateFiles, Listen, LogFormat, Settings};
use super::source::{Document, FILE_VARIABLE, Variable, not_text};
use super::validate::validate;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The default files, in this order.
const FILES: [&str; 2] = ["config.toml", "/etc/callback-edge/config.toml"];

/// The longest configuration file, in bytes.
pub(super) const FILE_BYTES: usize = 1 << 20;

const DEFAULTS: &str = include_str!("defaults.toml");

/// Settings and their sources.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Each key with its value and its source.
    pub shown: Vec<EffectiveSetting>,
    /// Problems that prevent nothing.
    pub warnings: Problems,
}

/// Checks certificate files, and whether the certificates are for these hosts, each with the location
/// of its setting.
pub type InspectCertificates = fn(&[CertificateFiles], &[(Box<str>, Location)]) -> Vec<Problem>;

/// Loads the defaults, the file and the environment; returns all problems at once. Files that only
/// `serve` needs are not checked: if they cannot be used, the settings have default values instead of
/// their contents.
///
/// The file is `explicit`, else the value of `CALLBACK_EDGE_CONFIG`, else the first of
/// `./config.toml` and `/etc/callback-edge/config.toml` that exists. The first two must exist.
pub fn load(
    explicit: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Problems> {
    load_with(explicit, environment.into_iter().collect(), None)
}

/// As [`load`], with the files that only `serve` needs.
pub fn load_for_serving(
    explicit: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    inspect: InspectCertificates,
) -> Result<Loaded, Problems> {
    load_with(explicit, environment.into_iter().collect(), Some(inspect))
}

fn load_with(
    explicit: Option<&Path>,
    environment: Vec<(OsString, OsString)>,
    inspect: Option<InspectCertificates>,
) -> Result<Loaded, Problems> {
    let found = find(explicit, &environment);
    let (variables, mut problems) = Variable::all(environment);
    let (file, document) = match found {
        Ok(None) => (None, None),
        Ok(Some((file, text))) => {
            let (document, mut invalid) = Document::recover(&file, &text);
            problems.append(&mut invalid);
            (Some(file), document)
        }
        Err(problem) => {
            problems.push(problem);
            (None, None)
        }
    };
    // Rules that span several settings need all of them.
    let is_complete = problems.is_empty() || document.is_some();
    let defaults = Document::parse(None, DEFAULTS)?;
    let layers = Layers::new(&defaults, document.as_ref(), &variables)?;
    let mut reader = Reader::new(&layers);
    let read = read(&mut reader.root());
    reader.note_unknown(&variables);
    problems.append(&mut reader.problems);
    let settings = is_complete.then(|| validate(read, &mut problems, inspect)).flatten();

    match settings {
        Some(settings) if problems.iter().all(Problem::is_warning) => {
            Ok(Loaded { settings, file, shown: reader.shown, warnings: in_order(problems) })
        }
        _ => Err(in_order(problems)),
    }
}

pub(super) fn in_order(mut problems: Vec<Problem>) -> Problems {
    problems.sort_by_key(Problem::order);
    Problems(problems)
}

/// `log.format` if it is valid, although other settings are not: their errors are logged in this
/// format.
pub fn log_format(
    explicit: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Option<LogFormat> {
    read_invalid(explicit, environment, |reader, _| {
        read_log(&mut reader.root().section("log")).format
    })
}

/// `[listen]`, although other settings are invalid: after a reload that failed, the server runs with the
/// previous ones. `None` when the address that a health check asks is not certain.
pub fn listen_for_health(
    explicit: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Option<Listen> {
    read_invalid(explicit, environment, |reader, is_complete| {
        let read = read_listen_for_health(&mut reader.root().section("listen"), is_complete);
        read.map(Listen::from)
    })
}

/// Reads one setting, although others are invalid. The second argument of `read`: whether the syntax is
/// correct, so that no setting is missing.
fn read_invalid<T>(
    explicit: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    read: impl FnOnce(&mut Reader<'_>, bool) -> Option<T>,
) -> Option<T> {
    let environment: Vec<_> = environment.into_iter().collect();
    let (document, is_complete) = match find(explicit, &environment) {
        Ok(None) => (None, true),
        Ok(Some((file, text))) => {
            let (document, problems) = Document::recover(&file, &text);
            (document, problems.is_empty())
        }
        Err(_) => (None, false),
    };
    let (variables, _) = Variable::all(environment);
    let defaults = Document::parse(None, DEFAULTS).ok()?;
    let layers = Layers::new(&defaults, document.as_ref(), &variables).ok()?;
    read(&mut Reader::new(&layers), is_complete)
}

/// The configuration file and its text.
fn find(
    explicit: Option<&Path>,
    environment: &[(OsString, OsString)],
) -> Result<Option<(PathBuf, String)>, Problem> {
    let named = environment.iter().find(|(name, _)| name == FILE_VARIABLE);
    let named = named.map(|(_, file)| Path::new(file)).filter(|file| !file.as_os_str().is_empty());
    match (explicit, named) {
        (Some(file), _) => named_file(file, "-c").map(Some),
        (None, Some(file)) => named_file(file, FILE_VARIABLE).map(Some),
        (None, None) => find_file(),
    }
}

fn named_file(file: &Path, named_by: &str) -> Result<(PathBuf, String), Problem> {
    let bytes = read_file(file, FILE_BYTES)
        .map_err(|why| unreadable(file, &why, &format!("`{named_by}` sets this path; ")))?;
    Ok((file.to_owned(), file_text(file, bytes)?))
}

fn find_file() -> Result<Option<(PathBuf, String)>, Problem> {
    for file in FILES.map(Path::new) {
        match read_file(file, FILE_BYTES) {
            Ok(bytes) => return Ok(Some((file.to_owned(), file_text(file, bytes)?))),
            Err(why) if why.is_missing() => {}
            Err(why) => {
                return Err(unreadable(file, &why, "`-c` sets another path; "));
            }
        }
    }
    Ok(None)
}

/// `first` is the start of the hint.
pub(super) fn unreadable(file: &Path, why: &Unreadable, first: &str) -> Problem {
    let problem = Problem::error(format!("cannot read `{}`", file.display())).caused_by(why);
    problem.hint(format!("{first}{}", why.hint(file, "config.toml")))
}

pub(super) fn file_text(file: &Path, bytes: Vec<u8>) -> Result<String, Problem> {
    // Windows editors write it, and it is not part of the text.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(bytes);
    let no_text = |why: &str, hint: &str| {
        Err(Problem::error(format!("`{}` is {why}", file.display())).hint(hint))
    };
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return no_text("UTF-16", "save the file as UTF-8");
    }
    if bytes.contains(&0) {
        return no_text("not a text file", "use a TOML file in UTF-8");
    }
    String::from_utf8(bytes).map_err(|error| not_text(file, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClientAddress, IntegrationSettings, Interval};
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn loaded(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f.toml");
        std::fs::write(&file, text).unwrap();
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        load(Some(&file), variables)
    }

    fn settings(text: &str, variables: &[(&str, &str)]) -> Settings {
        loaded(text, variables).unwrap_or_else(|problems| panic!("{problems}")).settings
    }

    #[test]
    fn defaults_are_as_documented() {
        let it = settings("", &[]);
        assert_eq!((it.public_url, &*it.nango_url), (None, "https://api.nango.dev"));
        let routes = it.routes.items().iter();
        let routes: Vec<_> =
            routes.map(|route| (route.path.as_str(), route.target.as_str())).collect();
        assert_eq!(
            routes,
            [
                ("/oauth/callback", "https://api.nango.dev/oauth/callback"),
                ("/app-auth/connect", "https://api.nango.dev/app-auth/connect"),
            ]
        );
        assert!(it.pages.items().is_empty() && it.tls.is_none());
        assert_eq!(it.listen.http, ["127.0.0.1:8080".parse().unwrap()]);
        assert!(it.listen.https.is_empty() && it.listen.admin.is_empty());
        assert!(it.listen.admin_hosts.is_empty());
        assert!(it.listen.proxy_protocol.is_empty() && it.listen.trusted_proxies.is_empty());
        assert_eq!((it.limits.connections, it.limits.connections_per_address), (10_000, 256));
        assert_eq!(it.limits.handshake_timeout, Duration::from_secs(10));
        assert_eq!(it.limits.request_timeout, Duration::from_secs(15));
        assert_eq!(it.limits.idle_timeout, Duration::from_secs(8));
        assert_eq!(it.limits.proxy_idle_timeout, Duration::from_secs(620));
        assert_eq!(it.limits.connection_age, Duration::from_mins(10));
        assert_eq!(it.listen.client_address, ClientAddress::XForwardedFor);
        assert_eq!(it.limits.header_fields, 100);
        let bytes = (it.limits.header_bytes, it.limits.query_bytes, it.limits.form_bytes);
        assert_eq!(bytes, (64 << 10, 32 << 10, 32 << 10));
        assert_eq!((it.shutdown.delay, it.shutdown.grace.as_secs()), (Duration::ZERO, 30));
        assert_eq!((it.self_check.every, it.self_check.cache.as_secs()), (Interval::Default, 10));
        assert!(it.self_check.token.is_none() && it.self_check.probe_key.is_none());
        assert!(it.self_check.connect_to.is_empty());
        assert!(!it.self_check.follow && it.log.requests && it.log.format.is_none());
        assert_eq!(it.log.level, tracing::Level::INFO);
        assert!(it.preflight.private_networks.is_empty() && it.preflight.integrations.is_empty());
    }

    #[test]
    fn the_environment_wins_over_the_file_key_by_key() {
        let text = "[limits]\nconnections = 5\nform_bytes = 9\n[listen]\nhttp = \"off\"";
        let it = settings(
            text,
            &[
                ("CALLBACK_EDGE_LIMITS__CONNECTIONS", "7"),
                ("CALLBACK_EDGE_LISTEN__HTTP", "[::1]:80, 127.0.0.1:80"),
                ("CALLBACK_EDGE_LISTEN__ADMIN", "[\"127.0.0.1:90\"]"),
                ("CALLBACK_EDGE_LISTEN__PROXY_PROTOCOL", "off"),
            ],
        );
        assert_eq!((it.limits.connections, it.limits.form_bytes), (7, 9));
        assert_eq!((it.listen.http.len(), it.listen.admin.len()), (2, 1));
    }

    #[test]
    fn a_route_in_the_file_replaces_the_default_routes() {
        let text = "[nango]\nurl = \"http://localhost:3003/nango/\"\n\
                    [[route]]\nhost = \"Bücher.example\"\npath = \"/x/app-auth/connect\"";
        let it = settings(text, &[]);
        let [route] = it.routes.items() else { panic!("{:?}", it.routes) };
        assert_eq!(route.host.as_ref().unwrap().as_str(), "xn--bcher-kva.example");
        assert_eq!(route.target.as_str(), "http://localhost:3003/nango/app-auth/connect");
        assert_eq!(&*it.nango_url, "http://localhost:3003/nango");
    }

    #[test]
    fn plain_http_is_allowed_to_this_machine_and_listed_networks_only() {
        let target = |url: &str| {
            let text = format!(
                "allow_plain_targets = \"10.1.0.0/16\"\n[[route]]\npath = \"/cb\"\ntarget = \"{url}\""
            );
            loaded(&text, &[]).is_ok()
        };
        for good in ["127.9.9.9", "[::1]", "localhost", "a.localhost:1", "10.1.2.3", "2130706433"] {
            assert!(target(&format!("http://{good}/cb")), "{good}");
        }
        for bad in ["10.2.0.1", "192.168.0.1", "[fd00::1]", "localhost.example", "127.0.0.1.nip.io"]
        {
            assert!(!target(&format!("http://{bad}/cb")), "{bad}");
        }
    }

    #[test]
    fn only_targets_on_this_edge_are_loops() {
        let table = [
            ("https://auth.example.com/cb", true),
            ("https://AUTH.example.com.:443/cb", true),
            ("http://localhost:8080/cb", true),
            ("http://127.0.0.1:8080/cb", true),
            ("https://auth.example.com/other", false),
            ("https://auth.example.com:8443/cb", false),
            ("https://example.com/cb", false),
            ("http://127.0.0.1:3003/cb", false),
        ];
        for (target, is_loop) in table {
            let text = format!(
                "public_url = \"https://auth.example.com\"\n\
                 [[route]]\npath = \"/cb\"\ntarget = \"{target}\""
            );
            assert_eq!(loaded(&text, &[]).is_err(), is_loop, "{target}");
        }
    }

    #[test]
    fn integrations_keep_their_names() {
        let text = r#"
            [preflight.integration."zen.desk/eu-1"]
            params = { subdomain = "acme", "x.y" = "1" }
            authorization_params = { prompt = "none" }
            user_scope = "a b"
            like_connection = "id"
            prompt_none = true
            [preflight.integration.GitHub]
        "#;
        let it = settings(text, &[]).preflight.integrations;
        assert_eq!(it.keys().map(|key| &**key).collect::<Vec<_>>(), ["GitHub", "zen.desk/eu-1"]);
        assert_eq!(it["GitHub"], IntegrationSettings::default());
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
        };
        let expected = IntegrationSettings {
            params: map(&[("subdomain", "acme"), ("x.y", "1")]),
            authorization_params: map(&[("prompt", "none")]),
            user_scope: Some("a b".into()),
            like_connection: Some("id".into()),
            prompt_none: Some(true),
        };
        assert_eq!(it["zen.desk/eu-1"], expected);
        let empty = "[preflight.integration.'']\nuser_scope = 'a'\nparams = { '' = 'b' }";
        let it = settings(empty, &[]).preflight.integrations;
        assert_eq!((it[""].user_scope.as_deref(), &*it[""].params[""]), (Some("a"), "b"));
    }

    #[test]
    fn the_sample_file_contains_every_key() {
        let sample = include_str!("../../config.toml");
        let uncommented: Vec<_> = sample
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(key) if key.starts_with(|it: char| it.is_lowercase() || it == '[') => key,
                _ => line,
            })
            .collect();
        let sample = Document::parse(Some(Path::new("s")), &uncommented.join("\n")).unwrap();
        let defaults = Document::parse(None, DEFAULTS).unwrap();
        let layers = Layers::new(&defaults, Some(&sample), &[]).unwrap();
        let mut reader = Reader::new(&layers);
        read(&mut reader.root());
        reader.note_unknown(&[]);
        assert_eq!(reader.problems, []);
        let missing = reader.keys_not_in_the_file();
        assert!(missing.is_empty(), "config.toml does not have {missing:?}");
    }
}
