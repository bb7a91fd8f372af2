"""HTTP without I/O: heads, bodies, gzip, lines, URLs, redirects and routes, in every slicing and under attack."""

from __future__ import annotations

import functools
import gzip
import itertools
import random
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import httpclient
from helpers import cut, plain_id, slicings
from httpclient import Headers, HttpConnectionError, HttpError, HttpProtocolError

LOST, BAD = HttpConnectionError, HttpProtocolError


# === A reader of whole answers ===


@dataclass
class Answer:
    """What came of an answer: its head, the body up to its end or error, whether the connection may be kept."""

    head: Any = None
    body: bytes = b""
    error: HttpError | None = None
    reusable: bool = False


def receive(pieces: Iterable[bytes], method: str = "GET") -> Answer:
    """Read an answer as the transports do; the connection ends after the last piece."""
    answer = Answer()
    pieces_of_body = []
    data = itertools.chain(filter(None, pieces), itertools.repeat(b""))
    try:
        reader = httpclient._HeadReader()
        while (head := reader.receive(next(data))) is None:
            pass
        answer.head = head
        body = httpclient._Body(method, head)
        while True:
            piece = body.take()
            pieces_of_body.append(piece)
            if not piece:
                if body.complete:
                    answer.reusable = body.reusable
                    return answer
                body.receive(next(data))
    except HttpError as error:
        answer.error = error
    finally:
        answer.body = b"".join(pieces_of_body)
    return answer


def in_every_slicing(raw: bytes, method: str = "GET") -> list[Answer]:
    return [receive(pieces, method) for pieces in slicings(raw)]


# === Heads ===

GOOD_HEADS: list[tuple[bytes, int, str, dict[str, str]]] = [
    (b"HTTP/1.1 200 OK\r\n\r\n", 200, "OK", {}),
    (b"HTTP/1.1 200\r\n\r\n", 200, "", {}),
    (b"HTTP/1.1 200 \r\n\r\n", 200, "", {}),
    (b"HTTP/1.0 404 Not Found\r\n\r\n", 404, "Not Found", {}),
    (b"HTTP/1.1 999 \xc3\xbc\r\n\r\n", 999, "\u00fc", {}),
    (b"HTTP/1.1 200 \xfc\r\n\r\n", 200, "\u00fc", {}),
    (b"HTTP/1.1 200 OK\nA: b\n\n", 200, "OK", {"a": "b"}),
    (b"HTTP/1.1 200 OK\r\nA: b\n\r\n", 200, "OK", {"a": "b"}),
    (b"HTTP/1.1 200 OK\nA: b\r\n\n", 200, "OK", {"a": "b"}),
    (
        b"HTTP/1.1 200 OK\r\nA:b\r\nC: \t d \t\r\nE:\r\nF: g: h\r\n\r\n",
        200,
        "OK",
        {"a": "b", "c": "d", "e": "", "f": "g: h"},
    ),
    (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\t d\r\nE: f\r\n\r\n", 200, "OK", {"a": "b c d", "e": "f"}),
    (b"HTTP/1.1 200 OK\nA:\n b\n\n", 200, "OK", {"a": "b"}),
    (b"HTTP/1.1 200 OK\r\nA: b\r\na: c\r\nA:\r\n\r\n", 200, "OK", {"a": "b, c, "}),
    (b"HTTP/1.1 200 OK\r\n!#$%&'*+-.^_`|~09azAZ: \xc3\xbc\r\n\r\n", 200, "OK", {"!#$%&'*+-.^_`|~09azaz": "\u00fc"}),
    (b"HTTP/1.1 200 OK\r\nA: \xfc\x85\x7f\x01\r\n\r\n", 200, "OK", {"a": "\u00fc\x85\x7f\x01"}),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 200, "OK", {}),
    (
        b"HTTP/1.1 103 Hints\r\nContent-Length: x\r\n\r\n" * 3 + b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n",
        200,
        "OK",
        {"a": "b"},
    ),
    (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 256 + b"\r\n", 200, "OK", {"a": ", ".join("b" * 256)}),
    (b"HTTP/1.1 200 OK\r\nA: " + b"x" * (65536 - 24) + b"\r\n\r\n", 200, "OK", {"a": "x" * (65536 - 24)}),
]


@pytest.mark.parametrize(("raw", "status", "reason", "headers"), GOOD_HEADS, ids=plain_id)
def test_heads(raw: bytes, status: int, reason: str, headers: dict[str, str]) -> None:
    """In every slicing; what follows the head belongs to the body."""
    pieces = slicings(raw) if len(raw) < 5000 else [[raw], cut(raw, range(1000, len(raw), 1000))]
    for slices in pieces:
        answer = receive([*slices, b"x"])
        assert answer.error is None
        assert (answer.head.status_code, answer.head.reason, dict(answer.head.headers)) == (status, reason, headers)
        assert answer.body == b"x"
    assert receive([raw + b"x"]).body == b"x"


BAD_HEADS = [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"<html>",
    b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    b" HTTP/1.1 200 OK\r\n\r\n",
    b"http/1.1 200 OK\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/0.9 200 OK\r\n\r\n",
    b"HTTP/1.2 200 OK\r\n\r\n",
    b"HTTP/1.10 200 OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 020 OK\r\n\r\n",
    b"HTTP/1.1 +20 OK\r\n\r\n",
    b"HTTP/1.1 \xef\xbc\x92\xef\xbc\x90\xef\xbc\x90 OK\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/1.1 200OK\r\n\r\n",
    b"HTTP/1.1 200 O\rK\r\n\r\n",
    b"HTTP/1.1 200 O\0K\r\n\r\n",
    b"HTTP/1.1 200 OK\r\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA\t: b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n: b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA B: c\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\xfc: c\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\r\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nSSH-2.0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\nA\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 257 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nA: " + b"x" * (65536 - 23) + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: " + b"x" * 65536,
    b"HTTP/1.1 200 OK\r\n" * 5000,
]


@pytest.mark.parametrize("raw", BAD_HEADS, ids=plain_id)
def test_bad_heads(raw: bytes) -> None:
    """Refused in every slicing, with little of what came in the text."""
    for slices in slicings(raw) if len(raw) < 5000 else [[raw], cut(raw, range(1000, len(raw), 1000))]:
        answer = receive(slices)
        assert type(answer.error) is BAD
        assert len(str(answer.error)) < 300
        assert str(answer.error).isprintable()


@pytest.mark.parametrize("raw", [b"S", b"HTTPS", b"\x15\x03\x01", b"HTTP/2", b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000])
def test_what_can_be_no_head_is_refused_at_once(raw: bytes) -> None:
    """Not when the connection or a timeout ends."""
    with pytest.raises(HttpProtocolError):
        httpclient._HeadReader().receive(raw)


