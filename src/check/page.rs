//! Pages that stand where a redirect should: what they are, told by their marks. Pure.

use crate::outbound::Answer;
use http::header::{HeaderName, LOCATION, REFRESH, WWW_AUTHENTICATE};

/// A page instead of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Nango's own, fetched by the server and passed on.
    Nango,
    /// A bot wall: a challenge or a captcha.
    BotWall,
    /// It asks who you are.
    Login,
    /// `<meta http-equiv="refresh">` or a `Refresh` field.
    Refresh,
    /// A script goes on from there.
    Script,
    /// Something else.
    Other,
}

impl Page {
    /// What an answer is, when it is a page; plain error answers are none.
    pub(super) fn of(answer: &Answer) -> Option<Self> {
        let status = answer.status;
        let text = String::from_utf8_lossy(&answer.body).to_ascii_lowercase();
        let any = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
        let walled = answer.headers.contains_key(HeaderName::from_static("cf-mitigated"))
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
        if is_nango(&answer.body) {
            Some(Self::Nango)
        } else if answer.headers.contains_key(LOCATION) && status.is_redirection() {
            None
        } else if walled {
            Some(Self::BotWall)
        } else if answer.headers.contains_key(WWW_AUTHENTICATE) {
            Some(Self::Login)
        } else if !status.is_success() {
            None
        } else if answer.headers.contains_key(REFRESH)
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

    /// In words.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Nango => "Nango's own page",
            Self::BotWall => "a bot wall",
            Self::Login => "a login wall",
            Self::Refresh => "a page with a meta refresh",
            Self::Script => "a page that goes on by script",
            Self::Other => "a page",
        }
    }

    /// What to do about it.
    pub(super) const fn hint(self) -> &'static str {
        match self {
            Self::Nango => {
                "redirect the browser instead of fetching the page for it: Nango compares a cookie on its own domain"
            }
            Self::BotWall => "exempt the callback's path from bot protection",
            Self::Login => "let the callback's path through without a login",
            Self::Refresh | Self::Script => {
                "answer 308 with a `Location` instead of a page: the popup must keep its opener and every byte of the query"
            }
            Self::Other => "answer 308 with a `Location` instead of a page",
        }
    }
}

/// Whether a body is the page of Nango's OAuth callback.
pub(super) fn is_nango(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.contains("Authorization callback") || text.contains("Nango OAuth flow callback")
}
