//! A fake of Nango's REST API and the start of its flows, with the rate limits and the kinds of
//! integration of the real server, and several environments; and a provider.

mod account;
mod environment;
mod fault;
mod provider;

pub(crate) use account::{EnvironmentsApi, Patch};
pub(crate) use environment::{Cache, Environment};
pub(crate) use fault::{Fault, Kind, Rule};
pub(crate) use provider::{Registry, provider, registry};

use crate::fakes::{self, Act, Behaviour, Received, Reply, behaviour};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// The id of the first environment.
pub(crate) const ENVIRONMENT: &str = "0b6c1a52-6d1e-4c86-9d5f-2f0c3f2f7a11";

/// The scopes of an API key; `None`: all.
pub(crate) type Scopes = Option<Vec<String>>;

/// The fake server. Every request is recorded.
pub(crate) struct Nango {
    pub(crate) environments: Vec<Environment>,
    /// API keys of the account.
    pub(crate) account_keys: BTreeMap<String, Scopes>,
    pub(crate) environments_api: EnvironmentsApi,
    pub(crate) templates: BTreeMap<String, Value>,
    /// Requests and window of each limit.
    pub(crate) limit: Option<(u64, Duration)>,
    pub(crate) rules: Vec<Rule>,
    /// Notified when a request gets no response.
    pub(crate) hanging: Arc<Notify>,
    used: BTreeMap<&'static str, (Instant, u64)>,
    /// The environments of the connect sessions.
    session_environments: Vec<usize>,
    /// Method and path of each request.
    pub(crate) requests: Vec<String>,
    /// The kind of each request, and the name of its environment.
    pub(crate) events: Vec<(Kind, String)>,
    /// The bodies of connect sessions.
    pub(crate) sessions: Vec<Value>,
    /// Each PATCH of an environment.
    pub(crate) patches: Vec<Patch>,
    /// The clients that starts registered at a provider.
    pub(crate) registered: usize,
    /// The number of refused requests.
    pub(crate) refused: usize,
}

impl Default for Nango {
    /// With one environment.
    fn default() -> Self {
        Self {
            environments: vec![Environment::new("prod", ENVIRONMENT)],
            account_keys: BTreeMap::new(),
            environments_api: EnvironmentsApi::Current,
            templates: BTreeMap::new(),
            limit: None,
            rules: Vec::new(),
            hanging: Arc::default(),
            used: BTreeMap::new(),
            session_environments: Vec::new(),
            requests: Vec::new(),
            events: Vec::new(),
            sessions: Vec::new(),
            patches: Vec::new(),
            registered: 0,
            refused: 0,
        }
    }
}

/// Shared with the server.
pub(crate) type Shared = Arc<Mutex<Nango>>;

pub(crate) fn serve(nango: &Shared) -> Behaviour {
    let nango = Arc::clone(nango);
    behaviour(move |request| nango.lock().unwrap().act(request))
}

fn json_reply(status: u16, body: &Value) -> Reply {
    Reply::new(status).with("content-type", "application/json").body(&body.to_string())
}

/// An error in Nango's form.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Reply {
    json_reply(status, &json!({ "error": { "code": code, "message": message } }))
}

fn lacks(scope: &str) -> Reply {
    error(403, "forbidden", &format!("Insufficient scope. Required: {scope}"))
}

fn may(scopes: &Scopes, scope: &str) -> bool {
    scopes.as_ref().is_none_or(|all| all.iter().any(|it| it == scope))
}

fn parameters(request: &Received) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(request.query.as_deref().unwrap_or_default().as_bytes())
        .into_owned()
        .collect()
}

impl Nango {
    pub(crate) fn environment(&mut self, name: &str) -> &mut Environment {
        self.environments.iter_mut().find(|it| it.name == name).unwrap()
    }

    /// The callback in the settings of each environment.
    pub(crate) fn saved(&self) -> BTreeMap<String, String> {
        self.environments.iter().map(|it| (it.name.clone(), it.callback.clone())).collect()
    }

    fn act(&mut self, request: &Received) -> Act {
        self.requests.push(format!("{} {}", request.method, request.path));
        let (kind, at) = self.classify(request);
        let name = at.map(|at| self.environments[at].name.clone()).unwrap_or_default();
        self.events.push((kind, name.clone()));
        let rule = self.rules.iter_mut().find_map(|rule| rule.take(kind, &name));
        match rule {
            None => Act::Reply(self.reply(request, at)),
            Some(Fault::Reply(reply)) => {
                self.note_refused_patch(request, kind, &name);
                Act::Reply(reply)
            }
            Some(Fault::LostBefore) => {
                self.note_refused_patch(request, kind, &name);
                Act::Raw(Vec::new())
            }
            Some(Fault::LostAfter) => {
                self.reply(request, at);
                Act::Raw(Vec::new())
            }
            Some(Fault::ReplyAfter(reply)) => {
                self.reply(request, at);
                Act::Reply(reply)
            }
            Some(Fault::HangBefore) => {
                self.note_refused_patch(request, kind, &name);
                self.hanging.notify_one();
                Act::Hang(Vec::new())
            }
            Some(Fault::HangAfter) => {
                self.reply(request, at);
                self.hanging.notify_one();
                Act::Hang(Vec::new())
            }
            Some(Fault::Do(action)) => {
                action(self);
                Act::Reply(self.reply(request, at))
            }
        }
    }

