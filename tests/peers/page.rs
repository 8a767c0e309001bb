//! The self-check page in a real browser.

use crate::peer::Peer;
use crate::support::Edge;
use serde_json::{Value, json};
use std::path::Path;

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
