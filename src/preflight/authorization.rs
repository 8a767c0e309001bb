//! Authorization URLs from templates (RFC 6749 §4.1.1), as Nango builds them. For keys that may read
//! credentials; leaves no session or log entry in Nango.

use super::kind::placeholders;
use super::nango::{App, Template};
use crate::check::{fresh_nonce, fresh_state};
use crate::config::IntegrationSettings;
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use url::form_urlencoded::byte_serialize;
use url::{Position, Url};

/// The value of the connection configuration that replaces the client id. It is the app of a
/// customer.
pub(super) const CLIENT_ID_OVERRIDE: &str = "oauth_client_id_override";

/// The value of the connection configuration that replaces the scopes.
const SCOPES_OVERRIDE: &str = "oauth_scopes_override";

/// The prefix of the values of the connection configuration in placeholders.
const CONNECTION_CONFIG: &str = "connectionConfig.";

/// The authorization URL, with a `state` that Nango never issued. The error contains what is
/// missing.
pub fn offline(
    template: &Template,
    app: &App,
    settings: &IntegrationSettings,
    callback: &str,
) -> Result<String, String> {
    let params = &settings.params;
    let mut url = Url::parse(&endpoint(template, app.link.as_deref(), params)?)
        .map_err(|_| "the authorization URL of its template is invalid".to_owned())?;
    let separator = template.scope_separator.as_str().unwrap_or(" ");
    let scopes = params.get(SCOPES_OVERRIDE).or(app.scopes.as_ref());
    let scopes = scopes.map(String::as_str).unwrap_or_default();
    let scopes: Vec<_> = scopes.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
    let client_id = params.get(CLIENT_ID_OVERRIDE).unwrap_or(&app.client_id);
    let mut parameters: Vec<(String, String)> = vec![
        ("client_id".into(), client_id.clone()),
        ("redirect_uri".into(), callback.to_owned()),
        ("response_type".into(), "code".into()),
        ("state".into(), fresh_state()),
        ("scope".into(), scopes.join(separator)),
    ];
    for (name, value) in template.authorization_params.as_object().into_iter().flatten() {
        let text = match value {
            Value::String(text) => fill(text, app.link.as_deref(), params)?,
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => continue,
        };
        set(&mut parameters, name, text);
    }
    if template.disable_pkce != Value::Bool(true) {
        // RFC 7636 §4.2. No verifier is needed: no code is exchanged.
        let challenge = BASE64URL_NOPAD.encode(digest(&SHA256, fresh_nonce().as_bytes()).as_ref());
        set(&mut parameters, "code_challenge", challenge);
        set(&mut parameters, "code_challenge_method", "S256".into());
    }
    if let Some(user_scope) = settings.user_scope.as_deref().filter(|_| template.name == "slack") {
        set(&mut parameters, "user_scope", user_scope.to_owned());
    }
    for (name, value) in &settings.authorization_params {
        set(&mut parameters, name, value.clone());
    }
    if template.authorization_url_skip_empty == Value::Bool(true) {
        parameters.retain(|(_, value)| !value.is_empty());
    }
    for (name, value) in &parameters {
        url.query_pairs_mut().append_pair(name, value);
    }
    Ok(rewritten(template, url))
}

/// Nango's last changes of the URL: it moves the parameters into the fragment, then replaces texts.
fn rewritten(template: &Template, url: Url) -> String {
    let mut text = match template.authorization_url_fragment.as_str() {
        Some(fragment) => {
            let query = &url[Position::BeforeQuery..Position::AfterQuery];
            format!("{}#{fragment}?{query}", &url[..Position::AfterPath])
        }
        None => url.into(),
    };
    let replacements = template.authorization_url_replacements.as_object().into_iter().flatten();
    for (old, new) in replacements.filter_map(|(old, new)| Some((old, new.as_str()?))) {
        text = text.replacen(old, new, 1);
    }
    text
}

