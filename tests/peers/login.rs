//! The complete flow in a real browser: an app opens Nango's connect URL, a user logs in at a
//! provider, and the callback passes the server. App, Nango, provider and server are four sites to
//! the browser: each has its own subdomain of `localhost`.

use crate::peer::Peer;
use crate::world::World;
use serde_json::{Value, json};
use url::form_urlencoded;

#[test]
fn a_browser_login_reports_to_the_opener() {
    let mut world = World::new();
    let callback = world.callback.clone();
    let received = sign_in(&mut world, &callback, &[("query", 308), ("form_post", 303)], true);
    let log = world.edge.finish();
    for (name, value) in received {
        assert!(!log.contains(&value), "the log contains {name}:\n{log}");
    }
    assert_eq!(log.matches("\"event\":\"request\"").count(), 2, "{log}");
}

/// Signs in once with each response mode through this callback, which redirects to the Nango of the
/// world, with this status, and keeps every byte of the query, or every value. Returns the parameters that Nango received.
pub(crate) fn sign_in(
    world: &mut World,
    callback: &str,
    modes: &[(&str, u16)],
    keeps_bytes: bool,
) -> Vec<(String, String)> {
    let nango_origin = world.nango_origin.clone();
    let mut provider = Peer::node("provider.mjs", &[callback]);
    let provider_origin = format!("http://provider.localhost:{}", provider.receive()["port"]);
    world.save(&json!({
        "callback": callback,
        "templates": { "an-api": {
            "auth_mode": "OAUTH2",
            "authorization_url": format!("{provider_origin}/auth"),
            "token_url": format!("{provider_origin}/token"),
            "redirect_uri_metadata": ["accounts-server"],
        } },
        "integrations": [{
            "unique_key": "an-api",
            "provider": "an-api",
            "client_id": "nango",
            "client_secret": "a-secret-of-the-test",
            "scopes": "openid",
        }],
        "public_key": "a-public-key",
    }));

    let mut person = world.person();
    let mut all = Vec::new();
    for (mode, hop) in modes {
        person.send(&json!({ "connect": format!(
            "{nango_origin}/oauth/connect/an-api?public_key=a-public-key&authorization_params%5Bresponse_mode%5D={mode}"
        )}));
        let result = person.receive();
        assert_eq!(
            result["message"],
            json!({
                "eventType": "AUTHORIZATION_SUCCESS",
                "data": { "providerConfigKey": "an-api" },
            }),
            "{result:#}"
        );
        assert_eq!(result["origin"], nango_origin);

        // Exactly once, by GET, with the cookie of Nango's host.
        let received = world.nango.receive()["callback"].clone();
        assert_eq!(received["method"], "GET");
        assert_eq!(received["cookie"], true);
        let received = received["query"].as_str().unwrap();
        let parameters = pairs(received);
        let sent = provider.receive()["sent"].clone();
        match *mode {
            "query" if keeps_bytes => assert_eq!(sent["query"], received),
            "query" => assert_eq!(pairs(sent["query"].as_str().unwrap()), parameters),
            _ => assert_eq!(sent["fields"], json!(parameters)),
        }
        let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["code", "state", "iss", "accounts-server", "note"]);

        let hops: Vec<&Value> = result["hops"].as_array().unwrap().iter().collect();
        let [.., redirect, last] = hops[..] else { panic!("{hops:?}") };
        assert_eq!(redirect[0], *hop, "{hops:?}");
        assert!(redirect[1].as_str().unwrap().starts_with(callback), "{hops:?}");
        assert_eq!(*last, json!([200, format!("{nango_origin}/oauth/callback?{received}")]));
        all.extend(parameters);
    }
    all
}

fn pairs(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}
