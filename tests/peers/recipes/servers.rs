//! Web servers and proxies.

use super::{Case, browser_signs_in_through, exchange, verify};
use crate::foreign::servers::{apache, lighttpd};
use crate::peer::Peer;
use crate::support::PATIENCE;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case {
        place: "nginx",
        start: |dir| {
            Peer::nginx(&with_files(
                dir,
                "http {
                    server {
                        listen 127.0.0.1:{port:plain};
                        add_header Cross-Origin-Opener-Policy same-origin always;
                        include {files}/snippets/nango-callback.conf;
                    }
                }",
            ))
        },
        warns: &[],
        wrong: &[
            ("snippets/nango-callback.conf", "$is_args$args", "$request_uri", &["redirect.target"]),
            ("snippets/nango-callback.conf", "$is_args$args", "", &["redirect.query"]),
            (
                "snippets/nango-callback.conf",
                "add_header",
                "# add_header",
                &["redirect.cache", "redirect.coop"],
            ),
        ],
    },
    Case {
        place: "apache",
        start: |dir| {
            apache(&with_files(
                dir,
                "Listen 127.0.0.1:{port:plain}
                <VirtualHost *>
                    Header always set Cross-Origin-Opener-Policy same-origin
                    Include {files}/nango-callback.conf
                </VirtualHost>",
            ))
        },
        warns: &[],
        wrong: &[
            ("nango-callback.conf", "[R=308,L]", "[R=308,L,QSD]", &["redirect.query"]),
            ("nango-callback.conf", "always unset", "onsuccess unset", &["redirect.coop"]),
        ],
    },
    Case {
        place: "haproxy",
        start: |dir| {
            let frontend = "
                global
                    tune.bufsize 65536
                defaults
                    mode http
                    timeout client 20s
                    timeout connect 20s
                    timeout server 20s
                frontend own
                    bind 127.0.0.1:{port:plain}
                    use_backend nango-callback if { path /oauth/callback /app-auth/connect }";
            Peer::serve("haproxy", "haproxy.cfg", frontend, |command, file| {
                command.args(["-db", "-f"]).arg(file);
                command.arg("-f").arg(dir.join("nango-callback.cfg"));
            })
        },
        warns: &[],
        wrong: &[
            ("nango-callback.cfg", "?%[query]", "%HQ", &["redirect.target"]),
            ("nango-callback.cfg", " hdr Cache-Control no-store", "", &["redirect.cache"]),
        ],
    },
    Case {
        place: "caddy",
        start: |dir| {
            Peer::caddy(&with_files(
                dir,
                "http://localhost:{port:plain}, http://recipe.localhost:{port:plain} {
                    header Cross-Origin-Opener-Policy same-origin
                    import {files}/nango-callback.caddy
                }",
            ))
        },
        warns: &[],
        wrong: &[
            ("nango-callback.caddy", "?{http.request.uri.query}", "", &["redirect.query"]),
            ("nango-callback.caddy", "\" 308", "\" permanent", &["!redirect.status"]),
        ],
    },
    Case {
        place: "lighttpd",
        start: |dir| {
            lighttpd(&with_files(
                dir,
                // The first settings are those of Debian.
                "server.modules = ( \"mod_indexfile\", \"mod_access\", \"mod_alias\", \"mod_redirect\" )
                server.http-parseopts = ( \"url-normalize-unreserved\" => \"enable\" )
                server.port = {port:plain}\ninclude \"{files}/nango-callback.conf\"",
            ))
        },
        warns: &[],
        wrong: &[
            (
                "nango-callback.conf",
                "\"url-normalize\" => \"disable\"",
                "\"url-normalize-unreserved\" => \"enable\"",
                &["!redirect.encoding", "redirect.blocked"],
            ),
            ("nango-callback.conf", "${qsa}", "", &["redirect.query"]),
        ],
    },
    Case {
        place: "traefik",
        start: |dir| {
            let text = "
entryPoints: { web: { address: \"127.0.0.1:{port:plain}\" } }
providers: { file: { directory: \"{files}\" } }
";
            let text = with_files(dir, text);
            let traefik = Peer::serve("traefik", "traefik.yaml", &text, |command, file| {
                command.arg(format!("--configFile={}", file.display()));
            });
            // It listens before it has read the routers.
            let started = Instant::now();
            while exchange(traefik.address("plain"), "GET /oauth/callback HTTP/1.1\r\n", "")
                .starts_with("HTTP/1.1 404 ")
            {
                assert!(started.elapsed() < PATIENCE, "no router");
                std::thread::sleep(Duration::from_millis(5));
            }
            traefik
        },
        warns: &["redirect.status"],
        wrong: &[("nango-callback.yaml", "${1}", "", &["redirect.query"])],
    },
    Case {
        place: "envoy",
        start: |dir| {
            let routes = fs::read_to_string(dir.join("nango-callback.yaml")).unwrap();
            let routes = routes.replace('\n', "\n              ");
            let text = "
static_resources:
  listeners:
  - address: { socket_address: { address: 127.0.0.1, port_value: {port:plain} } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          http_filters:
          - name: envoy.filters.http.router
            typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
          route_config:
            most_specific_header_mutations_wins: true
            virtual_hosts:
            - name: own
              domains: [\"*\"]
              response_headers_to_add: [{ header: { key: Cross-Origin-Opener-Policy, value: same-origin } }]
              routes:
              {routes}
";
            Peer::serve(
                "envoy",
                "envoy.yaml",
                &text.replace("{routes}", &routes),
                |command, file| {
                    command.args([
                        "--use-dynamic-base-id",
                        "--concurrency",
                        "1",
                        "-l",
                        "error",
                        "-c",
                    ]);
                    command.arg(file);
                },
            )
        },
        warns: &[],
        wrong: &[
            (
                "nango-callback.yaml",
                "PERMANENT_REDIRECT",
                "PERMANENT_REDIRECT\n    strip_query: true",
                &["redirect.query"],
            ),
            (
                "nango-callback.yaml",
                "    response_code: PERMANENT_REDIRECT\n",
                "",
                &["!redirect.status"],
            ),
        ],
    },
];

/// A configuration that includes the files of the recipe.
fn with_files(dir: &Path, configuration: &str) -> String {
    configuration.replace("{files}", &dir.display().to_string())
}

#[test]
fn web_servers_and_proxies_pass_and_their_wrong_forms_are_reported() {
    verify(CASES);
}

#[test]
fn a_browser_signs_in_through_nginx() {
    browser_signs_in_through(&CASES[0], &[("query", 308)]);
}
