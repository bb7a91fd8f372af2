"""A small HTTP/1.1 client for streaming answers, blocking and asyncio alike; standard library only.

    with get("https://example.com/log", stream=True) as response:
        for line in response.iter_lines():
            print(line)

    answer = (await async_post(url, json={"q": "why"}, timeout=10)).raise_for_status().json()

What arrives is handed on at once; a response can be closed from any thread or task, whatever it waits for; a body that
is cut short raises. No cookies, no cache, no HTTP/2. One connection is kept for the next request to the same origin.

Sections (``grep -n '^# ===' httpclient.py``): errors; requests; responses, without I/O; rules, without I/O; blocking
transport; async transport; functions. It follows RFC 9110 (semantics) and RFC 9112 (HTTP/1.1).
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import select
import socket
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes, urlencode, urljoin, urlsplit

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import AsyncIterator, Callable, Generator, Iterator
    from typing import Any, TypeAlias

    from typing_extensions import Self

    _Steps: TypeAlias = Generator[tuple[str, Any, Any, "float | None"], Any, Any]
    Timeout: TypeAlias = "float | tuple[float | None, float | None] | None"

__all__ = [
    "AsyncResponse",
    "AsyncTransport",
    "Headers",
    "HttpConnectionError",
    "HttpError",
    "HttpProtocolError",
    "HttpStatusError",
    "HttpTimeoutError",
    "Response",
    "Transport",
    "async_get",
    "async_post",
    "async_request",
    "get",
    "post",
    "request",
]
__version__ = "0.1.0"

MAX_HEAD = 64 * 1024  # bytes of a response head or a trailer section: servers accept 8 to 64 KiB in requests
MAX_HEADERS = 256  # header lines: far over any real answer
MAX_CHUNK_LINE = 4096  # bytes of a chunk's size with its extensions, which nobody uses
MAX_REDIRECTS = 10
MAX_BODY = 64 * 1024 * 1024  # bytes of a body that is read at once; one that is iterated over has no limit
MAX_LINE = 16 * 1024 * 1024  # characters of a line of `iter_lines`
READ_SIZE = 64 * 1024  # bytes asked of a socket, and most that one step of gzip may grow to
MAX_BUFFERED = 256 * 1024  # bytes that may wait for a slow reader before an async connection stops reading
KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))  # s, s, s, probes
HAPPY_EYEBALLS_DELAY = 0.25  # s before the next address is tried as well, RFC 8305 section 5


# === 1. Errors =======================================================================================================


class HttpError(Exception):
    """The base of every error of this module that is not a wrong argument.

    `permanent` tells that the same request would fail again: a redirect that is refused.
    """

    permanent = False


class HttpConnectionError(HttpError):
    """A connection could not be made, or was lost; the cause is chained."""


class HttpTimeoutError(HttpError):
    """A time limit was reached."""


class HttpProtocolError(HttpError):
    """What the server sent is not HTTP, contradicts itself, is cut short or over a limit."""


class HttpStatusError(HttpError):
    """`raise_for_status()` met a status other than 2xx.

    Attributes: `status_code`; `url`; `headers`; `body`, the text if it had been read.
    """

    def __init__(self, status_code: int, url: str, headers: Headers, body: str) -> None:
        super().__init__(status_code, url, headers, body)
        self.status_code, self.url, self.headers, self.body = status_code, url, headers, body

    def __str__(self) -> str:
        text = "".join([c if c.isprintable() else " " for c in self.body[:500]]).strip()
        return f"{_shown(self.url)}: HTTP {self.status_code}" + (text and f": {text}")


def _refused(text: str) -> HttpProtocolError:
    error = HttpProtocolError(text)
    error.permanent = True
    return error


# === 2. Requests =====================================================================================================
#
# A request is checked and turned into bytes here; nothing that could end a line early gets into its head.


class Headers(Mapping[str, str]):
    """Header fields, looked up in any case; a field that came more than once has its values joined by commas."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self.fields = fields  # (name, value) as they came
        self._values: dict[str, str] = {}
        for name, value in fields:
            name = name.lower()
            self._values[name] = f"{self._values[name]}, {value}" if name in self._values else value

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({list(self._values)})"  # without values: they carry secrets


class _Url(NamedTuple):
    """A checked URL. Two with the same first three parts have the same origin."""

    scheme: str
    host: str  # in lower case and ASCII, without brackets
    port: int
    target: str  # the origin form of the request target: path and query
    userinfo: bytes | None

    @property
    def authority(self) -> str:
        """What stands in the Host field."""
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


class _Request(NamedTuple):
    method: str
    url: _Url
    headers: dict[str, str]
    body: bytes | None


_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+|(?=[^%]*:)[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
_HOST_PORT = re.compile(r"(\[[^][]+\]|[^][:]+)(:[0-9]*)?")
_SAFE = "/?%:@!$&'()*+,;=~-._[]"  # what `quote` leaves alone: a URL's own characters


def _shown(url: object) -> str:
    """A URL as errors show it: without userinfo, query and fragment."""
    return re.sub(r"(?<=//)[^/?#]*@|[?#].*", "", str(url), flags=re.DOTALL)


def _redacted(url: str) -> str:
    """A bad URL as errors show it: without whatever may have been meant as userinfo."""
    return re.sub(r".*@", "...@", _shown(url), flags=re.DOTALL)


def _parse_url(url: str) -> _Url:
    if not isinstance(url, str):
        raise TypeError(f"url must be str, got {type(url).__name__}")
    if re.search(r"[\x00-\x20\x7f\\]", url):  # urlsplit drops CR, LF and TAB silently
        raise ValueError(f"url must not contain spaces, control characters or backslashes, got {_redacted(url)!r}")
    try:
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        port = parts.port or (_PORTS[scheme] if parts.port is None else -1)
        host = (parts.hostname or "").replace("%25", "%")
        host = host if host.isascii() else host.encode("idna").decode()
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_SAFE)
        if (":" in host) != ("[" in parts.netloc.rpartition("@")[2]):
            raise ValueError
        if port < 0 or not _HOST.fullmatch(host) or not _HOST_PORT.fullmatch(parts.netloc.rpartition("@")[2]):
            raise ValueError
        if ":" not in host and not all(0 < len(label) < 64 for label in host.removesuffix(".").split(".")):
            raise ValueError
    except (ValueError, KeyError):
        raise ValueError(f"url must be an absolute http or https URL, got {_redacted(url)!r}") from None
    userinfo, at, _ = parts.netloc.rpartition("@")
    return _Url(scheme, host, port, target, unquote_to_bytes(userinfo) if at else None)


def _basic(userinfo: bytes) -> str:
    from base64 import b64encode

    return f"Basic {b64encode(userinfo if b':' in userinfo else userinfo + b':').decode()}"


