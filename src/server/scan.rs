//! Scanners of the bytes of a connection, before the protocol reads them.

use memchr::memmem::Finder;
use std::sync::LazyLock;

/// Follows the request heads of an HTTP/1 connection, and makes a `#` in a request line a byte that
/// hyper refuses.
///
/// hyper cuts a request target at `#`, so that the query would arrive shortened. A request target has
/// no fragment (RFC 9112 §3.2); it is refused instead.
///
/// The rules are those of httparse: line ends before a request line are skipped (RFC 9112 §2.2), then
/// the request line lasts to its LF, and an empty line ends the head. Where httparse refuses what is
/// accepted here, the connection ends anyway. Bodies are followed as if they were heads: a form that
/// holds `#` is refused, and the connection ends after every body, so that no head hides in one.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    position: Position,
    /// Bytes after the last head.
    partial: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Position {
    /// Before a request line.
    #[default]
    Between,
    RequestLine,
    FieldLine,
    /// At the start of a line after the request line; an empty one ends the head.
    LineStart,
}

impl HeadScanner {
    /// Whether these bytes are empty lines before a request, which mean nothing: some clients send one
    /// after a form. A CR without its LF is none of them: httparse refuses it.
    pub(super) fn is_blank(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while let Some(after) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) {
            rest = after;
        }
        self.partial == 0 && self.position == Position::Between && rest.is_empty()
    }

    /// Follows bytes. Returns how many heads ended in them, and how many bytes are there of the
    /// next.
    pub(super) fn scan(&mut self, bytes: &mut [u8]) -> (u32, usize) {
        if self.position == Position::Between && is_one_plain_head(bytes) {
            self.partial = 0;
            return (1, 0);
        }
        let mut heads = 0;
        for byte in bytes {
            self.partial += 1;
            self.position = match (self.position, *byte) {
                (Position::Between, b'\r' | b'\n') => Position::Between,
                (Position::Between | Position::RequestLine, b'#') => {
                    *byte = 0x7f;
                    Position::RequestLine
                }
                (Position::LineStart, b'\n') => {
                    heads += 1;
                    self.partial = 0;
                    Position::Between
                }
                (Position::RequestLine | Position::FieldLine, b'\n')
                | (Position::LineStart, b'\r') => Position::LineStart,
                (Position::Between | Position::RequestLine, _) => Position::RequestLine,
                (Position::LineStart | Position::FieldLine, _) => Position::FieldLine,
            };
        }
        (heads, self.partial)
    }
}

/// The common case: exactly one head, without a `#`.
fn is_one_plain_head(bytes: &[u8]) -> bool {
    let Some(before) = bytes.strip_suffix(b"\n") else { return false };
    before.first().is_some_and(u8::is_ascii_alphabetic)
        && before.ends_with(b"\r\n\r")
        && memchr::memchr(b'#', before).is_none()
        && EMPTY_LINES.iter().all(|empty| empty.find(before).is_none())
}

