"""A raw socket server on loopback that plays one script per connection, byte by byte.

    with ScriptServer([SSE, event(1), RESET], [SSE, event(2), HOLD]) as server:
        ...                                   # server.url, server.requests, server.connections

A script is a sequence of steps. One request is read before its first step, unless that step is RAW.

    bytes or str       sent as they are (str as UTF-8)
    threading.Event    a pause until the test sets it
    READ               reads one more request of the same connection (keep-alive)
    RECV               waits for bytes, of whatever kind
    HOLD               holds the connection open until the client closes it
    CLOSE              closes cleanly (FIN, and close_notify under TLS); so does the end of a script
    RESET              closes with a RST
    HALF_CLOSE         ends the answer (FIN) and goes on
    drip(data)         sends byte by byte; endless(data) sends until the client has gone
    a callable         gets the Connection; what it returns (None, or any step) is played
    a list or tuple    its steps in turn

Connection n plays script n; those beyond the last script play `then`, by default a 204, which ends a client's loop
for good, so that a client that comes back too often fails its test instead of hanging it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import http
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WITHIN = 10.0
"""Seconds after which a condition that a test waits for is taken as never coming."""


LINGER_0 = struct.pack("ii", 1, 0)
"""The value of SO_LINGER that makes close() send a RST."""


class Step(enum.Enum):
    READ = enum.auto()
    HOLD = enum.auto()
    CLOSE = enum.auto()
    RESET = enum.auto()
    HALF_CLOSE = enum.auto()
    RAW = enum.auto()
    RECV = enum.auto()


READ, HOLD, CLOSE, RESET, HALF_CLOSE, RAW, RECV = Step


# === What scripts are made of ===

SSE = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
"""The head of an event stream that ends with its connection."""
CHUNKED = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
"""The head of an event stream in chunks."""
END_CHUNK = "0\r\n\r\n"


def head(status: int = 200, **headers: object) -> str:
    """A response head; `content_type="a/b"` becomes `Content-Type: a/b`, None leaves a header out."""
    fields = {name.replace("_", "-").title(): value for name, value in headers.items() if value is not None}
    reason = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else "Odd"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{k}: {v}" for k, v in fields.items())]
    return "\r\n".join(lines) + "\r\n\r\n"


def respond(status: int = 200, body: bytes | str = b"", **headers: object) -> bytes:
    """A whole response with its Content-Length."""
    body = body.encode() if isinstance(body, str) else body
    return head(status, **{"content_type": "text/plain", "content_length": len(body), **headers}).encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    """A redirect with an empty body."""
    return respond(status, location=location)


def chunk(data: bytes | str) -> bytes:
    """One chunk of chunked coding."""
    data = data.encode() if isinstance(data, str) else data
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(id: object, data: object = None) -> str:
    """One event with its id; the data is the id unless given."""
    return f"id: {id}\ndata: {id if data is None else data}\n\n"


def drip(data: bytes | str, every: float = 0.1, size: int = 1) -> Callable[[Connection], None]:
    """A step that sends `size` bytes every `every` seconds."""
    data = data.encode() if isinstance(data, str) else data

    def play(connection: Connection) -> None:
        for start in range(0, len(data), size):
            connection.send(data[start : start + size])
            if connection.stopping.wait(every):
                return

    return play


def endless(data: bytes | str, every: float = 0.0) -> Callable[[Connection], None]:
    """A step that sends `data` again and again until the client has gone."""

    def play(connection: Connection) -> None:
        while not connection.stopping.wait(every) if every else not connection.stopping.is_set():
            connection.send(data)

    return play


def each(answer: Callable[[Request], Any]) -> Callable[[Connection], None]:
    """A step that answers the request at hand, then every further one of the connection, by `answer(request)`."""

    def play(connection: Connection) -> None:
        while True:
            connection.play(answer(connection.request))
            connection.read_request()

    return play


NO_MORE = respond(204, content_type=None, content_length=None, connection="close")
"""The answer that ends a client's loop for good."""


# === What the server records ===


class Request:
    """One request as it arrived; `request["name"]` is a header's value or None."""

    def __init__(self, head: bytes, body: bytes, connection: Connection) -> None:
        self.head, self.body, self.connection = head, body, connection
        first, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")
        self.method, self.target, self.version = first.split(" ", 2)
        pairs = [line.partition(":") for line in lines]
        self.headers = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
        self.path, _, self.query = self.target.partition("?")

    def __getitem__(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, f"header {name} was sent {len(values)} times: {values}"
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]

    def __repr__(self) -> str:
        return f"<{self.method} {self.target} {self.headers}>"


