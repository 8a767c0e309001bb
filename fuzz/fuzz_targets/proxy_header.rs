//! The PROXY header: its length is the stated one, and the bytes after it change nothing.

#![no_main]

use callback_edge::server::parse_proxy_header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(Some(found @ (length, address))) = parse_proxy_header(data) else { return };
    assert!(length <= 16 + 4096);
    let header = &data[..length];
    assert!(header.starts_with(b"PROXY ") || header.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
    // Sections 2.1 and 2.2 of the protocol.
    let stated = match data {
        [b'P', ..] => data.windows(2).position(|at| at == b"\r\n").expect("a line end") + 2,
        _ => 16 + usize::from(u16::from_be_bytes([data[14], data[15]])),
    };
    assert_eq!(length, stated);
    let parse = |bytes: &[u8]| parse_proxy_header(bytes).ok().flatten();
    assert_eq!(parse(header), Some(found), "it reads beyond the header");
    let more = [header, b"\r\nGET / HTTP/1.1\r\n\r\n"].concat();
    assert_eq!(parse(&more), Some(found), "the bytes after it change it");
    for cut in 0..length {
        assert_eq!(parse(&header[..cut]), None, "a part of it is accepted");
    }
    // A text header contains the address as text.
    if let (Some(address), true) = (address, header.starts_with(b"PROXY ")) {
        let text = String::from_utf8_lossy(header);
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        assert_eq!(words.get(2).and_then(|word| word.parse().ok()), Some(address.ip()));
        assert_eq!(words.get(4).and_then(|word| word.parse().ok()), Some(address.port()));
    }
});
