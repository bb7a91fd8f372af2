"""The fault suite, TLS: certificates of either side, and connections that break off in the handshake or after it."""

# ruff: noqa: SIM117 - the server outlives the block in which the client is to raise

from __future__ import annotations

import datetime as dt
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

import httpclient
import sse
from drivers import QUICK, causes, certificate_errors
from proxy import http_proxy
from server import (
    CHUNKED,
    CLOSE,
    END_CHUNK,
    HOLD,
    RAW,
    RECV,
    RESET,
    SSE,
    ScriptServer,
    chunk,
    event,
    eventually,
    head,
    redirect,
    respond,
)
from test_network import ONCE, at_once, fin_without_close_notify, name_server

STREAM = [SSE + event(1), HOLD]
DAY = dt.timedelta(days=1)


def context(certificate: Any) -> ssl.SSLContext:
    """A server's context with one certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(made)
    return made


# === Certificates of the server ===


def expired(ca: Any) -> ssl.SSLContext:
    now = dt.datetime.now(dt.timezone.utc)
    return context(ca.issue_cert("127.0.0.1", not_before=now - 2 * DAY, not_after=now - DAY))


def not_yet_valid(ca: Any) -> ssl.SSLContext:
    now = dt.datetime.now(dt.timezone.utc)
    return context(ca.issue_cert("127.0.0.1", not_before=now + DAY, not_after=now + 2 * DAY))


def of_another_authority(_: Any) -> ssl.SSLContext:
    return context(trustme.CA().issue_cert("127.0.0.1"))


def of_another_name(ca: Any) -> ssl.SSLContext:
    return context(ca.issue_cert("stream.example"))


def of_another_address(ca: Any) -> ssl.SSLContext:
    return context(ca.issue_cert("127.0.0.2"))


def of_a_name_like_the_address(ca: Any) -> ssl.SSLContext:
    """The address as a name is not the address."""
    return context(ca.issue_cert("x127.0.0.1", "127.0.0.1.example"))


def with_the_name_as_common_name(ca: Any) -> ssl.SSLContext:
    return context(ca.issue_cert("stream.example", common_name="127.0.0.1"))


BAD: list[tuple[Callable[[Any], ssl.SSLContext], str]] = [
    (expired, "expired"),
    (not_yet_valid, "not yet valid"),
    (of_another_authority, "unable to get local issuer|self.signed"),
    (of_another_name, "IP address mismatch"),
    (of_another_address, "IP address mismatch"),
    (of_a_name_like_the_address, "IP address mismatch"),
    (with_the_name_as_common_name, "IP address mismatch"),
]
bad_certificates = pytest.mark.parametrize(("make", "text"), BAD, ids=[make.__name__ for make, _ in BAD])


@bad_certificates
@pytest.mark.parametrize("way", ["directly", "by a redirect", "through a tunnel", "after a loss"])
async def test_certificate_that_does_not_verify_is_fatal(
    driver: Any, make: Any, text: str, way: str, authority: Any
) -> None:
    """At once, wherever it turns up, and not one byte of the request goes to whoever has it."""
    options = {"verify": authority.client(), "headers": {"X-Api-Key": "s3cret"}, **QUICK}
    with ScriptServer(then=STREAM, tls=make(authority.ca)) as bad, http_proxy() as proxy:
        scripts = {"by a redirect": [redirect(bad.url, 307)], "after a loss": [[SSE + event(1)], redirect(bad.url)]}
        with ScriptServer(*scripts.get(way, []), tls=authority.server()) as good:
            url = good.url if way in scripts else bad.url
            events = driver.connect(url, proxy=proxy.origin if "tunnel" in way else None, **options)
            if way == "after a loss":
                assert (await events.next()).data == "1"
            with pytest.raises(ssl.SSLCertVerificationError, match=text), at_once():
                await events.next()
            assert await events.next() is None
        assert len(bad.connections) == 1
        assert not bad.requests
        assert not bad.connections[0].received


@bad_certificates
async def test_plain_request_refuses_it_too(driver: Any, make: Any, text: str, authority: Any) -> None:
    """And verify=False takes it, as it says."""
    with ScriptServer(then=respond(200, "x"), tls=make(authority.ca)) as server:
        with certificate_errors():
            await driver.get(server.url, verify=authority.client())
        assert not server.requests
        async with await driver.get(server.url, verify=False) as reply:
            assert await reply.read() == b"x"


async def test_names_are_verified_as_they_are_asked_for(
    driver: Any, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SNI tells the server which; wildcards cover one label; an address is verified as one."""
    asked: list[Any] = []
    tls = authority.server("stream.example", "*.wild.example", "127.0.0.1")
    tls.sni_callback = lambda _, name, __: asked.append(name)
    good = ["stream.example", "STREAM.example", "a.wild.example", "127.0.0.1"]
    bad = ["a.b.wild.example", "wild.example", "stream.example.evil.example"]
    with ScriptServer(then=STREAM, tls=tls) as server:
        name_server(monkeypatch, lambda: [("127.0.0.1", server.port)])
        for host in [*good, *bad]:
            events = driver.connect(server.url.replace("127.0.0.1", host), verify=authority.client(), **ONCE)
            if host in good:
                assert (await events.next()).data == "1"
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    await events.next()
            await events.close()
        assert len(server.requests) == len(good)
    assert asked == [None if host == "127.0.0.1" else host.lower() for host in [*good, *bad]]


