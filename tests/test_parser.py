"""SSEEvent and SSEParser: every case in every slicing, limits, errors, comments, reset, and linear cost."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import pickle
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

import reference
import sse
from cases import CAT, OWN, RETRY_CAP, STREAMS, Case
from helpers import parse, plain, slicings

every_case = pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.name)


# === Events ===


def test_event_defaults() -> None:
    """Without arguments an event is what a lone `data:` dispatches."""
    event = sse.SSEEvent()
    assert plain([event]) == [("message", "", "", None)]
    assert sse.SSEParser().feed(b"data:\n\n") == [event]


def test_event_takes_its_fields_by_position_and_by_name() -> None:
    """The order is event, data, id, retry."""
    event = sse.SSEEvent("tick", "1", "7", 500)
    assert plain([event]) == [("tick", "1", "7", 500)]
    assert event == sse.SSEEvent(retry=500, id="7", data="1", event="tick")
    with pytest.raises(TypeError):
        sse.SSEEvent("tick", "1", "7", 500, None)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        sse.SSEEvent(type="tick")  # type: ignore[call-arg]


def made() -> sse.SSEEvent:
    """Return an event from its constructor."""
    return sse.SSEEvent("tick", "1\n2", "7", 500)


def parsed() -> sse.SSEEvent:
    """Return the same event from a parser, line by line."""
    [event] = sse.SSEParser().feed("event: tick\ndata: 1\nid: 7\nretry: 500\ndata: 2\n\n")
    return event


def parsed_in_common_shape() -> sse.SSEEvent:
    """Return an event like it from a block of the shape most servers send."""
    [event] = sse.SSEParser().feed(b"id: 7\nevent: tick\ndata: 1\ndata: 2\n\n")
    return event


either = pytest.mark.parametrize("make", [made, parsed, parsed_in_common_shape])


@either
def test_event_is_frozen(make: Callable[[], sse.SSEEvent]) -> None:
    """Nothing of an event can be set or deleted, nor anything added."""
    event = make()
    before = plain([event])
    for name in ("event", "data", "id", "retry", "other"):
        with pytest.raises(dataclasses.FrozenInstanceError, match=name):
            setattr(event, name, "x")
        with pytest.raises(dataclasses.FrozenInstanceError, match=name):
            delattr(event, name)
    assert plain([event]) == before


@either
def test_event_is_of_its_class_and_copies(make: Callable[[], sse.SSEEvent]) -> None:
    """Pickling and copying give an equal SSEEvent."""
    event = make()
    assert type(event) is sse.SSEEvent
    copies = [pickle.loads(pickle.dumps(event, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in [*copies, copy.copy(event), copy.deepcopy(event)]:
        assert type(other) is sse.SSEEvent
        assert other == event
        assert hash(other) == hash(event)
        assert plain([other]) == plain([event])


@either
def test_event_is_a_dataclass(make: Callable[[], sse.SSEEvent]) -> None:
    """The functions of `dataclasses` work on it."""
    event = make()
    as_dict = {"event": "tick", "data": "1\n2", "id": "7", "retry": event.retry}
    assert dataclasses.is_dataclass(event)
    assert dataclasses.is_dataclass(sse.SSEEvent)
    assert [field.name for field in dataclasses.fields(event)] == list(as_dict)
    assert [field.default for field in dataclasses.fields(sse.SSEEvent)] == ["message", "", "", None]
    assert dataclasses.asdict(event) == as_dict
    assert dataclasses.astuple(event) == tuple(as_dict.values())
    other = dataclasses.replace(event, data="3", retry=None)
    assert type(other) is sse.SSEEvent
    assert plain([other, event]) == [("tick", "3", "7", None), tuple(as_dict.values())]
    with pytest.raises(TypeError):
        dataclasses.replace(event, other=1)  # type: ignore[call-arg]
    if sys.version_info >= (3, 13):
        assert copy.replace(event, event="tock") == sse.SSEEvent("tock", "1\n2", "7", event.retry)


def test_event_equality_and_hash() -> None:
    """Events are equal if all fields are, to nothing else, and can be in sets."""
    event = made()
    assert event == parsed()
    assert hash(event) == hash(parsed())
    assert {event, parsed(), parsed_in_common_shape()} == {event, parsed_in_common_shape()}
    for changed in ({"event": "x"}, {"data": "x"}, {"id": "x"}, {"retry": 1}, {"retry": None}):
        assert dataclasses.replace(event, **changed) != event
    assert event != ("tick", "1\n2", "7", 500)
    assert event != "tick"
    assert event.__eq__(object()) is NotImplemented


def test_event_has_no_order() -> None:
    """Events do not compare as more or less."""
    with pytest.raises(TypeError):
        made() < made()  # type: ignore[operator]  # noqa: B015


def test_event_repr() -> None:
    """It shows the fields, and stays short whatever their length."""
    text = repr(sse.SSEEvent("tick", "1\n2", "7", 500))
    assert text.startswith("SSEEvent(")
    assert all(part in text for part in ("'tick'", r"'1\n2'", "'7'", "500"))
    assert len(repr(sse.SSEEvent("e" * 10**6, "d" * 10**6, "i" * 10**6, 1))) < 500
    assert repr(sse.SSEEvent(data="d" * 10**6)) != repr(sse.SSEEvent(data="d" * 50))
    assert eval(repr(sse.SSEEvent(data="x")), {"SSEEvent": sse.SSEEvent}) == sse.SSEEvent(data="x")


def test_event_json() -> None:
    """`json()` decodes the data and raises what `json.loads` does."""
    assert sse.SSEEvent(data='{"a": [1, null, "\u00e9"]}').json() == {"a": [1, None, "\u00e9"]}
    assert sse.SSEEvent(data="{\n}").json() == {}
    for data in ("", "[DONE]", "{", '{"a": 1} x'):
        with pytest.raises(ValueError, match="line 1 column") as error:
            sse.SSEEvent(data=data).json()
        assert isinstance(error.value, json.JSONDecodeError)


def test_event_matches_by_position() -> None:
    """A match statement takes an event apart in the order of its fields."""
    match parsed():
        case sse.SSEEvent("tick", data, id, retry):
            assert (data, id, retry) == ("1\n2", "7", 500)
        case _:
            pytest.fail("no match")


# === Every case in every slicing ===


def expected(case: Case) -> reference.Outcome:
    """Return what the case must come to; comments as the reference has them, where the table does not tell."""
    comments = reference.parse(case.stream).comments if case.comments is None else case.comments
    return reference.Outcome(case.events, case.last_event_id, case.retry, comments, None)


@every_case
def test_reference_agrees_with_the_table(case: Case) -> None:
    """The reference parser is right where the table tells, so it can be trusted elsewhere."""
    assert reference.parse(case.stream) == expected(case), case.why


@every_case
def test_bytes_in_every_slicing(case: Case) -> None:
    """However bytes are sliced, the events are those of the table."""
    for slices in slicings(case.stream):
        assert parse(slices) == expected(case), (case.why, slices)


@every_case
def test_text_in_every_slicing(case: Case) -> None:
    """However text is sliced, the events are those of the table."""
    for slices in slicings(case.stream.decode("utf-8", "replace")):
        assert parse(slices) == expected(case), (case.why, slices)


@every_case
def test_lines(case: Case) -> None:
    """Line by line the events are the same; what follows the last line end is no line."""
    comments: list[str] = []
    parser = sse.SSEParser(on_comment=comments.append)
    lines, _ = reference.split_lines(case.stream.decode("utf-8", "replace"))
    events = [event for event in map(parser.feed_line, lines) if event is not None]
    assert reference.Outcome(plain(events), parser.last_event_id, parser.retry, comments, None) == expected(case)


@every_case
def test_events_come_with_the_bytes_that_complete_them(case: Case) -> None:
    """After any first part of a stream, events, state and comments are as far as that part goes."""
    for cut in range(0, len(case.stream), 1 + len(case.stream) // 200):
        part = case.stream[:cut]
        assert parse([part]) == reference.parse(part), part


def test_blocks_of_common_shapes() -> None:
    """Fields in all the ways they can be written, present and absent, in two orders: a fast path has no other rules."""
    ids = ("", "id: 1\n", "id:1\n", "id:  1\n", "id: 1 \n", "id:\n", "id: \n", "id\n", "id: 1\0\n", "id: 1\nid: 2\n")
    types = (
        "",
        "event: e\n",
        "event:e\n",
        "event:  e\n",
        "event: e \n",
        "event:\n",
        "event: \n",
        "event\n",
        "event: message\n",
    )
    values = (
        "data: x\n",
        "data:x\n",
        "data:  x\n",
        "data: x \n",
        "data:\n",
        "data: \n",
        "data\n",
        "data:\tx\n",
        "data::\n",
        "",
    )
    more = ("", "data: y\n", "data:y\n", "data:  y\n", "data\n", ": c\n", "retry: 5\n", "other\n", "data: y\ndata: z\n")
    before = ("", ": c\n", ":\n\n", ": c\n\n: d\n")
    for fields in itertools.product(before, ids, types, values, more):
        stream = "id: 0\ndata: a\n\n" + "".join(fields) + "\ndata: b\n\n"
        assert parse([stream]) == reference.parse(stream), stream
    for fields in itertools.product(values, more, types, ids):
        stream = "".join(fields) + "\ndata: b\n\n"
        assert parse([stream]) == reference.parse(stream), stream


@pytest.mark.parametrize("size", [1, 7, 64, 4096, 65536])
def test_all_cases_as_one_stream(size: int) -> None:
    """Blocks of all shapes side by side do not disturb each other."""
    stream = b"".join(case.stream.removeprefix(b"\xef\xbb\xbf") + b"\r\n\r\n" for case in STREAMS)
    slices = [stream[i : i + size] for i in range(0, len(stream), size)]
    assert parse(slices) == reference.parse(stream)


def test_bytes_and_text_in_turn() -> None:
    """A stream may change between bytes and text; a character cut off before text is a bad one."""
    parser = sse.SSEParser()
    assert parser.feed(b"data: \xc3\xa9") == []
    assert parser.feed("\u00e9") == []
    assert parser.feed(b"\xc3\xa9\r") == []
    assert plain(parser.feed("\n\n")) == [("message", "\u00e9" * 3, "", None)]
    parser.feed(b"data: \xc3")
    assert plain(parser.feed("x\n\n")) == [("message", "\ufffdx", "", None)]


def test_a_lone_cr_completes_a_line_at_once() -> None:
    """Nothing waits to see whether an LF follows, and an LF that follows is not a line of its own."""
    for cr in ("\r", b"\r"):
        parser = sse.SSEParser()
        lf, data = (b"\n", b"data: a") if isinstance(cr, bytes) else ("\n", "data: a")
        parser.feed(data)
        assert parser.feed(cr) == []
        assert parser.feed(lf) == []
        assert parser.feed(lf[:0]) == []
        assert [event.data for event in parser.feed(cr)] == ["a"]
        parser.feed(lf[:0])
        assert parser.feed(lf) == []
        assert [event.data for event in parser.feed(data + cr + cr)] == ["a"]
        assert [event.data for event in parser.feed(lf + data + lf + lf)] == ["a"]


def test_a_retry_takes_effect_on_its_line() -> None:
    """The parser's retry is new before the block has ended, and outlives it."""
    parser = sse.SSEParser()
    assert parser.retry is None
    parser.feed(b"retry: 5")
    assert parser.retry is None
    parser.feed(b"\r")
    assert parser.retry == 5
    assert plain(parser.feed(b"data: a\n\ndata: b\n\n")) == [("message", "a", "", 5), ("message", "b", "", None)]
    assert parser.retry == 5


