//! The conversion of a form: the query, `&`, and the body, byte for byte; or the form is rejected.

#![no_main]

use callback_edge::redirect::{Decision, FormPost, Path, Route, RouteTable, Target, decide};
use callback_edge_fuzz::Input;
use http::{Request, Uri, header};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const TARGETS: [&str; 2] = ["https://api.nango.dev/cb", "https://api.nango.dev/cb?own=1"];

static TABLES: LazyLock<[RouteTable; 2]> = LazyLock::new(|| {
    TARGETS.map(|target| {
        let path = Path::parse("/cb").expect("a path");
        let target = Target::parse(target).expect("a target");
        RouteTable::new(vec![Route { host: None, path, target, form_post: FormPost::Convert }])
            .expect("one route")
    })
});

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let which = usize::from(input.byte()) % 2;
    let query = input.piece();
    let body = input.0;
    let Ok(uri) = Uri::try_from([b"/cb?", query].concat()) else { return };
    if query.contains(&b'#') {
        return;
    }
    let request = Request::post(uri)
        .header(header::HOST, "a.example")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(())
        .expect("a request");
    let (head, ()) = request.into_parts();
    let Decision::ReadForm(form) = decide(&TABLES[which], usize::MAX, &head) else { return };
    // The bytes that a query may contain (RFC 3986 §3.4), and those that browsers do not encode either.
    let is_allowed =
        |byte: &u8| byte.is_ascii_graphic() && !b"\"#<>".contains(byte) || *byte > 0x7f;
    match form.redirect(&TABLES[which], body) {
        Ok(redirect) => {
            assert_eq!(redirect.status, 303);
            assert!(body.iter().all(is_allowed));
            let runs: Vec<&[u8]> =
                [query, body].into_iter().filter(|run| !run.is_empty()).collect();
            let joined = runs.join(&b'&');
            let joiner = match which {
                0 => "?",
                _ if joined.is_empty() => "",
                _ => "&",
            };
            let expected = [TARGETS[which].as_bytes(), joiner.as_bytes(), &joined].concat();
            assert_eq!(redirect.location.as_bytes(), expected);
        }
        Err(_) => assert!(!body.iter().all(is_allowed) || std::str::from_utf8(body).is_err()),
    }
});
