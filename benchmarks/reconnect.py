"""Reconnecting: the server ends the answer after every 100, 10 or 1 events; client CPU per event, plain and TLS.

Clients ask at once (`retry: 0`) for what follows their last event ID; events that are missing or come twice show in
the count. "close": each answer closes its connection; "keep": the next request may use it again. The httpx clients do
not reconnect by themselves: theirs is the usual loop, in one client, which keeps the TLS context and the connections.
"""

from __future__ import annotations

from clients import ASYNC, BLOCKING, RECONNECTING
from common import Contestant, Report, arguments, compare
from servers import own_server
from workers import Workers, read

TOTALS = {100: 20_000, 10: 3_000, 1: 300}


def contestant(workers: Workers, name: str, url: str, ca: str, events: int) -> Contestant:
    def run() -> tuple[float, int]:
        seconds, count, last, _ = workers.run(read, name, url, ca, events, reconnect=True)
        if last != str(events):
            raise ValueError(f"event {count} is {last[:20]!r}")
        return seconds / events * 1e6, count

    return run


def main() -> None:
    options = arguments(__doc__, rounds=3)
    report = Report("reconnect", options)
    with Workers() as workers, own_server() as server:
        for end in ("close", "keep"):
            for tls in (False, True):
                for each, total in TOTALS.items():
                    events = max(total // 20, 2 * each) if options.quick else total
                    url = server.url(f"/resume/{each}/{events + each}/{end}", tls)
                    for kind, clients in (("sync", BLOCKING), ("async", ASYNC)):
                        names = [name for name in RECONNECTING if name in clients]
                        runs = {name: contestant(workers, name, url, server.ca, events) for name in names}
                        rows = compare(runs, events, options.rounds)
                        group = f"reconnect, {kind}, {end}{', TLS' if tls else ''}"
                        report.cell(group, f"after {each} event{'s' * (each > 1)}", "µs/event", rows)
    report.finish()


if __name__ == "__main__":
    main()
