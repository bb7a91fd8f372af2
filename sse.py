"""Server-Sent Events for Python: a client that reconnects, and the parser alone; standard library only.

A stream that survives restarts of its server, each event once::

    from sse import connect

    with connect("https://example.com/events") as events:
        for event in events:
            print(event.event, event.data)

An answer of an LLM API, never requested twice, never silently cut short::

    with connect(url, headers={"Authorization": f"Bearer {key}"}, json=question, until="[DONE]") as events:
        for event in events:
            print(event.json()["choices"][0]["delta"].get("content") or "", end="", flush=True)

The parser over bytes that something else has read::

    parser = SSEParser()
    for chunk in chunks:
        for event in parser.feed(chunk):
            ...

Sections (``grep -n '^# ===' sse.py``): events and errors; parser; event sources; reconnection, without I/O;
blocking client; async client; buffers and batches; command line. The clients need ``httpclient.py`` beside this file,
or a ``transport=``; the rest needs nothing. It follows the WHATWG HTML standard, "Server-sent events", cited below by
the titles of its sections.
"""

from __future__ import annotations

import re
import sys
import time
from codecs import utf_8_decode
from collections import deque

TYPE_CHECKING = False  # as in typing, whose import would cost more than this whole module
if TYPE_CHECKING:
    import argparse
    import asyncio
    import ssl
    import threading
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sized
    from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

    from typing_extensions import Self  # in the stubs of every type checker; never imported

    Overflow = Literal["block", "drop_oldest", "drop_newest"]
    _T = TypeVar("_T")

    class _Generic(Generic[_T]): ...

    Chunk: TypeAlias = "bytes | bytearray | memoryview | str"
    Timeout: TypeAlias = "float | tuple[float | None, float | None] | None"

else:  # so that classes can name their element type without the import
    _T = None

    class _Generic:
        def __class_getitem__(cls, item):
            return cls


__all__ = [
    "TRANSIENT",
    "AsyncBuffered",
    "AsyncEventSource",
    "AsyncSSEClient",
    "Buffered",
    "EventSource",
    "Request",
    "SSEClient",
    "SSEConnectionError",
    "SSEContentTypeError",
    "SSEError",
    "SSEEvent",
    "SSEHTTPError",
    "SSELimitError",
    "SSEParser",
    "async_batched",
    "async_buffered",
    "async_connect",
    "batched",
    "buffered",
    "connect",
]
__version__ = "0.1.0"

MAX_EVENT_SIZE = 16 * 1024 * 1024  # characters of one block: far over any real event, far under a machine's memory
MAX_ERROR_BODY = 64 * 1024  # bytes of a refused answer that are kept: API errors are short, error pages are not
MAX_RETRY = 2**31 - 1  # ms, what browsers' integers hold: a `retry` of more digits means "very long", not a crash
MIN_BACKOFF_BASE = 100  # ms, from the second failure in a row on: `retry: 0` must not spin
OVERFLOW = ("block", "drop_oldest", "drop_newest")
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # statuses that may pass by themselves, for `retry_statuses`


# === 1. Events and errors ============================================================================================
#
# Plain values: an event equals another with the same fields, an error keeps its parts as attributes, all pickle.
# SSEEvent and Request are frozen dataclasses to whoever looks (dataclasses.fields, replace, asdict), but do not import
# `dataclasses` before somebody does: that would treble the time of `import sse`.


class _DataclassPart:
    """`__dataclass_fields__` or `__dataclass_params__` of a record, both made when one is first asked for."""

    def __set_name__(self, owner: Any, name: str) -> None:
        self._record, self._name = owner, name

    def __get__(self, instance: object, owner: object) -> Any:
        from dataclasses import MISSING, field, make_dataclass

        record = self._record  # not the owner, which may be a class made from it
        init: Any = record.__init__
        names = record.__match_args__
        defaults = dict(zip(reversed(names), reversed(init.__defaults__ or ())))
        fields = [(name, init.__annotations__[name], field(default=defaults.get(name, MISSING))) for name in names]
        made: Any = make_dataclass(record.__name__, fields, frozen=True)
        record.__dataclass_fields__, record.__dataclass_params__ = made.__dataclass_fields__, made.__dataclass_params__
        return getattr(record, self._name)


class _Record:
    """What `dataclass(frozen=True)` makes of a class; `__match_args__` names the arguments of its `__init__`."""

    __slots__ = ()
    if TYPE_CHECKING:
        __match_args__: ClassVar[tuple[str, ...]]
        __dataclass_fields__: ClassVar[dict[str, Any]]

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__])

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._values()

    def __replace__(self, **changes: Any) -> Self:  # for copy.replace() of Python 3.13
        return type(self)(**{**dict(zip(self.__match_args__, self._values())), **changes})

    def __setattr__(self, name: str, *value: object) -> None:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot {'assign to' if value else 'delete'} field {name!r}")

    __delattr__ = __setattr__


class _Draft:
    """An event that can still be written: the parser fills it, then freezes it by setting its `__class__`.

    That costs a third of four `object.__setattr__`, which would be half the cost of parsing.
    """

    __slots__ = ("data", "event", "id", "retry")


class SSEEvent(_Record, _Draft):
    """One dispatched event: a frozen dataclass, hashable and comparable.

    Attributes:
        event: The event type; `"message"` when the stream names none.
        data: The data lines, joined with LF.
        id: The stream's last event ID when the event was dispatched: it persists until the stream changes it.
        retry: The reconnection time in ms that a valid `retry` line of this event's own block gave, else `None`.
    """

    __slots__ = ()
    __match_args__ = ("event", "data", "id", "retry")
    if not TYPE_CHECKING:
        __dataclass_fields__ = _DataclassPart()
        __dataclass_params__ = _DataclassPart()
    event: str
    data: str
    id: str
    retry: int | None

    def __init__(self, event: str = "message", data: str = "", id: str = "", retry: int | None = None) -> None:
        for name, value in zip(self.__match_args__, (event, data, id, retry)):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        fields = zip(self.__match_args__, self._values(), ("message", "", "", None))
        return f"SSEEvent({', '.join([f'{name}={_clip(repr(v), 80)}' for name, v, default in fields if v != default])})"

    def json(self) -> Any:
        """Return the decoded `data`; raise `ValueError` as `json.loads` does."""
        import json

        return json.loads(self.data)


class Request(_Record):
    """What a transport is asked for, a frozen dataclass.

    Attributes:
        method: In capitals.
        url: Absolute, without userinfo.
        headers: Name to value; values go out as UTF-8.
        body: The bytes to send, or `None`.
    """

    __slots__ = __match_args__ = ("method", "url", "headers", "body")
    if not TYPE_CHECKING:
        __dataclass_fields__ = _DataclassPart()
        __dataclass_params__ = _DataclassPart()
    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None

    def __init__(self, method: str, url: str, headers: dict[str, str], body: bytes | None = None) -> None:
        for name, value in zip(self.__match_args__, (method, url, headers, body)):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {_shown(self.url)!r}, headers={list(self.headers)})"  # values: secrets


class SSEError(Exception):
    """The base of every error of this module that is not a wrong argument."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple([_picklable(argument) for argument in self.args])


class SSEConnectionError(SSEError):
    """The stream is lost for good: it may not, or no longer, be reconnected.

    Attributes: `url`; `retries`, the reconnects in a row that brought no event; `last_error`, the exception that lost
    the last connection, `None` if the server ended it cleanly, but too early.
    """

    def __init__(self, url: str, retries: int, last_error: BaseException | None = None) -> None:
        super().__init__(url, retries, last_error)
        self.url, self.retries, self.last_error = url, retries, last_error

    def __str__(self) -> str:
        after = f" after {self.retries} reconnect{'s' * (self.retries != 1)}" if self.retries else ""
        return f"{_shown(self.url)}: connection failed{after}: {_reason(self.last_error, self.url)}"


class SSEHTTPError(SSEError):
    """The answer has a status other than 2xx.

    Attributes: `status_code`; `url`, where it came from; `headers`; `body`, its first 64 KiB as text.
    """

    def __init__(self, status_code: int, url: str, headers: Mapping[str, str], body: str) -> None:
        super().__init__(status_code, url, headers, body)
        self.status_code, self.url, self.headers, self.body = status_code, url, headers, body

    def __str__(self) -> str:
        return f"{_shown(self.url)}: HTTP {self.status_code}" + (self.body and f": {_line(self.body)}")


class SSEContentTypeError(SSEError):
    """The answer is no event stream.

    Attributes: `content_type`, what it is instead, empty if it does not say; `url`; `body`, its first 64 KiB as text.
    """

    def __init__(self, content_type: str, url: str, body: str) -> None:
        super().__init__(content_type, url, body)
        self.content_type, self.url, self.body = content_type, url, body

    def __str__(self) -> str:
        got = f"expected text/event-stream, got {_line(self.content_type) or 'no content type'}"
        return f"{_shown(self.url)}: {got}" + (self.body and f": {_line(self.body)}")


class SSELimitError(SSEError):
    """A block of the stream outgrew `limit`, the client's or parser's `max_event_size` in characters."""

    def __init__(self, limit: float) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"an event outgrew max_event_size={self.limit} characters"


def _picklable(part: Any) -> Any:
    """A part of an error, or what can be pickled of it: other libraries' exceptions and headers may not be."""
    import pickle

    try:
        pickle.loads(pickle.dumps(part))
    except Exception:
        return dict(part) if hasattr(part, "items") else ConnectionError(f"{type(part).__name__}: {part}")
    return part


_HOST = re.compile(r"(\[[^][]+\]|[^][:]+)(:[0-9]*)?")
_QUOTED = re.compile(r"(?<=//)[^/\s]*@|\?\S*", re.ASCII)  # userinfo and query of URLs in other libraries' errors
_HIDDEN = re.compile(r"(?<=//)[^/?#]*@|[?#].*", re.DOTALL)


