"""A small HTTP/1.1 client for streaming answers, blocking and asyncio alike; standard library only.

    with get("https://example.com/log", stream=True) as response:
        for line in response.iter_lines():
            print(line)

    answer = (await async_post(url, json={"q": "why"}, timeout=10)).raise_for_status().json()

What arrives is handed on at once; a response can be closed from any thread or task, whatever it waits for; a body that
is cut short raises. No cookies, no cache, no HTTP/2. One connection is kept for the next request to the same origin.

Sections (``grep -n '^# ===' httpclient.py``): errors; requests; responses, without I/O; rules, without I/O; what both
transports share; blocking; async; functions. It follows RFC 9110 (semantics) and RFC 9112 (HTTP/1.1).
"""

from __future__ import annotations

import codecs
import errno
import math
import os
import re
import select
import socket
import sys
import threading
import time
import zlib
from binascii import b2a_base64
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes, urlencode, urljoin, urlsplit

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
    from typing import Any, TypeAlias, TypedDict, TypeVar

    from typing_extensions import Self, Unpack  # in the stubs of every type checker; never imported

    Timeout: TypeAlias = "float | tuple[float | None, float | None] | None"
    _Left: TypeAlias = Callable[[], "float | None"]  # seconds left, `None` without a limit; raises when time is up
    _T = TypeVar("_T")

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
MAX_HEADERS = 256  # header lines, and answers that are skipped: far over any real answer
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
    """The base of every error of this module that is not a wrong argument."""

    permanent = False  # whether the same request would fail again: a redirect that is refused


class HttpConnectionError(HttpError):
    """A connection could not be made, or was lost; the cause is chained."""


class HttpTimeoutError(HttpError):
    """A time limit was reached."""


class HttpProtocolError(HttpError):
    """What the server sent is not HTTP, contradicts itself or is over a limit."""


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


# === 2. Requests =====================================================================================================
#
# A request is checked and turned into bytes here; nothing that could end a line early gets into its head.

_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LABEL = "[A-Za-z0-9_-]{1,63}"
_HOST_PORT = re.compile(
    rf"(?:(?P<name>{_LABEL}(\.{_LABEL})*\.?)|\[(?P<ip>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?)\])(:[0-9]*)?"
)
_SAFE = "/?%:@!$&'()*+,;=~-._[]"  # what `quote` leaves alone: a URL's own characters


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
    def host_port(self) -> str:
        host = self.host.partition("%")[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def authority(self) -> str:
        """What stands in the Host field: no default port, no zone of ours."""
        return self.host_port.removesuffix(f":{_PORTS[self.scheme]}")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


class _Request(NamedTuple):
    method: str
    url: _Url
    headers: dict[str, str]
    body: bytes | None


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
        userinfo, at, location = parts.netloc.rpartition("@")
        if not location.isascii():
            host, colon, digits = location.partition(":")
            location = host.encode("idna").decode() + colon + digits
        match = _HOST_PORT.fullmatch(location.replace("%25", "%"))
        default_port = _PORTS[parts.scheme]
        port = default_port if parts.port is None else parts.port
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_SAFE)
        if match is None or port == 0:
            raise ValueError
    except (ValueError, KeyError):
        raise ValueError(f"url must be an absolute http or https URL, got {_redacted(url)!r}") from None
    host = (match["name"] or match["ip"]).lower()
    return _Url(parts.scheme, host, port, target, unquote_to_bytes(userinfo) if at else None)


def _basic(userinfo: bytes) -> str:
    return "Basic " + b2a_base64(userinfo if b":" in userinfo else userinfo + b":", newline=False).decode()


def _make_request(method: Any, url: Any, headers: Any, body: Any, json: Any = None, params: Any = None) -> _Request:
    """Check the arguments; raise `TypeError` or `ValueError` that names the wrong one, never a header's value."""
    if not isinstance(method, str):
        raise TypeError(f"method must be str, got {type(method).__name__}")
    if not _TOKEN.fullmatch(method):
        raise ValueError(f"method must be an HTTP method, got {method!r}")
    if headers is not None and not hasattr(headers, "items"):
        raise TypeError(f"headers must be a mapping, got {type(headers).__name__}")
    parsed = _parse_url(url)
    if params:
        try:
            query = urlencode(params, doseq=True)
        except (TypeError, ValueError) as exc:
            raise _not_encoded("params", exc) from None
        parsed = parsed._replace(target=parsed.target + ("&" if "?" in parsed.target else "?") + query)
    fields = {"User-Agent": f"stdsse-httpclient/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
    if parsed.userinfo is not None:
        fields["Authorization"] = _basic(parsed.userinfo)
    if json is not None:
        from json import dumps

        if body is not None:
            raise ValueError("json and body must not both be given: a request has one body")
        try:
            body = dumps(json)
        except (TypeError, ValueError) as exc:
            raise _not_encoded("json", exc) from None
        fields["Content-Type"] = "application/json"
    if isinstance(body, str):
        if re.search("[\ud800-\udfff]", body):
            raise ValueError("body must not contain surrogates")
        body = body.encode()
    if body is not None and not isinstance(body, bytes):
        raise TypeError(f"body must be bytes or str, got {type(body).__name__}")
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"headers must map str to str, got {type(value).__name__} for {name!r}")
        name, value = str.__str__(name), str.__str__(value)  # some kinds of str are written as something else
        if not _TOKEN.fullmatch(name) or re.search(r"[\r\n\0]", value):
            raise ValueError(f"headers: bad name, or CR, LF or NUL in the value, of {name!r}")
        if name.lower() in ("content-length", "transfer-encoding"):
            raise ValueError(f"headers: {name!r} follows from the body")
        fields = {other: text for other, text in fields.items() if other.lower() != name.lower()}
        fields[name] = value
    return _Request(method.upper(), parsed._replace(userinfo=None), fields, body)


