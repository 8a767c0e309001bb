//! The Environments API: reads the environments of an account, and saves their callback.

use super::{Authentication, Bucket, Budget, Data, MAX_LIMITED, Nango, NangoError, segment};
use crate::outbound::{Fault, Outbound, Response, Step};
use crate::redirect::Target;
use http::{Method, StatusCode};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A Nango server with an account API key.
#[derive(Clone, Debug)]
pub struct Account(Nango);

/// An environment, as the list contains it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NangoEnvironment {
    /// Its id.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// Whether Nango treats it as production.
    #[serde(default)]
    pub is_production: bool,
}

/// Why the environments could not be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoEnvironments {
    /// This server has no Environments API: it is older.
    NoApi,
    /// The request failed.
    Failed(NangoError),
}

/// The outcome of a request that saves a callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saved {
    /// Nango acknowledged it.
    Acknowledged,
    /// Nango refused it.
    Refused(NangoError),
    /// It was not sent: there was no connection.
    NotSent(NangoError),
    /// It was sent, and there is no valid response: it may or may not be saved.
    Lost(String),
}

const LIST: &str = "account:environments:list";
const READ: &str = "account:environments:read";
const UPDATE: &str = "account:environments:update";

impl Account {
    /// `base` is `nango.url`.
    pub fn new(outbound: Outbound, base: &Target, key: SecretString) -> Self {
        Self(Nango::new(outbound, base, key))
    }

    /// The base URL.
    pub fn base(&self) -> &str {
        self.0.base()
    }

    /// All environments. Scope `account:environments:list`.
    pub async fn environments(&self) -> Result<Vec<NangoEnvironment>, NoEnvironments> {
        let response = self.0.get("/environments").await.map_err(NoEnvironments::Failed)?;
        if is_absent(&response) {
            return Err(NoEnvironments::NoApi);
        }
        let read = self.0.read::<Data<Vec<NangoEnvironment>>>(&response, LIST);
        read.map(|it| it.data).map_err(NoEnvironments::Failed)
    }

    /// The callback in the settings of an environment; `None` when it has none of its own. Scope
    /// `account:environments:read`.
    pub async fn callback(&self, uuid: &str) -> Result<Option<String>, NangoError> {
        #[derive(Deserialize)]
        struct Environment {
            callback_url: Option<String>,
        }
        let response = self.0.get(&format!("/environments/{}", segment(uuid))).await?;
        let found: Data<Environment> = self.0.read(&response, READ)?;
        Ok(found.data.callback_url.filter(|it| !it.is_empty()))
    }

    /// Saves the callback of an environment, and nothing else. It is never sent again after it may have
    /// arrived. Scope `account:environments:update`.
    pub async fn save_callback(&self, uuid: &str, callback: &str) -> Saved {
        let path = format!("/environments/{}", segment(uuid));
        let mut body = Map::new();
        body.insert("callback_url".into(), json!(callback));
        let mut limited = 0;
        loop {
            self.0.budget.wait(Bucket::Api).await;
            let result =
                self.0.request(Method::PATCH, &path, Authentication::ApiKey, Some(&body)).await;
            let response = match result {
                Ok(response) => response,
                Err(fault) if was_sent(&fault) => return Saved::Lost(fault.to_string()),
                Err(fault) => {
                    return Saved::NotSent(NangoError::unreachable(self.base(), &fault));
                }
            };
            self.0.budget.record(Bucket::Api, &response);
            let status = response.status;
            if status.is_success() {
                return Saved::Acknowledged;
            }
            if status.is_server_error() {
                return Saved::Lost(format!("Nango responds {}", status.as_u16()));
            }
            limited += 1;
            let is_limited = status == StatusCode::TOO_MANY_REQUESTS;
            if !is_limited || limited >= MAX_LIMITED || !Budget::is_soon(&response) {
                return Saved::Refused(NangoError::of(&response, self.base(), UPDATE));
            }
        }
    }
}

impl Nango {
    /// Whether the server has no Environments API, for a key of an environment.
    pub async fn has_no_environments_api(&self) -> Result<bool, NangoError> {
        Ok(is_absent(&self.get("/environments").await?))
    }
}

/// Whether the route does not exist: servers without it respond 404, or with the page of the dashboard.
fn is_absent(response: &Response) -> bool {
    let is_json = || serde_json::from_slice::<Value>(&response.body).is_ok();
    matches!(response.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
        || (response.status.is_success() && !is_json())
}

/// Whether a request may have arrived.
fn was_sent(fault: &Fault) -> bool {
    match fault.step {
        Step::Resolve | Step::Proxy | Step::Connect | Step::Handshake => false,
        Step::Head => fault.reason != crate::outbound::Reason::Unsendable,
        Step::Body => true,
    }
}