def _shown(url: str) -> str:
    """The URL as logs and errors show it: without userinfo, query and fragment."""
    return _HIDDEN.sub("", url)


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "..."


def _line(text: str) -> str:
    """What a server said, on one short line that a terminal may show."""
    return _clip("".join([c if c.isprintable() else "\ufffd" for c in " ".join(text[:2000].split())]), 500)


def _reason(cause: BaseException | None, url: str) -> str:
    """Why a connection was lost, for a text that begins with `url`."""
    if cause is None:
        return "the server ended it"
    if isinstance(cause, SSEError):
        return str(cause).removeprefix(f"{_shown(url)}: ")
    return f"{type(cause).__name__}: {_line(_QUOTED.sub('', str(cause)))}"


# === 2. Parser =======================================================================================================
#
# Bytes become text, every line end becomes LF. From there every line goes through `_interpret`, where each rule of
# "Interpreting an event stream" stands once, with the block in local variables; event sources iterate over it too.
# Whole blocks of the common shapes are cut out of a chunk by `_dispatch_blocks` instead, up to three times as fast, and
# only if their lines would give the same event. A line that has not ended waits in a list of pieces, joined once when
# the end has come: the cost is linear however the stream is sliced.

_BLOCK = r"""
    (?: id:[ ]?+([^\n\0 ][^\n\0]*+)\n )?+        # 1: an ID, neither empty, nor with a space at its start, nor with NUL
    (?: event:[ ]?+(.*+)\n )?+                   # 2: the event type
    data:[ ]?+(.*+)((?:\ndata:[ ].*+)*+)\n\n     # 3, 4: the data; further lines still with their field name
    | ((?: :.*+\n\n?+ )++                       # 5: comments, which end no block, as none has begun;
    | (?: .++\n )++\n?+ | \n )                  # or any other lines up to and with a blank one, or to the end
"""
if sys.version_info < (3, 11):  # possessive quantifiers only save time
    _BLOCK = re.sub(r"([?*+])\+", r"\1", _BLOCK)  # pragma: no cover - measured on a newer Python
_BLOCKS = re.compile(_BLOCK, re.VERBOSE).findall


class SSEParser:
    """An incremental parser, without I/O: "Parsing an event stream" and "Interpreting an event stream".

    Args:
        last_event_id: Where the stream is resumed: the `id` of events before the first `id` field.
        max_event_size: Most characters one block may keep waiting: the line being read plus the data collected so far
            (with a line end for each of its lines); `None`: no limit.
        on_comment: Called with each comment's text, without the colon and one space after it.

    Attributes:
        last_event_id: The last event ID; an `id` counts once the blank line after its block has come.
        retry: The reconnection time in ms that the stream asked for last, or `None`.
    """

    def __init__(
        self,
        last_event_id: str = "",
        *,
        max_event_size: int | None = MAX_EVENT_SIZE,
        on_comment: Callable[[str], object] | None = None,
    ) -> None:
        _check("last_event_id", last_event_id, str, "text without CR, LF and NUL", _is_field_value)
        _check("max_event_size", max_event_size, (int, None), "a number of characters >= 1, or None", lambda n: n >= 1)
        _check("on_comment", on_comment, (callable, None), "a function or None")
        self.last_event_id = last_event_id
        self.retry: int | None = None
        self._limit = float("inf") if max_event_size is None else max_event_size
        self._on_comment = on_comment
        # Of a block: the event type, data, the list of its lines if there are several, ID, `retry`, room in characters
        self._no_block: Any = "", None, None, None, None, self._limit
        self._stopped = False  # the source of the lines was closed: no more are taken
        self.reset()

    def reset(self) -> None:
        """Begin a new connection: drop partial input and the current block, look for a BOM; keep ID and `retry`."""
        self._error: Exception | None = None  # raised by every call from now on
        self._clean = False  # nothing waits: no error, no part of a character, of a line, of a block, no LF to skip
        self._undecoded = b""  # the first bytes of a character
        self._bom_checked = False
        self._skip_lf = False  # the last chunk ended in CR: an LF at the start of the next belongs to it
        self._pieces: list[str] = []  # of a line that has not ended
        self._pieces_size = 0  # characters in them
        self._block = self._no_block

    def feed(self, chunk: Chunk) -> list[SSEEvent]:
        """Take the next slice of the stream, bytes or text, and return the events that it completes.

        Raises:
            SSELimitError: A block outgrew `max_event_size`. This, and whatever `on_comment` raises, comes after the
                events before it: with the next call if there are any, and with every call until `reset()`.
            TypeError: `chunk` is neither bytes nor text.
        """
        if self._clean and type(chunk) is bytes:
            try:
                text = chunk.decode()
            except UnicodeDecodeError:
                text = self._decode(chunk)
                self._clean = not self._undecoded
            else:
                # A line and a blank one, as LLM APIs and pings send them: twice as fast as the way of many blocks.
                size = len(text)
                if text.find("\n") == size - 2 and text[-1] == "\n" and "\r" not in text and size <= self._limit:
                    if text[:6] == "data: ":
                        draft: Any = _Draft()
                        draft.event = "message"
                        draft.data = text[6:-2]
                        draft.id = self.last_event_id
                        draft.retry = None
                        draft.__class__ = SSEEvent
                        return [draft]
                    if text[0] == ":" and self._on_comment is None:
                        return []
        elif self._error is not None:
            raise self._error
        else:
            text = self._decode(chunk)
        if "\r" in text:
            self._skip_lf = text[-1] == "\r"
            self._clean = self._clean and not self._skip_lf
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        events: list[SSEEvent] = []
        try:
            whole = self._clean and not self._undecoded and text.endswith("\n\n") and len(text) <= self._limit
            if not whole:
                text = self._take_blocks(text, events)
            if text:
                self._dispatch_blocks(text, events)
            if not whole:
                if self._pieces_size > self._block[-1]:
                    raise SSELimitError(self._limit)
                waits = self._pieces or self._undecoded or self._skip_lf or not self._bom_checked
                self._clean = not waits and self._block == self._no_block
        except Exception as exc:
            self._clean = False
            self._error = exc
            if not events:
                raise
        return events

    def feed_line(self, line: str) -> SSEEvent | None:
        """Take one line without its line end and return the event that it dispatches, if any; raise as `feed`."""
        if self._error is not None:
            raise self._error
        if not isinstance(line, str):
            raise TypeError(f"line must be str, got {type(line).__name__}: feed() takes bytes")
        self._clean = False
        try:
            return next(iter([*self._interpret((line,))]), None)
        except Exception as exc:
            self._error = exc
            raise

    # Private

    def _decode(self, chunk: Chunk) -> str:
        """The text of a chunk, with LF for every line end, without the byte order mark that may start the stream.

        By "UTF-8 decode", so with U+FFFD for what is none; an unfinished character waits for the next chunk.
        """
        if isinstance(chunk, str):
            text = chunk
            if chunk and self._undecoded:  # whose missing bytes will not come
                text, self._undecoded = "\ufffd" + chunk, b""
        else:
            try:
                data = self._undecoded + chunk if self._undecoded else chunk
                text, used = utf_8_decode(data, "replace")
            except TypeError:
                raise TypeError(f"chunk must be bytes or str, got {type(chunk).__name__}") from None
            self._undecoded = bytes(data[used:]) if used < len(data) else b""
        if text and not self._bom_checked:
            self._bom_checked = True
            text = text.removeprefix("\ufeff")
        if text and self._skip_lf:
            self._skip_lf = False
            text = text.removeprefix("\n")
        return text

    def _take_blocks(self, text: str, events: list[SSEEvent]) -> str:
        """What of a text that begins and ends anywhere is left for the fast path.

        Without the lines of a block that is open, which are interpreted here, and without a line that has not ended.
        """
        end = text.rfind("\n") + 1
        lines = text[:end]
        if end and self._pieces:
            lines = "".join([*self._pieces, lines])
            self._pieces, self._pieces_size = [], 0
        if end < len(text):
            self._pieces.append(text[end:])
            self._pieces_size += len(text) - end
        if len(lines) > self._block[-1]:
            start = len(lines)  # with a check of every line
        elif not end or self._block == self._no_block:
            start = 0
        else:
            start = lines.find("\n\n") + 2
            if start < 2:
                start = len(lines)
        if start:
            events.extend(self._interpret(lines[: start - 1].split("\n")))
        return lines[start:]

    def _dispatch_blocks(self, lines: str, events: list[SSEEvent]) -> None:
        """Interpret complete lines, each with its LF, of which the first begins a block: the fast path."""
        if lines.find("\n", 0, 1024) < 0 and lines[:6] == "data: " and lines.find("\n") == len(lines) - 2:
            blocks = [("", "", lines[6:-2], "", "")]  # one long line: str methods are several times as fast
        else:
            blocks = _BLOCKS(lines)
        last_event_id = self.last_event_id
        for id, event, data, more, other in blocks:
            if other:
                if other[0] != ":" or self._on_comment is not None:
                    self.last_event_id = last_event_id
                    events.extend(self._interpret(other[:-1].split("\n")))
                    last_event_id = self.last_event_id
                continue
            if id:
                last_event_id = id
            if more:
                data += more.replace("\ndata: ", "\n")
            draft: Any = _Draft()
            draft.event = event or "message"
            draft.data = data
            draft.id = last_event_id
            draft.retry = None
            draft.__class__ = SSEEvent
            events.append(draft)
        self.last_event_id = last_event_id

    def _interpret(self, lines: Iterable[Any]) -> Iterator[SSEEvent]:
        """Interpret lines, text or bytes, with or without their line ends; a block left open waits for the next call.

        No line is taken before it is needed for the event that is asked for.
        """
        lines = iter(lines)
        if not self._bom_checked:
            for line in lines:  # the first one only
                self._bom_checked = True
                yield from self._interpret((_as_text(line).removeprefix("\ufeff"),))
                if not isinstance(line, str):
                    lines = map(_as_text, lines)  # one call for each, instead of an exception
                break
        type_, data, more, id, retry, room = self._block
        for line in lines:
            try:
                line = line.removesuffix("\n").removesuffix("\r")
            except (AttributeError, TypeError):  # no text, perhaps bytes
                line = _as_text(line).removesuffix("\n").removesuffix("\r")
            if not line:  # "dispatch the event", unless it has no data
                if id is not None:
                    self.last_event_id = id
                if data is not None:
                    draft: Any = _Draft()
                    draft.event = type_ or "message"
                    draft.data = data if more is None else "\n".join(more)
                    draft.id = self.last_event_id
                    draft.retry = retry
                    draft.__class__ = SSEEvent
                    yield draft
                    data, more, room = None, None, self._limit
                elif self._stopped:
                    break
                type_, id, retry = "", None, None
                continue
            if len(line) > room:
                raise SSELimitError(self._limit)
            value = line.removeprefix("data: ")
            if value == line:
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if field == "event":
                    type_ = value
                elif field == "id":
                    if "\0" not in value:
                        id = value
                elif field == "retry":
                    if value.isascii() and value.isdigit():
                        digits = value.lstrip("0") or "0"  # int() refuses thousands of digits
                        self.retry = retry = min(int(digits[:11]), MAX_RETRY)
                elif not field and self._on_comment is not None:
                    self._on_comment(value)
                if field != "data":
                    if self._stopped:
                        break
                    continue
            if data is None:
                data = value
            elif more is None:
                more = [data, value]
            else:
                more.append(value)
            room -= len(value) + 1
        self._block = type_, data, more, id, retry, room

    def _unfinished_data(self) -> str | None:
        """The data of the block that the end of the stream has cut off, as if its last line had ended."""
        field, _, value = "".join(self._pieces).partition(":")
        _, data, more, *_ = self._block
        more = more or [data] * (data is not None)
        if field == "data":
            more = [*more, value.removeprefix(" ")]
        return "\n".join(more) if more else None


