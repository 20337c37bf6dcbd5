"""What is said about a trained model: its log-probs of held-out pairs -> preference accuracy and rewards with 95 %
intervals; and the stages it came from, base -> tune -> align.

    preferred:   log p(chosen) > log p(rejected), of the whole answers; per token: of their means
    reward:      beta * (log p - log p of the start point)

The first can be asked of the start point too, where all rewards are 0. Axes: N pairs, B sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast import runs
from holdfast.align.tokens import PairTokens
from holdfast.lm.batched import Floats, sequence_nlls
from holdfast.stats import FEW, normal_mean, proportion, sign_test
from holdfast.tables.text import counted

_KEYS = ("weights", "prompt_share", "losses", "beta", "learning_rate", "steps", "templates")
_CONFIG_KEYS = ("data", "normalizer", "batch_size", "epochs", "lora_rank", "seed")


def pair_logprobs(model: Any, pairs: Sequence[PairTokens], pad_id: int) -> Floats:
    """Log-probs of the answers, chosen and rejected, in nats [N, 2]."""
    sequences = []
    for pair in pairs:
        sequences += [pair.prompt + pair.chosen, pair.prompt + pair.rejected]
    nlls = sequence_nlls(model, sequences, pad_id)
    return -np.array([nll[len(pairs[i // 2].prompt) :].sum() for i, nll in enumerate(nlls)]).reshape(-1, 2)


def evaluation(logprobs_N2: Floats, start_N2: Floats, pairs: Sequence[PairTokens], beta: float) -> dict[str, Any]:
    """Means over pairs with 95 % intervals; the reward entries are None at the start point, where all rewards are 0."""
    lengths_N2 = np.asarray([(len(pair.chosen), len(pair.rejected)) for pair in pairs])
    margins_N = beta * np.subtract(*(logprobs_N2 - start_N2).T)
    moved = bool(np.any(logprobs_N2 != start_N2))
    return {
        "pairs": len(pairs),
        "preference_accuracy": _share(_preferred(logprobs_N2)),
        "preference_accuracy_per_token": _share(_preferred(logprobs_N2 / lengths_N2)),
        "reward_accuracy": _share(margins_N > 0) if moved else None,
        "reward_margin": normal_mean(margins_N) if moved else None,
        "logps/chosen": float(logprobs_N2[:, 0].mean()),
        "logps/rejected": float(logprobs_N2[:, 1].mean()),
    }


def gain(before_N2: Floats, after_N2: Floats) -> dict[str, float | None]:
    """Difference of the preference accuracies, paired by item: value, 95 % interval, and p of the exact sign test."""
    change_N = _preferred(after_N2).astype(float) - _preferred(before_N2)
    return normal_mean(change_N) | {"p": sign_test(int((change_N > 0).sum()), int((change_N < 0).sum()))}


def finding(summary: dict[str, Any]) -> str:
    """Return what the training did to the preference accuracy on held-out pairs, and no more than these show."""
    before, after = summary["before"], summary["after"]
    if before is None or after is None:
        return "no pair was held out, so what the training did is not known; --eval-data or --eval-share holds out some"
    shares = [100 * part["preference_accuracy"]["value"] for part in (before, after)]
    pairs = counted(after["pairs"], "held-out pair")
    text = f"preference accuracy {shares[0]:.1f} % -> {shares[1]:.1f} % on {pairs}"
    change = summary["gain"]
    if after["pairs"] < FEW:
        return f"{text}: too few to say"
    low, value, high = (100 * change[bound] for bound in ("low", "value", "high"))
    if low <= 0 <= high or change["p"] >= 0.05:
        return f"{text}: no difference shown ({value:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f})"
    side, bounds = ("higher", (low, high)) if value > 0 else ("lower", (-high, -low))
    return f"{text}: {side} by {abs(value):.1f} points [{bounds[0]:.1f}, {bounds[1]:.1f}]"


def lineage(model: str) -> list[dict[str, Any]]:
    """The stages that made a model, the oldest first: ``{"command": "base", "model": ...}``, then one entry per run."""
    if runs.resolve(model) is None:
        return [{"command": "base", "model": model}]
    config_file = runs.read_json(Path(model) / "config.json")
    config, resolved = config_file.get("config", {}), config_file.get("resolved", {})
    earlier = lineage(config["model"]) if "model" in config else []
    return [*earlier, stage(config_file["command"], model, config, resolved)]


def stage(command: str, path: str, config: dict[str, Any], resolved: dict[str, Any]) -> dict[str, Any]:
    """One run with the settings that decide what it made."""
    settings = {key: config[key] for key in _CONFIG_KEYS if key in config}
    return {"command": command, "path": path} | settings | {key: resolved[key] for key in _KEYS if key in resolved}


def _share(hits_N: npt.NDArray[np.bool_]) -> dict[str, float]:
    return proportion(int(hits_N.sum()), len(hits_N))


def _preferred(scores_N2: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(scores_N2[:, 0] > scores_N2[:, 1])
