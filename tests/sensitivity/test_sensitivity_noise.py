"""The noise of answers: exact values, and by simulation that the interval of the effect covers the true effect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from holdfast.sensitivity import noise


def test_shares_of_unequal_pairs() -> None:
    labels = [["a", "a", "b"], ["a", "b", "b"]]
    # between: of nine pairs 2 x 1 + 1 x 2 are equal; within: two of three pairs differ in each wording
    assert noise.differ(labels) == pytest.approx(5 / 9)
    assert noise.noise(labels) == pytest.approx(2 / 3)
    assert noise.changes(labels)["effect"] == pytest.approx(5 / 9 - 2 / 3)


def test_answers_that_never_change_have_neither_noise_nor_effect() -> None:
    assert noise.changes([["a"] * 3] * 4) == {"differ": 0.0, "noise": 0.0, "effect": 0.0}


def test_wordings_with_answers_of_their_own_are_all_effect() -> None:
    assert noise.changes([["a"] * 2, ["b"] * 2]) == {"differ": 1.0, "noise": 0.0, "effect": 1.0}


def test_one_repeat_gives_no_corrected_number() -> None:
    assert noise.changes([["a"], ["b"], ["a"]]) == {"differ": pytest.approx(2 / 3), "noise": None, "effect": None}
    summary = noise.over_prompts([noise.changes([["a"], ["b"]]), noise.changes([["a"], ["a"]])], 0, 100)
    assert (summary["noise"], summary["effect"], summary["changed"], summary["prompts"]) == (None, None, 1, 2)
    assert summary["differ"]["mean"] == 0.5


def world(rng: Any, prompts: int, wordings: int, repeats: int, moved: float) -> tuple[list[Any], float]:
    """Prompts whose wordings have distributions over three answers that are ``moved`` apart; the mean true effect."""
    measured, effects = [], []
    for _ in range(prompts):
        base = rng.dirichlet([1, 1, 1])
        p_VC = np.array([(1 - moved) * base + moved * rng.dirichlet([1, 1, 1]) for _ in range(wordings)])
        same = float((p_VC**2).sum(1).mean())
        products_VV = p_VC @ p_VC.T
        between = float((products_VV.sum() - np.trace(products_VV)) / (wordings * (wordings - 1)))
        effects.append(same - between)
        measured.append(noise.changes([rng.choice(3, repeats, p=p).tolist() for p in p_VC]))
    return measured, float(np.mean(effects))


@pytest.mark.parametrize("moved", [0.0, 0.6])
@pytest.mark.parametrize(
    ("worlds", "least"), [(60, 0.88), pytest.param(1500, 0.91, marks=pytest.mark.full)], ids=["short", "long"]
)
def test_the_interval_of_the_effect_covers_it(worlds: int, least: float, moved: float) -> None:
    """95 % intervals over 40 prompts; the short form allows for chance in few worlds."""
    rng = np.random.default_rng(7)
    hits, errors = 0, []
    for seed in range(worlds):
        measured, effect = world(rng, prompts=40, wordings=4, repeats=3, moved=moved)
        estimate = noise.over_prompts(measured, seed, 300)["effect"]
        # The prompts are drawn anew in every world: the target is the mean effect of the ones that were measured.
        hits += estimate["low"] <= effect <= estimate["high"]
        errors.append(estimate["mean"] - effect)
    assert hits / worlds >= least
    assert abs(np.mean(errors)) < 3 * np.std(errors) / worlds**0.5 + 1e-9
