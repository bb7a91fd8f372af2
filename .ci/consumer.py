"""What a type checker must make of the installed wheel: each `type: ignore` is an error that it has to find."""

import dataclasses

import httpclient
import sse


def blocking(url: str) -> list[str]:
    """Walk through a blocking client."""
    with sse.connect(url, json={"stream": True}, until="[DONE]", timeout=(1, 2.5), max_retries=3) as events:
        client: sse.SSEClient = events
        seen: list[str] = [event.data for event in client]
        wrong: int = client.last_event_id  # type: ignore[assignment]
    sse.connect(url, until=wrong)  # type: ignore[arg-type]
    return seen


async def asynchronous(url: str) -> list[int | None]:
    """Walk through an async client."""
    async with sse.async_connect(url, headers=lambda: {"Authorization": "x"}, retry_statuses=sse.TRANSIENT) as events:
        client: sse.AsyncSSEClient = events
        return [event.retry async for event in client]


def buffers(url: str) -> list[str]:
    """The element type goes through buffers and batches."""
    with sse.connect(url) as events, sse.buffered(events, 10, overflow="drop_oldest") as queue:
        event: sse.SSEEvent = next(queue)
        wrong: str = next(queue)  # type: ignore[assignment]
    with sse.batched([1, 2], 500, max_wait=1.0) as batches:
        numbers: list[int] = next(batches)
        mixed: list[str] = next(batches)  # type: ignore[arg-type]
    sse.buffered([1], overflow="drop")  # type: ignore[arg-type]
    sse.buffered(sse.async_connect(url))  # type: ignore[arg-type]
    return [event.data, wrong, *mixed, str(sum(numbers))]


async def async_buffers(url: str) -> list[list[sse.SSEEvent]]:
    """The same for the twins."""
    async with sse.async_connect(url) as events, sse.async_buffered(events) as queue:
        event: sse.SSEEvent = await queue.__anext__()
        wrong: str = await queue.__anext__()  # type: ignore[assignment]
        sse.async_buffered([event])  # type: ignore[arg-type]
    async with sse.async_batched(sse.async_connect(url), size=500, max_wait=1) as batches:
        return [[event], *[batch async for batch in batches if wrong]]


def records() -> None:
    """They are dataclasses."""
    event = dataclasses.replace(sse.SSEEvent("a"), data="b")
    sent: dict[str, object] = dataclasses.asdict(sse.Request("GET", "u", {}))
    wrong: int = event.data  # type: ignore[assignment]
    assert [field.name for field in dataclasses.fields(event)] == [*sse.SSEEvent.__match_args__]
    assert (sent["method"], str(wrong)) == ("GET", "b")


def request(url: str) -> bytes:
    """Walk through a response and its errors."""
    try:
        with httpclient.get(url, timeout=5) as response:
            wrong: str = response.status_code  # type: ignore[assignment]
            return b"".join(response.iter_bytes()) + wrong.encode()
    except httpclient.HttpError as error:
        raise OSError(str(error)) from error


async def async_request(url: str) -> bytes:
    """Walk through an async response."""
    async with await httpclient.async_get(url) as response:
        return await response.aread()


records()
parser = sse.SSEParser(on_comment=print)
events: list[sse.SSEEvent] = parser.feed(b": ping\nid: 7\ndata: hello\n\n")
assert [(event.data, event.id) for event in events] == [("hello", "7")]
assert [event.data for event in sse.EventSource.from_chunks([b"data: x\n", b"\n"])] == ["x"]
with sse.batched(events, 500, 1) as batches:
    assert list(batches) == [events]
if parser.retry is not None:
    parser.feed(parser.retry)  # type: ignore[arg-type]
assert sse.__version__ == httpclient.__version__
