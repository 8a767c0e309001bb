//! Causes that need more than one request: one visitor, one address, one HTTP version, now and then.

use super::{BOTH, Case, World, to};
use crate::fakes::{Act, HOST, Received, Reply, behaviour, correct, tls, tls_at};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Servers that treat visitors from providers, or programs, differently.
pub(super) async fn visitors(world: &World) -> Vec<Case> {
    let referrer = |heard: &Received| heard.header("referer").unwrap_or_default().to_owned();
    let blocking = |agents: &'static [&'static str]| {
        move |heard: &Received, correct: Reply| {
            let agent = heard.header("user-agent").unwrap_or("none").to_owned();
            let refused = agents.iter().any(|it| agent.starts_with(it));
            Act::Reply(if refused { Reply::new(403) } else { correct })
        }
    };
    let mut cases = vec![
        world
            .case(
                "visitors from Google are refused",
                &["redirect.blocked=requests that come from https://accounts.google.com/ are refused"],
                move |heard, correct| {
                    let refused = referrer(heard) == "https://accounts.google.com/";
                    Act::Reply(if refused { Reply::new(403) } else { correct })
                },
            )
            .await,
        world
            .case(
                "only its own pages may link to it",
                &["redirect.blocked=other sites are refused"],
                move |heard, correct| {
                    let refused = !referrer(heard).is_empty();
                    Act::Reply(if refused { Reply::page(403, "hotlink") } else { correct })
                },
            )
            .await,
        world
            .case(
                "visitors from Okta are sent to the home page",
                &["redirect.blocked=requests that come from https://invented.okta.com/ are refused"],
                move |heard, correct| {
                    let refused = referrer(heard).contains("okta");
                    Act::Reply(if refused { correct.to("/") } else { correct })
                },
            )
            .await,
        world
            .case("navigations from other sites are refused", &["redirect.status=403"], |heard, correct| {
                let refused = heard.header("sec-fetch-site") == Some("cross-site");
                Act::Reply(if refused { Reply::new(403) } else { correct })
            })
            .await,
    ];
    for (name, agents, expected) in [
        ("curl is refused", &["curl"][..], &["!redirect.clients=programs are refused: curl"][..]),
        (
            "clients without a name are refused",
            &["none"],
            &["!redirect.clients=programs are refused: without a User-Agent"],
        ),
        (
            "Python and Go are refused",
            &["python-requests", "Go-http-client"],
            &["!redirect.clients=some programs are refused: python-requests, Go-http-client"],
        ),
    ] {
        cases.push(world.case(name, expected, blocking(agents)).await);
    }
    for (name, expected, refusal) in [
        (
            "a cookie wall that redirects",
            &["redirect.loop=a cookie wall"][..],
            Reply::new(302).with("location", "/oauth/callback"),
        ),
        (
            "a cookie wall with a page",
            &["redirect.page=a cookie wall: responds with 200"],
            Reply::page(200, "one moment"),
        ),
        (
            "a cookie wall that refuses",
            &["redirect.page=a cookie wall: responds with 403"],
            Reply::new(403),
        ),
    ] {
        cases.push(
            world
                .case(name, expected, move |heard, correct| {
                    let passes =
                        heard.header("cookie").is_some_and(|it| it.contains("wall=s3cret"));
                    let wall = refusal.clone().with("set-cookie", "wall=s3cret; Path=/");
                    Act::Reply(if passes { correct } else { wall })
                })
                .await,
        );
    }
    cases
}

