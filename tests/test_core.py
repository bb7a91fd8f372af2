"""What both clients decide, as tables: options, requests, verdicts, waits, ends. No socket, no sleep: scripted.py."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gc
import http.client
import inspect
import itertools
import logging
import ssl
import sys
import threading
import time
import types
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import httpclient
import sse
from helpers import plain_id
from scripted import TWINS, URL, Answer, Over, Played, make, play, run

NAN, INF = float("nan"), float("inf")
CLIENTS = [sse.SSEClient, sse.AsyncSSEClient]


@pytest.fixture(params=TWINS)
def twin(request: pytest.FixtureRequest) -> Any:
    """The blocking client, then the async one."""
    return request.param


def event(id: object, data: object = None) -> str:
    return f"id: {id}\ndata: {id if data is None else data}\n\n"


class Boom(Exception):  # noqa: N818
    """Raised by callbacks."""


# === Options ===

WRONG: list[tuple[str, type[Exception], list[Any]]] = [
    ("url", TypeError, [5, None, b"http://host/"]),
    (
        "url",
        ValueError,
        ["", "host", "//host/", "ftp://host/", "http://", "http:///path", "http://:80/", "http://[::1"],
    ),
    ("url", ValueError, ["http://host:0/", "http://host:65536/", "http://host:x/", "http://host:-1/", "mailto:a@b"]),
    ("url", ValueError, ["http://host/a b", "http://host/\n", "http://ho\tst/", "http://host/\x7f", " http://host/"]),
    ("method", TypeError, [5, b"GET", True]),
    ("method", ValueError, ["", "GET ", "G T", "GET\r\nX: y", "GÉT"]),
    ("headers", TypeError, [5, "a: b", [("a", "b")], {"a": 5}, {"a": None}, {"a": b"b"}, {5: "a"}]),
    ("headers", ValueError, [{"": "b"}, {"a b": "c"}, {"a:": "b"}, {"a\n": "b"}, {"ä": "b"}]),
    ("headers", ValueError, [{"a": "b\r"}, {"a": "b\nc"}, {"a": "\0"}]),
    ("body", TypeError, [5, ["x"], {"a": "b"}, bytearray(b"x")]),
    ("params", TypeError, [5, "a=b", True]),
    ("timeout", TypeError, ["5", True, [1, 2], (), (1,), (1, 2, 3), (1, "2"), (True, 1)]),
    ("timeout", ValueError, [0, -1, -0.5, NAN, sse.MAX_RETRY, (0, 1), (1, -1), (NAN, None)]),
    ("heartbeat_timeout", TypeError, ["5", True, (1, 2)]),
    ("heartbeat_timeout", ValueError, [0, -1, NAN]),
    ("retry_interval", TypeError, ["5", None, True]),
    ("retry_interval", ValueError, [-1, NAN, INF, 60_001]),
    ("max_retry_interval", TypeError, ["5", None, True]),
    ("max_retry_interval", ValueError, [-1, NAN, INF, 2**31]),
    ("backoff", TypeError, ["2", None, True]),
    ("backoff", ValueError, [0.9, 0, -1, NAN, INF]),
    ("jitter", TypeError, ["0.1", None, True]),
    ("jitter", ValueError, [-0.1, 1.1, NAN]),
    ("max_retries", TypeError, [1.0, "1", None, True]),
    ("max_retries", ValueError, [-2]),
    ("reconnect", TypeError, [1, "yes"]),
    ("retry_statuses", TypeError, [503, None, True, ["503"], "503", [503.0], [True], [[503]]]),
    ("retry_statuses", ValueError, [[99], [600], [503, 200]]),
    ("last_event_id", TypeError, [5, None, b"x"]),
    ("last_event_id", ValueError, ["a\n", "\r", "a\0b"]),
    ("until", TypeError, [5, b"[DONE]", True]),
    ("check_content_type", TypeError, [1, None, "yes"]),
    ("max_event_size", TypeError, ["5", 1.5, True]),
    ("max_event_size", ValueError, [0, -1]),
    ("verify", TypeError, [None, 1, "ca.pem"]),
    ("proxy", TypeError, [5, b"http://proxy/"]),
    ("proxy", ValueError, [True, "socks5://proxy:1080", "https://proxy/", "http://", "http://a b/", "http://proxy:x"]),
    ("on_open", TypeError, [5, "f"]),
    ("on_reconnect", TypeError, [5, "f"]),
    ("on_comment", TypeError, [5, "f"]),
    ("transport", TypeError, [5, "f"]),
]


@pytest.mark.parametrize(
    ("option", "kind", "value"),
    [
        pytest.param(option, kind, value, id=plain_id(f"{option}-{value!a}"))
        for option, kind, values in WRONG
        for value in values
    ],
)
@pytest.mark.parametrize("client", CLIENTS)
def test_wrong_argument_is_named_and_shown(client: Any, option: str, kind: Any, value: Any) -> None:
    """TypeError for a wrong type, ValueError for a wrong value; never a header's value, a body or a query."""
    with pytest.raises((TypeError, ValueError)) as caught:
        client(**{"url": "http://host/", option: value})
    assert caught.type is kind
    assert str(caught.value).startswith(option)
    if option not in ("headers", "body", "params", "url"):  # which carry secrets
        shown = [value, *value] if isinstance(value, (list, tuple, str)) else [value]
        assert str(caught.value).endswith(tuple(f"got {part!r}" for part in shown)) or option == "proxy"