def _as_text(line: Any) -> str:
    if isinstance(line, str):
        return line
    if isinstance(line, (bytes, bytearray)):
        return line.decode("utf-8", "replace")
    raise TypeError(f"a line must be str or bytes, got {type(line).__name__}")


# === 3. Event sources ================================================================================================
#
# Events come in batches and go out one by one. `_Events` keeps those that are ready and the error that comes after
# them; `_Blocking` and `_Async` are the iterator over it, `_advance` the one step that differs: here it pulls from
# somebody else's stream, in the clients below it reads from a connection. Only the lines of an EventSource go another
# way: the parser pulls them itself, one event at a time.


_NOTHING: list[SSEEvent] = []


class _Events:
    """Parsed events on their way to the consumer."""

    close: Any
    _advance: Any

    def __init__(self, last_event_id: str, **options: Any) -> None:
        self._parser = SSEParser(last_event_id, **options)
        self._ready: list[SSEEvent] = []  # the next event last
        self._pop = self._ready.pop  # bound once, since it is called for every event
        self._given: SSEEvent | None = None  # the event of the last chunk that was given out last
        self._id_before = last_event_id  # of that chunk
        self._failure: Exception | None = None  # to be raised; kept while a cancellation may get in between
        self._ended = False  # nothing comes after what is ready
        self._closed = False  # nor does that

    @property
    def last_event_id(self) -> str:
        """The last event ID as of the last event given out: where to resume."""
        if not self._ready:
            return self._parser.last_event_id
        return self._id_before if self._given is None else self._given.id

    def _take(self, chunk: Chunk) -> list[SSEEvent]:
        """Parse a chunk: its events become ready."""
        self._given, self._id_before = None, self._parser.last_event_id
        events = self._parser.feed(chunk)
        self._ready[:0] = reversed(events)
        return events

    def _shut(self) -> None:
        """Nothing is given out any more, whatever is ready."""
        self._closed, self._pop = True, _NOTHING.pop

    def _check_end(self, end: type[Exception]) -> None:
        """Raise what comes when no event is ready: the end, or the error that the parser met after the last event."""
        if self._failure is not None:
            raise self._failure
        if self._closed or self._ended:
            raise end
        if self._parser._error is not None:
            raise self._parser._error


class _Blocking(_Events):
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SSEEvent:
        while True:
            try:
                event = self._given = self._pop()
                return event
            except IndexError:
                pass
            try:
                self._check_end(StopIteration)
                self._advance()
            except Exception as exc:
                self._failure = exc
                self._stop()
                self._failure = None
                raise

    def _stop(self) -> None:
        self._shut()


class _Async(_Events):
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SSEEvent:
        while True:
            try:
                event = self._given = self._pop()
                return event
            except IndexError:
                pass
            try:
                self._check_end(StopAsyncIteration)
                await self._advance()
            except Exception as exc:
                self._failure = exc
                await self._stop()
                self._failure = None
                raise

    async def aclose(self) -> None:
        """The same as `close`."""
        await self.close()

    async def _stop(self) -> None:
        self._shut()


class _Source(_Events):
    """What both event sources are, but for the pulling."""

    _iterate: Any

    def __init__(
        self,
        lines: Any,
        *,
        last_event_id: str = "",
        max_event_size: int | None = MAX_EVENT_SIZE,
        on_comment: Callable[[str], object] | None = None,
    ) -> None:
        """Wrap an iterable of lines, `str` or `bytes` (UTF-8); the options are those of `SSEParser`.

        At most one line end is taken off each line; lines are not split again.
        """
        super().__init__(last_event_id, max_event_size=max_event_size, on_comment=on_comment)
        self._chunked = False
        self._iterator = self._iterate(lines)
        self._closables = [lines] if self._iterator is lines else [lines, self._iterator]

    @classmethod
    def from_chunks(cls, chunks: Any, **options: Any) -> Self:
        """Wrap an iterable of raw slices of the stream, `bytes` or `str`; options as in the constructor.

        The fast way, and the safe one with other libraries, whose own line splitting breaks data: `r.iter_bytes()`
        of httpx, `r.iter_content(None)` of requests.
        """
        source = cls(chunks, **options)
        source._chunked = True
        return source

    @property
    def retry(self) -> int | None:
        """The reconnection time in ms that the stream asked for last, or `None`."""
        return self._parser.retry


class EventSource(_Source, _Blocking):
    """The events of an iterable of lines, or of chunks with `from_chunks`; an iterator and a context manager."""

    _events: Iterator[SSEEvent]  # of the lines

    def __next__(self) -> SSEEvent:
        if not self._chunked:
            try:
                for event in self._events:
                    if not self._closed:
                        return event
                    break
            except Exception:
                if not self._closed:  # which may break the source
                    raise
            if self._closed:
                self._leave()
        return super().__next__()

    def close(self) -> None:
        """End the iteration and close the source, if it can be closed; idempotent."""
        self._shut()
        self._events, self._parser._stopped = iter(()), True
        if self._closables:
            try:
                _close(self._closables.pop(0))
            finally:
                self.close()

    def _leave(self) -> None:
        """Close a generator that `close()` could not, as we were in it."""
        if hasattr(self._iterator, "gi_running"):
            _close(self._iterator)

    def _iterate(self, source: Any) -> Any:
        iterator = iter(source)
        self._events = self._parser._interpret(iterator)
        return iterator

    def _advance(self) -> None:
        if not self._chunked:  # and so at the end of the lines
            raise StopIteration
        try:
            chunk = next(self._iterator)
        except Exception:
            if not self._closed:  # which may break the source
                raise
            raise StopIteration from None
        if self._closed:
            self._leave()
        else:
            self._take(chunk)


class AsyncEventSource(_Source, _Async):
    """The events of an asynchronous (or plain) iterable of lines, or of chunks with `from_chunks`."""

    async def close(self) -> None:
        """End the iteration and close the source, if it can be closed; idempotent."""
        self._shut()
        for closable in self._closables:
            await _aclose(closable)
            self._closables = [other for other in self._closables if other is not closable]  # only then

    def _iterate(self, source: Any) -> Any:
        return aiter(source) if hasattr(source, "__aiter__") else _each(iter(source))

    async def _advance(self) -> None:
        try:
            item = await self._iterator.__anext__()
        except Exception:
            if not self._closed:  # which may break the source
                raise
            raise StopAsyncIteration from None
        if self._closed:
            if hasattr(self._iterator, "ag_running"):  # which close() could not close, as we were in it
                await _aclose(self._iterator)
        elif self._chunked:
            self._take(item)
        else:
            self._ready += self._parser._interpret((item,))


def _close(source: Any) -> bool:
    """Close a source, if it can be closed; `False` if it is a generator that another thread is in."""
    try:
        if hasattr(source, "close"):
            source.close()
    except ValueError as exc:
        if str(exc) != "generator already executing":
            raise
        return False
    return hasattr(source, "close")


async def _aclose(source: Any) -> None:
    """Close an asynchronous source, if it can be closed; not a generator that another task is in."""
    close = getattr(source, "aclose", None) or getattr(source, "close", None)
    try:
        if close is not None and hasattr(closing := close(), "__await__"):
            await closing
    except RuntimeError as exc:
        if not str(exc).endswith("generator is already running"):
            raise


