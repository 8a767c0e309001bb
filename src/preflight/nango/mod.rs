//! Nango's REST, as far as a preflight asks it: what there is, and how flows begin.
//!
//! Only names, ids and templates are kept of what it answers; a secret that comes along is never
//! read into memory of ours that outlives the answer.

mod refused;

pub use refused::{Reach, Refused};

use crate::config::IntegrationSettings;
use crate::outbound::{
    Answer, Fault, Offer, Origin, Outbound, Range, Reason, Request, Server, Step,
};
use crate::redirect::Target;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use url::form_urlencoded::Serializer;

/// A Nango server, and the key to one environment in it.
#[derive(Clone, Debug)]
pub struct Nango {
    outbound: Outbound,
    server: Server,
    /// The base URL, and the path in it, both without a trailing slash.
    base: String,
    prefix: String,
    key: SecretString,
}

/// An integration that is set up in the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integration {
    /// Its name in the environment.
    pub unique_key: String,
    /// The name of its template; empty where Nango names none.
    pub provider: String,
}

/// What Nango knows of a kind of provider. A member of another type than expected is for its reader
/// to judge: one odd template is no reason to tell nothing of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Template {
    /// `OAUTH2`, `OAUTH1`, `API_KEY` and others.
    pub auth_mode: Value,
    /// Where users are sent to, with `${connectionConfig.…}` for what differs by account.
    pub authorization_url: Value,
    /// What is sent along, by name.
    pub authorization_params: Value,
    /// What parts two scopes; a space where nothing is said.
    pub scope_separator: Value,
}

impl Template {
    /// The mode; empty where there is none.
    pub fn auth_mode(&self) -> &str {
        self.auth_mode.as_str().unwrap_or_default()
    }
}

/// The app at the provider, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// RFC 6749 §2.2.
    pub client_id: String,
    /// As they were written in Nango.
    pub scopes: Option<String>,
}

/// How a flow is allowed to begin.
#[derive(Clone, Debug)]
pub enum Pass {
    /// The token of a connect session.
    Session(SecretString),
    /// The older way: the environment's public key, the id that the connection would have, and
    /// the digest, where the environment wants one, by integration.
    PublicKey {
        /// Not a secret: web pages carry it.
        key: String,
        /// The id that the connection would have.
        connection: String,
        /// What signs both.
        hmac_key: Option<SecretString>,
    },
}

impl Pass {
    /// What a flow is begun with.
    fn query(&self, integration: &str, settings: &IntegrationSettings) -> String {
        let mut query = Serializer::new(String::new());
        match self {
            Pass::Session(token) => {
                query.append_pair("connect_session_token", token.expose_secret());
            }
            Pass::PublicKey { key, connection, hmac_key } => {
                query.append_pair("public_key", key).append_pair("connection_id", connection);
                if let Some(hmac_key) = hmac_key {
                    let digest = super::hmac_digest(hmac_key, integration, Some(connection));
                    query.append_pair("hmac", &digest);
                }
                for (name, value) in &settings.params {
                    query.append_pair(&format!("params[{name}]"), value);
                }
                for (name, value) in &settings.authorization_params {
                    query.append_pair(&format!("authorization_params[{name}]"), value);
                }
                if let Some(scope) = &settings.user_scope {
                    query.append_pair("user_scope", scope);
                }
            }
        }
        query.finish()
    }
}

/// What a request to Nango proves who it is with.
#[derive(Clone, Copy, Debug)]
enum Authentication {
    /// The environment's API key.
    ApiKey,
    /// Nothing.
    None,
}

/// A template list, or a page of connections, is not longer.
const MOST_BYTES: usize = 8 << 20;

/// How often a refusal for being asked too much is waited out, and for how long at most each time:
/// Nango counts by the minute.
const PATIENCE: (u32, Duration) = (5, Duration::from_secs(70));

