"""What it costs to be there: import, first event, idle streams and their waking, long lines, long runs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clients import ASYNC, BLOCKING
from common import ROOT, Report, arguments, compare, failure, rotated, row, value_of
from servers import Urls, own_server, raise_limit
from workers import Workers

HERE = Path(__file__).resolve().parent
IMPORTS = {
    "sse": "sse",
    "httpx-sse": "httpx, httpx_sse",
    "httpx2": "httpx2",
    "launchdarkly": "ld_eventsource",
    "launchdarkly async": "ld_eventsource.async_client",
    "sseclient-py": "sseclient, urllib3",
    "requests-sse": "requests_sse",
    "aiohttp-sse-client2": "aiohttp_sse_client2.client",
    "niquests": "niquests",
    "openai": "openai",
    "larzsse": "larzsse",
}
FORBIDDEN = ("asyncio", "ssl", "socket", "http.client")

# === Import and first event: a process each ==========================================================================

IMPORT = """
import sys, time
before = set(sys.modules)
begin = time.process_time()
import {modules}
seconds = time.process_time() - begin
new = set(sys.modules) - before
print(seconds * 1e3, len(new), *new.intersection({forbidden}))
"""
FIRST = """
import os, sys
sys.path.insert(0, {here!r})
import clients
with clients.BLOCKING[{name!r}]({url!r}) as events:
    for event in events:
        print(event.data, flush=True)
        os._exit(0)
"""
FIRST_ASYNC = """
import os, sys
sys.path.insert(0, {here!r})
import asyncio, clients
async def main():
    async with clients.ASYNC[{name!r}]({url!r}) as events:
        async for event in events:
            print(event.data, flush=True)
            os._exit(0)