/// Servers of which one address or one HTTP version differs.
pub(super) async fn parts(world: &World) -> Vec<Case> {
    let encoded = |reply: Reply| {
        let location = reply.location().replace("%20", "+");
        reply.to(location)
    };
    let is_long = |heard: &Received| heard.query.as_ref().is_some_and(|query| query.len() > 3000);
    let at = async |last: u8, change: fn(&Received, Reply) -> Act| {
        let address = SocketAddr::from(([127, 0, 0, last], 0));
        tls_at(address, world.config(BOTH), behaviour(world.changed(change))).await
    };
    let good = at(1, |_, correct| Act::Reply(correct)).await;
    let second = at(2, |_, correct| {
        Act::Reply(if correct.status == 308 {
            let location = correct.location().replace("%20", "+");
            correct.to(location)
        } else {
            correct
        })
    })
    .await;
    let short = at(3, |heard, correct| {
        let is_long = heard.query.as_ref().is_some_and(|query| query.len() > 3000);
        Act::Reply(if is_long { Reply::new(414) } else { correct })
    })
    .await;
    let missing = at(4, |_, _| Act::Reply(Reply::page(404, "default backend"))).await;
    let mut cases = Vec::new();
    for (name, addresses, expected) in [
        (
            "one address re-encodes",
            &[good, second][..],
            &["!dns.alike=only 127.0.0.2 re-encodes the query"][..],
        ),
        (
            "one address has short limits",
            &[good, short],
            &["dns.alike=only 127.0.0.3 responds with 414 to queries of 4 KiB"],
        ),
        (
            "the first address is broken",
            &[missing, good],
            &["dns.alike=only 127.0.0.4 responds with 404"],
        ),
        (
            "two addresses have different faults",
            &[missing, good, second],
            &["dns.alike=127.0.0.2: re-encodes the query"],
        ),
    ] {
        let mut case = world.at(name, expected, good);
        case.overrides = addresses.iter().map(|address| to(HOST, 443, *address)).collect();
        cases.push(case);
    }
    cases.push(
        world
            .case(
                "HTTP/1.1 re-encodes",
                &["!redirect.protocols=only over HTTP/1.1: re-encodes the query"],
                move |heard, correct| {
                    let changes = !heard.http2 && correct.status == 308;
                    Act::Reply(if changes { encoded(correct) } else { correct })
                },
            )
            .await,
    );
    cases.push(
        world
            .case(
                "HTTP/1.1 has short limits",
                &["redirect.protocols=only over HTTP/1.1: responds with 414 to queries of 4 KiB"],
                move |heard, correct| {
                    Act::Reply(if !heard.http2 && is_long(heard) {
                        Reply::new(414)
                    } else {
                        correct
                    })
                },
            )
            .await,
    );
    cases.push(
        world
            .case(
                "correct only over HTTP/1.1",
                &["redirect.protocols=works only over HTTP/1.1"],
                |heard, correct| Act::Reply(if heard.http2 { Reply::new(404) } else { correct }),
            )
            .await,
    );
    cases
}

