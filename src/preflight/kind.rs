//! Which callback an integration has, and who decides about it, from the fields of its template.

use super::nango::Template;
use serde_json::Value;
use url::{Url, form_urlencoded};

/// The relation of an integration to the callback of its environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// OAuth 2 (RFC 6749): the callback is in the authorization URL, and registered at the provider.
    OAuth2,
    /// OAuth 1 (RFC 5849).
    OAuth1,
    /// The installation of a GitHub App, which redirects to the Setup URL in the settings of the app.
    SetupUrl,
    /// Only the settings of an app or plugin contain the callback.
    AppSettings,
    /// Nango publishes the callback of the environment, or registers it with each start.
    FollowsSetting {
        /// Whether each start registers a client at the provider (RFC 7591).
        registers: bool,
    },
    /// Nango registered a client (RFC 7591) when the integration was created. That client keeps the
    /// callback of that day.
    Recreate,
    /// The authorization request contains credentials of a user: sending it signs in.
    NotSent,
    /// No browser is redirected to Nango.
    None,
    /// An unknown kind: it may have a callback.
    Unknown,
}

impl Kind {
    pub(super) fn of(template: &Template) -> Self {
        let kind = match (template.auth_mode(), template.client_registration.as_str()) {
            ("MCP_OAUTH2_GENERIC", registration) => {
                Self::FollowsSetting { registers: registration != Some("cimd") }
            }
            ("OAUTH2" | "MCP_OAUTH2", Some("cimd")) => Self::FollowsSetting { registers: false },
            ("OAUTH2" | "MCP_OAUTH2", Some("dynamic")) => Self::Recreate,
            ("OAUTH2" | "MCP_OAUTH2", None | Some("static")) => Self::OAuth2,
            ("OAUTH1", _) => Self::OAuth1,
            ("APP", _) => Self::SetupUrl,
            ("CUSTOM" | "INSTALL_PLUGIN", _) => Self::AppSettings,
            (
                "API_KEY" | "APP_STORE" | "AWS_SIGV4" | "BASIC" | "BILL" | "JWT" | "NONE"
                | "OAUTH2_CC" | "SIGNATURE" | "TABLEAU" | "TBA" | "TWO_STEP",
                _,
            ) => Self::None,
            _ => Self::Unknown,
        };
        match kind {
            // The provider starts the installation, and no browser returns to Nango.
            Self::OAuth2 | Self::SetupUrl | Self::AppSettings if template.is_outbound() => {
                Self::None
            }
            Self::OAuth2 | Self::Recreate | Self::FollowsSetting { .. }
                if sends_credentials(template) =>
            {
                Self::NotSent
            }
            kind => kind,
        }
    }

    /// Whether its flows may end at the callback.
    pub(super) fn has_callback(self) -> bool {
        self != Self::None
    }

    /// Whether the provider can be probed with its authorization URL.
    pub(super) fn is_probed(self) -> bool {
        matches!(self, Self::OAuth2 | Self::Recreate)
    }

    /// Whether a flow is started to read its authorization URL.
    pub(super) fn is_started(self) -> bool {
        self.is_probed() || matches!(self, Self::FollowsSetting { .. })
    }

    /// Whether the integration uses an app that someone registered at the provider.
    pub(super) fn uses_an_app(self) -> bool {
        matches!(
            self,
            Self::OAuth2 | Self::OAuth1 | Self::SetupUrl | Self::AppSettings | Self::NotSent
        )
    }
}

/// Whether the authorization request of a template contains credentials of a user.
fn sends_credentials(template: &Template) -> bool {
    let params = template.authorization_params.as_object().into_iter().flatten();
    let mut values = params.filter_map(|(name, value)| Some((name, value.as_str()?)));
    values.any(|(name, value)| is_credential(name) || fills_in_a_secret(template, value))
        || template.authorization_url.as_str().is_some_and(|url| fills_in_a_secret(template, url))
}

