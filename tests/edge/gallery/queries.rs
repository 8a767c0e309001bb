//! Callbacks that change or block the query.

use super::{BOTH, Case, World, to};
use crate::fakes::{Act, HOST, Received, Reply, behaviour, correct, nango, tls};
use callback_edge::redirect::Target;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

/// Callbacks that change or block the query.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) async fn queries(world: &World) -> Vec<Case> {
    vec![
        world
            .located("the query is dropped", &["redirect.query"], |location| {
                location.split('?').next().unwrap().to_owned()
            })
            .await,
        // Nango reads the same values.
        world
            .rebuilt("URLSearchParams", &["!redirect.encoding=`code=4%2F0Ab…`"], url_search_params)
            .await,
        world
            .queried("slashes encoded", &["!redirect.encoding=`code=4%2F0Ab"], |query| {
                query.replace('/', "%2F")
            })
            .await,
        world
            .queried("hex in upper case", &["!redirect.encoding=`scope=https%3A%2F…`"], |query| {
                upper_case(query)
            })
            .await,
        world
            .queried("spaces as plus", &["!redirect.encoding=Nango reads the same"], |query| {
                query.replace("%20", "+")
            })
            .await,
        world
            .queried("slashes decoded", &["!redirect.encoding"], |query| {
                query.replace("%2F", "/").replace("%2f", "/")
            })
            .await,
        world
            .rebuilt("sorted by name", &["!redirect.parameters=another order"], |mut pairs| {
                pairs.sort_by_key(|pair| name(pair));
                pairs.into_iter().map(str::to_owned).collect()
            })
            .await,
        world
            .rebuilt("empty parameters dropped", &["!redirect.parameters=`&&`"], |pairs| {
                let kept = pairs.into_iter().filter(|pair| !pair.is_empty());
                kept.map(str::to_owned).collect()
            })
            .await,
        world
            .rebuilt("bare keys with a `=`", &["!redirect.parameters=`bare=`"], |pairs| {
                let written = |pair: &str| match pair {
                    "" => String::new(),
                    bare if !bare.contains('=') => format!("{bare}="),
                    pair => pair.to_owned(),
                };
                pairs.into_iter().map(written).collect()
            })
            .await,
        world
            .queried("a fragment appended", &["!redirect.query=`#`"], |query| {
                format!("{query}#s3cret")
            })
            .await,
        world
            .queried("spaces as plus, strictly", &["redirect.encoding"], |query| {
                query.replace("%20", "+")
            })
            .await
            .strict(),
        world
            .rebuilt(
                "URLSearchParams, strictly",
                &["redirect.encoding", "redirect.parameters"],
                url_search_params,
            )
            .await
            .strict(),
        world
            .queried("a fragment appended, strictly", &["redirect.query"], |query| {
                format!("{query}#s3cret")
            })
            .await
            .strict(),
        // Nango reads other values.
        world
            .queried("plus encoded", &["redirect.encoding"], |query| query.replace('+', "%2B"))
            .await,
        world
            .queried("plus decoded", &["redirect.encoding=`text=1+1`"], |query| {
                query.replace("%2B", "+")
            })
            .await,
        world
            .queried("ampersands decoded", &["redirect.encoding=`name=a&b"], |query| {
                query.replace("%26", "&")
            })
            .await,
        world
            .rebuilt("values in lower case", &["redirect.query=`code`"], |pairs| {
                let lower = |pair: &str| match pair.split_once('=') {
                    Some(("code", code)) => format!("code={}", upper_case(&code.to_lowercase())),
                    _ => pair.to_owned(),
                };
                pairs.into_iter().map(lower).collect()
            })
            .await,
        // Each feature is kept alone and lost in company.
        world
            .queried("an apostrophe with spaces", &["redirect.query=`name`"], |query| {
                let spaces = query.contains("%20") || query.contains('+');
                if spaces { query.replace("%27", "") } else { query.to_owned() }
            })
            .await,
        world
            .queried("a plus with spaces", &["redirect.encoding=`sum=1+1"], |query| {
                let spaces = query.contains("%20");
                if spaces { query.replace("%2B", "+") } else { query.to_owned() }
            })
            .await,
        world
            .rebuilt(
                "duplicates with encodings",
                &["redirect.parameters=`scope` is sent 4 times and arrives 2 times"],
                |pairs| {
                    let encoded = pairs.iter().any(|pair| pair.contains('%'));
                    let mut seen = BTreeSet::new();
                    let kept = pairs.into_iter().filter(|pair| {
                        !encoded || !pair.starts_with("scope=read") || seen.insert(*pair)
                    });
                    let kept = kept.filter(|pair| !encoded || *pair != "scope=");
                    kept.map(str::to_owned).collect()
                },
            )
            .await,
        world
            .queried("escaped for HTML", &["redirect.encoding=`&` arrives as `&amp;`"], |query| {
                query.replace('&', "&amp;")
            })
            .await,
        world
            .queried(
                "split at each question mark",
                &["redirect.query=the value of `text` is cut before its `?`"],
                |query| query.split('?').next().unwrap_or_default().to_owned(),
            )
            .await,
        world
            .located(
                "the query as a fragment",
                &["redirect.query=browsers do not send a fragment"],
                |location| location.replacen('?', "#", 1),
            )
            .await,
        world
            .rebuilt(
                "the last duplicate wins",
                &["redirect.parameters=`scope` is sent 3 times and arrives once"],
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
            .rebuilt("duplicates joined by commas", &["redirect.parameters"], |pairs| {
                let mut joined: Vec<(&str, String)> = Vec::new();
                for pair in pairs {
                    match joined.iter_mut().find(|(known, _)| *known == name(pair)) {
                        Some((_, all)) if !name(pair).is_empty() && pair.contains('=') => {
                            *all = format!("{all},{}", pair.split_once('=').unwrap().1);
                        }
                        _ => joined.push((name(pair), pair.to_owned())),
                    }
                }
                joined.into_iter().map(|(_, all)| all).collect()
            })
            .await,
        world
            .rebuilt("sorted", &["redirect.parameters"], |mut pairs| {
                pairs.sort_unstable();
                pairs.into_iter().map(str::to_owned).collect()
            })
            .await,
        world
            .rebuilt("empty values dropped", &["redirect.parameters"], |pairs| {
                let kept =
                    pairs.into_iter().filter(|pair| !pair.ends_with('=') || pair.contains("=c="));
                kept.map(str::to_owned).collect()
            })
            .await,
        world
            .rebuilt("bare keys dropped", &["redirect.parameters"], |pairs| {
                let kept = pairs.into_iter().filter(|pair| pair.contains('=') || pair.is_empty());
                kept.map(str::to_owned).collect()
            })
            .await,
        world
            .queried("a parameter added", &["redirect.parameters=`_token` is added"], |query| {
                format!("{query}&_token=s3cret-of-the-server")
            })
            .await,
        world
            .rebuilt("a parameter dropped", &["redirect.parameters=`scope` is lost"], |pairs| {
                let kept = pairs.into_iter().filter(|pair| name(pair) != "scope");
                kept.map(str::to_owned).collect()
            })
            .await,
        world
            .queried("encoded twice", &["redirect.encoding=encoded twice"], |query| {
                query.replace('%', "%25")
            })
            .await,
        world.queried("$args", &["redirect.template=`$args`"], |_| "$args".to_owned()).await,
        world
            .located("{uri} in the path", &["redirect.template=`{uri}`"], |location| {
                format!("{}{{uri}}", location.split('?').next().unwrap())
            })
            .await,
        world
            .located("${1}", &["redirect.template"], |location| {
                format!("{}${{1}}", location.split('?').next().unwrap())
            })
            .await,
        world
            .located("the question mark is missing", &["redirect.target=`?`"], |location| {
                location.replacen('?', "", 1)
            })
            .await,
        // RFC 3986 §4.2: the callback's scheme is https, the target's is http.
        world
            .located(
                "a target without a scheme, of another scheme",
                &["redirect.target=https instead of http"],
                |location| location.replacen("http:", "", 1),
            )
            .await,
        world
            .located(
                "another host after a user name",
                &["redirect.target=another host"],
                |location| {
                    let path = &location[location.find("/oauth").unwrap_or(location.len())..];
                    format!("http://127.0.0.1@other.example.test{path}")
                },
            )
            .await,
        world
            .located("another relative target", &["redirect.target=own host"], |location| {
                location.replacen("http:/", "", 1)
            })
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
                "a firewall blocks URLs in scope",
                &["redirect.blocked=Google (URLs in `scope`): responds with 403"],
                |heard, correct| {
                    let query = heard.query.clone().unwrap_or_default();
                    let blocks = query.contains("userinfo.profile");
                    Act::Reply(if blocks { Reply::page(403, "Forbidden") } else { correct })
                },
            )
            .await,
        world
            .case("a firewall resets on line breaks", &["redirect.blocked"], |heard, correct| {
                let blocks = heard.query.as_ref().is_some_and(|query| query.contains("%0d%0a"));
                if blocks { Act::Raw(Vec::new()) } else { Act::Reply(correct) }
            })
            .await,
        world
            .case("raw bytes rejected", &["!redirect.blocked"], |heard, correct| {
                let blocks = heard.query.as_ref().is_some_and(|query| query.contains(['{', '[']));
                Act::Reply(if blocks { Reply::new(400) } else { correct })
            })
            .await,
        world
            .case("2 KiB at most", &["redirect.size=2.1 KiB"], |heard, correct| {
                let long = heard.query.as_ref().is_some_and(|query| query.len() > 2048);
                Act::Reply(if long { Reply::page(403, "Request blocked") } else { correct })
            })
            .await,
        world
            .case("4.5 KiB at most", &["redirect.size=5 KiB"], |heard, correct| {
                let long = heard.query.as_ref().is_some_and(|query| query.len() > 4608);
                Act::Reply(if long { Reply::new(414) } else { correct })
            })
            .await,
        world
            .case("less than 6 KiB", &["redirect.size=6 KiB"], |heard, correct| {
                let long = heard.query.as_ref().is_some_and(|query| query.len() >= 6144);
                Act::Reply(if long { Reply::new(414) } else { correct })
            })
            .await,
        world
            .case("6 KiB at most", &["!redirect.size=7 KiB"], |heard, correct| {
                let long = heard.query.as_ref().is_some_and(|query| query.len() > 6144);
                Act::Reply(if long { Reply::new(414) } else { correct })
            })
            .await,
        world
            .case("8 KiB at most", &["!redirect.size=8 KiB"], |heard, correct| {
                let long = heard.query.as_ref().is_some_and(|query| query.len() > 8000);
                Act::Reply(if long { Reply::new(414) } else { correct })
            })
            .await,
        world
            .queried("cut off at 2 KiB", &["redirect.size"], |query| {
                String::from_utf8(query.bytes().take(2048).collect()).unwrap()
            })
            .await,
    ]
}

