//! What providers were seen to answer, to a callback that is registered and to one that is not.

use super::{LOGIN, Said, answer, page, to};
use data_encoding::BASE64URL_NOPAD;

pub(super) type Answers = fn(&str, &str) -> Said;

/// By what is registered, the URI, and the state.
pub(super) type Shaped = Box<dyn Fn(&[&str], &str, &str) -> Said>;

/// Template, what a known URI gets, what an unknown one gets: of providers that were seen to look
/// before the login. What is less certain stands in `shapes_of_less_certainty_are_judged_right`.
pub(super) fn shapes() -> Vec<(&'static str, Answers, Answers)> {
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

/// Reported, though with less certainty; nothing is known beforehand but a phrase.
pub(super) fn shapes_of_less_certainty() -> Vec<(&'static str, Shaped)> {
    let entra = |text: &str| format!("<title>Sign in</title><script>$Config={{{text}}};</script>");
    let mut all: Vec<(&str, Shaped)> = vec![
        // The page is the same but for its configuration.
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
        // As it was: to the callback that is registered, whichever was asked with.
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
        // As it is.
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
                    answer(200, &[("content-type", "text/html")], LOGIN)
                } else {
                    answer(
                        200,
                        &[("content-type", "application/json")],
                        &format!("{{\"error\":\"invalid_redirect_uri\",\"uri\":\"{uri}\"}}"),
                    )
                }
            }),
        ),
    ];
    // Of these the phrase alone is known, and of all but the first not whether it comes before the
    // login.
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
