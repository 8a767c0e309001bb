//! A callback as users reach it: a name in `/etc/hosts`, nginx with the shipped configuration, the server, and a Nango.

use crate::fakes::{self, Act, Reply, behaviour};
use crate::peer::Peer;
use crate::support::port::Port;
use crate::support::{Authority, Edge, certified, free};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub(super) const HOST: &str = "auth.example.test";

/// Gives the process its own `/etc/hosts`, and does not change its id.
const OWN_HOSTS: &str = r#"
    exec unshare --mount sh -c 'mount --bind hosts /etc/hosts; exec "$0" "$@"' "$0" "$@"
"#;

pub(super) struct Site {
    pub(super) edge: Edge,
    authority: Authority,
    /// Where nginx listens, also while it is replaced.
    port: Port,
    front: Option<Peer>,
    nango: Arc<AtomicUsize>,
}

/// What nginx does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Front {
    Correct,
    /// It has the certificate of another name.
    WrongCertificate,
    /// It decodes a part of the query, and encodes it in another way.
    Reencoding,
}

/// What is at the address of Nango.
#[derive(Clone, Copy)]
pub(super) enum Nango {
    Correct,
    Overloaded,
    /// Another server.
    Other,
}

impl Site {
    pub(super) async fn open() -> Self {
        let (authority, dir) = certified(&[HOST]);
        let port = free();
        let nango = Arc::new(AtomicUsize::new(Nango::Correct as usize));
        let address = fakes::plain(behaviour({
            let nango = Arc::clone(&nango);
            move |request| match nango.load(Relaxed) {
                0 => fakes::nango(request),
                1 => Act::Reply(Reply::page(503, "overloaded")),
                _ => Act::Reply(Reply::page(404, "Welcome")),
            }
        }))
        .await;
        fs::write(dir.path().join("hosts"), hosts("127.0.0.1")).unwrap();
        let settings = format!(
            "
            public_url = 'https://{HOST}:{}'
            nango.url = 'http://{address}'
            listen.http = '127.0.0.1:0'
            listen.admin = '127.0.0.1:0'
            listen.trusted_proxies = '127.0.0.1/32'
            self_check.every = '1s'
            self_check.root_ca = '{{dir}}/ca.pem'
            [[route]]
            path = '/oauth/callback'
            ",
            port.port()
        );
        let edge = Edge::start_from_shell(dir, &settings, OWN_HOSTS, |_| {});
        let mut site = Self { edge, authority, port, front: None, nango };
        site.front(Front::Correct);
        site
    }

    /// Replaces nginx.
    pub(super) fn front(&mut self, front: Front) {
        // The old one releases the port first.
        self.front = None;
        let name = if front == Front::WrongCertificate { "other.example.test" } else { HOST };
        let dir = self.edge.dir();
        self.authority.write(dir, "front", &[name]);
        let path = |name: &str| dir.join(name).display().to_string();
        let common = include_str!("../../../deploy/proxies/callback-edge.proxy");
        fs::write(dir.join("callback-edge.proxy"), common).unwrap();
        let listen = format!("listen 127.0.0.1:{{port:own}};\n    listen {} ", *self.port);
        // Without comments, which contain the texts below too.
        let server = include_str!("../../../deploy/proxies/nginx.conf").lines();
        let server = server.map(|line| line.split('#').next().unwrap());
        let mut server = server.collect::<Vec<_>>().join("\n");
        for (old, new) in [
            ("listen 443 ", listen.as_str()),
            ("/etc/nginx/auth.example.com.pem", &path("front.pem")),
            ("/etc/nginx/auth.example.com.key", &path("front.key")),
            ("/etc/nginx/callback-edge.proxy", &path("callback-edge.proxy")),
            ("127.0.0.1:8080", &self.edge.http[0].to_string()),
            ("server_name auth.example.com", &format!("server_name {HOST}")),
        ] {
            assert!(server.contains(old), "{old}");
            server = server.replace(old, new);
        }
        if front == Front::Reencoding {
            let rule = r#"if ($args ~ "^(.*)%2F(.*)$") { set $args $1/$2; }"#;
            server = server.replacen("location", &format!("{rule}\n    location"), 1);
        }
        self.front = Some(Peer::nginx(&format!("http {{\n{server}}}")));
    }

    /// Changes the address of the name.
    pub(super) fn point(&self, address: &str) {
        // In place, because the file is mounted.
        fs::write(self.edge.dir().join("hosts"), hosts(address)).unwrap();
    }

    pub(super) fn nango(&self, nango: Nango) {
        self.nango.store(nango as usize, Relaxed);
    }
}

fn hosts(address: &str) -> String {
    format!("127.0.0.1 localhost\n{address} {HOST}\n")
}
