"""From the socket to the event: client CPU per event, the server in its own process, plain and TLS.

Three servers: a static file from nginx, one event an HTTP chunk (as LLM APIs stream), and chunks of 64 KiB. The
events are those of an OpenAI-like API. The openai SDK also decodes the JSON into objects, which nobody else does.
"""

from __future__ import annotations

import streams
from clients import ASYNC, BLOCKING
from common import Contestant, Report, arguments, compare
from servers import LAST, Urls, nginx, own_server
from workers import Workers, read

TARGETS = {
    ("chunked", False): ("<= 0.35", "<= 0.55"),
    ("large", False): ("<= 0.80", "<= 0.65"),
    ("file", False): ("<= 0.80", "<= 0.65"),
    ("chunked", True): ("<= 0.6", "<= 0.5"),
    ("large", True): ("<= 0.6", "<= 0.5"),
    ("file", True): ("<= 0.6", "<= 0.5"),
}
TITLES = {"chunked": "one event an HTTP chunk", "large": "64 KiB chunks", "file": "static file, nginx"}


def contestant(workers: Workers, name: str, url: str, ca: str, events: int) -> Contestant:
    most = events if name in ("requests-sse", "aiohttp-sse-client2") else events + 1  # they never end
    if name == "openai":
        most, events = events + 1, events - 1  # it keeps the last one to itself

    def run() -> tuple[float, int]:
        seconds, count, last, _ = workers.run(read, name, url, ca, most)
        if count == events and name != "openai" and last != "[DONE]":
            raise ValueError(f"the last event is {last[:30]!r}")
        return seconds / events * 1e6, count + (name == "openai")

    return run


def main() -> None:
    options = arguments(__doc__, rounds=5)
    report = Report("end_to_end", options)
    events = 2000 if options.quick else 40_000
    blocks = [*streams.make("llm", events=events - 1).blocks, LAST]
    with Workers() as workers, own_server() as own, nginx({"file": b"".join(blocks)}) as static:
        if isinstance(static, str):
            report.notes.append(f"static file left out: {static}")
        for tls in (False, True):
            for shape, title in TITLES.items():
                if shape == "file" and isinstance(static, str):
                    continue
                where: Urls = static if shape == "file" and not isinstance(static, str) else own
                url = where.url("/file" if shape == "file" else f"/{shape}/llm/{events}", tls)
                for kind, (clients, target) in enumerate(zip((BLOCKING, ASYNC), TARGETS[shape, tls])):
                    runs = {}
                    for name in clients:
                        if name == "openai" and shape == "file":  # its path is appended: nginx has no such file
                            continue
                        runs[name] = contestant(workers, name, url, where.ca, events)
                    group = f"end to end, {'async' if kind else 'sync'}{', TLS' if tls else ''}"
                    cell = report.cell(group, title, "µs/event", compare(runs, events, options.rounds))
                    report.target(f"{group}: {title}", cell["ratio"], target)
    report.finish()


if __name__ == "__main__":
    main()
