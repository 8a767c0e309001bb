//! `tls.*`: the handshake and the certificate.

use super::location::short;
use super::prober::AddressProbe;
use super::{Findings, Observations, check};
use crate::outbound::{Anchor, Certificate, Distrust, Fault, Peer, Reason, Step};
use crate::report::Check;
use http::StatusCode;
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
    let handshake = handshake(peer, probed).duration(probed.duration);
    findings.gate(handshake, "tls.handshake")?;
    findings.add(chain(peer, observations.proxy()));
    findings.add(name(peer, &observations.callback.server.host));
    findings.add(expiry(peer, SystemTime::now()));
    Ok(())
}

/// TLS 1.3 reports a missing client certificate only after the handshake.
fn handshake(peer: &Peer, probed: &AddressProbe) -> Check {
    let check = check("tls.handshake");
    let summary = format!("accepts {} and {}", peer.version, peer.protocol.name());
    let first = probed.first.as_ref().map(|first| (&first.result, first.status()));
    match first {
        _ if !peer.asks_for_certificate => check.pass(summary),
        Some((Err(fault), _))
            if matches!(fault.reason, Reason::ClientCertificate | Reason::Closed | Reason::Tls) =>
        {
            client_certificate(check.detail(&fault.text))
        }
        // nginx responds 400 to a request without a certificate.
        Some((Ok(_), Some(StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN))) => check
            .warn("the server asks for a client certificate, which browsers of users do not have")
            .detail("its response may be due to the missing certificate")
            .hint(NO_CLIENT_CERTIFICATE),
        _ => check.pass(summary),
    }
}

const NO_CLIENT_CERTIFICATE: &str =
    "turn off client certificates (mTLS) for the callback, or give it a host of its own";

fn client_certificate(check: Check) -> Check {
    check
        .fail("the server requires a client certificate, which browsers of users do not have")
        .hint(NO_CLIENT_CERTIFICATE)
}

fn no_handshake(fault: &Fault) -> Check {
    const LOG: &str = "check that the server has a certificate for this host; see its log";
    const SUITES: &str = "enable TLS 1.3, or ECDHE cipher suites with AES-GCM for TLS 1.2";
    const VERSIONS: &str = "enable TLS 1.2 and 1.3 on this port";
    let check = check("tls.handshake").detail(&fault.text);
    match fault.reason {
        Reason::OutOfTime => check.unknown("not probed within the time limit"),
        Reason::PlainHttp => check
            .fail("responds with plain HTTP instead of TLS")
            .hint("configure TLS on this port, or use the port that has it"),
        Reason::OldTls | Reason::NoTls => {
            check.fail("accepts neither TLS 1.2 nor TLS 1.3").hint(VERSIONS)
        }
        // Browsers accept these, but not this client: nothing else can be checked.
        Reason::RsaKeyExchange => check
            .unknown("accepts only RSA key exchange: browsers still connect, many programs do not")
            .hint(SUITES),
        Reason::CbcOnly => check
            .unknown("accepts only CBC cipher suites: browsers still connect, many programs do not")
            .hint(SUITES),
        Reason::OldSuites => {
            check.fail("accepts only cipher suites that browsers do not offer").hint(SUITES)
        }
        Reason::NothingInCommon => check
            .fail("accepts no TLS version, cipher suite or kind of certificate of browsers")
            .hint("check that the server has an RSA, P-256 or P-384 certificate for this host, and ECDHE cipher suites; see its log"),
        Reason::UnknownName => check.fail("has no certificate for this host").hint(
            "add a certificate for the host, or check which server responds at this address",
        ),
        Reason::ClientCertificate => client_certificate(check),
        Reason::Timeout => check
            .fail("the TLS handshake times out")
            .hint("check what listens on this port, and whether a firewall blocks it"),
        Reason::Closed => {
            check.fail("the connection is closed during the TLS handshake").hint(LOG)
        }
        Reason::NoProtocol => check
            .fail("offers neither HTTP/1.1 nor HTTP/2")
            .hint("let the server negotiate `h2` and `http/1.1` (ALPN)"),
        _ => check.fail("the TLS handshake fails").hint(LOG),
    }
}