async def _each(items: Iterator[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


# === 4. Reconnection, without I/O ====================================================================================
#
# Everything a client decides: which arguments are right, what is asked of the transport, whether an answer is the
# stream, whether a lost connection comes back, and when. `_step` is the life of a stream, written once for both clients
# as a coroutine that awaits what the shells below do: `_open`, `_next_chunk`, `_hang_up` block in one and suspend in
# the other. Here is no socket and no sleep; clock and chance are attributes, for tests to set.


def _check(name: str, value: Any, kinds: Any, must: str, valid: Callable[[Any], object] | None = None) -> None:
    """Raise `TypeError` if `value` fits none of `kinds` (types, predicates, `None`), `ValueError` if not `valid`."""
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if value is None and None in kinds:
        return
    got = type(value).__name__ if name in ("body", "headers", "params", "url") else _clip(repr(value), 100)  # secrets
    fits = [isinstance(value, kind) if isinstance(kind, type) else kind(value) for kind in kinds if kind is not None]
    if not any(fits) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{name} must be {must}, got {got}")
    if valid is not None and not valid(value):
        raise ValueError(f"{name} must be {must}, got {got}")


def _is_mapping(value: object) -> bool:
    return hasattr(value, "items")


def _is_encodable(body: Any) -> bool:
    return isinstance(body, bytes) or not re.search("[\ud800-\udfff]", body)


def _is_field_value(text: str) -> bool:
    return not any(c in text for c in "\r\n\0")


def _is_time(seconds: float) -> bool:
    return 0 < seconds < MAX_RETRY


_NUMBER = (int, float)
_FUNCTION = ((callable, None), "a function or None")
_OPTIONS: dict[str, tuple[Any, ...]] = {  # what `_check` says of the clients' options, beside the rules that relate two
    "method": ((str, None), "an HTTP method", lambda method: re.fullmatch(r"[A-Za-z-]+", method)),
    "body": ((bytes, str, None), "bytes or str without surrogates", _is_encodable),
    "params": ((_is_mapping, None), "a mapping"),
    "heartbeat_timeout": ((*_NUMBER, None), "seconds > 0, or None", _is_time),
    "max_retry_interval": (_NUMBER, "milliseconds from 0 to 2**31 - 1", lambda ms: 0 <= ms <= MAX_RETRY),
    "backoff": (_NUMBER, "a number >= 1", lambda factor: 1 <= factor < float("inf")),
    "jitter": (_NUMBER, "a fraction from 0 to 1", lambda fraction: 0 <= fraction <= 1),
    "max_retries": (int, "a number >= 0, or -1 for no limit", lambda number: number >= -1),
    "reconnect": ((bool, None), "True, False or None"),
    "retry_statuses": (lambda value: hasattr(value, "__iter__"), "statuses from 300 to 599"),
    "until": ((str, None), "text or None"),
    "check_content_type": (bool, "True or False"),
    "verify": ((bool, lambda value: hasattr(value, "wrap_bio")), "True, False or an ssl.SSLContext"),
    "proxy": ((str, bool, None), "a URL, None or False", lambda proxy: proxy is not True),
    "on_open": _FUNCTION,
    "on_reconnect": _FUNCTION,
    "transport": _FUNCTION,
}


def _checked_headers(headers: Any) -> dict[str, str]:
    """A user's headers; errors name the header and never show its value."""
    _check("headers", headers, _is_mapping, "a mapping or a function that returns one")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"headers must map str to str, got {type(value).__name__} for {name!r}")
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError(f"headers must have names of letters, digits and -, got {name!r}")
        if not _is_field_value(value):
            raise ValueError(f"headers must not contain CR, LF or NUL, as the value of {name!r} does")
    # Plain text, whatever kind of str it was; spaces around a value are no part of it, and some libraries refuse them.
    return {str.__str__(name): str.strip(value, " \t") for name, value in headers.items()}


def _split_url(url: str, params: Mapping[str, Any] | None) -> tuple[str, bytes | None]:
    """The URL with `params` in its query and without userinfo; the userinfo, decoded."""
    from urllib.parse import unquote_to_bytes, urlencode, urlsplit

    _check("url", url, str, "str")
    try:
        parts = urlsplit(url)
        userinfo, at, host = parts.netloc.rpartition("@")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or not _HOST.fullmatch(host):
            raise ValueError
        if re.search(r"[\x00-\x20\x7f\\]", url):  # of which urlsplit drops CR, LF and TAB silently
            raise ValueError
    except ValueError:
        shown = re.sub(r".*@", "...@", _shown(url), flags=re.DOTALL)  # whatever was meant as userinfo
        must = "an http or https URL without spaces, control characters and backslashes"
        raise ValueError(f"url must be {must}, got {shown!r}") from None
    if params is not None:
        parts = parts._replace(query="&".join(filter(None, (parts.query, urlencode(params, doseq=True)))))
    if at and ":" not in userinfo:
        userinfo += ":"
    return parts._replace(netloc=host, fragment="").geturl(), unquote_to_bytes(userinfo) if at else None


def _header(headers: Any, name: str) -> str:
    """A header of any transport's mapping, whatever its case; empty if it is not there."""
    return next((str(value) for key, value in headers.items() if str(key).lower() == name), "")


def _retry_after_ms(value: str, now: float) -> float:
    """`Retry-After` in ms: of seconds, or of an HTTP date seen from `now` (Unix time); 0 if it is neither."""
    if value.isascii() and value.isdigit():
        return int(value[:10]) * 1000
    from email.utils import mktime_tz, parsedate_tz

    date = parsedate_tz(value)
    try:
        return (mktime_tz(date) - now) * 1000 if date else 0.0
    except (ValueError, OverflowError):
        return 0.0


def _log(level: str, text: str, *values: object) -> None:
    """Log a line; whoever listens has imported `logging`, whose import would delay the first event of all others."""
    logging = sys.modules.get("logging")
    if logging is not None:
        logger = logging.getLogger("sse")
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())  # silent until the application asks for it
        getattr(logger, level)(text, *values)


def _default_transport(kind: str, verify: Any, proxy: Any) -> Any:
    """The one of `httpclient`, or `None` where that is missing."""
    try:
        import httpclient
    except Exception:
        return None
    ours = hasattr(httpclient, "HttpProtocolError") and hasattr(httpclient, kind)  # or another module of that name
    return getattr(httpclient, kind)(verify, proxy) if ours else None


def _missing_transport(*_: object) -> Any:
    other = getattr(sys.modules.get("httpclient"), "__file__", None)
    why = f"{other} is another module of that name" if other else "it cannot be imported"
    raise ImportError(f"sse needs its httpclient.py: copy it beside sse.py, or give transport= ({why})")


def _is_own(response: Any) -> bool:
    """Whether it is one of `httpclient`, whose attribute sets the time; not a wrapper that only looks like it."""
    return "read_timeout" in getattr(response, "__dict__", ())


class _Stats:
    """What a client has counted up to now."""

    __slots__ = ("_parsed", "_ready", "bytes", "connects", "last_activity", "retries")

    def __init__(self, ready: Sized) -> None:
        self._ready = ready
        self.bytes = self.connects = self.retries = self._parsed = 0
        self.last_activity: float | None = None

    @property
    def events(self) -> int:
        """How many were given out."""
        return self._parsed - len(self._ready)


