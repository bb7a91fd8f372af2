"""EventSource and AsyncEventSource over lines and chunks: one body for both, through the `flavour` fixture."""

from __future__ import annotations

import asyncio
import inspect
import io
import itertools
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import httpclient
import sse
from cases import STREAMS, Case
from drivers import SyncDriver, bounded, in_thread
from helpers import plain, slicings
from reference import split_lines
from server import HOLD, ScriptServer, head

# === One face for both classes ===

DONE = (StopIteration, StopAsyncIteration)


class AsyncItems:
    """An asynchronous source of items, no generator; closes what it was made of."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = items
        self.iterator = iter(items)

    def __aiter__(self) -> AsyncItems:
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        try:
            return next(self.iterator)
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        for closable in (self.items, self.iterator):
            if hasattr(closable, "close"):
                closable.close()


class Flavour:
    """EventSource, plainly."""

    kind: Any = sse.EventSource
    ended: type[Exception] = StopIteration

    def lines(self, lines: Any, **options: Any) -> Any:
        return self.kind(self.wrap(lines), **options)

    def chunks(self, chunks: Any, **options: Any) -> Any:
        return self.kind.from_chunks(self.wrap(chunks), **options)

    def wrap(self, items: Any) -> Any:
        return items

    def next(self, source: Any) -> Any:
        return next(source)

    def close(self, source: Any) -> None:
        assert source.close() is None

    def enter(self, source: Any) -> Any:
        return source.__enter__()

    def leave(self, source: Any, *error: Any) -> Any:
        return source.__exit__(*(error or (None, None, None)))

    def stop(self) -> None:
        """Release what the flavour holds."""


class AsyncFlavour(Flavour):
    """AsyncEventSource over an asynchronous iterable."""

    kind = sse.AsyncEventSource
    ended = StopAsyncIteration

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def wrap(self, items: Any) -> Any:
        return AsyncItems(items)

    def next(self, source: Any) -> Any:
        return self.loop.run_until_complete(source.__anext__())

    def close(self, source: Any) -> None:
        assert self.loop.run_until_complete(source.aclose()) is None

    def enter(self, source: Any) -> Any:
        return self.loop.run_until_complete(source.__aenter__())

    def leave(self, source: Any, *error: Any) -> Any:
        return self.loop.run_until_complete(source.__aexit__(*(error or (None, None, None))))

    def stop(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class AsyncOverPlainFlavour(AsyncFlavour):
    """AsyncEventSource over an ordinary iterable."""

    def wrap(self, items: Any) -> Any:
        return items


@pytest.fixture(params=[Flavour, AsyncFlavour, AsyncOverPlainFlavour], ids=["sync", "async", "async-over-plain"])
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    flavour = request.param()
    yield flavour
    flavour.stop()


def rest(flavour: Flavour, source: Any) -> list[sse.SSEEvent]:
    """Return all further events."""
    events = []
    while True:
        try:
            events.append(flavour.next(source))
        except flavour.ended:
            return events


def data(flavour: Flavour, source: Any) -> list[str]:
    """Return the data of all further events."""
    return [event.data for event in rest(flavour, source)]


both = pytest.mark.parametrize("way", ["lines", "chunks"])
"""Over lines and over chunks; streams in such tests are lists of lines with their line ends, which fit both."""


# === Lines ===


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.name)
def test_every_case_as_lines(case: Case, flavour: Flavour) -> None:
    """Lines without line ends, `str` and `bytes`, give the events of the table."""
    text = case.stream.decode("utf-8", "replace")
    byte_lines = case.stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]
    for lines in (split_lines(text)[0], byte_lines):
        source = flavour.lines(lines)
        assert plain(rest(flavour, source)) == case.events
        assert (source.last_event_id, source.retry) == (case.last_event_id, case.retry)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", ""])
@pytest.mark.parametrize("encode", [str, str.encode])
def test_one_line_end_is_taken_off(end: str, encode: Any, flavour: Flavour) -> None:
    """Each of the three line ends, or none."""
    lines = [encode(line + end) for line in ("\ufeffid: 1", "data: a\u20ac", "data: b", "", "data: c", "")]
    assert plain(rest(flavour, flavour.lines(lines))) == [
        ("message", "a\u20ac\nb", "1", None),
        ("message", "c", "1", None),
    ]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("data: a\n\n", "a\n"),
        ("data: a\r\r\n", "a\r"),
        ("data: a\r\r", "a\r"),
        ("data: a\n\r\n", "a\n"),
        ("data: a\r\n\r\n", "a\r\n"),
        ("data: a\rdata: b\n", "a\rdata: b"),
        ("data: a\ndata: b", "a\ndata: b"),
        ("data: a\u2028\x85\x0b\x0c\x1c\x1d\x1e\n", "a\u2028\x85\x0b\x0c\x1c\x1d\x1e"),
        ("data: \u2028", "\u2028"),
        ("data: a \t\n", "a \t"),
        ("data:\n", ""),
    ],
)
def test_lines_are_not_split_again_nor_stripped(line: str, value: str, flavour: Flavour) -> None:
    """At most one line end goes; what else looks like one is the source's own doing."""
    for lines in ([line, "\n"], [line.encode(), b"\n"], [line, ""]):
        assert data(flavour, flavour.lines(lines)) == [value]


