//! The redirect, byte for byte, over HTTP/1.1, HTTP/2 and TLS.

use crate::support::{Authority, Edge, Http1, Http2, certified, connect, connect_tls, settings};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::net::SocketAddr;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};

const TARGET: &str = "https://api.nango.dev/oauth/callback";

const PLAIN: &str = "
    listen.http = '127.0.0.1:0'
    log.requests = false
";

/// Health endpoints are on the same listener as redirects.
const TLS: &str = "
    listen.admin = 'off'
    log.requests = false
";

/// Callbacks as providers really send them; the values are invented.
fn corpus() -> Vec<String> {
    let entra_code = "0.AXoA".to_owned() + &"kQ8-_x.9Zt".repeat(600);
    let mut corpus: Vec<String> = [
        // Google: a scope with slashes, a colon and a space as `+` or `%20`.
        "state=2f1&code=4/0AeaYSHB&scope=email%20profile%20https://www.googleapis.com/auth/userinfo.profile%20openid&authuser=0&hd=example.com&prompt=consent",
        "state=2f1&code=4%2F0AeaYSHB&scope=email+https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fuserinfo.email&authuser=1&prompt=none",
        // QuickBooks, Zoho, Amazon SP, Shopify.
        "code=AB11&state=2f1&realmId=9130347957983546",
        "state=2f1&code=1000.aa.bb&location=eu&accounts-server=https%3A%2F%2Faccounts.zoho.eu&",
        "spapi_oauth_code=RHcd&selling_partner_id=A3FHEXAMPLE&state=2f1&mws_auth_token=amzn.mws.1",
        "code=0907a61c&hmac=700e2dadb827fcc8609e9d5ce208b2e9cdaab9df07390d2cbca10d7c328fc4bf&host=YWRtaW4uc2hvcA&shop=some-shop.myshopify.com&state=0.6784241404160823&timestamp=1337178173",
        // OAuth 1, with the state that Nango puts into the callback; denial at X.
        "state=2f1&oauth_token=hdk48Djdsa&oauth_verifier=473f82d3",
        "state=2f1&denied=hdk48Djdsa",
        // GitHub Apps: install, update, with and without state.
        "installation_id=12345678&setup_action=install&state=2f1&code=1f3a",
        "installation_id=12345678&setup_action=update",
        // Crisp, Shopline, Braintree, Clover, Lightspeed, MYOB, Walmart, Wildix.
        "payload=2f1&website_id=8c842203-7ed8-4e29-a608-7cf78a7d2fcc&plugin=p",
        "appkey=a1&customField=2f1&code=9&handle=shop&timestamp=1699&sign=ff00",
        "state=2f1&code=9&merchantId=use_your_merchant_id",
        "merchant_id=JB2X&employee_id=3A&client_id=C1&code=9&state=2f1",
        "code=9&domain_prefix=some-shop&state=2f1&user_id=u-1&signature=ab",
        "code=es!AAAA%21&state=2f1&businessId=5e1a&businessName=A%20%26%20B%27s",
        "sellerId=101&type=auth&clientId=c&state=2f1&code=9",
        "subdomain=pbx1&code=9&state=2f1",
        // Entra: admin consent, session state; RFC 9207 issuer; errors.
        "admin_consent=True&tenant=a8990e1f-ff32-408a-9f8e-78d3b9139b95&state=2f1",
        "code=9&state=2f1&iss=https%3A%2F%2Fauth.example.com%2Frealms%2Fmain&session_state=f3%2d1",
        "error=access_denied&error_description=The+user+has+denied+access&state=2f1#".trim_end_matches('#'),
        "error=invalid_scope&error_description=AADSTS70011%3a+The+provided+value+%27x%27&error_uri=https%3a%2f%2flogin.example%2ferror%3fcode%3d70011&state=2f1",
        // Queries that frameworks normalize: duplicates, order, empty values, bare keys, stray separators.
        "code=1&code=2&code=1",
        "b=1&a=2&state=2f1&A=3",
        "code=&state=&empty=",
        "code&state&=&==&===",
        "&&code=1&&&state=2f1&",
        "code=%2F%2f%3D%3d%zz%&state=%25252F",
        "scope=a+b%20c%2Bd&state='quoted'",
        "x[]=1&x[a]=2&{y}=|z|^`\\",
        "name=Jürgen&city=東京&emoji=🦀",
        "?code=1?state=2f1",
        "state=eyJhIjoiYiJ9.e30=&code=a~b-c_d.e!f*g(h)i;j:k@l,m$n/o?p",
    ]
    .map(ToOwned::to_owned)
    .to_vec();
    corpus.push(format!("code={entra_code}&state=2f1&session_state=00f1"));
    corpus
}

