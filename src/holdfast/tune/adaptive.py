"""Weights that look at the token: a factor g, made without gradient from the logits of the same pass.

    effective weight = role x message x example x g(token)            L = sum_t w_t g_t nll_t / divisor
    g = p^power  x  [low <= p <= high]  x  (H / ln K)^entropy
    p = exp(-nll) of the target;  H: entropy of the K largest logits

One denominator policy: the divisor is that of the static weights (``weights.NORMALIZERS``), known before the forward
pass, so a factor never changes how much the other tokens count. The methods' own normalisers, and when they hurt, stand
in docs/adaptive.md.

Axes: N rows (targets), V vocabulary, K largest logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdfast.errors import HoldfastError, nearest

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 20
"""K of the entropy, as in EAFT."""


@dataclass(frozen=True)
class Adaptive:
    """The exponents and bounds of g. As it stands, g = 1."""

    power: float = 0.0
    low: float = 0.0
    high: float = 1.0
    entropy: float = 0.0

    def entropy_factor(self, z_NV: Tensor) -> Tensor | None:
        """Return (H / ln K)^entropy of the logits as the softmax sees them; None if it plays no part.

        Computed in the type of the logits, which is float32 or better.
        """
        if not self.entropy:
            return None
        logp_NK = z_NV.topk(min(LARGEST, z_NV.shape[-1]), dim=-1).values.log_softmax(-1)
        entropy_N = -(logp_NK.exp() * logp_NK).sum(-1) / math.log(logp_NK.shape[-1])
        return entropy_N.clamp_(min=0).pow_(self.entropy)

    def factor(self, nll_N: Tensor, entropy_N: Tensor | None = None) -> Tensor:
        """g of every row, given the NLL of its target and what ``entropy_factor`` made."""
        p_N = (-nll_N).exp()
        g_N = (-self.power * nll_N).exp() * ((p_N >= self.low) & (p_N <= self.high))
        return g_N if entropy_N is None else g_N * entropy_N


# name -> (field, value when none is given, largest value). A value of None has to be given.
METHODS: dict[str, tuple[str, float | None, float]] = {
    "dft": ("power", 1.0, 1.0),
    "power": ("power", None, 10.0),
    "eaft": ("entropy", 1.0, 10.0),
    "above": ("low", None, 1.0),
    "below": ("high", None, 1.0),
}


def parse(text: str) -> Adaptive | None:
    """Return the factor that ``--adaptive`` names: methods joined by +, each with a number where it takes one.

    Such as ``dft``, ``power:0.5`` or ``eaft+above:0.01``.

    Returns:
        None for ``none``.

    Raises:
        HoldfastError: unknown name, or a number that is missing, no number or out of bounds.
    """
    factors = Adaptive()
    if text.strip() in ("", "none"):
        return None
    for part in text.split("+"):
        name, _, number = part.strip().partition(":")
        if name not in METHODS:
            raise HoldfastError(
                f"--adaptive {text}: unknown method '{name}'; known: none, {', '.join(METHODS)}",
                hint=nearest(name, METHODS),
            )
        field, default, largest = METHODS[name]
        if getattr(factors, field) != getattr(Adaptive(), field):
            raise HoldfastError(f"--adaptive {text}: {field} is set twice")
        factors = replace(factors, **{field: _value(text, name, number, default, largest)})
    return factors


def _value(text: str, name: str, number: str, default: float | None, largest: float) -> float:
    if not number and default is None:
        raise HoldfastError(f"--adaptive {text}: '{name}' needs a number", hint=f"such as {name}:0.1")
    try:
        value = float(number) if number else float(default or 0)
    except ValueError:
        value = math.nan
    if not 0 < value <= largest:
        raise HoldfastError(f"--adaptive {text}: '{number}' is no number above 0 and at most {largest:g}")
    return value
