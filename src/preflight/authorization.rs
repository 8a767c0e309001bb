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
mod tests;
