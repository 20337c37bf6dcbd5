"""Weights, presets, ratios and divisors."""

from __future__ import annotations

import itertools

import pytest
import torch

from holdfast.errors import HoldfastError
from holdfast.records import Role
from holdfast.tune.weights import PRESETS, check_weight, prompt_share, role_weights, scale_twin, share, token_weights

GRID = [0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_default_is_conventional() -> None:
    assert role_weights() == role_weights(preset="conventional") == role_weights(0, 1)
    assert role_weights()[Role.EOS] == 1
    assert role_weights()[Role.TEMPLATE] == 0


def test_presets() -> None:
    assert set(PRESETS) == {"conventional", "continual", "prompt-only", "instruction-modelling"}
    assert role_weights(preset="continual")[Role.TEMPLATE] == 1
    modelling = role_weights(preset="instruction-modelling")
    assert (modelling[Role.TEMPLATE], modelling[Role.USER], modelling[Role.EOS]) == (0, 1, 1)
    assert role_weights(preset="prompt-only")[Role.ASSISTANT] == 0


def test_single_roles_win_over_the_pair() -> None:
    made = role_weights(0.2, 0.8, weights={"system": 0, "eos": 1})
    assert (made[Role.SYSTEM], made[Role.USER], made[Role.ASSISTANT], made[Role.EOS]) == (0, 0.2, 0.8, 1)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), 1e-7, -float("inf")])
def test_bad_weights(value: float) -> None:
    with pytest.raises(HoldfastError, match="--prompt-weight"):
        role_weights(prompt_weight=value)


@pytest.mark.parametrize("value", [0, 1e-6, 0.3, 1, 25])
def test_good_weights(value: float) -> None:
    assert check_weight(value, "w") == value


def test_all_zero_unknown_role_unknown_preset() -> None:
    with pytest.raises(HoldfastError, match="all weights are zero"):
        role_weights(0, 0)
    with pytest.raises(HoldfastError, match="unknown role 'reader'"):
        role_weights(weights={"reader": 1})
    with pytest.raises(HoldfastError, match="unknown role 'pad'"):
        role_weights(weights={"pad": 1})
    with pytest.raises(HoldfastError, match="unknown preset"):
        role_weights(preset="best")


def test_paper_grid_is_21_trainings() -> None:
    pairs = [(p, r) for p, r in itertools.product(GRID, GRID) if (p, r) != (0, 0)]
    assert len(pairs) == 35
    assert len({share(p, r) for p, r in pairs}) == 21
    assert share(0.1 + 0.2, 0.3) == share(1, 1)


def test_scale_twins() -> None:
    assert scale_twin(0, 0.4) == "conventional"
    assert scale_twin(0.5, 0.5) == "continual"
    assert scale_twin(0.4, 0) == "prompt-only"
    assert scale_twin(0, 1) is scale_twin(1, 1) is scale_twin(0.2, 0.8) is None


def test_effective_prompt_share() -> None:
    counts = {Role.USER: 2, Role.ASSISTANT: 2, Role.EOS: 1}
    assert prompt_share(counts, role_weights(0.2, 0.8)) == pytest.approx(0.4 / 2.8)
    assert prompt_share(counts, role_weights(0, 1)) == 0


def test_token_weights_multiply_and_skip_the_first() -> None:
    roles = torch.tensor([[Role.TEMPLATE, Role.USER, Role.ASSISTANT, Role.EOS, Role.PAD]])
    scale = torch.tensor([[1.0, 2.0, 0.5, 0.5, 1.0]])
    made = token_weights(roles, role_weights(0.2, 0.8), scale)
    assert made.dtype is torch.float32
    torch.testing.assert_close(made, torch.tensor([[0.0, 0.4, 0.4, 0.4, 0.0]]))