def test_an_id_counts_with_its_blank_line() -> None:
    """Before it, the parser still names the event to resume after."""
    parser = sse.SSEParser("0")
    parser.feed(b"id: 1\ndata: a\n")
    assert parser.last_event_id == "0"
    assert plain(parser.feed(b"\n")) == [("message", "a", "1", None)]
    assert parser.last_event_id == "1"
    parser.feed(b"id:\n")
    assert parser.last_event_id == "1"
    assert parser.feed(b"\n") == []
    assert parser.last_event_id == ""


def test_the_given_last_event_id_is_inherited() -> None:
    """Events before the first `id` have the ID that the parser was made with."""
    for parser in (sse.SSEParser("7 \u00e9"), sse.SSEParser(last_event_id="7 \u00e9")):
        assert parser.last_event_id == "7 \u00e9"
        assert plain(parser.feed("data: a\n\nid: 8\ndata: b\n\n")) == [
            ("message", "a", "7 \u00e9", None),
            ("message", "b", "8", None),
        ]


def test_empty_slices_do_not_hide_a_bom() -> None:
    """The BOM is looked for in the first character, not in the first call."""
    for bom in ("\ufeff", b"\xef\xbb\xbf"):
        parser = sse.SSEParser()
        assert parser.feed(bom[:0]) == []
        assert [
            event.data for event in parser.feed(bom + (b"data: a\n\n" if isinstance(bom, bytes) else "data: a\n\n"))
        ]


