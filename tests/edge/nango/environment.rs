//! An environment: its keys, its integrations, and the start of its flows.

use super::{Scopes, error, json_reply, lacks, may};
use crate::fakes::{Received, Reply};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use url::form_urlencoded::Serializer;

#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) is_production: bool,
    /// The callback in the settings.
    pub(crate) callback: String,
    /// The first callback, and every one that was saved, in this order; empty before the first save.
    pub(crate) saves: Vec<String>,
    pub(crate) keys: BTreeMap<String, Scopes>,
    pub(crate) integrations: Vec<Value>,
    pub(crate) connections: BTreeMap<String, Value>,
    /// The integrations of which a start fails, with the text of the page.
    pub(crate) failing: BTreeMap<String, String>,
    /// Whether `webhook_url` is null.
    pub(crate) without_webhooks: bool,
    /// Whether a read shows null until the first save.
    pub(crate) is_default: bool,
    /// What flows show instead of the callback.
    pub(crate) sends: Option<String>,
    /// What is slow after each save.
    pub(crate) cache: Cache,
    /// The previous callback, and for how many requests it is still shown.
    stale: Option<(String, Cache)>,
}

/// The number of requests that show the previous callback after a save.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cache {
    pub(crate) reads: usize,
    pub(crate) starts: usize,
}

impl Environment {
    pub(crate) fn new(name: &str, uuid: &str) -> Self {
        Self { name: name.into(), uuid: uuid.into(), ..Self::default() }
    }

    /// Saves a callback.
    pub(crate) fn save(&mut self, callback: &str) {
        let previous = std::mem::replace(&mut self.callback, callback.to_owned());
        if self.saves.is_empty() {
            self.saves.push(previous.clone());
        }
        self.saves.push(callback.to_owned());
        self.stale = Some((previous, self.cache));
    }

    /// The callback before every save.
    pub(crate) fn first(&self) -> String {
        self.saves.first().unwrap_or(&self.callback).clone()
    }

    /// The callback as a read shows it.
    pub(super) fn read(&mut self) -> Option<String> {
        if self.is_default && self.saves.is_empty() {
            return None;
        }
        Some(match &mut self.stale {
            Some((previous, left)) if left.reads > 0 => {
                left.reads -= 1;
                previous.clone()
            }
            _ => self.callback.clone(),
        })
    }

    /// The callback as a flow shows it.
    fn sent(&mut self) -> String {
        if let Some(other) = &self.sends {
            return other.clone();
        }
        match &mut self.stale {
            Some((previous, left)) if left.starts > 0 => {
                left.starts -= 1;
                previous.clone()
            }
            _ => self.callback.clone(),
        }
    }

    /// The calls with this API key.
    pub(super) fn api(&self, key: &str, method: &str, path: &[&str], request: &Received) -> Reply {
        let scopes = &self.keys[key];
        let query = request.query.as_deref().unwrap_or_default();
        match (method, path) {
            ("GET", ["integrations"]) if !may(scopes, "environment:integrations:list") => {
                lacks("environment:integrations:list")
            }
            ("GET", ["integrations"]) => {
                let shown = self.integrations.iter().map(|it| {
                    json!({
                        "unique_key": it["unique_key"],
                        "provider": it["provider"],
                        "display_name": it["display_name"],
                    })
                });
                json_reply(200, &json!({ "data": shown.collect::<Vec<_>>() }))
            }
            ("GET", ["integrations", key]) => {
                let Some(found) = self.integrations.iter().find(|it| it["unique_key"] == *key)
                else {
                    return error(404, "not_found", "");
                };
                let mut data = json!({ "unique_key": key });
                if query.contains("credentials")
                    && may(scopes, "environment:integrations:read_credentials")
                {
                    data["credentials"] = found["credentials"].clone();
                }
                if query.contains("webhook") {
                    let url = format!("https://n.example/webhook/{}/{key}", self.uuid);
                    data["webhook_url"] =
                        if self.without_webhooks { Value::Null } else { json!(url) };
                }
                json_reply(200, &json!({ "data": data }))
            }
            ("GET", ["connections", id]) => match self.connections.get(*id) {
                Some(config) => json_reply(200, &json!({ "connection_config": config })),
                None => error(404, "not_found", ""),
            },
            ("GET", ["connections"]) => json_reply(200, &json!({ "connections": [] })),
            _ => error(404, "not_found", ""),
        }
    }

    /// Starts a flow. Also returns whether it registered a client at the provider, whose number would
    /// be `next`.
    pub(super) fn start(
        &mut self,
        key: &str,
        host: &str,
        session: &Value,
        templates: &BTreeMap<String, Value>,
        next: usize,
    ) -> (Reply, bool) {
        let page = |text: &str| {
            let page = format!("<title>Authorization callback</title><p>{text}</p>");
            (Reply::page(400, &page), false)
        };
        let allowed = session["allowed_integrations"].as_array().unwrap();
        if !allowed.iter().any(|it| it == key) {
            return (error(400, "integration_not_allowed", ""), false);
        }
        if let Some(text) = self.failing.get(key) {
            return page(text);
        }
        let found = self.integrations.iter().find(|it| it["unique_key"] == key).unwrap().clone();
        let template = &templates[found["provider"].as_str().unwrap()];
        let mode = template["auth_mode"].as_str().unwrap();
        let mut callback = self.sent();
        // The column of Nango's database.
        if callback.len() > 255 {
            return page("value too long for type character varying(255)");
        }
        let mut client_id = found["client_id"].as_str().unwrap_or_default().to_owned();
        let mut registers = false;
        match (mode, template["client_registration"].as_str()) {
            ("MCP_OAUTH2_GENERIC", _) => {
                registers = true;
                client_id = format!("registered-{next}");
            }
            ("MCP_OAUTH2", Some("cimd")) => {
                client_id = format!("http://{host}/oauth/client-metadata/{}/{key}", self.uuid);
            }
            ("MCP_OAUTH2" | "OAUTH2", _) => {}
            _ => return page(&format!("Auth mode {mode} not supported.")),
        }
        if let Some(own) = template["authorization_params"]["redirect_uri"].as_str() {
            own.clone_into(&mut callback);
        }
        let defaults = &session["integrations_config_defaults"][key]["connection_config"];
        let mut url = template["authorization_url"].as_str().unwrap().to_owned();
        if let Some((filled, fallback)) = url.clone().split_once(" || ") {
            let is_complete = defaults["subdomain"].is_string();
            (if is_complete { filled } else { fallback }).clone_into(&mut url);
        }
        for (name, value) in defaults.as_object().into_iter().flatten() {
            url = url.replace(&format!("${{connectionConfig.{name}}}"), value.as_str().unwrap());
        }
        if url.contains("${") {
            return page("Missing Connection Config param(s) subdomain");
        }
        let mut query = Serializer::new(String::new());
        query
            .append_pair("client_id", &client_id)
            .append_pair("redirect_uri", &callback)
            .append_pair("response_type", "code")
            .append_pair("scope", "")
            .append_pair("state", "canary-state");
        for (name, value) in template["authorization_params"].as_object().into_iter().flatten() {
            query.append_pair(name, value.as_str().unwrap());
        }
        let separator = if url.contains('?') { '&' } else { '?' };
        let cookie = "oauth2-canary-state=1; Path=/; Max-Age=3600; HttpOnly";
        let reply = Reply::new(302)
            .with("location", format!("{url}{separator}{}", query.finish()))
            .with("set-cookie", cookie);
        (reply, registers)
    }
}