def _not_encoded(name: str, why: Exception) -> Exception:
    return (ValueError if isinstance(why, ValueError) else TypeError)(f"{name} cannot be encoded: {why}")


def _encode(request: _Request, route: _Route, keep: bool) -> bytes:
    """The bytes of a request, RFC 9112 section 3."""
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
    target = str(request.url) if route.absolute else request.url.target
    return _head_bytes(f"{request.method} {target} HTTP/1.1", fields) + (request.body or b"")


def _head_bytes(first_line: str, fields: dict[str, str]) -> bytes:
    lines = [first_line, *[f"{name}: {value}" for name, value in fields.items()], "", ""]
    return "\r\n".join(lines).encode("utf-8", "replace")


# === 3. Responses, without I/O =======================================================================================
#
# Bytes go in as they come (b"" is the end of the connection), a head or decoded data comes out. One small class for
# each way a body can be framed: `decode` appends what it finds to a list, so that data before an error is kept;
# `end` is told of the end of the connection. Where two readers of HTTP could disagree, there is no guessing.

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([^\r\n\0]*))?")
_FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\0]*)")
_CHUNK_LINE = re.compile(rb"\r\n([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")


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
            where = "within the response head" if self.begun else "without an answer"
            raise HttpConnectionError(f"the server closed the connection {where}")
        self.begun = True
        self._buffer += data
        while end := _HEAD_END.search(self._buffer, max(0, self._searched - 3), MAX_HEAD):
            raw, self._buffer = bytes(self._buffer[: end.start()]), self._buffer[end.end() :]
            head = _parse_head(raw, bytes(self._buffer))
            if head.status_code == 101:
                raise HttpProtocolError("the server switched protocols without being asked to")
            if head.status_code >= 200:
                return head
            self._skipped += 1
            if self._skipped > MAX_HEADERS:
                raise HttpProtocolError(f"more than {MAX_HEADERS} informational answers")
            self._searched = 0
        self._searched = len(self._buffer)
        if self._searched > MAX_HEAD:
            raise HttpProtocolError(f"a response head is longer than {MAX_HEAD} bytes")
        if not b"HTTP/1."[: self._searched] == self._buffer[:7]:
            raise HttpProtocolError(f"expected HTTP/1.1, got {bytes(self._buffer[:40])!r}")
        return None


def _parse_head(raw: bytes, rest: bytes) -> _Head:
    # A user agent unfolds lines, RFC 9112 section 5.2, and may take a bare LF for a line end, section 2.2.
    first, *lines = re.split(rb"\r?\n", re.sub(rb"\r?\n[ \t]+", b" ", raw))
    status = _STATUS_LINE.fullmatch(first)
    if status is None:
        raise HttpProtocolError(f"expected HTTP/1.1, got {first[:40]!r}")
    if len(lines) > MAX_HEADERS:
        raise HttpProtocolError(f"a response head has more than {MAX_HEADERS} headers")
    fields = []
    for line in lines:
        field = _FIELD_LINE.fullmatch(line)
        if field is None:
            raise HttpProtocolError(f"bad header line {line.partition(b':')[0][:40]!r}")  # the value may be a secret
        fields.append((field[1].decode(), _text(field[2].strip(b" \t"))))
    return _Head(int(status[2]), _text(status[3] or b""), Headers(fields), status[1] == b"0", rest)


