//! When a directory wants a certificate to be renewed (RFC 9773).

use super::client::Client;
use super::schedule;
use crate::tls::files::Certificate;
use data_encoding::BASE64URL_NOPAD;
use instant_acme::CertificateIdentifier;
use serde::Deserialize;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

/// When to look again whether a directory that tells no windows does by now.
const NO_WINDOWS: u64 = 24 * 60 * 60;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    renewal_info: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RenewalInfo {
    suggested_window: SuggestedWindow,
}

#[derive(Deserialize)]
struct SuggestedWindow {
    start: String,
    end: String,
}

/// The window, if the directory tells one, and when to ask again.
pub(super) async fn ask_for_window(
    client: &Client,
    directory: &str,
    certificate: &str,
) -> Result<(Option<(u64, u64)>, u64), Box<dyn std::error::Error + Send + Sync>> {
    let answer = client.get(directory).await?;
    let Directory { renewal_info } = serde_json::from_slice(&answer.body)?;
    let Some(url) = renewal_info else { return Ok((None, NO_WINDOWS)) };
    let url = format!("{}/{certificate}", url.trim_end_matches('/'));
    let answer = client.get(&url).await?;
    if !answer.status.is_success() {
        return Err(format!("the directory answers {}", answer.status).into());
    }
    let RenewalInfo { suggested_window } = serde_json::from_slice(&answer.body)?;
    let time = |text: &str| {
        let time: jiff::Timestamp = text.parse()?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(u64::try_from(time.as_second())?)
    };
    let (from, to) = (time(&suggested_window.start)?, time(&suggested_window.end)?);
    // RFC 9773 §4.2: one that ends before it begins is to be treated as none.
    let span = (from < to).then_some((from, to));
    Ok((span, schedule::ask_again_in(answer.retry_after())))
}

/// How a directory names the certificate (RFC 9773 §4.1).
pub(super) fn ari_id(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    let (_, leaf) = X509Certificate::from_der(certificate.key.cert.first()?).ok()?;
    let authority =
        leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(it) => it.key_identifier.as_ref(),
            _ => None,
        })?;
    Some(CertificateIdentifier {
        authority_key_identifier: BASE64URL_NOPAD.encode(authority.0).into(),
        serial: BASE64URL_NOPAD.encode(leaf.tbs_certificate.raw_serial()).into(),
    })
}

/// As it stands in the URL that is asked.
pub(super) fn ari_text(certificate: &Certificate) -> Option<String> {
    let id = ari_id(certificate)?;
    Some(format!("{}.{}", id.authority_key_identifier, id.serial))
}
