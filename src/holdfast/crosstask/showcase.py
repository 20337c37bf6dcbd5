"""One line for ``holdfast demo``: zero-shot against cross-task prompting on ``pocket:tasks``."""

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
    """Return accuracy and validity (percent, 95 % intervals over items), zero-shot and with an example of another task.

    Nothing is written.

    Args:
        lm: a loaded model, else ``model`` is loaded.
        items: test items per target.

    Returns:
        ``zero_shot`` and ``cross_task`` (mean over the sources), each with accuracy and validity; ``difference`` in
        points with its paired interval; ``line``, a sentence that claims no more than the interval allows.
    """
    named = {
        "sources": ",".join(f"pocket:tasks/{name}" for name in sources),
        "target": ",".join(f"pocket:tasks/{name}" for name in targets),
    }
    grid = load_grid(CrossTaskConfig(model=model, output="", limit=items, seed=seed, **named))  # type: ignore[arg-type]
    runner = Runner(grid, lm)
    outcomes = all_outcomes(grid, [runner.run(block) for block in grid.blocks])
    shares: dict[str, list[Shares]] = {key: [] for key in ("zero right", "cross right", "zero valid", "cross valid")}
    for target in targets:
        zero, cross = outcomes[target][ZERO], [outcomes[target][source] for source in grid.sources_of(target)]
        shares["zero right"].append(_floats(zero.correct))
        shares["zero valid"].append(_floats(zero.valid))
        shares["cross right"].append(np.mean([_floats(outcome.correct) for outcome in cross], axis=0))
        shares["cross valid"].append(np.mean([_floats(outcome.valid) for outcome in cross], axis=0))
    pooled = {key: np.concatenate(parts) for key, parts in shares.items()}
    result: dict[str, Any] = {
        "zero_shot": {"accuracy": _mean(pooled["zero right"]), "validity": _mean(pooled["zero valid"])},
        "cross_task": {"accuracy": _mean(pooled["cross right"]), "validity": _mean(pooled["cross valid"])},
        "difference": paired_t(pooled["cross right"], pooled["zero right"]),
        "targets": list(targets),
        "sources": list(sources),
    }
    return result | {"line": _line(result)}


def _floats(values: Any) -> Shares:
    return np.asarray(values, np.float64)


def _mean(values: Shares) -> dict[str, float]:
    """Return the mean in percent with a normal 95 % interval over items, because items are independent, answers not."""
    mean, error = float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5
    return {
        "value": 100 * mean,
        "low": 100 * max(0.0, mean - 1.96 * error),
        "high": 100 * min(1.0, mean + 1.96 * error),
        "count": len(values),
    }


def _line(result: dict[str, Any]) -> str:
    points, low, high = (result["difference"][key] for key in ("difference", "low", "high"))
    verdict = "no difference is shown"
    if low > 0:
        verdict = "an example of another task helps"
    elif high < 0:
        verdict = "it hurts"
    return (
        f"cross-task prompting, base model: zero-shot {_percent(result['zero_shot'])}; "
        f"with one example of another task {_percent(result['cross_task'])}; "
        f"{round(points, 1) + 0.0:+.1f} points [{low:+.1f}, {high:+.1f}]: {verdict}"
    )


def _percent(part: dict[str, Any]) -> str:
    right, valid = part["accuracy"], part["validity"]
    return (
        f"{right['value']:.0f} % right [{right['low']:.0f}, {right['high']:.0f}], "
        f"{valid['value']:.0f} % valid [{valid['low']:.0f}, {valid['high']:.0f}]"
    )
