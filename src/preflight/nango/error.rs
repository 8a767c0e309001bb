//! Errors of requests to Nango, with hints.

use super::FlowCredential;
use crate::outbound::{Fault, Response};
use http::StatusCode;
use serde_json::Value;
use std::fmt;

/// Why a flow did not start: its integration is incomplete.
pub(in crate::preflight) const NO_CREDENTIALS: &str =
    "the integration has no client id, client secret or scopes";

/// Why a request to Nango failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NangoError {
    /// What happened.
    pub why: String,
    /// What to do.
    pub hint: String,
    /// What else it affects.
    pub scope: ErrorScope,
    /// Whether Nango's response explains the cause.
    pub is_explained: bool,
}

/// Which requests an error affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorScope {
    /// All requests.
    All,
    /// Requests that need the same permission.
    Permission,
    /// Only this request.
    One,
}

impl NangoError {
    /// The error of a response; `scope` is the one that the request needs.
    pub(super) fn of(response: &Response, base: &str, scope: &str) -> Self {
        let code = error_code(response);
        let status = response.status;
        match status {
            // A firewall or another server: Nango responds with JSON.
            _ if code.is_none() && !is_json(response) => {
                Self::not_nango(base, &format!("it responds {}", status.as_u16()))
            }
            StatusCode::UNAUTHORIZED if is_of_account(scope) => Self::new(
                ErrorScope::All,
                format!(
                    "Nango at `{base}` does not accept the account API key{}",
                    code.map_or(String::new(), |code| format!(" (`{code}`)"))
                ),
                "create an account API key in the account settings in Nango, and pass it in \
                 `NANGO_ACCOUNT_KEY` or with --account-key-file",
            ),
            StatusCode::UNAUTHORIZED => Self::unauthorized(base, code.as_deref()),
            // The other way round, an account key is refused for an environment.
            StatusCode::FORBIDDEN
                if is_of_account(scope) && text(response).contains("not authorized for") =>
            {
                Self::new(
                    ErrorScope::All,
                    "this is the API key of an environment, and an account API key is needed here",
                    "create an account API key in the account settings in Nango, and pass it in \
                     `NANGO_ACCOUNT_KEY` or with --account-key-file",
                )
            }
            StatusCode::FORBIDDEN
                if text(response).contains("not authorized for an environment") =>
            {
                Self::new(
                    ErrorScope::All,
                    "this is an account API key, which opens no environment",
                    "use the API key of the environment, from its settings in Nango",
                )
            }
            StatusCode::FORBIDDEN => {
                let mut scopes = scopes_in(response);
                if scopes.is_empty() {
                    scopes.push(scope.to_owned());
                }
                let (which, add) = match scopes.len() {
                    1 => ("the scope", "add the scope"),
                    _ => ("one of the scopes", "add one of the scopes"),
                };
                Self::new(
                    ErrorScope::Permission,
                    format!("the API key lacks {which} `{}`", scopes.join("` or `")),
                    format!("{add} to the key in Nango, or use another key"),
                )
            }
            StatusCode::TOO_MANY_REQUESTS => Self::new(
                ErrorScope::All,
                "Nango continues to respond 429, too many requests",
                "try again later; the limit applies to the whole account",
            ),
            StatusCode::BAD_REQUEST if code.as_deref() == Some("resource_capped") => Self::new(
                ErrorScope::Permission,
                "the Nango plan allows no more connections, `resource_capped`",
                "use --mode offline, remove connections, or upgrade the plan",
            ),
            _ => Self::new(
                if status.is_server_error() { ErrorScope::All } else { ErrorScope::One },
                match code {
                    Some(code) => format!("Nango responds {}, `{code}`", status.as_u16()),
                    None => format!("Nango responds {}", status.as_u16()),
                },
                "try again later; see Nango's status page, or its log if you host it",
            ),
        }
    }

    /// Another server responds.
    pub(super) fn not_nango(base: &str, what: &str) -> Self {
        Self::new(
            ErrorScope::All,
            format!("`{base}` is not Nango's API: {what}"),
            "set `nango.url` to the base URL of Nango's server, not of its dashboard",
        )
    }

    /// No response.
    pub(super) fn unreachable(base: &str, fault: &Fault) -> Self {
        Self::new(
            ErrorScope::All,
            format!("cannot reach Nango at `{base}`: {fault}"),
            "check `nango.url`, and that it is reachable from this machine; for a private CA, pass \
             its root with --ca",
        )
    }

    /// A key that Nango rejects.
    fn unauthorized(base: &str, code: Option<&str>) -> Self {
        let (why, hint) = match code {
            Some("deprecated_authentication") => {
                return Self::public_key_refused();
            }
            Some("invalid_secret_key_format" | "malformed_auth_header" | "missing_auth_header") => {
                (
                    "this is not the format of an API key",
                    "copy the whole key from the settings of the environment in Nango",
                )
            }
            _ => (
                "it knows no such key",
                "copy the key from the settings of the environment in Nango; each environment and \
                 each server has its own keys",
            ),
        };
        let code = code.map_or(String::new(), |code| format!(" (`{code}`)"));
        Self::new(
            ErrorScope::All,
            format!("Nango at `{base}` does not accept the API key: {why}{code}"),
            hint,
        )
    }

