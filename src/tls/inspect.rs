//! Checks the certificate files of the settings: errors prevent serving, warnings are what clients may
//! reject.

use super::files::Certificate;
use crate::config::{self, CertificateFiles, Loaded, Location, Problem, Problems};
use crate::outbound::{Certificate as Content, Distrust, is_for_host, verify_bundle};
use std::ffi::OsString;
use std::path::Path;
use std::time::SystemTime;

/// As [`config::load_for_serving`], with the certificate files.
pub fn load_settings(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Problems> {
    config::load_for_serving(file, environment, |pairs, hosts| inspect(pairs, hosts, true))
}

/// As [`load_settings`], without warnings of certificates that are not valid at this time: a running
/// server logs when that changes.
pub fn load_settings_to_serve(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Problems> {
    config::load_for_serving(file, environment, |pairs, hosts| inspect(pairs, hosts, false))
}

/// The problems of all files. Each host should be a name in one of the certificates.
fn inspect(
    pairs: &[CertificateFiles],
    hosts: &[(Box<str>, Location)],
    with_validity: bool,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut loaded = Vec::new();
    for files in pairs {
        match super::load(files) {
            Ok(certificate) => {
                problems.extend(with_validity.then(|| validity(files, &certificate)).flatten());
                problems.extend(warnings(files, &certificate));
                loaded.push(certificate);
            }
            Err(errors) => problems.extend(errors.iter().map(Problem::from)),
        }
    }
    // An unusable file may have the name.
    if loaded.len() == pairs.len() && !pairs.is_empty() {
        let missing = hosts.iter().filter(|(host, _)| !loaded.iter().any(|it| is_for(it, host)));
        problems.extend(missing.map(|(host, location)| uncovered(host, location, &loaded)));
    }
    problems
}

fn is_for(certificate: &Certificate, host: &str) -> bool {
    certificate.key.cert.first().is_some_and(|leaf| is_for_host(leaf, host))
}

fn uncovered(host: &str, location: &Location, loaded: &[Certificate]) -> Problem {
    let leaves = loaded.iter().filter_map(|it| Content::read(it.key.cert.first()?));
    let names: Vec<_> =
        leaves.flat_map(|leaf| leaf.names).map(|name| format!("`{name}`")).collect();
    let (shown, more) = names.split_at(names.len().min(5));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    let names = match shown {
        [] => "no subject alternative name, and browsers ignore the common name".to_owned(),
        shown => format!("{}{more}", shown.join(", ")),
    };
    let has = if loaded.len() == 1 { "it has" } else { "they have" };
    Problem::warning(format!("no certificate is for `{host}`"))
        .at(location)
        .because(&format!("{has} {names}"))
        .hint(
            "add the host to the names of a certificate, or add the certificate as `[[tls.pair]]`",
        )
}

const PUBLIC_CA: &str = "obtain a certificate from a public CA, for example with `[tls.acme]`; a private CA must be known to all clients";
const FULL_CHAIN: &str =
    "use the file with the leaf first, then each intermediate certificate (`fullchain.pem`)";

fn validity(files: &CertificateFiles, certificate: &Certificate) -> Option<Problem> {
    let why = certificate.invalid_at(SystemTime::now())?;
    let what = format!("the certificate `{}` {why}", files.certificate.display());
    let hint = "replace it with a valid certificate; a running server loads it automatically";
    Some(Problem::warning(what).at(&files.certificate_location).hint(hint))
}

fn warnings(files: &CertificateFiles, certificate: &Certificate) -> Vec<Problem> {
    let name = files.certificate.display();
    let warn = |what: String, hint: &str| {
        Problem::warning(what).at(&files.certificate_location).hint(hint)
    };
    let mut warnings = Vec::new();
    let ders = &certificate.key.cert;
    let chain: Vec<_> = ders.iter().filter_map(Content::read).collect();
    let Some((leaf, above)) = chain.split_first() else { return warnings };
    let mut flaws = Vec::new();
    if leaf.is_self_signed() {
        flaws.push("the certificate is self-signed".to_owned());
    }
    flaws.extend(leaf.leaf_flaws());
    if leaf.names.is_empty() {
        flaws.push("the certificate has no subject alternative name".to_owned());
    }
    if let Some(kind) = leaf.unusual_key {
        flaws.push(format!("browsers do not accept {kind} keys in certificates"));
    }
    if !flaws.is_empty() {
        let what = format!("clients may reject the certificate `{name}`");
        warnings.push(warn(what, PUBLIC_CA).because(&flaws.join("; ")));
    }
    let has_issuer = above.iter().any(|it| it.subject == leaf.issuer);
    let is_ordered = chain.iter().zip(above).all(|(it, next)| it.issuer == next.subject);
    if leaf.is_self_signed() {
        // It has no chain.
    } else if !has_issuer && (leaf.issuer_is_published || !above.is_empty()) {
        let what = format!("an intermediate certificate is missing in `{name}`");
        let why = format!("it has no certificate of the issuer, {}", leaf.issuer);
        warnings.push(warn(what, FULL_CHAIN).because(&why));
    } else if !is_ordered {
        let what = format!("the certificates in `{name}` are not in order");
        warnings.push(warn(what, FULL_CHAIN).because("each must be issued by the next"));
    } else if let Err(why) = verify_bundle(ders)
        // Reported above.
        && why != Distrust::CaAsLeaf
        && flaws.is_empty()
    {
        let what = format!("clients may reject the chain in `{name}`");
        warnings.push(warn(what, FULL_CHAIN).because(&why.to_string()));
    }
    warnings
}
