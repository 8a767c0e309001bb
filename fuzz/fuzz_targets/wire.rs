//! The whole server, as the writes of one client reach it: each redirect responds to a request line
//! that was sent, and has its query byte for byte; nothing follows the last response of a
//! connection, and the server handles no request without a response. Nothing ends the process.
//!
//! An input is what the client writes, with a NUL and a byte for a pause between two writes.

#![no_main]

use callback_edge::config;
use callback_edge::observe::{Format, Log};
use callback_edge::server::{Startup, serve};
use callback_edge_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::Duration;

const TARGETS: [(&[u8], &[u8]); 2] = [
    (b"/oauth/callback", b"https://api.nango.dev/oauth/callback"),
    (b"/app-auth/connect", b"https://api.nango.dev/app-auth/connect"),
];

/// A pause in which an idle connection hibernates, and the byte that stands for it. All others take
/// so long that the server reads what was sent.
const LONG_PAUSE: Duration = Duration::from_millis(300);
const LONG: u8 = 0xff;

struct Server {
    http: SocketAddr,
    admin: SocketAddr,
}

/// Starts the server in this process.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [http, admin] = listeners.each_ref().map(|one| one.local_addr().expect("an address"));
    let settings = [
        ("LISTEN__HTTP", http.to_string()),
        ("LISTEN__ADMIN", admin.to_string()),
        ("LOG__LEVEL", "error".into()),
        ("LIMITS__REQUEST_TIMEOUT", "2s".into()),
        ("LIMITS__CONNECTIONS_PER_ADDRESS", "10000".into()),
    ]
    .map(|(name, value)| (format!("CALLBACK_EDGE_{name}").into(), value.into()));
    let load = move || config::load(None, settings.clone());
    let settings = load().expect("settings").settings;
    let log = Log::start(Format::Json, settings.log.level).expect("a log");
    let startup = Startup {
        settings,
        file: None,
        source: Box::new(load),
        log: log.into(),
        inherited: listeners.into(),
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let ended = runtime.expect("a runtime").block_on(serve(startup));
        panic!("the server ended: {:?}", ended.is_ok());
    });
    // A panic of a task ends the run.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    Server { http, admin }
});

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Writes the input, each part separately. Returns what was sent, the responses, `None` when they
/// were reset, and whether there was a long pause.
fn exchange(data: &[u8]) -> (Vec<u8>, Option<Vec<u8>>, bool) {
    let mut stream = connect(SERVER.http);
    let mut input = Input(data);
    let (mut sent, mut long) = (Vec::new(), false);
    loop {
        let part = input.piece();
        // The server may close before all of it is written.
        let _ = stream.write_all(part);
        sent.extend_from_slice(part);
        if input.0.is_empty() {
            break;
        }
        if input.byte() == LONG && !long {
            sleep(LONG_PAUSE);
            long = true;
        } else {
            sleep(Duration::from_micros(200));
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut received = Vec::new();
    let read = stream.read_to_end(&mut received);
    if let Err(error) = &read {
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "it neither responds nor closes");
    }
    (sent, read.is_ok().then_some(received), long)
}

/// A response: its status line, its fields, and whether the connection ends with it.
struct Response<'a> {
    status: &'a [u8],
    location: Option<&'a [u8]>,
    last: bool,
}

fn find(data: &[u8], text: &[u8]) -> Option<usize> {
    data.windows(text.len()).position(|at| at == text)
}

/// Takes the next response from the front.
fn response<'a>(rest: &mut &'a [u8]) -> Response<'a> {
    let end = find(rest, b"\r\n\r\n").expect("the end of a head");
    let (head, after) = (&rest[..end], &rest[end + 4..]);
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let status = lines.next().unwrap_or_default();
    assert!(status.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(status));
    let fields: Vec<&[u8]> = lines.collect();
    let field = |name: &[u8]| fields.iter().find_map(|line| line.strip_prefix(name));
    let length = field(b"content-length: ")
        .map_or(0, |length| String::from_utf8_lossy(length).parse::<usize>().expect("a length"));
    // The response to HEAD has a length and no content.
    let bare = after.is_empty() || after.starts_with(b"HTTP/1.");
    *rest = if bare { after } else { after.get(length..).expect("all of the content") };
    let keeps = field(b"connection: ") == Some(b"keep-alive");
    Response {
        status,
        location: field(b"location: "),
        last: field(b"connection: ") == Some(b"close")
            || (status.starts_with(b"HTTP/1.0") && !keeps),
    }
}

/// The end of the line, in the sent bytes, of the first request after `from` that leads to this
/// location. A line is complete with its LF.
fn request_line(sent: &[u8], from: usize, location: &[u8], form: bool) -> Option<usize> {
    let (path, query) = TARGETS
        .iter()
        .find_map(|(path, target)| Some((*path, location.strip_prefix(*target)?)))
        .expect("a target of the settings");
    let mut at = from;
    while let Some(length) = sent[at..].iter().position(|byte| *byte == b'\n') {
        let line = &sent[at..at + length];
        at += length + 1;
        let target = [b" ", path].concat();
        // A body may end in the same line.
        let mut rest = line;
        while let Some(found) = find(rest, &target) {
            rest = &rest[found + target.len()..];
            let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
            let (raw, version) = rest.split_at(end);
            // Of a form the query is the first part; its own bytes may come in chunks.
            let leads = raw == query || (form && query.starts_with(raw));
            if leads && version.starts_with(b" HTTP/1.") {
                return Some(at);
            }
        }
    }
    None
}

/// The number of responses with this status.
fn counted(status: &str) -> u64 {
    let mut stream = connect(SERVER.admin);
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).expect("the admin listener");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("metrics");
    let value = |line: &str, series: &str| Some(line.strip_prefix(series)?.trim().parse().ok()?);
    let series = format!("callback_edge_requests_total{{status=\"{status}\"}}");
    text.lines().find_map(|line| value(line, &series)).expect("the metric")
}

fuzz_target!(|data: &[u8]| {
    // Most inputs have no long pause and are fast: the counter is not read for them.
    let has_long = data.windows(2).any(|pair| pair == [0, LONG]);
    let before = has_long.then(|| counted("308"));
    let (sent, received, long) = exchange(data);
    let Some(received) = received else { return };
    let (mut rest, mut at, mut redirects) = (&received[..], 0, 0);
    while !rest.is_empty() {
        let response = response(&mut rest);
        if let Some(location) = response.location {
            let form = response.status.ends_with(b" 303 See Other");
            let line = request_line(&sent, at, location, form);
            let shown = String::from_utf8_lossy(location);
            at = line.unwrap_or_else(|| panic!("no request leads to {shown}"));
            redirects += u64::from(!form);
        }
        let more = String::from_utf8_lossy(rest);
        assert!(!response.last || rest.is_empty(), "after the last response: {more}");
    }
    if let Some(before) = before.filter(|_| long) {
        // Of what arrives after the last response nothing is parsed. The server has read it by then.
        sleep(Duration::from_millis(5));
        assert_eq!(counted("308") - before, redirects, "a request without a response");
    }
});
