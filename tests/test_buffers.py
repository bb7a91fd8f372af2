"""buffered, batched and their twins: one body for both, over sources that a test feeds by hand."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import sse
from drivers import AsyncDriver, AsyncStream, Stream, SyncDriver, SyncStream, bounded, in_thread
from server import HOLD, SSE, ScriptServer, event, eventually

# === Sources that a test feeds ===


class Feed:
    """A source that gives what `put` brought, blocks while there is nothing, and ends by `end` or `close`."""

    def __init__(self, *items: object) -> None:
        self.items = deque(items)
        self.asked = 0  # n + 1 once the n-th item is in the buffer, or lost to it
        self.closed = 0
        self.ended = False
        self.error: BaseException | None = None

    def put(self, *items: object) -> None:
        self.items += items
        self.wake()

    def end(self, error: BaseException | None = None) -> None:
        self.error, self.ended = error, True
        self.wake()

    def wake(self) -> None:
        raise NotImplementedError

    def over(self, end: type[Exception]) -> BaseException:
        return end() if self.error is None or self.closed else self.error

    async def buffered(self, count: int) -> None:
        """Waits until `count` items have gone into the buffer."""
        await eventually(lambda: self.asked == count + 1, f"{count} items read ahead, not {self.asked - 1}")


class SyncFeed(Feed):
    def __init__(self, *items: object) -> None:
        super().__init__(*items)
        self.changed = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.asked += 1
        while not self.items:
            if self.ended or self.closed:
                raise self.over(StopIteration)
            self.changed.wait()
            self.changed.clear()
        return self.items.popleft()

    def wake(self) -> None:
        self.changed.set()

    def close(self) -> None:
        self.closed += 1
        self.wake()


class AsyncFeed(Feed):
    def __init__(self, *items: object) -> None:
        super().__init__(*items)
        self.changed = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        self.asked += 1
        while not self.items:
            if self.ended or self.closed:
                raise self.over(StopAsyncIteration)
            self.changed.clear()
            await self.changed.wait()
        await asyncio.sleep(0)
        return self.items.popleft()

    def wake(self) -> None:
        self.changed.set()

    async def aclose(self) -> None:
        self.closed += 1
        self.wake()


# === One face for both ===


class Flavour:
    """The functions for threads."""

    is_async = False
    driver: Any = SyncDriver()
    kind: Any = sse.Buffered
    stream: Any = SyncStream
    feed: Any = SyncFeed
    make: Mapping[str, Any] = {"buffered": sse.buffered, "batched": sse.batched}

    def buffered(self, source: Any, *args: Any, **options: Any) -> Stream:
        return self.share(self.make["buffered"](source, *args, **options))

    def batched(self, source: Any, *args: Any, **options: Any) -> Stream:
        return self.share(self.make["batched"](source, *args, **options))

    def share(self, buffer: Any) -> Stream:
        """One more consumer of a buffer."""
        return self.stream(buffer)

    def generator(self, items: Iterable[Any], gate: threading.Event, log: list[str]) -> Any:
        """A generator that blocks at the end of `items` until the gate opens."""
        try:
            yield from items
            log.append("blocks")
            gate.wait()
            yield "released"
        finally:
            log.append("closed")


class AsyncFlavour(Flavour):
    """The functions for tasks."""

    is_async = True
    driver = AsyncDriver()
    kind = sse.AsyncBuffered
    stream = AsyncStream
    feed = AsyncFeed
    make: Mapping[str, Any] = {"buffered": sse.async_buffered, "batched": sse.async_batched}

    async def generator(self, items: Iterable[Any], gate: threading.Event, log: list[str]) -> Any:
        try:
            for item in items:
                yield item
            log.append("blocks")
            await eventually(gate.is_set)
            yield "released"
        finally:
            log.append("closed")


@pytest.fixture(params=[Flavour, AsyncFlavour], ids=["sync", "async"])
def flavour(request: pytest.FixtureRequest, leaks: None) -> Any:
    """The functions for threads, then those for tasks; nothing may be left of either."""
    return request.param()


async def everything(stream: Stream) -> list[Any]:
    """All items up to the end."""
    return [item async for item in stream]


def flat(lists: Iterable[Iterable[Any]]) -> list[Any]:
    """The items of all lists."""
    return [*itertools.chain.from_iterable(lists)]


async def turns(count: int = 20) -> None:
    """Lets other tasks and threads run; what must not happen has had its chance."""
    for _ in range(count):
        await asyncio.sleep(0.001)


# === buffered ===


async def test_events_come_in_order_then_the_end(flavour: Any) -> None:
    """Once each; the end stays the end."""
    feed = flavour.feed(*range(100))
    feed.end()
    async with flavour.buffered(feed) as stream:
        assert isinstance(stream.client, flavour.kind)
        assert await everything(stream) == [*range(100)]
        assert await stream.next() is None
        assert stream.dropped == 0
    assert feed.closed


async def test_reads_ahead_from_the_first_moment(flavour: Any) -> None:
    """Entering the `with` starts the reader, before anybody asks for an event."""
    feed = flavour.feed(1, 2, 3)
    async with flavour.buffered(feed) as stream:
        await feed.buffered(3)
        assert await stream.next() == 1


async def test_iterates_without_with(flavour: Any) -> None:
    """The first request starts the reader; `close` ends it, twice is as good as once."""
    feed = flavour.feed(1, 2)
    stream = flavour.buffered(feed)
    assert feed.asked == 0
    assert await stream.next() == 1
    await stream.close()
    await stream.close()
    assert feed.closed >= 1
    assert await stream.next() is None


async def test_closed_before_it_began(flavour: Any) -> None:
    """No reader starts any more, the source is closed."""
    feed = flavour.feed(1)
    stream = flavour.buffered(feed)
    await stream.close()
    assert await stream.next() is None
    assert feed.asked == 0
    assert feed.closed


async def test_block_reads_no_further_than_its_size(flavour: Any) -> None:
    """The reader holds one event more and waits with it; nothing is dropped."""
    feed = flavour.feed(*range(50))
    feed.end()
    async with flavour.buffered(feed, maxsize=3) as stream:
        for taken in range(50):
            await eventually(lambda taken=taken: feed.asked >= min(taken + 4, 50))
            await asyncio.sleep(0)
            assert feed.asked <= taken + 4
            assert await stream.next() == taken
        assert await stream.next() is None
        assert stream.dropped == 0


@pytest.mark.parametrize(("overflow", "kept"), [("drop_oldest", [7, 8, 9]), ("drop_newest", [0, 1, 2])])
async def test_overflow_drops_and_counts(flavour: Any, overflow: str, kept: list[int]) -> None:
    """A consumer that sleeps loses seven of ten events, and gets what comes once there is room again."""
    feed = flavour.feed(*range(10))
    async with flavour.buffered(feed, 3, overflow) as stream:
        await feed.buffered(10)
        assert stream.dropped == 7
        assert [await stream.next() for _ in kept] == kept
        feed.put(10)
        assert await stream.next() == 10
        feed.end()
        assert await stream.next() is None
        assert stream.dropped == 7


async def test_first_drop_and_powers_of_ten_are_logged(flavour: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Four warnings for 1234 lost events, with the size and the count."""
    feed = flavour.feed(*range(1239))
    with caplog.at_level(logging.WARNING, "sse"):
        async with flavour.buffered(feed, 5, "drop_oldest") as stream:
            await feed.buffered(1239)
            assert stream.dropped == 1234
    records = [record for record in caplog.records if record.name == "sse"]
    assert {record.levelname for record in records} == {"WARNING"}
    messages = [record.getMessage() for record in records]
    assert messages == [f"buffer of 5 events is full: {count} dropped so far" for count in (1, 10, 100, 1000)]


