//! Validates certificates against listeners, and collects the domains of ACME.

use super::{files, or_report, roots};
use crate::config::location::Location;
use crate::config::problem::Problem;
use crate::config::read::{
    LETS_ENCRYPT, ParsedAcme, ParsedRoute, ParsedSettings, ParsedTls, STATE_DIR, certificate_files,
};
use crate::config::reader::Located;
use crate::config::settings::{Acme, CertificateFiles, Challenge, Eab, Tls};
use crate::redirect::Host;
use std::path::PathBuf;

pub(super) fn validate(
    read: &ParsedSettings,
    problems: &mut Vec<Problem>,
    unusable: &mut Vec<Problem>,
) -> Option<Tls> {
    let tls = &read.tls;
    let pairs = pairs(tls, problems);
    let given = tls.given || tls.acme.is_some();
    if let (Some(https), false) = (read.listen.https.first(), given) {
        problems.push(
            Problem::error("`listen.https` needs a certificate, but `[tls]` has none")
                .at(&https.location)
                .hint(
                    "set `certificate` and `private_key` in `[tls]`, or let `[tls.acme]` obtain \
                     one, or turn `listen.https` off",
                ),
        );
    }
    let pair = tls.pairs.first().map(|pair| &pair.location);
    let certificate = tls.certificate.as_ref().map(|certificate| &certificate.location).or(pair);
    if let (Some(certificate), true) = (certificate, read.listen.no_https) {
        problems.push(
            Problem::warning("the certificate is not used: `listen.https` is off")
                .at(certificate)
                .hint("set `https = \"0.0.0.0:443\"` in `[listen]`, or remove the certificate"),
        );
    }
    if let (Some(hsts), false) = (&tls.hsts, given) {
        problems.push(
            Problem::warning("`tls.hsts` has no effect without a certificate")
                .at(&hsts.location)
                .hint("send Strict-Transport-Security from the proxy that terminates TLS"),
        );
    }
    let hsts = tls.hsts.as_ref().map(|hsts| hsts.value);
    let acme = tls.acme.as_ref().and_then(|acme| self::acme(acme, read, problems, unusable));
    (!pairs.is_empty() || acme.is_some()).then_some(Tls { pairs, acme, hsts })
}

fn acme(
    acme: &ParsedAcme,
    read: &ParsedSettings,
    problems: &mut Vec<Problem>,
    unusable: &mut Vec<Problem>,
) -> Option<Acme> {
    let before = problems.len();
    consent(acme, problems);
    let challenge = challenge(acme, read, problems);
    let eab = eab(acme, problems, unusable);
    let domains = domains(acme, read, problems);
    let text = |at: &Located<String>| at.value.as_str().into();
    let path = |at: &Located<PathBuf>| at.value.clone();
    let mut directories: Vec<_> = acme.directories.iter().map(|it| it.value.clone()).collect();
    if directories.is_empty() {
        directories.push(LETS_ENCRYPT.into());
    }
    (problems.len() == before && !acme.broken).then(|| Acme {
        domains,
        contact: acme.contact.iter().map(|it| it.value.clone()).collect(),
        directories,
        profile: acme.profile.as_ref().map(text),
        eab,
        state_dir: acme.state_dir.as_ref().map_or_else(|| STATE_DIR.into(), path),
        challenge,
        roots: roots(acme.root_ca.as_ref(), unusable),
    })
}

fn consent(acme: &ParsedAcme, problems: &mut Vec<Problem>) {
    let agreed = acme.agreed.as_ref();
    // An invalid value was reported.
    if agreed.is_some_and(|agreed| !agreed.value) || !acme.has("agree_to_terms") {
        problems.push(
            Problem::error("`[tls.acme]` needs your consent to the CA's terms of service")
                .at(agreed.map_or(&acme.location, |agreed| &agreed.location))
                .hint("read them, and set `agree_to_terms = true`"),
        );
    }
}

/// The challenge; checks that there are listeners for the challenge and for the certificates.
fn challenge(acme: &ParsedAcme, read: &ParsedSettings, problems: &mut Vec<Problem>) -> Challenge {
    let challenge = acme.challenge.as_ref().map_or(Challenge::TlsAlpn01, |it| it.value);
    if read.listen.no_https {
        problems.push(
            Problem::error("`[tls.acme]` obtains certificates, but `listen.https` is off")
                .at(&acme.location)
                .hint("set it, for example `https = \"0.0.0.0:443\"` in `[listen]`"),
        );
    }
    if let (Challenge::Http01, true, Some(at)) =
        (challenge, read.listen.http.is_empty(), &acme.challenge)
    {
        problems.push(
            Problem::error("the challenge `http-01` needs `listen.http`, which is off")
                .at(&at.location)
                .hint("set it, for example `http = \"0.0.0.0:80\"`, or use `tls-alpn-01`"),
        );
    }
    challenge
}

