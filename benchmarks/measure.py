"""Side by side on one machine: every case in a process of its own, all cases once per round, so that a busy minute hits
them alike.

A case is a command that prints one JSON object as its last line. ``rounds`` runs the cases and keeps what they print;
``median`` and ``ratio`` reduce it (a ratio is taken within each round, then the median is taken over rounds).
``peak_rise`` is for use inside a case.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Results = dict[str, list[dict[str, Any]]]


def rounds(cases: dict[str, list[str]], repetitions: int) -> Results:
    """Run every case ``repetitions`` times, interleaved.

    Args:
        cases: name -> arguments for the Python interpreter.

    Returns:
        name -> what the case printed, per round.
    """
    made: Results = {name: [] for name in cases}
    for number in range(repetitions):
        for name, arguments in cases.items():
            if sys.stderr.isatty():
                print(f"\r\x1b[Kround {number + 1}/{repetitions}  {name}\r", end="", file=sys.stderr, flush=True)
            made[name].append(run_case(arguments))
    return made


def run_case(arguments: Sequence[str]) -> dict[str, Any]:
    """Run one case offline, with threads that sleep when they wait, and return what it printed last."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def median(runs: Sequence[dict[str, Any]], key: str) -> float:
    """Median over rounds."""
    return statistics.median(run[key] for run in runs)


def ratio(runs: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]], key: str) -> float:
    """Median over rounds of the ratio within the round."""
    return statistics.median(run[key] / other[key] for run, other in zip(runs, base))


def spread(runs: Sequence[dict[str, Any]], key: str) -> str:
    """Smallest and largest value over the rounds, as a share of the median."""
    middle = median(runs, key)
    return f"{min(r[key] for r in runs) / middle - 1:+.0%} {max(r[key] for r in runs) / middle - 1:+.0%}"


@contextlib.contextmanager
def peak_rise() -> Iterator[Callable[[], float]]:
    """Peak resident memory over what is resident now; the callable gives it in MB (10^6 bytes), also after the block.

    Linux forgets an earlier peak on request; elsewhere an earlier, higher peak would be counted in.
    """
    before = _resident()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    last = [0.0]

    def rise() -> float:
        last[0] = max(last[0], (peak() - before) / 1e6)
        return last[0]

    yield rise
    rise()


def peak() -> int:
    """Largest resident memory of this process so far, bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _resident() -> int:
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak()


def machine(*packages: str) -> dict[str, Any]:
    """What a reader needs to judge the figures: date, cores, processor, versions; no names of machines."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "date": datetime.date.today().isoformat(),
        "cores": cores,
        "processor": model,
        "python": platform.python_version(),
    } | versions


def finish(results: dict[str, Any], path: str | None) -> None:
    """Write the results as JSON, if asked to."""
    if path is not None:
        Path(path).write_text(json.dumps(results, indent=1) + "\n")
