//! The differential test over real sockets, against providers whose replies are slow, endless or
//! inconsistent: it never reports them as registered, and always ends.

use callback_edge::outbound::{Limits, Outbound, Range, Resolver, Roots};
use callback_edge::preflight::differential::{
    Differential, Finding, ProbePolicy, ProbeRequest, State,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const OLD: &str = "https://api.nango.dev/oauth/callback";
const NEW: &str = "https://auth.example.org/oauth/callback";
const STEP: Duration = Duration::from_millis(300);

/// How a provider handles a connection, given the request.
type Provider = fn(Incoming, TcpStream) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Clone, Copy)]
struct Incoming {
    /// The number of the request, from 0.
    number: usize,
    /// Whether it contains the old or the new callback.
    old: bool,
    new: bool,
    /// Whether its client id is not that of the app.
    random_client: bool,
}

/// Starts a provider; returns its address and its count of requests.
async fn provider(reply: Provider) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let head = String::from_utf8(head).unwrap();
                let has = |uri: &str| head.contains(&uri.replace(':', "%3A").replace('/', "%2F"));
                assert!(head.contains("accept-encoding: gzip\r\n"), "{head}");
                let incoming = Incoming {
                    number,
                    old: has(OLD),
                    new: has(NEW),
                    random_client: !head.contains("client_id=app&"),
                };
                reply(incoming, stream).await;
            });
        }
    });
    (address, count)
}