    fn public_key_refused() -> Self {
        Self::new(
            ErrorScope::All,
            "Nango refuses public keys for accounts that were created after 2025-08-25",
            "omit --public-key and `NANGO_PUBLIC_KEY`: flows then start with a connect session",
        )
    }

    /// Why a flow did not start. Nango's page contains the reason; values of users in it are not
    /// quoted.
    pub(super) fn flow_not_started(
        response: &Response,
        credential: &FlowCredential,
        integration: &str,
    ) -> Self {
        let status = response.status.as_u16();
        let code = error_code(response);
        let page = text(response);
        let has = |part: &str| page.to_ascii_lowercase().contains(part);
        let explained = |why: String, hint: String| Self {
            is_explained: true,
            ..Self::new(ErrorScope::One, format!("Nango did not start the flow: {why}"), hint)
        };
        let table = format!("[preflight.integration.{}]", super::toml_key(integration));
        if let Some(names) = missing_params(&page) {
            return explained(
                format!("it needs `{}`", names.join("`, `")),
                format!("set `params` or `like_connection` in `{table}`"),
            );
        }
        if has("is missing client id") {
            return explained(
                NO_CREDENTIALS.into(),
                "complete the credentials of the integration in Nango".into(),
            );
        }
        if has("auth mode") && has("not supported") {
            return explained(
                "it does not support the mode of the template here".into(),
                "connect one account by hand".into(),
            );
        }
        if has("token_err") {
            return explained(
                "the provider refused its request for a token".into(),
                "check that the callback that Nango sends is registered, and the credentials"
                    .into(),
            );
        }
        if has("hmac") {
            return explained(
                format!("it responds {status}, and requires a valid signature"),
                "the environment requires signed starts: set `NANGO_HMAC_KEY` to its HMAC key"
                    .into(),
            );
        }
        if has("resource_capped") {
            return explained(
                "the Nango plan allows no more connections".into(),
                "use --mode offline, remove connections, or upgrade the plan".into(),
            );
        }
        match (response.status, code.as_deref()) {
            (StatusCode::UNAUTHORIZED, Some("deprecated_authentication")) => {
                return Self { scope: ErrorScope::One, ..Self::public_key_refused() };
            }
            (StatusCode::BAD_REQUEST, Some("integration_not_allowed")) => {
                return explained(
                    "the connect session does not allow the integration".into(),
                    "run the preflight again; the integration may have been renamed meanwhile"
                        .into(),
                );
            }
            _ => {}
        }
        let suffix = code.as_deref().map_or(String::new(), |code| format!(", `{code}`"));
        let hint = match (response.status, credential) {
            (StatusCode::UNAUTHORIZED, FlowCredential::PublicKey { .. }) => {
                "check that the public key belongs to this environment".to_owned()
            }
            (StatusCode::UNAUTHORIZED, FlowCredential::Session(_)) => {
                "try again; the connect session may have expired".to_owned()
            }
            (StatusCode::BAD_REQUEST, _) => format!(
                "it may need a connection configuration: set `params` or `like_connection` in `{table}`"
            ),
            _ => "see the logs of this integration in Nango".to_owned(),
        };
        Self::new(
            ErrorScope::One,
            format!("Nango did not start the flow: it responds {status}{suffix}"),
            hint,
        )
    }

    fn new(scope: ErrorScope, why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { why: why.into(), hint: hint.into(), scope, is_explained: false }
    }

    /// Whether the error is the same for all other integrations.
    pub fn is_final(&self) -> bool {
        self.scope != ErrorScope::One
    }
}

impl fmt::Display for NangoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.why, self.hint)
    }
}

/// The code of an error, `{"error":{"code":"…"}}`; nothing else of it may be quoted.
pub(super) fn error_code(response: &Response) -> Option<String> {
    let body: Value = serde_json::from_slice(&response.body).ok()?;
    let code = body.get("error")?.get("code")?.as_str()?;
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    (code.len() <= MAX_NAME_LENGTH && code.bytes().all(is_name)).then(|| code.to_owned())
}

/// Whether requests with this scope need an account API key.
fn is_of_account(scope: &str) -> bool {
    scope.starts_with("account:")
}

/// Longer than all error codes and scopes of Nango.
const MAX_NAME_LENGTH: usize = 60;

