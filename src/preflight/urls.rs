//! Finds the authorization URLs: from started flows, from templates, or from both.

use super::authorization::{CLIENT_ID_OVERRIDE, difference, offline, redirect_uri};
use super::candidate::{Candidate, NoUrl};
use super::kind::Kind;
use super::nango::{App, ErrorScope, FlowCredential, NO_CREDENTIALS, Nango, NangoError, toml_key};
use super::{Mode, Plan, Start};
use crate::report::{Check, printable};
use std::borrow::Cow;

/// The findings about all integrations.
#[derive(Default)]
pub(super) struct Discovery {
    /// The number of started flows.
    pub(super) started: usize,
    /// The number of starts that failed.
    pub(super) failed: usize,
    /// The number of clients that started flows registered at providers.
    pub(super) registered: usize,
    /// Why no flow could be started.
    pub(super) no_flows: Option<String>,
    /// Whether the credentials of an app could be read.
    pub(super) read_credentials: bool,
    /// Set when the key may not read credentials.
    credentials_denied: bool,
    compared: usize,
    different: Vec<String>,
}

/// Finds the authorization URLs of all integrations that have one.
pub(super) async fn find(
    plan: &Plan,
    nango: &Nango,
    candidates: &mut [Candidate],
) -> Result<Discovery, NangoError> {
    let mut discovery = Discovery::default();
    let credential = match flow_credential(plan, nango, candidates).await {
        Ok(credential) => credential,
        Err(error) if plan.mode == Mode::Connect => return Err(error),
        Err(error) => {
            discovery.no_flows = Some(error.why);
            None
        }
    };
    let total = candidates.len();
    for (number, candidate) in candidates.iter_mut().enumerate() {
        if !candidate.kind.is_started() && !candidate.kind.uses_an_app() {
            continue;
        }
        if let Some(progress) = plan.progress {
            progress(number, total, &printable(&format!("Nango: {}", candidate.key())));
        }
        let app = discovery.app(plan, nango, candidate).await?;
        candidate.shared_app = app.as_ref().is_some_and(|app| app.client_id.is_empty());
        if !candidate.kind.is_started() || candidate.is_invalid() {
            continue;
        }
        let flow = match credential.as_ref().filter(|_| may_start(plan, candidate)) {
            Some(credential) => {
                Some(nango.start_flow(candidate.key(), &candidate.settings, credential).await)
            }
            None => None,
        };
        candidate.from_flow = matches!(flow, Some(Ok(_)));
        discovery.started += usize::from(flow.is_some());
        discovery.failed += usize::from(matches!(flow, Some(Err(_))));
        discovery.registered += usize::from(candidate.from_flow && registers(candidate));
        // The credentials of such an integration are missing, not hidden.
        let has_none = |error: &NangoError| error.why.ends_with(NO_CREDENTIALS);
        candidate.shared_app &= !matches!(&flow, Some(Err(error)) if has_none(error));
        let built = from_template(plan, candidate, app.as_ref(), flow.as_ref());
        let url = discovery.choose(plan, nango, candidate, flow, built).await;
        candidate.set_url(url);
        candidate.current = candidate.url.as_ref().ok().and_then(|url| {
            redirect_uri(url, &[&plan.check.callback, &plan.previous]).map(Cow::into_owned)
        });
    }
    Ok(discovery)
}

/// Whether a start registers a client at the provider.
fn registers(candidate: &Candidate) -> bool {
    candidate.kind == Kind::FollowsSetting { registers: true }
}

/// Whether a flow of this integration may be started.
fn may_start(plan: &Plan, candidate: &Candidate) -> bool {
    candidate.kind.is_started()
        && !candidate.is_invalid()
        && (plan.register_clients || !registers(candidate))
}

/// The credential to start flows; `None` when no flow is needed.
async fn flow_credential(
    plan: &Plan,
    nango: &Nango,
    candidates: &[Candidate],
) -> Result<Option<FlowCredential>, NangoError> {
    let mut flows = candidates.iter().filter(|it| may_start(plan, it)).peekable();
    if plan.mode == Mode::Offline || plan.dry_run || flows.peek().is_none() {
        return Ok(None);
    }
    match &plan.start {
        Start::Session => {
            let flows = flows.map(|it| (it.key(), &it.settings));
            nango.session(flows).await.map(|token| Some(FlowCredential::Session(token)))
        }
        Start::PublicKey { key, connection, hmac_key } => Ok(Some(FlowCredential::PublicKey {
            key: key.clone(),
            connection: connection.clone(),
            hmac_key: hmac_key.clone(),
        })),
    }
}