def test_every_option_has_its_wrong_values() -> None:
    """The table above leaves no option out; `json` may be anything that JSON can say."""
    assert {option for option, _, _ in WRONG} == {*inspect.signature(sse.SSEClient).parameters} - {"json"}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"X-Key": "s3cret\n"}},
        {"headers": {"X-Key": ["s3cret"]}},
        {"headers": [("X-Key", "s3cret")]},
        {"headers": "X-Key: s3cret"},
        {"body": ["s3cret"]},
        {"body": "s3cret", "json": "s3cret"},
        {"json": {"s3cret"}},
        {"params": "token=s3cret"},
        {"params": ["s3cret"]},
        {"url": "http://user:s3cret@host:x/"},
        {"url": "http://host/ ?token=s3cret"},
        {"url": "http://user:s3cret@host/ #s3cret"},
        {"proxy": "http://user:s3cret@proxy:x/"},
        {"proxy": "user:s3cret@proxy:x/"},
        {"proxy": "socks5://user:s3cret@proxy/"},
        {"verify": 5, "headers": {"X-Key": "s3cret"}},
    ],
    ids=plain_id,
)
def test_secrets_in_wrong_arguments_are_not_shown(client: Any, options: dict[str, Any]) -> None:
    """Whoever logs the error must not log a key."""
    with pytest.raises((TypeError, ValueError)) as caught:
        client(**{"url": "http://host/", **options})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"headers": [("a", "b")]}, "headers must be a mapping or a function that returns one, got list"),
        ({"timeout": 0}, "timeout must be seconds > 0, a pair of them, or None, got 0"),
        ({"retry_statuses": [99]}, "retry_statuses must be statuses from 300 to 599, got 99"),
        ({"url": 5}, "url must be str, got int"),
        (
            {"url": "us\ner:s3cret@host/?q"},
            "url must be an http or https URL without spaces, control characters and backslashes, got '...@host/'",
        ),
    ],
    ids=plain_id,
)
@pytest.mark.parametrize("client", CLIENTS)
def test_wrong_argument_is_told_what_is_right(client: Any, options: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        client(**{"url": "http://host/", **options})
    assert str(caught.value) == text


def test_certificates_are_verified_by_default(twin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport is made with it, and with the proxy of the environment."""
    client, transport = (sse.SSEClient, "Transport") if twin == "sync" else (sse.AsyncSSEClient, "AsyncTransport")
    made: list[Any] = []
    monkeypatch.setattr(httpclient, transport, lambda *args: made.append(args))
    client("http://host/")
    assert made == [(True, None)]


@pytest.mark.parametrize("client", CLIENTS)
def test_json_that_json_cannot_say_is_named(client: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^json"):
        client("http://host/", json={1, 2})
    with pytest.raises(ValueError, match="json and body"):
        client("http://host/", json={}, body="")


@pytest.mark.parametrize("client", CLIENTS)
def test_retry_interval_must_fit_under_its_cap(client: Any) -> None:
    """The default does not escape the rule, and the text shows both numbers."""
    with pytest.raises(ValueError, match=r"^retry_interval .*max_retry_interval=1000, got 3000$"):
        client("http://host/", max_retry_interval=1000)
    assert client("http://host/", max_retry_interval=1000, retry_interval=1000).retry_interval == 1000


RIGHT: list[dict[str, Any]] = [
    {"timeout": None},
    {"timeout": 0.5},
    {"timeout": (None, 1)},
    {"timeout": (1, None)},
    {"heartbeat_timeout": 0.1},
    {"retry_interval": 0, "max_retry_interval": 0},
    {"retry_interval": 0.5},
    {"backoff": 1},
    {"jitter": 0},
    {"jitter": 1},
    {"max_retries": 0},
    {"retry_statuses": range(500, 600)},
    {"retry_statuses": sse.TRANSIENT},
    {"retry_statuses": iter([503])},
    {"retry_statuses": [300, 599]},
    {"until": ""},
    {"max_event_size": None},
    {"max_event_size": 1},
    {"verify": False},
    {"verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)},
    {"proxy": False},
    {"proxy": "http://user:pass@proxy:8080"},
    {"proxy": "proxy:8080"},
    {"headers": types.MappingProxyType({"a": ""})},
    {"headers": {"a": "X"}},
    {"params": {}},
    {"params": types.MappingProxyType({"a": "b"})},
    {"body": ""},
    {"json": ""},
    {"method": "patch"},
    {"last_event_id": "ü\t\u2028"},
]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("options", RIGHT, ids=",".join)  # str() would show addresses
def test_bounds_are_allowed(client: Any, options: dict[str, Any]) -> None:
    """Values at the edge of what is right construct a client, without I/O."""
    made = client("HTTP://host", **options)
    assert (made.response, made.stats.connects) == (None, 0)


# === Requests ===

DEFAULTS = {
    "Accept": "text/event-stream",
    "Cache-Control": "no-cache",
    "User-Agent": f"stdsse/{sse.__version__}",
    "Accept-Encoding": "identity",
}
BASIC = "Basic " + base64.b64encode(b"user:p4ss").decode()


def first_request(twin: str, url: str = "http://host/", **options: Any) -> sse.Request:
    played = play(twin, [], url=url, **{"reconnect": False, **options})
    assert played.error is None
    (request,) = played.requests
    return request


def test_default_request(twin: str) -> None:
    """GET, the four headers, no body; the transport is given `timeout` as it is."""
    assert first_request(twin) == sse.Request("GET", "http://host/", DEFAULTS, None)
    for timeout in (30.0, 5, None, (1, None)):
        options = {} if timeout == 30.0 else {"timeout": timeout}
        assert play(twin, [], reconnect=False, **options).timeouts == [timeout]


@pytest.mark.parametrize(
    ("options", "method", "body", "content_type"),
    [
        ({}, "GET", None, None),
        ({"method": "put"}, "PUT", None, None),
        ({"body": "ü"}, "POST", "ü".encode(), None),
        ({"body": b"\0\xff"}, "POST", b"\0\xff", None),
        ({"body": ""}, "POST", b"", None),
        ({"json": {"a": ["ü", 1]}}, "POST", b'{"a": ["\\u00fc", 1]}', "application/json"),
        ({"json": ""}, "POST", b'""', "application/json"),
        ({"json": 0}, "POST", b"0", "application/json"),
        ({"json": False, "method": "GET"}, "GET", b"false", "application/json"),
        ({"json": [], "headers": {"content-TYPE": "x/y"}}, "POST", b"[]", "x/y"),
    ],
    ids=plain_id,
)
def test_method_and_body(twin: str, options: Any, method: str, body: Any, content_type: Any) -> None:
    """POST when there is a body, unless told otherwise; JSON brings its content type, which a header replaces."""
    request = first_request(twin, **options)
    assert (request.method, request.body) == (method, body)
    assert {k.lower(): v for k, v in request.headers.items()}.get("content-type") == content_type
    assert ("Content-Type" in request.headers) == (content_type == "application/json")


@pytest.mark.parametrize(
    ("url", "params", "expected"),
    [
        ("http://host", None, "http://host"),
        ("http://host/?a=1", {"b": "ü &", "c": 2}, "http://host/?a=1&b=%C3%BC+%26&c=2"),
        ("http://host/p", {"a": [1, 2]}, "http://host/p?a=1&a=2"),
        ("http://host/p?a", {}, "http://host/p?a"),
        ("http://host/p#fragment", {"a": "b"}, "http://host/p?a=b"),
        ("http://user:p4ss@host:81/p?q", None, "http://host:81/p?q"),
        ("https://a@b@host/", None, "https://host/"),
        ("http://[::1]:8000/", {"a": ""}, "http://[::1]:8000/?a="),
    ],
)
def test_url_and_params(twin: str, url: str, params: Any, expected: str) -> None:
    """`params` join the query, userinfo and fragment do not go out; the caller's mapping is left alone."""
    before = dict(params or {})
    played = make(twin, [], url=url, params=params, reconnect=False)
    assert played.client.url == expected
    assert run(played).requests[0].url == expected
    assert before == (params or {})


@pytest.mark.parametrize(
    ("userinfo", "credentials"),
    [
        ("user:p4ss", b"user:p4ss"),
        ("us%C3%A9r:p%40%3A", "usér:p@:".encode()),
        ("user", b"user:"),
        (":x", b":x"),
        ("", b":"),
    ],
)
def test_userinfo_becomes_basic_auth(twin: str, userinfo: str, credentials: bytes) -> None:
    """Percent-decoded to bytes; an own header takes its place."""
    url = f"http://{userinfo}@host/"
    assert first_request(twin, url).headers["Authorization"] == "Basic " + base64.b64encode(credentials).decode()
    mine = first_request(twin, url, headers={"authorization": "Bearer t"}).headers
    assert {k: v for k, v in mine.items() if k.lower() == "authorization"} == {"authorization": "Bearer t"}
    assert "Authorization" not in first_request(twin, "http://host/?a@b").headers


@pytest.mark.parametrize("name", [*DEFAULTS, "Last-Event-ID"])
@pytest.mark.parametrize("change", [str.upper, str.lower, str.swapcase])
def test_own_header_replaces_the_default_in_any_case(twin: str, name: str, change: Any) -> None:
    """One header of a name goes out, the user's, as the user writes it."""
    headers = {change(name): "mine"}
    sent = first_request(twin, headers=headers, last_event_id="theirs").headers
    assert {k: v for k, v in sent.items() if k.lower() == name.lower()} == {change(name): "mine"}
    assert len(sent) == 5
    assert headers == {change(name): "mine"}


def last_event_ids(played: Played) -> list[str | None]:
    return [request.headers.get("Last-Event-ID") for request in played.requests]


def test_last_event_id_follows_the_stream(twin: str) -> None:
    """Only when non-empty; the id of the last finished block, with or without data; an empty id takes it back."""
    played = play(
        twin,
        *(["data: x\n\n"], [event("a")], ["id: b\n\n"], ["id: c\ndata: unfinished"], [event("ünïcode")]),
        *(["id: with\0nul\ndata: x\n\n"], ["id\ndata: x\n\n"], []),
    )
    assert played.over
    assert last_event_ids(played) == [None, None, "a", "b", "b", "ünïcode", "ünïcode", None, None]


def test_given_last_event_id_is_where_it_begins(twin: str) -> None:
    """`last_event_id=` goes out until the stream has one; so does a header of the user's, which never turns back."""
    played = play(twin, [], [event("b")], [], last_event_id="a")
    assert last_event_ids(played) == ["a", "a", "b", "b"]
    played = play(twin, [], [event("b")], [], headers={"last-event-id": "mine"}, last_event_id="a")
    assert [{k.lower(): v for k, v in r.headers.items()}["last-event-id"] for r in played.requests] == [
        *("mine", "mine", "b", "b")
    ]
    headers = {"Last-Event-ID": "mine", "X-Key": "k"}
    played = play(twin, [event("b")], headers=headers)
    assert [request.headers["X-Key"] for request in played.requests] == ["k", "k"]


def test_unfinished_block_does_not_move_the_last_event_id(twin: str) -> None:
    """An `id` whose block was cut off does not count, with `until` neither: its event would be lost."""
    cut = [event(1) + "id: 2\nretry: 7\ndata: half"]
    for options in ({}, {"until": "[DONE]"}):
        played = play(twin, cut, [event(2)], most=2, **options)
        assert played.events == ["1", "2"]
        assert last_event_ids(played) == [None, "1"]


def test_header_function_is_called_before_every_connection(twin: str) -> None:
    """Fresh tokens, which replace defaults too; in the async client the function may return an awaitable."""
    tokens = iter("abc")

    def headers() -> dict[str, str]:
        return {"authorization": next(tokens), "accept": "x/y"}

    async def awaitable() -> dict[str, str]:
        return headers()

    for function in [headers, awaitable] if twin == "async" else [headers]:
        tokens = iter("abc")
        played = play(twin, [], TimeoutError(), headers=function)
        assert [request.headers["authorization"] for request in played.requests] == ["a", "b", "c"]
        assert all("Authorization" not in request.headers for request in played.requests)
        assert all(request.headers["accept"] == "x/y" for request in played.requests)


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        (lambda: {"a": "s3cret\n"}, ValueError),
        (lambda: {"a b": "s3cret"}, ValueError),
        (lambda: "s3cret", TypeError),
        (lambda: {"a": 5}, TypeError),
        (lambda: None, TypeError),
    ],
)
def test_wrong_headers_of_a_function_end_the_client(twin: str, headers: Any, kind: Any) -> None:
    """A bad header is never retried, nor shown, and nothing goes out."""
    played = play(twin, [], headers=headers)
    assert type(played.error) is kind
    assert str(played.error).startswith("headers")
    assert "s3cret" not in str(played.error)
    assert played.requests == played.waits == []


