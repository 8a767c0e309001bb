//! `url.*`: the text of the callback, without network access.

use super::location::{Callback, Parts, short, shown};
use super::plan::Plan;
use super::{Findings, check};
use crate::outbound::Server;
use crate::report::{Check, is_invisible};

/// Evaluates the URL, and parses it for the requests.
pub(super) fn evaluate(plan: &Plan, findings: &mut Findings) -> Result<Callback, &'static str> {
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

/// Characters that are easily copied with a URL from a page or a chat.
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
    check.fail("contains invisible characters or spaces").detail(invisible.join(", ")).hint(
        "type the URL by hand where it is registered; providers compare it character by character",
    )
}

fn read(given: &str, cleaned: &str, parts: &Parts<'_>) -> (Check, Option<Callback>) {
    let check = check("url.syntax");
    let hint = "write the complete URL, for example https://auth.example.com/oauth/callback";
    // Invisible characters around a URL are dropped. Without those in its host, the requests would
    // go to another host.
    if Parts::of(given.trim_matches(is_invisible))
        .authority
        .is_some_and(|authority| authority.contains(is_invisible))
    {
        let what = "the host contains a space or an invisible character";
        return (check.fail(what).hint(hint), None);
    }
    if let Some(port) = parts.written_port()
        && parts.is_http()
        && port.parse::<u16>().map_or(true, |port| port == 0)
    {
        let what = format!("port {} is out of range", short(port));
        return (
            check.fail(what).hint("use a port from 1 to 65535, or omit it for the default"),
            None,
        );
    }
    let (Some(server), false) = (parts.server(), cleaned.contains('\\')) else {
        return (check.fail("is not an absolute http or https URL").hint(hint), None);
    };
    // Parses like a browser: converts an internationalized host into its `xn--` form.
    let parsed = ::url::Url::parse(&format!("{}://{}/", server.scheme(), server.host));
    let Some(host) = parsed.ok().and_then(|url| url.host_str().map(str::to_owned)) else {
        return (check.fail("the host is not a valid name or address").hint(hint), None);
    };
    let path = if parts.path.is_empty() { "/" } else { parts.path };
    if http::uri::PathAndQuery::try_from(path).is_err() {
        let hint = "percent-encode the path, or choose one without special characters";
        return (
            check.fail("the path contains characters that a request must not contain").hint(hint),
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
            .warn("uses plain http on this machine")
            .detail("sufficient for development; providers do not accept it in production")
            .hint("use https in production")
    } else {
        check
            .fail("uses plain http")
            .detail("codes and states cross the network unencrypted (RFC 9700 §2.6)")
            .hint("serve the callback over https, and register that URL")
    }
}

fn userinfo(parts: &Parts<'_>) -> Check {
    let check = check("url.userinfo");
    if parts.userinfo().is_none() {
        return check;
    }
    check
        .fail("contains a user name or password")
        .detail("browsers hide or reject it, and providers do not register it (RFC 9110 §4.2.4)")
        .hint("remove everything up to and including the `@`")
}

fn port(parts: &Parts<'_>, callback: &Callback) -> Check {
    let check = check("url.port");
    let default = if callback.server.tls { "443" } else { "80" };
    if parts.written_port() != Some(default) {
        return check;
    }
    check
        .warn(format!("contains the default port {default}"))
        .detail("browsers omit it, and providers compare the URL character by character")
        .hint(format!("remove `:{default}`"))
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
            "browsers convert them to lower case, and providers compare the URL character by character",
        )
        .hint("write the scheme and the host in lower case")
}

fn lookalike(parts: &Parts<'_>, callback: &Callback) -> Check {
    let check = check("url.lookalike");
    let written = parts.authority.unwrap_or_default();
    let host = &callback.server.host;
    if !written.is_ascii() {
        let foreign: String =
            written.chars().filter(|character| !character.is_ascii()).take(8).collect();
        return check
            .warn(format!("the host contains non-ASCII letters: {foreign}"))
            .detail(format!("browsers and providers use {host}"))
            .hint("verify each letter, and register the `xn--` form");
    }
    if host.split('.').any(|label| label.starts_with("xn--")) {
        return check
            .warn("the host is internationalized and can be confused with another")
            .hint("verify that you own this host");
    }
    check
}

fn slash(parts: &Parts<'_>) -> Check {
    let check = check("url.slash");
    if parts.path.len() > 1 && parts.path.ends_with('/') {
        return check
            .warn("ends in a slash")
            .detail("providers and Nango treat the URL with and without the slash as different")
            .hint("remove the slash, here and at each provider");
    }
    if parts.path.contains("//") {
        return check
            .warn("has an empty path segment (`//`)")
            .detail("some servers merge the slashes, others do not")
            .hint("write a single slash");
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
        .detail("Nango appends `?state=…` to OAuth 1 callbacks, and providers append `?code=…`\nthe following checks omit it")
        .hint("remove the query; if it is from a login that just happened, treat the code in it as leaked")
}

fn fragment(parts: &Parts<'_>) -> Check {
    let check = check("url.fragment");
    if parts.fragment.is_none() {
        return check;
    }
    check
        .fail("has a fragment")
        .detail("a redirection endpoint must not have one (RFC 6749 §3.1.2)")
        .hint("remove everything from the `#` on")
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
        .detail("Nango derives the Setup URL of GitHub Apps by replacing `oauth/callback` with `app-auth/connect`; with this path it is the OAuth callback itself, where the flow fails")
        .hint("choose a path that ends in `/oauth/callback`, unless you never use GitHub Apps")
}

fn target(plan: &Plan, callback: &Callback) -> Check {
    let check = check("url.target");
    let target = Parts::of(plan.target.as_str());
    if target.server().as_ref() == Some(&callback.server) && target.path == callback.path {
        return check
            .fail("is its own target")
            .detail(format!("{} redirects to itself", short(&shown(plan.target.as_str()))))
            .hint("pass the URL on your own domain as the callback, and Nango's URL as --target");
    }
    let github = |path: &str| path.ends_with("app-auth/connect");
    if github(&callback.path) != github(target.path) {
        return check
            .warn("callback and target belong to different flows")
            .detail("`app-auth/connect` is for GitHub Apps, `oauth/callback` for all other flows")
            .hint("redirect `oauth/callback` and `app-auth/connect` to the same path at Nango");
    }
    check
}
