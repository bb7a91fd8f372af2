"""Every exception of both modules: its text, the trip through pickle, and what none of them may show."""

from __future__ import annotations

import base64
import inspect
import logging
import pickle
import ssl
import traceback
from typing import Any

import pytest

import httpclient
import sse
from drivers import causes
from scripted import TWINS, Answer, play

URL = "https://us3r:p4ss@host:8443/path?token=qu3ry#fr4gment"
SHOWN = "https://host:8443/path"
HEADERS = httpclient.Headers([("Set-Cookie", "h34der=1"), ("Content-Type", "text/html"), ("Set-Cookie", "b")])
SECRETS = ["us3r", "p4ss", "qu3ry", "fr4gment", "h34der", "b0dy"]


# === Texts ===

REASONS: list[tuple[BaseException | None, str]] = [
    (None, "the server ended it"),
    (
        ConnectionResetError(104, "Connection reset by peer"),
        "ConnectionResetError: [Errno 104] Connection reset by peer",
    ),
    (TimeoutError(), "TimeoutError: "),
    (httpclient.HttpTimeoutError("no data for 5 s"), "HttpTimeoutError: no data for 5 s"),
    (sse.SSEHTTPError(503, "http://other/?qu3ry", {}, "busy"), "http://other/: HTTP 503: busy"),
    (OSError("GET https://host:8443/path?token=qu3ry#fr4gment failed"), "OSError: GET https://host:8443/path failed"),
    (OSError("two\nlines, \x1b[31mred"), "OSError: two lines, \ufffd[31mred"),
]


@pytest.mark.parametrize(("cause", "reason"), REASONS, ids=[repr(reason) for _, reason in REASONS])
@pytest.mark.parametrize(
    ("retries", "after"), [(0, ""), (1, " after 1 reconnect"), (2, " after 2 reconnects"), (10, " after 10 reconnects")]
)
def test_text_of_a_lost_stream(cause: Any, reason: str, retries: int, after: str) -> None:
    """Where, how often it was tried again, and why, also where another library's error quotes the URL."""
    assert str(sse.SSEConnectionError(URL, retries, cause)) == f"{SHOWN}: connection failed{after}: {reason}"


BODIES = [
    ("", ""),
    ("no such key", ": no such key"),
    ('{\n  "error": "no\tsuch key"\n}\n', ': { "error": "no such key" }'),
    ("a\x1b[31mb\x00c\u202ed\u2028e", ": a\ufffd[31mb\ufffdc\ufffdd e"),
    ("gr\u00fc\u00dfe \u65e5\u672c", ": gr\u00fc\u00dfe \u65e5\u672c"),
    ("x" * 500, ": " + "x" * 500),
    ("x" * 501, ": " + "x" * 500 + "..."),
    ("\n" * 60_000, ""),
]


@pytest.mark.parametrize(("body", "shown"), BODIES, ids=range(len(BODIES)))
def test_text_of_a_refused_answer(body: str, shown: str) -> None:
    """Its status or type, and what the server says: on one line, shortened, harmless to a terminal."""
    assert str(sse.SSEHTTPError(401, URL, HEADERS, body)).removesuffix(": ") == f"{SHOWN}: HTTP 401{shown}"
    error = sse.SSEContentTypeError("text/html", URL, body)
    assert str(error).removesuffix(": ") == f"{SHOWN}: expected text/event-stream, got text/html{shown}"


@pytest.mark.parametrize(
    ("content_type", "shown"),
    [("", "no content type"), ("a/b; c=d", "a/b; c=d"), ("a\x1b[0m", "a\ufffd[0m"), ("x" * 9999, "x" * 500 + "...")],
    ids=["none", "full", "escape", "long"],
)
def test_text_of_a_wrong_content_type(content_type: str, shown: str) -> None:
    assert str(sse.SSEContentTypeError(content_type, URL, "")) == f"{SHOWN}: expected text/event-stream, got {shown}"


def test_text_of_a_limit() -> None:
    """It names the option that raises it."""
    assert str(sse.SSELimitError(1000)) == "an event outgrew max_event_size=1000 characters"


@pytest.mark.parametrize(
    ("body", "shown"),
    [("", ""), ("  \n ", ""), ("no\n\x1b[31mkey", ": no  [31mkey"), ("x" * 600, ": " + "x" * 500)],
    ids=["none", "blank", "escape", "long"],
)
def test_text_of_an_http_status(body: str, shown: str) -> None:
    assert str(httpclient.HttpStatusError(404, URL, HEADERS, body)) == f"{SHOWN}: HTTP 404{shown}"


# === Pickling ===


def permanent() -> httpclient.HttpProtocolError:
    error = httpclient.HttpProtocolError("more than 10 redirects")
    error.permanent = True
    return error


