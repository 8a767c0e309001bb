use super::{FormPost, Route, RouteTable, requested_host};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

/// What to do with a request, decided by its head only.
#[derive(Debug)]
pub enum Decision<'t> {
    /// Redirect the browser.
    Redirect(Redirect<'t>),
    /// Read the body, at most the form limit, and pass it to [`Form::redirect`].
    ReadForm(Form),
    /// The route does not allow the method; contains the value of `Allow`.
    MethodNotAllowed(&'static str),
    /// OPTIONS; contains the value of `Allow`.
    Options(&'static str),
    /// A browser prefetches the callback; a redirect would use up the code.
    Prefetch,
    /// The query is over the limit.
    QueryTooLong,
    /// No route matches this path.
    UnknownPath,
    /// Every route has a host, and the request is for another (RFC 9110 §15.5.20).
    UnknownHost,
    /// No single valid host, a target that is not in origin form, or a query that no `Location`
    /// can forward unchanged.
    Malformed,
}

/// A redirect that is ready to be sent.
#[derive(Debug)]
pub struct Redirect<'t> {
    /// 308 for GET and HEAD (RFC 9110 §15.4.9), 303 for a form (RFC 9110 §15.4.4).
    pub status: StatusCode,
    /// The target with the received parameters, byte for byte.
    pub location: HeaderValue,
    /// The route that matched.
    pub route: &'t Route,
    /// Its position in the table.
    pub position: usize,
}

/// Decides. `query_bytes` is the longest query that is forwarded.
pub fn decide<'t>(table: &'t RouteTable, query_bytes: usize, head: &Parts) -> Decision<'t> {
    let Ok(host) = requested_host(head.version, &head.uri, &head.headers) else {
        return Decision::Malformed;
    };
    let Some((position, route)) = table.find(host.as_deref(), head.uri.path()) else {
        return if table.serves_host(host.as_deref()) {
            Decision::UnknownPath
        } else {
            Decision::UnknownHost
        };
    };
    let query = head.uri.query();
    if query.map_or(0, str::len) > query_bytes {
        return Decision::QueryTooLong;
    }
    match head.method {
        Method::GET | Method::HEAD if is_prefetch(&head.headers) => Decision::Prefetch,
        Method::GET | Method::HEAD => match route.target.location(query) {
            Ok(location) => Decision::Redirect(Redirect {
                status: StatusCode::PERMANENT_REDIRECT,
                location,
                route,
                position,
            }),
            Err(_) => Decision::Malformed,
        },
        Method::POST if route.form_post == FormPost::Convert && is_form(&head.headers) => {
            Decision::ReadForm(Form { position, query: query.map(Into::into) })
        }
        Method::OPTIONS => Decision::Options(route.allow()),
        _ => Decision::MethodNotAllowed(route.allow()),
    }
}

/// A form post (OAuth 2.0 Form Post Response Mode) whose body is still to be read.
#[derive(Debug)]
pub struct Form {
    /// The position of the route that matched.
    pub position: usize,
    query: Option<Box<str>>,
}

/// A form has a byte that no form encoder emits and no query can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadForm;

impl Form {
    /// The 303 that turns the form into a GET: the query, then the body's bytes, joined with `&`.
    /// `table` is the one that decided.
    pub fn redirect<'t>(self, table: &'t RouteTable, body: &[u8]) -> Result<Redirect<'t>, BadForm> {
        // `application/x-www-form-urlencoded` and a query share their alphabet. Other bytes
        // (`#`, quotes, spaces, line ends) would be cut or changed by clients and proxies.
        let whole = body
            .iter()
            .all(|&byte| matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'~') || byte >= 0x80);
        if !whole || std::str::from_utf8(body).is_err() {
            return Err(BadForm);
        }
        let route = table.items().get(self.position).ok_or(BadForm)?;
        let query = self.query.as_deref().map(str::as_bytes);
        let location = route.target.join(query, Some(body)).map_err(|_| BadForm)?;
        let position = self.position;
        Ok(Redirect { status: StatusCode::SEE_OTHER, location, route, position })
    }

    /// The query that came with the form.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
}