@pytest.mark.parametrize("raw", [b"", b"H", b"HTTP/1.1", b"HTTP/1.1 200 OK\r\nA: b\r\n", b"HTTP/1.1 100 C\r\n\r\n"])
def test_connection_that_ends_before_the_head_does(raw: bytes) -> None:
    """A lost connection; the text tells whether an answer had begun."""
    for slices in slicings(raw):
        error = receive(slices).error
        assert type(error) is LOST
        assert ("without an answer" in str(error)) == (not raw)


def test_interim_answers_without_end() -> None:
    """So many are skipped, no more: a server must not hold a client that has no timeout."""
    interim, final = b"HTTP/1.1 103 Early Hints\r\n\r\n", response(b"", b"hello")
    for slices in (lambda n: [interim * n + final], lambda n: [*[interim] * n, final]):
        assert receive(slices(256)).body == b"hello"
        assert type(receive(slices(257)).error) is BAD


def took(work: Callable[[], object]) -> float:
    """The least seconds of three runs, of the processor: a busy machine must not matter."""
    times = []
    for _ in range(3):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times)


COSTLY: dict[str, Callable[[int], list[bytes]]] = {
    "spaces in a value": lambda n: [b"HTTP/1.1 200 OK\r\nA: x" + b" " * n + b"y\r\n\r\n"],
    "tabs before a value": lambda n: [b"HTTP/1.1 200 OK\r\nA:" + b"\t" * n + b"\r\n\r\n"],
    "folds": lambda n: [b"HTTP/1.1 200 OK\r\nA: b" + b"\r\n " * (n // 3) + b"\r\n\r\n"],
    "blanks in a fold": lambda n: [b"HTTP/1.1 200 OK\r\nA: b\r\n" + b" \t" * (n // 2) + b"c\r\n\r\n"],
    "line feeds": lambda n: [b"HTTP/1.1 200 OK" + b"\r\r" * (n // 2)],
    "head in bytes": lambda n: [b"HTTP/1.1 200 OK\r\nA: ", *[b"x"] * n, b"\r\n\r\n"],
    "chunks of a byte": lambda n: [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * n],
    "chunks in bytes": lambda n: [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % n, *[b"x"] * n],
    "length in bytes": lambda n: [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n, *[b"x"] * n],
    "gzip in bytes": lambda n: [
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
        *[bytes([byte]) for byte in gzip.compress(random.Random(1).randbytes(n))],
    ],
}


@pytest.mark.parametrize("attack", COSTLY.values(), ids=COSTLY)
def test_cost_is_linear(attack: Callable[[int], list[bytes]]) -> None:
    """Four times as much takes no more than about four times as long."""
    small, large = attack(4_000), attack(16_000)
    once = max(took(lambda: receive(small)), 0.002)
    assert took(lambda: receive(large)) < 9 * once


# === Bodies ===

CHUNKED = b"Transfer-Encoding: chunked\r\n"


def response(fields: bytes, body: bytes = b"", first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return first + b"\r\n" + fields + b"\r\n" + body


GOOD_BODIES: list[tuple[bytes, bytes, bytes, bool]] = [
    # head fields, body as it comes, body as it is, whether the connection may be kept
    (b"Content-Length: 5\r\n", b"hello", b"hello", True),
    (b"Content-Length: 0\r\n", b"", b"", True),
    (b"Content-Length: 005\r\n", b"hello", b"hello", True),
    (b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello", b"hello", True),
    (b"Content-Length: 5, 5\r\n", b"hello", b"hello", True),
    (b"Content-Length: 5\r\nConnection: close\r\n", b"hello", b"hello", False),
    (b"Content-Length: 5\r\nConnection: Keep-Alive, CLOSE\r\n", b"hello", b"hello", False),
    (b"", b"hello", b"hello", False),
    (b"", b"", b"", False),
    (b"Connection: keep-alive\r\n", b"hello", b"hello", False),
    (CHUNKED, b"0\r\n\r\n", b"", True),
    (CHUNKED, b"5\r\nhello\r\n0\r\n\r\n", b"hello", True),
    (CHUNKED, b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world", True),
    (CHUNKED, b"00005\r\nhello\r\n000\r\n\r\n", b"hello", True),
    (CHUNKED, b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2, True),
    (CHUNKED, b"5;a=b;c\r\nhello\r\n0;d\r\n\r\n", b"hello", True),
    (CHUNKED, b"5 \t;a\r\nhello\r\n0 \r\n\r\n", b"hello", True),
    (CHUNKED, b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", True),
    (CHUNKED, b"5\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n", b"hello", True),
    (CHUNKED + b"Connection: close\r\n", b"1\r\nx\r\n0\r\n\r\n", b"x", False),
    (b"transfer-encoding: CHUNKED\r\n", b"1\r\nx\r\n0\r\n\r\n", b"x", True),
    (b"Content-Encoding: identity\r\nContent-Length: 5\r\n", b"hello", b"hello", True),
    (b"Content-Encoding: gzip\r\nContent-Length: 0\r\n", b"", b"", True),
    (b"Content-Encoding:\r\nContent-Length: 5\r\n", b"hello", b"hello", True),
]


@pytest.mark.parametrize(("fields", "sent", "body", "reusable"), GOOD_BODIES)
def test_bodies(fields: bytes, sent: bytes, body: bytes, reusable: bool) -> None:
    """In every slicing: the data, and whether the next answer may follow on the same connection."""
    for answer in in_every_slicing(response(fields, sent)):
        assert (answer.error, answer.body, answer.reusable) == (None, body, reusable)


@pytest.mark.parametrize(
    ("first", "fields", "reusable"),
    [
        (b"HTTP/1.0 200 OK", b"", False),
        (b"HTTP/1.0 200 OK", b"Connection: keep-alive\r\n", True),
        (b"HTTP/1.0 200 OK", b"Connection: x, Keep-Alive\r\n", True),
        (b"HTTP/1.0 200 OK", b"Connection: keep-alive, close\r\n", False),
        (b"HTTP/1.1 200 OK", b"Connection: closed\r\n", True),
    ],
)
def test_keeping_the_connection(first: bytes, fields: bytes, reusable: bool) -> None:
    """RFC 9112 section 9.3: by default since HTTP/1.1, before that when told so."""
    assert receive([response(fields + b"Content-Length: 1\r\n", b"x", first)]).reusable is reusable


@pytest.mark.parametrize(
    ("method", "first"), [("HEAD", b"HTTP/1.1 200 OK"), ("GET", b"HTTP/1.1 204 No"), ("GET", b"HTTP/1.1 304 Not")]
)
@pytest.mark.parametrize(
    "fields",
    [b"", b"Content-Length: 5\r\n", CHUNKED, CHUNKED + b"Content-Length: 5\r\n", b"Content-Encoding: gzip\r\n"],
)
def test_answers_without_a_body(method: str, first: bytes, fields: bytes) -> None:
    """HEAD, 204 and 304, whatever the head says; bytes that follow are not theirs."""
    answer = receive([response(fields, b"", first)], method)
    assert (answer.error, answer.body, answer.reusable) == (None, b"", True)
    assert not receive([response(fields, b"x", first)], method).reusable


@pytest.mark.parametrize("surplus", [b"\n", b"x", b"HTTP/1.1 200 OK\r\n\r\n", b"\r\n" * 10_000])
@pytest.mark.parametrize(
    ("fields", "sent"), [(b"Content-Length: 5\r\n", b"hello"), (CHUNKED, b"5\r\nhello\r\n0\r\n\r\n")]
)
def test_bytes_after_the_body_make_a_connection_unfit(fields: bytes, sent: bytes, surplus: bytes) -> None:
    """They belong to no request of ours: the answer counts, the connection is not used again."""
    answer = receive([response(fields, sent + surplus)])
    assert (answer.error, answer.body, answer.reusable) == (None, b"hello", False)


BAD_FRAMINGS = [
    b"Content-Length: 5\r\nContent-Length: 6\r\n",
    b"Content-Length: 5, 6\r\n",
    b"Content-Length: -5\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length: 5.0\r\n",
    b"Content-Length: 0x5\r\n",
    b"Content-Length: 5 5\r\n",
    b"Content-Length: 5_5\r\n",
    b"Content-Length: \xef\xbc\x95\r\n",
    b"Content-Length: \xb2\r\n",
    b"Content-Length: five\r\n",
    b"Content-Length:\r\n",
    b"Content-Length: ,\r\n",
    b"Content-Length: " + b"9" * 19 + b"\r\n",
    b"Content-Length: " + b"9" * 5000 + b"\r\n",
    CHUNKED + b"Content-Length: 5\r\n",
    b"Content-Length: 5\r\n" + CHUNKED,
    CHUNKED + b"Content-Length: x\r\n",
    CHUNKED + CHUNKED,
    b"Transfer-Encoding: gzip\r\n",
    b"Transfer-Encoding: chunked, gzip\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding:\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding: chunked;q=1\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n",
    b"Content-Encoding: br\r\n",
    b"Content-Encoding: deflate\r\n",
    b"Content-Encoding: gzip, gzip\r\n",
    b"Content-Encoding: gzip\r\nContent-Encoding: br\r\n",
    b"Content-Encoding: " + b"x" * 5000 + b"\r\n",
]


@pytest.mark.parametrize("fields", BAD_FRAMINGS, ids=plain_id)
def test_contradictory_framing_is_refused(fields: bytes) -> None:
    """No guessing where two readers of HTTP could disagree."""
    answer = receive([response(fields, b"5\r\nhello\r\n0\r\n\r\n")])
    assert type(answer.error) is BAD
    assert answer.body == b""
    assert len(str(answer.error)) < 200


def test_chunked_needs_http_1_1() -> None:
    """RFC 9112 section 6.1: from an older server it is faulty framing."""
    assert type(receive([response(CHUNKED, b"0\r\n\r\n", b"HTTP/1.0 200 OK")]).error) is BAD


BAD_CHUNKS: list[tuple[bytes, bytes, type[HttpError]]] = [
    # body, what of it is data, error
    (b"-5\r\nhello\r\n", b"", BAD),
    (b"+5\r\nhello\r\n", b"", BAD),
    (b"0x5\r\nhello\r\n", b"", BAD),
    (b"5 5\r\nhello\r\n", b"", BAD),
    (b" 5\r\nhello\r\n", b"", BAD),
    (b"5_0\r\nhello\r\n", b"", BAD),
    (b"5h\r\nhello\r\n", b"", BAD),
    (b"\xef\xbc\x95\r\nhello\r\n", b"", BAD),
    (b"\r\nhello\r\n", b"", BAD),
    (b";a\r\nhello\r\n", b"", BAD),
    (b"\nhello", b"", BAD),
    (b"5\nhello\r\n", b"", BAD),
    (b"5;a\nb\r\nhello\r\n", b"", BAD),
    (b"5\rhello\r\n0\r\n\r\n", b"", BAD),
    (b"1" * 17 + b"\r\nhello", b"", BAD),
    (b"0" * 16 + b"5\r\nhello\r\n", b"", BAD),
    (b"5" * 5000, b"", BAD),
    (b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"5\r\nhello5\r\nhello\r\n0\r\n\r\n", b"hello", BAD),
    (b"5\r\nhelloXX0\r\n\r\n", b"hello", BAD),
    (b"5\r\nhello\n0\r\n\r\n", b"hello", BAD),
    (b"5\r\nhello\r0\r\n\r\n", b"hello", BAD),
    (b"5\r\nhello\r\n-1\r\n", b"hello", BAD),
    (b"0\r\n" + b"A: b\r\n" * 11_000 + b"\r\n", b"", BAD),
    (b"0\r\n" + b"x" * 70_000, b"", BAD),
    (b"", b"", LOST),
    (b"5", b"", LOST),
    (b"5\r", b"", LOST),
    (b"5\r\n", b"", LOST),
    (b"5\r\nhel", b"hel", LOST),
    (b"5\r\nhello", b"hello", LOST),
    (b"5\r\nhello\r", b"hello", LOST),
    (b"5\r\nhello\r\n", b"hello", LOST),
    (b"5\r\nhello\r\n0", b"hello", LOST),
    (b"5\r\nhello\r\n0\r\n", b"hello", LOST),
    (b"5\r\nhello\r\n0\r\n\r", b"hello", LOST),
    (b"5\r\nhello\r\n0\r\nA: b\r\n", b"hello", LOST),
    (b"f" * 16 + b"\r\nhello", b"hello", LOST),
]


@pytest.mark.parametrize(("sent", "data", "kind"), BAD_CHUNKS, ids=plain_id)
def test_bad_chunks(sent: bytes, data: bytes, kind: type[HttpError]) -> None:
    """In every slicing the data before comes first, then the error: never a shortened body taken for a whole one."""
    raw = response(CHUNKED)
    for slices in slicings(sent) if len(sent) < 1000 else [[sent], cut(sent, range(0, len(sent), 997))]:
        answer = receive([raw, *slices])
        assert type(answer.error) is kind, slices[:5]
        assert answer.body == data
        assert len(str(answer.error)) < 200
        assert str(answer.error).isprintable()


def test_surplus_in_a_later_piece_is_not_of_the_body() -> None:
    assert receive([response(b"Content-Length: 5\r\n"), b"hel", b"loXX"]).body == b"hello"


def test_field_value_loses_white_space_only() -> None:
    head = httpclient._parse_head(b"HTTP/1.1 200 OK\r\nA: \t XaX \t", b"")
    assert head.headers["a"] == "XaX"


@pytest.mark.parametrize(("pieces", "where"), [([], "without an answer"), ([b"HTTP"], "within the response head")])
def test_connection_that_ends_too_early_is_told_from_one_that_answers_nothing(pieces: Any, where: str) -> None:
    assert str(receive(pieces).error) == f"the server closed the connection {where}"


def test_limit_of_a_head_without_end() -> None:
    """Nothing is refused before it is too long."""
    head = b"HTTP/1.1 200 OK\r\nA: ".ljust(httpclient.MAX_HEAD, b"x")
    assert type(receive([head]).error) is LOST
    assert type(receive([head, b"x"]).error) is BAD


def test_unknown_content_coding_is_named() -> None:
    error = receive([response(b"Content-Encoding: br\r\n", b"x")]).error
    assert str(error) == "unsupported content coding 'br'"


def test_bad_chunk_is_shown() -> None:
    assert str(receive([response(CHUNKED), b"-5\r\nhello"]).error) == r"bad chunk size b'-5\r\nhello'"


@pytest.mark.parametrize("before", [b"", b"3\r\nabc\r\n"])
def test_limit_of_a_chunk_line(before: bytes) -> None:
    """MAX_CHUNK_LINE with its CRLF, and no more is collected while there is no CRLF."""
    limit = httpclient.MAX_CHUNK_LINE
    line = b"5;" + b"x" * (limit - 4) + b"\r\n"
    for longer, kind in ((b"", type(None)), (b"x", BAD)):
        for parts in ([line[:-2] + longer + line[-2:]], [line[:2], longer + line[2:]], [line[:9] + longer, line[9:]]):
            assert type(receive([response(CHUNKED), before, *parts, b"hello\r\n0\r\n\r\n"]).error) is kind
        unfinished = before + line[:-2] + b"xx" + longer
        assert type(receive([response(CHUNKED), unfinished]).error) is (BAD if longer else LOST)


def test_limit_of_trailers() -> None:
    """MAX_HEAD with the empty line at their end; bytes after it are not theirs."""
    trailers = b"A: " + b"x" * (httpclient.MAX_HEAD - 7) + b"\r\n\r\n"
    for sent, kind in (
        (trailers, type(None)),
        (b"x" + trailers, BAD),
        (trailers[:-2] + b"xx", LOST),
        (trailers[:-2] + b"xxx", BAD),
        (b"A: b\r\n\r\n" + b"x" * 70_000, type(None)),
        (b"\r\n" + b"x" * 70_000, type(None)),
    ):
        assert type(receive([response(CHUNKED), b"5\r\nhello\r\n0\r\n" + sent]).error) is kind


@pytest.mark.parametrize("slices", [[b"5\r\nhello\r\n" * 1000], [b"5\r\nhello", *[b"\r\n5\r\nhello"] * 999]])
def test_chunk_line_that_has_come_before_is_not_read_anew(slices: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortcut: servers send chunks of the same few sizes."""
    read: list[Any] = []
    pattern = httpclient._CHUNK_LINE

    def match(data: bytes, at: int) -> Any:
        found = pattern.match(data, at)
        read.extend(filter(None, [found]))
        return found

    monkeypatch.setattr(httpclient, "_CHUNK_LINE", SimpleNamespace(match=match))
    out: list[bytes] = []
    body = httpclient._ChunkedBody()
    for data in slices:
        body.decode(data, out)
    assert b"".join(out) == b"hello" * 1000
    assert len(read) <= 3


def test_chunk_lines_are_not_remembered_without_bound() -> None:
    body = httpclient._ChunkedBody()
    body.decode(b"".join(b"1;%d\r\na\r\n" % number for number in range(1000)), [])
    assert len(body._sizes) == httpclient.MAX_HEADERS


@pytest.mark.parametrize("length", [1, 6, 100, 10**18 - 1])
def test_body_shorter_than_its_length(length: int) -> None:
    """The text tells how much came of how much."""
    for answer in in_every_slicing(response(b"Content-Length: %d\r\n" % length, b"hello"[: length - 1])):
        assert type(answer.error) is LOST
        assert answer.body == b"hello"[: length - 1]
        assert f"{len(answer.body)} of {length} bytes" in str(answer.error)


# === gzip ===

TEXT = b"event: a\ndata: hello hello hello\n\n" * 5
zipped = functools.partial(gzip.compress, mtime=0)  # without the time, tests have the same names in every run
GZIP = b"Content-Encoding: gzip\r\n"


def flushed(*parts: bytes) -> list[bytes]:
    """Each part compressed and flushed, then the end."""
    packer = zlib.compressobj(wbits=31)
    return [*(packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts), packer.flush()]


@pytest.mark.parametrize(
    ("coding", "packed", "plain"),
    [
        (b"gzip", zipped(TEXT), TEXT),
        (b"GZip", zipped(TEXT), TEXT),
        (b"x-gzip", zipped(TEXT), TEXT),
        (b"identity, gzip", zipped(TEXT), TEXT),
        (b"gzip", zipped(b""), b""),
        (b"gzip", b"", b""),
        (b"gzip", zipped(b"a") + zipped(b"") + zipped(b"b"), b"ab"),
        (b"gzip", b"".join(flushed(b"a", b"b", b"c")), b"abc"),
        (b"gzip", zipped(TEXT, 0), TEXT),
    ],
)
def test_gzip_in_every_framing(coding: bytes, packed: bytes, plain: bytes) -> None:
    """Members follow each other, RFC 1952 section 2.2; none at all is an empty body."""
    field = b"Content-Encoding: " + coding + b"\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in cut(packed, range(0, len(packed), 7)) if p)
    for raw in (
        response(field, packed),
        response(field + b"Content-Length: %d\r\n" % len(packed), packed),
        response(field + CHUNKED, chunks + b"0\r\n\r\n"),
    ):
        for answer in in_every_slicing(raw):
            assert (answer.error, answer.body) == (None, plain)


def test_gzip_gives_each_flushed_block_at_once() -> None:
    """Before the next comes: an event must not wait in a decoder."""
    body = body_of(GZIP)
    for part, packed in zip([b"one", b"two", b"three", b""], flushed(b"one", b"two", b"three"), strict=True):
        body.receive(packed)
        assert b"".join(iter(body.take, b"")) == part


def body_of(fields: bytes, method: str = "GET") -> Any:
    head = httpclient._HeadReader().receive(response(fields))
    return httpclient._Body(method, head)


@pytest.mark.parametrize("kept", range(1, len(gzip.compress(TEXT))))
def test_gzip_that_is_cut_short_raises(kept: int) -> None:
    """At every byte: header, data, checksum and length are all part of the body."""
    packed = gzip.compress(TEXT)[:kept]
    for raw in (response(GZIP, packed), response(GZIP + b"Content-Length: %d\r\n" % kept, packed)):
        for slices in ([raw], cut(raw, [len(raw) - 1]), [raw[i : i + 1] for i in range(len(raw))]):
            answer = receive(slices)
            assert isinstance(answer.error, (LOST, BAD))
            assert TEXT.startswith(answer.body)


BROKEN = {
    "no gzip": b"hello, I am plain text",
    "deflate": zlib.compress(TEXT),
    "reserved method": b"\x1f\x8b\x07" + gzip.compress(TEXT)[3:],
    "wrong checksum": gzip.compress(TEXT)[:-8] + b"\0" * 8,
    "wrong length": gzip.compress(TEXT)[:-4] + b"\0" * 4,
    "bad block": gzip.compress(TEXT)[:10] + b"\xff" * 20,
    "a member, then garbage": gzip.compress(TEXT) + b"garbage",
    "a member, then half of one": gzip.compress(TEXT) + gzip.compress(TEXT)[:-1],
}


@pytest.mark.parametrize("packed", BROKEN.values(), ids=BROKEN)
def test_broken_gzip_raises(packed: bytes) -> None:
    """HttpProtocolError or a lost connection, never zlib.error, and no wrong data before."""
    for answer in in_every_slicing(response(GZIP, packed)):
        assert isinstance(answer.error, (LOST, BAD))
        assert (TEXT + TEXT).startswith(answer.body)
        assert answer.error.__cause__ is None or isinstance(answer.error.__cause__, zlib.error)


@pytest.mark.parametrize("size", [1, 65535, 65536, 65537, 131072, 1_000_000])
@pytest.mark.parametrize("level", [0, 9])
def test_gzip_across_the_limit_of_a_step(size: int, level: int) -> None:
    """No piece is larger than READ_SIZE, and nothing is held back at the seams."""
    plain = random.Random(size).randbytes(size) if level else b"\0" * size
    raw = response(GZIP, gzip.compress(plain, 9))
    assert receive([raw]).body == plain
    assert receive(cut(raw, range(100, len(raw), 4000))).body == plain


def test_gzip_holds_no_output_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What zlib has still to give, after it has taken all input."""
    monkeypatch.setattr(httpclient, "READ_SIZE", 7)
    packed = zipped(b"a" * 1000)
    for end in range(len(packed)):
        body = httpclient._Body("GET", httpclient._parse_head(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip", b""))
        body.receive(packed[:end])
        data = b"".join(iter(body.take, b""))
        assert data == zlib.decompressobj(wbits=31).decompress(packed[:end])


def test_gzip_bomb_is_unpacked_in_bounded_steps() -> None:
    """200 MB in 200 KB: each step takes what it gives, the rest stays packed."""
    body = body_of(GZIP)
    body.receive(gzip.compress(b"\0" * 200_000_000, 9))
    for _ in range(50):
        assert 0 < len(body.take()) <= httpclient.READ_SIZE
        assert sum(map(len, body._waiting)) < 250_000


def test_data_before_an_error_comes_first() -> None:
    """Behind gzip too: what was flushed before the connection broke is there."""
    parts = flushed(b"one", b"two", b"three")
    answer = receive([response(GZIP + CHUNKED), *(b"%x\r\n%s\r\n" % (len(p), p) for p in parts[:2]), b"bad\n"])
    assert (answer.body, type(answer.error)) == (b"onetwo", BAD)
    broken = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts[:2])
    answer = receive([response(GZIP + CHUNKED, broken + b"bad\n")])
    assert (answer.body, type(answer.error)) == (b"onetwo", BAD)


# === Anything at all ===

FRAGMENTS = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 204 No\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 18446744073709551616\r\n",
    CHUNKED,
    GZIP,
    b"Connection: close\r\n",
    b"A: b\r\n c\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"hello",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\n",
    b"ffffffffffffffff\r\n",
    gzip.compress(b"hello"),
    gzip.compress(b"hello")[:12],
    b"\0",
    b"\xff",
]
anything = st.one_of(
    st.binary(max_size=200),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=4)), max_size=12).map(b"".join),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=4)), max_size=12).map(
        lambda parts: FRAGMENTS[0] + b"".join(parts)
    ),
)


@settings(max_examples=400, deadline=None)
@given(raw=anything, method=st.sampled_from(["GET", "HEAD", "POST"]), data=st.data())
@example(raw=b"", method="GET", data=None)
def test_any_bytes_give_an_answer_or_an_error_of_ours(raw: bytes, method: str, data: Any) -> None:
    """Never another exception, and the same outcome however the bytes are sliced."""
    whole = receive([raw], method)
    assert whole.error is None or type(whole.error) in (BAD, LOST)
    places = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8))) if data else []
    for slices in (cut(raw, places), [raw[i : i + 1] for i in range(len(raw))]):
        sliced = receive(slices, method)
        assert type(sliced.error) is type(whole.error)
        if whole.error is None or GZIP not in raw:
            assert sliced.body == whole.body
        else:  # zlib says nothing of what it found before an error within one piece
            assert sliced.body.startswith(whole.body)


# === Lines ===

LINES: list[tuple[str, list[str]]] = [
    ("", []),
    ("a", ["a"]),
    ("a\n", ["a"]),
    ("\n", [""]),
    ("\r\n\r\n", ["", ""]),
    ("\r\r\n\n", ["", "", ""]),
    ("a\rb\r\nc\nd", ["a", "b", "c", "d"]),
    ("a\r", ["a"]),
    ("a\v\f\x1c\x1d\x1e\x85\u2028\u2029b\n\u00fc", ["a\v\f\x1c\x1d\x1e\x85\u2028\u2029b", "\u00fc"]),
]


def split(pieces: Iterable[bytes], charset: str = "utf-8") -> list[str]:
    lines = httpclient._Lines(charset)
    return [line for piece in pieces for line in lines.feed(piece)] + lines.feed(b"", final=True)


@pytest.mark.parametrize("charset", ["utf-16", "utf-32"])
def test_lines_without_the_byte_order_mark_of_their_charset(charset: str) -> None:
    """What the charset cannot mean is the server's fault, no UnicodeError."""
    with pytest.raises(HttpProtocolError, match=charset):
        httpclient._Lines(charset).feed(b"abcd")


@pytest.mark.parametrize(("text", "lines"), LINES)
@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "utf-16-le", "utf-32"])
def test_lines(text: str, lines: list[str], charset: str) -> None:
    """LF, CR and CRLF end a line, nothing else does, in every slicing and charset."""
    for pieces in slicings(text.encode(charset)):
        assert split(pieces, charset) == lines