class _Client(_Events):
    """What both clients are, but for opening, reading, waiting and closing."""

    _transport_name: str
    _interrupt: Any  # () ends what is going on with the connection, from any thread
    _open: Any  # await () waits until it is time, then goes on with `_connect`
    _next_chunk: Any  # await (seconds) is the next chunk, `None` at the end; TimeoutError after that silence
    _hang_up: Any  # await () closes what there is of a connection
    _result: Any  # await (value) is the value, or what it awaits in the async client

    def __init__(
        self,
        url: str,
        *,
        method: str | None = None,
        headers: Any = None,
        json: Any = None,
        body: bytes | str | None = None,
        params: Mapping[str, Any] | None = None,
        timeout: Timeout = 30.0,
        heartbeat_timeout: float | None = None,
        retry_interval: float = 3000,
        max_retry_interval: float = 60_000,
        backoff: float = 1.5,
        jitter: float = 0.1,
        max_retries: int = -1,
        reconnect: bool | None = None,
        retry_statuses: Iterable[int] = (),
        last_event_id: str = "",
        until: str | None = None,
        check_content_type: bool = True,
        max_event_size: int | None = MAX_EVENT_SIZE,
        verify: bool | ssl.SSLContext = True,
        proxy: str | bool | None = None,
        on_open: Callable[[Any], object] | None = None,
        on_reconnect: Callable[[BaseException | None, float], object] | None = None,
        on_comment: Callable[[str], object] | None = None,
        transport: Callable[[Request, Any], Any] | None = None,
    ) -> None:
        """Check the arguments; the stream is opened by `with` or by asking for the first event.

        Args:
            url: `http` or `https`; userinfo becomes Basic auth.
            method: `GET` by default, `POST` when `json` or `body` is given.
            headers: A mapping, or a function that returns one (awaitable in the async client, if you like), called
                before every connection. They replace default headers of the same name.
            json: A value to send as JSON.
            body: `bytes`, or `str` to send as UTF-8; not together with `json`.
            params: Added to the query of `url`.
            timeout: Seconds for one opening, from the name look-up to the end of the response head; a pair: for the
                connection and for the head; `None`: no limit. Never ends an idle stream.
            heartbeat_timeout: Seconds without a single byte after which the connection is taken for dead.
            retry_interval: ms before a reconnect, until the server's `retry` replaces it.
            max_retry_interval: ms, the cap on every wait, before jitter.
            backoff: Each further failure in a row multiplies the wait by this.
            jitter: Up to this fraction is added to each wait at random.
            max_retries: Reconnects in a row without an event before `SSEConnectionError`; -1: unlimited.
            reconnect: `None`: only a `GET` reconnects. Nothing else is sent twice unless this is `True`.
            retry_statuses: Statuses to treat as a lost connection, such as `TRANSIENT`; `Retry-After` is obeyed.
            last_event_id: Where to resume.
            until: The data of the event that ends the stream; it is not given out.
            check_content_type: Whether to refuse an answer that is not `text/event-stream`.
            max_event_size: Characters, see `SSEParser`.
            verify: `False`, or an `ssl.SSLContext`.
            proxy: A URL; `None`: as the environment says; `False`: none.
            on_open: Called with the response after each opening.
            on_reconnect: Called before each wait with the exception (`None`: a clean end) and the wait in seconds.
            on_comment: Called with the text of each comment.
            transport: `transport(request, timeout)` that returns a response (async: an awaitable), for `httpclient`.

        Raises:
            TypeError, ValueError: An argument is wrong; the text names it.
        """
        given = locals()
        for name, rule in _OPTIONS.items():
            _check(name, given[name], *rule)
        for limit in timeout if isinstance(timeout, tuple) and len(timeout) == 2 else (timeout,):
            _check("timeout", limit, (*_NUMBER, None), "seconds > 0, a pair of them, or None", _is_time)
        must = f"a number of milliseconds from 0 to max_retry_interval={max_retry_interval!r}"
        _check("retry_interval", retry_interval, _NUMBER, must, lambda ms: 0 <= ms <= max_retry_interval)
        self._retry_statuses = tuple(retry_statuses)
        for status in self._retry_statuses:
            _check("retry_statuses", status, int, "statuses from 300 to 599", lambda n: 300 <= n <= 599)
        if json is not None and body is not None:
            raise ValueError("json and body must not both be given: a request has one body")

        super().__init__(last_event_id, max_event_size=max_event_size, on_comment=on_comment)
        self.url, userinfo = _split_url(url, params)  # with its query, without userinfo
        self._method = method.upper() if method else "GET" if json is None and body is None else "POST"
        self._body = body.encode() if isinstance(body, str) else body
        self._defaults = {
            "Accept": "text/event-stream",
            "Cache-Control": "no-cache",
            "User-Agent": f"stdsse/{__version__}",
            "Accept-Encoding": "identity",
        }
        if json is not None:
            from json import dumps

            try:
                self._body = dumps(json).encode()
            except (TypeError, ValueError) as exc:
                kind = ValueError if isinstance(exc, ValueError) else TypeError
                raise kind(f"json cannot be encoded: {exc}") from None
            self._defaults["Content-Type"] = "application/json"
        if userinfo is not None:
            from base64 import b64encode

            self._defaults["Authorization"] = f"Basic {b64encode(userinfo).decode()}"
        self._headers = headers if callable(headers) else _checked_headers({} if headers is None else headers)
        self._timeout, self._heartbeat_timeout = timeout, heartbeat_timeout
        self._retry_interval, self._max_retry_interval = retry_interval, max_retry_interval
        self._backoff, self._jitter, self._max_retries = float(backoff), jitter, max_retries
        self._reconnect = self._method == "GET" if reconnect is None else reconnect
        self._first_id = last_event_id
        self._until, self._check_content_type = until, check_content_type
        self._on_open, self._on_reconnect = on_open, on_reconnect
        owned = _default_transport(self._transport_name, verify, proxy) if transport is None else None
        self._owned_transport = owned
        self._transport: Any = owned or _missing_transport if transport is None else transport
        if owned is not None and hasattr(owned, "check"):
            owned.check(self._request({} if callable(headers) else self._headers))
        self._now = time.monotonic
        self._random: Callable[[], float] | None = None  # random.random, when first needed

        from queue import SimpleQueue
        from threading import RLock

        self._response: Any = None
        self.stats = _Stats(self._ready)
        self._chunks: Any = None  # the iterator over its body
        self._streaming = False  # it was accepted: its body is the stream
        self._due = 0.0  # when to open next, on the monotonic clock
        self._failures = 0  # reconnects in a row without an event
        self._restarting = False  # restart() was called: what is lost now is no failure
        # Ends the wait for a reconnect; no Event, whose lock would stop a close() in a signal handler for ever.
        self._wake: Any = None if isinstance(self, _Async) else SimpleQueue()
        self._lock = RLock()  # so that what restart() ends is what was there, not what takes its place

    @property
    def response(self) -> Any:
        """That of the current connection: `status_code`, `headers`, `url`; `None` between two."""
        return None if self._closed else self._response

    @property
    def retry_interval(self) -> float:
        """The reconnection time in force in ms: the server's `retry`, else the option, up to `max_retry_interval`."""
        retry = self._retry_interval if self._parser.retry is None else self._parser.retry
        return min(retry, self._max_retry_interval)

    def restart(self) -> None:
        """Drop the connection and open it again at once, from any thread; that is no failure and no retry."""
        with self._lock:
            self._restarting = True
            self._interrupt()

    def __repr__(self) -> str:
        state = "closed" if self._closed or self._ended else "open" if self._streaming else "not open"
        return f"<{type(self).__name__} {_shown(self.url)} {state}>"

    # Private

    async def _enter(self) -> None:
        """Open the stream, under the same rules of reconnection as later on."""
        try:
            while not (self._streaming or self._closed or self._ended):
                await self._step()
        except BaseException:
            await self._result(self.close())
            self._failure = None
            raise

    async def _step(self) -> None:
        """Wait and open, or read what has arrived."""
        if self._failure is not None:
            raise self._failure
        if self._restarting:
            with self._lock:
                self._restarting = False
            self._parser.reset()
            self._due = 0.0
            await self._hang_up()
        cause: Exception | None = None
        if self._streaming:
            chunk = None
            try:
                chunk = await self._next_chunk(self._heartbeat_timeout)
            except Exception as exc:
                cause = exc
            if chunk is not None:
                self._received(chunk)
                return
        else:
            cause = await self._open()
            if cause is None and self._opened():
                return
        try:
            self._lost(cause)
        except (StopIteration, StopAsyncIteration) as exc:  # which would end the consumer's loop
            self._failure = RuntimeError(f"a callback or the transport raised {type(exc).__name__}")
        except Exception as exc:
            self._failure = exc  # for the next step: to hang up comes first, and can be cancelled
        await self._hang_up()

    async def _connect(self) -> Exception | None:
        """Ask the transport for the stream; return what is wrong with its answer."""
        if self._is_interrupted():
            return ConnectionError("interrupted")
        headers = self._headers() if callable(self._headers) else self._headers
        request = self._request(await self._result(headers))
        if self._is_interrupted():
            return ConnectionError("interrupted")
        try:
            response = self._response = await self._result(self._transport(request, self._timeout))
        except Exception as exc:
            return exc
        if self._is_interrupted():
            return ConnectionError("interrupted")
        return self._refusal(response, await self._error_body()) if self._is_refused(response) else None

    def _is_interrupted(self) -> bool:
        """Whether `close()` or `restart()` was called: what is being opened is not wanted any more."""
        return self._closed or self._restarting

    async def _error_body(self) -> bytes:
        """The start of a refused answer's body; if it breaks, or takes too long, what has come of it."""
        body = b""
        limit = self._timeout[1] if isinstance(self._timeout, tuple) else self._timeout
        deadline = self._now() + (MAX_RETRY if limit is None else limit)
        try:
            while len(body) < MAX_ERROR_BODY and (left := deadline - self._now()) > 0:
                chunk = await self._next_chunk(left)
                if chunk is None:
                    break
                body += chunk
        except Exception:
            pass
        return body

    def _request(self, headers: Any) -> Request:
        """What to ask the transport for; `headers` are the user's."""
        merged = dict(self._defaults)
        last_event_id = self._parser.last_event_id
        if last_event_id:
            merged["Last-Event-ID"] = last_event_id
        for name, value in _checked_headers(headers).items():
            if name.lower() == "last-event-id" and last_event_id != self._first_id:
                continue  # the stream has moved on: to ask for the older event would double those since
            for default in [other for other in merged if other.lower() == name.lower()]:
                del merged[default]
            merged[name] = value
        return Request(self._method, self.url, merged, self._body)

    def _is_refused(self, response: Any) -> bool:
        """Whether an answer is neither the stream nor, as a 204 is, its end; its body then tells why."""
        if response.status_code == 204:
            return False
        essence = _header(response.headers, "content-type").partition(";")[0].strip().lower()
        wrong_type = self._check_content_type and essence != "text/event-stream"
        return wrong_type or not 200 <= response.status_code < 300

    def _refusal(self, response: Any, body: bytes) -> SSEError:
        """The error that a refused answer is, for `_lost`."""
        url, text = str(getattr(response, "url", self.url)), body[:MAX_ERROR_BODY].decode("utf-8", "replace")
        if 200 <= response.status_code < 300:
            return SSEContentTypeError(_header(response.headers, "content-type"), url, text)
        return SSEHTTPError(response.status_code, url, response.headers, text)

    def _opened(self) -> bool:
        """Whether the stream is open now, or at its end by a 204."""
        self.stats.last_activity = self._now()
        self._streaming = self._response.status_code != 204
        if not self._streaming:
            self._finish("HTTP 204")
            return False
        self.stats.connects += 1
        _log("info", "%s: open", _shown(self.url))
        if self._on_open is not None:
            self._on_open(self._response)
        return True

    def _received(self, chunk: Chunk) -> None:
        """A chunk has arrived: its events become ready, up to `until`."""
        self.stats.bytes += len(chunk)
        self.stats.last_activity = self._now()
        events = self._take(chunk)
        if events:
            self._failures = 0
        if self._until is not None:
            for number, event in enumerate(events):
                if event.data == self._until:
                    del self._ready[: len(events) - number], events[number:]
                    self._parser.last_event_id = event.id
                    self._finish("until")
                    break
        self.stats._parsed += len(events)

    def _lost(self, cause: Exception | None) -> None:
        """A connection is lost or was not made (`None`: its body ended cleanly): plan the next one.

        Raises what ends the stream for good: the cause itself if it is fatal, or `SSEConnectionError`.
        """
        if self._ended or self._is_interrupted():
            return
        if cause is not None:
            self._raise_fatal(cause)
        elif self._until is not None and self._parser._unfinished_data() == self._until:
            self._finish("until")
            return
        elif self._until is None and not (self._reconnect and self._method == "GET"):
            self._finish("end of the answer")
            return
        permanent = getattr(cause, "permanent", False)  # what httpclient says of a redirect that it may not follow
        if permanent or not self._reconnect or self._failures == self._max_retries:
            raise SSEConnectionError(self.url, self._failures, cause) from cause
        self._failures += 1
        self.stats.retries += 1
        self._parser.reset()
        wait_s = self._wait_s(cause)
        self._due = self._now() + wait_s
        if self._on_reconnect is not None:
            self._on_reconnect(cause, wait_s)
        _log("warning", "%s: %s; reconnecting in %.3g s", _shown(self.url), _reason(cause, self.url), wait_s)

    def _raise_fatal(self, cause: Exception) -> None:
        """Raise `cause`, or the certificate error behind it, unless it is a lost connection."""
        if isinstance(cause, SSEHTTPError) and cause.status_code in self._retry_statuses and self._reconnect:
            return
        lost = (OSError, EOFError)
        if isinstance(cause, SSEError) or (type(cause).__module__ == "builtins" and not isinstance(cause, lost)):
            raise cause  # the builtin ones are programming errors
        untrusted = getattr(sys.modules.get("ssl"), "SSLCertVerificationError", ())
        link: BaseException | None = cause
        for _ in range(20):  # a chain may be a ring
            if isinstance(link, untrusted):
                raise link
            link = link and (link.__cause__ or link.__context__)
            if link is sys.exc_info()[1]:  # what our caller is handling is the context of all, and the cause of nothing
                break

    def _wait_s(self, cause: Exception | None) -> float:
        """The wait in seconds before reconnect number `_failures` in a row."""
        wait_ms: float = self.retry_interval
        if self._failures > 1:
            try:
                wait_ms = max(wait_ms, MIN_BACKOFF_BASE) * self._backoff ** (self._failures - 1)
            except OverflowError:  # after thousands of failures
                wait_ms = self._max_retry_interval
        if isinstance(cause, SSEHTTPError):
            wait_ms = max(wait_ms, _retry_after_ms(_header(cause.headers, "retry-after"), time.time()))
        if self._random is None:
            from random import random

            self._random = random
        return min(wait_ms, self._max_retry_interval) / 1000 * (1 + self._jitter * self._random())

    def _finish(self, why: str) -> None:
        self._ended = True
        _log("info", "%s: end (%s)", _shown(self.url), why)


