"""Chaos soak: 50 blocking and 500 asyncio streams while everything between them and their server breaks, for hours.

    python benchmarks/soak.py --minutes 20           prints figures; exit status 1 if a promise was broken
    python benchmarks/soak.py --minutes 20 --docs    also draws docs/soak.svg and fills in docs/reliability.md

Three processes. This one holds the clients and is measured. The proxy passes TCP on, breaks it at random, and now and
then kills the server and starts it again on the same port. The server answers, misbehaves at random, and keeps no
state: event n of stream s always has the same content, so a client must see 1, 2, 3, ... of each stream, each once,
whatever it lived through. Nothing but loopback; all ends by itself. Needs Linux (/proc), and matplotlib for --svg.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import os
import random
import re
import resource
import socket
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import soak_report as report  # noqa: E402

import sse  # noqa: E402

SYNC, ASYNC = 50, 500  # streams
LIFE = 5.0  # s, mean time after which the server breaks a connection; the proxy breaks one in half of the cases
RESTART = 20.0  # s, mean time between two kills of the server
SILENCE = 2.0  # s, the clients' heartbeat_timeout
EVERY = 5.0  # s between two samples
ENDINGS = ["end", "drop", "reset", "stall", "cut", "cut and reset", "garbage"]


def data_of(stream: int, number: int) -> str:
    """The data of an event: one to three lines, characters of one to four bytes, now and then 64 KB."""
    line = f"{stream}/{number} " + "h\u00e9llo \u20ac \U0001d11e " * (3000 if number % 500 == 0 else number % 7)
    return "\n".join([line] * (number % 3 + 1))


# === The server ======================================================================================================


def block(stream: int, number: int, line_end: str) -> bytes:
    lines = [f"id: {number}", *[f"data: {line}" for line in data_of(stream, number).split("\n")], "", ""]
    lines[:0] = random.choice(([], [], [": ping"], ["event: tick"], ["retry: 40"]))
    return line_end.join(lines).encode()


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Mostly at once, else in two pieces that are cut anywhere."""
    if random.random() < 0.2:
        at = random.randrange(len(data) + 1)
        writer.write(data[:at])
        await asyncio.sleep(0.001)
        data = data[at:]
    writer.write(data)
    await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the peer gets RST instead of FIN: SO_LINGER with 0 s."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer requests until the connection is to be closed."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        match = re.match(r"GET /(moved/)?(\d+) ", head)
        assert match, head
        number = int((re.search(r"^Last-Event-ID: (\d+)\r$", head, re.MULTILINE) or [0, 0])[1])
        chance = random.random()
        if chance < 0.08:
            after = random.choice((b"0", b"1", b"Sun, 06 Nov 1994 08:49:37 GMT"))
            writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: " + after + b"\r\nContent-Length: 4\r\n\r\nbusy")
        elif chance < 0.16 and not match[1]:
            status = random.choice((b"301", b"302", b"303", b"307", b"308"))
            writer.write(b"HTTP/1.1 " + status + b" Moved\r\nLocation: /moved/%d\r\n" % int(match[2]))
            writer.write(b"Content-Length: 0\r\n\r\n")
        elif chance < 0.18:
            return  # without an answer
        else:
            await stream_events(writer, int(match[2]), number)
            return


async def stream_events(writer: asyncio.StreamWriter, stream: int, number: int) -> None:
    """Send events after `number` in one of the ways that HTTP knows, and end it in one of the bad ways."""
    form = random.choice(("chunked", "chunked", "gzip", "until closed"))
    fields = b"" if form == "until closed" else b"Transfer-Encoding: chunked\r\n"
    gzip = zlib.compressobj(1, zlib.DEFLATED, 31) if form == "gzip" else None
    fields += b"Content-Encoding: gzip\r\n" if gzip else b""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + fields + b"\r\n")
    line_end = random.choice(("\n", "\n", "\r\n", "\r"))
    end = time.monotonic() + random.expovariate(1 / LIFE)
    while True:
        following = range(number + 1, number + random.randint(2, 5))
        data = b"".join([block(stream, each, line_end) for each in following])
        number = following[-1]
        if gzip:
            data = gzip.compress(data) + gzip.flush(zlib.Z_SYNC_FLUSH)
        if form != "until closed":
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if time.monotonic() > end:
            break
        await send(writer, data)
        await asyncio.sleep(random.uniform(0.2, 1.2))
    ending = random.choice(ENDINGS)
    if ending == "end" and form != "until closed":
        tail = gzip.flush() if gzip else b""
        writer.write((b"%x\r\n%b\r\n" % (len(tail), tail) if tail else b"") + b"0\r\n\r\n")
    elif ending == "garbage" and form != "until closed":
        writer.write(b"\xff\0 no chunk\r\n")
    elif ending.startswith("cut"):
        await send(writer, data[: random.randrange(len(data))])
    elif ending == "stall":
        await asyncio.sleep(3 * SILENCE)
    if "reset" in ending:
        reset(writer)


