//! Callbacks that change or block the query.

use super::{Case, World};
use crate::fakes::{Act, Reply};
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
        world
            .rebuilt("URLSearchParams", &["redirect.encoding", "redirect.parameters"], |pairs| {
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
            .queried("hex in upper case", &["redirect.encoding"], |query| {
                query
                    .replace("%2f", "%2F")
                    .replace("%3a", "%3A")
                    .replace("%0d", "%0D")
                    .replace("%0a", "%0A")
            })
            .await,
        world
            .queried("spaces as plus", &["redirect.encoding"], |query| query.replace("%20", "+"))
            .await,
        world
            .queried("slashes decoded", &["redirect.encoding"], |query| {
                query.replace("%2F", "/").replace("%2f", "/")
            })
            .await,
        world
            .queried("apostrophes encoded", &["redirect.encoding"], |query| {
                query.replace('\'', "%27")
            })
            .await,
        world
            .queried("raw UTF-8 encoded", &["!redirect.encoding"], |query| {
                query.replace('é', "%C3%A9")
            })
            .await,
        world
            .queried("escaped for HTML", &["redirect.encoding"], |query| {
                query.replace('&', "&amp;")
            })
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
                let blocks =
                    heard.query.as_ref().is_some_and(|query| query.contains(['{', 'é', '[']));
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