fn eab(acme: &ParsedAcme, problems: &mut Vec<Problem>, unusable: &mut Vec<Problem>) -> Option<Eab> {
    let half = match (&acme.eab_key_id, &acme.eab_hmac_key_file) {
        (Some(id), Some(file)) => {
            let hmac_key = or_report(files::hmac_key(file), unusable)?;
            return Some(Eab { key_id: id.value.as_str().into(), hmac_key });
        }
        (Some(id), None) if !acme.has("eab_hmac_key_file") => {
            ("eab_key_id", "eab_hmac_key_file", &id.location)
        }
        (None, Some(file)) if !acme.has("eab_key_id") => {
            ("eab_hmac_key_file", "eab_key_id", &file.location)
        }
        _ => return None,
    };
    let (has, lacks, location) = half;
    problems.push(
        Problem::error(format!("`tls.acme.{has}` is set, but `tls.acme.{lacks}` is not"))
            .at(location)
            .hint("the CA issues both together"),
    );
    None
}

/// The configured domains, else the hosts of the routes, else the host of the public URL.
fn domains(acme: &ParsedAcme, read: &ParsedSettings, problems: &mut Vec<Problem>) -> Vec<Host> {
    let mut domains: Vec<Host> = Vec::new();
    for at in &acme.domains {
        if domains.contains(&at.value) {
            let what = format!("`{}` is in `tls.acme.domains` twice", at.value);
            problems.push(Problem::error(what).at(&at.location).hint("remove one of them"));
        } else {
            domains.push(at.value.clone());
        }
    }
    if acme.domains.is_empty() {
        for host in read.routes.iter().filter_map(ParsedRoute::host) {
            if !domains.contains(host) {
                domains.push(host.clone());
            }
        }
        if let (true, Some(public)) = (domains.is_empty(), &read.public_url) {
            domains.push(public.value.host.clone());
        }
    }
    if domains.is_empty() && !acme.has("domains") && read.no_host {
        problems.push(
            Problem::error("no domain to obtain a certificate for")
                .at(&acme.location)
                .hint("set `domains` in `[tls.acme]`, `host` of a route, or `public_url`"),
        );
    }
    // A private CA may issue certificates for names that no public CA accepts.
    if acme.directories.is_empty() {
        for host in domains.iter().filter(|host| !is_public(host)) {
            let what = format!("no public CA issues certificates for `{host}`");
            problems.push(Problem::error(what).at(&acme.location).hint(
                "use a public host, or set `directory` and `root_ca` to those of a private CA",
            ));
        }
    }
    domains
}

/// Whether the host can be public: it has more than one label, or is an address.
pub(super) fn is_public(host: &Host) -> bool {
    let name = host.as_str();
    (name.contains('.') || name.starts_with('[')) && !name.ends_with(".localhost")
}

/// The hosts that browsers reach over TLS here, and that ACME does not obtain certificates for; each
/// with the location of its first setting.
pub(super) fn hosts(read: &ParsedSettings) -> Vec<(Box<str>, Location)> {
    let mut hosts: Vec<(Box<str>, Location)> = Vec::new();
    let acme = read.tls.acme.as_ref();
    if read.listen.https.is_empty() || acme.is_some_and(|acme| acme.domains.is_empty()) {
        return hosts;
    }
    let public = read.public_url.iter().map(|url| (&url.value.host, &url.location));
    let routes = read.routes.iter().filter_map(|route| route.host.as_ref());
    for (host, location) in public.chain(routes.map(|host| (&host.value, &host.location))) {
        let is_obtained =
            acme.is_some_and(|acme| acme.domains.iter().any(|domain| domain.value == *host));
        if !is_obtained && !hosts.iter().any(|(known, _)| **known == *host.as_str()) {
            hosts.push((host.as_str().into(), location.clone()));
        }
    }
    hosts
}

fn pairs(tls: &ParsedTls, problems: &mut Vec<Problem>) -> Vec<CertificateFiles> {
    let mut pairs: Vec<_> = tls.pairs.iter().map(|pair| pair.value.clone()).collect();
    // Where only one is set, or one is invalid, that was reported.
    if let (Some(certificate), Some(private_key)) = (&tls.certificate, &tls.private_key) {
        if let Some(pair) = tls.pairs.first() {
            problems.push(
                Problem::error(
                    "certificates are given both as `tls.certificate` and as `[[tls.pair]]`",
                )
                .at(&pair.location)
                .hint("move `certificate` and `private_key` into a `[[tls.pair]]` of their own"),
            );
        }
        pairs.push(certificate_files(certificate, private_key));
    }
    pairs
}
