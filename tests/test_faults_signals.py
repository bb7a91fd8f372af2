"""The fault suite, signals: Ctrl-C and SIGTERM in every state, close() from a signal handler, threads beside it.

The children are processes of their own under `-X dev -W error`: whatever they leave open, or a traceback that nobody
asked for, is on their stderr, which must be empty.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sse
from server import CHUNKED, HOLD, RAW, SSE, WITHIN, BlackHole, ScriptServer, chunk, event, head

AT_ONCE = 5.0
"""Seconds for what would take a minute if it were not at once; the machine may be busy."""
FILES = Path(sse.__file__).resolve().parent
PRELUDE = """
import asyncio, gc, json, logging, os, signal, socket, sys, threading
sys.path.insert(0, sys.argv[1])
import sse
logging.getLogger("asyncio").setLevel(logging.ERROR)  # a slow machine is no fault; errors that nobody has seen are

def say(*what):
    print(json.dumps(what), flush=True)

def sockets():
    gc.collect()
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink("/proc/self/fd/" + name))
        except OSError:
            pass
    return sum(link.startswith("socket:") for link in links)

options = {"timeout": 60, "retry_interval": 60_000, "verify": False, "on_reconnect": lambda *_: say("waiting")}
real = socket.getaddrinfo
def getaddrinfo(host, *args, **kwargs):
    if host == "nobody.example":
        if kwargs.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        say("looking up")
        threading.Event().wait()  # in a daemon thread, which may stay
    return real(host, *args, **kwargs)
socket.getaddrinfo = getaddrinfo
"""


class Child:
    """A Python process; each line of its stdout is a JSON list."""

    def __init__(self, program: str, *argv: str) -> None:
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", PRELUDE + program, str(FILES), *argv]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out, self.err = self.process.stdout, self.process.stderr
        self.timer = threading.Timer(4 * WITHIN, self.process.kill)
        self.timer.start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.timer.cancel()
        self.timer.join()
        self.out.close()
        self.err.close()

    def hears(self, *what: Any) -> None:
        """Waits for this line, which must be the next."""
        line = self.out.readline()
        assert line, f"the child has ended: {self.err.read()}"
        assert json.loads(line) == list(what)

    def gets(self, number: int) -> None:
        """Sends a signal once the child is blocked: what it says last, it says a little earlier.

        An exception that a handler raises between the making of a coroutine and its first step would be followed by
        a warning of Python's, whoever wrote the coroutine.
        """
        deadline = time.monotonic() + WITHIN
        before, now = "", self._main_thread()
        while now != before or "(sleeping)" not in now:
            assert time.monotonic() < deadline, f"the child does not come to rest: {now}"
            time.sleep(0.01)
            before, now = now, self._main_thread()
        self.process.send_signal(number)

    def _main_thread(self) -> str:
        """Its state, and how often it has run: of two equal ones, it has done nothing in between (Linux)."""
        pid = self.process.pid
        status = Path(f"/proc/{pid}/task/{pid}/status").read_text(encoding="ascii").splitlines()
        return " ".join([line for line in status if line.startswith("State:") or "ctxt_switches:" in line])

    def ends(self, code: int) -> None:
        """It has said all, and nothing on stderr."""
        rest, errors = self.out.read(), self.err.read()
        assert (self.process.wait(WITHIN), rest, errors) == (code, "", "")


# === The states that a signal comes in ===

State = tuple[str, Callable[[Child], None]]
"""The URL to connect to, and how to wait until the child blocks in that state."""


def requested(server: ScriptServer) -> Callable[[Child], None]:
    return lambda _: server.wait(lambda: bool(server.requests))


@contextlib.contextmanager
def looking_up() -> Iterator[State]:
    yield "http://nobody.example/", lambda child: child.hears("looking up")


@contextlib.contextmanager
def connecting() -> Iterator[State]:
    def reached(_: Child) -> None:
        deadline = time.monotonic() + WITHIN
        while hole.connecting() != 1:
            assert time.monotonic() < deadline
            time.sleep(0.002)

    with BlackHole() as hole:
        yield hole.url, reached


@contextlib.contextmanager
def shaking_hands() -> Iterator[State]:
    with ScriptServer([RAW, HOLD]) as server:
        yield (
            server.url.replace("http:", "https:"),
            lambda _: server.wait(lambda: server.connections and server.connections[0].received),
        )


@contextlib.contextmanager
def awaiting_head() -> Iterator[State]:
    with ScriptServer(["HTTP/1.1 200 OK\r\nX", HOLD]) as server:
        yield server.url, requested(server)


@contextlib.contextmanager
def reading() -> Iterator[State]:
    with ScriptServer([SSE + event(1), HOLD]) as server:
        yield server.url, lambda child: child.hears("event", "1")


@contextlib.contextmanager
def in_a_chunk() -> Iterator[State]:
    with ScriptServer([CHUNKED.encode() + chunk(event(1)) + b"9\r\ndata", HOLD]) as server:
        yield server.url, lambda child: child.hears("event", "1")


@contextlib.contextmanager
def reading_an_error() -> Iterator[State]:
    with ScriptServer([head(500, content_length=9) + "half", HOLD]) as server:
        yield server.url, requested(server)


@contextlib.contextmanager
def waiting() -> Iterator[State]:
    with ScriptServer([SSE]) as server:
        yield server.url, lambda child: child.hears("waiting")


STATES = [looking_up, connecting, shaking_hands, awaiting_head, reading, in_a_chunk, reading_an_error, waiting]


# === Ctrl-C ===

BLOCKING = """
def go(url):
    with sse.connect(url, **options) as events:
        for event in events:
            say("event", event.data)
