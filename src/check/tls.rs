//! `tls.*`: the handshake and the certificate.

use super::location::short;
use super::{Findings, Observations, check};
use crate::outbound::{Certificate, Distrust, Fault, Peer, Reason, Step};
use crate::report::Check;
use jiff::Timestamp;
use std::time::{Duration, SystemTime};

const CERTIFICATE: [&str; 3] = ["tls.chain", "tls.name", "tls.expiry"];

/// The minimum of remaining validity; a third of the lifetime for short-lived certificates.
const RENEWAL_OVERDUE: Duration = Duration::from_hours(21 * 24);

pub(super) fn evaluate(
    observations: &Observations,
    findings: &mut Findings,
) -> Result<(), &'static str> {
    if !observations.callback.server.tls {
        for id in std::iter::once("tls.handshake").chain(CERTIFICATE) {
            findings.add(check(id).skip("not run: the callback is plain http"));
        }
        return Ok(());
    }
    let Some(probed) = observations.primary() else {
        let fault = observations
            .addresses
            .iter()
            .filter_map(|probed| probed.failure.as_ref())
            .find(|fault| fault.step == Step::Handshake);
        // Without a fault, no check that needs a connection was selected.
        return match fault {
            Some(fault) => findings.gate(no_handshake(fault), "tls.handshake"),
            None => Ok(()),
        };
    };
    let Some(peer) = &probed.peer else { return Ok(()) };
    let summary = format!("accepts {} and {}", peer.version, peer.protocol.name());
    findings.add(check("tls.handshake").pass(summary).duration(probed.duration));
    findings.add(chain(peer));
    findings.add(name(peer, &observations.callback.server.host));
    findings.add(expiry(peer, SystemTime::now()));
    Ok(())
}

fn no_handshake(fault: &Fault) -> Check {
    let check = check("tls.handshake").detail(&fault.text);
    match fault.reason {
        Reason::OutOfTime => check.unknown("not probed within the time limit"),
        Reason::NoTls => check
            .fail("accepts neither TLS 1.2 nor TLS 1.3")
            .hint("enable TLS 1.2 and 1.3 on this port; a plain-text response means that TLS is not configured at all"),
        Reason::Timeout => check
            .fail("the TLS handshake times out")
            .hint("check what listens on this port, and whether a firewall blocks it"),
        Reason::Closed => check
            .fail("the connection is closed during the TLS handshake")
            .hint("check that the server has a certificate for this host; see its log"),
        Reason::NoProtocol => check
            .fail("offers neither HTTP/1.1 nor HTTP/2")
            .hint("let the server negotiate `h2` and `http/1.1` (ALPN)"),
        _ => check
            .fail("the TLS handshake fails")
            .hint("check that the server has a certificate for this host; see its log"),
    }
}

fn chain(peer: &Peer) -> Check {
    let check = check("tls.chain");
    let Err(why) = &peer.chain else { return check };
    let Some(leaf) = peer.leaf() else {
        return check.fail("presents no readable certificate").hint("install a certificate");
    };
    let detail = shown(leaf);
    match why {
        Distrust::UnknownIssuer if leaf.subject == leaf.issuer => check
            .fail("the certificate is self-signed")
            .detail(detail)
            .hint("obtain a certificate from a public CA; for a private CA, pass its root with --ca"),
        Distrust::UnknownIssuer if is_incomplete(peer, leaf) => check
            .fail("the chain is incomplete: an intermediate certificate is missing")
            .detail(format!(
                "{detail}\n{} sent; none of them is {}",
                count(peer.certificates.len()),
                short(&leaf.issuer)
            ))
            .hint("serve the full chain: the leaf first, then each intermediate; browsers may have the intermediate cached, providers do not"),
        Distrust::UnknownIssuer => check
            .fail("the issuer is not trusted")
            .detail(detail)
            .hint("obtain a certificate from a public CA; for a private CA, pass its root with --ca"),
        Distrust::Expired => check
            .fail("a certificate above the leaf has expired")
            .detail(detail)
            .hint("serve the current intermediate certificates of the CA"),
        Distrust::WrongName | Distrust::Other(_) => {
            let reason = match why {
                Distrust::Other(reason) => reason.as_str(),
                _ => "a CA in the chain must not issue for this name",
            };
            check
                .fail("the chain is not valid")
                .detail(format!("{reason}\n{detail}"))
                .hint("replace the certificate and serve its full chain")
        }
    }
}

/// Distinguishes a missing intermediate from an unknown CA. Certificates of public CAs contain the
/// URL of their issuer's certificate. A server that sends more than the leaf, but not the issuer of
/// the leaf, has the wrong chain file.
fn is_incomplete(peer: &Peer, leaf: &Certificate) -> bool {
    let mut above = peer.certificates.iter().skip(1);
    let has_issuer = above.clone().any(|certificate| certificate.subject == leaf.issuer);
    !has_issuer && (leaf.issuer_is_published || above.next().is_some())
}

fn count(certificates: usize) -> String {
    if certificates == 1 {
        "1 certificate was".to_owned()
    } else {
        format!("{certificates} certificates were")
    }
}

fn name(peer: &Peer, host: &str) -> Check {
    let check = check("tls.name");
    if peer.name.is_ok() {
        return check;
    }
    let detail = peer.leaf().map_or_else(String::new, shown);
    check
        .fail(format!("the certificate is not for {host}"))
        .detail(detail)
        .hint("add the host to the names of the certificate, or check which server responds at this address")
}

fn expiry(peer: &Peer, now: SystemTime) -> Check {
    let check = check("tls.expiry");
    let Some(leaf) = peer.leaf() else { return check.skip("not run: no certificate") };
    let detail = shown(leaf);
    let renew = "renew the certificate, and find out why it was not renewed automatically";
    if now < leaf.not_before {
        return check
            .fail("the certificate is not valid yet")
            .detail(detail)
            .hint("check the clocks of this machine and of the CA");
    }
    let Ok(left) = leaf.not_after.duration_since(now) else {
        return check.fail("the certificate has expired").detail(detail).hint(renew);
    };
    let life = leaf.not_after.duration_since(leaf.not_before).unwrap_or_default();
    let left_shown = if left < Duration::from_hours(48) {
        format!("{} hours", left.as_secs() / 3600)
    } else {
        format!("{} days", left.as_secs() / 86400)
    };
    if left < RENEWAL_OVERDUE.min(life / 3) {
        return check
            .warn(format!("the certificate expires in {left_shown}"))
            .detail(detail)
            .hint(renew);
    }
    check.pass(format!("certificate is valid for {left_shown}")).detail(detail)
}

/// A certificate in one line, with a limited number of names.
fn shown(certificate: &Certificate) -> String {
    const MAX_NAMES: usize = 5;
    let mut names: Vec<_> =
        certificate.names.iter().take(MAX_NAMES).map(|name| short(name)).collect();
    if certificate.names.len() > MAX_NAMES {
        names.push(format!("{} more", certificate.names.len() - MAX_NAMES));
    }
    if names.is_empty() {
        names.push("no name".to_owned());
    }
    format!(
        "certificate for {}, from {}, valid {} to {}",
        names.join(", "),
        short(&certificate.issuer),
        date(certificate.not_before),
        date(certificate.not_after)
    )
}

fn date(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(
        |_| "an unknown date".to_owned(),
        |time| time.to_string().chars().take(10).collect(),
    )
}