def test_feed_returns_a_list_of_its_own() -> None:
    """What the caller does to a returned list has no effect on the parser."""
    parser = sse.SSEParser()
    first = parser.feed(b"data: a\n\n")
    first.clear()
    assert [event.data for event in parser.feed(b"data: b\n\n")] == ["b"]
    assert parser.feed(b"") == []


# === Lines ===


def test_feed_line_returns_an_event_or_none() -> None:
    """Only a blank line after data dispatches."""
    parser = sse.SSEParser()
    assert parser.feed_line("") is None
    assert parser.feed_line("id: 1") is None
    assert parser.feed_line("data: a") is None
    event = parser.feed_line("")
    assert event == sse.SSEEvent(data="a", id="1")
    assert type(event) is sse.SSEEvent
    assert parser.feed_line("") is None


def test_feed_line_does_not_split() -> None:
    """What looks like a line end inside a line is part of it."""
    parser = sse.SSEParser()
    parser.feed_line("data: a\u2028b\x85c\x0bd\x0ce")
    assert parser.feed_line("") == sse.SSEEvent(data="a\u2028b\x85c\x0bd\x0ce")


def test_feed_line_drops_one_bom() -> None:
    """Only from the first line, only once."""
    parser = sse.SSEParser()
    parser.feed_line("\ufeffdata: a")
    parser.feed_line("\ufeffdata: b")
    assert parser.feed_line("") == sse.SSEEvent(data="a")
    parser.reset()
    parser.feed_line("\ufeff\ufeffdata: c")
    parser.feed_line("data: d")
    assert parser.feed_line("") == sse.SSEEvent(data="d")


def test_an_empty_first_line_uses_up_the_place_of_a_bom() -> None:
    """A BOM after a blank line is an unknown field's first character."""
    parser = sse.SSEParser()
    parser.feed_line("")
    parser.feed_line("\ufeffdata: a")
    assert parser.feed_line("") is None


# === Comments ===


@pytest.mark.parametrize(
    ("line", "comment"),
    [(":", ""), (": ", ""), (":  ", " "), (":ping", "ping"), (": ping", "ping"), (":  ping ", " ping "), ("::a", ":a")],
)
def test_comments(line: str, comment: str) -> None:
    """One space after the colon goes, nothing else, alone, in a block, before an event and between events."""
    for stream in (
        "%s\n",
        "data: a\n%s\ndata: b\n\n",
        "%s\ndata: a\n\n",
        "data: a\n\n%s\n\ndata: b\n\n",
        "id: 1\n%s\n\n",
    ):
        seen: list[str] = []
        sse.SSEParser(on_comment=seen.append).feed(stream % line)
        assert seen == [comment], stream
    seen = []
    assert sse.SSEParser(on_comment=seen.append).feed_line(line) is None
    assert seen == [comment]


