//! The part of Nango's REST API that a preflight uses: list integrations and start flows.
//!
//! Keeps only names, ids and templates of the responses. Secrets in a response are dropped together
//! with it.

mod account;
mod budget;
mod error;

pub use account::{Account, NangoEnvironment, NoEnvironments, Saved};
pub(super) use error::NO_CREDENTIALS;
pub use error::{ErrorScope, NangoError};

use crate::config::IntegrationSettings;
use crate::outbound::{
    Fault, Offer, Origin, Outbound, Range, Reason, Request, Response, Server, Step,
};
use crate::redirect::Target;
use budget::{Bucket, Budget};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use url::Url;
use url::form_urlencoded::{self, Serializer};

/// A Nango server with the API key of an environment.
#[derive(Clone, Debug)]
pub struct Nango {
    outbound: Outbound,
    server: Server,
    /// The base URL and its path, both without a trailing slash.
    base: String,
    prefix: String,
    key: SecretString,
    budget: Arc<Budget>,
}

/// An integration of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integration {
    /// Its unique key in the environment.
    pub unique_key: String,
    /// The name of its template; empty when Nango returns none.
    pub provider: String,
    /// Its name in Nango's dashboard; empty when Nango returns none.
    pub display_name: String,
}

/// Nango's template of a provider. Members may have any type: an unexpected one must not prevent the
/// checks of other integrations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Template {
    /// Its name, for example `google-mail`.
    #[serde(skip)]
    pub name: String,
    /// `OAUTH2`, `OAUTH1`, `API_KEY` and others.
    pub auth_mode: Value,
    /// The authorization URL, with `${connectionConfig.…}` for what differs by account.
    pub authorization_url: Value,
    /// Additional parameters.
    pub authorization_params: Value,
    /// The separator of scopes; a space by default.
    pub scope_separator: Value,
    /// Texts of the authorization URL, and their replacements.
    pub authorization_url_replacements: Value,
    /// The start of the fragment that contains the parameters.
    pub authorization_url_fragment: Value,
    /// Whether parameters without a value are omitted.
    pub authorization_url_skip_empty: Value,
    /// Whether there is no code challenge (RFC 7636).
    pub disable_pkce: Value,
    /// The token URL: the start of a flow needs its values too.
    pub token_url: Value,
    /// The parameters of token requests.
    pub token_params: Value,
    /// The values that differ by account, each with a schema.
    pub connection_config: Value,
    /// `static`, `dynamic` (RFC 7591) or `cimd` (a client metadata document); for MCP servers.
    pub client_registration: Value,
    /// `outbound`: the provider starts the installation.
    pub installation: Value,
}

impl Template {
    /// The mode; empty when there is none.
    pub fn auth_mode(&self) -> &str {
        self.auth_mode.as_str().unwrap_or_default()
    }
}

/// The OAuth app at the provider, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// RFC 6749 §2.2.
    pub client_id: String,
    /// As configured in Nango.
    pub scopes: Option<String>,
    /// The public page of an app that users install.
    pub link: Option<String>,
}

/// The credential that starts flows.
#[derive(Clone, Debug)]
pub enum FlowCredential {
    /// The token of a connect session.
    Session(SecretString),
    /// The older method: the public key of the environment, the id of the connection, and a digest
    /// for each integration when the environment requires signed starts.
    PublicKey {
        /// Not a secret: web pages contain it.
        key: String,
        /// The id that the connection would have.
        connection: String,
        /// Signs integration and connection.
        hmac_key: Option<SecretString>,
    },
}

