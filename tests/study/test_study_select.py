"""Choosing on dev, claiming on test: what few seeds allow, on synthetic studies whose truth is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from holdfast.errors import HoldfastError
from holdfast.study import statistics as st
from holdfast.study.select import select
from study_worlds import rows, trial, world


def chosen(found: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    return select(found, **{"metric": "score", "higher_is_better": True, **options})


def of(selection: dict[str, Any], name: str) -> dict[str, Any]:
    return next(s for s in selection["settings"] if s["setting_name"] == name)


# the choice


def test_the_simplest_setting_within_one_standard_error_of_the_best_is_chosen() -> None:
    """By hand: residuals after settings and seeds are ±0.01 for setting 0 and ∓0.01 for setting 1, 0 for setting 2, so
    sigma^2 = 0.0004 / 2 and the standard error of a mean over two seeds is 0.01. Setting 1 lies 0.009 below the best,
    setting 0 lies 0.011 below."""
    selection = chosen(rows([[0.489 - 0.01, 0.489 + 0.01], [0.491 + 0.01, 0.491 - 0.01], [0.5, 0.5]]))
    assert selection["one_standard_error"] == pytest.approx(0.01)
    assert selection["best_on_dev"] == "setting 2"
    assert selection["chosen"] == "setting 1"


def test_conventional_tuning_inside_the_noise_wins() -> None:
    selection = chosen(rows([[0.50, 0.52], [0.50, 0.47], [0.53, 0.51]]))
    assert selection["best_on_dev"] == "setting 2"
    assert selection["chosen"] == selection["conventional"] == "conventional"
    assert selection["claim"] == "none"
    assert selection["finding"].startswith("No setting beats conventional tuning beyond noise")


def test_the_standard_error_leaves_out_the_luck_that_all_settings_share() -> None:
    """One seed is better by 0.3 for everyone; between settings nothing but 0.01 is uncertain."""
    selection = chosen(rows([[0.2, 0.5, 0.21], [0.3, 0.61, 0.3], [0.25, 0.55, 0.26]]))
    assert selection["one_standard_error"] < 0.01
    assert selection["chosen"] == "setting 1"


@pytest.mark.parametrize("poison", [1e9, -1e9, math.nan, math.inf, None])
def test_a_test_split_full_of_poison_changes_no_choice(poison: float | None) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        clean = world(6, 3, rng, effect=np.linspace(0, 2, 6))
        before = chosen(clean)
        for row in clean:
            if rng.random() < 0.5:
                row["test"] = {"score": poison}
        after = chosen(clean)
        for key in ("chosen", "best_on_dev", "one_standard_error", "conventional"):
            assert after[key] == before[key]
        assert [s["dev"] for s in after["settings"]] == [s["dev"] for s in before["settings"]]


def test_smaller_is_better_is_the_mirror_image() -> None:
    scores = np.random.default_rng(1).normal(size=(5, 3))
    up, down = chosen(rows(scores)), chosen(rows(-scores), higher_is_better=False)
    assert up["chosen"] == down["chosen"]
    assert up["claim"] == down["claim"]
    assert up["naive"]["setting_name"] == down["naive"]["setting_name"]
    assert up["naive"]["gain"] == pytest.approx(down["naive"]["gain"])
    assert of(up, "setting 3")["difference"]["mean"] == pytest.approx(-of(down, "setting 3")["difference"]["mean"])


def test_of_several_conventional_settings_the_best_on_dev_is_the_reference() -> None:
    """The learning rate varies too: prompt loss has to beat conventional tuning at its best rate."""
    found = [
        trial(
            ratio,
            seed,
            score + 0.01 * seed,
            score + 0.01 * seed,
            name=f"{ratio:g} lr {rate:g}",
            fields={"learning_rate": rate},
        )
        for ratio, rate, score in ((0, 1e-4, 0.3), (0, 1e-3, 0.6), (0.5, 1e-4, 0.5), (0.5, 1e-3, 0.58))
        for seed in range(3)
    ]
    found[0]["dev"]["score"] += 0.02
    found[0]["test"]["score"] += 0.02
    selection = chosen(found)
    assert selection["conventional"] == selection["chosen"] == "0 lr 0.001"
    assert of(selection, "0 lr 0.0001")["difference"]["mean"] < -0.25


# which trials count


def test_equal_ratios_are_one_setting_only_if_the_plan_says_so() -> None:
    cells = [[0, 1], [0.2, 0.2], [1, 1]]
    apart = [trial(0.5 if c[0] else 0.0, s, 0.5 + 0.1 * s, 0.5, cell=c) for c in cells for s in range(2)]
    assert len(chosen(apart)["settings"]) == 3  # with clipping they are different trainings
    together = [row | {"members": cells[1:] if row["ratio"] else cells[:1]} for row in apart]
    selection = chosen(together)
    assert len(selection["settings"]) == 2
    assert of(selection, "(0.2, 0.2)")["seeds"] == 2


def test_twins_of_one_seed_are_averaged_before_seeds_are_compared() -> None:
    """Five twins that share a data order are one draw of the noise: they must not make the interval shorter."""
    single = [trial(r, s, 0.5 + r + 0.1 * s * (1 - r), 0.5 + 0.1 * s * r) for r in (0, 0.5, 0.8) for s in range(2)]
    copies = [row | {"trial": f"{row['trial']} copy {i}"} for row in single for i in range(5)]
    a, b = chosen(single), chosen(copies)
    assert a["noise"] == pytest.approx(b["noise"])
    assert of(a, "(0.8, 0.2)")["difference"] == pytest.approx(of(b, "(0.8, 0.2)")["difference"])


def test_one_seed_without_twins_claims_nothing() -> None:
    selection = chosen(rows([[0.1], [0.9], [0.5]]))
    assert selection["chosen"] == "setting 1"
    assert selection["one_standard_error"] is None
    assert selection["claim"] == "none"
    assert "nothing is claimed" in selection["finding"]
    assert all(s["difference"] is None for s in selection["settings"])
    assert of(selection, "setting 1")["test"] == {"mean": 0.9, "low": None, "high": None, "sd": None}


def test_twins_of_one_seed_are_no_noise() -> None:
    """They share the order of their data and differ by rounding; a claim on that would be sure and wrong."""
    members = {0.0: [[0, 0.5], [0, 1]], 0.5: [[0.5, 0.5], [1, 1]]}
    found = [
        trial(r, 0, 0.3 + r + d, 0.3 + r + d, cell=c, members=members[r])
        for r in members
        for c, d in zip(members[r], (0, 0.001), strict=True)
    ]
    selection = chosen(found)
    assert selection["claim"] == "none"
    assert "One seed shows no noise" in selection["finding"]
    assert selection["noise"] == {"sd": None, "df": 0}


def test_where_every_seed_shows_the_same_differences_no_noise_is_seen() -> None:
    for second in (0.5, 0.52):
        selection = chosen(rows([[0.5, second], [0.7, second + 0.2]]))
        assert selection["claim"] == "none"
        assert "every seed shows the same differences on test" in selection["finding"]


def test_a_single_run_is_not_alike() -> None:
    assert "One seed shows no noise" in chosen(rows([[0.5]]))["finding"]


def test_where_conventional_tuning_failed_that_is_said() -> None:
    found = rows([[0.5, 0.52], [0.6, 0.61]])
    for lost in ({"status": "failed", "dev": {}, "test": {}}, {"dev": {"score": None}}):
        selection = chosen([row | lost if row["ratio"] == 0 else row for row in found])
        assert selection["finding"].startswith("Conventional tuning failed, so nothing is compared with it")


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_where_all_runs_score_exactly_alike_nothing_is_said_of_any_setting(seeds: int) -> None:
    """Rounding is no noise: no interval is wider than that."""
    value = 6.160732982384342
    selection = chosen(rows([[value] * seeds] * 3))
    assert selection["finding"].startswith(
        "All runs scored exactly alike on dev, so nothing can be said of any setting"
    )
    assert (selection["claim"], selection["chosen"]) == ("none", "conventional")
    if seeds > 1:
        assert selection["noise"]["sd"] == 0
        assert {(s[split]["low"], s[split]["high"]) for s in selection["settings"] for split in ("dev", "test")} == {
            (value, value)
        }


def test_only_finished_trials_of_the_last_rung_count() -> None:
    final = [row | {"rung": 2} for row in rows([[0.5, 0.52], [0.6, 0.61]])]
    early = [
        row | {"rung": 0, "trial": f"early {row['trial']}"} for row in rows([[0.9, 0.92], [0.1, 0.1], [0.99, 0.99]])
    ]
    failed = [row | {"status": "failed", "error": "boom", "dev": {}, "trial": "failed"} for row in rows([[0.9]])]
    assert chosen([*early, *final, *failed, {"kind": "base", "dev": {"score": 0.0}}]) == chosen(final)
    with pytest.raises(HoldfastError, match="no finished trial"):
        chosen(failed)


def test_a_training_that_diverged_is_left_out_and_named() -> None:
    found = rows([[0.5, 0.52, 0.51], [0.6, math.nan, 0.61]])
    selection = chosen(found)
    assert selection["left_out"] == ["setting 1 1"]
    assert of(selection, "setting 1")["seeds"] == 2
    with pytest.raises(HoldfastError, match="is a number"):
        chosen(rows([[math.nan]]))


def test_an_unknown_metric_is_named_with_the_nearest() -> None:
    with pytest.raises(HoldfastError, match=r"no dev score 'scor'(.|\n)*did you mean 'score'"):
        chosen(rows([[0.5], [0.6]]), metric="scor")


def test_without_a_conventional_setting_nothing_is_compared() -> None:
    selection = chosen([trial(r, s, r + 0.01 * s * r, r) for r in (0.2, 0.5) for s in range(2)])
    assert selection["conventional"] is None
    assert selection["naive"]["gain"] is None
    assert "nothing is compared" in selection["finding"]


# the intervals


def test_simultaneous_p_values_are_dunnetts() -> None:
    """Against SciPy's own test where both apply: one seed per run, so no pairing, and normal-looking noise."""
    rng = np.random.default_rng(3)
    groups = [rng.normal(m, 1, 6) for m in (0, 0.3, 1.2, 2.0)]
    fit = st.fit(np.concatenate(groups), np.repeat(range(4), 6).tolist(), [0] * 24)
    ours = st.compare(fit, [(1, 0), (2, 0), (3, 0)])
    theirs = stats.dunnett(*groups[1:], control=groups[0])
    assert [d.mean for d in ours] == pytest.approx([g.mean() - groups[0].mean() for g in groups[1:]])
    assert [d.p for d in ours] == pytest.approx(theirs.pvalue, abs=0.02)
    interval = theirs.confidence_interval(0.95)
    assert [d.low for d in ours] == pytest.approx(interval.low, abs=0.15)
    assert [d.high for d in ours] == pytest.approx(interval.high, abs=0.15)


