//! Callbacks in frameworks: for each, correct ones, what its users write, and what goes wrong.

use super::servers::{self, files_of};
use super::{Case, Group, Row};
use crate::peer::{Peer, script};
use std::fs;
use std::path::Path;

pub(super) const GROUPS: [fn() -> Group; 10] =
    [next, express, koa, hono, fastify, aiohttp, flask, django, fastapi, others];

fn source(file: &str) -> String {
    fs::read_to_string(script(&format!("foreign/{file}"))).unwrap()
}

fn group(server: &'static str, peer: Peer, rows: &[Row]) -> Group {
    let cases = Case::of_program(server, "", peer.address("plain"), rows);
    Group { cases, peers: vec![peer], ..Group::default() }
}

#[rustfmt::skip]
fn next() -> Group {
    let files = files_of(Path::new(&script("foreign/next")));
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let peer = servers::next(&files);
    let mut group = group("Next.js", peer, &[
        ("config_no_store", &["bytes", "cacheable"], &["redirect.cache"]),
        ("config", &["bytes", "cacheable"], &["redirect.cache"]),
        ("config_temporary", &["bytes", "status 307"], &["!redirect.status"]),
        ("config_code", &["values"], &["redirect.parameters", "~redirect.query", "~!redirect.encoding"]),
        ("handler", &["bytes"], &[]),
        ("handler_redirect", &["bytes", "status 307"], &["!redirect.status"]),
        ("handler_set", &["bytes", "values"], &["redirect.parameters", "~!redirect.encoding"]),
        ("handler_permanent", &["bytes", "cacheable"], &["redirect.cache"]),
        ("page", &["values"], &["redirect.parameters"]),
    ]);
    let address = group.cases[0].addresses[0];
    group.cases.extend(Case::of_program("Next.js pages", "/api", address, &[
        ("raw", &["bytes"], &[]),
        ("redirect", &["bytes", "cacheable"], &["redirect.cache"]),
        ("rebuilt", &["values"], &["redirect.parameters"]),
    ]));
    group
}

#[rustfmt::skip]
fn express() -> Group {
    let (peer, twin) = (servers::node(&source("express.mjs")), servers::node(&source("express.mjs")));
    let mut group = group("Express", peer, &[
        ("correct", &[], &[]),
        ("redirect", &[], &[]),
        ("helmet_off", &[], &[]),
        ("no_forms", &[], &[]),
        ("form_page", &[], &[]),
        ("form_crash", &[], &[]),
        ("endless", &[], &[]),
        ("temporary", &["status 302"], &["!redirect.status"]),
        ("helmet_referrer", &["referrer"], &["!redirect.referrer"]),
        ("cached", &["cacheable"], &["redirect.cache"]),
        ("rebuilt", &["bytes", "values"], &["redirect.parameters"]),
        ("picked", &["values"], &["redirect.parameters"]),
        ("decoded", &["values"], &["redirect.parameters"]),
        ("helmet", &["opener", "referrer"], &["redirect.coop", "!redirect.referrer"]),
        ("relative_scheme", &["elsewhere"], &["redirect.target"]),
        ("refresh", &["page"], &["redirect.page"]),
        ("script", &["page"], &["redirect.page"]),
        ("cookie_wall", &["cookie wall"], &["redirect.loop"]),
        ("cookie_page", &["cookie wall"], &["redirect.page"]),
        ("cookie_forbidden", &["cookie wall"], &["redirect.page"]),
        ("login", &["elsewhere"], &["redirect.target"]),
        ("no_programs", &["programs"], &["!redirect.clients"]),
        ("same_site", &["direct visits only"], &["redirect.status|redirect.blocked"]),
        ("flaky", &["intermittent"], &["redirect.answer"]),
        ("limited", &["limited"], &["?*"]),
    ]);
    for case in &mut group.cases {
        case.twin = (case.variant == "limited").then(|| twin.address("plain"));
    }
    group.peers.push(twin);
    group
}

#[rustfmt::skip]
fn koa() -> Group {
    group("Koa", servers::node(&source("koa.mjs")), &[
        ("correct", &[], &[]),
        ("redirect", &[], &[]),
        ("search", &[], &[]),
        ("rebuilt", &["bytes", "values"], &["redirect.parameters"]),
    ])
}

