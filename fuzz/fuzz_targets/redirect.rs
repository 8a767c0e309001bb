//! The redirect decision: in a `Location` the received query follows the target, byte for byte; or
//! there is no redirect.

#![no_main]

use callback_edge::redirect::{Decision, FormPost, Host, Path, Route, RouteTable, Target, decide};
use callback_edge_fuzz::Input;
use http::{HeaderValue, Method, Request, Uri, Version, header};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const LIMIT: usize = 512;

const TARGETS: [&str; 4] = [
    "https://api.nango.dev/oauth/callback",
    "https://api.nango.dev/oauth/callback?own=1",
    "https://api.nango.dev/oauth/callback?",
    "http://[::1]:3003/x?a&",
];

static TABLES: LazyLock<[RouteTable; 4]> = LazyLock::new(|| {
    TARGETS.map(|target| {
        let route = |host: Option<&str>, path| Route {
            host: host.map(|host| Host::parse(host).expect("a host")),
            path: Path::parse(path).expect("a path"),
            target: Target::parse(target).expect("a target"),
            form_post: FormPost::Convert,
        };
        RouteTable::new(vec![route(None, "/cb"), route(Some("a.example"), "/named")])
            .expect("two routes")
    })
});

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let which = usize::from(input.byte()) % TARGETS.len();
    let method = input.one(&[&Method::GET, &Method::HEAD, &Method::POST, &Method::OPTIONS]).clone();
    let version = input.one(&[Version::HTTP_11, Version::HTTP_2, Version::HTTP_10]);
    let field = input.one(&[
        None,
        Some(("content-type", "application/x-www-form-urlencoded")),
        Some(("sec-purpose", "prefetch;prerender")),
    ]);
    // hyper parses a request target like this.
    let raw = input.0;
    let Ok(uri) = Uri::try_from(raw) else { return };
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.version_mut() = version;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("a.example"));
    if let Some((name, value)) = field {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let (head, ()) = request.into_parts();

    // The received query: everything after the first `?`. `http` cuts at a `#`, which `server::guard`
    // rejects before.
    let whole = raw.split(|byte| *byte == b'#').next().unwrap_or_default();
    let query = whole.iter().position(|byte| *byte == b'?').map(|at| &whole[at + 1..]);
    match decide(&TABLES[which], LIMIT, &head) {
        Decision::Redirect(redirect) => {
            let target = TARGETS[which];
            let joiner = match (query, which) {
                (None, _) | (Some(_), 2 | 3) => "",
                (Some(b""), 1) => "",
                (Some(_), 1) => "&",
                (Some(_), _) => "?",
            };
            let expected = [target.as_bytes(), joiner.as_bytes(), query.unwrap_or_default()];
            assert_eq!(redirect.location.as_bytes(), expected.concat());
            assert_eq!(redirect.status, 308);
            assert!(matches!(method, Method::GET | Method::HEAD));
            assert!(query.map_or(0, <[u8]>::len) <= LIMIT);
            assert!(field.is_none_or(|(name, _)| name != "sec-purpose"));
            let path = whole.split(|byte| *byte == b'?').next().unwrap_or_default();
            assert!(path.ends_with(b"/cb") || path.ends_with(b"/named"));
        }
        Decision::ReadForm(_) => assert_eq!(method, Method::POST),
        Decision::QueryTooLong => assert!(query.map_or(0, <[u8]>::len) > LIMIT),
        _ => {}
    }
});
