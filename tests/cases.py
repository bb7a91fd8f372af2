"""The table of event streams and what they come to.

`CONFORMANCE` is what browsers make of them (conformance.json); `OWN` is what that list leaves out, what the contract
adds to the standard, and what other parsers got wrong.
"""

from __future__ import annotations

import base64
import json
import pathlib
from typing import Any, NamedTuple

RETRY_CAP = 2**31 - 1
CAT = "\U0001f408"

Expected = tuple[str, str, str, "int | None"]


class Case(NamedTuple):
    """One stream and what it comes to."""

    name: str
    stream: bytes
    events: list[Expected]
    """(event, data, id, retry) of each event"""
    last_event_id: str
    retry: int | None
    comments: list[str] | None
    """None: the list does not tell"""
    why: str


def load_conformance() -> list[Case]:
    """Read conformance.json. It leaves open how far large retry values are clamped; the contract does not."""

    def clamped(retry: Any) -> int | None:
        if isinstance(retry, dict):
            assert retry == {"min": RETRY_CAP}
            return RETRY_CAP
        return retry

    return [
        Case(
            case["name"],
            base64.b64decode(case["input"]),
            [(event["event"], event["data"], event["id"], clamped(event["retry"])) for event in case["events"]],
            case["last_event_id"],
            clamped(case["retry"]),
            None,
            "so do browsers",
        )
        for case in json.loads((pathlib.Path(__file__).parent / "conformance.json").read_text("utf-8"))
    ]


def message(data: str, event: str = "message", id: str = "", retry: int | None = None) -> Expected:
    """Return an expected event, its data first."""
    return (event, data, id, retry)


def own(
    name: str,
    stream: bytes | str,
    *events: Expected,
    why: str,
    last_event_id: str | None = None,
    retry: int | None = None,
    comments: tuple[str, ...] = (),
) -> Case:
    """Return a case of ours; the last event ID is that of the last event unless told."""
    if last_event_id is None:
        last_event_id = events[-1][2] if events else ""
    stream = stream.encode() if isinstance(stream, str) else stream
    return Case("own-" + name, stream, list(events), last_event_id, retry, list(comments), why)


CONFORMANCE = load_conformance()