def _text(data: bytes) -> str:
    """A field value as text: UTF-8, or Latin-1 as of old."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


class _PlainBody:
    """A body of so many bytes, or (`None`) one that ends with the connection."""

    def __init__(self, length: int | None) -> None:
        self._length, self._got = length, 0
        self.complete = length == 0
        self.surplus = length is None  # whether the connection must not be used again: more came, or it ended

    def decode(self, data: bytes, out: list[bytes]) -> None:
        if self._length is not None:
            left = self._length - self._got
            self.surplus, data = len(data) > left, data[:left]
        out.append(data)
        self._got += len(data)
        self.complete = self._got == self._length

    def end(self) -> None:
        if self._length is not None:
            text = f"the connection was closed after {self._got} of {self._length} bytes of the body"
            raise HttpConnectionError(text)
        self.complete = True


class _ChunkedBody:
    """A body in chunks, RFC 9112 section 7.1."""

    def __init__(self) -> None:
        self._buffer = b"\r\n"  # an unfinished line, with the CRLF before it: at first as if a chunk had ended
        self._left = 0  # bytes that the chunk still lacks
        self._sizes: dict[bytes, int] = {}  # what lines have meant so far: sizes repeat
        self._in_trailers = False
        self.complete = False
        self.surplus = False

    def decode(self, data: bytes, out: list[bytes]) -> None:
        if not self._left:
            data = self._buffer + data
        at = 0
        while not self._in_trailers:
            if self._left:
                piece = data[at : at + self._left]
                out.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    return
            at = self._take_whole_chunks(data, at, out)
            line = _CHUNK_LINE.match(data, at)
            if line is None or line.end() - at > MAX_CHUNK_LINE + 2:
                rest = self._buffer = data[at:]
                if line or len(rest) > MAX_CHUNK_LINE + 2 or b"\n" in rest[2:] or rest[:2] not in (b"", b"\r", b"\r\n"):
                    rest = rest.removeprefix(b"\r\n")
                    raise HttpProtocolError(f"bad chunk size {rest[:40]!r}")
                return
            self._left = int(line[1], 16)
            if self._left and len(self._sizes) < MAX_HEADERS:
                self._sizes[line[0]] = self._left
            self._in_trailers = not self._left
            at = line.end() if self._left else line.end() - 2  # so that trailers, if any, end with an empty line
        self._buffer = data[at:]
        end = self._buffer.find(b"\r\n\r\n")
        if (len(self._buffer) if end < 0 else end + 4) - 2 > MAX_HEAD:
            raise HttpProtocolError(f"a trailer section is longer than {MAX_HEAD} bytes")
        self.complete = end >= 0
        self.surplus = len(self._buffer) > end + 4

    def _take_whole_chunks(self, data: bytes, at: int, out: list[bytes]) -> int:
        """Where the chunks end that have come whole, after lines that have come before: a shortcut, thrice as fast."""
        find, sizes, append, length = data.find, self._sizes, out.append, len(data)
        while True:
            end = find(b"\n", at + 2, at + 20) + 1
            stop = end + sizes.get(data[at:end], length)
            if stop > length or not end:
                return at
            append(data[end:stop])
            at = stop

    def end(self) -> None:
        raise HttpConnectionError("the connection was closed before the last chunk of the body")


def _body_framing(method: str, head: _Head) -> _PlainBody | _ChunkedBody:
    """How a body ends: the steps of RFC 9112 section 6.3."""
    if method == "HEAD" or head.status_code in (204, 304):
        return _PlainBody(0)
    if "transfer-encoding" in head.headers:
        if head.tokens("transfer-encoding") != ["chunked"] or head.http_1_0:
            raise HttpProtocolError(f"unsupported transfer coding {head.headers['transfer-encoding'][:40]!r}")
        if "content-length" in head.headers:
            raise HttpProtocolError("both Content-Length and Transfer-Encoding: the answer may have been forged")
        return _ChunkedBody()
    if "content-length" in head.headers:
        lengths = set(head.tokens("content-length"))
        if len(lengths) != 1 or not re.fullmatch("[0-9]{1,18}", length := lengths.pop()):
            raise HttpProtocolError(f"bad Content-Length {head.headers['content-length'][:40]!r}")
        return _PlainBody(int(length))
    return _PlainBody(None)


class _Body:
    """A body on its way: framing, then content coding, then errors after the data before them."""

    def __init__(self, method: str, head: _Head) -> None:
        self._framing = _body_framing(method, head)
        self._undecodable = ""  # why, for whoever reads the body: the status counts all the same
        codings = [coding for coding in head.tokens("content-encoding") if coding != "identity"]
        if codings not in ([], ["gzip"], ["x-gzip"]):
            self._undecodable = f"unsupported content coding {head.headers['content-encoding'][:40]!r}"
        self._inflate: Any = zlib.decompressobj(zlib.MAX_WBITS | 16) if codings else None
        self._in_member = False  # of gzip: its end is still to come
        self._waiting: list[bytes] = []
        self._error: HttpError | None = None
        self._keep_alive = head.keep_alive
        if head.rest:
            self.receive(head.rest)

    def receive(self, data: bytes) -> None:
        """Take what has come; b"" is the end of the connection."""
        try:
            if data:
                self._framing.decode(data, self._waiting)
            else:
                self._framing.end()
        except HttpError as exc:
            self._error = exc

    def take(self) -> bytes:
        """Decoded data that is ready; b"" when more must be received first, or the body is `complete`."""
        if self._undecodable and any(self._waiting):
            raise HttpProtocolError(self._undecodable)
        if self._inflate is not None:
            data = self._gunzip()
        else:
            data = b"".join(self._waiting)
            self._waiting.clear()
        if not data and self._error is not None:
            raise self._error
        return data

    def _gunzip(self) -> bytes:
        """One step of at most `READ_SIZE` bytes, so that a bomb cannot fill the memory."""
        data = None
        while not data and (self._waiting or data is None):  # at first also without input: zlib may hold output back
            packed = self._waiting.pop(0) if self._waiting else b""
            try:
                data = self._inflate.decompress(packed, READ_SIZE)
            except zlib.error as exc:
                raise HttpProtocolError(f"bad gzip: {exc}") from None
            self._in_member = (self._in_member or packed != b"") and not self._inflate.eof
            rest = self._inflate.unused_data or self._inflate.unconsumed_tail
            if rest:
                self._waiting.insert(0, rest)
            if self._inflate.eof:  # another member may follow
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        if not data and self._in_member and self._framing.complete:
            raise HttpConnectionError("the body ended within its gzip coding")
        return data or b""

    @property
    def complete(self) -> bool:
        return self._framing.complete and not self._waiting

    @property
    def reusable(self) -> bool:
        return self._keep_alive and self._framing.complete and not self._framing.surplus


class _Lines:
    """Splits text at LF, CR and CRLF only."""

    def __init__(self, charset: str) -> None:
        self._charset = charset
        self._decode = codecs.getincrementaldecoder(charset)("replace").decode
        self._pieces: list[str] = []  # of the line that has no end yet
        self._size = 0
        self._skip_lf = False  # the text so far ends with CR

    def feed(self, data: bytes, final: bool = False) -> list[str]:
        try:
            text = self._decode(data, final)
        except UnicodeError as exc:  # despite "replace", for want of a byte order mark
            raise HttpProtocolError(f"the text is not {self._charset}: {exc}") from None
        if text and self._skip_lf:
            text = text.removeprefix("\n")
            self._skip_lf = False
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
            self._pieces, self._size = [], 0
        return lines


# === 4. Rules, without I/O ===========================================================================================
#
# Where a request goes: which redirect is followed with which headers, which proxy is asked and how, when time is up.

_SHARED_HEADERS = ("accept", "accept-language", "cache-control", "content-type", "user-agent")
_IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")


class _Route(NamedTuple):
    """How to reach an origin. Requests of the same route may share a connection."""

    host: str  # of the TCP connection
    port: int
    server_name: str | None  # for TLS, if it is wanted
    tunnel: str | None = None  # the authority to ask a proxy for, by CONNECT
    absolute: bool = False  # the request goes to a proxy, with the absolute URL
    authorization: str | None = None  # for the proxy


def _route(url: _Url, proxy: str | bool | None) -> _Route:
    tls = url.host.partition("%")[0] if url.scheme == "https" else None
    given = _environment_proxy(url) if proxy is None else proxy
    if not given:
        return _Route(url.host, url.port, tls)
    via = _parse_proxy(given)
    authorization = None if via.userinfo is None else _basic(via.userinfo)
    return _Route(via.host, via.port, tls, url.host_port if tls else None, not tls, authorization)


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
    # urllib.request is slow to import; elsewhere the system may have settings of its own.
    if sys.platform not in ("win32", "darwin") and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    exempt = [entry.strip(" []") for entry in proxies.get("no", "").split(",")]
    if proxy_bypass(url.host_port) or url.host in exempt:
        return None
    return proxies.get(url.scheme) or proxies.get("all")


def _locations(head: Any) -> set[str]:
    """Where the answer redirects to, if it does, RFC 9110 section 15.4; to more than one place it may not."""
    if head.status_code not in (301, 302, 303, 307, 308):
        return set()
    return {value for name, value in head.headers.fields if name.lower() == "location"}


def _redirect(request: _Request, status_code: int, locations: set[str]) -> _Request:
    """The request that a redirect asks for."""
    method, url, headers, body = request
    location, *others = locations
    if others:
        raise _refused(f"redirect to {len(locations)} different places")
    try:
        if "\\" in location:
            raise ValueError
        target = _parse_url(urljoin(str(url), quote(location, safe=_SAFE + "#")))
    except ValueError:
        raise _refused(f"redirect to {_shown(location)[:100]!r}, which is no http or https URL") from None
    if url.scheme == "https" and target.scheme == "http":
        raise _refused(f"redirect from https to {_shown(target)}, which is not encrypted")
    if (status_code == 303 and method != "HEAD") or (status_code in (301, 302) and method == "POST"):
        method, body = "GET", None
        headers = {name: value for name, value in headers.items() if not name.lower().startswith("content-")}
    if target[:3] != url[:3]:  # whatever else the user set may be a secret of the first origin
        headers = {name: value for name, value in headers.items() if name.lower() in _SHARED_HEADERS}
        headers["Accept-Encoding"] = "identity"
    return _Request(method, target._replace(userinfo=None), headers, body)


def _refused(text: str) -> HttpProtocolError:
    error = HttpProtocolError(text)
    error.permanent = True
    return error


class _Deadlines:
    """When one opening must be done: with a connection, with a response head, and with all of its redirects."""

    def __init__(self, timeout: Timeout) -> None:
        parts = timeout if isinstance(timeout, tuple) and len(timeout) == 2 else (timeout,)
        for seconds in parts:
            _check_seconds("timeout", seconds, ", a pair of them")
        self._parts = [math.inf if seconds is None else seconds for seconds in parts]
        self._end = time.monotonic() + sum(self._parts)

    def start(self, part: int, doing: str) -> _Left:
        """Begin to connect (0) or to ask for a head (-1): that part's time runs from here."""
        end = min(self._end, time.monotonic() + self._parts[part])

        def left() -> float | None:
            seconds = end - time.monotonic()
            if seconds <= 0:
                raise HttpTimeoutError(f"timed out {doing}")
            return None if seconds == math.inf else seconds

        return left


