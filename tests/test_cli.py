"""The command line: output and exit codes in process; signals, pipes, flushing and terminals in a subprocess."""

from __future__ import annotations

import base64
import codecs
import contextlib
import fcntl
import functools
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sse
from server import (
    CHUNKED,
    END_CHUNK,
    HOLD,
    NO_MORE,
    READ,
    RESET,
    SSE,
    WITHIN,
    BlackHole,
    Connection,
    ReservedPort,
    ScriptServer,
    chunk,
    endless,
    event,
    respond,
)

SSE_FILE = Path(sse.__file__)
DOCS = Path(__file__).resolve().parent.parent / "docs"
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
CONTROLS = "".join([c for c in map(chr, range(0xA0)) if unicodedata.category(c) == "Cc" and c not in "\r\n\t"])
NASTY = CONTROLS.replace("\0", "") + BIDI + "\u2028\u2029"
"""Everything that may steer a terminal and that a line of a stream can hold."""
DELTAS = [{"choices": [{"delta": delta}]} for delta in ({"role": "x"}, {"content": "It "}, {"content": "is."})]
ANSWER = "".join([f"data: {json.dumps(delta)}\n\n" for delta in DELTAS]) + "data: [DONE]\n\n"
DELTA = "choices.0.delta.content"


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], leaks: None) -> Callable[..., Result]:
    """`run(*argv)`: the command line in process; nothing may be left behind."""

    def run(*argv: str) -> Result:
        code = sse.main([*argv])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnects after 10 ms, for which there is no option."""
    monkeypatch.setattr(sse, "SSEClient", functools.partial(sse.SSEClient, retry_interval=10, jitter=0))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, leaks: None) -> Callable[..., Result]:
    """`terminal(*argv)`: in process, with a stdout and a stderr that say they are terminals 80 columns wide."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def run(*argv: str) -> Result:
        out, err = Terminal(), Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = sse.main([*argv])
        return Result(code, out.getvalue(), err.getvalue())

    return run


def stream(*events: str) -> list[str]:
    """A script: a stream that ends cleanly."""
    return [SSE, "retry: 1\n\n", *events]


# === Output ===


def test_plain(run: Any) -> None:
    """In a pipe: an event stream again, without what is the default; comments and `retry` go."""
    blocks = ["event: a\nid: 7\ndata: 1\ndata: 2\n\n", ": ping\n\ndata: x\n\n", "id\ndata\n\n", "data:  y\n\n"]
    with ScriptServer(stream(*blocks)) as server:
        result = run("-s", server.url)
    assert result == (0, "event: a\nid: 7\ndata: 1\ndata: 2\n\nid: 7\ndata: x\n\ndata: \n\ndata:  y\n\n", "")


def test_plain_can_be_parsed_again(run: Any) -> None:
    """With the same events, as long as nothing in them had to be made harmless."""
    body = "event: é 😀\nid: ü\ndata: \u3042\n\nevent: b\ndata: a: b\ndata:\ndata:  c\n\n"
    with ScriptServer(stream(body)) as server:
        result = run("-s", server.url)
    assert sse.SSEParser().feed(result.out) == sse.SSEParser().feed(body)


def test_jsonl(run: Any) -> None:
    """One object a line, in stable order, text as it is."""
    with ScriptServer(stream("event: a\nid: 7\nretry: 2\ndata: 1\ndata: é\n\n", "data: {}\n\n")) as server:
        result = run("--jsonl", "-s", server.url)
    assert result.out.splitlines() == [
        '{"event": "a", "data": "1\\né", "id": "7", "retry": 2}',
        '{"event": "message", "data": "{}", "id": "7", "retry": null}',
    ]
    assert (result.code, result.err) == (0, "")


def test_jsonl_is_valid_and_harmless(run: Any) -> None:
    """Whatever is in an event, a line is one JSON object that holds it, without a single control character."""
    body = f"event: {NASTY}\nid: {NASTY}\ndata: {NASTY}\0\t\ndata: \ufeff\ufffd😀\ud7ff\n\n"
    with ScriptServer(stream(body)) as server:
        result = run("--jsonl", "-s", server.url)
    assert not set(result.out[:-1]) & {*NASTY, "\0", "\t", "\n", "\r"}
    loaded = json.loads(result.out)
    assert loaded["event"] == loaded["id"] == NASTY
    assert loaded["data"] == f"{NASTY}\0\t\n\ufeff\ufffd😀\ud7ff"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_jsonl_is_valid_in_every_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """Also where stdout is not UTF-8, as in a pipe on Windows, or under PYTHONIOENCODING."""
    out = io.TextIOWrapper(io.BytesIO(), encoding, newline="\n")
    monkeypatch.setattr(sys, "stdout", out)
    with ScriptServer(stream("data: aé€😀\u0080\n\n")) as server:
        assert sse.main(["--jsonl", "-s", server.url]) == 0
    written = out.buffer.getvalue()  # type: ignore[attr-defined]
    for possible in (encoding, "utf-8"):
        with contextlib.suppress(UnicodeDecodeError):
            loaded = json.loads(written.decode(possible))
            if loaded["data"] == "aé€😀\u0080":
                return
    pytest.fail(f"no valid JSON: {written!r}")


def test_text(run: Any) -> None:
    """The values at the path and nothing else; payloads without it are skipped."""
    with ScriptServer(stream(ANSWER, "data: no json\n\ndata: 5\n\ndata: [1]\n\n")) as server:
        assert run("--text", DELTA, "-X", "POST", server.url) == (0, "It is.", "")