def _make_request(
    method: str, url: str, headers: Mapping[str, str] | None, params: Mapping[str, Any] | None, json: Any, body: Any
) -> _Request:
    """Check the arguments; raise `TypeError` or `ValueError` that names the wrong one, never a header's value."""
    if not _TOKEN.fullmatch(method):
        raise ValueError(f"method must be an HTTP method, got {method!r}")
    if headers is not None and not hasattr(headers, "items"):
        raise TypeError(f"headers must be a mapping, got {type(headers).__name__}")
    if params is not None and isinstance(url, str):
        head, hash, fragment = url.partition("#")
        url = head + ("&" if "?" in head else "?") + urlencode(params, doseq=True) + hash + fragment
    parsed = _parse_url(url)
    fields = {"User-Agent": f"stdsse-httpclient/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
    if json is not None:
        from json import dumps

        if body is not None:
            raise ValueError("json and body must not both be given: a request has one body")
        try:
            body = dumps(json)
        except (TypeError, ValueError) as exc:
            raise type(exc)(f"json cannot be encoded: {exc}") from None
        fields["Content-Type"] = "application/json"
    if isinstance(body, str):
        body = body.encode()
    if body is not None and not isinstance(body, bytes):
        raise TypeError(f"body must be bytes or str, got {type(body).__name__}")
    if parsed.userinfo is not None:
        fields["Authorization"] = _basic(parsed.userinfo)
    for name, value in (headers or {}).items():
        if type(name) is not str or type(value) is not str:
            raise TypeError(f"headers must map str to str, got {type(value).__name__} for {name!r}")
        if not _TOKEN.fullmatch(name) or any(c in value for c in "\r\n\0"):
            raise ValueError(f"headers: bad name, or CR, LF or NUL in the value, of {name!r}")
        if name.lower() in ("content-length", "transfer-encoding"):
            raise ValueError(f"headers: {name!r} follows from the body")
        for default in [other for other in fields if other.lower() == name.lower()]:
            del fields[default]
        fields[name] = value
    return _Request(method.upper(), parsed._replace(userinfo=None), fields, body)


def _encode(request: _Request, route: _Route, keep: bool) -> bytes:
    """The bytes of a request, RFC 9112 section 3."""
    target = str(request.url) if route.absolute else request.url.target
    fields = dict(request.headers)
    names = [name.lower() for name in fields]
    if "host" not in names:
        fields = {"Host": request.url.authority, **fields}
    if route.absolute and route.authorization:
        fields["Proxy-Authorization"] = route.authorization
    if not keep and "connection" not in names:
        fields["Connection"] = "close"
    if request.body is not None or request.method in ("POST", "PUT", "PATCH"):
        fields["Content-Length"] = str(len(request.body or b""))
    lines = [f"{request.method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in fields.items()], "", ""]
    return "\r\n".join(lines).encode("utf-8", "replace") + (request.body or b"")


# === 3. Responses, without I/O =======================================================================================
#
# Bytes go in as they come (b"" is the end of the connection), a head or decoded data comes out. One small class for
# each way a body can be framed: `decode` appends what it finds to a list, so that data before an error is kept;
# `end` is told of the end of the connection. Where two readers of HTTP could disagree, there is no guessing.

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([^\r\n\0]*))?")
_FIELD_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")


class _Head(NamedTuple):
    status_code: int
    reason: str
    headers: Headers
    http_1_0: bool
    rest: bytes  # what came after the head

    def tokens(self, name: str) -> list[str]:
        """The elements of a comma-separated field, in lower case."""
        return [token for part in self.headers.get(name, "").split(",") if (token := part.strip(" \t").lower())]

    @property
    def keep_alive(self) -> bool:
        """Whether the server keeps the connection, RFC 9112 section 9.3."""
        connection = self.tokens("connection")
        return "close" not in connection and (not self.http_1_0 or "keep-alive" in connection)


class _HeadReader:
    """Collects a response head, skipping 1xx answers."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._skipped = 0
        self.begun = False

    def receive(self, data: bytes) -> _Head | None:
        if not data:
            raise HttpConnectionError(
                "the server closed the connection within the response head"
                if self.begun
                else "the server closed the connection without an answer"
            )
        self.begun = True
        self._buffer += data
        while match := re.compile(rb"\r?\n\r?\n").search(self._buffer, max(0, self._searched - 3)):
            if match.end() > MAX_HEAD:
                break
            end = match.start() + (match[0][:1] == b"\r")  # with the CR of the last line, as the others have theirs
            raw, self._buffer = bytes(self._buffer[:end]), self._buffer[match.end() :]
            self._searched = 0
            head = self._parse(raw)
            if head.status_code == 101:
                raise HttpProtocolError("the server switched protocols without being asked to")
            if head.status_code >= 200:
                return head
            self._skipped += 1
            if self._skipped > MAX_HEADERS:
                raise HttpProtocolError(f"more than {MAX_HEADERS} informational answers")
        self._searched = len(self._buffer)
        if self._searched > MAX_HEAD:
            raise HttpProtocolError(f"a response head is longer than {MAX_HEAD} bytes")
        if not b"HTTP/1."[: self._searched] == self._buffer[:7]:
            raise HttpProtocolError(f"expected HTTP/1.1, got {bytes(self._buffer[:40])!r}")
        return None

    def _parse(self, raw: bytes) -> _Head:
        # A user agent unfolds lines, RFC 9112 section 5.2, and may take a bare LF for a line end, section 2.2.
        first, *lines = re.sub(rb"\r?\n[ \t]+", b" ", raw).split(b"\n")
        status = _STATUS_LINE.fullmatch(first.removesuffix(b"\r"))
        if status is None:
            raise HttpProtocolError(f"expected HTTP/1.1, got {first[:40]!r}")
        if len(lines) > MAX_HEADERS:
            raise HttpProtocolError(f"a response head has more than {MAX_HEADERS} headers")
        fields = []
        for line in lines:
            name, colon, value = line.removesuffix(b"\r").partition(b":")
            if not colon or not _FIELD_NAME.fullmatch(name) or b"\r" in value or b"\0" in value:
                raise HttpProtocolError(f"bad header line {line[:40]!r}")
            fields.append((name.decode(), _text(value.strip(b" \t"))))
        return _Head(int(status[2]), _text(status[3] or b""), Headers(fields), status[1] == b"0", bytes(self._buffer))


def _text(data: bytes) -> str:
    """A field value as text: UTF-8, or Latin-1 as of old."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


class _LengthBody:
    """A body of so many bytes."""

    def __init__(self, length: int) -> None:
        self._length = self._left = length
        self.complete = length == 0
        self.surplus = False  # whether bytes came after the end: the connection must not be used again

    def decode(self, data: bytes, out: list[bytes]) -> None:
        self.surplus = len(data) > self._left
        data = data[: self._left]
        self._left -= len(data)
        self.complete = not self._left
        if data:
            out.append(data)

    def end(self) -> None:
        got = self._length - self._left
        raise HttpConnectionError(f"the connection was closed after {got} of {self._length} bytes of the body")


class _ChunkedBody:
    """A body in chunks, RFC 9112 section 7.1."""

    def __init__(self) -> None:
        self._buffer = b""  # an unfinished line
        self._left = 0  # bytes that the chunk still lacks
        self._in_chunk = False  # CRLF is expected after `_left` bytes
        self._in_trailers = False
        self.complete = False
        self.surplus = False

    def decode(self, data: bytes, out: list[bytes]) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        at = 0
        while not self._in_trailers:
            if self._left:
                piece = data[at : at + self._left]
                if not piece:
                    return
                out.append(piece)
                at += len(piece)
                self._left -= len(piece)
                continue
            if self._in_chunk:
                if data[at : at + 2] != b"\r\n":
                    if data[at:] not in (b"", b"\r"):
                        raise HttpProtocolError(f"expected the end of a chunk, got {data[at : at + 10]!r}")
                    break
                at += 2
                self._in_chunk = False
            line = _CHUNK_LINE.match(data, at)
            if line is None or line.end() - at > MAX_CHUNK_LINE:
                if line or b"\n" in data[at:] or len(data) - at > MAX_CHUNK_LINE:
                    raise HttpProtocolError(f"bad chunk size {data[at : at + 40]!r}")
                break
            at = line.end()
            self._left = int(line[1], 16)
            self._in_chunk = True
            self._in_trailers = not self._left
        self._buffer = data[at:]
        if self._in_trailers:
            self._skip_trailers()

    def _skip_trailers(self) -> None:
        end = 2 if self._buffer[:2] == b"\r\n" else self._buffer.find(b"\r\n\r\n") + 4
        if max(end, len(self._buffer) if end == 3 else 0) > MAX_HEAD:
            raise HttpProtocolError(f"a trailer section is longer than {MAX_HEAD} bytes")
        if end != 3:
            self.complete = True
            self.surplus = end < len(self._buffer)

    def end(self) -> None:
        raise HttpConnectionError("the connection was closed before the last chunk of the body")


class _CloseBody:
    """A body that ends with the connection."""

    complete = False
    surplus = True

    def decode(self, data: bytes, out: list[bytes]) -> None:
        out.append(data)

    def end(self) -> None:
        self.complete = True


def _body_framing(method: str, head: _Head) -> _LengthBody | _ChunkedBody | _CloseBody:
    """How a body ends: the steps of RFC 9112 section 6.3."""
    transfer_codings = head.tokens("transfer-encoding")
    lengths = set(head.tokens("content-length"))
    if method == "HEAD" or head.status_code in (204, 304):
        return _LengthBody(0)
    if "transfer-encoding" in head.headers:
        if transfer_codings != ["chunked"] or head.http_1_0:
            raise HttpProtocolError(f"unsupported transfer coding {head.headers['transfer-encoding'][:40]!r}")
        if "content-length" in head.headers:
            raise HttpProtocolError("both Content-Length and Transfer-Encoding: the answer may have been forged")
        return _ChunkedBody()
    if "content-length" in head.headers:
        if len(lengths) != 1 or not re.fullmatch("[0-9]{1,18}", length := lengths.pop()):
            raise HttpProtocolError(f"bad Content-Length {head.headers['content-length'][:40]!r}")
        return _LengthBody(int(length))
    return _CloseBody()


class _Gunzip:
    """gzip as it flows: each step gives at most `READ_SIZE` bytes, so that a bomb cannot fill the memory."""

    def __init__(self) -> None:
        from zlib import MAX_WBITS, decompressobj, error

        self._new: Callable[[], Any] = lambda: decompressobj(MAX_WBITS | 16)
        self._error = error
        self._inflate = self._new()
        self._more = False  # zlib holds output back
        self.complete = True  # at the end of a member, or before the first

    def step(self, source: list[bytes]) -> bytes:
        """Decoded data from `source`, from which it takes what it uses; b"" when there is no more for now."""
        while self._more or source:
            try:
                data: bytes = self._inflate.decompress(source.pop(0) if source else b"", READ_SIZE)
            except self._error as exc:
                raise HttpProtocolError(f"bad gzip: {exc}") from None
            self._more = len(data) == READ_SIZE
            self.complete = self._inflate.eof
            rest = self._inflate.unused_data if self.complete else self._inflate.unconsumed_tail
            if self.complete:
                self._inflate, self._more = self._new(), False
            if rest:
                source.insert(0, rest)
            if data:
                return data
        return b""


class _Body:
    """A body on its way: framing, then content coding, then errors after the data before them."""

    def __init__(self, method: str, head: _Head) -> None:
        self._framing = _body_framing(method, head)
        codings = [coding for coding in head.tokens("content-encoding") if coding != "identity"]
        if codings not in ([], ["gzip"], ["x-gzip"]):
            raise HttpProtocolError(f"unsupported content coding {head.headers['content-encoding'][:40]!r}")
        self._gunzip = _Gunzip() if codings and not self._framing.complete else None
        self._waiting: list[bytes] = []
        self._error: HttpError | None = None
        self._keep_alive = head.keep_alive
        if head.rest or self._framing.complete:
            self.receive(head.rest)

    def receive(self, data: bytes) -> None:
        """Take what has come; b"" is the end of the connection."""
        try:
            if data:
                self._framing.decode(data, self._waiting)
            elif not self._framing.complete:
                self._framing.end()
        except HttpError as exc:
            self._error = exc

    def take(self) -> bytes:
        """Decoded data that is ready; b"" when more must be received first, or the body is `complete`."""
        if self._gunzip is not None:
            data = self._gunzip.step(self._waiting)
            if not data and self._framing.complete and not self._gunzip.complete:
                raise HttpConnectionError("the body ended within its gzip coding")
        else:
            data = b"".join(self._waiting)
            self._waiting.clear()
        if not data and self._error is not None:
            raise self._error
        return data

    @property
    def complete(self) -> bool:
        return self._framing.complete and not self._waiting

    @property
    def reusable(self) -> bool:
        return self._keep_alive and self._framing.complete and not self._framing.surplus


class _Lines:
    """Splits text at LF, CR and CRLF only."""

    def __init__(self, charset: str) -> None:
        self._decode = codecs.getincrementaldecoder(charset)("replace").decode
        self._pieces: list[str] = []
        self._size = 0
        self._skip_lf = False

    def feed(self, data: bytes, final: bool = False) -> list[str]:
        text = self._decode(data, final)
        if text and self._skip_lf:
            self._skip_lf = False
            text = text.removeprefix("\n")
        if "\r" in text:
            self._skip_lf = text[-1] == "\r"
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        *lines, rest = text.split("\n")
        if lines:
            lines[0] = "".join([*self._pieces, lines[0]])
            self._pieces, self._size = [], 0
        self._pieces.append(rest)
        self._size += len(rest)
        if self._size > MAX_LINE or (lines and len(max(lines, key=len)) > MAX_LINE):
            raise HttpProtocolError(f"a line is longer than {MAX_LINE} characters")
        if final and self._size:
            lines.append("".join(self._pieces))
        return lines


class _BaseResponse:
    """What both responses are, but for reading.

    Attributes: `status_code`; `reason`, the reason phrase; `headers`, in any case; `url`, after redirects;
    `read_timeout`, seconds of silence in the body before `HttpTimeoutError`, `None` for no limit.
    """

    def __init__(self, transport: _BaseTransport, request: _Request, head: _Head, connection: Any) -> None:
        self.status_code = head.status_code
        self.reason = head.reason
        self.headers = head.headers
        self.url = str(request.url)
        self.read_timeout: float | None = None
        self._transport = transport
        self._connection = connection
        self._body = _Body(request.method, head)
        self._content: bytes | None = None

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status_code < 300

    @property
    def text(self) -> str:
        """The body, decoded by the charset of its content type, or UTF-8; `await aread()` first when async."""
        return self._whole().decode(self._charset, "replace")

    def json(self) -> Any:
        """The body as JSON; raises `ValueError` as `json.loads` does; `await aread()` first when async."""
        import json

        return json.loads(self._whole())

    def raise_for_status(self) -> Self:
        """Return the response itself; raise `HttpStatusError` unless it is `ok`."""
        if not self.ok:
            raise HttpStatusError(self.status_code, self.url, self.headers, self.text if self._content else "")
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status_code} {_shown(self.url)}>"

    # Private

    def _whole(self) -> bytes:
        if self._content is None:
            raise RuntimeError("the body has not been read: await response.aread() first")
        return self._content

    @property
    def _charset(self) -> str:
        match = re.search(r'charset="?([^\s;"]+)', self.headers.get("content-type", ""), re.IGNORECASE)
        try:
            b"a".decode(match[1] if match else "utf-8", "replace")
        except (LookupError, ValueError):  # unknown, or no encoding of text
            return "utf-8"
        return match[1] if match else "utf-8"

    def _take(self) -> bytes | None:
        """Data of the body that is ready, b"" at its end; `None` if more must be received first."""
        data = self._body.take()
        if data:
            return data
        if self._body.complete:
            self._drop()
            return b""
        connection = self._connection
        if connection is not None and connection.tls and connection.tls.ended:
            connection.tls.check()
            self._body.receive(b"")
            return self._take()
        return None

    @property
    def _source(self) -> Any:
        """The connection, for more of the body."""
        connection = self._connection
        if connection is None:
            raise HttpConnectionError("the response was closed before the end of its body")
        return connection

    def _receive(self, connection: _Connection, data: bytes) -> bytes:
        """Take what the connection gave; return what it wants to be sent in reply."""
        plain, reply = connection.tls.decrypt(data) if connection.tls else (data, b"")
        if plain is not None:
            self._body.receive(plain)
        return reply

    def _drop(self) -> None:
        """Give the connection up, or back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._transport._take_back(connection, self._body.reusable)


def _check_size(size: int) -> None:
    if size > MAX_BODY:
        raise HttpProtocolError(f"a body is longer than {MAX_BODY} bytes: iterate over it")


# === 4. Rules, without I/O ===========================================================================================
#
# Where a request goes: which redirect is followed with which headers, which proxy is asked and how, when time is up;
# and the opening as a generator of steps, which the shells below carry out, one blocking, one awaiting.


class _Route(NamedTuple):
    """How to reach an origin. Requests of the same route may share a connection."""

    host: str  # of the TCP connection
    port: int
    server_name: str | None  # for TLS, if it is wanted
    tunnel: str | None  # the authority to ask a proxy for, by CONNECT
    absolute: bool  # the request goes to a proxy, with the absolute URL
    authorization: str | None  # for the proxy


def _route(url: _Url, proxy: str | bool | None) -> _Route:
    tls = url.host.partition("%")[0] if url.scheme == "https" else None
    given = _environment_proxy(url) if proxy is None else proxy
    if not given:
        return _Route(url.host, url.port, tls, None, False, None)
    via = _parse_proxy(given)
    authorization = None if via.userinfo is None else _basic(via.userinfo)
    host = f"[{url.host}]" if ":" in url.host else url.host
    return _Route(via.host, via.port, tls, f"{host}:{url.port}" if tls else None, not tls, authorization)


def _parse_proxy(proxy: Any) -> _Url:
    if not isinstance(proxy, str):
        raise TypeError(f"proxy must be a URL, None or False, got {proxy!r}")
    scheme, separator, _ = proxy.partition("://")
    if separator and scheme.lower() != "http":
        raise ValueError(f"proxy must be http://, got {_redacted(proxy)!r}: for SOCKS and others give transport=")
    try:
        return _parse_url(proxy if separator else f"http://{proxy}")
    except ValueError as exc:
        raise ValueError(str(exc).replace("url", "proxy", 1)) from None


def _environment_proxy(url: _Url) -> str | None:
    import sys

    # urllib.request is slow to import; elsewhere the system may have settings of its own.
    if sys.platform not in ("win32", "darwin") and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    host = f"[{url.host}]" if ":" in url.host else url.host
    exempt = [entry.strip(" []") for entry in proxies.get("no", "").split(",")]
    if proxy_bypass(f"{host}:{url.port}") or url.host in exempt:
        return None
    return proxies.get(url.scheme) or proxies.get("all")


_SHARED_HEADERS = ("accept", "accept-language", "cache-control", "content-type", "user-agent")


def _redirect(request: _Request, head: Any) -> _Request | None:
    """The request that a redirect asks for, or `None` if the answer is none, RFC 9110 section 15.4."""
    location = head.headers.get("location")
    if head.status_code not in (301, 302, 303, 307, 308) or location is None:
        return None
    method, url, headers, body = request
    try:
        if "\\" in location:
            raise ValueError
        target = _parse_url(urljoin(str(url), quote(location, safe=_SAFE + "#")))
    except ValueError:
        raise _refused(f"redirect to {_shown(location)[:100]!r}, which is no http or https URL") from None
    if url.scheme == "https" and target.scheme == "http":
        raise _refused(f"redirect from https to {_shown(target)}, which is not encrypted")
    if (head.status_code == 303 and method != "HEAD") or (head.status_code in (301, 302) and method == "POST"):
        method, body = "GET", None
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    if target[:3] != url[:3]:  # whatever else the user set may be a secret of the first origin
        headers = {name: value for name, value in headers.items() if name.lower() in _SHARED_HEADERS}
        headers["Accept-Encoding"] = "identity"
    return _Request(method, target._replace(userinfo=None), headers, body)


class _Deadlines:
    """When one opening must be done, on the monotonic clock: with its connection, and with the response head."""

    def __init__(self, timeout: Timeout) -> None:
        for limit in timeout if isinstance(timeout, tuple) and len(timeout) == 2 else (timeout,):
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float))):
                raise TypeError(f"timeout must be seconds, a pair of them or None, got {timeout!r}")
            if limit is not None and not 0 < limit < 2**31:
                raise ValueError(f"timeout must be seconds > 0 and < 2**31, got {timeout!r}")
        self._parts = timeout if isinstance(timeout, tuple) else (timeout, None)
        limits = [timeout] if not isinstance(timeout, tuple) else timeout
        total = None if None in limits else sum(limits)  # type: ignore[arg-type]
        self._end = None if total is None else time.monotonic() + total  # redirects included

    def connect(self) -> float | None:
        return self._part(0)

    def head(self) -> float | None:
        return self._part(1)

    def _part(self, which: int) -> float | None:
        limit = self._parts[which]
        if limit is None:
            return self._end
        deadline = time.monotonic() + limit
        return deadline if self._end is None else min(deadline, self._end)


def _left(deadline: float | None, doing: str) -> float | None:
    """Seconds up to a deadline; raise `HttpTimeoutError` when it is past."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise HttpTimeoutError(f"timed out {doing}")
    return left


