"""The fault suite, answers and requests: refused answers, redirects, proxies, malformed HTTP, injection, limits."""

# ruff: noqa: SIM117 - the server outlives the block in which the client is to raise

from __future__ import annotations

import base64
import contextlib
import gzip
import pickle
import socket
import threading
from typing import Any

import pytest

import httpclient
import sse
from drivers import QUICK, causes
from proxy import http_proxy
from server import (
    CHUNKED,
    CLOSE,
    END_CHUNK,
    HOLD,
    READ,
    RECV,
    RESET,
    SSE,
    ReservedPort,
    ScriptServer,
    chunk,
    drip,
    each,
    endless,
    event,
    eventually,
    head,
    redirect,
    respond,
)
from test_network import BAD_HEADS, ONCE, Stop, at_once, name_server

STREAM = [SSE + event(1), HOLD]


# === Refused answers, whatever their body is ===

KIB64 = 65536
PACKED = gzip.compress(b"why it went wrong")


def refused(body: Any, framing: str = "length", **headers: Any) -> Any:
    """Headers and steps of an answer that is to be refused."""
    data = body.encode() if isinstance(body, str) else body
    if framing == "length":
        return {"content_length": len(data), **headers}, [data]
    if framing == "chunked":
        return {"transfer_encoding": "chunked", **headers}, [chunk(data), END_CHUNK]
    return headers, [data, CLOSE]


# What the server sends, and what `.body` then is: a text, or what is true of it.
BODIES: dict[str, tuple[Any, Any]] = {
    "empty": (refused(""), ""),
    "empty, chunked": (({"transfer_encoding": "chunked"}, [END_CHUNK]), ""),
    "empty, up to the close": (({}, [CLOSE]), ""),
    "text": (refused("why it went wrong"), "why it went wrong"),
    "text, chunked": (refused("why it went wrong", "chunked"), "why it went wrong"),
    "text, up to the close": (refused("why it went wrong", "close"), "why it went wrong"),
    "compressed": (refused(PACKED, content_encoding="gzip"), "why it went wrong"),
    "compressed, chunked": (refused(PACKED, "chunked", content_encoding="gzip"), "why it went wrong"),
    "compressed, cut": (refused(PACKED[:-8], content_encoding="gzip"), "why it went wrong"),
    "not what its coding says": (refused("why", content_encoding="gzip"), ""),
    "a bomb": (refused(gzip.compress(b"x" * 5_000_000), content_encoding="gzip"), lambda body: set(body) == {"x"}),
    "cut before its length": (({"content_length": 99}, ["why it", CLOSE]), "why it"),
    "cut in a chunk": (({"transfer_encoding": "chunked"}, [chunk("why it"), "9\r\nwe", CLOSE]), "why itwe"),
    "a malformed chunk": (({"transfer_encoding": "chunked"}, [chunk("why it"), "-1\r\n"]), "why it"),
    "reset at once": (({"content_length": 99}, [RESET]), ""),
    "not UTF-8": (refused(b"gr\xfc\xdfe \xff"), "gr\ufffd\ufffde \ufffd"),
    "control characters": (refused("\x1b[31mred\r\nX: y\0\x07"), "\x1b[31mred\r\nX: y\0\x07"),
    "one byte under the limit": (refused("x" * (KIB64 - 1)), "x" * (KIB64 - 1)),
    "at the limit": (refused("x" * KIB64), "x" * KIB64),
    "one byte over the limit": (refused("x" * (KIB64 + 1)), "x" * KIB64),
    "a character cut by the limit": (refused("x" * (KIB64 - 1) + "ü"), "x" * (KIB64 - 1) + "\ufffd"),
    "endless chunks": (({"transfer_encoding": "chunked"}, [endless(chunk("x" * 5000))]), "x" * KIB64),
    "endless trailers": (({"transfer_encoding": "chunked"}, [chunk("why"), "0\r\n", endless("X: y\r\n" * 500)]), "why"),
}


@pytest.mark.parametrize("case", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("kind", ["status", "content type"])
async def test_refused_answer_is_told_whatever_its_body(driver: Any, case: Any, kind: str) -> None:
    """One request, one error, with as much of the body as there is; its text is one line, and it pickles."""
    (headers, steps), body = case
    status = 401 if kind == "status" else 200
    with ScriptServer(then=[head(status, content_type="text/html", **headers), *steps]) as server:
        with pytest.raises((sse.SSEHTTPError, sse.SSEContentTypeError)) as caught, at_once():
            await driver.connect(server.url + "?key=s3cret", **QUICK).next()
        error: Any = caught.value
        assert type(error) is (sse.SSEHTTPError if kind == "status" else sse.SSEContentTypeError)
        assert body(error.body) if callable(body) else error.body == body
        assert len(error.body) <= KIB64
        text = str(error)
        assert text.isprintable()
        assert len(text) < 1000
        assert "s3cret" not in text
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), copy.body, str(copy)) == (type(error), error.body, text)
        await eventually(lambda: server.connections[0].ended or server.connections[0].closed)
        assert len(server.connections) == 1


