//! The whole edge, as bytes on a socket reach it: each redirect answers a request line that was
//! sent, and carries its query byte for byte. Nothing ends the process.

#![no_main]

use callback_edge::config;
use callback_edge::observe::{Format, Log};
use callback_edge::server::{Startup, serve};
use libfuzzer_sys::fuzz_target;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

const TARGET: &str = "https://api.nango.dev/oauth/callback";

/// Starts the edge in this process.
static EDGE: LazyLock<SocketAddr> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let settings = [
        ("LISTEN__HTTP", address.to_string()),
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
        inherited: vec![listener],
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let ended = runtime.expect("a runtime").block_on(serve(startup));
        panic!("the edge ended: {:?}", ended.is_ok());
    });
    // A panic of a task ends the run.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    address
});

fn has(data: &[u8], text: &[u8]) -> bool {
    data.windows(text.len()).any(|at| at == text)
}

fuzz_target!(|data: &[u8]| {
    let mut stream = TcpStream::connect(*EDGE).expect("the edge");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    // It may close in the midst of it.
    let _ = stream.write_all(data);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "it neither answers nor closes");
    }
    for head in answer.split(|byte| *byte == b'\n') {
        let Some(location) = head.strip_prefix(b"location: ") else { continue };
        let location = location.strip_suffix(b"\r").expect("a line end");
        let callback = location.strip_prefix(TARGET.as_bytes());
        let callback = callback.map(|rest| (&b"/oauth/callback"[..], rest));
        let setup = || {
            let rest = location.strip_prefix(b"https://api.nango.dev/app-auth/connect");
            rest.map(|rest| (&b"/app-auth/connect"[..], rest))
        };
        let (path, rest) = callback.or_else(setup).expect("a target of ours");
        // Of a form the first part is the query; its own bytes may come in chunks.
        let line = [b" ", path, rest, b" HTTP/1."].concat();
        let of_a_form = has(&answer, b" 303 See Other\r\n") && has(data, b"POST /");
        assert!(has(data, &line) || of_a_form, "{:?}", String::from_utf8_lossy(location));
    }
});
