"""Roles -> weights -> divisor.

    effective weight of a token = weight of its role x weight of its message x weight of its example
    L = sum_t w_t nll_t / divisor                                   (arXiv 2507.07817, eq. 2; normalizer "nonzero")

Only the ratio of the weights matters under AdamW without clipping: (0, 0.4) is the same training as (0, 1). ``share``
is the name we give to a ratio, ``scale_twin`` says when two settings are one.

Axes: B batch, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from holdfast.data.weights import check_weight
from holdfast.errors import HoldfastError
from holdfast.records import PROMPT_ROLES, RESPONSE_ROLES, Role

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PRESETS: dict[str, tuple[float, float, dict[str, float]]] = {
    "conventional": (0.0, 1.0, {}),
    "continual": (1.0, 1.0, {}),
    "prompt-only": (1.0, 0.0, {}),
    "instruction-modelling": (1.0, 1.0, {"template": 0.0}),
}

RoleWeights = dict[Role, float]


def role_weights(
    prompt_weight: float | None = None,
    response_weight: float | None = None,
    preset: str | None = None,
    weights: Mapping[str, float] | None = None,
) -> RoleWeights:
    """The weight of every role: preset, then the pair, then single roles. Default: conventional, (0, 1).

    Args:
        prompt_weight: system, user, tool and template tokens (lambda_p).
        response_weight: all that the model writes: assistant, think, tool_call, format, empty_think and eos tokens
            (lambda_r).
        preset: a key of ``PRESETS``.
        weights: role name -> weight.

    Raises:
        HoldfastError: unknown preset or role, a bad weight, or nothing but zeros.
    """
    if preset is not None and preset not in PRESETS:
        raise HoldfastError(f"unknown preset '{preset}'; known: {', '.join(PRESETS)}")
    prompt, response, single = PRESETS[preset or "conventional"]
    prompt = check_weight(prompt if prompt_weight is None else prompt_weight, "--prompt-weight")
    response = check_weight(response if response_weight is None else response_weight, "--response-weight")
    table = {Role.PAD: 0.0} | dict.fromkeys(PROMPT_ROLES, prompt) | dict.fromkeys(RESPONSE_ROLES, response)
    for name, value in {**single, **(weights or {})}.items():
        try:
            role = Role[name.upper()]
        except KeyError:
            role = Role.PAD
        if role is Role.PAD:
            names = ", ".join(r.label for r in (*PROMPT_ROLES, *RESPONSE_ROLES))
            raise HoldfastError(f"weights: unknown role '{name}'; roles are {names}")
        table[role] = check_weight(value, f"weights.{name}")
    if not any(table.values()):
        raise HoldfastError(
            "all weights are zero, so there is nothing to learn",
            hint="give --response-weight or --prompt-weight a value > 0",
        )
    return table


def share(prompt_weight: float, response_weight: float) -> float:
    """The ratio of two weights as one number in [0, 1]: lambda_p / (lambda_p + lambda_r), rounded to 12 digits so that
    0.1 + 0.2 : 0.3 equals 1 : 1. Settings of equal share are the same training under AdamW without clipping."""
    return round(prompt_weight / (prompt_weight + response_weight), 12)


def scale_twin(prompt_weight: float, response_weight: float) -> str | None:
    """Return the preset of which this pair is only a scaled copy, or None.

    (0, 0.4) gives 'conventional'; (0, 1) itself gives None.
    """
    for name in ("conventional", "continual", "prompt-only"):
        pair = PRESETS[name][:2]
        if (prompt_weight, response_weight) != pair and share(prompt_weight, response_weight) == share(*pair):
            return name
    return None


def prompt_share(counts: Mapping[Role, float], weights: RoleWeights) -> float:
    """Return the effective prompt share s = sum of prompt weights / sum of all weights.

    ``counts``: target tokens per role, or their weighted counts.
    """
    prompt = sum(weights[r] * counts.get(r, 0) for r in PROMPT_ROLES)
    response = sum(weights[r] * counts.get(r, 0) for r in RESPONSE_ROLES)
    return prompt / (prompt + response) if prompt + response else math.nan


def token_weights(
    roles_BT: Tensor, weights: RoleWeights, scale_BT: Tensor | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Weight of every token as a target, [B, T]. Position 0 is never a target, so its weight is 0.

    Args:
        roles_BT: role ids, any integer type.
        scale_BT: message weight x example weight, float32, or None for all ones.
        dtype: float32 unless given.
    """
    import torch

    table = torch.tensor(
        [weights[Role(i)] for i in range(len(Role))], dtype=dtype or torch.float32, device=roles_BT.device
    )
    weights_BT = table[roles_BT.long()]
    if scale_BT is not None:
        weights_BT = weights_BT * scale_BT
    weights_BT[:, 0] = 0
    return weights_BT


