//! Callbacks in the configuration of web servers and proxies, and applications behind them.

use super::{Case, Group, NANGO, servers};
use crate::peer::{Peer, script};
use crate::support::port::Port;
use crate::support::{certified, free};
use std::fs;
use std::net::SocketAddr;

pub(super) const GROUPS: [fn() -> Group; 9] =
    [limited, lighttpd, apache, nginx, haproxy, caddy, unsteady, addresses, protocols];

fn source(file: &str) -> String {
    fs::read_to_string(script(&format!("foreign/{file}"))).unwrap()
}

/// A variant, the facts, the expected ids, and the configuration.
type Row = (&'static str, &'static [&'static str], &'static [&'static str], &'static str);

/// One server for each configuration.
fn each(server: &'static str, rows: &[Row], start: impl Fn(&str) -> Peer) -> Group {
    let mut group = Group::default();
    for (variant, facts, expected, configuration) in rows {
        let peer = start(&configuration.replace("NANGO", NANGO));
        let address = peer.address("plain");
        group.cases.push(Case::new(server, address, &(variant, facts, expected)));
        group.peers.push(peer);
    }
    group
}

/// The address of an Express callback, `correct` or `flaky`.
fn upstream(group: &mut Group) -> SocketAddr {
    let peer = servers::node(&source("express.mjs"));
    let address = peer.address("plain");
    group.peers.push(peer);
    address
}

/// An address where nothing listens, as long as it is held.
fn dead() -> (Port, String) {
    let port = free();
    let address = port.to_string();
    (port, address)
}

#[rustfmt::skip]
fn lighttpd() -> Group {
    let rows: &[Row] = &[
        // It rejects the line breaks in error messages of Microsoft.
        ("qsa", &["bytes", "over 6 KiB", "refused 400"], &["redirect.blocked"],
         r#"url.redirect = ("^/([^?]*)" => "NANGO/$1${qsa}")"#),
        ("not_normalized", &["over 6 KiB"], &[],
         r#"server.http-parseopts = ("url-normalize" => "disable")
            url.redirect = ("^/([^?]*)" => "NANGO/$1${qsa}")"#),
        ("twice", &["values"], &["redirect.parameters"],
         r#"server.http-parseopts = ("url-normalize" => "disable")
            url.redirect = ("^/(.*)$" => "NANGO/$1${qsa}")"#),
        ("dropped", &["refused 400", "values"], &["redirect.query"],
         r#"url.redirect = ("^/([^?]*)" => "NANGO/$1")"#),
        ("cacheable", &["cacheable", "over 6 KiB"], &["redirect.cache"],
         r#"server.http-parseopts = ("url-normalize" => "disable")
            # cacheable
            url.redirect = ("^/([^?]*)" => "NANGO/$1${qsa}")"#),
    ];
    each("lighttpd", rows, |own| {
        let no_store = "setenv.set-response-header = (\"Cache-Control\" => \"no-store\")";
        let header = if own.contains("# cacheable") { "" } else { no_store };
        servers::lighttpd(&format!(
            "server.port = {{port:plain}}\nserver.modules = (\"mod_setenv\", \"mod_redirect\")\n\
             {header}\nurl.redirect-code = 308\n{own}\n"
        ))
    })
}

#[rustfmt::skip]
fn apache() -> Group {
    let rows: &[Row] = &[
        ("rewrite", &[], &[],
         "RewriteRule ^/(.*)$ NANGO/$1 [R=308,L]"),
        ("redirect", &[], &[],
         "Redirect 308 / NANGO/"),
        ("redirect_match", &[], &[],
         "RedirectMatch 308 ^/(.*)$ NANGO/$1"),
        // Encoded again, unless it is the query of the request without a `&` at its end.
        ("query_string", &["values"], &["redirect.encoding"],
         "RewriteRule ^/(.*)$ NANGO/$1?%{QUERY_STRING} [R=308,L]"),
        ("query_string_not_escaped", &["bytes"], &[],
         "RewriteRule ^/(.*)$ NANGO/$1?%{QUERY_STRING} [R=308,L,NE]"),
        ("appended", &["values"], &["redirect.parameters"],
         "RewriteRule ^/(.*)$ NANGO/$1?source=app [R=308,L,QSA,NE]"),
        ("discarded", &["values"], &["redirect.query"],
         "RewriteRule ^/(.*)$ NANGO/$1 [R=308,L,QSD]"),
        ("permanent", &["cacheable", "status 301"], &["redirect.cache", "!redirect.status"],
         "Header unset Cache-Control\nHeader always unset Cache-Control\nRewriteRule ^/(.*)$ NANGO/$1 [R=301,L]"),
        ("short_lines", &["size"], &["redirect.size"],
         "LimitRequestLine 5000\nRewriteRule ^/(.*)$ NANGO/$1 [R=308,L]"),
        ("no_links", &["direct visits only"], &["redirect.blocked"],
         "RewriteCond %{HTTP_REFERER} !^$\nRewriteCond %{HTTP_REFERER} !localhost\nRewriteRule ^ - [F]\nRewriteRule ^/(.*)$ NANGO/$1 [R=308,L]"),
        ("no_programs", &["programs"], &["!redirect.clients"],
         "RewriteCond %{HTTP_USER_AGENT} (curl|wget|python|Go-http|libwww) [NC]\nRewriteRule ^ - [F]\nRewriteRule ^/(.*)$ NANGO/$1 [R=308,L]"),
    ];
    each("Apache", rows, |own| {
        let long = if own.contains("LimitRequestLine") { "" } else { "LimitRequestLine 32768\n" };
        servers::apache(&format!(
            "Listen 127.0.0.1:{{port:plain}}\n{long}Header always set Cache-Control no-store\nRewriteEngine On\n{own}\n"
        ))
    })
}

fn nginx_with(http: &str, server: &str) -> Peer {
    let long = if http.contains("large_client_header_buffers") {
        ""
    } else {
        "large_client_header_buffers 4 32k;"
    };
    Peer::nginx(&format!(
        "http {{ {long} {http}
            server {{ listen 127.0.0.1:{{port:plain}}; add_header Cache-Control no-store always; {server} }} }}"
    ))
}

#[rustfmt::skip]
fn nginx() -> Group {
    let rows: &[Row] = &[
        ("correct", &[], &[],
         "; location / { return 308 NANGO$uri$is_args$args; }"),
        ("request_uri", &[], &[],
         "; location / { return 308 NANGO$request_uri; }"),
        ("default_buffers", &["over 6 KiB"], &[],
         "large_client_header_buffers 4 8k; location / { return 308 NANGO$request_uri; }"),
        ("buffers_of_4_KiB", &["size"], &["redirect.size"],
         "large_client_header_buffers 4 4k; location / { return 308 NANGO$request_uri; }"),
        ("buffers_of_5_KiB", &["size"], &["redirect.size"],
         "large_client_header_buffers 4 5k; location / { return 308 NANGO$request_uri; }"),
        ("buffers_of_6_KiB", &["size"], &["redirect.size"],
         "large_client_header_buffers 4 6k; location / { return 308 NANGO$request_uri; }"),
        ("relative_scheme", &["elsewhere"], &["redirect.hops|redirect.target"],
         "; location / { return 308 //api.nango.dev$request_uri; }"),
        ("rewrite", &["cacheable", "status 301"], &["redirect.cache", "!redirect.status"],
         "; location / { add_header X-By nginx; rewrite ^ NANGO$uri permanent; }"),
        ("code_and_state", &["values"], &["redirect.parameters"],
         "; location / { return 308 NANGO$uri?code=$arg_code&state=$arg_state; }"),
        ("no_links", &["direct visits only"], &["redirect.blocked"],
         "; location / { valid_referers none server_names localhost; if ($invalid_referer) { return 403; } return 308 NANGO$request_uri; }"),
        ("no_programs", &["programs"], &["!redirect.clients"],
         "; location / { if ($http_user_agent ~* (curl|python|Go-http|wget|axios)) { return 403; } return 308 NANGO$request_uri; }"),
        ("firewall", &["refused 403"], &["redirect.blocked"],
         "; location / { if ($args ~ https?://) { return 403; } return 308 NANGO$request_uri; }"),
        ("login", &["refused 401"], &["redirect.page|redirect.status"],
         "; location / { auth_basic closed; auth_basic_user_file /dev/null; try_files /none @redirect; } location @redirect { return 308 NANGO$request_uri; }"),
    ];
    each("nginx", rows, |own| {
        let (http, server) = own.split_once(';').unwrap();
        nginx_with(&if http.is_empty() { String::new() } else { format!("{http};") }, server)
    })
}

const HAPROXY: &str = "
defaults
  mode http
  timeout client 20s
  timeout connect 5s
  timeout server 20s
";

fn haproxy_with(bufsize: u32, frontend: &str) -> Peer {
    let frontend = frontend.replace("; ", "\n  ");
    Peer::haproxy(&format!(
        "global\n  tune.bufsize {bufsize}\n{HAPROXY}frontend callback\n  bind 127.0.0.1:{{port:plain}}\n  \
         http-after-response set-header Cache-Control no-store\n  {frontend}"
    ))
}

#[rustfmt::skip]
fn haproxy() -> Group {
    let rows: &[Row] = &[
        ("prefix", &[], &[],
         "65536 http-request redirect prefix NANGO code 308"),
        ("location", &[], &[],
         "65536 http-request redirect location NANGO%[path]?%[query] code 308 if { query -m found }; http-request redirect location NANGO%[path] code 308"),
        ("bare", &["bare `?`"], &[],
         "65536 http-request redirect location NANGO%[path]?%[query] code 308"),
        ("default_buffer", &[], &[],
         "16384 http-request redirect prefix NANGO code 308"),
        ("buffer_of_6_KiB", &["size"], &["redirect.size"],
         "6144 http-request redirect prefix NANGO code 308"),
        ("log_variable", &["size"], &["redirect.size|redirect.query"],
         "65536 http-request redirect location NANGO%[path]%HQ code 308"),
        ("drop_query", &["values"], &["redirect.query"],
         "65536 http-request redirect prefix NANGO drop-query code 308"),
        ("no_links", &["direct visits only"], &["redirect.blocked"],
         "65536 http-request deny if { req.hdr(referer) -m found } !{ req.hdr(referer) -m sub localhost }; http-request redirect prefix NANGO code 308"),
        ("no_programs", &["programs"], &["!redirect.clients"],
         "65536 http-request deny if { req.hdr(user-agent) -m sub -i curl python go-http }; http-request redirect prefix NANGO code 308"),
        ("firewall", &["refused 403"], &["redirect.blocked"],
         "65536 http-request deny if { query -m sub %0d %0a }; http-request redirect prefix NANGO code 308"),
    ];
    each("HAProxy", rows, |own| {
        let (bufsize, frontend) = own.split_once(' ').unwrap();
        haproxy_with(bufsize.parse().unwrap(), frontend)
    })
}

#[rustfmt::skip]
fn caddy() -> Group {
    let rows: &[Row] = &[
        ("uri", &[], &[], "redir NANGO{uri} 308"),
        ("query", &["bare `?`"], &[], "redir NANGO{path}?{query} 308"),
        ("temporary", &["status 302"], &["!redirect.status"], "redir NANGO{uri}"),
        ("placeholder", &["values"], &["redirect.query"], "redir NANGO{path}?{http.request.query} 308"),
        ("picked", &["values"], &["redirect.parameters"], "redir NANGO{path}?code={query.code}&state={query.state} 308"),
        ("no_links", &["direct visits only"], &["redirect.blocked"],
         "@links {\n header Referer *\n not header Referer http://localhost*\n }\n respond @links 403\n redir NANGO{uri} 308"),
    ];
    each("Caddy", rows, |own| Peer::caddy(&format!(
        "http://localhost:{{port:plain}} {{\n\tbind 127.0.0.1\n\theader Cache-Control no-store\n\troute {{\n {own}\n}}\n}}"
    )))
}

/// Applications of which a part of the requests fails, behind proxies.
#[rustfmt::skip]
fn unsteady() -> Group {
    let mut group = Group::default();
    let (held, dead) = dead();
    group.ports.push(held);
    let facts: &[&str] = &["intermittent"];
    let expected: &[&str] = &["redirect.answer"];
    for (variant, is_flaky, with_dead) in [("one of 13 requests fails", true, false), ("one of two is dead", false, true)] {
        let flow = if is_flaky { "/flaky" } else { "/correct" };
        let up = upstream(&mut group);
        let second = if with_dead { format!("server {dead} max_fails=0;") } else { String::new() };
        let nginx = nginx_with(
            &format!("upstream app {{ server {up} max_fails=0; {second} }}"),
            &format!("location / {{ proxy_next_upstream off; proxy_buffer_size 32k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k; proxy_pass http://app{flow}$request_uri; }}"),
        );
        group.cases.push(Case::new("nginx, Express", nginx.address("plain"), &(variant, facts, expected)));
        let up = upstream(&mut group);
        let second = if with_dead { format!("server b {dead}") } else { String::new() };
        let haproxy = Peer::haproxy(&format!(
            "global\n  tune.bufsize 65536\n{HAPROXY}  retries 0\nfrontend callback\n  bind 127.0.0.1:{{port:plain}}\n  default_backend app\n\
             backend app\n  http-request set-path {flow}%[path]\n  server a {up}\n  {second}"
        ));
        group.cases.push(Case::new("HAProxy, Express", haproxy.address("plain"), &(variant, facts, expected)));
        group.peers.extend([nginx, haproxy]);
    }
    group
}

#[rustfmt::skip]
fn limited() -> Group {
    let mut group = Group::default();
    let facts: &[&str] = &["limited"];
    let nginx = |status: u16| nginx_with(
        &format!("limit_req_zone $binary_remote_addr zone=all:1m rate=5r/s; limit_req_status {status};"),
        &format!("location / {{ limit_req zone=all burst=20 nodelay; try_files /none @redirect; }} location @redirect {{ return 308 {NANGO}$request_uri; }}"),
    );
    let haproxy = || haproxy_with(65536, &format!(
        "stick-table type ip size 1k expire 60s store http_req_rate(60s); http-request track-sc0 src; \
         http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 20 }}; http-request redirect prefix {NANGO} code 308"
    ));
    for (server, variant, peer, twin) in [
        ("nginx", "limit_req with 503", nginx(503), nginx(503)),
        ("nginx", "limit_req with 429", nginx(429), nginx(429)),
        ("HAProxy", "rate of requests", haproxy(), haproxy()),
    ] {
        let mut case = Case::new(server, peer.address("plain"), &(variant, facts, &["?*"]));
        case.twin = Some(twin.address("plain"));
        group.cases.push(case);
        group.peers.extend([peer, twin]);
    }
    group
}

/// Two addresses of which one is wrong.
#[rustfmt::skip]
fn addresses() -> Group {
    let mut group = Group::default();
    let mut one = |own: &str, http: &str| {
        let peer = nginx_with(http, &own.replace("NANGO", NANGO));
        let address = peer.address("plain");
        group.peers.push(peer);
        address
    };
    let good = one("location / { return 308 NANGO$request_uri; }", "");
    let rows = [
        ("one loses parameters", &["address 2: values"], one("location / { return 308 NANGO$uri?code=$arg_code&state=$arg_state; }", "")),
        ("one has short limits", &["address 2: size"], one("location / { return 308 NANGO$request_uri; }", "large_client_header_buffers 4 4k;")),
        ("one is another site", &["address 2: refused 404"], one("location / { return 404; }", "")),
        ("one has a firewall", &["address 2: refused 403"], one("location / { if ($args ~ https?://) { return 403; } return 308 NANGO$request_uri; }", "")),
    ];
    for (variant, facts, bad) in rows {
        let mut case = Case::new("nginx, 2 addresses", good, &(variant, facts, &["dns.alike"]));
        case.addresses.push(bad);
        group.cases.push(case);
    }
    group
}

/// Servers over TLS: one HTTP version that differs, and a Location without a scheme.
#[rustfmt::skip]
#[expect(clippy::type_complexity, reason = "a table")]
fn protocols() -> Group {
    let mut group = Group::default();
    let (_, dir) = certified(&["localhost"]);
    let certs = dir.path().display().to_string();
    let both = ["edge.pem", "edge.key"].map(|name| fs::read_to_string(dir.path().join(name)).unwrap());
    fs::write(dir.path().join("both.pem"), both.concat()).unwrap();
    let nginx = |own: &str| Peer::nginx(&format!(
        "http {{ large_client_header_buffers 4 32k; server {{ listen 127.0.0.1:{{port:plain}} ssl http2;
            ssl_certificate {certs}/edge.pem; ssl_certificate_key {certs}/edge.key;
            add_header Cache-Control no-store always; absolute_redirect off; {} }} }}", own.replace("NANGO", NANGO)
    ));
    let caddy = |protocols: &str, own: &str| Peer::serve("caddy", "Caddyfile", &format!(
        "{{\n admin off\n auto_https off\n servers {{\n protocols {protocols}\n }}\n}}\n\
         https://localhost:{{port:plain}} {{\n bind 127.0.0.1\n tls {certs}/edge.pem {certs}/edge.key\n header Cache-Control no-store\n {}\n}}\n", own.replace("NANGO", NANGO)
    ), |command, file| {
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
    });
    let haproxy = |alpn: &str, own: &str| Peer::haproxy(&format!(
        "global\n  tune.bufsize 65536\n{HAPROXY}frontend callback\n  bind 127.0.0.1:{{port:plain}} ssl crt {certs}/both.pem alpn {alpn}\n  \
         http-after-response set-header Cache-Control no-store\n  {}", own.replace("NANGO", NANGO)
    ));
    let both: &[&str] = &["h1", "h2"];
    let h2: &[&str] = &["h2"];
    let rows: [(&str, &str, &[&str], &[&str], &[&str], Peer); 9] = [
        ("nginx", "over TLS", both, &[], &[], nginx("location / { return 308 NANGO$request_uri; }")),
        ("nginx", "scheme-relative", both, &[], &[], nginx("location / { return 308 //api.nango.dev$request_uri; }")),
        ("Caddy", "scheme-relative", both, &[], &[], caddy("h1 h2", "redir * //api.nango.dev{uri} 308")),
        ("HAProxy", "scheme-relative", both, &[], &[], haproxy("h2,http/1.1", "http-request redirect prefix //api.nango.dev code 308")),
        ("Node", "HTTP/2 only", h2, &["HTTP/2 only"], &["!redirect.protocols"],
         servers::node(&source("http2_only.mjs").replace("CERTIFICATES", &certs))),
        ("HAProxy", "ALPN of HTTP/2 only", both, &[], &[], haproxy("h2", "http-request redirect prefix NANGO code 308")),
        ("nginx", "HTTP/1.1 is refused", both, &["h1: refused 426"], &["redirect.protocols"],
         nginx("location / { if ($server_protocol != HTTP/2.0) { return 426; } return 308 NANGO$request_uri; }")),
        ("nginx", "HTTP/1.1 loses parameters", both, &["h1: values"], &["redirect.protocols"],
         nginx("location / { if ($server_protocol = HTTP/1.1) { return 308 NANGO$uri?code=$arg_code&state=$arg_state; } return 308 NANGO$request_uri; }")),
        ("nginx", "HTTP/2 loses parameters", both, &["h2: values"], &["redirect.protocols"],
         nginx("location / { if ($server_protocol = HTTP/2.0) { return 308 NANGO$uri?code=$arg_code&state=$arg_state; } return 308 NANGO$request_uri; }")),
    ];
    for (server, variant, protocols, facts, expected, peer) in rows {
        let case = Case::new(server, peer.address("plain"), &(variant, facts, expected));
        group.cases.push(case.over_tls(dir.path(), protocols));
        group.peers.push(peer);
    }
    group.dirs.push(dir);
    group
}