class Gone(Exception):  # noqa: N818
    """The client has closed the connection, or the server is being stopped: the script ends here."""


class Connection:
    """One accepted connection, given to callable steps."""

    def __init__(self, server: ScriptServer, sock: socket.socket, index: int) -> None:
        self.server, self.sock, self.index = server, sock, index
        self.stopping = server.stopping
        self.requests: list[Request] = []
        self.received = bytearray()  # everything, as read from the socket (after TLS)
        self.closed = False  # the client has closed its side, seen while reading or sending
        self.ended = False  # the script has ended and the socket is closed
        self.tls_error: Exception | None = None
        self.client_certificate: Any = None  # as ssl tells it, None without one
        self._buffer = b""

    @property
    def request(self) -> Request:
        """The latest request."""
        return self.requests[-1]

    def send(self, data: bytes | str) -> None:
        try:
            self.sock.sendall(data.encode() if isinstance(data, str) else data)
        except OSError:
            self.closed = True
            raise Gone from None

    def recv(self) -> bytes:
        """What has come in, at least one byte."""
        try:
            data = self.sock.recv(65536)
        except (OSError, ValueError):
            data = b""
        if not data:
            self.closed = not self.stopping.is_set()
            raise Gone
        self.received += data
        return data

    def read_request(self) -> Request:
        """Reads one request, head and body."""
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self.recv()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        request = Request(head, b"", self)
        length = int(request["content-length"] or 0)
        while len(self._buffer) < length:
            self._buffer += self.recv()
        request.body, self._buffer = self._buffer[:length], self._buffer[length:]
        self.requests.append(request)
        self.server.requests.append(request)
        return request

    def play(self, step: Any) -> None:
        """Plays one step, or all steps of a list."""
        if step is None or step is RAW:
            return
        if isinstance(step, (bytes, bytearray, str)):
            self.send(bytes(step) if isinstance(step, bytearray) else step)
        elif isinstance(step, (list, tuple)):
            for inner in step:
                self.play(inner)
        elif isinstance(step, threading.Event):
            while not step.wait(0.02):
                if self.stopping.is_set():
                    raise Gone
        elif step is READ:
            self.read_request()
        elif step is RECV:
            self.recv()
        elif step is HOLD:
            while True:
                self.recv()
        elif step is CLOSE:
            self.close()
            raise Gone
        elif step is RESET:
            self.reset()
            raise Gone
        elif step is HALF_CLOSE:
            self.sock.shutdown(socket.SHUT_WR)
        else:
            self.play(step(self))

    def close(self) -> None:
        """Ends the connection cleanly. What the client sent and nobody read is dropped, else a RST would go out."""
        with contextlib.suppress(OSError, ValueError):
            self.sock.setblocking(False)
            if isinstance(self.sock, ssl.SSLSocket):
                with contextlib.suppress(ssl.SSLWantReadError):
                    self.sock.unwrap()  # sends close_notify, does not wait for the answer
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
            while self.sock.recv(65536):
                pass
        self.sock.close()

    def reset(self) -> None:
        """Ends the connection with a RST."""
        reset(self.sock)

    def run(self, script: Any) -> None:
        try:
            raw = isinstance(script, (list, tuple)) and script and script[0] is RAW
            if self.server.tls and not raw:
                # In two steps: stop() must find the socket while the handshake waits for the client.
                self.sock = self.server.tls.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
                self.sock.do_handshake()
                self.client_certificate = self.sock.getpeercert()
            if not raw:
                self.read_request()
            self.play(script)
        except Gone:
            pass
        except ssl.SSLError as error:
            self.tls_error = error
        except ConnectionError as error:
            self.tls_error, self.closed = error, True
        except BaseException as error:
            if not (self.stopping.is_set() and isinstance(error, OSError)):
                self.server.errors.append(error)
        finally:
            self.close()
            self.ended = True


# === The server ===


