use super::*;
use serde_json::json;

/// The results are those of `qs` 6.17.1 with `{ arrayLimit: 100 }`.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn queries_are_read_as_qs_reads_them() {
    #[rustfmt::skip]
    let table = [
        ("", json!({})),
        ("a=1", json!({"a":"1"})),
        ("a=1&b=2", json!({"a":"1","b":"2"})),
        ("a", json!({"a":""})),
        ("a=", json!({"a":""})),
        ("a=1&a=2&a=1", json!({"a":["1","2","1"]})),
        ("a=&a", json!({"a":["",""]})),
        ("&&a=1&", json!({"a":"1"})),
        ("=x", json!({})),
        ("=", json!({})),
        ("a=b=c==", json!({"a":"b=c=="})),
        ("a+b=c+d", json!({"a b":"c d"})),
        ("a%20b=%2B+%26%3D%23", json!({"a b":"+ &=#"})),
        ("a=%C3%A9", json!({"a":"é"})),
        ("a=%e2%9C%93", json!({"a":"✓"})),
        ("a=%E9", json!({"a":"%E9"})),
        ("a=%zz+x", json!({"a":"%zz x"})),
        ("a=%5b%5D%zz", json!({"a":"[]%zz"})),
        ("a=100%", json!({"a":"100%"})),
        ("a=%", json!({"a":"%"})),
        ("a=%C3%A9%C3", json!({"a":"%C3%A9%C3"})),
        ("a=%ED%A0%80", json!({"a":"%ED%A0%80"})),
        ("a=%F0%9F%98%80", json!({"a":"😀"})),
        ("a=%00", json!({"a":"\0"})),
        ("a[]=1", json!({"a":["1"]})),
        ("a[]=1&a[]=2", json!({"a":["1","2"]})),
        ("a[]=", json!({"a":[""]})),
        ("a[]", json!({"a":[""]})),
        ("a[0]=1", json!({"a":["1"]})),
        ("a[1]=x&a[0]=y", json!({"a":["y","x"]})),
        ("a[5]=x&a[2]=y", json!({"a":["y","x"]})),
        ("a[01]=x", json!({"a":{"01":"x"}})),
        ("a[-1]=x", json!({"a":{"-1":"x"}})),
        ("a[99]=x", json!({"a":["x"]})),
        ("a[100]=x", json!({"a":{"100":"x"}})),
        ("a[100]=x&a=y", json!({"a":{"100":"x","101":"y"}})),
        ("a[100]=x&a[]=y", json!({"a":{"0":"y","100":"x"}})),
        ("a[b]=1", json!({"a":{"b":"1"}})),
        ("a[b][c]=1&a[b][d]=2", json!({"a":{"b":{"c":"1","d":"2"}}})),
        ("a%5Bb%5D=1", json!({"a":{"b":"1"}})),
        ("a%5bb%5d=%5B%5D", json!({"a":{"b":"[]"}})),
        ("a[b]=1&a[b]=2", json!({"a":{"b":["1","2"]}})),
        ("a[b]c[d]=1", json!({"a":{"b":{"d":"1"}}})),
        ("a[b", json!({"a":{"[b":""}})),
        ("a]b=1", json!({"a]b":"1"})),
        ("a[b]]=1", json!({"a":{"b":"1"}})),
        ("a%5bb=c%5d=d", json!({"a":{"b=c":"d"}})),
        ("a[%2B1]=x", json!({"a":{"+1":"x"}})),
        ("4294967294[a]=1&4294967294=2", json!({"4294967294":["2",{"a":"1"}]})),
        ("4294967295[a]=1&4294967295=2", json!({"4294967295":[{"a":"1"},"2"]})),
        ("a[98]=x&a[0]=y&a[0]=z&a[99]=w&a=v", json!({"a":[["y","z"],"x","w","v"]})),
        ("a[99]=x&a[99][b]=y&a[]=z&a=w", json!({"a":["z","x",{"b":"y"},"w"]})),
        ("a[b]=1&a[100]=x&a=y", json!({"a":{"100":"x","101":"y","b":"1"}})),
        ("a[100]=x&a[200]=y&a=z", json!({"a":{"100":"x","200":"y","201":"z"}})),
        ("a=1&a[100]=x&[a]=y", json!({"a":{"0":"1","101":"x","102":"y"}})),
        ("a[0][b]=1&a[0]=2", json!({"a":[{"b":"1"},"2"]})),
        ("a[x][b]=1&a[x]=2&a[x]p=3&a[x]q=4", json!({"a":{"x":[{"b":"1"},"2","3","4"]}})),
        ("a[x][b]=1&a[x]=2&a[x][c]=3&a[x]p=4&a[x]q=5", json!({"a":{"x":{"0":{"b":"1"},"1":"2","2":"4","3":"5","c":"3"}}})),
        ("a[x][b]=1&a[x]=2&a[x]p=3&a[x][c]=4&a[x]q=5", json!({"a":{"x":{"0":{"b":"1"},"1":"2","2":"3","3":"5","c":"4"}}})),
        ("a[x][b]=1&a[x]=2&a[x][c]=3&a[x][7]=4&a[x]p=5", json!({"a":{"x":{"0":{"b":"1"},"1":"2","7":"4","8":"5","c":"3"}}})),
        ("a[99]=x&a[99][b]=y&[a][99]=q&a[100]=z&a=w", json!({"a":{"99":"x","100":[{"b":"y"},"z"],"101":"q","102":"w"}})),
        ("[a]=1", json!({"a":"1"})),
        ("[]=1", json!({"0":"1"})),
        ("[0]=1&[]=2", json!({"0":["1","2"]})),
        ("[]", json!({"0":""})),
        ("a[[b]]=1", json!({"a":{"[b]":"1"}})),
        ("a[b[]]=1", json!({"a":{"b[]":"1"}})),
        ("a[b][c][d][e][f]=1", json!({"a":{"b":{"c":{"d":{"e":{"f":"1"}}}}}})),
        ("a[b][c][d][e][f][g]=1", json!({"a":{"b":{"c":{"d":{"e":{"f":{"[g]":"1"}}}}}}})),
        ("a[b][c][d][e][f][g][h]=1", json!({"a":{"b":{"c":{"d":{"e":{"f":{"[g][h]":"1"}}}}}}})),
        ("[a][b][c][d][e][f]=1", json!({"a":{"b":{"c":{"d":{"e":{"[f]":"1"}}}}}})),
        ("a=1&a[]=2", json!({"a":["1","2"]})),
        ("a[]=1&a=2", json!({"a":["1","2"]})),
        ("a[0]=1&a[]=2", json!({"a":["1","2"]})),
        ("a[]=2&a[0]=1", json!({"a":["2","1"]})),
        ("a=1&a[b]=2", json!({"a":["1",{"b":"2"}]})),
        ("a[b]=2&a=1", json!({"a":[{"b":"2"},"1"]})),
        ("a[b]=2&a=1&a[c]=3", json!({"a":{"0":{"b":"2"},"1":"1","c":"3"}})),
        ("a[b]=1&a[]=2", json!({"a":{"0":"2","b":"1"}})),
        ("a[]=2&a[b]=1", json!({"a":{"0":"2","b":"1"}})),
        ("a[0]=1&a[b]=2", json!({"a":{"0":"1","b":"2"}})),
        ("a[]=1&a=", json!({"a":["1"]})),
        ("a[b]=1&a=", json!({"a":{"b":"1"}})),
        ("a=&a[]=1", json!({"a":["","1"]})),
        ("a=x&a[y]=1&a=z", json!({"a":{"0":"x","1":"z","y":"1"}})),
        ("a[0][b]=1&a[0][c]=2", json!({"a":[{"b":"1","c":"2"}]})),
        ("a[0]=1&a[0]=2", json!({"a":[["1","2"]]})),
        ("a[][b]=1&a[][b]=2", json!({"a":[{"b":["1","2"]}]})),
        ("a[][b]=1&a[][c]=2", json!({"a":[{"b":"1","c":"2"}]})),
        ("toString=1&a=2", json!({"a":"2"})),
        ("a[toString]=1", json!({})),
        ("__proto__=1", json!({})),
        ("a[__proto__]=1", json!({})),
        ("a[b][constructor]=1&c=1", json!({"c":"1"})),
        ("hasOwnProperty[x]=1", json!({})),
        ("0[a]=1&0=2", json!({"0":["2",{"a":"1"}]})),
        ("1=a&0=b", json!({"0":"b","1":"a"})),
        ("a=b]=c", json!({"a=b]":"c"})),
        ("a[b=c]=d", json!({"a":{"b=c":"d"}})),
        ("a[x=y&b=]=c", json!({"a":{"[x":"y"},"b=]":"c"})),
        ("a,b=1,2", json!({"a,b":"1,2"})),
        ("a.b=1", json!({"a.b":"1"})),
        ("a=1&A=2", json!({"a":"1","A":"2"})),
        ("utf8=%E2%9C%93&a=%E9", json!({"utf8":"✓","a":"%E9"})),
        ("a;b=1", json!({"a;b":"1"})),
        ("a=&#8226;", json!({"a":"","#8226;":""})),
        ("__defineGetter__=1&__defineSetter__=1&__lookupGetter__=1&__lookupSetter__=1&isPrototypeOf=1&propertyIsEnumerable=1&toLocaleString=1&valueOf=1&constructor=1&hasOwnProperty=1", json!({})),
    ];
    for (query, expected) in table {
        assert_eq!(read_by_nango(query), expected, "{query}");
    }
}