def _check_seconds(name: str, seconds: Any, others: str = "") -> None:
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float))):
        raise TypeError(f"{name} must be seconds{others} or None, got {seconds!r}")
    if seconds is not None and not 0 < seconds < 2**31:
        raise ValueError(f"{name} must be seconds > 0 and < 2**31, got {seconds!r}")


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


# === 5. What both transports share ===================================================================================
#
# Coroutines over a connection that can connect, send, receive and close. Over a blocking connection they never
# suspend: `_run` is all that it takes to call them without an event loop.


def _run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise RuntimeError("a blocking connection must not suspend")  # pragma: no cover


class _Connection:
    """A TCP connection, and TLS over it. `left` gives the seconds that an operation may still take."""

    # What the shells bring along. `recv` gives b"" at the end; `send` tells how much it has sent: all, but if it is
    # `stoppable` and something can be read. `close` may come from any thread or task, while the others wait.
    alive: Any
    connect: Any
    send: Any
    recv: Any
    close: Any

    def __init__(self) -> None:
        self.route: _Route | None = None
        self.closed = False  # by us
        self.spoilt = False  # a request was not sent whole
        self.tls: Any = None  # an `ssl.SSLObject` in between two buffers
        self._incoming: Any = None
        self._outgoing: Any = None
        self._drained = False  # TLS can do nothing before more has come

    async def write(self, data: bytes, left: _Left) -> None:
        """Send a request, but no more of it once an answer has come: a server may refuse a body without reading it."""
        if self.tls is not None:
            self.tls.write(data)
            data = self._outgoing.read()
        # Over TLS what can be read may be its own business, session tickets: there all is sent.
        self.spoilt = True  # if that fails
        self.spoilt = await self.send(data, left, stoppable=self.tls is None) < len(data)

    def read(self, left: _Left) -> Any:
        """Await it for what has arrived; b"" at the end."""
        return self.recv(left) if self.tls is None else self._call_tls(self._decrypt, left)

    async def read_head(self, reader: _HeadReader, left: _Left) -> _Head:
        while (head := reader.receive(await self.read(left))) is None:
            pass
        return head

    async def start_tls(self, context: ssl.SSLContext, server_name: str, session: Any, left: _Left) -> None:
        import ssl

        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name, session=session)
        await self._call_tls(self.tls.do_handshake, left)

    async def _call_tls(self, step: Callable[[], _T], left: _Left) -> _T:
        """Let TLS do something, with as much from the server as that takes."""
        import ssl

        while True:
            if self._drained:
                if data := await self.recv(left):
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            try:
                self._drained = False
                return step()
            except ssl.SSLWantReadError:
                self._drained = True
            except ssl.SSLError as exc:  # also an end without close_notify, which anybody on the way can make
                raise HttpConnectionError(f"TLS with {self.tls.server_hostname} failed: {exc}") from exc
            finally:
                if self._outgoing.pending:
                    with suppress(HttpError):  # if that fails, so will `recv`
                        await self.send(self._outgoing.read(), left)

    def _decrypt(self) -> bytes:
        """All that can be decrypted; an error behind that comes again with the next call."""
        import ssl

        pieces = [self.tls.read(READ_SIZE)]
        try:
            while pieces[-1]:
                pieces.append(self.tls.read(READ_SIZE))
        except ssl.SSLError as exc:
            self._drained = isinstance(exc, ssl.SSLWantReadError)
        return b"".join(pieces)


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
        self._connection: Any = connection
        self._body = _Body(request.method, head)
        self._content: bytes | None = None  # the whole body, once it has been read
        self._begun = bytearray()  # of it, by a `read` that was interrupted
        self._splitter: _Lines | None = None
        self._lines: list[str] = []  # that are ready, the next one last

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
        charset = match[1] if match else "utf-8"
        try:
            b"a".decode(charset, "replace")
        except (LookupError, ValueError):  # unknown, or no encoding of text
            return "utf-8"
        return charset

    async def _next(self) -> bytes | None:
        """The next data of the body; `None` at its end."""
        if self._begun:
            data, self._begun = bytes(self._begun), bytearray()
            return data
        while not (data := self._body.take()) and not self._body.complete:
            connection = self._connection  # `close()` may come from another thread
            if connection is None:
                raise HttpConnectionError("the response was closed before the end of its body")
            self._body.receive(await connection.read(lambda: self.read_timeout))
        if not data:
            self._drop()
        return data or None

    async def _read(self) -> bytes:
        if self._content is None:
            content, self._begun = self._begun, bytearray()
            try:
                while len(content) <= MAX_BODY and (data := await self._next()):
                    content += data
                if len(content) > MAX_BODY:
                    raise HttpProtocolError(f"a body is longer than {MAX_BODY} bytes: iterate over it")
            except BaseException:
                self._begun = content
                raise
            self._content = bytes(content)
        return self._content

    async def _next_line(self) -> str | None:
        """The next line of the body; `None` at its end."""
        if self._splitter is None:
            self._splitter = _Lines(self._charset)
        data: bytes | None = b""
        while not self._lines and data is not None:
            data = await self._next()
            self._lines += reversed(self._splitter.feed(data or b"", final=data is None))
        return self._lines.pop() if self._lines else None

    def _drop(self) -> None:
        """Give the connection up, or back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._transport._take_back(connection, self._body.reusable)


class _Items:
    """What the iterators over a body are: no generators, which an error or a cancellation would end for good."""

    def __init__(self, response: Any, lines: bool) -> None:
        self._response, self._of_lines = response, lines
        self._pop = response._lines.pop if lines else [].pop  # bound once, since it is called for every line
        self.resume: Any = self._begin  # () awaits the next item, `None` at the end; also for `sse`

    async def _begin(self) -> Any:
        """The first step: of a body that has been read, all is given once more."""
        response, lines = self._response, self._of_lines
        if response._content is None:
            self.resume = response._next_line if lines else response._next
            return await self.resume()
        ready = [response._content] if response._content else []
        if lines:
            ready = _Lines(response._charset).feed(response._content, final=True)[::-1]
        self._pop, self.resume = ready.pop, _nothing
        return ready.pop() if ready else None


async def _nothing() -> None: ...


class _BaseTransport:
    """What both transports are: where a request goes, and what it takes to get its response."""

    _response_class: Any
    _connection_class: Any

    def __init__(self, verify: bool | ssl.SSLContext = True, proxy: str | bool | None = None) -> None:
        """Check the arguments, which are those of `request()`."""
        if not isinstance(verify, bool) and not hasattr(verify, "wrap_bio"):
            raise TypeError(f"verify must be True, False or an ssl.SSLContext, got {verify!r}")
        if proxy is not None and proxy is not False:
            _parse_proxy(proxy)
        self._verify, self._proxy = verify, proxy
        self._context: ssl.SSLContext | None = None  # made once, when first needed
        # What the next connection may resume, if it takes the same route: a session, or whoever has it by then
        self._last: tuple[_Route | None, ssl.SSLSession | ssl.SSLObject | None] = None, None
        self._idle: list[Any] = []  # at most one; a list, since its methods are atomic
        self._busy: set[Any] = set()  # whose response head has not come
        self._one_request = False
        self._closed = False

    def _take_back(self, connection: _Connection, reusable: bool) -> None:
        """Keep the connection of a response that has been read for the next request, or close it."""
        if reusable and not self._one_request and not connection.spoilt:
            self._idle.append(connection)
        else:
            connection.close()
        while self._idle and (self._closed or len(self._idle) > 1):
            self._idle.pop(0).close()

    def check(self, request: Any) -> None:
        """Raise the `TypeError` or `ValueError` that sending the request would raise."""
        _make_request(request.method, request.url, request.headers, request.body)

    def close(self) -> None:
        """Close the idle connection and those whose answer has not begun, for good; responses go on."""
        self._closed = True
        for connection in [*self._idle, *self._busy]:
            connection.close()

    async def _open(self, request: Any, timeout: Timeout) -> Any:
        """Send a request and follow its redirects; return the response."""
        if not isinstance(request, _Request):
            request = _make_request(request.method, request.url, request.headers, request.body)
        deadlines = _Deadlines(timeout)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._exchange(request, deadlines)
            locations = _locations(response)
            if not locations:
                return response
            response._drop()
            request = _redirect(request, response.status_code, locations)
        raise _refused(f"more than {MAX_REDIRECTS} redirects, the last to {_shown(request.url)}")

    async def _exchange(self, request: _Request, deadlines: _Deadlines) -> Any:
        """Send one request; return its response when the head has come."""
        route = _route(request.url, self._proxy)
        reader = _HeadReader()
        if self._idle:
            connection = self._idle.pop()
            try:
                if connection.route == route and connection.alive:
                    return await self._exchange_over(connection, request, route, reader, deadlines)
                connection.close()
            except HttpConnectionError:  # the server has closed an idle connection: one more try
                if reader.begun or self._closed or request.method not in _IDEMPOTENT:
                    raise
        return await self._exchange_over(self._connection_class(), request, route, reader, deadlines)

    async def _exchange_over(
        self, connection: _Connection, request: _Request, route: _Route, reader: _HeadReader, deadlines: _Deadlines
    ) -> Any:
        self._busy.add(connection)
        try:
            if connection.route is None:
                await self._connect(connection, route, deadlines.start(0, f"connecting to {route.host}:{route.port}"))
            left = deadlines.start(-1, "waiting for the response head")
            with suppress(HttpConnectionError):  # a refusal may have come before all was sent
                await connection.write(_encode(request, route, not self._one_request), left)
            head = await connection.read_head(reader, left)
            return self._response_class(self, request, head, connection)
        except BaseException:
            connection.close()
            raise
        finally:
            self._busy.discard(connection)

    async def _connect(self, connection: _Connection, route: _Route, left: _Left) -> None:
        """Also through the proxy's tunnel, RFC 9110 section 9.3.6, and with TLS, where the route says so."""
        if self._closed:
            raise HttpConnectionError("the transport is closed")
        await connection.connect(route.host, route.port, left)
        connection.route = route
        if route.tunnel:
            fields = {"Host": route.tunnel}
            if route.authorization:
                fields["Proxy-Authorization"] = route.authorization
            await connection.send(_head_bytes(f"CONNECT {route.tunnel} HTTP/1.1", fields), left)
            head = await connection.read_head(_HeadReader(), left)
            if not 200 <= head.status_code < 300:
                why = f"HTTP {head.status_code} {head.reason[:100]!r}"
                raise HttpConnectionError(f"the proxy refused the tunnel: {why}")
            if head.rest:
                raise HttpProtocolError("the proxy sent data into the tunnel before the server could")
        if route.server_name:
            self._context = self._context or _make_context(self._verify)
            last_route, last = self._last
            session = getattr(last, "session", last) if last_route == route else None
            await connection.start_tls(self._context, route.server_name, session, left)
            self._last = route, session if connection.tls.session_reused else connection.tls  # each look copies it


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
    threading.Thread(target=lambda: tell(look_up(0)), daemon=True, name=f"look-up of {host}").start()


