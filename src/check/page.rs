//! Recognizes pages that are sent instead of a redirect. Without I/O.

use crate::outbound::Response;
use http::header::{HeaderName, LOCATION, REFRESH, WWW_AUTHENTICATE};

/// A page instead of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Nango's own, fetched by the server and passed on.
    Nango,
    /// A bot wall: a challenge or a captcha.
    BotWall,
    /// A login page, or a request for credentials.
    Login,
    /// `<meta http-equiv="refresh">` or a `Refresh` field.
    Refresh,
    /// A script navigates.
    Script,
    /// Something else.
    Other,
}

impl Page {
    /// The kind of page, if the response is one; plain error responses are not.
    pub(super) fn of(response: &Response) -> Option<Self> {
        let status = response.status;
        let text = String::from_utf8_lossy(&response.body).to_ascii_lowercase();
        let any = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
        let walled = response.headers.contains_key(HeaderName::from_static("cf-mitigated"))
            || any(&[
                "just a moment...",
                "challenge-platform",
                "cf-chl",
                "captcha",
                "_incapsula_",
                "attention required",
                "verify you are human",
                "checking your browser",
            ]);
        if is_nango(&response.body) {
            Some(Self::Nango)
        } else if response.headers.contains_key(LOCATION) && status.is_redirection() {
            None
        } else if walled {
            Some(Self::BotWall)
        } else if response.headers.contains_key(WWW_AUTHENTICATE) {
            Some(Self::Login)
        } else if !status.is_success() {
            None
        } else if response.headers.contains_key(REFRESH)
            || text.contains("http-equiv") && text.contains("refresh")
        {
            Some(Self::Refresh)
        } else if any(&["type=\"password\"", "type='password'", "type=password"]) {
            Some(Self::Login)
        } else if any(&["location.href", "location.replace", "location.assign", "window.location"])
        {
            Some(Self::Script)
        } else {
            Some(Self::Other)
        }
    }

    /// A description for the report.
    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::Nango => "Nango's own page",
            Self::BotWall => "a bot challenge",
            Self::Login => "a login page",
            Self::Refresh => "a page with a meta refresh",
            Self::Script => "a page that redirects with a script",
            Self::Other => "a page",
        }
    }

    /// What to do about it.
    pub(super) const fn hint(self) -> &'static str {
        match self {
            Self::Nango => {
                "redirect the browser instead of fetching the page: Nango compares a cookie on its own domain"
            }
            Self::BotWall => "exempt the path of the callback from bot protection",
            Self::Login => "exempt the path of the callback from authentication",
            Self::Refresh | Self::Script => {
                "respond with 308 and a `Location` instead of a page: the popup must keep its opener and every byte of the query"
            }
            Self::Other => "respond with 308 and a `Location` instead of a page",
        }
    }
}

/// Whether a body is the page of Nango's OAuth callback.
pub(super) fn is_nango(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.contains("Authorization callback") || text.contains("Nango OAuth flow callback")
}