def test_text_without_its_byte_order_mark_is_refused() -> None:
    with pytest.raises(HttpProtocolError, match=r"^the text is not utf-16: "):
        httpclient._Lines("utf-16").feed(b"ab")


def test_lines_replace_what_cannot_be_decoded() -> None:
    for pieces in slicings(b"a\xffb\n\xe2\x82"):
        assert split(pieces) == ["a\ufffdb", "\ufffd"]
    assert split([b"\xfc\n"], "latin-1") == ["\u00fc"]


def test_line_comes_when_its_end_has_come() -> None:
    """A lone CR is an end: nobody waits for the LF that may follow."""
    lines = httpclient._Lines("utf-8")
    assert [lines.feed(piece) for piece in (b"a", b"b\r", b"\nc", b"\n")] == [[], ["ab"], [], ["c"]]


def test_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """At MAX_LINE characters, in one piece, in many, and between others."""
    monkeypatch.setattr(httpclient, "MAX_LINE", 10)
    assert split([b"x" * 10 + b"\n" + b"y" * 10]) == ["x" * 10, "y" * 10]
    for pieces in ([b"x" * 11], [b"x"] * 11, [b"x" * 11 + b"\n"], [b"a\n" + b"x" * 11 + b"\nb\n"], [b"x" * 9, b"xx\n"]):
        with pytest.raises(HttpProtocolError, match="10 characters"):
            split(pieces)


