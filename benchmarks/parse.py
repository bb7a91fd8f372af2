"""Parsers in memory: CPU per event of eight streams, in slices of 64 KiB, of 4 KiB, of one event, and as lines.

Each parser gets the same list of slices, and its events are counted and dropped. Where a parser has no public entry
for slices, its internal classes are put together as its client does. eventsource-parser (npm) runs in Node beside us.
The limit rows only split the stream into lines, or split it at blank lines and build an event of each block.
"""

from __future__ import annotations

import codecs
import contextlib
import gc
import io
import json
import logging
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import streams
from common import ANCHORS, Contestant, Report, arguments, best_peer, compare, value_of

import sse

HERE = Path(__file__).resolve().parent
SLICES = {"64 KiB": 65536, "4 KiB": 4096, "one event": None}
Chunks = list[bytes]

# === The parsers: slices in, events out ==============================================================================


def ours(chunks: Chunks) -> Iterator[Any]:
    feed = sse.SSEParser().feed
    for chunk in chunks:
        yield from feed(chunk)


def split_only(chunks: Chunks) -> Iterator[Any]:
    count = 0
    for chunk in chunks:
        count += len(chunk.splitlines())
    return iter(())


class _Plain:
    __slots__ = ("data", "event", "id", "retry")


def split_and_build(chunks: Chunks) -> Iterator[Any]:
    end = "\r\n\r\n" if b"\r" in chunks[0] else "\n\n"
    pieces: list[str] = []
    for chunk in chunks:
        text = codecs.utf_8_decode(chunk, "replace")[0]
        if pieces:
            pieces.append(text)
            if "\n" not in text:
                continue
            text = "".join(pieces)
        blocks = text.split(end)
        rest = blocks.pop()
        pieces = [rest] if rest else []
        for block in blocks:
            event = _Plain()
            event.event = "message"
            event.data = block
            event.id = ""
            event.retry = None
            yield event


def launchdarkly(chunks: Chunks) -> Iterator[Any]:
    from ld_eventsource.reader import _BufferedLineReader

    return launchdarkly_lines(_BufferedLineReader.lines_from(chunks))


def launchdarkly_lines(lines: Iterable[str]) -> Iterator[Any]:
    from ld_eventsource.actions import Event
    from ld_eventsource.reader import _SSEReader

    return (item for item in _SSEReader(lines).events_and_comments() if isinstance(item, Event))


def httpx_sse(chunks: Chunks) -> Iterator[Any]:
    from httpx_sse._decoders import SSELineDecoder

    text, lines = codecs.getincrementaldecoder("utf-8")("replace"), SSELineDecoder()
    return httpx_sse_lines(line for chunk in chunks for line in lines.decode(text.decode(chunk)))


def httpx_sse_lines(lines: Iterable[str]) -> Iterator[Any]:
    from httpx_sse._decoders import SSEDecoder

    decode = SSEDecoder().decode
    for line in lines:
        event = decode(line.rstrip("\n"))
        if event is not None:
            yield event


def httpx2(chunks: Chunks) -> Iterator[Any]:
    from httpx2._sse import _SSEParser

    text, decode = codecs.getincrementaldecoder("utf-8")("replace"), _SSEParser(None).decode
    for chunk in chunks:
        yield from decode(text.decode(chunk))


def openai(chunks: Chunks) -> Iterator[Any]:
    from openai._streaming import SSEDecoder

    return SSEDecoder().iter_bytes(iter(chunks))


def sseclient_py(chunks: Chunks) -> Iterator[Any]:
    import sseclient

    return sseclient.SSEClient(chunks).events()


def axio_sse(chunks: Chunks) -> Iterator[Any]:
    import axio_sse

    decode = axio_sse.Decoder().decode
    for chunk in chunks:
        yield from decode(chunk)


def larzsse(chunks: Chunks) -> Iterator[Any]:
    import larzsse

    return larzsse.parse_events(io.BufferedReader(_Raw(chunks), 65536).readline)