# === Verdicts ===


@pytest.mark.parametrize(
    ("status", "content_type", "options", "verdict"),
    [
        (200, "text/event-stream", {}, "stream"),
        (200, "Text/Event-Stream", {}, "stream"),
        (200, "text/event-stream;charset=utf-8", {}, "stream"),
        (200, "text/event-stream ; x", {}, "stream"),
        (201, "text/event-stream", {}, "stream"),
        (299, "text/event-stream", {}, "stream"),
        (204, "text/event-stream", {}, "end"),
        (204, None, {}, "end"),
        (204, "text/html", {}, "end"),
        (204, None, {"max_retries": 0}, "end"),
        (204, None, {"until": "[DONE]"}, "end"),
        (205, None, {}, sse.SSEContentTypeError),
        (200, "text/html", {}, sse.SSEContentTypeError),
        (200, None, {}, sse.SSEContentTypeError),
        (200, "", {}, sse.SSEContentTypeError),
        (200, "text/event-stream-not", {}, sse.SSEContentTypeError),
        (200, "application/text/event-stream", {}, sse.SSEContentTypeError),
        (200, "text/html; x=text/event-stream", {}, sse.SSEContentTypeError),
        (200, "text/html", {"check_content_type": False}, "stream"),
        (200, None, {"check_content_type": False}, "stream"),
        (200, "text/html", {"retry_statuses": sse.TRANSIENT}, sse.SSEContentTypeError),
        (199, "text/event-stream", {}, sse.SSEHTTPError),
        (300, "text/event-stream", {}, sse.SSEHTTPError),
        (304, "text/event-stream", {"check_content_type": False}, sse.SSEHTTPError),
        (404, "text/html", {}, sse.SSEHTTPError),
        (503, "text/event-stream", {}, sse.SSEHTTPError),
        (503, None, {"retry_statuses": (500, 502)}, sse.SSEHTTPError),
        (503, None, {"retry_statuses": (503,)}, "again"),
        (503, None, {"retry_statuses": (503,), "reconnect": False}, sse.SSEHTTPError),
        (503, None, {"retry_statuses": (503,), "body": "x"}, sse.SSEHTTPError),
        (503, None, {"retry_statuses": (503,), "body": "x", "reconnect": True}, "again"),
        (503, None, {"retry_statuses": (503,), "max_retries": 0}, sse.SSEConnectionError),
    ],
)
def test_verdict_on_a_response(twin: str, status: int, content_type: Any, options: Any, verdict: Any) -> None:
    """The stream, the end of the loop, an error for good, or one that passes; the status is judged first."""
    opened: list[Any] = []
    answer = Answer("data: x\n\n", status=status, content_type=content_type)
    played = play(twin, answer, most=1, on_open=opened.append, **options)
    assert answer.closed
    assert played.events == (["x"] if verdict == "stream" else [])
    assert played.client.stats.connects == len(opened) == (verdict == "stream")
    assert len(played.waits) == (verdict == "again")
    if verdict in ("stream", "end"):
        assert played.error is None
    elif verdict == "again":
        assert played.over
    else:
        assert type(played.error) is verdict


@pytest.mark.parametrize("name", ["content-type", "Content-Type", "CONTENT-TYPE"])
def test_header_names_of_any_transport_match_in_any_case(twin: str, name: str) -> None:
    """Also where a transport's headers are a plain dict."""
    answer = Answer("data: x\n\n", content_type=None, headers={name: "text/event-stream"})
    assert play(twin, answer, most=1).events == ["x"]


def test_refused_answer_tells_what_it_was(twin: str) -> None:
    """Status, headers, type, where it came from after redirects, and the body as text."""
    page = ["Inv\u00e4lid ".encode()[:4], "Inv\u00e4lid ".encode()[4:], b"\xff key"]
    headers = {"X-Request-Id": "abc"}
    error: Any = play(twin, Answer(*page, status=401, headers=headers, url="http://other/?q")).error
    assert (error.status_code, error.url, error.body) == (401, "http://other/?q", "Inv\u00e4lid \ufffd key")
    assert error.headers["X-Request-Id"] == "abc"
    error = play(twin, Answer(*page, content_type="text/HTML; x")).error
    assert (error.content_type, error.url) == ("text/HTML; x", URL.replace("user:p4ss@", ""))
    assert error.body == "Inv\u00e4lid \ufffd key"
    assert play(twin, Answer(content_type=None)).error.content_type == ""  # type: ignore[union-attr]


@pytest.mark.parametrize("broken", [ConnectionResetError(), httpclient.HttpProtocolError("bad"), KeyError("x")])
def test_broken_body_of_a_refused_answer_is_kept_up_to_there(twin: str, broken: Exception) -> None:
    """What has come is better than nothing; the verdict stands."""
    error: Any = play(twin, Answer("half", broken, "never", status=500)).error
    assert (type(error), error.body) == (sse.SSEHTTPError, "half")


def test_long_body_of_a_refused_answer_is_cut(twin: str) -> None:
    """At 64 KiB, also within one chunk and within a character, and no more is read than it takes."""
    read: list[int] = []
    chunks: list[Any] = ["x" * 40_000, lambda _: read.append(1), "y" * 40_000, lambda _: read.append(2), "z"]
    error: Any = play(twin, Answer(*chunks, status=500)).error
    assert error.body == "x" * 40_000 + "y" * 25_536
    assert read == [1]
    play(twin, Answer("x" * 65_536, lambda _: read.append(3), "z", status=500))
    assert read == [1]
    error = play(twin, Answer(b"x" * 65_535 + "ü".encode() * 1000, status=500)).error
    assert error.body == "x" * 65_535 + "\ufffd"


@pytest.mark.parametrize("timeout", [None, 5, (None, 5), (5, None)], ids=str)
def test_body_of_a_refused_answer_is_read_under_any_timeout(twin: str, timeout: Any) -> None:
    error: Any = play(twin, Answer("why", status=500), timeout=timeout).error
    assert error.body == "why"


@pytest.mark.parametrize("timeout", [30, (1, 30)], ids=str)
@pytest.mark.parametrize(("drops", "body", "waited"), [([29.5, 1, 1], "29.5 1 ", [30, 0.5]), ([30, 1], "30 ", [30])])
def test_body_of_a_refused_answer_has_the_time_of_a_head(
    twin: str, timeout: Any, drops: Any, body: str, waited: list[float]
) -> None:
    """It may come in drops: when the time is up, what has come is enough. No drop is waited for longer than that."""
    played = make(twin, timeout=timeout)
    seconds_left: list[float] = []
    script = iter(drops)

    async def next_chunk(left: float) -> bytes | None:
        seconds_left.append(left)
        seconds = next(script, None)
        if seconds is None:
            return None
        played.now += seconds
        return f"{seconds} ".encode()

    played.client._next_chunk = next_chunk
    assert asyncio.run(played.client._error_body()).decode() == body
    assert seconds_left == waited


# === Waits ===


def waits(twin: str, *answers: Any, **options: Any) -> list[float]:
    """The waits in ms that a script brings, up to its end."""
    played = play(twin, *answers, **options)
    assert played.over
    return [pytest.approx(wait * 1000) for wait in played.waits]


EMPTY: list[str] = []
ONE = [event(1)]