@pytest.mark.parametrize(
    ("path", "payload", "printed"),
    [
        ("a", {"a": "x"}, "x"),
        ("a.b", {"a": {"b": "x\ny"}}, "x\ny"),
        ("a.1", {"a": ["x", "y"]}, "y"),
        ("0", ["x"], "x"),
        ("a.0", {"a": {"0": "x"}}, "x"),
        ("a", {"a": 1.5}, "1.5"),
        ("a", {"a": {"b": ["é"]}}, '{"b": ["é"]}'),
        ("a", {"a": None}, ""),
        ("a", {"a": ""}, ""),
        ("a", {"a": False}, "false"),
        ("a.b", {"a": "text"}, ""),
        ("a.7", {"a": ["x"]}, ""),
        ("a.x", {"a": ["x"]}, ""),
        ("a.0", {"a": "text"}, ""),
        ("a", ["x"], ""),
        ("a", None, ""),
        ("a", {"a": "x", "error": None}, "x"),
    ],
    ids=str,
)
def test_text_paths(run: Any, path: str, payload: Any, printed: str) -> None:
    """Keys of objects and places in lists; null and what is not there print nothing."""
    with ScriptServer(stream(f"data: {json.dumps(payload)}\n\n")) as server:
        assert run("--text", path, "-s", server.url) == (0, printed, "")


@pytest.mark.parametrize(
    "block",
    ['data: {"error": {"message": "overloaded"}, "a": "lost"}\n\n', "event: error\ndata: overloaded\n\n"],
    ids=["payload", "event"],
)
def test_text_error_payload(run: Any, block: str) -> None:
    """Goes to stderr and makes the exit code 1; what follows is still printed."""
    with ScriptServer(stream('data: {"a": "x"}\n\n', block, 'data: {"a": "y"}\n\n')) as server:
        result = run("--text", "a", "-s", server.url)
    assert (result.code, result.out) == (1, "xy")
    assert result.err.startswith("sse: ")
    assert "overloaded" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("form", [[], ["--jsonl"], ["--text", "a"]], ids=str)
def test_deep_json(run: Any, terminal: Any, form: list[str]) -> None:
    """JSON that Python cannot decode is text like any other."""
    data = '{"a":' * 100_000
    for runner in (run, terminal):
        with ScriptServer(stream(f"data: {data}\n\n")) as server:
            result = runner(*form, "-s", server.url)
        assert result.code == 0
        assert result.err == ""
        assert ('"a' in result.out) == (form[:1] != ["--text"])


# === On a terminal ===


def test_pretty(terminal: Any) -> None:
    """As in the stream, with colours for type and ID, and JSON on one line."""
    blocks = [event("7", '{"a":1,\ndata: "b": [true, "é"]}'), "event: tick\nid: 8\ndata: one\ndata: two\n\n"]
    with ScriptServer(stream(*blocks)) as server:
        result = terminal("-s", server.url)
    first, second = 'id: 7\ndata: {"a": 1, "b": [true, "é"]}\n\n', "event: tick\nid: 8\ndata: one\ndata: two\n\n"
    assert re.sub(r"\x1b\[[\d;]*m", "", result.out) == first + second
    assert re.search(r"\x1b\[[\d;]+mevent: tick\x1b\[0m", result.out)
    assert result.err == ""


@pytest.mark.parametrize("variable", [("NO_COLOR", "1"), ("TERM", "dumb")], ids=str)
def test_no_colours(terminal: Any, monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]) -> None:
    """Nobody who does not want them gets any, on stdout or stderr."""
    monkeypatch.setenv(*variable)
    with ScriptServer(stream("event: a\nid: 1\ndata: x\n\n")) as server:
        result = terminal(server.url)
    assert result.out == "event: a\nid: 1\ndata: x\n\n"
    assert "\x1b" not in result.err
    assert "reconnecting" in result.err


def test_note_of_a_reconnect_is_dim(terminal: Any) -> None:
    """With the cause and the wait."""
    with ScriptServer(stream(event(1))) as server:
        result = terminal(server.url)
    assert re.fullmatch(r"\x1b\[2msse: the server ended it; reconnecting in 0\.001\d* s\x1b\[0m\n", result.err)


