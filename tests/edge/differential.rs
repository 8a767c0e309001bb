//! The differential test over real sockets, against providers that are slow, endless, or change
//! their minds: nothing of it is ever a registration, and all of it ends.

use callback_edge::outbound::{Limits, Outbound, Range, Resolver, Roots};
use callback_edge::preflight::differential::{Differential, Finding, Inquiry, Manners, State};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const OLD: &str = "https://api.nango.dev/oauth/callback";
const NEW: &str = "https://auth.example.org/oauth/callback";
const STEP: Duration = Duration::from_millis(300);

/// What a provider does with a connection: which question it is, whether the URI is known to it.
type Provider = fn(Asked, TcpStream) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Clone, Copy)]
struct Asked {
    /// Counted from 0.
    number: usize,
    old: bool,
    new: bool,
}

/// Serves on a port of its own; tells how often it was asked.
async fn provider(answer: Provider) -> (SocketAddr, Arc<AtomicUsize>) {
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
                answer(Asked { number, old: has(OLD), new: has(NEW) }, stream).await;
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

async fn test(answer: Provider) -> (Finding, usize, Duration) {
    let (address, count) = provider(answer).await;
    let limits = Limits { step: STEP, ..Limits::default() };
    let outbound = Outbound::new(Resolver::new(Vec::new()), Roots::public(), limits);
    let manners = Manners { pause: Duration::ZERO, cap: 100, user_agent: "test".into() };
    let differential = Differential::new(outbound, &manners);
    let url = format!(
        "http://{address}/auth?client_id=a&state=live-canary&redirect_uri={}",
        OLD.replace(':', "%3A").replace('/', "%2F")
    );
    let inquiry = inquiry(url);
    let began = Instant::now();
    let finding = differential.test(&inquiry).await;
    (finding, count.load(Ordering::SeqCst), began.elapsed())
}

fn inquiry(url: String) -> Inquiry {
    let (old, new) = (OLD.to_owned(), NEW.to_owned());
    Inquiry { template: "any".into(), url, current: old.clone(), old, new, prompt_none: None }
}

const LOGIN: &str = "<h1>Sign in</h1><input type=\"password\">";

#[tokio::test]
async fn the_harness_itself_is_judged_right() {
    let (finding, asked, _) = test(|it, stream| {
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
    assert_eq!(asked, 8, "four questions, and all of them once more");
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
async fn slow_endless_and_changing_answers_are_no_registration() {
    let hostile: [(&str, Provider); 9] = [
        ("never answers what it does not know", |it, stream| {
            Box::pin(async move {
                if it.old || it.new {
                    page(stream, "200 OK", LOGIN).await;
                } else {
                    let mut stream = stream;
                    let _ = stream.read_u8().await;
                }
            })
        }),
        ("drips a head without end", |_, mut stream| {
            Box::pin(async move {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
                while stream.write_all(b"a: b\r\n").await.is_ok() {
                    tokio::task::yield_now().await;
                }
            })
        }),
        ("endless pages, longer for what it does not know", |it, mut stream| {
            Box::pin(async move {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                let words: &[u8] = if it.old || it.new { b"sign in " } else { b"go away " };
                while stream.write_all(words).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            })
        }),
        ("breaks off in the middle", |it, mut stream| {
            Box::pin(async move {
                let words = if it.old || it.new { "sign in" } else { "go away" };
                let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{words}");
                let _ = stream.write_all(text.as_bytes()).await;
            })
        }),
        ("429 from the third question on", |it, stream| {
            Box::pin(async move {
                if it.number < 2 {
                    page(stream, "200 OK", LOGIN).await;
                } else {
                    page(stream, "429 Too Many Requests", "").await;
                }
            })
        }),
        ("503 for what it does not know", |it, stream| {
            Box::pin(async move {
                if it.old || it.new {
                    page(stream, "200 OK", LOGIN).await;
                } else {
                    page(stream, "503 Service Unavailable", "").await;
                }
            })
        }),
        ("a captcha for what it does not know", |it, stream| {
            Box::pin(async move {
                if it.old || it.new {
                    page(stream, "200 OK", LOGIN).await;
                } else {
                    page(stream, "403 Forbidden", "Just a moment... challenge-platform").await;
                }
            })
        }),
        ("changes its mind about the new one", |it, stream| {
            Box::pin(async move {
                if it.old || (it.new && it.number < 4) {
                    page(stream, "200 OK", LOGIN).await;
                } else {
                    page(stream, "400 Bad Request", "no such redirect_uri").await;
                }
            })
        }),
        ("another nonce and time each time, and no word on callbacks", |it, stream| {
            Box::pin(async move {
                let number = it.number;
                let body = format!(
                    "<p>Sign in</p><input value=\"nonce{number}f00d{number}\">12:00:{number:02}"
                );
                page(stream, "200 OK", &body).await;
            })
        }),
    ];
    for (name, answer) in hostile {
        let (finding, asked, took) = test(answer).await;
        assert!(
            !matches!(finding.state, Ok(State::Registered | State::PrefixMatch)),
            "{name}: {finding:?}"
        );
        assert!(asked <= 8, "{name}: asked {asked} times");
        // Each question has a step for its head and one for its body.
        assert!(took < STEP * 2 * 8 + Duration::from_secs(2), "{name}: {took:?}");
        assert!(!finding.evidence.contains("canary"), "{name}: {}", finding.evidence);
    }
}

/// Two integrations of one app are one question, and a host that has enough is left alone.
#[tokio::test]
async fn nothing_is_asked_twice_and_a_host_that_has_enough_is_left_alone() {
    let (address, count) = provider(|_, stream| {
        Box::pin(async move { page(stream, "429 Too Many Requests", "").await })
    })
    .await;
    let outbound = Outbound::new(Resolver::new(Vec::new()), Roots::public(), Limits::default());
    let manners = Manners { pause: Duration::ZERO, cap: 100, user_agent: "test".into() };
    let differential = Differential::new(outbound, &manners);
    for client in ["a", "a", "b"] {
        let url = format!("http://{address}/auth?client_id={client}&redirect_uri={OLD}");
        let inquiry = inquiry(url);
        assert_eq!(differential.test(&inquiry).await.state, Ok(State::Inconclusive));
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

/// Hosts that all lead to loopback, written as a hostile Nango may write them.
const LOOPBACK: [&str; 7] = [
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "2130706433",
    "017700000001",
    "localhost",
    "provider.localhost",
];

async fn asked(outbound: Outbound, url: String) -> Finding {
    let manners = Manners { pause: Duration::ZERO, cap: 100, user_agent: "test".into() };
    Differential::new(outbound, &manners).test(&inquiry(url)).await
}

#[tokio::test]
async fn addresses_that_are_not_public_are_asked_only_when_they_are_allowed() {
    let (address, count) =
        provider(|_, stream| Box::pin(async move { page(stream, "404 Not Found", "").await }))
            .await;
    let port = address.port();
    let url = |origin: &str| format!("{origin}/auth?client_id=a&redirect_uri={OLD}");
    let outbound =
        |overrides| Outbound::new(Resolver::new(overrides), Roots::public(), Limits::default());
    let public_only = || outbound(Vec::new()).public_only(Vec::new(), Vec::new());
    for host in LOOPBACK {
        let finding = asked(public_only(), url(&format!("http://{host}:{port}"))).await;
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
        let finding = asked(public_only(), url(&format!("https://{host}:{port}"))).await;
        let why = format!("is {range}; `preflight.private_networks` does not allow it");
        assert!(finding.evidence.contains(&why), "{host}: {}", finding.evidence);
    }
    assert!(began.elapsed() < STEP * 10, "an address was tried");
    assert_eq!(count.load(Ordering::SeqCst), 0);

    // Allowed by its network, by its range, and by the caller's own word on where the host is.
    let origin = format!("http://provider.localhost:{port}");
    let network = vec!["127.0.0.0/8".parse().unwrap()];
    let over = format!("provider.localhost:{port}:{address}").parse().unwrap();
    for allowed in [
        outbound(Vec::new()).public_only(network, Vec::new()),
        outbound(Vec::new()).public_only(Vec::new(), vec![Range::Loopback]),
        outbound(vec![over]).public_only(Vec::new(), Vec::new()),
    ] {
        let before = count.load(Ordering::SeqCst);
        asked(allowed, url(&origin)).await;
        assert!(count.load(Ordering::SeqCst) > before);
    }
    let other =
        outbound(Vec::new()).public_only(vec!["10.0.0.0/8".parse().unwrap()], vec![Range::Private]);
    assert!(asked(other, url(&origin)).await.evidence.contains("is loopback"));
}
