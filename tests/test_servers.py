"""Both clients against servers that we did not write."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sse
from apps import WORDS
from drivers import QUICK, certificate_errors, in_thread
from proxy import CutProxy
from server import RAW, RECV, RESET, SSE, WITHIN, ReservedPort, ScriptServer, event, redirect

TESTS = Path(__file__).parent


class Process:
    """A server in a process of its own, on a port that stays reserved while it is down."""

    def __init__(self, log: Path, *command: str, secure_port: bool = False) -> None:
        self._reserved = [ReservedPort() for _ in range(1 + secure_port)]
        self.port, self.secure_port = self._reserved[0].port, self._reserved[-1].port
        self.command = [part.format(port=self.port) for part in command]
        self.log = log
        self.origin = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Process:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for port in self._reserved:
            port.close()

    def start(self) -> None:
        """Starts the server and waits until it accepts connections."""
        environment = {**os.environ, "HOME": str(self.log.parent)}  # gunicorn puts a socket there
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=TESTS, env=environment)
        deadline = time.monotonic() + 3 * WITHIN
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            alive = self.process.poll() is None and time.monotonic() < deadline
            assert alive, f"{self.command} does not start:\n{self.log.read_text()}"
            time.sleep(0.01)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


Server = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`run("name", *command)` starts a server that lives as long as this module."""
    folder = tmp_path_factory.mktemp("servers")
    with contextlib.ExitStack() as stack:
        yield lambda name, *command: stack.enter_context(Process(folder / f"{name}.log", *command))


UVICORN = (
    *(sys.executable, "-m", "uvicorn", "apps:asgi", "--factory", "--port", "{port}"),
    *("--log-level", "warning", "--timeout-graceful-shutdown", "1"),
)


@pytest.fixture(scope="module")
def uvicorn(run: Server) -> Process:
    return run("uvicorn", *UVICORN)


@pytest.fixture(scope="module")
def gunicorn(run: Server) -> Process:
    options = ["--worker-class", "gthread", "--threads", "4", "--log-level", "error", "--graceful-timeout", "1"]
    return run("gunicorn", sys.executable, "-m", "gunicorn", "apps:wsgi()", "--bind", "127.0.0.1:{port}", *options)


@pytest.fixture(scope="module")
def aiohttp(run: Server) -> Process:
    return run("aiohttp", sys.executable, "apps.py", "aiohttp", "{port}")


@pytest.fixture(scope="module")
def http10(run: Server) -> Process:
    return run("http10", sys.executable, "apps.py", "http10", "{port}")


NGINX = """
daemon off;
worker_processes 1;
worker_shutdown_timeout 1s;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
load_module {module};
{user}
events {{ worker_connections 256; }}
http {{
    access_log off;
    types {{ text/event-stream sse; }}
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip on;
    gzip_types text/event-stream;
    upstream redis {{ nchan_redis_server redis://127.0.0.1:{redis_port}/; }}
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{secure_port} ssl;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.pem;
        location / {{ root {folder}; }}
        location = /memory/pub {{ {publisher} }}
        location = /memory/sub {{ {subscriber} }}
        location = /redis/pub {{ {publisher} nchan_redis_pass redis; }}
        location = /redis/sub {{ {subscriber} nchan_redis_pass redis; }}
    }}
}}
"""

PUBLISHER = """
    nchan_publisher;
    nchan_channel_id $arg_channel;
    nchan_message_buffer_length 5000;
    nchan_message_timeout 1h;
"""
SUBSCRIBER = """
    nchan_subscriber eventsource;
    nchan_channel_id $arg_channel;
    nchan_subscriber_first_message oldest;
"""


@pytest.fixture(scope="module")
def redis(need: Any, run: Server) -> Process:
    options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    return run("redis", need("redis-server", "redis-server"), "--port", "{port}", *options)