def test_two_settings_are_the_paired_t_test() -> None:
    rng = np.random.default_rng(4)
    usual, other = rng.normal(0, 1, 4) + np.array([0, 3, -2, 5]), rng.normal(1, 1, 4) + np.array([0, 3, -2, 5])
    found = of(chosen(rows([usual, other])), "setting 1")["difference"]
    assert found["mean"] == pytest.approx((other - usual).mean())
    exact = stats.ttest_rel(other, usual).confidence_interval(0.95)
    assert found["low"] == pytest.approx(exact.low, rel=0.15)
    assert found["high"] == pytest.approx(exact.high, rel=0.15)


def test_missing_seeds_are_not_held_against_a_setting() -> None:
    """Seed 2 is bad for all; setting 1 did not finish it. Its mean is as if it had."""
    found = rows([[0.5, 0.6, 0.1], [0.6, 0.7, 0.2], [0.4, 0.5, 0.01]])
    found = [row for row in found if row["trial"] != "setting 1 2"]
    assert of(chosen(found), "setting 1")["difference"]["mean"] == pytest.approx(0.1, abs=0.01)


def test_a_run_that_stands_alone_lends_its_zero_residual_to_no_one() -> None:
    """One setting has five runs, twenty have one each: 20 of 25 residuals are 0 and say nothing about the noise."""
    rng = np.random.default_rng(5)
    setting_N = [0] * 5 + list(range(1, 21))
    false = 0
    for i in range(200):
        fit = st.fit(rng.standard_normal(25), setting_N, [0] * 25)
        false += min(d.p for d in st.compare(fit, [(k, 0) for k in range(1, 21)], seed=i)) <= 0.05
    assert 1 <= false <= stats.binom.ppf(0.999, 200, 0.05)


