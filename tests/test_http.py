"""httpclient over real sockets, blocking and async by one body: requests, responses, limits, connections, errors."""

# ruff: noqa: SIM117 - the server outlives the block in which the client is to raise

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import hashlib
import json
import random
import socket
import ssl
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

import httpclient
import sse
from drivers import SyncDriver, bounded, causes, in_thread
from server import (
    CLOSE,
    END_CHUNK,
    HALF_CLOSE,
    HOLD,
    RAW,
    READ,
    RECV,
    RESET,
    BlackHole,
    ReservedPort,
    ScriptServer,
    chunk,
    drip,
    each,
    endless,
    eventually,
    head,
    redirect,
    respond,
)

LATER = 5.0
"""Seconds: what happens "at once" takes less, on a busy machine too; timeouts that must not matter are longer."""


async def ticks() -> None:
    """Lets the event loop take what has arrived."""
    for _ in range(5):
        await asyncio.sleep(0)


async def body_of(driver: Any, url: str, **options: Any) -> bytes:
    return await (await driver.get(url, **options)).read()


# === Requests ===


async def test_default_request(driver: Any) -> None:
    """These headers and no others; one request, one connection."""
    with ScriptServer(respond(200)) as server:
        await driver.get(server.url)
        request = server.requests[0]
        assert (request.method, request.target, request.version) == ("GET", "/events", "HTTP/1.1")
        assert request.headers == [
            ("host", server.authority),
            ("user-agent", f"stdsse-httpclient/{httpclient.__version__}"),
            ("accept", "*/*"),
            ("accept-encoding", "identity"),
            ("connection", "close"),
        ]


async def test_transport_keeps_its_connections(driver: Any) -> None:
    """It says nothing of closing, and adds what an `sse.Request` lacks."""
    with ScriptServer(respond(200)) as server:
        transport = driver.transport()
        await (await transport("GET", server.url, headers={"X": "y"})).read()
        assert dict(server.requests[0].headers).keys() == {"host", "user-agent", "accept", "accept-encoding", "x"}
        await transport.close()


@pytest.mark.parametrize(
    ("method", "options", "body", "fields"),
    [
        (
            "POST",
            {"json": {"a": "ü"}},
            b'{"a": "\\u00fc"}',
            {"content-type": "application/json", "content-length": "15"},
        ),
        ("POST", {"json": 0}, b"0", {"content-type": "application/json", "content-length": "1"}),
        ("POST", {"json": [], "headers": {"CONTENT-TYPE": "x/y"}}, b"[]", {"content-type": "x/y"}),
        ("POST", {"body": "ü"}, "ü".encode(), {"content-type": None, "content-length": "2"}),
        ("POST", {"body": b"\0\r\n\r\n"}, b"\0\r\n\r\n", {"content-length": "5"}),
        ("POST", {"body": b""}, b"", {"content-length": "0"}),
        ("POST", {}, b"", {"content-length": "0"}),
        ("PUT", {}, b"", {"content-length": "0"}),
        ("DELETE", {}, b"", {"content-length": None}),
        ("GET", {"body": "x"}, b"x", {"content-length": "1"}),
        ("patch", {"body": "x"}, b"x", {"content-length": "1"}),
        ("GET", {"headers": {"accept": "x/y", "X-U": "ü"}}, b"", {"accept": "x/y", "x-u": "ü"}),
        ("GET", {"headers": {"Host": "virtual", "User-Agent": ""}}, b"", {"host": "virtual", "user-agent": ""}),
        ("GET", {"headers": {"connection": "x"}}, b"", {"connection": "x"}),
    ],
    ids=str,
)
async def test_bodies_and_headers_of_requests(driver: Any, method: str, options: Any, body: bytes, fields: Any) -> None:
    """Each header goes out once, as UTF-8, and a length with every body."""
    with ScriptServer(respond(200)) as server:
        await driver.request(method, server.url, **options)
        request = server.requests[0]
        assert (request.method, request.body) == (method.upper(), body)
        assert {name: request[name] for name in fields} == fields


async def test_params_join_the_query(driver: Any) -> None:
    with ScriptServer(then=respond(200)) as server:
        await driver.get(server.url + "?a=1#fragment", params={"b": ["x y", "ü"]})
        await driver.get(server.origin, params={"c": ""})
        await driver.get(server.origin, params={})
        assert [request.target for request in server.requests] == ["/events?a=1&b=x+y&b=%C3%BC", "/?c=", "/"]


async def test_userinfo_becomes_basic_auth(driver: Any) -> None:
    """Unless a header says otherwise; and it is not in `.url`."""
    with ScriptServer(then=respond(200)) as server:
        url = server.url.replace("//", "//user:p%40ss@")
        reply = await driver.get(url)
        assert reply.url == server.url
        await driver.get(url, headers={"authorization": "Bearer x"})
        assert server.requests[0]["authorization"] == "Basic " + base64.b64encode(b"user:p@ss").decode()
        assert server.requests[1]["authorization"] == "Bearer x"


WRONG_REQUESTS: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
    ("G T", None, {}, ValueError, "method"),
    ("", None, {}, ValueError, "method"),
    ("GET\r\nX: y", None, {}, ValueError, "method"),
    ("GET", 5, {}, TypeError, "url"),
    ("GET", 5, {"params": {"a": "b"}}, TypeError, "url"),
    ("GET", "host", {}, ValueError, "url"),
    ("GET", "http://host/\r\n", {}, ValueError, "url"),
    ("GET", None, {"headers": {"a": "s3cret\r\n"}}, ValueError, "headers"),
    ("GET", None, {"headers": {"a": "s3cret\n"}}, ValueError, "headers"),
    ("GET", None, {"headers": {"a": "s3cret\0"}}, ValueError, "headers"),
    ("GET", None, {"headers": {"a\r\nb": "s3cret"}}, ValueError, "headers"),
    ("GET", None, {"headers": {"a b": "s3cret"}}, ValueError, "headers"),
    ("GET", None, {"headers": {"": "s3cret"}}, ValueError, "headers"),
    ("GET", None, {"headers": {"a": 5}}, TypeError, "headers"),
    ("GET", None, {"headers": {5: "s3cret"}}, TypeError, "headers"),
    ("GET", None, {"headers": [("a", "s3cret")]}, TypeError, "headers"),
    ("GET", None, {"headers": {"Content-Length": "5"}}, ValueError, "headers"),
    ("GET", None, {"headers": {"transfer-encoding": "chunked"}}, ValueError, "headers"),
    ("POST", None, {"json": "s3cret", "body": "s3cret"}, ValueError, "json and body"),
    ("POST", None, {"body": ["s3cret"]}, TypeError, "body"),
    ("POST", None, {"json": {"s3cret"}}, TypeError, "json|JSON"),
    ("GET", None, {"timeout": 0}, ValueError, "timeout"),
    ("GET", None, {"timeout": -1}, ValueError, "timeout"),
    ("GET", None, {"timeout": (1, 0)}, ValueError, "timeout"),
    ("GET", None, {"timeout": float("nan")}, ValueError, "timeout"),
    ("GET", None, {"timeout": "1"}, TypeError, "timeout"),
    ("GET", None, {"timeout": True}, TypeError, "timeout"),
    ("GET", None, {"timeout": (1, 2, 3)}, TypeError, "timeout"),
    ("GET", None, {"verify": None}, TypeError, "verify"),
    ("GET", None, {"verify": "ca.pem"}, TypeError, "verify"),
    ("GET", None, {"proxy": 5}, TypeError, "proxy"),
    ("GET", None, {"proxy": "socks5://x"}, ValueError, "transport="),
]


