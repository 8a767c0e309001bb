//! The differential test against OAuth servers that this project did not write (`../oauth/`). What is
//! true of each callback is measured independently: a user completes a login with it. So is what can
//! be known before a login: the test compares statuses and locations with a client of its own.

use crate::peer::Peer;
use callback_edge::outbound::{Limits, Outbound, Resolver, Roots};
use callback_edge::preflight::differential::{Differential, ProbePolicy, ProbeRequest};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use url::Url;

const OLD: &str = "https://api.nango.dev/oauth/callback";
const NEW: &str = "https://auth.example.net/oauth/callback";
/// Registered nowhere.
const NOWHERE: &str = "https://quiet-harbor-lane.example.com/oauth/callback";
/// The new callback at the other replica.
const OTHER: &str = "https://auth.example.org/oauth/callback";
const UNKNOWN_APP: &str = "a1b2c3-unknown-app";

/// Packages, script, name, and the requests that it gets.
type Program = (&'static str, &'static str, &'static str, &'static [Variant]);

const PROGRAMS: [Program; 12] = {
    use Variant::{NoPkce, OtherScope, Plain, PromptNone};
    [
        ("django-old", "django_toolkit.py", "django-oauth-toolkit 1.7", &[Plain, PromptNone]),
        ("django-middle", "django_toolkit.py", "django-oauth-toolkit 2.4", &[Plain, PromptNone]),
        ("python", "django_toolkit.py", "django-oauth-toolkit 3.4", &[Plain, PromptNone, NoPkce]),
        ("django-oidc", "django_oidc.py", "django-oidc-provider", &[Plain, PromptNone, OtherScope]),
        ("python", "authlib_newest.py", "Authlib 1.9", &[Plain, NoPkce, OtherScope]),
        ("canaille", "canaille_server.py", "Canaille", &[Plain, PromptNone]),
        ("python", "mcp_python.py", "MCP SDK, Python", &[Plain, NoPkce, OtherScope]),
        ("oauth-node", "mcp_typescript.mjs", "MCP SDK, TypeScript", &[Plain, NoPkce]),
        ("oauth-node", "better_auth.mjs", "better-auth", &[Plain, PromptNone]),
        ("oauth-node", "node_oauth.mjs", "@node-oauth/oauth2-server", &[Plain]),
        ("oauth-node", "oauth2orize.mjs", "oauth2orize", &[Plain]),
        ("oauth-node", "workers.mjs", "workers-oauth-provider", &[Plain, NoPkce]),
    ]
};

/// How an authorization request differs from Nango's usual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Variant {
    Plain,
    /// With `prompt=none` (OpenID Connect Core §3.1.2.1).
    PromptNone,
    /// As of a template with `disable_pkce`.
    NoPkce,
    /// With a scope that the server does not have.
    OtherScope,
}

impl Variant {
    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::PromptNone => "prompt=none",
            Self::NoPkce => "no PKCE",
            Self::OtherScope => "unknown scope",
        }
    }
}

/// A client as its server reports it.
#[derive(Clone, Deserialize)]
struct Client {
    id: String,
    kind: String,
    /// The authorization endpoint.
    path: String,
    scope: String,
    registered: Vec<String>,
    /// The callbacks to which a user returned with a code.
    accepted: Vec<String>,
}

#[derive(Deserialize)]
struct Reported {
    port: u16,
    clients: Vec<Client>,
}

/// A server, or a proxy in front of one.
struct Server {
    name: String,
    port: u16,
    clients: Vec<Client>,
    variants: &'static [Variant],
    /// If something else than the registration decides about replies.
    evidence: Option<Evidence>,
    /// The registration is at one of two replicas.
    halved: bool,
}

struct Fleet {
    servers: Vec<Server>,
    _peers: Vec<Peer>,
}

/// Which callbacks complete a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Truth {
    Both,
    OnlyOld,
    OnlyNew,
    Neither,
    /// The new one at one of two replicas.
    Half,
    UnknownApp,
}