#[test]
fn an_array_of_more_than_100_elements_is_an_object() {
    for name in ["a", "a[]"] {
        let query = |count: usize| vec![format!("{name}=x"); count].join("&");
        let read = |query: &str| read_by_nango(query)["a"].clone();
        assert_eq!(read(&query(100)).as_array().unwrap().len(), 100, "{name}");
        let object = read(&query(102));
        assert_eq!(object.as_object().unwrap().len(), 102, "{name}");
        assert_eq!(object["101"], "x", "{name}");
        let more = read(&format!("{}&a[b]=y&a=z", query(101)));
        assert_eq!((&more["101"], &more["b"]), (&json!("z"), &json!("y")), "{name}");
    }
}

#[test]
fn an_array_becomes_an_object_when_a_value_exceeds_the_limit() {
    let elements = |count: usize| vec!["a[]=x"; count].join("&");
    for last in ["a=y", "a[0]=y"] {
        let read =
            |count: usize| read_by_nango(&format!("{}&{last}", elements(count)))["a"].clone();
        assert_eq!(read(99)[99], "y", "{last}");
        assert!(read(99).is_array(), "{last}");
        assert_eq!(read(100)["100"], "y", "{last}");
        assert_eq!(read(100).as_object().unwrap().len(), 101, "{last}");
    }
    // The index continues after the last one.
    let read = read_by_nango(&format!("{}&a=y&[a]=z", elements(100)));
    assert_eq!((&read["a"]["100"], &read["a"]["101"]), (&json!("y"), &json!("z")));
}