/// Later values override earlier ones, as in Nango.
fn set(parameters: &mut Vec<(String, String)>, name: &str, value: String) {
    match parameters.iter_mut().find(|(known, _)| known == name) {
        Some(parameter) => parameter.1 = value,
        None => parameters.push((name.to_owned(), value)),
    }
}

/// The authorization endpoint: of `A || B`, the first that can be filled.
pub(super) fn endpoint(
    template: &Template,
    link: Option<&str>,
    params: &BTreeMap<String, String>,
) -> Result<String, Unfilled> {
    let none = || Unfilled::Missing("its template has no authorization URL".into());
    let text = template.authorization_url.as_str().ok_or_else(none)?;
    let mut first = Err(none());
    for (number, alternative) in alternatives(text).into_iter().enumerate() {
        match fill_url(alternative, link, params) {
            // An invalid value must not fall back to another server.
            done @ (Ok(_) | Err(Unfilled::Invalid(_))) => return done,
            missing if number == 0 => first = missing,
            Err(_) => {}
        }
    }
    first
}

/// The parts of `A || B`, without those in placeholders.
fn alternatives(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut in_placeholder) = (0, false);
    for (at, _) in text.char_indices() {
        let rest = text.get(at..).unwrap_or_default();
        if rest.starts_with("${") {
            in_placeholder = true;
        } else if rest.starts_with('}') {
            in_placeholder = false;
        } else if rest.starts_with("||") && !in_placeholder && at >= start {
            parts.extend(text.get(start..at));
            start = at + 2;
        }
    }
    parts.extend(text.get(start..));
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// Why a text cannot be filled.
#[derive(Debug)]
pub(super) enum Unfilled {
    /// A value is missing.
    Missing(String),
    /// A value must not be used.
    Invalid(String),
}

impl From<Unfilled> for String {
    fn from(unfilled: Unfilled) -> Self {
        let (Unfilled::Missing(why) | Unfilled::Invalid(why)) = unfilled;
        why
    }
}

/// The URL with its placeholders replaced. Values are checked: they must not change the host that
/// the template names, or add parameters.
fn fill_url(
    text: &str,
    link: Option<&str>,
    params: &BTreeMap<String, String>,
) -> Result<String, Unfilled> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (inner, remainder) = after.split_once('}').ok_or_else(unclosed)?;
        filled.push_str(before);
        let (name, value) = value(inner, link, params).ok_or_else(|| missing(inner))?;
        let is_valid = match Part::at(&filled) {
            Part::Start => is_origin_and_path(&value),
            Part::Host => is_part_of_host(&filled, &value, remainder),
            Part::Path => {
                !value.contains(['?', '#', '\\', '@']) && is_visible(&value) && {
                    let mut segments = value.split('/');
                    !segments.any(|it| matches!(it, "." | ".."))
                }
            }
            Part::Query => !value.contains(['#', '&']) && is_visible(&value),
        };
        if !is_valid {
            return Err(Unfilled::Invalid(format!(
                "the value of `{name}` must not be part of the authorization URL: it would change \
                 more of the URL than its template intends"
            )));
        }
        filled.push_str(&value);
        rest = remainder;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// Where the next character of a URL is.
enum Part {
    Start,
    Host,
    Path,
    Query,
}

impl Part {
    fn at(before: &str) -> Self {
        let after_scheme = before.split_once("://").map(|(_, rest)| rest);
        match after_scheme {
            None if before.is_empty() => Self::Start,
            _ if before.contains(['?', '#']) => Self::Query,
            Some(rest) if rest.contains('/') => Self::Path,
            _ => Self::Host,
        }
    }
}

fn is_visible(value: &str) -> bool {
    !value.chars().any(crate::report::is_invisible)
}

