//! A gallery of broken callbacks: each is reported under the right ids, with a hint, and nothing
//! else fails. The names begin with the pitfall that they stand for.

use crate::stand_in::{
    Act, Authority, Chain, HOST, Heard, Reply, Wish, behaviour, nango, plain, plain_at, right, tls,
    tls_at,
};
use callback_edge::check::{self, Plan};
use callback_edge::outbound::{Limits, Outbound, Override, Resolver, Roots};
use callback_edge::redirect::Target;
use callback_edge::report::{self, Report, Status};
use rustls::ServerConfig;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_broken_callback_is_named() {
    let world = World::new().await;
    let mut cases = Vec::new();
    cases.extend(queries(&world).await);
    cases.extend(answers(&world).await);
    cases.extend(manners(&world).await);
    cases.extend(protocols(&world).await);
    cases.extend(urls(&world).await);
    cases.extend(certificates(&world).await);
    cases.extend(addresses(&world).await);
    cases.extend(nangos(&world).await);
    cases.extend(hostile(&world).await);
    let all = cases.len();
    assert!(all >= 40, "{all}");
    let wrong = examine(&world, cases).await;
    println!("{} of {all} broken callbacks are named rightly", all - wrong.len());
    assert!(wrong.is_empty(), "{} of {all} are not:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn right_callbacks_pass() {
    let world = World::new().await;
    let mut both = world.case("both protocols", &[], |_, right| Act::Reply(right)).await;
    let insecure = plain(behaviour(|heard| {
        let location = format!("https://{HOST}{}?{}", heard.path, heard.query.as_deref().unwrap());
        Act::Reply(Reply::new(308).with("location", location))
    }))
    .await;
    both.overrides.push(to(HOST, 80, insecure));
    let mut own = world
        .case("a target with a query", &[], |heard, right| {
            if !matches!(heard.method.as_str(), "GET" | "POST") {
                return Act::Reply(right);
            }
            let location = right.location();
            let (base, query) = location.split_once('?').unwrap_or((&location, ""));
            let joiner = if query.is_empty() { "" } else { "&" };
            Act::Reply(right.to(format!("{base}?tenant=1{joiner}{query}")))
        })
        .await;
    own.target = Target::parse(&format!("{}/oauth/callback?tenant=1", world.origin)).unwrap();
    let mut http1 = world.case("HTTP/1.1 alone", &[], |_, right| Act::Reply(right)).await;
    http1.overrides = vec![to(
        HOST,
        443,
        tls(world.config(&["http/1.1"]), behaviour(world.mended(|_, right| Act::Reply(right))))
            .await,
    )];
    let mut old = world.case("no ALPN", &[], |_, right| Act::Reply(right)).await;
    old.overrides = vec![to(
        HOST,
        443,
        tls(world.config(&[]), behaviour(world.mended(|_, right| Act::Reply(right)))).await,
    )];
    let cases = vec![both, own, http1, old];
    let wrong = examine(&world, cases).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What each case needs: an authority, and a Nango to lead to.
struct World {
    authority: Authority,
    nango: SocketAddr,
    origin: String,
}

/// One callback, and what is to be said about it.
struct Case {
    name: &'static str,
    url: String,
    overrides: Vec<Override>,
    target: Target,
    /// Ids; `!` before one that warns, `?` before one that is unknown. Behind a `=`, words that
    /// its summary or detail must hold.
    expected: &'static [&'static str],
    timeout: Duration,
}

const BOTH: &[&str] = &["h2", "http/1.1"];

impl World {
    async fn new() -> Self {
        let nango = plain(behaviour(nango)).await;
        Self { authority: Authority::new("the root"), nango, origin: format!("http://{nango}") }
    }

    fn config(&self, protocols: &[&str]) -> ServerConfig {
        self.authority.issue(Wish::default()).config(protocols)
    }

    /// The right answer, changed.
    fn mended(
        &self,
        change: impl Fn(&Heard, Reply) -> Act + Send + Sync + 'static,
    ) -> impl Fn(&Heard) -> Act + Send + Sync + 'static {
        let origin = self.origin.clone();
        move |heard| change(heard, right(&origin, heard))
    }

    /// A callback over TLS whose answers are the right ones, changed.
    async fn case(
        &self,
        name: &'static str,
        expected: &'static [&'static str],
        change: impl Fn(&Heard, Reply) -> Act + Send + Sync + 'static,
    ) -> Case {
        let server = tls(self.config(BOTH), behaviour(self.mended(change))).await;
        self.at(name, expected, server)
    }

    /// As [`World::case`], where only the `Location` is changed.
    async fn located(
        &self,
        name: &'static str,
        expected: &'static [&'static str],
        change: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Case {
        self.case(name, expected, move |_, right| {
            if !matches!(right.status, 303 | 308) {
                return Act::Reply(right);
            }
            let location = change(&right.location());
            Act::Reply(right.to(location))
        })
        .await
    }

    /// As [`World::located`], where only the query in it is changed.
    async fn queried(
        &self,
        name: &'static str,
        expected: &'static [&'static str],
        change: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Case {
        self.located(name, expected, move |location| match location.split_once('?') {
            Some((base, query)) if !query.is_empty() => format!("{base}?{}", change(query)),
            _ => location.to_owned(),
        })
        .await
    }

    /// As [`World::queried`], where the query is taken apart and built anew.
    async fn rebuilt(
        &self,
        name: &'static str,
        expected: &'static [&'static str],
        change: impl Fn(Vec<&str>) -> Vec<String> + Send + Sync + 'static,
    ) -> Case {
        self.queried(name, expected, move |query| change(query.split('&').collect()).join("&"))
            .await
    }

    fn at(
        &self,
        name: &'static str,
        expected: &'static [&'static str],
        server: SocketAddr,
    ) -> Case {
        Case {
            name,
            url: format!("https://{HOST}/oauth/callback"),
            overrides: vec![to(HOST, 443, server)],
            target: Target::parse(&format!("{}/oauth/callback", self.origin)).unwrap(),
            expected,
            timeout: Duration::from_secs(10),
        }
    }
}