class _Raw(io.RawIOBase):
    """The slices as a file without a buffer, as `http.client` has it."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks, self._rest = iter(chunks), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._rest or next(self._chunks, b"")
        part, self._rest = chunk[: len(buffer)], chunk[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


class _Response:
    """What niquests and requests read the slices from."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks, self._fp = chunks, None

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        return (chunk for chunk in self._chunks)  # a generator: it gets closed


def niquests(chunks: Chunks) -> Iterator[Any]:
    from urllib3_future.contrib.webextensions.sse import ServerSideEventExtensionFromHTTP

    extension = ServerSideEventExtensionFromHTTP()
    extension._response = _Response(chunks)  # what start() does, without a connection
    extension._stream = extension._response.stream()
    return iter(extension.next_payload, None)


def requests_sse(chunks: Chunks) -> Iterator[Any]:
    import requests
    import requests_sse

    class EndError(Exception): ...

    def end() -> None:
        raise EndError

    response: Any = requests.Response()
    response.raw, response.status_code = _Response(chunks), 200
    source = requests_sse.EventSource("http://127.0.0.1/", session=object(), on_error=end)
    source._response, source._data_generator, source._origin = response, response.iter_lines(), "http://127.0.0.1"
    with contextlib.suppress(EndError):
        yield from source


def aiohttp_sse_client2(chunks: Chunks) -> Iterator[Any]:
    import asyncio

    import aiohttp
    from aiohttp.base_protocol import BaseProtocol
    from aiohttp_sse_client2.client import EventSource

    class EndError(Exception): ...

    def end() -> None:
        raise EndError

    class Protocol(BaseProtocol):
        def pause_reading(self) -> None: ...

        def resume_reading(self, resume_parser: bool = True) -> None: ...

    async def read() -> list[Any]:
        loop = asyncio.get_running_loop()
        reader = aiohttp.StreamReader(Protocol(loop), 2**16, loop=loop)
        for chunk in chunks:
            reader.feed_data(chunk)
        reader.feed_eof()

        class Response:
            status, content = 200, reader

        source = EventSource("http://127.0.0.1/", session=object(), on_error=end)
        source._response, source._origin = Response, ""
        events = []
        with contextlib.suppress(EndError):
            async for event in source:
                events.append(event)  # noqa: PERF401 - the end is an exception
        return events

    return iter(asyncio.run(read()))