/// How long to wait where it does not say.
const UNSAID: u64 = 5;

/// Connections in a page.
const PAGE: usize = 1000;

/// What is only counted is not counted without end.
const MOST_PAGES: usize = 20;

impl Nango {
    /// `base` is `nango.url`.
    pub fn new(outbound: Outbound, base: &Target, key: SecretString) -> Self {
        let text = base.as_str().trim_end_matches('/').to_owned();
        let server = Server {
            tls: base.scheme() == "https",
            host: base.host().to_owned(),
            port: base.port(),
        };
        let prefix = base.path().trim_end_matches('/').to_owned();
        Self { outbound: outbound.reading(MOST_BYTES), server, base: text, prefix, key }
    }

    /// The base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The ranges that its addresses are in, where they are this machine's or a private network's. An
    /// override says how the server is reached, not where it is.
    pub async fn private_ranges(&self) -> Vec<Range> {
        let resolved = self.outbound.resolve(&self.server.host, self.server.port).await;
        let Some(resolved) = resolved.ok().filter(|it| it.origin != Origin::Override) else {
            return Vec::new();
        };
        let ranges = resolved.addresses.iter().filter_map(|address| Range::of(address.ip()));
        let near = [Range::Loopback, Range::Private, Range::CarrierGradeNat];
        ranges.filter(|range| near.contains(range)).collect()
    }

    /// Every integration of the environment, in one answer. Scope `environment:integrations:list`.
    pub async fn integrations(&self) -> Result<Vec<Integration>, Refused> {
        self.read_integrations(&self.get("/integrations").await?)
    }

    /// Reads what [`Nango::integrations`] is answered.
    pub fn read_integrations(&self, answer: &Answer) -> Result<Vec<Integration>, Refused> {
        let scope = "environment:integrations:list";
        let Data { data }: Data<Vec<Value>> = self.read(answer, scope)?;
        let integrations: Option<Vec<_>> = data
            .iter()
            .map(|it| {
                let text = |name| it.get(name).and_then(Value::as_str).map(str::to_owned);
                let provider = text("provider").unwrap_or_default();
                Some(Integration { unique_key: text("unique_key")?, provider })
            })
            .collect();
        integrations.ok_or_else(|| self.foreign("it lists an integration without `unique_key`"))
    }

    /// How many connections an integration has, read page by page. Scope
    /// `environment:connections:list`.
    pub async fn connections(&self, integration: &str) -> Result<usize, Refused> {
        #[derive(Deserialize)]
        struct Connections {
            connections: Vec<IgnoredAny>,
        }
        let mut count = 0;
        for page in 0..MOST_PAGES {
            let query = Serializer::new(String::new())
                .append_pair("integrationId", integration)
                .append_pair("limit", &PAGE.to_string())
                .append_pair("page", &page.to_string())
                .finish();
            let path = format!("/connections?{query}");
            let answer = self.get(&path).await?;
            let found: Connections = self.read(&answer, "environment:connections:list")?;
            count += found.connections.len();
            if found.connections.len() < PAGE {
                break;
            }
        }
        Ok(count)
    }

    /// A template. Any key may read it.
    pub async fn template(&self, provider: &str) -> Result<Template, Refused> {
        let path = format!("/providers/{}", segment(provider));
        self.read_template(&self.get(&path).await?)
    }

    /// Reads what [`Nango::template`] is answered.
    pub fn read_template(&self, answer: &Answer) -> Result<Template, Refused> {
        Ok(self.read::<Data<Template>>(answer, "environment:providers:read")?.data)
    }

    /// An integration's app; `None` where the key may not read credentials, which Nango leaves out
    /// without a word. Scope `environment:integrations:read_credentials`.
    pub async fn app(&self, integration: &str) -> Result<Option<App>, Refused> {
        let path = format!("/integrations/{}?include=credentials", segment(integration));
        self.read_app(&self.get(&path).await?)
    }

