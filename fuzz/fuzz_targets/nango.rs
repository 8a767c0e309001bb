//! Responses of Nango: none causes a panic, no error quotes them, and an authorization URL made from
//! a template has the given callback.

#![no_main]

use callback_edge::config::IntegrationSettings;
use callback_edge::outbound::{Limits, Outbound, Resolver, Roots};
use callback_edge::preflight::differential::{Differential, ProbeRequest};
use callback_edge::preflight::{App, Nango, NangoError, authorization_url};
use callback_edge::redirect::Target;
use callback_edge_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const CALLBACK: &str = "https://auth.example.com/oauth/callback?x=1&y";

/// A value that no error may contain.
const CANARY: &str = "CANARY-7f3a";

static NANGO: LazyLock<Nango> = LazyLock::new(|| {
    let outbound = Outbound::new(Resolver::new(Vec::new()), Roots::public(), Limits::default());
    let base = Target::parse("https://nango.example/base/").expect("a URL");
    Nango::new(outbound, &base, CANARY.to_owned().into())
});

fn assert_not_quoted(error: &NangoError) {
    let text = error.to_string();
    assert!(!text.contains(CANARY), "{text}");
    assert!(text.len() < 1000 && !text.chars().any(char::is_control), "{text}");
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let Ok(response) = input.response(|text| text.replace("$C", CANARY)) else { return };
    if let Err(error) = NANGO.read_integrations(&response) {
        assert_not_quoted(&error);
    }
    let app = match NANGO.read_app(&response) {
        Ok(app) => app,
        Err(error) => return assert_not_quoted(&error),
    };
    let app = app.unwrap_or_else(|| App {
        client_id: "id".into(),
        scopes: Some("a,b".into()),
        link: None,
    });
    let params = NANGO.read_connection_config(&response).unwrap_or_default();
    let template = match NANGO.read_template(&response) {
        Ok(template) => template,
        Err(error) => return assert_not_quoted(&error),
    };
    let settings = IntegrationSettings { params, ..IntegrationSettings::default() };
    let Ok(url) = authorization_url(&template, &app, &settings, CALLBACK) else { return };
    let overridden = template.authorization_params.get("redirect_uri").is_some();
    // Texts that the template replaces may be anywhere in the URL.
    let rewritten = template.authorization_url_replacements.is_object()
        || template.authorization_url_fragment.is_string();
    if !rewritten {
        let parsed = url::Url::parse(&url).expect("a URL");
        let uris = parsed.query_pairs().filter(|(name, _)| name == "redirect_uri");
        assert!(overridden || uris.last().is_some_and(|(_, uri)| uri == CALLBACK), "{url}");
    }
    let probe_request = ProbeRequest {
        template: "google".into(),
        url,
        current: CALLBACK.into(),
        old: CALLBACK.into(),
        new: CALLBACK.into(),
        prompt_none: None,
    };
    std::hint::black_box(Differential::preview(&probe_request).is_ok());
});
