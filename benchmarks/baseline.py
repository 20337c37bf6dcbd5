"""Two checkouts side by side: is the second slower than the first? Scoring, cross-task, the harness, and the demo as a
whole.

    python benchmarks/baseline.py --before ../old --after . [--rounds 5] [--only harness demo] [--small] [--json
    out.json]

Every checkout runs its own `benchmarks/` on its own `src/`, each case in a process of its own. Within a round both run
a case one right after the other, the first of them in turn; figures are medians over rounds, ratios are taken within a
round (`measure.py`). Processor time is that of the whole process, start-up included: look at it where the machine has
other work.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import measure

Figures = dict[str, float]
CPU = "processor"


@dataclass(frozen=True)
class Case:
    """Arguments for Python, with a shape of full size or a small one, and how seconds by name are read from what it
    prints.
    """

    arguments: list[str]
    full: list[str]
    small: list[str]
    read: Callable[[str], Figures]


def sets(out: str) -> Figures:
    """Seconds of `benchmarks/sensitivity.py`, by shape and case."""
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return {f"{' x '.join(map(str, row['shape']))}, {row['case']}": row["seconds"] for row in rows}


def grids(out: str) -> Figures:
    """Seconds of `benchmarks/crosstask.py`, by kind of demonstrations."""
    made = json.loads(out[out.index("{") :])
    return {name: made[name]["holdfast"]["seconds"] for name in ("retrieved", "fixed")}


def requests(out: str) -> Figures:
    """Seconds of one case of `benchmarks/harness.py`."""
    return {"five shots": json.loads(out.strip().splitlines()[-1])["seconds"]}


CASES = {
    "sensitivity": Case(
        ["benchmarks/sensitivity.py", "--repeats", "1", "--threads", "{threads}"], [], ["--shape", "1"], sets
    ),
    "crosstask": Case(
        ["benchmarks/crosstask.py", "--rounds", "1", "--threads", "{threads}"],
        [],
        ["--items", "1", "--counted-items", "2"],
        grids,
    ),
    "harness": Case(["benchmarks/harness.py", "--case", "ours"], [], ["--subjects", "1", "--items", "2"], requests),
    "demo": Case(["-m", "holdfast.cli", "demo", "--output", "{folder}/demo"], [], ["--limit", "16"], lambda _: {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="checkout to compare with")
    parser.add_argument("--after", type=Path, required=True, help="checkout that may be slower or faster")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--small", action="store_true", help="the smallest shapes: to see that it works")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="write all figures here")
    options = parser.parse_args()
    sides = {"before": options.before.resolve(), "after": options.after.resolve()}
    for place in sides.values():
        if not (place / "src" / "holdfast").is_dir():
            parser.error(f"{place}: no checkout of holdfast")
    figures: dict[str, dict[str, list[Figures]]] = {name: {side: [] for side in sides} for name in options.only}
    for number in range(options.rounds):
        for name in options.only:
            for side in list(sides)[:: 1 if number % 2 == 0 else -1]:
                print(f"round {number + 1}/{options.rounds}  {name}  {side}", file=sys.stderr, flush=True)
                figures[name][side].append(run(CASES[name], sides[side], options.small, options.threads))
    print(table(figures))
    revisions = {side: revision(place) for side, place in sides.items()}
    print(f"\n{options.rounds} rounds; before {revisions['before']}, after {revisions['after']}.")
    measure.finish(
        {"machine": measure.machine("torch", "transformers"), "revisions": revisions, "figures": figures}, options.json
    )


def run(case: Case, place: Path, small: bool, threads: int) -> Figures:
    """One case of one checkout: what it measures itself, wall time and processor time of the process."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "PYTHONPATH": str(place / "src"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "OMP_WAIT_POLICY": "passive",
        "OMP_NUM_THREADS": str(threads),
    }
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            word.replace("{folder}", folder).replace("{threads}", str(threads))
            for word in [*case.arguments, *(case.small if small else case.full)]
        ]
        started, used = time.perf_counter(), processor()
        done = subprocess.run([sys.executable, *arguments], cwd=place, env=environment, capture_output=True, text=True)
        wall, used = time.perf_counter() - started, processor() - used
    if done.returncode:
        raise SystemExit(f"{place.name}: {' '.join(arguments)}\n{done.stderr[-4000:]}")
    return case.read(done.stdout) | {"whole process": wall, CPU: used}


def processor() -> float:
    """Seconds of processor time of the processes that have ended so far, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(figures: dict[str, dict[str, list[Figures]]]) -> str:
    """Medians and ratios, as Markdown. A figure that only one checkout has is not compared."""
    lines = ["| case | before, s | spread | after, s | spread | after / before |", "|---|---|---|---|---|---|"]
    for name, sides in figures.items():
        before, after = sides["before"], sides["after"]
        for key in before[0]:
            if key not in after[0]:
                lines.append(f"| {name}: {key} | {measure.median(before, key):.3f} | | gone | | |")
                continue
            columns = [f"{measure.median(side, key):.3f} | {measure.spread(side, key)}" for side in (before, after)]
            lines.append(f"| {name}: {key} | {' | '.join(columns)} | {measure.ratio(after, before, key):.2f} |")
    return "\n".join(lines)


def revision(place: Path) -> str:
    """The commit of a checkout, with a mark if files have changed since."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=place, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