async fn page(mut stream: TcpStream, status: &str, body: &str) {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn test(reply: Provider) -> (Finding, usize, Duration) {
    let (address, count) = provider(reply).await;
    let limits = Limits { step: STEP, ..Limits::default() };
    let outbound = Outbound::new(Resolver::new(Vec::new()), Roots::public(), limits);
    let policy = ProbePolicy { pause: Duration::ZERO, cap: 100, user_agent: "test".into() };
    let differential = Differential::new(outbound, &policy);
    let url = format!(
        "http://{address}/auth?client_id=app&state=live-canary&redirect_uri={}",
        OLD.replace(':', "%3A").replace('/', "%2F")
    );
    let probe_request = probe_request(url);
    let began = Instant::now();
    let finding = differential.test(&probe_request).await;
    (finding, count.load(Ordering::SeqCst), began.elapsed())
}

fn probe_request(url: String) -> ProbeRequest {
    let (old, new) = (OLD.to_owned(), NEW.to_owned());
    ProbeRequest { template: "any".into(), url, current: old.clone(), old, new, prompt_none: None }
}

/// The schedule and one further probe.
const MAX_PROBES: usize = 13;

const LOGIN: &str = "<h1>Sign in</h1><input type=\"password\">";

#[tokio::test]
async fn the_test_provider_is_classified_correctly() {
    let (finding, requests, _) = test(|it, stream| {
        Box::pin(async move {
            if it.old || it.new {
                page(stream, "200 OK", LOGIN).await;
            } else {
                page(stream, "400 Bad Request", "no such redirect_uri").await;
            }
        })
    })
    .await;
    assert_eq!(finding.state, Ok(State::Registered), "{}", finding.evidence);
    assert_eq!(requests, 12, "four requests, and the repeats");
    let (finding, ..) = test(|it, stream| {
        Box::pin(async move {
            if it.old {
                page(stream, "200 OK", LOGIN).await;
            } else {
                page(stream, "400 Bad Request", "no such redirect_uri").await;
            }
        })
    })
    .await;
    assert_eq!(finding.state, Ok(State::NotRegistered), "{}", finding.evidence);
}

#[tokio::test]
async fn slow_endless_and_inconsistent_replies_are_not_a_registration() {
    let hostile: [(&str, Provider); 9] = [
        ("never replies to an unregistered callback", |it, stream| {
            Box::pin(async move {
                if it.old || it.new {
                    page(stream, "200 OK", LOGIN).await;
                } else {
                    let mut stream = stream;
                    let _ = stream.read_u8().await;
                }
            })
        }),
        ("sends an endless header slowly", |_, mut stream| {
            Box::pin(async move {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
                while stream.write_all(b"a: b\r\n").await.is_ok() {
                    tokio::task::yield_now().await;
                }
            })
        }),
        ("endless pages, different for an unregistered callback", |it, mut stream| {
            Box::pin(async move {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                let words: &[u8] = if it.old || it.new { b"sign in " } else { b"go away " };
                while stream.write_all(words).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            })
        }),
        ("closes the connection within the body", |it, mut stream| {
            Box::pin(async move {
                let words = if it.old || it.new { "sign in" } else { "go away" };
                let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{words}");
                let _ = stream.write_all(text.as_bytes()).await;
            })
        }),
        ("429 from the third request on", |it, stream| {
            Box::pin(async move {
                if it.number < 2 {
                    page(stream, "200 OK", LOGIN).await;
                } else {
                    page(stream, "429 Too Many Requests", "").await;
                }
            })
        }),
        ("503 from the sixth request on", |it, stream| {
            Box::pin(async move {
                if it.number < 5 && (it.old || it.new) {
                    page(stream, "200 OK", LOGIN).await;
                } else {
                    page(stream, "503 Service Unavailable", "").await;
                }
            })
        }),
        ("a captcha for an unregistered callback", |it, stream| {
            Box::pin(async move {
                if it.old || it.new {
                    page(stream, "200 OK", LOGIN).await;
                } else {
                    page(stream, "403 Forbidden", "Just a moment... challenge-platform").await;
                }
            })
        }),
        ("different replies for the new callback", |it, stream| {
            Box::pin(async move {
                if it.old || (it.new && it.number < 4) {
                    page(stream, "200 OK", LOGIN).await;
                } else {
                    page(stream, "400 Bad Request", "no such redirect_uri").await;
                }
            })
        }),
        ("a new nonce and time each time, and nothing about callbacks", |it, stream| {
            Box::pin(async move {
                let number = it.number;
                let body = format!(
                    "<p>Sign in</p><input value=\"nonce{number}f00d{number}\">12:00:{number:02}"
                );
                page(stream, "200 OK", &body).await;
            })
        }),
    ];
    for (name, reply) in hostile {
        let (finding, requests, took) = test(reply).await;
        assert!(
            matches!(finding.state, Ok(State::Inconclusive | State::Undecidable)),
            "{name}: {finding:?}"
        );
        assert!(requests <= MAX_PROBES, "{name}: {requests} requests");
        // Each request has a step for its header and one for its body.
        assert!(took < STEP * 2 * 13 + Duration::from_secs(2), "{name}: {took:?}");
        assert!(!finding.evidence.contains("canary"), "{name}: {}", finding.evidence);
    }
}

/// A page of 600 KiB, compressed, whose reason is at its end.
#[tokio::test]
async fn long_and_compressed_pages_are_read() {
    let (finding, ..) = test(|it, mut stream| {
        Box::pin(async move {
            let filler = "<p>Terms and conditions</p>".repeat(22_000);
            let (status, end) = if it.old || it.new {
                ("200 OK", LOGIN)
            } else {
                ("200 OK", "<h1>The redirect_uri is not registered</h1>")
            };
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(format!("{filler}{end}").as_bytes()).unwrap();
            let body = encoder.finish().unwrap();
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n"
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
            let _ = stream.shutdown().await;
        })
    })
    .await;
    assert_eq!(finding.state, Ok(State::Registered), "{}", finding.evidence);
}

/// 64 MiB in 64 KiB.
#[tokio::test]
async fn a_decompression_bomb_is_not_a_conclusion() {
    let (finding, ..) = test(|_, mut stream| {
        Box::pin(async move {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&vec![b'a'; 64 << 20]).unwrap();
            let body = encoder.finish().unwrap();
            let head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n";
            let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
            let _ = stream.shutdown().await;
        })
    })
    .await;
    assert_eq!(finding.state, Ok(State::Inconclusive), "{}", finding.evidence);
}

/// A random client id reaches the provider, in the form of the real one.
#[tokio::test]
async fn a_random_client_id_is_sent_when_all_callbacks_get_the_same_reply() {
    let (finding, requests, _) = test(|it, stream| {
        Box::pin(async move {
            if it.random_client {
                page(stream, "401 Unauthorized", "unknown client").await;
            } else {
                page(stream, "200 OK", LOGIN).await;
            }
        })
    })
    .await;
    assert_eq!(finding.state, Ok(State::Undecidable), "{}", finding.evidence);
    assert!(finding.evidence.contains("the app before login"), "{}", finding.evidence);
    assert_eq!(requests, 5);
}