# === Certificates of the client ===


@pytest.fixture(scope="module")
def clients() -> Any:
    """The authority of clients, which is not that of servers."""
    return trustme.CA()


def demanding(authority: Any, clients: Any, version: Any) -> ssl.SSLContext:
    """A server's context that wants a certificate of the client."""
    tls: ssl.SSLContext = authority.server()
    clients.configure_trust(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.maximum_version = version
    return tls


versions = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name
)


@versions
async def test_client_certificate_that_is_wanted_and_given(
    driver: Any, authority: Any, clients: Any, version: Any
) -> None:
    """From the context of `verify`; on every reconnect, and through a tunnel."""
    mine = authority.client()
    clients.issue_cert("me@client.example").configure_cert(mine)
    tls = demanding(authority, clients, version)
    with ScriptServer([SSE + event(1)], [SSE + event(2)], STREAM, tls=tls) as server, http_proxy() as proxy:
        async with driver.connect(server.url, verify=mine, **QUICK) as events:
            assert await events.take(2) == ["1", "2"]
        async with driver.connect(server.url, verify=mine, proxy=proxy.origin) as events:
            assert (await events.next()).data == "1"
        for connection in server.connections:
            assert connection.client_certificate, "the server saw none"


@versions
@pytest.mark.parametrize("given", ["none", "of another authority"])
async def test_client_certificate_that_is_wanted_and_not_given(
    driver: Any, authority: Any, clients: Any, version: Any, given: str
) -> None:
    """The server's alert is a lost connection: max_retries counts, a POST is sent once, no request is answered."""
    mine = authority.client()
    if given != "none":
        trustme.CA().issue_cert("me@client.example").configure_cert(mine)
    with ScriptServer(then=STREAM, tls=demanding(authority, clients, version)) as server:
        for options, attempts in (({"max_retries": 1}, 2), ({"body": "x"}, 1)):
            before = len(server.connections)
            with pytest.raises(sse.SSEConnectionError) as caught:
                await driver.connect(server.url, verify=mine, **{**QUICK, **options}).next()
            assert isinstance(caught.value.last_error, httpclient.HttpConnectionError)
            assert len(server.connections) == before + attempts
        with pytest.raises(httpclient.HttpConnectionError):
            await driver.get(server.url, verify=mine)
        await eventually(lambda: all(connection.tls_error for connection in server.connections))
        assert not server.requests