def _make_context(verify: Any) -> ssl.SSLContext:
    import ssl

    if not isinstance(verify, bool):
        return verify  # type: ignore[no-any-return]
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Tls:
    """TLS over bytes: ciphertext in by `receive`, plain text out, ciphertext to be sent in `outgoing`."""

    def __init__(self, context: ssl.SSLContext, server_name: str, session: Any) -> None:
        import ssl

        self._ssl = ssl
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name, session=session)
        self._server_name = server_name
        self.ended = False  # no plain text will come any more
        self._error: HttpConnectionError | None = None  # what ended it, if it was not the server

    @property
    def session(self) -> Any:
        return self._object.session

    def outgoing(self) -> bytes:
        return self._outgoing.read() if self._outgoing.pending else b""

    def handshake(self, data: bytes | None) -> bool:
        """Take the server's next bytes (`None`: none yet) and return whether the handshake is done."""
        self._put(data)
        try:
            self._object.do_handshake()
        except self._ssl.SSLWantReadError:
            return False
        except self._ssl.SSLError as exc:
            raise HttpConnectionError(f"TLS handshake with {self._server_name} failed: {exc}") from exc
        return True

    def encrypt(self, data: bytes) -> bytes:
        self._object.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> tuple[bytes | None, bytes]:
        """Plain text (`None` if it takes more, b"" at the end), and what to reply."""
        self._put(data)
        pieces = []
        try:
            while piece := self._object.read(READ_SIZE):
                pieces.append(piece)
            self.ended = True
        except self._ssl.SSLWantReadError:
            return b"".join(pieces) or None, self.outgoing()
        except self._ssl.SSLError as exc:  # also an end without close_notify, which anybody on the way can make
            self.ended = True
            self._error = HttpConnectionError(f"TLS connection to {self._server_name} broken: {exc}")
            self._error.__cause__ = exc
        if not pieces:
            self.check()
        return b"".join(pieces), self.outgoing()

    def check(self) -> None:
        """Raise what has ended it, once the plain text before it is used up."""
        if self._error is not None:
            raise self._error

    def _put(self, data: bytes | None) -> None:
        if data:
            self._incoming.write(data)
        elif data is not None:
            self._incoming.write_eof()