# === 5. Blocking client ==============================================================================================
#
# The steps of `_Client` in the consumer's thread. `close()` and `restart()` come from any thread: they leave a flag for
# the consumer to find, then wake it wherever it blocks: in the wait by an event, in an opening by the transport, in a
# read by closing the response.


def _run(step: Any) -> None:
    """Carry out a coroutine that never suspends, since what it awaits has blocked until it was done."""
    try:
        step.send(None)
    except StopIteration:
        pass


class SSEClient(_Client, _Blocking):
    """A stream that reconnects: a context manager, and an iterator over its events.

    Leave the loop and come back: nothing is lost. The `with` and the loop raise `SSEConnectionError`, `SSEHTTPError`,
    `SSEContentTypeError`, `SSELimitError`, `ssl.SSLCertVerificationError`, and what a callback raises.
    """

    def __enter__(self) -> Self:
        _run(self._enter())
        return self

    def close(self) -> None:
        """End the stream, from any thread: a consumer that blocks in it ends its loop at once; idempotent."""
        self._shut()
        self._interrupt()

    # Private

    _transport_name = "Transport"
    _expired = False  # the response was closed, as nothing came
    _stop = close

    def _advance(self) -> None:
        _run(self._step())

    def _interrupt(self) -> None:
        self._wake.put(None)
        if self._owned_transport is not None:
            self._transport.close() if self._closed else self._transport.abort()
        self._close_response()

    async def _open(self) -> Exception | None:
        from queue import Empty

        while not self._is_interrupted() and (left_s := self._due - self._now()) > 0:
            try:
                self._wake.get(timeout=min(left_s, 1.0))  # in slices: CPython misses a signal that comes just before
            except Empty:
                pass
        return await self._connect()

    @staticmethod
    async def _result(value: Any) -> Any:
        return value

    async def _next_chunk(self, seconds: float | None) -> Any:
        response = self._response
        if self._chunks is None:
            self._chunks = iter(response.iter_bytes())
        if _is_own(response):
            response.read_timeout = seconds
        elif seconds is not None:
            return self._next_chunk_in_time(seconds)
        return next(self._chunks, None)

    def _next_chunk_in_time(self, seconds: float) -> Any:
        """Another transport's next chunk: a read that cannot be given a time is ended by closing the response."""
        from threading import Timer

        def expire() -> None:
            self._expired = True
            self._close_response()

        timer = Timer(seconds, expire)
        timer.start()
        chunk = None
        try:
            if not self._expired:
                chunk = next(self._chunks, None)
        except Exception:
            if not self._expired:
                raise
        finally:
            timer.cancel()
            timer.join()
        if self._expired and chunk is None:  # a closed body may look like one that has ended
            raise TimeoutError(f"not a byte for {seconds:.3g} s")
        return chunk

    async def _hang_up(self) -> None:
        self._close_response()
        self._response, self._chunks, self._streaming, self._expired = None, None, False, False

    def _close_response(self) -> None:
        response = self._response
        if response is not None:
            try:
                response.close()
            except Exception:  # of another transport: the connection is given up anyway
                pass


connect = SSEClient  # a function to its users: `with connect(url) as events:`


# === 6. Async client =================================================================================================
#
# The same steps in the consumer's task. What is cancelled must lose nothing, so an opening, with the wait before it,
# runs in a task of its own, which the next `__anext__` finds again; a read of `httpclient` can be cancelled and
# repeated as it is, one of another transport runs in a task, too.


