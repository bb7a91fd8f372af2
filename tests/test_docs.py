"""README and docs are true: their programs run, their tables agree with the code, what they name exists.

Each Python block of a page is a program of its own. `example.com` in it is answered by the servers below; a `text`
block after it is its output. Before a block, `<!-- server -->` makes it a server that runs beside the later ones of its
page, and `<!-- not run: reason -->` leaves it alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import re
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

import httpclient
import sse

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FILES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}


# === The programs ===


class Block(NamedTuple):
    page: str
    heading: str
    line: int
    marker: str
    code: str
    output: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> Iterator[Block]:
    fenced = re.compile(
        r"(?:^<!-- (?P<marker>[^>]*) -->\n)?^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?",
        re.MULTILINE | re.DOTALL,
    )
    for page, text in PAGES.items():
        for match in fenced.finditer(text):
            before = text[: match.start("code")]
            heading = re.findall(r"^#+ (.*)", before, re.MULTILINE)[-1]
            marker = match["marker"] or ""
            yield Block(page, heading, before.count("\n"), marker, match["code"], match["output"])


BLOCKS = list(blocks())
PROGRAMS = [block for block in BLOCKS if not block.marker]
LAST = 12  # the number of the last event of /events


class Handler(BaseHTTPRequestHandler):
    """What the pages expect of example.com: a stream that is cut into pieces, LLM APIs, a proxy."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)  # absolute when asked as a proxy
        if url.path == "/private" and self.headers["Authorization"] != "Bearer fresh":
            self.answer(401, json.dumps({"message": "Incorrect API key provided"}))
            return
        last = int(self.headers["Last-Event-ID"] or parse_qs(url.query).get("after", ["0"])[0])
        if last == LAST:
            self.answer(204)
            return
        batch = range(last + 1, min(last + 5, LAST) + 1)
        self.answer(200, "retry: 10\n\n" + "".join([f"id: {number}\ndata: {number}\n\n" for number in batch]))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/token":
            self.server.tokens += 1
            self.answer(200, json.dumps({"token": "stale" if self.server.tokens == 1 else "fresh"}))
        elif self.path == "/v1/chat/completions":
            assert body["stream"]
            assert self.headers["Authorization"] == "Bearer key"
            chunks = [
                {"choices": [{"delta": delta}]} for delta in ({"role": "a"}, {"content": "It "}, {"content": "is."})
            ]
            payloads = [*map(json.dumps, [*chunks, {"choices": [], "usage": {}}]), "[DONE]"]
            self.answer(200, "".join([f"data: {payload}\n\n" for payload in payloads]))
        elif self.path == "/v1/messages":
            assert self.headers["x-api-key"] == "key"
            deltas = [("content_block_delta", {"delta": {"text": text}}) for text in ("It ", "is.")]
            events = [("message_start", {}), ("ping", {}), *deltas, ("message_stop", {})]
            self.answer(200, "".join([f"event: {name}\ndata: {json.dumps(payload)}\n\n" for name, payload in events]))

    def answer(self, status: int, text: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if text.startswith("{") else "text/event-stream")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    tokens = 0
    context: ssl.SSLContext | None = None

    def get_request(self) -> Any:
        sock, address = super().get_request()
        return (self.context.wrap_socket(sock, server_side=True) if self.context else sock), address


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[str]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.context = context
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server that a page shows, in a process of its own; its address."""
    (block,) = [block for block in BLOCKS if block.marker == "server"]
    assert "8000" in block.code
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = tmp_path_factory.mktemp("docs") / "server.py"
    program.write_text(block.code.replace("8000", str(port)), encoding="utf-8")
    with subprocess.Popen([sys.executable, "-W", "error", str(program)], stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert process.poll() is None
                    assert time.monotonic() < until
                    time.sleep(0.02)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


OUTPUTS = {
    "The answer of an LLM": "It is.",
    "When it fails": '401 {"message": "Incorrect API key provided"}\n',
    "An LLM answer in OpenAI's shape": "It is.",
    "An LLM answer in Anthropic's shape": "It is.",
    "Know what is going on": "at event 5 of connection 2\n",
    "Note the gaps": "3 gaps\n",
    "Slow consumers": "events\n",
    "When you are too slow": f"{LAST} events, 0 dropped\n",
}
"""By heading: what the output must hold."""
ALL = ["sse", "Fresh headers", "asyncio", "The parser alone", "Tokens that expire", "Another HTTP library"]
ALL += ["Note the gaps"]
"""Headings under which each number of the stream is printed once."""


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_program_runs(
    block: Block,
    own_server: str,
    tmp_path: Path,
    authority: Any,
    leaks: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without an exception or a warning, and prints what the page says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("API_KEY", "key")
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(serving())
        code = block.code.replace("127.0.0.1:8000", own_server)
        if "internal.example.com" in code:
            secure = authority.server()
            authority.ca.configure_trust(secure)
            secure.verify_mode = ssl.CERT_REQUIRED
            authority.ca.cert_pem.write_to_path("ca.pem")
            authority.ca.issue_cert("client@example.com").private_key_and_cert_chain_pem.write_to_path("client.pem")
            code = code.replace("internal.example.com", stack.enter_context(serving(secure)))
        code = code.replace("proxy.example.com:3128", address)
        code = re.sub(r"https?://(api\.)?example\.com", f"http://{address}", code)
        assert "example.com" not in code
        program = compile("\n" * block.line + code, ROOT / block.page, "exec")  # right lines in tracebacks
        scope: dict[str, Any] = {"__name__": "__main__", "read_token": lambda: "fresh"}
        exec(program, scope)
        if "app" in scope:
            check_relay(scope["app"])
    printed = capsys.readouterr().out
    assert block.output in (None, printed)
    assert OUTPUTS.get(block.heading, "") in printed
    if block.heading in ALL:
        numbers = re.findall(r"\b(\d+)$", printed, re.MULTILINE)
        if block.heading == "The parser alone":  # does not reconnect
            numbers += map(str, range(6, LAST + 1))
        assert numbers == [str(number) for number in range(1, LAST + 1)]
    for path in tmp_path.glob("*.db"):
        with contextlib.closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT id FROM events").fetchall() == [(str(n),) for n in range(1, LAST + 1)]


def check_relay(app: Any) -> None:
    import httpx

    async def ask() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://relay") as http:
            return (await http.get("/relay", headers={"Last-Event-ID": "10"})).text

    assert asyncio.run(ask()) == "id: 11\nevent: message\ndata: 11\n\nid: 12\nevent: message\ndata: 12\n\n"


def test_outputs_are_of_programs() -> None:
    """A renamed heading does not go unnoticed, nor a block without a reason."""
    assert {*OUTPUTS, *ALL} <= {block.heading for block in PROGRAMS}
    for block in BLOCKS:
        assert re.fullmatch("server|not run: .+|", block.marker), str(block)


def test_guide_takes_the_connections_that_it_counts(own_server: str) -> None:
    """Ten events over three of them."""
    with sse.connect(f"http://{own_server}/") as events:
        assert len(list(events)) == 10
        assert events.stats.connects == 3


# === The demo ===


@pytest.fixture(scope="module", autouse=True)
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The demo, running while the other tests do; started from another folder, under a proxy that is not there."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(DOCS / "demo.py")],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env={**os.environ, "http_proxy": "http://127.0.0.1:9"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()


def test_demo_shows_each_event_once_and_its_totals(demo: Any) -> None:
    """It ends by itself, has nothing to say on stderr, and lost and doubled nothing."""
    out, err = demo.communicate(timeout=30)
    assert err == ""
    assert demo.returncode == 0, out
    *_, totals = out.splitlines()
    count = re.fullmatch(r"(\d+) events, (\d+) connections, lost 0, doubled 0", totals)
    assert count is not None
    assert int(count[2]) >= 8
    rows = [row for row in re.findall(r"^connection +\d+ (.*)", out, re.MULTILINE) if "HTTP" not in row]
    assert [int(number) for row in rows for number in row.split()] == list(range(1, int(count[1]) + 1))
    assert out.count("resuming after event") >= 8


def test_readme_has_exactly_two_commands() -> None:
    """The two that a newcomer, and .ci/run, are to find."""
    commands = re.findall(r"^```sh\n(.*?)^```", PAGES["README.md"], re.MULTILINE | re.DOTALL)
    assert len(commands) == 2
    assert commands[0] == "python3 docs/demo.py\n"
    assert commands[1].count("\n") == 1
    assert "pytest" in commands[1]


# === The reference ===

REFERENCE = PAGES["docs/reference.md"]
PUBLIC = {name: getattr(module, name) for module in (httpclient, sse) for name in module.__all__}
NAMED = set(re.findall(r"\b\w+", " ".join(re.findall(r"`([^`]+)`", REFERENCE))))


def section(title: str) -> str:
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", REFERENCE, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


def options(table: str) -> dict[str, Any]:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", table, re.MULTILINE)
    return {name: eval(default, {"__builtins__": {}}) for name, default in rows}


def keywords(function: Any) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def test_option_tables_are_the_signatures() -> None:
    """Names, order and defaults."""
    for client in (sse.SSEClient, sse.AsyncSSEClient):
        assert list(options(section("Client")).items()) == list(keywords(client).items())
    for function in (httpclient.request, httpclient.async_request):
        assert list(options(section("httpclient")).items()) == list(keywords(function).items())


def test_signatures_are_as_written() -> None:
    """Where the reference shows a signature, it is the real one."""
    seen = set()
    for name, arguments in re.findall(r"`(\w+)\(([^`]*)\)`", REFERENCE):
        if "=" in arguments and name in {*PUBLIC, "main"}:
            scope: dict[str, Any] = {}
            exec(f"def written({arguments}): ...", {"__builtins__": {}}, scope)
            real = inspect.signature(PUBLIC.get(name, sse.main)).parameters.values()
            written = inspect.signature(scope["written"]).parameters.values()
            assert [(p.name, p.default, p.kind) for p in real] == [(p.name, p.default, p.kind) for p in written], name
            seen.add(name)
    assert {"SSEEvent", "SSEParser", "EventSource", "Request", "Transport", "buffered"} <= seen


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    """With every public method and property."""
    assert name in NAMED
    thing = PUBLIC[name]
    if inspect.isclass(thing):
        inherited = {*dir(Exception), *dir(dict)}
        members = {member for member in dir(thing) if not member.startswith("_")} - inherited
        assert members <= NAMED


# === What the pages name ===


def test_versions_agree() -> None:
    """Of both files, and the changelog has it."""
    assert sse.__version__ == httpclient.__version__
    assert re.search(rf"^## {re.escape(sse.__version__)}\b", PAGES["docs/changelog.md"], re.MULTILINE)


def test_security_promises_are_held_by_tests_that_exist() -> None:
    """Each row of its tables names some."""
    sources = "\n".join([path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")])
    tests = set(re.findall(r"def (test_\w+)\(", sources))
    page = PAGES["docs/security.md"]
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) >= 20
    assert named <= tests, named - tests
    rows = [row for row in re.findall(r"^\|.*\|$", page, re.MULTILINE) if not re.search("---|held by", row)]
    assert rows
    assert [row for row in rows if "`test_" not in row] == []


def test_internals_name_what_exists() -> None:
    """Private names are free to change, but not behind the back of the page."""
    sources = "\n".join([Path(module.__file__).read_text(encoding="utf-8") for module in (sse, httpclient)])
    for name in re.findall(r"`(_\w+)`", PAGES["docs/internals.md"]):
        assert re.search(rf"(def|class) {name}\b|^{name}\b", sources, re.MULTILINE), name


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page: str) -> None:
    """Files exist, and so do the headings that anchors name; nothing points outside."""
    for target in re.findall(r"\]\(([^)]+)\)", re.sub(r"^```.*?^```", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)):
        path, _, anchor = target.partition("#")
        linked = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, (
                target
            )
