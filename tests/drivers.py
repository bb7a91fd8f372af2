"""The blocking and the async clients behind one face: a test body is an `async def`, written once, given a `driver`.

    async def test_it(driver):
        with ScriptServer([SSE, event(1), HOLD]) as server:
            async with driver.connect(server.url) as events:
                assert (await events.next()).data == "1"

The sync driver makes each blocking call in a thread of its own, the async driver awaits in the test's own task.
Nothing here waits for ever: a call that does not return within WITHIN seconds fails the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpclient
import sse
from server import WITHIN

QUICK: dict[str, Any] = {"retry_interval": 10, "max_retry_interval": 400, "jitter": 0}
"""Options of a client that reconnects without making a test slow."""


def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
    """Calls a blocking function in a new thread; the future has its result."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if not future.done():
            future.set_exception(error) if error is not None else future.set_result(result)

    def run() -> None:
        result, error = None, None
        try:
            result = function(*args, **kwargs)
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended: the test has failed already
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=f"driver: {getattr(function, '__qualname__', function)}", daemon=True).start()
    return future


async def bounded(awaitable: Any, within: float = WITHIN) -> Any:
    """Awaits, and fails after `within` seconds. A timeout that the awaitable itself raises stays what it is."""

    async def settled() -> tuple[Any, Exception | None]:
        try:
            return await awaitable, None
        except asyncio.TimeoutError as error:
            return None, error

    try:
        result, error = await asyncio.wait_for(settled(), within)
    except asyncio.TimeoutError:
        raise AssertionError(f"does not return within {within} s") from None
    if error is not None:
        raise error
    return result


@contextlib.contextmanager
def certificate_errors() -> Iterator[None]:
    """Passes if the block raises an exception that is, or was caused by, a certificate that does not verify."""
    try:
        yield
    except Exception as error:
        assert any(isinstance(link, ssl.SSLCertVerificationError) for link in causes(error)), repr(error)  # noqa: PT017
    else:
        raise AssertionError("the certificate was accepted")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception itself and everything that it is chained to."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# === Event streams ===


