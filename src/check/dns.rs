//! `dns.*`: the addresses, and whether all of them are the same callback.

use super::prober::Door;
use super::{Findings, Observations, check};
use crate::outbound::{Origin, Range, Reason, Resolved, Step};
use crate::report::Check;

pub(super) fn judge(seen: &Observations, findings: &mut Findings) -> Result<(), &'static str> {
    let host = &seen.callback.server.host;
    let resolved = match &seen.resolved {
        Ok(resolved) => resolved,
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
            findings.broken = Some(format!("cannot look up {host}: {}", fault.text));
            let check = check("dns.resolves")
                .unknown(format!("{host} could not be looked up"))
                .detail(&fault.text)
                .hint("check this machine's network and resolver");
            return findings.gate(check, "dns.resolves");
        }
    };
    findings.add(resolves(resolved));
    findings.add(public(seen, resolved));
    if seen.doors.is_empty() {
        return Ok(());
    }
    let reach = reach(seen);
    if seen.doors.iter().all(|door| reason(door) == Some(Reason::NoRoute)) {
        findings.broken = Some("this machine has no route to the callback".to_owned());
    }
    if seen.doors.iter().all(is_unreached) {
        return findings.gate(reach, "dns.reach");
    }
    findings.add(reach);
    findings.add(alike(seen));
    Ok(())
}

fn resolves(resolved: &Resolved) -> Check {
    let v4 = resolved.addresses.iter().filter(|address| address.is_ipv4()).count();
    let v6 = resolved.addresses.len() - v4;
    let all: Vec<_> = resolved.addresses.iter().map(|address| address.ip().to_string()).collect();
    let check = check("dns.resolves").detail(all.join(", "));
    match resolved.origin {
        Origin::Literal => check.pass("the host is an address"),
        Origin::Override => check.pass("the addresses were given"),
        Origin::System => check.pass(format!("{v4} IPv4 and {v6} IPv6 addresses")),
    }
}

fn public(seen: &Observations, resolved: &Resolved) -> Check {
    let check = check("dns.public");
    if seen.callback.server.is_loopback() {
        return check.skip("not run: the callback is on this machine");
    }
    if resolved.origin == Origin::Override {
        return check.skip("not run: the addresses were given");
    }
    let odd: Vec<_> = resolved
        .addresses
        .iter()
        .filter_map(|address| Some(format!("{} is {}", address.ip(), Range::of(address.ip())?)))
        .collect();
    if odd.is_empty() {
        return check;
    }
    check
        .warn("browsers elsewhere cannot reach every address")
        .detail(odd.join("\n"))
        .hint("publish addresses that everybody who signs in can reach")
}

fn reason(door: &Door) -> Option<Reason> {
    door.closed.as_ref().map(|fault| fault.reason)
}

/// Whether not even a TCP connection came about.
fn is_unreached(door: &Door) -> bool {
    door.closed.as_ref().is_some_and(|fault| fault.step == Step::Connect)
}

fn reach(seen: &Observations) -> Check {
    let took = seen.doors.iter().map(|door| door.took).max().unwrap_or_default();
    let check = check("dns.reach").took(took);
    let unreached: Vec<_> = seen.doors.iter().filter(|door| is_unreached(door)).collect();
    if unreached.is_empty() {
        return check;
    }
    let detail: Vec<_> = unreached
        .iter()
        .filter_map(|door| Some(format!("{}: {}", door.address, door.closed.as_ref()?.text)))
        .collect();
    // No route: this machine's lack, mostly of IPv6. Out of time: nobody's.
    let telling =
        |door: &&&Door| !matches!(reason(door), Some(Reason::NoRoute | Reason::OutOfTime));
    let (all, dead) = (seen.doors.len(), unreached.iter().filter(telling).count());
    if dead == 0 {
        return check
            .unknown(format!("{} of {all} addresses cannot be reached from here", unreached.len()))
            .detail(detail.join("\n"))
            .hint("run the check from a machine with IPv4 and IPv6, or leave this to another with --skip dns.reach");
    }
    let check = check.detail(detail.join("\n"));
    if dead == all {
        return check
            .fail("nothing accepts connections")
            .hint("see whether the server runs, listens on this port, and is let through the firewall; or whether the host still leads to the right place");
    }
    check.fail(format!("{dead} of {all} addresses do not accept connections")).hint(
        "withdraw the records of addresses that do not serve the callback, or serve it there too",
    )
}

/// An old server that still has a record, or IPv6 that leads to something else.
fn alike(seen: &Observations) -> Check {
    let check = check("dns.alike");
    let Some(front) = seen.front() else {
        return check.blocked("tls.handshake");
    };
    let different: Vec<_> = seen
        .doors
        .iter()
        .filter(|door| door.address != front.address && !is_unreached(door))
        .filter_map(|door| Some(format!("{}: {}", door.address.ip(), unlike(front, door)?)))
        .collect();
    if different.is_empty() {
        return check;
    }
    check
        .fail("the addresses answer differently")
        .detail(format!("{} was asked for all else\n{}", front.address.ip(), different.join("\n")))
        .hint("withdraw the records that lead to an old server, or set that one up in the same way; if the records were just changed, they may take a while to spread (--wait)")
}

fn unlike(front: &Door, door: &Door) -> Option<String> {
    if let Some(fault) = &door.closed {
        return Some(fault.to_string());
    }
    let trusted = |door: &Door| door.peer.as_ref().is_none_or(crate::outbound::Peer::trusted);
    if trusted(front) != trusted(door) {
        let word = if trusted(door) { "valid" } else { "not valid" };
        return Some(format!("its certificate is {word}"));
    }
    let (front, seen) = (front.seen.as_ref()?, door.seen.as_ref()?);
    (!seen.is_like(front)).then(|| seen.shape())
}
