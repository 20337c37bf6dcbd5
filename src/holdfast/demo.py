"""``holdfast demo``: the embedded model tuned at three weightings, compared on items and wordings it has not seen. No network.

In: nothing but the package. Out: a run directory per weighting and seed, one table (with the sensitivity of every tuned model to
wording), and a sentence that claims no more than the spread between seeds allows.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast import lm as models
from holdfast import pocket
from holdfast.chat import generation_prompt
from holdfast.config import DemoConfig, SensitivityConfig, TuneConfig
from holdfast.crosstask.showcase import zero_shot_against_cross_task
from holdfast.records import Message, Role
from holdfast.runs import check_output, open_run
from holdfast.sensitivity import measure
from holdfast.tune import train

WEIGHTINGS = ((0.0, 1.0), (0.2, 0.8), (1.0, 1.0))
# metric of a row -> column title and digits; shares are shown in percent
_COLUMNS = {
    "response_nll": ("response NLL", 3),
    "prompt_nll": ("prompt NLL", 3),
    "new_items": ("new items %", 1),
    "new_wordings": ("new wordings %", 1),
    "posix_wording": ("POSIX wording", 2),
    "posix_spelling": ("spelling", 2),
    "posix_templates": ("templates", 2),
}


def demo(config: DemoConfig) -> dict[str, Any]:
    """Tune, evaluate, compare; returns the summary and prints the table on stdout.

    Raises:
        HoldfastError: --output holds something else.
    """
    done = check_output(config, "demo")
    if config.dry_run:
        return _preview(config)
    if done.summary is None:
        run = open_run(config, "demo", {"weightings": WEIGHTINGS})
        items = held_out_items(config.eval_items)
        run.keep_rows(-1)
        base = {"weighting": "base model", **evaluate(models.load("pocket"), items)}
        run.append({"kind": "base", **base})
        rows = []
        for seed in range(config.seed, config.seed + config.seeds):
            for pair in WEIGHTINGS:
                row = {"kind": "run", "weighting": _name(pair), "seed": seed, **_tune_and_evaluate(config, pair, seed, items)}
                print(
                    f"{row['weighting']} seed {seed}: new items {row['new_items']:.1%}, new wordings {row['new_wordings']:.1%}",
                    file=sys.stderr,
                )
                run.append(row)
                rows.append(row)
        transfer = zero_shot_against_cross_task(models.load("pocket"))
        summary = run.finish(
            {
                "command": "demo",
                "base": base,
                "runs": rows,
                "table": _table(base, rows),
                "finding": _finding(rows),
                "cross_task": transfer,
            }
        )
    else:
        summary = done.summary
    if not config.json:
        lines = [*summary["table"], "", summary["finding"], "", f"pocket:tasks: {summary['cross_task']['line']}"]
        print("\n".join([*lines, "", f"runs and figures: {Path(config.output).resolve()}"]))
    return summary


def held_out_items(count: int) -> list[dict[str, Any]]:
    """Rows of ``pocket:instructions/test``: half with wordings from training on new items, half with wordings never trained on."""
    rows = pocket.rows("pocket:instructions/test")
    halves = ([r for r in rows if not r["held_out_wording"]], [r for r in rows if r["held_out_wording"]])
    return [row for half in halves for row in half[: (count + 1) // 2]]


def evaluate(lm: models.LM, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Share of exact answers on new items in known wordings (``new_items``) and in new wordings (``new_wordings``)."""
    right = exact_matches(lm, rows)
    new = [row["held_out_wording"] for row in rows]
    return {
        "new_items": statistics.fmean(r for r, n in zip(right, new, strict=True) if not n),
        "new_wordings": statistics.fmean(r for r, n in zip(right, new, strict=True) if n),
    }


def exact_matches(lm: models.LM, rows: Sequence[dict[str, Any]]) -> list[bool]:
    """Whether the greedy answer to each chat row is its last message, white space at the ends aside."""
    prompts = [
        generation_prompt([Message(Role[m["role"].upper()], m["content"]) for m in row["messages"][:-1]], "chat", lm.tokenizer)
        for row in rows
    ]
    answers = lm.generate(prompts, max_new_tokens=24)
    return [answer.strip() == row["messages"][-1]["content"].strip() for answer, row in zip(answers, rows, strict=True)]


