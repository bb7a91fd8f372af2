"""What the soak tells: its figures, what is wrong with them, a drawing of its samples."""

from __future__ import annotations

import os
import platform
import resource
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import sse

if TYPE_CHECKING:
    from soak import Sample, Stream

STUCK = 60.0  # s without an event after which a stream counts as hanging
WARM = 10.0  # minutes that a run must take for growth to be judged: allocators, buffers and caches fill up at first
GROWTH = {"rss": 1.05, "fds": 1.25, "threads": 1.25, "tasks": 1.25}
"""The most that there may be in the last quarter of the run, to what was in the second. How many streams are just being
opened depends on how busy the machine is; and what leaks is also left at the end."""


def total(streams: list[Stream], name: str) -> int:
    return sum(getattr(stream, name) for stream in streams)


def describe(streams: list[Stream], now: Sample) -> str:
    counts = " ".join([f"{total(streams, name)} {name}" for name in ("lost", "doubled", "wrong")])
    return (
        f"{total(streams, 'events'):,} events, {sum(streams[0].causes.values()):,} reconnects, {counts}; "
        f"{now.rss:.1f} MiB, {now.fds} fds, {now.threads} threads, {now.tasks} tasks; "
        f"longest silence {max(stream.silent for stream in streams):.1f} s"
    )


def quarter(samples: list[Sample], which: int, name: str) -> float:
    """The median of a quarter of the run; the first one is warming up."""
    part = samples[1:-1]
    return statistics.median(
        getattr(s, name) for s in part[which * len(part) // 4 : (which + 1) * len(part) // 4 or None]
    )


def failures(streams: list[Stream], samples: list[Sample]) -> Iterator[str]:
    """What shows in the accounts and in the samples that must not."""
    for name in ("lost", "doubled", "wrong"):
        if total(streams, name):
            yield f"{total(streams, name)} events {name}"
    for stream in streams:
        if stream.error is not None:
            yield f"stream {stream.number} ended with {stream.error!r}"
        if max(stream.longest, stream.silent) > STUCK:
            yield f"stream {stream.number} was silent for {max(stream.longest, stream.silent):.0f} s"
    for name, growth in GROWTH.items() if samples[-2].minutes >= WARM else ():
        early, late = quarter(samples, 1, name), quarter(samples, 3, name)
        if late > growth * early + 1:
            yield f"{name} not flat: {early:.1f} in the second quarter, {late:.1f} in the last"


def figures(streams: list[Stream], samples: list[Sample], failed: list[str]) -> str:
    """As a Markdown table."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    reconnects = sum(streams[0].causes.values())
    blocking = sum(stream.blocking for stream in streams)
    causes = ", ".join([f"{number:,} {cause}" for cause, number in streams[0].causes.most_common()])
    rows = {
        "minutes": f"{samples[-2].minutes:.1f}",
        "streams": f"{blocking} blocking (a thread each), {len(streams) - blocking} asyncio",
        "events received": f"{total(streams, 'events'):,}",
        "reconnects": f"{reconnects:,} ({causes})",
        "clients closed and resumed by a new one": f"{total(streams, 'clients') - len(streams):,}",
        "events lost / doubled / with wrong data": " / ".join(
            [str(total(streams, name)) for name in ("lost", "doubled", "wrong")]
        ),
        "longest silence of any stream": f"{max(stream.longest for stream in streams):.1f} s",
        "CPU time of the client process": f"{usage.ru_utime + usage.ru_stime:.0f} s",
    }
    names = {"rss": "memory (RSS), MiB", "fds": "file descriptors", "threads": "threads", "tasks": "tasks"}
    for name, label in names.items():
        values = [f"{getattr(samples[0], name):.4g}", *[f"{quarter(samples, q, name):.4g}" for q in range(4)]]
        rows[f"{label}: before; median of each quarter; after"] = (
            f"{values[0]}; {' / '.join(values[1:])}; {getattr(samples[-1], name):.4g}"
        )
    flat = "memory flat" if samples[-2].minutes >= WARM else "too short to tell whether memory is flat"
    rows["result"] = "; ".join(failed) or f"nothing lost, doubled, stuck or left behind; {flat}"
    where = f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} CPUs, sse {sse.__version__}"
    return f"| {where} | |\n| --- | --- |\n" + "".join([f"| {name} | {value} |\n" for name, value in rows.items()])


def draw(samples: list[Sample], path: Path) -> None:
    """Two curves over time, in colours that do on light and on dark."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    grey = "#808080"
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "soak", "font.size": 9, "text.color": grey})
    mpl.rcParams.update({f"{axis}.{part}": grey for axis in ("xtick", "ytick") for part in ("color", "labelcolor")})
    mpl.rcParams.update({"axes.edgecolor": grey, "axes.labelcolor": grey, "grid.color": grey, "grid.alpha": 0.25})
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    during = samples[1:-1]
    minutes = [sample.minutes for sample in during]
    upper.plot(minutes, [sample.rss for sample in during], color="#3b8eea")
    upper.set_ylabel("memory (RSS), MiB")
    for name, label, colour in (
        ("fds", "file descriptors", "#e5793b"),
        ("tasks", "tasks", "#2fa36b"),
        ("threads", "threads", "#b46ad6"),
    ):
        lower.plot(minutes, [getattr(sample, name) for sample in during], color=colour, label=label)
    lower.legend(frameon=False, ncols=3, loc="center", bbox_to_anchor=(0.5, 0.35))
    lower.set_xlabel("minutes")
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        axes.grid(True)
        axes.patch.set_alpha(0)
    figure.savefig(path, transparent=True, metadata={"Date": None})


def write_docs(text: str, page: Path) -> None:
    """Put `text` between the markers of the page."""
    before, begin, rest = page.read_text(encoding="utf-8").partition("<!-- soak: begin -->\n")
    _, end, after = rest.partition("<!-- soak: end -->")
    page.write_text(before + begin + text + end + after, encoding="utf-8")