@pytest.mark.parametrize(("method", "url", "options", "kind", "text"), WRONG_REQUESTS, ids=ascii)
async def test_wrong_requests(driver: Any, method: Any, url: Any, options: Any, kind: Any, text: str) -> None:
    """TypeError or ValueError that names the argument, never a header's value or the body; nothing is sent."""
    with ScriptServer() as server:
        with pytest.raises((TypeError, ValueError), match=text) as caught:
            await driver.request(method, server.url if url is None else url, **options)
        assert caught.type is kind
        assert "s3cret" not in str(caught.value)
        assert not server.connections


# === Responses ===


async def test_response_that_was_read(driver: Any) -> None:
    """Everything that it is, as often as one likes; the connection is closed."""
    answer = '{"a": "ü"}'
    with ScriptServer([respond(201, answer, content_type="application/json", x_id="7"), HOLD]) as server:
        reply = await driver.get(server.url + "?q#f")
        await server.closed(0)
        for _ in range(2):
            assert (reply.status_code, reply.reason, reply.ok) == (201, "Created", True)
            assert (reply.headers["X-ID"], reply.url) == ("7", server.url + "?q")
            assert await reply.read() == answer.encode()
            assert reply.text == answer
            assert reply.json() == {"a": "ü"}
            assert reply.raise_for_status() is reply.response
        kind = "AsyncResponse" if driver.is_async else "Response"
        assert repr(reply.response) == f"<{kind} 201 {server.url}>"


async def test_response_that_was_read_can_be_iterated_over(driver: Any) -> None:
    """Its whole body comes, by bytes and by lines, as often as one likes."""
    with ScriptServer(respond(200, "a\nb\r\nc")) as server:
        reply = await driver.get(server.url)
        for _ in range(2):
            assert b"".join([piece async for piece in reply.iter_bytes()]) == b"a\nb\r\nc"
            assert [line async for line in reply.iter_lines()] == ["a", "b", "c"]


async def test_empty_body_that_was_read(driver: Any) -> None:
    with ScriptServer(respond(200)) as server:
        reply = await driver.get(server.url)
        assert (await reply.read(), reply.text) == (b"", "")
        assert [piece async for piece in reply.iter_bytes()] == []
        assert [line async for line in reply.iter_lines()] == []
        with pytest.raises(ValueError, match="Expecting value"):
            reply.json()


async def test_streamed_response_can_be_read_whole(driver: Any) -> None:
    """What is left of it, when iteration has begun."""
    go = threading.Event()
    with ScriptServer([head(), "one", go, "two"]) as server:
        async with await driver.get(server.url, stream=True) as reply:
            pieces = reply.iter_bytes()
            assert await anext(pieces) == b"one"
            go.set()
            assert await reply.read() == b"two"
            assert reply.text == "two"
            await pieces.aclose()


async def test_text_of_an_async_response_needs_aread() -> None:
    """A property cannot await: the error says what to do."""
    with ScriptServer(respond(200, "x")) as server:
        async with await httpclient.async_get(server.url, stream=True) as response:
            for use in (lambda: response.text, response.json):
                with pytest.raises(RuntimeError, match="aread"):
                    use()
            assert await response.aread() == b"x"
            assert response.text == "x"


def test_text_of_a_streamed_response_reads_it() -> None:
    with ScriptServer(then=respond(200, "[1]")) as server:
        with httpclient.get(server.url, stream=True) as response:
            assert response.text == "[1]"
        with httpclient.get(server.url, stream=True) as response:
            assert response.json() == [1]


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        (None, "ü", "ü"),
        ("text/plain", "ü", "ü"),
        ("text/plain; charset=utf-8", "ü", "ü"),
        ("text/plain; charset=latin-1", b"\xfc", "ü"),
        ('text/plain; a=b; CHARSET="ISO-8859-1"; c=d', b"\xfc", "ü"),
        ("text/plain; charset=utf-16", "ü\n".encode("utf-16"), "ü\n"),
        ("text/plain; charset=utf-8", b"\xff", "\ufffd"),
        ("text/plain; charset=nonsense", "ü", "ü"),
        ("text/plain; charset=", "ü", "ü"),
        ("text/plain; charset=../x", "ü", "ü"),
        ("text/plain; charset=hex", "ü", "ü"),
        ("text/plain; charset=zip", "ü", "ü"),
        ("text/plain; charset=rot13", "ü", "ü"),
        ("text/plain; charset=idna", "ü", "ü"),
        ("text/plain; charset=undefined", "ü", "ü"),
    ],
)
async def test_charset(driver: Any, content_type: Any, body: Any, text: str) -> None:
    """That of the content type where it is one for text, else UTF-8; what cannot be decoded becomes U+FFFD."""
    with ScriptServer(then=respond(200, body, content_type=content_type)) as server:
        reply = await driver.get(server.url)
        assert reply.text == text
        async with await driver.get(server.url, stream=True) as reply:
            assert [line async for line in reply.iter_lines()] == text.splitlines()


async def test_status_errors(driver: Any) -> None:
    """raise_for_status() tells status and the message, if the body was read, and keeps all parts."""
    with ScriptServer(then=respond(404, "no such\n\x1b[0mthing", x_id="7")) as server:
        reply = await driver.get(server.url + "?q=secret")
        assert not reply.ok
        with pytest.raises(httpclient.HttpStatusError) as caught:
            reply.raise_for_status()
        error = caught.value
        assert str(error) == f"{server.url}: HTTP 404: no such  [0mthing"
        assert (error.status_code, error.url, error.body) == (404, server.url + "?q=secret", "no such\n\x1b[0mthing")
        assert error.headers["X-Id"] == "7"
        async with await driver.get(server.url, stream=True) as reply:
            with pytest.raises(httpclient.HttpStatusError) as caught:
                reply.raise_for_status()
            assert caught.value.body == ""


@pytest.mark.parametrize(("status", "ok"), [(200, True), (204, True), (299, True), (300, False), (500, False)])
async def test_ok(driver: Any, status: int, ok: bool) -> None:
    with ScriptServer(respond(status)) as server:
        assert (await driver.get(server.url)).ok is ok


async def test_get_and_post_are_requests(driver: Any) -> None:
    """With the same options, under their own names."""
    functions = [httpclient.async_get, httpclient.async_post] if driver.is_async else [httpclient.get, httpclient.post]
    with ScriptServer(then=respond(200, "x")) as server:
        for function in functions:
            call = function(server.url, json={}, timeout=LATER) if driver.is_async else None
            response = await (call or in_thread(function, server.url, json={}, timeout=LATER))
            assert response.text == "x"
        assert [request.method for request in server.requests] == ["GET", "POST"]


# === Timeouts ===


async def test_silence_in_a_body_that_is_read_at_once(driver: Any) -> None:
    """`timeout` is the limit for each wait, `read_timeout` its replacement; a body that drips is not cut."""
    half = [head(content_length=9), "half", HOLD]
    with ScriptServer(then=half) as server:
        for options in ({"timeout": 0.2}, {"timeout": (LATER, 0.2)}, {"timeout": LATER, "read_timeout": 0.2}):
            started = time.monotonic()
            with pytest.raises(httpclient.HttpTimeoutError, match=r"no data for 0\.2 s"):
                await driver.get(server.url, **options)
            assert time.monotonic() - started < LATER
    with ScriptServer(then=[head(content_length=9), drip("123456789", 0.05)]) as server:
        assert await body_of(driver, server.url, timeout=0.3) == b"123456789"
        assert await body_of(driver, server.url, timeout=LATER, read_timeout=0.3) == b"123456789"


