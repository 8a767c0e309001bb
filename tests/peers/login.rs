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
    let (nango_origin, callback) = (world.nango_origin.clone(), world.callback.clone());

    let mut provider = Peer::node("provider.mjs", &[&callback]);
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

    for (mode, hop) in [("query", 308), ("form_post", 303)] {
        person.send(&json!({ "connect": format!(
            "{nango_origin}/oauth/connect/an-api?public_key=a-public-key&authorization_params%5Bresponse_mode%5D={mode}"
        )}));
        let result = person.receive();
        assert_eq!(
            result["message"],
            json!({
                "eventType": "nango_oauth_callback_success",
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
        match mode {
            "query" => assert_eq!(sent["query"], received),
            _ => assert_eq!(sent["fields"], json!(parameters)),
        }
        let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["code", "state", "iss", "accounts-server", "note"]);

        let hops: Vec<&Value> = result["hops"].as_array().unwrap().iter().collect();
        let [.., redirect, last] = hops[..] else { panic!("{hops:?}") };
        assert_eq!(redirect[0], hop, "{hops:?}");
        assert!(redirect[1].as_str().unwrap().starts_with(&callback), "{hops:?}");
        assert_eq!(*last, json!([200, format!("{nango_origin}/oauth/callback?{received}")]));

        let log = world.edge.stderr();
        for (name, value) in parameters {
            assert!(!log.contains(&value), "the log contains {name}:\n{log}");
        }
    }
    drop(person);
    let log = world.edge.finish();
    assert_eq!(log.matches("\"event\":\"request\"").count(), 2, "{log}");
}

fn pairs(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}
