//! The self-check page in a real browser.

use crate::peer::Peer;
use crate::support::golden::updates;
use crate::support::{Edge, certified, kept};
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

/// Pictures are left in the build folder, for whoever wants to look at them.
#[test]
fn the_page_reads_well_wherever_it_is_opened() {
    let right = Edge::start(ROUTES);
    let broken = Edge::start(&format!("public_url = 'https://127.0.0.1:1'{ROUTES}"));
    let mut person = Peer::browser("page.mjs", &[]);

    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut grounds = Vec::new();
    for (name, edge, status, heading, origin) in [
        ("right", &right, 200, "The callback works", format!("http://{}", right.http[0])),
        ("broken", &broken, 503, "The callback is broken", "https://127.0.0.1:1".to_owned()),
    ] {
        for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")] {
            let shot = pictures.join(format!("self-check-{name}-{width}-{scheme}.png"));
            let url = format!("http://{}/self-check", edge.http[0]);
            person.tell(&json!({ "url": url, "width": width, "scheme": scheme, "shot": shot }));
            let seen = person.hear();
            assert_eq!(seen["status"], status, "{seen:#}");
            assert!(seen["heading"].as_str().unwrap().ends_with(heading), "{seen:#}");
            let callback = format!("{origin}/oauth/callback");
            assert_eq!(seen["paste"], json!([callback, format!("{origin}/app-auth/connect")]));
            assert_eq!(seen["selected"].as_str().unwrap().trim(), callback, "{seen:#}");
            assert_eq!(seen["toggles"], true);
            assert_eq!(seen["sideways"], false, "{name} at {width} scrolls sideways");
            assert_eq!(seen["complaints"], json!([]), "{name} {width} {scheme}");
            assert_eq!(seen["violations"], json!([]), "{name} {width} {scheme}");
            let asked = seen["requests"].as_array().unwrap().iter().filter_map(Value::as_str);
            let elsewhere: Vec<_> = asked.filter(|asked| *asked != url).collect();
            assert!(elsewhere.iter().all(|asked| asked.ends_with("/favicon.ico")), "{elsewhere:?}");
            grounds.push((scheme, seen["ground"].clone()));
        }
    }
    let of = |scheme| grounds.iter().find(|(of, _)| *of == scheme).map(|(_, ground)| ground);
    assert_ne!(of("light"), of("dark"));
}

/// A certificate that nobody renewed. The picture is that of a page with this text and this style
/// sheet; the same test with `UPDATE_GOLDEN=1` takes it again.
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
    let settings = format!(
        "
        public_url = 'https://auth.example.com'
        listen.http = '127.0.0.1:0'
        self_check.root_ca = '{{dir}}/ca.pem'
        self_check.connect_to = ['auth.example.com:443:{}', 'auth.example.com:80:{}']
        ",
        outside.https[0], outside.http[0]
    );
    let edge = Edge::start_in(dir, &settings, |_| {});
    let mut person = Peer::browser("page.mjs", &[]);
    let kept_ones = concat!(env!("CARGO_MANIFEST_DIR"), "/.github/pictures");
    let pictures = if updates() { kept_ones } else { env!("CARGO_TARGET_TMPDIR") };
    person.tell(&json!({
        "url": format!("http://{}/self-check", edge.http[0]),
        "width": 940,
        "scheme": "light",
        "shot": Path::new(pictures).join("self-check.png"),
        "untouched": true,
    }));
    let seen = person.hear();
    let (text, policy) = (seen["text"].as_str().unwrap(), seen["policy"].as_str().unwrap());
    // When it was made, and how long it took, is another at each run.
    let is_moment = |line: &&str| line.ends_with(" ms") && line.contains(" UTC in ");
    let lines = text.lines().filter(|line| !is_moment(line)).chain(["", policy, ""]);
    let text = lines.collect::<Vec<_>>().join("\n");
    kept(".github/pictures/self-check.txt", &text).unwrap_or_else(|it| panic!("{it}"));
}
