"""Both clients over real sockets: what servers and networks do on bad days, and what must not be left behind."""

# ruff: noqa: SIM117 - the server outlives the block in which the client is to raise

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import logging
import pickle
import socket
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from typing import Any

import pytest

import httpclient
import sse
from drivers import QUICK, causes, in_thread
from proxy import CutProxy, http_proxy
from server import (
    CHUNKED,
    CLOSE,
    END_CHUNK,
    HALF_CLOSE,
    HOLD,
    RAW,
    READ,
    RECV,
    RESET,
    SSE,
    BlackHole,
    ReservedPort,
    ScriptServer,
    chunk,
    drip,
    each,
    endless,
    event,
    eventually,
    head,
    redirect,
    respond,
    tcp_table,
)

ONCE: dict[str, Any] = {**QUICK, "max_retries": 0}
"""Options of a client that gives up at the first loss."""
AT_ONCE = 2.0
"""Seconds within which what must happen "at once" has happened, on a busy machine too."""
MOMENTS = [0.0, 0.001, 0.03]
"""Seconds after a state was reached: something outside comes just before, while or after the client blocks in it."""


class Stop(Exception):  # noqa: N818
    """Raised by callbacks to end a loop."""


@contextlib.contextmanager
def at_once(least: float = 0.0, most: float = AT_ONCE) -> Any:
    """The block takes `least` to `most` seconds."""
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    assert least <= took <= most, f"took {took:.2f} s"


def name_server(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], list[tuple[str, int]]]) -> None:
    """Looks names up by `answer()`, which gives addresses and ports; what is an address already, as ever."""
    system = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        if flags & socket.AI_NUMERICHOST or "example" not in str(host):
            return system(host, port, family, type, proto, flags)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in answer()]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


# === States in which something comes from outside: close(), restart(), a cancellation ===

State = Callable[[Any, pytest.MonkeyPatch], Any]


