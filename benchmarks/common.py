"""What the benchmark programs share: options, fair rounds, figures with their targets, tables, JSON."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the sse.py of this checkout, not an installed one
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or processes that we start would spend their time compiling

OURS = "sse"
OURS_ASYNC = "sse async"
ANCHORS = ("eventsource-parser", "split only", "split and build events")  # shown beside, never compared
PACKAGES = (
    *(
        "httpx-sse",
        "httpx",
        "httpx2",
        "launchdarkly-eventsource",
        "urllib3",
        "sseclient-py",
        "requests-sse",
        "requests",
    ),
    *("aiohttp-sse-client2", "aiohttp", "niquests", "openai", "larzsse", "axio-sse"),
)

Contestant = Callable[[], tuple[float, int]]
"""Runs once; returns what it cost, and the number of events that it saw."""


def arguments(description: str | None, rounds: int, quick: int = 1) -> argparse.Namespace:
    """The options that every program has."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run of some seconds: the figures mean nothing")
    parser.add_argument("--rounds", type=int, help=f"measurements of each contestant (default {rounds})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # servers are stopped on the way out
    options.rounds = options.rounds or (quick if options.quick else rounds)
    return options


def machine() -> dict[str, Any]:
    """Where and with what the figures were measured."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    import sse

    versions = {"sse": sse.__version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "system": f"{platform.system()}, {cpu}, {os.cpu_count()} cores",
        "versions": versions,
    }


def rotated(names: Sequence[str], rounds: int) -> list[list[str]]:
    """An order of all names for each round: everyone is first, last and after everyone else about equally often."""
    return [[*names[i % len(names) :], *names[: i % len(names)]] for i in range(rounds)]


def compare(contestants: dict[str, Contestant], expected: int, rounds: int) -> list[dict[str, Any]]:
    """Measure all contestants in turn, so that a noisy minute hits everyone; one row with the median for each.

    Before the first round each runs once unmeasured. Whoever fails or finds another number of events in any run says
    so in its row, and takes no part in the comparison.
    """
    values: dict[str, list[float]] = {name: [] for name in contestants}
    wrong = dict.fromkeys(contestants, "")
    for i, order in enumerate(rotated(list(contestants), rounds + 1)):
        for name in order:
            if wrong[name].startswith("fails"):
                continue
            try:
                value, count = contestants[name]()
            except Exception as error:
                wrong[name] = failure(error)
                values[name].clear()
                continue
            if count != expected:
                wrong[name] = f"{count} of {expected} events"
            if i:
                values[name].append(value)
    return [row(name, values[name], wrong[name]) for name in contestants]


def failure(error: Exception) -> str:
    """What a contestant's row says of it."""
    return f"fails: {type(error).__name__}: {' '.join(str(error).split())[:80]}"


def best_peer(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The cheapest other Python library with the right number of events."""
    peers = [r for r in rows if not r["name"].startswith(OURS) and r["name"] not in ANCHORS and not r["wrong"]]
    return min(peers, key=lambda row: row["value"], default=None)


def row(name: str, values: Sequence[float], wrong: str = "") -> dict[str, Any]:
    """A contestant's line in a table."""
    low, high = (min(values), max(values)) if values else (None, None)
    return {
        "name": name,
        "value": statistics.median(values) if values else None,
        "low": low,
        "high": high,
        "wrong": wrong,
    }


def value_of(rows: list[dict[str, Any]], name: str) -> float:
    """What a contestant cost; infinite if it failed."""
    return next((row["value"] for row in rows if row["name"] == name and row["value"] is not None), float("inf"))


class Report:
    """The results of one program: cells with a row for each contestant, and figures that have a target."""

    def __init__(self, program: str, options: argparse.Namespace) -> None:
        self.program, self.options = program, options
        self.cells: list[dict[str, Any]] = []
        self.targets: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._begin = time.monotonic()
        self.machine = machine()
        print(f"{program}: Python {self.machine['python']}, {self.machine['system']}, {options.rounds} rounds")
        print(", ".join(f"{name} {version}" for name, version in self.machine["versions"].items()))

    def cell(self, group: str, name: str, unit: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Add and print one comparison."""
        best = best_peer(rows)
        ours = next((row for row in rows if row["name"].startswith(OURS) and row["value"] is not None), None)
        ratio = ours["value"] / best["value"] if ours and best and best["value"] else None
        cell = {"group": group, "name": name, "unit": unit, "rows": rows, "best": best and best["name"], "ratio": ratio}
        self.cells.append(cell)
        print(
            f"\n{group}: {name}"
            + (f" ({unit})" if unit else "")
            + (f", {ratio:.2f}x of {best['name']}" if ratio and best else "")
        )
        for row in sorted(rows, key=lambda row: (row["value"] is None, row["value"])):
            if row["value"] is None:
                print(f"  {row['name']:28}{'-':>10}  {row['wrong']}")
            else:
                spread = f"{number(row['low'])}..{number(row['high'])}"
                print(f"  {row['name']:28}{number(row['value']):>10}  {spread:22}{row['wrong']}")
        sys.stdout.flush()
        return cell

    def target(self, figure: str, value: float | None, target: str) -> None:
        """Add a figure and its target, such as `"<= 0.35"`, of PERFORMANCE.md."""
        sign, limit = target.split()
        met = value is not None and (value <= float(limit) if sign == "<=" else value >= float(limit))
        self.targets.append({"figure": figure, "value": value, "target": target, "met": met})

    def finish(self) -> None:
        """Print the figures with their targets, write the JSON."""
        print(f"\n{'figure':58}{'reached':>10}  target")
        for t in self.targets:
            value = "-" if t["value"] is None else number(t["value"])
            print(f"{t['figure']:58}{value:>10}  {t['target']:10}{'' if t['met'] else 'MISSED'}")
        print(*self.notes, sep="\n")
        seconds = time.monotonic() - self._begin
        print(f"{self.program}: {seconds:.0f} s")
        if self.options.json:
            parts = ("machine", "cells", "targets", "notes")
            result = {part: getattr(self, part) for part in parts} | {"rounds": self.options.rounds, "seconds": seconds}
            self.options.json.write_text(json.dumps(result, indent=1) + "\n")


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
