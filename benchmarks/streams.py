"""The workloads: eight seeded kinds of stream, each block with the data of its event known beforehand."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import NamedTuple

Block = tuple[str, "str | None"]  # its text; the data of its event, None for a comment
WORDS = ("the", "stream", "answers", " with", "token", "\n", "a", "forty-two", "data", "of", "Python", "and", "then")
LETTERS = "äßéñ→日本語中文кириллица😀🐈"


class Workload(NamedTuple):
    name: str
    blocks: list[bytes]  # each with its blank line
    data: list[str]  # of the events, in order

    @property
    def stream(self) -> bytes:
        return b"".join(self.blocks)


def _openai(rng: random.Random, _: int) -> Block:
    chunk = {
        "id": "chatcmpl-7xYz12AbCdEfGh",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "gpt-x",
    }
    delta = {"index": 0, "delta": {"content": rng.choice(WORDS)}, "logprobs": None, "finish_reason": None}
    data = json.dumps(chunk | {"model": "gpt-x", "choices": [delta]}, separators=(",", ":"))
    return f"data: {data}\n\n", data


def _anthropic(rng: random.Random, _: int) -> Block:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": rng.choice(WORDS)}}
    data = json.dumps(delta)
    return f"event: content_block_delta\ndata: {data}\n\n", data


def _ticker(rng: random.Random, i: int) -> Block:
    data = f'{{"symbol":"ABC","price":{rng.randint(10000, 99999) / 100},"n":{i}}}'
    return f"id: {i + 1}\nevent: tick\ndata: {data}\n\n", data


def _multiline(rng: random.Random, i: int) -> Block:
    lines = [f"line {j} of event {i} {rng.choice(WORDS).strip() * 3}" for j in range(rng.randint(4, 9))]
    return "".join(f"data: {line}\n" for line in lines) + "\n", "\n".join(lines)


def _big(_: random.Random, i: int) -> Block:
    data = f"{i:08d}" * (65536 // 8)
    return f"data: {data}\n\n", data


def _pings(rng: random.Random, i: int) -> Block:
    return (": ping\n\n", None) if rng.random() < 0.9 else (f'data: {{"n": {i}}}\n\n', f'{{"n": {i}}}')


def _unicode(rng: random.Random, i: int) -> Block:
    data = f'{{"n":{i},"text":"{"".join(rng.choices(LETTERS, k=40))}"}}'
    return f"data: {data}\n\n", data


def _crlf(rng: random.Random, i: int) -> Block:
    text, data = _ticker(rng, i)
    return text.replace("\n", "\r\n"), data


_KINDS: dict[str, Callable[[random.Random, int], Block]] = {
    "llm": _openai,
    "anthropic": _anthropic,
    "ticker": _ticker,
    "multiline": _multiline,
    "big": _big,
    "pings": _pings,
    "unicode": _unicode,
    "crlf": _crlf,
}
NAMES = tuple(_KINDS)


def make(name: str, *, size: int = 0, events: int = 0) -> Workload:
    """Blocks of one kind until there are `size` bytes, or `events` events."""
    rng, make_block = random.Random(name), _KINDS[name]
    blocks: list[bytes] = []
    data: list[str] = []
    length = 0
    while length < size or len(data) < events:
        text, its_data = make_block(rng, len(blocks))
        blocks.append(text.encode())
        length += len(blocks[-1])
        if its_data is not None:
            data.append(its_data)
    return Workload(name, blocks, data)
