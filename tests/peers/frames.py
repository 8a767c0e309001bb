"""Frames that an HTTP/2 server must not take, or must take: a table, by section of RFC 9113.

    frames.py PORT

Each row is played on a connection of its own, and a good request on another one after it. Says a
line for each row; ends with 1 when one came out otherwise than the RFC wants it.
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
    """A frame that no library would write."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def block(fields):
    # Without Huffman coding or a table: malformed names go out as they are.
    return Encoder().encode(fields, huffman=False)


def headers(fields=GET, stream=1, flags=("END_HEADERS", "END_STREAM"), data=None):
    frame = HeadersFrame(stream, block(fields) if data is None else data)
    for flag in flags:
        frame.flags.add(flag)
    return frame.serialize()


def form(stream=1, more=()):
    """The head of a form whose body is still to come."""
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
        # Certificates are not what this is about.
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
            pass  # It has closed in the midst of it.

    def read(self, count):
        read = b""
        while len(read) < count:
            try:
                more = self.socket.recv(count - len(read))
            except TimeoutError:
                raise SystemExit("the edge neither answers nor closes")
            except OSError:
                more = b""
            if not more:
                return None
            read += more
        return read

    def frames(self):
        """Until the connection ends."""
        while (head := self.read(9)) is not None:
            frame, length = Frame.parse_frame_header(memoryview(head))
            body = self.read(length)
            if body is None:
                return
            frame.parse_body(memoryview(body))
            yield frame

    def outcomes(self, patient):
        """What the edge does, in words, up to the answer to our PING; one that is patient waits for
        a word on a stream behind it."""
        said = []
        pinged = told = False
        for frame in self.frames():
            if isinstance(frame, GoAwayFrame):
                said.append(f"connection {CODES[frame.error_code]}")
                if frame.error_code:
                    return said
            elif isinstance(frame, RstStreamFrame):
                said.append(f"stream {CODES[frame.error_code]}")
                told = True
            elif isinstance(frame, HeadersFrame):
                fields = dict(self.decoder.decode(frame.data))
                said.append(f"status {fields[':status']}")
                if fields.get("location") == LOCATION:
                    said.append("redirect")
                told = True
            elif isinstance(frame, SettingsFrame) and "ACK" in frame.flags:
                said.append("settings ack")
            elif isinstance(frame, PingFrame) and "ACK" in frame.flags:
                said.append(f"ping {bytes(frame.opaque_data).decode()}")
                pinged = True
            if pinged and (told or not patient):
                return said
        return [*said, "closed"]


PING = PingFrame(0, opaque_data=b"the end.").serialize()


def broken(code):
    return [f"connection {code}"]


def refused(code):
    # A stream's error may be taken for the connection's (5.4).
    return [f"stream {code}", f"connection {code}"]


def dull(code):
    # The h2 crate ends the connection with PROTOCOL_ERROR where this code is asked for.
    return [f"connection {code}", "connection PROTOCOL_ERROR"]


MALFORMED = ["stream PROTOCOL_ERROR", "connection PROTOCOL_ERROR", "status 400"]
ANSWERED = ["redirect"]