async def test_slow_database_behind_a_fast_stream(flavour: Any) -> None:
    """What the writer got and what was dropped add up to what was sent; the newest are there."""
    sent = 2000
    script = [SSE, "".join([event(n) for n in range(sent)]), HOLD]
    with ScriptServer(script) as server, contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE events (id INTEGER)")
        client = flavour.driver.connect(server.url).client
        async with flavour.buffered(client, 50, "drop_oldest") as stream:
            while (got := await stream.next()).id != str(sent - 1):
                db.execute("INSERT INTO events VALUES (?)", (int(got.id),))
                if int(got.id) < 100:  # slow, until the reader is through
                    await eventually(lambda: client.stats.events == sent)
            rows = [row for (row,) in db.execute("SELECT id FROM events ORDER BY rowid")]
            assert rows == sorted(set(rows))
            assert rows[-49:] == [*range(sent - 50, sent - 1)]
            assert stream.dropped > 0
            assert len(rows) + 1 + stream.dropped == sent


# === Several workers ===


async def test_three_workers_share_one_stream(flavour: Any) -> None:
    """Each event reaches one of them, in the order of the stream; all three take part and all three end."""
    feed = flavour.feed()
    taken: list[list[int]] = [[], [], []]

    async def work(stream: Stream, mine: list[int]) -> None:
        async for item in stream:
            mine.append(item)
            await eventually(lambda: all(taken), "all three have an event")

    async with flavour.buffered(feed) as stream:
        workers = [asyncio.ensure_future(work(flavour.share(stream.client), mine)) for mine in taken]
        feed.put(*range(300))
        feed.end()
        await asyncio.gather(*workers)
    assert sorted(flat(taken)) == [*range(300)]
    assert [sorted(mine) for mine in taken] == taken