def _not_connected(host: str, port: int, error: Any) -> HttpConnectionError:
    why = getattr(error, "strerror", None) or error or "closed"
    return HttpConnectionError(f"connecting to {host}:{port} failed: {why}")


def _tune(sock: socket.socket) -> None:
    """Notice a vanished peer within some two minutes; send small requests at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _is_ready(sock: Any, seconds: float | None, read: bool = True, write: bool = False) -> bool:
    """Whether a socket can be read or written, as asked for, within so many seconds."""
    if hasattr(select, "poll"):  # which has no limit on file descriptors
        poll = select.poll()
        poll.register(sock, select.POLLIN * read | select.POLLOUT * write)
        return bool(poll.poll(None if seconds is None else min(seconds, 1e6) * 1000))
    return any(select.select([sock] * read, [sock] * write, [sock], seconds))


# === 6. Blocking =====================================================================================================
#
# A connection owns its receive loop: `close()` comes from any thread, shuts the socket down, which wakes a blocked
# `recv`, and leaves the closing of a socket in use to its user, since its number could be given to another file.


class _BlockingConnection(_Connection):
    def __init__(self) -> None:
        from queue import SimpleQueue

        super().__init__()
        self._in_use = threading.Lock()  # held while a system call works on the socket
        self._sock: socket.socket | None = None
        self._found: SimpleQueue[Any] = SimpleQueue()  # what a name look-up answers; `None` by close()
        self._buffer = memoryview(bytearray(READ_SIZE))  # one for all reads: one for each would tear the heap to pieces

    async def connect(self, host: str, port: int, left: _Left) -> None:
        """Look the name up and connect to the first address that answers."""
        _look_up(host, port, self._found.put)
        try:
            found = self._found.get(timeout=left())
        except Exception as exc:  # queue.Empty
            raise HttpTimeoutError(f"timed out looking up {host}") from exc
        error: Exception | None = found if isinstance(found, Exception) else None
        addresses = found if isinstance(found, list) else []
        for others, (family, address) in zip(reversed(range(len(addresses))), addresses):
            seconds = left()
            share = seconds / (others + 1) if seconds and others else math.inf
            try:
                return self._dial(family, address, left, time.monotonic() + share)
            except OSError as exc:
                error = exc
        raise _not_connected(host, port, error) from error

    def _dial(self, family: int, address: Any, left: _Left, until: float) -> None:
        """Connect; give up at `until`, on the monotonic clock, so that there is time for the other addresses."""
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        code = sock.connect_ex(address)
        self._sock = sock  # from here on close() can wake us: before, there was nothing to shut down
        with self:
            while code in (errno.EINPROGRESS, errno.EWOULDBLOCK) and not self.closed:
                # In slices: not every system wakes a connecting socket at its shutdown.
                if _is_ready(sock, min(left() or 0.25, 0.25), read=False, write=True):
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                elif time.monotonic() > until:
                    code = errno.ETIMEDOUT
        if code:
            sock.close()
            raise OSError(code, os.strerror(code))
        _tune(sock)

    async def send(self, data: bytes, left: _Left, stoppable: bool = False) -> int:
        rest = memoryview(data)
        with self as sock:
            sock.settimeout(0.0)
            while rest:
                stops = stoppable and len(rest) < len(data)
                if _is_ready(sock, left(), read=stops, write=True):
                    if stops and _is_ready(sock, 0.0):
                        break
                    rest = rest[sock.send(rest[:READ_SIZE]) :]
        return len(data) - len(rest)

    async def recv(self, left: _Left) -> bytes:
        seconds = left()
        with self as sock:
            if sock.gettimeout() != seconds:
                sock.settimeout(seconds)
            try:
                return bytes(self._buffer[: sock.recv_into(self._buffer)])
            except TimeoutError as exc:
                if exc.errno is not None:  # keep-alive has found that the peer has vanished
                    raise
                left()  # which tells what was to be done by now, if it was not only silence
                raise HttpTimeoutError(f"no data for {seconds:.3g} s") from None

    def close(self) -> None:
        """Close from any thread; idempotent."""
        self.closed = True
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
        """Whether an idle connection is still good: open, and nothing has come on it."""
        return self._sock is not None and not self.closed and not _is_ready(self._sock, 0.0)

    def __enter__(self) -> socket.socket:
        """The socket, for system calls that `close()` ends."""
        self._in_use.acquire()
        if self._sock is None or self.closed:
            self._in_use.release()
            raise HttpConnectionError("the connection was closed here")
        return self._sock

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._in_use.release()
        if self.closed:
            self.close()
            raise HttpConnectionError("the connection was closed here") from error
        if isinstance(error, OSError):
            raise HttpConnectionError(f"connection lost: {error.strerror or error}") from error


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
        """Return the whole body, or what no iterator has taken; raise `HttpProtocolError` at 64 MiB."""
        return _run(self._read())

    def iter_bytes(self) -> Iterator[bytes]:
        """Iterate over the body as it arrives: each step gives what is there, as soon as anything is."""
        return _BlockingItems(self, lines=False)

    def iter_lines(self) -> Iterator[str]:
        """Iterate over the body's lines, without their ends: LF, CR and CRLF, and nothing else."""
        return _BlockingItems(self, lines=True)

    _whole = read


