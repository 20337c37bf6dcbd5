"""Run directories as the commands leave them, from a seed: a study of any size, and a sensitivity run with whatever text a model may write."""

from __future__ import annotations

import hashlib
import json
import math
import random
import statistics
from pathlib import Path
from typing import Any

import numpy as np

HOSTILE = [
    "<script>alert(1)</script>",
    "</table></section></main>",
    "</script><script>alert(2)</script>",
    "<img src=https://example.com/x.png onerror=alert(3)>",
    "bell \x07 escape \x1b[31m null \x00",
    "right \u202eto left\u202c, zero\u200bwidth, \u2028line",
    '" onmouseover="alert(4)',
    "<a href='https://example.com'>click</a> &amp; <b>bold</b>",
    "lone surrogate \ud800 end",
    "line one\nline two\ttab\r",
    "{{7*7}} %{x} $\\alpha$ <!-- ]]> -->",
]
GRID = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")  # ASCII, so that a lone surrogate survives


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_study(path: Path, *, seeds: int = 3, fields: dict[str, list[Any]] | None = None, curve: int = 8, complete: bool = True) -> Path:
    """A study over the paper's grid (21 distinct trainings), times the values of ``fields``, times ``seeds``.

    The truth: exact match rises a little with the prompt share and falls beyond a third; all else is noise of one training.
    """
    rng = random.Random(0)
    rows: list[dict[str, Any]] = [{"kind": "base", "dev": _scores(rng, 0.0, -0.35), "test": _scores(rng, 0.0, -0.35)}]
    settings = [(cells, extra) for extra in _combinations(fields or {}) for cells in _classes()]
    for cells, extra in settings:
        for seed in range(seeds):
            rows.append(_trial(path, cells, extra, seed, rng, curve))
    rows.append(
        rows[-1]
        | {"status": "failed", "error": "HoldfastError: out of memory", "seed": seeds, "trial": "f" * 12, "dev": None, "test": None}
    )
    write_rows(path / "rows.jsonl", rows)
    write_json(
        path / "config.json",
        {"command": "study run", "version": "0.1.0", "config": {"metric": "exact_match"}, "resolved": {"trials": len(rows) - 1}},
    )
    if complete:
        write_json(path / "summary.json", _summary(rows))
    return path


def _classes() -> list[list[list[float]]]:
    """The cells of the grid, those of equal ratio together."""
    found: dict[float, list[list[float]]] = {}
    for prompt in GRID:
        for response in GRID:
            if prompt or response:
                found.setdefault(round(prompt / (prompt + response), 9), []).append([prompt, response])
    return list(found.values())