def test_long_lines_are_wrapped(terminal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the width of the terminal, words whole where they fit; nothing is lost."""
    monkeypatch.setenv("COLUMNS", "40")
    words = " ".join([f"word{n}" for n in range(60)])
    with ScriptServer(stream(f"data: {words}\n\n", f"data: {'x' * 500}\n\n", "data: \n\n")) as server:
        lines = terminal("-s", server.url).out.splitlines()
    assert max(map(len, lines)) < 40
    assert lines[-2:] == ["data: ", ""]
    assert re.findall(r"word\d+", " ".join(lines)) == words.split()
    assert sum(line.count("x") for line in lines) == 500
    assert {len(line) - len(line.lstrip()) for line in lines if line} <= {0, 2, 3}


def test_nothing_steers_the_terminal(terminal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Type, ID, data, JSON and values in it: control characters, C1 and bidi show up as escapes."""
    monkeypatch.setenv("NO_COLOR", "1")
    payload = json.dumps({"a": NASTY}, ensure_ascii=False)
    escaped = json.dumps({"a": NASTY + "\0"})
    blocks = [
        f"event: {NASTY}\nid: {NASTY}\ndata: {NASTY}\0\n\n",
        f"data: {payload}\n\ndata: {escaped}\n\n",
        'data: {"a": "\\ud83d \\u001b]0;x\\u0007 \\r"}\n\n',
        f"event: error\ndata: {NASTY}\n\n",
    ]
    for form in ([], ["--jsonl"], ["--text", "a"]):
        with ScriptServer(stream(*blocks)) as server:
            result = terminal(*form, server.url)
        for text in (result.out, result.err):
            assert not {c for c in text if c in NASTY or unicodedata.category(c) in ("Cc", "Cs")} - {"\n"}, form
        assert "\\x1b" in result.out or "\\u001b" in result.out
    for refused in (respond(500, NASTY), respond(200, NASTY, content_type="text/html; \x1b[31m\x9b")):
        with ScriptServer([refused]) as server:
            result = terminal(server.url)
        assert result.code == 22
        assert not {c for c in result.err if c in NASTY} - {"\n"}


def test_text_on_a_terminal_ends_with_a_line_end(terminal: Any) -> None:
    """The prompt comes on a line of its own, an error payload too."""
    with ScriptServer(stream(ANSWER)) as server:
        assert terminal("--text", DELTA, "-X", "POST", server.url) == (0, "It is.\n", "")
    with ScriptServer(stream('data: {"a": "x"}\n\ndata: {"error": "bad"}\n\n')) as server:
        result = terminal("--text", "a", "-s", server.url)
    assert (result.code, result.out) == (1, "x\n")


def test_text_ends_its_line_before_notes_and_errors(terminal: Any) -> None:
    """In the middle of an answer, a note, an error or a time limit begins a line of its own."""
    with ScriptServer(stream('data: {"a": "x"}\n\n')) as server:
        assert terminal("--text", "a", server.url).out == "x\n"
    with ScriptServer([CHUNKED, chunk('data: {"a": "x"}\n\n'), RESET]) as server:
        result = terminal("--text", "a", "--no-reconnect", server.url)
    assert (result.code, result.out) == (18, "x\n")
    with ScriptServer([SSE, 'data: {"a": "x"}\n\n', HOLD]) as server:
        result = terminal("--text", "a", "-m", "0.3", server.url)
    assert (result.code, result.out) in [(28, "x\n"), (28, "")]


# === Exit codes ===


def test_0_clean_end(run: Any) -> None:
    """204; the end of a POST; --until; --count; --no-reconnect."""
    with ScriptServer([NO_MORE]) as server:
        assert run(server.url) == (0, "", "")
    with ScriptServer(stream(event(1))) as server:
        assert run("-d", "x", server.url) == (0, "id: 1\ndata: 1\n\n", "")
    with ScriptServer([SSE, event(1), event(2), HOLD]) as server:
        assert run("--until", "2", server.url) == (0, "id: 1\ndata: 1\n\n", "")
    with ScriptServer([SSE, event(1), event(2), event(3), HOLD]) as server:
        assert run("-n", "2", server.url) == (0, "id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n", "")
    with ScriptServer(stream(event(1))) as server:
        assert run("--no-reconnect", server.url) == (0, "id: 1\ndata: 1\n\n", "")


def test_1_limit(run: Any) -> None:
    """An event beyond 16 Mi characters."""
    with ScriptServer([SSE, event(1), endless("data: " + "x" * 2**20 + "\n")]) as server:
        result = run("--jsonl", server.url)
    assert result.code == 1
    assert result.out.count("\n") == 1
    assert result.err == "sse: an event outgrew max_event_size=16777216 characters\n"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--bogus", "http://127.0.0.1/"],
        ["http://127.0.0.1/", "http://127.0.0.1/"],
        ["ftp://127.0.0.1/"],
        ["127.0.0.1"],
        ["http://127.0.0.1/a b"],
        ["-H", "no colon", "http://127.0.0.1/"],
        ["-H", ": x", "http://127.0.0.1/"],
        ["-H", "a: b\r\nc: d", "http://127.0.0.1/"],
        ["-H", "a b: c", "http://127.0.0.1/"],
        ["-X", "A B", "http://127.0.0.1/"],
        ["-d", "@/no/such/file", "http://127.0.0.1/"],
        ["--json", "@/no/such/file", "http://127.0.0.1/"],
        ["-x", "socks5://127.0.0.1:1080", "http://127.0.0.1/"],
        ["-m", "0", "http://127.0.0.1/"],
        ["-m", "nan", "http://127.0.0.1/"],
        ["-m", "soon", "http://127.0.0.1/"],
        ["-n", "0", "http://127.0.0.1/"],
        ["-n", "1.5", "http://127.0.0.1/"],
        ["--heartbeat-timeout", "0", "http://127.0.0.1/"],
        ["--max-retries", "-2", "http://127.0.0.1/"],
        ["--last-event-id", "a\nb", "http://127.0.0.1/"],
        ["--jsonl", "--text", "a", "http://127.0.0.1/"],
        ["-d", "a", "--json", "b", "http://127.0.0.1/"],
    ],
    ids=str,
)
def test_2_wrong_usage(run: Any, argv: list[str]) -> None:
    """Told on stderr, and nothing is sent."""
    result = run(*argv)
    assert (result.code, result.out) == (2, "")
    assert re.search(r"^sse: \S", result.err, re.MULTILINE)
    assert "Traceback" not in result.err


def test_7_no_connection(run: Any) -> None:
    """The first connection fails at once, without a retry."""
    with ReservedPort() as port:
        result = run(f"http://127.0.0.1:{port}/x?secret")
        posted = run("-d", "x", f"http://127.0.0.1:{port}/")
    assert (result.code, result.out) == (7, "")
    assert re.fullmatch(rf"sse: http://127\.0\.0\.1:{port}/x: connection failed: .*refused\n", result.err)
    assert posted.code == 7


def test_7_first_connection_without_an_answer(run: Any) -> None:
    """A connection that ends before its head is none."""
    with ScriptServer([RESET]) as server:
        assert run(server.url).code == 7
        assert len(server.requests) == 1


def test_7_retries_run_out(run: Any, quick: None) -> None:
    """With --max-retries the first connection is tried again as well."""
    with ReservedPort() as port:
        result = run("--max-retries", "2", f"http://127.0.0.1:{port}/")
    assert result.code == 7
    assert result.err.count("reconnecting in") == 2
    assert "after 2 reconnects" in result.err.splitlines()[-1]


def test_max_retries_waits_for_the_server(run: Any, quick: None) -> None:
    """The server that is still starting."""
    with ScriptServer([RESET], [RESET], [SSE, event(1), HOLD]) as server:
        result = run("--max-retries", "5", "-n", "1", server.url)
        assert (result.code, result.out) == (0, "id: 1\ndata: 1\n\n")
        assert result.err.count("reconnecting in") == 2