class _BlockingItems(_Items):
    """Its `close()` is that of the response."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self._pop()
        except IndexError:
            pass
        item: Any = _run(self.resume())
        if item is None:
            raise StopIteration
        return item

    def close(self) -> None:
        self._response.close()


class Transport(_BaseTransport):
    """Sends requests and keeps one connection for the next to the same origin; what `request` and `sse` stand on.

    `transport(request, timeout)` takes anything with `method`, `url`, `headers` and `body`, returns a `Response` whose
    body is still to come, and raises `HttpError`, or `ValueError` for a bad request.
    """

    _response_class = Response
    _connection_class = _BlockingConnection

    def __call__(self, request: Any, timeout: Timeout = 30.0) -> Response:
        """Send a request; `timeout` as in `request()`."""
        return _run(self._open(request, timeout))  # type: ignore[no-any-return]

    def abort(self) -> None:
        """End the requests whose answer has not begun, from any thread: they raise `HttpConnectionError`."""
        for connection in list(self._busy):
            connection.close()


# === 7. Async ========================================================================================================
#
# The same over an asyncio protocol. A wait can be cancelled anywhere: what has arrived stays in the connection, and
# an opening that is cancelled closes what it had opened.


class _ReadBuffer(threading.local):
    """What all connections of a loop read into: a buffer of its own for each read would tear the heap to pieces."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_SIZE))