def test_comments_are_no_events() -> None:
    """Comments neither dispatch, nor change the block they stand in; without on_comment they are dropped."""
    stream = b": a\n\nevent: e\n: b\nid: 1\n: c\ndata: x\n: d\n\n: e\n"
    seen: list[str] = []
    assert sse.SSEParser(on_comment=seen.append).feed(stream) == [sse.SSEEvent("e", "x", "1")]
    assert seen == ["a", "b", "c", "d", "e"]
    assert sse.SSEParser().feed(stream) == [sse.SSEEvent("e", "x", "1")]


def test_a_comment_is_reported_with_its_line() -> None:
    """A keep-alive is known as soon as its line has ended, before any blank line."""
    seen: list[str] = []
    parser = sse.SSEParser(on_comment=seen.append)
    parser.feed(b"data: a\n: pi")
    assert seen == []
    parser.feed(b"ng\r")
    assert seen == ["ping"]


def test_comments_see_the_state_of_their_place() -> None:
    """In the callback the parser's last event ID and retry are those of the lines before the comment."""
    seen: list[tuple[str, str, int | None]] = []
    parser = sse.SSEParser(on_comment=lambda text: seen.append((text, parser.last_event_id, parser.retry)))
    parser.feed(b": a\n\nid: 1\ndata: x\n\n: b\nretry: 5\nid: 2\n: c\ndata: y\n\n: d\nid: 3\ndata: z\n\n")
    assert seen == [("a", "", None), ("b", "1", None), ("c", "1", 5), ("d", "2", 5)]


# === Errors: events before one come first ===


class CallbackError(Exception):
    """What a callback of these tests raises."""


def boom(text: str) -> None:
    """Raise on the comment `boom`."""
    if text == "boom":
        raise CallbackError(text)


ERRORS = [
    pytest.param({"max_event_size": 30}, b"data: " + b"x" * 25 + b"\n\n", sse.SSELimitError, id="limit, line"),
    pytest.param({"max_event_size": 30}, b"data: 90123456789\n" * 3 + b"\n", sse.SSELimitError, id="limit, block"),
    pytest.param({"max_event_size": 30}, b"x" * 31, sse.SSELimitError, id="limit, unfinished"),
    pytest.param({"on_comment": boom}, b": boom\n", CallbackError, id="on_comment"),
    pytest.param({"on_comment": boom}, b"data: x\n: boom\ndata: y\n\n", CallbackError, id="on_comment in a block"),
    pytest.param({"on_comment": boom}, b": boom\n\nid: 3\ndata: y\n\n", CallbackError, id="on_comment before an event"),
]


@pytest.mark.parametrize(("options", "bad", "error"), ERRORS)
def test_events_before_an_error_come_first(options: dict[str, Any], bad: bytes, error: type[Exception]) -> None:
    """In any slicing all events before the error are returned, then it is raised, and by every call until reset()."""
    good = b": fine\nid: 1\ndata: a\n\nretry: 5\nid: 2\ndata: b\n\n"
    after = b"data: no\n\nid: 9\nretry: 9\ndata: no\n\n"
    for slices in slicings(good + bad + after):
        parser = sse.SSEParser(**options)
        events: list[sse.SSEEvent] = []
        with pytest.raises(error):  # noqa: PT012
            for chunk in [*slices, b""]:
                events += parser.feed(chunk)
        assert plain(events) == [("message", "a", "1", None), ("message", "b", "2", 5)], slices
        for again in (b"", b"data: no\n\n", "data: no\n\n"):
            with pytest.raises(error):
                parser.feed(again)
        with pytest.raises(error):
            parser.feed_line("")
        assert (parser.last_event_id, parser.retry) == ("2", 5)
        parser.reset()
        assert plain(parser.feed(b"data: c\n\n")) == [("message", "c", "2", None)]


@pytest.mark.parametrize(("options", "bad", "error"), ERRORS)
def test_an_error_without_events_comes_at_once(options: dict[str, Any], bad: bytes, error: type[Exception]) -> None:
    """The call that meets the error raises it if it has no event to return."""
    parser = sse.SSEParser(**options)
    with pytest.raises(error):
        parser.feed(bad + b"data: no\n\n")
    with pytest.raises(error):
        parser.feed(b"data: no\n\n")
    parser.reset()
    assert [event.data for event in parser.feed(b"data: yes\n\n")] == ["yes"]


@pytest.mark.parametrize(("options", "bad", "error"), ERRORS)
def test_an_error_of_feed_line(options: dict[str, Any], bad: bytes, error: type[Exception]) -> None:
    """The line that meets the error raises it, and every call after it."""
    parser = sse.SSEParser(**options)
    with pytest.raises(error):  # noqa: PT012
        for line in bad.decode().split("\n"):
            assert parser.feed_line(line) is None
    with pytest.raises(error):
        parser.feed_line("data: no")
    with pytest.raises(error):
        parser.feed(b"data: no\n\n")
    parser.reset()
    parser.feed_line("data: yes")
    assert parser.feed_line("") == sse.SSEEvent(data="yes")


def test_a_callback_raises_its_own_exception() -> None:
    """What on_comment raised is what the caller gets, the very object."""
    mine = CallbackError("mine")

    def raising(text: str) -> None:
        raise mine

    for stream in (b": x\n", b"data: a\n\n: x\n"):
        parser = sse.SSEParser(on_comment=raising)
        with pytest.raises(CallbackError) as caught:  # noqa: PT012
            parser.feed(stream)
            parser.feed(b"")
        assert caught.value is mine


# === Limits ===

LIMIT = 20