#[rustfmt::skip]
fn hono() -> Group {
    group("Hono", servers::node(&source("hono.mjs")), &[
        ("correct", &[], &[]),
        ("redirect", &[], &[]),
        ("web", &[], &[]),
        ("rebuilt", &["bytes", "values"], &["redirect.parameters"]),
    ])
}

#[rustfmt::skip]
fn fastify() -> Group {
    group("Fastify", servers::node(&source("fastify.mjs")), &[
        ("correct", &[], &[]),
        ("redirect", &[], &[]),
        ("rebuilt", &["bytes", "values"], &["redirect.parameters"]),
    ])
}

#[rustfmt::skip]
fn aiohttp() -> Group {
    group("aiohttp", servers::python(&source("aiohttp_app.py")), &[
        ("correct", &[], &[]),
        ("redirect", &["bytes"], &[]),
        ("endless", &[], &[]),
        ("decoded", &["values"], &["redirect.parameters"]),
        ("rebuilt", &["bytes", "values"], &["redirect.parameters"]),
    ])
}

#[rustfmt::skip]
fn flask() -> Group {
    group("Flask", servers::python(&source("flask_app.py")), &[
        ("correct", &[], &[]),
        ("redirect", &["bytes"], &[]),
        ("default", &["bytes", "status 302"], &["!redirect.status"]),
        ("args", &["bytes", "values"], &["redirect.parameters"]),
        ("decoded", &["bytes", "values"], &["redirect.parameters"]),
    ])
}

#[rustfmt::skip]
fn django() -> Group {
    group("Django", servers::python(&source("django_app.py")), &[
        ("correct", &[], &[]),
        ("redirect", &["status 302"], &["!redirect.status"]),
        ("encoded", &["bytes"], &[]),
        ("permanent", &["cacheable", "status 301"], &["redirect.cache", "!redirect.status"]),
        ("usual", &["opener", "referrer"], &["redirect.coop", "!redirect.referrer"]),
        ("dictionary", &["bytes", "values"], &["redirect.parameters"]),
    ])
}

#[rustfmt::skip]
fn fastapi() -> Group {
    group("FastAPI", servers::python(&source("fastapi_app.py")), &[
        ("correct", &[], &[]),
        ("redirect", &[], &[]),
        ("default", &["status 307"], &["!redirect.status"]),
        ("params", &["bytes"], &[]),
        ("typed", &["refused 422", "values"], &["redirect.parameters", "redirect.blocked"]),
    ])
}

#[rustfmt::skip]
fn others() -> Group {
    let go = servers::go(&source("main.go"));
    let php = servers::php(&source("callback.php"));
    let rack = servers::rack(&source("config.ru"));
    let mut cases = Case::of_program("Go", "", go.address("plain"), &[
        ("correct", &[], &[]),
        ("redirect", &[], &[]),
        ("endless", &[], &[]),
        ("found", &["status 302"], &["!redirect.status"]),
        ("moved", &["cacheable", "status 301"], &["redirect.cache", "!redirect.status"]),
        ("encoded", &["bytes", "values"], &["redirect.parameters"]),
        ("first", &["bytes", "values"], &["redirect.parameters"]),
        ("unescaped", &["values"], &["redirect.parameters"]),
    ]);
    cases.extend(Case::of_program("PHP", "", php.address("plain"), &[
        ("correct", &[], &[]),
        ("default", &["status 302"], &["!redirect.status"]),
        ("cached", &["cacheable"], &["redirect.cache"]),
        ("session", &["cookie"], &["!redirect.cookie"]),
        ("built", &["bytes", "values"], &["redirect.parameters"]),
        ("decoded", &["values"], &["redirect.parameters"]),
        ("code", &["values"], &["redirect.query"]),
        ("exit", &["values"], &["redirect.query"]),
    ]));
    cases.extend(Case::of_program("Rack", "", rack.address("plain"), &[
        ("correct", &[], &[]),
        ("cookie", &["cookie"], &["!redirect.cookie"]),
        ("moved", &["cacheable", "status 301"], &["redirect.cache", "!redirect.status"]),
        ("built", &["bytes", "values"], &["redirect.parameters"]),
        ("picked", &["values"], &["redirect.parameters"]),
    ]));
    Group { cases, peers: vec![go, php, rack], ..Group::default() }
}