async def serve(port: int) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client or the proxy hung up
        finally:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", port, backlog=2000) as server:
        await server.serve_forever()


# === The proxy, which also kills the server ==========================================================================


async def proxy(port: int, server_port: int) -> None:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held: list[bool]) -> None:
        while data := await reader.read(65536):
            if held and random.random() < 0.5:
                data = data[: random.randrange(len(data))]  # cuts within a line, a character, a chunk size
            writer.write(data)
            await writer.drain()
            if held:
                await asyncio.sleep(60)  # until it is cancelled

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers, pumps, held = [writer], [], []  # type: ignore[var-annotated]
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", server_port)
            writers.append(server_writer)
            pumps = [
                asyncio.ensure_future(pump(reader, server_writer, [])),
                asyncio.ensure_future(pump(server_reader, writer, held)),
            ]
            life = random.expovariate(1 / LIFE) * random.choice((0.1, 2, 1000, 1000))
            done, _ = await asyncio.wait(pumps, timeout=life, return_when=asyncio.FIRST_COMPLETED)
            if not done:  # else the server or the client has hung up
                fault = random.choice(("drop", "reset", "stall and drop", "stall and reset"))
                if "stall" in fault:
                    held.append(True)
                    await asyncio.wait(pumps, timeout=random.choice((0.5, 3 * SILENCE)))
                if "reset" in fault:
                    reset(writer)
        except OSError:
            pass  # no server at the moment, or the client has gone
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for each in writers:
                each.close()

    def restart_server() -> None:
        while True:
            server = subprocess.Popen([sys.executable, __file__, "--server", str(server_port)], stdin=subprocess.PIPE)
            time.sleep(random.uniform(0.5, 2) * RESTART)
            server.kill()
            server.wait()
            time.sleep(random.uniform(0, 1))

    threading.Thread(target=restart_server, daemon=True).start()
    while True:
        listener = await asyncio.start_server(handle, ["127.0.0.1", "::1"], port, backlog=2000)
        await asyncio.sleep(random.uniform(0.5, 2) * RESTART)
        listener.close()
        await asyncio.sleep(0.2)  # connections are refused