@pytest.fixture(scope="module")
def nginx(need: Any, redis: Process, authority: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    program = need("nginx", "/usr/sbin/nginx")
    module = need("libnginx-mod-nchan", "/usr/lib/nginx/modules/ngx_nchan_module.so")
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "numbers.sse").write_text("".join(event(number) for number in range(1, 1001)) + "data: [DONE]\n\n")
    authority.ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    server = Process(folder / "log", program, "-c", str(folder / "nginx.conf"), "-p", str(folder), secure_port=True)
    server.folder = folder
    values = {
        "folder": folder,
        "module": module,
        "user": "user root;" if os.geteuid() == 0 else "",
        "port": server.port,
        "secure_port": server.secure_port,
        "redis_port": redis.port,
        "publisher": PUBLISHER,
        "subscriber": SUBSCRIBER,
    }
    (folder / "nginx.conf").write_text(NGINX.format(**values))
    with server:
        yield server


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Process:
    """One of the above, by name."""
    return request.getfixturevalue(request.param)


def on(*names: str) -> pytest.MarkDecorator:
    """Runs a test on each of these servers."""
    return pytest.mark.parametrize("server", names, indirect=True)


def numbers(upto: int) -> list[str]:
    return [str(number) for number in range(1, upto + 1)]


# === Frameworks ===


async def test_sse_starlette_resumes_through_pings_and_ends(driver: Any, uvicorn: Process) -> None:
    """CRLF line ends, pings in between, five connections resumed by Last-Event-ID, a 204 as the end."""
    pings: list[str] = []
    opened: list[int] = []
    url = uvicorn.origin + "/sse-starlette/numbers"
    query = {"upto": 20, "batch": 4, "pace": 0.03}
    options = {**QUICK, "on_comment": pings.append, "on_open": lambda response: opened.append(response.status_code)}
    async with driver.connect(url, params=query, **options) as events:
        assert events.response.status_code == 200
        seen = [(event.event, event.data, event.id) async for event in events]
        assert seen == [("number", number, number) for number in numbers(20)]
    assert opened.count(200) == 5
    assert pings
    assert all(ping.startswith("ping") for ping in pings)


@pytest.mark.parametrize(
    ("server", "path"),
    [
        ("uvicorn", "/numbers"),
        ("uvicorn", "/fastapi/numbers"),
        ("gunicorn", "/numbers"),
        ("aiohttp", "/numbers"),
        ("http10", "/numbers"),
    ],
    indirect=["server"],
)
async def test_every_server_is_resumed_where_it_stopped(driver: Any, server: Process, path: str) -> None:
    """Whatever ends a body there (last chunk, or the connection), the next one continues after the last event."""
    opened: list[int] = []
    options = {**QUICK, "params": {"batch": 10}, "on_open": lambda response: opened.append(response.status_code)}
    async with driver.connect(f"{server.origin}{path}?upto=30", **options) as events:
        assert await events.all() == numbers(30)
        assert opened.count(200) == 3
        assert events.last_event_id == "30"


@on("uvicorn", "gunicorn", "aiohttp", "http10")
async def test_events_arrive_while_the_server_still_has_more(driver: Any, server: Process) -> None:
    """The first event of a slow stream is there long before the second, and leaving early closes the stream."""
    url = server.origin + "/numbers?upto=2&pace=3"
    start = time.monotonic()
    async with driver.connect(url) as events:
        assert (await events.next()).data == "1"
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(("server", "path"), [("uvicorn", "/fastapi/chat"), ("gunicorn", "/chat")], indirect=["server"])
async def test_openai_shaped_answer_comes_whole_by_post(driver: Any, server: Process, path: str) -> None:
    """`until` ends the stream, is not yielded itself, and the JSON of each chunk is whole."""
    body = {"messages": [{"role": "user", "content": "grüß"}], "stream": True}
    headers = {"Authorization": "Bearer right"}
    async with driver.connect(server.origin + path, json=body, headers=headers, until="[DONE]") as events:
        words = [event.json()["choices"][0]["delta"]["content"] async for event in events]
    assert words == ["grüß", *WORDS]