async def test_streams_wait_for_ever_unless_told(driver: Any) -> None:
    """`timeout` ends with the head; `.read_timeout` may be set at any time."""
    go = threading.Event()
    with ScriptServer([head(content_length=4), "ab", go, "cd"]) as server:
        async with await driver.get(server.url, stream=True, timeout=0.2) as reply:
            assert reply.read_timeout is None
            pieces = reply.iter_bytes()
            assert await anext(pieces) == b"ab"
            reply.response.read_timeout = 0.25
            with pytest.raises(httpclient.HttpTimeoutError):
                await anext(pieces)
            reply.response.read_timeout = None
            go.set()
            assert await reply.read() == b"cd"  # a timeout is no end


async def test_each_half_of_a_pair_of_timeouts(driver: Any) -> None:
    """The first for connecting, the second for the head; None leaves that part without a limit."""
    with BlackHole() as hole, pytest.raises(httpclient.HttpTimeoutError, match="connecting"):
        await driver.get(hole.url, timeout=(0.2, None))
    with ScriptServer(then=[HOLD]) as server:
        with pytest.raises(httpclient.HttpTimeoutError):
            await driver.get(server.url, timeout=(None, 0.2))
        with pytest.raises(httpclient.HttpTimeoutError):
            await driver.get(server.url, timeout=0.2)


@pytest.mark.parametrize("seconds", [float("inf"), 1e7, 1e10, 10**400], ids=["inf", "1e7", "1e10", "1e400"])
async def test_timeouts_that_no_clock_can_hold(driver: Any, seconds: Any) -> None:
    """Refused by name before anything is sent, or as good as no limit: never an OverflowError on the way."""
    with ScriptServer(then=respond(200, "x")) as server:
        for options in ({"timeout": seconds}, {"timeout": (seconds, seconds)}, {"read_timeout": seconds}):
            try:
                assert await body_of(driver, server.url, **options) == b"x"
            except ValueError as error:
                assert str(error).startswith(("timeout", "read_timeout"))  # noqa: PT017
    with ScriptServer(then=[head(content_type="text/event-stream"), "data: x\n\n", HOLD]) as server:
        for options in ({"timeout": seconds}, {"heartbeat_timeout": seconds}):
            try:
                async with driver.connect(server.url, max_retries=0, **options) as events:
                    assert (await events.next()).data == "x"
            except ValueError as error:
                assert str(error).startswith(("timeout", "heartbeat_timeout"))  # noqa: PT017


async def test_sending_has_its_deadline(driver: Any) -> None:
    """A server that takes no byte of a large body is given up."""
    with ScriptServer([RAW, lambda connection: connection.stopping.wait(LATER) and None]) as server:
        started = time.monotonic()
        with pytest.raises(httpclient.HttpTimeoutError):
            await driver.post(server.url, body=b"x" * 30_000_000, timeout=0.3)
        assert 0.25 < time.monotonic() - started < LATER


# === Limits ===


def test_limits_are_those_of_the_contract() -> None:
    assert (httpclient.MAX_BODY, httpclient.MAX_LINE) == (64 * 1024 * 1024, 16 * 1024 * 1024)
    assert (httpclient.MAX_HEAD, httpclient.MAX_HEADERS, httpclient.MAX_REDIRECTS) == (64 * 1024, 256, 10)