/// Labels of a host, complete or in part, optionally with a port.
fn is_part_of_host(before: &str, value: &str, after: &str) -> bool {
    let (host, port) = match value.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (value, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // After a port there can only be the path.
    let is_port = |port: &str| {
        let is_number =
            !port.is_empty() && port.len() <= 5 && port.bytes().all(|it| it.is_ascii_digit());
        is_number && (after.is_empty() || after.starts_with(['/', '?']))
    };
    // `a.${x}.b` takes labels; an IP address is a complete host.
    let is_complete =
        before.ends_with("://") && (after.is_empty() || after.starts_with(['/', '?', ':']));
    let is_ip = host.parse::<std::net::IpAddr>().is_ok();
    host.split('.').all(is_label) && port.is_none_or(is_port) && (is_complete || !is_ip)
}

/// A base URL without user, query and fragment.
fn is_origin_and_path(value: &str) -> bool {
    let is_clean = is_visible(value) && !value.contains(['?', '#', '\\', '@']);
    is_clean
        && !value.split('/').any(|it| matches!(it, "." | ".."))
        && Url::parse(value)
            .is_ok_and(|url| matches!(url.scheme(), "https" | "http") && url.username().is_empty())
}

fn unclosed() -> Unfilled {
    Unfilled::Missing("its template has a placeholder without `}`".into())
}

fn missing(inner: &str) -> Unfilled {
    let names: Vec<_> = inner.split("||").map(|name| without_prefix(name.trim())).collect();
    Unfilled::Missing(format!("it needs `{}`", names.join("` or `")))
}

fn without_prefix(name: &str) -> &str {
    name.strip_prefix(CONNECTION_CONFIG).unwrap_or(name)
}

/// The value of a placeholder, and its name. `${connectionConfig.a || connectionConfig.b}` is the
/// first that is configured; the last alternative may be a literal.
fn value<'t>(
    inner: &'t str,
    link: Option<&str>,
    params: &BTreeMap<String, String>,
) -> Option<(&'t str, String)> {
    inner.split("||").map(str::trim).enumerate().find_map(|(number, name)| {
        let is_config = name.starts_with(CONNECTION_CONFIG);
        let name = without_prefix(name);
        let value = match params.get(name).filter(|value| !value.is_empty()) {
            Some(value) => value.clone(),
            None if name == "appPublicLink" => link?.to_owned(),
            None if !is_config && name == "random" => fresh_nonce(),
            None if !is_config && number > 0 => name.trim_matches(['\'', '"']).to_owned(),
            None => return None,
        };
        Some((name, value))
    })
}

/// The text with its placeholders replaced, for the value of a parameter.
fn fill(
    text: &str,
    link: Option<&str>,
    params: &BTreeMap<String, String>,
) -> Result<String, Unfilled> {
    let mut rest = text;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once("${") {
        let (inner, remainder) = after.split_once('}').ok_or_else(unclosed)?;
        out.push_str(before);
        out.push_str(&value(inner, link, params).ok_or_else(|| missing(inner))?.1);
        rest = remainder;
    }
    out.push_str(rest);
    Ok(out)
}

/// The values of the connection configuration that a template names, without secrets.
pub(super) fn named_values(template: &Template) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut open = vec![
        &template.authorization_url,
        &template.authorization_params,
        &template.token_url,
        &template.token_params,
    ];
    while let Some(next) = open.pop() {
        match next {
            Value::String(text) => {
                let inner = placeholders(text).flat_map(|inner| inner.split("||"));
                let values = inner.filter_map(|it| it.trim().strip_prefix(CONNECTION_CONFIG));
                names.extend(values.map(str::to_owned));
            }
            Value::Object(members) => open.extend(members.values()),
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    names.extend(
        template.connection_config.as_object().into_iter().flatten().map(|it| it.0.clone()),
    );
    names.retain(|name| {
        !template.is_secret(name)
            && !super::kind::is_secret_name(name)
            && !super::kind::is_credential(name)
    });
    names
}

/// The redirect URI in an authorization URL: an expected one, otherwise the value of a parameter
/// with a usual name.
pub(super) fn redirect_uri<'a>(url: &str, expected: &[&'a str]) -> Option<Cow<'a, str>> {
    // In the fragment too: it cannot be tested, but reported.
    let named = |url: &str| {
        let pairs = url.split(['?', '&', '#']).skip(1);
        let pairs = pairs.filter_map(|pair| url::form_urlencoded::parse(pair.as_bytes()).next());
        pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect::<Vec<_>>()
    };
    let pairs = named(url);
    for callback in expected {
        let encoded: String = byte_serialize(callback.as_bytes()).collect();
        if pairs.iter().any(|(_, value)| value == callback || value.contains(&encoded)) {
            return Some((*callback).into());
        }
    }
    let is_usual = |name: &str| {
        let name = name.to_ascii_lowercase().replace(['_', '-'], "");
        matches!(name.as_str(), "redirecturi" | "redirecturl" | "callbackurl" | "oauthcallback")
    };
    pairs
        .into_iter()
        .find(|(name, value)| is_usual(name) && Url::parse(value).is_ok())
        .map(|(_, value)| value.into())
}