class ScriptServer:
    """Plays `scripts`, one per connection in the order of arrival, then `then` for every further one."""

    def __init__(
        self,
        *scripts: Any,
        then: Any = NO_MORE,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str = "/events",
    ) -> None:
        self.scripts, self.then, self.tls, self.host = scripts, then, tls, host
        self.requests: list[Request] = []
        self.connections: list[Connection] = []
        self.errors: list[BaseException] = []
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]  # with its zone
        self._listener = socket.socket(family, kind)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind(address)
        except OSError:  # no IPv6 on this machine, perhaps
            self._listener.close()
            raise
        self._listener.listen(128)
        self.port: int = self._listener.getsockname()[1]
        self.authority = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.origin = f"{'https' if tls else 'http'}://{self.authority}"
        self.url = self.origin + path

    def __enter__(self) -> ScriptServer:
        self._acceptor = threading.Thread(target=self._accept, name=f"server {self.port}", daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if self.errors and kind is None:
            raise AssertionError("a script failed") from self.errors[0]

    def stop(self) -> None:
        """Stops listening and ends all connections; connecting is refused from now on."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept() on Linux
        except OSError:
            socket.create_connection(self._listener.getsockname()[:2], 1).close()  # and this does elsewhere
        self._acceptor.join(WITHIN)
        self._listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WITHIN)
            assert not thread.is_alive(), f"{thread.name} does not end"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                assert self.stopping.is_set()
                return
            if self.stopping.is_set():
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            index = len(self.connections)
            connection = Connection(self, sock, index)
            script = self.scripts[index] if index < len(self.scripts) else self.then
            name = f"server {self.port} connection {index}"
            thread = threading.Thread(target=connection.run, args=(script,), name=name, daemon=True)
            self._threads.append(thread)
            self.connections.append(connection)
            thread.start()

    # Conditions to wait for, in a coroutine; `wait` is for everything else.

    def wait(self, predicate: Callable[[], object], within: float = WITHIN) -> None:
        """Blocks until `predicate()` is true."""
        deadline = time.monotonic() + within
        while not predicate():
            assert time.monotonic() < deadline, f"what the test waits for has not come in {within} s"
            time.sleep(0.001)

    async def accepted(self, count: int) -> None:
        """Waits until `count` connections were accepted."""
        await eventually(lambda: len(self.connections) >= count, f"{count} connections")

    async def requested(self, count: int) -> Request:
        """Waits until `count` requests have arrived; returns the last of them."""
        await eventually(lambda: len(self.requests) >= count, f"{count} requests")
        return self.requests[count - 1]

    async def received(self, index: int) -> None:
        """Waits until connection `index` has sent anything at all."""
        await eventually(lambda: len(self.connections) > index and self.connections[index].received, "a first byte")

    async def closed(self, index: int) -> None:
        """Waits until the client has closed connection `index`."""
        await eventually(
            lambda: len(self.connections) > index and self.connections[index].closed,
            f"the client closes connection {index}",
        )


async def eventually(predicate: Callable[[], object], what: str = "", within: float = WITHIN) -> None:
    """Waits until `predicate()` is true, and fails after `within` seconds."""
    deadline = time.monotonic() + within
    while not predicate():
        assert time.monotonic() < deadline, f"has not come in {within} s: {what or 'what the test waits for'}"
        await asyncio.sleep(0.001)


# === Small things that tests need around servers ===


def reset(sock: socket.socket) -> None:
    """Closes a socket with a RST."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        sock.close()


class ReservedPort:
    """A port that nobody else gets; connecting is refused until a server (with SO_REUSEADDR) listens on it."""

    def __init__(self) -> None:
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind(("127.0.0.1", 0))
        self.port: int = self._sock.getsockname()[1]

    def __enter__(self) -> int:
        return self.port

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    close = __exit__


class BlackHole:
    """A port where connecting neither succeeds nor fails: its queue of pending connections is full."""

    def __enter__(self) -> BlackHole:
        self._sockets = [socket.socket()]
        self._sockets[0].bind(("127.0.0.1", 0))
        self._sockets[0].listen(0)
        address = self._sockets[0].getsockname()
        self.port: int = address[1]
        self.url = f"http://127.0.0.1:{self.port}/events"
        for _ in range(8):  # one is accepted by the kernel; more where a queue is longer than asked
            filler = socket.socket()
            self._sockets.append(filler)
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(address)
            if not select.select([], [filler], [], 0.1)[1]:
                return self
        raise AssertionError("the queue does not fill")

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets:
            sock.close()

    def connecting(self) -> int:
        """How many connections to this port are being tried, besides our own."""
        return sum(row[2].endswith(f":{self.port:04X}") and row[3] == "02" for row in tcp_table()) - 1


def tcp_table() -> list[list[str]]:
    """The kernel's IPv4 connections: column 2 is the peer, 3 the state, 5 the timer (Linux)."""
    return [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
