"""A server that keeps dropping its connections, and a client that reads through it: `python3 docs/demo.py`.

Both run in this process, over loopback. Ends by itself in a few seconds; the exit code is 1 if an event was lost or
came twice.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sse import TRANSIENT, SSEHTTPError, connect

EVENTS = [(str(number), f"caf\u00e9 number {number}") for number in range(1, 37)]  # (id, data)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PACE = 0.04  # seconds between two events

# What befalls connection 1, 2, 3, ...: how many events it carries, and how it ends; later ones carry all that is left.
TROUBLES = [
    (5, "clean end"),
    (4, "reset"),
    (3, "cut in an event"),
    (0, "no answer"),
    (5, "cut in a character"),
    (0, "503"),
    (6, "silence"),
    (4, "reset"),
    (3, "cut in an event"),
    (2, "clean end"),
]


# === The server ===


class Server:
    """Serves one connection after another in a thread; `connections` counts them."""

    def __init__(self) -> None:
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(1)

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:  # closed
                return
            with connection, contextlib.suppress(OSError):  # the client may go any time
                self.answer(connection)

    def answer(self, connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            data = connection.recv(4096)
            if not data:
                return
            request += data
        last_event_id = 0
        for line in request.decode().split("\r\n"):
            name, _, value = line.partition(":")
            if name.lower() == "last-event-id":
                last_event_id = int(value)

        count, ending = (TROUBLES[self.connections :] or [(len(EVENTS), "clean end")])[0]
        self.connections += 1
        left = EVENTS[last_event_id:]
        if not left:
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        if ending == "503":
            connection.sendall(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy")
            return
        if ending == "no answer":
            return

        connection.sendall(HEAD + chunk(b"retry: 100\n\n"))
        for number, data in left[:count]:
            connection.sendall(chunk(encode(number, data)))
            time.sleep(PACE)
        self.lose(connection, ending, encode(*left[count]) if count < len(left) else b"")

    def lose(self, connection: socket.socket, ending: str, following: bytes) -> None:
        if ending == "clean end":
            connection.sendall(b"0\r\n\r\n")
        elif ending == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif ending == "cut in an event":
            connection.sendall(chunk(following[:-3]))
        elif ending == "cut in a character":
            connection.sendall(chunk(following[: following.index("\u00e9".encode()) + 1]))
        elif ending == "silence":
            connection.recv(1)  # until the client has had enough


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked HTTP answer."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def encode(number: str, data: str) -> bytes:
    return f"id: {number}\ndata: {data}\n\n".encode()


# === The client ===


def main() -> int:
    logging.getLogger("sse").addHandler(logging.NullHandler())  # what it would warn of is shown below
    dim, plain = ("\33[2m", "\33[0m") if sys.stdout.isatty() and "NO_COLOR" not in os.environ else ("", "")
    seen: list[tuple[str, str]] = []
    rows = 0  # one for each connection, with the events that it brought
    in_row = False

    def row(response: object = None) -> None:
        nonlocal rows, in_row
        if not in_row:
            rows, in_row = rows + 1, True
            print(f"connection {rows:2}  ", end="", flush=True)

    def lost(cause: BaseException | None, wait: float) -> None:
        nonlocal in_row
        row()
        in_row = False
        why = "the server ended its answer" if cause is None else cause
        if isinstance(cause, SSEHTTPError):
            why = f"HTTP {cause.status_code}, Retry-After: {cause.headers['Retry-After']}"
        print(f"\n    {dim}{why}\n    resuming after event {seen[-1][0]} in {wait:.2f} s{plain}")

    with Server() as server:
        url = f"http://127.0.0.1:{server.port}/"
        print(f"{url} has {len(EVENTS)} events and keeps dropping its connections.\n")
        stream = connect(
            url,
            heartbeat_timeout=0.5,  # seconds of silence: the connection is dead
            retry_statuses=TRANSIENT,  # a 503 will pass
            on_open=row,
            on_reconnect=lost,
            proxy=False,  # whatever the environment says: this is loopback
        )
        watchdog = threading.Timer(9, stream.close)
        watchdog.start()
        with stream as events:
            for event in events:
                seen.append((event.id, event.data))
                print(f"{event.id:>3}", end="", flush=True)
        watchdog.cancel()
        row()
        print("HTTP 204: there is no more\n")
    missing, doubled = len(set(EVENTS) - set(seen)), len(seen) - len(set(seen))
    print(f"{len(seen)} events, {server.connections} connections, lost {missing}, doubled {doubled}")
    return 0 if seen == EVENTS else 1


if __name__ == "__main__":
    sys.exit(main())
