//! `dns.*`: the addresses, and whether all of them serve the same callback.

use super::contrast::{Party, contrast};
use super::prober::AddressProbe;
use super::{Findings, Observations, check};
use crate::outbound::{Fault, Origin, Range, Reason, Resolved, Step};
use crate::report::Check;

pub(super) fn evaluate(
    strict: bool,
    observations: &Observations,
    findings: &mut Findings,
) -> Result<(), &'static str> {
    let host = &observations.callback.server.host;
    let resolved = match &observations.resolved {
        Ok(resolved) => resolved,
        Err(fault) if fault.step == Step::Proxy => return unusable_proxy(fault, findings),
        Err(fault) if matches!(fault.reason, Reason::NoSuchHost | Reason::NoAddress) => {
            let what = if fault.reason == Reason::NoSuchHost {
                format!("{host} does not exist")
            } else {
                format!("{host} has no address")
            };
            let check = check("dns.resolves")
                .fail(what)
                .detail(&fault.text)
                .hint("create an A or AAAA record, or register the callback on a host that exists");
            return findings.gate(check, "dns.resolves");
        }
        Err(fault) => {
            findings.broken = Some(format!("cannot resolve {host}: {}", fault.text));
            let check = check("dns.resolves")
                .unknown(format!("{host} could not be resolved"))
                .detail(&fault.text)
                .hint("check the network and the resolver of this machine");
            return findings.gate(check, "dns.resolves");
        }
    };
    if let Some(proxy) = observations.proxy() {
        for id in ["dns.resolves", "dns.public", "dns.reach", "dns.alike"] {
            let why = format!("not run: requests go through the proxy {proxy}");
            findings.add(check(id).skip(why));
        }
        let mut faults = observations.addresses.iter().filter_map(|probed| probed.failure.as_ref());
        return match faults.find(|fault| matches!(fault.step, Step::Proxy | Step::Connect)) {
            Some(fault) if fault.step == Step::Proxy => unusable_proxy(fault, findings),
            Some(fault) => {
                let _ = findings.take("dns.reach");
                let check = check("dns.reach").unknown("not reached within the time limit");
                findings.gate(check.detail(&fault.text), "dns.reach")
            }
            None => Ok(()),
        };
    }
    findings.add(resolves(resolved));
    findings.add(public(observations, resolved));
    if observations.addresses.is_empty() {
        return Ok(());
    }
    let reach = reach(observations);
    if observations.addresses.iter().all(|probed| reason(probed) == Some(Reason::NoRoute)) {
        findings.broken = Some("this machine has no route to the callback".to_owned());
    }
    if observations.addresses.iter().all(is_unreached) {
        return findings.gate(reach, "dns.reach");
    }
    findings.add(reach);
    findings.add(identical(strict, observations));
    Ok(())
}

/// A fault of the proxy proves nothing about the callback.
fn unusable_proxy(fault: &Fault, findings: &mut Findings) -> Result<(), &'static str> {
    findings.broken = Some(fault.text.clone());
    let _ = findings.take("dns.reach");
    let check = check("dns.reach")
        .unknown("the proxy does not connect to the callback")
        .detail(&fault.text)
        .hint("check `HTTPS_PROXY`; to connect without a proxy, add the host to `NO_PROXY`");
    findings.gate(check, "dns.reach")
}

fn resolves(resolved: &Resolved) -> Check {
    let v4 = resolved.addresses.iter().filter(|address| address.is_ipv4()).count();
    let v6 = resolved.addresses.len() - v4;
    let all: Vec<_> = resolved.addresses.iter().map(|address| address.ip().to_string()).collect();
    let check = check("dns.resolves").detail(all.join(", "));
    match resolved.origin {
        Origin::Literal => check.pass("host is an address"),
        Origin::Override => check.pass("addresses are overridden"),
        Origin::System | Origin::Proxy(_) => {
            check.pass(format!("{v4} IPv4 and {v6} IPv6 addresses"))
        }
    }
}

fn public(observations: &Observations, resolved: &Resolved) -> Check {
    let check = check("dns.public");
    if observations.callback.server.is_loopback() {
        return check.skip("not run: the callback is on this machine");
    }
    if resolved.origin == Origin::Override {
        return check.skip("not run: the addresses are overridden");
    }
    let not_public: Vec<_> = resolved
        .addresses
        .iter()
        .filter_map(|address| Some(format!("{} is {}", address.ip(), Range::of(address.ip())?)))
        .collect();
    if not_public.is_empty() {
        return check;
    }
    check
        .warn("some addresses are not public")
        .detail(not_public.join("\n"))
        .hint("publish addresses that every user can reach")
}