@pytest.mark.parametrize("coding", ["br", "gzip, br", "deflate"])
@pytest.mark.parametrize("status", [401, 404, 500])
async def test_coding_that_nobody_asked_for_does_not_hide_the_status(driver: Any, status: int, coding: str) -> None:
    """A body that cannot be read is no reason to come back: the status is final."""
    with ScriptServer(then=respond(status, "\x00\x01", content_encoding=coding)) as server:
        with pytest.raises(sse.SSEHTTPError, match=str(status)):
            await driver.connect(server.url, **{**QUICK, "max_retries": 1}).next()
        assert len(server.requests) == 1


async def test_coding_that_nobody_asked_for_does_not_hide_a_204(driver: Any) -> None:
    with ScriptServer(then="HTTP/1.1 204 No Content\r\nContent-Encoding: br\r\n\r\n") as server:
        assert await driver.connect(server.url, **{**QUICK, "max_retries": 1}).all() == []
        assert len(server.requests) == 1


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "deflate"])
async def test_stream_in_a_coding_that_nobody_asked_for_is_a_loss(driver: Any, coding: str) -> None:
    """It could only be guessed at."""
    bad = [head(content_type="text/event-stream", content_encoding=coding), "\x00\x01", HOLD]
    with ScriptServer(bad, STREAM) as server:
        async with driver.connect(server.url, **QUICK) as events:
            assert (await events.next()).data == "1"
        assert len(server.requests) == 2


@pytest.mark.parametrize("status", [201, 206, 226, 299])
async def test_any_2xx_with_the_right_type_is_a_stream(driver: Any, status: int) -> None:
    with ScriptServer([head(status, content_type="text/event-stream"), event(1), HOLD]) as server:
        async with driver.connect(server.url) as events:
            assert (await events.next()).data == "1"


@pytest.mark.parametrize("status", [300, 304, 305, 399, 407, 418, 451, 505, 511, 599, 600, 999])
async def test_any_other_status_ends_the_client(driver: Any, status: int) -> None:
    """Known or not, with the type of a stream or without: asked once, told once."""
    answer = head(status, content_type="text/event-stream", content_length=0 if status != 304 else None)
    with ScriptServer(then=answer) as server:
        with pytest.raises(sse.SSEHTTPError, match=str(status)):
            await driver.connect(server.url, **QUICK).next()
        assert len(server.requests) == 1


# === Malformed answers ===


@pytest.mark.parametrize("bad", BAD_HEADS.items(), ids=BAD_HEADS)
async def test_every_malformed_head_is_a_lost_connection(driver: Any, bad: tuple[str, str]) -> None:
    """A stream comes back after it, and nothing of it is taken for an event; a POST raises, once."""
    name, answer = bad
    steps = [endless(answer)] if name == "endless 1xx" else [answer.replace("hello", event("evil"))]
    lost: list[Any] = []
    with ScriptServer(steps, STREAM) as server:
        async with driver.connect(server.url, on_reconnect=lambda cause, _: lost.append(cause), **QUICK) as events:
            assert (await events.next()).data == "1"
        assert len(server.requests) == 2
    assert isinstance(lost[0], httpclient.HttpError)
    with ScriptServer(steps) as server:
        with pytest.raises(sse.SSEConnectionError):
            await driver.connect(server.url, body="x", **QUICK).next()
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "surplus",
    [respond(200, "evil"), "HTTP/1.1 200 OK\r\n", "\r\n", "x", SSE + event("evil")],
    ids=["answer", "line", "empty line", "byte", "stream"],
)
@pytest.mark.parametrize("when", ["with the body", "while idle"])
async def test_what_a_server_sends_unasked_is_no_answer(driver: Any, surplus: Any, when: str) -> None:
    """A kept connection on which anything more has come is given up: no answer is taken for another request's."""
    body = [CHUNKED.encode() + chunk(event(1)) + END_CHUNK.encode()]
    ready, sent = threading.Event(), threading.Event()

    def on_reconnect(*_: Any) -> None:
        ready.set()
        assert when == "with the body" or sent.wait(10)  # over loopback, what was sent has arrived

    if when == "with the body":
        script = [body[0] + (surplus if isinstance(surplus, bytes) else surplus.encode()), READ, SSE, HOLD]
    else:
        script = [body, ready, surplus, lambda _: sent.set(), HOLD]
    with ScriptServer(script, [SSE + event(2), HOLD]) as server:
        async with driver.connect(server.url, on_reconnect=on_reconnect, **QUICK) as events:
            assert await events.take(2) == ["1", "2"]
        assert len(server.connections) == 2