/// Two integrations of one app share their requests, and a host that responds with 429 gets no more.
#[tokio::test]
async fn no_request_is_sent_twice_and_none_to_a_host_that_limits_the_rate() {
    let (address, count) = provider(|_, stream| {
        Box::pin(async move { page(stream, "429 Too Many Requests", "").await })
    })
    .await;
    let outbound = Outbound::new(Resolver::new(Vec::new()), Roots::public(), Limits::default());
    let policy = ProbePolicy { pause: Duration::ZERO, cap: 100, user_agent: "test".into() };
    let differential = Differential::new(outbound, &policy);
    for client in ["a", "a", "b"] {
        let url = format!("http://{address}/auth?client_id={client}&redirect_uri={OLD}");
        let probe_request = probe_request(url);
        assert_eq!(differential.test(&probe_request).await.state, Ok(State::Inconclusive));
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn tenants_that_share_a_client_id_are_tested_separately() {
    let (address, count) = provider(|_, stream| {
        Box::pin(async move { page(stream, "503 Service Unavailable", "").await })
    })
    .await;
    let outbound = Outbound::new(Resolver::new(Vec::new()), Roots::public(), Limits::default());
    let policy = ProbePolicy { pause: Duration::ZERO, cap: 100, user_agent: "test".into() };
    let differential = Differential::new(outbound, &policy);
    for (flow, requests) in [
        ("realm=one&state=s1&nonce=a&code_challenge=a", 4),
        ("realm=one&state=s2&nonce=b&code_challenge=b", 4),
        ("realm=two&state=s3&nonce=c&code_challenge=c", 8),
    ] {
        let url = format!("http://{address}/auth?client_id=a&{flow}&redirect_uri={OLD}");
        let finding = differential.test(&probe_request(url)).await;
        assert_eq!(finding.state, Ok(State::Inconclusive), "{}", finding.evidence);
        assert_eq!(count.load(Ordering::SeqCst), requests, "{flow}");
    }
}

/// Spellings of loopback that a hostile Nango may send.
const LOOPBACK: [&str; 7] = [
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "2130706433",
    "017700000001",
    "localhost",
    "provider.localhost",
];

async fn tested(outbound: Outbound, url: String) -> Finding {
    let policy = ProbePolicy { pause: Duration::ZERO, cap: 100, user_agent: "test".into() };
    Differential::new(outbound, &policy).test(&probe_request(url)).await
}

#[tokio::test]
async fn requests_go_to_private_addresses_only_when_allowed() {
    let (address, count) =
        provider(|_, stream| Box::pin(async move { page(stream, "404 Not Found", "").await }))
            .await;
    let port = address.port();
    let url = |origin: &str| format!("{origin}/auth?client_id=a&redirect_uri={OLD}");
    let outbound =
        |overrides| Outbound::new(Resolver::new(overrides), Roots::public(), Limits::default());
    let public_only = || outbound(Vec::new()).public_only(Vec::new(), Vec::new());
    for host in LOOPBACK {
        let finding = tested(public_only(), url(&format!("http://{host}:{port}"))).await;
        assert_eq!(finding.state, Ok(State::Inconclusive), "{host}");
        let why = "is loopback; `preflight.private_networks` does not allow it";
        assert!(finding.evidence.contains(why), "{host}: {}", finding.evidence);
    }
    let began = Instant::now();
    for (host, range) in [
        ("169.254.169.254", "link-local"),
        ("10.0.0.1", "private"),
        ("0xa9fea9fe", "link-local"),
        ("[::ffff:10.0.0.1]", "private"),
        ("[::ffff:7f00:1]", "loopback"),
        ("[fd00::1]", "private"),
        ("100.64.0.1", "behind carrier-grade NAT"),
        ("0", "reserved"),
    ] {
        let finding = tested(public_only(), url(&format!("https://{host}:{port}"))).await;
        let why = format!("is {range}; `preflight.private_networks` does not allow it");
        assert!(finding.evidence.contains(&why), "{host}: {}", finding.evidence);
    }
    assert!(began.elapsed() < STEP * 10, "it connected to an address");
    assert_eq!(count.load(Ordering::SeqCst), 0);

    // Allowed by its network, by its range, and by an override.
    let origin = format!("http://provider.localhost:{port}");
    let network = vec!["127.0.0.0/8".parse().unwrap()];
    let over = format!("provider.localhost:{port}:{address}").parse().unwrap();
    for allowed in [
        outbound(Vec::new()).public_only(network, Vec::new()),
        outbound(Vec::new()).public_only(Vec::new(), vec![Range::Loopback]),
        outbound(vec![over]).public_only(Vec::new(), Vec::new()),
    ] {
        let before = count.load(Ordering::SeqCst);
        tested(allowed, url(&origin)).await;
        assert!(count.load(Ordering::SeqCst) > before);
    }
    let other =
        outbound(Vec::new()).public_only(vec!["10.0.0.0/8".parse().unwrap()], vec![Range::Private]);
    assert!(tested(other, url(&origin)).await.evidence.contains("is loopback"));
}
