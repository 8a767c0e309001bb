//! What is known of providers: what they say to a redirect URI that is not registered, where to
//! register one, and what cannot be found out from outside.
//!
//! Facts from public reports. What a provider was seen to answer stands in `recorded/`, where the
//! rule is held to it.

use http::StatusCode;

/// What is known of one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Names of Nango's templates begin so.
    templates: &'static [&'static str],
    /// As people call it.
    pub name: &'static str,
    /// Where an app's callbacks are changed.
    pub console: &'static str,
    /// How many callbacks, and of what kind, an app can have.
    pub callbacks: Callbacks,
    /// Phrases, in lower case and without the URI, with which it refuses a redirect URI where no
    /// phrase of `MISMATCH` in `shape.rs` tells, which any provider may say.
    pub(super) markers: &'static [&'static str],
    /// The status with which it does so, where that status means something else elsewhere.
    pub(super) mismatch_status: Option<StatusCode>,
    /// Whether `prompt=none` (OpenID Connect Core §3.1.2.1) makes it redirect to a valid URI at once.
    pub(super) prompt_none: bool,
    /// Why nothing may be found out, and what to do then.
    pub unknown: Option<&'static str>,
}

/// What an app at a provider can have registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callbacks {
    /// Several, so that old and new stand side by side while switching.
    Several,
    /// One, so that it is exchanged at the moment of switching.
    One,
    /// A domain, so that any path on it is accepted.
    Domain,
}

impl Provider {
    /// What is known of a template's provider.
    pub fn of(template: &str) -> Self {
        let fits = |name: &&&str| {
            template
                .strip_prefix(**name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        PROVIDERS
            .iter()
            .filter_map(|provider| {
                let longest =
                    provider.templates.iter().filter(fits).map(|name| name.len()).max()?;
                Some((longest, provider))
            })
            .max_by_key(|(longest, _)| *longest)
            .map_or(ANY, |(_, provider)| *provider)
    }
}

const ANY: Provider = Provider {
    templates: &[],
    name: "the provider",
    console: "the settings of the OAuth app, redirect or callback URLs",
    callbacks: Callbacks::Several,
    markers: &[],
    mismatch_status: None,
    prompt_none: false,
    unknown: None,
};

/// The longest name that fits a template wins.
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
        markers: &["must be a login redirect uri in the client app settings"],
        prompt_none: true,
        ..ANY
    },
    Provider {
        templates: &["xero"],
        name: "Xero",
        console: "developer.xero.com → My Apps → the app → Configuration → Redirect URIs",
        mismatch_status: Some(StatusCode::INTERNAL_SERVER_ERROR),
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
        markers: &["does not match a valid url for the application"],
        ..ANY
    },
    Provider {
        templates: &["github"],
        name: "GitHub",
        console: "GitHub → Settings → Developer settings → OAuth Apps → Authorization callback URL",
        callbacks: Callbacks::One,
        unknown: Some("programs are often answered 403; compare the app's callback URL by eye"),
        ..ANY
    },
    Provider {
        // GitHub Apps hold ten callbacks, and one Setup URL.
        templates: &["github-app"],
        name: "GitHub Apps",
        console: "GitHub → Settings → Developer settings → GitHub Apps → Callback URL, and Setup URL",
        unknown: Some("compare callback URL and Setup URL of the app by eye"),
        ..ANY
    },
    Provider {
        templates: &["slack"],
        name: "Slack",
        console: "api.slack.com/apps → the app → OAuth & Permissions → Redirect URLs",
        markers: &["did not match any configured uris"],
        unknown: Some("Slack may look only after the login; compare the list of Redirect URLs"),
        ..ANY
    },
    Provider {
        templates: &["linkedin"],
        name: "LinkedIn",
        console: "linkedin.com/developers → the app → Auth → Authorized redirect URLs",
        markers: &["does not match the registered value"],
        unknown: Some(
            "LinkedIn may look only after the login; compare the Authorized redirect URLs",
        ),
        ..ANY
    },
    Provider {
        templates: &["dropbox"],
        name: "Dropbox",
        console: "dropbox.com/developers/apps → the app → OAuth 2 → Redirect URIs",
        markers: &["must exactly match one of"],
        unknown: Some("Dropbox may look only after the login; compare the Redirect URIs"),
        ..ANY
    },
    Provider {
        templates: &["linear"],
        name: "Linear",
        console: "Linear → Settings → API → OAuth applications → Redirect callback URLs",
        unknown: Some("Linear says the same of other faults of an app; compare its callback URLs"),
        ..ANY
    },
    Provider {
        templates: &["salesforce"],
        name: "Salesforce",
        console: "Salesforce Setup → App Manager → the connected app → Callback URL",
        markers: &["must match configuration"],
        unknown: Some("Salesforce may look only after the login; compare the Callback URLs"),
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
            "below /common it is looked at after the login; compare the app's Redirect URIs, or name \
             a tenant in `params`",
        ),
        ..ANY
    },
    Provider {
        templates: &["shopify"],
        name: "Shopify",
        console: "Shopify Partners → Apps → the app → Configuration → Allowed redirection URLs",
        unknown: Some("Shopify looks at the approval screen; compare the Allowed redirection URLs"),
        ..ANY
    },
    Provider {
        templates: &["twitter", "x"],
        name: "X",
        console: "developer.x.com → Projects & Apps → the app → User authentication settings",
        unknown: Some("X looks after the login; compare the Callback URIs"),
        ..ANY
    },
    Provider {
        templates: &["discord"],
        name: "Discord",
        console: "discord.com/developers → the app → OAuth2 → Redirects",
        unknown: Some("Discord looks after the login; compare the Redirects"),
        ..ANY
    },
    Provider {
        templates: &["gitlab"],
        name: "GitLab",
        console: "GitLab → Preferences, group or admin → Applications → Redirect URI",
        unknown: Some("GitLab looks after the login; compare the application's Redirect URI"),
        ..ANY
    },
    Provider {
        templates: &["apollo"],
        name: "Apollo",
        console: "Apollo → Settings → Integrations → API → OAuth registration",
        unknown: Some("the question never leaves the browser; compare the redirect URLs"),
        ..ANY
    },
    Provider {
        templates: &["shopline"],
        name: "Shopline",
        console: "SHOPLINE developer center → the app → App settings → Callback URL",
        unknown: Some("the question never leaves the browser; compare the callback URL"),
        ..ANY
    },
    Provider {
        templates: &["trello", "smugmug", "garmin"],
        name: "an OAuth 1 provider",
        console: "the app's settings, callback or allowed origins",
        unknown: Some(
            "OAuth 1 tells at the first signed request; connect one account after the switch",
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
    fn a_template_finds_its_family_and_no_other() {
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