OWN = [
    # Line ends
    own(
        "cr-then-bom",
        "data: a\r\r\ufeffdata: b\r\rdata: c\r\r",
        message("a"),
        message("c"),
        why="only a first BOM is one",
    ),
    own(
        "crlf-between-blocks",
        "\r\ndata: a\r\n\r\n\r\ndata: b\r\n\r\n",
        message("a"),
        message("b"),
        why="blank lines are free",
    ),
    own("lf-cr-lf", "data: a\n\r\ndata: b\n\r\n", message("a"), message("b"), why="LF CRLF is two line ends"),
    own("cr-lf-lf", "data: a\r\n\ndata: b\r\n\n", message("a"), message("b"), why="CRLF LF is two line ends"),
    own("cr-cr-inside-lf", "data: a\ndata: b\r\rdata: c\n\n", message("a\nb"), message("c"), why="CRs in an LF stream"),
    own("cr-in-json", 'data: {"a":\rdata: 1}\r\n\r\n', message('{"a":\n1}'), why="a CR ends a line among CRLFs"),
    own(
        "one-crlf-among-lf",
        "data: a\n\ndata: b\r\n\r\ndata: c\n\n",
        message("a"),
        message("b"),
        message("c"),
        why="mixed",
    ),
    own(
        "file-separators-in-names",
        "da\x1cta: a\ndata\x85: b\ndata: c\n\n",
        message("c"),
        why="str.splitlines splits there",
    ),
    own(
        "substitute-and-delete",
        "data: a\x1a\x7fb\n\n",
        message("a\x1a\x7fb"),
        why="Ctrl-Z ends files on some systems only",
    ),
    own("only-line-ends", "\n\r\n\r\r\n\n", why="nothing to dispatch"),
    # Byte order marks and decoding
    own("bom-before-comment", "\ufeff: hi\ndata: a\n\n", message("a"), comments=("hi",), why="a BOM hides no comment"),
    own("bom-then-cr", "\ufeff\rdata: a\r\r", message("a"), why="a first line may be blank"),
    own("bom-in-bytes-cut", b"\xef\xbb\xbfdata: a\n\n", message("a"), why="each byte of the BOM may come alone"),
    own("no-bom-but-its-first-bytes", b"\xef\xbb\xbedata: a\ndata: b\n\n", message("b"), why="U+FFFE is no BOM"),
    own("bom-after-bad-byte", b"\xff\xef\xbb\xbfdata: a\ndata: b\n\n", message("b"), why="U+FFFD came first"),
    own("four-bytes", f"event: {CAT}\nid: {CAT}\ndata: {CAT}\n\n", message(CAT, CAT, CAT), why="beyond the BMP"),
    own(
        "bad-bytes-at-line-ends",
        b"data: \xf0\x9f\ndata: \xf0\r\n\xc3\n\n",
        message("\ufffd\n\ufffd"),
        why="a cut character ends with its line",
    ),
    own("bad-byte-before-colon", b"data\xc3: a\ndata: b\xc3\n\n", message("b\ufffd"), why="another field name"),
    own(
        "latin-1",
        "data: caf\xe9\n\n".encode("latin-1"),
        message("caf\ufffd"),
        why="streams are UTF-8 whatever they claim",
    ),
    own("utf-16", "data: a\n\n".encode("utf-16-le"), why="NULs everywhere: no field has a known name"),
    # Fields
    own(
        "case-matters",
        "DATA: a\nData: b\ndata: c\nEvent: e\nID: 1\nRetry: 2\n\n",
        message("c"),
        why="compared literally",
    ),
    own("leading-colon-twice", "::data: a\ndata: b\n\n", message("b"), comments=(":data: a",), why="a comment"),
    own("prefix-of-a-name", "dat: a\ndat\nd\ndata: b\neven: e\ni: 1\nretr: 2\n\n", message("b"), why="other fields"),
    own(
        "name-as-a-prefix",
        "database: a\ndata2\nevents: e\nidea: 1\nretry-after: 2\ndata: b\n\n",
        message("b"),
        why="other fields",
    ),
    own(
        "no-colon",
        "data\nevent\nid\nretry\n\n",
        message(""),
        why="a line without a colon is a name with an empty value",
    ),
    own("space-only-value", "data: \ndata:  \ndata:\n\n", message("\n \n"), why="one space goes, not all"),
    own("tab-stays", "data:\ta\nevent:\te\nid:\t1\n\n", message("\ta", "\te", "\t1"), why="only a space goes"),
    own(
        "wide-spaces-stay",
        "data:\u3000a\ndata:\xa0b\ndata: \u2003c\n\n",
        message("\u3000a\n\xa0b\n\u2003c"),
        why="only U+0020 goes",
    ),
    own(
        "values-are-not-stripped",
        "event:  e \nid:  1 \ndata:  a \n\n",
        message(" a ", " e ", " 1 "),
        why="one space goes",
    ),
    own(
        "data-between",
        "data: a\nevent: e\ndata: b\nid: 1\ndata: c\n\n",
        message("a\nb\nc", "e", "1"),
        why="order does not matter",
    ),
    own("newline-escapes", "data: a\\nb\\r\\u2028\n\n", message("a\\nb\\r\\u2028"), why="there are no escapes"),
    own("message-by-name", "event: message\ndata: a\n\n", message("a"), why="the default, spelt out"),
    own("event-space", "event:  \ndata: a\n\n", message("a", " "), why="a type of one space is one"),
    own(
        "event-without-data-then-data",
        "event: e\n\ndata: a\n\n",
        message("a"),
        why="the type does not outlive its block",
    ),
    own("event-after-data", "data: a\nevent: e\n\ndata: b\n\n", message("a", "e"), message("b"), why="nor here"),
    own("unfinished-data-then-end", "data: a\n\ndata: b\ndata: c", message("a"), why="discarded at the end"),
    own("unfinished-cr", "data: a\n\ndata: b\r", message("a"), why="a line is complete, its block is not"),
    # Last event IDs
    own("id-counts-without-data", "id: 7\n\n", last_event_id="7", why="once its blank line has come"),
    own(
        "id-after-a-comment-block",
        "id: 7\n: c\n\n",
        last_event_id="7",
        comments=("c",),
        why="a comment changes nothing",
    ),
    own(
        "id-of-an-unfinished-block",
        "id: 1\ndata: a\n\nid: 2\ndata: b\n",
        message("a", id="1"),
        why="resuming after 2 would lose b",
    ),
    own("id-cleared-in-an-unfinished-block", "id: 1\n\nid\n", last_event_id="1", why="nor does clearing count"),
    own(
        "id-nul-then-good",
        "id: 1\nid: \0\nid: 2\0\ndata: a\n\n",
        message("a", id="1"),
        why="NUL: ignored, the first stays",
    ),
    own("id-cleared-then-set", "id: 1\nid:\nid: 3\ndata: a\n\n", message("a", id="3"), why="the last of a block wins"),
    own(
        "id-cleared-by-bare-name",
        "id: 1\ndata: a\n\nid\ndata: b\n\n",
        message("a", id="1"),
        message("b"),
        why="empty clears",
    ),
    own(
        "id-cleared-without-data",
        "id: 1\ndata: a\n\nid:\n\n",
        message("a", id="1"),
        last_event_id="",
        why="clears, no event",
    ),
    own("id-separators", "id: a\x0bb\u2028c\ndata: x\n\n", message("x", id="a\x0bb\u2028c"), why="no line ends"),
    own(
        "id-inherited-thrice",
        "id: 1\ndata: a\n\ndata: b\n\n: c\n\ndata: d\n\n",
        message("a", id="1"),
        message("b", id="1"),
        message("d", id="1"),
        comments=("c",),
        why="persists until changed",
    ),
    # Reconnection times
    own("retry-zero", "retry: 0\n\n", retry=0, why="none is not no time"),
    own("retry-zeros", "retry: 000\ndata: a\n\n", message("a", retry=0), retry=0, why="all digits"),
    own(
        "retry-below-cap",
        "retry: 2147483646\ndata: a\n\n",
        message("a", retry=RETRY_CAP - 1),
        retry=RETRY_CAP - 1,
        why="as it is",
    ),
    own(
        "retry-at-cap", "retry: 2147483647\ndata: a\n\n", message("a", retry=RETRY_CAP), retry=RETRY_CAP, why="as it is"
    ),
    own(
        "retry-above-cap",
        "retry: 2147483648\ndata: a\n\n",
        message("a", retry=RETRY_CAP),
        retry=RETRY_CAP,
        why="capped",
    ),
    own("retry-leading-zeros-at-cap", f"retry: {'0' * 30}2147483647\n\n", retry=RETRY_CAP, why="length is not size"),
    own("retry-leading-zeros", f"retry: {'0' * 9000}12\n\n", retry=12, why="int() refuses 4300 digits"),
    own("retry-9000-digits", f"retry: {'9' * 9000}\n\n", retry=RETRY_CAP, why="int() refuses 4300 digits"),
    own("retry-9000-digits-and-more", f"retry: {'9' * 9000}.\n\n", why="not all digits"),
    own("retry-takes-effect-on-its-line", "retry: 5\n", retry=5, why="no blank line needed"),
    own("retry-without-its-line-end", "retry: 5", why="the line may go on"),
    own(
        "retry-stays-with-its-block",
        "retry: 5\n\ndata: a\n\n",
        message("a"),
        retry=5,
        why="an event tells its own block's",
    ),
    own(
        "retry-after-data",
        "data: a\nretry: 5\n\ndata: b\n\n",
        message("a", retry=5),
        message("b"),
        retry=5,
        why="likewise",
    ),
    own(
        "retry-last-valid-wins",
        "retry: 5\nretry: 6\nretry: x\ndata: a\n\n",
        message("a", retry=6),
        retry=6,
        why="x is ignored",
    ),
    own("retry-bare-name", "retry: 5\n\nretry\ndata: a\n\n", message("a"), retry=5, why="empty is not a number"),
    own("retry-underscore", "retry: 1_000\ndata: a\n\n", message("a"), why="int() takes it, the standard does not"),
    own("retry-fraction", "retry: 5.0\ndata: a\n\n", message("a"), why="not all digits"),
    own("retry-hexadecimal", "retry: 0x10\ndata: a\n\n", message("a"), why="not all digits"),
    own("retry-exponent", "retry: 1e3\ndata: a\n\n", message("a"), why="not all digits"),
    own("retry-fullwidth", "retry: \uff15\ndata: a\n\n", message("a"), why="str.isdigit and int() take it"),
    own("retry-arabic", "retry: \u0665\ndata: a\n\n", message("a"), why="str.isdecimal and int() take it"),
    own("retry-circled", "retry: \u2460\ndata: a\n\n", message("a"), why="str.isdigit takes it and int() raises"),
    own("retry-trailing-separator", "retry: 5\u2028\ndata: a\n\n", message("a"), why="int() strips it"),
    own("retry-trailing-nul", "retry: 5\0\ndata: a\n\n", message("a"), why="not all digits"),
    own("retry-two-numbers", "retry: 5 6\ndata: a\n\n", message("a"), why="not all digits"),
    # Comments
    own(
        "comment-spaces", ": a\n:b\n:  c\n: \n:\n:\td\n", comments=("a", "b", " c", "", "", "\td"), why="one space goes"
    ),
    own("comment-trailing-space", ": a \n", comments=("a ",), why="nothing else goes"),
    own("comment-unicode", f": {CAT}\u2028x\n", comments=(f"{CAT}\u2028x",), why="a comment is text like any other"),
    own("comment-in-a-block", "data: a\n: c\ndata: b\n\n", message("a\nb"), comments=("c",), why="a block goes on"),
    own("comment-unfinished", ": a\n: b", comments=("a",), why="not complete, not reported"),
    own("comment-of-crs", ": a\r: b\r\n: c\n", comments=("a", "b", "c"), why="any line end"),
    own(
        "pings-between-events",
        ": ping\n\ndata: a\n\n: ping\n\ndata: b\n\n",
        message("a"),
        message("b"),
        comments=("ping", "ping"),
        why="keep-alive",
    ),
    own(
        "comment-before-event", ": ping\ndata: a\n\n", message("a"), comments=("ping",), why="in the event's own block"
    ),
]

STREAMS = CONFORMANCE + OWN