/// Failures that a repeat explains, and those that it does not.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) async fn repeats(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    // Each with the requests that fail, by their number.
    let upstream = Reply::page(502, "Bad Gateway");
    let slow = Reply::new(429);
    let nginx =
        "<head><title>503 Service Temporarily Unavailable</title></head><center>nginx</center>";
    for (name, expected, fails, failure) in [
        (
            "one request of 13 fails",
            &["redirect.answer=502, no redirect"][..],
            (|number| number % 13 == 5) as fn(usize) -> bool,
            upstream.clone(),
        ),
        (
            "one of two upstreams is down",
            &["redirect.answer=requests failed"],
            |number| number % 2 == 1,
            upstream.clone(),
        ),
        (
            "one of three upstreams is down",
            &["redirect.answer=requests failed"],
            |number| number % 3 == 0,
            upstream.clone(),
        ),
        ("one request fails", &["!redirect.answer=1 of "], |number| number == 20, upstream),
        (
            "a rate limit",
            &["?redirect.blocked=2 of "],
            |number| matches!(number, 20 | 21),
            slow.clone(),
        ),
        (
            "a rate limit that names a time",
            &["?redirect.blocked=2 of "],
            |number| matches!(number, 20 | 21),
            slow.clone().with("retry-after", "1"),
        ),
        (
            "the rate limit of nginx",
            &["?redirect.blocked=2 of "],
            |number| matches!(number, 20 | 21),
            Reply::page(503, nginx),
        ),
        (
            "a rate limit from the start",
            &["?redirect.status=limits the request rate"],
            |_| true,
            slow.clone(),
        ),
        (
            "a rate limit of an hour",
            &[
                "?redirect.blocked",
                "?redirect.size",
                "?redirect.empty",
                "?redirect.clients",
                "?redirect.form",
                "?redirect.protocols",
                "?redirect.github",
            ],
            |number| number > 30,
            slow.with("retry-after", "3600"),
        ),
    ] {
        let number = AtomicUsize::new(0);
        cases.push(
            world
                .case(name, expected, move |_, correct| {
                    let fails = fails(number.fetch_add(1, Relaxed));
                    Act::Reply(if fails { failure.clone() } else { correct })
                })
                .await,
        );
    }
    let number = AtomicUsize::new(0);
    cases.push(
        world
            .case(
                "a firewall before an unreliable upstream",
                &["redirect.answer=requests failed", "redirect.blocked=`scope` alone fails too"],
                move |heard, correct| {
                    let query = heard.query.clone().unwrap_or_default();
                    if query.contains("userinfo.profile") {
                        return Act::Reply(Reply::new(403));
                    }
                    let is_down = number.fetch_add(1, Relaxed) % 9 == 4;
                    Act::Reply(if is_down { Reply::new(502) } else { correct })
                },
            )
            .await,
    );
    let has = |heard: &Received, text: &str| {
        heard.query.as_ref().is_some_and(|query| query.contains(text))
    };
    cases.push(
        world
            .case(
                "a program requires a code",
                &["redirect.blocked=with a `code` it passes"],
                move |heard, correct| {
                    let requires = heard.query.is_some() && !has(heard, "code=");
                    Act::Reply(if requires { Reply::new(422) } else { correct })
                },
            )
            .await,
    );
    cases.push(
        world
            .case(
                "a firewall before a program that requires a code",
                &["redirect.blocked=`scope` alone fails too"],
                move |heard, correct| {
                    if has(heard, "userinfo.profile") {
                        return Act::Reply(Reply::new(403));
                    }
                    Act::Reply(if has(heard, "code=") { correct } else { Reply::new(422) })
                },
            )
            .await,
    );
    cases.push(
        world
            .case(
                "a firewall with the status of a rate limit",
                &["redirect.blocked=`iss` alone fails too"],
                |heard, correct| {
                    let blocks = heard.query.as_ref().is_some_and(|query| query.contains("iss="));
                    Act::Reply(if blocks { Reply::new(429) } else { correct })
                },
            )
            .await,
    );
    cases.extend(programs(world).await);
    cases.extend(bans(world).await);
    cases.extend(sizes(world).await);
    let drops = world.changed(|heard, correct| {
        let drops = heard.query.as_ref().is_some_and(|query| query.contains("%0d%0a"));
        if drops { Act::Hang(Vec::new()) } else { Act::Reply(correct) }
    });
    let server = tls(world.config(&["http/1.1"]), behaviour(drops)).await;
    let mut dropped = world.at(
        "a firewall drops requests",
        &["redirect.blocked=get no response in time"],
        server,
    );
    dropped.timeout = Duration::from_secs(3);
    cases.push(dropped);
    cases
}

/// Programs that evaluate the parameters: no firewall is named.
async fn programs(world: &World) -> Vec<Case> {
    type Rejects = fn(&str) -> bool;
    let lacks_code: Rejects = |query| !query.is_empty() && !query.contains("code=");
    let lacks_state: Rejects = |query| {
        let named = |name: &str| query.split('&').any(|it| it.starts_with(name));
        !query.is_empty() && !named("state=")
    };
    let has_error: Rejects = |query| query.contains("error=");
    let has_iss: Rejects = |query| query.contains("iss=");
    let mut cases = Vec::new();
    for (name, expected, rejects, response) in [
        (
            "a program that requires a code",
            &[
                "redirect.blocked=with a `code` it passes",
                "redirect.blocked=more redirect callbacks without a `code` too",
            ][..],
            lacks_code,
            Reply::page(400, "Missing argument code"),
        ),
        (
            "a program that requires a state",
            &[
                "redirect.blocked=with a `state` it passes",
                "redirect.blocked=without a `state` too",
            ],
            lacks_state,
            Reply::page(422, "missing state"),
        ),
        (
            "a program with a page for errors",
            &["redirect.blocked=Nango shows the errors of providers"],
            has_error,
            Reply::page(200, "Login failed"),
        ),
        (
            "a program that redirects errors to its login page",
            &["redirect.blocked=Nango shows the errors of providers"],
            has_error,
            Reply::new(302).with("location", "/login?failed=1"),
        ),
        (
            "a program that fails on an unknown parameter",
            &[
                "redirect.blocked=`iss` alone fails too",
                "redirect.blocked=see the log of the program",
            ],
            has_iss,
            Reply::new(500),
        ),
    ] {
        cases.push(
            world
                .case(name, expected, move |heard, correct| {
                    let query = heard.query.as_deref().unwrap_or_default();
                    Act::Reply(if rejects(query) { response.clone() } else { correct })
                })
                .await,
        );
    }
    cases
}