def _tune_and_evaluate(config: DemoConfig, pair: tuple[float, float], seed: int, items: list[dict[str, Any]]) -> dict[str, float]:
    output = Path(config.output) / "runs" / f"{_name(pair)} seed {seed}".replace(" ", "-")
    summary = train(
        TuneConfig(
            model="pocket",
            data="pocket:instructions",
            eval_data="pocket:instructions/dev",
            output=str(output),
            prompt_weight=pair[0],
            response_weight=pair[1],
            limit=config.limit,
            seed=seed,
            log_steps=25,
            overwrite=True,
        )
    )
    nll = {name: summary["after"][name] for name in ("response_nll", "prompt_nll")}
    return {**nll, **evaluate(models.load(output), items), **sensitivity(output)}


def sensitivity(run: Path) -> dict[str, float]:
    """POSIX of a tuned model on 32 sets of ``pocket:intents``, per kind of change; a run directory is left inside ``run``."""
    summary = measure(
        SensitivityConfig(
            model=str(run),
            sets="pocket:intents",
            variants="spelling,templates",
            per_kind=4,
            pairs="kinds",
            chat=True,
            limit=32,
            max_new_tokens=12,
            output=str(run / "sensitivity"),
            overwrite=True,
            json=True,  # the demo prints one table of its own
        )
    )
    return {f"posix_{kind}": found["mean"] for kind, found in summary["posix"].items()}


def _name(pair: tuple[float, float]) -> str:
    return f"({pair[0]:g}, {pair[1]:g})"


def _groups(rows: Sequence[dict[str, Any]], metric: str) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["weighting"], []).append(row[metric])
    return groups


def _table(base: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Mean and, after ±, the standard deviation over seeds."""
    lines = [f"{'(prompt, response)':<18}" + "".join(f"{title:>16}" for title, _ in _COLUMNS.values())]
    lines.append(f"{base['weighting']:<18}" + "".join(f"{_cell([base[m]], m) if m in base else '-':>16}" for m in _COLUMNS))
    for weighting in _groups(rows, "new_items"):
        lines.append(f"{weighting:<18}" + "".join(f"{_cell(_groups(rows, metric)[weighting], metric):>16}" for metric in _COLUMNS))
    return lines


def _cell(values: Sequence[float], metric: str) -> str:
    title, digits = _COLUMNS[metric]
    shown = [100 * v if title.endswith("%") else v for v in values]
    spread = f" ± {statistics.stdev(shown):.{digits}f}" if len(shown) > 1 else ""
    return f"{statistics.fmean(shown):.{digits}f}{spread}"


def _finding(rows: Sequence[dict[str, Any]]) -> str:
    """Compare each weighting with the conventional one on new wordings; intervals from the pooled spread of the seeds, Bonferroni."""
    groups = _groups(rows, "new_wordings")
    reference, *others = groups
    seeds = len(groups[reference])
    if seeds < 2:
        return "One seed shows no spread, so nothing is claimed about which weighting is better (use --seeds 2 or more)."
    half = interval_half_width(list(groups.values()), comparisons=len(others))
    differences = {name: statistics.fmean(groups[name]) - statistics.fmean(groups[reference]) for name in others}
    clear = {name: d for name, d in differences.items() if abs(d) > half}
    shown = ", ".join(f"{name} {100 * d:+.1f} points" for name, d in differences.items())
    if not clear:
        return (
            f"On new wordings against {reference}: {shown}; with {seeds} seeds the 95 % interval is ±{100 * half:.1f} points, "
            "so no weighting is shown to be better or worse."
        )
    verdict = "; ".join(
        f"{name} is {'better' if d > 0 else 'worse'} than {reference} by {100 * abs(d):.1f} points" for name, d in clear.items()
    )
    return f"On new wordings {verdict} (95 % interval ±{100 * half:.1f} points from {seeds} seeds; this model and this data only)."


def interval_half_width(groups: Sequence[Sequence[float]], *, comparisons: int) -> float:
    """Half width of the 95 % interval of a difference of two group means, with the variance pooled over all groups.

    Args:
        groups: values per setting, one per seed; equal sizes of at least 2.
        comparisons: how many differences are looked at (Bonferroni).
    """
    from scipy import stats

    size = len(groups[0])
    variance = statistics.fmean(statistics.variance(g) for g in groups)
    quantile = stats.t.ppf(1 - 0.05 / (2 * comparisons), df=len(groups) * (size - 1))
    return float(quantile * (2 * variance / size) ** 0.5)


def _preview(config: DemoConfig) -> dict[str, Any]:
    plan = {"command": "demo", "dry_run": True, "runs": len(WEIGHTINGS) * config.seeds, "examples_per_run": config.limit}
    if not config.json:
        print(f"{plan['runs']} runs of {config.limit} examples each at {', '.join(map(_name, WEIGHTINGS))}; {config.eval_items} test items")
    return plan