asyncio.run(main())
"""


def imports(report: Report) -> None:
    """CPU of the import alone, and how many modules it brings beyond those of a bare interpreter."""
    found: dict[str, list[tuple[float, int, list[str]]]] = {name: [] for name in IMPORTS}
    failed = {}
    for modules in IMPORTS.values():  # so that they are compiled
        subprocess.run([sys.executable, "-c", f"import {modules}"], capture_output=True, cwd=ROOT, check=False)
    for order in rotated(list(IMPORTS), 1 if report.options.quick else 5 * report.options.rounds):
        for name in order:
            code = IMPORT.format(modules=IMPORTS[name], forbidden=FORBIDDEN)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
            if done.returncode:
                failed[name] = f"fails: {done.stderr.strip().splitlines()[-1][:80]}"
                continue
            ms, modules, *names = done.stdout.split()
            found[name].append((float(ms), int(modules), names))
    for index, (title, unit) in enumerate((("CPU", "ms"), ("new modules", ""))):
        rows = [row(name, [measured[index] for measured in runs], failed.get(name, "")) for name, runs in found.items()]
        report.cell("import", title, unit, rows)
    report.target("import sse: modules beyond a bare interpreter", found["sse"][0][1], "<= 26")
    report.target("import sse: asyncio, ssl, socket, http.client among them", len(found["sse"][0][2]), "<= 0")


def first_events(report: Report, server: Urls) -> None:
    """CPU of a whole process, from its start to the first event."""
    url, events = server.url("/idle"), 1 if report.options.quick else 5 * report.options.rounds
    for kind, clients, code, target in (
        ("sync", BLOCKING, FIRST, "<= 0.7"),
        ("async", ASYNC, FIRST_ASYNC, "<= 0.8"),
    ):

        def contestant(name: str, code: str = code) -> Callable[[], tuple[float, int]]:
            command = [sys.executable, "-c", code.format(here=str(HERE), name=name, url=url)]

            def run() -> tuple[float, int]:
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                assert process.stdout
                lines = len(process.stdout.read().splitlines())
                usage = os.wait4(process.pid, 0)[2]
                return (usage.ru_utime + usage.ru_stime) * 1e3, lines

            return run

        names = [name for name in clients if name != "openai"][: 3 if report.options.quick else None]
        runs = {name: contestant(name) for name in names}
        cell = report.cell("process start to first event", kind, "ms CPU", compare(runs, 1, events))
        report.target(f"process start to first event, {kind}", cell["ratio"], target)


# === Idle streams: in the worker of each client ======================================================================


def idle(name: str, url: str, wake_url: str, streams: int) -> dict[str, float]:
    """Open streams, wait for the first event of each; how much memory one holds, how much CPU a wake-up takes."""
    raise_limit()
    return asyncio.run(_idle(name, url, wake_url, streams))


async def _idle(name: str, url: str, wake_url: str, streams: int) -> dict[str, float]:
    from http.client import HTTPConnection
    from urllib.parse import urlsplit

    opening, counts, opened = asyncio.Semaphore(50), [0] * streams, asyncio.Event()
    shared = await _shared(name)
    options = {} if shared is None else {"client": shared}

    async def consume(i: int) -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with opening:
                events = aiter(await stack.enter_async_context(ASYNC[name](url, **options)))
                await anext(events)
            counts[i] = 1
            if sum(counts) == goal[0]:
                opened.set()
            async for _ in events:
                counts[i] += 1

    goal = [2]
    warm = [asyncio.create_task(consume(i)) for i in range(2)]  # imports, thread pools
    await opened.wait()
    opened.clear()
    gc.collect()
    before, goal[0] = _rss(), streams
    tasks = [*warm, *[asyncio.create_task(consume(i)) for i in range(2, streams)]]
    await asyncio.wait([asyncio.create_task(opened.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            task.result()
    gc.collect()
    held = _rss() - before
    where = urlsplit(wake_url)
    control = HTTPConnection(where.netloc)
    control.request("GET", where.path)
    begin, received = time.process_time(), sum(counts)
    sent = int(await asyncio.to_thread(lambda: control.getresponse().read()))
    for _ in range(600):  # an asyncio.Event would be part of what is measured
        if sum(counts) - received >= sent:
            break
        await asyncio.sleep(0.05)
    seconds = time.process_time() - begin
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    control.close()
    if shared is not None:
        await (shared.close() if hasattr(shared, "close") else shared.aclose())
    return {"bytes": held / (streams - 2), "wake_us": seconds / sent * 1e6, "sent": sent, "got": sum(counts) - received}


async def _shared(name: str) -> Any:
    """The one HTTP client of all streams, where a library has such a thing: its documentation says to share it."""
    if name in ("aiohttp-sse-client2", "launchdarkly async"):
        import aiohttp

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), read_bufsize=2**16
        )
    if name in ("httpx-sse async", "httpx2 async"):
        import importlib

        httpx: Any = importlib.import_module("httpx" if name == "httpx-sse async" else "httpx2")
        return httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None))
    return None


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def idle_streams(report: Report, server: Urls) -> None:
    quick, rounds = report.options.quick, max(1, report.options.rounds - 1)
    names = ["sse async", "aiohttp-sse-client2", "launchdarkly async", "httpx-sse async", "httpx2 async"]
    for streams in (100,) if quick else (1000, 5000):
        # httpx looks at every connection of its pool for each new one: 5000 take it minutes
        some = names[:2] if quick else names if streams < 5000 else names[:3]
        found: dict[str, list[dict[str, float]]] = {name: [] for name in some}
        failed = {}
        for order in rotated(some, 1 if streams < 5000 else rounds):
            for name in order:
                seconds = 1 if quick else 3
                with Workers() as workers:  # fresh processes: memory once used would hide what is used
                    urls = server.url("/idle"), server.url(f"/wake/{seconds}")
                    try:
                        got = workers.run(idle, name, *urls, streams, limit_s=90)
                        if got["got"] != got["sent"]:
                            failed[name] = f"{got['got']} of {got['sent']} events"
                        found[name].append(got)
                    except Exception as error:
                        failed[name] = failure(error)
        memory = [row(n, [run["bytes"] / 1000 for run in runs], failed.get(n, "")) for n, runs in found.items()]
        wake = [row(n, [run["wake_us"] for run in runs], failed.get(n, "")) for n, runs in found.items()]
        report.cell("idle async streams", f"{streams}, memory of each", "kB", memory)
        cell = report.cell("idle async streams", f"{streams}, woken once a second each", "µs CPU/event", wake)
        kb, aiohttp = value_of(memory, "sse async"), value_of(memory, "aiohttp-sse-client2")
        report.target(f"memory of an idle async stream, of {streams}: kB", kb, "<= 9")
        report.target(f"memory of an idle async stream, of {streams}: aiohttp's", kb / aiohttp, "<= 0.65")
    report.target(f"CPU to wake {streams} async streams", cell["ratio"], "<= 1.0")


# === Long lines, long runs ===========================================================================================


def long_line(name: str, first_url: str, url: str, megabytes: int) -> tuple[float, int]:
    with BLOCKING[name](first_url) as events:  # imports and first buffers are not the line's
        next(iter(events))
    gc.collect()
    before = _rss()
    if name == "sse":
        from sse import connect

        client: Any = connect(url, reconnect=False, max_event_size=None)
    else:
        client = BLOCKING[name](url)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    with client as events:
        length = len(next(iter(events)).data)
    status = Path("/proc/self/status").read_text()
    most = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return (most - before) / (megabytes << 20), length


def long_lines(report: Report, server: Urls) -> None:
    megabytes = 2 if report.options.quick else 64
    urls = server.url("/line/1"), server.url(f"/line/{megabytes}")
    rows = []
    for name in [name for name in BLOCKING if name != "openai"][: 2 if report.options.quick else None]:
        with Workers() as workers:
            try:
                times, length = workers.run(long_line, name, *urls, megabytes, limit_s=30)
                wrong = "" if length == megabytes << 20 else f"{length} characters"
                rows.append(row(name, [times], wrong))
            except Exception as error:
                rows.append(row(name, [], failure(error)))
    report.cell("memory", f"peak for a line of {megabytes} MB", "times the line", rows)
    report.target(f"one line of {megabytes} MB: peak, times the line", value_of(rows, "sse"), "<= 3.5")


def flatness(name: str, url: str, events: int) -> list[int]:
    """Memory after each tenth of a long stream."""
    sizes = []
    with BLOCKING[name](url) as stream:
        for i, _ in enumerate(stream, 1):
            if i % (events // 10) == 0:
                sizes.append(_rss())
    return sizes


def long_run(report: Report, server: Urls) -> None:
    times = 2 if report.options.quick else 100
    events = 20_000 * times
    with Workers() as workers:
        sizes = workers.run(flatness, "sse", server.url(f"/repeat/anthropic/20000/{times}"), events, limit_s=120)
    report.notes.append(f"memory after each tenth of {events} events, MB: {[round(s / 1e6, 1) for s in sizes]}")
    report.target(f"{events} events: growth after the first tenth, MB", (sizes[-1] - sizes[0]) / 1e6, "<= 1")


def main() -> None:
    options = arguments(__doc__, rounds=3)
    report = Report("footprint", options)
    imports(report)
    with own_server() as server:
        first_events(report, server)
        idle_streams(report, server)
        long_lines(report, server)
        long_run(report, server)
    report.finish()


if __name__ == "__main__":
    main()
