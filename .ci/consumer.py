"""What a type checker must make of the installed wheel: each `type: ignore` is an error that it has to find."""

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


parser = sse.SSEParser(on_comment=print)
events: list[sse.SSEEvent] = parser.feed(b": ping\nid: 7\ndata: hello\n\n")
assert [(event.data, event.id) for event in events] == [("hello", "7")]
assert [event.data for event in sse.EventSource.from_chunks([b"data: x\n", b"\n"])] == ["x"]
if parser.retry is not None:
    parser.feed(parser.retry)  # type: ignore[arg-type]
assert sse.__version__ == httpclient.__version__