"""
ASYNC = """
async def stream(url):
    async with sse.async_connect(url, **options) as events:
        async for event in events:
            say("event", event.data)

def go(url):
    asyncio.run(stream(url))
"""
EACH = """
before = sockets()
for url in sys.argv[2:]:
    try:
        go(url)
    except KeyboardInterrupt:
        say("interrupted", sockets() - before)
"""
twins = pytest.mark.parametrize("twin", [BLOCKING, ASYNC], ids=["sync", "async"])


@twins
def test_ctrl_c_in_every_state(twin: str, leaks: None) -> None:
    """KeyboardInterrupt at once, out of whatever the client blocks in; no socket, no warning, no second traceback."""
    with contextlib.ExitStack() as stack:
        states = [stack.enter_context(state()) for state in STATES]
        child = stack.enter_context(Child(twin + EACH, *[url for url, _ in states]))
        for _, reached in states:
            reached(child)
            start = time.monotonic()
            child.gets(signal.SIGINT)
            child.hears("interrupted", 0)
            assert time.monotonic() - start < AT_ONCE
        child.ends(0)


@twins
def test_ctrl_c_that_nobody_catches(twin: str, leaks: None) -> None:
    """One traceback, of KeyboardInterrupt and nothing else; the process ends as by the signal."""
    with reading() as (url, reached), Child(twin + "go(sys.argv[2])", url) as child:
        reached(child)
        child.gets(signal.SIGINT)
        assert child.out.read() == ""
        errors = child.err.read()
        assert child.process.wait(WITHIN) == -signal.SIGINT
    assert errors.count("Traceback") <= 2  # asyncio chains the cancellation to it
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "Warning" not in errors
    assert "ignored" not in errors


# === SIGTERM, and close() from a handler ===


@twins
def test_sigterm_that_raises_system_exit(twin: str, leaks: None) -> None:
    """A handler that calls sys.exit(), as services have: the `with` closes everything, the code is what it says."""
    program = twin + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\ngo(sys.argv[2])"
    for state in (reading, waiting):
        with state() as (url, reached), Child(program, url) as child:
            reached(child)
            child.gets(signal.SIGTERM)
            child.ends(7)


@twins
def test_sigterm_as_it_comes(twin: str, leaks: None) -> None:
    """Without a handler the system ends the process; the client does not stand in the way."""
    with reading() as (url, reached), Child(twin + "go(sys.argv[2])", url) as child:
        reached(child)
        child.gets(signal.SIGTERM)
        child.ends(-signal.SIGTERM)


CLOSE_FROM_A_HANDLER = """
events = None
signal.signal(signal.SIGTERM, lambda *_: events.close())
before = sockets()
for url in sys.argv[2:]:
    with contextlib.closing(sse.connect(url, **options)) as events:
        for event in events:
            say("event", event.data)
    say("closed", sockets() - before)
