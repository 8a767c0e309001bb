//! Compares where a response sends the browser with where it should. Without I/O.

use super::corpus::Probe;
use super::location::{Callback, resolve, shown};
use super::query::{Difference, as_browsers_send, difference, template};
use crate::outbound::Response;
use crate::redirect::Target;
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use url::Url;

/// Where a probe ended up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    /// At the target, with the query byte for byte as browsers send it.
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
    /// Browsers cannot parse it.
    Invalid,
    /// The callback's own scheme, host and port.
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
    /// Where the response to a probe of `callback` leads.
    pub(super) fn of(
        response: &Response,
        probe: &Probe,
        callback: &Callback,
        target: &Target,
        prefix: &str,
    ) -> Self {
        if !is_redirect(response.status) {
            return Self::Stays(response.status);
        }
        let query = probe.query.as_deref();
        let mut locations: Vec<_> = response.headers.get_all(LOCATION).iter().collect();
        // Identical ones have one meaning, and browsers accept them.
        locations.dedup();
        let location = match locations.as_slice() {
            [] => return Self::Elsewhere(Elsewhere::Missing),
            [location] => *location,
            several => return Self::Elsewhere(Elsewhere::Several(several.len())),
        };
        if target.location(query).is_ok_and(|expected| expected == *location) {
            return Self::Exact;
        }
        let sent = as_browsers_send(query.unwrap_or_default());
        match carried(location.as_bytes(), &sent, callback, target) {
            Err(elsewhere) => Self::Elsewhere(elsewhere),
            Ok(Some(got)) if query.is_none() && got.is_empty() => {
                Self::Altered(Difference::Dangling)
            }
            Ok(got) => difference(&sent, got.as_deref(), prefix, &probe.state)
                .map_or(Self::Exact, Self::Altered),
        }
    }

    pub(super) fn is_exact(&self) -> bool {
        *self == Self::Exact
    }

    /// Whether the target gets every value, although perhaps in other bytes.
    pub(super) fn keeps_values(&self) -> bool {
        match self {
            Self::Exact => true,
            Self::Altered(difference) => difference.keeps_values(),
            Self::Elsewhere(_) | Self::Stays(_) => false,
        }
    }
}

