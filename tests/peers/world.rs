//! What a login and a preflight need: a stand-in for Nango, and an edge that redirects to it.

use crate::peer::Peer;
use crate::support::{Edge, certified, settings};
use serde_json::{Value, json};

/// Nango, and an edge with a certificate. To a browser they are two sites.
pub(crate) struct World {
    pub(crate) nango: Peer,
    pub(crate) nango_origin: String,
    /// Its folder has the certificate in `edge.pem`, and who signed it in `ca.pem`.
    pub(crate) edge: Edge,
    pub(crate) callback: String,
    /// Origins of others that a preflight must reach.
    pub(crate) hosts: Vec<String>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut nango = Peer::node("nango/server.mjs", &[]);
        let nango_origin = format!("http://nango.localhost:{}", nango.receive()["port"]);
        let (_, dir) = certified(&["edge.localhost"]);
        let settings = settings::tls(&format!(
            "
            public_url = 'https://edge.localhost'
            nango.url = '{nango_origin}'
            [[route]]
            host = 'edge.localhost'
            path = '/oauth/callback'
            [[route]]
            host = 'edge.localhost'
            path = '/app-auth/connect'
            "
        ));
        let edge = Edge::start_in(dir, &settings, |_| {});
        let callback = format!("https://edge.localhost:{}/oauth/callback", edge.https[0].port());
        Self { nango, nango_origin, edge, callback, hosts: Vec::new() }
    }

    /// A person at a browser that takes the edge's certificate.
    pub(crate) fn person(&self) -> Peer {
        let certificate = self.edge.dir().join("edge.pem").display().to_string();
        Peer::browser("browser.mjs", &[&certificate])
    }

    /// Nango's own callback.
    pub(crate) fn old(&self) -> String {
        format!("{}/oauth/callback", self.nango_origin)
    }

    /// Nango's URL for programs that do not resolve names below `localhost`.
    pub(crate) fn by_address(&self) -> String {
        self.nango_origin.replace("nango.localhost", "127.0.0.1")
    }

    /// Saves settings at Nango.
    pub(crate) fn save(&mut self, settings: &Value) {
        self.nango.send(settings);
        loop {
            let said = self.nango.receive();
            if said == json!({ "settings": "saved" }) {
                return;
            }
            // The check's own visits to the callback.
            assert!(said.get("arrived").is_some(), "{said}");
        }
    }
}