@pytest.mark.parametrize("function", ["buffered", "batched"])
async def test_leaving_ends_every_waiting_worker(flavour: Any, function: str) -> None:
    """Their loops end as at the end of the stream."""
    feed = flavour.feed()
    stream = flavour.share(flavour.make[function](feed, 5, **({"max_wait": 60} if function == "batched" else {})))
    async with stream:
        workers = [asyncio.ensure_future(everything(flavour.share(stream.client))) for _ in range(3)]
        await eventually(lambda: feed.asked == 1)
        await turns()
    assert await bounded(asyncio.gather(*workers)) == [[], [], []]
    assert feed.closed


@pytest.mark.parametrize("function", ["buffered", "batched"])
async def test_error_comes_after_the_events_and_to_each_worker(flavour: Any, function: str) -> None:
    """The very exception of the source, again for whoever asks again."""
    feed = flavour.feed(1, 2, 3)
    error = ValueError("the source broke")
    feed.end(error)
    batches = function == "batched"
    stream = flavour.share(flavour.make[function](feed, 2, **({"max_wait": 60} if batches else {})))
    async with stream:
        assert [await stream.next() for _ in range(2 if batches else 3)] == ([[1, 2], [3]] if batches else [1, 2, 3])
        for _ in range(3):
            with pytest.raises(ValueError, match="the source broke") as raised:
                await flavour.share(stream.client).next()
            assert raised.value is error


async def test_error_wakes_workers_that_wait(flavour: Any) -> None:
    """All three, though none of them could know."""
    feed = flavour.feed()
    async with flavour.buffered(feed) as stream:
        workers = [asyncio.ensure_future(flavour.share(stream.client).next()) for _ in range(3)]
        await eventually(lambda: feed.asked == 1)
        await turns()
        feed.end(OSError("gone"))
        results = await bounded(asyncio.gather(*workers, return_exceptions=True))
        assert [(type(result), str(result)) for result in results] == [(OSError, "gone")] * 3


async def test_error_of_a_client(flavour: Any) -> None:
    """A stream that is lost for good reaches the consumer as its SSEConnectionError."""
    with ScriptServer([SSE, event(1), event(2)]) as server:
        client = flavour.driver.connect(server.url, max_retries=0).client
        async with flavour.buffered(client) as stream:
            assert [(await stream.next()).data for _ in range(2)] == ["1", "2"]
            with pytest.raises(sse.SSEConnectionError, match="the server ended it"):
                await stream.next()


async def test_cancellation_inside_the_source_is_an_error_of_the_source() -> None:
    """A task that the source waits for was cancelled, not the reader: nobody may wait for ever."""

    async def source() -> AsyncIterator[int]:
        yield 1
        inner = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner

    async with sse.async_buffered(source()) as events:
        assert await bounded(events.__anext__()) == 1
        reading = asyncio.ensure_future(events.__anext__())
        done, _ = await asyncio.wait({reading}, timeout=2)
        assert done, "the consumer waits for ever"
        assert reading.cancelled() or isinstance(reading.exception(), BaseException)


# === batched ===


async def test_full_batches_come_at_once(flavour: Any) -> None:
    """`max_wait` is for batches that are not full; at the end of the stream the rest comes at once, too."""
    feed = flavour.feed(*range(7))
    async with flavour.batched(feed, 3, max_wait=60) as stream:
        assert await stream.next() == [0, 1, 2]
        assert await stream.next() == [3, 4, 5]
        pending = stream.start_next()
        await feed.buffered(7)
        await turns()
        assert not pending.done()
        feed.end()
        assert await bounded(pending) == [6]
        assert await stream.next() is None


