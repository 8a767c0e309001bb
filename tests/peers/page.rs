//! The self-check page in a real browser.

use crate::peer::Peer;
use crate::support::golden::updates;
use crate::support::{Edge, certified, matches_file};
use rcgen::date_time_ymd;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const ROUTES: &str = "
    listen.http = '127.0.0.1:0'
    [[route]]
    path = '/oauth/callback'
    [[route]]
    path = '/app-auth/connect'
";

/// The screenshots stay in the build directory.
#[test]
fn the_page_is_accessible_at_any_width_and_colour_scheme() {
    let mut nango = Peer::node("nango/server.mjs", &[]);
    let nango = format!("nango.url = 'http://nango.localhost:{}'", nango.receive()["port"]);
    let working = Edge::start(&format!("{nango}{ROUTES}"));
    let broken = Edge::start(&format!("public_url = 'https://127.0.0.1:1'{ROUTES}"));
    let mut browser = Peer::browser("page.mjs", &[]);

    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut backgrounds = Vec::new();
    for (name, edge, status, heading, origin) in [
        ("working", &working, 200, "The callback works", format!("http://{}", working.http[0])),
        ("broken", &broken, 503, "The callback is broken", "https://127.0.0.1:1".to_owned()),
    ] {
        for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")] {
            let shot = pictures.join(format!("self-check-{name}-{width}-{scheme}.png"));
            let url = format!("http://{}/self-check", edge.http[0]);
            browser.send(&json!({ "url": url, "width": width, "scheme": scheme, "shot": shot }));
            let seen = browser.receive();
            assert_eq!(seen["status"], status, "{seen:#}");
            assert!(seen["heading"].as_str().unwrap().ends_with(heading), "{seen:#}");
            let callback = format!("{origin}/oauth/callback");
            assert_eq!(seen["paste"], json!([callback, format!("{origin}/app-auth/connect")]));
            assert_eq!(seen["selected"].as_str().unwrap().trim(), callback, "{seen:#}");
            assert_eq!(seen["toggles"], true);
            assert_eq!(seen["overflows"], false, "{name} at {width} scrolls horizontally");
            assert_eq!(seen["console"], json!([]), "{name} {width} {scheme}");
            assert_eq!(seen["violations"], json!([]), "{name} {width} {scheme}");
            let urls = seen["requests"].as_array().unwrap().iter().filter_map(Value::as_str);
            let others: Vec<_> = urls.filter(|it| *it != url).collect();
            assert!(others.iter().all(|it| it.ends_with("/favicon.ico")), "{others:?}");
            backgrounds.push((scheme, seen["background"].clone()));
        }
    }
    let of = |scheme| backgrounds.iter().find(|(of, _)| *of == scheme).map(|(_, colour)| colour);
    assert_ne!(of("light"), of("dark"));
}

/// An expired certificate. The picture shows a page with this text and this style sheet;
/// `UPDATE_GOLDEN=1` takes it again.
#[test]
fn the_page_is_as_pictured() {
    let (authority, dir) = certified(&["auth.example.com"]);
    authority.write_with(dir.path(), "edge", &["auth.example.com"], |certificate| {
        certificate.not_before = date_time_ymd(2025, 5, 12);
        certificate.not_after = date_time_ymd(2025, 8, 10);
    });
    let outside = Edge::start_in(
        dir,
        "
        listen.http = '127.0.0.1:0'
        listen.https = '127.0.0.1:0'
        tls.certificate = '{dir}/edge.pem'
        tls.private_key = '{dir}/edge.key'
        [[route]]
        host = 'auth.example.com'
        path = '/oauth/callback'
        [[route]]
        host = 'auth.example.com'
        path = '/app-auth/connect'
        ",
        |_| {},
    );
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    authority.write(dir.path(), "nango", &["api.nango.dev"]);
    let mut nango = Peer::node("nango/server.mjs", &[]);
    let nango = Peer::nginx(&format!(
        "http {{ server {{
            listen 127.0.0.1:{{port:tls}} ssl;
            ssl_certificate {dir}/nango.pem;
            ssl_certificate_key {dir}/nango.key;
            location / {{ proxy_pass http://127.0.0.1:{}; }}
        }} }}",
        nango.receive()["port"],
        dir = dir.path().display(),
    ));
    let settings = format!(
        "
        public_url = 'https://auth.example.com'
        listen.http = '127.0.0.1:0'
        self_check.root_ca = '{{dir}}/ca.pem'
        self_check.connect_to = [
            'auth.example.com:443:{}', 'auth.example.com:80:{}', 'api.nango.dev:443:{}',
        ]
        ",
        outside.https[0],
        outside.http[0],
        nango.address("tls"),
    );
    let edge = Edge::start_in(dir, &settings, |_| {});
    let mut browser = Peer::browser("page.mjs", &[]);
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/.github/pictures");
    let pictures = if updates() { committed } else { env!("CARGO_TARGET_TMPDIR") };
    browser.send(&json!({
        "url": format!("http://{}/self-check", edge.http[0]),
        "width": 940,
        "scheme": "light",
        "shot": Path::new(pictures).join("self-check.png"),
        "screenshot_only": true,
    }));
    let seen = browser.receive();
    let (text, policy) = (seen["text"].as_str().unwrap(), seen["policy"].as_str().unwrap());
    // Its time and its duration differ on each run.
    let is_time = |line: &&str| line.ends_with(" ms") && line.contains(" UTC in ");
    let lines = text.lines().filter(|line| !is_time(line)).chain(["", policy, ""]);
    let text = lines.collect::<Vec<_>>().join("\n");
    matches_file(".github/pictures/self-check.txt", &text).unwrap_or_else(|it| panic!("{it}"));
}