class Node:
    """eventsource-parser in a Node process that stays: one JSON line asks for a measurement, one answers."""

    def __init__(self) -> None:
        self.missing = ""
        if shutil.which("node") is None:
            self.missing = "node is not installed"
        elif not (HERE / "node_modules/eventsource-parser").is_dir():
            self.missing = "not installed: npm install --prefix benchmarks --no-save eventsource-parser"
        else:
            self._process = subprocess.Popen(
                ["node", HERE / "parse.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            print(f"node {self._ask({})['version']}")

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def contestant(self, chunks: Chunks, file: Path, expected: int) -> Contestant:
        file.write_bytes(b"".join(chunks))
        question = {"file": str(file), "lengths": [len(chunk) for chunk in chunks]}

        def run() -> tuple[float, int]:
            answer = self._ask(question)
            return answer["seconds"] / expected * 1e9, answer["count"]

        return run

    def close(self) -> None:
        if not self.missing:
            self._process.communicate()


# === Measuring =======================================================================================================

PARSERS = {
    "sse": ours,
    "launchdarkly": launchdarkly,
    "httpx-sse": httpx_sse,
    "httpx2": httpx2,
    "niquests": niquests,
    "openai": openai,
    "sseclient-py": sseclient_py,
    "requests-sse": requests_sse,
    "aiohttp-sse-client2": aiohttp_sse_client2,
    "larzsse": larzsse,
    "axio-sse": axio_sse,
    "split only": split_only,
    "split and build events": split_and_build,
}
LINE_PARSERS = {"sse": sse.EventSource, "launchdarkly": launchdarkly_lines, "httpx-sse": httpx_sse_lines}


def contestant(parser: Callable[[Any], Iterable[Any]], chunks: Any, expected: int) -> Contestant:
    def run() -> tuple[float, int]:
        gc.collect()
        begin = time.process_time()
        count = 0
        for _ in parser(chunks):
            count += 1
        seconds = time.process_time() - begin
        return seconds / expected * 1e9, expected if parser in (split_only, split_and_build) else count

    return run


def differences(parsers: dict[str, Any], chunks: Any, data: list[str]) -> Iterator[tuple[str, str]]:
    """Who finds as many events as there are, but not the same data."""
    for name, parser in parsers.items():
        if name not in ANCHORS:
            found: list[str] = []
            with contextlib.suppress(Exception):  # it says so in its row
                found = [event.data for event in parser(chunks)]
            if len(found) == len(data) and found != data:
                yield name, next(repr(f[:60]) for f, d in zip(found, data) if f != d)


def main() -> None:
    options = arguments(__doc__, rounds=9)
    logging.disable(logging.CRITICAL)  # peers log each event, if only to find that nobody listens
    report = Report("parse", options)
    parsers: dict[str, Any] = dict(PARSERS)
    for name in set(PARSERS) - {"sse", "split only", "split and build events"}:
        try:  # import what it needs, before anything is measured
            list(PARSERS[name]([b"data: x\n\n"]))
        except ImportError as error:
            report.notes.append(f"{name} left out: {error}")
            del parsers[name]
    node = Node()
    if node.missing:
        report.notes.append(f"eventsource-parser left out: {node.missing}")
    gc.collect()
    gc.freeze()  # what the peers' imports left behind is nobody's cost
    ratios: dict[str, list[float]] = {}
    size = 64 * 1024 if options.quick else 512 * 1024
    with tempfile.TemporaryDirectory() as folder:
        for name in streams.NAMES:
            load = streams.make(name, size=size * 8 if name == "big" else size)
            for kind, length in SLICES.items():
                stream = load.stream
                chunks = [stream[i : i + length] for i in range(0, len(stream), length)] if length else load.blocks
                runs = {n: contestant(parser, chunks, len(load.data)) for n, parser in parsers.items()}
                if not node.missing:
                    file = Path(folder, f"{name}.{length}")
                    runs["eventsource-parser"] = node.contestant(chunks, file, len(load.data))
                rows = compare(runs, len(load.data), options.rounds)
                for peer, example in differences(parsers, chunks, load.data):
                    report.notes.append(f"{peer}, {name} in slices of {kind}: other data, such as {example}")
                report.cell(f"parse, {kind} slices", name, "ns/event", rows)
                ratios.setdefault(kind, []).append(gain(rows))
            lines = load.stream.decode().replace("\r\n", "\n").split("\n")[:-1]
            runs = {n: contestant(parser, lines, len(load.data)) for n, parser in LINE_PARSERS.items()}
            rows = compare(runs, len(load.data), options.rounds)
            report.cell("parse, lines", name, "ns/event", rows)
            ratios.setdefault("lines", []).append(gain(rows))
    node.close()
    set_targets(report, ratios)
    report.finish()


def gain(rows: list[dict[str, Any]]) -> float:
    """How many times faster we are than the best peer."""
    best = best_peer(rows)
    return best["value"] / value_of(rows, "sse") if best else float("nan")


def set_targets(report: Report, ratios: dict[str, list[float]]) -> None:
    slices = ratios["64 KiB"] + ratios["4 KiB"]
    mean = statistics.geometric_mean
    report.target("parse, 64 and 4 KiB slices: times the best, mean", mean(slices), ">= 1.5")
    report.target("parse, 64 and 4 KiB slices: worst cell", min(slices), ">= 1.0")
    report.target("parse, one event a slice: mean", mean(ratios["one event"]), ">= 1.2")
    report.target("parse, one event a slice: llm", ratios["one event"][0], ">= 1.4")
    report.target("parse, one event a slice: worst cell", min(ratios["one event"]), ">= 0.9")
    report.target("parse, EventSource(lines): mean", mean(ratios["lines"]), ">= 1.1")


if __name__ == "__main__":
    sys.exit(main())