@pytest.mark.parametrize(
    ("answers", "options", "expected"),
    [
        ([EMPTY] * 5, {}, [3000, 4500, 6750, 10125, 15187.5]),
        ([EMPTY] * 4, {"retry_interval": 1000, "backoff": 2}, [1000, 2000, 4000, 8000]),
        ([EMPTY] * 3, {"retry_interval": 1000, "backoff": 1}, [1000, 1000, 1000]),
        ([EMPTY] * 4, {"retry_interval": 0, "backoff": 2}, [0, 200, 400, 800]),
        ([EMPTY] * 3, {"retry_interval": 50, "backoff": 2}, [50, 200, 400]),
        ([EMPTY] * 3, {"retry_interval": 0, "backoff": 1}, [0, 100, 100]),
        ([EMPTY] * 3, {"retry_interval": 0, "max_retry_interval": 0}, [0, 0, 0]),
        ([EMPTY] * 3, {"retry_interval": 0, "max_retry_interval": 40}, [0, 40, 40]),
        ([EMPTY] * 4, {"max_retry_interval": 5000}, [3000, 4500, 5000, 5000]),
        ([ONE] * 3, {}, [3000, 3000, 3000]),
        ([EMPTY, EMPTY, ONE, EMPTY, EMPTY], {}, [3000, 4500, 3000, 4500, 6750]),
        ([EMPTY, [": comment\n\n"], ["id: 1\n\n"], ["data: half"]], {}, [3000, 4500, 6750, 10125]),
        ([["retry: 10\n"], EMPTY, ["retry: 20\n\n"]], {}, [10, 150, 225]),
        ([["retry: 10\n", event(1)], ONE, ["retry: 40\n", event(2)]], {}, [10, 10, 40]),
        ([["retry: 99999999999999999999\n\n"]] * 2, {}, [60_000, 60_000]),
        ([[f"retry: {'9' * 5000}\n\n"]], {"max_retry_interval": 2**31 - 1}, [2**31 - 1]),
        ([["retry: 0\n", event(1)], ONE, EMPTY, EMPTY], {}, [0, 0, 150, 225]),
        ([TimeoutError(), OSError(), EMPTY], {}, [3000, 4500, 6750]),
    ],
)
def test_waits(twin: str, answers: Any, options: Any, expected: Any) -> None:
    """The interval first, then multiplied for each failure in a row from 100 ms at least, up to the cap."""
    assert waits(twin, *answers, **options) == expected


def test_next_opening_is_due_after_the_wait(twin: str) -> None:
    """Which the played clock has jumped over."""
    due: list[bool] = []
    played = make(twin, EMPTY, EMPTY, on_reconnect=lambda *_: due.append(played.client._due == played.now))
    run(played)
    assert due == [True, True]


def busy(retry_after: str | None = None) -> Answer:
    return Answer(status=503, headers={} if retry_after is None else {"retry-after": retry_after})


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([busy()] * 2, [3000, 4500]),
        ([busy("7")], [7000]),
        ([busy("0")], [3000]),
        ([busy("1")], [3000]),
        ([busy("7"), busy("7"), busy("7"), busy("7")], [7000, 7000, 7000, 10125]),
        ([busy("61")], [60_000]),
        ([busy("9" * 5000)], [60_000]),
        ([busy("-7")], [3000]),
        ([busy("7.5")], [3000]),
        ([busy("\uff17")], [3000]),
        ([busy("")], [3000]),
        ([busy("soon")], [3000]),
        ([busy("Sun, 06 Nov 1994 08:49:37 GMT")], [3000]),
        ([busy("Sun, 06 Foo 1994 08:49:37 GMT")], [3000]),
        ([busy("Fri, 31 Dec 9999 23:59:59 GMT")], [60_000]),
        ([busy("7"), EMPTY], [7000, 4500]),
    ],
)
def test_retry_after(twin: str, answers: Any, expected: Any) -> None:
    """Seconds or an HTTP date, never less than the wait would be, never above the cap; nonsense is ignored."""
    assert waits(twin, *answers, retry_statuses=sse.TRANSIENT) == expected


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"])
def test_retry_after_in_every_form_of_date(twin: str, zone: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9110 section 5.6.7 has three, all of them GMT, wherever the client is."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        after = time.strftime(form, time.gmtime(time.time() + 40))
        (wait,) = play(twin, busy(after), retry_statuses=sse.TRANSIENT).waits
    finally:
        monkeypatch.undo()
        time.tzset()
    assert 30 < wait <= 40


def test_retry_after_may_name_its_zone(twin: str) -> None:
    """Not HTTP, but there is no doubt what is meant."""
    for zone, offset in (("+0200", 7200), ("-0130", -5400)):
        after = time.strftime("%a, %d %b %Y %H:%M:%S ", time.gmtime(time.time() + 40 + offset)) + zone
        (wait,) = play(twin, busy(after), retry_statuses=sse.TRANSIENT).waits
        assert 30 < wait <= 40


def test_retry_after_counts_only_for_statuses_to_retry(twin: str) -> None:
    """On a stream it means nothing."""
    answer = Answer(event(1), headers={"Retry-After": "50"})
    assert waits(twin, answer) == [3000]


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("7", 7000),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 7000),
        ("Sun, 06 Nov 1994 10:49:37 +0200", 7000),
        ("soon", 0),
        ("", 0),
        ("Sun, 06 Nov 99999 08:49:37 GMT", 0),
    ],
)
def test_retry_after_to_the_second(value: str, ms: int) -> None:
    """What cannot be read is as good as no header."""
    assert sse._retry_after_ms(value, 784111770.0) == ms


@pytest.mark.parametrize(
    ("jitter", "chance", "expected"),
    [(0.1, 0.0, 1000), (0.1, 1.0, 1100), (0.1, 0.5, 1050), (1, 0.75, 1750), (0, 1.0, 1000)],
)
def test_jitter_is_only_ever_added(twin: str, jitter: float, chance: float, expected: float) -> None:
    """Up to that fraction, on top of whatever the wait is, also of the cap."""
    played = make(twin, EMPTY, EMPTY, jitter=jitter, retry_interval=1000, max_retry_interval=1000)
    played.client._random = lambda: chance
    assert run(played).waits == [pytest.approx(expected / 1000)] * 2


def test_jitter_is_random(twin: str) -> None:
    """Within its bounds, and not the same for all."""
    found = {wait for _ in range(5) for wait in play(twin, *[ONE] * 5, jitter=0.1).waits}
    assert len(found) > 20
    assert all(3.0 <= wait <= 3.3 for wait in found)


@pytest.mark.parametrize("failures", [1000, 5000, 10**6])
@pytest.mark.parametrize("options", [{}, {"backoff": 1e300}, {"backoff": 10**9}, {"retry_interval": 0}], ids=str)
def test_wait_after_thousands_of_failures_is_the_cap(twin: str, failures: int, options: Any) -> None:
    """A night without network overflows nothing."""
    played = make(twin, EMPTY, **options)
    played.client._failures = failures
    assert run(played).waits == [60.0]


def test_interval_in_force_can_be_read(twin: str) -> None:
    """The option, then the server's, never above the cap."""
    played = make(twin, ["retry: 10\n"], ["retry: 99999999\n"], ["retry: +5\n"], retry_interval=1500)
    assert played.client.retry_interval == 1500
    seen: list[float] = []
    played.client._on_open = lambda _: seen.append(played.client.retry_interval)
    run(played)
    assert seen == [1500, 10, 60_000]
    assert played.client.retry_interval == 60_000


# === How often ===


@pytest.mark.parametrize("retries", [0, 1, 2, 5])
@pytest.mark.parametrize(
    "loss", [EMPTY, ConnectionResetError("gone"), [": x\n\n", EOFError()]], ids=["end", "reset", "EOF"]
)
def test_max_retries_are_reconnects_in_a_row(twin: str, retries: int, loss: Any) -> None:
    """So many are made, then SSEConnectionError tells their number and its cause."""
    played = play(twin, *[loss] * 9, max_retries=retries)
    error: Any = played.error
    assert type(error) is sse.SSEConnectionError
    assert error.retries == len(played.waits) == len(played.requests) - 1 == played.client.stats.retries == retries
    assert error.last_error is error.__cause__
    assert isinstance(error.last_error, (type(None), ConnectionResetError, EOFError))
    assert (error.last_error is None) == (loss is EMPTY)
    assert error.url == played.client.url


def test_event_begins_a_new_row(twin: str) -> None:
    """Losses before an event and after it are not added up."""
    played = play(twin, EMPTY, EMPTY, ONE, EMPTY, EMPTY, EMPTY, max_retries=2)
    assert played.events == ["1"]
    assert len(played.requests) == 5
    assert isinstance(played.error, sse.SSEConnectionError)


def test_unlimited_retries(twin: str) -> None:
    """-1, and it is the default."""
    assert play(twin, *[EMPTY] * 200).over
    assert play(twin, *[EMPTY] * 200, max_retries=-1).over


CLEAN, CUT = ["data: x\n\n"], ["data: x\n\n", ConnectionResetError()]
GET: dict[str, Any] = {}
POST: dict[str, Any] = {"body": ""}