"""
CLOSE_FROM_A_LOOP_HANDLER = """
async def main():
    before = sockets()
    for url in sys.argv[2:]:
        events = sse.async_connect(url, **options)
        tasks = []
        close = lambda: tasks.append(asyncio.ensure_future(events.close()))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, close)
        async for event in events:
            say("event", event.data)
        await asyncio.gather(*tasks)
        say("closed", sockets() - before)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "program", ["import contextlib\n" + CLOSE_FROM_A_HANDLER, CLOSE_FROM_A_LOOP_HANDLER], ids=["sync", "async"]
)
def test_close_from_a_signal_handler_in_every_state(program: str, leaks: None) -> None:
    """The loop ends without an exception, at once, and the program goes on."""
    with contextlib.ExitStack() as stack:
        states = [stack.enter_context(state()) for state in STATES]
        child = stack.enter_context(Child(program, *[url for url, _ in states]))
        for _, reached in states:
            reached(child)
            start = time.monotonic()
            child.gets(signal.SIGTERM)
            child.hears("closed", 0)
            assert time.monotonic() - start < AT_ONCE
        child.ends(0)


ANY_LINE = """
import faulthandler, queue, httpclient
files = {module.__file__ for module in (sse, httpclient, threading, queue)}

def run(url, act, at):
    # Consumes three events of three connections; `act` is called at line number `at` of those executed in our files
    # and in what they wait on: wherever a signal handler might be called. Returns the lines executed.
    lines, found = [], []
    client = sse.connect(url, retry_interval=0, max_retry_interval=1, jitter=0, timeout=20)

    def trace(frame, kind, _):
        if frame.f_code.co_filename not in files:
            return None
        if kind == "line":
            lines.append((frame.f_code.co_filename, frame.f_lineno))
            if len(lines) - 1 == at:
                sys.settrace(None)
                print(act, "at", *lines[-1], file=notes, flush=True)
                getattr(client, act)()
        return trace

    sys.settrace(trace)
    try:
        for event in client:
            found.append(event.data)
            if len(found) == 3:
                break
    finally:
        sys.settrace(None)
        client.close()
    if act == "restart" or at is None:
        assert len(found) == 3, (act, lines[at])
    return lines

_, _, url, step, notes = sys.argv
notes = open(notes, "w")
for act in ("close", "restart"):
    seen = set()
    places = []
    for number, line in enumerate(run(url, act, None)):
        if line not in seen:  # each line once
            seen.add(line)
            places.append(number)
    for place in places[:: int(step)]:
        faulthandler.dump_traceback_later(5, exit=True)
        run(url, act, place)
        faulthandler.cancel_dump_traceback_later()
    say(act, len(places) > 100)
notes.close()
"""


def test_close_and_restart_may_come_at_any_line(tmp_path: Path, leaks: None) -> None:
    """From a handler that runs between any two lines of the client, of the transport, and of what they wait on."""
    notes = tmp_path / "notes"
    numbered: Any = lambda connection: [SSE + event(connection.index)]  # noqa: E731
    with ScriptServer(then=numbered) as server, Child(ANY_LINE, server.url, "1", str(notes)) as child:
        for act in ("close", "restart"):
            line = child.out.readline()
            assert line, f"{notes.read_text().splitlines()[-1]}: {child.err.read()}"
            assert json.loads(line) == [act, True]
        child.ends(0)


