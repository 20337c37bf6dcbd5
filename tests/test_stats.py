"""Intervals and tests against plain loops and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from holdfast import stats

VALUES = np.random.default_rng(3).normal(0.3, 1, 57)


def test_bootstrap_draws_whole_units_one_draw_after_the_other() -> None:
    rng = np.random.default_rng(5)
    means = [VALUES[rng.integers(0, len(VALUES), len(VALUES))].mean() for _ in range(700)]
    assert stats.bootstrap(VALUES, 5, 700) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))), rel=1e-12)


def test_a_large_sample_is_resampled_in_parts_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stats.bootstrap(VALUES, 1)
    monkeypatch.setattr(stats, "_BATCH_VALUES", 100)
    assert stats.bootstrap(VALUES, 1) == pytest.approx(whole, rel=1e-12)


def test_one_unit_has_no_spread_and_none_has_no_interval() -> None:
    assert stats.bootstrap([2.0], 0) == (2.0, 2.0)
    with pytest.raises(ValueError, match="needs a value"):
        stats.bootstrap([], 0)


def test_units_of_several_values_are_drawn_as_a_whole() -> None:
    sums, sizes = np.array([3.0, 0.0, 1.0]), np.array([3, 1, 2])
    low, high = stats.bootstrap_of((sums, sizes), lambda s, n, axis: s.sum(axis) / n.sum(axis), 0)
    assert (low, high) == (0.0, 1.0)


def test_sign_flips_are_exact_where_few() -> None:
    x = VALUES[:9]
    as_far = [abs(np.dot(signs, x)) >= abs(x.sum()) - 1e-12 for signs in itertools.product((-1, 1), repeat=9)]
    assert stats.sign_flips(x, 0) == pytest.approx(np.mean(as_far))
    assert stats.sign_flips(np.zeros(4), 0) == 1.0
    assert stats.sign_flips(np.array([2.0]), 0) == 1.0


def test_sign_flips_are_drawn_where_many() -> None:
    assert stats.sign_flips(VALUES, 0, 2000) == pytest.approx(stats.sign_flips(VALUES, 1, 20_000), abs=0.03)
    assert stats.sign_flips(VALUES + 5, 0, 99) == pytest.approx(0.01)


def test_paired_t_without_scatter() -> None:
    assert stats.paired_t([1, 1], [1, 1])["p"] == 0.5
    gained = stats.paired_t([1, 1], [0, 0])
    assert (gained["t"], gained["p"], gained["low"], gained["high"]) == (math.inf, 0.0, 100.0, 100.0)
    assert math.isnan(stats.paired_t([1], [0])["p"])


def test_sign_test_and_proportion() -> None:
    assert stats.sign_test(0, 0) == 1.0
    assert stats.sign_test(5, 0) == pytest.approx(2 / 32)
    assert stats.proportion(0, 10)["low"] == 0
    assert math.isnan(stats.percentage(0, 0)["value"])


def test_corrections_over_a_family() -> None:
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    adjusted = stats.benjamini_hochberg([0.01, math.nan, 0.04, 0.03])
    assert math.isnan(adjusted[1])
    assert [adjusted[i] for i in (0, 2, 3)] == pytest.approx([0.03, 0.04, 0.04])
