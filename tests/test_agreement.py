"""Properties: however a stream is cut and whichever way it is read, the outcome is that of the reference parser.

SSE_EXAMPLES=5000 runs that many examples of each property instead of a few hundred.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reference
import sse
from cases import CAT
from helpers import Data, cut, parse, plain

T = TypeVar("T")

thorough = settings(
    max_examples=int(os.environ.get("SSE_EXAMPLES", "300")),
    deadline=None,  # machines differ
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)

# === Streams ===

FRAGMENTS = [
    *(b"data", b"data:", b"data: ", b"data: x\n", b"data: y\r", b"data:z\r\n", b"data\n", b"data:  x\n\n"),
    *(b"event", b"event: e\n", b"event:f\r\n", b"event\n", b"event:  e\ndata: x\n\n", b"event: \n"),
    *(b"id", b"id: 1\n", b"id:2\r", b"id\n", b"id: \n", b"id: \0\n", b"id: 3\ndata: x\n\n"),
    *(b'data: {"a": 1}\n\n', b"id: 4\nevent: e\ndata: x\n\n"),
    *(b"retry", b"retry: 5\n", b"retry:6\r", b"retry\n", b"retry: +7\n", b"retry: 8 \n", b"retry: 9\0\n"),
    *(b"retry: 2147483647\n", b"retry: 2147483648\n", b"retry: " + b"9" * 30 + b"\n", b"retry: " + b"0" * 30 + b"1\n"),
    *("retry: \uff15\n".encode(), b"1", b"23", b"0" * 9, b"9" * 9),
    *(b":", b": c\n", b":c\r\n", b":\n", b":  c\r", b": c\n\n", b"::\n"),
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b" ", b"  ", b"\t", b"\0"),
    *(b"\xef\xbb\xbf", b"\xef\xbb", b"\xbf", b"\xe2", b"\x82", b"\xac", b"\xff", b"\xc0\xaf", b"\xed\xa0", b"\xf0\x9f"),
    *(text.encode() for text in ("\u20ac", "\u00e9", CAT, "\u2028", "\x85", "\x0b", "\x0c", "\x1c", "\ufffd")),
    *(b"unknown: x\n", b"Data: x\n", b" data: x\n", b"x"),
]  # fmt: skip

streams = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(b"".join) | st.binary(max_size=60)
limits = st.none() | st.integers(1, 40)


def cuts(draw: Any, data: Data) -> list[Data]:
    """Draw a slicing of `data`, empty slices included."""
    return cut(data, sorted(draw(st.lists(st.integers(0, len(data)), max_size=12))))


# === Ways to read a stream ===


def lines_with_ends(data: Data) -> list[Data]:
    """Return the complete lines of `data`, each with its line end."""
    if isinstance(data, bytes):
        return re.findall(rb"[^\r\n]*(?:\r\n|\n|\r)", data)
    return re.findall(r"[^\r\n]*(?:\r\n|\n|\r)", data)


async def slowly(items: Iterable[T]) -> AsyncIterator[T]:
    """Make items come one by one, with the event loop in between."""
    for item in items:
        await asyncio.sleep(0)
        yield item


def by_feed_line(lines: list[str], limit: int | None) -> reference.Outcome:
    """Read through SSEParser.feed_line."""
    comments: list[str] = []
    parser = sse.SSEParser(max_event_size=limit, on_comment=comments.append)
    events: list[sse.SSEEvent] = []
    over = None
    try:
        for line in lines:
            event = parser.feed_line(line)
            if event is not None:
                events.append(event)
    except sse.SSELimitError as error:
        over = error.limit
    return reference.Outcome(plain(events), parser.last_event_id, parser.retry, comments, over)


def by_source(make: Any, items: Iterable[Any], limit: int | None) -> reference.Outcome:
    """Read through an EventSource."""
    comments: list[str] = []
    events: list[sse.SSEEvent] = []
    over = None
    with make(items, max_event_size=limit, on_comment=comments.append) as source:
        try:
            for event in source:
                events.append(event)  # noqa: PERF402
        except sse.SSELimitError as error:
            over = error.limit
        return reference.Outcome(plain(events), source.last_event_id, source.retry, comments, over)


def by_async_source(make: Any, items: Any, limit: int | None) -> reference.Outcome:
    """Read through an AsyncEventSource."""

    async def read() -> reference.Outcome:
        comments: list[str] = []
        events: list[sse.SSEEvent] = []
        over = None
        async with make(items, max_event_size=limit, on_comment=comments.append) as source:
            try:
                async for event in source:
                    events.append(event)  # noqa: PERF401
            except sse.SSELimitError as error:
                over = error.limit
            return reference.Outcome(plain(events), source.last_event_id, source.retry, comments, over)

    return asyncio.run(read())


# === Properties ===


@thorough
@given(st.data(), streams, limits)
def test_slicing_never_matters(data: Any, stream: bytes, limit: int | None) -> None:
    """Bytes and text, whole and in any slices, with and without a limit: the outcome is the reference's."""
    text = reference.decode(stream)
    for same in (stream, text):
        want = reference.parse(same, max_event_size=limit)
        assert parse([same], max_event_size=limit) == want
        assert parse(cuts(data.draw, same), max_event_size=limit) == want
        assert parse([same[i : i + 1] for i in range(len(same))], max_event_size=limit) == want