CANCEL_AT_ANY_LINE = """
import httpclient, time
files = {sse.__file__, httpclient.__file__}

async def dropped(url):
    async for event in sse.async_connect(url, retry_interval=0, max_retry_interval=1, jitter=0, timeout=20):
        if event.data == "2":
            return

async def left(url):
    async with sse.async_connect(url, retry_interval=0, max_retry_interval=1, jitter=0, timeout=20) as events:
        async for event in events:
            if event.data == "2":
                return

async def fetched(url):
    for _ in range(2):
        async with await httpclient.async_get(url, stream=True) as response:
            await anext(response.aiter_lines())

async def run(work, url, at):
    # Cancels `work` at line number `at` of those executed in our files. Returns the lines executed.
    lines, complaints = [], []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    before = sockets()

    def trace(frame, kind, _):
        # In `_wake` nothing else can run: it looks at a future and settles it, as asyncio does in its own callbacks.
        if frame.f_code.co_filename not in files or frame.f_code.co_name == "_wake":
            return None
        if kind == "line":
            lines.append((frame.f_code.co_filename, frame.f_lineno))
            if len(lines) - 1 == at:
                sys.settrace(None)
                print(work.__name__, "at", *lines[-1], file=notes, flush=True)
                task.cancel()
        return trace

    task = asyncio.ensure_future(work(url))
    sys.settrace(trace)
    try:
        await task
    except asyncio.CancelledError:
        pass
    finally:
        sys.settrace(None)
        del task
    deadline = time.monotonic() + 5
    while sockets() > before or len(asyncio.all_tasks()) > 1:
        assert time.monotonic() < deadline, "something is left"
        await asyncio.sleep(0.001)
    assert not complaints, complaints
    return lines

_, _, url, step, notes = sys.argv
notes = open(notes, "w")
gc.collect()
gc.freeze()  # what is collected a thousand times is only what comes now
for work in (dropped, left, fetched):
    places = {}
    for number, line in enumerate(asyncio.run(run(work, url, None))):
        places.setdefault(line, number)  # each line once
    for place in [*places.values()][:: int(step)]:
        asyncio.run(run(work, url, place))
    say(work.__name__, len(places) > 100)
notes.close()
"""


def test_cancellation_may_come_at_any_line(tmp_path: Path, leaks: None) -> None:
    """Of the async client and of its transport, inside and outside of an `async with`: nothing stays open."""
    notes = tmp_path / "notes"

    def script(connection: Any) -> list[Any]:
        number = connection.index % 3
        return [SSE + event(number), *([HOLD] if number == 2 else [])]

    with ScriptServer(then=script) as server, Child(CANCEL_AT_ANY_LINE, server.url, "3", str(notes)) as child:
        for work in ("dropped", "left", "fetched"):
            line = child.out.readline()
            assert line, f"{notes.read_text().splitlines()[-1]}: {child.err.read()}"
            assert json.loads(line) == [work, True]
        child.ends(0)


# === Threads ===


def test_ctrl_c_beside_a_consumer_in_a_thread(leaks: None) -> None:
    """The main thread is interrupted, leaves the `with`, and that frees the thread that reads."""
    program = """
with sse.connect(sys.argv[2], **options) as events:
    thread = threading.Thread(target=lambda: [say("event", event.data) for event in events])
    try:
        thread.start()
        thread.join()
    except KeyboardInterrupt:
        say("interrupted")
thread.join(5)
say("ended", not thread.is_alive())
"""
    with reading() as (url, reached), Child(program, url) as child:
        reached(child)
        child.gets(signal.SIGINT)
        child.hears("interrupted")
        child.hears("ended", True)
        child.ends(0)


@pytest.mark.parametrize("state", [reading, waiting, looking_up], ids=lambda state: state.__name__)
def test_daemon_consumer_does_not_hold_the_end_of_the_process(state: Any, leaks: None) -> None:
    """The interpreter ends while a daemon thread is blocked in the client, whatever it blocks in."""
    program = """
def consume():
    for event in sse.connect(sys.argv[2], **options):
        say("event", event.data)

threading.Thread(target=consume, daemon=True).start()
signal.sigwait({signal.SIGUSR1})
"""
    block = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
    with state() as (url, reached), Child(block + program, url) as child:
        reached(child)
        child.gets(signal.SIGUSR1)
        child.ends(0)
