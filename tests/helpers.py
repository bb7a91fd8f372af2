"""What several test files need: all the ways to slice a stream, and what a parser made of the slices."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import sse
from reference import Outcome

Data = TypeVar("Data", bytes, str)

SHORT = 64
"""Streams up to this length are cut in two at every place."""


def cut(data: Data, places: Iterable[int]) -> list[Data]:
    """Return the pieces of `data` between the sorted `places`."""
    places = list(places)
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def slicings(data: Data) -> Iterator[list[Data]]:
    """Yield `data` whole, one element at a time, by line, by block, with empty slices, in two, and cut at random."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    line_end = b"\n" if isinstance(data, bytes) else "\n"
    ends = [i + 1 for i in range(len(data)) if data[i : i + 1] == line_end]
    yield cut(data, ends)
    yield cut(data, [i for i in ends if data[i - 2 : i - 1] == line_end])
    yield [*(piece for i in range(SHORT) for piece in (data[:0], data[i : i + 1])), data[SHORT:]]
    if len(data) <= SHORT:
        for i in range(1, len(data)):
            yield [data[:i], data[i:]]
    rng = random.Random(len(data))
    for number in (1, 2, 3, 5, 8, 13):
        yield cut(data, sorted(rng.randint(0, len(data)) for _ in range(number)))


def plain(events: Iterable[sse.SSEEvent]) -> list[tuple[str, str, str, int | None]]:
    """Return events as tuples, to be compared without help from SSEEvent."""
    return [(event.event, event.data, event.id, event.retry) for event in events]


def parse(chunks: Iterable[bytes | str], **options: Any) -> Outcome:
    """Feed all chunks to a new parser; unless they are many, one that reports no comments must come to the same."""
    chunks = list(chunks)
    comments: list[str] = []
    outcome = parsed(sse.SSEParser(on_comment=comments.append, **options), chunks)
    if len(chunks) <= SHORT:
        assert parsed(sse.SSEParser(**options), chunks) == outcome
    return outcome._replace(comments=comments)


def parsed(parser: sse.SSEParser, chunks: list[bytes | str]) -> Outcome:
    """What comes of the chunks, but for comments; an SSELimitError ends it, also one that waits behind events."""
    events: list[sse.SSEEvent] = []
    limit = None
    try:
        for chunk in chunks:
            events += parser.feed(chunk)
        assert parser.feed(b"") == []
    except sse.SSELimitError as error:
        limit = error.limit
    return Outcome(plain(events), parser.last_event_id, parser.retry, [], limit)


def plain_id(value: object) -> str:
    """Return the name of a parameter without backslashes.

    pytest escapes them anew in each run of one process, and mutmut would not find the tests of its first run.
    """
    text = value if isinstance(value, str) else repr(value)
    return ascii(text[:80])[1:-1].replace("\\", "/")
