//! What is asked of the edge itself: health, metrics, the self-check, the answers to challenges.

use super::answer::{self, Answer};
use super::self_check::NoOutcome;
use super::shared::Shared;
use super::snapshot::Snapshot;
use crate::observe::Sampled;
use crate::redirect;
use crate::report::{self, Verdict};
use crate::tls::acme::CHALLENGE_PATH;
use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_SECURITY_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use secrecy::ExposeSecret as _;
use std::net::Ipv4Addr;

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

pub(super) const SELF_CHECK: &str = "/self-check";
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The body that a directory looks for (RFC 8555 §8.3).
pub(super) fn challenge(shared: &Shared, head: &Parts) -> Answer {
    let token = head.uri.path().strip_prefix(CHALLENGE_PATH).unwrap_or_default();
    match shared.board.challenges.body(token) {
        Some(body) => answer::reading(head, || answer::typed(StatusCode::OK, OCTETS, body)),
        None => answer::text(StatusCode::NOT_FOUND, "not found"),
    }
}

/// The health endpoints, unless they moved to the admin listener.
pub(super) fn health(shared: &Shared, snapshot: &Snapshot, head: &Parts) -> Option<Answer> {
    if snapshot.has_admin() { None } else { health_at(shared, head) }
}

fn health_at(shared: &Shared, head: &Parts) -> Option<Answer> {
    match head.uri.path() {
        "/healthz" => Some(answer::reading(head, || answer::text(StatusCode::OK, "ok"))),
        "/readyz" => Some(answer::reading(head, || match shared.not_ready() {
            None => answer::text(StatusCode::OK, "ready"),
            Some(why) => answer::text(StatusCode::SERVICE_UNAVAILABLE, why),
        })),
        _ => None,
    }
}

/// What the admin listener answers, the self-check aside.
pub(super) fn admin(shared: &Shared, head: &Parts) -> Answer {
    if let Some(answer) = health_at(shared, head) {
        return answer;
    }
    if !is_private_name(&shared.snapshot.load(), head) {
        return misdirected();
    }
    match head.uri.path() {
        "/metrics" => answer::reading(head, || {
            let text = shared.metrics.text(&Sampled {
                connections: shared.slots.by_state(),
                ready: shared.not_ready().is_none(),
                lines_dropped: shared.log.dropped_lines(),
            });
            match text {
                Ok(text) => answer::typed(StatusCode::OK, OPEN_METRICS, Bytes::from(text)),
                Err(_) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode"),
            }
        }),
        SELF_CHECK => answer::allow(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"),
        _ => answer::text(StatusCode::NOT_FOUND, "not found"),
    }
}

/// What a request for the self-check asks for, once its name and its token were checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct SelfCheckRequest {
    /// A browser gets a page, everything else JSON.
    html: bool,
}

impl SelfCheckRequest {
    /// Refuses a request under a public name, or without the token that the settings require.
    pub(super) fn of(snapshot: &Snapshot, head: &Parts) -> Result<Self, Box<Answer>> {
        if snapshot.has_admin() && !is_private_name(snapshot, head) {
            return Err(misdirected().into());
        }
        if let Some(token) = &snapshot.settings.self_check.token
            && !presents(head, token.expose_secret().as_bytes())
        {
            let mut answer = answer::text(StatusCode::UNAUTHORIZED, "a token is required");
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Err(answer.into());
        }
        Ok(Self { html: wants_html(head) })
    }

