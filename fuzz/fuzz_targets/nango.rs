//! What Nango answers: nothing of it makes the reader panic, no refusal quotes it, and a URL that
//! is made from a template asks with the callback that it was given.

#![no_main]

use callback_edge::config::IntegrationSettings;
use callback_edge::outbound::{Limits, Outbound, Resolver, Roots};
use callback_edge::preflight::differential::{Differential, Inquiry};
use callback_edge::preflight::{App, Nango, Refused, authorization_url};
use callback_edge::redirect::Target;
use callback_edge_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const CALLBACK: &str = "https://auth.example.com/oauth/callback?x=1&y";

/// No name that may be quoted looks so.
const CANARY: &str = "CANARY-7f3a";

static NANGO: LazyLock<Nango> = LazyLock::new(|| {
    let outbound = Outbound::new(Resolver::new(Vec::new()), Roots::public(), Limits::default());
    let base = Target::parse("https://nango.example/base/").expect("a URL");
    Nango::new(outbound, &base, CANARY.to_owned().into())
});

fn unquoted(refused: &Refused) {
    let told = refused.to_string();
    assert!(!told.contains(CANARY), "{told}");
    assert!(told.len() < 1000 && !told.chars().any(char::is_control), "{told}");
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let Ok(answer) = input.answer(|text| text.replace("$C", CANARY)) else { return };
    if let Err(refused) = NANGO.read_integrations(&answer) {
        unquoted(&refused);
    }
    let app = match NANGO.read_app(&answer) {
        Ok(app) => app,
        Err(refused) => return unquoted(&refused),
    };
    let app = app.unwrap_or_else(|| App { client_id: "id".into(), scopes: Some("a,b".into()) });
    let params = NANGO.read_connection_config(&answer).unwrap_or_default();
    let template = match NANGO.read_template(&answer) {
        Ok(template) => template,
        Err(refused) => return unquoted(&refused),
    };
    let settings = IntegrationSettings { params, ..IntegrationSettings::default() };
    let Ok(url) = authorization_url(&template, &app, &settings, CALLBACK) else { return };
    let parsed = url::Url::parse(&url).expect("a URL");
    let overridden = template.authorization_params.get("redirect_uri").is_some();
    let uris = parsed.query_pairs().filter(|(name, _)| name == "redirect_uri");
    assert!(overridden || uris.last().is_some_and(|(_, uri)| uri == CALLBACK), "{url}");
    let inquiry = Inquiry {
        template: "google".into(),
        url,
        current: CALLBACK.into(),
        old: CALLBACK.into(),
        new: CALLBACK.into(),
        prompt_none: None,
    };
    std::hint::black_box(Differential::preview(&inquiry).is_ok());
});