    /// The kind of a request, and its environment.
    fn classify(&self, request: &Received) -> (Kind, Option<usize>) {
        let segments: Vec<_> = request.path.split('/').skip(1).collect();
        let key = bearer(request);
        let of_key = self.environments.iter().position(|it| it.keys.contains_key(key));
        match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["environments"]) => (Kind::List, None),
            ("GET", ["environments", uuid]) => (Kind::Read, self.position(uuid)),
            ("PATCH", ["environments", uuid]) => (Kind::Patch, self.position(uuid)),
            ("GET", ["integrations"]) => (Kind::Integrations, of_key),
            ("GET", ["integrations", _]) => (Kind::Integration, of_key),
            ("POST", ["connect", "sessions"]) => (Kind::Session, of_key),
            ("GET", ["oauth", "connect", _]) => {
                let token = parameters(request).remove("connect_session_token").unwrap_or_default();
                let number = token.rsplit('-').next().and_then(|it| it.parse::<usize>().ok());
                let at = number.and_then(|it| self.session_environments.get(it).copied());
                (Kind::Start, at)
            }
            _ => (Kind::Other, of_key),
        }
    }

    fn position(&self, uuid: &str) -> Option<usize> {
        self.environments.iter().position(|it| it.uuid == uuid)
    }

    fn reply(&mut self, request: &Received, at: Option<usize>) -> Reply {
        if matches!(request.path.as_str(), "/oauth/callback" | "/app-auth/connect") {
            let Act::Reply(reply) = fakes::nango(request) else { unreachable!() };
            return reply;
        }
        let bucket = if request.path.starts_with("/oauth/") { "public" } else { "api" };
        let headers = match self.count(bucket) {
            Ok(headers) => headers,
            Err(reply) => return *reply,
        };
        let segments: Vec<_> = request.path.split('/').skip(1).collect();
        let reply = match segments.as_slice() {
            ["oauth", path @ ..] => self.public(path, request, at),
            ["environments", path @ ..] => self.account(path, request),
            path => self.api(path, request, at),
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

    /// The calls with the API key of an environment.
    fn api(&mut self, path: &[&str], request: &Received, at: Option<usize>) -> Reply {
        let key = bearer(request);
        if self.account_keys.contains_key(key) {
            return error(403, "forbidden", "API key is not authorized for an environment");
        }
        let Some(at) = at else { return error(401, "unknown_account", "") };
        match (request.method.as_str(), path) {
            ("GET", ["providers", name]) => match self.templates.get(*name) {
                Some(template) => json_reply(200, &json!({ "data": template })),
                None => error(404, "unknown_provider", ""),
            },
            ("POST", ["connect", "sessions"]) => {
                let environment = &self.environments[at];
                if !may(&environment.keys[key], "environment:connect_sessions:write") {
                    return error(
                        403,
                        "forbidden",
                        "Insufficient scope. Required one of: environment:connect_sessions:write \
                         or environment:connect_sessions:*",
                    );
                }
                let token = format!("canary-session-token-{}", self.sessions.len());
                self.sessions.push(serde_json::from_str(&request.body).unwrap());
                self.session_environments.push(at);
                json_reply(201, &json!({ "data": { "token": token } }))
            }
            (method, path) => self.environments[at].api(key, method, path, request),
        }
    }

    fn public(&mut self, path: &[&str], request: &Received, at: Option<usize>) -> Reply {
        let query = parameters(request);
        match path {
            ["client-metadata", uuid, _] => match self.position(uuid) {
                Some(at) => {
                    json_reply(200, &json!({ "redirect_uris": [self.environments[at].callback] }))
                }
                None => error(404, "not_found", ""),
            },
            ["connect", _] if query.contains_key("public_key") => {
                error(401, "deprecated_authentication", "")
            }
            ["connect", key] => {
                let Some(at) = at else { return error(401, "unknown_connect_session_token", "") };
                let environment = &mut self.environments[at];
                let token = &query["connect_session_token"];
                let number: usize = token.rsplit('-').next().unwrap().parse().unwrap();
                let (session, templates) = (&self.sessions[number], &self.templates);
                let host = request.header("host").unwrap();
                let next = self.registered + 1;
                let (reply, registers) = environment.start(key, host, session, templates, next);
                self.registered += usize::from(registers);
                reply
            }
            _ => error(404, "not_found", ""),
        }
    }
}

/// The API key of a request.
fn bearer(request: &Received) -> &str {
    let key = request.header("authorization").and_then(|it| it.strip_prefix("Bearer "));
    key.unwrap_or_default()
}