BLOCKS = [
    *(b"data: x\n\n", b"data: \n\n", b"data: x", b"data: x\n", b"data:x\n\n", b"data: \xc3\xa9\n\n", b"data: \xc3\n\n"),
    *(b"data: " + b"x" * 2000 + b"\n\n", b"data: " + b"x" * 2000 + b"\n", b"data: " + b"x" * 2000 + b"\r\n\r\n"),
    *(b"event: e\ndata: x\n\n", b"id: 1\ndata: x\ndata: y\n\n", b"retry: 5\ndata: x\n\n", b"id: 2\n\n", b"id: 3\n"),
    *(b": c\n\n", b": c\n", b"\n", b"\n\n", b"\r", b"\r\r", b"data: x\r\n\r\n", b"data: x\r\r", b"data: x\ry\n\n", b""),
    *(b"data: x\n\n\xe2", b"id: 4\ndata: x\n\n\xc3", b"\xe2", b":\n\n", b":", b"d"),
]  # fmt: skip


@thorough
@given(st.lists(st.sampled_from(BLOCKS), max_size=12), limits | st.integers(1990, 2010))
def test_the_fast_path_agrees(blocks: list[bytes], limit: int | None) -> None:
    """Slices of whole blocks, and what may stand between them, give what their bytes give one by one."""
    stream = b"".join(blocks)
    want = reference.parse(stream, max_event_size=limit)
    assert parse(blocks, max_event_size=limit) == want
    assert parse([b"\n\n", *blocks], max_event_size=limit) == want
    assert parse([stream[i : i + 1] for i in range(len(stream))], max_event_size=limit) == want


@thorough
@given(st.data(), streams)
def test_nothing_waits(data: Any, stream: bytes) -> None:
    """After any part of a stream the parser is where the reference is at the end of that part."""
    parser = sse.SSEParser()
    events: list[sse.SSEEvent] = []
    done = b""
    for chunk in cuts(data.draw, stream):
        events += parser.feed(chunk)
        done += chunk
        want = reference.parse(done)
        assert (plain(events), parser.last_event_id, parser.retry) == want[:3]


@thorough
@given(st.data(), streams, limits)
def test_all_ways_agree(data: Any, stream: bytes, limit: int | None) -> None:
    """Lines, chunks, sync and async give the same events, state, comments and errors."""
    stream = b"".join(lines_with_ends(stream))  # for a source of lines the last one is complete, end or not
    text = stream.decode("utf-8", "replace")
    want = reference.parse(stream, max_event_size=limit)
    lines = reference.split_lines(text)[0]
    assert by_feed_line(lines, limit) == want
    for some_lines in (lines, lines_with_ends(text), lines_with_ends(stream), io.StringIO(text, newline="")):
        assert by_source(sse.EventSource, some_lines, limit) == want
    for chunks in (cuts(data.draw, stream), cuts(data.draw, text)):
        assert by_source(sse.EventSource.from_chunks, chunks, limit) == want
        assert by_source(sse.EventSource.from_chunks, iter(chunks), limit) == want
        assert by_async_source(sse.AsyncEventSource.from_chunks, slowly(chunks), limit) == want
        assert by_async_source(sse.AsyncEventSource.from_chunks, chunks, limit) == want
    assert by_async_source(sse.AsyncEventSource, slowly(lines_with_ends(stream)), limit) == want
    assert by_async_source(sse.AsyncEventSource, lines, limit) == want


@thorough
@given(st.data(), streams)
def test_a_source_names_the_place_to_resume_at(data: Any, stream: bytes) -> None:
    """With each event, last_event_id is one that counted after that event and before the next: nothing gets lost."""
    lines = reference.split_lines(stream.decode("utf-8", "replace"))[0]
    counted: list[set[str]] = []  # while so many events had come
    for end in range(len(lines) + 1):
        part = reference.parse("".join(line + "\n" for line in lines[:end]))
        counted += [set() for _ in range(len(part.events) + 1 - len(counted))]
        counted[len(part.events)].add(part.last_event_id)
    for source in (sse.EventSource(lines), sse.EventSource.from_chunks(cuts(data.draw, stream))):
        assert source.last_event_id in counted[0]
        for number, _ in enumerate(source, 1):
            assert source.last_event_id in counted[number]


@thorough
@given(st.data(), streams, streams)
def test_reset_is_a_new_stream(data: Any, first: bytes, second: bytes) -> None:
    """After reset() a parser differs from a new one only in the last event ID and retry it keeps."""
    parser = sse.SSEParser()
    parser.feed(first)
    last_event_id, retry = parser.last_event_id, parser.retry
    parser.reset()
    events = [event for chunk in cuts(data.draw, second) for event in parser.feed(chunk)]
    want = reference.parse(second, last_event_id)
    assert (plain(events), parser.last_event_id) == want[:2]
    assert parser.retry == (retry if want.retry is None else want.retry)


@thorough
@given(streams)
def test_events_survive_the_wire(stream: bytes) -> None:
    """What was parsed, written as a stream again, parses to the same events."""
    events = sse.SSEParser().feed(stream)
    written = "".join(
        "".join(
            [
                f"id: {event.id}\nevent: {event.event}\n",
                "" if event.retry is None else f"retry: {event.retry}\n",
                *(f"data: {line}\n" for line in event.data.split("\n")),
                "\n",
            ]
        )
        for event in events
    )
    assert sse.SSEParser().feed(written) == events
    assert sse.SSEParser().feed(written.encode().replace(b"\n", b"\r\n")) == events