half = headers(flags=())
ROWS = [
    # Section, what is sent, the bytes, and of which outcomes one must be seen.
    ("3.4", "an unknown preface", None, ["connection PROTOCOL_ERROR", "closed"]),
    # The h2 crate answers a PING before it has seen any SETTINGS, and that is all that comes of it.
    ("3.4", "a first frame that is no SETTINGS", PREFACE, [*broken("PROTOCOL_ERROR"), "ping the end."]),
    ("4.1", "a frame of an unknown kind", raw(0x42, 0xff, 0, b"what") + headers(), ANSWERED),
    ("4.1", "unknown flags and the reserved bit", raw(6, 0xfe, 1 << 31, b"8 bytes.") + headers(), ANSWERED),
    ("4.2", "HEADERS over the limit", raw(1, 5, 1, bytes(16385)), broken("FRAME_SIZE_ERROR")),
    ("4.2", "DATA over the limit", form() + raw(0, 0, 1, bytes(16385)), refused("FRAME_SIZE_ERROR")),
    ("4.3", "a header block that is none", headers(data=b"\xff\xff\xff\xff\xff"), dull("COMPRESSION_ERROR")),
    ("4.3", "an index that nothing has", headers(data=b"\xfe"), dull("COMPRESSION_ERROR")),
    ("4.3", "a table larger than was agreed", headers(data=b"\x3f\xe1\xff\x03" + block(GET)), dull("COMPRESSION_ERROR")),
    ("4.3", "another frame within a header block", half + PING, broken("PROTOCOL_ERROR")),
    ("4.3", "another stream within a header block", half + headers(stream=3), broken("PROTOCOL_ERROR")),
    ("5.1", "DATA on an idle stream", data(), broken("PROTOCOL_ERROR")),
    ("5.1", "RST_STREAM on an idle stream", RstStreamFrame(1).serialize(), broken("PROTOCOL_ERROR")),
    ("5.1", "WINDOW_UPDATE on an idle stream", window(1, 1), broken("PROTOCOL_ERROR")),
    ("5.1", "CONTINUATION on an idle stream", ContinuationFrame(1).serialize(), broken("PROTOCOL_ERROR")),
    ("5.1", "DATA behind the end of its stream", form() + data() + data(), [*refused("STREAM_CLOSED"), *dull("STREAM_CLOSED")]),
    ("5.1", "HEADERS behind the end of its stream", headers() + headers(), ["stream STREAM_CLOSED", "connection STREAM_CLOSED", "connection PROTOCOL_ERROR"]),
    ("5.1.1", "an even stream", headers(stream=2), broken("PROTOCOL_ERROR")),
    ("5.1.1", "a stream below the last one", headers(stream=5) + headers(stream=3), ["connection PROTOCOL_ERROR", "connection STREAM_CLOSED"]),
    ("5.1.2", "more streams than are allowed", b"".join(form(stream) for stream in range(1, 201, 2)), ["stream REFUSED_STREAM", "stream PROTOCOL_ERROR", "connection PROTOCOL_ERROR"]),
    ("6.1", "DATA on stream 0", raw(0, 1, 0, b"a"), broken("PROTOCOL_ERROR")),
    ("6.1", "DATA with nothing but padding that is too long", form() + raw(0, 8, 1, b"\x05abcd"), broken("PROTOCOL_ERROR")),
    ("6.2", "HEADERS on stream 0", raw(1, 5, 0, block(GET)), broken("PROTOCOL_ERROR")),
    ("6.2", "HEADERS whose padding is too long", raw(1, 0xd, 1, b"\xff" + block(GET)), broken("PROTOCOL_ERROR")),
    ("6.3", "PRIORITY on stream 0", raw(2, 0, 0, bytes(5)), broken("PROTOCOL_ERROR")),
    ("6.3", "PRIORITY of another length", headers() + raw(2, 0, 1, bytes(4)), [*refused("FRAME_SIZE_ERROR"), *dull("FRAME_SIZE_ERROR")]),
    ("6.3", "PRIORITY on an idle stream", PriorityFrame(3, depends_on=1).serialize() + headers(), ANSWERED),
    ("6.3", "PRIORITY on itself, which once was an error", PriorityFrame(1, depends_on=1).serialize() + headers(), ["redirect", *refused("PROTOCOL_ERROR")]),
    ("6.4", "RST_STREAM on stream 0", raw(3, 0, 0, bytes(4)), broken("PROTOCOL_ERROR")),
    ("6.4", "RST_STREAM of another length", form() + raw(3, 0, 1, bytes(3)), dull("FRAME_SIZE_ERROR")),
    ("6.5", "SETTINGS on a stream", raw(4, 0, 1), broken("PROTOCOL_ERROR")),
    ("6.5", "SETTINGS of another length", raw(4, 0, 0, bytes(5)), dull("FRAME_SIZE_ERROR")),
    ("6.5", "an acknowledgement with content", raw(4, 1, 0, bytes(6)), dull("FRAME_SIZE_ERROR")),
    ("6.5.2", "ENABLE_PUSH 2", settings(_2=2), broken("PROTOCOL_ERROR")),
    ("6.5.2", "INITIAL_WINDOW_SIZE 2^31", settings(_4=1 << 31), dull("FLOW_CONTROL_ERROR")),
    ("6.5.2", "MAX_FRAME_SIZE 16383", settings(_5=16383), broken("PROTOCOL_ERROR")),
    ("6.5.2", "MAX_FRAME_SIZE 2^24", settings(_5=1 << 24), broken("PROTOCOL_ERROR")),
    ("6.5.2", "a setting that nobody knows", raw(4, 0, 0, b"\xab\xcd\0\0\0\x01") + headers(), ANSWERED),
    ("6.5.3", "SETTINGS", b"", ["settings ack"]),
    ("6.6", "PUSH_PROMISE", headers() + raw(5, 4, 1, struct.pack(">I", 2) + block(GET)), broken("PROTOCOL_ERROR")),
    ("6.7", "PING on a stream", raw(6, 0, 1, bytes(8)), broken("PROTOCOL_ERROR")),
    ("6.7", "PING of another length", raw(6, 0, 0, bytes(7)), dull("FRAME_SIZE_ERROR")),
    ("6.7", "PING", b"", ["ping the end."]),
    ("6.8", "GOAWAY on a stream", raw(7, 0, 1, bytes(8)), broken("PROTOCOL_ERROR")),
    ("6.8", "GOAWAY behind a request", headers() + GoAwayFrame(0).serialize(), ANSWERED),
    ("6.9", "WINDOW_UPDATE of another length", raw(8, 0, 0, bytes(3)), dull("FRAME_SIZE_ERROR")),
    ("6.9", "WINDOW_UPDATE by 0", window(0), broken("PROTOCOL_ERROR")),
    ("6.9", "WINDOW_UPDATE by 0 on a stream", form() + window(0, 1), refused("PROTOCOL_ERROR")),
    ("6.9.1", "a window over 2^31-1", window(0x7fffffff), broken("FLOW_CONTROL_ERROR")),
    ("6.9.1", "a stream's window over 2^31-1", form() + window(0x7fffffff, 1), refused("FLOW_CONTROL_ERROR")),
    ("6.9.1", "more DATA than the window takes", form() + data(payload=bytes(16384), end=False) * 20, refused("FLOW_CONTROL_ERROR")),
    ("6.10", "CONTINUATION behind a whole block", headers() + raw(9, 4, 1), broken("PROTOCOL_ERROR")),
    ("6.10", "CONTINUATION on stream 0", half + raw(9, 4, 0), broken("PROTOCOL_ERROR")),
    ("6.10", "a head in two frames", headers(flags=("END_STREAM",), data=block(GET)[:7]) + raw(9, 4, 1, block(GET)[7:]), ANSWERED),
    ("8.1", "trailers without END_STREAM", form() + headers([("x", "y")], flags=("END_HEADERS",)), MALFORMED),
    ("8.1.1", "less content than Content-Length says", form(more=[("content-length", "5")]) + data(), MALFORMED),
    ("8.1.1", "more content than Content-Length says", form(more=[("content-length", "1")]) + data(payload=b"a=1"), MALFORMED),
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
    ("8.2.2", "TE: trailers", headers([*GET, ("te", "trailers")]), ANSWERED),
    ("8.3", "an unknown pseudo-header", headers([*GET, (":what", "1")]), MALFORMED),
    ("8.3", "a pseudo-header of responses", headers([*GET, (":status", "200")]), MALFORMED),
    ("8.3", "a pseudo-header behind a field", headers([*GET[:3], ("x", "1"), GET[3]]), MALFORMED),
    # The h2 crate leaves it out, and the edge reads no trailers.
    ("8.3", "a pseudo-header in trailers", form() + headers([(":path", "/")]), [*MALFORMED, "status 303"]),
    ("8.3", "a pseudo-header twice", headers([*GET, GET[3]]), MALFORMED),
    ("8.3.1", "no :method", headers(without(":method")), MALFORMED),
    ("8.3.1", "no :scheme", headers(without(":scheme")), MALFORMED),
    ("8.3.1", "no :path", headers(without(":path")), MALFORMED),
    ("8.3.1", "an empty :path", headers([*without(":path"), (":path", "")]), MALFORMED),
    ("8.3.1", "a Host unlike :authority", headers([*GET, ("host", "evil.example")]), MALFORMED),
    ("8.5", "CONNECT with a :path", headers([(":method", "CONNECT"), *GET[1:]]), [*MALFORMED, "status 405"]),
]


def play(sent, patient):
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
    said = play(sent, patient=on_a_stream)
    good = any(outcome in said for outcome in wanted)
    # Nothing that is malformed is redirected.
    good &= wanted is not MALFORMED or "redirect" not in said
    wrong += not good
    print(f"{'ok  ' if good else 'NOT '} {section:6} {name}: {', '.join(said)}")
    after = play(headers(), patient=True)
    if "redirect" not in after:
        raise SystemExit(f"behind it nobody is served: {after}")

print(f"{len(ROWS)} rows, {wrong} wrong")
sys.exit(wrong > 0)
