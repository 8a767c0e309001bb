//! Where users are sent to: from flows that are begun, from templates, or from both.

use super::authorization::{Flow, disagreement, offline, redirect_uri};
use super::candidate::{Candidate, NoUrl};
use super::nango::{App, Nango, Pass, Reach, Refused};
use super::{Mode, Plan, Start};
use crate::report::{Check, printable};
use std::borrow::Cow;

/// What was learnt about all of them.
#[derive(Default)]
pub(super) struct Ways {
    /// How many flows were started.
    pub(super) started: usize,
    /// Why no flow was started though it was wanted.
    pub(super) no_flows: Option<String>,
    /// A key that may not read the credentials of one may read none.
    no_credentials: bool,
    compared: usize,
    disagreeing: Vec<String>,
}

/// Finds the authorization URL of each that has one.
pub(super) async fn find(
    plan: &Plan,
    nango: &Nango,
    candidates: &mut [Candidate],
) -> Result<Ways, Refused> {
    let mut ways = Ways::default();
    let pass = match pass(plan, nango, candidates).await {
        Ok(pass) => pass,
        Err(refused) if plan.mode == Mode::Connect => return Err(refused),
        Err(refused) => {
            ways.no_flows = Some(refused.why);
            None
        }
    };
    let flows = candidates.iter_mut().filter(|candidate| candidate.flow == Flow::OAuth2);
    let flows: Vec<_> = flows.collect();
    let of = flows.len();
    for (number, candidate) in flows.into_iter().enumerate() {
        if let Some(progress) = plan.progress {
            progress(number, of, &printable(&format!("Nango: {}", candidate.key())));
        }
        let begun = match &pass {
            Some(pass) => Some(nango.begin(candidate.key(), &candidate.settings, pass).await),
            None => None,
        };
        candidate.seen = matches!(begun, Some(Ok(_)));
        ways.started += usize::from(candidate.seen);
        let app = ways.app(plan, nango, candidate).await?;
        let built = built(plan, candidate, app.as_ref(), begun.as_ref());
        candidate.url = ways.choose(plan, nango, candidate, begun, built).await;
        candidate.current = candidate.url.as_ref().ok().and_then(|url| {
            redirect_uri(url, &[&plan.check.callback, &plan.previous]).map(Cow::into_owned)
        });
    }
    Ok(ways)
}

/// What lets flows begin; `None` when none is to begin.
async fn pass(
    plan: &Plan,
    nango: &Nango,
    candidates: &[Candidate],
) -> Result<Option<Pass>, Refused> {
    let mut flows = candidates.iter().filter(|it| it.flow == Flow::OAuth2).peekable();
    if plan.mode == Mode::Offline || plan.dry_run || flows.peek().is_none() {
        return Ok(None);
    }
    match &plan.start {
        Start::Session => {
            let flows = flows.map(|it| (it.key(), &it.settings));
            nango.session(flows).await.map(|token| Some(Pass::Session(token)))
        }
        Start::PublicKey { key, connection, hmac_key } => Ok(Some(Pass::PublicKey {
            key: key.clone(),
            connection: connection.clone(),
            hmac_key: hmac_key.clone(),
        })),
    }
}

/// The URL from the template, with the callback that the flow has, else the one before.
fn built(
    plan: &Plan,
    candidate: &Candidate,
    app: Option<&App>,
    begun: Option<&Result<String, Refused>>,
) -> Option<Result<String, String>> {
    let callback = match begun {
        Some(Ok(url)) => redirect_uri(url, &[&plan.check.callback, &plan.previous]),
        _ => None,
    };
    let callback = callback.as_deref().unwrap_or(&plan.previous);
    Some(offline(candidate.template.as_ref()?, app?, &candidate.settings, callback))
}

impl Ways {
    /// The app, as far as the key may read it.
    async fn app(
        &mut self,
        plan: &Plan,
        nango: &Nango,
        candidate: &Candidate,
    ) -> Result<Option<App>, Refused> {
        let mut app = None;
        if plan.mode != Mode::Connect && !self.no_credentials {
            app = match nango.app(candidate.key()).await {
                Ok(app) => app,
                Err(refused) if plan.mode == Mode::Offline && refused.is_final() => {
                    return Err(refused);
                }
                Err(refused) => {
                    self.no_credentials = refused.reach == Reach::Permission;
                    None
                }
            };
        }
        if plan.dry_run && app.is_none() {
            app = Some(App { client_id: "unknown".into(), scopes: None });
        }
        Ok(app)
    }

    /// The flow's URL is what users get; the template's is second to it, and compared.
    async fn choose(
        &mut self,
        plan: &Plan,
        nango: &Nango,
        candidate: &mut Candidate,
        begun: Option<Result<String, Refused>>,
        built: Option<Result<String, String>>,
    ) -> Result<String, NoUrl> {
        match (begun, built) {
            (Some(Ok(url)), built) => {
                if let Some(Ok(built)) = built {
                    self.compare(candidate, &url, &built);
                }
                Ok(url)
            }
            (begun, Some(Ok(url))) => {
                if let Some(Err(refused)) = begun {
                    candidate.notes.push(format!("asked by its template: {}", refused.why));
                }
                Ok(url)
            }
            (Some(Err(refused)), _) => Err(NoUrl::new(refused.why, refused.hint)),
            (None, Some(Err(missing))) => {
                let key = candidate.key();
                let table = format!("[preflight.integration.{}]", toml_key(key));
                let mut hint = format!("set `params` or `like_connection` below `{table}`");
                // A connection that exists has what is missing.
                if let Ok(count @ 1..) = nango.connections(key).await {
                    hint = format!("{hint}; it has {count} connections to copy from");
                }
                Err(NoUrl::new(missing, hint))
            }
            (None, None) => Err(self.no_way(plan)),
        }
    }

    fn compare(&mut self, candidate: &mut Candidate, begun: &str, built: &str) {
        self.compared += 1;
        if let Some(difference) = disagreement(begun, built) {
            self.disagreeing.push(candidate.key().to_owned());
            let note = format!("the flow's URL and the template's disagree: {difference}");
            candidate.notes.push(note);
        }
    }

    fn no_way(&self, plan: &Plan) -> NoUrl {
        let why = match &self.no_flows {
            Some(why) => format!("no flow could be started: {why}"),
            None => "the API key may not read its credentials".into(),
        };
        let hint = match plan.mode {
            Mode::Offline => {
                "give the key `environment:integrations:read_credentials`, or use --mode connect"
            }
            _ => {
                "give the key `environment:connect_sessions:write`, or \
                 `environment:integrations:read_credentials`"
            }
        };
        NoUrl::new(why, hint)
    }

    /// `nango.agreement`.
    pub(super) fn check(&self, plan: &Plan) -> Check {
        let check = Check::new("nango.agreement", "flows and templates lead to the same apps");
        if !self.disagreeing.is_empty() {
            return check
                .warn("flows and templates do not agree")
                .detail(self.disagreeing.join(", "))
                .hint("see whether client id and template were changed in Nango a moment ago");
        }
        match (self.compared, plan.mode) {
            (0, Mode::Auto) => check.skip("the key may not read credentials, or no flow began"),
            (0, _) => check.skip("asked in one way only"),
            (count, _) => check.pass(format!("{count} flows and templates agree")),
        }
    }
}

/// A key as TOML writes it.
fn toml_key(key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if key.bytes().all(is_bare) && !key.is_empty() { key.into() } else { format!("{key:?}") }
}
