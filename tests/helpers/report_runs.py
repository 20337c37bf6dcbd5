"""Run directories as the commands leave them, from a seed: a study of any size; a sensitivity run with whatever text a
model may write.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HOSTILE = [
    "<script>alert(1)</script>",
    "</table></section></main>",
    "</script><script>alert(2)</script>",
    "<img src=https://example.com/x.png onerror=alert(3)>",
    "bell \x07 escape \x1b[31m null \x00 c1 \x85",
    "right \u202eto left\u202c, zero\u200bwidth, \u2028line",
    '" onmouseover="alert(4)',
    "<a href='https://example.com'>click</a> &amp; <b>bold</b>",
    "lone surrogate \ud800 end",
    "line one\nline two\ttab\r",
    "{{7*7}} %{x} $main $\\alpha$ <!-- ]]> -->",
]
GRID = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
METRIC = "exact_match"


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")  # ASCII, so that a lone surrogate survives


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_study(
    path: Path, *, seeds: int = 3, rates: Sequence[float] = (), curve: int = 8, complete: bool = True
) -> Path:
    """A study over the paper's grid (21 distinct trainings), times the learning ``rates``, times ``seeds``; one more
    trial has failed.

    The truth: exact match rises a little with the prompt share and falls beyond a third; all else is the noise of one
    training.
    """
    rng = random.Random(0)
    base = {"kind": "base", "dev": scores(rng, 0.0, -0.35), "test": scores(rng, 0.0, -0.35)}
    extras: list[dict[str, Any]] = [{"learning_rate": rate} for rate in rates] or [{}]
    trials = [
        make_trial(path, cells, extra, seed, rng, curve)
        for extra in extras
        for cells in classes()
        for seed in range(seeds)
    ]
    failed = trials[-1] | {
        "status": "failed",
        "error": "out of memory",
        "seed": seeds,
        "trial": "f" * 12,
        "dev": None,
        "test": None,
    }
    write_rows(path / "rows.jsonl", [base, *trials, failed])
    resolved = {"metric": METRIC, "trials": [{"id": trial["trial"]} for trial in (*trials, failed)]}
    write_json(
        path / "config.json",
        {"command": "study run", "version": "0.1.0", "config": {"study": "grid"}, "resolved": resolved},
    )
    if complete:
        write_json(path / "summary.json", summary_of(base, trials))
    return path


def classes() -> list[list[list[float]]]:
    """The cells of the grid, those of equal ratio together."""
    found: dict[float, list[list[float]]] = {}
    for prompt in GRID:
        for response in GRID:
            if prompt or response:
                found.setdefault(round(prompt / (prompt + response), 9), []).append([prompt, response])
    return list(found.values())


def make_trial(
    study: Path, cells: list[list[float]], extra: dict[str, Any], seed: int, rng: random.Random, curve: int
) -> dict[str, Any]:
    prompt, response = cells[0]
    ratio = prompt / (prompt + response)
    share = 2 * ratio / (1 + ratio)
    gain = 0.1 * share - 0.3 * max(0.0, share - 0.35)
    name = f"({prompt:g}, {response:g})" + "".join(f", lr {value:g}" for value in extra.values())
    trial = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()[:12]
    if curve:
        write_rows(study / "trials" / trial / "rows.jsonl", curve_of(share, curve))
    return {
        "kind": "trial",
        "trial": trial,
        "status": "done",
        "error": None,
        "setting": {"prompt_weight": prompt, "response_weight": response, **extra},
        "setting_name": name,
        "ratio": ratio,
        "prompt_share": share,
        "members": cells,
        "seed": seed,
        "rung": None,
        "steps": 120,
        "tokens": 90_000,
        "seconds": {"train": 20 + rng.random(), "measure": 6 + rng.random(), "other": 1.0},
        "dev": scores(rng, share, gain),
        "test": scores(rng, share, gain),
        "items": None,
        "path": f"trials/{trial}",
    }


def curve_of(share: float, points: int) -> list[dict[str, Any]]:
    rows = []
    for i in range(points):
        held_out = {"prompt_nll": 4 - share * math.log(i + 1), "response_nll": 0.5 + 5 / (i + 1) + share / 5}
        rows += [{"kind": kind, "step": 10 * i, "loss": 3 / (i + 1), **held_out} for kind in ("train", "eval")]
    return rows


def scores(rng: random.Random, share: float, gain: float) -> dict[str, float]:
    return {
        METRIC: 0.42 + gain + rng.gauss(0, 0.012),
        "response_nll": 0.55 + 0.2 * share - gain / 2 + rng.gauss(0, 0.006),
        "prompt_nll": 3.8 - 2.6 * share**0.5 + rng.gauss(0, 0.02),
        "posix": 0.5 - 0.3 * share + rng.gauss(0, 0.02),
    }


def summary_of(base: dict[str, Any], trials: list[dict[str, Any]]) -> dict[str, Any]:
    by_name: dict[str, list[dict[str, Any]]] = {}
    for trial in trials:
        by_name.setdefault(trial["setting_name"], []).append(trial)
    conventional = next(name for name, found in by_name.items() if found[0]["ratio"] == 0)
    best = max(by_name, key=lambda name: mean(by_name[name], "dev"))
    naive = max(trials, key=lambda trial: trial["test"][METRIC])
    selection = {
        "settings": [setting_of(found, by_name[conventional]) for found in by_name.values()],
        "chosen": best,
        "best_on_dev": best,
        "one_standard_error": 0.007,
        "conventional": conventional,
        "noise": {"sd": 0.012, "df": len(trials) - len(by_name)},
        "naive": {
            "setting_name": naive["setting_name"],
            "test": naive["test"][METRIC],
            "gain": 0.05,
            "warning": "picked on the split it is reported on, from 21 settings",
        },
        "finding": f"{best} is better than conventional tuning on this data.",
    }
    n = len(trials)
    return {
        "command": "study run",
        "metric": METRIC,
        "higher_is_better": True,
        "base": base,
        "selection": selection,
        "finding": selection["finding"],
        "trials": {"planned": n + 1, "done": n, "failed": 1, "merged_from": 35},
        "cost": {
            "seconds": 27.0 * n,
            "train": 20.5 * n,
            "measure": 6.5 * n,
            "outside_share": 0.04,
            "tokens": 90_000 * n,
            "disk_bytes": 10**7,
        },
    }


def mean(trials: Sequence[dict[str, Any]], split: str) -> float:
    return statistics.fmean(trial[split][METRIC] for trial in trials)


def setting_of(trials: list[dict[str, Any]], reference: list[dict[str, Any]]) -> dict[str, Any]:
    made = {key: trials[0][key] for key in ("setting", "setting_name", "ratio", "prompt_share", "members")}
    for split in ("dev", "test"):
        value = mean(trials, split)
        made[split] = {"mean": value, "sd": 0.012, "low": value - 0.013, "high": value + 0.013}
    change = mean(trials, "test") - mean(reference, "test")
    difference = (
        None if trials is reference else {"mean": change, "low": change - 0.019, "high": change + 0.019, "p": 0.04}
    )
    return made | {"conventional": trials is reference, "seeds": len(trials), "difference": difference}


def make_sensitivity(path: Path, texts: Sequence[str], *, sets: int = 4) -> Path:
    """A sensitivity run whose prompts, responses, ids and tokens are ``texts``."""
    rng = np.random.default_rng(0)
    n, rows, prompts = len(texts), [], []
    (path / "matrices").mkdir(parents=True, exist_ok=True)
    for place in range(sets):
        own = -rng.random(n) * 5 - 1
        logp_XY = np.where(np.eye(n, dtype=bool), own[None], own[None] - rng.random((n, n)) * 4 * (place + 1))
        len_Y = rng.integers(2, 6, n)
        np.savez(
            path / "matrices" / f"{place}.npz", logp_XY=logp_XY, len_Y=len_Y, token_logp=np.zeros((n, n, 6), np.float32)
        )
        set_id = f"set-{place} {texts[0]}"
        rows.append(set_row(set_id, logp_XY, len_Y, texts))
        kinds = ["original"] + ["wording"] * (n - 1)
        prompts += [
            {
                "set_id": set_id,
                "variant_id": str(i),
                "kind": kinds[i],
                "prompt": f"Say it: {text}",
                "seed": 0,
                "meta": {},
            }
            for i, text in enumerate(texts)
        ]
    write_rows(path / "rows.jsonl", rows)
    write_rows(path / "sets.jsonl", prompts)
    config = {"model": texts[0], "max_new_tokens": 6, "chat": True, "shots": 0}
    write_json(
        path / "config.json", {"command": "sensitivity run", "version": "0.1.0", "config": config, "resolved": {}}
    )
    psi = [row["indices"]["all"]["psi"] for row in rows]
    posix = {
        "mean": statistics.fmean(psi),
        "low": min(psi),
        "high": max(psi),
        "sd": 1.0,
        "median": statistics.median(psi),
        "sets": sets,
    }
    indices = {"posix": {"all": posix}, "indices": {"all": {"psi": posix}}, "targets": {}}
    about = {"command": "sensitivity run", "sets": sets, "prompts": sets * n, "definition": "paper", "seconds": 1.0}
    write_json(path / "summary.json", about | indices)
    return path


def set_row(set_id: str, logp_XY: Any, len_Y: Any, texts: Sequence[str]) -> dict[str, Any]:
    n = len(texts)
    shift = np.abs(np.diagonal(logp_XY)[None] - logp_XY) / len_Y
    by = {str(i): float(shift[i].mean()) for i in range(n)}
    tokens = [{"response_of": "1", "tokens": [[text, 0.1 * i] for i, text in enumerate(texts)]}]
    variants = [
        {
            "variant_id": str(i),
            "kind": "original" if i == 0 else "wording",
            "response": text,
            "tokens": int(len_Y[i]),
            "logp": float(logp_XY[i, i]),
            "margin": 0.1,
            "answer": text,
            "gold": "x",
            "right": i % 2 == 0,
        }
        for i, text in enumerate(texts)
    ]
    return {
        "set_id": set_id,
        "prompts": n,
        "indices": {"all": {"psi": float(shift.sum() / (n * (n - 1))), "unique_responses": n}},
        "variants": variants,
        "attribution": {"all": {"by_prompt": by, "by_response": by, "pairs": [], "tokens": tokens}},
    }