@pytest.mark.parametrize("coding", [None, "gzip"])
async def test_body_over_its_limit(driver: Any, coding: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """read() and all that stands on it stop there; what comes out counts, not what comes in."""
    monkeypatch.setattr(httpclient, "MAX_BODY", 100_000)
    for size in (100_000, 100_001):
        data = b"x" * size
        sent = gzip.compress(data) if coding else data
        with ScriptServer(then=[respond(200, sent, content_encoding=coding), HOLD]) as server:
            async with await driver.get(server.url, stream=True) as reply:
                assert sum([len(piece) async for piece in reply.iter_bytes()]) == size
            if size == 100_000:
                assert await body_of(driver, server.url) == data
            else:
                with pytest.raises(httpclient.HttpProtocolError, match="100000 bytes"):
                    await driver.get(server.url)
                await server.closed(1)


async def test_endless_body_ends_at_its_limit(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpclient, "MAX_BODY", 1_000_000)
    with ScriptServer(then=[head(), endless("x" * 10_000)]) as server:
        with pytest.raises(httpclient.HttpProtocolError, match="longer than"):
            await driver.get(server.url)
        await server.closed(0)


async def test_line_over_its_limit(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines before it come first, if they came earlier."""
    monkeypatch.setattr(httpclient, "MAX_LINE", 1000)
    taken = threading.Event()
    with ScriptServer([head(), "short\n" + "x" * 1000 + "\n", taken, endless("y" * 100)]) as server:
        async with await driver.get(server.url, stream=True) as reply:
            lines = reply.iter_lines()
            assert [await anext(lines), await anext(lines)] == ["short", "x" * 1000]
            taken.set()
            with pytest.raises(httpclient.HttpProtocolError, match="1000 characters"):
                await anext(lines)


async def test_slow_reader_slows_the_server_down(driver: Any) -> None:
    """What has not been read does not pile up in memory: the server's send blocks; nothing of it is lost."""
    piece, pieces = random.Random(1).randbytes(65536), 600
    stuck, go = threading.Event(), threading.Event()
    sent: list[int] = []

    def send(connection: Any) -> None:
        connection.sock.settimeout(0.3)
        for number in range(pieces):
            rest = memoryview(piece)
            while rest:
                try:
                    rest = rest[connection.sock.send(rest) :]
                except TimeoutError:
                    sent.append(number)
                    stuck.set()
                    connection.play(go)
                    connection.sock.settimeout(LATER)

    with ScriptServer([head(content_length=pieces * len(piece)), send]) as server:
        async with await driver.get(server.url, stream=True) as reply:
            await eventually(stuck.is_set, "the server is slowed down")
            assert sent[0] < pieces - 100
            go.set()
            digest, size = hashlib.sha256(), 0
            async for data in reply.iter_bytes():
                digest.update(data)
                size += len(data)
    assert size == pieces * len(piece)
    assert digest.digest() == hashlib.sha256(piece * pieces).digest()


# === Connections ===


async def test_one_idle_connection_serves_its_origin_only(driver: Any) -> None:
    """A request to another origin closes it; so does one that goes another way."""
    answer = [each(lambda request: respond(200, request.path))]
    with ScriptServer(then=answer) as one, ScriptServer(then=answer) as other:
        transport = driver.transport()
        for server, count in ((one, 1), (one, 1), (other, 1), (one, 2)):
            await (await transport("GET", server.url)).read()
            assert len(server.connections) == count
        await one.closed(0)
        await other.closed(0)
        await transport.close()
        await one.closed(1)


async def test_two_answers_at_once_leave_one_connection(driver: Any) -> None:
    """The second to be given back replaces the first."""
    with ScriptServer(then=[each(lambda _: respond(200, "x"))]) as server:
        transport = driver.transport()
        first, second = [await transport("GET", server.url) for _ in range(2)]
        await first.read()
        await second.read()
        await server.closed(0)
        await (await transport("GET", server.url)).read()
        assert [len(connection.requests) for connection in server.connections] == [1, 2]
        await transport.close()


async def test_bytes_on_an_idle_connection_make_it_unfit(driver: Any) -> None:
    """An answer that comes before its question belongs to nobody."""
    go, sent = threading.Event(), threading.Event()
    evil = [respond(200, "1"), go, respond(200, "evil"), lambda _: sent.set(), HOLD]
    with ScriptServer(evil, respond(200, "2")) as server:
        transport = driver.transport()
        assert await (await transport("GET", server.url)).read() == b"1"
        go.set()
        await eventually(sent.is_set)
        await ticks()
        assert await (await transport("GET", server.url)).read() == b"2"
        await server.closed(0)
        await transport.close()


async def test_idle_connection_that_the_server_has_closed(driver: Any) -> None:
    """A POST, which must not be sent twice, goes to a fresh one: the old is looked at before it is used."""
    for ending in (CLOSE, RESET, [HALF_CLOSE, HOLD]):
        done = threading.Event()
        with ScriptServer([respond(200, "1"), done, ending], respond(200, "2")) as server:
            transport = driver.transport()
            assert await (await transport("GET", server.url)).read() == b"1"
            done.set()
            await eventually(lambda s=server: s.connections[0].ended or fin_has_come(s))
            assert await (await transport("POST", server.url, body="x")).read() == b"2"
            await transport.close()


def fin_has_come(server: ScriptServer) -> bool:
    """Whether the server's half of the first connection is closed (FIN_WAIT2: the client's kernel has confirmed it)."""
    local = f":{server.port:04X}"
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(local) and row[3] == "05" for row in table)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH"])
@pytest.mark.parametrize("body", [None, b"x"])
async def test_which_requests_are_sent_again(driver: Any, method: str, body: Any) -> None:
    """Only idempotent ones, once, when a reused connection dies before a byte of the answer."""
    with ScriptServer([respond(200, "1"), READ, RESET], [RESET], [RESET]) as server:
        transport = driver.transport()
        await (await transport("GET", server.url)).read()
        with pytest.raises(httpclient.HttpConnectionError):
            await transport(method, server.url, body=body)
        again = method not in ("POST", "PATCH")
        assert len(server.connections) == (2 if again else 1)
        await transport.close()


@pytest.mark.parametrize("begun", ["H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\n"])
async def test_request_whose_answer_has_begun_is_not_sent_again(driver: Any, begun: str) -> None:
    with ScriptServer([respond(200, "1"), READ, begun, CLOSE], respond(200, "2")) as server:
        transport = driver.transport()
        await (await transport("GET", server.url)).read()
        with pytest.raises(httpclient.HttpConnectionError):
            await transport("GET", server.url)
        assert len(server.connections) == 1
        await transport.close()


async def test_fresh_connection_that_fails_is_not_tried_again(driver: Any) -> None:
    with ScriptServer([CLOSE], respond(200)) as server:
        with pytest.raises(httpclient.HttpConnectionError):
            await driver.get(server.url)
        assert len(server.connections) == 1


async def test_timeout_on_a_reused_connection_is_not_tried_again(driver: Any) -> None:
    """The server may be working on it."""
    with ScriptServer([respond(200, "1"), READ, HOLD], respond(200)) as server:
        transport = driver.transport()
        await (await transport("GET", server.url)).read()
        with pytest.raises(httpclient.HttpTimeoutError):
            await transport("GET", server.url, timeout=0.2)
        assert len(server.connections) == 1
        await transport.close()


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ([head(content_length=1), "x"], True),
        (["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk("x"), "0\r\nX-Trailer: y\r\n\r\n"], True),
        (["HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n", "x"], True),
        (["HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", "x"], False),
        ([head(content_length=1, connection="close"), "x"], False),
        ([head(content_length=1), "xHTTP/1.1 200 OK"], False),
        ([head(), "x", CLOSE], False),
        ([head(204)], True),
        ([head(304, content_length=10)], True),
        (["HTTP/1.1 100 Continue\r\n\r\n", head(content_length=1), "x"], True),
    ],
)
async def test_which_connections_are_kept(driver: Any, answer: Any, kept: bool) -> None:
    """When the body has ended by its own framing and neither side wants to close."""
    with ScriptServer([answer, READ, respond(200, "2")], respond(200, "3")) as server:
        transport = driver.transport()
        await (await transport("GET", server.url)).read()
        assert await (await transport("GET", server.url)).read() == (b"2" if kept else b"3")
        await transport.close()


async def test_body_left_unread_closes_its_connection(driver: Any) -> None:
    """Leaving the `with` does not wait for the rest; closing twice is fine."""
    with ScriptServer([head(content_length=99), "x", HOLD], respond(200, "2")) as server:
        transport = driver.transport()
        async with await transport("GET", server.url) as reply:
            assert await anext(reply.iter_bytes()) == b"x"
        await server.closed(0)
        await reply.close()
        with pytest.raises(httpclient.HttpConnectionError, match="closed"):
            await reply.read()
        assert await (await transport("GET", server.url)).read() == b"2"
        await transport.close()


async def test_closed_transport(driver: Any) -> None:
    """Its idle connection is closed, a response that has begun goes on, a new request is refused."""
    go = threading.Event()
    with ScriptServer([head(content_length=2), "a", go, "b", HOLD], then=respond(200)) as server:
        transport = driver.transport()
        reply = await transport("GET", server.url)
        await transport.close()
        await transport.close()
        go.set()
        assert await reply.read() == b"ab"
        await server.closed(0)
        with pytest.raises(httpclient.HttpConnectionError, match="closed"):
            await transport("GET", server.url)
        assert len(server.connections) == 1


async def test_closing_a_transport_ends_requests_without_an_answer(driver: Any) -> None:
    """While it waits for the head, and while it connects."""
    with ScriptServer(then=[HOLD]) as server, BlackHole() as hole:
        for url, reached in ((server.url, lambda: server.requests), (hole.url, lambda: hole.connecting() == 1)):
            transport = driver.transport()
            pending = asyncio.ensure_future(transport("GET", url, timeout=60))
            await eventually(reached)
            started = time.monotonic()
            await transport.close()
            with pytest.raises(httpclient.HttpConnectionError):
                await bounded(pending, LATER)
            assert time.monotonic() - started < LATER


def test_abort_ends_requests_and_leaves_the_transport_usable(leaks: None) -> None:
    """From another thread, in any state before the head."""
    errors: list[BaseException] = []
    transport = httpclient.Transport()

    def ask(url: str) -> None:
        try:
            transport(sse.Request("GET", url, {}), 60)
        except BaseException as error:
            errors.append(error)

    with ScriptServer([HOLD], respond(200, "x")) as server, BlackHole() as hole:
        for url, reached in ((server.url, lambda: server.requests), (hole.url, lambda: hole.connecting() == 1)):
            thread = threading.Thread(target=ask, args=(url,))
            thread.start()
            server.wait(reached)
            transport.abort()
            thread.join(LATER)
            assert [type(error) for error in errors] == [httpclient.HttpConnectionError]
            errors.clear()
        with transport(sse.Request("GET", server.url, {})) as response:
            assert response.read() == b"x"
        transport.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_close_of_a_response_ends_its_reader(driver: Any, scheme: str, authority: Any) -> None:
    """From another thread or task, at once: HttpConnectionError for whoever was waiting for more."""
    tls = authority.server() if scheme == "https" else None
    with ScriptServer([head(), "x", HOLD], tls=tls) as server:
        reply = await driver.get(server.url, stream=True, verify=False)
        pieces = reply.iter_bytes()
        assert await anext(pieces) == b"x"
        pending = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0.02)  # into the read, most likely: it must not matter
        started = time.monotonic()
        await reply.close()
        with pytest.raises(httpclient.HttpConnectionError, match="closed"):
            await bounded(pending, LATER)
        assert time.monotonic() - started < LATER
        await server.closed(0)


