"""Running the clients: each in a process of its own, which imports nothing but what that client needs."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

from clients import ASYNC, BLOCKING

NEVER = 10**9


class Reading(NamedTuple):
    seconds: float  # CPU of the process
    count: int  # events
    last: str  # data of the last
    latencies: list[int]  # ns, if asked for: each event's data is the time when it was sent


def _count(client: Any, most: int, stamps: list[int] | None) -> tuple[int, str]:
    """Take up to so many events; return their number and the data of the last."""
    count, event, now = 0, None, time.monotonic_ns
    with client as events:
        for event in events:
            count += 1
            if stamps is not None:
                stamps.append(now())
                stamps.append(int(event.data) if event.data.isdigit() else 0)
            if count == most:
                break
    return count, getattr(event, "data", "")


async def _count_async(client: Any, most: int, stamps: list[int] | None) -> tuple[int, str]:
    count, event, now = 0, None, time.monotonic_ns
    async with client as events:
        async for event in events:
            count += 1
            if stamps is not None:
                stamps.append(now())
                stamps.append(int(event.data) if event.data.isdigit() else 0)
            if count == most:
                break
    return count, getattr(event, "data", "")


def read(name: str, url: str, ca: str = "", most: int = NEVER, timed: bool = False, **options: Any) -> Reading:
    """Read a stream to its end, or up to so many events."""
    logging.disable(logging.CRITICAL)
    stamps: list[int] | None = [] if timed else None
    gc.collect()
    begin = time.process_time()
    if name in BLOCKING:
        count, last = _count(BLOCKING[name](url, ca, **options), most, stamps)
    else:
        count, last = asyncio.run(_count_async(ASYNC[name](url, ca, **options), most, stamps))
    seconds = time.process_time() - begin
    pairs = zip(*[iter(stamps or [])] * 2)
    return Reading(seconds, count, last, [received - sent for received, sent in pairs if sent])


class Workers:
    def __init__(self) -> None:
        self._pools: dict[str, ProcessPoolExecutor] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for pool in self._pools.values():
            pool.shutdown()

    def run(self, function: Callable[..., Any], name: str, *args: Any, limit_s: float = 60, **options: Any) -> Any:
        """Call a function in the process of the client `name`; a process that takes too long is ended."""
        if name not in self._pools:
            self._pools[name] = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        pool = self._pools[name]
        try:
            return pool.submit(function, name, *args, **options).result(limit_s)
        except TimeoutError:
            for process in pool._processes.values():
                process.kill()
            del self._pools[name]
            raise TimeoutError(f"took more than {limit_s:.0f} s") from None