async def test_versions_that_do_not_meet_are_a_lost_connection(driver: Any, authority: Any) -> None:
    """A server that cannot do better than the client allows."""
    tls = authority.server()
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    mine = authority.client()
    mine.minimum_version = ssl.TLSVersion.TLSv1_3
    with ScriptServer(then=STREAM, tls=tls) as server:
        with pytest.raises(sse.SSEConnectionError) as caught:
            await driver.connect(server.url, verify=mine, **ONCE).next()
        assert any(isinstance(cause, ssl.SSLError) for cause in causes(caught.value))


# === Loss in the handshake ===


def flight(tls: ssl.SSLContext, size: int | None) -> Callable[[Any], None]:
    """A step that answers the ClientHello with the first `size` bytes of what a server would (None: all of it)."""

    def play(connection: Any) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = tls.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(connection.recv())
        try:
            server.do_handshake()
        except ssl.SSLWantReadError:
            connection.send(outgoing.read()[:size])

    return play


HANDSHAKES: dict[str, Callable[[ssl.SSLContext], list[Any]]] = {
    "before the ClientHello": lambda _: [],
    "after the ClientHello": lambda _: [RECV],
    "in the header of a record": lambda tls: [flight(tls, 3)],
    "in the ServerHello": lambda tls: [flight(tls, 40)],
    "in the certificate": lambda tls: [flight(tls, -20)],
    "after the server's flight": lambda tls: [flight(tls, None)],
    "in the client's answer": lambda tls: [flight(tls, None), RECV],
}
handshakes = pytest.mark.parametrize("handshake", HANDSHAKES.values(), ids=HANDSHAKES)


@handshakes
@pytest.mark.parametrize("ending", [RESET, CLOSE], ids=["reset", "close"])
async def test_handshake_that_breaks_off_is_tried_again(
    driver: Any, handshake: Any, ending: Any, authority: Any
) -> None:
    """In every flight: nothing was judged yet, so it is a loss, not a certificate; a POST raises, unsent."""
    tls = authority.server()
    script = [RAW, *handshake(tls), ending]
    with ScriptServer(script, STREAM, tls=tls) as server:
        async with driver.connect(server.url, verify=authority.client(), **QUICK) as events:
            assert (await events.next()).data == "1"
            assert events.stats.retries == 1
        assert len(server.requests) == 1
    with ScriptServer(script, tls=tls) as server:
        with pytest.raises(sse.SSEConnectionError):
            await driver.connect(server.url, verify=authority.client(), body="x", **QUICK).next()
        assert len(server.connections) == 1


@pytest.mark.parametrize("name", ["after the ClientHello", "in the ServerHello", "in the certificate"])
async def test_handshake_that_falls_silent_meets_the_deadline(driver: Any, name: str, authority: Any) -> None:
    """Whatever has come of it."""
    tls = authority.server()
    with ScriptServer([RAW, *HANDSHAKES[name](tls), HOLD], tls=tls) as server:
        with pytest.raises(sse.SSEConnectionError) as caught, at_once(0.15):
            await driver.connect(server.url, verify=authority.client(), timeout=(0.2, 10), **ONCE).next()
        assert isinstance(caught.value.last_error, httpclient.HttpTimeoutError)
        await server.closed(0)