def _combinations(fields: dict[str, list[Any]]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [{}]
    for name, values in fields.items():
        made = [one | {name: value} for one in made for value in values]
    return made


def _trial(study: Path, cells: list[list[float]], extra: dict[str, Any], seed: int, rng: random.Random, curve: int) -> dict[str, Any]:
    prompt, response = cells[0]
    ratio = prompt / (prompt + response)
    share = 2 * ratio / (1 + ratio) if ratio < 1 else 1.0
    name = f"({prompt:g}, {response:g})" + "".join(f", {k} {v}" for k, v in extra.items())
    trial = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()[:12]
    gain = 0.1 * share - 0.3 * max(0.0, share - 0.35)
    if curve:
        steps = [
            {"kind": "train", "step": 10 * i, "loss": 3 / (i + 1), "prompt_nll": 3 / (i + 1), "response_nll": 4 / (i + 1)}
            for i in range(1, curve)
        ]
        held = [
            {
                "kind": "eval",
                "step": 10 * i,
                "loss": 3 / (i + 1),
                "prompt_nll": 4 - share * math.log(i + 1),
                "response_nll": 0.5 + 5 / (i + 1) + share / 5,
            }
            for i in range(curve)
        ]
        write_rows(study / "trials" / trial / "rows.jsonl", steps + held)
    return {
        "kind": "trial", "trial": trial, "status": "done", "error": None, "setting": {"prompt_weight": prompt, "response_weight": response, **extra},
        "setting_name": name, "ratio": ratio, "prompt_share": share, "members": cells, "seed": seed, "rung": None, "steps": 120, "tokens": 90_000,
        "seconds": {"train": 20 + rng.random(), "measure": 6 + rng.random(), "other": 1.0},
        "dev": _scores(rng, share, gain), "test": _scores(rng, share, gain), "items": None, "path": f"trials/{trial}",
    }  # fmt: skip


def _scores(rng: random.Random, share: float, gain: float) -> dict[str, float]:
    return {
        "exact_match": 0.42 + gain + rng.gauss(0, 0.012), "response_nll": 0.55 + 0.2 * share - gain / 2 + rng.gauss(0, 0.006),
        "prompt_nll": 3.8 - 2.6 * share**0.5 + rng.gauss(0, 0.02), "posix": 0.5 - 0.3 * share + rng.gauss(0, 0.02),
    }  # fmt: skip


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    done = [row for row in rows if row.get("status") == "done"]
    names = list(dict.fromkeys(row["setting_name"] for row in done))
    by_name = {name: [row for row in done if row["setting_name"] == name] for name in names}
    conventional = next(name for name in names if by_name[name][0]["ratio"] == 0)
    best = max(names, key=lambda name: _mean(by_name[name], "dev"))
    naive = max(names, key=lambda name: max(row["test"]["exact_match"] for row in by_name[name]))
    settings = [_setting(name, by_name[name], by_name[conventional]) for name in names]
    selection = {
        "settings": settings, "chosen": best, "best_on_dev": best, "one_standard_error": 0.007, "conventional": conventional,
        "noise": {"sd": 0.012, "df": len(done) - len(names)},
        "naive": {"setting_name": naive, "test": 0.47, "gain": 0.05, "warning": "The best of all trials on the test split is partly luck."},
        "finding": f"{best} is better than conventional tuning on this data.",
    }  # fmt: skip
    return {
        "command": "study run", "metric": "exact_match", "higher_is_better": True, "base": rows[0], "selection": selection, "finding": selection["finding"],
        "trials": {"planned": len(done) + 1, "done": len(done), "failed": 1, "merged_from": 35},
        "cost": {"seconds": 27.0 * len(done), "train": 20.5 * len(done), "measure": 6.5 * len(done), "outside_share": 0.04, "tokens": 90_000 * len(done), "disk_bytes": 10**7},
    }  # fmt: skip


def _mean(rows: list[dict[str, Any]], split: str) -> float:
    return statistics.fmean(row[split]["exact_match"] for row in rows)


def _setting(name: str, rows: list[dict[str, Any]], reference: list[dict[str, Any]]) -> dict[str, Any]:
    made = {key: rows[0][key] for key in ("setting", "setting_name", "ratio", "prompt_share", "members")}
    estimate = lambda split: {
        "mean": _mean(rows, split),
        "sd": 0.012,
        "low": _mean(rows, split) - 0.013,
        "high": _mean(rows, split) + 0.013,
    }  # noqa: E731
    change = _mean(rows, "test") - _mean(reference, "test")
    difference = None if rows is reference else {"mean": change, "low": change - 0.019, "high": change + 0.019, "p": 0.04}
    return made | {
        "conventional": rows is reference, "seeds": len(rows), "dev": estimate("dev"), "test": estimate("test"), "difference": difference,
    }  # fmt: skip


def make_sensitivity(path: Path, texts: list[str], *, sets: int = 4) -> Path:
    """A sensitivity run whose prompts, responses, ids and tokens are ``texts``."""
    rng = np.random.default_rng(0)
    n = len(texts)
    rows, prompts = [], []
    for place in range(sets):
        own = -rng.random(n) * 5 - 1
        logp_XY = np.where(np.eye(n, dtype=bool), own[None], own[None] - rng.random((n, n)) * 4 * (place + 1))
        len_Y = rng.integers(2, 6, n)
        (path / "matrices").mkdir(parents=True, exist_ok=True)
        np.savez(path / "matrices" / f"{place}.npz", logp_XY=logp_XY, len_Y=len_Y, token_logp=np.zeros((n, n, 6), np.float32))
        rows.append(_set_row(f"set-{place} {texts[0]}", logp_XY, len_Y, texts))
        prompts += [
            {
                "set_id": rows[-1]["set_id"],
                "variant_id": str(i),
                "kind": "original" if i == 0 else "wording",
                "prompt": f"Say it: {text}",
                "seed": 0,
                "meta": {},
            }
            for i, text in enumerate(texts)
        ]
    write_rows(path / "rows.jsonl", rows)
    write_rows(path / "sets.jsonl", prompts)
    config = {"model": texts[0], "max_new_tokens": 6, "chat": True, "shots": 0}
    write_json(path / "config.json", {"command": "sensitivity run", "version": "0.1.0", "config": config, "resolved": {}})
    psi = [row["indices"]["all"]["psi"] for row in rows]
    posix = {
        "mean": statistics.fmean(psi),
        "low": min(psi),
        "high": max(psi),
        "sd": statistics.stdev(psi),
        "median": statistics.median(psi),
        "sets": sets,
    }
    write_json(path / "summary.json", {
        "command": "sensitivity run", "sets": sets, "prompts": sets * n, "posix": {"all": posix}, "indices": {"all": {"psi": posix}}, "targets": {},
        "definition": "paper", "seconds": 1.0,
    })  # fmt: skip
    return path


def _set_row(set_id: str, logp_XY: Any, len_Y: Any, texts: list[str]) -> dict[str, Any]:
    n = len(texts)
    shift = np.abs(np.diagonal(logp_XY)[None] - logp_XY) / len_Y
    psi = float(shift.sum() / (n * (n - 1)))
    by = {str(i): float(shift[i].mean()) for i in range(n)}
    tokens = [{"response_of": "1", "tokens": [[text, 0.1 * i] for i, text in enumerate(texts)]}]
    variants = [
        {
            "variant_id": str(i), "kind": "original" if i == 0 else "wording", "response": text, "tokens": int(len_Y[i]), "logp": float(logp_XY[i, i]),
            "margin": 0.1, "answer": text, "gold": "x", "right": i % 2 == 0,
        }
        for i, text in enumerate(texts)
    ]  # fmt: skip
    return {
        "set_id": set_id, "prompts": n, "indices": {"all": {"psi": psi, "unique_responses": n}}, "variants": variants,
        "attribution": {"all": {"by_prompt": by, "by_response": by, "pairs": [], "tokens": tokens}},
    }  # fmt: skip
