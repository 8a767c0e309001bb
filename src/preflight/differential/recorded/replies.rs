//! Recorded replies of providers, to a registered callback and to an unregistered one.

use super::{LOGIN, ReplyResult, page, response, to};
use data_encoding::BASE64URL_NOPAD;

pub(super) type ReplyFn = fn(&str, &str) -> ReplyResult;

/// The reply by registered URIs, sent URI and state.
pub(super) type RecordedProvider = Box<dyn Fn(&[&str], &str, &str) -> ReplyResult>;

/// Template, reply to a registered URI, reply to an unregistered one: of providers that are known to
/// compare before login. Less certain ones are in [`uncertain_shapes`].
pub(super) fn shapes() -> Vec<(&'static str, ReplyFn, ReplyFn)> {
    vec![
        (
            "google-mail",
            |uri, state| {
                to(&format!(
                    "https://p.example/v3/signin/identifier?continue={uri}&state={state}&dsh=S{state}"
                ))
            },
            |uri, state| {
                let error = format!(
                    "\u{a}\u{15}redirect_uri_mismatch\u{12}You can't sign in, redirect_uri={uri} {state}"
                );
                to(&format!(
                    "/signin/oauth/error?authError={}&client_id=1",
                    BASE64URL_NOPAD.encode(error.as_bytes())
                ))
            },
        ),
        (
            "okta",
            |_, state| {
                page(
                    200,
                    &format!(
                        "<title>Acme - Sign In</title><form><input name=\"identifier\"><input value=\"{state}\"></form>"
                    ),
                )
            },
            |uri, _| {
                page(
                    400,
                    &format!(
                        "<h1>400 Bad Request</h1><p>The 'redirect_uri' parameter must be a Login redirect URI in the client app settings: {uri}</p>"
                    ),
                )
            },
        ),
        (
            "xero",
            |_, state| {
                to(&format!("https://login.p.example/identity/user/login?ReturnUrl={state}"))
            },
            |_, state| {
                page(
                    500,
                    &format!(
                        "<h1>Sorry, something went wrong</h1>Error: unauthorized_client, request id {state}"
                    ),
                )
            },
        ),
        (
            "stripe",
            |_, state| to(&format!("/login?redirect={state}")),
            |uri, _| {
                page(
                    400,
                    &format!(
                        "{{\"error\":{{\"message\":\"Invalid redirect URI '{uri}'. Ensure this uri matches exactly one of the uris specified.\"}}}}"
                    ),
                )
            },
        ),
        (
            "jira",
            |_, state| to(&format!("https://id.p.example/login?continue={state}")),
            |uri, _| {
                to(&format!(
                    "https://id.p.example/error?error=unauthorized_client&error_description=redirect_uri%20is%20not%20registered%20for%20client%3A%20{uri}"
                ))
            },
        ),
        (
            "quickbooks",
            |_, state| to(&format!("https://accounts.p.example/app/sign-in?state={state}")),
            |uri, _| {
                page(
                    200,
                    &format!(
                        "<h2>Sorry, but we didn't connect</h2><p>The redirect_uri query parameter value is invalid. Make sure it is listed.</p><!-- {uri} -->"
                    ),
                )
            },
        ),
    ]
}

/// Reported with less certainty; only a phrase is known.
pub(super) fn uncertain_shapes() -> Vec<(&'static str, RecordedProvider)> {
    let entra = |text: &str| format!("<title>Sign in</title><script>$Config={{{text}}};</script>");
    let mut all: Vec<(&str, RecordedProvider)> = vec![
        // The pages differ only in their configuration.
        (
            "microsoft",
            Box::new(move |known, uri, state| {
                page(
                    200,
                    &if known.contains(&uri) {
                        entra(&format!("\"sCtx\":\"{state}\",\"urlPost\":\"/acme/login\""))
                    } else {
                        entra(&format!(
                            "\"strServiceExceptionMessage\":\"AADSTS50011: The redirect URI '{uri}' specified in the request does not match\""
                        ))
                    },
                )
            }),
        ),
        // Former behaviour: redirects to the registered callback, whichever was sent.
        (
            "github",
            Box::new(|known, uri, state| {
                let default = known.first().copied().unwrap_or("https://other.example/");
                to(&if known.contains(&uri) {
                    format!("/login?return_to=%2Flogin%2Foauth%3Fredirect_uri%3D{uri}")
                } else {
                    format!("{default}?error=redirect_uri_mismatch&state={state}")
                })
            }),
        ),
        // Current behaviour.
        (
            "github-app",
            Box::new(|known, uri, _| {
                if known.contains(&uri) {
                    to("/login?client_id=1")
                } else {
                    page(
                        200,
                        "<p>Be careful! The redirect_uri is not associated with this application.</p>",
                    )
                }
            }),
        ),
        (
            "anything",
            Box::new(|known, uri, _| {
                if known.contains(&uri) {
                    response(200, &[("content-type", "text/html")], LOGIN)
                } else {
                    response(
                        200,
                        &[("content-type", "application/json")],
                        &format!("{{\"error\":\"invalid_redirect_uri\",\"uri\":\"{uri}\"}}"),
                    )
                }
            }),
        ),
    ];
    // Only the phrase is known, and only of the first that it comes before login.
    for (template, phrase) in [
        ("asana", "does not match a valid url for the application"),
        ("slack", "did not match any configured URIs"),
        ("linkedin", "does not match the registered value"),
        ("dropbox", "must exactly match one of"),
        ("salesforce", "must match configuration"),
    ] {
        let shaped = move |known: &[&str], uri: &str, _: &str| {
            if known.contains(&uri) {
                to("/login?u=1")
            } else {
                page(400, &format!("<p>{uri} {phrase}.</p>"))
            }
        };
        all.push((template, Box::new(shaped)));
    }
    all
}