@pytest.mark.parametrize(
    ("answer", "options", "outcome"),
    [
        (CLEAN, GET, "again"),
        (CLEAN, {**GET, "reconnect": True}, "again"),
        (CLEAN, {**GET, "reconnect": False}, "end"),
        (CLEAN, {"method": "get"}, "again"),
        (CLEAN, {"method": "PUT"}, "end"),
        (CLEAN, {"method": "GET", "json": 1}, "again"),
        (CLEAN, POST, "end"),
        (CLEAN, {**POST, "reconnect": False}, "end"),
        (CLEAN, {**POST, "reconnect": True}, "end"),
        (CLEAN, {**POST, "reconnect": True, "until": "y"}, "again"),
        (CUT, GET, "again"),
        (CUT, {**GET, "reconnect": False}, "lost"),
        (CUT, POST, "lost"),
        (CUT, {**POST, "reconnect": True}, "again"),
        (ConnectionRefusedError(), POST, "lost"),
        (ConnectionRefusedError(), {**GET, "reconnect": False}, "lost"),
        (CLEAN, {**GET, "max_retries": 0}, "lost"),
        (CLEAN, {**POST, "max_retries": 0}, "end"),
    ],
)
def test_what_reconnects(twin: str, answer: Any, options: Any, outcome: str) -> None:
    """Only a GET, unless told otherwise; a clean end of anything else is its end, but `until` is a promise."""
    played = play(twin, answer, **options)
    assert played.events == ([] if isinstance(answer, Exception) else ["x"])
    if outcome == "again":
        assert played.over
        assert len(played.requests) == 2
    else:
        assert len(played.requests) == 1
        assert type(played.error) is (sse.SSEConnectionError if outcome == "lost" else type(None))
        assert played.waits == []


# === until ===

DONE = "data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("answers", "options", "events", "outcome"),
    [
        ([[event(1) + DONE + event(2)]], GET, ["1"], "end"),
        ([[DONE]], GET, [], "end"),
        ([[event(1), DONE, ConnectionResetError()]], POST, ["1"], "end"),
        ([["event: x\nid: 7\ndata: [DONE]\n\n"]], POST, [], "end"),
        ([["data: [DONE\ndata: ]\n\n", DONE]], POST, ["[DONE\n]"], "end"),
        ([["data:  [DONE]\n\n", DONE]], POST, [" [DONE]"], "end"),
        ([[event(1)]], POST, ["1"], "lost"),
        ([[event(1), "data: [DONE]"]], POST, ["1"], "end"),
        ([[event(1), "data: [DONE]\n"]], POST, ["1"], "end"),
        ([[event(1), "data: [DONE]\r"]], POST, ["1"], "end"),
        ([[event(1), "data:[DONE]\nid: 5"]], POST, ["1"], "end"),
        ([[event(1), "data: [DONE]x"]], POST, ["1"], "lost"),
        ([[event(1), "data: [DONE]\n: comment"]], POST, ["1"], "end"),
        ([[event(1), "data: [DO"]], POST, ["1"], "lost"),
        ([[event(1), "data: [DONE]", ConnectionResetError()]], POST, ["1"], "lost"),
        ([["data: [DONE]"]], {"reconnect": False}, [], "end"),
        ([["data: [DONE]"]], GET, [], "end"),
        ([[event(1)]], {"reconnect": False}, ["1"], "lost"),
        ([[event(1)], [event(2)], [DONE]], GET, ["1", "2"], "end"),
        ([[event(1)], [event(2) + DONE]], {**POST, "reconnect": True}, ["1", "2"], "end"),
        ([[event(1), "data: [DO"], ["NE]\n\n", DONE]], GET, ["1"], "end"),
        ([[DONE + "data: " + "x" * 200]], {"max_event_size": 100}, [], "end"),
        ([["data: [DONE]" + "x" * 200]], {"max_event_size": 100}, [], sse.SSELimitError),
        ([Answer(status=204)], POST, [], "end"),
        ([[event(1)], Answer(status=204)], GET, ["1"], "end"),
    ],
)
def test_until_is_a_promise(twin: str, answers: Any, options: Any, events: list[str], outcome: Any) -> None:
    """The stream ends with that event and with nothing else, a last unfinished block included; it is not given out."""
    played = play(twin, *answers, until="[DONE]", **options)
    assert played.events == events
    assert len(played.requests) == len(answers)
    kinds = {"end": type(None), "lost": sse.SSEConnectionError}
    assert type(played.error) is kinds.get(outcome, outcome)
    assert all(answer.closed for answer in played.answers)


@pytest.mark.parametrize(
    ("until", "chunks", "kept"),
    [
        ("a: b", ["data: a: b"], True),
        ("[DONE]", ["data: [D", "ON", "E]"], True),
        ("[DONE]", ["da", "ta", ": [DONE]"], True),
        ("a\nb", ["data: a\ndata: b"], True),
        ("a\nb", ["data: a\n", "data: b\n"], True),
        ("a\nb", ["data: a\ndata: b\ndata"], False),
        ("a\n", ["data: a\ndata"], True),
        ("", ["data"], True),
        ("", ["data:"], True),
        ("", ["data\n"], True),
        ("", ["dat"], False),
        ("", ["event: x\n"], False),
        ("", [event(1)], False),
        ("1", [event(1, "x") + "id: 1"], False),
    ],
)
def test_until_in_a_last_unfinished_block(twin: str, until: str, chunks: list[str], kept: bool) -> None:
    """As if its last line, and the block, had ended; a stream without such a block has not kept the promise."""
    played = play(twin, chunks, until=until, **POST)
    assert type(played.error) is (type(None) if kept else sse.SSEConnectionError)


def test_until_hides_what_comes_after_it(twin: str) -> None:
    """Neither counted, nor seen in the last event ID."""
    played = play(twin, [event(1) + "id: 7\n" + DONE + event(8)], until="[DONE]")
    assert (played.events, played.client.last_event_id, played.client.stats.events) == (["1"], "7", 1)


def test_204_is_hung_up_at_once(twin: str) -> None:
    """Not only when the client is closed."""
    played = make(twin, Answer(status=204))
    asyncio.run(played.client._enter())
    assert played.answers[0].closed
    assert played.client.response is None


@pytest.mark.parametrize("flag", ["_closed", "_restarting"])
def test_client_that_was_interrupted_in_its_wait_asks_for_nothing(twin: str, flag: str) -> None:
    """By close() or restart() of another thread, just before the request."""
    played = make(twin, EMPTY)
    setattr(played.client, flag, True)
    assert type(asyncio.run(played.client._connect())) is ConnectionError
    assert played.requests == []


def test_empty_until_ends_at_an_event_without_data(twin: str) -> None:
    assert play(twin, ["data: a\n\ndata\n\ndata: b\n\n"], until="").events == ["a"]
    assert play(twin, ["data: a\n\n\n\n: x\n\nevent: x\n\n"], until="", reconnect=False).events == ["a"]


# === Which exceptions are lost connections ===


class LibraryError(Exception):
    """Of somebody else's HTTP stack."""


class LibraryValueError(ValueError):
    """Of somebody else's HTTP stack, made from a builtin one."""


LOST = [
    OSError("x"),
    ConnectionResetError("x"),
    ConnectionRefusedError("x"),
    TimeoutError("x"),
    BrokenPipeError("x"),
    EOFError("x"),
    asyncio.TimeoutError("x"),
    asyncio.IncompleteReadError(b"x", 2),
    http.client.IncompleteRead(b"x"),
    http.client.RemoteDisconnected("x"),
    ssl.SSLError("x"),
    ssl.SSLEOFError("x"),
    ssl.SSLZeroReturnError("x"),
    zlib.error("x"),
    httpclient.HttpConnectionError("x"),
    httpclient.HttpTimeoutError("x"),
    httpclient.HttpProtocolError("x"),
    LibraryError("x"),
    LibraryValueError("x"),
]
FATAL = [
    ValueError("x"),
    TypeError("x"),
    KeyError("x"),
    AttributeError("x"),
    NameError("x"),
    AssertionError("x"),
    ZeroDivisionError("x"),
    RuntimeError("x"),
    NotImplementedError("x"),
    RecursionError("x"),
    MemoryError("x"),
    ImportError("x"),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "x"),
    Exception("x"),
    sse.SSEError("x"),
    sse.SSELimitError(5),
    sse.SSEContentTypeError("x", "http://x/", "x"),
    sse.SSEHTTPError(500, "http://x/", {}, "x"),
    sse.SSEConnectionError("http://x/", 0),
    ssl.SSLCertVerificationError("x"),
]


def name(error: Any) -> str:
    return type(error).__name__


@pytest.fixture(params=["opening", "first chunk", "later"])
def where(request: pytest.FixtureRequest) -> Any:
    """Makes answers that raise: at the opening, in the body, after an event."""
    before = {"first chunk": [], "later": [event(1)]}.get(request.param)
    return lambda error: error if before is None else [*before, error]