def test_bytes_lines_are_decoded_each_by_itself(flavour: Flavour) -> None:
    """Bad bytes become U+FFFD, also a character that the end of its line cuts off."""
    lines = [b"data: \xe2\x82", b"data: \xac\xff", b"data: \xf0\x9f\n", "data: \u20ac".encode(), b""]
    assert data(flavour, flavour.lines(lines)) == ["\ufffd\n\ufffd\ufffd\n\ufffd\n\u20ac"]


def test_str_and_bytes_lines_mixed(flavour: Flavour) -> None:
    """Each line is taken as it is."""
    assert data(flavour, flavour.lines(["data: a\n", b"data: b\r\n", "data: c", b""])) == ["a\nb\nc"]


def test_an_unfinished_block_of_lines_is_dropped(flavour: Flavour) -> None:
    """Lines that no blank line follows dispatch nothing."""
    assert data(flavour, flavour.lines(["data: a", "", "data: b"])) == ["a"]


@pytest.mark.parametrize(
    "case", [case for case in STREAMS if b"\r" not in case.stream][:40], ids=lambda case: case.name
)
def test_files(case: Case, flavour: Flavour, tmp_path: Path) -> None:
    """A file opened in binary, or as text with newline="", is a source of lines; closing closes it."""
    path = tmp_path / "stream"
    for stream in (case.stream, case.stream.replace(b"\n", b"\r\n")):
        path.write_bytes(stream)
        for file in (
            path.open("rb"),
            path.open(encoding="utf-8", errors="replace", newline=""),
            path.open(encoding="utf-8-sig", errors="replace", newline=None) if b"\xef\xbb\xbf" not in stream else None,
        ):
            if file is not None:
                source = flavour.lines(file)
                flavour.enter(source)
                assert plain(rest(flavour, source)) == case.events
                flavour.leave(source)
                assert file.closed


def test_files_with_lone_crs(flavour: Flavour) -> None:
    """Text opened with newline="" is split at lone CRs too."""
    file = io.TextIOWrapper(io.BytesIO(b"data: a\rdata: b\r\rdata: c\r\n\r\n"), encoding="utf-8", newline="")
    assert data(flavour, flavour.lines(file)) == ["a\nb", "c"]


# === Chunks ===


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.name)
def test_every_case_as_chunks(case: Case, flavour: Flavour) -> None:
    """Chunks of bytes and of text, whole, one by one and cut at random, give the events of the table."""
    for stream in (case.stream, case.stream.decode("utf-8", "replace")):
        for slices in [*slicings(stream)][:2] + [*slicings(stream)][-2:]:
            source = flavour.chunks(slices)
            assert plain(rest(flavour, source)) == case.events
            assert (source.last_event_id, source.retry) == (case.last_event_id, case.retry)


def test_chunks_keep_no_line_ends_apart(flavour: Flavour) -> None:
    """Unlike lines, chunks may end anywhere, and an empty one ends nothing."""
    chunks = [b"data: a", b"", b"\r", b"", b"\n", b"\r", b"\ndata: \xe2", b"\x82", b"", b"\xac\n", b"\n"]
    assert data(flavour, flavour.chunks(chunks)) == ["a", "\u20ac"]


def test_an_event_comes_with_the_item_that_completes_it(flavour: Flavour) -> None:
    """Nothing more is taken from the source than the next event needs."""
    taken = []

    def items() -> Iterator[bytes]:
        for item in (b"data: a\r", b"\r", b"\ndata: b\n\ndata: c\n\n", b"data: d\n\n"):
            taken.append(item)
            yield item

    source = flavour.chunks(items())
    assert taken == []
    for value, count in (("a", 2), ("b", 3), ("c", 3), ("d", 4)):
        assert flavour.next(source).data == value
        assert len(taken) == count


# === Both: iteration ===