AT_LIMIT = [
    b"data: 78901234567890\n\n",  # one line of 20
    b"data: 78901234567890",  # not complete
    b"data\n" * 16 + b"data\n\n",  # 16 line ends collected, and 4
    b"data:890\ndata:89\ndata:89\ndata:890\ndata:\n\n" + b"x" * 20,  # 4 + 3 + 3 + 4 collected, and 5; another block
    b"data: 789012345\ndata: 7890\n\n",  # 10 collected, and 10
    b"data: 789012345\n: 34567890\n\n",  # a comment is a line like any other,
    b": 345678901234567890\n" * 100 + b"\n",  # but does not stay
    b"event: 8901234567890\nid: 5678901234567890\nretry: 1\ndata: 78901234567890\n\n",  # nor do other fields
    b"unknown: 01234567890\n" * 100 + b"\n",
    b"data: 78901234567890\n\n" * 100,  # a block ends with its blank line
    ("data: " + "\u00e9\u20ac" * 6 + CAT * 2 + "\n\n").encode(),  # characters, not bytes,
    b"data: " + b"\xff" * 14 + b"\n\n",  # also bad ones
    ("data: 78901234567890" + CAT).encode()[:-1],  # one that is not complete is none yet
    b"\xef\xbb\xbfdata: 78901234567890\n\n",  # a BOM is not part of the line
    b"\xef\xbb\xbf\xef\xbb\xbf" + b"x" * 19,  # but a second one is
    b"data: 78901234567890\r\n\r\n",  # nor are line ends
    b"data: 78901234567890\r\r",
    b"\n\r\n" * 50 + b"x" * 20 + b"\n",
]


@pytest.mark.parametrize("stream", AT_LIMIT)
def test_a_block_may_reach_the_limit_but_not_outgrow_it(stream: bytes) -> None:
    """In any slicing nothing changes up to the limit, and one character more is an error after the same events."""
    for same in (stream, reference.decode(stream)):
        fits, outgrows = reference.parse(same, max_event_size=LIMIT), reference.parse(same, max_event_size=LIMIT - 1)
        assert fits == reference.parse(same)
        assert outgrows.limit == LIMIT - 1
        for slices in slicings(same):
            assert parse(slices, max_event_size=LIMIT) == fits, slices
            assert parse(slices, max_event_size=LIMIT - 1) == outgrows, slices