#[tokio::test]
async fn real_callbacks_arrive_as_sent() {
    let plain = Edge::start(PLAIN);
    let (tls, authority) = Edge::over_tls(TLS);
    let mut h1 = connect(plain.http[0]).await;
    let stream = connect_tls(&authority, tls.https[0], "localhost", &["http/1.1"]).await;
    let mut h1_tls = Http1::new(stream.unwrap());
    let mut h2 = Http2::connect(&authority, tls.https[0], "localhost").await;
    let corpus = corpus();
    assert!(corpus.len() >= 25);
    for query in &corpus {
        let target = format!("/oauth/callback?{query}");
        let expected = format!("{TARGET}?{query}");
        for reply in [
            h1.get(&target).await.unwrap(),
            h1_tls.get(&target).await.unwrap(),
            h2.get(&target).await.unwrap(),
        ] {
            assert_eq!((reply.status, reply.location()), (308, expected.clone()));
            assert_eq!(reply.names(), "cache-control content-length date location");
            assert_eq!(reply.text("cache-control"), "no-store");
            assert_eq!(reply.text("content-length"), "0");
        }
    }
}

/// RFC 3986 §3.4: what a query is made of.
fn is_query_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/?".contains(&byte)
}

#[tokio::test]
async fn every_query_of_one_and_two_bytes_arrives_as_sent_or_is_refused() {
    let edge = Edge::start(PLAIN);
    let address = edge.http[0];
    let all: Vec<Vec<u8>> = (0..=255u8)
        .map(|a| vec![a])
        .chain((0..=255u8).flat_map(|a| (0..=255u8).map(move |b| vec![a, b])))
        .collect();
    assert_eq!(all.len(), 65_792);
    let mut tasks = tokio::task::JoinSet::new();
    for part in all.chunks(all.len() / 8 + 1) {
        let part = part.to_vec();
        tasks.spawn(async move {
            let mut client = connect(address).await;
            let mut accepted = 0;
            for query in part {
                if arrives_as_sent(&mut client, &query).await {
                    accepted += 1;
                } else {
                    assert!(!query.iter().all(|&byte| is_query_character(byte)), "{query:?}");
                    client = connect(address).await;
                }
            }
            accepted
        });
    }
    let accepted: usize = tasks.join_all().await.into_iter().sum();
    // The 82 characters of RFC 3986 make 82 + 82² of them.
    assert!(accepted >= 82 + 82 * 82, "{accepted}");
}

/// Whether the query was redirected, in which case it was not altered. Otherwise it got a 400.
async fn arrives_as_sent<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Http1<S>,
    query: &[u8],
) -> bool {
    let target = [b"/oauth/callback?", query].concat();
    let reply = client.get(&target).await;
    let reply = reply.unwrap_or_else(|| panic!("no response to {query:?}"));
    if reply.status == 308 {
        let expected = [TARGET.as_bytes(), b"?", query].concat();
        assert_eq!(reply.header("location"), Some(expected.as_slice()));
        return true;
    }
    assert_eq!(reply.status, 400, "{query:?}");
    false
}