/// Whether a placeholder of the text stands for a secret of a user.
fn fills_in_a_secret(template: &Template, text: &str) -> bool {
    placeholders(text).any(|inner| {
        inner.split("||").map(str::trim).any(|name| {
            name.starts_with("credentials.")
                || name.strip_prefix("connectionConfig.").is_some_and(|name| {
                    is_credential(name) || is_secret_name(name) || template.is_secret(name)
                })
        })
    })
}

/// The texts in `${…}`.
pub(super) fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).filter_map(|after| after.split_once('}')).map(|(inner, _)| inner)
}

/// Whether a parameter with this name contains credentials of a user (RFC 6749 §4.3.2 and common
/// spellings).
pub(super) fn is_credential(name: &str) -> bool {
    let name = normalized(name);
    matches!(
        name.as_str(),
        "username"
            | "password"
            | "passwd"
            | "passwort"
            | "passphrase"
            | "pwd"
            | "userpassword"
            | "loginpassword"
            | "passcode"
    )
}

/// Whether a value of the connection configuration with this name is a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = normalized(name);
    let parts = ["password", "passwd", "passphrase", "secret", "apikey", "privatekey", "token"];
    parts.iter().any(|part| name.contains(part))
}

fn normalized(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|it| it.to_ascii_lowercase()).collect()
}

/// Whether an authorization URL contains credentials of a user: as a parameter, in a URL in a
/// parameter, in the fragment, or before the host.
pub(super) fn contains_credentials(url: &str) -> bool {
    let has_user = |url: &Url| !url.username().is_empty() || url.password().is_some();
    if Url::parse(url).is_ok_and(|url| has_user(&url)) {
        return true;
    }
    let parts = url.split(['?', '&', '#', ';']).skip(1);
    parts.filter_map(|part| form_urlencoded::parse(part.as_bytes()).next()).any(|(name, value)| {
        is_credential(&name)
            || (value.len() < url.len()
                && value.contains(['?', '&', '#'])
                && contains_credentials(&value))
    })
}

impl Template {
    /// Whether the provider starts the installation.
    fn is_outbound(&self) -> bool {
        self.installation.as_str() == Some("outbound")
    }

    /// Whether customers register their own apps: a value of each connection is a client id.
    pub(super) fn has_customer_apps(&self) -> bool {
        let mut fields = self.connection_config.as_object().into_iter().flatten();
        fields.any(|(name, _)| normalized(name).contains("clientid"))
    }