    /// Waits for the outcome and renders it.
    pub(super) async fn answer(self, shared: &Shared) -> Answer {
        let outcome = match shared.self_check.outcome(&shared.snapshot).await {
            Ok(outcome) => outcome,
            Err(NoOutcome::Draining) => {
                return answer::text(StatusCode::SERVICE_UNAVAILABLE, "draining");
            }
            Err(NoOutcome::Panicked) => {
                return answer::text(StatusCode::SERVICE_UNAVAILABLE, "the check did not finish");
            }
        };
        let status = match outcome.verdict() {
            Verdict::Pass | Verdict::Unconfirmed => StatusCode::OK,
            Verdict::Fail | Verdict::Error => StatusCode::SERVICE_UNAVAILABLE,
        };
        if self.html {
            let page = report::html(&outcome.reports);
            let mut answer = answer::typed(status, HTML, Bytes::from(page));
            let headers = answer.headers_mut();
            let policy = HeaderValue::from_static(report::html_policy());
            headers.insert(CONTENT_SECURITY_POLICY, policy);
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            return answer;
        }
        match report::json(&outcome.reports) {
            Ok(json) => answer::typed(status, JSON, Bytes::from(json + "\n")),
            Err(_) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode"),
        }
    }
}

/// Whether the answer to an ACME challenge is asked for, of an edge that has some.
pub(super) fn is_challenge(snapshot: &Snapshot, head: &Parts) -> bool {
    head.uri.path().starts_with(CHALLENGE_PATH)
        && snapshot.settings.tls.as_ref().is_some_and(|tls| tls.acme.is_some())
}

/// Whether the self-check is asked for.
pub(super) fn is_self_check(head: &Parts) -> bool {
    head.uri.path() == SELF_CHECK && matches!(head.method, Method::GET | Method::HEAD)
}

/// Domains in which no one can register a name: RFC 6761, RFC 6762, RFC 8375, ICANN's reservation of
/// `.internal`, and the services of Kubernetes.
const PRIVATE_DOMAINS: &[&str] = &["localhost", "local", "home.arpa", "internal", "svc"];

/// Whether the `Host` of a request to the admin listener is one that a web page of others cannot
/// have: an address, a name without a dot, a name in a private domain, or a host of the settings.
///
/// A page whose name resolves to this machine a moment after it was loaded (DNS rebinding) is of
/// the same origin as what it then requests: it may read the responses, sends no `Origin`, and over
/// plain HTTP no `Sec-Fetch-Site`. `Host` alone still shows the name, which is one that its owner
/// registered. Probes and scrapers use addresses, the names of containers and services, or no `Host`
/// at all (HTTP/1.0). `service.namespace` of Kubernetes is not accepted: it is not distinguishable
/// from a domain that is registered (`metrics.app`). `listen.admin_hosts` adds such names.
fn is_private_name(snapshot: &Snapshot, head: &Parts) -> bool {
    let host = match redirect::requested_host(head.version, &head.uri, &head.headers) {
        Ok(Some(host)) => host,
        Ok(None) => return true,
        Err(_) => return false,
    };
    let settings = &snapshot.settings;
    let top = PRIVATE_DOMAINS.iter().any(|domain| {
        host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    top || !host.contains('.')
        || host.starts_with('[')
        || host.parse::<Ipv4Addr>().is_ok()
        || settings.routes.names_host(&host)
        || settings.public_url.as_ref().is_some_and(|origin| origin.host.as_str() == &*host)
        || settings.listen.admin_hosts.iter().any(|admin_host| admin_host.as_str() == &*host)
}

fn misdirected() -> Answer {
    let hint = "unknown host: use an IP address, or add the host to `listen.admin_hosts`";
    answer::text(StatusCode::MISDIRECTED_REQUEST, hint)
}

/// Whether the request carries the bearer token (RFC 6750 §2.1). An empty token opens nothing.
fn presents(head: &Parts, token: &[u8]) -> bool {
    let presented = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let presented = presented.and_then(|value| {
        let (scheme, rest) = value.split_at_checked(b"Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(rest)
    });
    !token.is_empty()
        && presented.is_some_and(|presented| {
            aws_lc_rs::constant_time::verify_slices_are_equal(presented, token).is_ok()
        })
}

/// Whether a browser asks: it names HTML, programs name JSON or anything.
fn wants_html(head: &Parts) -> bool {
    head.headers.get_all(ACCEPT).iter().any(|value| {
        value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("text/html"))
    })
}