async def test_held_event_comes_while_the_stream_is_quiet(flavour: Any) -> None:
    """Within max_wait of its arrival, with whatever came meanwhile."""
    feed = flavour.feed()
    async with flavour.batched(feed, 500, max_wait=0.05) as stream:
        for round in range(3):
            pending = stream.start_next()
            await turns(2)
            feed.put(round)
            assert (await bounded(pending)) == [round]
        feed.put("a", "b")
        await feed.buffered(5)
        assert await stream.next() == ["a", "b"]


async def test_wait_counts_from_the_arrival(flavour: Any) -> None:
    """What has waited long enough before anybody asked is given out without another wait."""
    feed = flavour.feed(1)
    async with flavour.batched(feed, 500, max_wait=0.2) as stream:
        await feed.buffered(1)
        arrived = time.monotonic()
        await asyncio.sleep(0.2)
        assert await stream.next() == [1]
        first = time.monotonic() - arrived
        feed.put(2)
        assert await stream.next() == [2]
        assert first >= 0.2
        assert time.monotonic() - arrived >= 0.4


async def test_no_wait(flavour: Any) -> None:
    """`max_wait=0`: what is there, at most `size`, never nothing."""
    feed = flavour.feed(*range(5))
    async with flavour.batched(feed, 3, max_wait=0) as stream:
        got: list[int] = []
        while len(got) < 5:
            batch = await stream.next()
            assert 1 <= len(batch) <= 3
            got += batch
        assert got == [*range(5)]


async def test_workers_share_batches(flavour: Any) -> None:
    """No event twice, none lost, none left over at the end."""
    feed = flavour.feed(*range(1000))
    async with flavour.batched(feed, 7, max_wait=0.01) as stream:
        workers = [asyncio.ensure_future(everything(flavour.share(stream.client))) for _ in range(3)]
        await eventually(lambda: not feed.items)
        feed.end()
        batches = flat(await asyncio.gather(*workers))
    assert sorted(flat(batches)) == [*range(1000)]
    assert all(1 <= len(batch) <= 7 for batch in batches)


async def test_batches_into_sqlite(flavour: Any, tmp_path: Path) -> None:
    """1300 events of a stream that stays open, one transaction for up to 500 of them or one second."""
    path = tmp_path / "events.db"
    with (
        ScriptServer([SSE, "".join([event(n) for n in range(1300)]), HOLD]) as server,
        contextlib.closing(sqlite3.connect(path)) as db,
    ):
        db.execute("CREATE TABLE events (id TEXT, data TEXT)")
        client = flavour.driver.connect(server.url).client
        async with flavour.batched(client, 500, max_wait=1.0) as stream:
            sizes: list[int] = []
            while sum(sizes) < 1300:
                batch = await stream.next()
                sizes.append(len(batch))
                with db:
                    db.executemany("INSERT INTO events VALUES (?, ?)", [(e.id, e.data) for e in batch])
        assert max(sizes) <= 500
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert [int(row) for (row,) in db.execute("SELECT id FROM events")] == [*range(1300)]


# === Leaving ===


@pytest.mark.parametrize("function", ["buffered", "batched"])
async def test_leaving_frees_a_reader_blocked_in_a_client(flavour: Any, function: str) -> None:
    """It closes the client, which closes the connection."""
    with ScriptServer([SSE, event(1), HOLD]) as server:
        client = flavour.driver.connect(server.url).client
        options = {"size": 1, "max_wait": 1} if function == "batched" else {}
        async with flavour.share(flavour.make[function](client, **options)) as stream:
            first = await stream.next()
            assert (first[0] if options else first).data == "1"
        await server.closed(0)
        assert "closed" in repr(client)


async def test_leaving_frees_a_reader_that_waits_for_a_reconnect(flavour: Any) -> None:
    """However long that wait is."""
    with ScriptServer([SSE, "retry: 50000\n\n", event(1)]) as server:
        client = flavour.driver.connect(server.url).client
        async with flavour.buffered(client) as stream:
            assert (await stream.next()).data == "1"
            await eventually(lambda: client.stats.retries == 1)
            started = time.monotonic()
        assert time.monotonic() - started < 9  # not the 10 s that an unfreed reader would be waited for


