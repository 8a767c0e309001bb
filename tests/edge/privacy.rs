//! Canaries: the values of a callback appear only in its `Location`.

use crate::support::{Authority, Edge, Http1, Http2, connect, connect_tls};

const CODE: &str = "canary-code-7f3a";
const STATE: &str = "canary-state-91bc";
const COOKIE: &str = "canary-cookie-55de";

#[tokio::test]
async fn canaries_appear_only_in_location() {
    // Without a terminal, JSON is the default.
    for format in ["log.format = 'text'", ""] {
        let (edge, authority) = Edge::over_tls(&format!("log.level = 'trace'\n{format}"));
        send_canaries(&edge, &authority).await;
        let metrics = edge.metrics().await.0;
        assert!(metrics.contains("callback_edge_redirects_total"), "{metrics}");
        let stderr = edge.finish();
        assert!(stderr.contains("request"), "the log is empty: {stderr}");
        for canary in [CODE, STATE, COOKIE, "canary"] {
            assert!(!stderr.contains(canary), "{canary} in the log:\n{stderr}");
            assert!(!metrics.contains(canary), "{canary} in the metrics:\n{metrics}");
        }
    }
}

/// Sends good and bad requests over every protocol, with canaries in all parts.
async fn send_canaries(edge: &Edge, authority: &Authority) {
    let query = format!("code={CODE}&state={STATE}");
    let fields = format!(
        "Cookie: session={COOKIE}\r\nReferer: https://x/?{query}\r\nUser-Agent: {CODE}\r\n"
    );
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    #[rustfmt::skip]
    let requests = [
        ("GET", format!("/oauth/callback?{query}"), String::new(), String::new()),
        ("GET", format!("/nowhere/{CODE}?{query}"), String::new(), String::new()),
        ("PUT", format!("/oauth/callback?{query}"), String::new(), String::new()),
        (CODE, format!("/oauth/callback?{query}"), String::new(), String::new()),
        ("GET", format!("/oauth/callback?{query}"), "Sec-Purpose: prefetch\r\n".into(), String::new()),
        ("GET", format!("/oauth/callback?{query}&{}", "x".repeat(40_000)), String::new(), String::new()),
        ("POST", "/oauth/callback".into(), format!("{form}content-length: {}\r\n", query.len()), query.clone()),
        ("POST", "/oauth/callback".into(), format!("{form}content-length: {}\r\n", query.len() + 2), format!("{query} #")),
        ("GET", format!("/oauth/callback?{query}"), format!("Host: {STATE}:x\r\n"), String::new()),
        ("GET", format!("/oauth/callback?{query}#"), String::new(), String::new()),
        ("GET", format!("/oauth/callback?{query} {CODE}"), String::new(), String::new()),
        ("GET", format!("/oauth/callback?{query}"), format!("X-{CODE} : {STATE}\r\n"), String::new()),
    ];
    for (method, target, more, body) in &requests {
        let fields = format!("{fields}{more}");
        let mut plain = connect(edge.http[0]).await;
        let stream = connect_tls(authority, edge.https[0], "localhost", &[]).await.unwrap();
        let mut tls = Http1::new(stream);
        for reply in [
            plain.request(method, target, &fields, body.as_bytes()).await,
            tls.request(method, target, &fields, body.as_bytes()).await,
        ] {
            // None: the connection was closed, which reveals nothing either.
            let Some(reply) = reply else { continue };
            for (name, value) in &reply.headers {
                let value = String::from_utf8_lossy(value);
                assert!(name == "location" || !value.contains("canary"), "{name}: {value}");
                assert!(!value.contains(COOKIE), "{name}: {value}");
            }
            assert!(!String::from_utf8_lossy(&reply.body).contains("canary"));
        }
    }
    let mut h2 = Http2::connect(authority, edge.https[0], "localhost").await;
    for target in [format!("/oauth/callback?{query}"), format!("/{CODE}?{query}")] {
        let request = http::Request::get(format!("https://localhost{target}"))
            .header("cookie", format!("session={COOKIE}"))
            .body(())
            .unwrap();
        let reply = h2.request(request, b"").await.unwrap();
        assert!(!String::from_utf8_lossy(&reply.body).contains("canary"));
    }
}
