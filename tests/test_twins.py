"""The blocking and the asyncio half of both modules do not drift apart: same names, same arguments, same defaults."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import httpclient
import sse

ASYNC_NAMES = {
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
    "__iter__": "__aiter__",
    "__next__": "__anext__",
    "read": "aread",
    "iter_bytes": "aiter_bytes",
    "iter_lines": "aiter_lines",
}
"""What the twin of a method is called, where it is not called the same."""

TWINS: list[tuple[Any, Any, dict[str, str], set[str]]] = [
    # blocking, async, names of its own, what the async twin has beyond (or instead)
    (sse.SSEClient, sse.AsyncSSEClient, {}, {"aclose", "__del__"}),
    (sse.EventSource, sse.AsyncEventSource, {}, {"aclose"}),
    (httpclient.Response, httpclient.AsyncResponse, {"close": "aclose"}, {"abort", "__del__"}),
    (httpclient.Transport, httpclient.AsyncTransport, {"close": "aclose"}, {"close"}),
]
twins = pytest.mark.parametrize(
    ("blocking", "asynchronous", "own_names", "beyond"), TWINS, ids=[pair[0].__name__ for pair in TWINS]
)

ONLY_BLOCKING = {httpclient.Transport: {"abort"}}  # an async request is ended by cancelling it

PROTOCOL = ("__enter__", "__exit__", "__iter__", "__next__", "__call__", "__init__", "__repr__", "__del__")
PROTOCOL += ("__aenter__", "__aexit__", "__aiter__", "__anext__")


def members(cls: type) -> set[str]:
    """Public names of a class, and those by which the language calls it."""
    return {name for name in dir(cls) if not name.startswith("_") or (name in PROTOCOL and not inherited(cls, name))}


def inherited(cls: type, name: str) -> bool:
    return getattr(cls, name) is getattr(object, name, None)


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@twins
def test_members_agree(blocking: Any, asynchronous: Any, own_names: dict[str, str], beyond: set[str]) -> None:
    """Every name of one is a name of the other, in its async spelling."""
    names = {**ASYNC_NAMES, **own_names}
    expected = {names.get(name, name) for name in members(blocking) - ONLY_BLOCKING.get(blocking, set())}
    assert members(asynchronous) == expected | beyond


@twins
def test_signatures_agree(blocking: Any, asynchronous: Any, own_names: dict[str, str], beyond: set[str]) -> None:
    """Same parameters, kinds and defaults; properties stay properties."""
    names = {**ASYNC_NAMES, **own_names}
    for name in members(blocking) - ONLY_BLOCKING.get(blocking, set()):
        one, other = (
            inspect.getattr_static(cls, n) for cls, n in ((blocking, name), (asynchronous, names.get(name, name)))
        )
        assert isinstance(one, property) == isinstance(other, property), name
        if isinstance(one, classmethod):
            one, other = one.__func__, other.__func__
        if inspect.isfunction(one):
            assert parameters(one) == parameters(other), name


@twins
def test_public_names_have_docstrings(
    blocking: Any, asynchronous: Any, own_names: dict[str, str], beyond: set[str]
) -> None:
    for cls in (blocking, asynchronous):
        for name in members(cls):
            if not name.startswith("_"):
                assert inspect.getdoc(getattr(cls, name)), f"{cls.__name__}.{name}"


FUNCTIONS = [
    (sse.connect, sse.async_connect),
    (sse.batched, sse.async_batched),
    (sse.buffered, sse.async_buffered),
    (httpclient.request, httpclient.async_request),
    (httpclient.get, httpclient.async_get),
    (httpclient.post, httpclient.async_post),
]


@pytest.mark.parametrize(("blocking", "asynchronous"), FUNCTIONS, ids=lambda function: function.__name__)
def test_functions_agree(blocking: Any, asynchronous: Any) -> None:
    assert parameters(blocking) == parameters(asynchronous)


def test_connect_takes_what_the_class_takes() -> None:
    """DESIGN: the classes take the same arguments."""
    assert parameters(sse.connect) == parameters(sse.SSEClient)
    assert parameters(sse.async_connect) == parameters(sse.AsyncSSEClient)


def test_options_and_defaults_are_those_of_the_contract() -> None:
    """Names, defaults and order are fixed: users write them down."""
    found = {p.name: p.default for p in inspect.signature(sse.connect).parameters.values()}
    empty = inspect.Parameter.empty
    assert found == {
        "url": empty,
        "method": None,
        "headers": None,
        "json": None,
        "body": None,
        "params": None,
        "timeout": 30.0,
        "heartbeat_timeout": None,
        "retry_interval": 3000,
        "max_retry_interval": 60_000,
        "backoff": 1.5,
        "jitter": 0.1,
        "max_retries": -1,
        "reconnect": None,
        "retry_statuses": (),
        "last_event_id": "",
        "until": None,
        "check_content_type": True,
        "max_event_size": 16 * 1024 * 1024,
        "verify": True,
        "proxy": None,
        "on_open": None,
        "on_reconnect": None,
        "on_comment": None,
        "transport": None,
    }
    kinds = {p.kind for name, p in inspect.signature(sse.connect).parameters.items() if name != "url"}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}
    found = {p.name: p.default for p in inspect.signature(httpclient.request).parameters.values()}
    assert {k: v for k, v in found.items() if k != "timeout"} == {
        "method": empty,
        "url": empty,
        "headers": None,
        "params": None,
        "json": None,
        "body": None,
        "verify": True,
        "proxy": None,
        "stream": False,
        "read_timeout": None,
    }
    assert sse.TRANSIENT == (408, 425, 429, 500, 502, 503, 504)


def test_public_names_of_both_modules_come_in_pairs() -> None:
    """Whatever is public and async has its blocking twin, under the name one expects."""
    for module in (sse, httpclient):
        names = set(module.__all__)
        for name in names:
            assert getattr(module, name)
            if name.startswith(("async_", "Async")):
                assert name.removeprefix("async_").removeprefix("Async") in names
            elif f"async_{name}" not in names and f"Async{name}" not in names:
                assert name.startswith(("SSE", "Http", "Headers", "Request", "TRANSIENT")), name
