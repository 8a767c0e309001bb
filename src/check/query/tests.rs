//! Which differences between queries are found, and how they are described.

use super::*;

/// The difference between two queries, both as browsers send them.
fn found(sent: &str, got: &str) -> Option<Difference> {
    difference(&as_browsers_send(sent), Some(got), "P-", "P-1")
}

#[test]
fn differences_are_classified() {
    let re = |sent: &str, got: &str, twice, equal| {
        Some(Difference::Reencoded { sent: sent.into(), got: got.into(), twice, equal })
    };
    let lost = |sent: &str, got: &str| re(sent, got, false, false);
    let kept = |sent: &str, got: &str| re(sent, got, false, true);
    let twice = |sent: &str, got: &str| re(sent, got, true, false);
    let parameters = |words: &str| Some(Difference::Parameters(words.into()));
    let rearranged = |words: &str| Some(Difference::Rearranged(words.into()));
    let value = |name: &str| Some(Difference::Value(name.into()));
    #[rustfmt::skip]
    let table = [
        ("s=P-1&a=1", "s=P-1&a=1", None),
        ("s=P-1&a=1", "", Some(Difference::Dropped)),
        ("s=P-1&a=1", "#x", Some(Difference::Dropped)),
        ("s=P-1&a=1", "$args", Some(Difference::Template("$args"))),
        ("s=P-1&a=1", "s=P-2&a=1", Some(Difference::Stale)),
        ("s=P-1&a=1", "s=P-1&a=1#_=_", Some(Difference::Fragment)),
        ("s=P-1&a=%2F", "s=P-1&a=/#_=_", Some(Difference::Fragment)),
        ("s=P-1&a=1", "s=P-1&a=2#_=_", value("a")),
        // Encoded differently, with the same values.
        ("s=P-1&a=4/0Ab", "s=P-1&a=4%2F0Ab", kept("a=4/0Ab", "a=4%2F0Ab")),
        ("s=P-1&a=%2F", "s=P-1&a=/", kept("a=%2F", "a=/")),
        ("s=P-1&a=%2f&b", "s=P-1&a=%2F&b", kept("a=%2f", "a=%2F")),
        ("s=P-1&a=x%20y", "s=P-1&a=x+y", kept("a=x%20y", "a=x+y")),
        ("s=P-1&a=x+y", "s=P-1&a=x%20y", kept("a=x+y", "a=x%20y")),
        ("s=P-1&a=%7E", "s=P-1&a=~", kept("a=%7E", "a=~")),
        ("s=P-1&a=100%", "s=P-1&a=100%25", kept("a=100%", "a=100%25")),
        ("s=P-1&a[]=1", "s=P-1&a%5B%5D=1", kept("a[]=1", "a%5B%5D…")),
        ("s=P-1&a=https%3a%2f&b", "s=P-1&a=https%3A%2F&b", kept("a=https%3a%2f", "a=https%3A%2F")),
        ("s=P-1&name=A%3a+User+x", "s=P-1&name=A%3A+User+x", kept("name=A%3a+Us…", "name=A%3A+Us…")),
        // Encoded differently, with other values.
        ("s=P-1&a=x+y", "s=P-1&a=x%2By", lost("a=x+y", "a=x%2By")),
        ("s=P-1&a=x%2By", "s=P-1&a=x+y", lost("a=x%2By", "a=x+y")),
        ("s=P-1&a=x%26b", "s=P-1&a=x&b", lost("a=x%26b", "a=x&b")),
        ("s=P-1&a=x%23b", "s=P-1&a=x#b", lost("a=x%23b", "a=x#b")),
        ("s=P-1&a=100%&c=%zz%20x", "s=P-1&a=100%25&c=%25zz%20x", lost("a=100%", "a=100%25")),
        ("s=P-1&a=a&b", "s=P-1&a=a%26b", lost("a=a&b", "a=a%26b")),
        ("s=P-1&a=1", "s=P-1&amp;a=1", lost("&", "&amp;")),
        ("s=P-1&a=x/?y&b=1", "s=P-1&a=x/", Some(Difference::Ends("a".into(), '?'))),
        ("s=P-1&a=x=&b=1", "s=P-1&a=x", Some(Difference::Ends("a".into(), '='))),
        ("s=P-1&a=%2F", "s=P-1&a=%252F", twice("a=%2F", "a=%252F")),
        ("s=P-1&a=%252F", "s=P-1&a=%2F", value("a")),
        // Apache does so with `%{QUERY_STRING}` and without `NE`.
        ("s=P-1&a=%2F&", "s=P-1&a=%252F", twice("a=%2F", "a=%252F")),
        // The same values for Nango.
        ("s=P-1&a=1", "a=1&s=P-1", rearranged("the parameters arrive in another order")),
        ("s=P-1&z=1&a=1&z=2", "a=1&s=P-1&z=1&z=2", rearranged("the parameters arrive in another order")),
        ("s=P-1&b", "s=P-1&b=", rearranged("`b` arrives as `b=`")),
        ("s=P-1&b=", "s=P-1&b", rearranged("`b=` arrives as `b`")),
        ("s=P-1&a=1&&b=2", "s=P-1&a=1&b=2", rearranged("a parameter without a name is lost (`&&` or `=value`)")),
        ("s=P-1&a=1&", "s=P-1&a=1", rearranged("a parameter without a name is lost (`&&` or `=value`)")),
        ("s=P-1&=x", "s=P-1", rearranged("a parameter without a name is lost (`&&` or `=value`)")),
        ("s=P-1&a[]=1&a[]=2", "s=P-1&a[0]=1&a[1]=2", rearranged("`a[]` is sent 2 times and arrives 0 times, `a[0]` is added, `a[1]` is added")),
        ("s=P-1&=x", "s=P-1&=y", rearranged("only what Nango ignores is different")),
        // Lost, added, merged or moved.
        ("s=P-1&a=1&a=2", "s=P-1&a=2", parameters("`a` is sent 2 times and arrives once")),
        ("s=P-1&a=1&a=2", "s=P-1&a=1,2", parameters("`a` is sent 2 times and arrives once")),
        ("s=P-1&a=1&a=2", "s=P-1&a=2&a=1", parameters("the values of `a` arrive in another order")),
        ("s=P-1&b=1&a=1&b=2&a=2", "a=1&a=2&b=2&b=1&s=P-1", parameters("the values of `b` arrive in another order")),
        ("s=P-1&b", "s=P-1", parameters("`b` is lost")),
        ("s=P-1&b=", "s=P-1", parameters("`b` is lost")),
        ("s=P-1", "s=P-1&path=x", parameters("`path` is added")),
        ("s=P-1&a=1&a=1", "s=P-1&a=1", parameters("`a` is sent 2 times and arrives once")),
        ("s=P-1&a=abc", "s=P-1&a=***", value("a")),
        ("s=P-1&a=aBc", "s=P-1&a=abc", value("a")),
        ("s=P-1&a=+x", "s=P-1&a=x", value("a")),
    ];
    for (sent, got, expected) in table {
        let found = found(sent, got);
        assert_eq!(found, expected, "{sent} → {got}");
        let equal = read_by_nango(sent) == read_by_nango(got.split('#').next().unwrap());
        let kept = found.is_none_or(|found| found.keeps_values());
        // Decoded from `%23`, the fragment is a lost value.
        assert_eq!(kept, equal, "{sent} → {got}");
    }
    assert_eq!(difference("s=P-1", None, "P-", "P-1"), Some(Difference::Dropped));
    let long = format!("s=P-1&a={}", "x".repeat(2000));
    assert_eq!(found(&long, &long[..1500]), Some(Difference::Cut(1500)));
    assert_eq!(found(&long[..1024], &long[..1000]), value("a"));
    assert_eq!(found(&long[..1025], &long[..1000]), Some(Difference::Cut(1000)));
}