/// The missing scopes in a 403: `Required: a` or `Required one of: a or b`.
fn scopes_in(response: &Response) -> Vec<String> {
    let text = text(response);
    let is_name = |it: char| it.is_ascii_alphanumeric() || matches!(it, ':' | '_');
    let words = text.split(|it: char| !is_name(it));
    let is_scope = |word: &&str| {
        (word.starts_with("environment:") || word.starts_with("account:"))
            && word.len() <= MAX_NAME_LENGTH
    };
    let mut scopes: Vec<String> = Vec::new();
    for scope in words.map(|word| word.trim_end_matches(':')).filter(is_scope) {
        if !scopes.iter().any(|known| known == scope) && scopes.len() < MAX_NAMES {
            scopes.push(scope.to_owned());
        }
    }
    scopes
}

/// The names in `Missing Connection Config param(s) … a, b`; `None` when the page does not say that.
fn missing_params(page: &str) -> Option<Vec<String>> {
    let (_, after) = page.split_once("Missing Connection Config param")?;
    let after = after.split(['<', '{', '"', '&', '\n']).next().unwrap_or_default();
    let is_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let words = after.trim_start_matches("(s)").trim_start_matches('s').split(|it| !is_name(it));
    let names = words.filter(|word| !word.is_empty() && word.len() <= MAX_NAME_LENGTH);
    let names: Vec<_> = names.take(MAX_NAMES).map(str::to_owned).collect();
    (!names.is_empty()).then_some(names)
}

/// How many names an error quotes.
const MAX_NAMES: usize = 8;

/// The body as text, with the quotes of HTML.
fn text(response: &Response) -> String {
    String::from_utf8_lossy(&response.body).replace("&quot;", "\"").replace("&#39;", "'")
}

fn is_json(response: &Response) -> bool {
    serde_json::from_slice::<Value>(&response.body).is_ok_and(|value| value.is_object())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::Protocol;
    use std::time::Duration;

    fn response(status: u16, body: &str) -> Response {
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: body.to_owned().into(),
            whole: true,
            protocol: Protocol::Http1,
            head_time: Duration::ZERO,
        }
    }

    fn of(status: u16, code: &str, message: &str) -> NangoError {
        let body = serde_json::json!({ "error": { "code": code, "message": message } });
        NangoError::of(
            &response(status, &body.to_string()),
            "https://n.example",
            "environment:x:list",
        )
    }

    #[test]
    fn errors_of_the_api_name_their_cause() {
        let a = "environment:connect_sessions:write";
        let one_of = format!("Insufficient scope. Required one of: {a} or environment:b:read");
        let account = "API key is not authorized for an environment";
        for (status, code, message, why, scope) in [
            (401, "unknown_account", "", "knows no such key (`unknown_account`)", ErrorScope::All),
            (401, "invalid_secret_key_format", "", "not the format of an API key", ErrorScope::All),
            (401, "deprecated_authentication", "", "refuses public keys", ErrorScope::All),
            (403, "forbidden", account, "an account API key", ErrorScope::All),
            (
                403,
                "x",
                "Insufficient scope. Required: environment:a:b",
                "`environment:a:b`",
                ErrorScope::Permission,
            ),
            (
                403,
                "x",
                &one_of,
                "one of the scopes `environment:connect_sessions:write` or `environment:b:read`",
                ErrorScope::Permission,
            ),
            (403, "x", "no", "the scope `environment:x:list`", ErrorScope::Permission),
            (500, "x", "", "responds 500, `x`", ErrorScope::All),
        ] {
            let error = of(status, code, message);
            assert!(error.why.contains(why), "{code}: {error}");
            assert_eq!(error.scope, scope, "{code}: {error}");
        }
    }

    #[test]
    fn a_flow_that_did_not_start_names_its_cause() {
        let session = FlowCredential::Session("canary".into());
        for (status, body, why, hint) in [
            (
                400,
                "<p>Provider Config &quot;k&quot; is missing client ID, secret and/or scopes.</p>",
                "has no client id",
                "credentials of the integration",
            ),
            (400, "<p>Auth mode OAUTH2 not supported.</p>", "does not support", "by hand"),
            (
                400,
                "<p>Missing Connection Config param(s) subdomain, region</p>",
                "needs `subdomain`, `region`",
                "[preflight.integration.k]",
            ),
            (400, "<p>token_err</p>", "refused its request for a token", "registered"),
            (400, "<p>missing_hmac</p>", "valid signature", "NANGO_HMAC_KEY"),
            (400, r#"{"error":{"code":"integration_not_allowed"}}"#, "does not allow", "again"),
            (
                401,
                r#"{"error":{"code":"deprecated_authentication"}}"#,
                "public keys",
                "--public-key",
            ),
            (400, "<p>canary</p>", "responds 400", "[preflight.integration.k]"),
        ] {
            let error = NangoError::flow_not_started(&response(status, body), &session, "k");
            assert!(error.why.contains(why) && error.hint.contains(hint), "{error}");
            assert_eq!(error.scope, ErrorScope::One, "{error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }
}
