//! An integration during a preflight: its data from Nango and its settings.

use super::Plan;
use super::authorization::{CLIENT_ID_OVERRIDE, Unfilled, endpoint, named_values};
use super::differential::ProbeRequest;
use super::kind::{Kind, contains_credentials};
use super::nango::{Integration, Nango, NangoError, Template};
use crate::config::IntegrationSettings;
use std::collections::HashMap;

pub(super) struct Candidate {
    pub(super) integration: Integration,
    pub(super) settings: IntegrationSettings,
    /// `None` when Nango returns none.
    pub(super) template: Option<Template>,
    pub(super) kind: Kind,
    /// The authorization URL, if one was needed.
    pub(super) url: Result<String, NoUrl>,
    /// The redirect URI in the URL.
    pub(super) current: Option<String>,
    /// Whether the URL is from a flow. A URL from a template contains an assumed redirect URI.
    pub(super) from_flow: bool,
    /// Whether the app belongs to Nango.
    pub(super) shared_app: bool,
    /// Whether connections may use apps of customers.
    pub(super) customer_apps: bool,
    /// Whether Nango's client metadata document lists the new callback; `None` when it was not read.
    pub(super) published: Option<bool>,
    /// Notes for the report.
    pub(super) notes: Vec<String>,
}

/// Why there is no authorization URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NoUrl {
    pub(super) why: String,
    /// What to do.
    pub(super) hint: String,
}

impl NoUrl {
    pub(super) fn new(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { why: why.into(), hint: hint.into() }
    }
}

/// Reads the selected integrations, and each template once.
pub(super) async fn candidates(
    plan: &Plan,
    nango: &Nango,
    integrations: &[Integration],
) -> Result<Vec<Candidate>, NangoError> {
    let is_wanted = |it: &&Integration| plan.only.is_empty() || plan.only.contains(&it.unique_key);
    let mut candidates = Vec::new();
    let mut templates: HashMap<&str, Result<Template, NangoError>> = HashMap::new();
    for integration in integrations.iter().filter(is_wanted) {
        let provider = integration.provider.as_str();
        if !provider.is_empty() && !templates.contains_key(provider) {
            let template = match nango.template(provider).await {
                Err(error) if error.is_final() => return Err(error),
                template => template,
            };
            templates.insert(provider, template);
        }
        candidates.push(Candidate::new(plan, integration, templates.get(provider)));
    }
    for candidate in &mut candidates {
        candidate.copy_connection(nango).await?;
        candidate.check_values();
    }
    Ok(candidates)
}

impl Candidate {
    fn new(
        plan: &Plan,
        integration: &Integration,
        template: Option<&Result<Template, NangoError>>,
    ) -> Self {
        let settings = plan.integrations.get(integration.unique_key.as_str());
        let settings = settings.cloned().unwrap_or_default();
        let mut notes = Vec::new();
        let (mut kind, template) = match template {
            Some(Ok(template)) => (Kind::of(template), Some(template.clone())),
            Some(Err(error)) => {
                notes.push(format!("its template could not be read: {}", error.why));
                // A start could register a client at the provider, or contain a password.
                (Kind::Unknown, None)
            }
            None => (Kind::Unknown, None),
        };
        let own = &settings.authorization_params;
        if kind.is_started() && own.keys().any(|name| super::kind::is_credential(name)) {
            kind = Kind::NotSent;
        }
        let customer_apps = settings.params.contains_key(CLIENT_ID_OVERRIDE)
            || template.as_ref().is_some_and(Template::has_customer_apps);
        Self {
            integration: integration.clone(),
            settings,
            template,
            kind,
            url: Err(NoUrl::default()),
            current: None,
            from_flow: false,
            shared_app: false,
            customer_apps,
            published: None,
            notes,
        }
    }

    /// Copies missing `params` from the connection in `like_connection`: only those that the template
    /// names, because a connection contains secrets too.
    async fn copy_connection(&mut self, nango: &Nango) -> Result<(), NangoError> {
        let Some(connection) = &self.settings.like_connection else { return Ok(()) };
        let Some(template) = self.template.as_ref().filter(|_| self.kind.is_started()) else {
            return Ok(());
        };
        match nango.connection_config(self.key(), connection).await {
            Ok(copied) => {
                self.customer_apps |= copied.contains_key(CLIENT_ID_OVERRIDE);
                let named = named_values(template);
                for (name, value) in copied.into_iter().filter(|(name, _)| named.contains(name)) {
                    self.settings.params.entry(name).or_insert(value);
                }
            }
            Err(error) if error.is_final() => return Err(error),
            Err(error) => {
                self.notes.push(format!("`like_connection` was not copied: {}", error.why));
            }
        }
        Ok(())
    }

    /// Values that would change the host of the authorization URL are not sent, not even to Nango.
    fn check_values(&mut self) {
        let Some(template) = self.template.as_ref().filter(|_| self.kind.is_started()) else {
            return;
        };
        if let Err(Unfilled::Invalid(why)) = endpoint(template, None, &self.settings.params) {
            self.settings.params.clear();
            self.url = Err(NoUrl::new(why, "correct the value in `params`, or in the connection"));
        }
    }

    /// Whether a value of the settings prevents an authorization URL.
    pub(super) fn is_invalid(&self) -> bool {
        self.url.as_ref().is_err_and(|it| !it.why.is_empty())
    }

    /// Sets the authorization URL, unless it contains credentials of a user.
    pub(super) fn set_url(&mut self, url: Result<String, NoUrl>) {
        self.url = match url {
            Ok(url) if contains_credentials(&url) => {
                self.kind = Kind::NotSent;
                Err(NoUrl::default())
            }
            url => url,
        };
    }

    /// Its unique key in the environment.
    pub(super) fn key(&self) -> &str {
        &self.integration.unique_key
    }

    /// The mode of its template; empty when there is none.
    pub(super) fn auth_mode(&self) -> &str {
        self.template.as_ref().map_or("", Template::auth_mode)
    }

    /// What to test at the provider, with this URL. `previous` is the callback of the environment
    /// before the switch.
    pub(super) fn probe_request(&self, plan: &Plan, previous: &str, url: &str) -> ProbeRequest {
        let current = self.current.as_deref().unwrap_or(previous);
        let new = plan.check.callback.as_str();
        ProbeRequest {
            template: self.integration.provider.clone(),
            url: url.to_owned(),
            current: current.to_owned(),
            // After the switch the new one is in use; the previous one is known to be registered.
            old: if current == new { previous } else { current }.to_owned(),
            new: new.to_owned(),
            prompt_none: self.settings.prompt_none,
        }
    }
}