@both
@pytest.mark.parametrize("items", [[], [""], [b""], ["\n"], [": c\n", "\n"], ["data: a\n"], ["id: 1\n", "\n"]])
def test_no_events(way: str, items: list[Any], flavour: Flavour) -> None:
    """A source without events ends, and stays ended."""
    source = getattr(flavour, way)(items)
    for _ in range(3):
        with pytest.raises(flavour.ended):
            flavour.next(source)


@both
def test_it_is_its_own_iterator(way: str, flavour: Flavour) -> None:
    """A class, no generator: leaving the loop and coming back loses nothing."""
    items = [f"data: {i}\n\n" if way == "chunks" else line for i in range(6) for line in (f"data: {i}", "")]
    source = getattr(flavour, way)([items[0] + items[2], *items[4::2]] if way == "chunks" else items)
    assert type(source) is flavour.kind
    assert (source.__aiter__() if hasattr(source, "__aiter__") else iter(source)) is source
    assert not inspect.isgenerator(source)
    assert not inspect.isasyncgen(source)
    if isinstance(source, sse.EventSource):
        for event in source:
            assert event.data == "0"
            break
        for event in source:
            assert event.data == "1"
            break
    else:

        async def one() -> str:
            async for event in source:
                return event.data
            return "none"

        for value in ("0", "1"):
            assert flavour.loop.run_until_complete(one()) == value  # type: ignore[attr-defined]
    assert data(flavour, source) == ["2", "3", "4", "5"]


class Numbers:
    """An iterable that is not an iterator, and iterators that are no generators."""

    class Iterator:
        def __init__(self, items: list[Any]) -> None:
            self.items = items

        def __iter__(self) -> Numbers.Iterator:
            return self

        def __next__(self) -> Any:
            if not self.items:
                raise StopIteration
            return self.items.pop(0)

    def __iter__(self) -> Numbers.Iterator:
        return self.Iterator(["data: 1\n", "\n", "data: 2\n", "\n"])


@both
def test_other_iterables(way: str, flavour: Flavour) -> None:
    """Lists, tuples, iterators, generators, and classes of one's own all serve."""
    items = ["data: 1\n", "\n", "data: 2\n", "\n"]
    for iterable in (
        items,
        tuple(items),
        iter(items),
        (item for item in items),
        Numbers(),
        iter(Numbers()),
        map(str, items),
    ):
        assert data(flavour, getattr(flavour, way)(iterable)) == ["1", "2"]


def test_an_asynchronous_generator() -> None:
    """The usual source of AsyncEventSource: an `async def` with `yield`."""

    async def lines() -> AsyncIterator[str]:
        for line in ("data: 1", "", "data: 2", ""):
            await asyncio.sleep(0)
            yield line

    async def main() -> list[str]:
        async with sse.AsyncEventSource(lines()) as source:
            return [event.data async for event in source]

    assert asyncio.run(main()) == ["1", "2"]


def test_a_cancelled_wait_loses_nothing() -> None:
    """A cancelled `__anext__` takes no event with it; the next one goes on where it was."""

    class Queue:
        def __init__(self) -> None:
            self.queue: asyncio.Queue[bytes] = asyncio.Queue()
            self.waiting = asyncio.Event()

        def __aiter__(self) -> Queue:
            return self

        async def __anext__(self) -> bytes:
            self.waiting.set()
            return await self.queue.get()

    async def main() -> None:
        queue = Queue()
        source = sse.AsyncEventSource.from_chunks(queue)
        queue.queue.put_nowait(b"data: a\n\nid: 1\ndata: b")
        assert (await source.__anext__()).data == "a"
        for _ in range(3):
            queue.waiting.clear()
            task = asyncio.ensure_future(source.__anext__())
            await queue.waiting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        queue.queue.put_nowait(b"b\n\ndata: c\n\n")
        assert [plain([await source.__anext__()]) for _ in range(2)] == [
            [("message", "bb", "1", None)],
            [("message", "c", "1", None)],
        ]

    asyncio.run(main())


@pytest.mark.parametrize("kind", [sse.EventSource, sse.AsyncEventSource])
@pytest.mark.parametrize("make", ["__call__", "from_chunks"])
@pytest.mark.parametrize("wrong", [None, 5, object()])
def test_a_source_must_be_iterable(kind: Any, make: str, wrong: Any) -> None:
    """What is not iterable is a TypeError at once."""
    with pytest.raises(TypeError, match=type(wrong).__name__):
        kind(wrong) if make == "__call__" else kind.from_chunks(wrong)


def test_event_source_takes_no_asynchronous_source() -> None:
    """That is what AsyncEventSource is for; the mistake is told at once."""
    with pytest.raises(TypeError, match="AsyncItems"):
        sse.EventSource(AsyncItems([]))  # type: ignore[arg-type]


