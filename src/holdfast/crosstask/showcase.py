"""One line for ``holdfast demo``: on ``pocket:tasks``, zero-shot against cross-task for a model, whatever the figures
turn out to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.config import CrossTaskConfig
from holdfast.crosstask.blocks import Runner
from holdfast.crosstask.grid import ZERO, load_grid
from holdfast.crosstask.tables import all_outcomes
from holdfast.stats import paired_t

TARGETS = ("colour_of", "yes_no", "category", "count")
SOURCES = ("who_has", "where_is", "sentiment", "topic", "odd_one_out", "largest")

Shares = npt.NDArray[np.float64]


def zero_shot_against_cross_task(
    lm: Any = None,
    *,
    model: str = "pocket",
    items: int = 30,
    targets: Sequence[str] = TARGETS,
    sources: Sequence[str] = SOURCES,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy and validity (percent, 95 % intervals over items) without an example and with one of another task;
    nothing is written.

    Args:
        lm: a loaded model, else ``model`` is loaded.
        items: test items per target.

    Returns:
        ``zero_shot`` and ``cross_task`` (mean over the sources), each with accuracy and validity; ``difference`` in
        points with its paired interval; ``line``, a sentence that claims no more than the interval allows.
    """
    names = {"sources": sources, "target": targets}
    listed = {key: ",".join(f"pocket:tasks/{name}" for name in value) for key, value in names.items()}
    grid = load_grid(CrossTaskConfig(model=model, output="", limit=items, seed=seed, **listed))  # type: ignore[arg-type]
    runner = Runner(grid, lm)
    found = all_outcomes(grid, [runner.run(block) for block in grid.blocks])
    shares: dict[str, list[Shares]] = {
        "zero accuracy": [],
        "cross accuracy": [],
        "zero validity": [],
        "cross validity": [],
    }
    for target in targets:
        zero, cross = found[target][ZERO], [found[target][source] for source in grid.sources_of(target)]
        shares["zero accuracy"].append(_floats(zero.correct))
        shares["zero validity"].append(_floats(zero.valid))
        shares["cross accuracy"].append(np.mean([_floats(o.correct) for o in cross], axis=0))
        shares["cross validity"].append(np.mean([_floats(o.valid) for o in cross], axis=0))
    pooled = {name: np.concatenate(parts) for name, parts in shares.items()}
    made: dict[str, Any] = {
        "zero_shot": {"accuracy": _mean(pooled["zero accuracy"]), "validity": _mean(pooled["zero validity"])},
        "cross_task": {"accuracy": _mean(pooled["cross accuracy"]), "validity": _mean(pooled["cross validity"])},
        "difference": paired_t(pooled["cross accuracy"], pooled["zero accuracy"]),
        "targets": list(targets),
        "sources": list(sources),
    }
    return made | {"line": _line(made)}


def _floats(values: Any) -> Shares:
    return np.asarray(values, np.float64)


def _mean(values: Shares) -> dict[str, float]:
    """Mean in percent with a normal 95 % interval over items; items, not answers, are independent."""
    mean, error = float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5
    return {
        "value": 100 * mean,
        "low": 100 * max(0.0, mean - 1.96 * error),
        "high": 100 * min(1.0, mean + 1.96 * error),
        "count": len(values),
    }


def _line(made: dict[str, Any]) -> str:
    def shown(part: dict[str, Any]) -> str:
        a, v = part["accuracy"], part["validity"]
        return f"{a['value']:.0f} % right [{a['low']:.0f}, {a['high']:.0f}], {v['value']:.0f} % valid [{v['low']:.0f}, {v['high']:.0f}]"

    d = made["difference"]
    verdict = (
        "no difference is shown"
        if d["low"] <= 0 <= d["high"]
        else "an example of another task helps"
        if d["low"] > 0
        else "it hurts"
    )
    return (
        f"cross-task prompting, base model: zero-shot {shown(made['zero_shot'])}; "
        f"with one example of another task {shown(made['cross_task'])}; "
        f"{round(d['difference'], 1) + 0.0:+.1f} points [{d['low']:+.1f}, {d['high']:+.1f}]: {verdict}"
    )
