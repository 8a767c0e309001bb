//! Route selection: only the route with the requested host, in any case, with any port, with or without
//! its final dot, and with the requested path.

#![no_main]

use callback_edge::redirect::{FormPost, Host, Path, Route, RouteTable, Target, requested_host};
use callback_edge_fuzz::Input;
use http::{HeaderMap, HeaderValue, Uri, Version, header};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const HOSTS: [&str; 3] = ["a.example", "xn--bcher-kva.example", "[2001:db8::1]"];

static TABLE: LazyLock<RouteTable> = LazyLock::new(|| {
    let routes = HOSTS.map(|host| Route {
        host: Some(Host::parse(host).expect("a host")),
        path: Path::parse("/cb").expect("a path"),
        target: Target::parse("https://t.example/cb").expect("a target"),
        form_post: FormPost::Reject,
    });
    RouteTable::new(routes.into()).expect("three routes")
});

/// The expected host of this field.
fn expected_host(field: &str) -> String {
    let field = field.to_ascii_lowercase();
    let host = match field.rfind(':') {
        Some(at) if field[at + 1..].bytes().all(|byte| byte.is_ascii_digit()) => &field[..at],
        _ => &field,
    };
    host.strip_suffix('.').unwrap_or(host).to_owned()
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let version = input.one(&[Version::HTTP_11, Version::HTTP_2, Version::HTTP_10]);
    let count = input.byte() % 3;
    let mut headers = HeaderMap::new();
    let mut fields = Vec::new();
    for _ in 0..count {
        let field = input.piece();
        let Ok(value) = HeaderValue::from_bytes(field) else { return };
        headers.append(header::HOST, value);
        fields.push(String::from_utf8_lossy(field).into_owned());
    }
    let Ok(uri) = Uri::try_from(input.0) else { return };
    let host = requested_host(version, &uri, &headers);
    if fields.len() > 1 || uri.authority().is_some() && version != Version::HTTP_2 {
        assert!(host.is_err());
    }
    if fields.is_empty() && uri.authority().is_none() {
        assert_eq!(host.is_err(), version == Version::HTTP_11);
    }
    if let Ok(Some(host)) = &host {
        assert!(!host.is_empty() && !host.bytes().any(|byte| byte.is_ascii_uppercase()));
        assert!(!host.contains(['/', '@', '?', '#', ' ', '\\']), "{host}");
        let given = uri.authority().map_or_else(|| fields[0].clone(), |it| it.as_str().to_owned());
        assert_eq!(**host, expected_host(&given));
        if let Some(authority) = uri.authority() {
            assert!(fields.iter().all(|it| it.eq_ignore_ascii_case(authority.as_str())));
        }
        match TABLE.find(Some(host), uri.path()) {
            Some((position, _)) => {
                assert_eq!(expected_host(&given), HOSTS[position]);
                assert_eq!(uri.path(), "/cb");
            }
            None => {
                assert!(uri.path() != "/cb" || !HOSTS.contains(&expected_host(&given).as_str()))
            }
        }
        assert_eq!(TABLE.serves_host(Some(host)), HOSTS.contains(&&**host));
    }

    // The configuration accepts only hosts that a request can have.
    if let Some(field) = fields.first()
        && let Ok(named) = Host::parse(field)
    {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(field).expect("a host"));
        let uri = Uri::from_static("/");
        let host = requested_host(Version::HTTP_11, &uri, &headers).expect("a host").expect("one");
        assert_eq!(host, named.as_str());
    }
    if let Ok(text) = std::str::from_utf8(input.0)
        && let Ok(path) = Path::parse(text)
    {
        assert_eq!(
            Uri::try_from(text).map(|uri| uri.path().to_owned()).ok().as_deref(),
            Some(path.as_str())
        );
    }
});