@pytest.mark.parametrize("error", LOST, ids=name)
def test_lost_connections(twin: str, where: Any, error: Exception) -> None:
    """What a network does, and what a library says of it, is survived; without reconnection it is the cause."""
    played = play(twin, where(error), ["data: x\n\n"])
    assert played.over
    assert played.events[-1] == "x"
    assert played.causes == [error, None]
    played = play(twin, where(error), reconnect=False)
    assert type(played.error) is sse.SSEConnectionError
    assert played.error.last_error is played.error.__cause__ is error


@pytest.mark.parametrize("error", FATAL, ids=name)
@pytest.mark.parametrize("reconnect", [None, False])
def test_fatal_errors(twin: str, where: Any, error: Exception, reconnect: Any) -> None:
    """Programming errors, our own, and certificates come out as they are, at once, after the events before them."""
    answer = where(error)
    played = play(twin, answer, reconnect=reconnect)
    assert played.error is error
    assert played.waits == []
    assert played.events == (["1"] if isinstance(answer, list) and len(answer) == 2 else [])
    assert all(answer.closed for answer in played.answers)


def chained(*errors: Exception, by: str = "__cause__") -> Exception:
    """The first error, each caused by the next."""
    for error, cause in itertools.pairwise(errors):
        setattr(error, by, cause)
    return errors[0]


@pytest.mark.parametrize("by", ["__cause__", "__context__"])
@pytest.mark.parametrize("depth", [1, 2, 10])
@pytest.mark.parametrize("kind", [LibraryError, OSError, httpclient.HttpConnectionError])
def test_certificate_in_the_chain_of_causes_is_fatal(twin: str, where: Any, by: str, depth: int, kind: Any) -> None:
    """However a library wraps it."""
    certificate = ssl.SSLCertVerificationError(1, "self-signed certificate")
    error = chained(*[kind(f"level {level}") for level in range(depth)], certificate, by=by)
    played = play(twin, where(error))
    assert isinstance(played.error, ssl.SSLCertVerificationError)
    assert played.waits == []


