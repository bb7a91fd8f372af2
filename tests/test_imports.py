"""What importing loads, and that each of the two files works when it is copied alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sse
from server import ScriptServer

SSE_FILE = Path(sse.__file__)

HEAVY = {"asyncio", "ssl", "socket", "urllib.request", "http.client"}

PARSE = """
parser = sse.SSEParser()
assert [event.data for event in parser.feed(b"data: a\\n\\ndata: b\\r\\n\\r\\n")] == ["a", "b"]
assert parser.feed_line("data: c") is None and parser.feed_line("").data == "c"
assert [event.data for event in sse.EventSource(["data: d", ""])] == ["d"]
assert [event.data for event in sse.EventSource.from_chunks([b"data: e\\n", b"\\n"])] == ["e"]
"""


def run(folder: Path, code: str, *arguments: str) -> str:
    """Run `code` in a new interpreter that finds nothing but the standard library and `folder`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", code, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def sse_alone(tmp_path: Path) -> Path:
    """A folder with nothing but sse.py."""
    shutil.copy(SSE_FILE, tmp_path)
    return tmp_path


def loaded(folder: Path, code: str) -> set[str]:
    """Return the names of the modules that `code` loads into a bare interpreter."""
    return set(run(folder, f"import sys\nbare = set(sys.modules)\n{code}\nprint(*set(sys.modules) - bare)").split())


def test_import_is_lean(sse_alone: Path) -> None:
    """At most 26 modules more than in a bare interpreter, the slow ones not among them."""
    modules = loaded(sse_alone, "import sse")
    assert "sse" in modules
    assert modules & HEAVY == set()
    assert len(modules) <= 26, sorted(modules)


def test_parsing_loads_nothing_more(sse_alone: Path) -> None:
    """Who only parses never pays for what a client needs."""
    more = loaded(sse_alone, "import sse\n" + PARSE) - loaded(sse_alone, "import sse")
    assert more & HEAVY == set()


def test_import_loads_no_transport(sse_alone: Path) -> None:
    """The transport beside the file is left alone by the import and by the parser."""
    (sse_alone / "httpclient.py").write_text("raise SystemExit('imported too early')")
    assert "httpclient" not in loaded(sse_alone, "import sse\n" + PARSE)


# === Each file alone ===

OPENINGS = {
    "with": "with sse.connect('http://127.0.0.1:9/'): pass",
    "next": "next(sse.connect('http://127.0.0.1:9/'))",
    "async with": """
import asyncio
async def main():
    async with sse.async_connect('http://127.0.0.1:9/'): pass
asyncio.run(main())
""",
    "anext": """
import asyncio
async def main():
    await sse.async_connect('http://127.0.0.1:9/').__anext__()
asyncio.run(main())
""",
}


def import_error(folder: Path, opening: str) -> str:
    """Return the text of the ImportError that opening a client raises."""
    indented = "\n".join("    " + line for line in OPENINGS[opening].splitlines())
    return run(
        folder,
        f"import sse\ntry:\n{indented}\nexcept ImportError as error:\n    print(error)\nelse:\n    print('no error')",
    )


def test_sse_alone_parses(sse_alone: Path) -> None:
    """Without httpclient.py everything but the default transport works: clients too, until they are opened."""
    run(
        sse_alone,
        "import sse\n" + PARSE + "sse.connect('http://127.0.0.1:9/')\nsse.async_connect('http://127.0.0.1:9/')",
    )


@pytest.mark.parametrize("opening", OPENINGS)
def test_sse_alone_says_what_to_copy(opening: str, sse_alone: Path) -> None:
    """Only opening a client fails, and the ImportError names the file that is missing."""
    text = import_error(sse_alone, opening)
    assert "httpclient.py" in text
    assert "transport=" in text


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("kind", ["module", "package", "with a Transport"])
def test_another_httpclient_is_told_apart(opening: str, kind: str, sse_alone: Path) -> None:
    """Some other module of that name gives the same ImportError, not an AttributeError or a wrong call."""
    if kind == "package":
        (sse_alone / "httpclient").mkdir()
        (sse_alone / "httpclient" / "__init__.py").write_text("__version__ = '0.1.0'\n")
    else:
        text = "class Transport: pass\n" if kind == "with a Transport" else "def get(url): return b''\n"
        (sse_alone / "httpclient.py").write_text(text)
    assert "httpclient.py" in import_error(sse_alone, opening)