# === Headers ===


def test_headers() -> None:
    """A mapping in any case; values of fields that came twice are joined; `.fields` has them as they came."""
    fields = [("Set-Cookie", "a"), ("X-Empty", ""), ("set-cookie", "b")]
    headers = Headers(fields)
    assert (headers["SET-COOKIE"], headers["x-empty"], headers.get("none"), headers.get("none", 5)) == (
        "a, b",
        "",
        None,
        5,
    )
    assert (list(headers), len(headers), "X-EMPTY" in headers, "none" in headers) == (
        ["set-cookie", "x-empty"],
        2,
        True,
        False,
    )
    assert headers.fields == fields
    assert dict(headers) == {"set-cookie": "a, b", "x-empty": ""} == headers
    assert headers != Headers(fields[:1])
    assert repr(headers) == "Headers(['set-cookie', 'x-empty'])"
    with pytest.raises(KeyError):
        headers["none"]


# === URLs ===

URLS: list[tuple[str, str, str, int, str, bytes | None]] = [
    # url, scheme, host, port, target, userinfo
    ("http://host", "http", "host", 80, "/", None),
    ("HTTPS://HOST/", "https", "host", 443, "/", None),
    ("http://host:8080/a/b?c=d", "http", "host", 8080, "/a/b?c=d", None),
    ("http://host:/", "http", "host", 80, "/", None),
    ("http://host:080/", "http", "host", 80, "/", None),
    ("http://host?q", "http", "host", 80, "/?q", None),
    ("http://host/#fragment?x", "http", "host", 80, "/", None),
    ("http://host/a%20b%zz", "http", "host", 80, "/a%20b%zz", None),
    ("http://host/\u00fc?\u00f6=\u65e5", "http", "host", 80, "/%C3%BC?%C3%B6=%E6%97%A5", None),
    ("http://host/a;b=c,d:e@f!g$h&i'j(k)l*m+n[o]", "http", "host", 80, "/a;b=c,d:e@f!g$h&i'j(k)l*m+n[o]", None),
    ('http://host/"<>^`{|}', "http", "host", 80, "/%22%3C%3E%5E%60%7B%7C%7D", None),
    ("http://host//evil.example/", "http", "host", 80, "//evil.example/", None),
    ("http://user:pass@host/", "http", "host", 80, "/", b"user:pass"),
    ("http://us%C3%A9r:p%40%3a%2F@host/", "http", "host", 80, "/", "us\u00e9r:p@:/".encode()),
    ("http://@host/", "http", "host", 80, "/", b""),
    ("http://good.example@evil.example/", "http", "evil.example", 80, "/", b"good.example"),
    ("http://a@b@host/", "http", "host", 80, "/", b"a@b"),
    ("http://a:80@host:81/", "http", "host", 81, "/", b"a:80"),
    ("http://host/@other/", "http", "host", 80, "/@other/", None),
    ("http://host?@other/", "http", "host", 80, "/?@other/", None),
    ("http://[::1]/", "http", "::1", 80, "/", None),
    ("http://[::1]:8080/", "http", "::1", 8080, "/", None),
    ("http://u@[2001:DB8::1]:8080/", "http", "2001:db8::1", 8080, "/", b"u"),
    ("http://[fe80::1%25eth0]/", "http", "fe80::1%eth0", 80, "/", None),
    ("http://127.0.0.1:1/", "http", "127.0.0.1", 1, "/", None),
    ("http://host:65535/", "http", "host", 65535, "/", None),
    ("http://m\u00fcnchen.example/", "http", "xn--mnchen-3ya.example", 80, "/", None),
    ("http://\u65e5\u672c.example/", "http", "xn--wgv71a.example", 80, "/", None),
    ("http://under_score.example./", "http", "under_score.example.", 80, "/", None),
]


