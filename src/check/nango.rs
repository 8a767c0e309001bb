//! `nango.*`: what is at the target, and whether a callback gets there whole.

use super::landing::Landing;
use super::page::{Page, is_nango};
use super::place::shown;
use super::plan::Plan;
use super::{Findings, Observations, check};
use crate::outbound::Answer;

pub(super) fn judge_callback(plan: &Plan, seen: &Observations, findings: &mut Findings) {
    let check = check("nango.callback");
    if let Some(why) = left_alone(plan) {
        findings.add(check.skip(why));
        return;
    }
    // Nothing was asked because nothing of the callback answers: the gate says so.
    let Some(asked) = &seen.nango else { return };
    let target = shown(plan.target.as_str());
    findings.add(match asked {
        Err(fault) => check
            .unknown("Nango could not be asked")
            .detail(format!("{target}: {fault}"))
            .hint("run the check from a machine that reaches Nango, or with --no-follow"),
        Ok(nango) if !nango.trusted => check
            .fail("the target's certificate is not valid")
            .detail(&target)
            .hint("mend the certificate there; for a private authority, name its root with --ca"),
        Ok(nango) if is_nango(&nango.answer.body) => {
            let text = String::from_utf8_lossy(&nango.answer.body);
            if text.contains("invalid_oauth_state") {
                check
            } else {
                check.pass("Nango answers, in other words than known")
            }
        }
        Ok(nango) if is_inconclusive(&nango.answer) => check
            .unknown(format!("the target answers {}", nango.answer.status.as_u16()))
            .detail(&target)
            .hint("try again later, or from another network"),
        Ok(nango) => check
            .fail("what answers at the target is not Nango's callback")
            .detail(format!("{target} answers {}", nango.answer.status.as_u16()))
            .hint("see whether host and path of the target are those of your Nango"),
    });
}

pub(super) fn judge_echo(plan: &Plan, seen: &Observations, findings: &mut Findings) {
    let check = check("nango.echo");
    if let Some(why) = left_alone(plan) {
        findings.add(check.skip(why));
        return;
    }
    if let Some(Landing::Altered(difference)) = seen.first().and_then(|first| first.landing()) {
        findings.add(check.blocked(difference.id()));
        return;
    }
    let Some(echo) = &seen.echo else { return };
    let check = check.took(echo.seen.took);
    let page = match (&echo.page, echo.seen.landing()) {
        (_, Some(Landing::Altered(difference))) => {
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
            .unknown("Nango could not be reached")
            .detail(fault.to_string())
            .hint("run the check from a machine that reaches Nango, or with --no-follow"),
        Ok(answer) if !is_nango(&answer.body) && is_inconclusive(answer) => check
            .unknown(format!("Nango answers {}", answer.status.as_u16()))
            .hint("try again later, or from another network"),
        Ok(answer) if !is_nango(&answer.body) => check
            .fail("the callback does not end on Nango's page")
            .detail(format!("it ends on an answer {}", answer.status.as_u16()))
            .hint("see whether host and path of the target are those of your Nango"),
        Ok(answer) if String::from_utf8_lossy(&answer.body).contains(&echo.nonce) => {
            check.pass("a callback reaches Nango whole")
        }
        Ok(_) => check
            .fail("what was sent to the callback does not come back on Nango's page")
            .hint("see what stands between the redirect and Nango, such as a proxy in front of a self-hosted Nango"),
    });
}

/// Why Nango is not asked, if it is not to be.
fn left_alone(plan: &Plan) -> Option<&'static str> {
    if !plan.follow {
        Some("not run: Nango is left alone")
    } else if !plan.is_for_oauth() {
        Some("not run: only an OAuth callback answers in a known way")
    } else {
        None
    }
}

/// Whether an answer says more about the way than about the place.
fn is_inconclusive(answer: &Answer) -> bool {
    matches!(answer.status.as_u16(), 403 | 429 | 500..) || Page::of(answer) == Some(Page::BotWall)
}