def test_any_error_may_be_a_lost_connection_without_ssl(twin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain HTTP does not import it."""
    monkeypatch.delitem(sys.modules, "ssl")
    assert play(twin, LibraryError("x")).over


def test_chain_that_is_a_ring_is_a_lost_connection(twin: str) -> None:
    one, two = LibraryError("one"), OSError("two")
    chained(one, two, one)
    assert play(twin, one).causes == [one]


def test_what_may_not_be_tried_again_is_not(twin: str) -> None:
    """A redirect that is refused: httpclient marks it as permanent."""
    error = httpclient.HttpProtocolError("more than 10 redirects")
    error.permanent = True
    played = play(twin, error)
    assert type(played.error) is sse.SSEConnectionError
    assert played.error.__cause__ is error
    assert len(played.requests) == 1


# === Events and errors in their order ===


def test_events_before_a_failure_are_delivered_before_it(twin: str) -> None:
    """However they came: in one chunk with what breaks the rules, or in the chunk before it."""
    long = "data: " + "x" * 200
    for chunks in ([event(1) + event(2) + long], [event(1), event(2) + long], [event(1) + event(2), long]):
        played = play(twin, chunks, max_event_size=100)
        assert played.events == ["1", "2"]
        assert type(played.error) is sse.SSELimitError
        assert played.error.limit == 100
        assert len(played.requests) == 1


def test_block_does_not_go_on_in_the_next_connection(twin: str) -> None:
    """Neither an unfinished line, nor its data, nor a BOM or CR."""
    played = play(
        twin, ["\ufeffdata: a\n\nevent: x\ndata: half\nda"], ["\ufeffdata: b\n\ndata: c\r"], ["\ndata: d\n\n"]
    )
    assert played.events == ["a", "b", "d"]


def test_ended_client_stays_ended(twin: str) -> None:
    """Asking again neither opens nor raises again."""
    for answers, options in (([[event(1)]], POST), ([[DONE]], {"until": "[DONE]"}), ([ValueError("x")], GET)):
        played = play(twin, *answers, **options)
        count = len(played.requests)
        again = run(played)
        assert again.error is None
        assert len(again.requests) == count


def test_client_is_its_own_iterator(twin: str) -> None:
    """Leave the loop, come back: nothing is lost, nothing doubled, nothing opened twice."""
    played = make(twin, [event(1) + event(2), event(3)], reconnect=False)
    client = played.client
    if twin == "sync":
        assert iter(client) is client
        for found in client:
            assert found.data == "1"
            break
        assert [found.data for found in client] == ["2", "3"]
        assert list(client) == []
    else:

        async def consume() -> None:
            assert aiter(client) is client
            async for found in client:
                assert found.data == "1"
                break
            assert [found.data async for found in client] == ["2", "3"]
            assert [found async for found in client] == []

        asyncio.run(consume())
    assert len(played.requests) == 1


def test_entering_opens_under_the_same_rules(twin: str) -> None:
    """`with` connects, waits and connects again, and raises what the loop would; it reads no event."""
    assert play(twin, OSError(), TimeoutError(), ["data: x\n\n"], most=1).waits == [3.0, 4.5]
    for answer, kind in ((Answer(status=404), sse.SSEHTTPError), (ValueError("x"), ValueError)):
        played = make(twin, answer)
        with pytest.raises(kind):
            enter(played.client)
        assert run(played).error is None  # closed
        assert len(played.requests) == 1
    played = make(twin, ["data: x\n\n"])
    enter(played.client)
    assert played.client.response is played.answers[0]
    assert played.client.stats.events == 0


def enter(client: Any) -> None:
    if isinstance(client, sse.SSEClient):
        assert client.__enter__() is client
    else:
        assert asyncio.run(client.__aenter__()) is client


# === Callbacks ===


def test_callbacks_get_what_they_are_promised(twin: str) -> None:
    """on_open the response, on_reconnect cause and seconds, on_comment the text without one space."""
    opened: list[Any] = []
    lost: list[Any] = []
    comments: list[str] = []
    error = EOFError()
    played = make(
        twin,
        *([": one\n:  two\n:\n", event(1)], [error]),
        on_open=opened.append,
        on_reconnect=lambda *args: lost.append(args),
        on_comment=comments.append,
    )
    run(played)
    assert opened == played.answers
    assert lost == [(None, 3.0), (error, 4.5)]
    assert comments == ["one", " two", ""]


def raising(*_: Any) -> Any:
    raise Boom


@pytest.mark.parametrize("callback", ["headers", "on_open", "on_reconnect", "on_comment"])
def test_callback_that_raises_ends_the_loop_with_that(twin: str, callback: str) -> None:
    """At once, after the events before it, with everything closed."""
    played = play(twin, [event(1) + ": comment\n", event(2)], **{callback: raising})
    assert type(played.error) is Boom
    assert played.events == {"on_comment": ["1"], "on_reconnect": ["1", "2"]}.get(callback, [])
    assert all(answer.closed for answer in played.answers)
    assert len(played.requests) == (callback != "headers")
    assert run(played).error is None


@pytest.mark.parametrize("callback", ["headers", "on_open", "on_reconnect", "on_comment"])
def test_callback_that_closes_ends_the_loop(callback: str) -> None:
    """close() from within the consumer's own thread."""

    def close(*_: Any) -> Any:
        played.client.close()
        return {}

    played = make("sync", [": comment\n", event(1)], **{callback: close})
    run(played)
    assert played.error is None
    assert len(played.requests) <= 1
    assert played.events == {"on_reconnect": ["1"]}.get(callback, [])
    assert all(answer.closed for answer in played.answers)


@pytest.mark.parametrize(
    "end", [[], [ConnectionResetError()], [ValueError("read of closed file")]], ids=["end", "reset", "closed file"]
)
def test_what_breaks_because_of_a_close_is_no_error(end: list[Any]) -> None:
    """Nor is it logged as a loss, or counted."""
    played = play("sync", [event(1), lambda client: client.close(), *end], max_retries=0)
    assert (played.events, played.error, played.waits) == (["1"], None, [])


# === restart ===


def restart(client: Any) -> None:
    client.restart()


def test_restart_is_no_failure(twin: str) -> None:
    """It opens again at once where the stream was, with no wait, no retry counted and no callback."""
    played = play(twin, [event(1), restart], [event(2), restart], [event(3)], max_retries=0)
    assert played.events == ["1", "2", "3"]
    assert last_event_ids(played) == [None, "1", "2"]
    assert played.waits == []
    assert played.answers[0].closed
    assert type(played.error) is sse.SSEConnectionError  # the clean end of the third
    assert (played.client.stats.connects, played.client.stats.retries) == (3, 0)


def test_restart_drops_the_unfinished_block(twin: str) -> None:
    played = play(twin, [event(1) + "id: 2\ndata: half\n", restart], ["data: whole\n\n"], most=2)
    assert played.events == ["1", "whole"]
    assert last_event_ids(played) == [None, "1"]


@pytest.mark.parametrize("error", [ConnectionResetError(), ValueError("x"), LibraryError()], ids=name)
def test_what_breaks_because_of_a_restart_is_no_error(twin: str, error: Exception) -> None:
    """A library's body that was closed under the reader may raise whatever it likes."""
    played = play(twin, [event(1), restart, error], [event(2)], most=2)
    assert played.events == ["1", "2"]
    assert played.waits == []


def test_restart_before_the_start_and_after_the_end(twin: str) -> None:
    """The first changes nothing, the second brings nothing back."""
    played = make(twin, ["data: x\n\n"], **POST)
    played.client.restart()
    assert run(played).events == ["x"]
    assert len(played.requests) == 1
    played.client.restart()
    assert run(played).events == ["x"]
    assert len(played.requests) == 1


def test_restart_in_on_open_and_on_comment(twin: str) -> None:
    """From callbacks too: events that were parsed already still come."""
    times = iter([True])
    options = {"on_comment": lambda _: next(times, False) and played.client.restart()}
    played = make(twin, [event(1) + ": comment\n" + event(2)], [event(3)], **options)
    run(played, most=3)
    assert played.events == ["1", "2", "3"]
    assert last_event_ids(played) == [None, "2"]


# === Logs ===


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """The lines of the logger "sse" as (level, text)."""
    caplog.set_level(logging.DEBUG, "sse")
    yield lambda: [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "sse"]
    assert not [r for r in caplog.records if "p4ss" in r.getMessage() or "qu3ry" in r.getMessage()]


SHOWN = "http://stream.example/events"


def test_log_of_opening_loss_and_end(twin: str, log: Any) -> None:
    """INFO on open and end, WARNING with cause and wait on each reconnect; the URL without userinfo and query."""
    reset = ConnectionResetError("by http://stream.example/events?token=qu3ry")
    play(twin, [event(1)], [event(2), reset], TimeoutError("slow"), [DONE], until="[DONE]")
    levels, lines = zip(*log(), strict=True)
    assert levels == ("INFO", "WARNING", "INFO", "WARNING", "WARNING", "INFO", "INFO")
    assert all(line.startswith(SHOWN) for line in lines)
    for index, cause, wait in (
        (1, "ended", "3 s"),
        (3, "ConnectionResetError", "3 s"),
        (4, "TimeoutError: slow", "4.5 s"),
    ):
        assert cause in lines[index]
        assert wait in lines[index]
    assert "open" in lines[0]
    assert "end" in lines[6]


@pytest.mark.parametrize(
    ("answer", "options", "why"),
    [
        (Answer(status=204), GET, "HTTP 204"),
        (["data: x\n\n"], POST, "end of the answer"),
        ([DONE], {"until": "[DONE]"}, "until"),
        (["data: [DONE]"], {"until": "[DONE]"}, "until"),
    ],
)
def test_log_tells_of_the_end_once(twin: str, log: Any, answer: Any, options: Any, why: str) -> None:
    """Nothing comes after it."""
    played = play(twin, answer, **options)
    assert played.error is None
    assert played.waits == []
    assert [line for _, line in log() if ": end (" in line] == [log()[-1][1]]
    assert log()[-1][1].endswith(f": end ({why})")
    assert all(level == "INFO" for level, _ in log())


def test_log_of_a_status_that_passes(twin: str, log: Any) -> None:
    """The message of the API is what helps; it stays on one line that a terminal may show."""
    answer = Answer("over\x1b[31m\nloaded " + "x" * 5000, status=503, url="http://u:p4ss@other/?qu3ry")
    play(twin, answer, retry_statuses=(503,))
    ((level, line),) = log()
    assert level == "WARNING"
    assert "http://other/: HTTP 503: over\ufffd[31m loaded xxx" in line
    assert len(line) < 1000


def test_library_is_silent_unless_asked(twin: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No handler of the application: nothing on stderr, warnings neither."""
    logger = logging.getLogger("sse")
    assert logger.level == logging.NOTSET
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    logger.handlers = []  # as in a new process
    try:
        play(twin, EMPTY, OSError())
    finally:
        root.handlers = handlers
    assert capsys.readouterr() == ("", "")


# === Live state ===


def test_live_state(twin: str) -> None:
    """What can be read at any time, from before the opening to after the end."""
    seen: list[Any] = []

    def look(client: Any) -> None:
        stats = client.stats
        seen.append(
            (client.last_event_id, client.response, stats.events, stats.bytes, stats.connects, stats.last_activity)
        )

    played = make(twin, [look, event(1), look], OSError(), [event(2), look])
    look(played.client)
    run(played, most=None)
    first, second = played.answers
    size = len(event(1))
    assert seen == [
        ("", None, 0, 0, 0, None),
        ("", first, 0, 0, 1, 1000.0),
        ("1", first, 1, size, 1, 1000.0),
        ("2", second, 2, 2 * size, 2, 1000 + 3 + 4.5),
    ]
    assert played.client.response is None
    assert played.client.stats.retries == 3


def test_last_event_id_is_that_of_the_event_given_out_last(twin: str) -> None:
    """Not of one that waits behind it in the same chunk."""
    played = make(twin, [event(1) + event(2) + event(3)])
    run(played, most=1)
    assert played.client.last_event_id == "1"
    assert played.client.stats.events == 1


def test_repr_tells_the_state_and_no_secret(twin: str) -> None:
    """Not open, open, closed."""
    states: list[str] = []
    played = make(twin, [lambda client: states.append(repr(client))])
    before = repr(played.client)
    run(played)
    kind = type(played.client).__name__
    assert [before, *states, repr(played.client)] == [f"<{kind} {SHOWN} {s}>" for s in ("not open", "open", "closed")]


# === Silence, on the fake clock ===


def test_silence_of_a_custom_transport_is_a_lost_connection(twin: str) -> None:
    """A body that blocks is closed after heartbeat_timeout; the cause is a TimeoutError that says so."""
    import threading

    class Silent(Answer):
        def __init__(self) -> None:
            super().__init__()
            self.freed = threading.Event()

        def iter_bytes(self) -> Iterator[bytes]:
            yield event(1).encode()
            assert self.freed.wait(10)
            raise LibraryError("read of a closed file")

        async def aiter_bytes(self) -> Any:
            yield event(1).encode()
            await asyncio.sleep(10)

        def close(self) -> None:
            super().close()
            self.freed.set()

    played = play(twin, Silent(), ["data: x\n\n"], heartbeat_timeout=0.05, most=2)
    assert played.events == ["1", "x"]
    assert type(played.causes[0]) is TimeoutError
    assert "0.05 s" in str(played.causes[0])
    assert played.answers[0].closed


def test_close_of_a_response_may_raise(twin: str) -> None:
    """The connection is given up anyway."""

    class Stubborn(Answer):
        def close(self) -> None:
            super().close()
            raise LibraryError

        async def aclose(self) -> None:
            super().close()
            raise LibraryError

    played = play(twin, Stubborn(event(1)), Stubborn(event(2)), most=2)
    assert (played.events, played.error) == (["1", "2"], None)
    assert all(answer.closed for answer in played.answers)


def test_over_is_what_ends_scripts(twin: str) -> None:
    """The harness itself: a client that comes back too often is noticed."""
    assert type(play(twin).error) is Over


# === What only one of the two can meet ===


def test_transport_that_raises_stop_iteration_ends_no_loop(twin: str) -> None:
    """It would pass for the end of the stream: PEP 479 for iterators that are no generators."""
    played = play(twin, StopIteration())
    assert type(played.error) is RuntimeError
    assert "raised StopIteration" in str(played.error)
    assert played.waits == []


@pytest.mark.parametrize("module", [None, types.ModuleType("httpclient")], ids=["missing", "another"])
def test_client_without_httpclient_says_what_to_copy(twin: str, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be made, not opened; a module of that name that is not ours is told by its file."""
    if module is not None:
        module.__file__ = "/somewhere/httpclient.py"
    monkeypatch.setitem(sys.modules, "httpclient", module)
    kind = sse.SSEClient if twin == "sync" else sse.AsyncSSEClient
    with pytest.raises(ImportError, match=r"httpclient\.py.*transport=") as caught:
        enter(kind("http://host/"))
    assert ("/somewhere/httpclient.py" in str(caught.value)) == (module is not None)


async def test_cancelled_read_of_another_transport_goes_on() -> None:
    """wait_for() around the next event, again and again: the read behind it is one, and its event is not lost."""
    go = asyncio.Event()
    reads: list[int] = []

    class Slow(Answer):
        async def aiter_bytes(self) -> Any:
            reads.append(1)
            await go.wait()
            yield event(1).encode()
            await asyncio.sleep(60)

    played = make("async", Slow())
    async with played.client as client:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(client), 0.01)
        go.set()
        assert (await anext(client)).data == "1"
    assert reads == [1]
    assert played.answers[0].closed


async def test_dropped_client_gives_its_connection_up() -> None:
    """A loop that was left outside of an `async with`, and nobody holds the client any more."""
    aborted = asyncio.Event()

    class Held(Answer):
        async def aiter_bytes(self) -> Any:
            yield event(1).encode()
            await asyncio.sleep(60)

        def abort(self) -> None:
            aborted.set()

    async def transport(request: Any, timeout: Any) -> Any:
        return Held()

    client = sse.async_connect(URL, transport=transport)
    assert (await anext(client)).data == "1"
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(anext(client), 0.01)  # leaves a read behind
    del client
    gc.collect()
    await asyncio.wait_for(aborted.wait(), 5)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(max_size=40), st.from_regex(r"\A[A-Z][a-z]{2}, \d{1,9} [A-Z][a-z]{2} \d{1,9} \d+:\d+:\d+ [-+A-Z0-9]*\Z")
    )
)
@example("Sun, 06 Nov 99999 08:49:37 GMT")
@example("Sun, " + "9" * 400 + " Nov 1994 08:49:37 GMT")
@example("Sun, " + "9" * 5000 + " Nov 1994 08:49:37 GMT")
@example("Sun, 06 Nov 1994 " + "9" * 5000 + ":49:37 GMT")
@example("Sun, 06 Nov 1994 08:49:37 +" + "9" * 5000)
def test_any_retry_after_gives_a_wait_within_bounds(text: str) -> None:
    """Whatever a server writes there."""
    (wait,) = play("sync", busy(text), retry_statuses=sse.TRANSIENT).waits
    assert 3.0 <= wait <= 60.0