#[test]
fn parameters_after_the_first_1000_are_ignored() {
    let query: Vec<_> = (0..1001).map(|number| format!("p{number}=x")).collect();
    let read = read_by_nango(&query.join("&"));
    assert_eq!(read.as_object().unwrap().len(), 1000);
    assert_eq!(read.get("p1000"), None);
}

#[test]
fn the_largest_index_does_not_overflow() {
    for index in [MAX_SAFE_INTEGER, MAX_SAFE_INTEGER + 1, u64::MAX] {
        let read = read_by_nango(&format!("a[{index}]=x&a=y&a=z&a[0]=w"));
        assert_eq!(read["a"][index.to_string()], "x");
    }
}

#[test]
fn equal_values_are_equal_in_any_spelling() {
    #[rustfmt::skip]
    let equal = [
        ("code=4/0Ab", "code=4%2F0Ab"),
        ("a=x%20y", "a=x+y"),
        ("a=%2f", "a=%2F"),
        ("name=O%27Brien", "name=O'Brien"),
        ("flag", "flag="),
        ("a=1&&b=2&", "a=1&b=2"),
        ("b=1&a=2", "a=2&b=1"),
        ("a[]=1&a[]=2", "a%5B0%5D=1&a%5B1%5D=2"),
    ];
    for (one, other) in equal {
        assert_eq!(read_by_nango(one), read_by_nango(other), "{one} = {other}");
    }
    #[rustfmt::skip]
    let unequal = [
        ("a=1&a=2", "a=2&a=1"),
        ("a=1&a=1", "a=1"),
        ("a=1&a=2", "a=1,2"),
        ("a=", ""),
        ("a=x+y", "a=x%2By"),
        ("a=%2F", "a=%252F"),
        ("a=B", "a=b"),
        ("a=1", "A=1"),
        ("a=1", "a[]=1"),
    ];
    for (one, other) in unequal {
        assert_ne!(read_by_nango(one), read_by_nango(other), "{one} ≠ {other}");
    }
}

proptest::proptest! {
    #[test]
    fn any_query_is_read(query in r"(a|[\[\]]|0|99|100|=|&|%5b|%5D|%|.){0,60}") {
        let read = read_by_nango(&query);
        proptest::prop_assert!(read.is_object());
    }
}
