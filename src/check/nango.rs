//! `nango.*`: whether the target is Nango, and whether a callback arrives there unchanged.

use super::landing::Landing;
use super::location::shown;
use super::page::{Page, is_nango};
use super::plan::Plan;
use super::{Findings, Observations, check};
use crate::outbound::Response;

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