# === Both: state and options ===


@both
def test_last_event_id_never_runs_ahead(way: str, flavour: Flavour) -> None:
    """After event k it is event k's ID, though later events of the same chunk have been parsed."""
    lines = ["id: 1\n", "data: a\n", "\n", "data: b\n", "\n", "id: 2\n", "data: c\n", "\n", "id:\n", "data: d\n", "\n"]
    lines += ["id: 5\n", "\n", "id: 6\n", "data: e\n", "\n", "id: 7\n", "\n", "id: 8\n", "data: f\n"]
    for items in [lines] if way == "lines" else [["".join(lines)], lines, list("".join(lines))]:
        source = getattr(flavour, way)(items, last_event_id="0")
        assert source.last_event_id == "0"
        for want in (("a", "1"), ("b", "1"), ("c", "2"), ("d", "")):
            event = flavour.next(source)
            assert (event.data, event.id, source.last_event_id) == (*want, want[1])
        event = flavour.next(source)
        assert (event.data, event.id) == ("e", "6")
        assert source.last_event_id in ("6", "7")
        with pytest.raises(flavour.ended):
            flavour.next(source)
        assert source.last_event_id == "7"


@both
def test_an_id_without_an_event_counts_once_nothing_is_ready(way: str, flavour: Flavour) -> None:
    """Blocks without data move last_event_id too."""
    source = getattr(flavour, way)(["id: 1\n", "\n", "id: 2\n"])
    assert rest(flavour, source) == []
    assert source.last_event_id == "1"


@both
def test_retry_of_a_source(way: str, flavour: Flavour) -> None:
    """It is the parser's: the last valid one, from its line on."""
    source = getattr(flavour, way)(["retry: 5\n", "data: a\n", "\n", "retry: 6\n", "retry: x\n"])
    assert source.retry is None
    assert flavour.next(source).retry == 5
    assert source.retry == 5
    assert rest(flavour, source) == []
    assert source.retry == 6


@both
def test_state_cannot_be_set(way: str, flavour: Flavour) -> None:
    """Where to resume is what the stream said."""
    source = getattr(flavour, way)([])
    for name in ("last_event_id", "retry"):
        with pytest.raises(AttributeError):
            setattr(source, name, "1")


@both
def test_options(way: str, flavour: Flavour) -> None:
    """last_event_id, max_event_size and on_comment reach the parser."""
    comments: list[str] = []
    items = [": hi\n", "data: 789\n", "\n", ":there\n", "data: 7890\n", "\n"]
    source = getattr(flavour, way)(items, last_event_id="7", max_event_size=9, on_comment=comments.append)
    assert flavour.next(source) == sse.SSEEvent(data="789", id="7")
    with pytest.raises(sse.SSELimitError) as error:
        flavour.next(source)
    assert error.value.limit == 9
    assert comments == ["hi", "there"]
    source = getattr(flavour, way)(["data: " + "x" * 2**24, "\n", "\n"], max_event_size=None)
    assert len(flavour.next(source).data) == 2**24
    source = getattr(flavour, way)(["data: " + "x" * 2**24, "\n", "\n"])
    with pytest.raises(sse.SSELimitError):
        flavour.next(source)


@both
@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("last_event_id", "1\n", ValueError),
        ("last_event_id", None, TypeError),
        ("max_event_size", 0, ValueError),
        ("max_event_size", "1", TypeError),
        ("on_comment", "print", TypeError),
        ("other", 1, TypeError),
    ],
)
def test_options_are_checked(way: str, option: str, value: Any, error: type[Exception], flavour: Flavour) -> None:
    """As in the parser: the message names the argument."""
    with pytest.raises(error, match=option):
        getattr(flavour, way)([], **{option: value})


@pytest.mark.parametrize("kind", [sse.EventSource, sse.AsyncEventSource])
def test_subclasses_keep_their_class(kind: Any) -> None:
    """`from_chunks` makes an object of the class it is called on."""

    class Mine(kind):
        """A user's subclass."""

    assert type(Mine.from_chunks([])) is Mine


# === Both: errors ===


class SourceError(Exception):
    """What a source of these tests raises."""


class Failing:
    """An iterator that raises after its items, and would go on afterwards."""

    def __init__(self, items: list[Any], error: BaseException) -> None:
        self.items = items
        self.error: BaseException | None = error
        self.closed = 0

    def __iter__(self) -> Failing:
        return self

    def __next__(self) -> Any:
        if self.items:
            return self.items.pop(0)
        if self.error is None:
            return b"data: too late\n\n"
        error, self.error = self.error, None
        raise error

    def close(self) -> None:
        self.closed += 1