fn to(host: &str, port: u16, address: SocketAddr) -> Override {
    Override { host: host.to_owned(), port, address }
}

/// Checks all of them, and says which are not reported as expected.
async fn examine(world: &World, cases: Vec<Case>) -> Vec<String> {
    let mut running = JoinSet::new();
    for case in cases {
        let roots = Roots::public().and_pem(world.authority.pem.as_bytes()).unwrap();
        let limits = Limits { step: case.timeout, ..Limits::default() };
        let outbound = Outbound::new(Resolver::new(case.overrides.clone()), roots, limits);
        running.spawn(async move {
            let plan = Plan::new(&case.url, case.target.clone());
            let began = Instant::now();
            let report = check::run(&plan, &outbound).await;
            judge(&case, &report, began.elapsed())
        });
    }
    running.join_all().await.into_iter().flatten().collect()
}

fn judge(case: &Case, report: &Report, took: Duration) -> Option<String> {
    let mut found = BTreeSet::new();
    let mut wrong = Vec::new();
    for check in &report.checks {
        let mark = match check.status {
            Status::Fail => "",
            Status::Warn => "!",
            Status::Unknown => "?",
            Status::Pass | Status::Skip => continue,
        };
        let id = format!("{mark}{}", check.id);
        let says = format!("{} {}", check.summary, check.detail.as_deref().unwrap_or_default());
        let words = case.expected.iter().filter_map(|expected| expected.split_once('='));
        for (_, words) in words.filter(|(expected, _)| *expected == id) {
            if !says.contains(words) {
                wrong.push(format!("{id} does not say {words:?}: {says}"));
            }
        }
        found.insert(id);
        if check.hint.is_none() {
            wrong.push(format!("{} has no hint", check.id));
        }
    }
    let expected: BTreeSet<_> =
        case.expected.iter().map(|id| id.split('=').next().unwrap().to_owned()).collect();
    let json = report::json(std::slice::from_ref(report)).unwrap();
    if json.contains("s3cret") {
        wrong.push("a secret is in the report".to_owned());
    }
    if took > case.timeout * 8 {
        wrong.push(format!("took {took:?}"));
    }
    if found != expected {
        wrong.push(format!("expected {expected:?}, found {found:?}\n{}", report::text(report)));
    }
    (!wrong.is_empty()).then(|| format!("{}: {}", case.name, wrong.join("; ")))
}