/// Whether browsers follow the response.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The query of a `Location` after the target's own, as browsers send it; an error when it does not
/// lead to the target. `None` means that there is no `?`. A fragment counts as part of the query.
pub(super) fn carried(
    location: &[u8],
    sent: &str,
    callback: &Callback,
    target: &Target,
) -> Result<Option<String>, Elsewhere> {
    let text = String::from_utf8_lossy(location);
    let base = text.split(['?', '#']).next().unwrap_or_default();
    if let Some(marker) = template(sent, base) {
        return Err(Elsewhere::Template(marker));
    }
    let invalid = || template(sent, &text).map_or(Elsewhere::Invalid, Elsewhere::Template);
    let url = resolve(callback, location).ok_or_else(invalid)?;
    let wanted = Url::parse(target.as_str()).map_err(|_| Elsewhere::Site)?;
    if url.origin() != wanted.origin() {
        let own = Url::parse(&callback.shown()).is_ok_and(|own| own.origin() == url.origin());
        return Err(if own { Elsewhere::Relative } else { Elsewhere::Site });
    }
    if url.path() != wanted.path() {
        let glued = url.path().strip_prefix(wanted.path());
        let glued = glued.is_some_and(|rest| rest.contains('=') || rest.contains('&'));
        return Err(if glued { Elsewhere::Glued } else { Elsewhere::Path });
    }
    let query = url.query();
    let query = match wanted.query().filter(|own| !own.is_empty()) {
        None => query,
        Some(own) => {
            let rest =
                query.and_then(|query| query.strip_prefix(own)).ok_or(Elsewhere::OwnQuery)?;
            match rest.strip_prefix('&') {
                Some(rest) => Some(rest),
                None if rest.is_empty() => None,
                None if own.ends_with('&') => Some(rest),
                None => return Err(Elsewhere::OwnQuery),
            }
        }
    };
    Ok(match url.fragment() {
        None => query.map(str::to_owned),
        Some(fragment) => Some(format!("{}#{fragment}", query.unwrap_or_default())),
    })
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
    use crate::outbound::Server;

    fn callback(scheme: &str) -> Callback {
        let server = Server { tls: scheme == "https", host: "auth.example".to_owned(), port: 443 };
        let port = Server::default_port(server.tls);
        Callback { server: Server { port, ..server }, path: "/oauth/callback".to_owned() }
    }

    #[test]
    fn the_query_of_a_location_is_separated_from_its_target() {
        let plain = Target::parse("https://t.example/oauth/callback").unwrap();
        let own = Target::parse("https://t.example/cb?own=1").unwrap();
        let open = Target::parse("https://t.example/cb?own=1&").unwrap();
        let carried = |location: &str, target| {
            carried(location.as_bytes(), "a=1", &callback("https"), target)
        };
        let some = |text: &str| Ok(Some(text.to_owned()));
        #[rustfmt::skip]
        let table = [
            ("https://t.example/oauth/callback?a=1", &plain, some("a=1")),
            ("HTTPS://T.example:443/oauth/callback", &plain, Ok(None)),
            ("https://t.example/oauth/callback?", &plain, some("")),
            ("https://t.example/oauth/callback#x", &plain, some("#x")),
            ("https://t.example/oauth/callback?a=1#x", &plain, some("a=1#x")),
            ("http://t.example/oauth/callback?a=1", &plain, Err(Elsewhere::Site)),
            ("https://t.example:8443/oauth/callback?a=1", &plain, Err(Elsewhere::Site)),
            ("https://t.example/oauth/callback/?a=1", &plain, Err(Elsewhere::Path)),
            ("https://t.example/OAuth/callback?a=1", &plain, Err(Elsewhere::Path)),
            ("https://t.example/oauth/callbacka=1", &plain, Err(Elsewhere::Glued)),
            ("/oauth/callback?a=1", &plain, Err(Elsewhere::Relative)),
            ("https://$host/oauth/callback", &plain, Err(Elsewhere::Template("$host"))),
            ("https://h:$port?$args", &plain, Err(Elsewhere::Template("$args"))),
            ("https://h:99999/", &plain, Err(Elsewhere::Invalid)),
            ("mailto:someone@t.example", &plain, Err(Elsewhere::Site)),
            ("https://t.example/cb?own=1&a=1", &own, some("a=1")),
            ("https://t.example/cb?own=1", &own, Ok(None)),
            ("https://t.example/cb?own=1&", &own, some("")),
            ("https://t.example/cb?a=1", &own, Err(Elsewhere::OwnQuery)),
            ("https://t.example/cb?own=12&a=1", &own, Err(Elsewhere::OwnQuery)),
            ("https://t.example/cb", &own, Err(Elsewhere::OwnQuery)),
            ("https://t.example/cb?own=1&a=1", &open, some("a=1")),
        ];
        for (location, target, expected) in table {
            assert_eq!(carried(location, target), expected, "{location}");
        }
    }

    #[test]
    fn a_location_leads_where_browsers_resolve_it() {
        let target = Target::parse("https://t.example/oauth/callback").unwrap();
        let same = Target::parse("https://auth.example/nango/oauth/callback").unwrap();
        let yes = || Ok(Some("a=1".to_owned()));
        #[rustfmt::skip]
        let table = [
            // RFC 3986 §4.2, and only with the right scheme.
            ("https", "//t.example/oauth/callback?a=1", &target, yes()),
            ("http", "//t.example/oauth/callback?a=1", &target, Err(Elsewhere::Site)),
            ("https", "//t.example:443/oauth/callback?a=1", &target, yes()),
            ("https", "//other.example/oauth/callback?a=1", &target, Err(Elsewhere::Site)),
            // RFC 9110 §10.2.2
            ("https", "/nango/oauth/callback?a=1", &same, yes()),
            ("https", "../nango/oauth/callback?a=1", &same, yes()),
            ("https", "nango/oauth/callback?a=1", &same, Err(Elsewhere::Path)),
            ("http", "/nango/oauth/callback?a=1", &same, Err(Elsewhere::Relative)),
            ("https", "oauth/callback?a=1", &target, Err(Elsewhere::Relative)),
            ("https", "", &target, Err(Elsewhere::Relative)),
            // Equivalent to the target for a browser.
            ("https", "https://user:password@t.example/oauth/callback?a=1", &target, yes()),
            ("https", "HTTPS://T.EXAMPLE/oauth/callback?a=1", &target, yes()),
            ("https", "https://t.example:443/oauth/./x/../callback?a=1", &target, yes()),
            ("https", "https://t.example/oauth/%2e%2E/oauth/callback?a=1", &target, yes()),
            ("https", " https://t.example/oauth/callback?a=1 ", &target, yes()),
            ("https", "https:\\\\t.example\\oauth/callback?a=1", &target, yes()),
            // Not equivalent: browsers do not decode a path, and Nango does not either.
            ("https", "https://t.example/oauth/%63allback?a=1", &target, Err(Elsewhere::Path)),
            ("https", "https://t.example//oauth/callback?a=1", &target, Err(Elsewhere::Path)),
            ("https", "https://t.example@other.example/oauth/callback?a=1", &target, Err(Elsewhere::Site)),
            ("https", "https://t.example.other.example/oauth/callback?a=1", &target, Err(Elsewhere::Site)),
        ];
        for (scheme, location, target, expected) in table {
            let found = carried(location.as_bytes(), "a=1", &callback(scheme), target);
            assert_eq!(found, expected, "{location} from {scheme}");
        }
    }

    #[test]
    fn a_query_is_read_as_browsers_send_it() {
        let target = Target::parse("https://t.example/cb").unwrap();
        let table: [(&[u8], &str); 4] = [
            (b"?name=O'Brien", "name=O%27Brien"),
            ("?name=caf\u{e9}".as_bytes(), "name=caf%C3%A9"),
            (b"?name=caf\xe9", "name=caf%E9"),
            (b"?a=\"<two words>\"", "a=%22%3Ctwo%20words%3E%22"),
        ];
        for (query, expected) in table {
            let location = [b"https://t.example/cb", query].concat();
            let found = carried(&location, "a=1", &callback("https"), &target);
            assert_eq!(found, Ok(Some(expected.to_owned())));
        }
    }
}