/// Callbacks that forward the query in other bytes than they received, or write their target in
/// another form, and whose visitors notice nothing: each is correct.
pub(super) async fn equivalent(world: &World) -> Vec<Case> {
    let mut cases = vec![
        // What browsers encode by themselves.
        world.queried("apostrophes decoded", &[], |query| query.replace("%27", "'")).await,
        world.queried("UTF-8 decoded", &[], |query| query.replace("%C3%A9", "é")).await,
        world
            .queried("quotes and spaces decoded", &[], |query| {
                query.replace("%22", "\"").replace("%3C", "<").replace("%20", " ")
            })
            .await
            .strict(),
        // Bytes that RFC 3986 forbids.
        world
            .queried("brackets, braces and carets encoded", &[], |query| {
                let query = query.replace('[', "%5B").replace(']', "%5D").replace('{', "%7B");
                query.replace('}', "%7D").replace('|', "%7C").replace('^', "%5E")
            })
            .await,
        // RFC 3986 §4.2
        beside(world, "a target without a scheme", |location| location.replacen("https:", "", 1))
            .await,
        beside(world, "a target with a user name, in upper case", |location| {
            let host = format!("HTTPS://me@{}", HOST.to_uppercase());
            location.replacen(&format!("https://{HOST}"), &host, 1)
        })
        .await,
        beside(world, "a target with dot segments", |location| {
            let location = location.replacen("/oauth/", "/x/./../oauth/", 1);
            location.replacen("/app-auth/", "/x/../app-auth/", 1)
        })
        .await,
    ];
    // RFC 9110 §10.2.2: Nango is on the same host, below another path.
    for (name, up) in [("a relative target", "../nango"), ("a target without a host", "/nango")] {
        let both = behaviour(move |heard: &Received| {
            if let Some(path) = heard.path.strip_prefix("/nango") {
                return nango(&Received { path: path.to_owned(), ..heard.clone() });
            }
            Act::Reply(correct(up, heard))
        });
        let server = tls(world.config(BOTH), both).await;
        let mut case = world.at(name, &[], server);
        case.target = Target::parse(&format!("https://{HOST}/nango/oauth/callback")).unwrap();
        cases.push(case);
    }
    cases
}