/// What becomes of the query.
async fn queries(world: &World) -> Vec<Case> {
    vec![
        world
            .located("P1 the query is dropped", &["redirect.query"], |location| {
                location.split('?').next().unwrap().to_owned()
            })
            .await,
        world
            .rebuilt("P2 URLSearchParams", &["redirect.encoding", "redirect.parameters"], |pairs| {
                pairs
                    .into_iter()
                    .filter(|pair| !pair.is_empty())
                    .map(|pair| {
                        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                        format!("{}={}", form_encoded(name), form_encoded(value))
                    })
                    .collect()
            })
            .await,
        world
            .queried("P2 hex in upper case", &["redirect.encoding"], |query| {
                query
                    .replace("%2f", "%2F")
                    .replace("%3a", "%3A")
                    .replace("%0d", "%0D")
                    .replace("%0a", "%0A")
            })
            .await,
        world
            .queried("P2 spaces as plus", &["redirect.encoding"], |query| query.replace("%20", "+"))
            .await,
        world
            .queried("P2 slashes decoded", &["redirect.encoding"], |query| {
                query.replace("%2F", "/").replace("%2f", "/")
            })
            .await,
        world
            .queried("P2 apostrophes encoded", &["redirect.encoding"], |query| {
                query.replace('\'', "%27")
            })
            .await,
        world
            .queried("P2 raw UTF-8 encoded", &["!redirect.encoding"], |query| {
                query.replace('é', "%C3%A9")
            })
            .await,
        world
            .queried("P2 escaped for HTML", &["redirect.encoding"], |query| {
                query.replace('&', "&amp;")
            })
            .await,
        world
            .rebuilt(
                "P3 the last duplicate wins",
                &["redirect.parameters=`scope` was sent 3 times and arrives 1"],
                |pairs| {
                    let last: HashMap<_, _> =
                        pairs.iter().map(|pair| (name(pair), *pair)).collect();
                    let mut seen = BTreeSet::new();
                    let unique = pairs.iter().filter(|pair| seen.insert(name(pair)));
                    unique.map(|pair| last[name(pair)].to_owned()).collect()
                },
            )
            .await,
        world
            .rebuilt("P3 duplicates joined by commas", &["redirect.parameters"], |pairs| {
                let mut joined: Vec<(&str, String)> = Vec::new();
                for pair in pairs {
                    match joined.iter_mut().find(|(known, _)| *known == name(pair)) {
                        Some((_, all)) if !name(pair).is_empty() => {
                            *all = format!("{all},{}", pair.split_once('=').unwrap().1);
                        }
                        _ => joined.push((name(pair), pair.to_owned())),
                    }
                }
                joined.into_iter().map(|(_, all)| all).collect()
            })
            .await,
        world
            .rebuilt("P3 sorted", &["redirect.parameters"], |mut pairs| {
                pairs.sort_unstable();
                pairs.into_iter().map(str::to_owned).collect()
            })
            .await,
        world
            .rebuilt("P3 empty values dropped", &["redirect.parameters"], |pairs| {
                let kept =
                    pairs.into_iter().filter(|pair| !pair.ends_with('=') || pair.contains("=c="));
                kept.map(str::to_owned).collect()
            })
            .await,
        world
            .rebuilt("P3 bare keys dropped", &["redirect.parameters"], |pairs| {
                let kept = pairs.into_iter().filter(|pair| pair.contains('=') || pair.is_empty());
                kept.map(str::to_owned).collect()
            })
            .await,
        world
            .queried("P5 a parameter added", &["redirect.parameters=`_token` is added"], |query| {
                format!("{query}&_token=s3cret-of-the-server")
            })
            .await,
        world
            .rebuilt("P5 a parameter dropped", &["redirect.parameters=`scope` is lost"], |pairs| {
                let kept = pairs.into_iter().filter(|pair| name(pair) != "scope");
                kept.map(str::to_owned).collect()
            })
            .await,
        world
            .queried("P6 encoded twice", &["redirect.encoding=encoded twice"], |query| {
                query.replace('%', "%25")
            })
            .await,
        world.queried("P7 $args", &["redirect.template=`$args`"], |_| "$args".to_owned()).await,
        world
            .located("P7 {uri} in the path", &["redirect.template=`{uri}`"], |location| {
                format!("{}{{uri}}", location.split('?').next().unwrap())
            })
            .await,
        world
            .located("P7 ${1}", &["redirect.template"], |location| {
                format!("{}${{1}}", location.split('?').next().unwrap())
            })
            .await,
        world
            .located("P8 a dangling question mark", &["!redirect.empty"], |location| {
                if location.contains('?') { location.to_owned() } else { format!("{location}?") }
            })
            .await,
        world
            .located("the question mark is missing", &["redirect.target=`?`"], |location| {
                location.replacen('?', "", 1)
            })
            .await,
        world
            .queried("a fragment appended", &["redirect.query"], |query| format!("{query}#s3cret"))
            .await,
        world
            .rebuilt("a value masked", &["redirect.query"], |pairs| {
                pairs
                    .into_iter()
                    .map(|pair| {
                        if name(pair) == "code" {
                            "code=s3cret".to_owned()
                        } else {
                            pair.to_owned()
                        }
                    })
                    .collect()
            })
            .await,
        world
            .case(
                "P11 a firewall minds URLs in scope",
                &["redirect.blocked=Google (URLs in `scope`): answers 403"],
                |heard, right| {
                    let query = heard.query.clone().unwrap_or_default();
                    let minds = query.contains("userinfo.profile");
                    Act::Reply(if minds { Reply::page(403, "Forbidden") } else { right })
                },
            )
            .await,
        world
            .case("P11 a firewall resets on line breaks", &["redirect.blocked"], |heard, right| {
                let minds = heard.query.as_ref().is_some_and(|query| query.contains("%0d%0a"));
                if minds { Act::Raw(Vec::new()) } else { Act::Reply(right) }
            })
            .await,
        world
            .case("raw bytes refused", &["!redirect.blocked"], |heard, right| {
                let minds =
                    heard.query.as_ref().is_some_and(|query| query.contains(['{', 'é', '[']));
                Act::Reply(if minds { Reply::new(400) } else { right })
            })
            .await,
        world
            .case("P12 2 KiB at most", &["redirect.size=2.1 KiB"], |heard, right| {
                let long = heard.query.as_ref().is_some_and(|query| query.len() > 2048);
                Act::Reply(if long { Reply::page(403, "Request blocked") } else { right })
            })
            .await,
        world
            .case("P12 8 KiB at most", &["!redirect.size=8 KiB"], |heard, right| {
                let long = heard.query.as_ref().is_some_and(|query| query.len() > 8000);
                Act::Reply(if long { Reply::new(414) } else { right })
            })
            .await,
        world
            .queried("P12 cut off at 2 KiB", &["redirect.size"], |query| {
                String::from_utf8(query.bytes().take(2048).collect()).unwrap()
            })
            .await,
    ]
}