def test_a_difference_that_scatters_more_than_the_others_has_a_wider_interval() -> None:
    """Setting 2 goes up where conventional tuning goes down; the others stay with it."""
    scores = np.array([[0.0, 1.0, -1.0], [0.01, 1.0, -1.02], [0.5, -0.5, 0.6], [0.0, 1.01, -1.0]])
    found = chosen(rows(scores))["settings"]
    assert _width(found[2]) > 1.3 * _width(found[1])
    assert _width(found[1]) == pytest.approx(_width(found[3]))


@pytest.mark.parametrize("together", [0, 1])
@pytest.mark.parametrize("settings", [3, 5, pytest.param(15, marks=pytest.mark.full)])
def test_means_over_settings_hold_whatever_goes_together(settings: int, together: int) -> None:
    """A model that likes prompt loss likes it at every ratio: gains of 20 ratios that are one draw each, or
    independent.
    """
    rng = np.random.default_rng(14)
    false = 0
    for i in range(100):
        gain_SJ = 3 * together * rng.standard_normal((settings, 1)) + 0.5 * rng.standard_normal((settings, 20))
        false += any(d.low > 0 for d in st.compare_means(gain_SJ, seed=i))
    assert false <= stats.binom.ppf(0.99, 100, 0.05)


def test_means_of_one_column_are_the_t_test() -> None:
    values = np.random.default_rng(15).normal(0.3, 1, 8)
    (found,) = st.compare_means(values[:, None])
    exact = stats.ttest_1samp(values, 0)
    interval = exact.confidence_interval(0.95)
    assert found.p == pytest.approx(exact.pvalue, abs=0.02)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.1)