def _tune(sock: Any) -> None:
    """Notice a vanished peer within some two minutes; send small requests at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _look_up(host: str, port: int, tell: Callable[[Any], object]) -> None:
    """Tell the addresses of a host, a list of (family, address), or the error.

    A name is looked up in a daemon thread: nothing ends `getaddrinfo` early.
    """

    def look_up(flags: int) -> Any:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        except (OSError, UnicodeError) as exc:
            return exc
        return [(family, address) for family, _, _, _, address in found]

    literal = look_up(socket.AI_NUMERICHOST)
    if isinstance(literal, list):
        tell(literal)
        return
    from threading import Thread

    Thread(target=lambda: tell(look_up(0)), daemon=True, name=f"look-up of {host}").start()


_IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")


class _Connection:
    """What both connections are: an object that the shells can send on, receive from and close, and TLS over it."""

    route: _Route
    tls: _Tls | None = None
    spoilt = False  # a request was not sent whole

    def close(self) -> None:
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Whether an idle connection is still good: open, and nothing has come on it."""
        raise NotImplementedError

    def encrypt(self, data: bytes) -> bytes:
        return self.tls.encrypt(data) if self.tls else data


class _BaseTransport:
    """What both transports are: where requests go, and the steps of an opening, without the I/O between them.

    A step is a tuple: what to do ("connect", "send" or "recv"), the connection, an argument, a deadline.
    """

    _response_class: Any

    def __init__(self, verify: bool | ssl.SSLContext = True, proxy: str | bool | None = None) -> None:
        """Check the arguments.

        Args:
            verify: `False` to accept any certificate, or an `ssl.SSLContext`.
            proxy: A URL; `None`: what the environment says; `False`: none.
        """
        if not isinstance(verify, bool) and not hasattr(verify, "wrap_bio"):
            raise TypeError(f"verify must be True, False or an ssl.SSLContext, got {verify!r}")
        if proxy is not None and proxy is not False:
            _parse_proxy(proxy)
        self._verify, self._proxy = verify, proxy
        self._context: ssl.SSLContext | None = None  # made once, when first needed
        self._last: tuple[_Route, _Tls] | None = None  # whose session the next connection may resume
        self._idle: deque[_Connection] = deque()  # at most one; a deque, since its methods are atomic
        self._busy: set[_Connection] = set()  # whose response head has not come
        self._one_request = False
        self._closed = False

    def _take_back(self, connection: _Connection, reusable: bool) -> None:
        """Keep the connection of a response that has been read for the next request, or close it."""
        if reusable and not self._one_request and not connection.spoilt:
            self._idle.append(connection)
        else:
            connection.close()
        while self._idle and (self._closed or len(self._idle) > 1):
            self._idle.popleft().close()

    def _close(self) -> None:
        self._closed = True
        for connection in [*self._idle, *self._busy]:
            connection.close()

    def _steps(self, request: _Request, timeout: Timeout) -> _Steps:
        """Send a request and follow its redirects; return the response."""
        deadlines = _Deadlines(timeout)
        for _ in range(MAX_REDIRECTS + 1):
            response = yield from self._exchange(request, deadlines)
            try:
                following = _redirect(request, response)
            except HttpError:
                response._drop()
                raise
            if following is None:
                return response
            response._drop()
            request = following
        raise _refused(f"more than {MAX_REDIRECTS} redirects, the last to {_shown(request.url)}")

    def _exchange(self, request: _Request, deadlines: _Deadlines) -> _Steps:
        """Send one request; return its response when the head has come."""
        route = _route(request.url, self._proxy)
        data = _encode(request, route, not self._one_request)
        connection = self._idle.pop() if self._idle else None
        if connection is not None and not (connection.route == route and connection.alive):
            connection.close()
            connection = None
        while True:
            fresh = connection is None
            reader = _HeadReader()
            try:
                if connection is None:
                    deadline = deadlines.connect()
                    connection = yield "connect", None, route, deadline
                    self._busy.add(connection)
                    yield from self._secure(connection, route, deadline)
                self._busy.add(connection)
                deadline = deadlines.head()
                with suppress(HttpConnectionError):  # a refusal may have come before all was sent
                    yield "send", connection, connection.encrypt(data), deadline
                head = yield from self._read_head(connection, reader, deadline)
                return self._response_class(self, request, head, connection)
            except BaseException as exc:
                if connection is not None:
                    connection.close()
                lost = isinstance(exc, HttpConnectionError) and not reader.begun
                if fresh or not lost or self._closed or request.method not in _IDEMPOTENT:
                    raise
                connection = None  # the server had closed an idle connection: one more try
            finally:
                self._busy.discard(connection)

    def _secure(self, connection: _Connection, route: _Route, deadline: float | None) -> _Steps:
        """Through the proxy's tunnel, RFC 9110 section 9.3.6, and with TLS, where the route says so."""
        connection.route = route
        if route.tunnel:
            lines = [f"CONNECT {route.tunnel} HTTP/1.1", f"Host: {route.tunnel}"]
            if route.authorization:
                lines.append(f"Proxy-Authorization: {route.authorization}")
            yield "send", connection, "\r\n".join([*lines, "", ""]).encode(), deadline
            head = yield from self._read_head(connection, _HeadReader(), deadline)
            if not 200 <= head.status_code < 300:
                raise HttpConnectionError(f"the proxy refused the tunnel: HTTP {head.status_code} {head.reason[:100]}")
            if head.rest:
                raise HttpProtocolError("the proxy sent data into the tunnel before the server could")
        if route.server_name:
            self._context = self._context or _make_context(self._verify)
            session = self._last[1].session if self._last is not None and self._last[0] == route else None
            tls = _Tls(self._context, route.server_name, session)
            done = tls.handshake(None)
            yield "send", connection, tls.outgoing(), deadline
            while not done:
                done = tls.handshake((yield "recv", connection, None, deadline))
                yield "send", connection, tls.outgoing(), deadline
            connection.tls = tls
            self._last = route, tls

    def _read_head(self, connection: _Connection, reader: _HeadReader, deadline: float | None) -> _Steps:
        head = None
        while head is None:
            data = yield "recv", connection, None, deadline
            if connection.tls:
                data, reply = connection.tls.decrypt(data)
                if reply:
                    yield "send", connection, reply, deadline
            if data is not None:
                head = reader.receive(data)
        return head