fn name(pair: &str) -> &str {
    pair.split('=').next().unwrap()
}

/// As `application/x-www-form-urlencoded` serializers write it, after decoding.
fn form_encoded(text: &str) -> String {
    let mut out = String::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let mut byte = bytes[at];
        at += 1;
        if byte == b'+' {
            byte = b' ';
        } else if byte == b'%'
            && let Some(Ok(decoded)) = text.get(at..at + 2).map(|hex| u8::from_str_radix(hex, 16))
        {
            byte = decoded;
            at += 2;
        }
        match byte {
            b' ' => out.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"*-._".contains(&byte) => {
                out.push(byte.into())
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Answers that are no redirect to the target.
async fn answers(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, status, expected) in [
        ("P9 301", 301, &["!redirect.status"][..]),
        ("P9 302", 302, &["!redirect.status"]),
        ("P9 303", 303, &["!redirect.status"]),
        ("P9 307", 307, &["!redirect.status"]),
        ("P18 404", 404, &["redirect.status"]),
        ("P18 502", 502, &["redirect.status"]),
        ("405", 405, &["redirect.status"]),
        ("P19 204", 204, &["redirect.page"]),
    ] {
        cases.push(
            world
                .case(name, expected, move |heard, right| {
                    Act::Reply(if heard.method == "GET" { right.status(status) } else { right })
                })
                .await,
        );
    }
    let page = |name, expected, page: Reply| {
        world.case(name, expected, move |_, _| Act::Reply(page.clone()))
    };
    let nango = nango(&Heard {
        method: "GET".into(),
        path: "/oauth/callback".into(),
        query: None,
        headers: Vec::new(),
        body: String::new(),
        http2: false,
    });
    let Act::Reply(nango) = nango else { unreachable!() };
    cases.push(page("P14 Nango proxied", &["redirect.proxy"], nango.clone()).await);
    cases.push(page("P14 Nango proxied with 200", &["redirect.proxy"], nango.status(200)).await);
    let refresh = "<meta http-equiv=refresh content='0;url=https://api.nango.dev/?s3cret'>";
    cases.push(
        page("P14 meta refresh", &["redirect.page=meta refresh"], Reply::page(200, refresh)).await,
    );
    let script = "<script>window.location.href = 'https://api.nango.dev/'</script>";
    cases.push(page("P14 script", &["redirect.page=script"], Reply::page(200, script)).await);
    cases.push(page("P14 OK", &["redirect.page"], Reply::page(200, "OK")).await);
    let wall =
        Reply::page(403, "<title>Just a moment...</title>").with("cf-mitigated", "challenge");
    cases.push(page("P29 bot wall", &["redirect.page=bot wall"], wall).await);
    let login = Reply::page(200, "<form><input type=\"password\"></form>");
    cases.push(page("P29 login page", &["redirect.page=login wall"], login).await);
    let basic = Reply::new(401).with("www-authenticate", "Basic realm=staging");
    cases.push(page("P29 basic authentication", &["redirect.page=login wall"], basic).await);
    let sso = "https://login.example.test/sso?next=s3cret";
    let sso = Reply::new(302).with("location", sso);
    cases.push(
        page("P29 login host", &["!redirect.status", "redirect.target=login wall"], sso).await,
    );
    cases.push(page("no Location", &["redirect.target"], Reply::new(308)).await);
    let location = format!("{}/oauth/callback", world.origin);
    let two = Reply::new(308).with("location", &location).with("location", &location);
    cases.push(page("two Locations", &["redirect.target"], two).await);
    cases.push(
        world
            .located("P17 another scheme", &["redirect.target=https instead of http"], |location| {
                location.replacen("http://", "https://", 1)
            })
            .await,
    );
    let port = world.nango.port();
    cases.push(
        world
            .located("P17 another port", &["redirect.target=port 8080"], move |location| {
                location.replacen(&format!(":{port}/"), ":8080/", 1)
            })
            .await,
    );
    cases.push(
        world
            .located("another host", &["redirect.target"], |location| {
                location.replacen("127.0.0.1", "other.example.test", 1)
            })
            .await,
    );
    cases.push(
        world
            .located("another path", &["redirect.target"], |location| {
                location.replacen("/oauth/callback", "/oauth/callback/", 1)
            })
            .await,
    );
    cases.push(
        world
            .case("a relative Location", &["redirect.target"], |heard, right| {
                let sign_in = heard.path == "/sign-in";
                Act::Reply(if sign_in { Reply::page(200, "hello") } else { right.to("/sign-in") })
            })
            .await,
    );
    cases.push(
        world
            .case("P28 a loop to itself", &["redirect.loop"], |heard, right| {
                let location = format!(
                    "https://{HOST}{}?{}",
                    heard.path,
                    heard.query.as_deref().unwrap_or("")
                );
                Act::Reply(right.to(location))
            })
            .await,
    );
    cases.push(
        world
            .case("P28 a loop of two", &["redirect.loop"], |heard, _| {
                let path = if heard.path == "/a" { "/oauth/callback" } else { "/a" };
                Act::Reply(Reply::new(308).with("location", path))
            })
            .await,
    );
    let mut www = world
        .case(
            "P25 www first",
            &["redirect.hops=https://www.auth.example.test/oauth/callback"],
            |heard, right| {
                if heard.header("host").is_some_and(|host| host.starts_with("www."))
                    || heard.http2 && heard.path == "/www"
                {
                    return Act::Reply(right);
                }
                let location = format!(
                    "https://www.{HOST}/oauth/callback?{}",
                    heard.query.as_deref().unwrap_or("")
                );
                Act::Reply(
                    Reply::new(308).with("location", location).with("cache-control", "no-store"),
                )
            },
        )
        .await;
    let direct = world.mended(|_, right| Act::Reply(right));
    www.overrides.push(to(
        &format!("www.{HOST}"),
        443,
        tls(world.config(BOTH), behaviour(direct)).await,
    ));
    cases.push(www);
    cases
}

/// What else the answers do.
async fn manners(world: &World) -> Vec<Case> {
    let with = |name, expected, header: &'static str, value: &'static str| {
        world.case(name, expected, move |_, right| {
            Act::Reply(right.without(header).with(header, value))
        })
    };
    let first: Arc<Mutex<HashMap<String, Reply>>> = Arc::default();
    vec![
        world
            .case("P10 no Cache-Control", &["redirect.cache"], |_, right| {
                Act::Reply(right.without("cache-control"))
            })
            .await,
        with("P10 an hour", &["redirect.cache"], "cache-control", "public, max-age=3600").await,
        with("P10 no-cache", &["!redirect.cache"], "cache-control", "no-cache").await,
        world
            .case(
                "P10 a cache without regard to the query",
                &["redirect.cache=the parameters of another"],
                move |heard, right| {
                    if heard.method != "GET" || heard.query.as_ref().is_none_or(String::is_empty) {
                        return Act::Reply(right);
                    }
                    let mut first = first.lock().unwrap();
                    Act::Reply(first.entry(heard.path.clone()).or_insert(right).clone())
                },
            )
            .await,
        with("P13 COOP", &["redirect.coop"], "cross-origin-opener-policy", "same-origin").await,
        with("no-referrer", &["!redirect.referrer"], "referrer-policy", "no-referrer").await,
        with("a cookie", &["!redirect.cookie"], "set-cookie", "session=s3cret; HttpOnly").await,
        world
            .case(
                "P4 the request's fields come back",
                &["redirect.echo=in `cookie`"],
                |heard, right| {
                    let cookie = heard.header("cookie").unwrap().to_owned();
                    Act::Reply(right.with("cookie", cookie))
                },
            )
            .await,
        world
            .case("P4 in the body", &["redirect.echo"], |heard, right| {
                Act::Reply(right.body(&format!("{heard:?}")))
            })
            .await,
        world
            .case("P15 a form is answered 308", &["!redirect.form"], |heard, right| {
                Act::Reply(if heard.method == "POST" { right.status(308) } else { right })
            })
            .await,
        world
            .case("P15 the fields of a form are lost", &["!redirect.form"], |heard, right| {
                let location = right.location();
                let bare = location.split('?').next().unwrap().to_owned();
                Act::Reply(if heard.method == "POST" { right.to(bare) } else { right })
            })
            .await,
        world
            .case("no callback for GitHub Apps", &["!redirect.github"], |heard, right| {
                Act::Reply(if heard.path == "/oauth/callback" { right } else { Reply::new(404) })
            })
            .await,
        world
            .case("no callback without parameters", &["!redirect.empty"], |heard, right| {
                let empty =
                    heard.method == "GET" && heard.query.as_ref().is_none_or(String::is_empty);
                Act::Reply(if empty { Reply::new(400) } else { right })
            })
            .await,
    ]
}

/// Other versions, other clients, other schemes.
async fn protocols(world: &World) -> Vec<Case> {
    let h2 =
        tls(world.config(&["h2"]), behaviour(world.mended(|_, right| Act::Reply(right)))).await;
    let mut cases = vec![
        world
            .case("P30 right over HTTP/2 alone", &["redirect.protocols"], |heard, right| {
                Act::Reply(if heard.http2 { right } else { Reply::new(404) })
            })
            .await,
        world.at("P30 HTTP/2 alone", &["!redirect.protocols"], h2),
        world
            .case("P30 programs are refused", &["!redirect.clients"], |heard, right| {
                let browser =
                    heard.header("user-agent").is_some_and(|agent| agent.contains("Mozilla"));
                Act::Reply(if browser { right } else { Reply::page(403, "captcha") })
            })
            .await,
        world
            .case("P30 browsers get the app", &["redirect.page"], |heard, right| {
                let page =
                    heard.header("accept").is_some_and(|accept| accept.contains("text/html"));
                Act::Reply(if page { Reply::page(200, "<div id=app></div>") } else { right })
            })
            .await,
    ];
    for (name, location) in [
        ("P25 plain http drops the query", format!("https://{HOST}/oauth/callback")),
        ("P25 plain http leads to the root", format!("https://{HOST}/")),
        ("P25 plain http leads elsewhere", "https://www.example.test/oauth/callback".to_owned()),
    ] {
        let insecure =
            plain(behaviour(move |_| Act::Reply(Reply::new(301).with("location", &location))))
                .await;
        let mut case = world.case(name, &["!redirect.http"], |_, right| Act::Reply(right)).await;
        case.overrides.push(to(HOST, 80, insecure));
        cases.push(case);
    }
    cases
}

/// What is wrong with the URL as it is written.
async fn urls(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    let written: [(&'static str, String, &'static [&'static str]); 8] = [
        ("P19 a newline", format!("https://{HOST}/oauth/callback\n"), &["url.characters=U+000A"]),
        (
            "P19 a zero-width space",
            format!("https://{HOST}/oauth\u{200b}/callback"),
            &["url.characters"],
        ),
        ("P19 upper case", "https://Auth.Example.test/oauth/callback".to_owned(), &["!url.case"]),
        ("the default port", format!("https://{HOST}:443/oauth/callback"), &["!url.port"]),
        ("P22 a fragment", format!("https://{HOST}/oauth/callback#s3cret"), &["url.fragment"]),
        ("a query", format!("https://{HOST}/oauth/callback?code=s3cret"), &["url.query"]),
        ("a password", format!("https://me:s3cret@{HOST}/oauth/callback"), &["url.userinfo"]),
        ("no URL", format!("{HOST}/oauth/callback"), &["url.syntax"]),
    ];
    for (name, url, expected) in written {
        let mut case = world.case(name, expected, |_, right| Act::Reply(right)).await;
        case.url = url;
        cases.push(case);
    }
    let any_path = |world: &World| {
        let origin = world.origin.clone();
        behaviour(move |heard| {
            let path = "/oauth/callback".to_owned();
            Act::Reply(right(&origin, &Heard { path, ..heard.clone() }))
        })
    };
    let server = tls(world.config(BOTH), any_path(world)).await;
    let mut slash = world.at("P19 a trailing slash", &["!url.path", "!url.slash"], server);
    slash.url.push('/');
    cases.push(slash);
    let mut path = world.at("a path of one's own", &["!url.path"], server);
    path.url = format!("https://{HOST}/integrations/done");
    cases.push(path);
    let mut insecure = world.at("plain http", &["url.https"], server);
    insecure.url = format!("http://{HOST}/oauth/callback");
    insecure.overrides =
        vec![to(HOST, 80, plain(behaviour(world.mended(|_, right| Act::Reply(right)))).await)];
    cases.push(insecure);
    let local = plain(behaviour(world.mended(|_, right| Act::Reply(right)))).await;
    let mut development = world.at("plain http on this machine", &["!url.https"], local);
    development.url = format!("http://{local}/oauth/callback");
    development.overrides.clear();
    cases.push(development);
    let foreign = "xn--uth-tna.example.test";
    let wish = Wish { names: vec![foreign.to_owned()], ..Wish::default() };
    let config = world.authority.issue(wish).config(BOTH);
    let server = tls(config, behaviour(world.mended(|_, right| Act::Reply(right)))).await;
    let mut lookalike = world.at("a look-alike", &["!url.lookalike"], server);
    lookalike.url = format!("https://{foreign}/oauth/callback");
    lookalike.overrides = vec![to(foreign, 443, server)];
    cases.push(lookalike);
    let mut own = world.at("P28 the target is the callback", &["url.target"], server);
    own.target = Target::parse(&own.url).unwrap();
    cases.push(own);
    cases
}

/// P26.
async fn certificates(world: &World) -> Vec<Case> {
    let days = |days: u64| Duration::from_hours(24 * days);
    let root = &world.authority;
    let names: Vec<_> = (0..1000).map(|number| format!("n{number}.example.test")).collect();
    let chains: Vec<(&'static str, &'static [&'static str], Chain)> = vec![
        (
            "P26 expired",
            &["tls.expiry=has expired"],
            root.issue(Wish { left: Err(days(1)), ..Wish::default() }),
        ),
        (
            "P26 not valid yet",
            &["tls.expiry=not valid yet"],
            root.issue(Wish { from_tomorrow: true, ..Wish::default() }),
        ),
        (
            "P26 expires soon",
            &["!tls.expiry"],
            root.issue(Wish { left: Ok(days(3)), ..Wish::default() }),
        ),
        (
            "P26 short-lived, and two of three thirds are over",
            &["!tls.expiry"],
            root.issue(Wish { age: days(5), left: Ok(days(1)), ..Wish::default() }),
        ),
        (
            "P26 another name",
            &["tls.name=other.example.test"],
            root.issue(Wish { names: vec!["other.example.test".to_owned()], ..Wish::default() }),
        ),
        ("P26 self-signed", &["tls.chain=self-signed"], Chain::self_signed()),
        (
            "P26 unknown authority",
            &["tls.chain=issuer is not trusted"],
            Authority::new("nobody").issue(Wish::default()),
        ),
        (
            "P26 incomplete chain",
            &["tls.chain=an intermediate certificate is missing"],
            root.issue_below_intermediate(Wish { issuer_is_published: true, ..Wish::default() }),
        ),
        (
            "P26 expired, of another name and authority",
            &["tls.chain", "tls.expiry", "tls.name"],
            Authority::new("nobody").issue(Wish {
                names: vec!["other.example.test".to_owned()],
                left: Err(days(1)),
                ..Wish::default()
            }),
        ),
        (
            "a certificate with 1000 names",
            &["tls.name"],
            root.issue(Wish { names, ..Wish::default() }),
        ),
    ];
    let mut cases = Vec::new();
    for (name, expected, chain) in chains {
        let answers = behaviour(world.mended(|_, right| Act::Reply(right)));
        cases.push(world.at(name, expected, tls(chain.config(BOTH), answers).await));
    }
    let short = Wish { age: days(1), left: Ok(days(5)), ..Wish::default() };
    let answers = behaviour(world.mended(|_, right| Act::Reply(right)));
    let fresh = tls(root.issue(short).config(BOTH), answers).await;
    cases.push(world.at("short-lived, but fresh", &[], fresh));
    cases
}

/// P18, P27.
async fn addresses(world: &World) -> Vec<Case> {
    let right = || behaviour(world.mended(|_, right| Act::Reply(right)));
    let mut cases = Vec::new();
    let dead = dead().await;
    cases.push(world.at("P18 nothing listens", &["dns.reach"], dead));
    let mut half = world.at("P27 one address is dead", &["dns.reach=1 of 2"], dead);
    let good = tls(world.config(BOTH), right()).await;
    half.overrides.push(to(HOST, 443, good));
    cases.push(half);
    let mut old = world.at("P27 one address is an old server", &["dns.alike=::1: 404"], good);
    let forgotten = behaviour(|_| Act::Reply(Reply::page(404, "default backend")));
    let forgotten = tls_at("[::1]:0".parse().unwrap(), world.config(BOTH), forgotten).await;
    old.overrides.push(to(HOST, 443, forgotten));
    cases.push(old);
    let mut expired = world.at(
        "P27 one address has an old certificate",
        &["dns.alike=certificate is not valid"],
        good,
    );
    let wish = Wish { left: Err(Duration::from_hours(24)), ..Wish::default() };
    let config = world.authority.issue(wish).config(BOTH);
    expired.overrides.push(to(HOST, 443, tls(config, right()).await));
    cases.push(expired);
    let mut bare = world.at("P27 one address speaks no TLS", &["dns.alike"], good);
    bare.overrides.push(to(HOST, 443, plain_at("[::1]:0".parse().unwrap(), right()).await));
    cases.push(bare);
    cases
}

/// An address where nothing listens.
async fn dead() -> SocketAddr {
    // Bound and not listening, for as long as the process lives: nobody else can take it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

/// What is at the target.
async fn nangos(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    let elsewhere: [(&'static str, &'static [&'static str], SocketAddr); 4] = [
        (
            "P18 the target is not Nango",
            &["nango.callback", "nango.echo"],
            plain(behaviour(|_| Act::Reply(Reply::page(404, "Cannot GET")))).await,
        ),
        (
            "a proxy before Nango drops the query",
            &["nango.echo"],
            plain(behaviour(|heard| nango(&Heard { query: None, ..heard.clone() }))).await,
        ),
        ("Nango cannot be reached", &["?nango.callback", "?nango.echo"], dead().await),
        (
            "Nango has had enough",
            &["?nango.callback", "?nango.echo"],
            plain(behaviour(|_| Act::Reply(Reply::new(429)))).await,
        ),
    ];
    for (name, expected, nango) in elsewhere {
        let origin = format!("http://{nango}");
        let target = Target::parse(&format!("{origin}/oauth/callback")).unwrap();
        let server = behaviour(move |heard| Act::Reply(right(&origin, heard)));
        let mut case = world.at(name, expected, tls(world.config(BOTH), server).await);
        case.target = target;
        cases.push(case);
    }
    cases
}

/// Servers that mean harm, or do not know what they do.
async fn hostile(world: &World) -> Vec<Case> {
    let http1 = |act: fn() -> Act| {
        let config = world.config(&["http/1.1"]);
        async move { tls(config, behaviour(move |_| act())).await }
    };
    let answer: &'static [&'static str] = &["redirect.answer"];
    const HEAD: &[u8] = b"HTTP/1.1 308 X\r\n";
    let mut cases = vec![
        world.at(
            "endless header fields",
            answer,
            http1(|| Act::Endless(HEAD.to_vec(), b"x-more: and more\r\n".to_vec())).await,
        ),
        world.at(
            "1 MiB of Location",
            answer,
            http1(|| {
                let location =
                    [b"HTTP/1.1 308 X\r\nlocation: ".to_vec(), vec![b'x'; 1 << 20]].concat();
                Act::Raw([location, b"\r\n\r\n".to_vec()].concat())
            })
            .await,
        ),
        world.at("binary garbage", answer, http1(|| Act::Raw((0..=255).collect())).await),
        world.at("closes without a word", answer, http1(|| Act::Raw(Vec::new())).await),
        world.at(
            "an endless page",
            &["redirect.page"],
            http1(|| Act::Endless(b"HTTP/1.1 200 X\r\n\r\n".to_vec(), vec![b'x'; 4096])).await,
        ),
    ];
    let mut slow = world.at("never answers", answer, http1(|| Act::Hang(Vec::new())).await);
    slow.timeout = Duration::from_millis(500);
    cases.push(slow);
    let mut drip = world.at(
        "drips",
        answer,
        http1(|| Act::Drip([HEAD.to_vec(), vec![b'x'; 100_000]].concat())).await,
    );
    drip.timeout = Duration::from_millis(500);
    cases.push(drip);
    let origin = world.origin.clone();
    let endless = behaviour(move |heard| {
        let location = right(&origin, heard);
        if location.status == 404 {
            return Act::Reply(location);
        }
        let head = format!(
            "HTTP/1.1 {} X\r\nlocation: {}\r\ncache-control: no-store\r\n\r\n",
            location.status,
            location.location()
        );
        Act::Endless(head.into_bytes(), vec![b'x'; 4096])
    });
    let endless = tls(world.config(&["http/1.1"]), endless).await;
    cases.push(world.at("right, but with an endless body", &[], endless));
    let alert = b"\x15\x03\x01\x00\x02\x02\x46";
    for (name, bytes) in [
        ("an old TLS version", alert.to_vec()),
        ("plain HTTP on the TLS port", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("garbage on the TLS port", (0..=255).collect()),
        ("closes on the TLS port", Vec::new()),
    ] {
        cases.push(world.at(name, &["tls.handshake"], blurt(bytes).await));
    }
    cases
}

/// Says this to whoever connects, whatever they say, and hangs up.
async fn blurt(bytes: Vec<u8>) -> SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}
