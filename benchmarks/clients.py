"""Every client as its documentation shows it, at its fastest: a context manager that gives an iterator of its events.

Each is imported where it is opened, and this module imports next to nothing, so that a process pays only for the one
that it runs. With `ca`, a ready TLS context is handed in, since loading certificates is not what most programs measure.
"""

from __future__ import annotations

import contextlib
import sys
from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import Any

sys.path.insert(0, __file__.rpartition("/benchmarks/")[0])  # the sse.py of this checkout, not an installed one


@lru_cache
def context(ca: str) -> ssl.SSLContext:
    import ssl

    return ssl.create_default_context(cafile=ca)


def _verify(ca: str) -> Any:
    return context(ca) if ca else True


# === Blocking ========================================================================================================


@contextlib.contextmanager
def sse(url: str, ca: str = "", reconnect: bool = False) -> Iterator[Any]:
    from sse import connect

    with connect(url, verify=_verify(ca), reconnect=reconnect, retry_interval=0) as events:
        yield events


@contextlib.contextmanager
def httpx_sse(url: str, ca: str = "", reconnect: bool = False) -> Iterator[Any]:
    import httpx
    from httpx_sse import connect_sse

    def again(client: Any) -> Iterator[Any]:
        headers: dict[str, str] = {}
        while True:
            with connect_sse(client, "GET", url, headers=headers) as source:
                for event in source.iter_sse():
                    headers = {"Last-Event-ID": event.id}
                    yield event

    with httpx.Client(verify=_verify(ca), timeout=None) as client:
        if reconnect:
            yield again(client)
        else:
            with connect_sse(client, "GET", url) as source:
                yield source.iter_sse()


@contextlib.contextmanager
def httpx2(url: str, ca: str = "", reconnect: bool = False) -> Iterator[Any]:
    import httpx2

    def again(client: Any) -> Iterator[Any]:
        headers: dict[str, str] = {}
        while True:
            with client.sse(url, headers=headers) as source:
                for event in source:
                    headers = {"Last-Event-ID": event.id}
                    yield event

    with httpx2.Client(verify=_verify(ca), timeout=None) as client:
        if reconnect:
            yield again(client)
        else:
            with client.sse(url, max_event_size=None) as source:
                yield source


@contextlib.contextmanager
def launchdarkly(url: str, ca: str = "", reconnect: bool = False) -> Iterator[Any]:
    import urllib3
    from ld_eventsource import SSEClient
    from ld_eventsource.config import ConnectStrategy, ErrorStrategy

    strategy = ConnectStrategy.http(url, pool=urllib3.PoolManager(ssl_context=context(ca)) if ca else None)
    errors = ErrorStrategy.always_continue() if reconnect else ErrorStrategy.always_fail()
    with SSEClient(strategy, initial_retry_delay=0, error_strategy=errors) as client:
        yield client.events


@contextlib.contextmanager
def sseclient_py(url: str, ca: str = "") -> Iterator[Any]:
    import urllib3
    from sseclient import SSEClient

    with urllib3.PoolManager(ssl_context=context(ca) if ca else None) as pool:
        yield SSEClient(pool.request("GET", url, preload_content=False)).events()


@contextlib.contextmanager
def requests_sse(url: str, ca: str = "", reconnect: bool = False) -> Iterator[Any]:
    from datetime import timedelta

    from requests_sse import EventSource

    with EventSource(url, reconnection_time=timedelta(0), verify=ca or True) as source:
        yield source


@contextlib.contextmanager
def niquests(url: str, ca: str = "") -> Iterator[Any]:
    import niquests

    with niquests.Session() as session:
        response = session.get(_sse_url(url), verify=ca or True)
        yield iter(response.extension.next_payload, None)


def _sse_url(url: str) -> str:
    """As niquests wants it."""
    return url.replace("https:", "sse:").replace("http:", "psse:")


@contextlib.contextmanager
def larzsse(url: str, ca: str = "") -> Iterator[Any]:
    import urllib.request

    import larzsse

    if ca:  # it takes no context, but urllib can be told
        handler = urllib.request.HTTPSHandler(context=context(ca))
        urllib.request.install_opener(urllib.request.build_opener(handler))
    yield larzsse.connect(url)


@contextlib.contextmanager
def openai(url: str, ca: str = "") -> Iterator[Any]:
    import httpx2
    import openai

    http_client = httpx2.Client(verify=context(ca)) if ca else None
    with (
        openai.OpenAI(base_url=url, api_key="key", http_client=http_client) as client,
        client.chat.completions.create(model="gpt-x", messages=[], stream=True) as stream,
    ):
        yield stream


