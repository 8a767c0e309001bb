//! Errors of requests to Nango, with hints.

use super::FlowCredential;
use crate::outbound::{Fault, Response};
use http::StatusCode;
use serde_json::Value;
use std::fmt;

/// Why a request to Nango failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NangoError {
    /// What happened.
    pub why: String,
    /// What to do.
    pub hint: String,
    /// What else it affects.
    pub scope: ErrorScope,
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
            StatusCode::UNAUTHORIZED => Self::new(
                ErrorScope::All,
                format!("Nango at `{base}` does not accept the API key"),
                "copy the key from the settings of the environment in Nango; each environment and \
                 each server has its own keys",
            ),
            StatusCode::FORBIDDEN => {
                let scope = scope_in(response).unwrap_or_else(|| scope.to_owned());
                Self::new(
                    ErrorScope::Permission,
                    format!("the API key lacks the scope `{scope}`"),
                    "add the scope to the key in Nango, or use another key",
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

    /// Why a flow did not start.
    pub(super) fn flow_not_started(response: &Response, credential: &FlowCredential) -> Self {
        let status = response.status.as_u16();
        let code = error_code(response);
        let suffix = code.as_deref().map_or(String::new(), |code| format!(", `{code}`"));
        let unsigned =
            String::from_utf8_lossy(&response.body).to_ascii_lowercase().contains("hmac");
        let hint = match (response.status, credential) {
            _ if unsigned => {
                "the environment requires signed starts: set `NANGO_HMAC_KEY` to its HMAC key"
            }
            (StatusCode::UNAUTHORIZED, FlowCredential::PublicKey { .. }) => {
                "check that the public key belongs to this environment"
            }
            (StatusCode::UNAUTHORIZED, FlowCredential::Session(_)) => {
                "try again; the connect session may have expired"
            }
            (StatusCode::BAD_REQUEST, _) => {
                "it may need a connection configuration: set `params` or `like_connection` in \
                 `[preflight.integration.…]`"
            }
            _ => "see the logs of this integration in Nango",
        };
        Self::new(
            ErrorScope::One,
            format!("Nango did not start the flow: it responds {status}{suffix}"),
            hint,
        )
    }

    fn new(scope: ErrorScope, why: impl Into<String>, hint: &str) -> Self {
        Self { why: why.into(), hint: hint.into(), scope }
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

/// Longer than all error codes and scopes of Nango.
const MAX_NAME_LENGTH: usize = 60;

/// The missing scope in a 403.
fn scope_in(response: &Response) -> Option<String> {
    let text = String::from_utf8_lossy(&response.body);
    let at = text.find("environment:")?;
    let is_name = |it: &char| it.is_ascii_alphanumeric() || matches!(it, ':' | '_');
    let scope: String = text.get(at..)?.chars().take_while(is_name).collect();
    (scope.len() <= MAX_NAME_LENGTH).then_some(scope)
}

fn is_json(response: &Response) -> bool {
    serde_json::from_slice::<Value>(&response.body).is_ok_and(|value| value.is_object())
}
