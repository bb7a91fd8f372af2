"""The fault suite, losses: streams that break off in every state, callbacks, and what is done to a client from outside.

docs/faults.md is its inventory: fault, what the client does, tests. Each scenario runs once with the blocking and once
with the async client, and fails if it leaves files, threads, tasks or exceptions behind (see conftest.py).
"""

# ruff: noqa: SIM117 - the server outlives the block in which the client is to raise

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import gzip
import os
import pickle
import re
import resource
import socket
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest

import httpclient
import sse
from drivers import QUICK, Leaks, causes, in_thread, run_body
from server import (
    CHUNKED,
    CLOSE,
    HOLD,
    RESET,
    SSE,
    BlackHole,
    ReservedPort,
    ScriptServer,
    chunk,
    event,
    eventually,
    head,
    redirect,
    respond,
)
from test_network import STATES, Stop, at_once, name_server

SILENCE = 0.15
"""Seconds without a byte that are taken for a dead connection here. What must arrive before comes in one packet."""
FAST: dict[str, Any] = {**QUICK, "retry_interval": 1}
NEXT = (SSE + event("n", "next")).encode()
"""The answer to a client that comes back, in one packet."""


# === Loss in every state of an answer ===

CRLF_EVENT = "id: 1\r\ndata: 1\r\n\r\n"
LENGTH = head(content_type="text/event-stream", content_length=500)
GZIP = head(content_type="text/event-stream", content_encoding="gzip")
IN_CHUNKS = CHUNKED.encode() + chunk(event(1))


