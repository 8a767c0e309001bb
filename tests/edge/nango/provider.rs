//! A provider that knows the callbacks of its clients.

use crate::fakes::{Act, Behaviour, Reply, behaviour};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// What the provider knows; may change while it runs.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// The registered callbacks of each client.
    pub(crate) callbacks: BTreeMap<String, BTreeSet<String>>,
    /// Whether it responds 503.
    pub(crate) is_down: bool,
}

pub(crate) type Registry = Arc<Mutex<Clients>>;

pub(crate) fn registry(clients: &[(&str, &[&str])]) -> Registry {
    let clients = clients
        .iter()
        .map(|(id, uris)| ((*id).to_owned(), uris.iter().map(|it| (*it).to_owned()).collect()));
    Arc::new(Mutex::new(Clients { callbacks: clients.collect(), is_down: false }))
}

/// Records each request.
pub(crate) fn provider(registry: &Registry, received: &Arc<Mutex<Vec<String>>>) -> Behaviour {
    let (registry, received) = (Arc::clone(registry), Arc::clone(received));
    behaviour(move |request| {
        let query = request.query.clone().unwrap_or_default();
        received.lock().unwrap().push(format!("{}?{query}", request.path));
        let value = |wanted: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
        };
        let registry = registry.lock().unwrap();
        let registered = value("client_id").and_then(|id| registry.callbacks.get(&id));
        let uri = value("redirect_uri").unwrap_or_default();
        if registry.is_down {
            return Act::Reply(Reply::page(503, "try again later"));
        }
        Act::Reply(match registered {
            None => Reply::page(400, "<h1>Error: invalid_client</h1><p>unknown client</p>"),
            Some(uris) if uris.contains(&uri) => {
                Reply::new(302).with("location", "/login?continue=1")
            }
            Some(_) => Reply::page(
                400,
                "<h1>Error: redirect_uri_mismatch</h1><p>The redirect_uri is not registered</p>",
            ),
        })
    })
}