async def test_leaving_frees_a_reader_in_front_of_a_full_buffer(flavour: Any) -> None:
    """What was read ahead is dropped, the source closed."""
    feed = flavour.feed(*range(10))
    async with flavour.buffered(feed, 2) as stream:
        await feed.buffered(2)
    assert feed.closed
    assert await stream.next() is None
    assert feed.asked == 3


async def test_error_in_the_body_leaves_as_well(flavour: Any) -> None:
    """And is not replaced by another."""
    feed = flavour.feed(1)
    with pytest.raises(RuntimeError, match="of the body"):
        async with flavour.buffered(feed):
            raise RuntimeError("of the body")
    assert feed.closed


async def test_close_from_elsewhere_ends_the_loop(flavour: Any) -> None:
    """A consumer that waits ends as at the end of the stream."""
    feed = flavour.feed(1)
    stream = flavour.buffered(feed)
    reading = asyncio.ensure_future(everything(stream))
    await feed.buffered(1)
    await stream.close()
    assert (await bounded(reading)) in ([], [1])


def test_no_thread_is_left() -> None:
    """At the end of the `with`, not some time later."""
    before = set(threading.enumerate())
    for _ in range(20):
        feed = SyncFeed(*range(3))
        with sse.buffered(feed) as events:
            assert next(events) == 0
            assert set(threading.enumerate()) > before
        assert set(threading.enumerate()) == before
        with sse.batched(feed, 2, 60) as batches:
            pass
        assert set(threading.enumerate()) == before
        assert list(batches) == []


async def test_no_task_is_left(leaks: None) -> None:
    """At the end of the `async with`, not some time later."""
    before = asyncio.all_tasks()
    for _ in range(20):
        feed = AsyncFeed(*range(3))
        async with sse.async_buffered(feed) as events:
            assert await events.__anext__() == 0
            assert asyncio.all_tasks() > before
        assert asyncio.all_tasks() == before
        async with sse.async_batched(feed, 2, 60) as batches:
            pass
        assert asyncio.all_tasks() == before
        assert [batch async for batch in batches] == []


async def test_no_task_is_left_by_a_source_that_resists(leaks: None) -> None:
    """A source that has to clean up after its cancellation is waited for."""
    cleaned = []

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    before = asyncio.all_tasks()
    async with sse.async_buffered(source()) as events:
        assert await events.__anext__() == 1
        await turns(3)
    assert cleaned == [True]
    assert asyncio.all_tasks() == before


# === Sources of all kinds ===


@pytest.mark.parametrize(
    "source", [["a", "b"], ("a", "b"), {"a": 1, "b": 2}, iter(["a", "b"]), "ab"], ids=lambda it: type(it).__name__
)
def test_any_iterable(source: Any, leaks: None) -> None:
    """Also one that is no iterator and cannot be closed."""
    with sse.buffered(source) as events:
        assert list(events) == ["a", "b"]
    with sse.batched([*"abc"], 2, 60) as batches:
        assert list(batches) == [["a", "b"], ["c"]]


def test_infinite_iterator_without_close(leaks: None) -> None:
    """Its thread ends with the next event."""
    with sse.buffered(itertools.count(), 10) as events:
        assert [next(events) for _ in range(100)] == [*range(100)]


async def test_generator(flavour: Any) -> None:
    """To its end, and left before."""
    gate, log = threading.Event(), []
    gate.set()
    async with flavour.buffered(flavour.generator([1, 2], gate, log)) as stream:
        assert await everything(stream) == [1, 2, "released"]
    assert log == ["blocks", "closed"]
    del log[:]
    async with flavour.buffered(flavour.generator([*range(100)], gate, log), 3) as stream:
        assert await stream.next() == 0
    await eventually(lambda: log == ["closed"], "the generator is closed")


async def test_generator_that_blocks_when_left(flavour: Any) -> None:
    """A task in it is cancelled; a thread cannot be, so it ends, and closes the generator, once that goes on."""
    gate, log = threading.Event(), []
    source = flavour.generator([1], gate, log)
    async with flavour.buffered(source) as stream:
        assert await stream.next() == 1
        await eventually(lambda: log)
    assert log == (["blocks", "closed"] if flavour.is_async else ["blocks"])
    assert await stream.next() is None
    gate.set()
    await eventually(lambda: log == ["blocks", "closed"], "the generator is closed", within=3)
    del stream, source  # not by the collector