# === Redirects ===

LOCATIONS = {
    "/next": "/next",
    "next": "/a/next",
    "./next": "/a/next",
    "../next": "/next",
    "?q=1": "/a/events?q=1",
    "#fragment": "/a/events",
    "": "/a/events",
    "next#fragment": "/a/next",
    "/a b": "/a%20b",
    "/ü?ö": "/%C3%BC?%C3%B6",
    "/%0d%0aX-Evil:%201": "/%0d%0aX-Evil:%201",
    "//{authority}/double": "/double",
    "http://{authority}/absolute": "/absolute",
    "HTTP://{authority}/case": "/case",
    "http://{authority}": "/",
    "http://{authority}?q": "/?q",
    "http://user:pass@{authority}/userinfo": "/userinfo",
    "/http://evil.example/": "/http://evil.example/",
}


@pytest.mark.parametrize(("location", "target"), LOCATIONS.items(), ids=[ascii(location) for location in LOCATIONS])
@pytest.mark.parametrize("status", [301, 308])
async def test_redirects_lead_where_they_say(driver: Any, location: str, target: str, status: int) -> None:
    """Relative or absolute, with what a header may hold; userinfo in it is not taken up."""
    first = iter([True])

    def answer(request: Any) -> Any:
        if next(first, False):
            return redirect(location.replace("{authority}", server.authority), status)
        return STREAM

    with ScriptServer(then=[each(answer)], path="/a/events") as server:
        async with driver.connect(server.url, headers={"Authorization": "mine"}) as events:
            assert (await events.next()).data == "1"
            assert events.response.url == server.origin + target
        assert [request.target for request in server.requests] == ["/a/events", target]
        assert server.requests[1]["authorization"] == "mine"


@pytest.mark.parametrize(
    "location",
    [
        *("ftp://127.0.0.1:21/", "gopher://127.0.0.1:70/", "ws://127.0.0.1:80/", "file://127.0.0.1:80/etc/passwd"),
        *("unix:///run/x", "data:text/event-stream,data:x", "http://a\\@b/", "https://:80/"),
        *("http://127.0.0.1:x/", "http://127.0.0.1:99999/", "http://127.0.0.1:0/", "http://[::1", "http://a:b:c/"),
    ],
)
async def test_redirects_that_lead_nowhere_end_the_client(driver: Any, location: str) -> None:
    """Refused once and for good, whatever the scheme; nothing is sent anywhere."""
    with ScriptServer(then=redirect(location)) as server:
        with pytest.raises(sse.SSEConnectionError) as caught:
            await driver.connect(server.url, **QUICK).next()
        assert any(isinstance(cause, httpclient.HttpProtocolError) for cause in causes(caught.value))
        assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:21/", "ws://127.0.0.1:80/", "//127.0.0.1:80/", "x://127.0.0.1:1/"])