# === 5. Blocking transport ===========================================================================================
#
# A connection owns its receive loop: `close()` comes from any thread, shuts the socket down, which wakes a blocked
# `recv`, and leaves the closing of a socket in use to its user, since its number could be given to another file.


class _BlockingConnection(_Connection):
    def __init__(self) -> None:
        import threading
        from queue import SimpleQueue

        self._in_use = threading.Lock()  # held while a system call works on the socket
        self._sock: socket.socket | None = None
        self._seconds: float | None = None  # its timeout
        self._closed = False
        self._found: SimpleQueue[Any] = SimpleQueue()  # what a name look-up answers; `None` by close()

    def connect(self, route: _Route, deadline: float | None) -> None:
        """Look the name up and connect to the first address that answers."""
        where = f"connecting to {route.host}:{route.port}"
        _look_up(route.host, route.port, self._found.put)
        try:
            found = self._found.get(timeout=_left(deadline, where))
        except Exception as exc:  # queue.Empty
            raise HttpTimeoutError(f"timed out looking up {route.host}") from exc
        error: Exception | None = found if isinstance(found, Exception) else None
        for family, address in [] if error or not found else found:
            try:
                return self._dial(family, address, deadline, where)
            except OSError as exc:
                error = exc
        why = "closed" if self._closed else getattr(error, "strerror", None) or error
        raise HttpConnectionError(f"{where} failed: {why}") from error

    def send(self, data: bytes, seconds: float | None) -> None:
        """Send, but no more once an answer has come: a server may refuse a body without reading it."""
        rest = memoryview(data)
        while rest:
            if len(rest) < len(data) and self._sock is not None and _is_ready(self._sock, 0.0):
                self.spoilt = True
                break
            rest = rest[self._call("send", rest[:READ_SIZE], seconds) :]

    def recv(self, seconds: float | None) -> bytes:
        """What has arrived; b"" at the end."""
        return self._call("recv", READ_SIZE, seconds)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close from any thread; idempotent."""
        self._closed = True
        self._found.put(None)
        sock = self._sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        if self._in_use.acquire(blocking=False):
            if self._sock is not None:
                self._sock.close()
            self._in_use.release()

    @property
    def alive(self) -> bool:
        return self._sock is not None and not self._closed and not _is_ready(self._sock, 0.0)

    def _dial(self, family: int, address: Any, deadline: float | None, where: str) -> None:
        with self._in_use:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                error = sock.connect_ex(address)
                self._sock = sock  # from here on close() can wake us: before, there was nothing to shut down
                while error in (errno.EINPROGRESS, errno.EWOULDBLOCK) and not self._closed:
                    left = _left(deadline, where)
                    # In slices: not every system wakes a connecting socket at its shutdown.
                    if _is_ready(sock, 0.25 if left is None else min(left, 0.25), write=True):
                        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error or self._closed:
                    raise OSError(error, os.strerror(error))
                sock.setblocking(True)
                _tune(sock)
            except BaseException:
                self._sock = None
                sock.close()
                raise

    def _call(self, name: str, argument: Any, seconds: float | None) -> Any:
        """A method of the socket, with a timeout, ended by `close()`."""
        try:
            with self._in_use:
                if self._closed or self._sock is None:
                    raise HttpConnectionError("the connection was closed here")
                if seconds != self._seconds:
                    self._sock.settimeout(seconds)
                    self._seconds = seconds
                return getattr(self._sock, name)(argument) or self._end()
        except TimeoutError:
            raise HttpTimeoutError(f"no data for {seconds:.3g} s") from None
        except OSError as exc:
            why = "the connection was closed here" if self._closed else f"connection lost: {exc.strerror or exc}"
            raise HttpConnectionError(why) from exc
        finally:
            if self._closed:
                self.close()

    def _end(self) -> bytes:
        """An end of the connection that is not made by `close()`."""
        if self._closed:
            raise HttpConnectionError("the connection was closed here")
        return b""


def _is_ready(sock: socket.socket, seconds: float, write: bool = False) -> bool:
    """Whether a socket can be read (or written) within so many seconds."""
    if hasattr(select, "poll"):  # which has no limit on file descriptors
        poll = select.poll()
        poll.register(sock, select.POLLOUT if write else select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    return any(
        select.select([] if write else [sock], [sock] if write else [], [sock], seconds)
    )  # pragma: no cover - Windows


class Response(_BaseResponse):
    """An answer whose body is still to come; a context manager. `close()` works from any thread."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what has not been read; whoever reads it gets `HttpConnectionError`."""
        self._drop()

    def read(self) -> bytes:
        """Return the whole body; raise `HttpProtocolError` at 64 MiB."""
        if self._content is None:
            content = bytearray()
            for data in self.iter_bytes():
                content += data
                _check_size(len(content))
            self._content = bytes(content)
        return self._content

    def iter_bytes(self) -> Iterator[bytes]:
        """Iterate over the body as it arrives: each step gives what is there, as soon as anything is."""
        return iter(self._next if self._content is None else [b"", self._content].pop, b"")

    def iter_lines(self) -> Iterator[str]:
        """Iterate over the body's lines, without their ends: LF, CR and CRLF, and nothing else."""
        lines = _Lines(self._charset)
        for data in self.iter_bytes():
            yield from lines.feed(data)
        yield from lines.feed(b"", final=True)

    _whole = read

    def _next(self) -> bytes:
        while (data := self._take()) is None:
            connection = self._source
            connection.send(self._receive(connection, connection.recv(self.read_timeout)), self.read_timeout)
        return data