impl FlowCredential {
    /// The query that starts a flow.
    fn query(&self, integration: &str, settings: &IntegrationSettings) -> String {
        let mut query = Serializer::new(String::new());
        match self {
            FlowCredential::Session(token) => {
                query.append_pair("connect_session_token", token.expose_secret());
            }
            FlowCredential::PublicKey { key, connection, hmac_key } => {
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

/// How a request to Nango is authenticated.
#[derive(Clone, Copy, Debug)]
enum Authentication {
    /// The environment's API key.
    ApiKey,
    /// Not at all.
    None,
}

/// More than a list of templates or a page of connections has.
const MAX_BYTES: usize = 8 << 20;

/// The number of consecutive 429 after which a request fails. Each follows a wait for the next window.
const MAX_LIMITED: u32 = 6;

/// Connections in a page.
const PAGE_SIZE: usize = 1000;

/// Bounds the count of connections.
const MAX_PAGES: usize = 20;

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
        let outbound = outbound.with_body_limit(MAX_BYTES);
        Self { outbound, server, base: text, prefix, key, budget: Arc::default() }
    }

    /// The base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The ranges of its addresses that are on this machine or a private network. Overridden
    /// addresses and those of proxies do not count: they define how to reach the server, not where it is.
    pub async fn private_ranges(&self) -> Vec<Range> {
        let resolved = self.outbound.resolve(&self.server).await;
        let Some(resolved) =
            resolved.ok().filter(|it| !matches!(it.origin, Origin::Override | Origin::Proxy(_)))
        else {
            return Vec::new();
        };
        let ranges = resolved.addresses.iter().filter_map(|address| Range::of(address.ip()));
        let near = [Range::Loopback, Range::Private, Range::CarrierGradeNat];
        ranges.filter(|range| near.contains(range)).collect()
    }

    /// All integrations of the environment. Scope `environment:integrations:list`.
    pub async fn integrations(&self) -> Result<Vec<Integration>, NangoError> {
        self.read_integrations(&self.get("/integrations").await?)
    }

    /// Parses the response to [`Nango::integrations`].
    pub fn read_integrations(&self, response: &Response) -> Result<Vec<Integration>, NangoError> {
        let scope = "environment:integrations:list";
        let Data { data }: Data<Vec<Value>> = self.read(response, scope)?;
        let integrations: Option<Vec<_>> = data
            .iter()
            .map(|it| {
                let text = |name| it.get(name).and_then(Value::as_str).map(str::to_owned);
                let provider = text("provider").unwrap_or_default();
                let display_name = text("display_name").unwrap_or_default();
                Some(Integration { unique_key: text("unique_key")?, provider, display_name })
            })
            .collect();
        integrations.ok_or_else(|| self.not_nango("an integration has no `unique_key`"))
    }

    /// The number of connections of an integration. Scope `environment:connections:list`.
    pub async fn connections(&self, integration: &str) -> Result<usize, NangoError> {
        #[derive(Deserialize)]
        struct Connections {
            connections: Vec<IgnoredAny>,
        }
        let mut count = 0;
        for page in 0..MAX_PAGES {
            let query = Serializer::new(String::new())
                .append_pair("integrationId", integration)
                .append_pair("limit", &PAGE_SIZE.to_string())
                .append_pair("page", &page.to_string())
                .finish();
            let path = format!("/connections?{query}");
            let response = self.get(&path).await?;
            let found: Connections = self.read(&response, "environment:connections:list")?;
            count += found.connections.len();
            if found.connections.len() < PAGE_SIZE {
                break;
            }
        }
        Ok(count)
    }

    /// A template. Requires no scope.
    pub async fn template(&self, provider: &str) -> Result<Template, NangoError> {
        let path = format!("/providers/{}", segment(provider));
        let template = self.read_template(&self.get(&path).await?)?;
        Ok(Template { name: provider.to_owned(), ..template })
    }

    /// Parses the response to [`Nango::template`].
    pub fn read_template(&self, response: &Response) -> Result<Template, NangoError> {
        Ok(self.read::<Data<Template>>(response, "environment:providers:read")?.data)
    }

    /// The app of an integration; `None` when the key may not read credentials, which Nango then
    /// omits silently. Scope `environment:integrations:read_credentials`.
    pub async fn app(&self, integration: &str) -> Result<Option<App>, NangoError> {
        let path = format!("/integrations/{}?include=credentials", segment(integration));
        self.read_app(&self.get(&path).await?)
    }

    /// Parses the response to [`Nango::app`].
    pub fn read_app(&self, response: &Response) -> Result<Option<App>, NangoError> {
        #[derive(Deserialize)]
        struct WithCredentials {
            credentials: Option<Value>,
        }
        let scope = "environment:integrations:read_credentials";
        let found: Data<WithCredentials> = self.read(response, scope)?;
        // Credentials of another kind, such as an API key, have no client id.
        let credentials = found.data.credentials.unwrap_or_default();
        let text = |name| credentials.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(text("client_id").map(|client_id| App {
            client_id,
            scopes: text("scopes"),
            link: text("app_link"),
        }))
    }

    /// The id of the environment in the URL of a client metadata document, which is a value in this
    /// authorization URL.
    pub fn environment_in(&self, authorization_url: &str) -> Option<String> {
        let url = Url::parse(authorization_url).ok()?;
        let mut pairs = form_urlencoded::parse(url.query()?.as_bytes());
        let (_, client_id) = pairs.find(|(name, _)| name == "client_id")?;
        let path = client_id.strip_prefix(&self.base)?.strip_prefix("/oauth/client-metadata/")?;
        path.split('/').next().filter(|it| is_uuid(it)).map(str::to_owned)
    }

    /// The id of the environment, from the webhook URL of an integration; `None` when its provider
    /// has no webhooks. Scope `environment:integrations:read`.
    pub async fn environment_of(&self, integration: &str) -> Result<Option<String>, NangoError> {
        let path = format!("/integrations/{}?include=webhook", segment(integration));
        let response = self.get(&path).await?;
        let found: Data<Value> = self.read(&response, "environment:integrations:read")?;
        let url = found.data.get("webhook_url").and_then(Value::as_str).unwrap_or_default();
        Ok(url.split('/').find(|part| is_uuid(part)).map(str::to_owned))
    }

    /// The callbacks in the client metadata document of an integration.
    pub async fn published_callbacks(
        &self,
        environment: &str,
        integration: &str,
    ) -> Result<Vec<String>, NangoError> {
        #[derive(Deserialize)]
        struct Document {
            redirect_uris: Vec<String>,
        }
        let path =
            format!("/oauth/client-metadata/{}/{}", segment(environment), segment(integration));
        let response = self
            .with_retries(Bucket::Public, || {
                self.request(Method::GET, &path, Authentication::None, None)
            })
            .await?;
        Ok(self.read::<Document>(&response, "environment:integrations:read")?.redirect_uris)
    }

    /// The configuration of a connection. Scope `environment:connections:read`.
    pub async fn connection_config(
        &self,
        integration: &str,
        connection: &str,
    ) -> Result<BTreeMap<String, String>, NangoError> {
        let query =
            Serializer::new(String::new()).append_pair("provider_config_key", integration).finish();
        let path = format!("/connections/{}?{query}", segment(connection));
        self.read_connection_config(&self.get(&path).await?)
    }

    /// Parses the response to [`Nango::connection_config`].
    pub fn read_connection_config(
        &self,
        response: &Response,
    ) -> Result<BTreeMap<String, String>, NangoError> {
        #[derive(Deserialize)]
        struct Connection {
            #[serde(default)]
            connection_config: Map<String, Value>,
        }
        let found: Connection = self.read(response, "environment:connections:read")?;
        let texts = found.connection_config.into_iter().filter_map(|(name, value)| match value {
            Value::String(text) => Some((name, text)),
            Value::Number(number) => Some((name, number.to_string())),
            _ => None,
        });
        Ok(texts.collect())
    }

    /// Creates a connect session for these integrations and their settings. Scope
    /// `environment:connect_sessions:write`.
    pub async fn session<'i>(
        &self,
        integrations: impl IntoIterator<Item = (&'i str, &'i IntegrationSettings)>,
    ) -> Result<SecretString, NangoError> {
        #[derive(Deserialize)]
        struct Session {
            token: String,
        }
        let mut allowed = Vec::new();
        let mut defaults = Map::new();
        for (key, settings) in integrations {
            allowed.push(key);
            let own = session_defaults(settings);
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
        let mut response = self.post("/connect/sessions", &body).await?;
        if response.status == StatusCode::BAD_REQUEST
            && error::error_code(&response).is_some_and(|code| code == "invalid_body")
        {
            // Older servers do not accept tags and require an end user.
            body.remove("tags");
            body.insert("end_user".into(), json!({ "id": "callback-edge-preflight" }));
            response = self.post("/connect/sessions", &body).await?;
        }
        let scope = "environment:connect_sessions:write";
        Ok(self.read::<Data<Session>>(&response, scope)?.data.token.into())
    }

    /// Starts a flow and returns the authorization URL, which contains a live `state`.
    pub async fn start_flow(
        &self,
        integration: &str,
        settings: &IntegrationSettings,
        credential: &FlowCredential,
    ) -> Result<String, NangoError> {
        let path = format!(
            "/oauth/connect/{}?{}",
            segment(integration),
            credential.query(integration, settings)
        );
        // Like a browser, without the API key.
        let response = self
            .with_retries(Bucket::Public, || {
                self.request(Method::GET, &path, Authentication::None, None)
            })
            .await?;
        if response.status.is_redirection() {
            let location = response.headers.get(header::LOCATION);
            return match location.and_then(|location| location.to_str().ok()) {
                Some(location) => Ok(location.to_owned()),
                None => Err(self.not_nango("a redirect has no valid `Location`")),
            };
        }
        Err(NangoError::flow_not_started(&response, credential, integration))
    }

    async fn get(&self, path: &str) -> Result<Response, NangoError> {
        self.with_retries(Bucket::Api, || {
            self.request(Method::GET, path, Authentication::ApiKey, None)
        })
        .await
    }

    async fn post(&self, path: &str, body: &Map<String, Value>) -> Result<Response, NangoError> {
        self.with_retries(Bucket::Api, || {
            self.request(Method::POST, path, Authentication::ApiKey, Some(body))
        })
        .await
    }

    /// Waits until the budget permits a request; waits and retries after 429, and retries once after a
    /// server error or a temporary fault: one of some hundred requests must not fail the preflight.
    async fn with_retries<F>(
        &self,
        bucket: Bucket,
        send: impl Fn() -> F,
    ) -> Result<Response, NangoError>
    where
        F: Future<Output = Result<Response, Fault>>,
    {
        let (mut limited, mut faults) = (0, 0);
        loop {
            self.budget.wait(bucket).await;
            let result = send().await;
            if let Ok(response) = &result {
                self.budget.record(bucket, response);
            }
            match result {
                Ok(response) if response.status == StatusCode::TOO_MANY_REQUESTS => {
                    limited += 1;
                    if limited >= MAX_LIMITED || !Budget::is_soon(&response) {
                        return Ok(response);
                    }
                }
                Ok(response) if response.status.is_server_error() && faults == 0 => faults += 1,
                Err(fault) if is_temporary(&fault) && faults == 0 => faults += 1,
                Ok(response) => return Ok(response),
                Err(fault) => return Err(NangoError::unreachable(&self.base, &fault)),
            }
        }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        authentication: Authentication,
        body: Option<&Map<String, Value>>,
    ) -> Result<Response, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
        if let Authentication::ApiKey = authentication {
            let value = format!("Bearer {}", self.key.expose_secret());
            let mut value = HeaderValue::from_str(&value).map_err(|_| {
                let text = "the API key contains characters that are not allowed in a header";
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
        Box::pin(self.outbound.send(&self.server, Offer::Both, &request)).await
    }

    fn read<T: DeserializeOwned>(&self, response: &Response, scope: &str) -> Result<T, NangoError> {
        if !response.status.is_success() {
            return Err(NangoError::of(response, &self.base, scope));
        }
        // An error of serde_json may quote the response.
        serde_json::from_slice(&response.body).map_err(|_| self.not_nango("unexpected response"))
    }

    fn not_nango(&self, what: &str) -> NangoError {
        NangoError::not_nango(&self.base, what)
    }
}

/// Whether a retry may succeed.
fn is_temporary(fault: &Fault) -> bool {
    matches!(
        fault.reason,
        Reason::Timeout | Reason::Closed | Reason::ResolverFailed | Reason::ResolverUnreachable
    )
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

/// The defaults of an integration in a connect session.
fn session_defaults(settings: &IntegrationSettings) -> Map<String, Value> {
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

/// Whether the text is a UUID (RFC 9562 §4).
fn is_uuid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').collect();
    let lengths: Vec<_> = groups.iter().map(|group| group.len()).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|it| it == b'-' || it.is_ascii_hexdigit())
}

/// A key in TOML syntax.
pub(super) fn toml_key(key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if key.bytes().all(is_bare) && !key.is_empty() { key.into() } else { format!("{key:?}") }
}

/// A name as a segment of a path (RFC 3986 §3.3).
fn segment(name: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a `String` does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    // `.` and `..` would change the path.
    if text.bytes().all(|byte| byte == b'.') { text.replace('.', "%2E") } else { text }
}
