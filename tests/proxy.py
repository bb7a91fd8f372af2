"""Things that stand between a client and its server: a TCP proxy that cuts, and a small HTTP proxy."""

from __future__ import annotations

import base64
import contextlib
import random
import select
import socket
import threading
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from server import LINGER_0, Connection, Gone, ScriptServer, reset, respond


class CutProxy:
    """Forwards connections to `port` and cuts them.

    cut_after: bytes of the answer after which a connection is cut: one number for all of them, or one per
        connection (None in it, and its end: that connection is left alone).
    seed: cuts every connection after a random number of bytes up to `span`; the same seed, the same numbers.
    how: "reset" (RST), "close" (FIN), or "any" (by turns).
    """

    def __init__(
        self,
        port: int,
        cut_after: int | Iterable[int | None] | None = None,
        *,
        seed: int | None = None,
        span: int = 4096,
        how: str = "any",
    ) -> None:
        self.target, self.how = port, how
        self.connections = 0
        self.cuts = 0
        self.forwarded = 0  # bytes of all answers
        self._limits: Iterable[int | None]
        if seed is not None:
            rng = random.Random(seed)
            self._limits = iter(lambda: rng.randint(0, span), -1)
        elif isinstance(cut_after, int):
            self._limits = iter(lambda: cut_after, -1)
        else:
            self._limits = iter(cut_after or ())
        self._stopping = False
        self._open: dict[threading.Thread, tuple[socket.socket, socket.socket]] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> CutProxy:
        self._acceptor = threading.Thread(target=self._accept, name=f"proxy {self.port}", daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        self._acceptor.join()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def cut(self) -> int:
        """Cuts all connections now; returns how many there were."""
        with self._lock:
            pairs = list(self._open.values())
            for client, upstream in pairs:
                with contextlib.suppress(OSError):
                    if self.how == "reset":
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
                    else:
                        client.shutdown(socket.SHUT_RDWR)
                with contextlib.suppress(OSError):
                    upstream.shutdown(socket.SHUT_RDWR)
            self.cuts += len(pairs)
        return len(pairs)

    def leave_alone(self) -> None:
        """Connections from now on are not cut any more (those that are open keep their limit)."""
        self._limits = iter(())

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._stopping:
                client.close()
                return
            self.connections += 1
            limit = next(iter(self._limits), None)
            graceful = self.how == "close" or (self.how == "any" and self.connections % 2 == 0)
            thread = threading.Thread(
                target=self._forward, args=(client, limit, graceful), name=f"proxy {self.port}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _forward(self, client: socket.socket, limit: int | None, graceful: bool) -> None:
        me = threading.current_thread()
        upstream = socket.socket()
        try:
            upstream.connect(("127.0.0.1", self.target))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open[me] = (client, upstream)
            if self._stopping:
                return
            cut = False
            while not cut:
                ready, _, _ = select.select([client, upstream], [], [])
                for sock in ready:
                    data = sock.recv(65536)
                    if not data:
                        return
                    if sock is client:
                        upstream.sendall(data)
                        continue
                    if limit is not None:
                        data, cut = data[:limit], len(data) >= limit
                        limit -= len(data)
                    self.forwarded += len(data)
                    client.sendall(data)
            self.cuts += 1
            if not graceful:
                reset(client)
        except OSError:
            reset(client)
        finally:
            with self._lock:
                self._open.pop(me, None)
            client.close()
            upstream.close()


def http_proxy(user: str = "", password: str = "", **options: Any) -> ScriptServer:
    """An HTTP proxy: forwards absolute-form requests, tunnels CONNECT, and records both as any ScriptServer does."""
    expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() if user else None

    def play(connection: Connection) -> Any:
        request = connection.request
        if request["proxy-authorization"] != expected:
            return respond(407, "no entry", proxy_authenticate="Basic", connection="close")
        if request.method == "CONNECT":
            host, _, port = request.target.rpartition(":")
            first = b""
        else:
            scheme, _, rest = request.target.partition("://")
            authority, slash, path = rest.partition("/")
            assert scheme == "http", request
            parts = urlsplit(f"//{authority}")
            host, port = parts.hostname or "", str(parts.port or "")
            kept = [f"{k}: {v}" for k, v in request.headers if k not in ("proxy-authorization", "connection")]
            lines = [f"{request.method} {slash}{path} HTTP/1.1", *kept, "connection: close"]
            first = "\r\n".join(lines).encode() + b"\r\n\r\n" + request.body
        with socket.create_connection((host.strip("[]"), int(port or 80)), 5) as upstream:
            upstream.sendall(first)
            if not first:
                connection.send("HTTP/1.1 200 Connection established\r\n\r\n")
            _splice(connection, upstream)
        return None

    return ScriptServer(then=[play], **options)


def _splice(connection: Connection, upstream: socket.socket) -> None:
    while True:
        ready, _, _ = select.select([connection.sock, upstream], [], [], 0.05)
        if connection.stopping.is_set():
            raise Gone
        for sock in ready:
            if sock is upstream:
                data = upstream.recv(65536)
                if not data:
                    return
                connection.send(data)
            else:
                upstream.sendall(connection.recv())