class Transport(_BaseTransport):
    """Sends requests and keeps one connection for the next to the same origin; what `request` and `sse` stand on.

    `transport(request, timeout)` takes anything with `method`, `url`, `headers` and `body`, returns a `Response` whose
    body is still to come, and raises `HttpError`, or `ValueError` for a bad request.
    """

    _response_class = Response

    def __call__(self, request: Any, timeout: Timeout = 30.0) -> Response:
        """Send a request; `timeout` as in `request()`."""
        return self._open(
            _make_request(request.method, request.url, request.headers, None, None, request.body), timeout
        )

    def abort(self) -> None:
        """End the requests whose answer has not begun, from any thread: they raise `HttpConnectionError`."""
        for connection in list(self._busy):
            connection.close()

    def close(self) -> None:
        """As `abort`, and close the idle connection, for good; responses go on."""
        self._close()

    def _open(self, request: _Request, timeout: Timeout) -> Response:
        steps = self._steps(request, timeout)
        result: Any = None
        error: HttpError | None = None
        try:
            while True:
                action, connection, argument, deadline = steps.throw(error) if error else steps.send(result)
                result = error = None
                try:
                    if action == "connect":
                        result = self._connect(argument, deadline)
                    elif action == "send":
                        connection.send(argument, _left(deadline, "sending the request"))
                    else:
                        result = connection.recv(_left(deadline, "waiting for the response head"))
                except HttpError as exc:
                    error = exc
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    def _connect(self, route: _Route, deadline: float | None) -> _BlockingConnection:
        connection = _BlockingConnection()
        self._busy.add(connection)
        try:
            if self._closed:
                raise HttpConnectionError("the transport is closed")
            connection.connect(route, deadline)
        except BaseException:
            self._busy.discard(connection)
            raise
        return connection