async def test_cancelled_read_loses_nothing() -> None:
    """asyncio.wait_for around a step: the next one goes on where it was."""
    go = threading.Event()
    with ScriptServer([head(content_length=4), "ab", go, "cd"]) as server:
        async with await httpclient.async_get(server.url, stream=True) as response:
            pieces = response.aiter_bytes()
            assert await anext(pieces) == b"ab"
            for _ in range(3):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(anext(pieces), 0.02)
            go.set()
            assert await anext(pieces) == b"cd"
            with pytest.raises(StopAsyncIteration):
                await anext(pieces)


@pytest.mark.parametrize("state", ["connecting", "waiting for the head", "in the handshake", "looking up"])
async def test_cancelled_request_leaves_nothing_behind(
    leaks: None, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No socket and no task, whatever it was waiting for."""
    asked, answer = threading.Event(), threading.Event()
    if state == "looking up":
        system = socket.getaddrinfo

        def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
            if host == "slow.example" and not kwargs.get("flags"):
                asked.set()
                answer.wait(LATER)
            return system("127.0.0.1" if host == "slow.example" else host, *args, **{**kwargs, "flags": 4})

        def only_numbers(host: Any, *args: Any, **kwargs: Any) -> Any:
            if host == "slow.example" and kwargs.get("flags"):
                raise socket.gaierror(socket.EAI_NONAME, "not a number")
            return look_up(host, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", only_numbers)
    with BlackHole() as hole, ScriptServer(then=[HOLD]) as server, ScriptServer(then=[RAW, HOLD]) as raw:
        url, reached = {
            "connecting": (hole.url, lambda: hole.connecting() == 1),
            "waiting for the head": (server.url, lambda: server.requests),
            "in the handshake": (
                raw.url.replace("http:", "https:"),
                lambda: raw.connections and raw.connections[0].received,
            ),
            "looking up": ("http://slow.example/", asked.is_set),
        }[state]
        before = asyncio.all_tasks()
        task = asyncio.ensure_future(httpclient.async_get(url, timeout=60))
        await eventually(reached)
        task.cancel()
        try:
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asyncio.all_tasks() == before
        finally:
            answer.set()


async def test_two_readers_of_one_response_are_told() -> None:
    """One of two tasks gets a RuntimeError instead of half of the data."""
    with ScriptServer([head(), HOLD]) as server:
        async with await httpclient.async_get(server.url, stream=True) as response:
            first = asyncio.ensure_future(anext(response.aiter_bytes()))
            await ticks()
            with pytest.raises(RuntimeError, match="two tasks"):
                await anext(response.aiter_bytes())
            first.cancel()
            await asyncio.wait({first})


async def test_failed_attempts_do_not_pile_up(driver: Any) -> None:
    """A client that tries for days against a server that is down holds on to nothing of that."""
    transport = driver.transport()

    def connections() -> int:
        gc.collect()
        return sum(
            type(thing).__module__ == "httpclient" and "Connection" in type(thing).__name__
            for thing in gc.get_objects()
        )

    before = connections()
    with ReservedPort() as port:
        for _ in range(20):
            with pytest.raises(httpclient.HttpConnectionError):
                await transport("GET", f"http://127.0.0.1:{port}/")
    await eventually(lambda: connections() <= before + 2, "what failed is forgotten")
    await transport.close()


# === Refused before all is sent ===

LARGE = b"x" * 30_000_000
"""More than the buffers of two kernels."""


@pytest.mark.parametrize(
    "ending", [CLOSE, [HALF_CLOSE, RECV, RECV, CLOSE], HOLD], ids=["close", "half-close", "keep reading"]
)
async def test_early_refusal_of_a_large_body(driver: Any, ending: Any) -> None:
    """The server answers after the head and reads on, or closes: its answer is what the user gets."""
    refusal = respond(413, "too large", connection="close")
    with ScriptServer([RAW, RECV, refusal, ending]) as server:
        reply = await driver.post(server.url, body=LARGE, timeout=LATER)
        assert (reply.status_code, reply.text) == (413, "too large")


async def test_early_refusal_by_a_server_that_reads_no_more(driver: Any) -> None:
    """It answers, takes nothing more, and keeps the connection open: the answer must not wait for the body."""
    done = threading.Event()
    with ScriptServer([RAW, RECV, respond(413, "too large"), done]) as server:
        try:
            reply = await driver.post(server.url, body=LARGE, timeout=2.0)
            assert (reply.status_code, reply.text) == (413, "too large")
        finally:
            done.set()


async def test_large_body_arrives_whole(driver: Any) -> None:
    body = random.Random(2).randbytes(5_000_000)
    with ScriptServer(respond(200, "thanks")) as server:
        reply = await driver.post(server.url, body=body)
        assert reply.text == "thanks"
        assert hashlib.sha256(server.requests[0].body).digest() == hashlib.sha256(body).digest()


@pytest.mark.parametrize("ending", [HOLD, CLOSE], ids=["keep reading", "close"])
async def test_early_refusal_over_tls(driver: Any, ending: Any, authority: Any) -> None:
    """The same, although TLS has things of its own to say while a body is being sent."""

    def start_tls(connection: Any) -> None:
        connection.sock = authority.server().wrap_socket(connection.sock, server_side=True)

    with ScriptServer([RAW, start_tls, RECV, respond(413, "too large"), ending]) as server:
        url = server.url.replace("http:", "https:")
        reply = await driver.post(url, body=LARGE, timeout=LATER, verify=authority.client())
        assert (reply.status_code, reply.text) == (413, "too large")


async def test_large_body_arrives_whole_over_tls(driver: Any, authority: Any) -> None:
    """The session tickets that come meanwhile are no answer."""
    body = random.Random(2).randbytes(5_000_000)
    with ScriptServer(respond(200, "thanks"), tls=authority.server()) as server:
        reply = await driver.post(server.url, body=body, verify=authority.client())
        assert reply.text == "thanks"
        assert hashlib.sha256(server.requests[0].body).digest() == hashlib.sha256(body).digest()


# === Redirects ===


async def test_redirect_with_a_body_of_its_own(driver: Any) -> None:
    """The page that says "moved" is not read; the connection is only kept where nothing is left of it."""
    moved = respond(302, "moved here", location="/next")
    with ScriptServer([moved, READ, respond(200, "same")], respond(200, "fresh")) as server:
        assert await body_of(driver, server.url) in (b"same", b"fresh")
    endless_page = [head(302, location="/next"), endless("x")]
    with ScriptServer(endless_page, respond(200, "fresh")) as server:
        assert await body_of(driver, server.url) == b"fresh"


async def test_redirects_over_one_connection(driver: Any) -> None:
    """An empty redirect leaves its connection to the next request of a transport; `.url` is where it ended."""
    pages = {"/events": redirect("/a?x=1"), "/a": redirect("b#f"), "/b": respond(200, "here")}
    with ScriptServer(then=[each(lambda request: pages[request.path])]) as server:
        transport = driver.transport()
        reply = await transport("GET", server.url)
        assert (await reply.read(), reply.url) == (b"here", server.origin + "/b")
        assert len(server.connections) == 1
        await transport.close()


async def test_too_many_redirects(driver: Any) -> None:
    """The eleventh: an error that a retry will not cure, and that shows no query."""
    with ScriptServer(then=[each(lambda _: redirect("/again?s3cret"))]) as server:
        transport = driver.transport()
        with pytest.raises(httpclient.HttpProtocolError, match="10 redirects") as caught:
            await transport("GET", server.url)
        assert caught.value.permanent
        assert "s3cret" not in str(caught.value)
        assert len(server.requests) == 11
        await transport.close()


async def test_refused_redirect_closes_its_connection(driver: Any) -> None:
    with ScriptServer([head(302, location="ftp://x/", content_length=5), HOLD]) as server:
        transport = driver.transport()
        with pytest.raises(httpclient.HttpProtocolError, match="ftp://x/"):
            await transport("GET", server.url)
        await server.closed(0)
        await transport.close()


# === Errors ===


async def test_connection_errors(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """HttpConnectionError with its cause for whatever a network does; the text says where and why."""
    with ReservedPort() as port:
        with pytest.raises(httpclient.HttpConnectionError, match=rf"127\.0\.0\.1:{port} failed: Conn") as caught:
            await driver.get(f"http://127.0.0.1:{port}/")
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    system = socket.getaddrinfo

    def nobody(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host == "nobody.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return system(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    with pytest.raises(httpclient.HttpConnectionError, match=r"nobody\.example:80 failed: Name or service") as caught:
        await driver.get("http://nobody.example/")
    assert isinstance(caught.value.__cause__, socket.gaierror)


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        ([CLOSE], httpclient.HttpConnectionError, "without an answer"),
        ([RESET], httpclient.HttpConnectionError, "connection lost|reset"),
        (["HTTP/1.1 200", CLOSE], httpclient.HttpConnectionError, "within the response head"),
        (["HTTP/1.1 200", RESET], httpclient.HttpConnectionError, "connection lost|reset"),
        ([head(content_length=5), "hel", CLOSE], httpclient.HttpConnectionError, "3 of 5 bytes"),
        ([head(content_length=5), "hel", RESET], httpclient.HttpConnectionError, "connection lost|reset"),
        ([head(transfer_encoding="chunked"), chunk("x"), CLOSE], httpclient.HttpConnectionError, "last chunk"),
        ([head(transfer_encoding="chunked"), "nonsense\r\n"], httpclient.HttpProtocolError, "chunk size b'nonsense"),
        ([head(content_encoding="gzip"), "nonsense"], httpclient.HttpProtocolError, "gzip"),
        ([head(content_encoding="br"), "\x0b\x02", HOLD], httpclient.HttpProtocolError, "br"),
        (["nonsense\r\n", HOLD], httpclient.HttpProtocolError, "b'nonsense"),
    ],
)
async def test_errors_of_an_answer(driver: Any, script: Any, kind: Any, text: str) -> None:
    with ScriptServer(script) as server:
        with pytest.raises(kind, match=text):
            await driver.get(server.url)
        await eventually(lambda: server.connections[0].ended or server.connections[0].closed)


async def test_errors_of_tls(driver: Any, authority: Any) -> None:
    """A server that speaks something else, or ends within the handshake or the body, is a lost connection."""
    for script in ([RAW, RECV, "HTTP/1.1 400 Bad Request\r\n\r\n"], [RAW, RECV, CLOSE], [RAW, RECV, RESET]):
        with ScriptServer(script) as server, pytest.raises(httpclient.HttpConnectionError):
            await driver.get(server.url.replace("http:", "https:"))
    with ScriptServer(then=respond(200), tls=authority.server("other.example")) as server:
        with pytest.raises(httpclient.HttpConnectionError, match=r"127\.0\.0\.1") as caught:
            await driver.get(server.url, verify=authority.client())
        assert any(isinstance(link, ssl.SSLCertVerificationError) for link in causes(caught.value))
        assert (await driver.get(server.url, verify=False)).ok

    def garble(connection: Any) -> None:
        socket.socket.send(connection.sock, b"\x17\x03\x03\x00\x20" + b"\0" * 32)  # past the TLS layer

    with ScriptServer([head(content_length=5), "hel", garble, HOLD], tls=authority.server()) as server:
        with pytest.raises(httpclient.HttpConnectionError):
            await driver.get(server.url, verify=False)


async def test_small_tls_records_and_a_large_body(driver: Any, authority: Any) -> None:
    """A body of many records, in pieces that cut records anywhere."""
    body = random.Random(3).randbytes(3_000_000)
    with ScriptServer(then=[each(lambda _: respond(200, body))], tls=authority.server()) as server:
        transport = driver.transport(verify=authority.client())
        for _ in range(2):
            assert await (await transport("GET", server.url)).read() == body
        assert len(server.connections) == 1
        await transport.close()


def tls_in_bits(context: ssl.SSLContext, records: list[bytes], size: int) -> Any:
    """A step that speaks TLS and sends its records in pieces of `size` bytes, each in a packet of its own."""

    def play(connection: Any) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        ready = False
        while not ready:
            try:
                tls.do_handshake()
                ready = True
            except ssl.SSLWantReadError:
                connection.send(outgoing.read())
                incoming.write(connection.recv())
        for record in records:
            tls.write(record)
        connection.play(drip(outgoing.read(), 0.001, size))

    return play


async def test_tls_records_in_bits(driver: Any, authority: Any) -> None:
    """Bytes that make no whole record yet are no end and no data."""
    records = [head(content_length=5).encode(), b"he", b"llo"]
    for size in (1, 7):
        with ScriptServer([RAW, tls_in_bits(authority.server(), records, size), HOLD]) as server:
            url = server.url.replace("http:", "https:")
            assert await body_of(driver, url, verify=authority.client()) == b"hello"


async def test_bodies_that_end_with_a_tls_connection(driver: Any, authority: Any) -> None:
    """close_notify is an end; what follows it is none of ours."""
    with ScriptServer(then=[head(), "hello", CLOSE], tls=authority.server()) as server:
        assert await body_of(driver, server.url, verify=False) == b"hello"
    with ScriptServer(
        then=[head(transfer_encoding="chunked"), chunk("x"), END_CHUNK], tls=authority.server()
    ) as server:
        assert await body_of(driver, server.url, verify=False) == b"x"


# === Proxies ===


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (respond(403, "no"), httpclient.HttpConnectionError, "HTTP 403 'Forbidden'"),
        (respond(302, location="http://evil.example/"), httpclient.HttpConnectionError, "HTTP 302"),
        ([head(200) + "too early"], httpclient.HttpProtocolError, "before the server could"),
        ("nonsense\r\n", httpclient.HttpProtocolError, "nonsense"),
        ([CLOSE], httpclient.HttpConnectionError, "without an answer"),
    ],
)
async def test_proxy_that_makes_no_tunnel(driver: Any, answer: Any, kind: Any, text: str) -> None:
    """Its refusal is no answer of the server, and its redirect is not followed."""
    with ScriptServer(then=answer) as proxy:
        with pytest.raises(kind, match=text):
            await driver.get("https://host.example/", proxy=proxy.origin)
        assert [request.method for request in proxy.requests] == ["CONNECT"]
        assert proxy.requests[0].headers == [("host", "host.example:443")]


async def test_proxy_of_a_plain_request(driver: Any) -> None:
    """Gets the whole URL, the credentials in a header, and its connection is kept like any other."""
    with ScriptServer(then=[each(lambda request: respond(200, request.target))]) as proxy:
        transport = driver.transport(proxy=proxy.origin.replace("//", "//user:p%40ss@"))
        for url in ("http://one.example/a?b", "http://two.example:81/"):
            assert await (await transport("GET", url)).read() == url.encode()
        assert {request["proxy-authorization"] for request in proxy.requests} == {"Basic dXNlcjpwQHNz"}
        assert [request["host"] for request in proxy.requests] == ["one.example", "two.example:81"]
        assert len(proxy.connections) == 1
        await transport.close()


# === Answers that go on ===


async def test_json_of_a_large_answer(driver: Any) -> None:
    """Read in many pieces, decoded as one."""
    data = {"items": [{"number": number, "text": "ü" * 10} for number in range(20_000)]}
    with ScriptServer(respond(200, json.dumps(data), content_type="application/json")) as server:
        assert (await driver.get(server.url)).json() == data


# === What happens between two steps, and on other systems ===


async def test_closing_between_two_steps(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is there, and is closed before the request goes out: it does not."""
    transport = driver.transport()
    write = httpclient._Connection.write

    async def closing(*args: Any) -> None:
        transport.transport.close()
        await write(*args)

    monkeypatch.setattr(httpclient._Connection, "write", closing)
    with ScriptServer([RAW, HOLD]) as server:
        with pytest.raises(httpclient.HttpConnectionError, match="closed"):
            await transport("GET", server.url)
        await server.accepted(1)
        await server.closed(0)
        assert server.connections[0].received == b""


async def test_systems_without_poll(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """select() does for Windows: connecting, being refused, and looking at an idle connection."""
    import select

    monkeypatch.delattr(select, "poll")
    with ReservedPort() as port:
        with pytest.raises(httpclient.HttpConnectionError, match="failed: Conn"):
            await driver.get(f"http://127.0.0.1:{port}/")
    with ScriptServer([respond(200, "1"), READ, respond(200, "2"), CLOSE], respond(200, "3")) as server:
        transport = driver.transport()
        for number in b"12":
            assert await (await transport("GET", server.url)).read() == bytes([number])
        await eventually(lambda: server.connections[0].ended)
        assert await (await transport("POST", server.url, body="x")).read() == b"3"
        await transport.close()


def test_async_transport_in_another_loop() -> None:
    """A connection left idle in a loop that has ended is not used in the next."""
    transport = httpclient.AsyncTransport()

    async def ask(url: str) -> bytes:
        return await (await transport(sse.Request("GET", url, {}))).aread()

    async def ask_and_close(url: str) -> bytes:
        body = await ask(url)
        await transport.aclose()
        return body

    with ScriptServer(then=[each(lambda _: respond(200, "x"))]) as server:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # asyncio's: its loop was closed over the connection
            assert asyncio.run(ask(server.url)) == b"x"
            assert asyncio.run(ask_and_close(server.url)) == b"x"
            gc.collect()
        assert len(server.connections) == 2


def names(monkeypatch: pytest.MonkeyPatch, host: str, addresses: list[Any]) -> None:
    """Look-ups of `host` give these (address, port)."""
    system = socket.getaddrinfo

    def look_up(name: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if name != host:
            return system(name, port, *args, **kwargs)
        if kwargs.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


async def test_addresses_in_turn(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is tried; when all refuse, the last refusal is the cause."""
    with ReservedPort() as closed, ScriptServer(respond(200, "x")) as server:
        bad, good = ("127.0.0.1", closed), ("127.0.0.1", server.port)
        names(monkeypatch, "many.example", [bad, bad, good, good])
        assert await body_of(driver, "http://many.example/") == b"x"
        assert len(server.connections) == 1
        names(monkeypatch, "none.example", [bad, bad])
        with pytest.raises(httpclient.HttpConnectionError, match=r"none\.example:80 failed: Conn"):
            await driver.get("http://none.example/")
        names(monkeypatch, "empty.example", [])
        with pytest.raises(httpclient.HttpConnectionError, match=r"empty\.example:80 failed"):
            await driver.get("http://empty.example/")


async def test_silent_address_does_not_hold_the_next_up(monkeypatch: pytest.MonkeyPatch, leaks: None) -> None:
    """Happy eyeballs (async): the next is tried while the first is silent."""
    with BlackHole() as hole, ScriptServer(respond(200, "x")) as server, ReservedPort() as closed:
        names(monkeypatch, "many.example", [("127.0.0.1", hole.port), ("127.0.0.1", server.port)])
        assert (await httpclient.async_get("http://many.example/", timeout=LATER)).text == "x"
        monkeypatch.setattr(httpclient, "HAPPY_EYEBALLS_DELAY", 0.01)
        names(monkeypatch, "silent.example", [("127.0.0.1", hole.port), ("127.0.0.1", closed)])
        with pytest.raises(httpclient.HttpTimeoutError):  # the silent one might still answer
            await httpclient.async_get("http://silent.example/", timeout=0.2)


async def test_address_that_loses_the_race_is_closed(monkeypatch: pytest.MonkeyPatch, leaks: None) -> None:
    """Two that answer in the same moment: one is used, the other given up."""
    loop = asyncio.get_running_loop()
    dial, both, dialled = loop.sock_connect, asyncio.Event(), []

    async def together(*args: Any) -> None:
        await dial(*args)
        dialled.append(args)
        if len(dialled) == 2:
            both.set()
        await both.wait()

    monkeypatch.setattr(loop, "sock_connect", together)
    monkeypatch.setattr(httpclient, "HAPPY_EYEBALLS_DELAY", 0)
    with ScriptServer(then=[respond(200, "x"), HOLD]) as server:
        names(monkeypatch, "many.example", [("127.0.0.1", server.port)] * 2)
        assert (await httpclient.async_get("http://many.example/", timeout=LATER)).text == "x"
        await server.accepted(2)
        await server.closed(0)
        await server.closed(1)
        assert len(server.requests) == 1


async def test_connection_that_comes_too_late_is_closed(monkeypatch: pytest.MonkeyPatch, leaks: None) -> None:
    """A cancellation, or the deadline, at the very moment when the connection is there."""
    dial = httpclient._AsyncConnection._dial
    connected = asyncio.Event()

    async def unstoppable(*args: Any) -> Any:
        sock = await dial(*args)
        connected.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
        return sock

    monkeypatch.setattr(httpclient._AsyncConnection, "_dial", unstoppable)
    with ScriptServer(then=[RAW, HOLD]) as server:
        task = asyncio.ensure_future(httpclient.async_get(server.url))
        await connected.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.accepted(1)
        await server.closed(0)
        with pytest.raises(httpclient.HttpTimeoutError):
            await httpclient.async_get(server.url, timeout=0.1)
        await server.accepted(2)
        await server.closed(1)


# === Reading again ===


async def test_read_goes_on_after_an_interruption(driver: Any) -> None:
    """What had come before a limit, or a cancellation, is not lost."""
    for what in ("read", "text"):
        gate = threading.Event()
        with ScriptServer([head(content_length=10), "HELLO", gate, "WORLD", HOLD]) as server:
            async with await driver.get(server.url, stream=True, read_timeout=0.05) as reply:
                with pytest.raises(httpclient.HttpTimeoutError, match=r"^no data for 0\.05 s$"):
                    await reply.read()
                gate.set()
                reply.response.read_timeout = None
                assert await reply.read() == b"HELLOWORLD"
                assert reply.text == "HELLOWORLD", what


async def test_read_of_too_much_raises_each_time(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest alone would pass for the whole."""
    monkeypatch.setattr(httpclient, "MAX_BODY", 100)
    with ScriptServer(then=respond(200, "x" * 150)) as server:
        async with await driver.get(server.url, stream=True) as reply:
            for _ in range(3):
                with pytest.raises(httpclient.HttpProtocolError, match="100 bytes"):
                    await reply.read()


async def test_lines_go_on_where_another_iterator_has_stopped(driver: Any) -> None:
    """While the body is on its way; once it has been read, each iterator gives all of it."""
    with ScriptServer(then=respond(200, "a\r\nb\nc")) as server:
        async with await driver.get(server.url, stream=True) as reply:
            async for line in reply.iter_lines():
                assert line == "a"
                break
            assert [line async for line in reply.iter_lines()] == ["b", "c"]
            assert [line async for line in reply.iter_lines()] == []
            assert await reply.read() == b""
            assert [piece async for piece in reply.iter_bytes()] == []
        reply = await driver.get(server.url)
        for _ in range(2):
            assert [line async for line in reply.iter_lines()] == ["a", "b", "c"]


async def test_a_limit_of_an_opening_says_what_took_so_long(driver: Any) -> None:
    """However the head drips in."""
    with ScriptServer(then=[drip(head(), every=0.02)]) as server:
        with pytest.raises(httpclient.HttpTimeoutError, match="timed out waiting for the response head"):
            await driver.get(server.url, timeout=0.3)


# === Arguments and secrets ===


class Text(str):
    """Formats as something else, as some kinds of str do."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return "wrong"

    __str__ = __repr__ = lambda self: "wrong"


async def test_headers_of_any_kind_of_str(driver: Any) -> None:
    with ScriptServer(then=respond()) as server:
        await driver.get(server.url, headers={Text("X-Y"): Text("v")})
        assert server.requests[0]["x-y"] == "v"


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (TypeError, {"method": None}, "method must be str, got NoneType"),
        (TypeError, {"method": b"GET"}, "method must be str, got bytes"),
        (TypeError, {"params": 5}, "params cannot be encoded: not a valid non-string sequence or mapping object"),
        (TypeError, {"params": "a=b"}, "params cannot be encoded: not a valid non-string sequence or mapping object"),
        (TypeError, {"json": {1}}, "json cannot be encoded: Object of type set is not JSON serializable"),
        (ValueError, {"body": "\ud800"}, "body must not contain surrogates"),
        (TypeError, {"read_timeout": "5"}, "read_timeout must be seconds or None, got '5'"),
        (ValueError, {"read_timeout": 0}, "read_timeout must be seconds > 0 and < 2**31, got 0"),
        (ValueError, {"read_timeout": -1}, "read_timeout must be seconds > 0 and < 2**31, got -1"),
    ],
)
async def test_wrong_arguments_are_named(driver: Any, kind: Any, options: Any, text: str) -> None:
    """Before anything is sent."""
    with ScriptServer() as server:
        with pytest.raises(kind) as caught:
            await driver.request(**{"method": "POST", "url": server.url, **options})
        assert str(caught.value) == text
        assert server.requests == []


async def test_bad_header_line_is_shown_without_its_value(driver: Any) -> None:
    """Which may be a secret."""
    for line in ("Set-Cookie: sid=s3cret\0", "Set-Cookie : sid=s3cret"):
        with ScriptServer([f"HTTP/1.1 200 OK\r\n{line}\r\n\r\n"]) as server:
            with pytest.raises(httpclient.HttpProtocolError, match="Set-Cookie") as caught:
                await driver.get(server.url)
        assert "s3cret" not in str(caught.value)


async def test_refusal_of_a_proxy_cannot_steer_a_terminal(driver: Any) -> None:
    with ScriptServer(["HTTP/1.1 403 \x1b[31mNo\r\nContent-Length: 0\r\n\r\n"]) as proxy:
        with pytest.raises(httpclient.HttpConnectionError) as caught:
            await driver.get("https://host.example/", proxy=proxy.url)
    assert str(caught.value).isprintable()


async def test_two_locations_are_none(driver: Any) -> None:
    """Twice the same is one."""
    twice = "HTTP/1.1 302 Found\r\nLocation: /a\r\nlocation: /{}\r\nContent-Length: 0\r\n\r\n"
    with ScriptServer([twice.format("b")], [twice.format("a")], then=respond(200, "x")) as server:
        with pytest.raises(httpclient.HttpProtocolError, match="redirect to 2 different places") as caught:
            await driver.get(server.url)
        assert caught.value.permanent
        assert await body_of(driver, server.url) == b"x"
        assert server.requests[-1].target == "/a"


async def test_a_post_that_becomes_a_get_describes_no_body(driver: Any) -> None:
    headers = {"Content-Encoding": "br", "Content-Language": "de", "Content-Type": "a/b", "X-Kept": "1"}
    with ScriptServer(redirect("/x", 303), then=respond()) as server:
        await driver.post(server.url, body="x", headers=headers)
        sent = server.requests[-1]
    assert (sent.method, sent["x-kept"]) == ("GET", "1")
    assert [sent[name] for name in headers if name.startswith("Content")] == [None] * 3


async def test_iteration_begins_with_what_an_interrupted_read_has_taken(driver: Any, monkeypatch: Any) -> None:
    """There is no hole: neither after a timeout, nor after the limit, whose error says to iterate."""
    gate = threading.Event()
    with ScriptServer([head(content_length=6), "ab", gate, "cd", HOLD]) as server:
        async with await driver.get(server.url, stream=True, read_timeout=0.05) as reply:
            with pytest.raises(httpclient.HttpTimeoutError):
                await reply.read()
            async for piece in reply.iter_bytes():
                assert piece == b"ab"
                break
            gate.set()
            reply.response.read_timeout = LATER
            async for piece in reply.iter_bytes():
                assert piece == b"cd"
                break
    monkeypatch.setattr(httpclient, "MAX_BODY", 100)
    with ScriptServer(then=respond(200, "x" * 150)) as server:
        async with await driver.get(server.url, stream=True) as reply:
            with pytest.raises(httpclient.HttpProtocolError, match="iterate"):
                await reply.read()
            assert b"".join([piece async for piece in reply.iter_bytes()]) == b"x" * 150


async def test_iterator_made_before_the_body_was_read(driver: Any) -> None:
    """Its first step decides: it gives the whole."""
    with ScriptServer(then=respond(200, "a\nb")) as server:
        async with await driver.get(server.url, stream=True) as reply:
            lines, pieces = reply.iter_lines(), reply.iter_bytes()
            await reply.read()
            assert [line async for line in lines] == ["a", "b"]
            assert [piece async for piece in pieces] == [b"a\nb"]


async def test_body_that_the_transport_has_read(driver: Any) -> None:
    """By a wrapper that logs it, say: the client has all of it."""
    transporter = driver.transport()
    inner = transporter.transport

    def log(request: Any, timeout: Any) -> Any:
        response = inner(request, timeout)
        response.read()
        return response

    async def log_async(request: Any, timeout: Any) -> Any:
        response = await inner(request, timeout)
        await response.aread()
        return response

    with ScriptServer(then=respond(200, "data: 1\n\n", content_type="text/event-stream")) as server:
        transport = log if isinstance(driver, SyncDriver) else log_async
        for options in ({}, {"heartbeat_timeout": LATER}):
            async with driver.connect(server.url, transport=transport, reconnect=False, **options) as events:
                assert await events.all() == ["1"]
    await transporter.close()
