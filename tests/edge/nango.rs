//! A fake of Nango's REST API and the start of its flows, with the rate limits and the kinds of
//! integration of the real server; and a provider.

use crate::fakes::{Act, Behaviour, Received, Reply, behaviour};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use url::form_urlencoded::Serializer;

/// The id of the environment.
pub(crate) const ENVIRONMENT: &str = "0b6c1a52-6d1e-4c86-9d5f-2f0c3f2f7a11";

/// The fake server. Every request is recorded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nango {
    /// The callback in the settings.
    pub(crate) callback: String,
    /// API key → its scopes; `None`: all.
    pub(crate) keys: BTreeMap<String, Option<Vec<String>>>,
    /// API keys of the account.
    pub(crate) account_keys: Vec<String>,
    pub(crate) templates: BTreeMap<String, Value>,
    pub(crate) integrations: Vec<Value>,
    pub(crate) connections: BTreeMap<String, Value>,
    /// Requests and window of each limit.
    pub(crate) limit: Option<(u64, Duration)>,
    /// The integrations of which a start fails, with the text of the page.
    pub(crate) failing: BTreeMap<String, String>,
    used: BTreeMap<&'static str, (Instant, u64)>,
    session: Value,
    /// Method and path of each request.
    pub(crate) requests: Vec<String>,
    /// The bodies of connect sessions.
    pub(crate) sessions: Vec<Value>,
    /// The clients that starts registered at a provider.
    pub(crate) registered: usize,
    /// The number of refused requests.
    pub(crate) refused: usize,
}

/// Shared with the server.
pub(crate) type Shared = Arc<Mutex<Nango>>;

pub(crate) fn serve(nango: &Shared) -> Behaviour {
    let nango = Arc::clone(nango);
    behaviour(move |request| Act::Reply(nango.lock().unwrap().reply(request)))
}

fn json_reply(status: u16, body: &Value) -> Reply {
    Reply::new(status).with("content-type", "application/json").body(&body.to_string())
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    json_reply(status, &json!({ "error": { "code": code, "message": message } }))
}

impl Nango {
    fn reply(&mut self, request: &Received) -> Reply {
        self.requests.push(format!("{} {}", request.method, request.path));
        let bucket = if request.path.starts_with("/oauth/") { "public" } else { "api" };
        let headers = match self.count(bucket) {
            Ok(headers) => headers,
            Err(reply) => return *reply,
        };
        let reply = match request.path.strip_prefix("/oauth/") {
            Some(path) => self.public(path, request),
            None => self.api(request),
        };
        headers.into_iter().fold(reply, |reply, (name, value)| reply.with(name, value.to_string()))
    }

    /// Counts a request; refuses it when the limit is reached. Times are rounded down, as Nango does.
    fn count(&mut self, bucket: &'static str) -> Result<Vec<(&'static str, u64)>, Box<Reply>> {
        let Some((points, window)) = self.limit else { return Ok(Vec::new()) };
        let now = Instant::now();
        let (began, used) = self.used.entry(bucket).or_insert((now, 0));
        if now.duration_since(*began) >= window {
            (*began, *used) = (now, 0);
        }
        *used += 1;
        let left = window.saturating_sub(now.duration_since(*began));
        let reset = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + left;
        let headers = vec![
            ("x-ratelimit-limit", points),
            ("x-ratelimit-remaining", points.saturating_sub(*used)),
            ("x-ratelimit-reset", reset.as_secs()),
        ];
        if *used <= points {
            return Ok(headers);
        }
        self.refused += 1;
        let reply =
            error(429, "too_many_request", "").with("retry-after", left.as_secs().to_string());
        Err(Box::new(reply))
    }

