"""Frames that an HTTP/2 server must accept or reject: a table, by section of RFC 9113.

    frames.py PORT

Each row uses its own connection, followed by a valid request on another one. Prints a line for each
row; exits with 1 if an outcome violates the RFC.
"""

import socket
import ssl
import struct
import sys

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame,
    PriorityFrame, PushPromiseFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame,
)

PORT = int(sys.argv[1])
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CODES = (
    "NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED"
    " FRAME_SIZE_ERROR REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM"
    " INADEQUATE_SECURITY HTTP_1_1_REQUIRED"
).split()
GET = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"),
       (":path", "/oauth/callback?code=1")]
FORM = [(":method", "POST"), *GET[1:], ("content-type", "application/x-www-form-urlencoded")]
LOCATION = "https://api.nango.dev/oauth/callback?code=1"


def raw(kind, flags=0, stream=0, payload=b""):
    """A frame that no library generates."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def block(fields):
    # Without Huffman coding or a table: malformed names are sent unchanged.
    return Encoder().encode(fields, huffman=False)


def headers(fields=GET, stream=1, flags=("END_HEADERS", "END_STREAM"), data=None):
    frame = HeadersFrame(stream, block(fields) if data is None else data)
    for flag in flags:
        frame.flags.add(flag)
    return frame.serialize()


def form(stream=1, more=()):
    """The head of a form, without its body."""
    return headers([*FORM, *more], stream, ("END_HEADERS",))


def data(stream=1, payload=b"a", end=True):
    frame = DataFrame(stream, payload)
    if end:
        frame.flags.add("END_STREAM")
    return frame.serialize()


def settings(**values):
    return SettingsFrame(0, settings={int(key[1:]): value for key, value in values.items()}).serialize()


def window(increment, stream=0):
    return raw(8, 0, stream, struct.pack(">I", increment))


def without(name):
    return [field for field in GET if field[0] != name]


class Client:
    def __init__(self, opening=PREFACE + SettingsFrame(0).serialize()):
        # Certificates are not tested here.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", PORT), timeout=20)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.decoder = Decoder()
        self.send(opening)

    def send(self, frames):
        try:
            self.socket.sendall(frames)
        except OSError:
            pass  # The server has closed the connection meanwhile.

    def read(self, count):
        read = b""
        while len(read) < count:
            try:
                more = self.socket.recv(count - len(read))
            except TimeoutError:
                raise SystemExit("the server neither responds nor closes")
            except OSError:
                more = b""
            if not more:
                return None
            read += more
        return read

    def frames(self):
        """All frames until the end of the connection."""
        while (head := self.read(9)) is not None:
            frame, length = Frame.parse_frame_header(memoryview(head))
            body = self.read(length)
            if body is None:
                return
            frame.parse_body(memoryview(body))
            yield frame

    def outcomes(self, patient):
        """The actions of the server up to its response to our PING; `patient` also waits for an
        action on a stream."""
        seen = []
        pinged = on_stream = False
        for frame in self.frames():
            if isinstance(frame, GoAwayFrame):
                seen.append(f"connection {CODES[frame.error_code]}")
                if frame.error_code:
                    return seen
            elif isinstance(frame, RstStreamFrame):
                seen.append(f"stream {CODES[frame.error_code]}")
                on_stream = True
            elif isinstance(frame, HeadersFrame):
                fields = self.decoder.decode(frame.data)
                seen.append(f"status {dict(fields)[':status']}")
                # Its code must not reach a compression context (RFC 7541 §7.1.3): never indexed.
                if any(tuple(field) == ("location", LOCATION) and not field.indexable for field in fields):
                    seen.append("redirect")
                on_stream = True
            elif isinstance(frame, SettingsFrame) and "ACK" in frame.flags:
                seen.append("settings ack")
            elif isinstance(frame, PingFrame) and "ACK" in frame.flags:
                seen.append(f"ping {bytes(frame.opaque_data).decode()}")
                pinged = True
            if pinged and (on_stream or not patient):
                return seen
        return [*seen, "closed"]


PING = PingFrame(0, opaque_data=b"the end.").serialize()


def connection_error(code):
    return [f"connection {code}"]


def stream_error(code):
    # A stream error may be treated as a connection error (5.4).
    return [f"stream {code}", f"connection {code}"]


def generic_error(code):
    # The h2 crate uses PROTOCOL_ERROR instead of this code.
    return [f"connection {code}", "connection PROTOCOL_ERROR"]


MALFORMED = ["stream PROTOCOL_ERROR", "connection PROTOCOL_ERROR", "status 400"]
REDIRECTED = ["redirect"]

half = headers(flags=())
ROWS = [
    # Section, description, bytes to send, and outcomes of which one must occur.
    ("3.4", "an unknown preface", None, ["connection PROTOCOL_ERROR", "closed"]),
    # The h2 crate acknowledges a PING before any SETTINGS, and does nothing else.
    ("3.4", "a first frame other than SETTINGS", PREFACE, [*connection_error("PROTOCOL_ERROR"), "ping the end."]),
    ("4.1", "a frame of an unknown type", raw(0x42, 0xff, 0, b"what") + headers(), REDIRECTED),
    ("4.1", "unknown flags and the reserved bit", raw(6, 0xfe, 1 << 31, b"8 bytes.") + headers(), REDIRECTED),
    ("4.2", "HEADERS over the limit", raw(1, 5, 1, bytes(16385)), connection_error("FRAME_SIZE_ERROR")),
    ("4.2", "DATA over the limit", form() + raw(0, 0, 1, bytes(16385)), stream_error("FRAME_SIZE_ERROR")),
    ("4.3", "an invalid header block", headers(data=b"\xff\xff\xff\xff\xff"), generic_error("COMPRESSION_ERROR")),
    ("4.3", "an undefined index", headers(data=b"\xfe"), generic_error("COMPRESSION_ERROR")),
    ("4.3", "a table larger than the agreed size", headers(data=b"\x3f\xe1\xff\x03" + block(GET)), generic_error("COMPRESSION_ERROR")),
    ("4.3", "another frame within a header block", half + PING, connection_error("PROTOCOL_ERROR")),
    ("4.3", "another stream within a header block", half + headers(stream=3), connection_error("PROTOCOL_ERROR")),
    ("5.1", "DATA on an idle stream", data(), connection_error("PROTOCOL_ERROR")),
    ("5.1", "RST_STREAM on an idle stream", RstStreamFrame(1).serialize(), connection_error("PROTOCOL_ERROR")),
    ("5.1", "WINDOW_UPDATE on an idle stream", window(1, 1), connection_error("PROTOCOL_ERROR")),
    ("5.1", "CONTINUATION on an idle stream", ContinuationFrame(1).serialize(), connection_error("PROTOCOL_ERROR")),
    ("5.1", "DATA after the end of its stream", form() + data() + data(), [*stream_error("STREAM_CLOSED"), *generic_error("STREAM_CLOSED")]),
    ("5.1", "HEADERS after the end of its stream", headers() + headers(), ["stream STREAM_CLOSED", "connection STREAM_CLOSED", "connection PROTOCOL_ERROR"]),
    ("5.1.1", "an even stream", headers(stream=2), connection_error("PROTOCOL_ERROR")),
    ("5.1.1", "a stream below the last one", headers(stream=5) + headers(stream=3), ["connection PROTOCOL_ERROR", "connection STREAM_CLOSED"]),
    ("5.1.2", "more streams than allowed", b"".join(form(stream) for stream in range(1, 201, 2)), ["stream REFUSED_STREAM", "stream PROTOCOL_ERROR", "connection PROTOCOL_ERROR"]),
    ("6.1", "DATA on stream 0", raw(0, 1, 0, b"a"), connection_error("PROTOCOL_ERROR")),
    ("6.1", "DATA with too much padding", form() + raw(0, 8, 1, b"\x05abcd"), connection_error("PROTOCOL_ERROR")),
    ("6.2", "HEADERS on stream 0", raw(1, 5, 0, block(GET)), connection_error("PROTOCOL_ERROR")),
    ("6.2", "HEADERS with too much padding", raw(1, 0xd, 1, b"\xff" + block(GET)), connection_error("PROTOCOL_ERROR")),
    ("6.3", "PRIORITY on stream 0", raw(2, 0, 0, bytes(5)), connection_error("PROTOCOL_ERROR")),
    ("6.3", "PRIORITY of a wrong length", headers() + raw(2, 0, 1, bytes(4)), [*stream_error("FRAME_SIZE_ERROR"), *generic_error("FRAME_SIZE_ERROR")]),
    ("6.3", "PRIORITY on an idle stream", PriorityFrame(3, depends_on=1).serialize() + headers(), REDIRECTED),
    ("6.3", "PRIORITY on itself, an error in RFC 7540", PriorityFrame(1, depends_on=1).serialize() + headers(), ["redirect", *stream_error("PROTOCOL_ERROR")]),
    ("6.4", "RST_STREAM on stream 0", raw(3, 0, 0, bytes(4)), connection_error("PROTOCOL_ERROR")),
    ("6.4", "RST_STREAM of a wrong length", form() + raw(3, 0, 1, bytes(3)), generic_error("FRAME_SIZE_ERROR")),
    ("6.5", "SETTINGS on a stream", raw(4, 0, 1), connection_error("PROTOCOL_ERROR")),
    ("6.5", "SETTINGS of a wrong length", raw(4, 0, 0, bytes(5)), generic_error("FRAME_SIZE_ERROR")),
    ("6.5", "an acknowledgement with a payload", raw(4, 1, 0, bytes(6)), generic_error("FRAME_SIZE_ERROR")),
    ("6.5.2", "ENABLE_PUSH 2", settings(_2=2), connection_error("PROTOCOL_ERROR")),
    ("6.5.2", "INITIAL_WINDOW_SIZE 2^31", settings(_4=1 << 31), generic_error("FLOW_CONTROL_ERROR")),
    ("6.5.2", "MAX_FRAME_SIZE 16383", settings(_5=16383), connection_error("PROTOCOL_ERROR")),
    ("6.5.2", "MAX_FRAME_SIZE 2^24", settings(_5=1 << 24), connection_error("PROTOCOL_ERROR")),
    ("6.5.2", "an unknown setting", raw(4, 0, 0, b"\xab\xcd\0\0\0\x01") + headers(), REDIRECTED),
    ("6.5.3", "SETTINGS", b"", ["settings ack"]),
    ("6.6", "PUSH_PROMISE", headers() + raw(5, 4, 1, struct.pack(">I", 2) + block(GET)), connection_error("PROTOCOL_ERROR")),
    ("6.7", "PING on a stream", raw(6, 0, 1, bytes(8)), connection_error("PROTOCOL_ERROR")),
    ("6.7", "PING of a wrong length", raw(6, 0, 0, bytes(7)), generic_error("FRAME_SIZE_ERROR")),
    ("6.7", "PING", b"", ["ping the end."]),
    ("6.8", "GOAWAY on a stream", raw(7, 0, 1, bytes(8)), connection_error("PROTOCOL_ERROR")),
    ("6.8", "GOAWAY after a request", headers() + GoAwayFrame(0).serialize(), REDIRECTED),
    ("6.9", "WINDOW_UPDATE of a wrong length", raw(8, 0, 0, bytes(3)), generic_error("FRAME_SIZE_ERROR")),
    ("6.9", "WINDOW_UPDATE by 0", window(0), connection_error("PROTOCOL_ERROR")),
    ("6.9", "WINDOW_UPDATE by 0 on a stream", form() + window(0, 1), stream_error("PROTOCOL_ERROR")),
    ("6.9.1", "a window over 2^31-1", window(0x7fffffff), connection_error("FLOW_CONTROL_ERROR")),
    ("6.9.1", "a stream's window over 2^31-1", form() + window(0x7fffffff, 1), stream_error("FLOW_CONTROL_ERROR")),
    ("6.9.1", "more DATA than the window allows", form() + data(payload=bytes(16384), end=False) * 20, stream_error("FLOW_CONTROL_ERROR")),
    ("6.10", "CONTINUATION after a complete block", headers() + raw(9, 4, 1), connection_error("PROTOCOL_ERROR")),
    ("6.10", "CONTINUATION on stream 0", half + raw(9, 4, 0), connection_error("PROTOCOL_ERROR")),
    ("6.10", "a head in two frames", headers(flags=("END_STREAM",), data=block(GET)[:7]) + raw(9, 4, 1, block(GET)[7:]), REDIRECTED),
    ("8.1", "trailers without END_STREAM", form() + headers([("x", "y")], flags=("END_HEADERS",)), MALFORMED),
    ("8.1.1", "less content than Content-Length", form(more=[("content-length", "5")]) + data(), MALFORMED),
    ("8.1.1", "more content than Content-Length", form(more=[("content-length", "1")]) + data(payload=b"a=1"), MALFORMED),
    ("8.2.1", "a field name in upper case", headers([*GET, ("X-Case", "1")]), MALFORMED),
    ("8.2.1", "a space in a field name", headers([*GET, ("x y", "1")]), MALFORMED),
    ("8.2.1", "a line break in a field value", headers([*GET, ("x", "1\r\ny: 2")]), MALFORMED),
    ("8.2.1", "NUL in a field value", headers([*GET, ("x", "\0")]), MALFORMED),
    ("8.2.2", "Connection", headers([*GET, ("connection", "close")]), MALFORMED),
    ("8.2.2", "Keep-Alive", headers([*GET, ("keep-alive", "1")]), MALFORMED),
    ("8.2.2", "Proxy-Connection", headers([*GET, ("proxy-connection", "close")]), MALFORMED),
    ("8.2.2", "Transfer-Encoding", headers([*GET, ("transfer-encoding", "chunked")]), MALFORMED),
    ("8.2.2", "Upgrade", headers([*GET, ("upgrade", "h2c")]), MALFORMED),
    ("8.2.2", "TE other than trailers", headers([*GET, ("te", "gzip")]), MALFORMED),
    ("8.2.2", "TE: trailers", headers([*GET, ("te", "trailers")]), REDIRECTED),
    ("8.3", "an unknown pseudo-header", headers([*GET, (":what", "1")]), MALFORMED),
    ("8.3", "a pseudo-header of responses", headers([*GET, (":status", "200")]), MALFORMED),
    ("8.3", "a pseudo-header after a field", headers([*GET[:3], ("x", "1"), GET[3]]), MALFORMED),
    # The h2 crate drops it, and the server reads no trailers.
    ("8.3", "a pseudo-header in trailers", form() + headers([(":path", "/")]), [*MALFORMED, "status 303"]),
    ("8.3", "a pseudo-header twice", headers([*GET, GET[3]]), MALFORMED),
    ("8.3.1", "no :method", headers(without(":method")), MALFORMED),
    ("8.3.1", "no :scheme", headers(without(":scheme")), MALFORMED),
    ("8.3.1", "no :path", headers(without(":path")), MALFORMED),
    ("8.3.1", "an empty :path", headers([*without(":path"), (":path", "")]), MALFORMED),
    ("8.3.1", "a Host different from :authority", headers([*GET, ("host", "evil.example")]), MALFORMED),
    ("8.5", "CONNECT with a :path", headers([(":method", "CONNECT"), *GET[1:]]), [*MALFORMED, "status 405"]),
]


def run(sent, patient):
    if sent is None:
        client = Client(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    elif sent is PREFACE:
        client = Client(PREFACE)
    else:
        client = Client()
        client.send(sent)
    client.send(PING)
    return client.outcomes(patient)


wrong = 0
for section, name, sent, wanted in ROWS:
    on_a_stream = any(it.startswith(("stream", "status", "redirect")) for it in wanted)
    seen = run(sent, patient=on_a_stream)
    good = any(outcome in seen for outcome in wanted)
    # A malformed request is never redirected.
    good &= wanted is not MALFORMED or "redirect" not in seen
    wrong += not good
    print(f"{'ok  ' if good else 'FAIL'} {section:6} {name}: {', '.join(seen)}")
    after = run(headers(), patient=True)
    if "redirect" not in after:
        raise SystemExit(f"the next request is not served: {after}")

print(f"{len(ROWS)} rows, {wrong} wrong")
sys.exit(wrong > 0)
