//! The origins of providers' authorization servers: browsers send them as `Referer`.

/// The origin from which a browser comes back from this provider. The part of the name after a comma
/// describes the callback, not the provider.
pub(super) fn origin(name: &str) -> Option<&'static str> {
    let provider = name.split(',').next().unwrap_or_default();
    ORIGINS.iter().find(|(known, _)| *known == provider).map(|(_, origin)| *origin)
}

/// (provider, origin). Where every customer has a host, one with an invented name.
#[rustfmt::skip]
const ORIGINS: &[(&str, &str)] = &[
    ("Google", "https://accounts.google.com"),
    ("Microsoft Entra", "https://login.microsoftonline.com"),
    ("Microsoft admin consent", "https://login.microsoftonline.com"),
    ("GitHub", "https://github.com"),
    ("GitHub App", "https://github.com"),
    ("GitLab", "https://gitlab.com"),
    ("Slack", "https://slack.com"),
    ("Shopify", "https://admin.shopify.com"),
    ("QuickBooks", "https://appcenter.intuit.com"),
    ("Xero", "https://authorize.xero.com"),
    ("Zoho", "https://accounts.zoho.eu"),
    ("Amazon SP", "https://sellercentral.amazon.com"),
    ("Braintree", "https://www.braintreegateway.com"),
    ("Clover", "https://www.clover.com"),
    ("Crisp", "https://app.crisp.chat"),
    ("Lightspeed", "https://secure.retail.lightspeed.app"),
    ("MYOB", "https://secure.myob.com"),
    ("Walmart", "https://login.account.wal-mart.com"),
    ("Wildix", "https://invented.wildixin.com"),
    ("Trello", "https://trello.com"),
    ("X", "https://api.x.com"),
    ("Garmin", "https://connect.garmin.com"),
    ("Salesforce", "https://login.salesforce.com"),
    ("LinkedIn", "https://www.linkedin.com"),
    ("Okta", "https://invented.okta.com"),
    ("Stripe", "https://connect.stripe.com"),
    ("Facebook", "https://www.facebook.com"),
    ("TikTok", "https://www.tiktok.com"),
    ("Shopline", "https://invented.myshopline.com"),
    ("Atlassian", "https://auth.atlassian.com"),
    ("HubSpot", "https://app.hubspot.com"),
    ("Typeform", "https://api.typeform.com"),
];

#[cfg(test)]
mod tests {
    use super::super::corpus::{Probe, Run};
    use super::*;

    #[test]
    fn every_provider_has_an_origin_and_nothing_else_has() {
        let run = Run::new();
        for probe in Probe::providers(&run) {
            let origin = origin(probe.name).unwrap_or_else(|| panic!("{}", probe.name));
            let host = origin.strip_prefix("https://").unwrap();
            assert!(!host.contains('/') && host.contains('.'), "{origin}");
        }
        for probe in Probe::spellings(&run).iter().chain(&[Probe::plain(&run)]) {
            assert_eq!(origin(probe.name), None, "{}", probe.name);
        }
    }
}
