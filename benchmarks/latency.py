"""Delivery: from the server's clock to the consumer's hand, at 200 and at 5000 events a second.

Each event's data is the time when the server wrote it; both processes read the same monotonic clock. The figures
contain the server's and the kernel's part, which is the same for all.
"""

from __future__ import annotations

from statistics import quantiles
from typing import Any

from clients import ASYNC, BLOCKING
from common import Report, arguments, failure, rotated, row
from servers import own_server
from workers import Workers, read

SECONDS = {200: 3, 5000: 1}


def main() -> None:
    options = arguments(__doc__, rounds=3)
    report = Report("latency", options)
    with Workers() as workers, own_server() as server:
        for rate, seconds in SECONDS.items():
            for kind, clients in (("sync", BLOCKING), ("async", ASYNC)):
                names = [name for name in clients if name != "openai"]  # the events are not its JSON
                events = rate // 5 if options.quick else rate * seconds
                url = server.url(f"/paced/{rate}/{events}")
                found: dict[str, Any] = {name: {"wrong": "", "p50": [], "p99": []} for name in names}
                for order in rotated(names, options.rounds):
                    for name in order:
                        measure(workers, name, found[name], url, server.ca, events)
                for part in ("p50", "p99"):
                    table = [row(name, got[part], got["wrong"]) for name, got in found.items()]
                    report.cell(f"latency, {kind}", f"{rate} events/s, {part}", "µs", table)
    report.finish()


def measure(workers: Workers, name: str, got: dict[str, Any], url: str, ca: str, events: int) -> None:
    try:
        reading = workers.run(read, name, url, ca, events + 1, timed=True, limit_s=30)
    except Exception as error:
        got["wrong"] = failure(error)
        return
    if reading.count != events + 1 or len(reading.latencies) != events:
        got["wrong"] = f"{reading.count} of {events + 1} events"
        return
    cuts = quantiles(reading.latencies, n=100)
    got["p50"].append(cuts[49] / 1000)
    got["p99"].append(cuts[98] / 1000)


if __name__ == "__main__":
    main()
