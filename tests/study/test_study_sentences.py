"""A study says no more than it has seen: its sentence, its counts, and which trainings were not worth starting."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from holdfast import cli
from holdfast.config import ReportConfig, StudyConfig
from holdfast.errors import HoldfastError
from holdfast.report import report
from holdfast.runs import write_json
from holdfast.study import run
from holdfast.study.select import select
from holdfast.study.trial import perform
from study_case import HerePool, comparable, make_case, rows_of, run_study, write_study
from study_worlds import rows, trial

COUNTS = ("done", "stopped", "failed", "not_started")


def finding(found: list[dict[str, Any]], **options: Any) -> str:
    return str(select(found, **{"metric": "score", "higher_is_better": True, **options})["finding"])


# the sentence


def test_one_setting_is_compared_with_nothing() -> None:
    said = finding(rows([[0.5, 0.52, 0.51]]))
    assert "No setting beats" not in said
    assert said.startswith("Nothing is compared: conventional tuning is the only weighting with a score on dev")
    tuned = [trial(0.5, s, 0.5 + 0.01 * s, 0.5) for s in range(2)]
    assert "nothing is compared" in finding(tuned)


def test_settings_that_failed_or_diverged_are_named_as_not_compared() -> None:
    found = rows([[0.5, 0.52], [0.6, 0.61], [0.4, 0.42], [0.3, 0.31]])
    failed = {"status": "failed", "error": "no room", "dev": {}, "test": {}}
    marks = {"setting 1": failed, "setting 2": failed | {"diverged": True}, "setting 3": {"dev": {"score": None}}}
    lost = [row | marks.get(row["setting_name"], {}) for row in found]
    said = finding(lost)
    assert said.startswith("Nothing is compared: conventional tuning is the only weighting with a score on dev")
    assert "setting 1 (failed)" in said
    assert "setting 2 (diverged)" in said
    assert "setting 3 (no score on dev)" in said
    some = [row | (failed if row["setting_name"] == "setting 1" else {}) for row in found]
    assert "setting 1 (failed)" in finding(some)
    assert "failed" not in finding([row | (failed if row["trial"] == "setting 1 0" else {}) for row in found]), (
        "one seed of it has worked"
    )


def test_where_every_setting_has_one_run_left_it_is_not_one_seed_that_is_blamed() -> None:
    found = [row for row in rows([[0.5, 0.52], [0.6, 0.61]]) if row["trial"] in ("conventional 0", "setting 1 1")]
    said = finding(found)
    assert "One seed" not in said
    assert said.startswith("No setting has two runs with a score on dev, so no noise is seen and nothing is claimed")


def test_no_noise_on_dev_is_not_called_noise() -> None:
    """Two seeds, scores to two digits: both settings move by the same. Nothing is within or beyond a noise that nobody
    has seen.
    """
    said = finding(rows([[0.52, 0.54], [0.50, 0.52]], [[0.52, 0.55], [0.50, 0.51]]))
    assert "beyond noise" not in said
    assert "every seed shows the same differences on dev, so no noise is seen there" in said


def test_without_noise_on_test_nothing_is_said_of_test() -> None:
    dev = [[0.52, 0.54], [0.50, 0.53]]
    for test in ([[0.5, 0.5], [0.6, 0.6]], [[0.5, math.nan], [0.6, math.nan]], [[math.nan] * 2, [0.6, 0.61]]):
        said = finding(rows(dev, test))
        assert "No setting beats conventional tuning beyond noise" not in said
        assert said.startswith("On dev no setting beats conventional tuning beyond noise")
        assert "nothing is claimed of test" in said
    one = finding(rows([[0.50, 0.53], [0.60, 0.64]], [[0.5, math.nan], [0.6, math.nan]]))
    assert "every seed shows the same differences" not in one
    assert "no setting has two runs with a score on test" in one


def test_a_setting_that_beats_conventional_tuning_on_test_is_not_passed_over() -> None:
    """Dev and test disagree: the choice is made on dev, but that no setting beats conventional tuning would be
    false.
    """
    dev = [[0.700, 0.711, 0.690, 0.702], [0.600, 0.612, 0.590, 0.598], [0.500, 0.513, 0.489, 0.501]]
    test = [[0.500, 0.511, 0.490, 0.502], [0.800, 0.812, 0.790, 0.798], [0.400, 0.413, 0.389, 0.401]]
    said = finding(rows(dev, test))
    assert "No setting beats" not in said
    assert said.startswith("On dev conventional tuning is not beaten beyond noise: conventional is the best.")
    assert "On test setting 1 beats it by +0.299" in said
    other = finding(rows([dev[0], [v + 0.2 for v in dev[0]], dev[1]], [test[0], [0.49, 0.52, 0.485, 0.51], test[1]]))
    assert "No setting is shown to beat" not in other
    assert "setting 1, chosen on dev, is not shown to beat conventional tuning" in other
    assert "setting 2 beats it by +0." in other


def test_seeds_that_a_comparison_has_not_are_not_counted() -> None:
    found = rows([[0.50, 0.511, 0.49, 0.502], [0.80, 0.812, 0.79, 0.798], [0.4, 0.413, 0.389, 0.401]])
    assert "; 4 seeds)" in finding(found)
    assert "; 3 of 4 seeds)" in finding([row for row in found if row["trial"] != "setting 1 3"])


def stopped(found: list[dict[str, Any]], names: dict[str, float | None]) -> list[dict[str, Any]]:
    """The first seed of these settings as a halving search leaves it; the other seeds were not started."""
    kept = []
    for row in found:
        if row["setting_name"] not in names:
            kept.append(row | {"rung": 2})
        elif row["seed"] == 0:
            at = {
                "step": 8,
                "steps": 72,
                "metric": "score",
                "score": row["dev"]["score"],
                "behind": names[row["setting_name"]],
            }
            kept.append(row | {"status": "stopped", "rung": 0, "steps": 8, "test": {}, "stopped_at": at})
    return kept


def test_after_a_search_the_sentence_says_where_each_was_stopped_and_its_gap() -> None:
    found = rows([[0.50, 0.52], [0.40, 0.43], [0.30, 0.33]])
    selection = select(stopped(found, {"setting 1": 0.1, "setting 2": None}), metric="score", higher_is_better=True)
    said = selection["finding"]
    assert "No setting beats" not in said
    assert said.startswith("Only conventional tuning was trained to the end, so nothing is compared with it there")
    assert "setting 1 after 8 of 72 steps, 0.1 behind conventional tuning in score on dev" in said
    assert "setting 2 after 8 of 72 steps" in said
    assert [(s["setting_name"], s["step"], s["behind"]) for s in selection["stopped"]] == [
        ("setting 1", 8, 0.1),
        ("setting 2", 8, None),
    ]
    part = finding(stopped(found, {"setting 2": -0.2}))
    assert part.startswith("No setting that was trained to the end beats conventional tuning beyond noise")
    assert "setting 2 after 8 of 72 steps, 0.2 ahead of conventional tuning in score on dev" in part
    old = [
        {key: value for key, value in row.items() if key != "stopped_at"} for row in stopped(found, {"setting 1": 0.1})
    ]
    assert "setting 1 after 8 steps" in finding(old), "rows of an older study know no gap"


def test_the_best_of_one_is_no_best() -> None:
    naive = select(rows([[0.5, 0.52, 0.51]]), metric="score", higher_is_better=True)["naive"]
    assert naive["warning"] == "the only setting with a score on test"
    assert (naive["gain"], naive["luck"]) == (None, None)


# the counts, and what is not started


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def diverging(case: dict[str, Any]) -> dict[str, Any]:
    """Two of four settings diverge, with every seed."""
    content = case | {"vary": {"weights": [[0, 1], [1, 1]], "learning_rate": [0.01, 1e30]}, "seeds": 2, "measure": []}
    return content | {"tune": case["tune"] | {"epochs": 4.0}}


def adds_up(counts: dict[str, Any]) -> bool:
    return bool(counts["planned"] == sum(counts[name] for name in COUNTS))


def by_setting(output: Path) -> dict[tuple[str, int], str]:
    return {(row["setting_name"], row["seed"]): row["status"] for row in rows_of(output) if row["kind"] == "trial"}


@pytest.mark.parametrize("search", ["grid", "halving"])
def test_the_second_seed_of_a_setting_that_diverged_is_not_trained(
    diverging: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], search: str
) -> None:
    content = diverging | {"search": search}
    if search == "halving":
        content |= {"tune": diverging["tune"] | {"batch_size": 4, "epochs": 12.0}}
    output = tmp_path / "out"
    summary = run_study(content, output)
    first = by_setting(output)
    lost = [name for name, seed in first if name.endswith("lr 1e+30")]
    assert sorted(lost) == ["(0, 1), lr 1e+30", "(1, 1), lr 1e+30"]
    assert {first[name, 0] for name in lost} == {"failed"}
    assert adds_up(summary["trials"])
    assert (summary["trials"]["failed"], summary["trials"]["planned"]) == (2, 8)
    assert summary["trials"]["not_started"] >= 2
    assert summary["diverged"] == lost
    err = capsys.readouterr().err
    assert "not started: (0, 1), lr 1e+30 seed 1, as its first seed has diverged" in err or search == "halving"
    assert "(1, 1), lr 1e+30 (diverged)" in summary["finding"]
    before = comparable(output)
    again = run_study(content, output)
    assert comparable(output) == before, "the same after it was run again"
    assert again["trials"] == summary["trials"]


def test_a_study_that_was_torn_between_the_seeds_goes_on_as_if_it_had_not_been(
    diverging: dict[str, Any], tmp_path: Path
) -> None:
    calm = run_study(diverging, tmp_path / "calm")
    effect = [perform] * 4  # the base model and three of the four first seeds

    def do(*given: Any) -> Any:
        if not effect:
            raise KeyboardInterrupt
        return effect.pop()(*given)

    with mock.patch("study_case.perform", do), pytest.raises(KeyboardInterrupt):
        run_study(diverging, tmp_path / "torn")
    torn = run_study(diverging, tmp_path / "torn")
    assert (torn["trials"], torn["diverged"]) == (calm["trials"], calm["diverged"])
    assert comparable(tmp_path / "torn") == comparable(tmp_path / "calm")


def test_where_all_diverge_that_is_said_of_all(diverging: dict[str, Any], tmp_path: Path) -> None:
    content = diverging | {"vary": {"weights": [[0, 1], [1, 1]], "learning_rate": [1e30]}}
    with pytest.raises(
        HoldfastError,
        match=r"every trial that was started failed; the first: the loss is nan(.|\n)*; 2 others were not",
    ):
        run_study(content, tmp_path / "out")


def test_a_trial_that_ends_with_a_broken_model_has_diverged_too(diverging: dict[str, Any], tmp_path: Path) -> None:
    """Its last steps broke it, so no loss that was logged says so: its NLLs are no numbers."""
    content, output = diverging | {"vary": {"weights": [[0, 1], [1, 1]]}, "seeds": 3}, tmp_path / "out"

    def broken(job: Any, bench: Any) -> dict[str, Any]:
        row = perform(job, bench)
        if job.trial is not None and job.trial.setting_name == "(1, 1)":
            row |= {split: dict.fromkeys(row[split]) for split in ("dev", "test")}
            write_json(bench.study / job.file, row)
        return row

    with mock.patch("study_case.perform", broken):
        summary = run_study(content, output)
    assert by_setting(output) == {
        ("(0, 1)", 0): "done",
        ("(0, 1)", 1): "done",
        ("(0, 1)", 2): "done",
        ("(1, 1)", 0): "done",
    }
    assert (summary["trials"]["done"], summary["trials"]["not_started"], summary["diverged"]) == (4, 2, ["(1, 1)"])
    assert adds_up(run_study(content, output)["trials"])
    assert len(by_setting(output)) == 4, "resumed"


def test_seeds_that_are_there_already_stay(diverging: dict[str, Any], tmp_path: Path) -> None:
    """An older version trained them; nothing that is done is lost."""
    content, output = diverging | {"vary": {"weights": [[0, 1], [1, 1]]}}, tmp_path / "out"
    run_study(content, output)
    row = next(row for row in rows_of(output) if row.get("setting_name") == "(1, 1)" and row["seed"] == 0)
    row |= {split: dict.fromkeys(row[split]) for split in ("dev", "test")}
    write_json(output / row["path"] / "row.json", row)
    summary = run_study(content, output)
    assert (summary["trials"]["done"], summary["trials"]["not_started"]) == (4, 0)


def test_a_trial_that_failed_for_another_reason_says_nothing_of_its_other_seeds(
    diverging: dict[str, Any], tmp_path: Path
) -> None:
    def fail(job: Any, bench: Any) -> dict[str, Any]:
        if job.trial is not None and job.trial.setting_name == "(1, 1)" and job.trial.seed == 0:
            return dict(job.failed("out of memory"))
        return perform(job, bench)

    with mock.patch("study_case.perform", fail):
        summary = run_study(diverging | {"vary": {"weights": [[0, 1], [1, 1]]}}, tmp_path / "out")
    assert by_setting(tmp_path / "out")["(1, 1)", 1] == "done"
    assert (summary["trials"]["failed"], summary["trials"]["not_started"], summary["diverged"]) == (1, 0, [])


def test_the_counts_add_up_wherever_they_are_shown(
    case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seven settings, two seeds, of which a search trains few to the end: 14 planned."""
    content = {key: value for key, value in case.items() if key != "vary"} | {"measure": [], "seeds": 2}
    content |= {"tune": case["tune"] | {"batch_size": 4, "epochs": 12.0}}
    content |= {"search": {"kind": "halving", "points": 7, "low": 0.2, "factor": 3}}
    output = tmp_path / "out"
    config = StudyConfig(study=str(write_study(tmp_path / "s.yaml", content)), output=str(output), slots=1)
    with mock.patch("holdfast.study.pipeline.open_pool", lambda _, study: HerePool(study)):
        summary = run(config)
    counts = summary["trials"]
    assert counts["planned"] == 14
    assert adds_up(counts)
    assert counts["not_started"] == counts["stopped"] > 0
    line = (
        f"14 trials planned: {counts['done']} done, {counts['stopped']} stopped early, 0 failed, "
        f"{counts['not_started']} not started"
    )
    assert f"{line}; in {output.resolve()}" in capsys.readouterr().out
    for row in rows_of(output):
        if row.get("status") == "stopped":
            usual = json.loads((output / conventional(output)["path"] / f"rung-{row['rung']}.json").read_text())["dev"][
                "response_nll"
            ]
            at = row["stopped_at"]
            assert (at["step"], at["steps"], at["metric"]) == (row["steps"], 72, "response_nll")
            assert at["behind"] == pytest.approx(row["dev"]["response_nll"] - usual)
            assert f"{row['setting_name']} after {at['step']} of 72 steps" in summary["finding"]
    assert cli.main(["study", "best", str(output)]) == 0
    out, err = capsys.readouterr()
    assert line in err
    assert line not in out
    assert cli.main(["study", "best", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == {name: counts[name] for name in ("planned", *COUNTS)}
    page = tmp_path / "r.html"
    for done in (True, False):
        report(ReportConfig(directories=[str(output)], output=str(page), json=True))
        text = re.sub("<[^>]+>", "", page.read_text(encoding="utf-8"))  # a "?" stands behind terms
        assert "trials not started" in text
        assert ("trials not started or still at work" in text) is not done
        (output / "summary.json").unlink(missing_ok=True)
    assert cli.main(["study", "best", str(output)]) == 0
    assert "not started or still at work" in capsys.readouterr().err


def conventional(output: Path) -> dict[str, Any]:
    return next(row for row in rows_of(output) if row.get("ratio") == 0 and row["kind"] == "trial")


def test_an_undecided_study_ends_well_with_its_sentence(
    case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study(tmp_path / "s.yaml", case | {"vary": {"weights": [[0, 1], [1, 1]]}, "seeds": 1, "measure": []})
    with mock.patch("holdfast.study.pipeline.open_pool", lambda _, study: HerePool(study)):
        assert cli.main(["study", "run", str(file), "--output", str(tmp_path / "out")]) == 0
    assert "nothing is claimed" in capsys.readouterr().out
