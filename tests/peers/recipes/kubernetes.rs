//! Kubernetes: manifests against the schemas; the snippets of an Ingress in nginx.

use super::{Case, verify, write};
use crate::deploy::{documents, validate};
use crate::peer::Peer;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// The recipes whose manifests are validated.
pub(super) const VALIDATED: &[&str] = &["ingress-nginx", "gateway-api"];

pub(super) const CASES: &[Case] = &[Case {
    place: "ingress-nginx",
    start: controller,
    warns: &[],
    wrong: &[
        ("nango-callback.yaml", "$is_args$args", "", &["redirect.query"]),
        ("nango-callback.yaml", "add_header", "# add_header", &["redirect.cache"]),
    ],
}];

/// nginx with a location for each path, as the template of the controller writes it.
fn controller(dir: &Path) -> Peer {
    let manifests = fs::read_to_string(dir.join("nango-callback.yaml")).unwrap();
    let locations = manifests.split("---\n").skip(1).map(|manifest| {
        let (_, rest) = manifest.split_once("configuration-snippet: |\n").unwrap();
        let (snippet, rest) = rest.split_once("spec:\n").unwrap();
        let path = rest.split("- path: \"").nth(1).unwrap().split('"').next().unwrap();
        format!("location = {path} {{ {snippet} }}\n")
    });
    let locations: String = locations.collect();
    Peer::nginx(&format!(
        "http {{
            large_client_header_buffers 4 32k;
            server {{ listen 127.0.0.1:{{port:plain}}; {locations} }}
        }}"
    ))
}

#[test]
fn manifests_match_their_schemas() {
    for place in VALIDATED {
        let dir = TempDir::new().unwrap();
        let [callback, target] = ["auth.example.com", "api.nango.dev"]
            .map(|host| format!("https://{host}/oauth/callback"));
        write(place, &callback, &target, &dir);
        let text = fs::read_to_string(dir.path().join("nango-callback.yaml")).unwrap();
        let (builtin, custom) = validate(documents(&text));
        assert!(builtin + custom > 0);
        // A status that the schema does not have is noticed.
        if *place == "gateway-api" {
            let wrong = text.replace("statusCode: 308", "statusCode: 309");
            assert!(std::panic::catch_unwind(|| validate(documents(&wrong))).is_err());
        }
    }
}

#[test]
fn snippets_of_an_ingress_pass_and_their_wrong_forms_are_reported() {
    verify(CASES);
}
