//! HTTP/2 frames written by hand (RFC 9113 §4, §6), for clients that libraries do not allow.

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The preface and a SETTINGS frame with these values.
pub(crate) fn opening(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    [PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat()
}

/// A header block (RFC 7541): GET of this path.
pub(crate) fn get(path: &str) -> Vec<u8> {
    block(0x82, path)
}

/// A header block: POST of a form.
pub(crate) fn post(path: &str) -> Vec<u8> {
    let mut block = block(0x83, path);
    // content-type is the 31st of the static table, without indexing.
    block.extend_from_slice(&[0x0f, 0x10]);
    string(&mut block, "application/x-www-form-urlencoded");
    block
}

fn block(method: u8, path: &str) -> Vec<u8> {
    // :scheme https, then :path and :authority as literals without indexing.
    let mut block = vec![method, 0x87, 0x04];
    string(&mut block, path);
    block.push(0x01);
    string(&mut block, "localhost");
    block
}

/// A literal field without indexing (RFC 7541 §6.2.2).
pub(crate) fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    string(&mut field, name);
    string(&mut field, value);
    field
}

/// A string literal without Huffman coding: the length as an integer with a 7-bit prefix, then the
/// bytes (RFC 7541 §5.1, §5.2).
fn string(block: &mut Vec<u8>, text: &str) {
    if let Some(mut rest) = text.len().checked_sub(127) {
        block.push(127);
        while rest >= 128 {
            block.push(0x80 | u8::try_from(rest % 128).unwrap());
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap());
    } else {
        block.push(u8::try_from(text.len()).unwrap());
    }
    block.extend_from_slice(text.as_bytes());
}
