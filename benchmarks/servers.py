"""The servers of the benchmarks, each in its own process: one of our own over asyncio, and nginx for a static file.

/chunked/NAME/N        N events of a workload, one HTTP chunk each
/large/NAME/N          the same in chunks of 64 KiB
/line/MB               one event of that many MB in one line, in chunks of 64 KiB
/paced/RATE/N          N events, RATE a second, whose data is the time when they were sent, in ns
/resume/K/TOTAL/END    K events after the Last-Event-ID, then the answer ends (END: "close", "keep" the connection)
/idle                  one event, and then one whenever /wake asks for it
/wake/SECONDS          wakes each idle stream once a second, spread evenly; answers with the number of events sent
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import streams

LAST = b"data: [DONE]\n\n"
"""Ends every finite stream, so that a count that happens to be right is not enough."""


class Urls(NamedTuple):
    """Where a server listens, and whom a TLS client has to trust."""

    plain: str
    tls: str
    ca: str

    def url(self, path: str, tls: bool = False) -> str:
        return (self.tls if tls else self.plain) + path


# === For the benchmarks ==============================================================================================


@contextlib.contextmanager
def own_server() -> Iterator[Urls]:
    with tempfile.TemporaryDirectory() as folder:
        _certificates(folder)
        process = subprocess.Popen([sys.executable, __file__, folder], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout
            plain, tls = process.stdout.readline().split()
            yield Urls(f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{tls}", f"{folder}/ca.pem")
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def nginx(files: dict[str, bytes]) -> Iterator[Urls | str]:
    """nginx that serves these files as event streams; why not, if it cannot be."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        yield "nginx is not installed"
        return
    import socket

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        Path(folder).chmod(0o755)  # the worker is another user if we are root
        _certificates(folder)
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            second.bind(("127.0.0.1", 0))
            plain, tls = first.getsockname()[1], second.getsockname()[1]
        Path(folder, "nginx.conf").write_text(f"""
            daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;
            events {{}}
            http {{
              access_log off; sendfile on; tcp_nopush on; default_type text/event-stream; root {folder};
              client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
              uwsgi_temp_path {folder}; scgi_temp_path {folder};
              server {{
                listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl;
                ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.pem;
              }}
            }}""")
        process = subprocess.Popen([program, "-p", folder, "-e", "stderr", "-c", f"{folder}/nginx.conf"])
        try:
            for port in (plain, tls):
                _wait_for(port, process)
            yield Urls(f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{tls}", f"{folder}/ca.pem")
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    import socket

    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.01)
    raise RuntimeError("nginx did not start")


def _certificates(folder: str) -> None:
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(f"{folder}/ca.pem")
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(f"{folder}/server.pem")


def raise_limit() -> None:
    """Allow as many open files as the system lets us."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# === The server's own process ========================================================================================

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CLOSING = HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

_idle: list[asyncio.StreamWriter] = []


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@lru_cache
def _body(shape: str, name: str, number: str) -> bytes:
    if shape == "line":
        blocks = [b"data: " + b"x" * (int(name) << 20) + b"\n\n"]
    else:
        blocks = [*streams.make(name, events=int(number) - 1).blocks, LAST]
    if shape != "chunked":
        stream = b"".join(blocks)
        blocks = [stream[i : i + 65536] for i in range(0, len(stream), 65536)]
    return b"".join(map(chunk, blocks)) + chunk(b"")


async def _send_body(writer: asyncio.StreamWriter, shape: str, name: str, number: str = "", times: str = "1") -> None:
    body = memoryview(_body(shape, name, number))
    writer.write(CHUNKED)
    for left in reversed(range(int(times))):
        part = body[: -len(chunk(b""))] if left else body
        for start in range(0, len(part), 1 << 18):
            writer.write(part[start : start + (1 << 18)])
            await writer.drain()


async def _send_paced(writer: asyncio.StreamWriter, rate: str, number: str) -> None:
    writer.write(CHUNKED)
    loop = asyncio.get_running_loop()
    begin = loop.time() + 0.1
    for i in range(int(number)):
        left = begin + i / int(rate) - loop.time()
        if left > 0:
            await asyncio.sleep(left)
        writer.write(chunk(b"data: %d\n\n" % time.monotonic_ns()))
    writer.write(chunk(LAST) + chunk(b""))
    await writer.drain()


async def _send_resumed(writer: asyncio.StreamWriter, last_id: int, each: str, total: str, end: str) -> None:
    numbers = range(last_id + 1, min(last_id + int(each), int(total)) + 1)
    events = b"".join([b"id: %d\ndata: %d\n\n" % (i, i) for i in numbers])
    writer.write((CLOSING if end == "close" else CHUNKED) + chunk(b"retry: 0\n" + events) + chunk(b""))
    await writer.drain()


async def _send_idle(writer: asyncio.StreamWriter, reader: asyncio.StreamReader) -> None:
    writer.write(CHUNKED + chunk(b"data: first\n\n"))
    _idle.append(writer)
    try:
        await reader.read()  # until the client has gone
    finally:
        _idle.remove(writer)


async def _wake(writer: asyncio.StreamWriter, seconds: str) -> None:
    event, ticks = chunk(b"data: wake\n\n"), 100
    loop = asyncio.get_running_loop()
    begin, sent = loop.time(), 0
    for tick in range(int(seconds) * ticks):
        await asyncio.sleep(max(0.0, begin + tick / ticks - loop.time()))
        for stream in _idle[tick % ticks :: ticks]:
            stream.write(event)
            sent += 1
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%d" % (len(str(sent)), sent))
    await writer.drain()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection until one of them closes it."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
        closing = False
        while not closing:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:-2])
            await reader.readexactly(int(headers.get("content-length", 0)))
            _, kind, *rest = head[0].split()[1].split("?")[0].split("/")
            closing = rest[-1:] == ["close"]
            if kind == "resume":
                await _send_resumed(writer, int(headers.get("last-event-id") or 0), *rest)
                continue
            if kind == "idle":
                await _send_idle(writer, reader)
                break
            senders: dict[str, Callable[..., Awaitable[None]]] = {"paced": _send_paced, "wake": _wake}
            if kind in senders:
                await senders[kind](writer, *rest)
            elif kind == "repeat":
                await _send_body(writer, "large", *rest)
            else:  # SDKs append a path of their own
                await _send_body(writer, kind, *rest[:2])
        writer.close()
        await writer.wait_closed()


async def _serve(folder: str) -> None:
    raise_limit()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/server.pem")
    servers = [await asyncio.start_server(_answer, "127.0.0.1", 0, ssl=c, backlog=4096) for c in (None, context)]
    print(*[server.sockets[0].getsockname()[1] for server in servers], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