    /// Reads what [`Nango::app`] is answered.
    pub fn read_app(&self, answer: &Answer) -> Result<Option<App>, Refused> {
        #[derive(Deserialize)]
        struct WithCredentials {
            credentials: Option<Value>,
        }
        let scope = "environment:integrations:read_credentials";
        let found: Data<WithCredentials> = self.read(answer, scope)?;
        // Credentials of another kind, such as an API key, have no client id.
        let credentials = found.data.credentials.unwrap_or_default();
        let text = |name| credentials.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(text("client_id").map(|client_id| App { client_id, scopes: text("scopes") }))
    }

    /// The configuration of a connection. Scope `environment:connections:read`.
    pub async fn connection_config(
        &self,
        integration: &str,
        connection: &str,
    ) -> Result<BTreeMap<String, String>, Refused> {
        let query =
            Serializer::new(String::new()).append_pair("provider_config_key", integration).finish();
        let path = format!("/connections/{}?{query}", segment(connection));
        self.read_connection_config(&self.get(&path).await?)
    }

    /// Reads what [`Nango::connection_config`] is answered.
    pub fn read_connection_config(
        &self,
        answer: &Answer,
    ) -> Result<BTreeMap<String, String>, Refused> {
        #[derive(Deserialize)]
        struct Connection {
            #[serde(default)]
            connection_config: Map<String, Value>,
        }
        let found: Connection = self.read(answer, "environment:connections:read")?;
        let texts = found.connection_config.into_iter().filter_map(|(name, value)| match value {
            Value::String(text) => Some((name, text)),
            Value::Number(number) => Some((name, number.to_string())),
            _ => None,
        });
        Ok(texts.collect())
    }