    /// Whether the template declares a value of the connection configuration as secret.
    pub(super) fn is_secret(&self, name: &str) -> bool {
        let field = self.connection_config.get(name);
        let has = |member, expected: Value| {
            field.and_then(|field| field.get(member)).is_some_and(|value| *value == expected)
        };
        has("secret", true.into()) || has("format", "password".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind(template: &Value) -> Kind {
        Kind::of(&serde_json::from_value(template.clone()).unwrap())
    }

    const NO_CALLBACK: [&str; 12] = [
        "API_KEY",
        "APP_STORE",
        "AWS_SIGV4",
        "BASIC",
        "BILL",
        "JWT",
        "NONE",
        "OAUTH2_CC",
        "SIGNATURE",
        "TABLEAU",
        "TBA",
        "TWO_STEP",
    ];

    /// Written as independent conditions, not as the decision in `Kind::of`.
    fn expected(mode: &str, registration: &str, outbound: bool, secret: bool) -> Kind {
        let is_mcp_or_oauth2 = mode == "OAUTH2" || mode == "MCP_OAUTH2";
        let is_known = ["", "static", "dynamic", "cimd"].contains(&registration);
        let follows = mode == "MCP_OAUTH2_GENERIC" || (is_mcp_or_oauth2 && registration == "cimd");
        let recreate = is_mcp_or_oauth2 && registration == "dynamic";
        let plain = is_mcp_or_oauth2 && (registration.is_empty() || registration == "static");
        let started_elsewhere =
            outbound && (plain || ["APP", "CUSTOM", "INSTALL_PLUGIN"].contains(&mode));
        if NO_CALLBACK.contains(&mode) || started_elsewhere {
            Kind::None
        } else if secret && (follows || recreate || plain) {
            Kind::NotSent
        } else if follows {
            Kind::FollowsSetting { registers: registration != "cimd" }
        } else if recreate {
            Kind::Recreate
        } else if plain {
            Kind::OAuth2
        } else if mode == "CUSTOM" || mode == "INSTALL_PLUGIN" {
            Kind::AppSettings
        } else if mode == "APP" {
            Kind::SetupUrl
        } else if mode == "OAUTH1" {
            Kind::OAuth1
        } else {
            assert!(!is_known || !is_mcp_or_oauth2);
            Kind::Unknown
        }
    }

    #[test]
    fn every_combination_of_template_fields_has_the_right_kind() {
        let modes = ["OAUTH2", "OAUTH1", "APP", "CUSTOM", "INSTALL_PLUGIN", "MCP_OAUTH2"];
        let modes = modes.into_iter().chain(["MCP_OAUTH2_GENERIC", "OAUTH3", "", "oauth2"]);
        // Each shape of URL, and whether sending it signs a user in.
        let urls = [
            (json!("https://p.example/auth"), json!({}), false),
            (json!("https://${connectionConfig.subdomain}.p.example/auth"), json!(null), false),
            (
                json!("https://a.example/${connectionConfig.x} || https://b.example"),
                json!([]),
                false,
            ),
            (json!("${connectionConfig.appPublicLink}/installations/new"), json!({}), false),
            (json!(null), json!({ "access_type": "offline", "login_hint": "x" }), false),
            (json!({ "OAUTH2": "https://p.example" }), json!("x"), false),
            (json!("https://p.example/auth"), json!({ "password": "x" }), true),
            (json!("https://p.example/auth"), json!({ "UserName": "${connectionConfig.u}" }), true),
            (json!("https://p.example/auth"), json!({ "x": "${credentials.apiKey}" }), true),
            (json!("https://p.example/auth"), json!({ "p": "${connectionConfig.password}" }), true),
            (json!("https://p.example/auth"), json!({ "p": "${connectionConfig.pin}" }), true),
            (json!("https://p.example/${connectionConfig.api_key}"), json!({}), true),
        ];
        let mut combinations = 0;
        for mode in modes.chain(NO_CALLBACK) {
            for registration in ["", "static", "dynamic", "cimd", "new"] {
                for installation in ["", "inbound", "outbound"] {
                    for (url, params, secret) in &urls {
                        let mut template = json!({
                            "auth_mode": mode,
                            "authorization_url": url,
                            "authorization_params": params,
                            "connection_config": { "pin": { "type": "string", "secret": true } },
                        });
                        let optional =
                            [("client_registration", registration), ("installation", installation)];
                        for (name, value) in optional.into_iter().filter(|(_, it)| !it.is_empty()) {
                            template[name] = json!(value);
                        }
                        let outbound = installation == "outbound";
                        let right = expected(mode, registration, outbound, *secret);
                        assert_eq!(kind(&template), right, "{template}");
                        combinations += 1;
                    }
                }
            }
        }
        assert_eq!(combinations, 22 * 5 * 3 * 12);
    }

    /// An unknown kind may have a callback: it must not be skipped.
    #[test]
    fn fields_of_an_unexpected_type_are_an_unknown_kind() {
        for mode in [json!(null), json!(1), json!(["OAUTH2"])] {
            assert_eq!(kind(&json!({ "auth_mode": mode })), Kind::Unknown);
        }
        assert_eq!(kind(&json!({})), Kind::Unknown);
    }

    #[test]
    fn credentials_are_found_wherever_a_url_contains_them() {
        for (url, found) in [
            ("https://p.example/auth?client_id=a&redirect_uri=https%3A%2F%2Fc.example", false),
            ("https://p.example/auth?login_hint=a&prompt=login", false),
            ("https://p.example/auth?username=a", true),
            ("https://p.example/auth?x=1&PASSWORD=a", true),
            ("https://p.example/auth?user%5Fname=a", true),
            ("https://p.example/#/auth?pass-word=a", true),
            ("https://user@p.example/auth", true),
            ("https://p.example/login?next=%2Fauth%3Fpassword%3Da%26x%3D1", true),
        ] {
            assert_eq!(contains_credentials(url), found, "{url}");
        }
    }
}
