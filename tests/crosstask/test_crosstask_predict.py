"""Reading answers: the parsing rules, label scores, calibration, votes, and how sure a number is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from holdfast.crosstask.predict import (
    calibrate_batch,
    calibrate_contextual,
    choose,
    label_scores,
    majority,
    majority_raw,
    normalise,
    paper_answer,
    parse_label,
    same_answer,
)
from holdfast.errors import HoldfastError
from holdfast.stats import benjamini_hochberg, mean_of_ratios, paired_t, percentage, ratio_of_means, spearman

LETTERS, MOODS = ("A", "B", "C", "D"), ("positive", "negative", "neutral")


@pytest.mark.parametrize(
    ("text", "found"),
    [(" A. elevation", "a"), ("Label: Positive", "positive"), (" A elevation", "a elevation"), ("", ""),
     (" positive-neutral", "positive"),
     ("'B'", "b"), ("\n\n C. x\nD", "c"), ("\nA", ""), (" B\nDefinition: Given", "b")],
)  # fmt: skip
def test_the_released_rule_on_its_reference_cases(text: str, found: str) -> None:
    assert paper_answer(text) == found


@pytest.mark.parametrize(
    ("text", "labels", "paper", "ours"),
    [
        (" A. elevation", LETTERS, "A", "A"), (" A elevation", LETTERS, None, None), ("", LETTERS, None, None),
        ("'B'", LETTERS, "B", "B"),
        ("\nB", LETTERS, None, "B"), (" (C) gravity", LETTERS, None, "C"), (" The answer is D.", LETTERS, None, "D"),
        (" Option A", LETTERS, None, "A"), ("E", LETTERS, None, None), (" b)", LETTERS, None, "B"),
        (" Positive", MOODS, "positive", "positive"), (" positive-neutral", MOODS, "positive", None),
        (" positive news", MOODS, None, "positive"),
        (" positively", MOODS, None, None), ("Label: Positive", MOODS, "positive", "positive"),
        (" B\nDefinition: x", LETTERS, "B", "B"),
        (" not duplicate", ("duplicate", "not duplicate"), "not duplicate", "not duplicate"),
        (" 4", ("4", "5"), "4", "4"), (" 45", ("4", "5"), None, None),
    ],
)  # fmt: skip
def test_both_rules(text: str, labels: tuple[str, ...], paper: str | None, ours: str | None) -> None:
    assert parse_label(text, labels, rule="paper") == paper
    assert parse_label(text, labels, rule="normalised") == ours


def test_free_answers_and_unknown_rules() -> None:
    assert parse_label(" black  cat.\nmore", None) == "black cat"
    assert parse_label(" \n ", None) is None
    assert same_answer("Black cat", "black cat")
    assert not same_answer(None, "x")
    assert same_answer(parse_label(" 1, 2, 3", None, "paper"), "1, 2, 3", "paper")
    with pytest.raises(HoldfastError, match="known: paper, normalised"):
        parse_label("A", LETTERS, "strict")


def test_sum_and_mean_of_several_tokens() -> None:
    sums, lengths = np.array([[-3.0, -4.0]]), np.array([[1, 4]])
    assert choose(label_scores(sums, lengths)).tolist() == [0]
    assert choose(label_scores(sums, lengths, "mean")).tolist() == [1]
    assert np.exp(normalise(sums)).sum() == pytest.approx(1)


def test_calibration_removes_a_planted_bias() -> None:
    rng = np.random.default_rng(0)
    gold = np.repeat([0, 1, 2], 40)
    clean = rng.normal(0, 0.5, (120, 3)) + 2.5 * np.eye(3)[gold]
    bias = np.array([0.0, 6.0, -3.0])
    assert (choose(clean + bias) == gold).mean() < 0.5
    assert (choose(clean) == gold).mean() > 0.95
    assert (choose(calibrate_contextual(clean + bias, np.tile(bias, (120, 1)))) == choose(clean)).all()
    assert (choose(calibrate_batch(clean + bias)) == gold).mean() > 0.85


def test_calibration_is_blind_to_a_constant() -> None:
    scores = np.random.default_rng(1).normal(size=(9, 4))
    assert np.allclose(calibrate_batch(scores + 7), calibrate_batch(scores))
    assert np.allclose(calibrate_contextual(scores, np.zeros((9, 4))), normalise(scores))


VOTES = ["positive", "positive", "Positive", "Positive", "negative", "negative", "negative", "", "N", "NNP"]


def test_the_reference_vote_and_ours() -> None:
    assert majority_raw(VOTES) == "negative"
    vote = majority([parse_label(text, MOODS) for text in VOTES], MOODS)
    assert (vote.label, vote.counts) == ("positive", {"positive": 4, "negative": 3})
    assert vote.margin == pytest.approx(0.1)  # (4 - 3) / 10: the three that named no label weaken it


def test_ties_go_to_the_larger_sum_of_log_probs_then_to_the_first_label() -> None:
    answers = ["negative", "positive"]
    assert majority(answers, MOODS).label == "positive"
    assert majority(answers, MOODS, np.log([[0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])).label == "negative"
    assert majority(answers, MOODS, np.log([[0.4, 0.5, 0.1], [0.5, 0.4, 0.1]])).label == "positive"
    assert majority(answers, MOODS).margin == 0


def test_abstention() -> None:
    assert majority([None, None], MOODS).label is None
    assert majority(["neutral", None, None], MOODS, least_margin=0.5).label is None
    assert majority(["neutral", "neutral", None], MOODS, least_margin=0.5).label == "neutral"


# --- how sure a number is ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wins", "losses", "t"), [(837, 91, 28.079), (307, 409, -3.822)])
def test_the_paired_test_on_rows_that_give_the_published_statistics(wins: int, losses: int, t: float) -> None:
    """2,502 pooled items; 7B race and 13B conll_pos. The counts of changed items are the ones that these t and
    accuracies imply.
    """
    before = [0] * wins + [1] * losses + [1] * (2502 - wins - losses)
    after = [1] * wins + [0] * losses + [1] * (2502 - wins - losses)
    found = paired_t(after, before)
    assert found["t"] == pytest.approx(t, abs=6e-3)
    assert found["difference"] == pytest.approx(100 * (wins - losses) / 2502)
    assert (found["p"] < 1e-9) == (t > 0)


def test_the_paired_test_without_any_difference() -> None:
    found = paired_t([1, 0, 1], [1, 0, 1])
    assert (found["t"], found["p"], found["difference"]) == (0, 0.5, 0)


SEVEN_B = {  # zero-shot accuracy per target, and the mean over ten sources: table T1-7b
    "ARC-C": (4.6, 37.0), "FinPhr": (34.3313, 38.8), "MedMCQA": (4.2, 27.3), "SciQ": (8.0, 45.4), "SIQA": (41.1, 41.8),
}  # fmt: skip


def test_the_headline_figure_is_a_ratio_of_means() -> None:
    zero, cross = zip(*SEVEN_B.values())
    assert ratio_of_means(cross, zero) == pytest.approx(106.3, abs=0.3)
    assert mean_of_ratios(cross, zero) == pytest.approx(347, abs=1)
    assert ratio_of_means([38.1], [18.4]) == pytest.approx(107.1, abs=0.05)
    assert ratio_of_means([56.40], [47.55]) == pytest.approx(18.61, abs=0.01)
    assert ratio_of_means([72.05], [69.79]) == pytest.approx(3.24, abs=0.01)


def test_wilson_interval() -> None:
    found = percentage(172, 501)
    assert found["value"] == pytest.approx(34.3313, abs=1e-4)
    assert (found["low"], found["high"]) == (pytest.approx(30.31, abs=0.01), pytest.approx(38.60, abs=0.01))
    assert percentage(0, 10)["low"] == 0
    assert math.isnan(percentage(0, 0)["value"])


def test_spearman_against_scipy_and_its_exact_permutation_p() -> None:
    from scipy import stats

    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]
    rho, p = spearman(x, y)
    assert rho == pytest.approx(stats.spearmanr(x, y).statistic)
    exact = stats.permutation_test(
        (x,), lambda a: stats.spearmanr(a, y).statistic, permutation_type="pairings", n_resamples=10**6
    )
    assert p == pytest.approx(exact.pvalue)
    assert spearman(range(10), range(10), permutations=999) == (pytest.approx(1), pytest.approx(0.001))
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3])[0])


def test_benjamini_hochberg_against_scipy() -> None:
    from scipy import stats

    p = [0.01, 0.2, 0.03, 0.04, 0.9]
    assert benjamini_hochberg(p) == pytest.approx(list(stats.false_discovery_control(p)))
    assert math.isnan(benjamini_hochberg([0.1, math.nan])[1])
