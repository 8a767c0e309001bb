//! Callbacks with wrong responses.

use super::{BOTH, Case, World, to};
use crate::fakes::{Act, HOST, Received, Reply, behaviour, nango, plain, tls};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Responses that are not a redirect to the target.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) async fn redirects(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, status, expected) in [
        ("301", 301, &["!redirect.status"][..]),
        ("302", 302, &["!redirect.status"]),
        ("303", 303, &["!redirect.status"]),
        ("307", 307, &["!redirect.status"]),
        ("404", 404, &["redirect.status"]),
        ("502", 502, &["redirect.status"]),
        ("405", 405, &["redirect.status"]),
        ("204", 204, &["redirect.page"]),
    ] {
        cases.push(
            world
                .case(name, expected, move |heard, correct| {
                    Act::Reply(if heard.method == "GET" { correct.status(status) } else { correct })
                })
                .await,
        );
    }
    let page = |name, expected, page: Reply| {
        world.case(name, expected, move |_, _| Act::Reply(page.clone()))
    };
    let nango = nango(&Received {
        method: "GET".into(),
        path: "/oauth/callback".into(),
        query: None,
        headers: Vec::new(),
        body: String::new(),
        http2: false,
    });
    let Act::Reply(nango) = nango else { unreachable!() };
    cases.push(page("Nango proxied", &["redirect.proxy"], nango.clone()).await);
    cases.push(page("Nango proxied with 200", &["redirect.proxy"], nango.status(200)).await);
    let refresh = "<meta http-equiv=refresh content='0;url=https://api.nango.dev/?s3cret'>";
    cases.push(
        page("meta refresh", &["redirect.page=meta refresh"], Reply::page(200, refresh)).await,
    );
    let script = "<script>window.location.href = 'https://api.nango.dev/'</script>";
    cases.push(page("script", &["redirect.page=script"], Reply::page(200, script)).await);
    cases.push(page("OK", &["redirect.page"], Reply::page(200, "OK")).await);
    let wall =
        Reply::page(403, "<title>Just a moment...</title>").with("cf-mitigated", "challenge");
    cases.push(page("bot challenge", &["redirect.page=bot challenge"], wall).await);
    let login = Reply::page(200, "<form><input type=\"password\"></form>");
    cases.push(page("login page", &["redirect.page=login page"], login).await);
    let basic = Reply::new(401).with("www-authenticate", "Basic realm=staging");
    cases.push(page("basic authentication", &["redirect.page=login page"], basic).await);
    let sso = "https://login.example.test/sso?next=s3cret";
    let sso = Reply::new(302).with("location", sso);
    cases.push(page("login host", &["!redirect.status", "redirect.target=login page"], sso).await);
    cases.push(page("no Location", &["redirect.target"], Reply::new(308)).await);
    let location = format!("{}/oauth/callback", world.origin);
    let two = Reply::new(308).with("location", &location).with("location", "/oauth/callback");
    cases.push(page("two Locations", &["redirect.target"], two).await);
    cases.push(
        world
            .located("another scheme", &["redirect.target=https instead of http"], |location| {
                location.replacen("http://", "https://", 1)
            })
            .await,
    );
    let port = world.nango.port();
    cases.push(
        world
            .located("another port", &["redirect.target=port 8080"], move |location| {
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
            .case("a relative Location", &["redirect.target"], |heard, correct| {
                let sign_in = heard.path == "/sign-in";
                Act::Reply(if sign_in { Reply::page(200, "hello") } else { correct.to("/sign-in") })
            })
            .await,
    );
    cases.push(
        world
            .case("a loop to itself", &["redirect.loop"], |heard, correct| {
                let location = format!(
                    "https://{HOST}{}?{}",
                    heard.path,
                    heard.query.as_deref().unwrap_or("")
                );
                Act::Reply(correct.to(location))
            })
            .await,
    );
    cases.push(
        world
            .case("a loop of two", &["redirect.loop"], |heard, _| {
                let path = if heard.path == "/a" { "/oauth/callback" } else { "/a" };
                Act::Reply(Reply::new(308).with("location", path))
            })
            .await,
    );
    cases.push(
        world
            .case("a loop that adds a parameter", &["redirect.loop"], |heard, _| {
                let query = heard.query.as_deref().unwrap_or("");
                let location = format!("/oauth/callback?{query}&again=1");
                Act::Reply(Reply::new(308).with("location", location))
            })
            .await,
    );
    cases.push(
        world
            .case(
                "once to itself, with a parameter",
                &["redirect.hops=takes 2 hops"],
                |heard, correct| {
                    let query = heard.query.as_deref().unwrap_or("");
                    let location = format!("/oauth/callback?{query}&language=en");
                    let again = query.contains("language=en");
                    Act::Reply(if again { correct } else { correct.to(location) })
                },
            )
            .await,
    );
    for (name, last, expected) in [
        ("six redirects", 5, &["redirect.hops=takes 6 hops"][..]),
        ("twelve redirects", 11, &["redirect.hops=more than 7 hops"]),
    ] {
        let origin = world.origin.clone();
        cases.push(
            world
                .case(name, expected, move |heard, _| {
                    let at = heard.path.strip_prefix("/hop-").map_or(0, |at| at.parse().unwrap());
                    let next = if at == last {
                        format!("{origin}/oauth/callback")
                    } else {
                        format!("/hop-{}", at + 1)
                    };
                    let location = format!("{next}?{}", heard.query.as_deref().unwrap_or(""));
                    Act::Reply(Reply::new(308).with("location", location))
                })
                .await,
        );
    }
    let mut www = world
        .case(
            "www first",
            &["redirect.hops=https://www.auth.example.test/oauth/callback"],
            |heard, correct| {
                if heard.header("host").is_some_and(|host| host.starts_with("www."))
                    || heard.http2 && heard.path == "/www"
                {
                    return Act::Reply(correct);
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
    let direct = world.changed(|_, correct| Act::Reply(correct));
    www.overrides.push(to(
        &format!("www.{HOST}"),
        443,
        tls(world.config(BOTH), behaviour(direct)).await,
    ));
    cases.push(www);
    cases
}

/// Redirects with wrong header fields, and other requests.
pub(super) async fn headers(world: &World) -> Vec<Case> {
    let with = |name, expected, header: &'static str, value: &'static str| {
        world.case(name, expected, move |_, correct| {
            Act::Reply(correct.without(header).with(header, value))
        })
    };
    let first: Arc<Mutex<HashMap<String, Reply>>> = Arc::default();
    vec![
        world
            .case("no Cache-Control", &["redirect.cache"], |_, correct| {
                Act::Reply(correct.without("cache-control"))
            })
            .await,
        with("an hour", &["redirect.cache"], "cache-control", "public, max-age=3600").await,
        with("a lifetime only", &["redirect.cache"], "cache-control", "max-age=60").await,
        world
            .case(
                "a cache that ignores the query",
                &["redirect.cache=the parameters of another"],
                move |heard, correct| {
                    if heard.method != "GET" || heard.query.as_ref().is_none_or(String::is_empty) {
                        return Act::Reply(correct);
                    }
                    let mut first = first.lock().unwrap();
                    Act::Reply(first.entry(heard.path.clone()).or_insert(correct).clone())
                },
            )
            .await,
        with("COOP", &["redirect.coop"], "cross-origin-opener-policy", "same-origin").await,
        with("no-referrer", &["!redirect.referrer"], "referrer-policy", "no-referrer").await,
        with("a cookie", &["!redirect.cookie"], "set-cookie", "session=s3cret; HttpOnly").await,
        world
            .case(
                "request header fields in the response",
                &["redirect.echo=in `cookie`"],
                |heard, correct| {
                    let cookie = heard.header("cookie").map(str::to_owned);
                    Act::Reply(match cookie {
                        Some(cookie) => correct.with("cookie", cookie),
                        None => correct,
                    })
                },
            )
            .await,
        world
            .case("request header fields in the body", &["redirect.echo"], |heard, correct| {
                Act::Reply(correct.body(&format!("{heard:?}")))
            })
            .await,
        form(world, "a page for a form", &["!redirect.form=a page (200)"], Reply::page(200, "OK"))
            .await,
        form(world, "a form crashes the server", &["!redirect.form=fail (500)"], Reply::new(500))
            .await,
        form(
            world,
            "a form leads to a login",
            &["!redirect.form=elsewhere"],
            Reply::new(302).with("location", "/login"),
        )
        .await,
        world
            .case("no callback for GitHub Apps", &["!redirect.github"], |heard, correct| {
                Act::Reply(if heard.path == "/oauth/callback" { correct } else { Reply::new(404) })
            })
            .await,
        world
            .case(
                "the GitHub Apps callback re-encodes",
                &["!redirect.github=changes the query"],
                |heard, correct| {
                    if heard.path == "/oauth/callback" || correct.status != 308 {
                        return Act::Reply(correct);
                    }
                    let location = correct.location().replace("%2F", "/");
                    Act::Reply(correct.to(location))
                },
            )
            .await,
        world
            .case(
                "fails without parameters",
                &["!redirect.empty=makes the server fail"],
                |heard, correct| {
                    let empty =
                        heard.method == "GET" && heard.query.as_ref().is_none_or(String::is_empty);
                    Act::Reply(if empty { Reply::new(500) } else { correct })
                },
            )
            .await,
    ]
}

/// A server that responds to form posts with this.
async fn form(
    world: &World,
    name: &'static str,
    expected: &'static [&'static str],
    reply: Reply,
) -> Case {
    world
        .case(name, expected, move |heard, correct| {
            Act::Reply(if heard.method == "POST" { reply.clone() } else { correct })
        })
        .await
}

/// Correct callbacks that only differ from the usual one: no check fails or warns.
pub(super) async fn harmless(world: &World) -> Vec<Case> {
    let mut cases = vec![
        form(world, "405 for a form", &["+redirect.form=refused (405)"], Reply::new(405)).await,
        form(world, "404 for a form", &["+redirect.form=refused (404)"], Reply::new(404)).await,
        form(world, "415 for a form", &["+redirect.form=refused (415)"], Reply::new(415)).await,
        world
            .case("the same Location twice", &[], |_, correct| {
                let location = correct.location();
                let is_redirect = !location.is_empty();
                Act::Reply(if is_redirect { correct.with("location", location) } else { correct })
            })
            .await,
        world
            .case("308 for a form", &["+redirect.form=not converted (308)"], |heard, correct| {
                Act::Reply(if heard.method == "POST" { correct.status(308) } else { correct })
            })
            .await,
        world
            .case("302 for a form", &["+redirect.form=lose their fields"], |heard, correct| {
                let location = correct.location();
                let bare = location.split('?').next().unwrap().to_owned();
                Act::Reply(if heard.method == "POST" { correct.to(bare) } else { correct })
            })
            .await,
        world
            .case("400 without parameters", &["+redirect.empty=harmless"], |heard, correct| {
                let empty =
                    heard.method == "GET" && heard.query.as_ref().is_none_or(String::is_empty);
                Act::Reply(if empty { Reply::new(400) } else { correct })
            })
            .await,
    ];
    for (name, expected, header, value) in [
        (
            "always revalidated",
            &["+redirect.cache=revalidation"][..],
            "cache-control",
            "no-cache, private",
        ),
        (
            "no lifetime",
            &["+redirect.cache=revalidation"],
            "cache-control",
            "max-age=0, must-revalidate",
        ),
        ("a full referrer policy", &[], "referrer-policy", "strict-origin-when-cross-origin"),
        ("an unknown referrer policy", &[], "referrer-policy", "no-referrer, origin, newer-policy"),
        ("no opener policy", &[], "cross-origin-opener-policy", "unsafe-none"),
        (
            "an opener policy that is only reported",
            &[],
            "cross-origin-opener-policy-report-only",
            "same-origin",
        ),
        (
            "a cookie of Cloudflare",
            &["+redirect.cookie=CDN"],
            "set-cookie",
            "__cf_bm=s3cret; HttpOnly",
        ),
        (
            "a cookie of a load balancer",
            &["+redirect.cookie=CDN"],
            "set-cookie",
            "AWSALBCORS=s3cret",
        ),
        (
            "a cookie of Azure",
            &["+redirect.cookie=CDN"],
            "set-cookie",
            "ARRAffinitySameSite=s3cret",
        ),
    ] {
        cases.push(
            world
                .case(name, expected, move |_, correct| {
                    Act::Reply(correct.without(header).with(header, value))
                })
                .await,
        );
    }
    cases
}

/// Other HTTP versions, clients and schemes.
pub(super) async fn clients(world: &World) -> Vec<Case> {
    let h2 = tls(world.config(&["h2"]), behaviour(world.changed(|_, correct| Act::Reply(correct))))
        .await;
    let mut cases = vec![
        world
            .case("correct only over HTTP/2", &["redirect.protocols"], |heard, correct| {
                Act::Reply(if heard.http2 { correct } else { Reply::new(404) })
            })
            .await,
        world.at("HTTP/2 only", &["!redirect.protocols=supports only HTTP/2"], h2),
        world
            .case("programs are rejected", &["!redirect.clients"], |heard, correct| {
                let browser =
                    heard.header("user-agent").is_some_and(|agent| agent.contains("Mozilla"));
                Act::Reply(if browser { correct } else { Reply::page(403, "captcha") })
            })
            .await,
        world
            .case("browsers get the app", &["redirect.page"], |heard, correct| {
                let page =
                    heard.header("accept").is_some_and(|accept| accept.contains("text/html"));
                Act::Reply(if page { Reply::page(200, "<div id=app></div>") } else { correct })
            })
            .await,
    ];
    for (name, location) in [
        ("plain http drops the query", format!("https://{HOST}/oauth/callback")),
        ("plain http redirects to the root", format!("https://{HOST}/")),
        ("plain http redirects elsewhere", "https://www.example.test/oauth/callback".to_owned()),
    ] {
        let insecure =
            plain(behaviour(move |_| Act::Reply(Reply::new(301).with("location", &location))))
                .await;
        let mut case =
            world.case(name, &["!redirect.http"], |_, correct| Act::Reply(correct)).await;
        case.overrides.push(to(HOST, 80, insecure));
        cases.push(case);
    }
    cases
}