/// The difference between two authorization URLs of an integration: endpoint or app. `None` when
/// both are equal, or when the one from the template cannot be exact.
pub(super) fn difference(template: &Template, flow: &str, built: &str) -> Option<&'static str> {
    let (Ok(flow), Ok(built)) = (Url::parse(flow), Url::parse(built)) else {
        return Some("one is invalid");
    };
    let is_same_endpoint = flow.origin() == built.origin() && flow.path() == built.path();
    if !is_same_endpoint {
        // Nango knows more values than the settings here.
        let url = template.authorization_url.as_str().unwrap_or_default();
        let is_exact = !url.contains("${")
            && !url.contains("||")
            && template.authorization_url_replacements.is_null();
        return is_exact.then_some("different endpoints");
    }
    let client = |url: &Url| {
        let query = url.query().unwrap_or_default().as_bytes();
        let mut pairs = url::form_urlencoded::parse(query);
        pairs.find(|(name, _)| name == "client_id").map(|(_, id)| id.into_owned())
    };
    match (client(&flow), client(&built)) {
        // Nango returns an empty client id for an app that it does not show.
        (Some(one), Some(other)) if one != other && !other.is_empty() => Some("different apps"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(url: &str, params: &[(&str, Value)]) -> Template {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Template {
            auth_mode: "OAUTH2".into(),
            authorization_url: url.into(),
            authorization_params: Value::Object(params.collect()),
            disable_pkce: true.into(),
            ..Template::default()
        }
    }

    fn app() -> App {
        App { client_id: "an id".into(), scopes: Some("a, b".into()), link: None }
    }

    fn settings(params: &[(&str, &str)]) -> IntegrationSettings {
        let params = params.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        IntegrationSettings { params: params.collect(), ..IntegrationSettings::default() }
    }

    fn built(template: &Template, settings: &IntegrationSettings) -> Result<String, String> {
        offline(template, &app(), settings, "https://c.example/cb")
    }

    fn host(url: &str, params: &[(&str, &str)]) -> Result<String, String> {
        let url = built(&template(url, &[]), &settings(params))?;
        Ok(url.split_once('?').unwrap().0.to_owned())
    }

    #[test]
    fn a_template_is_filled() {
        let template = template(
            "https://${connectionConfig.subdomain}.p.example/auth?x=1",
            &[("access_type", "offline".into()), ("prompt", "consent".into())],
        );
        let mut settings = IntegrationSettings::default();
        let missing = offline(&template, &app(), &settings, "https://c.example/cb").unwrap_err();
        assert_eq!(missing, "it needs `subdomain`");
        settings.params.insert("subdomain".into(), "acme".into());
        settings.authorization_params.insert("prompt".into(), "none".into());
        let url = offline(&template, &app(), &settings, "https://c.example/cb").unwrap();
        let (before, after) = url.split_once("&state=").unwrap();
        assert_eq!(
            before,
            "https://acme.p.example/auth?x=1&client_id=an+id\
             &redirect_uri=https%3A%2F%2Fc.example%2Fcb&response_type=code"
        );
        assert_eq!(after.split_once('&').unwrap().1, "scope=a+b&access_type=offline&prompt=none");
    }

    #[test]
    fn the_first_alternative_that_can_be_filled_is_used() {
        let url = "https://${connectionConfig.host}/auth || https://login.p.example/auth";
        assert_eq!(host(url, &[]).unwrap(), "https://login.p.example/auth");
        assert_eq!(host(url, &[("host", "a.example")]).unwrap(), "https://a.example/auth");
        assert_eq!(host(url, &[("host", "")]).unwrap(), "https://login.p.example/auth");
        // Not the other server: users of this value would not be sent there.
        assert!(host(url, &[("host", "a.example/x")]).is_err());
        let inside = "https://p.${connectionConfig.tld || connectionConfig.region || com}/auth";
        assert_eq!(host(inside, &[]).unwrap(), "https://p.com/auth");
        assert_eq!(host(inside, &[("region", "eu")]).unwrap(), "https://p.eu/auth");
        let both = "https://${connectionConfig.a} || https://${connectionConfig.b}";
        assert_eq!(host(both, &[]).unwrap_err(), "it needs `a`");
    }

    #[test]
    fn the_url_is_rewritten_as_nango_does() {
        let random = "https://p.example/${random}/auth";
        let (one, other) = (host(random, &[]).unwrap(), host(random, &[]).unwrap());
        assert!(one != other && one.starts_with("https://p.example/") && !one.contains("//auth"));

        let mut template = template("https://p.example/auth", &[]);
        template.authorization_url_fragment = "/oauth/authorize".into();
        template.authorization_url_replacements =
            serde_json::json!({ "client_id=": "clientId=", "scope=": "scopes=", "x": 1 });
        let url = built(&template, &settings(&[])).unwrap();
        assert!(
            url.starts_with("https://p.example/auth#/oauth/authorize?clientId=an+id&redirect_uri="),
            "{url}"
        );
        assert!(url.ends_with("&scopes=a+b"), "{url}");

        let mut empty = App { client_id: "id".into(), scopes: None, link: None };
        let with = |template: &Template, app: &App| {
            offline(template, app, &settings(&[]), "https://c.example/cb").unwrap()
        };
        template.authorization_url_fragment = Value::Null;
        assert!(with(&template, &empty).ends_with("&scopes="));
        template.authorization_url_skip_empty = true.into();
        assert!(!with(&template, &empty).contains("scope"));
        template.disable_pkce = Value::Null;
        let url = with(&template, &empty);
        let challenge = url.split_once("code_challenge=").unwrap().1.split('&').next().unwrap();
        assert_eq!((challenge.len(), url.contains("code_challenge_method=S256")), (43, true));

        template.authorization_url = "${connectionConfig.appPublicLink}/installations/new".into();
        empty.link = Some("https://p.example/apps/mine".into());
        let url = with(&template, &empty);
        assert!(url.starts_with("https://p.example/apps/mine/installations/new?"), "{url}");
    }

    #[test]
    fn settings_mean_the_same_as_in_nango() {
        let mut template = template("https://p.example/auth", &[]);
        let mut settings = settings(&[("oauth_scopes_override", "c,d")]);
        settings.user_scope = Some("users".into());
        let url = built(&template, &settings).unwrap();
        assert!(url.contains("&scope=c+d") && !url.contains("users"), "{url}");
        template.name = "slack".into();
        let url = built(&template, &settings).unwrap();
        assert!(url.contains("&scope=c+d&") && url.contains("&user_scope=users"), "{url}");
        settings.params.insert("oauth_client_id_override".into(), "theirs".into());
        assert!(built(&template, &settings).unwrap().contains("client_id=theirs"));
    }

    #[test]
    fn a_value_cannot_send_requests_to_another_host() {
        let url = "https://${connectionConfig.x}.p.example/auth";
        for value in ["acme", "a-b.c_d", "EU1"] {
            assert!(host(url, &[("x", value)]).is_ok(), "{value}");
        }
        for value in [
            "evil.example/",
            "evil.example#",
            "evil.example?",
            "user@evil.example",
            "a b",
            "a\tb",
            ".",
            "..",
            ".a",
            "a.",
            "a..b",
            "evil.example\\",
            "evil.example:80",
            "a\u{200b}b",
            "%2f",
            "[::1]",
            "127.0.0.1",
            "a/../b",
        ] {
            let why = host(url, &[("x", value)]).unwrap_err();
            assert!(why.contains("`x`") && !why.contains("evil"), "{value}: {why}");
        }
        let whole = "https://${connectionConfig.x}/auth";
        for value in ["gitlab.example.com", "gitlab.example.com:8443", "10.1.2.3"] {
            assert!(host(whole, &[("x", value)]).is_ok(), "{value}");
        }
        for value in ["a@b", "a:b", "a:1:2", "a:", ":1", "a/b", "a?b", "a#b"] {
            assert!(host(whole, &[("x", value)]).is_err(), "{value}");
        }
        let path = "https://p.example/${connectionConfig.x}/auth";
        assert!(host(path, &[("x", "tenant-1")]).is_ok());
        for value in ["..", "a/../b", "a?b", "a#b", "a\\b"] {
            assert!(host(path, &[("x", value)]).is_err(), "{value}");
        }
        let base = "${connectionConfig.x}/auth";
        assert!(host(base, &[("x", "https://a.example/b")]).is_ok());
        for value in ["a.example", "file:///etc", "https://u@a.example", "https://a.example?x="] {
            assert!(host(base, &[("x", value)]).is_err(), "{value}");
        }
        // The value of a parameter is encoded.
        let template = template("https://p.example/auth", &[("t", "${connectionConfig.x}".into())]);
        let url = built(&template, &settings(&[("x", "a&client_id=b#")])).unwrap();
        assert!(url.ends_with("&t=a%26client_id%3Db%23"), "{url}");
    }

    #[test]
    fn only_values_that_the_template_names_are_copied() {
        let template: Template = serde_json::from_value(serde_json::json!({
            "authorization_url": "https://${connectionConfig.a || connectionConfig.b}.p.example",
            "authorization_params": { "x": "${connectionConfig.c}" },
            "token_url": { "OAUTH2": "https://${connectionConfig.d}" },
            "token_params": { "y": "${connectionConfig.clientSecret}" },
            "connection_config": { "e": {}, "pin": { "secret": true }, "jwtToken": {} },
        }))
        .unwrap();
        let names: Vec<_> = named_values(&template).into_iter().collect();
        assert_eq!(names, ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn the_redirect_uri_is_found_by_value_otherwise_by_name() {
        let old = "https://api.nango.dev/oauth/callback";
        let encoded: String = byte_serialize(old.as_bytes()).collect();
        for (query, found) in [
            (format!("?weird={encoded}"), Some(old)),
            (format!("#/auth?x=1&redirectUri={encoded}"), Some(old)),
            ("?redirect_url=https%3A%2F%2Fother.example%2F".into(), Some("https://other.example/")),
            ("?oauth_token=1".into(), None),
        ] {
            let url = format!("https://p.example/auth{query}");
            assert_eq!(redirect_uri(&url, &[old]).as_deref(), found, "{url}");
        }
    }

    #[test]
    fn urls_differ_by_endpoint_or_client_id() {
        let exact = template("https://p.example/a", &[]);
        let same = |one, other| difference(&exact, one, other).is_none();
        assert!(same("https://p.example/a?client_id=1&x=2", "https://p.example/a?client_id=1"));
        assert!(!same("https://p.example/a?client_id=1", "https://p.example/a?client_id=2"));
        assert!(!same("https://p.example/a", "https://p.example/b"));
        assert!(!same("https://p.example/a", "https://q.example/a"));
        // What only Nango knows is no difference.
        assert!(same("https://p.example/a?client_id=1", "https://p.example/a?client_id="));
        for url in
            ["https://${connectionConfig.x}.example/a", "https://a.example || https://p.example"]
        {
            let template = template(url, &[]);
            let difference = difference(&template, "https://p.example/a", "https://q.example/a");
            assert_eq!(difference, None, "{url}");
        }
    }
}