def expect_end(flavour: Flavour, source: Any) -> None:
    """Check that there are no further events and that nothing is raised but the end."""
    for _ in range(3):
        with pytest.raises(flavour.ended):
            flavour.next(source)


@both
def test_an_error_of_the_source_comes_after_the_events(way: str, flavour: Flavour) -> None:
    """All events before it, the very exception, the end."""
    error = SourceError("lost")
    items = [b"data: a\n", b"\n", b"data: b\n", b"\n"] if way == "lines" else [b"data: a\n\ndata: b\n\ndata: c"]
    source = getattr(flavour, way)(Failing(items, error))
    assert [flavour.next(source).data for _ in range(2)] == ["a", "b"]
    with pytest.raises(SourceError) as caught:
        flavour.next(source)
    assert caught.value is error
    expect_end(flavour, source)


@both
def test_an_outgrown_block_comes_after_the_events(way: str, flavour: Flavour) -> None:
    """All events before it, SSELimitError once, the end."""
    stream = [b"id: 1\n", b"data: a\n", b"\n", b"data: b\n", b"\n", b"data: 7890\n", b"\n", b"data: c\n", b"\n"]
    for items in [stream] if way == "lines" else slicings(b"".join(stream)):
        source = getattr(flavour, way)(items, max_event_size=9)
        assert [flavour.next(source).data for _ in range(2)] == ["a", "b"]
        with pytest.raises(sse.SSELimitError):
            flavour.next(source)
        assert source.last_event_id == "1"
        expect_end(flavour, source)


@both
def test_an_error_of_on_comment_comes_after_the_events(way: str, flavour: Flavour) -> None:
    """All events before it, the callback's own exception once, the end."""

    def on_comment(text: str) -> None:
        raise SourceError(text)

    stream = [b"data: a\n", b"\n", b"data: b\n", b"\n", b": no\n", b"data: c\n", b"\n"]
    for items in [stream] if way == "lines" else slicings(b"".join(stream)):
        source = getattr(flavour, way)(items, on_comment=on_comment)
        assert [flavour.next(source).data for _ in range(2)] == ["a", "b"]
        with pytest.raises(SourceError, match="no"):
            flavour.next(source)
        expect_end(flavour, source)


@both
@pytest.mark.parametrize("wrong", [None, 5, 1.5, ["data: x"], object()])
def test_wrong_elements(way: str, wrong: Any, flavour: Flavour) -> None:
    """Elements that are neither bytes nor str are a TypeError that names their type, after the events before them."""
    source = getattr(flavour, way)(["data: a\n", "\n", wrong, "data: b\n", "\n"])
    assert flavour.next(source).data == "a"
    with pytest.raises(TypeError, match=type(wrong).__name__) as error:
        flavour.next(source)
    assert "bytes" in str(error.value)
    assert "str" in str(error.value)
    expect_end(flavour, source)


def test_lines_of_all_kinds_in_turn() -> None:
    """Text and bytes, with a line end and without, in one source; a BOM goes only from the first line."""
    for first in ("\ufeffdata: 0", b"\xef\xbb\xbfdata: 0\r\n", bytearray(b"data: 0\r")):
        lines = [first, "data: a\n", b"data: b\r\n", bytearray(b"data: c\r"), "data: d", "", b"data: e", b""]
        lines += ["data:f\n", b"\n", "event: g\r\n", b"id: 1", b"data\n", "\r\n", "\ufeffdata: h", "\r"]
        assert plain(sse.EventSource(lines)) == [
            ("message", "0\na\nb\nc\nd", "", None),
            ("message", "e", "", None),
            ("message", "f", "", None),
            ("g", "", "1", None),
        ]


def test_no_line_is_taken_too_early() -> None:
    """An event leaves with its blank line, from the first one on: the next line may be minutes away."""
    taken = []

    def lines() -> Iterator[str]:
        for line in ("", "data: a", "", ": ping", "data: b\n", "data: c\n", "\n", "data: d", ""):
            taken.append(line)
            yield line

    source = sse.EventSource(lines())
    assert taken == []
    assert [(event.data, len(taken)) for event in source] == [("a", 3), ("b\nc", 7), ("d", 9)]


def test_an_interrupt_ends_a_source_of_lines() -> None:
    """Ctrl-C in the middle of a block must not make a shorter event of its rest."""
    items: list[Any] = ["data: a\n", "\n", "data: b\n", KeyboardInterrupt(), "data: c\n", "\n"]

    class Interrupted:
        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            item = items.pop(0)
            if isinstance(item, KeyboardInterrupt):
                raise item
            return item

    source = sse.EventSource(Interrupted())
    assert next(source).data == "a"
    with pytest.raises(KeyboardInterrupt):
        next(source)
    assert list(source) == []