def target_mask(roles_BT: Tensor, roles: Iterable[Role]) -> Tensor:
    """Which positions are targets of one of these roles, bool [B, T]; position 0 never is."""
    import torch

    mask_BT = torch.isin(roles_BT, torch.tensor([int(r) for r in roles], device=roles_BT.device))
    mask_BT[:, 0] = False
    return mask_BT


def role_counts(weights_BT: Tensor, roles_BT: Tensor) -> Tensor:
    """Number of tokens of non-zero weight of every role, float64 [roles]. Counts add up over micro-batches and
    ranks.
    """
    import torch

    weighted = roles_BT[weights_BT != 0].long()
    return torch.bincount(weighted, minlength=len(Role)).to(
        torch.float32 if weighted.device.type == "mps" else torch.float64
    )


def share_counts(
    normalizer: str, weighted_targets: Mapping[Role, float], counted_targets: Mapping[Role, float]
) -> dict[Role, float]:
    """What ``prompt_share`` is to count: weighted targets by role; their mean where each role is divided by its own
    number of targets.

    ``weighted_targets``: sums of the factors of messages and examples; ``counted_targets``: how many of these are not 0
    (see ``roles.TokenReport``).
    """
    if normalizer != "role-mean":
        return dict(weighted_targets)
    return {role: total / counted_targets[role] for role, total in weighted_targets.items() if total}


# A normalizer: (weights_BT, roles_BT, counts_R=None) -> (weights_BT as they enter the sum, each example's part of the
# divisor [B]). Parts add up over examples, micro-batches and ranks; the division happens once per optimizer step.
# ``counts_R`` are the ``role_counts`` of the whole step; None: the step is this batch.
NormalizerFn = Callable[..., tuple["Tensor", "Tensor"]]


def _example(weights_BT: Tensor) -> tuple[Tensor, Tensor]:
    count_B = (weights_BT != 0).sum(1)
    return weights_BT / count_B.clamp(min=1)[:, None], (count_B != 0).long()


def _role_mean(weights_BT: Tensor, roles_BT: Tensor, counts_R: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """L = sum over roles of (1 / n_role) sum_t w_t nll_t, with n_role the role's tokens of non-zero weight in the step.

    The divisor is 1 for the whole step; an example's part of it is its part of the tokens of non-zero weight.
    """
    counts_R = role_counts(weights_BT, roles_BT) if counts_R is None else counts_R.to(weights_BT.device)
    own_BT = counts_R.clamp(min=1)[roles_BT.long()]
    count_B = (weights_BT != 0).sum(1).to(counts_R.dtype)
    return (weights_BT / own_BT).to(weights_BT.dtype), count_B / counts_R.sum().clamp(min=1)


NORMALIZERS: dict[str, NormalizerFn] = {
    "nonzero": lambda weights_BT, *_: (weights_BT, (weights_BT != 0).sum(1)),  # eq. 2 of arXiv 2507.07817
    "weight-sum": lambda weights_BT, *_: (weights_BT, weights_BT.double().sum(1)),
    "response-count": lambda weights_BT, roles_BT, *_: (weights_BT, target_mask(roles_BT, RESPONSE_ROLES).sum(1)),
    "example": lambda weights_BT, *_: _example(weights_BT),
    "role-mean": _role_mean,
}
