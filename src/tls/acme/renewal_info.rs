//! ACME renewal information (ARI, RFC 9773).

use super::client::Client;
use super::schedule;
use crate::tls::files::Certificate;
use data_encoding::BASE64URL_NOPAD;
use instant_acme::CertificateIdentifier;
use serde::Deserialize;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

/// When to check again whether an ACME server without renewal information supports it by now, in
/// seconds.
const UNSUPPORTED_RECHECK: u64 = 24 * 60 * 60;

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

/// Requests the suggested window. Returns it, if there is one, and the seconds until the next request.
pub(super) async fn request_window(
    client: &Client,
    directory: &str,
    certificate: &str,
) -> Result<(Option<(u64, u64)>, u64), Box<dyn std::error::Error + Send + Sync>> {
    let response = client.get(directory).await?;
    let Directory { renewal_info } = serde_json::from_slice(&response.body)?;
    let Some(url) = renewal_info else { return Ok((None, UNSUPPORTED_RECHECK)) };
    let url = format!("{}/{certificate}", url.trim_end_matches('/'));
    let response = client.get(&url).await?;
    if !response.status.is_success() {
        return Err(format!("the ACME server responds {}", response.status).into());
    }
    let RenewalInfo { suggested_window } = serde_json::from_slice(&response.body)?;
    let time = |text: &str| {
        let time: jiff::Timestamp = text.parse()?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(u64::try_from(time.as_second())?)
    };
    let (from, to) = (time(&suggested_window.start)?, time(&suggested_window.end)?);
    // RFC 9773 §4.2: a window that ends before it starts is treated as none.
    let span = (from < to).then_some((from, to));
    Ok((span, schedule::poll_after(response.retry_after())))
}

/// The unique identifier of a certificate (RFC 9773 §4.1).
pub(super) fn ari_id(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    let (_, leaf) = X509Certificate::from_der(certificate.key.cert.first()?).ok()?;
    let issuer_key =
        leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(it) => it.key_identifier.as_ref(),
            _ => None,
        })?;
    Some(CertificateIdentifier {
        authority_key_identifier: BASE64URL_NOPAD.encode(issuer_key.0).into(),
        serial: BASE64URL_NOPAD.encode(leaf.tbs_certificate.raw_serial()).into(),
    })
}

/// The identifier as it is in the request URL.
pub(super) fn ari_text(certificate: &Certificate) -> Option<String> {
    let id = ari_id(certificate)?;
    Some(format!("{}.{}", id.authority_key_identifier, id.serial))
}
