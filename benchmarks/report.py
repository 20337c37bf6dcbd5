"""``holdfast report`` over a study of 1,000 runs: seconds and size of the page. Targets: under 20 s, under 15 MB.

The study is synthetic, in the form of ``holdfast study run``: 21 distinct trainings at four learning rates with twelve
seeds (1,008 trials), each with a learning curve of its own. The report runs in a process of its own, start-up included.

    python benchmarks/report.py [--quick] [--json out.json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from report_runs import make_study

SECONDS, BYTES = 20.0, 15e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, 126 trials")
    parser.add_argument("--json", help="write the results here")
    arguments = parser.parse_args()
    rates, seeds, rounds = ([1e-4, 1e-3], 3, 1) if arguments.quick else ([1e-4, 3e-4, 1e-3, 3e-3], 12, 3)
    with tempfile.TemporaryDirectory() as folder:
        study = make_study(Path(folder) / "study", seeds=seeds, rates=rates, curve=60)
        runs = [make_report(study, Path(folder) / "report.html") for _ in range(rounds)]
    seconds, size = measure.median(runs, "seconds"), measure.median(runs, "bytes")
    trials = 21 * len(rates) * seeds
    print(f"report over {trials:,} trials: {seconds:.2f} s ({measure.spread(runs, 'seconds')}), {size / 1e6:.2f} MB")
    for name, value, limit in (("20 s", seconds, SECONDS), ("15 MB", size, BYTES)):
        print(f"under {name}: {'met' if value < limit else 'missed'}")
    results = {
        "machine": measure.machine("plotly", "numpy"),
        "trials": trials,
        "runs": runs,
        "seconds": seconds,
        "bytes": size,
    }
    measure.finish(results, arguments.json)


def make_report(study: Path, page: Path) -> dict[str, Any]:
    started = time.perf_counter()
    command = [sys.executable, "-m", "holdfast.cli", "report", str(study), "-o", str(page), "--json"]
    made: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {"seconds": time.perf_counter() - started, "inside": made["seconds"], "bytes": made["bytes"]}


if __name__ == "__main__":
    main()