@pytest.mark.parametrize(("url", "scheme", "host", "port", "target", "userinfo"), URLS, ids=plain_id)
def test_urls(url: str, scheme: str, host: str, port: int, target: str, userinfo: Any) -> None:
    parsed = httpclient._parse_url(url)
    assert (parsed.scheme, parsed.host, parsed.port, parsed.target, parsed.userinfo) == (
        *(scheme, host, port, target),
        userinfo,
    )


BAD_URLS = [
    *("", "host", "/path", "//host/", "host:80", "file:///etc/passwd", "ftp://host/", "ws://host/", "mailto:a@b.c"),
    *("http:", "http://", "http:///", "http:/host", "http://:80/", "http://@/", "http://user:pass@/", "http://?q"),
    *("http://host:0/", "http://host:65536/", "http://host:-1/", "http://host:+1/", "http://host:1_0/"),
    *("http://host:x/", "http://host:\uff18\uff10/", "http://host:80:80/", "http://host:99999999999999999999/"),
    *(
        "http://::1/",
        "http://[::1/",
        "http://::1]/",
        "http://[host]/",
        "http://[]/",
        "http://[::1]@/",
        "http://[v1.x]/",
    ),
    *("http://[::1]x/", "http://x[::1]/", "http://[::1]evil.example/", "http://[::1].evil.example:80/"),
    *("http://[::1%25]/", "http://a%20b/", "http://a%00b/", "http://a%2Fb/", "http://a%2eb/", "http://a%25b/"),
    *("http://a b/", "http://a\tb/", "http://a/ b", "http://a/\r\nX: y", "http://a/\n", "http://a/\0", "http://a\0/"),
    *("\x00http://a/", " http://a/", "http://a/ ", "http://a/\x7f", "http://a/\x1f", "http://a?\r", "http://a#\n"),
    *("http://a\\b/", "http://a/\\b", "http:\\\\a/", "http://a\\@b/", "http://good.example\\.evil.example/"),
    *("http://<a>/", "http://a,b/", "http://a;b/", 'http://a"b/', "http://a'b/", "http://a*b/", "http://{a}/"),
    *("http://a|b/", "http://a^b/", "http://a`b/", "http://a!b/", "http://a\uff0fb/", "http://\u2100.example/"),
    *("http://a..b/", "http://.a/", "http://./", "http://" + "x" * 64 + ".example/", "http://a../"),
    *("http://" + "\u00fc" * 64 + "/", "http://a\u3002\u3002b/", "http://\ud800/", "http://a/\ud800"),
]