impl Truth {
    fn of(client: &Client, halved: bool) -> Self {
        let is_accepted = |callback: &str| client.accepted.iter().any(|it| it == callback);
        match (is_accepted(OLD), is_accepted(NEW)) {
            (_, true) if halved => Self::Half,
            (true, true) => Self::Both,
            (true, false) => Self::OnlyOld,
            (false, true) => Self::OnlyNew,
            (false, false) => Self::Neither,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::OnlyOld => "only old",
            Self::OnlyNew => "only new",
            Self::Neither => "neither",
            Self::Half => "half",
            Self::UnknownApp => "unknown app",
        }
    }
}

/// What the replies before a login contain about a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    Clear,
    /// A limit may hide it.
    Partial,
    None,
}

/// What a verdict is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    Right,
    /// Unknown, and nothing in the replies is evidence.
    HonestUnknown,
    /// Unknown, and the replies contain evidence.
    Missed,
    WrongSafe,
    WrongNotRegistered,
    /// True by chance: nothing in the replies is evidence.
    Unfounded,
}

impl Worth {
    /// By the name of a state, without its fields.
    fn of(truth: Truth, evidence: Evidence, state: &str) -> Self {
        // By likeness alone: it needs a confirmation by hand.
        let is_unproved = state == "PrefixMatch { proved: false }";
        let state = state.split([' ', '(']).next().unwrap();
        let is_safe =
            ["Registered", "DomainRegistered", "PrefixMatch", "Unenforced"].contains(&state);
        let is_right = match truth {
            Truth::Both | Truth::OnlyNew => is_safe,
            Truth::OnlyOld => state == "NotRegistered",
            Truth::Neither => ["NotRegistered", "RefusedAll"].contains(&state),
            Truth::UnknownApp => ["ClientRejected", "RefusedAll"].contains(&state),
            Truth::Half => false,
        };
        match truth {
            Truth::OnlyOld | Truth::Neither | Truth::Half | Truth::UnknownApp
                if is_safe && !is_unproved =>
            {
                Self::WrongSafe
            }
            Truth::Both | Truth::OnlyNew | Truth::Half if state == "NotRegistered" => {
                Self::WrongNotRegistered
            }
            _ if is_right && evidence != Evidence::None => Self::Right,
            _ if is_right && !is_unproved => Self::Unfounded,
            _ if evidence == Evidence::Clear => Self::Missed,
            _ => Self::HonestUnknown,
        }
    }

    const fn mark(self) -> &'static str {
        match self {
            Self::Right => "",
            Self::HonestUnknown => " ?",
            Self::Missed => " MISSED",
            Self::WrongSafe => " WRONG SAFE",
            Self::WrongNotRegistered => " WRONG NOT REGISTERED",
            Self::Unfounded => " UNFOUNDED",
        }
    }
}

/// A verdict on one callback.
struct Cell {
    server: String,
    kind: String,
    variant: Variant,
    truth: Truth,
    evidence: Evidence,
    state: String,
    reason: String,
    worth: Worth,
}

