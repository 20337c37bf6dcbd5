"""Weights that look at the token: worked out by hand on five tokens, and bad names."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.config import TuneConfig
from holdfast.errors import HoldfastError
from holdfast.tune import train
from holdfast.tune.adaptive import Adaptive, parse
from holdfast.tune.loss import weighted_linear_cross_entropy

# Five tokens over a vocabulary of four. Logits are log-probabilities, the head is the identity.
P = torch.tensor(
    [
        [0.5, 0.25, 0.125, 0.125],
        [0.25, 0.25, 0.25, 0.25],
        [0.125, 0.5, 0.25, 0.125],
        [0.97, 0.01, 0.01, 0.01],
        [0.01, 0.97, 0.01, 0.01],
    ],
    dtype=torch.float64,
)
TARGETS = torch.tensor([0, 1, 2, 0, 0])
PROBABILITY = [0.5, 0.25, 0.25, 0.97, 0.01]
WEIGHTS = torch.tensor([1.0, 1.0, 0.5, 1.0, 2.0], dtype=torch.float64)
SKEWED = (0.5 * math.log(2) + 0.25 * math.log(4) + 2 * 0.125 * math.log(8)) / math.log(4)  # 1.75 bits of 2
SHARP = -(0.97 * math.log(0.97) + 3 * 0.01 * math.log(0.01)) / math.log(4)


@pytest.mark.parametrize(
    ("method", "g"),
    [
        ("none", [1, 1, 1, 1, 1]),
        ("dft", PROBABILITY),
        ("power:0.5", [p**0.5 for p in PROBABILITY]),
        ("eaft", [SKEWED, 1, SKEWED, SHARP, SHARP]),
        ("eaft:2", [SKEWED**2, 1, SKEWED**2, SHARP**2, SHARP**2]),
        ("above:0.25", [1, 1, 1, 1, 0]),
        ("below:0.5", [1, 1, 1, 0, 1]),
        ("dft+above:0.3", [0.5, 0, 0, 0.97, 0]),
    ],
)
def test_five_tokens_by_hand(method: str, g: list[float]) -> None:
    """The divisor stays the number of targets of non-zero weight, five."""
    expected = sum(float(w) * g * -math.log(p) for w, g, p in zip(WEIGHTS, g, PROBABILITY, strict=True)) / 5
    loss, nll = weighted_linear_cross_entropy(
        P.log(), torch.eye(4, dtype=torch.float64), TARGETS, WEIGHTS, divisor=5, adaptive=parse(method)
    )
    assert float(loss) == pytest.approx(expected, abs=1e-9)
    assert nll.tolist() == pytest.approx([-math.log(p) for p in PROBABILITY], abs=1e-9)


def test_the_gradient_of_the_power_family_is_that_of_its_loss() -> None:
    """(1 - p^q)/q has the gradient of p^q nll with p^q held fixed (arXiv 2510.00526)."""
    q = 0.7
    hidden = P.log().clone().requires_grad_()
    p = hidden.softmax(-1).gather(1, TARGETS[:, None])[:, 0]
    ((1 - p**q) / q).sum().backward()
    other = P.log().clone().requires_grad_()
    loss, _ = weighted_linear_cross_entropy(
        other,
        torch.eye(4, dtype=torch.float64),
        TARGETS,
        torch.ones(5, dtype=torch.float64),
        divisor=1,
        adaptive=Adaptive(power=q),
    )
    loss.backward()
    assert hidden.grad is not None
    assert other.grad is not None
    assert torch.allclose(hidden.grad, other.grad, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("dtf", "did you mean 'dft'"),
        ("power", "needs a number"),
        ("power:x", "no number"),
        ("above:1.5", "at most 1"),
        ("below:0", "above 0"),
        ("above:nan", "no number"),
        ("dft+power:2", "set twice"),
    ],
)
def test_what_cannot_be_meant_is_said(given: str, said: str) -> None:
    with pytest.raises(HoldfastError) as error:
        parse(given)
    assert said in str(error.value)


def test_a_bad_name_stops_the_run_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match="adaptive"):
        train(TuneConfig(model="nowhere", data="nothing.jsonl", output=str(tmp_path / "run"), adaptive="eatf"))
    assert not (tmp_path / "run").exists()


def tuned(output: Path, **options: Any) -> dict[str, Any]:
    shape = {"limit": 20, "max_steps": 2, "batch_size": 8, "eval_share": 0.2}
    return train(TuneConfig(model="pocket", data="pocket:instructions", output=str(output), **(shape | options)))


def test_evaluation_does_not_know_of_it_and_training_does(tmp_path: Path) -> None:
    plain, dft = (tuned(tmp_path / method, adaptive=method) for method in ("none", "dft"))
    assert plain["before"] == dft["before"]
    assert plain["after"]["response_nll"] != dft["after"]["response_nll"]


def test_prompt_tokens_are_left_alone_unless_asked(tmp_path: Path) -> None:
    only_prompts = {"prompt_weight": 1.0, "response_weight": 0.0}
    plain = tuned(tmp_path / "plain", **only_prompts)
    assert tuned(tmp_path / "response", adaptive="dft", **only_prompts)["after"] == plain["after"]
    assert tuned(tmp_path / "all", adaptive="dft", adaptive_on="all", **only_prompts)["after"] != plain["after"]
