"""Write the tables of docs/benchmarks.md, between its markers, from the JSON in benchmarks/results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
MARKED = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def load() -> dict[str, dict[str, Any]]:
    """The results of each Python, the newest first."""
    files = sorted((HERE / "results").glob("py*.json"), reverse=True)
    return {file.stem: json.loads(file.read_text()) for file in files}


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] + ["--:"] * (len(head) - 1), *rows)]


def setting(results: dict[str, dict[str, Any]]) -> list[str]:
    """Machine, Pythons and versions."""
    machines = [next(iter(result.values()))["machine"] for result in results.values()]
    pythons = " and ".join(f"Python {machine['python']}" for machine in machines)
    versions = [f"{name} {v}" for name, v in machines[0]["versions"].items() if v != "not installed"]
    minutes = sum(part["seconds"] for part in results[next(iter(results))].values()) / 60
    return [
        f"Measured on {machines[0]['date']} with {pythons}; {machines[0]['system']}; {minutes:.0f} minutes for each.",
        "",
        f"Versions: {', '.join(versions)}.",
    ]


def targets(results: dict[str, dict[str, Any]]) -> list[str]:
    """Every figure that has a target; bold where it is missed."""
    found: dict[str, dict[str, Any]] = {}
    for python, programs in results.items():
        for program in programs.values():
            for target in program["targets"]:
                found.setdefault(target["figure"], {})[python] = target
    rows = []
    for figure, by_python in found.items():
        marks = [by_python.get(python, {"value": None, "met": True}) for python in results]
        cells = [number(t["value"]) if t["met"] else f"**{number(t['value'])}**" for t in marks]
        sign, limit = next(iter(by_python.values()))["target"].split()
        rows.append([figure, *cells, f"{'at least' if sign == '>=' else 'at most'} {limit}"])
    return table(["figure", *[f"3.{python[3:]}" for python in results], "target"], rows)


def groups(program: dict[str, Any]) -> list[str]:
    """A table for each group of comparisons: a row for each client, a column for each of its cells."""
    lines = []
    names = list(dict.fromkeys(cell["group"] for cell in program["cells"]))
    for group in names:
        cells = [cell for cell in program["cells"] if cell["group"] == group]
        values: dict[str, list[Any]] = {}
        wrong: dict[str, str] = {}
        for i, cell in enumerate(cells):
            for row in cell["rows"]:
                values.setdefault(row["name"], [None] * len(cells))[i] = row["value"]
                if row["wrong"]:
                    wrong[row["name"]] = row["wrong"]
        rows = []
        for name in sorted(values, key=lambda name: [(v is None, v) for v in values[name]]):
            ours = "**" if name.startswith("sse") and not name.startswith("sseclient") else ""
            mark = "¹" if name in wrong else ""
            rows.append([f"{ours}{name}{ours}{mark}", *[number(value) for value in values[name]]])
        units = {cell["unit"] for cell in cells}
        unit = f", {units.pop()}" if len(units) == 1 else ""
        heads = [cell["name"] if unit or not cell["unit"] else f"{cell['name']}, {cell['unit']}" for cell in cells]
        lines += [f"{group[0].upper()}{group[1:]}{unit}:", "", *table(["", *heads], rows), ""]
        if wrong:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in wrong.items())
            lines += [f"¹ Not compared: {reasons}.".replace("..", "."), ""]
    return lines[:-1]


def main() -> None:
    results = load()
    newest = results[next(iter(results))]
    parts = {"setting": setting(results), "targets": targets(results)}
    for name, program in newest.items():
        parts[name] = groups(program) + [""] * bool(program["notes"]) + [f"* {note}" for note in program["notes"]]

    def fill(match: re.Match[str]) -> str:
        text = "\n".join(parts.get(match[2], ["not measured"]))
        return f"{match[1]}\n{text}\n\n{match[3]}"

    PAGE.write_text(MARKED.sub(fill, PAGE.read_text()))


if __name__ == "__main__":
    main()