def run_child(main: Any) -> None:
    """Until the parent goes: its end of our stdin closes, however it ended."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    asyncio.run(main)


# === The clients =====================================================================================================


class Stream:
    """One stream, through as many clients as it takes, and its account."""

    stopping = False  # of all
    causes: ClassVar[Counter[str]] = Counter()  # of reconnects

    def __init__(self, number: int, port: int) -> None:
        self.number = number
        self.blocking = number < SYNC
        self.url = f"http://{'localhost' if number % 10 == 0 else '127.0.0.1'}:{port}/{number}"
        self.last = 0  # number of the last event
        self.events = self.lost = self.doubled = self.wrong = self.clients = 0
        self.error: BaseException | None = None
        self.time = time.monotonic()  # of the last event
        self.longest = 0.0  # s between two events
        self.client: Any = None

    def open(self, kind: Callable[..., Any]) -> Any:
        """A client that goes on where the last one was left."""
        self.clients += 1
        self.until = self.last + random.randint(50, 500)
        self.client = kind(
            self.url,
            last_event_id=self.client.last_event_id if self.client else "",
            heartbeat_timeout=SILENCE,
            timeout=2 * SILENCE,
            retry_interval=50,
            max_retry_interval=500,
            retry_statuses=sse.TRANSIENT,
            proxy=False,
            on_reconnect=self.note,
        )
        return self.client

    def note(self, cause: BaseException | None, wait: float) -> None:
        self.causes["clean end" if cause is None else type(cause).__name__] += 1

    def take(self, event: sse.SSEEvent) -> bool:
        """Account for an event; whether this client should be left for a new one."""
        number = int(event.id)
        self.events += 1
        self.doubled += number <= self.last
        self.lost += max(0, number - self.last - 1)
        self.wrong += event.data != data_of(self.number, number)
        self.last = max(self.last, number)
        self.longest = max(self.longest, self.silent)
        self.time = time.monotonic()
        return number >= self.until

    @property
    def silent(self) -> float:
        return time.monotonic() - self.time

    def consume(self) -> None:
        try:
            while not self.stopping:
                with self.open(sse.connect) as client:
                    if self.stopping:  # set before the new client could be seen
                        break
                    for event in client:
                        if self.take(event):
                            break
        except BaseException as exc:
            self.error = exc

    async def consume_async(self) -> None:
        try:
            while not self.stopping:
                async with self.open(sse.async_connect) as client:
                    while not self.stopping:
                        # Every other stream is cancelled whenever it has to wait: that must lose nothing.
                        patience = 0.3 if self.number % 2 else None
                        try:
                            if self.take(await asyncio.wait_for(anext(client), patience)):
                                break
                        except asyncio.TimeoutError:
                            pass
                        except StopAsyncIteration:
                            break
        except BaseException as exc:
            self.error = exc


class Sample:
    """How much of everything there is now."""

    def __init__(self, started: float) -> None:
        self.minutes = (time.monotonic() - started) / 60
        self.rss = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20  # MiB
        self.fds = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        self.threads = threading.active_count()
        self.tasks = len(asyncio.all_tasks())


def open_files() -> list[str]:
    return sorted(str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


async def soak(minutes: float, port: int) -> tuple[list[Stream], list[Sample], list[str]]:
    """Run the clients and return their accounts, the samples, and what went wrong beside them."""
    wrong: list[str] = []
    sys.unraisablehook = lambda args: wrong.append(f"unraisable: {args.exc_value!r}")
    warnings.simplefilter("always", ResourceWarning)  # of a socket that only the garbage collector closes
    warnings.showwarning = lambda message, *_, **__: wrong.append(f"warning: {message}")
    threading.excepthook = lambda args: wrong.append(f"in a thread: {args.exc_value!r}")
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(f"in the loop: {context}"))
    started = time.monotonic()
    before = Sample(started)
    streams = [Stream(number, port) for number in range(SYNC + ASYNC)]
    threads = [threading.Thread(target=stream.consume, daemon=True) for stream in streams[:SYNC]]
    for thread in threads:
        thread.start()
    tasks = [asyncio.ensure_future(stream.consume_async()) for stream in streams[SYNC:]]
    samples: list[Sample] = []
    while (now := Sample(started)).minutes < minutes:
        await asyncio.sleep(EVERY)
        samples.append(now := Sample(started))
        if len(samples) % 6 == 1:
            print(f"{now.minutes:5.1f} min: {report.describe(streams, now)}", flush=True)
    Stream.stopping = True
    for stream in streams[:SYNC]:
        stream.client.close()
    await asyncio.gather(*[stream.client.close() for stream in streams[SYNC:]])
    await asyncio.wait(tasks, timeout=10)
    deadline = time.monotonic() + 10
    while (after := Sample(started)) and time.monotonic() < deadline:
        left = [name for name in ("fds", "threads", "tasks") if getattr(after, name) > getattr(before, name)]
        if not left:
            break
        await asyncio.sleep(0.1)
    wrong += [f"{name} left: {getattr(after, name)}, at first {getattr(before, name)}" for name in left]
    if left:
        wrong.append(" ".join(open_files()))
    gc.collect()  # tells of sockets that nobody has closed
    return streams, [before, *samples, after], wrong


# === Running it ======================================================================================================


def free_ports() -> list[int]:
    """Two, under those that the system gives to clients: there, a client of a dead port may be connected to itself."""
    found: set[int] = set()
    while len(found) < 2:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", random.randrange(15_000, 30_000))) as one:
            found.add(one.getsockname()[1])
    return list(found)


def main() -> int:
    parser = argparse.ArgumentParser(description="See the top of this file.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--svg", type=Path, help="draw memory and file descriptors over time")
    parser.add_argument("--docs", action="store_true", help="draw docs/soak.svg, write figures to docs/reliability.md")
    parser.add_argument("--server", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--proxy", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        run_child(serve(options.server))
    if options.proxy:
        run_child(proxy(*options.proxy))
    faulthandler.dump_traceback_later(options.minutes * 60 + 90, exit=True)
    ports = free_ports()
    command = [sys.executable, __file__, "--proxy", *map(str, ports)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as chaos:
        streams, samples, wrong = asyncio.run(soak(options.minutes, ports[0]))
        if chaos.poll() is not None:
            wrong.append("the proxy ended early")
        chaos.kill()
    wrong += report.failures(streams, samples)
    text = report.figures(streams, samples, wrong)
    print(text)
    if options.svg or options.docs:
        report.draw(samples, options.svg or ROOT / "docs" / "soak.svg")
    if options.docs:
        report.write_docs(text, ROOT / "docs" / "reliability.md")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