# === 6. Async transport ==============================================================================================
#
# The same over an asyncio protocol. A wait can be cancelled anywhere: what has arrived stays in the connection, and
# an opening that is cancelled closes what it had opened.


class _AsyncConnection(_Connection):
    """Also the protocol that asyncio calls."""

    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._received: list[bytes] = []
        self._size = 0
        self._silent_since = 0.0  # the first wait after the last byte, on the loop's clock
        self._ended = False  # no more will come
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()  # the socket is closed
        self._closed = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        _tune(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        self._silent_since = 0.0
        self._received.append(data)
        self._size += len(data)
        if self._size > MAX_BUFFERED:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return True  # close() closes, not asyncio

    def connection_lost(self, error: BaseException | None) -> None:
        self._ended, self._error = True, error
        self._gone.set_result(None)
        self._wake()

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def send(self, data: bytes) -> None:
        if self._closed or self._transport.is_closing():
            raise HttpConnectionError("the connection was closed")
        if data:
            self._transport.write(data)

    async def recv(self, seconds: float | None) -> bytes:
        """What has arrived; b"" at the end."""
        if not (self._received or self._ended or self._closed):
            if self._waiter is not None:
                raise RuntimeError("two tasks read from one connection")
            self._waiter = self._loop.create_future()
            timer = None
            if seconds is not None:
                self._silent_since = self._silent_since or self._loop.time()  # perhaps of a wait that was cancelled
                timer = self._loop.call_at(self._silent_since + seconds, self._wake, seconds)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        if self._closed:
            raise HttpConnectionError("the connection was closed here")
        if self._received:
            data = b"".join(self._received)
            self._received.clear()
            if self._size > MAX_BUFFERED:
                self._transport.resume_reading()
            self._size = 0
            return data
        if self._error is not None:
            raise HttpConnectionError(f"connection lost: {self._error}") from self._error
        return b""

    def close(self) -> None:
        """Close without waiting; idempotent."""
        self._closed = True
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()
        self._wake()

    @property
    def alive(self) -> bool:
        import asyncio

        if self._closed or self._ended or self._received or self._loop is not asyncio.get_running_loop():
            return False
        return not _is_ready(self._transport.get_extra_info("socket"), 0.0)  # the loop may not have looked yet

    def _wake(self, silence: float | None = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            if silence is None:
                self._waiter.set_result(None)
            else:
                self._waiter.set_exception(HttpTimeoutError(f"no data for {silence:.3g} s"))


async def _async_connect(route: _Route) -> _AsyncConnection:
    """Look the name up and connect to whichever address answers first: happy eyeballs, RFC 8305."""
    import asyncio

    loop = asyncio.get_running_loop()
    found: asyncio.Future[Any] = loop.create_future()

    def answer(result: Any) -> None:
        if not found.done():
            found.set_result(result)

    def tell(result: Any) -> None:
        with suppress(RuntimeError):  # the loop may have been closed meanwhile
            loop.call_soon_threadsafe(answer, result)

    _look_up(route.host, route.port, tell)
    addresses = await found
    error: BaseException | None = addresses if isinstance(addresses, Exception) else None
    waiting = [] if error else list(addresses)
    attempts: set[asyncio.Future[Any]] = set()
    try:
        while waiting or attempts:
            if waiting:
                family, address = waiting.pop(0)
                dial = loop.create_connection(_AsyncConnection, *address[:2], family=family)  # type: ignore[type-var]
                attempts.add(asyncio.ensure_future(dial))
            delay = HAPPY_EYEBALLS_DELAY if waiting else None
            done, attempts = await asyncio.wait(attempts, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                error = attempt.exception()
                if error is None:
                    attempts |= done - {attempt}
                    return attempt.result()[1]  # type: ignore[no-any-return]
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_close_result)
            attempt.cancel()
        if attempts:
            await asyncio.wait(attempts)
    why = getattr(error, "strerror", None) or error
    raise HttpConnectionError(f"connecting to {route.host}:{route.port} failed: {why}") from error


def _close_result(attempt: asyncio.Future[Any]) -> None:
    """Close what an attempt has connected that nobody waits for any more."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result()[1].close()


class AsyncResponse(_BaseResponse):
    """The twin of `Response` for asyncio: `aread`, `aiter_bytes`, `aiter_lines`, `aclose`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def abort(self) -> None:
        """Give up what has not been read, without waiting; whoever reads it gets `HttpConnectionError`."""
        self._drop()

    async def aclose(self) -> None:
        """Give up what has not been read, and wait until the connection is closed."""
        connection = self._connection
        self._drop()
        if connection is not None and connection._closed:
            import asyncio

            await asyncio.wait({connection._gone})

    async def aread(self) -> bytes:
        """Return the whole body; raise `HttpProtocolError` at 64 MiB."""
        if self._content is None:
            content = bytearray()
            async for data in self.aiter_bytes():
                content += data
                _check_size(len(content))
            self._content = bytes(content)
        return self._content

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives: each step gives what is there, as soon as anything is.

        A step that is cancelled loses nothing: the next one goes on.
        """
        return _AsyncBytes(self)

    async def aiter_lines(self) -> AsyncIterator[str]:
        """Iterate over the body's lines, without their ends: LF, CR and CRLF, and nothing else."""
        lines = _Lines(self._charset)
        async for data in self.aiter_bytes():
            for line in lines.feed(data):
                yield line
        for line in lines.feed(b"", final=True):
            yield line

    async def _next(self) -> bytes:
        while (data := self._take()) is None:
            connection = self._source
            connection.send(self._receive(connection, await connection.recv(self.read_timeout)))
        return data


class _AsyncBytes:
    """The iterator of `aiter_bytes`: no generator, since a cancellation would end that."""

    resumable = True  # what tells `sse` so

    def __init__(self, response: AsyncResponse) -> None:
        self._next = response._next
        self._content = response._content

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._content is None:
            data = await self._next()
        else:
            data, self._content = self._content, b""
        if not data:
            raise StopAsyncIteration
        return data


class AsyncTransport(_BaseTransport):
    """The twin of `Transport` for asyncio: `await transport(request, timeout)` gives an `AsyncResponse`."""

    _response_class = AsyncResponse

    async def __call__(self, request: Any, timeout: Timeout = 30.0) -> AsyncResponse:
        """Send a request; `timeout` as in `request()`."""
        return await self._open(
            _make_request(request.method, request.url, request.headers, None, None, request.body), timeout
        )

    def __init__(self, verify: bool | ssl.SSLContext = True, proxy: str | bool | None = None) -> None:
        super().__init__(verify, proxy)
        self._connecting: set[asyncio.Future[_AsyncConnection]] = set()

    def close(self) -> None:
        """As `aclose`, without waiting."""
        self._close()
        for connecting in self._connecting:
            connecting.cancel()

    async def aclose(self) -> None:
        """Close the idle connection and those whose answer has not begun, for good; responses go on."""
        import asyncio

        closing = [connection._gone for connection in (*self._idle, *self._busy)]  # type: ignore[attr-defined]
        self.close()
        await asyncio.wait(closing) if closing else await asyncio.sleep(0)

    async def _open(self, request: _Request, timeout: Timeout) -> AsyncResponse:
        steps = self._steps(request, timeout)
        result: Any = None
        error: HttpError | None = None
        try:
            while True:
                action, connection, argument, deadline = steps.throw(error) if error else steps.send(result)
                result = error = None
                try:
                    if action == "connect":
                        if self._closed:
                            raise HttpConnectionError("the transport is closed")
                        result = await self._connect(argument, deadline)
                    elif action == "send":
                        connection.send(argument)
                    else:
                        result = await connection.recv(_left(deadline, "waiting for the response head"))
                except HttpError as exc:
                    error = exc
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    async def _connect(self, route: _Route, deadline: float | None) -> _AsyncConnection:
        import asyncio

        connecting = asyncio.ensure_future(_async_connect(route))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)
        try:
            where = f"connecting to {route.host}:{route.port}"
            if (await asyncio.wait({connecting}, timeout=_left(deadline, where)))[0]:
                if connecting.cancelled():
                    raise HttpConnectionError("the transport is closed")
                return connecting.result()
            raise HttpTimeoutError(f"timed out {where}")
        except BaseException:
            connecting.cancel()
            await asyncio.wait({connecting})
            if not connecting.cancelled() and connecting.exception() is None:
                connecting.result().close()  # pragma: no cover - a race
            raise


# === 7. Functions ====================================================================================================
#
# One request, one connection. Whoever sends many to the same origin keeps a `Transport`.


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
    body: bytes | str | None = None,
    timeout: Timeout = 30.0,
    verify: bool | ssl.SSLContext = True,
    proxy: str | bool | None = None,
    stream: bool = False,
    read_timeout: float | None = None,
) -> Response:
    """Send a request and return its response; redirects are followed.

    Args:
        method: `GET`, `POST`, ...
        url: `http` or `https`; userinfo becomes Basic auth.
        headers: They replace default headers of the same name.
        params: Added to the query of `url`.
        json: A value to send as JSON.
        body: `bytes`, or `str` to send as UTF-8; not together with `json`.
        timeout: Seconds up to the end of the response head, redirects included; a pair: for the connection and for
            the head; `None`: no limit.
        verify: `False` to accept any certificate, or an `ssl.SSLContext`.
        proxy: A URL; `None`: what the environment says; `False`: none.
        stream: Leave the body unread: iterate over it, and close the response.
        read_timeout: Seconds of silence in the body; `None`: no limit with `stream`, else the limit for the head.

    Raises:
        HttpConnectionError, HttpTimeoutError, HttpProtocolError: No (whole) answer.
        TypeError, ValueError: An argument is wrong; the text names it.
    """
    transport = Transport(verify, proxy)
    transport._one_request = True
    response = transport._open(_make_request(method, url, headers, params, json, body), timeout)
    response.read_timeout = _read_timeout(timeout, stream, read_timeout)
    if not stream:
        with response:
            response.read()
    return response


