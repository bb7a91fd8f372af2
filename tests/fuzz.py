"""Fuzzing with hypothesis: the same targets as tests/test_fuzz.py, for as long as you like.

    python tests/fuzz.py --minutes 10              every target in turn; exit status 1 if one failed
    python tests/fuzz.py --minutes 5 core http     only these
    python tests/fuzz.py --minutes 10 --docs       also writes the figures to docs/reliability.md

A failure is shown shrunk, and is tried first the next time (.hypothesis/). What goes over sockets stays on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import encodings.aliases
import gzip
import itertools
import logging
import math
import platform
import re
import socket
import sys
import threading
import time
import traceback
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import h11  # noqa: E402
import hypothesis  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test  # noqa: E402

import httpclient  # noqa: E402
import reference  # noqa: E402
import scripted  # noqa: E402
import sse  # noqa: E402
import test_agreement  # noqa: E402
import test_http_framing  # noqa: E402
from httpclient import HttpConnectionError, HttpError, HttpProtocolError  # noqa: E402

CPU_LIMIT = 5.0
"""Seconds of CPU time that no example may take."""

TARGETS: dict[str, Callable[[Any], None]] = {}
"""Name to a function that runs a target under given settings."""

counts: dict[str, int] = {}
slowest: dict[str, float] = {}


def count(name: str, since: float) -> None:
    """An example has run since that moment of `time.thread_time()`."""
    took = time.thread_time() - since
    counts[name] = counts.get(name, 0) + 1
    slowest[name] = max(took, slowest.get(name, 0.0))
    assert took < CPU_LIMIT, f"took {took:.1f} s"


def target(*strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a target of a function of as many arguments."""

    def register(body: Callable[..., None]) -> Callable[..., None]:
        def example(drawn: Any) -> None:
            start = time.thread_time()
            body(*drawn)
            count(body.__name__, start)

        TARGETS[body.__name__] = lambda limits: limits(given(st.tuples(*strategies))(example))()
        return body

    return register


data = st.data()

# === The parser, against the reference ================================================================================

words = st.text(max_size=12) | st.sampled_from(["", "x", "[DONE]", "1", "\0", "\ufeff", "a: b", " x", "\u2028", "\x85"])
names = st.sampled_from(["data", "event", "id", "retry", "", "Data", "data ", "unknown", "\ufeffdata"])
event_lines = st.builds("{}{}{}".format, names, st.sampled_from([": ", ":", ":  ", "", "::"]), words)
event_blocks = st.builds(
    lambda lines, end, gap: "".join(line + end for line in lines) + end * gap,
    st.lists(event_lines, min_size=1, max_size=6),
    st.sampled_from(["\n", "\n", "\r\n", "\r"]),
    st.integers(0, 2),
)
event_streams = test_agreement.streams | st.lists(event_blocks, max_size=12).map("".join).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)


@target(data, event_streams, test_agreement.limits)
def parser(data: Any, stream: bytes, limit: int | None) -> None:
    """feed, feed_line, both sources, reset: the properties of test_agreement.py, over longer streams."""
    test_agreement.test_slicing_never_matters.hypothesis.inner_test(data, stream, limit)
    test_agreement.test_all_ways_agree.hypothesis.inner_test(data, stream, limit)
    test_agreement.test_nothing_waits.hypothesis.inner_test(data, stream)
    test_agreement.test_reset_is_a_new_stream.hypothesis.inner_test(data, stream, stream[::-1])


# === HTTP answers =====================================================================================================

coded = st.binary(max_size=30) | st.sampled_from([b"data: x\n\n", b"\r\n", b"x" * 300])
fields = st.lists(
    st.sampled_from(
        [
            *(b"Content-Length: 5", b"Content-Length: 0", b"content-length: 5, 5", b"Content-Length: 6", b"A:b"),
            *(
                b"Transfer-Encoding: chunked",
                b"Transfer-Encoding: gzip, chunked",
                b"Connection: keep-alive",
                b"A: \xff",
            ),
            *(b"Content-Encoding: gzip", b"Content-Encoding: identity", b"Content-Encoding: br", b"Content-Length: -1"),
            *(b"A: b\r\n folded", b"Transfer-Encoding:", b"A : b", b": b"),
        ]
    )
    | st.binary(max_size=12),
    max_size=5,
)
charsets = st.sampled_from(["utf-16", "utf-8", "nonsense", *sorted(set(encodings.aliases.aliases.values()))])
sizes = st.sampled_from([b"%x", b"%X", b"0%x", b"%x;a=b", b"%x ", b"%x\t;", b"-%x", b"+%x", b"0x%x", b"%x\r", b"%x_0"])