// Parsed once, not for every request.
static SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");
static PURPOSE: HeaderName = HeaderName::from_static("purpose");

/// Whether a browser requests this before its user does: `Sec-Purpose: prefetch` (also
/// `prefetch;prerender`), and the older `Purpose`.
fn is_prefetch(headers: &HeaderMap) -> bool {
    [&SEC_PURPOSE, &PURPOSE].into_iter().flat_map(|name| headers.get_all(name)).any(|value| {
        value.as_bytes().split(|byte| matches!(byte, b';' | b',')).map(<[u8]>::trim_ascii).any(
            |token| {
                token.eq_ignore_ascii_case(b"prefetch") || token.eq_ignore_ascii_case(b"prerender")
            },
        )
    })
}

/// Whether the content type is `application/x-www-form-urlencoded`, with any parameters.
fn is_form(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().split(|&byte| byte == b';').next().is_some_and(|essence| {
            essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Host, Path, Target};
    use super::*;
    use http::Request;

    fn table(host: Option<&str>, form_post: FormPost) -> RouteTable {
        RouteTable::new(vec![Route {
            host: host.map(|host| Host::parse(host).unwrap()),
            path: Path::parse("/oauth/callback").unwrap(),
            target: Target::parse("https://api.nango.dev/oauth/callback").unwrap(),
            form_post,
        }])
        .unwrap()
    }

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// The decision as a line: status and what goes with it.
    fn describe(table: &RouteTable, head: &Parts) -> String {
        match decide(table, 100, head) {
            Decision::Redirect(redirect) => {
                format!("{} {}", redirect.status.as_u16(), redirect.location.to_str().unwrap())
            }
            Decision::ReadForm(_) => "form".into(),
            Decision::MethodNotAllowed(allow) => format!("405 {allow}"),
            Decision::Options(allow) => format!("204 {allow}"),
            Decision::Prefetch => "503".into(),
            Decision::QueryTooLong => "414".into(),
            Decision::UnknownPath => "404".into(),
            Decision::UnknownHost => "421".into(),
            Decision::Malformed => "400".into(),
        }
    }

    /// Table, method, target, headers, expected decision.
    type Row<'r> = (&'r RouteTable, &'r str, &'r str, &'r [(&'r str, &'r str)], &'r str);

    const HOST: (&str, &str) = ("host", "auth.example.com");
    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=UTF-8");

    #[test]
    fn the_table_of_the_contract_holds() {
        let any = table(None, FormPost::Convert);
        let named = table(Some("auth.example.com"), FormPost::Reject);
        let longest = format!("/oauth/callback?{}", "x".repeat(100));
        let longest_sent_on = format!("308 https://api.nango.dev{longest}");
        let long = format!("/oauth/callback?{}", "x".repeat(101));
        #[rustfmt::skip]
        let rows: &[Row<'_>] = &[
            (&any, "GET", "/oauth/callback?code=1", &[HOST], "308 https://api.nango.dev/oauth/callback?code=1"),
            (&any, "HEAD", "/oauth/callback?code=1", &[HOST], "308 https://api.nango.dev/oauth/callback?code=1"),
            (&any, "GET", "/oauth/callback", &[HOST], "308 https://api.nango.dev/oauth/callback"),
            (&any, "GET", "/oauth/callback?", &[HOST], "308 https://api.nango.dev/oauth/callback?"),
            (&any, "POST", "/oauth/callback", &[HOST, FORM], "form"),
            (&any, "POST", "/oauth/callback", &[HOST, ("content-type", "Application/X-WWW-Form-URLencoded")], "form"),
            (&any, "POST", "/oauth/callback", &[HOST], "405 GET, HEAD, POST, OPTIONS"),
            (&any, "POST", "/oauth/callback", &[HOST, ("content-type", "application/json")], "405 GET, HEAD, POST, OPTIONS"),
            (&any, "TRACE", "/oauth/callback", &[HOST], "405 GET, HEAD, POST, OPTIONS"),
            (&any, "OPTIONS", "/oauth/callback", &[HOST], "204 GET, HEAD, POST, OPTIONS"),
            (&any, "GET", "/oauth/callback?code=1", &[HOST, ("sec-purpose", "prefetch")], "503"),
            (&any, "GET", "/oauth/callback?code=1", &[HOST, ("sec-purpose", "prefetch;prerender")], "503"),
            (&any, "GET", "/oauth/callback?code=1", &[HOST, ("purpose", "prefetch")], "503"),
            (&any, "GET", "/oauth/callback?code=1", &[HOST, ("sec-purpose", "other")], "308 https://api.nango.dev/oauth/callback?code=1"),
            (&any, "GET", &longest, &[HOST], &longest_sent_on),
            (&any, "GET", &long, &[HOST], "414"),
            (&any, "GET", "/oauth/callbac", &[HOST], "404"),
            (&any, "GET", "//oauth/callback", &[HOST], "404"),
            (&any, "GET", "/OAuth/callback", &[HOST], "404"),
            (&any, "GET", "/oauth%2Fcallback", &[HOST], "404"),
            (&any, "GET", "/oauth/callback", &[], "400"),
            (&any, "GET", "/oauth/callback", &[HOST, HOST], "400"),
            (&any, "GET", "/oauth/callback", &[("host", "a b")], "400"),
            (&any, "GET", "http://auth.example.com/oauth/callback", &[HOST], "400"),
            (&named, "GET", "/oauth/callback?x", &[("host", "AUTH.example.com:443")], "308 https://api.nango.dev/oauth/callback?x"),
            (&named, "GET", "/oauth/callback", &[("host", "evil.example")], "421"),
            (&named, "GET", "/else", &[HOST], "404"),
            (&named, "POST", "/oauth/callback", &[HOST, FORM], "405 GET, HEAD, OPTIONS"),
        ];
        for (table, method, target, headers, expected) in rows {
            assert_eq!(
                describe(table, &head(method, target, headers)),
                *expected,
                "{method} {target}"
            );
        }
    }

    #[test]
    fn a_form_keeps_its_bytes_or_is_refused() {
        let table = table(None, FormPost::Convert);
        let head = head("POST", "/oauth/callback?a=1", &[HOST, FORM]);
        let form = |body: &[u8]| match decide(&table, 100, &head) {
            Decision::ReadForm(form) => form.redirect(&table, body).map(|redirect| {
                (redirect.status.as_u16(), redirect.location.to_str().unwrap().to_owned())
            }),
            other => panic!("{other:?}"),
        };
        let location = "https://api.nango.dev/oauth/callback?a=1&code=%2f+'&&x";
        assert_eq!(form(b"code=%2f+'&&x"), Ok((303, location.to_owned())));
        for bad in
            [&b"a#b"[..], b"a b", b"a\"b", b"a\r\nb", b"a<b", b"a>b", b"\0", b"\x7f", b"\xff"]
        {
            assert_eq!(form(bad), Err(BadForm), "{bad:?}");
        }
    }

    #[test]
    fn a_form_reports_the_query_that_came_with_it() {
        let table = table(None, FormPost::Convert);
        let query = |target| match decide(&table, 100, &head("POST", target, &[HOST, FORM])) {
            Decision::ReadForm(form) => form.query().map(str::to_owned),
            other => panic!("{other:?}"),
        };
        assert_eq!(query("/oauth/callback?a=1"), Some("a=1".to_owned()));
        assert_eq!(query("/oauth/callback?"), Some(String::new()));
        assert_eq!(query("/oauth/callback"), None);
    }
}