#[test]
fn long_queries_arrive_as_sent_or_are_refused() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let plain = Edge::start(PLAIN);
    let (tls, authority) = Edge::over_tls(TLS);
    // Mostly bytes that are allowed in queries, so that most are accepted, and a few others.
    let common = (0x21..=0x7eu8).prop_filter("a query byte", |byte| !b"\"#<>".contains(byte));
    let byte = prop_oneof![3000 => common, 1 => any::<u8>()];
    let queries = prop_oneof![
        proptest::collection::vec(byte, 0..3000),
        "[!-~]{0,200}".prop_map(String::into_bytes),
        "\\PC{0,300}".prop_map(String::into_bytes),
    ];
    let accepted = std::cell::Cell::new(0);
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&queries, |query| {
            runtime.block_on(async {
                let mut client = connect(plain.http[0]).await;
                let on_plain = arrives_as_sent(&mut client, &query).await;
                let stream = connect_tls(&authority, tls.https[0], "localhost", &[]).await;
                let on_tls = arrives_as_sent(&mut Http1::new(stream.unwrap()), &query).await;
                prop_assert_eq!(on_plain, on_tls);
                accepted.set(accepted.get() + u32::from(on_plain));
                // What a URL type cannot represent cannot be passed to an HTTP/2 client either.
                let Ok(text) = std::str::from_utf8(&query) else { return Ok(()) };
                let target = format!("/oauth/callback?{text}");
                if on_plain && target.parse::<http::uri::PathAndQuery>().is_ok() {
                    let mut h2 = Http2::connect(&authority, tls.https[0], "localhost").await;
                    let reply = h2.get(&target).await.unwrap();
                    prop_assert_eq!(reply.location(), format!("{TARGET}?{text}"));
                }
                Ok(())
            })
        })
        .unwrap();
    let accepted = accepted.get();
    assert!(accepted > 50, "only {accepted} were accepted: the test shows nothing");
}

#[tokio::test]
async fn queries_up_to_the_limit_pass_and_longer_ones_get_414() {
    let plain = Edge::start(PLAIN);
    let (tls, authority) = Edge::over_tls(TLS);
    for (kib, status) in
        [(2, 308), (4, 308), (8, 308), (12, 308), (16, 308), (31, 308), (33, 414), (60, 414)]
    {
        let query = "q=".to_owned() + &"0123456789abcdef".repeat(kib * 64);
        let target = format!("/oauth/callback?{query}");
        let mut h1 = connect(plain.http[0]).await;
        let stream = connect_tls(&authority, tls.https[0], "localhost", &[]).await.unwrap();
        let mut h2 = Http2::connect(&authority, tls.https[0], "localhost").await;
        for reply in [
            h1.get(&target).await.unwrap(),
            Http1::new(stream).get(&target).await.unwrap(),
            h2.get(&target).await.unwrap(),
        ] {
            assert_eq!(reply.status, status, "{kib} KiB");
            if status == 308 {
                assert_eq!(reply.location(), format!("{TARGET}?{query}"));
            }
        }
    }
}

#[tokio::test]
async fn the_query_is_appended_to_that_of_the_target() {
    let edge = Edge::start(
        "
        listen.http = '127.0.0.1:0'
        [[route]]
        path = '/own'
        target = 'https://t.example/cb?own=1'
        [[route]]
        path = '/bare'
        target = 'https://t.example/cb'
        ",
    );
    let mut client = connect(edge.http[0]).await;
    for (target, location) in [
        ("/own?code=1", "https://t.example/cb?own=1&code=1"),
        ("/own", "https://t.example/cb?own=1"),
        ("/own?", "https://t.example/cb?own=1"),
        ("/bare?code=1", "https://t.example/cb?code=1"),
        ("/bare", "https://t.example/cb"),
        ("/bare?", "https://t.example/cb?"),
    ] {
        assert_eq!(client.get(target).await.unwrap().location(), location, "{target}");
    }
}