def test_7_lost_later(run: Any, quick: None) -> None:
    """Once a connection was there, losses are survived, up to --max-retries."""
    with ScriptServer([SSE, event(1)], then=[RESET]) as server:
        result = run("--max-retries", "2", server.url)
        assert (result.code, result.out) == (7, "id: 1\ndata: 1\n\n")
        assert len(server.requests) == 3


def test_7_untrusted_certificate(run: Any, authority: Any) -> None:
    """At once; -k accepts it."""
    with ScriptServer([SSE, event(1), HOLD], [SSE, event(1), HOLD], tls=authority.server()) as server:
        result = run("--max-retries", "5", server.url)
        assert (result.code, result.out) == (7, "")
        assert "certificate" in result.err
        assert result.err.count("\n") == 1
        assert run("-k", "-n", "1", server.url).code == 0


def test_7_without_httpclient(tmp_path: Path) -> None:
    """sse.py copied alone says what is missing."""
    shutil.copy(SSE_FILE, tmp_path)
    done = subprocess.run(
        [sys.executable, "-S", "sse.py", "http://127.0.0.1:9/"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 7
    assert "copy" in done.stderr
    assert "Traceback" not in done.stderr


def test_18_body_cut(run: Any) -> None:
    """A POST, or --no-reconnect, whose body ends before its last chunk, after the events before it."""
    with ScriptServer([CHUNKED, chunk(event(1)), RESET], [CHUNKED, chunk(event(1))]) as server:
        for argv in (["-d", "x"], ["--no-reconnect"]):
            result = run(*argv, server.url)
            assert (result.code, result.out) == (18, "id: 1\ndata: 1\n\n")
            assert re.fullmatch(r"sse: .*connection failed.*\n", result.err)


def test_18_before_until(run: Any) -> None:
    """A clean end that comes too early is none."""
    with ScriptServer([CHUNKED, chunk(event(1)), END_CHUNK]) as server:
        result = run("-X", "POST", "--until", "[DONE]", server.url)
    assert (result.code, result.out) == (18, "id: 1\ndata: 1\n\n")


@pytest.mark.parametrize("status", [301, 401, 404, 500, 503])
def test_22_http_error(run: Any, status: int) -> None:
    """With the body, which tells why, and without a retry."""
    answer = respond(status, '{"error": "because"}', content_type="text/event-stream")
    with ScriptServer([answer]) as server:
        result = run("--max-retries", "3", server.url)
        assert len(server.requests) == 1
    assert (result.code, result.out) == (22, "")
    assert re.fullmatch(rf'sse: .*{status}.*\{{"error": "because"\}}\n', result.err)


def test_22_wrong_content_type(run: Any) -> None:
    """A page is no stream."""
    with ScriptServer([respond(200, "<h1>Hello</h1>", content_type="text/html")]) as server:
        result = run(server.url)
    assert (result.code, result.out) == (22, "")
    assert "text/html" in result.err


def test_22_later(run: Any) -> None:
    """Also when the stream was there already."""
    with ScriptServer(stream(event(1)), [respond(404)]) as server:
        assert run("-s", server.url).code == 22


def test_28_max_time_connecting(run: Any) -> None:
    """No connection before the time is over."""
    with BlackHole() as hole:
        result = run("-m", "0.2", hole.url)
    assert (result.code, result.out) == (28, "")
    assert "--max-time" in result.err
    assert result.err.count("\n") == 1


def test_28_max_time_waiting_for_the_head(run: Any) -> None:
    """A connection, but no answer."""
    with ScriptServer([HOLD]) as server:
        assert run("-m", "0.2", server.url).code == 28


def test_28_max_time_reading(run: Any) -> None:
    """After what has come so far; a stream that never pauses ends as well."""
    with ScriptServer([SSE, event(1), HOLD], [SSE, endless(event(1), 0.005)]) as server:
        assert run("-m", "1", server.url) == (28, "id: 1\ndata: 1\n\n", "sse: --max-time: 1 s are over\n")
        result = run("-m", "0.5", "--jsonl", server.url)
        assert result.code == 28


def test_28_max_time_waiting_for_a_reconnect(run: Any) -> None:
    """However long that wait is; a POST that is cut by it is no lost body."""
    with ScriptServer([SSE, "retry: 50000\n\n", event(1)], [SSE, event(1), HOLD]) as server:
        result = run("-m", "1", server.url)
        assert result.code == 28
        assert "reconnecting in" in result.err
        assert run("-m", "0.3", "-d", "x", "--until", "y", server.url).code == 28


def test_max_time_that_is_not_needed(run: Any) -> None:
    """Its timer does not outlive the stream."""
    with ScriptServer([NO_MORE]) as server:
        assert run("-m", "50", server.url).code == 0


# === What is sent ===


def request(run: Any, *argv: str) -> Any:
    """The one request that the command line sends."""
    with ScriptServer([NO_MORE]) as server:
        result = run(*argv, server.url)
        assert (result.code, result.err) == (0, "")
        assert len(server.requests) == 1
        return server.requests[0]


def test_get(run: Any) -> None:
    """The client's own defaults."""
    got = request(run)
    assert (got.method, got.body, got["accept"]) == ("GET", b"", "text/event-stream")
    assert got["user-agent"] == f"stdsse/{sse.__version__}"
    assert got["last-event-id"] is got["content-type"] is got["authorization"] is None


def test_headers(run: Any) -> None:
    """Repeated, with colons and UTF-8 in the value, instead of defaults in any case; the last of two counts."""
    got = request(
        run,
        "-H",
        "Authorization: Bearer a:b",
        "--header",
        "X-U:1",
        "-H",
        "x-u:  2 ",
        "-H",
        "ACCEPT: */*",
    )
    assert (got["authorization"], got["x-u"], got["accept"]) == ("Bearer a:b", "2", "*/*")
    assert request(run, "-H", "X-E: é").headers.count(("x-e", "é")) == 1


def test_method(run: Any) -> None:
    """As given, in capitals."""
    assert request(run, "-X", "PUT").method == "PUT"
    assert request(run, "--request", "get", "-d", "x").method == "GET"


def test_data(run: Any, tmp_path: Path) -> None:
    """As in curl: a form; several are joined; files lose their line ends, text does not."""
    file = tmp_path / "data"
    file.write_bytes(b"a\r\nb\n\xff\0c")
    got = request(run, "-d", "x=1\n2", "--data", f"@{file}", "-d", "")
    assert (got.method, got.body) == ("POST", b"x=1\n2&ab\xffc&")
    assert got["content-type"] == "application/x-www-form-urlencoded"
    assert request(run, "-d", "").method == "POST"
    assert request(run, "-d", "é\udcff").body == b"\xc3\xa9\xff"
    assert request(run, "-d", "{}", "-H", "content-type: application/json")["content-type"] == "application/json"


def test_json(run: Any, tmp_path: Path) -> None:
    """As it is, with its content type; files keep their line ends."""
    file = tmp_path / "data.json"
    file.write_bytes(b'{"a":\n1}\n')
    got = request(run, "--json", f"@{file}")
    assert (got.method, got.body, got["content-type"]) == ("POST", b'{"a":\n1}\n', "application/json")
    assert got["accept"] == "text/event-stream"
    assert request(run, "--json", '{"é":1}').body == '{"é":1}'.encode()


@pytest.mark.parametrize(("option", "sent"), [("-d", b"a=1b"), ("--json", b"a=1\nb\n")])
def test_body_from_stdin(run: Any, monkeypatch: pytest.MonkeyPatch, option: str, sent: bytes) -> None:
    """`@-`."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a=1\nb\n")))
    assert request(run, option, "@-").body == sent


def test_user(run: Any) -> None:
    """Basic, in UTF-8; from the URL as well, where it never shows up; a header goes before."""
    for argv in (["-u", "mé:p:w"], ["--user", "mé:p:w"]):
        assert request(run, *argv)["authorization"] == "Basic " + base64.b64encode("mé:p:w".encode()).decode()
    assert request(run, "-u", "a:b", "-H", "authorization: Bearer x")["authorization"] == "Bearer x"
    with ReservedPort() as port:
        result = run(f"http://me:secret@127.0.0.1:{port}/?key=secret")
    assert result.code == 7
    assert "secret" not in result.err


def test_last_event_id(run: Any) -> None:
    """Asked for at once; the stream goes on from there."""
    assert request(run, "--last-event-id", "é7")["last-event-id"] == "é7"
    with ScriptServer(stream(event(8))) as server:
        run("--last-event-id", "7", "-s", server.url)
        assert [got["last-event-id"] for got in server.requests] == ["7", "8"]


def test_proxy(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By option, and by the environment."""
    for argv in (["-x"], ["--proxy"], []):
        with ScriptServer([NO_MORE]) as server:
            if argv:
                argv.append(server.origin)
            else:
                monkeypatch.setenv("http_proxy", server.origin)
            assert run(*argv, "http://stream.invalid/events").code == 0
            assert server.requests[0].target == "http://stream.invalid/events"


def test_options_of_curl_are_accepted(run: Any) -> None:
    """Redirects are followed with or without."""
    with ScriptServer([respond(302, location="/there"), READ, NO_MORE], then=[NO_MORE]) as server:
        assert run("-NsSL", "--no-buffer", "--silent", "--show-error", "--location", server.url) == (0, "", "")
        assert server.requests[-1].target == "/there"


# === The client's own options ===


def test_event_types(run: Any) -> None:
    """Only these are printed and counted; the rest still moves the last event ID."""
    blocks = [f"event: {name}\nid: {n}\ndata: {n}\n\n" for n, name in enumerate("abcab")] + ["data: m\n\n"]
    with ScriptServer([SSE, *blocks, HOLD], then=[SSE, *blocks, HOLD]) as server:
        assert (
            run("--event", "a", "-n", "2", server.url).out == "event: a\nid: 0\ndata: 0\n\nevent: a\nid: 3\ndata: 3\n\n"
        )
        result = run("--event", "c", "--event", "message", "-n", "2", "--jsonl", server.url)
        assert [json.loads(line)["data"] for line in result.out.splitlines()] == ["2", "m"]


def test_until(run: Any) -> None:
    """Not printed, in any form; a GET comes back until it is seen."""
    with ScriptServer(stream(event(1)), stream(event(2, "[DONE]"))) as server:
        assert run("--until", "[DONE]", "-s", server.url) == (0, "id: 1\ndata: 1\n\n", "")
    with ScriptServer([SSE, ANSWER, HOLD]) as server:
        assert run("--json", "{}", "--text", DELTA, "--until", "[DONE]", server.url) == (0, "It is.", "")


def test_heartbeat_timeout(run: Any) -> None:
    """A silent connection is given up."""
    with ScriptServer([SSE, "retry: 1\n\n", event(1), HOLD], [SSE, event(2), HOLD]) as server:
        result = run("--heartbeat-timeout", "0.5", "-n", "2", server.url)
        assert (result.code, result.out) == (0, "id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n")
        assert server.requests[1]["last-event-id"] == "1"
        assert result.err.count("reconnecting in") == 1


def test_reconnects_are_noted_once_and_without_secrets(run: Any) -> None:
    """On stderr, unless -s; the stream comes whole."""
    with ScriptServer(stream(event(1)), stream(event(2)), [CHUNKED, chunk(event(3)), RESET]) as server:
        result = run("--jsonl", server.url + "?key=secret")
    assert [json.loads(line)["id"] for line in result.out.splitlines()] == ["1", "2", "3"]
    assert result.err.count("reconnecting in") == result.err.count("\n") == 3
    assert "secret" not in result.err
    with ScriptServer(stream(event(1))) as server:
        assert run("-s", server.url).err == ""


def test_help_and_version(run: Any) -> None:
    """On stdout, with code 0."""
    result = run("--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("usage: sse ")
    assert run("-h") == result
    assert run("-V") == run("--version") == (0, f"sse {sse.__version__}\n", "")


# === Help and page ===

HELP_OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
PAGE = (DOCS / "cli.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^```sh\n(.*?)^```\n", PAGE, re.MULTILINE | re.DOTALL)


def test_page_and_help_agree(run: Any) -> None:
    """Each option and each exit status of one is in the other, with the metavariables."""
    text = run("--help").out
    options, _, rest = text.partition("examples:")
    table = re.findall(r"^\| (`-.*?`) \|", PAGE, re.MULTILINE)
    assert set(HELP_OPTION.findall(" ".join(table))) == set(HELP_OPTION.findall(options))
    shown = dict(re.findall(r"(--[\w-]+) ([A-Z:]+)\b", " ".join(table)))
    assert shown == dict(re.findall(r"(--[\w-]+) ([A-Z:]+)\b", options))
    assert set(HELP_OPTION.findall(re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL))) == set(
        HELP_OPTION.findall(options)
    )
    status = re.findall(r"\b(\d+) ", rest.partition("exit status:")[2])
    assert re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE) == status
    assert status == ["0", "1", "2", "7", "18", "22", "28", "130", "141"]


def test_help_fits_a_terminal(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    assert [line for line in run("--help").out.splitlines() if len(line) > 79] == []


def answer(connection: Connection) -> Any:
    """example.com in the examples."""
    got = connection.request
    if got.method == "POST":
        return [SSE, ANSWER if got.path == "/v1/chat/completions" else event(1, '{"topic": "news"}')]
    last = int(got["last-event-id"] or 0)
    if last >= 6:
        return NO_MORE
    return [SSE, "retry: 1\n\n", *[f"event: price\n{event(n)}" for n in range(last + 1, last + 4)]]


COMMANDS = [line for block in FENCED for line in re.sub(r"\\\n\s*", "", block).splitlines() if "sse " in line]
PRINTED = {"jq": "1\n2\n3\n4\n5\n6\n", "--text": "It is.", "--last-event-id": "event: price\nid: 3\ndata: 3\n\n"}


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize("command", COMMANDS)
def test_examples_of_the_page(command: str, tmp_path: Path) -> None:
    """Each of them runs and exits with 0."""
    if "jq " in command and not shutil.which("jq"):
        pytest.skip("needs jq")
    (tmp_path / "question.json").write_text('{"stream": true}')
    with ScriptServer(then=answer) as server:
        line = re.sub(r"https://(api\.)?example\.com", server.origin, command)
        assert "example.com" not in line
        shim = f'set -o pipefail; sse() {{ "{sys.executable}" "{SSE_FILE}" "$@"; }}; {line}'
        done = finished("bash", "-c", shim, cwd=tmp_path, env=environment(API_KEY="k"), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    out = done.stdout.decode()
    assert out == next((text for part, text in PRINTED.items() if part in command), out)


# === In a subprocess ===


def environment(**variables: str) -> dict[str, str]:
    """Ours, without what would change the output, or hide that it has to be flushed."""
    changing = ("NO_COLOR", "COLUMNS", "LINES", "PYTHONUNBUFFERED")
    env = {name: value for name, value in os.environ.items() if name not in changing}
    return {**env, "TERM": "xterm", **variables}


def finished(*argv: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A process that ends by itself."""
    return subprocess.run(argv, check=False, timeout=3 * WITHIN, **{"env": environment(), **options})


class Process:
    """The command line in a process of its own; stdout, and stderr unless it is the same terminal, are collected."""

    def __init__(self, *argv: str, columns: int = 0, stdin: bytes | None = None, **variables: str) -> None:
        program = [sys.executable, "-W", "error", str(SSE_FILE)] if argv[0] != "-c" else [sys.executable]
        self.master, slave = pty.openpty() if columns else (None, None)
        if slave is not None:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [*program, *argv],
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE if slave is None else slave,
            stderr=subprocess.PIPE if slave is None else slave,
            env=environment(**variables),
            bufsize=0,
        )
        if slave is not None:
            os.close(slave)
        if stdin is not None:
            self.process.stdin.write(stdin)
            self.process.stdin.close()
        self.out, self.err = "", ""
        self.decoders = [codecs.getincrementaldecoder("utf-8")() for _ in range(2)]
        self.open = {self.master: 0} if columns else {self.process.stdout.fileno(): 0, self.process.stderr.fileno(): 1}

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        if self.master is not None:
            os.close(self.master)

    def until(self, condition: Callable[[], object]) -> None:
        """Collects output until the condition is true."""
        deadline = time.monotonic() + WITHIN
        while not condition():
            assert time.monotonic() < deadline, f"has not come: out {self.out!r}, err {self.err!r}"
            self.collect()

    def collect(self) -> None:
        for fd in select.select([*self.open], [], [], 0.01)[0]:
            try:
                data = os.read(fd, 65536)
            except OSError:  # a terminal whose other side is closed
                data = b""
            if not data:
                del self.open[fd]
            text = self.decoders[self.open.get(fd, 0)].decode(data).replace("\r\n", "\n" if self.master else "\r\n")
            if self.open.get(fd):
                self.err += text
            else:
                self.out += text

    def end(self) -> int:
        """Collects everything; returns the exit code."""
        self.until(lambda: not self.open)
        return self.process.wait(WITHIN)


@pytest.fixture
def start(leaks: None) -> Iterator[Callable[..., Process]]:
    """`start(*argv)`: a Process that ends with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *argv, **options: stack.enter_context(Process(*argv, **options))


@pytest.mark.parametrize(
    ("argv", "body", "first", "second"),
    [
        ([], event(1), "id: 1\ndata: 1\n\n", "id: 2\ndata: 2\n\n"),
        (["--jsonl"], event(1), '{"event": "message", "data": "1", "id": "1", "retry": null}\n', None),
        (["--text", "a"], 'data: {"a": "x"}\n\n', "x", None),
    ],
    ids=["plain", "jsonl", "text"],
)
def test_each_event_is_flushed(start: Any, argv: list[str], body: str, first: str, second: str | None) -> None:
    """In a pipe, too, an event is there before the next is sent; half a line of --text as well."""
    gate = threading.Event()
    with ScriptServer([SSE, body, gate, event(2), HOLD]) as server:
        process = start(*argv, server.url)
        process.until(lambda: process.out)
        assert process.out == first
        gate.set()
        if second is not None:
            process.until(lambda: process.out == first + second)


def test_130_while_reading(start: Any) -> None:
    """Ctrl-C says nothing; what came before is there."""
    with ScriptServer([SSE, event(1), HOLD]) as server:
        process = start(server.url)
        process.until(lambda: process.out)
        process.process.send_signal(signal.SIGINT)
        assert (process.end(), process.out, process.err) == (130, "id: 1\ndata: 1\n\n", "")


def test_130_while_connecting(start: Any) -> None:
    """Before the first connection is there."""
    with BlackHole() as hole:
        process = start(hole.url)
        process.until(hole.connecting)
        process.process.send_signal(signal.SIGINT)
        assert (process.end(), process.out, process.err) == (130, "", "")


def test_130_while_waiting(start: Any) -> None:
    """Before a reconnect."""
    with ScriptServer([SSE, "retry: 50000\n\n"]) as server:
        process = start(server.url)
        process.until(lambda: "reconnecting" in process.err)
        process.process.send_signal(signal.SIGINT)
        assert process.end() == 130
        assert process.err.count("\n") == 1


def test_130_while_reading_the_body(start: Any) -> None:
    """From a stdin on which nothing comes."""
    read, write = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, read)
        stack.callback(os.close, write)
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, str(SSE_FILE), "-d", "@-", "http://127.0.0.1:9/"],
                stdin=read,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
            )
        )
        os.write(write, b"x")
        deadline = time.monotonic() + WITHIN
        while struct.unpack("i", fcntl.ioctl(read, termios.FIONREAD, b"1234"))[0]:  # nobody has read it yet
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WITHIN)
        assert (process.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize("argv", [[], ["--jsonl"], ["--text", "a"], ["-v"]], ids=str)
def test_141_closed_pipe(start: Any, argv: list[str]) -> None:
    """As `| head -1`: no traceback, and nothing from the interpreter at its end."""
    gate = threading.Event()
    with ScriptServer([SSE, 'data: {"a": "x"}\n\n', gate, endless('data: {"a": "x"}\n\n', 0.01)]) as server:
        process = start(*argv, server.url)
        process.until(lambda: process.out)
        del process.open[process.process.stdout.fileno()]
        process.process.stdout.close()
        gate.set()
        assert process.end() == 141
        if not argv:
            assert process.err == ""
        assert "Traceback" not in process.err
        assert "Exception" not in process.err


def test_141_with_head(tmp_path: Path) -> None:
    """The real thing, through a shell."""
    with ScriptServer([SSE, endless(event(1), 0.001)]) as server:
        command = f'"{sys.executable}" "{SSE_FILE}" --jsonl "{server.url}" | head -1; echo "${{PIPESTATUS[0]}}"'
        done = finished("bash", "-c", command, capture_output=True)
    line, code = done.stdout.splitlines()
    assert json.loads(line)["data"] == "1"
    assert (code, done.stderr) == (b"141", b"")


def test_141_closed_stderr(start: Any) -> None:
    """A pipe for both, closed: notes and the log end quietly as well."""
    gate = threading.Event()
    with ScriptServer([SSE, "retry: 1\n\n", event(1), gate], then=[SSE, event(2), HOLD]) as server:
        process = start(server.url)
        process.until(lambda: process.out)
        process.open.clear()
        process.process.stdout.close()
        process.process.stderr.close()
        gate.set()
        assert process.process.wait(WITHIN) == 141


@pytest.mark.parametrize("argv", [["--help"], ["--version"]], ids=str)
def test_help_into_a_closed_pipe(argv: list[str]) -> None:
    """`sse --help | true`."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as out:  # noqa: PTH123
        done = finished(sys.executable, str(SSE_FILE), *argv, stdout=out, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk() -> None:
    """An output that cannot be written ends the stream; the reason is on stderr."""
    with ScriptServer([SSE, event(1), HOLD]) as server, Path("/dev/full").open("wb") as full:
        done = finished(sys.executable, str(SSE_FILE), server.url, stdout=full, stderr=subprocess.PIPE)
    assert re.fullmatch(rb"sse: .*No space left.*\n", done.stderr)
    assert done.returncode == 1


def test_verbose(start: Any) -> None:
    """Connections, comments and reconnects on stderr, each once; stdout stays what it is."""
    script = [SSE, "retry: 1\n\n: ping \x1b[31m\n", event(1)]
    with ScriptServer(script, [SSE, ": pong\n", event(2), HOLD]) as server:
        process = start("-v", "-n", "2", server.url + "?key=secret")
        assert process.end() == 0
        assert process.out == "id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n"
    assert all(line.startswith("sse: ") for line in process.err.splitlines()), process.err
    assert process.err.count("open") == 2
    assert process.err.count("reconnecting in") == 1
    assert "comment: ping \\x1b[31m\n" in process.err
    assert "comment: pong\n" in process.err
    assert "secret" not in process.err


def test_watching_ends_with_the_stream(run: Any) -> None:
    """In process: the threads that watch for silence and the time end too, which `run` checks."""
    with ScriptServer([SSE, event(1), HOLD]) as server:
        assert run("-v", "-m", "60", "-n", "1", server.url).code == 0


IMPATIENT = """
import sys, time
sys.path.insert(0, sys.argv.pop(1))
import sse, threading
sleep, wait = time.sleep, threading.Event.wait
time.sleep = lambda s: sleep(s / 100 if s >= 10 else s)
threading.Event.wait = lambda event, s=None: wait(event, s / 100 if s and s >= 10 else s)
sys.exit(sse.main())
"""


@pytest.mark.parametrize("script", [[SSE, HOLD], [SSE, event(1), HOLD]], ids=["empty", "one event"])
def test_verbose_on_a_quiet_stream(start: Any, script: list[Any]) -> None:
    """Every half minute (here faster) the last activity and the number of events."""
    with ScriptServer(script) as server:
        process = start("-c", IMPATIENT, str(SSE_FILE.parent), "-v", server.url)
        process.until(lambda: process.err.count("last activity") >= 2)
        assert f"{len(script) - 2} event" in process.err
        process.process.send_signal(signal.SIGINT)
        assert process.end() == 130
        assert "Traceback" not in process.err


def test_terminal(start: Any) -> None:
    """A real one: its width, its colours, its line ends."""
    with ScriptServer([SSE, "event: tick\nid: 1\n" + event("1", "word " * 30), HOLD]) as server:
        process = start("-n", "1", server.url, columns=50)
        assert process.end() == 0
    head, id, *lines = process.out.splitlines()
    assert [re.sub(r"\x1b\[[\d;]*m", "", line) for line in (head, id)] == ["event: tick", "id: 1"]
    assert "\x1b[" in head
    assert 40 < max(map(len, lines)) < 50
    assert " ".join(lines).split() == ["data:", *["word"] * 30]


def test_terminal_without_colours(start: Any) -> None:
    """NO_COLOR, in a real terminal."""
    with ScriptServer(stream(f"event: tick\ndata: {NASTY}\n\n")) as server:
        process = start(server.url, columns=70, NO_COLOR="1")
        assert process.end() == 0
    assert not set(process.out) & set(NASTY)
    assert "reconnecting in" in process.out


def test_terminal_ctrl_c(start: Any) -> None:
    """In the middle of an answer: the prompt comes on a line of its own."""
    with ScriptServer([SSE, 'data: {"a": "It "}\n\n', HOLD]) as server:
        process = start("--text", "a", server.url, columns=80)
        process.until(lambda: process.out == "It ")
        process.process.send_signal(signal.SIGINT)
        assert process.end() == 130
    assert process.out == "It \n"


@pytest.mark.parametrize(("option", "sent"), [("-d", b"a=1b"), ("--json", b"a=1\nb")])
def test_body_from_a_pipe(start: Any, option: str, sent: bytes) -> None:
    """`echo ... | sse -d @-`."""
    with ScriptServer([NO_MORE]) as server:
        assert start(option, "@-", server.url, stdin=b"a=1\nb").end() == 0
        assert server.requests[0].body == sent


def test_as_a_module() -> None:
    """`python -m sse`."""
    done = finished(sys.executable, "-m", "sse", "--version", cwd=SSE_FILE.parent, capture_output=True)
    assert (done.returncode, done.stdout.decode()) == (0, f"sse {sse.__version__}\n")


def test_long_line_costs_time_in_proportion(terminal: Any) -> None:
    """Four times the line, about four times the time: wrapping does not go through the rest again for each line."""

    def cost(size: int) -> float:
        with ScriptServer([SSE, f"data: {'x' * size}\n\n", HOLD]) as server:
            started = time.process_time()
            assert terminal("-n", "1", server.url).code == 0
            return time.process_time() - started

    small, big = (min(cost(size) for _ in range(2)) for size in (1_000_000, 4_000_000))
    assert big < small * 4 * 2


def test_codes_are_those_of_the_contract() -> None:
    """Every code of the page is tested by its number above."""
    tests = set(re.findall(r"^def test_(\d+)_", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE))
    codes = set(re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE))
    assert tests == codes


# === What nobody has opened ===


@pytest.mark.parametrize(
    ("closed", "argv", "code"),
    [
        ("2>&-", ["http://127.0.0.1:{port}/"], 7),
        ("2>&-", ["--nonsense"], 2),
        ("2>&- >&-", ["http://127.0.0.1:{port}/"], 7),
        (">&-", ["--version"], 0),
        ("<&-", ["-d", "@-", "http://127.0.0.1:{port}/"], 2),
    ],
)
def test_closed_standard_streams(closed: str, argv: list[str], code: int) -> None:
    """As daemons have them: the exit status is the same, and nothing is said about it."""
    with ReservedPort() as port:
        command = " ".join([sys.executable, str(SSE_FILE), *argv]).format(port=port)
        done = finished("sh", "-c", f"{command} {closed}", capture_output=True)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr


def test_closed_stderr_ends_no_stream() -> None:
    """A note of a reconnect that nobody can see."""
    with ScriptServer(stream(event(1)), stream(event(2))) as server:
        command = f"{sys.executable} {SSE_FILE} -n 2 {server.url} 2>&-"
        done = finished("sh", "-c", command, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, b"id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n")


def test_7_clean_end_without_a_retry_left(run: Any) -> None:
    """Nothing was cut; with --until it was."""
    with ScriptServer(then=respond(200, event(1), content_type="text/event-stream")) as server:
        assert run("--max-retries", "0", server.url).code == 7
        assert run("--max-retries", "0", "--until", "x", server.url).code == 18


def test_2_what_httpclient_refuses(run: Any) -> None:
    for argv in (["http://a..b/"], ["-H", "Content-Length: 5", "http://127.0.0.1/"]):
        assert run(*argv).code == 2


def test_user_without_a_password(run: Any) -> None:
    """As in a URL: an empty one."""
    assert request(run, "-u", "bob")["authorization"] == "Basic " + base64.b64encode(b"bob:").decode()


def test_json_on_one_line_is_shown_as_it_is(terminal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are not rounded, nor members dropped."""
    monkeypatch.setenv("NO_COLOR", "1")
    lines = ["1.10", "1e400", "-0", '{"a":1,"a":2}', "12345678901234567890.123456789"]
    with ScriptServer(stream(*[f"data: {line}\n\n" for line in lines])) as server:
        assert terminal("-s", server.url).out == "".join([f"data: {line}\n\n" for line in lines])
