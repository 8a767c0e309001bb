//! `url.*`: the callback as it is written, without asking anybody.

use super::place::{Callback, Parts, short, shown};
use super::plan::Plan;
use super::{Findings, check};
use crate::outbound::Server;
use crate::report::{Check, is_invisible};

/// Judges the URL, and reads it as far as it can be asked about.
pub(super) fn judge(plan: &Plan, findings: &mut Findings) -> Result<Callback, &'static str> {
    let given = plan.callback.as_str();
    findings.add(characters(given));
    let cleaned: String = given.chars().filter(|character| !is_invisible(*character)).collect();
    let parts = Parts::of(&cleaned);
    let (syntax, callback) = read(given, &cleaned, &parts);
    findings.gate(syntax, "url.syntax")?;
    let callback = callback.ok_or("url.syntax")?;
    findings.add(https(&callback));
    findings.add(userinfo(&parts));
    findings.add(port(&parts, &callback));
    findings.add(case(&parts));
    findings.add(lookalike(&parts, &callback));
    findings.add(slash(&parts));
    findings.add(query(&parts));
    findings.add(fragment(&parts));
    findings.add(path(&callback));
    findings.gate(target(plan, &callback), "url.target")?;
    Ok(callback)
}

/// What comes along when a URL is copied from a page or a chat.
fn characters(given: &str) -> Check {
    let invisible: Vec<_> = given
        .chars()
        .enumerate()
        .filter(|(_, character)| is_invisible(*character))
        .map(|(at, character)| format!("U+{:04X} at position {}", u32::from(character), at + 1))
        .take(8)
        .collect();
    let check = check("url.characters");
    if invisible.is_empty() {
        return check;
    }
    check.fail("has invisible characters or spaces in it").detail(invisible.join(", ")).hint(
        "type the URL by hand where it is registered; providers compare it character by character",
    )
}

fn read(given: &str, cleaned: &str, parts: &Parts<'_>) -> (Check, Option<Callback>) {
    let check = check("url.syntax");
    let hint = "write it out, for example https://auth.example.com/oauth/callback";
    // What comes along around a URL is dropped; but without what stands within its host, another
    // host would be asked.
    if Parts::of(given.trim_matches(is_invisible))
        .authority
        .is_some_and(|authority| authority.contains(is_invisible))
    {
        let what = "the host has a space or an invisible character in it";
        return (check.fail(what).hint(hint), None);
    }
    if let Some(port) = parts.written_port()
        && parts.is_http()
        && port.parse::<u16>().map_or(true, |port| port == 0)
    {
        let what = format!("there is no port {}", short(port));
        return (
            check.fail(what).hint("ports go from 1 to 65535; leave it out for the default one"),
            None,
        );
    }
    let (Some(server), false) = (parts.server(), cleaned.contains('\\')) else {
        return (check.fail("is not an absolute http or https URL").hint(hint), None);
    };
    // The parser of browsers turns an internationalised host into its `xn--` form.
    let parsed = ::url::Url::parse(&format!("{}://{}/", server.scheme(), server.host));
    let Some(host) = parsed.ok().and_then(|url| url.host_str().map(str::to_owned)) else {
        return (check.fail("the host is not a valid name or address").hint(hint), None);
    };
    let path = if parts.path.is_empty() { "/" } else { parts.path };
    if http::uri::PathAndQuery::try_from(path).is_err() {
        let hint = "percent-encode the path, or better choose a plain one";
        return (
            check.fail("the path holds characters that no request can carry").hint(hint),
            None,
        );
    }
    let server = Server { host, ..server };
    (check, Some(Callback { server, path: path.to_owned() }))
}

fn https(callback: &Callback) -> Check {
    let check = check("url.https");
    if callback.server.tls {
        check
    } else if callback.server.is_loopback() {
        // RFC 8252 §7.3 lets native apps and developers use it.
        check
            .warn("is plain http on this machine")
            .detail("good enough for development; no provider accepts it in production")
            .hint("use https wherever others sign in")
    } else {
        check
            .fail("is plain http")
            .detail("codes and states would cross the network in the clear (RFC 9700 §2.6)")
            .hint("serve the callback over https, and register that URL")
    }
}

fn userinfo(parts: &Parts<'_>) -> Check {
    let check = check("url.userinfo");
    if parts.userinfo().is_none() {
        return check;
    }
    check
        .fail("has a user name or password in it")
        .detail("browsers hide or refuse it, and providers refuse to register it (RFC 9110 §4.2.4)")
        .hint("leave out everything up to the `@`")
}

