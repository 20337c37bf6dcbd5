"""Real runs of the embedded model, as the commands write them today, on one page: nothing falls back to the plain
form.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main
from holdfast.config import ReportConfig
from holdfast.report import report
from holdfast.report.pages import sections
from holdfast.report.parts import Figure, Note, Passage, Section, Tabs
from holdfast.report.reading import read_run
from holdfast.report.terms import worded
from holdfast.tables.record import Table, without_empty
from holdfast.tables.text import number
from report_browser import chromium, visit
from report_runs import make_sensitivity, write_json, write_rows
from study_case import make_case, run_study

SOURCES = ",".join(f"pocket:tasks/{name}" for name in ("who_has", "yes_no", "sentiment"))
SENSITIVITY = ["--sets", "pocket:intents", "--limit", "3", "--chat", "--max-new-tokens", "4"]
CROSSTASK = ["--model", "pocket", "--sources", SOURCES]
TARGETS = ["--target", "pocket:tasks/who_has,pocket:tasks/colour_of", "--limit", "6"]
COMMANDS = {
    "tuned": [
        "tune",
        "--model",
        "pocket",
        "--data",
        "pocket:instructions",
        "--limit",
        "64",
        "--log-steps",
        "1",
        "--prompt-weight",
        "0.2",
    ],
    "before": ["sensitivity", "run", "--model", "pocket", *SENSITIVITY],
    "after": ["sensitivity", "run", "--model", "tuned", *SENSITIVITY],
    "change": ["sensitivity", "compare", "before", "after"],
    "gate": ["sensitivity", "check", "after", "--baseline", "before", "--max-increase", "9"],
    "variants": ["sensitivity", "variants", "--prompts", "prompts.jsonl", "--variants", "casing", "--per-kind", "2"],
    "grid": ["crosstask", "run", *CROSSTASK, *TARGETS, "--in-task", "pool", "--states"],
    "labels": ["crosstask", "label", *CROSSTASK, "--target", "pocket:tasks/colour_of", "--limit", "6"],
    "why": ["crosstask", "analyse", "--run", "grid"],
}


ALL = [*COMMANDS, "study"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_rows(folder / "prompts.jsonl", [{"question": "What colour is the sky?", "answer": "blue"}])
        for name, arguments in COMMANDS.items():
            assert main([*arguments, "--output", name]) == 0
        run_study(make_case(folder), folder / "study")
    return folder


def shown(runs: Path, *names: str) -> list[Section]:
    return sections([read_run(str(runs / name)) for name in names], limit=2)


def flat(section: Section) -> list[Any]:
    made: list[Any] = []
    for part in section.parts:
        made += [part, *(inner for _, parts in part.options for inner in parts)] if isinstance(part, Tabs) else [part]
    return made


def titles(section: Section, kind: type) -> list[str]:
    return [part.title for part in flat(section) if isinstance(part, kind)]


def test_a_study_shows_what_its_summary_says_trial_by_trial(runs: Path) -> None:
    (section,) = shown(runs, "study")
    summary = json.loads((runs / "study" / "summary.json").read_text())
    (finding,) = worded([Note(summary["finding"], "finding")])
    assert next(part for part in section.parts if isinstance(part, Note)) == finding
    assert not [title for title in titles(section, Figure) if title.startswith("Weight plane")]  # it has four cells
    by_name = {s["setting_name"]: s for s in summary["selection"]["settings"]}
    table = next(part for part in flat(section) if isinstance(part, Table) and part.title == "Settings")
    means = {name: setting["test"]["mean"] for name, setting in by_name.items()}
    assert {row[0]: row[6].value for row in table.rows} == means  # type: ignore[union-attr]
    curves = [part for part in flat(section) if isinstance(part, Figure) and part.title.startswith("Learning curves")]
    assert len(curves) == 2
    assert {row[1] for row in curves[0].values.rows} == {1, 2, 3}  # of the training rows; held-out data has two points
    trials = next(part for part in flat(section) if isinstance(part, Table) and part.title == "Every trial")
    assert len(trials.rows) == summary["trials"]["done"]


def test_no_real_run_is_shown_plainly_or_with_a_problem(runs: Path) -> None:
    for section in shown(runs, *ALL):
        assert section.problems == [] or section.problems == ()
        assert any(isinstance(part, Table) for part in flat(section))


def test_tuning_shows_curves_roles_and_an_example(runs: Path) -> None:
    (section,) = shown(runs, "tuned")
    assert titles(section, Figure) == ["Response NLL", "Prompt NLL", "Weighted loss", "Where the loss looks"]
    (example,) = [part for part in section.parts if isinstance(part, Passage)]
    pieces = example.lines[0][1]
    assert {piece.role for piece in pieces} >= {"user", "assistant", "eos", "template"}
    assert "".join(piece.text for piece in pieces).startswith("<|begin|>")
    assert any(piece.hint == "user, weight 0.20" for piece in pieces)
    (roles,) = [part for part in section.parts if isinstance(part, Table)]
    summary = json.loads((runs / "tuned" / "summary.json").read_text())
    assert sum(row[2] for row in roles.rows) == sum(summary["data_report"]["targets_per_role"].values())
    weighted = {row[0]: row[4] for row in roles.rows}
    assert weighted["assistant"] + weighted["eos"] == pytest.approx(100 * (1 - summary["prompt_share"]))


def test_sensitivity_ranks_sets_and_its_matrices_give_their_psi(runs: Path) -> None:
    (section,) = shown(runs, "before")
    (ranking,) = [part for part in section.parts if isinstance(part, Table) and part.title == "All sets"]
    psi = [row[[column.title for column in ranking.columns].index("psi")] for row in ranking.rows]
    assert len(psi) == 3
    assert psi == sorted(psi, reverse=True)
    matrices = [part for part in flat(section) if isinstance(part, Figure) and part.title.startswith("Matrix")]
    assert len(matrices) == 2  # the limit
    for matrix, value in zip(matrices, psi, strict=False):
        z = matrix.data[0]["z"]
        n = len(z)
        assert sum(abs(v) for row in z for v in row) / (n * (n - 1)) == pytest.approx(value)
        assert [z[i][i] for i in range(n)] == [0.0] * n
    passages = titles(section, Passage)
    assert [t.split(":")[0] for t in passages] == ["Wordings", "Which tokens move"] * 2


def test_two_sensitivity_runs_are_laid_over_each_other(runs: Path) -> None:
    *_, section, beside = shown(runs, "before", "tuned", "after")
    assert (beside.kind, beside.compares) == ("Sensitivity to wording, side by side", True)
    assert section.kind == "Sensitivity, overlaid"
    assert titles(section, Figure) == ["Kinds of change, side by side", "Set by set: before against after"]
    (table,) = [part for part in section.parts if isinstance(part, Table)]
    assert [column.title for column in table.columns] == ["set", "before", "after"]
    assert len(table.rows) == 3
    assert len(shown(runs, "before", "tuned")) == 2


@pytest.mark.parametrize("no_number", [float("nan"), None])
def test_sets_without_a_finite_psi_come_last_and_missing_ones_are_said(tmp_path: Path, no_number: float | None) -> None:
    run = make_sensitivity(tmp_path / "p", ["yes", "no"], sets=4)
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    rows[1]["indices"]["all"]["psi"] = no_number
    rows[1]["attribution"]["all"]["tokens"][0]["tokens"][1][1] = no_number
    write_rows(run / "rows.jsonl", rows[:3])
    (section,) = sections([read_run(str(run))], limit=4)
    assert not section.problems
    (ranking,) = [part for part in section.parts if isinstance(part, Figure) and part.title == "Sets ranked by psi"]
    psi = [row[2] for row in ranking.values.rows]
    assert psi[0] > psi[1]
    assert psi[2] != psi[2]
    assert [row[3] for row in ranking.values.rows][2] == "set-1 yes, 2 prompts"
    assert "of 2 carry half of the sum. 1 set without a finite psi at the end." in ranking.caption
    warnings = [part.text for part in section.parts if isinstance(part, Note) and part.tone == "warning"]
    assert warnings == ["The summary is over 4 sets, but the rows hold 3: the others cannot be shown."]


def test_cross_task_shows_baselines_sources_and_votes_with_validity(runs: Path) -> None:
    (section,) = shown(runs, "grid")
    by_target = ["Accuracy and validity: who_has", "Accuracy and validity: colour_of", "Label distribution: colour_of"]
    assert titles(section, Figure) == ["Accuracy", "Validity", *by_target]
    accuracy = next(part for part in section.parts if isinstance(part, Figure))
    names = [
        row[0] for row in accuracy.values.rows
    ]  # the first target is no source of its own, but stands where the other has it
    assert names == ["zero-shot", "in-task", "who_has", "yes_no", "sentiment", "vote"]
    summary = json.loads((runs / "grid" / "summary.json").read_text())
    found = {row["condition"]: row["accuracy"] for row in summary["targets"]["colour_of"]["conditions"]}
    assert {row[0]: (row[2].value, row[2].low) for row in accuracy.values.rows} == {
        c: (a["value"], a["low"]) for c, a in found.items()
    }
    (why,) = shown(runs, "why")
    assert titles(why, Figure) == ["Rank correlation by layer: colour_of", "Similarity by layer: colour_of"]
    (left_out,) = [part.text for part in why.parts if isinstance(part, Note)]
    assert left_out.startswith("1 target had fewer than 3 sources")
    assert left_out.endswith("is left out: who_has.")
    (labels,) = shown(runs, "labels")
    assert titles(labels, Table) == ["Where labels come from", "Labelled inputs"]


def test_free_answers_are_counted_and_have_no_distribution_of_labels(runs: Path) -> None:
    (section,) = shown(runs, "grid")
    tables = {part.title: without_empty(part) for part in flat(section) if isinstance(part, Table)}
    columns = {
        name: [column.title for column in tables[f"Conditions: {name}"].columns] for name in ("who_has", "colour_of")
    }
    assert columns["who_has"][-1] == "distinct answers"
    assert "distinct answers" not in columns["colour_of"]
    summary = json.loads((runs / "grid" / "summary.json").read_text())
    counts = [row["labels"]["distinct answers"] for row in summary["targets"]["who_has"]["conditions"]]
    assert [row[-1] for row in tables["Conditions: who_has"].rows] == counts


def test_aligned_and_benchmarked_runs(tmp_path: Path) -> None:
    """Written by hand in the form of their commands, which need packages that may be absent."""
    rewards = [
        {"kind": k, "step": i, "loss": 0.7 - i / 50, "rewards/margins": i / 9, "rewards/chosen": i / 20}
        for i in range(9)
        for k in ("train", "eval")
    ]
    write_json(tmp_path / "a" / "config.json", {"command": "align", "config": {"model": "m"}, "resolved": {}})
    write_rows(tmp_path / "a" / "rows.jsonl", rewards)
    write_json(
        tmp_path / "a" / "summary.json",
        {"lineage": [{"command": "tune", "model": "pocket"}, {"command": "align", "model": "runs/t"}]},
    )
    score = {"value": 0.5, "low": 0.3, "high": 0.7, "n": 20}
    write_json(tmp_path / "b" / "config.json", {"command": "bench run", "config": {"model": "m"}, "resolved": {}})
    write_json(
        tmp_path / "b" / "summary.json",
        {"scores": {"arc": {"acc": score, "f1": score}, "boolq": {"acc": score | {"n": 9}}}},
    )
    aligned, bench = shown(tmp_path, "a", "b")
    assert titles(aligned, Figure) == ["Rewards", "Reward margin", "Loss"]
    assert titles(aligned, Table) == ["Where the model comes from"]
    assert titles(bench, Figure) == ["Scores: acc", "Scores: f1"]
    assert (
        "9 to 20 items per task, with 95 % intervals" in next(p for p in bench.parts if isinstance(p, Figure)).caption
    )
    assert len(next(p for p in bench.parts if isinstance(p, Table)).rows) == 3


def test_scores_without_an_interval_and_of_which_less_is_better(tmp_path: Path) -> None:
    score = {"value": 3.7e24, "low": None, "high": None, "n": 20, "higher_is_better": False}
    write_json(tmp_path / "b" / "config.json", {"command": "bench run", "config": {"model": "m"}, "resolved": {}})
    found = {"scores": {"t": {"perplexity,none": score}}, "benchmarks": {"t": {"metric": "perplexity,none"} | score}}
    write_json(tmp_path / "b" / "summary.json", found)
    (bench,) = shown(tmp_path, "b")
    for table in (p for p in bench.parts if isinstance(p, Table)):
        assert table.rows[0][1] == "perplexity,none (lower is better)"
    assert "without intervals" in next(p for p in bench.parts if isinstance(p, Figure)).caption
    assert number(score["value"]) == "3.7e+24"


def test_all_of_them_on_one_page_in_a_browser(runs: Path, tmp_path: Path) -> None:
    made = report(
        ReportConfig(directories=[str(runs / name) for name in ALL], output=str(tmp_path / "r.html"), json=True)
    )
    with chromium() as browser, visit(browser, Path(made["path"])) as seen:
        seen.scroll()
        assert seen.undrawn() == 0
        assert seen.page.locator("section[id^=run-]").count() == len(ALL) + 2  # the overlay, and two side by side
        links = [re.sub(r".*\n", "", text) for text in seen.page.locator("nav a").all_inner_texts()]
        assert links == [*ALL, "before and after", "before and after"]
        seen.page.locator("nav a").last.click()
        assert seen.page.url.endswith(f"#run-{len(ALL) + 2}")