@pytest.mark.parametrize(
    ("settings", "seeds", "seed_luck", "kind"),
    [
        (2, 3, 1, "normal"),
        (5, 2, 0, "normal"),
        pytest.param(8, 3, 2, "normal", marks=pytest.mark.full),
        (8, 3, 1, "t3"),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(settings: int, seeds: int, seed_luck: float, kind: str) -> None:
    """All differences of a study at once, and the mean of one setting, in 300 studies; allowed: what 94 % would give at
    worst.
    """
    rng = np.random.default_rng(6)
    truth = np.linspace(0, 3, settings)
    studies, together, single = 300, 0, 0
    for i in range(studies):
        found = chosen(world(settings, seeds, rng, kind=kind, effect=truth, seed_luck=seed_luck), seed=i)["settings"]
        together += all(
            s["difference"]["low"] <= m <= s["difference"]["high"] for s, m in zip(found[1:], truth[1:], strict=True)
        )
        single += found[-1]["test"]["low"] <= truth[-1] <= found[-1]["test"]["high"]
    assert together >= stats.binom.ppf(0.001, studies, 0.94)
    assert single >= stats.binom.ppf(0.001, studies, 0.90)


def test_the_luck_of_the_test_items_is_counted_where_scores_per_item_are_known(tmp_path: Path) -> None:
    """Two settings as good as each other on all items there could be, but on the 40 of the test split one is luckier.
    Seeds agree about that, so intervals from seeds alone are far too short; with the scores per item they hold."""
    rng = np.random.default_rng(7)
    studies, covered, covered_without = 120, 0, 0
    for study in range(studies):
        taste_KI = rng.normal(0, 1, (3, 40))  # what each setting is good at
        found = []
        for k in range(3):
            for s in range(3):
                item_I = taste_KI[k] + rng.normal(0, 0.1) + rng.normal(0, 0.5, 40)
                path = f"{study}-{k}-{s}.npz"
                np.savez(tmp_path / path, score=item_I)
                found.append(trial(k / 3, s, 0.0, float(item_I.mean()), name=f"setting {k}", items={"test": path}))
                found[-1]["dev"]["score"] = float(rng.normal())
        for root in (tmp_path, None):
            inside = all(
                s["difference"]["low"] <= 0 <= s["difference"]["high"]
                for s in chosen(found, root=root, seed=study)["settings"][1:]
            )
            covered += inside and root is not None
            covered_without += inside and root is None
    assert covered >= stats.binom.ppf(0.001, studies, 0.95)
    assert covered_without < 0.8 * studies


def test_a_missing_file_of_scores_per_item_is_named(tmp_path: Path) -> None:
    found = [row | {"items": {"test": "gone.npz"}} for row in rows([[0.5, 0.6], [0.7, 0.9]])]
    with pytest.raises(HoldfastError, match=r"trial conventional 0: cannot read .*gone\.npz"):
        chosen(found, root=tmp_path)


# the claim

NULLS: dict[str, dict[str, Any]] = {
    "luck of training alone, so dev and test agree about who is lucky": {"settings": 8, "seeds": 3},
    "two seeds": {"settings": 5, "seeds": 2},
    "luck of items alone": {"settings": 8, "seeds": 3, "training": 0.05, "items": 1.0},
    "both, and lucky seeds": {"settings": 8, "seeds": 3, "items": 1.0, "seed_luck": 2.0},
    "heavy tails": {"settings": 8, "seeds": 3, "kind": "t3"},
    "a run in twenty goes astray": {"settings": 11, "seeds": 2, "kind": "spiky"},
    "as measured, two seeds": {"settings": 7, "seeds": 2, "kind": "measured"},
    "as measured": {"settings": 7, "seeds": 3, "kind": "measured"},
    "as measured, five seeds": {"settings": 7, "seeds": 5, "kind": "measured"},
    "seeds that suit prompt weights more or less": {"settings": 8, "seeds": 3, "kind": "slope"},
}
SOME_NULLS = [
    name
    for name in NULLS
    if name not in ("luck of items alone", "heavy tails", "as measured", "as measured, five seeds")
]
"""Those of the default suite; the long suite has all."""
LARGE_NULLS: dict[str, dict[str, Any]] = {
    "two seeds that suit prompt weights more or less": {"settings": 8, "seeds": 2, "kind": "slope"},
    "21 settings, seeds that suit prompt weights more or less": {"settings": 21, "seeds": 3, "kind": "slope"},
    "21 settings": {"settings": 21, "seeds": 3},
    "21 settings, two seeds": {"settings": 21, "seeds": 2},
    "21 settings, five seeds, heavy tails": {"settings": 21, "seeds": 5, "kind": "t3"},
    "21 settings, heavy tails": {"settings": 21, "seeds": 3, "kind": "t3"},
    "21 settings, a run in twenty goes astray": {"settings": 21, "seeds": 3, "kind": "spiky"},
}


def claims(studies: int, seed: int = 8, **of_world: Any) -> int:
    """How many studies of a world end with the claim that a setting is better (or worse) than conventional tuning."""
    rng = np.random.default_rng(seed)
    return sum(chosen(world(rng=rng, **of_world), seed=i)["claim"] != "none" for i in range(studies))


@pytest.mark.parametrize("null", SOME_NULLS)
def test_where_all_settings_are_equal_hardly_a_study_claims_otherwise(null: str) -> None:
    """At most 5 % of the sentences may be false; 150 studies are refused if 5 % would give so many once in a hundred
    times.
    """
    assert claims(150, **NULLS[null]) <= stats.binom.ppf(0.99, 150, 0.05)


def test_settings_that_a_search_has_stopped_are_covered_too() -> None:
    """16 equal settings, of which conventional tuning and the four luckiest on dev are trained to the end: no fair
    sample of them.
    """
    rng = np.random.default_rng(11)
    studies, false, wider = 150, 0, 0
    for i in range(studies):
        found = world(16, 3, rng)
        scores: dict[str, list[float]] = {}
        for row in found[3:]:
            scores.setdefault(row["setting_name"], []).append(row["dev"]["score"])
        mean = {name: float(np.mean(values)) for name, values in scores.items()}
        kept = {"conventional", *sorted(mean, key=mean.__getitem__)[-4:]}
        final = [row for row in found if row["setting_name"] in kept]
        stopped = [
            row | {"status": "stopped", "rung": 0, "test": {}} for row in found if row["setting_name"] not in kept
        ]
        covered, forgotten = chosen([*stopped, *final], seed=i), chosen(final, seed=i)
        false += covered["claim"] == "better"
        wider += all(
            _width(a) > _width(b) for a, b in zip(covered["settings"][1:], forgotten["settings"][1:], strict=True)
        )
    assert false <= stats.binom.ppf(0.99, studies, 0.05)
    assert wider == studies


def _width(setting: dict[str, Any]) -> float:
    return float(setting["difference"]["high"] - setting["difference"]["low"])


@pytest.mark.full
@pytest.mark.parametrize("null", [*NULLS, *LARGE_NULLS])
def test_false_discovery_rate_over_1000_studies(null: str) -> None:
    assert claims(1000, seed=9, **(NULLS | LARGE_NULLS)[null]) <= 50


def test_the_test_has_teeth() -> None:
    """Testing only the chosen setting, as if it had been chosen on other runs, would break the bound on the same
    studies.
    """
    rng = np.random.default_rng(8)
    false = 0
    for _ in range(150):
        found = np.array([row["test"]["score"] for row in world(21, 3, rng)]).reshape(21, 3)
        best = int(found.mean(1).argmax())
        fit = st.fit(found.ravel(), np.repeat(range(21), 3).tolist(), [0, 1, 2] * 21)
        false += (
            best > 0
            and stats.t.sf((fit.mean_K[best] - fit.mean_K[0]) / math.sqrt(fit.variance * 2 / 3), fit.df) < 0.025
        )
    assert false > 0.1 * 150


def test_a_real_effect_is_found() -> None:
    """One setting is better by four standard deviations of a run: found in most studies of eight settings and three
    seeds, and in all of five."""
    effect = np.zeros(8)
    effect[2] = 4.0
    assert claims(100, settings=8, seeds=3, effect=effect) >= 70
    assert claims(50, settings=8, seeds=5, effect=effect) >= 47


def test_the_naive_best_is_shown_with_what_luck_gives() -> None:
    rng = np.random.default_rng(10)
    found = [chosen(world(8, 3, rng), seed=i)["naive"] for i in range(200)]
    assert np.mean([n["gain"] for n in found]) == pytest.approx(np.mean([n["luck"] for n in found]), rel=0.15)
    assert "picked on the split it is reported on" in found[0]["warning"]
