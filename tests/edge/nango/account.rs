//! The Environments API, for API keys of the account.

use super::{Environment, Kind, Nango, bearer, error, json_reply, lacks, may, parameters};
use crate::fakes::{Received, Reply};
use serde_json::{Value, json};

/// Which servers have the Environments API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnvironmentsApi {
    Current,
    /// Nango 0.71 and older: no such route.
    Absent,
    /// A self-hosted one: unknown paths get the page of the dashboard.
    Dashboard,
}

/// A PATCH of an environment.
#[derive(Clone, Debug)]
pub(crate) struct Patch {
    pub(crate) environment: String,
    /// Byte for byte.
    pub(crate) body: String,
    pub(crate) is_applied: bool,
}

impl Nango {
    /// `/environments` and below.
    pub(super) fn account(&mut self, path: &[&str], request: &Received) -> Reply {
        match self.environments_api {
            EnvironmentsApi::Current => {}
            EnvironmentsApi::Absent => return error(404, "not_found", "Not Found"),
            EnvironmentsApi::Dashboard => {
                return Reply::page(200, "<!doctype html><title>Nango</title><div id=root></div>");
            }
        }
        let key = bearer(request);
        if self.environments.iter().any(|it| it.keys.contains_key(key)) {
            return error(403, "forbidden", "API key is not authorized for an account");
        }
        let Some(scopes) = self.account_keys.get(key).cloned() else {
            return error(401, "unknown_account", "");
        };
        let query = parameters(request);
        let found = path.first().and_then(|uuid| self.position(uuid));
        match (request.method.as_str(), path) {
            ("GET", []) if !may(&scopes, "account:environments:list") => {
                lacks("account:environments:list")
            }
            ("GET", []) => {
                let named =
                    |it: &&Environment| query.get("name").is_none_or(|name| *name == it.name);
                let shown = self.environments.iter().zip(1..).filter(|(it, _)| named(it));
                let shown: Vec<_> = shown.map(|(it, id)| it.head(id)).collect();
                json_reply(200, &json!({ "data": shown }))
            }
            ("GET", [_]) if !may(&scopes, "account:environments:read") => {
                lacks("account:environments:read")
            }
            ("PATCH", [_]) if !may(&scopes, "account:environments:update") => {
                let name = found.map(|at| self.environments[at].name.clone()).unwrap_or_default();
                self.note_refused_patch(request, Kind::Patch, &name);
                lacks("account:environments:update")
            }
            ("GET" | "PATCH", [_]) if found.is_none() => error(404, "not_found", "Not Found"),
            ("GET", [_]) => {
                let at = found.unwrap();
                let environment = &mut self.environments[at];
                let mut data = environment.head(at + 1);
                data["callback_url"] = json!(environment.read());
                // Other settings, some of which are secret.
                data["webhook_url"] = json!("https://app.example/canary-webhook");
                data["hmac_enabled"] = json!(true);
                data["hmac_key"] = json!("canary-hmac-key");
                json_reply(200, &json!({ "data": data }))
            }
            ("PATCH", [_]) => self.patch(found.unwrap(), request),
            _ => error(404, "not_found", "Not Found"),
        }
    }

    fn patch(&mut self, at: usize, request: &Received) -> Reply {
        let environment = &mut self.environments[at];
        let mut patch = Patch {
            environment: environment.name.clone(),
            body: request.body.clone(),
            is_applied: false,
        };
        let is_json =
            request.header("content-type").is_some_and(|it| it.starts_with("application/json"));
        let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let callback = body["callback_url"].as_str();
        let reply = match callback {
            _ if !is_json => error(415, "invalid_content_type", ""),
            Some(callback) if url::Url::parse(callback).is_ok() => {
                environment.save(callback);
                patch.is_applied = true;
                json_reply(200, &json!({ "data": { "success": true } }))
            }
            // Empty, or no URL.
            _ => error(400, "invalid_body", "callback_url: Invalid url"),
        };
        self.patches.push(patch);
        reply
    }

    /// Records a PATCH that is not applied.
    pub(super) fn note_refused_patch(&mut self, request: &Received, kind: Kind, name: &str) {
        if kind == Kind::Patch {
            let body = request.body.clone();
            self.patches.push(Patch { environment: name.into(), body, is_applied: false });
        }
    }
}

impl Environment {
    /// The fields in the list.
    fn head(&self, id: usize) -> Value {
        json!({
            "id": id,
            "uuid": self.uuid,
            "name": self.name,
            "is_production": self.is_production,
        })
    }
}
