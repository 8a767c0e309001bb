//! The endpoints of the server itself: health, metrics, the self-check, ACME challenges.

use super::response::{self, Response};
use super::self_check::NoOutcome;
use super::shared::Shared;
use super::snapshot::Snapshot;
use crate::check::Coverage;
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

/// The response that a CA requests (RFC 8555 §8.3).
pub(super) fn challenge(shared: &Shared, head: &Parts) -> Response {
    let token = head.uri.path().strip_prefix(CHALLENGE_PATH).unwrap_or_default();
    match shared.acme_status.challenges.body(token) {
        Some(body) => response::get_or_head(head, || response::typed(StatusCode::OK, OCTETS, body)),
        None => response::text(StatusCode::NOT_FOUND, "not found"),
    }
}

/// The health endpoints on a public listener, when there is no admin listener.
pub(super) fn health(shared: &Shared, snapshot: &Snapshot, head: &Parts) -> Option<Response> {
    if snapshot.has_admin() { None } else { health_at(shared, head) }
}

fn health_at(shared: &Shared, head: &Parts) -> Option<Response> {
    match head.uri.path() {
        "/healthz" => Some(response::get_or_head(head, || response::text(StatusCode::OK, "ok"))),
        "/readyz" => Some(response::get_or_head(head, || match shared.not_ready() {
            None => response::text(StatusCode::OK, "ready"),
            Some(why) => response::text(StatusCode::SERVICE_UNAVAILABLE, why),
        })),
        _ => None,
    }
}

/// The endpoints of the admin listener, except the self-check.
pub(super) fn admin(shared: &Shared, head: &Parts) -> Response {
    if let Some(response) = health_at(shared, head) {
        return response;
    }
    if !is_private_name(&shared.snapshot.load(), head) {
        return misdirected();
    }
    match head.uri.path() {
        "/metrics" => response::get_or_head(head, || {
            let text = shared.metrics.text(&Sampled {
                connections: shared.slots.by_state(),
                ready: shared.not_ready().is_none(),
                lines_dropped: shared.log.dropped_lines(),
            });
            match text {
                Ok(text) => response::typed(StatusCode::OK, OPEN_METRICS, Bytes::from(text)),
                Err(_) => response::text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode"),
            }
        }),
        SELF_CHECK => response::allow(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"),
        _ => response::text(StatusCode::NOT_FOUND, "not found"),
    }
}

/// A request for the self-check whose host and token were checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct SelfCheckRequest {
    /// A browser gets a page, other clients JSON.
    html: bool,
}

impl SelfCheckRequest {
    /// Refuses a request for a public host, or without the token that the settings require.
    pub(super) fn of(snapshot: &Snapshot, head: &Parts) -> Result<Self, Box<Response>> {
        if snapshot.has_admin() && !is_private_name(snapshot, head) {
            return Err(misdirected().into());
        }
        if let Some(token) = &snapshot.settings.self_check.token
            && !has_token(head, token.expose_secret().as_bytes())
        {
            let mut response = response::text(StatusCode::UNAUTHORIZED, "bearer token required");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Err(response.into());
        }
        Ok(Self { html: wants_html(head) })
    }

    /// Waits for the outcome and renders it.
    pub(super) async fn respond(self, shared: &Shared) -> Response {
        let outcome = match shared.self_check.outcome(&shared.snapshot, Coverage::Full).await {
            Ok(outcome) => outcome,
            Err(NoOutcome::Draining) => {
                return response::text(StatusCode::SERVICE_UNAVAILABLE, "draining");
            }
            Err(NoOutcome::Panicked) => {
                return response::text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the self-check did not finish",
                );
            }
        };
        let status = match outcome.verdict() {
            Verdict::Pass | Verdict::Unconfirmed => StatusCode::OK,
            Verdict::Fail | Verdict::Error => StatusCode::SERVICE_UNAVAILABLE,
        };
        if self.html {
            let page = report::html(&outcome.reports);
            let mut response = response::typed(status, HTML, Bytes::from(page));
            let headers = response.headers_mut();
            let policy = HeaderValue::from_static(report::html_policy());
            headers.insert(CONTENT_SECURITY_POLICY, policy);
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            return response;
        }
        match report::json(&outcome.reports) {
            Ok(json) => response::typed(status, JSON, Bytes::from(json + "\n")),
            Err(_) => response::text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode"),
        }
    }
}

/// Whether the request is an ACME challenge, and ACME is on.
pub(super) fn is_challenge(snapshot: &Snapshot, head: &Parts) -> bool {
    head.uri.path().starts_with(CHALLENGE_PATH)
        && snapshot.settings.tls.as_ref().is_some_and(|tls| tls.acme.is_some())
}

/// Whether the self-check is requested.
pub(super) fn is_self_check(head: &Parts) -> bool {
    head.uri.path() == SELF_CHECK && matches!(head.method, Method::GET | Method::HEAD)
}

/// Domains in which names cannot be registered: RFC 6761, RFC 6762, RFC 8375, ICANN's reservation of
/// `.internal`, and the services of Kubernetes.
const PRIVATE_DOMAINS: &[&str] = &["localhost", "local", "home.arpa", "internal", "svc"];

/// Whether the `Host` of a request to the admin listener is one that a foreign web page cannot have: an
/// address, a name without a dot, a name in a private domain, or a host in the settings.
///
/// A page whose name resolves to this machine after it was loaded (DNS rebinding) has the same origin
/// as its later requests: it may read the responses, sends no `Origin`, and over plain HTTP no
/// `Sec-Fetch-Site`. Only `Host` still shows the name, which its owner registered. Probes and scrapers
/// use addresses, the names of containers and services, or no `Host` at all (HTTP/1.0).
/// `service.namespace` of Kubernetes is not accepted, since it is not distinguishable from a registered
/// domain (`metrics.app`). `listen.admin_hosts` adds such names.
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
        || settings.routes.has_host(&host)
        || settings.public_url.as_ref().is_some_and(|origin| origin.host.as_str() == &*host)
        || settings.listen.admin_hosts.iter().any(|admin_host| admin_host.as_str() == &*host)
}

fn misdirected() -> Response {
    let hint = "unknown host: use an IP address, or add the host to `listen.admin_hosts`";
    response::text(StatusCode::MISDIRECTED_REQUEST, hint)
}

/// Whether the request has the bearer token (RFC 6750 §2.1). No request has an empty token.
fn has_token(head: &Parts, token: &[u8]) -> bool {
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

/// Whether the client is a browser: it accepts HTML. Programs accept JSON or anything.
fn wants_html(head: &Parts) -> bool {
    head.headers.get_all(ACCEPT).iter().any(|value| {
        value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("text/html"))
    })
}
