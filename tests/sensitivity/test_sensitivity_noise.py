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


def world(rng: Any, prompts: int, wordings: int, repeats: int, moved: float) -> list[Any]:
    """Prompts whose wordings have distributions over three answers that are ``moved`` apart."""
    measured = []
    for _ in range(prompts):
        base = rng.dirichlet([1, 1, 1])
        p_VC = [(1 - moved) * base + moved * rng.dirichlet([1, 1, 1]) for _ in range(wordings)]
        measured.append(noise.changes([rng.choice(3, repeats, p=p).tolist() for p in p_VC]))
    return measured


@pytest.mark.parametrize("moved", [0.0, 0.6])
@pytest.mark.parametrize(
    ("worlds", "prompts", "repeats", "least"),
    [
        (60, 40, 3, 0.88),
        *(pytest.param(1500, n, k, 0.925, marks=pytest.mark.full) for n, k in ((8, 2), (12, 3), (20, 5), (40, 3))),
    ],
)
def test_the_interval_of_the_effect_covers_it(
    worlds: int, prompts: int, repeats: int, least: float, moved: float
) -> None:
    """95 % intervals; the short form allows for chance in few worlds."""
    rng = np.random.default_rng(7)
    # The mean over all prompts that there could be: moved^2 times the variance of a distribution, 3 x 1/3 x 2/3 / 4.
    effect = moved**2 / 6
    hits, errors = 0, []
    for seed in range(worlds):
        measured = world(rng, prompts, wordings=4, repeats=repeats, moved=moved)
        estimate = noise.over_prompts(measured, seed, 300)["effect"]
        hits += estimate["low"] <= effect <= estimate["high"]
        errors.append(estimate["mean"] - effect)
    assert hits / worlds >= least
    assert abs(np.mean(errors)) < 3 * np.std(errors) / worlds**0.5 + 1e-9


def test_the_interval_leans_to_the_side_of_the_skew_and_stays_in_range() -> None:
    """Student's interval at one end, the percentiles at the other; one prompt has no spread."""
    measured = [noise.changes([["a", "a"], ["a", "a"]])] * 9 + [noise.changes([["a", "a"], ["b", "b"]])]
    estimate = noise.over_prompts(measured, 0, 2000)["effect"]
    assert estimate["low"] == pytest.approx(0.1 - 2.262 * 0.1, abs=1e-3)
    assert estimate["high"] == pytest.approx(0.4, abs=1e-6)
    assert noise.over_prompts(measured, 0, 2000)["differ"]["low"] == 0
    alone = noise.over_prompts(measured[-1:], 0, 2000)["effect"]
    assert (alone["low"], alone["high"]) == (1, 1)