    fn api(&mut self, request: &Received) -> Reply {
        let key = request.header("authorization").and_then(|it| it.strip_prefix("Bearer "));
        let key = key.unwrap_or_default();
        if self.account_keys.iter().any(|it| it == key) {
            return error(403, "forbidden", "API key is not authorized for an environment");
        }
        let Some(scopes) = self.keys.get(key) else { return error(401, "unknown_account", "") };
        let may = |scope: &str| scopes.as_ref().is_none_or(|all| all.iter().any(|it| it == scope));
        let query = request.query.as_deref().unwrap_or_default();
        let segments: Vec<_> = request.path.split('/').skip(1).collect();
        match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["integrations"]) if !may("environment:integrations:list") => error(
                403,
                "forbidden",
                "Insufficient scope. Required: environment:integrations:list",
            ),
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
                if query.contains("credentials") && may("environment:integrations:read_credentials")
                {
                    data["credentials"] = found["credentials"].clone();
                }
                if query.contains("webhook") {
                    data["webhook_url"] =
                        json!(format!("https://n.example/webhook/{ENVIRONMENT}/{key}"));
                }
                json_reply(200, &json!({ "data": data }))
            }
            ("GET", ["providers", name]) => match self.templates.get(*name) {
                Some(template) => json_reply(200, &json!({ "data": template })),
                None => error(404, "unknown_provider", ""),
            },
            ("GET", ["connections", id]) => match self.connections.get(*id) {
                Some(config) => json_reply(200, &json!({ "connection_config": config })),
                None => error(404, "not_found", ""),
            },
            ("GET", ["connections"]) => json_reply(200, &json!({ "connections": [] })),
            ("POST", ["connect", "sessions"]) if !may("environment:connect_sessions:write") => {
                error(
                    403,
                    "forbidden",
                    "Insufficient scope. Required one of: environment:connect_sessions:write or \
                 environment:connect_sessions:*",
                )
            }
            ("POST", ["connect", "sessions"]) => {
                self.session = serde_json::from_str(&request.body).unwrap();
                self.sessions.push(self.session.clone());
                json_reply(201, &json!({ "data": { "token": "canary-session-token" } }))
            }
            _ => error(404, "not_found", ""),
        }
    }

    fn public(&mut self, path: &str, request: &Received) -> Reply {
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(request.query.as_deref().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        match path.split('/').collect::<Vec<_>>().as_slice() {
            ["client-metadata", ENVIRONMENT, _] => {
                json_reply(200, &json!({ "redirect_uris": [self.callback] }))
            }
            ["connect", _] if query.contains_key("public_key") => {
                error(401, "deprecated_authentication", "")
            }
            ["connect", key] => self.start(key, request.header("host").unwrap()),
            _ => error(404, "not_found", ""),
        }
    }

    fn start(&mut self, key: &str, host: &str) -> Reply {
        let page = |text: &str| {
            Reply::page(400, &format!("<title>Authorization callback</title><p>{text}</p>"))
        };
        let allowed = self.session["allowed_integrations"].as_array().unwrap();
        if !allowed.iter().any(|it| it == key) {
            return error(400, "integration_not_allowed", "");
        }
        if let Some(text) = self.failing.get(key) {
            return page(text);
        }
        let found = self.integrations.iter().find(|it| it["unique_key"] == key).unwrap();
        let template = &self.templates[found["provider"].as_str().unwrap()];
        let mode = template["auth_mode"].as_str().unwrap();
        let mut callback = self.callback.clone();
        let mut client_id = found["client_id"].as_str().unwrap_or_default().to_owned();
        match (mode, template["client_registration"].as_str()) {
            ("MCP_OAUTH2_GENERIC", _) => {
                self.registered += 1;
                client_id = format!("registered-{}", self.registered);
            }
            ("MCP_OAUTH2", Some("cimd")) => {
                client_id = format!("http://{host}/oauth/client-metadata/{ENVIRONMENT}/{key}");
            }
            ("MCP_OAUTH2" | "OAUTH2", _) => {}
            _ => return page(&format!("Auth mode {mode} not supported.")),
        }
        if let Some(own) = template["authorization_params"]["redirect_uri"].as_str() {
            own.clone_into(&mut callback);
        }
        let defaults = &self.session["integrations_config_defaults"][key]["connection_config"];
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
        Reply::new(302)
            .with("location", format!("{url}{separator}{}", query.finish()))
            .with("set-cookie", cookie)
    }
}

/// A provider that knows the callbacks of its clients. Returns its reply, and records each request.
pub(crate) fn provider(
    clients: &[(&str, &[&str])],
    received: &Arc<Mutex<Vec<String>>>,
) -> Behaviour {
    let clients: BTreeMap<String, BTreeSet<String>> = clients
        .iter()
        .map(|(id, uris)| ((*id).to_owned(), uris.iter().map(|it| (*it).to_owned()).collect()))
        .collect();
    let received = Arc::clone(received);
    behaviour(move |request| {
        let query = request.query.clone().unwrap_or_default();
        received.lock().unwrap().push(format!("{}?{query}", request.path));
        let value = |wanted: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
        };
        let registered = value("client_id").and_then(|id| clients.get(&id));
        let uri = value("redirect_uri").unwrap_or_default();
        Act::Reply(match registered {
            None => Reply::page(400, "<h1>Error: invalid_client</h1><p>unknown client</p>"),
            Some(uris) if uris.contains(&uri) => {
                Reply::new(302).with("location", "/login?continue=1")
            }
            Some(_) => Reply::page(
                400,
                "<h1>Error: redirect_uri_mismatch</h1><p>The redirect_uri is not registered</p>",
            ),
        })
    })
}