    /// A session that may start flows of these integrations, with what belongs to each. Scope
    /// `environment:connect_sessions:write`.
    pub async fn session<'i>(
        &self,
        integrations: impl IntoIterator<Item = (&'i str, &'i IntegrationSettings)>,
    ) -> Result<SecretString, Refused> {
        #[derive(Deserialize)]
        struct Session {
            token: String,
        }
        let mut allowed = Vec::new();
        let mut defaults = Map::new();
        for (key, settings) in integrations {
            allowed.push(key);
            let own = own_defaults(settings);
            if !own.is_empty() {
                defaults.insert(key.to_owned(), Value::Object(own));
            }
        }
        let mut body = Map::new();
        body.insert("allowed_integrations".into(), json!(allowed));
        if !defaults.is_empty() {
            body.insert("integrations_config_defaults".into(), Value::Object(defaults));
        }
        body.insert("tags".into(), json!({ "purpose": "callback-edge preflight" }));
        let mut answer = self.post("/connect/sessions", &body).await?;
        if answer.status == StatusCode::BAD_REQUEST
            && refused::error_code(&answer).is_some_and(|code| code == "invalid_body")
        {
            // Servers before tags want an end user.
            body.remove("tags");
            body.insert("end_user".into(), json!({ "id": "callback-edge-preflight" }));
            answer = self.post("/connect/sessions", &body).await?;
        }
        let scope = "environment:connect_sessions:write";
        Ok(self.read::<Data<Session>>(&answer, scope)?.data.token.into())
    }

    /// Begins a flow, and tells where the user would be sent to: a URL that holds a live `state`.
    pub async fn begin(
        &self,
        integration: &str,
        settings: &IntegrationSettings,
        pass: &Pass,
    ) -> Result<String, Refused> {
        let path = format!(
            "/oauth/connect/{}?{}",
            segment(integration),
            pass.query(integration, settings)
        );
        // As a browser does it.
        let answer =
            self.patiently(|| self.request(Method::GET, &path, Authentication::None, None)).await?;
        if answer.status.is_redirection() {
            let location = answer.headers.get(header::LOCATION);
            return match location.and_then(|location| location.to_str().ok()) {
                Some(location) => Ok(location.to_owned()),
                None => Err(self.foreign("its redirect names no URL")),
            };
        }
        Err(Refused::not_begun(&answer, pass))
    }

    async fn get(&self, path: &str) -> Result<Answer, Refused> {
        self.patiently(|| self.request(Method::GET, path, Authentication::ApiKey, None)).await
    }

    async fn post(&self, path: &str, body: &Map<String, Value>) -> Result<Answer, Refused> {
        self.patiently(|| self.request(Method::POST, path, Authentication::ApiKey, Some(body)))
            .await
    }

    /// Asks, waits out being told that it was too often, and asks once more behind a fault on the
    /// server's side: one of some hundred requests is no reason to begin again.
    async fn patiently<F>(&self, ask: impl Fn() -> F) -> Result<Answer, Refused>
    where
        F: Future<Output = Result<Answer, Fault>>,
    {
        let (tries, longest) = PATIENCE;
        let mut faults = 0;
        for _ in 1..tries {
            match ask().await {
                Ok(answer) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                    let wait = Duration::from_secs(answer.retry_after().unwrap_or(UNSAID));
                    if wait > longest {
                        return Ok(answer);
                    }
                    tokio::time::sleep(wait).await;
                }
                Ok(answer) if answer.status.is_server_error() && faults == 0 => faults += 1,
                Err(fault) if is_passing(&fault) && faults == 0 => faults += 1,
                Ok(answer) => return Ok(answer),
                Err(fault) => return Err(Refused::unreachable(&self.base, &fault)),
            }
        }
        ask().await.map_err(|fault| Refused::unreachable(&self.base, &fault))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        authentication: Authentication,
        body: Option<&Map<String, Value>>,
    ) -> Result<Answer, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
        if let Authentication::ApiKey = authentication {
            let value = format!("Bearer {}", self.key.expose_secret());
            let mut value = HeaderValue::from_str(&value).map_err(|_| {
                let text = "the API key holds characters that no header may hold";
                Fault::new(Step::Head, Reason::Unsendable, text)
            })?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let mut bytes = Bytes::new();
        if let Some(body) = body {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            bytes = json!(body).to_string().into();
        }
        let path_and_query = format!("{}{path}", self.prefix);
        let request = Request { method, path_and_query, headers, body: bytes };
        Box::pin(self.outbound.ask(&self.server, Offer::Both, &request)).await
    }

    fn read<T: DeserializeOwned>(&self, answer: &Answer, scope: &str) -> Result<T, Refused> {
        if !answer.status.is_success() {
            return Err(Refused::of(answer, &self.base, scope));
        }
        // An error of serde_json may quote what it could not read.
        serde_json::from_slice(&answer.body)
            .map_err(|_| self.foreign("its answer is not what Nango answers"))
    }

    fn foreign(&self, what: &str) -> Refused {
        Refused::foreign(&self.base, what)
    }
}

/// Whether a fault may be gone a moment later.
fn is_passing(fault: &Fault) -> bool {
    matches!(
        fault.reason,
        Reason::Timeout | Reason::Closed | Reason::ResolverFailed | Reason::ResolverUnreachable
    )
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

/// What a session is told of one integration.
fn own_defaults(settings: &IntegrationSettings) -> Map<String, Value> {
    let mut own = Map::new();
    if let Some(scope) = &settings.user_scope {
        own.insert("user_scopes".into(), json!(scope));
    }
    if !settings.authorization_params.is_empty() {
        own.insert("authorization_params".into(), json!(settings.authorization_params));
    }
    if !settings.params.is_empty() {
        own.insert("connection_config".into(), json!(settings.params));
    }
    own
}

/// A name as one segment of a path (RFC 3986 §3.3).
fn segment(name: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    // A dot alone, or two, would be another path.
    if text.bytes().all(|byte| byte == b'.') { text.replace('.', "%2E") } else { text }
}
