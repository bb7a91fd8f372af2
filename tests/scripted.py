"""Both clients over a transport that plays a script, on a clock that only waits move: no socket, no sleep.

    played = play("sync", [event(1), TimeoutError()], [event(2)])
    played.events, played.waits, played.error, played.requests

Opening n gets answer n: an `Answer`, a list of chunks (the body of an event stream), or an exception to be raised. An
exception among the chunks ends the body with it; a callable is called with the client when its turn has come. The
opening after the last answer raises `Over`, which no client survives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import sse

URL = "http://user:p4ss@stream.example/events?token=qu3ry"
"""Where scripted clients think they are; userinfo and query must never be shown."""

TWINS = ["sync", "async"]


class Over(sse.SSEError):
    """The script has ended: the client came back once more than it was meant to."""


class Answer:
    """A response for either client."""

    def __init__(
        self,
        *chunks: Any,
        status: int = 200,
        content_type: str | None = "text/event-stream",
        headers: dict[str, str] | None = None,
        url: str | None = None,
    ) -> None:
        self.status_code, self.chunks = status, chunks
        self.headers = dict(headers or {})
        if content_type is not None:
            self.headers["Content-Type"] = content_type
        if url is not None:
            self.url = url
        self.client: Any = None
        self.closed = False

    def iter_bytes(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            if callable(chunk):
                chunk(self.client)
            else:
                yield chunk.encode() if isinstance(chunk, str) else chunk

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        for chunk in self.iter_bytes():
            yield chunk

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class Played:
    """What came of a script."""

    client: Any = None
    events: list[str] = field(default_factory=list)
    error: BaseException | None = None
    requests: list[sse.Request] = field(default_factory=list)
    timeouts: list[Any] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    causes: list[BaseException | None] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    now: float = 1000.0

    @property
    def over(self) -> bool:
        """Whether the client came back after the last answer."""
        return isinstance(self.error, Over)


def make(twin: str, *answers: Any, url: str = URL, **options: Any) -> Played:
    """A client over a script, not opened yet. Its clock is moved on by the waits that it announces."""
    played = Played()
    script = iter(answers)
    on_reconnect: Callable[..., Any] | None = options.pop("on_reconnect", None)

    def transport(request: sse.Request, timeout: Any) -> Any:
        played.requests.append(request)
        played.timeouts.append(timeout)
        answer = next(script, None)
        if answer is None:
            raise Over
        if isinstance(answer, BaseException):
            raise answer
        response = answer if isinstance(answer, Answer) else Answer(*answer)
        response.client = played.client
        played.answers.append(response)
        return response

    async def awaitable(request: sse.Request, timeout: Any) -> Any:
        return transport(request, timeout)

    def lost(cause: BaseException | None, wait: float) -> None:
        played.causes.append(cause)
        played.waits.append(wait)
        played.now += wait
        if on_reconnect is not None:
            on_reconnect(cause, wait)

    kind: Any = sse.AsyncSSEClient if twin == "async" else sse.SSEClient
    options.setdefault("jitter", 0)
    used = awaitable if twin == "async" else transport
    played.client = kind(url, transport=used, on_reconnect=lost, **options)
    played.client._now = lambda: played.now
    return played


def run(played: Played, most: int | None = None) -> Played:
    """Consumes a client to its end, or up to `most` events, and closes it."""

    def consume() -> None:
        with played.client as client:
            for event in client:
                played.events.append(event.data)
                if len(played.events) == most:
                    return

    async def consume_async() -> None:
        async with played.client as client:
            async for event in client:
                played.events.append(event.data)
                if len(played.events) == most:
                    return

    played.error = None
    try:
        if isinstance(played.client, sse.AsyncSSEClient):
            asyncio.run(consume_async())
        else:
            consume()
    except Exception as error:
        played.error = error
    return played


def play(twin: str, *answers: Any, most: int | None = None, **options: Any) -> Played:
    """`run(make(...))`."""
    return run(make(twin, *answers, **options), most)
