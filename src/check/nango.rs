//! `nango.*`: whether the target is Nango, and whether a callback arrives there unchanged.

use super::landing::{Landing, is_redirect};
use super::location::shown;
use super::observations::EndToEnd;
use super::page::{Page, is_nango};
use super::plan::Plan;
use super::{Findings, Observations, check};
use crate::outbound::Response;
use http::StatusCode;
use http::header::LOCATION;

pub(super) fn evaluate_callback(plan: &Plan, observations: &Observations, findings: &mut Findings) {
    let check = check("nango.callback");
    if let Some(why) = not_contacted(plan) {
        findings.add(check.skip(why));
        return;
    }
    // No request was sent because the callback does not respond: another check reports that.
    let Some(result) = &observations.nango else { return };
    let target = shown(plan.target.as_str());
    findings.add(match result {
        Err(fault) => check
            .unknown("Nango cannot be reached")
            .detail(format!("{target}: {fault}"))
            .hint("run the check on a machine that can reach Nango, or with --no-follow"),
        Ok(nango) if !nango.trusted => check
            .fail("the certificate of the target is not valid")
            .detail(&target)
            .hint("renew the certificate there; for a private CA, pass its root with --ca"),
        Ok(nango) if is_nango(&nango.response.body) => {
            let text = String::from_utf8_lossy(&nango.response.body);
            if text.contains("invalid_oauth_state") {
                check
            } else {
                check.pass("target is Nango's callback, with an unknown error page")
            }
        }
        Ok(nango) if is_inconclusive(&nango.response) => check
            .unknown(format!("the target responds with {}", nango.response.status.as_u16()))
            .detail(&target)
            .hint("try again later, or from another network"),
        Ok(nango) => check
            .fail("the target is not Nango's callback")
            .detail(format!("{target} responds with {}", nango.response.status.as_u16()))
            .hint("compare the host and the path of the target with those of your Nango"),
    });
}

pub(super) fn evaluate_echo(plan: &Plan, observations: &Observations, findings: &mut Findings) {
    let check = check("nango.echo");
    if let Some(why) = not_contacted(plan) {
        findings.add(check.skip(why));
        return;
    }
    if let Some(Landing::Altered(difference)) =
        observations.first().and_then(|first| first.landing())
        && !difference.keeps_values()
    {
        findings.add(check.blocked(difference.id()));
        return;
    }
    let Some(echo) = &observations.echo else { return };
    let check = check.duration(echo.outcome.duration);
    let page = match (&echo.page, echo.outcome.landing()) {
        (_, Some(Landing::Altered(difference))) if !difference.keeps_values() => {
            findings.add(check.blocked(difference.id()));
            return;
        }
        (Some(page), _) => page,
        (None, _) => {
            findings.add(check.blocked("redirect.blocked"));
            return;
        }
    };
    findings.add(match page {
        Err(fault) => check
            .unknown("Nango cannot be reached")
            .detail(fault.to_string())
            .hint("run the check on a machine that can reach Nango, or with --no-follow"),
        Ok(response) if !is_nango(&response.body) && is_inconclusive(response) => check
            .unknown(format!("Nango responds with {}", response.status.as_u16()))
            .hint("try again later, or from another network"),
        Ok(response) if !is_nango(&response.body) => check
            .fail("the callback does not lead to Nango's page")
            .detail(format!("the last response is {}", response.status.as_u16()))
            .hint("compare the host and the path of the target with those of your Nango"),
        Ok(response) if String::from_utf8_lossy(&response.body).contains(&echo.nonce) => {
            check
        }
        Ok(_) => check
            .fail("Nango's page does not contain the parameters sent to the callback")
            .hint("find out what is between the redirect and Nango, such as a proxy in front of a self-hosted Nango"),
    });
}