/// Long queries that something other than the limit of the server refuses.
async fn sizes(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, expected, status) in [
        (
            "a proxy with a small buffer for response headers",
            &["redirect.size=proxy_buffer_size"][..],
            502,
        ),
        ("a firewall rule about long queries", &["redirect.size=firewall rules about long"], 403),
    ] {
        cases.push(
            world
                .case(name, expected, move |heard, correct| {
                    let is_long = heard.query.as_ref().is_some_and(|query| query.len() > 3000);
                    Act::Reply(if is_long { Reply::new(status) } else { correct })
                })
                .await,
        );
    }
    cases
}

/// Servers that refuse this machine after some requests, without the status of a rate limit.
async fn bans(world: &World) -> Vec<Case> {
    let expected: &[&str] =
        &["?redirect.answer=all others fail", "?redirect.blocked", "?redirect.size"];
    let mut cases = Vec::new();
    for (name, ban) in [
        ("a ban with 403", Act::Reply(Reply::new(403))),
        ("a ban with a page", Act::Reply(Reply::page(200, "too many requests"))),
        ("a ban that closes connections", Act::Raw(Vec::new())),
    ] {
        let number = AtomicUsize::new(0);
        cases.push(
            world
                .case(name, expected, move |_, correct| {
                    let banned = number.fetch_add(1, Relaxed) > 25;
                    if banned { ban.clone() } else { Act::Reply(correct) }
                })
                .await,
        );
    }
    cases
}

/// Redirects with bodies that never end, or with many header fields.
pub(super) async fn bodies(world: &World) -> Vec<Case> {
    type Ending = (&'static str, &'static [&'static str], fn(Vec<u8>) -> Act, String);
    let mut cases = Vec::new();
    let head = |reply: &Reply, more: &str| {
        let (status, location) = (reply.status, reply.location());
        format!(
            "HTTP/1.1 {status} X\r\nlocation: {location}\r\ncache-control: no-store\r\n{more}\r\n"
        )
        .into_bytes()
    };
    let endings: [Ending; 6] = [
        ("a body that never comes", &[], Act::Hang, "content-length: 100\r\n".to_owned()),
        ("a body without an end", &[], Act::Hang, String::new()),
        ("chunks without an end", &[], Act::Hang, "transfer-encoding: chunked\r\n".to_owned()),
        ("100 header fields", &[], Act::Raw, fields(98)),
        (
            "150 header fields",
            &["!redirect.answer=the response has 150 header fields"],
            Act::Raw,
            fields(148),
        ),
        (
            "600 header fields",
            &["!redirect.answer=the response has 600 header fields"],
            Act::Raw,
            fields(598),
        ),
    ];
    for (name, expected, act, more) in endings {
        let origin = world.origin.clone();
        let behaviour = behaviour(move |heard| {
            let reply = correct(&origin, heard);
            if reply.status == 404 { Act::Reply(reply) } else { act(head(&reply, &more)) }
        });
        let server = tls(world.config(&["http/1.1"]), behaviour).await;
        cases.push(world.at(name, expected, server));
    }
    cases
}

fn fields(count: usize) -> String {
    (0..count).fold(String::new(), |all, number| all + &format!("x-{number}: 1\r\n"))
}