@st.composite
def answers(draw: Any) -> bytes:
    """An answer that is nearly right: well formed, then perhaps cut, or with a few bytes changed."""
    first = draw(st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 500"]))
    interim = draw(st.sampled_from([b"", b"", b"", b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n", b"HTTP/1.1 101 S\r\n\r\n"]))
    line_end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"]))
    lines = [interim + first, *draw(fields)]
    if draw(st.integers(0, 3)) == 0:
        lines.append(b"Content-Type: text/plain; charset=" + draw(charsets).encode())
    pieces = draw(st.lists(coded, max_size=6))
    if draw(st.booleans()):
        lines.append(b"Content-Encoding: gzip")
        # Members, one or several, and what is no gzip after them.
        pieces = [gzip.compress(piece, draw(st.integers(0, 9)), mtime=0) for piece in pieces] + draw(
            st.sampled_from([[], [], [b"\0"], [b"\x1f\x8b"]])
        )
    framing = draw(st.sampled_from(["chunked", "length", "close", "as it is"]))
    if framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        size = draw(sizes) if draw(st.integers(0, 3)) == 0 else b"%x"
        pieces = [size % len(piece) + b"\r\n" + piece + b"\r\n" for piece in pieces if piece]
        pieces.append(draw(st.sampled_from([b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"000;x\r\n\r\n", b"0\r\n", b""])))
    elif framing == "length":
        lines.append(b"Content-Length: %d" % (len(b"".join(pieces)) + draw(st.sampled_from([0, 0, 0, 1, -1]))))
    raw = bytearray(line_end.join([*lines, b"", b"".join(pieces)]))
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        at = draw(st.integers(0, len(raw) - 1))
        raw[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(raw[: draw(st.sampled_from([len(raw), len(raw), draw(st.integers(0, len(raw)))]))])


def by_h11(raw: bytes) -> tuple[int, bytes] | None:
    """Status and body of a whole answer as h11 reads it, None if it refuses it, or finds it cut short."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**17)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        connection.receive_data(raw)
        connection.receive_data(b"")
        while type(found := connection.next_event()) is not h11.EndOfMessage:
            if isinstance(found, h11.Response):
                status = found.status_code
            elif isinstance(found, h11.Data):
                body += bytes(found.data)
            elif not isinstance(found, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None
    return status, body


@target(data, answers() | test_http_framing.anything, st.sampled_from(["GET", "GET", "GET", "HEAD", "POST"]))
def http(data: Any, raw: bytes, method: str) -> None:
    """Any bytes, sliced anyhow: an answer, HttpProtocolError or HttpConnectionError; what h11 reads is the same."""
    ours = test_http_framing.receive([raw], method)
    assert type(ours.error) in (type(None), HttpProtocolError, HttpConnectionError)
    for pieces in (test_agreement.cuts(data.draw, raw), [raw[i : i + 1] for i in range(len(raw))]):
        sliced = test_http_framing.receive(pieces, method)
        assert type(sliced.error) is type(ours.error)
        assert sliced.body.startswith(ours.body)
        # zlib says nothing of what it found before an error within one piece.
        assert sliced.body == ours.body or (ours.error and b"gzip" in raw.lower())
    theirs = by_h11(raw)
    if ours.error is None and theirs and method != "HEAD" and "content-encoding" not in ours.head.headers:
        assert (ours.head.status_code, ours.body) == theirs


repeated = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(*test_http_framing.FRAGMENTS, b"A: b\r\n", b"a", b" ", b"\t", b":", b";", b"1\r\nx\r\n", b"f" * 16),
                *(gzip.compress(b"\0" * 1_000_000, 9, mtime=0), gzip.compress(b"", 9, mtime=0), b"\0" * 100, b"ab\r\n"),
            ]
        ),
        st.sampled_from([1, 1, 1, 2, 30, 300, 3000]),
    ),
    max_size=6,
).map(lambda parts: b"".join([part * min(times, 1 + 200_000 // len(part)) for part, times in parts]))


heads = st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n"]) | st.builds(
    b"HTTP/1.1 200 OK\r\n%s\r\n".__mod__,
    st.sampled_from([b"", test_http_framing.CHUNKED, test_http_framing.GZIP, b"Content-Length: 1000000\r\n"]),
)


@target(heads, repeated, st.sampled_from([1, 7, 1000, 65536]))
def http_costs(head: bytes, rest: bytes, step: int) -> None:
    """Long answers of repeated parts, gzip bombs among them: bounded memory (the body is not kept) and CPU time."""
    raw = head + rest
    step = max(step, len(raw) // 20_000)
    pieces = (raw[at : at + step] for at in range(0, len(raw), step))
    tracemalloc.start()
    start, got = time.thread_time(), 0
    try:
        for piece in decoded(itertools.chain(pieces, itertools.repeat(b""))):
            got += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(raw) + 2 * 2**20, f"{peak} bytes for {len(raw)}"
    seconds = time.thread_time() - start
    assert seconds < 0.5 + 30e-6 * len(raw) + 20e-9 * got, f"{seconds:.2f} s for {len(raw)} bytes, {got} decoded"


def decoded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces of a body, as a response yields them, up to its end or error."""
    with contextlib.suppress(HttpProtocolError, HttpConnectionError):
        reader = httpclient._HeadReader()
        while (head := reader.receive(next(pieces))) is None:
            pass
        body = httpclient._Body("GET", head)
        while True:
            piece = body.take()
            if piece:
                yield piece
            elif body.complete:
                return
            else:
                body.receive(next(pieces))


# === Over sockets =====================================================================================================


class Exchange:
    """What a peer answers, one answer a request, and what it has been sent on each connection."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = deque(answers)
        self.received: list[bytearray] = []

    def requests(self) -> list[Sent]:
        return [Sent(bytes(sent)) for sent in self.received if sent]


class Peer:
    """A server on loopback, one connection at a time; it hangs up after each answer."""

    def __init__(self) -> None:
        self.exchange = Exchange()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.run, daemon=True).start()

    def expect(self, *answers: bytes) -> Exchange:
        self.exchange = Exchange(*answers)
        return self.exchange

    def run(self) -> None:
        while True:
            sock, _ = self.listener.accept()
            exchange, sent = self.exchange, bytearray()
            exchange.received.append(sent)
            with sock, contextlib.suppress(OSError):
                sock.settimeout(10)
                while not whole(sent) and (more := sock.recv(65536)):
                    sent += more
                if sent.startswith(b"CONNECT "):
                    sock.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
                elif exchange.answers:
                    sock.sendall(exchange.answers.popleft())
                sock.shutdown(socket.SHUT_WR)
                sent += sock.recv(65536)  # whatever comes behind the request


def whole(sent: bytes) -> bool:
    """Whether a request has arrived to its end."""
    head, end, body = sent.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *([0-9]+)", head, re.IGNORECASE)
    return bool(end) and len(body) >= int(length[1] if length else 0)


class Sent:
    """A request as it was sent, read with no leniency: whatever else is in the bytes fails."""

    TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"

    def __init__(self, sent: bytes) -> None:
        head, end, self.body = sent.partition(b"\r\n\r\n")
        first, *self.lines = head.split(b"\r\n")
        assert end
        assert not any(byte in line for line in (first, *self.lines) for byte in b"\r\n\0"), sent
        match = re.fullmatch(rb"(%s) ([\x21-\x7e]+) HTTP/1\.1" % self.TOKEN, first)
        assert match, sent
        self.method, self.target = match[1].decode(), match[2].decode()
        self.headers: dict[str, bytes] = {}
        for line in self.lines:
            match = re.fullmatch(rb"(%s): (.*)" % self.TOKEN, line, re.DOTALL)
            assert match, sent
            assert match[1].lower().decode() not in self.headers, sent
            self.headers[match[1].lower().decode()] = match[2]
        assert len(self.body) == int(self.headers.get("content-length", b"0")), sent
        assert "transfer-encoding" not in self.headers
        assert "host" in self.headers


peer = Peer()
twins = st.sampled_from(scripted.TWINS)


@target(answers() | test_http_framing.anything, twins, st.sampled_from(["GET", "HEAD", "POST"]), st.booleans())
def transport(raw: bytes, twin: str, method: str, by_lines: bool) -> None:
    """The same answers through both transports: the outcome is that of the bytes alone."""
    if b"location" in raw.lower():
        return  # it could lead anywhere
    want = test_http_framing.receive([raw], method)
    peer.expect(raw)
    got: list[Any] = []
    error = None
    try:
        if twin == "async":
            asyncio.run(read(method, by_lines, got))
        else:
            with httpclient.request(method, peer.origin, stream=True, proxy=False) as response:
                got.extend(response.iter_lines() if by_lines else response.iter_bytes())
    except HttpError as exc:
        error = exc
    if by_lines and want.error is None and isinstance(error, HttpProtocolError):
        assert "utf" in want.head.headers["content-type"].lower()  # UTF-16 or UTF-32 without a byte order mark
        return
    assert type(error) is type(want.error), (error, want.error)
    if error is None and not by_lines:
        assert b"".join(got) == want.body
    elif error is None and "content-type" not in want.head.headers:
        lines, rest = reference.split_lines(want.body.decode("utf-8", "replace"))
        assert got == lines + [rest] * bool(rest)


async def read(method: str, by_lines: bool, got: list[Any]) -> None:
    async with await httpclient.async_request(method, peer.origin, stream=True, proxy=False) as response:
        parts: Any = response.aiter_lines() if by_lines else response.aiter_bytes()
        async for part in parts:
            got.append(part)  # noqa: PERF401


# === Requests =========================================================================================================

NASTY = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\r\nX-Injected: 1",
    "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    " ",
    "\t",
    "\x85",
    "\u2028",
    "\x7f",
]
NASTY += [
    "\\",
    "%0d%0a",
    "%00",
    "\ud800",
    "\u00fc",
    "\U0001f600",
    "\uff0f",
    "\u2100",
    "@",
    ":",
    "#",
    "?",
    "/",
    "//",
    "..",
    "[",
    "]",
]
NASTY += ["%", "%zz", "\x1f", "\uff20", "\u3002", "\x0b", "\x0c", "\u010d\u010a"]  # the last: CRLF, if cut to bytes
nasty = st.lists(st.sampled_from(NASTY) | st.sampled_from("abcXYZ019-._~") | st.text(max_size=3), max_size=5).map(
    "".join
)
hosts = st.sampled_from(
    ["host", "HOST.example", "[::1]", "[fe80::1%25eth0]", "127.0.0.1", "b\u00fccher.example", "a" * 64]
)
urls = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(["http", "http", "http", "https", "HTTP", "ftp", "javascript", "http\n", ""]),
    st.just("") | nasty.map("{}@".format) | st.just("user:p%40ss@"),
    hosts | hosts | nasty,
    st.sampled_from(["", "", ":81", ":80", ":0", ":99999", ":", ":x", ":-1", ":\uff11", ":8_0", ":+80", ": 80"]),
    st.just("") | nasty.map("/{}".format) | nasty.map("?{}".format) | nasty.map("#{}".format) | nasty,
)
header_names = (
    st.sampled_from(["X-A", "Accept", "host", "authorization", "Last-Event-ID", "connection", "expect"]) | nasty
)
header_maps = st.dictionaries(header_names, nasty | st.sampled_from(["x", "", "identity"]), max_size=3)
methods = st.sampled_from(["GET", "POST", "put", "DELETE", "M-SEARCH"]) | nasty
OURS = {"host", "user-agent", "accept", "accept-encoding", "cache-control", "connection", "content-length"}
OURS |= {"content-type", "authorization", "last-event-id"}  # what may be sent beside the user's headers


@target(
    st.sampled_from(["request", "sse", "async"]),
    *(st.booleans(), urls, methods | st.none(), header_maps | st.none()),
    *(st.none() | st.binary(max_size=5) | nasty, st.none() | st.dictionaries(nasty, nasty, max_size=2), nasty),
)
def requests(
    layer: str, direct: bool, url: str, method: Any, headers: Any, body: Any, params: Any, last_id: str
) -> None:
    """Any arguments: TypeError or ValueError before a byte is sent, or one well-formed request, nothing else."""
    exchange = peer.expect(b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n")
    if direct:  # else by a proxy: no name is looked up, nothing leaves the machine
        url = peer.origin + url.partition("://")[2].partition("/")[2].join(["/", ""])
    options = {"headers": headers, "body": body, "params": params, "proxy": False if direct else peer.origin}
    try:
        if layer == "request":
            method = method or "GET"
            httpclient.request(method, url, **options)
        elif layer == "sse":
            with sse.SSEClient(url, method=method, last_event_id=last_id, max_retries=0, **options) as client:
                assert list(client) == []
        else:
            asyncio.run(enter(sse.AsyncSSEClient(url, method=method, last_event_id=last_id, max_retries=0, **options)))
    except (TypeError, ValueError):
        assert exchange.requests() == []
        return
    except (HttpError, sse.SSEConnectionError):
        (sent,) = exchange.requests()
        assert sent.method == "CONNECT"  # which is not granted
        assert re.fullmatch(r"[a-zA-Z0-9._-]+:\d+|\[[0-9a-fA-F:.]+(%25?[A-Za-z0-9._-]+)?\]:\d+", sent.target)
        return
    (sent,) = exchange.requests()
    assert sent.method == (method.upper() if method else "GET" if body is None else "POST")
    given = {name.lower(): value for name, value in (headers or {}).items()}
    assert set(sent.headers) <= OURS | set(given)
    for name, value in given.items():  # the client leaves out spaces around it
        value = value if layer == "request" else value.strip(" \t")
        assert sent.headers[name] == value.encode("utf-8", "replace")
    assert sent.body == (body.encode() if isinstance(body, str) else body or b"")
    if direct:
        assert sent.target.startswith("/")
    else:
        match = re.fullmatch(r"http://([^/?#@]+)(/[^#]*)", sent.target)
        assert match
        assert "host" in given or sent.headers["host"].decode() == match[1]


async def enter(client: Any) -> None:
    async with client:
        assert [event async for event in client] == []


# === Redirects ========================================================================================================

SECRETS = {"Authorization": "Bearer s3cret", "Cookie": "s=3cret", "X-Api-Key": "s3cret", "Last-Event-ID": "7"}
references = st.builds(
    "{}{}".format,
    st.sampled_from(
        ["", "/", "//", "?", "#", "../", "http:", "http://start.example", "http://start.example.evil", "https://"]
    )
    | st.sampled_from(
        ["http://start.example@evil/", "//start.example:80", "//start.example:8080", "HTTP://START.example/"]
    )
    | st.sampled_from(
        ["http://u:p@start.example/", "///", "javascript:", "http://[::1]", "\\\\evil\\", "/\\evil", " //evil"]
    ),
    nasty,
)
statuses = st.sampled_from([301, 302, 303, 307, 308])


@target(
    urls | references, statuses, st.sampled_from(["GET", "POST", "PUT", "HEAD"]), st.sampled_from(["utf-8", "latin-1"])
)
def redirects(location: str, status: int, method: str, charset: str) -> None:
    """Any Location: refused, or followed with one well-formed request that takes no secret to another origin."""
    raw = re.sub(rb"[\r\n]", b"", location.encode(charset, "replace"))
    exchange = peer.expect(
        b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, raw),
        b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
    )
    headers = {**SECRETS, "Accept": "a/b"}
    body = b"body" if method in ("POST", "PUT") else None
    error = None
    try:
        httpclient.request(method, "http://start.example/a/b?q", headers=headers, body=body, proxy=peer.origin)
    except (HttpProtocolError, HttpConnectionError) as exc:
        error = exc
    first, *following = exchange.requests()
    assert (first.method, first.target, first.body) == (method, "http://start.example/a/b?q", body or b"")
    assert error or following
    if following:
        (second,) = following
        if second.method == "CONNECT":
            assert set(second.headers) == {"host"}
        else:
            assert urlsplit(second.target).scheme == "http"
            assert urlsplit(second.target).username is None
            same = urlsplit(second.target).netloc == "start.example"
            assert [name.lower() in second.headers for name in SECRETS] == [same] * len(SECRETS)
            changes = (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST")
            assert (second.method, second.body) == (("GET", b"") if changes else (method, body or b""))
            assert second.headers["accept"] == b"a/b"
    # From https, without I/O: never to plain HTTP.
    with contextlib.suppress(HttpProtocolError):
        after = test_http_framing.redirect(raw.decode(charset, "replace"), status, method, "https://host/a/b?q")
        assert after.url.scheme == "https"
        assert after.url.userinfo is None


# === The client's core, against a model ===============================================================================


class Status(scripted.Answer):
    """An answer that is not the stream."""

    def __init__(self, status: int, retry_after: str | None, content_type: str = "text/plain") -> None:
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        super().__init__(b"body", status=status, content_type=content_type, headers=headers)


ended = "the body ends cleanly"
intervals = st.sampled_from([0, 1, 50, 100, 3000, 60_000])
LINES = [
    "data: x\n\n",
    "id: {}\ndata: x\n\n",
    "id: {}\n\n",
    "id: {}\n",
    "data: x\n",
    "data: [DONE]",
    "event: e\n",
    "\n",
    "da",
]
LINES += ["id: \n", "retry: 0\n", "retry: 200\n", "retry: 99999999999\n", "retry: x\n", ": ping\n"]
losses = st.sampled_from(
    [ConnectionError, TimeoutError, EOFError, OSError, HttpConnectionError, HttpProtocolError]
).map(lambda kind: kind("broken"))
busy = st.builds(Status, st.sampled_from([503, 429, 500]), st.sampled_from([None, "0", "1", "7", "99999", "x", "-1"]))
fatal = st.one_of(  # so rare that a life is long
    st.just("data: [DONE]\n\n"),
    st.builds(ValueError, st.just("a bug")),
    st.builds(Status, st.sampled_from([200, 204, 404]), st.none()),
)
chunks = st.lists(st.sampled_from(LINES), max_size=4).map("".join)
usual = st.one_of(chunks, chunks, chunks, st.just(ended), losses, busy)
steps = st.integers(0, 60).flatmap(lambda chance: fatal if chance == 60 else usual)


class Model:
    """What the contract says a client does with a script, step by step; no clock, and each time all is parsed anew."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.get = options["method"] == "GET"
        self.reconnect = self.get if options["reconnect"] is None else options["reconnect"]
        self.id = options["last_event_id"]  # at the beginning of the connection
        self.retry: int | None = None
        self.open = self.over = False
        self.text = ""  # of the connection
        self.failures = 0
        self.ready: deque[tuple[str, str]] = deque()  # data and id of events
        self.given = self.id  # of the event given out last, or where the chunk began
        self.error: Any = None
        self.requests: list[str] = []  # the last event IDs asked for
        self.waits: list[tuple[float, float]] = []  # their bounds
        self.causes: list[Any] = []
        self.until_id: str | None = None

    @property
    def parsed(self) -> reference.Outcome:
        return reference.parse(self.text, self.id)

    @property
    def last_event_id(self) -> str:
        return self.given if self.ready else self.position

    @property
    def position(self) -> str:
        return self.parsed.last_event_id if self.until_id is None else self.until_id

    def step(self, step: Any) -> bool:
        """Whether the step is used up: an answer waits for a body to end, a body for an opening."""
        if not self.open:
            self.requests.append(self.position)
            self.id, self.text = self.position, ""
            if isinstance(step, Exception):
                self.lost(step)
            elif not isinstance(step, Status):
                self.open = True
                return False
            elif step.status_code == 204:
                self.over = True
            else:
                self.lost(step)
            return True
        self.open = isinstance(step, str) and step != ended
        if self.open:
            self.receive(step)
        else:
            self.lost(step if isinstance(step, Exception) else None)
        return not isinstance(step, Status)

    def receive(self, chunk: str) -> None:
        before = self.parsed
        self.given = before.last_event_id if not self.ready else self.given
        self.text += chunk
        self.retry = self.parsed.retry if self.parsed.retry is not None else self.retry
        for _, data, id, _ in self.parsed.events[len(before.events) :]:
            self.failures = 0
            if data == self.options["until"]:
                self.over, self.until_id = True, id
                break
            self.ready.append((data, id))

    def lost(self, cause: Any) -> None:
        refused = isinstance(cause, Status)
        until = self.options["until"]
        if isinstance(cause, ValueError):  # a programming error
            self.over, self.error = True, ValueError
            return
        if refused and not (cause.status_code in self.options["retry_statuses"] and self.reconnect):
            self.over, self.error = True, sse.SSEContentTypeError if cause.status_code == 200 else sse.SSEHTTPError
            return
        if cause is None and until is not None and self.unfinished == until:
            self.over = True
            return
        if cause is None and until is None and not (self.reconnect and self.get):
            self.over = True
            return
        if not self.reconnect or self.failures == self.options["max_retries"]:
            self.over, self.error = True, sse.SSEConnectionError
            return
        self.id, self.text = self.position, ""
        self.failures += 1
        self.causes.append(cause)
        cap = self.options["max_retry_interval"]
        wait = min(self.options["retry_interval"] if self.retry is None else self.retry, cap)
        if self.failures > 1:
            wait = math.prod([float(self.options["backoff"])] * (self.failures - 1), start=max(wait, 100))
        if refused and (after := cause.headers.get("Retry-After", "")).isdigit():
            wait = max(wait, 1000 * int(after))
        wait = min(wait, cap) / 1000
        self.waits.append((wait, wait * (1 + self.options["jitter"])))

    def restart(self) -> None:
        if not self.over:
            self.id, self.text, self.open = self.position, "", False

    @property
    def unfinished(self) -> str | None:
        """The data of the block that has not ended, as if it had."""
        done = reference.parse(self.text + "\n\n").events[len(self.parsed.events) :]
        return done[0][1] if done else None


class Core(RuleBasedStateMachine):
    """A client of either kind over a scripted transport, beside the model of it."""

    @initialize(
        twin=twins,
        method=st.sampled_from(["GET"] * 4 + ["POST"]),
        reconnect=st.sampled_from([None] * 4 + [True, False]),
        interval=intervals,
        cap=intervals,
        backoff=st.sampled_from([1, 1.5, 10, 1e300]),
        jitter=st.sampled_from([0, 0.1, 1]),
        max_retries=st.sampled_from([-1] * 4 + [0, 1, 4]),
        retry_statuses=st.sampled_from([sse.TRANSIENT] * 4 + [()]),
        until=st.sampled_from([None, "[DONE]"]),
        last_event_id=st.sampled_from(["", "first"]),
    )
    def start(self, twin: str, interval: int, cap: int, **options: Any) -> None:
        cap = max(cap, interval)
        options = {**options, "retry_interval": interval, "max_retry_interval": cap}
        self.model = Model(**options)
        self.script: deque[Any] = deque()
        self.played = scripted.make(twin, **options)
        self.played.client._transport = self.open_async if twin == "async" else self.open
        self.loop = asyncio.new_event_loop() if twin == "async" else None
        self.numbers = itertools.count(1)
        self.restarts = 0
        self.since = time.thread_time()

    def open(self, request: sse.Request, timeout: Any) -> Any:
        self.played.requests.append(request)
        if isinstance(self.script[0], Exception):
            raise self.script.popleft()
        answer = self.script.popleft() if isinstance(self.script[0], Status) else scripted.Answer()
        if not isinstance(answer, Status):
            answer.chunks = self.body()  # type: ignore[assignment]
        self.played.answers.append(answer)
        return answer

    async def open_async(self, request: sse.Request, timeout: Any) -> Any:
        return self.open(request, timeout)

    def body(self) -> Iterator[Any]:
        while not isinstance(self.script[0], Status) and (step := self.script.popleft()) != ended:
            yield step

    def next(self) -> Any:
        """The next event as data and ID, or the class of the exception that came instead."""
        try:
            event = self.loop.run_until_complete(anext(self.played.client)) if self.loop else next(self.played.client)
        except Exception as exc:
            self.error = exc
            return StopIteration if isinstance(exc, StopAsyncIteration) else type(exc)
        return event.data, event.id

    @rule(steps=st.lists(steps, max_size=8))
    def next_event(self, steps: list[Any]) -> None:
        """Ask for an event, with so many steps on the way to it, or to the end."""
        model, client = self.model, self.played.client
        numbered = [re.sub("{}", lambda _: str(next(self.numbers)), s) if isinstance(s, str) else s for s in steps]
        self.script, left = deque(numbered), deque(numbered)
        while not (model.ready or model.over):
            if not left:
                left.append(f"\nid: {next(self.numbers)}\ndata: x\n\n")
                self.script.append(left[0])
            if model.step(left[0]):
                left.popleft()
        want: Any = StopIteration
        if model.ready:
            want = model.ready.popleft()
            model.given = want[1]
        elif model.error:
            want, model.error = model.error, None
        assert self.next() == want
        if want is sse.SSEConnectionError:
            assert self.error.retries == model.failures
        assert list(self.script) == list(left)  # it did not read ahead
        assert [request.headers.get("Last-Event-ID", "") for request in self.played.requests] == model.requests
        assert len(self.played.waits) == len(model.waits) == client.stats.retries
        for wait, cause, (least, most), expected in zip(
            self.played.waits, self.played.causes, model.waits, model.causes, strict=True
        ):
            assert least <= wait <= most * (1 + 1e-9)
            assert getattr(cause, "status_code", cause) == getattr(expected, "status_code", expected)
        assert client.last_event_id == model.last_event_id
        interval = self.model.options["retry_interval"] if model.retry is None else model.retry
        assert client.retry_interval == min(interval, model.options["max_retry_interval"])
        if not model.reconnect:
            assert len(self.played.requests) <= 1 + self.restarts

    @rule()
    def restart(self) -> None:
        self.played.client.restart()
        self.model.restart()
        self.restarts += 1

    def teardown(self) -> None:
        if not hasattr(self, "played"):
            return
        closing = self.played.client.close()
        if self.loop:
            self.loop.run_until_complete(closing)
        assert self.next() is StopIteration
        assert all(answer.closed for answer in self.played.answers)
        if self.loop:
            self.loop.close()
        count("core", self.since)


def core(limits: settings) -> None:
    """A client's life, step by step."""
    run_state_machine_as_test(Core, settings=settings(limits, stateful_step_count=20))


TARGETS["core"] = core


# === Running them =====================================================================================================


def run(name: str, examples: int, **options: Any) -> None:
    """Run so many examples of a target; an exception tells what failed, shrunk."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    TARGETS[name](settings(max_examples=examples, deadline=None, suppress_health_check=checks, **options))


def fuzz(name: str, seconds: float) -> Exception | None:
    """Run a target for so long, or to its first failure: in batches, each with chances of its own."""
    end = time.monotonic() + seconds
    batch = 100
    while (left := end - time.monotonic()) > 0:
        start = time.monotonic()
        try:
            run(name, batch)
        except Exception as exc:
            return exc
        took = time.monotonic() - start
        batch = max(10, int(batch * min(2.0, 20 / took, left / took)))
    return None


def write_docs(text: str) -> None:
    """Put `text` between the markers of docs/reliability.md."""
    page = ROOT / "docs" / "reliability.md"
    before, begin, rest = page.read_text(encoding="utf-8").partition("<!-- fuzz: begin -->\n")
    _, end, after = rest.partition("<!-- fuzz: end -->")
    page.write_text(before + begin + text + end + after, encoding="utf-8")


def main() -> int:
    logging.getLogger("sse").setLevel(logging.CRITICAL)
    arguments = argparse.ArgumentParser(description="Fuzz the targets of tests/fuzz.py.")
    arguments.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET", help=", ".join(TARGETS))
    arguments.add_argument("--minutes", type=float, default=1.0, help="for all targets together")
    arguments.add_argument("--docs", action="store_true", help="write the figures to docs/reliability.md")
    options = arguments.parse_args()
    chosen = options.targets or list(TARGETS)
    failed = {}
    where = f"Python {platform.python_version()}, hypothesis {hypothesis.__version__}, {options.minutes:g} minutes"
    table = f"| {where} | examples | slowest, ms of CPU | failures |\n| --- | ---: | ---: | ---: |\n"
    for name in chosen:
        error = fuzz(name, options.minutes * 60 / len(chosen))
        if error is not None:
            failed[name] = error
            traceback.print_exception(error)
        row = f"| {name} | {counts[name]:,} | {1000 * slowest[name]:.0f} | {int(name in failed)} |\n"
        print(row, end="", flush=True)
        table += row
    print("failed: " + ", ".join(failed) if failed else "nothing failed")
    if options.docs:
        write_docs(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