fn port(parts: &Parts<'_>, callback: &Callback) -> Check {
    let check = check("url.port");
    let default = if callback.server.tls { "443" } else { "80" };
    if parts.written_port() != Some(default) {
        return check;
    }
    check
        .warn(format!("names port {default}, which is the default"))
        .detail("browsers leave it out, and providers compare the URL character by character")
        .hint(format!("leave out `:{default}`"))
}

fn case(parts: &Parts<'_>) -> Check {
    let check = check("url.case");
    let upper = |text: Option<&str>| text.is_some_and(|text| text.contains(char::is_uppercase));
    if !upper(parts.scheme) && !upper(parts.authority) {
        return check;
    }
    check
        .warn("has upper-case letters before the path")
        .detail(
            "browsers make them lower case, and providers compare the URL character by character",
        )
        .hint("write scheme and host in lower case")
}

fn lookalike(parts: &Parts<'_>, callback: &Callback) -> Check {
    let check = check("url.lookalike");
    let written = parts.authority.unwrap_or_default();
    let host = &callback.server.host;
    if !written.is_ascii() {
        let foreign: String =
            written.chars().filter(|character| !character.is_ascii()).take(8).collect();
        return check
            .warn(format!("the host has letters outside ASCII: {foreign}"))
            .detail(format!("browsers and providers know it as {host}"))
            .hint("make sure that each letter is the one you mean, and register the `xn--` form");
    }
    if host.split('.').any(|label| label.starts_with("xn--")) {
        return check
            .warn("the host is internationalised, and may look like another")
            .hint("make sure that it is the one you own");
    }
    check
}

fn slash(parts: &Parts<'_>) -> Check {
    let check = check("url.slash");
    if parts.path.len() > 1 && parts.path.ends_with('/') {
        return check
            .warn("ends in a slash")
            .detail("with and without it are two URLs to providers and to Nango")
            .hint("leave it out, here and at each provider");
    }
    if parts.path.contains("//") {
        return check
            .warn("has an empty path segment (`//`)")
            .detail("some servers merge the slashes, others do not")
            .hint("write one slash");
    }
    check
}

fn query(parts: &Parts<'_>) -> Check {
    let check = check("url.query");
    if parts.query.is_none() {
        return check;
    }
    check
        .fail("has a query of its own")
        .detail("Nango builds OAuth 1 callbacks by appending `?state=…`, and providers append `?code=…`\nthe checks below ask without it")
        .hint("leave it out; if it was copied from a sign-in that just happened, treat the code in it as leaked")
}

fn fragment(parts: &Parts<'_>) -> Check {
    let check = check("url.fragment");
    if parts.fragment.is_none() {
        return check;
    }
    check
        .fail("has a fragment")
        .detail("a redirection endpoint must not have one (RFC 6749 §3.1.2)")
        .hint("leave out everything from the `#` on")
}

fn path(callback: &Callback) -> Check {
    let check = check("url.path");
    if callback.path.ends_with("app-auth/connect") {
        return check.pass("is the Setup URL of a GitHub App");
    }
    if callback.path.ends_with("oauth/callback") {
        return check;
    }
    check
        .warn("path does not end in oauth/callback")
        .detail("Nango derives the Setup URL of GitHub Apps by replacing `oauth/callback` with `app-auth/connect`; with this path it lands on the OAuth callback, where the flow fails")
        .hint("choose a path that ends in `/oauth/callback`, unless you never use GitHub Apps")
}

fn target(plan: &Plan, callback: &Callback) -> Check {
    let check = check("url.target");
    let target = Parts::of(plan.target.as_str());
    if target.server().as_ref() == Some(&callback.server) && target.path == callback.path {
        return check
            .fail("is the target itself")
            .detail(format!(
                "there is nothing between {} and itself",
                short(&shown(plan.target.as_str()))
            ))
            .hint("name the URL on your own domain, and Nango's as the target");
    }
    let github = |path: &str| path.ends_with("app-auth/connect");
    if github(&callback.path) != github(target.path) {
        return check
            .warn("callback and target are for different kinds of flows")
            .detail("`app-auth/connect` is for GitHub Apps, `oauth/callback` for all else")
            .hint("let each lead to its like");
    }
    check
}