class AsyncSSEClient(_Client, _Async):
    """The twin of `SSEClient` for asyncio: an asynchronous context manager, and an asynchronous iterator.

    A cancelled `__anext__` (`asyncio.wait_for`) loses nothing; leaving the `async with` closes everything.
    """

    async def __aenter__(self) -> Self:
        await self._enter()
        return self

    async def close(self) -> None:
        """End the stream, from any task: a consumer that waits in it ends its loop at once; idempotent."""
        self._shut()
        _abandon(self._opening, self._reading, self._response, self._owned_transport)  # all, before the first await
        await _cancel(self._opening)
        await self._hang_up()
        if self._owned_transport is not None:
            await self._transport.aclose()

    def __del__(self) -> None:
        # A consumer cancelled outside of an `async with`: nobody else is left to close the connection.
        if self._loop is not None and not self._closed:
            self._interrupt(self._owned_transport)

    # Private

    _transport_name = "AsyncTransport"
    _loop: asyncio.AbstractEventLoop | None = None  # set when it is first opened
    _opening: asyncio.Future[Exception | None] | None = None
    _reading: asyncio.Future[Any] | None = None
    _reading_since = 0.0
    _stop = close
    _advance = _Client._step

    def _interrupt(self, *transport: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            # What there is now, not what may have taken its place by then.
            self._loop.call_soon_threadsafe(_abandon, self._opening, self._reading, self._response, *transport)

    async def _open(self) -> Exception | None:
        import asyncio
        from weakref import proxy

        if self._opening is None:
            self._loop = asyncio.get_running_loop()
            # By a proxy: a task that holds the client would keep it from `__del__`.
            self._opening = asyncio.ensure_future(_wait_and_connect(proxy(self)))
        opening = self._opening
        await asyncio.wait({opening})
        self._opening = None
        return ConnectionError("cancelled") if opening.cancelled() else opening.result()

    @staticmethod
    async def _result(value: Any) -> Any:
        return await value if hasattr(value, "__await__") else value

    async def _next_chunk(self, seconds: float | None) -> Any:
        if self._chunks is None:
            self._chunks = aiter(self._response.aiter_bytes())
        if _is_own(self._response) and hasattr(self._chunks, "resume"):  # which can be cancelled
            self._response.read_timeout = seconds
            return await self._chunks.resume()
        import asyncio

        if self._reading is None:
            self._reading = asyncio.ensure_future(anext(self._chunks, None))
            self._reading_since = self._now()
        reading = self._reading
        left = None if seconds is None else max(0.0, self._reading_since + seconds - self._now())
        if not (await asyncio.wait({reading}, timeout=left))[0]:
            raise TimeoutError(f"not a byte for {seconds:.3g} s")
        self._reading = None
        if reading.cancelled():
            raise ConnectionError("cancelled")
        return reading.result()

    async def _hang_up(self) -> None:
        closables, reading = (self._chunks, self._response), self._reading
        self._response, self._chunks, self._streaming, self._reading = None, None, False, None
        await _cancel(reading)
        for closable in closables:
            try:
                if hasattr(closable, "aclose"):
                    await closable.aclose()
            except Exception:  # of another transport: the connection is given up anyway
                pass


async def _wait_and_connect(client: AsyncSSEClient) -> Exception | None:
    import asyncio

    wait_s = client._due - client._now()
    if wait_s > 0:
        await asyncio.sleep(wait_s)
    return await _Client._connect(client)


async def _cancel(task: asyncio.Future[Any] | None) -> None:
    """Cancel a task of ours and wait for its end."""
    if task is not None:
        import asyncio

        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # retrieved, so that nothing is logged about it


def _abandon(opening: Any, reading: Any, response: Any, transport: Any = None) -> None:
    """End tasks and connections without waiting."""
    for task in (opening, reading):
        if task is not None:
            task.cancel()
    if hasattr(response, "abort"):
        response.abort()
    if transport is not None:
        transport.close()


async_connect = AsyncSSEClient  # a function to its users: `async with async_connect(url) as events:`


# === 7. Buffers and batches ==========================================================================================
#
# A reader, a thread or a task, fills a queue ahead of its consumers. `_Queue` holds the rules: what overflows, when an
# event or a batch is due, what comes at the end. The two shells only wait until it has something for them.


class _Queue:
    def __init__(self, events: Any, maxsize: int, overflow: str, max_wait: float = 0, batches: bool = False) -> None:
        _check("size" if batches else "maxsize", maxsize, int, "a number of events >= 1", lambda n: n >= 1)
        _check("overflow", overflow, str, "'block', 'drop_oldest' or 'drop_newest'", OVERFLOW.__contains__)
        _check("max_wait", max_wait, (int, float), "seconds >= 0", lambda n: 0 <= n < MAX_RETRY)
        self.dropped = 0  # events lost to a full queue
        self._events = self._source = events  # to read, and to close once
        self._maxsize, self._overflow = maxsize, overflow
        self._max_wait, self._batches = max_wait, batches
        self._items: deque[Any] = deque()
        self._since = 0.0  # when the first of them came, on the monotonic clock
        self._end: Any = None  # what comes after them: the end of the loop, or the error of the source

    def _offer(self, item: Any, since: float) -> bool:
        """Put an event of that time into the queue; `False` if it has to wait for room. Once closed, end the reader."""
        if self._end is not None:
            raise self._end
        if len(self._items) >= self._maxsize:
            if self._overflow == "block":
                return False
            self.dropped += 1
            if str(self.dropped).strip("0") == "1":  # the first, and every power of ten
                _log("warning", "buffer of %d events is full: %d dropped so far", self._maxsize, self.dropped)
            if self._overflow == "drop_newest":
                return True
            self._items.popleft()
        if not self._items:
            self._since = since
        self._items.append(item)
        return True

    def _wait_s(self) -> float | None:
        """Seconds until there is something to take, 0 for now; `None`: until something changes."""
        if self._end is not None or len(self._items) >= (self._maxsize if self._batches else 1):
            return 0.0
        return max(0.0, self._since + self._max_wait - time.monotonic()) if self._items else None

    def _take(self) -> Any:
        """The event or the batch that is due; then the end, for each consumer."""
        if not self._items:
            raise self._end
        if not self._batches:
            return self._items.popleft()
        batch = list(self._items)
        self._items.clear()
        return batch


class Buffered(_Queue, _Generic[_T]):
    """Events that a thread reads ahead: a context manager, and an iterator that several threads may share."""

    def __init__(self, *args: Any, **options: Any) -> None:
        from threading import Condition, Thread

        super().__init__(*args, **options)
        self._changed = Condition()  # and the lock of everything
        self._reader = Thread(target=self._read, daemon=True, name="sse read-ahead")

    def __enter__(self) -> Self:
        with self._changed:
            if self._reader.ident is None and self._end is None:
                self._reader.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        self.__enter__()
        with self._changed:
            while (wait_s := self._wait_s()) != 0:
                self._changed.wait(wait_s)
            item = self._take()
            self._changed.notify_all()  # there is room
            return item  # type: ignore[no-any-return]

    def close(self) -> None:
        """Stop reading, close the source, end the loops of all consumers; from any thread, idempotent.

        A reader that the source's `close()` does not free within 2 s is left to its daemon thread.
        """
        from threading import get_ident

        with self._changed:
            self._items.clear()
            self._end = StopIteration
            self._changed.notify_all()
        source, self._source = self._source, None
        patience_s = 2.0 if _close(source) else 0.1
        if self._reader.ident not in (None, get_ident()):
            self._reader.join(patience_s)

    def _read(self) -> None:
        end: Any = StopIteration
        try:
            for event in self._events:
                since = time.monotonic()
                with self._changed:
                    while not self._offer(event, since):
                        self._changed.wait()
                    self._changed.notify_all()
        except BaseException as exc:  # for the consumers
            end = exc
        with self._changed:
            closed = self._end is not None
            self._end = self._end or end
            self._changed.notify_all()
        if closed and hasattr(self._events, "gi_running"):
            _close(self._events)  # which close() could not while we were in it


class AsyncBuffered(_Queue, _Generic[_T]):
    """Events that a task reads ahead: an asynchronous context manager and iterator that several tasks may share."""

    def __init__(self, *args: Any, **options: Any) -> None:
        from asyncio import Event

        super().__init__(*args, **options)
        self._changed = Event()
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._reader is None and self._end is None:
            from asyncio import get_running_loop

            self._loop = get_running_loop()
            self._reader = self._loop.create_task(self._read())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        await self.__aenter__()
        while (wait_s := self._wait_s()) != 0:
            self._changed.clear()
            timer = wait_s and self._loop.call_later(wait_s, self._changed.set)
            try:
                await self._changed.wait()
            finally:
                if timer:
                    timer.cancel()
        item = self._take()
        self._changed.set()  # there is room
        return item  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Stop reading, close the source, end the loops of all consumers; idempotent."""
        self._items.clear()
        self._end = StopAsyncIteration
        self._changed.set()
        await _cancel(self._reader)
        await _aclose(self._source)
        self._source = None

    aclose = close

    async def _read(self) -> None:
        end: Any = StopAsyncIteration
        try:
            async for event in self._events:
                since = time.monotonic()
                while not self._offer(event, since):
                    self._changed.clear()
                    await self._changed.wait()
                self._changed.set()
        except Exception as exc:  # for the consumers
            end = exc
        except BaseException as exc:  # a cancellation, which a consumer would take for its own
            end = ConnectionError(f"the source raised {type(exc).__name__}")
            raise
        finally:
            self._end = self._end or end
            self._changed.set()


def buffered(events: Iterable[_T], maxsize: int = 10_000, overflow: Overflow = "block") -> Buffered[_T]:
    """Read ahead in a thread, so that a slow consumer does not slow the server down.

    Args:
        events: The source, any iterable; its `close()` is called at the end of the `with`.
        maxsize: Events that may wait.
        overflow: What happens when they do: `"block"` stops reading, `"drop_oldest"` and `"drop_newest"` lose events,
            counted by `.dropped` and logged.

    Returns:
        A context manager and iterator; several threads may iterate, each event reaches one of them. An error of the
        source reaches all of them after the events before it.
    """
    return Buffered(events, maxsize, overflow)


def batched(events: Iterable[_T], size: int, max_wait: float) -> Buffered[list[_T]]:
    """Collect events, read ahead as by `buffered`, in lists of up to `size`, none held longer than `max_wait` s."""
    return Buffered(events, size, "block", max_wait, batches=True)


def async_buffered(events: AsyncIterable[_T], maxsize: int = 10_000, overflow: Overflow = "block") -> AsyncBuffered[_T]:
    """The twin of `buffered` for an asynchronous source: a task reads ahead."""
    return AsyncBuffered(events, maxsize, overflow)


def async_batched(events: AsyncIterable[_T], size: int, max_wait: float) -> AsyncBuffered[list[_T]]:
    """The twin of `batched` for an asynchronous source."""
    return AsyncBuffered(events, size, "block", max_wait, batches=True)


# === 8. Command line =================================================================================================
#
# `_parser` names the options, `_Watch` runs a client with them and prints its events in one of three forms, each
# a function from an event to text; what ends it becomes the exit status by `_STATUS`. What a server sends is shown only
# through `_harmless`, or as JSON.

_USAGE = """\
examples:
  sse https://example.com/events                      watch a stream
  sse --jsonl https://example.com/events | jq .data   one JSON object a line
  sse https://api.example.com/v1/chat/completions \\
      -H "Authorization: Bearer $KEY" --json @question.json \\
      --text choices.0.delta.content --until '[DONE]'   watch an LLM answer

exit status: 0 clean end, 1 error payload or limit, 2 wrong usage,
7 no connection, 18 body cut before its end or --until, 22 HTTP error or
wrong content type, 28 --max-time, 130 Ctrl-C, 141 closed pipe"""

_STATUS: dict[type[BaseException], int] = {  # the first that fits counts
    SSELimitError: 1,
    SSEHTTPError: 22,
    SSEContentTypeError: 22,
    SSEConnectionError: 7,  # or 18
    ValueError: 7,  # a certificate that does not verify, a proxy of the environment
    ImportError: 7,  # no httpclient
    KeyboardInterrupt: 130,
    BrokenPipeError: 141,
    OSError: 1,  # an output that cannot be written
}


def _parser() -> argparse.ArgumentParser:
    """The options, with curl's names where curl has them; `dest` is the client's name for what is its option."""
    import argparse

    about = "Print the events of an event stream as they come; reconnect when it is lost."
    lines = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="sse", description=about, epilog=_USAGE, formatter_class=lines)
    body, form = parser.add_mutually_exclusive_group(), parser.add_mutually_exclusive_group()
    add = parser.add_argument
    add("url", metavar="URL")
    add("-H", "--header", action="append", default=[], metavar="LINE", help="send a header, 'Name: value'; repeatable")
    add("-X", "--request", dest="method", metavar="METHOD", help="default: GET, or POST with -d or --json")
    body.add_argument("-d", "--data", action="append", help="body, joined by & if repeated; @file, @- for stdin")
    body.add_argument("--json", metavar="DATA", help="body with the content type application/json; @file, @- for stdin")
    add("-u", "--user", metavar="USER:PASSWORD", help="Basic authentication")
    add("-k", "--insecure", dest="verify", action="store_false", help="accept any TLS certificate")
    add("-x", "--proxy", metavar="URL", help="HTTP proxy; default: as the environment says")
    add("-m", "--max-time", type=float, metavar="SECONDS", help="end after so long, with exit status 28")
    add("--last-event-id", default="", metavar="ID", help="resume after this event")
    add("--until", metavar="DATA", help="end at an event with this data; an earlier end is an error")
    add("--event", action="append", metavar="TYPE", help="only events of this type; repeatable")
    add("-n", "--count", type=int, help="end after so many events")
    add("--heartbeat-timeout", type=float, metavar="SECONDS", help="reconnect after so long without a byte")
    add("--max-retries", type=int, metavar="N", help="reconnects in a row, -1: no limit; also for the first connection")
    add("--no-reconnect", dest="reconnect", action="store_const", const=False, help="end with the first connection")
    form.add_argument("--jsonl", action="store_true", help="print one JSON object a line: event, data, id, retry")
    form.add_argument("--text", metavar="PATH", help="print only this value of each JSON payload: a.0.b")
    add("-v", "--verbose", action="store_true", help="log connections, comments and silence on stderr")
    add("-s", "--silent", action="store_true", help="no notes about reconnects on stderr")
    curl = ("-N", "--no-buffer", "-S", "--show-error", "-L", "--location")
    add(*curl, action="store_true", help="accepted as in curl: never buffered, errors shown, redirects followed")
    add("-V", "--version", action="version", version=f"sse {__version__}")
    return parser


_DIM, _RED, _BOLD = "2", "31", "1;36"  # ways to show text on a terminal
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def _harmless(text: str) -> str:
    """Text without control characters (but TAB and LF), which could steer a terminal: shown as escapes instead."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def _styled(text: str, style: str, file: Any) -> str:
    """Harmless text, in a style where the terminal has any."""
    from os import environ

    plain = not style or not file.isatty() or environ.get("NO_COLOR") or environ.get("TERM") == "dumb"
    return _harmless(text) if plain else f"\x1b[{style}m{_harmless(text)}\x1b[0m"


def _fields(event: SSEEvent) -> str:
    """As in the stream; on a terminal with colours, JSON of several lines on one, and long lines wrapped."""
    terminal = sys.stdout.isatty()
    payload = _payload(event) if terminal and "\n" in event.data else None
    data = event.data if payload is None else _json(payload)
    fields = [(_BOLD, f"event: {event.event}")] if event.event != "message" else []
    fields += [(_DIM, f"id: {event.id}")] if event.id else []
    fields += [("", f"data: {line}") for line in data.split("\n")]
    lines = [
        _styled(line, style, sys.stdout) for style, text in fields for line in (_wrap(text) if terminal else [text])
    ]
    return "\n".join(lines) + "\n\n"


def _wrap(text: str) -> list[str]:
    """Lines as wide as the terminal, of whole words where they fit; textwrap is quadratic in a long word."""
    from shutil import get_terminal_size

    width = max(20, get_terminal_size().columns - 1)
    return re.findall(rf".{{1,{width - 1}}}(?: |$)|.{{1,{width}}}", _harmless(text))


def _jsonl(event: SSEEvent) -> str:
    """One JSON object a line, harmless by escapes."""
    fields = {name: getattr(event, name) for name in event.__match_args__}
    utf8 = (sys.stdout.encoding or "").lower() in ("utf-8", "utf8")
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", _json(fields, ensure_ascii=not utf8)) + "\n"


def _text(event: SSEEvent, path: str) -> str | None:
    """Only the value at the path; `None` if the event is an error."""
    value = _payload(event)
    if event.event == "error" or (isinstance(value, dict) and value.get("error")):
        return None
    for key in path.split("."):
        try:
            value = value[int(key) if isinstance(value, list) else key]
        except (KeyError, IndexError, TypeError, ValueError):
            return ""
    text = value if isinstance(value, str) else "" if value is None else _json(value)
    return _harmless(text) if sys.stdout.isatty() else text


def _payload(event: SSEEvent) -> Any:
    try:
        return event.json()
    except (ValueError, RecursionError):
        return None


def _json(value: Any, ensure_ascii: bool = False) -> str:
    import json

    return json.dumps(value, ensure_ascii=ensure_ascii)


def _content(argument: str, without: bytes = b"") -> bytes:
    """The argument itself, or what is in @file, but for some bytes: curl drops line ends for `-d`."""
    if not argument.startswith("@"):
        return argument.encode("utf-8", "surrogateescape")
    from pathlib import Path

    if argument == "@-" and sys.stdin is None:
        raise ValueError("@- cannot be read: standard input is closed")
    data = sys.stdin.buffer.read() if argument == "@-" else Path(argument[1:]).read_bytes()
    return data.translate(None, without)


class _Watch:
    """One run: the client that the options ask for, and what is shown of its stream."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.failed = False  # a payload was an error
        self.expired = False  # --max-time is over
        self.unfinished = False  # the line on a terminal has no end yet
        try:
            self.client = SSEClient(options.url, **self.client_options())
        except (ValueError, OSError) as exc:
            self.tell(str(exc), _RED)
            raise SystemExit(2) from None

    def client_options(self) -> dict[str, Any]:
        options = self.options
        _check("--max-time", options.max_time, (float, None), "seconds > 0", lambda n: 0 < n < MAX_RETRY)
        _check("--count", options.count, (int, None), "a number >= 1", lambda n: n >= 1)
        same = ("method", "verify", "proxy", "last_event_id", "until", "heartbeat_timeout", "reconnect")
        result: dict[str, Any] = {name: getattr(options, name) for name in same}
        headers = result["headers"] = {}
        if options.data is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            result["body"] = b"&".join([_content(data, b"\r\n\0") for data in options.data])
        if options.json is not None:
            headers["Content-Type"] = "application/json"
            result["body"] = _content(options.json)
        if options.user is not None:
            from base64 import b64encode

            user = options.user if ":" in options.user else options.user + ":"
            headers["Authorization"] = "Basic " + b64encode(user.encode("utf-8", "surrogateescape")).decode()
        for line in options.header:  # of two that differ in case the client takes the later one
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError("-H takes 'Name: value', with a colon")
            headers[name.strip()] = value.strip()
        if options.max_retries is not None:
            result["max_retries"] = options.max_retries
        if options.verbose:
            result["on_comment"] = lambda text: self.tell(f"comment: {text}")
        return {**result, "on_reconnect": self.on_reconnect}

    def run(self) -> int:
        """Print the stream and return the exit status."""
        from itertools import islice
        from threading import Event, Thread

        options, client, status, done = self.options, self.client, 0, Event()
        for wanted, attend in ((options.max_time, self.end_in_time), (options.verbose, self.tell_silence)):
            if wanted:
                Thread(target=attend, args=(done,), daemon=True).start()
        if options.verbose:
            import logging

            logging.basicConfig(format="sse: %(message)s", level=logging.INFO)
        try:
            with client:
                wanted = (event for event in client if options.event is None or event.event in options.event)
                for event in islice(wanted, options.count):
                    self.show(event)
        except (SSEError, ValueError, ImportError) as exc:
            status = 18 if self.is_cut(exc) else _status(exc)
            self.tell(str(exc) if isinstance(exc, SSEError) else _reason(exc, client.url), _RED)
        finally:
            done.set()
        if self.expired:
            self.tell(f"--max-time: {options.max_time:g} s are over", _RED)
            return 28
        self.end_line()
        return status or int(self.failed)

    def is_cut(self, exc: Exception) -> bool:
        """Whether it tells of a body that has ended before its end, or before --until."""
        if not isinstance(exc, SSEConnectionError) or exc.retries or not self.client.stats.connects:
            return False
        return exc.last_error is not None or self.options.until is not None

    def show(self, event: SSEEvent) -> None:
        form = _jsonl if self.options.jsonl else _fields
        text = form(event) if self.options.text is None else _text(event, self.options.text)
        if text is None:
            self.failed = True
            self.tell(event.data, _RED)
        elif text:
            sys.stdout.write(text)
            sys.stdout.flush()
            self.unfinished = sys.stdout.isatty() and not text.endswith("\n")

    def tell(self, text: str, style: str = _DIM) -> None:
        """Note something on stderr, on a line of its own."""
        self.end_line()
        sys.stderr.write(_styled(f"sse: {text}", style, sys.stderr) + "\n")

    def end_line(self) -> None:
        if self.unfinished:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self.unfinished = False

    def on_reconnect(self, cause: BaseException | None, wait_s: float) -> None:
        if self.options.max_retries is None and not self.client.stats.connects:
            raise SSEConnectionError(self.client.url, 0, cause)
        if not (self.options.silent or self.options.verbose):  # the log says the same
            self.tell(f"{_reason(cause, self.client.url)}; reconnecting in {wait_s:.3g} s")

    def end_in_time(self, done: threading.Event) -> None:
        if not done.wait(self.options.max_time):
            self.expired = True
            self.client.close()

    def tell_silence(self, done: threading.Event) -> None:
        """Show every half minute that a quiet stream is alive, or for how long it has not been."""
        while not done.wait(30):
            last = self.client.stats.last_activity
            when = "no answer yet" if last is None else f"last activity {time.monotonic() - last:.0f} s ago"
            self.tell(f"{self.client.stats.events} events so far, {when}")


def _status(exc: BaseException) -> int:
    return next(status for kind, status in _STATUS.items() if isinstance(exc, kind))


def main(argv: list[str] | None = None) -> int:
    """Run the command line with `argv` (by default the process's own) and return the exit status."""
    import os

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us, who does not want to see it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
        if hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        try:
            status = _Watch(_parser().parse_args(argv)).run()
        except SystemExit as exc:  # of argparse, or wrong usage
            status = int(exc.code or 0)
        except KeyboardInterrupt as exc:
            status = _status(exc)
            sys.stdout.write("\n" if sys.stdout.isatty() else "")  # or the prompt would stand behind the ^C
        sys.stdout.flush()
    except OSError as exc:  # an output cannot be written
        status = _status(exc)
        if not isinstance(exc, BrokenPipeError):
            sys.stderr.write(f"sse: {exc}\n")
        for stream in (sys.stdout, sys.stderr):  # what they hold would fail again at the interpreter's end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return status


if __name__ == "__main__":
    sys.exit(main())