/// One reason why browsers reject a chain, and what to do.
struct Flaw {
    text: String,
    hint: &'static str,
}

const REISSUE: &str = "replace the certificate: obtain one from a public CA";
const SERVE_CHAIN: &str = "serve the current intermediate certificates of the CA";
const PUBLIC_CA: &str =
    "obtain a certificate from a public CA; for a private CA, pass its root with --ca";

fn chain(peer: &Peer, proxy: Option<&str>) -> Check {
    let check = check("tls.chain");
    let Some(leaf) = peer.leaf() else {
        return check.fail("presents no readable certificate").hint("install a certificate");
    };
    let why = match peer.chain {
        Ok(anchor) => return trusted(check, anchor, leaf, proxy),
        Err(why) => why,
    };
    let path = path(peer);
    let mut flaws = to_reissue(leaf.leaf_flaws());
    for issuer in path.iter().skip(1) {
        flaws.extend(issuer_flaws(issuer));
    }
    // Of a self-signed certificate, the verification reports another flaw first.
    let is_own_issuer = leaf.is_self_signed() && !peer.given.contains(&leaf.subject);
    if why == Distrust::UnknownIssuer || is_own_issuer {
        let issuer = unknown_issuer(peer, leaf, &path);
        // Default commands make self-signed certificates with more flaws, but this is the cause.
        let at = if leaf.is_self_signed() { 0 } else { flaws.len() };
        flaws.insert(at, issuer);
    } else if flaws.is_empty() {
        flaws.push(flaw_of_chain(why, peer, leaf));
    }
    let mut flaws = flaws.into_iter();
    let Some(first) = flaws.next() else { return check };
    let mut detail: Vec<_> = flaws.map(|flaw| format!("also: {}", flaw.text)).collect();
    detail.push(shown(leaf));
    if is_incomplete(peer, leaf) {
        let sent = count(peer.certificates.len());
        detail.push(format!("{sent} sent; none of them is {}", short(&leaf.issuer)));
    }
    if let Some(top) = path.last().filter(|_| path.len() > 1) {
        detail.push(format!(
            "the chain ends at {}, issued by {}",
            short(&top.subject),
            short(&top.issuer)
        ));
    }
    check.fail(first.text).detail(detail.join("\n")).hint(first.hint)
}

fn trusted(check: Check, anchor: Anchor, leaf: &Certificate, proxy: Option<&str>) -> Check {
    let detail = shown(leaf);
    if anchor == Anchor::Machine {
        let cause = match proxy {
            Some(proxy) => format!("probably the proxy {proxy} inspects TLS"),
            None => "a private CA, or a program that inspects TLS".to_owned(),
        };
        return check
            .unknown("only the certificate store of this machine trusts the issuer")
            .detail(format!("issued by {}: {cause}\n{detail}", short(&leaf.issuer)))
            .hint("if it is a private CA of all users, pass its root with --ca; else run the check on a machine without TLS inspection, which hides the certificate of the server");
    }
    match leaf.unusual_key {
        Some(kind) => check
            .warn(format!("browsers do not accept {kind} keys in certificates"))
            .detail(format!("the server may have another certificate for them\n{detail}"))
            .hint("use a certificate with an RSA, P-256 or P-384 key"),
        None => check,
    }
}

/// The leaf, and each issuer that was sent. The order of the sent certificates does not matter, and
/// neither do those that are not part of the chain.
fn path(peer: &Peer) -> Vec<&Certificate> {
    let mut path: Vec<&Certificate> = peer.leaf().into_iter().collect();
    while let Some(last) = path.last() {
        let next = peer.certificates.iter().find(|it| it.subject == last.issuer);
        match next {
            Some(next) if !path.contains(&next) => path.push(next),
            _ => break,
        }
    }
    path
}

/// With the hint to replace the certificate.
fn to_reissue(flaws: Vec<String>) -> Vec<Flaw> {
    flaws.into_iter().map(|text| Flaw { text, hint: REISSUE }).collect()
}

