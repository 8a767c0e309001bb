//! Request framing (RFC 9112 §2.2, §9.6): nothing after the last response of a connection is a
//! request, a target with a `#` is refused wherever its request line begins, and a partial request
//! counts as a request.

use crate::crowds::cpu_seconds;
use crate::malformed::ambiguous_framings;
use crate::support::{
    Authority, Edge, Http1, Http2, MACHINE, Metrics, connect_tls, frames, requests, until,
    with_timeout,
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How long clients wait before the second request. Lingering close takes up to a second.
const PAUSES: [u64; 6] = [0, 100, 300, 500, 700, 900];

/// A request that must not be served. No other request here has its method, which the log contains.
const SECOND: &str = "HEAD /oauth/callback?second HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// How much later than its deadline a connection may end.
const LATE: Duration = Duration::from_secs(1);

/// Time for the server to read what was sent before.
const SEGMENT: Duration = Duration::from_millis(15);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection to the plain or the TLS listener.
async fn open(edge: &Edge, over: Option<&Authority>) -> Http1<Box<dyn Stream>> {
    let stream: Box<dyn Stream> = if let Some(authority) = over {
        Box::new(connect_tls(authority, edge.https[0], "localhost", &[]).await.unwrap())
    } else {
        let stream = with_timeout(TcpStream::connect(edge.http[0])).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Box::new(stream)
    };
    Http1::new(stream)
}

/// A server without TLS, and one with. The plain listener of the second redirects to `https`.
fn servers(own: &str) -> [(Edge, Option<Authority>); 2] {
    // Some tests open a thousand connections at once; the servers inherit the limit.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
    let own = format!("limits.connections_per_address = 10000\n{own}");
    let (tls, authority) = Edge::over_tls(&own);
    [(Edge::plain(&own), None), (tls, Some(authority))]
}

/// The number of responses, without those of the admin listener.
fn responses(metrics: &Metrics) -> f64 {
    let statuses = ["204", "303", "308", "400", "404", "405", "408", "413", "414", "421", "431"];
    statuses
        .map(|status| metrics.get(&format!("requests_total{{status=\"{status}\"}}")))
        .iter()
        .sum()
}

/// Waits until every connection is closed, and checks that each had one request.
#[expect(clippy::cast_precision_loss, reason = "some hundreds")]
async fn one_request_each(edge: Edge, connections: usize) {
    until("all are closed", async || edge.metrics().await.connections() < 1.0).await;
    let metrics = edge.metrics().await;
    let log = edge.finish();
    let second = requests(&log).into_iter().filter(|line| line["method"] == "HEAD").count();
    let surplus = responses(&metrics) - connections as f64;
    assert!(
        second == 0 && surplus.abs() < 0.5,
        "{connections} connections: {second} second requests in the log, {surplus} in the metrics"
    );
}

/// Fails with how many are wrong, and the first of them.
fn none(wrong: &[String]) {
    let first = &wrong[..wrong.len().min(10)];
    assert!(wrong.is_empty(), "{} are wrong, such as {first:#?}", wrong.len());
}

/// First requests that end their connection: name, bytes, status.
fn last_requests() -> Vec<(&'static str, String, u16)> {
    let get = "GET /oauth/callback?code=1 HTTP/1.1\r\nHost: localhost\r\n";
    let post = "POST /oauth/callback HTTP/1.1\r\nHost: localhost\r\n";
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    vec![
        ("the client closes", format!("{get}Connection: close\r\n\r\n"), 308),
        ("the client closes, in a list", format!("{get}Connection: te, Close\r\n\r\n"), 308),
        (
            "a form, the client closes",
            format!("{post}{form}Connection: close\r\nContent-Length: 6\r\n\r\ncode=1"),
            303,
        ),
        ("HTTP/1.0", "GET /oauth/callback?code=1 HTTP/1.0\r\n\r\n".into(), 308),
        (
            "a refused body",
            format!("{post}content-type: text/plain\r\ncontent-length: 3\r\n\r\na=1"),
            405,
        ),
        ("a form over the limit", format!("{post}{form}content-length: 999999\r\n\r\n"), 413),
        ("a body that GET has no use for", format!("{get}content-length: 3\r\n\r\nabc"), 308),
        (
            "a malformed target",
            "GET /oauth/callback?a b HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
            400,
        ),
        ("a fragment", "GET /oauth/callback?a#b HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), 400),
        ("a malformed field", format!("{get}nonsense\r\n\r\n"), 400),
        ("a head over the limit", format!("{get}x: {}\r\n\r\n", "a".repeat(70_000)), 431),
    ]
}

#[tokio::test]
async fn no_request_is_parsed_after_connection_close() {
    let _machine = MACHINE.read().await;
    for (edge, authority) in servers("") {
        let mut clients = JoinSet::new();
        for (name, first, status) in last_requests() {
            for pause in PAUSES {
                let mut client = open(&edge, authority.as_ref()).await;
                let first = first.clone();
                clients.spawn(async move {
                    client.send(first.as_bytes()).await;
                    let reply =
                        client.reply().await.unwrap_or_else(|| panic!("{name}: no response"));
                    assert_eq!(reply.status, status, "{name}");
                    // HTTP/1.0 closes by default.
                    if name != "HTTP/1.0" {
                        assert_eq!(reply.text("connection"), "close", "{name}");
                    }
                    sleep(Duration::from_millis(pause)).await;
                    client.send(SECOND.as_bytes()).await;
                    (!client.is_closed().await).then(|| format!("{name}, after {pause} ms"))
                });
            }
        }
        let count = clients.len();
        let served: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
        none(&served);
        one_request_each(edge, count).await;
    }
}

#[tokio::test]
async fn no_request_is_parsed_after_the_last_response_of_a_shutdown() {
    let _machine = MACHINE.read().await;
    for (edge, authority) in servers("") {
        let mut clients = Vec::new();
        for _ in PAUSES {
            let mut client = open(&edge, authority.as_ref()).await;
            assert_eq!(client.get("/oauth/callback?code=1").await.unwrap().status, 308);
            clients.push(client);
        }
        edge.signal(Signal::TERM);
        let address = *edge.https.first().unwrap_or(&edge.http[0]);
        until("the listener closes", async || TcpStream::connect(address).await.is_err()).await;
        let mut tasks = JoinSet::new();
        for (mut client, pause) in clients.into_iter().zip(PAUSES) {
            tasks.spawn(async move {
                let reply = client.get("/oauth/callback?code=2").await.expect("not answered");
                assert_eq!((reply.status, reply.text("connection").as_str()), (308, "close"));
                sleep(Duration::from_millis(pause)).await;
                client.send(SECOND.as_bytes()).await;
                assert!(client.is_closed().await, "a response after {pause} ms");
            });
        }
        tasks.join_all().await;
        let (status, log) = edge.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        let requests = requests(&log);
        assert_eq!(requests.len(), PAUSES.len() * 2, "{log}");
        assert!(requests.iter().all(|line| line["method"] != "HEAD"), "{log}");
    }
}

#[tokio::test]
async fn nothing_follows_an_ambiguous_framing_after_any_pause() {
    let _machine = MACHINE.read().await;
    for (edge, authority) in servers("") {
        let mut clients = JoinSet::new();
        for (name, first, status) in ambiguous_framings(SECOND.len()) {
            for pause in PAUSES {
                let mut client = open(&edge, authority.as_ref()).await;
                let first = first.clone();
                clients.spawn(async move {
                    client.send(first.as_bytes()).await;
                    sleep(Duration::from_millis(pause)).await;
                    client.send(SECOND.as_bytes()).await;
                    let reply =
                        client.reply().await.unwrap_or_else(|| panic!("{name}: no response"));
                    assert_eq!(reply.status, status, "{name}, {pause} ms");
                    (!client.is_closed().await).then(|| format!("{name}, after {pause} ms"))
                });
            }
        }
        let count = clients.len();
        let served: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
        none(&served);
        one_request_each(edge, count).await;
    }
}

/// Empty lines before a request line (RFC 9112 §2.2): CRLF, bare LF, and both.
fn empty_lines() -> Vec<String> {
    let mut lines: Vec<String> =
        ["", "\r\n", "\n", "\r\n\r\n", "\n\n", "\r\n\n", "\n\r\n"].map(str::to_owned).into();
    lines.push("\r\n".repeat(100));
    lines.push("\n\r\n\n".repeat(50));
    lines
}

/// What comes before the empty lines: name, bytes, responses.
const BEFORE: [(&str, &str, usize); 2] = [
    ("nothing", "", 0),
    ("a request", "GET /oauth/callback?first HTTP/1.1\r\nHost: localhost\r\n\r\n", 1),
];

/// A target, and the expected `Location`; `None` when it is refused.
const TARGETS: [(&str, Option<&str>); 3] = [
    ("/oauth/callback?code=1", Some("https://api.nango.dev/oauth/callback?code=1")),
    ("/oauth/callback?code=1#x", None),
    ("/oauth/callback#?code=1", None),
];

/// Sends these segments one after another and reads the response to the last request in them.
async fn last_reply(
    mut client: Http1<Box<dyn Stream>>,
    segments: Vec<Vec<u8>>,
    before: usize,
) -> (u16, String) {
    for (position, segment) in segments.iter().enumerate() {
        if position > 0 {
            sleep(SEGMENT).await;
        }
        client.send(segment).await;
    }
    for _ in 0..before {
        assert_eq!(client.reply().await.expect("no first response").status, 308);
    }
    let reply = client.reply().await.expect("no response");
    (reply.status, reply.location())
}

/// Runs the requests in these segments, all connections at once, and returns what is wrong.
async fn wrong_replies(cut: impl Fn(&[u8], usize) -> Vec<Vec<Vec<u8>>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (edge, authority) in servers("log.requests = false") {
        let mut clients = JoinSet::new();
        for (before, first, responses) in BEFORE {
            for lines in empty_lines() {
                for (target, location) in TARGETS {
                    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    let bytes = format!("{first}{lines}{request}").into_bytes();
                    for segments in cut(&bytes, first.len() + lines.len()) {
                        let client = open(&edge, authority.as_ref()).await;
                        let expected = location.map_or((400, ""), |location| (308, location));
                        let name = format!(
                            "{target:?} after {before} and {} empty lines, in {} segments, the \
                             first of {} bytes",
                            lines.matches('\n').count(),
                            segments.len(),
                            segments[0].len(),
                        );
                        clients.spawn(async move {
                            let (status, at) = last_reply(client, segments, responses).await;
                            let is_right = (status, at.as_str()) == expected;
                            (!is_right).then(|| format!("{name}: {status} {at}"))
                        });
                    }
                }
            }
        }
        wrong.extend(clients.join_all().await.into_iter().flatten());
        edge.finish();
    }
    wrong
}

#[tokio::test]
async fn a_fragment_after_empty_lines_is_refused_in_one_segment() {
    let wrong = wrong_replies(|bytes, _| vec![vec![bytes.to_vec()]]).await;
    none(&wrong);
}

#[tokio::test]
async fn a_fragment_after_empty_lines_is_refused_in_segments() {
    let wrong = wrong_replies(|bytes, request| {
        // Around the empty lines, where a request line begins, and within it.
        let cuts = [
            request.saturating_sub(2),
            request.saturating_sub(1),
            request,
            request + 1,
            request + 25,
        ];
        let mut splits: Vec<Vec<Vec<u8>>> = cuts
            .iter()
            .filter(|cut| **cut > 0)
            .map(|cut| vec![bytes[..*cut].to_vec(), bytes[*cut..].to_vec()])
            .collect();
        let (lines, rest) = bytes.split_at(request);
        let mut each: Vec<Vec<u8>> = if lines.is_empty() { vec![] } else { vec![lines.to_vec()] };
        each.extend(rest.chunks(8).map(<[u8]>::to_vec));
        splits.push(each);
        splits
    })
    .await;
    none(&wrong);
}

/// Every position at which a segment can end, with the shortest prefixes.
#[tokio::test]
async fn a_fragment_after_an_empty_line_is_refused_with_a_cut_at_every_byte() {
    for (edge, authority) in servers("log.requests = false") {
        let mut clients = JoinSet::new();
        for (_, first, responses) in BEFORE {
            for lines in ["\r\n", "\n", "\r\n\n"] {
                let bytes = format!(
                    "{first}{lines}GET /oauth/callback?code=1#x HTTP/1.1\r\nHost: localhost\r\n\r\n"
                );
                for cut in 1..bytes.len() {
                    let client = open(&edge, authority.as_ref()).await;
                    let (one, two) = bytes.as_bytes().split_at(cut);
                    let segments = vec![one.to_vec(), two.to_vec()];
                    clients.spawn(async move {
                        let (status, at) = last_reply(client, segments, responses).await;
                        (status != 400).then(|| format!("{lines:?}, cut at {cut}: {status} {at}"))
                    });
                }
            }
        }
        let wrong: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
        none(&wrong);
        edge.finish();
    }
}

/// A connection that hibernates between its requests parses like any other.
#[tokio::test]
async fn a_fragment_after_empty_lines_is_refused_on_a_hibernated_connection() {
    let _machine = MACHINE.read().await;
    for (edge, authority) in servers("") {
        let mut clients = JoinSet::new();
        for lines in empty_lines() {
            for (target, location) in TARGETS {
                for apart in [false, true] {
                    let mut client = open(&edge, authority.as_ref()).await;
                    let lines = lines.clone();
                    clients.spawn(async move {
                        let first = client.get("/oauth/callback?first").await.unwrap();
                        assert_eq!(first.status, 308);
                        // Longer than a connection keeps its buffers.
                        sleep(Duration::from_millis(400)).await;
                        if apart {
                            client.send(lines.as_bytes()).await;
                            sleep(Duration::from_millis(400)).await;
                        }
                        let lines = if apart { "" } else { lines.as_str() };
                        let request =
                            format!("{lines}GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                        client.send(request.as_bytes()).await;
                        let reply = client.reply().await.expect("no response");
                        let expected = location.map_or((400, ""), |location| (308, location));
                        let is_right = (reply.status, reply.location().as_str()) == expected;
                        (!is_right).then(|| {
                            format!("{lines:?}, {target}, apart: {apart}: {}", reply.status)
                        })
                    });
                }
            }
        }
        let wrong: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
        none(&wrong);
        edge.finish();
    }
}

/// RFC 9113 §8.3.1: `:path` has no fragment. The `http` crate cuts it there, before this
/// program reads it. When this test fails, the library no longer does: refuse the request then.
#[tokio::test]
async fn over_http2_the_library_cuts_the_path_at_a_fragment() {
    let (edge, authority) = Edge::over_tls("");
    let mut stream = connect_tls(&authority, edge.https[0], "localhost", &["h2"]).await.unwrap();
    let block = frames::get("/oauth/callback?code=1#x");
    let whole = frames::END_HEADERS | frames::END_STREAM;
    let request = frames::frame(frames::HEADERS, whole, 1, &block);
    stream.write_all(&[frames::opening(&[]), request].concat()).await.unwrap();
    until("the response is sent", async || responses(&edge.metrics().await) > 0.5).await;
    let metrics = edge.metrics().await;
    assert!(metrics.get("requests_total{status=\"308\"}") > 0.5, "{}", metrics.0);
    // Another connection is not affected.
    drop(stream);
    let mut client = Http2::connect(&authority, edge.https[0], "localhost").await;
    let reply = client.get("/oauth/callback?code=1").await.unwrap();
    assert_eq!(reply.location(), "https://api.nango.dev/oauth/callback?code=1");
    edge.finish();
}

/// A request, and the start of another in the same segment.
const ONE_AND_A_BIT: &str = "GET /oauth/callback?code=1 HTTP/1.1\r\nHost: localhost\r\n\r\n\
    GET /oauth/callback?co";

#[tokio::test]
async fn a_partial_request_after_another_times_out_as_a_request() {
    let _machine = MACHINE.read().await;
    for (edge, authority) in servers(
        "
        limits.request_timeout = '400ms'
        limits.idle_timeout = '3s'
        ",
    ) {
        let mut client = open(&edge, authority.as_ref()).await;
        client.send(ONE_AND_A_BIT.as_bytes()).await;
        let started = Instant::now();
        assert_eq!(client.reply().await.unwrap().status, 308);
        assert!(client.is_closed().await);
        let took = started.elapsed();
        assert!(took < Duration::from_millis(400) + LATE, "only after {took:?}");
        let request = "deadlines_total{stage=\"request\"}";
        until(request, async || edge.metrics().await.get(request) > 0.5).await;
        assert!(edge.metrics().await.get("deadlines_total{stage=\"idle\"}") < 0.5);
        edge.finish();
    }
}

/// Some clients send an empty line after a form (RFC 9112 §2.2).
#[tokio::test]
async fn empty_lines_after_a_request_do_not_start_another() {
    let _machine = MACHINE.read().await;
    for (edge, authority) in servers(
        "
        limits.request_timeout = '400ms'
        limits.idle_timeout = '60s'
        ",
    ) {
        let mut client = open(&edge, authority.as_ref()).await;
        for _ in 0..2 {
            client.send(b"GET /oauth/callback?code=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert_eq!(client.reply().await.expect("timed out as a request").status, 308);
            client.send(b"\r\n").await;
            sleep(Duration::from_millis(900)).await;
        }
        edge.finish();
    }
}

#[tokio::test]
async fn a_partial_request_after_another_is_not_idle() {
    let _machine = MACHINE.read().await;
    for (edge, authority) in servers(
        "
        limits.request_timeout = '15s'
        limits.idle_timeout = '300ms'
        ",
    ) {
        let mut client = open(&edge, authority.as_ref()).await;
        client.send(ONE_AND_A_BIT.as_bytes()).await;
        assert_eq!(client.reply().await.unwrap().status, 308);
        sleep(Duration::from_millis(900)).await;
        client.send(b"de=2 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let reply = client.reply().await.expect("closed as if it were idle");
        assert_eq!(reply.location(), "https://api.nango.dev/oauth/callback?code=2");
        edge.finish();
    }
}

#[tokio::test]
async fn a_partial_request_is_not_parsed_repeatedly() {
    let _machine = MACHINE.write().await;
    let edge = Edge::plain(
        "
        limits.connections_per_address = 1000
        limits.request_timeout = '60s'
        limits.idle_timeout = '60s'
        log.requests = false
        ",
    );
    let field = format!("x: {}\r\n", "a".repeat(500));
    let partial = format!("{ONE_AND_A_BIT} HTTP/1.1\r\n{}", field.repeat(90));
    let mut clients = Vec::new();
    for _ in 0..400 {
        let mut client = open(&edge, None).await;
        client.send(partial.as_bytes()).await;
        assert_eq!(client.reply().await.unwrap().status, 308);
        clients.push(client);
    }
    sleep(Duration::from_millis(500)).await;
    let before = cpu_seconds(edge.id());
    sleep(Duration::from_secs(3)).await;
    let used = cpu_seconds(edge.id()) - before;
    eprintln!("400 partial requests of 46 kB for 3 s: {used:.2} s of CPU");
    assert!(used < 0.1, "{used} s of CPU in 3 s");
    // The missing bytes complete each request.
    for client in &mut clients {
        client.send(b"Host: localhost\r\n\r\n").await;
        assert_eq!(client.reply().await.expect("no response").status, 308);
    }
    edge.finish();
}

/// After the last response the server reads and discards for a bounded time.
#[tokio::test]
async fn bytes_after_the_last_response_do_not_reset_it() {
    let edge = Edge::plain("");
    let mut stream = with_timeout(TcpStream::connect(edge.http[0])).await.unwrap();
    let first =
        "GET /oauth/callback?code=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{first}{}", SECOND.repeat(50)).as_bytes()).await.unwrap();
    let mut response = Vec::new();
    with_timeout(stream.read_to_end(&mut response)).await.expect("the response was reset");
    let response = String::from_utf8(response).unwrap();
    assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{response}");
    drop(stream);
    one_request_each(edge, 1).await;
}
