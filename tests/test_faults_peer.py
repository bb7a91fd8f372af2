"""The fault suite, networks: peers that vanish without a FIN, routes that drop, addresses that change or are silent.

These tests lay a cable between two network namespaces of their own: the client lives in one, the server in the other.
That takes root and Debian's iproute2; without them they skip with the reason, and fail under CI.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import httpclient
import sse
from drivers import QUICK, causes
from server import CLOSE, HOLD, RAW, RECV, RESET, SSE, BlackHole, ReservedPort, ScriptServer, event, eventually, respond
from test_network import ONCE, at_once

CLIENT, OTHER_CLIENT, SERVER = "10.77.0.1", "10.77.0.3", "10.77.0.2"
SILENCE = 0.2
"""Seconds of silence, or of an opening, that are taken for a vanished peer here."""
PATIENT: dict[str, Any] = {**QUICK, "timeout": SILENCE, "max_retry_interval": 100}
"""Options of a client whose openings may each take SILENCE: whoever waits for a network tries often."""
CLONE_NEWNET = 0x40000000


class Cable:
    """Two network namespaces with a cable between them. This thread is in the client's while a test runs."""

    def __init__(self) -> None:
        self.client, self.server_side = (f"sse-test-{side}-{os.getpid()}" for side in "ab")
        self._stack = contextlib.ExitStack()
        self._setns = ctypes.CDLL(None, use_errno=True).setns
        self._files: dict[str, int] = {}
        try:
            for name in (self.client, self.server_side):
                self.ip("netns", "add", name)
                self._stack.callback(self.ip, "netns", "del", name)
                self._open(name, f"/run/netns/{name}")
            self._open("home", "/proc/self/ns/net")
            self.ip(
                "-n", self.client, "link", "add", "va", "type", "veth", "peer", "name", "vb", "netns", self.server_side
            )
            for name, device, address in ((self.client, "va", CLIENT), (self.server_side, "vb", SERVER)):
                self.ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
                for each in (device, "lo"):
                    self.ip("-n", name, "link", "set", each, "up")
            self.enter("home")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stack.close()

    def _open(self, name: str, path: str) -> None:
        self._files[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._stack.callback(os.close, self._files[name])

    @staticmethod
    def ip(*args: str) -> None:
        """`ip ...`; an error tells what it said."""
        done = subprocess.run(["ip", *args], capture_output=True, text=True, check=False, timeout=10)
        if done.returncode:
            raise OSError(f"ip {' '.join(args)}: {done.stderr.strip()}")

    def enter(self, name: str) -> None:
        """Moves this thread into a namespace; threads that it starts are born there."""
        if self._setns(self._files[name], CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")

    @contextlib.contextmanager
    def server(self, *scripts: Any, **options: Any) -> Iterator[ScriptServer]:
        """A server at the other end."""
        self.enter(self.server_side)
        try:
            made = ScriptServer(*scripts, **{"host": SERVER, **options})
        finally:
            self.enter(self.client)
        with made:
            try:
                yield made
            finally:
                self.mend()  # what stops the server goes over the cable

    # What happens to networks. `mend` makes everything as it was.

    def unplug(self) -> None:
        """The cable is pulled at the other end: packets go nowhere, and nobody says so."""
        self.ip("-n", self.server_side, "link", "set", "vb", "down")

    def drop(self) -> None:
        """The other end gets our packets, and its own to us are dropped: a route or a firewall rule has gone wrong."""
        self.ip("-n", self.server_side, "route", "add", "blackhole", f"{CLIENT}/32")

    def mend(self) -> None:
        self.ip("-n", self.server_side, "link", "set", "vb", "up")
        for name in (self.client, self.server_side):
            for kind in ("blackhole", "unreachable", "prohibit"):
                for address in (CLIENT, SERVER):
                    with contextlib.suppress(OSError):
                        self.ip("-n", name, "route", "del", kind, f"{address}/32")


@pytest.fixture(scope="module")
def network(need: Callable[[str, str], str]) -> Iterator[Cable]:
    need("iproute2", "ip")
    try:
        made = Cable()
    except OSError as error:
        reason = f"no right to make network namespaces: {error}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    yield made
    made.close()


@pytest.fixture
def cable(network: Cable) -> Iterator[Cable]:
    """The test, with all its threads and sockets, is at one end of the cable."""
    network.enter(network.client)
    yield network
    network.enter("home")


def numbered(connection: Any) -> Any:
    """Events after the one that the client had last, one a connection; the stream stays open."""
    return [SSE + event(int(connection.request["last-event-id"] or 0) + 1), HOLD]


# === A peer that vanishes ===

vanishing = pytest.mark.parametrize("how", ["unplug", "drop"])


@vanishing
async def test_peer_that_vanishes_is_noticed_by_its_silence(driver: Any, cable: Cable, how: str) -> None:
    """heartbeat_timeout ends the read, openings fail in `timeout` each, and when it is back the stream goes on."""
    lost: list[Any] = []
    options = {**PATIENT, "heartbeat_timeout": SILENCE, "on_reconnect": lambda cause, _: lost.append(cause)}
    with cable.server(then=numbered) as server:
        async with driver.connect(server.url, **options) as events:
            assert (await events.next()).data == "1"
            getattr(cable, how)()
            pending = events.start_next()
            await eventually(lambda: len(lost) >= 3)  # the read, and two openings
            assert not pending.done()
            cable.mend()
            assert (await pending).data == "2"
            assert events.stats.retries == len(lost)
        assert all(isinstance(cause, httpclient.HttpError) for cause in lost)
        assert isinstance(lost[0], httpclient.HttpTimeoutError)
        assert {request["last-event-id"] for request in server.requests[1:]} == {"1"}


async def test_peer_that_vanishes_is_noticed_by_keep_alive(
    driver: Any, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without heartbeat_timeout the kernel asks: after a minute and four probes by default, after two seconds here."""
    quick = [("TCP_KEEPIDLE", 1), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 1)]
    monkeypatch.setattr(httpclient, "KEEPALIVE", quick)
    with cable.server(then=numbered) as server:
        streams = [driver.connect(server.url, **options, **ONCE) for options in ({}, {"body": "x"})]
        reply = await driver.get(server.url, stream=True)
        pieces = reply.iter_bytes()
        assert await anext(pieces)
        for events in streams:
            assert (await events.next()).data == "1"
        cable.unplug()

        async def lost(events: Any) -> None:
            with pytest.raises(sse.SSEConnectionError) as caught:
                await events.next()
            assert any(isinstance(cause, OSError) for cause in causes(caught.value))

        async def broken() -> None:
            with pytest.raises(httpclient.HttpConnectionError):
                await anext(pieces)

        try:
            with at_once(1.5, 8):
                await asyncio.gather(*map(lost, streams), broken())
        finally:
            await asyncio.gather(reply.close(), *[events.close() for events in streams])


async def test_peer_that_has_forgotten_the_connection(
    driver: Any, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was restarted while the cable was out: the kernel's next question is answered by a RST."""
    monkeypatch.setattr(httpclient, "KEEPALIVE", [("TCP_KEEPIDLE", 1), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 9)])
    lost: list[Any] = []
    gone = threading.Event()
    with cable.server([SSE + event(1), gone, RESET], then=numbered) as server:
        async with driver.connect(server.url, on_reconnect=lambda cause, _: lost.append(cause), **QUICK) as events:
            assert (await events.next()).data == "1"
            cable.unplug()
            gone.set()
            await eventually(lambda: server.connections[0].ended)  # the RST of this went nowhere
            cable.mend()
            with at_once(0.2, 8):
                assert (await events.next()).data == "2"
        assert [type(cause) for cause in lost] == [httpclient.HttpConnectionError]


async def test_cable_that_is_out_for_a_moment_is_not_noticed(driver: Any, cable: Cable) -> None:
    """TCP sends again what was lost meanwhile."""
    go = threading.Event()
    with cable.server([SSE + event(1), go, event(2), HOLD]) as server:
        async with driver.connect(server.url, heartbeat_timeout=20) as events:
            assert (await events.next()).data == "1"
            cable.unplug()
            pending = events.start_next()
            go.set()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(pending), 0.05)
            cable.mend()
            assert (await pending).data == "2"
        assert len(server.connections) == 1


@pytest.mark.parametrize("state", ["connecting", "shaking hands", "waiting for a tunnel", "waiting for the head"])
async def test_peer_that_vanishes_while_opening_meets_the_deadline(driver: Any, cable: Cable, state: str) -> None:
    """What is never answered is given up at `timeout`; the client comes back, and a POST does not."""
    script = [RAW, RECV, HOLD] if state == "shaking hands" else [HOLD]
    for options in ({}, {"body": "x"}):
        lost: list[Any] = []
        with cable.server(script, then=numbered) as server:
            url, more = server.url, {"verify": False, **options}
            if state == "shaking hands":
                url = url.replace("http:", "https:")
            if state == "waiting for a tunnel":
                url, more["proxy"] = "https://stream.example/", server.origin

            def on_reconnect(cause: Any, _: float) -> None:
                lost.append(cause)  # noqa: B023
                raise Vanished

            events = driver.connect(url, on_reconnect=on_reconnect, timeout=SILENCE, **more)
            if state == "connecting":
                cable.unplug()
            pending = events.start_next()
            if state != "connecting":  # or the deadline was there before
                await eventually(lambda: pending.done() or any(c.received for c in server.connections))  # noqa: B023
            cable.unplug()
            with at_once(), pytest.raises(sse.SSEConnectionError if options else Vanished) as caught:
                await pending
            cause = caught.value.__cause__ if options else lost[0]
            assert isinstance(cause, httpclient.HttpTimeoutError)
            await events.close()


class Vanished(Exception):  # noqa: N818
    """Raised by on_reconnect, to end a client at its first loss."""


@pytest.mark.parametrize("state", ["reading", "connecting", "waiting for the head"])
@pytest.mark.parametrize("action", ["close", "restart", "cancel"])
async def test_vanished_peer_holds_nobody_up(driver: Any, cable: Cable, state: str, action: str) -> None:
    """close(), restart() and a cancellation do not wait for packets that nobody answers; no socket stays."""
    with cable.server(numbered if state == "reading" else [HOLD], then=numbered) as server:
        events = driver.connect(server.url, timeout=60)
        if state == "reading":
            assert (await events.next()).data == "1"
        if state == "connecting":
            cable.unplug()
        pending = events.start_next()
        if state == "waiting for the head":
            await server.requested(1)
        cable.unplug()
        with at_once():
            if action == "restart":
                await events.restart()
            elif action == "cancel":
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(asyncio.shield(pending), 0.02)
                pending.cancel()
            await events.close()
            await asyncio.wait({pending})
        assert pending.cancelled() or pending.result() is None


# === Routes and addresses ===


@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole"])
async def test_route_that_fails_is_waited_for(driver: Any, cable: Cable, kind: str) -> None:
    """connect() fails at once, each with an error of its own: lost connections all."""
    lost: list[Any] = []

    def on_reconnect(cause: Any, _: float) -> None:
        lost.append(cause)
        if len(lost) == 2:
            cable.mend()

    with cable.server(then=numbered) as server:
        cable.ip("-n", cable.client, "route", "add", kind, f"{SERVER}/32")
        async with driver.connect(server.url, on_reconnect=on_reconnect, **QUICK) as events:
            assert (await events.next()).data == "1"
        assert len(lost) == 2
    assert all(isinstance(cause.__cause__, OSError) for cause in lost)


async def test_address_that_changes_costs_one_reconnect(driver: Any, cable: Cable) -> None:
    """A laptop that moves to another network: the old connection is dead, the next comes from the new address."""
    with cable.server(then=numbered) as server:
        async with driver.connect(server.url, heartbeat_timeout=SILENCE, **QUICK) as events:
            assert (await events.next()).data == "1"
            cable.ip("-n", cable.client, "addr", "del", f"{CLIENT}/24", "dev", "va")
            try:
                cable.ip("-n", cable.client, "addr", "add", f"{OTHER_CLIENT}/24", "dev", "va")
                assert (await events.next()).data == "2"
                peers = [connection.sock.getpeername()[0] for connection in server.connections[1:2]]
                assert peers == [OTHER_CLIENT]
            finally:
                cable.ip("-n", cable.client, "addr", "flush", "dev", "va")
                cable.ip("-n", cable.client, "addr", "add", f"{CLIENT}/24", "dev", "va")


async def test_link_local_address_with_its_zone(driver: Any, cable: Cable) -> None:
    """`http://[fe80::2%25va]:port/`: the zone says over which cable, and stays at home."""
    for name, device, address in ((cable.client, "va", "fe80::1:1"), (cable.server_side, "vb", "fe80::1:2")):
        cable.ip("-n", name, "addr", "replace", f"{address}/64", "dev", device, "nodad")
    with cable.server([SSE + event(1)], [SSE + event(2), HOLD], host="fe80::1:2%vb") as server:
        url = f"http://[fe80::1:2%25va]:{server.port}/"
        async with driver.connect(url, **ONCE | {"max_retries": 1}) as events:
            assert await events.take(2) == ["1", "2"]
        assert server.requests[0]["host"] == f"[fe80::1:2]:{server.port}"


def addresses(monkeypatch: pytest.MonkeyPatch, *found: tuple[int, Any]) -> None:
    """What the look-up of every name gives: families and addresses."""
    system = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if "example" not in str(host):
            return system(host, port, *args, **kwargs)
        if kwargs.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for family, address in found]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


