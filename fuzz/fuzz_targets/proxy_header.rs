//! The PROXY header: not a byte is read beyond it, and the bytes behind it change nothing.

#![no_main]

use callback_edge::server::read_proxy_header;
use libfuzzer_sys::fuzz_target;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The address, and how much was read. A slice is always ready.
fn read(bytes: &[u8]) -> (Option<Option<SocketAddr>>, usize) {
    let mut rest = bytes;
    let result = {
        let mut reading = pin!(read_proxy_header(&mut rest));
        match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("it waits for what is there"),
        }
    };
    (result.ok(), bytes.len() - rest.len())
}

fuzz_target!(|data: &[u8]| {
    let (found, taken) = read(data);
    assert!(taken <= 16 + 4096);
    let Some(address) = found else { return };
    let header = &data[..taken];
    assert!(header.starts_with(b"PROXY ") || header.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
    // Sections 2.1 and 2.2 of the protocol.
    let length = match data {
        [b'P', ..] => data.windows(2).position(|at| at == b"\r\n").expect("a line end") + 2,
        _ => 16 + usize::from(u16::from_be_bytes([data[14], data[15]])),
    };
    assert_eq!(taken, length, "it reads another length than is said");
    assert_eq!(read(header), (found, taken), "it looks beyond the header");
    let more = [header, b"\r\nGET / HTTP/1.1\r\n\r\n"].concat();
    assert_eq!(read(&more), (found, taken), "what follows changes it");
    for cut in 0..taken {
        assert_eq!(read(&header[..cut]).0, None, "a part of it counts");
    }
    // A text header says the address as people write it.
    if let (Some(address), true) = (address, header.starts_with(b"PROXY ")) {
        let text = String::from_utf8_lossy(header);
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        assert_eq!(words.get(2).and_then(|word| word.parse().ok()), Some(address.ip()));
        assert_eq!(words.get(4).and_then(|word| word.parse().ok()), Some(address.port()));
    }
});