async def test_what_an_api_says_of_a_wrong_key_is_in_the_error(driver: Any, uvicorn: Process) -> None:
    """A 401 raises at once, and its JSON message can be read in str(error)."""
    with pytest.raises(sse.SSEHTTPError, match="Incorrect API key provided") as caught:
        await driver.connect(
            uvicorn.origin + "/fastapi/chat", json={}, headers={"Authorization": "Bearer wr0ng"}
        ).next()
    assert caught.value.status_code == 401
    assert "wr0ng" not in str(caught.value)


async def test_a_killed_server_that_comes_back_costs_nothing(driver: Any, tmp_path: Path) -> None:
    """uvicorn is killed twice in the middle of the stream and started again: all events, in order, once."""
    with Process(tmp_path / "log", *UVICORN) as server:
        url = server.origin + "/numbers?upto=300&pace=0.002"
        restarts: list[asyncio.Future[Any]] = []
        async with driver.connect(url, retry_interval=20, max_retry_interval=200) as events:
            seen = []
            async for event in events:
                seen.append(event.data)
                if event.data in ("60", "150"):
                    await in_thread(server.kill)
                    restarts.append(in_thread(server.start))
            assert events.stats.retries >= 2
        await asyncio.gather(*restarts)
    assert seen == numbers(300)


# === nginx ===


async def test_static_file_from_nginx_is_a_stream_that_ends(driver: Any, nginx: Process) -> None:
    """A body with Content-Length, of the right type by nginx's own table; gzip is not asked for."""
    async with driver.connect(nginx.origin + "/numbers.sse", until="[DONE]") as events:
        assert events.response.headers["content-length"]
        assert await events.all() == numbers(1000)


async def test_gzip_from_nginx_is_decoded_where_asked_for(driver: Any, nginx: Process) -> None:
    """A user's own Accept-Encoding makes nginx compress, in chunks, and the events are the same."""
    headers = {"accept-encoding": "gzip"}
    async with driver.connect(nginx.origin + "/numbers.sse", headers=headers, reconnect=False) as events:
        assert events.response.headers["content-encoding"] == "gzip"
        assert await events.all() == [*numbers(1000), "[DONE]"]


async def test_nginx_over_tls_with_a_private_authority(driver: Any, nginx: Process, authority: Any) -> None:
    """`verify=context` trusts the authority; the system's certificates do not."""
    url = f"https://127.0.0.1:{nginx.secure_port}/numbers.sse"
    async with driver.connect(url, verify=authority.client(), until="[DONE]") as events:
        assert len(await events.all()) == 1000
    with certificate_errors():
        await driver.connect(url).next()


@pytest.mark.parametrize("storage", ["memory", "redis"])
async def test_nchan_loses_nothing_through_a_thousand_messages_and_endless_cuts(
    driver: Any, nginx: Process, storage: str
) -> None:
    """1000 messages while a proxy cuts at any byte and nginx is reloaded: all of them, in order, once.

    nchan keeps its messages through a reload only in Redis; those in its own memory are gone, for every client.
    """
    channel = f"{storage}/%s?channel=cuts-{storage}-{driver.is_async}"
    messages = [f"{number} {'x' * (number * 7 % 50)}" for number in range(1000)]

    def publish(number: int) -> None:
        status = 503  # while a new worker is not connected to Redis yet; nothing was stored then
        while status == 503:
            connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=WITHIN)
            with contextlib.closing(connection):
                connection.request("POST", "/" + channel % "pub", messages[number])
                status = connection.getresponse().status
        assert status in (201, 202)

    def publish_all() -> None:
        for number in range(1, len(messages) - 1):
            if number % 200 == 0 and storage == "redis":
                reload(nginx)
            publish(number)

    with CutProxy(nginx.port, seed=7, span=5000) as proxy:
        url = f"{proxy.origin}/{channel % 'sub'}"
        await in_thread(publish, 0)
        options = {"retry_interval": 1, "max_retry_interval": 100, "jitter": 0, "retry_statuses": sse.TRANSIENT}
        async with driver.connect(url, **options) as events:
            publishing = in_thread(publish_all)
            assert await events.take(len(messages) - 1) == messages[:-1]
            await publishing
            pending = events.start_next()  # now blocked: the last message comes to a subscriber that waits
            await in_thread(publish, len(messages) - 1)
            assert (await pending).data == messages[-1]
            assert events.stats.events == len(messages)
            assert events.stats.connects > 10
        assert proxy.cuts > 10