async def test_other_schemes_with_a_port_are_refused(driver: Any, url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        await driver.get(url)
    with pytest.raises(ValueError, match="url"):
        await driver.get(url, headers={"Host": "x"})


async def test_body_of_a_redirect_is_not_waited_for(driver: Any) -> None:
    """However long it is."""
    with ScriptServer(STREAM) as target:
        for body in ([head(302, location=target.url), endless("x" * 1000)], [redirect(target.url)[:-2], "\r\n", HOLD]):
            target.scripts = [STREAM] * 9
            with ScriptServer(body) as server, at_once():
                async with driver.connect(server.url) as events:
                    assert (await events.next()).data == "1"
                await server.closed(0)


async def test_redirect_into_a_closed_port_is_a_lost_connection(driver: Any) -> None:
    """The next attempt asks at the original URL again, which may know better by then."""
    with ReservedPort() as port, ScriptServer(redirect(f"http://127.0.0.1:{port}/"), STREAM) as server:
        async with driver.connect(server.url, **QUICK) as events:
            assert (await events.next()).data == "1"
        assert [request.target for request in server.requests] == ["/events"] * 2


@pytest.mark.parametrize("ending", [RESET, CLOSE, "HTTP/1.1 200 OK\r\nX"], ids=["reset", "close", "half a head"])
async def test_loss_behind_a_redirect_starts_again_in_front_of_it(driver: Any, ending: Any) -> None:
    """With the ID of the last event, over each hop."""
    with ScriptServer([SSE + event(1)], [ending], [SSE + event(2), HOLD]) as target:
        with ScriptServer(then=redirect(target.url, 307)) as server:
            async with driver.connect(server.url, **QUICK) as events:
                assert await events.take(2) == ["1", "2"]
            assert len(server.requests) == len(target.requests) == 3
            assert [r["last-event-id"] for r in server.requests] == [None, "1", "1"]


async def test_last_event_id_does_not_follow_to_another_origin(driver: Any) -> None:
    """It is a header like others; only what is on the list goes along."""
    with ScriptServer(then=STREAM) as target, ScriptServer(then=redirect(target.url)) as server:
        async with driver.connect(server.url, last_event_id="s3cret", params={"q": "s3cret-too"}) as events:
            await events.next()
        assert server.requests[0]["last-event-id"] == "s3cret"
        assert b"s3cret" not in target.requests[0].head


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_post_to_another_origin_is_sent_once_each(driver: Any, status: int) -> None:
    """307 and 308 hand method, body and content type on, the others neither; a loss there repeats nothing."""
    with ScriptServer([SSE + event(1), RESET]) as target, ScriptServer(redirect(target.url, status)) as server:
        events = driver.connect(server.url, json={"q": 1}, headers={"X-Api-Key": "k3y"}, **QUICK)
        assert (await events.next()).data == "1"
        with pytest.raises(sse.SSEConnectionError):
            await events.next()
        await events.close()
        (asked,), (followed,) = server.requests, target.requests
        assert (asked.method, asked.body) == ("POST", b'{"q": 1}')
        kept = status in (307, 308)
        assert (followed.method, followed.body) == (("POST", b'{"q": 1}') if kept else ("GET", b""))
        assert followed["content-type"] == ("application/json" if kept else None)
        assert followed["x-api-key"] is None


@pytest.mark.parametrize("hops", [9, 10, 11])
async def test_ten_redirects_across_origins_and_no_more(driver: Any, hops: int) -> None:
    """The limit counts hops, not origins; at one more the client ends for good."""

    def answer(connection: Any) -> Any:
        count = len(one.requests) + len(two.requests)
        other = two if connection.server is one else one
        return redirect(other.url, (301, 302, 303, 307, 308)[count % 5]) if count <= hops else STREAM

    with ScriptServer(then=answer) as one, ScriptServer(then=answer) as two:
        events = driver.connect(one.url, **QUICK)
        if hops <= httpclient.MAX_REDIRECTS:
            assert (await events.next()).data == "1"
        else:
            with pytest.raises(sse.SSEConnectionError, match="redirects"):
                await events.next()
        await events.close()
        assert len(one.requests) + len(two.requests) == min(hops, 10) + 1


# === Proxies ===


def ipv6() -> contextlib.AbstractContextManager[Any]:
    """A server on ::1, or a skip where there is no IPv6."""
    try:
        return ScriptServer(then=STREAM, host="::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")


@pytest.mark.parametrize("target", ["127.0.0.1", "::1"])
async def test_ipv6_proxy_of_a_plain_request(driver: Any, target: str) -> None:
    """Its address, and that of the server, in brackets."""
    with ipv6(), ScriptServer(then=STREAM, host=target) as server:
        with http_proxy("user", "p@ss", host="::1") as proxy:
            through = proxy.origin.replace("//", "//user:p%40ss@")
            assert "[::1]:" in through
            async with driver.connect(server.url, proxy=through) as events:
                assert (await events.next()).data == "1"
            assert proxy.requests[0].target == server.url
            assert proxy.requests[0]["host"] == server.requests[0]["host"] == server.authority


@pytest.mark.parametrize("target", ["127.0.0.1", "::1"])
async def test_ipv6_proxy_of_a_tunnel(driver: Any, target: str, authority: Any) -> None:
    """CONNECT names the server, IPv6 in brackets; the certificate is the server's."""
    with ipv6(), ScriptServer(then=STREAM, host=target, tls=authority.server(target)) as server:
        with http_proxy(host="::1") as proxy:
            async with driver.connect(server.url, proxy=proxy.origin, verify=authority.client()) as events:
                assert (await events.next()).data == "1"
            (asked,) = proxy.requests
            assert (asked.method, asked.target, asked["host"]) == ("CONNECT", server.authority, server.authority)


NO_PROXY = [
    ("*", False),
    ("127.0.0.1", False),
    ("example.org,127.0.0.1", False),
    (" 127.0.0.1 , example.org", False),
    ("127.0.0.1:{port}", False),
    ("127.0.0.1:1", True),
    ("127.0.0.2", True),
    ("27.0.0.1", True),
    ("example.org", True),
    ("", True),
]


@pytest.mark.parametrize(("exempt", "proxied"), NO_PROXY, ids=[repr(exempt) for exempt, _ in NO_PROXY])
@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
async def test_no_proxy_forms_on_the_wire(
    driver: Any, exempt: str, proxied: bool, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is exempt is asked directly, each time anew: the environment may change between two connections."""
    with ScriptServer([SSE + event(1)], then=STREAM) as server, http_proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.origin)
        monkeypatch.setenv(variable, exempt.replace("{port}", str(server.port)))
        async with driver.connect(server.url, **QUICK) as events:
            await events.take(2)
        assert len(proxy.requests) == (2 if proxied else 0)
        assert len(server.requests) == 2


async def test_no_proxy_is_asked_again_for_each_redirect(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a host behind the proxy to one that is exempt, and the proxy's credentials stay with the proxy."""
    with ScriptServer(then=STREAM) as near, ScriptServer(then=redirect(near.url)) as far:
        with http_proxy("user", "p4ss") as proxy:
            monkeypatch.setenv("http_proxy", proxy.origin.replace("//", "//user:p4ss@"))
            monkeypatch.setenv("no_proxy", near.authority)
            async with driver.connect(far.url) as events:
                assert (await events.next()).data == "1"
            assert [request.target for request in proxy.requests] == [far.url]
        secret = base64.b64encode(b"user:p4ss")
        assert all(secret not in request.head for request in (*near.requests, *far.requests))


async def test_https_proxy_of_the_environment_is_a_tunnel(
    driver: Any, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptServer(then=STREAM, tls=authority.server()) as server, http_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        async with driver.connect(server.url, verify=authority.client()) as events:
            assert (await events.next()).data == "1"
        assert [request.method for request in proxy.requests] == ["CONNECT"]


TUNNEL_FAILURES = {
    "refused": [respond(502, "no route")],
    "busy": [respond(503, retry_after=0)],
    "closed": [CLOSE],
    "reset": [RESET],
    "half a head": ["HTTP/1.1 200 Conn"],
    "no HTTP": ["SSH-2.0-OpenSSH_9.2\r\n"],
    "head without end": [endless("HTTP/1.1 200 OK\r\nX: " + "x" * 1000)],
    "data too early": ["HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"],
    "closed in the tunnel": ["HTTP/1.1 200 OK\r\n\r\n", CLOSE],
    "reset in the tunnel": ["HTTP/1.1 200 OK\r\n\r\n", RESET],
    "alert in the tunnel": ["HTTP/1.1 200 OK\r\n\r\n", RECV, "\x15\x03\x01\x00\x02\x02\x28"],
}


@pytest.mark.parametrize("failure", TUNNEL_FAILURES.values(), ids=TUNNEL_FAILURES)
async def test_proxy_that_fails_at_the_tunnel_is_tried_again(driver: Any, failure: Any, authority: Any) -> None:
    """It may have a bad minute; what it says is never taken for the server's answer."""
    with ScriptServer(then=STREAM, tls=authority.server()) as server, http_proxy() as good:
        with ScriptServer(failure, then=good.then) as proxy:
            options = {"proxy": proxy.origin, "verify": authority.client(), **QUICK}
            async with driver.connect(server.url, **options) as events:
                assert (await events.next()).data == "1"
                assert (events.stats.retries, events.stats.connects) == (1, 1)
            assert len(proxy.requests) == 2


async def test_silent_proxy_meets_the_deadline(driver: Any) -> None:
    """Plain or tunnel."""
    with ScriptServer(then=[HOLD]) as proxy:
        for url in ("http://host.example/", "https://host.example/"):
            with pytest.raises(sse.SSEConnectionError), at_once(0.1):
                await driver.connect(url, proxy=proxy.origin, timeout=0.15, **ONCE).next()


async def test_proxy_that_is_not_there_is_waited_for(driver: Any) -> None:
    """Connections to it are refused, then it comes up."""
    with ScriptServer(then=STREAM) as server, ReservedPort() as port, contextlib.ExitStack() as stack:
        started: list[Any] = []

        def on_reconnect(*_: Any) -> None:
            if not started:
                started.append(stack.enter_context(http_proxy(port=port)))

        options = {"proxy": f"http://127.0.0.1:{port}", "on_reconnect": on_reconnect, **QUICK}
        async with driver.connect(server.url, **options) as events:
            assert (await events.next()).data == "1"


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_refusal_of_a_proxy_to_a_plain_request_is_an_answer(driver: Any, status: int) -> None:
    """It cannot be told from the server's: SSEHTTPError, once, with the body and without the credentials."""
    with ScriptServer(then=respond(status, "the proxy says no")) as proxy:
        through = proxy.origin.replace("//", "//us3r:p4ss@")
        with pytest.raises(sse.SSEHTTPError, match="the proxy says no") as caught:
            await driver.connect("http://host.example/", proxy=through, **QUICK).next()
        assert not any(secret in repr(error) for error in causes(caught.value) for secret in ("us3r", "p4ss"))
        assert len(proxy.requests) == 1


# === Injection, and where a URL really leads ===


@pytest.mark.parametrize(
    "bad", ["\r\nX-Evil: 1", "\r\n\r\nGET /evil HTTP/1.1\r\n", "\n", "\0", "\x0b", "\u2028", "\x85"]
)
async def test_nothing_gets_out_of_its_field(driver: Any, bad: str) -> None:
    """params, JSON, userinfo of the URL and of the proxy are encoded: whatever they hold, it is one request."""
    from urllib.parse import quote

    with ScriptServer(then=STREAM) as server:
        userinfo = quote(f"a{bad}b:c{bad}d", safe=":")
        for options in ({"proxy": server.origin.replace("//", f"//{userinfo}@")}, {}):
            url = server.url.replace("//", f"//{userinfo}@")
            async with driver.connect(url, params={f"n{bad}": f"v{bad}"}, json={"k": bad}, **options) as events:
                assert (await events.next()).data == "1"
        assert len(server.requests) == 2
        expected = "Basic " + base64.b64encode(f"a{bad}b:c{bad}d".encode()).decode()
        assert [request["authorization"] for request in server.requests] == [expected] * 2
        assert server.requests[0]["proxy-authorization"] == expected
        assert all(request["x-evil"] is None for request in server.requests)


@pytest.mark.parametrize("last", ["\u2028", "\x85", "\x0b\x0c", "\x1b[31m", "a: b", ": ", "ü" * 20_000, "%0d%0aX: y"])
async def test_ids_of_the_stream_come_back_as_they_were(driver: Any, last: str) -> None:
    """Only CR, LF and NUL could do harm, and no ID has them; the rest is the server's own and goes back to it."""
    with ScriptServer([SSE + event(last)], [SSE + event(2), HOLD]) as server:
        async with driver.connect(server.url, **QUICK) as events:
            await events.take(2)
        sent = dict(line.partition(b": ")[::2] for line in server.requests[1].head.split(b"\r\n"))
        assert sent[b"Last-Event-ID"] == last.encode()
        assert len(server.requests[1].headers) == len(server.requests[0].headers) + 1


# A URL, and what is asked of our server: the target, or None where nothing must reach it.
TRICKS: dict[str, str | None] = {
    "http://127.0.0.1:{port}\\@evil.example/": None,
    "http://evil.example\\@127.0.0.1:{port}/": None,
    "http://evil.example#@127.0.0.1:{port}/": None,
    "http://evil.example?@127.0.0.1:{port}/": None,
    "http://evil.example/@127.0.0.1:{port}/": None,
    "http://evil.example;@127.0.0.1:{port}/": "/",
    "http://a@evil.example@127.0.0.1:{port}/": "/",
    "http://127.0.0.1:{port}#@evil.example/": "/",
    "http://127.0.0.1:{port}?@evil.example/": "/?@evil.example/",
    "http://127.0.0.1:{port}/@evil.example/": "/@evil.example/",
    "http://127.0.0.1:{port}//evil.example/": "//evil.example/",
    "http://127.0.0.1:{port}/http://evil.example/": "/http://evil.example/",
    "http://127.0.0.1:{port}/../../x": "/../../x",
    "http://127.0.0.1:{port}/%2e%2e/x": "/%2e%2e/x",
    "http://127.0.0.1:{port}/%00%0d%0a": "/%00%0d%0a",
    "http://127.0.0.1:{port}/a;b=c?d=e#f": "/a;b=c?d=e",
    "http://127.0.0.1:{port}?": "/",
    "HTTP://127.0.0.1:{port}/": "/",
    "http://127.0.0.1:0{port}/": "/",
    "http://127.0.0.1:{port}:80/": None,
    "http://127.0.0.1:80:{port}/": None,
    "http://[127.0.0.1]:{port}/": None,
    "http://127.0.0.1]:{port}/": None,
    "http://127.0.0.1:+{port}/": None,
    "http://127.0.0.1:-{port}/": None,
    "http://127.0.0.1:{port}_0/": None,
    "http://127.0.0.1: {port}/": None,
    "http://127.0.0.1%3a{port}/": None,
    "http://127.0.0.1%20:{port}/": None,
    "http://127.0.0.1%00:{port}/": None,
    "http://127.0.0.1%2f:{port}/": None,
    "http:127.0.0.1:{port}/": None,
    "http:/127.0.0.1:{port}/": None,
    "http:///127.0.0.1:{port}/": None,
    "://127.0.0.1:{port}/": None,
    "127.0.0.1:{port}/": None,
    " http://127.0.0.1:{port}/": None,
    "http://127.0.0.1:{port}/a b": None,
    "http://127.0.0.1:{port}/\t": None,
    "http://127.0.0.1:{port}/\x7f": None,
    "http://127.0.0.1:{port}/\ud800": None,
    "ht\ntp://127.0.0.1:{port}/": None,
    "http://\u0661\u0662\u0667.0.0.1.evil.example:{port}/": None,
    "http://{port}@evil.example/": None,
}


@pytest.mark.parametrize(("trick", "target"), TRICKS.items(), ids=[ascii(trick) for trick in TRICKS])
async def test_url_tricks(driver: Any, trick: str, target: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files read a URL in the same way: it leads to the host that it names, or is refused before any look-up."""
    looked_up: list[int] = []

    def evil() -> Any:
        looked_up.append(1)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    name_server(monkeypatch, evil)
    with ScriptServer(then=[each(lambda _: respond(200, event("x"), content_type="text/event-stream"))]) as server:
        url = trick.replace("{port}", str(server.port))

        async def stream() -> None:
            async with driver.connect(url, reconnect=False) as events:
                await events.next()

        for attempt in (stream, lambda: driver.get(url)):
            if target is not None:
                await attempt()
                assert server.requests[-1].target == target
                assert server.requests[-1]["host"] == server.authority
            else:
                with pytest.raises((ValueError, sse.SSEConnectionError, httpclient.HttpConnectionError)) as caught:
                    await attempt()
                assert bool(looked_up) == (not isinstance(caught.value, ValueError))
        assert len(server.requests) == (0 if target is None else 2)
        assert not (target and looked_up)


# === Limits: one less, exactly, one more ===

around = pytest.mark.parametrize("beyond", [-1, 0, 1], ids=["limit-1", "limit", "limit+1"])


async def within_limit(driver: Any, server: ScriptServer, fits: bool, limit: str) -> None:
    """What fits is a stream; what does not is HttpProtocolError, to a plain request and as the cause of a loss."""
    if fits:
        async with driver.connect(server.url) as events:
            assert (await events.next()).data == "1"
        return
    with pytest.raises(httpclient.HttpProtocolError, match=limit):
        await driver.get(server.url)
    with pytest.raises(sse.SSEConnectionError) as caught:
        await driver.connect(server.url, **ONCE).next()
    assert any(isinstance(cause, httpclient.HttpProtocolError) for cause in causes(caught.value))


@around
@pytest.mark.parametrize("sending", ["at once", "in pieces"])
async def test_bytes_of_a_head_at_the_limit(driver: Any, beyond: int, sending: str) -> None:
    """64 KiB with its last empty line."""
    start = SSE.replace("\r\n\r\n", "\r\nX: ")
    whole = start + "x" * (httpclient.MAX_HEAD + beyond - len(start) - 4) + "\r\n\r\n"
    assert len(whole) == 65536 + beyond
    script = [whole + event(1), HOLD] if sending == "at once" else [drip(whole, 0, 9000), event(1), HOLD]
    with ScriptServer(then=script) as server:
        await within_limit(driver, server, beyond <= 0, "65536 bytes")


@around
async def test_number_of_headers_at_the_limit(driver: Any, beyond: int) -> None:
    """256 lines."""
    more = "X: y\r\n" * (httpclient.MAX_HEADERS + beyond - 1)
    with ScriptServer(then=[SSE[:-2] + more + "\r\n" + event(1), HOLD]) as server:
        await within_limit(driver, server, beyond <= 0, "256 headers")


@around
async def test_number_of_interim_answers_at_the_limit(driver: Any, beyond: int) -> None:
    interim = "HTTP/1.1 100 Continue\r\n\r\n" * (httpclient.MAX_HEADERS + beyond)
    with ScriptServer(then=[interim + SSE + event(1), HOLD]) as server:
        await within_limit(driver, server, beyond <= 0, "256 informational")


@around
@pytest.mark.parametrize("sending", ["at once", "in pieces"])
async def test_chunk_extension_at_the_limit(driver: Any, beyond: int, sending: str) -> None:
    """A chunk's size and extensions: 4096 bytes with their CRLF."""
    data = event(1)
    size = f"{len(data):x};"
    line = size + "x" * (httpclient.MAX_CHUNK_LINE + beyond - len(size) - 2) + "\r\n"
    body = line + data + "\r\n" + END_CHUNK
    with ScriptServer(then=[CHUNKED, body if sending == "at once" else drip(body, 0, 999)]) as server:
        if beyond <= 0:
            assert await (await driver.get(server.url)).read() == data.encode()
        await within_limit(driver, server, beyond <= 0, "chunk size")


@around
async def test_bytes_of_trailers_at_the_limit(driver: Any, beyond: int) -> None:
    """64 KiB with the last empty line; the events before them are given out in any case."""
    trailers = "X: " + "x" * (httpclient.MAX_HEAD + beyond - 7) + "\r\n\r\n"
    assert len(trailers) == 65536 + beyond
    with ScriptServer(then=[CHUNKED.encode() + chunk(event(1)), "0\r\n" + trailers]) as server:
        if beyond <= 0:
            assert await (await driver.get(server.url)).read() == event(1).encode()
        else:
            with pytest.raises(httpclient.HttpProtocolError, match="65536 bytes"):
                await driver.get(server.url)
        async with driver.connect(server.url, body="x") as events:
            assert (await events.next()).data == "1"
            if beyond <= 0:
                assert await events.next() is None
            else:
                with pytest.raises(sse.SSEConnectionError):
                    await events.next()


@around
@pytest.mark.parametrize("filler", ["x", "ü", "🎉"])
async def test_characters_of_an_event_at_the_limit(driver: Any, beyond: int, filler: str) -> None:
    """max_event_size counts characters, not bytes; the event before comes out, nothing is asked again."""
    size = 5000
    data = filler * (size + beyond - len("data: "))
    with ScriptServer(then=[SSE + event(1) + f"data: {data}\n\n", HOLD]) as server:
        async with driver.connect(server.url, max_event_size=size, **QUICK) as events:
            assert (await events.next()).data == "1"
            if beyond <= 0:
                assert (await events.next()).data == data
            else:
                with pytest.raises(sse.SSELimitError) as caught:
                    await events.next()
                assert caught.value.limit == size
        assert len(server.requests) == 1


@around
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_bytes_of_a_body_at_the_limit(
    driver: Any, beyond: int, framing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MAX_BODY bytes may be read at once, one more may not."""
    monkeypatch.setattr(httpclient, "MAX_BODY", 70_000)
    headers, steps = refused("x" * (70_000 + beyond), framing)
    with ScriptServer([head(200, **headers), *steps]) as server:
        if beyond <= 0:
            assert len(await (await driver.get(server.url)).read()) == 70_000 + beyond
        else:
            with pytest.raises(httpclient.HttpProtocolError, match="70000 bytes"):
                await driver.get(server.url)


@around
@pytest.mark.parametrize("ending", ["\n", "\r\n", ""], ids=repr)
async def test_characters_of_a_line_at_the_limit(
    driver: Any, beyond: int, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MAX_LINE characters without the line's end."""
    monkeypatch.setattr(httpclient, "MAX_LINE", 1000)
    line = "ü" * (1000 + beyond)
    with ScriptServer([respond(200, line + ending)]) as server:
        async with await driver.get(server.url, stream=True) as reply:
            if beyond <= 0:
                assert [found async for found in reply.iter_lines()] == [line]
            else:
                with pytest.raises(httpclient.HttpProtocolError, match="1000 characters"):
                    assert [found async for found in reply.iter_lines()] == []


@around
@pytest.mark.parametrize("source", ["retry", "Retry-After"])
async def test_wait_at_its_cap(driver: Any, beyond: int, source: str) -> None:
    """max_retry_interval bounds what the server asks for."""
    waits: list[float] = []

    def on_reconnect(_: Any, wait: float) -> None:
        waits.append(wait)
        raise Stop

    step = 1 if source == "retry" else 1000  # Retry-After counts seconds
    script = [SSE, f"retry: {2000 + beyond}\n"] if source == "retry" else respond(503, retry_after=2 + beyond)
    options = {"retry_interval": 0, "max_retry_interval": 2000, "jitter": 0, "retry_statuses": (503,)}
    with ScriptServer(script) as server:
        with pytest.raises(Stop):
            await driver.connect(server.url, on_reconnect=on_reconnect, **options).next()
    assert waits == [pytest.approx(min(2000, 2000 + beyond * step) / 1000)]