/// The WHATWG URL Standard's special-query percent-encode set, in the implementation of the
/// `url` crate.
#[test]
fn queries_are_encoded_as_browsers_encode_them() {
    // A fragment starts at `#`, and tabs and line breaks are removed from a URL.
    let parsed = |byte: &u8| !b"#\t\n\r".contains(byte);
    let bytes = (0..=0x7f_u8).filter(parsed).map(char::from);
    let every: String = bytes.chain(['é', '✓', '😀']).collect();
    let url = url::Url::parse(&format!("https://example.com/?{every}")).unwrap();
    assert_eq!(Some(as_browsers_send(&every).as_str()), url.query());
    assert_eq!(as_browsers_send("#\t\n\r"), "%23%09%0A%0D");
}

#[test]
fn foreign_values_are_never_shown() {
    for got in [
        "s=P-1&a=s3cret",
        "s=P-1&a=1&s3cret",
        "s3cret",
        "s=P-1&a=1&token=s3cret",
        "s=P-1&a=1#s3cret",
    ] {
        let found = found("s=P-1&a=1", got).unwrap();
        assert!(!found.description().contains("s3cret"), "{}", found.description());
    }
}
proptest::proptest! {
    /// Any Location is classified, and the description contains only bytes that were sent.
    #[test]
    fn any_query_is_classified(sent in "[a-c%2Ff=&+é]{0,40}", got in ".{0,60}", cut in 0_usize..40) {
        let _ = found(&sent, &got);
        let mut changed = sent.clone().into_bytes();
        changed.truncate(cut);
        changed.extend_from_slice(b"&Z9=SECRET&SECRET&=SECRET");
        let changed = as_browsers_send(&String::from_utf8_lossy(&changed));
        if let Some(found) = found(&sent, &changed) {
            proptest::prop_assert!(!found.description().contains("SECRET"), "{}", found.description());
        }
    }

    /// A difference keeps the values exactly when Nango reads the same.
    #[test]
    fn values_are_kept_when_nango_reads_the_same(
        sent in "[ab]=(%2[F5]|%2f|%20|[+/x]){0,2}(&[ab](=[xy+]?)?){0,3}",
        got in "[ab]=(%2[F5]|%2f|%20|[+/x]){0,2}(&[ab](=[xy+]?)?){0,3}",
    ) {
        let kept = found(&sent, &got).is_none_or(|found| found.keeps_values());
        proptest::prop_assert_eq!(kept, read_by_nango(&sent) == read_by_nango(&got));
    }
}