@both
def test_bytes_as_a_source_are_a_mistake(way: str, flavour: Flavour) -> None:
    """A bytes object is an iterable of numbers, and numbers are neither lines nor chunks."""
    with pytest.raises(TypeError, match="int"):
        flavour.next(getattr(flavour, way)(b"data: a\n\n"))


# === Both: closing ===


@both
def test_leaving_the_with_closes_the_source(way: str, flavour: Flavour) -> None:
    """Once, however often it is asked for; entering gives the source itself; no exception is swallowed."""
    failing = Failing([b"data: a\n", b"\n"], SourceError())
    source = getattr(flavour, way)(failing)
    assert flavour.enter(source) is source
    assert flavour.next(source).data == "a"
    assert failing.closed == 0
    error = KeyError("x")
    assert not flavour.leave(source, KeyError, error, None)
    assert failing.closed >= 1
    flavour.close(source)
    flavour.close(source)
    expect_end(flavour, source)


@both
def test_a_generator_is_closed(way: str, flavour: Flavour) -> None:
    """Its `finally` runs when the event source is closed, not when memory is collected."""
    log = []

    def items() -> Iterator[str]:
        try:
            yield "data: a\n"
            yield "\n"
            yield "data: b\n"
        finally:
            log.append("closed")

    generator = items()
    source = getattr(flavour, way)(generator)
    assert flavour.next(source).data == "a"
    assert log == []
    flavour.close(source)
    assert log == ["closed"]
    flavour.close(source)
    expect_end(flavour, source)


@both
def test_after_closing_no_event_is_left(way: str, flavour: Flavour) -> None:
    """Events that were not asked for do not come after the end; the place to resume at is that of the last given."""
    for items in (
        ["id: 1\ndata: a\n\nid: 2\ndata: b\n\n"],
        ["id: 1\n", "data: a\n", "\n", "id: 2\n", "data: b\n", "\n"],
    ):
        if way == "lines" and len(items) == 1:
            continue
        source = getattr(flavour, way)(items)
        assert flavour.next(source).data == "a"
        flavour.close(source)
        assert source.last_event_id == "1"
        expect_end(flavour, source)


@both
def test_closing_before_the_first_event(way: str, flavour: Flavour) -> None:
    """A source that was never read is closed all the same."""
    failing = Failing([b"data: a\n", b"\n"], SourceError())
    source = getattr(flavour, way)(failing)
    flavour.close(source)
    assert failing.closed >= 1
    expect_end(flavour, source)


@both
def test_what_cannot_be_closed_is_let_go(way: str, flavour: Flavour) -> None:
    """A list has no close; closing its event source ends the iteration only."""
    source = getattr(flavour, way)(["data: a\n", "\n", "data: b\n", "\n"])
    assert flavour.next(source).data == "a"
    flavour.close(source)
    expect_end(flavour, source)


@both
def test_an_iterable_with_close_and_an_iterator_without(way: str, flavour: Flavour) -> None:
    """A response is closed though what it iterates with has no close."""

    class Response:
        closed = 0

        def __iter__(self) -> Any:
            return iter(["data: a\n", "\n"])

        def close(self) -> None:
            self.closed += 1

    response = Response()
    source = getattr(flavour, way)(response)
    assert data(flavour, source) == ["a"]
    flavour.close(source)
    assert response.closed >= 1


def test_asynchronous_sources_are_closed() -> None:
    """An async generator by `aclose()`, an object by its `aclose` or else its `close`, once or more, awaited."""
    log: list[str] = []

    async def generator() -> AsyncIterator[bytes]:
        try:
            yield b"data: a\n\n"
            yield b"data: b\n\n"
        finally:
            await asyncio.sleep(0)
            log.append("generator")

    class Base:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self  # type: ignore[return-value]

        async def __anext__(self) -> bytes:
            return b"data: a\n\n"

    class WithAclose(Base):
        async def aclose(self) -> None:
            await asyncio.sleep(0)
            log.append("aclose")

    class WithClose(Base):
        def close(self) -> None:
            log.append("close")

    async def main() -> None:
        for items, name in ((generator(), "generator"), (WithAclose(), "aclose"), (WithClose(), "close")):
            log.clear()
            async with sse.AsyncEventSource.from_chunks(items) as source:
                assert (await source.__anext__()).data == "a"
                assert log == []
            assert set(log) == {name}
            await source.aclose()
            await source.close()
            with pytest.raises(StopAsyncIteration):
                await source.__anext__()

    asyncio.run(main())