@every_case
def test_limits_agree_with_the_reference(case: Case) -> None:
    """At limits up to the size of the case, any slicing gives the same events and the same error."""
    text = case.stream.decode("utf-8", "replace")
    for limit in range(1, len(case.stream) + 2, 1 + len(case.stream) // 40):
        size = 1 + limit % 5
        for stream in (case.stream, text):
            want = reference.parse(stream, max_event_size=limit)
            assert parse([stream], max_event_size=limit) == want, limit
            slices = [stream[i : i + size] for i in range(0, len(stream), size)]
            assert parse(slices, max_event_size=limit) == want, (limit, slices)


def test_a_limit_holds_for_lines() -> None:
    """`feed_line` counts as `feed` does, without the line end of the line being read."""
    parser = sse.SSEParser(max_event_size=LIMIT)
    parser.feed_line("data: 789012345")
    parser.feed_line("data: 7890")
    assert parser.feed_line("") == sse.SSEEvent(data="789012345\n7890")
    parser.feed_line("x" * 20)
    parser.feed_line("data: 789012345")
    with pytest.raises(sse.SSELimitError) as error:
        parser.feed_line("data: 78901")
    assert error.value.limit == LIMIT


def test_the_default_limit_is_16_mib() -> None:
    """A line of 16 Mi characters is still taken, one more is not."""
    parser = sse.SSEParser()
    assert parser.feed(b"x" * 2**24) == []
    with pytest.raises(sse.SSELimitError) as error:
        parser.feed(b"x")
    assert error.value.limit == 2**24
    assert str(2**24) in str(error.value)
    assert isinstance(error.value, sse.SSEError)


def test_no_limit() -> None:
    """`None` turns the limit off, for lines and for blocks."""
    parser = sse.SSEParser(max_event_size=None)
    assert parser.feed("data: " + "x" * (2**24 + 1)) == []
    assert parser.feed("\ndata: " + "y" * 2**24) == []
    assert [len(event.data) for event in parser.feed("\n\n")] == [2**25 + 2]


def test_the_limit_starts_anew() -> None:
    """After a block has ended, and after reset(), nothing of it counts."""
    parser = sse.SSEParser(max_event_size=LIMIT)
    for _ in range(5):
        assert len(parser.feed(b"data: 78901234567890\n\n")) == 1
    parser.feed(b"data: 789012345\ndata: 7")
    parser.reset()
    assert len(parser.feed(b"data: 78901234567890\n\n")) == 1
    parser.feed(b"x" * LIMIT)
    parser.reset()
    assert len(parser.feed(b"data: 78901234567890\n\n")) == 1


# === reset() ===


@pytest.mark.parametrize(
    "begun",
    [
        b"data: lost",
        b"data: lost\n",
        b"data: lost\r",
        b"data: lo\nda",
        b"event: lost\n",
        b"retry: 7\n",
        b"id: lost\n",
        b"data: \xe2\x82",
        b"\xef\xbb",
        b"\xe2",
        b": lost",
        b"\ndata: lost\n",
        b"data: done\n\r",
        b"\r",
    ],
)
def test_reset_drops_what_is_not_complete(begun: bytes) -> None:
    """Partial characters, lines and blocks, and a CR that waits for its LF, do not reach the next connection."""
    for rest in (b"data: new\n\n", b"\xef\xbb\xbfdata: new\n\n", b"data: new\r\n\r\n", b"other\ndata: new\n\n"):
        for slices in slicings(rest):
            parser = sse.SSEParser("kept", max_event_size=12)
            parser.feed(b"retry: 7\n\n")
            parser.feed(begun)
            parser.reset()
            assert (parser.last_event_id, parser.retry) == ("kept", 7)
            events = [event for chunk in slices for event in parser.feed(chunk)]
            assert plain(events) == [("message", "new", "kept", None)], slices


def test_reset_keeps_last_event_id_and_retry() -> None:
    """What outlives an event outlives a connection too."""
    parser = sse.SSEParser("1")
    parser.feed(b"retry: 5\nid: 2\ndata: a\n\nid: 3\n\nretry: 6\nid: 4\ndata: b\n")
    parser.reset()
    assert (parser.last_event_id, parser.retry) == ("3", 6)
    assert plain(parser.feed(b"data: c\n\n")) == [("message", "c", "3", None)]


def test_after_reset_an_lf_is_a_line_of_its_own() -> None:
    """The CR before it belonged to another connection: a BOM after it is not the first character."""
    parser = sse.SSEParser()
    parser.feed(b"x\r")
    parser.reset()
    assert [event.data for event in parser.feed("\n\ufeffdata: a\n\ndata: b\n\n")] == ["b"]


def test_reset_at_any_time() -> None:
    """After any part of any stream and a reset, the stream as a whole comes out as from a new parser."""
    for case in OWN:
        for cut in range(0, len(case.stream), 1 + len(case.stream) // 50):
            parser = sse.SSEParser()
            parser.feed(case.stream[:cut])
            before = parser.last_event_id, parser.retry
            parser.reset()
            assert (parser.last_event_id, parser.retry) == before
            want = reference.parse(case.stream, last_event_id=before[0])
            assert plain(parser.feed(case.stream)) == want.events
            assert parser.last_event_id == want.last_event_id


# === Wrong arguments ===


@pytest.mark.parametrize("wrong", [None, 5, 1.5, ["data: a"], object(), {}])
@pytest.mark.parametrize("before", [b"", b"data: a", b"\xe2\x82", "data: a\n"])
def test_feed_refuses_what_is_neither_bytes_nor_str(before: bytes | str, wrong: Any) -> None:
    """The TypeError says what was expected and what came, whatever was fed before."""
    parser = sse.SSEParser()
    parser.feed(before)
    with pytest.raises(TypeError, match=rf"bytes.*str.*{type(wrong).__name__}"):
        parser.feed(wrong)


@pytest.mark.parametrize("wrong", [b"data: a", bytearray(b"data: a"), None, 5, ["data: a"]])
def test_feed_line_refuses_what_is_not_str(wrong: Any) -> None:
    """The TypeError names what came: lines are text."""
    with pytest.raises(TypeError, match=rf"line.*str.*{type(wrong).__name__}"):
        sse.SSEParser().feed_line(wrong)


@pytest.mark.parametrize("wrong", ["1\n", "\r1", "a\0b", "\0", "1\r\n2"])
def test_last_event_id_without_line_ends_and_nul(wrong: str) -> None:
    """No stream could have set such an ID, and no header could carry it."""
    with pytest.raises(ValueError, match=r"^last_event_id must be text without CR, LF and NUL, got") as error:
        sse.SSEParser(wrong)
    assert repr(wrong) in str(error.value)


@pytest.mark.parametrize("wrong", [None, 5, b"7", ["7"]])
def test_last_event_id_is_text(wrong: Any) -> None:
    """Another type is a TypeError that names the argument and shows the value."""
    with pytest.raises(TypeError, match="last_event_id") as error:
        sse.SSEParser(wrong)
    assert repr(wrong) in str(error.value)


@pytest.mark.parametrize("right", ["", " ", "\u2028", "\x85", "\t", "\ud83d", "a" * 10**5])
def test_last_event_id_may_be_anything_else(right: str) -> None:
    """Other separators are ordinary characters."""
    assert sse.SSEParser(right).last_event_id == right


@pytest.mark.parametrize("wrong", [0, -1, -(2**40)])
def test_max_event_size_is_positive(wrong: int) -> None:
    """No block fits into nothing."""
    must = r"^max_event_size must be a number of characters >= 1, or None, got"
    with pytest.raises(ValueError, match=must) as error:
        sse.SSEParser(max_event_size=wrong)
    assert repr(wrong) in str(error.value)


@pytest.mark.parametrize("wrong", ["16", 1.5, b"1", [1]])
def test_max_event_size_is_a_number_of_characters(wrong: Any) -> None:
    """Another type than int is a TypeError that names the argument and shows the value."""
    with pytest.raises(TypeError, match="max_event_size") as error:
        sse.SSEParser(max_event_size=wrong)
    assert repr(wrong) in str(error.value)


def test_a_limit_of_one_character() -> None:
    """The smallest limit lets blank lines, empty comments and fields of one character pass."""
    assert parse([b"\n\nx\n:\n\r\n"], max_event_size=1) == reference.Outcome([], "", None, [""], None)
    assert parse([b"xy"], max_event_size=1).limit == 1


def test_on_comment_is_callable() -> None:
    """A mistake is told at once, not with the first comment."""
    with pytest.raises(TypeError, match=r"^on_comment must be a function or None, got 'print'"):
        sse.SSEParser(on_comment="print")  # type: ignore[arg-type]


def test_options_are_keywords() -> None:
    """Only last_event_id may come by position."""
    with pytest.raises(TypeError):
        sse.SSEParser("", 100)  # type: ignore[misc]


@pytest.mark.parametrize("digits", [1, 9, 10, 11, 4299, 4300, 4301, 100_000])
@pytest.mark.parametrize("first", ["", "0", "000000000000"])
def test_retry_of_any_length(first: str, digits: int) -> None:
    """Digits of any number never crash, and the value is capped."""
    for digit in "129":
        value = first + digit * digits
        parser = sse.SSEParser()
        [event] = parser.feed(f"retry: {value}\ndata: a\n\n")
        want = RETRY_CAP if digits > 10 else min(int(value), RETRY_CAP)
        assert event.retry == parser.retry == want


# === Linear cost ===
#
# Nothing here looks at a clock. Work is counted: what each call allocates, and how long the texts are that it searches.
# Where neither shows (inside one regular expression), the input is so long that it takes a moment, or minutes if cost
# is not linear.

SEARCHES = {"find", "rfind", "index", "count", "split", "rsplit", "splitlines", "partition", "rpartition", "replace"}
SEARCHES |= {"decode", "encode", "translate", "strip", "rstrip", "lstrip", "isascii", "isdigit"}


def allocated(parser: sse.SSEParser, slices: list[bytes]) -> int:
    """Return the bytes that all calls together held at their peaks, over what there was before each."""
    total = 0
    tracemalloc.start()
    try:
        for chunk in slices:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            parser.feed(chunk)
            total += max(0, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return total


def searched(parser: sse.SSEParser, slices: list[bytes]) -> int:
    """Return the length of all texts together on which a searching or copying method was called."""
    total = 0

    def profile(frame: Any, event: str, called: Any) -> None:
        nonlocal total
        if event == "c_call" and called.__name__ in SEARCHES and isinstance(called.__self__, (bytes, bytearray, str)):
            total += len(called.__self__)

    sys.setprofile(profile)
    try:
        for chunk in slices:
            parser.feed(chunk)
    finally:
        sys.setprofile(None)
    return total


def small_slices(stream: bytes, size: int) -> list[bytes]:
    """Cut into slices of `size`."""
    return [stream[i : i + size] for i in range(0, len(stream), size)]


GROWING = [
    pytest.param(lambda n: small_slices(b"data: " + b"x" * n + b"\n\n", 1), 4_000, id="one line, byte by byte"),
    pytest.param(lambda n: small_slices(b"data: " + b"\xf0\x9f\x90\x88" * n + b"\n\n", 3), 4_000, id="cats, cut"),
    pytest.param(lambda n: small_slices(b": " + b"x" * n + b"\r\n", 7), 20_000, id="one comment"),
    pytest.param(lambda n: small_slices(b"data: xy\n" * n + b"\n", 9), 3_000, id="one block, line by line"),
    pytest.param(lambda n: small_slices(b"data: xy\r\n" * n + b"\r\n", 4), 1_000, id="one block, cut"),
    pytest.param(lambda n: small_slices(b"data: xy\n\n" * n, 10), 3_000, id="an event a slice"),
    pytest.param(lambda n: small_slices(b": xy\n\n" * n, 6), 3_000, id="a comment a slice"),
    pytest.param(lambda n: small_slices(b"id: 1\n" * n, 5), 3_000, id="one block without data"),
]


@pytest.mark.parametrize("measure", [allocated, searched])
@pytest.mark.parametrize(("slices", "n"), GROWING)
def test_cost_is_linear_in_small_slices(
    slices: Callable[[int], list[bytes]], n: int, measure: Callable[[sse.SSEParser, list[bytes]], int]
) -> None:
    """Four times the input costs four times as much, not sixteen times."""
    measure(sse.SSEParser(), slices(n))  # what is made once is not counted
    once = measure(sse.SSEParser(), slices(n))
    assert once > 0
    floor = 2 * sum(map(len, slices(n)))  # a change of method at some size may cost so much: it is linear too
    assert measure(sse.SSEParser(), slices(4 * n)) < 7 * max(once, floor)


WAYS = ("_decode", "_take_blocks", "_interpret", "_dispatch_blocks", "findall")


def ways(parser: sse.SSEParser, chunk: bytes | str) -> str:
    """Which of the parser's methods a chunk has been through, in order, each named once."""
    seen: dict[str, None] = {}

    def profile(frame: Any, event: str, called: Any) -> None:
        if event in ("call", "c_call"):
            name = frame.f_code.co_name if event == "call" else called.__name__
            seen.update({way: None for way in WAYS if way in name})

    sys.setprofile(profile)
    try:
        parser.feed(chunk)
    finally:
        sys.setprofile(None)
    return " ".join(seen)


SINGLE, SHORT, LONG = "", "_dispatch_blocks findall", "_dispatch_blocks"


@pytest.mark.parametrize(
    ("before", "chunk", "expected"),
    [
        ([], b"data: x\n\n", SINGLE),
        ([], b"data: x" + b"y" * 91 + b"\n\n", SINGLE),  # of 100 characters, which is the limit
        ([], b": ping\n\n", SINGLE),
        ([], b":\n\n", SINGLE),
        ([b"data: a\r\n\r\n"], b"data: x\n\n", SINGLE),
        ([b"data: a\r", b"\n\r\n"], b"data: x\n\n", SINGLE),
        ([b"data: \xe2\x82", b"\xac\n\n"], b"data: x\n\n", SINGLE),
        ([b"da", b"ta: a\n\n"], b"data: x\n\n", SINGLE),
        ([b"data: a\n", b"\n"], b"data: x\n\n", SINGLE),
        ([b"data: \xff\n\n"], b"data: x\n\n", SINGLE),
        ([], b"data: x\n\ndata: y\n\n", SHORT),
        ([], b"data: x\n\n: c\n\n: d\ndata: y\n\n", SHORT),
        ([], b"data: x\n\ndata: y" + b"z" * 82 + b"\n\n", SHORT),  # of 100 characters
        ([], b"data: x\r\n\r\n", SHORT),
        ([], b"data: \xff\n\n", "_decode " + SHORT),
        ([], "data: x\n\n", "_decode " + SHORT),
        ([], b"data: x\n\ndata: y\n\nda", "_take_blocks " + SHORT),
        ([b"da"], b"ta: x\n\ndata: y\n\n", "_decode _take_blocks " + SHORT),
        ([b"data: x\n"], b"data: y\n\ndata: z\n\n", "_decode _take_blocks _interpret " + SHORT),
    ],
)
def test_common_chunks_take_the_short_ways(before: list[bytes], chunk: bytes | str, expected: str) -> None:
    """A way that is not taken any more would show in nothing but the time."""
    parser = sse.SSEParser(max_event_size=100)
    for earlier in (b"\n", *before):
        parser.feed(earlier)
    assert ways(parser, chunk) == expected


def test_a_long_line_takes_no_regular_expression() -> None:
    """Nor one that came in pieces."""
    parser = sse.SSEParser()
    line = "data: " + "x" * 2000
    assert ways(parser, line) == "_decode _take_blocks"
    assert ways(parser, "\n\n") == "_decode _take_blocks " + LONG
    assert ways(parser, line + "\n\n") == "_decode " + LONG
    assert ways(parser, line + "\n\n" + line + "\n\n") == "_decode " + SHORT
    assert ways(parser, line + "\n: c\n\n") == "_decode _dispatch_blocks findall _interpret"


REPEATED = [
    *(b": ping\n\n", b": ping\n", b"\n", b"\r", b"\r\n", b"x", b":", b" ", b"data: ", b"\xef\xbb\xbf", b"\xff"),
    *(
        b"data\n",
        b"data: x\n",
        b"data: x\n\n",
        b"data: x\r",
        b"data: x\n: c\n",
        b"id: 1\n",
        b"id: 1\n\n",
        b"id: 1\nevent: e\n",
    ),
    *(b"event: e\n\n", b"retry: 1\n\n", b": c\nid: 1\n", b": c\n\nid: 1\n\n", b": c\n\nevent: e\n\n", b"x\n", b"x\n\n"),
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("end", [b"", b"data: x\n\n", b"\0\n\n"])
@pytest.mark.parametrize("unit", REPEATED)
def test_no_repetition_takes_for_ever(unit: bytes, end: bytes) -> None:
    """30,000 times anything is parsed in a moment, where quadratic cost would meet the time limit of the test."""
    stream = unit * 30_000 + end
    sse.SSEParser().feed(stream)
    if b":" in unit:
        comments: list[str] = []
        sse.SSEParser(on_comment=comments.append).feed(stream)


def test_memory_stays_flat_over_many_events() -> None:
    """A parser keeps nothing of what it has dispatched."""
    parser = sse.SSEParser()
    chunk = b": c\nid: 1\nevent: e\ndata: x\nretry: 5\n\n" * 500
    parser.feed(chunk)
    tracemalloc.start()
    try:
        parser.feed(chunk)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            parser.feed(chunk)
        assert tracemalloc.get_traced_memory()[0] - before < 10_000
    finally:
        tracemalloc.stop()


def test_a_long_line_is_not_held_many_times() -> None:
    """At its peak, parsing one line of 8 MB takes at most 3.5 times the line, slices included."""
    size = 8_000_000
    parser = sse.SSEParser(max_event_size=None)
    tracemalloc.start()
    try:
        parser.feed(b"data: ")
        for _ in range(size // 50_000):
            parser.feed(b"x" * 50_000)
        [event] = parser.feed(b"\n\n")
        assert len(event.data) == size
        assert tracemalloc.get_traced_memory()[1] < 3.5 * size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_bytes_keep_an_unfinished_character(kind: Any) -> None:
    """Also behind a whole block: it spoils the line that it begins, and nothing later."""
    parser = sse.SSEParser()
    parser.feed(b"\n")
    assert [event.data for event in parser.feed(kind(b"data: v\n\n\xc3"))] == ["v"]
    assert parser.feed(b"data: x\n\n") == []
    assert [event.data for event in parser.feed(b"data: y\n\n")] == ["y"]


def test_empty_text_is_nothing() -> None:
    """Not even between the bytes of a character."""
    parser = sse.SSEParser()
    assert [parser.feed(b"data: \xc3"), parser.feed("")] == [[], []]
    assert [event.data for event in parser.feed(b"\xa9\n\n")] == ["\u00e9"]


def test_text_ends_a_character_for_good() -> None:
    """Its missing bytes do not come later either."""
    parser = sse.SSEParser()
    events = [event for chunk in (b"data: \xc3", "x", b"y\n\n", "data: z", b"\n\n") for event in parser.feed(chunk)]
    assert [event.data for event in events] == ["\ufffdxy", "z"]