def reload(nginx: Process) -> None:
    """Reloads nginx, and waits until the old workers have ended: a message in their hands may be stored or not."""
    children = Path(f"/proc/{nginx.process.pid}/task/{nginx.process.pid}/children")
    old = set(children.read_text().split())
    nginx.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + WITHIN
    while old & (now := set(children.read_text().split())) or not now:
        assert time.monotonic() < deadline, "the old workers do not end"
        time.sleep(0.005)


@pytest.mark.parametrize("seed", range(3))
async def test_cutting_at_any_byte_is_not_noticed(driver: Any, uvicorn: Process, seed: int) -> None:
    """Head, chunk sizes, UTF-8 sequences and line ends are all cut through: all events, in order, once."""
    with CutProxy(uvicorn.port, seed=seed, span=600) as proxy:
        url = proxy.origin + "/sse-starlette/numbers?upto=150"
        async with driver.connect(url, retry_interval=1, max_retry_interval=20, jitter=0) as events:
            assert await events.all() == numbers(150)
        assert proxy.cuts >= 5


# === TLS with a private CA ===


async def test_verify_takes_a_context_and_reconnects_under_it(driver: Any, authority: Any) -> None:
    """A stream over TLS is resumed over TLS, by name and by address."""
    with ScriptServer([SSE, event(1)], [SSE, event(2)], tls=authority.server()) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        async with driver.connect(url, verify=authority.client(), **QUICK) as events:
            assert await events.all() == ["1", "2"]
        assert server.requests[1]["last-event-id"] == "1"


async def test_untrusted_certificate_is_refused_at_once(driver: Any, authority: Any) -> None:
    """One attempt, one clear exception, however many retries are allowed."""
    with ScriptServer(then=[SSE, event(1)], tls=authority.server()) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await driver.connect(server.url, **QUICK).next()
        assert len(server.connections) == 1
        assert not server.requests


async def test_certificate_of_another_name_is_refused_at_once(driver: Any, authority: Any) -> None:
    """The authority is trusted, but the certificate is not for this host."""
    with ScriptServer(then=[SSE, event(1)], tls=authority.server("other.example")) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await driver.connect(server.url, verify=authority.client(), **QUICK).next()
        assert len(server.connections) == 1
        assert not server.requests


async def test_verify_false_asks_for_no_certificate(driver: Any, authority: Any) -> None:
    """Neither the authority nor the name matters then."""
    with ScriptServer([SSE, event(1)], tls=authority.server("other.example")) as server:
        async with driver.connect(server.url, verify=False, **QUICK) as events:
            assert await events.all() == ["1"]


async def test_plain_request_to_an_untrusted_server_fails_too(driver: Any, authority: Any) -> None:
    """httpclient verifies by default."""
    with ScriptServer(then=[SSE], tls=authority.server()) as server:
        with certificate_errors():
            await driver.get(server.url)
        assert not server.requests


async def test_redirect_into_an_untrusted_server_is_refused_at_once(driver: Any, authority: Any) -> None:
    """The certificate is checked at every hop, and a failure is not retried."""
    with ScriptServer(then=[SSE], tls=authority.server()) as target, ScriptServer(then=redirect(target.url)) as server:
        with certificate_errors():
            await driver.connect(server.url, **QUICK).next()
        assert len(server.requests) == len(target.connections) == 1
        assert not target.requests


async def test_tls_that_breaks_off_is_a_lost_connection(driver: Any, authority: Any) -> None:
    """A server that closes in the handshake may come back; a certificate has not been judged."""
    with ScriptServer([RAW, RECV, RESET], [SSE, event(1)], tls=authority.server()) as server:
        async with driver.connect(server.url, verify=authority.client(), **QUICK) as events:
            assert await events.all() == ["1"]
