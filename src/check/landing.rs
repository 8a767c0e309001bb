//! Compares where a response sends the browser with where it should. Without I/O.

use super::corpus::Probe;
use super::location::{Parts, shown};
use super::query::{Difference, difference, template};
use crate::outbound::Response;
use crate::redirect::Target;
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};

/// Where a probe ended up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    /// At the target, with the query byte for byte.
    Exact,
    /// At the target, with another query.
    Altered(Difference),
    /// Not at the target.
    Elsewhere(Elsewhere),
    /// The response is not a redirect.
    Stays(StatusCode),
}

/// How a Location differs from the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// A redirect without `Location`.
    Missing,
    /// More than one `Location`.
    Several(usize),
    /// It contains an unexpanded placeholder.
    Template(&'static str),
    /// It is a relative reference, or not an http or https URL.
    Relative,
    /// Another scheme, host or port.
    Site,
    /// Another path.
    Path,
    /// The query follows the path without a `?`.
    Glued,
    /// The target's own query is missing.
    OwnQuery,
}

impl Landing {
    pub(super) fn of(response: &Response, probe: &Probe, target: &Target, prefix: &str) -> Self {
        if !is_redirect(response.status) {
            return Self::Stays(response.status);
        }
        let query = probe.query.as_deref();
        let locations: Vec<_> = response.headers.get_all(LOCATION).iter().collect();
        let location = match locations.as_slice() {
            [] => return Self::Elsewhere(Elsewhere::Missing),
            [location] => *location,
            several => return Self::Elsewhere(Elsewhere::Several(several.len())),
        };
        if target.location(query).is_ok_and(|expected| expected == *location) {
            return Self::Exact;
        }
        match carried(location.as_bytes(), query.unwrap_or_default(), target) {
            Err(elsewhere) => Self::Elsewhere(elsewhere),
            Ok(Some(got)) if query.is_none() && got.is_empty() => {
                Self::Altered(Difference::Dangling)
            }
            Ok(got) => difference(query.unwrap_or_default(), got.as_deref(), prefix, &probe.state)
                .map_or(Self::Exact, Self::Altered),
        }
    }

    pub(super) fn is_exact(&self) -> bool {
        *self == Self::Exact
    }
}

/// Whether browsers follow the response.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The query of a `Location` after the target's own; an error when it does not lead to the target.
/// `None` means that there is no `?`. A fragment counts as part of the query.
pub(super) fn carried(
    location: &[u8],
    sent: &str,
    target: &Target,
) -> Result<Option<Vec<u8>>, Elsewhere> {
    let text = String::from_utf8_lossy(location);
    let (base, query) = match location.iter().position(|byte| matches!(byte, b'?' | b'#')) {
        None => (location, None),
        Some(at) => {
            let (base, rest) = location.split_at_checked(at).unwrap_or((location, b""));
            // After a `#` there is no query, only a fragment that contains it.
            (base, Some(rest.strip_prefix(b"?").unwrap_or(rest)))
        }
    };
    let base = String::from_utf8_lossy(base);
    let (got, wanted) = (Parts::of(&base), Parts::of(target.as_str()));
    if let Some(marker) = template(sent, &base) {
        return Err(Elsewhere::Template(marker));
    }
    let server = got.server().ok_or_else(|| match template(sent, &text) {
        Some(marker) => Elsewhere::Template(marker),
        None => Elsewhere::Relative,
    })?;
    if Some(&server) != wanted.server().as_ref() {
        return Err(Elsewhere::Site);
    }
    if got.path != wanted.path {
        let glued = got.path.strip_prefix(wanted.path);
        let glued = glued.is_some_and(|rest| rest.contains('=') || rest.contains('&'));
        return Err(if glued { Elsewhere::Glued } else { Elsewhere::Path });
    }
    match (target.query().filter(|own| !own.is_empty()), query) {
        (None, query) => Ok(query.map(<[u8]>::to_vec)),
        (Some(own), Some(query)) => match query.strip_prefix(own.as_bytes()) {
            Some(b"") => Ok(None),
            Some(rest) => match rest.strip_prefix(b"&") {
                Some(rest) => Ok(Some(rest.to_vec())),
                None if own.ends_with('&') => Ok(Some(rest.to_vec())),
                None => Err(Elsewhere::OwnQuery),
            },
            None => Err(Elsewhere::OwnQuery),
        },
        (Some(_), None) => Err(Elsewhere::OwnQuery),
    }
}

/// The `Location` without values.
pub(super) fn location_shown(headers: &HeaderMap) -> String {
    headers.get(LOCATION).map_or_else(
        || "nowhere".to_owned(),
        |location| shown(&String::from_utf8_lossy(location.as_bytes())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_of_a_location_is_separated_from_its_target() {
        let plain = Target::parse("https://t.example/oauth/callback").unwrap();
        let own = Target::parse("https://t.example/cb?own=1").unwrap();
        let carried = |location: &str, target| {
            carried(location.as_bytes(), "a=1", target)
                .map(|query| query.map(|query| String::from_utf8(query).unwrap()))
        };
        let some = |text: &str| Ok(Some(text.to_owned()));
        #[rustfmt::skip]
        let table = [
            ("https://t.example/oauth/callback?a=1", &plain, some("a=1")),
            ("HTTPS://T.example:443/oauth/callback", &plain, Ok(None)),
            ("https://t.example/oauth/callback?", &plain, some("")),
            ("https://t.example/oauth/callback#x", &plain, some("#x")),
            ("http://t.example/oauth/callback?a=1", &plain, Err(Elsewhere::Site)),
            ("https://t.example:8443/oauth/callback?a=1", &plain, Err(Elsewhere::Site)),
            ("https://t.example/oauth/callback/?a=1", &plain, Err(Elsewhere::Path)),
            ("https://t.example/oauth/callbacka=1", &plain, Err(Elsewhere::Glued)),
            ("/oauth/callback?a=1", &plain, Err(Elsewhere::Relative)),
            ("https://$host/oauth/callback", &plain, Err(Elsewhere::Template("$host"))),
            ("https://t.example/cb?own=1&a=1", &own, some("a=1")),
            ("https://t.example/cb?own=1", &own, Ok(None)),
            ("https://t.example/cb?a=1", &own, Err(Elsewhere::OwnQuery)),
        ];
        for (location, target, expected) in table {
            assert_eq!(carried(location, target), expected, "{location}");
        }
    }
}