/// The URL from the template, with the callback of the flow, otherwise the previous one.
fn from_template(
    plan: &Plan,
    candidate: &Candidate,
    app: Option<&App>,
    flow: Option<&Result<String, NangoError>>,
) -> Option<Result<String, String>> {
    let callback = match flow {
        Some(Ok(url)) => redirect_uri(url, &[&plan.check.callback, &plan.previous]),
        _ => None,
    };
    let callback = callback.as_deref().unwrap_or(&plan.previous);
    // Without a client id the provider rejects every request.
    let own = candidate.settings.params.contains_key(CLIENT_ID_OVERRIDE);
    let is_usable = |app: &&App| own || !app.client_id.is_empty();
    let app = app.filter(is_usable).filter(|_| candidate.kind.is_probed())?;
    Some(offline(candidate.template.as_ref()?, app, &candidate.settings, callback))
}

impl Discovery {
    /// The app, if the key may read it.
    async fn app(
        &mut self,
        plan: &Plan,
        nango: &Nango,
        candidate: &Candidate,
    ) -> Result<Option<App>, NangoError> {
        let mut app = None;
        if plan.mode != Mode::Connect && !self.credentials_denied {
            app = match nango.app(candidate.key()).await {
                Ok(app) => app,
                Err(error) if plan.mode == Mode::Offline && error.is_final() => {
                    return Err(error);
                }
                Err(error) => {
                    self.credentials_denied = error.scope == ErrorScope::Permission;
                    None
                }
            };
        }
        self.read_credentials |= app.is_some();
        if plan.dry_run && app.is_none() {
            app = Some(App { client_id: "unknown".into(), scopes: None, link: None });
        }
        Ok(app)
    }

    /// Prefers the URL of the flow, which users get, and compares it with that of the template.
    async fn choose(
        &mut self,
        plan: &Plan,
        nango: &Nango,
        candidate: &mut Candidate,
        flow: Option<Result<String, NangoError>>,
        built: Option<Result<String, String>>,
    ) -> Result<String, NoUrl> {
        match (flow, built) {
            (Some(Ok(url)), built) => {
                if let Some(Ok(built)) = built {
                    self.compare(candidate, &url, &built);
                }
                Ok(url)
            }
            (flow, Some(Ok(url))) => {
                if let Some(Err(error)) = flow {
                    candidate.notes.push(format!("URL taken from the template: {}", error.why));
                }
                Ok(url)
            }
            (Some(Err(error)), built) if error.is_explained || !matches!(built, Some(Err(_))) => {
                Err(NoUrl::new(error.why, error.hint))
            }
            (_, Some(Err(missing))) => {
                let key = candidate.key();
                let table = format!("[preflight.integration.{}]", toml_key(key));
                let mut hint = format!("set `params` or `like_connection` in `{table}`");
                // An existing connection has the missing value.
                match nango.connections(key).await {
                    Ok(1) => hint.push_str("; it has 1 connection to copy from"),
                    Ok(count @ 2..) => {
                        hint = format!("{hint}; it has {count} connections to copy from");
                    }
                    _ => {}
                }
                Err(NoUrl::new(missing, hint))
            }
            (_, None) if registers(candidate) && !plan.register_clients => Err(NoUrl::new(
                "no flow was started: a start registers a client at the provider",
                "pass --register-clients to start it",
            )),
            (_, _) => Err(self.no_url(plan)),
        }
    }

    fn compare(&mut self, candidate: &mut Candidate, flow: &str, built: &str) {
        // Clients of MCP servers are not those in the credentials.
        let template = candidate.template.as_ref().filter(|_| candidate.kind == Kind::OAuth2);
        let Some(template) = template else { return };
        self.compared += 1;
        if let Some(difference) = difference(template, flow, built) {
            self.different.push(candidate.key().to_owned());
            let note = format!("the URLs of flow and template differ: {difference}");
            candidate.notes.push(note);
        }
    }

    fn no_url(&self, plan: &Plan) -> NoUrl {
        let why = match &self.no_flows {
            Some(why) => format!("no flow could be started: {why}"),
            None => "the API key may not read its credentials".into(),
        };
        let hint = match plan.mode {
            Mode::Offline => {
                "add the scope `environment:integrations:read_credentials` to the key, or use --mode \
                 connect"
            }
            _ => {
                "add the scope `environment:connect_sessions:write` or \
                 `environment:integrations:read_credentials` to the key"
            }
        };
        NoUrl::new(why, hint)
    }

    /// `nango.agreement`.
    pub(super) fn check(&self, plan: &Plan) -> Check {
        let check = Check::new("nango.agreement", "the comparison of flows and templates");
        if !self.different.is_empty() {
            return check
                .warn("flows and templates use different apps")
                .detail(self.different.join(", "))
                .hint("check whether someone is changing the integration in Nango right now");
        }
        match (self.compared, plan.mode) {
            (0, Mode::Auto) => check.skip("the key may not read credentials, or no flow started"),
            (0, _) => check.skip("only `--mode auto` compares them"),
            (1, _) => check.pass("1 flow uses the same app as its template"),
            (count, _) => check.pass(format!("{count} flows use the same apps as their templates")),
        }
    }
}
