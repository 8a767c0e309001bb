//! One integration on its way through a preflight: what Nango and the settings say of it.

use super::Plan;
use super::authorization::Flow;
use super::differential::Inquiry;
use super::nango::{Integration, Nango, Refused, Template};
use crate::config::IntegrationSettings;
use std::collections::HashMap;

pub(super) struct Candidate {
    pub(super) integration: Integration,
    pub(super) settings: IntegrationSettings,
    /// `None` where Nango names none, or does not give it.
    pub(super) template: Option<Template>,
    pub(super) flow: Flow,
    /// Where users are sent to; looked for where the flow has a URL.
    pub(super) url: Result<String, NoUrl>,
    /// The redirect URI in the URL.
    pub(super) current: Option<String>,
    /// Whether Nango itself put it there: a URL from a template has what was taken for granted.
    pub(super) seen: bool,
    /// What else is worth knowing.
    pub(super) notes: Vec<String>,
}

/// No authorization URL could be had.
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

/// Reads what there is of each that is wanted; each template once.
pub(super) async fn candidates(
    plan: &Plan,
    nango: &Nango,
    integrations: &[Integration],
) -> Result<Vec<Candidate>, Refused> {
    let is_wanted = |it: &&Integration| plan.only.is_empty() || plan.only.contains(&it.unique_key);
    let mut candidates = Vec::new();
    let mut templates: HashMap<&str, Result<Template, Refused>> = HashMap::new();
    for integration in integrations.iter().filter(is_wanted) {
        let provider = integration.provider.as_str();
        if !provider.is_empty() && !templates.contains_key(provider) {
            let template = match nango.template(provider).await {
                Err(refused) if refused.is_final() => return Err(refused),
                template => template,
            };
            templates.insert(provider, template);
        }
        candidates.push(Candidate::new(plan, integration, templates.get(provider)));
    }
    for candidate in &mut candidates {
        candidate.copy_connection(nango).await?;
    }
    Ok(candidates)
}

impl Candidate {
    fn new(
        plan: &Plan,
        integration: &Integration,
        template: Option<&Result<Template, Refused>>,
    ) -> Self {
        let settings = plan.integrations.get(integration.unique_key.as_str());
        let mut notes = Vec::new();
        let (flow, template) = match template {
            Some(Ok(template)) => (Flow::of(template), Some(template.clone())),
            Some(Err(refused)) => {
                notes.push(format!("its template could not be read: {}", refused.why));
                (Flow::OAuth2, None)
            }
            None => (Flow::Unknown, None),
        };
        Self {
            integration: integration.clone(),
            settings: settings.cloned().unwrap_or_default(),
            template,
            flow,
            url: Err(NoUrl::default()),
            current: None,
            seen: false,
            notes,
        }
    }

    /// Copies what the settings do not say themselves from the connection that they name.
    async fn copy_connection(&mut self, nango: &Nango) -> Result<(), Refused> {
        let Some(connection) = &self.settings.like_connection else { return Ok(()) };
        if self.flow != Flow::OAuth2 {
            return Ok(());
        }
        match nango.connection_config(self.key(), connection).await {
            Ok(copied) => {
                for (name, value) in copied {
                    self.settings.params.entry(name).or_insert(value);
                }
            }
            Err(refused) if refused.is_final() => return Err(refused),
            Err(refused) => {
                self.notes.push(format!("`like_connection` was not copied: {}", refused.why));
            }
        }
        Ok(())
    }

    /// Its name in the environment.
    pub(super) fn key(&self) -> &str {
        &self.integration.unique_key
    }

    /// The mode, as its template calls it; empty where nothing does.
    pub(super) fn auth_mode(&self) -> &str {
        self.template.as_ref().map_or("", Template::auth_mode)
    }

    /// What the provider is to be asked, with this URL. `previous` is the environment's callback
    /// before the switch.
    pub(super) fn inquiry(&self, plan: &Plan, previous: &str, url: &str) -> Inquiry {
        let current = self.current.as_deref().unwrap_or(previous);
        let new = plan.check.callback.as_str();
        Inquiry {
            template: self.integration.provider.clone(),
            url: url.to_owned(),
            current: current.to_owned(),
            // After the switch the new one is in use; what was in use before is known to be good.
            old: if current == new { previous } else { current }.to_owned(),
            new: new.to_owned(),
            prompt_none: self.settings.prompt_none,
        }
    }
}