#[tokio::test]
async fn methods_get_the_documented_responses_on_every_protocol() {
    let plain = Edge::start(PLAIN);
    let (tls, authority) = Edge::over_tls(TLS);
    let form = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 6\r\n";
    #[rustfmt::skip]
    let rows: &[(&str, &str, &str, &str, u16, &str)] = &[
        ("GET", "/oauth/callback?a=1", "", "", 308, "cache-control content-length date location"),
        ("HEAD", "/oauth/callback?a=1", "", "", 308, "cache-control content-length date location"),
        ("POST", "/oauth/callback?a=1", form, "code=2", 303, "cache-control content-length date location"),
        ("POST", "/oauth/callback", "content-length: 0\r\n", "", 405, "allow cache-control content-length content-type date"),
        ("PUT", "/oauth/callback", "", "", 405, "allow cache-control content-length content-type date"),
        ("OPTIONS", "/oauth/callback", "", "", 204, "allow cache-control date"),
        ("GET", "/oauth/callback?a=1", "sec-purpose: prefetch\r\n", "", 503, "cache-control content-length content-type date"),
        ("GET", "/oauth/callback/", "", "", 404, "cache-control content-length content-type date"),
        ("GET", "/app-auth/connect?installation_id=1", "", "", 308, "cache-control content-length date location"),
        ("GET", "/healthz", "", "", 200, "cache-control content-length content-type date"),
        ("GET", "/readyz", "", "", 200, "cache-control content-length content-type date"),
        ("POST", "/healthz", "content-length: 0\r\n", "", 405, "allow cache-control content-length content-type date"),
    ];
    let mut h2 = Http2::connect(&authority, tls.https[0], "localhost").await;
    for &(method, target, fields, body, status, names) in rows {
        let mut h1 = connect(plain.http[0]).await;
        let on_h1 = h1.request(method, target, fields, body.as_bytes()).await.unwrap();
        let mut request = http::Request::builder().method(method);
        request = request.uri(format!("https://localhost{target}"));
        for (name, value) in fields.lines().filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        let on_h2 = h2.request(request.body(()).unwrap(), body.as_bytes()).await.unwrap();
        for (reply, version) in [(on_h1, 1), (on_h2, 2)] {
            // A connection over HTTP/1 ends after a request with a body.
            let ends = version == 1 && !body.is_empty();
            assert_eq!(reply.text("connection"), if ends { "close" } else { "" });
            let found = reply.names().replace("connection ", "");
            assert_eq!((reply.status, found.as_str()), (status, names), "{method} {target}");
            if method == "POST" && status == 303 {
                assert_eq!(reply.location(), format!("{TARGET}?a=1&code=2"));
            }
        }
    }
}

#[tokio::test]
async fn forms_over_the_limit_get_413_and_malformed_forms_400() {
    let edge = Edge::start(PLAIN);
    let post =
        async |form: &str| connect(edge.http[0]).await.post("/oauth/callback", form).await.unwrap();
    let fits = "code=".to_owned() + &"x".repeat(32 * 1024 - 5);
    assert_eq!(post(&fits).await.location(), format!("{TARGET}?{fits}"));
    assert_eq!(post(&(fits + "x")).await.status, 413);
    assert_eq!(post("code=a b").await.status, 400);
    assert_eq!(post("code=a#b").await.status, 400);

    let mut client = connect(edge.http[0]).await;
    let chunked =
        "content-type: application/x-www-form-urlencoded\r\ntransfer-encoding: chunked\r\n";
    let reply =
        client.request("POST", "/oauth/callback", chunked, b"6\r\ncode=1\r\n0\r\n\r\n").await;
    assert_eq!(reply.unwrap().location(), format!("{TARGET}?code=1"));
    assert!(client.is_closed().await, "a chunked request is the last of its connection");
}