/// What ends a head.
static EMPTY_LINES: LazyLock<[Finder<'_>; 2]> =
    LazyLock::new(|| [b"\n\r\n".as_slice(), b"\n\n"].map(Finder::new));

/// Counts the frames of an HTTP/2 connection that cost little to send and contain no request.
///
/// `h2` bounds `CONTINUATION`, `RST_STREAM` and empty `DATA` frames, but responds to any number of
/// `SETTINGS` and `PING`, and accepts any number of `PRIORITY` and `WINDOW_UPDATE`.
#[derive(Debug)]
pub(super) struct FrameScanner {
    /// Bytes of the preface or of a payload that are still to come.
    skip: usize,
    header: [u8; FRAME_HEADER],
    filled: usize,
    budget: u32,
}

/// RFC 9113 §3.4.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
/// RFC 9113 §4.1.
const FRAME_HEADER: usize = 9;
/// Frames without a request that a connection may send: PINGs for an hour, at one in four seconds.
const FREE_FRAMES: u32 = 1000;
/// More of them for each request. Browsers send two or three.
const FRAMES_PER_REQUEST: u32 = 16;

// RFC 9113 §6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

impl Default for FrameScanner {
    fn default() -> Self {
        Self { skip: PREFACE, header: [0; FRAME_HEADER], filled: 0, budget: FREE_FRAMES }
    }
}

impl FrameScanner {
    /// Follows bytes. Returns whether the connection has sent no more frames than it may.
    pub(super) fn scan(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let rest = self.header.get_mut(self.filled..).unwrap_or_default();
            let count = rest.len().min(bytes.len());
            let (header, after) = bytes.split_at(count);
            rest.iter_mut().zip(header).for_each(|(to, from)| *to = *from);
            self.filled += count;
            bytes = after;
            if self.filled == FRAME_HEADER {
                self.filled = 0;
                self.frame();
            }
            if self.budget == 0 {
                return false;
            }
        }
        true
    }

    fn frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip = length as usize;
        match kind {
            HEADERS => {
                let more = self.budget.saturating_add(FRAMES_PER_REQUEST);
                self.budget = more.min(FREE_FRAMES);
            }
            DATA if length > 0 || flags & END_STREAM != 0 => {}
            _ => self.budget = self.budget.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scanned(chunks: &[&str]) -> String {
        let mut scanner = HeadScanner::default();
        chunks
            .iter()
            .flat_map(|chunk| {
                let mut bytes = chunk.as_bytes().to_vec();
                scanner.scan(&mut bytes);
                bytes
            })
            .map(char::from)
            .collect()
    }

    #[test]
    fn only_a_hash_in_a_request_line_is_made_refusable() {
        #[rustfmt::skip]
        let table = [
            (&["GET /cb?a#b HTTP/1.1\r\nHost: h\r\n\r\n"][..], "GET /cb?a\x7fb HTTP/1.1\r\nHost: h\r\n\r\n"),
            (&["GET /cb?a HTTP/1.1\r\nCookie: a#b\r\n\r\n"], "GET /cb?a HTTP/1.1\r\nCookie: a#b\r\n\r\n"),
            (&["GET /cb?a", "#b HTTP/1.1\r\n\r\n"], "GET /cb?a\x7fb HTTP/1.1\r\n\r\n"),
            (&["GET / HTTP/1.1\r\nX: #\r\n\r", "\nGET /#"], "GET / HTTP/1.1\r\nX: #\r\n\r\nGET /\x7f"),
            (&["GET / HTTP/1.1\r\n\r\nGET /#"], "GET / HTTP/1.1\r\n\r\nGET /\x7f"),
            (&["GET / HTTP/1.1\r\n\r\n", "GET /#"], "GET / HTTP/1.1\r\n\r\nGET /\x7f"),
            (&["GET / HTTP/1.1\nX: #\n\nGET /#"], "GET / HTTP/1.1\nX: #\n\nGET /\x7f"),
            (&["POST / HTTP/1.1\r\n\r\na=1", "GET /#"], "POST / HTTP/1.1\r\n\r\na=1GET /\x7f"),
            (&["\r\nGET /#"], "\r\nGET /\x7f"),
            (&["\nGET /#"], "\nGET /\x7f"),
            (&["\r\n", "\r", "\n\n", "GET /#"], "\r\n\r\n\nGET /\x7f"),
            (&["GET / HTTP/1.1\r\n\r\n\r\n\r\nGET /#"], "GET / HTTP/1.1\r\n\r\n\r\n\r\nGET /\x7f"),
            (&["GET / HTTP/1.1\r\n\r\n", "\r\n\r\nGET /#"], "GET / HTTP/1.1\r\n\r\n\r\n\r\nGET /\x7f"),
            (&["GET / HTTP/1.1\n\r\nX: #\r\n\r\n"], "GET / HTTP/1.1\n\r\nX: \x7f\r\n\r\n"),
            (&["GET / HTTP/1.1\r\n", "X: y\r\n\r\n", "GET /#"], "GET / HTTP/1.1\r\nX: y\r\n\r\nGET /\x7f"),
        ];
        for (chunks, expected) in table {
            assert_eq!(scanned(chunks), expected);
        }
    }

    #[test]
    fn every_head_that_arrives_at_once_is_counted() {
        const HEAD: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        #[rustfmt::skip]
        let table = [
            ("", (0, 0)),
            (HEAD, (1, 0)),
            (&HEAD.repeat(3), (3, 0)),
            (&"GET / HTTP/1.1\r\n\r\n".repeat(2), (2, 0)),
            (&format!("GET / HTTP/1.1\n\n{HEAD}"), (2, 0)),
            (&format!("{HEAD}GET /"), (1, 5)),
            ("\r\n\r\n", (0, 4)),
        ];
        for (bytes, expected) in table {
            let mut scanner = HeadScanner::default();
            assert_eq!(scanner.scan(&mut bytes.as_bytes().to_vec()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn only_whole_empty_lines_between_requests_are_blank() {
        for (before, bytes, expected) in [
            ("", "\r\n", true),
            ("", "\n\r\n\n", true),
            ("GET / HTTP/1.1\r\n\r\n", "\r\n", true),
            ("", "\r", false),
            ("", "\r\n\r", false),
            ("", "\r\nGET /", false),
            ("\r", "\n", false),
            ("GET / HTTP/1.1\r\n", "\r\n", false),
            ("GET / HTTP/1.1\r\nHost: h", "\r\n", false),
        ] {
            let mut scanner = HeadScanner::default();
            scanner.scan(&mut before.as_bytes().to_vec());
            assert_eq!(scanner.is_blank(bytes.as_bytes()), expected, "{before:?} {bytes:?}");
        }
    }

    /// What httparse makes of whole heads one after the other: how many there are, and the rest.
    fn httparse(mut bytes: &[u8]) -> (u32, usize) {
        let mut heads = 0;
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 16];
            match httparse::Request::new(&mut fields).parse(bytes) {
                Ok(httparse::Status::Complete(length)) => {
                    heads += 1;
                    bytes = &bytes[length..];
                }
                Ok(httparse::Status::Partial) => return (heads, bytes.len()),
                // The connection ends here; what follows is not parsed.
                Err(_) => return (heads, usize::MAX),
            }
        }
    }

    proptest! {
        /// However the bytes are cut: the heads, and the bytes after them, are those of httparse.
        #[test]
        fn heads_are_counted_as_httparse_counts_them(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "GET /cb?code=1 HTTP/1.1\r\n", "GET / HTTP/1.1\n", "Host: h\r\n", "X: y\n",
                    "\r\n", "\n", "\r\n\r\n", "GET /a", " HTTP/1.1", "\r", "X:",
                ]),
                0..12,
            ),
            cuts in prop::collection::vec(1_usize..40, 1..8),
        ) {
            let mut bytes = pieces.concat().into_bytes();
            let (expected, rest) = httparse(&bytes);
            let mut scanner = HeadScanner::default();
            let (mut heads, mut partial, mut at) = (0, 0, 0);
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(bytes.len());
                let (more, left) = scanner.scan(&mut bytes[at..end]);
                heads += more;
                partial = left;
                at = end;
                if at == bytes.len() {
                    break;
                }
            }
            if rest != usize::MAX {
                prop_assert_eq!((heads, partial), (expected, rest));
            }
        }

        /// No request line that httparse accepts has a `#`, however the bytes are cut.
        #[test]
        fn no_hash_reaches_a_request_target(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "GET /cb?code=1#x HTTP/1.1\r\n", "GET / HTTP/1.1\n", "Host: h#\r\n", "\r\n",
                    "\n", "\r\n\r\n", "GET /a#", "#", " HTTP/1.1", "\r", "X:#",
                ]),
                0..12,
            ),
            cut in 1_usize..40,
        ) {
            let mut bytes = pieces.concat().into_bytes();
            let mut scanner = HeadScanner::default();
            for chunk in bytes.chunks_mut(cut) {
                scanner.scan(chunk);
            }
            let mut rest = &bytes[..];
            loop {
                let mut fields = [httparse::EMPTY_HEADER; 16];
                let mut request = httparse::Request::new(&mut fields);
                let Ok(httparse::Status::Complete(length)) = request.parse(rest) else { break };
                prop_assert!(!request.path.unwrap_or_default().contains('#'));
                rest = &rest[length..];
            }
        }
    }

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
        let mut bytes = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        bytes.resize(FRAME_HEADER + length, b'x');
        bytes
    }

    /// Whether it is within the budget after this, cut into pieces of this length.
    fn within(frames: &[Vec<u8>], cut: usize) -> bool {
        let bytes = [vec![0; PREFACE], frames.concat()].concat();
        let mut scanner = FrameScanner::default();
        bytes.chunks(cut).all(|chunk| scanner.scan(chunk))
    }

    #[test]
    fn frames_without_a_request_have_a_budget_and_requests_renew_it() {
        const SETTINGS: u8 = 4;
        let free = FREE_FRAMES as usize;
        for cut in [1, 7, 9, 10, 16_384] {
            assert!(within(&vec![frame(SETTINGS, 0, 6); free - 1], cut));
            assert!(!within(&vec![frame(SETTINGS, 0, 6); free], cut));
            assert!(!within(&vec![frame(DATA, 0, 0); free], cut));
            assert!(within(&vec![frame(DATA, 0, 1); 2 * free], cut));
            assert!(within(&vec![frame(DATA, END_STREAM, 0); 2 * free], cut));
            let mut with_requests = Vec::new();
            for _ in 0..free {
                with_requests.push(frame(HEADERS, 0, 40));
                with_requests.extend(vec![frame(SETTINGS, 0, 0); FRAMES_PER_REQUEST as usize]);
            }
            assert!(within(&with_requests, cut));
            // Requests do not save up for a flood.
            let after = [with_requests, vec![frame(SETTINGS, 0, 0); free]].concat();
            assert!(!within(&after, cut));
        }
    }
}