@pytest.mark.parametrize("url", BAD_URLS, ids=plain_id)
def test_bad_urls(url: str) -> None:
    """ValueError that names the argument, before anything is looked up or sent."""
    with pytest.raises(ValueError, match=r"^url must") as caught:
        httpclient._parse_url(url)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("url", [None, 5, b"http://host/", ["http://host/"]])
def test_url_of_another_type(url: Any) -> None:
    with pytest.raises(TypeError, match=r"^url must be str, got "):
        httpclient._parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:s3cret@host:x/",
        "http://user:s3cret@host /",
        "ftp://user:s3cret@host/",
        "http://host:x/?token=s3cret#s3cret",
        "http://user:s3/cret@host:x/",
    ],
)
def test_bad_url_is_shown_without_secrets(url: str) -> None:
    with pytest.raises(ValueError, match=r"^url must") as caught:
        httpclient._parse_url(url)
    assert "s3" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=30), st.text(max_size=20).map("http://".__add__), st.text(max_size=20).map("http://h/".__add__)
    )
)
def test_any_text_is_a_url_or_a_value_error(url: str) -> None:
    """What comes through can be put into a request line and a Host field as it is."""
    try:
        parsed = httpclient._parse_url(url)
    except ValueError:
        return
    assert parsed.target.startswith("/")
    for part in (parsed.target, parsed.authority, parsed.host):
        assert part.isascii()
        assert part.isprintable()
        assert " " not in part


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://host/", "host"),
        ("http://host:80/", "host"),
        ("https://host:443/", "host"),
        ("http://host:443/", "host:443"),
        ("https://host:80/", "host:80"),
        ("http://[::1]/", "[::1]"),
        ("http://[::1]:81/", "[::1]:81"),
        ("http://[fe80::1%25eth0]:81/", "[fe80::1]:81"),
    ],
)
def test_authority(url: str, authority: str) -> None:
    """What stands in the Host field: no default port, no zone of ours."""
    parsed = httpclient._parse_url(url)
    assert parsed.authority == authority
    assert str(parsed) == f"{parsed.scheme}://{authority}/"