def get(url: str, **options: Any) -> Response:
    """`request("GET", url, ...)`."""
    return request("GET", url, **options)


def post(url: str, **options: Any) -> Response:
    """`request("POST", url, ...)`."""
    return request("POST", url, **options)


async def async_request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
    body: bytes | str | None = None,
    timeout: Timeout = 30.0,
    verify: bool | ssl.SSLContext = True,
    proxy: str | bool | None = None,
    stream: bool = False,
    read_timeout: float | None = None,
) -> AsyncResponse:
    """The twin of `request` for asyncio."""
    transport = AsyncTransport(verify, proxy)
    transport._one_request = True
    response = await transport._open(_make_request(method, url, headers, params, json, body), timeout)
    response.read_timeout = _read_timeout(timeout, stream, read_timeout)
    if not stream:
        async with response:
            await response.aread()
    return response


async def async_get(url: str, **options: Any) -> AsyncResponse:
    """`async_request("GET", url, ...)`."""
    return await async_request("GET", url, **options)


async def async_post(url: str, **options: Any) -> AsyncResponse:
    """`async_request("POST", url, ...)`."""
    return await async_request("POST", url, **options)


def _read_timeout(timeout: Timeout, stream: bool, read_timeout: float | None) -> float | None:
    if read_timeout is not None or stream:
        return read_timeout
    return timeout[1] if isinstance(timeout, tuple) else timeout
