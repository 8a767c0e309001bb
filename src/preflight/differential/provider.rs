//! Facts about providers from public reports: where to register a redirect URI, how many, and what
//! cannot be tested. The rule does not depend on them, except for the kind of callback that an app can
//! have. `recorded/` contains their known replies as tests of the rule.

/// Facts about a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Prefixes of the names of its templates in Nango.
    templates: &'static [&'static str],
    /// Its name in reports.
    pub name: &'static str,
    /// Where to change the callbacks of an app.
    pub console: &'static str,
    /// How many callbacks, and of what kind, an app can have.
    pub callbacks: Callbacks,
    /// Whether it redirects to a valid URI immediately on `prompt=none` (OpenID Connect Core
    /// §3.1.2.1).
    pub(super) prompt_none: bool,
    /// Why the test may be inconclusive, and what to do then.
    pub unknown: Option<&'static str>,
}

/// Which callbacks an app at a provider can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Callbacks {
    /// Several: old and new can both be registered during the switch.
    Several,
    /// One: it must be replaced at the moment of the switch.
    One,
    /// A domain: any path on it is accepted.
    Domain,
}

impl Provider {
    /// Whether it is in the table.
    pub(in crate::preflight) fn is_known(&self) -> bool {
        !self.templates.is_empty()
    }

