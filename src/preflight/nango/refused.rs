//! Why Nango does not answer as it was asked, and what to do about it.

use super::Pass;
use crate::outbound::{Answer, Fault};
use http::StatusCode;
use serde_json::Value;
use std::fmt;

/// Why Nango cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What happened, in words.
    pub why: String,
    /// What to do.
    pub hint: String,
    /// How far it reaches.
    pub reach: Reach,
}

/// What a refusal stands in the way of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everything: Nango is not there.
    All,
    /// What needs this permission.
    Permission,
    /// This one question.
    One,
}

impl Refused {
    /// What a refusal of the API means; `scope` is what the question needed.
    pub(super) fn of(answer: &Answer, base: &str, scope: &str) -> Self {
        let code = error_code(answer);
        let status = answer.status;
        match status {
            // A wall, or another server: Nango speaks JSON here.
            _ if code.is_none() && !is_json(answer) => {
                Self::foreign(base, &format!("it answers {}", status.as_u16()))
            }
            StatusCode::UNAUTHORIZED => Self::new(
                Reach::All,
                format!("Nango at `{base}` does not accept the API key"),
                "take the key from the environment's settings in Nango; each environment, and each \
                 server, has keys of its own",
            ),
            StatusCode::FORBIDDEN => {
                let scope = scope_in(answer).unwrap_or_else(|| scope.to_owned());
                Self::new(
                    Reach::Permission,
                    format!("the API key lacks the scope `{scope}`"),
                    "add the scope to the key in Nango, or use another key",
                )
            }
            StatusCode::TOO_MANY_REQUESTS => Self::new(
                Reach::All,
                "Nango is asked too often, 429, and goes on saying so",
                "try again later; the limit counts for the whole account",
            ),
            StatusCode::BAD_REQUEST if code.as_deref() == Some("resource_capped") => Self::new(
                Reach::Permission,
                "the plan at Nango allows no more connections, `resource_capped`",
                "use --mode offline, remove connections, or raise the plan",
            ),
            _ => Self::new(
                if status.is_server_error() { Reach::All } else { Reach::One },
                match code {
                    Some(code) => format!("Nango answers {}, `{code}`", status.as_u16()),
                    None => format!("Nango answers {}", status.as_u16()),
                },
                "try again later; see Nango's status page, or its log where you host it",
            ),
        }
    }

    /// Somebody else answers.
    pub(super) fn foreign(base: &str, what: &str) -> Self {
        Self::new(
            Reach::All,
            format!("what answers at `{base}` is not Nango's API: {what}"),
            "see whether `nango.url` is the base URL of Nango's server, not of its dashboard",
        )
    }

    /// Nobody does.
    pub(super) fn unreachable(base: &str, fault: &Fault) -> Self {
        Self::new(
            Reach::All,
            format!("cannot reach Nango at `{base}`: {fault}"),
            "see whether `nango.url` is right, and reached from here; for a private authority, name \
             its root with --ca",
        )
    }

    /// Why a flow did not begin.
    pub(super) fn not_begun(answer: &Answer, pass: &Pass) -> Self {
        let status = answer.status.as_u16();
        let code = error_code(answer);
        let said = code.as_deref().map_or(String::new(), |code| format!(", `{code}`"));
        let unsigned = String::from_utf8_lossy(&answer.body).to_ascii_lowercase().contains("hmac");
        let hint = match (answer.status, pass) {
            _ if unsigned => {
                "the environment wants signed starts: set NANGO_HMAC_KEY to its HMAC key"
            }
            (StatusCode::UNAUTHORIZED, Pass::PublicKey { .. }) => {
                "see whether the public key is this environment's"
            }
            (StatusCode::UNAUTHORIZED, Pass::Session(_)) => {
                "try again; the session may have come to its end"
            }
            (StatusCode::BAD_REQUEST, _) => {
                "it may need connection configuration: give it `params` or `like_connection` below \
                 `[preflight.integration.…]`"
            }
            _ => "see this integration's logs in Nango",
        };
        Self::new(Reach::One, format!("Nango starts no flow: it answers {status}{said}"), hint)
    }

    fn new(reach: Reach, why: impl Into<String>, hint: &str) -> Self {
        Self { why: why.into(), hint: hint.into(), reach }
    }

    /// Whether it will be the same for every other integration.
    pub fn is_final(&self) -> bool {
        self.reach != Reach::One
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.why, self.hint)
    }
}

/// The name of an error, `{"error":{"code":"…"}}`; nothing else of it may be quoted.
pub(super) fn error_code(answer: &Answer) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let code = body.get("error")?.get("code")?.as_str()?;
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    (code.len() <= LONGEST_CODE && code.bytes().all(is_name)).then(|| code.to_owned())
}

/// Longer than any name of an error that Nango has.
const LONGEST_CODE: usize = 60;

/// The scope that a 403 names.
fn scope_in(answer: &Answer) -> Option<String> {
    let text = String::from_utf8_lossy(&answer.body);
    let at = text.find("environment:")?;
    let is_name = |it: &char| it.is_ascii_alphanumeric() || matches!(it, ':' | '_');
    let scope: String = text.get(at..)?.chars().take_while(is_name).collect();
    (scope.len() <= LONGEST_CODE).then_some(scope)
}

fn is_json(answer: &Answer) -> bool {
    serde_json::from_slice::<Value>(&answer.body).is_ok_and(|value| value.is_object())
}
