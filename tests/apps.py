"""The applications behind test_servers.py, one per kind of server; each is imported in a process of its own.

`/numbers` counts: events 1, 2, 3 ... with their number as id, resumed after `Last-Event-ID`. In the query: `upto`, the
last number, after which the answer is 204; `batch`, events per connection; `pace`, seconds between two events.
`/chat` takes a POST and streams an answer in the shape of OpenAI's.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

WORDS = ["Once", " upon", " a", " time", "\u2028", ".\n"]


class Numbers:
    """What `/numbers` has to send to one request."""

    def __init__(self, headers: Mapping[str, str], query: Mapping[str, str]) -> None:
        upto, first = int(query.get("upto", 10)), int(headers.get("last-event-id") or 0) + 1
        self.pace = float(query.get("pace", 0))
        self.range = range(first, min(upto, first + int(query.get("batch", upto)) - 1) + 1)

    def __iter__(self) -> Iterator[str]:
        for number in self.range:
            yield f"id: {number}\ndata: {number}\n\n"
            time.sleep(self.pace)

    async def __aiter__(self) -> AsyncIterator[str]:
        for number in self.range:
            yield f"id: {number}\ndata: {number}\n\n"
            await asyncio.sleep(self.pace)


def chunks(prompt: str) -> Iterator[str]:
    """An answer that begins with the prompt's own words."""
    for word in [prompt, *WORDS]:
        payload = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": word}}]}
        yield f"data: {json.dumps(payload, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"


def asgi() -> Any:
    """Starlette, FastAPI (under /fastapi) and sse-starlette (under /sse-starlette)."""
    from fastapi import FastAPI, HTTPException
    from fastapi import Request as FastAPIRequest
    from fastapi.responses import StreamingResponse as FastAPIStreamingResponse
    from sse_starlette import EventSourceResponse
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Mount, Route

    async def numbers(request: Request) -> Response:
        source = Numbers(request.headers, request.query_params)
        return StreamingResponse(source, media_type="text/event-stream") if source.range else Response(status_code=204)

    async def pinged(request: Request) -> Response:
        source = Numbers(request.headers, request.query_params)
        if not source.range:
            return Response(status_code=204)

        async def events() -> AsyncIterator[dict[str, str]]:
            for number in source.range:
                yield {"id": str(number), "event": "number", "data": str(number)}
                await asyncio.sleep(source.pace)

        return EventSourceResponse(events(), ping=0.02)  # type: ignore[arg-type]

    fastapi = FastAPI()

    async def fastapi_numbers(request: FastAPIRequest) -> Any:
        source = Numbers(request.headers, request.query_params)
        if not source.range:
            return Response(status_code=204)
        return FastAPIStreamingResponse(source, media_type="text/event-stream")

    async def chat(request: FastAPIRequest) -> Any:
        if request.headers.get("authorization") != "Bearer right":
            raise HTTPException(401, {"message": "Incorrect API key provided"})
        body = await request.json()
        answer = chunks(body["messages"][-1]["content"])
        return FastAPIStreamingResponse(answer, media_type="text/event-stream; charset=utf-8")

    for function in (fastapi_numbers, chat):  # the annotations above are strings and of local names
        function.__annotations__ = {"request": FastAPIRequest}
    fastapi.get("/numbers", response_model=None)(fastapi_numbers)
    fastapi.post("/chat", response_model=None)(chat)

    routes = [Route("/numbers", numbers), Route("/sse-starlette/numbers", pinged), Mount("/fastapi", fastapi)]
    return Starlette(routes=routes)


def wsgi() -> Any:
    """Flask."""
    from flask import Flask, Response, request

    app = Flask("apps")

    @app.get("/numbers")
    def numbers() -> Any:
        source = Numbers(request.headers, request.args)
        return Response(source, mimetype="text/event-stream") if source.range else Response(status=204)

    @app.post("/chat")
    def chat() -> Any:
        answer = chunks(request.get_json()["messages"][-1]["content"])
        return Response(answer, mimetype="text/event-stream")

    return app


def serve_aiohttp(port: int) -> None:
    from aiohttp import web

    async def numbers(request: web.Request) -> web.StreamResponse:
        source = Numbers(request.headers, request.query)
        if not source.range:
            return web.Response(status=204)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for event in source:
            await response.write(event.encode())
        return response

    app = web.Application()
    app.router.add_get("/numbers", numbers)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


def serve_http10(port: int) -> None:
    """The standard library's server: HTTP/1.0, a body ends with its connection."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from urllib.parse import parse_qsl

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            source = Numbers(self.headers, dict(parse_qsl(self.path.partition("?")[2])))
            self.send_response(200 if source.range else 204)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for event in source:
                self.wfile.write(event.encode())

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    {"aiohttp": serve_aiohttp, "http10": serve_http10}[sys.argv[1]](int(sys.argv[2]))