async def test_ipv6_that_leads_nowhere_leaves_ipv4(driver: Any, cable: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with an AAAA record on a machine without a route for it."""
    with cable.server([SSE + event(1), HOLD]) as server:
        six, four = ("2001:db8::1", server.port, 0, 0), (SERVER, server.port)
        addresses(monkeypatch, (socket.AF_INET6, six), (socket.AF_INET, four))
        async with driver.connect("http://two.example/", **ONCE) as events:
            assert (await events.next()).data == "1"


async def test_silent_address_leaves_time_for_the_next(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two swallows every SYN: the second is tried within the same deadline."""
    with BlackHole() as hole, ScriptServer(then=[SSE + event(1), HOLD]) as server:
        addresses(
            monkeypatch,
            *[(socket.AF_INET, ("127.0.0.1", port)) for port in (hole.port, server.port)],
        )
        async with driver.connect("http://two.example/", timeout=1, **ONCE) as events:
            assert (await events.next()).data == "1"


@pytest.mark.parametrize("count", [2, 20])
async def test_every_address_is_tried_before_it_is_a_loss(
    driver: Any, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order; the last of many will do, and if none answers it is one loss, not many."""
    with ReservedPort() as closed, ScriptServer([SSE + event(1), CLOSE]) as server:
        refusing = [(socket.AF_INET, ("127.0.0.1", closed))] * (count - 1)
        addresses(monkeypatch, *refusing, (socket.AF_INET, ("127.0.0.1", server.port)))
        async with driver.connect("http://many.example/", **ONCE) as events:
            assert (await events.next()).data == "1"
        addresses(monkeypatch, *refusing)
        with pytest.raises(sse.SSEConnectionError) as caught:
            await driver.connect("http://none.example/", **{**QUICK, "max_retries": 1}).next()
        assert caught.value.retries == 1


async def test_answer_of_the_second_address_over_tls_is_verified_by_name(
    driver: Any, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which address answers makes no difference to the certificate."""
    with ReservedPort() as closed, ScriptServer(then=respond(200, "x"), tls=authority.server("two.example")) as server:
        ports = (closed, server.port)
        addresses(monkeypatch, *[(socket.AF_INET, ("127.0.0.1", port)) for port in ports])
        async with await driver.get("https://two.example/", verify=authority.client()) as reply:
            assert await reply.read() == b"x"
        with pytest.raises(httpclient.HttpConnectionError, match="verify failed"):
            await driver.get("https://other.example/", verify=authority.client())
