//! The comparison of queries in `callback-edge check` against the parser that Nango uses.

use crate::peer::Peer;
use callback_edge::check::read_by_nango;
use proptest::prelude::Strategy;
use proptest::sample::select;
use proptest::strategy::{Just, Union, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

/// The number of pairs of each kind.
const PAIRS: usize = 4_000;

/// A pair of queries: what was sent, and what a server may make of it.
type Pair = (String, String);

/// Names, values and separators that parsers disagree about.
const TOKENS: &[&str] = &[
    "a",
    "b",
    "ab",
    "0",
    "1",
    "2",
    "00",
    "-1",
    "99",
    "100",
    "101",
    "[",
    "]",
    "[]",
    "[0]",
    "[1]",
    "[a]",
    "[b]",
    "[99]",
    "[100]",
    "%5B",
    "%5D",
    "%5b%5d",
    "=",
    "=",
    "=",
    "]=",
    "&",
    "&",
    "&",
    "&&",
    "&a=",
    "&a[]=",
    "&a[b]=",
    "&a[0]=",
    "&a",
    "+",
    "%20",
    "%2B",
    "%2F",
    "%2f",
    "/",
    "%C3%A9",
    "%C3",
    "%E9",
    "%F0%9F%98%80",
    "%ED%A0%80",
    "%zz",
    "%",
    "%2",
    "%25",
    "%2525",
    "%26",
    "%3D",
    "%23",
    "%00",
    "'",
    "%27",
    ",",
    ".",
    ";",
    "__proto__",
    "toString",
    "[constructor]",
    "hasOwnProperty",
    "utf8=%E2%9C%93",
    "&#10003;",
];

/// What servers do to a query.
const CHANGES: &[(&str, &str)] = &[
    ("%20", "+"),
    ("+", "%20"),
    ("+", "%2B"),
    ("%2B", "+"),
    ("%2F", "/"),
    ("/", "%2F"),
    ("%2f", "%2F"),
    ("%", "%25"),
    ("%25", "%"),
    ("&&", "&"),
    ("&", "&amp;"),
    ("[]", "[0]"),
    ("[0]", "[]"),
    ("[", "%5B"),
    ("]", "%5D"),
    ("=&", "&"),
    ("a", "A"),
    ("b", "a"),
    ("'", "%27"),
    ("%C3%A9", "%c3%a9"),
    ("%26", "&"),
];

fn changed(query: impl Strategy<Value = String>) -> impl Strategy<Value = Pair> {
    (query, select(CHANGES), 0..6_u8).prop_map(|(query, (from, to), how)| {
        let mut parameters: Vec<_> = query.split('&').collect();
        let changed = match how {
            0 => query.clone(),
            1 => query.replace(from, to),
            2 => query.replacen(from, to, 1),
            3 => {
                parameters.sort_unstable();
                parameters.join("&")
            }
            4 => {
                parameters.reverse();
                parameters.join("&")
            }
            _ => {
                parameters.remove(parameters.len() / 2);
                parameters.join("&")
            }
        };
        (query, changed)
    })
}

/// Queries of tokens, of nested names, and of many parameters.
fn kinds() -> [(&'static str, usize, Union<impl Strategy<Value = String>>); 3] {
    let tokens = proptest::collection::vec(select(TOKENS), 0..14).prop_map(|all| all.concat());
    let nested = r"((a|b|0)?(\[(a|b|0|1|2|99|100|)\]){0,3}(p|q)?=(x|y|)&){1,7}(a|\[\])?";
    let nested = proptest::string::string_regex(nested).unwrap();
    let first = r"((a|a\[\]|a\[0\]|a\[b\]|a\[100\])=x&){1,2}";
    let first = proptest::string::string_regex(first).unwrap();
    let more = select(&["a=x", "a[]=x", "a[]", "a[b]=x", "a[0]=x", "a[0][]=x", "p{}=x", "a[{}]=x"]);
    let count = Union::new([Just(97_usize..104), Just(996..1004)]).prop_flat_map(|range| range);
    let many = (first, more, count, "(&a(\\[(0|b|)\\])?=(y|z)?){0,3}");
    let many = many.prop_map(|(first, more, count, last)| {
        let more: Vec<_> =
            (0..count).map(|number| more.replace("{}", &number.to_string())).collect();
        format!("{first}{}{last}", more.join("&"))
    });
    [
        ("tokens", PAIRS, Union::new([tokens.boxed()])),
        ("nested", PAIRS, Union::new([nested.boxed()])),
        ("many", PAIRS / 20, Union::new([many.boxed()])),
    ]
}

#[test]
fn queries_are_read_as_nango_reads_them() {
    let mut node = Peer::node("qs.mjs", &[]);
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for (kind, count, queries) in kinds() {
        let pairs = changed(queries);
        let pairs: Vec<Pair> =
            (0..count).map(|_| pairs.new_tree(&mut runner).unwrap().current()).collect();
        let mut equal = 0;
        for some in pairs.chunks(200) {
            node.send(&serde_json::to_value(some).unwrap());
            let message = node.receive();
            let results = message["results"].as_array().unwrap();
            assert_eq!(results.len(), some.len());
            for ((one, other), result) in some.iter().zip(results) {
                let ours = [one, other].map(|query| read_by_nango(query));
                assert_eq!(ours[0], result["one"], "{kind}: {one}");
                assert_eq!(ours[1], result["other"], "{kind}: {other}");
                let same = ours[0] == ours[1];
                assert_eq!(Value::Bool(same), result["equal"], "{kind}: {one} and {other}");
                equal += usize::from(same && one != other);
            }
        }
        // Neither answer is the rare one.
        println!("{kind}: {equal} of {count} pairs differ only in their bytes");
        assert!(equal > count / 20 && equal < count / 2, "{kind}: {equal} of {count}");
    }
}
