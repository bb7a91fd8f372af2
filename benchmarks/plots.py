"""Draw docs/plots/*.svg from the newest JSON in benchmarks/results, for light and for dark backgrounds."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
from page import load

mpl.use("svg")
from matplotlib import pyplot as plt

PLOTS = Path(__file__).resolve().parent.parent / "docs" / "plots"
INK, OURS, THEIRS, ANCHOR = "#7d8590", "#e8710a", "#4c8dd6", "#8a8f98"  # readable on white and on black
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sse",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
Series = dict[str, dict[str, float]]  # label of the bars, name of the client, value


def is_ours(name: str) -> bool:
    return name in ("sse", "sse async")


def bars(axes: Any, title: str, unit: str, series: Series) -> None:
    """Clients from top to bottom, the best first, a bar for each series; the first one in full colour."""
    first = next(iter(series.values()))
    names = sorted(first, key=lambda name: first[name], reverse=True)
    height = 0.8 / len(series)
    for i, (label, values) in enumerate(series.items()):
        at = [n + (len(series) - 1 - 2 * i) * height / 2 for n in range(len(names))]
        colors = [OURS if is_ours(n) else ANCHOR if n == "eventsource-parser" else THEIRS for n in names]
        widths = [values.get(name, 0) for name in names]
        drawn = axes.barh(at, widths, height * 0.92, color=colors, alpha=(1, 0.65, 0.4)[i], label=label)
        texts = [f" {width:.3g}" if width else "" for width in widths]
        axes.bar_label(drawn, texts, color=INK, fontsize=7)
    axes.set_yticks(range(len(names)), names)
    axes.set_title(f"{title}, {unit}", loc="left")
    axes.margins(x=0.12)
    if len(series) > 1:
        axes.legend(frameon=False, labelcolor=INK, loc="upper right", fontsize=8)


def values(program: dict[str, Any], group: str, name: str) -> dict[str, float]:
    """What each client cost in one comparison; those that were not compared are left out."""
    rows = [row for c in program["cells"] if (c["group"], c["name"]) == (group, name) for row in c["rows"]]
    return {row["name"]: row["value"] for row in rows if row["value"] is not None and not row["wrong"]}


def parse_means(program: dict[str, Any], group: str) -> dict[str, float]:
    """Geometric means over the streams of those clients that get all of them right."""
    cells = [values(program, c["group"], c["name"]) for c in program["cells"] if c["group"] == group]
    names = [name for name in cells[0] if all(name in cell for cell in cells) and not name.startswith("split")]
    return {name: statistics.geometric_mean([cell[name] for cell in cells]) / 1000 for name in names}


def save(name: str, panels: list[tuple[str, str, Series]]) -> None:
    tallest = max(len(next(iter(series.values()))) * len(series) for _, _, series in panels)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.6 * len(panels), 0.8 + 0.19 * max(tallest, 8)), squeeze=False
    )
    for panel, (title, unit, series) in zip(axes[0], panels):
        bars(panel, title, unit, series)
    figure.tight_layout()
    PLOTS.mkdir(exist_ok=True)
    figure.savefig(PLOTS / f"{name}.svg", transparent=True, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    plt.rcParams.update(STYLE)
    python, results = next(iter(load().items()))
    version = f"Python 3.{python[3:]}"
    parse, end_to_end, footprint = results["parse"], results["end_to_end"], results["footprint"]
    slices = {kind: parse_means(parse, f"parse, {kind} slices") for kind in ("64 KiB", "one event")}
    panels = [(f"Parsing, slices of {kind}", "µs/event", {kind: means}) for kind, means in slices.items()]
    save("parse", panels)
    panels = []
    for kind in ("sync", "async"):
        shapes = ("one event an HTTP chunk", "64 KiB chunks")
        series = {shape: values(end_to_end, f"end to end, {kind}", shape) for shape in shapes}
        for clients in series.values():
            clients.pop("openai", None)  # it decodes the JSON, too
        panels.append((f"End to end, {kind}, {version}", "µs CPU/event", series))
    save("end_to_end", panels)
    idle = "idle async streams"
    sizes = [size for size in ("1000", "5000") if values(footprint, idle, f"{size}, memory of each")]
    save(
        "footprint",
        [
            ("Import", "ms CPU", {"": drop(values(footprint, "import", "CPU"), "openai")}),
            ("Idle async stream", "kB", {f"of {n}": values(footprint, idle, f"{n}, memory of each") for n in sizes}),
        ],
    )
    panels = []
    for kind in ("sync", "async"):
        series = {p: values(results["latency"], f"latency, {kind}", f"5000 events/s, {p}") for p in ("p50", "p99")}
        panels.append((f"Delivery at 5000 events/s, {kind}", "µs", series))
    save("latency", panels)
    panels = []
    for kind in ("sync", "async"):
        both = {"plain": f"reconnect, {kind}, close", "TLS": f"reconnect, {kind}, close, TLS"}
        series = {label: values(results["reconnect"], group, "after 1 event") for label, group in both.items()}
        panels.append((f"A reconnect, {kind}", "µs CPU", series))
    save("reconnect", panels)


def drop(clients: dict[str, float], name: str) -> dict[str, float]:
    return {key: value for key, value in clients.items() if key != name}


if __name__ == "__main__":
    main()
