//! Authorization URLs from templates (RFC 6749 §4.1.1), as Nango builds them. For keys that may read
//! credentials; leaves no session or log entry in Nango.

use super::nango::{App, Template};
use crate::check::fresh_state;
use crate::config::IntegrationSettings;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use url::Url;
use url::form_urlencoded::byte_serialize;

/// How the users of an integration authorize it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// OAuth 2 (RFC 6749): the callback is in the authorization URL.
    OAuth2,
    /// OAuth 1 (RFC 5849).
    OAuth1,
    /// The installation of an app, which redirects to the Setup URL in the settings of the app.
    App,
    /// No redirect: API keys, client credentials and similar modes.
    None,
    /// An unknown mode: it may have a callback.
    Unknown,
}

impl Flow {
    pub(super) fn of(template: &Template) -> Self {
        match template.auth_mode() {
            "OAUTH2" | "CUSTOM" | "MCP_OAUTH2" | "MCP_OAUTH2_GENERIC" => Self::OAuth2,
            "OAUTH1" => Self::OAuth1,
            "APP" => Self::App,
            "API_KEY" | "APP_STORE" | "AWS_SIGV4" | "BASIC" | "BILL" | "INSTALL_PLUGIN" | "JWT"
            | "NONE" | "OAUTH2_CC" | "SIGNATURE" | "TABLEAU" | "TBA" | "TWO_STEP" => Self::None,
            _ => Self::Unknown,
        }
    }

    /// Whether its flows may end at the callback.
    pub(super) fn has_callback(self) -> bool {
        self != Self::None
    }
}

/// The authorization URL, with a `state` that Nango never issued. The error contains what is
/// missing.
pub fn offline(
    template: &Template,
    app: &App,
    settings: &IntegrationSettings,
    callback: &str,
) -> Result<String, String> {
    let Value::String(url) = &template.authorization_url else {
        return Err("its template has no authorization URL".into());
    };
    let url = fill(url, &settings.params)?;
    let mut url = Url::parse(&url)
        .map_err(|_| "the authorization URL of its template is invalid".to_owned())?;
    let separator = template.scope_separator.as_str().unwrap_or(" ");
    let scopes = settings.user_scope.as_deref().or(app.scopes.as_deref()).unwrap_or_default();
    let scopes: Vec<_> = scopes.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
    let mut parameters: Vec<(String, String)> = vec![
        ("client_id".into(), app.client_id.clone()),
        ("redirect_uri".into(), callback.to_owned()),
        ("response_type".into(), "code".into()),
        ("state".into(), fresh_state()),
    ];
    if !scopes.is_empty() {
        parameters.push(("scope".into(), scopes.join(separator)));
    }
    for (name, value) in template.authorization_params.as_object().into_iter().flatten() {
        let text = match value {
            Value::String(text) => fill(text, &settings.params)?,
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => continue,
        };
        set(&mut parameters, name, text);
    }
    for (name, value) in &settings.authorization_params {
        set(&mut parameters, name, value.clone());
    }
    for (name, value) in &parameters {
        url.query_pairs_mut().append_pair(name, value);
    }
    Ok(url.into())
}

/// Later values override earlier ones, as in Nango.
fn set(parameters: &mut Vec<(String, String)>, name: &str, value: String) {
    match parameters.iter_mut().find(|(known, _)| known == name) {
        Some(parameter) => parameter.1 = value,
        None => parameters.push((name.to_owned(), value)),
    }
}

/// The text with `${connectionConfig.name}` replaced by configured values.
fn fill(text: &str, params: &BTreeMap<String, String>) -> Result<String, String> {
    let mut rest = text;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once("${") {
        let (inner, remainder) =
            after.split_once('}').ok_or("its template has a placeholder without `}`")?;
        out.push_str(before);
        // `${connectionConfig.domain || connectionConfig.host}`: the first that is configured.
        let names: Vec<_> = inner
            .split("||")
            .map(|name| name.trim().trim_start_matches("connectionConfig."))
            .collect();
        let value = names.iter().find_map(|name| params.get(*name));
        let missing = || format!("it needs `{}`", names.join("` or `"));
        out.push_str(value.ok_or_else(missing)?);
        rest = remainder;
    }
    out.push_str(rest);
    Ok(out)
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
/// both are equal.
pub(super) fn difference(connect: &str, offline: &str) -> Option<&'static str> {
    let (Ok(connect), Ok(offline)) = (Url::parse(connect), Url::parse(offline)) else {
        return Some("one is invalid");
    };
    if connect.origin() != offline.origin() || connect.path() != offline.path() {
        return Some("different endpoints");
    }
    let client = |url: &Url| {
        let query = url.query().unwrap_or_default().as_bytes();
        let mut pairs = url::form_urlencoded::parse(query);
        pairs.find(|(name, _)| name == "client_id").map(|(_, id)| id.into_owned())
    };
    match (client(&connect), client(&offline)) {
        (Some(one), Some(other)) if one != other => Some("different apps"),
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
            scope_separator: Value::Null,
        }
    }

    fn app() -> App {
        App { client_id: "an id".into(), scopes: Some("a, b".into()) }
    }

    /// An unknown mode may have a callback: it must not pass.
    #[test]
    fn an_unknown_mode_may_have_a_callback() {
        let flow = |mode: Value| Flow::of(&Template { auth_mode: mode, ..Template::default() });
        assert_eq!(flow("API_KEY".into()), Flow::None);
        for unknown in ["OAUTH3".into(), "".into(), Value::Null, 1.into(), "oauth2".into()] {
            assert_eq!(flow(unknown), Flow::Unknown);
        }
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
        let same = |one, other| difference(one, other).is_none();
        assert!(same("https://p.example/a?client_id=1&x=2", "https://p.example/a?client_id=1"));
        assert!(!same("https://p.example/a?client_id=1", "https://p.example/a?client_id=2"));
        assert!(!same("https://p.example/a", "https://p.example/b"));
        assert!(!same("https://p.example/a", "https://q.example/a"));
    }
}