# === Redirects ===

FROM = "https://user:pass@host/a/b?q"
SENT = {
    "Accept": "x/y",
    "ACCEPT-LANGUAGE": "de",
    "Cache-Control": "no-cache",
    "Content-Type": "a/b",
    "User-Agent": "me",
    "Accept-Encoding": "identity",
    "X-Api-Key": "k3y",
    "Cookie": "c",
    "Last-Event-ID": "7",
    "Host": "virtual",
}


def redirect(location: str | None, status: int = 302, method: str = "GET", url: str = FROM) -> Any:
    body = b"body" if method in ("POST", "PUT", "PATCH") else None
    request = httpclient._make_request(method, url, SENT, body)
    headers = Headers([] if location is None else [("Location", location)])
    found = httpclient._locations(SimpleNamespace(status_code=status, headers=headers))
    return httpclient._redirect(request, status, found) if found else None


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://other/x", "https://other/x"),
        ("//other/x", "https://other/x"),
        ("/x", "https://host/x"),
        ("x", "https://host/a/x"),
        ("../x", "https://host/x"),
        ("../../../x", "https://host/x"),
        ("?x", "https://host/a/b?x"),
        ("", "https://host/a/b?q"),
        ("#fragment", "https://host/a/b?q"),
        ("x y", "https://host/a/x%20y"),
        ("\u00fc", "https://host/a/%C3%BC"),
        ("x%20y%C3%BC", "https://host/a/x%20y%C3%BC"),
        ("https://u:p@other/", "https://other/"),
        ("https://host:443/", "https://host/"),
        ("https://host:444/", "https://host:444/"),
        ("HTTPS://HOST/", "https://host/"),
    ],
)
def test_location(location: str, target: str) -> None:
    """Relative to where it came from; its userinfo is nobody's credentials."""
    following = redirect(location)
    assert str(following.url) == target
    assert following.url.userinfo is None


@pytest.mark.parametrize("status", [200, 204, 300, 304, 305, 306, 400])
def test_other_statuses_are_no_redirects(status: int) -> None:
    assert redirect("/x", status) is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_without_location_is_an_answer(status: int) -> None:
    assert redirect(None, status) is None


@pytest.mark.parametrize(
    "location",
    [
        *(
            "http://host/",
            "http://other/",
            "HTTP://host/",
            "ftp://host/",
            "file:///etc/passwd",
            "javascript:x",
            "data:,x",
        ),
        *(
            "//[",
            "https://[::1",
            "https://host:x/",
            "https://:443/",
            "https://a%00b/",
            "https://a\\b/",
            "https://h\\i/",
        ),
    ],
)
def test_refused_redirects(location: str) -> None:
    """To less than TLS, another scheme, or nothing that is a URL; the same request would fail again."""
    with pytest.raises(HttpProtocolError, match="redirect") as caught:
        redirect(location)
    assert caught.value.permanent
    assert not HttpProtocolError("x").permanent


def test_refused_redirect_shows_no_secret() -> None:
    for location in ("ftp://user:s3cret@host/?s3cret", "http://user:s3cret@host/?s3cret", "//user:s3cret@[?s3cret"):
        with pytest.raises(HttpProtocolError) as caught:
            redirect(location)
        assert "s3cret" not in str(caught.value)


def test_plain_may_redirect_to_plain_and_up() -> None:
    for location in ("http://other/", "https://other/"):
        assert str(redirect(location, url="http://host/").url) == location


@pytest.mark.parametrize(
    ("method", "status", "following", "repeated"),
    [
        *[("GET", status, "GET", False) for status in (301, 302, 303, 307, 308)],
        *[("HEAD", status, "HEAD", False) for status in (301, 302, 303, 307, 308)],
        *[("POST", status, "GET", False) for status in (301, 302, 303)],
        *[("POST", status, "POST", True) for status in (307, 308)],
        *[("PUT", status, "PUT", True) for status in (301, 302, 307, 308)],
        ("PUT", 303, "GET", False),
        ("DELETE", 303, "GET", False),
    ],
)
@pytest.mark.parametrize("location", ["/x", "https://other/x"])
def test_method_and_body_of_a_redirect(method: str, status: int, following: str, repeated: bool, location: str) -> None:
    """307 and 308 repeat both; the older ones turn a POST into a GET, as every client does."""
    request = redirect(location, status, method)
    assert (request.method, request.body) == (following, b"body" if repeated else None)
    if method != following:
        assert "Content-Type" not in request.headers


ORIGINS = ["https://other/", "https://host:444/", "https://sub.host/", "https://host.example/", "https://hos/"]


@pytest.mark.parametrize("location", ORIGINS)
def test_headers_for_another_origin(location: str) -> None:
    """Another host, port or scheme: only what cannot be a secret goes along, and our own Accept-Encoding."""
    headers = redirect(location, 307, "POST").headers
    assert headers == {
        "Accept": "x/y",
        "ACCEPT-LANGUAGE": "de",
        "Cache-Control": "no-cache",
        "Content-Type": "a/b",
        "User-Agent": "me",
        "Accept-Encoding": "identity",
    }
    assert redirect("https://host/", url="http://host/").headers.keys() == {*headers} - {"Content-Type"} | {
        "Content-Type"
    }