fn reason(probed: &AddressProbe) -> Option<Reason> {
    probed.failure.as_ref().map(|fault| fault.reason)
}

/// Whether no TCP connection was established.
fn is_unreached(probed: &AddressProbe) -> bool {
    probed.failure.as_ref().is_some_and(|fault| fault.step == Step::Connect)
}

fn reach(observations: &Observations) -> Check {
    let duration =
        observations.addresses.iter().map(|probed| probed.duration).max().unwrap_or_default();
    let check = check("dns.reach").duration(duration);
    let unreached: Vec<_> =
        observations.addresses.iter().filter(|probed| is_unreached(probed)).collect();
    if unreached.is_empty() {
        return check;
    }
    let detail: Vec<_> = unreached
        .iter()
        .filter_map(|probed| Some(format!("{}: {}", probed.address, probed.failure.as_ref()?.text)))
        .collect();
    // No route: this machine mostly lacks IPv6. Out of time: not probed.
    let conclusive = |probed: &&&AddressProbe| {
        !matches!(reason(probed), Some(Reason::NoRoute | Reason::OutOfTime))
    };
    let (all, dead) = (observations.addresses.len(), unreached.iter().filter(conclusive).count());
    if dead == 0 {
        return check
            .unknown(format!("{} of {all} addresses cannot be reached from here", unreached.len()))
            .detail(detail.join("\n"))
            .hint("run the check on a machine with IPv4 and IPv6, or skip this check with --skip dns.reach");
    }
    let check = check.detail(detail.join("\n"));
    if dead == all {
        return check
            .fail("no address accepts connections")
            .hint("check that the server runs, listens on this port and is allowed through the firewall, and that the DNS records are current");
    }
    check.fail(format!("{dead} of {all} addresses do not accept connections")).hint(
        "remove the records of addresses that do not serve the callback, or serve it there too",
    )
}

/// Whether the probe was not sent, or its response not awaited, because the time limit was exceeded.
fn is_out_of_time(probed: &AddressProbe) -> bool {
    let fault = probed.first.as_ref().and_then(|first| first.result.as_ref().err());
    fault.or(probed.failure.as_ref()).is_some_and(|fault| fault.reason == Reason::OutOfTime)
}

/// Finds an outdated server that still has a record, or IPv6 that leads to another server.
fn identical(strict: bool, observations: &Observations) -> Check {
    let check = check("dns.alike");
    let Some(primary) = observations.primary() else {
        return check.blocked("tls.handshake");
    };
    let different: Vec<_> = observations
        .addresses
        .iter()
        .filter(|probed| {
            probed.address != primary.address && !is_unreached(probed) && !is_out_of_time(probed)
        })
        .filter_map(|probed| {
            Some((probed.address.ip().to_string(), connection_difference(primary, probed)?))
        })
        .collect();
    let responding = observations.addresses.iter().filter_map(|probed| {
        let outcomes: Vec<_> = probed.first.iter().chain(&probed.hard).collect();
        let name = probed.address.ip().to_string();
        (!outcomes.is_empty()).then_some(Party { name, outcomes })
    });
    let responding: Vec<_> = responding.collect();
    let contrast = contrast(&responding);
    let mut lines: Vec<_> = different.iter().map(|(ip, what)| format!("{ip}: {what}")).collect();
    lines.extend(contrast.iter().flat_map(|it| it.lines.clone()));
    if lines.is_empty() {
        return check;
    }
    let keeps_values = contrast.as_ref().is_some_and(|it| it.keeps_values);
    let only = contrast.and_then(|it| it.only);
    let summary = match (different.as_slice(), only) {
        ([], Some((ip, what))) => format!("only {ip} {what}"),
        ([(ip, what)], None) if responding.len() < 2 || lines.len() == 1 => {
            format!("only {ip}: {what}")
        }
        _ => "the addresses give different responses".to_owned(),
    };
    let harmless = keeps_values && different.is_empty() && !strict;
    let check = if harmless { check.warn(summary) } else { check.fail(summary) };
    check
        .detail(format!("all other checks use {}\n{}", primary.address.ip(), lines.join("\n")))
        .hint("remove the records of outdated servers, or configure those servers identically; changed records take time to spread (--wait)")
}

fn connection_difference(primary: &AddressProbe, probed: &AddressProbe) -> Option<String> {
    if let Some(fault) = &probed.failure {
        return Some(fault.to_string());
    }
    let trusted =
        |probed: &AddressProbe| probed.peer.as_ref().is_none_or(crate::outbound::Peer::trusted);
    if trusted(primary) == trusted(probed) {
        return None;
    }
    let validity = if trusted(probed) { "valid" } else { "not valid" };
    Some(format!("its certificate is {validity}"))
}