def test_sse_alone_with_another_transport(sse_alone: Path) -> None:
    """A transport of one's own needs no httpclient.py."""
    code = """
import asyncio
import sse

class Response:
    status_code = 200
    headers = {"Content-Type": "text/event-stream"}
    url = "http://127.0.0.1:9/"
    def iter_bytes(self):
        yield b"data: a\\n\\n"
    async def aiter_bytes(self):
        yield b"data: a\\n\\n"
    def close(self):
        pass
    async def aclose(self):
        pass

async def opened(request, timeout):
    return Response()

async def main():
    async with sse.async_connect("http://127.0.0.1:9/", transport=opened, reconnect=False) as events:
        return [event.data async for event in events]

with sse.connect("http://127.0.0.1:9/", transport=lambda request, timeout: Response(), reconnect=False) as events:
    print(*[event.data for event in events], *asyncio.run(main()))
"""
    assert run(sse_alone, code) == "a a\n"


def test_httpclient_alone(tmp_path: Path) -> None:
    """Without sse.py httpclient.py fetches, and knows nothing of it."""
    httpclient: Any = pytest.importorskip("httpclient")
    shutil.copy(httpclient.__file__, tmp_path)
    code = """
import asyncio, sys
import httpclient

async def main():
    async with await httpclient.async_get(sys.argv[1]) as response:
        return await response.aread()

with httpclient.get(sys.argv[1]) as response:
    print(response.status_code, response.text, asyncio.run(main()))
assert "sse" not in sys.modules
"""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    with ScriptServer([answer], [answer]) as server:
        assert run(tmp_path, code, server.url) == "200 hi b'hi'\n"
    assert "import sse" not in Path(httpclient.__file__).read_text("utf-8")


def test_both_files_side_by_side(sse_alone: Path) -> None:
    """Copied together, the client opens streams by the default transport."""
    httpclient: Any = pytest.importorskip("httpclient")
    shutil.copy(httpclient.__file__, sse_alone)
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: a\n\n"
    code = "import sse, sys\nwith sse.connect(sys.argv[1], reconnect=False) as events: print(*[e.data for e in events])"
    with ScriptServer([answer]) as server:
        assert run(sse_alone, code, server.url) == "a\n"


DATACLASSES = """
import dataclasses, inspect, sse
event = sse.SSEEvent("a", "b", "c", 4)
request = sse.Request("GET", "u", {}, None)
FIRST
assert [f.name for f in dataclasses.fields(event)] == ["event", "data", "id", "retry"]
assert dataclasses.asdict(event) == dict(event="a", data="b", id="c", retry=4)
assert dataclasses.replace(event, data="z") == sse.SSEEvent("a", "z", "c", 4)
assert dataclasses.replace(request, url="v") == sse.Request("GET", "v", {}, None)
assert sse.SSEEvent.__dataclass_params__.frozen and sse.Request.__dataclass_params__.frozen
"""
FIRST = {
    "nothing": "",
    "params": "assert sse.SSEEvent.__dataclass_params__.frozen",
    "bases": "for kind in sse.SSEEvent.__mro__ + sse.Request.__mro__: inspect.getmembers(kind)",
    "help": "import pydoc; pydoc.render_doc(sse)",
    "hints": "import typing; assert list(typing.get_type_hints(sse.SSEEvent)) == ['event', 'data', 'id', 'retry']",
    "own __init__": """
class My(sse.SSEEvent):
    def __init__(self, data):
        super().__init__(data=data)
assert dataclasses.asdict(My("x")) == dict(event="message", data="x", id="", retry=None)
""",
    "dataclass of it": """
@dataclasses.dataclass(frozen=True)
class Tagged(sse.SSEEvent):
    source: str = ""
assert [f.name for f in dataclasses.fields(Tagged)] == ["event", "data", "id", "retry", "source"]
assert Tagged("a", "b", source="s") == Tagged("a", "b", "", None, "s") != Tagged("a", "b")
""",
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_a_dataclass_whoever_looks_first(first: str, sse_alone: Path) -> None:
    """Its fields are made when they are first asked for, of whichever class."""
    run(sse_alone, DATACLASSES.replace("FIRST", first))


@pytest.mark.parametrize("other", ["raise RuntimeError('other')", "class HttpProtocolError(Exception): ..."])
def test_another_httpclient_that_fails_or_looks_alike(other: str, sse_alone: Path) -> None:
    """It is not ours: opening says so, and another transport does without."""
    (sse_alone / "httpclient.py").write_text(other)
    assert "httpclient.py" in import_error(sse_alone, "with")
