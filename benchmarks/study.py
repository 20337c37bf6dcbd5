"""What a study costs beside its trainings, and what halving saves. Embedded model, no network.

    python benchmarks/study.py overhead [--runs 200]      200 tiny runs on two slots: share of the time outside training
    and measuring
    python benchmarks/study.py plan                       wall time of `holdfast study plan` for 200 runs, cold and with
    tokens cached
    python benchmarks/study.py halving [--seeds 0 1 ..]   halving against the full ratio grid, seed by seed

Every part writes to --work and continues what it finds there, so a long part can be done in pieces. --json FILE keeps
the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

import measure

POCKET = {"train": "pocket:instructions", "dev": "pocket:instructions/dev", "test": "pocket:instructions/test"}
METRIC = "response_nll"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["overhead", "plan", "halving"])
    parser.add_argument("--work", default="study-benchmark")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument(
        "--examples", type=int, help="training examples per run (default: 256 for overhead, 4000 for halving)"
    )
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--json")
    args = parser.parse_args()
    Path(args.work).mkdir(parents=True, exist_ok=True)
    found = {"overhead": overhead, "plan": plan_time, "halving": halving}[args.part](args)
    print(json.dumps(found, indent=1))
    measure.finish({"part": args.part, **measure.machine("torch", "transformers"), **found}, args.json)


def overhead(args: argparse.Namespace) -> dict[str, Any]:
    """Of one invocation; what was there already is not counted."""
    summary = study("overhead", many(args.runs, args.examples or 256), args)
    cost = summary["cost"]
    return {
        "runs": args.runs,
        "wall_seconds": cost["seconds"],
        "outside_share": cost["outside_share"],
        "slots": cost["slots"],
    }


def plan_time(args: argparse.Namespace) -> dict[str, Any]:
    """Cold: tokenises 8,000 examples and imports what that needs. Warm: a study directory is there."""
    file = write("plan", many(args.runs, None), args)
    output = Path(args.work) / "plan"
    command = ["study", "plan", str(file), "--output", str(output), "--calibrate", "0", "--json"]
    cold = [timed(command) for _ in range(3)]
    from holdfast.study.planning import make_plan
    from holdfast.study.spec import load_spec

    (output / "data").mkdir(parents=True, exist_ok=True)
    planned = make_plan(load_spec(str(file)), [output / "data"])
    warm = [timed(command) for _ in range(5)]
    return {
        "runs": len(planned.trials),
        "cold_seconds": statistics.median(cold),
        "warm_seconds": statistics.median(warm),
    }


def halving(args: argparse.Namespace) -> dict[str, Any]:
    """Per seed: tokens against the full grid's, and how much worse on test the setting is that halving would choose.

    The noise is the standard deviation of one run, pooled over the settings of the full grids of all seeds; a choice is
    inside it if the difference of the two settings on the test split is at most twice that of two runs (2 sqrt(2) sd).
    """
    fields = {"tune": {"limit": args.examples or 4000}}
    full, found = {}, []
    for seed in args.seeds:
        full[seed] = trials(
            study(f"grid-{seed}", spec(seeds=[seed], search={"kind": "ratios", "points": args.points}, **fields), args)
        )
        search = {"kind": "halving", "points": args.points, "rungs": 4, "factor": 3}
        ours = trials(study(f"halving-{seed}", spec(seeds=[seed], search=search, **fields), args))
        finished = {name: row for name, row in ours.items() if row["status"] == "done"}
        pick, best = (min(rows, key=lambda name: rows[name]["dev"][METRIC]) for rows in (finished, full[seed]))
        regret = full[seed][pick]["test"][METRIC] - full[seed][best]["test"][METRIC]
        tokens = sum(r["tokens"] for r in ours.values()) / sum(r["tokens"] for r in full[seed].values())
        found.append(
            {
                "seed": seed,
                "chosen": pick,
                "grid_best": best,
                "regret": regret,
                "tokens_share": tokens,
                "finished": len(finished),
            }
        )
    settings = [[full[seed][name]["test"][METRIC] for seed in full] for name in next(iter(full.values()))]
    sd = statistics.fmean(statistics.variance(values) for values in settings) ** 0.5 if len(full) > 1 else None
    for row in found:
        row["inside_noise"] = None if sd is None else row["regret"] <= 2 * 2**0.5 * sd
    return {
        "metric": METRIC,
        "noise_sd": sd,
        "largest_tokens_share": max(r["tokens_share"] for r in found),
        "seeds": found,
    }


def many(runs: int, examples: int | None) -> dict[str, Any]:
    """A study of so many runs: 20 ratios, the rest seeds."""
    ratios = [round(i / 40, 3) for i in range(20)]
    vary = {"weights": {"ratio": ratios[: min(20, runs)]}}
    tune = {"limit": examples} if examples else {}
    return spec(vary=vary, seeds=max(1, runs // 20), tune=tune, items=50, measure=["exact_match"], keep_models=False)


def spec(**changes: Any) -> dict[str, Any]:
    """A study file's content."""
    return {"model": "pocket", "data": POCKET, "select": METRIC, **changes}


def write(name: str, content: dict[str, Any], args: argparse.Namespace) -> Path:
    file = Path(args.work) / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def study(name: str, content: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Run a study in a process of its own, as a user would; returns its summary, with its folder."""
    output = Path(args.work) / name
    command = ["study", "run", str(write(name, content, args)), "--output", str(output), "--slots", str(args.slots)]
    subprocess.run([sys.executable, "-m", "holdfast.cli", *command], check=True, stdout=subprocess.DEVNULL)
    return json.loads((output / "summary.json").read_text(encoding="utf-8")) | {"folder": output}


def trials(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows by setting."""
    rows = [json.loads(line) for line in (summary["folder"] / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    return {row["setting_name"]: row for row in rows if row["kind"] == "trial"}


def timed(command: list[str]) -> float:
    """Wall time of a command."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "holdfast.cli", *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
