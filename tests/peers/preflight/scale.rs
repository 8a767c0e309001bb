//! Many integrations.

use super::{API_KEY, integration, states, template};
use crate::peer::Peer;
use crate::support::check;
use crate::world::World;
use serde_json::json;
use std::time::Instant;

#[test]
fn three_hundred_integrations_on_forty_hosts_are_probed_concurrently() {
    let mut world = World::new();
    let (old, callback) = (world.old(), world.callback.clone());
    let mut kinds = Peer::node("kinds.mjs", &[&old, &callback, "280"]);
    let port = kinds.receive()["port"].clone();
    let mut templates = serde_json::Map::new();
    for host in 0..40 {
        let origin = format!("http://p{host}.localhost:{port}");
        templates.insert(format!("p{host}"), template(&format!("{origin}/auth")));
        world.hosts.push(origin);
    }
    let integrations: Vec<_> = (0..300)
        .map(|number| {
            // The last twenty use the same apps and hosts as previous ones.
            let app = number % 280;
            let mut one = integration(&format!("app-{number}"), &format!("p{}", app % 40));
            one["client_id"] = json!(format!("app-{app}"));
            one
        })
        .collect();
    world.save(&json!({
        "callback": old,
        "keys": { API_KEY: "all" },
        "templates": templates,
        "integrations": integrations,
    }));
    let began = Instant::now();
    let (exit, report) = world.report(&["--dry-run"]);
    println!("300 integrations, dry: {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!((exit, states(&report).len()), (Some(2), 300));
    assert!(states(&report).values().all(|state| state == "not_asked"));
    kinds.send(&json!({ "requests": true }));
    assert_eq!(kinds.receive()["requests"], json!({}), "a dry run sends no probe");
    assert!(!world.requests().contains_key("POST /connect/sessions"));

    // 7 apps on a host, 12 probes each, every 100 ms: 8.4 s on the busiest host; one host after the
    // other, 280 apps take 336 s.
    let began = Instant::now();
    let (exit, report) = world.report(&["--pause", "100ms"]);
    let took = began.elapsed();
    println!("300 integrations over 40 hosts, 100 ms apart: {:.1} s", took.as_secs_f64());
    assert_eq!(exit, Some(1));
    let states = states(&report);
    let wrong: Vec<_> = (0..300)
        .filter_map(|number| {
            let key = format!("app-{number}");
            let right = if number % 2 == 0 { "registered" } else { "not_registered" };
            (states[&key] != right)
                .then(|| format!("{:#}", check(&report, &format!("integration.{key}"))))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(took.as_secs() < 336 / 2, "{took:?}");
    kinds.send(&json!({ "requests": true }));
    let sent = kinds.receive()["requests"].clone();
    let sent = sent.as_object().unwrap();
    assert_eq!(sent.len(), 280 * 5, "five callbacks for each app, once for each app");
    // The new callback is sent most often.
    for (probe, times) in sent {
        assert!(times.as_u64().unwrap() <= 5, "{probe}: {times}");
    }
    let requests = world.requests();
    assert_eq!(requests["POST /connect/sessions"], 1);
    let starts: Vec<_> =
        requests.iter().filter(|(path, _)| path.contains("/oauth/connect/")).collect();
    assert_eq!(starts.len(), 300);
    assert!(starts.iter().all(|(_, times)| **times == 1));
}