def test_records_can_be_copied_with_changes() -> None:
    """As dataclasses can: `dataclasses.replace`, and `copy.replace` of Python 3.13, which asks for `__replace__`."""
    request = sse.Request("GET", URL, {"a": "b"})
    for change in (dataclasses.replace, lambda record, **changes: record.__replace__(**changes)):
        assert change(request, url="x") == sse.Request("GET", "x", {"a": "b"}, None)
        assert change(sse.SSEEvent("a", "b", "c", 5), data="x") == sse.SSEEvent("a", "x", "c", 5)
        with pytest.raises(TypeError):
            change(request, nonsense=1)


# === Transports of all kinds ===


class Recorder(list[Any]):
    """A transport that is empty, and so false, before it is called."""

    def __call__(self, request: sse.Request, timeout: Any) -> Any:
        self.append(request)
        raise ConnectionRefusedError


class AsyncRecorder(Recorder):
    async def __call__(self, request: sse.Request, timeout: Any) -> Any:
        super().__call__(request, timeout)


@pytest.mark.parametrize("kind", [Recorder, AsyncRecorder])
def test_transport_that_is_false(kind: Any) -> None:
    """It is asked all the same."""
    recorder = kind()
    played = Played()
    client: Any = sse.AsyncSSEClient if kind is AsyncRecorder else sse.SSEClient
    played.client = client(URL, transport=recorder, max_retries=0)
    assert isinstance(run(played).error, sse.SSEConnectionError)
    assert len(recorder) == 1


class Silent(Answer):
    """One event, then silence until it is closed, which looks like a clean end."""

    def __init__(self) -> None:
        super().__init__()
        self.freed = threading.Event()

    def iter_bytes(self) -> Iterator[bytes]:
        yield b"data: half\n\n"
        self.freed.wait()

    async def aiter_bytes(self) -> Any:
        yield b"data: half\n\n"
        await asyncio.sleep(60)

    def close(self) -> None:
        self.freed.set()


class Late(Silent):
    """Its last event comes as it is closed."""

    def iter_bytes(self) -> Iterator[bytes]:
        yield from super().iter_bytes()
        yield b"data: late\n\n"
        yield b"data: later\n\n"


def test_what_comes_as_silence_is_ended_counts() -> None:
    """Events before a failure are given out before it, and nothing behind it."""
    played = play("sync", Late(), heartbeat_timeout=0.05, **POST)
    assert played.events == ["half", "late"]
    assert isinstance(played.error, sse.SSEConnectionError)
    assert isinstance(played.error.last_error, TimeoutError)


def test_silence_is_no_clean_end(twin: str) -> None:
    """Whatever the iterator makes of being closed."""
    played = play(twin, Silent(), heartbeat_timeout=0.05, **POST)
    assert played.events == ["half"]
    assert isinstance(played.error, sse.SSEConnectionError)
    assert isinstance(played.error.last_error, TimeoutError)


def test_handled_certificate_error_is_no_cause(twin: str) -> None:
    """Whoever falls back to another server in an `except` block has the error of the first as context of all others."""
    for answer in (ConnectionResetError(), [event(1), ConnectionResetError()]):
        played = make(twin, answer, [event(2)], max_retries=1)
        try:
            raise ssl.SSLCertVerificationError("of another server")
        except ssl.SSLCertVerificationError as handled:
            raising = answer if isinstance(answer, Exception) else answer[-1]
            raising.__context__ = handled
            run(played)
        assert played.over
        assert played.events[-1] == "2"


@pytest.mark.parametrize("when", ["headers", "transport"])
@pytest.mark.parametrize("how", ["close", "restart"])
def test_client_that_is_interrupted_while_it_opens(twin: str, when: str, how: str) -> None:
    """By another thread, in a function of the user's: nothing is asked for then, and no answer taken."""
    opened = []

    def interrupt() -> None:
        if how == "restart":
            played.client.restart()
        elif twin == "sync":
            played.client.close()
        else:
            played.client._shut()

    def headers() -> dict[str, str]:
        if when == "headers" and not played.requests:
            interrupt()
        return {}

    played = make(twin, [event(1)], headers=headers, on_open=opened.append)
    inner = played.client._transport

    def transport(request: sse.Request, timeout: Any) -> Any:
        if when == "transport":
            interrupt()
        return inner(request, timeout)

    played.client._transport = transport
    assert type(asyncio.run(played.client._connect())) is ConnectionError
    assert len(played.requests) == (when == "transport")
    assert opened == []


def test_response_of_no_connection(twin: str) -> None:
    """Once closed, there is none."""
    played = play(twin, [event(1), event(2)], most=1)
    assert played.client.response is None


class Text(str):
    """Formats as something else, as some kinds of str do."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return "wrong"

    __str__ = __repr__ = lambda self: "wrong"


def test_headers_of_any_kind_of_str_and_without_spaces_around(twin: str) -> None:
    """They reach a transport as plain text."""
    for headers in ({Text("X-Y"): Text(" \xa0X ")}, lambda: {Text("X-Y"): Text("\xa0X\t")}):
        played = play(twin, [event(1)], headers=headers, reconnect=False)
        [request] = played.requests
        assert request.headers["X-Y"] == "\xa0X"
        assert {type(text) for pair in request.headers.items() for text in pair} == {str}


def test_body_that_utf_8_has_no_bytes_for() -> None:
    with pytest.raises(ValueError, match=r"^body must be bytes or str without surrogates, got str"):
        sse.connect(URL, body="\ud83d")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("url", "options", "named"),
    [
        ("http://a..b/", {}, "url"),
        ("http://exa$mple/", {}, "url"),
        (f"http://{'a' * 64}/", {}, "url"),
        (URL, {"headers": {"Content-Length": "5"}}, "Content-Length"),
        (URL, {"headers": {"transfer-encoding": "chunked"}}, "transfer-encoding"),
    ],
)
def test_what_httpclient_refuses_is_refused_at_once(client: Any, url: str, options: Any, named: str) -> None:
    """Not when the stream is opened; another transport may take it."""
    with pytest.raises(ValueError, match=named):
        client(url, **options)
    client(url, transport=print, **options)


def test_errors_of_other_libraries_give_away_no_url(twin: str) -> None:
    """Neither in the error nor in the log."""
    error = LibraryError("Max retries exceeded with url: /y?sig=s3cret for 'http://me:s3cret@host/x?key=s3cret' (why?)")
    played = play(twin, error, max_retries=0)
    assert "s3cret" not in str(played.error)
    assert "with url: /y for 'http://host/x" in str(played.error)


def test_the_url_is_told_once(twin: str, caplog: pytest.LogCaptureFixture) -> None:
    """Also where the cause is an error that begins with it."""
    played = play(twin, Answer("busy", status=503), Answer("busy", status=503), retry_statuses=[503], max_retries=1)
    assert str(played.error) == "http://stream.example/events: connection failed after 1 reconnect: HTTP 503: busy"
    assert "http://stream.example/events: HTTP 503: busy; reconnecting in 3 s" in caplog.messages