fn issuer_flaws(issuer: &Certificate) -> Vec<Flaw> {
    let which = format!("the intermediate certificate {}", short(&issuer.subject));
    if issuer.is_self_signed() {
        // Only the key of a root matters.
        let root = format!("the root {}", short(&issuer.subject));
        let issuer = Certificate { version: 3, ..issuer.clone() };
        return to_reissue(issuer.flaws(&root));
    }
    let mut flaws = to_reissue(issuer.flaws(&which));
    let mut add = |text: String| flaws.push(Flaw { text, hint: SERVE_CHAIN });
    if !issuer.is_ca {
        add(format!("{which} is not that of a CA"));
    }
    if issuer.excludes_servers {
        add(format!("{which} must not issue for servers: its extended key usage lacks serverAuth"));
    }
    let now = SystemTime::now();
    if now > issuer.not_after {
        add(format!("{which} has expired on {}", date(issuer.not_after)));
    }
    if now < issuer.not_before {
        add(format!("{which} is not valid before {}", date(issuer.not_before)));
    }
    flaws
}

fn unknown_issuer(peer: &Peer, leaf: &Certificate, path: &[&Certificate]) -> Flaw {
    let flaw = |text: String, hint| Flaw { text, hint };
    let top = path.last().copied().unwrap_or(leaf);
    if leaf.is_self_signed() {
        let hint =
            if peer.given.is_empty() { PUBLIC_CA } else { "use a certificate of the given CA" };
        return flaw("the certificate is self-signed".to_owned(), hint);
    }
    if is_incomplete(peer, leaf) {
        return flaw(
            "the chain is incomplete: an intermediate certificate is missing".to_owned(),
            "serve the full chain (`fullchain.pem`): the leaf first, then each intermediate; browsers may have the intermediate cached, providers do not",
        );
    }
    if !peer.given.is_empty() {
        let given: Vec<_> = peer.given.iter().take(3).map(|name| short(name)).collect();
        let given = given.join(", ");
        return if top.is_self_signed() {
            flaw(
                format!("the chain ends at another root than the given CA ({given})"),
                "pass the root of this chain with --ca, or use a certificate of the given CA",
            )
        } else {
            flaw(
                format!(
                    "the chain does not lead to the given CA ({given}): {} is neither sent nor given",
                    short(&top.issuer)
                ),
                "if that is an intermediate CA, serve its certificate after the leaf; if it is a root, pass it instead",
            )
        };
    }
    flaw(
        "the issuer is not trusted".to_owned(),
        "obtain a certificate from a public CA; for a private CA, serve its intermediate certificates after the leaf, and pass its root with --ca",
    )
}

/// Flaws that only the verification of the whole chain finds.
fn flaw_of_chain(why: Distrust, peer: &Peer, leaf: &Certificate) -> Flaw {
    let hint = match why {
        Distrust::BadSignature if peer.given.contains(&leaf.issuer) => {
            let text = "the given CA has the name of the issuer, and another key".to_owned();
            return Flaw { text, hint: "pass the current root of the CA" };
        }
        Distrust::BadSignature => {
            "serve the intermediate certificates that came with this certificate"
        }
        Distrust::PathLength
        | Distrust::NotCa
        | Distrust::Expired
        | Distrust::NotYetValid
        | Distrust::TooComplex => SERVE_CHAIN,
        _ => REISSUE,
    };
    // The verification of the chain includes no names but those of name constraints, and its other
    // reasons are reported before.
    let why = match why {
        Distrust::WrongName => Distrust::NameConstraint,
        Distrust::Missing | Distrust::UnknownIssuer => Distrust::Unreadable,
        why => why,
    };
    Flaw { text: why.to_string(), hint }
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
    match peer.name {
        Ok(()) => return check,
        Err(Distrust::WrongName) => {}
        Err(_) => return check.blocked("tls.chain"),
    }
    let mut detail = peer.leaf().map_or_else(String::new, shown);
    if peer.leaf().is_some_and(|leaf| leaf.names.is_empty()) {
        detail = format!(
            "it has no subject alternative name; browsers ignore the common name\n{detail}"
        );
    }
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