def test_source_whose_close_frees_nobody(leaks: None) -> None:
    """Its reader is waited for a while, not for ever, and ends once it can."""

    class Source(SyncFeed):
        def close(self) -> None:
            self.closed += 1

    feed = Source(1)
    started = time.monotonic()
    with sse.buffered(feed) as events:
        assert next(events) == 1
    assert 1 < time.monotonic() - started < 8
    assert feed.closed == 1
    feed.end()


async def test_event_source(flavour: Any) -> None:
    """Our own parser over lines is a source like any other, and closed through."""
    lines = flavour.feed("data: a", "", "data: b", "", "data: c")
    kind = sse.AsyncEventSource if flavour.is_async else sse.EventSource
    async with flavour.buffered(kind(lines)) as stream:
        assert [(await stream.next()).data for _ in range(2)] == ["a", "b"]
        await eventually(lambda: lines.asked == 6)
    assert lines.closed


async def test_client_in_a_with_of_its_own(flavour: Any) -> None:
    """It is closed twice; both blocks are left quietly."""
    with ScriptServer([SSE, event(1), HOLD]) as server:
        async with flavour.driver.connect(server.url) as client, flavour.buffered(client.client) as stream:
            assert (await stream.next()).data == "1"
        await server.closed(0)


async def test_async_source_with_a_plain_close(leaks: None) -> None:
    """Better than none."""

    class Source:
        closed = False

        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            return 1

        def close(self) -> None:
            self.closed = True

    source = Source()
    async with sse.async_buffered(source, 2) as events:
        assert await events.__anext__() == 1
    assert source.closed


async def test_async_source_without_any_close(leaks: None) -> None:
    """The cancelled task is all that there is to end."""

    class Source:
        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            return await asyncio.sleep(0, 1)

    async with sse.async_buffered(Source()) as events:
        assert await events.__anext__() == 1


# === Cancellation ===