GARBAGE: dict[str, Any] = {
    "plain HTTP": "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "zeros": b"\0" * 100,
    "a huge record": b"\x16\x03\x03\xff\xff" + b"x" * 1000,
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "a warning without end": b"\x15\x03\x03\x00\x02\x01\x5a" * 50,
    "application data": b"\x17\x03\x03\x00\x05hello",
    "SSLv2": b"\x80\x2e\x01\x00\x02" + b"\0" * 40,
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_for_a_handshake_is_a_lost_connection(driver: Any, garbage: Any, authority: Any) -> None:
    """HttpError with the cause, nothing else; and the client comes back."""
    with ScriptServer([RAW, RECV, garbage, CLOSE], STREAM, tls=authority.server()) as server:
        lost: list[Any] = []
        options = {"verify": authority.client(), "on_reconnect": lambda cause, _: lost.append(cause), **QUICK}
        async with driver.connect(server.url, **options) as events:
            assert (await events.next()).data == "1"
        assert [type(cause) for cause in lost] == [httpclient.HttpConnectionError]


async def test_plain_client_at_a_tls_server(driver: Any, authority: Any) -> None:
    """http:// where https:// was meant: a lost connection, no hanging."""
    with ScriptServer(then=STREAM, tls=authority.server()) as server:
        with pytest.raises(sse.SSEConnectionError), at_once():
            await driver.connect(server.url.replace("https:", "http:"), **ONCE).next()


# === Loss in the stream ===


def counted(body: str) -> str:
    return head(content_type="text/event-stream", content_length=len(body)) + body


BODIES: dict[str, tuple[Any, list[str], bool, bool]] = {  # sent; its events; is it whole? is an end there its end?
    "after the head": ([SSE], [], False, True),
    "in an event": ([SSE, event(1), "id: 2\ndata: ha"], ["1"], False, True),
    "in a character": ([SSE.encode() + event(1).encode() + b"data: \xe2\x82"], ["1"], False, True),
    "in a chunk": ([CHUNKED, chunk(event(1)), "9\r\nid: 2"], ["1"], False, False),
    "before its length": ([counted(event(1) + "x")[:-1]], ["1"], False, False),
    "after the last chunk": ([CHUNKED, chunk(event(1)), END_CHUNK], ["1"], True, True),
    "after its length": ([counted(event(1))], ["1"], True, True),
}
ENDINGS: dict[str, Any] = {
    "close_notify": CLOSE,
    "FIN alone": fin_without_close_notify,
    "reset": RESET,
    "garbled record": lambda connection: garble(connection),
}


def garble(connection: Any) -> list[Any]:
    """What somebody on the way may have done to a record; then nothing more."""
    socket.socket.send(connection.sock, b"\x17\x03\x03\x00\x20" + b"\0" * 32)  # past the TLS layer
    return [HOLD]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
async def test_tls_stream_that_breaks_off(driver: Any, body: Any, ending: Any, authority: Any) -> None:
    """Only close_notify ends a body that has no length; what is whole is whole, however the connection ends then."""
    sent, data, whole, ends = body
    clean = whole or (ends and ending is CLOSE)
    mine = authority.client()
    with ScriptServer(then=[*sent, ending], tls=authority.server()) as server:
        events = driver.connect(server.url, verify=mine, body="x", **QUICK)
        assert await events.take(len(data)) == data
        if clean:
            assert await events.next() is None
        else:
            with pytest.raises(sse.SSEConnectionError):
                await events.next()
        await events.close()
        assert len(server.requests) == 1
        if clean:
            await (await driver.get(server.url, verify=mine)).read()
        else:
            with pytest.raises(httpclient.HttpError):
                await driver.get(server.url, verify=mine)
    lost: list[Any] = []
    with ScriptServer([*sent, ending], then=[SSE + event("n", "next"), HOLD], tls=authority.server()) as server:
        options = {"verify": mine, "on_reconnect": lambda cause, _: lost.append(cause), **QUICK}
        async with driver.connect(server.url, **options) as events:
            assert await events.all_until("next") == data
        assert [cause is None for cause in lost] == [clean]


async def test_vanishing_authority_is_not_asked_for_again(driver: Any, tmp_path: Path, authority: Any) -> None:
    """The context is made once per client: what changes on the disk later does not matter to its reconnects."""
    bundle = tmp_path / "ca.pem"
    authority.ca.cert_pem.write_to_path(bundle)
    mine = ssl.create_default_context(cafile=str(bundle))
    with ScriptServer([SSE + event(1)], [SSE + event(2), HOLD], tls=authority.server()) as server:
        async with driver.connect(server.url, verify=mine, **QUICK) as events:
            assert (await events.next()).data == "1"
            bundle.unlink()
            assert (await events.next()).data == "2"
