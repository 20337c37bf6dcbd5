"""Which settings a study asks for, and which of them are the same training.

    L = sum_t w_t nll_t / D(w)            D is the divisor that the normalizer names

AdamW makes the same updates when every gradient is multiplied by one constant (up to its epsilon), so settings whose
losses differ by a constant factor are one training. With w -> c w:

    normalizer                            D and L                 one training?
    nonzero, response-count, example,     D stays, L -> c L       if nothing depends on the size of the gradient
    role-mean
    weight-sum                            D -> c D, L stays       always

Source: arXiv 2507.07817, eq. 2. The paper's grid of 35 cells has 21 such classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.config import TuneConfig
from holdfast.errors import HoldfastError
from holdfast.records import PROMPT_ROLES, RESPONSE_ROLES, Role
from holdfast.study.spec import Spec
from holdfast.tune.weights import RoleWeights, role_weights, share, share_counts

PAPER = tuple(round(i / 5, 1) for i in range(6))
_NAMED = ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0))
_SHORT = {"learning_rate": "lr", "prompt_weight": "", "response_weight": ""}
_LARGEST_EPSILON = 1e-7

TrainingClass = tuple[str, tuple[float, ...]]


@dataclass(frozen=True)
class Targets:
    """Weighted target tokens of the training data by role. ``scaled``: messages or examples have weights, too.
    ``counted``: the number of those whose weight is not 0, where it is another."""

    counts: Mapping[Role, float]
    scaled: bool = False
    counted: Mapping[Role, float] | None = None

    @property
    def roles(self) -> tuple[Role, ...]:
        """Return the roles that occur."""
        return tuple(role for role in (*PROMPT_ROLES, *RESPONSE_ROLES) if self.counts.get(role, 0) > 0)

    def shared(self, normalizer: str) -> dict[Role, float]:
        """Return what each role brings into the loss per unit of its weight, as ``weights.prompt_share`` counts it."""
        return share_counts(normalizer, self.counts, self.counts if self.counted is None else self.counted)


def settings(spec: Spec, targets: Targets) -> list[dict[str, Any]]:
    """Return every combination that the study asks for, as TuneConfig fields with the weights among them.

    Raises:
        HoldfastError: a weight or share out of range.
    """
    others = [dict(zip(spec.vary, values, strict=True)) for values in itertools.product(*spec.vary.values())]
    usual = spec.settled.get("normalizer", TuneConfig.normalizer)
    columns = [weight_pairs(spec, targets.shared(fields.get("normalizer", usual))) for fields in others]
    rows = zip(*columns, strict=True) if columns[0] else [[None] * len(others)]
    cells = itertools.chain.from_iterable(zip(row, others, strict=True) for row in rows)
    return [_weights_of_pair(pair) | fields for pair, fields in cells]


def _weights_of_pair(pair: tuple[float, float] | None) -> dict[str, float]:
    return {} if pair is None else dict(zip(("prompt_weight", "response_weight"), pair, strict=True))


def weight_pairs(spec: Spec, counts: Mapping[Role, float]) -> list[tuple[float, float]]:
    """Return (prompt weight, response weight) of every cell; none where weights are not varied. ``counts``: see
    ``Targets.shared``."""
    weights, search = spec.weights, spec.search
    if weights is None and search.kind == "grid":
        return []
    if weights is None:
        steps = [
            search.low * (search.high / search.low) ** (i / max(search.points - 2, 1)) for i in range(search.points - 1)
        ]
        weights = {"share": [0.0, *(float(f"{s:.2g}") for s in steps)]}
    if weights == "paper":
        weights = {"prompt": list(PAPER), "response": list(PAPER)}
    if isinstance(weights, list):
        return [(prompt, response) for prompt, response in weights]
    if "ratio" in weights:
        return [_pair(_unit(r, "ratio")) for r in weights["ratio"]]
    if "share" in weights:
        return [_pair(ratio_of_share(_unit(s, "share"), counts)) for s in weights["share"]]
    return [pair for pair in itertools.product(weights["prompt"], weights["response"]) if any(pair)]


def ratio_of_share(s: float, counts: Mapping[Role, float]) -> float:
    """Return the ratio p = lambda_p / (lambda_p + lambda_r) that gives prompt tokens the share ``s`` of the weighted
    targets. With P prompt and R response targets, s = pP / (pP + (1 - p)R), so p = sR / (sR + (1 - s)P). Under
    role-mean a role counts once, whatever the number of its targets.
    """
    prompt = sum(counts.get(role, 0) for role in PROMPT_ROLES)
    response = sum(counts.get(role, 0) for role in RESPONSE_ROLES)
    if 0 < s < 1 and not (prompt and response):
        raise HoldfastError(
            "vary.weights.share: this data has targets of one kind only, so no share can be had",
            hint="give pairs instead",
        )
    return s if s in (0.0, 1.0) else s * response / (s * response + (1 - s) * prompt)


def _unit(value: float, name: str) -> float:
    if not 0 <= value <= 1:
        raise HoldfastError(f"vary.weights.{name} is {value}; it must be between 0 and 1")
    return value


def _pair(ratio: float) -> tuple[float, float]:
    """Return weights that sum to 1, with few digits."""
    prompt = float(f"{ratio:.4g}")
    return prompt, round(1 - prompt, 12)


def weights_of(config: TuneConfig) -> RoleWeights:
    """Return the weight of every role under a config."""
    return role_weights(config.prompt_weight, config.response_weight, config.preset, config.weights)


def pair_of(weights: RoleWeights) -> tuple[float, float]:
    """Return the weights of user and assistant text, which stand for those of all prompt and all response roles."""
    return weights[Role.USER], weights[Role.ASSISTANT]


def scale_matters(config: TuneConfig) -> str | None:
    """Return why a loss scaled by a constant would be another training under this config; None where it is the same.

    Raises:
        HoldfastError: ``adam_epsilon`` is not a number.
    """
    training = config.training
    optimizer = training.get("optim", "adamw_torch")
    try:
        epsilon = float(training.get("adam_epsilon", "1e-8"))
    except ValueError as error:
        raise HoldfastError(f"training: adam_epsilon is {training['adam_epsilon']!r}; it must be a number") from error
    if not str(optimizer).removeprefix("paged_").startswith("adamw"):
        return f"optimizer {optimizer} follows the size of the gradient"
    clip = 1.0 if config.max_grad_norm is None else config.max_grad_norm
    if clip > 0:
        return f"gradients are clipped at {clip:g}"
    if epsilon > _LARGEST_EPSILON:
        return f"adam_epsilon {epsilon:g} is not small against the gradients"
    return None


def training_class(weights: RoleWeights, normalizer: str, *, scale_free: bool, targets: Targets) -> TrainingClass:
    """Return a key of weights and normalizer that is equal for settings of the same training.

    Args:
        scale_free: whether a loss multiplied by a constant is the same training (``scale_matters``).
        targets: only the roles in them count, because the weight of a role without tokens changes nothing.
    """
    table = {role: weights[role] for role in targets.roles or (*PROMPT_ROLES, *RESPONSE_ROLES)}
    used = [role for role, weight in table.items() if weight]
    if normalizer == "weight-sum":
        largest = max(table.values(), default=0.0) or 1.0
        table = {role: weight / largest for role, weight in table.items()}
    if not targets.scaled and _divides_like_nonzero(normalizer, table, used):
        normalizer = "nonzero"
    if scale_free:
        total = math.fsum(table.values())
        return normalizer, tuple(share(weight, total - weight) if total else 0.0 for weight in table.values())
    return normalizer, tuple(round(weight, 12) for weight in table.values())


def _divides_like_nonzero(normalizer: str, table: Mapping[Role, float], used: Collection[Role]) -> bool:
    """Return whether the divisor is the number of tokens of non-zero weight. It is under weight-sum where all weights
    are 0 or 1, under response-count where exactly the responses have weight, and under role-mean where one role has."""
    if normalizer == "weight-sum":
        return all(weight in (0.0, 1.0) for weight in table.values())
    if normalizer == "role-mean":
        return len(used) == 1
    return normalizer == "response-count" and set(used) == {role for role in table if role in RESPONSE_ROLES}


def representative(pairs: list[tuple[float, float]]) -> int:
    """Return the place of the cell that is trained for its class: (0, 1), (1, 1) or (1, 0), else the first."""
    return next((pairs.index(pair) for pair in _NAMED if pair in pairs), 0)


def setting_name(pair: tuple[float, float], others: Mapping[str, Any]) -> str:
    """Return the name that tables show: ``(0.2, 0.8), lr 0.0001``."""
    texts = [f"{_SHORT.get(key, key)} {_short(value)}" for key, value in others.items()]
    return ", ".join([f"({pair[0]:.4g}, {pair[1]:.4g})", *texts])


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} {_short(item)}" for key, item in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