@pytest.mark.parametrize("function", ["buffered", "batched"])
async def test_cancelled_anext_loses_nothing(function: str, leaks: None) -> None:
    """Whether it is cancelled before an event came, as it comes, or with a batch half full."""
    feed = AsyncFeed()
    batches = function == "batched"
    stream = sse.async_batched(feed, 3, 0.001) if batches else sse.async_buffered(feed)
    got: list[int] = []

    def take(item: Any) -> None:
        got.extend(item if batches else [item])

    async with stream as events:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(events.__anext__(), 0.01)
        for number in range(200):
            waiting = asyncio.ensure_future(events.__anext__())
            for _ in range(number % 5):
                await asyncio.sleep(0)
            feed.put(number)
            for _ in range(number // 5 % 6):
                await asyncio.sleep(0)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                take(await waiting)
        feed.end()
        async for item in events:
            take(item)
    assert got == [*range(200)]


async def test_cancelled_worker_leaves_the_event_to_another(leaks: None) -> None:
    """The wake-up that it got is not the only one."""
    feed = AsyncFeed()
    async with sse.async_buffered(feed) as events:
        first, second = (asyncio.ensure_future(events.__anext__()) for _ in range(2))
        await turns(2)
        feed.put(1)
        first.cancel()
        assert await bounded(second) == 1
        assert first.cancelled()


async def test_cancelled_task_leaves_the_with(leaks: None) -> None:
    """The reader goes with it, and the source is closed."""
    feed = AsyncFeed()

    async def consume() -> None:
        async with sse.async_buffered(feed) as events:
            async for _ in events:
                pass

    before = asyncio.all_tasks()
    consumer = asyncio.ensure_future(consume())
    await eventually(lambda: feed.asked)
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert feed.closed
    assert asyncio.all_tasks() == before


# === Arguments ===


BAD = [
    ("buffered", {"maxsize": 0}, ValueError, "maxsize must be .* >= 1, got 0"),
    ("buffered", {"maxsize": -1}, ValueError, "maxsize must be .*, got -1"),
    ("buffered", {"maxsize": 1.5}, TypeError, "maxsize must be .*, got 1.5"),
    ("buffered", {"maxsize": None}, TypeError, "maxsize must be .*, got None"),
    ("buffered", {"maxsize": True}, TypeError, "maxsize must be .*, got True"),
    ("buffered", {"overflow": "drop"}, ValueError, "overflow must be .*'drop_oldest'.*, got 'drop'"),
    ("buffered", {"overflow": None}, TypeError, "overflow must be .*, got None"),
    ("batched", {"size": 0, "max_wait": 1}, ValueError, "^size must be .* >= 1, got 0"),
    ("batched", {"size": None, "max_wait": 1}, TypeError, "^size must be .*, got None"),
    ("batched", {"size": "5", "max_wait": 1}, TypeError, "^size must be .*, got '5'"),
    ("batched", {"size": 5, "max_wait": -1}, ValueError, "max_wait must be .* >= 0, got -1"),
    ("batched", {"size": 5, "max_wait": float("nan")}, ValueError, "max_wait must be .*, got nan"),
    ("batched", {"size": 5, "max_wait": None}, TypeError, "max_wait must be .*, got None"),
]


@pytest.mark.parametrize(("function", "options", "kind", "text"), BAD, ids=str)
async def test_arguments_are_checked(flavour: Any, function: str, options: Any, kind: Any, text: str) -> None:
    """When it is made; the error names the argument and shows the value."""
    with pytest.raises(kind, match=text):
        flavour.make[function](flavour.feed(), **options)


async def test_what_cannot_be_iterated_is_an_error(flavour: Any) -> None:
    """TypeError, at the latest for the consumer."""
    with pytest.raises(TypeError):
        await flavour.buffered(5).next()


async def test_many_threads_and_reconnects(flavour: Any) -> None:
    """A stream of 40 connections behind a small buffer: nothing lost or doubled, nothing left over."""
    scripts = [[SSE, "retry: 1\n\n", event(n * 2), event(n * 2 + 1)] for n in range(40)]
    with ScriptServer(*scripts) as server:
        client = flavour.driver.connect(server.url, jitter=0).client
        async with flavour.batched(client, 3, 0.001) as stream:
            workers = [asyncio.ensure_future(everything(flavour.share(stream.client))) for _ in range(3)]
            batches = flat(await asyncio.gather(*workers))
    assert sorted(int(e.data) for batch in batches for e in batch) == [*range(80)]


def test_garbage_does_not_hold_the_reader() -> None:
    """Once its source is at its end, a buffer that nobody closed leaves no thread."""
    before = set(threading.enumerate())
    events = sse.buffered([1, 2, 3])
    assert next(events) == 1
    del events
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


async def test_in_thread_pool(leaks: None) -> None:
    """The recipe's three workers, in plain threads."""
    from concurrent.futures import ThreadPoolExecutor

    def run() -> list[int]:
        with sse.buffered(iter(range(1000)), 10) as events, ThreadPoolExecutor(3) as pool:
            return sorted(flat(pool.map(list, [events] * 3)))

    assert await bounded(in_thread(run)) == [*range(1000)]


@pytest.mark.parametrize("function", ["buffered", "batched"])
async def test_source_is_closed_once(flavour: Any, function: str) -> None:
    """By the end of the `with` after close(), and by the reader, no second time."""
    feed = flavour.feed(1, 2)
    async with getattr(flavour, function)(feed, 2, **({} if function == "buffered" else {"max_wait": 60})) as stream:
        assert await stream.next() is not None
        await stream.close()
    await stream.close()
    assert feed.closed == 1


def test_error_of_the_source_s_close_is_told_once(leaks: None) -> None:
    """To whoever leaves, and not by the thread once more."""

    class Source(SyncFeed):
        def close(self) -> None:
            super().close()
            raise ValueError("cannot be closed")

    with pytest.raises(ValueError, match="cannot be closed"), sse.buffered(Source(1)) as events:
        assert next(events) == 1


def test_close_in_the_reader_s_own_thread(leaks: None) -> None:
    """As a callback of the source may do it: the thread does not wait for itself."""

    returned = []

    def source() -> Iterator[int]:
        yield 1
        events.close()
        returned.append(True)
        yield 2

    events = sse.buffered(source())
    assert 2 not in list(events)
    events.close()  # waits for the thread
    assert returned == [True]


async def test_event_that_waited_for_room_is_as_old_as_it_is(flavour: Any) -> None:
    """`max_wait` counts from its arrival, not from when a full batch made way."""
    feed = flavour.feed(0, 1, 2)
    async with flavour.batched(feed, 2, max_wait=0.3) as stream:
        await feed.buffered(2)  # and 2 is in the reader's hand
        await asyncio.sleep(0.3)
        assert await stream.next() == [0, 1]
        taken = time.monotonic()
        assert await stream.next() == [2]
        assert time.monotonic() - taken < 0.25