/// Evaluated after the other two, which prove more when they run.
pub(super) fn evaluate_end_to_end(
    plan: &Plan,
    observations: &Observations,
    findings: &mut Findings,
) {
    let check = check("nango.end_to_end");
    if !plan.end_to_end {
        findings.add(check.skip("not run: following to Nango is off"));
        return;
    }
    if !plan.is_for_nango() {
        findings.add(check.skip("not run: the target is no callback of Nango"));
        return;
    }
    let Some(sent) = observations.end_to_end.first() else { return };
    let check = check.duration(sent.duration);
    let proof = Proof::of(plan, sent);
    let is_proven = |sent: &EndToEnd| Proof::of(plan, sent) == Proof::Complete;
    let both = observations.end_to_end.len() > 1 && observations.end_to_end.iter().all(is_proven);
    // A page of Nango that another check evaluates already.
    if !matches!(proof, Proof::Complete)
        && let Some(other) = findings.failed(&["nango.callback", "nango.echo"])
    {
        findings.add(check.blocked(other));
        return;
    }
    findings.add(match proof {
        Proof::Complete if both => check.pass("callback and Setup URL of GitHub Apps lead to Nango"),
        Proof::Complete => check,
        Proof::Hidden => check.blocked("redirect.referrer"),
        Proof::Altered(id) => check.blocked(id),
        Proof::NoRedirect(what) => match (findings.failed(&["redirect."]), what) {
            (Some(id), _) => check.blocked(id),
            (None, Ok(status)) => check
                .warn("a callback without a `state` is not redirected")
                .detail(format!("sent `installation_id` and `setup_action`, as GitHub does after an installation; the response is {status}"))
                .hint("redirect every query; ignore this if you use no GitHub Apps"),
            (None, Err(fault)) => check
                .unknown("the callback does not respond")
                .detail(fault)
                .hint("run the check again; see the log of the server"),
        },
        Proof::Unreachable(fault) => check
            .unknown("Nango cannot be reached")
            .detail(fault)
            .hint("run the check on a machine that can reach Nango, or with --no-follow"),
        Proof::Untrusted => check
            .fail("the certificate of the target is not valid")
            .detail(shown(plan.target.as_str()))
            .hint("renew the certificate there; for a private CA, pass its root with --ca"),
        Proof::Lost => check
            .warn("the `Referer` does not arrive at Nango completely")
            .detail("after a GitHub App installation without a state, Nango redirects to the `Referer`; something between the redirect and Nango removes it or a part of it")
            .hint("pass the `Referer` on in the proxy in front of Nango"),
        Proof::Inconclusive(status) => check
            .unknown(format!("Nango responds with {status}"))
            .hint("try again later, or from another network"),
        Proof::NotNango(status) => check
            .fail("the callback does not lead to Nango")
            .detail(format!("{} responds with {status}", shown(plan.target.as_str())))
            .hint("compare the host and the path of the target with those of your Nango"),
        // The page that `nango.echo` found proves more.
        Proof::NoEcho(_) if findings.passed("nango.echo") => check.skip(
            "not run: this version of Nango does not redirect to the Referer, and nango.echo passed",
        ),
        Proof::NoEcho(status) => check
            .unknown("this Nango does not redirect to the `Referer`")
            .detail(format!("{} responds with {status}", shown(plan.target.as_str())))
            .hint("compare the target with your Nango; for a version of Nango that does not do this, run `callback-edge check`, which follows a callback with a state"),
    });
}

/// What the response to a callback without a state proves.
#[derive(Debug, PartialEq, Eq)]
enum Proof {
    /// Nango redirects to the `Referer`.
    Complete,
    /// The `Referer` is lost, or a part of it.
    Lost,
    /// The callback hides the `Referer`.
    Hidden,
    /// The callback does not lead to the target; its status, or why there is none.
    NoRedirect(Result<u16, String>),
    /// The query does not arrive; the id of the check that reports it.
    Altered(&'static str),
    Unreachable(String),
    /// The certificate is not valid.
    Untrusted,
    /// An overload, a rate limit or a bot wall.
    Inconclusive(u16),
    /// Not a response of Nango's OAuth callback.
    NotNango(u16),
    /// Nothing is proven.
    NoEcho(u16),
}

impl Proof {
    fn of(plan: &Plan, sent: &EndToEnd) -> Self {
        let nango = match &sent.nango {
            Some(Ok(nango)) => nango,
            Some(Err(fault)) => return Self::Unreachable(fault.to_string()),
            None if sent.referer.is_none() => return Self::Hidden,
            None => {
                let got = sent.status.as_ref();
                return Self::NoRedirect(got.map(StatusCode::as_u16).map_err(ToString::to_string));
            }
        };
        let response = &nango.response;
        let status = response.status.as_u16();
        if !nango.trusted {
            return Self::Untrusted;
        }
        if is_redirect(response.status)
            && let Some(location) = response.headers.get(LOCATION)
        {
            let location = String::from_utf8_lossy(location.as_bytes());
            if Some(&*location) == sent.referer.as_deref() {
                return Self::Complete;
            }
            // Without a `Referer`, Nango redirects to GitHub.
            let is_default = location.trim_end_matches('/') == "https://github.com";
            return if is_default || location.contains(&sent.nonce) {
                Self::Lost
            } else {
                Self::NoEcho(status)
            };
        }
        if let Some(Landing::Altered(difference)) = &sent.landing {
            return Self::Altered(difference.id());
        }
        if is_nango(&response.body) {
            Self::NoEcho(status)
        } else if is_inconclusive(response) {
            Self::Inconclusive(status)
        } else if plan.is_for_oauth() {
            // Every version of Nango has this path, and a page of its own there.
            Self::NotNango(status)
        } else {
            Self::NoEcho(status)
        }
    }
}

/// Why Nango is not contacted, if so.
fn not_contacted(plan: &Plan) -> Option<&'static str> {
    if !plan.follow {
        Some("not run: following to Nango is off")
    } else if !plan.is_for_oauth() {
        Some("not run: only Nango's OAuth callback has a known response")
    } else {
        None
    }
}

/// Whether a response allows no conclusion about the target.
fn is_inconclusive(response: &Response) -> bool {
    matches!(response.status.as_u16(), 403 | 429 | 500..)
        || Page::of(response) == Some(Page::BotWall)
}