@contextlib.asynccontextmanager
async def looking_up(driver: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """The name look-up does not answer; yields the client and how to wait until it is in that state."""
    asked, answer = threading.Event(), threading.Event()

    def look_up() -> Any:
        asked.set()
        answer.wait(30)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    name_server(monkeypatch, look_up)
    try:
        yield driver.connect("http://stream.example/", timeout=60), lambda: eventually(asked.is_set)
    finally:
        answer.set()


@contextlib.asynccontextmanager
async def connecting(driver: Any, _: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """The server's queue of connections is full: SYNs go unanswered."""
    with BlackHole() as hole:
        yield driver.connect(hole.url, timeout=60), lambda: eventually(lambda: hole.connecting() == 1)


@contextlib.asynccontextmanager
async def shaking_hands(driver: Any, _: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """The server takes the ClientHello and never answers."""
    with ScriptServer(then=[RAW, HOLD]) as server:
        yield driver.connect(server.url.replace("http:", "https:"), timeout=60), lambda: server.received(0)


@contextlib.asynccontextmanager
async def tunnelling(driver: Any, _: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """The proxy never answers a CONNECT."""
    with ScriptServer(then=[HOLD]) as proxy:
        client = driver.connect("https://stream.example/", proxy=proxy.origin, timeout=60)
        yield client, lambda: proxy.requested(1)


@contextlib.asynccontextmanager
async def awaiting_head(driver: Any, _: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """The server has the request and sends half a head."""
    with ScriptServer(then=["HTTP/1.1 200 OK\r\nContent-", HOLD]) as server:
        yield driver.connect(server.url, timeout=60), lambda: server.requested(1)


@contextlib.asynccontextmanager
async def reading(driver: Any, _: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """The stream is open and silent."""
    with ScriptServer([SSE, HOLD]) as server:
        client = driver.connect(server.url)
        yield client, lambda: eventually(lambda: client.response is not None)


@contextlib.asynccontextmanager
async def reading_tls(driver: Any, _: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """The stream is open and silent, under TLS."""
    from conftest import Authority

    with ScriptServer(then=[SSE, HOLD], tls=Authority().server()) as server:
        client = driver.connect(server.url, verify=False)
        yield client, lambda: eventually(lambda: client.response is not None)


@contextlib.asynccontextmanager
async def reading_error(driver: Any, _: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """The server has sent a 500 and its body does not come."""
    with ScriptServer(then=[head(500, content_length=9), "half", HOLD]) as server:
        yield driver.connect(server.url, timeout=60), lambda: server.requested(1)


@contextlib.asynccontextmanager
async def waiting(driver: Any, _: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """The connection was lost; the next one is a minute away."""
    lost = threading.Event()
    with ScriptServer([SSE]) as server:
        client = driver.connect(server.url, retry_interval=60_000, on_reconnect=lambda *_: lost.set())
        yield client, lambda: eventually(lost.is_set)


OPENING = [looking_up, connecting, shaking_hands, tunnelling, awaiting_head, reading_error]
STATES = [*OPENING, reading, reading_tls, waiting]
states = pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
opening = pytest.mark.parametrize("state", OPENING, ids=lambda state: state.__name__)
moments = pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment * 1000:.0f}ms")


@states
@moments
async def test_close_from_outside_ends_the_loop_at_once(
    driver: Any, state: Any, moment: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """close() from another thread or task ends a blocked consumer's loop, without an exception."""
    async with state(driver, monkeypatch) as (events, reached):
        pending = events.start_next()
        await reached()
        await asyncio.sleep(moment)
        with at_once():
            await events.close()
            assert await pending is None
        assert await events.next() is None
        await events.close()


@states
async def test_close_before_the_first_read_keeps_it_closed(
    driver: Any, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that was closed never opens anything."""
    async with state(driver, monkeypatch) as (events, _):
        await events.close()
        with at_once():
            assert await events.next() is None
        assert events.stats.connects == 0


@states
async def test_cancelled_iteration_is_all_gone_after_the_with(
    async_driver: Any, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task cancelled in `async for` leaves its `async with`, which leaves nothing behind."""
    async with state(async_driver, monkeypatch) as (events, reached):
        client, before = events.client, asyncio.all_tasks()

        async def consume() -> None:
            try:
                async for _ in client:
                    pass
            finally:
                await client.aclose()

        task = asyncio.create_task(consume())
        await reached()
        await asyncio.sleep(0.01)
        with at_once():
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await no_new_tasks(before)
        if state is looking_up:
            assert all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())


@opening
async def test_cancelled_entry_leaves_nothing_behind(
    async_driver: Any, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task cancelled while `async with` opens never reaches its `__aexit__`; the client cleans up itself."""
    async with state(async_driver, monkeypatch) as (events, reached):
        before = asyncio.all_tasks()

        async def consume() -> None:
            async with events.client:
                pass

        task = asyncio.create_task(consume())
        await reached()
        await asyncio.sleep(0.01)
        with at_once():
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await no_new_tasks(before)


async def no_new_tasks(before: set[Any]) -> None:
    await eventually(lambda: asyncio.all_tasks() <= before, "all other tasks end", AT_ONCE)


@states
async def test_waiting_with_a_deadline_can_go_on_later(
    driver: Any, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every state a wait_for() may run out again and again; the client stays usable, and can be closed."""
    async with state(driver, monkeypatch) as (events, reached):
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await events.next(0.02)
        await reached()
        with pytest.raises(asyncio.TimeoutError):
            await events.next(0.02)
        with at_once():
            await events.close()
            assert await events.next() is None


async def test_close_while_events_are_being_consumed_ends_the_loop(driver: Any) -> None:
    """A consumer that never blocks because there is always an event is ended too."""
    with ScriptServer([SSE, endless(event("x") * 100)]) as server:
        async with driver.connect(server.url) as events:
            assert len(await events.take(5)) == 5
            with at_once():
                await events.close()
                while await events.next():
                    pass


def test_close_may_come_from_a_callback_and_from_many_threads() -> None:
    """close() within on_comment, and by several threads at once, neither deadlocks nor raises."""
    with ScriptServer([SSE, ": now\n\n", HOLD]) as server:
        with sse.connect(server.url, on_comment=lambda _: client.close()) as client, at_once():
            assert list(client) == []
    with ScriptServer([SSE, HOLD]) as server, sse.connect(server.url) as client:
        threads = [threading.Thread(target=client.close) for _ in range(8)]
        consumer = threading.Thread(target=list, args=(client,))
        consumer.start()
        for thread in threads:
            thread.start()
        with at_once():
            for thread in [*threads, consumer]:
                thread.join(AT_ONCE)
        assert not consumer.is_alive()


async def test_async_close_may_come_from_a_callback() -> None:
    """`await close()` by the consumer's own task, between two events, ends its loop."""
    with ScriptServer([SSE, event(1), event(2), HOLD]) as server:
        seen = []
        async with sse.async_connect(server.url) as client:
            async for found in client:
                seen.append(found.data)
                await client.close()
        assert seen == ["1"]


# === restart() ===


@pytest.mark.parametrize("moment", MOMENTS)
async def test_restart_opens_again_at_once_where_it_stopped(driver: Any, moment: float) -> None:
    """A consumer blocked in a read gets its next event from the new connection, without a wait."""
    with ScriptServer([SSE, event(1), HOLD], [SSE, event(2), HOLD]) as server:
        async with driver.connect(server.url, retry_interval=60_000) as events:
            assert (await events.next()).data == "1"
            pending = events.start_next()
            await asyncio.sleep(moment)
            with at_once():
                await events.restart()
                assert (await pending).data == "2"
            assert server.requests[1]["last-event-id"] == "1"
            await server.closed(0)


async def test_restart_ends_a_long_wait(driver: Any) -> None:
    """A minute's reconnect wait is cut short."""
    lost = threading.Event()
    with ScriptServer([SSE, event(1)], [SSE, event(2), HOLD]) as server:
        options = {"retry_interval": 60_000, "on_reconnect": lambda *_: lost.set()}
        async with driver.connect(server.url, **options) as events:
            assert (await events.next()).data == "1"
            pending = events.start_next()
            await eventually(lost.is_set)
            with at_once():
                await events.restart()
                assert (await pending).data == "2"


async def test_restart_counts_as_no_failure(driver: Any) -> None:
    """max_retries=0 forbids losses, not restarts; three in a row work."""
    with ScriptServer(then=lambda c: [SSE, event(c.index), HOLD]) as server:
        async with driver.connect(server.url, **ONCE) as events:
            for number in range(4):
                assert (await events.next()).data == str(number)
                await events.restart()


async def test_async_restart_works_from_another_thread() -> None:
    """The async client's restart() is called from any thread."""
    with ScriptServer([SSE, event(1), HOLD], [SSE, event(2), HOLD]) as server:
        async with sse.async_connect(server.url, retry_interval=60_000) as events:
            await anext(events)
            pending = asyncio.ensure_future(events.__anext__())
            await asyncio.sleep(0.01)
            with at_once():
                await in_thread(events.restart)
                assert (await pending).data == "2"


# === Deadlines and silence ===


@pytest.mark.parametrize("timeout", [0.5, (0.5, 0.5), (60, 0.5)], ids=str)
async def test_a_dripping_head_meets_one_deadline(driver: Any, timeout: Any) -> None:
    """A byte every 0.1 s does not move the deadline."""
    with ScriptServer([drip("HTTP/1.1 200 OK\r\n" + "x-long: " + "x" * 300, 0.1)]) as server:
        with pytest.raises(sse.SSEConnectionError) as caught, at_once(0.4):
            await driver.connect(server.url, timeout=timeout, **ONCE).next()
        assert isinstance(caught.value.last_error, Exception)
        await server.closed(0)


async def test_the_deadline_covers_connecting(driver: Any) -> None:
    """A server that does not answer a SYN is given up at `timeout`, or at the first of a pair."""
    with BlackHole() as hole:
        for timeout in (0.3, (0.3, 60)):
            with pytest.raises(sse.SSEConnectionError), at_once(0.25):
                await driver.connect(hole.url, timeout=timeout, **ONCE).next()


async def test_the_deadline_covers_the_handshake_and_the_look_up(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a silent TLS server nor a silent name server holds a client longer."""
    for state in (shaking_hands, looking_up):
        async with state(driver, monkeypatch) as (events, _):
            url = events.client.url
            with pytest.raises(sse.SSEConnectionError), at_once(0.25):
                await driver.connect(url, timeout=0.3, **ONCE).next()


async def test_the_deadline_covers_all_redirects_together(driver: Any) -> None:
    """Each of them is quick enough, their sum is not."""
    hop = [drip(redirect("/again"), 0.2, 40)]
    with ScriptServer(then=hop) as server:
        with pytest.raises(sse.SSEConnectionError), at_once(0.4, 1.5):
            await driver.connect(server.url, timeout=0.5, **ONCE).next()
        assert 1 <= len(server.requests) <= 3


async def test_the_deadline_ends_with_the_head(driver: Any) -> None:
    """A stream that is idle for longer than `timeout` is not cut."""
    with ScriptServer([SSE, drip(event(1), 0.05)]) as server:
        async with driver.connect(server.url, timeout=0.2, **QUICK) as events:
            with at_once(0.4):
                assert (await events.next()).data == "1"
        assert len(server.connections) == 1


async def test_a_plain_request_obeys_its_deadline_too(driver: Any) -> None:
    """httpclient's `timeout` bounds the head; its `read_timeout` each wait for more of the body."""
    with ScriptServer([drip("HTTP/1.1 200 OK\r\n" + "x" * 100)]) as server:
        with pytest.raises(httpclient.HttpTimeoutError), at_once(0.2):
            await driver.get(server.url, timeout=0.3)
    with ScriptServer([head(content_length=9), "half", HOLD]) as server:
        with pytest.raises(httpclient.HttpTimeoutError), at_once(0.2):
            async with await driver.get(server.url, stream=True, read_timeout=0.3) as reply:
                await reply.read()


async def test_silence_is_a_lost_connection(driver: Any) -> None:
    """After heartbeat_timeout without a byte the client reconnects."""
    lost: list[Any] = []
    with ScriptServer([SSE, event(1), HOLD], [SSE, event(2), HOLD]) as server:
        options = {**QUICK, "heartbeat_timeout": 0.2, "on_reconnect": lambda cause, _: lost.append(cause)}
        async with driver.connect(server.url, **options) as events:
            with at_once(0.2):
                assert await events.take(2) == ["1", "2"]
            await server.closed(0)
        assert server.requests[1]["last-event-id"] == "1"
        assert len(lost) == 1
        assert isinstance(lost[0], Exception)


async def test_comments_count_as_life(driver: Any) -> None:
    """Single bytes of a comment, each in time, keep a stream alive for longer than heartbeat_timeout."""
    with ScriptServer([SSE, drip(": keep-alive\n\n", 0.05), event(1), HOLD]) as server:
        async with driver.connect(server.url, heartbeat_timeout=0.4, **QUICK) as events:
            with at_once(0.6):
                assert (await events.next()).data == "1"
        assert len(server.connections) == 1


async def test_time_in_which_the_consumer_is_busy_is_no_silence(driver: Any) -> None:
    """What has arrived while the application was working is taken first."""
    with ScriptServer([SSE, event(1), event(2), drip(": x\n", 0.02), event(3), HOLD]) as server:
        async with driver.connect(server.url, heartbeat_timeout=0.2, **QUICK) as events:
            for number in "123":
                assert (await events.next()).data == number
                await asyncio.sleep(0.3)  # the work
        assert len(server.connections) == 1


@pytest.mark.parametrize("options", [{"body": "x"}, {"reconnect": False}], ids=str)
async def test_silence_without_reconnection_raises(driver: Any, options: dict[str, Any]) -> None:
    """A shortened answer is never taken for a whole one."""
    with ScriptServer([SSE, event(1), HOLD]) as server:
        async with driver.connect(server.url, heartbeat_timeout=0.2, **QUICK, **options) as events:
            assert (await events.next()).data == "1"
            with pytest.raises(sse.SSEConnectionError):
                await events.next()
        assert len(server.connections) == 1


# === anext with a deadline loses nothing ===


async def in_short_waits(events: Any, wait: float) -> tuple[Any, int]:
    """The next event, waited for `wait` seconds at a time, and how many of these waits ran out."""
    ran_out = 0
    while True:
        try:
            return await events.next(wait), ran_out
        except asyncio.TimeoutError:
            ran_out += 1


async def test_short_waits_lose_nothing(driver: Any) -> None:
    """Events arrive in pieces while wait_for() runs out all the time; each comes once, over one connection."""
    data = [f"{number} ü" for number in range(30)]
    stream = "".join(map(event, range(30), data)).encode()
    pieces = [drip(chunk(stream[start : start + 7]), 0.001, 3) for start in range(0, len(stream), 7)]
    with ScriptServer([CHUNKED, pieces, HOLD]) as server:
        async with driver.connect(server.url, **QUICK) as events:
            found = [await in_short_waits(events, 0.003) for _ in data]
        assert [event.data for event, _ in found] == data
        assert sum(ran_out for _, ran_out in found) >= 3
        assert len(server.connections) == 1


async def test_short_waits_while_opening_open_once(driver: Any) -> None:
    """Opening takes longer than each wait; it goes on behind them instead of beginning again."""
    with ScriptServer([drip(SSE, 0.01, 2), event(1), HOLD]) as server:
        events = driver.connect(server.url, **QUICK)
        found, ran_out = await in_short_waits(events, 0.05)
        assert (found.data, len(server.connections)) == ("1", 1)
        assert ran_out >= 2
        await events.close()


async def test_short_waits_while_reopening_open_once(driver: Any) -> None:
    """So does the opening after a loss, within a `with`."""
    with ScriptServer([SSE, event(1)], [drip(SSE, 0.01, 2), event(2), HOLD]) as server:
        async with driver.connect(server.url, **QUICK) as events:
            assert (await events.next()).data == "1"
            found, ran_out = await in_short_waits(events, 0.05)
            assert (found.data, len(server.connections)) == ("2", 2)
            assert ran_out >= 2


async def test_short_waits_do_not_prolong_a_reconnect_wait(driver: Any) -> None:
    """The wait of 0.5 s ends 0.5 s after the loss, however many wait_for() ran out in it."""
    lost: list[float] = []
    with ScriptServer([SSE, event(1)], [SSE, event(2), HOLD]) as server:
        options = {"retry_interval": 500, "jitter": 0, "on_reconnect": lambda *_: lost.append(time.monotonic())}
        async with driver.connect(server.url, **options) as events:
            assert (await events.next()).data == "1"
            _, ran_out = await in_short_waits(events, 0.1)
            assert 0.45 < time.monotonic() - lost[0] < 1.5
        assert ran_out >= 3
        assert len(lost) == 1


async def test_leaving_the_loop_and_coming_back_loses_nothing(driver: Any) -> None:
    """A client is its own iterator."""
    with ScriptServer([SSE, "".join(map(event, range(10))), HOLD]) as server:
        async with driver.connect(server.url) as events:
            async for first in events:
                assert first.data == "0"
                break
            assert await events.take(9) == [str(number) for number in range(1, 10)]


# === Requests as they go out ===


async def test_default_headers_are_these_and_no_more(driver: Any) -> None:
    """What every request carries; no Last-Event-ID before there is one."""
    with ScriptServer([SSE, event("7"), HOLD]) as server:
        async with driver.connect(server.url) as events:
            await events.next()
        sent = dict(server.requests[0].headers)
        assert sent.pop("connection", "keep-alive") == "keep-alive"
        assert sent == {
            "host": server.authority,
            "accept": "text/event-stream",
            "cache-control": "no-cache",
            "user-agent": f"stdsse/{sse.__version__}",
            "accept-encoding": "identity",
        }
        assert (server.requests[0].method, server.requests[0].target) == ("GET", "/events")
        assert server.requests[0].version == "HTTP/1.1"


@pytest.mark.parametrize("last", ["ünïcode", "日本", "🎉 \t x", "\x7f\x80", 'a,b;c="d"'])
async def test_last_event_id_goes_out_as_utf8(driver: Any, last: str) -> None:
    """An id from the stream, and one given, reach the server as the UTF-8 bytes that they are."""
    with ScriptServer([SSE, event(last)], [SSE, event(2), HOLD]) as server:
        async with driver.connect(server.url, last_event_id=last, **QUICK) as events:
            await events.take(2)
        for request in server.requests:
            lines = {line.lower().partition(b": ")[0]: line.partition(b": ")[2] for line in request.head.split(b"\r\n")}
            assert lines[b"last-event-id"] == last.encode()


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\r\nX-Evil: 1"], ids=repr)
async def test_line_breaks_never_reach_a_header(driver: Any, bad: str) -> None:
    """CR, LF and NUL in a header, the method, the URL or the last event ID are refused before anything is sent."""
    with ScriptServer(then=respond()) as server:
        for options in (
            {"headers": {"X-Name": f"a{bad}b"}},
            {"headers": {f"X-{bad}": "a"}},
            {"headers": lambda: {"X-Name": f"a{bad}b"}},
            {"method": f"GE{bad}T"},
            {"last_event_id": f"a{bad}b"},
        ):
            with pytest.raises(ValueError):  # noqa: PT011 - the texts are test_errors.py's
                await driver.connect(server.url, **options).next()
        for url in (server.url + bad, server.url + "?a=" + bad + "b", server.url.replace("127", "12" + bad + "7")):
            with pytest.raises(ValueError):  # noqa: PT011
                await driver.connect(url).next()
            with pytest.raises(ValueError):  # noqa: PT011
                await driver.get(url)
        with pytest.raises(ValueError):  # noqa: PT011
            await driver.get(server.url, headers={"X-Name": f"a{bad}b"})
        with pytest.raises(ValueError):  # noqa: PT011
            await driver.request(f"GE{bad}T", server.url)
        assert not server.connections


async def test_headers_are_asked_for_before_every_connection(driver: Any) -> None:
    """A callable gives a fresh token each time; an async one may be awaitable."""
    tokens = iter(["one", "two", "three"])

    def headers() -> dict[str, str]:
        return {"Authorization": f"Bearer {next(tokens)}"}

    async def later() -> dict[str, str]:
        await asyncio.sleep(0)
        return headers()

    with ScriptServer([SSE, event(1)], [SSE, event(2)], [SSE, event(3), HOLD]) as server:
        async with driver.connect(server.url, headers=later if driver.is_async else headers, **QUICK) as events:
            await events.take(3)
        assert [request["authorization"] for request in server.requests] == ["Bearer one", "Bearer two", "Bearer three"]


async def test_own_headers_replace_defaults_in_any_case(driver: Any) -> None:
    """A header is never sent twice, and the caller's mapping stays as it was."""
    mine = {"ACCEPT": "text/event-stream, */*", "user-agent": "me", "last-event-id": "mine"}
    with ScriptServer([SSE, HOLD]) as server:
        async with driver.connect(server.url, headers=mine, last_event_id="theirs"):
            pass
        request = server.requests[0]
        assert (request["accept"], request["user-agent"], request["last-event-id"]) == tuple(mine.values())
    assert mine == {"ACCEPT": "text/event-stream, */*", "user-agent": "me", "last-event-id": "mine"}


async def test_params_body_and_json_are_sent(driver: Any) -> None:
    """`params` adds to the query, `json` and `body` make a POST with their content type and length."""
    with ScriptServer(then=[SSE, event(1)]) as server:
        await driver.connect(server.url + "?a=1", params={"b": "ü &", "c": 2}, json={"k": "ü"}).all()
        await driver.connect(server.url, body="ü", method="PUT", headers={"Content-Type": "x/y"}).all()
        await driver.connect(server.url, body=b"\0\xff").all()
        first, second, third = server.requests
        assert (first.method, first.target) == ("POST", "/events?a=1&b=%C3%BC+%26&c=2")
        assert json.loads(first.body) == {"k": "ü"}
        assert first["content-type"] == "application/json"
        assert (second.method, second.body, second["content-type"]) == ("PUT", "ü".encode(), "x/y")
        assert (third.method, third.body) == ("POST", b"\0\xff")


async def test_userinfo_becomes_basic_auth_and_appears_nowhere_else(driver: Any) -> None:
    """Percent-decoded, in `Authorization`, not in the request target, the Host header or Referer."""
    with ScriptServer([SSE, HOLD]) as server:
        url = server.url.replace("//", "//us%C3%A9r:p%40ss@")
        async with driver.connect(url) as events:
            assert "p%40ss" not in repr(events.client)
            assert "p%40ss" not in events.response.url
        request = server.requests[0]
        assert request["authorization"] == "Basic " + base64.b64encode("usér:p@ss".encode()).decode()
        assert request["host"] == server.authority
        assert request.target == "/events"


async def test_fragment_and_odd_characters_of_a_url(driver: Any) -> None:
    """The fragment stays at home; non-ASCII characters are escaped; an empty path is `/`."""
    with ScriptServer(then=respond()) as server:
        await driver.get(server.origin + "/a%20b/ü?q=ö#fragment")
        await driver.get(server.origin)
        await driver.get(server.origin + "?x")
        assert [r.target for r in server.requests] == ["/a%20b/%C3%BC?q=%C3%B6", "/", "/?x"]


async def test_ipv6_addresses_work(driver: Any) -> None:
    """`http://[::1]:port/` connects, and the Host header keeps the brackets."""
    try:
        server = ScriptServer([SSE, event(1), HOLD], host="::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with server:
        async with driver.connect(server.url) as events:
            assert (await events.next()).data == "1"
        assert server.requests[0]["host"] == server.authority


async def test_second_address_is_tried_when_the_first_refuses(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with two addresses of which only the later answers connects."""
    with ScriptServer([SSE, event(1), HOLD]) as server, ReservedPort() as closed:
        name_server(monkeypatch, lambda: [("127.0.0.1", closed), ("127.0.0.1", server.port)])
        async with driver.connect(f"http://two.example:{server.port}/") as events:
            assert (await events.next()).data == "1"


# === Answers that are not an event stream ===


@pytest.mark.parametrize("how", ["at full speed", "dripping"])
async def test_endless_error_body_is_cut(driver: Any, how: str) -> None:
    """At most 64 KiB are kept, and a body that drips is given up at `timeout`."""
    body = endless("x" * 5000) if how == "at full speed" else endless("x", 0.05)
    with ScriptServer([head(500, content_type="text/plain"), body]) as server:
        with pytest.raises(sse.SSEHTTPError) as caught, at_once():
            await driver.connect(server.url, timeout=0.4, **QUICK).next()
        assert caught.value.status_code == 500
        assert 1 <= len(caught.value.body) <= 65536
        assert set(caught.value.body) == {"x"}
        assert len(str(caught.value)) < 2000
        await server.closed(0)
        assert len(server.connections) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
async def test_status_is_refused_with_the_message_of_the_api(driver: Any, status: int) -> None:
    """Any other status is fatal; what the API says is in str(), the whole body in `.body`."""
    message = json.dumps({"error": {"message": "Invalid API key: grüße"}}, ensure_ascii=False)
    with ScriptServer(then=respond(status, message, content_type="application/json", x_request_id="abc")) as server:
        with pytest.raises(sse.SSEHTTPError, match="Invalid API key: grüße") as caught:
            async with driver.connect(server.url, **QUICK):
                pass
        error = caught.value
        assert (error.status_code, error.body, error.headers["X-Request-Id"]) == (status, message, "abc")
        assert str(status) in str(error)
        assert len(server.requests) == 1
        copy = pickle.loads(pickle.dumps(error))
        assert (copy.status_code, copy.body, copy.url, dict(copy.headers)) == (
            *(error.status_code, error.body, error.url),
            dict(error.headers),
        )


async def test_wrong_content_type_is_refused_with_its_body(driver: Any) -> None:
    """200 text/html is not retried; the page is in `.body`. An answer without a type is refused as well."""
    with ScriptServer(then=respond(200, "<h1>Log in</h1>", content_type="text/html; charset=utf-8")) as server:
        with pytest.raises(sse.SSEContentTypeError, match="text/html") as caught:
            await driver.connect(server.url, **QUICK).next()
        assert caught.value.content_type.startswith("text/html")
        assert "Log in" in caught.value.body
        assert len(server.requests) == 1
    with ScriptServer(then=respond(200, "data: x\n\n", content_type=None)) as server:
        with pytest.raises(sse.SSEContentTypeError):
            await driver.connect(server.url, **QUICK).next()
        assert len(server.requests) == 1


async def test_status_is_judged_before_the_content_type(driver: Any) -> None:
    """A 404 page is an SSEHTTPError."""
    with ScriptServer(then=respond(404, "<h1>", content_type="text/html")) as server:
        with pytest.raises(sse.SSEHTTPError):
            await driver.connect(server.url, **QUICK).next()


@pytest.mark.parametrize(
    "accepted", ["Text/Event-Stream", "text/event-stream;charset=utf-8", "text/event-stream ; x=y"]
)
async def test_essence_of_the_content_type_decides(driver: Any, accepted: str) -> None:
    """Case and parameters do not matter."""
    with ScriptServer([head(content_type=accepted), event(1), HOLD]) as server:
        async with driver.connect(server.url) as events:
            assert (await events.next()).data == "1"


async def test_content_type_check_can_be_turned_off(driver: Any) -> None:
    """check_content_type=False reads whatever comes."""
    with ScriptServer([head(content_type="text/plain"), event(1), HOLD]) as server:
        async with driver.connect(server.url, check_content_type=False) as events:
            assert (await events.next()).data == "1"


async def test_204_ends_the_loop_first_or_later(driver: Any) -> None:
    """No Content is the server's word for: do not come back."""
    with ScriptServer([SSE, event(1)]) as server:
        async with driver.connect(server.url, **QUICK) as events:
            assert await events.all() == ["1"]
            assert await events.next() is None
        assert len(server.requests) == 2
        async with driver.connect(server.url, **QUICK) as events:
            assert await events.all() == []


# === Malformed bodies ===

BAD_BODIES = {
    "negative chunk size": "-5\r\nhello\r\n",
    "hexadecimal prefix": "0x10\r\n" + "x" * 16 + "\r\n",
    "two chunk sizes": "5 5\r\nhello\r\n",
    "sign": "+5\r\nhello\r\n",
    "underscore": "1_0\r\n" + "x" * 16 + "\r\n",
    "non-ASCII digit": "５\r\nhello\r\n",
    "empty size": "\r\nhello\r\n",
    "twenty digits": "1" * 20 + "\r\nhello",
    "endless size line": "0" * 100_000 + "5\r\nhello\r\n",
    "endless extension": "5;" + "x" * 100_000 + "\r\nhello\r\n",
    "chunk without its CRLF": "5\r\nhello5\r\nhello\r\n0\r\n\r\n",
    "chunk with other bytes for CRLF": "5\r\nhelloXX0\r\n\r\n",
    "no last chunk": "5\r\nhello\r\n",
    "ends in a chunk": "5\r\nhel",
    "ends one byte early": "5\r\nhello\r\n0\r\n\r",
}
bad_bodies = pytest.mark.parametrize("bad", BAD_BODIES.values(), ids=BAD_BODIES.keys())


@bad_bodies
async def test_bad_chunks_raise_in_a_plain_request(driver: Any, bad: str) -> None:
    """A body that is not chunked as it says is never taken for complete."""
    with ScriptServer([CHUNKED, chunk("fine"), bad]) as server:
        with pytest.raises(httpclient.HttpError):
            await (await driver.get(server.url)).read()


@bad_bodies
async def test_bad_chunks_are_a_lost_connection(driver: Any, bad: str) -> None:
    """Events before them are delivered, the client reconnects after the last of them."""
    lost: list[Any] = []
    with ScriptServer([CHUNKED, chunk(event(1)), bad], [SSE, event(2), HOLD]) as server:
        async with driver.connect(server.url, on_reconnect=lambda cause, _: lost.append(cause), **QUICK) as events:
            assert await events.take(2) == ["1", "2"]
        assert server.requests[1]["last-event-id"] == "1"
        assert isinstance(lost[0], Exception)


async def test_bad_chunks_without_reconnection_raise_after_the_events(driver: Any) -> None:
    """The error is an SSEConnectionError whose cause says what was wrong."""
    with ScriptServer([CHUNKED, chunk(event(1)), "-5\r\n"]) as server:
        async with driver.connect(server.url, reconnect=False) as events:
            assert (await events.next()).data == "1"
            with pytest.raises(sse.SSEConnectionError) as caught:
                await events.next()
    assert any(isinstance(error, httpclient.HttpProtocolError) for error in causes(caught.value))


async def test_chunked_body_in_every_legal_form(driver: Any) -> None:
    """Extensions, leading zeros, upper case, trailers, and chunks cut anywhere."""
    body = "5;name=value\r\nhello\r\n" + "000A\r\n0123456789\r\n" + "0;last\r\nX-Trailer: yes\r\n\r\n"
    with ScriptServer([CHUNKED, drip(body, 0.0005), HOLD], [CHUNKED, body, HOLD]) as server:
        for _ in range(2):
            assert await (await driver.get(server.url)).read() == b"hello0123456789"


STREAM_TYPE = "Content-Type: text/event-stream\r\n"
BAD_HEADS = {
    "two lengths": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "two lengths in one": "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!",
    "length and chunked": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    "signed length": "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "length in words": "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
    "unknown transfer coding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
    "chunked not last": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "two content codings": f"HTTP/1.1 200 OK\r\n{STREAM_TYPE}Content-Encoding: gzip, gzip\r\n\r\nhello",
    "unknown content coding": f"HTTP/1.1 200 OK\r\n{STREAM_TYPE}Content-Encoding: br\r\n\r\nhello",
    "endless header": "HTTP/1.1 200 OK\r\nX: " + "x" * 70_000 + "\r\n\r\n",
    "many headers": "HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 257 + "\r\n",
    "endless 1xx": "HTTP/1.1 103 Early Hints\r\nX: " + "x" * 1000 + "\r\n\r\n",
    "101": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "not HTTP": "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "no version": "200 OK\r\n\r\n",
    "status of two digits": "HTTP/1.1 20 OK\r\n\r\n",
    "status not of ASCII digits": "HTTP/1.1 ２００ OK\r\n\r\n",
    "header without a colon": "HTTP/1.1 200 OK\r\nContent-Type\r\n\r\n",
    "space before the colon": "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
    "NUL in a header": "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
    "nothing": "",
    "half a head": "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n",
}
bad_heads = pytest.mark.parametrize("bad", BAD_HEADS.items(), ids=BAD_HEADS.keys())


@bad_heads
async def test_bad_heads_raise_in_a_plain_request(driver: Any, bad: tuple[str, str]) -> None:
    """Strict where leniency is dangerous."""
    name, answer = bad
    vague = name in ("nothing", "half a head", "endless 1xx")
    steps = [endless(answer)] if name == "endless 1xx" else [answer]
    with ScriptServer(steps) as server:
        with pytest.raises(httpclient.HttpError if vague else httpclient.HttpProtocolError), at_once():
            await (await driver.get(server.url, timeout=0.5)).read()


async def test_a_bad_head_is_a_lost_connection(driver: Any) -> None:
    """A malformed answer may be a bad minute of a proxy: the client comes back."""
    with ScriptServer([BAD_HEADS["two lengths"]], [""], [SSE, event(1), HOLD]) as server:
        async with driver.connect(server.url, **QUICK) as events:
            assert (await events.next()).data == "1"
            assert events.stats.connects == 1


async def test_equal_lengths_twice_are_one_length(driver: Any) -> None:
    """RFC 9110 lets a recipient accept repeated identical values; what matters is that the body is read by them."""
    with ScriptServer(["HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"]) as server:
        try:
            assert await (await driver.get(server.url)).read() == b"hello"
        except httpclient.HttpProtocolError:
            pass


async def test_interim_answers_are_skipped(driver: Any) -> None:
    """100 and 103 before the answer do not matter, whatever their headers."""
    interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Length: 99\r\n\r\n"
    with ScriptServer([interim, SSE, event(1), HOLD]) as server:
        async with driver.connect(server.url) as events:
            assert (await events.next()).data == "1"


@pytest.mark.parametrize("missing", [1, 8])
async def test_body_cut_before_its_length_raises(driver: Any, missing: int) -> None:
    """One byte short is short: the body raises, the stream reconnects, a POST raises."""
    stream = event(1) + event(2)
    cut = [head(content_type="text/event-stream", content_length=len(stream)), stream[:-missing]]
    with ScriptServer(then=cut) as server:
        with pytest.raises(httpclient.HttpError):
            await (await driver.get(server.url)).read()
        async with driver.connect(server.url, body="x") as events:
            assert (await events.next()).data == "1"
            with pytest.raises(sse.SSEConnectionError):
                await events.next()
    with ScriptServer(cut, [SSE, event(2), HOLD]) as server:
        async with driver.connect(server.url, **QUICK) as events:
            assert await events.take(2) == ["1", "2"]


async def test_reset_in_a_body_raises_though_it_has_no_length(driver: Any) -> None:
    """Only a clean close delimits a body."""
    with ScriptServer([SSE, event(1), RESET], [SSE, event(1), HALF_CLOSE, HOLD]) as server:
        with pytest.raises(httpclient.HttpError):
            await (await driver.get(server.url)).read()
        assert await (await driver.get(server.url)).read() == event(1).encode()


async def test_tls_cut_without_close_notify_is_no_clean_end(driver: Any, authority: Any) -> None:
    """An attacker's FIN must not shorten a body that has no length."""
    with ScriptServer([SSE, event(1), fin_without_close_notify], tls=authority.server()) as server:
        async with driver.connect(server.url, verify=authority.client(), body="x") as events:
            assert (await events.next()).data == "1"
            with pytest.raises(sse.SSEConnectionError):
                await events.next()


def fin_without_close_notify(connection: Any) -> None:
    socket.socket.shutdown(connection.sock, socket.SHUT_WR)
    connection.play(HOLD)


async def test_bytes_arrive_as_they_come(driver: Any) -> None:
    """iter_bytes() never waits to fill a buffer, whatever the framing."""
    go = threading.Event()
    heads = {CHUNKED: chunk, head(content_length=4): str, SSE: str}
    for start, frame in heads.items():
        go.clear()
        with ScriptServer([start, frame("ab"), go, frame("cd"), END_CHUNK if start == CHUNKED else ""]) as server:
            async with await driver.get(server.url, stream=True) as reply:
                pieces = []
                async for piece in reply.iter_bytes():
                    pieces.append(piece)
                    go.set()
                assert pieces == [b"ab", b"cd"]


async def test_lines_end_where_sse_lines_end(driver: Any) -> None:
    """CR, LF and CRLF, in any slicing; U+2028, VT and NEL stay in their line."""
    text = "a\rb\r\nc\n\nd\u2028\v\x85e\r\r\nlast"
    for size in (1, 2, 3, 100):
        with ScriptServer([head(content_type="text/plain"), drip(text, 0.0005, size)]) as server:
            async with await driver.get(server.url, stream=True) as reply:
                lines = [line async for line in reply.iter_lines()]
            assert lines == ["a", "b", "c", "", "d\u2028\v\x85e", "", "last"]


# === Sizes without bound ===


async def test_retry_of_five_thousand_digits_is_capped(driver: Any) -> None:
    """It neither crashes nor overflows: max_retry_interval bounds the wait."""
    waits: list[float] = []
    with ScriptServer([SSE, f"retry: {'9' * 5000}\n", event(1)], [SSE, event(2), HOLD]) as server:
        async with driver.connect(server.url, on_reconnect=lambda _, wait: waits.append(wait), **QUICK) as events:
            assert await events.take(2) == ["1", "2"]
    assert waits == [pytest.approx(QUICK["max_retry_interval"] / 1000)]


async def test_retry_zero_never_spins(driver: Any) -> None:
    """The first reconnect is immediate; from the second on the wait is 100 ms at least, and grows."""
    waits: list[float] = []

    def on_reconnect(_: Any, wait: float) -> None:
        waits.append(wait)
        if len(waits) == 4:
            raise Stop

    with ScriptServer(then=[SSE, "retry: 0\n\n"]) as server:
        with pytest.raises(Stop), at_once(0.2):
            await driver.connect(server.url, on_reconnect=on_reconnect, jitter=0).all()
    assert waits[0] == 0
    assert waits[1] >= 0.1
    assert waits[1] <= waits[2] <= waits[3]
    assert waits[3] > 0.1


@pytest.mark.parametrize("endlessly", ["data: ", "x", ": ", "id: "], ids=["line", "field", "comment", "id"])
async def test_endless_line_meets_the_limit(driver: Any, endlessly: str) -> None:
    """A line without end, of whatever kind, raises SSELimitError after the events before it, and is not retried."""
    with ScriptServer([SSE, event(1), endlessly, endless("x" * 10_000)]) as server:
        async with driver.connect(server.url, max_event_size=300_000, **QUICK) as events:
            assert (await events.next()).data == "1"
            with pytest.raises(sse.SSELimitError):
                await events.next()
            await server.closed(0)
        assert len(server.connections) == 1


async def test_endless_block_meets_the_limit(driver: Any) -> None:
    """Many short data lines without a blank line are as bad as a long one."""
    with ScriptServer([SSE, endless("data: x\n" * 1000)]) as server:
        with pytest.raises(sse.SSELimitError):
            await driver.connect(server.url, max_event_size=100_000, **QUICK).next()
        assert len(server.connections) == 1


async def test_comments_without_end_are_life(driver: Any) -> None:
    """Comments that end their lines are no block that grows: a stream may send them for ever."""
    comments = ": ping\n\n" * 20_000
    with ScriptServer([SSE, comments, event(1), HOLD]) as server:
        async with driver.connect(server.url, max_event_size=1000) as events:
            assert (await events.next()).data == "1"


async def test_gzip_bomb_cannot_grow(driver: Any) -> None:
    """A few KB that unfold to 100 MB are decoded in bounded pieces, and limits apply to what comes out."""
    bomb = gzip.compress(b"data: " + b"x" * 100_000_000, 6)
    answer = [head(content_type="text/event-stream", content_encoding="gzip"), bomb, HOLD]
    with ScriptServer(then=answer) as server:
        with pytest.raises(sse.SSELimitError):
            await driver.connect(server.url, max_event_size=100_000, **QUICK).next()
        with pytest.raises(httpclient.HttpProtocolError):
            await (await driver.get(server.url)).read()
        async with await driver.get(server.url, stream=True) as reply:
            with pytest.raises(httpclient.HttpProtocolError):
                await anext(reply.iter_lines())
        async with await driver.get(server.url, stream=True) as reply:
            count = 0
            async for piece in reply.iter_bytes():
                assert len(piece) <= 4_000_000
                count += 1
                if count == 8:
                    break


@pytest.mark.parametrize("framing", ["chunked", "plain"])
async def test_gzip_is_decoded_as_it_streams(driver: Any, framing: str) -> None:
    """Each event that the server flushes is there before the server goes on."""
    packer = zlib.compressobj(wbits=31)
    got = [threading.Event() for _ in range(5)]
    frame: Callable[[bytes], bytes] = chunk if framing == "chunked" else bytes
    steps: list[Any] = []
    for number, taken in enumerate(got):
        steps += [frame(packer.compress(event(number).encode()) + packer.flush(zlib.Z_SYNC_FLUSH)), taken]
    steps += [frame(packer.flush()), END_CHUNK if framing == "chunked" else ""]
    coding = "chunked" if framing == "chunked" else None
    start = head(content_type="text/event-stream", content_encoding="gzip", transfer_encoding=coding)
    with ScriptServer([start, *steps]) as server:
        async with driver.connect(server.url, reconnect=False) as events:
            for number, taken in enumerate(got):
                assert (await events.next()).data == str(number)
                taken.set()
            assert await events.next() is None


@pytest.mark.parametrize("cut", [1, 8, 12])
async def test_gzip_cut_before_its_end_raises(driver: Any, cut: int) -> None:
    """The checksum and length at the end belong to the body."""
    packed = gzip.compress(b"hello")[:-cut]
    with ScriptServer([respond(200, packed, content_encoding="gzip")]) as server:
        with pytest.raises(httpclient.HttpError):
            await (await driver.get(server.url)).read()


async def test_broken_gzip_is_a_lost_connection(driver: Any) -> None:
    """What zlib says is no exception of the caller's concern."""
    bad = [head(content_type="text/event-stream", content_encoding="gzip"), "no gzip at all"]
    with ScriptServer(bad, [SSE, event(1), HOLD]) as server:
        async with driver.connect(server.url, **QUICK) as events:
            assert (await events.next()).data == "1"
    with ScriptServer(bad) as server:
        with pytest.raises(httpclient.HttpProtocolError):
            await (await driver.get(server.url)).read()


# === Redirects ===

SECRETS = {"X-Api-Key": "k3y", "Authorization": "Bearer t0ken", "Cookie": "c00kie=1", "X-Else": "e1se"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_secrets_do_not_follow_to_another_origin(driver: Any, status: int) -> None:
    """Another port is another origin: of the user's headers only harmless ones go along."""
    with ScriptServer([SSE, HOLD]) as target, ScriptServer(redirect(target.url, status)) as server:
        mine = {**SECRETS, "Accept-Language": "de", "User-Agent": "me"}
        url = server.url.replace("//", "//user:p4ss@")
        async with driver.connect(url, headers={k: v for k, v in mine.items() if k != "Authorization"}) as events:
            assert events.response.url == target.url
        assert server.requests[0]["authorization"].startswith("Basic ")
        assert {name: server.requests[0][name] for name in ("x-api-key", "cookie")} == {
            "x-api-key": "k3y",
            "cookie": "c00kie=1",
        }
        sent = dict(target.requests[0].headers)
        assert set(sent) <= {
            *("host", "accept", "accept-language", "cache-control", "content-type", "user-agent"),
            *("accept-encoding", "connection"),
        }
        assert (sent["host"], sent["accept-language"], sent["user-agent"]) == (target.authority, "de", "me")
        assert not any(secret.encode() in target.requests[0].head for secret in (*SECRETS.values(), "p4ss"))


async def test_secrets_do_not_come_back_either(driver: Any) -> None:
    """What was dropped for another origin stays dropped when that one redirects back."""
    with ScriptServer() as server, ScriptServer() as target:
        server.scripts = (redirect(target.url), [SSE, event(1), HOLD])
        target.scripts = (redirect(server.url),)
        async with driver.connect(server.url, headers=SECRETS) as events:
            await events.next()
        assert b"k3y" not in server.requests[1].head


async def test_headers_stay_within_the_origin(driver: Any) -> None:
    """A redirect to another path of the same server keeps them; so does one with a relative location."""
    with ScriptServer(
        [each(lambda r: {"/events": redirect("b/c?d"), "/b/c": [SSE, event(1), HOLD]}[r.path])]
    ) as server:
        async with driver.connect(server.url, headers=SECRETS, last_event_id="7") as events:
            await events.next()
        second = server.requests[1]
        assert second.target == "/b/c?d"
        assert [second[name] for name in SECRETS] == list(SECRETS.values())
        assert second["last-event-id"] == "7"


async def test_reconnect_starts_at_the_original_url(driver: Any) -> None:
    """A redirect, permanent or not, is asked for again each time."""
    with ScriptServer(then=[SSE, event(1)]) as target, ScriptServer(then=redirect(target.url, 301)) as server:
        async with driver.connect(server.url, headers=SECRETS, **QUICK) as events:
            await events.take(3)
        assert len(server.requests) == len(target.requests) >= 3
        assert server.requests[2]["x-api-key"] == "k3y"


@pytest.mark.parametrize(("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")])
async def test_a_redirected_post_keeps_its_body_or_becomes_a_get(driver: Any, status: int, method: str) -> None:
    """307 and 308 repeat method and body, the others turn a POST into a GET without one."""
    with ScriptServer(redirect("/next", status), respond(200, "done"), then=respond(200, "done")) as server:
        async with await driver.post(server.url, json={"a": 1}) as reply:
            assert await reply.read() == b"done"
            assert reply.url == server.origin + "/next"
        last = server.requests[-1]
        assert (last.method, last.path, bool(last.body)) == (method, "/next", method == "POST")
        assert last["content-type"] == ("application/json" if method == "POST" else None)
        assert last["content-length"] == (server.requests[0]["content-length"] if method == "POST" else None)


async def test_https_never_redirects_to_http(driver: Any, authority: Any) -> None:
    """The downgrade is refused before anything goes out in the clear, and is not retried."""
    with ScriptServer(then=[SSE, event(1)]) as plain:
        with ScriptServer(then=redirect(plain.url), tls=authority.server()) as server:
            with pytest.raises((sse.SSEError, httpclient.HttpError)):
                await driver.connect(server.url, verify=authority.client(), **QUICK).next()
            assert len(server.requests) == 1
            with pytest.raises(httpclient.HttpError):
                await driver.get(server.url, verify=authority.client())
        assert not plain.connections


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/", "file:///etc/passwd", "javascript:x", "//[", "http://[::1"])
async def test_odd_locations_are_refused_once(driver: Any, location: str) -> None:
    """Other schemes and what is no URL end the client, at the first time."""
    with ScriptServer(then=redirect(location)) as server:
        with pytest.raises((sse.SSEError, httpclient.HttpError)):
            await driver.connect(server.url, **ONCE).next()
        assert len(server.requests) == 1


async def test_redirect_without_location_is_an_answer(driver: Any) -> None:
    """Nothing to follow: the status stands."""
    with ScriptServer(then=respond(302, "lost")) as server:
        with pytest.raises((sse.SSEError, httpclient.HttpError)):
            await driver.connect(server.url, **QUICK).next()
        assert len(server.requests) == 1


async def test_redirect_loop_ends_and_is_not_retried(driver: Any) -> None:
    """Ten redirects are followed, the eleventh is an error, for good."""
    with ScriptServer(then=[each(lambda _: redirect("/events"))]) as server:
        with pytest.raises((sse.SSEError, httpclient.HttpError)):
            await driver.connect(server.url, **QUICK).next()
        assert len(server.requests) == 11
        with pytest.raises(httpclient.HttpError):
            await driver.get(server.url)
        assert len(server.requests) == 22


async def test_ten_redirects_are_followed(driver: Any) -> None:
    """The limit itself is fine."""

    def answer(request: Any) -> Any:
        count = int(request.query or 0)
        return redirect(f"/events?{count + 1}") if count < 10 else [SSE, event(1), HOLD]

    with ScriptServer(then=[each(answer)]) as server:
        async with driver.connect(server.url) as events:
            assert (await events.next()).data == "1"


# === What is sent again, and what never ===


@pytest.mark.parametrize(
    "answer",
    [[RESET], [CLOSE], ["HTTP/1.1 200", RESET], [SSE, RESET], [SSE, event(1), RESET], [CHUNKED, chunk(event(1))]],
    ids=["reset", "close", "half a head", "empty stream", "stream", "chunks"],
)
async def test_post_is_never_sent_twice(driver: Any, answer: Any) -> None:
    """Whatever happens to the answer, the request was one request; what came of it is delivered, then it raises."""
    with ScriptServer(then=answer) as server:
        events = driver.connect(server.url, json={"expensive": True}, **QUICK)
        with pytest.raises(sse.SSEConnectionError):
            assert await events.take(2) == ["unreached"]
        assert len(server.requests) == 1
        await events.close()


async def test_post_is_not_sent_twice_for_a_status_either(driver: Any) -> None:
    """retry_statuses alone does not repeat a POST."""
    with ScriptServer(then=respond(503, "busy", retry_after=0)) as server:
        with pytest.raises(sse.SSEHTTPError, match="busy"):
            await driver.connect(server.url, body="x", retry_statuses=sse.TRANSIENT, **QUICK).next()
        assert len(server.requests) == 1


async def test_post_is_repeated_when_told_to(driver: Any) -> None:
    """reconnect=True repeats it, with its body and the last event ID, for statuses and losses."""
    scripts = [respond(503)], [SSE, event(1), RESET], [SSE, event(2)]
    with ScriptServer(*scripts) as server:
        options = {"body": "x", "reconnect": True, "retry_statuses": sse.TRANSIENT, **QUICK}
        async with driver.connect(server.url, **options) as events:
            assert await events.all() == ["1", "2"]
        assert [r.body for r in server.requests] == [b"x"] * 3
        assert server.requests[2]["last-event-id"] == "1"


async def test_post_ends_with_its_answer(driver: Any) -> None:
    """A clean end of a POST, or of a GET with reconnect=False, ends the loop."""
    with ScriptServer(then=[SSE, event(1)]) as server:
        assert await driver.connect(server.url, body="x", **QUICK).all() == ["1"]
        assert await driver.connect(server.url, reconnect=False, **QUICK).all() == ["1"]
        assert len(server.requests) == 2


async def test_connection_refused_is_retried(driver: Any) -> None:
    """A server that is down at first is waited for."""
    with ReservedPort() as port, contextlib.ExitStack() as stack:
        started: list[ScriptServer] = []

        def on_reconnect(cause: Any, _: float) -> None:
            assert isinstance(cause, Exception)
            if not started:
                started.append(stack.enter_context(ScriptServer([SSE, event(1), HOLD], port=port)))

        url = f"http://127.0.0.1:{port}/"
        async with driver.connect(url, on_reconnect=on_reconnect, **QUICK) as events:
            assert (await events.next()).data == "1"
            assert events.stats.retries == 1


async def test_name_that_does_not_resolve_is_retried(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS failures pass."""
    with ScriptServer([SSE, event(1), HOLD]) as server:
        asked: list[int] = []

        def answer() -> Any:
            asked.append(1)
            if len(asked) == 1:
                raise socket.gaierror(socket.EAI_AGAIN, "try again")
            return [("127.0.0.1", server.port)]

        name_server(monkeypatch, answer)
        async with driver.connect(f"http://stream.example:{server.port}/", **QUICK) as events:
            assert (await events.next()).data == "1"
            assert events.stats.retries == 1


# === Retries, waits and statuses ===


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_max_retries_counts_reconnects_in_a_row(driver: Any, retries: int) -> None:
    """After that many reconnects without an event the error says so, and names its cause."""
    with ReservedPort() as port:
        with pytest.raises(sse.SSEConnectionError) as caught:
            await driver.connect(f"http://127.0.0.1:{port}/", **{**QUICK, "max_retries": retries}).next()
    assert caught.value.retries == retries
    assert caught.value.__cause__ is caught.value.last_error is not None
    with ScriptServer(then=[SSE]) as server:
        with pytest.raises(sse.SSEConnectionError) as caught:
            await driver.connect(server.url, **{**QUICK, "max_retries": retries}).next()
        assert len(server.requests) == retries + 1
    assert caught.value.retries == retries


async def test_an_event_starts_the_count_again(driver: Any) -> None:
    """Losses after an event are not in a row with those before it."""
    silent = [SSE, ": no event\n\n"]
    scripts = silent, silent, [SSE, event(1)], silent, [SSE, event(2)], silent, silent, [SSE, event(3)]
    with ScriptServer(*scripts) as server:
        async with driver.connect(server.url, **{**QUICK, "max_retries": 2}) as events:
            assert await events.take(2) == ["1", "2"]
            with pytest.raises(sse.SSEConnectionError):
                await events.next()
        assert len(server.requests) == 7


async def test_zero_retries_forbid_a_clean_end_too(driver: Any) -> None:
    """max_retries=0: the first loss raises, a clean end of a GET included, after the events."""
    with ScriptServer(then=[SSE, event(1)]) as server:
        async with driver.connect(server.url, **ONCE) as events:
            assert (await events.next()).data == "1"
            with pytest.raises(sse.SSEConnectionError):
                await events.next()
        assert len(server.requests) == 1


async def test_retry_of_the_server_becomes_the_interval(driver: Any) -> None:
    """It takes effect on its line, without an event, and `.retry_interval` shows it."""
    waits: list[float] = []
    with ScriptServer([SSE, event(1), "retry: 30\n"], [SSE, event(2), HOLD]) as server:
        options = {"retry_interval": 60_000, "jitter": 0, "on_reconnect": lambda _, wait: waits.append(wait)}
        async with driver.connect(server.url, **options) as events:
            assert await events.take(2) == ["1", "2"]
            assert events.retry_interval == 30
    assert waits == [pytest.approx(0.03)]


@pytest.mark.parametrize("after", ["2", formatdate(time.time() + 3600, usegmt=True)], ids=["seconds", "date"])
async def test_retry_after_is_obeyed_up_to_the_cap(driver: Any, after: str) -> None:
    """Seconds or a date; max_retry_interval bounds both."""
    waits: list[float] = []
    with ScriptServer([respond(429, retry_after=after)], [SSE, event(1), HOLD]) as server:
        options = {**QUICK, "retry_statuses": (429,), "on_reconnect": lambda _, wait: waits.append(wait)}
        async with driver.connect(server.url, **options) as events:
            assert (await events.next()).data == "1"
    assert waits == [pytest.approx(QUICK["max_retry_interval"] / 1000)]


async def test_retry_after_replaces_the_interval(driver: Any) -> None:
    """The wait is what the server asks for, not less."""
    waits: list[Any] = []

    def on_reconnect(cause: Any, wait: float) -> None:
        waits.append((cause.status_code, wait))
        raise Stop

    options = {"retry_statuses": sse.TRANSIENT, "on_reconnect": on_reconnect, "jitter": 0}
    with ScriptServer(then=respond(503, retry_after=7)) as server:
        with pytest.raises(Stop):
            await driver.connect(server.url, **options).next()
    assert waits == [(503, pytest.approx(7))]


async def test_statuses_that_do_not_pass_end_as_connection_errors(driver: Any) -> None:
    """When retries run out, the error is chained to the SSEHTTPError."""
    options = {**QUICK, "retry_statuses": sse.TRANSIENT, "max_retries": 2}
    with ScriptServer(then=respond(503, "overloaded")) as server:
        with pytest.raises(sse.SSEConnectionError) as caught:
            await driver.connect(server.url, **options).next()
        assert len(server.requests) == 3
    assert caught.value.retries == 2
    assert isinstance(caught.value.__cause__, sse.SSEHTTPError)
    assert caught.value.__cause__.body == "overloaded"


async def test_on_reconnect_says_why_and_how_long(driver: Any) -> None:
    """None for a clean end, the exception otherwise; raising ends the loop and leaves nothing open."""
    calls: list[Any] = []

    def on_reconnect(cause: Any, wait: float) -> None:
        calls.append((cause, wait))
        if len(calls) == 2:
            raise Stop

    with ScriptServer([SSE, event(1)], [SSE, event(2), RESET]) as server:
        with pytest.raises(Stop):
            await driver.connect(server.url, on_reconnect=on_reconnect, **QUICK).take(3)
    assert [cause is None for cause, _ in calls] == [True, False]
    assert [wait for _, wait in calls] == [pytest.approx(0.01)] * 2


async def test_live_state_can_be_read_any_time(driver: Any) -> None:
    """`.response`, `.stats` and `.last_event_id` follow the stream; on_open sees each opening."""
    opened: list[Any] = []
    with ScriptServer([SSE, event(1)], [SSE, event(2), HOLD]) as server:
        events = driver.connect(server.url + "?q=1", on_open=opened.append, **QUICK)
        assert (events.last_event_id, events.stats.connects, events.retry_interval) == ("", 0, 10)
        async with events:
            before = time.monotonic()
            assert await events.take(2) == ["1", "2"]
            assert events.last_event_id == "2"
            assert events.response.status_code == 200
            assert events.response.headers["content-type"] == "text/event-stream"
            assert events.response.url == server.url + "?q=1"
            stats = events.stats
            assert (stats.events, stats.connects, stats.retries) == (2, 2, 1)
            assert stats.bytes == len(event(1) + event(2))
            assert before - 5 < stats.last_activity <= time.monotonic()
    assert [response.status_code for response in opened] == [200, 200]


def test_callbacks_run_in_the_thread_of_the_consumer() -> None:
    """No other thread calls the application's code."""
    threads: list[threading.Thread] = []

    def note(*_: object) -> dict[str, str]:
        threads.append(threading.current_thread())
        return {}

    with ScriptServer([SSE, ": c\n\n"]) as server:
        options = {"headers": note, "on_open": note, "on_reconnect": note, "on_comment": note}
        with sse.connect(server.url, **options, **QUICK) as events:
            assert list(events) == []
    assert len(threads) >= 5
    assert set(threads) == {threading.current_thread()}


async def test_async_callbacks_run_in_the_task_of_the_consumer() -> None:
    """Context variables of the application are those that its callbacks see."""
    tasks: list[Any] = []

    def note(*_: object) -> None:
        tasks.append(asyncio.current_task())

    with ScriptServer([SSE, ": c\n\n"]) as server:
        options = {"on_open": note, "on_reconnect": note, "on_comment": note}
        async with sse.async_connect(server.url, **options, **QUICK) as events:
            assert [event async for event in events] == []
    assert len(tasks) >= 3
    assert set(tasks) == {asyncio.current_task()}


async def test_last_event_id_is_that_of_the_last_event_given_out(driver: Any) -> None:
    """Three events arrive at once: whoever stops after the first and resumes from `.last_event_id` loses nothing."""
    with ScriptServer([SSE, event(1) + event(2) + event(3), HOLD]) as server:
        async with driver.connect(server.url) as events:
            assert (await events.next()).data == "1"
            assert events.last_event_id == "1"


# === until ===


@pytest.mark.parametrize("framing", ["chunked", "open"])
async def test_until_ends_the_loop_though_the_server_stays(driver: Any, framing: str) -> None:
    """The event is not yielded, the connection is closed, nothing is asked again."""
    stream = event(1) + "data: [DONE]\n\n" + event(2)
    start, body = (CHUNKED, chunk(stream)) if framing == "chunked" else (SSE, stream)
    with ScriptServer([start, body, HOLD]) as server:
        async with driver.connect(server.url, until="[DONE]", **QUICK) as events:
            assert await events.all() == ["1"]
            assert await events.next() is None
            await server.closed(0)
        assert len(server.connections) == 1


@pytest.mark.parametrize("ending", ["", "data: [DONE", "data: [DONE]\ndata: x\n", ": x\n"])
async def test_until_is_a_promise(driver: Any, ending: str) -> None:
    """A POST's body that ends cleanly without it was shortened."""
    with ScriptServer(then=[SSE, event(1), ending]) as server:
        async with driver.connect(server.url, body="x", until="[DONE]") as events:
            assert (await events.next()).data == "1"
            with pytest.raises(sse.SSEConnectionError):
                await events.next()
        assert len(server.requests) == 1


@pytest.mark.parametrize("ending", ["data: [DONE]", "data: [DONE]\n", "data: [DONE]\r\n", "event: x\ndata:[DONE]"])
async def test_until_in_an_unfinished_last_block_counts(driver: Any, ending: str) -> None:
    """Some servers end without the blank line."""
    with ScriptServer(then=[SSE, event(1), ending]) as server:
        assert await driver.connect(server.url, body="x", until="[DONE]").all() == ["1"]
        assert await driver.connect(server.url, reconnect=False, until="[DONE]").all() == ["1"]


async def test_until_survives_reconnects(driver: Any) -> None:
    """A GET that is lost before it comes back for it."""
    with ScriptServer([SSE, event(1)], [SSE, event(2), RESET], [SSE, event(3), "data: end\n\n", HOLD]) as server:
        async with driver.connect(server.url, until="end", **QUICK) as events:
            assert await events.all() == ["1", "2", "3"]
        assert len(server.connections) == 3


# === Connections are reused ===


async def test_a_chunked_body_read_to_its_end_leaves_a_connection(driver: Any) -> None:
    """The reconnect after a clean end, and a second request of a transport, take the same TCP connection."""
    with ScriptServer([CHUNKED, chunk(event(1)), END_CHUNK, READ, CHUNKED, chunk(event(2)), HOLD]) as server:
        async with driver.connect(server.url, **QUICK) as events:
            assert await events.take(2) == ["1", "2"]
        assert len(server.connections) == 1
        assert len(server.requests) == 2


async def test_a_transport_reuses_its_idle_connection(driver: Any) -> None:
    """Read to the end: the next request takes it. Not read to the end, or told to close: a new one."""
    with ScriptServer(
        then=[each(lambda r: respond(200, r.path, connection="close" if "close" in r.path else None))]
    ) as s:
        transport = driver.transport()
        for path in ("/a", "/b", "/close", "/c"):
            async with await transport("GET", s.origin + path) as reply:
                assert await reply.read() == path.encode()
        assert len(s.connections) == 2
        async with await transport("GET", s.origin + "/unread"):
            pass
        async with await transport("GET", s.origin + "/d") as reply:
            await reply.read()
        assert len(s.requests) == 6
        await transport.close()


async def test_an_idle_connection_that_died_is_not_noticed(driver: Any) -> None:
    """Closed by the server while idle, and the loop was busy: the next request opens a fresh one, a POST too."""
    for ending in (CLOSE, RESET):
        with ScriptServer([respond(200, "1"), ending], [respond(200, "2"), ending], [respond(200, "3")]) as server:
            transport = driver.transport()
            for number, method in enumerate(("GET", "POST", "GET")):
                async with await transport(method, server.url) as reply:
                    assert await reply.read() == str(number + 1).encode()
                server.wait(lambda n=number: server.connections[n].ended or n == 2)
            await transport.close()


async def test_a_reused_connection_that_fails_is_tried_afresh_for_get_only(driver: Any) -> None:
    """The server dies with the second request in hand: a GET may be repeated, a POST never."""
    for method in ("GET", "POST"):
        with ScriptServer([respond(200, "1"), READ, RESET], [respond(200, "2")]) as server:
            transport = driver.transport()
            await (await transport("GET", server.url)).read()
            if method == "GET":
                assert await (await transport("GET", server.url)).read() == b"2"
                assert len(server.connections) == 2
            else:
                with pytest.raises(httpclient.HttpError):
                    await transport("POST", server.url, body=b"x")
                assert len(server.connections) == 1
            await transport.close()


async def test_bytes_beyond_the_body_make_a_connection_unfit(driver: Any) -> None:
    """What a server sends unasked is never taken for the answer to the next request."""
    smuggled = respond(200, "1") + respond(200, "evil")
    with ScriptServer([smuggled, READ, respond(200, "x")], [respond(200, "2")]) as server:
        transport = driver.transport()
        assert await (await transport("GET", server.url)).read() == b"1"
        assert await (await transport("GET", server.url)).read() == b"2"
        await transport.close()


async def test_tcp_keep_alive_is_on(driver: Any) -> None:
    """The kernel asks an idle peer after a minute whether it is still there, and small writes go out at once."""
    with ScriptServer([SSE, event(1), HOLD]) as server:
        async with driver.connect(server.url) as events:
            await events.next()
            (timer,) = [row[5] for row in tcp_table() if row[2].endswith(f":{server.port:04X}") and row[3] == "01"]
    kind, ticks = timer.split(":")
    assert kind == "02"  # keep-alive
    assert 50 < int(ticks, 16) / 100 <= 61


async def test_answers_without_a_body_end_with_their_head(driver: Any) -> None:
    """HEAD, 204 and 304 have none, whatever their headers say, and leave a reusable connection."""

    def answer(request: Any) -> Any:
        return head(int(request.path[1:]), content_length=5 if request.method == "HEAD" else None)

    with ScriptServer([each(answer)]) as server:
        transport = driver.transport()
        for method, status in (("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 200)):
            async with await transport(method, f"{server.origin}/{status}") as reply:
                assert reply.status_code == status
                assert await reply.read() == b""
        assert len(server.connections) == 1
        await transport.close()


# === Proxies ===


async def test_plain_proxy_with_credentials(driver: Any) -> None:
    """The proxy gets the whole URL and its own credentials; the server gets neither."""
    with ScriptServer([SSE, event(1)], [SSE, event(2), HOLD]) as server, http_proxy("usér", "p@ss") as proxy:
        through = proxy.origin.replace("//", "//us%C3%A9r:p%40ss@")
        async with driver.connect(server.url + "?q=1", proxy=through, headers={"X-Api-Key": "k3y"}, **QUICK) as events:
            assert await events.take(2) == ["1", "2"]
        assert proxy.requests[0].target == server.url + "?q=1"
        assert proxy.requests[0]["host"] == server.authority
        assert server.requests[0]["proxy-authorization"] is None
        assert server.requests[0]["x-api-key"] == "k3y"


async def test_tunnel_through_a_proxy_with_credentials(driver: Any, authority: Any) -> None:
    """CONNECT carries the proxy's credentials and nothing of the request, which is verified end to end."""
    with ScriptServer([SSE, event(1)], [SSE, event(2), HOLD], tls=authority.server()) as server:
        with http_proxy("user", "p@ss") as proxy:
            through = proxy.origin.replace("//", "//user:p%40ss@")
            options = {"proxy": through, "verify": authority.client(), "headers": {"X-Api-Key": "k3y"}, **QUICK}
            async with driver.connect(server.url, **options) as events:
                assert await events.take(2) == ["1", "2"]
            assert (proxy.requests[0].method, proxy.requests[0].target) == ("CONNECT", server.authority)
            assert b"k3y" not in proxy.requests[0].head
            assert b"proxy-authorization" not in server.requests[0].head.lower()


async def test_a_tunnel_does_not_weaken_verification(driver: Any, authority: Any) -> None:
    """A certificate that does not verify is fatal behind a proxy too."""
    with ScriptServer(then=[SSE], tls=authority.server()) as server, http_proxy() as proxy:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is test_servers.py's
            await driver.connect(server.url, proxy=proxy.origin, **QUICK).next()
        assert any("certificate" in str(error).lower() for error in causes(caught.value))
        assert len(server.connections) == 1


async def test_a_proxy_that_refuses_is_an_error_without_secrets(driver: Any) -> None:
    """407, to a plain request and to a CONNECT: no loop without end, and no password in the message."""
    with http_proxy("user", "right") as proxy:
        through = proxy.origin.replace("//", "//user:wr0ng@")
        for url in ("http://127.0.0.1:1/", "https://127.0.0.1:1/"):
            with pytest.raises((sse.SSEError, httpclient.HttpError), match="407") as caught:
                await driver.connect(url, proxy=through, **ONCE).next()
            assert not any("wr0ng" in str(error) for error in causes(caught.value))
        assert [request.method for request in proxy.requests] == ["GET", "CONNECT"]


async def test_proxies_come_from_the_environment(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY is used, NO_PROXY and `proxy=False` are exceptions."""
    with ScriptServer(then=[SSE, event(1), HOLD]) as server, http_proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.origin)
        async with driver.connect(server.url) as events:
            await events.next()
        assert len(proxy.requests) == 1
        async with driver.connect(server.url, proxy=False) as events:
            await events.next()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with driver.connect(server.url) as events:
            await events.next()
        assert len(proxy.requests) == 1
        assert len(server.requests) == 3


def test_socks_proxies_are_refused_with_advice() -> None:
    """A ValueError that names `transport=`."""
    for connect in (sse.connect, sse.async_connect):
        with pytest.raises(ValueError, match="transport="):
            connect("http://127.0.0.1/", proxy="socks5://127.0.0.1:1080")


# === Other transports ===


async def test_httpx_serves_as_transport(driver: Any) -> None:
    """Request and response are what httpx needs and has; losses in it are losses."""
    import httpx

    scripts = [CHUNKED, chunk(event(1)), END_CHUNK], [CHUNKED, chunk(event(2)), RESET], [SSE, event(3)]
    with ScriptServer(*scripts) as server:
        if driver.is_async:
            async with httpx.AsyncClient() as http:

                async def asynchronous(request: Any, timeout: Any) -> Any:
                    made = http.build_request(
                        request.method, request.url, headers=request.headers, content=request.body, timeout=timeout
                    )
                    return await http.send(made, stream=True)

                async with driver.connect(server.url, transport=asynchronous, **QUICK) as events:
                    assert await events.all() == ["1", "2", "3"]
                    assert events.response is None or events.response.status_code
        else:
            with httpx.Client() as http:

                def blocking(request: Any, timeout: Any) -> Any:
                    made = http.build_request(
                        request.method, request.url, headers=request.headers, content=request.body, timeout=timeout
                    )
                    return http.send(made, stream=True)

                async with driver.connect(server.url, transport=blocking, **QUICK) as events:
                    assert await events.all() == ["1", "2", "3"]
        assert [request["last-event-id"] for request in server.requests] == [None, "1", "2", "3"]
        assert server.requests[0]["accept"] == "text/event-stream"


async def test_the_default_transport_can_be_wrapped(driver: Any) -> None:
    """A callable around Transport may change the URL of each request."""
    inner = httpclient.AsyncTransport() if driver.is_async else httpclient.Transport()
    asked: list[Any] = []

    def wrapper(request: Any, timeout: Any) -> Any:
        asked.append((request.method, request.url, timeout))
        changed = sse.Request(request.method, request.url + "?n=1", request.headers, request.body)
        return inner(changed, timeout)

    with ScriptServer([SSE, event(1)], [SSE, event(2)]) as server:
        async with driver.connect(server.url, transport=wrapper, timeout=7, **QUICK) as events:
            assert await events.all() == ["1", "2"]
        assert {request.target for request in server.requests} == {"/events?n=1"}
        assert asked == [("GET", server.url, 7)] * 3
    for name in ("aclose", "close"):
        if hasattr(inner, name):
            result = getattr(inner, name)()
            if driver.is_async:
                await result
            break


async def test_async_close_ends_a_custom_transport_too() -> None:
    """A consumer blocked in somebody else's transport, or in its body, ends at once."""
    entered = asyncio.Event()

    class Silent:
        status_code, headers = 200, {"content-type": "text/event-stream"}
        closed = False

        async def aiter_bytes(self) -> AsyncIterator[bytes]:
            entered.set()
            await asyncio.sleep(60)
            yield b""

        async def aclose(self) -> None:
            self.closed = True

    async def opens(_: Any, __: Any) -> Silent:
        return response

    async def hangs(_: Any, __: Any) -> Silent:
        entered.set()
        await asyncio.sleep(60)
        return response

    for transport in (opens, hangs):
        response = Silent()
        entered.clear()
        client = sse.async_connect("http://nowhere.example/", transport=transport)
        pending = asyncio.ensure_future(client.__anext__())
        await asyncio.wait_for(entered.wait(), 5)
        with at_once():
            await client.close()
            with pytest.raises(StopAsyncIteration):
                await pending
        assert response.closed == (transport is opens)


# === Secrets ===


async def test_secrets_are_in_no_log_and_no_error(driver: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Userinfo, query, header values and the body stay out of log lines and of str() of every exception."""
    caplog.set_level(logging.DEBUG)
    secrets = ["us3r", "p4ss", "qu3ry", "h34der", "b0dy", base64.b64encode(b"us3r:p4ss").decode()]
    options = {"headers": {"X-Key": "h34der"}, "params": {"token": "qu3ry-too"}, **QUICK}
    errors: list[BaseException] = []

    async def failing(url: str, **more: Any) -> None:
        with pytest.raises((sse.SSEError, httpclient.HttpError)) as caught:
            async with driver.connect(url, **{**options, "max_retries": 2, **more}) as events:
                await events.all()
        errors.extend(causes(caught.value))

    with ScriptServer(then=[SSE, RESET]) as lost, ScriptServer(then=respond(500, "sorry")) as refused:
        with ScriptServer(then=[each(lambda _: redirect("/x?qu3ry"))]) as loop, ReservedPort() as closed:
            with ScriptServer(then=[CHUNKED, "-5\r\n"]) as malformed, ScriptServer(then=respond()) as page:
                for server in (lost, refused, loop, malformed, page):
                    url = server.url.replace("//", "//us3r:p4ss@") + "?token=qu3ry"
                    await failing(url)
                    await failing(url, json={"secret": "b0dy"})
                await failing(f"http://us3r:p4ss@127.0.0.1:{closed}/?token=qu3ry")
                with ScriptServer(then=[RAW, RECV, RESET]) as untidy:
                    await failing(f"https://us3r:p4ss@127.0.0.1:{untidy.port}/?token=qu3ry")
    text = "\n".join([str(error) for error in errors] + [record.getMessage() for record in caplog.records])
    text += "\n".join(str(record.exc_text) for record in caplog.records)
    assert not [secret for secret in secrets if secret in text], text
    assert len(errors) >= 12
    assert [record for record in caplog.records if record.name == "sse" and record.levelno == logging.WARNING]


async def test_log_tells_of_open_loss_and_end(driver: Any, caplog: pytest.LogCaptureFixture) -> None:
    """INFO on open and end, WARNING with cause and wait on each reconnect."""
    caplog.set_level(logging.INFO, "sse")
    with ScriptServer([SSE, event(1), RESET], [SSE, event(2), "data: end\n\n", HOLD]) as server:
        async with driver.connect(server.url + "?q=1", until="end", **QUICK) as events:
            await events.all()
        shown = server.url
    records = [record for record in caplog.records if record.name == "sse"]
    assert [record.levelname for record in records] == ["INFO", "WARNING", "INFO", "INFO"]
    assert all(shown in record.getMessage() for record in records)


# === Cut at any byte ===


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_cutting_a_chunked_stream_at_every_byte_loses_nothing(driver: Any, how: str) -> None:
    """Connection n is cut after n bytes; each event comes once, in order."""

    def answer(connection: Any) -> Any:
        first = int(connection.request["last-event-id"] or 0) + 1
        return [CHUNKED, [chunk(event(number, f"{number} ü")) for number in range(first, 16)], HOLD]

    whole = len(CHUNKED) + sum(len(chunk(event(number, f"{number} ü"))) for number in range(1, 4))
    with ScriptServer(then=[answer]) as server, CutProxy(server.port, range(0, whole, 3), how=how) as proxy:
        options = {"retry_interval": 0, "max_retry_interval": 1, "jitter": 0}
        async with driver.connect(proxy.origin + "/events", **options) as events:
            assert await events.take(15) == [f"{number} ü" for number in range(1, 16)]