# === asyncio =========================================================================================================


@contextlib.asynccontextmanager
async def sse_async(url: str, ca: str = "", reconnect: bool = False) -> AsyncIterator[Any]:
    from sse import async_connect

    async with async_connect(url, verify=_verify(ca), reconnect=reconnect, retry_interval=0) as events:
        yield events


@contextlib.asynccontextmanager
async def httpx_sse_async(url: str, ca: str = "", reconnect: bool = False, client: Any = None) -> AsyncIterator[Any]:
    import httpx
    from httpx_sse import aconnect_sse

    async def again(client: Any) -> AsyncIterator[Any]:
        headers: dict[str, str] = {}
        while True:
            async with aconnect_sse(client, "GET", url, headers=headers) as source:
                async for event in source.aiter_sse():
                    headers = {"Last-Event-ID": event.id}
                    yield event

    async with contextlib.AsyncExitStack() as stack:
        if client is None:
            client = await stack.enter_async_context(httpx.AsyncClient(verify=_verify(ca), timeout=None))
        if reconnect:
            yield again(client)
        else:
            source = await stack.enter_async_context(aconnect_sse(client, "GET", url))
            yield source.aiter_sse()


@contextlib.asynccontextmanager
async def httpx2_async(url: str, ca: str = "", reconnect: bool = False, client: Any = None) -> AsyncIterator[Any]:
    import httpx2

    async def again(client: Any) -> AsyncIterator[Any]:
        headers: dict[str, str] = {}
        while True:
            async with client.sse(url, headers=headers) as source:
                async for event in source:
                    headers = {"Last-Event-ID": event.id}
                    yield event

    async with contextlib.AsyncExitStack() as stack:
        if client is None:
            client = await stack.enter_async_context(httpx2.AsyncClient(verify=_verify(ca), timeout=None))
        if reconnect:
            yield again(client)
        else:
            yield await stack.enter_async_context(client.sse(url, max_event_size=None))


@contextlib.asynccontextmanager
async def launchdarkly_async(url: str, ca: str = "", reconnect: bool = False, client: Any = None) -> AsyncIterator[Any]:
    from ld_eventsource.async_client import AsyncSSEClient
    from ld_eventsource.config import ErrorStrategy
    from ld_eventsource.config.async_connect_strategy import AsyncConnectStrategy

    options = {"ssl": context(ca)} if ca else {}
    strategy = AsyncConnectStrategy.http(url, session=client, aiohttp_request_options=options)
    errors = ErrorStrategy.always_continue() if reconnect else ErrorStrategy.always_fail()
    async with AsyncSSEClient(strategy, initial_retry_delay=0, error_strategy=errors) as events:
        yield events.events


@contextlib.asynccontextmanager
async def aiohttp_sse_client2(
    url: str, ca: str = "", reconnect: bool = False, client: Any = None
) -> AsyncIterator[Any]:
    from datetime import timedelta

    from aiohttp_sse_client2.client import EventSource

    options = {"ssl": context(ca)} if ca else {}
    async with EventSource(url, reconnection_time=timedelta(0), session=client, **options) as source:
        yield source


@contextlib.asynccontextmanager
async def niquests_async(url: str, ca: str = "") -> AsyncIterator[Any]:
    import niquests

    async with niquests.AsyncSession() as session:
        response = await session.get(_sse_url(url), verify=ca or True)

        async def events() -> AsyncIterator[Any]:
            while (event := await response.extension.next_payload()) is not None:
                yield event

        yield events()


BLOCKING: dict[str, Callable[..., Any]] = {
    "sse": sse,
    "httpx-sse": httpx_sse,
    "httpx2": httpx2,
    "launchdarkly": launchdarkly,
    "sseclient-py": sseclient_py,
    "requests-sse": requests_sse,
    "niquests": niquests,
    "larzsse": larzsse,
    "openai": openai,
}
ASYNC: dict[str, Callable[..., Any]] = {
    "sse async": sse_async,
    "httpx-sse async": httpx_sse_async,
    "httpx2 async": httpx2_async,
    "launchdarkly async": launchdarkly_async,
    "aiohttp-sse-client2": aiohttp_sse_client2,
    "niquests async": niquests_async,
}
RECONNECTING = (
    *("sse", "launchdarkly", "requests-sse", "httpx-sse", "httpx2"),
    *("sse async", "launchdarkly async", "aiohttp-sse-client2", "httpx-sse async", "httpx2 async"),
)
