"""The index and its companions against hand-worked values, and the properties that tell the right formula from its
likely mistakes.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from holdfast.sensitivity import metrics
from holdfast.sensitivity.index import (
    consistency_rate,
    logp_spread,
    psi,
    psi_by_prompt,
    psi_by_response,
    psi_released,
    psi_signed,
    response_entropy,
    unique_responses,
    variation_ratio,
)
from holdfast.stats import bootstrap_mean, paired_difference

T1 = np.array([[-1.0, -6.0, -4.0], [-3.0, -2.0, -9.0], [-0.4, -8.0, -2.5]])
L1 = np.array([2, 4, 5])
T2 = np.repeat(np.array([[-1.0], [-1.6], [-3.0], [-1.0]]), 4, axis=1)
T3 = np.array([[-0.5, -7.5], [-4.5, -1.5]])


def off_diagonal(values: np.ndarray, divisor: int) -> float:
    return float((values.sum() - np.trace(values)) / divisor)


def test_three_prompts_of_unequal_lengths_and_every_likely_mistake() -> None:
    own = np.diag(T1)
    mistakes = {
        "released": psi_released(T1, 5),
        "constant divisor": off_diagonal(np.abs(T1 - own) / 5, 6),
        "transposed": psi(T1.T, L1),
        "row's length": off_diagonal(np.abs(T1 - own) / L1[:, None], 6),
        "N squared": off_diagonal(np.abs(T1 - own) / L1, 9),
        "no absolute value": -psi_signed(T1, L1),
    }
    expected = {
        "released": 59 / 75,
        "constant divisor": 0.68666666666,
        "transposed": 1.25333333333,
        "row's length": 1.0325,
        "N squared": 0.6,
        "no absolute value": -0.8,
    }
    assert psi(T1, L1) == pytest.approx(0.9, abs=1e-12)
    assert mistakes == pytest.approx(expected, abs=1e-9)
    assert psi_by_prompt(T1, L1) == pytest.approx([0.65, 1.15, 0.9])
    assert psi_by_response(T1, L1) == pytest.approx([0.65, 1.25, 0.8])


def test_identical_responses_two_prompts_and_the_data_set() -> None:
    assert psi(T2, np.full(4, 2)) == pytest.approx(0.55)
    assert psi_released(T2, 2) == 0
    assert psi(T3, np.array([2, 3])) == pytest.approx(2.0)
    assert psi_released(T3, 3) == pytest.approx(5 / 3)
    values = [psi(T1, L1), psi(T2, np.full(4, 2)), psi(T3, np.array([2, 3]))]
    found = bootstrap_mean(values, seed=0)
    assert (found["mean"], found["sd"]) == pytest.approx((1.15, 0.756637), abs=1e-6)
    assert np.std(values) == pytest.approx(0.617792, abs=1e-6)
    assert found["low"] <= 1.15 <= found["high"]


MATRICES = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        arrays(np.float64, (n, n), elements=st.floats(-50, 0, width=32)),
        arrays(np.int64, n, elements=st.integers(1, 30)),
        st.randoms(),
    )
)


@given(MATRICES)
def test_properties(case: tuple[np.ndarray, np.ndarray, object]) -> None:
    logp_XY, len_Y, rng = case
    value = psi(logp_XY, len_Y)
    order = list(range(len(len_Y)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    shifts = np.linspace(-3, 5, len(len_Y))
    assert value >= 0
    assert psi(logp_XY + shifts[None, :], len_Y) == pytest.approx(value, abs=1e-9)
    assert psi(logp_XY[np.ix_(order, order)], len_Y[order]) == pytest.approx(value, abs=1e-9)
    assert psi(logp_XY * 2.5, len_Y) == pytest.approx(2.5 * value, abs=1e-9)
    assert psi(np.broadcast_to(logp_XY[:1], logp_XY.shape), len_Y) == 0  # a model that ignores the prompt
    assert abs(psi_signed(logp_XY, len_Y)) <= value + 1e-9
    assert psi_by_prompt(logp_XY, len_Y).mean() == pytest.approx(value, abs=1e-9)
    assert psi_by_response(logp_XY, len_Y).mean() == pytest.approx(value, abs=1e-9)


@given(MATRICES)
def test_both_orientations_agree_where_the_diagonal_dominates(case: tuple[np.ndarray, np.ndarray, object]) -> None:
    logp_XY, len_Y, _ = case
    dominant = logp_XY - 100 * (1 - np.eye(len(len_Y)))
    assert psi_released(dominant, 7) == pytest.approx(psi(dominant, np.full(len(len_Y), 7)))


def test_a_row_shift_matters() -> None:
    assert psi(T1 + np.array([[1.0], [0], [0]]), L1) != pytest.approx(0.9)


def test_large_sets_of_identical_responses() -> None:
    scores = np.random.default_rng(0).normal(0, 2.0, 3000)
    length = 5
    logp_XY = np.repeat(scores[:, None], len(scores), 1)
    assert psi(logp_XY, np.full(len(scores), length)) == pytest.approx(2 / math.sqrt(math.pi) * 2.0 / length, rel=0.03)
    one = np.zeros(10)
    one[3] = -4.0
    assert psi(np.repeat(one[:, None], 10, 1), np.full(10, 2)) == pytest.approx(2 * 4.0 / (10 * 2))


@pytest.mark.parametrize(
    ("logp", "lengths"),
    [
        ([[0.0]], [1]),
        ([[0.0, 1.0]], [1, 1]),
        ([[0.0, -1], [0, 0]], [1, 0]),
        ([[0.0, -np.inf], [0, 0]], [1, 1]),
        ([[0, 0], [np.nan, 0]], [1, 1]),
    ],
)
def test_undefined_is_refused(logp: list[list[float]], lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"psi|finite|square"):
        psi(np.array(logp), np.array(lengths))


def test_companions_of_the_responses() -> None:
    responses = ["a", "a", "b", "a"]
    assert unique_responses(responses) == 2
    assert response_entropy(responses) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert response_entropy(["a", "a"]) == 0
    assert variation_ratio(responses) == 0.25
    assert consistency_rate(responses) == 0.5  # 3 of 6 pairs
    assert logp_spread(T3, np.array([2, 3])) == pytest.approx((1.0 + 1.0) / 2)


def test_metrics_with_targets() -> None:
    score_QK = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0.0]])
    assert metrics.accuracy_by_variant(score_QK) == pytest.approx([2 / 3, 1, 1 / 3, 1 / 3])
    pss = [2 * c * (4 - c) / (4 * 3) for c in (2, 4, 1)]
    assert metrics.prompt_sensi_score(score_QK) == pytest.approx(np.mean(pss))
    assert metrics.spread(score_QK) == pytest.approx(2 / 3)
    sd = np.mean([0.5, 0, math.sqrt(3) / 4])
    assert metrics.per_case(score_QK) == pytest.approx({"worst": 1 / 3, "best": 1, "mean": 7 / 12, "sd": sd})
    assert metrics.performance_drop(score_QK) == pytest.approx([0, -0.5, 0.5, 0.5])
    assert np.isnan(metrics.performance_drop(np.array([[0.0, 1.0]]))).all()


def test_combined_performance_equals_the_published_file() -> None:
    accuracy = np.array([[0.8, 0.61721 * 2 - 0.8]])  # MaxP 0.8 and AvgP 0.61721, as in the released CSVs
    assert metrics.combined_performance(accuracy)["cps"] == pytest.approx(0.65377, abs=1e-5)


def test_class_sensitivity_and_consistency() -> None:
    answers = [["a", "a"], ["a", "b"], ["b", "b"], ["b", "b"]]
    assert metrics.class_sensitivity(answers, ["a", "b"]) == pytest.approx(0.25)
    found = metrics.class_consistency(answers, ["a", "a", "b", "b"], ["a", "b"])
    assert found == pytest.approx({"a": 0.5, "b": 1.0})


def test_missing_variants_are_left_out() -> None:
    score_QK = np.array([[1.0, np.nan, 0.0], [1.0, 1.0, 1.0]])
    assert metrics.accuracy_by_variant(score_QK) == pytest.approx([1, 1, 0.5])
    assert metrics.prompt_sensi_score(score_QK) == pytest.approx(0.5)
    assert metrics.performance_drop(score_QK) == pytest.approx([0, 0, 0.5])


def test_paired_difference() -> None:
    found = paired_difference([1.0, 1.0, 1.0, 1.0], [2.0, 2.5, 1.5, 3.0], seed=0)
    assert found["difference"] == pytest.approx(1.25)
    assert found["p"] == pytest.approx(2 / 16)  # all signs equal, in two of sixteen flips
    assert 0.5 <= found["low"] < found["high"] <= 2.0
    same = paired_difference([1.0] * 30, [1.0] * 30, seed=0, draws=200)
    assert (same["difference"], same["p"]) == (0.0, 1.0)
    assert bootstrap_mean([1.0, 2.0, 4.0], 7) == bootstrap_mean([1.0, 2.0, 4.0], 7)