def flushed(text: str) -> bytes:
    """A gzip stream up to here, without its end."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(text.encode()) + packer.flush(zlib.Z_SYNC_FLUSH)


def as_bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


# What was sent before the end, the ID that the client then has, whether a FIN there is the clean end of a body.
HEAD_CUTS: dict[str, tuple[bytes | str, str | None, bool]] = {
    "before the first byte": ("", None, False),
    "in the status line": ("HTTP/1.1 20", None, False),
    "in a header": ("HTTP/1.1 200 OK\r\nContent-Ty", None, False),
    "before the last LF of the head": (SSE[:-1], None, False),
    "after an interim answer": ("HTTP/1.1 103 Early Hints\r\n\r\n", None, False),
}
BODY_CUTS: dict[str, tuple[bytes | str, str | None, bool]] = {
    "after the head": (SSE, None, True),
    "after the head, chunked": (CHUNKED, None, False),
    "in a BOM": (SSE.encode() + b"\xef\xbb", None, True),
    "in a chunk size": (IN_CHUNKS + b"1", "1", False),
    "in the CRLF of a chunk size": (IN_CHUNKS + b"1f\r", "1", False),
    "after a chunk size": (IN_CHUNKS + b"1f\r\n", "1", False),
    "in a chunk": (IN_CHUNKS + b"1f\r\nid: 2\nda", "1", False),
    "after the data of a chunk": (IN_CHUNKS + b"10\r\nid: 2\ndata: 2\n\n", "2", False),
    "in the CRLF of a chunk": (IN_CHUNKS + b"10\r\nid: 2\ndata: 2\n\n\r", "2", False),
    "after a chunk": (IN_CHUNKS, "1", False),
    "in the last chunk": (IN_CHUNKS + b"0\r\n", "1", False),
    "in the trailers": (IN_CHUNKS + b"0\r\nX-Sum: 1\r\n", "1", False),
    "in a length": (LENGTH + event(1), "1", False),
    "in gzip": (GZIP.encode() + flushed(event(1)), "1", False),
    "before the checksum of gzip": (GZIP.encode() + gzip.compress(event(1).encode())[:-8], "1", False),
    "in a field name": (SSE + event(1) + "id: 2\nda", "1", True),
    "in a line": (SSE + event(1) + "id: 2\ndata: half", "1", True),
    "in an event": (SSE + event(1) + "id: 2\ndata: half\n", "1", True),
    "in a character": ((SSE + event(1) + "id: 2\ndata: ").encode() + b"\xe2\x82", "1", True),
    "between CR and LF": (SSE + event(1) + "id: 2\r\ndata: half\r", "1", True),
    "between the last CR and LF": (SSE + CRLF_EVENT[:-1], "1", True),
    "in a comment": (SSE + event(1) + ": keep", "1", True),
    "after an id without data": (SSE + event(1) + "id: 5\n\n", "5", True),
    "after an id that was cleared": (SSE + event(1) + "id\n\n", None, True),
    "after the last byte": (SSE + event(1), "1", True),
}
CUTS = {**HEAD_CUTS, **BODY_CUTS}
cuts = pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
endings = pytest.mark.parametrize("ending", [RESET, CLOSE], ids=["reset", "close"])


def events_of(cut: Any) -> list[str]:
    """The events that a cut lets through."""
    sent = as_bytes(cut[0])
    return [number for number in ("1", "2") if cut[1] == number == "2" or (number == "1" and delivered(sent))]


def delivered(sent: bytes) -> bool:
    _, _, body = sent.partition(b"\r\n\r\n")
    return b"data: 1" in body or b"gzip" in sent


@cuts
@endings
async def test_get_goes_on_after_a_loss_in_every_state(driver: Any, cut: Any, ending: Any) -> None:
    """What was whole is given out once; the next connection asks for what comes after it, and inherits no half."""
    sent, last_id, clean_end = cut
    lost: list[Any] = []
    with ScriptServer([as_bytes(sent), ending], [NEXT, HOLD]) as server:
        async with driver.connect(server.url, on_reconnect=lambda cause, _: lost.append(cause), **FAST) as events:
            assert await events.all_until("next") == events_of(cut)
            assert events.last_event_id == "n"
        assert [request["last-event-id"] for request in server.requests] == [None, last_id]
    assert [cause is None for cause in lost] == [clean_end and ending is CLOSE]


@cuts
@endings
async def test_post_is_never_repeated_after_a_loss_in_any_state(driver: Any, cut: Any, ending: Any) -> None:
    """What was whole is given out, then it raises; only a clean end is an end, and `until` makes that one raise too."""
    sent, _, clean_end = cut
    for until in (None, "[DONE]"):
        with ScriptServer([as_bytes(sent), ending]) as server:
            events = driver.connect(server.url, json={}, until=until, **QUICK)
            assert await events.take(len(events_of(cut))) == events_of(cut)
            if clean_end and ending is CLOSE and until is None:
                assert await events.next() is None
            else:
                with pytest.raises(sse.SSEConnectionError) as caught:
                    await events.next()
                assert caught.value.retries == 0
            assert await events.next() is None
            await events.close()
            assert [request.method for request in server.requests] == ["POST"]


@cuts
@endings
async def test_plain_request_raises_after_a_loss_in_every_state(driver: Any, cut: Any, ending: Any) -> None:
    """A body is whole or an error; there is nothing between."""
    sent, _, clean_end = cut
    with ScriptServer([as_bytes(sent), ending]) as server:
        if clean_end and ending is CLOSE:
            async with await driver.get(server.url) as reply:
                assert await reply.read() == as_bytes(sent).partition(b"\r\n\r\n")[2]
        else:
            with pytest.raises(httpclient.HttpError):
                await driver.get(server.url)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "name",
    [
        *(
            "before the first byte",
            "in a header",
            "after the head",
            "in a chunk size",
            "in a chunk",
            "in the last chunk",
        ),
        *("in a length", "in gzip", "in an event", "in a character", "between CR and LF", "after the last byte"),
    ],
)
async def test_silence_in_every_state_is_a_loss(driver: Any, name: str) -> None:
    """A peer that says nothing more, without FIN or RST: `timeout` bounds the head, `heartbeat_timeout` the body."""
    sent, last_id, _ = CUTS[name]
    lost: list[Any] = []
    options = {**QUICK, "heartbeat_timeout": SILENCE, "on_reconnect": lambda cause, _: lost.append(cause)}
    if name in HEAD_CUTS:
        options["timeout"] = (10, SILENCE)
    with ScriptServer([as_bytes(sent), HOLD], then=[NEXT, HOLD]) as server:
        with at_once(SILENCE * 0.9):
            async with driver.connect(server.url, **options) as events:
                assert await events.all_until("next") == events_of(CUTS[name])
        await server.closed(0)
        assert [request["last-event-id"] for request in server.requests[:2]] == [None, last_id]
    assert isinstance(lost[0], Exception)


@pytest.mark.parametrize("name", ["after the head", "in a chunk", "in a length", "in an event"])
async def test_silence_is_never_the_end_of_a_post(driver: Any, name: str) -> None:
    """It raises, and asks nothing again."""
    with ScriptServer([as_bytes(CUTS[name][0]), HOLD]) as server:
        events = driver.connect(server.url, body="x", heartbeat_timeout=SILENCE, **QUICK)
        await events.take(len(events_of(CUTS[name])))
        with pytest.raises(sse.SSEConnectionError) as caught:
            await events.next()
        assert any(isinstance(cause, httpclient.HttpTimeoutError) for cause in causes(caught.value))
        await events.close()
        assert len(server.connections) == 1


# === Loss while a connection is opened ===


async def looks_up(driver: Any, monkeypatch: pytest.MonkeyPatch, first: Any, timeout: float = 30.0) -> list[Any]:
    """A client whose first name look-up is answered by `first()`; the causes that it tells."""
    lost: list[Any] = []
    with ScriptServer([NEXT, HOLD]) as server:
        answers = iter([first])
        name_server(monkeypatch, lambda: next(answers, lambda: [("127.0.0.1", server.port)])())
        options = {**QUICK, "timeout": timeout, "on_reconnect": lambda cause, _: lost.append(cause)}
        async with driver.connect("http://stream.example/", **options) as events:
            assert (await events.next()).data == "next"
            assert (events.stats.connects, events.stats.retries) == (1, len(lost))
        assert len(server.requests) == 1
    return lost


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        OSError(errno.EMFILE, "Too many open files"),
        TimeoutError("timed out"),
        UnicodeError("label too long"),
        None,
    ],
    ids=lambda error: f"{type(error).__name__} {getattr(error, 'errno', '')}",
)
async def test_name_look_up_that_fails_is_repeated(driver: Any, error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the system says about it; no address at all is no better."""

    def fail() -> Any:
        if error is None:
            return []
        raise error

    (cause,) = await looks_up(driver, monkeypatch, fail)
    assert isinstance(cause, httpclient.HttpConnectionError)
    assert "stream.example" in str(cause)