/// One table: server × kind of client × request × what is true.
#[test]
fn the_verdict_on_each_oauth_server_agrees_with_a_login() {
    let started = Instant::now();
    let Fleet { servers, _peers } = &Fleet::start();
    println!(
        "{} servers, with the proxies in front of some, in {:.0?}",
        servers.len(),
        started.elapsed()
    );
    let cells: Vec<Cell> = std::thread::scope(|scope| {
        let judging: Vec<_> = servers.iter().map(|server| scope.spawn(|| judge(server))).collect();
        judging.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    println!("{}", table(&cells));
    let count = |worth: Worth| cells.iter().filter(|cell| cell.worth == worth).count();
    let (decidable, others): (Vec<_>, Vec<_>) =
        cells.iter().partition(|cell| cell.evidence == Evidence::Clear);
    let right = decidable.iter().filter(|cell| cell.worth == Worth::Right).count();
    let decidable = decidable.len();
    println!(
        "{} cases, of which a login is not needed to decide {decidable}: {right} right, {} missed; \
        {} honest unknown; {} wrong \"safe\"; {} wrong \"not registered\"; {} without evidence; {:.0?}",
        cells.len(),
        count(Worth::Missed),
        count(Worth::HonestUnknown),
        count(Worth::WrongSafe),
        count(Worth::WrongNotRegistered),
        count(Worth::Unfounded),
        started.elapsed(),
    );
    let wrong: Vec<_> =
        cells.iter().filter(|cell| cell.worth > Worth::Missed).map(Cell::line).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A table without cases proves nothing.
    assert!(decidable >= 200 && others.len() >= 200, "{decidable} and {}", others.len());
    let missed: Vec<_> =
        cells.iter().filter(|cell| cell.worth == Worth::Missed).map(Cell::line).collect();
    println!("{}", missed.join("\n"));
    assert!(right * 10 >= decidable * 9, "{right} of {decidable}\n{}", missed.join("\n"));
}

impl Cell {
    fn line(&self) -> String {
        format!(
            "{}, {} {}: {} is {}{}: {}",
            self.server,
            self.kind,
            self.variant.name(),
            self.truth.name(),
            self.state,
            self.worth.mark(),
            self.reason
        )
    }
}

impl Fleet {
    /// Starts all servers, and proxies in front of some.
    fn start() -> Self {
        // The same clients with another new callback: a replica that a registration has not reached.
        let other = ["oauth-node", "mcp_typescript.mjs"];
        let (mut peers, replica) = (Vec::new(), Peer::oauth(other[0], other[1], &[OLD, OTHER]));
        for (packages, script, ..) in PROGRAMS {
            peers.push(Peer::oauth(packages, script, &[OLD, NEW]));
        }
        peers.push(replica);
        let mut reported: Vec<Reported> =
            peers.iter_mut().map(|peer| serde_json::from_value(peer.receive()).unwrap()).collect();
        let replica = reported.pop().unwrap();
        let mut servers: Vec<Server> = PROGRAMS
            .iter()
            .zip(reported)
            .map(|((_, _, name, variants), Reported { port, clients })| Server {
                name: (*name).to_owned(),
                port,
                clients,
                variants,
                evidence: None,
                halved: false,
            })
            .collect();
        for Server { name, clients, .. } in &servers {
            for Client { id, kind, registered, accepted, .. } in clients {
                let registered = registered.iter().filter(|it| [OLD, NEW].contains(&it.as_str()));
                // `any` accepts what is not registered.
                let agrees = kind == "any" || registered.eq(accepted);
                assert!(agrees, "{name}: {id} returns to {accepted:?}");
            }
        }
        let of = |wanted: &str| servers.iter().find(|it| it.name == wanted).unwrap();
        let (oidc, mcp) = (of("django-oidc-provider"), of("MCP SDK, TypeScript"));
        let better_auth = of("better-auth");
        let nginx = nginx(oidc.port, mcp.port, replica.port, better_auth.port);
        let front = |name: &str, port: &str, of: &Server, kinds: &[&str]| Server {
            name: format!("{name}, {}", of.name),
            port: nginx.address(port).port(),
            clients: of
                .clients
                .iter()
                .filter(|it| kinds.contains(&it.kind.as_str()))
                .cloned()
                .collect(),
            variants: &[Variant::Plain],
            evidence: (name.contains("limit") || name.contains("firewall")).then_some(
                if of.name == better_auth.name { Evidence::None } else { Evidence::Partial },
            ),
            halved: name.contains("replicas"),
        };
        let slow = [3, 4, 5, 6, 7, 8, 9, 10, 12].map(|burst| {
            front(&format!("limit of {burst}"), &format!("slow{burst}"), mcp, &["public", "auto"])
        });
        let unreliable = UNRELIABLE.map(|(passed, refused, status)| {
            let name = format!("firewall passes {passed} of {}, else {status}", passed + refused);
            front(&name, &format!("unreliable{passed}{refused}"), better_auth, &["mcp"])
        });
        let limited = [0, 1, 2, 3, 4].map(|burst| {
            front(&format!("limit of {burst}"), &format!("burst{burst}"), better_auth, &["mcp"])
        });
        let fronts = [
            front("nginx with gzip", "gzip", oidc, &["public"]),
            front("nginx with limit_req 503", "limited", mcp, &["public", "auto"]),
            front("nginx with limit_req 429", "limited429", mcp, &["public", "auto"]),
            front("registered at 1 of 2 replicas", "one_of_two", mcp, &["public", "auto"]),
            front("registered at 1 of 3 replicas", "one_of_three", mcp, &["public", "auto"]),
            front("registered at 2 of 3 replicas", "two_of_three", mcp, &["public", "auto"]),
        ];
        servers.extend(fronts.into_iter().chain(unreliable).chain(limited).chain(slow));
        peers.push(nginx);
        Self { servers, _peers: peers }
    }
}

/// How many requests pass and how many do not, in turn, and the status that those get.
const UNRELIABLE: [(u16, u16, u16); 9] = [
    (1, 1, 403),
    (1, 2, 403),
    (2, 1, 500),
    (1, 3, 400),
    (3, 1, 400),
    (2, 3, 403),
    (3, 2, 500),
    (1, 6, 403),
    (6, 1, 403),
];

fn nginx(oidc: u16, mcp: u16, replica: u16, better_auth: u16) -> Peer {
    let unreliable = UNRELIABLE.map(|(passed, refused, status)| {
        format!(
            "upstream unreliable{passed}{refused} {{
                server 127.0.0.1:{better_auth} weight={passed};
                server 127.0.0.1:{{port:refused{status}}} weight={refused};
            }}
            server {{
                listen 127.0.0.1:{{port:unreliable{passed}{refused}}};
                location / {{ proxy_pass http://unreliable{passed}{refused}; }}
            }}"
        )
    });
    let refused = [400, 403, 500].map(|status| {
        format!("server {{ listen 127.0.0.1:{{port:refused{status}}}; return {status}; }}")
    });
    let limit = |name: &str, burst: u16, port: u16| {
        let burst_of = if burst == 0 { String::new() } else { format!("burst={burst}") };
        format!(
            "server {{
                listen 127.0.0.1:{{port:{name}{burst}}};
                limit_req zone=limited {burst_of} nodelay;
                limit_req_status 403;
                location / {{ proxy_pass http://127.0.0.1:{port}; }}
            }}"
        )
    };
    let limited = [0, 1, 2, 3, 4].map(|burst| limit("burst", burst, better_auth)).concat();
    let slow = [3, 4, 5, 6, 7, 8, 9, 10, 12].map(|burst| limit("slow", burst, mcp)).concat();
    let more = [unreliable.concat(), refused.concat(), limited, slow].concat();
    Peer::nginx(&format!(
        "http {{
            limit_req_zone $server_port$arg_client_id zone=limited:1m rate=60r/m;
            upstream one_of_two {{ server 127.0.0.1:{mcp}; server 127.0.0.1:{replica}; }}
            upstream one_of_three {{
                server 127.0.0.1:{mcp}; server 127.0.0.1:{replica} weight=2;
            }}
            upstream two_of_three {{
                server 127.0.0.1:{mcp} weight=2; server 127.0.0.1:{replica};
            }}
            server {{
                listen 127.0.0.1:{{port:gzip}};
                location / {{
                    proxy_pass http://127.0.0.1:{{port:compressing}};
                    proxy_set_header Accept-Encoding gzip;
                }}
            }}
            server {{
                listen 127.0.0.1:{{port:compressing}};
                gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any; gzip_http_version 1.0;
                location / {{ proxy_pass http://127.0.0.1:{oidc}; }}
            }}
            server {{
                listen 127.0.0.1:{{port:limited}};
                limit_req zone=limited burst=2 nodelay;
                location / {{ proxy_pass http://127.0.0.1:{mcp}; }}
            }}
            server {{
                listen 127.0.0.1:{{port:limited429}};
                limit_req zone=limited burst=2 nodelay;
                limit_req_status 429;
                location / {{ proxy_pass http://127.0.0.1:{mcp}; }}
            }}
            {more}
            {}
        }}",
        ["one_of_two", "one_of_three", "two_of_three"]
            .map(|name| format!(
                "server {{
                listen 127.0.0.1:{{port:{name}}};
                location / {{ proxy_pass http://{name}; }}
            }}"
            ))
            .concat()
    ))
}

/// The verdicts on all clients of a server.
fn judge(server: &Server) -> Vec<Cell> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut cells = Vec::new();
    for &variant in server.variants {
        let outbound = Outbound::new(Resolver::default(), Roots::public(), Limits::default());
        let policy = ProbePolicy {
            pause: Duration::from_millis(1),
            cap: 10_000,
            user_agent: "callback-edge tests".to_owned(),
        };
        let differential = Differential::new(outbound, &policy);
        let mut known = BTreeMap::new();
        let mut all: Vec<(Client, Option<Truth>)> =
            server.clients.iter().map(|client| (client.clone(), None)).collect();
        let kinds: BTreeMap<_, _> =
            server.clients.iter().map(|client| (client.kind.clone(), client.clone())).collect();
        for (_, mut client) in kinds {
            UNKNOWN_APP.clone_into(&mut client.id);
            all.push((client, Some(Truth::UnknownApp)));
        }
        for (client, truth) in all {
            let truth = truth.unwrap_or_else(|| Truth::of(&client, server.halved));
            // `branded` and `unreviewed` treat partners differently, registered or not.
            let is_about_partners = ["branded", "unreviewed"].contains(&client.kind.as_str());
            let evidence = if truth == Truth::Half || is_about_partners {
                Evidence::None
            } else if let Some(evidence) = server.evidence {
                evidence
            } else {
                *known.entry((client.kind.clone(), truth)).or_insert_with_key(|(kind, truth)| {
                    if replies_differ(server, kind, *truth, variant) {
                        Evidence::Clear
                    } else {
                        Evidence::None
                    }
                })
            };
            let probe = ProbeRequest {
                template: "of-the-test".to_owned(),
                url: request(server.port, &client, OLD, variant),
                current: OLD.to_owned(),
                old: OLD.to_owned(),
                new: NEW.to_owned(),
                prompt_none: Some(variant == Variant::PromptNone),
            };
            let finding = runtime.block_on(differential.test(&probe));
            let state = finding.state.map_or_else(|why| format!("{why:?}"), |it| format!("{it:?}"));
            cells.push(Cell {
                server: server.name.clone(),
                kind: client.kind,
                variant,
                truth,
                evidence,
                worth: Worth::of(truth, evidence, &state),
                state,
                reason: finding.evidence,
            });
        }
    }
    cells
}

/// The authorization request that Nango sends users to.
fn request(port: u16, client: &Client, callback: &str, variant: Variant) -> String {
    let mut url = Url::parse(&format!("http://127.0.0.1:{port}{}", client.path)).unwrap();
    let scope = if variant == Variant::OtherScope { "unknown" } else { &client.scope };
    url.query_pairs_mut()
        .append_pair("client_id", &client.id)
        .append_pair("redirect_uri", callback)
        .append_pair("response_type", "code")
        .append_pair("scope", scope)
        .append_pair("state", "6f0e2c1a-27b5-4b9d-9a54-0d3c8e7f1b62");
    if variant != Variant::NoPkce {
        url.query_pairs_mut()
            .append_pair("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeWK1t8URWbuGJSstw-cM")
            .append_pair("code_challenge_method", "S256");
    }
    url.into()
}

/// Whether the reply to a registered callback differs from the one to an unregistered callback, or
/// to an unknown app, as anyone sees it: in its status, where it leads, or its text.
fn replies_differ(server: &Server, kind: &str, truth: Truth, variant: Variant) -> bool {
    let has_old = |it: &&Client| it.kind == kind && it.registered.iter().any(|it| it == OLD);
    let client = server.clients.iter().find(has_old).unwrap();
    let mut unknown = client.clone();
    UNKNOWN_APP.clone_into(&mut unknown.id);
    let reply = |client: &Client, callback: &str| {
        let mut url = request(server.port, client, callback, variant);
        if variant == Variant::PromptNone {
            url.push_str("&prompt=none");
        }
        Seen::get(&Url::parse(&url).unwrap(), &[callback, &client.id])
    };
    let (registered, again) = (reply(client, OLD), reply(client, OLD));
    let mut other = match truth {
        Truth::UnknownApp => reply(&unknown, OLD),
        _ => reply(client, NOWHERE),
    };
    // When the app gets nothing else, it may as well be an outage, or a firewall.
    let gets_nothing_else = [Truth::Neither, Truth::UnknownApp].contains(&truth);
    if gets_nothing_else && other.gives_no_reason() {
        return false;
    }
    if registered.text != again.text {
        // A page with a nonce.
        other.text.clone_from(&registered.text);
    }
    registered != other
}

/// A reply, without what it repeats from the request.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    status: String,
    location: String,
    text: String,
}

impl Seen {
    fn gives_no_reason(&self) -> bool {
        let text = self.text.to_lowercase();
        (self.status == "403" || self.status.starts_with('5'))
            && !["redirect", "client"].iter().any(|word| text.contains(word))
    }

    fn get(url: &Url, repeated: &[&str]) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", url.port().unwrap())).unwrap();
        let target = format!("{}?{}", url.path(), url.query().unwrap());
        let host = "Host: 127.0.0.1\r\nConnection: close";
        write!(stream, "GET {target} HTTP/1.1\r\n{host}\r\n\r\n").unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        let mut reply = String::from_utf8_lossy(&reply).into_owned();
        for value in repeated {
            let encoded: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
            reply = reply.replace(value, "it").replace(&encoded, "it");
        }
        let (head, text) = reply.split_once("\r\n\r\n").unwrap();
        let location = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let path = value.split(['?', '#']).next()?;
            name.eq_ignore_ascii_case("location").then(|| path.to_owned())
        });
        Self {
            status: head.split(' ').nth(1).unwrap().to_owned(),
            // The page of a redirect contains only its location.
            text: if location.is_some() { String::new() } else { text.to_owned() },
            location: location.unwrap_or_default(),
        }
    }
}

/// One line for each server, kind and request.
fn table(cells: &[Cell]) -> String {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut cells: Vec<&Cell> = cells.iter().collect();
    cells.sort_by_key(|cell| (&cell.server, cell.variant, &cell.kind));
    for cell in cells {
        let name = format!("{:46} {:12} {:13}", cell.server, cell.kind, cell.variant.name());
        let decidable = if cell.evidence == Evidence::Clear { "" } else { " (after login)" };
        let truth = cell.truth.name();
        let verdict = format!("{truth}{decidable}: {}{}", cell.state, cell.worth.mark());
        match rows.last_mut() {
            Some((row, verdicts)) if *row == name => verdicts.push(verdict),
            _ => rows.push((name, vec![verdict])),
        }
    }
    let mut table = String::new();
    for (name, verdicts) in rows {
        writeln!(table, "{name} | {}", verdicts.join(" | ")).unwrap();
    }
    table
}
