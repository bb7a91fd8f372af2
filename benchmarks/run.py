"""Run every benchmark with this Python, then write the tables and plots of docs/benchmarks.md.

python benchmarks/run.py            about 20 minutes; results go to benchmarks/results/py313.json or so
python benchmarks/run.py --quick    a smoke run of about a minute, which leaves the docs alone
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = ("parse", "end_to_end", "footprint", "latency", "reconnect")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, help="of each program; by default each has its own number")
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=PROGRAMS, help="keep the other results")
    options = parser.parse_args()
    begin = time.monotonic()
    file = HERE / "results" / f"py{sys.version_info.major}{sys.version_info.minor}.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for program in options.only:
            output = Path(folder, program)
            command = [sys.executable, HERE / f"{program}.py", "--json", output, *["--quick"] * options.quick]
            if options.rounds:
                command += ["--rounds", str(options.rounds)]
            subprocess.run(command, check=True)
            results[program] = json.loads(output.read_text())
            if not options.quick:
                file.parent.mkdir(exist_ok=True)
                file.write_text(json.dumps(results, indent=1) + "\n")
    if not options.quick:
        for program in ("page", "plots"):
            subprocess.run([sys.executable, HERE / f"{program}.py"], check=True)
    missed = [t["figure"] for program in PROGRAMS for t in results.get(program, {}).get("targets", ()) if not t["met"]]
    print(f"\n{time.monotonic() - begin:.0f} s", *[f"missed: {figure}" for figure in missed], sep="\n")


if __name__ == "__main__":
    main()
