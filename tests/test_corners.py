"""What the other files do not reach: rare states, each brought about on purpose."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import types
from typing import Any

import pytest

import httpclient
import sse
from server import HOLD, SSE, BlackHole, ScriptServer, event, eventually


def test_event_can_be_replaced_as_by_python_3_13() -> None:
    """copy.replace() asks for `__replace__`."""
    assert sse.SSEEvent(data="a", id="1").__replace__(data="b") == sse.SSEEvent(data="b", id="1")


@pytest.mark.parametrize("value", ["", "soon", "-1", "Thu, 01 Jan 99999 00:00:00 GMT", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_retry_after_that_is_none(value: str) -> None:
    """What is neither seconds nor a date asks for no wait."""
    assert sse._retry_after_ms(value, 0.0) == 0


@pytest.mark.parametrize("module", [None, types.ModuleType("httpclient")])
@pytest.mark.parametrize("kind", [sse.SSEClient, sse.AsyncSSEClient])
def test_client_without_httpclient(module: Any, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening it says what to copy."""
    monkeypatch.setitem(sys.modules, "httpclient", module)
    client = kind("http://127.0.0.1:9/")

    async def open_it() -> None:
        await client.__anext__()

    with pytest.raises(ImportError, match=r"httpclient\.py"):
        next(client) if kind is sse.SSEClient else asyncio.run(open_it())


def test_transport_that_raises_stop_iteration() -> None:
    """It must not look like the end of the stream."""

    def transport(request: Any, timeout: Any) -> Any:
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(sse.connect("http://stream.example/", transport=transport))


async def test_dropped_async_client_closes_its_connection() -> None:
    """A consumer that is cancelled outside of an `async with` leaves nobody who could."""
    with ScriptServer([SSE, event(1), HOLD]) as server:

        async def consume() -> None:
            async for _ in sse.async_connect(server.url):
                pass

        task = asyncio.ensure_future(consume())
        await eventually(lambda: server.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        gc.collect()
        await server.closed(0)


@pytest.mark.parametrize("moment", ["headers", "response"])
async def test_dropped_async_client_leaves_nothing_of_what_was_being_opened(moment: str) -> None:
    """What has come when the client goes is closed too: no cancellation can reach it any more."""
    clients: list[sse.AsyncSSEClient] = []
    transport = httpclient.AsyncTransport()
    asked, go, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def drop(at: str) -> None:
        if at == moment:
            asked.set()
            await go.wait()
            clients.clear()
            gc.collect()
            gone.set()

    async def headers() -> dict[str, str]:
        await drop("headers")
        return {}

    async def late(request: Any, timeout: Any) -> Any:
        response = await transport(request, timeout)
        await drop("response")
        return response

    with ScriptServer([SSE, event(1), HOLD]) as server:
        clients.append(sse.async_connect(server.url, headers=headers, transport=late))
        task = asyncio.ensure_future(anext(clients[0]))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        gc.collect()
        go.set()
        await gone.wait()
        if moment == "response":
            await server.closed(0)
        else:
            assert not server.requests
    await transport.aclose()


async def test_dropped_async_response_closes_its_connection() -> None:
    with ScriptServer([SSE, event(1), HOLD]) as server:
        response = await httpclient.async_get(server.url, stream=True)
        assert response.ok
        del response
        gc.collect()
        await server.closed(0)


def test_async_response_dropped_after_its_loop() -> None:
    """Nobody is left to close it; asyncio warns of the socket, as it always does."""
    with ScriptServer([SSE, event(1), HOLD]) as server:
        response = asyncio.run(httpclient.async_get(server.url, stream=True))
        del response
        with pytest.warns(ResourceWarning, match="unclosed"):
            gc.collect()


async def test_cancelled_read_of_another_transport_goes_on() -> None:
    """The next step finds the read that the cancelled one had begun."""
    go = asyncio.Event()

    class Reply:
        status_code = 200

        def __init__(self) -> None:
            self.headers = {"Content-Type": "text/event-stream"}

        async def aiter_bytes(self) -> Any:
            yield b"data: 1\n\n"
            await go.wait()
            yield b"data: 2\n\n"

        async def aclose(self) -> None:
            pass

    async def transport(request: Any, timeout: Any) -> Any:
        return Reply()

    async with sse.async_connect("http://stream.example/", transport=transport, body="x") as events:
        assert (await events.__anext__()).data == "1"
        for _ in range(2):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(events.__anext__(), 0.02)
        go.set()
        assert [event.data async for event in events] == ["2"]


@pytest.mark.parametrize("url", ["http://a..b/", "http://.a/", f"http://{'a' * 64}/"])
def test_host_that_no_name_look_up_takes(url: str) -> None:
    """A bad URL, not a name that may be found the next time."""
    with pytest.raises(ValueError, match="url"):
        httpclient.get(url)


def test_blocking_connection_that_is_closed() -> None:
    """It says so to whoever reads."""
    connection = httpclient._BlockingConnection()
    connection.close()
    with pytest.raises(httpclient.HttpConnectionError, match="closed here"):
        httpclient._run(connection.recv(lambda: None))


async def test_async_connection_that_never_was() -> None:
    """It can be closed all the same."""
    connection = httpclient._AsyncConnection()
    connection.close()
    with pytest.raises(httpclient.HttpConnectionError, match="closed here"):
        await connection.recv(lambda: None)


async def test_what_loses_the_race_of_addresses_is_closed() -> None:
    """Also when it connects after all."""
    loop = asyncio.get_running_loop()
    attempt = loop.create_future()
    sock = socket.socket()
    attempt.set_result(sock)
    httpclient._close_result(attempt)
    assert sock.fileno() == -1


async def test_one_address_swallows_and_the_other_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the first is waited for, up to the deadline."""
    with BlackHole() as hole:
        family = socket.AF_INET, socket.SOCK_STREAM, 6, ""

        def getaddrinfo(host: Any, port: Any, type: int = 0, flags: int = 0) -> Any:
            if flags:
                raise socket.gaierror(socket.EAI_NONAME, "not a number")
            return [(*family, ("127.0.0.1", hole.port)), (*family, ("127.0.0.1", 1))]

        real = socket.getaddrinfo
        monkeypatch.setattr(httpclient.socket, "getaddrinfo", getaddrinfo)
        with pytest.raises(httpclient.HttpTimeoutError):
            await httpclient.async_get("http://two.example/", timeout=0.6)
        monkeypatch.setattr(httpclient.socket, "getaddrinfo", real)