#[tokio::test]
async fn plain_requests_are_redirected_to_https_byte_for_byte() {
    let (authority, dir) = certified(&["auth.example.com"]);
    let settings = settings::tls(
        "
        public_url = 'https://auth.example.com:8443'
        listen.admin = 'off'
        tls.hsts = '1y'
        [[route]]
        host = 'other.example.com'
        path = '/oauth/callback'
        [[route]]
        path = '/oauth/callback'
        ",
    );
    let edge = Edge::start_in(dir, &settings, |_| {});
    let mut client = connect(edge.http[0]).await;
    for (host, location) in [
        ("auth.example.com", "https://auth.example.com:8443/oauth/callback?a=%2f&a='"),
        ("other.example.com:80", "https://other.example.com:8443/oauth/callback?a=%2f&a='"),
        ("evil.example", "https://auth.example.com:8443/oauth/callback?a=%2f&a='"),
    ] {
        let fields = format!("Host: {host}\r\n");
        let reply = client.request("GET", "/oauth/callback?a=%2f&a='", &fields, b"").await.unwrap();
        assert_eq!((reply.status, reply.location()), (308, location.to_owned()));
        assert_eq!(reply.text("strict-transport-security"), "");
    }
    assert_eq!(client.get("/healthz").await.unwrap().status, 200);
    let stream = connect_tls(&authority, edge.https[0], "auth.example.com", &[]).await.unwrap();
    let reply = Http1::new(stream).get("/oauth/callback?x").await.unwrap();
    assert_eq!(reply.text("strict-transport-security"), "max-age=31536000");
}

#[tokio::test]
async fn certificates_are_selected_by_sni() {
    let authority = Authority::new();
    let dir = TempDir::new().unwrap();
    authority.write(dir.path(), "a", &["a.example.com"]);
    authority.write(dir.path(), "b", &["b.example.com", "*.b.example.com"]);
    let edge = Edge::start_in(
        dir,
        "
        listen.http = 'off'
        listen.https = ['127.0.0.1:0', '[::1]:0']
        [[tls.pair]]
        certificate = '{dir}/a.pem'
        private_key = '{dir}/a.key'
        [[tls.pair]]
        certificate = '{dir}/b.pem'
        private_key = '{dir}/b.key'
        ",
        |_| {},
    );
    let trusted = async |address: SocketAddr, name: &str| {
        connect_tls(&authority, address, name, &["h2", "http/1.1"]).await.is_ok()
    };
    for address in &edge.https {
        for (name, expected) in [
            ("a.example.com", true),
            ("b.example.com", true),
            ("x.b.example.com", true),
            ("x.y.b.example.com", false),
            ("c.example.com", false),
        ] {
            assert_eq!(trusted(*address, name).await, expected, "{name} at {address}");
        }
    }
}

#[tokio::test]
async fn stalled_handshakes_delay_no_client() {
    let (edge, authority) = Edge::over_tls(TLS);
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(connect(edge.https[0]).await);
    }
    let stream = connect_tls(&authority, edge.https[0], "localhost", &[]).await.unwrap();
    assert_eq!(Http1::new(stream).get("/oauth/callback").await.unwrap().status, 308);
}

/// RFC 9110 §9.3.2: the same fields as for GET, and no content.
#[tokio::test]
async fn a_response_to_head_has_no_content_on_every_protocol() {
    let (edge, authority) = Edge::over_tls(
        "
        listen.admin = 'off'
        [[page]]
        path = '/v.txt'
        body = 'verification'
        [[route]]
        path = '/oauth/callback'
        ",
    );
    for (path, status, length) in
        [("/v.txt", 200, "12"), ("/nope", 404, "10"), ("/oauth/callback", 308, "0")]
    {
        let tls = connect_tls(&authority, edge.https[0], "localhost", &[]).await.unwrap();
        let http1 = Http1::new(tls).request("HEAD", path, "", b"").await.unwrap();
        let mut client = Http2::connect(&authority, edge.https[0], "localhost").await;
        let request = http::Request::head(format!("https://localhost{path}")).body(()).unwrap();
        let http2 = client.request(request, b"").await.unwrap();
        for reply in [http1, http2] {
            assert_eq!((reply.status, reply.text("content-length").as_str()), (status, length));
            assert!(reply.body.is_empty(), "{path}");
        }
    }
}