# === Other libraries ===


def test_httpx_chunks() -> None:
    """`from_chunks(response.iter_bytes())`, and its async twin; leaving the `with` closes the response's stream."""
    httpx = pytest.importorskip("httpx")

    class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
        closed = 0

        def __iter__(self) -> Iterator[bytes]:
            yield from (b"data: a\xe2", b"\x80\xa8b\r", b"\n\r\ndata: c\n\n")

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in self:
                yield chunk

        def close(self) -> None:
            self.closed += 1

        async def aclose(self) -> None:
            self.closed += 1

    body = Body()
    with sse.EventSource.from_chunks(httpx.Response(200, stream=body).iter_bytes()) as source:
        assert [event.data for event in source] == ["a\u2028b", "c"]
    assert body.closed >= 1

    async def main() -> None:
        body = Body()
        async with sse.AsyncEventSource.from_chunks(httpx.Response(200, stream=body).aiter_bytes()) as source:
            assert [event.data async for event in source] == ["a\u2028b", "c"]
        assert body.closed >= 1

    asyncio.run(main())


def test_requests_chunks() -> None:
    """`from_chunks(response.iter_content(None))`."""
    requests = pytest.importorskip("requests")
    response = requests.Response()
    response.raw = io.BytesIO(b"data: a\r\n\r\ndata: b\n\n")
    with sse.EventSource.from_chunks(response.iter_content(7)) as source:
        assert [event.data for event in source] == ["a", "b"]


class Closable:
    """Blocks after its first item until it is closed; counts how often that happens."""

    def __init__(self) -> None:
        self.closes = 0
        self.blocked, self.freed = threading.Event(), threading.Event()

    def close(self) -> None:
        self.closes += 1
        self.freed.set()


class OwnIterator(Closable):
    """Breaks when it is closed, as sockets do."""

    def __init__(self) -> None:
        super().__init__()
        self.items = iter([b"data: a\n", b"\n"])

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        for item in self.items:
            return item
        self.blocked.set()
        self.freed.wait()
        raise ConnectionError("closed")


class OwnGenerator(Closable):
    """Its iterator is a generator, which cannot be closed while a thread is in it."""

    left = False

    def __iter__(self) -> Iterator[Any]:
        try:
            yield b"data: a\n"
            yield b"\n"
            self.blocked.set()
            self.freed.wait()
            yield b"data: late\n"
            yield b"\n"
        finally:
            self.left = True


@pytest.mark.parametrize("way", ["lines", "chunks"])
@pytest.mark.parametrize("make", [OwnIterator, OwnGenerator])
def test_close_frees_a_reader_once(make: Any, way: str) -> None:
    """Of another thread: its loop ends, without the error of the closed source, which is closed a single time."""
    source = make()
    events = sse.EventSource(source) if way == "lines" else sse.EventSource.from_chunks(source)
    threading.Thread(target=lambda: (source.blocked.wait(), events.close())).start()
    assert [event.data for event in events] == ["a"]
    events.close()
    assert source.closes == 1
    assert getattr(source, "left", True)


def test_close_tells_what_the_source_raises() -> None:
    """A ValueError is only for generators no error."""

    class Bad(Closable):
        def __iter__(self) -> Iterator[Any]:
            return iter(())

        def close(self) -> None:
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        sse.EventSource(Bad()).close()


def test_close_frees_an_asynchronous_reader_once() -> None:
    """The same for tasks, also where the source's `close` is a coroutine function."""

    class Source:
        closes = 0

        def __init__(self) -> None:
            self.freed = asyncio.Event()

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"data: a\n\n"
            await self.freed.wait()
            yield b"data: late\n\n"

        async def close(self) -> None:
            self.closes += 1
            self.freed.set()

    class Breaking(Source):
        def __aiter__(self) -> Any:
            self.items = iter([b"data: a\n\n"])
            return self

        async def __anext__(self) -> bytes:
            for item in self.items:
                return item
            await self.freed.wait()
            return self.last()

        def last(self) -> bytes:
            raise ConnectionError("closed")

    class Late(Breaking):
        def last(self) -> bytes:
            return b"data: late\n\n"

    async def main(source: Any) -> None:
        events = sse.AsyncEventSource.from_chunks(source)
        assert (await anext(events)).data == "a"
        waiting = asyncio.ensure_future(anext(events, None))
        await asyncio.sleep(0)
        await events.close()
        assert await waiting is None
        await events.close()
        assert source.closes == 1

    for kind in (Source, Breaking, Late):
        asyncio.run(main(kind()))


