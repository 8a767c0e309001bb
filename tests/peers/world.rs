//! The environment of the login and preflight tests: a fake Nango, and a server that redirects to it.

use crate::peer::Peer;
use crate::support::{Edge, certified, settings};
use serde_json::{Value, json};
use std::process::Command;

/// A fake Nango, and a server with a certificate. Two sites to a browser.
pub(crate) struct World {
    pub(crate) nango: Peer,
    pub(crate) nango_origin: String,
    /// Its directory contains the certificate in `edge.pem`, and its CA in `ca.pem`.
    pub(crate) edge: Edge,
    pub(crate) callback: String,
    /// Origins of other servers that a preflight connects to.
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

    /// A user with a browser that accepts the certificate of the server.
    pub(crate) fn person(&self) -> Peer {
        let certificate = self.edge.dir().join("edge.pem").display().to_string();
        Peer::browser("browser.mjs", &[&certificate])
    }

    /// Nango's own callback.
    pub(crate) fn old(&self) -> String {
        format!("{}/oauth/callback", self.nango_origin)
    }

    /// Nango's URL for programs that do not resolve subdomains of `localhost`.
    pub(crate) fn by_address(&self) -> String {
        self.nango_origin.replace("nango.localhost", "127.0.0.1")
    }

    /// Adds the address of each server, and the CA of the callback, to a command that sends requests.
    pub(crate) fn connect(&self, command: &mut Command) {
        command.args(["--ca", "ca.pem"]);
        let own = [self.nango_origin.as_str(), self.callback.as_str()];
        for url in own.into_iter().chain(self.hosts.iter().map(String::as_str)) {
            let url = url::Url::parse(url).unwrap();
            let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
            command.args(["--resolve", &format!("{server}:127.0.0.1")]);
        }
    }

    /// Requests what the fake Nango recorded.
    pub(crate) fn recorded(&mut self, what: &str) -> Value {
        self.nango.send(&json!({ what: true }));
        loop {
            let message = self.nango.receive();
            if let Some(recorded) = message.get(what) {
                return recorded.clone();
            }
        }
    }

    /// Changes the settings of the fake Nango.
    pub(crate) fn save(&mut self, settings: &Value) {
        self.nango.send(settings);
        loop {
            let message = self.nango.receive();
            if message == json!({ "settings": "saved" }) {
                return;
            }
            // Requests of the check to the callback.
            assert!(message.get("callback").is_some(), "{message}");
        }
    }
}