class Stream:
    """A client under test. Attributes that are not here are those of the client itself."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    async def __aenter__(self) -> Stream:
        await bounded(self._enter(), 3 * WITHIN)
        return self

    async def __aexit__(self, *error: object) -> None:
        await bounded(self._exit(*error))

    def __aiter__(self) -> AsyncIterator[sse.SSEEvent]:
        return self

    async def __anext__(self) -> sse.SSEEvent:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def next(self, timeout: float = WITHIN) -> sse.SSEEvent | None:
        """The next event, None at the end. After asyncio.TimeoutError nothing is lost."""
        raise NotImplementedError

    async def take(self, count: int) -> list[str]:
        """The data of the next `count` events."""
        data = []
        while len(data) < count and (event := await self.next()) is not None:
            data.append(event.data)
        return data

    async def all(self) -> list[str]:
        """The data of all events up to the end."""
        return [event.data async for event in self]

    async def all_until(self, last: str) -> list[str]:
        """The data of all events before the one whose data is `last`."""
        data = []
        while (event := await self.next()) is not None and event.data != last:
            data.append(event.data)
        assert event is not None, f"ended before {last!r}, after {data}"
        return data

    def start_next(self) -> asyncio.Task[Any]:
        """Begins to wait for the next event, in a task."""
        return asyncio.create_task(self.next())


class SyncStream(Stream):
    _pending: asyncio.Future[Any] | None = None

    async def _enter(self) -> None:
        await in_thread(self.client.__enter__)

    async def _exit(self, *error: object) -> None:
        await in_thread(self.client.__exit__, *error)

    async def next(self, timeout: float = WITHIN) -> sse.SSEEvent | None:
        if self._pending is None:
            self._pending = in_thread(next, self.client, None)
        done, _ = await asyncio.wait({self._pending}, timeout=timeout)
        if not done:
            raise asyncio.TimeoutError  # the call goes on, and the next one waits for the same
        pending, self._pending = self._pending, None
        return pending.result()

    async def close(self) -> None:
        await bounded(in_thread(self.client.close))

    async def restart(self) -> None:
        await bounded(in_thread(self.client.restart))


class AsyncStream(Stream):
    async def _enter(self) -> None:
        await self.client.__aenter__()

    async def _exit(self, *error: object) -> None:
        await self.client.__aexit__(*error)

    async def next(self, timeout: float = WITHIN) -> sse.SSEEvent | None:
        return await asyncio.wait_for(self._next(), timeout)

    async def _next(self) -> sse.SSEEvent | None:
        try:
            return await self.client.__anext__()
        except StopAsyncIteration:
            return None

    async def close(self) -> None:
        await bounded(self.client.close())

    async def restart(self) -> None:
        result = self.client.restart()
        if inspect.isawaitable(result):
            await bounded(result)


# === Plain HTTP ===


class Reply:
    """A response of httpclient. Attributes that are not here are those of the response itself."""

    def __init__(self, response: Any) -> None:
        self.response = response

    def __getattr__(self, name: str) -> Any:
        return getattr(self.response, name)

    async def __aenter__(self) -> Reply:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class SyncReply(Reply):
    async def read(self) -> bytes:
        return await bounded(in_thread(self.response.read), 3 * WITHIN)

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        pieces = self.response.iter_bytes()
        while (piece := await bounded(in_thread(next, pieces, None))) is not None:
            yield piece

    async def iter_lines(self) -> AsyncIterator[str]:
        lines = self.response.iter_lines()
        while (line := await bounded(in_thread(next, lines, None))) is not None:
            yield line

    async def close(self) -> None:
        await bounded(in_thread(self.response.close))


class AsyncReply(Reply):
    async def read(self) -> bytes:
        return await bounded(self.response.aread(), 3 * WITHIN)

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        async for piece in self.response.aiter_bytes():
            yield piece

    async def iter_lines(self) -> AsyncIterator[str]:
        async for line in self.response.aiter_lines():
            yield line

    async def close(self) -> None:
        await bounded(self.response.aclose())


class Transporter:
    """A transport of httpclient: `await transport(sse.Request(...), timeout)` gives a Reply."""

    def __init__(self, driver: Driver, transport: Any) -> None:
        self.driver, self.transport = driver, transport

    async def __call__(
        self, method: str, url: str, timeout: Any = WITHIN, headers: Any = None, body: Any = None
    ) -> Reply:
        request = sse.Request(method, url, headers or {}, body)
        if self.driver.is_async:
            return AsyncReply(await bounded(self.transport(request, timeout)))
        return SyncReply(await bounded(in_thread(self.transport, request, timeout)))

    async def close(self) -> None:
        """Closes the idle connection, however that is spelt."""
        for name in ("aclose", "close"):
            if hasattr(self.transport, name):
                result = getattr(self.transport, name)()
                if inspect.isawaitable(result):
                    await bounded(result)
                return


# === The two drivers ===


class Driver:
    is_async = False

    def connect(self, url: str, **options: Any) -> Stream:
        raise NotImplementedError

    async def request(self, method: str, url: str, **options: Any) -> Reply:
        raise NotImplementedError

    async def get(self, url: str, **options: Any) -> Reply:
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Any) -> Reply:
        return await self.request("POST", url, **options)

    def transport(self, **options: Any) -> Transporter:
        raise NotImplementedError


class SyncDriver(Driver):
    def connect(self, url: str, **options: Any) -> Stream:
        return SyncStream(sse.connect(url, **options))

    async def request(self, method: str, url: str, **options: Any) -> Reply:
        return SyncReply(await bounded(in_thread(httpclient.request, method, url, **options), 3 * WITHIN))

    def transport(self, **options: Any) -> Transporter:
        return Transporter(self, httpclient.Transport(**options))


class AsyncDriver(Driver):
    is_async = True

    def connect(self, url: str, **options: Any) -> Stream:
        return AsyncStream(sse.async_connect(url, **options))

    async def request(self, method: str, url: str, **options: Any) -> Reply:
        return AsyncReply(await bounded(httpclient.async_request(method, url, **options), 3 * WITHIN))

    def transport(self, **options: Any) -> Transporter:
        return Transporter(self, httpclient.AsyncTransport(**options))


# === Nothing is left behind ===


class Leaks:
    """Open files and threads, as they were when this was made."""

    def __init__(self) -> None:
        self.files, self.threads = self._files(), set(threading.enumerate())

    @staticmethod
    def _files() -> set[str]:
        """What every open file is (Linux; elsewhere nothing is checked)."""
        found = set()
        with contextlib.suppress(FileNotFoundError):
            for link in Path("/proc/self/fd").iterdir():
                with contextlib.suppress(OSError):  # the listing's own file
                    found.add(f"{link.name} {link.readlink()}")
        return found

    def check(self, within: float = 2.0) -> None:
        """Fails if files or threads are there that were not."""
        deadline = time.monotonic() + within
        while self._left() and time.monotonic() < deadline:
            time.sleep(0.002)
        left = self._left()
        if left:
            gc.collect()  # shows the warning of an object that was dropped unclosed
        assert not left, f"left behind: {left}"

    def _left(self) -> list[object]:
        threads = [thread for thread in threading.enumerate() if thread not in self.threads and thread.is_alive()]
        return [*(self._files() - self.files), *threads]


async def run_body(body: Coroutine[Any, Any, Any], within: float, patience: float = 2.0) -> None:
    """Runs a test's body in this fresh loop; fails if it takes too long or leaves tasks or exceptions behind.

    Tasks have `patience` seconds to end.
    """
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    await bounded(body, within)
    mine = asyncio.current_task()
    assert mine is not None
    deadline = time.monotonic() + patience
    while (left := asyncio.all_tasks() - {mine}) and time.monotonic() < deadline:
        await asyncio.wait(left, timeout=0.05)
    assert not left, f"tasks left behind: {left}"
    gc.collect()  # an exception that nobody looked at is told when its task or future goes
    assert not complaints, f"the event loop complains: {complaints}"