ERRORS: list[Exception] = [
    sse.SSEError("x"),
    sse.SSEConnectionError(URL, 3),
    sse.SSEConnectionError(URL, 0, ConnectionResetError(104, "reset")),
    sse.SSEConnectionError(URL, 1, sse.SSEHTTPError(503, URL, HEADERS, "busy")),
    sse.SSEConnectionError(URL, 1, permanent()),
    sse.SSEConnectionError(URL, 1, ssl.SSLError(1, "x")),
    sse.SSEHTTPError(404, URL, HEADERS, "b0dy"),
    sse.SSEHTTPError(404, URL, {"a": "b"}, ""),
    sse.SSEContentTypeError("text/html", URL, "b0dy"),
    sse.SSELimitError(5),
    httpclient.HttpError("x"),
    httpclient.HttpConnectionError("x"),
    httpclient.HttpTimeoutError("x"),
    httpclient.HttpProtocolError("x"),
    permanent(),
    httpclient.HttpStatusError(404, URL, HEADERS, "b0dy"),
]


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, where exceptions are equal if all that they hold is."""
    if isinstance(one, BaseException):
        return type(one) is type(other) and same(one.args, other.args) and same(vars(one), vars(other))
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_exceptions_survive_pickling(error: Exception, protocol: int) -> None:
    """With every attribute, and the same text: errors cross process pools and queues."""
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert same(copy, error)
    assert str(copy) == str(error)
    assert getattr(copy, "permanent", None) == getattr(error, "permanent", None)


def test_the_comparison_sees_what_is_lost() -> None:
    """The test above can fail."""
    one, other = sse.SSEConnectionError(URL, 1, OSError(1, "x")), sse.SSEConnectionError(URL, 1, OSError(2, "x"))
    assert not same(one, other)
    assert not same(permanent(), httpclient.HttpProtocolError("more than 10 redirects"))


def test_every_exception_is_in_the_table() -> None:
    for module in (sse, httpclient):
        public = {value for name in module.__all__ if inspect.isclass(value := getattr(module, name))}
        missing = {value for value in public if issubclass(value, Exception)} - {type(error) for error in ERRORS}
        assert not missing


def test_exceptions_of_a_real_loss_survive_pickling() -> None:
    """Whatever lost the stream: another library's exception may not survive the trip, ours does."""

    class Local(Exception):  # noqa: N818
        """Not importable, so not to be pickled."""

        def __init__(self, *, needed: str) -> None:
            super().__init__(needed)

    for cause in (Local(needed="why"), Picky(needed="why")):
        error = play("sync", cause, max_retries=0).error
        assert isinstance(error, sse.SSEConnectionError)
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), copy.url, copy.retries) == (sse.SSEConnectionError, error.url, 0)
        assert "why" in str(copy)


class Picky(Exception):  # noqa: N818
    """Pickled without complaint, and not to be unpickled, as are exceptions of several HTTP libraries."""

    def __init__(self, *, needed: str) -> None:
        super().__init__(needed)


def test_headers_survive_pickling() -> None:
    """In their order, with those that came twice, in any case."""
    copy = pickle.loads(pickle.dumps(HEADERS))
    assert copy == HEADERS
    assert copy.fields == HEADERS.fields
    assert copy["SET-cookie"] == "h34der=1, b"


# === The trees ===


def test_trees_of_exceptions() -> None:
    """One `except` per module, and none of them an OSError that others catch."""
    for error in ERRORS:
        base = sse.SSEError if type(error).__module__ == "sse" else httpclient.HttpError
        assert type(error) is base or type(error).__mro__[1] is base
        assert base.__mro__[1] is Exception


# === Secrets ===


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_text_shows_no_secret_of_the_url(error: Exception) -> None:
    """Userinfo, query and fragment stay in `.url`; headers in `.headers`."""
    assert not [secret for secret in SECRETS if secret in str(error) and secret != "b0dy"]


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(
    "answers",
    [
        [OSError("connecting to https://host:8443/path?token=qu3ry&more=qu3ry failed")],
        [ConnectionResetError()],
        [["data: x\n\n"]],
        [Answer(status=401, url="https://us3r:p4ss@host/?qu3ry", headers={"Set-Cookie": "h34der"})],
        [Answer("page", content_type="text/html", url="https://us3r:p4ss@host/?qu3ry")],
        [["data: " + "x" * 200]],
    ],
    ids=["opening", "reset", "clean end", "status", "type", "limit"],
)
def test_nothing_secret_in_tracebacks_and_logs(twin: str, answers: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What `logging.exception` would write of an error and all its causes, and what we log ourselves."""
    caplog.set_level(logging.DEBUG)
    options: dict[str, Any] = {"headers": {"X-Key": "h34der"}, "body": "b0dy", "params": {"more": "qu3ry"}}
    played = play(twin, *answers, url=URL, max_event_size=100, until="[DONE]", **options)
    assert isinstance(played.error, sse.SSEError)
    ours = [str(link) for link in causes(played.error) if isinstance(link, sse.SSEError)]
    text = "\n".join([*ours, *(record.getMessage() for record in caplog.records), repr(played.client)])
    secrets = [*SECRETS, base64.b64encode(b"us3r:p4ss").decode()]
    assert not [secret for secret in secrets if secret in text]
    assert "host" in text
    first = "".join(traceback.format_exception_only(type(played.error), played.error))
    assert not [secret for secret in secrets if secret in first]


def test_nothing_secret_in_reprs() -> None:
    """Of what an application is likely to log: requests, headers, clients, responses."""
    request = sse.Request("POST", URL, {"Authorization": "h34der", "Cookie": "h34der"}, b"b0dy")
    texts = [
        repr(request),
        repr(HEADERS),
        repr(sse.connect(URL, headers={"X": "h34der"}, body="b0dy")),
        repr(sse.async_connect(URL, headers={"X": "h34der"}, body="b0dy")),
    ]
    assert texts[0] == f"Request('POST', '{SHOWN}', headers=['Authorization', 'Cookie'])"
    assert texts[1] == "Headers(['set-cookie', 'content-type'])"
    assert not [secret for secret in SECRETS for text in texts if secret in text]