    /// The provider of a template.
    pub fn of(template: &str) -> Self {
        let matches = |name: &&&str| {
            template
                .strip_prefix(**name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        PROVIDERS
            .iter()
            .filter_map(|provider| {
                let longest =
                    provider.templates.iter().filter(matches).map(|name| name.len()).max()?;
                Some((longest, provider))
            })
            .max_by_key(|(longest, _)| *longest)
            .map_or(ANY, |(_, provider)| *provider)
    }
}

const ANY: Provider = Provider {
    templates: &[],
    name: "the provider",
    console: "the settings of the OAuth app → redirect or callback URLs",
    callbacks: Callbacks::Several,
    prompt_none: false,
    unknown: None,
};

/// The longest prefix that matches a template wins.
pub(super) const PROVIDERS: &[Provider] = &[
    Provider {
        templates: &["google", "gmail", "youtube"],
        name: "Google",
        console: "Google Cloud console → Google Auth Platform → Clients → Authorized redirect URIs",
        ..ANY
    },
    Provider {
        templates: &["okta"],
        name: "Okta",
        console: "Okta admin → Applications → the app → General → Sign-in redirect URIs",
        prompt_none: true,
        ..ANY
    },
    Provider {
        templates: &["xero"],
        name: "Xero",
        console: "developer.xero.com → My Apps → the app → Configuration → Redirect URIs",
        ..ANY
    },
    Provider {
        templates: &["stripe"],
        name: "Stripe",
        console: "Stripe dashboard → Settings → Connect → Onboarding options → OAuth → Redirects",
        ..ANY
    },
    Provider {
        templates: &["atlassian", "jira", "confluence"],
        name: "Atlassian",
        console: "developer.atlassian.com/console → the app → Authorization → OAuth 2.0",
        ..ANY
    },
    Provider {
        templates: &["quickbooks", "intuit"],
        name: "Intuit",
        console: "developer.intuit.com → the app → Keys and credentials → Redirect URIs",
        ..ANY
    },
    Provider {
        templates: &["asana"],
        name: "Asana",
        console: "app.asana.com/0/my-apps → the app → OAuth → Redirect URLs",
        ..ANY
    },
    Provider {
        templates: &["github"],
        name: "GitHub",
        console: "GitHub → Settings → Developer settings → OAuth Apps → Authorization callback URL",
        callbacks: Callbacks::One,
        unknown: Some("GitHub often responds 403 to programs; compare the callback URL of the app"),
        ..ANY
    },
    Provider {
        // GitHub Apps have up to ten callbacks, and one Setup URL.
        templates: &["github-app"],
        name: "GitHub Apps",
        console: "GitHub → Settings → Developer settings → GitHub Apps → Callback URL, and Setup URL",
        unknown: Some("compare the callback URL and the Setup URL of the app"),
        ..ANY
    },
    Provider {
        templates: &["slack"],
        name: "Slack",
        console: "api.slack.com/apps → the app → OAuth & Permissions → Redirect URLs",
        unknown: Some("Slack may compare only after login; compare the list of redirect URLs"),
        ..ANY
    },
    Provider {
        templates: &["linkedin"],
        name: "LinkedIn",
        console: "linkedin.com/developers → the app → Auth → Authorized redirect URLs",
        unknown: Some(
            "LinkedIn may compare only after login; compare the list of authorized redirect URLs",
        ),
        ..ANY
    },
    Provider {
        templates: &["dropbox"],
        name: "Dropbox",
        console: "dropbox.com/developers/apps → the app → OAuth 2 → Redirect URIs",
        unknown: Some("Dropbox may compare only after login; compare the list of redirect URIs"),
        ..ANY
    },
    Provider {
        templates: &["linear"],
        name: "Linear",
        console: "Linear → Settings → API → OAuth applications → Redirect callback URLs",
        unknown: Some(
            "Linear gives the same reply for other faults of the app; compare its list of callback URLs",
        ),
        ..ANY
    },
    Provider {
        templates: &["salesforce"],
        name: "Salesforce",
        console: "Salesforce Setup → App Manager → the connected app → Callback URL",
        unknown: Some("Salesforce may compare only after login; compare the list of callback URLs"),
        ..ANY
    },
    Provider {
        templates: &[
            "microsoft",
            "outlook",
            "one-drive",
            "one-note",
            "sharepoint-online",
            "entra",
            "azure",
            "excel",
            "word",
            "teams",
            "dynamics",
        ],
        name: "Microsoft Entra",
        console: "Entra admin center → App registrations → the app → Authentication → Redirect URIs",
        unknown: Some(
            "Entra compares after login with `/common`; set a tenant in `params`, or compare the list \
             of redirect URIs",
        ),
        ..ANY
    },
    Provider {
        templates: &["shopify"],
        name: "Shopify",
        console: "Shopify Partners → Apps → the app → Configuration → Allowed redirection URLs",
        unknown: Some(
            "Shopify compares at the approval screen; compare the list of allowed redirection URLs",
        ),
        ..ANY
    },
    Provider {
        templates: &["twitter", "x"],
        name: "X",
        console: "developer.x.com → Projects & Apps → the app → User authentication settings",
        unknown: Some("X compares after login; compare the list of callback URIs"),
        ..ANY
    },
    Provider {
        templates: &["discord"],
        name: "Discord",
        console: "discord.com/developers → the app → OAuth2 → Redirects",
        unknown: Some("Discord compares after login; compare the list of redirects"),
        ..ANY
    },
    Provider {
        templates: &["gitlab"],
        name: "GitLab",
        console: "GitLab → Preferences, group or admin → Applications → Redirect URI",
        unknown: Some("GitLab compares after login; compare the redirect URI of the application"),
        ..ANY
    },
    Provider {
        templates: &["apollo"],
        name: "Apollo",
        console: "Apollo → Settings → Integrations → API → OAuth registration",
        unknown: Some(
            "the authorization parameters are in the fragment (after `#`), which browsers do not send \
             to the server; compare the redirect URLs",
        ),
        ..ANY
    },
    Provider {
        templates: &["shopline"],
        name: "Shopline",
        console: "SHOPLINE developer center → the app → App settings → Callback URL",
        unknown: Some(
            "the authorization parameters are in the fragment (after `#`), which browsers do not send \
             to the server; compare the callback URL",
        ),
        ..ANY
    },
    Provider {
        templates: &["trello", "smugmug", "garmin"],
        name: "an OAuth 1 provider",
        console: "the settings of the app → callback or allowed origins",
        unknown: Some(
            "OAuth 1 has the callback in a signed request; connect one account after the switch, and \
             compare the callback",
        ),
        ..ANY
    },
    Provider {
        templates: &["reddit"],
        name: "Reddit",
        console: "reddit.com/prefs/apps → the app → redirect uri",
        callbacks: Callbacks::One,
        ..ANY
    },
    Provider {
        templates: &["soundcloud"],
        name: "SoundCloud",
        console: "soundcloud.com/you/apps → the app → Redirect URI",
        callbacks: Callbacks::One,
        ..ANY
    },
    Provider {
        templates: &["snowflake"],
        name: "Snowflake",
        console: "ALTER SECURITY INTEGRATION … SET OAUTH_REDIRECT_URI",
        callbacks: Callbacks::One,
        ..ANY
    },
    Provider {
        templates: &["strava"],
        name: "Strava",
        console: "strava.com/settings/api → Authorization Callback Domain",
        callbacks: Callbacks::Domain,
        ..ANY
    },
    Provider {
        templates: &["trustpilot"],
        name: "Trustpilot",
        console: "Trustpilot Business → Integrations → the app → Redirect domain",
        callbacks: Callbacks::Domain,
        ..ANY
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_map_to_their_provider_by_the_longest_prefix() {
        for (template, name) in [
            ("google", "Google"),
            ("google-mail", "Google"),
            ("googlex", "the provider"),
            ("github", "GitHub"),
            ("github-getting-started", "GitHub"),
            ("github-app", "GitHub Apps"),
            ("github-app-oauth", "GitHub Apps"),
            ("x", "X"),
            ("xero", "Xero"),
            ("", "the provider"),
        ] {
            assert_eq!(Provider::of(template).name, name, "{template}");
        }
    }
}