def test_a_runtime_error_of_aclose_is_told() -> None:
    class Bad:
        def __aiter__(self) -> Any:
            return self

        async def aclose(self) -> None:
            raise RuntimeError("bad")

        __anext__ = aclose

    async def main() -> None:
        with pytest.raises(RuntimeError, match="bad"):
            await sse.AsyncEventSource(Bad()).close()

    asyncio.run(main())


@pytest.mark.parametrize("way", ["lines", "chunks"])
def test_close_by_on_comment_ends_the_loop(way: str) -> None:
    """With the next event at the latest none is given out."""
    lines = ["data: a\n", "\n", ": x\n", "data: b\n", "\n"]
    make: Any = sse.EventSource if way == "lines" else sse.EventSource.from_chunks
    events = make(lines, on_comment=lambda _: events.close())
    assert [event.data for event in events] == ["a"]


@pytest.mark.parametrize("way", ["iter_lines", "iter_bytes"])
async def test_an_event_source_closes_our_own_response(way: str, driver: Any) -> None:
    """And frees whoever reads it; after a cancellation the next step goes on."""
    with ScriptServer(then=[head(content_type="text/event-stream"), "data: a\n\n", HOLD]) as server:
        if isinstance(driver, SyncDriver):
            response: Any = await in_thread(httpclient.get, server.url, stream=True)
            make: Any = sse.EventSource if way == "iter_lines" else sse.EventSource.from_chunks
            events = make(getattr(response, way)())
            with events:
                assert next(events).data == "a"
                waiting = in_thread(next, events, None)
                await asyncio.sleep(0)
            assert await bounded(waiting) is None
        else:
            response = await httpclient.async_get(server.url, stream=True)
            make = sse.AsyncEventSource if way == "iter_lines" else sse.AsyncEventSource.from_chunks
            async with make(getattr(response, "a" + way)()) as events:
                assert (await anext(events)).data == "a"
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(anext(events), 0.01)
                waiting = asyncio.ensure_future(anext(events, None))
                await asyncio.sleep(0)
            assert await bounded(waiting) is None
        with pytest.raises(httpclient.HttpConnectionError):
            next(response.iter_bytes()) if isinstance(driver, SyncDriver) else await anext(response.aiter_bytes())


@pytest.mark.parametrize("line", [": ping\n", "\n", "id: 1\n", "retry: 5\n"])
def test_close_ends_a_loop_over_lines_without_events(line: str) -> None:
    """With the next line, whatever it is: by another thread, and by on_comment."""
    pulled = 0

    def lines() -> Iterator[str]:
        nonlocal pulled
        while pulled < 20:
            pulled += 1
            if pulled == 5:
                closer = threading.Thread(target=events.close)
                closer.start()
                closer.join()
            yield line

    events = sse.EventSource(lines())
    assert list(events) == []
    assert pulled <= 6
    seen: list[str] = []
    commented = sse.EventSource(itertools.repeat(": x\n"), on_comment=lambda c: (seen.append(c), commented.close()))
    assert list(commented) == []
    assert len(seen) <= 2


def test_every_closable_is_closed_though_one_raises() -> None:
    """First the source, then its iterator."""
    closed = []

    class Items:
        def __iter__(self) -> Any:
            return self

        def __next__(self) -> str:
            raise StopIteration

        def close(self) -> None:
            closed.append("iterator")

    class Source(list[str]):
        def __iter__(self) -> Any:
            return Items()

        def close(self) -> None:
            closed.append("source")
            raise OSError("bad")

    events = sse.EventSource(Source())
    with pytest.raises(OSError, match="bad"):
        events.close()
    events.close()
    assert closed == ["source", "iterator"]


def test_error_of_a_generator_s_end_is_told() -> None:
    """It is not taken for one that somebody is in."""

    def source() -> Iterator[bytes]:
        try:
            yield b"data: a\n\n"
        finally:
            raise ValueError("boom")

    events = sse.EventSource.from_chunks(source())
    assert next(events).data == "a"
    with pytest.raises(ValueError, match="boom"):
        events.close()


async def test_close_that_was_cancelled_is_made_up_for() -> None:
    """By the next one."""

    class Source:
        closed = 0

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> bytes:
            raise StopAsyncIteration

        async def aclose(self) -> None:
            await asyncio.sleep(0 if self.closed else 60)

    for make in (sse.AsyncEventSource, sse.async_buffered):
        source = Source()
        wrapper: Any = make(source)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(wrapper.close(), 0.01)
        source.closed = 1
        await wrapper.close()