async def test_connection_that_is_refused_is_tried_again(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with ReservedPort() as port:
        (cause,) = await looks_up(driver, monkeypatch, lambda: [("127.0.0.1", port)])
    assert isinstance(cause.__cause__, ConnectionRefusedError)


async def test_connection_that_nobody_answers_is_tried_again(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """SYNs that go nowhere: `timeout` ends it."""
    with BlackHole() as hole:
        cause, *_ = await looks_up(driver, monkeypatch, lambda: [("127.0.0.1", hole.port)], timeout=SILENCE)
    assert isinstance(cause, httpclient.HttpTimeoutError)


async def test_network_that_is_unreachable_is_tried_again(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of connect() itself: a broadcast address takes no TCP."""
    (cause,) = await looks_up(driver, monkeypatch, lambda: [("255.255.255.255", 9)])
    assert isinstance(cause.__cause__, OSError)


async def test_open_files_that_run_out_are_waited_for(driver: Any) -> None:
    """socket() fails with EMFILE: a lost connection like any other, and nothing is lost by it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lost: list[Any] = []

    def on_reconnect(cause: Any, _: float) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if not lost:  # not before: its accept() would fail as well
            stack.enter_context(ScriptServer([NEXT, HOLD], port=port))
        lost.append(cause)

    with ReservedPort() as port, contextlib.ExitStack() as stack:
        events = driver.connect(f"http://127.0.0.1:{port}/", on_reconnect=on_reconnect, **QUICK)
        lowest = os.dup(0)
        os.close(lowest)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            assert (await events.next()).data == "next"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await events.close()
    assert [cause.__cause__.errno for cause in lost] == [errno.EMFILE]


async def test_hundred_losses_in_a_row_leave_nothing_open(driver: Any) -> None:
    """Of connections that break off in turn in each state, none stays behind while the client lives on."""
    scripts = [[as_bytes(cut[0]), ending] for cut in CUTS.values() for ending in (RESET, CLOSE)]
    with ScriptServer(*scripts, *scripts, then=[NEXT, HOLD]) as server:
        before = Leaks()
        options = {"retry_interval": 0, "max_retry_interval": 1, "jitter": 0}
        async with driver.connect(server.url, **options) as events:
            assert set(await events.all_until("next")) == {"1", "2"}
            await eventually(lambda: sum(not connection.ended for connection in server.connections) == 1)
            assert len(server.connections) == 2 * len(scripts) + 1
            assert events.stats.connects + events.stats.retries > len(scripts)
            sockets = [link for link in Leaks().files - before.files if "socket:" in link]
            assert len(sockets) <= 2  # ours and the server's of the last connection
        del before


# === 204, at any time ===

NO_CONTENT = "HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize(
    "scripts",
    [
        [[NO_CONTENT]],
        [[NO_CONTENT, HOLD]],
        [[NO_CONTENT + "a body that must not be"]],
        ["HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"],
        ["HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\nContent-Type: text/html\r\n\r\n"],
        ["HTTP/1.0 204 Done\r\n\r\n"],
        ["HTTP/1.1 103 Early Hints\r\n\r\n" + NO_CONTENT],
        [redirect("/next"), NO_CONTENT],
        [[SSE], NO_CONTENT],
        [[RESET], NO_CONTENT],
        [[SSE, "id: 7\n\n", RESET], NO_CONTENT],
        [respond(503, retry_after=0), NO_CONTENT],
        [[CHUNKED, chunk("retry: 1\n\n")], [CLOSE], NO_CONTENT],
    ],
    ids=lambda scripts: repr(scripts)[-60:],
)
@pytest.mark.parametrize("until", [None, "[DONE]"])
async def test_204_ends_the_loop_at_any_time(driver: Any, scripts: Any, until: Any) -> None:
    """First, or after a redirect, a loss, a status to retry: the server's last word, even before `until`; no error."""
    with ScriptServer(*scripts, then=[SSE, event("too late"), HOLD]) as server:
        options = {**QUICK, "retry_statuses": sse.TRANSIENT, "until": until}
        async with driver.connect(server.url, **options) as events:
            assert await events.all() == []
            assert await events.next() is None
        assert len(server.connections) == len(scripts)


async def test_204_ends_a_post(driver: Any) -> None:
    with ScriptServer() as server:
        assert await driver.connect(server.url, json={}, until="x").all() == []
        assert len(server.requests) == 1


# === Callbacks that raise, close or restart ===


class Abort(BaseException):
    """What a debugger, or pytest itself, may raise anywhere."""


CALLBACKS = ["headers", "on_open", "on_reconnect", "on_comment"]
callbacks = pytest.mark.parametrize("callback", CALLBACKS)


def calls(action: Any) -> Any:
    """A callback that acts when it is called for the first time."""
    times = iter([action])

    def callback(*_: Any) -> dict[str, str]:
        next(times, lambda: None)()
        return {}

    return callback


@callbacks
@pytest.mark.parametrize("kind", [Stop, Abort, ConnectionError, StopIteration])
async def test_callback_that_raises_leaves_nothing_open(driver: Any, callback: str, kind: Any) -> None:
    """The exception ends the loop as it is; the connection is closed, and the client stays ended."""

    def act() -> None:
        raise kind("of the application")

    with ScriptServer([SSE + event(1) + ": comment\n\n", CLOSE]) as server:
        events = driver.connect(server.url, **{callback: calls(act)}, **QUICK)
        with pytest.raises((kind, RuntimeError)) as caught:
            assert await events.take(2) == ["unreached"]
        if kind is StopIteration:  # which no iterator may let through
            assert isinstance(caught.value, RuntimeError)
        else:
            assert type(caught.value) is kind
        await events.close()
        assert await events.next() is None
        assert len(server.connections) == (callback != "headers")
        if server.connections:
            await eventually(lambda: server.connections[0].ended)


@callbacks
async def test_callback_that_closes_ends_the_loop_without_an_error(driver: Any, callback: str) -> None:
    """close() in the consumer's own thread; in the async client, as a task, since callbacks cannot await."""
    tasks = []

    def act() -> None:
        if driver.is_async:
            tasks.append(asyncio.ensure_future(events.client.close()))
        else:
            events.client.close()

    with ScriptServer([SSE + event(1) + ": comment\n\n", CLOSE], [SSE, HOLD], [SSE, HOLD]) as server:
        options = {**QUICK, "retry_interval": 300} if callback == "on_reconnect" else QUICK
        events = driver.connect(server.url, **{callback: calls(act)}, **options)
        with at_once():
            assert set(await events.all()) <= {"1"}
        for task in tasks:
            await task
        assert await events.next() is None
        assert len(server.requests) <= 1


async def test_async_headers_that_close_their_own_client_end_its_loop(async_driver: Any) -> None:
    """The client awaits the function that awaits the client's end."""

    async def headers() -> dict[str, str]:
        await events.client.close()
        return {}

    with ScriptServer(then=[SSE, HOLD]) as server:
        events = async_driver.connect(server.url, headers=headers, **QUICK)
        with at_once():
            assert await events.all() == []
        assert len(server.requests) == 0


@callbacks
async def test_callback_that_restarts_goes_on_at_once(driver: Any, callback: str) -> None:
    """Nothing is lost or doubled by it, no wait, no failure counted."""

    def answer(connection: Any) -> Any:
        after = int(connection.request["last-event-id"] or 0)
        return [SSE + ": comment\n\n" + "".join(map(event, range(after + 1, 4))), CLOSE if after < 3 else HOLD]

    options = {**QUICK, callback: calls(lambda: events.client.restart())}
    with ScriptServer(then=answer) as server:
        events = driver.connect(server.url, **options)
        with at_once():
            assert await events.take(3) == ["1", "2", "3"]
        pending = events.start_next()
        await server.requested(2)
        await events.close()
        assert await pending is None


@pytest.mark.parametrize("headers", [None, "Authorization: x", ["a"], {"a": 1}, {1: "a"}, {"a b": "c"}, {"a": "b\nc"}])
async def test_headers_function_that_returns_nonsense_ends_the_loop(driver: Any, headers: Any) -> None:
    """A programming error is told, not tried again; nothing goes out."""
    with ScriptServer() as server:
        with pytest.raises((TypeError, ValueError), match="headers"):
            await driver.connect(server.url, headers=lambda: headers, **QUICK).next()
        assert not server.connections


# === restart() and close() from outside, in each state ===


class Counting:
    """A driver whose clients count their openings."""

    def __init__(self, driver: Any) -> None:
        self.driver, self.openings = driver, 0

    def connect(self, url: str, **options: Any) -> Any:
        def headers() -> dict[str, str]:
            self.openings += 1
            return {}

        return self.driver.connect(url, headers=headers, **options)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_restart_in_every_state_opens_again_at_once(
    driver: Any, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while opening: what hangs there is dropped for a new attempt; that is no retry."""
    counting = Counting(driver)
    async with state(counting, monkeypatch) as (events, reached):
        pending = events.start_next()
        await reached()
        retries = events.stats.retries
        for opening in (2, 3):
            with at_once():
                await events.restart()
                await eventually(lambda: counting.openings >= opening or pending.done())  # noqa: B023
        assert counting.openings >= 2
        assert events.stats.retries == retries
        with at_once():
            await events.close()
            assert await pending is None


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_many_threads_restart_and_close_in_every_state(
    driver: Any, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """restart() from four threads at once, then close(): the loop ends, once, without an error."""
    async with state(driver, monkeypatch) as (events, reached):
        pending = events.start_next()
        await reached()
        await asyncio.gather(*[in_thread(events.client.restart) for _ in range(4)])
        with at_once():
            await asyncio.gather(*[events.close() for _ in range(3)])
            assert await pending is None


async def test_restarts_at_any_moment_lose_and_double_nothing(driver: Any) -> None:
    """Two threads restart all the time, while the events come numbered and the connections end by themselves too."""
    done = threading.Event()

    def answer(connection: Any) -> Any:
        after = int(connection.request["last-event-id"] or 0)
        return [SSE, [event(number) for number in range(after + 1, after + 8)], CLOSE]

    def disturb() -> None:
        for _ in range(100):  # and no more: on a slow machine they would come before any event each time
            if done.wait(0.0015):
                return
            events.client.restart()

    with ScriptServer(then=answer) as server:
        options = {"retry_interval": 0, "max_retry_interval": 1, "jitter": 0}
        async with driver.connect(server.url, **options) as events:
            threads = [in_thread(disturb) for _ in range(2)]
            try:
                found = await events.take(300)
            finally:
                done.set()
                await asyncio.gather(*threads)
        assert found == [str(number) for number in range(1, 301)]
        assert len(server.connections) > 300 / 7


async def test_cancelled_again_and_again_loses_nothing(async_driver: Any) -> None:
    """wait_for() that runs out in every state of many reconnects: each event comes once, in order."""

    def answer(connection: Any) -> Any:
        after = int(connection.request["last-event-id"] or 0)
        return [SSE, [event(number) for number in range(after + 1, after + 4)], RESET]

    found: list[str] = []
    with ScriptServer(then=answer) as server:
        async with async_driver.connect(server.url, retry_interval=1, max_retry_interval=2, jitter=0) as events:
            wait, ran_out = 0.0001, 0
            while len(found) < 60:
                try:
                    found.append((await events.next(wait)).data)
                    wait = 0.0001
                except asyncio.TimeoutError:
                    ran_out += 1
                    wait *= 1.3
        assert found == [str(number) for number in range(1, 61)]
        assert ran_out > 20
        assert len(server.connections) >= 20


# === Use after the end ===


async def closed_unopened(driver: Any, server: Any) -> Any:
    events = driver.connect(server.url, **QUICK)
    await events.close()
    return events


async def closed_open(driver: Any, server: Any) -> Any:
    server.scripts = ([SSE + event(1), HOLD],)
    events = driver.connect(server.url, **QUICK)
    assert (await events.next()).data == "1"
    await events.close()
    return events


async def ended(driver: Any, server: Any) -> Any:
    server.scripts = ([SSE + event(1)],)
    events = driver.connect(server.url, reconnect=False)
    assert await events.all() == ["1"]
    return events


async def ended_by_204(driver: Any, server: Any) -> Any:
    events = driver.connect(server.url, **QUICK)
    assert await events.all() == []
    return events


async def failed(driver: Any, server: Any) -> Any:
    server.scripts = (respond(404, "gone"),)
    events = driver.connect(server.url, **QUICK)
    with pytest.raises(sse.SSEHTTPError):
        await events.next()
    return events


async def left_by_an_exception(driver: Any, server: Any) -> Any:
    server.scripts = ([SSE + event(1) + event(2), HOLD],)
    events = driver.connect(server.url)
    with contextlib.suppress(Stop):
        async with events:
            assert (await events.next()).data == "1"
            raise Stop
    return events


@pytest.mark.parametrize(
    "end",
    [closed_unopened, closed_open, ended, ended_by_204, failed, left_by_an_exception],
    ids=lambda end: end.__name__,
)
async def test_use_after_the_end_is_harmless(driver: Any, end: Any) -> None:
    """The loop is over, for good: nothing opens again, nothing raises, what was learnt can still be read."""
    with ScriptServer(then=[SSE + event("again"), HOLD]) as server:
        if end is ended_by_204:
            server.then = NO_CONTENT
        events = await end(driver, server)
        requests, seen, last = len(server.requests), events.stats.events, events.last_event_id
        with at_once():
            assert await events.next() is None
            await events.close()
            await events.restart()
            assert await events.all() == []
            async with events as again:
                assert await again.next() is None
            await events.close()
        assert (events.stats.events, events.last_event_id) == (seen, last)
        assert events.retry_interval
        assert "not open" not in repr(events.client)
        assert len(server.requests) == requests


async def test_response_after_its_close_is_an_error(driver: Any) -> None:
    """Of httpclient: what had not been read is gone, and said to be; closing again is nothing."""
    with ScriptServer(then=[head(content_length=10), "12345", HOLD]) as server:
        reply = await driver.get(server.url, stream=True)
        pieces = reply.iter_bytes()
        assert await anext(pieces) == b"12345"
        await reply.close()
        with pytest.raises(httpclient.HttpConnectionError):
            await anext(pieces)
        with pytest.raises(httpclient.HttpConnectionError):
            await reply.read()
        await reply.close()
        assert reply.status_code == 200


@pytest.mark.parametrize("name", ["before the first byte", "in a chunk", "in a length", "in an event"])
async def test_errors_of_real_losses_pickle(driver: Any, name: str) -> None:
    """They go to another process with all they tell."""
    with ScriptServer([as_bytes(CUTS[name][0]), RESET]) as server:
        events = driver.connect(server.url + "?token=s3cret", max_retries=0)
        with pytest.raises(sse.SSEConnectionError) as caught:
            await events.take(5)
        await events.close()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(caught.value, protocol))
        assert (type(copy), str(copy)) == (sse.SSEConnectionError, str(caught.value))
        assert (copy.url, copy.retries) == (caught.value.url, 0)
        assert type(copy.last_error) is type(caught.value.last_error)
    assert "s3cret" not in str(caught.value)


# === The watch itself ===


def test_leaks_of_files_and_threads_are_noticed() -> None:
    """The fixture that all tests stand on sees what it should."""
    before = Leaks()
    with socket.socket():
        with pytest.raises(AssertionError, match="socket:"):
            before.check(within=0.01)
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    with pytest.raises(AssertionError, match="Thread"):
        before.check(within=0.01)
    go.set()
    thread.join()
    before.check()


@pytest.mark.parametrize("leak", ["task", "exception of a task", "exception of a future"])
def test_leaks_of_a_loop_are_noticed(leak: str) -> None:
    """A task that goes on, and exceptions that nobody has looked at."""

    async def fail() -> None:
        raise Stop

    async def body() -> None:
        if leak == "task":
            tasks.append(asyncio.ensure_future(asyncio.sleep(60)))
        elif leak == "exception of a task":
            await asyncio.wait({asyncio.ensure_future(fail())})
        else:
            cyclic: list[Any] = [asyncio.get_running_loop().create_future()]
            cyclic[0].set_exception(Stop())
            cyclic.append(cyclic)  # only the garbage collector finds it

    tasks: list[Any] = []
    gc.collect()
    with pytest.raises(AssertionError, match=r"left behind|never retrieved"):
        asyncio.run(run_body(body(), 5, patience=0.05))


def test_inventory_names_tests_that_exist() -> None:
    """docs/faults.md: each row names tests, each test of the fault suite is in a row."""
    folder = Path(__file__).parent
    tests = {
        path.name: set(re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8")))
        for path in folder.glob("test_*.py")
    }
    page = (folder.parent / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = [row for row in re.findall(r"^\|.*\|$", page, re.MULTILINE) if not re.search("---|held by", row)]
    assert len(rows) > 30
    assert [row for row in rows if "`test_" not in row] == []
    named = set(re.findall(r"`(test_\w+)`", page))
    assert named <= set().union(*tests.values()), named - set().union(*tests.values())
    of_faults = set().union(*[names for name, names in tests.items() if name.startswith("test_faults")])
    assert of_faults <= named, of_faults - named