/// A correct callback with a changed `Location`, and a Nango with TLS on another port of its host.
async fn beside(
    world: &World,
    name: &'static str,
    change: impl Fn(&str) -> String + Send + Sync + 'static,
) -> Case {
    let there = tls(world.config(BOTH), behaviour(nango)).await;
    let origin = format!("https://{HOST}:{}", there.port());
    let target = Target::parse(&format!("{origin}/oauth/callback")).unwrap();
    let callback = behaviour(move |heard| {
        let correct = correct(&origin, heard);
        if !matches!(correct.status, 303 | 308) {
            return Act::Reply(correct);
        }
        let location = change(&correct.location());
        Act::Reply(correct.to(location))
    });
    let server = tls(world.config(BOTH), callback).await;
    let mut case = world.at(name, &[], server);
    case.overrides.push(to(HOST, there.port(), there));
    case.target = target;
    case
}

/// As JavaScript's `URLSearchParams` rebuilds it.
fn url_search_params(pairs: Vec<&str>) -> Vec<String> {
    let pairs = pairs.into_iter().filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        format!("{}={}", form_encoded(name), form_encoded(value))
    });
    pairs.collect()
}

/// With the hex digits of all escapes in upper case.
fn upper_case(query: &str) -> String {
    let mut parts = query.split('%');
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        let hex = part.get(..2).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let (hex, rest) = hex.map_or(("", part), |hex| (hex, &part[2..]));
        write!(out, "%{}{rest}", hex.to_uppercase()).unwrap();
    }
    out
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
                out.push(byte.into());
            }
            byte => write!(out, "%{byte:02X}").unwrap(),
        }
    }
    out
}