_read_buffer = _ReadBuffer()


class _AsyncConnection(_Connection):
    """Also the protocol that asyncio calls: `_as_protocol` makes it one without importing asyncio here."""

    def __init__(self) -> None:
        import asyncio

        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._pending: Collection[asyncio.Future[Any]] = ()  # a name look-up, and attempts to connect
        self._received: list[bytes] = []
        self._size = 0  # bytes of these
        self._silent_since = 0.0  # the first wait after the last byte, on the loop's clock
        self._ended = False  # no more will come
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.gone: asyncio.Future[None] = self._loop.create_future()  # the socket is closed

    async def connect(self, host: str, port: int, left: _Left) -> None:
        """Look the name up and connect to whichever address answers first: happy eyeballs, RFC 8305."""
        import asyncio

        found: asyncio.Future[Any] = self._loop.create_future()

        def tell(result: Any) -> None:
            settle = found.set_exception if isinstance(result, Exception) else found.set_result
            with suppress(RuntimeError):  # the loop may have been closed meanwhile
                self._loop.call_soon_threadsafe(lambda: found.done() or settle(result))

        _look_up(host, port, tell)
        addresses: list[Any] = []
        error: BaseException | None = None
        pending = self._pending = {found}
        try:
            while pending:
                limits = [limit for limit in (left(), HAPPY_EYEBALLS_DELAY if addresses else None) if limit is not None]
                timeout = min(limits, default=None)
                done, _ = await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if self.closed:
                    break
                for attempt in done:
                    pending.remove(attempt)
                    error = attempt.exception()
                    if attempt is found:
                        addresses = [] if error else attempt.result()
                    elif error is None:
                        await self._loop.create_connection(lambda: self, sock=attempt.result())  # type: ignore[type-var]
                        return
                if addresses:
                    pending.add(asyncio.ensure_future(self._dial(*addresses.pop(0))))
        finally:
            for attempt in pending:
                attempt.add_done_callback(_close_result)
                attempt.cancel()
            if pending:
                await asyncio.wait(pending)
            self._pending = ()
        raise _not_connected(host, port, error) from error

    async def _dial(self, family: int, address: Any) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await self._loop.sock_connect(sock, address)
            _tune(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def get_buffer(self, size_hint: int) -> memoryview:  # noqa: ARG002
        return _read_buffer.view

    def buffer_updated(self, size: int) -> None:
        self._silent_since = 0.0
        self._received.append(bytes(_read_buffer.view[:size]))
        self._size += size
        if self._size > MAX_BUFFERED:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return True  # close() closes, not asyncio

    def connection_lost(self, error: BaseException | None) -> None:
        self._ended, self._error = True, error
        self.gone.set_result(None)
        self._wake()

    def pause_writing(self) -> None: ...

    resume_writing = pause_writing

    async def send(self, data: bytes, left: _Left, stoppable: bool = False) -> int:  # noqa: ARG002 - it never waits
        if self.closed or self._transport.is_closing():
            raise HttpConnectionError("the connection was closed")
        self._transport.write(data)
        return len(data)

    async def recv(self, left: _Left) -> bytes:
        if not (self._received or self._ended or self.closed):
            seconds = left()
            if self._waiter is not None:
                raise RuntimeError("two tasks read from one connection")
            self._waiter = self._loop.create_future()
            timer = None
            if seconds is not None:
                self._silent_since = self._silent_since or self._loop.time()  # perhaps of a wait that was cancelled
                timer = self._loop.call_at(self._silent_since + seconds, self._wake, seconds)
            try:
                await self._waiter
            except HttpTimeoutError:
                left()  # which tells what was to be done by now, if it was not only silence
                raise
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        if self.closed:
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
        self.closed = True
        for attempt in self._pending:
            attempt.cancel()
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()
        self._wake()

    @property
    def alive(self) -> bool:
        """Whether an idle connection is still good: open, in this loop, and nothing has come on it."""
        import asyncio

        if self.closed or self._ended or self._received or self._loop is not asyncio.get_running_loop():
            return False
        return not _is_ready(self._transport.get_extra_info("socket"), 0.0)  # the loop may not have looked yet

    def _wake(self, silence: float | None = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            if silence is None:
                self._waiter.set_result(None)
            else:
                self._waiter.set_exception(HttpTimeoutError(f"no data for {silence:.3g} s"))


@cache
def _as_protocol() -> type[_AsyncConnection]:
    import asyncio

    return type("_AsyncProtocol", (_AsyncConnection, asyncio.BufferedProtocol), {})


def _close_result(attempt: asyncio.Future[Any]) -> None:
    """Close what an attempt has connected that nobody waits for any more."""
    result = None if attempt.cancelled() else attempt.exception() or attempt.result()
    if isinstance(result, socket.socket):
        result.close()


class AsyncResponse(_BaseResponse):
    """The twin of `Response` for asyncio: `aread`, `aiter_bytes`, `aiter_lines`, `aclose`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Dropped, perhaps by a cancellation: the event loop would keep the connection open.
        if self._connection is not None:
            with suppress(RuntimeError):  # the loop has been closed
                self._connection._loop.call_soon_threadsafe(self._connection.close)

    def abort(self) -> None:
        """Give up what has not been read, without waiting; whoever reads it gets `HttpConnectionError`."""
        self._drop()

    async def aclose(self) -> None:
        """Give up what has not been read, and wait until the connection is closed."""
        connection = self._connection
        self._drop()
        if connection is not None and connection.closed:
            import asyncio

            await asyncio.wait({connection.gone})

    async def aread(self) -> bytes:
        """Return the whole body, or what no iterator has taken; raise `HttpProtocolError` at 64 MiB."""
        return await self._read()

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives: each step gives what is there, as soon as anything is.

        A step that is cancelled loses nothing: the next one goes on.
        """
        return _AsyncItems(self, lines=False)

    def aiter_lines(self) -> AsyncIterator[str]:
        """Iterate over the body's lines, without their ends: LF, CR and CRLF, and nothing else.

        A step that is cancelled loses nothing: the next one goes on.
        """
        return _AsyncItems(self, lines=True)


class _AsyncItems(_Items):
    """Its `aclose()` is that of the response."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return self._pop()
        except IndexError:
            pass
        item = await self.resume()
        if item is None:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        await self._response.aclose()


class AsyncTransport(_BaseTransport):
    """The twin of `Transport` for asyncio: `await transport(request, timeout)` gives an `AsyncResponse`."""

    _response_class = AsyncResponse

    @property
    def _connection_class(self) -> type[_AsyncConnection]:
        return _as_protocol()

    async def __call__(self, request: Any, timeout: Timeout = 30.0) -> AsyncResponse:
        """Send a request; `timeout` as in `request()`."""
        return await self._open(request, timeout)  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """As `close`, and wait until they are closed."""
        import asyncio

        closing = [connection.gone for connection in (*self._idle, *self._busy) if connection.route is not None]
        self.close()
        await asyncio.wait(closing) if closing else await asyncio.sleep(0)


# === 8. Functions ====================================================================================================
#
# One request, one connection. Whoever sends many to the same origin keeps a `Transport`.

if TYPE_CHECKING:

    class _Options(TypedDict, total=False):
        headers: Mapping[str, str] | None
        params: Mapping[str, Any] | None
        json: Any
        body: bytes | str | None
        timeout: Timeout
        verify: bool | ssl.SSLContext
        proxy: str | bool | None
        stream: bool
        read_timeout: float | None


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
    checked = _make_request(method, url, headers, body, json, params)
    return _run(_fetch(Transport(verify, proxy), checked, timeout, stream, read_timeout))  # type: ignore[no-any-return]


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
    checked = _make_request(method, url, headers, body, json, params)
    return await _fetch(AsyncTransport(verify, proxy), checked, timeout, stream, read_timeout)  # type: ignore[no-any-return]


def get(url: str, **options: Unpack[_Options]) -> Response:
    """`request("GET", url, ...)`."""
    return request("GET", url, **options)


def post(url: str, **options: Unpack[_Options]) -> Response:
    """`request("POST", url, ...)`."""
    return request("POST", url, **options)


async def async_get(url: str, **options: Unpack[_Options]) -> AsyncResponse:
    """`async_request("GET", url, ...)`."""
    return await async_request("GET", url, **options)


async def async_post(url: str, **options: Unpack[_Options]) -> AsyncResponse:
    """`async_request("POST", url, ...)`."""
    return await async_request("POST", url, **options)


async def _fetch(
    transport: _BaseTransport, request: _Request, timeout: Timeout, stream: bool, read_timeout: float | None
) -> Any:
    _check_seconds("read_timeout", read_timeout)
    transport._one_request = True
    response = await transport._open(request, timeout)
    response.read_timeout = read_timeout
    if not stream:
        if read_timeout is None:
            response.read_timeout = timeout[1] if isinstance(timeout, tuple) else timeout
        try:
            await response._read()
        finally:
            response._drop()
    return response
