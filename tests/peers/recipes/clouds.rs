//! Clouds: Workers in Cloudflare's own runtime, other functions with the documented events.

use super::{Case, browser_signs_in_through, verify};
use crate::peer::Peer;
use std::path::Path;

pub(super) const CASES: &[Case] = &[
    Case {
        place: "cloudflare-worker",
        start: worker,
        warns: &[],
        wrong: &[
            (
                "nango-callback.js",
                "target + query",
                "target + new URL(request.url).search.replaceAll(\"%20\", \"+\")",
                &["!redirect.encoding"],
            ),
            (
                "nango-callback.js",
                "return new Response(null, { status, ",
                "return Response.redirect(target + query, status, { ",
                &["redirect.cache"],
            ),
        ],
    },
    Case {
        place: "cloudfront",
        start: |dir| function(dir, "cloudfront", "nango-callback.js"),
        warns: &[],
        wrong: &[(
            "nango-callback.js",
            "request.rawQueryString()",
            "Object.entries(request.querystring).map(([name, it]) => `${name}=${it.value}`).join(\"&\")",
            &["redirect.parameters"],
        )],
    },
    Case {
        place: "lambda",
        start: |dir| function(dir, "lambda", "nango-callback.mjs"),
        warns: &[],
        wrong: &[(
            "nango-callback.mjs",
            "event.rawQueryString",
            "new URLSearchParams(event.queryStringParameters).toString()",
            &["!redirect.encoding", "redirect.parameters"],
        )],
    },
    Case {
        place: "vercel",
        start: |dir| function(dir, "fetch", "middleware.js"),
        warns: &[],
        wrong: &[(
            "middleware.js",
            "target + query",
            "`${target}?${new URL(request.url).searchParams}`",
            &["!redirect.encoding"],
        )],
    },
    Case {
        place: "netlify",
        start: |dir| function(dir, "fetch", "netlify/edge-functions/nango-callback.js"),
        warns: &[],
        wrong: &[(
            "netlify/edge-functions/nango-callback.js",
            ", \"Cache-Control\": \"no-store\"",
            "",
            &["redirect.cache"],
        )],
    },
];

/// The Worker in workerd.
fn worker(dir: &Path) -> Peer {
    let configuration = "
using Workerd = import \"/workerd/workerd.capnp\";
const config :Workerd.Config = (
  services = [(name = \"main\", worker = .callback)],
  sockets = [(name = \"http\", address = \"127.0.0.1:{port:plain}\", http = (), service = \"main\")],
);
const callback :Workerd.Worker = (
  modules = [(name = \"nango-callback.js\", esModule = embed \"/nango-callback.js\")],
  compatibilityDate = \"2026-11-01\",
);
";
    Peer::serve("workerd", "config.capnp", configuration, |command, file| {
        command.arg("serve").arg("-I").arg(dir).arg(file);
    })
}

/// A function of a cloud, called with the events that its provider documents.
fn function(dir: &Path, kind: &str, file: &str) -> Peer {
    let source = include_str!("functions.mjs");
    Peer::application("node", "functions.mjs", source, |command, script| {
        command.args(["--max-http-header-size=32768"]).arg(script).arg(kind).arg(dir.join(file));
    })
}

#[test]
fn functions_of_clouds_pass_and_their_wrong_forms_are_reported() {
    verify(CASES);
}

#[test]
fn a_browser_signs_in_through_a_cloudflare_worker() {
    browser_signs_in_through(&CASES[0], &[("query", 308), ("form_post", 303)]);
}