@pytest.mark.parametrize("location", ["/", "https://host/", "https://HOST:443/", "https://u:p@host/"])
def test_headers_within_the_origin(location: str) -> None:
    """All of them, credentials of the URL among them."""
    request = redirect(location, 307, "POST")
    assert request.headers.items() >= SENT.items()
    assert request.headers["Authorization"] == "Basic dXNlcjpwYXNz"


# === Routes ===


def route(url: str, proxy: Any = None) -> tuple[Any, ...]:
    """Where to connect to, the TLS name, the tunnel, whether the proxy gets the absolute URL, its credentials."""
    found = httpclient._route(httpclient._parse_url(url), proxy)
    return found.host, found.port, found.server_name, found.tunnel, found.absolute, found.authorization


PROXIED = ("proxy", 3128, None, None, True, None)
DIRECT = ("host", 80, None, None, False, None)


@pytest.mark.parametrize(
    ("url", "proxy", "expected"),
    [
        ("http://host/", None, DIRECT),
        ("http://host/", False, DIRECT),
        ("http://host/", "http://proxy:3128", PROXIED),
        ("http://host/", "proxy:3128", PROXIED),
        ("http://host/", "HTTP://proxy:3128/", PROXIED),
        ("http://host/", "http://proxy", ("proxy", 80, None, None, True, None)),
        ("http://host/", "http://u:p%40@proxy:3128", (*PROXIED[:5], "Basic dTpwQA==")),
        ("http://host/", "u:p@proxy:3128", (*PROXIED[:5], "Basic dTpw")),
        ("http://host/", "http://[::1]:3128", ("::1", 3128, None, None, True, None)),
        ("https://host/", None, ("host", 443, "host", None, False, None)),
        ("https://host/", "http://proxy:3128", ("proxy", 3128, "host", "host:443", False, None)),
        ("https://host:81/", "http://u@proxy:3128", ("proxy", 3128, "host", "host:81", False, "Basic dTo=")),
        ("https://[::1]/", "http://proxy:3128", ("proxy", 3128, "::1", "[::1]:443", False, None)),
        ("https://[fe80::1%25eth0]/", None, ("fe80::1%eth0", 443, "fe80::1", None, False, None)),
    ],
)
def test_routes(url: str, proxy: Any, expected: Any) -> None:
    """Plain requests go to the proxy whole, TLS goes through a tunnel."""
    assert route(url, proxy) == expected


@pytest.mark.parametrize(
    ("proxy", "kind", "text"),
    [
        ("socks5://proxy", ValueError, "transport="),
        ("SOCKS4A://proxy", ValueError, "transport="),
        ("https://proxy", ValueError, "transport="),
        ("", ValueError, "proxy"),
        ("http://", ValueError, "proxy"),
        ("proxy:x", ValueError, "proxy"),
        ("pro xy", ValueError, "proxy"),
        ("proxy\r\nX: y", ValueError, "proxy"),
        (True, TypeError, "proxy"),
        (5, TypeError, "proxy"),
        (b"http://proxy", TypeError, "proxy"),
    ],
)
def test_wrong_proxies(proxy: Any, kind: Any, text: str) -> None:
    """Refused when the transport is made; the text names the argument, and `transport=` where that helps."""
    for make in (httpclient.Transport, httpclient.AsyncTransport):
        with pytest.raises((TypeError, ValueError), match=text) as caught:
            make(proxy=proxy)
        assert caught.type is kind
        assert str(caught.value).startswith("proxy")


PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("url", "environment", "proxied"),
    [
        ("http://host/", {"http_proxy": PROXY}, True),
        ("http://host/", {"HTTP_PROXY": PROXY}, True),
        ("http://host/", {"Http_Proxy": PROXY}, True),
        ("http://host/", {"http_proxy": "proxy:3128"}, True),
        ("http://host/", {"https_proxy": PROXY}, False),
        ("http://host/", {"all_proxy": PROXY}, True),
        ("http://host/", {"ALL_PROXY": PROXY}, True),
        ("http://host/", {"all_proxy": "socks5://other", "http_proxy": PROXY}, True),
        ("http://host/", {"http_proxy": ""}, False),
        ("http://host/", {"ftp_proxy": PROXY}, False),
        ("http://host/", {"HTTP_PROXY": PROXY, "http_proxy": ""}, False),
        ("http://host/", {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, False),
        ("https://host/", {"https_proxy": PROXY}, True),
        ("https://host/", {"http_proxy": PROXY}, False),
        ("https://host/", {"all_proxy": PROXY}, True),
    ],
    ids=plain_id,
)
def test_proxy_of_the_environment(url: str, environment: Any, proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By scheme, in lower or upper case; `proxy=False` and a URL come before it. REQUEST_METHOD: a CGI script, where
    HTTP_PROXY is whatever the client's `Proxy:` header says.
    """
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (route(url)[0] == "proxy") == proxied
    assert route(url, False)[0] == "host"
    assert route(url, "http://mine")[0] == "mine"


@pytest.mark.parametrize(
    ("no_proxy", "url", "proxied"),
    [
        ("*", "http://host/", False),
        ("", "http://host/", True),
        ("host", "http://host/", False),
        ("HOST", "http://host/", False),
        ("other", "http://host/", True),
        ("other, host ,more", "http://host/", False),
        ("host", "http://sub.host/", False),
        (".host", "http://sub.host/", False),
        ("host", "http://nothost/", True),
        ("sub.host", "http://host/", True),
        ("host:80", "http://host/", False),
        ("host:81", "http://host:81/", False),
        ("host:81", "http://host/", True),
        ("host", "http://host:81/", False),
        ("127.0.0.1", "http://127.0.0.1:8000/", False),
        ("127.0.0.1", "http://127.0.0.2/", True),
        ("::1", "http://[::1]/", False),
        ("::1", "http://[::1]:8000/", False),
        ("[::1]", "http://[::1]:8000/", False),
        ("host,[::1]", "http://[::1]/", False),
        ("[::1]:8000", "http://[::1]:8000/", False),
        ("::1", "http://[::2]/", True),
        ("host", "https://host/", False),
    ],
)
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_no_proxy(no_proxy: str, url: str, proxied: bool, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names with what is below them, with or without port, addresses, brackets, and `*` for all."""
    monkeypatch.setenv("all_proxy", PROXY)
    monkeypatch.setenv(name, no_proxy)
    assert (route(url)[0] == "proxy") == proxied
    assert route(url, PROXY)[0] == "proxy"  # what is asked for explicitly has no exceptions


def test_proxy_of_the_environment_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, not passed over: a request that avoids the proxy may be what must not happen."""
    monkeypatch.setenv("all_proxy", "socks5://user:s3cret@proxy:1080")
    with pytest.raises(ValueError, match="transport=") as caught:
        route("http://host/")
    assert "s3cret" not in str(caught.value)
